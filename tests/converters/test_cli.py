"""The command as a user meets it: mistakes of every kind are one line and status 2."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from argparse import SUPPRESS

import pyarrow as pa
import pyarrow.parquet
import pytest

from recbole_lsti.converters.cli import build_parser, main

ROWS = "userId,movieId,rating,date\na,x,5,2020-01-02\n"


def test_the_usual_names_need_no_flag(cli, log):
    result = cli(log(ROWS, "user_data.csv"))
    assert result.text(".inter") == (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\na\tx\t5\t1577923200\n"
    )
    assert result.err == (
        "user = column userId (recognised)\nitem = column movieId (recognised)\n"
        "time = column date (recognised)\nrating = column rating (recognised)\n"
    )


def test_what_is_ignored_is_said(cli, log):
    result = cli(log("user,item,timestamp,note\na,x,1,hello\n"))
    assert "ignored: note (--feature adds a column)" in result.err


def test_features_with_types_told_and_inferred(cli, log):
    path = log("user,item,timestamp,price,a:b,tags\na,x,1,2.5,z,k|l\n")
    result = cli(path, "--feature", "price:token", "--feature", "a:b", "--feature", "tags:token_seq:|")
    assert result.rows()[0][3:] == ["price:token", "a_b:token", "tags:token_seq"]
    assert result.rows()[1][3:] == ["2.5", "z", "k l"]
    assert "a_b = column a:b, token (inferred)" in result.err


def test_columns_may_have_any_name(cli, log):
    path = log('"who?","what|that",ts,"a ""b"" (c)"\na,x,1,2.5\n')
    result = cli(path, "--user", "who?", "--item", "what|that", "--feature", 'a "b" (c):float')
    assert result.rows() == [
        ["user_id:token", "item_id:token", "timestamp:float", "a_b_c:float"],
        ["a", "x", "1", "2.5"],
    ]


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_columns_may_differ_in_case_alone(cli, log, form):
    row = {"user": "a", "item": "x", "ts": 1, "Title": "one", "title": "two", "User_ID": "three"}
    path = log(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    if form == "json":
        path = log(json.dumps(row), "log.json")
    elif form == "parquet":
        path = path.with_suffix(".parquet")
        pa.parquet.write_table(pa.table({name: [value] for name, value in row.items()}), path)
    features = ("title:token", "Title:token", "User_ID:token")
    result = cli(path, "--user", "user", *(word for spec in features for word in ("--feature", spec)))
    assert result.rows() == [
        ["user_id:token", "item_id:token", "timestamp:float", "title:token", "Title_:token", "User_ID_:token"],
        ["a", "x", "1", "two", "one", "three"],
    ]


@pytest.mark.parametrize("name", ["rowid", "RowID", "_rowid_"])
def test_a_column_called_rowid_does_not_order_the_rows(cli, log, name):
    rows = f"user,item,ts,{name}\na,x,1,9\na,y,1,8\nb,x,1,7\n"
    items = log(f"item,{name}\nx,9\ny,8\ny,7\n", "items.csv")
    result = cli(log(rows), "--feature", name, "--items", items, "--duplicates", "consecutive")
    assert result.rows()[1:] == [["a", "x", "1", "9"], ["a", "y", "1", "8"], ["b", "x", "1", "7"]]
    assert result.rows(".item")[1:] == [["x", "9"], ["y", "8"]]


def test_item_and_user_tables(cli, log):
    items = log("id\ttitle\tprice\nx\tA film\t3\nx\tOnce again\t4\n", "items.tsv")
    users = log('[{"user": "a", "age": 30}]', "users.json")
    result = cli(log(ROWS), "--items", items, "--users", users)
    assert result.text(".item") == "item_id:token\ttitle:token_seq\tprice:float\nx\tA film\t3\n"
    assert result.text(".user") == "user_id:token\tage:float\na\t30\n"
    assert '"repeated_keys": 1' in result.text(".report.json")
    assert "item: 2 rows read, 1 written\n  dropped 1: later rows of one item\nuser: 1 rows read" in result.out


def test_item_features_can_be_chosen(cli, log):
    items = log("sku,title,price\nx,A film,3\n", "items.csv")
    result = cli(log(ROWS), "--items", items, "--item-key", "sku", "--item-feature", "price:token")
    assert result.text(".item") == "item_id:token\tprice:token\nx\t3\n"


def test_without_times_rows_keep_their_order(cli, log):
    result = cli(log("user,item\nb,y\na,x\n"))
    assert result.text(".inter") == "user_id:token\titem_id:token\nb\ty\na\tx\n"
    assert "no time: rows keep the order of the input" in result.err
    assert "TIME_FIELD" not in result.text(".yaml")


def test_the_name_defaults_to_the_file(log, tmp_path, capsys):
    assert main([str(log(ROWS, "shop.csv.txt")), "--output", str(tmp_path / "out"), "--quiet"]) == 0
    assert (tmp_path / "out" / "shop" / "shop.inter").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--user", "usrId"], "column usrId must be one of userId, movieId, rating, date (did you mean userId?)"),
        (["--feature", "raiting"], "column raiting must be one of"),
        (["--feature", "rating:flaot"], "the type of"),
        (["--time", "date,clock"], "column clock must be one of"),
        (["--time", "date,date"], "--time (date,date) must name each column once"),
        (["--feature", "rating:token"] * 2, "log.csv must be given once"),
        (["--no-header"], "--user and --item and --time, if there is one, must name one of the columns 0, 1, 2, 3"),
        (["--encoding", "utf8x"], "--encoding (utf8x) must be a text codec"),
        (["--timezone", "Europe/Pari"], "did you mean Europe/Paris?"),
        (["--max-reject-share", "2"], "--max-reject-share (2.0) must be between 0 and 1"),
        (["--memory", "1"], "--memory (1) must be 128 or more"),
        (["--threads", "0"], "--threads (0) must be 1 or more"),
        (["--sep", '"'], '--sep (") must consist of ASCII characters'),
        (["--since", "soon"], "--since (soon) must be a date"),
        (["--source", "ml1m"], "--source (ml1m) must be one of"),
        (["--source", "ml-1m", "--user", "x"], "--user must not be given with --source"),
        (["--source", "ml-1m"], "--source ml-1m must find one of ratings.dat among the files given; there is log.csv"),
        (["--source", "ml-1m", "--item-key", "x"], "--item-key must not be given with --source"),
        (["--source", "ml-1m", "--user-feature", "x"], "--user-feature must not be given with --source"),
        (["--source", "ml-1m", "--format", "csv"], "--format must not be given with --source"),
        (["--source", "ml-1m", "--quote", "double"], "--quote must not be given with --source"),
        (["--source", "ml-1m", "--decimal", "."], "--decimal must not be given with --source"),
        (["--source", "ml-1m", "--time-format", "s"], "--time-format must not be given with --source"),
        (["--item-key", "x"], "--item-key must come with --items"),
        (["--item-feature", "x"], "--item-feature must come with --items"),
        (["--user-key", "x"], "--user-key must come with --users"),
        (["--user-feature", "x"], "--user-feature must come with --users"),
        (["--split-layout", "rows"], "--split-layout must come with --split"),
        (["--split-max-len", "50"], "--split-max-len must come with --split"),
        (["--key-file", "secret"], "--key-file must come with --pseudonymize"),
        (["--seed", "1"], "--seed must come with --sample-users"),
        (["--split", "loo:0.5,0.25,0.25"], "--split (loo:0.5,0.25,0.25) must be loo alone; time and ratio take shares"),
        (
            ["--split", "loo", "--split-layout", "rows", "--split-max-len", "9"],
            "--split-max-len must not be given with --split-layout rows",
        ),
        (
            ["--rating-threshold", "1", "--normalize", "rating=minmax"],
            "--normalize rating must not be given with --rating-threshold",
        ),
        (["--items", "absent.csv"], "absent.csv must be a readable file"),
        (["--format", "parquet"], "must be a whole Parquet file"),
        (["--format", "xml"], "invalid choice: 'xml'"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["--k-core", "many"], "invalid int value: 'many'"),
    ],
)
def test_mistakes_are_one_line_and_status_2(cli, log, nothing_left, flags, message):
    result = cli(log(ROWS), *flags)
    assert result.code == 2
    said = [line for line in result.err.splitlines() if "(recognised)" not in line and "(inferred)" not in line]
    assert len(said) == 1
    assert message in said[0]
    nothing_left()


@pytest.mark.parametrize("form", ["JSON", "Parquet"])
@pytest.mark.parametrize("flags", [["--sep", ","], ["--no-header"], ["--quote", "none"], ["--encoding", "cp1252"]])
def test_flags_of_a_layout_that_the_file_does_not_have(cli, log, nothing_left, form, flags):
    path = log('{"user": "a", "item": "x"}\n', "log.json")
    if form == "Parquet":
        path = path.with_suffix(".parquet")
        pa.parquet.write_table(pa.table({"user": ["a"], "item": ["x"]}), path)
    result = cli(path, "--user", "user", "--item", "item", *flags)
    if form == "JSON" and flags[0] == "--encoding":
        assert result.code == 0
        return
    assert result.err == f"recbole-lsti convert: {flags[0]} must not be given with {path}, which is {form}\n"
    assert result.code == 2
    nothing_left()


def test_the_layout_of_the_log_is_not_that_of_its_items(cli, log):
    items = log('{"item": "x", "kind": "a"}\n', "items.json")
    assert cli(log(ROWS), "--quote", "none", "--sep", ",", "--items", items).code == 0


def test_a_file_that_is_given_twice(cli, log, tmp_path, nothing_left):
    path = log(ROWS)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.csv").symlink_to(path)
    for other in (path, tmp_path / "l*.csv", tmp_path / "folder" / ".." / "log.csv", tmp_path / "link.csv"):
        result = cli(path, other)
        assert result.code == 2
        assert "(given twice" in result.err
        assert "must be given once" in result.err
    assert f"link.csv (given twice, first as {path}) must be given once" in result.err
    nothing_left()


@pytest.mark.parametrize("name", ["../up", ".hidden", "a b"])
def test_names_that_cannot_be_a_folder(cli, log, name):
    assert "must consist of letters, digits" in cli(log(ROWS), name=name).err


def test_no_file_and_no_match(cli, tmp_path):
    assert "FILE must be given" in cli().err
    assert "(no match) must match at least one file" in cli(tmp_path / "*.csv").err


def test_a_table_without_users(cli, log):
    assert (
        "--user and --item and --time, if there is one, must name one of the columns alpha, beta"
        in cli(log("alpha,beta\n1,2\n")).err
    )
    items = log("alpha,beta\n1,2\n", "items.csv")
    assert "--item must name the key of" in cli(log(ROWS), "--items", items).err


def test_files_of_one_table_must_have_the_same_columns(cli, log):
    result = cli(log(ROWS), log("userId,film,rating,date\na,x,5,2020-01-02\n", "other.csv"))
    assert result.code == 2
    assert "other.csv: column movieId must be one of userId, film, rating, date" in result.err


def test_the_list_of_sources(capsys):
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert "ml-1m                MovieLens 1M: film ratings, 2003" in said
    assert "inter: ratings.dat; item: movies.dat; user: users.dat" in said


def test_help_names_every_flag(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    flags = [flag for action in build_parser()._actions if action.help != SUPPRESS for flag in action.option_strings]
    assert len(flags) > 30
    assert [flag for flag in flags if flag not in said] == []
    assert "column of the user; with --no-header, its number from 0" in " ".join(said.split())


def test_it_starts_fast_and_imports_neither_torch_nor_recbole():
    code = (
        "import sys, recbole_lsti.converters.cli as cli; cli.main(['--list']);"
        "heavy = {'torch', 'recbole', 'pandas', 'ray'} & set(sys.modules); assert not heavy, heavy"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # whatever else the machine does
    assert processor < 1.0
