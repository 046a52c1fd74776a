"""What every test of the converters uses: the command in this process, and RecBole's way of reading."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_lsti.converters.cli import main


@dataclass
class Result:
    """What the command said, and where it wrote."""

    code: int
    out: str
    err: str
    folder: Path

    def text(self, suffix: str) -> str:
        """Return the text of one written file, by its suffix."""
        return (self.folder / f"{self.folder.name}{suffix}").read_text(encoding="utf-8")

    def rows(self, suffix: str = ".inter") -> list[list[str]]:
        """Return the rows of an atomic file without quotes in it, split at tabs, header first."""
        return [line.split("\t") for line in self.text(suffix).splitlines()]

    def column(self, name: str, suffix: str = ".inter") -> list[str]:
        """Return one column by the name in its header."""
        header, *rows = self.rows(suffix)
        at = [cell.split(":")[0] for cell in header].index(name)
        return [row[at] for row in rows]


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run ``recbole-lsti convert`` with output to ``tmp_path/out/made``."""

    def run(*arguments: object, name: str = "made") -> Result:
        code = main([*map(str, arguments), "--output", str(tmp_path / "out"), "--name", name])
        said = capsys.readouterr()
        return Result(code, said.out, said.err, tmp_path / "out" / name)

    return run


@pytest.fixture
def nothing_left(tmp_path: Path) -> Callable[[], None]:
    """Assert that a failed run left no file, hidden or not, in the output folder."""

    def check() -> None:
        out = tmp_path / "out"
        assert not out.exists() or list(out.iterdir()) == []

    return check


@pytest.fixture
def log(tmp_path: Path) -> Callable[[str], Path]:
    """Write a text (or bytes) to a file and return its path."""

    def write(content: str | bytes, name: str = "log.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def real_data() -> Path:
    """Return the folder of real raw files, or skip."""
    folder = os.environ.get("LSTI_DATA")
    if not folder:
        pytest.skip("LSTI_DATA is unset: it names the folder of real raw files")
    return Path(folder) / "raw"


def read_as_recbole(path: Path) -> pd.DataFrame:
    """Read an atomic file as RecBole 1.2.1 does: pandas' Python engine, floats as float64 and all else as text."""
    with path.open(encoding="utf-8") as file:
        header = file.readline()[:-1].split("\t")
    dtype = {column: np.float64 if column.endswith(":float") else str for column in header}
    frame = pd.read_csv(path, delimiter="\t", usecols=header, dtype=dtype, encoding="utf-8", engine="python")
    frame.columns = [column.split(":")[0] for column in header]
    return frame
