"""Seconds of training until a model is as good as RecBole's SASRec becomes: the best NDCG@10 of its validations.

    python benchmarks/time_to_quality.py --minutes 60 --output results/time-to-quality-ml-100k.json
    python benchmarks/time_to_quality.py --dataset steam --data_path=dataset --lsti-config LSTI-sparse --seeds 3

The mark is the best validation score of SASRec trained as RecBole trains it, from one target a row, within the budget
of --minutes and --epochs and RecBole's patience. Beside it: SASRec from whole sequences, and LSTI with its own epochs.
Each training is a fresh process, one after the other. Seconds run from the first batch, validations included; reading
the data is not in them. All have this package's trainer, so that SASRec is spared torch's anomaly detection, which
RecBole leaves on. Any setting may follow as --key=value, for all sides.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from machine import describe_machine

MARK = "SASRec, prefix"
SIDES = {
    MARK: {"model": "SASRec", "train_mode": "prefix"},
    "SASRec, sequence": {"model": "SASRec", "train_mode": "sequence"},
    "LSTI": {"model": "LSTI"},
}


def main() -> int:
    """Train every side with every seed, in turn, and print when each has reached the mark; 2: a mistake, in a line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 2020 on (default: 1)")
    parser.add_argument("--minutes", type=float, default=60, help="of a training, ended after an epoch (default: 60)")
    parser.add_argument("--epochs", type=int, help="most epochs of SASRec (default: RecBole's 300)")
    parser.add_argument("--lsti-config", default="", help="config files for LSTI alone, such as LSTI-sparse")
    parser.add_argument("--output", type=Path, help="write curves and figures as JSON")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    known, rest = parser.parse_known_args()
    try:
        if known.side:
            print(json.dumps(train(known, rest)))
            return 0
        if known.seed is not None:
            raise ValueError(f"seed ({known.seed}) must be left to --seeds, which says how many, from 2020 on")
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"time_to_quality: {error}", file=sys.stderr)
        return 2
    curves: dict[str, list[list[dict[str, float]]]] = {side: [] for side in SIDES}
    for seed in range(2020, 2020 + known.seeds):
        for side in SIDES:
            command = [sys.executable, *sys.argv, "--side", side, "--seed", str(seed)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:  # it has said why
                return done.returncode
            curves[side].append(json.loads(done.stdout.splitlines()[-1]))
            at, score = best(curves[side][-1])
            print(f"{side}, seed {seed}: {score:.4f} after {at:.1f} s", file=sys.stderr)
    table = summary(curves)
    print(f"{known.dataset}, {' '.join(rest) or 'default settings'}; {describe_machine()}\n")
    print_table(table, known.seeds)
    if known.output:
        settings = {key: value for key, value in vars(known).items() if key not in ("output", "side", "seed")}
        record = {"machine": describe_machine(), **settings, "settings": rest, "table": table, "curves": curves}
        known.output.parent.mkdir(parents=True, exist_ok=True)
        known.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


def train(known: argparse.Namespace, rest: list[str]) -> list[dict[str, float]]:
    """Train one side with one seed and return its curve: epoch, seconds and valid_score of each validation.

    Raises:
        ValueError: settings that cannot work, or with which nothing is validated.
    """
    import recbole_lsti  # noqa: F401 - RecBole needs it on today's NumPy and torch
    from recbole_lsti.cli import parse_settings
    from recbole_lsti.config import LSTIConfig
    from recbole_lsti.memory import keep_freed_memory
    from recbole_lsti.runner import train_and_test

    keep_freed_memory()
    settings = {"seed": known.seed, "train_seconds_limit": 60 * known.minutes, "show_progress": False}
    files: list[str] = []
    if SIDES[known.side]["model"] == "LSTI":
        files = known.lsti_config.split()  # its epochs set the schedule of its learning rate
    elif known.epochs is not None:
        settings["epochs"] = known.epochs
    settings.update(SIDES[known.side], **parse_settings(rest))
    config = LSTIConfig(None, known.dataset, files, settings)
    every, epochs = config["eval_step"], config["epochs"]
    if not 1 <= every <= epochs:  # before an hour of training, not after it
        raise ValueError(
            f"eval_step ({every}) must be from 1 to epochs ({epochs}): {known.side} has no validation else"
        )
    curve = train_and_test(config, None, saved=False, tested=False).trainer.curve
    validated = [row for row in curve if "valid_score" in row]
    if not validated:
        raise ValueError(
            f"{known.side}, seed {known.seed} must be validated once at least: eval_args must leave validation items, "
            f"and minutes ({known.minutes}) time for {every} epochs"
        )
    return validated


def best(curve: list[dict[str, float]]) -> tuple[float, float]:
    """Return when the best validation score was reached first, in seconds, and the score."""
    row = max(curve, key=lambda row: row["valid_score"])  # of equal ones the first
    return row["seconds"], row["valid_score"]


def reached(curve: list[dict[str, float]], mark: float) -> tuple[float, float]:
    """Return when a score was reached, in seconds and in epochs from 1; infinity where it never was."""
    for row in curve:
        if row["valid_score"] >= mark:
            return row["seconds"], row["epoch"] + 1
    return math.inf, math.inf


def summary(curves: dict[str, list[list[dict[str, float]]]]) -> dict[str, dict[str, Any]]:
    """Return the medians over the seeds of each side; each seed's mark is its own. None: most never reach it."""
    marks = [best(curve)[1] for curve in curves[MARK]]
    table: dict[str, dict[str, Any]] = {}
    for side, runs in curves.items():
        found = [reached(curve, mark) for curve, mark in zip(runs, marks, strict=True)]
        to_mark = statistics.median(seconds for seconds, _ in found)
        table[side] = {
            "seconds_to_mark": None if math.isinf(to_mark) else to_mark,
            "reached": sum(math.isfinite(seconds) for seconds, _ in found),
            "epochs_to_mark": [epoch if math.isfinite(epoch) else None for _, epoch in found],
            "best": statistics.median(best(curve)[1] for curve in runs),
            "seconds_to_best": statistics.median(best(curve)[0] for curve in runs),
            "seconds_an_epoch": statistics.median(curve[-1]["seconds"] / (curve[-1]["epoch"] + 1) for curve in runs),
        }
    of_mark = table[MARK]["seconds_to_mark"]
    for row in table.values():
        row["times_sooner"] = None if row["seconds_to_mark"] is None else of_mark / row["seconds_to_mark"]
    return table


def print_table(table: dict[str, dict[str, Any]], seeds: int) -> None:
    """Print the medians, and how exact a time can be."""
    columns = (
        f"{'s to the mark':>15}{'times sooner':>14}{'reached':>10}{'best valid':>12}{'s to best':>11}{'s an epoch':>12}"
    )
    print(f"{'':<18}{columns}")
    for side, row in table.items():
        never = row["seconds_to_mark"] is None
        mark, times = ("never", "-") if never else (f"{row['seconds_to_mark']:.1f}", f"{row['times_sooner']:.1f}")
        print(
            f"{side:<18}{mark:>15}{times:>14}{row['reached']:>5} of {seeds:<2}{row['best']:>11.4f}"
            f"{row['seconds_to_best']:>11.1f}{row['seconds_an_epoch']:>12.1f}"
        )
    print(f"\nThe mark: the best validation score of `{MARK}`, {table[MARK]['best']:.4f}.")
    print("Each epoch is validated at its end, so that a time is up to an epoch later than the mark was passed.")
    early = [side for side, row in table.items() if 1 in row["epochs_to_mark"]]
    if early:
        print(f"Reached with the first validation, so that the time is no more than a bound: {'; '.join(early)}.")


if __name__ == "__main__":
    sys.exit(main())
