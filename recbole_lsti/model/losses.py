"""The losses LSTI trains with, each the mean over T targets.

Shapes: T targets, H hidden size, N items, U different negatives that all targets share, K negatives of one target.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

UNDERFLOW = 1e-30  # the logarithm of a smaller share of a softmax is not exact


def cross_entropy(
    user: Tensor, items: Tensor, bias: Tensor, target: Tensor, query: Tensor, item: Tensor, value: Tensor
) -> Tensor:
    """Exact softmax cross-entropy over the whole catalogue, in memory that does not grow with T * N.

    The score of item j at target t is user_t . items_j + bias_j, and `value_s` more for each pair (query_s, item_s).
    The padding item 0 takes no part. The scores are made for a few targets at a time, and their share of the gradients
    with them, so that they are never kept.

    Args:
        user (Tensor): (T, H).
        items (Tensor): (N, H), bias (Tensor): (N,).
        target (Tensor): (T,) int64, the item that came next, 1..N-1.
        query, item (Tensor): (S,) pairs of whole numbers, each once, sorted by query; value (Tensor): (S,).
    Returns:
        Tensor: scalar.
    Source: gradients in the forward pass as in Liger Kernel's fused linear cross-entropy (Hsu et al. 2024, arXiv
    2410.10989). Differs: cut along the targets alone, sparse additions, plain torch.
    """
    with torch.autocast(user.device.type, enabled=False):  # a softmax over many items wants float32
        return _CrossEntropy.apply(user, items, bias, target, query, item, value)


def _targets_at_a_time(N: int, device: str) -> int:
    """How many targets are scored against N items at a time.

    On a CPU as many as leave their scores in a core's cache; where that are few, more, because a product of few rows
    reads the items too often. On a GPU a quarter GiB of scores.
    """
    if device != "cpu":
        return max(32, 2**26 // N)
    return max(32, 2**18 // N, min(128, 2**22 // N))


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, user: Tensor, items: Tensor, bias: Tensor, target: Tensor, query: Tensor, item: Tensor, value: Tensor
    ) -> Tensor:
        T, N = len(user), len(items)
        dtypes = user.dtype, value.dtype
        user, value = user.to(items.dtype), value.to(items.dtype)
        rows = _targets_at_a_time(N, user.device.type)
        grad_user, grad_value = torch.empty_like(user), torch.empty_like(value)
        grad_items = torch.zeros_like(items) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        starts = range(0, T, rows)
        cuts = [0, len(query)]
        if rows < T:
            cuts = torch.searchsorted(query, query.new_tensor([*starts, T])).tolist()
        losses = []
        all_scores = user.new_empty(min(rows, T), N)
        all_shares = torch.empty_like(all_scores)
        for start, first, last in zip(starts, cuts, cuts[1:], strict=False):
            mine = user[start : start + rows]  # (R, H)
            scores = torch.addmm(bias, mine, items.T, out=all_scores[: len(mine)])  # (R, N)
            flat = scores.view(-1)
            at = (query[first:last] - start).long().mul_(N).add_(item[first:last])
            flat.scatter_add_(0, at, value[first:last])
            wanted = torch.arange(len(mine), device=user.device).mul_(N).add_(target[start : start + rows])
            scores[:, 0] = -torch.inf
            share = torch.softmax(scores, dim=1, out=all_shares[: len(mine)])
            own = share.view(-1).index_select(0, wanted)
            loss, tiny = -own.log(), (own < UNDERFLOW).nonzero().squeeze(1)
            if len(tiny):
                loss[tiny] = scores[tiny].logsumexp(1) - flat[wanted[tiny]]
            losses.append(loss)
            # from here on the softmax is the gradient of the scores, but for the factor 1 / T: softmax - one-hot
            flat = share.view(-1)
            flat[wanted] -= 1
            grad_value[first:last] = flat.index_select(0, at)
            torch.mm(share, items, out=grad_user[start : start + rows])
            if grad_items is not None:
                grad_items.addmm_(share.T, mine)
            if grad_bias is not None:
                grad_bias += share.sum(0)
        ctx.dtypes, ctx.T = dtypes, T
        ctx.save_for_backward(grad_user, grad_items, grad_bias, grad_value)
        return torch.cat(losses).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_user, *kept, grad_value = ctx.saved_tensors
        grad = grad / ctx.T
        grad_user, grad_value = grad_user * grad, grad_value * grad
        grad_items, grad_bias = (None if part is None else part * grad for part in kept)
        of_user, of_value = ctx.dtypes
        return grad_user.to(of_user), grad_items, grad_bias, None, None, None, grad_value.to(of_value)


class Proposal(nn.Module):
    """What SSM draws its negatives from: item j with probability q_j, which goes with (n_j + 1) ** power.

    Args:
        count (Tensor): (N,) n_j, how often each item is a target of the training part.
        power (float): 0 draws uniformly, 1 by popularity. Every item but padding can be drawn.
    """

    cumulative: Tensor
    log_q: Tensor

    def __init__(self, count: Tensor, power: float) -> None:
        super().__init__()
        weight = (count.double() + 1) ** power
        weight[0] = 0  # the padding item
        q = weight / weight.sum()
        self.register_buffer("cumulative", q.cumsum(0), persistent=False)  # (N,) float64: a million items and more
        self.register_buffer("log_q", q.log().float(), persistent=False)

    @torch.compiler.disable  # compiled code draws other numbers from the same seed
    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Draw n items with replacement, at a cost that grows with log N.

        Returns:
            tuple: the U different items, sorted, and the logarithm of what each stands for: its draws / (n * q_j).
        """
        at = torch.rand(n, dtype=torch.float64, device=self.cumulative.device)
        items = torch.searchsorted(self.cumulative, at, right=True).clamp_(max=len(self.cumulative) - 1)
        items, draws = items.unique(return_counts=True)
        return items, draws.log() - math.log(n) - self.log_q[items]


