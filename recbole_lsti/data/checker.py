"""Check the atomic files of a data set: what is wrong, what is odd, what the data look like; no torch, no RecBole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_lsti.data.lines import line_of_row, scan_lines
from recbole_lsti.data.profile import QUANTILES, Damage, float32_damage, profile
from recbole_lsti.data.reader import read_header, read_table
from recbole_lsti.errors import AtomicFileError

SHOWN = 5  # lines named for one kind of mistake
YEAR_2100 = 4_102_444_800  # Unix seconds


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are looked at, as RecBole's *_FIELD settings name them, and how files are read."""

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    separator: str = "\t"
    seq_separator: str = " "
    encoding: str = "utf-8"

    def line_of(self, path: Path, row: int) -> int:
        """Return the number, from 1, of the line in which a row of a file, from 0, begins."""
        return line_of_row(path, int(row), self.separator, self.encoding)


@dataclass
class Report:
    """What a check has found.

    Attributes:
        files: a line for each file that could be read.
        errors: what RecBole cannot work with, each with file, line and rule.
        notes: what works, but is worth knowing.
        numbers: see `profile`; empty where the interactions cannot be read.
        damage: what RecBole's sort would do; None without time.
    """

    files: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    damage: Damage | None = None


def check(folder: str | Path, columns: Columns | None = None, session_gap: float = 1800.0) -> Report:
    """Check every atomic file of a folder, `<folder>/<its name>.<suffix>`.

    Args:
        folder: the data set's folder.
        columns: names of columns, separators, encoding.
        session_gap (float): seconds after which a new session begins, for the statistics.
    """
    folder, columns, report = Path(folder), columns or Columns(), Report()
    beside = {".yaml", ".json", ".tsv"}  # what convert writes beside the data
    paths = sorted(path for path in folder.glob(f"{folder.name}.*") if path.is_file() and path.suffix not in beside)
    tables = {path: _check_file(path, columns, report) for path in paths}
    inter_path = folder / f"{folder.name}.inter"
    parts = [table for path, table in tables.items() if path.suffix == ".inter" and table is not None]
    if not any(path.suffix == ".inter" for path in paths):
        report.errors.append(f"{inter_path}: the file must exist")
    if inter_path in tables:
        inter = tables[inter_path]
    else:  # a data set that is split already
        inter = pd.concat([_plain(part) for part in parts], ignore_index=True) if parts else None
    for name, key in (("user", columns.user), ("item", columns.item)):
        table = tables.get(folder / f"{folder.name}.{name}")
        if table is not None and key in table:
            _check_keys(folder / f"{folder.name}.{name}", table[key], columns, report)
            if inter is not None and key in inter:
                _compare_ids(name, table[key], inter[key], report)
    if inter is not None and {columns.user, columns.item} <= set(inter):
        _look_at(inter, columns, session_gap, report)
        if inter_path in tables and not report.errors and report.numbers and report.numbers["length"][-1] == 1:
            report.errors.append(f"{inter_path}: there must be a user with two events or more to train on")
    return report


def _check_file(path: Path, columns: Columns, report: Report) -> pd.DataFrame | None:
    """Read a file; None, and an error in the report, where that is not possible."""
    ragged: list[tuple[int, int]] = []
    try:
        header = read_header(path, columns.separator, columns.encoding)
        scan_lines(path, columns.separator, len(header), columns.encoding, ragged)
        if ragged:
            for line, found in ragged[:SHOWN]:
                rule = f"columns ({found}) must be as many as the header has ({len(header)})"
                report.errors.append(str(AtomicFileError.at(path, line, rule)))
            if len(ragged) > SHOWN:
                report.errors.append(f"{path}: {len(ragged) - SHOWN} more lines have too few or too many columns")
            return None
        table, lines = read_table(
            path,
            exact={columns.time},
            separator=columns.separator,
            seq_separator=columns.seq_separator,
            encoding=columns.encoding,
        )
    except ValueError as error:
        report.errors.append(str(error))
        return None
    report.files.append(f"{path.name}: {len(table):,} rows, {', '.join(entry.heading for entry in header)}")
    _check_bytes(path, lines.joined, report)
    needed = [columns.user, columns.item, columns.time] if path.suffix == ".inter" else []
    for name in needed:
        if name not in table:
            report.errors.append(str(AtomicFileError.at(path, 1, f"column {name} must be there")))
    _check_values(path, table, needed, columns, report)
    return table


def _check_bytes(path: Path, joined: int, report: Report) -> None:
    with open(path, "rb") as file:
        head = file.readline()
    if head.startswith(b"\xef\xbb\xbf"):
        report.notes.append(f"{path.name}: begins with a byte order mark; RecBole itself refuses the file")
    if head.endswith(b"\r\n"):
        report.notes.append(f"{path.name}: lines end with CRLF")
    if joined:
        report.notes.append(f"{path.name}: {joined} lines are part of a quoted field that began above them")


