"""What is read: as RecBole reads it, on random files; and what cannot be read, in one line with file and line."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from reference import (
    assert_same_parts,
    assert_same_tables,
    fails,
    make_config,
    recbole_dataset,
    write,
)

from recbole_lsti.data import LSTIDataset
from recbole_lsti.data.lines import scan_lines
from recbole_lsti.data.reader import ROWS_AT_A_TIME, read_header, read_table
from recbole_lsti.data.snapshot import files_of
from recbole_lsti.errors import AtomicFileError

INTER = "user_id:token item_id:token rating:float kind:token timestamp:float"
SPELLINGS = (
    [str(n) for n in range(1, 7)],
    ["7", "07", "007", "+7", "-7", "0"],
    ["a", "B", "é", "1", "nan?", "True", "1.5"],
)

PAIRED = [  # columns that RecBole shows as pairs of a bucket, or a value, and a weight
    {"numerical_features": ["rating"]},
    {"numerical_features": ["rating"], "discretization": {"rating": {"method": "ED", "bucket": 3}}},
]


@st.composite
def data_sets(draw: st.DrawFn) -> dict:
    """Rows of the three files, and settings that filter and shape them."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    users, items = draw(st.sampled_from(SPELLINGS)), draw(st.sampled_from(SPELLINGS))
    missing = draw(st.sampled_from(["", "user", "item"]))  # RecBole drops the wrong rows where both are missing

    def column(words: list, rows: int) -> list:
        return [words[n] for n in random.integers(len(words), size=rows)]

    ratings = ["1", "2.5", "", "3", "0.1", "1e1", "4.35"]
    kinds = ["x", "y", "NA", "", "z"]
    n, n_items, n_users = random.integers(10, 60), draw(st.integers(0, 9)), draw(st.integers(0, 9))
    rows = zip(
        column([*users, *users, ""] if missing == "user" else users, n),
        column([*items, *items, ""] if missing == "item" else items, n),
        column(ratings, n),
        column(kinds, n),
        random.integers(0, 40, n),
        strict=True,
    )
    item_rows = zip(
        column([*items, "new"], n_items),
        column(ratings, n_items),
        column(["", "p", "p q", "q  r p", "s"], n_items),
        column(["", "0.5", "1 2.25", "3 4 -5"], n_items),
        column(kinds, n_items),
        column(["", f"{items[0]} {items[1]}", items[2], "other"], n_items),
        strict=True,
    )
    unloaded = draw(st.sampled_from([None, None, {"inter": ["kind"]}]))
    by_value = [None, {"rating": "[1,3]"}, {"rating": "[0,1);(1,9]"}] + [{"kind": ["x", "y"]}] * (unloaded is None)
    return {
        "rows": list(rows),
        "item_rows": list(item_rows),
        "user_rows": list(zip(column([*users, "new"], n_users), column(kinds, n_users), strict=True)),
        "settings": {
            "user_inter_num_interval": draw(st.sampled_from([None, "[2,inf)", "(1,30]", "[0,inf)"])),
            "item_inter_num_interval": draw(st.sampled_from([None, "[2,inf)", "[1,2];[4,30]"])),
            "rm_dup_inter": draw(st.sampled_from([None, "first", "last"])),
            "val_interval": draw(st.sampled_from(by_value)),
            "filter_inter_by_user_or_item": draw(st.booleans()),
            "threshold": draw(st.sampled_from([None, {"rating": 2.5}])),
            **draw(st.sampled_from([{}, {}, *PAIRED])),
            "normalize_field": draw(st.sampled_from([None, ["timestamp"], ["weight", "vector"]])),
            "seq_len": draw(st.sampled_from([None, {"words": 2, "vector": 1}])),
            "alias_of_item_id": draw(st.sampled_from([None, ["alike"]])),
            "unload_col": unloaded,
            "MAX_ITEM_LIST_LENGTH": draw(st.sampled_from([2, 50])),
        },
    }


def write_data_set(folder: Path, data: dict) -> Path:
    write(folder, "inter", INTER, data["rows"])
    has_items = bool(data["item_rows"])
    if has_items:
        write(
            folder,
            "item",
            "item_id:token weight:float words:token_seq vector:float_seq kind_of_item:token alike:token_seq",
            data["item_rows"],
        )
    else:
        data["settings"].update(alias_of_item_id=None, normalize_field=None, seq_len=None)
    if data["user_rows"]:
        write(folder, "user", "user_id:token kind_of_user:token", data["user_rows"])
    return folder


