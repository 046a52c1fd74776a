"""Named sources: one module each, registered by name, with the publisher's file names and columns.

A module defines ``SOURCES``, and where RecSysDatasets converts the same files, ``DROP_INS``: what its fields are called
there. Every table says which file names it answers to; a folder, the files themselves, or a zip archive will do.
"""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from recbole_lsti.converters.plan import Table
from recbole_lsti.converters.streams import COMPRESSED_SUFFIXES, members
from recbole_lsti.errors import AtomicFileError, one_of


@dataclass(frozen=True)
class Source:
    """A publisher's data set.

    Attributes:
        name: how it is asked for.
        title: what it is, in a few words.
        tables: of interactions, items and users. Where several have one kind, the first whose files are there is read.
        reference: whom to cite.
    """

    name: str
    title: str
    tables: tuple[Table, ...]
    reference: str = ""

    @property
    def files(self) -> str:
        """The expected files, for ``--list``."""
        return "; ".join(f"{table.kind}: {' or '.join(names_of(table))}" for table in self.tables)


@dataclass(frozen=True)
class DropIn:
    """A data set as RecSysDatasets writes it.

    Attributes:
        dataset: its name for ``--dataset``, in lower case.
        stem: name of the written files; ``{type}`` stands for ``--interaction_type``.
        variants: the tables, with the fields' names there, for each ``--interaction_type``; ``""`` where there is none.
        count: name of the field that counts merged rows under ``--duplicate_removal``; None: it has no effect.
        keep: which of the merged rows stays, see :data:`DUPLICATES`.
        merged_without: fields that merged rows do not have.
        folder: a folder below the output folder, with ``{type}`` too, or "".
        side_stem: name of the files of items and users where it differs from ``stem``.
    """

    dataset: str
    stem: str
    variants: Mapping[str, tuple[Table, ...]]
    count: str | None = None
    keep: str = "last"
    merged_without: tuple[str, ...] = ()
    folder: str = ""
    side_stem: str = ""


def names_of(table: Table) -> list[str]:
    """Return the file names a table answers to; patterns that start with ``!`` only exclude."""
    return [pattern for pattern in table.patterns if not pattern.startswith("!")]


@cache
def registry() -> dict[str, Source]:
    """Return every source by name."""
    return {source.name: source for module in _modules() for source in getattr(module, "SOURCES", ())}


@cache
def drop_ins() -> dict[str, tuple[DropIn, ...]]:
    """Return every data set that converts as RecSysDatasets does, by the name it has there; one may make two."""
    found: dict[str, tuple[DropIn, ...]] = {}
    for module in _modules():
        for entry in getattr(module, "DROP_INS", ()):
            found[entry.dataset] = (*found.get(entry.dataset, ()), entry)
    return found


def _modules() -> list:
    names = sorted(info.name for info in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def get(name: str) -> Source:
    """Return a source by name.

    Raises:
        AtomicFileError: if there is none, with the nearest name.
    """
    sources = registry()
    if name not in sources:
        raise one_of("--source", name, sources)
    return sources[name]


def locate(tables: Sequence[Table], paths: Sequence[Path], who: str, needed: str = "inter") -> tuple[Table, ...]:
    """Return the tables whose files are there, each with its files.

    Args:
        tables (Sequence[Table]): as the source defines them.
        paths (Sequence[Path]): folders, files or zip archives.
        who (str): the source's name, for the message.
        needed (str): the kind of table there must be.
    Raises:
        AtomicFileError: if there is no file for that kind, with the names looked for; or a file is there twice, or
            beside its 5-core.
    """
    candidates = [(*file, path) for path in paths for file in _candidates(path)]
    found: dict[str, Table] = {}
    for table in tables:
        files = [file for file in candidates if _matches(file[0], table.patterns)]
        if files and table.kind not in found:
            _refuse_twice(files, who)
            _refuse_subset(files, who)
            found[table.kind] = replace(table, files=tuple(path for _, path, _ in files))
    if needed not in found:
        wanted = [name for table in tables if table.kind == needed for name in names_of(table)]
        there = ", ".join(sorted({name for name, _, _ in candidates})[:10]) or "nothing"
        raise AtomicFileError(f"{who} must find one of {', '.join(wanted)} among the files given; there is {there}")
    return tuple(found[kind] for kind in ("inter", "item", "user") if kind in found)


def _candidates(path: Path) -> list[tuple[str, Path]]:
    """Return (base name, path) of every file that a path offers."""
    if path.is_dir():
        return [pair for file in sorted(path.rglob("*")) if file.is_file() for pair in _candidates(file)]
    offers = [(path.name, path)]
    if path.suffix.lower() == ".zip" and zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                offers += [(Path(member).name, Path(f"{path}:{member}")) for member in members(archive)]
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise AtomicFileError(f"{path} must be a whole, readable file: {error}") from error
    return offers


def _refuse_twice(files: Sequence[tuple[str, Path, Path]], who: str) -> None:
    """Refuse a file that lies in two places: an archive beside what was unpacked from it would double every row.

    Files of one name from two files, two archives or two folders that were given, such as the parts of MIND, are meant,
    but not one file that two of these lead to.
    """
    places: dict[str, tuple[str, Path, Path]] = {}
    real: set[Path] = set()
    for file in files:
        first = places.setdefault(_unpacked(file[0]).lower(), file)
        alike = file[0] == first[0] and (file[2].is_dir(), file[2].suffix) == (first[2].is_dir(), first[2].suffix)
        meant = alike and file[2] != first[2] and file[1].resolve() not in real
        real.add(file[1].resolve())
        if file is not first and not meant:
            raise AtomicFileError(
                f"{who} (finds {first[1]} and {file[1]}) must find each file once; name one of them, or each if both "
                "are meant"
            )


def _refuse_subset(files: Sequence[tuple[str, Path, Path]], who: str) -> None:
    """Refuse a file beside its 5-core (``_5``, as Amazon's has it), whose rows are among the file's own."""
    stems = {Path(_unpacked(name)).stem.lower(): path for name, path, _ in files}
    for stem, path in stems.items():
        whole = stems.get(stem.removesuffix("_5"), path)
        if whole != path:
            raise AtomicFileError(f"{who} (finds {whole} and its 5-core {path}) must find one of them; name that")


def _unpacked(name: str) -> str:
    """Return a file's name without the suffix of .gz and .zst; a zip archive offers its members."""
    return Path(name).stem if Path(name).suffix.lower() in COMPRESSED_SUFFIXES[::2] else name


def _matches(name: str, patterns: Sequence[str]) -> bool:
    stems = {name, _unpacked(name)}

    def hit(pattern: str) -> bool:
        return any(fnmatch.fnmatch(stem.lower(), pattern.lower()) for stem in stems)

    return any(map(hit, patterns)) and not any(hit(pattern[1:]) for pattern in patterns if pattern.startswith("!"))
