"""What a batch of targets asks of a user vector: the loss that `loss_type` names.

Shapes: T targets, D width of item and user vectors, N items (padding included), K negatives of one target, S pairs of a
target and an item of its history.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recbole_lsti.model.inputs import Items
from recbole_lsti.model.losses import Proposal, bce, bpr, cross_entropy, gbce_beta, sampled_softmax
from recbole_lsti.model.repeat import Pairs, look_up


class Asked(NamedTuple):
    """What a batch asks for.

    Attributes:
        positive: (T,) int64, the items that came next.
        negative: (T, K) int64, items that RecBole has sampled against them, for BPR, BCE and gBCE; else None.
        drawn: what `Proposal.draw` has drawn for all of them, for SSM; else None.
    """

    positive: Tensor
    negative: Tensor | None
    drawn: tuple[Tensor, Tensor] | None

    def every(self, n: int) -> Asked:
        """The same of every nth target."""
        return Asked(self.positive[::n], None if self.negative is None else self.negative[::n], self.drawn)


class Objective(nn.Module):
    """The mean loss of user vectors over their targets.

    Args:
        config: `loss_type` and the settings of each loss are read.
        count (Tensor): (N,) how often each item is a target.
        sparse (bool): whether the gradient of item vectors is that of the rows a batch meets; CE meets them all.
    """

    def __init__(self, config: Any, count: Tensor, sparse: bool) -> None:
        super().__init__()
        self.kind: str = config["loss_type"]
        self.pairwise = self.kind in ("BPR", "BCE", "gBCE")
        self.n_items, self.sparse = len(count), sparse
        self.n_negatives: int = config["n_negatives"]
        self.gbce_t: float = config["gbce_t"]
        self.proposal = Proposal(count, config["negative_power"]) if self.kind == "SSM" else None

    def asked(self, positive: Tensor, negative: Tensor | None) -> Asked:
        """Return what a batch asks for, negatives that all its targets share drawn anew."""
        return Asked(positive, negative, None if self.proposal is None else self.proposal.draw(self.n_negatives))

    def forward(self, user: Tensor, part: slice, items: Items, asked: Asked, pairs: Pairs) -> Tensor:
        """Return a scalar.

        Args:
            user (Tensor): (T, D).
            part (slice): columns of user and item vectors outside which the user vectors are 0.
            items (Items): what all items are scored by.
            asked (Asked): the targets.
            pairs (Pairs): what is added to the scores of items of the histories, sorted by target.
        """
        if asked.drawn is not None:
            return self._sampled_softmax(user, part, items, asked.positive, asked.drawn, pairs)
        if asked.negative is None:
            return cross_entropy(user[:, part], items.vectors[:, part], items.bias, asked.positive, *pairs)
        chosen = torch.cat([asked.positive[:, None], asked.negative], dim=1)  # (T, 1 + K)
        vectors, bias = items.of(chosen, self.sparse)  # (T, 1 + K, D), (T, 1 + K)
        scores = (vectors[..., part] @ user[:, part, None]).squeeze(2) + bias + look_up(chosen, pairs)
        positive, negative = scores[:, 0].float(), scores[:, 1:].float()
        if self.kind == "BPR":
            return bpr(positive, negative)
        n_negatives = negative.shape[1]
        return bce(
            positive, negative, gbce_beta(n_negatives, self.n_items - 1, self.gbce_t) if self.kind == "gBCE" else 1.0
        )

    def _sampled_softmax(
        self, user: Tensor, part: slice, items: Items, target: Tensor, drawn: tuple[Tensor, Tensor], pairs: Pairs
    ) -> Tensor:
        with torch.autocast(user.device.type, enabled=False):  # a softmax over many items wants float32
            user, (query, item, value) = user.float()[:, part], pairs
            negatives, log_weight = drawn
            vectors, bias = items.of(negatives, self.sparse)
            scores = torch.addmm(bias, user, vectors[:, part].T)  # (T, U)
            vectors, bias = items.of(target, self.sparse)
            own = (vectors[:, part] * user).sum(1) + bias
            return sampled_softmax(own, scores, target, negatives, log_weight, query, item, value.float())
