"""Recommendation files: what is read, what is refused, and that a model's own list is judged as the model is."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL, random_rows, write_inter
from helpers import environment

from recbole_lsti.benchmark.lists import Judge, judge_from, judge_lists, read_lists
from recbole_lsti.config import LSTIConfig
from recbole_lsti.evaluation.collector import RankingCollector
from recbole_lsti.evaluation.ranking import rank

METRICS = {"metrics": ["NDCG", "Recall", "GAUC", "ItemCoverage"], "topk": [2, 5], "valid_metric": "NDCG@5"}
TIME = {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": None, "mode": "full"}


def judge_of(folder: Path, **settings) -> Judge:
    config = {**SMALL, **METRICS, "data_path": str(folder), **settings}
    return judge_from(LSTIConfig("LSTI", "tiny", config_dict=config))


def table(users: list[str], items: list[str]) -> str:
    seen: dict[str, int] = {}
    lines = []
    for user, item in zip(users, items, strict=True):
        seen[user] = seen.get(user, 0) + 1
        lines.append(f"{user},{item},{seen[user]}")
    return "user,item,rank\n" + "\n".join(lines) + "\n"


# ---- reading ------------------------------------------------------------------------------------------------------


def test_csv_and_parquet_say_the_same(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffuser_id;item_id;score;rank\n007;NA;0.5;1\n007;x;0.1;2\n8;x;0.3;1\n")
    (tmp_path / "a.tsv").write_text("user\titem\trank\n8\tx\t1\n007\tx\t2\n007\tNA\t1\n")
    pd.DataFrame({"user": ["007", "007", "8"], "item": ["NA", "x", "x"], "rank": [1, 2, 1]}).to_parquet(
        tmp_path / "a.parquet"
    )
    expected = [("007", "NA", 1), ("007", "x", 2), ("8", "x", 1)]
    for name in ("a.csv", "a.tsv", "a.parquet"):
        assert list(read_lists(tmp_path / name).itertuples(index=False, name=None)) == expected
    pd.DataFrame({"user": [1.0, 1.0], "item": [20, 21], "rank": [1.0, 2.0]}).to_parquet(tmp_path / "b.parquet")
    assert list(read_lists(tmp_path / "b.parquet").itertuples(index=False, name=None)) == [
        ("1", "20", 1),
        ("1", "21", 2),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,rnk\na,x,1\n", r"one column must be named rank, of user, item, rnk \(did you mean rnk\?\)"),
        ("user,user_id,item,rank\na,a,x,1\n", "one column must be named user, of user, user_id, item, rank"),
        ("user,item,rank\na,x,0\n", r"line 2: rank \(0\) must be a whole number from 1"),
        ("user,item,rank\na,x,1\na,y,1.5\n", r"line 3: rank \(1.5\) must be a whole number from 1"),
        ("user,item,rank\na,x,first\n", r"line 2: rank \(first\) must be a whole number from 1"),
        ("user,item,rank\na,x,1\n,y,2\n", r"line 3: user \(\) must be given"),
        ("user,item,rank\na,x,2\na,y,3\n", "ranks of user a must be 1, 2, 3, ..., each once: 2 stands where 1 must"),
        ("user,item,rank\na,x,1\na,y,1\n", "ranks of user a must be 1, 2, 3, ..., each once: 1 stands where 2 must"),
        ("user,item,rank\na,x,1\na,y,3\n", "ranks of user a must be 1, 2, 3, ..., each once: 3 stands where 2 must"),
        ("user,item,rank\na,x,1\na,x,2\n", r"item \(x\) must be once in the list of user a"),
    ],
)
def test_a_broken_table_is_one_clear_line(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_lists(tmp_path / "a.csv")


# ---- judging ------------------------------------------------------------------------------------------------------


def judged_by_scores(judge, scores):
    """What `rank` makes of a table of scores, a row a user."""

    def batches():
        for interaction, _, row, item in judge.test_data:
            yield interaction, scores[interaction["user_id"]].clone(), row, item

    collector = RankingCollector(judge.config)
    collector.data_collect(judge.train_data)
    return rank(judge.config, collector, batches(), judge.test_data._dataset.seen).users


@pytest.mark.parametrize("eval_args", [{}, {"eval_args": TIME}], ids=["loo", "time"])
def test_a_full_list_is_judged_as_the_scores_behind_it(tmp_path, eval_args):
    write_inter(tmp_path, "tiny", random_rows(n_users=30, seed=5))
    judge = judge_of(tmp_path, **eval_args)
    dataset = judge.test_data._dataset
    torch.manual_seed(1)
    scores = torch.rand(dataset.user_num, dataset.item_num)  # one list a user, whatever the row
    scores[:, 0] = -torch.inf
    expected = judged_by_scores(judge, scores)

    users, items = [], []
    for user in range(1, dataset.user_num):
        order = scores[user].argsort(descending=True)[: dataset.item_num - 1]
        users += [dataset.id2token("user_id", user)] * len(order)
        items += list(dataset.id2token("item_id", order.numpy()))
    (tmp_path / "lists.csv").write_text(table(users, items))
    found, notes = judge_lists(tmp_path / "lists.csv", judge)
    assert sorted(found.metrics) == ["ndcg@2", "ndcg@5", "recall@2", "recall@5"]
    order = [expected.metrics.index(metric) for metric in found.metrics]
    np.testing.assert_array_equal(found.user, expected.user)
    np.testing.assert_array_equal(found.target, expected.target)
    np.testing.assert_allclose(found.raw, expected.raw[:, order])
    np.testing.assert_allclose(found.unseen, expected.unseen[:, order])
    assert 0 < found.raw.mean() != found.unseen.mean()
    assert notes == [f"{tmp_path / 'lists.csv'}: left out, they need scores or lists full of known items: GAUC"]


@pytest.mark.parametrize("eval_args", [{}, {"eval_args": TIME}], ids=["loo", "time"])
@pytest.mark.parametrize("seed", range(3))
def test_any_lists_are_judged_as_a_table_of_scores_that_says_the_same(tmp_path, eval_args, seed):
    """Lists of any length, with items of the history and unknown ones: what is not listed has a score of -inf."""
    write_inter(tmp_path, "tiny", random_rows(n_users=30, seed=seed))
    metrics = ["NDCG", "Recall", "MRR", "MAP", "RepeatRecall"]
    judge = judge_of(tmp_path, metrics=metrics, topk=[2, 12], valid_metric="NDCG@2", **eval_args)
    dataset = judge.test_data._dataset
    random = np.random.default_rng(seed)
    scores = torch.full((dataset.user_num, dataset.item_num + 10), -torch.inf)
    users, items = [], []
    for user in range(1, dataset.user_num):
        ids = random.permutation(np.arange(1, dataset.item_num + 10))[: random.integers(1, 25)]
        scores[user, ids] = -torch.arange(len(ids)).float()
        users += [dataset.id2token("user_id", user)] * len(ids)
        items += [dataset.id2token("item_id", k) if k < dataset.item_num else f"odd{k}" for k in ids.tolist()]
    expected = judged_by_scores(judge, scores)
    (tmp_path / "lists.csv").write_text(table(users, items))
    found, _ = judge_lists(tmp_path / "lists.csv", judge)
    assert found.metrics == expected.metrics
    assert {"ndcg@12", "repeatrecall@2"} <= set(found.metrics)
    for name in ("user", "target", "raw", "unseen"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert 0 < np.nanmean(found.raw) != np.nanmean(found.unseen)


def test_metrics_of_whole_lists_are_those_of_the_scores_behind_them(tmp_path):
    write_inter(tmp_path, "tiny", random_rows(n_users=30, seed=5))
    judge = judge_of(tmp_path, metrics=["NDCG", "Novelty"])
    dataset = judge.test_data._dataset
    order = torch.stack([torch.randperm(dataset.item_num - 1) + 1 for _ in range(dataset.user_num)])
    scores = torch.full((dataset.user_num, dataset.item_num), -torch.inf).scatter_(
        1, order, -torch.arange(order.shape[1]).float().expand_as(order)
    )
    batches = ((x, scores[x["user_id"]].clone(), row, item) for x, _, row, item in judge.test_data)
    collector = RankingCollector(judge.config)
    collector.data_collect(judge.train_data)
    expected = rank(judge.config, collector, batches, dataset.seen).users
    users = [dataset.id2token("user_id", user) for user in range(1, dataset.user_num) for _ in order[user]]
    items = dataset.id2token("item_id", order[1:].flatten().numpy()).tolist()
    (tmp_path / "lists.csv").write_text(table(users, items))
    found, notes = judge_lists(tmp_path / "lists.csv", judge)
    assert notes == []
    assert found.metrics == expected.metrics == ["ndcg@2", "ndcg@5", "novelty@2", "novelty@5"]
    np.testing.assert_array_equal(found.raw, expected.raw)
    np.testing.assert_array_equal(found.unseen, expected.unseen)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the process's memory as Linux does")
def test_a_million_items_are_judged_in_the_memory_of_the_lists(tmp_path):
    random = np.random.default_rng(0)
    items = random.permutation(1_000_000)
    write_inter(tmp_path, "many", [(f"u{n % 5000}", f"i{item}", n) for n, item in enumerate(items.tolist())])
    listed = random.integers(1_000_000 - 20, size=5000)[:, None] + np.arange(20)
    listed[:, 3] = items[-5000:]  # what each user has last
    with open(tmp_path / "lists.csv", "w", encoding="utf-8") as file:
        file.write("user,item,rank\n")
        file.writelines(
            f"u{user},i{item},{k + 1}\n" for user, row in enumerate(listed.tolist()) for k, item in enumerate(row)
        )
    done = subprocess.run(
        [sys.executable, "-c", MANY_ITEMS, str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"5000 rows, recall@5 1.0, ndcg@5 {1 / math.log2(5):.6f}"


MANY_ITEMS = """
import resource, sys
from pathlib import Path
import torch
from recbole_lsti.benchmark.lists import judge_from, judge_lists
from recbole_lsti.config import LSTIConfig

