"""Small atomic data sets and the settings that shrink a run to seconds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dask_cluster import Cluster
from hypothesis import settings

import recbole_lsti  # noqa: F401 - mends RecBole before any test imports it

SMALL = {
    "hidden_size": 8,
    "inner_size": 16,
    "n_layers": 1,
    "short_window": 4,
    "epochs": 2,
    "train_batch_tokens": 256,
    "show_progress": False,
    "use_gpu": False,
}


# the same examples in every run; `--hypothesis-profile=default` looks for new ones
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


def pytest_configure() -> None:
    """Share the cores among pytest's workers and what their tests start: threads without a core keep others waiting."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        import torch

        threads = max(1, (os.cpu_count() or 1) // workers)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    """Take from the root logger what RecBole's own runs leave there: their streams end with the test."""
    logger = logging.getLogger()
    before = list(logger.handlers)
    yield
    for handler in set(logger.handlers) - set(before):
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture(autouse=True)
def _no_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mistakes be told in a line, whatever the shell that started pytest asks for."""
    monkeypatch.delenv("LSTI_TRACEBACK", raising=False)


@pytest.fixture
def small() -> dict:
    """Settings of a network and a training that take a second."""
    return dict(SMALL)


def write_inter(
    folder: Path, name: str, rows: list[tuple], header: str = "user_id:token\titem_id:token\ttimestamp:float"
) -> Path:
    """Write <folder>/<name>/<name>.inter with the rows in the order given."""
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    (target / f"{name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def random_rows(
    n_users: int = 20, n_items: int = 30, seed: int = 0, shortest: int = 1, longest: int = 25
) -> list[tuple]:
    """Rows (user, item, time) in time order, times small enough for float32, with ties."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        for _ in range(random.integers(shortest, longest + 1)):
            rows.append((f"u{user}", f"i{random.integers(n_items)}", int(random.integers(0, 500))))
    return sorted(rows, key=lambda row: row[2])


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A data folder with one data set, `tiny`: 20 users, up to 30 items, up to 25 events a user."""
    write_inter(tmp_path, "tiny", random_rows())
    return tmp_path


@pytest.fixture(scope="module")
def one_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))  # another working folder than the asker's
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(one_cluster: Cluster) -> Cluster:
    """A whole Dask cluster, the one of the tests before it in its file."""
    one_cluster.mend()
    return one_cluster


@pytest.fixture
def workplace(tiny, tmp_path, monkeypatch) -> Path:
    """An empty working directory; the data lies elsewhere."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    return place
