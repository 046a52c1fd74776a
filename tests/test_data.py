"""LSTIDataset yields RecBole's rows, in exact order; sequences hold the same targets as prefixes."""

from __future__ import annotations

import copy
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_rows, write_inter
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction

from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import LSTIDataset, create_dataset
from recbole_lsti.data.loader import SequenceTrainDataLoader, TokenBatches, TrainSequences, cut_windows

SPLITS = {
    "LS": {"split": {"LS": "valid_and_test"}},
    "LS test only": {"split": {"LS": "test_only"}},
    "RS": {"split": {"RS": [0.8, 0.1, 0.1]}},
    "RS global": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "none"},
    "TS": {"split": {"TS": [0.8, 0.1, 0.1]}},
}


def config_of(data_path: Path, name: str = "tiny", split: str = "LS", model: str = "SASRec", **settings) -> LSTIConfig:
    eval_args = {"order": "TO", "group_by": "user", "mode": "full", **SPLITS[split]}
    settings = {"data_path": str(data_path), "eval_args": eval_args, "use_gpu": False, **settings}
    return LSTIConfig(model, name, config_dict=settings)


def rows_of(feat) -> list[tuple]:
    """All rows as comparable tuples, in order, every field."""
    fields = sorted(feat)
    columns = [feat[field].tolist() for field in fields]
    return [tuple(map(str, row)) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize("length", [3, 50])
@pytest.mark.parametrize("split", SPLITS)
def test_rows_equal_recboles_on_a_time_ordered_file(tiny, split, length):
    config = config_of(tiny, split=split, MAX_ITEM_LIST_LENGTH=length)
    theirs, ours = SequentialDataset(config).build(), LSTIDataset(config).build()
    for their, our in zip(theirs, ours, strict=True):
        assert sorted(our.inter_feat) == sorted(their.inter_feat)
        assert rows_of(our.inter_feat) == rows_of(their.inter_feat)
        if len(their):
            index = [len(their) - 1, 0]
            assert rows_of(our[index]) == rows_of(their[index])
            assert our.inter_matrix("csr").toarray().tolist() == their.inter_matrix("csr").toarray().tolist()


def test_feature_fields_are_gathered_as_recbole_pads_them(tmp_path):
    random = np.random.default_rng(3)
    rows = [
        (*row, "abc"[random.integers(3)], " ".join(random.choice(list("xyz"), random.integers(1, 4))), random.random())
        for row in random_rows(8)
    ]
    header = "user_id:token\titem_id:token\ttimestamp:float\tkind:token\ttags:token_seq\tprice:float"
    write_inter(tmp_path, "rich", rows, header)
    config = config_of(tmp_path, "rich", load_col=None, MAX_ITEM_LIST_LENGTH=5)
    theirs, ours = SequentialDataset(config).build(), LSTIDataset(config).build()
    for their, our in zip(theirs, ours, strict=True):
        assert rows_of(our.inter_feat) == rows_of(their.inter_feat)
        assert "tags_list" in our.inter_feat


def test_what_recbole_does_to_rows_works_on_them(tiny):
    config = config_of(tiny)
    theirs, ours = (cls(config).build()[0].inter_feat for cls in (SequentialDataset, LSTIDataset))
    for feat in (theirs, ours):
        feat.sort(by=["item_length", "item_id"])
        feat.update(Interaction({"label": torch.arange(len(feat))}))
        feat["user_id"] = feat["user_id"] + 100
        feat.drop("timestamp_list")
    assert rows_of(ours) == rows_of(theirs)
    mask = ours["item_length"] == 1
    assert rows_of(ours[mask]) == rows_of(theirs[mask])
    assert rows_of(ours[mask.numpy()]) == rows_of(ours[mask])
    assert ours[3]["item_id"] == theirs[3]["item_id"]
    assert ours[3]["item_id"].ndim == 0
    assert "timestamp_list" not in ours.columns
    with pytest.raises(KeyError):
        ours["nothing"]


def test_order_is_exact_where_float32_merges_seconds(tmp_path):
    """Times 1 s apart near 1e9, written newest first: float32 sees one moment, and would keep the file's order."""
    rows = [("u", f"i{step}", 1_000_000_000 + step) for step in range(20)][::-1]
    write_inter(tmp_path, "close", rows)
    dataset = create_dataset(config_of(tmp_path, "close"))
    test = dataset.build()[2]
    history = dataset.id2token("item_id", test.inter_feat["item_id_list"][0, :19].numpy())
    assert list(history) == [f"i{step}" for step in range(19)]
    assert dataset.id2token("item_id", test.inter_feat["item_id"][0].item()) == "i19"
    assert len(np.unique(np.float32([row[2] for row in rows]))) == 1, "the file must be one that float32 merges"


def test_ties_keep_the_order_of_the_file(tmp_path):
    write_inter(tmp_path, "ties", [("u", f"i{k}", 7) for k in (3, 1, 2, 0)] + [("v", "i1", 5), ("v", "i2", 5)])
    dataset = create_dataset(config_of(tmp_path, "ties"))
    test = dataset.build()[2].inter_feat
    tokens = dataset.id2token("item_id", test["item_id_list"][0, :3].numpy())
    assert [*tokens, dataset.id2token("item_id", test["item_id"][0].item())] == ["i3", "i1", "i2", "i0"]


def history_target_pairs_of_prefixes(train) -> Counter:
    feat = train.inter_feat
    pairs = zip(feat["item_id_list"].tolist(), feat["item_length"].tolist(), feat["item_id"].tolist(), strict=True)
    return Counter((tuple(history[:n]), item) for history, n, item in pairs)


def history_target_pairs_of_sequences(sequences: TrainSequences) -> Counter:
    pairs: Counter = Counter()
    for window in range(len(sequences)):
        batch = sequences[np.array([window])]
        history = batch["item_id_list"][0].tolist()
        for step, target in enumerate(batch["target_item_id_list"][0].tolist()):
            if target:
                pairs[(tuple(history[: step + 1]), target)] += 1
    return pairs


@pytest.mark.parametrize("split", SPLITS)
def test_sequences_hold_the_pairs_of_the_prefixes(tiny, split):
    train = LSTIDataset(config_of(tiny, split=split)).build()[0]
    prefixes = history_target_pairs_of_prefixes(train)
    assert history_target_pairs_of_sequences(TrainSequences(train, 5)) == prefixes
    assert sum(prefixes.values()) == len(train) > 50


@pytest.mark.parametrize("min_context", [0, 2, 4, 9])
def test_cut_histories_train_each_target_once_with_context(tiny, min_context):
    dataset = LSTIDataset(config_of(tiny, MAX_ITEM_LIST_LENGTH=5))
    train = dataset.build()[0]
    sequences = TrainSequences(train, min_context)
    assert sequences.lengths.max() == 5
    assert len(sequences) > len(set(train.inter_feat["user_id"].tolist())), "some histories are cut"
    targets: Counter = Counter()
    for begin, end, counted in zip(sequences.begin, sequences.end, sequences.counted_from, strict=True):
        for target in range(counted, end + 1):
            targets[target] += 1
            available = target - sequences.events.first[target]
            assert target - begin >= min(available, min(min_context, 2) + 1), "at most half a window overlaps"
    assert targets == Counter(train.inter_feat.targets.tolist())


def test_windows_of_one_long_history():
    begin, end, counted = cut_windows(np.array([10]), np.array([21]), length=5, overlap=2)
    assert list(zip(begin, end, counted, strict=True)) == [(10, 15, 11), (13, 18, 16), (16, 21, 19)]


def test_batches_keep_the_budget_the_seed_and_every_window():
    lengths = np.random.default_rng(0).integers(1, 120, 500)
    batches = TokenBatches(lengths, 400, shuffle=True, seed=7)
    first = list(batches)
    assert sorted(np.concatenate(first).tolist()) == list(range(500))
    assert max(len(batch) * lengths[batch].max() for batch in first) <= 400
    computed = sum(len(batch) * lengths[batch].max() for batch in first)
    assert batches.padding_share == pytest.approx(1 - lengths.sum() / computed)
    assert batches.padding_share < 0.15
    assert len(batches) == len(first)
    again = list(TokenBatches(lengths, 400, shuffle=True, seed=7))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    batches.set_epoch(1)
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(first, batches, strict=False))
    shares = [list(TokenBatches(lengths, 400, True, 7, rank, 3)) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    assert set(np.concatenate([np.concatenate(share) for share in shares])) == set(range(500))


def test_training_sequences_can_be_copied(tiny):
    """As a worker process that is spawned, not forked, does."""
    sequences = TrainSequences(LSTIDataset(config_of(tiny)).build()[0], 5)
    copied = copy.deepcopy(sequences)
    assert copied.item_num == sequences.item_num
    assert rows_of(copied[np.array([0])]) == rows_of(sequences[np.array([0])])


def test_a_window_longer_than_the_budget_is_a_batch_of_its_own():
    batches = list(TokenBatches(np.array([3, 900, 2]), 10, shuffle=False, seed=0))
    assert [batch.tolist() for batch in batches] == [[1], [0, 2]]


def test_negatives_stand_where_targets_stand(tiny):
    from recbole.data import data_preparation

    config = config_of(tiny, model="LSTI", loss_type="BPR")
    train, _, _ = data_preparation(config, create_dataset(config))
    assert isinstance(train, SequenceTrainDataLoader)
    for batch in train:
        target, negative = batch["target_item_id_list"], batch["neg_target_item_id_list"]
        assert ((negative > 0) == (target > 0)).all()
        assert (negative != target)[target > 0].all()


def test_several_negatives_stand_behind_each_target(tiny):
    from recbole.data import data_preparation

    many = {"distribution": "uniform", "sample_num": 3}
    config = config_of(tiny, model="LSTI", loss_type="BCE", train_neg_sample_args=many)
    train, _, _ = data_preparation(config, create_dataset(config))
    for batch in train:
        target, negative = batch["target_item_id_list"], batch["neg_target_item_id_list"]
        assert negative.shape == (*target.shape, 3)
        assert ((negative > 0) == (target > 0)[..., None]).all()
        assert (negative != target[..., None])[target > 0].all()
    assert len(negative[target > 0].unique()) > 5


@pytest.mark.parametrize("split", ["LS", "RS", "TS"])
def test_rows_of_a_user_are_ranked_side_by_side(tiny, split):
    test = LSTIDataset(config_of(tiny, split=split)).build()[2]
    before = Counter(rows_of(test.inter_feat))
    test.inter_feat.sort_by_history()
    assert Counter(rows_of(test.inter_feat)) == before
    users, lengths = (test.inter_feat[field].tolist() for field in ("user_id", "item_length"))
    starts = [n for n in range(len(users)) if n == 0 or users[n] != users[n - 1]]
    assert len(starts) == len(set(users))
    assert len(users) > len(set(users)) or split == "LS"
    ends = [*starts[1:], len(users)]
    assert all(sorted(lengths[a:b]) == lengths[a:b] for a, b in zip(starts, ends, strict=True))
    longest = [lengths[end - 1] for end in ends]
    assert sorted(longest) == longest, "little padding"


def test_whole_histories_for_masking_are_not_cut(tiny):
    config = config_of(tiny, MAX_ITEM_LIST_LENGTH=2)
    test = LSTIDataset(config).build()[2]
    full = LSTIDataset(config_of(tiny, MAX_ITEM_LIST_LENGTH=100)).build()[2]
    row, item = test.seen(1, 4)
    for r in range(3):
        n = full.inter_feat["item_length"][r + 1]
        assert item[row == r].tolist() == full.inter_feat["item_id_list"][r + 1, :n].tolist()


def test_exact_times_are_shown_where_the_model_reads_them(tmp_path):
    rows = [("u", f"i{step}", 1_700_000_000 + step) for step in range(6)]
    write_inter(tmp_path, "close", rows)
    config = config_of(tmp_path, "close", model="LSTI", session_gap=10.0)
    test = create_dataset(config).build()[2]
    time = test[[0]]["exact_timestamp_list"][0]
    assert time.dtype == torch.float64
    assert [b - a for a, b in pairwise(time.tolist())] == [1.0] * 4
    assert (
        "exact_timestamp_list" not in create_dataset(config_of(tmp_path, "close", model="LSTI")).build()[2].inter_feat
    )


def test_a_missing_column_is_named(tmp_path):
    write_inter(tmp_path, "untimed", [("u", "i")], "user_id:token\titem_id:token")
    with pytest.raises(
        ValueError, match=r"TIME_FIELD \(timestamp\) must be a column of untimed.inter .*user_id, item_id"
    ):
        create_dataset(config_of(tmp_path, "untimed"))


def test_little_padding_is_computed_on_ml_1m():
    """The lengths of the real histories: 6,040 users with 20 to 2,314 films."""
    if "LSTI_DATA" not in os.environ:
        pytest.skip("LSTI_DATA is not set: the ml-1m release is not at hand")
    ratings = Path(os.environ["LSTI_DATA"]) / "raw" / "ml-1m" / "ratings.dat"
    users = np.loadtxt(ratings, delimiter=":", usecols=0, dtype=np.int64, encoding="latin-1")
    lengths = np.unique(users, return_counts=True)[1] - 3  # inputs of the training part
    assert len(lengths) == 6040
    for window in (200, 1000):
        cut = np.minimum(lengths, window)
        assert TokenBatches(cut, 4096, shuffle=True, seed=0).padding_share < 0.15
