"""run() and load(): the whole flow for any sequential model, from settings to metrics, and back from a checkpoint."""

from __future__ import annotations

import json
import logging
import math
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
import yaml
from recbole.data import data_preparation
from recbole.utils import init_seed
from recbole.utils.logger import RemoveColorFilter

from recbole_lsti import checkpoint
from recbole_lsti.compat import tensorboard_folder
from recbole_lsti.config import LSTIConfig, check_keys, external_settings, plain_config
from recbole_lsti.data import LSTIDataset, create_dataset
from recbole_lsti.evaluation.ranking import Rankings
from recbole_lsti.memory import keep_freed_memory
from recbole_lsti.trainer import PortableTrainer, trainer_class


class Trained(NamedTuple):
    """A finished training: what `run` returns, and the objects behind it; the network holds the best epoch's weights.

    Attributes:
        result (dict): see `run`.
        trainer, network, dataset: RecBole's, or this package's for it.
        loaders (tuple): training, validation and test data.
        rankings (Rankings | None): the rankings of the test data, where it is ranked.
        test_seconds (float): seconds that ranking the test data took.
    """

    result: dict[str, Any]
    trainer: PortableTrainer
    network: Any
    dataset: LSTIDataset
    loaders: tuple[Any, Any, Any]
    rankings: Rankings | None
    test_seconds: float


class Loaded(NamedTuple):
    """What a checkpoint brings back, in the order of RecBole's `load_data_and_model`."""

    config: LSTIConfig
    model: Any
    dataset: LSTIDataset
    train_data: Any
    valid_data: Any
    test_data: Any


