"""The results file, the tables made of it, and the figures it is held against."""

from __future__ import annotations

import json
import math
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from recbole_lsti.benchmark import results
from recbole_lsti.benchmark.energy import Reading, machine_tells, measured
from recbole_lsti.benchmark.expect import Expected, read_expected, regressions
from recbole_lsti.benchmark.page import figures
from recbole_lsti.benchmark.plot import without_overlap
from recbole_lsti.benchmark.process import run_process
from recbole_lsti.benchmark.tables import summarise, write_tables
from recbole_lsti.benchmark.view import View, duration


def line_of(variant: str, seed: int, unseen: float, **more: object) -> dict:
    metrics = {"ndcg@10": unseen, "hit@10": 2 * unseen}
    cost = dict.fromkeys(("train_seconds", "seconds_to_best", "peak_rss_mib", "latency_ms", "n_parameters"), 2.0)
    cost |= {"eval_users_per_second": 1.0, "epochs_run": 3, "best_epoch": 2, "energy_kwh": None}
    head = {"cell": f"{variant}-tiny-loo-{seed}", "variant": variant, "model": variant, "dataset": "tiny"}
    found = {"valid": metrics, "raw": metrics, "unseen": metrics, "user_metrics": [], "cost": cost}
    return {**head, "split": "loo", "seed": seed, "status": "ok", "reason": None, **found, **more}


