"""The repeat term: how much a user who has had an item before wants it again.

It learns to suppress repeats where people do not repeat (films) and to favour them where they do (music). Shapes: B
batch, L sequence length, D width of user vectors, N items, T queries (a row of the batch and a step in it).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

RECENCY_BUCKETS = 12  # steps since the item's last occurrence, in powers of two: 0, 1-2, 3-6, ..., 2047 and more
FREQUENCY_BUCKETS = 6  # occurrences so far, in powers of two: 1, 2-3, ..., 32 and more


class Earlier(NamedTuple):
    """What came before the steps of a batch: each row's different items, three (B, P) int64 tensors, item 0 = none.

    `distance` is the number of steps from the item's last occurrence to step 0, 1 or more; `counts` its occurrences.
    """

    item: Tensor
    distance: Tensor
    counts: Tensor


class Seen(NamedTuple):
    """The items of the queries' histories: S pairs of query and item, each once, sorted by query.

    Three (S,) int32 tensors, for there are many: in half the bytes they are found a fifth sooner. `cell` is the pair's
    place in the term's table: its recency and frequency.
    """

    query: Tensor
    item: Tensor
    cell: Tensor

    def every(self, n: int) -> Seen:
        """The pairs of every nth query."""
        kept = (self.query % n == 0).nonzero().squeeze(1)
        query, item, cell = (part.index_select(0, kept) for part in self)
        return Seen(query // n, item, cell)


class Pairs(NamedTuple):
    """What is added to the scores of items of the histories: S pairs of query and item, sorted by query, and values.

    `query` and `item` are (S,) whole numbers, `value` is (S,) float.
    """

    query: Tensor
    item: Tensor
    value: Tensor


class RepeatTerm(nn.Module):
    """repeat(t, j) = table[recency, frequency] + (state(u_t))[recency] for items j seen at or before t, else 0."""

    def __init__(self, D: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(RECENCY_BUCKETS, FREQUENCY_BUCKETS))
        self.state = nn.Linear(D, RECENCY_BUCKETS)

    def add_to(self, scores: Tensor, user: Tensor, item_seq: Tensor, row: Tensor, step: Tensor) -> Tensor:
        """Return (T, N) scores with the term added for the items each query's history holds; arguments as below."""
        query, item, value = self.pairs(user, item_seq, row, step)
        return scores.index_put((query, item), value.to(scores.dtype), accumulate=True)

    def pairs(self, user: Tensor, item_seq: Tensor, row: Tensor, step: Tensor) -> Pairs:
        """Return the term where it is not 0; arguments as of `find` and `values`."""
        return self.values(user, self.find(item_seq, row, step))

    def values(self, user: Tensor, seen: Seen) -> Pairs:
        """Return the term of (T, D) user vectors for what their histories hold."""
        values = (self.table + self.state(user)[:, :, None]).view(-1)  # (T * cells,)
        value = values.index_select(0, seen.query * self.table.numel() + seen.cell)
        return Pairs(seen.query, seen.item, value)

    @staticmethod
    def find(item_seq: Tensor, row: Tensor, step: Tensor, earlier: Earlier | None = None) -> Seen:
        """Return the pairs of query and item for which there is a term.

        Their number is that of the different items in the histories, whatever N is.

        Args:
            item_seq (Tensor): (B, L) int64, 0 = padding.
            row (Tensor): (T,) int64, the query's row in item_seq.
            step (Tensor): (T,) int64, the last step the query may see.
            earlier (Earlier | None): what came before step 0, where that is not all of the history.
        """
        place = count_of = None
        column, step = step, step.int()
        if earlier is not None:
            item_seq, place, count_of = _behind(earlier, item_seq)
            column = step + earlier.item.shape[1]
        L = item_seq.shape[1]
        count, following = _occurrences(item_seq, count_of)
        following = following.masked_fill(item_seq == 0, -1).int()  # half the bytes; padding is never seen
        query, at = _last_occurrences(following, row, column.int())
        seen = (row * L).int().index_select(0, query) + at  # index_select: several times faster than [] on the CPU
        item = item_seq.int().reshape(-1).index_select(0, seen)
        if place is not None:  # a column is not a step
            at = place.int().view(-1).index_select(0, seen)
        distance = step.index_select(0, query) - at
        if place is not None:  # all that is far falls into one bucket
            L = 2**RECENCY_BUCKETS
            distance = distance.clamp_(max=L - 1)
        recency = _recency(torch.arange(L, device=item_seq.device)).int() * FREQUENCY_BUCKETS
        cell = recency.index_select(0, distance)
        cell += _frequency(count).int().reshape(-1).index_select(0, seen)
        return Seen(query, item, cell)

    def add_seen(
        self, scores: Tensor, user: Tensor, query: Tensor, item: Tensor, distance: Tensor, count: Tensor
    ) -> Tensor:
        """Return (T, N) scores with the term added for S pairs of query and item, at a distance, with a count, (S,)."""
        recency = _recency(distance)
        value = self.table[recency, _frequency(count)] + self.state(user)[query, recency]
        return scores.index_put((query, item), value.to(scores.dtype), accumulate=True)


