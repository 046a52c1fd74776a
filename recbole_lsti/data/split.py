"""RecBole's three ways to split, without a Python step for each row or user; same parts, same rows, same order."""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.data.dataset import Dataset

from recbole_lsti.data.grouping import Groups, group_by_appearance


class VectorSplits(Dataset):
    """Splits by ratio, by leaving the last ones out, and by a global moment, as RecBole's Dataset does."""

    def _grouped_index(self, group_by_list: np.ndarray) -> Groups:
        return group_by_appearance(group_by_list)

    def _split_index_by_leave_one_out(self, grouped_index: Groups, leave_one_num: int) -> list[np.ndarray]:
        from_end = grouped_index.spread(grouped_index.sizes) - grouped_index.place  # 1 for the last row of a group
        left_out = np.minimum(leave_one_num, grouped_index.spread(grouped_index.sizes) - 1)
        part = np.where(from_end > left_out, 0, leave_one_num + 1 - from_end)
        return [grouped_index.rows[part == number] for number in range(leave_one_num + 1)]

    def split_by_ratio(self, ratios: list[float], group_by: str | None = None) -> list[Any]:
        """Split the rows, or those of each group, in proportion to the ratios; returns a data set a part."""
        if group_by is None:
            return super().split_by_ratio(ratios, group_by)
        shares = [ratio / sum(ratios) for ratio in ratios]
        groups = self._grouped_index(self.inter_feat[group_by].numpy())
        sizes, kind = np.unique(groups.sizes, return_inverse=True)
        ends = np.array([[*self._calcu_split_ids(int(size), shares), size] for size in sizes], dtype=np.int64)
        part = np.zeros(len(groups.rows), dtype=np.int64)
        for end in ends.T[:-1]:
            part += groups.place >= groups.spread(end[kind])
        return self._parts([groups.rows[part == number] for number in range(len(shares))])

    def time_based_split(self, ratios: list[float], group_by: str | None) -> list[Any]:
        """Test on what comes after a moment, validate on each group's last rows before it; returns three data sets.

        Raises:
            ValueError: no group field, or no time field.
        """
        if group_by is None:
            raise ValueError("Time-based split strategy requires a group field")
        if self.time_field not in self.inter_feat:
            raise ValueError(f"Field [{self.time_field}] is not in inter_feat.")
        shares = [ratio / sum(ratios) for ratio in ratios]
        time = self.inter_feat[self.time_field].numpy()
        groups = self._grouped_index(self.inter_feat[group_by].numpy())
        before = time[groups.rows] <= np.percentile(time, 100 * (1 - shares[-1]))
        n_before = np.add.reduceat(before, groups.starts[:-1], dtype=np.int64)
        n_train = groups.spread((n_before * (shares[0] / (1 - shares[2]))).astype(np.int64))
        # rows are in time order (`build` sorts them), so those before the moment come first in each group
        train, valid = groups.place < n_train, (groups.place >= n_train) & before
        return self._parts([groups.rows[train], groups.rows[valid], groups.rows[~before]])

    def _parts(self, indices: list[np.ndarray]) -> list[Any]:
        self._drop_unused_col()
        return [self.copy(self.inter_feat[index]) for index in indices]
