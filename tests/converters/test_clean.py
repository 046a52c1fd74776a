"""Cleaning: each step alone, its errors, and their order."""

from __future__ import annotations

import pytest

from recbole_lsti.converters.plan import Cleaning
from recbole_lsti.errors import AtomicFileError

HEADER = "user_id,item_id,rating,timestamp,behavior\n"


@pytest.fixture
def convert_rows(cli, log):
    """Convert rows of (user, item, rating, seconds after 100,000,000, behaviour); return the written ones."""

    def run(rows, *flags):
        lines = "".join(f"{u},{i},{r},{100_000_000 + t},{b}\n" for u, i, r, t, b in rows)
        result = cli(log(HEADER + lines), *flags)
        assert result.code == 0, result.err
        return result

    return run


ROWS = [
    ("a", "x", 5, 0, "view"),
    ("a", "x", 4, 10, "view"),
    ("a", "y", 3, 20, "buy"),
    ("b", "x", 2, 30, "view"),
    ("a", "x", 1, 5000, "cart"),
]


def test_nothing_is_removed_unless_asked(convert_rows):
    assert len(convert_rows(ROWS).rows()) == 1 + len(ROWS)


def test_behaviors(convert_rows):
    assert convert_rows(ROWS, "--behaviors", "buy,cart").column("behavior") == ["buy", "cart"]


def test_behavior_weights(convert_rows):
    result = convert_rows(ROWS, "--behavior-weights", "view=1,buy=1234567.125,cart=0")
    assert result.rows()[0][-1] == "weight:float"
    assert result.column("weight") == ["1", "1", "1234567.125", "1", "0"]
    some = ("--behavior-weights", "view=1,buy=4", "--behaviors", "view,buy", "--overwrite")
    assert convert_rows(ROWS, *some).column("weight") == ["1", "1", "4", "1"]


def test_a_behavior_without_a_weight_is_refused(cli, log, nothing_left):
    path = log(HEADER + "".join(f"a,x,1,100000000,{behavior}\n" for behavior in ("view", "buy", "cart", "")))
    result = cli(path, "--behavior-weights", "view=1,buy=4")
    assert result.code == 2
    assert "--behavior-weights (none for cart, an empty behavior) must give every behavior a weight" in result.err
    nothing_left()


def test_an_unknown_behavior_names_the_flag(cli, log):
    path = log(HEADER + "a,x,1,100000000,view\n")
    assert "--behavior-weights (veiw) must be one of view" in cli(path, "--behavior-weights", "veiw=1").err
    assert "--behaviors (veiw) must be one of view" in cli(path, "--behaviors", "veiw").err


def test_an_unknown_behavior(cli, log, nothing_left):
    result = cli(log(HEADER + "a,x,1,100000000,view\n"), "--behaviors", "viev")
    assert result.code == 2
    assert "--behaviors (viev) must be one of view (did you mean view?)" in result.err
    nothing_left()


def test_date_range_includes_both_ends(convert_rows):
    flags = ["--since", "100000010", "--until", "100000030"]
    assert convert_rows(ROWS, *flags).column("item_id") == ["x", "y", "x"]


def test_since_and_until_are_in_the_zone_of_the_times(cli, log):
    rows = log("user,item,ts\na,x,2020-01-01 23:30\na,y,2020-01-02 00:30\na,z,2020-01-03 00:30\n")
    flags = ("--timezone", "Asia/Tokyo", "--since", "2020-01-02", "--until", "2020-01-02")
    assert cli(rows, *flags).column("item_id") == ["y"]


def test_rating_threshold_makes_feedback_implicit(convert_rows):
    result = convert_rows(ROWS, "--rating-threshold", "3.5")
    assert result.rows()[0] == ["user_id:token", "item_id:token", "timestamp:float", "behavior:token"]
    assert len(result.rows()) == 3


@pytest.mark.parametrize(
    ("keep", "times"),
    [
        ("first", [0, 20, 30]),
        ("last", [20, 30, 5000]),
        ("consecutive", [0, 20, 30, 5000]),
        ("consecutive-last", [10, 20, 30, 5000]),
    ],
)
def test_duplicates(convert_rows, keep, times):
    result = convert_rows(ROWS, "--duplicates", keep)
    assert result.column("timestamp") == [str(100_000_000 + t) for t in times]


@pytest.mark.parametrize(("keep", "counts"), [("last", ["1", "1", "3"]), ("consecutive", ["2", "1", "1", "1"])])
def test_duplicates_are_counted(convert_rows, keep, counts):
    assert convert_rows(ROWS, "--duplicates", keep, "--count-duplicates", "n").column("n") == counts


