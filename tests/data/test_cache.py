"""The cache: same data as without, mapped from files, rebuilt when stale or corrupt, shared and bounded."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import environment
from recbole.utils.argument_list import dataset_arguments
from reference import EVAL_ARGS, assert_same_parts, make_config, write

from recbole_lsti.cli import build_parser, main
from recbole_lsti.config import LSTIConfig, plain_config
from recbole_lsti.data import LSTIDataset, snapshot
from recbole_lsti.data.cache import Cache, Entry, entry_name
from recbole_lsti.data.reader import read_table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(3)
    rows = [
        (f"u{random.integers(9)}", f"i{random.integers(20)}", random.integers(1, 6), random.integers(60))
        for _ in range(200)
    ]
    write(tmp_path / "d", "inter", "user_id:token item_id:token rating:float timestamp:float", rows)
    items = [(f"i{n}", n, "p q"[: n % 4], "0.5 2", f"i{n + 1}") for n in range(20)]
    header = "item_id:token price:float words:token_seq vector:float_seq like:token"
    write(tmp_path / "d", "item", header, items)
    write(tmp_path / "d", "vec", "vid:token values:float_seq", [(f"i{n}", f"{n} 2") for n in range(9)])
    return tmp_path / "d"


def cached(folder: Path, **settings: object) -> LSTIDataset:
    settings = {"cache_dir": str(folder.parent / "cache"), "cache_max_gib": 1.0, **settings}
    vectors = {"additional_feat_suffix": ["vec"], "preload_weight": {"vid": "values"}}
    return LSTIDataset(make_config(folder, alias_of_item_id=["like", "vid"], **vectors, **settings))


def entries(folder: Path) -> list[Path]:
    return sorted((folder.parent / "cache").iterdir())


def cache_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.message.startswith("cache ")]


@pytest.mark.parametrize("chosen", [{"split": {"LS": "valid_and_test"}}, {"split": {"TS": [0.8, 0.1, 0.1]}}])
def test_first_and_second_start_give_what_no_cache_gives(folder: Path, chosen: dict) -> None:
    settings = {"eval_args": {**EVAL_ARGS, **chosen}, "normalize_field": ["price"], "session_gap": 20.0}
    for _ in range(2):
        without = cached(folder, cache_dir=None, **settings)
        ours = cached(folder, **settings)
        assert len(ours) == len(without) == 200
        assert ours.field2token_id == without.field2token_id
        assert ours.field2type == without.field2type
        assert ours.field2source == without.field2source
        assert ours.field2id_token["item_id"] is ours.field2id_token["like"]
        np.testing.assert_array_equal(ours.get_preload_weight("vid"), without.get_preload_weight("vid"))
        without_parts, parts = without.build(), ours.build()
        for part, other in zip(parts, without_parts, strict=True):
            for field in other.inter_feat:
                assert part.inter_feat[field].dtype == other.inter_feat[field].dtype
                np.testing.assert_array_equal(part.inter_feat[field], other.inter_feat[field], err_msg=field)
            for field in other.item_feat:
                np.testing.assert_array_equal(part.item_feat[field], other.item_feat[field], err_msg=field)


def test_a_second_start_reads_no_atomic_file_and_maps_the_columns(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(folder)
    monkeypatch.setattr("recbole_lsti.data.tables.read_table", None)
    dataset = cached(folder)
    dataset.build()
    time = dataset.inter_feat.events.time
    assert isinstance(time, np.memmap)
    assert dataset.inter_feat.events.columns["item_id"].numpy().base is not None
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert str(entries(folder)[0]) in mapped.read_text()


def test_entries_hold_no_pickle_and_changes_in_memory_do_not_reach_them(folder: Path) -> None:
    cached(folder)
    for file in entries(folder)[0].iterdir():
        content = file.read_bytes()
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever pickle says to what is no pickle
            pickle.loads(content)
        if file.suffix == ".npy":
            np.load(file, allow_pickle=False)
    dataset = cached(folder)
    dataset.inter_feat["item_id"].zero_()
    assert cached(folder).inter_feat["item_id"].min() > 0


def test_other_settings_have_entries_of_their_own_and_windows_share_one(folder: Path) -> None:
    cached(folder)
    assert len(cached(folder, MAX_ITEM_LIST_LENGTH=3)) == 200
    assert len(entries(folder)) == 1
    assert len(cached(folder, val_interval={"rating": "[3,5]"})) < 200
    assert len(entries(folder)) == 2


def test_every_setting_of_data_sets_is_in_the_key_or_has_no_part_in_the_tables() -> None:
    later = {
        "NEG_PREFIX", "ITEM_LIST_LENGTH_FIELD", "LIST_SUFFIX", "MAX_ITEM_LIST_LENGTH", "POSITION_FIELD", "RATING_FIELD",
        "unused_col",
    }  # fmt: skip
    graph = {
        "HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "ENTITY_ID_FIELD", "alias_of_entity_id",
        "alias_of_relation_id", "kg_reverse_r", "entity_kg_num_interval", "relation_kg_num_interval",
    }  # fmt: skip
    assert set(dataset_arguments) - set(snapshot.KEYS) == later | graph | {"benchmark_filename"}


def test_an_entry_that_cannot_be_marked_as_used_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(folder)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("recbole_lsti.data.cache.os.utime", refuse)
    monkeypatch.setattr("recbole_lsti.data.tables.read_table", None)
    assert len(cached(folder)) == 200


def test_changed_files_make_an_entry_stale(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    cached(folder)
    stat = (folder / "d.inter").stat()
    text = (folder / "d.inter").read_text()
    (folder / "d.inter").write_text(text.replace("u1\t", "u2\t", 1))
    os.utime(folder / "d.inter", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time: content decides
    with caplog.at_level(logging.WARNING):
        dataset = cached(folder)
    assert [line[-43:] for line in cache_lines(caplog)] == [" is stale (the files have changed): rebuilt"]
    assert len(entries(folder)) == 1
    table, _ = read_table(folder / "d.inter")
    assert dataset.user_counter[dataset.token2id("user_id", "u2")] == (table["user_id"] == "u2").sum()


def size_of(path: Path) -> int:
    return path.stat().st_size


def change_a_byte(path: Path, where: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated array": lambda entry: (entry / "0.npy").write_bytes((entry / "0.npy").read_bytes()[:-8]),
    "array overwritten": lambda entry: (entry / "1.npy").write_bytes(b"\0" * (entry / "1.npy").stat().st_size),
    "a byte changed": lambda entry: change_a_byte(entry / "0.npy", 0.5),
    "a byte changed at a third": lambda entry: change_a_byte(max(entry.glob("*.npy"), key=size_of), 1 / 3),
    "array missing": lambda entry: (entry / "2.npy").unlink(),
    "json changed": lambda entry: (entry / "tables.json").write_bytes((entry / "tables.json").read_bytes() + b" "),
    "digest missing": lambda entry: (entry / "tables.json.digest").unlink(),
    "nothing in it": lambda entry: [file.unlink() for file in entry.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_corrupt_entry_is_rebuilt_with_one_line(folder: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    cached(folder)
    DAMAGE[damage](entries(folder)[0])
    with caplog.at_level(logging.WARNING):
        assert len(cached(folder)) == 200
    (line,) = cache_lines(caplog)
    assert "is corrupt" in line
    assert line.endswith(": rebuilt")
    assert "\n" not in line
    caplog.clear()
    cached(folder)
    assert not cache_lines(caplog)


def test_a_folder_that_cannot_be_written_is_told_and_does_no_harm(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.parent / "cache").write_text("a file")
    with caplog.at_level(logging.WARNING):
        assert len(cached(folder).build()[0]) > 0
    assert "cannot be written" in caplog.text


def test_the_entries_used_least_recently_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_gib=2.5e6 / 2**30)
    for age, name in enumerate(["old", "used", "new"]):
        cache.save(name, Entry({}, {"a": np.zeros(1_000_000, dtype=np.int8)}))
        os.utime(tmp_path / name, (1000 + age, 1000 + age)) if name != "new" else None
        if name == "used":
            assert cache.load("old") is not None  # now `used` is the one used least recently
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_drafts_of_dead_runs_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    for name, age in ((".dead-7-00000000", 2 * 24 * 3600), (".alive-8-00000000", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.npy").write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    Cache(tmp_path, 1.0).save("entry", Entry({}, {}))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".alive-8-00000000", "entry"]


def test_what_else_lies_in_the_folder_stays(tmp_path: Path) -> None:
    for name in (".git", ".venv-1-00000000", "results", "tables"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config").write_text("mine")
        (tmp_path / name / "tables.json").write_text("{}")
        os.utime(tmp_path / name, (1000, 1000))
    (tmp_path / ".note-1-00000000").write_text("mine")
    cache = Cache(tmp_path, 0.0)
    for name in ("one", "two"):  # the second leaves no room for the first
        cache.save(name, Entry({}, {}))
    mine = [".git", ".note-1-00000000", ".venv-1-00000000", "results", "tables"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*mine, "two"]


def test_an_entry_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, array: np.ndarray, allow_pickle: bool) -> None:
        path.write_bytes(b"half")
        assert not (tmp_path / "entry").exists()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    Cache(tmp_path, 1.0).save("entry", Entry({}, {"a": np.zeros(3)}))
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys, numpy as np
from recbole_lsti.data.cache import Cache, Entry
cache = Cache(sys.argv[1], 1.0)
for turn in range(30):
    entry = cache.load("shared")
    if entry is None:
        cache.save("shared", Entry({"n": 7}, {"a": np.arange(50_000)}))
        entry = cache.load("shared")
    assert entry.plain == {"n": 7} and (entry.arrays["a"] == np.arange(50_000)).all()
print("torch" in sys.modules)
"""


