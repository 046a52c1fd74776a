"""Accuracy@k."""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.evaluator.base_metric import TopkMetric
from recbole.utils import EvaluatorType


class Accuracy(TopkMetric):
    """Share of all items that the top k classes rightly: as wanted inside, as not wanted outside.

    (items - k - targets + 2 hits) / items. With one target among many items it is near 1 for any list, which is why
    rankings are compared by recall and NDCG.

    Source: Manning, Raghavan & Schuetze, Introduction to Information Retrieval, 2008, section 8.3.
    """

    metric_type = EvaluatorType.RANKING
    metric_need = ("rec.topk", "data.num_items")
    smaller = False

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Return accuracy@k for every cut-off."""
        hits, n_targets = self.used_info(dataobject)  # (R, k) bool, (R,)
        n_items = dataobject.get("data.num_items") - 1  # without padding
        k = np.arange(1, hits.shape[1] + 1)
        return self.topk_result("accuracy", (n_items - k - n_targets[:, None] + 2 * hits.cumsum(axis=1)) / n_items)