torch.set_num_threads(1)
settings = dict(data_path=sys.argv[1], use_gpu=False, metrics=["NDCG", "Recall"], topk=[5], valid_metric="NDCG@5")
judge = judge_from(LSTIConfig("LSTI", "many", config_dict=settings))
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20, resource.RLIM_INFINITY))
found, notes = judge_lists(Path(sys.argv[1]) / "lists.csv", judge)
value = dict(zip(found.metrics, found.raw.mean(axis=0).tolist()))
print(len(found.user), "rows, recall@5", str(value["recall@5"]) + ",", f"ndcg@5 {value['ndcg@5']:.6f}")
"""


def test_short_strange_and_missing_lists(tmp_path):
    """Users a and b have the history x y; their test item is z."""
    events = [("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("b", "x", 1), ("b", "y", 2), ("b", "z", 4)]
    events += [("c", "x", 1), ("c", "v", 2), ("c", "w", 5), ("d", "x", 1), ("d", "w", 2), ("d", "x", 6)]
    write_inter(tmp_path, "tiny", sorted(events, key=lambda event: event[2]))
    judge = judge_of(tmp_path)
    path = tmp_path / "theirs.csv"
    path.write_text(table(["a", "a", "b", "b", "d", "d", "ghost"], ["x", "z", "odd", "z", "x", "w", "x"]))
    found, notes = judge_lists(path, judge)
    users = judge.test_data._dataset.id2token("user_id", found.user).tolist()
    value = {
        user: {name: dict(zip(found.metrics, getattr(found, name)[row], strict=True)) for name in ("raw", "unseen")}
        for row, user in enumerate(users)
    }
    second = 1 / math.log2(3)
    assert value["a"]["raw"]["ndcg@5"] == pytest.approx(second)
    assert value["a"]["unseen"]["ndcg@5"] == 1  # x is dropped and z moves up
    assert value["b"]["raw"]["ndcg@5"] == value["b"]["unseen"]["ndcg@5"] == pytest.approx(second)  # odd keeps its place
    assert value["c"]["raw"]["ndcg@5"] == value["c"]["unseen"]["ndcg@5"] == 0
    assert (value["d"]["raw"]["ndcg@5"], value["d"]["unseen"]["ndcg@5"]) == (1, 0)  # a repeat
    assert [note.removeprefix(f"{path}: ") for note in notes] == [
        "1 unknown user: ghost",
        "1 unknown item: odd",
        "1 of 4 tested users have no list and count as 0: c",
        "3 of 4 test rows have fewer than 5 items left for `raw`",
        "3 of 4 test rows have fewer than 5 items left for `unseen`",
        "left out, they need scores or lists full of known items: GAUC, ItemCoverage",
    ]


def test_lists_for_other_data_are_refused(tmp_path):
    write_inter(tmp_path, "tiny", random_rows())
    judge = judge_of(tmp_path)
    (tmp_path / "a.csv").write_text(table(["1", "2"], ["i1", "i1"]))
    (tmp_path / "b.csv").write_text(table(["u1", "u2"], ["1", "1"]))
    for name in "ab":
        with pytest.raises(ValueError, match=r"users and items must be those of tiny; not one of its \d+ tested users"):
            judge_lists(tmp_path / f"{name}.csv", judge)
    (tmp_path / "c.csv").write_text(table(["u1"], ["i1"]))
    with pytest.raises(ValueError, match=r"metrics \(GAUC\) must hold one that a list can be judged by"):
        judge_lists(tmp_path / "c.csv", judge_of(tmp_path, metrics=["GAUC"], valid_metric="GAUC"))
    sampled = judge_of(tmp_path, eval_args={"mode": {"valid": "uni5", "test": "uni5"}})
    with pytest.raises(ValueError, match=r"eval_args mode \(uni5\) must be full for the test"):
        judge_lists(tmp_path / "c.csv", sampled)
