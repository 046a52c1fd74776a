"""Going on with a results folder: after a kill, after a change, and with lines that were not written to their end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import random_rows, write_inter
from helpers import children_running, wait_for

from benchmark.conftest import SETTINGS, write_plan
from recbole_lsti.benchmark import execute, process, results
from recbole_lsti.benchmark.models import known_settings, needs
from recbole_lsti.benchmark.process import run_process
from recbole_lsti.benchmark.results import read_results
from recbole_lsti.cli import main
from recbole_lsti.config import properties_folder
from recbole_lsti.process import Ended
from recbole_lsti.trainer import PortableTrainer

# trains until it is killed; a resume, in the test's own process, ends it by `time_is_over`
SLOW = {"slow": {"model": "GRU4Rec", "epochs": 1_000_000, "stopping_step": 1_000_000, "train_seconds_limit": 10_000}}


@pytest.fixture
def time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of the test's own process have reached any limit of seconds with their first epoch."""
    monkeypatch.setattr(PortableTrainer, "_elapsed", lambda _: 10_000.0)


def test_a_killed_cell_is_one_failure_and_a_resume_tries_it_again(place, request, time_is_over):
    write_plan([SLOW, "GRU4Rec"], budget={}, settings={**SETTINGS, "epochs": 1})
    curve = Path("out/cells/slow-tiny-loo-2020/learning_curve.csv")

    def kill_the_first() -> None:
        wait_for(curve.exists)
        (child,) = children_running("recbole_lsti.benchmark.cell")
        child.kill()

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    assert main(["benchmark", "plan.yaml", "--output", "out"]) == 1
    killer.join()
    lines = read_results("out").lines
    assert lines["slow-tiny-loo-2020"]["status"] == "failed"
    assert "signal SIGKILL" in lines["slow-tiny-loo-2020"]["reason"]
    assert "killed" not in lines["slow-tiny-loo-2020"]
    assert lines["GRU4Rec-tiny-loo-2020"]["status"] == "ok", "the rest goes on"
    assert curve.exists(), "what it had written is kept"
    request.getfixturevalue("in_process")
    assert main(["benchmark", "plan.yaml", "--output", "out", "--resume"]) == 0
    text = Path("out/results.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["cell"] for line in text].count("GRU4Rec-tiny-loo-2020") == 1, "what is done stays"
    assert read_results("out").lines["slow-tiny-loo-2020"]["status"] == "ok"


def test_a_killed_benchmark_takes_its_cells_along_and_is_resumed(place, in_process, time_is_over):
    write_plan(["GRU4Rec", SLOW, "NARM"], budget={}, settings={**SETTINGS, "epochs": 1})
    command = [sys.executable, "-m", "recbole_lsti.cli", "benchmark", "plan.yaml", "--output", "out"]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(Path("out/cells/slow-tiny-loo-2020/learning_curve.csv").exists)
    children = psutil.Process(run.pid).children(recursive=True)
    assert children
    os.kill(run.pid, signal.SIGKILL)
    run.wait(30)
    wait_for(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), 10)
    assert list(read_results("out").lines) == ["GRU4Rec-tiny-loo-2020"]
    before = Path("out/cells/GRU4Rec-tiny-loo-2020/result.json").stat().st_mtime_ns
    with open("out/results.jsonl", "a", encoding="utf-8") as file:
        file.write('{"cell": "slow-tiny-loo-2020", "stat')  # as a kill in the middle of writing leaves it
    assert main(["benchmark", "--resume", "--output", "out"]) == 0, "the folder knows its plan"
    lines = read_results("out").lines
    assert {name: line["status"] for name, line in lines.items()} == {
        f"{variant}-tiny-loo-2020": "ok" for variant in ("GRU4Rec", "slow", "NARM")
    }
    assert Path("out/cells/GRU4Rec-tiny-loo-2020/result.json").stat().st_mtime_ns == before
    assert Path("out/results.broken.jsonl").read_text(encoding="utf-8").splitlines() == [
        '{"cell": "slow-tiny-loo-2020", "stat'
    ]
    assert len(json.loads(Path("out/environment.json").read_text(encoding="utf-8"))["earlier"]) == 1


