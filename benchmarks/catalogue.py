"""Cost of a training step against the size of the catalogue: seconds a step and peak memory for 10k, 100k, 1M items.

    python benchmarks/catalogue.py --output results/catalogue.json

Synthetic data, made in a temporary folder: as many users and events for every catalogue, each item met at least once,
the others drawn uniformly, which is hardest on the caches. Each size is read, filtered, split and trained by the
package's own code in a fresh process; the sizes take turns, and medians over the rounds are printed. The processor's
seconds, all threads together, stand beside those on the clock: other work on the machine changes them less. Any setting
may follow as --key=value; --loss_type=CE shows the exact softmax.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine


def main() -> None:
    """Time every size in turn and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--items", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="catalogue sizes")
    parser.add_argument("--users", type=int, default=6_000, help="users of each catalogue (default: 6000)")
    parser.add_argument("--length", type=int, default=200, help="events of a user (default: 200)")
    parser.add_argument("--first", type=int, default=60, help="steps before the timed ones (default: 60)")
    parser.add_argument("--steps", type=int, default=60, help="steps timed (default: 60)")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each size (default: 3)")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    known, rest = parser.parse_known_args()
    if known.size:
        print(json.dumps(time_steps(known, rest)))
        return
    found: dict[int, list[dict[str, float]]] = {size: [] for size in known.items}
    for _ in range(known.rounds):
        for size, rounds in found.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--size", str(size)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rounds.append(json.loads(done.stdout.splitlines()[-1]))
            print(rounds[-1], file=sys.stderr)
    rows = [{key: statistics.median(each[key] for each in rounds) for key in rounds[0]} for rounds in found.values()]
    columns = f"{'items':>12}{'ms a step':>12}{'processor':>12}{'times first':>12}{'peak RSS MiB':>14}"
    print(f"{describe_machine()}\n\n{columns}")
    for row in rows:
        row["times_first"] = row["processor_seconds"] / rows[0]["processor_seconds"]
        clock, processor = 1000 * row["step_seconds"], 1000 * row["processor_seconds"]
        ratio, memory = row["times_first"], row["peak_rss_mib"]
        print(f"{row['items']:>12,}{clock:>12.1f}{processor:>12.1f}{ratio:>12.2f}{memory:>14,.0f}")
    if known.output:
        known.output.parent.mkdir(parents=True, exist_ok=True)
        rounds_of = {"rounds": [each for rounds in found.values() for each in rounds]}
        record = {"machine": describe_machine(), "settings": rest, "sizes": rows, **rounds_of}
        known.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def time_steps(known: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    """Train on a catalogue of `known.size` items and return a step's median seconds and the process's peak memory."""
    import recbole_lsti  # noqa: F401 - RecBole needs it on today's NumPy and torch
    from recbole_lsti.cli import parse_settings
    from recbole_lsti.compat import tensorboard_folder
    from recbole_lsti.config import LSTIConfig
    from recbole_lsti.memory import keep_freed_memory
    from recbole_lsti.runner import build, peak_rss_mib
    from recbole_lsti.trainer import trainer_class

    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        write_events(Path(folder), known.size, known.users, known.length)
        settings = {"loss_type": "SSM", "data_path": folder, "checkpoint_dir": folder, "show_progress": False}
        config = LSTIConfig("LSTI", "catalogue", config_dict={**settings, **parse_settings(rest)})
        dataset, (train_data, _, _), model = build(config)
        with tensorboard_folder(None):
            trainer = trainer_class(config)(config, model)
        loader = Timed(train_data, known.first + known.steps)
        trainer._train_epoch(loader, 0)
    clock, processor = np.diff(loader.started, axis=0)[known.first :].T  # the first touch the optimiser's memory
    return {
        "items": int(dataset.item_num) - 1,
        "step_seconds": statistics.median(clock.tolist()),
        "processor_seconds": statistics.median(processor.tolist()),
        "peak_rss_mib": peak_rss_mib(),
    }


def write_events(folder: Path, n_items: int, users: int, length: int) -> None:
    """Write catalogue/catalogue.inter: every item once, the other events of random items, in random order."""
    random = np.random.default_rng(0)
    drawn = random.integers(n_items, size=users * length - n_items)
    item = random.permutation(np.r_[np.arange(n_items), drawn])
    (folder / "catalogue").mkdir()
    with open(folder / "catalogue" / "catalogue.inter", "w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for time_, row in enumerate(item.reshape(length, users)):
            file.writelines(f"u{user}\ti{each}\t{time_}\n" for user, each in enumerate(row))


class Timed:
    """The first batches of a loader, and when each was asked for; everything else is the loader's own."""

    def __init__(self, loader: Any, n: int) -> None:
        self._loader, self._n = loader, n
        self.started: list[tuple[float, float]] = []

    def __iter__(self) -> Any:
        for batch in islice(iter(self._loader), self._n):
            self.started.append((time.perf_counter(), time.process_time()))
            yield batch
        self.started.append((time.perf_counter(), time.process_time()))

    def __len__(self) -> int:
        return self._n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


if __name__ == "__main__":
    main()
