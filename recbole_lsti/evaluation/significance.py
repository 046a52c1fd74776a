"""Is one model better than another, or is it chance? Paired tests over users, and ranks over data sets.

A user's rows are not independent, so each user counts once: with the mean of the user's rows, over all seeds. The users
are what the tests generalise over; what another seed would change is told by `over_seeds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from recbole.evaluator.register import metrics_dict
from scipy import stats
from statsmodels.stats.multitest import multipletests

from recbole_lsti.evaluation.groups import bootstrap, sums_by_user

UNDECIDED = "not told apart"
# a mean of the same numbers in another order differs by this much at most; Wilcoxon's test would rank such differences
ROUNDING = 1e-12


class Paired(NamedTuple):
    """One metric of A against B over the users that have a value in both.

    Attributes:
        users: their number.
        mean_a, mean_b: means over users.
        difference: mean_a - mean_b.
        low, high: ends of its bootstrap interval.
        p_wilcoxon, p_t: two-sided p values; 1 where every difference is zero, NaN with fewer than two users.
        rank_sum: Wilcoxon's positive less its negative rank sum: above 0 where A has the larger values.
    """

    users: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_wilcoxon: float
    p_t: float
    rank_sum: float


class DatasetRanks(NamedTuple):
    """How variants rank over data sets.

    Attributes:
        variants: V names.
        datasets: data sets on which all of them have a value.
        mean_rank: (V,) 1 = best; ties share their mean rank.
        p_friedman: p value of "all rank alike"; NaN with fewer than three variants or two data sets.
        critical_difference: mean ranks further apart than this differ (Nemenyi); NaN with fewer than two of either.
    """

    variants: list[str]
    datasets: int
    mean_rank: np.ndarray
    p_friedman: float
    critical_difference: float


def user_means(user: np.ndarray, runs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return each user's mean over the user's rows, and over the runs of several seeds.

    Args:
        user (ndarray): (R,) ids or tokens.
        runs (sequence of ndarray): one (R, M) float64 a seed, all with the rows of `user`; NaN: no value.
    Returns:
        tuple: (U,) users in order, and (U, M) means; NaN where a user has no value.
    """
    means = []
    for values in runs:
        sums, counts = sums_by_user(user, values)
        with np.errstate(invalid="ignore"):
            means.append(sums / counts)
    stacked = np.stack(means)
    there = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        return np.unique(user), np.where(there, stacked, 0).sum(axis=0) / there.sum(axis=0)


