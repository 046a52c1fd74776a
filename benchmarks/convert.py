"""How fast and in how much memory the converters work, beside their targets.

    python benchmarks/convert.py [--rows 10000000] [--big-rows 50000000] [--folder DIR] [--json FILE]

Every row of the table is a fresh process; its peak is the largest resident set that the kernel saw (wait4). The control
does what RecSysDatasets does, written afresh: pandas' Python engine to read, one cell at a time to write.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

CONTROL = """
import sys
import pandas as pd
frame = pd.read_csv(sys.argv[1], sep="::", header=None, engine="python")
with open(sys.argv[2], "w") as out:
    out.write("user_id:token\\titem_id:token\\trating:float\\ttimestamp:float\\n")
    for row in range(frame.shape[0]):
        out.write("\\t".join(str(frame.iloc[row, column]) for column in range(frame.shape[1])) + "\\n")
"""
POLARS = """
import sys
import polars as pl
rows = pl.scan_csv(sys.argv[1], infer_schema=False, row_index_name="place")
rows = rows.with_columns(pl.col("timestamp").cast(pl.Int64), pl.col("rating").cast(pl.Float64))
rows.sort("timestamp", "place").drop("place").sink_csv(sys.argv[2], separator="\\t", engine="streaming")
"""
CONVERT = [sys.executable, "-m", "recbole_lsti.converters", "--quiet", "--overwrite"]


@dataclass(frozen=True)
class Measure:
    """One row: what ran, how long (s), how much processor time that took (s), its peak (MiB), what is asked of it."""

    name: str
    rows: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    target: str
    reached: bool | None


def make_csv(path: Path, rows: int, seed: int = 0) -> None:
    """Write a log of five columns: user, item, rating, timestamp in no order, behaviour."""
    rng = np.random.default_rng(seed)
    with path.open("w") as out:
        out.write("user_id,item_id,rating,timestamp,behavior\n")
        for start in range(0, rows, 1_000_000):
            n = min(1_000_000, rows - start)
            columns = {
                "user": rng.integers(0, max(1, rows // 50), n),
                "item": rng.zipf(1.3, n) % 100_000,
                "rating": rng.integers(1, 11, n) / 2,
                "timestamp": rng.integers(1_500_000_000, 1_600_000_000, n),
                "behavior": rng.choice(["view", "cart", "buy"], n, p=[0.9, 0.07, 0.03]),
            }
            pd.DataFrame(columns).to_csv(out, header=False, index=False)


def make_colons(path: Path, rows: int, seed: int = 0) -> None:
    """Write ratings as MovieLens 1M has them."""
    rng = np.random.default_rng(seed)
    table = np.stack([rng.integers(1, 6041, rows), rng.integers(1, 3953, rows), rng.integers(1, 6, rows)], axis=1)
    with path.open("w") as out:
        for (user, item, rating), at in zip(
            table.tolist(), rng.integers(956_000_000, 1_046_000_000, rows), strict=True
        ):
            out.write(f"{user}::{item}::{rating}::{at}\n")


def run(command: Sequence[str]) -> tuple[float, float, float]:
    """Run a command in a fresh process; return its seconds, processor seconds and peak in MiB.

    Raises:
        RuntimeError: if it fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit {process.returncode}: {' '.join(command)}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(
    name: str, rows: int, command: Sequence[str], most_seconds: float | None = None, most_mib: float | None = None
) -> Measure:
    """Run one row of the table and hold it against its targets."""
    seconds, cpu, peak = run(command)
    limits = [
        (seconds, most_seconds, f"under {most_seconds} s"),
        (peak, most_mib, f"under {most_mib} MiB"),
    ]
    asked = [(got < limit, text) for got, limit, text in limits if limit is not None]
    reached = all(ok for ok, _ in asked) if asked else None
    return Measure(
        name, rows, round(seconds, 2), round(cpu, 2), round(peak, 1), ", ".join(text for _, text in asked), reached
    )


def small_measures(folder: Path, rows: int) -> list[Measure]:
    """Measure start-up, ml-1m, and the control."""
    data, output = os.environ.get("LSTI_DATA"), str(folder / "out")
    measures = [measure("start (--list)", 0, [*CONVERT, "--list"], most_seconds=1)]
    if data:
        source = [*CONVERT, str(Path(data) / "raw" / "ml-1m"), "--source", "ml-1m", "--output", output]
        measures.append(measure("ml-1m, three tables", 1_000_000, source, most_seconds=4))
    colons = folder / "ratings.dat"
    make_colons(colons, rows)
    flags = ["--sep", "::", "--no-header", "--user", "0", "--item", "1", "--rating", "2", "--time", "3"]
    ours = measure("ratings.dat", rows, [*CONVERT, str(colons), *flags, "--output", output])
    control = measure(
        "ratings.dat, control", rows, [sys.executable, "-c", CONTROL, str(colons), str(folder / "c.inter")]
    )
    ratio = control.seconds / ours.seconds
    ours = replace(ours, target=f"10 times the control: {ratio:.1f}", reached=ratio >= 10)
    return [*measures, ours, control]


def big_measures(folder: Path, rows: int, most_seconds: float | None, with_polars: bool) -> list[Measure]:
    """Measure one large CSV."""
    path = folder / f"big{rows}.csv"
    make_csv(path, rows)
    command = [*CONVERT, str(path), "--name", "big", "--output", str(folder / "out")]
    measures = [measure("5-column CSV", rows, command, most_seconds, 2048)]
    if with_polars:
        polars = [sys.executable, "-c", POLARS, str(path), str(folder / "p.inter")]
        measures.append(measure("read, sort, write alone: Polars", rows, polars))
    path.unlink()
    return measures


def main() -> None:
    """Measure, print the table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--big-rows", type=int, default=0, help="also measure this many; 50000000 takes 2 GB of disk")
    parser.add_argument("--control-rows", type=int, default=1_000_000)
    parser.add_argument("--polars", action="store_true", help="beside it, Polars' streaming engine (must be installed)")
    parser.add_argument("--folder", type=Path, help="where the files are made (default: a temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        measures = small_measures(folder, args.control_rows) + big_measures(folder, args.rows, 90, args.polars)
        if args.big_rows:
            measures += big_measures(folder, args.big_rows, None, args.polars)
    load = f"load {os.getloadavg()[1]:.1f} over the last 5 minutes"  # above the number of cores, seconds mean little
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {load}")
    print(f"{'what':<34}{'rows':>12}{'seconds':>10}{'cpu s':>8}{'peak MiB':>10}  target")
    for m in measures:
        verdict = {True: "reached", False: "MISSED", None: ""}[m.reached]
        print(
            f"{m.name:<34}{m.rows:>12,}{m.seconds:>10.2f}{m.cpu_seconds:>8.2f}{m.peak_mib:>10.1f}  {m.target} {verdict}"
        )
    if args.json:
        args.json.write_text(json.dumps([asdict(m) for m in measures], indent=2) + "\n")


if __name__ == "__main__":
    main()
