"""The publishers' own files: what is in them comes out, counted."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from .conftest import read_as_recbole

# source: folder, renamed files, then interactions, users, items and rejects
EXPECTED = {
    "ml-100k": ("ml-100k", {}, (100_000, 943, 1_682), {}),
    "ml-1m": ("ml-1m", {}, (999_671, 6_040, 3_472), {}),
    "ml-latest": ("ml-latest-small", {}, (100_004, 671, 9_066), {}),
    "amazon-2014": ("amazon-2014", {}, (10_261, 1_429, 900), {}),
    "amazon-2018": ("amazon-2018", {}, (2_972, 458, 148), {}),
    "taobao": (
        "taobao",
        {},
        (84_440, 815, 55_344),
        {"impossible timestamp": 35, "4 columns where there must be 5": 1},
    ),
    "yoochoose": ("yoochoose", {}, (1_000, 272, 570), {}),
    "diginetica": ("diginetica", {}, (12_391, 2_986, 7_139), {}),
    "diginetica-buys": ("diginetica", {}, (18_025, 12_630, 11_244), {}),
    "retailrocket": ("retailrocket", {}, (100, 93, 97), {}),
    "lastfm-hetrec": (
        "lastfm-hetrec",
        {"hetrec_artists.dat": "artists.dat"},
        (186_474, 1_892, 12_523),
        {"impossible timestamp": 5},
    ),
    "lastfm-hetrec-plays": ("lastfm-hetrec", {"hetrec_artists.dat": "artists.dat"}, (92_834, 1_892, 17_632), {}),
    "mind": ("mind", {"kim_sample_train.tsv": "behaviors.tsv", "kim_sample_docs.tsv": "news.tsv"}, (126, 5, 124), {}),
    "30music": ("30music", {}, (343_183, 14_262, 9_999), {}),
}


@pytest.mark.parametrize("source", EXPECTED)
def test_counts(cli, real_data, tmp_path, source):
    folder, renamed, counts, rejected = EXPECTED[source]
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in (real_data / folder).iterdir():
        (raw / renamed.get(path.name, path.name)).symlink_to(path)
    result = cli(raw, "--source", source)
    assert result.code == 0, result.err
    facts = json.loads(result.text(".report.json"))["tables"]["inter"]
    assert (facts["rows_written"], facts["users"], facts["items"]) == counts
    assert facts["rejected"] == rejected
    frame = read_as_recbole(result.folder / "made.inter")
    assert len(frame) == counts[0]
    assert frame["user_id"].nunique() == counts[1]
    if "timestamp" in frame:
        assert frame["timestamp"].is_monotonic_increasing


def test_ml_100k_agrees_with_its_source_row_by_row(cli, real_data):
    result = cli(real_data / "ml-100k", "--source", "ml-100k")
    raw = [tuple(line.split("\t")) for line in (real_data / "ml-100k" / "u.data").read_text().splitlines()]
    written = [tuple(row) for row in result.rows()[1:]]
    assert written == sorted(raw, key=lambda row: int(row[3]))  # stable: ties keep their order
    years = Counter(result.column("release_year", ".item"))
    assert years["1995"] == 296
    assert "Double vie de Véronique" in result.text(".item")


def test_the_cut_last_line_of_taobao_is_told(cli, real_data):
    result = cli(real_data / "taobao" / "UserBehavior_first84k.csv", "--source", "taobao")
    last = result.rows(".rejects.tsv")[-1]
    assert last[1:] == ["84476", "4 columns where there must be 5", "100370,1968385,1875258,pv"]


def test_taobao_as_any_table(cli, real_data):
    flags = ["--no-header", "--user", "0", "--item", "1", "--behavior", "3", "--time", "4", "--feature", "2:token"]
    result = cli(real_data / "taobao" / "UserBehavior_first84k.csv", *flags)
    assert len(result.rows()) == 1 + 84_475
    assert Counter(result.column("behavior"))["buy"] > 1000


def test_flagless_real_tables(cli, real_data):
    ratings = cli(
        real_data / "ml-latest-small" / "ratings.csv", "--items", real_data / "ml-latest-small" / "movies.csv"
    )
    assert len(ratings.rows()) == 100_005
    assert len(read_as_recbole(ratings.folder / "made.item")) == 9_125
    parquet = cli(real_data / "30music" / "sessions_sample_10.parquet", name="music")
    assert len(parquet.rows()) == 343_184
    reviews = cli(real_data / "amazon-2018" / "Gift_Cards_5.json.gz", name="cards")
    assert len(reviews.rows()) == 2_973


@pytest.mark.slow
def test_ml_1m_takes_seconds(cli, real_data):
    start = time.process_time()
    assert cli(real_data / "ml-1m", "--source", "ml-1m").code == 0
    assert time.process_time() - start < 6  # of two processors together; it is about 2.5 s
