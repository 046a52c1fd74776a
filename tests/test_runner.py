"""run(), RecBole's stock flow, processes: on data made here and on ml-100k. Checkpoints: test_checkpoint.py."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import random_rows, write_inter
from helpers import make_trainer
from recbole.trainer import Trainer

import recbole_lsti
from recbole_lsti import cli
from recbole_lsti.cli import format_result
from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import LSTIDataset, create_dataset
from recbole_lsti.runner import build
from recbole_lsti.trainer import LSTITrainer, trainer_class

KEYS = {
    *("model", "dataset", "best_valid_score", "valid_score_bigger", "best_valid_result", "test_result"),
    *("test_result_unseen", "run_dir", "checkpoint_file", "train_seconds", "epochs_run", "best_epoch"),
    *("train_steps", "n_parameters", "peak_rss_mib"),
}


def test_run_returns_and_writes_plain_results(tiny, workplace, small):
    result = recbole_lsti.run("LSTI", "tiny", config_dict={**small, "data_path": str(tiny)})
    assert set(result) == KEYS
    run_dir = Path(result["run_dir"])
    assert json.loads((run_dir / "metrics.json").read_text(encoding="utf-8")) == result
    assert type(result["best_valid_score"]) is float
    assert {type(value) for value in result["test_result"].values()} == {float}
    assert result["epochs_run"] == 2
    assert result["train_steps"] == 4  # two epochs of two batches
    assert result["n_parameters"] > 500
    assert result["peak_rss_mib"] > 100
    files = {path.name for path in run_dir.iterdir()}
    assert files == {"checkpoint.pth", "config.yaml", "metrics.json", "learning_curve.csv", "run.log", "tensorboard"}
    assert (run_dir / "learning_curve.csv").read_text(encoding="utf-8").count("\n") == 3
    assert "valid_score" in (run_dir / "run.log").read_text(encoding="utf-8")
    assert [path.name for path in workplace.iterdir()] == ["saved"], "nothing is written elsewhere"
    again = recbole_lsti.run(None, None, config_file_list=[str(run_dir / "config.yaml")])
    for key in ("test_result", "best_valid_result", "test_result_unseen", "best_epoch"):
        assert again[key] == result[key], "config.yaml repeats the run"


def test_unsaved_run_writes_nothing_and_tests_the_best_epoch(tiny, workplace, small):
    settings = {**small, "data_path": str(tiny), "learning_rate": 0.05, "epochs": 6}
    kept = recbole_lsti.run("LSTI", "tiny", config_dict=settings, saved=False)
    assert list(workplace.iterdir()) == []
    assert kept["run_dir"] is None
    assert kept["checkpoint_file"] is None
    saved = recbole_lsti.run("LSTI", "tiny", config_dict=settings)
    assert kept["test_result"] == saved["test_result"]
    assert kept["best_epoch"] == saved["best_epoch"] < 6, "the best epoch must not be the last, or this tells nothing"


def test_runs_of_the_same_second_do_not_collide(tiny, workplace, small):
    from recbole_lsti.runner import _make_run_dir

    config = LSTIConfig("LSTI", "tiny", config_dict={**small, "data_path": str(tiny)})
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: _make_run_dir(config), range(24)))
    assert len({folder.name for folder in folders}) == 24


@pytest.mark.parametrize("loss_type", ["BPR", "gBCE"])
def test_stock_recbole_draws_the_negatives_that_a_loss_needs(tiny, workplace, small, monkeypatch, loss_type):
    from recbole.quick_start import run_recbole

    monkeypatch.setattr(sys, "argv", ["prog"])
    settings = {**small, "data_path": str(tiny), "loss_type": loss_type}
    result = run_recbole("LSTI", "tiny", config_dict=settings)["test_result"]
    ours = recbole_lsti.run("LSTI", "tiny", config_dict=settings)["test_result"]
    assert {key: float(value) for key, value in result.items()} == ours


def test_a_run_that_ends_before_its_first_validation_tests_its_last_epoch(tiny, workplace, small):
    settings = {**small, "data_path": str(tiny), "epochs": 3, "eval_step": 2, "train_seconds_limit": 1e-6}
    result = recbole_lsti.run("LSTI", "tiny", config_dict=settings)
    assert (result["epochs_run"], result["best_epoch"], result["best_valid_result"]) == (1, 1, None)
    loaded = recbole_lsti.load(result["checkpoint_file"])
    trainer = trainer_class(loaded.config)(loaded.config, loaded.model)
    found = trainer.evaluate(loaded.test_data, load_best_model=False)
    assert {key: float(value) for key, value in found.items()} == result["test_result"]


def test_lsti_trains_on_the_split_files_of_a_conversion(tiny, workplace, small):
    lines = (tiny / "tiny" / "tiny.inter").read_text().splitlines()
    later = [line.rsplit("\t", 1) for line in lines[1:]]  # times of small numbers are none that the converter believes
    text = "\n".join(["user,item,timestamp", *(f"{ids},{int(time) + 10**9}".replace("\t", ",") for ids, time in later)])
    Path("log.csv").write_text(text + "\n")
    assert cli.main(["convert", "log.csv", "--name", "cut", "--output", "data", "--split", "loo", "--quiet"]) == 0
    result = recbole_lsti.run("LSTI", "cut", ["data/cut/cut.yaml"], {**small, "data_path": "data"})
    assert result["epochs_run"] == 2
    assert 0 < result["test_result"]["recall@10"] <= 1


def test_a_class_is_taken_as_a_model(tiny, workplace, small):
    from recbole_lsti.model.lsti import LSTI

    by_class = recbole_lsti.run(LSTI, "tiny", config_dict={**small, "data_path": str(tiny)}, saved=False)
    by_name = recbole_lsti.run("LSTI", "tiny", config_dict={**small, "data_path": str(tiny)}, saved=False)
    assert by_class["test_result"] == by_name["test_result"]

    class Mine(LSTI):
        pass

    mine = recbole_lsti.run(Mine, "tiny", config_dict={**small, "data_path": str(tiny)})
    assert mine["model"] == "Mine"
    assert mine["test_result"] == by_name["test_result"]
    assert isinstance(recbole_lsti.load(mine["checkpoint_file"], model=Mine).model, Mine)


def test_stock_recbole_uses_our_model_properties_dataset_and_trainer(tiny, workplace, small, monkeypatch):
    from recbole.quick_start import quick_start

    made = {}
    real = quick_start.get_trainer
    monkeypatch.setattr(quick_start, "get_trainer", lambda *a: made.setdefault("trainer", real(*a)))
    monkeypatch.setattr(sys, "argv", ["prog"])
    result = quick_start.run_recbole("LSTI", "tiny", config_dict={**small, "data_path": str(tiny)})
    assert made["trainer"] is LSTITrainer
    ours = recbole_lsti.run("LSTI", "tiny", config_dict={**small, "data_path": str(tiny)})
    assert {key: float(value) for key, value in result["test_result"].items()} == ours["test_result"]
    config = quick_start.Config("LSTI", "tiny", config_dict={"data_path": str(tiny)})
    assert config["train_mode"] == "sequence"
    assert type(quick_start.create_dataset(config)) is LSTIDataset
    found = quick_start.objective_function({**small, "model": "LSTI", "dataset": "tiny", "data_path": str(tiny)}, None)
    assert {key: float(value) for key, value in found["test_result"].items()} == ours["test_result"]


@pytest.mark.parametrize("model", ["GRU4Rec", "SASRec", "FPMC"])
def test_built_in_models_get_recboles_own_metrics(tiny, workplace, monkeypatch, model):
    """The file is in time order, so RecBole reads it rightly: the same seed gives the same metrics, digit for digit."""
    from recbole.quick_start import run_recbole

    settings = {
        "data_path": str(tiny),
        "epochs": 2,
        "metrics": ["NDCG", "Hit"],
        "valid_metric": "NDCG@10",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "train_batch_size": 64,
        "show_progress": False,
    }
    ours = recbole_lsti.run(model, "tiny", config_dict=settings)
    monkeypatch.setattr(sys, "argv", ["prog"])
    if model != "FPMC":
        settings["train_neg_sample_args"] = None
    theirs = run_recbole(model, "tiny", config_dict=settings)
    for key in ("test_result", "best_valid_result"):
        assert ours[key] == {name: float(value) for name, value in theirs[key].items()}


SEQUENTIAL = [
    "BERT4Rec",
    "CORE",
    "Caser",
    "DIEN",
    "DIN",
    "FEARec",
    "FOSSIL",
    "FPMC",
    "GCSAN",
    "GRU4Rec",
    "HGN",
    "HRM",
    "LightSANs",
    "NARM",
    "NPE",
    "NextItNet",
    "RepeatNet",
    "SASRec",
    "SHAN",
    "SINE",
    "SRGNN",
    "STAMP",
    "TransRec",
    "GRU4RecF",
    "SASRecF",
    "FDSA",
    "S3Rec",
    "GRU4RecKG",
    "KSR",
]


@pytest.mark.slow
@pytest.mark.parametrize("model", SEQUENTIAL)
def test_every_sequential_model_of_recbole_runs_by_name(tmp_path, workplace, model):
    """One epoch on a small data set with item attributes and a small knowledge graph."""
    items = sorted({row[1] for row in random_rows()})
    write_inter(tmp_path, "tiny", random_rows())
    folder = tmp_path / "tiny"
    lines = ["item_id:token\tclass:token_seq", *(f"{item}\tc{k % 4} c{k % 3}" for k, item in enumerate(items))]
    (folder / "tiny.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        "data_path": str(tmp_path),
        "epochs": 1,
        "show_progress": False,
        "MAX_ITEM_LIST_LENGTH": 10,
        "train_batch_size": 128,
    }
    if model in ("GRU4RecF", "SASRecF", "FDSA", "S3Rec", "DIN", "DIEN"):
        load = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]}
        settings |= {"load_col": load}
    if model in ("GRU4RecF", "SASRecF", "FDSA"):
        settings |= {"selected_features": ["class"]}
    if model == "S3Rec":
        settings |= {"item_attribute": "class", "train_stage": "pretrain", "pretrain_epochs": 1, "save_step": 1}
    if model in ("GRU4RecKG", "KSR"):
        settings |= knowledge_graph(folder, items)
    result = recbole_lsti.run(model, "tiny", config_dict=settings, saved=model != "S3Rec")
    assert [path.name for path in workplace.iterdir()] == ([] if model == "S3Rec" else ["saved"])
    assert result["epochs_run"] == 1
    assert 0 <= result["test_result"]["ndcg@10"] <= 1


def knowledge_graph(folder: Path, items: list[str]) -> dict:
    random = np.random.default_rng(0)
    size = {"GRU4RecKG": 64, "KSR": 64}["KSR"]
    ent = ["ent_id:token\tent_emb:float_seq"] + [
        f"e{k}\t" + " ".join(f"{x:.3f}" for x in random.normal(size=size)) for k in range(len(items))
    ]
    rel = ["rel_id:token\trel_emb:float_seq", "r\t" + " ".join(f"{x:.3f}" for x in random.normal(size=size))]
    kg = ["head_id:token\trelation_id:token\ttail_id:token"] + [
        f"e{k}\tr\te{(k + 1) % len(items)}" for k in range(len(items))
    ]
    link = ["item_id:token\tentity_id:token"] + [f"{item}\te{k}" for k, item in enumerate(items)]
    for suffix, lines in (("ent", ent), ("rel", rel), ("kg", kg), ("link", link)):
        (folder / f"tiny.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    load = {
        "inter": ["user_id", "item_id", "timestamp"],
        "kg": ["head_id", "relation_id", "tail_id"],
        "link": ["item_id", "entity_id"],
        "ent": ["ent_id", "ent_emb"],
        "rel": ["rel_id", "rel_emb"],
    }
    return {
        "load_col": load,
        "additional_feat_suffix": ["ent", "rel"],
        "alias_of_entity_id": ["ent_id"],
        "alias_of_relation_id": ["rel_id"],
        "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
    }


@pytest.mark.slow
@pytest.mark.parametrize("split", ["valid_and_test", "test_only"])
def test_two_processes_train_one_model(tiny, workplace, small, split):
    settings = {**small, "data_path": str(tiny), "eval_args": {"split": {"LS": split}}}
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", "recbole_lsti.cli", "train", "-d", "tiny", "--nproc", "2", *arguments]
    for _ in range(2):  # another program may be faster to take the port
        done = subprocess.run([*command, "--port", str(free_port())], capture_output=True, text=True, timeout=300)
        if "address already in use" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    (run_dir,) = (workplace / "saved").iterdir()
    result = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    loaded = recbole_lsti.load(result["checkpoint_file"])
    trainer = trainer_class(loaded.config)(loaded.config, loaded.model)
    trainer.eval_collector.data_collect(loaded.train_data)
    found = trainer.evaluate(loaded.test_data, load_best_model=False)
    assert {key: float(value) for key, value in found.items()} == result["test_result"], "one process finds the same"


def free_port() -> int:
    import socket

    with socket.socket() as each:
        each.bind(("localhost", 0))
        return each.getsockname()[1]


@pytest.mark.parametrize("mode", ["uni5", "full"])
def test_sampled_evaluation_has_no_unseen_ranking(tiny, workplace, small, mode):
    settings = {
        **small,
        "data_path": str(tiny),
        "epochs": 1,
        "eval_args": {"split": {"LS": "valid_and_test"}, "mode": mode},
    }
    settings["eval_args"] |= {"order": "TO", "group_by": "user"}
    result = recbole_lsti.run("LSTI", "tiny", config_dict=settings, saved=False)
    assert (result["test_result_unseen"] is None) == (mode != "full")


def test_a_model_is_judged_by_values_among_sampled_items(tiny, workplace, small):
    args = {"split": {"LS": "valid_and_test"}, "mode": "uni5", "order": "TO", "group_by": "user"}
    values = {"metrics": ["AUC", "LogLoss"], "valid_metric": "AUC", "eval_args": args, "epochs": 1}
    result = recbole_lsti.run("LSTI", "tiny", config_dict={**small, **values, "data_path": str(tiny)}, saved=False)
    assert 0 <= result["test_result"]["auc"] <= 1
    assert result["test_result_unseen"] is None


@pytest.mark.parametrize("more", [{}, {"time_gaps": True, "MAX_ITEM_LIST_LENGTH": 2, "eval_batch_size": 3}], ids=str)
@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, {"RS": [0.4, 0.3, 0.3]}], ids=str)
def test_a_history_is_read_once_for_all_its_sampled_items(workplace, small, split, more, monkeypatch):
    rows = [(user, f"i{n // 5}", 100 + n + n * n) for user in ("a", "b", "c") for n in range(15)]  # items come again
    write_inter(workplace, "again", [*rows, *((user, item, time) for user, item, time in random_rows(8, 20))])
    args = {"split": split, "mode": "uni9", "order": "TO", "group_by": "user"}
    given = {**small, **more, "data_path": str(workplace), "eval_args": args}
    config = LSTIConfig("LSTI", "again", config_dict=given)
    _, (_, _, test_data), model = build(config)
    if model.event_inputs is not None:
        torch.nn.init.normal_(model.event_inputs.gap.weight)
    trainer, read = LSTITrainer(config, model.eval()), []
    trainer.tot_item_num = test_data._dataset.item_num
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda interaction: read.append(len(interaction)) or encode(interaction))
    asked = 0
    with torch.no_grad():
        for batch in test_data:
            ours = trainer._neg_sample_batch_eval(batch)
            theirs = Trainer._neg_sample_batch_eval(trainer, batch)
            torch.testing.assert_close(ours[1:], theirs[1:], atol=1e-5, rtol=1e-5)
            asked += len(batch[0])
    assert max(read) <= config["eval_batch_size"]
    assert sum(read) == asked // 10


def test_pieces_work_one_by_one(tiny, workplace, small):
    from recbole.data import data_preparation

    config = LSTIConfig("LSTI", "tiny", config_dict={**small, "data_path": str(tiny)})
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    model = recbole_lsti.LSTI(config, train_data._dataset)
    trainer = LSTITrainer(config, model)
    score, _ = trainer.fit(train_data, valid_data, saved=False)
    assert 0 <= score <= 1
    assert trainer.evaluate(test_data, load_best_model=True)["ndcg@10"] >= 0


@pytest.mark.parametrize("left_out", ["test_only", "valid_only"])
@pytest.mark.parametrize("saved", [True, False])
def test_a_split_without_validation_or_test_works(tiny, workplace, small, left_out, saved):
    settings = {**small, "data_path": str(tiny), "eval_args": {"split": {"LS": left_out}}}
    result = recbole_lsti.run("LSTI", "tiny", config_dict=settings, saved=saved)
    assert (result["best_valid_result"] is None) == (left_out == "test_only")
    assert (result["test_result"] is None) == (left_out == "valid_only")
    assert result["best_epoch"] in ((2,) if left_out == "test_only" else (1, 2))
    assert "best epoch" in format_result(result)


def test_names_in_files_and_dicts_count(tiny, workplace, small, tmp_path):
    file = tmp_path / "named.yaml"
    file.write_text(yaml.safe_dump({**small, "model": "LSTI", "dataset": "tiny", "data_path": str(tiny)}), "utf-8")
    assert recbole_lsti.run(config_file_list=[str(file)], saved=False)["dataset"] == "tiny"
    assert (
        recbole_lsti.run(config_dict={**small, "dataset": "tiny", "data_path": str(tiny)}, saved=False)["dataset"]
        == "tiny"
    )
    with pytest.raises(FileNotFoundError, match=r"dataset \(other\) must be a folder"):
        recbole_lsti.run(dataset="other", config_file_list=[str(file)])
    with pytest.raises(TypeError, match=r"config_file_list \(a.yaml\) must be a list of files"):
        recbole_lsti.run(config_file_list="a.yaml")
    with pytest.raises(TypeError, match=r"config_dict \(\[1\]\) must be a dict"):
        recbole_lsti.run(config_dict=[1])


def test_a_refused_run_leaves_nothing(workplace, small, tmp_path):
    write_inter(tmp_path, "few", [(f"u{k % 4}", f"i{k % 3}", k) for k in range(20)])
    write_inter(tmp_path, "single", [(f"u{k}", f"i{k}", k) for k in range(30)])
    settings = {**small, "data_path": str(tmp_path)}
    with pytest.raises(ValueError, match=r"topk \(10\) must be below the number of items of few \(3\)"):
        recbole_lsti.run("LSTI", "few", config_dict=settings)
    nothing = r"dataset \(single\) must have a user with two events or more to train on"
    with pytest.raises(ValueError, match=nothing):
        recbole_lsti.run("LSTI", "single", config_dict=settings)
    with pytest.raises(ValueError, match=nothing):  # from one target a row
        recbole_lsti.run("GRU4Rec", "single", config_dict={"data_path": str(tmp_path), "use_gpu": False})
    (tmp_path / "ragged").mkdir()
    (tmp_path / "ragged/ragged.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\nu\ti\n", "utf-8")
    with pytest.raises(ValueError, match=r"ragged.inter, line 2"):
        recbole_lsti.run("LSTI", "ragged", config_dict=settings)
    assert list(Path("saved").iterdir()) == []
    with pytest.raises(ValueError, match=r"nproc \(0\) must be 1 or more"):
        recbole_lsti.run_processes(0)
    with pytest.raises(OSError, match=r"checkpoint_dir \(.*\) must be a folder that can be written to"):
        recbole_lsti.run("LSTI", "few", config_dict={**settings, "checkpoint_dir": str(tmp_path / "few/few.inter")})


def test_the_learning_rate_falls_to_its_end(tiny, workplace, small):
    trainer, _ = make_trainer(
        {**small, "data_path": str(tiny), "epochs": 3, "learning_rate_end": 0.1, "learning_rate": 1.0}
    )
    rates = []
    trainer.optimizer.register_step_pre_hook(lambda *_: rates.append(trainer.optimizer.param_groups[0]["lr"]))
    trainer.fit(trainer._train_data, None, saved=False)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(1.0)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_no_epochs_is_a_run_too(tiny, workplace, small):
    result = recbole_lsti.run("LSTI", "tiny", config_dict={**small, "data_path": str(tiny), "epochs": 0}, saved=False)
    assert result["epochs_run"] == 0
    assert result["test_result"]


@pytest.mark.parametrize("model", ["LSTI", "GRU4Rec"])
def test_a_time_limit_ends_training_at_an_epochs_end(tiny, workplace, model):
    settings = {"data_path": str(tiny), "show_progress": False, "hidden_size": 8, "epochs": 1000, "stopping_step": 1000}
    settings |= {"train_seconds_limit": 0.5, "use_gpu": False}
    result = recbole_lsti.run(model, "tiny", config_dict=settings)
    assert 1 <= result["epochs_run"] < 1000
    assert 0.5 <= result["train_seconds"] < 30
    curve = (Path(result["run_dir"]) / "learning_curve.csv").read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(curve[0].split(","), line.split(","), strict=True)) for line in curve[1:]]
    assert len(rows) == result["epochs_run"]
    assert all(float(row["seconds"]) < 0.5 for row in rows[:-1]), "no epoch begins after the limit"
    scores = [float(row["valid_score"]) for row in rows]
    assert scores[result["best_epoch"] - 1] == max(scores), "the best epoch is what is tested"
    if model == "GRU4Rec":  # LSTI's learning rate depends on the number of epochs
        through = recbole_lsti.run(
            model, "tiny", config_dict={**settings, "train_seconds_limit": None, "epochs": result["best_epoch"]}
        )
        assert result["test_result"] == through["test_result"]
