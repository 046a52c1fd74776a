"""tune(): the search itself, for one model or for several under one budget."""

from __future__ import annotations

import math
import random
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import Trial, TrialState

from recbole_lsti.config import LSTIConfig, external_settings, parse_literal
from recbole_lsti.errors import one_of
from recbole_lsti.runner import run
from recbole_lsti.tune import study as studies
from recbole_lsti.tune.output import Lines, best_trial, values_of, write_best, write_failure, write_trials
from recbole_lsti.tune.space import Space, check_space, read_space

SAMPLERS = {"tpe": TPESampler, "random": RandomSampler}
N_STARTUP = 5  # trials that end before the first is pruned


class Found(NamedTuple):
    """What a search has found for a model; `score` and `values` are None where no trial has come to a score."""

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


class _OutOfTimeError(Exception):
    """The budget of minutes is spent in the middle of a trial."""


class _Search(NamedTuple):
    """One model's search: its base settings, its space, its budget."""

    model: str
    dataset: str
    files: list[str]
    given: dict[str, Any]
    space: Space
    config: LSTIConfig
    n_trials: int
    minutes: float | None
    folder: Path


def tune(
    models: Iterable[str],
    dataset: str,
    space: str | Path,
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
    stream: TextIO | None = None,
) -> list[Found]:
    """Search for the settings with the best validation score; the test items are never ranked.

    Each model gets the same number of trials and the same minutes of training. Several processes may work on one study:
    all but the first must, and the first may, be called with `resume=True`.

    Args:
        models: names of sequential models, ours or RecBole's.
        dataset (str): the data set's name.
        space: a file that `read_space` reads.
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
        stream: where a line a trial is written; None: sys.stdout.
    Returns:
        list[Found]: one for each model. Beside it, `output`/<model>/ holds best.yaml, trials.csv and failed-*.txt.
    Raises:
        ValueError, TypeError, FileNotFoundError: settings, space or data that cannot work.
        OSError: the storage cannot be opened.
    """
    models = list(models)
    if not models or len(set(models)) < len(models):
        raise ValueError(f"models ({', '.join(models)}) must be one model or more, each named once")
    if n_trials < 1:
        raise ValueError(f"trials ({n_trials}) must be 1 or more")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes ({minutes}) must be above 0")
    if sampler not in SAMPLERS:
        raise one_of("sampler", sampler, SAMPLERS)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(output or f"saved/tune-{dataset}")
    files = list(config_file_list or [])
    given = {"show_progress": False, **_parsed(config_dict or {})}
    spaces = read_space(space, models)
    searches = []
    for model in models:  # all of them are checked before the first starts
        config = _base_config(model, dataset, files, given, spaces[model])
        check_space(spaces[model], config)
        searches.append(_Search(model, dataset, files, given, spaces[model], config, n_trials, minutes, folder / model))
    names = [f"{study or dataset}-{model}" for model in models]
    where = studies.open_storage(storage or str(folder / "journal.log"))
    if not resume:
        studies.check_new(where, names)
    begun = [
        _begin(search, where, name, resume, sampler, prune, seed) for search, name in zip(searches, names, strict=True)
    ]
    return [_go(search, each, stream or sys.stdout) for search, each in zip(searches, begun, strict=True)]


