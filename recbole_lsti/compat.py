"""Make RecBole 1.2.1 run on today's stack, and make it know this plugin's models.

The only room that touches the globals of NumPy, SciPy, torch, ray or RecBole. Importing it costs nothing: `install`
puts a finder in front of `sys.meta_path`, and each mend is applied when the RecBole module that needs it is imported
(at once, where that module is there already). `BEFORE` and `AFTER`, at the end, say what is applied when.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import inspect
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

QUICK_START = "recbole.quick_start.quick_start"
SINE = "recbole.model.sequential_recommender.sine"

# RecBole finds a model by name: recbole.model.sequential_recommender.<lower>. A further model is one more line.
REGISTERED = {
    "LSTI": "recbole_lsti.model.lsti",
    "Markov": "recbole_lsti.model.markov",
    "Popularity": "recbole_lsti.model.popularity",
}

# RecBole finds a model's own data set and trainer by name as well: <Model>Dataset, <Model>Trainer.
LOOKUPS = {
    "recbole.data.dataset": {"LSTIDataset": "recbole_lsti.data.dataset"},
    "recbole.trainer": {"LSTITrainer": "recbole_lsti.trainer"},
}


# ---------------------------------------------------------------------------------------------------------------------
# NumPy, pandas, SciPy, torch


def _refuse_pandas_3(_: types.ModuleType) -> None:
    """Refuse pandas 3, under which RecBole reads wrong data without a word.

    Raises:
        ImportError: if pandas 3 or newer is installed.
    """
    import pandas as pd

    if int(pd.__version__.split(".")[0]) >= 3:
        # Dataset._fill_nan and Dataset._load_feat call feat[field].fillna(..., inplace=True).
        raise ImportError(
            f"pandas ({pd.__version__}) must be older than 3: its copy-on-write turns RecBole's "
            "feat[field].fillna(inplace=True) into a silent no-op, so missing values would stay missing. "
            'Mend it with: pip install "pandas>=2.2,<3"'
        )


def _numpy_aliases(_: types.ModuleType) -> None:
    """Give NumPy back the aliases RecBole reads, each only where it is missing."""
    import numpy as np

    aliases = {
        # removed in NumPy 2: Config.compatibility_settings reads these, so no Config could be made
        "float_": np.float64,
        "complex_": np.complex128,
        "unicode_": np.str_,
        # removed in NumPy 1.24. Config sets them, but Interaction, the metrics, the layers and HyperTuning.plot_hyper
        # read them, with or without a Config
        "bool": np.bool_,
        "int": np.int_,
        "long": np.int_,
        "float": np.float64,
        "complex": np.complex128,
        "object": np.object_,
        "str": np.str_,
        "unicode": np.str_,
    }
    present = vars(np)  # np.<alias> and hasattr would warn, or raise, on the deprecated ones
    for name, value in aliases.items():
        if name not in present:
            setattr(np, name, value)


def _dok_update(_: types.ModuleType) -> None:
    """Give SciPy's dok_matrix back the unchecked update that SciPy 1.13 removed.

    The graph models (NGCF, LightGCN, GCMC, SpectralCF, NCL, KGIN, MCCLK) fill their adjacency matrix with it.
    """
    from scipy.sparse import dok_matrix

    if not hasattr(dok_matrix, "_update"):

        def _update(self: Any, data: dict[tuple[int, int], Any]) -> None:
            self._dict.update(data)

        dok_matrix._update = _update


def _torch_load(_: types.ModuleType) -> None:
    """Let RecBole's own modules read RecBole's own checkpoints.

    Since torch 2.6 torch.load defaults to weights_only=True, which refuses the pickled Config in them:
    load_data_and_model, Trainer.resume_checkpoint and evaluate, and every pre-trained model fail. That a checkpoint is
    a trusted pickle is RecBole's contract, so the old default is given to calls from `recbole.*` and to nobody else.
    """
    import torch

    torch_load = torch.load

    @functools.wraps(torch_load)
    def load(*args: Any, **kwargs: Any) -> Any:
        if sys._getframe(1).f_globals.get("__name__", "").startswith("recbole."):
            kwargs.setdefault("weights_only", False)
        return torch_load(*args, **kwargs)

    torch.load = load


def _pandas_warnings(_: types.ModuleType) -> None:
    """Silence what pandas 2.2 and 2.3 say, in every run, about how pandas 3 will read RecBole's Dataset."""
    for message in ("A value is trying to be set on a copy", "using <built-in function len> in Series.agg"):
        warnings.filterwarnings("ignore", message, FutureWarning, module=r"recbole\.data\.dataset\.dataset")


