"""Trials as Dask tasks: a real scheduler and two worker processes; a worker, who asked, or the scheduler goes."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import torch
import yaml
from conftest import random_rows, write_inter
from dask_cluster import Cluster, children_of
from helpers import PACKAGE_ROOT, children_running, read_trials, wait_for

import recbole_lsti
from recbole_lsti import cli
from recbole_lsti.tune import study as studies
from recbole_lsti.tune import tune
from recbole_lsti.tune.trial import BELOW_MEDIAN, UnderWay

pytest.importorskip("distributed")

LONG = {"epochs": 1_000_000, "stopping_step": 1_000_000}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a space; the data set `tiny` lies in its dataset/. One thread, here and in processes."""
    write_inter(tmp_path / "dataset", "tiny", random_rows())
    (tmp_path / "space.yaml").write_text("learning_rate: {log: [1e-3, 1e-1]}\nhidden_size: [8, 16]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE_ROOT))  # for programs started from there
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # scores are compared, and a sum depends on who adds what
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def settings(small: dict) -> dict[str, Any]:
    del small["hidden_size"], small["show_progress"]
    return {**small, "epochs": 1}


def study_of() -> optuna.Study:
    return optuna.load_study(study_name="tiny-LSTI", storage=studies.open_storage("saved/tune-tiny/journal.log"))


def ask(cluster: Cluster, settings: dict[str, Any], *flags: str) -> subprocess.Popen:
    """A process of the command that asks for trials on the cluster."""
    command = [sys.executable, "-m", "recbole_lsti.cli", "tune", "-d", "tiny", "--space", "space.yaml", *flags]
    given = [f"--{key}={value}" for key, value in settings.items()]
    return subprocess.Popen(
        [*command, "--executor", "dask", "--scheduler", cluster.address, *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def epochs_told() -> int:
    """Validations of running trials that the study knows."""
    try:
        return sum(len(trial.intermediate_values) for trial in study_of().trials)
    except (OSError, KeyError):
        return 0


def test_a_killed_workers_trial_is_run_again_and_none_counts_twice(
    place: Path, settings: dict, cluster: Cluster
) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"n_layers": settings.pop("n_layers")}))  # the asker's alone
    stream, found = io.StringIO(), []
    arguments: dict[str, Any] = {"config_file_list": ["mine.yaml"], "config_dict": {**settings, "epochs": 10}}
    dask: dict[str, Any] = {"executor": "dask", "scheduler": cluster.address, "n_trials": 3, "stream": stream}
    search = threading.Thread(target=lambda: found.extend(tune(["LSTI"], "tiny", "space.yaml", **arguments, **dask)))
    search.start()
    orphans = cluster.kill_busy_worker()
    search.join(300)
    assert found[0].n_complete + found[0].n_pruned == 3
    assert [trial.number for trial in study_of().trials] == [0, 1, 2], "none was given up for another"
    assert stream.getvalue().count("\n") == 3
    rows = read_trials(found[0].folder)
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    assert all(row["process"].startswith("tcp://127.0.0.1:") for row in rows), "workers did it"
    assert not any(orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE for orphan in orphans)
    # what a worker has found is what a training finds here
    content = yaml.safe_load((found[0].folder / "best.yaml").read_text(encoding="utf-8"))
    assert content["n_layers"] == 1
    result = recbole_lsti.run(config_file_list=[str(found[0].folder / "best.yaml")], saved=False)
    assert result["best_valid_score"] == found[0].score


