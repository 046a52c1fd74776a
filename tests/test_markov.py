"""The training-free control: what it ranks by is what can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import random_rows, write_inter
from recbole.data import data_preparation
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction

import recbole_lsti
from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset
from recbole_lsti.model.markov import Markov


def by_hand(dataset, train, history: list[int], order: int, decay: float) -> np.ndarray:
    n = dataset.item_num
    counts, popularity = np.zeros((n, n)), np.zeros(n)
    feat = train.inter_feat
    for seq, length, item in zip(feat["item_id_list"], feat["item_length"], feat["item_id"], strict=True):
        counts[seq[length - 1], item] += 1
        popularity[item] += 1
    share = np.divide(counts, counts.sum(1, keepdims=True), where=counts.sum(1, keepdims=True) > 0, out=counts * 0)
    smallest = share[share > 0].min() * decay ** (order - 1)
    scores = popularity / (popularity.sum() + 1) * smallest
    for distance, item in enumerate(history[::-1][:order]):
        scores += decay**distance * share[item]
    return scores


@pytest.mark.parametrize(("order", "decay"), [(1, 1.0), (3, 0.5)])
def test_scores_equal_counting_by_hand(tmp_path, order, decay):
    write_inter(tmp_path, "tiny", random_rows())
    settings = {"data_path": str(tmp_path), "markov_order": order, "markov_decay": decay, "use_gpu": False}
    config = LSTIConfig("Markov", "tiny", config_dict=settings)
    dataset = create_dataset(config)
    train_data, _, _ = data_preparation(config, dataset)
    model = Markov(config, train_data._dataset)
    histories = [[3, 7, 3, 9], [5], [1, 2, 3, 4, 5, 6]]
    item_seq = torch.nn.utils.rnn.pad_sequence([torch.tensor(h) for h in histories], batch_first=True)
    batch = Interaction({"item_id_list": item_seq, "item_length": torch.tensor([len(h) for h in histories])})
    scores = model.full_sort_predict(batch)
    for row, history in enumerate(histories):
        np.testing.assert_allclose(scores[row], by_hand(dataset, train_data._dataset, history, order, decay), atol=1e-6)
    batch["item_id"] = torch.tensor([2, 3, 9])
    torch.testing.assert_close(model.predict(batch), scores[torch.arange(3), batch["item_id"]])
    stock = SequentialDataset(config).build()[0]
    torch.testing.assert_close(Markov(config, stock).full_sort_predict(batch), scores)


def test_it_runs_as_any_model_and_comes_back_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [(f"u{user}", f"i{(user + step) % 12}", step) for user in range(30) for step in range(8)]
    write_inter(tmp_path, "circle", sorted(rows, key=lambda row: row[2]))
    settings = {"data_path": str(tmp_path), "show_progress": False, "topk": 1, "valid_metric": "Hit@1"}
    result = recbole_lsti.run("Markov", "circle", config_dict=settings)
    assert result["test_result"]["hit@1"] == 1.0
    assert result["n_parameters"] == 1
    loaded = recbole_lsti.load(result["checkpoint_file"])
    batch = next(iter(loaded.test_data))[0]
    assert torch.equal(loaded.model.full_sort_predict(batch).argmax(1), batch["item_id"])


def test_wrong_settings():
    with pytest.raises(ValueError, match=r"markov_decay \(1.5\) must be a number above 0, at most 1"):
        LSTIConfig("Markov", "ml-100k", config_dict={"markov_decay": 1.5})


@pytest.mark.parametrize("length", [1, 2, 50])
def test_popularity_ranks_as_recboles_pop(tmp_path, length):
    """RecBole's own Pop, shown every training event, counts what ours counts; its scores are shares of the largest."""
    from recbole.model.general_recommender import Pop

    write_inter(tmp_path, "tiny", random_rows())
    settings = {"data_path": str(tmp_path), "use_gpu": False, "MAX_ITEM_LIST_LENGTH": length}
    config = LSTIConfig("Popularity", "tiny", config_dict=settings)
    train_data, _, test_data = data_preparation(config, create_dataset(config))
    ours = config.model_class(config, train_data._dataset)
    events = train_data._dataset.inter_feat
    shown = [events["item_id"]]
    if length > 1:  # a user's first event is nobody's target
        shown.append(events.before("item_id")[events["item_length"] == 1])
    theirs = Pop(config, train_data._dataset)
    for item in torch.cat(shown):  # RecBole's count of a batch takes a repeated item once
        theirs.calculate_loss({"item_id": item[None]})
    batch = next(iter(test_data))[0]
    expected = theirs.full_sort_predict(batch).view(len(batch), -1).float()
    torch.testing.assert_close(ours.full_sort_predict(batch) / ours.count.max(), expected)
    torch.testing.assert_close(ours.predict(batch) / ours.count.max(), theirs.predict(batch))
    assert ours.count.sum() == sum(map(len, shown))


def test_popularity_runs_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_inter(tmp_path, "tiny", random_rows())
    result = recbole_lsti.run("Popularity", "tiny", config_dict={"data_path": str(tmp_path), "show_progress": False})
    assert result["epochs_run"] == 1
    loaded = recbole_lsti.load(result["checkpoint_file"])
    assert loaded.model.count.sum() == len(loaded.train_data._dataset.inter_feat) + n_first_events(loaded)


def n_first_events(loaded) -> int:
    return int((loaded.train_data._dataset.inter_feat["item_length"] == 1).sum())