def _amp(trainer: types.ModuleType) -> None:
    """Hand RecBole's trainers torch.amp in place of torch.cuda.amp, which warns once per fit that it is deprecated."""
    import torch

    trainer.amp = types.SimpleNamespace(  # type: ignore[attr-defined]
        GradScaler=functools.partial(torch.amp.GradScaler, "cuda"),
        autocast=functools.partial(torch.amp.autocast, "cuda"),
    )


def _ddp_on_cpu(trainer: types.ModuleType) -> None:
    """Let RecBole's trainers run on several CPU processes (gloo).

    AbstractTrainer.__init__ always names a GPU to DistributedDataParallel, which refuses that for a model on the CPU,
    and converts batch norm to SyncBatchNorm, which has no CPU kernel.
    """
    abstract_trainer: Any = trainer.AbstractTrainer
    original = abstract_trainer.__init__

    @functools.wraps(original)
    def init(self: Any, config: Any, model: Any) -> None:
        if config["single_spec"] or config["device"].type != "cpu":
            original(self, config, model)
            return
        self.config = config
        self.model = model
        self.distributed_model = trainer.DistributedDataParallel(model)

    abstract_trainer.__init__ = init


@contextlib.contextmanager
def _anomaly_detection_kept() -> Iterator[None]:
    """Leave torch's anomaly detection as it was: RecBole's sine.py turns it on, for every model of the process.

    It records a traceback for each operation and looks for NaN in each gradient: a debugging aid that makes every
    training about 1.5 times slower. RecBole's own check of the loss for NaN stays.
    """
    import torch

    before, check_nan = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    try:
        yield
    finally:
        torch.autograd.set_detect_anomaly(before, check_nan)


# ---------------------------------------------------------------------------------------------------------------------
# ray


def ray_problem() -> str:
    """Return why RecBole cannot use ray, or an empty text where it can. A failed import leaves nothing behind."""
    before = _loaded_ray()
    try:
        return "" if hasattr(importlib.import_module("ray.tune"), "report") else "ray.tune has no report"
    except Exception as error:  # a ray older than what lies around it raises what it likes, not ImportError alone
        # half a package in sys.modules would make the next `import ray` fail in another way, or seem to work
        _replace_ray(before)
        return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _ray_stand_in() -> Iterator[None]:
    """Show a stand-in for a missing or broken ray while RecBole's quick_start is being imported.

    Its line `from ray import tune` needs ray only to report a trial's metrics to ray's own tuner. A ray that works is
    used and left alone; the stand-in is gone afterwards, so `import ray` still fails for everybody else.
    """
    # quick_start's other imports first: nothing but quick_start itself shall see the stand-in.
    for name in ("recbole.config", "recbole.data", "recbole.utils"):
        importlib.import_module(name)
    if not ray_problem():
        yield
        return

    ray, tune = types.ModuleType("ray"), types.ModuleType("ray.tune")
    for module in (ray, tune):
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)  # find_spec raises without one
    tune.report = lambda *args, **metrics: None  # type: ignore[attr-defined]
    ray.tune = tune  # type: ignore[attr-defined]
    before = _loaded_ray()
    _replace_ray({"ray": ray, "ray.tune": tune})
    try:
        yield
    finally:
        _replace_ray(before)


def _loaded_ray() -> dict[str, types.ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "ray"}


def _replace_ray(modules: dict[str, types.ModuleType]) -> None:
    for name in _loaded_ray():
        del sys.modules[name]
    sys.modules.update(modules)


