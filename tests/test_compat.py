"""RecBole 1.2.1 on today's stack: each mend, and the registration of this plugin's models."""

import importlib
import importlib.util
import json
import os
import pickle
import random
import re
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix, dok_matrix

import recbole_lsti
from recbole_lsti import compat

compat.install()

PACKAGE_ROOT = Path(recbole_lsti.__file__).parents[1]
BROKEN_RAY = {
    # as ray 2.6.3 is on NumPy 2: ray itself may be imported, ray.tune may not
    "ray/__init__.py": "import ray.half",
    "ray/half.py": "",
    "ray/tune/__init__.py": "raise AttributeError(\"module 'numpy' has no attribute 'bool8'\")",
}
WORKING_RAY = {
    "ray/__init__.py": "",
    "ray/tune/__init__.py": "reported = []\ndef report(_metric=None, **metrics): reported.append(metrics)",
}
NEW_RAY = {
    "ray/__init__.py": "",
    "ray/tune/__init__.py": "reported = []\ndef report(metrics, *, checkpoint=None): reported.append(metrics)",
}


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("first", ["import recbole_lsti", "import recbole.model.sequential_recommender as models"])
def test_anomaly_detection_is_left_as_it_was(wanted: bool, first: str, tmp_path: Path) -> None:
    # where RecBole came first, what the user wanted is lost, and off is what slows nothing down
    expected = wanted and "lsti" in first
    script = f"""
import numpy, torch
numpy.float_ = numpy.float64
torch.autograd.set_detect_anomaly({wanted})
{first}
import recbole_lsti
import recbole.model.sequential_recommender.sine
assert torch.is_anomaly_enabled() is {expected}
"""
    done = run_script(script, tmp_path)
    assert done.returncode == 0, done.stderr


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run_script(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script in a fresh process whose working folder is also the first place to import from."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(PACKAGE_ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )


def write_tiny_data(root: Path) -> None:
    """30 users, 40 items: interactions, features and a knowledge graph, just enough for any model to take a step."""
    rng = random.Random(0)
    users, items = range(30), range(40)
    inter = [(u, i, rng.randint(1, 5)) for u in users for i in rng.sample(items, 10)]
    tables = {
        "inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
        + [f"u{u}\ti{i}\t{rating}\t{time}" for time, (u, i, rating) in enumerate(inter)],
        "user": ["user_id:token\tgender:token"] + [f"u{u}\t{rng.choice('MF')}" for u in users],
        "item": ["item_id:token\tclass:token_seq\tyear:float"]
        + [f"i{i}\t{'' if i == 0 else 'a b'}\t{'' if i < 3 else 1980 + i}" for i in items],
        "link": ["item_id:token\tentity_id:token"] + [f"i{i}\te{i}" for i in items],
        "kg": ["head_id:token\trelation_id:token\ttail_id:token"]
        + [f"e{i}\tr{rng.randint(0, 3)}\te{rng.randint(0, 45)}" for i in items for _ in range(4)],
    }
    write(root / "tiny", {f"tiny.{suffix}": "\n".join(lines) + "\n" for suffix, lines in tables.items()})


GENERAL = {"load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]}}
CONTEXT = {
    "load_col": {
        "inter": ["user_id", "item_id", "rating"],
        "user": ["user_id", "gender"],
        "item": ["item_id", "class", "year"],
    },
    "threshold": {"rating": 3},
    "train_neg_sample_args": None,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "mode": "labeled"},
    "metrics": ["AUC", "LogLoss", "MAE", "RMSE"],
    "valid_metric": "AUC",
}
KNOWLEDGE = {
    "load_col": {
        "inter": ["user_id", "item_id"],
        "kg": ["head_id", "relation_id", "tail_id"],
        "link": ["item_id", "entity_id"],
    }
}
SEQUENTIAL = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]},
    "selected_features": ["class"],
    "train_neg_sample_args": None,
    "MAX_ITEM_LIST_LENGTH": 10,
    "hidden_size": 8,
    "inner_size": 8,
}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings for a run of a second on the tiny data; RecBole's folders land under tmp_path."""
    write_tiny_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])  # RecBole's Config reads whatever stands there
    return {
        "data_path": str(tmp_path),
        "epochs": 1,
        "show_progress": False,
        "state": "CRITICAL",
        "train_batch_size": 256,
        "embedding_size": 8,
        "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP"],
        "valid_metric": "NDCG@5",
        "topk": [5],
        "use_gpu": False,
        "shuffle": True,
    }


# ---------------------------------------------------------------------------------------------------------------------
# The import hook


