"""LSTI's contracts: causality, the short-term part, the exact split of scores, gradients, losses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_lsti.config import LSTIConfig
from recbole_lsti.config_rules import FUSIONS, LOSSES
from recbole_lsti.model.branches import WindowAttention
from recbole_lsti.model.branches import _look_up as look_up_gap
from recbole_lsti.model.lsti import LSTI
from recbole_lsti.model.repeat import RepeatTerm, look_up

N_ITEMS = 40
APART = {"train_branches": "apart"}


def make_model(**settings) -> LSTI:
    config = LSTIConfig(
        LSTI,
        "ml-100k",
        config_dict={"hidden_size": 16, "inner_size": 24, "short_window": 5, "use_gpu": False, **settings},
    )
    stub = SimpleNamespace(
        num=lambda field: N_ITEMS, inter_feat={"item_id": torch.arange(1, N_ITEMS).repeat_interleave(3)}
    )
    torch.manual_seed(0)
    model = LSTI(config, stub)
    with torch.no_grad():  # biases and tables start at zero: give them something to say
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        model.item_embedding.weight[0] = 0
    return model.eval()


def batch_of(item_seq: torch.Tensor, lengths: torch.Tensor | None = None, **fields) -> Interaction:
    lengths = (item_seq > 0).sum(1) if lengths is None else lengths
    return Interaction({"item_id_list": item_seq, "item_length": lengths, **fields})


def random_sequences(B: int, L: int, n_items: int = N_ITEMS) -> torch.Tensor:
    return torch.randint(1, n_items, (B, L), generator=torch.Generator().manual_seed(1))


def times_of(item_seq: torch.Tensor) -> torch.Tensor:
    steps = torch.randint(0, 2000, item_seq.shape, generator=torch.Generator().manual_seed(2))
    return steps.cumsum(1).double() + 1.4e9


ALL_TIME = {"short_seconds": 4000.0, "session_gap": 1500.0, "time_bias": True}


@pytest.mark.parametrize("settings", [{"fusion": fusion} for fusion in FUSIONS] + [{"n_layers": 3}, ALL_TIME, APART])
@torch.no_grad()
def test_one_pass_scores_every_step_as_its_prefix_alone(settings):
    model, item_seq = make_model(**settings), random_sequences(3, 13)
    time = times_of(item_seq)
    row, step = torch.ones(3, 13).nonzero(as_tuple=True)
    whole = model.forward(item_seq, {"exact_timestamp_list": time}).at(row, step).user
    scores = model.score_all(whole, item_seq, row, step, model.items())
    for r, t in zip(row.tolist(), step.tolist(), strict=True):
        prefix = batch_of(item_seq[r : r + 1, : t + 1], exact_timestamp_list=time[r : r + 1, : t + 1])
        torch.testing.assert_close(model.full_sort_predict(prefix)[0], scores[r * 13 + t], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, ALL_TIME, APART, {"fusion": "long"}, {"twin": "short"}, {"carry_state": True}]
)
@torch.no_grad()
def test_a_history_of_many_targets_is_read_once(settings, monkeypatch):
    model = make_model(**settings)
    whole, lengths = random_sequences(3, 12), torch.tensor([12, 3, 7, 12, 1, 9, 8, 12, 4, 6])
    user = torch.tensor([1, 1, 1, 2, 2, 2, 2, 3, 3, 3])
    item_seq = whole[user - 1]
    item_seq[9, 2] = item_seq[9, 2] % (N_ITEMS - 1) + 1  # not how the longer one of this user begins
    time = times_of(whole)[user - 1]
    time[6] += torch.arange(12.0)  # the same items at other times
    padding = torch.arange(12) >= lengths[:, None]
    rows = batch_of(item_seq.masked_fill(padding, 0), lengths, exact_timestamp_list=time.masked_fill(padding, 0))
    rows.update(Interaction({"tags_list": torch.zeros(10, 12, 0)}))  # of a column that is empty throughout
    alone = torch.cat([model.full_sort_predict(rows[[number]]) for number in range(10)])
    read = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *args: read.append(len(args[0])) or forward(*args))
    rows.update(Interaction({"user_id": user}))
    torch.testing.assert_close(model.full_sort_predict(rows), alone, atol=1e-5, rtol=1e-5)
    assert read == [5], "one a user, and two that begin otherwise"
    interests = model.score_parts(rows)[1]
    torch.testing.assert_close(interests.user, torch.cat([model.score_parts(rows[[n]])[1].user for n in range(10)]))
    rows.update(Interaction({"user_id": torch.arange(10)}))
    torch.testing.assert_close(model.full_sort_predict(rows), alone, atol=1e-5, rtol=1e-5)
    assert read[-1] == 10


@torch.no_grad()
def test_later_items_padding_and_batch_order_change_nothing():
    model, item_seq = make_model(), random_sequences(4, 12)
    lengths = torch.tensor([12, 7, 1, 5])
    padded = item_seq.masked_fill(torch.arange(12) >= lengths[:, None], 0)
    scores = model.full_sort_predict(batch_of(padded, lengths))
    torch.testing.assert_close(model.full_sort_predict(batch_of(item_seq, lengths)), scores)  # later items are there
    wider = torch.nn.functional.pad(padded, (0, 9))
    torch.testing.assert_close(model.full_sort_predict(batch_of(wider, lengths)), scores)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model.full_sort_predict(batch_of(padded[order], lengths[order])), scores[order])


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 2, 5, 8])
@torch.no_grad()
def test_the_short_branch_sees_its_window_and_no_more(n_layers, window):
    model = make_model(fusion="short", repeat_term=False, n_layers=n_layers, short_window=window)
    item_seq = random_sequences(1, 20)
    scores = model.full_sort_predict(batch_of(item_seq))
    changed = item_seq.clone()
    changed[0, : 20 - window] = changed[0, : 20 - window] % (N_ITEMS - 1) + 1  # all before the short-term part
    torch.testing.assert_close(model.full_sort_predict(batch_of(changed)), scores)
    changed = item_seq.clone()
    changed[0, 20 - window] = changed[0, 20 - window] % (N_ITEMS - 1) + 1  # its oldest item
    assert (model.full_sort_predict(batch_of(changed)) - scores).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("limit", "time"),
    [
        ({"short_seconds": 100.0}, [0, 10, 20, 900, 950, 1000]),
        ({"session_gap": 300.0}, [0, 10, 20, 900, 1150, 1400]),
        ({"short_seconds": 200.0, "session_gap": 60.0}, [0, 880, 890, 960, 980, 1000]),
    ],
)
@pytest.mark.parametrize("n_layers", [1, 2])
@torch.no_grad()
def test_seconds_and_sessions_bound_the_short_part(n_layers, limit, time):
    """The last three events are the short-term part in each case; the first three must not be seen."""
    model = make_model(fusion="short", repeat_term=False, n_layers=n_layers, short_window=6, **limit)
    item_seq, time = random_sequences(1, 6), torch.tensor([time], dtype=torch.float64) + 1.4e9
    scores = model.full_sort_predict(batch_of(item_seq, exact_timestamp_list=time))
    for step in range(6):
        changed = item_seq.clone()
        changed[0, step] = changed[0, step] % (N_ITEMS - 1) + 1
        moved = (model.full_sort_predict(batch_of(changed, exact_timestamp_list=time)) - scores).abs().max()
        assert (moved > 1e-4) == (step >= 3), step


@pytest.mark.parametrize("cascade", [False, True])
@torch.no_grad()
def test_the_short_branch_reads_the_items_or_what_the_long_branch_makes_of_them(cascade):
    model, item_seq = make_model(cascade=cascade, short_window=5), random_sequences(2, 12)
    events = model.embed(model.vectors_of(item_seq, model.items()), {})
    read = model.long_branch(events) if cascade else events
    interests = model.forward(item_seq, {})
    short = (1 - interests.gate) * model.fusion.short_norm(model.short_branch(read, None))
    torch.testing.assert_close(interests.short, short)


@pytest.mark.parametrize("history_mean", [False, True])
@torch.no_grad()
def test_the_long_branch_can_leave_the_short_part_out(history_mean):
    model = make_model(long_excludes_short=True, repeat_term=False, history_mean=history_mean, short_window=5)
    item_seq = random_sequences(1, 12)
    read = model.long_branch(model.embed(model.vectors_of(item_seq, model.items()), {}))
    delayed = model.fusion.long_norm(torch.nn.functional.pad(read, (0, 0, 5, 0))[:, :12])
    found = model.forward(item_seq, {})
    if not history_mean:
        torch.testing.assert_close(found.long, found.gate * delayed)
    changed = item_seq.clone()
    changed[0, 7:] = changed[0, 7:] % (N_ITEMS - 1) + 1  # the short part of the last step
    other = model.forward(changed, {})
    assert (other.short - found.short)[0, 11].abs().max() > 1e-4
    torch.testing.assert_close((other.long / other.gate)[0, 11], (found.long / found.gate)[0, 11])


@pytest.mark.parametrize("settings", [{}, APART, {"long_excludes_short": True}, {"twin": "short"}, {"fusion": "long"}])
@torch.no_grad()
def test_the_long_part_holds_the_mean_of_the_items_read(settings):
    model, item_seq = make_model(short_window=5, **settings), random_sequences(2, 12)
    with_mean = model._read_branches(item_seq, {}, model.items()).long
    weight, model.fusion.mean_weight = model.fusion.mean_weight, None
    without = model._read_branches(item_seq, {}, model.items()).long
    lag = 5 if "long_excludes_short" in settings else 0
    for step in range(12):
        items = model.item_embedding.weight[item_seq[:, : step + 1 - lag], :16]  # with branches apart, the long one's
        mean = items.mean(1) if step >= lag else torch.zeros(2, 16)
        expected = without[:, step] + weight * torch.nn.functional.layer_norm(mean, (16,))
        torch.testing.assert_close(with_mean[:, step], expected, atol=1e-5, rtol=1e-5)


def test_a_short_branch_alone_and_history_mean_false_know_no_mean():
    assert make_model(fusion="short").fusion.mean_weight is None
    assert make_model(history_mean=False).fusion.mean_weight is None


def test_the_user_vector_is_dropped_out_in_training_alone():
    silent = dict.fromkeys(("hidden_dropout_prob", "attn_dropout_prob"), 0.0)
    item_seq = random_sequences(4, 9)
    batch = sequence_batch(item_seq, times_of(item_seq), "CE")
    for settings in ({}, APART):
        model = make_model(**silent, **settings)
        exact = model.calculate_loss(batch).detach()
        assert model.calculate_loss(batch) == exact
        losses = {float(model.train().calculate_loss(batch).detach()) for _ in range(3)}
        assert len(losses) == 3
        assert exact not in losses
        model.user_dropout.p = 0.0
        torch.testing.assert_close(model.calculate_loss(batch).detach(), exact)


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_the_parts_sum_to_the_score(fusion):
    model = make_model(fusion=fusion)
    item_seq = random_sequences(5, 9, n_items=12)  # few items: repeats are there
    batch = batch_of(item_seq, item_id=torch.tensor([1, 5, 39, 7, 11]))
    parts, _ = model.score_parts(batch)
    total = model.full_sort_predict(batch)
    torch.testing.assert_close(parts.total, total, atol=1e-5, rtol=1e-5)
    assert (parts.repeat != 0).any()
    torch.testing.assert_close(model.predict(batch), total[torch.arange(5), batch["item_id"]], atol=1e-5, rtol=1e-5)


def test_repeat_term_equals_counting_by_hand():
    torch.manual_seed(0)
    term, user = RepeatTerm(4), torch.randn(6, 4)
    with torch.no_grad():
        term.table.copy_(torch.randn_like(term.table))
    item_seq = torch.tensor([[3, 5, 3, 3, 2, 5], [4, 4, 4, 4, 0, 0]])
    row, step = torch.tensor([0, 0, 0, 1, 1, 0]), torch.tensor([0, 3, 5, 3, 1, 4])
    found = term.add_to(torch.zeros(6, 7), user, item_seq, row, step)
    expected = torch.zeros(6, 7)
    for query, (r, t) in enumerate(zip(row.tolist(), step.tolist(), strict=True)):
        history = item_seq[r, : t + 1].tolist()
        for item in set(history):
            distance = t - max(i for i, seen in enumerate(history) if seen == item)
            recency, frequency = (distance + 1).bit_length() - 1, history.count(item).bit_length() - 1
            expected[query, item] = term.table[recency, frequency] + term.state(user)[query, recency]
    torch.testing.assert_close(found, expected)
    items = torch.arange(7).expand(6, 7)
    torch.testing.assert_close(look_up(items, term.pairs(user, item_seq, row, step)), expected)
    transposed = item_seq.T.contiguous().T
    assert not transposed.is_contiguous()
    torch.testing.assert_close(look_up(items, term.pairs(user, transposed, row, step)), expected)


@torch.no_grad()
def test_a_history_without_events_is_refused():
    model, item_seq = make_model(), torch.tensor([[3, 5], [0, 0]])
    for read in (model.full_sort_predict, model.score_parts, model.encode):
        with pytest.raises(ValueError, match=r"length of a history \(0\) must be 1 or more"):
            read(batch_of(item_seq))


@torch.no_grad()
def test_ranges_of_items_are_scored_under_autocast():
    model, item_seq = make_model(), random_sequences(3, 13)
    with torch.autocast("cpu", torch.bfloat16):
        whole = model.full_sort_predict(batch_of(item_seq))
        part = model.score_range(model.encode(batch_of(item_seq)), 3, 9)
    torch.testing.assert_close(part, whole[:, 3:9], atol=0.1, rtol=0.05)


def test_windowed_attention_equals_full_attention_with_a_band():
    torch.manual_seed(0)
    layer = WindowAttention(8, 2, window=4, time_bias=False, dropout=0.0)
    torch.nn.init.normal_(layer.distance_bias)
    x = torch.randn(2, 11, 8)
    q, k, v = layer.qkv(x).view(2, 11, 3, 2, 4).permute(2, 0, 3, 1, 4)
    distance = torch.arange(11)[:, None] - torch.arange(11)
    bias = layer.distance_bias[:, distance.clamp(0, 3)].masked_fill((distance < 0) | (distance > 3), -torch.inf)
    mixed = torch.softmax(q @ k.transpose(-1, -2) / 2 + bias, -1) @ v
    expected = layer.out(mixed.transpose(1, 2).reshape(2, 11, 8))
    torch.testing.assert_close(layer(x, None, None, None), expected)


def test_time_gaps_are_looked_up_in_one_layout_on_every_device():
    table, gap = torch.randn(2, 32), torch.randint(32, (3, 4, 5))
    assert torch.equal(look_up_gap(table, gap), table[:, gap])
    elsewhere = look_up_gap(table.to("meta"), gap.to("meta"))
    assert (elsewhere.device.type, elsewhere.shape) == ("meta", (2, 3, 4, 5))


def sequence_batch(item_seq: torch.Tensor, time: torch.Tensor, loss_type: str) -> Interaction:
    target = torch.roll(item_seq, -1, 1)
    target[:, -1] = 0
    batch = batch_of(item_seq, target_item_id_list=target, exact_timestamp_list=time)
    if loss_type in ("BPR", "BCE", "gBCE"):
        batch["neg_target_item_id_list"] = torch.where(target > 0, target % (N_ITEMS - 1) + 1, 0)
    return batch


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize(
    "settings", [{"fusion": fusion} for fusion in FUSIONS] + [ALL_TIME, APART, {**APART, "fusion": "concat"}]
)
def test_every_parameter_receives_a_gradient(settings, loss_type):
    model = make_model(loss_type=loss_type, **settings).train()
    item_seq = random_sequences(8, 14, n_items=N_ITEMS)
    item_seq[:, 8:] = item_seq[:, :6]  # repeats
    model.calculate_loss(sequence_batch(item_seq, times_of(item_seq), loss_type)).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a step always sees itself: with one softmax entry short of two, no bias is idle
    assert without == []


@pytest.mark.parametrize("loss_type", ["CE", "BPR", "BCE", "gBCE"])
def test_sequence_loss_is_the_mean_of_the_prefix_losses(loss_type):
    model, item_seq = make_model(loss_type=loss_type), random_sequences(2, 7)
    batch = sequence_batch(item_seq, times_of(item_seq), loss_type)
    losses = []
    for r in range(2):
        for t in range(6):
            prefix = batch_of(item_seq[r : r + 1, : t + 1], item_id=item_seq[r : r + 1, t + 1])
            if loss_type != "CE":
                prefix["neg_item_id"] = batch["neg_target_item_id_list"][r : r + 1, t]
            losses.append(model.calculate_loss(prefix))
    torch.testing.assert_close(model.calculate_loss(batch), torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss_type", ["BPR", "BCE", "gBCE"])
def test_several_negatives_give_the_same_loss_in_both_train_modes(loss_type):
    many = {"distribution": "uniform", "sample_num": 3}
    model, item_seq = make_model(loss_type=loss_type, train_neg_sample_args=many), random_sequences(4, 7)
    batch = sequence_batch(item_seq, times_of(item_seq), "CE")
    negative = random_sequences(4, 7 * 3).view(4, 7, 3)
    batch["neg_target_item_id_list"] = negative
    prefixes = batch_of(item_seq[:, :-1], item_id=item_seq[:, -1]).repeat(3)  # as RecBole's loader repeats them
    prefixes["neg_item_id"] = negative[:, 5].T.reshape(-1)
    batch["target_item_id_list"][:, :5] = 0
    together = model.calculate_loss(batch)
    torch.testing.assert_close(model.calculate_loss(prefixes), together, atol=1e-5, rtol=1e-5)
    scores = model.full_sort_predict(batch_of(item_seq[:, :-1]))
    positive, others = scores.gather(1, item_seq[:, -1:]), scores.gather(1, negative[:, 5])
    if loss_type == "BPR":
        expected = -torch.sigmoid(positive - others).log().mean()
    else:
        beta = 1 if loss_type == "BCE" else 1 - 0.75 * (1 - 3 / (N_ITEMS - 2))
        expected = -torch.cat([torch.sigmoid(positive) ** beta, 1 - torch.sigmoid(others)], 1).log().mean()
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=1e-4)


def test_the_padding_row_stays_zero_in_training():
    model = make_model(weight_decay=0.1).train()
    before = model.item_embedding.weight.detach().clone()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    item_seq = torch.nn.functional.pad(random_sequences(4, 6), (0, 3))
    for _ in range(3):
        optimiser.zero_grad()
        model.calculate_loss(sequence_batch(item_seq, times_of(item_seq), "CE")).backward()
        optimiser.step()
    assert model.item_embedding.weight[0].abs().sum() == 0
    assert (model.item_embedding.weight[1:] != before[1:]).any()


def test_settings_of_losses_and_first_weights_reach_them():
    def build(**settings) -> LSTI:
        config = LSTIConfig(LSTI, "ml-100k", config_dict={"use_gpu": False, **settings})
        items = torch.arange(1, N_ITEMS).repeat_interleave(torch.arange(1, N_ITEMS))  # item n occurs n times
        return LSTI(config, SimpleNamespace(num=lambda field: N_ITEMS, inter_feat={"item_id": items}))

    for std in (0.01, 0.1):
        model = build(initializer_range=std)
        for weight in (model.item_embedding.weight[1:], model.short_branch.attentions[0].qkv.weight):
            assert weight.std().item() == pytest.approx(std, rel=0.1)
    for power in (0.0, 1.0):
        log_q = build(loss_type="SSM", negative_power=power).objective.proposal.log_q[1:]
        torch.testing.assert_close(log_q - log_q[0], power * (torch.arange(2.0, N_ITEMS + 1) / 2).log())
    item_seq = random_sequences(3, 9)
    batch = sequence_batch(item_seq, times_of(item_seq), "gBCE")
    binary = make_model(loss_type="BCE").calculate_loss(batch)
    torch.testing.assert_close(make_model(loss_type="gBCE", gbce_t=0.0).calculate_loss(batch), binary)
    assert (make_model(loss_type="gBCE", gbce_t=1.0).calculate_loss(batch) - binary).abs() > 1e-3


def test_popularity_starts_at_the_log_of_the_frequency():
    config = LSTIConfig(LSTI, "ml-100k", config_dict={"use_gpu": False})
    items = torch.tensor([1] * 9 + [2] * 3 + [3])
    model = LSTI(config, SimpleNamespace(num=lambda field: 5, inter_feat={"item_id": items}))
    difference = model.popularity[1] - model.popularity[2]
    torch.testing.assert_close(difference, torch.tensor(10 / 4).log())
    assert model.popularity[4] < model.popularity[3]


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("settings", [{}, ALL_TIME, APART])
def test_losses_under_autocast_are_those_in_float32(settings, loss_type):
    model, item_seq = make_model(loss_type=loss_type, **settings), random_sequences(4, 9, n_items=12)
    batch = sequence_batch(item_seq, times_of(item_seq), loss_type)
    exact = model.calculate_loss(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.calculate_loss(batch)
    rough.backward()
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)
    assert all(parameter.grad.to_dense().isfinite().all() for parameter in model.parameters())
