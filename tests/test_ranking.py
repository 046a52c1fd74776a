"""Both rankings, against counting by hand."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from conftest import random_rows, write_inter
from recbole.data import data_preparation
from recbole.evaluator import Collector, Evaluator

import recbole_lsti
from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset, loader
from recbole_lsti.evaluation.chunks import Pairs
from recbole_lsti.evaluation.collector import RankingCollector
from recbole_lsti.evaluation.ranking import rank
from recbole_lsti.trainer import LSTITrainer

METRICS = ["Recall", "MRR", "NDCG", "Hit", "MAP", "Precision", "GAUC"]
COVERAGE = ["ItemCoverage", "AveragePopularity", "ShannonEntropy", "GiniIndex", "TailPercentage"]


def collected(cls, config, batches) -> dict[str, float]:
    collector = cls(config)
    for scores, row, item in batches:
        collector.eval_batch_collect(scores.clone(), None, row, item)
    return {key: float(value) for key, value in Evaluator(config).evaluate(collector.get_data_struct()).items()}


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_metrics_equal_recboles_on_random_scores_with_ties(decimals):
    settings = {"metrics": METRICS, "topk": [1, 5, 10], "metric_decimal_place": 12, "use_gpu": False}
    config = LSTIConfig("LSTI", "ml-100k", config_dict={**settings, "valid_metric": "NDCG@10"})
    torch.manual_seed(decimals)
    batches = []
    for _ in range(5):
        scores = torch.randn(150, 60).round(decimals=decimals)
        scores[:, 0] = -torch.inf
        batches.append((scores, torch.arange(150), torch.randint(1, 60, (150,))))
    ours, theirs = collected(RankingCollector, config, batches), collected(Collector, config, batches)
    assert len(ours) == 19
    for metric, value in theirs.items():
        assert ours[metric] == pytest.approx(value, abs=1e-9), metric


def random_batches(seed: int, decimals: int = 1, n_items: int = 60) -> list[tuple]:
    """(scores (40, N), row and item of one to four targets a row); few different scores, so many ties."""
    random = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(3):
        scores = torch.randn(40, n_items, generator=random).round(decimals=decimals)
        scores[:, 0] = -torch.inf
        targets = torch.rand(40, n_items - 1, generator=random).topk(4).indices + 1
        wanted = torch.arange(4) <= torch.randint(0, 4, (40, 1), generator=random)
        batches.append((scores, wanted.nonzero()[:, 0], targets[wanted]))
    return batches


PER_ROW = [*METRICS[:-1], "F1", "Accuracy", "AveragePopularity", "TailPercentage"]


@pytest.mark.parametrize("decimals", [0, 1])
def test_the_values_of_rows_average_to_the_metrics(decimals):
    settings = {"metrics": [*METRICS, *COVERAGE, "F1", "Accuracy"], "topk": [1, 5, 10], "metric_decimal_place": 15}
    config = LSTIConfig("LSTI", "ml-100k", config_dict={**settings, "valid_metric": "NDCG@10"})
    collector = RankingCollector(config)
    collector.data_struct.set("data.num_items", 60)
    collector.data_struct.set("data.count_items", Counter({item: item % 7 + 1 for item in range(1, 50)}))
    batches = random_batches(decimals, decimals)

    def scored():
        for number, (scores, row, item) in enumerate(batches):
            yield {"user_id": torch.arange(40) + 100 * number}, scores.clone(), row, item

    found = rank(config, collector, scored(), lambda start, stop: (torch.arange(40), torch.arange(40) % 59 + 1))
    assert set(found.users.metrics) == {f"{name.lower()}@{k}" for name in PER_ROW for k in (1, 5, 10)}
    assert found.users.raw.shape == found.users.unseen.shape == (120, 30)
    assert found.users.raw.dtype == found.users.unseen.dtype == "float64"
    for name in ("raw", "unseen"):
        means = dict(zip(found.users.metrics, getattr(found.users, name).mean(0), strict=True))
        for metric, value in means.items():
            assert getattr(found, name)[metric] == pytest.approx(value, abs=1e-9), metric
    assert found.users.user.tolist() == [*range(40), *range(100, 140), *range(200, 240)]
    for number, (_, row, item) in enumerate(batches):
        firsts = [int(item[row == r][0]) for r in range(40)]
        assert found.users.target[40 * number : 40 * number + 40].tolist() == firsts
    # a row by itself: hit@1 is whether its best item is one of its targets
    scores, row, item = batches[0]
    hits = found.users.raw[:40, found.users.metrics.index("hit@1")]
    assert all(not hit or scores[r].max() == scores[r, item[row == r]].max() for r, hit in enumerate(hits))
    assert 0 < hits.sum() < 40


def test_metrics_over_all_users_work(tmp_path, monkeypatch):
    """RecBole's own Collector stops on them: 'int' object has no attribute 'cpu'."""
    monkeypatch.chdir(tmp_path)
    write_inter(tmp_path, "tiny", random_rows())
    settings = {"data_path": str(tmp_path), "hidden_size": 8, "use_gpu": False, "epochs": 1, "show_progress": False}
    settings |= {"metrics": ["NDCG", *COVERAGE], "topk": [2]}
    result = recbole_lsti.run("LSTI", "tiny", config_dict={**settings, "valid_metric": "NDCG@2"}, saved=False)
    assert 0 < result["test_result"]["itemcoverage@2"] <= 1
    assert len(result["test_result"]) == 6


