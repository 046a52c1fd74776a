"""All events in time order, held once, and rows that gather their history from them when asked.

RecBole's SequentialDataset copies every prefix of every field into a padded table. Here a row is one number, the
position of its target in the time-ordered events; what it shows of the history is gathered for the rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_lsti.data.grouping import BLOCK, Groups, gather, group_by_appearance, group_columns, place_in_group

EXACT_TIME = "exact time"  # stands among the columns to be ordered; not a field


@dataclass(frozen=True)
class Events:
    """The interactions of a data set, ordered by user and exact time; ties keep their order in the file.

    Attributes:
        columns: field -> (E, ...) tensor, E events.
        first: (E,) int64, position of the first event of the event's user.
        time: (E,) seconds as they stand in the file, before any normalisation or float32; int64 where the file has
            integers only, else float64.
        uid_field, time_field, length_field, list_suffix: RecBole's names.
    """

    columns: dict[str, Tensor]
    first: np.ndarray
    time: np.ndarray
    uid_field: str
    time_field: str
    length_field: str
    list_suffix: str

    @classmethod
    def ordered(cls, columns: dict[str, Tensor], uid_field: str, time_field: str, **names: str) -> Events:
        """Sort columns by user and exact time, stably.

        Args:
            columns: field -> (E, ...) tensor, and EXACT_TIME -> (E,) seconds; emptied on the way, for memory that is
                met for the first time is slow, and what is free again is not.
        """
        time = columns[EXACT_TIME].numpy()
        by_time = None  # both steps are stable: ties keep file order
        if np.any(time[1:] < time[:-1]):
            by_time = np.argsort(time, kind="stable")
        rounded = time_field in columns and _is_rounding(columns[time_field].numpy(), time)
        del time
        fields = [field for field in columns if field != EXACT_TIME]
        unordered = {field: columns.pop(field).numpy() for field in list(columns)}
        if rounded:
            del unordered[time_field]
        user = unordered.pop(uid_field) if by_time is None else unordered.pop(uid_field)[by_time]
        n_users = int(user.max(initial=0)) + 1
        groups, ordered = group_columns(user, n_users, unordered, by_time)
        starts, sizes = groups.starts[:-1], groups.sizes
        del user, by_time, groups
        time = ordered.pop(EXACT_TIME)
        if rounded:
            ordered[time_field] = time.astype(np.float32)
        ordered[uid_field] = np.repeat(np.arange(n_users), sizes)
        columns.update({field: torch.from_numpy(ordered[field]) for field in fields})
        return cls(columns, np.repeat(starts, sizes), time, uid_field, time_field, **names)

    @property
    def begins(self) -> np.ndarray:
        """(users,) int64, position of the first event of each user who has any."""
        return np.flatnonzero(np.r_[True, self.first[1:] != self.first[:-1]][: len(self.first)])

    def edges(self, chosen: np.ndarray) -> np.ndarray:
        """(users + 1,) where each user's events begin among ascending chosen ones; the last entry is their end."""
        return np.append(np.searchsorted(chosen, self.begins.astype(chosen.dtype)), len(chosen))

    def gaps(self) -> np.ndarray:
        """Return the seconds from the event before, of the same user, (E,) float32; -1 where there is none."""
        gaps = np.diff(self.time, prepend=0).astype(np.float32)
        gaps[np.arange(len(gaps)) == self.first] = -1
        return gaps

    def window(self, field: str, begin: np.ndarray, end: np.ndarray, width: int) -> Tensor:
        """Gather the events [begin, end) of R windows from one column, zero-padded on the right.

        Args:
            field (str): a column.
            begin, end (ndarray): (R,) int64 positions.
            width (int): columns of the result; no window is longer.
        Returns:
            Tensor: (R, width, ...).
        """
        index = begin[:, None] + np.arange(width)
        inside = index < end[:, None]
        values = self.columns[field][torch.from_numpy(np.where(inside, index, 0))]
        outside = torch.from_numpy(~inside)
        values[outside] = 0
        return values


def _is_rounding(seen: np.ndarray, time: np.ndarray) -> bool:
    """Whether a column is the time as float32, as it is unless it was normalised."""
    if seen.shape != time.shape or seen.dtype != np.float32:
        return False
    blocks = (slice(start, start + BLOCK) for start in range(0, len(time), BLOCK))
    return all(np.array_equal(seen[block], time[block].astype(np.float32)) for block in blocks)


