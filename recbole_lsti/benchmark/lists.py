"""Recommendation files of other systems, judged by the same split and metrics as a model's own scores."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from recbole.data import data_preparation
from recbole.evaluator.register import metrics_dict
from recbole.utils import init_seed
from torch import Tensor

from recbole_lsti.data import create_dataset
from recbole_lsti.data.grouping import place_in_group
from recbole_lsti.errors import AtomicFileError, nearest, require
from recbole_lsti.evaluation.collector import RankingCollector
from recbole_lsti.evaluation.listed import Listed
from recbole_lsti.evaluation.ranking import UserScores, rank

COLUMNS = {"user": ("user", "user_id"), "item": ("item", "item_id"), "rank": ("rank",)}
TEXT = (".csv", ".tsv")
PARQUET = (".parquet", ".pq")
NEED_SCORES = {"rec.meanrank", "rec.score"}  # what a list cannot tell
SHOWN = 5  # names that a message gives


class Judge(NamedTuple):
    """The split and the metrics that lists are judged by: a config and its training and test data."""

    config: Any
    train_data: Any
    test_data: Any


def judge_from(config: Any) -> Judge:
    """Read and split the data set of a config, as training does."""
    init_seed(config["seed"], config["reproducibility"])
    train_data, _, test_data = data_preparation(config, create_dataset(config))
    return Judge(config, train_data, test_data)


def read_lists(path: Path) -> pd.DataFrame:
    """Read a `user, item, rank` table.

    Args:
        path (Path): .csv or .tsv with a header (separated by commas, semicolons or tabs), or .parquet. `user_id` and
            `item_id` are taken for `user` and `item`; other columns are left alone.
    Returns:
        DataFrame: user and item (text), rank (int64), ordered by user and rank.
    Raises:
        ImportError: .parquet without pyarrow; names the extra.
        AtomicFileError: a column is missing, a value is empty, a user's ranks are not 1, 2, 3, ..., or a user has an
            item twice.
    """
    if path.suffix.lower() in PARQUET:
        require("a .parquet file", "pyarrow", "convert")
        table = pd.read_parquet(path)
    else:
        with open(path, encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max((",", ";", "\t"), key=header.count)
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    columns = {}
    for name, spellings in COLUMNS.items():
        found = [column for column in table.columns if str(column).strip().lower() in spellings]
        if len(found) != 1:
            there = [str(column) for column in table.columns]
            hint = nearest(name, there) if not found else ""
            raise AtomicFileError(f"{path}: one column must be named {name}, of {', '.join(there)}{hint}")
        columns[name] = table[found[0]]
    lists = pd.DataFrame({"user": _tokens(columns["user"]), "item": _tokens(columns["item"])})
    number = pd.to_numeric(columns["rank"], errors="coerce")
    for name, wrong in (
        ("user", lists["user"] == ""),
        ("item", lists["item"] == ""),
        ("rank", ~((number >= 1) & (number % 1 == 0))),
    ):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            rule = "a whole number from 1" if name == "rank" else "given"
            raise AtomicFileError.at(path, row + 2, f"{name} ({columns[name].iloc[row]}) must be {rule}")
    lists["rank"] = number.astype(np.int64)
    return _checked(path, lists.sort_values(["user", "rank"], kind="stable", ignore_index=True))


def _tokens(column: pd.Series) -> pd.Series:
    """Ids as the text that stands in atomic files: whole numbers without a decimal point."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype(object).where(column.notna(), "").astype(str).str.strip()


def _checked(path: Path, lists: pd.DataFrame) -> pd.DataFrame:
    expected = lists.groupby("user", sort=False).cumcount() + 1
    if (wrong := lists["rank"] != expected).any():
        row = lists[wrong].iloc[0]
        raise AtomicFileError(
            f"{path}: ranks of user {row['user']} must be 1, 2, 3, ..., each once: {row['rank']} stands where "
            f"{expected[wrong].iloc[0]} must"
        )
    if (twice := lists.duplicated(["user", "item"])).any():
        row = lists[twice].iloc[0]
        raise AtomicFileError(f"{path}: item ({row['item']}) must be once in the list of user {row['user']}")
    return lists


def judge_lists(path: Path, judge: Judge) -> tuple[UserScores, list[str]]:
    """Rank the test targets by the lists of a file.

    `raw` takes a list as it stands; `unseen` drops the items of the row's history and closes up. A user without a list
    counts as a miss. An item that the data set does not know keeps its place and cannot be right. One list serves all
    of a user's test rows.

    Args:
        path (Path): see `read_lists`.
        judge (Judge): the split and the metrics; those that need scores (GAUC) are left out.
    Returns:
        tuple: UserScores, and what must be told: unknown users and items, missing users, lists that were too short.
    Raises:
        ValueError: the test is not ranked in full, or no tested user or no item of the file is known.
    """
    config, dataset = judge.config, judge.test_data._dataset
    if config["eval_args"]["mode"]["test"] != "full":
        raise ValueError(f"eval_args mode ({config['eval_args']['mode']['test']}) must be full for the test")
    lists = read_lists(path)
    users, items = (_ids(lists[name], dataset, field) for name, field in (("user", "uid_field"), ("item", "iid_field")))
    known = users > 0
    table = _Lists(users[known], items[known], lists["rank"].to_numpy()[known], dataset.user_num, dataset.item_num)
    left, largest = table.lengths(judge.test_data), max(config["topk"])
    own, without = _possible_metrics(config, filled=bool((items > 0).all() and (left >= largest).all()))
    notes = [*_unknown("user", lists["user"], users), *_unknown("item", lists["item"], items)]
    notes += _missing(dataset, users, bool((items > 0).any()), path)
    for ranking, numbers in zip(("raw", "unseen"), left, strict=True):
        short = int(((left[0] > 0) & (numbers < largest)).sum())  # missing users are told already
        if short:
            notes.append(f"{short} of {len(numbers)} test rows have fewer than {largest} items left for `{ranking}`")
    if without:
        notes.append(f"left out, they need scores or lists full of known items: {', '.join(without)}")
    collector = RankingCollector(own)
    collector.data_collect(judge.train_data)
    found = rank(own, collector, table.batches(judge.test_data), dataset.seen)
    return found.users, [f"{path}: {note}" for note in notes]


