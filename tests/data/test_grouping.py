"""Grouping: rows and columns as a stable sort puts them, whatever the types of the columns."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_lsti.data.grouping import BLOCK, count_ids, gather, group_columns, group_rows, positions

RANDOM = np.random.default_rng(5)
ROWS = BLOCK + 77  # more than one block
COLUMNS = {
    "small": RANDOM.integers(-9, 9, ROWS),
    "negative": RANDOM.integers(-(2**63), -(2**63) + 2**32 - 1, ROWS),  # as wide as 32 bits hold, at the lowest place
    "ids": RANDOM.integers(0, 2**31 - 1, ROWS).astype(np.int32),
    "wide": RANDOM.integers(-(2**62), 2**62, ROWS),
    "float": RANDOM.normal(size=ROWS).astype(np.float32),
    "double": RANDOM.normal(size=ROWS),
    "lists": RANDOM.integers(0, 99, (ROWS, 3)),
    "flag": RANDOM.random(ROWS) < 0.5,
}


@pytest.mark.parametrize("names", [["ids"], ["small", "float", "negative"], ["wide", "lists", "double"], list(COLUMNS)])
@pytest.mark.parametrize("ordered", [False, True])
def test_columns_go_where_a_stable_sort_puts_them(names: list[str], ordered: bool) -> None:
    ids = RANDOM.integers(0, 50, ROWS)
    order = RANDOM.permutation(ROWS) if ordered else None
    columns = {name: COLUMNS[name] for name in names}
    groups, grouped = group_columns(ids, 60, columns, order)
    wanted = np.argsort(ids, kind="stable")
    np.testing.assert_array_equal(groups.rows, wanted)
    np.testing.assert_array_equal(groups.sizes, np.bincount(ids, minlength=60))
    assert not columns
    for name in names:
        before = COLUMNS[name] if order is None else COLUMNS[name][order]
        np.testing.assert_array_equal(grouped[name], before[wanted], err_msg=name)
        assert grouped[name].dtype == (np.int64 if name == "ids" else COLUMNS[name].dtype)


def test_no_rows_give_no_groups() -> None:
    none = np.zeros(0, dtype=np.int64)
    groups, grouped = group_columns(none, 0, {"a": np.zeros(0), "b": none})
    assert len(groups.rows) == len(grouped["a"]) == len(grouped["b"]) == 0


def test_blocks_give_what_numpy_gives_at_once() -> None:
    ids = RANDOM.integers(0, 20, 4 * ROWS).astype(np.int32)
    np.testing.assert_array_equal(count_ids(ids, 25), np.bincount(ids, minlength=25))
    mask = ids % 3 == 0
    found = positions(mask)
    np.testing.assert_array_equal(found, np.flatnonzero(mask))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(gather(COLUMNS["lists"], ids), COLUMNS["lists"][ids])
    np.testing.assert_array_equal(group_rows(ids, 25).rows, np.argsort(ids, kind="stable"))
