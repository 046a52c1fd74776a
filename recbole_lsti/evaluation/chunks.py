"""A batch's ranking from scores that come a range of items at a time, so that no rows x items table is ever held.

Shapes: B rows of a batch, N items (padding included), C items of a range, P targets, k the largest cut-off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# scores computed at a time: 16 MiB, which a processor's cache about holds; on a GPU what is worth launching kernels for
CHUNK_SCORES = {"cpu": 2**22, "cuda": 2**26}


def chunk_scores(device: torch.device) -> int:
    """Return how many scores are computed at a time on a device."""
    return CHUNK_SCORES.get(device.type, CHUNK_SCORES["cuda"])


class Scores:
    """The scores of all items for the rows of a batch, computed anew, a range of items at a time, whenever read.

    Args:
        score: returns the (B, C) scores of the items start..stop; they are the caller's to change.
        n_rows, n_items (int): B and N.
        width (int): C, as wide as chunk_scores allows.
    """

    def __init__(self, score: Callable[[int, int], Tensor], n_rows: int, n_items: int, width: int) -> None:
        self.score, self.n_rows, self.n_items, self.width = score, n_rows, n_items, width

    @classmethod
    def whole(cls, table: Tensor) -> Scores:
        """The scores of a (B, N) table, in one piece; what masks them changes the table."""
        return cls(lambda start, stop: table, len(table), table.shape[1], table.shape[1])

    @property
    def in_one_piece(self) -> bool:
        """Whether the first range holds all items."""
        return self.width >= self.n_items

    def __len__(self) -> int:
        return self.n_rows

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the first item and the (B, C) scores of each range; the padding item never competes."""
        for start in range(0, self.n_items, self.width):
            chunk = self.score(start, min(start + self.width, self.n_items))
            if start == 0:
                chunk[:, 0] = -torch.inf
            yield start, chunk


class Pairs:
    """(row, item) pairs in the order of their items, so that those of a range of items lie together.

    Args:
        row, item (Tensor): (S,) int64.
        device: where the scores lie.
    """

    def __init__(self, row: Tensor, item: Tensor, device: torch.device) -> None:
        self.item, self.place = item.to(device).sort()  # place: where each pair stood when given
        self.row = row.to(device)[self.place]

    def within(self, start: int, stop: int) -> slice:
        """Return where the pairs lie whose items are start..stop."""
        return slice(*torch.searchsorted(self.item, self.item.new_tensor([start, stop])).tolist())

    def mask(self, start: int, chunk: Tensor) -> None:
        """Set the pairs' scores in a range of items to -inf, in place."""
        inside = self.within(start, start + chunk.shape[1])
        chunk[self.row[inside], self.item[inside] - start] = -torch.inf

    def scores_of(self, row: Tensor, item: Tensor, n_items: int, own: Tensor) -> Tensor:
        """Return the scores of other pairs, (P,), as they are once these pairs are masked."""
        return own.masked_fill(torch.isin(row * n_items + item, self.row * n_items + self.item), -torch.inf)


class Ranked(NamedTuple):
    """What RecBole's ranking metrics read of a batch.

    Attributes:
        items: (B, k) int64, the best items, best first.
        values: (B, k) their scores.
        rank: (P,) float, rank of each target from 1, ties share their mean, and one that a mask has taken out of the
            race is last; None where not asked for.
        competing: (B, 1) int64, items with more than the row's lowest score; None where not asked for.
    """

    items: Tensor
    values: Tensor
    rank: Tensor | None
    competing: Tensor | None


def ranked(
    scores: Scores, row: Tensor, item: Tensor, k: int, with_ranks: bool, masks: Sequence[Pairs | None] = (None,)
) -> list[Ranked]:
    """Rank a batch in one pass over its scores, once for each mask; a later mask adds to the earlier ones.

    Ties: among equal scores that could change a list, `torch.topk` over the whole row decides, as it does in RecBole,
    whatever the width of the ranges; such rows are scored again, as many at a time as chunk_scores allows. Ranks need
    the targets' scores beforehand, which is another pass.

    Args:
        scores: the batch.
        row, item (Tensor): (P,) int64, the targets.
        k (int): length of the lists, at most N.
        with_ranks (bool): whether the targets' ranks are asked for.
        masks: items that do not compete; None: no further ones.
    Returns:
        list[Ranked]: one a mask.
    """
    own = _scores_at(scores, row, item) if with_ranks else None
    rankings = []
    for mask in masks:
        if own is not None and mask is not None:
            own = mask.scores_of(row, item, scores.n_items, own)
        # one more than k shows whether the last place is tied; in one piece, topk has settled it
        width = k if scores.in_one_piece else min(k + 1, scores.n_items)
        rankings.append(_Running(width, row, own, masked=mask is not None))
    for start, chunk in scores:
        for ranking, mask in zip(rankings, masks, strict=True):
            if mask is not None:
                mask.mask(start, chunk)
            ranking.add(start, chunk)
    if not scores.in_one_piece:
        for number, ranking in enumerate(rankings):
            _settle_ties(scores, ranking, k, masks[: number + 1])
    return [
        Ranked(each.items[:, :k], each.values[:, :k], each.rank(scores.n_items), each.competing(scores.n_items))
        for each in rankings
    ]


