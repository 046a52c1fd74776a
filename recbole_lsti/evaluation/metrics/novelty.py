"""Novelty@k."""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.evaluator.base_metric import TopkMetric
from recbole.utils import EvaluatorType


class Novelty(TopkMetric):
    """Mean self-information of the listed items, in bits: the mean of -log2 p(i) over the top k.

    p(i) is the item's share of the training part's interactions. An item without any there counts as if it had one:
    its self-information would be infinite. Larger means less popular lists.

    Source: Zhou et al., PNAS 107(10) 2010, "surprisal"; Castells, Vargas & Wang, DDR 2011, section 3. Differs: a share
    of interactions, which is what RecBole counts, where Zhou et al. take a share of users.
    """

    metric_type = EvaluatorType.RANKING
    metric_need = ("rec.items", "data.count_items")
    smaller = False

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Return novelty@k for every cut-off."""
        items = dataobject.get("rec.items").numpy()  # (R, k)
        counts = dataobject.get("data.count_items")
        listed, place = np.unique(items, return_inverse=True)
        times = np.array([max(1, counts.get(item, 0)) for item in listed.tolist()])
        surprise = np.log2(max(1, sum(counts.values())) / times)[place].reshape(items.shape)
        return self.topk_result("novelty", surprise.cumsum(axis=1) / np.arange(1, items.shape[1] + 1))
