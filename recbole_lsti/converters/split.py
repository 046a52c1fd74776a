"""Pre-split files for RecBole's ``benchmark_filename``, and what leaks between the parts."""

from __future__ import annotations

import duckdb

from recbole_lsti.converters.plan import Split, Table
from recbole_lsti.converters.sql import count, ident, literal, one_row
from recbole_lsti.errors import AtomicFileError

PARTS = ("train", "valid", "test")


def assign_parts(con: duckdb.DuckDBPyConnection, table: Table, split: Split) -> None:
    """Create the table ``parted``: the interactions in time order with their part.

    Args:
        con (DuckDBPyConnection): holds ``inter``.
        table (Table): the first required field is the user.
        split (Split): how to cut. A global cut in time never divides rows of one moment.
    Raises:
        AtomicFileError: an item's token cannot stand in a list, which RecBole splits at blanks; or a part has no rows.
    """
    user, item = (ident(name) for name in table.keys)
    if split.layout == "sequences":
        blank = con.execute(f"SELECT {item} FROM inter WHERE regexp_matches({item}, '\\s') LIMIT 1").fetchone()
        if blank is not None:
            raise AtomicFileError(
                f"{table.keys[1]} ({blank[0]}) must have no blanks where items stand in lists (--split): RecBole "
                "would read several items; --split-layout rows makes no lists"
            )
    train, valid, _ = split.ratios
    if split.kind == "loo":
        part = (
            "CASE WHEN _n >= 3 AND _place = _n THEN 'test' "
            "WHEN _n >= 3 AND _place = _n - 1 THEN 'valid' ELSE 'train' END"
        )
    elif split.kind == "ratio":
        part = (
            f"CASE WHEN _place <= greatest(1, round(_n * {train!r})) THEN 'train' "
            f"WHEN _place <= greatest(1, round(_n * {train + valid!r})) THEN 'valid' ELSE 'test' END"
        )
    else:
        quantiles = f"quantile_disc(_ts, {train!r}), quantile_disc(_ts, {min(train + valid, 1.0)!r})"
        low, high = one_row(con, f"SELECT {quantiles} FROM inter")
        part = f"CASE WHEN _ts <= {low} THEN 'train' WHEN _ts <= {high} THEN 'valid' ELSE 'test' END"
    con.execute(
        f"CREATE TABLE parted AS SELECT *, {part} AS _part FROM ("
        f"SELECT *, row_number() OVER (ORDER BY _ts, rowid) AS _at, "
        f"row_number() OVER (PARTITION BY {user} ORDER BY _ts, rowid) AS _place, "
        f"count(*) OVER (PARTITION BY {user}) AS _n FROM inter)"
    )
    first = first_place(split)
    for name in PARTS:
        if con.execute(f"SELECT 1 FROM parted WHERE _part = '{name}' AND _place >= {first} LIMIT 1").fetchone() is None:
            raise AtomicFileError(f"--split ({split.kind}) must leave rows in every part; {name} would have none")


def first_place(split: Split) -> int:
    """Return which of a user's rows is the first that is written: in ``sequences``, the one with a row before it."""
    return 2 if split.layout == "sequences" else 1


def part_query(table: Table, split: Split, part: str, columns: str) -> str:
    """Return the SELECT of one part's rows.

    Args:
        table (Table): the interactions.
        split (Split): layout and longest list.
        part (str): ``train``, ``valid`` or ``test``.
        columns (str): SQL of the output columns, each with its header as alias; ``_past`` is the list.
    Returns:
        str: for ``rows``, the interactions; for ``sequences``, those that have a past, with the list of the items of
        that past (``item_id_list:token_seq``). The past of a test row includes validation rows.
    """
    user, item = (ident(name) for name in table.keys)
    rows = f"WHERE _part = {literal(part)} AND _place >= {first_place(split)} ORDER BY _at"
    if split.layout == "rows":
        return f"SELECT {columns} FROM parted {rows}"
    past = (
        f"SELECT *, array_to_string(list({item}) OVER past, ' ') AS _past FROM parted WINDOW past AS "
        f"(PARTITION BY {user} ORDER BY _at ROWS BETWEEN {split.max_len} PRECEDING AND 1 PRECEDING)"
    )
    return f"SELECT {columns} FROM ({past}) {rows}"


def leakage(con: duckdb.DuckDBPyConnection, table: Table, split: Split) -> dict[str, object]:
    """Return what a model could learn from the future, and whom it has never met.

    Returns:
        dict[str, object]: rows a part, as written; and of written validation and test rows, the shares (0..1) that
        happened before the last training row, whose user or item training has not seen, and that repeat a training
        row (same user and item). Training has seen what its file holds, be it in a list. A leave-one-out split always
        has other users' future in its training rows.
    """
    user, item = (ident(name) for name in table.keys)
    first = first_place(split)
    written = f"FROM parted WHERE _place >= {first} AND _part"
    training = f"FROM parted WHERE _part = 'train' AND {user} IN (SELECT {user} {written} = 'train')"
    report: dict[str, object] = {}
    for part in PARTS:
        report[f"{part} rows"] = count(con, f"SELECT count(*) {written} = ?", [part])
    measures = {
        "before the last training row": f"_ts < (SELECT max(_ts) {training})",
        "of users unseen in training": f"{user} NOT IN (SELECT DISTINCT {user} {training})",
        "of items unseen in training": f"{item} NOT IN (SELECT DISTINCT {item} {training})",
        "that repeat a training row": f"({user}, {item}) IN (SELECT DISTINCT ({user}, {item}) {training})",
    }
    for part in PARTS[1:]:
        for name, condition in measures.items():
            (share,) = one_row(con, f"SELECT avg(CAST({condition} AS INTEGER)) {written} = '{part}'")
            report[f"share of {part} rows {name}"] = round(share, 6)
    return report
