"""Pseudonyms are keyed and stable; nothing that is written tells the tokens they stand for."""

from __future__ import annotations

import hashlib
import hmac
import io
import sys
import tempfile

import pytest

from recbole_lsti.converters import cli as cli_module
from recbole_lsti.converters import streams
from recbole_lsti.converters.privacy import KEY_VARIABLE, pseudonym, read_key
from recbole_lsti.errors import AtomicFileError

from .test_sources import YELP, write_files

KEY = "a key of more than sixteen bytes"
ROWS = "user_id,item_id,timestamp\n" + "anna,x,100000000\nanna,y,100003600\nboris,x,100090000\n"


def test_a_key_in_the_folder_that_is_replaced_is_kept(cli, log, tmp_path):
    key = tmp_path / "out" / "made" / "key"
    key.parent.mkdir(parents=True)
    key.write_text("a secret of sixteen bytes or more")
    result = cli(log("user,item\na,x\n"), "--pseudonymize", "--key-file", key, "--overwrite")
    assert f"--key-file ({key}) must lie outside" in result.err
    assert key.exists()


def test_pseudonyms_are_the_first_half_of_an_hmac():
    whole = hmac.new(KEY.encode(), b"anna", hashlib.sha256).hexdigest()
    assert pseudonym(KEY.encode(), "anna") == whole[:32]


def test_every_table_gets_the_same_pseudonyms(cli, log, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    users = log("user_id,age\nanna,30\nboris,40\n", "users.csv")
    result = cli(log(ROWS), "--users", users, "--pseudonymize", "--session-gap", "60")
    anna, boris = (pseudonym(KEY.encode(), name) for name in ("anna", "boris"))
    assert result.column("user_id") == [anna, anna, boris]
    assert sorted(result.column("user_id", ".user")) == sorted([anna, boris])
    everything = "".join(path.read_text() for path in result.folder.iterdir())
    assert "anna" not in everything
    assert "boris" not in everything
    assert KEY not in everything


def test_the_place_of_a_user_does_not_tell_the_line(cli, log, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    names = [f"u{n}" for n in range(20)]
    users = log("user_id,age\n" + "".join(f"{name},{at}\n" for at, name in enumerate(names)), "users.csv")
    result = cli(log(ROWS), "--users", users, "--pseudonymize")
    expected = sorted((pseudonym(KEY.encode(), name), str(at)) for at, name in enumerate(names))
    assert result.rows(".user")[1:] == [list(row) for row in expected]


def test_another_key_gives_other_tokens(cli, log, tmp_path):
    keys = [tmp_path / "one", tmp_path / "two"]
    for at, path in enumerate(keys):
        path.write_text(f"{KEY} {at}\n")
    rows = log(ROWS)
    columns = [
        cli(rows, "--pseudonymize", "--key-file", path, name=name).column("user_id")
        for path, name in ((keys[0], "a"), (keys[1], "b"), (keys[0], "c"))
    ]
    assert columns[0] == columns[2] != columns[1]


def test_rejected_lines_are_withheld(cli, log, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    result = cli(log(ROWS + "zoe,,1\n"), "--pseudonymize", "--max-reject-share", "0.5")
    assert "zoe" not in result.text(".rejects.tsv")
    assert "withheld" in result.text(".rejects.tsv")


@pytest.mark.parametrize("flags", [("--drop-rare-users", "2"), ("--time-grain", "day")])
@pytest.mark.parametrize("bad", ["zoe,,100000001", "zoe,x"])
def test_rejected_lines_are_withheld_whatever_is_to_be_hidden(cli, log, flags, bad):
    result = cli(log(ROWS + bad + "\n"), *flags, "--max-reject-share", "0.5")
    assert result.rows(".rejects.tsv")[1][3] == "(withheld: the run protects users)"
    assert "zoe" not in result.text(".rejects.tsv")


def test_a_ragged_line_is_withheld_too(cli, log, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    result = cli(log(ROWS + "zoe,x\n"), "--pseudonymize", "--max-reject-share", "0.5")
    assert "zoe" not in result.text(".rejects.tsv")


def test_a_missing_key(cli, log, monkeypatch, nothing_left):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    result = cli(log(ROWS), "--pseudonymize")
    assert result.code == 2
    assert f"--pseudonymize must have a key: set {KEY_VARIABLE}, or give --key-file FILE" in result.err
    nothing_left()


def test_a_copy_of_standard_input_lies_below_the_output_and_goes(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ROWS.encode())))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    seen = []

    def spool(stream, folder):
        seen.append(folder)
        return streams.spool(stream, folder)

    monkeypatch.setattr(cli_module, "spool", spool)
    result = cli("-")
    assert result.column("item_id") == ["x", "y", "x"]
    assert seen[0].parent == tmp_path / "out"
    assert seen[0].name.startswith(".standard-input-")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["made"]


@pytest.mark.parametrize("fault", ["the output", "the disk"])
def test_a_copy_of_standard_input_that_cannot_be_is_one_line(cli, tmp_path, monkeypatch, fault):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ROWS.encode())))
    if fault == "the output":
        (tmp_path / "out").write_text("mine")
    else:
        monkeypatch.setattr(cli_module, "spool", full)
    result = cli("-")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert f"--output ({tmp_path / 'out'}) must be a writable folder, for a copy of standard input: " in result.err
    assert (tmp_path / "out").is_file() or not list((tmp_path / "out").iterdir())


