"""What can be compared: a results folder, a checkpoint, or a recommendation file, read as runs of named variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from recbole_lsti.benchmark.lists import PARQUET, TEXT, Judge, judge_from, judge_lists
from recbole_lsti.benchmark.results import ARRAYS, RESULTS, load_arrays, read_results
from recbole_lsti.config import LSTIConfig, external_settings
from recbole_lsti.errors import one_of
from recbole_lsti.runner import load, rank_test

CHECKPOINT = "checkpoint.pth"


class Scores(NamedTuple):
    """Values of each test row of a run.

    Attributes:
        users, targets: (R,) tokens.
        metrics: M names.
        raw, unseen: (R, M) float64; NaN where a row has no value.
    """

    users: np.ndarray
    targets: np.ndarray
    metrics: list[str]
    raw: np.ndarray
    unseen: np.ndarray


@dataclass(frozen=True)
class Run:
    """One seed of a variant on one split of a data set; `read` brings its values when they are needed.

    Values of different `ranking` cannot be compared.
    """

    variant: str
    dataset: str
    split: str
    seed: Any
    read: Callable[[], Scores]
    ranking: str = "full"  # or uniN, popN


@dataclass
class Side:
    """A or B.

    Attributes:
        path: where it comes from.
        runs: what it holds; of a recommendation file, none before it is judged.
        notes: what must be told about it.
        judge: returns the split and metrics that recommendation files are judged by; None where there is none.
    """

    path: Path
    runs: list[Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    judge: Callable[[], Judge] | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a results folder, which may hold many variants."""
        return self.path.is_dir() and (self.path / RESULTS).is_file()

    @property
    def is_list(self) -> bool:
        """Whether it is a recommendation file."""
        return self.path.suffix.lower() in (*TEXT, *PARQUET)

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint that it is or that lies in it."""
        inside = self.path / CHECKPOINT
        if self.path.suffix != ".pth" and not inside.is_file():
            return None
        return self.path if self.path.is_file() else inside


def open_sides(
    paths: Sequence[str], dataset: str | None = None, split: str | None = None, config_files: list[str] | None = None
) -> list[Side]:
    """Open one side or two.

    Args:
        paths: a results folder, a run folder or its checkpoint, or a .csv, .tsv or .parquet file each.
        dataset (str | None): in folders, the data set alone; for recommendation files without another side, the data
            set that they are for.
        split (str | None): loo, time or ratio; in folders, this split alone.
        config_files (list[str] | None): settings of the split and metrics of recommendation files.
    Returns:
        list[Side]: in the order of the paths.
    Raises:
        FileNotFoundError: there is nothing at a path, or a cell lacks its arrays.
        ValueError: a path is none of these, a recommendation file has nothing to be judged by, or an argument would
            change nothing.
    """
    sides = [_side(Path(path)) for path in paths]
    _check_choice(sides, dataset, split, config_files)
    for side in sides:
        if side.is_folder:
            _open_folder(side, dataset, split)
        elif side.checkpoint is not None:
            _open_checkpoint(side, side.checkpoint)
    if any(side.is_list for side in sides):
        judge = _find_judge(sides, dataset, config_files)
        for side in sides:
            if side.is_list:
                _judge(side, judge)
    return sides


def _side(path: Path) -> Side:
    if not path.exists():
        raise FileNotFoundError(f"path ({path}) must exist: a results folder, a checkpoint or a recommendation file")
    side = Side(path)
    if not (side.is_folder or side.checkpoint or side.is_list):
        raise ValueError(
            f"path ({path}) must be a folder with {RESULTS} or {CHECKPOINT}, a .pth checkpoint, or a recommendation "
            f"file ({', '.join((*TEXT, *PARQUET))})"
        )
    return side


def _check_choice(sides: list[Side], dataset: str | None, split: str | None, config_files: list[str] | None) -> None:
    """Refuse what would change nothing: a checkpoint has its own data set, split and metrics, and judges by them."""
    folders = any(side.is_folder for side in sides)
    bare = all(side.is_list and not side.is_folder for side in sides)
    if dataset is not None and not folders and not bare:
        raise ValueError(f"dataset ({dataset}) must go with a results folder or with recommendation files alone")
    if split is not None and not folders:
        raise ValueError(f"split ({split}) must go with a results folder")
    if config_files is not None and not bare:
        raise ValueError(
            f"config_files ({' '.join(config_files)}) must go with recommendation files alone: any other side has a "
            "split and metrics of its own"
        )


# ---- results folders ----------------------------------------------------------------------------------------------


def _open_folder(side: Side, dataset: str | None, split: str | None) -> None:
    lines, broken = read_results(side.path)
    cells = list(lines.values())
    if broken:
        side.notes.append(f"{side.path / RESULTS}: {len(broken)} broken line{'s' * (len(broken) > 1)} skipped")
    unfinished = [cell for cell in cells if cell["status"] != "ok"]
    if unfinished:
        names = ", ".join(f"{cell['cell']} ({cell['status']})" for cell in unfinished[:5])
        more = f" and {len(unfinished) - 5} more" if len(unfinished) > 5 else ""
        side.notes.append(f"{side.path}: without a result: {names}{more}")
    good = [cell for cell in cells if cell["status"] == "ok"]
    done = [cell for cell in good if "user_metrics" not in cell.get("incomplete", {})]
    if len(done) < len(good):
        bare = ", ".join(cell["cell"] for cell in good if cell not in done)
        side.notes.append(f"{side.path}: without values of test rows: {bare}")
    for name, wanted in (("dataset", dataset), ("split", split)):
        if wanted is not None and done:
            if wanted not in {cell[name] for cell in done}:
                raise one_of(name, wanted, sorted({cell[name] for cell in done}))
            done = [cell for cell in done if cell[name] == wanted]
    if not done:
        raise ValueError(f"{side.path / RESULTS} must hold a cell that ended well")
    plan = external_settings([str(side.path / "plan.yaml")], None) if (side.path / "plan.yaml").is_file() else {}
    ranking = plan.get("ranking", "full")
    side.runs = [
        Run(cell["variant"], cell["dataset"], cell["split"], cell["seed"], _reader(side.path, cell), ranking)
        for cell in done
    ]
    side.judge = lambda: judge_from(_config_of_cells(side.path, done))


def _reader(folder: Path, cell: dict[str, Any]) -> Callable[[], Scores]:
    def read() -> Scores:
        there = folder / "cells" / cell["cell"]
        arrays = load_arrays(folder, cell["cell"])
        if arrays is None:
            missing = next(name for name in ARRAYS if not (there / f"{name}.npy").is_file())
            raise FileNotFoundError(f"{there} must hold {missing}.npy, the values of each test row")
        users, targets, raw, unseen = (arrays[name] for name in ARRAYS)
        shape = (len(users), len(cell["user_metrics"]))
        if raw.shape != shape or unseen.shape != shape or len(targets) != len(users):
            raise ValueError(f"{there}: raw.npy {raw.shape} and unseen.npy {unseen.shape} must be of shape {shape}")
        return Scores(users, targets, list(cell["user_metrics"]), raw, unseen)

    return read


def _config_of_cells(folder: Path, cells: list[dict[str, Any]]) -> LSTIConfig:
    kinds = sorted({(cell["dataset"], cell["split"]) for cell in cells})
    if len(kinds) > 1:
        names = ", ".join(f"{dataset} {split}" for dataset, split in kinds)
        raise ValueError(f"--dataset and --split must pick one of {names}, to judge a recommendation file by")
    text = (folder / "cells" / cells[0]["cell"] / "config.yaml").read_text(encoding="utf-8")
    settings = {**yaml.safe_load(text), "force_unknown_keys": True}
    return LSTIConfig(settings["model"], settings["dataset"], config_dict=settings)


# ---- checkpoints and recommendation files -------------------------------------------------------------------------


def split_of(config: Any) -> str:
    """The name of a config's split: loo, ratio or time."""
    if "LS" in config["eval_args"]["split"]:
        return "loo"
    return "ratio" if "RS" in config["eval_args"]["split"] and config["eval_args"]["group_by"] == "user" else "time"


