"""A model through the benchmark is the model as RecBole itself runs it: the same metrics, digit for digit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import recbole
from conftest import random_rows, write_inter

from recbole_lsti.benchmark.execute import Options, run_plan
from recbole_lsti.benchmark.plan import from_dict

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


@pytest.mark.slow
@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec"])
def test_metrics_equal_recboles_own_run_on_ml_100k_in_time_order(place, monkeypatch, model):
    source = Path(recbole.__file__).parent / "dataset_example/ml-100k/ml-100k.inter"
    table = pd.read_csv(source, sep="\t").sort_values("timestamp:float", kind="stable")
    folder = place / "dataset/ml-ordered"
    folder.mkdir()
    # few users, so that an epoch is not minutes; the first ones, whole; times that float32 holds
    table = table[table["user_id:token"] <= 150]
    table["timestamp:float"] = range(len(table))
    table.to_csv(folder / "ml-ordered.inter", sep="\t", index=False)
    line, theirs = both_ways(model, "ml-ordered", 1, 2020, monkeypatch)
    assert line["raw"] == {name: float(value) for name, value in theirs["test_result"].items()}
    assert line["valid"] == {name: float(value) for name, value in theirs["best_valid_result"].items()}
