"""Studies that several processes share: where they are kept, what they must agree on, how much budget is left."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from recbole_lsti.checkpoint import plain
from recbole_lsti.config import LSTIConfig, plain_config
from recbole_lsti.config_rules import MACHINE
from recbole_lsti.data.cache import file_digest
from recbole_lsti.data.snapshot import files_of
from recbole_lsti.tune.space import Space, describe

AGREEMENT = "agreement"  # the study's attribute that holds what its processes must agree on


def open_storage(place: str) -> BaseStorage:
    """Open a journal file, made where it is missing, or a database by its URL.

    Args:
        place: a path, or a URL such as sqlite:///tune.db or postgresql://user:password@host/name.
    Raises:
        OSError: it cannot be opened, with the reason.
    """
    try:
        if "://" in place:
            return get_storage(place)
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        # the lock works on NFS, where machines share a journal
        return JournalStorage(JournalFileBackend(place, lock_obj=JournalFileOpenLock(place)))
    except Exception as error:  # every database driver has errors of its own
        scheme, separator, rest = place.partition("://")
        shown = f"{scheme}{separator}{rest.rpartition('@')[2]}"  # no password in an error
        reason = str(error).replace(place, shown).strip().partition("\n")[0] or type(error).__name__
        raise OSError(
            f"storage ({shown}) must be a journal file or a database URL that can be opened: {reason}"
        ) from None


def open_study(
    storage: BaseStorage, name: str, agreement: Mapping[str, Any], bigger: bool, resume: bool
) -> tuple[Study, bool]:
    """Make a study, or join one that is there; of processes that come at once, one makes it.

    Args:
        storage: where it is kept.
        name (str): its name.
        agreement: what `agreement_of` says of this process's search.
        bigger (bool): whether a larger score is better.
        resume (bool): whether the study may be there already.
    Returns:
        tuple: the study, and whether this process has made it.
    Raises:
        ValueError: it is there and `resume` is False, or it searches something else; names what differs.
    """
    direction = StudyDirection.MAXIMIZE if bigger else StudyDirection.MINIMIZE
    try:
        study = optuna.create_study(study_name=name, storage=storage, direction=direction)
        study.set_user_attr(AGREEMENT, dict(agreement))
        return study, True
    except optuna.exceptions.DuplicatedStudyError:
        if not resume:
            raise _taken(name) from None
    study = optuna.load_study(study_name=name, storage=storage)
    before = study.user_attrs.get(AGREEMENT)
    if before is None and not study.get_trials(deepcopy=False):  # whoever made it just now has not said it yet
        study.set_user_attr(AGREEMENT, dict(agreement))
    elif before is None:
        raise ValueError(f"study ({name}) must be one of recbole-lsti tune, not of another program")
    elif before != json.loads(json.dumps(agreement)):
        raise ValueError(f"study ({name}) must be resumed as it was begun: {_difference(before, agreement)}")
    return study, False


def check_new(storage: BaseStorage, names: Iterable[str]) -> None:
    """Refuse names of studies that are there, before the first of the new ones is made."""
    there = optuna.get_all_study_names(storage)
    for name in names:
        if name in there:
            raise _taken(name)


def _taken(name: str) -> ValueError:
    return ValueError(
        f"study ({name}) must be new, and it is in the storage already: --resume continues or joins it, "
        "--study NAME makes another"
    )


def agreement_of(space: Space, config: LSTIConfig) -> dict[str, Any]:
    """What all processes of a study must agree on: the space, the settings that are not searched, the data."""
    settings = {key: value for key, value in plain_config(config).items() if key not in MACHINE and key not in space}
    return {
        "space": describe(space),
        "setting": plain(settings),
        "file": {path.name: file_digest(path) for path in files_of(config)},
    }


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    now = json.loads(json.dumps(now))
    for part in now:
        then = before.get(part, {})
        for key in sorted({*then, *now[part]}):
            if then.get(key) != now[part].get(key):
                if part == "file":
                    return f"{key} has changed"
                return f"{part} {key} was {then.get(key, 'absent')} and is {now[part].get(key, 'absent')}"
    return "it was begun by another version"


# ---- the budget --------------------------------------------------------------------------------------------------


def counted(study: Study) -> list[FrozenTrial]:
    """The trials that count: all but those that were interrupted, killed, or asked for when no budget was left."""
    return [trial for trial in study.get_trials(deepcopy=False) if "void" not in trial.user_attrs]


def has_budget(study: Study, n_trials: int, minutes: float | None) -> bool:
    """Whether another trial may start."""
    return len(counted(study)) < n_trials and not is_out_of_time(study, minutes)


def is_out_of_time(study: Study, minutes: float | None) -> bool:
    """Whether the trials of all processes together have taken so many minutes."""
    return minutes is not None and seconds_spent(study) >= 60 * minutes


def seconds_spent(study: Study) -> float:
    """Seconds that the counted trials have taken, those under way until their last validation."""
    return sum(trial.user_attrs.get("seconds", 0.0) for trial in counted(study))


def is_beyond(study: Study, trial: Trial, n_trials: int) -> bool:
    """Whether so many trials were there before this one: two processes may have asked for the last at once."""
    return sum(other.number < trial.number for other in counted(study)) >= n_trials


def give_up(study: Study, trial: Trial, reason: str) -> None:
    """End a trial that does not count."""
    trial.set_user_attr("void", True)
    trial.set_user_attr("reason", reason)
    study.tell(trial, state=TrialState.FAIL)


def give_up_the_dead(study: Study) -> int:
    """End the trials that processes of this machine were killed in; return how many."""
    dead = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        process = trial.user_attrs.get("process", "")
        if process.startswith(f"{socket.gethostname()}/") and not _is_alive(process):
            try:
                give_up(study, Trial(study, trial._trial_id), "its process was killed")
            except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
                continue  # another process that has begun at the same time was first
            dead += 1
    return dead


def this_process() -> str:
    """Machine, process id and start, so that the id's next owner is not taken for this one."""
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.0f}"


def _is_alive(process: str) -> bool:
    _, number, started = process.rsplit("/", 2)
    try:
        return abs(psutil.Process(int(number)).create_time() - float(started)) < 2
    except psutil.Error:
        return False
