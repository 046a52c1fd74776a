"""Studies that processes share, resume and leave behind."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers import environment, read_trials, wait_for
from optuna.trial import TrialState

from recbole_lsti.tune import study as studies
from recbole_lsti.tune import tune


def test_resuming_adds_what_is_missing(workplace: Path, settings: dict) -> None:
    arguments: dict[str, Any] = {"config_dict": settings, "storage": "sqlite:///tune.db"}
    tune(["LSTI"], "tiny", "space.yaml", n_trials=2, **arguments)
    with pytest.raises(
        ValueError, match=r"study \(tiny-LSTI\) must be new, and it is in the storage already: --resume"
    ):
        tune(["LSTI"], "tiny", "space.yaml", n_trials=3, **arguments)
    tune(["LSTI"], "tiny", "space.yaml", n_trials=3, resume=True, **arguments)
    (found,) = tune(["LSTI"], "tiny", "space.yaml", n_trials=3, resume=True, **arguments)
    assert found.n_complete == 3
    assert Path("tune.db").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": "hidden_size: [8, 32]\n"}, "space hidden_size was choice [8, 16] and is choice [8, 32]"),
        ({"n_layers": 2}, "setting n_layers was 1 and is 2"),
        ({"data": True}, "tiny.inter has changed"),
    ],
)
def test_a_study_of_something_else_is_not_resumed(workplace: Path, settings: dict, change: dict, message: str) -> None:
    tune(["LSTI"], "tiny", "space.yaml", config_dict=settings, n_trials=1)
    if "space" in change:
        Path("space.yaml").write_text("learning_rate: {log: [1e-3, 1e-1]}\n" + change["space"])
    if "data" in change:
        with open(Path(settings["data_path"]) / "tiny" / "tiny.inter", "a") as file:
            file.write("u1\ti1\t999\n")
    settings = {**settings, **{key: value for key, value in change.items() if key not in ("space", "data")}}
    with pytest.raises(ValueError, match="must be resumed as it was begun") as caught:
        tune(["LSTI"], "tiny", "space.yaml", config_dict=settings, n_trials=2, resume=True)
    assert message in str(caught.value)


def test_a_study_of_another_program_is_left_alone(workplace: Path, settings: dict) -> None:
    storage = studies.open_storage("other.log")
    optuna.create_study(study_name="tiny-LSTI", storage=storage).optimize(lambda trial: 0.0, n_trials=1)
    with pytest.raises(ValueError, match=r"study \(tiny-LSTI\) must be one of recbole-lsti tune"):
        tune(["LSTI"], "tiny", "space.yaml", config_dict=settings, n_trials=2, resume=True, storage="other.log")


# the command, except that no process goes on with its first trial before the other one has its own
TWO_OF_US = """
import os, sys, time
from pathlib import Path
from optuna import Study
from recbole_lsti.cli import main

ask = Study.ask


def ask_and_wait(*arguments):
    trial = ask(*arguments)
    Path(f"asked-{os.getpid()}").touch()
    until = time.monotonic() + 120
    while len(list(Path().glob("asked-*"))) < 2:
        assert time.monotonic() < until, "the other process has no trial"
        time.sleep(0.05)
    return trial


