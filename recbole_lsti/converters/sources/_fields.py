"""Short ways to write the fields of a named source."""

from __future__ import annotations

from dataclasses import replace

from recbole_lsti.converters.plan import Field


def user(column: str, name: str = "user_id") -> Field:
    """Return the user's field, read from a column."""
    return Field(name, "token", column, required=True)


def item(column: str, name: str = "item_id") -> Field:
    """Return the item's field, read from a column."""
    return Field(name, "token", column, required=True)


def token(name: str, column: str | None = None) -> Field:
    """Return a token read from a column, by default the column of that name."""
    return Field(name, "token", column or name)


def personal(name: str, column: str) -> Field:
    """Return a token that tells who the user is, read from a column."""
    return Field(name, "token", column, personal=True)


def number(name: str, column: str | None = None) -> Field:
    """Return a float read from a column, by default the column of that name."""
    return Field(name, "float", column or name)


def tokens(name: str, column: str | None = None, sep: str | None = None) -> Field:
    """Return a token sequence: words, a JSON array, or values between separators."""
    return Field(name, "token_seq", column or name, sep)


def sql(name: str, kind: str, expression: str, required: bool = False, sep: str | None = None) -> Field:
    """Return a field computed by SQL over the table's columns."""
    return Field(name, kind, expression, sep, required, is_sql=True)


def seconds(name: str, column: str) -> Field:
    """Return a float: the Unix seconds of the date or moment in a column."""
    second = f'CAST(epoch_us(TRY_CAST("{column}" AS TIMESTAMP)) // 1000000 AS VARCHAR)'
    return replace(sql(name, "float", second), is_moment=True)


def day(text: str, notation: str) -> str:
    """Return SQL of the nanoseconds at which a day begins, UTC, from SQL of its text and its strptime notation."""
    return f"CAST(epoch_us(timezone('UTC', TRY_STRPTIME({text}, '{notation}'))) AS HUGEINT) * 1000"


def mapped(column: str, names: dict[str, str]) -> str:
    """Return SQL that replaces codes by names and leaves other values as they are."""
    cases = " ".join(f"WHEN '{code}' THEN '{name}'" for code, name in names.items())
    return f'CASE "{column}" {cases} ELSE "{column}" END'
