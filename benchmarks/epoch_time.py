"""Seconds of one training epoch on ml-100k: LSTI from whole sequences, RecBole's SASRec from one target a row.

    python benchmarks/epoch_time.py --output results/epoch-time-ml-100k.json

Both sides have their default sizes, see the same 97,171 targets an epoch and run in fresh processes, in turn, each as
its own command starts it: LSTI as `recbole-lsti train` does, with glibc told to keep freed memory, SASRec as RecBole's
run_recbole does. `SASRec, freed memory kept` is the same SASRec with that one setting of ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import describe_machine

SIDES = {"LSTI": 4, "SASRec": 1, "SASRec, freed memory kept": 1}  # epochs timed in each process
# RecBole reads ml-100k's columns as its own configuration file for it says; a cross-entropy needs no negatives
RECBOLE_SETTINGS = {"train_neg_sample_args": None, "show_progress": False, "use_gpu": False}


def main() -> None:
    """Run every side `--rounds` times, in turn, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="fresh processes of each side (default: 1)")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    known = parser.parse_args()
    if known.side:
        print(json.dumps(time_epochs(known.side, SIDES[known.side])))
        return
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(known.rounds):
        for side in SIDES:
            command = [sys.executable, __file__, "--side", side]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            seconds[side] += json.loads(done.stdout.splitlines()[-1])
            print(f"{side}: {', '.join(f'{value:.1f}' for value in seconds[side])} s", file=sys.stderr)
    median = {side: statistics.median(values) for side, values in seconds.items()}
    print(f"{describe_machine()}\n\n{'':<28}{'seconds an epoch':>18}{'times LSTI':>12}")
    for side, value in median.items():
        print(f"{side:<28}{value:>18.1f}{value / median['LSTI']:>12.1f}")
    if known.output:
        known.output.parent.mkdir(parents=True, exist_ok=True)
        record = {"machine": describe_machine(), "seconds": seconds, "median": median}
        known.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def time_epochs(side: str, epochs: int) -> list[float]:
    """Train a fresh model for some epochs and return the seconds of each."""
    import recbole_lsti  # noqa: F401 - RecBole needs it on today's NumPy and torch
    from recbole_lsti.cli import keep_freed_memory
    from recbole_lsti.compat import tensorboard_folder

    if side != "SASRec":
        keep_freed_memory()
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    from recbole_lsti.config import LSTIConfig

    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line
    if side == "LSTI":
        config = LSTIConfig("LSTI", "ml-100k", config_dict={"use_gpu": False, "checkpoint_dir": "."})
    else:
        config = Config("SASRec", "ml-100k", config_dict={**RECBOLE_SETTINGS, "checkpoint_dir": "."})
    init_seed(config["seed"], config["reproducibility"])
    train_data, _, _ = data_preparation(config, create_dataset(config))
    model = get_model(config["model"])(config, train_data._dataset).to(config["device"])
    with tensorboard_folder(None):
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    seconds = []
    for epoch in range(epochs):
        started = time.perf_counter()
        trainer._train_epoch(train_data, epoch)
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
