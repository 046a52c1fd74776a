"""The benchmark runs and reports what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "convert.py"


@pytest.mark.slow
def test_a_small_benchmark(tmp_path):
    flags = ["--rows", "1000", "--big-rows", "2000", "--control-rows", "1000", "--json", str(tmp_path / "made.json")]
    done = subprocess.run([sys.executable, str(BENCHMARK), *flags], capture_output=True, text=True, check=True)
    measures = {m["name"]: m for m in json.loads((tmp_path / "made.json").read_text()) if m["rows"] != 2000}
    assert measures["5-column CSV"]["rows"] == 1000
    assert measures["5-column CSV"]["peak_mib"] > 10
    assert measures["ratings.dat"]["target"].startswith("10 times the control: ")
    assert "peak MiB" in done.stdout
