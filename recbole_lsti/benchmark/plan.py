"""The plan of a benchmark: which models, data sets, splits and seeds, under which budget; and the cells it comes to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from recbole_lsti.benchmark.models import TRAINING_FREE, known_settings, needs, sequential_models
from recbole_lsti.config import LSTIConfig, check_keys, plain_config, sequential_model
from recbole_lsti.config_rules import MEASURE
from recbole_lsti.errors import nearest

KEYS = ("models", "datasets", "seeds", "split", "ranking", "budget", "space", "settings", "model_settings", "controls")
BUDGET_KEYS = ("epochs", "minutes", "memory_gib", "trials")
FIRST_SEED = 2020
OWN = {
    "load_col",
    "eval_step",
}  # of MEASURE, what a variant may say: the attributes it reads, how often it is validated
SPLITS: dict[str, dict[str, Any]] = {
    "loo": {"LS": "valid_and_test"},  # the last two items of each user
    "time": {"TS": [0.8, 0.1, 0.1]},  # one moment for everybody: what comes after it is the test
    "ratio": {"RS": [0.8, 0.1, 0.1]},  # the last tenth of each user's rows is the test, the tenth before it validation
}
# rows that a board needs to be read: what no training, one branch, or the other way of training comes to
CONTROLS: dict[str, dict[str, Any]] = {
    "Markov": {"model": "Markov"},
    "Popularity": {"model": "Popularity"},
    "LSTI-long": {"model": "LSTI", "fusion": "long"},
    "LSTI-short": {"model": "LSTI", "fusion": "short"},
    # two branches of one kind with as many parameters as LSTI's two kinds, see TWIN_WIDTHS; the first one has the
    # mean of the history, as the long branch has
    "LSTI-two-LSTMs": {"model": "LSTI", "twin": "long"},
    "LSTI-two-attentions": {"model": "LSTI", "twin": "short"},
    "SASRec": {"model": "SASRec"},
    "SASRec-sequence": {"model": "SASRec", "train_mode": "sequence"},
    "GRU4Rec": {"model": "GRU4Rec"},
    "GRU4Rec-sequence": {"model": "GRU4Rec", "train_mode": "sequence"},
}
# an LSTM has 8 H^2 weights, attention 4 H^2, the feed-forward layers behind either 2 H times inner_size: so many H more
# or less of inner_size make two of a kind as large as one of each
TWIN_WIDTHS = {"long": -1, "short": 1}
TWINS = [name for name, settings in CONTROLS.items() if "twin" in settings]
ALIASES = {"Pop": "Popularity"}  # RecBole's name of the same ranking


@dataclass(frozen=True)
class Variant:
    """A row of the board: a model under a name of its own, with settings that only it has.

    `n_seeds`: it runs with so many of the plan's seeds, the first ones; None: with all.
    """

    name: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    n_seeds: int | None = None

    def plain(self) -> Any:
        """Return it as a plan spells it: the name alone, or `{name: {model: ..., key: value}}`."""
        seeds = {} if self.n_seeds is None else {"seeds": self.n_seeds}
        if not self.settings and not seeds and self.name == self.model:
            return self.name
        return {self.name: {"model": self.model, **seeds, **self.settings}}


@dataclass(frozen=True)
class Cell:
    """One training: a variant on one split of a data set with one seed; or the search for the settings of several.

    Attributes:
        settings: the config dict that the run gets.
        reason: why it cannot run, or None.
        space: what is searched before it runs, as a plan spells it; nothing: it runs as it is.
        trials: those of a search; None: it is a training.
    """

    variant: str
    model: str
    dataset: str
    split: str
    seed: int
    settings: dict[str, Any]
    reason: str | None = None
    space: Mapping[str, Any] = field(default_factory=dict)
    trials: int | None = None

    @property
    def kind(self) -> str:
        """The name of the cells that differ by their seed alone, and of the search for their settings."""
        return f"{self.variant}-{self.dataset}-{self.split}"

    @property
    def id(self) -> str:
        """The cell's name, which is its folder's: `<variant>-<dataset>-<split>-<seed>`; a search has no seed in it."""
        return self.kind if self.trials else f"{self.kind}-{self.seed}"

    @property
    def place(self) -> str:
        """Where its folder lies in the results folder."""
        return f"{'tuning' if self.trials else 'cells'}/{self.id}"

    @property
    def search(self) -> dict[str, Any] | None:
        """What its process is told of a search; None: it is a training."""
        return {"space": dict(self.space), "trials": self.trials} if self.trials else None

    def effective(self) -> dict[str, Any]:
        """Return every setting of the run, defaults included, as plain data."""
        return plain_config(LSTIConfig(self.model, self.dataset, config_dict=self.settings))

    def head(self) -> dict[str, Any]:
        """Return what every line of results.jsonl begins with."""
        names = {key: getattr(self, key) for key in ("variant", "model", "dataset", "split", "seed")}
        return {"cell": self.id, **names}


@dataclass(frozen=True)
class Plan:
    """A benchmark as its YAML or the flags describe it, checked.

    Attributes:
        models: the variants that were asked for.
        controls: the variants that stand beside them so that the others can be judged.
        splits: of SPLITS.
        ranking: `full`, or `uniN`/`popN`: N negatives drawn once, the same for every model.
        epochs, minutes: at most, for each training; None: what the models' defaults say.
        memory_gib: a cell or a trial that needs more is ended; None: no limit.
        trials: of each variant on each data set and split before its cells run; None: they run as they are.
        space: what the trials search, as plain data.
        settings: for every model that knows the key.
        model_settings: model -> settings of all its rows, which win over those.
    """

    models: tuple[Variant, ...]
    controls: tuple[Variant, ...]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    splits: tuple[str, ...] = ("loo",)
    ranking: str = "full"
    epochs: int | None = None
    minutes: float | None = None
    memory_gib: float | None = None
    trials: int | None = None
    space: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    model_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All rows of the board."""
        return (*self.models, *self.controls)

    def plain(self) -> dict[str, Any]:
        """Return the plan as plain data, which `from_dict` reads back."""
        budget = {key: getattr(self, key) for key in BUDGET_KEYS if getattr(self, key) is not None}
        return {
            "models": [variant.plain() for variant in self.models],
            "controls": [c.name if c.n_seeds is None else {c.name: {"seeds": c.n_seeds}} for c in self.controls],
            "datasets": list(self.datasets),
            "seeds": list(self.seeds),
            "split": list(self.splits),
            "ranking": self.ranking,
            "budget": budget,
            **({"space": dict(self.space)} if self.space else {}),
            "settings": dict(self.settings),
            **({"model_settings": {k: dict(v) for k, v in self.model_settings.items()}} if self.model_settings else {}),
        }

    def cells(self) -> list[Cell]:
        """Return the cells, those of one seed after those of another, so that a board is whole early.

        Raises:
            ValueError: two cells with one name; settings that no model or the model they are meant for does not know;
                a search for what a control's width is computed from.
            TypeError, FileNotFoundError: settings of the wrong type; a missing data set.
        """
        first: dict[tuple[str, str, str], Cell] = {}
        for split in self.splits:
            for dataset in self.datasets:
                for variant in self.variants:
                    first[variant.name, dataset, split] = self._cell(variant, dataset, split)
        self._check_settings()
        seeds = {variant.name: self.seeds[: variant.n_seeds] for variant in self.variants}
        cells = [
            replace(cell, seed=seed, settings={**cell.settings, "seed": seed})
            for seed in self.seeds
            for cell in first.values()
            if seed in seeds[cell.variant]
        ]
        ids = [cell.id for cell in cells]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"cell ({name}) must be one: two variants or data sets come to the same name")
        return cells

    def _cell(self, variant: Variant, dataset: str, split: str) -> Cell:
        known = known_settings(variant.model)
        forced = self.settings.get("force_unknown_keys")
        given = {key: value for key, value in self.settings.items() if forced or key in known} | self.own_settings(
            variant
        )
        eval_args = {"split": SPLITS[split], "order": "TO", "group_by": "user", "mode": self.ranking}
        settings: dict[str, Any] = {"show_progress": False, **given, "eval_args": eval_args, "seed": FIRST_SEED}
        config = LSTIConfig(variant.model, dataset, config_dict=settings)  # says what is wrong, the data set's name too
        if variant in self.controls and (twin := variant.settings.get("twin")):
            settings["inner_size"] = max(1, config["inner_size"] + TWIN_WIDTHS[twin] * config["hidden_size"])
        if self.epochs is not None and variant.model not in TRAINING_FREE:
            for key in {"epochs", "pretrain_epochs"} & known:
                settings[key] = _at_most(config[key], self.epochs)
        if self.minutes is not None:
            settings["train_seconds_limit"] = _at_most(config["train_seconds_limit"], 60 * self.minutes)
        needed = needs(variant.model, dataset, settings)
        settings = {**settings, **needed.settings}
        space = self.searched(variant)
        return Cell(variant.name, variant.model, dataset, split, FIRST_SEED, settings, needed.reason, space)

    def searched(self, variant: Variant) -> dict[str, Any]:
        """Return what is searched for a variant, as plain data; nothing where it runs as it is."""
        if not self.space:
            return {}
        from recbole_lsti.benchmark.tuning import searched

        return searched(self.space, variant.model, self.own_settings(variant))

    def own_settings(self, variant: Variant) -> dict[str, Any]:
        """What is set for a variant or its model."""
        return {**self.model_settings.get(variant.model, {}), **variant.settings}

    def searches(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return the searches that must have been made before cells run, each with the plan's first seed."""
        searches = {}
        for cell in cells:
            if cell.space:
                settings = {**cell.settings, "seed": self.seeds[0]}
                searches[cell.kind] = replace(cell, seed=self.seeds[0], settings=settings, trials=self.trials)
        return list(searches.values())

    def unread(self) -> list[str]:
        """Return the settings that no model of the plan reads, though one outside it does: they change nothing here."""
        if self.settings.get("force_unknown_keys"):
            return []
        mine = self._known()
        left = [key for key in self.settings if key not in mine]
        return [key for key in left if any(key in known_settings(model) for model in sequential_models())]

    def _known(self) -> set[str]:
        return set().union(*(known_settings(variant.model) for variant in self.variants))

    def _check_settings(self) -> None:
        known = self._known()
        if not known.issuperset(self.settings):  # a key of a model that is not in the plan is no misspelling
            known |= set().union(*map(known_settings, sequential_models()))
        if not self.settings.get("force_unknown_keys"):
            check_keys(self.settings, known)
        if self.space:
            from recbole_lsti.benchmark.tuning import check_space

            check_space(self.space, {variant.model for variant in self.variants}, self.settings, self.model_settings)
            for control in self.controls:
                self._check_twin(control)

    def _check_twin(self, control: Variant) -> None:
        """Refuse to search the widths of two branches of one kind: theirs are computed once, before any search."""
        searched = self.searched(control) if "twin" in control.settings else {}
        for key in ("hidden_size", "inner_size"):
            if key in searched:
                raise ValueError(
                    f"space: {key} must not be searched beside the control {control.name}, whose inner_size follows "
                    f"from it: controls must be false, or a list without {' and '.join(TWINS)}"
                )


def _at_most(own: float | None, most: float) -> float:
    """What a setting, or a model's default, comes to within the budget."""
    return most if own is None else min(own, most)


def from_dict(content: Mapping[str, Any]) -> Plan:
    """Return the plan that plain data describe.

    Raises:
        ValueError: an unknown key, model or split (names the nearest), two variants with one name, a bad number.
        TypeError: a value of the wrong type.
    """
    for key in content:
        if key not in KEYS:
            raise ValueError(f"key of the plan ({key}) must be one of {', '.join(KEYS)}{nearest(str(key), KEYS)}")
    models = tuple(_variant(entry) for entry in _models(content.get("models")))
    settings = content.get("settings") or {}
    if not isinstance(settings, Mapping):
        raise TypeError(f"settings ({settings}) must be a dict of settings")
    for key in ("eval_args", "seed"):
        if key in settings:
            raise ValueError(f"settings: {key} must be left to the plan's split, ranking and seeds")
    plan = Plan(
        models=models,
        controls=_controls(content.get("controls", True), models),
        datasets=tuple(_words("datasets", content.get("datasets", "ml-100k"))),
        seeds=_seeds(content.get("seeds", 1)),
        splits=tuple(_words("split", content.get("split", "loo"), tuple(SPLITS))),
        ranking=_ranking(content.get("ranking", "full")),
        settings=dict(settings),
        model_settings=_model_settings(content.get("model_settings") or {}),
        space=_space(content.get("space")),
        **_budget(content.get("budget") or {}),
    )
    if bool(plan.space) != bool(plan.trials):
        raise ValueError(f"budget: trials ({plan.trials}) must go with a space to search, and a space with trials")
    there = {variant.model for variant in plan.variants}
    for model in plan.model_settings:
        if model not in there:
            raise ValueError(f"model_settings: {model} must be one of the plan's models, {', '.join(sorted(there))}")
    names = [variant.name for variant in plan.variants]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"models: {name} must stand there once; give one of the two another name")
    return plan


