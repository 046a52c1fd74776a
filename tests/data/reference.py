"""RecBole's own data sets beside ours, built from one set of files and settings."""

from __future__ import annotations

import copy
import functools
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data.dataset import SequentialDataset
from recbole.utils import FeatureType

from recbole_lsti.data import LSTIDataset

EVAL_ARGS = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"}


@functools.cache
def _base() -> Config:
    settings = {"train_neg_sample_args": None, "use_gpu": False, "eval_args": EVAL_ARGS, "load_col": None}
    with mock.patch("sys.argv", ["test"]):
        return Config(model="GRU4Rec", dataset="ml-100k", config_dict=settings)


def make_config(folder: Path, **settings: object) -> Config:
    """The settings of RecBole for the data set of a folder, `<folder>/<name>.inter`."""
    config = copy.copy(_base())
    settings.setdefault("user_inter_num_interval", None)
    settings.setdefault("item_inter_num_interval", None)
    config.final_config_dict = {
        **_base().final_config_dict,
        "dataset": folder.name,
        "data_path": str(folder),
        "normalize_all": None,
        "TIME_FIELD": "timestamp",
        **settings,
    }
    return config


def recbole_dataset(config: Config) -> SequentialDataset:
    """RecBole's data set; its only sort that leaves ties open is made stable."""
    stable = functools.partialmethod(pd.DataFrame.sort_values, kind="stable")
    with mock.patch.object(pd.DataFrame, "sort_values", stable):
        return SequentialDataset(config)


def write(folder: Path, suffix: str, header: str, rows: list) -> None:
    """Write one atomic file; a row is a tuple of texts."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join([header.replace(" ", "\t"), *("\t".join(map(str, row)) for row in rows)]) + "\n"
    (folder / f"{folder.name}.{suffix}").write_text(text, encoding="utf-8")


def assert_same_tables(ours: LSTIDataset, theirs: SequentialDataset) -> None:
    """Same tables, ids, types and values, before `build`."""
    assert ours.feat_name_list == theirs.feat_name_list
    assert ours.field2type == theirs.field2type
    assert ours.field2source == theirs.field2source
    assert dict(ours.field2seqlen) == dict(theirs.field2seqlen)
    assert ours.field2token_id == theirs.field2token_id
    for field, tokens in theirs.field2id_token.items():
        np.testing.assert_array_equal(ours.field2id_token[field], tokens)
    for name in theirs.feat_name_list:
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert list(mine) == list(other)
        assert len(mine) == len(other)
        for field in other:
            if theirs.field2type[field] in (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ):
                for left, right in zip(mine[field], other[field], strict=True):
                    np.testing.assert_array_equal(left, right, err_msg=f"{name} {field}")
            else:
                np.testing.assert_array_equal(mine[field], other[field], err_msg=f"{name} {field}")
    for field, matrix in theirs._preloaded_weight.items():
        np.testing.assert_array_equal(ours.get_preload_weight(field), matrix)


def assert_same_parts(ours: LSTIDataset, theirs: SequentialDataset) -> None:
    """Same rows in the same order in every part that `build` makes, and the same user and item tables."""
    for part, other in zip(ours.build(), theirs.build(), strict=True):
        mine = part.inter_feat.gather() if hasattr(part.inter_feat, "gather") else part.inter_feat
        assert set(mine.columns) == set(other.inter_feat.columns)
        assert len(mine) == len(other.inter_feat)
        for field in other.inter_feat:
            assert_same_tensor(mine[field], other.inter_feat[field], field)
        assert part.item_counter == other.item_counter
        if len(other):
            assert part.avg_actions_of_users == other.avg_actions_of_users
    for name in ("user_feat", "item_feat"):
        if getattr(theirs, name) is not None:
            for field in getattr(theirs, name):
                assert_same_tensor(getattr(ours, name)[field], getattr(theirs, name)[field], field)


def assert_same_tensor(mine: torch.Tensor, other: torch.Tensor, field: str) -> None:
    """Equal to the last bit, of one type; nothing may be NaN in one alone."""
    assert mine.dtype == other.dtype, field
    np.testing.assert_array_equal(mine.numpy(), other.numpy(), err_msg=field)


@contextmanager
def fails(kind: type[Exception], *words: str):
    """The block must raise one line that holds all the words."""
    try:
        yield
    except kind as error:
        text = str(error)
        assert "\n" not in text.strip(), text
        for word in words:
            assert word in text, text
    else:
        raise AssertionError(f"must raise {kind.__name__} with {words}")
