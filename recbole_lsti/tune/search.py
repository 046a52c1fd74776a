"""tune(): the search itself, for one model or for several under one budget."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import TrialState

from recbole_lsti.cluster import check_executor, client_of
from recbole_lsti.config import LSTIConfig, plain_settings
from recbole_lsti.errors import one_of
from recbole_lsti.tune import study as studies
from recbole_lsti.tune.attempt import Outcome, TrialKilledError, attempt, attempt_apart
from recbole_lsti.tune.output import Lines, best_trial, values_of
from recbole_lsti.tune.space import Space, check_space, read_space
from recbole_lsti.tune.trial import Search, UnderWay, begin

SAMPLERS = {"tpe": TPESampler, "random": RandomSampler}
N_STARTUP = 5  # trials that end before the first is pruned


class Found(NamedTuple):
    """What a search has found for a model.

    Attributes:
        model, study: their names.
        metric: of the scores.
        score: the best on the validation items; None where no trial has come to one.
        values: the searched settings of the best trial; None where there is none.
        n_complete, n_pruned, n_failed: trials that count, of all processes.
        seconds: what they have taken.
        reason: why the first of the failed ones has failed; None where none has.
        folder: of best.yaml and trials.csv.
    """

    model: str
    study: str
    metric: str
    score: float | None
    values: dict[str, Any] | None
    n_complete: int
    n_pruned: int
    n_failed: int
    seconds: float
    reason: str | None
    folder: Path


def tune(
    models: Iterable[str],
    dataset: str,
    space: str | Path | Mapping[str, Any],
    *,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    n_trials: int = 20,
    minutes: float | None = None,
    output: str | Path | None = None,
    storage: str | None = None,
    study: str | None = None,
    resume: bool = False,
    sampler: str = "tpe",
    prune: bool = True,
    seed: int = 0,
    executor: str = "local",
    scheduler: str | None = None,
    jobs: int | None = None,
    memory_gib: float | None = None,
    stream: TextIO | None = None,
) -> list[Found]:
    """Search for the settings with the best validation score; the test items are never ranked.

    Each model gets the same number of trials and the same minutes of training. Several processes may work on one study:
    all but the first must, and the first may, be called with `resume=True`.

    Args:
        models: names of sequential models, ours or RecBole's.
        dataset (str): the data set's name.
        space: a file, or what a YAML file would hold, that `read_space` reads.
        config_file_list, config_dict: settings that are not searched, as `run` takes them.
        n_trials (int): trials of each model, those of all processes together.
        minutes (float | None): what the trials of a model, of all processes together, may take; checked at every
            validation. A trial that is under way then ends with the best score that it has reached.
        output: folder of the results (default: saved/tune-<dataset>); a folder for each model is made in it.
        storage (str | None): a journal file or a database URL; None: journal.log in `output`.
        study (str | None): name of the study, to which the model's is added; None: the data set's name.
        resume (bool): join or continue a study that is there; without it, such a study is an error.
        sampler (str): tpe or random.
        prune (bool): stop a trial whose best score so far is below the median of the others at the same epoch.
        seed (int): of the sampler; it fixes the trials of a process that works alone from the start.
        executor (str): local, one trial after the other in this process; or dask, trials as tasks on a cluster.
        scheduler (str | None): address of a Dask scheduler; None: a cluster on this machine.
        jobs (int | None): with Dask, trials at a time; None: one for each thread of the workers, of which a cluster
            that is started here has one.
        memory_gib (float | None): a trial that holds more is ended and has failed; each then has a process of its own.
        stream: where a line a trial is written; None: sys.stdout.
    Returns:
        list[Found]: one for each model. Beside it, `output`/<model>/, or `output`/<study>/<model>/, holds best.yaml,
            trials.csv and failed-*.txt.
    Raises:
        ValueError, TypeError, FileNotFoundError: settings, space or data that cannot work.
        OSError: the storage cannot be opened.
        ConnectionError: the scheduler does not answer, or goes away while trials are under way.
        ImportError: dask or distributed is not installed.
    """
    models = list(models)
    _check(models, n_trials, minutes, memory_gib, sampler)
    if executor == "local" and jobs is not None:
        raise ValueError(f"jobs ({jobs}) must go with --executor dask")
    check_executor(executor, scheduler, 1 if jobs is None else jobs)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(output or f"saved/tune-{dataset}")
    files = list(config_file_list or [])
    given = {"show_progress": False, **plain_settings(config_dict or {})}
    spaces = read_space(space, models)
    searches = []
    for model in models:  # all of them are checked before the first starts
        config = _base_config(model, dataset, files, given, spaces[model])
        check_space(spaces[model], config)
        place = folder / (study or "") / model  # another study must not take the place of the first one's files
        searches.append(Search(model, dataset, files, given, spaces[model], config, n_trials, minutes, place))
    names = [f"{study or dataset}-{model}" for model in models]
    connection = nullcontext() if executor == "local" else client_of(scheduler, jobs or 1)
    with connection as client:  # before a study is made: a scheduler that does not answer leaves nothing behind
        where = studies.open_storage(storage or str(folder / "journal.log"))
        if not resume:
            studies.check_new(where, names)
        begun = [
            _begin(search, where, name, resume, sampler, prune, seed)
            for search, name in zip(searches, names, strict=True)
        ]
        for search, each in zip(searches, begun, strict=True):
            lines = Lines(stream or sys.stdout, f"{search.model} on {dataset}", search.metric, n_trials)
            studies.give_up_the_dead(each)
            search.write(each)
            if client is None:
                _go(search, each, lines, memory_gib)
            else:
                from recbole_lsti.tune.cluster import run_trials

                run_trials(search, each, lines, client, jobs, memory_gib)
    return [_found(search, each) for search, each in zip(searches, begun, strict=True)]


def _check(models: list[str], n_trials: int, minutes: float | None, memory_gib: float | None, sampler: str) -> None:
    if not models or len(set(models)) < len(models):
        raise ValueError(f"models ({', '.join(models)}) must be one model or more, each named once")
    if n_trials < 1:
        raise ValueError(f"trials ({n_trials}) must be 1 or more")
    for name, value in (("minutes", minutes), ("memory_gib", memory_gib)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} ({value}) must be above 0")
    if sampler not in SAMPLERS:
        raise one_of("sampler", sampler, SAMPLERS)


def _base_config(model: str, dataset: str, files: list[str], given: Mapping[str, Any], space: Space) -> LSTIConfig:
    for key in space:
        if key in given:
            raise ValueError(f"setting ({key}) must be searched or given, not both")
    try:
        config = LSTIConfig(model, dataset, files, dict(given))
    except ValueError as refused:
        # what is given may fit what is searched and not the default of it, as n_heads=3 fits no hidden_size of 64
        try:
            config = LSTIConfig(model, dataset, files, {**given, **{key: space[key].first for key in space}})
        except (ValueError, TypeError):
            raise refused from None
    if config["eval_step"] < 1:
        raise ValueError(f"eval_step ({config['eval_step']}) must be 1 or more: trials are compared by validation")
    return config


def _begin(
    search: Search, storage: BaseStorage, name: str, resume: bool, sampler: str, prune: bool, seed: int
) -> Study:
    """Make or join the study of a model and give it this process's sampler and pruner."""
    agreement = studies.agreement_of(search.space, search.config)
    study, made = studies.open_study(storage, name, agreement, search.config["valid_metric_bigger"], resume)
    if not made:  # whoever made it draws from this seed, and may not have drawn yet
        seed = random.Random(f"{seed} {studies.this_process()}").getrandbits(32)
    kept: BaseSampler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # the constant liar keeps processes from trying the same settings at once
        kept = TPESampler(seed=seed, constant_liar=True) if sampler == "tpe" else RandomSampler(seed=seed)
    pruner: BasePruner = MedianPruner(n_startup_trials=N_STARTUP) if prune else NopPruner()
    study.sampler, study.pruner = kept, pruner
    return study


def _go(search: Search, study: Study, lines: Lines, memory_gib: float | None) -> None:
    """Run trials one by one until the budget is spent."""
    while (under_way := begin(search, study, lines)) is not None:
        try:
            outcome = (
                attempt(under_way.job, under_way.validated) if memory_gib is None else _apart(under_way, memory_gib)
            )
        except BaseException:
            under_way.give_up("interrupted")
            search.write(study)
            raise
        under_way.end(outcome)


def _apart(under_way: UnderWay, memory_gib: float) -> Outcome:
    try:
        return attempt_apart(under_way.job, under_way.validated, memory_gib)
    except TrialKilledError as error:
        return Outcome(None, under_way.seconds, str(error), f"{error}\n")


def _found(search: Search, study: Study) -> Found:
    trials = studies.counted(study)
    best = best_trial(study)
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    return Found(
        search.model,
        study.study_name,
        search.metric,
        best.value if best else None,
        values_of(best, search.space) if best else None,
        sum(trial.state is TrialState.COMPLETE for trial in trials),
        sum(trial.state is TrialState.PRUNED for trial in trials),
        len(failed),
        studies.seconds_spent(study),
        failed[0].user_attrs.get("reason") if failed else None,
        search.folder,
    )
