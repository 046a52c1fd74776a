"""From an input file to Arrow batches of text columns with line numbers, for every format.

A reader yields batches whose columns are the wanted columns as text, plus ``_line``; they are named by number, because
the engine does not tell ``Title`` from ``title``. JSON keeps each object whole in one column, ``_json``: the engine
extracts its fields, so that nothing is ever evaluated.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from recbole_lsti.converters.plan import Format
from recbole_lsti.converters.sql import ident, literal
from recbole_lsti.converters.streams import MAX_LINE_BYTES, InputFile, LineReject
from recbole_lsti.errors import AtomicFileError, nearest

SEPARATORS = ("::", "\t", ",", ";", "|", "\x01")
UNIT_SEPARATOR = "\x1f"  # stands for a separator of several characters while Arrow splits
MAX_RECORD_LINES = 1000
BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "csv",
    ".dat": "csv",
    ".data": "csv",
    ".txt": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}


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


def open_reader(file: InputFile, fmt: Format) -> Reader:
    """Return the reader for a file, looking into it for whatever ``fmt`` leaves open.

    Args:
        file (InputFile): the input.
        fmt (Format): kind, separator, header and quoting; None means "look".
    Returns:
        Reader: with the names of its columns.
    Raises:
        AtomicFileError: if the file is empty or its format cannot be told.
    """
    head = file.head()
    if not head.strip():
        raise AtomicFileError(f"{file.name} (empty) must hold at least one row")
    kind = fmt.kind or _kind(file, head)
    if kind == "parquet":
        return ParquetReader(file)
    if kind == "json":
        return JsonReader(file)
    return CsvReader(file, fmt)


def _kind(file: InputFile, head: bytes) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    kind = BY_SUFFIX.get(file.suffix)
    if kind == "csv":
        return "csv"
    if head.startswith(b"PK\x03\x04"):
        raise AtomicFileError(f"{file.name} (a zip archive or workbook) must be named .zip, or be exported as CSV")
    text = file.head_text().lstrip()
    return "json" if kind == "json" or text[:1] in ("{", "[") else "csv"


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
                f"{self.file.name}, line {start} must start whole rows: {_first_line(error)}"
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


class JsonReader(Reader):
    """JSON lines, a JSON array of objects, or lines of Python literals (older Amazon and Steam files)."""

    rows_sql = "(SELECT CASE WHEN json_valid(_json) THEN _json END AS _json, _line FROM batch)"
    broken_sql = "_json IS NULL OR json_type(_json) <> 'OBJECT'"
    may_grow = True

    def __init__(self, file: InputFile) -> None:
        text = file.head_text().lstrip()
        self.is_array = text.startswith("[")
        file.has_lines = not self.is_array
        self.to_json: Callable[[str], str] = str.strip
        if self.is_array:
            sample = [source for source, _ in islice(_array_items(iter([(text, False)]), file.name), 100)]
        else:
            lines = text.split("\n")
            sample = [line for line in lines[: 100 if len(lines) > 100 else -1] or lines if line.strip()]
            if sample and not _is_object(sample[0]) and literal_to_json(sample[0]) is not None:
                self.to_json = lambda line: literal_to_json(line) or line.strip()
        keys: dict[str, None] = {}
        for line in sample:
            try:
                row = json.loads(self.to_json(line))
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                keys.update(dict.fromkeys(row))
        if not keys:
            raise AtomicFileError(f"{file.name}, line 1 must be a JSON object, or start an array of objects")
        super().__init__(file, list(keys))

    def column_sql(self, name: str) -> str:
        """Return the SQL that extracts a key; ``a.b`` reaches into an object unless a key has that very name."""
        parts = [name] if name in self.columns or "." not in name else name.split(".")
        path = "".join("." + json.dumps(part, ensure_ascii=False) for part in parts)
        return f"json_extract_string(_json, {literal('$' + path)})"

    def has(self, name: str) -> bool:
        """Say whether a key, or the first part of a dotted path, was seen; later objects may have more keys."""
        return name in self.columns or name.split(".")[0] in self.columns

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Yield whole objects as text in ``_json``."""
        if self.is_array:
            items = _array_items(self.file.texts(), self.file.name)
            while piece := list(islice(items, 20_000)):
                yield Batch(_json_table([text for text, _ in piece], [line for _, line in piece]))
            return
        for chunk in self.file.lines():
            lines = [self.to_json(line) for line in chunk.data.decode("utf-8").split("\n")]
            numbered = [(text, chunk.first_line + at) for at, text in enumerate(lines) if text]
            yield Batch(_json_table([text for text, _ in numbered], [line for _, line in numbered]), chunk.rejects)


