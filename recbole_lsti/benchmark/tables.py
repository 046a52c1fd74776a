"""The board: one row a variant on a split of a data set, over its seeds, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_lsti.benchmark.models import TRAINING_FREE
from recbole_lsti.benchmark.plan import Plan
from recbole_lsti.benchmark.results import load_arrays, write_whole
from recbole_lsti.benchmark.tuning import searched
from recbole_lsti.evaluation.groups import BOOTSTRAP_USERS, bootstrap, normal_interval, sums_by_user
from recbole_lsti.evaluation.significance import smaller_is_better

RANKINGS = ("unseen", "raw")
CSV_DIGITS = 10
COSTS = {
    "train_seconds": ("train s", "{:.1f}"),
    "seconds_to_best": ("s to best", "{:.1f}"),
    "epochs_run": ("epochs", "{:.1f}"),
    "n_parameters": ("parameters", "{:,.0f}"),
    "peak_rss_mib": ("MiB", "{:.0f}"),
    "eval_users_per_second": ("rows/s", "{:.0f}"),
    "latency_ms": ("ms a user", "{:.2f}"),
    "energy_kwh": ("kWh", "{:.4f}"),
}


def summarise(plan: Plan, lines: Iterable[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the board.

    Args:
        plan: the plan.
        lines: the cells' lines.
        folder: the results folder, for the values of the test rows.
    Returns:
        list[dict]: dataset, split, variant, model, control (bool), seeds (that succeeded), failed, skipped, reason,
        incomplete (what could not be computed beside the metrics, or None); for each ranking and metric
        `<ranking>:<metric>` with _mean, _sd (over seeds, None of one) and _low, _high (95 % over users, seeds pooled;
        None where no values of rows were kept); the mean of each cost.
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["dataset"], line["split"], line["variant"]), []).append(line)
    controls = {variant.name for variant in plan.controls}
    return [_row(same, same[0]["variant"] in controls, folder) for same in groups.values()]


def _row(lines: Sequence[Mapping[str, Any]], control: bool, folder: Path) -> dict[str, Any]:
    good = [line for line in lines if line["status"] == "ok"]
    row: dict[str, Any] = {key: lines[0][key] for key in ("dataset", "split", "variant", "model")}
    row |= {"control": control, "seeds": len(good)}
    row |= {status: sum(line["status"] == status for line in lines) for status in ("failed", "skipped")}
    row["reason"] = next((line["reason"] for line in lines if line["status"] != "ok"), None)
    lacking = dict(lack for line in good for lack in line.get("incomplete", {}).items())
    row["incomplete"] = "; ".join(f"{name}: {why}" for name, why in lacking.items()) or None
    limits = _intervals(good, folder)
    for ranking in RANKINGS:
        for metric in (good[0][ranking] or {}) if good else {}:
            values = [line[ranking][metric] for line in good if line[ranking]]
            known = [value for value in values if value is not None]
            name = f"{ranking}:{metric}"
            row[f"{name}_mean"] = float(np.mean(known)) if known and len(known) == len(values) else None
            row[f"{name}_sd"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
            row[f"{name}_low"], row[f"{name}_high"] = limits.get(name, (None, None))
    for cost in COSTS:
        values = [line["cost"][cost] for line in good if line["cost"].get(cost) is not None]
        row[cost] = float(np.mean(values)) if values else None
    return row


def _intervals(lines: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, tuple[float | None, float | None]]:
    """95 % intervals over users; the rows of all seeds together, a user's rows drawn as one."""
    found = [(line, load_arrays(folder, line["cell"])) for line in lines]
    arrays = [(line, each) for line, each in found if each is not None and len(each["users"])]
    if not arrays:
        return {}
    names = arrays[0][0]["user_metrics"]
    users = np.concatenate([each["users"] for _, each in arrays])
    limits: dict[str, tuple[float | None, float | None]] = {}
    for ranking in RANKINGS:
        sums, counts = sums_by_user(users, np.concatenate([each[ranking] for _, each in arrays]))
        low, high = (normal_interval if len(sums) > BOOTSTRAP_USERS else bootstrap)(sums, counts)
        for metric, a, b in zip(names, low, high, strict=True):
            limits[f"{ranking}:{metric}"] = (float(a), float(b)) if np.isfinite([a, b]).all() else (None, None)
    return limits


def main_metric(plan: Plan) -> str:
    """The metric that selects epochs and sorts the board, as results spell it."""
    return str(plan.settings.get("valid_metric", "NDCG@10")).lower()


