"""From a path to whole lines of UTF-8: decompression, encodings, and limits on both.

Everything is read as a stream in chunks of a few MiB, so memory does not depend on the size of a file, and an
archive is never unpacked to disk: a member called ``../../x`` has nowhere to escape to.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import pyarrow as pa

from recbole_lsti.errors import AtomicFileError, nearest

_T = TypeVar("_T")

CHUNK_BYTES = 4 << 20
MAX_LINE_BYTES = 16 << 20
BOMB_FLOOR_BYTES = 64 << 20  # below this much output, no ratio is suspicious
ENCODINGS = ("utf-8", "latin-1", "cp1252", "utf-16", "gb18030", "shift_jis", "euc-kr", "big5", "koi8-r", "cp1251")
WIDE = ("utf-16", "utf-32")  # decoded before lines are looked for: a line end is more than one byte
COMPRESSED_SUFFIXES = (".gz", ".zip", ".zst")
STANDARD_INPUT = "standard-input"  # its copy is called so in messages and reports, wherever it lies

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass
class LineReject:
    """A line that never became a row: its number (from 1), why, and the line itself."""

    line: int
    reason: str
    raw: str


@dataclass
class TextChunk:
    """Some whole lines: UTF-8 bytes, the number of their first line, and the lines blanked out of them."""

    data: bytes
    first_line: int
    rejects: list[LineReject] = field(default_factory=list)
    last: bool = False


class InputFile:
    """One input, possibly compressed, that can be read more than once.

    Args:
        path (Path): the file; ``archive.zip:member`` picks one member of an archive.
        encoding (str | None): a Python codec name; None detects UTF-8, UTF-16 (by its mark) and Windows-1252.
        max_expansion (float): bytes out per byte in past which a compressed file counts as a bomb.
        on_read (Callable[[int], None]): told how many raw bytes each chunk took, for the progress bar.
    Raises:
        AtomicFileError: if the path is no readable file, the archive member is unclear, or the codec is unknown.
    """

    def __init__(
        self,
        path: Path,
        encoding: str | None = None,
        max_expansion: float = 250.0,
        on_read: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.name = STANDARD_INPUT if path.name == STANDARD_INPUT else str(path)
        self.path, self.member = _split_member(path)
        self.asked_encoding = encoding
        self.encoding = _codec(encoding) if encoding else "utf-8"
        self.max_expansion = max_expansion
        self.on_read = on_read
        self.has_lines = True  # a reader unsets it where rows are not lines of text
        self._seen_utf8 = False  # a valid multi-byte character: the file is UTF-8, whatever comes later

    @property
    def suffix(self) -> str:
        """The suffix that tells the format, below any suffix of compression: ``.csv`` for ``log.csv.gz``."""
        name = Path(self.member or self.path.name)
        if name.suffix.lower() in COMPRESSED_SUFFIXES:
            name = name.with_suffix("")
        return name.suffix.lower()

    def head(self, limit: int = 64 << 10) -> bytes:
        """Return the first decompressed bytes, to look at."""
        with ExitStack() as stack:
            stream, _ = self._open(stack)
            return self._guarded(lambda: stream.read(limit))

    def raw_chunks(self, report: bool = True) -> Iterator[bytes]:
        """Yield decompressed bytes.

        Raises:
            AtomicFileError: if the file is damaged, or expands past ``max_expansion``.
        """
        with ExitStack() as stack:
            stream, raw = self._open(stack)
            total = seen = 0
            while chunk := self._guarded(lambda: stream.read(CHUNK_BYTES)):
                total += len(chunk)
                position = raw.tell()
                if total > BOMB_FLOOR_BYTES and total > self.max_expansion * max(position, 1):
                    raise AtomicFileError(
                        f"{self.name} (grows {total / max(position, 1):.0f}-fold) must expand less than "
                        f"{self.max_expansion:g}-fold; --max-expansion raises the limit"
                    )
                if report:
                    self.on_read(position - seen)
                seen = position
                yield chunk

    def lines(self, report: bool = True) -> Iterator[TextChunk]:
        """Yield whole lines as UTF-8, with lines that are not text blanked out and listed.

        A blanked line leaves an empty line behind, so that line numbers stay true.
        """
        carry, line, last_chunk = b"", 1, b""
        for chunk in self._decoded(report):
            data = carry + chunk
            if b"\r" in data and b"\n" not in data:
                data = data[:-1].replace(b"\r", b"\n") + data[-1:]  # a lone final \r may be half of \r\n
            cut = data.rfind(b"\n") + 1
            if len(data) - cut > MAX_LINE_BYTES:
                at = line + last_chunk.count(b"\n") + data.count(b"\n")
                raise AtomicFileError(f"{self.name}, line {at} must be shorter than {MAX_LINE_BYTES >> 20} MiB")
            if cut:
                if last_chunk:
                    piece = self._checked(last_chunk, line)
                    line += last_chunk.count(b"\n")
                    yield piece
                last_chunk, carry = data[:cut], data[cut:]
            else:
                carry = data
        tail = self._checked(last_chunk + carry, line)
        tail.last = True
        yield tail

    def head_text(self, limit: int = 1 << 20) -> str:
        """Return the first text, to look at; what the encoding does not know is replaced."""
        data = next(self._decoded(report=False), b"")[:limit]
        try:
            return self._decoder().decode(data)  # the limit may cut a character
        except UnicodeDecodeError as error:
            self._settle(error)
            return _decode_lenient(data, self.encoding)

    def texts(self) -> Iterator[tuple[str, bool]]:
        """Yield decoded text that need not break at lines, and whether it is the last piece; for JSON arrays.

        Raises:
            AtomicFileError: at bytes that the encoding does not know.
        """
        decoder, line = None, 1
        for chunk in self._decoded(report=True):
            decoder = decoder or self._decoder()
            try:
                found_out = self.encoding == "cp1252" and not self.asked_encoding
                if found_out:
                    self._refuse_mixture(chunk, line)
                text = _decode_lenient(chunk, self.encoding) if found_out else decoder.decode(chunk)
            except UnicodeDecodeError as error:
                data = error.object
                if not self._settle(error):
                    hint = "" if self._seen_utf8 else "; --encoding tells another encoding"
                    rule = f"bytes (0x{data[error.start]:02x}) must be {self.encoding} text{hint}"
                    raise AtomicFileError.at(self.name, line + data.count(b"\n", 0, error.start), rule) from error
                text = _decode_lenient(data, self.encoding)
            self._seen_utf8 |= not text.isascii()
            line += text.count("\n")
            yield text, False
        yield "", True

    def _decoder(self) -> codecs.IncrementalDecoder:
        """Return what decodes the pieces of :meth:`_decoded`."""
        return codecs.getincrementaldecoder("utf-8" if self.encoding.startswith(WIDE) else self.encoding)()

    def _settle(self, error: UnicodeDecodeError) -> bool:
        """Say whether a byte that UTF-8 does not allow, and no UTF-8 beside it, tells a Western 8-bit file."""
        if self.asked_encoding or self.encoding != "utf-8" or self._seen_utf8:
            return False
        if not error.object[: error.start].isascii() or not error.object.decode("utf-8", "ignore").isascii():
            self._seen_utf8 = True
            return False
        self.encoding = "cp1252"
        return True

    def _decoded(self, report: bool) -> Iterator[bytes]:
        """Yield bytes without a byte order mark, transcoded to UTF-8 where the file starts with a UTF-16 mark."""
        decoder: codecs.IncrementalDecoder | None = None
        first = True
        for chunk in self.raw_chunks(report):
            if first:
                first = False
                for mark, codec in BOMS:
                    if chunk.startswith(mark):
                        chunk, self.encoding = chunk[len(mark) :], codec
                        break
                if self.encoding.startswith(WIDE):
                    decoder = codecs.getincrementaldecoder(self.encoding)("backslashreplace")
            yield decoder.decode(chunk).encode("utf-8") if decoder else chunk

    def _checked(self, data: bytes, first_line: int) -> TextChunk:
        """Return the lines as valid UTF-8; what cannot be text is blanked and listed."""
        rejects: list[LineReject] = []
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b" ")
        if not self.encoding.startswith(WIDE):
            data = self._to_utf8(data, first_line, rejects)
        if b"\0" in data:
            data = _blank(data, first_line, lambda text: b"\0" in text, "NUL byte in the line", rejects)
        return TextChunk(data, first_line, rejects)

    def _to_utf8(self, data: bytes, first_line: int, rejects: list[LineReject]) -> bytes:
        if self.encoding == "utf-8":
            if data.isascii():
                return data
            try:
                data.decode("utf-8")
                self._seen_utf8 = True
                return data
            except UnicodeDecodeError as error:
                if not self._settle(error):
                    return _blank(data, first_line, _not_utf8, "bytes are not UTF-8", rejects)
        self._refuse_mixture(data, first_line)
        return _recoded(data, self.encoding, first_line, rejects)

    def _refuse_mixture(self, data: bytes, first_line: int) -> None:
        """Refuse UTF-8 behind a byte for whose sake the file was taken for Windows-1252, and its lines so read."""
        if self.asked_encoding or data.isascii():
            return
        text = data.decode("utf-8", "replace")
        stray = text.count("\ufffd")
        if len(text) - len(text.encode("ascii", "ignore")) > 2 * stray:
            lines = data.split(b"\n")
            at = next((n for n, line in enumerate(lines) if not line.isascii() and not _not_utf8(line)), 0)
            rule = "text (UTF-8, behind bytes that are not) must be in one encoding; --encoding tells which"
            raise AtomicFileError.at(self.name, first_line + at, rule)

    def _open(self, stack: ExitStack) -> tuple[BinaryIO, BinaryIO]:
        """Return the decompressed stream, and the raw file whose position tells how far we are."""
        if self.path.is_dir():
            raise AtomicFileError(f"{self.name} (a directory) must be a file; a folder of files is given as a glob")
        try:
            raw = stack.enter_context(self.path.open("rb"))
        except OSError as error:
            siblings = [p.name for p in self.path.parent.glob("*")] if self.path.parent.is_dir() else []
            hint = nearest(self.path.name, siblings)
            raise AtomicFileError(f"{self.name} must be a readable file: {error.strerror}{hint}") from error
        suffix, start = self.path.suffix.lower(), raw.peek(4)
        if suffix == ".gz" or start.startswith(b"\x1f\x8b"):
            return cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=raw))), raw
        if suffix == ".zst" or start.startswith(b"\x28\xb5\x2f\xfd"):
            return cast(BinaryIO, stack.enter_context(pa.CompressedInputStream(raw, "zstd"))), raw
        if suffix == ".zip":
            return self._open_member(stack, raw), raw
        return raw, raw

    def _open_member(self, stack: ExitStack, raw: BinaryIO) -> BinaryIO:
        def pick() -> BinaryIO:
            archive = stack.enter_context(zipfile.ZipFile(raw))
            names = members(archive)
            if self.member is None and len(names) != 1:
                raise AtomicFileError(
                    f"{self.name} holds {len(names)} files; pick one as {self.path.name}:MEMBER of {', '.join(names)}"
                )
            name = self.member or names[0]
            if name not in names:
                raise AtomicFileError(f"{self.name} must name one of {', '.join(names)}{nearest(name, names)}")
            self.member = name
            return cast(BinaryIO, stack.enter_context(archive.open(name)))

        return self._guarded(pick)

    def _guarded(self, action: Callable[[], _T]) -> _T:
        """Run one read and turn a damaged archive into a message."""
        try:
            return action()
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise AtomicFileError(f"{self.name} must be a whole, readable file: {error}") from error


def members(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of an archive's files, without what macOS adds to them."""
    return [m.filename for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX")]


def _split_member(path: Path) -> tuple[Path, str | None]:
    found = re.fullmatch(r"(.+?\.zip):(.+)", str(path), re.IGNORECASE)
    return (Path(found[1]), found[2]) if found else (path, None)


def _codec(name: str) -> str:
    try:
        codec = codecs.lookup(name).name
        "".encode(codec)  # refuses codecs that are not text, such as "hex"
    except (LookupError, UnicodeError) as error:
        raise AtomicFileError(
            f"--encoding ({name}) must be a text codec Python knows{nearest(name, ENCODINGS)}"
        ) from error
    return "utf-8" if codec == "utf-8-sig" else codec


def _decode_lenient(data: bytes, encoding: str) -> str:
    """Decode; the five bytes Windows-1252 leaves undefined are read as latin-1 reads them."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode("latin-1" if encoding == "cp1252" else encoding, errors="replace")


def _recoded(data: bytes, encoding: str, first_line: int, rejects: list[LineReject]) -> bytes:
    """Return lines of another encoding as UTF-8; a line that it cannot be is blanked and listed."""
    try:
        return data.decode(encoding).encode("utf-8")
    except UnicodeError:
        lines = data.split(b"\n")
    for index, line in enumerate(lines):
        try:
            text = _decode_lenient(line, encoding) if encoding == "cp1252" else line.decode(encoding)
            lines[index] = text.encode("utf-8")
        except UnicodeError:
            raw = line.decode("utf-8", "backslashreplace")
            rejects.append(LineReject(first_line + index, f"bytes are not {encoding}", raw))
            lines[index] = b""
    return b"\n".join(lines)


def _not_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _blank(
    data: bytes, first_line: int, is_bad: Callable[[bytes], bool], reason: str, rejects: list[LineReject]
) -> bytes:
    lines = data.split(b"\n")
    for index, text in enumerate(lines):
        if is_bad(text):
            rejects.append(LineReject(first_line + index, reason, text.decode("utf-8", "backslashreplace")))
            lines[index] = b""
    return b"\n".join(lines)


def spool(stream: BinaryIO, folder: Path) -> Path:
    """Copy standard input to a file in ``folder``, so that it can be looked at twice.

    Returns:
        Path: the copy.
    """
    target = folder / STANDARD_INPUT
    with target.open("wb") as out:
        while chunk := stream.read(CHUNK_BYTES):
            out.write(chunk)
    return target


def text_lines(file: InputFile, wanted: set[int]) -> dict[int, str]:
    """Return the text of some lines of a file, for the list of rejects.

    Args:
        file (InputFile): read again from its start.
        wanted (set[int]): line numbers from 1.
    Returns:
        dict[int, str]: text by line number, without the line end.
    """
    found: dict[int, str] = {}
    order = sorted(wanted)
    for chunk in file.lines(report=False):
        end = chunk.first_line + chunk.data.count(b"\n") + 1
        here = order[bisect_left(order, chunk.first_line) : bisect_left(order, end)]
        if here:
            lines = chunk.data.split(b"\n")
            for n in here:
                text = lines[n - chunk.first_line] if n - chunk.first_line < len(lines) else b""
                if text:
                    found[n] = text.rstrip(b"\r").decode("utf-8")
    return found
