"""A user's state, carried forward one event at a time at a cost that does not grow with the history.

Shapes: B users, H hidden size, D width of item and user vectors, R the farthest that a layer of the short branch looks
back, C cells of a user's table of items, a power of two and at least twice the different items of the user who has had
the most.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

FEWEST_CELLS = 16
HASH = 0x9E3779B97F4A7C15 - 2**64  # 2**64 / golden ratio, as a signed number: spreads neighbouring ids


class State(NamedTuple):
    """What `LSTI.step` needs to know of B users, and what `LSTI.score` ranks by; plain tensors, the user first.

    What a model has no use for is 0 wide. `torch.save(state._asdict(), file)` writes it,
    `State(**torch.load(file, weights_only=True))` reads it, `State.stack` and `state.rows` join and part users.
    """

    n_events: Tensor  # (B,) int64, events read so far
    user: Tensor  # (B, D), the user vector
    long: Tensor  # (B, n_layers, 2, H), h and c of the LSTM
    delayed: Tensor  # (B, short_window, H), the long branch's last outputs, with long_excludes_short
    sums: Tensor  # (B, 1, H), sum of the vectors of all items read; with long_excludes_short the last short_window + 1
    short: Tensor  # (B, n_layers, R, 2, H), keys and values of the last R events, the newest last
    time: Tensor  # (B, R or 1) float64 seconds of these events; 1 where only the gap to the last one is read
    item: Tensor  # (B, C) int64, the different items read, 0 = an empty cell
    last: Tensor  # (B, C) int64, number of the event that held the item last, from 0
    counts: Tensor  # (B, C) int64, events that held it
    n_items: Tensor  # (B,) int64, different items in the table

    @classmethod
    def stack(cls, states: Iterable[State]) -> State:
        """Join the users of several states, in their order, into one."""
        states = list(states)
        cells = max(state.item.shape[1] for state in states)
        return cls(*(torch.cat(parts) for parts in zip(*(state._rehashed(cells) for state in states), strict=True)))

    def rows(self, index: Tensor) -> State:
        """The state of some of the users, (K,) int64 numbers or a (B,) bool mask."""
        return State(*(part[index] for part in self))

    def clone(self) -> State:
        """A copy; `LSTI.step` uses up the state that it is given."""
        return State(*(part.clone() for part in self))

    def seen(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The pairs of user and item in the tables: row, item, steps since its last event, count, four (S,) tensors."""
        row, cell = self.item.nonzero(as_tuple=True)
        since = self.n_events[row] - 1 - self.last[row, cell]
        return row, self.item[row, cell], since, self.counts[row, cell]

    def note(self, item: Tensor) -> State:
        """Enter the users' next items, (B,) int64, into their tables, in place where these are wide enough."""
        cells = self.item.shape[1]
        if not cells:
            return self
        row = torch.arange(len(item), device=item.device)
        cell = _place(self.item, row, item)
        n_items = self.n_items + (self.counts[row, cell] == 0)
        self.last[row, cell] = self.n_events
        self.counts[row, cell] += 1
        return self._replace(n_items=n_items)._rehashed(_cells(n_items))

    def _rehashed(self, cells: int) -> State:
        if cells <= self.item.shape[1]:
            return self
        item, last, counts = (part.new_zeros(len(part), cells) for part in (self.item, self.last, self.counts))
        row, old = self.item.nonzero(as_tuple=True)
        cell = _place(item, row, self.item[row, old])
        last[row, cell], counts[row, cell] = self.last[row, old], self.counts[row, old]
        return self._replace(item=item, last=last, counts=counts)


def first_state(model: Any, batch_size: int) -> State:
    """The state of users of an LSTI without events; see `LSTI.init_state`."""
    weight = model.item_embedding.weight
    B, H = batch_size, model.hidden_size
    long = 0 if model.long_branch is None else len(model.long_branch.lstms)
    short = 0 if model.short_branch is None else len(model.short_branch.attentions)
    reach = model.short_branch.reach if short else 0
    n_times = 0
    if model.needs_time:  # a gap needs the last one
        n_times = max(1, reach if short and model.short_branch.needs_time else 0)
    cells = 0 if model.repeat is None else FEWEST_CELLS

    def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros(B, *shape, dtype=dtype, device=weight.device)

    return State(
        n_events=zeros(),
        user=zeros(weight.shape[1], dtype=weight.dtype),
        long=zeros(long, 2, H, dtype=weight.dtype),
        delayed=zeros(model.long_lag, H, dtype=weight.dtype),
        sums=zeros(model.long_lag + 1 if model.reads_mean else 0, H, dtype=weight.dtype),
        short=zeros(short, reach, 2, H, dtype=weight.dtype),
        time=zeros(n_times, dtype=torch.float64),
        item=zeros(cells),
        last=zeros(cells),
        counts=zeros(cells),
        n_items=zeros(),
    )