def look_up(chosen: Tensor, pairs: Pairs) -> Tensor:
    """Return the values of K chosen items of each query, (T, K), 0 where there is no pair; `chosen` is (T, K) int64."""
    query, item, value = pairs
    if not len(query):
        return torch.zeros_like(chosen, dtype=value.dtype)
    width = torch.maximum(chosen.max(), item.max()) + 1
    keys, order = (query.long() * width + item).sort()  # a number for each pair
    wanted = torch.arange(len(chosen), device=chosen.device)[:, None] * width + chosen
    at = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    term = value.index_select(0, order.index_select(0, at.view(-1))).view_as(chosen)
    return torch.where(keys[at] == wanted, term, 0)


def _recency(distance: Tensor) -> Tensor:
    """Bucket of a distance in steps, from 0."""
    return torch.log2(distance + 1.0).long().clamp(max=RECENCY_BUCKETS - 1)


def _frequency(count: Tensor) -> Tensor:
    """Bucket of a number of occurrences, from 1."""
    return torch.log2(count.float()).long().clamp(max=FREQUENCY_BUCKETS - 1)


@torch.compiler.disable  # as many as there are: no compiler knows before
def _last_occurrences(following: Tensor, row: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """For each query the columns at which items of its history occur for the last time up to the query's own column.

    Args:
        following (Tensor): (B, L) int32, the column of an item's next occurrence, L if none, -1 for padding.
        row (Tensor): (T,) int64, now (Tensor): (T,) int32, where each query stands.
    Returns:
        tuple: two (S,) int32 tensors, query and column, sorted by query.
    """
    L = following.shape[1]
    after, now = following.index_select(0, row), now[:, None]
    columns = torch.arange(L, device=row.device, dtype=torch.int32)
    if after.device.type != "cpu":
        query, at = ((after > now) & (columns <= now)).nonzero(as_tuple=True)
        return query.int(), at.int()
    # the same with NumPy, which compares, finds and divides in less than half of torch's time
    last = after.numpy() > now.numpy()
    last &= columns.numpy() <= now.numpy()
    found = np.flatnonzero(last)
    if last.size < 2**31:
        found = found.astype(np.int32)
    query = found // found.dtype.type(L)
    at = found - query * found.dtype.type(L)
    return torch.from_numpy(query.astype(np.int32, copy=False)), torch.from_numpy(at.astype(np.int32, copy=False))


def _behind(earlier: Earlier, item_seq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put the earlier items before the steps: the items, the step of each column and the events it stands for.

    Returns:
        tuple: three (B, P + L) int64 tensors; earlier steps are below 0.
    """
    steps = torch.arange(item_seq.shape[1], device=item_seq.device).expand_as(item_seq)
    items = torch.cat([earlier.item, item_seq], dim=1)
    place = torch.cat([-earlier.distance, steps], dim=1)
    return items, place, torch.cat([earlier.counts, torch.ones_like(item_seq)], dim=1)


def _occurrences(item_seq: Tensor, count_of: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """For each step: how often its item has occurred so far (from 1), and the step of its next occurrence (L if none).

    Args:
        item_seq (Tensor): (B, L) int64.
        count_of (Tensor | None): (B, L) int64, occurrences that a step stands for; None: one each.
    Returns:
        tuple: two (B, L) int64 tensors.
    """
    B, L = item_seq.shape
    steps = torch.arange(L, device=item_seq.device).expand(B, L)
    items, order = item_seq.sort(dim=1, stable=True)  # equal items lie together, in time order
    begins = torch.ones_like(items, dtype=torch.bool)
    begins[:, 1:] = items[:, 1:] != items[:, :-1]
    first = torch.where(begins, steps, 0).cummax(dim=1).values
    if count_of is None:
        so_far = steps - first + 1
    else:
        sums = F.pad(count_of.gather(1, order).cumsum(dim=1), (1, 0))
        so_far = sums[:, 1:] - sums.gather(1, first)
    count = torch.empty_like(item_seq).scatter_(1, order, so_far)
    next_in_run = torch.full_like(item_seq, L)
    next_in_run[:, :-1] = torch.where(begins[:, 1:], L, order[:, 1:])
    return count, torch.empty_like(item_seq).scatter_(1, order, next_in_run)
