"""Searches before the cells: what is searched, that every variant gets the same, that cells run with what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import read_trials

from benchmark.conftest import SETTINGS
from recbole_lsti.benchmark.execute import run_plan
from recbole_lsti.benchmark.options import Options
from recbole_lsti.benchmark.plan import from_dict
from recbole_lsti.benchmark.results import fingerprint, read_results
from recbole_lsti.cli import main

SPACE = {
    "learning_rate": {"log": [1e-3, 1e-1]},
    "LSTI": {"fusion": ["sum", "gate"]},
    "NARM": {"dropout_probs": [[0, 0]]},
}


def config_of(cell: str) -> dict[str, Any]:
    return yaml.safe_load(Path("out/cells", cell, "config.yaml").read_text(encoding="utf-8"))


def test_what_is_searched_for_each_variant(plan_of):
    plan = plan_of(
        ["LSTI", "NARM", {"fast": {"model": "GRU4Rec", "learning_rate": 0.1}}, "S3Rec"],
        controls=["LSTI-long", "Markov"],
        budget={"epochs": 1, "trials": 3},
        space=SPACE,
        seeds=2,
    )
    keys = {variant.name: set(plan.searched(variant)) for variant in plan.variants}
    assert keys["LSTI"] == {"learning_rate", "fusion"}
    assert keys["LSTI-long"] == {"learning_rate"}, "its fusion is what it is"
    assert keys["NARM"] == {"learning_rate", "dropout_probs"}
    assert keys["fast"] == set(), "its learning rate is its own"
    assert keys["S3Rec"] == set(), "the first of its stages has no validation"
    assert keys["Markov"] == set(), "it trains nothing"
    cells = plan.cells()
    searches = plan.searches(cells)
    assert [search.id for search in searches] == ["LSTI-tiny-loo", "NARM-tiny-loo", "LSTI-long-tiny-loo"]
    assert {(search.trials, search.settings["seed"], search.settings["epochs"]) for search in searches} == {
        (3, 2020, 1)
    }
    assert plan.searches(cells[-1:]) == [], "Markov waits for none"


def test_a_resolved_plan_holds_the_space_whatever_it_was_read_from(plan_of):
    Path("space.yaml").write_text(yaml.safe_dump(SPACE), encoding="utf-8")
    plans = [plan_of(["LSTI"], budget={"trials": 2}, space=space) for space in (SPACE, "space.yaml")]
    assert plans[0] == plans[1]
    assert from_dict(yaml.safe_load(yaml.safe_dump(plans[0].plain()))) == plans[0]
    plan = fingerprint(plans[0], plans[0].cells())["plan"]
    assert plan["space"]["LSTI"] == {"fusion": ["sum", "gate"]}
    assert plan["budget"]["trials"] == 2
    assert "space" not in plan_of(["LSTI"]).plain(), "folders without a search keep their fingerprint"


BAD = [
    ({"space": None}, r"budget: trials \(2\) must go with a space to search, and a space with trials"),
    ({"budget": {}}, r"budget: trials \(None\) must go with a space"),
    ({"budget": {"trials": 0}}, r"budget: trials \(0\) must be a whole number above 0"),
    ({"space": {"learning_rat": [1]}}, r"config key \(learning_rat\).*did you mean learning_rate\?"),
    ({"space": {"GRU4Rec": {"fusion": ["sum"]}}}, r"config key \(fusion\)"),
    ({"space": {"epochs": [1, 2]}}, "space: epochs must be left to the plan's budget and seeds"),
    ({"space": {"topk": [[5], [10]]}}, "space: topk must not be searched: it changes what is measured"),
    ({"space": {"hidden_size": [8, 16]}}, "space: hidden_size must be searched or given in settings, not both"),
    ({"space": {"learning_rate": 3}}, r"space: learning_rate \(3\) must be a list of values"),
    ({"space": {"LSTY": {"fusion": ["sum"]}}}, r"model \(LSTY\).*did you mean LSTI\?"),
    ({"space": 3}, r"space \(3\) must be a file or a dict of settings"),
    ({"space": "none.yaml"}, r"space \(none.yaml\) must be a file"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[str(change) for change, _ in BAD])
def test_a_bad_space_is_refused_in_a_line(plan_of, change, message):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message) as caught:
        plan_of(["LSTI"], **{"budget": {"trials": 2}, "space": {"learning_rate": [0.1]}, **change}).cells()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["hidden_size", "inner_size"])
def test_a_width_is_not_searched_beside_a_control_whose_own_follows_from_it(place, key):
    def cells(controls: Any, space: dict[str, Any], **more: Any) -> list[Any]:
        plan = {"models": ["LSTI", "SASRec"], "datasets": ["tiny"], "budget": {"trials": 2}}
        return from_dict({**plan, "controls": controls, "space": space, **more}).cells()

    space = {key: [8, 16]}
    for controls, wanted in ((True, space), (["LSTI-two-attentions"], {"LSTI": space})):
        with pytest.raises(
            ValueError, match=rf"space: {key} must not be searched beside the control LSTI-two-"
        ) as told:
            cells(controls, wanted)
        assert "controls must be false, or a list without LSTI-two-LSTMs and LSTI-two-attentions" in str(told.value)
    assert all(key in cell.space for cell in cells(False, space))
    assert cells(["LSTI-long", "Markov"], space)
    assert cells(True, {"SASRec": space, "LSTI": {"learning_rate": [0.1]}})
    assert cells(True, space, model_settings={"LSTI": {key: 32}}), "LSTI's own stands and is not searched"


@pytest.mark.slow
def test_cells_of_every_seed_run_with_the_best_settings_found(place, in_process, capsys):
    plan = {
        "models": ["LSTI"],
        "controls": ["LSTI-long", "Markov"],
        "datasets": ["tiny"],
        "seeds": 2,
        "budget": {"epochs": 1, "trials": 2},
        "space": {"learning_rate": {"log": [1e-3, 1e-1]}, "LSTI": {"fusion": ["sum"]}},
        "settings": SETTINGS,
    }
    Path("plan.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    assert main(["benchmark", "plan.yaml", "--output", "out"]) == 0
    error = capsys.readouterr().err
    assert "[2/2] LSTI-long-tiny-loo: ndcg@10" in error
    for variant, fusion in (("LSTI", "sum"), ("LSTI-long", "long")):
        folder = Path("out/tuning", f"{variant}-tiny-loo")
        trials = read_trials(folder)
        assert [trial["state"] for trial in trials] == ["complete"] * 2
        best = max(trials, key=lambda trial: float(trial["score"]))
        found = yaml.safe_load((folder / "best.yaml").read_text(encoding="utf-8"))
        assert found["seed"] == 2020
        assert "test" not in json.loads((folder / "result.json").read_text(encoding="utf-8"))
        for seed in (2020, 2021):
            config = config_of(f"{variant}-tiny-loo-{seed}")
            assert config["learning_rate"] == found["learning_rate"] == pytest.approx(float(best["learning_rate"]))
            assert config["fusion"] == fusion, "a variant stays what it is"
            assert (config["seed"], config["epochs"]) == (seed, 1)
        line = read_results("out").lines[f"{variant}-tiny-loo-2020"]
        assert line["valid"]["ndcg@10"] == pytest.approx(float(best["score"]), abs=1e-4), "the trial, trained again"
    table = Path("out/table.md").read_text(encoding="utf-8")
    assert "Each with the best settings of 2 trials on the validation items, seed 2020." in table
    assert "As they are, for nothing of them is searched: Markov." in table
    assert "LSTI-long keeps its own fusion." in table
    assert not Path("out/tuning/Markov-tiny-loo").exists()
    # what is complete is not searched again, what is not is
    kept = {path: path.stat().st_mtime_ns for path in Path("out/tuning/LSTI-tiny-loo").iterdir()}
    text = Path("out/results.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    Path("out/results.jsonl").write_text("".join(line for line in text if "-2021" not in line), encoding="utf-8")
    Path("out/tuning/LSTI-long-tiny-loo/result.json").unlink()  # as a kill leaves it
    trials = Path("out/tuning/LSTI-long-tiny-loo/trials.csv").read_text(encoding="utf-8")  # seconds and all
    assert main(["benchmark", "--output", "out", "--resume"]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert Path("out/tuning/LSTI-long-tiny-loo/trials.csv").read_text(encoding="utf-8") == trials, "its study went on"
    assert Path("out/tuning/LSTI-long-tiny-loo/result.json").is_file()
    assert len(read_results("out").lines) == 6
    assert main(["benchmark", "--output", "out", "--resume", "--trials", "3"]) == 2
    assert "plan.budget.trials was 2, is 3" in capsys.readouterr().err
    assert main(["benchmark", "--output", "out", "--resume", "--seeds", "2019,2020,2021"]) == 2
    assert "the first of plan.seeds was 2020, is 2019" in capsys.readouterr().err


def test_a_search_that_finds_nothing_fails_the_cells_and_is_made_again(plan_of):
    plan = plan_of(["LSTI"], budget={"epochs": 1, "trials": 1}, space={"n_heads": [3]})  # does not divide 8
    for resume in (False, True):
        (line,) = run_plan(plan, Path("out"), Options(), resume)
        assert line["status"] == "failed"
        assert (
            "no settings were found for it: ValueError: no trial has come to a score: ValueError: hidden"
            in line["reason"]
        )
    assert len(read_trials(Path("out/tuning/LSTI-tiny-loo"))) == 1


def test_a_trial_that_needs_too_much_memory_does_not_end_its_search(plan_of, in_process):
    plan = plan_of(["LSTI"], budget={"epochs": 1, "trials": 2, "memory_gib": 0.05}, space={"learning_rate": [0.01]})
    (line,) = run_plan(plan, Path("out"), Options())
    assert "no trial has come to a score: it needed more than memory_gib (0.05)" in line["reason"]
    assert len(read_trials(Path("out/tuning/LSTI-tiny-loo"))) == 2


@pytest.mark.slow
def test_searches_come_to_the_same_on_a_cluster(plan_of, request):
    pytest.importorskip("distributed")
    plan = plan_of(["LSTI", "NARM"], budget={"epochs": 1, "trials": 2}, space={"learning_rate": {"log": [1e-3, 1e-1]}})
    there = run_plan(plan, Path("out"), Options(jobs=2, executor="dask"))
    request.getfixturevalue("in_process")
    for remote, local in zip(there, run_plan(plan, Path("here"), Options()), strict=True):
        assert {**remote, "cost": None} == {**local, "cost": None}
    for name in ("LSTI-tiny-loo", "NARM-tiny-loo"):
        found = [json.loads(Path(out, "tuning", name, "result.json").read_text("utf-8")) for out in ("out", "here")]
        assert found[0]["values"] == found[1]["values"]
        assert read_trials(Path("out/tuning", name))


def test_a_dry_run_shows_what_is_searched_and_counts_the_trials(place, in_process, capsys):
    plan = {"models": ["GRU4Rec"], "controls": ["Markov"], "datasets": ["tiny"], "budget": {"epochs": 1}}
    Path("plan.yaml").write_text(yaml.safe_dump({**plan, "settings": SETTINGS}), encoding="utf-8")
    Path("space.yaml").write_text("learning_rate: {log: [1e-3, 1e-1]}\n", encoding="utf-8")
    assert main(["benchmark", "plan.yaml", "--dry-run", "--trials", "300", "--space", "space.yaml"]) == 0
    out = capsys.readouterr().out
    assert "# 300 trials before: {'learning_rate': {'log': [0.001, 0.1]}}" in out
    assert "# nothing is searched" in out
    rows = {line.split()[0]: line for line in out.splitlines() if " tiny loo " in line}
    assert "with 300 trials" in rows["GRU4Rec"]
    assert "trials" not in rows["Markov"]
    assert {path.name for path in place.iterdir()} == {"dataset", "plan.yaml", "space.yaml"}
