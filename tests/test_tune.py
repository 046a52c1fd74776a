"""recbole-lsti tune: spaces, the search, its budget, studies that processes share, what is refused."""

from __future__ import annotations

import inspect
import io
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from helpers import environment, read_trials, wait_for
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

import recbole_lsti
from recbole_lsti import cli
from recbole_lsti.trainer import PortableTrainer
from recbole_lsti.tune import study as studies
from recbole_lsti.tune import tune
from recbole_lsti.tune.cli import arguments_of
from recbole_lsti.tune.space import read_space

SPACE = "learning_rate: {log: [1e-3, 1e-1]}\nhidden_size: [8, 16]\n"


@pytest.fixture
def workplace(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a space; the data lies elsewhere."""
    place = tmp_path / "work"
    place.mkdir()
    (place / "space.yaml").write_text(SPACE)
    monkeypatch.chdir(place)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the programs that a test starts
    return place


@pytest.fixture
def settings(tiny: Path, small: dict) -> dict[str, Any]:
    del small["hidden_size"], small["show_progress"]
    return {**small, "epochs": 1, "data_path": str(tiny)}


# ---- spaces ------------------------------------------------------------------------------------------------------


def test_recboles_lines_mean_what_they_mean_to_recbole(tmp_path: Path) -> None:
    (tmp_path / "hyper.test").write_text(
        "learning_rate loguniform -8,0\nembedding_size choice [64,96 , 128]\n\n# a comment\n"
        "dropout_prob uniform 0.1,0.6\nhidden_size quniform 30,100,32\nmlp_hidden_size choice ['[64,64]', '[128]']\n"
    )
    space = read_space(tmp_path / "hyper.test", ["GRU4Rec"])["GRU4Rec"]
    assert space["learning_rate"].distribution == FloatDistribution(math.exp(-8), 1.0, log=True)
    assert space["embedding_size"].distribution == CategoricalDistribution((64, 96, 128))
    assert space["dropout_prob"].distribution == FloatDistribution(0.1, 0.6)
    # multiples of q, as integers: hyperopt's 64.0 is no width of an embedding
    assert space["hidden_size"].distribution == IntDistribution(32, 96, step=32)
    assert space["mlp_hidden_size"].distribution == CategoricalDistribution(("[64,64]", "[128]"))


def test_yaml_spaces_and_sections(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "learning_rate: {log: [1e-4, 1e-2]}\ndropout: {uniform: [0, 0.6]}\nn_layers: [1, 2, 3]\n"
        "short_window: {int: [2, 21, 5]}\ntokens: {log_int: [1, 64]}\nq: {quniform: [0.1, 0.5, 0.2]}\n"
        "clip: [~, {max_norm: 5.0}]\nSASRec:\n  n_layers: {int: [1, 4]}\n"
    )
    spaces = read_space(tmp_path / "space.yaml", ["LSTI", "SASRec"])
    space = spaces["LSTI"]
    assert space["learning_rate"].distribution == FloatDistribution(1e-4, 1e-2, log=True)
    assert space["dropout"].distribution == FloatDistribution(0, 0.6)
    assert space["n_layers"].distribution == CategoricalDistribution((1, 2, 3))
    assert space["short_window"].distribution == IntDistribution(2, 17, step=5)
    assert space["tokens"].distribution == IntDistribution(1, 64, log=True)
    assert space["q"].distribution == FloatDistribution(0.2, 0.4, step=0.2)
    assert [space["clip"].value(label) for label in space["clip"].distribution.choices] == [None, {"max_norm": 5.0}]
    assert spaces["SASRec"]["n_layers"].distribution == IntDistribution(1, 4)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.test", "learning_rate logunifrom -8,0", "line 1: kind of learning_rate (logunifrom) must be one of"),
        ("x.test", "learning_rate logunifrom -8,0", "(did you mean loguniform?)"),
        ("x.test", "train_batch_tokens loguniform 512,4096", "highest value (4096.0) must be an exponent of e"),
        ("x.test", "a choice [1]\na choice [2]", "line 2: a must be given once"),
        ("x.test", "lr uniform", "line 1: line (lr uniform) must be: setting kind values"),
        ("x.test", "lr uniform 1,2,3", "lr: uniform (1,2,3) must be 2 numbers"),
        ("x.test", "lr uniform 2,1", "lr: range (2.0, 1.0) must be finite, the lowest value first"),
        ("x.test", "a choice __import__('os').getcwd()", "must be a list of literals"),
        ("x.test", "# nothing\n", "must name a setting or more for LSTI"),
        ("x.yaml", "", "must name a setting or more for LSTI"),
        ("x.yaml", "lr: {log: [0, 1]}", "lr: lowest value (0) must be above 0 on a logarithmic scale"),
        ("x.yaml", "lr: {loguniform: [-8, 0]}", "(did you mean log? its ends are values, not exponents)"),
        ("x.yaml", "lr: {uniform: [0, a]}", "lr: uniform ([0, 'a']) must be a list of 2 numbers"),
        ("x.yaml", "n: {int: [1, 2.5]}", "must be whole"),
        ("x.yaml", "n: []", "n: choice ([]) must be a list of one value or more"),
        ("x.yaml", "n: [1, 1]", "must not name a value twice"),
        ("x.yaml", "n: 3", "n (3) must be a list of values or {kind: [numbers]}"),
        ("x.yaml", "- 1", "must hold `setting: values` lines, not a list"),
        ("x.yaml", "a: [1", "must be YAML"),
        ("x.yaml", "SASRek: {n_layers: [1]}", "(did you mean SASRec?)"),
        ("none.yaml", None, "must be a file"),
    ],
)
def test_spaces_that_cannot_be_read(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, OSError)) as caught:
        read_space(tmp_path / name, ["LSTI"])
    assert message in str(caught.value)


# ---- the search --------------------------------------------------------------------------------------------------


def test_the_command_searches_and_its_best_file_trains_to_the_same_score(
    workplace: Path, settings: dict, capsys: pytest.CaptureFixture
) -> None:
    flags = [f"--{key}={value}" for key, value in settings.items()]
    assert cli.main(["tune", "-d", "tiny", "--space", "space.yaml", "--trials", "3", *flags]) == 0
    out = capsys.readouterr().out
    assert [line.partition("  ndcg")[0] for line in out.splitlines()[:3]] == [
        f"LSTI on tiny  trial {number}" for number in range(3)
    ]
    best = Path("saved/tune-tiny/LSTI/best.yaml")
    assert f"recbole-lsti train --config_files {best}" in out
    rows = read_trials(best.parent)
    assert [row["state"] for row in rows] == ["complete"] * 3
    content = yaml.safe_load(best.read_text())
    score = max(float(row["score"]) for row in rows)
    (chosen,) = [row for row in rows if float(row["score"]) == score][:1]
    assert content["hidden_size"] == int(chosen["hidden_size"])
    assert content["learning_rate"] == pytest.approx(float(chosen["learning_rate"]))
    result = recbole_lsti.run(config_file_list=[str(best)], config_dict={"show_progress": False}, saved=False)
    assert result["best_valid_score"] == score
    assert result["model"] == "LSTI"
    assert result["test_result"] is not None


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [(["--no-prune"], "prune", False), (["--sampler-seed", "7"], "seed", 7), (["--study", "mine"], "study", "mine")],
)
def test_flags_become_arguments_of_tune(flags: list[str], key: str, value: Any) -> None:
    def arguments(*more: str) -> dict[str, Any]:
        return arguments_of(cli.build_parser().parse_args(["tune", "--space", "space.yaml", *more]), {"epochs": "1"})

    given = arguments(*flags)
    assert inspect.signature(tune).bind(**given).arguments == given
    assert arguments()[key] != value
    assert given == {**arguments(), key: value}


class Ranked:
    """Which (history length, target) pairs have been ranked, seen where every full ranking passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pairs: set[tuple[int, int, int]] = set()
        stock = PortableTrainer._full_sort_batch_eval

        def noted(trainer: PortableTrainer, batch: Any) -> Any:
            result = stock(trainer, batch)
            interaction, _, row, item = result
            users, lengths = interaction["user_id"][row], interaction["item_length"][row]
            self.pairs |= set(zip(users.tolist(), lengths.tolist(), item.tolist(), strict=True))
            return result

        monkeypatch.setattr(PortableTrainer, "_full_sort_batch_eval", noted)


def test_the_test_items_are_never_ranked(workplace: Path, settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = Ranked(monkeypatch)
    tune(["LSTI", "GRU4Rec"], "tiny", "space.yaml", config_dict={"epochs": 1, **only(settings)}, n_trials=1)
    while_tuning = ranked.pairs
    assert while_tuning
    ranked.pairs = set()
    recbole_lsti.run("LSTI", "tiny", config_dict={**settings, "show_progress": False}, saved=False)
    test = ranked.pairs - while_tuning
    # with leave-one-out a user's test row has one step more than the validation row
    longest: dict[int, int] = {}
    for user, length, _ in ranked.pairs:
        longest[user] = max(length, longest.get(user, 0))
    assert test
    assert all(length == longest[user] for user, length, _ in test)
    assert all(length < longest[user] for user, length, _ in while_tuning)


def only(settings: dict) -> dict:
    """What every model reads."""
    return {key: settings[key] for key in ("data_path", "use_gpu")}


def test_a_run_without_test_says_so(workplace: Path, settings: dict) -> None:
    seen: list[tuple[int, float]] = []
    result = recbole_lsti.run(
        "LSTI",
        "tiny",
        config_dict={**settings, "epochs": 2, "show_progress": False},
        saved=False,
        tested=False,
        callback_fn=lambda epoch, score: seen.append((epoch, score)),
    )
    assert result["test_result"] is None
    assert result["test_result_unseen"] is None
    assert [epoch for epoch, _ in seen] == [0, 1]
    assert result["best_valid_score"] == max(score for _, score in seen)


def test_every_model_gets_the_same_trials(workplace: Path, settings: dict) -> None:
    stream = io.StringIO()
    found = tune(
        ["GRU4Rec", "LSTI"],
        "tiny",
        "space.yaml",
        config_dict={"epochs": 1, **only(settings)},
        n_trials=2,
        stream=stream,
    )
    assert [(each.model, each.n_complete) for each in found] == [("GRU4Rec", 2), ("LSTI", 2)]
    assert stream.getvalue().count("\n") == 4


def test_a_refused_combination_is_recorded_and_the_search_goes_on(workplace: Path, settings: dict) -> None:
    Path("space.yaml").write_text("hidden_size: [15, 8]\n")
    (found,) = tune(["LSTI"], "tiny", "space.yaml", config_dict=settings, n_trials=6, sampler="random", seed=1)
    rows = read_trials(found.folder)
    assert {row["state"] for row in rows if row["hidden_size"] == "8"} == {"complete"}
    refused = [row for row in rows if row["hidden_size"] == "15"]
    assert {row["state"] for row in refused} == {"fail"}
    assert {row["reason"] for row in refused} == {"ValueError: hidden_size (15) must be divisible by n_heads (2)"}
    traceback = found.folder / f"failed-{int(refused[0]['trial']):04d}.txt"
    assert "check_values" in traceback.read_text()
    assert found.n_failed == len(refused)
    assert found.values == {"hidden_size": 8}


def test_a_search_without_a_score_exits_1_and_names_a_reason(
    workplace: Path, settings: dict, capsys: pytest.CaptureFixture
) -> None:
    Path("space.yaml").write_text("hidden_size: [15, 17]\n")
    flags = [f"--{key}={value}" for key, value in settings.items()]
    assert cli.main(["tune", "-d", "tiny", "--space", "space.yaml", "--trials", "1", *flags]) == 1
    assert "LSTI: no trial has come to a score (0 complete, 0 pruned, 1 failed, 0 s): ValueError" in (
        capsys.readouterr().out
    )
    assert not Path("saved/tune-tiny/LSTI/best.yaml").exists()


def test_hopeless_trials_are_pruned_at_epochs(workplace: Path, settings: dict) -> None:
    # the learning rate decides: 1e-9 stays where it began, and the others see that item i + 1 follows item i
    steps = [(user, (user * 7 + step) % 30, step) for user in range(60) for step in range(16)]
    lines = "".join(f"{user}\t{item}\t{step}\n" for user, item, step in steps)
    Path("chain").mkdir()
    Path("chain/chain.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + lines)
    Path("space.yaml").write_text("learning_rate: [1e-2, 2e-2, 3e-2, 1e-9]\nhidden_size: [8]\n")
    settings = {
        **settings,
        "epochs": 4,
        "stopping_step": 9,
        "repeat_term": False,
        "data_path": ".",
        "train_batch_tokens": 60,
    }
    search: dict[str, Any] = {"config_dict": settings, "sampler": "random", "seed": 3}
    (found,) = tune(["LSTI"], "chain", "space.yaml", n_trials=14, **search)
    rows = read_trials(found.folder)
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert found.n_pruned == len(pruned) > 0
    assert all(int(row["epochs"]) < 4 for row in pruned)
    assert all(row["reason"] == "below the median" for row in pruned)
    assert [row["epochs"] for row in rows if row["state"] == "complete"] == ["4"] * found.n_complete
    as_far = int(pruned[0]["trial"]) + 1  # the same trials again, up to the first one that was pruned
    (whole,) = tune(["LSTI"], "chain", "space.yaml", n_trials=as_far, prune=False, study="b", **search)
    assert (whole.n_pruned, whole.n_complete) == (0, as_far)


def test_minutes_end_the_search_and_the_trial_under_way(workplace: Path, settings: dict) -> None:
    settings = {**settings, "epochs": 1000, "stopping_step": 1000}
    started = time.perf_counter()
    (found,) = tune(["LSTI"], "tiny", "space.yaml", config_dict=settings, n_trials=50, minutes=0.03)
    assert time.perf_counter() - started < 30
    assert 1 <= found.n_complete < 50
    last = read_trials(found.folder)[-1]
    assert last["reason"] == "ended by the budget of minutes"
    assert int(last["epochs"]) < 1000
    assert float(last["score"]) > 0
    # the budget is spent for whoever resumes, too; more minutes are more trials
    (again,) = tune(["LSTI"], "tiny", "space.yaml", config_dict=settings, n_trials=50, minutes=0.03, resume=True)
    assert again.n_complete == found.n_complete


# ---- shared studies ----------------------------------------------------------------------------------------------


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


# ---- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "space", "message"),
    [
        (
            [],
            "hidden_siz: [8]\n",
            "space of LSTI: config key (hidden_siz) must be one that is read (did you mean hidden_",
        ),
        ([], "topk: [5, 10]\n", "setting (topk) must not be searched: it changes what is measured"),
        (["--hidden_size=8"], SPACE, "setting (hidden_size) must be searched or given, not both"),
        (
            ["--models", "LSTJ"],
            SPACE,
            "model (LSTJ) must be a sequential model of RecBole or LSTI (did you mean LSTI?)",
        ),
        (["--models", "LSTI,LSTI"], SPACE, "models (LSTI, LSTI) must be one model or more, each named once"),
        (["--models", "LSTI,GRU4Rec"], "short_window: [2]\n", "space of GRU4Rec: config key (short_window) must be"),
        (["-d", "tinny"], SPACE, "dataset (tinny) must be a folder in data_path"),
        (["--trials", "0"], SPACE, "trials (0) must be 1 or more"),
        (["--minutes", "0"], SPACE, "minutes (0.0) must be above 0"),
        (["--sampler", "tpee"], SPACE, "sampler (tpee) must be one of tpe, random (did you mean tpe?)"),
        (["--eval_step=0"], SPACE, "eval_step (0) must be 1 or more: trials are compared by validation"),
        (
            ["--storage", "space.yaml/x.log"],
            SPACE,
            "storage (space.yaml/x.log) must be a journal file or a database URL",
        ),
        (["--storage", "space.yaml"], SPACE, "storage (space.yaml) must be a journal file or a database URL"),
        (["--storage", "nosql://u:secret@h/x"], SPACE, "storage (nosql://h/x) must be a journal file or a database"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    flags: list[str], space: str, message: str, workplace: Path, tiny: Path, capsys: pytest.CaptureFixture
) -> None:
    Path("space.yaml").write_text(space)
    arguments = ["tune", "-d", "tiny", "--space", "space.yaml", f"--data_path={tiny}", *flags]
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "secret" not in error
    assert error.count("\n") == 1


def test_the_extra_is_named(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    for name in [name for name in sys.modules if name.startswith("recbole_lsti.tune.s")]:
        monkeypatch.delitem(sys.modules, name)
    assert cli.main(["tune", "--space", "space.yaml"]) == 2
    told = "tune needs optuna, from the extra tune: in the clone, pip install -e '.[tune]'"
    assert capsys.readouterr().err == f"recbole-lsti: {told}\n"


# ---- RecBole's own -----------------------------------------------------------------------------------------------


def test_recboles_hyper_tuning_takes_lsti(workplace: Path, settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hyperopt", exc_type=ImportError)
    from recbole.quick_start import objective_function
    from recbole.trainer import HyperTuning

    monkeypatch.setattr(sys, "argv", ["tuning"])  # RecBole's Config reads it
    Path("hyper.test").write_text("hidden_size choice [8, 16]\n")
    Path("fixed.yaml").write_text(yaml.safe_dump({**settings, "model": "LSTI", "dataset": "tiny"}))
    tuning = HyperTuning(objective_function, params_file="hyper.test", fixed_config_file_list=["fixed.yaml"])
    tuning.run()
    assert set(tuning.params2result) == {"hidden_size:8", "hidden_size:16"}
    assert tuning.best_params["hidden_size"] in (8, 16)
