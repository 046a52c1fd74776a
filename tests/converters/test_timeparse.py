"""Every notation of time comes to the same second, whatever the machine's zone."""

from __future__ import annotations

import os
import subprocess
import sys

import duckdb
import pytest

from recbole_lsti.converters.timeparse import check_zone, guess_format, parse_moment, seconds_sql
from recbole_lsti.errors import AtomicFileError

SECOND = 1_577_959_200  # 2020-01-02 10:00:00 UTC


def written(cli, log, *times, flags=()):
    lines = "".join(f'a,x,"{time}"\n' for time in times)
    result = cli(log("user_id,item_id,timestamp\n" + lines), *flags)
    assert result.code == 0, result.err
    return result.column("timestamp")


@pytest.mark.parametrize(
    "time",
    [
        f"{SECOND}",
        f"{SECOND}.0",
        f"{SECOND}000",
        f"{SECOND}000000",
        f"{SECOND}000000000",
        "2020-01-02T10:00:00Z",
        "2020-01-02 10:00:00",
        "2020-01-02 10:00:00 UTC",
        "2020-01-02T10:00:00.000+00:00",
        "2020-01-02T12:00:00+02:00",
        "2020-01-02T12:00:00+0200",
        "2020-01-02T04:30:00-05:30",
        "Thu Jan 02 10:00:00 +0000 2020",
        "02.01.2020 10:00:00",
        "02/Jan/2020:12:00:00 +0200",
        "1/2/2020 10:00:00 AM",
        "2020/01/02 10:00:00",
        "20200102100000",
    ],
)
def test_notations(cli, log, time):
    assert written(cli, log, time) == [str(SECOND)]


@pytest.mark.parametrize(
    ("time", "second"),
    [
        ("2020-01-02", 1_577_923_200),
        ("20200102", 1_577_923_200),
        ("02-Jan-2020", 1_577_923_200),
        ("Jan 02, 2020", 1_577_923_200),
    ],
)
def test_dates_are_their_first_second(cli, log, time, second):
    assert written(cli, log, time) == [str(second)]


def test_us_noon_and_midnight(cli, log):
    times = ["11/14/2019 12:05:00 AM", "11/14/2019 12:05:00 PM", "11/14/2019 1:05:00 PM"]
    midnight = 1_573_689_600
    assert written(cli, log, *times) == [str(midnight + 300), str(midnight + 43_500), str(midnight + 47_100)]


def test_rows_that_settle_day_or_month(cli, log):
    assert written(cli, log, "01/02/2020", "13/02/2020") == ["1580515200", "1581552000"]
    with pytest.raises(AtomicFileError, match="both fit"):
        guess_format(duckdb.connect(), ["01/02/2020", "03/04/2020"], "time")


def test_day_and_month_between_dashes_are_asked_about_too(cli, log):
    week = ["03-02-2020", "03-05-2020", "03-08-2020"]
    with pytest.raises(AtomicFileError, match=r"'%m-%d-%Y' \(US\) and '%d-%m-%Y' both fit"):
        guess_format(duckdb.connect(), week, "time")
    assert written(cli, log, "01-02-2020", "13-02-2020") == ["1580515200", "1581552000"]
    us = written(cli, log, "01-02-2020 10:00:00", "01-13-2020 10:00:00", flags=["--overwrite"])
    assert us == [str(SECOND), str(SECOND + 11 * 86400)]


def test_a_format_that_is_told(cli, log):
    assert written(cli, log, "02|01|2020", flags=["--time-format", "%d|%m|%Y"]) == ["1577923200"]
    assert written(cli, log, "5", flags=["--time-format", "ms", "--overwrite"]) == ["0.005"]


@pytest.mark.parametrize("order", [(), "day,month,year", "year,month,day", "month,day,year"])
def test_day_month_and_year_columns(cli, log, order):
    flags = ("--time", order) if order else ()
    result = cli(log("user,item,day,month,year\na,x,2,1,2020\n"), *flags)
    assert result.column("timestamp") == ["1577923200"]


def test_three_columns_of_other_names_are_asked_about(cli, log):
    path, flags = log("user,item,a,b,c\na,x,2020,1,2\n"), ("--time", "a,b,c")
    assert "time a b c (2020 1 2) must be a known notation of time" in cli(path, *flags).err
    told = cli(path, *flags, "--time-format", "%Y %m %d")
    assert told.column("timestamp") == ["1577923200"]


def test_date_and_clock_columns(cli, log):
    result = cli(log("user,item,d,t\na,x,2020-01-02,10:00:00\n"), "--time", "d,t")
    assert result.column("timestamp") == [str(SECOND)]


