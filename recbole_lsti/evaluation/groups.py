"""Metrics by group of users: does a model serve long and short histories, new users and rare items alike?

`row_features` says what is known of each evaluated row (a history and its target), `group_table` cuts the rows into
groups by each of these and gives the mean of every metric there with its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.sparse import csr_array

from recbole_lsti.data.events import HistoryRows
from recbole_lsti.errors import one_of

BUCKETS = ("quantile", "log")
FLAGS = {"new_item": ("new item", "known item"), "new_user": ("new user", "known user")}
UNKNOWN, OTHERS = "unknown", "all others"
MOST_TOKENS = 20  # of a field have a group of their own
# above this many users the bootstrap and the normal interval agree, and the normal one is computed at once
BOOTSTRAP_USERS = 5000
DURATIONS = {
    "under 1 minute": 60,
    "1 minute to 1 hour": 3600,
    "1 hour to 1 day": 86400,
    "1 day to 1 week": 7 * 86400,
    "1 week to 30 days": 30 * 86400,
    "30 days to 1 year": 365 * 86400,
    "1 year and more": np.inf,
}
UNITS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}


class Shown(NamedTuple):
    """The events that the rows of a training set show, as histories or as targets: (T,) int64 each."""

    user: np.ndarray
    item: np.ndarray


# ---- what is known of a row ---------------------------------------------------------------------------------------


def row_features(train_dataset: Any, eval_dataset: Any) -> pd.DataFrame:
    """Describe each evaluated row by what was known before its target.

    Args:
        train_dataset (LSTIDataset): the part that was trained on.
        eval_dataset (LSTIDataset): the part that is evaluated, its rows in the order of evaluation.
    Returns:
        DataFrame: a row an evaluated row, index 0..R-1, with the columns
        user (int64 id), history_length (items before the target, not cut to MAX_ITEM_LIST_LENGTH), user_activity
        (events of the user in the training part), item_popularity (events of the target item in it),
        seconds_since_last (seconds, float64, from the last event of the history to the target; NaN where the files
        do not tell), new_item and new_user (bool: no event in the training part), and a column for each field of
        the .user file that the data set has loaded: numbers as float64, tokens as text, lists left out.
    """
    shown = _shown_in(train_dataset)
    rows = eval_dataset.inter_feat
    user = rows[eval_dataset.uid_field].numpy()
    activity = np.bincount(shown.user, minlength=eval_dataset.user_num)[user]
    popularity = np.bincount(shown.item, minlength=eval_dataset.item_num)[rows[eval_dataset.iid_field].numpy()]
    if isinstance(rows, HistoryRows):
        targets = rows.targets
        length = targets - rows.events.first[targets]
        since = (rows.events.time[targets] - rows.events.time[targets - 1]).astype(np.float64)
    else:  # rows read from benchmark files hold no more of the past than their lists
        length = rows[eval_dataset.item_list_length_field].numpy()
        since = np.full(len(user), np.nan)
    columns: dict[str, Any] = {
        "user": user.astype(np.int64),
        "history_length": length.astype(np.int64),
        "user_activity": activity.astype(np.int64),
        "item_popularity": popularity.astype(np.int64),
        "seconds_since_last": since,
        "new_item": popularity == 0,
        "new_user": activity == 0,
    }
    for field, values in _user_fields(eval_dataset, user).items():
        columns[field if field not in columns else f"{field}.user"] = values
    return pd.DataFrame(columns)


def _shown_in(dataset: Any) -> Shown:
    """The training events: of each user those up to the last one that a training row asks for."""
    rows = dataset.inter_feat
    if isinstance(rows, HistoryRows):
        events, last = rows.events, rows.targets
        end = np.zeros(len(events.first), dtype=np.int64)  # of each user, kept at the user's first event
        np.maximum.at(end, events.first[last], last)
        inside = np.arange(len(end)) <= end[events.first]
        inside &= end[events.first] > 0
        users, items = (events.columns[field].numpy()[inside] for field in (dataset.uid_field, dataset.iid_field))
        return Shown(users, items)
    # of benchmark files, the longest row of a user shows the user's events
    user, length = rows[dataset.uid_field].numpy(), rows[dataset.item_list_length_field].numpy()
    longest = pd.Series(length).groupby(user).idxmax().to_numpy()
    listed = rows[dataset.item_id_list_field].numpy()[longest]
    row, step = np.nonzero(listed)
    users = np.concatenate([user[longest], user[longest][row]])
    return Shown(users, np.concatenate([rows[dataset.iid_field].numpy()[longest], listed[row, step]]))


def _user_fields(dataset: Any, user: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of the .user file for the users of the rows; lists have no groups and are left out."""
    if dataset.user_feat is None:
        return {}
    found: dict[str, np.ndarray] = {}
    place = np.zeros(dataset.user_num, dtype=np.int64)
    place[dataset.user_feat[dataset.uid_field].numpy()] = np.arange(len(dataset.user_feat))
    for field in dataset.user_feat.columns:
        values = dataset.user_feat[field]
        if field == dataset.uid_field or values.ndim > 1:
            continue
        values = values.numpy()[place[user]]
        if field in dataset.field2id_token:
            tokens = np.asarray(dataset.field2id_token[field]).astype(str)
            text: np.ndarray = tokens[values].astype(object)
            text[values == 0] = None
            found[field] = text
        else:
            found[field] = values.astype(np.float64)
    return found


