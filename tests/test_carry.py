"""Windows of a long history that hand their state on train and rank as one pass over the whole history does."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_inter
from recbole.data import data_preparation
from test_model import ALL_TIME

from recbole_lsti.config import LSTIConfig
from recbole_lsti.config_rules import FUSIONS
from recbole_lsti.data import create_dataset
from recbole_lsti.data.carry import Chain, earlier_items, shifts
from recbole_lsti.data.loader import SequenceTrainDataLoader
from recbole_lsti.model import lsti
from recbole_lsti.model.lsti import LSTI
from recbole_lsti.trainer import LSTITrainer

LENGTHS = (70, 64, 33, 18, 17, 16, 9, 5, 3, 41)  # events of each user
TARGETS = [
    max(1, length - 3) for length in LENGTHS
]  # the first event is none, the last two are left out where they can


@pytest.fixture
def long_histories(tmp_path: Path) -> Path:
    """A data folder with `long`: users with 3 to 70 events of 30 items, in a few sessions."""
    return write_long(tmp_path, LENGTHS)


def write_long(folder: Path, lengths: tuple[int, ...]) -> Path:
    random = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{random.integers(30)}", 1_700_000_000 + int(seconds))
        for user, length in enumerate(lengths)
        for seconds in np.cumsum(random.integers(0, 2000, length))
    ]
    write_inter(folder, "long", rows)
    return folder


def config_of(data_path: Path, small: dict, **settings) -> LSTIConfig:
    carry = {"carry_state": True, "MAX_ITEM_LIST_LENGTH": 12, "train_batch_tokens": 30}
    return LSTIConfig("LSTI", "long", config_dict={**small, "data_path": str(data_path), **carry, **settings})


def network(config: LSTIConfig, dataset) -> LSTI:
    torch.manual_seed(0)
    model = LSTI(config, dataset)
    with torch.no_grad():  # biases and tables start at zero: give them something to say
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        model.item_embedding.weight[0] = 0
    return model.eval()


def what_is_trained(config: LSTIConfig) -> tuple[dict, float]:
    """Each target's user vector by its event, and the summed loss, over two epochs; the second one's are returned."""
    loader = data_preparation(config, create_dataset(config))[0]
    model, sequences = network(config, loader._dataset), loader.sequences
    twin = copy.deepcopy(model)  # a pass moves the states on
    for epoch in range(2):
        loader.set_epoch(epoch)
        vectors: dict[int, torch.Tensor] = {}
        loss = 0.0
        for index in loader.batches:
            batch = sequences[index]
            target = batch["target_item_id_list"]
            if config["loss_type"] == "BPR":
                batch["neg_target_item_id_list"] = torch.where(target > 0, target % 29 + 1, 0)
            row, step = target.nonzero(as_tuple=True)
            user = model.forward(batch["item_id_list"], batch).at(row, step).user
            events = torch.from_numpy(sequences.begin[index])[row] + step + 1
            vectors |= dict(zip(events.tolist(), user, strict=True))
            loss += float(twin.calculate_loss(batch)) * len(row)
    return vectors, loss


EXACT = [
    *({"fusion": fusion} for fusion in FUSIONS),
    {"cascade": True},
    {"train_branches": "apart"},
    {"train_branches": "apart", "time_gaps": True, "long_excludes_short": True},
    {"loss_type": "BPR"},
    {"n_layers": 3, "short_window": 6},
    {"long_excludes_short": True},
    {"short_window": 11},
    {"repeat_term": False},
    {"history_mean": False},
    ALL_TIME,
    {"time_gaps": True},
    {"time_gaps": True, "fusion": "long"},
    {"time_gaps": True, "long_excludes_short": True, "n_layers": 2},
]


@pytest.mark.parametrize("settings", EXACT, ids=str)
@torch.no_grad()
def test_with_frozen_weights_windows_give_what_one_pass_gives(long_histories, small, settings, monkeypatch):
    monkeypatch.setattr("recbole_lsti.model.lsti.FUSED_EVERY", 1)  # every target is in the value of the loss
    carried, loss = what_is_trained(config_of(long_histories, small, **settings))
    whole = {"carry_state": False, "MAX_ITEM_LIST_LENGTH": 100}
    expected, whole_loss = what_is_trained(config_of(long_histories, small, **settings, **whole))
    assert carried.keys() == expected.keys()
    assert len(carried) == sum(TARGETS)
    for event, vector in expected.items():
        torch.testing.assert_close(carried[event], vector, atol=1e-5, rtol=1e-5)
    assert loss == pytest.approx(whole_loss, rel=1e-5)


@pytest.mark.parametrize("settings", EXACT, ids=str)
@torch.no_grad()
def test_whole_histories_are_ranked_in_pieces(long_histories, small, settings, monkeypatch):
    monkeypatch.setattr(lsti, "WINDOWS", 10**9)  # without carry_state: every step is read
    results = []
    for carry in (True, False):
        config = config_of(
            long_histories, small, **settings, carry_state=carry, **({} if carry else {"MAX_ITEM_LIST_LENGTH": 100})
        )
        train, _, test = data_preparation(config, create_dataset(config))
        model, batch = network(config, train._dataset), test._dataset[np.arange(len(test._dataset))]
        assert batch["item_length"].max() == max(LENGTHS) - 1
        parts, _ = model.score_parts(batch)
        results.append((model.full_sort_predict(batch), model.predict(batch), parts.total))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [each for each in EXACT if each.get("fusion") != "long"], ids=str)
@torch.no_grad()
def test_the_last_step_alone_is_that_of_all_steps(long_histories, small, settings, monkeypatch):
    config = config_of(long_histories, small, **settings, carry_state=False, MAX_ITEM_LIST_LENGTH=100)
    train, _, test = data_preparation(config, create_dataset(config))
    model, batch = network(config, train._dataset), test._dataset[np.arange(len(test._dataset))]
    monkeypatch.setattr(lsti, "WINDOWS", 10**9)
    every_step = model.full_sort_predict(batch), model.score_parts(batch)[0]
    monkeypatch.setattr(lsti, "WINDOWS", 2)
    monkeypatch.setattr(model, "forward", None)  # which reads every step
    last_step = model.full_sort_predict(batch), model.score_parts(batch)[0]
    torch.testing.assert_close(last_step, every_step, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shuffle", [True, False])
def test_each_target_is_trained_once_and_in_order(long_histories, small, shuffle):
    config = config_of(long_histories, small, shuffle=shuffle)
    loader = data_preparation(config, create_dataset(config))[0]
    for epoch in range(3):
        loader.set_epoch(epoch)
        targets: Counter = Counter()
        windows = defaultdict(list)
        for index in loader.batches:
            batch = loader.sequences[index]
            assert len(set(batch["user_id"].tolist())) == len(index), "one window of a user at a time"
            assert batch["item_id_list"].shape[1] <= 12
            for user, target in zip(batch["user_id"].tolist(), batch["target_item_id_list"], strict=True):
                targets[user] += int((target > 0).sum())
            for window, user in zip(index.tolist(), batch["user_id"].tolist(), strict=True):
                windows[user].append(loader.sequences.begin[window])
        assert sorted(targets.values()) == sorted(TARGETS)
        assert all(begins == sorted(begins) for begins in windows.values())


def test_rounds_follow_each_other_and_users_begin_all_over_the_epoch():
    sizes = np.random.default_rng(1).integers(1, 5, 2000)
    sizes[7] = 90
    user = np.repeat(np.arange(2000), sizes)
    chain = Chain.of_windows(user)
    assert chain.source.max() == chain.target.max() == np.count_nonzero(sizes > 1)
    rounds = chain.rounds(40, shifts(chain, np.random.default_rng(2)))
    place = np.full(len(user), -1)
    for number, windows in enumerate(rounds):
        place[windows] = number
    same = user[1:] == user[:-1]
    assert (np.diff(place)[same] == 1).all()
    assert sum(map(len, rounds)) == len(user)
    assert len(rounds) == 90
    fill = np.array([len(windows) for windows in rounds[4:36]]) / len(user)
    assert 0.8 / 40 < fill.min() < fill.max() < 1.3 / 40


def test_earlier_items_equal_counting_by_hand():
    items = np.random.default_rng(3).integers(1, 6, 40)
    first, begin = np.array([0, 10, 10, 30]), np.array([9, 10, 25, 31])
    found = {name: values.tolist() for name, values in earlier_items(items, first, begin).items()}
    for row, (a, b) in enumerate(zip(first, begin, strict=True)):
        history = items[a:b].tolist()
        expected = {item: (history[::-1].index(item) + 1, history.count(item)) for item in set(history)}
        columns = zip(*(found[f"earlier_{name}"][row] for name in ("item", "distance", "counts")), strict=True)
        assert {item: (distance, count) for item, distance, count in columns if item} == expected


def trained(config: LSTIConfig, epochs: int, folder: Path, resume: bool = False) -> dict[str, torch.Tensor]:
    loader = data_preparation(config, create_dataset(config))[0]
    torch.manual_seed(5)
    trainer = LSTITrainer(config, LSTI(config, loader._dataset))
    trainer.saved_model_file = str(folder / "checkpoint.pth")
    if resume:
        trainer.resume_checkpoint(trainer.saved_model_file, loader)
    for epoch in range(trainer.start_epoch, epochs):
        trainer._train_data = loader
        trainer._train_epoch(loader, epoch)
        trainer._save_checkpoint(epoch, verbose=False)
    assert trainer.model.carried.abs().sum() > 0
    return trainer.model.state_dict()


def test_training_is_the_same_with_workers_and_when_resumed(long_histories, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # RecBole's trainers write TensorBoard's events to the working directory
    config = config_of(long_histories, small, epochs=2, checkpoint_dir=str(tmp_path))
    straight = trained(config, 2, tmp_path)
    assert "carried" not in straight
    trained(config, 1, tmp_path)
    resumed = trained(config, 2, tmp_path, resume=True)
    working = trained(config_of(long_histories, small, epochs=2, checkpoint_dir=str(tmp_path), worker=2), 2, tmp_path)
    for other in (resumed, working):
        assert all(torch.equal(straight[name], other[name]) for name in straight)


def test_batches_do_not_grow_with_the_longest_history(tmp_path, small):
    sizes = []
    for longest in (400, 2000):
        folder = write_long(tmp_path / str(longest), (*LENGTHS, longest))
        config = config_of(folder, small)
        loader = data_preparation(config, create_dataset(config))[0]
        model, most = LSTI(config, loader._dataset), 0
        for batch in loader:
            most = max(most, *(values.numel() for values in batch.interaction.values()))
            with torch.no_grad():
                model.calculate_loss(batch)
        # of later windows, six steps or more, no more than five fit a batch; before each lie at most the 30 items
        assert most <= 5 * 30
        sizes.append(len(model.carried))
    assert sizes[0] == sizes[1]


def test_histories_that_fit_are_trained_as_ever(long_histories, small):
    batches = []
    for carry in (True, False):
        config = config_of(long_histories, small, carry_state=carry, MAX_ITEM_LIST_LENGTH=100)
        batches.append(list(data_preparation(config, create_dataset(config))[0]))
    for ours, theirs in zip(*batches, strict=True):
        assert set(ours.interaction) == set(theirs.interaction)
        assert all(torch.equal(ours[field], theirs[field]) for field in ours.interaction)


def test_losses_under_autocast_are_those_in_float32(long_histories, small):
    config = config_of(long_histories, small)
    loader = data_preparation(config, create_dataset(config))[0]
    model = network(config, loader._dataset)
    for batch in loader:
        exact = model.calculate_loss(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model.calculate_loss(batch)
        torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)
    assert model.carried.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_mode": "prefix"}, r"train_mode \(prefix\) must be sequence where carry_state is True"),
        ({"pad_to_longest": False}, r"pad_to_longest \(False\) must be True where carry_state"),
        ({"MAX_ITEM_LIST_LENGTH": 4}, r"MAX_ITEM_LIST_LENGTH \(4\) must be above short_window \(4\)"),
    ],
)
def test_settings_that_cannot_carry_are_refused(long_histories, small, settings, message):
    with pytest.raises(ValueError, match=message):
        config_of(long_histories, small, **settings)


def test_processes_would_not_find_each_others_states(long_histories, small):
    config = config_of(long_histories, small)
    train = create_dataset(config).build()[0]
    config["single_spec"] = False
    with pytest.raises(ValueError, match=r"carry_state \(True\) must be False where several processes train"):
        SequenceTrainDataLoader(config, train, None)
