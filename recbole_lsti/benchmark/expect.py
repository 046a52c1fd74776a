"""Expected figures: a rerun is held against what was committed, and a regression is told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_lsti.config import external_settings
from recbole_lsti.errors import nearest

KEYS = ("variant", "dataset", "split", "metric", "value", "tolerance", "direction")
DIRECTIONS = ("higher", "lower", "both")


class Expected(NamedTuple):
    """One figure.

    Attributes:
        variant, dataset, split: which row of the board.
        metric: `unseen.ndcg@10`, `raw.hit@10`, `valid.ndcg@10` or `cost.train_seconds`; the mean over seeds counts.
        value, tolerance: what it was, and how far it may be off.
        direction: higher is better (only a fall is a regression), lower is better, or both: neither way.
    """

    variant: str
    dataset: str
    split: str
    metric: str
    value: float
    tolerance: float
    direction: str


def read_expected(path: Path | str) -> list[Expected]:
    """Read a YAML file `expect: [{variant, dataset, split, metric, value, tolerance, direction}, ...]`.

    Raises:
        FileNotFoundError: no such file.
        ValueError, TypeError: an entry that is none; names the nearest key.
    """
    content = external_settings([str(path)], None)
    entries = content.get("expect")
    if set(content) != {"expect"} or not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise ValueError(f"expect file ({path}) must hold one list, `expect:`, of figures")
    return [_expected(entry, path) for entry in entries]


def _expected(entry: Any, path: Path | str) -> Expected:
    if not isinstance(entry, Mapping):
        raise TypeError(f"{path}: figure ({entry}) must be a dict with {', '.join(KEYS)}")
    for key in entry:
        if key not in KEYS:
            raise ValueError(f"{path}: key ({key}) must be one of {', '.join(KEYS)}{nearest(str(key), KEYS)}")
    full = {"split": "loo", "direction": "both", **entry}
    for key in KEYS:
        if key not in full:
            raise ValueError(f"{path}: {key} must stand in every figure, also in {dict(entry)}")
    for key in ("value", "tolerance"):
        number = full[key]
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise ValueError(f"{path}: {key} ({number}) must be a number")
    if full["tolerance"] < 0:
        raise ValueError(f"{path}: tolerance ({full['tolerance']}) must be 0 or more")
    if full["direction"] not in DIRECTIONS:
        hint = nearest(str(full["direction"]), DIRECTIONS)
        raise ValueError(f"{path}: direction ({full['direction']}) must be one of {', '.join(DIRECTIONS)}{hint}")
    part, dot, _ = str(full["metric"]).partition(".")
    if not dot or part not in ("unseen", "raw", "valid", "cost"):
        raise ValueError(f"{path}: metric ({full['metric']}) must be unseen, raw, valid or cost, a dot, and its name")
    return Expected(**full)


def regressions(expected: Iterable[Expected], lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each figure that the results miss; a missing, failed or undefined one is missed too."""
    lines = list(lines)
    told = []
    for each in expected:
        where = (each.variant, each.dataset, each.split)
        here = [line for line in lines if (line["variant"], line["dataset"], line["split"]) == where]
        part, _, metric = each.metric.partition(".")
        values = [(line.get(part) or {}).get(metric) for line in here]
        name = f"{each.variant} on {each.dataset}, {each.split}: {each.metric}"
        numbers = [value for value in values if value is not None and math.isfinite(value)]
        if not values or len(numbers) < len(values):
            status = "no such cell" if not here else f"no figure of {len(values) - len(numbers)} of {len(values)} cells"
            told.append(f"{name} must be {each.value:g}: {status}")
            continue
        mean = sum(numbers) / len(numbers)
        off = mean - each.value
        bad = {"higher": off < -each.tolerance, "lower": off > each.tolerance, "both": abs(off) > each.tolerance}
        if bad[each.direction]:
            told.append(f"{name} ({mean:.6g}) must be {each.value:g} within {each.tolerance:g} ({each.direction})")
    return told