def write_tables(plan: Plan, rows: list[dict[str, Any]], folder: Path) -> None:
    """Write summary.csv, table.md and table.tex."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:  # the order in which a machine adds moves the last digits
        rounded = {name: round(value, CSV_DIGITS) if isinstance(value, float) else value for name, value in row.items()}
        writer.writerow(rounded)
    write_whole(folder / "summary.csv", text.getvalue())
    boards = boards_of(plan, rows)
    write_whole(folder / "table.md", "\n".join(_markdown(plan, *board) for board in boards))
    write_whole(folder / "table.tex", "\n".join(_latex(plan, *board) for board in boards))


Board = tuple[str, list[dict[str, Any]], list[dict[str, Any]]]


def boards_of(plan: Plan, rows: list[dict[str, Any]]) -> list[Board]:
    """Return for each data set and split its title, its rows with figures, the best first, and those without."""
    boards = []
    for split in plan.splits:
        for dataset in plan.datasets:
            here = [row for row in rows if (row["dataset"], row["split"]) == (dataset, split)]
            there = [row for row in here if row["seeds"]]
            there.sort(key=lambda row: _place(plan, row))
            boards.append((f"{dataset}, {split}", there, [row for row in here if row["reason"]]))
    return boards


def _place(plan: Plan, row: Mapping[str, Any]) -> float:
    value = score(plan, row)
    if value is None:
        return np.inf
    return value if smaller_is_better(main_metric(plan)) else -value


def score(plan: Plan, row: Mapping[str, Any]) -> float | None:
    """The main metric of a row, of the ranking without seen items where it is there."""
    name = main_metric(plan)
    unseen = row.get(f"unseen:{name}_mean")
    return row.get(f"raw:{name}_mean") if unseen is None else unseen


def _head_and_cells(plan: Plan, rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    metric = main_metric(plan)
    stems = dict.fromkeys(key.removesuffix("_mean") for row in rows for key in row if key.endswith("_mean"))
    chief = [f"{ranking}:{metric}" for ranking in RANKINGS if f"{ranking}:{metric}" in stems]
    ranking = chief[0].partition(":")[0] if chief else RANKINGS[0]
    others = [stem for stem in stems if stem.startswith(f"{ranking}:") and stem not in chief]
    costs = [cost for cost in COSTS if any(row[cost] is not None for row in rows)]
    head = ["model", "seeds", *(stem.replace(":", " ") for stem in (*chief, *others)), *(COSTS[c][0] for c in costs)]
    cells = []
    for row in rows:
        name = f"{row['variant']} (control)" if row["control"] else row["variant"]
        figures = [_figure(row, stem, stem in chief) for stem in (*chief, *others)]
        prices = ["" if row[cost] is None else COSTS[cost][1].format(row[cost]) for cost in costs]
        cells.append([name, str(row["seeds"]), *figures, *prices])
    return head, cells


def _figure(row: Mapping[str, Any], stem: str, whole: bool) -> str:
    """`mean ± sd [low, high]`, as far as it is known."""
    mean, sd, low, high = (row.get(f"{stem}_{part}") for part in ("mean", "sd", "low", "high"))
    if mean is None:
        return ""
    text = f"{mean:.4f}" + ("" if sd is None else f" ± {sd:.4f}")
    return text + (f" [{low:.4f}, {high:.4f}]" if whole and low is not None else "")


def _markdown(plan: Plan, title: str, rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> str:
    head, cells = _head_and_cells(plan, rows)
    lines = [f"## {title}", ""]
    if rows:
        lines.append("| " + " | ".join(head) + " |")
        lines.append("|---" + "|---:" * (len(head) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in cells]
        lines += ["", *remarks(plan, rows)]
        lines += [f"{row['variant']} lacks {row['incomplete']}\n" for row in rows if row["incomplete"]]
    lines += [
        f"{row['variant']}: {row['failed']} failed, {row['skipped']} skipped: {row['reason']}\n" for row in others
    ]
    return "\n".join(lines)


def remarks(plan: Plan, rows: list[dict[str, Any]]) -> list[str]:
    """Return what a reader of the board must know: how to read it, and which models no training beats."""
    budget = [f"{plan.epochs} epoch{'s' * (plan.epochs != 1)}"] if plan.epochs else []
    budget += [f"{plan.minutes:g} minutes of training, an epoch that has begun finished"] if plan.minutes else []
    seeds = ", ".join(map(str, plan.seeds))
    read = (
        "Mean ± standard deviation over seeds [95 % interval over users]. "
        "`raw`: seen items compete; `unseen`: they are masked."
    )
    limit = " and ".join(budget) or "the epochs of the defaults"
    lines = [f"Seeds {seeds}; at most {limit}; {_ranked(plan)}. {read}\n", *_searched(plan, rows)]
    smaller = smaller_is_better(main_metric(plan))
    for control in (row for row in rows if row["model"] in TRAINING_FREE):
        own = score(plan, control)
        beaten = [
            row["variant"]
            for row in rows
            if row["model"] not in TRAINING_FREE
            and own is not None
            and (value := score(plan, row)) is not None
            and (value > own if smaller else value < own)
        ]
        if beaten:
            lines.append(f"By the mean, {control['variant']}, which trains nothing, is ahead of {', '.join(beaten)}.\n")
    return lines


def _searched(plan: Plan, rows: list[dict[str, Any]]) -> list[str]:
    """What was searched before the cells ran, and which rows were not."""
    if plan.trials is None:
        return []
    here = {row["variant"] for row in rows}
    variants = [variant for variant in plan.variants if variant.name in here]
    plain = [variant.name for variant in variants if not plan.searched(variant)]
    lines = [
        f"Each with the best settings of {plan.trials} trials on the validation items, seed {plan.seeds[0]}."
        + (f" As they are, for nothing of them is searched: {', '.join(plain)}." if plain else "")
        + "\n"
    ]
    for variant in variants:
        kept = [key for key in plan.own_settings(variant) if key in searched(plan.space, variant.model, {})]
        if kept:
            lines.append(f"{variant.name} keeps its own {', '.join(kept)}.\n")
    return lines


def _ranked(plan: Plan) -> str:
    if plan.ranking == "full":
        return "all items ranked"
    return f"the target ranked among negatives drawn once ({plan.ranking}), the same for every model"


def _latex(plan: Plan, title: str, rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> str:
    head, cells = _head_and_cells(plan, rows)
    lines = [f"% {title}", rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule"]
    lines.append(" & ".join(map(_tex, head)) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(map(_tex, row)) + r" \\" for row in cells]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"% {row['variant']}: {row['reason']}" for row in others]
    return "\n".join(lines) + "\n"


def _tex(text: str) -> str:
    for plain, escaped in (("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("#", r"\#"), ("±", r"$\pm$")):
        text = text.replace(plain, escaped)
    return text
