"""Errors in one line: for input that cannot be used, misspelt names, wrong flags, packages that are not installed."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn


class AtomicFileError(ValueError):
    """What is wrong with an input, a flag or an output, in one line a user can act on."""

    @classmethod
    def at(cls, path: str | Path, line: int | None, rule: str) -> AtomicFileError:
        """Return the error for one line of a file.

        Args:
            path: the file.
            line (int | None): line number from 1, the header included; None where the whole file is meant.
            rule (str): what was found and what must be, in words.
        """
        return cls(f"{path}, line {line}: {rule}" if line else f"{path}: {rule}")


def nearest(name: str, options: Iterable[str]) -> str:
    """Return ``" (did you mean x?)"`` for the closest option, or ``""`` where none is close.

    Args:
        name (str): what was asked for.
        options (Iterable[str]): what there is.
    Returns:
        str: a hint to append to a message.
    """
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean {by_lower[close[0]]}?)" if close else ""


def one_of(what: str, got: str, options: Iterable[str]) -> AtomicFileError:
    """Return the error for a name that is not among the valid ones.

    Args:
        what (str): the field or flag.
        got (str): the unknown name.
        options (Iterable[str]): every valid name.
    Returns:
        AtomicFileError: ``{what} ({got}) must be one of ...``, with the nearest spelling.
    """
    names = list(options)
    return AtomicFileError(f"{what} ({got}) must be one of {', '.join(names)}{nearest(got, names)}")


def require(work: str, package: str, extra: str) -> None:
    """Refuse work that needs a package of an extra, before any of it is done.

    Raises:
        ImportError: the package is not installed; names the extra.
    """
    if importlib.util.find_spec(package) is None:
        raise ImportError(lacking(work, package, extra))


def lacking(work: str, package: str, extra: str) -> str:
    """Return what to say where a package of an extra is missing."""
    return f"{work} needs {package}, from the extra {extra}: in the clone, pip install -e '.[{extra}]'"


class _Once(argparse.Action):
    """Stores a value, and refuses another one for the same flag."""

    _given: tuple[Any, Any] = (None, None)  # into which namespace, and what

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Store the value."""
        into, before = self._given
        if into is namespace and before != values:
            raise argparse.ArgumentError(self, f"must be given once, not as {before} and {values}")
        self._given = (namespace, values)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, a flag given twice included."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in (None, "store"):
            self.register("action", name, _Once)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 after one line."""
        self.exit(2, f"{self.prog}: {message}\n")


def in_one_line(error: BaseException) -> str:
    """Return an error's type and message on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
