"""What `recbole-lsti compare` says: every pair of variants, both rankings, every metric, tested and corrected."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbole_lsti.benchmark.sides import Run, Scores, Side
from recbole_lsti.errors import one_of
from recbole_lsti.evaluation.significance import (
    DatasetRanks,
    holm,
    over_seeds,
    paired,
    rank_over_datasets,
    smaller_is_better,
    user_means,
    verdict,
)

RANKINGS = {"raw": "seen items compete", "unseen": "items of the history masked"}
OUTPUTS = (".csv", ".json")


class Options(NamedTuple):
    """How to compare.

    Attributes:
        baseline: names of B's variants, or of variants of A where there is no B; None: every one that fits.
        metrics: names to compare; None: all that both sides have.
        alpha: level of the tests; intervals cover 1 - alpha.
        resamples: bootstrap samples.
        seed: of the bootstrap.
    """

    baseline: list[str] | None = None
    metrics: list[str] | None = None
    alpha: float = 0.05
    resamples: int = 1000
    seed: int = 0


class Pooled(NamedTuple):
    """A variant on a split: users (U,), each one's mean over rows and seeds, and the means of each seed.

    Attributes:
        rows: (R, 2) sorted (user, target) tokens.
        users: (U,) tokens.
        metrics: M names.
        means: ranking -> (U, M).
        seed_means: ranking -> (S, M), mean over users.
        row_means: ranking -> (S, M), mean over rows, as RecBole averages.
        ranking: full, uniN or popN.
    """

    rows: np.ndarray
    users: np.ndarray
    metrics: list[str]
    means: dict[str, np.ndarray]
    seed_means: dict[str, np.ndarray]
    row_means: dict[str, np.ndarray]
    ranking: str


class Comparison(NamedTuple):
    """The outcome.

    Attributes:
        rows: a dict a data set, split, pair, ranking and metric; see docs/compare.md.
        ranks: (split, ranking, metric) -> ranks over data sets, where there are two or more.
        notes: what must be told about the inputs.
    """

    rows: list[dict[str, Any]]
    ranks: dict[tuple[str, str, str], DatasetRanks]
    notes: list[str]


def compare(a: Side, b: Side | None, options: Options) -> Comparison:
    """Compare the variants of A with those of B, or with the baselines within A.

    All tests of one call are one family: Holm's correction counts every row of the outcome.

    Args:
        a (Side): one side.
        b (Side | None): the other; None: variants of A are compared with `options.baseline` in A.
        options (Options): see there.
    Returns:
        Comparison: plain data.
    Raises:
        ValueError: nothing to compare, an unknown variant or metric, or sides evaluated on different rows.
    """
    if not 0 < options.alpha < 1:
        raise ValueError(f"alpha ({options.alpha}) must be between 0 and 1")
    rows: list[dict[str, Any]] = []
    board: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {}
    pooled: dict[tuple[int, str, str, str], Pooled] = {}
    pairs = list(_pairs(a, b, options.baseline))
    twice = {pair[2] for pair in pairs} & {pair[3] for pair in pairs} if b else set()
    for dataset, split, name_a, name_b in pairs:
        keys = [(id(side), dataset, split, name) for side, name in ((a, name_a), (b or a, name_b))]
        for key, side in zip(keys, (a, b or a), strict=True):
            if key not in pooled:
                pooled[key] = _pool(side, *key[1:])
        labels = _label(name_a, "A", twice), _label(name_b, "B", twice)
        found = _compare_pair(pooled[keys[0]], pooled[keys[1]], labels, options, f"{dataset} {split}")
        for row in found:
            rows.append({"dataset": dataset, "split": split, **row})
            by_dataset = board.setdefault((split, row["ranking"], row["metric"]), {}).setdefault(dataset, {})
            by_dataset.update({labels[0]: row["a_mean"], labels[1]: row["b_mean"]})
    _correct(rows, options.alpha)
    return Comparison(rows, _ranks(board, options.alpha), list(dict.fromkeys([*a.notes, *(b.notes if b else [])])))


def _pairs(a: Side, b: Side | None, baseline: list[str] | None) -> Iterator[tuple[str, str, str, str]]:
    """(data set, split, variant of A, variant of B) to compare."""
    ours, theirs = _variants(a), _variants(b or a)
    names_b = list(dict.fromkeys(name for names in theirs.values() for name in names))
    for name in baseline or []:
        if name not in names_b:
            raise one_of("baseline", name, names_b)
    if b is None and baseline is None:
        raise ValueError(f"--baseline must name one of {', '.join(names_b)}, where there is no second side")
    common = [kind for kind in ours if kind in theirs]
    if not common:
        raise ValueError(
            f"{a.path} ({_kinds(ours)}) and {b.path if b else ''} ({_kinds(theirs)}) must share a data set and split"
        )
    found = False
    for kind in common:
        wanted = [name for name in theirs[kind] if baseline is None or name in baseline]
        namesakes = b is not None and a.is_folder and b.is_folder and baseline is None
        for name_b in wanted:
            for name_a in ours[kind]:
                if (namesakes and name_a != name_b) or (b is None and name_a in (baseline or [])):
                    continue
                found = True
                yield (*kind, name_a, name_b)
    if not found:
        raise ValueError(f"--baseline must name one of {', '.join(names_b)}: no variant of both sides has one name")


def _variants(side: Side) -> dict[tuple[str, str], list[str]]:
    """(data set, split) -> variants, in the order in which they appear."""
    found: dict[tuple[str, str], list[str]] = {}
    for run in side.runs:
        names = found.setdefault((run.dataset, run.split), [])
        if run.variant not in names:
            names.append(run.variant)
    return found


def _kinds(variants: dict[tuple[str, str], list[str]]) -> str:
    return ", ".join(f"{dataset} {split}" for dataset, split in variants)


def _label(name: str, side: str, twice: set[str]) -> str:
    """What a variant is called, the same in every pair: ranks would count one with two names twice."""
    return f"{name} ({side})" if name in twice else name


# ---- one pair -----------------------------------------------------------------------------------------------------


def _pool(side: Side, dataset: str, split: str, variant: str) -> Pooled:
    """Read all seeds of a variant and average them user by user."""
    runs = [run for run in side.runs if (run.dataset, run.split, run.variant) == (dataset, split, variant)]
    first, *others = (_sorted(run) for run in runs)
    for run, scores in zip(runs[1:], others, strict=True):
        if scores.metrics != first.metrics or not _same_rows(scores, first):
            raise ValueError(f"{side.path}: seed {run.seed} of {variant} must have the rows and metrics of the others")
    values = {ranking: [getattr(scores, ranking) for scores in (first, *others)] for ranking in RANKINGS}
    means, of_seeds, of_rows = {}, {}, {}
    users = np.unique(first.users)
    for ranking, seeds in values.items():
        _, means[ranking] = user_means(first.users, seeds)
        of_seeds[ranking] = np.stack([_mean(user_means(first.users, [seed])[1]) for seed in seeds])
        of_rows[ranking] = np.stack([_mean(seed) for seed in seeds])
    rows = np.stack([first.users, first.targets], axis=1)
    return Pooled(rows, users, first.metrics, means, of_seeds, of_rows, runs[0].ranking)


def _sorted(run: Run) -> Scores:
    scores = run.read()
    order = np.lexsort((scores.targets, scores.users))
    return Scores(scores.users[order], scores.targets[order], scores.metrics, scores.raw[order], scores.unseen[order])


def _same_rows(one: Scores, other: Scores) -> bool:
    return np.array_equal(one.users, other.users) and np.array_equal(one.targets, other.targets)


def _mean(values: np.ndarray) -> np.ndarray:
    """(M,) means of the columns without their NaN; NaN where nothing is left."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(axis=0) / there.sum(axis=0)


