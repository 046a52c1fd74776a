"""Rankings that are lists already: judged as scores are, in memory that grows with the lists and not with the items.

Shapes: B rows of a batch, E entries of their lists, k the largest cut-off.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_lsti.evaluation.chunks import Pairs, Ranked


class Listed:
    """The lists of a batch, in the place of its scores. What stands in none does not compete.

    Args:
        row (Tensor): (E,) int64, ascending: the row whose list an entry stands in.
        item (Tensor): (E,) int64, 1 or more, each once in a list, the best first; an id of no item is a miss.
        n_rows (int): B.
        width (int): above every id, those of the items included.
    """

    def __init__(self, row: Tensor, item: Tensor, n_rows: int, width: int) -> None:
        self.row, self.item, self.n_rows, self.width = row, item, n_rows, width

    def __len__(self) -> int:
        return self.n_rows

    def ranked(self, k: int, masks: Sequence[Pairs | None], device: torch.device) -> list[Ranked]:
        """Rank the batch once for each mask; a later mask adds to the earlier ones, and what is left closes up.

        Args:
            k (int): length of the rankings; behind the end of a shorter list stands item 0 with a value of -inf.
            masks: items that do not compete, on `device`; None: no further ones.
            device: where the rankings are made and lie.
        Returns:
            list[Ranked]: one a mask, without the ranks of targets.
        """
        row, item = self.row.to(device), self.item.to(device)
        rankings = []
        for mask in masks:
            if mask is not None:
                left = ~torch.isin(row * self.width + item, mask.row * self.width + mask.item)
                row, item = row[left], item[left]
            place = torch.arange(len(row), device=device) - torch.searchsorted(row, row)  # in its list, from 0
            row_in, item_in, place_in = (each[place < k] for each in (row, item, place))
            items = item.new_zeros(self.n_rows, k)
            values = torch.full((self.n_rows, k), -torch.inf, device=device)
            items[row_in, place_in] = item_in
            values[row_in, place_in] = -place_in.float()
            rankings.append(Ranked(items, values, None, None))
        return rankings
