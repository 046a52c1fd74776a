"""What lies beside the data says truly what was done."""

from __future__ import annotations

import hashlib
import io
import json
import sys

import pytest

from recbole_lsti._version import __version__
from recbole_lsti.converters.progress import Progress, bar

ROWS = "user_id,item_id,rating,timestamp\n" + "a,x,5,100000000\n" * 2 + "b,y,4,100000001\n" * 2


def test_the_report(cli, log):
    path = log(ROWS + "c,,4,100000000\n")
    result = cli(path, "--max-reject-share", "0.5", "--duplicates", "first")
    report = json.loads(result.text(".report.json"))
    assert report["version"] == __version__
    assert report["command"].startswith(f"recbole-lsti convert {path} --max-reject-share 0.5")
    assert report["tables"]["inter"] == {
        "rows_in": 5,
        "rejected": {"empty item_id": 1},
        "repeated_keys": 0,
        "fields": {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"},
        "rows_written": 2,
        "users": 2,
        "items": 2,
        "time_format": "s",
        "first_second": 100000000,
        "last_second": 100000001,
    }
    assert report["removed"] == {"duplicates": 2}
    assert report["inputs"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    for entry in report["outputs"]:
        data = (result.folder / entry["file"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert [entry["file"] for entry in report["outputs"]] == ["made.inter", "made.rejects.tsv", "made.yaml"]


def test_the_same_run_gives_the_same_bytes(cli, log):
    path = log(ROWS)
    first = {p.name: p.read_bytes() for p in cli(path).folder.iterdir()}
    cli(path, "--overwrite")
    second = {p.name: p.read_bytes() for p in cli(path, "--overwrite").folder.iterdir()}
    del first["made.report.json"], second["made.report.json"]  # it tells the command line
    assert first == second


def test_the_configuration(cli, log, tmp_path):
    assert cli(log(ROWS)).text(".yaml") == (
        "# How RecBole reads made; made by recbole-lsti convert.\n"
        f'data_path: "{tmp_path / "out"}"\n'
        'dataset: "made"\n'
        'field_separator: "\\t"\n'
        'seq_separator: " "\n'
        "USER_ID_FIELD: user_id\n"
        "ITEM_ID_FIELD: item_id\n"
        "RATING_FIELD: rating\n"
        "TIME_FIELD: timestamp\n"
        "eval_args: {split: {LS: valid_and_test}, order: TO, group_by: user, mode: full}\n"
        "load_col:\n"
        "  inter: [user_id, item_id, rating, timestamp]\n"
    )


def test_the_configuration_is_yaml(cli, log):
    yaml = pytest.importorskip("yaml")
    items = log("item_id,title\nx,A film\n", "items.csv")
    rows = log(ROWS + "a,x,5,100000002\na,x,5,100000003\n")
    config = yaml.safe_load(cli(rows, "--items", items, "--split", "loo").text(".yaml"))
    assert config["load_col"]["item"] == ["item_id", "title"]
    assert config["field_separator"] == "\t"
    assert config["benchmark_filename"] == ["train", "valid", "test"]


def test_names_that_yaml_would_take_for_values(cli, log):
    yaml = pytest.importorskip("yaml")
    words = ["No", "on", "Yes", "null", "plain"]
    rows = log(f"user_id,item_id,timestamp,{','.join(words)}\na,x,1,1,1,1,1,1\n")
    features = [part for word in words for part in ("--feature", f"{word}:token")]
    config = yaml.safe_load(cli(rows, *features, "--duplicates", "first", "--count-duplicates", "7").text(".yaml"))
    assert config["load_col"]["inter"] == ["user_id", "item_id", *words, "7", "timestamp"]


def test_standard_input_has_one_name(cli, monkeypatch):
    texts = []
    for name in ("made", "again"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((ROWS + "c,,4,100000000\n").encode())))
        result = cli("-", "--max-reject-share", "0.5", name=name)
        texts.append(result.text(".rejects.tsv"))
        assert json.loads(result.text(".report.json"))["inputs"][0]["file"] == "standard-input"
    assert texts[0] == texts[1]


def test_no_rejects_no_file(cli, log):
    assert not (cli(log(ROWS)).folder / "made.rejects.tsv").exists()


def test_too_many_bad_rows_keep_nothing(cli, log, nothing_left):
    result = cli(log(ROWS + "c,,4,100000000\n"))
    assert result.code == 2
    assert result.err.splitlines()[-1].endswith(
        "bad rows of inter (20.00% of 5) must be at most 1.00% (--max-reject-share); "
        f"most often: empty item_id, first in {result.folder.parent.parent / 'log.csv'}, line 6"
    )
    nothing_left()


def test_json_mode_is_machine_readable(cli, log):
    result = cli(log(ROWS), "--json")
    events = [json.loads(line)["event"] for line in result.err.splitlines()]
    assert events == ["open", "read", "write", "done"]
    assert json.loads(result.out)["tables"]["inter"]["rows_written"] == 4


def test_quiet_says_nothing(cli, log):
    result = cli(log(ROWS), "--quiet")
    assert (result.out, result.err) == ("", "")


def test_the_summary(cli, log):
    result = cli(log(ROWS))
    assert "inter: 4 rows read, 4 written, 2 users, 2 items" in result.out
    assert "user = column user_id (recognised)" in result.err


def test_the_bar_tells_rows_and_bytes_a_second():
    drawn = bar("inter", {"rows": 2_000_000, "bytes": 50_000_000}, 100_000_000, 2.0)
    assert drawn == "inter [############            ]  50% 2,000,000 rows 1,000,000 rows/s 25.0 MB/s"


class Terminal:
    """A stream that claims to be a terminal."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_the_bar_is_drawn_on_a_terminal_and_wiped():
    stream = Terminal()
    progress = Progress(stream)
    progress("open", {"kind": "inter", "bytes": 100})
    progress("read", {"kind": "inter", "bytes": 100, "rows": 7})
    progress("done", {})
    assert "100% 7 rows" in stream.text
    assert stream.text.endswith(" \r")
