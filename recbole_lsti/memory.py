"""How a training process keeps its memory."""

from __future__ import annotations

import ctypes


def keep_freed_memory() -> None:
    """Have glibc keep freed memory: a training step's large temporaries are else mapped and unmapped again and again.

    Measured by benchmarks/epoch_time.py; does nothing where the C library is another.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    libc.mallopt(-4, 0)  # M_MMAP_MAX: no allocation gets a mapping of its own
    libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD: 1 GiB at the top of the heap stays
