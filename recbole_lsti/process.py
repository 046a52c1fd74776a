"""Work in a process of its own: started, watched, and told apart by how it ended.

The process has a folder: it leaves result.json there, and what it prints goes to output.log beside it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

LOOK_EVERY = 0.2  # seconds between two looks at a process


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
        reason: why it left no result that counts; None where result.json holds one.
        killed: whether a signal from elsewhere ended it, and a second try may do better.
    """

    reason: str | None
    killed: bool = False


def run_module(
    module: str,
    folder: Path,
    flags: tuple[str, ...] = (),
    memory_gib: float | None = None,
    threads: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Ended:
    """Run `python -m MODULE FOLDER --until-stdin-closes FLAGS` and wait for its end.

    Args:
        module: a module of this package that calls `end_with_stdin`.
        folder: its folder, which exists.
        flags: further flags.
        memory_gib: end the process when it, with its children, holds more GiB (2^30 bytes).
        threads: of OpenMP and MKL; None: as the environment says.
        stopped: asked now and then; when it answers True the process is ended.
    Returns:
        Ended: how it ended.
    Raises:
        OSError: output.log cannot be written, or the process cannot be started.
    """
    # the process runs the code that asks for it, wherever that lies
    path = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    if threads is not None:
        environment.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)))
    command = [sys.executable, "-m", module, str(folder), "--until-stdin-closes", *flags]
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
    if reason is not None or (folder / "result.json").is_file():
        return Ended(reason)
    status = process.returncode
    if status >= 0:
        return Ended(f"the process ended with status {status}: {_last_words(folder)}")
    name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
    return Ended(f"ended by signal {name}" + (", as a system short of memory does" if name == "SIGKILL" else ""), True)


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


def _last_words(folder: Path) -> str:
    lines = (folder / "output.log").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def end_with_stdin() -> None:
    """End this process when the one that started it has ended, however that was: it holds the other end of stdin."""
    threading.Thread(target=_wait_for_the_end_of_stdin, daemon=True).start()


def _wait_for_the_end_of_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)


def threads_of(jobs: int) -> int | None:
    """Threads of each of so many processes that share this machine; None: as the environment says."""
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, (os.cpu_count() or 1) // jobs)
