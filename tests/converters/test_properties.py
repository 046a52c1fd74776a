"""What is written reads back the same, as pandas reads it for RecBole and as RecBole reads it itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_lsti.converters.convert import convert
from recbole_lsti.converters.describe import Wishes, describe_inter
from recbole_lsti.converters.plan import Format, Plan

from .conftest import read_as_recbole

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), exclude_characters="\ufeff"), min_size=1
)
SPACED = st.lists(TEXT, min_size=1, max_size=3).map(" ".join)
TIMES = st.integers(0, 4_000_000_000)
ROWS = st.lists(
    st.tuples(SPACED, SPACED, TIMES, st.floats(width=32, allow_nan=False, allow_infinity=False)), min_size=1
)
MISSING = {"", "NA", "N/A", "n/a", "nan", "NaN", "-nan", "-NaN", "null", "NULL", "None", "<NA>", "#N/A", "#NA"}


def convert_csv(rows, folder: Path, features=()):
    """Write rows as CSV, convert them, and return the folder made."""
    lines = [",".join('"' + str(cell).replace('"', '""') + '"' for cell in row) for row in rows]
    text = "\n".join(["user,item,timestamp,value", *lines, ""])
    (folder / "log.csv").write_bytes(text.encode("utf-8"))
    wishes = Wishes(features=tuple(features), time_format="s")
    table, _ = describe_inter((folder / "log.csv",), Format(encoding="utf-8", sep=","), wishes)
    convert(Plan("made", folder / "out", (table,)))
    return folder / "out" / "made" / "made.inter"


@SETTINGS
@given(ROWS)
def test_tokens_and_numbers_survive(rows):
    with tempfile.TemporaryDirectory() as folder:
        frame = read_as_recbole(convert_csv(rows, Path(folder), ["value:float"]))
    expected = sorted(rows, key=lambda row: row[2])  # stable: ties keep the order of the input
    for name, at in (("user_id", 0), ("item_id", 1)):
        for got, row in zip(frame[name], expected, strict=True):
            want = row[at]
            assert got == want or (got.startswith("_") and got.lstrip("_") in MISSING and got == "_" + want)
    assert frame["timestamp"].tolist() == [row[2] for row in expected]
    assert np.array_equal(frame["value"].to_numpy(np.float32), np.array([row[3] for row in expected], np.float32))


@SETTINGS
@given(st.lists(st.text(max_size=8), min_size=1, max_size=20))
def test_any_text_at_all_keeps_the_table_whole(values):
    rows = [(f"u{at}", "x", at, value) for at, value in enumerate(values)]
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = convert_csv(rows, Path(folder), ["value:token"])
        except ValueError:
            assert any("\0" in value for value in values)
            return
        frame = read_as_recbole(path)
        lines = path.read_text(encoding="utf-8").split("\n")
    assert frame["user_id"].isin([row[0] for row in rows]).all()
    assert len(lines) == len(frame) + 2
    assert all(line.count("\t") == 3 for line in lines[:-1])


@SETTINGS
@given(st.lists(st.lists(TEXT, max_size=4), min_size=1, max_size=10))
def test_sequences_survive(lists):
    lists = [[value.replace("|", "") or "x" for value in values] for values in lists]
    rows = [("u", "x", at, "|".join(values)) for at, values in enumerate(lists)]
    with tempfile.TemporaryDirectory() as folder:
        frame = read_as_recbole(convert_csv(rows, Path(folder), ["value:token_seq:|"]))
    got = [[] if isinstance(cell, float) else [part for part in cell.split(" ") if part] for cell in frame["value"]]
    assert got == [[] if "|".join(values) in MISSING else values for values in lists]


@SETTINGS
@given(st.lists(TIMES, min_size=1, max_size=50), st.integers(0, 9))
def test_the_float32_sort_of_recbole_changes_nothing(times, salt):
    rows = [(f"u{(at + salt) % 3}", f"i{at}", time, "") for at, time in enumerate(times)]
    with tempfile.TemporaryDirectory() as folder:
        frame = read_as_recbole(convert_csv(rows, Path(folder)))
    rounded = frame.assign(timestamp=frame["timestamp"].astype(np.float32))
    assert rounded.sort_values("timestamp", kind="stable").index.tolist() == list(range(len(frame)))


def test_recbole_reads_what_is_written(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("recbole")
    from recbole.config import Config
    from recbole.data.dataset import SequentialDataset

    rows = [("NA", 'say "x"', 3, "1"), ("u", "plain", 1, "2"), ("NA", "plain", 2, "3")]
    path = convert_csv(rows, tmp_path, ["value:float"])
    files = [str(path.with_name("made.yaml"))]
    config = Config("GRU4Rec", "made", files, config_dict={"train_neg_sample_args": None})
    dataset = SequentialDataset(config)
    assert (dataset.user_num, dataset.item_num) == (3, 3)
    assert set(dataset.field2id_token["item_id"][1:]) == {'say "x"', "plain"}
    assert set(dataset.field2id_token["user_id"][1:]) == {"_NA", "u"}