# ---- groups -------------------------------------------------------------------------------------------------------


def group_rows(values: pd.Series, buckets: str = "quantile", n_buckets: int = 5) -> pd.Series:
    """Put each row into a group that can be read.

    Whole numbers are cut into ranges such as "6-20", seconds into ranges of time, two-valued flags and tokens are
    groups themselves. Of more than 20 tokens, those that are all numbers are cut like numbers, and else the 20 most
    frequent stand alone. What is missing is the group "unknown".

    Args:
        values (Series): (R,) a column of `row_features`.
        buckets (str): "quantile", ranges with about as many rows each, or "log", ranges that grow about threefold
            (0, 1-2, 3-9, 10-29, 30-99, ...; seconds: minute, hour, day, week, ...).
        n_buckets (int): most quantile ranges; equal values stay together, so there may be fewer.
    Returns:
        Series: (R,) ordered categories; only those that have rows.
    Raises:
        ValueError: `buckets` is neither, or `n_buckets` is below 1.
    """
    if buckets not in BUCKETS:
        raise one_of("buckets", buckets, BUCKETS)
    if n_buckets < 1:
        raise ValueError(f"n_buckets ({n_buckets}) must be 1 or more")
    if values.name in FLAGS:
        yes, no = FLAGS[str(values.name)]
        return _ordered(values.map({True: yes, False: no}), [yes, no])
    if not pd.api.types.is_numeric_dtype(values):
        tokens = values.value_counts().index
        numbers = pd.to_numeric(values, errors="coerce")
        if len(tokens) <= MOST_TOKENS or numbers.notna().sum() < values.notna().sum():
            frequent = list(tokens[:MOST_TOKENS])
            shown = values.where(values.isin(frequent) | values.isna(), OTHERS)
            return _ordered(shown, [*frequent, OTHERS])
        values = numbers  # ages and years are often kept as tokens
    known = values.dropna().to_numpy(dtype=np.float64)
    if not len(known):
        return _ordered(values.map({}), [])
    log = buckets == "log" and known.min() >= 0  # what may be negative has no logarithm
    if log and values.name == "seconds_since_last":
        uppers, labels = np.array(list(DURATIONS.values())), list(DURATIONS)
        place = np.searchsorted(uppers, values.to_numpy(), side="right")  # the upper end belongs to the next range
    else:
        steps = _log_steps(known.max()) if log else np.quantile(known, np.arange(1, n_buckets) / n_buckets)
        uppers = np.unique(np.append(_observed(known, steps), known.max()))
        place = np.searchsorted(uppers, values.to_numpy(), side="left")
        labels = _labels(known, uppers, "seconds" in str(values.name))
    places = pd.Series(place, index=values.index).where(values.notna())
    return _ordered(places.map(dict(enumerate(labels))), labels)


