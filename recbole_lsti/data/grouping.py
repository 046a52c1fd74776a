"""Rows grouped by an id in time that grows with the number of rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array


class Groups(NamedTuple):
    """Rows ordered by group, in their own order within a group.

    Attributes:
        rows: (rows,) row numbers, group after group.
        starts: (groups + 1,) where each group begins in `rows`; the last entry is the number of rows.
    """

    rows: np.ndarray
    starts: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(groups,) rows of each group."""
        return np.diff(self.starts)

    @property
    def place(self) -> np.ndarray:
        """(rows,) the place of each entry of `rows` in its group, from 0."""
        return np.arange(len(self.rows)) - np.repeat(self.starts[:-1], self.sizes)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """One value a group, repeated for each of its rows."""
        return np.repeat(values, self.sizes)


def group_rows(ids: np.ndarray, n_ids: int) -> Groups:
    """Group rows by id, the groups in order of id.

    Args:
        ids (ndarray): (rows,) integers from 0 to below n_ids.
        n_ids (int): number of groups; those without rows are empty.
    """
    # scipy turns rows into columns by counting, stably: five times faster than a sort
    steps = np.arange(len(ids) + 1, dtype=np.int32 if len(ids) < 2**31 else np.int64)
    matrix = csr_array(
        (np.zeros(len(ids), dtype=np.int8), np.asarray(ids, dtype=steps.dtype), steps), shape=(len(ids), n_ids)
    ).tocsc()
    return Groups(matrix.indices, matrix.indptr.astype(np.int64))


def group_by_appearance(ids: np.ndarray) -> Groups:
    """Group rows by id, the groups in the order in which the ids appear."""
    codes, known = pd.factorize(ids)
    return group_rows(codes, len(known))
