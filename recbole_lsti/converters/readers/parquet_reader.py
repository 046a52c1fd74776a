"""Parquet: columns with types, as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from recbole_lsti.converters.readers.reader import Batch, Reader, first_line
from recbole_lsti.converters.streams import InputFile
from recbole_lsti.errors import AtomicFileError


class ParquetReader(Reader):
    """Parquet; lists become JSON arrays, and the line number is the number of the row, from 1."""

    def __init__(self, file: InputFile) -> None:
        if file.path.suffix.lower() in (".gz", ".zip", ".zst"):
            raise AtomicFileError(f"{file.name} must be an uncompressed Parquet file: the format compresses by itself")
        try:
            self.parquet = pa.parquet.ParquetFile(file.path)
        except (pa.ArrowException, OSError) as error:
            raise AtomicFileError(f"{file.name} must be a whole Parquet file: {first_line(error)}") from error
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
            raise AtomicFileError(f"{self.file.name}, row {line} must be readable: {first_line(error)}") from error


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
