"""RecBole 1.2.1 on today's NumPy, pandas, SciPy and torch: each mend."""

from __future__ import annotations

import importlib
import pickle
import re
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

from compat.conftest import CONTEXT, run_script, write
from recbole_lsti import compat


def test_installing_imports_nothing_heavy(tmp_path: Path) -> None:
    script = """
import sys
import types
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


def test_the_random_state_of_exhaustive_search_serves_both_generations_of_hyperopt() -> None:
    hyper_tuning = importlib.import_module("recbole.trainer.hyper_tuning")
    old, new = hyper_tuning.np.random.RandomState(5), hyper_tuning.np.random.RandomState(5)
    assert list(new.integers(7, size=20)) == list(old.randint(7, size=20))
    assert hyper_tuning.np.array is np.array
