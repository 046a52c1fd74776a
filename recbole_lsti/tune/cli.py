"""The command `recbole-lsti tune`: its flags, and what it prints."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recbole_lsti.errors import require

if TYPE_CHECKING:
    from recbole_lsti.tune.search import Found

EXAMPLE = """examples:
  %(prog)s --models LSTI --dataset ml-100k --space space.yaml --trials 30
  %(prog)s --models LSTI,SASRec --space space.yaml --trials 20 --minutes 60 --epochs=20
  %(prog)s --space space.yaml --trials 100 --executor dask --scheduler tcp://host:8786
  %(prog)s --space space.yaml --storage shared/journal.log --resume      in every process that shares the study

Any setting that is not searched may follow as --key=value. docs/tuning.md explains spaces and shared studies."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("--models", "-m", help="models, separated by commas (default: of the config files, else LSTI)")
    parser.add_argument("--dataset", "-d", help="name of the data set (default: of the config files, else ml-100k)")
    parser.add_argument("--space", required=True, help="what to search: YAML, or lines of RecBole's hyper.test format")
    parser.add_argument("--config_files", help="YAML files or profiles of what is not searched, separated by blanks")
    parser.add_argument("--trials", type=int, default=20, help="trials of each model (default: 20)")
    parser.add_argument("--minutes", type=float, help="minutes that the trials of a model may take (default: no limit)")
    parser.add_argument("--output", help="folder of the results (default: saved/tune-DATASET)")
    parser.add_argument("--storage", help="journal file or database URL (default: journal.log in the output folder)")
    parser.add_argument("--study", help="name of the study; the model's is added (default: the data set's name)")
    parser.add_argument("--resume", action="store_true", help="continue or join the study, where there is one")
    parser.add_argument("--sampler", default="tpe", help="tpe or random (default: tpe)")
    parser.add_argument("--no-prune", action="store_true", help="let every trial run to its end")
    parser.add_argument("--sampler-seed", type=int, default=0, help="seed of the sampler (default: 0)")
    parser.add_argument("--executor", default="local", help="local or dask (default: local)")
    parser.add_argument("--scheduler", help="address of a Dask scheduler (default: a cluster on this machine)")
    parser.add_argument("--jobs", type=int, help="with dask, trials at a time (default: one a thread of the workers)")
    parser.add_argument("--memory-gib", type=float, help="a trial that needs more memory is ended")


def main(known: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Search, print what was found; return 0, or 1 where a model has no trial with a score.

    Raises:
        ImportError: Optuna is missing; names the extra.
    """
    require("tune", "optuna", "tune")
    from recbole_lsti.tune.search import tune

    before = signal.signal(signal.SIGTERM, _interrupt)  # how schedulers end a job: the trial is given up in order
    try:
        return report(tune(**arguments_of(known, settings)))
    finally:
        signal.signal(signal.SIGTERM, before)


def arguments_of(known: argparse.Namespace, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flags and settings as the arguments of `tune`; a model or data set that no flag names is the files', as in `run`.

    Raises:
        FileNotFoundError, ValueError: a config file that is missing or no YAML.
    """
    from recbole_lsti.config import external_settings

    files = known.config_files.split() if known.config_files else None
    given = external_settings(files, None)
    models = str(given.get("model", "LSTI")) if known.models is None else known.models
    return {
        "models": [name.strip() for name in models.split(",") if name.strip()],
        "dataset": given.get("dataset", "ml-100k") if known.dataset is None else known.dataset,
        "space": known.space,
        "config_file_list": files,
        "config_dict": dict(settings),
        "n_trials": known.trials,
        "minutes": known.minutes,
        "output": known.output,
        "storage": known.storage,
        "study": known.study,
        "resume": known.resume,
        "sampler": known.sampler,
        "prune": not known.no_prune,
        "seed": known.sampler_seed,
        "executor": known.executor,
        "scheduler": known.scheduler,
        "jobs": known.jobs,
        "memory_gib": known.memory_gib,
    }


def report(found: list[Found]) -> int:
    """Print what was found for each model; return the exit status."""
    print()
    for each in found:
        counts = f"{each.n_complete} complete, {each.n_pruned} pruned, {each.n_failed} failed, {each.seconds:.0f} s"
        if each.score is None:
            print(f"{each.model}: no trial has come to a score ({counts}){f': {each.reason}' if each.reason else ''}")
            continue
        print(f"{each.model}: validation {each.metric} {each.score:.4f} ({counts})")
        print(f"  {' '.join(f'{key}={value}' for key, value in (each.values or {}).items())}")
        print(f"  try next:   recbole-lsti train --config_files {each.folder / 'best.yaml'}")
    return 1 if any(each.score is None for each in found) else 0


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
