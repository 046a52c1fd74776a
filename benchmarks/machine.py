"""What a benchmark says of the machine it ran on."""

from __future__ import annotations

import os
import platform

import torch

from recbole_lsti.benchmark.environment import processor


def describe_machine() -> str:
    """Return one line: processor, cores, torch threads and versions."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads"
    return f"{processor()}, {threads}, {device}, Python {platform.python_version()}, torch {torch.__version__}"