def test_f1_and_accuracy_equal_counting_by_hand():
    settings = {"metrics": ["F1", "Accuracy", "Hit"], "topk": [2, 3], "valid_metric": "F1@3", "metric_decimal_place": 9}
    config = LSTIConfig("LSTI", "ml-100k", config_dict=settings)
    collector = RankingCollector(config)
    collector.data_struct.set("data.num_items", 6)
    scores = torch.tensor([[-torch.inf, 5.0, 4.0, 3.0, 2.0, 1.0]] * 3)
    collector.eval_batch_collect(scores, None, torch.tensor([0, 1, 2]), torch.tensor([2, 3, 5]))
    found = Evaluator(config).evaluate(collector.get_data_struct())
    # targets at rank 2, 3 and 5; precision 1/k, recall 1 where hit
    assert found["f1@2"] == pytest.approx((2 / 3) / 3)
    assert found["f1@3"] == pytest.approx((1 / 2 + 1 / 2) / 3)
    # of 5 items, k - 1 wrong ones inside with a hit; without one k inside and the target outside
    assert found["accuracy@2"] == pytest.approx((4 / 5 + 2 / 5 + 2 / 5) / 3)
    assert found["accuracy@3"] == pytest.approx((3 / 5 + 3 / 5 + 1 / 5) / 3)


def test_stock_recbole_takes_them_too(tmp_path, monkeypatch):
    from recbole.quick_start import run_recbole

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["prog"])
    write_inter(tmp_path, "tiny", random_rows())
    settings = {"data_path": str(tmp_path), "epochs": 1, "metrics": ["F1", "Recall"], "valid_metric": "F1@10"}
    settings |= {"show_progress": False, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    result = run_recbole("BPR", "tiny", config_dict=settings)["test_result"]
    assert 0 < result["f1@10"] < result["recall@10"]


def test_a_masked_target_is_a_miss_even_where_no_other_item_is_left():
    config = LSTIConfig("LSTI", "ml-100k", config_dict={"metrics": ["Hit"], "topk": [3], "valid_metric": "Hit@3"})
    scores = torch.tensor([[-torch.inf, 5.0, 4.0, 3.0], [-torch.inf, 1.0, 2.0, 3.0]])
    Pairs(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 1]), scores.device).mask(0, scores)
    assert scores.tolist() == [[-torch.inf, -torch.inf, -torch.inf, 3.0], [-torch.inf, -torch.inf, 2.0, 3.0]]
    batch = [(scores, torch.arange(2), torch.tensor([2, 2]))]
    assert collected(RankingCollector, config, batch) == {"hit@3": 0.5}


def test_a_batch_is_as_large_as_memory_allows(monkeypatch):
    monkeypatch.setattr(loader.psutil, "virtual_memory", lambda: SimpleNamespace(available=16 * 2**20))
    assert loader.rows_that_fit(1000, torch.device("cpu")) == 16 * 2**20 // 4 // 16 // 1000
    assert loader.rows_that_fit(10**9, torch.device("cpu")) == 1


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
