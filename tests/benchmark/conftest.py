"""A small data set and the settings that make a cell take a second."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import random_rows, write_inter
from helpers import PACKAGE_ROOT

from recbole_lsti.process import Ended

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
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE_ROOT))  # for programs started from there
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


def write_plan(models: list[Any], **content: Any) -> None:
    """Write plan.yaml: small models on `tiny`; no controls and one epoch unless told otherwise."""
    plan = {"models": models, "datasets": ["tiny"], "controls": False, "budget": {"epochs": 1}, "settings": SETTINGS}
    Path("plan.yaml").write_text(yaml.safe_dump({**plan, **content}), encoding="utf-8")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Cells and searches run in the test's own process, one at a time: the same code and files, without a start each.

    What a process adds, that it may be killed, limited and lost, is shown by the tests without this.
    """

    threads = torch.get_num_threads()

    def run(module: str, folder: Path, flags: tuple[str, ...] = (), *_: Any) -> Ended:
        torch.set_num_threads(1)  # as OMP_NUM_THREADS tells a process started from `place`
        importlib.import_module(module).main([str(folder), *flags])
        return Ended(None)

    monkeypatch.setattr("recbole_lsti.benchmark.process.run_module", run)
    yield
    torch.set_num_threads(threads)


class FakeMeter:
    """codecarbon's tracker as far as it is used: it has counted 2 Wh for the processor, 1 for the GPU, and guesses."""

    made: list[dict[str, Any]] = []  # noqa: RUF012 - the arguments of every meter
    running = 0
    starts = True  # a failed start the real one keeps to itself

    def __init__(self, **arguments: Any) -> None:
        self.made.append(arguments)

    def start(self) -> None:
        FakeMeter.running += 1

    def stop(self) -> None:
        FakeMeter.running -= 1
        if self.starts:
            self.final_emissions_data = types.SimpleNamespace(cpu_energy=0.002, gpu_energy=0.001, energy_consumed=0.5)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> type[FakeMeter]:
    """Puts the meter in codecarbon's place, on a machine with a counter that can be read."""
    for name in ("codecarbon", "codecarbon.core", "codecarbon.core.cpu"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules["codecarbon"], "OfflineEmissionsTracker", FakeMeter, raising=False)
    monkeypatch.setattr(sys.modules["codecarbon.core.cpu"], "is_rapl_available", lambda: True, raising=False)
    monkeypatch.setattr("recbole_lsti.benchmark.energy.machine_tells", lambda: True)
    monkeypatch.setattr(FakeMeter, "made", [])
    return FakeMeter
