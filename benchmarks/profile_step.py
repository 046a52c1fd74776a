"""Where the time of LSTI's training steps goes, and what share of the machine's matrix-product rate they reach.

    python benchmarks/profile_step.py --dataset ml-100k --train_batch_tokens=2048

Trains for some steps, times them, then profiles as many more. The machine's rate is measured in the same process on
square matrices; the step's own work is the floating-point operations of its matrix products, counted by torch on the
same batches, forward and backward. Any setting may follow as --key=value.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import islice
from typing import Any

import torch
from machine import describe_machine
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import recbole_lsti  # noqa: F401 - RecBole needs it on today's NumPy and torch
from recbole_lsti.cli import parse_settings
from recbole_lsti.config import LSTIConfig
from recbole_lsti.memory import keep_freed_memory


def main() -> None:
    """Print seconds, targets a second, the share of the machine's rate, and the operators that cost most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--steps", type=int, default=30, help="steps timed, and again profiled (default: 30)")
    parser.add_argument("--rows", type=int, default=25, help="operators shown (default: 25)")
    known, rest = parser.parse_known_args()
    keep_freed_memory()
    config = LSTIConfig("LSTI", known.dataset, config_dict=parse_settings(rest))
    from recbole.data import data_preparation
    from recbole.utils import init_seed

    from recbole_lsti.data import create_dataset

    init_seed(config["seed"], config["reproducibility"])
    train_data, _, _ = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train_data._dataset).to(config["device"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["learning_rate"])
    batches = [batch.to(config["device"]) for batch in islice(iter(train_data), known.steps)]
    train(model, optimizer, batches[:3])  # the first steps allocate
    started = time.perf_counter()
    train(model, optimizer, batches)
    seconds = time.perf_counter() - started
    targets = sum(int((batch[model.target_field] > 0).sum()) for batch in batches)
    with FlopCounterMode(display=False) as counter:
        train(model, optimizer, batches)
    rate = counter.get_total_flops() / seconds
    peak = matrix_product_rate(config["device"])
    print(describe_machine())
    print(f"{len(batches)} steps of {seconds / len(batches) * 1000:.1f} ms, {targets / seconds:,.0f} targets a second")
    print(f"matrix products: {rate / 1e9:.1f} of {peak / 1e9:.1f} GFLOP/s, {100 * rate / peak:.0f} % of the machine's")
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        train(model, optimizer, batches)
    print(watched.key_averages().table(sort_by="self_cpu_time_total", row_limit=known.rows, max_name_column_width=40))


def train(model: Any, optimizer: torch.optim.Optimizer, batches: list[Any]) -> None:
    """Do one optimiser step a batch."""
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        optimizer.step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrix_product_rate(device: torch.device, size: int = 1024) -> float:
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
