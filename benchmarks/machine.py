"""What a benchmark says of the machine it ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def describe_machine() -> str:
    """Return one line: processor, cores, torch threads and versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads"
    return f"{name}, {threads}, {device}, Python {platform.python_version()}, torch {torch.__version__}"
