"""Running cells as Dask tasks.

A task runs its cell in a process of its own on the worker, and hands the files of the cell's folder back with its line:
workers need the data sets and this package, but no folder in common with the one who asked. A worker that is lost loses
what it was doing, and the scheduler gives it to another one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from recbole_lsti.benchmark.options import Options
from recbole_lsti.benchmark.plan import Cell
from recbole_lsti.benchmark.process import run_process
from recbole_lsti.benchmark.results import failed, to_json, write_whole
from recbole_lsti.cluster import client_of, for_workers, is_unwanted


class CellKilledError(RuntimeError):
    """A cell's process was ended by a signal; Dask tries again.

    Args:
        reason (str): which signal.
        files: what the cell's folder held, name -> content.
    """

    def __init__(self, reason: str, files: dict[str, bytes]) -> None:
        super().__init__(reason, files)  # both, for it travels pickled
        self.files = files

    def __str__(self) -> str:
        return str(self.args[0])


def run_on_cluster(
    cells: Sequence[Cell],
    folder: Path,
    memory_gib: float | None,
    options: Options,
    started: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Run cells as Dask tasks and yield their lines as they end; see `execute.run_here`.

    Raises:
        ConnectionError: the scheduler does not answer, or goes away while cells are under way.
        ImportError: dask or distributed is not installed.
    """
    with client_of(options.scheduler, options.jobs) as client:
        from distributed import as_completed

        token = secrets.token_hex(4)  # keys and events of other runs on the same scheduler are others
        topic = f"recbole-lsti-cells-{token}"
        client.subscribe_topic(topic, lambda event: started(event[1]))
        futures = {
            client.submit(
                run_remote,
                topic,
                cell.head(),
                for_workers(cell.settings),
                memory_gib,
                options.threads,
                cell.search,
                key=f"{cell.id}-{token}",
                retries=options.retries,
                pure=False,
            ): cell
            for cell in cells
        }
        lost = []
        for future in as_completed(futures, loop=client.loop):
            cell = futures[future]
            if future.status == "finished":
                line, files = future.result()
                _unpack(files, folder / cell.place)
                future.release()  # else the workers hold the files of all cells to the end
                yield line
            elif future.status == "error":
                yield _keep_failure(cell, future.exception(), folder / cell.place)
            else:
                lost.append(cell.id)
        if lost:
            raise ConnectionError(
                f"the scheduler must stay until the end: it went with {len(lost)} cells; --resume goes on with them"
            )


def run_remote(
    topic: str,
    head: dict[str, Any],
    settings: dict[str, Any],
    memory_gib: float | None,
    threads: int | None,
    search: dict[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Run one cell, or one search, on a worker; its beginning is an event of the topic: the cell's id.

    Returns:
        tuple: its line, and the files of its folder, name -> content.
    Raises:
        CellKilledError: if a signal ended the cell's process.
    """
    from distributed import get_worker

    get_worker().log_event(topic, head["cell"])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / head["cell"]
        line = run_process(head, settings, folder, memory_gib, threads, is_unwanted, search=search)
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        if line.get("killed"):
            raise CellKilledError(line["reason"], files)
        return line, files


def _unpack(files: dict[str, bytes], folder: Path) -> None:
    """Write the files of a cell, all or none, in the place of those of an earlier try."""
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)  # of a killed run, whose number came again
    draft.mkdir(parents=True)
    for name, content in files.items():
        (draft / name).write_bytes(content)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def _keep_failure(cell: Cell, error: BaseException, folder: Path) -> dict[str, Any]:
    """The line of a cell that no worker could end; its folder keeps what the last one left."""
    if isinstance(error, CellKilledError):
        files, reason = error.files, str(error)
    else:
        files, reason = {}, f"{type(error).__name__}: {error}"
    _unpack(files, folder)
    (folder / "traceback.txt").write_text(f"{reason}\n", encoding="utf-8")
    line = failed(cell.head(), " ".join(reason.split()))
    write_whole(folder / "result.json", to_json(line, indent=2) + "\n")
    return line