def _tune_report(quick_start: types.ModuleType) -> None:
    """Let RecBole's objective_function report to a ray newer than the 2.6 RecBole was written for.

    It calls tune.report(**metrics); newer releases take one dictionary and raise a TypeError.
    """
    tune: Any = quick_start.tune
    kinds = {parameter.kind for parameter in inspect.signature(tune.report).parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        quick_start.tune = types.SimpleNamespace(  # type: ignore[attr-defined]
            report=lambda **metrics: tune.report(metrics)
        )


# ---------------------------------------------------------------------------------------------------------------------
# RecBole's own flow


def _spawned_processes(quick_start: types.ModuleType) -> None:
    """Have the processes that RecBole's run(nproc=n) spawns import this plugin first.

    Each unpickles its target before anything else: RecBole's own would import quick_start unmended, and fail there.
    """
    run_recboles.original = quick_start.run_recboles  # type: ignore[attr-defined]
    quick_start.run_recboles = run_recboles  # type: ignore[attr-defined]


def run_recboles(rank: int, *args: Any) -> None:
    """RecBole's run_recboles, in a process that has imported this plugin."""
    importlib.import_module(QUICK_START)  # puts the original here, in a process that was just spawned
    run_recboles.original(rank, *args)  # type: ignore[attr-defined]


def _hyperopt(hyper_tuning: types.ModuleType) -> None:
    """Let RecBole's exhaustive search, its default, run with the hyperopt of today as well as with 0.2.5.

    exhaustive_search hands hyperopt a RandomState. hyperopt 0.2.7 and newer asks a generator for `integers`, which a
    RandomState calls `randint`; 0.2.5, RecBole's pin, needs a setuptools that still has pkg_resources.
    """
    import numpy as np

    class RandomState(np.random.RandomState):
        integers = np.random.RandomState.randint

    hyper_tuning.np = types.SimpleNamespace(  # type: ignore[attr-defined]
        **{**vars(np), "random": types.SimpleNamespace(RandomState=RandomState)}
    )


def _ksr_floats(ksr: types.ModuleType) -> None:
    """Let KSR run: it keeps the relations' vectors as float64 and multiplies them with float32, which torch refuses."""
    original = ksr.KSR.__init__

    @functools.wraps(original)
    def init(self: Any, config: Any, dataset: Any) -> None:
        original(self, config, dataset)
        self.relation_Matrix = self.relation_Matrix.float()

    ksr.KSR.__init__ = init


@contextlib.contextmanager
def tensorboard_folder(folder: Any) -> Iterator[None]:
    """Have a trainer that is made meanwhile write its TensorBoard events to `folder`; None: nowhere.

    RecBole's get_tensorboard makes ./log_tensorboard in the working directory, whatever the config says.
    """
    trainer = importlib.import_module("recbole.trainer.trainer")
    original = trainer.get_tensorboard

    def get_tensorboard(logger: Any) -> Any:
        if folder is None:
            nothing = types.SimpleNamespace()
            nothing.add_scalar = nothing.add_hparams = lambda *args, **kwargs: None
            return nothing
        return trainer_utils.SummaryWriter(str(folder))

    trainer_utils = importlib.import_module("recbole.utils.utils")
    trainer.get_tensorboard = get_tensorboard  # type: ignore[attr-defined]
    try:
        yield
    finally:
        trainer.get_tensorboard = original  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------------------------------
# Registration


def _lookups(module: types.ModuleType) -> None:
    """Add this plugin's classes to a RecBole module, each imported when it is asked for (PEP 562)."""
    homes = LOOKUPS[module.__name__]

    def lookup(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(homes[name]), name)
        except AttributeError as error:
            # hasattr would read an AttributeError as "there is none", and RecBole would take a class of its own
            raise ImportError(f"cannot import {name!r} from {homes[name]!r}: {error}") from error

    module.__getattr__ = lookup  # type: ignore[method-assign]


def _properties(configurator: types.ModuleType) -> None:
    """Let RecBole's Config find the defaults of this plugin's models, which lie outside RecBole's own folder."""
    config_class: Any = configurator.Config
    original = config_class._load_internal_config_dict

    @functools.wraps(original)
    def _load_internal_config_dict(self: Any, model: str, model_class: type, dataset: str) -> None:
        original(self, model, model_class, dataset)
        if model in REGISTERED and not hasattr(self, "adds_lsti_properties"):
            from recbole_lsti.config import UNIFORM_NEGATIVE, lsti_properties, needs_negatives

            self.internal_config_dict.update(lsti_properties(model, dataset, self.yaml_loader))
            if needs_negatives(model_class, {**self.internal_config_dict, **self.external_config_dict}):
                self.internal_config_dict["train_neg_sample_args"] = dict(UNIFORM_NEGATIVE)

    config_class._load_internal_config_dict = _load_internal_config_dict


def _metrics(register: types.ModuleType) -> None:
    """Register this plugin's metrics, so that RecBole's `metrics:` list takes them in any run."""
    from recbole_lsti.evaluation.metrics import METRICS

    for metric in METRICS:
        name = metric.__name__.lower()
        register.metrics_dict[name] = metric
        register.metric_information[name] = metric.metric_need
        register.metric_types[name] = metric.metric_type


def _collector(trainer: types.ModuleType) -> None:
    """Have RecBole's trainers collect what this plugin's metrics read, too, without tables of users x items.

    RecBole's metrics stay the same; those over all users, which stop in RecBole, work.
    """
    from recbole_lsti.evaluation.collector import RankingCollector

    trainer.Collector = RankingCollector  # type: ignore[attr-defined]


def _loaders(data_utils: types.ModuleType) -> None:
    """Let RecBole's data_preparation take this plugin's loaders: it asks get_dataloader, whose table is closed."""
    original = data_utils.get_dataloader

    @functools.wraps(original)
    def get_dataloader(config: Any, phase: str) -> Any:
        if config["model"] in REGISTERED or "train_mode" in config:
            from recbole_lsti.data.loader import loader_class

            ours = loader_class(config, phase)
            if ours is not None:
                return ours
        return original(config, phase)

    from recbole_lsti.data.sampler import LightSampler

    data_utils.RepeatableSampler = LightSampler  # type: ignore[attr-defined]
    data_utils.get_dataloader = get_dataloader  # type: ignore[attr-defined]
    package = sys.modules.get("recbole.data")  # has star-imported the original, if it came before this plugin
    if package is not None and hasattr(package, "get_dataloader"):
        package.get_dataloader = get_dataloader  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------------------------------
# When each is applied

BEFORE: dict[str, tuple[Callable[[types.ModuleType], None], ...]] = {
    "recbole": (_refuse_pandas_3, _numpy_aliases),
}
AFTER: dict[str, tuple[Callable[[types.ModuleType], None], ...]] = {
    "recbole.utils": (_torch_load, _dok_update),
    "recbole.config.configurator": (_properties,),
    "recbole.evaluator.register": (_metrics,),
    "recbole.data.dataset": (_lookups,),
    "recbole.data.dataset.dataset": (_pandas_warnings,),
    "recbole.data.utils": (_loaders,),
    "recbole.model.sequential_recommender.ksr": (_ksr_floats,),
    "recbole.trainer": (_lookups,),
    "recbole.trainer.hyper_tuning": (_hyperopt,),
    "recbole.trainer.trainer": (_amp, _ddp_on_cpu, _collector),
    QUICK_START: (_tune_report, _spawned_processes),
}
AROUND: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    SINE: _anomaly_detection_kept,
    QUICK_START: _ray_stand_in,
}


