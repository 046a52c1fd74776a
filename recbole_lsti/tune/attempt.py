"""Training the settings of a trial: in this process, in one of its own, or on a Dask worker.

Nothing here knows the study: what asks for a trial hears of each validation and of the outcome. So a worker needs this
package and the data, and neither Optuna nor the study's storage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from recbole_lsti.process import end_with_stdin, run_module

JOB, SCORES, RESULT = "job.json", "scores.jsonl", "result.json"

Validated = Callable[[int, float, float], bool]  # epoch, score, seconds so far -> whether the trial must end there


class Job(NamedTuple):
    """What is to be trained: names, files of settings, and settings that win over them."""

    model: str
    dataset: str
    files: list[str]
    settings: dict[str, Any]


class Outcome(NamedTuple):
    """What came of a trial.

    Attributes:
        best: the best validation score; None where there is none, or where the trial was ended at a validation.
        seconds: how long it took.
        reason, traceback: why it failed; None where it did not.
    """

    best: float | None
    seconds: float
    reason: str | None = None
    traceback: str | None = None


class TrialKilledError(RuntimeError):
    """A trial's process was ended by a signal; Dask tries again."""


class _EndedError(Exception):
    """The trial must end at this validation."""


def attempt(job: Job, validated: Validated) -> Outcome:
    """Train in this process, the test items unread.

    Args:
        job: what to train.
        validated: told of each validation.
    """
    from recbole_lsti.runner import run

    started = time.perf_counter()

    def after_validation(epoch: int, score: float) -> None:
        if validated(epoch, float(score), time.perf_counter() - started):
            raise _EndedError

    best, reason, text = None, None, None
    try:
        result = run(*job, saved=False, tested=False, callback_fn=after_validation)
        best = result["best_valid_score"]
    except _EndedError:
        pass
    except Exception as error:  # whatever settings bring about must not end the search; the reason is kept
        reason, text = " ".join(f"{type(error).__name__}: {error}".split()), traceback.format_exc()
    return Outcome(best, time.perf_counter() - started, reason, text)


def attempt_apart(
    job: Job,
    validated: Validated,
    memory_gib: float | None = None,
    threads: int | None = None,
    unwanted: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train in a process of its own, which can be ended without harm to this one.

    Args:
        job: what to train.
        validated: told of each validation soon after it; the trial may have gone on by then.
        memory_gib: end the trial when it holds more; it has failed then.
        threads: of OpenMP and MKL; None: as the environment says.
        unwanted: asked now and then; True ends the trial.
    Raises:
        TrialKilledError: a signal ended the process.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / JOB).write_text(json.dumps(job._asdict()), encoding="utf-8")
        (folder / SCORES).touch()
        with open(folder / SCORES, encoding="utf-8") as scores:

            def must_end() -> bool:
                ends = [validated(*json.loads(line)) for line in _whole_lines(scores)]
                return any(ends) or unwanted()

            ended = run_module(__name__, folder, memory_gib=memory_gib, threads=threads, stopped=must_end)
            must_end()  # what was written after the last look
        if ended.killed:
            raise TrialKilledError(ended.reason)
        if ended.reason is None:
            return Outcome(*json.loads((folder / RESULT).read_text(encoding="utf-8")))
        output = (folder / "output.log").read_text(encoding="utf-8", errors="replace")
        return Outcome(None, time.perf_counter() - started, ended.reason, f"{output}{ended.reason}\n")


def _whole_lines(file: Any) -> list[str]:
    """The lines that have come since the last call; one that is not yet written to its end stays for the next."""
    lines: list[str] = []
    while True:
        before = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(before)
            return lines
        lines.append(line)


def attempt_on_worker(
    topic: str, number: int, job: dict[str, Any], memory_gib: float | None, threads: int | None
) -> tuple[str, tuple[Any, ...]]:
    """Train as a Dask task; each validation is an event of the topic: trial, worker, epoch, score, seconds.

    Returns:
        tuple: the worker, and the Outcome as plain data.
    Raises:
        TrialKilledError: a signal ended the process.
    """
    from distributed import get_worker

    from recbole_lsti.cluster import is_unwanted

    worker = get_worker()

    def validated(*measured: Any) -> bool:
        worker.log_event(topic, [number, worker.address, *measured])
        return False  # who asked decides, and cancels the task

    outcome = attempt_apart(Job(**job), validated, memory_gib, threads, is_unwanted)
    return worker.address, tuple(outcome)


def main(argv: list[str] | None = None) -> int:
    """Train the job of a folder, and leave scores.jsonl and result.json there."""
    parser = argparse.ArgumentParser(prog="python -m recbole_lsti.tune.attempt", description=main.__doc__)
    parser.add_argument("folder", type=Path, help=f"folder with {JOB}")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the process that started it ends")
    known = parser.parse_args(argv)
    if known.until_stdin_closes:
        end_with_stdin()
    from recbole_lsti.memory import keep_freed_memory

    keep_freed_memory()
    job = Job(**json.loads((known.folder / JOB).read_text(encoding="utf-8")))
    with open(known.folder / SCORES, "a", encoding="utf-8") as scores:

        def validated(*measured: Any) -> bool:
            scores.write(json.dumps(measured) + "\n")
            scores.flush()
            return False

        outcome = attempt(job, validated)
    draft = known.folder / f".{RESULT}"
    draft.write_text(json.dumps(outcome), encoding="utf-8")
    os.replace(draft, known.folder / RESULT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
