"""RecBole's sampler for sequential models without the sets that it makes for every user and every target."""

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
        """
        target = np.tile(np.asarray(item_ids), num)
        drawn = np.zeros(len(target), dtype=np.int64)
        again = np.arange(len(target))
        while len(again):
            drawn[again] = self.sampling(len(again))
            again = again[drawn[again] == target[again]]
        return torch.from_numpy(drawn)