def _compare_pair(a: Pooled, b: Pooled, labels: tuple[str, str], options: Options, where: str) -> list[dict[str, Any]]:
    if a.ranking != b.ranking:
        raise ValueError(
            f"{where}: {labels[0]} (ranking {a.ranking}) and {labels[1]} ({b.ranking}) must be ranked among the same "
            "items"
        )
    if not np.array_equal(a.rows, b.rows):
        only = len(set(map(tuple, a.rows)) ^ set(map(tuple, b.rows)))
        raise ValueError(
            f"{where}: {labels[0]} ({len(a.rows)} test rows) and {labels[1]} ({len(b.rows)}) must be evaluated on the "
            f"same rows; {only} pairs of user and target are in one alone"
        )
    shared = [metric for metric in a.metrics if metric in b.metrics]
    for metric in options.metrics or []:
        if metric not in shared:
            raise one_of("metrics", metric, shared)
    metrics = [metric for metric in shared if options.metrics is None or metric in options.metrics]
    if not metrics:
        raise ValueError(f"{where}: {labels[0]} and {labels[1]} must share a metric that is kept for each row")
    columns_a, columns_b = ([side.metrics.index(metric) for metric in metrics] for side in (a, b))
    rows = []
    for ranking in RANKINGS if a.ranking == "full" else ("raw",):
        tested = paired(
            a.means[ranking][:, columns_a],
            b.means[ranking][:, columns_b],
            1 - options.alpha,
            options.resamples,
            options.seed,
        )
        for metric, found, column_a, column_b in zip(metrics, tested, columns_a, columns_b, strict=True):
            row: dict[str, Any] = {"a": labels[0], "b": labels[1], "ranking": ranking, "metric": metric}
            for side, pooled, column in (("a", a, column_a), ("b", b, column_b)):
                _, deviation, n_seeds = over_seeds(pooled.seed_means[ranking][:, column].tolist())
                row[f"{side}_mean"] = found.mean_a if side == "a" else found.mean_b
                row[f"{side}_std"], row[f"{side}_seeds"] = deviation, n_seeds
                row[f"{side}_row_mean"] = over_seeds(pooled.row_means[ranking][:, column].tolist())[0]
            rows.append({**row, "test_rows": len(a.rows), **_columns(found), "found": found})
    return rows


