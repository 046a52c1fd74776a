"""The losses and the dropout that LSTI trains with, against their plain forms."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from recbole_lsti.model import losses
from recbole_lsti.model.dropout import Dropout


def problem(T=57, N=23, H=5, S=40, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    pairs = torch.randperm(T * (N - 1), generator=generator)[:S].sort().values
    tensors = {
        "user": torch.randn(T, H, generator=generator, dtype=dtype),
        "items": torch.randn(N, H, generator=generator, dtype=dtype),
        "bias": torch.randn(N, generator=generator, dtype=dtype),
        "value": torch.randn(S, generator=generator, dtype=dtype),
    }
    target = torch.randint(1, N, (T,), generator=generator)
    return {k: v.requires_grad_() for k, v in tensors.items()}, target, pairs // (N - 1), pairs % (N - 1) + 1


def plain(user, items, bias, value, target, query, item):
    scores = (user @ items.T + bias).index_put((query, item), value, accumulate=True)
    return F.cross_entropy(scores[:, 1:], target - 1)


@pytest.mark.parametrize("rows", [1, 7, 57, 1000])
def test_cross_entropy_and_its_gradients_equal_the_plain_form(rows, monkeypatch):
    monkeypatch.setattr(losses, "_targets_at_a_time", lambda *_: rows)
    tensors, target, query, item = problem()
    expected = plain(**tensors, target=target, query=query, item=item)
    wanted = torch.autograd.grad(expected, list(tensors.values()), grad_outputs=torch.tensor(2.5))
    loss = losses.cross_entropy(
        *(tensors[name] for name in ("user", "items", "bias")), target, query, item, tensors["value"]
    )
    found = torch.autograd.grad(loss, list(tensors.values()), grad_outputs=torch.tensor(2.5))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    for name, one, other in zip(tensors, found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5, msg=name)


def test_cross_entropy_bears_scores_that_overflow_an_exponential():
    tensors, target, query, item = problem()
    with torch.no_grad():
        tensors["bias"][3] = 300.0
    loss = losses.cross_entropy(
        *(tensors[name] for name in ("user", "items", "bias")), target, query, item, tensors["value"]
    )
    torch.testing.assert_close(loss, plain(**tensors, target=target, query=query, item=item))
    assert torch.isfinite(torch.autograd.grad(loss, tensors["user"])[0]).all()


def sampled(tensors, target, query, item, negatives, log_weight):
    user, items, bias = (tensors[name] for name in ("user", "items", "bias"))
    scores = user @ items[negatives].T + bias[negatives]
    own = (user * items[target]).sum(1) + bias[target]
    return losses.sampled_softmax(own, scores, target, negatives, log_weight, query, item, tensors["value"])


def test_sampled_softmax_over_all_items_drawn_uniformly_is_cross_entropy():
    tensors, target, query, item = problem(dtype=torch.float64)
    proposal = losses.Proposal(torch.arange(23), power=0.0)
    everything = torch.arange(1, 23)
    log_weight = -torch.log(22 * proposal.log_q[everything].double().exp())  # each once in 22 draws
    loss = sampled(tensors, target, query, item, everything, log_weight)
    expected = plain(**tensors, target=target, query=query, item=item)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    found = torch.autograd.grad(loss, list(tensors.values()))
    wanted = torch.autograd.grad(expected, list(tensors.values()))
    for name, one, other in zip(tensors, found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize("power", [0.0, 0.75])
def test_the_expected_gradient_of_sampled_softmax_approaches_that_of_cross_entropy(power):
    tensors, target, query, item = problem(dtype=torch.float64)
    count = torch.randint(0, 50, (23,), generator=torch.Generator().manual_seed(1))
    proposal = losses.Proposal(count, power)
    exact = torch.autograd.grad(plain(**tensors, target=target, query=query, item=item), list(tensors.values()))
    torch.manual_seed(0)

    def error(n_negatives, corrected=True, rounds=60):
        mean = [torch.zeros_like(gradient) for gradient in exact]
        for _ in range(rounds):
            negatives, log_weight = proposal.draw(n_negatives)
            if not corrected:
                log_weight = log_weight + proposal.log_q[negatives] + math.log(22)  # as if they were drawn uniformly
            loss = sampled(tensors, target, query, item, negatives, log_weight.double())
            for total, one in zip(mean, torch.autograd.grad(loss, list(tensors.values())), strict=True):
                total += one / rounds
        off = sum(((one - other) ** 2).sum() for one, other in zip(mean, exact, strict=True))
        return (off / sum((other**2).sum() for other in exact)).sqrt().item()

    few, more, many = error(2), error(16), error(256)
    assert many < more < few
    assert many < 0.06
    assert power == 0 or error(256, corrected=False) > 3 * many


def test_negatives_are_drawn_as_often_as_the_proposal_says():
    torch.manual_seed(0)
    proposal = losses.Proposal(torch.tensor([9, 0, 3, 15, 0]), power=0.5)
    torch.testing.assert_close(proposal.log_q.exp(), torch.tensor([0.0, 1, 2, 4, 1]) / 8)
    negatives, log_weight = proposal.draw(200_000)
    assert negatives.tolist() == [1, 2, 3, 4]
    share = (log_weight + proposal.log_q[negatives]).exp()
    torch.testing.assert_close(share, torch.tensor([1.0, 2, 4, 1]) / 8, atol=0.005, rtol=0)


def test_gbce_makes_up_for_nothing_at_t_0_and_where_all_items_are_sampled():
    assert losses.gbce_beta(5, 101, 0.0) == 1
    assert losses.gbce_beta(100, 101, 1.0) == 1
    assert losses.gbce_beta(5, 101, 1.0) == pytest.approx(0.05)  # the sampling rate
    rate, t = 0.05, 0.75
    assert losses.gbce_beta(5, 101, t) == pytest.approx(rate * (t * (1 - 1 / rate) + 1 / rate))


PEAK = """
import resource, torch
from recbole_lsti.model.losses import cross_entropy
torch.set_num_threads(1)
T, N, H = {T}, 100_000, 8
user, items = torch.randn(T, H, requires_grad=True), torch.randn(N, H, requires_grad=True)
bias, none = torch.zeros(N, requires_grad=True), torch.zeros(0, dtype=torch.int64)
target = torch.randint(1, N, (T,))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cross_entropy(user, items, bias, target, none, none, torch.zeros(0)).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_does_not_grow_with_the_number_of_targets():
    # the scores of 2,048 targets and 100,000 items are 781 MiB
    def peak(T):
        done = subprocess.run([sys.executable, "-c", PEAK.format(T=T)], capture_output=True, text=True, check=True)
        return float(done.stdout)

    assert peak(2048) < peak(64) + 32 < 200


