"""The training-free control: counted transitions from the last items with a decay, popularity behind them.

A neural model that does not beat it on some data has not earned its training there.
"""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn


class Markov(SequentialRecommender):
    """score(t, j) = sum over d of decay^d P(j follows x_{t-d}), and the popularity of j where nothing else tells.

    The transitions are counted from the training part once; there is nothing to train. `markov_order` items of the
    history are read, `markov_decay` weighs each against the one after it. Popularity is scaled below the smallest
    transition, so that it only ranks what no transition reaches.

    Source: first-order item transitions as in Rendle et al., WWW 2010, section 4.1. Differs: no factorisation and no
    users; the last items vote with a decay, as in the sequential rules of Ludewig & Jannach, UMUAI 2018, section 3.2.
    """

    trains_on_sequences = True  # there is nothing to train, and sequences are the fewest batches

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.order, self.decay = config["markov_order"], config["markov_decay"]
        before, after = _pairs(dataset.inter_feat, self.ITEM_SEQ, self.ITEM_SEQ_LEN, self.ITEM_ID)
        pair, count = torch.unique(before * self.n_items + after, return_counts=True)  # sorted: row by row
        row, column = pair // self.n_items, pair % self.n_items
        total = torch.bincount(row, weights=count.double(), minlength=self.n_items)
        self.register_buffer("begin", torch.searchsorted(row, torch.arange(self.n_items + 1)))
        self.register_buffer("column", column)
        self.register_buffer("probability", (count / total[row]).float())
        popularity = torch.bincount(after, minlength=self.n_items).float()
        smallest = self.probability.min() * self.decay ** (self.order - 1) if len(pair) else torch.tensor(1.0)
        self.register_buffer("popularity", popularity / (popularity.sum() + 1) * smallest)
        self.fake_loss = nn.Parameter(torch.zeros(1))  # RecBole's trainer wants something to optimise

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return 0: nothing is trained."""
        return self.fake_loss.sum() * 0

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the score of every item for each row, (B, N)."""
        item_seq, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        scores = self.popularity.repeat(len(item_seq), 1)
        for distance in range(min(self.order, int(length.max()))):
            row = (length > distance).nonzero().squeeze(1)
            item = item_seq[row, length[row] - 1 - distance]
            size = self.begin[item + 1] - self.begin[item]
            row = row.repeat_interleave(size)
            shift = self.begin[item] - size.cumsum(0) + size  # from the place in `row` to the place in `column`
            at = torch.arange(len(row), device=row.device) + shift.repeat_interleave(size)
            scores.index_put_((row, self.column[at]), self.decay**distance * self.probability[at], accumulate=True)
        return scores

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of each row's own item, (B,)."""
        return self.full_sort_predict(interaction).gather(1, interaction[self.ITEM_ID][:, None]).squeeze(1)


def _pairs(rows: Any, item_seq: str, length: str, item: str) -> tuple[Tensor, Tensor]:
    """The item before each target, and the target: two (R,) int64 tensors."""
    if hasattr(rows, "before"):  # rows that gather: the whole histories need not be
        return rows.before(item), rows[item]
    history = rows[item_seq]
    return history[torch.arange(len(history)), rows[length] - 1], rows[item]
