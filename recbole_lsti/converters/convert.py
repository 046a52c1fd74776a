"""One conversion from a plan to a finished folder, read top-down."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import duckdb

from recbole_lsti._version import __version__
from recbole_lsti.converters.atomic import StagedFolder, output_columns, select_list, write_query, write_table
from recbole_lsti.converters.clean import clean, follow
from recbole_lsti.converters.features import MACROS, check_scalings, scale
from recbole_lsti.converters.load import Loaded, check_share, create_rejects, fill_raw_lines, load_table
from recbole_lsti.converters.plan import Notify, Plan, Table
from recbole_lsti.converters.privacy import drop_rare_users, pseudonymize
from recbole_lsti.converters.report import (
    config_yaml,
    input_facts,
    output_facts,
    table_report,
    write_rejects,
    write_report,
)
from recbole_lsti.converters.split import PARTS, assign_parts, leakage, part_query
from recbole_lsti.converters.sql import literal
from recbole_lsti.converters.streams import InputFile
from recbole_lsti.errors import AtomicFileError


def quiet(event: str, facts: Mapping[str, object]) -> None:
    """Hear about an event and say nothing."""


def convert(plan: Plan, notify: Notify = quiet) -> dict[str, object]:
    """Convert, and return the report that also lies beside the data.

    Args:
        plan (Plan): what to do.
        notify (Notify): told of progress.
    Returns:
        dict[str, object]: the content of ``<name>.report.json``.
    Raises:
        AtomicFileError: if an input, the plan or the output is at fault. Nothing is left behind then.
    """
    check_scalings(plan)
    _check_inputs_stay(plan)
    with StagedFolder(plan.output / plan.name, plan.overwrite) as staged:
        try:
            with closing(open_engine(staged.scratch, plan)) as con:
                report = _convert_in(con, plan, staged.folder, notify)
        except (duckdb.InterruptException, RuntimeError) as error:
            if "interrupt" in str(error).lower():  # how the engine passes on Ctrl-C
                raise KeyboardInterrupt from error
            raise
        except duckdb.Error as error:
            raise AtomicFileError(f"{plan.name} must be convertible: {str(error).splitlines()[0]}") from error
        except OSError as error:
            raise AtomicFileError(f"{plan.output} must be writable: {error.strerror or error}") from error
        staged.commit()
    notify("done", {"folder": str(plan.output / plan.name)})
    return report


def _check_inputs_stay(plan: Plan) -> None:
    """Refuse to replace a folder that holds what is to be read: its files would go with it."""
    folder = plan.output / plan.name
    for table in plan.tables:
        for path in table.files:
            if InputFile(path).path.resolve().is_relative_to(folder.resolve()):
                raise AtomicFileError(
                    f"{folder} (holds the input {path}) must be another folder; --output or --name tells which"
                )


def open_engine(scratch: Path, plan: Plan) -> duckdb.DuckDBPyConnection:
    """Return a connection whose data lie in ``scratch`` and whose memory is bounded by the plan."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{plan.memory_mib}MiB",
        "threads": plan.threads,
        "temp_directory": str(scratch / "spill"),
    }
    con = duckdb.connect(str(scratch / "tables.duckdb"), config=config)
    zone = plan.inter.time.zone if plan.inter and plan.inter.time else "UTC"
    con.execute(f"SET TimeZone = {literal(zone)}")
    con.execute("PRAGMA disable_checkpoint_on_shutdown")  # the tables are thrown away: do not tidy them first
    con.execute(MACROS)
    return con


