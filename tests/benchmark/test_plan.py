"""Plans: what they may say, what they come to, and what is wrong with a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import random_rows, write_inter

from recbole_lsti.benchmark.cli import find_plan
from recbole_lsti.benchmark.models import known_settings, needs, sequential_models
from recbole_lsti.benchmark.plan import CONTROLS, from_dict
from recbole_lsti.config import LSTIConfig, check_keys, external_settings, properties_folder

PROPERTIES = ("quick", "ml-100k")


def test_a_plan_comes_to_its_cells(plan_of):
    plan = plan_of(["GRU4Rec", {"narrow": {"model": "SASRec", "hidden_size": 4}}], seeds=2, split=["loo", "time"])
    cells = plan.cells()
    ids = [cell.id for cell in cells]
    assert len(set(ids)) == len(ids) == 8
    assert ids[:2] == ["GRU4Rec-tiny-loo-2020", "narrow-tiny-loo-2020"]
    assert ids[-1] == "narrow-tiny-time-2021", "a board is whole before the next seed begins"
    wide, narrow = cells[0].settings, cells[1].settings
    assert (wide["hidden_size"], narrow["hidden_size"]) == (8, 4)
    assert (wide["seed"], cells[-1].settings["seed"]) == (2020, 2021)
    assert wide["epochs"] == 1
    assert wide["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert cells[-1].settings["eval_args"]["split"] == {"TS": [0.8, 0.1, 0.1]}
    assert "n_layers" not in wide, "GRU4Rec does not know it"
    assert "n_layers" in narrow


def test_a_key_that_nobody_is_known_to_read_passes_where_it_is_forced(plan_of):
    with pytest.raises(ValueError, match=r"config key \(made_up\) must be one .*; force_unknown_keys=True lets"):
        plan_of(["GRU4Rec"], settings={"made_up": 1}).cells()
    (cell,) = plan_of(["GRU4Rec"], settings={"made_up": 1, "force_unknown_keys": True}).cells()
    assert cell.settings["made_up"] == 1


def test_a_row_may_run_with_some_of_the_seeds(plan_of):
    cells = plan_of(["GRU4Rec", {"SASRec": {"seeds": 1}}], seeds=3).cells()
    assert [cell.id.split("-tiny-loo-") for cell in cells] == [
        ["GRU4Rec", "2020"],
        ["SASRec", "2020"],
        ["GRU4Rec", "2021"],
        ["GRU4Rec", "2022"],
    ]
    assert "seeds" not in cells[1].settings


def test_all_rows_of_a_model_may_have_settings_of_their_own(plan_of):
    own = {"LSTI": {"n_layers": 3, "short_window": 4}}
    models = ["LSTI", {"narrow": {"model": "LSTI", "short_window": 2}}, "SASRec"]
    plan = plan_of(models, controls=["LSTI-long"], model_settings=own, settings={"n_layers": 2})
    found = {cell.variant: cell.settings for cell in plan.cells()}
    assert [found[name]["n_layers"] for name in ("LSTI", "narrow", "LSTI-long", "SASRec")] == [3, 3, 3, 2]
    assert [found[name]["short_window"] for name in ("LSTI", "narrow", "LSTI-long")] == [4, 2, 4]


def test_a_resolved_plan_reads_back(plan_of):
    models = ["LSTI", {"x": {"model": "LSTI", "fusion": "sum", "seeds": 1}}]
    own = {"LSTI": {"n_layers": 3}}
    for controls in (True, ["Markov", {"LSTI-long": {"seeds": 1}}]):
        plan = plan_of(models, seeds=[3, 1], controls=controls, ranking="uni20", model_settings=own)
        assert from_dict(yaml.safe_load(yaml.safe_dump(plan.plain()))) == plan


def test_controls_stand_beside_lsti_unless_they_are_left_out(plan_of):
    names = [variant.name for variant in plan_of(["LSTI"], controls=True).variants]
    assert names == ["LSTI", *CONTROLS]
    assert [variant.name for variant in plan_of(["LSTI"]).variants] == ["LSTI"]
    assert [variant.name for variant in plan_of(["STAMP"], controls=True).controls] == ["Markov", "Popularity"]
    asked = plan_of(["LSTI", {"mine": {"model": "LSTI", "fusion": "long"}}, "SASRec"], controls=True)
    left = [variant.name for variant in asked.controls]
    assert "LSTI-long" not in left, "it is there under another name"
    assert "SASRec" not in left
    assert "SASRec-sequence" in left
    assert [variant.model for variant in plan_of(["LSTI"], controls=["Pop"]).controls] == ["Popularity"]


def test_a_control_may_run_with_fewer_seeds(plan_of):
    plan = plan_of(["LSTI"], seeds=2, controls=["LSTI-short", {"LSTI-long": {"seeds": 1}}])
    names = [cell.variant for cell in plan.cells()]
    assert (names.count("LSTI"), names.count("LSTI-short"), names.count("LSTI-long")) == (2, 2, 1)
    assert next(cell for cell in plan.cells() if cell.variant == "LSTI-long").settings["fusion"] == "long"


def test_no_setting_exceeds_the_budget(plan_of):
    own = {"epochs": 9, "train_seconds_limit": 600}
    models = ["GRU4Rec", {"more": {"model": "GRU4Rec", **own}}, {"less": {"model": "GRU4Rec", "epochs": 2}}]
    cells = plan_of(models, settings={"epochs": 8}, budget={"epochs": 5, "minutes": 1}).cells()
    assert [cell.settings["epochs"] for cell in cells] == [5, 5, 2]
    assert [cell.settings["train_seconds_limit"] for cell in cells] == [60, 60, 60]


def test_a_larger_budget_than_a_model_s_own_epochs_leaves_them(plan_of):
    (cell,) = plan_of(["LSTI"], budget={"epochs": 50}).cells()
    assert cell.settings["epochs"] == LSTIConfig("LSTI", "tiny")["epochs"] < 50


def test_training_free_controls_need_no_epochs(plan_of):
    cells = {
        cell.variant: cell for cell in plan_of(["LSTI"], controls=True, budget={"epochs": 7, "minutes": 2}).cells()
    }
    assert cells["LSTI-long"].settings["epochs"] == 7
    assert "epochs" not in cells["Markov"].settings
    assert cells["LSTI"].settings["train_seconds_limit"] == 120


BAD = [
    ({"models": ["LSTY"]}, r"models \(LSTY\) must be a sequential model .*did you mean LSTI\?"),
    ({"models": []}, r"models \(\[\]\) must be a list of models and variants, or all"),
    ({"models": ["LSTI", "LSTI"]}, "models: LSTI must stand there once"),
    ({"models": ["LSTI", {"LSTI": {"model": "LSTI", "fusion": "sum"}}]}, "models: LSTI must stand there once"),
    ({"models": [{"a/b": {"model": "LSTI"}}]}, r"models: name \(a/b\) must be of letters"),
    ({"models": [{"a": {"model": "LSTI"}, "b": {}}]}, "must be a model's name or"),
    ({"models": [{"a": {"model": "LSTI", "fussion": "sum"}}]}, r"config key \(fussion\).*did you mean fusion\?"),
    ({"models": [{"a": {"model": "LSTI", "seed": 1}}]}, "models: seed of a must be left to the plan's"),
    ({"datasets": ["tinny"]}, r"dataset \(tinny\) must be a folder .*did you mean tiny\?"),
    ({"datasets": []}, "must name at least one"),
    ({"datasets": ["tiny", "tiny"]}, "datasets: tiny must stand there once"),
    ({"split": "lo"}, r"split \(lo\) must be one of loo, time, ratio \(did you mean loo\?\)"),
    ({"seeds": 0}, r"seeds \(0\) must be how many"),
    ({"seeds": [1, 1]}, "must be different"),
    ({"seeds": "x"}, r"seeds \(x\) must be how many"),
    ({"ranking": "uni"}, r"ranking \(uni\) must be full, or uniN or popN"),
    ({"budget": {"epoch": 1}}, r"key of budget \(epoch\) must be one of .*did you mean epochs\?"),
    ({"budget": {"epochs": 1.5}}, r"budget: epochs \(1.5\) must be a whole number above 0"),
    ({"budget": {"minutes": -1}}, r"budget: minutes \(-1\) must be a number above 0"),
    ({"settings": {"hiden_size": 8}}, r"config key \(hiden_size\).*did you mean hidden_size\?"),
    ({"settings": {"metrics": ["NDGC"]}}, r"metrics \(NDGC\) must be of .*did you mean ndcg\?"),
    ({"models": [{"a": {"model": "LSTI", "topk": [5]}}]}, "models: topk of a must be left to the plan's settings"),
    ({"settings": {"seed": 1}}, "settings: seed must be left to the plan's"),
    (
        {"models": [{"a": {"model": "LSTI", "seeds": 0}}]},
        r"models: seeds \(0\) of a must be how many of the plan's seeds",
    ),
    ({"model_settings": {"LSTY": {}}}, r"model_settings \(LSTY\) must be a sequential model .*did you mean LSTI\?"),
    ({"model_settings": {"NARM": {"n_layers": 1}}}, "model_settings: NARM must be one of the plan's models, LSTI"),
    ({"model_settings": {"LSTI": 1}}, "model_settings .* must be a dict of a dict of settings for each model"),
    ({"model_settings": {"LSTI": {"seeds": 1}}}, "model_settings: seeds of LSTI must be left to the rows"),
    ({"model_settings": {"LSTI": {"topk": 3}}}, "model_settings: topk of LSTI must be left to the plan's settings"),
    ({"settings": [1]}, r"settings \(\[1\]\) must be a dict"),
    ({"controls": [{"LSTI-long": {"n_layers": 1}}]}, r"controls: \{.*\} must be a name or \{name: \{seeds: N\}\}"),
    ({"controls": [{"LSTI-long": {"seeds": 0}}]}, r"controls: seeds \(0\) of LSTI-long must be how many"),
    ({"controls": ["Markov", {"Markov": {"seeds": 1}}]}, "controls: Markov must stand there once"),
    ({"controls": [3]}, r"controls: 3 must be a name or"),
    ({"controls": 3}, r"controls \(3\) must be true, false, or a list"),
    ({"controls": ["Markow"]}, r"controls \(Markow\) must be of .*did you mean Markov\?"),
    ({"model": ["LSTI"]}, r"key of the plan \(model\) must be one of .*did you mean models\?"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[str(change) for change, _ in BAD])
def test_a_bad_plan_is_refused_in_a_line(place, change, message):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message) as caught:
        from_dict({"models": ["LSTI"], "datasets": ["tiny"], "controls": False, **change}).cells()
    assert "\n" not in str(caught.value)


def test_cells_that_come_to_one_name_are_refused(place):
    write_inter(place / "dataset", "b-tiny", random_rows())
    models = ["LSTI", {"LSTI-b": {"model": "LSTI", "fusion": "sum"}}]
    with pytest.raises(ValueError, match=r"cell \(LSTI-b-tiny-loo-2020\) must be one"):
        from_dict({"models": models, "datasets": ["tiny", "b-tiny"], "controls": False}).cells()


# ---- what models need -----------------------------------------------------------------------------------------------


def write_items(place: Path) -> None:
    lines = ["item_id:token\tgenre:token_seq\tyear:float"] + [f"i{k}\tg{k % 3} g{k % 4}\t{k}" for k in range(30)]
    (place / "dataset/tiny/tiny.item").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_models_that_cannot_run_are_told_with_the_reason(plan_of):
    cells = {cell.variant: cell for cell in plan_of("all").cells()}
    reasons = {name: cell.reason for name, cell in cells.items() if cell.reason}
    assert set(reasons) == {"GRU4RecF", "SASRecF", "FDSA", "S3Rec", "GRU4RecKG", "KSR"}
    assert reasons["FDSA"] == "needs attributes of items: tiny.item must have a token or token_seq column"
    assert reasons["KSR"].startswith("needs a knowledge graph with embeddings: tiny.kg, tiny.link, tiny.ent, tiny.rel")
    assert len(cells) == len(sequential_models()) - 2, "all but the training-free ones"
    assert len(cells) >= 32


def test_attributes_are_found_and_chosen(place):
    write_items(place)
    found = needs("SASRecF", "tiny", {})
    assert found.reason is None
    assert found.settings == {
        "selected_features": ["genre"],
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "genre"]},
    }
    assert needs("S3Rec", "tiny", {}).settings["item_attribute"] == "genre"
    assert needs("FDSA", "ml-100k", {}).settings["selected_features"] == ["class"]
    refused = needs("FDSA", "tiny", {"selected_features": ["maker"]})
    assert refused.reason == "needs attributes of items: tiny.item has no maker; it has genre"


def test_negatives_are_those_that_each_model_trains_on(plan_of):
    sampling = {"FPMC", "TransRec", "SINE", "DIN", "DIEN"}  # pairwise ones, and those that read a label
    for cell in plan_of("all").cells():
        if cell.reason is None:
            config = LSTIConfig(cell.model, "tiny", config_dict=cell.settings)
            sampled = config["train_neg_sample_args"]["distribution"] != "none"
            assert sampled == (cell.model in sampling or config["loss_type"] == "BPR"), cell.model


# ---- the plans that come with the package ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROPERTIES)
def test_the_plans_in_properties_hold(name):
    plan = from_dict(external_settings([str(find_plan(name))], None))
    cells = plan.cells()
    assert not [cell.reason for cell in cells if cell.reason]
    assert plan.minutes is not None
    names = {variant.name for variant in plan.variants}
    assert {"LSTI", "LSTI-long", "LSTI-short", "Markov", "Popularity"} <= names
    if name == "ml-100k":
        theirs = {variant.model for variant in plan.variants} - {"LSTI", "Markov", "Popularity"}
        assert len(theirs) >= 8
        assert {"SASRec", "SASRec-sequence", "GRU4Rec", "GRU4Rec-sequence"} <= names


@pytest.mark.parametrize("path", sorted(find_plan("quick").parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_plans_in_properties_are_understood(path):
    plan = from_dict(external_settings([str(path)], None))
    for variant in plan.variants:
        check_keys(plan.own_settings(variant), known_settings(variant.model))


def test_plans_are_found_by_name_and_by_path(place):
    assert find_plan("quick") == find_plan("quick.yaml") == properties_folder() / "benchmark/quick.yaml"
    (place / "mine.yaml").write_text("models: [LSTI]\n", encoding="utf-8")
    assert find_plan("mine.yaml") == Path("mine.yaml")
    with pytest.raises(FileNotFoundError, match=r"plan \(quik\) must be a YAML file or one of .*did you mean quick\?"):
        find_plan("quik")
    for path in ("myboards/quick.yaml", "./quick.yaml", "myboards/quick"):
        with pytest.raises(FileNotFoundError, match=rf"plan \({path}\) must be a YAML file or one of"):
            find_plan(path)
