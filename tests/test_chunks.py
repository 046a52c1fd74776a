"""Ranking by ranges of items, against RecBole's own collector on whole tables and against sorting by hand."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import write_inter
from helpers import environment
from recbole.data import data_preparation
from recbole.evaluator import Collector, Evaluator

from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset
from recbole_lsti.evaluation import chunks
from recbole_lsti.evaluation.chunks import Pairs, Scores, ranked
from recbole_lsti.evaluation.collector import RankingCollector
from recbole_lsti.trainer import LSTITrainer

ALL = ["Recall", "MRR", "NDCG", "Hit", "MAP", "Precision", "GAUC", "ItemCoverage", "AveragePopularity"]
ALL += ["ShannonEntropy", "GiniIndex", "TailPercentage", "F1", "Accuracy"]
N = 800  # torch.topk takes another way where k is small beside N


def table(seed: int, decimals: int, n_rows: int = 30, n_items: int = N) -> tuple:
    """Scores with ties, and one to four targets a row."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(n_rows, n_items, generator=random).round(decimals=decimals)
    scores[:, 0] = -torch.inf
    # half of the targets are among the best, where ties matter
    best = scores.topk(20).indices[:, torch.randperm(20, generator=random)[:2]]
    others = torch.rand(n_rows, n_items - 1, generator=random).topk(2).indices + 1
    targets = torch.cat([best, others], dim=1)
    wanted = torch.rand(n_rows, 4, generator=random) < 0.6
    wanted[:, 0] = True
    row, place = wanted.nonzero(as_tuple=True)
    pairs = torch.unique(torch.stack([row, targets[row, place]], dim=1), dim=0)  # an item is a target once
    return scores, pairs[:, 0], pairs[:, 1]


def in_ranges(scores: torch.Tensor, width: int) -> Scores:
    return Scores(lambda start, stop: scores[:, start:stop].clone(), len(scores), scores.shape[1], width)


def config(topk: list[int]) -> LSTIConfig:
    settings = {"metrics": ALL, "topk": topk, "metric_decimal_place": 15, "use_gpu": False}
    return LSTIConfig("LSTI", "ml-100k", config_dict={**settings, "valid_metric": f"NDCG@{topk[0]}"})


def metrics(settings: LSTIConfig, collector: Collector, batches: list[tuple]) -> dict[str, float]:
    for scores, row, item in batches:
        collector.eval_batch_collect(scores, None, row, item)
    # told now: RecBole's own collector would try to move them to the CPU
    struct = collector.get_data_struct()
    struct.set("data.num_items", N)
    struct.set("data.count_items", Counter({item: item % 13 + 1 for item in range(1, N - 50)}))
    return {name: float(value) for name, value in Evaluator(settings).evaluate(struct).items()}


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("topk", [[1, 5, 10], [3, 60]])
def test_all_metrics_equal_recboles_for_every_width(decimals, topk):
    settings = config(topk)
    batches = [table(seed, decimals) for seed in range(3)]
    expected = metrics(settings, Collector(settings), [(scores.clone(), *rest) for scores, *rest in batches])
    assert len(expected) == 13 * len(topk) + 1
    for width in (1, 7, 100, N - 1, N):
        found = metrics(settings, RankingCollector(settings), [(in_ranges(s, width), *rest) for s, *rest in batches])
        assert found == pytest.approx(expected, abs=1e-9), f"width {width}"


def test_a_target_that_a_row_has_twice_counts_once_as_in_recbole():
    settings = config([1, 5, 10])
    scores, row, item = table(0, 1)
    order = torch.cat([row, row[::2], row[::4]]).argsort(stable=True)
    more = [torch.cat([each, each[::2], each[::4]])[order] for each in (row, item)]
    found = metrics(settings, RankingCollector(settings), [(scores.clone(), *more)])
    assert found == pytest.approx(metrics(settings, Collector(settings), [(scores.clone(), *more)]), abs=1e-9)
    assert found == pytest.approx(metrics(settings, RankingCollector(settings), [(scores, row, item)]), abs=1e-9)


@pytest.mark.parametrize("width", [1, 7, N])
@pytest.mark.parametrize("decimals", [0, 6])
def test_the_ranking_without_the_seen_items_equals_that_of_a_masked_table(width, decimals):
    scores, row, item = table(0, decimals)
    seen_row = torch.arange(30).repeat_interleave(40)
    generator = torch.Generator().manual_seed(4)
    seen_item = torch.cat([torch.randperm(N - 1, generator=generator)[:40] + 1 for _ in range(30)])
    seen_item[::40] = item[row.diff(prepend=torch.tensor([-1])) != 0]  # a target of each row, too
    masked = scores.clone()
    masked[seen_row, seen_item] = -torch.inf
    pairs = Pairs(seen_row, seen_item, scores.device)
    raw, unseen = ranked(in_ranges(scores, width), row, item, 10, True, [None, pairs])
    for found, whole in ((raw, scores), (unseen, masked)):
        assert torch.equal(found.items, whole.topk(10).indices)
        assert torch.equal(found.values, whole.topk(10).values)
        own = whole[row, item][:, None]
        competing = (whole > -torch.inf).sum(1, keepdim=True)
        expected = (whole[row] > own).sum(1) + ((whole[row] == own).sum(1) + 1) / 2
        assert torch.equal(found.rank, torch.where(own[:, 0] > -torch.inf, expected, competing[row, 0]))
        assert torch.equal(found.competing, competing)
    assert (masked[row, item] == -torch.inf).any()


