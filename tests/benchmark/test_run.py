"""Running plans: every file is there, each split, ranking and model runs, and a cell that fails is one row."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from benchmark.conftest import write_plan
from recbole_lsti.benchmark import estimate
from recbole_lsti.benchmark.cell import main as run_cell
from recbole_lsti.benchmark.environment import environment
from recbole_lsti.benchmark.execute import run_plan
from recbole_lsti.benchmark.expect import read_expected, regressions
from recbole_lsti.benchmark.options import Options
from recbole_lsti.benchmark.results import load_arrays, read_results
from recbole_lsti.benchmark.tables import summarise, write_tables
from recbole_lsti.benchmark.view import duration, outcome
from recbole_lsti.cli import main

OUTPUT = {"summary.csv", "table.md", "table.tex", "comparison.png", "comparison.svg", "report.md", "expect.yaml"}
RESOLVED = {"plan.yaml", "fingerprint.json", "environment.json", "results.jsonl", "cells"}
BROKEN = {"broken": {"model": "NARM", "train_mode": "sequence"}}  # NARM is not causal: refused when it is built


def test_a_run_writes_the_whole_folder(place, capsys, request):
    write_plan(["LSTI", BROKEN, "KSR"], controls=["Markov"], seeds=2)
    assert main(["benchmark", "plan.yaml", "--output", "out", "--jobs", "2"]) == 1, "a cell has failed"
    printed = capsys.readouterr()
    assert "Markov (control)" in printed.out
    assert "8/8" in printed.err
    out = Path("out")
    assert {path.name for path in out.iterdir()} == OUTPUT | RESOLVED
    found = read_results(out)
    assert found.broken == []
    status = {name: line["status"] for name, line in found.lines.items()}
    assert status == {
        f"{variant}-tiny-loo-{seed}": expected
        for variant, expected in (("LSTI", "ok"), ("broken", "failed"), ("KSR", "skipped"), ("Markov", "ok"))
        for seed in (2020, 2021)
    }
    failed = found.lines["broken-tiny-loo-2020"]
    assert "train_mode (sequence) must be prefix for NARM" in failed["reason"]
    assert "Traceback" in (out / "cells/broken-tiny-loo-2020/traceback.txt").read_text(encoding="utf-8")
    check_cell(out, found.lines["LSTI-tiny-loo-2020"])
    board = (out / "table.md").read_text(encoding="utf-8")
    assert "broken: 2 failed, 0 skipped: ValueError: train_mode (sequence)" in board
    assert "KSR: 0 failed, 2 skipped: needs a knowledge graph" in board
    assert (out / "table.tex").read_text(encoding="utf-8").count(r"\toprule") == 1
    assert (out / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    svg = (out / "comparison.svg").read_text(encoding="utf-8")
    assert svg.count("<!-- LSTI -->") == svg.count("<!-- Markov -->") == 1
    with open(out / "summary.csv", encoding="utf-8", newline="") as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    values = [found.lines[f"LSTI-tiny-loo-{seed}"]["unseen"]["ndcg@10"] for seed in (2020, 2021)]
    assert float(rows["LSTI"]["unseen:ndcg@10_mean"]) == pytest.approx(np.mean(values))
    assert float(rows["LSTI"]["unseen:ndcg@10_sd"]) == pytest.approx(np.std(values, ddof=1))
    assert rows["KSR"]["unseen:ndcg@10_mean"] == ""
    check_page(out, found.lines)
    request.getfixturevalue("in_process")
    check_one_after_the_other(found.lines)


def check_one_after_the_other(lines: dict[str, Any]) -> None:
    """Two processes at a time came to what one comes to that runs the cells in turn."""
    assert main(["benchmark", "plan.yaml", "--output", "alone"]) == 1
    alone = read_results("alone").lines
    assert alone.keys() == lines.keys()
    for name, line in alone.items():
        assert {**line, "cost": None} == {**lines[name], "cost": None}


def check_page(out: Path, lines: dict[str, Any]) -> None:
    page = (out / "report.md").read_text(encoding="utf-8")
    assert (out / "table.md").read_text(encoding="utf-8") in page
    tests = page.partition("## LSTI against each other row")[2].partition("##")[0]
    assert [line.split("|")[2:5] for line in tests.splitlines() if "tiny, loo" in line] == [
        [" Markov ", " 2 ", " raw "],
        [" Markov ", " 2 ", " unseen "],
    ]
    assert "recbole-lsti benchmark plan.yaml --jobs 2" in page
    assert "hidden_size: 8\n" in page.partition("<details>")[2]
    expected = read_expected(out / "expect.yaml")
    assert [(each.variant, each.metric) for each in expected] == [
        (variant, f"{ranking}.ndcg@10") for variant in ("LSTI", "Markov") for ranking in ("unseen", "raw")
    ]
    assert regressions(expected, lines.values()) == []
    worse = [each._replace(value=each.value + each.tolerance + 0.01) for each in expected]
    assert len(regressions(worse, lines.values())) == len(expected)


def check_cell(out: Path, line: dict[str, Any]) -> None:
    folder = out / "cells" / line["cell"]
    assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == line
    arrays = load_arrays(out, line["cell"])
    assert arrays is not None
    assert arrays["raw"].shape == arrays["unseen"].shape == (25, len(line["user_metrics"]))
    assert set(arrays["users"]) == {f"u{k}" for k in range(25)}
    assert all(target.startswith("i") for target in arrays["targets"])
    for ranking in ("raw", "unseen"):
        for column, metric in enumerate(line["user_metrics"]):
            assert arrays[ranking][:, column].mean() == pytest.approx(line[ranking][metric], abs=6e-5)
    cost = line["cost"]
    assert cost["epochs_run"] == cost["best_epoch"] == 1
    assert 0 < cost["seconds_to_best"] <= cost["train_seconds"]
    assert min(cost["n_parameters"], cost["peak_rss_mib"], cost["eval_users_per_second"], cost["latency_ms"]) > 0
    assert cost["energy_kwh"] is None or cost["energy_kwh"] > 0
    groups = json.loads((folder / "groups.json").read_text(encoding="utf-8"))
    assert {"history_length", "item_popularity", "new_user"} <= {group["feature"] for group in groups}
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["hidden_size"] == 8
    assert "training sequences" in (folder / "run.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("lacking", "broken"),
    [
        ("groups", "recbole_lsti.evaluation.groups.group_table"),
        ("latency_ms", "recbole_lsti.benchmark.cell._latency_ms"),
        ("user_metrics", "recbole_lsti.benchmark.cell.np.save"),
        ("energy_kwh", "recbole_lsti.benchmark.energy._started"),
    ],
)
def test_a_fault_beside_the_metrics_costs_that_alone(plan_of, meter, monkeypatch, lacking, broken):
    def fail(path: Any = None, *args: Any, **kwargs: Any) -> None:
        if lacking == "user_metrics":  # half an array, as a full disk leaves it
            Path(path).write_bytes(b"half")
        raise OSError("no space\nleft")

    plan = plan_of(["GRU4Rec"])
    (cell,) = plan.cells()
    folder = Path("out/cells") / cell.id
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(json.dumps({"head": cell.head(), "settings": cell.settings}), encoding="utf-8")
    monkeypatch.setattr(broken, fail)
    assert run_cell([str(folder)]) == 0
    line = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert (line["status"], line["reason"]) == ("ok", None)
    assert line["incomplete"] == {lacking: "OSError: no space left"}
    assert line["unseen"]["hit@10"] > 0
    assert line["cost"]["train_seconds"] > 0
    assert (line["cost"]["latency_ms"] is None) == (lacking == "latency_ms")
    assert (line["cost"]["energy_kwh"] is None) == (lacking == "energy_kwh")
    assert (folder / "groups.json").exists() == (lacking != "groups")
    assert (load_arrays("out", cell.id) is None) == (line["user_metrics"] == []) == (lacking == "user_metrics")
    assert list(folder.glob("*.npy")) == [] or lacking != "user_metrics"
    told = f"without {lacking}: OSError: no space left"
    assert outcome(line) == f"ndcg@10 {line['unseen']['ndcg@10']:.4f}, {told}"
    rows = summarise(plan, [line], Path("out"))
    write_tables(plan, rows, Path("out"))
    assert f"GRU4Rec lacks {lacking}: OSError: no space left\n" in Path("out/table.md").read_text(encoding="utf-8")
    if lacking != "energy_kwh":
        assert "no space" in (folder / "traceback.txt").read_text(encoding="utf-8")


def test_a_cell_that_needs_too_much_memory_is_ended(plan_of):
    plan = plan_of(["GRU4Rec"], budget={"epochs": 1, "memory_gib": 0.05})
    (line,) = run_plan(plan, Path("out"), Options())
    assert (line["status"], line["reason"]) == ("failed", "it needed more than memory_gib (0.05)")


@pytest.mark.parametrize("split", ["time", "ratio"])
def test_other_splits_run_and_are_those_of_the_data(plan_of, in_process, split):
    plan = plan_of(["Markov"], split=split)
    (line,) = run_plan(plan, Path("out"), Options())
    assert line["status"] == "ok", line["reason"]
    arrays = load_arrays("out", line["cell"])
    assert arrays is not None
    rows = [row.split("\t") for row in Path("dataset/tiny/tiny.inter").read_text().splitlines()[1:]]
    if split == "time":  # all that comes after one moment, whoever did it, unless it is a user's first event
        times = [float(time) for _, _, time in rows]
        later = [(user, item) for user, item, time in rows if float(time) > np.percentile(times, 91)]
        tested = set(zip(arrays["users"], arrays["targets"], strict=True))
        assert set(later) <= tested
    users, counts = np.unique(arrays["users"], return_counts=True)
    assert (len(users) < 25) == (split == "time")
    assert counts.max() > 1 or split == "ratio"


def test_sampled_negatives_are_ranked_raw_alone(plan_of, in_process):
    plan = plan_of(["GRU4Rec", "Popularity"], ranking="uni5")
    lines = run_plan(plan, Path("out"), Options())
    assert [line["status"] for line in lines] == ["ok", "ok"]
    assert all(line["unseen"] is None and line["raw"]["hit@10"] == 1.0 for line in lines), "six candidates, ten places"
    rows = summarise(plan, lines, Path("out"))
    assert rows[0]["raw:hit@10_mean"] == 1.0
    assert rows[0]["raw:ndcg@10_low"] < rows[0]["raw:ndcg@10_mean"] < rows[0]["raw:ndcg@10_high"]
    assert rows[0].get("unseen:ndcg@10_low") is None


@pytest.mark.parametrize("split", ["loo", "time"])
def test_values_of_users_are_kept_among_sampled_negatives_too(plan_of, in_process, split, capsys):
    few = {"topk": [2], "valid_metric": "NDCG@2"}
    lines = run_plan(
        plan_of(["GRU4Rec", "Popularity"], ranking="uni9", split=split, settings=few), Path("out"), Options()
    )
    for line in lines:
        assert (line["status"], line["incomplete"]) == ("ok", {})
        arrays = load_arrays("out", line["cell"])
        assert arrays is not None
        assert np.isnan(arrays["unseen"]).all()
        assert 0 < line["raw"]["ndcg@2"] < 1
        for column, metric in enumerate(line["user_metrics"]):
            assert arrays["raw"][:, column].mean() == pytest.approx(line["raw"][metric], abs=6e-5)
        assert len(set(arrays["users"])) == len(arrays["users"]), "a row is a user"
        assert not Path("out/cells", line["cell"], "groups.json").exists()
    events = Path("dataset/tiny/tiny.inter").read_text(encoding="utf-8").splitlines()[1:]
    had = {tuple(event.split("\t")[:2]) for event in events}
    assert set(zip(arrays["users"], arrays["targets"], strict=True)) <= had
    capsys.readouterr()
    assert main(["compare", "out", "--baseline", "Popularity"]) == 0
    told = capsys.readouterr().out
    assert f"{len(arrays['users'])} users" in told
    assert "unseen (" not in told
    run_plan(plan_of(["Popularity"], split=split, settings=few), Path("whole"), Options())
    assert main(["compare", "out", "whole", "--baseline", "Popularity"]) == 2
    assert "(ranking uni9) and Popularity (B) (full) must be ranked among the same items" in capsys.readouterr().err


def test_a_model_of_two_stages_does_both(plan_of, in_process, place):
    lines = ["item_id:token\tgenre:token_seq"] + [f"i{k}\tg{k % 3} g{k % 4}" for k in range(30)]
    (place / "dataset/tiny/tiny.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (line,) = run_plan(plan_of(["S3Rec"]), Path("out"), Options())
    assert line["status"] == "ok", line["reason"]
    config = yaml.safe_load(Path("out/cells", line["cell"], "config.yaml").read_text(encoding="utf-8"))
    assert config["load_col"]["item"] == ["item_id", "genre"]
    assert config["train_stage"] == "finetune"
    with open(Path("out/cells", line["cell"], "learning_curve.csv"), encoding="utf-8") as file:
        last = float(list(csv.DictReader(file))[-1]["seconds"])  # of the second stage alone
    assert line["cost"]["seconds_to_best"] > last, "both stages are paid for"
    assert config["pre_model_path"].endswith("pretrained.pth")
    assert list(Path("out").rglob("*.pth")) == [], "no checkpoint is kept"
    assert line["valid"] is not None


@pytest.mark.slow
def test_every_model_runs_or_says_why_not(plan_of, in_process, place):
    lines = ["item_id:token\tgenre:token_seq"] + [f"i{k}\tg{k % 3} g{k % 4}" for k in range(30)]
    (place / "dataset/tiny/tiny.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    few = {
        "n_layers": 2,
        "reranker_CAN_NUM": 10,
    }  # FEARec divides by n_layers - 1; RecBole's 100 are more than the items
    lines = run_plan(plan_of("all", settings=few), Path("out"), Options())
    assert {line["variant"] for line in lines if line["status"] == "skipped"} == {"GRU4RecKG", "KSR"}
    assert [line["reason"] for line in lines if line["status"] == "failed"] == []


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models", "LSTY"], "did you mean LSTI?"),
        (["nothere.yaml"], "plan (nothere.yaml) must be a YAML file or one of"),
        ([], "a plan must be given, --models, or --resume with --output"),
        (["--resume", "--output", "nothere"], "output (nothere) must be a results folder with plan.yaml"),
        (["--models", "Markov", "--datasets", "tiny", "--executor", "spark"], "executor (spark) must be one of"),
        (["--models", "Markov", "--scheduler", "tcp://x:1"], "scheduler (tcp://x:1) must go with --executor dask"),
        (["--models", "Markov", "--jobs", "0"], "jobs (0) must be 1 or more"),
        (["--models", "Markov", "--retries", "-1"], "retries (-1) must be 0 or more"),
        (["--models", "Markov", "--seeds", ""], "seeds ([]) must be how many (1 or more) or a list of whole numbers"),
        (["--models", "Markov", "--set", "epochs"], "set (epochs) must be KEY=VALUE"),
        (["--models", "Markov", "--datasets", "tiny", "--output", "dataset/tiny/tiny.inter"], "must be a folder"),
        (["--models", "Markov", "--expect", "none.yaml"], "config file (none.yaml) must exist"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(place, capsys, flags, message):
    assert main(["benchmark", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert {path.name for path in place.iterdir()} == {"dataset"}


def test_a_dry_run_shows_configs_and_costs_and_writes_nothing(place, in_process, capsys):
    write_plan(["GRU4Rec", BROKEN, "KSR"], seeds=3)
    assert main(["benchmark", "plan.yaml", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "# GRU4Rec on tiny, loo, seeds 2020, 2021, 2022" in out
    assert "\nhidden_size: 8\n" in out
    assert "# cannot run: needs a knowledge graph" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if " tiny loo " in line}
    assert rows["GRU4Rec"][3] == "3"
    assert all(float(seconds) >= 0 for seconds in rows["GRU4Rec"][4:7])
    assert 100 < float(rows["GRU4Rec"][7]) < 10_000, "MiB"
    assert "would fail: ValueError: train_mode (sequence)" in out
    assert "9 cells, at most about" in out
    assert {path.name for path in place.iterdir()} == {"dataset", "plan.yaml"}


@pytest.mark.parametrize(
    ("budget", "starts"),
    [
        ({}, 3),
        ({"trials": 10}, 4),  # one process searches
        ({"trials": 10, "memory_gib": 8}, 14),  # and each trial has one, so that it can be ended alone
    ],
)
def test_a_dry_run_counts_the_start_of_each_process(plan_of, monkeypatch, budget, starts):
    """A process of 9 s that was at work for 2 of them takes 7 to start; each training is estimated at 100 s."""
    now = [0.0]
    timed = {"timed_seconds": 2.0, "seconds": 100.0, "epoch_seconds": 1.0, "rank_seconds": 1.0}

    def timed_process(*args: Any, **more: Any) -> dict[str, Any]:
        now[0] += 9.0
        return {**timed, "peak_rss_mib": 500, "n_parameters": 1000}

    monkeypatch.setattr(estimate, "run_process", timed_process)
    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    space = {"space": {"learning_rate": [0.1]}} if "trials" in budget else {}
    plan = plan_of(["GRU4Rec"], seeds=3, budget={"epochs": 1, **budget}, **space)
    *_, row, last = estimate.dry_run(plan, 1)
    assert row.split()[3:6] == ["3", "7.0", "1.0"]
    seconds = 100 * (3 + budget.get("trials", 0)) + 7 * starts
    assert f"3 cells, at most about {duration(seconds)}, 1 at a time, with the start of each process" in last


def test_a_setting_that_no_model_of_the_plan_reads_is_told(place, in_process, capsys):
    write_plan(["Markov"], settings={"use_gpu": False, "n_heads": 2})
    assert main(["benchmark", "plan.yaml", "--output", "out"]) == 0
    told = "recbole-lsti: settings: n_heads is read by no model of the plan"
    assert [line for line in capsys.readouterr().err.splitlines() if "settings" in line] == [told]
    write_plan(["Markov"], settings={"use_gpu": False, "kernel_size": 3, "n_heads": 2})
    assert main(["benchmark", "plan.yaml", "--dry-run"]) == 0
    assert "settings: kernel_size, n_heads are read by no model of the plan\n" in capsys.readouterr().err
    write_plan(["Markov", "LSTI"], settings={"use_gpu": False, "n_heads": 2})
    assert main(["benchmark", "plan.yaml", "--dry-run"]) == 0
    assert "no model of the plan" not in capsys.readouterr().err
    write_plan(["Markov"], settings={"use_gpu": False, "n_heeds": 2})
    assert main(["benchmark", "plan.yaml", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "config key (n_heeds) must be one that is read (did you mean n_heads?)" in error
    assert error.count("\n") == 1, "a misspelt one is refused"


@pytest.mark.parametrize("own", [{}, {"ranking": "pop5"}], ids=str)
def test_the_ranking_of_a_flag_wins_over_the_plan_s(place, in_process, capsys, own):
    write_plan(["Markov"], **own)
    assert main(["benchmark", "plan.yaml", "--dry-run", "--ranking", "uni7"]) == 0
    out = capsys.readouterr().out
    assert "mode: uni7\n" in out
    assert "pop5" not in out


def test_the_environment_is_told():
    here = environment()
    assert here["versions"]["recbole"] == "1.2.1"
    assert here["cores"] >= 1
    assert here["cpu"]
