"""Inputs beside the item ids keep the contracts of the model: no leak, and one pass is as all prefixes."""

from __future__ import annotations

import copy

import pytest
import torch

from inputs.conftest import ALL, STEP_FIELDS, TIMES, built, event_rows, write_shop
from recbole_lsti.model import lsti


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("train_mode", ["sequence", "prefix"])
@torch.no_grad()
def test_the_time_and_fields_of_the_test_event_reach_no_score(tmp_path, train_mode, times):
    moved, last = event_rows(), {}
    for place, row in enumerate(moved):
        last[row[0]] = place
    for place in last.values():  # the same item, much later, with other fields
        moved[place][2:] = [moved[place][2] + 10**7, "buy", "t0 t1", 500, "9.0 9.0"]
    scores, models = [], []
    for name, rows in (("as_is", event_rows()), ("moved", moved)):
        settings = write_shop(tmp_path / name, rows) | {**ALL, **times, "train_mode": train_mode}
        model, loaders = built(settings)
        by_user = {}
        for batch, *_ in loaders[2]:
            by_user.update(zip(batch["user_id"].tolist(), model.full_sort_predict(batch), strict=True))
        scores.append(by_user)
        models.append(model)
    assert all(map(torch.equal, models[0].state_dict().values(), models[1].state_dict().values()))
    assert len(scores[0]) == 12
    for user, score in scores[0].items():
        torch.testing.assert_close(scores[1][user], score)


def changed(batch, fields: list[str], at) -> object:
    """A copy of a batch in which fields say something else at some of their first two dimensions."""
    other = copy.deepcopy(batch)
    for field in fields:
        values = other[field]
        values[at] = values[at] + 10**5 if values.is_floating_point() else 1 + values[at] % 2
    return other


@pytest.mark.parametrize("times", TIMES)
@torch.no_grad()
def test_in_sequences_a_step_reads_its_own_event_and_earlier_ones(shop, times):
    model, loaders = built(shop | ALL | times)
    batch = next(iter(loaders[0]))
    fields = [f"{field}_list" for field in ("gap_timestamp", *STEP_FIELDS)]
    before = model.forward(batch["item_id_list"], batch).user
    length = int(batch["item_length"].min())
    assert length >= 2
    for step in range(1, length):
        for field in fields:
            later = (slice(None), slice(step, None))
            after = model.forward(batch["item_id_list"], changed(batch, [field], later)).user
            torch.testing.assert_close(after[:, :step], before[:, :step])
            assert (after[:, step] - before[:, step]).abs().max() > 1e-4, field  # as the input that it is
    assert float(model.calculate_loss(batch)) > 0


@pytest.mark.parametrize("times", TIMES)
@torch.no_grad()
def test_in_prefixes_the_fields_of_the_target_change_no_loss(shop, times):
    model, loaders = built(shop | ALL | times | {"train_mode": "prefix"})
    batch = next(iter(loaders[0]))
    own = ["timestamp", "gap_timestamp", *STEP_FIELDS]
    loss = model.calculate_loss(batch)
    assert model.calculate_loss(changed(batch, own, slice(None))) == loss
    listed = [f"{field}_list" for field in own if field != "timestamp"]
    for field in listed:
        assert model.calculate_loss(changed(batch, [field], (slice(None), 0))) != loss, field


def test_no_gradient_comes_back_from_later_events(shop):
    model, loaders = built(shop | ALL)
    batch = next(iter(loaders[0]))
    price, vec = batch["price_list"].requires_grad_(), batch["vec_list"].requires_grad_()
    model.forward(batch["item_id_list"], batch).user[:, 1].square().sum().backward()
    for gradient in (price.grad[..., None], vec.grad):
        assert (gradient[:, :2].abs().sum((0, 2)) > 0).all()
        assert (gradient[:, 2:] == 0).all()


