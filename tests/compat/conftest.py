"""Tiny data for any model of RecBole, and programs started beside a ray of the test's making."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import PACKAGE_ROOT

BROKEN_RAY = {
    # as ray 2.6.3 is on NumPy 2: ray itself may be imported, ray.tune may not
    "ray/__init__.py": "import ray.half",
    "ray/half.py": "",
    "ray/tune/__init__.py": "raise AttributeError(\"module 'numpy' has no attribute 'bool8'\")",
}

WORKING_RAY = {
    "ray/__init__.py": "",
    "ray/tune/__init__.py": "reported = []\ndef report(_metric=None, **metrics): reported.append(metrics)",
}

GENERAL = {"load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]}}

CONTEXT = {
    "load_col": {
        "inter": ["user_id", "item_id", "rating"],
        "user": ["user_id", "gender"],
        "item": ["item_id", "class", "year"],
    },
    "threshold": {"rating": 3},
    "train_neg_sample_args": None,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "mode": "labeled"},
    "metrics": ["AUC", "LogLoss", "MAE", "RMSE"],
    "valid_metric": "AUC",
}

SEQUENTIAL = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]},
    "selected_features": ["class"],
    "train_neg_sample_args": None,
    "MAX_ITEM_LIST_LENGTH": 10,
    "hidden_size": 8,
    "inner_size": 8,
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run_script(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script in a fresh process whose working folder is also the first place to import from."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(PACKAGE_ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )


def write_tiny_data(root: Path) -> None:
    """30 users, 40 items: interactions, features and a knowledge graph, just enough for any model to take a step."""
    rng = random.Random(0)
    users, items = range(30), range(40)
    inter = [(u, i, rng.randint(1, 5)) for u in users for i in rng.sample(items, 10)]
    tables = {
        "inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
        + [f"u{u}\ti{i}\t{rating}\t{time}" for time, (u, i, rating) in enumerate(inter)],
        "user": ["user_id:token\tgender:token"] + [f"u{u}\t{rng.choice('MF')}" for u in users],
        "item": ["item_id:token\tclass:token_seq\tyear:float"]
        + [f"i{i}\t{'' if i == 0 else 'a b'}\t{'' if i < 3 else 1980 + i}" for i in items],
        "link": ["item_id:token\tentity_id:token"] + [f"i{i}\te{i}" for i in items],
        "kg": ["head_id:token\trelation_id:token\ttail_id:token"]
        + [f"e{i}\tr{rng.randint(0, 3)}\te{rng.randint(0, 45)}" for i in items for _ in range(4)],
    }
    write(root / "tiny", {f"tiny.{suffix}": "\n".join(lines) + "\n" for suffix, lines in tables.items()})


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings for a run of a second on the tiny data; RecBole's folders land under tmp_path."""
    write_tiny_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])  # RecBole's Config reads whatever stands there
    return {
        "data_path": str(tmp_path),
        "epochs": 1,
        "show_progress": False,
        "state": "CRITICAL",
        "train_batch_size": 256,
        "embedding_size": 8,
        "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP"],
        "valid_metric": "NDCG@5",
        "topk": [5],
        "use_gpu": False,
        "shuffle": True,
    }
