"""Which reader a file wants: by what the user says, else by its first bytes and its name."""

from __future__ import annotations

from recbole_lsti.converters.plan import Format
from recbole_lsti.converters.readers.csv_reader import CsvReader
from recbole_lsti.converters.readers.json_reader import JsonReader
from recbole_lsti.converters.readers.parquet_reader import ParquetReader
from recbole_lsti.converters.readers.reader import Reader
from recbole_lsti.converters.streams import InputFile
from recbole_lsti.errors import AtomicFileError

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
