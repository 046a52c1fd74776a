"""Searching for the settings of a variant before its cells run: what is searched, and the search in its process.

A search is one process that makes one trial after the other: so the same plan draws the same trials, here and on a
cluster, and several searches share the work as cells do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_lsti.benchmark.models import TRAINING_FREE, is_trained_in_stages, known_settings, sequential_models
from recbole_lsti.config import check_keys
from recbole_lsti.config_rules import MEASURE
from recbole_lsti.errors import require

BUDGET = ("epochs", "pretrain_epochs", "train_seconds_limit", "seed")  # the plan's own


def read(source: Any) -> dict[str, Any]:
    """Read the space of a plan, a file or what a YAML file would hold, as plain data.

    Raises:
        ImportError: Optuna is missing; names the extra.
        ValueError, TypeError, FileNotFoundError: it cannot be read.
    """
    require("a search", "optuna", "tune")
    from recbole_lsti.tune.space import read_spaces

    if not isinstance(source, str | Path | Mapping):
        raise TypeError(f"space ({source}) must be a file or a dict of settings")
    return read_spaces(source).plain()


def check_space(
    space: Mapping[str, Any],
    models: Iterable[str],
    given: Mapping[str, Any],
    model_settings: Mapping[str, Mapping[str, Any]],
) -> None:
    """Refuse what no plan may search.

    Args:
        space: what `read` returns.
        models: those of the plan.
        given: the plan's settings.
        model_settings: model -> those of its rows.
    Raises:
        ValueError: settings that no model knows, that are the plan's own, or that change what is measured.
    """
    from recbole_lsti.tune.space import read_spaces

    spaces = read_spaces(space)
    for key in (*spaces.general, *(key for section in spaces.sections.values() for key in section)):
        if key in BUDGET:
            raise ValueError(f"space: {key} must be left to the plan's budget and seeds")
        if key in MEASURE:
            raise ValueError(f"space: {key} must not be searched: it changes what is measured")
        if key in given:
            raise ValueError(f"space: {key} must be searched or given in settings, not both")
    known: set[str] = set().union(*map(known_settings, models))
    if not known.issuperset(spaces.general):  # a key of a model that is not in the plan is no misspelling
        known |= set().union(*map(known_settings, sequential_models()))
    check_keys(spaces.general, known)
    for model, section in spaces.sections.items():
        check_keys(section, set(known_settings(model)))
        for key in set(section) & set(model_settings.get(model, {})):
            raise ValueError(f"space: {key} of {model} must be searched or set by model_settings, not both")


def searched(space: Mapping[str, Any], model: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is searched for a variant, as plain data; nothing where its defaults stand.

    Args:
        space: what `read` returns.
        model: the variant's model. One that trains nothing has what its section says alone, for it reads none of the
            settings of a training; one that is trained in stages, whose first has no validation, has nothing.
        own: the variant's settings; they stand, for they are what it is.
    """
    from recbole_lsti.tune.space import Spaces, read_spaces

    if is_trained_in_stages(model):
        return {}
    spaces = read_spaces(space)
    known = () if model in TRAINING_FREE else known_settings(model)
    general = {key: domain for key, domain in spaces.general.items() if key in known}
    wanted = {**general, **spaces.sections.get(model, {})}
    return Spaces({key: domain for key, domain in wanted.items() if key not in own}, {}).plain()


def run_search(
    head: Mapping[str, Any], settings: dict[str, Any], search: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Search, and leave best.yaml, trials.csv and the study in the folder; a study that is there goes on.

    Args:
        head, settings: of the cells that are to run with what is found; the seed is that of every trial.
        search: space, trials and memory_gib.
        folder: of the search.
    Returns:
        dict: metric, score and values of the best trial; how many were complete, pruned and failed, and their seconds.
    Raises:
        ValueError: no trial has come to a score.
    """
    from recbole_lsti.tune import tune

    (found,) = tune(
        [head["model"]],
        head["dataset"],
        search["space"],
        config_dict=settings,
        n_trials=search["trials"],
        output=folder,
        resume=True,
        memory_gib=search["memory_gib"],
        seed=settings["seed"],
    )
    for path in found.folder.iterdir():
        path.replace(folder / path.name)
    found.folder.rmdir()
    if found.score is None:
        raise ValueError(f"no trial has come to a score: {found.reason}")
    names = ("metric", "score", "values", "n_complete", "n_pruned", "n_failed", "seconds")
    return {name: getattr(found, name) for name in names}
