"""The metrics beside RecBole's, against loops over lists and pairs."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import random_rows, write_inter
from recbole.evaluator import Evaluator
from recbole.evaluator.collector import DataStruct

import recbole_lsti
from recbole_lsti.config import LSTIConfig
from recbole_lsti.evaluation.collector import RankingCollector, collect_rankings
from recbole_lsti.evaluation.ranking import evaluate_rows

K = [1, 2, 5]


def config(*metrics: str, **changes) -> LSTIConfig:
    settings = {"metrics": list(metrics), "topk": K, "metric_decimal_place": 15, "use_gpu": False}
    return LSTIConfig("LSTI", "ml-100k", config_dict={**settings, "valid_metric": f"{metrics[0]}@5", **changes})


def struct(**content) -> DataStruct:
    data = DataStruct()
    for key, value in content.items():
        data.set(key.replace("_", ".", 1), value)
    return data


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.fixture
def items() -> torch.Tensor:
    """Lists of 5 different items of 1..19 for 30 rows."""
    return torch.rand(30, 19, generator=torch.Generator().manual_seed(1)).topk(5).indices + 1


def test_novelty_is_the_mean_self_information_of_the_list(items):
    counts = Counter({item: item**2 for item in range(1, 15)})  # five items have none
    found = Evaluator(config("Novelty")).evaluate(struct(rec_items=items, data_count_items=counts))
    total = sum(counts.values())
    for k in K:
        bits = [[-math.log2((counts[i] or 1) / total) for i in row[:k]] for row in items.tolist()]
        assert found[f"novelty@{k}"] == pytest.approx(mean([mean(row) for row in bits]), abs=1e-12)


def jaccard(a: list[int], b: list[int]) -> float:
    a, b = set(a) - {0}, set(b) - {0}
    return len(a & b) / len(a | b) if a | b else 0.0


def cosine(a: list[float], b: list[float]) -> float:
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


@pytest.mark.parametrize("kind", ["token", "token_seq", "float", "float_seq"])
def test_diversity_is_one_minus_the_mean_similarity_of_pairs(items, kind, monkeypatch):
    monkeypatch.setattr("recbole_lsti.evaluation.metrics.diversity.ROWS", 7)
    random = torch.Generator().manual_seed(2)
    shape = (20,) if kind in ("token", "float") else (20, 3)
    tokens = torch.randint(0, 4, shape, generator=random)  # 0: none, and the same token twice in a set
    attributes = tokens if kind.startswith("token") else torch.randn(shape, generator=random) * (tokens > 0)
    data = struct(rec_items=items, data_item_attributes=attributes)
    found = Evaluator(config("IntraListDiversity", diversity_field="class")).evaluate(data)
    rows = attributes.reshape(20, -1).tolist()
    similarity = jaccard if kind.startswith("token") else cosine
    for k in K:
        values = []
        for row in items.tolist():
            pairs = list(itertools.combinations(row[:k], 2))
            values.append(1 - mean([similarity(rows[a], rows[b]) for a, b in pairs]) if pairs else 0.0)
        assert found[f"intralistdiversity@{k}"] == pytest.approx(mean(values), abs=1e-6)
    assert 0 < found["intralistdiversity@5"] < 2


def collected(settings: LSTIConfig, batches: list[tuple], had: list[tuple[int, int]]) -> DataStruct:
    collector = RankingCollector(settings)
    user, item = torch.tensor(had).T
    rows = {"user_id": user, "item_id": item}
    dataset = SimpleNamespace(uid_field="user_id", iid_field="item_id", inter_feat=rows, num=lambda field: 20)
    collector.data_collect(SimpleNamespace(dataset=dataset))
    for scores, interaction, row, target in batches:
        collector.eval_batch_collect(scores, interaction, row, target)
    return collector.get_data_struct()


def test_recall_splits_into_repeats_and_the_rest():
    random = torch.Generator().manual_seed(3)
    had = [(user, item) for user in range(1, 25) for item in range(1, 20) if (user * item) % 3 == 0]
    users = torch.arange(1, 25)
    scores = torch.randn(24, 20, generator=random).round(decimals=1)
    scores[:, 0] = -torch.inf
    shown = torch.randint(0, 20, (24, 4), generator=random)
    targets = torch.rand(24, 19, generator=random).topk(4).indices + 1
    wanted = torch.rand(24, 4, generator=random) < 0.5
    wanted[:, 0] = True
    row, target = wanted.nonzero()[:, 0], targets[wanted]
    settings = config("RepeatRecall", "ExploreRecall", "Recall")
    data = collected(settings, [(scores, {"user_id": users, "item_id_list": shown}, row, target)], had)
    top = data.get("rec.items")
    result, names, values = evaluate_rows(settings, data)
    for k in K:
        parts = {"repeatrecall": [], "explorerecall": []}
        for number in range(24):
            before = {item for user, item in had if user == number + 1} | set(shown[number].tolist())
            mine = target[row == number].tolist()
            for name, part in (
                ("repeatrecall", [item for item in mine if item in before]),
                ("explorerecall", [item for item in mine if item not in before]),
            ):
                value = mean([float(item in top[number, :k]) for item in part]) if part else math.nan
                parts[name].append(value)
        for name, expected in parts.items():
            column = values[:, names.index(f"{name}@{k}")]
            assert np.allclose(column, expected, equal_nan=True)
            assert np.isnan(expected).any()
            assert result[f"{name}@{k}"] == pytest.approx(np.nanmean(expected), abs=1e-12)


def test_a_whole_history_tells_repeats_whatever_part_of_it_a_row_shows():
    settings = config("RepeatRecall", "ExploreRecall", "Recall")
    collectors = [RankingCollector(settings) for _ in range(2)]
    for each in collectors:
        each.had, each.n_items = torch.tensor([1 * 20 + 3]), 20
    scores = torch.zeros(2, 20)
    scores[0, 5] = scores[1, 6] = 1.0
    shown = {"user_id": torch.tensor([1, 2]), "item_id_list": torch.tensor([[7, 8], [6, 9]])}
    seen = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([5, 7, 8, 6, 9])  # the row shows all but the 5 of the first user
    collect_rankings(collectors, scores, shown, torch.arange(2), torch.tensor([5, 6]), seen)
    raw, unseen = (Evaluator(settings).evaluate(each.get_data_struct()) for each in collectors)
    for k in K:
        assert (raw[f"repeatrecall@{k}"], unseen[f"repeatrecall@{k}"]) == (1.0, 0.0)
        assert math.isnan(raw[f"explorerecall@{k}"])


def test_a_part_that_no_row_has_is_nan():
    batch = (torch.rand(3, 20), {"user_id": torch.tensor([1, 2, 3])}, torch.arange(3), torch.tensor([4, 5, 6]))
    settings = config("RepeatRecall", "ExploreRecall", "Recall")
    result = Evaluator(settings).evaluate(collected(settings, [batch], [(1, 7), (2, 4)]))
    assert all(math.isnan(result[f"repeatrecall@{k}"]) for k in K)
    assert all(result[f"explorerecall@{k}"] == result[f"recall@{k}"] for k in K)


def test_sampled_negatives_find_the_rows_of_their_users():
    # two users with one and two targets, each with one negative: targets first, then negatives
    interaction = {"user_id": torch.tensor([1, 1, 2, 2, 2, 2])}
    scores = torch.full((2, 20), -torch.inf)
    scores[0, [4, 9]] = torch.tensor([1.0, 0.0])
    scores[1, [4, 5, 9, 8]] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    settings = config("RepeatRecall", "ExploreRecall")
    batch = (scores, interaction, torch.tensor([0, 1, 1]), torch.tensor([4, 4, 5]))
    _, names, values = evaluate_rows(settings, collected(settings, [batch], [(2, 5), (1, 4)]))
    assert values[:, names.index("repeatrecall@1")].tolist() == [1.0, 0.0]
    assert values[:, names.index("repeatrecall@2")].tolist() == [1.0, 1.0]
    assert np.allclose(values[:, names.index("explorerecall@1")], [math.nan, 1.0], equal_nan=True)


# ---- whole runs --------------------------------------------------------------------------------------------------

OURS = ["RepeatRecall", "ExploreRecall", "Novelty", "IntraListDiversity", "Recall", "ItemCoverage"]


@pytest.fixture
def with_attributes(tmp_path, monkeypatch):
    """A data folder with `tiny`, whose items have kinds, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["prog"])
    write_inter(tmp_path, "tiny", random_rows())
    lines = ["item_id:token\tkinds:token_seq", *(f"i{item}\tk{item % 3} k{item % 5}" for item in range(30))]
    (tmp_path / "tiny" / "tiny.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "kinds"]}
    settings = {"data_path": str(tmp_path), "load_col": columns, "diversity_field": "kinds", "metrics": OURS}
    settings |= {"epochs": 1, "show_progress": False, "use_gpu": False, "topk": [3], "valid_metric": "Recall@3"}
    return settings


def recall_from_parts(metrics: dict[str, float], share: float) -> float:
    return share * metrics["repeatrecall@3"] + (1 - share) * metrics["explorerecall@3"]


@pytest.mark.parametrize("train_mode", ["sequence", "prefix"])
def test_a_run_reports_them(with_attributes, small, train_mode):
    settings = {**small, **with_attributes, "metric_decimal_place": 12, "train_mode": train_mode}
    result = recbole_lsti.run("LSTI", "tiny", config_dict=settings, saved=False)
    histories: dict[str, list[str]] = {}
    for user, item, _ in random_rows():
        histories.setdefault(user, []).append(item)
    again = [items[-1] in items[:-1] for items in histories.values() if len(items) > 1]
    raw, unseen = result["test_result"], result["test_result_unseen"]
    assert recall_from_parts(raw, mean(again)) == pytest.approx(raw["recall@3"], abs=1e-9)
    assert unseen["repeatrecall@3"] == 0
    assert 0 < raw["intralistdiversity@3"] < 1
    assert 3 < raw["novelty@3"] < 9
    assert 0 < raw["itemcoverage@3"] <= 1


@pytest.mark.parametrize(
    ("model", "mode"), [("GRU4Rec", "full"), ("GRU4Rec", "uni5"), ("BPR", "full")], ids=lambda value: value
)
def test_stock_recbole_reports_them(with_attributes, model, mode):
    from recbole.quick_start import run_recbole

    settings = {**with_attributes, "metric_decimal_place": 12}
    sequential = model == "GRU4Rec"
    split = {"LS": "valid_and_test"} if sequential else {"RS": [8, 1, 1]}
    settings["eval_args"] = {"split": split, "order": "TO", "group_by": "user", "mode": mode}
    if sequential:
        settings |= {"train_neg_sample_args": None, "embedding_size": 8, "hidden_size": 8}
    result = run_recbole(model, "tiny", config_dict=settings)["test_result"]
    assert set(result) == {f"{name.lower()}@3" for name in OURS}
    assert 0 < result["intralistdiversity@3"] < 1
    assert 3 < result["novelty@3"] < 9
    if sequential:
        histories: dict[str, list[str]] = {}
        for user, item, _ in random_rows():
            histories.setdefault(user, []).append(item)
        again = [items[-1] in items[:-1] for items in histories.values() if len(items) > 1]
        assert recall_from_parts(result, mean(again)) == pytest.approx(result["recall@3"], abs=1e-9)


@pytest.mark.parametrize("model", ["LSTI", "GRU4Rec"])
def test_a_metric_that_no_validation_row_defines_cannot_choose_the_epoch(tmp_path, capsys, model):
    from recbole_lsti.cli import main

    rows = [(f"u{user}", f"i{(3 * user + step) % 12}", step) for step in range(6) for user in range(8)]
    write_inter(tmp_path, "once", rows)
    settings = {"epochs": 1, "topk": "[3]", "metrics": "['RepeatRecall','NDCG']", "valid_metric": "RepeatRecall@3"}
    flags = [f"--{key}={value}" for key, value in settings.items()]
    saved = tmp_path / "saved"
    assert (
        main(["train", "-m", model, "-d", "once", f"--data_path={tmp_path}", f"--checkpoint_dir={saved}", *flags]) == 2
    )
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "valid_metric (RepeatRecall@3) must have a value on the validation data" in error
    assert "choose another, such as NDCG@10" in error


def test_without_a_repeated_target_metrics_json_stays_json(with_attributes, small, tmp_path):
    rows = [(f"u{user}", f"i{(7 * user + step) % 30}", step) for user in range(20) for step in range(6)]
    write_inter(tmp_path, "tiny", rows)
    result = recbole_lsti.run("LSTI", "tiny", config_dict={**small, **with_attributes}, saved=False)
    assert result["test_result"]["repeatrecall@3"] is None
    assert result["best_valid_result"]["repeatrecall@3"] is None
    assert result["test_result"]["explorerecall@3"] == result["test_result"]["recall@3"]


def test_an_attribute_that_is_not_there_is_one_clear_line(with_attributes, small):
    settings = {**small, **with_attributes}
    with pytest.raises(ValueError, match=r"diversity_field \(None\) must be a column of the \.item file where metrics"):
        recbole_lsti.run("LSTI", "tiny", config_dict={**settings, "diversity_field": None}, saved=False)
    message = (
        r"diversity_field \(kind\) must be a column of tiny\.item that load_col loads; loaded: kinds "
        r"\(did you mean kinds\?\)"
    )
    with pytest.raises(ValueError, match=message):
        recbole_lsti.run("LSTI", "tiny", config_dict={**settings, "diversity_field": "kind"}, saved=False)
