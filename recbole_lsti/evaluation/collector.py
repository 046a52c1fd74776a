"""RecBole's Collector without its users x items tables: the same numbers from the top k and from counting."""

from __future__ import annotations

import copy
from typing import Any

import torch
from recbole.evaluator import Collector
from recbole.utils import EvaluatorType
from torch import Tensor

PER_EVALUATION = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")  # forgotten after each


class RankingCollector(Collector):
    """Collects what RecBole's ranking metrics read, in memory of the size of the scores themselves.

    RecBole's own builds a matrix of the targets as large as the scores, sorts every row where GAUC is asked for, and
    moves numbers and counters to the CPU as if they were tensors, which stops ItemCoverage, AveragePopularity,
    ShannonEntropy, GiniIndex and TailPercentage. A target with a score of -inf is a miss, however few items are left.
    """

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collect one batch.

        Args:
            scores_tensor (Tensor): (B, N) scores, -inf for items that do not compete.
            interaction: the batch.
            positive_u (Tensor): (P,) int64, row of each target; an item is a row's target once.
            positive_i (Tensor): (P,) int64, item of each target.
        """
        if self.config["eval_type"] != EvaluatorType.RANKING:
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
            return
        row, item = positive_u.to(scores_tensor.device), positive_i.to(scores_tensor.device)
        n_targets = torch.bincount(row, minlength=len(scores_tensor))[:, None]  # (B, 1)
        if self.register.need("rec.items") or self.register.need("rec.topk"):
            top = torch.topk(scores_tensor, max(self.topk), dim=-1)
            self.data_struct.update_tensor("rec.items", top.indices)
            found = (top.indices[row] == item[:, None]) & (top.values[row] > -torch.inf)  # (P, k)
            hits = torch.zeros_like(top.indices).index_add_(0, row, found.long())
            self.data_struct.update_tensor("rec.topk", torch.cat([hits, n_targets], dim=1))
        if self.register.need("rec.meanrank"):
            rank = torch.empty(len(row), device=scores_tensor.device)
            for start in range(0, len(row), 64):  # a copy of a few rows at a time
                rows = scores_tensor[row[start : start + 64]]
                own = rows.gather(1, item[start : start + 64, None])
                rank[start : start + 64] = (rows > own).sum(1) + ((rows == own).sum(1) + 1) / 2  # ties share their mean
            total = torch.zeros(len(scores_tensor), device=rank.device).index_add_(0, row, rank)[:, None]
            competing = (scores_tensor > scores_tensor.amin(1, keepdim=True)).sum(1, keepdim=True)
            self.data_struct.update_tensor("rec.meanrank", torch.cat([total, competing, n_targets], dim=1))

    def get_data_struct(self) -> Any:
        """Return what was collected, tensors on the CPU, and forget what belongs to this evaluation alone."""
        content = self.data_struct._data_dict
        for key, value in content.items():
            if torch.is_tensor(value):
                content[key] = value.cpu()
        collected = copy.deepcopy(self.data_struct)
        for key in PER_EVALUATION:
            content.pop(key, None)
        return collected
