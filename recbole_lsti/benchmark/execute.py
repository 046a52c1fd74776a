"""Running a plan: what is left of it, on this machine, line by line into the results folder."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_lsti.benchmark import results
from recbole_lsti.benchmark.environment import HERE, WORKERS, environment
from recbole_lsti.benchmark.options import Options
from recbole_lsti.benchmark.plan import Cell, Plan
from recbole_lsti.benchmark.process import run_process
from recbole_lsti.benchmark.view import View
from recbole_lsti.cluster import client_of


def run_plan(plan: Plan, folder: Path, options: Options, resume: bool = False) -> list[dict[str, Any]]:
    """Run the cells of a plan that are not done, and append a line for each as it ends.

    Args:
        plan: the plan.
        folder: the results folder.
        options: how.
        resume (bool): go on with the folder's results; cells that failed or were skipped are tried again.
    Returns:
        list[dict]: the lines of all cells, in the plan's order.
    Raises:
        ValueError, FileExistsError: another plan, other data or settings; results and no `resume`.
        NotADirectoryError, BlockingIOError: a file in the folder's place, or another run at work in it.
        ConnectionError: a scheduler that does not answer; what has ended by then is kept.
    """
    cells = plan.cells()
    if options.scheduler is not None:
        with client_of(options.scheduler, options.jobs):  # one that does not answer leaves no folder behind
            pass
    with results.held(folder):
        before, notes = results.open_folder(folder, plan, cells, resume)
        for note in notes:
            print(f"recbole-lsti: {folder} goes on although {note}", file=sys.stderr)
        done = {name: line for name, line in before.items() if line["status"] == "ok"}
        for cell in cells:
            if cell.reason is not None:
                done[cell.id] = results.failed(cell.head(), cell.reason, "skipped")
                if before.get(cell.id) != done[cell.id]:
                    results.append(folder, done[cell.id])
        todo = [cell for cell in cells if cell.id not in done]
        if todo or notes or not before:  # else the results are of the machine that is written down
            write_environment(folder, options, notes)
        if todo and plan.controls:
            rows = f"{len(plan.models)} models of the plan, {len(plan.controls)} controls (--no-controls: none)"
            print(f"recbole-lsti: {rows}: {len(todo)} cells to do", file=sys.stderr)
        found = _searched(plan, todo, folder, options)
        for cell in todo:
            if (line := found.get(cell.kind, {})).get("status") == "failed":
                results.append(folder, results.failed(cell.head(), f"no settings were found for it: {line['reason']}"))
        todo = [_with_found(cell, found) for cell in todo if found.get(cell.kind, {}).get("status") != "failed"]
        for line in _lines(todo, len(cells) - len(todo), plan, folder, options):
            line.pop("killed", None)
            results.append(folder, line)
        lines = results.read_results(folder).lines
    return [lines[cell.id] for cell in cells]


def _searched(plan: Plan, cells: Sequence[Cell], folder: Path, options: Options) -> dict[str, dict[str, Any]]:
    """Make the searches that cells wait for and that are not there; return the lines of all, name -> line."""
    searches = plan.searches(cells)
    there = {}
    for search in searches:
        line = results.search_line(folder, search.id)
        if line.get("status") == "ok":
            there[search.id] = line
    todo = [search for search in searches if search.id not in there]
    return there | {line["cell"]: line for line in _lines(todo, len(there), plan, folder, options)}


def _with_found(cell: Cell, found: dict[str, dict[str, Any]]) -> Cell:
    return replace(cell, settings={**cell.settings, **found[cell.kind]["values"]}) if cell.space else cell


def _lines(work: Sequence[Cell], already: int, plan: Plan, folder: Path, options: Options) -> Iterator[dict[str, Any]]:
    """Run cells or searches and yield their lines, each shown once it has been taken down."""
    if not work:
        return
    with View([cell.id for cell in work], already, options.jobs) as view:
        for line in _executor(options)(work, folder, plan.memory_gib, options, view.started):
            yield line
            view.ended(line)


Executor = Callable[[Sequence[Cell], Path, float | None, Options, Callable[[str], None]], Iterator[dict[str, Any]]]


def _executor(options: Options) -> Executor:
    if options.executor == "local":
        return run_here
    from recbole_lsti.benchmark.cluster import run_on_cluster

    return run_on_cluster


def run_here(
    cells: Sequence[Cell],
    folder: Path,
    memory_gib: float | None,
    options: Options,
    started: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Run cells on this machine, `options.jobs` at a time, and yield their lines as they end.

    Args:
        cells: what to run.
        folder: the results folder.
        memory_gib: a cell that needs more is ended.
        options: how.
        started: told the id of each cell that begins.
    """
    stop = threading.Event()

    def work(cell: Cell) -> dict[str, Any]:
        started(cell.id)
        line: dict[str, Any] = {}
        for _ in range(options.retries + 1):
            line = run_process(
                cell.head(),
                cell.settings,
                folder / cell.place,
                memory_gib,
                options.threads,
                stop.is_set,
                search=cell.search,
            )
            if not line.get("killed") or stop.is_set():
                break
        return line

    pool = ThreadPoolExecutor(options.jobs)
    futures = [pool.submit(work, cell) for cell in cells]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def write_environment(folder: Path, options: Options, notes: Sequence[str]) -> None:
    """Write environment.json: versions, processor, threads, commit, notes, and those of earlier runs of the folder.

    With a scheduler they are of the machine that asks, and `measured_on` says that the seconds are not; jobs and
    threads are None, for they are the workers' own.
    """
    path = folder / "environment.json"
    earlier: list[Any] = []
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        earlier = [*before.pop("earlier", []), before]
    here = {**environment(), "executor": options.executor, "measured_on": HERE, "jobs": options.jobs}
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # OpenMP takes a number a level: 4,2
    here["threads"] = options.threads or (int(wanted) if wanted.isdigit() else os.cpu_count())
    if options.scheduler is not None:
        here |= {"measured_on": WORKERS, "jobs": None, "threads": None}
    here["notes"] = list(notes)
    results.write_whole(path, results.to_json({**here, "earlier": earlier}, indent=2) + "\n")
