"""A model through the benchmark is the model as RecBole itself runs it: the same metrics, digit for digit."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import random_rows, write_inter

from recbole_lsti.benchmark.execute import run_plan
from recbole_lsti.benchmark.options import Options
from recbole_lsti.benchmark.plan import from_dict

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
METRICS = ["Recall", "MRR", "NDCG", "Hit", "Precision"]


def both_ways(model: str, dataset: str, epochs: int, seed: int, monkeypatch: Any, **settings: Any) -> tuple[dict, dict]:
    from recbole.quick_start import run_recbole

    plan = from_dict(
        {
            **{"models": [model], "datasets": [dataset], "seeds": [seed], "controls": False},
            **{"budget": {"epochs": epochs}, "settings": {"use_gpu": False, **settings}},
        }
    )
    (line,) = run_plan(plan, Path("out"), Options())
    assert line["status"] == "ok", line["reason"]
    monkeypatch.setattr(sys, "argv", ["prog"])
    own = {
        **{"epochs": epochs, "seed": seed, "metrics": METRICS, "topk": [10], "valid_metric": "NDCG@10"},
        **{"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "train_neg_sample_args": None},
        **{"show_progress": False, "use_gpu": False, "repeatable": True, "normalize_all": False, **settings},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    }
    return line, run_recbole(model, dataset, config_dict=own)


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec"])
def test_metrics_equal_recboles_own_run(place, monkeypatch, model):
    write_inter(place / "dataset", "tiny", random_rows(n_users=40, shortest=4))
    line, theirs = both_ways(model, "tiny", 2, 7, monkeypatch, train_batch_size=64)
    assert line["raw"] == {name: float(value) for name, value in theirs["test_result"].items()}
    assert line["valid"] == {name: float(value) for name, value in theirs["best_valid_result"].items()}


# ---- benchmarks/parity.py -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is part of a checkout alone")
@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec"])
def test_metrics_equal_recboles_own_run_on_ml_100k_in_time_order(place, model):
    output = place / "parity.json"
    flags = ["--models", model, "--users", "150", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "parity.py"), *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text(encoding="utf-8"))["models"][model]
    assert found["differences"] == []
    for part in ("valid", "test"):
        assert found["recbole"][part] == pytest.approx(found["benchmark"][part], abs=1e-10)
        assert found["recbole"][part]["gauc"] > 0.5, "something was learned"
        assert found["recbole"][part]["ndcg@100"] > 0
        assert len(found["recbole"][part]) == 6 * 3 + 1
    assert f"test ndcg@100       {found['recbole']['test']['ndcg@100']:>16.12f}" in done.stdout


@pytest.fixture
def parity(monkeypatch):
    if not BENCHMARKS.is_dir():
        pytest.skip("benchmarks/ is part of a checkout alone")
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("parity")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"ndcg@10": 0.1 + 1e-9}, ["test ndcg@10: 0.1 and 0.100000001"]),
        ({"ndcg@10": float("nan")}, ["test ndcg@10: 0.1 and nan"]),
        ({"ndcg@10": None}, ["test ndcg@10: 0.1 and None"]),
        ({"hit@10": 0.2}, ["test hit@10: None and 0.2"]),
    ],
)
def test_any_difference_is_told_and_exits_1(parity, monkeypatch, capsys, tmp_path, change, told):
    side = {"valid": {"ndcg@10": 0.3}, "test": {"ndcg@10": 0.1}, "seconds": 1.0}
    theirs = subprocess.CompletedProcess([], 0, stdout=json.dumps(side))
    monkeypatch.setattr(parity, "environment", lambda: {"versions": {}})
    monkeypatch.setattr(parity.subprocess, "run", lambda *args, **kwargs: theirs)
    monkeypatch.setattr(parity, "run_ours", lambda **task: {**side, "test": {**side["test"], **change}})
    output = tmp_path / "parity.json"
    assert parity.main(["--models", "SASRec", "--users", "1", "--output", str(output)]) == bool(told)
    record = json.loads(output.read_text(encoding="utf-8"))
    assert record["models"]["SASRec"]["differences"] == told
    assert [line for line in capsys.readouterr().out.splitlines() if "differs: " in line] == [
        f"differs: {text}" for text in told
    ]


def test_the_copy_is_in_exact_order_of_time_with_the_files_order_among_ties(parity, tmp_path):
    parity.write_ordered(tmp_path, 20)
    copy = pd.read_csv(tmp_path / "ml-100k-ordered/ml-100k-ordered.inter", sep="\t")
    source = pd.read_csv(
        Path(parity.recbole.__file__).parent / "dataset_example/ml-100k/ml-100k.inter", sep="\t"
    ).query("`user_id:token` <= 20")
    assert copy["timestamp:float"].is_monotonic_increasing
    order = np.lexsort((np.arange(len(source)), source["timestamp:float"]))
    np.testing.assert_array_equal(copy.to_numpy(), source.to_numpy()[order])