def test_lines_are_appended_and_the_last_of_a_cell_counts(tmp_path):
    results.append(tmp_path, line_of("A", 1, 0.1))
    results.append(tmp_path, line_of("B", 1, float("nan")))
    results.append(tmp_path, line_of("A", 1, 0.3))
    lines = results.read_results(tmp_path).lines
    assert lines["A-tiny-loo-1"]["unseen"]["ndcg@10"] == 0.3
    assert lines["B-tiny-loo-1"]["unseen"]["ndcg@10"] is None, "NaN is null"
    assert "NaN" not in (tmp_path / "results.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("broken", ['{"cell": "x"', "[1, 2]", '{"cell": 3, "status": "ok"}', '{"cell": "x"}', "\udcff"])
def test_broken_lines_are_counted_and_set_aside(tmp_path, broken):
    results.append(tmp_path, line_of("A", 1, 0.1))
    with open(tmp_path / "results.jsonl", "ab") as file:
        file.write(broken.encode("utf-8", errors="surrogateescape") + b"\n\n")
    results.append(tmp_path, line_of("B", 1, 0.2))
    found = results.read_results(tmp_path)
    assert (len(found.lines), len(found.broken)) == (2, 1)
    assert results.set_broken_aside(tmp_path) == 1
    assert results.read_results(tmp_path) == results.Results(found.lines, [])
    assert (tmp_path / "results.broken.jsonl").read_text(encoding="utf-8").count("\n") == 1
    assert results.set_broken_aside(tmp_path) == 0
    with pytest.raises(FileNotFoundError, match=r"must be a folder that holds results\.jsonl"):
        results.read_results(tmp_path / "nothere")


def test_a_line_without_its_end_takes_no_other_with_it(tmp_path):
    results.append(tmp_path, line_of("A", 1, 0.1))
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    results.append(tmp_path, line_of("B", 1, 0.2, reason="one\u2028line"))
    found = results.read_results(tmp_path)
    assert list(found.lines) == ["A-tiny-loo-1", "B-tiny-loo-1"]
    assert found.broken == []


def test_setting_broken_lines_aside_keeps_what_came_before_a_second_try(tmp_path):
    for value in (0.1, 0.2):
        results.append(tmp_path, line_of("A", 1, value))
    with open(tmp_path / "results.jsonl", "a", encoding="utf-8") as file:
        file.write('{"cell": "A')
    assert results.set_broken_aside(tmp_path) == 1
    assert (tmp_path / "results.jsonl").read_text(encoding="utf-8").count("\n") == 2


def test_settings_that_were_found_are_results_too(plan_of, tmp_path):
    plan = plan_of(["LSTI"], budget={"epochs": 1, "trials": 1}, space={"n_heads": [2, 4]})
    cells = plan.cells()
    results.open_folder(tmp_path, plan, cells, False)
    path = tmp_path / "fingerprint.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["settings"]["LSTI-tiny-loo"]["short_window"] = 7
    path.write_text(json.dumps(content), encoding="utf-8")
    found = tmp_path / "tuning/LSTI-tiny-loo/result.json"
    found.parent.mkdir(parents=True)
    found.write_text('{"status": "ok"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"short_window was 7, is \d+ in LSTI-tiny-loo"):
        results.open_folder(tmp_path, plan, cells, True)
    found.unlink()
    assert results.open_folder(tmp_path, plan, cells, True) == ({}, [])


def test_differences_of_fingerprints_are_told_in_words():
    before = {"plan": {"seeds": [1], "budget": {"epochs": 1}}, "data": {"d": {"d.inter": "a", "d.item": "b"}}}
    now = {"plan": {"seeds": [1, 2], "budget": {}}, "data": {"d": {"d.inter": "c", "d.user": "b"}}}
    assert list(results.differences(before, now)) == [
        *("plan.seeds was [1], is [1, 2]", "plan.budget.epochs was 1, is None"),
        *("d.inter has changed", "d.item is gone", "d.user is new"),
    ]
    assert list(results.differences(before, json.loads(json.dumps(before)))) == []


def test_a_foreign_folder_is_refused(plan_of, tmp_path):
    folder, plan = tmp_path / "out", plan_of(["Markov"])
    folder.mkdir()
    (folder / "results.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"it has results\.jsonl, but no fingerprint\.json"):
        results.open_folder(folder, plan, plan.cells(), resume=True)
    (folder / "fingerprint.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="must be JSON"):
        results.open_folder(folder, plan, plan.cells(), resume=True)


def test_one_run_at_a_time_holds_a_folder(tmp_path):
    pytest.importorskip("fcntl")
    folder = tmp_path / "new" / "out"
    with (
        results.held(folder),
        pytest.raises(BlockingIOError, match=r"must be free: another run is writing to it"),
        results.held(folder),
    ):
        pass
    with results.held(folder):
        assert list(folder.iterdir()) == []


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_the_board_has_means_intervals_and_an_order(plan_of, tmp_path):
    plan = plan_of(["LSTI", "GRU4Rec"], controls=["Markov"], seeds=[1, 2])
    lines = [line_of("GRU4Rec", seed, 0.2) for seed in (1, 2)] + [line_of("Markov", seed, 0.3) for seed in (1, 2)]
    lines += [line_of("LSTI", 1, 0.4), line_of("LSTI", 2, 0.5)]
    random = np.random.default_rng(0)
    for line in lines[-2:]:
        place = tmp_path / "cells" / line["cell"]
        place.mkdir(parents=True)
        line["user_metrics"] = ["ndcg@10"]
        values = random.random((200, 1))
        for name, array in (("users", np.arange(200).astype(str)), ("targets", np.zeros(200, str))):
            np.save(place / f"{name}.npy", array)
        for name in ("raw", "unseen"):
            np.save(place / f"{name}.npy", values)
    rows = summarise(plan, lines, tmp_path)
    lsti = next(row for row in rows if row["variant"] == "LSTI")
    assert lsti["unseen:ndcg@10_mean"] == pytest.approx(0.45)
    assert lsti["unseen:ndcg@10_sd"] == pytest.approx(math.sqrt(0.005))
    width = lsti["unseen:ndcg@10_high"] - lsti["unseen:ndcg@10_low"]
    # the mean of two uniform values of each of 200 users
    assert width == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 2 / 200), rel=0.15)
    write_tables(plan, rows, tmp_path)
    board = (tmp_path / "table.md").read_text(encoding="utf-8")
    order = [line.split("|")[1].strip() for line in board.splitlines() if line.startswith("| ")][1:]
    assert order == ["LSTI", "Markov (control)", "GRU4Rec"]
    assert "By the mean, Markov, which trains nothing, is ahead of GRU4Rec.\n" in board
    assert "0.4500 ± 0.0707 [" in board
    assert "kWh" not in board, "a cost that was never measured has no column"
    tex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert r"0.4500 $\pm$ 0.0707" in tex
    assert tex.count(" & ") % tex.count(r" \\") == 0


def test_a_mean_is_not_made_of_what_is_missing(plan_of, tmp_path):
    lines = [line_of("LSTI", 1, 0.4), line_of("LSTI", 2, 0.0)]
    lines[1]["unseen"] = {"ndcg@10": None, "hit@10": 0.5}
    (row,) = summarise(plan_of(["LSTI"]), lines, tmp_path)
    assert row["unseen:ndcg@10_mean"] is None
    assert row["unseen:hit@10_mean"] == pytest.approx(0.65)


# ---- expected figures -----------------------------------------------------------------------------------------------


def figure(direction: str, value: float, tolerance: float = 0.01, metric: str = "unseen.ndcg@10") -> Expected:
    return Expected("LSTI", "tiny", "loo", metric, value, tolerance, direction)


@pytest.mark.parametrize(
    ("direction", "value", "missed"),
    [
        *(("higher", 0.40, False), ("higher", 0.30, False), ("higher", 0.42, True)),
        *(("lower", 0.40, False), ("lower", 0.50, False), ("lower", 0.38, True)),
        *(("both", 0.405, False), ("both", 0.38, True), ("both", 0.42, True)),
    ],
)
def test_a_figure_is_held_in_its_direction(direction, value, missed):
    lines = [line_of("LSTI", 1, 0.3), line_of("LSTI", 2, 0.5)]
    assert bool(regressions([figure(direction, value)], lines)) == missed


def test_seeds_of_one_value_are_no_regression(plan_of, tmp_path):
    lines = [line_of("Markov", seed, 0.1111) for seed in (1, 2, 3)]  # their mean is off by what rounding leaves
    plan = plan_of(["Markov"], seeds=3)
    expected = [Expected(**figure) for figure in figures(plan, summarise(plan, lines, tmp_path))]
    assert len(expected) == 2
    assert regressions(expected, lines) == []


def test_what_is_missing_or_no_number_is_a_regression():
    lines = [line_of("LSTI", 1, 0.3), line_of("LSTI", 2, float("nan"))]
    assert "no figure of 1 of 2 cells" in regressions([figure("higher", 0.0)], lines)[0]
    assert "no such cell" in regressions([figure("higher", 0.0)], [])[0]
    failed = {**line_of("LSTI", 1, 0.3), "status": "failed", "unseen": None}
    assert len(regressions([figure("higher", 0.0)], [failed])) == 1
    assert regressions([figure("lower", 5, metric="cost.train_seconds")], lines[:1]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("figures: []", "must hold one list, `expect:`"),
        ("expect: [1]", r"figure \(1\) must be a dict"),
        ("expect: [{variant: A, dataset: d, metric: unseen.x, value: 1}]", "tolerance must stand in every figure"),
        ("expect: [{varient: A}]", r"key \(varient\) must be one of .*did you mean variant\?"),
        ("expect: [{variant: A, dataset: d, metric: x, value: 1, tolerance: 1}]", r"metric \(x\) must be unseen, raw"),
        (
            "expect: [{variant: A, dataset: d, metric: raw.x, value: 1, tolerance: 1, direction: up}]",
            "direction .up. must be one of",
        ),
        ("expect: [{variant: A, dataset: d, metric: raw.x, value: .nan, tolerance: 1}]", "must be a number"),
        ("expect: [{variant: A, dataset: d, metric: raw.x, value: 1, tolerance: -1}]", "must be 0 or more"),
    ],
)
def test_a_bad_file_of_figures_is_refused(tmp_path, text, message):
    (tmp_path / "e.yaml").write_text(text, encoding="utf-8")
    with pytest.raises((ValueError, TypeError), match=message):
        read_expected(tmp_path / "e.yaml")


def test_a_regression_is_status_1(place, in_process, capsys):
    from recbole_lsti.cli import main

    flags = ["benchmark", "--models", "Markov", "--datasets", "tiny", "--no-controls", "--output", "out"]
    entry = "{variant: Markov, dataset: tiny, metric: unseen.ndcg@10, value: %s, tolerance: 0.0001, direction: higher}"
    for value, status in ((0.0, 0), (0.99, 1)):
        Path("e.yaml").write_text(f"expect: [{entry % value}]\n", encoding="utf-8")
        assert main([*flags, "--resume", "--expect", "e.yaml"]) == status
    assert "regression: Markov on tiny, loo: unseen.ndcg@10 (" in capsys.readouterr().err


# ---- small parts ----------------------------------------------------------------------------------------------------


def test_the_time_left_comes_from_what_cells_took():
    now = [0.0]
    view = View(["a-1", "b-1", "a-2", "b-2"], already=0, jobs=1, clock=lambda: now[0])
    assert view.seconds_left() is None
    for cell, took in (("a-1", 10), ("b-1", 100)):
        view.started(cell)
        now[0] += took
        view.ended(line_of("x", 1, 0.1, cell=cell))
    assert view.seconds_left() == 110
    view.started("a-2")
    now[0] += 4
    assert view.seconds_left() == 106
    assert [duration(s) for s in (4, 200, 7500)] == ["4 s", "3 min 20 s", "2 h 5 min"]


def test_the_live_table_shows_what_runs_and_what_is_done():
    from rich.console import Console

    view = View(["a-1", "b-1"], already=3, jobs=1, clock=lambda: 5.0)
    view.started("a-1")
    view.ended(line_of("x", 1, 0.25, cell="a-1"))
    view.started("b-1")
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(view.table())
    text = console.export_text()
    assert "4 of 5 cells" in text
    assert "ndcg@10 0.2500" in text
    assert "b-1" in text
    assert "runs" in text


def test_a_process_that_dies_without_a_word_is_told(place):
    line = run_process({"cell": "x", "model": "LSTI", "dataset": "tiny"}, {}, Path("x"), flags=("--nothing",))
    assert line["status"] == "failed"
    assert line["reason"].startswith("the process ended with status 2: ")
    assert "unrecognized arguments: --nothing" in line["reason"]


# ---- energy ---------------------------------------------------------------------------------------------------------


def test_a_machine_tells_where_a_counter_can_be_read(tmp_path):
    assert not machine_tells(str(tmp_path))
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0/energy_uj").write_text("1")
    assert machine_tells(str(tmp_path))


def test_energy_is_what_was_counted_without_what_is_guessed(meter):
    with measured() as reading:
        assert meter.running == 1
        assert reading == Reading()
    assert reading == Reading(kwh=0.003)
    assert meter.running == 0
    (arguments,) = meter.made
    assert arguments["output_methods"] == arguments["output_handlers"] == []
    assert arguments["emissions_endpoint"] is None
    with pytest.raises(KeyError), measured():
        raise KeyError
    assert meter.running == 0, "it is stopped where what it measures fails"


def test_without_a_counter_there_is_no_guess(meter, monkeypatch):
    monkeypatch.setattr(sys.modules["codecarbon.core.cpu"], "is_rapl_available", lambda: False)
    with measured() as reading:
        pass
    monkeypatch.setattr("recbole_lsti.benchmark.energy.machine_tells", lambda: False)
    with measured() as other:
        pass
    assert reading == other == Reading()
    assert meter.made == []


def test_a_fault_of_the_meter_is_told_and_ends_nothing(meter, monkeypatch):
    monkeypatch.setattr(meter, "starts", False)
    with measured() as reading:
        done = True
    assert done
    assert reading == Reading(fault="RuntimeError: codecarbon must have measured: it could not start")
    monkeypatch.setattr(meter, "start", lambda self: 1 / 0)
    with measured() as reading:
        pass
    assert reading == Reading(fault="ZeroDivisionError: division by zero")


def test_codecarbon_itself_counts_and_writes_and_says_nothing(tmp_path, monkeypatch, capfd):
    """One Wh passes on a counter of our own; user settings that would send and write it elsewhere count for nothing."""
    pytest.importorskip("codecarbon")
    from codecarbon.core import cpu
    from codecarbon.external import hardware

    counter = tmp_path / "rapl/intel-rapl/intel-rapl:0"
    counter.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "5000"), ("max_energy_range_uj", "262143328850")):
        (counter / name).write_text(text, encoding="utf-8")
    base = str(counter.parent)
    rapl, found = hardware.IntelRAPL, cpu.is_rapl_available
    monkeypatch.setattr(cpu, "is_rapl_available", lambda: found(base))
    monkeypatch.setattr(hardware, "IntelRAPL", lambda **more: rapl(**{**more, "rapl_dir": base}))
    monkeypatch.setattr("recbole_lsti.benchmark.energy.machine_tells", lambda: True)
    for name, value in (("OUTPUT_METHODS", "csv,api"), ("EMISSIONS_ENDPOINT", "http://localhost:1"), ("PUE", "7")):
        monkeypatch.setenv(f"CODECARBON_{name}", value)
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("it asked the network"))
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with measured() as reading:
        time.sleep(0.1)  # it reads no counter twice within a twentieth of a second
        (counter / "energy_uj").write_text(str(5000 + 3_600_000_000), encoding="utf-8")
    assert reading.fault is None
    assert reading.kwh == pytest.approx(0.001, rel=1e-3)
    assert list(empty.iterdir()) == []
    assert "".join(capfd.readouterr()) == ""


def test_names_beside_the_picture_neither_overlap_nor_leave_it():
    places = without_overlap([0.1, 0.3, 0.90, 0.91, 0.92, 0.93], 0.05)
    assert places == pytest.approx([0.1, 0.3, 0.85, 0.90, 0.95, 1.0]), "only the crowd at the top has moved"
    assert without_overlap([0.0] * 21, 0.05) == pytest.approx([n * 0.05 for n in range(21)])
