"""All of a folder or nothing, whatever happens half-way."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from recbole_lsti.converters import convert as convert_module
from recbole_lsti.converters.cli import main
from recbole_lsti.errors import AtomicFileError

ROWS = "user_id,item_id,timestamp\na,x,1\n"


def contents(folder):
    return sorted((path.name, path.read_bytes()) for path in folder.iterdir())


def command(path, out, *flags):
    return [sys.executable, "-m", "recbole_lsti.converters", str(path), "--name", "made", "--output", str(out), *flags]


def test_an_existing_folder_is_kept_unless_told(cli, log):
    first = cli(log(ROWS))
    before = contents(first.folder)
    again = cli(log(ROWS.replace("x", "y")))
    assert again.code == 2
    assert "(exists) must be a new folder; --overwrite replaces it" in again.err
    assert contents(first.folder) == before
    replaced = cli(log(ROWS.replace("x", "y")), "--overwrite")
    assert replaced.column("item_id") == ["y"]
    assert [path.name for path in replaced.folder.parent.iterdir()] == ["made"]


def test_overwriting_drops_files_of_the_earlier_run(cli, log):
    cli(log(ROWS + "a,y,2\na,z,3\n"), "--split", "loo")
    result = cli(log(ROWS), "--overwrite")
    assert sorted(path.name for path in result.folder.iterdir()) == ["made.inter", "made.report.json", "made.yaml"]


def test_a_failed_overwrite_keeps_what_was_there(cli, log):
    before = contents(cli(log(ROWS)).folder)
    failed = cli(log("user_id,item_id,timestamp\na,,1\n"), "--overwrite")
    assert failed.code == 2
    assert contents(failed.folder) == before
    assert [path.name for path in failed.folder.parent.iterdir()] == ["made"]


def test_a_file_in_the_way(cli, log, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "made").write_text("mine")
    assert "(a file) must be a folder" in cli(log(ROWS), "--overwrite").err
    assert (tmp_path / "out" / "made").read_text() == "mine"


def test_an_output_that_is_no_folder(cli, log, tmp_path):
    (tmp_path / "out").write_text("mine")
    result = cli(log(ROWS))
    assert result.code == 2
    assert "must be a writable folder" in result.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_output(cli, log, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    assert "must be a writable folder" in cli(log(ROWS)).err


@pytest.mark.parametrize("step", ["write_table", "config_yaml", "write_report"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_when_a_step_fails(cli, log, monkeypatch, nothing_left, step, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(convert_module, step, fail)
    result = cli(log(ROWS))
    assert result.code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert len(result.err.splitlines()) == 4  # what was recognised, and one line of error
    nothing_left()


@pytest.mark.parametrize("error", [OSError(13, "Permission denied"), KeyboardInterrupt()])
@pytest.mark.parametrize("which", ["made", ".made.partial-"])
def test_a_stop_at_either_rename_keeps_the_old_folder(cli, log, monkeypatch, which, error):
    result = cli(log(ROWS))
    before = contents(result.folder)
    rename = type(result.folder).rename

    def stop(self, target):
        if self.name.startswith(which):
            raise error
        return rename(self, target)

    monkeypatch.setattr(type(result.folder), "rename", stop)
    failed = cli(log(ROWS.replace("x", "y")), "--overwrite")
    assert failed.code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert contents(result.folder) == before
    assert [path.name for path in result.folder.parent.iterdir()] == ["made"]


def test_a_folder_that_appears_meanwhile_is_not_replaced(cli, log, tmp_path, monkeypatch):
    write = convert_module.write_report

    def write_late(*arguments):
        write(*arguments)
        (tmp_path / "out" / "made").mkdir()
        (tmp_path / "out" / "made" / "mine").touch()

    monkeypatch.setattr(convert_module, "write_report", write_late)
    result = cli(log(ROWS))
    assert result.code == 2
    assert "(exists) must be a new folder" in result.err
    assert [path.name for path in result.folder.iterdir()] == ["mine"]


@pytest.mark.parametrize("archive", [False, True])
def test_a_folder_that_holds_the_input_is_not_replaced(tmp_path, capsys, archive):
    raw = tmp_path / "ml-1m" / "raw"
    raw.mkdir(parents=True)
    if archive:
        with zipfile.ZipFile(raw / "ml-1m.zip", "w") as file:
            file.writestr("ratings.dat", "1::2::3::978300760\n")
    else:
        (raw / "ratings.dat").write_text("1::2::3::978300760\n")
    flags = ["--source", "ml-1m", "--output", str(tmp_path), "--overwrite"]
    assert main([str(tmp_path / "ml-1m"), *flags]) == 2
    assert "ml-1m (holds the input" in capsys.readouterr().err
    assert [path.name for path in raw.iterdir()] == ["ml-1m.zip" if archive else "ratings.dat"]


def test_a_full_disk(log, tmp_path, nothing_left):
    rows = log("user_id,item_id,timestamp\n" + "".join(f"user{n},item{n},{n}\n" for n in range(200_000)))

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = subprocess.run(command(rows, tmp_path / "out"), preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "recbole-lsti convert: " in done.stderr.splitlines()[-1]
    nothing_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_half_way(log, tmp_path, nothing_left, number):
    rows = log("user_id,item_id,timestamp\n" + "".join(f"user{n},item{n},{n}\n" for n in range(1_000_000)))
    process = subprocess.Popen(
        command(rows, tmp_path / "out", "--json"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores Ctrl-C
    )
    assert process.stderr is not None
    for line in process.stderr:
        if '"read"' in line:
            break
    time.sleep(0.05)
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait(30) == 130, rest
    assert "interrupted; nothing was written" in rest
    assert "Traceback" not in rest
    nothing_left()


def test_the_error_is_a_value_error():
    assert issubclass(AtomicFileError, ValueError)