def next_state(model: Any, state: State, item: Tensor, vectors: Tensor, event: Tensor, time: Tensor | None) -> State:
    """The state after one more event of each user; see `LSTI.step`.

    `vectors` is (B, D), what the items are scored by; `event` is (B, D), what the branches read.
    """
    long = short = mean = None
    recent = event[:, model.short_half]
    if model.long_branch is not None:
        now, hidden = model.long_branch.resume(event[:, None, model.long_half], state.long)
        delayed = torch.cat([state.delayed, now], dim=1)  # (B, lag + 1, H)
        long = delayed[:, 0]
        recent = model.recent(recent, now[:, 0])
        state = state._replace(long=hidden, delayed=delayed[:, 1:])
        if model.reads_mean:
            sums = torch.cat([state.sums[:, 1:], state.sums[:, -1:] + vectors[:, None, model.long_half]], dim=1)
            mean = sums[:, 0] / (state.n_events + 1 - model.long_lag).clamp(min=1)[:, None]
            state = state._replace(sums=sums)
    times = None
    if model.needs_time and time is not None:
        times = torch.cat([state.time, time[:, None].double()], dim=1)
        state = state._replace(time=times[:, 1:])
    if model.short_branch is not None:
        times = times[:, -1 - state.short.shape[2] :] if times is not None and model.short_branch.needs_time else None
        short, kept = model.short_branch.step(recent, state.short, state.n_events, times)
        state = state._replace(short=kept)
    user = model.fusion(long, short, event, mean).user
    return state.note(item)._replace(user=user, n_events=state.n_events + 1)


def read_last_step(model: Any, item_seq: Tensor, interaction: Any, items: Any, last: Tensor) -> Any:
    """The interests of an LSTI at the last step of histories, without those at the steps before.

    The short branch reads its window, the LSTM the whole history, in memory for `model.piece` steps at a time.

    Args:
        model: the LSTI.
        item_seq (Tensor): (B, L) int64, right-padded.
        interaction: fields of the events, and exact times, (B, L), where the short part needs them.
        items (Items): what the items are scored by.
        last (Tensor): (B,) int64, each row's last step.
    Returns:
        Interests: every part (B, D).
    """
    long = short = mean = None
    # the short branch sees no more than its window
    width = min(item_seq.shape[1], 1 if model.short_branch is None else model.short_branch.window)
    begin = (last + 1 - width).clamp(min=0)
    steps = begin[:, None] + torch.arange(width, device=last.device)  # (B, width)
    row, end = torch.arange(len(last), device=last.device), last - begin
    where = (row[:, None], steps)
    events = model.embed(model.vectors_of(item_seq[where], items), interaction, where)
    recent = events[..., model.short_half]
    if model.long_branch is not None:
        wanted = steps if model.cascade else (last - model.long_lag)[:, None]
        found = _long_at(model, item_seq, interaction, items, last, wanted)
        recent = model.recent(recent, found)
        long = found[row, end][:, None] if model.cascade else found
        if model.reads_mean:
            unread = torch.arange(item_seq.shape[1], device=last.device) > (last - model.long_lag)[:, None]
            mean = F.embedding_bag(item_seq.masked_fill(unread, 0), items.vectors, mode="mean", padding_idx=0)
            mean = mean[:, None, model.long_half]
    if model.short_branch is not None:
        time = interaction[model.time_field].gather(1, steps) if model.short_branch.needs_time else None
        short = model.short_branch(recent, time)[row, end][:, None]
    return model.fusion(long, short, events[row, end][:, None], mean).at(row, torch.zeros_like(row))


def _long_at(model: Any, item_seq: Tensor, interaction: Any, items: Any, last: Tensor, wanted: Tensor) -> Tensor:
    """(B, K, H), the long branch's outputs at K wanted steps of each row, (B, K) int64; zeros below step 0.

    The rows are read up to their last steps, (B,).
    """
    weight = model.item_embedding.weight
    n_layers, H = len(model.long_branch.lstms), model.hidden_size
    found = weight.new_zeros(*wanted.shape, H)
    state = weight.new_zeros(len(last), n_layers, 2, H)
    for start in range(0, item_seq.shape[1], model.piece):
        row = (last >= start).nonzero().squeeze(1)
        where = (row, slice(start, start + model.piece))
        events = model.embed(model.vectors_of(item_seq[where], items), interaction, where)
        y, end = model.long_branch.resume(events[..., model.long_half], state[row])
        state = state.index_put((row,), end.to(state.dtype))
        at = wanted[row] - start
        which, column = ((at >= 0) & (at < y.shape[1])).nonzero(as_tuple=True)
        found = found.index_put((row[which], column), y[which, at[which, column]].to(found.dtype))
    return found


def _cells(n_items: Tensor) -> int:
    """Width of tables of so many items, (B,), and one more each: at most half of the cells are taken."""
    return max(FEWEST_CELLS, 1 << (2 * int(n_items.max()) + 1).bit_length())


def _place(table: Tensor, row: Tensor, item: Tensor) -> Tensor:
    """Find each item's cell in the table of its row, or give it one.

    Args:
        table (Tensor): (B, C) int64, 0 = empty; changed in place.
        row, item (Tensor): (S,) int64, different pairs.
    Returns:
        Tensor: (S,) int64, columns of the table.
    Source: hashing with linear probing, Knuth, The Art of Computer Programming 3, algorithm 6.4L, all items at once.
    """
    last_cell = table.shape[1] - 1
    cell = (item * HASH >> 32) & last_cell
    pending = torch.arange(len(item), device=item.device)
    while len(pending):
        r, c, wanted = row[pending], cell[pending], item[pending]
        empty = table[r, c] == 0
        table[r[empty], c[empty]] = wanted[empty]  # of several for one cell, one stays
        pending = pending[table[r, c] != wanted]
        cell[pending] = (cell[pending] + 1) & last_cell
    return cell