def install() -> None:
    """Mend RecBole and register this plugin's models, now or when RecBole is imported; the second call does nothing.

    Raises:
        ImportError: if RecBole is imported already and pandas 3 is installed.
    """
    if any(type(finder).__name__ == _RecBoleFinder.__name__ for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _RecBoleFinder())
    for table in (BEFORE, AFTER):
        for name, mends in table.items():
            if name in sys.modules:
                for mend in mends:
                    mend(sys.modules[name])
    if SINE in sys.modules:  # nobody remembers how it was before
        import torch

        torch.autograd.set_detect_anomaly(False)


class _RecBoleFinder(importlib.abc.MetaPathFinder):
    """Finds the modules under which RecBole looks for this plugin's models, and mends RecBole's own as they load."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != "recbole":
            return None
        for model, home in REGISTERED.items():
            if fullname == f"recbole.model.sequential_recommender.{model.lower()}":
                return importlib.machinery.ModuleSpec(fullname, _ModelLoader(model, home))
        if not any(fullname in table for table in (BEFORE, AFTER, AROUND)):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                _mend_when_loaded(spec)
                return spec
        return None


class _ModelLoader(importlib.abc.Loader):
    """Makes a small module that holds one model class: the class's own module keeps its name and its spec."""

    def __init__(self, model: str, home: str) -> None:
        self.model = model
        self.home = home

    def exec_module(self, module: types.ModuleType) -> None:
        setattr(module, self.model, getattr(importlib.import_module(self.home), self.model))


def _mend_when_loaded(spec: importlib.machinery.ModuleSpec) -> None:
    loader: Any = spec.loader  # RecBole's own loader stays in place: tracebacks and inspect read the source through it
    run = loader.exec_module

    def exec_module(module: types.ModuleType) -> None:
        for mend in BEFORE.get(spec.name, ()):
            mend(module)
        with AROUND.get(spec.name, contextlib.nullcontext)():
            run(module)
        for mend in AFTER.get(spec.name, ()):
            mend(module)

    loader.exec_module = exec_module
