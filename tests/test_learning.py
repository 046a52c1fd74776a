"""LSTI learns what can be learned and nothing where there is nothing: synthetic Markov chains.

The idea of the test, data whose predictability is a parameter, is Spotlight's (Kula 2017).
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import write_inter

import recbole_lsti


def markov_rows(n_users: int = 60, length: int = 30, n_items: int = 40, certainty: float = 1.0, seed: int = 1) -> list:
    """Each item is followed by one fixed other with probability `certainty`, else by any item."""
    random = np.random.default_rng(seed)
    successor = random.permutation(n_items)
    rows = []
    for user in range(n_users):
        item = random.integers(n_items)
        for step in range(length):
            rows.append((f"u{user}", f"i{item}", step))
            item = successor[item] if random.random() < certainty else random.integers(n_items)
    return sorted(rows, key=lambda row: row[2])


def hit_rate(tmp_path, rows, **settings) -> float:
    write_inter(tmp_path, "chain", rows)
    settings = {
        **{"data_path": str(tmp_path), "use_gpu": False, "show_progress": False, "topk": 1, "valid_metric": "Hit@1"},
        **{"hidden_size": 32, "inner_size": 64, "n_layers": 1, "short_window": 5, "epochs": 25, "learning_rate": 0.01},
        **{"train_batch_tokens": 512, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1, "stopping_step": 25},
        **settings,
    }
    return recbole_lsti.run("LSTI", "chain", config_dict=settings, saved=False)["test_result"]["hit@1"]


@pytest.mark.parametrize("fusion", ["gate", "long", "short"])
def test_a_predictable_chain_is_learned(tmp_path, fusion):
    assert hit_rate(tmp_path, markov_rows(), fusion=fusion) > 0.9


def test_a_chain_is_learned_from_pairs_in_both_modes(tmp_path):
    rows = markov_rows(n_users=40, length=15)
    assert hit_rate(tmp_path, rows, loss_type="BPR", epochs=60) > 0.6
    assert hit_rate(tmp_path, rows, train_mode="prefix", train_batch_size=64, epochs=15) > 0.9


def test_random_histories_teach_nothing(tmp_path):
    assert hit_rate(tmp_path, markov_rows(certainty=0.0), epochs=8) < 0.12
