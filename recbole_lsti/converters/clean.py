"""Cleaning of the loaded interactions, one statement a step; every step is off unless asked for."""

from __future__ import annotations

from dataclasses import replace

import duckdb

from recbole_lsti.converters.plan import Cleaning, Field, Table
from recbole_lsti.converters.sql import count, ident, literal
from recbole_lsti.errors import AtomicFileError, one_of


def clean(con: duckdb.DuckDBPyConnection, table: Table, steps: Cleaning) -> tuple[Table, dict[str, int]]:
    """Apply the steps in the order of :class:`Cleaning`.

    Args:
        con (DuckDBPyConnection): holds the table ``inter``.
        table (Table): its fields; the required two are the user and the item.
        steps (Cleaning): what to do.
    Returns:
        tuple[Table, dict[str, int]]: the table with the fields that changed, and rows removed by each step taken.
    Raises:
        AtomicFileError: if a step needs a field that the table lacks, or leaves nothing.
    """
    user, item = (ident(name) for name in table.keys)
    removed: dict[str, int] = {}

    def drop(step: str, condition: str) -> None:
        removed[step] = removed.get(step, 0) + _delete(con, condition)

    if steps.behaviors or steps.weights:
        _check_behaviors(con, table, steps)
    if steps.behaviors:
        kept = ", ".join(literal(name) for name in steps.behaviors)
        drop("behaviors", f"behavior IS NULL OR behavior NOT IN ({kept})")
    if steps.since is not None or steps.until is not None:
        _require(table.time is not None, "--since and --until", "a time")
        if steps.since is not None:
            drop("date range", f"_ts < {steps.since * 10**9}")
        if steps.until is not None:
            drop("date range", f"_ts >= {(steps.until + 1) * 10**9}")
    if steps.rating_threshold is not None:
        _require(table.get("rating") is not None, "--rating-threshold", "a rating")
        drop("rating threshold", f"rating IS NULL OR CAST(rating AS DOUBLE) < {steps.rating_threshold!r}")
        table = table.without("rating")
    if steps.duplicates:
        if steps.count_as:
            _require_new(table, steps.count_as, "--count-duplicates")
            _count_duplicates(con, user, item, steps.duplicates, steps.count_as)
            table = replace(table, fields=(*table.fields, Field(steps.count_as, "float", steps.count_as)))
        drop("duplicates", _duplicates(user, item, steps.duplicates))
    if steps.k_core_user or steps.k_core_item:
        removed["k-core"] = _k_core(con, user, item, steps.k_core_user, steps.k_core_item)
    if steps.sample_users:
        drop("sample of users", _unsampled(user, steps.sample_users, steps.seed))
    if steps.weights:
        _require_new(table, "weight", "--behavior-weights")
        texts = {name: repr(float(weight)).removesuffix(".0") for name, weight in steps.weights.items()}
        cases = " ".join(f"WHEN {literal(name)} THEN {literal(text)}" for name, text in texts.items())
        con.execute(f"ALTER TABLE inter ADD COLUMN weight VARCHAR; UPDATE inter SET weight = CASE behavior {cases} END")
        table = replace(table, fields=(*table.fields, Field("weight", "float", "weight")))
    if steps.session_gap:
        _require(table.time is not None, "--session-gap", "a time")
        _require_new(table, "session_id", "--session-gap")
        _add_sessions(con, user, steps.session_gap)
        table = replace(table, fields=(*table.fields, Field("session_id", "token", "session_id")))
    if removed and not count(con, "SELECT count(*) FROM inter"):
        worst = max(removed, key=lambda step: removed[step])
        raise AtomicFileError(f"cleaning ({worst} removed {removed[worst]:,} rows) must leave at least one row")
    return table, removed


def _require(there: bool, flag: str, what: str) -> None:
    if not there:
        raise AtomicFileError(f"{flag} must have {what} in the interactions")


def _require_new(table: Table, name: str, flag: str) -> None:
    times = [table.time.name] if table.time else []
    if name.lower() in [*(f.name.lower() for f in table.fields), *times, "rowid"]:
        raise AtomicFileError(f"{flag} must add a new field; {name} is there already")
    Field(name, "token", name)  # raises for a name that no header can hold


def _delete(con: duckdb.DuckDBPyConnection, condition: str) -> int:
    return count(con, f"DELETE FROM inter WHERE {condition}")