def test_installing_imports_nothing_heavy(tmp_path: Path) -> None:
    script = """
import sys
from recbole_lsti import compat
compat.install()
compat.install()
assert sum(type(finder).__name__ == "_RecBoleFinder" for finder in sys.meta_path) == 1
print(sorted({"numpy", "pandas", "torch", "recbole", "ray"} & set(sys.modules)))
"""
    assert run_script(script, tmp_path).stdout == "[]\n"


def test_recbole_keeps_its_own_loaders_and_source() -> None:
    import inspect

    trainer = importlib.import_module("recbole.trainer.trainer")
    assert type(trainer.__spec__.loader).__name__ == "SourceFileLoader"
    assert "class AbstractTrainer" in inspect.getsource(trainer)


@pytest.mark.slow
def test_every_module_of_recbole_can_be_imported() -> None:
    import pkgutil

    import recbole

    failed = {}
    for module in pkgutil.walk_packages(recbole.__path__, "recbole."):
        if "exlib_recommender" in module.name:  # needs lightgbm and xgboost
            continue
        try:
            importlib.import_module(module.name)
        except Exception as error:
            failed[module.name] = repr(error)
    assert failed == {}


# ---------------------------------------------------------------------------------------------------------------------
# NumPy, pandas, SciPy, torch


def test_every_numpy_name_in_recbole_exists() -> None:
    import recbole

    names = {
        name
        for file in Path(recbole.__path__[0]).rglob("*.py")
        for name in re.findall(r"\bnp\.([A-Za-z_]\w*)", file.read_text(encoding="utf-8"))
    }
    assert {"float_", "unicode_", "float", "long", "str"} <= names
    assert sorted(name for name in names if not hasattr(np, name)) == []


def test_numpy_aliases_keep_what_is_there_and_probe_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def deprecated(name: str) -> Any:  # as NumPy 1.2x has it
        raise AssertionError(f"np.{name} was probed")

    old = types.ModuleType("numpy")
    types_it_has = ("float64", "complex128", "bool_", "int_", "object_", "str_")
    vars(old).update({name: getattr(np, name) for name in types_it_has}, long="its own", __getattr__=deprecated)
    monkeypatch.setitem(sys.modules, "numpy", old)
    compat._numpy_aliases(old)
    assert vars(old)["float_"] is np.float64
    assert vars(old)["long"] == "its own"


def test_pandas_3_is_refused_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, {"pandas/__init__.py": "__version__ = '3.0.1'"})
    result = run_script("from recbole_lsti import compat\ncompat.install()\nimport recbole", tmp_path)
    assert result.returncode == 1
    assert re.search(
        r"ImportError: pandas \(3\.0\.1\) must be older than 3: its copy-on-write .* silent no-op.*"
        r'pip install "pandas>=2\.2,<3"',
        result.stderr,
    )


def test_missing_values_are_filled(tiny: dict[str, Any]) -> None:
    from recbole.config import Config
    from recbole.data import create_dataset

    dataset = create_dataset(Config("FM", "tiny", config_dict={**tiny, **CONTEXT, "normalize_all": False}))
    years = dataset.item_feat["year"]
    assert len(years) == 41  # the first row is padding
    assert years.min() == 1983  # the mean stands in for the three that are missing
    assert not years.isna().any()


def test_dok_update_builds_the_same_adjacency_matrix() -> None:
    importlib.import_module("recbole.utils")
    part = coo_matrix(np.eye(3, 4, dtype=np.float32))
    matrix = dok_matrix((3, 4), dtype=np.float32)
    matrix._update(dict(zip(zip(part.row, part.col, strict=True), [1] * part.nnz, strict=True)))
    assert (matrix.tocsr() != part.tocsr()).nnz == 0
    assert matrix.nnz == 3


def load_from(module: str, file: Path, **kwargs: Any) -> Any:
    """Call torch.load as a line of the named module would."""
    namespace: dict[str, Any] = {"__name__": module, "torch": torch}
    exec("def call(*args, **kwargs):\n    return torch.load(*args, **kwargs)", namespace)
    return namespace["call"](file, **kwargs)


def test_recbole_reads_its_own_pickles_and_nobody_elses_default_changes(tmp_path: Path) -> None:
    importlib.import_module("recbole.utils")
    file = tmp_path / "checkpoint.pth"
    torch.save({"config": types.SimpleNamespace(model="BPR")}, file, pickle_protocol=4)
    assert load_from("recbole.trainer.trainer", file)["config"].model == "BPR"
    for module in ("recbole_lsti.checkpoint", "recbolex.trainer", "__main__"):
        with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights.only"):
            load_from(module, file)
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights.only"):
        load_from("recbole.trainer.trainer", file, weights_only=True)


def test_amp_does_not_warn() -> None:
    trainer = importlib.import_module("recbole.trainer.trainer")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        scaler = trainer.amp.GradScaler(enabled=False)
        with trainer.amp.autocast(enabled=False):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert isinstance(scaler, torch.amp.GradScaler)
    assert product.dtype == torch.float32


