"""Metrics beside RecBole's, which RecBole's `metrics:` list takes as its own.

Each is computed per user from what RecBole collects, for every cut-off 1..k at once, and averaged over users.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.evaluator.base_metric import TopkMetric
from recbole.utils import EvaluatorType


class F1(TopkMetric):
    """Harmonic mean of precision and recall of the top k: 2 hits / (k + targets); 0 without a hit.

    Source: van Rijsbergen, Information Retrieval, 2nd ed. 1979, chapter 7, with beta = 1.
    """

    metric_type = EvaluatorType.RANKING
    metric_need = ("rec.topk",)
    smaller = False

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Return f1@k for every cut-off."""
        hits, n_targets = self.used_info(dataobject)  # (users, k) bool, (users,)
        k = np.arange(1, hits.shape[1] + 1)
        return self.topk_result("f1", 2 * hits.cumsum(axis=1) / (k + n_targets[:, None]))


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
        hits, n_targets = self.used_info(dataobject)
        n_items = dataobject.get("data.num_items") - 1  # without padding
        k = np.arange(1, hits.shape[1] + 1)
        return self.topk_result("accuracy", (n_items - k - n_targets[:, None] + 2 * hits.cumsum(axis=1)) / n_items)


METRICS = (Accuracy, F1)
