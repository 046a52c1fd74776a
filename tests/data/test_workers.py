"""Worker processes and pinned memory: no result depends on their number, and GPU users get pinned batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data import data_preparation
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from recbole.sampler import RepeatableSampler
from recbole.utils import init_seed
from reference import write

from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset
from recbole_lsti.data.loader import Batch, PrefixTrainDataLoader, SequenceTrainDataLoader
from recbole_lsti.data.sampler import FixedNegatives, LightSampler

SETTINGS: dict[str, dict[str, Any]] = {
    "sequence": {"model": "LSTI", "train_batch_tokens": 64},
    "sequence with negatives": {"model": "LSTI", "train_batch_tokens": 64, "loss_type": "BPR"},
    "prefix": {"model": "GRU4Rec", "train_batch_size": 16},
    "prefix with negatives": {"model": "GRU4Rec", "train_batch_size": 16, "loss_type": "BPR"},
    "popular negatives": {
        "model": "GRU4Rec",
        "train_batch_size": 16,
        "loss_type": "BPR",
        "train_neg_sample_args": {"distribution": "popularity", "sample_num": 2, "alpha": 0.5, "dynamic": False,
                                  "candidate_num": 0},
    },
    "random masks": {"model": "BERT4Rec", "train_batch_size": 16},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    rows = [(f"u{random.integers(12)}", f"i{random.integers(30)}", time) for time in range(150)]
    write(tmp_path / "w", "inter", "user_id:token item_id:token timestamp:float", rows)
    return tmp_path


def loaders(folder: Path, settings: dict, **more: object) -> tuple[Any, Any, Any]:
    chosen = {**settings, "data_path": str(folder), "use_gpu": False, "MAX_ITEM_LIST_LENGTH": 10, **more}
    config = LSTIConfig(chosen.pop("model"), "w", config_dict=chosen)
    init_seed(config["seed"], config["reproducibility"])
    return data_preparation(config, create_dataset(config))


def batches(loader: Any, epochs: int = 2) -> list[dict[str, torch.Tensor]]:
    drawn = []
    for epoch in range(epochs):
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        for batch in loader:
            batch = batch[0] if isinstance(batch, tuple) else batch
            drawn.append(dict(batch.interaction))
    return drawn


def assert_same(left: list[dict[str, torch.Tensor]], right: list[dict[str, torch.Tensor]]) -> None:
    assert len(left) == len(right) > 1
    for one, other in zip(left, right, strict=True):
        assert set(one) == set(other)
        for field in one:
            assert torch.equal(one[field], other[field]), field


@pytest.mark.parametrize("case", SETTINGS)
def test_batches_are_the_same_with_two_workers_and_with_none(folder: Path, case: str) -> None:
    alone = batches(loaders(folder, SETTINGS[case], worker=0)[0])
    assert_same(alone, batches(loaders(folder, SETTINGS[case], worker=2)[0]))
    half = len(alone) // 2
    with pytest.raises(AssertionError):  # and epochs differ: the comparison above can fail
        assert_same(alone[:half], alone[half:])


@pytest.mark.parametrize("mode", ["full", "uni20", "pop20"])
def test_evaluation_is_the_same_with_two_workers_and_with_none(folder: Path, mode: str) -> None:
    eval_args = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": mode, "group_by": "user"}
    drawn = [
        batches(loaders(folder, SETTINGS["sequence"], worker=worker, eval_args=eval_args, eval_batch_size=5)[2], 1)
        for worker in (0, 2)
    ]
    assert_same(*drawn)


@pytest.mark.parametrize("mode", ["uni20", "pop20"])
def test_sampled_negatives_are_the_same_for_every_model_seed_and_batch_size(folder: Path, mode: str) -> None:
    """And they are what the mode says: never the target, popular items more often where popularity counts."""
    eval_args = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": mode, "group_by": "user"}
    settings = [
        ("sequence", {"seed": 1}),
        ("prefix", {"seed": 2, "eval_batch_size": 30}),
        ("prefix with negatives", {}),
    ]
    found = []
    for case, more in settings:
        for _ in range(2):  # a second epoch of validation
            loader = loaders(folder, SETTINGS[case], eval_args=eval_args, **more)[2]
            np.random.seed(len(found))
            drawn: dict[int, list[int]] = {}
            for rows, row, _, target in loader:
                users, items = rows["user_id"].numpy(), rows["item_id"].numpy()
                for user in np.unique(users):
                    drawn[int(user)] = items[users == user].tolist()
                assert len(row) == 21 * len(target)
            found.append(drawn)
    assert all(each == found[0] for each in found)
    for target, *negatives in found[0].values():
        assert target not in negatives
        assert min(negatives) >= 1
    counts = np.bincount(loader._dataset.inter_feat.events.columns["item_id"].numpy())
    often = np.mean([counts[negatives].mean() for _, *negatives in found[0].values()])
    assert (often > 1.05 * counts[1:].mean()) == (mode == "pop20")


@pytest.mark.parametrize("case", ["prefix", "prefix with negatives", "popular negatives", "random masks"])
def test_prefix_batches_are_recboles(folder: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = loaders(folder, SETTINGS[case])[0]
    assert isinstance(ours, PrefixTrainDataLoader)
    mine = batches(ours)
    monkeypatch.setattr("recbole_lsti.data.loader.PrefixTrainDataLoader", TrainDataLoader)
    monkeypatch.setattr("recbole.data.utils.RepeatableSampler", RepeatableSampler)
    theirs = loaders(folder, SETTINGS[case])[0]
    assert type(theirs) is TrainDataLoader
    assert_same(mine, batches(theirs))


def test_the_sampler_makes_no_set_a_user_and_draws_what_recboles_draws(folder: Path) -> None:
    dataset = loaders(folder, SETTINGS["prefix"])[0]._dataset
    ours, theirs = LightSampler("train", dataset), RepeatableSampler("train", dataset)
    assert len({id(used) for used in ours.used_ids}) == 1
    assert (ours.used_ids == theirs.used_ids).all()
    users, items = np.arange(1, 9), np.arange(1, 9)
    drawn = []
    for sampler in (ours, theirs):
        np.random.seed(0)
        drawn.append(sampler.sample_by_user_ids(users, items, 3))
    assert torch.equal(*drawn)
    assert isinstance(loaders(folder, SETTINGS["prefix with negatives"])[0]._sampler, LightSampler)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_there_must_be_an_item_beside_the_target(folder: Path, distribution: str) -> None:
    dataset = loaders(folder, SETTINGS["prefix"])[0]._dataset
    sampler = LightSampler("train", dataset, distribution)
    assert len(FixedNegatives(sampler).sample_by_user_ids([1], [1], 3)) == 3
    if distribution == "uniform":
        sampler.item_num = 2
    else:  # all events are of one item
        sampler.prob = {1: 1.0}
        sampler._get_candidates_list = lambda: [1, 1]
    for draw in (lambda: sampler.sample_by_user_ids([1], [1], 3), lambda: FixedNegatives(sampler)):
        with pytest.raises(ValueError, match=r"items to draw negatives from \(1\) must be at least 2"):
            draw()


def test_batches_are_pinned_for_a_gpu_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for case, loader_class in (("sequence", SequenceTrainDataLoader), ("prefix", PrefixTrainDataLoader)):
        loader = loaders(folder, SETTINGS[case])[0]
        assert not loader.pin_memory
        assert isinstance(next(iter(loader)), Batch)
        config = loader.config
        config.final_config_dict = {**config.final_config_dict, "device": torch.device("cuda")}
        assert loader_class(config, loader._dataset, None).pin_memory
    many = loaders(folder, SETTINGS["prefix with negatives"])[0]
    many.config.final_config_dict = {**many.config.final_config_dict, "device": torch.device("cuda")}
    assert not PrefixTrainDataLoader(many.config, many._dataset, many._sampler).pin_memory, "they are copied once more"
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    batch = Batch({"a": torch.zeros(2), "b": torch.ones(2)}).pin_memory()
    assert isinstance(batch, Batch)
    assert len(pinned) == 2


def test_a_batch_goes_to_a_device_as_recboles_do() -> None:
    batch = Batch({"a": torch.zeros(2), "b": torch.ones(2)})
    moved = batch.to("meta")
    assert isinstance(moved, Interaction)
    assert {value.device.type for value in moved.interaction.values()} == {"meta"}
    some = batch.to("meta", selected_field="a")
    assert (some["a"].device.type, some["b"].device.type) == ("meta", "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs a GPU")
def test_batches_on_a_gpu_machine_are_pinned(folder: Path) -> None:
    for case in ("sequence", "prefix"):
        loader = loaders(folder, SETTINGS[case], use_gpu=True, worker=1)[0]
        rows = next(iter(loader))
        assert all(value.is_pinned() for value in rows.interaction.values())
        assert rows.to("cuda")["item_id_list"].is_cuda