def paired(a: np.ndarray, b: np.ndarray, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> list[Paired]:
    """Compare A with B metric by metric: bootstrap interval, Wilcoxon signed-rank and t test of the differences.

    Both tests are two-sided, so that neither side has to be named the better one beforehand; which one is better is
    said by the sign of the difference and the metric's direction, see `verdict`.

    Args:
        a, b (ndarray): (U, M) values of the same users and metrics; a NaN leaves the user out of that metric.
        level (float): coverage of the interval.
        resamples (int): bootstrap samples of users; one sample serves all metrics.
        seed (int): of the bootstrap.
    Returns:
        list[Paired]: one a metric.
    Raises:
        ValueError: a and b are of different shapes.
    Source: Wilcoxon, Biometrics Bulletin 1(6), 1945; both tests are advised for per-user differences of rankings by
        Smucker, Allan & Carterette, CIKM 2007.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"a {a.shape} and b {b.shape} must be of one shape (users, metrics)")
    difference = a - b
    difference[np.abs(difference) < ROUNDING] = 0.0
    there = ~np.isnan(difference)
    low, high = bootstrap(np.where(there, difference, 0.0), there.astype(np.float64), level, resamples, seed)
    found = []
    for metric in range(a.shape[1]):
        inside = there[:, metric]
        n_users = int(inside.sum())
        if n_users == 0:
            found.append(Paired(0, *[float("nan")] * 8))
            continue
        own, other = float(a[inside, metric].mean()), float(b[inside, metric].mean())
        ends = (float(low[metric]), float(high[metric])) if n_users > 1 else (float("nan"), float("nan"))
        found.append(Paired(n_users, own, other, own - other, *ends, *_tests(difference[inside, metric])))
    return found


def _tests(difference: np.ndarray) -> tuple[float, float, float]:
    """p of Wilcoxon's test, p of the t test, and Wilcoxon's positive less negative rank sum."""
    changed = difference[difference != 0]
    ranks = stats.rankdata(np.abs(changed))
    rank_sum = float(ranks[changed > 0].sum() - ranks[changed < 0].sum())
    if len(difference) < 2:
        return float("nan"), float("nan"), rank_sum
    if not len(changed):
        return 1.0, 1.0, 0.0
    # Wilcoxon's test leaves out who did not change; where few did SciPy is exact, but not if it sees the zeros
    signed_ranks = float(stats.wilcoxon(changed).pvalue)
    if np.ptp(difference) < ROUNDING:  # no spread: the t statistic is infinite
        return signed_ranks, 0.0, rank_sum
    return signed_ranks, float(stats.ttest_1samp(difference, 0.0).pvalue), rank_sum


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return the p values corrected for their number; a NaN stays one and does not count.

    Source: Holm, Scandinavian Journal of Statistics 6(2), 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    if known.any():
        corrected[known] = multipletests(p[known], method="holm")[1]
    return corrected


def smaller_is_better(metric: str) -> bool:
    """Whether less of a metric such as "giniindex@10" is better, as RecBole's register says; no where it is unknown."""
    known = metrics_dict.get(metric.partition("@")[0].lower())
    return bool(getattr(known, "smaller", False))


def verdict(
    metric: str, found: Paired, p_wilcoxon: float, p_t: float, names: tuple[str, str] = ("A", "B"), alpha: float = 0.05
) -> str:
    """Say which side is better: "A better", "B better" or "not told apart".

    A side is better where both tests reject and both point the same way, so that neither a few large differences nor
    many tiny ones decide alone.

    Args:
        metric (str): its name; it says whether more is better.
        found (Paired): the comparison.
        p_wilcoxon, p_t (float): its p values, corrected.
        names (tuple): what the sides are called.
        alpha (float): level of the tests.
    """
    certain = p_wilcoxon <= alpha and p_t <= alpha  # False with NaN
    if not certain or found.difference * found.rank_sum <= 0:
        return UNDECIDED
    a_wins = (found.difference > 0) != smaller_is_better(metric)
    return f"{names[0] if a_wins else names[1]} better"


def over_seeds(values: Sequence[float]) -> tuple[float, float, int]:
    """Return mean, sample standard deviation (NaN for one) and number of the values of several seeds; NaN left out."""
    known = np.asarray([value for value in values if value is not None], dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return float("nan"), float("nan"), 0
    return float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else float("nan"), len(known)


def rank_over_datasets(
    variants: Sequence[str], values: np.ndarray, smaller: bool = False, alpha: float = 0.05
) -> DatasetRanks:
    """Rank the variants on each data set and test whether their mean ranks differ.

    Args:
        variants (sequence of str): V names.
        values (ndarray): (D, V) one metric, a row a data set; rows with a NaN are left out.
        smaller (bool): whether less is better.
        alpha (float): level of the critical difference.
    Raises:
        ValueError: `values` has not a column a variant.
    Source: Demsar, JMLR 7, 2006, sections 3.2.2: Friedman's test, and Nemenyi's critical difference
        q sqrt(V (V + 1) / (6 D)) with q the studentized range over sqrt(2).
    """
    if values.ndim != 2 or values.shape[1] != len(variants):
        raise ValueError(f"values {values.shape} must have one column for each of {len(variants)} variants")
    complete = values[~np.isnan(values).any(axis=1)]
    n_datasets, n_variants = complete.shape
    ranks = stats.rankdata(complete if smaller else -complete, axis=1) if n_datasets else np.zeros((0, n_variants))
    mean_rank: Any = ranks.mean(axis=0) if n_datasets else np.full(n_variants, np.nan)
    p_friedman = critical = float("nan")
    if n_datasets > 1 and n_variants > 1:
        q = stats.studentized_range.ppf(1 - alpha, n_variants, np.inf) / np.sqrt(2)
        critical = float(q * np.sqrt(n_variants * (n_variants + 1) / (6 * n_datasets)))
    if n_datasets > 1 and n_variants > 2:
        tied = np.ptp(ranks) == 0  # everywhere: the statistic is 0 / 0
        p_friedman = 1.0 if tied else float(stats.friedmanchisquare(*ranks.T).pvalue)
    return DatasetRanks(list(variants), n_datasets, mean_rank, p_friedman, critical)