@pytest.mark.parametrize(("retries", "tries"), [(0, 1), (1, 2), (5, 3)])
def test_a_killed_cell_is_tried_again_as_often_as_asked(place, plan_of, monkeypatch, retries, tries):
    made = []

    def third_time_lucky(head: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        made.append(head["cell"])
        return {**head, "status": "failed", "reason": "signal SIGKILL", "killed": True} if len(made) < 3 else head

    monkeypatch.setattr(execute, "run_process", third_time_lucky)
    (cell,) = plan_of(["GRU4Rec"]).cells()
    (line,) = execute.run_here([cell], Path("out"), None, execute.Options(retries=retries), lambda _: None)
    assert made == [cell.id] * tries
    assert line.get("killed", False) == (retries < 2)


# ---- after a change --------------------------------------------------------------------------------------------------


RESUME = ["benchmark", "plan.yaml", "--output", "out", "--resume"]


@pytest.fixture
def done(place, in_process, capsys) -> Path:
    write_plan(["Markov"], settings={"MAX_ITEM_LIST_LENGTH": 20, "use_gpu": False})
    assert main(["benchmark", "plan.yaml", "--output", "out"]) == 0
    capsys.readouterr()
    return Path("out")


def test_a_folder_with_results_is_not_run_into_again(done, capsys):
    before = (done / "results.jsonl").read_bytes()
    assert main(["benchmark", "plan.yaml", "--output", "out"]) == 2
    assert "output (out) must be a new folder: it holds results; --resume goes on" in capsys.readouterr().err
    assert main(["benchmark", "plan.yaml", "--output", "out", "--resume"]) == 0
    assert (done / "results.jsonl").read_bytes() == before


def test_a_changed_plan_or_data_set_is_told(done, capsys):
    before = (done / "results.jsonl").read_bytes()
    flags = ["benchmark", "plan.yaml", "--output", "out", "--resume"]
    assert main([*flags, "--epochs", "3", "--set", "MAX_ITEM_LIST_LENGTH=16"]) == 2
    error = capsys.readouterr().err
    assert "must be of the same plan and data: plan.budget.epochs was 1, is 3" in error
    assert "plan.settings.MAX_ITEM_LIST_LENGTH was 20, is 16" in error
    assert error.count("\n") == 1
    write_inter(Path("dataset"), "tiny", random_rows(n_users=25, shortest=5, longest=15, seed=9))
    assert main(flags) == 2
    assert "tiny.inter has changed" in capsys.readouterr().err
    assert (done / "results.jsonl").read_bytes() == before


def test_a_plan_may_grow(done, capsys):
    before = read_results(done).lines
    settings = {"MAX_ITEM_LIST_LENGTH": 20, "use_gpu": False}
    short = {"Markov-short": {"model": "Markov", "MAX_ITEM_LIST_LENGTH": 5}}
    write_inter(Path("dataset"), "more", random_rows(n_users=20, shortest=5, longest=15, seed=3))
    grown = {"datasets": ["tiny", "more"], "seeds": 2, "split": ["loo", "time"]}
    write_plan([short, "Markov"], settings=settings, controls=["Popularity"], **grown)
    assert main(RESUME) == 0
    error = capsys.readouterr().err
    assert "[2/24] Markov-short-tiny-loo-2020" in error
    assert "goes on although" not in error
    lines = read_results(done).lines
    assert len(lines) == 24
    assert {name: lines[name] for name in before} == before, "what is done stays"
    assert "Markov-short" in (done / "report.md").read_text(encoding="utf-8")


def test_flags_may_grow_the_plan_of_a_folder(done, capsys):
    assert main(["benchmark", "--output", "out", "--resume", "--seeds", "2", "--jobs", "2"]) == 0
    assert capsys.readouterr().err.startswith("[2/2] Markov-tiny-loo-2021")
    page = (done / "report.md").read_text(encoding="utf-8")
    assert "Its runs, the first one first, differ in jobs 1, 2" in page
    assert main(["benchmark", "--output", "out", "--resume", "--models", "Markov,Popularity"]) == 0
    assert len(read_results(done).lines) == 4, "budget and settings are the folder's"


def test_a_cell_that_was_skipped_is_looked_at_again(done, capsys, monkeypatch):
    def without_rain(*arguments: Any) -> Any:
        return needs(*arguments)._replace(reason="needs rain")

    grown = [*RESUME, "--models", "Markov,Popularity"]
    with monkeypatch.context() as patch:
        patch.setattr("recbole_lsti.benchmark.plan.needs", without_rain)
        assert main(grown) == 2
        assert "Markov-tiny-loo-2020 had results, now needs rain" in capsys.readouterr().err
        (done / "results.jsonl").write_text("", encoding="utf-8")
        assert main(grown) == main(grown) == 0
        assert [line["reason"] for line in read_results(done).lines.values()] == 2 * ["needs rain"]
        assert (done / "results.jsonl").read_text(encoding="utf-8").count("needs rain") == 2, "said once a cell"
    assert main(grown) == 0
    assert [line["status"] for line in read_results(done).lines.values()] == 2 * ["ok"]


@pytest.mark.parametrize(
    ("stopped", "settings", "kept"), [(True, {}, True), (False, {}, False), (True, {"a": 1}, False)]
)
def test_the_study_of_a_stopped_search_stays_for_the_same_search(tmp_path, monkeypatch, stopped, settings, kept):
    monkeypatch.setattr(process, "run_module", lambda *_: Ended("stopped"))
    search = {"space": {}, "trials": 3}
    head = {"cell": "LSTI-tiny-loo"}
    line = run_process(head, {}, tmp_path / "search", stopped=lambda: stopped, search=search)
    assert (line["status"], line.get("killed", False)) == ("failed", stopped)
    (tmp_path / "search/journal.log").touch()
    run_process(head, settings, tmp_path / "search", search=search)
    assert (tmp_path / "search/journal.log").exists() == kept


def test_a_plan_may_not_lose_what_has_results(done, capsys):
    settings = {"MAX_ITEM_LIST_LENGTH": 20, "use_gpu": False}
    write_plan(["Popularity"], settings=settings)
    assert main(RESUME) == 2
    error = capsys.readouterr().err
    assert "same plan and data: Markov-tiny-loo-2020 had results, is not in the plan; give another --output" in error
    write_plan(["Popularity", {"Markov": {"model": "Markov", "markov_order": 9}}], settings=settings)
    assert main(RESUME) == 2, "another variant of the same name"
    assert "is 9 in Markov-tiny-loo; give another --output" in capsys.readouterr().err
    write_plan(["Popularity", "Markov"], settings=settings, model_settings={"Markov": {"markov_order": 9}})
    assert main(RESUME) == 2
    assert "is 9 in Markov-tiny-loo; give another --output" in capsys.readouterr().err
    (done / "results.jsonl").write_text("", encoding="utf-8")
    write_plan(["Popularity"], settings=settings)
    assert main(RESUME) == 0, "what has none may go"
    assert list(read_results(done).lines) == ["Popularity-tiny-loo-2020"]


@pytest.fixture
def defaults(done, tmp_path, monkeypatch) -> Any:
    """Changes the defaults behind a folder with results: a function of a file in properties/ and its new last line."""
    folder = tmp_path / "changed"
    shutil.copytree(properties_folder(), folder)
    monkeypatch.setattr("recbole_lsti.config.properties_folder", lambda: folder)

    def change(name: str, line: str) -> None:
        with open(folder / name, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        known_settings.cache_clear()

    yield change
    known_settings.cache_clear()


def test_a_changed_default_is_refused_where_there_are_results(done, defaults, capsys):
    before = (done / "results.jsonl").read_bytes()
    defaults("model/Markov.yaml", "markov_order: 7")
    assert main(RESUME) == 2
    error = capsys.readouterr().err
    order = yaml.safe_load((properties_folder() / "model/Markov.yaml").read_text(encoding="utf-8"))["markov_order"]
    assert f"must be of the same settings as its results: markov_order was {order}, is 7 in Markov-tiny-loo; " in error
    assert error.count("\n") == 1
    assert (done / "results.jsonl").read_bytes() == before
    (done / "results.jsonl").write_text("", encoding="utf-8")  # as if no such cell had ended
    assert main(RESUME) == 0
    assert capsys.readouterr().err.startswith("[1/1] Markov-tiny-loo-2020"), "and nothing is to be told"
    fingerprint = json.loads((done / "fingerprint.json").read_text(encoding="utf-8"))
    assert fingerprint["settings"]["Markov-tiny-loo"]["markov_order"] == 7


def test_what_belongs_to_a_machine_may_change(done, defaults, capsys):
    defaults("overall.yaml", "checkpoint_dir: elsewhere")
    defaults("overall.yaml", "gpu_id: 3")
    assert main(RESUME) == 0
    assert capsys.readouterr().err == ""


def test_a_resume_with_nothing_to_do_leaves_the_machine_as_it_was_written_down(done):
    before = (done / "environment.json").read_bytes()
    assert main([*RESUME, "--jobs", "2"]) == 0
    assert (done / "environment.json").read_bytes() == before


def test_figures_that_are_reached_are_told(done, capsys):
    assert main(RESUME) == 0  # writes expect.yaml
    assert main([*RESUME, "--expect", "out/expect.yaml"]) == 0
    assert "expected: all 2 figures of out/expect.yaml are reached" in capsys.readouterr().out


def test_a_setting_that_is_new_and_other_versions_are_told(done, defaults, monkeypatch, capsys):
    defaults("overall.yaml", "tail_ratio: 0.2")
    monkeypatch.setattr(results, "versions", lambda: {"recbole_lsti": "9.0", "recbole": "1.2.1", "torch": "3.0"})
    was = json.loads((done / "fingerprint.json").read_text(encoding="utf-8"))["versions"]
    assert main(RESUME) == 0
    told = [
        "out goes on although tail_ratio is new (0.2) in Markov-tiny-loo",
        f"out goes on although recbole_lsti was {was['recbole_lsti']}, is 9.0",
        f"out goes on although torch was {was['torch']}, is 3.0",
    ]
    assert capsys.readouterr().err.splitlines() == [f"recbole-lsti: {text}" for text in told]
    here = json.loads((done / "environment.json").read_text(encoding="utf-8"))
    assert here["notes"] == [text.removeprefix("out goes on although ") for text in told]
    page = (done / "report.md").read_text(encoding="utf-8")
    assert f"begun {here['earlier'][0]['started']}, gone on with {here['started']}" in page
    assert f"although {'; '.join(here['notes'])}.\n" in page
    assert here["earlier"][0]["notes"] == []
    assert main(RESUME) == 0
    assert capsys.readouterr().err == "", "from now on they are the folder's"


def test_a_folder_from_before_settings_were_written_down_goes_on(done, capsys):
    path = done / "fingerprint.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({"format": 1, "version": "0.1.0", **{k: content[k] for k in ("plan", "data")}}))
    assert main(RESUME) == 0
    error = capsys.readouterr().err
    assert "although settings were not written down in Markov-tiny-loo\n" in error
    assert "although torch was of an unknown version, is " in error


# ---- lines that were not written to their end -----------------------------------------------------------------------


def cut_line(done: Path, kept: float) -> str:
    """Cut the one line of the results, as a kill in the middle of writing leaves it; return what is left of it."""
    text = (done / "results.jsonl").read_text(encoding="utf-8")
    half = text[: int(kept * len(text))]
    (done / "results.jsonl").write_text(half, encoding="utf-8")
    return half


def test_a_half_written_line_comes_from_its_cell_that_is_whole(done, capsys):
    lines = read_results(done).lines
    half = cut_line(done, 0.5)
    assert main(RESUME) == 0
    assert "[1/1]" not in capsys.readouterr().err, "nothing is trained"
    assert read_results(done) == results.Results(lines, [])
    assert (done / "results.broken.jsonl").read_text(encoding="utf-8") == f"{half}\n"
    assert main(RESUME) == 0
    assert read_results(done) == results.Results(lines, [])


@pytest.mark.parametrize(
    ("key", "value"),
    [("cell", "Popularity-tiny-loo-2020"), ("seed", 7), ("dataset", "other"), ("status", "failed"), (None, None)],
)
def test_a_half_written_line_of_a_cell_that_is_not_whole_is_trained_again(done, capsys, key, value):
    lines = read_results(done).lines
    cut_line(done, 0.5)
    path = done / "cells/Markov-tiny-loo-2020/result.json"
    text = path.read_text(encoding="utf-8")
    wrong = text[:-9] if key is None else json.dumps({**json.loads(text), key: value})
    path.write_text(wrong, encoding="utf-8")
    assert main(RESUME) == 0
    assert "[1/1] Markov-tiny-loo-2020" in capsys.readouterr().err
    again = read_results(done).lines
    assert again.keys() == lines.keys()
    assert all({**again[name], "cost": None} == {**lines[name], "cost": None} for name in lines)


def test_a_half_written_line_of_other_settings_is_trained_again(done, defaults, capsys):
    cut_line(done, 0.5)
    defaults("model/Markov.yaml", "markov_order: 7")
    assert main(RESUME) == 0
    assert "[1/1] Markov-tiny-loo-2020" in capsys.readouterr().err


def test_a_line_that_was_taken_away_asks_for_another_training(done, capsys):
    cut_line(done, 0)
    assert main(RESUME) == 0
    assert "[1/1] Markov-tiny-loo-2020" in capsys.readouterr().err


# ---- small parts ----------------------------------------------------------------------------------------------------


def test_many_cells_of_one_change_are_one_text():
    before = {f"m{k}-d-loo": {"a": 1, "b": 2} for k in range(5)}
    now = {name: {"a": 9, "c": 3} for name in before}
    refused, noted = results._setting_changes(before, now, before)
    assert refused == ["a was 1, is 9 in m0-d-loo, m1-d-loo, m2-d-loo and 2 more"]
    assert noted == [
        "b (2) is gone in m0-d-loo, m1-d-loo, m2-d-loo and 2 more",
        "c is new (3) in m0-d-loo, m1-d-loo, m2-d-loo and 2 more",
    ]