def _json_table(texts: list[str], lines: list[int]) -> pa.Table:
    return pa.table({"_json": pa.array(texts, pa.string()), "_line": pa.array(lines, pa.int64())})


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def literal_to_json(line: str) -> str | None:
    """Return a line holding a Python dictionary as JSON, or None where it holds none. Nothing is evaluated."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        row = ast.literal_eval(line.strip())
        return json.dumps(row) if isinstance(row, dict) else None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _array_items(texts: Iterator[tuple[str, bool]], name: str) -> Iterator[tuple[str, int]]:
    """Yield the source text of every element of a JSON array, and its line, holding one chunk at a time.

    Raises:
        AtomicFileError: if the array is broken before its end. An element that the end of the file cuts off is
            yielded as it stands, to be rejected like any other bad row.
    """
    decoder = json.JSONDecoder()
    buffer, line = "", 1
    pattern = re.compile(r"\s*\[\s*")  # and from the second element on: what stands between elements
    for text, last in texts:
        buffer, at = buffer + text, 0
        while True:
            skipped = pattern.match(buffer, at)
            if skipped is None:
                raise AtomicFileError(f"{name}, line {line} must start a JSON array")
            pattern = re.compile(r"[\s,]*")
            line += buffer.count("\n", at, skipped.end())
            at = skipped.end()
            if at >= len(buffer):
                break
            if buffer[at] == "]":
                return
            try:
                _, end = decoder.raw_decode(buffer, at)
            except (ValueError, RecursionError) as error:
                if not last and len(buffer) - at < MAX_LINE_BYTES:
                    break
                _refuse_unless_cut(error, buffer, name, line + buffer.count("\n", at, getattr(error, "pos", at)))
                yield buffer[at:].strip(), line
                return
            yield buffer[at:end], line
            line += buffer.count("\n", at, end)
            at = end
        buffer = buffer[at:]


def _refuse_unless_cut(error: Exception, text: str, name: str, line: int) -> None:
    """Raise for JSON that is wrong before the end of the text; return where the text merely ends too early."""
    if isinstance(error, json.JSONDecodeError):
        at_the_end = error.pos >= len(text.rstrip()) - 1
        if at_the_end or error.msg.startswith("Unterminated string"):
            return
        raise AtomicFileError(f"{name}, line {line} must be valid JSON: {error.msg}") from error
    raise AtomicFileError(f"{name}, line {line} must be valid JSON: {error}") from error


class ParquetReader(Reader):
    """Parquet; lists become JSON arrays, and the line number is the number of the row, from 1."""

    def __init__(self, file: InputFile) -> None:
        if file.path.suffix.lower() in (".gz", ".zip", ".zst"):
            raise AtomicFileError(f"{file.name} must be an uncompressed Parquet file: the format compresses by itself")
        try:
            self.parquet = pa.parquet.ParquetFile(file.path)
        except (pa.ArrowException, OSError) as error:
            raise AtomicFileError(f"{file.name} must be a whole Parquet file: {_first_line(error)}") from error
        file.has_lines = False
        super().__init__(file, list(self.parquet.schema_arrow.names))

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Yield the wanted columns cast to text."""
        line = 1
        total = max(1, self.parquet.metadata.num_rows)
        size, reported = self.file.path.stat().st_size, 0
        try:
            for piece in self.parquet.iter_batches(batch_size=128 << 10, columns=list(wanted)):
                columns = {str(self.columns.index(name)): _as_text(piece.column(name)) for name in wanted}
                columns["_line"] = pa.array(np.arange(line, line + piece.num_rows, dtype=np.int64))
                line += piece.num_rows
                self.file.on_read(size * (line - 1) // total - reported)
                reported = size * (line - 1) // total
                yield Batch(pa.table(columns))
        except (pa.ArrowException, OSError) as error:
            raise AtomicFileError(f"{self.file.name}, row {line} must be readable: {_first_line(error)}") from error


def _as_text(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_nested(kind):
        return pa.array([None if v is None else json.dumps(v, default=str) for v in column.to_pylist()], pa.string())
    if pa.types.is_dictionary(kind):
        return _as_text(column.dictionary_decode())
    if pa.types.is_floating(kind):  # whole numbers made floats by a missing value, null or NaN: 7.0 is the id 7
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
        whole = pc.cast(column, pa.int64(), safe=False)
        fits = pc.and_(pc.equal(pc.cast(whole, kind, safe=False), column), pc.less(pc.abs(column), 2.0**53))
        return pc.if_else(pc.fill_null(fits, False), pc.cast(whole, pa.string()), pc.cast(column, pa.string()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pa.array([None if v is None else v.decode("utf-8", "replace") for v in column.to_pylist()], pa.string())
    return pc.cast(column, pa.string())


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0]


def missing_column(file: str, wanted: str, columns: Sequence[str]) -> AtomicFileError:
    """Return the error for a column that a file lacks: what there is, and the nearest name."""
    return AtomicFileError(f"{file}: column {wanted} must be one of {', '.join(columns)}{nearest(wanted, columns)}")
