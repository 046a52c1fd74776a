"""Seconds of one training epoch on ml-100k: from whole sequences, and from one target a row as RecBole trains.

    python benchmarks/epoch_time.py --output results/epoch-time-ml-100k.json

All sides have their default sizes, see the same 97,171 targets an epoch and run in fresh processes, in turn. The rows
`as RecBole trains it` are started as RecBole's run_recbole starts them; the others as `recbole-lsti train` does, which
tells glibc to keep freed memory and leaves torch's anomaly detection off, which RecBole turns on for every sequential
model. `prefix` differs from RecBole's own in these two things, and in this package's data set, loader and trainer. Any
setting that all models read may follow as --key=value.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from machine import describe_machine


class Side(NamedTuple):
    """A row of the table: the model, the train mode (None: RecBole's own flow) and the epochs timed in a process."""

    model: str
    train_mode: str | None
    epochs: int


SIDES = {
    "LSTI": Side("LSTI", "sequence", 4),
    "SASRec as RecBole trains it": Side("SASRec", None, 1),
    "SASRec, prefix": Side("SASRec", "prefix", 1),
    "SASRec, sequence": Side("SASRec", "sequence", 4),
    "GRU4Rec as RecBole trains it": Side("GRU4Rec", None, 1),
    "GRU4Rec, sequence": Side("GRU4Rec", "sequence", 4),
}


def main() -> None:
    """Run every side `--rounds` times, in turn, and print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=1, help="fresh processes of each side (default: 1)")
    parser.add_argument(
        "--models",
        nargs="*",
        choices=["LSTI", "SASRec", "GRU4Rec"],
        default=["LSTI", "SASRec", "GRU4Rec"],
        help="leave out rows of the others; LSTI is there always",
    )
    parser.add_argument("--dataset", default="ml-100k", help="name of the data set (default: ml-100k)")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    known, rest = parser.parse_known_args()
    if known.side:
        print(json.dumps(time_epochs(SIDES[known.side], known.dataset, rest)))
        return
    seconds: dict[str, list[float]] = {side: [] for side in SIDES if SIDES[side].model in {"LSTI", *known.models}}
    for _ in range(known.rounds):
        for side in seconds:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            seconds[side] += json.loads(done.stdout.splitlines()[-1])
            print(f"{side}: {', '.join(f'{value:.1f}' for value in seconds[side])} s", file=sys.stderr)
    median = {side: statistics.median(values) for side, values in seconds.items()}
    print(f"{describe_machine()}\n\n{'':<32}{'seconds an epoch':>18}{'times LSTI':>12}")
    for side, value in median.items():
        print(f"{side:<32}{value:>18.1f}{value / median['LSTI']:>12.1f}")
    if known.output:
        known.output.parent.mkdir(parents=True, exist_ok=True)
        record = {"machine": describe_machine(), "settings": rest, "seconds": seconds, "median": median}
        known.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def time_epochs(side: Side, dataset: str, rest: list[str]) -> list[float]:
    """Train a fresh model for some epochs and return the seconds of each."""
    import recbole_lsti  # noqa: F401 - RecBole needs it on today's NumPy and torch
    from recbole_lsti.compat import tensorboard_folder
    from recbole_lsti.memory import keep_freed_memory

    if side.train_mode:
        keep_freed_memory()
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    from recbole_lsti import data
    from recbole_lsti.cli import parse_settings
    from recbole_lsti.config import LSTIConfig
    from recbole_lsti.trainer import trainer_class

    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line
    settings = {"use_gpu": False, "checkpoint_dir": ".", **parse_settings(rest)}
    if side.train_mode:
        settings["train_mode"] = side.train_mode
        config, make_dataset = LSTIConfig(side.model, dataset, config_dict=settings), data.create_dataset
        make_trainer = trainer_class(config)
    else:
        settings["train_neg_sample_args"] = None  # cross-entropy needs none
        config, make_dataset = Config(side.model, dataset, config_dict=settings), create_dataset
        make_trainer = Trainer
    # RecBole's sine.py turns this on for every model when it is imported, and this package turns it back
    torch.autograd.set_detect_anomaly(side.train_mode is None)
    init_seed(config["seed"], config["reproducibility"])
    train_data, _, _ = data_preparation(config, make_dataset(config))
    model = config.model_class(config, train_data._dataset).to(config["device"])
    with tensorboard_folder(None):
        trainer = make_trainer(config, model)
    if side.train_mode:
        trainer._every_position = trainer._make_every_position()
    seconds = []
    for epoch in range(side.epochs):
        started = time.perf_counter()
        trainer._train_epoch(train_data, epoch)
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