Study.ask = ask_and_wait
sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_share_one_study(workplace: Path, settings: dict) -> None:
    flags = [f"--{key}={value}" for key, value in settings.items()]
    command = [
        *(sys.executable, "-c", TWO_OF_US, "tune", "-d", "tiny", "--space", "space.yaml", "--trials", "12"),
        *("--storage", "shared.log", "--resume", *flags),
    ]
    both = [
        subprocess.Popen(
            [*command, "--output", f"out{n}"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for n in range(2)
    ]
    for process in both:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error.decode()
    (study,) = optuna.get_all_study_summaries(studies.open_storage("shared.log"))
    trials = studies.counted(optuna.load_study(study_name=study.study_name, storage=studies.open_storage("shared.log")))
    assert len(trials) == 12
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({trial.user_attrs["process"] for trial in trials}) == 2
    assert len({(trial.params["learning_rate"]) for trial in trials}) == 12, "no two processes draw the same"


def test_a_killed_process_loses_its_trial_alone(workplace: Path, settings: dict) -> None:
    tune(["LSTI"], "tiny", "space.yaml", config_dict=settings, n_trials=1)
    study = optuna.load_study(study_name="tiny-LSTI", storage=studies.open_storage("saved/tune-tiny/journal.log"))
    dead, alive = study.ask(), study.ask()
    host, number, started = studies.this_process().rsplit("/", 2)
    dead.set_user_attr("process", f"{host}/{number}/{float(started) - 1000:.0f}")  # an earlier owner of the id
    alive.set_user_attr("process", studies.this_process())
    (found,) = tune(["LSTI"], "tiny", "space.yaml", config_dict=settings, n_trials=3, resume=True)
    rows = read_trials(found.folder)
    assert [(row["state"], row["reason"]) for row in rows] == [
        *(("complete", ""), ("fail", "its process was killed"), ("running", ""), ("complete", "")),
    ]
    assert found.n_failed == 0, "the dead trial does not count: another one took its place"


def test_two_processes_that_begin_at_once_may_meet_at_a_dead_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    study.ask().set_user_attr("process", studies.this_process().rpartition("/")[0] + "/1")
    give_up = studies.give_up

    def another_is_first(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
        give_up(study, trial, reason)
        give_up(study, trial, reason)

    with monkeypatch.context() as patch:
        patch.setattr(studies, "give_up", another_is_first)
        assert studies.give_up_the_dead(study) == 0
    assert [trial.state.name for trial in study.trials] == ["FAIL"]


def test_a_terminated_process_gives_its_trial_up(workplace: Path, settings: dict) -> None:
    flags = [f"--{key}={value}" for key, value in {**settings, "epochs": 10_000, "stopping_step": 10_000}.items()]
    command = [sys.executable, "-m", "recbole_lsti.cli", "tune", "-d", "tiny", "--space", "space.yaml", "--trials", "1"]
    process = subprocess.Popen([*command, *flags], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    journal = Path("saved/tune-tiny/journal.log")

    def validated() -> bool:
        assert process.poll() is None, process.communicate()[1].decode()
        return journal.is_file() and '"seconds"' in journal.read_text()

    wait_for(validated)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error.decode()) == (130, "recbole-lsti: interrupted\n")
    (row,) = read_trials("saved/tune-tiny/LSTI")
    assert (row["state"], row["reason"]) == ("fail", "interrupted")
    study = optuna.load_study(study_name="tiny-LSTI", storage=studies.open_storage(str(journal)))
    assert studies.counted(study) == []


def test_a_terminal_gets_a_line_that_moves(workplace: Path, settings: dict) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    tune(["LSTI"], "tiny", "space.yaml", config_dict={**settings, "epochs": 2}, n_trials=1, stream=stream)
    first, second, last = stream.getvalue().split("\r\033[K")[1:]
    assert "trial 0  epoch 1  ndcg@10" in first
    assert "trial 0  epoch 2  ndcg@10" in second
    assert "[1/1]" in last
    assert stream.getvalue().count("\n") == 1


def test_the_last_trial_is_given_to_one_of_those_who_ask(workplace: Path) -> None:
    study = optuna.create_study(storage=studies.open_storage("journal.log"))
    first, second = study.ask(), study.ask()
    assert not studies.is_beyond(study, first, 1)
    assert studies.is_beyond(study, second, 1)
    studies.give_up(study, second, "no budget was left")
    assert [trial.number for trial in studies.counted(study)] == [0]
    assert not studies.has_budget(study, 1, None)
    assert studies.has_budget(study, 2, None)


def test_one_of_those_who_come_at_once_has_made_the_study(workplace: Path) -> None:
    agreement = {"space": {}, "setting": {}, "file": {}}
    found = [
        studies.open_study(studies.open_storage("journal.log"), "s", agreement, True, resume=True)[1] for _ in range(3)
    ]
    assert found == [True, False, False], "it alone draws from the seed; no trial tells them apart yet"


def test_one_seed_draws_the_same_trials(workplace: Path, settings: dict) -> None:
    drawn = []
    for name in ("a", "b"):
        (found,) = tune(["LSTI"], "tiny", "space.yaml", config_dict=settings, n_trials=2, study=name, seed=7)
        assert found.folder == Path("saved/tune-tiny", name, "LSTI"), "beside each other"
        study = optuna.load_study(study_name=found.study, storage=studies.open_storage("saved/tune-tiny/journal.log"))
        drawn.append([trial.params for trial in study.trials])
    assert drawn[0] == drawn[1]
