"""What a GPU computes is what the CPU computes; a training there is kept, resumed, loaded and ranked anywhere."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from helpers import environment, make_trainer, run_epochs
from test_carry import config_of, long_histories, network  # noqa: F401 - a fixture
from test_model import ALL_TIME, APART, batch_of, make_model, random_sequences, sequence_batch, times_of

import recbole_lsti
from recbole_lsti.config_rules import FUSIONS, LOSSES
from recbole_lsti.data import create_dataset
from recbole_lsti.data.loader import SequenceTrainDataLoader
from recbole_lsti.model.losses import cross_entropy

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
CLOSE = {"atol": 1e-4, "rtol": 1e-4}
NO_DROPOUT = dict.fromkeys(("hidden_dropout_prob", "attn_dropout_prob", "user_dropout_prob"), 0.0)
GPU = {"use_gpu": True, "gpu_id": "0"}
ON_THE_CPU = """
import json, sys, recbole_lsti
loaded = recbole_lsti.load(sys.argv[1])
assert not next(loaded.model.parameters()).is_cuda
print(json.dumps(recbole_lsti.recommend(loaded, users=["u3", "u5"], k=5)["score"].to_list()))
"""


@pytest.fixture(autouse=True)
def _whole_float32(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without TensorFloat-32, which cuDNN's LSTM takes for float32 and which keeps ten bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    yield
    torch.cuda.empty_cache()


def loss_and_gradients(model, batch) -> dict[str, torch.Tensor]:
    """Of the loss of a training without dropout, on the CPU."""
    model.train().zero_grad()  # cuDNN's LSTM has no gradients in evaluation mode
    loss = model.calculate_loss(batch)
    loss.backward()
    found = {name: p.grad.to_dense() for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach().cpu() for name, value in {"loss": loss, **found}.items()}


@pytest.mark.parametrize(
    "settings", [{"fusion": fusion} for fusion in FUSIONS] + [ALL_TIME, APART, {**APART, **ALL_TIME}, {"cascade": True}]
)
@torch.no_grad()
def test_scores_and_states_are_those_of_the_cpu(settings):
    model, item_seq = make_model(**settings), random_sequences(5, 30)
    batch = batch_of(item_seq, torch.tensor([30, 7, 1, 22, 30]), exact_timestamp_list=times_of(item_seq))
    there = copy.deepcopy(model).cuda()
    expected = model.full_sort_predict(batch)
    torch.testing.assert_close(there.full_sort_predict(batch.to("cuda")).cpu(), expected, **CLOSE)
    state = there.init_state(5)
    for t in range(30):
        state = there.step(state, item_seq[:, t], times_of(item_seq)[:, t])
    assert state.user.is_cuda
    torch.testing.assert_close(there.score(state).cpu()[[0, 4]], expected[[0, 4]], **CLOSE)


@pytest.mark.parametrize("loss_type", [loss for loss in LOSSES if loss != "SSM"])  # whose draws differ by device
@pytest.mark.parametrize("settings", [{}, {**APART, **ALL_TIME}])
def test_losses_and_gradients_are_those_of_the_cpu(loss_type, settings):
    model = make_model(loss_type=loss_type, **NO_DROPOUT, **settings)
    item_seq = random_sequences(6, 21)
    batch = sequence_batch(item_seq, times_of(item_seq), loss_type)
    expected = loss_and_gradients(model, batch)
    found = loss_and_gradients(copy.deepcopy(model).cuda(), batch.to("cuda"))
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


def test_ssm_trains_with_sparse_gradients():
    model = make_model(loss_type="SSM", n_negatives=15).cuda().train()
    item_seq = random_sequences(6, 21)
    batch = sequence_batch(item_seq, times_of(item_seq), "SSM").to("cuda")
    loss = model.calculate_loss(batch)
    loss.backward()
    assert loss.isfinite()
    assert model.item_embedding.weight.grad.is_sparse


def test_cross_entropy_of_many_ranges_is_that_of_one(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    user, items = torch.randn(300, 16, generator=generator), torch.randn(500, 16, generator=generator)
    bias, target = torch.randn(500, generator=generator), torch.randint(1, 500, (300,), generator=generator)
    query = torch.arange(300).repeat_interleave(2)
    item = torch.stack([torch.arange(1, 301), torch.arange(301, 601) % 199 + 301], dim=1).view(-1)
    given = [user, items, bias, target, query, item, torch.randn(600, generator=generator)]
    expected = cross_entropy(*given)
    given = [each.cuda() for each in given]
    torch.testing.assert_close(cross_entropy(*given).cpu(), expected)
    monkeypatch.setattr("recbole_lsti.model.losses._targets_at_a_time", lambda *_: 32)
    torch.testing.assert_close(cross_entropy(*given).cpu(), expected)


def test_windows_hand_their_state_on(long_histories, small):  # noqa: F811
    config = config_of(long_histories, small, use_gpu=False)
    loader = SequenceTrainDataLoader(config, create_dataset(config).build()[0], None)
    here = network(config, loader._dataset)
    there = copy.deepcopy(here).cuda()
    for batch in loader:
        expected = here.calculate_loss(batch)
        torch.testing.assert_close(there.calculate_loss(batch.to("cuda")).cpu(), expected, **CLOSE)
    torch.testing.assert_close(there.carried.cpu(), here.carried, **CLOSE)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"enable_amp": True},
        {"ema_decay": 0.9, "train_branches": "apart", "time_gaps": True, "time_bias": True},
        {"loss_type": "SSM", "enable_amp": True},
        {"loss_type": "BPR"},
        {"train_mode": "prefix"},
        {"carry_state": True, "MAX_ITEM_LIST_LENGTH": 12},
        {"carry_state": True, "MAX_ITEM_LIST_LENGTH": 12, "enable_amp": True},
    ],
    ids=str,
)
def test_a_training_is_kept_and_loaded_anywhere(settings, tiny, tmp_path, small):
    told = {**small, **GPU, "data_path": str(tiny), "checkpoint_dir": str(tmp_path / "saved"), "epochs": 3}
    result = recbole_lsti.run("LSTI", "tiny", config_dict={**told, **settings})
    assert 0 < result["test_result"]["ndcg@10"] <= 1
    lists = recbole_lsti.recommend(result["checkpoint_file"], users=["u3", "u5"], k=5)
    command = [sys.executable, "-c", ON_THE_CPU, str(result["checkpoint_file"])]
    done = subprocess.run(
        command, env=environment() | {"CUDA_VISIBLE_DEVICES": ""}, stdout=subprocess.PIPE, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(
        lists["score"].to_list(), abs=1e-2 if "enable_amp" in settings else 1e-3
    )


@pytest.mark.parametrize("loss_type", ["CE", "SSM"])
def test_a_compiled_training(loss_type, tiny, tmp_path, small):
    told = {**small, **GPU, "data_path": str(tiny), "checkpoint_dir": str(tmp_path / "saved"), "epochs": 2}
    result = recbole_lsti.run("LSTI", "tiny", config_dict={**told, "loss_type": loss_type, "compile": True})
    assert 0 < result["test_result"]["ndcg@10"] <= 1


def test_a_resumed_training_goes_on(tiny, tmp_path, small, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = {**small, **GPU, "data_path": str(tiny), "eval_step": 0, "epochs": 4, "ema_decay": 0.9}
    path = tmp_path / "checkpoint.pth"
    run_epochs(*make_trainer(told), 2, path)
    trainer, model = make_trainer(told)
    trainer.resume_checkpoint(path, trainer._train_data)
    assert trainer.start_epoch == 2
    trainer.fit(trainer._train_data, None, saved=False)
    through, whole = make_trainer(told)
    through.fit(through._train_data, None, saved=False)
    for name, value in whole.state_dict().items():  # a GPU adds up in another order each time
        torch.testing.assert_close(model.state_dict()[name], value, atol=0.02, rtol=0.02, msg=name)
