"""RecBole's own flow from beginning to end, with models of every family."""

from __future__ import annotations

import importlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat.conftest import BROKEN_RAY, CONTEXT, GENERAL, SEQUENTIAL, WORKING_RAY, run_script, write
from recbole_lsti import compat

KNOWLEDGE = {
    "load_col": {
        "inter": ["user_id", "item_id"],
        "kg": ["head_id", "relation_id", "tail_id"],
        "link": ["item_id", "entity_id"],
    }
}

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
