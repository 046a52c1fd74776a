"""What one conversion is to do: plain dataclasses, checked before a single byte is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from recbole_lsti.errors import AtomicFileError, one_of

FIELD_TYPES = ("token", "token_seq", "float", "float_seq")
SCALINGS = ("minmax", "z", "log1p")
DUPLICATES = ("first", "last", "consecutive", "consecutive-last")
SPLITS = ("loo", "time", "ratio")
LAYOUTS = ("sequences", "rows")
GRAINS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}


@dataclass(frozen=True)
class Format:
    """How a file is laid out; None (and an empty tuple) mean: look into the file.

    Attributes:
        kind: ``csv``, ``json`` or ``parquet``.
        sep: the separator, of one or more characters.
        header: whether the first line names the columns.
        quote: whether ``"`` quotes fields.
        columns: the columns' names where no line of the file gives them.
        encoding: a Python codec name.
        decimal: the decimal mark, ``.`` or ``,``.
    """

    kind: str | None = None
    sep: str | None = None
    header: bool = True
    quote: bool = True
    columns: tuple[str, ...] = ()
    encoding: str | None = None
    decimal: str = "."


@dataclass(frozen=True)
class Field:
    """One column of an atomic file.

    Attributes:
        name: its name in the header.
        type: one of ``token``, ``token_seq``, ``float``, ``float_seq``.
        source: the input column, or SQL over input columns where ``is_sql`` is set (named sources only).
        sep: for sequences: what separates the values within a cell; None: white space, or a JSON array.
        required: an empty value rejects the row.
        personal: it tells who the user is, so that it becomes a pseudonym where user tokens do.
        is_moment: SQL of Unix seconds, which are rounded down where the times of the rows are.
    """

    name: str
    type: str
    source: str
    sep: str | None = None
    required: bool = False
    is_sql: bool = False
    personal: bool = False
    is_moment: bool = False

    def __post_init__(self) -> None:
        if self.type not in FIELD_TYPES:
            raise one_of(f"the type of {self.name}", self.type, FIELD_TYPES)
        if not re.fullmatch(r"\w+", self.name):
            raise AtomicFileError(f"field name ({self.name}) must consist of letters, digits and _")


@dataclass(frozen=True)
class TimeSpec:
    """Where the time of a row is, and how it is written.

    Attributes:
        source: the input columns, joined by a space where there are several; or SQL where ``is_sql`` is set.
        format: ``s``, ``ms``, ``us``, ``ns``, ``iso`` or a strptime pattern; None: look at the first rows.
        zone: the zone of times that state none.
        name: the field's name in the header.
        grain: seconds to which written times are rounded down; the order of rows stays that of the exact times.
        window: earliest and latest possible second; rows outside are rejected as impossible.
    """

    source: tuple[str, ...]
    format: str | None = None
    zone: str = "UTC"
    name: str = "timestamp"
    is_sql: bool = False
    grain: int = 0
    window: tuple[int, int] = (0, 4102444800)


@dataclass(frozen=True)
class Table:
    """One atomic file to be: where its rows come from and which fields it gets.

    Attributes:
        kind: ``inter``, ``item`` or ``user``.
        fields: in the order of the header.
        time: for ``inter``.
        time_at: the time's place among the fields; None: last.
        files: the inputs; for a named source, filled in from ``patterns``.
        patterns: glob patterns of the publisher's file names, any of which holds such rows.
        relation: SQL that derives rows from the raw ones (``{raw}``), to explode lists or drop lines.
        columns: the raw columns that ``relation`` and SQL fields read; those named plainly are added to them.
        after: SQL statements run on the loaded table, called ``{table}``.
        unique: keep the first row of every key, for items and users.
    """

    kind: str
    fields: tuple[Field, ...]
    time: TimeSpec | None = None
    time_at: int | None = None
    files: tuple[Path, ...] = ()
    patterns: tuple[str, ...] = ()
    format: Format = Format()
    relation: str = "SELECT * FROM {raw}"
    columns: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    unique: bool = True

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the required fields: the user's and the item's, or the key of a table of one of them."""
        return tuple(f.name for f in self.fields if f.required)

    def without(self, *names: str) -> Table:
        """Return the table without some fields; the time stays after the same fields."""
        at = self.time_at
        if at is not None:
            at -= sum(f.name in names for f in self.fields[:at])
        return replace(self, fields=tuple(f for f in self.fields if f.name not in names), time_at=at)

    def rounded(self, grain: int) -> Table:
        """Return the table with its time, and its fields of moments, rounded down to ``grain`` seconds."""
        time = None if self.time is None else replace(self.time, grain=grain)
        down = "CAST(CAST(floor(CAST(({}) AS DOUBLE) / {g}) * {g} AS BIGINT) AS VARCHAR)"
        fields = (replace(f, source=down.format(f.source, g=grain)) if f.is_moment else f for f in self.fields)
        return replace(self, time=time, fields=tuple(fields))

    def get(self, role: str) -> Field | None:
        """Return the field of a name, or None."""
        return next((f for f in self.fields if f.name == role), None)


