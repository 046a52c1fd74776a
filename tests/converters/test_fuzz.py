"""Thousands of malformed files: never a traceback, never anything left behind, and never a broken table."""

from __future__ import annotations

import gzip
import os
import random

import pytest

from recbole_lsti.converters.cli import main

from .conftest import read_as_recbole

WORDS = [
    "a", "x", "7", "3.5", "1577959200", "2020-01-02", "2020-02-30", "1e308", "nan", "NA", "-1", "é", '"', '"a"', '"a',
    'a"b', '"",""', "\0", "\t", ";", "::", "|", " ", "", "日本", "\ufeff", "\x1f", "{}", "[", "\\N", "'", "\r", "\x85",
]  # fmt: skip
HEADERS = ["user_id,item_id,timestamp", "user,item", "userId;movieId;rating;date", "user_id\titem_id\tts", "a,b,c", ""]


def random_table(rng: random.Random) -> bytes:
    """Return a table whose cells, separators and line ends are anything."""
    sep = rng.choice([",", ",", ";", "\t", "::", "|"])
    lines = [rng.choice(HEADERS)]
    for _ in range(rng.randint(0, 30)):
        usual = ["u1", "i2", str(1_577_000_000 + rng.randint(0, 9999))]
        strange = [rng.choice(WORDS) for _ in range(rng.randint(0, 5))]
        lines.append(sep.join(usual if rng.random() < 0.7 else strange))
    return rng.choice(["\n", "\r\n"]).join(lines).encode(rng.choice(["utf-8", "utf-8", "utf-16", "latin-1"]), "replace")


def random_json(rng: random.Random) -> bytes:
    """Return JSON lines, some of them broken."""
    lines = []
    for _ in range(rng.randint(1, 20)):
        cell = rng.choice(['"a"', "1", "null", "{}", "[1, [2]]", "1e400", '"\\u0000"', '"\\ud800"', "tru", '"'])
        lines.append(f'{{"user": "u", "item": {cell}, "ts": {rng.choice(["1577959200", cell])}}}')
    text = "\n".join(lines)
    return (f"[{','.join(lines)}]" if rng.random() < 0.3 else text).encode()


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes with a few of them changed, or cut."""
    raw = bytearray(data)
    for _ in range(rng.randint(0, 4)):
        if raw:
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    return bytes(raw[: rng.randint(0, len(raw))] if rng.random() < 0.3 else raw)


def check(seed: int, tmp_path, capsys) -> int:
    """Convert one malformed file and return the exit status."""
    rng = random.Random(seed)
    kind = rng.choice(["csv", "csv", "txt", "json", "jsonl", "csv.gz", "csv.zst", "zip", "parquet"])
    data = random_json(rng) if kind.startswith("json") else random_table(rng)
    if kind == "csv.gz":
        data = gzip.compress(data, mtime=0)
    path, out = tmp_path / f"log.{kind}", tmp_path / "out"
    path.write_bytes(damaged(rng, data) if rng.random() < 0.7 else data)
    flags = rng.choice(
        [[], ["--max-reject-share", "1"], ["--quote", "none"], ["--no-header", "--user", "0", "--item", "1"]]
    )
    more = rng.choice([[], ["--split", "loo"], ["--k-core", "2"], ["--session-gap", "60"], ["--duplicates", "last"]])
    code = main([str(path), "--name", "made", "--output", str(out), "--overwrite", *flags, *more])
    said = capsys.readouterr().err
    assert code in (0, 2), seed
    if code == 2:
        assert said.splitlines()[-1].startswith("recbole-lsti convert: "), seed
        assert not out.exists() or not list(out.glob(".*")), seed
    else:
        frame = read_as_recbole(out / "made" / "made.inter")
        assert len(frame), seed
        assert frame[["user_id", "item_id"]].notna().all().all(), seed
        assert [path.name for path in out.iterdir()] == ["made"], seed
    return code


def test_malformed_files(tmp_path, capsys):
    codes = [check(seed, tmp_path, capsys) for seed in range(150)]
    assert {0, 2} == set(codes)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(int(os.environ.get("LSTI_FUZZ_BLOCKS", "2"))))
def test_thousands_of_malformed_files(tmp_path, capsys, block):
    for seed in range(1000 + block * 500, 1500 + block * 500):
        check(seed, tmp_path, capsys)
