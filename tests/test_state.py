"""A state carried one event at a time gives what the whole history gives, at a cost that does not grow with it."""

from __future__ import annotations

import time as clock

import pytest
import torch
from test_model import ALL_TIME, N_ITEMS, batch_of, make_model, random_sequences, times_of

from recbole_lsti.config_rules import FUSIONS
from recbole_lsti.model.state import State

SETTINGS = [
    *({"fusion": fusion} for fusion in FUSIONS),
    {"cascade": True},
    {"train_branches": "apart"},
    {**ALL_TIME, "train_branches": "apart", "long_excludes_short": True},
    {**ALL_TIME, "cascade": True, "n_layers": 3},
    {"n_layers": 1, "short_window": 1},
    {"n_layers": 3, "short_window": 8},
    {"n_layers": 2, "short_window": 30},
    {"long_excludes_short": True},
    {"repeat_term": False},
    {"history_mean": False},
    {"history_mean": False, "long_excludes_short": True},
    {"short_seconds": 4000.0},
    {"session_gap": 1500.0},
    {"time_bias": True},
    ALL_TIME,
    {**ALL_TIME, "long_excludes_short": True, "fusion": "concat", "n_layers": 3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@torch.no_grad()
def test_each_step_gives_what_the_history_up_to_there_gives(settings):
    model, L = make_model(**settings), 40
    item_seq = random_sequences(3, L, n_items=25)  # more items than a table begins with, and repeats
    time = times_of(item_seq)
    row, step = torch.ones(3, L).nonzero(as_tuple=True)
    user = model.forward(item_seq, {"exact_timestamp_list": time}).at(row, step).user
    scores = model.score_all(user, item_seq, row, step, model.items()).view(3, L, -1)
    state = model.init_state(3)
    for t in range(L):
        state = model.step(state, item_seq[:, t], time[:, t])
        torch.testing.assert_close(state.user, user.view(3, L, -1)[:, t], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.score(state), scores[:, t], atol=1e-5, rtol=1e-5)
    whole = model.full_sort_predict(batch_of(item_seq, exact_timestamp_list=time))
    torch.testing.assert_close(model.score(state), whole, atol=1e-5, rtol=1e-5)


def state_after(model, item_seq: torch.Tensor) -> State:
    state = model.init_state(len(item_seq))
    for item in item_seq.T:
        state = model.step(state, item)
    return state


@torch.no_grad()
def test_states_are_stacked_parted_copied_and_stored(tmp_path):
    model = make_model(n_layers=2)
    short, long = random_sequences(2, 3), torch.arange(1, 36)[None]  # tables of different widths
    together = State.stack([state_after(model, short), state_after(model, long)])
    parted = together.rows(torch.tensor([2, 0]))
    expected = torch.cat([model.full_sort_predict(batch_of(seq)) for seq in (long, short[:1])])
    torch.testing.assert_close(model.score(parted), expected, atol=1e-5, rtol=1e-5)

    copy = parted.clone()
    model.step(parted, torch.tensor([7, 7]))
    torch.save(copy._asdict(), tmp_path / "state.pt")
    stored = State(**torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(model.score(stored), expected, atol=1e-5, rtol=1e-5)
    after = model.step(stored, torch.tensor([7, 9]))
    for user, history in enumerate((long[0], short[0])):
        longer = torch.cat([history, torch.tensor([[7], [9]])[user]])[None]
        torch.testing.assert_close(
            model.score(after)[user], model.full_sort_predict(batch_of(longer))[0], atol=1e-5, rtol=1e-5
        )


def test_tables_hold_every_item_once_with_its_count():
    model = make_model(fusion="long")
    items = torch.randint(1, N_ITEMS, (2, 200), generator=torch.Generator().manual_seed(5))
    row, item, since, count = state_after(model, items).seen()
    found = {(r, i): (s, c) for r, i, s, c in zip(*(x.tolist() for x in (row, item, since, count)), strict=True)}
    assert len(found) == len(row)
    for user, history in enumerate(items.tolist()):
        for one in set(history):
            assert found.pop((user, one)) == (history[::-1].index(one), history.count(one))
    assert not found


def test_times_must_be_given_where_they_are_read():
    model = make_model(session_gap=60.0)
    with pytest.raises(ValueError, match=r"time \(None\) must be given"):
        model.step(model.init_state(1), torch.tensor([1]))
    with pytest.raises(ValueError, match=r"fields \(price\) must be of input_fields and of the .inter file"):
        make_model().step(make_model().init_state(1), torch.tensor([1]), fields={"price": torch.tensor([2.0])})


def test_a_step_costs_the_same_after_a_long_history():
    """Median of single steps, after 50 and after 5,000 events, of a user with every item of a large catalogue.

    The two are timed in turn, so that a busy machine is as busy for both.
    """
    model = make_model(short_window=20)
    model.item_embedding = torch.nn.Embedding(6000, 16)
    states, seconds = {50: model.init_state(1), 5000: model.init_state(1)}, {50: [], 5000: []}
    for n_events in states:
        for item in torch.arange(1, n_events + 1):
            states[n_events] = model.step(states[n_events], item[None])
    for item in torch.arange(5001, 5301):
        for n_events, state in states.items():
            before = clock.perf_counter()
            states[n_events] = model.step(state, item[None])
            seconds[n_events].append(clock.perf_counter() - before)
    early, late = (torch.tensor(seconds[n_events]).median() for n_events in states)
    assert late < 2 * early
    assert states[5000].short.shape[2] <= 20
    assert states[5000].item.shape[1] < 4 * 5300