def sampled_softmax(
    positive: Tensor,
    scores: Tensor,
    target: Tensor,
    negatives: Tensor,
    log_weight: Tensor,
    query: Tensor,
    item: Tensor,
    value: Tensor,
) -> Tensor:
    """Softmax cross-entropy over each target and negatives that all targets share, corrected for how they are drawn.

    A drawn item enters with s_j - log(n q_j) for each draw, so that the sum under the logarithm is an unbiased estimate
    of the softmax's own sum over all items. The target enters with its own score, and counts as a negative nowhere.

    Args:
        positive (Tensor): (T,) scores of the targets, scores (Tensor): (T, U) those of the negatives, both without
            the repeat term.
        target (Tensor): (T,) int64.
        negatives (Tensor): (U,) int64, different and sorted, log_weight (Tensor): (U,), both as `Proposal.draw`
            returns them.
        query, item (Tensor): (S,) pairs of whole numbers, each once; value (Tensor): (S,), added to their scores.
    Returns:
        Tensor: scalar.
    Source: Bengio & Senecal, IEEE Transactions on Neural Networks 19(4), 2008; the correction and shared negatives as
    in Yi et al., RecSys 2019 (doi 10.1145/3298689.3346996). Differs: drawn items that are the target itself are left
    out, and the target is not corrected, being there with certainty.
    """
    mine = (item == target.index_select(0, query)).nonzero().squeeze(1)
    positive = positive.index_add(0, query.index_select(0, mine), value.index_select(0, mine))
    column = torch.searchsorted(negatives.to(item.dtype), item).clamp_(max=len(negatives) - 1)
    drawn = (negatives.index_select(0, column) == item).nonzero().squeeze(1)
    at = query.index_select(0, drawn).long() * len(negatives) + column.index_select(0, drawn)
    scores = (scores + log_weight).view(-1).index_add(0, at, value.index_select(0, drawn)).view_as(scores)
    scores = scores.masked_fill(negatives == target[:, None], -torch.inf)
    return (torch.cat([positive[:, None], scores], dim=1).logsumexp(1) - positive).mean()


def bce(positive: Tensor, negative: Tensor, beta: float = 1.0) -> Tensor:
    """Binary cross-entropy over a target and K negatives: -(beta log sigmoid(s+) + sum_k log sigmoid(-s_k)) / (K + 1).

    Args:
        positive (Tensor): (T,) scores of the items that came next.
        negative (Tensor): (T, K) scores of sampled items.
        beta (float): 1 for BCE; `gbce_beta` for gBCE.
    Returns:
        Tensor: scalar.
    Source: Kang & McAuley, ICDM 2018, eq. 6 (arXiv 1808.09781), and with beta Petrov & Macdonald, RecSys 2023 (arXiv
    2308.07192). Differs: BCE is the mean over the target and its negatives, as gBCE is, not their sum.
    """
    total = beta * F.logsigmoid(positive) + F.logsigmoid(-negative).sum(1)
    return -total.mean() / (1 + negative.shape[1])


def gbce_beta(n_negatives: int, n_items: int, t: float) -> float:
    """The power that makes up for sampling few negatives, which teaches a model to be too sure of everything.

    Args:
        n_negatives (int): negatives of a target.
        n_items (int): items that one can be, padding left out.
        t (float): how much of it is made up for, 0 (BCE) to 1 (scores as over all items).
    Returns:
        float: beta = a (t (1 - 1/a) + 1/a) with the sampling rate a = n_negatives / (n_items - 1), at most 1.
    Source: Petrov & Macdonald, RecSys 2023, section 5 (arXiv 2308.07192).
    """
    rate = min(1.0, n_negatives / max(1, n_items - 1))
    return 1 - t * (1 - rate)


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking: -log sigmoid(positive - negative).

    Args:
        positive (Tensor): (T,) scores of the items that came next.
        negative (Tensor): (T, K) scores of sampled items.
    Returns:
        Tensor: scalar.
    Source: Rendle et al., UAI 2009, section 4 (arXiv 1205.2618). Differs: the mean, and no added constant inside the
    logarithm, which log-sigmoid does not need.
    """
    return -F.logsigmoid(positive[:, None] - negative).mean()
