"""Pseudonyms and rare users; what they protect from, and what not, is said in docs/privacy.md."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

import duckdb
import pyarrow as pa

from recbole_lsti.converters.sql import count, ident
from recbole_lsti.errors import AtomicFileError

KEY_VARIABLE = "LSTI_PSEUDONYM_KEY"
MIN_KEY_BYTES = 16
TOKEN_HEX_DIGITS = 32  # 128 of the 256 bits: two of a billion users share a token with probability below 1e-20


def read_key(key_file: Path | None = None) -> bytes:
    """Return the secret key, from a file or else from the environment; never from the command line.

    Args:
        key_file (Path | None): holds the key; white space around it does not count.
    Returns:
        bytes: at least 16 bytes.
    Raises:
        AtomicFileError: if there is no key, or it is too short to withstand guessing.
    """
    if key_file is not None:
        try:
            key, where = key_file.read_bytes().strip(), f"--key-file ({key_file})"
        except OSError as error:
            raise AtomicFileError(f"--key-file ({key_file}) must be a readable file: {error.strerror}") from error
    else:
        key, where = os.environb.get(KEY_VARIABLE.encode(), b"").strip(), f"the environment variable {KEY_VARIABLE}"
        if not key:
            raise AtomicFileError(f"--pseudonymize must have a key: set {KEY_VARIABLE}, or give --key-file FILE")
    if len(key) < MIN_KEY_BYTES:
        raise AtomicFileError(f"{where} ({len(key)} bytes) must hold a key of at least {MIN_KEY_BYTES} bytes")
    return key


def pseudonym(key: bytes, token: str) -> str:
    """Return the token that stands for a user: the first 128 bits of HMAC-SHA256 under the key, in hexadecimal."""
    return hmac.new(key, token.encode("utf-8"), hashlib.sha256).hexdigest()[:TOKEN_HEX_DIGITS]


def drop_rare_users(con: duckdb.DuckDBPyConnection, user: str, fewest: int) -> int:
    """Drop the interactions of users who have fewer than ``fewest``; return how many went."""
    column = ident(user)
    rare = f"SELECT {column} FROM inter GROUP BY 1 HAVING count(*) < {int(fewest)}"
    return count(con, f"DELETE FROM inter WHERE {column} IN ({rare})")


def pseudonymize(con: duckdb.DuckDBPyConnection, columns: list[tuple[str, str]], key: bytes) -> None:
    """Replace user tokens in place, the same token alike in every table.

    Args:
        con (DuckDBPyConnection): holds the tables.
        columns (list[tuple[str, str]]): table and column of user tokens.
        key (bytes): the secret.
    """
    every = " UNION ".join(f"SELECT {ident(column)} AS token FROM {table}" for table, column in columns)
    tokens = [str(row[0]) for row in con.execute(f"SELECT token FROM ({every})").fetchall()]
    con.register("pseudonyms", pa.table({"token": tokens, "stands_for_it": [pseudonym(key, t) for t in tokens]}))
    for table, column in columns:
        name = ident(column)
        con.execute(f"UPDATE {table} SET {name} = stands_for_it FROM pseudonyms WHERE {name} = pseudonyms.token")
    con.unregister("pseudonyms")
