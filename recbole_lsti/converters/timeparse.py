"""Times in any notation to nanoseconds since 1970 in UTC, whatever the zone of the machine."""

from __future__ import annotations

import re
import zoneinfo

import duckdb

from recbole_lsti.converters.sql import count, literal, one_row
from recbole_lsti.errors import AtomicFileError, nearest

UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
ISO = re.compile(r"\s*\d{4}-\d{1,2}-\d{1,2}([T ].*)?")
NUMBER = re.compile(r"\s*-?\d+(\.\d+)?([eE]\+?\d+)?\s*")

# Tried in this order on the first rows. Day before month and month before day are told apart by the rows
# themselves; where both fit, the user is asked.
PATTERNS = (
    "%m/%d/%Y %I:%M:%S %p",
    "%d/%m/%Y %I:%M:%S %p",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%m-%d-%Y %H:%M:%S",
    "%d-%m-%Y %H:%M:%S",
    "%m-%d-%Y",
    "%d-%m-%Y",
    "%d-%b-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d",
    "%a %b %d %H:%M:%S %z %Y",
    "%d/%b/%Y:%H:%M:%S %z",
)


def check_zone(zone: str) -> str:
    """Return the name of a time zone.

    Raises:
        AtomicFileError: if there is no such zone.
    """
    zones = zoneinfo.available_timezones()
    if zone not in zones:
        raise AtomicFileError(f"--timezone ({zone}) must be a name such as Europe/Berlin{nearest(zone, zones)}")
    return zone


def time_sql(text: str, fmt: str, zone: str = "UTC") -> str:
    """Return SQL that turns a text into nanoseconds (BIGINT), or NULL where it is no possible time.

    Args:
        text (str): SQL of the text.
        fmt (str): ``s``, ``ms``, ``us``, ``ns``, ``iso``, or a strptime pattern.
        zone (str): zone of a time that states none. In the hour that a zone repeats in autumn, the engine's
            reading holds; ISO times rely on the session's zone being set to ``zone``.
    Returns:
        str: an SQL expression.
    """
    if fmt in UNITS:
        # Whole numbers, as a rule; a decimal is exact where a double would lose the nanoseconds. One of 28 digits
        # times a unit of 10 fits the engine's 38, so that no time is too large to be rejected.
        unit, most = UNITS[fmt], 9 * 10**18 // UNITS[fmt]
        whole = f"TRY_CAST({text} AS BIGINT)"
        return (
            f"CASE WHEN regexp_matches({text}, '[.eE]') "
            f"THEN TRY_CAST(TRY_CAST({text} AS DECIMAL(28, 9)) * {unit} AS BIGINT) "
            f"WHEN {whole} BETWEEN -{most} AND {most} THEN {whole} * {unit} END"
        )
    if fmt == "iso":
        clean = f"regexp_replace(trim({text}), ' ?(UTC|GMT)$', 'Z')"
        return _nanoseconds(f"TRY_CAST({clean} AS TIMESTAMPTZ)")
    parsed = f"TRY_STRPTIME(trim({text}), {literal(fmt)})"
    if "%z" not in fmt and "%Z" not in fmt:
        parsed = f"timezone({literal(zone)}, {parsed})"
    return _nanoseconds(parsed)


def _nanoseconds(moment: str) -> str:
    """Return SQL of a moment as nanoseconds; one outside the years 1685 to 2255 is no possible time."""
    microseconds = f"epoch_us({moment})"
    return f"CASE WHEN {microseconds} BETWEEN -{9 * 10**15} AND {9 * 10**15} THEN {microseconds} * 1000 END"


