"""What tests of several files need: the package's processes, waiting for them, and the trials of a search."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import recbole_lsti

PACKAGE_ROOT = Path(recbole_lsti.__file__).parents[1]


def environment() -> dict[str, str]:
    """The environment of a program that imports the package under test, from any folder."""
    return {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}


def wait_for(what: Callable[[], Any], seconds: float = 120) -> Any:
    """Return what `what()` gives, once it is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def children_running(module: str) -> list[psutil.Process]:
    """Children of this process that were started with `-m module`; other tests may have left others."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has just ended, or nobody has waited for it
            if module in child.cmdline():
                found.append(child)
    return found


def read_trials(folder: str | Path) -> list[dict[str, str]]:
    """The rows of a search's trials.csv."""
    with open(Path(folder) / "trials.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def make_trainer(settings: dict[str, Any]) -> tuple[Any, Any]:
    """LSTI on the data set `tiny` and its trainer, which holds the training batches."""
    from recbole_lsti.compat import tensorboard_folder  # they need torch, which converters are tested without
    from recbole_lsti.config import LSTIConfig
    from recbole_lsti.runner import build
    from recbole_lsti.trainer import trainer_class

    config = LSTIConfig("LSTI", "tiny", config_dict=settings)
    _, (train_data, _, _), model = build(config)
    with tensorboard_folder(None):
        trainer = trainer_class(config)(config, model)
    trainer._train_data = train_data
    return trainer, model


def run_epochs(trainer: Any, model: Any, until: int, path: Path) -> None:
    """Train as for all epochs, but stop after `until` of them, as a killed run does."""

    class KilledError(Exception):
        pass

    save = trainer._save_checkpoint

    def save_and_stop(epoch: int, verbose: bool = True, **kwargs) -> None:
        trainer.saved_model_file = str(path)
        save(epoch, verbose)
        if epoch + 1 == until:
            raise KilledError

    trainer._save_checkpoint = save_and_stop
    with pytest.raises(KilledError):
        trainer.fit(trainer._train_data, None, saved=True)
