"""Separated text: CSV, TSV, and whatever else stands between values."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from recbole_lsti.converters.plan import Format
from recbole_lsti.converters.readers.reader import Batch, Reader, first_line
from recbole_lsti.converters.streams import InputFile, LineReject
from recbole_lsti.errors import AtomicFileError

SEPARATORS = ("::", "\t", ",", ";", "|", "\x01")
UNIT_SEPARATOR = "\x1f"  # stands for a separator of several characters while Arrow splits
MAX_RECORD_LINES = 1000


class CsvReader(Reader):
    """CSV, TSV, or any other separator; columns of a file without a header are named by number, from 0."""

    def __init__(self, file: InputFile, fmt: Format) -> None:
        chunk = next(file.lines(report=False))
        lines = [line.rstrip("\r") for line in chunk.data[: 256 << 10].decode("utf-8", "replace").split("\n")]
        self.skip = 0
        marked = re.fullmatch(r'"?sep=(.+?)"?', lines[0], re.IGNORECASE)
        if marked:  # Excel's own first line
            self.skip, lines = 1, lines[1:]
        while len(lines) > 1 and not lines[0].strip():
            self.skip, lines = self.skip + 1, lines[1:]
        self.sep = fmt.sep or (marked.group(1) if marked else "")
        if not self.sep:
            bare = [re.sub('"[^"]*"', '""', line) if fmt.quote else line for line in lines[:50] if line]
            self.sep = sniff_separator(bare, file.name, fmt.decimal)
        self.quote = fmt.quote and len(self.sep) == 1
        if fmt.header and chunk.rejects and (bad := chunk.rejects[0]).line <= self.skip:  # blank, so skipped
            raise AtomicFileError(f"{file.name}, line {bad.line} ({bad.reason}) must name the columns")
        first = self._fields(lines[0], file.name)
        if fmt.columns:
            names = [*fmt.columns, *(f"_{index}" for index in range(len(fmt.columns), len(first)))]
        elif fmt.header:
            names = [name.strip() or str(index) for index, name in enumerate(first)]
            names[0] = names[0].lstrip("#").strip() or "0"
        else:
            names = [str(index) for index in range(len(first))]
        self.width = len(first) if not fmt.columns else len(names)
        self.skip += int(fmt.header)
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise AtomicFileError(f"{file.name}, line 1 (column {min(repeated)} twice) must name every column once")
        super().__init__(file, names)

    def _fields(self, line: str, name: str) -> list[str]:
        if not self.quote:
            return line.split(self.sep)
        try:
            return next(csv.reader([line], delimiter=self.sep), [""])
        except csv.Error as error:
            raise AtomicFileError(f"{name}, line {self.skip + 1} ({error}) must be a row of shorter fields") from error

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Yield the wanted columns; ragged lines and unclosed quotes become rejects."""
        carry, start = b"", 1
        for chunk in self.file.lines():
            data, rejects = carry + chunk.data, chunk.rejects
            end, continued = len(data), list[int]()
            if self.quote and b'"' in data:
                data, end, continued = self._close_quotes(data, start, chunk.last, rejects)
            if end:
                yield self._parse(data[:end], start, continued, wanted, rejects)
            elif rejects:
                yield Batch(self._empty(wanted), rejects)
            carry, start = data[end:], start + data.count(b"\n", 0, end)

    def _close_quotes(
        self, data: bytes, start: int, last: bool, rejects: list[LineReject]
    ) -> tuple[bytes, int, list[int]]:
        """Find where quoted fields run over line ends, and blank the lines whose quote never closes.

        Returns:
            tuple[bytes, int, list[int]]: the lines, how many bytes of them end with a whole record, and the numbers
            of the lines that continue a record.
        """
        raw = np.frombuffer(data, np.uint8)
        ends = np.append(np.flatnonzero(raw == ord("\n")), len(data))
        quotes = np.searchsorted(np.flatnonzero(raw == ord('"')), ends)
        odd = np.flatnonzero(np.diff(quotes, prepend=0) % 2)
        if not len(odd):
            return data, len(data), []
        lines, continued, upto = data.split(b"\n"), list[int](), 0
        for index in odd.tolist():
            if index < upto:
                continue
            window = lines[index : index + MAX_RECORD_LINES]
            record, taken = self._first_record(window)
            is_open = taken >= len(window) and bool(record) and record[-1].endswith("\n")
            if taken == 1 and not is_open:
                continue  # a stray quote inside a field that is not quoted
            if is_open and not last and len(window) < MAX_RECORD_LINES:
                return b"\n".join(lines), len(b"\n".join([*lines[:index], b""])), continued
            if not is_open and len(record) == self.width == len(self._first_record(window[:taken], strict=True)[0]):
                upto = index + taken
                continued += range(start + index + 1, start + upto)
            else:
                rejects.append(LineReject(start + index, "quote is never closed", lines[index].decode("utf-8")))
                lines[index] = b""
        data = b"\n".join(lines)
        return data, len(data), continued

    def _first_record(self, lines: list[bytes], strict: bool = False) -> tuple[list[str], int]:
        """Return the fields of the record that starts at the first line, and how many lines it takes.

        ``strict``: only a separator may follow a closing quote, lest the open quotes of two lines make a pair.
        """
        parsed = csv.reader((line.decode("utf-8") + "\n" for line in lines), delimiter=self.sep, strict=strict)
        try:
            return next(parsed, []), parsed.line_num
        except csv.Error:  # or a field beyond the module's limit: the quote closes far away, if at all
            return [], len(lines)

    def _parse(
        self, data: bytes, start: int, continued: list[int], wanted: Sequence[str], rejects: list[LineReject]
    ) -> Batch:
        """Split whole records with Arrow's parser, and number their lines."""
        skip = max(0, self.skip + 1 - start)
        for _ in range(skip):
            data = data[data.find(b"\n") + 1 or len(data) :]
        if not data.strip(b"\n"):
            return Batch(self._empty(wanted), rejects)
        sep, ragged = self.sep, []
        if len(sep) > 1:
            data, sep = data.replace(sep.encode(), UNIT_SEPARATOR.encode()), UNIT_SEPARATOR

        def on_ragged(row: pa.csv.InvalidRow) -> str:
            ragged.append((row.number - 1, row.actual_columns, row.text.replace(UNIT_SEPARATOR, self.sep)))
            return "skip"

        names = [str(index) for index in range(self.width)]
        keep = dict.fromkeys(str(self.columns.index(name)) for name in wanted)
        try:
            table = pa.csv.read_csv(
                io.BytesIO(data),
                pa.csv.ReadOptions(use_threads=False, column_names=names, block_size=len(data) + 1),
                pa.csv.ParseOptions(
                    delimiter=sep,
                    quote_char='"' if self.quote else False,
                    newlines_in_values=bool(continued),
                    ignore_empty_lines=False,
                    invalid_row_handler=on_ragged,
                ),
                pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    include_columns=list(keep),
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            raise AtomicFileError(
                f"{self.file.name}, line {start} must start whole rows: {first_line(error)}"
            ) from error
        n_lines = data.count(b"\n") + (not data.endswith(b"\n"))
        numbers = np.arange(start + skip, start + skip + n_lines, dtype=np.int64)
        if continued:
            numbers = np.setdiff1d(numbers, continued, assume_unique=True)
        for at, got, text in ragged:
            if text.strip():
                reason = f"{got} columns where there must be {self.width}"
                rejects.append(LineReject(int(numbers[at]), reason, text))
        if ragged:
            numbers = np.delete(numbers, [at for at, _, _ in ragged])
        if len(numbers) != table.num_rows:  # stray quotes and line ends that the two parsers pair differently
            where = f"{self.file.name}, lines {start + skip} to {start + skip + n_lines - 1}"
            raise AtomicFileError(
                f"{where} (quotes inside values) must hold quotes around whole values; "
                "--quote none reads them as plain characters"
            )
        table = table.append_column("_line", pa.array(numbers))
        return Batch(_without_blank_lines(table, data, sep, start + skip), rejects)

    def _empty(self, wanted: Sequence[str]) -> pa.Table:
        columns = {str(self.columns.index(name)): pa.array([], pa.string()) for name in wanted}
        return pa.table({**columns, "_line": pa.array([], pa.int64())})


def _without_blank_lines(table: pa.Table, data: bytes, sep: str, start: int) -> pa.Table:
    """Drop the lines of nothing but separators that spreadsheets leave behind; ``start`` is the number of the first."""
    filled = pc.not_equal(table.column(0), "")
    if pc.all(filled).as_py():
        return table
    for name in table.column_names[1:-1]:
        filled = pc.or_(filled, pc.not_equal(table.column(name), ""))
    empty = np.flatnonzero(~filled.to_numpy())
    if not len(empty):
        return table
    lines = data.split(b"\n")
    numbers = table.column("_line").to_numpy()[empty]
    blank = [not lines[number - start].strip(sep.encode() + b' "') for number in numbers.tolist()]
    return table.filter(pa.array(~np.isin(np.arange(table.num_rows), empty[blank])))


def sniff_separator(lines: list[str], name: str, decimal: str) -> str:
    """Return the separator that splits the most lines into the same number of columns, and more than one.

    Of several that do, the decimal mark comes last. What stands in quotes is left out of the lines.

    Raises:
        AtomicFileError: if there is no line, or no separator splits the lines.
    """
    if not lines:
        raise AtomicFileError(f"{name} (no line but blank ones) must hold at least one row")
    best, best_score = "", 0.0
    for sep in sorted(SEPARATORS, key=lambda sep: sep == decimal):
        counts = [line.count(sep) for line in lines]
        usual = max(set(counts), key=counts.count)
        score = counts.count(usual) / len(counts) if usual else 0.0
        if score > best_score + 1e-9:
            best, best_score = sep, score
    if not best:
        raise AtomicFileError(f"{name} (one column) must be split by --sep, or hold one of the usual separators")
    return best
