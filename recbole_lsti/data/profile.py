"""What interactions look like in numbers, and what RecBole's float32 sort would do to them; numpy only."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recbole_lsti.data.grouping import group_rows

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


class Damage(NamedTuple):
    """What sorting by time as float32 changes.

    Attributes:
        rows_moved: rows that stand elsewhere among their user's rows.
        tests_changed: users whose last item is another one.
        users: users in all.
    """

    rows_moved: int
    tests_changed: int
    users: int


def profile(user: np.ndarray, item: np.ndarray, time: np.ndarray | None, session_gap: float) -> dict[str, Any]:
    """Describe interactions.

    Args:
        user, item (ndarray): (rows,) codes from 0 without gaps.
        time (ndarray | None): (rows,) seconds; None: what needs time is left out.
        session_gap (float): a session ends where a user's next event comes more than so many seconds later.
    Returns:
        dict: users, items, rows, density (0..1), length (rows of a user, at QUANTILES), repeat_share (0..1, rows whose
        user had the item before), gap (seconds to the user's previous event, at QUANTILES), sessions, and
        sessions_per_user and rows_per_session (means).
    """
    n_users, n_items, rows = int(user.max()) + 1, int(item.max()) + 1, len(user)
    lengths = np.bincount(user)
    pairs = np.unique(user.astype(np.int64) * n_items + item).size
    found: dict[str, Any] = {
        "users": n_users,
        "items": n_items,
        "rows": rows,
        "density": rows / n_users / n_items,
        "length": np.quantile(lengths, QUANTILES).tolist(),
        "repeat_share": 1 - pairs / rows,
    }
    if time is not None:
        order = _by_user_and_time(user, n_users, time)
        gaps = np.diff(time[order])[np.diff(user[order]) == 0]
        sessions = n_users + int(np.count_nonzero(gaps > session_gap))
        found["gap"] = np.quantile(gaps, QUANTILES).tolist() if len(gaps) else None
        found["sessions"] = sessions
        found["sessions_per_user"] = sessions / n_users
        found["rows_per_session"] = rows / sessions
    return found


def float32_damage(user: np.ndarray, item: np.ndarray, time: np.ndarray) -> Damage:
    """Compare RecBole's order, by time as float32, with the order by time as it is written; both are stable.

    Args:
        user, item (ndarray): (rows,) codes from 0 without gaps.
        time (ndarray): (rows,) seconds, int64 or float64.
    """
    n_users = int(user.max()) + 1
    exact = _by_user_and_time(user, n_users, time)
    rounded = _by_user_and_time(user, n_users, time.astype(np.float32))
    last = np.cumsum(np.bincount(user, minlength=n_users)) - 1
    return Damage(
        rows_moved=int(np.count_nonzero(exact != rounded)),
        tests_changed=int(np.count_nonzero(item[exact[last]] != item[rounded[last]])),
        users=n_users,
    )


def _by_user_and_time(user: np.ndarray, n_users: int, time: np.ndarray) -> np.ndarray:
    by_time = np.argsort(time, kind="stable")
    return by_time[group_rows(user[by_time], n_users).rows]
