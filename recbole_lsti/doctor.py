"""Look at what LSTI needs around it: one line a check, with the command that mends what is wrong."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import sys
import tempfile
import warnings
from dataclasses import dataclass
from typing import TextIO

from recbole_lsti import compat

RECBOLE = "1.2.1"
# setup.cfg holds the same bounds: the lowest version that works, and the first one that does not.
BOUNDS: dict[str, tuple[str, str | None]] = {
    "numpy": ("1.26", None),
    "pandas": ("2.2", "3"),
    "torch": ("2.6", None),
}

DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml"}  # what RecBole imports under another name


@dataclass(frozen=True)
class Check:
    """One thing looked at: whether it is fine, what was found, and the command that mends it where it is not."""

    name: str
    ok: bool
    detail: str
    mend: str = ""


def checks() -> list[Check]:
    """Look at Python, RecBole, NumPy, pandas, torch, ray, the output folder and the GPU; raises nothing."""
    python = sys.version_info[:2]
    numpy, pandas, torch = _package("numpy", "NumPy"), _package("pandas", "pandas"), _package("torch", "torch")
    # RecBole imports all three: where one of them is wrong, its own import would only repeat that
    importable = numpy.ok and pandas.ok and torch.ok
    return [
        _python(python),
        _recbole(python, importable),
        numpy,
        pandas,
        torch,
        _ray(),
        _output_folder(os.path.abspath("saved")),
        _gpu(torch.ok),
    ]


def report(stream: TextIO) -> int:
    """Write one line a check.

    Args:
        stream (TextIO): where the lines go.
    Returns:
        int: an exit status: 0 where everything is fine, 1 where something is wrong.
    """
    found = checks()
    for check in found:
        line = f"{'ok' if check.ok else 'wrong':<6} {check.name:<14} {check.detail}"
        stream.write(line if check.ok else f"{line} -- mend it with: {check.mend}")
        stream.write("\n")
    return 0 if all(check.ok for check in found) else 1


def _python(python: tuple[int, ...]) -> Check:
    version = ".".join(map(str, python))
    if python >= (3, 10):
        return Check("Python", True, version)
    return Check("Python", False, f"{version} must be 3.10 or newer", "python3.11 -m venv .venv")


def _recbole(python: tuple[int, ...], importable: bool) -> Check:
    # Its pin on ray has no build for Python 3.12 and newer, so pip would refuse it there.
    mend = f"pip install {'--no-deps ' if python >= (3, 12) else ''}recbole=={RECBOLE}"
    version = _version("recbole")
    if version is None:
        return Check("RecBole", False, "not installed", mend)
    if version != RECBOLE:
        return Check("RecBole", False, f"{version} must be {RECBOLE}", mend)
    if not importable:
        return Check("RecBole", True, f"{version} (not tried: see the lines below)")
    compat.install()
    problem = _import_problem("recbole.quick_start")
    if not problem:
        return Check("RecBole", True, version)
    missing = re.search(r"No module named '(\w+)", problem)
    if missing and missing[1] != "recbole":
        mend = f"pip install {DISTRIBUTIONS.get(missing[1], missing[1])}"
    return Check("RecBole", False, f"{version} cannot be imported ({problem})", mend)


def _package(package: str, name: str) -> Check:
    lowest, too_new = BOUNDS[package]
    wanted = f">={lowest},<{too_new}" if too_new else f">={lowest}"
    mend = f'pip install "{package}{wanted}"'
    version = _version(package)
    if version is None:
        return Check(name, False, "not installed", mend)
    if _numbers(version) < _numbers(lowest):
        return Check(name, False, f"{version} must be {wanted}", mend)
    if too_new and _numbers(version) >= _numbers(too_new):
        reason = "its copy-on-write turns RecBole's fillna(inplace=True) into a silent no-op"
        return Check(name, False, f"{version} must be {wanted}: {reason}", mend)
    problem = _import_problem(package)
    if problem:
        mend = f'pip install --force-reinstall "{package}{wanted}"'
        return Check(name, False, f"{version} cannot be imported ({problem})", mend)
    return Check(name, True, version)


def _ray() -> Check:
    version = _version("ray")
    problem = _one_line(compat.ray_problem())
    if version is None and problem:
        return Check("ray", True, "not installed: a stand-in is used")
    if problem:
        return Check("ray", True, f"{version} cannot be imported: a stand-in is used ({problem})")
    return Check("ray", True, version or "found")


def _output_folder(folder: str) -> Check:
    existed = os.path.isdir(folder)
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
    except OSError as error:
        mend = f'chmod u+rwx "{folder if existed else os.path.dirname(folder)}"'
        if os.path.lexists(folder) and not os.path.isdir(folder):
            mend = f'mv "{folder}" "{folder}.old"'
        return Check("output folder", False, f"{folder} cannot be written to ({error.strerror})", mend)
    finally:
        if not existed and os.path.isdir(folder):
            os.rmdir(folder)
    return Check("output folder", True, folder)


def _gpu(torch_ok: bool) -> Check:
    if not torch_ok:
        return Check("GPU", True, "not looked at: torch comes first")
    import torch

    with warnings.catch_warnings(record=True) as caught:  # so does torch say that a driver is too old
        warnings.simplefilter("always")
        try:
            if torch.cuda.is_available():
                memory = torch.cuda.get_device_properties(0).total_memory // 2**20
                return Check("GPU", True, f"{torch.cuda.get_device_name(0)}, {memory} MiB")
            problem = str(caught[0].message) if caught else ""
        except Exception as error:  # whatever a driver does, it must not end the report
            problem = str(error)
    return Check("GPU", True, f"none: the CPU is used{f' ({_one_line(problem)})' if problem else ''}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_problem(name: str) -> str:
    try:
        importlib.import_module(name)
    except Exception as error:  # a package broken at import raises what it likes
        return _one_line(f"{type(error).__name__}: {error}")
    return ""


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:197]}..."


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0])[:2])
