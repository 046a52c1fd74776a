"""A table nobody has described: look at its first rows, find the columns, and say what was found."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb

from recbole_lsti.converters.load import peek
from recbole_lsti.converters.plan import FIELD_TYPES, Field, Format, Table, TimeSpec
from recbole_lsti.converters.readers.csv_reader import CsvReader
from recbole_lsti.converters.readers.open import open_reader
from recbole_lsti.converters.readers.parquet_reader import ParquetReader
from recbole_lsti.converters.readers.reader import Reader, missing_column
from recbole_lsti.converters.recognise import infer_type, recognise, simplify
from recbole_lsti.converters.streams import InputFile
from recbole_lsti.errors import AtomicFileError

ROLE_FIELDS = {"user": "user_id", "item": "item_id", "rating": "rating", "behavior": "behavior"}


@dataclass(frozen=True)
class Wishes:
    """What the flags say of one table; whatever is None or empty is found out.

    Attributes:
        roles: role (``user``, ``item``, ``time``, ``rating``, ``behavior``) to column.
        features: further columns, each as ``COLUMN[:type[:separator]]``.
        time_format, zone: see :class:`TimeSpec`.
        grain: seconds to which times are rounded down.
    """

    roles: dict[str, str] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    time_format: str | None = None
    zone: str = "UTC"
    grain: int = 0


def expand(names: Sequence[str]) -> tuple[Path, ...]:
    """Return the files that names and glob patterns stand for, in the order given.

    Raises:
        AtomicFileError: if a pattern matches nothing, or a file is there twice, which would double its rows.
    """
    paths: list[Path] = []
    for name in names:
        if Path(name).exists() or not glob.has_magic(name):
            paths.append(Path(name))
            continue
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise AtomicFileError(f"{name} (no match) must match at least one file")
        paths += map(Path, matches)
    first: dict[Path, Path] = {}
    for path in paths:
        earlier = first.setdefault(path.resolve(), path)
        if earlier is not path:
            also = "" if earlier == path else f", first as {earlier}"
            raise AtomicFileError(f"{path} (given twice{also}) must be given once")
    return tuple(paths)


def describe_inter(paths: tuple[Path, ...], fmt: Format, wishes: Wishes) -> tuple[Table, list[str]]:
    """Return the table of interactions that these files hold.

    Returns:
        tuple[Table, list[str]]: and what was recognised or inferred, a line each, for the user to see.
    Raises:
        AtomicFileError: if no column is the user or the item, or a named column is not there.
    """
    reader = open_reader(InputFile(paths[0], fmt.encoding), fmt)
    _refuse_idle(fmt, reader)
    notes: list[str] = []
    roles = _roles(reader, fmt, wishes, notes)
    if missing := [f"--{role}" for role in ("user", "item") if role not in roles]:
        if "time" not in roles:
            missing.append("--time, if there is one,")
        raise AtomicFileError(f"{' and '.join(missing)} must name one of the columns {', '.join(reader.columns)}")
    fields = [Field("user_id", "token", roles["user"][0], required=True)]
    fields.append(Field("item_id", "token", roles["item"][0], required=True))
    if "rating" in roles:
        fields.append(Field("rating", "float", roles["rating"][0]))
    time = None
    if "time" in roles:
        time = TimeSpec(roles["time"], wishes.time_format, wishes.zone, grain=wishes.grain)
    else:
        notes.append("no time: rows keep the order of the input")
    time_at = len(fields)
    if "behavior" in roles:
        fields.append(Field("behavior", "token", roles["behavior"][0]))
    played = {f.source for f in fields} | set(roles.get("time", ()))
    further = tuple(spec for spec in wishes.features if spec not in played)
    fields += _features(reader, further, {f.name for f in fields} | {"timestamp"}, notes)
    used = {f.source for f in fields} | set(roles.get("time", ()))
    ignored = [name for name in reader.columns if name not in used]
    if ignored:
        notes.append(f"ignored: {', '.join(ignored)} (--feature adds a column)")
    return Table("inter", tuple(fields), time, time_at, paths, format=_known(fmt, reader)), notes


def describe_side(kind: str, paths: tuple[Path, ...], fmt: Format, wishes: Wishes) -> tuple[Table, list[str]]:
    """Return the table of items or of users that these files hold: the key, and every other column (or the asked ones).

    Raises:
        AtomicFileError: if no column is the key.
    """
    reader = open_reader(InputFile(paths[0], fmt.encoding), fmt)
    notes: list[str] = []
    key = wishes.roles.get(kind) or next(iter(recognise(reader.columns, (kind,)).get(kind, ())), None)
    if key is None and len(simple := [c for c in reader.columns if simplify(c) == "id"]) == 1:
        key = simple[0]
    if key is None:
        raise AtomicFileError(f"--{kind} must name the key of {reader.file.name}, one of {', '.join(reader.columns)}")
    if not reader.has(key):
        raise missing_column(reader.file.name, key, reader.columns)
    notes.append(f"{kind} = column {key}")
    specs = wishes.features or tuple(name for name in reader.columns if name != key)
    fields = [Field(ROLE_FIELDS[kind], "token", key, required=True)]
    fields += _features(reader, specs, {ROLE_FIELDS[kind]}, notes)
    return Table(kind, tuple(fields), files=paths, format=_known(fmt, reader)), notes


def _refuse_idle(fmt: Format, reader: Reader) -> None:
    """Refuse what is said of the layout of a file that has no such layout."""
    if isinstance(reader, CsvReader):
        return
    said = {"--sep": fmt.sep is not None, "--no-header": not fmt.header, "--quote": not fmt.quote}
    said["--encoding"] = fmt.encoding is not None and isinstance(reader, ParquetReader)
    for flag in (flag for flag, is_said in said.items() if is_said):
        kind = "Parquet" if isinstance(reader, ParquetReader) else "JSON"
        raise AtomicFileError(f"{flag} must not be given with {reader.file.name}, which is {kind}")


def _known(fmt: Format, reader: Reader) -> Format:
    """Return the format with the separator that was found, so that every file of the table is split alike."""
    return replace(fmt, sep=reader.sep) if isinstance(reader, CsvReader) else fmt


def _roles(reader: Reader, fmt: Format, wishes: Wishes, notes: list[str]) -> dict[str, tuple[str, ...]]:
    asked = {role: tuple(column.split(",")) if role == "time" else (column,) for role, column in wishes.roles.items()}
    for role, columns in asked.items():
        if len(set(columns)) < len(columns):
            raise AtomicFileError(f"--{role} ({','.join(columns)}) must name each column once")
        for column in columns:
            if not reader.has(column):
                raise missing_column(reader.file.name, column, reader.columns)
    if not fmt.header and isinstance(reader, CsvReader):
        return asked
    taken = {column for columns in asked.values() for column in columns}
    free = [column for column in reader.columns if column not in taken]
    found = recognise(free, tuple(role for role in ("user", "item", "time", "rating", "behavior") if role not in asked))
    notes += [f"{role} = column {' '.join(columns)} (recognised)" for role, columns in found.items()]
    return {**found, **asked}


def _features(reader: Reader, specs: Sequence[str], taken: set[str], notes: list[str]) -> list[Field]:
    """Return a field for every ``COLUMN[:type[:separator]]``, with types inferred where none is said."""
    if len(set(specs)) < len(specs):
        again = next(spec for at, spec in enumerate(specs) if spec in specs[:at])
        raise AtomicFileError(f"feature ({again}) of {reader.file.name} must be given once")
    parsed = [_feature_spec(spec, reader) for spec in specs]
    open_columns = [column for column, kind, _ in parsed if kind is None]
    con = duckdb.connect(config={"threads": 1})
    values = peek(con, reader, open_columns) if open_columns else {}
    con.close()
    fields, taken = [], {"rowid", *taken}  # rowid: a column of that name would hide the engine's own, the order of rows
    for column, kind, sep in parsed:
        name = re.sub(r"\W+", "_", column).strip("_") or "feature"
        if name[0].isdigit():
            name = f"column_{name}"
        while name.lower() in taken:  # the engine does not tell cases apart
            name += "_"
        taken.add(name.lower())
        if kind is None:
            kind, sep = infer_type(column, values[column])
            between = f" separated by {sep!r}" if sep else ""
            notes.append(f"{name} = column {column}, {kind}{between} (inferred)")
        fields.append(Field(name, kind, column, sep))
    return fields


def _feature_spec(spec: str, reader: Reader) -> tuple[str, str | None, str | None]:
    """Split ``COLUMN[:type[:separator]]``; a column's own name may hold colons."""
    if reader.has(spec):
        return spec, None, None
    for kind in sorted(FIELD_TYPES, key=len, reverse=True):
        column, found, sep = spec.partition(f":{kind}:")
        if found and reader.has(column):
            return column, kind, sep or None
        if spec.endswith(f":{kind}") and reader.has(spec[: -len(kind) - 1]):
            return spec[: -len(kind) - 1], kind, None
    column, _, kind = spec.partition(":")
    if reader.has(column):
        return column, kind.partition(":")[0], None  # an unknown type: Field says which there are
    raise missing_column(reader.file.name, column, reader.columns)