def test_concurrent_runs_share_an_entry(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    runs = [subprocess.Popen(command, env=environment(), stdout=-1, stderr=-1, text=True) for _ in range(3)]
    for run in runs:
        output, errors = run.communicate(timeout=120)
        assert output.strip() == "False", errors
        assert not errors
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]


def test_the_name_depends_on_every_byte_and_every_setting(tmp_path: Path) -> None:
    file = tmp_path / "x.inter"
    names = set()
    for content, settings in (("a", {"k": 1}), ("b", {"k": 1}), ("a", {"k": 2}), ("a", {"k": [1]})):
        file.write_text(content)
        names.add(entry_name("x", settings, [file]))
    assert len(names) == 4


def test_the_cache_is_off_unless_asked_for_and_no_part_of_what_a_run_is_repeated_from(tmp_path: Path) -> None:
    assert LSTIConfig("LSTI", "ml-100k")["cache_dir"] is None
    config = LSTIConfig("LSTI", "ml-100k", config_dict={"cache_dir": str(tmp_path), "cache_max_gib": 2})
    assert "cache_dir" not in plain_config(config)
    with pytest.raises(ValueError, match="cache_max_gib"):
        LSTIConfig("LSTI", "ml-100k", config_dict={"cache_max_gib": 0})
    parse = build_parser().parse_known_args
    assert parse(["train", "--cache-dir", "c"])[0].cache_dir == "c"
    assert parse(["train", "--no-cache"])[0].no_cache
    with pytest.raises(SystemExit):
        parse(["train", "--no-cache", "--cache-dir", "c"])


@pytest.mark.parametrize(
    ("flags", "given"),
    [(["--cache-dir", "c"], "c"), (["--no-cache"], None), (["--no-cache", "--cache_dir=c"], None), ([], None)],
)
def test_the_flags_of_the_cache_reach_the_run(monkeypatch: pytest.MonkeyPatch, flags: list[str], given: Any) -> None:
    runs = []
    monkeypatch.setattr("recbole_lsti.runner.run", lambda **arguments: runs.append(arguments))
    assert main(["train", *flags]) == 0
    (run,) = runs
    assert LSTIConfig("LSTI", "ml-100k", config_dict=run["config_dict"])["cache_dir"] == given


def test_a_second_start_tells_again_what_was_filtered(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"val_interval": {"rating": "[3,5]"}}
    with caplog.at_level(logging.INFO):
        cached(folder, **settings)
        first = [line for line in caplog.messages if "filtered" in line]
        caplog.clear()
        cached(folder, **settings)
    assert first
    assert "tables from the cache" in caplog.text
    for line in first:
        assert line in caplog.text


def test_cached_parts_equal_recboles(folder: Path) -> None:
    from reference import recbole_dataset

    cached(folder)
    assert_same_parts(cached(folder), recbole_dataset(cached(folder).config))