def test_decimals_are_kept_exactly(cli, log):
    assert written(cli, log, "1433221332117", "1433221332118") == ["1433221332.117", "1433221332.118"]
    times = ["1577959200123456789", "1577959200123456788"]
    assert written(cli, log, *times, flags=["--overwrite"]) == ["1577959200.123456788", "1577959200.123456789"]


def test_naive_times_are_in_the_zone_that_is_told(cli, log):
    times = ["2020-07-02 12:00:00", "2020-01-02 11:00:00", "2020-01-02T10:00:00Z"]
    seconds = written(cli, log, *times, flags=["--timezone", "Europe/Berlin"])
    assert seconds == [str(SECOND), str(SECOND), "1593684000"]
    us = written(cli, log, "1/2/2020 5:00:00 AM", flags=["--timezone", "America/New_York", "--overwrite"])
    assert us == [str(SECOND)]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_the_machine_zone_does_not_matter(log, tmp_path, zone):
    path = log("user_id,item_id,timestamp\na,x,2020-01-02 10:00:00\n")
    command = [sys.executable, "-m", "recbole_lsti.converters", path, "--name", "made", "--output", tmp_path]
    subprocess.run(command, env={**os.environ, "TZ": zone}, check=True, capture_output=True)
    assert (tmp_path / "made" / "made.inter").read_text().splitlines()[1] == f"a\tx\t{SECOND}"


@pytest.mark.parametrize(
    "bad", ["", "2020-02-30", "1e308", "1e25", "1e20", "-5", "9999999999999", "soon", "nan", "2020-13-01"]
)
def test_impossible_times_are_rejected(cli, log, bad):
    lines = "".join(f"a,x,{SECOND}\n" for _ in range(200)) if bad[:2] != "20" else "a,x,2020-01-01\n" * 200
    result = cli(log(f"user_id,item_id,timestamp\n{lines}a,x,{bad}\n"))
    assert len(result.rows()) == 201
    reason = "empty timestamp" if not bad else "impossible timestamp"
    assert result.rows(".rejects.tsv")[1][1:3] == ["202", reason]


def test_ties_keep_the_order_of_the_input(cli, log):
    lines = "".join(f"u{n},i{n},{100_000_000 + n % 3}\n" for n in range(300))
    items = cli(log("user_id,item_id,timestamp\n" + lines)).column("item_id")
    assert items == [f"i{n}" for rest in range(3) for n in range(rest, 300, 3)]


def test_guesses():
    con = duckdb.connect()
    assert guess_format(con, ["881250949"], "t") == "s"
    assert guess_format(con, ["1", "2", "3"], "t") == "s"
    assert guess_format(con, ["1433221332117"], "t") == "ms"
    assert guess_format(con, ["20151111", "20151018"], "t") == "%Y%m%d"
    assert guess_format(con, ["20200131120000", "20200131235959"], "t") == "%Y%m%d%H%M%S"
    assert guess_format(con, ["20200131126000"], "t") == "ms"
    with pytest.raises(AtomicFileError, match="must be a known notation of time"):
        guess_format(con, ["yesterday"], "t")


def test_moments():
    assert parse_moment("2020-01-02", "--since") == 1_577_923_200
    assert parse_moment("2020-01-02", "--until", end_of_day=True) == 1_578_009_599
    assert parse_moment("2020-01-02T10:00:00+00:00", "--since") == SECOND
    assert parse_moment(str(SECOND), "--since") == SECOND
    tokyo, berlin = ({"flag": "--until", "zone": zone} for zone in ("Asia/Tokyo", "Europe/Berlin"))
    assert parse_moment("2020-01-02", **tokyo) == 1_577_923_200 - 9 * 3600
    assert parse_moment("2020-01-02T10:00:00Z", **tokyo) == SECOND
    day = [parse_moment("2020-03-29", end_of_day=end, **berlin) for end in (False, True)]
    assert day[1] - day[0] == 23 * 3600 - 1, "summer time begins"
    with pytest.raises(AtomicFileError, match=r"--since \(soon\) must be a date"):
        parse_moment("soon", "--since")


def test_zones():
    assert check_zone("Europe/Berlin") == "Europe/Berlin"
    with pytest.raises(AtomicFileError, match=r"did you mean Europe/Berlin\?"):
        check_zone("Europe/Berlim")


def test_seconds_have_no_more_decimals_than_needed():
    texts = f"{seconds_sql('1500000000')}, {seconds_sql('1000000000')}, {seconds_sql('1')}"
    assert duckdb.sql(f"SELECT {texts}").fetchall() == [("1.5", "1", "0.000000001")]
