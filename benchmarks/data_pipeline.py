"""From files to ready loaders: seconds and memory of this data engine beside RecBole's, at 1 and 20 million rows.

    python benchmarks/data_pipeline.py --output results/data-pipeline.json

The data are made here (seeded): integer tokens, Unix seconds, rows in time order. Every figure comes from a fresh
process: seconds from `create_dataset` to the end of `data_preparation`, without imports, and peak resident memory above
what the process held before it. `prefix` makes the rows that RecBole makes (GRU4Rec, histories of 50); `sequence` is
LSTI's default. RecBole is asked for one million rows alone: twenty would not fit 24 GB. Our rows tell glibc to keep
freed memory, as `recbole-lsti train` does.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from machine import describe_machine

MILLION = 1_000_000
CATALOGUES = {1: (10_000, 50_000), 20: (200_000, 200_000)}  # millions of rows -> users, items


class Row(NamedTuple):
    """A row of the table: what runs (recbole, prefix, sequence, fill, cache, check) on how many million rows."""

    what: str
    millions: int


ROWS = {
    "RecBole, 1M": Row("recbole", 1),
    "ours, prefix, 1M": Row("prefix", 1),
    "ours, sequence, 1M": Row("sequence", 1),
    "ours, sequence, 20M": Row("sequence", 20),
    "first start, 20M": Row("fill", 20),
    "second start, 20M": Row("cache", 20),
    "check-data, 1M": Row("check", 1),
}
# name of a target, how it is reached from the medians, the bound, and whether more or less is wanted
TARGETS = [
    ("times faster, 1M, prefix", "faster_prefix", 30, ">="),
    ("times faster, 1M, sequence", "faster_sequence", 30, ">="),
    ("times less memory, 1M, prefix", "smaller_prefix", 8, ">="),
    ("times less memory, 1M, sequence", "smaller_sequence", 8, ">="),
    ("seconds to ready loaders, 20M", "ready_20m", 120, "<="),
    ("MiB above baseline, 20M", "memory_20m", 5 * 1024, "<="),
    ("seconds for an epoch's batches, 20M", "epoch_20m", 60, "<="),
    ("exponent of time, 1M to 20M", "time_exponent", 1.1, "<="),
    ("exponent of memory, 1M to 20M", "memory_exponent", 1.1, "<="),
    ("seconds to a second start, 20M", "second_start", 5, "<="),
    ("seconds for check-data, 1M", "check", 10, "<="),
]


def main() -> None:
    """Run every row `--rounds` times, in turn, and print the medians and what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each row (default: 3)")
    parser.add_argument(
        "--million", type=int, default=MILLION, help="rows that stand for a million: fewer for a trial of this program"
    )
    parser.add_argument("--folder", type=Path, help="keep the data and the cache here (default: a temporary folder)")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    known = parser.parse_args()
    if known.row:
        print(json.dumps(measure(ROWS[known.row], known.folder, known.million)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = known.folder or Path(temporary)
        for millions in CATALOGUES:
            make_data(folder, millions, known.million)
        runs = run_rows(folder, known.rounds, known.million)
    medians = {
        row: {key: statistics.median(run[key] for run in found) for key in found[0]} for row, found in runs.items()
    }
    results = derive(medians)
    print(f"{describe_machine()}\n\n{'':<22}{'ready, s':>10}{'CPU, s':>10}{'peak, MiB':>12}{'epoch, s':>10}")
    for row, median in medians.items():
        cells = (median["seconds"], median["cpu_seconds"], median["mib"], median.get("epoch_seconds", math.nan))
        print(f"{row:<22}{cells[0]:>10.2f}{cells[1]:>10.2f}{cells[2]:>12.0f}{cells[3]:>10.2f}")
    print(f"\n{'':<38}{'measured':>10}{'target':>12}")
    for text, key, bound, sign in TARGETS:
        met = results[key] >= bound if sign == ">=" else results[key] <= bound
        print(f"{text:<38}{results[key]:>10.2f}{sign + ' ' + str(bound):>12}{'' if met else '   missed'}")
    if known.output:
        known.output.parent.mkdir(parents=True, exist_ok=True)
        record = {"machine": describe_machine(), "runs": runs, "medians": medians, "results": results}
        known.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def run_rows(folder: Path, rounds: int, million: int) -> dict[str, list[dict[str, float]]]:
    """Measure each row in fresh processes, all rows once before the next round begins."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    runs: dict[str, list[dict[str, float]]] = {row: [] for row in ROWS}
    for _ in range(rounds):
        for row, found in runs.items():
            command = [sys.executable, __file__, "--row", row, "--folder", str(folder), "--million", str(million)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{row}: {found[-1]}", file=sys.stderr)
    return runs


def derive(medians: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the ratios and exponents that the targets speak of."""
    theirs, prefix, sequence = (medians[f"{side}, 1M"] for side in ("RecBole", "ours, prefix", "ours, sequence"))
    large = medians["ours, sequence, 20M"]
    return {
        "faster_prefix": theirs["seconds"] / prefix["seconds"],
        "faster_sequence": theirs["seconds"] / sequence["seconds"],
        "smaller_prefix": theirs["mib"] / prefix["mib"],
        "smaller_sequence": theirs["mib"] / sequence["mib"],
        "ready_20m": large["seconds"],
        "memory_20m": large["mib"],
        "epoch_20m": large["epoch_seconds"],
        "time_exponent": math.log(large["seconds"] / sequence["seconds"], 20),
        "memory_exponent": math.log(large["mib"] / sequence["mib"], 20),
        "second_start": medians["second start, 20M"]["seconds"],
        "check": medians["check-data, 1M"]["seconds"],
    }


def make_data(folder: Path, millions: int, million: int, seed: int = 2020) -> None:
    """Write <folder>/m<rows>/m<rows>.inter unless it is there: user_id, item_id, rating, timestamp."""
    name = f"m{millions * million}"
    path = folder / name / f"{name}.inter"
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    users, items = (size * million // MILLION for size in CATALOGUES[millions])
    with open(path, "w", encoding="ascii") as file:
        file.write("user_id:token\titem_id:token\trating:float\ttimestamp:float\n")
        start = 1_400_000_000
        for _ in range(millions):
            user = random.integers(1, users + 1, million)
            item = 1 + (items * random.random(million) ** 2).astype(np.int64)  # few items are popular
            rating = random.integers(1, 6, million)
            moment = start + np.sort(random.integers(0, 20 * million, million))
            start = int(moment[-1])
            columns = (column.tolist() for column in (user, item, rating, moment))
            file.writelines(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in zip(*columns, strict=True))


def measure(row: Row, folder: Path, million: int) -> dict[str, float]:
    """Do what a row says in this process and return its figures."""
    name = f"m{row.millions * million}"
    if row.what == "check":  # as users start it, imports and all
        command = [sys.executable, "-m", "recbole_lsti.cli", "check-data", name, "--data_path", str(folder)]
        return timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True), children=True)[1]
    if row.what == "fill":
        shutil.rmtree(folder / "cache", ignore_errors=True)
    loaders, figures = timed(preparation(row, folder, name))
    if row.millions > 1:
        started = time.perf_counter()
        batches = sum(1 for _ in loaders[0])
        figures.update(epoch_seconds=time.perf_counter() - started, batches=batches)
    return figures


def preparation(row: Row, folder: Path, name: str) -> Callable[[], Any]:
    """Return a function that goes from files to loaders; everything is imported and configured before it is called."""
    import recbole_lsti  # noqa: F401 - RecBole needs it on today's NumPy

    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation

    from recbole_lsti import data
    from recbole_lsti.config import LSTIConfig
    from recbole_lsti.data import loader  # noqa: F401 - imports are no part of what is timed
    from recbole_lsti.memory import keep_freed_memory

    settings: dict[str, Any] = {"data_path": str(folder), "use_gpu": False}
    if row.what in ("recbole", "prefix"):
        settings.update(MAX_ITEM_LIST_LENGTH=50, train_neg_sample_args=None)
    if row.what == "recbole":
        settings["load_col"] = {"inter": ["user_id", "item_id", "timestamp"]}
        settings["eval_args"] = {
            "split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user",
        }  # fmt: skip
        config = Config("GRU4Rec", name, config_dict=settings)
        return lambda: data_preparation(config, create_dataset(config))
    if row.what in ("fill", "cache"):
        settings["cache_dir"] = str(folder / "cache")
    keep_freed_memory()
    config = LSTIConfig("GRU4Rec" if row.what == "prefix" else "LSTI", name, config_dict=settings)
    return lambda: data_preparation(config, data.create_dataset(config))


def timed(work: Callable[[], Any], children: bool = False) -> tuple[Any, dict[str, float]]:
    """Do the work; return its result and its figures: wall and CPU seconds, peak MiB above what was held before.

    Args:
        work: takes nothing.
        children (bool): processes that the work starts are what is measured; their peak counts from nothing.
    """
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    before = 0.0 if children else psutil.Process().memory_info().rss / 2**20
    started, used = time.perf_counter(), cpu_seconds(who)
    result = work()
    figures = {"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds(who) - used}
    peak = resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB here
    return result, {**figures, "mib": peak - before, "baseline_mib": before}


def cpu_seconds(who: int) -> float:
    """CPU seconds, user and system, of this process or of its finished children."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
