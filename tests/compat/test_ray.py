"""RecBole with a broken ray, a working one, a newer one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat.conftest import BROKEN_RAY, WORKING_RAY, write
from recbole_lsti import compat

NEW_RAY = {
    "ray/__init__.py": "",
    "ray/tune/__init__.py": "reported = []\ndef report(metrics, *, checkpoint=None): reported.append(metrics)",
}


@pytest.fixture
def no_ray_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    loaded = compat._loaded_ray()
    compat._replace_ray({})
    yield
    compat._replace_ray(loaded)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("no_ray_loaded")
def test_a_broken_ray_is_stood_in_for_and_stays_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write(tmp_path, BROKEN_RAY))
    with compat._ray_stand_in():
        from ray import tune

        assert tune.report(**{"ndcg@10": 0.1}) is None
        assert importlib.util.find_spec("ray") is not None
    assert compat._loaded_ray() == {}
    assert compat.ray_problem() == "AttributeError: module 'numpy' has no attribute 'bool8'"
    with pytest.raises(AttributeError, match="bool8"):
        importlib.import_module("ray.tune")


@pytest.mark.usefixtures("no_ray_loaded")
def test_a_ray_in_use_survives_a_broken_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write(tmp_path, BROKEN_RAY))
    ray = importlib.import_module("ray")
    with compat._ray_stand_in():
        assert sys.modules["ray"] is not ray
    assert sys.modules["ray"] is ray
    assert "ray.tune" not in sys.modules


@pytest.mark.usefixtures("no_ray_loaded")
def test_the_stand_in_goes_even_when_the_import_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write(tmp_path, BROKEN_RAY))
    with pytest.raises(RuntimeError, match="in between"), compat._ray_stand_in():
        raise RuntimeError("in between")
    assert compat._loaded_ray() == {}


@pytest.mark.usefixtures("no_ray_loaded")
def test_a_working_ray_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write(tmp_path, WORKING_RAY))
    with compat._ray_stand_in():
        from ray import tune
    assert sys.modules["ray.tune"] is tune
    quick_start: Any = types.SimpleNamespace(tune=tune)
    compat._tune_report(quick_start)
    assert quick_start.tune is tune


@pytest.mark.usefixtures("no_ray_loaded")
def test_a_newer_ray_gets_its_metrics_as_a_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write(tmp_path, NEW_RAY))
    tune = importlib.import_module("ray.tune")
    quick_start: Any = types.SimpleNamespace(tune=tune)
    compat._tune_report(quick_start)
    quick_start.tune.report(**{"ndcg@10": 0.1})
    assert tune.reported == [{"ndcg@10": 0.1}]
