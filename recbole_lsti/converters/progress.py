"""What the user sees meanwhile: a bar with rows and bytes a second, JSON lines, or nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TextIO

WIDTH = 24
EVERY_SECONDS = 0.2


class Progress:
    """Turns the events of a conversion into lines on a stream.

    Args:
        stream (TextIO): where to, standard error as a rule.
        mode (str): ``bar``, ``json`` (an object a line) or ``quiet``.
    """

    def __init__(self, stream: TextIO, mode: str = "bar") -> None:
        self.stream = stream
        self.mode = mode
        self.total = 0
        self.start = self.last = time.monotonic()
        self.drawn = False

    def __call__(self, event: str, facts: Mapping[str, object]) -> None:
        """Hear about one event."""
        if self.mode == "json":
            self.stream.write(json.dumps({"event": event, **facts}) + "\n")
            self.stream.flush()
        elif self.mode == "bar":
            self._draw(event, facts)

    def _draw(self, event: str, facts: Mapping[str, object]) -> None:
        now = time.monotonic()
        if event == "open":
            self._end_line()
            self.total, self.start, self.last = int(str(facts["bytes"])), now, 0.0
        elif event == "read" and now - self.last >= EVERY_SECONDS and self.stream.isatty():
            self.last, self.drawn = now, True
            self.stream.write("\r" + bar(str(facts["kind"]), facts, self.total, now - self.start))
            self.stream.flush()
        elif event in ("write", "done"):
            self._end_line()

    def _end_line(self) -> None:
        if self.drawn:
            self.stream.write("\r" + " " * 100 + "\r")
            self.drawn = False


def bar(kind: str, facts: Mapping[str, object], total: int, seconds: float) -> str:
    """Return one drawing of the bar.

    Args:
        kind (str): which table is read.
        facts (Mapping): ``rows`` and ``bytes`` so far.
        total (int): bytes there are.
        seconds (float): since the start.
    """
    rows, done = int(str(facts["rows"])), int(str(facts["bytes"]))
    share = min(1.0, done / total) if total else 0.0
    filled = "#" * round(share * WIDTH)
    pace = max(seconds, 1e-6)
    speed = f"{rows / pace:,.0f} rows/s {done / pace / 1e6:,.1f} MB/s"
    return f"{kind:<5} [{filled:<{WIDTH}}] {share:4.0%} {rows:,} rows {speed}"
