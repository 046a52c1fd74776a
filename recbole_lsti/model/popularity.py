"""The simplest control: the items ranked by how often they occur in the training part, the same for everybody."""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn


class Popularity(SequentialRecommender):
    """score(j) = number of training events of item j.

    RecBole's Pop ranks the same way; it is a general model, which reads other rows and is not split by RecBole as the
    sequential ones are. Here it gets the very rows that the others get, and the first event of each user with them.
    """

    trains_on_sequences = True  # there is nothing to train, and sequences are the fewest batches

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        rows = dataset.inter_feat
        count = torch.bincount(rows[self.ITEM_ID], minlength=self.n_items)
        if self.max_seq_length > 1:  # else every history looks like a first event
            first = rows[self.ITEM_SEQ][:, 0][rows[self.ITEM_SEQ_LEN] == 1]
            count += torch.bincount(first, minlength=self.n_items)
        self.register_buffer("count", count.float())
        self.fake_loss = nn.Parameter(torch.zeros(1))  # RecBole's trainer wants something to optimise

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return 0: nothing is trained."""
        return self.fake_loss.sum() * 0

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the score of every item for each row, (B, N)."""
        return self.count.repeat(len(interaction[self.ITEM_SEQ_LEN]), 1)

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of each row's own item, (B,)."""
        return self.count[interaction[self.ITEM_ID]]
