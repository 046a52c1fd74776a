"""A working folder with a space, and settings that shrink a search to seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SPACE = "learning_rate: {log: [1e-3, 1e-1]}\nhidden_size: [8, 16]\n"


@pytest.fixture
def workplace(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty working directory of all tests, with a space."""
    (workplace / "space.yaml").write_text(SPACE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the programs that a test starts
    return workplace


@pytest.fixture
def settings(tiny: Path, small: dict) -> dict[str, Any]:
    del small["hidden_size"], small["show_progress"]
    return {**small, "epochs": 1, "data_path": str(tiny)}
