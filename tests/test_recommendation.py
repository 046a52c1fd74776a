"""Recommendations from a checkpoint: three lists that are what the model's own scores say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import random_rows, write_inter
from recbole.data.interaction import Interaction

import recbole_lsti
from recbole_lsti.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("data")
    write_inter(folder, "tiny", random_rows())
    settings = {"hidden_size": 8, "inner_size": 16, "n_layers": 1, "epochs": 3, "show_progress": False}
    settings |= {"data_path": str(folder), "checkpoint_dir": str(folder / "saved"), "use_gpu": False}
    return recbole_lsti.run("LSTI", "tiny", config_dict=settings)["checkpoint_file"]


def history_of(user: str) -> list[str]:
    return [item for who, item, _ in random_rows() if who == user]


def test_lists_rank_by_the_parts_of_the_score(trained):
    table = recbole_lsti.recommend(trained, users=["u3"], k=7)
    assert list(table.columns) == ["user", "list", "rank", "item", "score"]
    assert list(table["list"].unique()) == ["long", "short", "fused"]
    assert table.groupby("list")["rank"].apply(list).tolist() == [list(range(1, 8))] * 3
    loaded = recbole_lsti.load(trained)
    ids = torch.tensor([[loaded.dataset.token2id("item_id", item) for item in history_of("u3")]])
    batch = Interaction({"item_id_list": ids, "item_length": torch.tensor([ids.shape[1]])})
    with torch.no_grad():
        parts, interests = loaded.model.score_parts(batch)
        scores = {"fused": loaded.model.full_sort_predict(batch)[0]}
    scores["long"] = (parts.total - parts.short)[0]
    scores["short"] = (parts.total - parts.long)[0]
    for name, rows in table.groupby("list"):
        score = scores[name].detach().numpy()
        order = np.argsort(-score[1:], kind="stable")[:7] + 1
        assert rows["item"].tolist() == loaded.dataset.id2token("item_id", order).tolist(), name
        np.testing.assert_allclose(rows["score"], score[order], rtol=1e-5)
        assert "[PAD]" not in set(rows["item"])
    assert table.attrs["gate"]["u3"] == pytest.approx(float(interests.gate.mean()))
    assert 0 < table.attrs["gate"]["u3"] < 1


def test_the_items_of_a_history_can_be_left_out(trained, capsys):
    n_items = recbole_lsti.load(trained).dataset.item_num - 1
    had = set(history_of("u3"))
    whole = recbole_lsti.recommend(trained, users=["u3"], k=n_items)
    new = recbole_lsti.recommend(trained, users=["u3"], k=n_items - len(had), unseen=True)
    for name, rows in whole.groupby("list"):
        left = rows[~rows["item"].isin(had)]
        found = new[new["list"] == name]
        assert found["item"].tolist() == left["item"].tolist()
        assert found["score"].tolist() == left["score"].tolist()
        assert found["rank"].tolist() == list(range(1, len(left) + 1))
    assert main(["recommend", trained, "--users", "u3", "--k", str(n_items), "--unseen"]) == 2
    said = f"k ({n_items}) must be at most {n_items - len(had)}, the number of items that user u3 has not had"
    assert capsys.readouterr().err == f"recbole-lsti: {said}\n"


def test_items_before_the_window_are_left_out_too(tiny, small, tmp_path):
    settings = {**small, "data_path": str(tiny), "checkpoint_dir": str(tmp_path), "MAX_ITEM_LIST_LENGTH": 5}
    loaded = recbole_lsti.load(recbole_lsti.run("LSTI", "tiny", config_dict=settings)["checkpoint_file"])
    had = set(history_of("u3"))
    assert len(had) > 5
    new = recbole_lsti.recommend(loaded, users=["u3"], k=loaded.dataset.item_num - 1 - len(had), unseen=True)
    assert not had & set(new["item"])


def test_a_history_gets_what_a_user_with_that_history_gets(trained):
    by_user = recbole_lsti.recommend(trained, users=["u3"], k=5)
    by_history = recbole_lsti.recommend(trained, histories=[history_of("u3")], k=5)
    loaded = recbole_lsti.load(trained)
    assert recbole_lsti.recommend(loaded, users=["u3"], k=5).equals(by_user)
    assert recbole_lsti.recommend((*loaded,), users=["u3"], k=5).equals(by_user)
    assert by_history.drop(columns="user").equals(by_user.drop(columns="user"))
    assert set(by_history["user"]) == {0}
    both = recbole_lsti.recommend(trained, users=["u1", "u2"], histories=[["i1"], ["i2", "i3"]], k=2)
    assert list(both["user"].unique()) == ["u1", "u2", 0, 1]
    arrays = recbole_lsti.recommend(trained, np.array(["u1", "u2"]), np.array([["i2", "i3"]] * 2), k=2)
    assert list(arrays["user"].unique()) == ["u1", "u2", 0, 1]


def test_unknown_names(trained):
    with pytest.raises(ValueError, match=r"users \(zz, \[PAD\]\) must be users of tiny"):
        recbole_lsti.recommend(trained, users=["u1", "zz", "[PAD]"])
    table = recbole_lsti.recommend(trained, histories=[["i1", "nope", "i2", "neither"]], k=3)
    assert table.attrs["skipped"] == {0: ["nope", "neither"]}
    assert table.equals(recbole_lsti.recommend(trained, histories=[["i1", "i2"]], k=3))
    with pytest.raises(ValueError, match=r"history 0 must hold items of tiny: none of nope is"):
        recbole_lsti.recommend(trained, histories=[["nope"]])
    with pytest.raises(ValueError, match=r"history 0 must hold items of tiny: it is empty"):
        recbole_lsti.recommend(trained, histories=[[]])
    with pytest.raises(ValueError, match=r"k \(0\) must be 1 to"):
        recbole_lsti.recommend(trained, users=["u1"], k=0)
    with pytest.raises(TypeError, match=r"users \(12\) must be a list"):
        recbole_lsti.recommend(trained, users="12")
    with pytest.raises(TypeError, match=r"a history \(i1 i2\) must be a list of item ids: \['i1', 'i2'\]"):
        recbole_lsti.recommend(trained, histories=["i1 i2"])
    with pytest.raises(ValueError, match="users or histories must be given"):
        recbole_lsti.recommend(trained)


def test_the_command_prints_three_lists_side_by_side(trained, capsys):
    assert main(["recommend", trained, "--users", "u1,u2", "--history", "i1 i2 nope", "--k", "2"]) == 0
    out = capsys.readouterr().out
    table = recbole_lsti.recommend(trained, users=["u1"], k=2)
    first = table[table["rank"] == 1].set_index("list")
    line = next(line for line in out.splitlines() if line.startswith("   1"))
    assert line.split() == [
        "1",
        *(word for name in ("long", "short", "fused") for word in (first["item"][name], f"{first['score'][name]:.3f}")),
    ]
    assert "user u1, mean gate" in out
    assert "history 0, mean gate" in out
    assert "skipped, unknown: nope" in out
    assert out.count("rank") == 3
    assert main(["recommend", trained, "--users", "zz"]) == 2
    assert capsys.readouterr().err == "recbole-lsti: users (zz) must be users of tiny\n"


def test_models_without_the_parts_are_refused(tmp_path):
    write_inter(tmp_path, "tiny", random_rows())
    settings = {"data_path": str(tmp_path), "checkpoint_dir": str(tmp_path), "epochs": 1, "show_progress": False}
    other = recbole_lsti.run("GRU4Rec", "tiny", config_dict=settings)
    with pytest.raises(ValueError, match="checkpoint of GRU4Rec must be of LSTI"):
        recbole_lsti.recommend(other["checkpoint_file"], users=["u1"])


def test_single_branches_have_one_list_beside_the_fused(tmp_path):
    write_inter(tmp_path, "tiny", random_rows())
    settings = {"data_path": str(tmp_path), "checkpoint_dir": str(tmp_path), "epochs": 1, "show_progress": False}
    settings |= {"fusion": "short", "hidden_size": 8, "short_seconds": 100.0}
    only = recbole_lsti.run("LSTI", "tiny", config_dict=settings)
    table = recbole_lsti.recommend(only["checkpoint_file"], users=["u1"], k=3)
    assert list(table["list"].unique()) == ["short", "fused"]
    assert table.attrs["gate"] == {"u1": None}
    with pytest.raises(ValueError, match="history 0 must come with times: short_seconds"):
        recbole_lsti.recommend(only["checkpoint_file"], histories=[["i1"]])


def test_users_of_rows_that_are_split_already_are_given_by_histories(tmp_path):
    (tmp_path / "cut").mkdir()
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float\n"
    rows = {"train": "a\tx\ty\t2\na\tx y\tz\t3\nb\tx\tz\t2\n", "valid": "a\tx y z\tx\t4\n", "test": "b\tx z\ty\t3\n"}
    for part, text in rows.items():
        (tmp_path / "cut" / f"cut.{part}.inter").write_text(header + text, encoding="utf-8")
    settings = {"benchmark_filename": ["train", "valid", "test"], "alias_of_item_id": ["item_id_list"]}
    settings |= {"train_mode": "prefix", "load_col": {"inter": ["user_id", "item_id_list", "item_id", "timestamp"]}}
    settings |= {"hidden_size": 8, "inner_size": 16, "n_layers": 1, "epochs": 1, "show_progress": False}
    settings |= {"data_path": str(tmp_path), "checkpoint_dir": str(tmp_path / "saved"), "use_gpu": False}
    settings |= {"metrics": ["Hit"], "topk": [1], "valid_metric": "Hit@1"}
    file = recbole_lsti.run("LSTI", "cut", config_dict=settings)["checkpoint_file"]
    with pytest.raises(ValueError, match=r"users \(a\) must be given by their histories: the data are split already"):
        recbole_lsti.recommend(file, users=["a"], k=1)
    assert len(recbole_lsti.recommend(file, histories=[["x", "y"]], k=1)) == 3
