"""Cost of a training step against the length of the histories in it, at equal tokens, and the exponent of its growth.

    python benchmarks/history_length.py --output results/history-length.json

Each step holds as many tokens, in fewer and longer random histories. Seconds are those of the processor, all threads
together, which other work on the machine changes little; lengths take turns. The exponent is the slope of log(seconds a
token) against log(length), plus 1: 1 is linear cost. Settings of LSTI may follow as --key=value, but for those that
train otherwise than from whole sequences with CE or SSM.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from recbole.data.interaction import Interaction

import recbole_lsti  # noqa: F401 - RecBole needs it on today's NumPy and torch
from recbole_lsti.cli import parse_settings
from recbole_lsti.config import LSTIConfig
from recbole_lsti.memory import keep_freed_memory
from recbole_lsti.optimisation import LazyRows

N_ITEMS = 3_416  # of ml-1m; enough that the longest histories do not run out of items


def main() -> None:
    """Time steps of every length in turn, print the table and the exponent."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--lengths", type=int, nargs="*", default=[50, 200, 800, 3200], help="steps of a history")
    parser.add_argument("--tokens", type=int, default=6400, help="histories times steps of a batch (default: 6400)")
    parser.add_argument("--steps", type=int, default=9, help="steps timed of each length (default: 9)")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    known, rest = parser.parse_known_args()
    keep_freed_memory()
    settings = {"MAX_ITEM_LIST_LENGTH": max(known.lengths), "use_gpu": False, **parse_settings(rest)}
    config = LSTIConfig("LSTI", "ml-100k", config_dict=settings)
    does = {"loss_type": ("CE", "SSM"), "train_mode": ("sequence",), "carry_state": (False,), "input_fields": (None,)}
    for key, values in does.items():
        if config[key] not in values:
            parser.error(f"{key} ({config[key]}) must be {' or '.join(map(str, values))} here")
    items = torch.randint(1, N_ITEMS, (100_000,), generator=torch.Generator().manual_seed(0))
    model = config.model_class(
        config, SimpleNamespace(num=lambda field: N_ITEMS, inter_feat={"item_id": items})
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"])
    optimizer.register_step_pre_hook(LazyRows(config["clip_grad_norm"]))
    batches = {length: batch_of(model, length, known.tokens // length) for length in known.lengths}
    seconds: dict[int, list[float]] = {length: [] for length in batches}
    for turn in range(known.steps + 1):
        for length, batch in batches.items():
            started = time.process_time()
            optimizer.zero_grad()
            model.calculate_loss(batch).backward()
            optimizer.step()
            if turn:  # the first one allocates
                seconds[length].append(time.process_time() - started)
    median = {length: statistics.median(values) for length, values in seconds.items()}
    slope, _ = np.polyfit(np.log(list(median)), np.log(list(median.values())), 1)
    print(f"{describe_machine()}\n\n{'length':>8}{'ms a step':>12}{'us a token':>12}{'times first':>12}")
    first = median[known.lengths[0]]
    for length, value in median.items():
        tokens = known.tokens // length * length
        print(f"{length:>8}{1000 * value:>12.1f}{1e6 * value / tokens:>12.2f}{value / first:>12.2f}")
    print(f"\nexponent of the cost in the length of a history: {1 + slope:.3f}")
    if known.output:
        known.output.parent.mkdir(parents=True, exist_ok=True)
        record = {"machine": describe_machine(), "settings": rest, "processor_seconds": seconds, "exponent": 1 + slope}
        known.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def batch_of(model: Any, length: int, rows: int) -> Interaction:
    """Random histories with a target behind each step, about half of whose items the user has had before."""
    generator = torch.Generator().manual_seed(length)
    n_liked = max(2, length * 2 // 3)  # at any length: two thirds of the steps would be new, were none drawn twice
    liked = torch.stack([1 + torch.randperm(N_ITEMS - 1, generator=generator)[:n_liked] for _ in range(rows)])
    events = liked.gather(1, torch.randint(0, n_liked, (rows, length + 1), generator=generator))
    time = torch.arange(length, dtype=torch.float64).mul(600).expand(rows, length).contiguous()
    return Interaction(
        {
            model.USER_ID: torch.arange(1, rows + 1),
            model.ITEM_SEQ: events[:, :-1].contiguous(),
            model.ITEM_SEQ_LEN: torch.full((rows,), length),
            model.target_field: events[:, 1:].contiguous(),
            model.time_field: time,
            model.time_field.replace("exact_", "gap_"): torch.where(time > 0, 600.0, -1.0),
        }
    )


if __name__ == "__main__":
    main()