def test_k_core_repeats_until_stable(convert_rows):
    # c is frequent enough only while z stays, and z only while d does: all of them go.
    rows = [(u, i, 1, 0, "v") for u in "ab" for i in "xy"] + [("c", "x", 1, 0, "v"), ("c", "z", 1, 0, "v")]
    rows += [("d", "z", 1, 0, "v")]
    result = convert_rows(rows, "--k-core", "2")
    assert sorted(zip(result.column("user_id"), result.column("item_id"), strict=True)) == [
        ("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"),
    ]  # fmt: skip
    assert '"k-core": 3' in result.text(".report.json")


def test_k_core_of_items_alone(convert_rows):
    assert set(convert_rows(ROWS, "--k-core-item", "2").column("item_id")) == {"x"}


def test_a_sample_of_users_depends_on_the_seed_alone(convert_rows):
    rows = [(f"u{n}", "x", 1, n, "v") for n in range(100)]
    once = convert_rows(rows, "--sample-users", "10").column("user_id")
    again = convert_rows(rows[::-1], "--sample-users", "10", "--overwrite").column("user_id")
    other = convert_rows(rows, "--sample-users", "10", "--seed", "1", "--overwrite").column("user_id")
    assert once == again != other
    assert len(once) == len(other) == 10


def test_sessions(convert_rows):
    result = convert_rows(ROWS, "--session-gap", "1800")
    assert result.column("session_id") == ["a_0", "a_0", "a_0", "b_0", "a_1"]


def test_fields_may_have_the_names_of_steps(cli, log):
    rows = log("user,item,timestamp,r,session\na,x,100000000,one,two\na,x,100000001,one,two\n")
    flags = ("--session-gap", "60", "--duplicates", "first", "--count-duplicates", "n")
    result = cli(rows, "--user", "user", "--feature", "r", "--feature", "session", *flags)
    assert result.rows()[1] == ["a", "x", "100000000", "one", "two", "2", "a_0"]


def test_items_follow_the_interactions_only_when_some_may_be_removed(cli, log):
    log("item_id,kind\nx,1\ny,2\nunseen,3\n", "items.csv")
    rows = log(HEADER + "a,x,5,100000000,v\nb,y,1,100000000,v\n")
    items = rows.parent / "items.csv"
    assert cli(rows, "--items", items).column("item_id", ".item") == ["x", "y", "unseen"]
    cleaned = cli(rows, "--items", items, "--rating-threshold", "3", name="cleaned")
    assert cleaned.column("item_id", ".item") == ["x"]


def test_items_follow_a_step_that_finds_nothing_to_remove(cli, log):
    items = log("item_id,kind\nx,1\nunseen,3\n", "items.csv")
    result = cli(log(HEADER + "a,x,5,100000000,v\n"), "--items", items, "--k-core", "1", "--duplicates", "first")
    assert result.column("item_id", ".item") == ["x"]


def test_cleaning_that_leaves_nothing(cli, log, nothing_left):
    result = cli(log(HEADER + "a,x,1,100000000,view\n"), "--k-core", "5")
    assert result.code == 2
    assert "cleaning (k-core removed 1 rows) must leave at least one row" in result.err
    nothing_left()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rating-threshold", "3"], "--rating-threshold must have a rating"),
        (["--since", "2020-01-01"], "--since and --until must have a time"),
        (["--session-gap", "5"], "--session-gap must have a time"),
        (["--behaviors", "x"], "must have a behavior"),
        (["--count-duplicates", "n"], "--count-duplicates must come with --duplicates"),
        (["--behavior-weights", "view"], "must be of the form NAME=VALUE"),
        (["--behavior-weights", "view=much"], "must give numbers"),
        (["--behavior-weights", "view=nan"], "must give numbers"),
        (["--k-core", "-1"], "--k-core (-1) must be 0 or more"),
        (["--k-core-user", "-1"], "--k-core-user (-1) must be 0 or more"),
        (["--duplicates", "last", "--count-duplicates", "a b"], "field name (a b) must consist of"),
        (["--duplicates", "last", "--count-duplicates", "User_id"], "User_id is there already"),
        (["--duplicates", "last", "--count-duplicates", "rowid"], "rowid is there already"),
    ],
)
def test_steps_that_lack_what_they_need(cli, log, nothing_left, flags, message):
    result = cli(log("user_id,item_id\na,x\n"), *flags)
    assert result.code == 2
    assert message in result.err
    nothing_left()


def test_an_unknown_way_to_treat_duplicates():
    with pytest.raises(AtomicFileError, match=r"--duplicates \(frist\) must be one of .* \(did you mean first\?\)"):
        Cleaning(duplicates="frist")