def test_random_files_are_read_as_recbole_reads_them() -> None:
    outcomes: Counter[str] = Counter()

    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=data_sets())
    def compare(data: dict) -> None:
        with tempfile.TemporaryDirectory() as parent:
            config = make_config(write_data_set(Path(parent) / "random", data), **data["settings"])
            try:
                theirs = recbole_dataset(config)
            except (ValueError, TypeError) as error:
                event(str(error)[:60])
                outcomes[str(error)[:60]] += 1
                if "feat is empty" in str(error):
                    with fails(ValueError, "must keep at least one row", "filtered"):
                        LSTIDataset(config)
                return  # else one of RecBole's own faults, such as to normalise a column of nothing but empty lists
            ours = LSTIDataset(config)
            assert_same_tables(ours, theirs)
            assert_same_parts(ours, theirs)
            outcomes["compared"] += 1

    compare()
    assert outcomes["compared"] > outcomes.total() / 2, "RecBole refuses what is to be compared"


def test_benchmark_files_are_read_as_recbole_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "split"
    header = "user_id:token item_id_list:token_seq item_id:token timestamp:float"
    parts = {
        "train": [("u1", "a b", "c", 3), ("u2", "b", "a", 4)],
        "valid": [("u2", "b a", "d", 5)],
        "test": [("u3", "d c b a", "a", 9)],
    }
    for name, rows in parts.items():
        write(folder, f"{name}.inter", header, rows)
    config = make_config(folder, benchmark_filename=list(parts), alias_of_item_id=["item_id_list"])
    assert [path.name for path in files_of(config)] == [f"split.{name}.inter" for name in parts]
    ours, theirs = LSTIDataset(config), recbole_dataset(config)
    assert ours.file_size_list == theirs.file_size_list == [2, 1, 1]
    assert_same_tables(ours, theirs)
    assert_same_parts(ours, theirs)


def test_additional_files_and_preloaded_vectors_are_read_as_recbole_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "extra"
    write(folder, "inter", "user_id:token item_id:token timestamp:float", [("u", "a", 1), ("u", "b", 2), ("u", "c", 3)])
    write(folder, "vec", "vid:token values:float_seq", [("b", "1 2 3"), ("a", "0.5 0.25 4"), ("z", "7")])
    config = make_config(
        folder,
        additional_feat_suffix=["vec"],
        alias_of_item_id=["vid"],
        preload_weight={"vid": "values"},
        load_col={"inter": ["user_id", "item_id", "timestamp"], "vec": ["vid", "values"]},
    )
    ours, theirs = LSTIDataset(config), recbole_dataset(config)
    assert_same_tables(ours, theirs)
    assert "vid" in theirs._preloaded_weight


def test_a_knowledge_graph_is_read_as_recbole_reads_it(tmp_path: Path) -> None:
    from recbole.data.dataset import KGSeqDataset

    from recbole_lsti.data.dataset import LSTIKGSeqDataset

    folder = tmp_path / "graph"
    rows = [(f"u{n % 3}", f"i{n % 5}", n) for n in range(20)]
    write(folder, "inter", "user_id:token item_id:token timestamp:float", rows)
    triples = [(f"e{n}", f"r{n % 2}", "e9") for n in range(6)]
    write(folder, "kg", "head_id:token relation_id:token tail_id:token", triples)
    write(folder, "link", "item_id:token entity_id:token", [(f"i{n}", f"e{n}") for n in range(4)])
    config = make_config(
        folder,
        HEAD_ENTITY_ID_FIELD="head_id",
        TAIL_ENTITY_ID_FIELD="tail_id",
        RELATION_ID_FIELD="relation_id",
        ENTITY_ID_FIELD="entity_id",
        kg_reverse_r=False,
        entity_kg_num_interval="[1,inf)",
        relation_kg_num_interval="[1,inf)",
    )
    ours, theirs = LSTIKGSeqDataset(config), KGSeqDataset(config)
    assert ours.entity_num == theirs.entity_num > 5
    assert_same_tables(ours, theirs)


