"""Where the time of LSTI's training steps goes, and what share of the machine's matrix-product rate they reach.

    python benchmarks/profile_step.py --dataset ml-100k --train_batch_tokens=2048
    python benchmarks/profile_step.py --dataset steam --data_path=dataset --config_files LSTI-sparse --output steam.json

Trains for some steps as `recbole-lsti train` does, times them round by round, then profiles as many more. The machine's
rate is that of a large product of square float32 matrices, measured in the same process with the same threads before
each round; medians over the rounds are printed, because other work on the machine changes both. The steps' own work is
the floating-point operations of their matrix products, forward and backward, counted by torch on the same batches;
those inside the processor's LSTM kernel, which torch leaves out, are added. A GPU's LSTM is not in it. Any setting may
follow as --key=value.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import recbole_lsti  # noqa: F401 - RecBole needs it on today's NumPy and torch
from recbole_lsti.cli import parse_settings
from recbole_lsti.compat import tensorboard_folder
from recbole_lsti.config import LSTIConfig
from recbole_lsti.memory import keep_freed_memory


def main() -> None:
    """Print seconds, targets a second, the share of the machine's rate, and the operators that cost most."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--config_files", default="", help="YAML files of settings or profiles, separated by blanks")
    parser.add_argument("--steps", type=int, default=30, help="steps timed, and again profiled (default: 30)")
    parser.add_argument("--rounds", type=int, default=5, help="times that they are timed (default: 5)")
    parser.add_argument("--rows", type=int, default=25, help="operators shown (default: 25)")
    parser.add_argument("--output", type=Path, help="write the figures, without the operators, as JSON")
    known, rest = parser.parse_known_args()
    keep_freed_memory()
    from recbole_lsti.runner import build
    from recbole_lsti.trainer import trainer_class

    given = {**parse_settings(rest), "item_init": "random"}  # to count where items start is part of no step
    config = LSTIConfig("LSTI", known.dataset, known.config_files.split(), given)
    _, (train_data, _, _), model = build(config)
    config["checkpoint_dir"] = "."  # where RecBole's trainers would make a folder, and nothing is written
    with tensorboard_folder(None):
        trainer = trainer_class(config)(config, model)
    batches = [batch.to(config["device"]) for batch in islice(iter(train_data), known.steps)]
    train(trainer, batches[:3])  # the first steps allocate
    rounds, rates = [], []
    for _ in range(known.rounds):
        rates.append(matrix_product_rate(config["device"]))
        started = time.perf_counter()
        train(trainer, batches)
        rounds.append(time.perf_counter() - started)
    seconds, peak = statistics.median(rounds), statistics.median(rates)
    targets = sum(int((batch[model.target_field] > 0).sum()) for batch in batches)
    rate = matrix_product_flops(trainer, batches) / seconds
    settings = " ".join([*known.config_files.split(), *rest]) or "default settings"
    if known.output:
        figures = {"dataset": known.dataset, "settings": settings, "machine": describe_machine(), "steps": len(batches)}
        figures |= {"round_seconds": rounds, "round_machine_flops_per_second": rates}
        figures |= {"step_seconds": seconds / len(batches), "targets_per_second": targets / seconds}
        figures |= {"product_flops_per_second": rate, "machine_flops_per_second": peak, "share": rate / peak}
        known.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"{known.dataset}, {settings}; {describe_machine()}")
    print(f"{len(batches)} steps of {seconds / len(batches) * 1000:.1f} ms, {targets / seconds:,.0f} targets a second")
    print(f"matrix products: {rate / 1e9:.1f} of {peak / 1e9:.1f} GFLOP/s, {100 * rate / peak:.0f} % of the machine's")
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        train(trainer, batches)
    print(watched.key_averages().table(sort_by="self_cpu_time_total", row_limit=known.rows, max_name_column_width=40))


def train(trainer: Any, batches: list[Any]) -> None:
    """Do one optimiser step a batch."""
    trainer._train_epoch(batches, 0)
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrix_product_flops(trainer: Any, batches: list[Any]) -> int:
    """Return the floating-point operations of the matrix products in a step a batch."""
    ops = torch.ops.aten
    kernels = {
        ops.mkldnn_rnn_layer: lstm_flops,
        ops.mkldnn_rnn_layer_backward: lambda *shapes, **named: 2 * lstm_flops(*shapes, **named),
    }
    with FlopCounterMode(display=False, custom_mapping=kernels) as counter:
        train(trainer, batches)
    return counter.get_total_flops()


def lstm_flops(steps: torch.Size, of_input: torch.Size, of_state: torch.Size, *_: Any, **__: Any) -> int:
    """Return the operations of one forward layer from shapes: (L, B, H) steps, (4H, H) weights of input and state."""
    return 2 * steps[0] * steps[1] * (math.prod(of_input) + math.prod(of_state))


def matrix_product_rate(device: torch.device, size: int = 2048) -> float:
    """Return the FLOP/s of float32 products of square matrices, the median of 7."""
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        (a @ b).sum().item()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