WHOLE_PEAK = """
import resource, torch, test_model
torch.set_num_threads(1)
test_model.N_ITEMS = 100_000
model = test_model.make_model(hidden_size=8, inner_size=8, n_layers=1)
item_seq = torch.randint(1, 50, ({B}, 64))  # most steps repeat an item
batch = test_model.sequence_batch(item_seq, test_model.times_of(item_seq), "CE")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model.calculate_loss(batch).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_a_loss_with_repeats_holds_no_number_for_each_target_and_item():
    # a byte for each of 2,016 targets and 100,000 items is 192 MiB
    def peak(B):
        command = [sys.executable, "-c", WHOLE_PEAK.format(B=B)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
        return float(done.stdout)

    assert peak(32) < peak(1) + 64 < 300


def test_dropout_keeps_the_share_and_the_mean_and_gives_the_gradient_its_mask():
    torch.manual_seed(0)
    dropout = Dropout(0.3)
    x = torch.ones(1001, 997, requires_grad=True)  # no multiple of eight
    y = dropout(x)
    kept = y != 0
    assert abs(kept.float().mean() - 0.7) < 1 / 256
    columns = kept.float().mean(0)  # each byte of the random words alike
    assert abs(columns - columns.mean()).max() < 0.08
    assert abs(y.mean() - 1) < 0.005
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())
    assert not torch.equal(dropout(x) != 0, kept)


def test_dropout_at_its_ends():
    x = torch.randn(5, 3)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(0.9).eval()(x), x)
    assert not Dropout(1.0)(x).any()
