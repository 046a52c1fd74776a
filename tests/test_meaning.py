"""Does the model mean what it says? Data of which it is known what there is to learn, and data with nothing in it.

Markov chains, and synthetic users with a planted stable taste and planted sessions (recbole_lsti.data.synthetic). The
idea, data whose predictability is a parameter, is Spotlight's (Kula 2017).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_inter

import recbole_lsti
from recbole_lsti.data.synthetic import Synthetic, shuffled, synthetic, write_synthetic

NETWORK = {"use_gpu": False, "show_progress": False, "hidden_size": 32, "n_layers": 1, "learning_rate": 0.01}

# ---- Markov chains -----------------------------------------------------------------------------------------------


def markov_rows(n_users: int = 60, length: int = 30, n_items: int = 40, seed: int = 1) -> list:
    """Each item is followed by one fixed other."""
    random = np.random.default_rng(seed)
    successor = random.permutation(n_items)
    rows = []
    for user in range(n_users):
        item = random.integers(n_items)
        for step in range(length):
            rows.append((f"u{user}", f"i{item}", step))
            item = successor[item]
    return sorted(rows, key=lambda row: row[2])


def hit_rate(tmp_path: Path, rows: list, **settings: Any) -> float:
    write_inter(tmp_path, "chain", rows)
    settings = {
        **{"data_path": str(tmp_path), "topk": 1, "valid_metric": "Hit@1", "inner_size": 64, "short_window": 5},
        **{"epochs": 25, "train_batch_tokens": 512, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1},
        **{"stopping_step": 25, **NETWORK, **settings},
    }
    return recbole_lsti.run("LSTI", "chain", config_dict=settings, saved=False)["test_result"]["hit@1"]


@pytest.mark.parametrize("fusion", ["gate", "long", "short"])
def test_a_predictable_chain_is_learned(tmp_path: Path, fusion: str) -> None:
    assert hit_rate(tmp_path, markov_rows(), fusion=fusion) > 0.9


def test_a_chain_is_learned_from_pairs_in_both_modes(tmp_path: Path) -> None:
    rows = markov_rows(n_users=40, length=15)
    assert hit_rate(tmp_path, rows, loss_type="BPR", epochs=60) > 0.6
    assert hit_rate(tmp_path, rows, train_mode="prefix", train_batch_size=64, epochs=15) > 0.9


def test_a_chain_is_learned_from_sampled_items(tmp_path: Path) -> None:
    rows = markov_rows(n_users=40, length=15)
    assert hit_rate(tmp_path, rows, loss_type="SSM", n_negatives=16, epochs=60) > 0.9
    some = {"distribution": "uniform", "sample_num": 4}
    assert hit_rate(tmp_path, rows, loss_type="gBCE", train_neg_sample_args=some, epochs=60) > 0.6


# ---- the generator -----------------------------------------------------------------------------------------------


def test_the_strengths_are_the_shares_of_the_sources() -> None:
    data = synthetic(500, 120, taste_strength=0.3, session_strength=0.6, n_events=40, session_length=5, seed=3)
    events = data.events
    shares = events["source"].value_counts(normalize=True)
    assert shares["taste"] == pytest.approx(0.3, abs=0.01)
    assert shares["session"] == pytest.approx(0.6, abs=0.01)
    group, taste = data.group[events["item"]], data.taste[events["user"]]
    assert (group == taste)[events["source"] == "taste"].all()
    assert (group == events["topic"])[events["source"] == "session"].all()
    assert (events["topic"] != taste).all(), "topic and taste can be told apart"
    sessions = events.groupby(["user", "session"])
    assert sessions["topic"].nunique().max() == 1
    assert sessions.size().mean() == pytest.approx(5, abs=0.6)
    gaps = events.groupby("user")["timestamp"].diff().dropna()
    assert set(gaps) == {60, 86_400}
    assert events["timestamp"].is_monotonic_increasing


def test_skew_makes_some_items_of_a_group_popular() -> None:
    for skew, least, most in ((0.0, 0.8, 1.25), (1.0, 8.0, 12.5)):
        events = synthetic(400, 120, n_groups=12, n_events=50, skew=skew).events
        counts = np.bincount(events["item"], minlength=120).reshape(10, 12).sum(axis=1)  # by rank within the group
        assert least < counts[0] / counts[-1] < most


def test_one_seed_gives_one_data_set() -> None:
    first, again, other = synthetic(20, seed=5), synthetic(20, seed=5), synthetic(20, seed=6)
    pd.testing.assert_frame_equal(first.events, again.events)
    assert not first.events["item"].equals(other.events["item"])


def test_shuffling_keeps_popularity_and_users_and_nothing_else() -> None:
    data = synthetic(200, 60, n_groups=6)
    mixed = shuffled(data)
    assert np.array_equal(np.bincount(data.events["item"]), np.bincount(mixed.events["item"]))
    assert data.events["user"].equals(mixed.events["user"])
    of_taste = (data.group[mixed.events["item"]] == data.taste[mixed.events["user"]]).mean()
    assert of_taste == pytest.approx(1 / 6, abs=0.02)


def test_it_is_written_as_atomic_files(tmp_path: Path) -> None:
    data = synthetic(5, 12, n_groups=3, n_events=4)
    folder = write_synthetic(tmp_path, "planted", data)
    lines = (folder / "planted.inter").read_text().splitlines()
    assert lines[0] == "user_id:token\titem_id:token\ttimestamp:float"
    first = data.events.iloc[0]
    assert lines[1].split("\t") == [f"u{first['user']}", f"i{first['item']}", str(first["timestamp"])]
    assert len(lines) == 21
    assert (folder / "planted.item").read_text().splitlines()[:2] == ["item_id:token\tgroup:token", "i0\tg0"]
    assert (folder / "planted.user").read_text().splitlines()[1] == f"u0\tg{data.taste[0]}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_users": 0}, r"n_users \(0\) must be 1 or more"),
        ({"n_groups": 1}, r"n_groups \(1\) must be from 2 to n_items \(240\)"),
        ({"taste_strength": -0.1}, r"taste_strength \(-0.1\) must be from 0 to 1"),
        (
            {"taste_strength": 0.7, "session_strength": 0.5},
            r"taste_strength \+ session_strength \(1.2\) must be at most 1",
        ),
        ({"session_length": 0.5}, r"session_length \(0.5\) must be 1 or more"),
        ({"skew": -1}, r"skew \(-1\) must be 0 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthetic(**settings)


# ---- what the branches learn of it -------------------------------------------------------------------------------

N_GROUPS, N_ITEMS = 12, 120  # ten items a group: a list of ten may be one group, whole
CHANCE = 1 / N_GROUPS


class Measured(NamedTuple):
    """ndcg: NDCG@10 of the test items; expected: its mean over what the planted user might do next instead of one draw;
    taste, session: share of the top 10 that is of the user's taste group, of the topic of the last event read;
    gate: mean share of the long branch.
    """

    ndcg: float
    expected: float
    taste: float
    session: float
    gate: float


def planted(taste_strength: float, session_strength: float, seed: int = 0, n_users: int = 600) -> Synthetic:
    return synthetic(
        n_users,
        N_ITEMS,
        n_groups=N_GROUPS,
        n_events=50,
        taste_strength=taste_strength,
        session_strength=session_strength,
        session_length=5,
        seed=seed,
    )


def measure(folder: Path, data: Synthetic, strengths: tuple[float, float], **settings: Any) -> Measured:
    """Train on the data and compare the top ten of every user with what was planted.

    The repeat term is off: a model that only knows what the user has had would find part of the taste that way.
    """
    write_synthetic(folder, "planted", data)
    settings = {
        **{"data_path": str(folder), "checkpoint_dir": str(folder / "saved"), "repeat_term": False, **NETWORK},
        **{"inner_size": 32, "short_window": 10, "session_gap": 3600, "train_batch_tokens": 2048, "epochs": 12},
        **{"hidden_dropout_prob": 0.3, "attn_dropout_prob": 0.1, **settings},
    }
    result = recbole_lsti.run("LSTI", "planted", config_dict=settings)
    loaded = recbole_lsti.load(result["checkpoint_file"])
    tops, users, gates = [], [], []
    with torch.no_grad():
        for batch in loaded.test_data:
            scores, interests = loaded.model.score_parts(batch[0])
            scores.total[:, 0] = -torch.inf
            tops.append(scores.total[:, 1:].topk(10).indices + 1)
            users.append(batch[0]["user_id"])
            gates.append(interests.gate if interests.gate is not None else torch.tensor([torch.nan]))
    items = numbers(loaded.dataset.id2token("item_id", torch.cat(tops).numpy()))  # (users, 10)
    user = numbers(loaded.dataset.id2token("user_id", torch.cat(users).numpy()))
    events = data.events.sort_values(["user", "timestamp"], kind="stable")
    target_topic, read_topic = (events.groupby("user")["topic"].nth(n).to_numpy() for n in (-1, -2))
    groups = data.group[items]
    p = next_item(data, strengths, data.taste, target_topic)[user]
    discount = 1 / np.log2(np.arange(2, 12))
    return Measured(
        result["test_result"]["ndcg@10"],
        float((np.take_along_axis(p, items, axis=1) * discount).sum(axis=1).mean()),
        float((groups == data.taste[user][:, None]).mean()),
        float((groups == read_topic[user][:, None]).mean()),
        float(torch.cat([gate.flatten() for gate in gates]).mean()),
    )


def next_item(data: Synthetic, strengths: tuple[float, float], taste: np.ndarray, topic: np.ndarray) -> np.ndarray:
    """(users, items) probability of each item, given taste and topic."""
    weight = 1.0 / (np.arange(N_ITEMS) // N_GROUPS + 1)
    weight /= weight[::N_GROUPS].sum()  # every group sums to 1
    of_taste, of_topic = (data.group == taste[:, None]), (data.group == topic[:, None])
    return weight * (strengths[0] * of_taste + strengths[1] * of_topic + (1 - sum(strengths)) / N_GROUPS)


def numbers(tokens: np.ndarray) -> np.ndarray:
    return np.array([int(token[1:]) for token in tokens.ravel()]).reshape(tokens.shape)


def test_each_branch_alone_finds_its_interest_and_both_together_rank_better(tmp_path: Path) -> None:
    strengths = (0.45, 0.55)
    data = planted(*strengths)
    long, short, fused = (measure(tmp_path, data, strengths, fusion=fusion) for fusion in ("long", "short", "gate"))
    print(long, short, fused, sep="\n")
    assert long.taste > 5 * CHANCE
    assert short.session > 5 * CHANCE
    assert long.taste > short.taste
    assert short.session > long.session
    assert fused.expected > 1.01 * max(long.expected, short.expected)


@pytest.mark.slow
def test_both_together_rank_better_for_every_seed(tmp_path: Path) -> None:
    strengths = (0.45, 0.55)
    table = {}
    for seed in range(3):
        data = planted(*strengths, seed=seed, n_users=1200)
        for fusion in ("long", "short", "gate"):
            table[seed, fusion] = measure(tmp_path, data, strengths, fusion=fusion)
            print(seed, fusion, table[seed, fusion])
        alone = max(table[seed, "long"].expected, table[seed, "short"].expected)
        assert table[seed, "gate"].expected > 1.03 * alone
    ndcg = {fusion: np.mean([table[seed, fusion].ndcg for seed in range(3)]) for fusion in ("long", "short", "gate")}
    assert ndcg["gate"] > 1.02 * max(ndcg["long"], ndcg["short"])


def test_the_gate_moves_to_the_branch_that_knows_more(tmp_path: Path) -> None:
    stable = measure(tmp_path, planted(0.7, 0.2, n_users=300), (0.7, 0.2), epochs=6)
    current = measure(tmp_path, planted(0.2, 0.7, n_users=300), (0.2, 0.7), epochs=6)
    print(stable, current, sep="\n")
    assert stable.gate > current.gate + 0.2
    assert stable.taste > 8 * CHANCE
    assert current.session > 5 * CHANCE


def test_shuffled_histories_teach_nothing(tmp_path: Path) -> None:
    data = shuffled(planted(0.45, 0.55, n_users=400))
    found = measure(tmp_path, data, (0.0, 0.0), epochs=6)
    print(found)
    assert found.taste == pytest.approx(CHANCE, abs=0.01)
    assert found.session == pytest.approx(CHANCE, abs=0.01)
    # by popularity, counted before each user's last two events, as the test sees it
    ranked = data.events.groupby("user")["item"].agg(list)
    counts = np.bincount(np.concatenate([items[:-2] for items in ranked]), minlength=N_ITEMS)
    rank = np.argsort(np.argsort(-counts, kind="stable"))[[items[-1] for items in ranked]]
    by_popularity = np.where(rank < 10, 1 / np.log2(rank + 2), 0).mean()
    assert found.ndcg < by_popularity + 0.02
