"""Rows from readers into the engine's tables, each checked; what is bad goes to the list of rejects.

A table ``inter``, ``item`` or ``user`` holds one text column a field, ``_ts`` (nanoseconds since 1970), ``_file`` and
``_line``. Row ids grow in input order, which is how ties in time are broken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import duckdb
import pyarrow as pa

from recbole_lsti.converters.features import fault_sql, value_sql
from recbole_lsti.converters.plan import Notify, Table, TimeSpec
from recbole_lsti.converters.readers.csv_reader import UNIT_SEPARATOR
from recbole_lsti.converters.readers.open import open_reader
from recbole_lsti.converters.readers.reader import Batch, Reader, missing_column
from recbole_lsti.converters.recognise import date_parts
from recbole_lsti.converters.sql import count, ident, literal
from recbole_lsti.converters.streams import InputFile, LineReject, text_lines
from recbole_lsti.converters.timeparse import guess_format, time_sql
from recbole_lsti.errors import AtomicFileError

PEEK_ROWS = 1000
BROKEN = "not a JSON object"
LOST_LINE = f"(raw IS NOT NULL OR reason = '{BROKEN}')"  # not one of many rows that a line makes, but the line


@dataclass
class Loaded:
    """What came of reading one table: rows read, made of them and kept, and how its columns were understood."""

    kind: str
    rows_in: int = 0
    rows_made: int = 0
    rows_kept: int = 0
    repeated_keys: int = 0
    time_format: str | None = None
    files: list[InputFile] = field(default_factory=list)


def create_rejects(con: duckdb.DuckDBPyConnection) -> None:
    """Create the empty list of rejects."""
    con.execute("CREATE TABLE rejects (kind VARCHAR, file INTEGER, line BIGINT, reason VARCHAR, raw VARCHAR)")


def load_table(con: duckdb.DuckDBPyConnection, table: Table, max_expansion: float, notify: Notify) -> Loaded:
    """Read a table's files into the engine.

    Args:
        con (DuckDBPyConnection): with the macros of :mod:`features` and a table of rejects.
        table (Table): what to read.
        max_expansion (float): see :class:`InputFile`.
        notify (Notify): told ``read`` with the bytes and rows of every batch.
    Returns:
        Loaded: counts, and the inputs for later reference.
    Raises:
        AtomicFileError: if a file or a column is missing, or the file cannot be read.
    """
    loaded = Loaded(table.kind)
    taken = {"bytes": 0}
    for number, path in enumerate(table.files):
        file = InputFile(path, table.format.encoding, max_expansion)
        loaded.files.append(file)
        reader = open_reader(file, table.format)
        columns = _resolve(reader, table)
        if number == 0:
            table = _with_time_format(con, table, reader, columns)
            loaded.time_format = table.time.format if table.time else None
            con.execute(f"CREATE TABLE {table.kind} ({_schema(table)})")
        insert = _insert_sql(table, reader, columns, number)
        file.on_read = lambda n: taken.__setitem__("bytes", taken["bytes"] + n)
        # No transaction around the batches: it would hold them all in memory, and a failure drops the tables anyway.
        for batch in reader.batches([name for names in columns.values() for name in names]):
            _insert(con, insert, batch, table.kind, number)
            loaded.rows_in += batch.table.num_rows + len(batch.rejects)
            notify("read", {"kind": table.kind, "bytes": taken["bytes"], "rows": loaded.rows_in})
    loaded.rows_made = count(con, f"SELECT count(*) FROM {table.kind}")
    _set_bad_rows_aside(con, table.kind)
    for statement in table.after:
        con.execute(statement.format(table=table.kind))
    if table.kind != "inter" and table.unique:
        loaded.repeated_keys = _keep_first(con, table.kind, table.keys[0])
    loaded.rows_kept = count(con, f"SELECT count(*) FROM {table.kind}")
    return loaded


def _resolve(reader: Reader, table: Table) -> dict[str, list[str]]:
    """Return where each column that the table reads is found: ``a|b`` takes the first there is, ``a?`` may lack.

    Later rows of JSON may have keys that the first ones have not: there each row takes the first key that it has.
    """
    plain = [f.source for f in table.fields if not f.is_sql]
    if table.time and not table.time.is_sql:
        plain += table.time.source
    found: dict[str, list[str]] = {}
    for spec in dict.fromkeys([*plain, *table.columns]):
        if reader.has(spec):  # a user's own column may be called "a|b" or "sure?"
            found[spec] = [spec]
            continue
        optional, names = spec.endswith("?"), spec.rstrip("?").split("|")
        there = [name for name in names if reader.has(name)]
        if not there and not optional:
            raise missing_column(reader.file.name, names[0], reader.columns)
        found[names[0]] = names if reader.may_grow else there[:1]
    return found


def _called(spec: str, columns: Mapping[str, list[str]]) -> str:
    """Return the name under which a batch's projection offers the column that a plan asks for."""
    return spec if spec in columns else spec.rstrip("?").split("|")[0]