def _ordered(labels: pd.Series, order: Sequence[Any]) -> pd.Series:
    labels = labels.astype(object).where(labels.notna(), UNKNOWN)
    there = set(labels)
    names = [name for name in dict.fromkeys([*order, UNKNOWN]) if name in there]
    return labels.astype(pd.CategoricalDtype(names, ordered=True))


def _log_steps(largest: float) -> np.ndarray:
    """Last whole numbers of the ranges 0, 1-2, 3-9, 10-29, ... up to the largest value."""
    powers = 10.0 ** np.arange(np.ceil(np.log10(max(largest, 1))) + 1)
    return np.sort(np.concatenate([powers, 3 * powers])) - 1


def _observed(known: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The largest observed value up to each step, so that a range ends at a value that occurs."""
    ordered = np.sort(known)
    place = np.searchsorted(ordered, steps, side="right") - 1
    return ordered[place[place >= 0]]


def _labels(known: np.ndarray, uppers: np.ndarray, seconds: bool) -> list[str]:
    """ "lowest-highest" of the values in each range, in a unit of time where they are seconds."""
    ordered = np.sort(known)
    lowers = ordered[np.r_[0, np.searchsorted(ordered, uppers[:-1], side="right")]]
    whole = not seconds and bool(np.all(known == np.round(known)))
    write = _duration if seconds else (lambda value: f"{value:.0f}" if whole else f"{value:.4g}")
    texts = [(write(low), write(high)) for low, high in zip(lowers, uppers, strict=True)]
    labels = [low if low == high else f"{low}-{high}" if whole else f"{low} to {high}" for low, high in texts]
    if len(set(labels)) < len(labels):  # rounded to one text: exact then
        labels = [f"{low!r} to {high!r}" for low, high in zip(lowers.tolist(), uppers.tolist(), strict=True)]
    return labels


def _duration(seconds: float) -> str:
    for unit, size in UNITS.items():
        if seconds >= size:
            text = f"{seconds / size:.3g}"
            return f"{text} {unit}{'' if text == '1' else 's'}"
    return f"{seconds:.3g} seconds"


# ---- means and intervals ------------------------------------------------------------------------------------------


def group_table(
    features: pd.DataFrame,
    user_scores: Any,
    buckets: str = "quantile",
    n_buckets: int = 5,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return the mean of every metric in every group, with an interval that treats a user's rows as one draw.

    Up to 5,000 users of a group the interval is the percentile bootstrap over users, above that the normal one with
    the variance clustered by user, which is the same to three digits there; `interval` names it. A group of one user
    has none (NaN).

    Args:
        features (DataFrame): (R, ...) from `row_features`.
        user_scores (UserScores): user (R,), metrics (M names), raw and unseen (R, M), rows in the order of `features`;
            a NaN leaves the row out of that metric.
        buckets, n_buckets: see `group_rows`.
        level (float): coverage of the intervals.
        resamples (int): bootstrap samples.
        seed (int): of the bootstrap.
    Returns:
        list[dict]: first all rows (feature "all"), then a dict a group: feature, group, rows, users, interval
        ("bootstrap" or "normal"), and raw and unseen, each metric -> {mean, low, high, rows}. Plain data.
    Raises:
        ValueError: the two do not describe the same rows.
    """
    user = np.asarray(user_scores.user)
    if len(user) != len(features) or not np.array_equal(user, features["user"].to_numpy()):
        raise ValueError(f"features ({len(features)} rows) must describe the {len(user)} rows of user_scores, in order")
    values = np.concatenate([user_scores.raw, user_scores.unseen], axis=1).astype(np.float64)  # (R, 2M)
    tables = [_describe("all", "all", user, values, user_scores.metrics, level, resamples, seed)]
    for feature in features.columns.drop("user"):
        groups = group_rows(features[feature], buckets, n_buckets)
        for label in groups.cat.categories:
            inside = (groups == label).to_numpy()
            tables.append(
                _describe(feature, label, user[inside], values[inside], user_scores.metrics, level, resamples, seed)
            )
    return tables


def _describe(
    feature: str,
    label: str,
    user: np.ndarray,
    values: np.ndarray,
    metrics: Sequence[str],
    level: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    sums, counts = sums_by_user(user, values)
    normal = len(sums) > BOOTSTRAP_USERS
    total = counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums.sum(axis=0) / total
    low, high = normal_interval(sums, counts, level) if normal else bootstrap(sums, counts, level, resamples, seed)
    entry: dict[str, Any] = {"feature": feature, "group": str(label), "rows": len(user), "users": len(sums)}
    entry["interval"] = "normal" if normal else "bootstrap"
    for number, ranking in enumerate(("raw", "unseen")):
        columns = range(number * len(metrics), (number + 1) * len(metrics))
        entry[ranking] = {
            metric: {"mean": float(mean[c]), "low": float(low[c]), "high": float(high[c]), "rows": int(total[c])}
            for metric, c in zip(metrics, columns, strict=True)
        }
    return entry


def sums_by_user(user: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what each user adds to the means: sums and numbers of the values that are no NaN.

    Args:
        user (ndarray): (R,) ids.
        values (ndarray): (R, C) float64.
    Returns:
        tuple: sums (U, C) and counts (U, C), float64, the users in order of id.
    """
    known, code = np.unique(user, return_inverse=True)
    there = ~np.isnan(values)
    rows = np.arange(len(user))
    belongs = csr_array((np.ones(len(user)), (code, rows)), shape=(len(known), len(user)))  # (U, R)
    return belongs @ np.where(there, values, 0.0), belongs @ there.astype(np.float64)


def bootstrap(
    sums: np.ndarray, counts: np.ndarray, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile bootstrap interval of sum / count, whole users drawn with replacement.

    Args:
        sums, counts (ndarray): (U, C) from `sums_by_user`.
        level (float): coverage.
        resamples (int): samples drawn.
        seed (int): of the generator.
    Returns:
        tuple: lower and upper ends, (C,) float64; NaN with fewer than two users.
    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; whole clusters are drawn as in
        Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.
    """
    n_users, n_columns = sums.shape
    if n_users < 2:
        return np.full(n_columns, np.nan), np.full(n_columns, np.nan)
    random = np.random.default_rng(seed)
    means = np.empty((resamples, n_columns))
    step = max(1, 2_000_000 // n_users)  # some 16 MB of draws at a time
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = random.integers(n_users, size=(size, n_users)) + n_users * np.arange(size)[:, None]
        weight = np.bincount(drawn.ravel(), minlength=size * n_users).reshape(size, n_users).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):  # a sample without a value of a metric
            means[start : start + size] = (weight @ sums) / (weight @ counts)
    ends = np.full((2, n_columns), np.nan)
    for column in range(n_columns):
        known = means[~np.isnan(means[:, column]), column]
        if len(known):
            ends[:, column] = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return ends[0], ends[1]


def normal_interval(sums: np.ndarray, counts: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return the normal interval of sum / count with the variance of a ratio over users.

    Args:
        sums, counts (ndarray): (U, C) from `sums_by_user`.
        level (float): coverage.
    Returns:
        tuple: lower and upper ends, (C,) float64; NaN with fewer than two users.
    Source: Cochran, Sampling Techniques, 3rd ed. 1977, section 2.11 (ratio estimator).
    """
    n_users = len(sums)
    total = counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums.sum(axis=0) / total
        rest = ((sums - mean * counts) ** 2).sum(axis=0)
        error = np.sqrt(rest * n_users / (n_users - 1)) / total
    margin = stats.norm.ppf((1 + level) / 2) * error
    return mean - margin, mean + margin