def run(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    saved: bool = True,
    tested: bool = True,
    callback_fn: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Train a sequential model, keep its best epoch by validation, test it once.

    Args:
        model (str | type | None): LSTI, a sequential model of RecBole, or a class; None: the one that the dict or the
            files name, else LSTI.
        dataset (str | None): a folder of atomic files in `data_path`; None: the one that the dict or the files name,
            else ml-100k, which comes with RecBole.
        config_file_list (list[str] | None): YAML files of settings.
        config_dict (dict | None): settings that win over the files.
        saved (bool): write a run folder; False writes nothing and keeps the best weights in memory until the test.
        tested (bool): False leaves the test items unread, as a search for settings must; both results are None then.
        callback_fn: called as RecBole's `fit` does, with the epoch, from 0, and its validation score; what it raises
            ends the run.

    Returns:
        dict: RecBole's `best_valid_score`, `valid_score_bigger`, `best_valid_result`, `test_result` (metrics 0..1),
        and `test_result_unseen` (the user's own items masked; None where the test is not ranked in full), `run_dir`
        and `checkpoint_file` (None where not saved), `train_seconds`, `epochs_run`, `best_epoch` (from 1),
        `n_parameters`, `peak_rss_mib`. Plain data; metrics.json in the run folder holds the same.

    Raises:
        ValueError, TypeError, FileNotFoundError: settings or data that cannot work; see LSTIConfig and LSTIDataset.
    """
    config = _config(model, dataset, config_file_list, config_dict)
    first = config["single_spec"] or torch.distributed.get_rank() == 0
    run_dir = _make_run_dir(config) if saved and first else None
    return _run_in(run_dir, config, saved, tested, callback_fn)


def resume(
    checkpoint_file: str | Path,
    config_dict: dict[str, Any] | None = None,
    callback_fn: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Go on with a training that has stopped, in the folder of its run, and test its best epoch.

    Args:
        checkpoint_file: the run's folder, or checkpoint.pth in it, which holds the best epoch so far: the training goes
            on behind that one.
        config_dict (dict | None): settings that win over those of the run, such as more `epochs`.
        callback_fn: as of `run`.
    Returns:
        dict: as of `run`; `train_seconds` are of this part alone, `epochs_run` of both.
    Raises:
        FileNotFoundError: no such checkpoint, or its data set is gone.
        ValueError: an unknown setting; not a checkpoint of this package, or the data set's users or items have changed.
    """
    path = checkpoint.path_of(checkpoint_file)
    before, given = checkpoint.read(path)["config"], config_dict or {}
    check_keys(given, set(before))
    settings = {**before, **given, "force_unknown_keys": True}
    return _run_in(
        path.parent, LSTIConfig(before["model"], before["dataset"], None, settings), True, True, callback_fn, path
    )


def _run_in(
    run_dir: Path | None,
    config: LSTIConfig,
    saved: bool,
    tested: bool,
    callback_fn: Callable[[int, float], None] | None,
    resumed: Path | None = None,
) -> dict[str, Any]:
    """Train and test, with a log and metrics.json in the run folder; a new one goes if nothing came of it."""
    try:
        with log_to(run_dir, config["state"]):
            result = train_and_test(config, run_dir, saved, tested, callback_fn, resumed).result
            if run_dir is not None:
                (run_dir / "metrics.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except BaseException as error:
        if run_dir is not None and resumed is None and not (run_dir / "learning_curve.csv").exists():
            shutil.rmtree(run_dir)  # made for this run, in which not one epoch was trained
        elif run_dir is not None and isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"train --resume {run_dir} goes on with it") from None
        raise
    if not config["single_spec"]:
        torch.distributed.destroy_process_group()
    return result


def run_processes(
    nproc: int,
    *,
    world_size: int = -1,
    ip: str = "localhost",
    port: str = "5678",
    group_offset: int = 0,
    **arguments: Any,
) -> dict[str, Any] | None:
    """Do `run(**arguments)` on several processes that share each step's batches (torch.distributed).

    Args:
        nproc (int): processes on this machine.
        world_size (int): processes on all machines; -1: those of this machine.
        ip, port (str): where the first machine waits for the others.
        group_offset (int): number of the first process of this machine.
    Returns:
        dict | None: what `run` returns; None on a machine that does not hold process 0.
    Raises:
        ValueError: no process, or more than there are GPUs; and what `run` raises of the settings.
        ChildProcessError: if one of the processes fails, with the last line of its error.
    """
    import torch.multiprocessing as mp

    if nproc < 1:
        raise ValueError(f"nproc ({nproc}) must be 1 or more")
    config = _config(*(arguments.get(key) for key in ("model", "dataset", "config_file_list", "config_dict")))
    world = {"nproc": nproc, "world_size": nproc if world_size <= 0 else world_size, "ip": ip, "port": port}
    if config["device"].type == "cuda" and nproc > torch.cuda.device_count():
        raise ValueError(f"nproc ({nproc}) must be at most the number of GPUs ({torch.cuda.device_count()})")
    queue = mp.get_context("spawn").SimpleQueue()
    try:
        mp.spawn(_run_rank, args=({**world, "offset": group_offset}, arguments, queue), nprocs=nproc, join=True)
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        raise ChildProcessError(f"a process of {nproc} failed: {str(error).strip().splitlines()[-1]}") from error
    return None if queue.empty() else queue.get()


def _run_rank(rank: int, world: dict[str, Any], arguments: dict[str, Any], queue: Any) -> None:
    keep_freed_memory()
    settings = {**(arguments.get("config_dict") or {}), **world, "local_rank": rank}
    result = run(**{**arguments, "config_dict": settings})
    if rank + world["offset"] == 0:
        queue.put(result)


def load(checkpoint_file: str | Path, model: type | None = None) -> Loaded:
    """Bring back a trained model, its settings and its data from a checkpoint of `run`.

    Args:
        checkpoint_file: checkpoint.pth of a run folder.
        model (type | None): the class, where it is neither LSTI nor one of RecBole's.
    Returns:
        Loaded: (config, model, dataset, train_data, valid_data, test_data); the model is in evaluation mode.
    Raises:
        FileNotFoundError: no such checkpoint, or its data set is gone.
        ValueError: not a checkpoint of this package, or of another version's network, or the data set's users or items
            have changed since.
    """
    content = checkpoint.read(checkpoint_file)
    settings = {**content["config"], "force_unknown_keys": True}
    config = LSTIConfig(model or settings["model"], settings["dataset"], config_dict=settings)
    dataset, loaders, network = build(config)
    checkpoint.check_tokens(dataset, content["tokens"])
    checkpoint.load_weights(network, content["state_dict"], checkpoint_file)
    checkpoint.load_other_state(network, content["other_parameter"], config["device"])
    return Loaded(config, network.eval(), dataset, *loaders)


def rank_test(loaded: Loaded) -> Rankings:
    """Rank the test data of a checkpoint again, both ways, as its training did at the end.

    Args:
        loaded (Loaded): what `load` returns.
    Returns:
        Rankings: metrics of both rankings, and the values of each row.
    Raises:
        ValueError: the settings do not rank the test.
    """
    trainer = make_trainer(loaded.config, loaded.model, None)
    trainer.eval_collector.data_collect(loaded.train_data)
    rankings = trainer.evaluate_rankings(loaded.test_data, load_best_model=False)
    if rankings is None:
        mode = loaded.config["eval_args"]["mode"]["test"]
        raise ValueError(
            f"eval_args mode ({mode}) must be full, uniN or popN for the test, and the test must have rows"
        )
    return rankings


def _config(
    model: str | type | None,
    dataset: str | None,
    config_file_list: list[str] | None,
    config_dict: dict[str, Any] | None,
) -> LSTIConfig:
    given = external_settings(config_file_list, config_dict)
    return LSTIConfig(
        model or given.get("model", "LSTI"), dataset or given.get("dataset", "ml-100k"), config_file_list, config_dict
    )


def train_and_test(
    config: LSTIConfig,
    run_dir: Path | None,
    saved: bool,
    tested: bool = True,
    callback_fn: Callable[[int, float], None] | None = None,
    resumed: Path | None = None,
) -> Trained:
    """Train under resolved settings, keep the best epoch by validation, test it once.

    Args:
        config (LSTIConfig): the settings.
        run_dir (Path | None): an existing folder for the learning curve and, where `saved`, the checkpoint.
        saved (bool): write a checkpoint; else the best weights are kept in memory.
        tested (bool): False leaves the test part unread.
        callback_fn: called with the epoch, from 0, and its validation score.
        resumed (Path | None): a checkpoint to go on from.
    Returns:
        Trained: the result and the objects behind it.
    Raises:
        ValueError, TypeError, FileNotFoundError: data that cannot work.
    """
    logger = logging.getLogger()
    logger.info(config)
    dataset, loaders, network = build(config)
    train_data, valid_data, test_data = loaders
    logger.info(dataset)
    logger.info(network)
    trainer = make_trainer(config, network, run_dir)
    if resumed is not None:
        trainer.resume_checkpoint(resumed, train_data)
    started = time.perf_counter()
    best_valid_score, best_valid_result = trainer.fit(
        train_data, valid_data, saved=saved, show_progress=config["show_progress"], callback_fn=callback_fn
    )
    train_seconds = time.perf_counter() - started
    trainer.load_best()
    started = time.perf_counter()
    rankings = trainer.evaluate_rankings(test_data, load_best_model=False) if tested else None
    test_result = rankings.raw if rankings else trainer.evaluate(test_data, load_best_model=False) if tested else None
    test_seconds = time.perf_counter() - started
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "best_valid_score": best_valid_score if math.isfinite(best_valid_score) else None,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": _finite(best_valid_result),
        "test_result": _finite(test_result),
        "test_result_unseen": _finite(rankings and rankings.unseen),
        "run_dir": run_dir and str(run_dir),
        "checkpoint_file": str(trainer.saved_model_file) if run_dir and saved else None,
        "train_seconds": round(train_seconds, 2),
        "epochs_run": len(trainer.curve),
        "best_epoch": trainer.best_epoch + 1,
        "train_steps": len(train_data) * len(trainer.curve),
        "n_parameters": sum(parameter.numel() for parameter in network.parameters()),
        "peak_rss_mib": peak_rss_mib(),
    }
    logger.info(json.dumps(checkpoint.plain(result), indent=2))
    return Trained(checkpoint.plain(result), trainer, network, dataset, loaders, rankings, test_seconds)


def _finite(metrics: Mapping[str, float] | None) -> dict[str, float | None] | None:
    """Metrics with None where one is not defined, as JSON has no NaN."""
    if metrics is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def build(config: LSTIConfig) -> tuple[LSTIDataset, tuple[Any, Any, Any], Any]:
    """Data set, loaders and network, seeded as RecBole seeds them.

    Raises:
        ValueError: cut-offs beyond the number of items, or nothing to train on.
    """
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    most = max(config["topk"])
    if most >= dataset.item_num:
        raise ValueError(
            f"topk ({most}) must be below the number of items of {config['dataset']} ({dataset.item_num - 1})"
        )
    loaders = data_preparation(config, dataset)
    for part, loader in zip(("validate", "test"), loaders[1:], strict=True):
        if not len(loader._dataset):
            logging.getLogger().warning(f"{config['dataset']}: the split leaves no event to {part} on")
    rank = config["local_rank"] + (config["offset"] or 0)
    init_seed(config["seed"] + rank, config["reproducibility"])
    network = config.model_class(config, loaders[0]._dataset).to(config["device"])
    return dataset, loaders, network


def make_trainer(config: LSTIConfig, network: Any, run_dir: Path | None) -> PortableTrainer:
    """The trainer of a network, which writes checkpoint and learning curve to `run_dir`, where there is one.

    Args:
        config: of the run.
        network: the model, on the device of the config.
        run_dir: an existing folder, or None.
    """
    config["checkpoint_dir"] = str(run_dir or ".")  # RecBole's trainers make it, and may write more than weights to it
    with tensorboard_folder(run_dir and run_dir / "tensorboard"):
        trainer = trainer_class(config)(config, network)
    if run_dir is not None:
        trainer.saved_model_file = str(run_dir / "checkpoint.pth")
        trainer.curve_file = run_dir / "learning_curve.csv"
    return trainer


def _make_run_dir(config: LSTIConfig) -> Path:
    parent = Path(config["checkpoint_dir"])
    while True:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        run_dir = parent / f"{config['model']}-{config['dataset']}-{stamp}-{secrets.token_hex(3)}"
        try:
            run_dir.mkdir(parents=True)
            break
        except FileExistsError:
            continue
        except OSError as error:
            raise OSError(
                f"checkpoint_dir ({parent}) must be a folder that can be written to: {error.strerror}"
            ) from None
    write_config(config, run_dir)
    return run_dir


def write_config(config: LSTIConfig, folder: Path) -> None:
    """Write the resolved settings, from which a run can be repeated, to config.yaml of a folder."""
    text = yaml.safe_dump(plain_config(config), sort_keys=True, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")


@contextmanager
def log_to(run_dir: Path | None, state: str | None) -> Iterator[None]:
    """Send what is logged to run.log of the run folder, and warnings to the screen, while a run lasts.

    Whoever has set up logging says what reaches the screen.
    """
    logger = logging.getLogger()
    level = logging.getLevelName((state or "info").upper())
    handlers: list[logging.Handler] = []
    if not logger.hasHandlers():
        handlers.append(logging.StreamHandler())
        handlers[0].setLevel(logging.WARNING)
    if run_dir is not None:
        file = logging.FileHandler(run_dir / "run.log", encoding="utf-8")
        file.setLevel(level)
        file.addFilter(RemoveColorFilter())
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handlers.append(file)
    before = logger.level
    logger.setLevel(level)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    except Exception:
        logger.debug("the run ended with an error", exc_info=True)
        raise
    finally:
        logger.setLevel(before)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def peak_rss_mib() -> float:
    """The process's largest resident memory so far, MiB."""
    if platform.system() == "Windows":
        return round(psutil.Process().memory_info().peak_wset / 2**20, 1)
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