def _check_values(path: Path, table: pd.DataFrame, needed: list[str], columns: Columns, report: Report) -> None:
    """Look for missing, infinite and negative values; in an .inter file, for rows that are there twice."""
    for name, values in table.items():
        if values.dtype == object:  # lists: empty where missing
            continue
        missing = np.flatnonzero(values.isna())
        if len(missing):
            key = path.suffix[1:] in ("user", "item") and values.name == table.columns[0]
            fate = (
                "RecBole drops the row"
                if key or name in needed[:2]
                else "RecBole fills in the mean, or the padding token"
            )
            where = f"first in line {columns.line_of(path, missing[0])}"
            report.notes.append(f"{path.name}: {len(missing):,} missing values of {name} ({where}): {fate}")
        if values.dtype.kind == "f" and np.isinf(values).any():
            row = int(np.flatnonzero(np.isinf(values))[0])
            rule = f"{name} ({values.iloc[row]}) must be a finite number"
            report.errors.append(str(AtomicFileError.at(path, columns.line_of(path, row), rule)))
    if len(needed) == 3 and needed[2] in table and table[needed[2]].dtype.kind in "if":
        _check_time(path, needed[2], table[needed[2]].to_numpy(), report)
    if needed and set(needed) <= set(table):
        repeated = int(table.duplicated(needed).sum())
        if repeated:
            report.notes.append(f"{path.name}: {repeated:,} rows repeat user, item and time of a row above")


def _check_time(path: Path, name: str, time: np.ndarray, report: Report) -> None:
    negative = int(np.count_nonzero(time < 0))
    if negative:
        report.notes.append(f"{path.name}: {negative:,} times are before 1970 ({name} below 0)")
    if np.nanmedian(time) > YEAR_2100:
        report.notes.append(
            f"{path.name}: {name} must be in seconds; half of it reads as after 2100, as milliseconds do"
        )
    earlier = int(np.count_nonzero(time[1:] < time[:-1]))
    if earlier:
        report.notes.append(f"{path.name}: {earlier:,} rows are earlier than the row above them")


def _check_keys(path: Path, keys: pd.Series, columns: Columns, report: Report) -> None:
    repeated = np.flatnonzero(keys.duplicated() & keys.notna())
    if len(repeated):
        first = int(repeated[0])
        where = f"first in line {columns.line_of(path, first)}: {keys.iloc[first]}"
        report.notes.append(f"{path.name}: {len(repeated):,} rows repeat a {keys.name} ({where}); the first row counts")


def _compare_ids(name: str, known: pd.Series, met: pd.Series, report: Report) -> None:
    known_ids, met_ids = set(known.dropna().unique()), set(met.dropna().unique())
    lacking, idle = len(met_ids - known_ids), len(known_ids - met_ids)
    if lacking:
        report.notes.append(
            f"{lacking:,} of {len(met_ids):,} {name}s have no row in the .{name} file; RecBole drops their "
            "interactions unless filter_inter_by_user_or_item is False"
        )
    if idle:
        report.notes.append(f"{idle:,} of {len(known_ids):,} {name}s of the .{name} file have no interactions")


def _look_at(inter: pd.DataFrame, columns: Columns, session_gap: float, report: Report) -> None:
    whole = inter[columns.user].notna() & inter[columns.item].notna()
    time = inter.get(columns.time)
    if time is not None and time.dtype.kind in "if":
        whole &= np.isfinite(time)
    else:
        report.notes.append(f"no time: the .inter file has no float column {columns.time}")
        time = None
    if not whole.any():
        return
    user, _ = pd.factorize(inter[columns.user][whole])
    item, _ = pd.factorize(inter[columns.item][whole])
    exact = None if time is None else time[whole].to_numpy()
    report.numbers = profile(user, item, exact, session_gap)
    if exact is not None:
        report.damage = float32_damage(user, item, exact)


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype({name: object for name, values in table.items() if values.dtype == "category"})


def format_report(name: str, report: Report, session_gap: float = 1800.0) -> str:
    """Return the report as text: files, errors, notes, statistics, damage, verdict."""
    lines = [f"files of {name}", *(f"  {line}" for line in report.files)]
    for title, found in (("errors", report.errors), ("notes", report.notes)):
        if found:
            lines += ["", title, *(f"  {line}" for line in found)]
    numbers = report.numbers
    if numbers:
        lines += ["", "statistics"]
        for key in ("users", "items", "rows"):
            lines.append(f"  {key:<22}{numbers[key]:>14,}")
        lines.append(f"  {'density':<22}{numbers['density']:>14.4%}")
        lines.append(f"  {'repeat share':<22}{numbers['repeat_share']:>14.2%}")
        lines.append(f"  {'at the quantiles':<22}" + "".join(f"{quantile:>12.0%}" for quantile in QUANTILES))
        lines.append(f"  {'rows of a user':<22}" + "".join(f"{value:>12,.0f}" for value in numbers["length"]))
        if numbers.get("gap"):
            lines.append(f"  {'gap to the last, s':<22}" + "".join(f"{value:>12,.0f}" for value in numbers["gap"]))
        if "sessions" in numbers:
            lines.append(
                f"  {'sessions':<22}{numbers['sessions']:>14,}  (gap above {session_gap:g} s), "
                f"{numbers['sessions_per_user']:.1f} a user, {numbers['rows_per_session']:.1f} rows each"
            )
    if report.damage is not None:
        moved, changed, users = report.damage
        lines += [
            "",
            "RecBole's sort by float32 time",
            f"  {'rows moved':<22}{moved:>14,}  {moved / numbers['rows']:.1%} of the rows",
            f"  {'test items changed':<22}{changed:>14,}  {changed / users:.1%} of the users (leave-one-out)",
        ]
    lines += ["", f"{len(report.errors)} errors, {len(report.notes)} notes"]
    return "\n".join(lines)