def test_only_the_columns_asked_for_are_parsed(tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    write(folder, "inter", "user_id:token junk:float item_id:token", [("u", "no number", "i")])
    table, _ = read_table(folder / "wide.inter", {"user_id", "item_id"})
    assert list(table) == ["user_id", "item_id"]
    with fails(AtomicFileError, "line 2", "junk (no number)"):
        read_table(folder / "wide.inter")


@pytest.mark.parametrize("tokens", [["10", "9", "-3"], ["10", "010", "+10"], ["a", "1"], ["1", "", "2"], ["True", "1"]])
@pytest.mark.parametrize("later", [["5"], ["x"], ["05"]])
def test_tokens_keep_their_spelling_whatever_chunk_they_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: list[str], later: list[str]
) -> None:
    monkeypatch.setattr("recbole_lsti.data.reader.ROWS_AT_A_TIME", 2)
    write(tmp_path / "t", "inter", "user_id:token time:float", [(token, 1) for token in tokens + later])
    table, _ = read_table(tmp_path / "t" / "t.inter")
    assert table["user_id"].astype(object).fillna("").tolist() == tokens + later


def test_integer_times_are_exact_beyond_float64(tmp_path: Path) -> None:
    base = 1_700_000_000_123_456_789  # nanoseconds: float64 tells apart steps of 256
    times = [base + 3, base + 1, base + 2, base]
    folder = tmp_path / "ns"
    write(folder, "inter", "user_id:token item_id:token timestamp:float", [("u", f"i{t - base}", t) for t in times])
    config = make_config(folder)
    ours = LSTIDataset(config)
    assert ours.inter_feat["timestamp"].dtype == np.float64
    np.testing.assert_array_equal(ours.inter_feat["timestamp"], recbole_dataset(config).inter_feat["timestamp"])
    assert ours.event_time.tolist() == times
    ours.build()
    assert ours.inter_feat.events.time.tolist() == sorted(times)
    items = ours.id2token("item_id", ours.inter_feat.events.columns["item_id"].numpy())
    assert items.tolist() == ["i0", "i1", "i2", "i3"]


HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"
GOOD = HEADER + "u\ti\t1\nu\tj\t2\nu\tk\t3\n"
BROKEN = {
    "empty file": ("", 1, "the file is empty"),
    "header only": (HEADER, 2, "at least one row"),
    "header without line end": (HEADER.rstrip("\n"), 2, "at least one row"),
    "missing header type": (GOOD.replace("item_id:token", "item_id"), 1, "column (item_id) must be name:type"),
    "unknown type": (GOOD.replace(":float", ":flaot"), 1, "type (flaot) of timestamp must be one of token"),
    "nearest type": (GOOD.replace(":float", ":flaot"), 1, "did you mean float?"),
    "column twice": (GOOD.replace("item_id:", "user_id:"), 1, "column (user_id) must be given once"),
    "a column to spare": (GOOD + "u\tl\t4\t9\n", 5, "columns (4) must be as many as the header has (3)"),
    "every row has one to spare": (HEADER + "u\ti\t1\tx\n" * 3, 2, "columns (4)"),
    "a column short": (GOOD + "u\tl\nu\tm\t9\n", 5, "columns (2)"),
    "one short and one to spare": (HEADER + "u\ti\nu\tj\t2\t3\n", 2, "columns (2)"),
    "short behind blank lines": (HEADER + "\nu\ti\t1\n   \nu\ti\n", 5, "columns (2)"),
    "short behind a quoted field": (HEADER + '"u\tv"\ti\t1\nu\tj\n', 3, "columns (2)"),
    "open quotation mark": (HEADER + 'u\ti\t1\n"u\tj\t2\nu\tk\t3\n', 3, "a quotation mark opens a field there"),
    "time of the wrong type": (GOOD.replace(":float", ":token"), None, "TIME_FIELD (timestamp) must be a float column"),
    "user of the wrong type": (
        GOOD.replace("user_id:token", "user_id:float").replace("u\t", "1\t"),
        None,
        "USER_ID_FIELD",
    ),
    "invalid UTF-8": (GOOD.encode() + b"u\tcaf\xe9\t4\n", 5, "byte 0xe9 at 6 must be utf-8"),
    "invalid UTF-8 in the header": (b"us\xe9r_id:token\ti:token\n", 1, "byte 0xe9 at 3"),
    "infinite time": (GOOD + "u\tl\tinf\n", 5, "timestamp (inf) must be a finite number"),
    "infinite time behind a quoted line end": (HEADER + '"u\nv"\ti\t1\nu\tj\tinf\n', 4, "timestamp (inf)"),
    "word behind a quoted line end": (HEADER + '"u\nv"\ti\t1\n\nu\tj\tx\n', 5, "timestamp (x) must be a number"),
    "word behind old Mac line ends": ((GOOD + "u\tl\tx\n").replace("\n", "\r"), 5, "timestamp (x) must be a number"),
    "word as time": (GOOD + "\nu\tl\tyesterday\n", 6, "timestamp (yesterday) must be a number"),
}


