"""recbole-lsti tune: the search, its budget, what is refused, RecBole's own search."""

from __future__ import annotations

import inspect
import io
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import read_trials

import recbole_lsti
from recbole_lsti import cli
from recbole_lsti.trainer import PortableTrainer
from recbole_lsti.tune import tune
from recbole_lsti.tune.cli import arguments_of
from recbole_lsti.tune.output import _Replaced

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


@pytest.mark.parametrize(
    ("content", "flags", "models", "dataset"),
    [
        (None, [], ["LSTI"], "ml-100k"),
        ("dataset: shop\n", [], ["LSTI"], "shop"),
        ("model: GRU4Rec\ndataset: shop\n", [], ["GRU4Rec"], "shop"),
        ("model: GRU4Rec\ndataset: shop\n", ["--models", "SASRec,LSTI", "-d", "tiny"], ["SASRec", "LSTI"], "tiny"),
    ],
)
def test_config_files_may_name_the_model_and_the_data_set(
    content: str | None, flags: list[str], models: list[str], dataset: str, workplace: Path
) -> None:
    if content is not None:
        Path("shop.yaml").write_text(content)
        flags = ["--config_files", "shop.yaml", *flags]
    given = arguments_of(cli.build_parser().parse_args(["tune", "--space", "space.yaml", *flags]), {})
    assert (given["models"], given["dataset"]) == (models, dataset)


def test_a_file_is_replaced_whole_by_processes_that_have_one_number(workplace: Path) -> None:
    with _Replaced(Path("trials.csv")) as first, _Replaced(Path("trials.csv")) as second:  # as on two machines
        first.write("first")
        second.write("second")
    assert Path("trials.csv").read_text() == "first", "the one that ended last"
    assert {path.name for path in workplace.iterdir()} == {"space.yaml", "trials.csv"}


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
        (["--hidden_size=8"], None, "setting (hidden_size) must be searched or given, not both"),
        (
            ["--models", "LSTJ"],
            None,
            "model (LSTJ) must be a sequential model of RecBole or LSTI (did you mean LSTI?)",
        ),
        (["--models", "LSTI,LSTI"], None, "models (LSTI, LSTI) must be one model or more, each named once"),
        (["--models", "LSTI,GRU4Rec"], "short_window: [2]\n", "space of GRU4Rec: config key (short_window) must be"),
        (["-d", "tinny"], None, "dataset (tinny) must be a folder in data_path"),
        (["--trials", "0"], None, "trials (0) must be 1 or more"),
        (["--minutes", "0"], None, "minutes (0.0) must be above 0"),
        (["--sampler", "tpee"], None, "sampler (tpee) must be one of tpe, random (did you mean tpe?)"),
        (["--eval_step=0"], None, "eval_step (0) must be 1 or more: trials are compared by validation"),
        (
            ["--storage", "space.yaml/x.log"],
            None,
            "storage (space.yaml/x.log) must be a journal file or a database URL",
        ),
        (["--storage", "space.yaml"], None, "storage (space.yaml) must be a journal file or a database URL"),
        (["--storage", "nosql://u:secret@h/x"], None, "storage (nosql://h/x) must be a journal file or a database"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    flags: list[str], space: str | None, message: str, workplace: Path, tiny: Path, capsys: pytest.CaptureFixture
) -> None:
    if space is not None:
        Path("space.yaml").write_text(space)
    dataset = [] if "-d" in flags else ["-d", "tiny"]
    arguments = ["tune", *dataset, "--space", "space.yaml", f"--data_path={tiny}", *flags]
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
