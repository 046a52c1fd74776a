"""Atomic files: a header of ``name:type``, tab-separated rows in time order, and all of a folder or nothing.

RecBole reads these files with pandas: a field that holds ``"`` is quoted as pandas expects, and a missing value is
empty. Everything is written to a hidden folder beside the final one and renamed at the end, so that neither an
error, nor Ctrl-C, nor a full disk leaves a half-written file under its final name.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType

import duckdb

from recbole_lsti.converters.plan import Table
from recbole_lsti.converters.sql import ident, literal
from recbole_lsti.converters.timeparse import seconds_sql
from recbole_lsti.errors import AtomicFileError


def output_columns(table: Table) -> list[tuple[str, str]]:
    """Return the header and the SQL of every column of a table, in order.

    Returns:
        list[tuple[str, str]]: for instance ``("rating:float", '"rating"')``. Text is quoted here, not by the engine,
        whose versions differ in what they quote.
    """
    columns = [
        (f"{f.name}:{f.type}", f"quoted({ident(f.name)})" if f.type.startswith("token") else ident(f.name))
        for f in table.fields
    ]
    if table.time is not None:
        at = len(columns) if table.time_at is None else table.time_at
        grain = table.time.grain * 1_000_000_000
        stamp = f"_ts - _ts % {grain}" if grain else "_ts"
        columns.insert(at, (f"{table.time.name}:float", seconds_sql(stamp)))
    return columns


def select_list(columns: list[tuple[str, str]]) -> str:
    """Return columns as the list of a SELECT, each under its header."""
    return ", ".join(f"{sql} AS {ident(header)}" for header, sql in columns)


def write_query(con: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Write the rows of a query as an atomic file; its column names are the header.

    Raises:
        AtomicFileError: if the file cannot be written.
    """
    options = "FORMAT csv, DELIMITER '\t', QUOTE '', ESCAPE '', HEADER true"
    try:
        con.execute(f"COPY ({query}) TO {literal(str(path))} ({options})")
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise AtomicFileError(f"{path.name} must be writable: {str(error).splitlines()[0]}") from error


def write_table(con: duckdb.DuckDBPyConnection, table: Table, path: Path, by_key: bool = False) -> None:
    """Write a table: interactions in time order with ties in input order, items and users in input order.

    ``by_key`` orders by the key instead: the place of a pseudonym must not tell the line of the input.
    """
    order = "_ts, rowid" if table.time is not None else "rowid"
    if by_key:
        order = f"{ident(table.keys[0])}, rowid"
    write_query(con, f"SELECT {select_list(output_columns(table))} FROM {table.kind} ORDER BY {order}", path)


class StagedFolder:
    """A folder that appears under its name only when everything in it is written.

    Args:
        final (Path): where the folder shall be.
        overwrite (bool): replace a folder that is there.
    Raises:
        AtomicFileError: on entry, if it is there and may not be replaced, or the parent cannot be written to.
    """

    def __init__(self, final: Path, overwrite: bool = False) -> None:
        self.final = final
        self.overwrite = overwrite
        self.folder = final.parent / f".{final.name}.partial-{os.getpid()}"
        self.scratch = final.parent / f".{final.name}.scratch-{os.getpid()}"
        self.replaced = final.parent / f".{final.name}.replaced-{os.getpid()}"

    def __enter__(self) -> StagedFolder:
        self._check_place()
        try:
            self.final.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir()
            self.scratch.mkdir()
        except OSError as error:
            self._remove()
            raise AtomicFileError(
                f"--output ({self.final.parent}) must be a writable folder: {error.strerror}"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def commit(self) -> None:
        """Give the folder its name.

        Raises:
            AtomicFileError: if another folder has that name by now and may not be replaced, or the file system refuses.
                What was there before is there again then, after Ctrl-C too.
        """
        self._check_place()
        try:
            if self.final.exists():
                self.final.rename(self.replaced)
            self.folder.rename(self.final)
        except OSError as error:
            raise AtomicFileError(f"{self.final} must be writable: {error.strerror}") from error
        finally:
            if self.replaced.exists() and not self.final.exists():
                self.replaced.rename(self.final)

    def _check_place(self) -> None:
        if self.final.exists() and not self.overwrite:
            raise AtomicFileError(f"{self.final} (exists) must be a new folder; --overwrite replaces it")
        if self.final.exists() and not self.final.is_dir():
            raise AtomicFileError(f"{self.final} (a file) must be a folder")

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        if self.final.exists():
            shutil.rmtree(self.replaced, ignore_errors=True)