def _ids(tokens: pd.Series, dataset: Any, field: str) -> np.ndarray:
    """(n,) int64 ids of tokens; -1 where the data set has no such token."""
    known = dataset.field2token_id[getattr(dataset, field)]
    return tokens.map(known).fillna(-1).to_numpy(dtype=np.int64)


def _unknown(what: str, tokens: pd.Series, ids: np.ndarray) -> list[str]:
    strange = tokens[ids <= 0].unique()
    if not len(strange):
        return []
    return [f"{len(strange)} unknown {what}{'s' if len(strange) > 1 else ''}: {_some(strange, len(strange))}"]


def _missing(dataset: Any, users: np.ndarray, any_item: bool, path: Path) -> list[str]:
    tested = np.unique(dataset.inter_feat[dataset.uid_field].numpy())
    missing = np.setdiff1d(tested, users)
    if len(missing) == len(tested) or not any_item:
        raise ValueError(
            f"{path}: users and items must be those of {dataset.dataset_name}; "
            f"not one of its {len(tested)} tested users has a known item"
        )
    if not len(missing):
        return []
    names = _some(dataset.id2token(dataset.uid_field, missing[:SHOWN]), len(missing))
    return [f"{len(missing)} of {len(tested)} tested users have no list and count as 0: {names}"]


def _some(names: Sequence[Any], total: int) -> str:
    return ", ".join(map(str, names[:SHOWN])) + (", ..." if total > SHOWN else "")


def _possible_metrics(config: Any, filled: bool) -> tuple[Any, list[str]]:
    """The config with the metrics that lists allow, and the names of the others."""
    barred = NEED_SCORES if filled else {*NEED_SCORES, "rec.items"}
    metrics = [config["metrics"]] if isinstance(config["metrics"], str) else list(config["metrics"])
    without = [name for name in metrics if barred & set(metrics_dict[name.lower()].metric_need)]
    kept = [name for name in metrics if name not in without]
    if not kept:
        raise ValueError(f"metrics ({', '.join(metrics)}) must hold one that a list can be judged by, such as NDCG")
    own = copy.copy(config)
    own.final_config_dict = {**config.final_config_dict, "metrics": kept}
    return own, without


class _Lists:
    """All lists, user after user; an unknown item is a number of its own behind the items of the data set.

    Args:
        users, items, ranks (ndarray): (n,) int64, ordered by user token and rank; items below 1 are unknown.
        n_users, n_items (int): of the data set, padding included.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, ranks: np.ndarray, n_users: int, n_items: int) -> None:
        order = np.lexsort((ranks, users))
        users, items, ranks = users[order], items[order], ranks[order]
        self.starts = np.searchsorted(users, np.arange(n_users + 1))
        self.items = np.where(items > 0, items, n_items - 1 + ranks)
        self.width = n_items + int(ranks.max(initial=1))

    def _entries(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes = self.starts[users + 1] - self.starts[users]
        row = np.repeat(np.arange(len(users)), sizes)
        entry = place_in_group(sizes) + self.starts[users][row]
        return row, entry

    def batches(self, test_data: Any) -> Iterator[tuple[Any, Listed, Tensor, Tensor]]:
        """The batches that `rank` takes."""
        uid_field = test_data._dataset.uid_field
        for interaction, _, row, item in test_data:
            at, entry = self._entries(interaction[uid_field].numpy())
            listed = Listed(torch.from_numpy(at), torch.from_numpy(self.items[entry]), len(interaction), self.width)
            yield interaction, listed, row, item

    def lengths(self, test_data: Any) -> np.ndarray:
        """(2, R) int64, items in the list of each test row: as it stands, and without those of the row's history."""
        dataset = test_data._dataset
        users = dataset.inter_feat[dataset.uid_field].numpy()
        whole = self.starts[users + 1] - self.starts[users]
        dropped = np.zeros(len(users), dtype=np.int64)
        for start in range(0, len(users), 4096):
            stop = min(start + 4096, len(users))
            row, entry = self._entries(users[start:stop])
            seen_row, seen_item = (values.numpy() for values in dataset.seen(start, stop))
            listed = row * self.width + self.items[entry]
            inside = np.isin(listed, seen_row * self.width + seen_item)
            dropped[start:stop] = np.bincount(row[inside], minlength=stop - start)
        return np.stack([whole, whole - dropped])
