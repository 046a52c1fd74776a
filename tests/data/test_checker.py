"""check-data: every kind of mistake with its line, the statistics by hand, and the damage of a float32 sort."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import environment
from reference import fails, make_config, recbole_dataset, write

from recbole_lsti.cli import main
from recbole_lsti.data.checker import Columns, Report, check, format_report
from recbole_lsti.data.folder import find_folder
from recbole_lsti.data.profile import float32_damage, profile

INTER = "user_id:token item_id:token timestamp:float"


def inter(folder: Path, content: str | bytes) -> Path:
    folder.mkdir(exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    (folder / f"{folder.name}.inter").write_bytes(data)
    return folder


HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"
ERRORS = {
    "empty": ("", "line 1: the file is empty"),
    "header only": (HEADER, "line 2: there must be at least one row"),
    "no type": ("user_id\titem_id:token\n1\t2\n", "line 1: column (user_id) must be name:type"),
    "unknown type": (HEADER.replace("float", "int") + "1\t2\t3\n", "line 1: type (int) of timestamp"),
    "ragged": (HEADER + "1\t2\t3\n1\t2\n", "line 3: columns (2)"),
    "encoding": (HEADER.encode() + b"1\t\xff\t3\n", "line 2: byte 0xff"),
    "infinite": (HEADER + "1\t2\t3\n1\t3\t-inf\n", "line 3: timestamp (-inf) must be a finite number"),
    "word": (HEADER + "1\t2\tx\n", "line 2: timestamp (x) must be a number"),
    "no item": ("user_id:token\ttimestamp:float\n1\t2\n", "line 1: column item_id must be there"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_each_error_names_file_line_and_rule(tmp_path: Path, case: str, capsys: pytest.CaptureFixture) -> None:
    content, words = ERRORS[case]
    folder = inter(tmp_path / "bad", content)
    (error,) = check(folder).errors
    assert error.startswith(f"{folder / 'bad.inter'}, {words}")
    assert main(["check-data", "bad", "--data_path", str(tmp_path)]) == 1
    assert words in capsys.readouterr().out


def test_users_of_one_row_each_are_an_error_and_one_user_of_two_is_none(tmp_path: Path) -> None:
    rows = "".join(f"{user}\t{user + 5}\t{user}\n" for user in range(4))
    (error,) = check(inter(tmp_path / "lonely", HEADER + rows)).errors
    path = tmp_path / "lonely" / "lonely.inter"
    assert error == f"{path}: there must be a user with two events or more to train on"
    assert not check(inter(tmp_path / "enough", HEADER + rows + "3\t1\t9\n")).errors


def test_every_ragged_line_is_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    rows = ["1\t2\t3"] * 10 + ["1\t2", "1\t2\t3\t4"] * 4
    for name, extra in (("plain", ""), ("quoted", '"1"\t2\t3\n')):
        errors = check(inter(tmp_path / name, HEADER + "\n".join(rows) + "\n" + extra)).errors
        assert [line.partition(", line ")[2].partition(":")[0] for line in errors[:5]] == ["12", "13", "14", "15", "16"]
        assert "columns (2)" in errors[0]
        assert "columns (4)" in errors[1]
        assert "3 more lines" in errors[5]


def test_what_is_odd_but_works_is_noted(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    text = HEADER + "u1\ta\t5\nu1\ta\t5\n\tb\t-3\nu2\tb\t\nu2\tc\t9000000000000\nu2\tc\t9000000000000\nu1\tc\t9e12\n"
    inter(folder, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    write(folder, "item", "item_id:token price:float", [("a", 1), ("b", ""), ("a", 3), ("z", 4)])
    report = check(folder)
    assert not report.errors
    notes = "\n".join(report.notes)
    for words in (
        "byte order mark",
        "CRLF",
        "1 missing values of user_id (first in line 4): RecBole drops the row",
        "1 missing values of timestamp (first in line 5)",
        "1 missing values of price (first in line 3)",
        "1 times are before 1970",
        "must be in seconds",
        "1 rows are earlier than the row above",
        "2 rows repeat user, item and time",
        "odd.item: 1 rows repeat a item_id (first in line 4: a)",
        "1 of 3 items have no row in the .item file",
        "1 of 3 items of the .item file have no interactions",
    ):
        assert words in notes, words


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_notes_name_lines_below_quoted_ones(tmp_path: Path, end: str) -> None:
    folder = inter(tmp_path / "odd", (HEADER + '"u\n1"\ta\t5\nu1\ta\t6\n\ta\t7\n').replace("\n", end))
    (folder / "odd.item").write_text('item_id:token;name:token\na;"x\ny"\nb;z\na;z\n'.replace("\n", end))
    notes = "\n".join(check(folder).notes)
    assert "1 missing values of user_id (first in line 5)" in notes
    notes = "\n".join(check(folder, Columns(separator=";")).notes)
    assert "odd.item: 1 rows repeat a item_id (first in line 5: a)" in notes


def test_statistics_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    rows = [("u", "a", 0), ("u", "b", 10), ("u", "a", 5000), ("v", "a", 7), ("v", "a", 7)]
    write(folder, "inter", INTER, rows)
    numbers = check(folder, session_gap=1800).numbers
    assert (numbers["users"], numbers["items"], numbers["rows"]) == (2, 2, 5)
    assert numbers["density"] == 5 / 4
    assert numbers["repeat_share"] == pytest.approx(2 / 5)
    assert numbers["length"] == pytest.approx(np.quantile([3, 2], [0, 0.25, 0.5, 0.75, 0.9, 0.99, 1]).tolist())
    assert numbers["gap"][0] == 0
    assert numbers["gap"][-1] == 4990
    assert numbers["sessions"] == 3
    assert numbers["rows_per_session"] == pytest.approx(5 / 3)
    assert check(folder, session_gap=5).numbers["sessions"] == 4
    assert "gap" not in profile(np.array([0, 0]), np.array([0, 1]), None, 10)


def test_damage_is_what_recboles_sort_does(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    times = 1_400_000_000 + random.permutation(3000)  # float32 knows every 128th of these seconds
    rows = [(f"u{random.integers(20)}", f"i{n}", time) for n, time in enumerate(times)]
    folder = tmp_path / "order"
    write(folder, "inter", INTER, rows)
    damage = check(folder).damage
    assert damage is not None
    theirs = recbole_dataset(make_config(folder))
    *_, test = theirs.build()
    last = {}
    for user, item, _ in sorted(rows, key=lambda row: row[2]):
        last[user] = item
    users = theirs.id2token("user_id", test.inter_feat["user_id"].numpy())
    items = theirs.id2token("item_id", test.inter_feat["item_id"].numpy())
    assert damage.tests_changed == sum(last[user] != item for user, item in zip(users, items, strict=True)) > 0
    assert 0 < damage.rows_moved < 3000
    exact = float32_damage(np.zeros(3, int), np.arange(3), np.array([3, 1, 2]))
    assert (exact.rows_moved, exact.tests_changed) == (0, 0)


def test_a_data_set_that_is_split_already_and_other_names_are_checked(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    for part, rows in (("train", [("u", "a", 1)]), ("test", [("u", "b", 2)])):
        write(folder, f"{part}.inter", "uid:token iid:token t:float", rows)
    report = check(folder, Columns("uid", "iid", "t"))
    assert not report.errors
    assert report.numbers["rows"] == 2
    assert "column user_id must be there" in "\n".join(check(folder).errors)
    assert "file must exist" in "\n".join(check(tmp_path).errors)


PLAIN = HEADER[:-1] + "\tnear:float_seq\nu\ta\t0\t1 2\nu\tb\t10\t3\nu\ta\t5000\t4 5\n"


@pytest.mark.parametrize(
    ("flag", "value", "text", "sessions"),
    [
        ("--user_id_field", "uid", PLAIN.replace("user_id", "uid"), 2),
        ("--item_id_field", "iid", PLAIN.replace("item_id", "iid"), 2),
        ("--time_field", "at", PLAIN.replace("timestamp", "at"), 2),
        ("--field_separator", ",", PLAIN.replace("\t", ","), 2),
        ("--seq_separator", "|", PLAIN.replace("1 2", "1|2").replace("4 5", "4|5"), 2),
        ("--session_gap", "5", PLAIN, 3),
    ],
)
def test_each_flag_is_needed_to_count_the_sessions(
    tmp_path: Path, capsys: pytest.CaptureFixture, flag: str, value: str, text: str, sessions: int
) -> None:
    inter(tmp_path / "own", text)

    def counted(*flags: str) -> int | None:
        main(["check-data", "own", "--data_path", str(tmp_path), *flags])
        found = re.search(r"^ *sessions +(\d+) ", capsys.readouterr().out, flags=re.MULTILINE)
        return int(found[1]) if found else None

    assert counted(flag, value) == sessions
    assert counted() != sessions


def test_without_time_what_needs_it_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "t", "inter", "user_id:token item_id:token", [("u", "a")])
    report = check(tmp_path / "t")
    assert report.damage is None
    assert "sessions" not in report.numbers
    assert "no time" in report.notes[0]
    assert "float32" not in format_report("t", report)


def test_the_folder_is_found_or_missed_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "ml-100k").mkdir()  # RecBole reads ml-100k from its own package all the same
    assert (find_folder("ml-100k", tmp_path) / "ml-100k.inter").is_file()
    with fails(FileNotFoundError, "dataset (nothing) must be a folder in data_path"):
        find_folder("nothing", tmp_path)
    assert main(["check-data", "nothing", "--data_path", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_ml_100k_gives_the_known_damage(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check-data", "ml-100k", "--data_path", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for words in ("46.6% of the rows", "15.8% of the users", "1,682", "6.3047%", "0 errors, 1 notes"):
        assert words in out


def test_the_verdict_counts_errors_and_notes() -> None:
    assert format_report("x", Report(errors=["e"], notes=["n", "m"])).endswith("1 errors, 2 notes")


def test_checking_loads_neither_torch_nor_recbole(tmp_path: Path) -> None:
    write(tmp_path / "d", "inter", INTER, [("u", "a", 1), ("u", "b", 2)])
    script = (
        "import sys\nfrom recbole_lsti.cli import main\n"
        f"code = main(['check-data', 'd', '--data_path', {str(tmp_path)!r}])\n"
        "print(code, {'torch', 'recbole'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "0 set()"


@pytest.mark.slow
def test_a_million_rows_are_checked_in_ten_seconds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    columns = [random.integers(most, size=10**6).tolist() for most in (10_000, 50_000, 10**8)]
    text = "".join(f"{user}\t{item}\t{moment}\n" for user, item, moment in zip(*columns, strict=True))
    folder = inter(tmp_path / "big", HEADER + text)
    started = time.process_time()  # whatever else the machine does
    assert not check(folder).errors
    assert time.process_time() - started < 10
