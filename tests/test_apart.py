"""Branches trained apart: each has item vectors and a loss of its own, and the fusion learns what each is worth."""

from __future__ import annotations

import pytest
import torch
from test_model import N_ITEMS, batch_of, random_sequences, sequence_batch, times_of
from test_model import make_model as make_any_model
from torch.nn import functional as F

from recbole_lsti.config import LSTIConfig
from recbole_lsti.config_rules import LOSSES
from recbole_lsti.model.lsti import FUSED_EVERY

FUSED = ("fusion.gate", "repeat.")  # what the fused score's loss moves
SURE = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "user_dropout_prob": 0.0}


def make_model(**settings):
    return make_any_model(**{"train_branches": "apart", **settings})


def gradients(model, batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(4)  # SSM draws its negatives
    model.calculate_loss(batch).backward()
    return {name: p.grad.to_dense().clone() for name, p in model.named_parameters() if p.grad is not None}


def targets_of(model, batch):
    targets = batch["target_item_id_list"]
    row, step = targets.nonzero(as_tuple=True)
    return row, step, targets[row, step]


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_fusion_moves_neither_the_branches_nor_the_items(loss_type):
    model, item_seq = make_model(loss_type=loss_type, **SURE).train(), random_sequences(3, 9)
    batch = sequence_batch(item_seq, times_of(item_seq), loss_type)
    before = gradients(model, batch)
    fused = [name for name, _ in model.named_parameters() if name.startswith(FUSED)]
    assert len(fused) == 7
    assert all(before[name].abs().sum() > 0 for name in fused)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(FUSED):
                parameter += torch.randn_like(parameter)
    after = gradients(model, batch)
    for name, gradient in before.items():
        if not name.startswith(FUSED):
            torch.testing.assert_close(after[name], gradient, msg=name)


def test_each_branch_learns_from_what_it_says_alone():
    model, item_seq = make_model(**SURE).train(), random_sequences(3, 9)
    batch = sequence_batch(item_seq, times_of(item_seq), "CE")
    found = gradients(model, batch)
    row, step, target = targets_of(model, batch)
    model.zero_grad()
    read = model._read_branches(item_seq, batch, model.items()).at(row, step)
    E, H = model.item_embedding.weight, model.hidden_size
    loss = torch.zeros(())
    for said, half in ((F.pad(read.long, (0, H)), E[:, :H]), (F.pad(read.short, (H, 0)), E[:, H:])):
        scores = said[:, said.abs().sum(0) > 0] @ half.T + model.popularity
        scores = model.repeat_alone.add_to(scores, said, item_seq, row, step)
        scores = scores.index_fill(1, torch.tensor([0]), -torch.inf)
        loss = loss + F.cross_entropy(scores, target) / 2
    loss.backward()
    for name, parameter in model.named_parameters():
        if not name.startswith(FUSED):
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_the_value_is_the_loss_of_the_fused_score():
    model, item_seq = make_model(), random_sequences(3, 9)
    batch = sequence_batch(item_seq, times_of(item_seq), "CE")
    row, step, target = targets_of(model, batch)
    with torch.no_grad():
        prefixes = batch_of(
            torch.stack([F.pad(item_seq[r, : t + 1], (0, 8 - int(t))) for r, t in zip(row, step, strict=True)])
        )
        scores = model.full_sort_predict(prefixes)
        scores[:, 0] = -torch.inf
        expected = F.cross_entropy(scores[::FUSED_EVERY], target[::FUSED_EVERY])
        torch.testing.assert_close(model.calculate_loss(batch), expected)


@torch.no_grad()
def test_a_branch_reads_and_scores_with_its_own_half_of_the_item_vectors():
    model, batch = make_model(), batch_of(random_sequences(4, 8))
    _, interests = model.score_parts(batch)
    assert model.item_embedding.weight.shape == (N_ITEMS, 2 * model.hidden_size)
    assert interests.long[:, model.short_half].abs().max() == interests.short[:, model.long_half].abs().max() == 0
    before = model._read_branches(batch["item_id_list"], batch, model.items())
    model.item_embedding.weight[1:, model.short_half] += 1 + torch.randn(N_ITEMS - 1, model.hidden_size)
    after = model._read_branches(batch["item_id_list"], batch, model.items())
    torch.testing.assert_close(after.long, before.long)
    assert (after.short - before.short).abs().max() > 0.1


def test_together_they_share_item_vectors_and_a_loss():
    model, item_seq = make_model(train_branches="together", **SURE).train(), random_sequences(3, 9)
    assert model.item_embedding.weight.shape == (N_ITEMS, model.hidden_size)
    batch = sequence_batch(item_seq, times_of(item_seq), "CE")
    before = gradients(model, batch)
    with torch.no_grad():
        model.fusion.gate[2].bias += 3
    after = gradients(model, batch)
    assert (after["long_branch.lstms.0.weight_ih_l0"] - before["long_branch.lstms.0.weight_ih_l0"]).abs().max() > 1e-4


def test_a_single_branch_has_one_table():
    for fusion in ("long", "short"):
        model = make_model(fusion=fusion)
        assert model.item_embedding.weight.shape == (N_ITEMS, model.hidden_size)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_branches": "both"}, r"train_branches \(both\) must be one of apart, together"),
        ({"train_branches": "apart", "cascade": True}, r"cascade \(True\) must be False where train_branches is apart"),
        (
            {"train_branches": "apart", "branch_dropout": 0.1},
            r"branch_dropout \(0.1\) must be 0 where train_branches is apart",
        ),
    ],
)
def test_what_contradicts_it_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LSTIConfig("LSTI", "ml-100k", config_dict=settings)
