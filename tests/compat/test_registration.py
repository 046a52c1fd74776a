"""RecBole finds this plugin's models, data set, trainer, loaders and properties."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any

import pytest

from compat.conftest import SEQUENTIAL
from recbole_lsti import compat


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.mark.parametrize("model", sorted(compat.REGISTERED))
def test_recbole_finds_the_model_by_name(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home = compat.REGISTERED[model]
    model_class = type(model, (), {})
    spec = importlib.util.find_spec(f"recbole.model.sequential_recommender.{model.lower()}")
    fake(monkeypatch, home, **{model: model_class})
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert getattr(module, model) is model_class
    assert module is not sys.modules[home]
    assert importlib.util.find_spec("recbole.model.sequential_recommender.no_such_model") is None


@pytest.mark.parametrize(
    ("module_name", "name", "home"),
    [(module, name, home) for module, names in compat.LOOKUPS.items() for name, home in names.items()],
)
def test_recbole_finds_dataset_and_trainer_by_name(
    module_name: str, name: str, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(module_name)
    found = type(name, (), {})
    home_module = fake(monkeypatch, home, **{name: found})
    assert hasattr(module, name)
    assert getattr(module, name) is found
    for missing in ("SASRecTrainer", "SASRecDataset"):
        assert not hasattr(module, missing)
        with pytest.raises(AttributeError, match=f"module '{module_name}' has no attribute '{missing}'"):
            getattr(module, missing)
    delattr(home_module, name)
    with pytest.raises(ImportError, match=f"cannot import '{name}' from '{home}'"):  # and not: "there is none"
        hasattr(module, name)


def test_recbole_still_takes_its_own_trainers() -> None:
    from recbole.utils import ModelType, get_trainer

    assert get_trainer(ModelType.SEQUENTIAL, "SASRec").__name__ == "Trainer"
    assert get_trainer(ModelType.KNOWLEDGE, "KGAT").__name__ == "KGATTrainer"


def test_a_stock_config_gets_the_models_properties(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole.config import Config
    from recbole.model.abstract_recommender import SequentialRecommender
    from recbole.utils import InputType

    asked = []

    def lsti_properties(model: str, dataset: str, loader: type) -> dict[str, Any]:
        asked.append((model, dataset, loader))
        return {"short_window": 7, "eval_batch_size": 123, "epochs": 9}

    needed = {"UNIFORM_NEGATIVE": {"distribution": "uniform", "sample_num": 3}, "needs_negatives": lambda *_: True}
    fake(monkeypatch, "recbole_lsti.config", lsti_properties=lsti_properties, **needed)
    lsti = type("LSTI", (SequentialRecommender,), {"input_type": InputType.POINTWISE})
    config = Config(lsti, "tiny", config_dict=tiny)
    assert asked == [("LSTI", "tiny", config.yaml_loader)]
    assert config["short_window"] == 7
    assert config["eval_batch_size"] == 123  # before RecBole's own defaults
    assert config["epochs"] == 1  # behind what the user says
    assert config["train_neg_sample_args"]["sample_num"] == 3

    own_config = type("LSTIConfig", (Config,), {"adds_lsti_properties": True})
    assert own_config(lsti, "tiny", config_dict=tiny)["short_window"] is None
    assert Config("GRU4Rec", "tiny", config_dict={**tiny, "train_neg_sample_args": None})["short_window"] is None
    assert len(asked) == 1


def test_data_preparation_takes_the_plugins_loaders(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole.config import Config
    from recbole.data import create_dataset, get_dataloader
    from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
    from recbole.quick_start.quick_start import data_preparation

    class OurTrainLoader(TrainDataLoader):
        pass

    fake(
        monkeypatch,
        "recbole_lsti.data.loader",
        loader_class=lambda config, phase: OurTrainLoader if phase == "train" else None,
    )
    with_mode = Config("GRU4Rec", "tiny", config_dict={**tiny, **SEQUENTIAL, "train_mode": "sequence"})
    train_data, valid_data, test_data = data_preparation(with_mode, create_dataset(with_mode))
    assert type(train_data) is OurTrainLoader
    assert type(valid_data) is type(test_data) is FullSortEvalDataLoader
    without = Config("GRU4Rec", "tiny", config_dict={**tiny, **SEQUENTIAL})
    assert get_dataloader(without, "train") is TrainDataLoader
    assert get_dataloader({"model": "LSTI"}, "train") is OurTrainLoader
