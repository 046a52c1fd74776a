"""From a checkpoint: a user's long-term interests alone, the short-term ones alone, and the fused recommendations."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_lsti.runner import Loaded, load

LISTS = ("long", "short", "fused")
When = slice | np.ndarray | None  # of a history: its events in the data set, the times of others, or neither


class Recommendations(NamedTuple):
    """What `recommend_from` finds: the ranked lists, each user's mean gate, and history items nobody knows.

    Attributes:
        table: columns `user`, `list` (long, short or fused), `rank` from 1, `item` (raw id), `score`.
        gate: user -> mean share of the long branch, 0..1; None where the fusion has no gate.
        skipped: user -> items of a given history that the checkpoint does not know.
    """

    table: pd.DataFrame
    gate: dict[Hashable, float | None]
    skipped: dict[Hashable, list[str]]


def recommend(
    checkpoint_file: str | Path | tuple[Any, ...],
    users: Iterable[str] | None = None,
    histories: Iterable[Sequence[str]] | None = None,
    k: int = 10,
    times: Iterable[Sequence[float]] | None = None,
    unseen: bool = False,
) -> pd.DataFrame:
    """Return the items that a trained LSTI ranks first: by the long branch, by the short one, and by both.

    Args:
        checkpoint_file: checkpoint.pth of a run folder; or what `load` has made of it, to recommend again and again.
        users: raw ids of users of the data set; their whole history is read.
        histories: histories of anyone, each a sequence of raw item ids, oldest first; their user is named by its
            number from 0. Unknown items are skipped and reported in `attrs["skipped"]` of the result.
        k (int): length of the lists.
        times: for each history, when its events happened, in Unix seconds, ascending; needed by a model that reads time
            (short_seconds, session_gap, time_bias or time_gaps), and ignored by others.
        unseen (bool): leave out the items of the history, all of it.

    Returns:
        DataFrame: `user`, `list`, `rank`, `item`, `score`; `attrs["gate"]` holds each user's mean gate. The score of
        `fused` is what the model ranks by. `long` and `short` keep one branch's part of it, with the same popularity
        and repeat terms; a branch that the fusion leaves out has no list.
    Raises:
        ValueError: unknown users, a history without a known item, times that are not one an event or that go back, no
            times where the model reads them, k out of range, or a model other than LSTI.
        TypeError: users, histories or times of another type.
        FileNotFoundError: no such checkpoint.
    """
    loaded = Loaded(*checkpoint_file) if isinstance(checkpoint_file, tuple) else load(checkpoint_file)
    found = recommend_from(loaded, users, histories, k, times, unseen)
    found.table.attrs.update(gate=found.gate, skipped=found.skipped)
    return found.table


def recommend_from(
    loaded: Loaded,
    users: Iterable[str] | None = None,
    histories: Iterable[Sequence[str]] | None = None,
    k: int = 10,
    times: Iterable[Sequence[float]] | None = None,
    unseen: bool = False,
) -> Recommendations:
    """Do what `recommend` does with a checkpoint that is loaded already. Arguments as there."""
    model, dataset = loaded.model, loaded.dataset
    if not hasattr(model, "score_parts"):
        raise ValueError(f"checkpoint of {loaded.config['model']} must be of LSTI: it has no long- and short-term part")
    if not 1 <= k < dataset.item_num:
        raise ValueError(f"k ({k}) must be 1 to {dataset.item_num - 1}, the number of items")
    for name, given in (("users", users), ("histories", histories), ("times", times)):
        if isinstance(given, str) or not isinstance(given, Iterable | None):
            raise TypeError(f"{name} ({given}) must be a list")
    users = [] if users is None else [str(user) for user in users]
    histories = [] if histories is None else list(histories)
    for history in histories:
        if isinstance(history, str):
            raise TypeError(f"a history ({history}) must be a list of item ids: {history.split()}")
    given_times = [None] * len(histories) if times is None else list(times)
    if len(given_times) != len(histories):
        raise ValueError(f"times ({len(given_times)} lists) must be as many as histories ({len(histories)})")
    names: list[Hashable] = []
    item_ids: list[np.ndarray] = []
    events_of: list[When] = []
    skipped: dict[Hashable, list[str]] = {}
    for user, events in _known_users(dataset, users):
        names.append(user)
        item_ids.append(dataset.inter_feat.events.columns[dataset.iid_field][events].numpy())
        events_of.append(events)
    for number, (history, each) in enumerate(zip(histories, given_times, strict=True)):
        when = None if each is None else _times(number, each, len(history))
        known, unknown = _known_items(dataset, number, [str(item) for item in history])
        names.append(number)
        item_ids.append(known[known > 0])
        events_of.append(None if when is None else when[known > 0])
        if unknown:
            skipped[number] = unknown
    if not names:
        raise ValueError("users or histories must be given")
    rows = [
        _ranked(loaded, name, ids, evs, k, unseen) for name, ids, evs in zip(names, item_ids, events_of, strict=True)
    ]
    table = pd.concat([frame for frame, _ in rows], ignore_index=True)
    return Recommendations(table, {name: gate for name, (_, gate) in zip(names, rows, strict=True)}, skipped)


def _known_users(dataset: Any, users: list[str]) -> list[tuple[str, slice]]:
    """Each user with the events of its whole history."""
    if not users:
        return []
    if not hasattr(dataset.inter_feat, "events"):
        raise ValueError(f"users ({', '.join(users)}) must be given by their histories: the data are split already")
    known = dataset.field2token_id[dataset.uid_field]
    unknown = [user for user in users if user not in known or user == "[PAD]"]
    if unknown:
        raise ValueError(f"users ({', '.join(unknown)}) must be users of {dataset.dataset_name}")
    events = dataset.inter_feat.events
    ids = events.columns[dataset.uid_field].numpy()  # sorted
    wanted = np.array([known[user] for user in users], dtype=np.int64)
    begin, end = np.searchsorted(ids, wanted), np.searchsorted(ids, wanted, side="right")
    idle = [user for user, b, e in zip(users, begin, end, strict=True) if b == e]
    if idle:
        raise ValueError(f"users ({', '.join(idle)}) must have a history in {dataset.dataset_name}")
    return [(user, slice(int(b), int(e))) for user, b, e in zip(users, begin, end, strict=True)]


def _known_items(dataset: Any, number: int, tokens: list[str]) -> tuple[np.ndarray, list[str]]:
    """The id of each item of a history, 0 where it is unknown, and the unknown ones."""
    known = dataset.field2token_id[dataset.iid_field]
    ids = [0 if token == "[PAD]" else known.get(token, 0) for token in tokens]
    unknown = [token for token, item in zip(tokens, ids, strict=True) if not item]
    if not any(ids):
        what = f"none of {', '.join(tokens)} is" if tokens else "it is empty"
        raise ValueError(f"history {number} must hold items of {dataset.dataset_name}: {what}")
    return np.array(ids, dtype=np.int64), unknown


def _times(number: int, given: Sequence[float], n_items: int) -> np.ndarray:
    """The times of a history, checked, (n_items,) float64."""
    try:
        when = np.asarray(given, dtype=np.float64)
    except (ValueError, TypeError):
        when = np.array(np.nan)
    if when.ndim != 1 or not np.isfinite(when).all() or (np.diff(when) < 0).any():
        raise ValueError(f"times of history {number} ({given}) must be a list of Unix seconds, the oldest first")
    if len(when) != n_items:
        raise ValueError(f"times of history {number} ({len(when)}) must be as many as its items ({n_items})")
    return when


@torch.no_grad()
def _ranked(
    loaded: Loaded, name: Hashable, ids: np.ndarray, events: When, k: int, unseen: bool
) -> tuple[pd.DataFrame, float | None]:
    config, model, dataset = loaded.config, loaded.model, loaded.dataset
    hidden = np.union1d(ids, 0) if unseen else np.zeros(1, dtype=np.int64)  # 0 is the padding item
    left = dataset.item_num - len(hidden)
    if k > left:
        who = f"user {name}" if isinstance(name, str) else f"history {name}"
        raise ValueError(f"k ({k}) must be at most {left}, the number of items that {who} has not had")
    if not config["carry_state"]:
        ids = ids[-config["MAX_ITEM_LIST_LENGTH"] :]
    batch = {model.ITEM_SEQ: torch.from_numpy(ids)[None], model.ITEM_SEQ_LEN: torch.tensor([len(ids)])}
    batch.update(_inputs(loaded, name, events, len(ids)))
    scores, interests = model.score_parts(Interaction(batch).to(config["device"]))
    by_list: dict[str, Tensor] = {"fused": scores.total}
    for part in ("long", "short"):
        if getattr(interests, part) is not None:
            by_list[part] = getattr(scores, part) + scores.popularity + scores.repeat
    frames = []
    for each in (each for each in LISTS if each in by_list):
        score = by_list[each][0].cpu()
        score[hidden] = -torch.inf
        top = score.topk(k)
        items = dataset.id2token(dataset.iid_field, top.indices.numpy())
        frames.append(
            pd.DataFrame(
                {"user": name, "list": each, "rank": range(1, k + 1), "item": items, "score": top.values.numpy()}
            )
        )
    gate = None if interests.gate is None else float(interests.gate.mean())
    return pd.concat(frames, ignore_index=True), gate


def _inputs(loaded: Loaded, name: Hashable, events: When, steps: int) -> dict[str, Tensor]:
    """What the model reads of the last events of a history beside their items, each (1, steps, ...)."""
    model, dataset = loaded.model, loaded.dataset
    if not isinstance(events, slice):
        found = {} if model.event_inputs is None else model.event_inputs.unknown(steps)
        if not model.needs_time:
            return found
        if events is None:
            raise ValueError(
                f"history {name} must come with times: short_seconds, session_gap, time_bias or time_gaps is set"
            )
        found[model.time_field] = torch.from_numpy(events[-steps:])[None]
        if model.event_inputs is not None and model.event_inputs.gap is not None:
            gaps = np.diff(events, prepend=events[0] + 1).astype(np.float32)  # -1: there is none before
            found[model.event_inputs.gap_field] = torch.from_numpy(gaps[-steps:])[None]
        return found
    table = dataset.inter_feat.events
    last = slice(events.stop - steps, events.stop)
    fields = [] if model.event_inputs is None else model.event_inputs.reads
    found = {field: table.columns[field.removesuffix(table.list_suffix)][last][None] for field in fields}
    found[model.time_field] = torch.from_numpy(table.time[last].astype(np.float64))[None]
    return found
