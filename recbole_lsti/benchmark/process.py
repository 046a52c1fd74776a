"""A cell's process: started, watched, and told apart by how it ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from recbole_lsti.benchmark.cell import failed
from recbole_lsti.benchmark.results import to_json, write_whole

LOOK_EVERY = 0.2  # seconds between two looks at a process


def run_process(
    head: dict[str, Any],
    settings: dict[str, Any],
    folder: Path,
    memory_gib: float | None = None,
    threads: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
    flags: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Run one cell in a process of its own.

    Args:
        head: what the cell's line begins with.
        settings: the config dict of the run.
        folder: the cell's folder; what an earlier try left in it goes.
        memory_gib: end the process when it, with its children, holds more.
        threads: of OpenMP and MKL; None: as the environment says.
        stopped: asked now and then; when it answers True the process is ended.
        flags: further flags of the cell's program.
    Returns:
        dict: the cell's line. `status` is failed where it failed; `killed` is True where a signal ended it, and a
        second try may do better.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_whole(folder / "cell.json", to_json({"head": head, "settings": settings}, indent=2) + "\n")
    # the cell runs the code that asks for it, wherever that lies
    path = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    if threads is not None:
        environment.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)))
    command = [sys.executable, "-m", "recbole_lsti.benchmark.cell", str(folder), "--until-stdin-closes", *flags]
    with (
        open(folder / "output.log", "wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment
        ) as process,
    ):
        try:
            reason = _watch(process, memory_gib, stopped)
        finally:
            if process.poll() is None:
                process.kill()
    return _line_of(head, folder, process.returncode, reason)


def _watch(process: subprocess.Popen, memory_gib: float | None, stopped: Callable[[], bool]) -> str | None:
    """Wait for the end of a process; return why it was ended from here, or None."""
    while True:
        try:
            process.wait(LOOK_EVERY)
            return None
        except subprocess.TimeoutExpired:
            pass
        if stopped():
            return "stopped"
        if memory_gib is not None and _rss(process.pid) > memory_gib * 2**30:
            return f"it needed more than memory_gib ({memory_gib})"


def _rss(pid: int) -> int:
    """Resident bytes of a process and its children."""
    try:
        process = psutil.Process(pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def _line_of(head: dict[str, Any], folder: Path, status: int, reason: str | None) -> dict[str, Any]:
    if reason is None and (folder / "result.json").is_file():
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if reason is None and status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        reason = f"ended by signal {name}" + (", as a system short of memory does" if name == "SIGKILL" else "")
        line = {**failed(head, reason), "killed": True}
    else:
        line = failed(head, reason or f"the process ended with status {status}: {_last_words(folder)}")
    write_whole(folder / "result.json", to_json(line, indent=2) + "\n")
    return line


def _last_words(folder: Path) -> str:
    lines = (folder / "output.log").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