def _models(entries: Any) -> list[Any]:
    if entries == "all":
        return [name for name in sequential_models() if name not in TRAINING_FREE]
    if isinstance(entries, str):
        return [entries]
    if not isinstance(entries, Sequence) or not entries:
        raise TypeError(f"models ({entries}) must be a list of models and variants, or all")
    return list(entries)


def _variant(entry: Any, where: str = "models") -> Variant:
    if isinstance(entry, Mapping):
        if len(entry) != 1 or not isinstance(next(iter(entry.values())), Mapping):
            raise TypeError(f"{where}: {dict(entry)} must be a model's name or {{name: {{model: ..., key: value}}}}")
        ((name, settings),) = entry.items()
        model = settings.get("model", name)
    else:
        name, model, settings = entry, entry, {}
    name, model = str(name), ALIASES.get(str(model), str(model))
    if not re.fullmatch(r"[\w][\w.+-]*", name):
        raise ValueError(f"{where}: name ({name}) must be of letters, digits, ., + and -, for it names a folder")
    known = sequential_models()
    if model not in known:
        raise ValueError(f"{where} ({model}) must be a sequential model of RecBole or LSTI{nearest(model, known)}")
    own = {key: value for key, value in settings.items() if key not in ("model", "seeds")}
    n_seeds = settings.get("seeds")
    if n_seeds is not None and (not isinstance(n_seeds, int) or isinstance(n_seeds, bool) or n_seeds < 1):
        raise ValueError(f"{where}: seeds ({n_seeds}) of {name} must be how many of the plan's seeds: 1 or more")
    for key in ("eval_args", "seed"):
        if key in own:
            raise ValueError(f"{where}: {key} of {name} must be left to the plan's split, ranking and seeds")
    for key in own:
        if key in MEASURE - OWN:
            raise ValueError(
                f"{where}: {key} of {name} must be left to the plan's settings: it changes what is measured"
            )
    sequential_model(model)
    return Variant(name, model, own, n_seeds)


