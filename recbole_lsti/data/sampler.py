"""RecBole's sampler for sequential models without its sets and loops, and negatives that are always the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.sampler import RepeatableSampler


class LightSampler(RepeatableSampler):
    """A RepeatableSampler: same draws, without a Python loop over them. A negative is any item but its target."""

    def get_used_ids(self) -> np.ndarray:
        """Return (users,) of one and the same empty set."""
        return np.full(self.user_num, frozenset(), dtype=object)

    def sample_by_user_ids(self, user_ids: Any, item_ids: Any, num: int) -> torch.Tensor:
        """Return `num` items for each of n targets: (num * n,), first one for each target, then the next for each.

        Args:
            user_ids: of the targets; not read.
            item_ids (ndarray): (n,) the targets themselves.
            num (int): items for each.
        Raises:
            ValueError: if there is no other item to draw.
        """
        _check_choice(len(self.prob) if self.distribution == "popularity" else self.item_num - 1)
        target = np.tile(np.asarray(item_ids), num)
        drawn = np.zeros(len(target), dtype=np.int64)
        again = np.arange(len(target))
        while len(again):
            drawn[again] = self.sampling(len(again))
            again = again[drawn[again] == target[again]]
        return torch.from_numpy(drawn)


class FixedNegatives:
    """Negatives to evaluate on (`uniN`, `popN`): those of a user and a target are always the same.

    RecBole draws them from the one generator that initialisation, dropout and shuffling draw from, so that each model,
    seed, epoch and batch size is judged on others. Here they depend on the ids of user and target alone. As RecBole's
    they are drawn with replacement, and any item but the target may be one.

    Args:
        sampler (RepeatableSampler): what says how items are distributed.
    Raises:
        ValueError: if a target may be the only item to draw.
    """

    SEED = 2020

    def __init__(self, sampler: RepeatableSampler) -> None:
        self._sampler = sampler
        weight = np.ones(sampler.item_num)
        if sampler.distribution == "popularity":
            weight = np.bincount(sampler._get_candidates_list(), minlength=sampler.item_num) ** float(sampler.alpha)
        weight[0] = 0  # padding
        _check_choice(int(np.count_nonzero(weight)))
        self._up_to = np.cumsum(weight / weight.sum())
        self._up_to[-1] = 1.0  # rounding must leave nothing above the last item

    def __getattr__(self, name: str) -> Any:
        if "_sampler" not in self.__dict__:  # while a copy is being made, in a worker process too
            raise AttributeError(name)
        return getattr(self._sampler, name)

    def sample_by_user_ids(self, user_ids: Any, item_ids: Any, num: int) -> torch.Tensor:
        """Return the negatives of R users and targets, (R * num,): the first of each, then the second of each, ..."""
        rows = [self._draw(int(user), int(item), num) for user, item in zip(user_ids, item_ids, strict=True)]
        return torch.from_numpy(np.array(rows, dtype=np.int64).reshape(-1, num).T.reshape(-1).copy())

    def _draw(self, user: int, item: int, num: int) -> np.ndarray:
        random = np.random.default_rng((self.SEED, user, item))
        drawn = np.zeros(0, dtype=np.int64)
        while len(drawn) < num:
            more = np.searchsorted(self._up_to, random.random(2 * num), side="right")
            drawn = np.concatenate([drawn, more[more != item]])
        return drawn[:num]


def _check_choice(items: int) -> None:
    if items < 2:
        raise ValueError(f"items to draw negatives from ({items}) must be at least 2: a negative is not its target")
