"""Both rankings from one scoring pass: `raw`, as RecBole ranks, and `unseen`, the user's own items masked.

RecBole lets items compete that the user has already had; most published code masks them. What a model has learned is
compared on `unseen`; a target that the user has had before counts as a miss there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from recbole.evaluator import Evaluator
from torch import Tensor


class Rankings(NamedTuple):
    """RecBole's metrics, name -> value, for both rankings of the same scores."""

    raw: dict[str, float]
    unseen: dict[str, float]


def rank(
    config: Any,
    collector: Any,
    batches: Iterable[tuple[Any, Tensor, Tensor, Tensor]],
    seen: Callable[[int, int], tuple[Tensor, Tensor]],
) -> Rankings:
    """Collect scored batches and compute RecBole's metrics for both rankings.

    Args:
        config: the resolved config; it names metrics and cut-offs.
        collector: RankingCollector after `data_collect(train_data)`.
        batches: (interaction, scores (B, N), row of each positive (P,), item of each positive (P,)), in the order of
            the evaluated rows.
        seen: for the evaluated rows start..stop, the (row, item) pairs of their whole histories, rows from 0.
    Returns:
        Rankings: plain floats, 0..1.
    """
    both = {name: copy.deepcopy(collector) for name in Rankings._fields}
    start = 0
    for interaction, scores, row, item in batches:
        both["raw"].eval_batch_collect(scores, interaction, row, item)
        mask_seen(scores, *seen(start, start + len(scores)))
        both["unseen"].eval_batch_collect(scores, interaction, row, item)
        start += len(scores)
    evaluator = Evaluator(config)
    results = (evaluator.evaluate(both[name].get_data_struct()) for name in both)
    return Rankings(*({metric: float(value) for metric, value in result.items()} for result in results))


def mask_seen(scores: Tensor, row: Tensor, item: Tensor) -> None:
    """Take the items of each row's history out of the race, in place; RankingCollector counts such a target a miss.

    Args:
        scores (Tensor): (B, N).
        row, item (Tensor): (S,) int64, the items of each row's history.
    """
    scores[row.to(scores.device), item.to(scores.device)] = -torch.inf
