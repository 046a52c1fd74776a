"""Every format and way of giving files leads to the same bytes."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zipfile

import pyarrow as pa
import pyarrow.parquet
import pytest

from recbole_lsti.converters import streams

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
EXPECTED = HEADER + "b\ty\t4\t100000000\na\tx\t5\t200000000\na\tz\t3\t200000000\n"
ROWS = [("a", "x", "5", "200000000"), ("b", "y", "4", "100000000"), ("a", "z", "3", "200000000")]
NAMES = ("user_id", "item_id", "rating", "timestamp")
CSV = "\n".join([",".join(NAMES), *(",".join(row) for row in ROWS)]) + "\n"
OBJECTS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]


@pytest.mark.parametrize("sep", [",", "\t", ";", "|", "::", "\x01"])
def test_separators_are_found_out(cli, log, sep):
    assert cli(log(CSV.replace(",", sep), "log.txt")).text(".inter") == EXPECTED


def test_an_unusual_separator_is_told(cli, log):
    assert cli(log(CSV.replace(",", "~~")), "--sep", "~~").text(".inter") == EXPECTED


def test_json_lines(cli, log):
    lines = "\n".join(json.dumps(row) for row in OBJECTS)
    assert cli(log(lines, "log.jsonl")).text(".inter") == EXPECTED


@pytest.mark.parametrize("indent", [None, 2])
def test_json_array(cli, log, indent):
    assert cli(log(json.dumps(OBJECTS, indent=indent), "log.json")).text(".inter") == EXPECTED


def test_json_numbers_and_nested_keys(cli, log):
    line = '{"who": {"id": 7}, "item": "x", "ts": 200000000}\n'
    result = cli(log(line, "log.jsonl"), "--user", "who.id")
    assert result.rows()[1] == ["7", "x", "200000000"]


def test_json_keys_in_any_script(cli, log):
    lines = json.dumps({"用户": "甲", '商品"': "x", "ts": 200000000}, ensure_ascii=False)
    result = cli(log(lines, "log.jsonl"), "--user", "用户", "--item", '商品"')
    assert result.rows()[1] == ["甲", "x", "200000000"]


def test_keys_that_only_later_objects_have(cli, tmp_path):
    game = {"id": "1", "app_name": "Early"}
    games = [{**game, "id": str(n)} for n in range(150)] + [
        {"id": "151", "title": "Late", "publisher": "Ann", "price": 3}
    ]
    (tmp_path / "steam_games.json").write_text("\n".join(map(repr, games)))
    review = {"username": "u", "product_id": "151", "date": "2017-12-17"}
    reviews = [review] * 150 + [{**review, "hours": 2.5}]
    (tmp_path / "steam_reviews.json").write_text("\n".join(map(repr, reviews)))
    result = cli(tmp_path, "--source", "steam")
    assert result.rows()[-1][3] == "2.5"
    table = result.rows(".item")
    assert [row[1] for row in table[1:]] == ["Early"] * 150 + ["Late"]
    assert [table[-1][table[0].index(name)] for name in ("publisher:token", "price:float")] == ["Ann", "3"]


JSON_FORMS = {"array": lambda rows: f"[{', '.join(rows)}]", "lines": "\n".join}


@pytest.mark.parametrize("form", JSON_FORMS)
@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig", "utf-16"])
def test_the_encoding_of_json_is_found_out(cli, log, form, encoding):
    rows = [f'{{"prénom": "{name}", "item": "x", "ts": {at}}}' for at, name in enumerate(["Zoë", "Zoé", "Zoe"])]
    data = JSON_FORMS[form](rows).encode(encoding)
    result = cli(log(data, "log.json"), "--user", "prénom")
    assert result.column("user_id") == ["Zoë", "Zoé", "Zoe"]


@pytest.mark.parametrize("form", JSON_FORMS)
@pytest.mark.parametrize("encoding", ["gb18030", "utf-16-le"])
def test_the_encoding_of_json_is_obeyed(cli, log, form, encoding):
    data = JSON_FORMS[form](['{"用户": "甲", "item": "x", "ts": 1}']).encode(encoding)
    assert cli(log(data, "log.json"), "--user", "用户", "--encoding", encoding).column("user_id") == ["甲"]


def test_an_array_in_small_pieces(cli, log, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", 7)
    data = ('[{"user": "a", "item": "x", "ts": 1}, {"user": "Zo\xe9", "item": "x", "ts": 2}]').encode("latin-1")
    flags = ("--user", "user", "--item", "item", "--time", "ts")
    monkeypatch.setattr(streams.InputFile, "head_text", lambda self: data.decode("latin-1"))
    assert cli(log(data, "log.json"), *flags).column("user_id") == ["a", "Zoé"]


def test_a_byte_of_an_array_that_the_encoding_does_not_know(cli, log, nothing_left):
    result = cli(log('[{"user": "é", "item": "x", "ts": 1},\n {"user": "'.encode() + b'\xe9"}]', "log.json"))
    assert result.code == 2
    assert "log.json, line 2: bytes (0xe9) must be utf-8 text" in result.err
    nothing_left()


def test_lines_of_python_literals_are_parsed_not_evaluated(cli, log, tmp_path):
    evil = tmp_path / "evil"
    lines = "{u'user': 'a', 'item': u'x', 'ts': 200000000}\n" * 200
    lines += f"{{'user': open({str(evil)!r}, 'w'), 'item': 'x', 'ts': 1}}\n"
    result = cli(log(lines, "log.json"))
    assert len(result.rows()) == 201
    assert not evil.exists()
    assert "not a JSON object" in result.text(".rejects.tsv")


def test_a_literal_that_is_no_text_is_rejected(cli, log):
    lines = "{'user': 'a', 'item': 'x', 'ts': 200000000}\n" * 200 + "{'user': '\\ud800', 'item': 'x', 'ts': 1}\n"
    assert len(cli(log(lines, "log.json")).rows()) == 201


def test_parquet(cli, tmp_path):
    table = pa.table({name: [row[at] for row in ROWS] for at, name in enumerate(NAMES)})
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    assert cli(tmp_path / "log.parquet").text(".inter") == EXPECTED


def test_parquet_types(cli, tmp_path):
    table = pa.table(
        {
            "user_id": pa.array([1.0, None, 3.0]),  # ids that a missing value made floats
            "item_id": pa.array([1, 2, 3]).dictionary_encode(),
            "timestamp": pa.array([1_500_000_000_250_000] * 3, pa.timestamp("us", "Europe/Berlin")),
            "tags": pa.array([["a b", "c"], [], None]),
        }
    )
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    result = cli(tmp_path / "log.parquet", "--feature", "tags:token_seq", "--max-reject-share", "0.5")
    assert result.rows()[1:] == [["1", "1", "1500000000.25", "a_b c"], ["3", "3", "1500000000.25", ""]]
    assert "empty user_id" in result.text(".rejects.tsv")


def test_parquet_nan_is_a_missing_value(cli, tmp_path):
    for kind in (pa.float64(), pa.float32()):
        table = pa.table({"user_id": pa.array([1.0, float("nan"), 2.0**30], kind), "item_id": [1, 2, 3]})
        pa.parquet.write_table(table, tmp_path / "log.parquet")
        result = cli(tmp_path / "log.parquet", "--max-reject-share", "0.5", "--overwrite")
        assert result.column("user_id") == ["1", "1073741824"]
        assert "empty user_id" in result.text(".rejects.tsv")


@pytest.mark.parametrize("sep", [",", "::"])
def test_a_row_that_lacks_all_that_is_read_is_rejected(cli, log, sep):
    lines = ["user,item,ts,note", *["a,x,1,n"] * 200, ",,,hello", "", ",,,", "a,y,1,"]
    result = cli(log("\n".join(lines).replace(",", sep)), "--sep", sep)
    assert len(result.rows()) == 202
    assert result.rows(".rejects.tsv")[1:] == [
        [result.rows(".rejects.tsv")[1][0], "202", "empty user_id", ",,,hello".replace(",", sep)]
    ]


def test_a_comma_may_be_both_separator_and_decimal_mark(cli, log):
    items = log('item,genres,price\nx,a|b,"1,5"\ny,a|c,"2,5"\n', "items.csv")
    result = cli(
        log('user,item,rating\na,x,"4,5"\na,y,"3,5"\n'),
        "--decimal",
        ",",
        "--items",
        items,
        "--item-feature",
        "genres",
        "--item-feature",
        "price:float",
    )
    assert result.column("rating") == ["4.5", "3.5"]
    assert result.text(".item").splitlines()[1:] == ["x\ta b\t1.5", "y\ta c\t2.5"]


def test_types_and_times_are_found_behind_many_empty_rows(cli, log):
    rows = "".join(f"a,x{n},,\n" for n in range(1500)) + "".join(f"b,x{n},{n},9.5\n" for n in range(1500))
    text = "user,item,time,price\n" + rows
    result = cli(log(text), "--feature", "price", "--max-reject-share", "1")
    assert result.text(".inter").splitlines()[0].endswith("timestamp:float\tprice:float")


def test_types_are_found_in_the_second_of_two_columns_named_alike(cli, log):
    text = "user,item,Price,price\n" + "".join(f"a,x{n},,9.5\n" for n in range(9))
    result = cli(log(text), "--feature", "Price", "--feature", "price")
    kinds = [field.rpartition(":")[2] for field in result.text(".inter").splitlines()[0].split("\t")]
    assert kinds == ["token", "token", "token", "float"]


def test_the_decimal_mark_separates_nothing(cli, log):
    flags = ("--no-header", "--decimal", ",", "--user", "0", "--item", "1", "--rating", "2", "--time", "3")
    assert cli(log("1;2;3,5;100\n" * 3), *flags).rows()[1] == ["1", "2", "3.5", "100"]


def test_excel_csv(cli, log):
    text = 'sep=;\r\nuser_id;item_id;rating;timestamp\r\na;"x;1";4,5;02.01.2020 10:00\r\n'
    result = cli(log("\ufeff" + text), "--decimal", ",")
    assert result.rows()[1] == ["a", "x;1", "4.5", "1577959200"]


def test_excel_unicode_text(cli, log):
    data = CSV.replace(",", "\t").replace("\n", "\r\n").encode("utf-16")
    assert cli(log(data, "log.txt")).text(".inter") == EXPECTED


def test_a_mac_file_of_lone_returns(cli, log):
    assert cli(log(CSV.replace("\n", "\r"))).text(".inter") == EXPECTED


@pytest.mark.parametrize("suffix", ["gz", "zip", "zst"])
def test_compression(cli, tmp_path, suffix):
    path = tmp_path / f"log.csv.{suffix}"
    if suffix == "gz":
        path.write_bytes(gzip.compress(CSV.encode()))
    elif suffix == "zst":
        path.write_bytes(pa.compress(CSV.encode(), "zstd", asbytes=True))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("deep/log.csv", CSV)
    assert cli(path).text(".inter") == EXPECTED


def test_many_files_and_globs(cli, tmp_path):
    for at, row in enumerate(ROWS):
        (tmp_path / f"part{at}.csv").write_text(",".join(NAMES) + "\n" + ",".join(row) + "\n")
    assert cli(tmp_path / "part*.csv").text(".inter") == EXPECTED
    files = [tmp_path / f"part{at}.csv" for at in range(3)]
    assert cli(*files, name="again").text(".inter") == EXPECTED


def test_files_may_order_their_columns_differently(cli, log):
    first = log("user_id,item_id,timestamp\na,x,200000000\n", "first.csv")
    second = log("timestamp,item_id,user_id\n100000000,y,b\n", "second.csv")
    assert cli(first, second).rows()[1:] == [["b", "y", "100000000"], ["a", "x", "200000000"]]


def test_standard_input(cli, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CSV.encode())))
    assert cli("-").text(".inter") == EXPECTED


def test_compressed_standard_input(cli, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(CSV.encode()))))
    assert cli("-").text(".inter") == EXPECTED


def test_columns_by_number(cli, log):
    body = CSV.split("\n", 1)[1]
    flags = ["--no-header", "--user", "0", "--item", "1", "--rating", "2", "--time", "3"]
    assert cli(log(body), *flags).text(".inter") == EXPECTED


def test_quotes_separators_and_line_ends_inside_a_field(cli, log):
    text = 'user_id,item_id,timestamp,title\na,x,1,"One, ""two""\nthree"\nb,y,2,5" disk\nc,z,3,plain\n'
    result = cli(log(text), "--feature", "title:token")
    assert result.text(".inter").splitlines()[1:] == [
        'a\tx\t1\t"One, ""two"" three"',
        'b\ty\t2\t"5"" disk"',
        "c\tz\t3\tplain",
    ]


def test_line_numbers_count_lines_not_records(cli, log):
    text = 'user_id,item_id,timestamp,title\na,x,1,"two\nlines"\n\nb,,2,bad\n' + "c,z,3,t\n" * 200
    rejects = cli(log(text), "--feature", "title").rows(".rejects.tsv")
    assert rejects[1][1:] == ["5", "empty item_id", "b,,2,bad"]


def test_an_open_quote_costs_one_line_only(cli, log):
    text = 'user_id,item_id,timestamp,title\na,x,1,"open\n' + "c,z,3,t\n" * 300
    result = cli(log(text), "--feature", "title:token")
    assert len(result.rows()) == 301
    assert result.rows(".rejects.tsv")[1][1:] == ["2", "quote is never closed", 'a,x,1,"open']


@pytest.mark.parametrize("second", ['2,"def,6', '2,"def",6'])
@pytest.mark.parametrize("chunk", [16, 1 << 20])
def test_the_quotes_of_two_lines_make_no_pair(cli, log, monkeypatch, second, chunk):
    monkeypatch.setattr(streams, "CHUNK_BYTES", chunk)
    text = f'user_id,item_id,rating\n1,"abc,5\n{second}\n3,ghi,7\n'
    result = cli(log(text), "--max-reject-share", "1")
    closed = second.count('"') == 2
    assert result.rows()[1:] == [["2", "def", "6"], ["3", "ghi", "7"]][not closed :]
    rejects = [row[1:] for row in result.rows(".rejects.tsv")[1:]]
    assert rejects[0] == ["2", "quote is never closed", '1,"abc,5']
    assert len(rejects) == 1 + (not closed)


def test_a_header_cell_beyond_the_limit(cli, log, nothing_left):
    result = cli(log(f'user_id,item_id,"{"x" * 140_000}"\na,x,1\n'))
    assert result.code == 2
    assert "log.csv, line 1 (field larger than field limit (131072)) must be a row of shorter fields" in result.err
    nothing_left()


def test_ragged_lines_are_rejected_with_their_text(cli, log):
    text = "user_id,item_id,timestamp\n" + "c,z,3\n" * 300 + "a,x\nb,y,2,more\nd,w,4"
    result = cli(log(text))
    assert len(result.rows()) == 302
    assert [row[1:] for row in result.rows(".rejects.tsv")[1:]] == [
        ["302", "2 columns where there must be 3", "a,x"],
        ["303", "4 columns where there must be 3", "b,y,2,more"],
    ]


def test_a_long_file_is_read_in_chunks(cli, log, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", 64)
    body = "".join(f'u{n},"i\n{n}",{n}\n' for n in range(1, 400))
    result = cli(log("user_id,item_id,timestamp\n" + body + "u,,5\n"))
    assert result.column("item_id") == [f"i {n}" for n in range(1, 400)]
    assert result.rows(".rejects.tsv")[1][1] == "800"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold at least one row"),
        ("user_id,item_id,timestamp\n", "must hold"),
        ("justonecolumn\nx\n", "must be split by --sep"),
        ("user_id,item_id,user_id\na,b,c\n", "must name every column once"),
    ],
)
def test_tables_that_are_none(cli, log, nothing_left, text, message):
    result = cli(log(text))
    assert result.code == 2
    assert message in result.err
    nothing_left()


def test_a_broken_json_array_names_the_line(cli, log, nothing_left):
    text = json.dumps(OBJECTS, indent=1).replace('"item_id": "y"', '"item_id": y')
    result = cli(log(text, "log.json"))
    assert result.code == 2
    assert "line 10 must be valid JSON" in result.err
    nothing_left()


def test_a_cut_json_array_loses_its_last_element_only(cli, log):
    text = json.dumps(OBJECTS * 100)[:-20]
    result = cli(log(text, "log.json"))
    assert len(result.rows()) == 300
    assert "not a JSON object" in result.text(".rejects.tsv")


def test_a_broken_json_line_is_rejected(cli, log):
    lines = [json.dumps(OBJECTS[0])] * 200 + ['{"user_id": ', "[1, 2]"]
    result = cli(log("\n".join(lines), "log.jsonl"))
    assert len(result.rows()) == 201
    assert [row[1:3] for row in result.rows(".rejects.tsv")[1:]] == [
        ["201", "not a JSON object"],
        ["202", "not a JSON object"],
    ]


def test_a_damaged_parquet_file(cli, log, nothing_left):
    result = cli(log(b"PAR1 and then nothing", "log.parquet"))
    assert result.code == 2
    assert "must be a whole Parquet file" in result.err
    nothing_left()
