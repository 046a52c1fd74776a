"""A Dask cluster of processes on the loopback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from helpers import environment, wait_for


class Cluster:
    """A scheduler and two workers, each in a process of its own; `mend` starts what a test has killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = 0
        self._begin()

    def _begin(self) -> None:
        file = self._folder / f"scheduler-{self._started}.json"
        self.processes: list[subprocess.Popen] = []
        where = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), "--no-dashboard"]
        self.processes.append(self._start("scheduler", *where))
        self.address = self._address(file)
        self.processes += [self._worker() for _ in range(2)]

    def _address(self, file: Path) -> str:
        """What the scheduler writes there, once all of it is written."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                return json.loads(file.read_text(encoding="utf-8"))["address"]
            except (FileNotFoundError, json.JSONDecodeError):
                time.sleep(0.1)
        self.close()
        raise TimeoutError(f"no scheduler within a minute: {file}")

    def _worker(self) -> subprocess.Popen:
        return self._start("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard")

    def _start(self, *words: str) -> subprocess.Popen:
        self._started += 1
        with open(self._folder / f"dask-{self._started}.log", "wb") as log:
            command = [sys.executable, "-m", "dask", *words]
            return subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, env={**environment(), "OMP_NUM_THREADS": "1"}
            )

    def mend(self) -> None:
        if self.processes[0].poll() is not None:
            self.close()
            self._begin()
        for place, process in enumerate(self.processes):
            if process.poll() is not None:
                self.processes[place] = self._worker()

    def kill_busy_worker(self) -> list[psutil.Process]:
        """Kill the first worker once it has begun a task; return the processes that it leaves behind."""
        victim = self.processes[1]
        orphans = wait_for(lambda: children_of(victim))
        victim.send_signal(signal.SIGKILL)
        victim.wait(30)
        return orphans

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait(30)


def children_of(process: subprocess.Popen) -> list[psutil.Process]:
    """What a process has started and is alive."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []
