"""Read an atomic file (.inter, .item, .user, ...) into columns with pandas' C engine; needs neither torch nor RecBole.

The C engine parses numbers as RecBole's Python engine does, to the last bit, and 20 times faster; pyarrow, measured
beside it, was no faster over integer tokens and rounds decimals differently. What pandas passes over in silence (lines
with columns missing or to spare) is found by one pass over the bytes, before anything is parsed.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbole_lsti.data.lines import Lines, first_undecodable_line, line_of_row, scan_lines
from recbole_lsti.errors import AtomicFileError, nearest

TYPES = ("token", "float", "token_seq", "float_seq")
ROWS_AT_A_TIME = 1 << 18
TABLE_TOKENS = 1 << 24  # integer tokens below it are looked up in a table (64 MiB at most), larger ones in a hash table
_MARK = "\x1e"  # ASCII record separator: stands between the lists of a column while they are split in one go


class Field(NamedTuple):
    """One column of a header: its name and its type, one of TYPES."""

    name: str
    type: str

    @property
    def heading(self) -> str:
        """The column as it stands in the header."""
        return f"{self.name}:{self.type}"


class _NotIntegersError(Exception):
    """Columns that were tried as integers are not all written as integers; args: their names."""


def read_header(path: str | Path, separator: str = "\t", encoding: str = "utf-8") -> list[Field]:
    """Read and check the first line of an atomic file.

    Raises:
        AtomicFileError: an empty file, a column without a type or of an unknown one, a name given twice.
    """
    codec = _codec(path, encoding)
    try:
        with open(path, encoding=codec) as file:
            line = file.readline().rstrip("\n")
    except UnicodeDecodeError:
        raise first_undecodable_line(path, encoding) from None
    if not line:
        raise AtomicFileError.at(path, 1, "the file is empty; it must begin with a header such as user_id:token")
    fields = []
    for heading in line.split(separator):
        name, colon, kind = heading.rpartition(":")
        if not colon or not name:
            raise AtomicFileError.at(
                path, 1, f"column ({heading}) must be name:type, type one of {', '.join(TYPES)}; "
                f"columns are told apart by {separator!r}"
            )  # fmt: skip
        if kind not in TYPES:
            rule = f"type ({kind}) of {name} must be one of {', '.join(TYPES)}{nearest(kind, TYPES)}"
            raise AtomicFileError.at(path, 1, rule)
        fields.append(Field(name, kind))
    names = [field.name for field in fields]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AtomicFileError.at(path, 1, f"column ({twice}) must be given once")
    return fields


def read_table(
    path: str | Path,
    wanted: Collection[str] | None = None,
    *,
    exact: Collection[str] = (),
    separator: str = "\t",
    seq_separator: str = " ",
    encoding: str = "utf-8",
) -> tuple[pd.DataFrame, Lines]:
    """Read the wanted columns of an atomic file.

    Args:
        path: the file.
        wanted: names of columns; None: all. Names that the file does not have are passed over.
        exact: float columns that are kept as int64 where every value is written as an integer.
        separator, seq_separator, encoding: RecBole's field_separator, seq_separator and encoding.

    Returns:
        tuple: a DataFrame, one row a line, and what the pass over the bytes has found. A token column is categorical
        with its categories in order of first appearance, missing ones NaN; a float column is float64, missing values
        NaN; a list column holds one array a row, empty where it is missing.

    Raises:
        AtomicFileError: a bad header, no rows, a line with other columns than the header has, bytes that the encoding
            does not know, a word in a float column.
    """
    header = read_header(path, separator, encoding)
    fields = [field for field in header if wanted is None or field.name in wanted]
    lines = scan_lines(path, separator, len(header), encoding)
    integers = {field.name for field in fields if field.type == "token" or field.name in exact}
    while True:
        try:
            columns = _parse(path, header, fields, integers, lines, separator, encoding)
            break
        except _NotIntegersError as error:
            integers.difference_update(error.args)
    for field in fields:
        if field.type.endswith("seq"):
            texts = columns[field.name]
            columns[field.name] = _lists(path, field, texts, seq_separator, separator, encoding)
    return pd.DataFrame(columns, copy=False), lines


def _parse(
    path: str | Path,
    header: Sequence[Field],
    fields: Sequence[Field],
    integers: set[str],
    lines: Lines,
    separator: str,
    encoding: str,
) -> dict[str, np.ndarray | pd.Categorical]:
    """Parse with the C engine; `integers` are the columns to try as such, which for tokens is twice as fast.

    Raises:
        _NotIntegersError: some of these columns are not all written as integers.
    """
    dtype: dict[str, type] = {
        field.heading: np.float64 if field.type == "float" else str for field in fields if field.name not in integers
    }
    joiners = {field.name: _joiner(field, integers, lines.rows) for field in fields}
    for chunk in _chunks(path, fields, dtype, separator, encoding):
        refused = [field.name for field in fields if not joiners[field.name].add(chunk[field.heading])]
        if refused:
            raise _NotIntegersError(*refused)
    position = {field.name: index for index, field in enumerate(header)}
    columns = {}
    for field in fields:
        joiner = joiners.pop(field.name)
        if isinstance(joiner, _Integers) and joiner.width != lines.widths[position[field.name]]:
            raise _NotIntegersError(field.name)
        columns[field.name] = joiner.join()
    return columns


def _chunks(
    path: str | Path, fields: Sequence[Field], dtype: dict[str, type], separator: str, encoding: str
) -> Iterator[pd.DataFrame]:
    try:
        yield from pd.read_csv(
            path,
            sep=separator,
            usecols=[field.heading for field in fields],
            dtype=dtype,
            encoding=_codec(path, encoding),
            engine="c",
            low_memory=False,
            index_col=False,
            chunksize=ROWS_AT_A_TIME,
        )
    except UnicodeDecodeError:
        raise first_undecodable_line(path, encoding) from None
    except pd.errors.ParserError as error:
        raise AtomicFileError.at(path, None, str(error)) from None
    except ValueError:
        numbers = [field for field in fields if dtype.get(field.heading) is np.float64]
        raise _first_non_number(path, numbers, separator, encoding) from None


# ---------------------------------------------------------------------------------------------------------------------
# Joining the chunks of a column


class _Floats:
    """A float column; it stays int64 where every chunk is.

    The column is laid out once, as long as the file has rows, and filled: to join its parts would hold it twice.
    """

    def __init__(self, rows: int) -> None:
        self.values = np.empty(rows, dtype=np.int64)
        self.length = 0

    def add(self, values: pd.Series) -> bool:
        """Take the next chunk; False if the column cannot hold it."""
        if values.dtype != np.int64 and values.dtype != np.float64:
            return False
        self._append(values.to_numpy())
        return True

    def _append(self, part: np.ndarray) -> None:
        end = self.length + len(part)
        dtype = np.result_type(self.values, part) if self.length else part.dtype
        if dtype != self.values.dtype or end > len(self.values):
            grown = np.empty(max(end, len(self.values)), dtype=dtype)
            grown[: self.length] = self.values[: self.length]
            self.values = grown
        self.values[self.length : end] = part
        self.length = end

    def join(self) -> np.ndarray:
        """(rows,) float64, or int64 where every chunk was."""
        return self.values[: self.length]


class _Integers(_Floats):
    """Tokens read as integers, numbered chunk by chunk while the chunk is in the processor's cache."""

    def __init__(self, rows: int) -> None:
        self.values = np.empty(rows, dtype=np.int32)  # codes; the integers themselves once one is outside the table
        self.length = 0
        self.code_of = np.full(1 << 16, -1, dtype=np.int32)  # token -> code
        self.known = np.empty(0, dtype=np.int64)  # code -> token
        self.width = 0  # bytes of all tokens if each is spelt as an integer is: no other spelling is as short

    def add(self, values: pd.Series) -> bool:
        """Take the next chunk; False if it does not hold integers."""
        if values.dtype != np.int64:
            return False
        part = values.to_numpy()
        self.width += _spelt_width(part)
        if self.values.dtype == np.int32 and int(part.min()) >= 0 and int(part.max()) < TABLE_TOKENS:
            part = self._coded(part)
        elif self.values.dtype == np.int32:
            coded, self.values = self.values, np.empty(len(self.values), dtype=np.int64)
            self.values[: self.length] = self.known[coded[: self.length]]
        self._append(part)
        return True

    def _coded(self, part: np.ndarray) -> np.ndarray:
        highest = int(part.max())
        if highest >= len(self.code_of):
            self.code_of = np.append(self.code_of, np.full(highest + 1, -1, dtype=np.int32))
        codes = self.code_of[part]
        if int(codes.min()) < 0:
            fresh = pd.unique(part[codes < 0])
            self.code_of[fresh] = np.arange(len(self.known), len(self.known) + len(fresh), dtype=np.int32)
            self.known = np.append(self.known, fresh)
            codes = self.code_of[part]
        return codes

    def join(self) -> pd.Categorical:
        """(rows,) tokens, numbered in order of first appearance."""
        codes, known = super().join(), self.known
        if codes.dtype != np.int32:
            codes, known = pd.factorize(codes)
        return pd.Categorical.from_codes(codes.astype(np.int32, copy=False), known.astype(str).astype(object))