class HistoryRows(Interaction):
    """Rows of (history, target) that look like RecBole's augmented Interaction and are gathered field by field.

    Args:
        events (Events): what the rows point into.
        targets (ndarray): (R,) int64 or int32, each row's target event; its history is its user's events before it.
        max_length (int): the history shows at most its last `max_length` events.
        width (int | None): columns of the list fields; None: as many as the longest history asked for has.
    """

    def __init__(self, events: Events, targets: np.ndarray, max_length: int, width: int | None) -> None:
        self.events = events
        self.max_length, self.width = max_length, width
        self.interaction = _Fields(self)
        self._targets = targets
        self._time_order_wanted = False  # the rows are in event order, and to be in time order when they are looked at

    @property
    def targets(self) -> np.ndarray:
        """(R,) int64, each row's target event."""
        self._put_in_order()
        return self._targets.astype(np.int64, copy=False)

    def target_events(self) -> np.ndarray:
        """(E,) bool, whether an event is the target of a row."""
        marked = np.zeros(len(self.events.first), dtype=bool)
        for start in range(0, len(self._targets), BLOCK):
            marked[self._targets[start : start + BLOCK]] = True
        return marked

    def _put_in_order(self) -> None:
        if self._time_order_wanted:
            self._time_order_wanted = False
            self._reindex(np.argsort(self.events.time[self._targets], kind="stable"))

    @property
    def length(self) -> int:
        """Number of rows; RecBole reads it as an attribute."""
        return len(self._targets)

    @property
    def begins(self) -> np.ndarray:
        """(R,) int64, first event that each row's history shows."""
        return np.maximum(self.events.first[self.targets], self.targets - self.max_length)

    @property
    def longest(self) -> int:
        """Events that the longest of the histories shows, 1 or more."""
        return int((self.targets - self.begins).max(initial=1))

    def __getitem__(self, index: Any) -> Any:
        """A field by name, or rows by int, slice, list, ndarray or tensor (numbers or a bool mask)."""
        if isinstance(index, str):
            return self.interaction[index]
        if isinstance(index, Tensor):
            index = index.numpy()
        if isinstance(index, (int, np.integer)) or (isinstance(index, np.ndarray) and index.ndim == 0):
            row = self[[int(index)]].gather()
            return Interaction({field: row[field][0] for field in row})
        if isinstance(index, Sequence):  # an empty list must select no rows, not be read as floats
            index = np.asarray(index, dtype=bool if len(index) and isinstance(index[0], bool) else np.int64)
        self._put_in_order()
        return self.take(index)

    def take(self, index: Any) -> HistoryRows:
        """Rows by number, slice or mask, as they are stored: for what `by_user` returns."""
        numbers = isinstance(index, np.ndarray) and index.dtype != bool
        targets = gather(self._targets, index) if numbers else self._targets[index]
        rows = HistoryRows(self.events, targets, self.max_length, self.width)
        rows.interaction.own = {field: value[index] for field, value in self.interaction.own.items()}
        rows.interaction.dropped = set(self.interaction.dropped)
        return rows

    def by_user(self) -> Groups:
        """Group the rows, as they are stored, by user, the users in the order in which they appear.

        After `sort` by time of rows in event order this sorts the users by their first row, and not the rows: by its
        time as RecBole sees it, float32, so that the users, which shuffling starts from, come in RecBole's order.
        A user's own rows stay in exact order.
        """
        if not self._time_order_wanted:
            return group_by_appearance(self.events.first[self._targets])
        edges = self.events.edges(self._targets)
        sizes = np.diff(edges)
        begins, sizes = edges[:-1][sizes > 0], sizes[sizes > 0]
        time = self.events.columns[self.events.time_field].numpy()
        order = np.argsort(time[self._targets[begins]], kind="stable")
        begins, sizes = begins[order], sizes[order]
        starts = np.r_[0, np.cumsum(sizes)]
        rows = np.ones(len(self._targets), dtype=np.int32 if len(self._targets) < 2**31 else np.int64)
        rows[starts[:-1]] = np.diff(begins, prepend=0) - np.r_[0, sizes[:-1] - 1][: len(sizes)]  # steps between rows
        return Groups(np.cumsum(rows, out=rows), starts)

    def gather(self) -> Interaction:
        """Return the rows as a plain Interaction, every field gathered."""
        return Interaction({field: self.interaction[field] for field in self.interaction})

    def before(self, field: str) -> Tensor:
        """Return the value of the event just before each target, (R, ...)."""
        return self.events.columns[field][torch.from_numpy(self.targets - 1)]

    def histories(self, start: int, stop: int, field: str) -> tuple[Tensor, Tensor]:
        """Return the uncut histories of the rows start..stop as (row from 0, value) pairs, two (S,) tensors."""
        self._put_in_order()
        targets = self._targets[start:stop].astype(np.int64)
        first = self.events.first[targets]
        lengths = targets - first
        row = np.repeat(np.arange(len(targets)), lengths)
        event = place_in_group(lengths) + first[row]
        return torch.from_numpy(row), self.events.columns[field][torch.from_numpy(event)]

    def occurring(self) -> np.ndarray:
        """(E,) bool, whether an event is the target of a row or in its uncut history."""
        targets = self._targets
        change = np.zeros(len(self.events.first) + 1, dtype=np.int64)
        np.add.at(change, self.events.first[targets], 1)
        np.add.at(change, targets + 1, -1)
        return np.cumsum(change[:-1]) > 0

    def sort(self, by: str | Sequence[str], ascending: bool | Sequence[bool] = True) -> None:
        """Sort the rows in place; by the time field means by exact time, not by its float32 view.

        Rows that are equal keep their order where all is ascending; a descending field turns them round, as RecBole's
        own does.
        """
        fields = [by] if isinstance(by, str) else list(by)
        if fields == [self.events.time_field] and ascending and not self.interaction.own and self._in_event_order():
            self._time_order_wanted = True
            return
        directions = [ascending] * len(fields) if isinstance(ascending, bool) else list(ascending)
        for field, up in reversed(list(zip(fields, directions, strict=True))):
            exact = field == self.events.time_field
            key = self.events.time[self.targets] if exact else self.interaction[field].numpy()
            order = np.argsort(key, kind="stable")
            self._reindex(order if up else order[::-1])

    def sort_by_history(self) -> None:
        """Sort the rows in place by the length of their histories, those of a user together, where the longest stands.

        Then a batch holds little padding, and what the histories of a user share stands in one batch.
        """
        targets = self.targets
        length = targets - self.begins
        users, user = np.unique(self.events.first[targets], return_inverse=True)
        longest = np.zeros(len(users), dtype=np.int64)
        np.maximum.at(longest, user, length)
        self._reindex(np.lexsort((length, user, longest[user])))

    def _in_event_order(self) -> bool:
        return bool(np.all(self._targets[1:] > self._targets[:-1]))

    def _reindex(self, index: Any) -> None:
        index = index.numpy() if isinstance(index, Tensor) else np.ascontiguousarray(index)
        self._put_in_order()
        self._targets = self._targets[index]
        self.interaction.own = {field: value[index] for field, value in self.interaction.own.items()}


