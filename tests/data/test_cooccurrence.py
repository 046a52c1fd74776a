"""Item vectors by counting: what is counted, how it is weighed, and that training starts from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_rows, write_inter

from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import cooccurrence
from recbole_lsti.data.cooccurrence import item_vectors
from recbole_lsti.runner import build, make_trainer


def events_of(histories: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    items = np.concatenate([np.asarray(history) for history in histories])
    lengths = [len(history) for history in histories]
    return items, np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)


def test_pairs_are_counted_by_distance_within_a_user():
    histories = [[1, 2, 3], [3, 1, 1], [2], [int(item) for item in np.random.default_rng(0).integers(1, 9, 40)]]
    expected = np.zeros((9, 9))
    for history in histories:
        for later in range(len(history)):
            for earlier in range(max(0, later - cooccurrence.REACH), later):
                for pair in ((history[earlier], history[later]), (history[later], history[earlier])):
                    expected[pair] += 1 / (later - earlier)
    counts = cooccurrence._counts(*events_of(histories), 9)
    np.testing.assert_allclose(counts.toarray(), expected, rtol=1e-5)


def test_the_reach_shrinks_where_there_would_be_too_many_pairs(monkeypatch):
    items, first = events_of([list(range(1, 9))])
    monkeypatch.setattr(cooccurrence, "PAIRS", 17)
    assert cooccurrence._counts(items, first, 9).nnz == 2 * (7 + 6), "two steps of eight events"
    monkeypatch.setattr(cooccurrence, "PAIRS", 3)
    assert cooccurrence._counts(items, first, 9).nnz == 2 * 7, "neighbours at the least"


def test_association_is_positive_smoothed_mutual_information():
    counts = cooccurrence._counts(*events_of([[1, 2, 1, 2, 3], [3, 4, 3], [4, 5, 1]]), 6)
    dense = counts.toarray().astype(float)
    share = dense.sum(axis=1) ** 0.75
    share /= share.sum()
    chance = np.outer(share, share) * dense.sum()
    expected = np.zeros_like(dense)
    there = dense > 0
    expected[there] = np.maximum(np.log(dense[there] / chance[there]), 0)
    found = cooccurrence._association(counts).toarray()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0 < np.count_nonzero(found) < np.count_nonzero(dense), "what is rarer than chance is left out"


def test_items_of_one_kind_are_alike_and_the_basis_is_turned():
    random = np.random.default_rng(1)
    histories = [[int(item) for item in random.integers(1, 11, 12) + 10 * (user % 2)] for user in range(60)]
    vectors = item_vectors(*events_of(histories), 23, 8, seed=3)
    assert vectors.dtype == np.float32
    assert vectors.shape == (23, 8)
    assert not vectors[[0, 21, 22]].any(), "no item, and two that nobody had"
    unit = vectors[1:21] / np.linalg.norm(vectors[1:21], axis=1, keepdims=True)
    alike = unit @ unit.T
    same = np.equal.outer(np.arange(20) // 10, np.arange(20) // 10) & ~np.eye(20, dtype=bool)
    assert alike[same].mean() > alike[~same & ~np.eye(20, dtype=bool)].mean() + 0.3
    assert vectors[1:21].std() == pytest.approx(1, abs=1e-5)
    assert np.array_equal(vectors, item_vectors(*events_of(histories), 23, 8, seed=3))
    columns = vectors[1:21].std(axis=0)
    assert columns.max() < 4 * columns.min(), "no column holds the largest part alone"


@pytest.mark.parametrize("histories", [[[1]], [[1], [2]], [[1, 1, 1]]])
def test_too_little_to_count_gives_no_vectors_that_are_not_numbers(histories):
    assert np.isfinite(item_vectors(*events_of(histories), 4, 8, seed=0)).all()


def make(folder: Path, small: dict, **settings):
    return LSTIConfig("LSTI", "tiny", config_dict={**small, "data_path": str(folder), **settings})


def test_neither_validation_nor_test_is_counted(tmp_path, small):
    rows = random_rows(shortest=4)  # with fewer events, a user's second one is trained on
    write_inter(tmp_path, "tiny", rows)
    dataset, loaders, _ = build(make(tmp_path, small))
    last: dict[str, list[int]] = {}
    for place, (user, _, _) in enumerate(rows):
        last.setdefault(user, []).append(place)
    random = np.random.default_rng(5)
    for places in last.values():  # other items in the place of each user's last two events
        for place in places[-2:]:
            rows[place] = (rows[place][0], f"i{random.integers(30)}", rows[place][2])
    write_inter(tmp_path / "changed", "tiny", rows)
    changed, changed_loaders, _ = build(make(tmp_path / "changed", small))
    found = []  # what is counted, by token: ids differ
    for whole, (train, *_) in ((dataset, loaders), (changed, changed_loaders)):
        with pytest.MonkeyPatch.context() as patch:
            seen = []
            patch.setattr(
                "recbole_lsti.data.dataset.item_vectors",
                lambda items, first, n, *_, seen=seen: seen.append((items, first)) or np.zeros((n, 1), np.float32),
            )
            train._dataset.item_vectors(8, 0)
        items, first = seen[0]
        found.append([(start, whole.id2token("item_id", item)) for start, item in zip(first, items, strict=True)])
    assert len(found[0]) == len(rows) - 2 * len(last)
    assert found[0] == found[1]


def test_training_starts_from_the_counted_vectors(tiny, small):
    config = make(tiny, {**small, "learning_rate": 1e-12})
    _, loaders, network = build(config)
    before = network.item_embedding.weight.detach().clone()
    vectors = loaders[0]._dataset.item_vectors(8, config["seed"])
    make_trainer(config, network, None).fit(loaders[0], None, saved=False)
    after = network.item_embedding.weight.detach()
    there = vectors.any(dim=1)
    assert there.sum() > 20
    torch.testing.assert_close(after[there], 0.05 * vectors[there], atol=1e-6, rtol=0)
    torch.testing.assert_close(after[~there], before[~there], atol=1e-6, rtol=0)
    assert after[0].abs().max() < 1e-6

    config = make(tiny, {**small, "learning_rate": 1e-12, "item_init": "random"})
    _, loaders, network = build(config)
    before = network.item_embedding.weight.detach().clone()
    make_trainer(config, network, None).fit(loaders[0], None, saved=False)
    torch.testing.assert_close(network.item_embedding.weight.detach(), before, atol=1e-6, rtol=0)


def test_rows_that_were_split_before_are_counted_once_each(tiny, small):
    config = make(tiny, small)
    _, loaders, _ = build(config)
    dataset = loaders[0]._dataset
    rows = dataset.inter_feat.gather()
    last = rows["item_id_list"][torch.arange(len(rows)), rows["item_length"] - 1]
    items = torch.stack([last, rows["item_id"]], dim=1).flatten().numpy()
    expected = item_vectors(items, np.repeat(np.arange(0, len(items), 2), 2), dataset.item_num, 8, 0)
    dataset.inter_feat = rows
    np.testing.assert_array_equal(dataset.item_vectors(8, 0).numpy(), expected)