@torch.no_grad()
def test_one_pass_scores_every_step_as_its_prefix_alone(shop):
    model, loaders = built(shop | ALL | TIMES[1])
    batch = next(iter(loaders[0]))
    lists = {field: batch[field] for field in batch.columns if field.endswith("_list")}
    whole = model.forward(batch["item_id_list"], batch)
    for step in range(int(batch["item_length"].min())):
        prefix = {field: values[:, : step + 1].contiguous() for field, values in lists.items()}
        prefix["item_length"] = torch.full((len(batch),), step + 1)
        parts, interests = model.score_parts(prefix)
        torch.testing.assert_close(interests.user, whole.user[:, step], atol=1e-5, rtol=1e-5)
        total = model.full_sort_predict(prefix)
        torch.testing.assert_close(parts.total, total, atol=1e-5, rtol=1e-5)
        items = torch.arange(len(batch)) + 1
        picked = model.predict(prefix | {"item_id": items})
        torch.testing.assert_close(picked, total[torch.arange(len(batch)), items], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss_type", ["CE", "BPR"])
@pytest.mark.parametrize("train_mode", ["sequence", "prefix"])
def test_every_parameter_receives_a_gradient(shop, train_mode, loss_type):
    model, loaders = built(shop | ALL | {"train_mode": train_mode, "loss_type": loss_type})
    model.train()
    for batch in loaders[0]:
        model.calculate_loss(batch).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert model.item_embedding.weight.grad[0].abs().sum() == 0
    assert model.items().vectors[0].abs().sum() == 0


@pytest.mark.parametrize("times", [*TIMES, {"time_gaps": True, "short_window": 1}])
@torch.no_grad()
def test_a_state_reads_the_fields_of_one_event_at_a_time(shop, times):
    model, loaders = built(shop | ALL | {"time_bias": True} | times)
    batch = next(iter(loaders[0]))
    whole, state = model.forward(batch["item_id_list"], batch).user, model.init_state(len(batch))
    for step in range(int(batch["item_length"].min())):
        fields = {field: batch[f"{field}_list"][:, step] for field in STEP_FIELDS}
        state = model.step(state, batch["item_id_list"][:, step], batch["exact_timestamp_list"][:, step], fields)
        torch.testing.assert_close(state.user, whole[:, step], atol=1e-5, rtol=1e-5)
    unknown = model.step(state.clone(), batch["item_id_list"][:, 0], state.time[:, -1] + 60)
    assert (unknown.user - model.step(state, batch["item_id_list"][:, 0], state.time[:, -1] + 60, fields).user).any()
    with pytest.raises(ValueError, match=r"fields \(genre\) must be of input_fields and of the .inter file"):
        model.step(state, batch["item_id_list"][:, 0], state.time[:, -1], {"genre": batch["item_id_list"][:, 0]})
    with pytest.raises(ValueError, match=r"time \(None\) must be given: .* time_gaps is set"):
        model.step(state, batch["item_id_list"][:, 0])


@torch.no_grad()
def test_whole_histories_in_pieces_are_read_with_their_fields(shop, monkeypatch):
    monkeypatch.setattr(lsti, "WINDOWS", 10**9)  # in one piece, every step is read
    model, loaders = built(shop | ALL | {"carry_state": True, "MAX_ITEM_LIST_LENGTH": 6, "short_window": 3})
    longest = max((batch for batch, *_ in loaders[2]), key=lambda batch: int(batch["item_length"].max()))
    assert int(longest["item_length"].max()) > 6
    in_pieces = model.full_sort_predict(longest)
    model.piece = 100
    torch.testing.assert_close(model.full_sort_predict(longest), in_pieces, atol=1e-5, rtol=1e-5)
    loss = model.train().calculate_loss(next(iter(loaders[0])))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("whole", [{}, {"carry_state": True, "MAX_ITEM_LIST_LENGTH": 12, "short_window": 4}])
@torch.no_grad()
def test_ranges_of_items_are_scored_with_their_attributes(shop, whole):
    model, loaders = built(shop | ALL | whole)
    batch = next(iter(loaders[2]))[0]
    scores = model.full_sort_predict(batch)
    torch.testing.assert_close(model.score_range(model.encode(batch), 3, 17), scores[:, 3:17], atol=1e-5, rtol=1e-5)
