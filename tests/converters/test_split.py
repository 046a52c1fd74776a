"""Pre-split files, their layouts, and what leaks between them."""

from __future__ import annotations

import json

import pytest

ROWS = "user_id,item_id,timestamp\n" + "".join(
    f"{u},{i},{100_000_000 + t}\n"
    for u, i, t in [("a", "p", 0), ("a", "q", 10), ("a", "r", 20), ("a", "p", 30), ("b", "s", 5), ("b", "q", 40)]
)


def parts(result):
    return {part: result.rows(f".{part}.inter")[1:] for part in ("train", "valid", "test")}


def test_leave_one_out_rows(cli, log):
    result = cli(log(ROWS), "--split", "loo", "--split-layout", "rows")
    split = parts(result)
    assert split["test"] == [["a", "p", "100000030"]]
    assert split["valid"] == [["a", "r", "100000020"]]
    assert [row[:2] for row in split["train"]] == [["a", "p"], ["b", "s"], ["a", "q"], ["b", "q"]]
    assert "benchmark_filename: [train, valid, test]" in result.text(".yaml")
    assert len(result.rows()) == 7  # the whole is written too


def test_sequences_hold_the_past_of_each_target(cli, log):
    result = cli(log(ROWS), "--split", "loo")
    assert result.rows(".test.inter") == [
        ["user_id:token", "item_id_list:token_seq", "item_id:token", "timestamp:float"],
        ["a", "p q r", "p", "100000030"],
    ]
    assert parts(result)["train"] == [["a", "p", "q", "100000010"], ["b", "s", "q", "100000040"]]
    assert "alias_of_item_id: [item_id_list]" in result.text(".yaml")
    assert "load_col:\n  inter: [user_id, item_id_list, item_id, timestamp]" in result.text(".yaml")


def test_the_past_is_cut_to_its_latest_items(cli, log):
    result = cli(log(ROWS), "--split", "loo", "--split-max-len", "2")
    assert result.rows(".test.inter")[1][1] == "q r"


def test_a_global_cut_never_divides_a_moment(cli, log):
    rows = "user_id,item_id,timestamp\n" + "".join(f"u{n},i{n},{100_000_000 + n // 4}\n" for n in range(20))
    split = parts(cli(log(rows), "--split", "time:0.5,0.25,0.25", "--split-layout", "rows"))
    moments = [{row[2] for row in split[part]} for part in ("train", "valid", "test")]
    assert not moments[0] & moments[1]
    assert not moments[1] & moments[2]
    assert max(moments[0]) < min(moments[1]) < min(moments[2])
    assert sum(map(len, split.values())) == 20


def test_ratio_cuts_each_user(cli, log):
    rows = "user_id,item_id,timestamp\n" + "".join(f"u{n % 2},i{n},{100_000_000 + n}\n" for n in range(20))
    split = parts(cli(log(rows), "--split", "ratio:0.6,0.2,0.2", "--split-layout", "rows"))
    for user in ("u0", "u1"):
        assert [sum(row[0] == user for row in split[part]) for part in ("train", "valid", "test")] == [6, 2, 2]


def test_leakage_is_reported(cli, log):
    result = cli(log(ROWS), "--split", "loo")
    report = json.loads(result.text(".report.json"))["split"]
    assert {part: report[f"{part} rows"] for part in parts(result)} == {p: len(r) for p, r in parts(result).items()}
    assert report["train rows"] == 2
    assert report["share of test rows before the last training row"] == 1.0  # b's last event comes later
    assert report["share of test rows that repeat a training row"] == 1.0
    assert report["share of valid rows of items unseen in training"] == 1.0
    timed = json.loads(cli(log(ROWS), "--split", "time:0.5,0.25,0.25", name="timed").text(".report.json"))["split"]
    assert timed["share of valid rows before the last training row"] == 0.0


def test_what_leaks_is_measured_on_the_rows_written(cli, log):
    events = ["a,p,0", "a,q,1", "b,r,2", "c,s,3", "b,r,4", "c,s,5", "a,p,6"]
    rows = log("user_id,item_id,timestamp\n" + "\n".join(events))
    flags = ("--split", "time:0.4,0.4,0.2")

    def measured(*more, name="made"):
        return json.loads(cli(rows, *flags, *more, name=name).text(".report.json"))["split"]

    # b has one row in training, which stands in no list of its file: neither b nor r was seen
    lists = measured()
    assert [lists[f"{part} rows"] for part in ("train", "valid", "test")] == [1, 2, 1]
    assert lists["share of valid rows of users unseen in training"] == 1.0
    assert lists["share of valid rows of items unseen in training"] == 1.0
    assert lists["share of valid rows that repeat a training row"] == 0.0
    assert lists["share of test rows that repeat a training row"] == 1.0  # p is in a list of a
    plain = measured("--split-layout", "rows", name="plain")
    assert [plain[f"{part} rows"] for part in ("train", "valid", "test")] == [3, 3, 1]
    assert plain["share of valid rows that repeat a training row"] == 0.333333


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split", "lo"], "--split (lo) must be one of loo, time, ratio (did you mean loo?)"),
        (["--split", "time:0.8,0.1"], "must give three shares"),
        (["--split", "time:0.9,0.1,0"], "must give three shares above 0 that sum to 1"),
        (["--split", "time:0.8,0.1,0.2"], "must give three shares above 0 that sum to 1"),
        (["--split", "ratio:a,b,c"], "must give three shares"),
        (["--split", "loo", "--split-max-len", "0"], "must be 1 or more"),
    ],
)
def test_splits_that_cannot_be(cli, log, nothing_left, flags, message):
    result = cli(log(ROWS), *flags)
    assert result.code == 2
    assert message in result.err
    nothing_left()


def test_items_with_blanks_cannot_stand_in_lists(cli, log, nothing_left):
    rows = log("user_id,item_id,timestamp\n" + "".join(f"a,The Wall {n},{100_000_000 + n}\n" for n in range(4)))
    result = cli(rows, "--split", "loo")
    assert result.code == 2
    assert "item_id (The Wall 0) must have no blanks" in result.err
    nothing_left()
    assert cli(rows, "--split", "loo", "--split-layout", "rows").rows(".test.inter")[1][1] == "The Wall 3"


@pytest.mark.parametrize(
    ("split", "times", "part"),
    [("loo", "01", "valid"), ("loo", "012", "train"), ("time", "0000", "valid"), ("ratio", "01", "valid")],
)
def test_every_part_must_have_rows(cli, log, nothing_left, split, times, part):
    rows = log(
        "user_id,item_id,timestamp\n" + "".join(f"a,i{at},{100_000_000 + int(t)}\n" for at, t in enumerate(times))
    )
    result = cli(rows, "--split", split)
    assert result.code == 2
    assert f"--split ({split}) must leave rows in every part; {part} would have none" in result.err
    nothing_left()


def test_a_split_needs_times(cli, log, nothing_left):
    result = cli(log("user_id,item_id\na,x\n"), "--split", "loo")
    assert result.code == 2
    assert "--split must have a time" in result.err
    nothing_left()
