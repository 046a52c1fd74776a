"""JSON: a line an object, one array of them, or lines of Python literals."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import pyarrow as pa

from recbole_lsti.converters.readers.reader import Batch, Reader
from recbole_lsti.converters.sql import literal
from recbole_lsti.converters.streams import MAX_LINE_BYTES, InputFile
from recbole_lsti.errors import AtomicFileError


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