def _model_settings(value: Any) -> dict[str, Mapping[str, Any]]:
    if not isinstance(value, Mapping) or not all(isinstance(own, Mapping) for own in value.values()):
        raise TypeError(f"model_settings ({value}) must be a dict of a dict of settings for each model")
    for model, own in value.items():
        for key in {"model", "seeds"} & set(own):
            raise ValueError(f"model_settings: {key} of {model} must be left to the rows of models")
    variants = (_variant({model: own}, "model_settings") for model, own in value.items())
    return {variant.model: variant.settings for variant in variants}


def _controls(wanted: Any, models: tuple[Variant, ...]) -> tuple[Variant, ...]:
    if isinstance(wanted, bool):
        with_lsti = any(variant.model == "LSTI" for variant in models)
        rows = [name for name in CONTROLS if with_lsti or name in TRAINING_FREE] if wanted else []
    else:
        rows = [wanted] if isinstance(wanted, str) else wanted or []
        if not isinstance(rows, Sequence):
            raise TypeError(f"controls ({wanted}) must be true, false, or a list of names and {{name: {{seeds: N}}}}")
    there = [(variant.model, dict(variant.settings)) for variant in models]
    controls = [_control(row) for row in rows]
    names = [control.name for control in controls]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"controls: {name} must stand there once")
    return tuple(control for control in controls if (control.model, dict(control.settings)) not in there)