def _parsed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Texts as the literals that a run would read them as."""
    return {key: parse_literal(value) if isinstance(value, str) else value for key, value in settings.items()}


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
    search: _Search, storage: BaseStorage, name: str, resume: bool, sampler: str, prune: bool, seed: int
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


def _go(search: _Search, study: Study, stream: TextIO) -> Found:
    """Run trials until the budget is spent."""
    search.folder.mkdir(parents=True, exist_ok=True)
    metric = str(search.config["valid_metric"]).lower()
    lines = Lines(stream, f"{search.model} on {search.dataset}", metric, search.n_trials)
    studies.give_up_the_dead(study)
    while studies.has_budget(study, search.n_trials, search.minutes):
        trial = study.ask({key: domain.distribution for key, domain in search.space.items()})
        trial.set_user_attr("process", studies.this_process())
        if studies.is_beyond(study, trial, search.n_trials):
            studies.give_up(study, trial, "no budget was left")
            break
        try:
            _try(search, study, trial, lines)
        except BaseException:
            studies.give_up(study, trial, "interrupted")
            _write(search, study, metric)
            raise
        _write(search, study, metric)
        frozen = study.get_trials(deepcopy=False)[trial.number]
        lines.done(study, frozen, values_of(frozen, search.space), len(studies.counted(study)))
    _write(search, study, metric)
    return _found(search, study, metric)


def _try(search: _Search, study: Study, trial: Trial, lines: Lines) -> None:
    """Run a trial and tell the study what came of it."""
    bigger = search.config["valid_metric_bigger"]
    values = {key: search.space[key].value(drawn) for key, drawn in trial.params.items()}
    scores: dict[int, float] = {}  # by epoch
    started = time.perf_counter()

    def after_validation(epoch: int, score: float) -> None:
        scores[epoch] = float(score)
        trial.report(float(score), epoch)
        trial.set_user_attr("seconds", round(time.perf_counter() - started, 2))
        lines.under_way(trial.number, values, epoch, score)
        if studies.is_out_of_time(study, search.minutes):
            raise _OutOfTimeError
        if trial.should_prune():
            raise optuna.TrialPruned

    state, reason, best = TrialState.COMPLETE, None, None
    try:
        result = run(
            search.model,
            search.dataset,
            search.files,
            {**search.given, **values},
            saved=False,
            tested=False,
            callback_fn=after_validation,
        )
        best = result["best_valid_score"] if scores else None
        if best is None:
            rule = (
                "valid_metric must be defined for a row of them" if scores else "the split must have validation items"
            )
            state, reason = TrialState.FAIL, f"no validation score: {rule}"
    except _OutOfTimeError:
        known = [score for score in scores.values() if math.isfinite(score)]
        best, reason = (max if bigger else min)(known, default=None), "ended by the budget of minutes"
        state = TrialState.COMPLETE if known else TrialState.FAIL
    except optuna.TrialPruned:
        state, reason = TrialState.PRUNED, "below the median"
    except Exception as error:  # whatever settings bring about must not end the search; the reason is kept
        state, reason = TrialState.FAIL, " ".join(f"{type(error).__name__}: {error}".split())
        write_failure(search.folder, trial.number, error)
    _note(trial, started, scores, bigger, reason)
    study.tell(trial, best, state=state)


def _note(trial: Trial, started: float, scores: Mapping[int, float], bigger: bool, reason: str | None) -> None:
    trial.set_user_attr("seconds", round(time.perf_counter() - started, 2))
    if scores:
        trial.set_user_attr("epochs", max(scores) + 1)
        trial.set_user_attr("best_epoch", (max if bigger else min)(scores, key=scores.__getitem__) + 1)
    if reason:
        trial.set_user_attr("reason", reason)


def _write(search: _Search, study: Study, metric: str) -> None:
    write_trials(search.folder / "trials.csv", study, search.space)
    best = best_trial(study)
    if best is not None:
        write_best(search.folder / "best.yaml", _settings(search, values_of(best, search.space)), study, metric)


def _settings(search: _Search, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a training run needs to repeat a trial: names, files' and given settings, and the values tried."""
    files = external_settings(search.files, None)
    given = {key: value for key, value in search.given.items() if key != "show_progress"}
    return {**files, **given, **_parsed(values), "model": search.model, "dataset": search.dataset}


def _found(search: _Search, study: Study, metric: str) -> Found:
    trials = studies.counted(study)
    best = best_trial(study)
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    return Found(
        search.model,
        study.study_name,
        metric,
        best.value if best else None,
        values_of(best, search.space) if best else None,
        sum(trial.state is TrialState.COMPLETE for trial in trials),
        sum(trial.state is TrialState.PRUNED for trial in trials),
        len(failed),
        studies.seconds_spent(study),
        failed[0].user_attrs.get("reason") if failed else None,
        search.folder,
    )
