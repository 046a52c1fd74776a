"""The error for atomic files that cannot be read."""

from __future__ import annotations

from pathlib import Path


class AtomicFileError(ValueError):
    """An atomic file breaks a rule; the message names the file, the line and the rule."""

    @classmethod
    def at(cls, path: str | Path, line: int | None, rule: str) -> AtomicFileError:
        """Return the error for one line of a file.

        Args:
            path: the file.
            line (int | None): line number from 1, the header included; None where the whole file is meant.
            rule (str): what was found and what must be, in words.
        """
        return cls(f"{path}, line {line}: {rule}" if line else f"{path}: {rule}")