def _spelt_width(integers: np.ndarray) -> int:
    """Bytes that integers take when they are written out."""
    total = len(integers) + int(np.count_nonzero(integers < 0))
    size = np.abs(integers)
    for digits in range(1, 19):
        longer = int(np.count_nonzero(size >= 10**digits))
        if not longer:
            break
        total += longer
    return total


class _Words:
    """Tokens read as text, factorised chunk by chunk."""

    def __init__(self) -> None:
        self.codes: list[np.ndarray] = []
        self.known = np.empty(0, dtype=object)

    def add(self, values: pd.Series) -> bool:
        """Take the next chunk."""
        codes, words = pd.factorize(values.to_numpy())
        places, self.known = pd.factorize(np.concatenate([self.known, words]))
        places = places[len(places) - len(words) :].astype(np.int32)
        self.codes.append(np.append(places, np.int32(-1))[codes])  # code -1, a missing token, stays -1
        return True

    def join(self) -> pd.Categorical:
        """(rows,) tokens, numbered in order of first appearance, missing ones NaN."""
        return pd.Categorical.from_codes(np.concatenate(self.codes), self.known)


class _Texts:
    """A list column, not split yet; missing lists are empty."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []

    def add(self, values: pd.Series) -> bool:
        """Take the next chunk."""
        self.parts.append(values.fillna("").to_numpy())
        return True

    def join(self) -> np.ndarray:
        """(rows,) texts."""
        return np.concatenate(self.parts)


def _joiner(field: Field, integers: set[str], rows: int) -> _Floats | _Words | _Texts:
    if field.type.endswith("seq"):
        return _Texts()
    if field.type == "float":
        return _Floats(rows)
    return _Integers(rows) if field.name in integers else _Words()


def _lists(
    path: str | Path, field: Field, texts: np.ndarray, seq_separator: str, separator: str, encoding: str
) -> np.ndarray:
    """Split every text of a column at once.

    Returns:
        ndarray: (rows,) of arrays: object tokens, or float64.
    """
    words = np.array(f"{seq_separator}{_MARK}{seq_separator}".join(texts).split(seq_separator), dtype=object)
    mark = words == _MARK
    kept = (words != "") & ~mark
    row = np.cumsum(mark)[kept]
    flat = words[kept]
    if field.type == "float_seq":
        try:
            flat = flat.astype(np.float64)
        except ValueError:
            wrong = next(index for index, word in enumerate(flat) if not _is_number(word))
            line = line_of_row(path, int(row[wrong]), separator, encoding)
            raise AtomicFileError.at(path, line, f"{field.name} ({flat[wrong]}) must be a number") from None
    ends = np.cumsum(np.bincount(row, minlength=len(texts)))
    return pd.Series(np.split(flat, ends[:-1]), dtype=object).to_numpy()


# ---------------------------------------------------------------------------------------------------------------------
# Words among numbers, encodings


def _first_non_number(path: str | Path, numbers: Sequence[Field], separator: str, encoding: str) -> AtomicFileError:
    """Return the error for the first word in float columns of which one cannot be parsed."""
    row = 0
    for chunk in _chunks(path, numbers, {field.heading: str for field in numbers}, separator, encoding):
        for field in numbers:
            words = chunk[field.heading]
            wrong = pd.to_numeric(words, errors="coerce").isna() & words.notna()
            if wrong.any():
                place = int(np.flatnonzero(wrong)[0])
                line = line_of_row(path, row + place, separator, encoding)
                return AtomicFileError.at(path, line, f"{field.name} ({words.iloc[place]}) must be a number")
        row += len(chunk)
    return AtomicFileError.at(path, None, f"{', '.join(field.name for field in numbers)} must hold numbers")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _codec(path: str | Path, encoding: str) -> str:
    """The codec to read a file with: a byte order mark at its start is no part of the first name.

    Raises:
        AtomicFileError: Python knows no such encoding.
    """
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise AtomicFileError.at(path, None, f"encoding ({encoding}) must be one that Python knows") from None
    with open(path, "rb") as file:
        marked = file.read(3) == codecs.BOM_UTF8
    return "utf-8-sig" if marked and name == "utf-8" else name