def _convert_in(con: duckdb.DuckDBPyConnection, plan: Plan, folder: Path, notify: Notify) -> dict[str, object]:
    create_rejects(con)
    loaded = [_load(con, table, plan, notify) for table in plan.tables]
    tables = {table.kind: table for table in plan.tables}
    removed: dict[str, int] = {}
    if "inter" in tables:
        tables["inter"], removed = clean(con, tables["inter"], plan.cleaning)
        removed |= _protect(con, tables, plan)
        _follow(con, tables, removed)
    for name, how in plan.scalings.items():
        for table in tables.values():
            if table.get(name) is not None:
                scale(con, table.kind, name, how)
    notify("write", {"folder": folder.name})
    leaks = _write(con, plan, tables, folder)
    write_rejects(con, loaded, folder / f"{plan.name}.rejects.tsv", withhold=plan.withholds)
    (folder / f"{plan.name}.yaml").write_text(config_yaml(plan, list(tables.values())), encoding="utf-8")
    report: dict[str, object] = {
        "name": plan.name,
        "source": plan.source,
        "version": __version__,
        "command": plan.command,
        "tables": {each.kind: table_report(con, each, tables[each.kind]) for each in loaded},
        "removed": removed,
        "split": leaks,
        "inputs": input_facts(loaded),
        "outputs": output_facts(folder),
    }
    write_report(report, folder / f"{plan.name}.report.json")
    return report


def _load(con: duckdb.DuckDBPyConnection, table: Table, plan: Plan, notify: Notify) -> Loaded:
    notify("open", {"kind": table.kind, "bytes": sum(_size(path) for path in table.files)})
    loaded = load_table(con, table, plan.max_expansion, notify)
    check_share(con, loaded, plan.max_reject_share)
    if not plan.withholds:
        fill_raw_lines(con, loaded)
    return loaded


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _protect(con: duckdb.DuckDBPyConnection, tables: dict[str, Table], plan: Plan) -> dict[str, int]:
    """Apply what privacy asks for; return the rows removed."""
    user = tables["inter"].keys[0]
    removed = {}
    if plan.privacy.drop_rare_users:
        removed["rare users"] = drop_rare_users(con, user, plan.privacy.drop_rare_users)
        if con.execute("SELECT 1 FROM inter LIMIT 1").fetchone() is None:
            raise AtomicFileError(f"--drop-rare-users ({plan.privacy.drop_rare_users}) must leave at least one user")
    if plan.privacy.key is not None:
        columns = [("inter", user)]
        if tables["inter"].get("session_id") and user != "session_id":
            columns.append(("inter", "session_id"))
        if "user" in tables:
            columns.append(("user", tables["user"].keys[0]))
        columns += [(kind, f.name) for kind, table in tables.items() for f in table.fields if f.personal]
        pseudonymize(con, columns, plan.privacy.key)
    return removed


def _follow(con: duckdb.DuckDBPyConnection, tables: dict[str, Table], removed: dict[str, int]) -> None:
    """Once a step that may remove interactions was taken, items and users keep only what is left of them."""
    if not removed:
        return
    for kind, key in zip(("user", "item"), tables["inter"].keys, strict=True):
        if kind in tables:
            removed[f"{kind} rows without interactions"] = follow(con, tables[kind], key)


def _write(
    con: duckdb.DuckDBPyConnection, plan: Plan, tables: dict[str, Table], folder: Path
) -> dict[str, object] | None:
    """Write every atomic file; return the report of leakage where there is a split."""
    for kind, table in tables.items():
        by_key = kind == "user" and plan.privacy.key is not None
        write_table(con, table, folder / f"{plan.name}.{kind}", by_key)
    if plan.split is None or "inter" not in tables:
        return None
    inter = tables["inter"]
    if inter.time is None:
        raise AtomicFileError("--split must have a time in the interactions")
    assign_parts(con, inter, plan.split)
    columns = output_columns(inter)
    if plan.split.layout == "sequences":
        columns.insert(1, (f"{inter.keys[1]}_list:token_seq", "quoted(_past)"))
    for part in PARTS:
        query = part_query(inter, plan.split, part, select_list(columns))
        write_query(con, query, folder / f"{plan.name}.{part}.inter")
    return {"kind": plan.split.kind, "layout": plan.split.layout, **leakage(con, inter, plan.split)}