def _control(row: Any) -> Variant:
    """Return the control of a plan's `name` or `{name: {seeds: N}}`: all else about it is fixed."""
    name, own = next(iter(row.items())) if isinstance(row, Mapping) and len(row) == 1 else (row, {})
    if not isinstance(name, str) or not isinstance(own, Mapping) or not set(own) <= {"seeds"}:
        raise TypeError(f"controls: {row} must be a name or {{name: {{seeds: N}}}}")
    name = ALIASES.get(name, name)
    if name not in CONTROLS:
        raise ValueError(f"controls ({name}) must be of {', '.join(CONTROLS)}{nearest(name, CONTROLS)}")
    return _variant({name: {**CONTROLS[name], **own}}, "controls")


def _words(key: str, value: Any, allowed: tuple[str, ...] | None = None) -> list[str]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"{key} ({value}) must be a name or a list of names")
    if not words:
        raise ValueError(f"{key} ({value}) must name at least one")
    for word in words:
        if allowed is not None and word not in allowed:
            raise ValueError(f"{key} ({word}) must be one of {', '.join(allowed)}{nearest(word, allowed)}")
        if words.count(word) > 1:
            raise ValueError(f"{key}: {word} must stand there once")
    return list(words)


def _seeds(value: Any) -> tuple[int, ...]:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return tuple(range(FIRST_SEED, FIRST_SEED + value))
    numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [None]
    if not numbers or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise ValueError(f"seeds ({value}) must be how many (1 or more) or a list of whole numbers, 0 or more")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"seeds ({value}) must be different")
    return tuple(numbers)


def _ranking(value: Any) -> str:
    if not re.fullmatch(r"full|(uni|pop)[1-9]\d*", str(value)):
        raise ValueError(f"ranking ({value}) must be full, or uniN or popN for N sampled negatives")
    return str(value)


def _space(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    from recbole_lsti.benchmark.tuning import read

    return read(value)


def _budget(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"budget ({value}) must be a dict with epochs, minutes, memory_gib and trials")
    for key, number in value.items():
        if key not in BUDGET_KEYS:
            raise ValueError(
                f"key of budget ({key}) must be one of {', '.join(BUDGET_KEYS)}{nearest(key, BUDGET_KEYS)}"
            )
        whole = key in ("epochs", "trials")
        right = isinstance(number, int if whole else (int, float)) and not isinstance(number, bool) and number > 0
        if number is not None and not right:
            raise ValueError(f"budget: {key} ({number}) must be a {'whole ' if whole else ''}number above 0")
    return dict(value)
