"""RepeatRecall@k and ExploreRecall@k: Recall of what the user comes back to, and of what is new to the user."""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.evaluator.base_metric import TopkMetric
from recbole.utils import EvaluatorType


class RepeatRecall(TopkMetric):
    """Recall of the targets that the user has had before: their hits in the top k / their number, mean over rows.

    Had before means: in an interaction of the user in the training part, or in the history that the row shows. A row
    without such a target is left out (NaN among the values of rows), and the metric is NaN where no row has one. The
    ranking `unseen` masks what the history holds: it is 0 there, unless the training part has what the history lacks.

    Source: the repeat-explore split of Ren et al., RepeatNet, AAAI 2019, section 5; Li et al., TOIS 41(4) 2023.
    """

    metric_type = EvaluatorType.RANKING
    metric_need = ("rec.topk", "rec.repeat")
    smaller = False
    name = "repeatrecall"

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Return the metric for every cut-off."""
        hits, n_targets = self.part(dataobject)
        with np.errstate(invalid="ignore"):  # 0 / 0, NaN, in a row without a target of the part
            return self.topk_result(self.name, hits.cumsum(axis=1) / n_targets[:, None])

    def part(self, dataobject: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return where the part's targets stand, (R, k), and how many there are, (R,)."""
        repeats = dataobject.get("rec.repeat").numpy()  # (R, k + 1), as rec.topk
        return repeats[:, :-1], repeats[:, -1]

    def topk_result(self, metric: str, value: np.ndarray) -> dict[str, float]:
        """Average over the rows that have a target of the part."""
        defined = value[~np.isnan(value[:, 0])]
        mean = defined.mean(axis=0) if len(defined) else np.full(value.shape[1], np.nan)
        return {f"{metric}@{k}": round(mean[k - 1], self.decimal_place) for k in self.topk}


class ExploreRecall(RepeatRecall):
    """Recall of the targets that are new to the user: those that RepeatRecall leaves out.

    A row without one is left out, as there; `unseen` masks none of them.
    """

    name = "explorerecall"

    def part(self, dataobject: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return where the part's targets stand, (R, k), and how many there are, (R,)."""
        every = dataobject.get("rec.topk").numpy()
        hits, n_targets = super().part(dataobject)
        return every[:, :-1] - hits, every[:, -1] - n_targets