@pytest.fixture
def one_process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process_group")
def test_ddp_on_cpu() -> None:
    trainer = importlib.import_module("recbole.trainer.trainer")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    config = {"single_spec": False, "device": torch.device("cpu"), "local_rank": 0}
    wrapped = trainer.AbstractTrainer(config, model)
    wrapped.distributed_model(torch.ones(2, 3)).sum().backward()
    assert isinstance(wrapped.distributed_model, torch.nn.parallel.DistributedDataParallel)
    assert wrapped.model is model
    assert type(model[1]) is torch.nn.BatchNorm1d
    assert model[0].weight.grad is not None


# ---------------------------------------------------------------------------------------------------------------------
# ray


@pytest.fixture
def no_ray_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    loaded = compat._loaded_ray()
    compat._replace_ray({})
    yield
    compat._replace_ray(loaded)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("no_ray_loaded")
def test_a_broken_ray_is_stood_in_for_and_stays_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write(tmp_path, BROKEN_RAY))
    with compat._ray_stand_in():
        from ray import tune

        assert tune.report(**{"ndcg@10": 0.1}) is None
        assert importlib.util.find_spec("ray") is not None
    assert compat._loaded_ray() == {}
    assert compat.ray_problem() == "AttributeError: module 'numpy' has no attribute 'bool8'"
    with pytest.raises(AttributeError, match="bool8"):
        importlib.import_module("ray.tune")


@pytest.mark.usefixtures("no_ray_loaded")
def test_a_ray_in_use_survives_a_broken_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write(tmp_path, BROKEN_RAY))
    ray = importlib.import_module("ray")
    with compat._ray_stand_in():
        assert sys.modules["ray"] is not ray
    assert sys.modules["ray"] is ray
    assert "ray.tune" not in sys.modules


@pytest.mark.usefixtures("no_ray_loaded")
def test_the_stand_in_goes_even_when_the_import_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write(tmp_path, BROKEN_RAY))
    with pytest.raises(RuntimeError, match="in between"), compat._ray_stand_in():
        raise RuntimeError("in between")
    assert compat._loaded_ray() == {}


@pytest.mark.usefixtures("no_ray_loaded")
def test_a_working_ray_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write(tmp_path, WORKING_RAY))
    with compat._ray_stand_in():
        from ray import tune
    assert sys.modules["ray.tune"] is tune
    quick_start: Any = types.SimpleNamespace(tune=tune)
    compat._tune_report(quick_start)
    assert quick_start.tune is tune


@pytest.mark.usefixtures("no_ray_loaded")
def test_a_newer_ray_gets_its_metrics_as_a_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write(tmp_path, NEW_RAY))
    tune = importlib.import_module("ray.tune")
    quick_start: Any = types.SimpleNamespace(tune=tune)
    compat._tune_report(quick_start)
    quick_start.tune.report(**{"ndcg@10": 0.1})
    assert tune.reported == [{"ndcg@10": 0.1}]


# ---------------------------------------------------------------------------------------------------------------------
# RecBole's own flow

FIRST_RUN = """
import json, pickle, sys
run_recboles = pickle.loads({pickled!r})  # what a process spawned by RecBole's run(nproc=2) does first of all
try:
    run_recboles(0, None)
except ValueError as error:
    print(error)
from recbole_lsti import compat
from recbole.quick_start import objective_function, load_data_and_model, run_recbole
from recbole.utils.case_study import full_sort_topk
import recbole.quick_start
import recbole.quick_start
if __name__ == "__main__":
    settings = json.load(open("settings.json"))
    settings.update(model="BPR", dataset="tiny", checkpoint_dir="saved", data_path=".")
    result = objective_function(dict(settings))
    import glob
    config, model, dataset, train_data, valid_data, test_data = load_data_and_model(glob.glob("saved/*.pth")[0])
    scores, items = full_sort_topk([1, 2], model, test_data, k=3)
    try:
        import ray.tune
    except AttributeError as error:
        print(error)
    print(sorted(name for name in sys.modules if name.split(".")[0] == "ray"), tuple(items.shape))
    print(sorted(result["test_result"]))
"""


def test_a_first_run_with_a_broken_ray(tmp_path: Path, tiny: dict[str, Any]) -> None:
    quick_start = importlib.import_module(compat.QUICK_START)
    settings = {**tiny, **GENERAL, "metrics": ["NDCG"]}
    write(tmp_path, {**BROKEN_RAY, "settings.json": json.dumps(settings)})
    result = run_script(FIRST_RUN.format(pickled=pickle.dumps(quick_start.run_recboles)), tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-4:] == [
        "The last argument of run_recboles should be a dict, but got <class 'NoneType'>",
        "module 'numpy' has no attribute 'bool8'",
        "['ray', 'ray.half'] (2, 3)",
        "['ndcg@5']",
    ]
    assert "FutureWarning" not in result.stderr


