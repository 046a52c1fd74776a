"""What a search leaves: trials.csv, best.yaml, the tracebacks of failed trials, and a line on the screen a trial."""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import yaml
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from recbole_lsti.tune.space import Space

COLUMNS = ("trial", "state", "score", "epochs", "best_epoch", "seconds", "started", "process", "reason")


def best_trial(study: Study) -> FrozenTrial | None:
    """The complete trial with the best validation score; None where there is none."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return study.best_trial if complete else None


def values_of(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    """The settings that a trial tried."""
    return {key: space[key].value(drawn) for key, drawn in trial.params.items() if key in space}


def write_trials(path: Path, study: Study, space: Space) -> None:
    """Write one row a trial: what it tried, what came of it, and why where nothing did."""
    keys = sorted(space)
    rows = []
    for trial in study.get_trials(deepcopy=False):
        attributes = trial.user_attrs
        score = trial.value if trial.value is not None else trial.intermediate_values.get(trial.last_step or 0)
        values = values_of(trial, space)
        rows.append(
            [
                *(trial.number, trial.state.name.lower(), "" if score is None else f"{score:.6f}"),
                *(attributes.get(name, "") for name in ("epochs", "best_epoch", "seconds")),
                trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else "",
                *(attributes.get("process", ""), attributes.get("reason", "")),
                *(values.get(key, "") for key in keys),
            ]
        )
    with _Replaced(path) as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *keys])
        writer.writerows(rows)


def write_best(path: Path, settings: Mapping[str, Any], study: str, best: FrozenTrial, metric: str) -> None:
    """Write the settings of the best trial of a study as a file for `recbole-lsti train --config_files`."""
    with _Replaced(path) as file:
        file.write(f"# study {study}, trial {best.number}: {metric} {best.value:.6f} on the validation items\n")
        yaml.safe_dump(dict(settings), file, sort_keys=True, allow_unicode=True)


def write_failure(folder: Path, trial: int, text: str) -> None:
    """Keep the traceback of a trial that failed."""
    (folder / f"failed-{trial:04d}.txt").write_text(text, encoding="utf-8")


class Lines:
    """A line a trial; on a terminal it is rewritten at every validation."""

    def __init__(self, stream: TextIO, title: str, metric: str, n_trials: int) -> None:
        self._stream, self._title, self._metric, self._n_trials = stream, title, metric, n_trials
        self._live = stream.isatty()

    def under_way(self, trial: int, values: Mapping[str, Any], epoch: int, score: float) -> None:
        """Show how far a trial is."""
        if self._live:
            self._write(f"{self._head(trial)}  epoch {epoch + 1}  {self._metric} {score:.4f}{_settings(values)}", "")

    def done(self, study: Study, trial: FrozenTrial, values: Mapping[str, Any], n_counted: int) -> None:
        """Show what came of a trial, and the best one so far."""
        best = best_trial(study)
        outcome = f"{self._metric} {trial.value:.4f}" if trial.value is not None else trial.state.name.lower()
        if trial.state is TrialState.PRUNED:
            outcome = f"{outcome}, pruned in epoch {(trial.last_step or 0) + 1}"
        so_far = f"  best {best.value:.4f} (trial {best.number})" if best else ""
        reason = trial.user_attrs.get("reason")
        self._write(
            f"{self._head(trial.number)}  {outcome}{so_far}  {trial.user_attrs.get('seconds', 0):.0f} s  "
            f"[{n_counted}/{self._n_trials}]{_settings(values)}{f'  ({reason})' if reason else ''}",
            "\n",
        )

    def _head(self, trial: int) -> str:
        return f"{self._title}  trial {trial}"

    def _write(self, text: str, end: str) -> None:
        before = "\r\033[K" if self._live else ""
        self._stream.write(f"{before}{text}{end}")
        self._stream.flush()


def _settings(values: Mapping[str, Any]) -> str:
    shown = (f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items())
    return f"  {' '.join(shown)}"


class _Replaced:
    """A text file that is there whole or not at all, however many processes, of any machine, write it."""

    def __init__(self, path: Path) -> None:
        self._path, self._draft = path, path.with_name(f".{path.name}.{secrets.token_hex(4)}")

    def __enter__(self) -> TextIO:
        self._file = open(self._draft, "x", newline="", encoding="utf-8")
        return self._file

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._file.close()
        if kind is None:
            os.replace(self._draft, self._path)
        else:
            self._draft.unlink()
