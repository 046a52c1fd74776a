"""One pass over the bytes of an atomic file: how many lines, which of them are ragged, how wide the columns are."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recbole_lsti.errors import AtomicFileError

BLOCK = 1 << 22
_NEWLINE, _RETURN, _SPACE = 10, 13, 32


class Lines(NamedTuple):
    """What a file looks like before it is parsed.

    Attributes:
        rows: lines below the header that are not blank.
        widths: (columns,) int64, bytes of each column in all rows; negative where that cannot be told so easily
            (blank lines, quotation marks).
        joined: lines that quotation marks make part of the row above them.
    """

    rows: int
    widths: np.ndarray
    joined: int = 0


def scan_lines(
    path: str | Path,
    separator: str,
    n_columns: int,
    encoding: str = "utf-8",
    ragged: list[tuple[int, int]] | None = None,
) -> Lines:
    """Look at every line of a file; it must have rows, each of as many columns as the header.

    Args:
        ragged (list | None): takes the line and the columns of every row that has other columns than the header, in
            place of the error for the first of them.

    Raises:
        ValueError: a separator of several characters.
        AtomicFileError: no rows, or a line with more or fewer columns than the header.
    """
    if len(separator) != 1 or ord(separator) > 127:
        raise ValueError(f"field_separator ({separator!r}) must be one ASCII character")
    rows, line = 0, 1
    widths = np.zeros(n_columns, dtype=np.int64)
    with open(path, "rb") as file:
        head = file.readline()
    # bytes are no characters in these encodings, and old Mac files have no line ends that `readline` knows
    if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")) or b"\r" in head.rstrip(b"\r\n"):
        return _scan_records(path, separator, n_columns, encoding, ragged)
    for piece in _blocks(path):
        block = np.frombuffer(piece, dtype=np.uint8)
        returns = piece.count(b"\r")
        if b'"' in piece or returns != (piece.count(b"\r\n") if returns else 0):
            if ragged is not None:
                ragged.clear()  # the whole file is gone through again
            return _scan_records(path, separator, n_columns, encoding, ragged)
        cuts = np.flatnonzero((block == ord(separator)) | (block == _NEWLINE))
        ends = np.flatnonzero(block[cuts] == _NEWLINE)
        if len(cuts) == len(ends) * n_columns and np.array_equal(ends, np.arange(n_columns - 1, len(cuts), n_columns)):
            edges = cuts.reshape(-1, n_columns)
            ends_sum = edges.sum(axis=0)
            widths += ends_sum - np.r_[ends_sum[-1] - edges[-1, -1] - 1, ends_sum[:-1]] - len(edges)
            widths[-1] -= returns
            # a blank line of a one-column file is no row
            rows += len(edges) if n_columns > 1 else int(np.count_nonzero(~_blank(block, cuts, ends)))
        else:
            columns = np.diff(ends, prepend=-1)
            blank = _blank(block, cuts, ends)
            wrong = np.flatnonzero((columns != n_columns) & ~blank)
            if len(wrong) and ragged is None:
                raise _ragged(path, line + 1 + int(wrong[0]), int(columns[wrong[0]]), n_columns)
            if ragged is not None:
                ragged += zip((line + 1 + wrong).tolist(), columns[wrong].tolist(), strict=True)
            rows += len(ends) - int(np.count_nonzero(blank))
            widths[:] = -1 << 60
        line += len(ends)
    return _checked(path, Lines(rows, widths))


def line_of_row(path: str | Path, row: int, separator: str = "\t", encoding: str = "utf-8") -> int:
    """Return the number, from 1, of the line in which a row, from 0, begins; blank lines are no rows."""
    with closing(_records(path, separator, encoding)) as records:
        filled = (line for line, _, record in records if len(record) > 1 or (record and record[0].strip(" ")))
        return next(islice(filled, row, None))


def first_undecodable_line(path: str | Path, encoding: str) -> AtomicFileError:
    """Return the error for the first line that holds bytes which the encoding does not know."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                byte = f"byte 0x{line[error.start]:02x} at {error.start + 1}"
                return AtomicFileError.at(path, number, f"{byte} must be {encoding}; set encoding if it is another")
    return AtomicFileError.at(path, None, f"must be {encoding}; set encoding if it is another")


def _blocks(path: str | Path) -> Iterator[bytes]:
    """The bytes below the header as blocks of whole lines."""
    with open(path, "rb") as file:
        file.readline()
        rest = b""
        while piece := file.read(BLOCK):
            cut = piece.rfind(b"\n") + 1
            if not cut:
                rest += piece
                continue
            yield rest + piece[:cut]
            rest = piece[cut:]
        if rest:
            yield rest + b"\n"


def _blank(block: np.ndarray, cuts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(lines,) bool: lines of nothing but blanks; pandas passes over them."""
    stops = cuts[ends]
    starts = np.r_[0, stops[:-1] + 1]
    filled = np.r_[0, np.cumsum((block != _SPACE) & (block != _RETURN) & (block != _NEWLINE))]
    return filled[stops] == filled[starts]


def _records(path: str | Path, separator: str, encoding: str) -> Generator[tuple[int, int, list[str]], None, None]:
    """Yield the first and the last line of each record below the header, and its fields, which may be quoted."""
    limit = csv.field_size_limit(2**31 - 1)  # as large as a C long is everywhere
    try:
        with open(path, encoding=encoding, errors="replace", newline="") as file:
            records = csv.reader(file, delimiter=separator)
            next(records, None)
            line = records.line_num
            for record in records:
                yield line + 1, records.line_num, record
                line = records.line_num
    finally:
        csv.field_size_limit(limit)


def _scan_records(
    path: str | Path, separator: str, n_columns: int, encoding: str, ragged: list[tuple[int, int]] | None
) -> Lines:
    """The same, slowly, for files in which a field may be quoted and hold separators or line ends."""
    rows, joined = 0, 0
    with closing(_records(path, separator, encoding)) as records:
        for first, last, record in records:
            joined += last - first
            if len(record) != n_columns and (len(record) > 1 or (record and record[0].strip())):
                if ragged is None:
                    raise _ragged(path, first, len(record), n_columns, last > first)
                ragged.append((first, len(record)))
            rows += any(record) or len(record) > 1
    return _checked(path, Lines(rows, np.full(n_columns, -1, dtype=np.int64), joined))


def _ragged(path: str | Path, line: int, columns: int, n_columns: int, quoted: bool = False) -> AtomicFileError:
    hint = "; a quotation mark opens a field there that goes on in the next line" if quoted else ""
    return AtomicFileError.at(path, line, f"columns ({columns}) must be as many as the header has ({n_columns}){hint}")


def _checked(path: str | Path, lines: Lines) -> Lines:
    if lines.rows == 0:
        raise AtomicFileError.at(path, 2, "there must be at least one row below the header")
    return lines