def _columns(found: Any) -> dict[str, Any]:
    names = ("users", "difference", "low", "high", "p_wilcoxon", "p_t")
    return {name: getattr(found, name) for name in names}


def _correct(rows: list[dict[str, Any]], alpha: float) -> None:
    """Add Holm's corrected p values and the verdict to each row."""
    corrected = {name: holm([row[name] for row in rows]) for name in ("p_wilcoxon", "p_t")}
    for number, row in enumerate(rows):
        found = row.pop("found")
        for name, values in corrected.items():
            row[f"{name}_holm"] = float(values[number])
        p = (row["p_wilcoxon_holm"], row["p_t_holm"])
        row["verdict"] = verdict(row["metric"], found, *p, names=(row["a"], row["b"]), alpha=alpha)


def _ranks(
    board: dict[tuple[str, str, str], dict[str, dict[str, float]]], alpha: float
) -> dict[tuple[str, str, str], DatasetRanks]:
    found = {}
    for key, datasets in board.items():
        variants = list(dict.fromkeys(name for means in datasets.values() for name in means))
        if len(datasets) > 1:
            values = np.array([[means.get(name, math.nan) for name in variants] for means in datasets.values()])
            found[key] = rank_over_datasets(variants, values, smaller_is_better(key[2]), alpha)
    return found


# ---- what is printed and written ----------------------------------------------------------------------------------


