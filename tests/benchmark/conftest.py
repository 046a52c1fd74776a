"""A small data set and the settings that make a cell take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import random_rows, write_inter

import recbole_lsti

SETTINGS: dict[str, Any] = {
    "hidden_size": 8,
    "inner_size": 16,
    "n_layers": 1,
    "train_batch_tokens": 512,
    "MAX_ITEM_LIST_LENGTH": 20,
    "use_gpu": False,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the data set `tiny` in dataset/: 25 users, 30 items, in time order."""
    write_inter(tmp_path / "dataset", "tiny", random_rows(n_users=25, shortest=5, longest=15))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(recbole_lsti.__file__).parents[1]))  # for programs started from there
    return tmp_path


@pytest.fixture
def plan_of(place: Path) -> Any:
    """Makes a plan of small models on `tiny`; no controls and one epoch unless told otherwise."""
    from recbole_lsti.benchmark.plan import Plan, from_dict

    def make(models: list[Any], **content: Any) -> Plan:
        settings = {**SETTINGS, **content.pop("settings", {})}
        wanted = {"datasets": ["tiny"], "controls": False, "budget": {"epochs": 1}, **content}
        return from_dict({"models": models, "settings": settings, **wanted})

    return make
