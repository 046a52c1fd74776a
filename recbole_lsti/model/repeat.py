"""The repeat term: how much a user who has had an item before wants it again.

It learns to suppress repeats where people do not repeat (films) and to favour them where they do (music). Shapes: B
batch, L sequence length, H hidden size, N items, T queries (a row of the batch and a step in it).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RECENCY_BUCKETS = 12  # steps since the item's last occurrence, in powers of two: 0, 1-2, 3-6, ..., 2047 and more
FREQUENCY_BUCKETS = 6  # occurrences so far, in powers of two: 1, 2-3, ..., 32 and more


class RepeatTerm(nn.Module):
    """repeat(t, j) = table[recency, frequency] + (state(u_t))[recency] for items j seen at or before t, else 0."""

    def __init__(self, H: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(RECENCY_BUCKETS, FREQUENCY_BUCKETS))
        self.state = nn.Linear(H, RECENCY_BUCKETS)

    def add_to(self, scores: Tensor, user: Tensor, item_seq: Tensor, row: Tensor, step: Tensor) -> Tensor:
        """Return (T, N) scores with the term added for the items each query's history holds; arguments as below."""
        query, item, value = self.pairs(user, item_seq, row, step)
        return scores.index_put((query, item), value.to(scores.dtype), accumulate=True)

    def pairs(self, user: Tensor, item_seq: Tensor, row: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the term where it is not 0: S (query, item) pairs, each once, and the value, three (S,) tensors.

        Args:
            user (Tensor): (T, H) user vectors.
            item_seq (Tensor): (B, L) int64, 0 = padding.
            row (Tensor): (T,) int64, the query's row in item_seq.
            step (Tensor): (T,) int64, the last step the query may see.
        """
        count, following = _occurrences(item_seq)
        steps = torch.arange(item_seq.shape[1], device=item_seq.device)
        # an item counts at its last occurrence up to the query's step: later than that comes its next one
        last = (steps <= step[:, None]) & (following[row] > step[:, None]) & (item_seq[row] != 0)  # (T, L)
        query, at = last.nonzero(as_tuple=True)
        seen = row[query]
        return query, item_seq[seen, at], self._value(user, query, step[query] - at, count[seen, at])

    def of(self, items: Tensor, user: Tensor, item_seq: Tensor, row: Tensor, step: Tensor) -> Tensor:
        """Return the term for K chosen items of each query, (T, K); `items` is (T, K) int64, the rest as above."""
        steps = torch.arange(item_seq.shape[1], device=item_seq.device)
        history = item_seq[row]  # (T, L)
        history = history.masked_fill((steps > step[:, None]) | (history == 0), -1)
        match = history[:, None] == items[:, :, None]  # (T, K, L)
        count = match.sum(dim=2)
        at = (match * (steps + 1)).amax(dim=2) - 1  # last occurrence, -1 where there is none
        query, chosen = (count > 0).nonzero(as_tuple=True)
        value = self._value(user, query, step[query] - at[query, chosen], count[query, chosen])
        return torch.zeros_like(items, dtype=user.dtype).index_put((query, chosen), value.to(user.dtype))

    def _value(self, user: Tensor, query: Tensor, distance: Tensor, count: Tensor) -> Tensor:
        recency = torch.log2(distance + 1.0).long().clamp(max=RECENCY_BUCKETS - 1)
        frequency = torch.log2(count.float()).long().clamp(max=FREQUENCY_BUCKETS - 1)
        return self.table[recency, frequency] + self.state(user)[query, recency]


def _occurrences(item_seq: Tensor) -> tuple[Tensor, Tensor]:
    """For each step: how often its item has occurred so far (from 1), and the step of its next occurrence (L if none).

    Args:
        item_seq (Tensor): (B, L) int64.
    Returns:
        tuple: two (B, L) int64 tensors.
    """
    B, L = item_seq.shape
    steps = torch.arange(L, device=item_seq.device).expand(B, L)
    items, order = item_seq.sort(dim=1, stable=True)  # equal items lie together, in time order
    begins = torch.ones_like(items, dtype=torch.bool)
    begins[:, 1:] = items[:, 1:] != items[:, :-1]
    first = torch.where(begins, steps, 0).cummax(dim=1).values
    count = torch.empty_like(item_seq).scatter_(1, order, steps - first + 1)
    next_in_run = torch.full_like(item_seq, L)
    next_in_run[:, :-1] = torch.where(begins[:, 1:], L, order[:, 1:])
    return count, torch.empty_like(item_seq).scatter_(1, order, next_in_run)
