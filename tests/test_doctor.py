"""doctor: one line a check, never a traceback, and a command for whatever is wrong."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import recbole_lsti
from recbole_lsti import doctor

PACKAGE = Path(recbole_lsti.__file__).parent
REPORT = "import sys\nfrom recbole_lsti import doctor\nsys.exit(doctor.report(sys.stdout))"


def fake_package(folder: Path, name: str, version: str, source: str = "") -> None:
    """An installed package of this version, whose import runs the source."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"__version__ = {version!r}\n{source}\n")
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def report_with(folder: Path, site_packages: bool = False) -> tuple[int, dict[str, str]]:
    """Run the report in a fresh process that sees only the packages in the folder (and, if asked, the real ones)."""
    folder.mkdir(exist_ok=True)
    (folder / "recbole_lsti").symlink_to(PACKAGE)
    result = subprocess.run(
        [sys.executable, *([] if site_packages else ["-S"]), "-c", REPORT],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in result.stderr, result.stderr
    names = ("Python", "RecBole", "NumPy", "pandas", "torch", "ray", "output folder", "GPU")
    lines = result.stdout.splitlines()
    assert [line[7:21].strip() for line in lines] == list(names)
    return result.returncode, dict(zip(names, lines, strict=True))


def test_everything_missing_is_reported_with_its_command(tmp_path: Path) -> None:
    status, lines = report_with(tmp_path / "site")
    assert status == 1
    for name, command in [
        ("RecBole", "recbole==1.2.1"),
        ("NumPy", 'pip install "numpy>=1.26"'),
        ("pandas", 'pip install "pandas>=2.2,<3"'),
        ("torch", 'pip install "torch>=2.6"'),
    ]:
        assert lines[name].startswith("wrong")
        assert "not installed -- mend it with: pip install" in lines[name]
        assert lines[name].endswith(command)
    assert lines["ray"].startswith("ok")
    assert "a stand-in is used" in lines["ray"]
    assert lines["GPU"].startswith("ok")
    assert "torch comes first" in lines["GPU"]


def test_wrong_versions_are_named(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for name, version in [("numpy", "1.22.4"), ("pandas", "3.0.1"), ("torch", "2.1.0"), ("recbole", "1.1.1")]:
        fake_package(site, name, version)
    status, lines = report_with(site)
    assert status == 1
    assert "1.1.1 must be 1.2.1" in lines["RecBole"]
    assert "1.22.4 must be >=1.26 --" in lines["NumPy"]
    assert "3.0.1 must be >=2.2,<3: its copy-on-write turns" in lines["pandas"]
    assert "2.1.0 must be >=2.6 --" in lines["torch"]


def test_packages_broken_at_import_are_reported(tmp_path: Path) -> None:
    site = tmp_path / "site"
    fake_package(site, "numpy", "2.4.6", "raise ImportError('libopenblas.so.0:\\ncannot open shared object file')")
    fake_package(site, "pandas", "2.3.3", "import numpy")
    fake_package(site, "torch", "2.13.0", "raise OSError('libcudart.so.13: not found')")
    fake_package(site, "ray", "2.6.3", "raise AttributeError('numpy has no attribute bool8')")
    fake_package(site, "recbole", "1.2.1")
    status, lines = report_with(site)
    assert status == 1
    assert "(ImportError: libopenblas.so.0: cannot open shared object file)" in lines["NumPy"]
    assert 'pip install --force-reinstall "numpy>=1.26"' in lines["NumPy"]
    assert "(OSError: libcudart.so.13: not found)" in lines["torch"]
    assert lines["ray"].startswith("ok")
    assert "2.6.3 cannot be imported: a stand-in is used" in lines["ray"]
    assert lines["RecBole"].startswith("ok")
    assert "not tried" in lines["RecBole"]


def test_a_dependency_recbole_misses_is_named(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for name, version in [("numpy", "2.4.6"), ("pandas", "2.3.3"), ("torch", "2.13.0")]:
        fake_package(site, name, version)
    # as after `pip install --no-deps recbole==1.2.1` without the rest
    fake_package(site, "recbole", "1.2.1", "import sklearn.metrics")
    (site / "torch" / "cuda.py").write_text("def is_available(): raise RuntimeError('driver too old')\n")
    (site / "torch" / "__init__.py").write_text("from torch import cuda\n")
    (site / "numpy" / "__init__.py").write_text(
        "float64 = complex128 = str_ = bool_ = int_ = object_ = None\n"  # what compat gives aliases to
    )
    status, lines = report_with(site)
    assert status == 1
    assert "1.2.1 cannot be imported (ModuleNotFoundError: No module named 'sklearn')" in lines["RecBole"]
    assert lines["RecBole"].endswith("mend it with: pip install scikit-learn")
    assert lines["GPU"].startswith("ok")
    assert "none: the CPU is used (driver too old)" in lines["GPU"]


@pytest.mark.slow
def test_the_tested_stack_is_fine(tmp_path: Path) -> None:
    status, lines = report_with(tmp_path / "site", site_packages=True)
    assert status == 0, lines
    assert all(line.startswith("ok ") for line in lines.values())
    assert not (tmp_path / "site" / "saved").exists()


def test_recbole_without_its_pin_on_ray_for_new_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    assert doctor._recbole((3, 12), True).mend == "pip install --no-deps recbole==1.2.1"
    assert doctor._recbole((3, 11), True).mend == "pip install recbole==1.2.1"


def test_an_old_python_is_refused() -> None:
    assert doctor._python((3, 10)).ok
    old = doctor._python((3, 9))
    assert not old.ok
    assert old.detail == "3.9 must be 3.10 or newer"
    assert old.mend


def test_the_output_folder_is_left_as_it_was(tmp_path: Path) -> None:
    assert doctor._output_folder(str(tmp_path / "saved")).ok
    assert list(tmp_path.iterdir()) == []
    kept = tmp_path / "saved"
    kept.mkdir()
    (kept / "model.pth").write_text("x")
    assert doctor._output_folder(str(kept)).ok
    assert [path.name for path in kept.iterdir()] == ["model.pth"]


def test_a_file_in_the_place_of_the_output_folder(tmp_path: Path) -> None:
    (tmp_path / "saved").write_text("")
    check = doctor._output_folder(str(tmp_path / "saved"))
    assert not check.ok
    assert "cannot be written to" in check.detail
    assert check.mend.startswith("mv ")


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)  # root may write everywhere
    check = doctor._output_folder(str(tmp_path / "saved"))
    assert not check.ok
    assert check.detail.endswith("saved cannot be written to (Permission denied)")
    assert check.mend == f'chmod u+rwx "{tmp_path}"'
    assert list(tmp_path.iterdir()) == []


def test_the_exit_status_follows_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = doctor.Check("ray", True, "2.60.0"), doctor.Check("torch", False, "not installed", "pip install torch")
    stream = io.StringIO()
    monkeypatch.setattr(doctor, "checks", lambda: [good])
    assert doctor.report(stream) == 0
    monkeypatch.setattr(doctor, "checks", lambda: [good, bad])
    assert doctor.report(stream) == 1
    assert (
        stream.getvalue().splitlines()[-1] == "wrong  torch          not installed -- mend it with: pip install torch"
    )


def test_the_bounds_are_those_of_setup_cfg() -> None:
    setup = PACKAGE.parent / "setup.cfg"
    if not setup.is_file():
        pytest.skip("an installed package has no setup.cfg beside it")
    required = setup.read_text()
    for package, (lowest, too_new) in doctor.BOUNDS.items():
        assert f"{package}>={lowest}{f',<{too_new}' if too_new else ''}\n" in required
    assert f"recbole=={doctor.RECBOLE};" in required
