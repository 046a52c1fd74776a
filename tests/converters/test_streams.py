"""Compression, encodings, and what is no text."""

from __future__ import annotations

import gzip
import zipfile

import pytest

from recbole_lsti.converters import streams
from recbole_lsti.converters.streams import InputFile, text_lines
from recbole_lsti.errors import AtomicFileError

HEAD = "user_id,item_id,timestamp\n"


def lines_of(path, **options):
    return b"".join(chunk.data for chunk in InputFile(path, **options).lines()).decode("utf-8")


def test_latin_1_is_detected(log):
    assert lines_of(log("été\n".encode("latin-1"))) == "été\n"


def test_the_quotes_of_windows_1252_are_detected(log):
    assert lines_of(log(b"\x93quoted\x94 \x81\n")) == "\x93quoted\x94 \x81\n"
    assert lines_of(log(b"\x93quoted\x94\n")) == "“quoted”\n"


def test_a_later_chunk_may_decide(log, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", 16)
    path = log(b"plain ascii\n" * 20 + "été\n".encode("latin-1"))
    assert len(list(InputFile(path).lines())) > 1
    assert lines_of(path).endswith("été\n")


@pytest.mark.parametrize("last", [b"\x93", b"\x81"])  # a quote, and a byte that Windows-1252 does not know
@pytest.mark.parametrize("chunk", [64, 1 << 20])
def test_a_json_array_of_another_encoding(cli, log, monkeypatch, last, chunk):
    monkeypatch.setattr(streams, "CHUNK_BYTES", chunk)
    rows = [b'{"user": "a", "item": "x"}'] * 4 + [b'{"user": "Zo\xeb' + last + b'", "item": "y"}']
    result = cli(log(b"[" + b",".join(rows) + b"]", "log.json"))
    assert result.column("user_id") == ["a"] * 4 + ["Zoë" + ("“" if last == b"\x93" else "\x81")]


def test_a_json_array_with_a_broken_byte_amid_utf_8_is_refused(cli, log, nothing_left):
    rows = [
        b'{"user": "a", "item": "x"}',
        b'{"user": "\xe2\x80", "item": "x"}',
        '{"user": "Zoë", "item": "y"}'.encode(),
    ]
    result = cli(log(b"[" + b",\n".join(rows) + b"]", "log.json"))
    assert result.code == 2
    assert result.err.endswith("log.json, line 2: bytes (0xe2) must be utf-8 text\n")
    nothing_left()


def test_a_broken_byte_in_utf_8_costs_its_line(log):
    file = InputFile(log("é\n".encode() + b"bad \xff\n" + "ü\n".encode()))
    chunk = next(file.lines())
    assert chunk.data == "é\n\nü\n".encode()
    assert [(r.line, r.reason) for r in chunk.rejects] == [(2, "bytes are not UTF-8")]
    assert file.encoding == "utf-8"


@pytest.mark.parametrize("encoding", ["shift_jis", "gb18030", "utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_an_encoding_is_obeyed(log, encoding):
    assert lines_of(log("日本\n語\n".encode(encoding)), encoding=encoding) == "日本\n語\n"


def test_an_encoding_of_seven_bits_is_obeyed(cli, log):
    data = "user,item\n日本,x\n".encode("iso2022_jp")
    assert data.isascii()
    assert cli(log(data), "--encoding", "iso2022_jp").column("user_id") == ["日本"]


@pytest.mark.parametrize("encoding", ["ascii", "shift_jis"])
def test_lines_that_are_not_of_the_encoding_asked_for_are_rejected(cli, log, encoding):
    data = "user,item\n" + "a,x\n" * 3 + "Zoë,x\nZoé,x\n"
    result = cli(log(data.encode("cp1252")), "--encoding", encoding, "--max-reject-share", "1")
    assert result.column("user_id") == ["a"] * 3
    reason = f"bytes are not {encoding}"
    assert [row[1:] for row in result.rows(".rejects.tsv")[1:]] == [
        ["5", reason, r"Zo\\xeb,x"],
        ["6", reason, r"Zo\\xe9,x"],
    ]


def test_ids_of_a_broken_utf_16_stay_apart(log):
    data = "\ufeffa\nZo".encode("utf-16-le") + b"\x00\xd8" + "\nZo".encode("utf-16-le") + b"\x01\xd8\n\0"
    first, second = lines_of(log(data)).split("\n")[1:3]
    assert first != second


def test_a_header_that_is_no_text_does_not_make_a_header_of_the_first_row(cli, log, nothing_left):
    result = cli(log("user,item,prénom\na,x,y\n".encode("cp1252")), "--encoding", "ascii")
    assert result.code == 2
    assert result.err.endswith("log.csv, line 1 (bytes are not ascii) must name the columns\n")
    nothing_left()


def test_utf_8_behind_a_byte_of_windows_1252_is_not_mangled(cli, log, monkeypatch, nothing_left):
    monkeypatch.setattr(streams, "CHUNK_BYTES", 32)
    path = log(b"user,item\nJos\xe9,x\n" + b"a,x\n" * 20 + "Zoë,x\n".encode())
    result = cli(path)
    assert result.code == 2
    rule = "text (UTF-8, behind bytes that are not) must be in one encoding; --encoding tells which"
    assert result.err.endswith(f"log.csv, line 23: {rule}\n")
    nothing_left()
    told = cli(path, "--encoding", "utf-8", "--max-reject-share", "0.1")
    assert set(told.column("user_id")) == {"a", "Zoë"}


def test_utf_8_behind_a_byte_of_windows_1252_in_a_json_array(cli, log, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", 64)
    rows = [b'{"user": "Jos\xe9", "item": "x"}', *[b'{"user": "a", "item": "x"}'] * 9]
    rows.append('{"user": "Zoë", "item": "x"}'.encode())
    result = cli(log(b"[" + b",\n".join(rows) + b"]", "log.json"))
    assert "log.json, line 11: text (UTF-8, behind bytes that are not) must be in one encoding" in result.err


def test_capitals_that_look_like_utf_8_do_not_stop_windows_1252(log, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", 32)
    text = "été\n" + "a\n" * 40 + "JOSÉ’S,été,où\n"  # É’ is a character of UTF-8 too
    assert lines_of(log(text.encode("cp1252"))) == text


@pytest.mark.parametrize("name", ["latin1x", "hex", "no such", "undefined"])
def test_an_unknown_encoding(log, name):
    with pytest.raises(AtomicFileError, match=r"--encoding \(.*\) must be a text codec"):
        InputFile(log("x\n"), encoding=name)


def test_nul_bytes_are_rejected(cli, log):
    result = cli(log(HEAD.encode() + b"a,x,1\n" * 200 + b"a,\0,1\n"))
    assert result.code == 0
    assert result.rows(".rejects.tsv")[1][1:3] == ["202", "NUL byte in the line"]


def test_text_lines_finds_lines_across_chunks(log, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", 10)
    path = log("".join(f"line {n}\n" for n in range(1, 101)))
    assert len(list(InputFile(path).lines())) > 1
    file = InputFile(path)
    assert text_lines(file, {1, 50, 100}) == {1: "line 1", 50: "line 50", 100: "line 100"}


def test_a_line_without_end_is_named(log, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", 10)
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 100)
    path = log("".join(f"line {n}\n" for n in range(1, 51)) + "x" * 200)
    with pytest.raises(AtomicFileError, match="line 51 must be shorter"):
        list(InputFile(path).lines())


def test_a_bomb_is_stopped(cli, log, nothing_left):
    bomb = gzip.compress(HEAD.encode() + b"a,x,1\n" * (30 << 20))
    result = cli(log(bomb, "log.csv.gz"), "--max-expansion", "100")
    assert result.code == 2
    assert "must expand less than 100-fold" in result.err
    nothing_left()


@pytest.mark.parametrize("cut", [5, 30])
def test_a_cut_archive(cli, log, nothing_left, cut):
    whole = gzip.compress((HEAD + "".join(f"u{n},i{n * 7},{n}\n" for n in range(999))).encode())
    result = cli(log(whole[:-cut] if cut > 5 else whole[:cut], "log.csv.gz"))
    assert result.code == 2
    assert "must be a whole, readable file" in result.err
    nothing_left()


def test_a_member_cannot_escape(cli, tmp_path):
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.writestr("../../escaped.csv", HEAD + "a,x,1\n")
    result = cli(tmp_path / "log.zip")
    assert result.rows()[1] == ["a", "x", "1"]
    assert not list(tmp_path.parent.rglob("escaped.csv"))


def test_an_archive_of_several_files_needs_a_choice(cli, tmp_path):
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.writestr("one.csv", HEAD + "a,x,1\n")
        archive.writestr("two.csv", HEAD + "b,y,2\n")
    result = cli(tmp_path / "log.zip")
    assert result.code == 2
    assert "holds 2 files; pick one as log.zip:MEMBER of one.csv, two.csv" in result.err
    assert cli(f"{tmp_path / 'log.zip'}:two.csv", name="two").rows()[1] == ["b", "y", "2"]
    assert "did you mean two.csv?" in cli(f"{tmp_path / 'log.zip'}:tow.csv", name="three").err


def test_a_file_that_only_claims_to_be_an_archive(cli, log):
    assert "must be a whole, readable file" in cli(log("text", "log.zip")).err


def test_a_directory_is_no_file(cli, tmp_path):
    (tmp_path / "folder").mkdir()
    assert "(a directory) must be a file" in cli(tmp_path / "folder").err


def test_a_missing_file_names_its_neighbour(cli, log, tmp_path):
    log("x", "ratings.csv")
    result = cli(tmp_path / "rating.csv")
    assert result.code == 2
    assert "did you mean ratings.csv?" in result.err
