"""RecBole's three ways to split, without a Python step for each row or user; same parts, same rows, same order."""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.data.dataset import Dataset

from recbole_lsti.data.events import HistoryRows
from recbole_lsti.data.grouping import Groups

LEFT_OUT = {"valid_and_test": 2, "valid_only": 1, "test_only": 1}  # rows of a user that go to another part


class VectorSplits(Dataset):
    """Splits by ratio, by leaving the last ones out, and by a global moment, as RecBole's Dataset does.

    The rows to split are HistoryRows, and what RecBole calls groups are users: it groups by nothing else.
    """

    inter_feat: Any

    def leave_one_out(self, group_by: str | None, leave_one_mode: str) -> list[Any]:
        """Leave out the last rows of each user; returns the data sets to train, validate and test on.

        Raises:
            ValueError: no group field.
            NotImplementedError: a mode other than LEFT_OUT.
        """
        if leave_one_mode not in LEFT_OUT:
            raise NotImplementedError(f"leave_one_mode ({leave_one_mode}) must be one of {', '.join(LEFT_OUT)}")
        groups = self._users(group_by, "leave one out")
        ends, sizes = groups.starts[1:], groups.sizes
        train = np.ones(len(groups.rows), dtype=bool)
        left_out: list[np.ndarray] = []
        for back in range(1, LEFT_OUT[leave_one_mode] + 1):  # a user's first row stays, however few there are
            last = ends[sizes > back] - back
            train[last] = False
            left_out.insert(0, groups.rows[last])
        if leave_one_mode != "valid_and_test":
            left_out.insert(1 if leave_one_mode == "valid_only" else 0, groups.rows[:0])
        return self._parts([groups.rows[train], *left_out])

    def split_by_ratio(self, ratios: list[float], group_by: str | None = None) -> list[Any]:
        """Split the rows, or those of each user, in proportion to the ratios; returns a data set a part.

        Args:
            ratios: of the parts, positive numbers.
            group_by: the user field, or None.
        Raises:
            ValueError: another field to group by.
        """
        if group_by is None:
            return super().split_by_ratio(ratios, group_by)
        shares = [ratio / sum(ratios) for ratio in ratios]
        groups = self._users(group_by, "split by ratio")
        sizes, kind = np.unique(groups.sizes, return_inverse=True)
        ends = np.array([[*self._calcu_split_ids(int(size), shares), size] for size in sizes], dtype=np.int64)
        part = np.zeros(len(groups.rows), dtype=np.int64)
        for end in ends.T[:-1]:
            part += groups.place >= groups.spread(end[kind])
        return self._parts([groups.rows[part == number] for number in range(len(shares))])

    def time_based_split(self, ratios: list[float], group_by: str | None) -> list[Any]:
        """Test on what comes after a moment, validate on each user's last rows before it; returns three data sets.

        Raises:
            ValueError: no group field.
        """
        shares = [ratio / sum(ratios) for ratio in ratios]
        groups = self._users(group_by, "time-based split")
        time = self.inter_feat.take(groups.rows)[self.time_field].numpy()
        if not len(time):
            return self._parts([groups.rows] * 3)
        before = time <= np.percentile(time, 100 * (1 - shares[-1]))
        n_before = np.add.reduceat(before, groups.starts[:-1], dtype=np.int64)
        n_train = groups.spread((n_before * (shares[0] / (1 - shares[2]))).astype(np.int64))
        # rows are in time order (`build` sorts them), so those before the moment come first of each user
        train, valid = groups.place < n_train, (groups.place >= n_train) & before
        return self._parts([groups.rows[train], groups.rows[valid], groups.rows[~before]])

    def _users(self, group_by: str | None, split: str) -> Groups:
        if group_by != self.uid_field or not isinstance(self.inter_feat, HistoryRows):
            raise ValueError(f"group_by ({group_by}) must be the user field ({self.uid_field}) for {split}")
        return self.inter_feat.by_user()

    def _parts(self, rows: list[np.ndarray]) -> list[Any]:
        self._drop_unused_col()
        return [self.copy(self.inter_feat.take(index)) for index in rows]
