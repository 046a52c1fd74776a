"""What every reader has, and what every reader yields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from recbole_lsti.converters.sql import ident
from recbole_lsti.converters.streams import InputFile, LineReject
from recbole_lsti.errors import AtomicFileError, nearest


@dataclass
class Batch:
    """Rows as text columns plus ``_line`` (int64, from 1), and the lines that never became rows."""

    table: pa.Table
    rejects: list[LineReject] = field(default_factory=list)


class Reader:
    """One open input of a known format.

    Attributes:
        columns (list[str]): names of the columns there are (JSON: keys seen in the first objects).
        rows_sql (str): SQL of the rows of a batch.
        broken_sql (str): SQL that is true for a row that cannot be taken apart.
        may_grow (bool): whether later rows may have columns that the first ones have not.
    """

    rows_sql = "batch"
    broken_sql = "false"
    may_grow = False

    def __init__(self, file: InputFile, columns: list[str]) -> None:
        self.file = file
        self.columns = columns

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Yield the wanted columns of every row, as text."""
        raise NotImplementedError

    def column_sql(self, name: str) -> str:
        """Return the SQL that reads a column of a batch as text."""
        return ident(str(self.columns.index(name)))

    def has(self, name: str) -> bool:
        """Say whether the input has a column of this name."""
        return name in self.columns


def missing_column(file: str, wanted: str, columns: Sequence[str]) -> AtomicFileError:
    """Return the error for a column that a file lacks: what there is, and the nearest name."""
    return AtomicFileError(f"{file}: column {wanted} must be one of {', '.join(columns)}{nearest(wanted, columns)}")


def first_line(error: BaseException) -> str:
    """Return what an engine's error says first; the rest is its own affairs."""
    return str(error).split("\n")[0]