IMPORTED_BEFORE = """
import json
import recbole.quick_start, recbole.data.dataset, recbole.trainer
from recbole_lsti import compat
for _ in range(2):
    compat.install()
import numpy, torch, recbole.data.utils
for lookup in (recbole.data.dataset, recbole.trainer):
    assert "__getattr__" in vars(lookup), lookup
assert recbole.data.get_dataloader is recbole.data.utils.get_dataloader
assert recbole.data.get_dataloader.__wrapped__.__module__ == "recbole.data.utils"
assert recbole.quick_start.quick_start.run_recboles is compat.run_recboles
settings = json.load(open("settings.json"))
result = recbole.quick_start.run_recbole("LightGCN", "tiny", config_dict={**settings, "data_path": "."})
print(sorted(result["test_result"]))
"""


def test_after_recbole_was_imported(tmp_path: Path, tiny: dict[str, Any]) -> None:
    write(tmp_path, {**WORKING_RAY, "settings.json": json.dumps({**tiny, **GENERAL, "metrics": ["NDCG"]})})
    result = run_script(IMPORTED_BEFORE, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "['ndcg@5']"


@pytest.mark.parametrize(
    ("model", "family"),
    [
        pytest.param("LightGCN", GENERAL, id="LightGCN"),  # dok_matrix._update
        pytest.param("FM", CONTEXT, id="FM"),
        pytest.param("KGCN", KNOWLEDGE, id="KGCN"),
        pytest.param("GRU4Rec", SEQUENTIAL, id="GRU4Rec"),
        *[
            pytest.param(model, family, id=model, marks=pytest.mark.slow)
            for family, models in [
                (GENERAL, ["Pop", "ItemKNN", "NGCF", "GCMC", "SpectralCF", "SGL", "MultiVAE", "LINE", "EASE"]),
                (CONTEXT, ["DeepFM", "FFM", "AutoInt", "WideDeep"]),
                (KNOWLEDGE, ["CKE", "CFKG", "KTUP", "MKR", "RippleNet"]),
                (SEQUENTIAL, ["SASRec", "SASRecF", "NARM"]),
            ]
            for model in models
        ],
    ],
)
def test_a_model_of_each_family_trains(model: str, family: dict[str, Any], tiny: dict[str, Any]) -> None:
    from recbole.quick_start import run_recbole

    result = run_recbole(model=model, dataset="tiny", config_dict={**tiny, **family})
    assert all(np.isfinite(value) for value in result["test_result"].values())


def test_a_checkpoint_resumes(tiny: dict[str, Any], tmp_path: Path) -> None:
    from recbole.quick_start import load_data_and_model, run_recbole
    from recbole.utils import get_trainer

    run_recbole(model="BPR", dataset="tiny", config_dict={**tiny, **GENERAL, "checkpoint_dir": "kept"})
    (file,) = (tmp_path / "kept").glob("*.pth")
    config, model, *_ = load_data_and_model(str(file))
    trainer = get_trainer(config["MODEL_TYPE"], "BPR")(config, model)
    trainer.resume_checkpoint(str(file))
    assert trainer.start_epoch == 1


def test_the_random_state_of_exhaustive_search_serves_both_generations_of_hyperopt() -> None:
    hyper_tuning = importlib.import_module("recbole.trainer.hyper_tuning")
    old, new = hyper_tuning.np.random.RandomState(5), hyper_tuning.np.random.RandomState(5)
    assert list(new.integers(7, size=20)) == list(old.randint(7, size=20))
    assert hyper_tuning.np.array is np.array


@pytest.mark.parametrize("algorithm", ["exhaustive", "random", "bayes"])
def test_hyper_tuning_with_hyperopt(algorithm: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("hyperopt", exc_type=ImportError)
    from recbole.quick_start import objective_function
    from recbole.trainer import HyperTuning

    settings = {**tiny, **GENERAL, "model": "BPR", "dataset": "tiny"}
    settings.pop("embedding_size")
    write(tmp_path, {"fixed.yaml": json.dumps(settings)})
    tuning = HyperTuning(
        objective_function,
        params_dict={"choice": {"embedding_size": [4, 8]}},
        fixed_config_file_list=["fixed.yaml"],
        algo=algorithm,
        max_evals=2,
    )
    tuning.run()
    assert tuning.best_params["embedding_size"] in (4, 8)
    assert len(tuning.score_list) == 2


# ---------------------------------------------------------------------------------------------------------------------
# Registration, on this side of the modules it leads to


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