def guess_format(con: duckdb.DuckDBPyConnection, samples: list[str], column: str) -> str:
    """Return the notation of some times.

    Args:
        con (DuckDBPyConnection): any open connection.
        samples (list[str]): values of the first rows.
        column (str): what the column is called, for the message.
    Returns:
        str: a format for :func:`time_sql`.
    Raises:
        AtomicFileError: if none fits most samples, or day and month cannot be told apart.
    """
    values = [value.strip() for value in samples if value.strip()]
    if not values:
        raise AtomicFileError(f"{column} ({'empty in the first' if samples else 'there are no'} rows) must hold times")
    if _share(values, NUMBER) > 0.5:
        return _guess_number([float(value) for value in values if NUMBER.fullmatch(value)])
    if _share(values, ISO) > 0.5:
        return "iso"
    fits = [p for p in PATTERNS if _parsed(con, values, p) > 0.9 * len(values)]
    if not fits:
        raise AtomicFileError(f"{column} ({values[0]}) must be a known notation of time, or be told by --time-format")
    swapped = fits[0].replace("%m/%d", "%d/%m").replace("%m-%d", "%d-%m")
    if swapped != fits[0] and swapped in fits and not fits[0].endswith("%p"):
        raise AtomicFileError(
            f"{column} ({values[0]}) must be told by --time-format: '{fits[0]}' (US) and '{swapped}' both fit"
        )
    return fits[0]


def _share(values: list[str], pattern: re.Pattern[str]) -> float:
    return sum(pattern.fullmatch(value) is not None for value in values) / len(values)


def _guess_number(numbers: list[float]) -> str:
    middle = sorted(numbers)[len(numbers) // 2]
    if all(_is_compact_date(number) for number in numbers):
        return "%Y%m%d"
    if all(_is_compact_date(number // 10**6) and _is_compact_clock(number % 10**6) for number in numbers):
        return "%Y%m%d%H%M%S"
    for unit, limit in (("s", 1e11), ("ms", 1e14), ("us", 1e17)):
        if middle < limit:
            return unit
    return "ns"


def _is_compact_date(number: float) -> bool:
    year, month, day = number // 10_000, number // 100 % 100, number % 100
    return 1990 <= year <= 2099 and 1 <= month <= 12 and 1 <= day <= 31 and day == int(day)


def _is_compact_clock(number: float) -> bool:
    return number // 10_000 < 24 and number // 100 % 100 < 60 and number % 100 < 60 and number == int(number)


def _parsed(con: duckdb.DuckDBPyConnection, values: list[str], pattern: str) -> int:
    sql = f"SELECT count(TRY_STRPTIME(v, {literal(pattern)})) FROM (SELECT unnest(?) AS v)"
    return count(con, sql, [values])


def seconds_sql(nanoseconds: str) -> str:
    """Return SQL that writes nanoseconds as seconds, with only as many decimals as there are."""
    whole, rest = f"({nanoseconds}) // 1000000000", f"({nanoseconds}) % 1000000000"
    decimals = f"rtrim(lpad(CAST({rest} AS VARCHAR), 9, '0'), '0')"
    return f"CASE WHEN {rest} = 0 THEN CAST({whole} AS VARCHAR) ELSE ({whole}) || '.' || {decimals} END"


def parse_moment(text: str, flag: str, end_of_day: bool = False, zone: str = "UTC") -> int:
    """Return a date, an ISO time or Unix seconds given on the command line as Unix seconds.

    Args:
        text (str): for instance ``2020-01-31``, ``2020-01-31T12:00:00+01:00`` or ``1580428800``.
        flag (str): the flag, for the message.
        end_of_day (bool): a bare date means its last second.
        zone (str): zone of a date or time that states none.
    Raises:
        AtomicFileError: if it is none of these.
    """
    if re.fullmatch(r"\d{9,11}", text):
        return int(text)
    con = duckdb.connect(config={"threads": 1})
    con.execute(f"SET TimeZone = {literal(zone)}")
    whole_day = end_of_day and len(text.strip()) <= 10
    moment = "CAST(TRY_CAST(moment AS DATE) + 1 AS VARCHAR)" if whole_day else "moment"
    (second,) = one_row(con, f"SELECT {time_sql(moment, 'iso')} // 1000000000 FROM (SELECT ? AS moment)", [text])
    con.close()
    if second is None:
        raise AtomicFileError(f"{flag} ({text}) must be a date (2020-01-31), an ISO time or Unix seconds")
    return int(second) - whole_day
