"""recbole-lsti compare, end to end: results folders, checkpoints, lists of other systems, and what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import SMALL, random_rows, write_inter

import recbole_lsti
from recbole_lsti.benchmark.compare import Options, compare
from recbole_lsti.benchmark.sides import open_sides, split_of
from recbole_lsti.cli import main
from recbole_lsti.config import LSTIConfig, plain_config
from recbole_lsti.evaluation.significance import holm, paired

METRICS = ["ndcg@10", "hit@10"]


def write_cell(folder: Path, variant: str, dataset: str, seed: int, users, targets, raw, unseen, **line) -> None:
    """A cell of a results folder, and its line."""
    cell = {"cell": f"{variant}-{dataset}-loo-{seed}", "variant": variant, "model": variant, "dataset": dataset}
    cell |= {"split": "loo", "seed": seed, "status": "ok", "reason": None, "user_metrics": METRICS, **line}
    there = folder / "cells" / cell["cell"]
    there.mkdir(parents=True, exist_ok=True)
    for name, values in (("users", users), ("targets", targets), ("raw", raw), ("unseen", unseen)):
        np.save(there / f"{name}.npy", values)
    with open(folder / "results.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(cell) + "\n")


def write_folder(folder: Path, gains: dict[str, float], datasets=("first",), seeds=(1, 2), n_users: int = 60) -> Path:
    """A results folder whose variants are as good as `gains` says; rows stand in another order for each seed."""
    for number, dataset in enumerate(datasets):
        base = np.random.default_rng(number).random((n_users, 2)) * 0.5
        for place, (variant, gain) in enumerate(gains.items()):
            for seed in seeds:
                random = np.random.default_rng([number, seed, place])
                order = random.permutation(n_users)
                values = base + gain + random.normal(0, 0.02, base.shape)
                users = np.array([f"u{n}" for n in range(n_users)])
                targets = np.array([f"i{n % 7}" for n in range(n_users)])
                write_cell(
                    folder, variant, dataset, seed, users[order], targets[order], values[order], values[order] / 2
                )
    return folder


# ---- results folders ----------------------------------------------------------------------------------------------


def test_variants_of_one_folder_against_a_baseline(tmp_path, capsys):
    folder = write_folder(tmp_path / "board", {"Good": 0.1, "Same": 0.0, "Base": 0.0, "Bad": -0.1})
    assert main(["compare", str(folder), "--baseline", "Base", "--output", str(tmp_path / "o.csv")]) == 0
    printed = capsys.readouterr().out
    with open(tmp_path / "o.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    verdicts = {(row["a"], row["ranking"], row["metric"]): row["verdict"] for row in rows}
    assert len(rows) == len(verdicts) == 3 * 2 * 2
    for ranking in ("raw", "unseen"):
        for metric in METRICS:
            assert verdicts["Good", ranking, metric] == "Good better"
            assert verdicts["Bad", ranking, metric] == "Base better"
            assert verdicts["Same", ranking, metric] == "not told apart"
    assert "first, loo: A = Good, 2 seeds; B = Base, 2 seeds; 60 users" in printed
    assert "corrected for 12 comparisons" in printed
    assert printed.count("Good better") == 4


def test_numbers_equal_those_of_the_arrays(tmp_path):
    folder = write_folder(tmp_path / "board", {"A": 0.03, "B": 0.0})
    (side,) = open_sides([str(folder)])
    raw, row = compare(side, None, Options(baseline=["B"], metrics=["hit@10"])).rows
    assert (raw["ranking"], row["ranking"]) == ("raw", "unseen")
    by_user: dict[str, list[np.ndarray]] = {"A": [], "B": []}
    for variant, seeds in by_user.items():
        for seed in (1, 2):
            there = folder / "cells" / f"{variant}-first-loo-{seed}"
            users = np.load(there / "users.npy").tolist()
            values = np.load(there / "unseen.npy")[:, 1]
            seeds.append(np.array([values[users.index(f"u{n}")] for n in range(60)]))
    a, b = (np.mean(by_user[variant], axis=0) for variant in "AB")
    (expected,) = paired(a[:, None], b[:, None])
    assert row["difference"] == pytest.approx((a - b).mean())
    assert row["p_wilcoxon"] == pytest.approx(expected.p_wilcoxon)
    assert row["p_t"] == pytest.approx(expected.p_t)
    assert row["a_mean"] == pytest.approx(a.mean())
    assert row["a_std"] == pytest.approx(np.std([seed.mean() for seed in by_user["A"]], ddof=1))
    for name in ("p_wilcoxon", "p_t"):
        assert row[f"{name}_holm"] == pytest.approx(holm([raw[name], row[name]])[1])
        assert row[f"{name}_holm"] >= row[name]


def test_namesakes_of_two_folders(tmp_path, capsys):
    new = write_folder(tmp_path / "new", {"LSTI": 0.1, "Markov": 0.0})
    old = write_folder(tmp_path / "old", {"LSTI": 0.0, "SASRec": 0.0}, seeds=(1,))
    assert main(["compare", str(new), str(old), "--metrics", "ndcg@10"]) == 0
    printed = capsys.readouterr().out
    assert "A = LSTI (A), 2 seeds; B = LSTI (B), 1 seed" in printed
    assert printed.count("LSTI (A) better") == 2
    assert "SASRec" not in printed
    assert main(["compare", str(new), str(old), "--baseline", "SASRec", "--metrics", "ndcg@10"]) == 0
    printed = capsys.readouterr().out
    assert "A = LSTI, 2 seeds; B = SASRec, 1 seed" in printed
    assert "A = Markov, 2 seeds; B = SASRec, 1 seed" in printed


def test_ranks_over_data_sets(tmp_path, capsys):
    folder = write_folder(
        tmp_path / "board", {"Top": 0.2, "Middle": 0.1, "Base": 0.0}, ("d1", "d2", "d3", "d4"), seeds=(1,)
    )
    command = [
        "compare",
        str(folder),
        "--baseline",
        "Base",
        "--metrics",
        "ndcg@10",
        "--output",
        str(tmp_path / "o.json"),
    ]
    assert main(command) == 0
    line = "mean ranks over 4 data sets, loo, raw ndcg@10: Top 1.00, Middle 2.00, Base 3.00; critical difference 1.66"
    assert line in capsys.readouterr().out
    content = json.loads((tmp_path / "o.json").read_text())
    assert content["ranks"][0]["mean_rank"] == {"Top": 1.0, "Base": 3.0, "Middle": 2.0}
    assert content["ranks"][0]["p_friedman"] == pytest.approx(0.0183, abs=1e-4)
    assert content["rows"][0]["a_std"] is None  # one seed has none


def test_ranks_count_a_variant_of_either_side_once(tmp_path):
    new = write_folder(tmp_path / "new", {"Top": 0.3, "Base": 0.1}, ("d1", "d2"), seeds=(1,))
    old = write_folder(tmp_path / "old", {"Base": 0.2, "Low": 0.0}, ("d1", "d2"), seeds=(1,))
    found = compare(*open_sides([str(new), str(old)]), Options(["Base", "Low"], ["ndcg@10"]))
    ranks = found.ranks["loo", "raw", "ndcg@10"]
    place = dict(zip(ranks.variants, ranks.mean_rank.tolist(), strict=True))
    assert place == {"Top": 1.0, "Base (B)": 2.0, "Base (A)": 3.0, "Low": 4.0}
    assert len(found.rows) == 2 * 2 * 2 * 2, "two variants, two baselines, two data sets, two rankings"


def test_rows_of_one_user_are_one_draw_in_other_splits(tmp_path):
    users = np.repeat([f"u{n}" for n in range(12)], np.arange(1, 13))
    targets = np.array([f"i{n}" for n in range(len(users))])
    random = np.random.default_rng(0)
    for variant in "AB":
        values = random.random((len(users), 2))
        write_cell(tmp_path, variant, "d", 1, users, targets, values, values)
    (side,) = open_sides([str(tmp_path)])
    row = compare(side, None, Options(baseline=["B"])).rows[0]
    assert (row["test_rows"], row["users"]) == (78, 12)
    a = np.load(tmp_path / "cells" / "A-d-loo-1" / "raw.npy")[:, 0]
    assert row["a_row_mean"] == pytest.approx(a.mean())
    assert row["a_mean"] == pytest.approx(np.mean([a[users == user].mean() for user in np.unique(users)]))


def test_lines_that_cannot_be_used_are_told(tmp_path, capsys):
    folder = write_folder(tmp_path / "board", {"A": 0.1, "B": 0.0}, seeds=(1,))
    with open(folder / "results.jsonl", "a", encoding="utf-8") as file:
        file.write('{"cell": "A-first\n[1]\n{"cell": "x"}\n\n')
        file.write(
            json.dumps(
                {
                    "cell": "C-first-loo-1",
                    "variant": "C",
                    "dataset": "first",
                    "split": "loo",
                    "seed": 1,
                    "status": "failed",
                }
            )
        )
    assert main(["compare", str(folder), "--baseline", "B"]) == 0
    printed = capsys.readouterr().out
    assert f"note: {folder / 'results.jsonl'}: 3 broken lines skipped" in printed
    assert f"note: {folder}: without a result: C-first-loo-1 (failed)" in printed


def test_a_cell_without_values_of_rows_is_left_out_alone(tmp_path, capsys):
    folder = write_folder(tmp_path / "board", {"A": 0.1, "B": 0.0}, seeds=(1,))
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    bare = {**lines[0], "cell": "C-first-loo-1", "variant": "C", "incomplete": {"user_metrics": "OSError: no space"}}
    with open(folder / "results.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(bare) + "\n")
    assert main(["compare", str(folder), "--baseline", "B"]) == 0
    assert f"note: {folder}: without values of test rows: C-first-loo-1" in capsys.readouterr().out


def refused(capsys, *arguments: object) -> str:
    assert main(["compare", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_mistakes_are_one_line(tmp_path, capsys):
    board = write_folder(tmp_path / "board", {"LSTI": 0.1, "SASRec": 0.0}, seeds=(1,))
    other = write_folder(tmp_path / "other", {"GRU4Rec": 0.0}, ("second",))
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("user,item,rank\na,x,1\n")
    (tmp_path / "notes.md").write_text("")
    assert "--baseline must name one of LSTI, SASRec, where there is no second side" in refused(capsys, board)
    assert "baseline (SASrec) must be one of LSTI, SASRec (did you mean SASRec?)" in refused(
        capsys, board, "--baseline", "SASrec"
    )
    assert "metrics (ndgc@10) must be one of ndcg@10, hit@10 (did you mean ndcg@10?)" in refused(
        capsys, board, "--baseline", "SASRec", "--metrics", "ndgc@10"
    )
    assert "(first loo) and" in refused(capsys, board, other, "--baseline", "GRU4Rec")
    assert "no variant of both sides has one name" in refused(
        capsys, board, write_folder(tmp_path / "third", {"Markov": 0.0})
    )
    assert "must exist" in refused(capsys, tmp_path / "nowhere", board)
    assert "must be a folder with results.jsonl or checkpoint.pth" in refused(capsys, tmp_path / "empty", board)
    assert "must be a folder with results.jsonl or checkpoint.pth" in refused(capsys, tmp_path / "notes.md", board)
    assert "--dataset must name the data set" in refused(capsys, tmp_path / "list.csv", tmp_path / "list.csv")
    assert "output (o.txt) must end in .csv or .json" in refused(capsys, board, "--output", "o.txt")
    assert "alpha (2.0) must be between 0 and 1" in refused(capsys, board, "--baseline", "LSTI", "--alpha", "2")
    assert "resamples (0) must be 1 or more" in refused(capsys, board, "--baseline", "LSTI", "--resamples", "0")
    assert "dataset (frist) must be one of first (did you mean first?)" in refused(
        capsys, board, "--baseline", "LSTI", "--dataset", "frist"
    )
    needs_lists = "config_files (none.yaml) must go with recommendation files alone: any other side has a split and"
    for paths in ([board], [board, tmp_path / "list.csv"]):
        assert needs_lists in refused(capsys, *paths, "--baseline", "LSTI", "--config_files", "none.yaml")
    assert "split (time) must go with a results folder" in refused(
        capsys, tmp_path / "list.csv", tmp_path / "list.csv", "--split", "time"
    )
    (board / "cells" / "LSTI-first-loo-1" / "raw.npy").unlink()
    assert "must hold raw.npy" in refused(capsys, board, "--baseline", "SASRec")


def test_other_rows_cannot_be_paired(tmp_path, capsys):
    a = write_folder(tmp_path / "a", {"LSTI": 0.1}, seeds=(1,))
    b = write_folder(tmp_path / "b", {"LSTI": 0.1}, seeds=(1,), n_users=59)
    assert "LSTI (A) (60 test rows) and LSTI (B) (59) must be evaluated on the same rows; 1 pairs" in refused(
        capsys, a, b
    )
    write_folder(tmp_path / "a", {"LSTI": 0.1}, seeds=(2,), n_users=58)
    assert "seed 2 of LSTI must have the rows and metrics of the others" in refused(capsys, a, b)


# ---- checkpoints and lists ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Path]:
    """Two tiny checkpoints of one data set, and the folder of it all."""
    folder = tmp_path_factory.mktemp("trained")
    write_inter(folder, "tiny", random_rows(n_users=40, seed=9, shortest=4))
    settings = {"data_path": str(folder), "checkpoint_dir": str(folder / "saved"), "use_gpu": False, "epochs": 1}
    settings |= {"show_progress": False, "metrics": ["NDCG", "Hit"], "topk": [10], "seed": 3}
    there = {"folder": folder}
    for model, own in (("LSTI", SMALL), ("GRU4Rec", {"hidden_size": 8, "embedding_size": 8})):
        result = recbole_lsti.run(model, "tiny", config_dict={**own, **settings})
        there[model] = Path(result["checkpoint_file"])
    return there


def test_two_checkpoints(trained, tmp_path, capsys):
    assert (
        main(["compare", str(trained["LSTI"]), str(trained["GRU4Rec"].parent), "--output", str(tmp_path / "o.json")])
        == 0
    )
    assert "tiny, loo: A = LSTI, 1 seed; B = GRU4Rec, 1 seed; 40 users" in capsys.readouterr().out
    rows = json.loads((tmp_path / "o.json").read_text())["rows"]
    for side, model in (("a", "LSTI"), ("b", "GRU4Rec")):
        result = json.loads((trained[model].parent / "metrics.json").read_text())
        for row in rows:
            expected = result["test_result" if row["ranking"] == "raw" else "test_result_unseen"]
            assert row[f"{side}_mean"] == pytest.approx(expected[row["metric"]], abs=6e-5)


def test_what_checkpoints_have_of_their_own_is_not_chosen(tmp_path, capsys):
    a, b, lists = tmp_path / "a.pth", tmp_path / "b" / "checkpoint.pth", tmp_path / "list.csv"
    b.parent.mkdir()
    for path in (a, b, lists):
        path.touch()  # what is refused is not even read
    for sides in ([a, b.parent], [a, lists]):
        told = "dataset (tiny) must go with a results folder or with recommendation files alone"
        assert told in refused(capsys, *sides, "--dataset", "tiny")
        assert "split (loo) must go with a results folder" in refused(capsys, *sides, "--split", "loo")
        assert "config_files (a.yaml b.yaml) must go with recommendation files alone" in refused(
            capsys, *sides, "--config_files", "a.yaml b.yaml"
        )


def test_a_checkpoint_against_its_own_list(trained, tmp_path, capsys):
    """Every item in the model's order: the list is as good as the model, user by user."""
    _, model, dataset, _, _, test_data = recbole_lsti.load(trained["LSTI"])
    lines = ["user,item,rank"]
    for interaction, _, _, _ in test_data:
        with torch.no_grad():
            order = model.full_sort_predict(interaction)[:, 1:].argsort(descending=True, stable=True) + 1
        for user, items in zip(interaction["user_id"], order, strict=True):
            tokens = dataset.id2token("item_id", items.numpy())
            lines += [f"{dataset.id2token('user_id', int(user))},{item},{n}" for n, item in enumerate(tokens, 1)]
    (tmp_path / "own.csv").write_text("\n".join(lines))
    assert main(["compare", str(trained["LSTI"]), str(tmp_path / "own.csv"), "--output", str(tmp_path / "o.json")]) == 0
    rows = json.loads((tmp_path / "o.json").read_text())["rows"]
    assert len(rows) == 4
    assert all(row["difference"] == pytest.approx(0, abs=1e-12) and row["a_mean"] > 0 for row in rows)
    assert all(row["verdict"] == "not told apart" and row["p_wilcoxon"] == 1 for row in rows)
    assert "note" not in capsys.readouterr().out


