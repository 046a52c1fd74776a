"""Whole runs with inputs beside the item ids: checkpoints, histories with times, items never trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_inter

import recbole_lsti
from inputs.conftest import ALL, ITEM_HEADER, STEP_FIELDS, item_rows, preloaded, write_table
from recbole_lsti.cli import main
from recbole_lsti.config import LSTIConfig
from recbole_lsti.recommendation import recommend_from
from recbole_lsti.runner import Loaded, build


def test_a_run_its_checkpoint_and_recommendations(shop):
    result = recbole_lsti.run("LSTI", "shop", config_dict=preloaded(shop) | ALL | {"time_gaps": False})
    assert 0 <= result["test_result"]["ndcg@5"] <= 1
    loaded = recbole_lsti.load(result["checkpoint_file"])
    table = recbole_lsti.recommend(result["checkpoint_file"], users=["u3"], histories=[["i1", "i2"]], k=4)
    dataset = loaded.dataset
    events = dataset.inter_feat.events
    mine = events.columns["user_id"] == dataset.token2id("user_id", "u3")
    batch = {f"{field}_list": events.columns[field][mine][None] for field in ("item_id", *STEP_FIELDS)}
    batch["item_length"] = mine.sum()[None]
    with torch.no_grad():
        score = loaded.model.full_sort_predict(batch)[0]
    found = table[(table["user"] == "u3") & (table["list"] == "fused")]["score"].to_numpy()
    np.testing.assert_allclose(found, score[1:].topk(4).values.numpy(), rtol=1e-5)
    assert len(table[table["user"] == 0]) == 12
    rows = item_rows()
    for row in rows:
        row[1] = "other"
    write_table(Path(shop["data_path"]) / "shop", "item", ITEM_HEADER, rows)
    with pytest.raises(ValueError, match=r"dataset shop \(1 different genre\) must be the one the checkpoint was"):
        recbole_lsti.load(result["checkpoint_file"])


def test_histories_without_times_are_refused_where_gaps_are_read(shop):
    result = recbole_lsti.run("LSTI", "shop", config_dict=shop | {"time_gaps": True, "epochs": 1})
    assert len(recbole_lsti.recommend(result["checkpoint_file"], users=["u3"], k=2)) == 6
    with pytest.raises(ValueError, match=r"history 0 must come with times: .* time_gaps"):
        recbole_lsti.recommend(result["checkpoint_file"], histories=[["i1"]])


@pytest.mark.parametrize(
    "reads",
    [{"time_gaps": True}, {"time_bias": True}, {"session_gap": 100.0}, {"time_gaps": True, "MAX_ITEM_LIST_LENGTH": 4}],
    ids=str,
)
def test_a_history_with_its_times_gets_what_a_user_with_both_gets(shop, reads, capsys):
    checkpoint = recbole_lsti.run("LSTI", "shop", config_dict=shop | reads | {"epochs": 1})["checkpoint_file"]
    loaded = recbole_lsti.load(checkpoint)
    events = loaded.dataset.inter_feat.events
    mine = (events.columns["user_id"] == loaded.dataset.token2id("user_id", "u3")).numpy()
    items = loaded.dataset.id2token("item_id", events.columns["item_id"].numpy()[mine]).tolist()
    times = events.time[mine].tolist()
    by_user = recbole_lsti.recommend(checkpoint, users=["u3"], k=3).drop(columns="user")
    given = recbole_lsti.recommend(checkpoint, histories=[items], k=3, times=[times]).drop(columns="user")
    pd.testing.assert_frame_equal(given, by_user)
    strange = recbole_lsti.recommend(checkpoint, histories=[["?", *items]], k=3, times=[[times[0], *times]])
    pd.testing.assert_frame_equal(strange.drop(columns="user"), by_user)
    words = ["recommend", checkpoint, "--k", "3", "--history", " ".join(items), "--times", " ".join(map(str, times))]
    assert main(words) == 0
    assert f"{by_user['score'].iloc[0]:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([], r"times \(0 lists\) must be as many as histories \(1\)"),
        ([[1.0]], r"times of history 0 \(1\) must be as many as its items \(2\)"),
        ([[2.0, 1.0]], r"times of history 0 \(\[2.0, 1.0\]\) must be a list of Unix seconds, the oldest first"),
        ([[1.0, float("nan")]], "times of history 0 .* must be a list of Unix seconds"),
        (["1 2"], r"times of history 0 \(1 2\) must be a list of Unix seconds"),
        ([5.0], r"times of history 0 \(5.0\) must be a list of Unix seconds"),
    ],
)
def test_times_that_are_none_are_refused(shop, times, message):
    config = LSTIConfig("LSTI", "shop", config_dict=shop | {"time_gaps": True})
    dataset, loaders, model = build(config)
    with pytest.raises(ValueError, match=message):
        recommend_from(Loaded(config, model.eval(), dataset, *loaders), histories=[["i1", "i2"]], times=times)


N_GENRES, A_GENRE, N_COLD = 8, 12, 3  # of the 12 items of a genre, 3 are met in the last event of users alone


def cold_start(folder: Path, attributes: bool) -> dict:
    """An item of the next genre follows, any of its items; every test item is one that occurs nowhere else."""
    random, rows = np.random.default_rng(0), []
    for user in range(160):
        genre = random.integers(N_GENRES)
        for step in range(12):
            genre = (genre + 1) % N_GENRES
            warm = random.integers(A_GENRE - N_COLD)
            item = A_GENRE - 1 - random.integers(N_COLD) if step == 11 else warm
            rows.append((f"u{user}", f"i{genre}.{item}", step))
    shop = write_inter(folder, "shop", sorted(rows, key=lambda row: row[2]))
    items = [[f"i{genre}.{item}", f"g{genre}"] for genre in range(N_GENRES) for item in range(A_GENRE)]
    write_table(shop, "item", "item_id:token\tgenre:token", items)
    return {
        **{"data_path": str(folder), "use_gpu": False, "show_progress": False, "topk": A_GENRE, "epochs": 20},
        **{"valid_metric": f"Hit@{A_GENRE}", "hidden_size": 32, "inner_size": 64, "n_layers": 1, "short_window": 4},
        **{"learning_rate": 0.01, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1, "train_batch_tokens": 512},
        "input_fields": ["genre"] if attributes else None,
    }


def hit_rate(settings: dict) -> float:
    return recbole_lsti.run("LSTI", "shop", config_dict=settings, saved=False)["test_result"][f"hit@{A_GENRE}"]


def test_items_never_trained_on_are_found_by_their_attributes(tmp_path):
    chance = A_GENRE / (N_GENRES * A_GENRE)
    with_attributes = cold_start(tmp_path, attributes=True)
    assert hit_rate(with_attributes | {"id_dropout": 0.3}) > 4 * chance
    assert hit_rate(with_attributes) < chance
    assert hit_rate(cold_start(tmp_path, attributes=False)) < chance