def _column(name: str, columns: Mapping[str, list[str]]) -> str:
    """Return the SQL name of a column in a batch's projection; those that differ only in case are marked apart."""
    alike = [other for other in columns if other.lower() == name.lower()]
    return ident(name + UNIT_SEPARATOR * alike.index(name))


def _projection(reader: Reader, columns: dict[str, list[str]]) -> str:
    """Return the SQL of a batch as text columns under the names that the plan uses."""
    chosen = [
        f"coalesce({', '.join([*map(reader.column_sql, found), 'NULL'])}) AS {_column(name, columns)}"
        for name, found in columns.items()
    ]
    chosen.append(f"{reader.broken_sql} AS _broken")
    return f"(SELECT {', '.join(chosen)}, _line FROM {reader.rows_sql})"


def peek(con: duckdb.DuckDBPyConnection, reader: Reader, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the first values of some columns as text, missing ones as "".

    Args:
        con (DuckDBPyConnection): any open connection.
        reader (Reader): the input.
        names (Sequence[str]): columns of the reader.
    Returns:
        dict[str, list[str]]: at most 1,000 values a column, of rows that have one at all.
    """
    first = next(reader.batches(names), None)
    if first is None or not names:
        return {name: [] for name in names}
    con.register("batch", first.table)
    columns = {name: [name] for name in names}
    filled = " OR ".join(f"coalesce({_column(name, columns)}, '') <> ''" for name in names)
    rows = con.execute(
        f"SELECT * EXCLUDE (_broken, _line) FROM {_projection(reader, columns)} WHERE {filled} LIMIT {PEEK_ROWS}"
    ).fetchall()
    con.unregister("batch")
    return {name: [row[at] or "" for row in rows] for at, name in enumerate(names)}


def _with_time_format(
    con: duckdb.DuckDBPyConnection, table: Table, reader: Reader, columns: dict[str, list[str]]
) -> Table:
    """Return the table with the notation of its time filled in from the first rows."""
    time = table.time
    if time is None or time.is_sql or time.format is not None:
        return table
    parts = date_parts(time.source)
    if parts is not None:
        return _replace_time(table, time, parts)
    names = [next(iter(columns[_called(spec, columns)]), spec) for spec in time.source]
    samples = peek(con, reader, names)
    texts = [" ".join(parts) for parts in zip(*(samples[name] for name in names), strict=True)]
    return _replace_time(table, time, guess_format(con, texts, f"{reader.file.name}: time {' '.join(names)}"))


def _replace_time(table: Table, time: TimeSpec, fmt: str) -> Table:
    return replace(table, time=replace(time, format=fmt))


def _schema(table: Table) -> str:
    columns = [f"{ident(f.name)} VARCHAR" for f in table.fields]
    return ", ".join([*columns, "_ts BIGINT", "_file INTEGER", "_line BIGINT", "_reason VARCHAR"])


def _insert_sql(table: Table, reader: Reader, columns: dict[str, list[str]], number: int) -> str:
    """Return the statement that turns a batch into checked rows: raw texts, then values, then faults."""
    rows = table.relation.format(raw=_projection(reader, columns))
    places = range(len(table.fields))
    texts, values, faults = [], [], [f"WHEN _broken THEN {literal(BROKEN)}"]
    for at, f in zip(places, table.fields, strict=True):
        raw = f"({f.source})" if f.is_sql else _column(_called(f.source, columns), columns)
        texts.append(f"clean(CAST({raw} AS VARCHAR)) AS t{at}")
        values.append(f"{value_sql(f, f't{at}', table.format.decimal)} AS f{at}")
        if f.required:
            faults.append(f"WHEN f{at} IS NULL THEN {literal(f'empty {f.name}')}")
    stamp = "CAST(NULL AS BIGINT)"
    if table.time is not None:
        raw_time, nanoseconds = _time_sql(table.time, columns)
        texts += [f"{raw_time} AS _raw_time", f"{nanoseconds} AS _time"]
        values += ["_raw_time", "_time"]
        low, high = (second * 1_000_000_000 for second in table.time.window)
        name = table.time.name
        faults.append(f"WHEN _time IS NULL AND coalesce(trim(_raw_time), '') = '' THEN {literal(f'empty {name}')}")
        faults.append(f"WHEN coalesce(_time NOT BETWEEN {low} AND {high}, true) THEN {literal(f'impossible {name}')}")
        stamp = "TRY_CAST(_time AS BIGINT)"
    for at, f in zip(places, table.fields, strict=True):
        fault = fault_sql(f, f"f{at}", table.format.decimal)
        if fault is not None:
            faults.append(fault)
    chosen = ", ".join(f"f{at}" for at in places)
    return (
        f"INSERT INTO {table.kind} SELECT {chosen}, {stamp}, {number}, _line, CASE {' '.join(faults)} END FROM "
        f"(SELECT {', '.join(values)}, _line, _broken FROM (SELECT {', '.join(texts)}, _line, _broken FROM ({rows})))"
    )


def _time_sql(time: TimeSpec, columns: Mapping[str, list[str]]) -> tuple[str, str]:
    """Return SQL of the time as it is written, and as nanoseconds."""
    if time.is_sql:
        return f"CAST(({time.source[0]}) AS VARCHAR)", f"CAST(({time.source[0]}) AS HUGEINT)"
    text = " || ' ' || ".join(_column(_called(spec, columns), columns) for spec in time.source)
    return text, time_sql(text, time.format or "iso", time.zone)


def _insert(con: duckdb.DuckDBPyConnection, insert: str, batch: Batch, kind: str, number: int) -> None:
    if batch.table.num_rows:
        con.register("batch", batch.table)
        con.execute(insert)
        con.unregister("batch")
    if batch.rejects:
        add_rejects(con, kind, number, batch.rejects)


def add_rejects(con: duckdb.DuckDBPyConnection, kind: str, number: int, rejects: list[LineReject]) -> None:
    """Append lines to the list of rejects."""
    rows = pa.table(
        {
            "line": pa.array([r.line for r in rejects], pa.int64()),
            "reason": pa.array([r.reason for r in rejects], pa.string()),
            "raw": pa.array([r.raw for r in rejects], pa.string()),
        }
    )
    con.register("bad", rows)
    con.execute(f"INSERT INTO rejects SELECT {literal(kind)}, {number}, line, reason, raw FROM bad")
    con.unregister("bad")


def _set_bad_rows_aside(con: duckdb.DuckDBPyConnection, kind: str) -> None:
    con.execute(
        f"INSERT INTO rejects SELECT {literal(kind)}, _file, _line, _reason, NULL FROM {kind} WHERE _reason IS NOT NULL"
    )
    con.execute(f"DELETE FROM {kind} WHERE _reason IS NOT NULL")


def check_share(con: duckdb.DuckDBPyConnection, loaded: Loaded, limit: float) -> None:
    """Refuse a table with too many bad rows, or with none left.

    Raises:
        AtomicFileError: with the commonest reason and the first line that shows it.
    """
    row = con.execute(
        "SELECT reason, count(*), arg_min(file, file * 1e12 + line), arg_min(line, file * 1e12 + line) "
        "FROM rejects WHERE kind = ? GROUP BY reason ORDER BY 2 DESC, 1 LIMIT 1",
        [loaded.kind],
    ).fetchone()
    bad = count(con, "SELECT count(*) FROM rejects WHERE kind = ?", [loaded.kind])
    # a line of many events makes many rows: what is lost with whole lines is judged by lines, what is left by rows
    lost = count(con, f"SELECT count(*) FROM rejects WHERE kind = ? AND {LOST_LINE}", [loaded.kind])
    lines = max(1, loaded.rows_in)
    rows = max(lines, loaded.rows_made)
    share, of = max((bad / rows, rows), (lost / lines, lines))
    if row is not None and share > limit:
        where = f"{loaded.files[row[2]].name}, line {row[3]}"
        raise AtomicFileError(
            f"bad rows of {loaded.kind} ({share:.2%} of {of:,}) must be at most {limit:.2%} "
            f"(--max-reject-share); most often: {row[0]}, first in {where}"
        )
    if loaded.rows_kept == 0:
        names = ", ".join(file.name for file in loaded.files)
        raise AtomicFileError(f"{names} (no row) must hold at least one row for {loaded.kind}")


def fill_raw_lines(con: duckdb.DuckDBPyConnection, loaded: Loaded) -> None:
    """Fetch the text of rejected rows whose line was not kept while reading, in one more pass over their files."""
    for number, file in enumerate(loaded.files):
        where = f"kind = {literal(loaded.kind)} AND file = {number} AND raw IS NULL"
        wanted = {row[0] for row in con.execute(f"SELECT line FROM rejects WHERE {where}").fetchall()}
        if not wanted or not file.has_lines:
            continue
        texts = text_lines(file, wanted)
        con.register("texts", pa.table({"number": pa.array(list(texts), pa.int64()), "content": list(texts.values())}))
        con.execute(f"UPDATE rejects SET raw = content FROM texts WHERE line = number AND {where}")
        con.unregister("texts")


def _keep_first(con: duckdb.DuckDBPyConnection, kind: str, key: str) -> int:
    """Drop all but the first row of every key; return how many went."""
    return count(con, f"DELETE FROM {kind} WHERE rowid NOT IN (SELECT min(rowid) FROM {kind} GROUP BY {ident(key)})")
