"""Quoting for the embedded engine, and its one-row answers."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb


def ident(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as a quoted SQL string."""
    return "'" + text.replace("'", "''") + "'"


def one_row(con: duckdb.DuckDBPyConnection, statement: str, values: Sequence[object] = ()) -> tuple:
    """Return the only row of a query that has one, such as an aggregate or the count of a DELETE.

    Raises:
        LookupError: if there is none.
    """
    row = con.execute(statement, list(values)).fetchone()
    if row is None:
        raise LookupError(f"no row from: {statement}")
    return row


def count(con: duckdb.DuckDBPyConnection, statement: str, values: Sequence[object] = ()) -> int:
    """Return the first column of such a row as an int."""
    return int(one_row(con, statement, values)[0])
