"""Both rankings from one scoring pass: `raw`, as RecBole ranks, and `unseen`, the user's own items masked.

RecBole lets items compete that the user has already had; most published code masks them. What a model has learned is
compared on `unseen`; a target that the user has had before counts as a miss there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from recbole.evaluator import Evaluator
from torch import Tensor

from recbole_lsti.evaluation.chunks import Scores
from recbole_lsti.evaluation.collector import RankingCollector, collect_rankings, target_places
from recbole_lsti.evaluation.listed import Listed


class UserScores(NamedTuple):
    """The values behind the averages: one row for each evaluated history and its target.

    Attributes:
        user: (R,) int64, the user's id, in the order of the evaluated rows.
        target: (R,) int64, id of the row's first target, 0 where it has none.
        metrics: M names such as `ndcg@10`: those of the metrics asked for that are averages over rows.
        raw, unseen: (R, M) float64, 0..1 for most; NaN where a metric is not defined for a row, and all of `unseen`
            where there is no such ranking. The mean of a column without its NaN is the metric before it is rounded to
            `metric_decimal_place`.
    """

    user: np.ndarray
    target: np.ndarray
    metrics: list[str]
    raw: np.ndarray
    unseen: np.ndarray


class Rankings(NamedTuple):
    """RecBole's metrics, name -> value, for both rankings of the same scores, and the values of each row.

    `unseen` is None where the targets were ranked among sampled negatives.
    """

    raw: dict[str, float]
    unseen: dict[str, float] | None
    users: UserScores


def rank(
    config: Any,
    collector: RankingCollector,
    batches: Iterable[tuple[Any, Tensor | Scores | Listed, Tensor, Tensor]],
    seen: Callable[[int, int], tuple[Tensor, Tensor]] | None,
) -> Rankings:
    """Collect scored batches and compute RecBole's metrics for both rankings.

    Args:
        config: the resolved config; it names metrics and cut-offs.
        collector: what has done `data_collect(train_data)`; it is left as it is.
        batches: (interaction, scores (B, N), Scores or Listed, row of each positive (P,), item of each positive (P,)),
            in the order of the evaluated rows; a table of scores is used up.
        seen: for the evaluated rows start..stop, the (row, item) pairs of their whole histories, rows from 0; None: the
            ranking `raw` alone.
    Returns:
        Rankings: plain floats, 0..1.
    """
    collectors = [collector.twin() for _ in range(1 if seen is None else 2)]
    users, targets, start = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for interaction, scores, row, item in batches:
        masked = None if seen is None else seen(start, start + len(scores))
        collect_rankings(collectors, scores, interaction, row, item, masked)
        start += len(scores)
        users.append(_users(interaction[config["USER_ID_FIELD"]].cpu(), len(scores), row.cpu()))
        targets.append(_first_targets(len(scores), row, item))
    (raw, names, values), *rest = (evaluate_rows(config, each.get_data_struct()) for each in collectors)
    unseen, _, masked_values = rest[0] if rest else (None, names, np.full_like(values, np.nan))
    rows = UserScores(np.concatenate(users), np.concatenate(targets), names, values, masked_values)
    return Rankings(raw, unseen, rows)


def evaluate_rows(config: Any, collected: Any) -> tuple[dict[str, float], list[str], np.ndarray]:
    """Compute RecBole's metrics and, where a metric is an average over rows, the values that it averages.

    Args:
        config: the resolved config; it names metrics and cut-offs.
        collected: RecBole's DataStruct, as a collector's `get_data_struct` returns it.
    Returns:
        tuple: metric -> value, rounded as RecBole rounds; M names; (R, M) float64 values of each row.
    """
    columns: dict[str, np.ndarray] = {}

    def keep(metric: Any, average: Callable[[str, np.ndarray], dict[str, float]], name: str, value: np.ndarray) -> Any:
        columns.update({f"{name}@{k}": value[:, k - 1] for k in metric.topk})
        return average(name, value)

    evaluator = Evaluator(config)
    for metric in evaluator.metric_class.values():
        if hasattr(metric, "topk_result"):  # what RecBole's metrics hand their (R, k) values to
            metric.topk_result = partial(keep, metric, metric.topk_result)
    result = {name: float(value) for name, value in evaluator.evaluate(collected).items()}
    values = np.column_stack(list(columns.values())) if columns else np.empty((0, 0))
    return result, list(columns), values.astype(np.float64)


def _users(shown: Tensor, n_rows: int, row: Tensor) -> np.ndarray:
    """The user of each ranked row, (R,); among sampled negatives a batch shows a user once for each candidate."""
    if len(shown) == n_rows:
        return shown.numpy()
    users = np.zeros(n_rows, np.int64)
    users[row.numpy()] = shown[target_places(row, len(shown))].numpy()
    return users


def _first_targets(n_rows: int, row: Tensor, item: Tensor) -> np.ndarray:
    rows, first = np.unique(row.cpu().numpy(), return_index=True)
    targets = np.zeros(n_rows, np.int64)
    targets[rows] = item.cpu().numpy()[first]
    return targets