def inter_of(folder: Path, content: str | bytes) -> Path:
    folder.mkdir()
    path = folder / f"{folder.name}.inter"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    content, line, words = BROKEN[case]
    path = inter_of(tmp_path / "bad", content)
    with fails(ValueError, f"{path}, line {line}: " if line else "bad.inter", words):
        LSTIDataset(make_config(tmp_path / "bad"))


WORKING = {
    "CRLF": GOOD.replace("\n", "\r\n"),
    "old Mac line ends": GOOD.replace("\n", "\r"),
    "byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "no line end at the end": GOOD.rstrip("\n"),
    "blank lines": GOOD.replace("u\tj", "\n  \nu\tj"),
    "quoted tokens": GOOD.replace("\tj\t", '\t"j"\t'),
    "negative times": GOOD.replace("\t1\n", "\t-1\n"),
    "one interaction": HEADER + "u\ti\t1\n",
}


@pytest.mark.parametrize("case", WORKING)
def test_odd_files_that_work(tmp_path: Path, case: str) -> None:
    path = inter_of(tmp_path / "odd", WORKING[case])
    if case == "old Mac line ends":
        assert read_header(path)[2].name == "timestamp"
    dataset = LSTIDataset(make_config(tmp_path / "odd"))
    assert dataset.field2id_token["item_id"].tolist()[1:] == (["i"] if case == "one interaction" else ["i", "j", "k"])
    assert dataset.event_time[0] == (-1 if case == "negative times" else 1)


