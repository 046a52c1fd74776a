"""Long histories in windows that follow each other: which comes when, and what a window needs to know of those before.

Shapes: n windows, B windows of a batch, P different items before a window, E events.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_lsti.data.grouping import place_in_group

FEWEST_BATCHES = 16  # of a round: fewer would mix windows of very different lengths


class Chain(NamedTuple):
    """The windows of each user as a chain; each field is (n,) int64.

    Attributes:
        nth: number of the window among its user's, from 0.
        of: number of windows of its user.
        source: where the state lies that the window begins with: a number for each user with more than one window,
            from 1; 0 for a user's first window, which begins with nothing.
        target: where its own state is kept for the next window; 0 for a user's last one.
    """

    nth: np.ndarray
    of: np.ndarray
    source: np.ndarray
    target: np.ndarray

    @classmethod
    def of_windows(cls, user: np.ndarray) -> Chain:
        """Chain windows that lie in order, user by user; `user` is (n,) int64, ascending."""
        starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]]) if len(user) else np.zeros(0, dtype=np.int64)
        sizes = np.diff(np.r_[starts, len(user)])
        nth = place_in_group(sizes)
        of = np.repeat(sizes, sizes)
        place = np.repeat(np.cumsum(sizes > 1), sizes)
        return cls(nth, of, np.where(nth > 0, place, 0), np.where(nth < of - 1, place, 0))

    def rounds(self, fitting: int, shift: np.ndarray | float) -> list[np.ndarray]:
        """Deal the windows of an epoch out to rounds: no round holds two of a user, and each user's come in order.

        A user's windows fall into rounds that follow each other, so that a state is still fresh when it is read, and
        users begin all over the epoch, so that every part of it sees all kinds of users.

        Args:
            fitting (int): rounds that the windows fill well, 1 or more; a user with more windows adds rounds.
            shift: (n,) from 0 to below 1, the same for all windows of a user: how late it begins.
        Returns:
            list: windows of each round, arrays of int64.
        """
        begins = (shift * np.maximum(1, fitting + 1 - self.of)).astype(np.int64)
        number = begins + self.nth
        order = np.argsort(number, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(number[order])) + 1)


def shifts(chain: Chain, random: np.random.Generator) -> np.ndarray:
    """Draw a number in 0..1 for each user and give it to all windows of the user, (n,)."""
    user = np.cumsum(chain.nth == 0) - 1
    return random.random(int(user[-1]) + 1)[user] if len(user) else np.zeros(0)


def earlier_items(items: np.ndarray, first: np.ndarray, begin: np.ndarray) -> dict[str, Tensor]:
    """Sum up the events before each window: its different items, how long ago each was, and how often.

    Args:
        items (ndarray): (E,) int64, item of each event.
        first, begin (ndarray): (B,) int64, the events [first, begin) are those before the window.
    Returns:
        dict: `earlier_item` (B, P), 0 = none; `earlier_distance` (B, P), steps from the last event with the item to
        the first of the window, 1 or more; `earlier_counts` (B, P).
    """
    sizes = begin - first
    row = np.repeat(np.arange(len(sizes)), sizes)
    back = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(row))  # steps to the window's first event
    item = items[np.repeat(begin, sizes) - back]
    order = np.lexsort((-back, item, row))  # equal items of a row lie together, the last event at the end
    row, item, back = row[order], item[order], back[order]
    is_last = np.ones(len(row), dtype=bool)
    is_last[:-1] = (row[1:] != row[:-1]) | (item[1:] != item[:-1])
    ends = np.flatnonzero(is_last)
    count = np.diff(np.r_[-1, ends])
    row, item, back = row[ends], item[ends], back[ends]
    n_items = np.bincount(row, minlength=len(sizes))
    column = place_in_group(n_items)
    tables: Any = np.zeros((3, len(sizes), int(n_items.max(initial=0))), dtype=np.int64)
    tables[:, row, column] = item, back, count
    names = ("earlier_item", "earlier_distance", "earlier_counts")
    return dict(zip(names, torch.from_numpy(tables), strict=True))
