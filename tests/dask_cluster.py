"""A Dask cluster of processes on the loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil


class Cluster:
    """A scheduler and two workers, each in a process of its own."""

    def __init__(self, folder: Path) -> None:
        file = folder / "scheduler.json"
        self.processes: list[subprocess.Popen] = []
        scheduler = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), "--no-dashboard"]
        self._start(folder, "scheduler", *scheduler)
        until = time.monotonic() + 60
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.1)
        self.address = json.loads(file.read_text(encoding="utf-8"))["address"]
        for _ in range(2):
            self._start(folder, "worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard")

    def _start(self, folder: Path, *words: str) -> None:
        with open(folder / f"dask-{len(self.processes)}.log", "wb") as log:
            command = [sys.executable, "-m", "dask", *words]
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=folder))

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
