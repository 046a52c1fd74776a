"""What a result says of where it was made: versions, machine and commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from recbole_lsti._version import __version__

PACKAGES = ("recbole", "torch", "numpy", "pandas", "scipy", "dask", "distributed")
HERE, WORKERS = "the machine that asks", "the workers of a scheduler"  # where seconds are measured


def environment() -> dict[str, Any]:
    """Return versions, machine and commit of what runs."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
        "system": platform.platform(),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "commit": _commit(),
    }


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that results may depend on; None: not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "recbole_lsti": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout that the package lies in, with `+changes` where files differ; None: no checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run([*command, "--dirty=+changes"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
