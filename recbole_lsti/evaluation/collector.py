"""RecBole's Collector without its users x items tables: the same numbers from the top k and from counting."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from recbole.utils import EvaluatorType
from torch import Tensor

from recbole_lsti.evaluation.chunks import Pairs, Ranked, Scores, ranked

PER_EVALUATION = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")  # forgotten after each


class RankingCollector(Collector):
    """Collects what RecBole's ranking metrics read: of each row the best k items and the ranks of its targets.

    RecBole's own builds a matrix of the targets as large as the scores, sorts every row where GAUC is asked for, and
    moves numbers and counters to the CPU as if they were tensors, which stops ItemCoverage, AveragePopularity,
    ShannonEntropy, GiniIndex and TailPercentage. A target with a score of -inf is a miss, however few items are left.
    """

    def twin(self) -> RankingCollector:
        """Return a collector that knows the same of the training data and has collected nothing yet."""
        other = copy.copy(self)
        other.data_struct = DataStruct()
        for key, value in self.data_struct._data_dict.items():
            if key not in PER_EVALUATION:
                other.data_struct.set(key, value)
        return other

    def eval_batch_collect(
        self, scores_tensor: Tensor | Scores, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collect one batch.

        Args:
            scores_tensor: (B, N) scores, -inf for items that do not compete, or Scores that compute them by ranges.
            interaction: the batch.
            positive_u (Tensor): (P,) int64, row of each target; an item is a row's target once.
            positive_i (Tensor): (P,) int64, item of each target.
        """
        if self.config["eval_type"] != EvaluatorType.RANKING:
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
            return
        collect_rankings([self], scores_tensor, positive_u, positive_i)

    def keep(self, ranking: Ranked, row: Tensor, item: Tensor) -> None:
        """Keep what a ranking of a batch says of its targets: row and item are (P,) int64."""
        n_targets = torch.bincount(row, minlength=len(ranking.items))[:, None]  # (B, 1)
        found = (ranking.items[row] == item[:, None]) & (ranking.values[row] > -torch.inf)  # (P, k)
        hits = torch.zeros_like(ranking.items).index_add_(0, row, found.long())
        self.data_struct.update_tensor("rec.items", ranking.items)
        self.data_struct.update_tensor("rec.topk", torch.cat([hits, n_targets], dim=1))
        if ranking.rank is not None and ranking.competing is not None:
            total = torch.zeros(len(n_targets), device=row.device).index_add_(0, row, ranking.rank)[:, None]
            self.data_struct.update_tensor("rec.meanrank", torch.cat([total, ranking.competing, n_targets], dim=1))

    def get_data_struct(self) -> Any:
        """Return what was collected, tensors on the CPU, and forget what belongs to this evaluation alone."""
        content = self.data_struct._data_dict
        for key, value in content.items():
            if torch.is_tensor(value):
                content[key] = value.cpu()
        collected = copy.copy(self.data_struct)
        collected._data_dict = dict(content)
        for key in PER_EVALUATION:
            content.pop(key, None)
        return collected


def collect_rankings(
    collectors: Sequence[RankingCollector],
    scores: Tensor | Scores,
    row: Tensor,
    item: Tensor,
    seen: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Give collectors their rankings of one batch, from one pass over its scores.

    Args:
        collectors: of the ranking of all items and, where `seen` is given, of the one without those.
        scores: (B, N), used up where `seen` is given, or Scores.
        row, item (Tensor): (P,) int64, the targets.
        seen: (row, item) pairs that do not compete, two (S,) int64 tensors.
    """
    first = collectors[0]
    if isinstance(scores, Tensor):
        scores = Scores.whole(scores)
    row, item = row.to(first.device), item.to(first.device)
    masks = [None] if seen is None else [None, Pairs(*seen, first.device)]
    rankings = ranked(scores, row, item, max(first.topk), first.register.need("rec.meanrank"), masks)
    for collector, ranking in zip(collectors, rankings, strict=True):
        collector.keep(ranking, row, item)
