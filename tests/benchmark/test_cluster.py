"""Dask: a real scheduler and two worker processes on the loopback, one of them killed in the middle."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from recbole_lsti.benchmark.cluster import CellKilledError, _keep_failure
from recbole_lsti.benchmark.execute import run_plan, write_environment
from recbole_lsti.benchmark.options import Options
from recbole_lsti.benchmark.page import _place
from recbole_lsti.benchmark.results import read_results
from recbole_lsti.cli import main

pytest.importorskip("distributed")


def test_every_cell_is_done_once_although_a_worker_is_killed(plan_of, cluster):
    plan = plan_of(["GRU4Rec", "NARM"], seeds=2, budget={"epochs": 2})
    lines: list[Any] = []
    options = Options(executor="dask", scheduler=cluster.address, retries=2)
    runs = threading.Thread(target=lambda: lines.extend(run_plan(plan, Path("out"), options)))
    runs.start()
    orphans = cluster.kill_busy_worker()
    runs.join(240)
    assert len(lines) == 4
    assert {line["status"] for line in lines} == {"ok"}
    written = [json.loads(line)["cell"] for line in Path("out/results.jsonl").read_text("utf-8").splitlines()]
    assert sorted(written) == sorted(cell.id for cell in plan.cells()), "every cell, none twice"
    assert not any(orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE for orphan in orphans)
    # what the other executor finds for a cell is the same, files and all
    (alone,) = run_plan(plan_of(["NARM"], budget={"epochs": 2}), Path("here"), Options())
    remote = read_results("out").lines[alone["cell"]]
    assert {**alone, "cost": None} == {**remote, "cost": None}
    files = [
        {path.name for path in Path(out, "cells", alone["cell"]).iterdir() if path.is_file()} for out in ("out", "here")
    ]
    assert files[0] == files[1]


def test_a_cell_that_fails_on_a_cluster_keeps_its_traceback(plan_of, cluster):
    plan = plan_of([{"broken": {"model": "NARM", "train_mode": "sequence"}}])
    (line,) = run_plan(plan, Path("out"), Options(executor="dask", scheduler=cluster.address))
    assert line["status"] == "failed"
    assert "train_mode (sequence) must be prefix for NARM" in line["reason"]
    assert "Traceback" in Path("out/cells", line["cell"], "traceback.txt").read_text(encoding="utf-8")


def test_a_scheduler_s_workers_have_their_own_threads_and_their_seconds_are_told(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    here, there = Options(jobs=4, executor="dask"), Options(jobs=4, executor="dask", scheduler="tcp://host:8786")
    assert (here.threads, there.threads) == (2, None)
    written = []
    for options in (here, there):
        write_environment(tmp_path, options, [])
        content = json.loads((tmp_path / "environment.json").read_text(encoding="utf-8"))
        written.append([content[key] for key in ("measured_on", "jobs", "threads")])
    assert written == [["the machine that asks", 4, 2], ["the workers of a scheduler", None, None]]
    page = "".join(_place(tmp_path))
    assert "Measured on the workers of a scheduler; the machine that asks: " in page
    assert "differ in measured_on the machine that asks, the workers of a scheduler; jobs 4, None" in page
    assert "recbole-lsti benchmark plan.yaml --executor dask --scheduler ADDRESS --output board" in page
    assert "at a time" not in page


def test_a_cell_that_was_killed_on_a_cluster_keeps_its_log_and_nothing_of_before(plan_of):
    (cell,) = plan_of(["NARM"]).cells()
    folder = Path("out/cells", cell.id)
    folder.mkdir(parents=True)
    (folder / "raw.npy").write_bytes(b"of an earlier try")
    error = pickle.loads(pickle.dumps(CellKilledError("ended by signal SIGKILL", {"run.log": b"epoch 1"})))
    line = _keep_failure(cell, error, folder)
    assert (line["status"], line["reason"]) == ("failed", "ended by signal SIGKILL")
    assert {path.name for path in folder.iterdir()} == {"run.log", "traceback.txt", "result.json"}
    assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == line


@pytest.mark.slow
def test_without_an_address_a_cluster_is_started(plan_of):
    lines = run_plan(plan_of(["Markov", "Popularity"]), Path("out"), Options(jobs=2, executor="dask"))
    assert [line["status"] for line in lines] == ["ok", "ok"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_a_scheduler_that_does_not_answer_is_told_and_nothing_is_lost(place, in_process, capsys, address, monkeypatch):
    monkeypatch.setattr("recbole_lsti.cluster.ANSWER_SECONDS", 1)
    common = ["benchmark", "--models", "Markov", "--datasets", "tiny", "--no-controls", "--output", "out"]
    assert main([*common, "--executor", "dask", "--scheduler", address]) == 2
    error = capsys.readouterr().err
    assert f"scheduler ({address}) must be the address of a Dask scheduler that answers within" in error
    assert not Path("out").exists(), "the same command without Dask is no second run"
    assert main(common) == 0
    assert list(read_results("out").lines) == ["Markov-tiny-loo-2020"]
