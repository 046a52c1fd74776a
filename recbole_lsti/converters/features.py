"""Values as RecBole reads them: cleaned text, tokens, numbers, sequences; and numbers scaled on request."""

from __future__ import annotations

import duckdb

from recbole_lsti.converters.plan import Field, Plan
from recbole_lsti.converters.recognise import LITERAL_LIST, LITERAL_TEXT
from recbole_lsti.converters.sql import ident, literal
from recbole_lsti.errors import AtomicFileError, nearest

FLOAT32_MAX = 3.4028235e38  # RecBole casts floats to float32: a larger value would become infinite

# RecBole reads atomic files with pandas, which takes these spellings for a missing value whatever the column's type.
MISSING = r"|#N/A|#N/A N/A|#NA|-1\.#IND|-1\.#QNAN|-NaN|-nan|1\.#IND|1\.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null"

MACROS = rf"""
CREATE OR REPLACE TEMP MACRO clean(x) AS nullif(trim(regexp_replace(x, '[\x00-\x1f\x7f]+', ' ', 'g')), '');
CREATE OR REPLACE TEMP MACRO present(x) AS CASE WHEN NOT regexp_full_match(x, '{MISSING}') THEN x END;
CREATE OR REPLACE TEMP MACRO escape_missing(x) AS
    CASE WHEN length(x) <= 12 AND regexp_full_match(x, '_*({MISSING[1:]})') THEN '_' || x ELSE x END;
CREATE OR REPLACE TEMP MACRO is_number(x) AS
    coalesce(abs(TRY_CAST(x AS DOUBLE)) <= {FLOAT32_MAX} AND NOT contains(x, '_'), false);
CREATE OR REPLACE TEMP MACRO quoted(x) AS
    CASE WHEN contains(x, '"') THEN '"' || replace(x, '"', '""') || '"' ELSE x END;
CREATE OR REPLACE TEMP MACRO one_token(x) AS regexp_replace(trim(x), '\s+', '_', 'g');
CREATE OR REPLACE TEMP MACRO joined(l) AS
    nullif(array_to_string([one_token(v) for v in l if trim(v) <> ''], ' '), '');
CREATE OR REPLACE TEMP MACRO json_values(x) AS CASE WHEN regexp_matches(x, '^\s*\[\s*\[')
    THEN json_extract_string(x, '$[*][*]') ELSE json_extract_string(x, '$[*]') END;
CREATE OR REPLACE TEMP MACRO words(x) AS CASE
    WHEN x LIKE '[%' AND json_valid(x) THEN joined([clean(v) for v in json_values(x)])
    WHEN x LIKE '[%' AND regexp_full_match(x, {literal(LITERAL_LIST)}) THEN joined([
        clean(regexp_replace(v[2:-2], '\\(.)', '\1', 'g')) for v in regexp_extract_all(x, {literal(LITERAL_TEXT)})])
    ELSE nullif(trim(regexp_replace(x, '\s+', ' ', 'g')), '') END;
"""


def value_sql(field: Field, text: str, decimal: str = ".") -> str:
    """Return the SQL of a field's value (VARCHAR, NULL where missing).

    Args:
        field (Field): type, separator, and whether it is required.
        text (str): SQL of the cleaned raw text.
        decimal (str): decimal mark of numbers.
    """
    if field.type in ("float", "float_seq") and decimal == ",":
        text = f"replace({text}, ',', '.')"
    if field.type == "token":
        return f"escape_missing({text})" if field.required else f"present({text})"
    if field.type == "float":
        return f"present({text})"
    parts = f"joined(string_split({text}, {literal(field.sep)}))" if field.sep else f"words({text})"
    return f"present({parts})" if field.type == "token_seq" else parts


def fault_sql(field: Field, value: str, decimal: str = ".") -> str | None:
    """Return a branch of a CASE that gives the reason where a value is no finite number, or None for other fields.

    Args:
        field (Field): name and type.
        value (str): SQL of the field's value.
        decimal (str): decimal mark of numbers; a number with a comma is told about the flag that reads it.
    """
    if field.type == "float":
        bad = f"{value} IS NOT NULL AND NOT is_number({value})"
    elif field.type == "float_seq":
        bad = f"NOT coalesce(list_bool_and([is_number(v) for v in string_split({value}, ' ')]), true)"
    else:
        return None
    reason = literal(f"{field.name} is not a finite {field.type}")
    # Asked of faulty rows alone. Three digits behind the comma may be thousands: --decimal would divide them by 1,000.
    if decimal == "." and field.type == "float":
        hint = literal(f"{field.name} has a decimal comma, which --decimal , reads")
        is_decimal = f"regexp_full_match({value}, '[-+]?[0-9]+,([0-9]{{1,2}}|[0-9]{{4,}})')"
        reason = f"CASE WHEN {is_decimal} THEN {hint} ELSE {reason} END"
    return f"WHEN {bad} THEN {reason}"


def check_scalings(plan: Plan) -> None:
    """Refuse to scale a field that is absent, dropped or no number.

    Raises:
        AtomicFileError: naming the float fields there are.
    """
    floats = [f.name for table in plan.tables for f in table.fields if f.type == "float"]
    if "rating" in plan.scalings and plan.cleaning.rating_threshold is not None:
        raise AtomicFileError("--normalize rating must not be given with --rating-threshold, which drops the rating")
    for name in plan.scalings:
        if name not in floats:
            there = ", ".join(floats) or "none"
            raise AtomicFileError(f"--normalize {name} must name a float field, one of {there}{nearest(name, floats)}")


def scale(con: duckdb.DuckDBPyConnection, table: str, field: str, how: str) -> None:
    """Scale a float field of a loaded table; a missing value stays missing.

    Args:
        con (DuckDBPyConnection): holds the table.
        table (str): its name.
        field (str): the field, stored as text.
        how (str): ``minmax`` to 0..1, ``z`` to mean 0 and standard deviation 1 (a constant becomes 0), or ``log1p``.
    Raises:
        AtomicFileError: if ``log1p`` meets a value of -1 or less.
    """
    column = ident(field)
    value = f"CAST({column} AS DOUBLE)"
    row = con.execute(f"SELECT min({value}), max({value}), avg({value}), stddev_pop({value}) FROM {table}").fetchone()
    if row is None or row[0] is None:
        return
    low, high, mean, deviation = (float(v) for v in row)
    if how == "log1p" and low <= -1:
        raise AtomicFileError(f"--normalize {field}=log1p ({low:g} in {field}) must meet values above -1 only")
    scaled = {
        "minmax": f"({value} - {low!r}) / {(high - low) or 1.0!r}",
        "z": f"({value} - {mean!r}) / {deviation or 1.0!r}",
        "log1p": f"ln(1 + {value})",
    }[how]
    con.execute(f"UPDATE {table} SET {column} = CAST(round({scaled}, 6) AS VARCHAR) WHERE {column} IS NOT NULL")
