"""Trials as Dask tasks.

The study stays with the process that asks: it draws the trials, hears of each validation as an event, and cancels the
task of a trial that must end. So the storage is opened in one place, workers see neither it nor its password, and the
scheduler needs no Optuna. A trial whose worker is lost goes to another one: the same trial, with the same settings.
"""

from __future__ import annotations

import queue
import secrets
import time
from typing import Any

from optuna.study import Study

from recbole_lsti.cluster import for_workers
from recbole_lsti.config import external_settings
from recbole_lsti.process import LOOK_EVERY, threads_of
from recbole_lsti.tune.attempt import Outcome, TrialKilledError, attempt_on_worker
from recbole_lsti.tune.output import Lines
from recbole_lsti.tune.trial import Search, UnderWay, begin

RETRIES = 2  # further tries of a trial whose process was killed


class _Trials:
    """The trials of a search that are on a cluster."""

    def __init__(self, client: Any, memory_gib: float | None, threads: int | None) -> None:
        self._client, self._limits = client, (memory_gib, threads)
        self._token = secrets.token_hex(4)  # keys and events of other searches on the same scheduler are others
        self._topic = f"recbole-lsti-trials-{self._token}"
        self._events: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        self.there: dict[Any, UnderWay] = {}  # by future
        client.subscribe_topic(self._topic, lambda event: self._events.put(event[1]))

    def submit(self, under_way: UnderWay) -> None:
        job = under_way.job
        settings = for_workers(external_settings(job.files, job.settings))  # workers have no files of the asker's
        future = self._client.submit(
            attempt_on_worker,
            self._topic,
            under_way.number,
            job._replace(files=[], settings=settings)._asdict(),
            *self._limits,
            key=f"trial-{under_way.number}-{self._token}",
            retries=RETRIES,
            pure=False,
        )
        self.there[future] = under_way

    def room(self, jobs: int | None) -> bool:
        """Whether another trial may begin: `jobs` at a time, else one for each thread of the workers."""
        if jobs is None:
            try:
                jobs = max(1, sum(self._client.nthreads().values()))
            except OSError as error:
                raise self._gone() from error
        return len(self.there) < jobs

    def look(self) -> None:
        """Take down what has come, validations first."""
        done = [future for future in self.there if future.done()]  # asked first: the events come before the end
        for _ in range(self._events.qsize()):  # those that come meanwhile can wait
            self._validated(*self._events.get())
        for future in done:
            if future in self.there:
                self._ended(future)

    def _validated(self, number: int, worker: str, *measured: Any) -> None:
        for future, under_way in self.there.items():
            if under_way.number == number:
                under_way.worker = worker
                if under_way.validated(*measured):
                    future.cancel()
                    self._end(future, None)
                return

    def _ended(self, future: Any) -> None:
        if future.status == "finished":
            self.there[future].worker, outcome = future.result()
            self._end(future, Outcome(*outcome))
        elif future.status == "error":
            self._end(future, self._failure(future))
        else:
            raise self._gone()

    def _gone(self) -> ConnectionError:
        return ConnectionError(
            f"the scheduler must stay until the end: it went with {len(self.there)} trials; --resume puts others in "
            "their place"
        )

    def _end(self, future: Any, outcome: Outcome | None) -> None:
        self.there.pop(future).end(outcome)

    def _failure(self, future: Any) -> Outcome:
        """What is said of a trial that no worker could end."""
        from distributed import KilledWorker

        error = future.exception()
        if isinstance(error, (TrialKilledError, KilledWorker)):
            return Outcome(None, self.there[future].seconds, " ".join(str(error).split()), f"{error}\n")
        # not the trial's fault: nothing is counted, and the search can go on when the workers are mended
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConnectionError(f"workers must run trials of this package: {text}") from None

    def close(self) -> None:
        self._client.unsubscribe_topic(self._topic)


def run_trials(
    search: Search,
    study: Study,
    lines: Lines,
    client: Any,
    jobs: int | None,
    memory_gib: float | None,
) -> None:
    """Run trials on a cluster until the budget is spent.

    Args:
        search, study, lines: whose trials they are, and where they are told.
        client: Dask's.
        jobs: trials at a time; None: one for each thread of the workers.
        memory_gib: a trial that holds more is ended, and has failed.
    Raises:
        ConnectionError: the scheduler goes away, or the workers cannot run this package. What has ended is kept.
    """
    local = client.cluster is not None  # its workers share this machine
    trials = _Trials(client, memory_gib, threads_of(jobs or 1) if local else None)
    try:
        budget = True
        while budget or trials.there:
            trials.look()
            while budget and trials.room(jobs):
                under_way = begin(search, study, lines)
                budget = under_way is not None
                if under_way is not None:
                    trials.submit(under_way)
            time.sleep(LOOK_EVERY)
    except BaseException:
        for under_way in trials.there.values():
            under_way.give_up("interrupted")
        search.write(study)
        raise
    trials.close()
