"""The page of a results folder: what came of a plan, whether the differences hold, where it ran, how to repeat it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from recbole_lsti.benchmark.environment import HERE, WORKERS
from recbole_lsti.benchmark.plan import Plan
from recbole_lsti.benchmark.results import write_whole
from recbole_lsti.benchmark.tables import RANKINGS, main_metric
from recbole_lsti.evaluation.significance import smaller_is_better

SEED_SPREADS = 3  # a figure is expected within so many standard deviations of its seeds
DIGITS = 5  # of expected figures
LEGEND = (
    "(control): a row that tells how to read the others; train s: seconds of training; s to best: until the epoch that "
    "was tested; epochs: trained; MiB: the process's peak memory; rows/s: test rows ranked a second; ms a user: to "
    "rank all items for one; kWh: drawn by processors and GPUs.\n"
)


def write_page(plan: Plan, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write report.md, from table.md and the cells' files, and, where there are figures, expect.yaml.

    Args:
        plan: the plan.
        rows: the board, as `tables.summarise` returns it.
        folder: the results folder.
    """
    parts = [
        f"# {', '.join(plan.datasets)}: {len(plan.variants)} models compared\n",
        (folder / "table.md").read_text(encoding="utf-8"),
        LEGEND,
        "![the metric against seconds of training](comparison.png)\n" if (folder / "comparison.png").exists() else "",
        *_tests(plan, folder),
        *_place(folder),
        *_settings(plan, folder),
    ]
    write_whole(folder / "report.md", "\n".join(part for part in parts if part))
    if expected := list(figures(plan, rows)):
        write_whole(folder / "expect.yaml", yaml.safe_dump({"expect": expected}, sort_keys=False))


def figures(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The main metric of each row as an expected figure of both rankings, for a rerun to be held against.

    The tolerance is SEED_SPREADS standard deviations over seeds; of one seed, half the 95 % interval over users. It is
    never below the last digit: the mean of equal figures may differ from them in what rounding leaves.
    """
    metric = main_metric(plan)
    direction = "lower" if smaller_is_better(metric) else "higher"
    for row in rows:
        for ranking in RANKINGS:
            stem = f"{ranking}:{metric}"
            mean, sd, low, high = (row.get(f"{stem}_{part}") for part in ("mean", "sd", "low", "high"))
            if mean is None:
                continue
            spread = SEED_SPREADS * sd if sd is not None else (high - low) / 2 if low is not None else 0.0
            yield {
                **{key: row[key] for key in ("variant", "dataset", "split")},
                **{"metric": f"{ranking}.{metric}", "value": round(mean, DIGITS)},
                "tolerance": max(round(spread, DIGITS), 10**-DIGITS),
                "direction": direction,
            }


def _tests(plan: Plan, folder: Path) -> list[str]:
    """The first model of the plan against every other row: paired over users, corrected."""
    from recbole_lsti.benchmark.compare import Options, compare
    from recbole_lsti.benchmark.sides import open_sides

    first, metric = plan.variants[0].name, main_metric(plan)
    try:
        found = compare(open_sides([str(folder)])[0], None, Options(baseline=[first], metrics=[metric]))
    except (ValueError, FileNotFoundError):  # no values of users, or no second row
        return []
    read = (
        f"{metric}, difference of means over users (that row - {first}), 95 % interval, and the larger of the "
        "p values of Wilcoxon's test and the paired t test, Holm-corrected over this table.\n"
    )
    lines = [
        f"## {first} against each other row\n",
        read,
        f"| data set | row | seeds | ranking | row - {first} | p | better |",
        "|---|---|---:|---|---:|---:|---|",
    ]
    for row in found.rows:
        change = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
        p = max(row["p_wilcoxon_holm"], row["p_t_holm"])
        shown = "-" if math.isnan(p) else f"{p:.2g}"  # fewer than two users
        where = f"{row['dataset']}, {row['split']}"
        cells = (where, row["a"], row["a_seeds"], row["ranking"], change, shown, row["verdict"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return ["\n".join(lines) + "\n"]


def _place(folder: Path) -> list[str]:
    """Machine, versions, what has changed since the first run of the folder, and the command."""
    here = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items() if version)
    machine, how = _machine(here)
    commit = here["commit"] or "unknown"
    earlier = here["earlier"]
    begun = f"begun {earlier[0]['started']}, gone on with {here['started']}" if earlier else f"begun {here['started']}"
    notes = dict.fromkeys(note for run in (*earlier, here) for note in run.get("notes", []))
    unlike = []
    for key in ("measured_on", "cpu", "cores", "gpu", "jobs", "threads", "commit"):
        values = dict.fromkeys(str({"measured_on": HERE, **run}.get(key)) for run in (*earlier, here))
        if len(values) > 1:
            unlike.append(f"{key} {', '.join(values)}")
    return [
        "## Where and how\n",
        f"{machine}; GPU: {here['gpu'] or 'none'}. {versions}; commit {commit}; {begun}.\n",
        *([f"Its runs, the first one first, differ in {'; '.join(unlike)}.\n"] if unlike else []),
        *([f"Gone on with although {'; '.join(notes)}.\n"] if notes else []),
        f"```\nrecbole-lsti benchmark plan.yaml {how} --output board --expect expect.yaml\n```\n",
    ]


def _machine(here: Mapping[str, Any]) -> tuple[str, str]:
    """What the seconds are of, and the flags that ask for it again."""
    machine = f"{here['cpu']}, {here['cores']} cores"
    executor = "" if here["executor"] == "local" else f" --executor {here['executor']}"
    if here.get("measured_on", HERE) == WORKERS:
        return f"Measured on {WORKERS}; {HERE}: {machine}", f"{executor.strip()} --scheduler ADDRESS"
    threads = f"{here['threads']} thread{'s' * (here['threads'] != 1)} each"
    return f"{machine}, {here['jobs']} at a time with {threads}", f"--jobs {here['jobs']}{executor}"


def _settings(plan: Plan, folder: Path) -> list[str]:
    """The plan, and every resolved setting of the first model's first cell."""
    parts = ["## Settings\n", f"plan.yaml:\n\n```yaml\n{yaml.safe_dump(plan.plain(), sort_keys=False)}```\n"]
    for cell in plan.cells()[:1]:
        path = folder / "cells" / cell.id / "config.yaml"
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            parts.append(f"<details><summary>All settings of {cell.id}</summary>\n\n```yaml\n{text}```\n\n</details>\n")
    return parts
