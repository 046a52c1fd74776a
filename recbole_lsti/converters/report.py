"""What is written beside the data: a configuration for RecBole, a report of the run, and the rejected rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from recbole_lsti.converters.load import Loaded
from recbole_lsti.converters.plan import Plan, Table
from recbole_lsti.converters.split import PARTS
from recbole_lsti.converters.sql import count, ident, one_row

WITHHELD = "(withheld: the run protects users)"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha.update(chunk)
    return sha.hexdigest()


def _plain(name: str) -> str:
    """Return a field's name in YAML: quoted where it would be read as a truth value, a number or nothing."""
    special = name.lower() in ("yes", "no", "true", "false", "on", "off", "null") or name[0].isdigit()
    return json.dumps(name, ensure_ascii=False) if special else name


def config_yaml(plan: Plan, tables: Sequence[Table]) -> str:
    """Return a configuration ready for RecBole's ``--config_files``.

    Args:
        plan (Plan): name, output and split.
        tables (Sequence[Table]): as written. Every loaded field is listed, so that nothing is read by accident.
    """
    load = {table.kind: [f.name for f in table.fields] for table in tables}
    inter = next((table for table in tables if table.kind == "inter"), None)
    lines = [
        f"# How RecBole reads {plan.name}; made by recbole-lsti convert.",
        f"data_path: {json.dumps(str(plan.output))}",
        f"dataset: {json.dumps(plan.name)}",
        'field_separator: "\\t"',
        'seq_separator: " "',
    ]
    if inter is not None:
        user, item = inter.keys
        lines += [f"USER_ID_FIELD: {user}", f"ITEM_ID_FIELD: {item}"]
        if inter.get("rating"):
            lines.append("RATING_FIELD: rating")
        if inter.time is not None:
            load["inter"].append(inter.time.name)
            lines.append(f"TIME_FIELD: {inter.time.name}")
        if plan.split is not None:
            lines.append(f"benchmark_filename: [{', '.join(PARTS)}]")
            if plan.split.layout == "sequences":
                load["inter"].insert(1, f"{item}_list")
                lines.append(f"alias_of_item_id: [{item}_list]")
                lines.append(f"MAX_ITEM_LIST_LENGTH: {plan.split.max_len}")
                lines.append("train_mode: prefix")  # of recbole_lsti: a row is a target with its list
        else:
            order = "TO" if inter.time is not None else "RO"
            lines.append(f"eval_args: {{split: {{LS: valid_and_test}}, order: {order}, group_by: user, mode: full}}")
    lines.append("load_col:")
    lines += [f"  {kind}: [{', '.join(map(_plain, names))}]" for kind, names in load.items()]
    return "\n".join(lines) + "\n"


def write_rejects(con: duckdb.DuckDBPyConnection, loaded: Sequence[Loaded], path: Path, withhold: bool) -> None:
    """Write file, line, reason and raw line of every rejected row, if there is any.

    Args:
        con (DuckDBPyConnection): holds ``rejects``.
        loaded (Sequence[Loaded]): to name the files.
        path (Path): where to.
        withhold (bool): leave raw lines out, as they name users.
    """
    names = {table.kind: [file.name for file in table.files] for table in loaded}
    rows = con.execute("SELECT kind, file, line, reason, raw FROM rejects ORDER BY kind, file, line, rowid").fetchall()
    if rows:
        with path.open("w", encoding="utf-8", newline="\n") as out:
            out.write("file\tline\treason\traw\n")
            for kind, file, line, reason, raw in rows:
                text = WITHHELD if withhold else (raw or "").replace("\\", "\\\\").replace("\t", "\\t")
                out.write(f"{names[kind][file]}\t{line}\t{reason}\t{text}\n")


def table_report(con: duckdb.DuckDBPyConnection, loaded: Loaded, table: Table) -> dict[str, object]:
    """Return the counts of one table and how it was understood."""
    reasons = con.execute(
        "SELECT reason, count(*) FROM rejects WHERE kind = ? GROUP BY 1 ORDER BY 2 DESC, 1", [loaded.kind]
    ).fetchall()
    facts: dict[str, object] = {
        "rows_in": loaded.rows_in,
        "rejected": dict(reasons),
        "repeated_keys": loaded.repeated_keys,
        "fields": {f.name: f.type for f in table.fields},
    }
    facts["rows_written"] = count(con, f"SELECT count(*) FROM {table.kind}")
    if table.kind == "inter":
        user, item = (ident(name) for name in table.keys)
        measures = f"count(DISTINCT {user}), count(DISTINCT {item}), min(_ts), max(_ts)"
        users, items, first, last = one_row(con, f"SELECT {measures} FROM inter")
        facts["users"], facts["items"] = users, items
        if table.time is not None:
            grain = max(1, table.time.grain)
            facts["fields"] = {**{f.name: f.type for f in table.fields}, table.time.name: "float"}
            facts["time_format"] = loaded.time_format
            facts["first_second"], facts["last_second"] = (ns // 10**9 // grain * grain for ns in (first, last))
    return facts


def input_facts(loaded: Sequence[Loaded]) -> list[dict[str, object]]:
    """Return name, bytes, digest and encoding of every input, each once."""
    facts: dict[str, dict[str, object]] = {}
    for table in loaded:
        for file in table.files:
            facts[file.name] = {
                "file": file.name,
                "bytes": file.path.stat().st_size,
                "sha256": digest(file.path),
                "encoding": file.encoding,
            }
    return list(facts.values())


def output_facts(folder: Path) -> list[dict[str, object]]:
    """Return name, bytes and digest of every file in a folder, by name."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [{"file": p.name, "bytes": p.stat().st_size, "sha256": digest(p)} for p in files]


def write_report(report: Mapping[str, object], path: Path) -> None:
    """Write the report as JSON; it holds no time of day, so that the same run gives the same bytes."""
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