def test_a_trial_on_a_worker_is_pruned_in_the_middle(
    place: Path, settings: dict, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_lsti.tune.search.N_STARTUP", 1)
    steps = [(user, (user * 7 + step) % 30, step) for user in range(60) for step in range(16)]
    write_inter(Path("dataset"), "chain", steps)
    Path("space.yaml").write_text("learning_rate: [1e-2, 1e-9]\nhidden_size: [8]\n")
    one = {**settings, "repeat_term": False, "epochs": 60, "stopping_step": 60}
    (found,) = tune(
        ["LSTI"],
        "chain",
        "space.yaml",
        config_dict=one,
        n_trials=2,
        sampler="random",
        seed=10,
        executor="dask",
        scheduler=cluster.address,
        jobs=1,
    )
    good, bad = read_trials(found.folder)
    assert (good["state"], good["learning_rate"], good["epochs"]) == ("complete", "0.01", "60")
    assert (bad["state"], bad["learning_rate"], bad["reason"]) == ("pruned", "1e-09", "below the median")
    assert 1 <= int(bad["epochs"]) < 60
    wait_for(lambda: not any(map(children_of, cluster.processes[1:])), 10)


@pytest.mark.slow
def test_when_who_asked_is_killed_the_workers_stop_and_a_resume_goes_on(
    place: Path, settings: dict, cluster: Cluster
) -> None:
    asker = ask(cluster, {**settings, **LONG}, "--trials", "2")
    wait_for(lambda: all(map(children_of, cluster.processes[1:])))
    asker.kill()
    asker.communicate(timeout=30)
    wait_for(lambda: not any(map(children_of, cluster.processes[1:])), 20)
    asker = ask(cluster, {**settings, **LONG}, "--trials", "2", "--minutes", "0.05", "--resume")
    out, error = asker.communicate(timeout=240)
    assert asker.returncode == 0, error
    rows = read_trials("saved/tune-tiny/LSTI")
    assert {row["reason"] for row in rows if row["state"] == "fail"} == {"its process was killed"}
    ended = [row for row in rows if row["state"] == "complete"]
    assert 1 <= len(ended) <= 2
    assert {row["reason"] for row in ended} == {"ended by the budget of minutes"}, "summed over trials, at validations"
    assert "LSTI: validation ndcg@10" in out


def test_a_scheduler_that_goes_is_told_and_a_resume_goes_on(place: Path, settings: dict, cluster: Cluster) -> None:
    asker = ask(cluster, {**settings, **LONG}, "--trials", "1")
    wait_for(lambda: epochs_told() > 2)
    cluster.processes[0].kill()
    _, error = asker.communicate(timeout=120)
    assert asker.returncode == 2
    assert "recbole-lsti: the scheduler must stay until the end: it went with 1 trials; --resume puts" in error
    assert [(row["state"], row["reason"]) for row in read_trials("saved/tune-tiny/LSTI")] == [("fail", "interrupted")]
    flags = [f"--{key}={value}" for key, value in {**settings, **LONG}.items()]
    resume = ["tune", "-d", "tiny", "--space", "space.yaml", "--trials", "1", "--minutes", "0.01", "--resume"]
    assert cli.main([*resume, *flags]) == 0
    assert [row["state"] for row in read_trials("saved/tune-tiny/LSTI")] == ["fail", "complete"]


def test_workers_that_cannot_run_the_package_cost_no_trial(
    place: Path, settings: dict, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_lsti.tune.cluster.attempt_on_worker", wait_for)  # of a module that workers have not
    with pytest.raises(ConnectionError, match="workers must run trials of this package: "):
        tune(
            ["LSTI"],
            "tiny",
            "space.yaml",
            config_dict=settings,
            n_trials=1,
            executor="dask",
            scheduler=cluster.address,
        )
    assert studies.counted(study_of()) == []


@pytest.mark.slow
def test_without_an_address_a_cluster_is_started(place: Path, settings: dict) -> None:
    (found,) = tune(["LSTI"], "tiny", "space.yaml", config_dict=settings, n_trials=3, executor="dask", jobs=2)
    assert found.n_complete == 3
    assert len({row["process"] for row in read_trials("saved/tune-tiny/LSTI")}) == 2


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_a_scheduler_that_does_not_answer_is_told_and_nothing_is_left(
    place: Path, settings: dict, address: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_lsti.cluster.ANSWER_SECONDS", 1)
    common = [
        "tune",
        "-d",
        "tiny",
        "--space",
        "space.yaml",
        "--trials",
        "1",
        *(f"--{k}={v}" for k, v in settings.items()),
    ]
    assert cli.main([*common, "--executor", "dask", "--scheduler", address]) == 2
    error = capsys.readouterr().err
    assert f"scheduler ({address}) must be the address of a Dask scheduler that answers within" in error
    assert not Path("saved").exists()
    assert cli.main(common) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--executor", "daskk"], "executor (daskk) must be one of local, dask (did you mean dask?)"),
        (["--scheduler", "tcp://x:1"], "scheduler (tcp://x:1) must go with --executor dask"),
        (["--jobs", "2"], "jobs (2) must go with --executor dask"),
        (["--executor", "dask", "--jobs", "0"], "jobs (0) must be 1 or more"),
        (["--memory-gib", "0"], "memory_gib (0.0) must be above 0"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    place: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["tune", "-d", "tiny", "--space", "space.yaml", *flags]) == 2
    assert capsys.readouterr().err == f"recbole-lsti: {message}\n"
    assert not Path("saved").exists()


# ---- a process of its own, without a cluster ---------------------------------------------------------------------


def test_a_trial_that_needs_too_much_memory_fails_alone(place: Path, settings: dict) -> None:
    arguments: dict[str, Any] = {"config_dict": settings, "n_trials": 1}
    (found,) = tune(["LSTI"], "tiny", "space.yaml", memory_gib=0.05, **arguments)
    assert (found.n_failed, found.reason) == (1, "it needed more than memory_gib (0.05)")
    assert "it needed more" in (found.folder / "failed-0000.txt").read_text(encoding="utf-8")
    (apart,) = tune(["LSTI"], "tiny", "space.yaml", memory_gib=8, study="apart", **arguments)
    (here,) = tune(["LSTI"], "tiny", "space.yaml", study="here", **arguments)
    assert apart.score == here.score is not None


def test_a_trial_whose_process_is_killed_is_a_failure_and_the_search_goes_on(place: Path, settings: dict) -> None:
    def kill_the_first() -> None:
        wait_for(lambda: children_running("recbole_lsti.tune.attempt"))[0].kill()

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    (found,) = tune(["LSTI"], "tiny", "space.yaml", config_dict=settings, n_trials=2, memory_gib=8)
    killer.join()
    first, second = read_trials(found.folder)
    assert (first["state"], second["state"]) == ("fail", "complete")
    assert first["reason"] == "ended by signal SIGKILL, as a system short of memory does"


def test_what_comes_behind_the_end_of_a_trial_does_not_count() -> None:
    class PruneAtOnce(optuna.pruners.BasePruner):
        def prune(self, study: Any, trial: Any) -> bool:
            return True

    study = optuna.create_study(pruner=PruneAtOnce())
    trial = study.ask()
    lines = types.SimpleNamespace(under_way=lambda *_: None)
    under_way = UnderWay(types.SimpleNamespace(minutes=1.0, space={}), study, trial, lines)  # type: ignore[arg-type]
    assert under_way.validated(0, 0.5, 1.0)
    assert under_way.validated(1, 0.9, 100.0), "it has ended, and not by the minutes, which are over by now"
    assert study.get_trials()[0].intermediate_values == {0: 0.5}
    assert under_way._stopped_by == BELOW_MEDIAN
