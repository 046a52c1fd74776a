"""The results folder: one line of results.jsonl for each ended cell, what the lines stand for, and when to go on."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from recbole_lsti.benchmark.environment import versions
from recbole_lsti.benchmark.plan import Cell, Plan
from recbole_lsti.config_rules import MACHINE
from recbole_lsti.data.folder import find_folder

STATUSES = ("ok", "failed", "skipped")
NAMES = ("cell", "variant", "dataset", "split")  # text in every line
RESULTS, BROKEN, FINGERPRINT = "results.jsonl", "results.broken.jsonl", "fingerprint.json"
VERSIONS = ("recbole_lsti", "recbole", "torch")  # of packages that decide what a training comes to
ARRAYS = ("users", "targets", "raw", "unseen")
# keys of a plan that say which cells there are, or what the fingerprint's settings hold cell by cell
GROW = ("models", "controls", "datasets", "seeds", "split", "model_settings")


class Results(NamedTuple):
    """What results.jsonl holds.

    Attributes:
        lines: cell id -> its last line.
        broken: the lines that are none, as they stand there.
    """

    lines: dict[str, dict[str, Any]]
    broken: list[str]


def read_results(folder: Path | str) -> Results:
    """Read results.jsonl; a broken line, such as a killed process may leave, is set apart.

    Raises:
        FileNotFoundError: if the folder holds no results.
    """
    path = Path(folder) / RESULTS
    if not path.is_file():
        raise FileNotFoundError(f"results ({folder}) must be a folder that holds {RESULTS}")
    lines: dict[str, dict[str, Any]] = {}
    broken = []
    for text in _texts(path):
        line = _cell_line(text)
        if line is None:
            broken.append(text)
        else:
            lines[line["cell"]] = line
    return Results(lines, broken)


def _texts(path: Path) -> list[str]:
    # not splitlines(), which also divides at separators that JSON leaves as they are in its texts
    texts = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    return [text.rstrip("\r") for text in texts if text.strip()]


def _cell_line(text: str) -> dict[str, Any] | None:
    """The line of a cell, or None where it is broken."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or line.get("status") not in STATUSES or "seed" not in line:
        return None
    return line if all(isinstance(line.get(name), str) for name in NAMES) else None


def set_broken_aside(folder: Path) -> int:
    """Move the broken lines of results.jsonl to results.broken.jsonl; return how many there were."""
    broken = read_results(folder).broken
    if not broken:
        return 0
    with open(folder / BROKEN, "a", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in broken)
    whole = [text for text in _texts(folder / RESULTS) if _cell_line(text) is not None]  # as they stand there
    write_whole(folder / RESULTS, "".join(f"{text}\n" for text in whole))
    return len(broken)


def append(folder: Path, line: Mapping[str, Any]) -> None:
    """Append a line to results.jsonl, written through to the disk before this returns."""
    with open(folder / RESULTS, "ab+") as file:
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a line that was not written to its end must not take this one with it
                file.write(b"\n")
        file.write(f"{to_json(line)}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def failed(head: dict[str, Any], reason: str, status: str = "failed") -> dict[str, Any]:
    """Return the line of a cell that has no results."""
    nothing: dict[str, Any] = {"valid": None, "raw": None, "unseen": None, "user_metrics": [], "cost": None}
    return {**head, "status": status, "reason": reason, **nothing}


def to_json(value: Any, indent: int | None = None) -> str:
    """Return plain data as JSON; what is no number (NaN, infinity) becomes null."""
    return json.dumps(_without_nan(value), allow_nan=False, ensure_ascii=False, indent=indent)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def load_arrays(folder: Path | str, cell: str) -> dict[str, np.ndarray] | None:
    """Return the arrays of a cell: users, targets (R,) tokens; raw, unseen (R, M) float64; None where it has none."""
    place = Path(folder) / "cells" / cell
    if not all((place / f"{name}.npy").is_file() for name in ARRAYS):
        return None
    return {name: np.load(place / f"{name}.npy", allow_pickle=False) for name in ARRAYS}


# ---- what a folder belongs to -----------------------------------------------------------------------------------


def fingerprint(plan: Plan, cells: Iterable[Cell]) -> dict[str, Any]:
    """Return what results depend on.

    Returns:
        dict: plan; data, the SHA-256 of every file of its data sets; settings, what the plan resolves to, for each kind
        of cell that can run, without the seed and what belongs to a machine; versions of VERSIONS.
    """
    folders = {dataset: find_folder(dataset, plan.settings.get("data_path", "dataset")) for dataset in plan.datasets}
    data = {dataset: _digests(folder, dataset) for dataset, folder in folders.items()}
    first = {cell.kind: cell for cell in cells if cell.reason is None}
    settings = {kind: _conditions(cell.effective()) for kind, cell in first.items()}
    packages = versions()
    here = {name: packages[name] for name in VERSIONS}
    return {"format": 2, "versions": here, "plan": plan.plain(), "data": data, "settings": settings}


def _conditions(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in MACHINE and key != "seed"}


def _digests(folder: Path, dataset: str) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.glob(f"{dataset}.*")):
        if path.is_file():
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while chunk := file.read(2**20):
                    digest.update(chunk)
            digests[path.name] = digest.hexdigest()
    return digests


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a results folder, made where it is missing, so that no second run writes to it at the same time.

    The system lets go of it when the process ends, however it ends. Where it has no such locks, nothing is held.

    Raises:
        BlockingIOError: another run holds it.
        NotADirectoryError: a file is there.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"output ({folder}) must be a folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(place)
        raise BlockingIOError(f"output ({folder}) must be free: another run is writing to it") from None
    except OSError:  # some network file systems lock no folders
        pass
    try:
        yield
    finally:
        os.close(place)