@dataclass(frozen=True)
class Cleaning:
    """Steps that remove or add; each is off unless asked for. They run in the order of the attributes.

    Attributes:
        behaviors: keep these behaviours only.
        weights: behaviour to weight, added as the field ``weight``.
        since, until: first and last second kept, both included.
        rating_threshold: keep rows rated this or more, and drop the rating: implicit feedback.
        duplicates: of one user and item keep the ``first`` or ``last``; of immediate repeats keep the first
            (``consecutive``) or the last (``consecutive-last``).
        count_as: with ``duplicates``, the name of a field that says how many rows became one.
        k_core_user, k_core_item: fewest interactions of a user and of an item, repeated until both hold.
        sample_users: keep this many users, chosen by ``seed``.
        session_gap: seconds without an event after which a new session starts, added as ``session_id``.
    """

    behaviors: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    since: int | None = None
    until: int | None = None
    rating_threshold: float | None = None
    duplicates: str | None = None
    count_as: str | None = None
    k_core_user: int = 0
    k_core_item: int = 0
    sample_users: int = 0
    seed: int = 2020
    session_gap: int = 0

    def __post_init__(self) -> None:
        if self.duplicates is not None and self.duplicates not in DUPLICATES:
            raise one_of("--duplicates", self.duplicates, DUPLICATES)
        for name in ("k_core_user", "k_core_item", "sample_users", "session_gap"):
            if getattr(self, name) < 0:
                raise AtomicFileError(f"--{name.replace('_', '-')} ({getattr(self, name)}) must be 0 or more")


@dataclass(frozen=True)
class Privacy:
    """Pseudonyms and coarsening; off unless asked for.

    Attributes:
        key: the secret of the HMAC; None leaves user tokens as they are.
        drop_rare_users: drop users with fewer interactions than this.
    """

    key: bytes | None = None
    drop_rare_users: int = 0


@dataclass(frozen=True)
class Split:
    """Pre-split files for RecBole's ``benchmark_filename``.

    Attributes:
        kind: ``loo`` (last event of each user for test, the one before for validation), ``time`` (two cuts in global
            time) or ``ratio`` (two cuts in each user's events).
        ratios: shares of train, validation and test, for ``time`` and ``ratio``.
        layout: ``sequences`` (a row a target with the list of items before it: what RecBole's sequential models
            read) or ``rows`` (plain interactions, for general models).
        max_len: most items in such a list.
    """

    kind: str
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    layout: str = "sequences"
    max_len: int = 50

    def __post_init__(self) -> None:
        if self.kind not in SPLITS:
            raise one_of("--split", self.kind, SPLITS)
        if min(self.ratios) <= 0 or abs(sum(self.ratios) - 1) > 1e-6:
            got = ",".join(f"{share:g}" for share in self.ratios)
            raise AtomicFileError(f"--split ({self.kind}:{got}) must give three shares above 0 that sum to 1")
        if self.max_len < 1:
            raise AtomicFileError(f"--split-max-len ({self.max_len}) must be 1 or more")


@dataclass(frozen=True)
class Plan:
    """A whole conversion.

    Attributes:
        name: the data set's name: its folder and its files bear it.
        output: the folder in which ``name/`` is made.
        tables: the interactions first, then items and users.
        scalings: field to ``minmax``, ``z`` or ``log1p``, for float fields of any table.
        max_reject_share: share of bad rows of a table past which the conversion fails.
        command: the command line, for the report.
    """

    name: str
    output: Path
    tables: tuple[Table, ...]
    source: str | None = None
    cleaning: Cleaning = Cleaning()
    privacy: Privacy = Privacy()
    split: Split | None = None
    scalings: Mapping[str, str] = field(default_factory=dict)
    max_reject_share: float = 0.01
    max_expansion: float = 250.0
    overwrite: bool = False
    memory_mib: int = 640
    threads: int = 2
    command: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.\-]+", self.name) or self.name.startswith("."):
            raise AtomicFileError(f"--name ({self.name}) must consist of letters, digits, '_', '-' and '.'")
        if not 0 <= self.max_reject_share <= 1:
            raise AtomicFileError(f"--max-reject-share ({self.max_reject_share}) must be between 0 and 1")
        for name, scaling in self.scalings.items():
            if scaling not in SCALINGS:
                raise one_of(f"--normalize {name}", scaling, SCALINGS)

    @property
    def inter(self) -> Table | None:
        """The table of interactions, if it is among those asked for."""
        return next((table for table in self.tables if table.kind == "inter"), None)

    @property
    def withholds(self) -> bool:
        """Whether raw lines, which hold what is to be hidden, stay out of the list of rejects."""
        rounds = any(table.time is not None and table.time.grain for table in self.tables)
        return self.privacy.key is not None or self.privacy.drop_rare_users > 0 or rounds


Notify = Callable[[str, Mapping[str, object]], None]
"""Told what happens: an event's name and its facts. The command line turns it into a bar, lines, or JSON."""