def _open_checkpoint(side: Side, path: Path) -> None:
    loaded = load(path)
    config, dataset = loaded.config, loaded.test_data._dataset
    side.judge = lambda: Judge(config, loaded.train_data, loaded.test_data)
    side.runs = [
        Run(
            config["model"],
            config["dataset"],
            split_of(config),
            config["seed"],
            lambda: _with_tokens(rank_test(loaded).users, dataset),
            config["eval_args"]["mode"]["test"],
        )
    ]


def _with_tokens(scores: Any, dataset: Any) -> Scores:
    users = np.asarray(dataset.id2token(dataset.uid_field, scores.user)).astype(str)
    targets = np.asarray(dataset.id2token(dataset.iid_field, scores.target)).astype(str)
    return Scores(users, targets, list(scores.metrics), scores.raw, scores.unseen)


def _find_judge(sides: list[Side], dataset: str | None, config_files: list[str] | None) -> Judge:
    for side in sides:
        if side.judge is not None:
            return side.judge()
    given = external_settings(config_files, None)
    name = dataset or given.get("dataset")
    if name is None:
        raise ValueError("--dataset must name the data set that recommendation files are judged on")
    return judge_from(LSTIConfig(given.get("model", "LSTI"), name, config_files, None))


def _judge(side: Side, judge: Judge) -> None:
    scores, notes = judge_lists(side.path, judge)
    side.notes += notes
    found = _with_tokens(scores, judge.test_data._dataset)
    side.runs = [Run(side.path.stem, judge.config["dataset"], split_of(judge.config), None, lambda: found)]