def test_keys_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(AtomicFileError, match="must be a readable file"):
        read_key(tmp_path / "absent")
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(AtomicFileError, match=r"\(5 bytes\) must hold a key of at least 16 bytes"):
        read_key()


def test_rare_users_go_from_every_table(cli, log):
    users = log("user_id,age\nanna,30\nboris,40\n", "users.csv")
    result = cli(log(ROWS), "--users", users, "--drop-rare-users", "2")
    assert set(result.column("user_id")) == {"anna"}
    assert result.column("user_id", ".user") == ["anna"]


@pytest.mark.parametrize("fewest", [1, 2])
def test_users_without_rows_are_rare_too(cli, log, fewest):
    users = log("user_id,age\nanna,30\nboris,40\nzoe,50\n", "users.csv")
    rows = log(ROWS.replace("boris", "anna"))
    result = cli(rows, "--users", users, "--drop-rare-users", fewest)
    assert result.column("user_id", ".user") == ["anna"]


def test_fewer_than_no_rows_is_refused(cli, log):
    assert "--drop-rare-users (-1) must be 0 or more" in cli(log(ROWS), "--drop-rare-users", "-1").err


def test_dropping_everyone_is_refused(cli, log, nothing_left):
    result = cli(log(ROWS), "--drop-rare-users", "9")
    assert result.code == 2
    assert "--drop-rare-users (9) must leave at least one user" in result.err
    nothing_left()


def test_coarser_time_keeps_the_order(cli, log):
    rows = "user_id,item_id,timestamp\na,late,100000900\na,early,100000100\na,next,100090000\n"
    result = cli(log(rows), "--time-grain", "day")
    assert result.column("item_id") == ["early", "late", "next"]
    assert [int(t) % 86400 for t in result.column("timestamp")] == [0, 0, 0]
    assert '"first_second": 99964800' in result.text(".report.json")


def test_every_time_of_a_named_source_becomes_coarser(cli, tmp_path):
    write_files(tmp_path, YELP)
    exact = cli(tmp_path, "--source", "yelp", name="exact")
    assert exact.column("yelping_since", ".user") == ["1232858142"]
    coarse = cli(tmp_path, "--source", "yelp", "--time-grain", "day")
    assert coarse.column("yelping_since", ".user") == ["1232841600"]
    assert coarse.column("timestamp") == ["1530921600"]


def test_an_unknown_grain(cli, log):
    assert "--time-grain (dey) must be one of" in cli(log(ROWS), "--time-grain", "dey").err


def test_what_else_tells_who_the_user_is_is_replaced_in_named_sources(cli, tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    rows = "sessionId;userId;itemId;timeframe;eventdate\n1;anna;81766;526309;2016-05-09\n2;;31331;1031018;2016-05-09\n"
    (tmp_path / "train-item-views.csv").write_text(rows)
    result = cli(tmp_path, "--source", "diginetica", "--pseudonymize")
    assert result.rows()[0][3] == "buyer_id:token"
    assert "anna" not in result.text(".inter")
    assert [bool(row[3]) for row in result.rows()[1:]] == [True, False], "a missing name stays missing"