def test_other_encodings_are_read_and_unknown_ones_refused(tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16"):
        inter_of(tmp_path / encoding, GOOD.replace("\tk\t", "\té\t").encode(encoding))
        dataset = LSTIDataset(make_config(tmp_path / encoding, encoding=encoding))
        assert dataset.field2id_token["item_id"][3] == "é"
    with fails(AtomicFileError, "encoding (utf-9) must be one that Python knows"):
        LSTIDataset(make_config(tmp_path / "latin-1", encoding="utf-9"))


def test_the_line_of_a_bad_list_is_told_in_any_encoding(tmp_path: Path) -> None:
    text = 'user_id:token;vector:float_seq\n"a\nb";1 2\nc;1 x\n'
    path = inter_of(tmp_path / "lists", text.encode("utf-16"))
    with fails(AtomicFileError, f"{path}, line 4: vector (x) must be a number"):
        read_table(path, separator=";", encoding="utf-16")


def test_a_line_of_two_megabytes_is_read(tmp_path: Path) -> None:
    long = "x" * 2_000_000
    inter_of(tmp_path / "long", HEADER + f"u\t{long}\t1\n" + "".join(f"u\ti{n}\t{n + 2}\n" for n in range(200)))
    dataset = LSTIDataset(make_config(tmp_path / "long"))
    assert dataset.field2token_id["item_id"][long] == 1
    assert dataset.field2id_token["item_id"].nbytes < 2**20  # fixed-width text would take 200 times 8 MB


def test_lines_swallowed_by_quotation_marks_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inter_of(tmp_path / "q", HEADER + 'u\t"i\t1\nu\tj" k\t2\nu\tl\t3\n')
    with caplog.at_level(logging.WARNING):
        dataset = LSTIDataset(make_config(tmp_path / "q"))
    assert len(dataset) == 2
    assert "q.inter: 1 lines are part of a quoted field" in caplog.text


def test_a_separator_of_several_characters_is_refused(tmp_path: Path) -> None:
    path = inter_of(tmp_path / "sep", GOOD)
    with fails(ValueError, "field_separator ('::') must be one ASCII character"):
        scan_lines(path, "::", 3)


def test_what_is_filtered_and_filled_is_counted_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "told"
    rows = [
        ("u1", "a", 5, 1),
        ("u1", "a", 4, 2),
        ("u1", "b", "", 3),
        ("u2", "b", 1, 4),
        ("", "b", 2, 5),
        ("u", "c", 3, 6),
    ]
    write(folder, "inter", "user_id:token item_id:token rating:float timestamp:float", rows)
    items = [("a", 2, "x"), ("a", 3, ""), ("b", "", ""), ("z", 1, "")]
    write(folder, "item", "item_id:token price:float kind:token", items)
    config = make_config(
        folder, rm_dup_inter="first", val_interval={"rating": "[0,5]"}, filter_inter_by_user_or_item=False
    )
    with caplog.at_level(logging.INFO):
        LSTIDataset(config)
    for line in (
        "told.inter: 6 rows, columns user_id, item_id, rating, timestamp",
        "item_feat: 1 of 4 rows filtered: a row above has the same item_id",
        "inter_feat: 1 of 6 rows filtered: user_id is missing",
        "inter_feat: 1 of 5 rows filtered: another row has the same user and item (rm_dup_inter: first)",
        "inter_feat: 1 of 4 rows filtered: rating is not in [0,5] (val_interval)",
        "item_feat: 1 of 4 items have no row: filled",
        "item_feat: 2 missing values of price filled with the mean",
        "item_feat: 3 missing values of kind filled with the padding token",
    ):
        assert line in caplog.text


def test_rows_without_an_id_go_even_below_duplicates(tmp_path: Path) -> None:
    # RecBole takes row labels for positions here and drops the row of "b"
    folder = tmp_path / "gone"
    write(folder, "inter", "user_id:token item_id:token timestamp:float", [("u", "a", 1), ("u", "b", 2)])
    write(folder, "item", "item_id:token price:float", [("a", 2), ("a", 3), ("", 9), ("b", 4), ("c", 5)])
    dataset = LSTIDataset(make_config(folder))
    assert dataset.item_feat["price"].tolist()[1:] == [2, 4, 5]


def test_no_column_of_the_interactions_asked_for_is_one_line(tmp_path: Path) -> None:
    inter_of(tmp_path / "none", GOOD)
    with fails(ValueError, "USER_ID_FIELD (user_id) must be a column of none.inter that load_col loads; loaded: none"):
        LSTIDataset(make_config(tmp_path / "none", load_col={"item": ["item_id"]}))


def test_columns_that_the_file_lacks_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inter_of(tmp_path / "lack", GOOD)
    with caplog.at_level(logging.WARNING):
        LSTIDataset(make_config(tmp_path / "lack", load_col={"inter": ["user_id", "item_id", "timestamp", "ratin"]}))
    assert "lack.inter has no column ratin, which load_col asks for" in caplog.text


def test_items_of_the_test_part_alone_and_lonely_users_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "few"
    rows = [("u1", "a", 1), ("u1", "b", 2), ("u1", "c", 3), ("u1", "only-in-test", 4), ("lonely", "a", 5)]
    write(folder, "inter", "user_id:token item_id:token timestamp:float", rows)
    config = make_config(folder)
    assert_same_parts(LSTIDataset(config), recbole_dataset(config))
    with caplog.at_level(logging.INFO):
        train, _, test = LSTIDataset(config).build()
    assert "5 events give 3 rows to predict" in caplog.text
    assert "1 users have that event alone and give no row" in caplog.text
    target = test.inter_feat["item_id"].item()
    assert test.id2token("item_id", target) == "only-in-test"
    assert target not in train.inter_feat["item_id"]


@pytest.mark.parametrize("odd", ["-3", "99999999", "9223372036854775807", ""])
def test_tokens_outside_the_table_in_a_later_chunk_are_numbered_like_the_others(tmp_path: Path, odd: str) -> None:
    tokens = [str(n) for n in (np.arange(ROWS_AT_A_TIME + 50) * 7919 % 70_001).tolist()] + [odd, "5", odd, "80000"]
    path = tmp_path / "a.inter"
    path.write_text("user_id:token\ttimestamp:float\n" + "".join(f"{t}\t{n}\n" for n, t in enumerate(tokens)))
    table, _ = read_table(path, exact={"timestamp"})
    codes, known = pd.factorize(np.array([token or None for token in tokens], dtype=object))
    np.testing.assert_array_equal(table["user_id"].cat.codes, codes)
    assert table["user_id"].cat.categories.tolist() == known.tolist()
    np.testing.assert_array_equal(table["timestamp"], np.arange(len(tokens)))
    assert table["timestamp"].dtype == np.int64