def open_folder(
    folder: Path, plan: Plan, cells: Sequence[Cell], resume: bool
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Make a results folder, or go on with one.

    The plan may have more cells than before. It is refused where a cell that has results is not in it, where all cells
    have another condition or other data, and where a setting has another value in a kind of cell that has results: the
    board would hide what was found, or show unlike things as one. Other versions of packages and settings that one of
    them does not have are noted: most change no result, and whoever has a board of days should decide. A line that was
    not written to its end comes from its cell's own result.json, where that is whole.

    Args:
        folder: the folder.
        plan: what is to be run.
        cells: what it comes to.
        resume (bool): go on with what is there.
    Returns:
        tuple: the lines of the cells that are done, cell id -> line, nothing in a new folder; and what must be told.
    Raises:
        FileExistsError: results are there and `resume` is not asked for.
        ValueError: plan, data or settings are not those of the folder; says what has changed.
    """
    now = json.loads(to_json(fingerprint(plan, cells)))
    there = folder / FINGERPRINT
    before: dict[str, Any] = {}
    notes: list[str] = []
    if there.is_file():
        before = _read_fingerprint(there)
        notes = _held_against(folder, before, now, cells)
        if not resume:
            raise FileExistsError(
                f"output ({folder}) must be a new folder: it holds results; --resume goes on with them"
            )
    elif (folder / RESULTS).exists():
        raise ValueError(
            f"output ({folder}) must be a folder of this benchmark: it has {RESULTS}, but no {FINGERPRINT}"
        )
    known = before.get("settings", {})
    same = {kind for kind, settings in now["settings"].items() if known.get(kind) == settings}
    now["settings"] = {**known, **now["settings"]}  # a kind that is left out may come back
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    write_whole(there, to_json(now, indent=2) + "\n")
    write_whole(folder / "plan.yaml", yaml.safe_dump(plan.plain(), sort_keys=False, allow_unicode=True))
    if not (folder / RESULTS).is_file():
        (folder / RESULTS).touch()
    _mend_broken(folder, [cell for cell in cells if cell.kind in same])
    set_broken_aside(folder)
    return read_results(folder).lines, notes


def _mend_broken(folder: Path, cells: Iterable[Cell]) -> None:
    """Append the line of each cell whose line is broken, from its own result.json where that is whole and its own.

    A cell that has no line at all is left alone: whoever takes a line away asks for another training.
    """
    lines, broken = read_results(folder)
    for cell in cells:
        begins = f'{{"cell": {to_json(cell.id)},'  # as every line of the cell does
        if lines.get(cell.id, {}).get("status") != "ok" and any(text.startswith(begins) for text in broken):
            line = _ended(folder, cell)
            if line is not None:
                append(folder, line)


def _ended(folder: Path, cell: Cell) -> dict[str, Any] | None:
    """The line in the folder of a cell that has come to a result; None where there is none, or another cell's."""
    path = folder / cell.place / "result.json"
    line = _cell_line(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
    if line is None or line["status"] != "ok" or not cell.head().items() <= line.items():
        return None
    return line


def _read_fingerprint(there: Path) -> dict[str, Any]:
    try:
        return json.loads(there.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{there} must be JSON: it cannot be told which plan the folder belongs to") from None


def _held_against(folder: Path, before: dict[str, Any], now: dict[str, Any], cells: Iterable[Cell]) -> list[str]:
    """Refuse what may not have changed since the folder's fingerprint was written; return what must be told."""
    cells, same, notes = list(cells), "plan and data", list[str]()
    lines = read_results(folder).lines if (folder / RESULTS).is_file() else {}
    ended = {name for name, line in lines.items() if line["status"] == "ok"}
    changed = [*_condition_changes(before, now)]
    if gone := sorted(ended - {cell.id for cell in cells}):
        changed.append(f"{_some(gone)} had results, {'is' if len(gone) == 1 else 'are'} not in the plan")
    changed += [f"{cell.id} had results, now {cell.reason}" for cell in cells if cell.reason and cell.id in ended]
    if not changed:
        done = {cell.kind for cell in cells if cell.id in ended or _is_searched(folder, cell)}
        same = "settings as its results"
        changed, notes = _setting_changes(before.get("settings", {}), now["settings"], done)
    if changed:
        raise ValueError(f"output ({folder}) must be of the same {same}: {'; '.join(changed)}; give another --output")
    for name, version in now["versions"].items():
        if (old := before.get("versions", {}).get(name)) != version:
            notes.append(f"{name} was {old or 'of an unknown version'}, is {version}")
    return notes


def _condition_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two fingerprints in the conditions of all cells and in the data that both have."""
    old, new = ({k: v for k, v in each.get("plan", {}).items() if k not in GROW} for each in (before, now))
    yield from differences(old, new, "plan")
    if "space" in new:  # the searches have the first of the seeds
        was, now_is = (each["plan"]["seeds"][0] for each in (before, now))
        yield from differences(was, now_is, "the first of plan.seeds")
    old, new = (each.get("data", {}) for each in (before, now))
    for dataset in sorted(old.keys() & new.keys()):
        yield from differences(old[dataset], new[dataset], f"data.{dataset}")


def _is_searched(folder: Path, cell: Cell) -> bool:
    """Whether the settings of a cell have been found: they are results as well."""
    return bool(cell.space) and search_line(folder, cell.kind).get("status") == "ok"


def search_line(folder: Path, name: str) -> dict[str, Any]:
    """Return the line of a search; nothing where it has not ended."""
    path = folder / "tuning" / name / "result.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _setting_changes(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]], done: Iterable[str]
) -> tuple[list[str], list[str]]:
    """What cannot and what can go on: values that differ, and settings that one side alone knows, with the cells."""
    kinds: dict[bool, dict[str, list[str]]] = {True: {}, False: {}}
    for kind in sorted(done):
        old, new = before.get(kind), now.get(kind, {})
        if old is None:
            kinds[False].setdefault("settings were not written down", []).append(kind)
            continue
        for key in sorted({*old, *new}):
            if key not in old or key not in new:
                shown = f"{key} is new ({new[key]})" if key in new else f"{key} ({old[key]}) is gone"
                kinds[False].setdefault(shown, []).append(kind)
            elif old[key] != new[key]:
                kinds[True].setdefault(f"{key} was {old[key]}, is {new[key]}", []).append(kind)
    refused, noted = ([f"{text} in {_some(names)}" for text, names in kinds[hard].items()] for hard in (True, False))
    return refused, noted


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def differences(before: Any, now: Any, name: str = "") -> Iterable[str]:
    """Yield `key was x, is y` for what plan and data of two fingerprints differ in."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif before != now:
        if name.startswith("data."):
            file = name.split(".", 2)[2] if name.count(".") > 1 else name.partition(".")[2]
            yield f"{file} has changed" if before and now else f"{file} {'is gone' if before else 'is new'}"
        else:
            yield f"{name} was {before}, is {now}"
