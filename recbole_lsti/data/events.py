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

from recbole_lsti.data.grouping import Groups, group_by_appearance, group_rows


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
    def ordered(cls, columns: dict[str, Tensor], time: np.ndarray, uid_field: str, **names: str) -> Events:
        """Sort columns by user and exact time, stably; `columns` is emptied of the unordered ones on the way."""
        user = columns[uid_field].numpy()
        by_time = None  # both steps are stable: ties keep file order
        if np.any(time[1:] < time[:-1]):
            by_time = np.argsort(time, kind="stable")
            user, time = user[by_time], time[by_time]
        n_users = int(user.max(initial=0)) + 1
        groups = group_rows(user, n_users)
        order = groups.rows.astype(np.int64) if by_time is None else by_time[groups.rows]
        for field in list(columns):  # a column goes as soon as its ordered copy is there
            whole = field == uid_field
            ordered = groups.spread(np.arange(n_users)) if whole else _gathered(columns[field].numpy(), order)
            columns[field] = torch.from_numpy(ordered)
        ordered_time = _gathered(time, groups.rows.astype(np.int64) if by_time is not None else order)
        return cls(columns, groups.spread(groups.starts[:-1]), ordered_time, uid_field=uid_field, **names)

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


def _gathered(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """values[index]; integers go by way of 32 bits where they fit, which halves the memory that is jumped about in."""
    if values.dtype == np.int64 and len(values):
        low = int(values.min())
        if int(values.max()) - low < 2**32:
            gathered = (values - low).astype(np.uint32)[index].astype(np.int64)
            gathered += low
            return gathered
    return values[index]


class HistoryRows(Interaction):
    """Rows of (history, target) that look like RecBole's augmented Interaction and are gathered field by field.

    Args:
        events (Events): what the rows point into.
        targets (ndarray): (R,) int64, each row's target event; its history is the events of its user before it.
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
        return self._targets

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
        rows = HistoryRows(self.events, self._targets[index], self.max_length, self.width)
        rows.interaction.own = {field: value[index] for field, value in self.interaction.own.items()}
        rows.interaction.dropped = set(self.interaction.dropped)
        return rows

    def by_user(self) -> Groups:
        """Group the rows, as they are stored, by user, the users in the order in which they appear.

        After `sort` by time of rows in event order this sorts the users by their first row, and not the rows.
        """
        first = self.events.first[self._targets]
        if not self._time_order_wanted:
            return group_by_appearance(first)
        begins = np.flatnonzero(np.r_[True, first[1:] != first[:-1]]) if len(first) else np.zeros(0, dtype=np.int64)
        order = np.argsort(self.events.time[self._targets[begins]], kind="stable")
        sizes = np.diff(np.r_[begins, len(first)])[order]
        starts = np.r_[0, np.cumsum(sizes)]
        return Groups(np.arange(len(first)) + np.repeat(begins[order] - starts[:-1], sizes), starts)

    def gather(self) -> Interaction:
        """Return the rows as a plain Interaction, every field gathered."""
        return Interaction({field: self.interaction[field] for field in self.interaction})

    def before(self, field: str) -> Tensor:
        """Return the value of the event just before each target, (R, ...)."""
        return self.events.columns[field][torch.from_numpy(self.targets - 1)]

    def histories(self, start: int, stop: int, field: str) -> tuple[Tensor, Tensor]:
        """Return the uncut histories of the rows start..stop as (row from 0, value) pairs, two (S,) tensors."""
        targets = self.targets[start:stop]
        first = self.events.first[targets]
        lengths = targets - first
        row = np.repeat(np.arange(len(targets)), lengths)
        event = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + first[row]
        return torch.from_numpy(row), self.events.columns[field][torch.from_numpy(event)]

    def occurring(self, field: str) -> Tensor:
        """Return the values of all events that are a row's target or in its uncut history, each event once, (S,)."""
        targets = self._targets
        change = np.zeros(len(self.events.first) + 1, dtype=np.int64)
        np.add.at(change, self.events.first[targets], 1)
        np.add.at(change, targets + 1, -1)
        return self.events.columns[field][torch.from_numpy(np.cumsum(change[:-1]) > 0)]

    def sort(self, by: str | Sequence[str], ascending: bool | Sequence[bool] = True) -> None:
        """Sort the rows in place, stably; by the time field means by exact time, not by its float32 view."""
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
