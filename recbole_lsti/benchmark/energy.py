"""The energy of a training, where codecarbon is installed and the machine tells what it draws."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COUNTERS = "/sys/class/powercap"  # Intel and AMD processors count what they draw here


@contextmanager
def measured() -> Iterator[list[float | None]]:
    """Measure what runs inside; afterwards the list holds one entry: kWh, or None where nothing can be measured.

    Without a counter codecarbon would guess from a table of processors; a guess is no measurement.
    """
    found: list[float | None] = []
    if importlib.util.find_spec("codecarbon") is None or not machine_tells():
        yield found
        found.append(None)
        return
    from codecarbon import OfflineEmissionsTracker

    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA",  # asked for, but only its emissions depend on it
        save_to_file=False,
        log_level="error",
        allow_multiple_runs=True,
    )
    tracker.start()
    try:
        yield found
    finally:
        tracker.stop()
        found.append(float(tracker.final_emissions_data.energy_consumed))


def machine_tells(folder: str = COUNTERS) -> bool:
    """Whether a processor's energy counter can be read."""
    return any(os.access(path, os.R_OK) for path in Path(folder).glob("*/energy_uj"))
