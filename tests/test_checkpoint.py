"""Checkpoints: written whole, read back, resumed; what is none, or of something else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_rows, write_inter
from helpers import make_trainer, run_epochs

import recbole_lsti
from recbole_lsti import checkpoint
from recbole_lsti.cli import main
from recbole_lsti.data import LSTIDataset
from recbole_lsti.runner import Loaded, build
from recbole_lsti.trainer import trainer_class


def scores_of(loaded: Loaded) -> torch.Tensor:
    batches = [loaded.model.full_sort_predict(batch[0]) for batch in loaded.test_data]
    return torch.cat(batches).detach()


@pytest.mark.parametrize("model", ["LSTI", "GRU4Rec", "SASRec"])
def test_load_brings_the_trained_model_back(tiny, workplace, small, model):
    settings = {**(small if model == "LSTI" else {"epochs": 1, "show_progress": False}), "data_path": str(tiny)}
    result = recbole_lsti.run(model, "tiny", config_dict=settings)
    content = torch.load(result["checkpoint_file"], weights_only=True)
    assert content["config"]["model"] == model
    assert content["tokens"]["user_id"][0] == ""
    assert set(content["tokens"]["user_id"][1:]) == {f"u{k}" for k in range(20)}
    assert content["rng"]["torch"].dtype == torch.uint8
    loaded = recbole_lsti.load(result["checkpoint_file"])
    assert loaded._fields == ("config", "model", "dataset", "train_data", "valid_data", "test_data")
    assert isinstance(loaded.dataset, LSTIDataset)
    trainer = trainer_class(loaded.config)(loaded.config, loaded.model)
    trainer.eval_collector.data_collect(loaded.train_data)
    found = trainer.evaluate(loaded.test_data, load_best_model=False)
    assert {key: float(value) for key, value in found.items()} == result["test_result"]


def test_continuing_from_a_checkpoint_equals_training_through(tiny, workplace, small):
    """Two epochs, stop, two more: the same scores as four epochs at once, in both train modes."""
    for mode, dropout in (("sequence", 0.3), ("prefix", 0.3)):
        settings = {
            **small,
            "data_path": str(tiny),
            "train_mode": mode,
            "hidden_dropout_prob": dropout,
            "epochs": 4,
            "eval_step": 0,
        }
        through = recbole_lsti.run("LSTI", "tiny", config_dict=settings)
        straight = recbole_lsti.load(through["checkpoint_file"])
        first, model = make_trainer(settings)
        first.epochs = 4
        run_epochs(first, model, until=2, path=workplace / f"{mode}.pth")
        second, model = make_trainer(settings)
        torch.manual_seed(99)
        second.resume_checkpoint(workplace / f"{mode}.pth", second._train_data)
        assert second.start_epoch == 2
        second.fit(second._train_data, None, saved=False)
        resumed = straight._replace(model=model.eval())
        torch.testing.assert_close(scores_of(resumed), scores_of(straight))


def test_a_checkpoint_stays_where_the_callback_ends_the_run(tiny, workplace, small):
    def end(epoch: int, score: float) -> None:
        raise RuntimeError("enough")

    settings = {**small, "data_path": str(tiny)}
    with pytest.raises(RuntimeError, match="enough"):
        recbole_lsti.run("LSTI", "tiny", config_dict=settings, callback_fn=end)
    (folder,) = Path("saved").iterdir()
    assert {"checkpoint.pth", "learning_curve.csv", "run.log"} <= {path.name for path in folder.iterdir()}


def test_who_interrupts_a_training_is_told_where_it_is(tiny, workplace, small):
    def interrupt(epoch: int, score: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"train --resume saved.LSTI-tiny-.* goes on with it"):
        recbole_lsti.run("LSTI", "tiny", config_dict={**small, "data_path": str(tiny)}, callback_fn=interrupt)


def test_a_resumed_training_without_an_epoch_left_keeps_its_checkpoint(tiny, workplace, small):
    settings = {**small, "data_path": str(tiny), "epochs": 1, "eval_step": 1}
    first, _ = make_trainer(settings)
    valid_data = build(first.config)[1][1]
    first.saved_model_file = "done.pth"
    first.fit(first._train_data, valid_data)
    assert checkpoint.read("done.pth")["epoch"] == 0
    second, _ = make_trainer(settings)
    second.resume_checkpoint("done.pth", second._train_data)
    second.fit(second._train_data, valid_data)
    assert checkpoint.read("done.pth")["epoch"] == 0


def test_a_training_resumes_from_the_folder_of_its_run(tiny, workplace, small):
    settings = {**small, "data_path": str(tiny), "eval_step": 1}
    folder = Path(recbole_lsti.run("LSTI", "tiny", config_dict={**settings, "epochs": 1})["checkpoint_file"]).parent
    trainer, _ = make_trainer({**settings, "epochs": 3})
    trainer.resume_checkpoint(folder, trainer._train_data)
    trainer.fit(trainer._train_data, None)
    assert checkpoint.read(folder)["epoch"] == 2


def test_an_interrupted_run_goes_on_in_its_folder(tiny, workplace, small, capsys):
    def interrupt(epoch: int, score: float) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    settings = {**small, "data_path": str(tiny), "epochs": 4, "dataset": "tiny"}
    whole = recbole_lsti.run("LSTI", config_dict=settings)
    with pytest.raises(KeyboardInterrupt):
        recbole_lsti.run("LSTI", config_dict=settings, callback_fn=interrupt)
    (folder,) = (each for each in Path("saved").iterdir() if not (each / "metrics.json").exists())
    assert main(["train", "--resume", str(folder)]) == 0
    assert "best epoch" in capsys.readouterr().out
    found = json.loads((folder / "metrics.json").read_text())
    for key in ("best_epoch", "epochs_run", "test_result", "best_valid_score"):
        assert found[key] == whole[key], key
    curves = [(Path(run) / "learning_curve.csv").read_text().splitlines() for run in (whole["run_dir"], folder)]
    assert [line.split(",")[0] for line in curves[1]] == [line.split(",")[0] for line in curves[0]]
    seconds = [float(line.split(",")[2]) for line in curves[1][1:]]
    assert seconds == sorted(seconds)
    assert recbole_lsti.resume(folder, {"epochs": 5})["epochs_run"] == 5


def test_a_resume_that_fails_removes_nothing(tiny, workplace, small):
    result = recbole_lsti.run("LSTI", "tiny", config_dict={**small, "data_path": str(tiny), "epochs": 1})
    place = workplace / "mine"
    place.mkdir()
    Path(result["checkpoint_file"]).rename(place / "half.pth")
    with pytest.raises(FileNotFoundError, match="dataset"):
        recbole_lsti.resume(place / "half.pth", {"data_path": "elsewhere"})
    write_inter(workplace / "changed", "tiny", [(f"u{k % 4}", f"i{k % 20}", k) for k in range(60)])
    with pytest.raises(ValueError, match="must be the one the checkpoint was trained on"):
        recbole_lsti.resume(place / "half.pth", {"data_path": str(workplace / "changed")})
    assert (place / "half.pth").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["saved/none"], "checkpoint (saved/none) must exist"),
        (["saved/none", "--nproc", "2"], "--nproc (2) must be 1, on one machine, with --resume"),
        (["saved/none", "-m", "LSTI"], "--model (LSTI) must be left to the run that --resume goes on with"),
    ],
)
def test_what_cannot_be_resumed_is_told_in_one_line(workplace, capsys, flags, message):
    assert main(["train", "--resume", *flags]) == 2
    assert capsys.readouterr().err == f"recbole-lsti: {message}\n"


def test_processes_that_resume_draw_apart(tiny, workplace, small, monkeypatch):
    settings = {**small, "data_path": str(tiny), "eval_step": 0}
    first, model = make_trainer(settings)
    run_epochs(first, model, until=1, path=Path("half.pth"))
    written = checkpoint.read("half.pth")["rng"]["torch"]
    found = []
    for number in (0, 1, 2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda number=number: number)
        trainer, _ = make_trainer(settings)
        trainer.config.final_config_dict["single_spec"] = False
        trainer.resume_checkpoint("half.pth", trainer._train_data)
        found.append(torch.get_rng_state())
    assert torch.equal(found[0], written)
    assert not torch.equal(found[1], found[0])
    assert not torch.equal(found[1], found[2])


def test_other_state_goes_to_the_model_s_device():
    model = torch.nn.Linear(1, 1)
    checkpoint.load_other_state(model, {"mean": torch.ones(2), "name": "x"}, torch.device("meta"))
    assert (model.mean.device.type, model.name) == ("meta", "x")


@pytest.mark.parametrize("saved", [True, False])
def test_a_resumed_training_without_validations_keeps_its_last_epoch(tiny, workplace, small, saved):
    settings = {**small, "data_path": str(tiny), "epochs": 2, "eval_step": 0}
    first, model = make_trainer(settings)
    run_epochs(first, model, until=1, path=Path("half.pth"))
    second, model = make_trainer(settings)
    second.resume_checkpoint("half.pth", second._train_data)
    second.fit(second._train_data, build(second.config)[1][1], saved=saved)
    last = {name: value.clone() for name, value in model.state_dict().items()}
    second.load_best()
    assert second.best_epoch == 1
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, last[name], msg=name)


def test_a_resumed_training_that_finds_nothing_better_tests_what_it_went_on_from(tiny, workplace, small):
    settings = {**small, "data_path": str(tiny), "epochs": 2, "eval_step": 1}
    first, model = make_trainer(settings)
    run_epochs(first, model, until=1, path=Path("best.pth"))
    best = {name: value.clone() for name, value in model.state_dict().items()}
    second, model = make_trainer(settings)
    second.resume_checkpoint("best.pth", second._train_data)
    second.best_valid_score = 2.0  # of a metric that is at most 1
    valid_data = build(second.config)[1][1]
    second.fit(second._train_data, valid_data, saved=False)
    assert second.best_epoch == 0
    assert any(not torch.equal(value, best[name]) for name, value in model.state_dict().items()), "it has trained on"
    second.load_best()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, best[name], msg=name)


def test_a_loaded_model_takes_the_gpu_that_the_environment_names(tiny, workplace, small, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    settings = {**small, "data_path": str(tiny), "epochs": 1, "use_gpu": True}
    result = recbole_lsti.run("LSTI", "tiny", config_dict=settings)
    recbole_lsti.load(result["checkpoint_file"])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_changed_data_is_noticed(tiny, workplace, small):
    result = recbole_lsti.run("LSTI", "tiny", config_dict={**small, "data_path": str(tiny), "epochs": 1})
    write_inter(tiny, "tiny", [*random_rows(), ("new", "i1", 600), ("new", "i2", 601)])
    with pytest.raises(
        ValueError, match=r"dataset tiny \(21 different user_id\) must be the one .*\(20 different user_id"
    ):
        recbole_lsti.load(result["checkpoint_file"])


def test_foreign_files_are_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint \(.*none.pth\) must exist"):
        recbole_lsti.load(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello", encoding="utf-8")
    torch.save({"a": 1}, tmp_path / "other.pth")
    torch.save({"a": Path("x")}, tmp_path / "pickle.pth")
    for name, message in (("text", "written by recbole_lsti"), ("other", "format 1"), ("pickle", "written by")):
        with pytest.raises(ValueError, match=message):
            recbole_lsti.load(tmp_path / f"{name}.pth")


def test_checkpoints_are_written_whole_or_not_at_all(tmp_path):
    checkpoint.write(tmp_path / "c.pth", {"a": np.float64(1.5), "b": np.arange(3), "c": ("x", [None, True])})
    content = checkpoint.read(tmp_path / "c.pth")
    assert (content["a"], content["b"].tolist(), content["c"]) == (1.5, [0, 1, 2], ("x", [None, True]))
    with pytest.raises(ValueError, match=r"checkpoint.d.e \(PosixPath\) must be plain data"):
        checkpoint.write(tmp_path / "c.pth", {"d": {"e": tmp_path}})
    assert checkpoint.read(tmp_path / "c.pth")["a"] == 1.5
    (tmp_path / "plain").touch()
    assert (tmp_path / "c.pth").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "plain").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]


def test_a_checkpoint_of_another_network_is_refused_in_a_line(tiny, workplace, small):
    settings = {**small, "data_path": str(tiny), "history_mean": False}
    path = recbole_lsti.run("LSTI", "tiny", config_dict=settings)["checkpoint_file"]
    content = checkpoint.read(path)
    del content["config"]["history_mean"]  # as a version without that setting has written it
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"checkpoint \(.*\) must be of the network .*mean_weight") as told:
        recbole_lsti.load(path)
    assert "\n" not in str(told.value)


def test_a_run_folder_is_taken_for_its_checkpoint(tiny, workplace, small):
    result = recbole_lsti.run("LSTI", "tiny", config_dict={**small, "data_path": str(tiny), "epochs": 1})
    loaded = recbole_lsti.load(result["run_dir"])
    assert torch.equal(scores_of(loaded), scores_of(recbole_lsti.load(result["checkpoint_file"])))
