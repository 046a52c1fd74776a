"""The losses LSTI trains with, each the mean over T targets."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(scores: Tensor, target: Tensor) -> Tensor:
    """Exact softmax cross-entropy over the whole catalogue.

    Args:
        scores (Tensor): (T, M) float, one column an item.
        target (Tensor): (T,) int64, the column of the item that came next.
    Returns:
        Tensor: scalar.
    """
    return F.cross_entropy(scores, target)


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking: -log sigmoid(positive - negative).

    Args:
        positive (Tensor): (T,) scores of the items that came next.
        negative (Tensor): (T,) scores of sampled items.
    Returns:
        Tensor: scalar.
    Source: Rendle et al., UAI 2009, section 4 (arXiv 1205.2618). Differs: the mean, and no added constant inside the
    logarithm, which log-sigmoid does not need.
    """
    return -F.logsigmoid(positive - negative).mean()
