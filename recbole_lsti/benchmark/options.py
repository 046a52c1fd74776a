"""What a user says about how a plan is run."""

from __future__ import annotations

from typing import NamedTuple

from recbole_lsti.process import threads_of


class Options(NamedTuple):
    """How a plan is run; nothing here changes its results.

    Attributes:
        jobs: cells at a time on this machine; with a scheduler, its workers decide.
        executor: local or dask.
        scheduler: address of a Dask scheduler; None: a local cluster.
        retries: further tries of a cell whose process was killed.
    """

    jobs: int = 1
    executor: str = "local"
    scheduler: str | None = None
    retries: int = 0

    @property
    def threads(self) -> int | None:
        """Threads of each cell, where several share this machine; None: as the environment says."""
        return threads_of(self.jobs) if self.scheduler is None else None
