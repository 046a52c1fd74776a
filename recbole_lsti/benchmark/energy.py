"""The energy of a training, where codecarbon is installed and the machine tells what it draws."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_lsti.errors import in_one_line

COUNTERS = "/sys/class/powercap"  # Intel and AMD processors count what they draw here


@dataclass
class Reading:
    """What was measured.

    Attributes:
        kwh: energy of the machine's processors and NVIDIA GPUs; None where nothing can be measured.
        fault: why not, where the meter failed; None where it did its work or the machine has no counter.
    """

    kwh: float | None = None
    fault: str | None = None


@contextmanager
def measured() -> Iterator[Reading]:
    """Measure what runs inside; the reading is complete afterwards.

    Without a counter codecarbon would guess from a table of processors; a guess is no measurement, nor is what it adds
    for the memory. It asks no network and writes no file. A fault of the meter is in the reading and ends nothing.
    """
    reading = Reading()
    if importlib.util.find_spec("codecarbon") is None or not machine_tells():
        yield reading
        return
    tracker = None
    try:
        tracker = _started()
    except Exception as error:
        reading.fault = in_one_line(error)
    try:
        yield reading
    finally:
        if tracker is not None:
            try:
                reading.kwh = _stopped(tracker)
            except Exception as error:
                reading.fault = in_one_line(error)


def machine_tells(folder: str = COUNTERS) -> bool:
    """Whether a processor's energy counter can be read."""
    return any(os.access(path, os.R_OK) for path in Path(folder).glob("*/energy_uj"))


def _started() -> Any:
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)  # what it says while it is imported, too
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.core.cpu import is_rapl_available

    if not is_rapl_available():  # a counter that it cannot read: it would guess
        return None
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA",  # asked for, but only its emissions depend on it
        log_level="critical",
        allow_multiple_runs=True,
        # the user's own codecarbon settings, of files and of the environment, are for other measurements
        output_methods=[],
        output_handlers=[],
        emissions_endpoint=None,
        tracking_mode="machine",
        force_cpu_power=None,
        force_mode_cpu_load=False,
        pue=1.0,
    )
    tracker.start()
    return tracker


def _stopped(tracker: Any) -> float:
    """Stop a tracker and return what was counted, kWh."""
    tracker.stop()
    found = getattr(tracker, "final_emissions_data", None)  # it keeps its own faults to itself
    if found is None:
        raise RuntimeError("codecarbon must have measured: it could not start")
    return float(found.cpu_energy + found.gpu_energy)