def format_comparison(found: Comparison, alpha: float = 0.05) -> str:
    """Return the outcome as text: a table a pair and ranking, then ranks over data sets, then notes."""
    lines: list[str] = []
    head: tuple[Any, ...] = ()
    n_tests = sum(not math.isnan(row["p_wilcoxon"]) for row in found.rows)
    for row in found.rows:
        if (this := (row["dataset"], row["split"], row["a"], row["b"])) != head[:4]:
            seeds = [f"{row[s]}, {row[f'{s}_seeds']} seed{'s' * (row[f'{s}_seeds'] > 1)}" for s in "ab"]
            lines += ["", f"{row['dataset']}, {row['split']}: A = {seeds[0]}; B = {seeds[1]}; {row['users']} users"]
        if (*this, row["ranking"]) != head:
            head = (*this, row["ranking"])
            lines += ["", *_table_head(row["ranking"], 1 - alpha)]
        lines.append(_table_row(row))
    lines += ["", *_footer(found.rows, n_tests, alpha)]
    for (split, ranking, metric), ranks in found.ranks.items():
        lines.append(_rank_line(split, ranking, metric, ranks))
    lines += [f"note: {note}" for note in found.notes]
    return "\n".join(lines[1:])


def _table_head(ranking: str, level: float) -> list[str]:
    names = f"{'metric':<18}{'A':>17}{'B':>17}{'A - B':>10}{f'{level:.0%} interval':>20}"
    return [f"{ranking} ({RANKINGS[ranking]})", f"{names}{'p Wilcoxon':>12}{'p t':>9}{'p Holm':>9}  verdict"]


def _table_row(row: dict[str, Any]) -> str:
    means = []
    for side in "ab":
        deviation = "" if math.isnan(row[f"{side}_std"]) else f" ± {row[f'{side}_std']:.4f}"
        means.append(f"{row[f'{side}_mean']:.4f}{deviation}")
    p_holm = max(row["p_wilcoxon_holm"], row["p_t_holm"])
    interval = f"{row['low']:+.4f} {row['high']:+.4f}"
    tests = f"{_p(row['p_wilcoxon']):>12}{_p(row['p_t']):>9}{_p(p_holm):>9}"
    values = f"{means[0]:>17}{means[1]:>17}{row['difference']:>+10.4f}{interval:>20}"
    return f"{row['metric']:<18}{values}{tests}  {row['verdict']}"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _footer(rows: list[dict[str, Any]], n_tests: int, alpha: float) -> list[str]:
    told = f"p Holm: the larger of both tests', corrected for {n_tests} comparisons"
    lines = [f"p: two-sided, over users; {told}; a side is better where it is at most {alpha:g}."]
    if any(row["test_rows"] > row["users"] for row in rows):
        lines.append("A user's test rows are averaged first; a_row_mean and b_row_mean of --output weigh rows alike.")
    return lines


def _rank_line(split: str, ranking: str, metric: str, ranks: DatasetRanks) -> str:
    order = np.argsort(ranks.mean_rank, kind="stable")
    names = ", ".join(f"{ranks.variants[place]} {ranks.mean_rank[place]:.2f}" for place in order)
    tests = f"critical difference {ranks.critical_difference:.2f} (Nemenyi)"
    if not math.isnan(ranks.p_friedman):
        tests += f", p Friedman {_p(ranks.p_friedman)}"
    return f"mean ranks over {ranks.datasets} data sets, {split}, {ranking} {metric}: {names}; {tests}"


def write_comparison(found: Comparison, path: Path) -> None:
    """Write the outcome as .csv (the rows) or .json (rows, ranks over data sets and notes; NaN as null).

    Raises:
        ValueError: another ending.
    """
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(found.rows[0]))
            writer.writeheader()
            writer.writerows(found.rows)
        return
    ranks = [
        {
            **dict(zip(("split", "ranking", "metric"), key, strict=True)),
            "datasets": each.datasets,
            "mean_rank": dict(zip(each.variants, map(_plain, each.mean_rank.tolist()), strict=True)),
            "p_friedman": _plain(each.p_friedman),
            "critical_difference": _plain(each.critical_difference),
        }
        for key, each in found.ranks.items()
    ]
    rows = [{name: _plain(value) for name, value in row.items()} for row in found.rows]
    text = json.dumps({"rows": rows, "ranks": ranks, "notes": found.notes}, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def check_output(path: Path) -> None:
    """Refuse an ending that `write_comparison` does not know, before anything is computed."""
    if path.suffix.lower() not in OUTPUTS:
        raise ValueError(f"output ({path}) must end in {' or '.join(OUTPUTS)}")
