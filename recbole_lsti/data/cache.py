"""A folder of cached tables: plain data as JSON, arrays as npy files that are memory-mapped, no pickle.

An entry is a folder, written beside its final name and renamed when it is complete, so that concurrent runs see all of
it or nothing. The folder is bounded: entries used least recently go first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FORMAT = 2  # of entries; another one is another name, so that old entries are never read
BLOCK = 1 << 20  # bytes that are read at a time to be checked
LEFT_OVER = 24 * 3600  # seconds after which an entry that was never completed is taken to be a dead run's

DRAFT = re.compile(r"\..+-\d+-[0-9a-f]{8}")  # names of entries that are being written

logger = logging.getLogger()


class Entry(NamedTuple):
    """What is cached under a name: plain data, and arrays by name."""

    plain: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Cache:
    """Entries in a folder.

    Args:
        folder: made when something is written.
        max_gib (float): the entries together are no larger; the newest one stays in any case.
    """

    def __init__(self, folder: str | Path, max_gib: float) -> None:
        self.folder, self.max_bytes = Path(folder).expanduser(), int(max_gib * 2**30)

    def load(self, name: str) -> Entry | None:
        """Return an entry with its arrays memory-mapped, None if there is none; a corrupt one is told and removed."""
        path = self.folder / name
        if not path.is_dir():
            self._forget_stale(name)
            return None
        try:
            entry = _read(path)
        except (OSError, ValueError, KeyError) as error:
            logger.warning(f"cache {path} is corrupt ({' '.join(str(error).split())}): rebuilt")
            shutil.rmtree(path, ignore_errors=True)
            return None
        with suppress(OSError):  # read-only, or evicted by another run: the arrays are mapped already
            os.utime(path)
        return entry

    def save(self, name: str, entry: Entry) -> None:
        """Write an entry; where that fails, one line tells why and nothing is left behind."""
        draft = self.folder / f".{name}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            draft.mkdir(parents=True)
            _write(draft, entry)
            os.rename(draft, self.folder / name)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            if not (self.folder / name).is_dir():  # else another run was first
                logger.warning(f"cache {self.folder} cannot be written ({error.strerror}): this run goes on without")
            return
        self._evict(name)

    def _forget_stale(self, name: str) -> None:
        """Remove entries of the same data set and settings whose files were other ones."""
        for path in self.folder.glob(f"{name.rpartition('-')[0]}-*"):
            logger.warning(f"cache {path} is stale (the files have changed): rebuilt")
            shutil.rmtree(path, ignore_errors=True)

    def _evict(self, newest: str) -> None:
        sizes = {}
        for path in self.folder.iterdir():
            try:
                if not _is_ours(path):
                    continue
                changed = path.stat().st_mtime
                if not DRAFT.fullmatch(path.name):
                    sizes[path] = (changed, sum(file.stat().st_size for file in path.iterdir()))
                elif time.time() - changed > LEFT_OVER:
                    shutil.rmtree(path, ignore_errors=True)
            except OSError:  # another run has just removed it
                continue
        total = sum(size for _, size in sizes.values())
        for path, (_, size) in sorted(sizes.items(), key=lambda item: item[1]):
            if total > self.max_bytes and path.name != newest:
                logger.info(f"cache {path}: removed, cache_max_gib is reached")
                shutil.rmtree(path, ignore_errors=True)
                total -= size


def entry_name(dataset: str, settings: Mapping[str, Any], files: Iterable[str | Path]) -> str:
    """Return the name under which tables are cached: data set, digest of the settings, digest of the files.

    Args:
        dataset (str): its name.
        settings: what shapes the tables.
        files: the atomic files, all of them read to the last byte.
    """
    paths = [Path(file) for file in files]
    folders = sorted({str(file.resolve().parent) for file in paths})  # two data sets may have one name
    text = json.dumps([FORMAT, folders, dict(settings)], sort_keys=True, default=str)
    content = [(file.name, file_digest(file)) for file in paths]
    return f"{dataset}-{_short(text)}-{_short(json.dumps(content))}"


def file_digest(path: str | Path) -> str:
    """Return the BLAKE2b digest of a file, as hexadecimal text; about 1 GB a second."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _is_ours(path: Path) -> bool:
    """Whether a path is an entry, or the draft of one: whoever names a folder that holds other things keeps them."""
    if path.is_symlink() or not path.is_dir():
        return False
    names = {file.name for file in path.iterdir()}
    there = "tables.json.digest" in names or DRAFT.fullmatch(path.name) is not None
    return there and all(re.fullmatch(r"\d+\.npy|tables\.json(\.digest)?", name) for name in names)


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _write(folder: Path, entry: Entry) -> None:
    marks = {}
    for number, (name, array) in enumerate(entry.arrays.items()):
        path = folder / f"{number}.npy"
        np.save(path, array, allow_pickle=False)
        marks[name] = [path.name, _mark(path)]
    text = json.dumps({"plain": entry.plain, "arrays": marks}, ensure_ascii=False).encode()
    (folder / "tables.json").write_bytes(text)
    (folder / "tables.json.digest").write_text(file_digest(folder / "tables.json"), encoding="ascii")


def _read(folder: Path) -> Entry:
    if file_digest(folder / "tables.json") != (folder / "tables.json.digest").read_text(encoding="ascii"):
        raise ValueError("tables.json is not what was written")
    content = json.loads((folder / "tables.json").read_bytes())
    arrays = {}
    for name, (file, mark) in content["arrays"].items():
        if _mark(folder / file) != mark:
            raise ValueError(f"{file} is not what was written")
        # copy-on-write: torch wants arrays that may be written to, and the file must stay what it is
        arrays[name] = np.load(folder / file, mmap_mode="c", allow_pickle=False)
    return Entry(content["plain"], arrays)


def _mark(path: Path) -> list[int]:
    """Size and CRC-32 of a file, about 3 GB a second: read, not mapped, so that its pages are not taken as ours."""
    checksum, block = 0, memoryview(bytearray(BLOCK))
    with open(path, "rb", buffering=0) as file:
        while length := file.readinto(block):
            checksum = zlib.crc32(block[:length], checksum)
    return [path.stat().st_size, checksum]
