"""Splits and groups: RecBole's rows in RecBole's order, without its loops."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import EVAL_ARGS, assert_same_parts, fails, make_config, recbole_dataset, write

from recbole_lsti.data import LSTIDataset
from recbole_lsti.data.grouping import group_by_appearance, group_rows

SPLITS = [
    {"split": {"LS": "valid_and_test"}},
    {"split": {"LS": "valid_only"}},
    {"split": {"LS": "test_only"}},
    {"split": {"RS": [0.8, 0.1, 0.1]}},
    {"split": {"RS": [8, 1, 1]}, "group_by": None},
    {"split": {"RS": [3, 2, 2]}},
    {"split": {"TS": [0.7, 0.1, 0.2]}},
    {"split": {"TS": [6, 2, 2]}},
]


@pytest.mark.parametrize("chosen", SPLITS, ids=lambda chosen: str(chosen["split"]))
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), n_users=st.integers(1, 8), latest=st.sampled_from([3, 60]))
def test_every_split_gives_recboles_rows_in_recboles_order(chosen: dict, seed: int, n_users: int, latest: int) -> None:
    random = np.random.default_rng(seed)
    rows = [(f"u{u}", f"i{random.integers(9)}", random.integers(latest)) for u in random.integers(n_users, size=40)]
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "parts"
        write(folder, "inter", "user_id:token item_id:token timestamp:float", rows)
        config = make_config(folder, eval_args={**EVAL_ARGS, **chosen}, MAX_ITEM_LIST_LENGTH=5)
        assert_same_parts(LSTIDataset(config), recbole_dataset(config))


@pytest.mark.parametrize(
    "chosen", [each for each in SPLITS if "group_by" not in each], ids=lambda each: str(each["split"])
)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_file_in_time_order_gives_recboles_rows_whatever_float32_holds(
    tmp_path: Path, chosen: dict, scaled: bool
) -> None:
    """Users whose first rows float32 cannot tell apart come in RecBole's order, for an epoch's shuffle starts there."""
    random = np.random.default_rng(3)
    moments = 1_400_000_000 + np.sort(random.integers(1500, size=400))  # float32 knows every 128th of these seconds
    rows = [(f"u{random.integers(60)}", f"i{random.integers(9)}", moment) for moment in moments]
    write(tmp_path / "s", "inter", "user_id:token item_id:token timestamp:float", rows)
    config = make_config(tmp_path / "s", eval_args={**EVAL_ARGS, **chosen}, normalize_all=scaled)
    ours = LSTIDataset(config)
    assert_same_parts(ours, recbole_dataset(config))


def test_no_split_takes_a_python_step_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole.data.dataset import Dataset

    for loop in ("_grouped_index", "_split_index_by_leave_one_out", "leave_one_out", "time_based_split"):
        monkeypatch.delattr(Dataset, loop)
    write(
        tmp_path / "s", "inter", "user_id:token item_id:token timestamp:float", [("u", f"i{n}", n) for n in range(20)]
    )
    for chosen in SPLITS:
        config = make_config(tmp_path / "s", eval_args={**EVAL_ARGS, **chosen})
        assert sum(len(part) for part in LSTIDataset(config).build()) == 19


@given(ids=st.lists(st.integers(0, 6), max_size=30))
def test_groups_hold_their_rows_in_order(ids: list[int]) -> None:
    ids_array = np.array(ids, dtype=np.int64)
    groups = group_rows(ids_array, 7)
    assert groups.rows.tolist() == np.argsort(ids_array, kind="stable").tolist()
    assert groups.sizes.tolist() == np.bincount(ids_array, minlength=7).tolist()
    assert groups.place.tolist() == [sum(x == ids[r] for x in ids[:r]) for r in groups.rows]
    appeared = group_by_appearance(ids_array)
    assert list(dict.fromkeys(ids_array[appeared.rows].tolist())) == list(dict.fromkeys(ids))


def test_rows_come_in_time_order_whether_or_not_the_sort_was_put_off(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [(f"u{random.integers(5)}", f"i{n}", random.integers(20)) for n in range(60)]
    write(tmp_path / "s", "inter", "user_id:token item_id:token timestamp:float", rows)
    dataset = LSTIDataset(make_config(tmp_path / "s"))
    dataset._change_feat_format()
    stored = dataset.inter_feat[:]
    order = np.argsort(stored["timestamp"].numpy(), kind="stable")
    for look in (
        lambda rows: rows["item_id"],
        lambda rows: rows[:]["item_id"],
        lambda rows: rows.gather()["item_id"],
        lambda rows: (rows.sort("timestamp"), rows["item_id"])[1],
    ):
        later = stored[:]
        later.sort("timestamp")
        np.testing.assert_array_equal(look(later), stored["item_id"].numpy()[order])
    later = stored[:]
    later.sort("timestamp")
    later["own"] = torch.arange(len(later))
    np.testing.assert_array_equal(later["own"], np.arange(len(later)))
    np.testing.assert_array_equal(later["item_id"], stored["item_id"].numpy()[order])
    later.sort("item_id", ascending=False)
    np.testing.assert_array_equal(later["own"], np.argsort(stored["item_id"].numpy()[order], kind="stable")[::-1])


def test_splits_by_anything_but_users_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "s", "inter", "user_id:token item_id:token timestamp:float", [("u", "a", 1), ("u", "b", 2)])
    dataset = LSTIDataset(make_config(tmp_path / "s"))
    dataset._change_feat_format()
    for split in (dataset.leave_one_out, lambda by, _: dataset.time_based_split([8, 1, 1], by)):
        with fails(ValueError, "group_by (None) must be the user field (user_id)"):
            split(None, "valid_and_test")
    with fails(NotImplementedError, "leave_one_mode (both) must be one of valid_and_test"):
        dataset.leave_one_out("user_id", "both")
