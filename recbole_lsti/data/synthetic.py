"""Synthetic users with a planted stable taste and planted sessions: data of which it is known what there is to learn.

Items belong to groups. A user has one favourite group for good, the taste; a session has a topic, another group, that
lasts a random number of events. The next item comes from the taste group with probability `taste_strength`, from the
topic's group with `session_strength`, else from anywhere. The idea, data whose predictability is a parameter, is
Spotlight's (Kula 2017).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

EVENT_GAP, SESSION_GAP = 60, 86_400  # seconds between events of a session, and from one session to the next


class Synthetic(NamedTuple):
    """What was drawn, and from where.

    events: one row an event, in time order: user, item, timestamp (seconds), session (number of the user's session,
        from 0), topic (group) and source (`taste`, `session` or `noise`: where the item was drawn from).
    taste: (n_users,) int64, each user's group.  group: (n_items,) int64, each item's group.
    """

    events: pd.DataFrame
    taste: np.ndarray
    group: np.ndarray


def synthetic(
    n_users: int = 400,
    n_items: int = 240,
    *,
    n_groups: int = 12,
    taste_strength: float = 0.4,
    session_strength: float = 0.4,
    n_events: int = 40,
    session_length: float = 8.0,
    skew: float = 1.0,
    seed: int = 0,
) -> Synthetic:
    """Draw users, items and events.

    Args:
        n_users, n_items, n_groups (int): how many; items are dealt to groups in equal parts, up to one.
        taste_strength (float): probability, 0..1, that an event comes from the user's taste group.
        session_strength (float): probability, 0..1, that it comes from the session's topic; what is left to 1 is noise.
        n_events (int): events of each user.
        session_length (float): mean number of events of a session, 1 or more; the lengths are geometric.
        skew (float): within a group the r-th item is drawn with a weight of r^-skew (Zipf); 0: all alike.
        seed (int): the same seed and settings give the same data.
    Returns:
        Synthetic: events in time order and the planted truth.
    Raises:
        ValueError: a number out of its range.
    """
    _check(n_users, n_items, n_groups, n_events, taste_strength, session_strength, session_length, skew)
    random = np.random.default_rng(seed)
    group = np.arange(n_items) % n_groups
    shape = (n_users, n_events)
    taste = random.integers(n_groups, size=n_users)
    starts = random.random(shape) < 1 / session_length
    starts[:, 0] = True
    session = starts.cumsum(axis=1) - 1
    topics = (taste[:, None] + random.integers(1, n_groups, size=shape)) % n_groups  # one a session, never the taste
    topic = np.take_along_axis(topics, session, axis=1)

    draw = random.random(shape)
    source = np.where(draw < taste_strength, 0, np.where(draw < taste_strength + session_strength, 1, 2))
    anywhere = random.integers(n_groups, size=shape)
    chosen = np.choose(source, [np.broadcast_to(taste[:, None], shape), topic, anywhere])
    item = _draw_items(random, chosen, group, n_groups, skew)

    first = random.integers(SESSION_GAP, size=(n_users, 1))
    time = first + np.where(starts, SESSION_GAP, EVENT_GAP).cumsum(axis=1)
    events = pd.DataFrame(
        {
            "user": np.repeat(np.arange(n_users), n_events),
            "item": item.ravel(),
            "timestamp": time.ravel(),
            "session": session.ravel(),
            "topic": topic.ravel(),
            "source": np.array(["taste", "session", "noise"])[source.ravel()],
        }
    )
    return Synthetic(events.sort_values("timestamp", kind="stable", ignore_index=True), taste, group)


def write_synthetic(folder: str | Path, name: str = "synthetic", data: Synthetic | None = None) -> Path:
    """Write atomic files: the events, each item's group and each user's taste.

    Args:
        folder: where data sets lie (`data_path`).
        name (str): the data set's name.
        data (Synthetic | None): what `synthetic` has drawn; None: its defaults.
    Returns:
        Path: folder/name with name.inter, name.item and name.user; user 3 is written u3, item 5 i5, group 1 g1.
    """
    data = synthetic() if data is None else data
    target = Path(folder) / name
    target.mkdir(parents=True, exist_ok=True)
    events = data.events
    columns = {
        "user_id:token": "u" + events["user"].astype(str),
        "item_id:token": "i" + events["item"].astype(str),
        "timestamp:float": events["timestamp"],
    }
    items = {"item_id:token": _tokens("i", range(len(data.group))), "group:token": _tokens("g", data.group)}
    users = {"user_id:token": _tokens("u", range(len(data.taste))), "taste:token": _tokens("g", data.taste)}
    for suffix, table in (("inter", columns), ("item", items), ("user", users)):
        pd.DataFrame(table).to_csv(target / f"{name}.{suffix}", sep="\t", index=False)
    return target


def shuffled(data: Synthetic, seed: int = 0) -> Synthetic:
    """Return the data with all items dealt anew to all events: popularity stays, taste and sessions are gone."""
    items = np.random.default_rng(seed).permutation(data.events["item"].to_numpy())
    return data._replace(events=data.events.assign(item=items, source="noise"))


def _draw_items(
    random: np.random.Generator, chosen: np.ndarray, group: np.ndarray, n_groups: int, skew: float
) -> np.ndarray:
    item = np.empty_like(chosen)
    for number in range(n_groups):
        members, wanted = np.flatnonzero(group == number), chosen == number
        weight = np.arange(1, len(members) + 1) ** -float(skew)
        item[wanted] = random.choice(members, size=wanted.sum(), p=weight / weight.sum())
    return item


def _tokens(letter: str, numbers: range | np.ndarray) -> list[str]:
    return [f"{letter}{number}" for number in numbers]


def _check(
    n_users: int,
    n_items: int,
    n_groups: int,
    n_events: int,
    taste_strength: float,
    session_strength: float,
    session_length: float,
    skew: float,
) -> None:
    for name, value in (("n_users", n_users), ("n_events", n_events)):
        if value < 1:
            raise ValueError(f"{name} ({value}) must be 1 or more")
    if not 2 <= n_groups <= n_items:
        raise ValueError(f"n_groups ({n_groups}) must be from 2 to n_items ({n_items})")
    for name, share in (("taste_strength", taste_strength), ("session_strength", session_strength)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} ({share}) must be from 0 to 1")
    if taste_strength + session_strength > 1 + 1e-9:
        raise ValueError(f"taste_strength + session_strength ({taste_strength + session_strength:g}) must be at most 1")
    if session_length < 1:
        raise ValueError(f"session_length ({session_length}) must be 1 or more")
    if skew < 0:
        raise ValueError(f"skew ({skew}) must be 0 or more")