def _check_behaviors(con: duckdb.DuckDBPyConnection, table: Table, steps: Cleaning) -> None:
    """Refuse behaviours that are not there, and weights that leave a kept one out: RecBole would fill in the mean."""
    _require(table.get("behavior") is not None, "--behaviors and --behavior-weights", "a behavior (--behavior COL)")
    values = [row[0] for row in con.execute("SELECT DISTINCT behavior FROM inter ORDER BY 1 NULLS LAST").fetchall()]
    there = [value for value in values if value]
    for flag, names in (("--behaviors", steps.behaviors), ("--behavior-weights", tuple(steps.weights))):
        for name in names:
            if name not in there:
                raise one_of(flag, name, there[:50])
    bare = [value or "an empty behavior" for value in steps.behaviors or values if value not in steps.weights]
    if steps.weights and bare:
        raise AtomicFileError(
            f"--behavior-weights (none for {', '.join(bare[:50])}) must give every behavior a weight; "
            "--behaviors keeps some alone"
        )


def _duplicates(user: str, item: str, keep: str) -> str:
    """Return the condition that is true for the rows to drop."""
    if keep.startswith("consecutive"):
        neighbour = "lead" if keep.endswith("last") else "lag"
        again = f"{item} = {neighbour}({item}) OVER (PARTITION BY {user} ORDER BY _ts, rowid)"
    else:
        order = "_ts DESC, rowid DESC" if keep == "last" else "_ts, rowid"
        again = f"row_number() OVER (PARTITION BY {user}, {item} ORDER BY {order}) > 1"
    return f"rowid IN (SELECT r FROM (SELECT rowid AS r, {again} AS again FROM inter) WHERE again)"


def _count_duplicates(con: duckdb.DuckDBPyConnection, user: str, item: str, keep: str, name: str) -> None:
    """Add a field that says, in every row, how many rows of its kind there are."""
    group, run = f"{user}, {item}", "0"
    if keep.startswith("consecutive"):
        run = f"coalesce(CAST({item} <> lag({item}) OVER (PARTITION BY {user} ORDER BY _ts, rowid) AS INTEGER), 0)"
        group = "u, run"
    con.execute(f"ALTER TABLE inter ADD COLUMN {ident(name)} VARCHAR")
    con.execute(
        f"WITH marked AS (SELECT rowid AS r, _ts, {user} AS u, {user}, {item}, {run} AS starts FROM inter), "
        "numbered AS (SELECT *, sum(starts) OVER (PARTITION BY u ORDER BY _ts, r) AS run FROM marked), "
        f"counted AS (SELECT r, count(*) OVER (PARTITION BY {group}) AS rows_of_kind FROM numbered) "
        f"UPDATE inter SET {ident(name)} = CAST(counted.rows_of_kind AS VARCHAR) FROM counted "
        "WHERE inter.rowid = counted.r"
    )


def _k_core(con: duckdb.DuckDBPyConnection, user: str, item: str, k_user: int, k_item: int) -> int:
    """Drop rows of rare users and items until none is rare; return how many went."""
    total = 0
    while True:
        before = total
        for column, k in ((user, k_user), (item, k_item)):
            if k > 1:
                rare = f"SELECT {column} FROM inter GROUP BY 1 HAVING count(*) < {k}"
                total += _delete(con, f"{column} IN ({rare})")
        if total == before:
            return total


def _unsampled(user: str, n: int, seed: int) -> str:
    """Return the condition true for users outside a sample that depends on nothing but their tokens and the seed."""
    mark = f"sha256({literal(f'{seed}:')} || {user})"
    return f"{user} NOT IN (SELECT {user} FROM inter GROUP BY {user} ORDER BY {mark}, {user} LIMIT {n})"


def _add_sessions(con: duckdb.DuckDBPyConnection, user: str, gap: int) -> None:
    """Add ``session_id``: the user, and the number of the session from 0."""
    window = f"(PARTITION BY {user} ORDER BY _ts, rowid)"
    con.execute("ALTER TABLE inter ADD COLUMN session_id VARCHAR")
    con.execute(
        f"WITH marked AS (SELECT rowid AS r, {user} AS u, _ts, "
        f"CAST(_ts - lag(_ts) OVER {window} > {gap * 10**9} AS INTEGER) AS starts FROM inter), "
        "numbered AS (SELECT r, u || '_' || sum(coalesce(starts, 0)) OVER (PARTITION BY u ORDER BY _ts, r) AS session "
        "FROM marked) "
        "UPDATE inter SET session_id = numbered.session FROM numbered WHERE inter.rowid = numbered.r"
    )


def follow(con: duckdb.DuckDBPyConnection, table: Table, key: str) -> int:
    """Keep the rows of an item or user table whose key is still in the interactions; return how many went."""
    column = ident(table.keys[0])
    return count(con, f"DELETE FROM {table.kind} WHERE {column} NOT IN (SELECT DISTINCT {ident(key)} FROM inter)")
