"""RecBole's causal models in sequence mode: the losses and gradients of prefix mode; the others are refused."""

from __future__ import annotations

import pytest
import torch
from conftest import random_rows, write_inter
from recbole.data import data_preparation

import recbole_lsti
from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset
from recbole_lsti.every_position import EveryPosition

CAUSAL = ["GRU4Rec", "SASRec", "GRU4RecF", "SASRecF"]
NEEDS_MORE = "its loss needs more of a sequence than the outputs at its targets"
REFUSED = {
    **dict.fromkeys(["BERT4Rec", "FEARec", "NARM", "STAMP", "Caser", "SRGNN"], NEEDS_MORE),
    "LightSANs": "its output at a step changes with later items",
}


def settings_of(folder, model: str, **settings) -> dict:
    write_inter(folder, "tiny", random_rows(n_users=12, longest=12))
    items = sorted({row[1] for row in random_rows(n_users=12, longest=12)})
    lines = ["item_id:token\tclass:token_seq", *(f"{item}\tc{k % 4} c{k % 3}" for k, item in enumerate(items))]
    (folder / "tiny" / "tiny.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"data_path": str(folder), "use_gpu": False, "show_progress": False, "seed": 3, **settings}
    if model.endswith("F"):
        load = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]}
        settings |= {"load_col": load, "selected_features": ["class"]}
    return settings


@pytest.mark.parametrize("loss_type", ["CE", "BPR"])
@pytest.mark.parametrize("model_name", CAUSAL)
def test_losses_and_gradients_equal_those_of_prefix_mode(tmp_path, model_name, loss_type):
    no_dropout = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "dropout_prob": 0.0, "force_unknown_keys": True}
    settings = settings_of(tmp_path, model_name, loss_type=loss_type, train_batch_size=10_000, **no_dropout)
    settings |= {"train_batch_tokens": 1_000_000}
    gradients, losses, model = {}, {}, None
    for mode in ("prefix", "sequence"):
        config = LSTIConfig(model_name, "tiny", config_dict={**settings, "train_mode": mode})
        train_data, _, _ = data_preparation(config, create_dataset(config))
        if model is None:
            torch.manual_seed(1)
            model = config.model_class(config, train_data._dataset)
        model.train()
        model.zero_grad()
        (batch,) = train_data
        if mode == "sequence":
            every_position = EveryPosition(model, "target_item_id_list", "neg_target_item_id_list")
            every_position.check()
            target = batch["target_item_id_list"]
            batch["neg_target_item_id_list"] = torch.where(target > 0, target % 20 + 1, 0)
            loss = every_position(batch)
            assert "gather_indexes" not in vars(model)
        else:
            batch["neg_item_id"] = batch["item_id"] % 20 + 1
            loss = model.calculate_loss(batch)
        loss.backward()
        losses[mode] = loss.detach()
        gradients[mode] = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(losses["sequence"], losses["prefix"], atol=1e-5, rtol=1e-5)
    assert gradients["sequence"].keys() == gradients["prefix"].keys()
    for name, gradient in gradients["prefix"].items():
        torch.testing.assert_close(gradients["sequence"][name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model", REFUSED)
def test_models_that_are_not_causal_are_refused_with_the_reason(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    settings = settings_of(tmp_path, model, train_mode="sequence", epochs=1)
    with pytest.raises(ValueError, match=rf"train_mode \(sequence\) must be prefix for {model}: {REFUSED[model]}$"):
        recbole_lsti.run(model, "tiny", config_dict=settings, saved=False)


@pytest.mark.parametrize("model", ["GRU4Rec", "SASRecF"])
def test_a_causal_model_trains_from_whole_sequences(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    settings = settings_of(tmp_path, model, train_mode="sequence", epochs=3, MAX_ITEM_LIST_LENGTH=6, min_context=2)
    result = recbole_lsti.run(model, "tiny", config_dict=settings)
    assert result["epochs_run"] == 3
    assert recbole_lsti.load(result["checkpoint_file"]).train_data.__class__.__name__ == "SequenceTrainDataLoader"
    prefix = recbole_lsti.run(model, "tiny", config_dict={**settings, "train_mode": "prefix"}, saved=False)
    assert prefix["best_valid_result"].keys() == result["best_valid_result"].keys()


def test_the_check_leaves_the_model_and_the_generators_as_they_were(tmp_path):
    settings = settings_of(tmp_path, "SASRec", train_mode="sequence")
    config = LSTIConfig("SASRec", "tiny", config_dict=settings)
    train_data, _, _ = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train_data._dataset).train()
    state = torch.get_rng_state()
    EveryPosition(model, "target_item_id_list", "neg_target_item_id_list").check()
    assert model.training
    assert "gather_indexes" not in vars(model)
    assert torch.equal(torch.get_rng_state(), state)
