"""Search spaces: read from RecBole's `hyper.test` lines or from YAML, drawn from by Optuna.

Literals are read, nothing is evaluated. A space is a dict of setting -> Domain.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from recbole_lsti.config import YamlLoader, check_keys, known_keys, sequential_model
from recbole_lsti.config_rules import MEASURE
from recbole_lsti.errors import AtomicFileError, nearest

RECBOLE_KINDS = ("choice", "uniform", "quniform", "loguniform")
EXPONENT = 700.0  # e to this power is about the largest number


class Domain(NamedTuple):
    """What a setting may be: Optuna's distribution, and the values behind its labels where Optuna cannot hold them."""

    distribution: CategoricalDistribution | FloatDistribution | IntDistribution
    values: Mapping[str, Any] = {}

    def value(self, drawn: Any) -> Any:
        """Return the setting that a drawn parameter stands for."""
        return self.values.get(drawn, drawn) if isinstance(drawn, str) else drawn

    @property
    def first(self) -> Any:
        """The first choice, or the lowest value."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.value(self.distribution.choices[0])
        return self.distribution.low


Space = dict[str, Domain]


class Spaces(NamedTuple):
    """A search space as it is written: what holds for every model, and what holds for one."""

    general: Space
    sections: dict[str, Space]

    def of(self, model: str) -> Space:
        """What stands in the model's own section wins over the general part."""
        return {**self.general, **self.sections.get(model, {})}

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, which `read_spaces` reads back."""
        general = {key: _plain(domain) for key, domain in self.general.items()}
        return general | {
            model: {key: _plain(domain) for key, domain in space.items()} for model, space in self.sections.items()
        }


def read_spaces(source: str | Path | Mapping[str, Any]) -> Spaces:
    """Read a search space.

    Args:
        source: a .yaml or .yml file, another file with lines of RecBole's format, as its `hyper.test`, or what a YAML
            file would hold; a section named after a model holds for that one alone.
    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that cannot be read, a section of a model that is none.
    """
    if isinstance(source, Mapping):
        spaces = _from_content("space", source)
    else:
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"space ({path}) must be a file")
        text = path.read_text(encoding="utf-8")
        yaml_file = path.suffix.lower() in (".yaml", ".yml")
        spaces = _from_yaml(path, text) if yaml_file else Spaces(_from_lines(path, text), {})
    for name in spaces.sections:
        sequential_model(name)  # raises, with the nearest name
    return spaces


def read_space(source: str | Path | Mapping[str, Any], models: Iterable[str]) -> dict[str, Space]:
    """Read a search space for each model.

    Args:
        source: see `read_spaces`.
        models: names of the models to tune.
    Returns:
        dict: model -> its space.
    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that cannot be read, a model without a setting to search.
    """
    read = read_spaces(source)
    spaces = {model: read.of(model) for model in models}
    for model, space in spaces.items():
        if not space:
            raise AtomicFileError(f"space ({source}) must name a setting or more for {model}")
    return spaces


def check_space(space: Space, config: Any) -> None:
    """Refuse settings that the model does not read, and those that would change the measure.

    Args:
        space: what is searched.
        config: the model's resolved LSTIConfig without the search.
    Raises:
        ValueError: naming the setting and the nearest known one.
    """
    for key in space:
        if key in MEASURE:
            raise ValueError(f"setting ({key}) must not be searched: it changes what is measured")
    known = set(config.internal_config_dict) | known_keys(config.model_class)
    try:
        check_keys(space, known)
    except ValueError as error:
        text = str(error).partition(";")[0]
        raise ValueError(f"space of {config['model']}: {text}; a YAML space may have a section for one model") from None


def describe(space: Space) -> dict[str, str]:
    """A line for each setting: what a resumed study must agree with."""
    return {key: _describe(domain) for key, domain in sorted(space.items())}


def _describe(domain: Domain) -> str:
    distribution = domain.distribution
    if isinstance(distribution, CategoricalDistribution):
        return f"choice [{', '.join(repr(domain.value(each)) for each in distribution.choices)}]"
    kind = ("log " if distribution.log else "") + type(distribution).__name__.removesuffix("Distribution").lower()
    step = f", step {distribution.step:g}" if distribution.step and distribution.step != 1 else ""
    return f"{kind} {distribution.low:g} to {distribution.high:g}{step}"


def _plain(domain: Domain) -> Any:
    distribution = domain.distribution
    if isinstance(distribution, CategoricalDistribution):
        return [domain.value(each) for each in distribution.choices]
    ends = [distribution.low, distribution.high]
    if isinstance(distribution, IntDistribution):
        return {"log_int": ends} if distribution.log else {"int": [*ends, distribution.step]}
    if distribution.step:
        return {"quniform": [*ends, distribution.step]}
    return {"log" if distribution.log else "uniform": ends}


# ---- RecBole's lines ---------------------------------------------------------------------------------------------


def _from_lines(path: Path, text: str) -> Space:
    space: Space = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split(None, 2)
        if not words:
            continue
        if len(words) < 3:
            raise AtomicFileError.at(path, number, f"line ({line.strip()}) must be: setting kind values")
        key, kind, values = words
        if kind not in RECBOLE_KINDS:
            rule = f"kind of {key} ({kind}) must be one of {', '.join(RECBOLE_KINDS)}{nearest(kind, RECBOLE_KINDS)}"
            raise AtomicFileError.at(path, number, rule)
        if key in space:
            raise AtomicFileError.at(path, number, f"{key} must be given once")
        try:
            space[key] = _choice(_literal(values)) if kind == "choice" else _RANGES[kind](*_numbers(kind, values))
        except ValueError as error:
            raise AtomicFileError.at(path, number, f"{key}: {error}") from None
    return space


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(f"choice ({text}) must be a list of literals, such as [64, 128] or ['a', 'b']") from None


def _numbers(kind: str, text: str) -> list[float]:
    wanted = 3 if kind == "quniform" else 2
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != wanted:
        raise ValueError(f"{kind} ({text}) must be {wanted} numbers, separated by commas")
    return numbers


# ---- YAML --------------------------------------------------------------------------------------------------------


def _from_yaml(path: Path, text: str) -> Spaces:
    try:
        content = YamlLoader(text).get_single_data()
    except yaml.YAMLError as error:
        raise AtomicFileError(f"space ({path}) must be YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict | None):
        raise AtomicFileError(f"space ({path}) must hold `setting: values` lines, not a {type(content).__name__}")
    return _from_content(str(path), content or {})


def _from_content(name: str, content: Mapping[str, Any]) -> Spaces:
    spaces = Spaces({}, {})
    for key, rule in content.items():
        if isinstance(rule, dict) and not set(rule) & set(_RANGES | {"choice": 0}) and re.match("[A-Z]", str(key)):
            spaces.sections[key] = {own: _yaml_domain(name, f"{key}: {own}", each) for own, each in rule.items()}
        else:
            spaces.general[key] = _yaml_domain(name, key, rule)
    return spaces


def _yaml_domain(path: str, key: str, rule: Any) -> Domain:
    if isinstance(rule, list):
        rule = {"choice": rule}
    kinds = ("choice", "uniform", "log", "int", "log_int", "quniform")
    if not isinstance(rule, dict) or len(rule) != 1:
        raise AtomicFileError(f"{path}: {key} ({rule}) must be a list of values or {{kind: [numbers]}}")
    ((kind, values),) = rule.items()
    if kind not in kinds:
        hint = " (did you mean log? its ends are values, not exponents)" if kind == "loguniform" else ""
        raise AtomicFileError(
            f"{path}: kind of {key} ({kind}) must be one of {', '.join(kinds)}{hint or nearest(str(kind), kinds)}"
        )
    try:
        if kind == "choice":
            return _choice(values)
        n_numbers = {"quniform": (3,), "int": (2, 3)}.get(kind, (2,))
        if not isinstance(values, list) or len(values) not in n_numbers or not all(map(_is_number, values)):
            raise ValueError(f"{kind} ({values}) must be a list of {' or '.join(map(str, n_numbers))} numbers")
        return _RANGES[kind](*values)
    except ValueError as error:
        raise AtomicFileError(f"{path}: {key}: {error}") from None


# ---- kinds -------------------------------------------------------------------------------------------------------


def _choice(values: Any) -> Domain:
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f"choice ({values}) must be a list of one value or more")
    plain = all(value is None or isinstance(value, (bool, int, float, str)) for value in values)
    labels = list(values) if plain else [repr(value) for value in values]
    if len({repr(label) for label in labels}) < len(labels):
        raise ValueError(f"choice ({values}) must not name a value twice")
    return Domain(CategoricalDistribution(labels), {} if plain else dict(zip(labels, values, strict=True)))


def _uniform(low: float, high: float) -> Domain:
    return Domain(FloatDistribution(*_ordered(low, high)))


def _log(low: float, high: float) -> Domain:
    _ordered(low, high)
    if low <= 0:
        raise ValueError(f"lowest value ({low}) must be above 0 on a logarithmic scale")
    return Domain(FloatDistribution(low, high, log=True))


def _loguniform(low: float, high: float) -> Domain:
    """RecBole's (hyperopt's): the ends are exponents of e."""
    if high > EXPONENT:
        raise ValueError(f"highest value ({high}) must be an exponent of e, as in RecBole's loguniform")
    return _log(math.exp(low), math.exp(high))


def _int(low: float, high: float, step: float = 1) -> Domain:
    return _whole(low, high, step, log=False)


def _log_int(low: float, high: float) -> Domain:
    if low < 1:
        raise ValueError(f"lowest value ({low}) must be 1 or more on a logarithmic scale")
    return _whole(low, high, 1, log=True)


def _whole(low: float, high: float, step: float, log: bool) -> Domain:
    _ordered(low, high)
    if any(number != int(number) for number in (low, high, step)) or step < 1:
        raise ValueError(f"numbers ({low}, {high}, step {step}) must be whole, and the step 1 or more")
    highest = int(low) + int(high - low) // int(step) * int(step)
    return Domain(IntDistribution(int(low), highest, log=log, step=int(step)))


def _quniform(low: float, high: float, q: float) -> Domain:
    """Multiples of q from low to high. Hyperopt gives them as floats, which no embedding size may be."""
    _ordered(low, high)
    if q <= 0:
        raise ValueError(f"step ({q}) must be above 0")
    first, last = math.ceil(low / q - 1e-9), math.floor(high / q + 1e-9)
    if first > last:
        raise ValueError(f"range ({low}, {high}) must hold a multiple of {q}")
    if q == int(q):
        return _whole(first * q, last * q, q, log=False)
    return Domain(FloatDistribution(first * q, last * q, step=q))


def _ordered(low: float, high: float) -> tuple[float, float]:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"range ({low}, {high}) must be finite, the lowest value first")
    return low, high


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_RANGES: dict[str, Callable[..., Domain]] = {
    "uniform": _uniform,
    "quniform": _quniform,
    "loguniform": _loguniform,
    "log": _log,
    "int": _int,
    "log_int": _log_int,
}