def test_scores_are_computed_once_unless_ties_or_ranks_ask_for_more():
    scores, row, item = table(0, 6)
    asked = []

    def score(start: int, stop: int) -> torch.Tensor:
        asked.append((start, stop))
        return scores[:, start:stop].clone()

    every = [(start, min(start + 300, N)) for start in range(0, N, 300)]
    nothing = Pairs(row[:0], item[:0], scores.device)
    ranked(Scores(score, 30, N, 300), row, item, 10, False, [None, nothing])
    assert asked == every
    ranked(Scores(score, 30, N, 300), row, item, 10, True, [None, nothing])
    assert asked == every * 3
    scores[3, 5] = scores[3, 700] = 9.0
    ranked(Scores(score, 30, N, 300), row, item, 10, False)
    assert asked == every * 5


@pytest.mark.parametrize("width", [2, 6])
def test_a_target_out_of_the_race_is_a_miss_even_where_nothing_else_is_left(width):
    settings = LSTIConfig("LSTI", "ml-100k", config_dict={"metrics": ["Hit"], "topk": [4], "valid_metric": "Hit@4"})
    scores = torch.full((2, 6), -torch.inf)
    scores[:, 4] = 1.0
    collector = RankingCollector(settings)
    collector.eval_batch_collect(in_ranges(scores, width), None, torch.arange(2), torch.tensor([2, 4]))
    assert Evaluator(settings).evaluate(collector.get_data_struct()) == {"hit@4": 0.5}


@pytest.mark.parametrize(
    "changes",
    [{}, {"repeat_term": False}, {"fusion": "long"}, {"fusion": "concat", "time_bias": True}],
    ids=["default", "no repeat", "long", "time bias"],
)
def test_lsti_ranks_by_ranges_as_it_ranks_whole(tiny, small, monkeypatch, changes):
    monkeypatch.chdir(tiny)
    settings = {**small, "data_path": str(tiny), "topk": [3], "eval_batch_size": 8, "metric_decimal_place": 15}
    settings |= {"metrics": [*ALL[:-1]], "valid_metric": "NDCG@3", **changes}
    resolved = LSTIConfig("LSTI", "tiny", config_dict=settings)
    train_data, valid_data, test_data = data_preparation(resolved, create_dataset(resolved))
    torch.manual_seed(0)
    model = resolved.model_class(resolved, train_data._dataset)
    if model.repeat is not None:
        torch.nn.init.normal_(model.repeat.table)
    trainer = LSTITrainer(resolved, model)
    trainer.eval_collector.data_collect(train_data)
    batch = next(iter(test_data))[0]
    model.eval()
    encoded, whole = model.encode(batch), model.full_sort_predict(batch)
    for start, stop in ((0, 1), (3, 11), (0, model.n_items)):
        assert torch.allclose(model.score_range(encoded, start, stop), whole[:, start:stop], atol=1e-6)

    def evaluated() -> tuple:
        rankings = trainer.evaluate_rankings(test_data, load_best_model=False)
        return trainer.evaluate(valid_data, load_best_model=False), rankings

    valid, rankings = evaluated()
    ways = []
    full_sort_predict = model.full_sort_predict
    model.full_sort_predict = lambda batch: ways.append("whole") or full_sort_predict(batch)
    monkeypatch.setitem(chunks.CHUNK_SCORES, "cpu", 40)
    valid_by_ranges, by_ranges = evaluated()
    assert ways == []
    assert valid_by_ranges == pytest.approx(valid, abs=1e-9)
    assert by_ranges.raw == pytest.approx(rankings.raw, abs=1e-9)
    assert by_ranges.unseen == pytest.approx(rankings.unseen, abs=1e-9)
    assert np.allclose(by_ranges.users.unseen, rankings.users.unseen, atol=1e-9, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_200_thousand_items_rank_within_160_mib_where_recboles_way_fails(tmp_path):
    random = np.random.default_rng(0)
    rows = [(f"u{n % 3000}", f"i{item}", n) for n, item in enumerate(random.permutation(200_000).tolist())]
    write_inter(tmp_path, "many", rows)
    command = [sys.executable, "-c", MANY_ITEMS, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = done.stdout.split("\n")[:2]
    assert ours == "3000 rows in both rankings, validation too"
    assert "allocate memory" in theirs


MANY_ITEMS = f"""
import resource, sys
import torch
import recbole_lsti
from recbole.data import data_preparation
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.trainer import Trainer
from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset
from recbole_lsti.trainer import LSTITrainer

torch.set_num_threads(1)
settings = dict(data_path=sys.argv[1], hidden_size=8, use_gpu=False, n_layers=1, inner_size=8, eval_batch_size=4096)
settings |= dict(metrics={ALL[:9]}, topk=[10], show_progress=False, MAX_ITEM_LIST_LENGTH=20)
config = LSTIConfig("LSTI", "many", config_dict=settings)
train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
model = config.model_class(config, train_data._dataset).eval()
trainer = LSTITrainer(config, model)
trainer.eval_collector.data_collect(train_data)
stock = Trainer(config, model)
stock_data = FullSortEvalDataLoader(config, test_data._dataset, None)
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 160 * 2**20, resource.RLIM_INFINITY))
rankings = trainer.evaluate_rankings(test_data, load_best_model=False)
assert trainer.evaluate(valid_data, load_best_model=False)
print(len(rankings.users.user), "rows in both rankings, validation too")
try:
    stock.evaluate(stock_data, load_best_model=False)
except (RuntimeError, MemoryError) as error:
    print(str(error).replace("\\n", " "))
"""
