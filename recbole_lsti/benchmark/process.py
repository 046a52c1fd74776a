"""A cell's process, and the line that it comes to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_lsti.benchmark.results import failed, to_json, write_whole
from recbole_lsti.process import run_module


def run_process(
    head: dict[str, Any],
    settings: dict[str, Any],
    folder: Path,
    memory_gib: float | None = None,
    threads: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
    flags: tuple[str, ...] = (),
    search: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run one cell, or the search for the settings of several, in a process of its own.

    Args:
        head: what the cell's line begins with.
        settings: the config dict of the run.
        folder: the cell's folder; what an earlier try left in it goes, but for the study of the same search where it
            was killed or stopped.
        search: `space` and `trials` of a search, whose trials then have the memory limit, each by itself.
        memory_gib, threads, stopped, flags: see `run_module`.
    Returns:
        dict: the cell's line. `status` is failed where it failed; `killed` is True where a signal or `stopped` ended
        it, and a second try may do better.
    """
    work = {"head": head, "settings": settings}
    if search is not None:
        work["search"], memory_gib = {**search, "memory_gib": memory_gib}, None
    text = to_json(work, indent=2) + "\n"
    if search is None or _has_ended(folder) or not _is_of(folder, text):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").unlink(missing_ok=True)
    write_whole(folder / "cell.json", text)
    ended = run_module("recbole_lsti.benchmark.cell", folder, flags, memory_gib, threads, stopped)
    if ended.reason is None:
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))
    line = failed(head, ended.reason) | ({"killed": True} if ended.killed or stopped() else {})
    write_whole(folder / "result.json", to_json(line, indent=2) + "\n")
    return line


def _is_of(folder: Path, work: str) -> bool:
    """Whether an earlier try had the same work."""
    path = folder / "cell.json"
    return path.is_file() and path.read_text(encoding="utf-8") == work


def _has_ended(folder: Path) -> bool:
    """Whether an earlier try came to its end."""
    result = folder / "result.json"
    return result.is_file() and not json.loads(result.read_text(encoding="utf-8")).get("killed")
