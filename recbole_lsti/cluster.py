"""Dask clusters: the client of one whose scheduler is named, else of one made for the occasion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole_lsti.errors import one_of, require

EXECUTORS = ("local", "dask")
ANSWER_SECONDS = 10


def check_executor(executor: str, scheduler: str | None, jobs: int) -> None:
    """Refuse what no executor can do.

    Raises:
        ValueError: an unknown executor, a scheduler without Dask, fewer jobs than 1.
    """
    if executor not in EXECUTORS:
        raise one_of("executor", executor, EXECUTORS)
    if scheduler and executor != "dask":
        raise ValueError(f"scheduler ({scheduler}) must go with --executor dask")
    if jobs < 1:
        raise ValueError(f"jobs ({jobs}) must be 1 or more")


@contextmanager
def client_of(scheduler: str | None, jobs: int) -> Iterator[Any]:
    """Connect to a scheduler, or start a cluster of `jobs` worker processes on this machine for as long as this lasts.

    Raises:
        ConnectionError: the scheduler does not answer.
        ImportError: dask or distributed is not installed.
    """
    require("executor dask", "distributed", "cluster")
    from distributed import Client, LocalCluster

    if scheduler is None:
        with (
            LocalCluster(n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None) as here,
            Client(here, set_as_default=False) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ConnectionError(
            f"scheduler ({scheduler}) must be the address of a Dask scheduler that answers within "
            f"{ANSWER_SECONDS} s, such as tcp://host:8786: {' '.join(str(error).split())}"
        ) from None
    with client:
        yield client


def is_unwanted() -> bool:
    """Whether the task of this thread, on a worker, has been cancelled, or whoever asked for it has gone."""
    from distributed import get_worker

    worker = get_worker()
    task = worker.state.tasks.get(worker.get_current_task())
    return task is None or task.state == "cancelled"


def for_workers(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as workers need them, whose working folders are others: the data at its absolute path."""
    return {**settings, "data_path": str(Path(settings.get("data_path", "dataset")).resolve())}