class _Fields(MutableMapping):
    """The fields of HistoryRows as the dict that RecBole reads: gathered on reading, overridden on writing."""

    def __init__(self, rows: HistoryRows) -> None:
        self.rows = rows
        self.own: dict[str, Tensor] = {}  # fields set by others, one value a row
        self.dropped: set[str] = set()

    def __getitem__(self, field: str) -> Tensor:
        if field in self.own:
            return self.own[field]
        rows, events = self.rows, self.rows.events
        if field not in self.dropped:
            if field in events.columns:
                return events.columns[field][torch.from_numpy(rows.targets)]
            begins = rows.begins
            if field == events.length_field:
                return torch.from_numpy(rows.targets - begins)
            base = field.removesuffix(events.list_suffix)
            if field != base and base in events.columns:
                return events.window(base, begins, rows.targets, rows.width or rows.longest)
        raise KeyError(field)

    def __setitem__(self, field: str, value: Tensor) -> None:
        self.rows._put_in_order()  # the values are meant for the rows in it
        self.own[field] = value
        self.dropped.discard(field)

    def __delitem__(self, field: str) -> None:
        if field not in self:
            raise KeyError(field)
        self.own.pop(field, None)
        self.dropped.add(field)

    def __iter__(self) -> Iterator[str]:
        events = self.rows.events
        lists = [field + events.list_suffix for field in events.columns if field != events.uid_field]
        names = dict.fromkeys([*events.columns, events.length_field, *lists, *self.own])
        return (field for field in names if field not in self.dropped)

    def __contains__(self, field: object) -> bool:
        return any(field == name for name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