class _Running:
    """The best `k` items so far, and how many scores so far stand above, and level with, each target's own (P,).

    `masked`: targets may be out of the race.
    """

    def __init__(self, k: int, row: Tensor, own: Tensor | None, masked: bool) -> None:
        self.k, self.row, self.own, self.masked = k, row, own, masked
        self.values = self.items = self.lowest = torch.empty(0)
        self.above, self.level, self.n_lowest = torch.zeros_like(row), torch.zeros_like(row), torch.empty(0)

    def add(self, start: int, chunk: Tensor) -> None:
        """Read the (B, C) scores of the items from `start` on."""
        if self.items.numel() == 0 or self.items.shape[1] < self.k:
            rows = torch.arange(len(chunk), device=chunk.device)
        else:  # most rows' best stand after the first ranges
            rows = (chunk.amax(1) > self.values[:, -1]).nonzero().squeeze(1)
        best = (chunk if len(rows) == len(chunk) else chunk[rows]).topk(min(self.k, chunk.shape[1]), dim=1)
        if start == 0:
            self.values, self.items = best.values, best.indices
        else:
            values = torch.cat([self.values[rows], best.values], dim=1)
            items = torch.cat([self.items[rows], best.indices + start], dim=1)
            values, at = values.topk(min(self.k, values.shape[1]), dim=1)
            if values.shape[1] > self.values.shape[1]:  # the first ranges held fewer than k items, of every row
                self.values, self.items = values, items.gather(1, at)
            else:
                self.values[rows], self.items[rows] = values, items.gather(1, at)
        if self.own is not None:
            self._count(start, chunk, self.own)

    def _count(self, start: int, chunk: Tensor, own: Tensor) -> None:
        # a few rows at a time: torch counts in a copy of 8 bytes a score
        for begin in range(0, len(own), 64):
            part = slice(begin, begin + 64)
            rivals = chunk[self.row[part]]
            self.above[part] += (rivals > own[part, None]).sum(1)
            self.level[part] += (rivals == own[part, None]).sum(1)
        lowest = chunk.amin(1)
        parts = zip(chunk.split(64), lowest[:, None].split(64), strict=True)
        n_lowest = torch.cat([(scores == low).sum(1) for scores, low in parts])
        if start > 0:
            both = torch.minimum(lowest, self.lowest)
            n_lowest = n_lowest * (lowest == both) + self.n_lowest * (self.lowest == both)
            lowest = both
        self.lowest, self.n_lowest = lowest, n_lowest

    def rank(self, n_items: int) -> Tensor | None:
        competing = self.competing(n_items)
        if self.own is None or competing is None:
            return None
        rank = self.above + (self.level + 1) / 2
        if not self.masked:
            return rank
        return torch.where(self.own == -torch.inf, competing[self.row, 0].to(rank.dtype), rank)

    def competing(self, n_items: int) -> Tensor | None:
        return None if self.own is None else n_items - self.n_lowest[:, None]


def _scores_at(scores: Scores, row: Tensor, item: Tensor) -> Tensor:
    """The scores of (row, item) pairs, (P,)."""
    pairs, own = None, torch.empty(0)
    for start, chunk in scores:
        if pairs is None:
            pairs, own = Pairs(row, item, chunk.device), chunk.new_empty(len(row))
        inside = pairs.within(start, start + chunk.shape[1])
        own[pairs.place[inside]] = chunk[pairs.row[inside], pairs.item[inside] - start]
    return own


def _settle_ties(scores: Scores, ranking: _Running, k: int, masks: Sequence[Pairs | None]) -> None:
    """Have torch.topk over whole rows decide where equal scores leave more than one list."""
    tied = (ranking.values[:, 1:] == ranking.values[:, :-1]).any(1).nonzero().squeeze(1)
    for rows in tied.split(max(1, chunk_scores(tied.device) // scores.n_items)) if len(tied) else ():
        table = ranking.values.new_empty(len(rows), scores.n_items)
        for start, chunk in scores:
            for mask in masks:
                if mask is not None:
                    mask.mask(start, chunk)
            table[:, start : start + chunk.shape[1]] = chunk[rows]
        ranking.items[rows, :k] = table.topk(k, dim=1).indices
