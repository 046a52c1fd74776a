"""F1@k."""

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
        hits, n_targets = self.used_info(dataobject)  # (R, k) bool, (R,)
        k = np.arange(1, hits.shape[1] + 1)
        return self.topk_result("f1", 2 * hits.cumsum(axis=1) / (k + n_targets[:, None]))
