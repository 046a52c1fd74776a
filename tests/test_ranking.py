"""Both rankings, against counting by hand."""

from __future__ import annotations

import math

import torch
from conftest import random_rows, write_inter
from recbole.data import data_preparation

from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset
from recbole_lsti.evaluation.ranking import mask_seen
from recbole_lsti.trainer import LSTITrainer


def test_seen_items_come_last_and_a_seen_target_after_them():
    scores = torch.tensor([[0.0, 5.0, 4.0, 3.0, 2.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    mask_seen(scores, torch.tensor([0, 1]), torch.tensor([2, 4]), torch.tensor([0, 0, 1]), torch.tensor([1, 2, 1]))
    assert scores[0].argsort(descending=True).tolist() == [3, 4, 0, 1, 2]
    assert scores[1].argsort(descending=True).tolist() == [4, 3, 2, 0, 1]


def test_rankings_equal_counting_by_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_inter(tmp_path, "tiny", random_rows())
    settings = {"data_path": str(tmp_path), "hidden_size": 8, "use_gpu": False, "topk": [3, 10], "eval_batch_size": 6}
    settings |= {"metrics": ["NDCG", "Hit"], "metric_decimal_place": 12, "MAX_ITEM_LIST_LENGTH": 5}
    config = LSTIConfig("LSTI", "tiny", config_dict=settings)
    dataset = create_dataset(config)
    train_data, _, test_data = data_preparation(config, dataset)
    model = config.model_class(config, train_data._dataset)
    trainer = LSTITrainer(config, model)
    trainer.eval_collector.data_collect(train_data)
    found = trainer.evaluate_rankings(test_data, load_best_model=False)

    histories: dict[str, list[str]] = {}
    for user, item, _ in random_rows():
        histories.setdefault(user, []).append(item)
    expected = {name: dict.fromkeys(("ndcg@3", "ndcg@10", "hit@3", "hit@10"), 0.0) for name in ("raw", "unseen")}
    users = [user for user, items in histories.items() if len(items) > 1]
    model.eval()
    for user in users:
        *history, target = (dataset.token2id("item_id", item) for item in histories[user])
        batch = {"item_id_list": torch.tensor([history[-5:]]), "item_length": torch.tensor([len(history[-5:])])}
        score = model.full_sort_predict(batch)[0].detach()
        for name in expected:
            rivals = [j for j in range(1, dataset.item_num) if name == "raw" or j not in history]
            rank = 1 + sum(bool(score[j] > score[target]) for j in rivals) if target in rivals else math.inf
            for k in (3, 10):
                expected[name][f"hit@{k}"] += (rank <= k) / len(users)
                expected[name][f"ndcg@{k}"] += (1 / math.log2(rank + 1) if rank <= k else 0) / len(users)
    for name in expected:
        metrics = getattr(found, name)
        assert {key: round(value, 6) for key, value in metrics.items()} == {
            key: round(value, 6) for key, value in expected[name].items()
        }
        assert all(type(value) is float for value in metrics.values())
    assert expected["raw"] != expected["unseen"]
