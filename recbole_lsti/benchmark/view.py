"""What is seen while a plan runs: what runs, what is done, and the time left."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

SHOWN = 8  # ended cells in the live table


class View:
    """A live table where a terminal shows it and rich is there, else a line for each cell that ends.

    Args:
        todo: ids of the cells that are to run.
        already (int): cells that were done before.
        jobs (int): cells at a time.
        clock: seconds.
    """

    def __init__(self, todo: list[str], already: int, jobs: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.todo, self.already, self.jobs, self.clock = todo, already, jobs, clock
        self.running: dict[str, float] = {}  # id -> when it began
        self.lines: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}  # id -> how long it took
        self._lock = threading.Lock()
        self._live: Any = None

    def __enter__(self) -> View:
        if self.todo and sys.stderr.isatty():
            try:
                from rich.console import Console
                from rich.live import Live
            except ImportError:
                return self
            self._live = Live(get_renderable=self.table, console=Console(stderr=True), refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, cell: str) -> None:
        """Take down that a cell begins; one that begins again begins anew."""
        with self._lock:
            self.running[cell] = self.clock()

    def ended(self, line: dict[str, Any]) -> None:
        """Take down that a cell has ended."""
        with self._lock:
            began = self.running.pop(line["cell"], None)
            if began is not None:
                self.seconds[line["cell"]] = self.clock() - began
            self.lines.append(line)
        if self._live is None:
            left = self.seconds_left()
            behind = "" if left is None else f", about {duration(left)} left"
            done = f"{self.already + len(self.lines)}/{self.already + len(self.todo)}"
            print(f"[{done}] {line['cell']}: {outcome(line)}{behind}", file=sys.stderr, flush=True)

    def seconds_left(self) -> float | None:
        """Return the time left, from how long cells took so far; None before the first has ended."""
        with self._lock:
            if not self.seconds:
                return None
            ended = {line["cell"] for line in self.lines}
            left = [cell for cell in self.todo if cell not in ended]
            usual = sum(self.seconds.values()) / len(self.seconds)
            total = 0.0
            for cell in left:
                kin = [
                    took for other, took in self.seconds.items() if other.rsplit("-", 1)[0] == cell.rsplit("-", 1)[0]
                ]
                expected = sum(kin) / len(kin) if kin else usual
                total += max(0.0, expected - (self.clock() - self.running[cell] if cell in self.running else 0.0))
            return total / min(self.jobs, max(1, len(left)))

    def table(self) -> Any:
        """Return the table as rich draws it."""
        from rich.table import Table

        left = self.seconds_left()
        with self._lock:
            title = f"{self.already + len(self.lines)} of {self.already + len(self.todo)} cells"
            table = Table(title=title + ("" if left is None else f", about {duration(left)} left"))
            for name in ("cell", "state", "time"):
                table.add_column(name, justify="right" if name == "time" else "left")
            for line in self.lines[-SHOWN:]:
                took = self.seconds.get(line["cell"])
                table.add_row(line["cell"], outcome(line), "" if took is None else duration(took))
            for cell, began in self.running.items():
                table.add_row(cell, "runs", duration(self.clock() - began), style="bold")
        return table


def outcome(line: dict[str, Any]) -> str:
    """Return in a few words how a cell ended."""
    if line["status"] != "ok":
        return f"{line['status']}, {line['reason']}"
    if "values" in line:  # of a search
        return f"{line['metric']} {line['score']:.4f} on the validation items"
    metrics = line["unseen"] or line["raw"] or {}
    name = next((name for name in metrics if name.startswith("ndcg")), next(iter(metrics), None))
    value = None if name is None else metrics[name]
    lacks = "".join(f", without {what}: {why}" for what, why in line.get("incomplete", {}).items())
    return ("ok" if value is None else f"{name} {value:.4f}") + lacks


def duration(seconds: float) -> str:
    """Return seconds as `45 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