def test_a_list_of_the_targets_beats_a_checkpoint(trained, tmp_path, capsys, monkeypatch):
    _, _, dataset, _, _, test_data = recbole_lsti.load(trained["LSTI"])
    rows = test_data._dataset.inter_feat
    lines = ["user,item,rank"]
    for user, item in zip(rows["user_id"].tolist(), rows["item_id"].tolist(), strict=True):
        lines.append(f"{dataset.id2token('user_id', user)},{dataset.id2token('item_id', item)},1")
    (tmp_path / "oracle.csv").write_text("\n".join(lines))
    assert main(["compare", str(tmp_path / "oracle.csv"), str(trained["LSTI"])]) == 0
    assert capsys.readouterr().out.count("oracle better") == 4
    # and without a checkpoint, by a data set's name
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"data_path": str(trained["folder"]), "metrics": ["Hit"], "topk": [3], "valid_metric": "Hit@3"})
    )
    (tmp_path / "half.csv").write_text("\n".join(lines[: len(lines) // 2]))
    judged_by = ["--dataset", "tiny", "--config_files", str(tmp_path / "mine.yaml")]
    assert main(["compare", str(tmp_path / "oracle.csv"), str(tmp_path / "half.csv"), *judged_by]) == 0
    printed = capsys.readouterr().out
    assert "hit@3                        1.0000" in printed
    assert "tested users have no list and count as 0" in printed


def test_a_list_against_a_results_folder(trained, tmp_path, capsys):
    config, *_, test_data = recbole_lsti.load(trained["LSTI"])
    dataset = test_data._dataset
    users = np.asarray(dataset.id2token("user_id", dataset.inter_feat["user_id"].numpy())).astype(str)
    targets = np.asarray(dataset.id2token("item_id", dataset.inter_feat["item_id"].numpy())).astype(str)
    values = np.zeros((len(users), 2))
    write_cell(tmp_path / "board", "LSTI", "tiny", 3, users, targets, values, values)
    settings = yaml.safe_dump(plain_config(config))
    (tmp_path / "board" / "cells" / "LSTI-tiny-loo-3" / "config.yaml").write_text(settings)
    lines = ["user,item,rank", *(f"{user},{item},1" for user, item in zip(users, targets, strict=True))]
    (tmp_path / "oracle.csv").write_text("\n".join(lines))
    assert main(["compare", str(tmp_path / "board"), str(tmp_path / "oracle.csv")]) == 0
    assert capsys.readouterr().out.count("oracle better") == 4
    write_folder(tmp_path / "board", {"LSTI": 0.0})
    message = "--dataset and --split must pick one of first loo, tiny loo, to judge a recommendation file by"
    assert message in refused(capsys, tmp_path / "board", tmp_path / "oracle.csv")


def test_the_name_of_a_split():
    for split, group_by, name in (
        ("LS", "user", "loo"),
        ("RS", "user", "ratio"),
        ("RS", None, "time"),
        ("TS", "user", "time"),
    ):
        value = "valid_and_test" if split == "LS" else [0.8, 0.1, 0.1]
        config = LSTIConfig(
            "LSTI", "ml-100k", config_dict={"eval_args": {"split": {split: value}, "group_by": group_by}}
        )
        assert split_of(config) == name


def test_nan_is_no_number(tmp_path):
    users, targets = np.array(["a", "b", "c"]), np.array(["x", "y", "z"])
    for variant, hole in (("A", 0), ("B", 1)):
        values = np.random.default_rng(hole).random((3, 2))
        values[hole, 0] = math.nan
        write_cell(tmp_path, variant, "d", 1, users, targets, values, values)
    (side,) = open_sides([str(tmp_path)])
    rows = compare(side, None, Options(baseline=["B"])).rows
    assert [row["users"] for row in rows] == [1, 3, 1, 3]
    assert math.isnan(rows[0]["p_t"])
    assert rows[0]["verdict"] == "not told apart"
