"""The programs behind the printed numbers run, and print what they promise."""

from __future__ import annotations

import importlib
import io
import json
import math
import mmap
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from recbole_lsti import cli
from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is part of a checkout alone")


def run(name: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a program, and the processes it starts for its rows, in the test's own process: without an import each."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    start = subprocess.run

    def printed(main: Any, arguments: list[str]) -> str:
        with monkeypatch.context() as patch, redirect_stdout(io.StringIO()) as out:
            patch.setattr(sys, "argv", ["program", *arguments])
            main()
        return out.getvalue()

    def run_program(name: str, *arguments: object) -> str:
        module = importlib.import_module(name)

        def row(command: list[str], **options: Any) -> Any:
            if command[:2] == [sys.executable, module.__file__]:
                return SimpleNamespace(stdout=printed(module.main, command[2:]))
            if command[:4] == [sys.executable, "-m", "recbole_lsti.cli", "train"]:
                return SimpleNamespace(stdout=printed(cli.main, command[3:]))
            return start(command, **options)

        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "run", row)
            return printed(module.main, [str(argument) for argument in arguments])

    return run_program


# ---- prepare.py ---------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def publishers(tmp_path: Path) -> Path:
    """Two of the publishers' folders, in small: a table with titles, and a log with a cut line."""
    rows = [f"u{user}\ti{user * step % 5}\t{1_300_000_000 - step}" for user in range(1, 7) for step in range(1, 7)]
    write(tmp_path / "tables/steam/interactions.tsv", "user_id\titem_id\ttimestamp\n" + "\n".join(rows) + "\n")
    write(tmp_path / "tables/steam/items.tsv", "item_id\ttitle\ni1\tThe First\n")
    events = [f"1,{item},7,pv,1511539300" for item in range(200)]
    write(tmp_path / "raw/taobao/UserBehavior.csv", "\n".join([*events, "1,2,7,pv,1511539999", "1,2,7"]) + "\n")
    return tmp_path


def test_prepare_writes_what_recbole_reads_and_tells_what_is_left_aside(publishers, tmp_path):
    done = run("prepare.py", "--data", publishers, "--output", tmp_path / "root", "steam", "taobao")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["users", "items", "rows", "seconds"]
    assert lines[1][:4] == ["steam", "6", "5", "36"]
    assert lines[2][:4] == ["taobao", "1", "200", "201"]
    assert done.stdout.rstrip().endswith("in taobao.rejects.tsv: 1 (3 columns where there must be 5)")
    dataset = create_dataset(LSTIConfig("LSTI", "steam", config_dict={"data_path": str(tmp_path / "root")}))
    assert len(dataset.inter_feat) == 36
    assert (tmp_path / "root/steam/steam.item").read_text(encoding="utf-8").splitlines()[1] == "i1\tThe First"


def test_prepare_tells_mistakes_in_one_line(publishers, tmp_path):
    root = tmp_path / "root"
    assert "NAME (steem) must be one of ml-1m" in run("prepare.py", "--data", publishers, "steem", code=2).stderr
    done = run("prepare.py", "--data", publishers, "--output", root, "ml-1m", code=2)
    assert done.stderr.startswith("prepare: data set ml-1m must find one of ratings.dat")
    run("prepare.py", "--data", publishers, "--output", root, "steam")
    again = run("prepare.py", "--data", publishers, "--output", root, "steam", code=2)
    assert "--overwrite replaces it" in again.stderr
    run("prepare.py", "--data", publishers, "--output", root, "steam", "--overwrite")


@pytest.mark.slow
def test_prepare_makes_the_six_data_sets(tmp_path):
    if "LSTI_DATA" not in os.environ:
        pytest.skip("LSTI_DATA is unset: it names the folder of the publishers' files")
    done = run("prepare.py", "--output", tmp_path)
    kept = {}
    for line in done.stdout.splitlines()[1:]:
        name = line.split()[0]
        found = create_dataset(LSTIConfig("LSTI", name, config_dict={"data_path": str(tmp_path)})).inter_feat
        kept[name] = (found["user_id"].nunique(), found["item_id"].nunique(), len(found))
    assert kept == {
        "ml-1m": (6_040, 3_416, 999_611),
        "amazon-beauty": (22_363, 12_101, 198_502),
        "steam": (10_369, 3_593, 126_824),
        "yoochoose-buys": (43_107, 4_659, 292_230),
        "30music": (12_285, 9_968, 336_285),
        "taobao": (774, 14_421, 43_435),
    }
    assert "35 (impossible timestamp), 1 (4 columns where there must be 5)" in done.stdout


# ---- time_to_quality.py -------------------------------------------------------------------------------------------

TINY = ("--hidden_size=8", "--inner_size=16", "--n_layers=1", "--train_batch_tokens=256", "--use_gpu=False")


def curve(*points: tuple[float, float]) -> list[dict[str, float]]:
    return [{"epoch": epoch, "seconds": at, "valid_score": score} for epoch, (at, score) in enumerate(points)]


@pytest.fixture
def time_to_quality(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("time_to_quality")


def test_the_mark_is_each_seed_s_own_and_the_first_time_counts(time_to_quality):
    curves = {
        "SASRec, prefix": [curve((100, 0.1), (200, 0.3), (300, 0.2)), curve((100, 0.2), (200, 0.1), (300, 0.5))],
        "SASRec, sequence": [curve((10, 0.2), (20, 0.2)), curve((10, 0.1), (20, 0.2))],
        "LSTI": [curve((5, 0.1), (10, 0.3), (15, 0.2), (20, 0.4)), curve((5, 0.5), (10, 0.4))],
    }
    table = time_to_quality.summary(curves)
    prefix, sequence, lsti = (table[side] for side in curves)
    assert (prefix["seconds_to_mark"], prefix["times_sooner"], prefix["best"]) == (250, 1.0, 0.4)
    assert (sequence["seconds_to_mark"], sequence["times_sooner"], sequence["reached"]) == (None, None, 0)
    assert (lsti["seconds_to_mark"], lsti["times_sooner"], lsti["reached"]) == (7.5, 250 / 7.5, 2)
    assert (lsti["epochs_to_mark"], lsti["seconds_to_best"], lsti["seconds_an_epoch"]) == ([2, 1], 12.5, 5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--seed=7",), "seed (7) must be left to --seeds, which says how many, from 2020 on"),
        (
            ("--side", "LSTI", "--seed", "2020", "--eval_step=0"),
            "eval_step (0) must be from 1 to epochs (2): LSTI has no validation else",
        ),
        (
            ("--side", "LSTI", "--seed", "2020", "--eval_args={'split': {'LS': 'test_only'}}"),
            "LSTI, seed 2020 must be validated once at least: eval_args must leave validation items, and minutes (60)",
        ),
    ],
)
def test_time_to_quality_tells_mistakes_in_one_line(time_to_quality, tiny, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tiny)
    (tiny / "lsti.yaml").write_text("epochs: 2\nshort_window: 4\n", encoding="utf-8")
    common = ("--dataset", "tiny", f"--data_path={tiny}", "--lsti-config", "lsti.yaml", *TINY)
    monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / "time_to_quality.py"), *common, *flags])
    assert time_to_quality.main() == 2
    error = capsys.readouterr().err
    assert error.startswith(f"time_to_quality: {message}")
    assert error.count("\n") == 1


def test_time_to_quality_ends_with_a_training_that_cannot_be_measured(time_to_quality, tiny, monkeypatch, capfd):
    common = ["--dataset", "tiny", f"--data_path={tiny}", "--eval_step=0"]
    monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / "time_to_quality.py"), *common])
    assert time_to_quality.main() == 2
    told = "time_to_quality: eval_step (0) must be from 1 to epochs (300): SASRec, prefix has no validation else\n"
    assert capfd.readouterr().err == told


@pytest.mark.slow
def test_time_to_quality_trains_every_side_in_turn(tiny, tmp_path):
    (tmp_path / "lsti.yaml").write_text("epochs: 3\nshort_window: 4\n", encoding="utf-8")
    out = tmp_path / "out.json"
    flags = ["--dataset", "tiny", f"--data_path={tiny}", "--epochs", 2, "--lsti-config", tmp_path / "lsti.yaml"]
    done = run("time_to_quality.py", *flags, *TINY, "--output", out)
    record = json.loads(out.read_text(encoding="utf-8"))
    assert {side: [len(each) for each in curves] for side, curves in record["curves"].items()} == {
        "SASRec, prefix": [2],
        "SASRec, sequence": [2],
        "LSTI": [3],
    }
    assert record["table"]["SASRec, prefix"]["reached"] == 1
    assert record["table"]["SASRec, prefix"]["times_sooner"] == 1.0
    assert record["machine"]
    rows = [line for line in done.stdout.splitlines() if line.startswith(("SASRec", "LSTI"))]
    assert len(rows) == 3
    assert "up to an epoch later" in done.stdout


# ---- accuracy.py --------------------------------------------------------------------------------------------------


def test_accuracy_gives_mean_and_deviation_over_the_seeds(run_here, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [f"--data_path={tiny}", "--epochs=1", "--short_window=4", "--show_progress=False", *TINY]
    out = run_here("accuracy", "--dataset", "tiny", "--seeds", 2, *flags, "--output", "out.json")
    record = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert [each["seed"] for each in record["runs"]] == [2020, 2021]
    assert (record["settings"], bool(record["machine"])) == (flags, True)
    for ranking in ("test_result", "test_result_unseen"):
        first, second = (each[ranking]["ndcg@10"] for each in record["runs"])
        figures = record["summary"][f"{ranking} ndcg@10"]
        assert figures == pytest.approx({"mean": (first + second) / 2, "sd": abs(first - second) / math.sqrt(2)})
        assert f"{ranking:<20}ndcg@10       {figures['mean']:.4f} ± {figures['sd']:.4f}" in out.splitlines()


# ---- epoch_time.py ------------------------------------------------------------------------------------------------


def test_epoch_time_times_every_side(run_here, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--dataset", "tiny", "--models", "LSTI", "GRU4Rec"]
    settings = [f"--data_path={tiny}", "--hidden_size=8", "--load_col={'inter': ['user_id', 'item_id', 'timestamp']}"]
    with torch.autograd.set_detect_anomaly(False):  # and as before afterwards: RecBole's side turns it on
        out = run_here("epoch_time", *flags, *settings, "--output", "out.json")
    record = json.loads(Path("out.json").read_text(encoding="utf-8"))
    epochs = {"LSTI": 4, "GRU4Rec as RecBole trains it": 1, "GRU4Rec, sequence": 4}
    assert {side: len(seconds) for side, seconds in record["seconds"].items()} == epochs
    assert all(seconds > 0 for seconds in record["median"].values())
    assert (record["settings"], bool(record["machine"])) == (settings, True)
    rows = {line[:32].rstrip(): line[32:].split() for line in out.splitlines()[-3:]}
    assert rows.keys() == epochs.keys()
    assert rows["LSTI"][1] == "1.0"


# ---- history_length.py and catalogue.py ---------------------------------------------------------------------------


def test_history_length_gives_the_exponent_of_the_cost(run_here, tmp_path):
    flags = ["--lengths", 4, 8, 16, "--tokens", 64, "--steps", 2, "--short_window=4", *TINY]
    printed = run_here("history_length", *flags, "--output", tmp_path / "out.json")
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    seconds = record["processor_seconds"]
    assert {length: len(each) for length, each in seconds.items()} == {"4": 2, "8": 2, "16": 2}
    assert min(min(each) for each in seconds.values()) > 0
    assert math.isfinite(record["exponent"])
    assert printed.endswith(f"\nexponent of the cost in the length of a history: {record['exponent']:.3f}\n")
    assert [line.split()[0] for line in printed.splitlines()[3:6]] == ["4", "8", "16"]


def test_catalogue_times_every_size(run_here, tmp_path):
    sizes = ["--items", 30, 90, "--users", 20, "--length", 12, "--first", 1, "--steps", 2, "--train_batch_tokens=40"]
    flags = ["--hidden_size=8", "--inner_size=16", "--short_window=4", "--use_gpu=False", "--n_negatives=8"]
    out = run_here("catalogue", *sizes, *flags, "--output", tmp_path / "out.json")
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    first, second = record["sizes"]
    seconds = sorted(each["processor_seconds"] for each in record["rounds"] if each["items"] == 90)
    assert len(seconds) == 3
    assert second["processor_seconds"] == seconds[1]
    assert (first["items"], second["items"]) == (30, 90), "each item is met"
    assert all(value > 0 for row in (first, second) for value in row.values())
    assert first["times_first"] == 1
    assert second["times_first"] == second["processor_seconds"] / first["processor_seconds"]
    assert [line.split()[0] for line in out.splitlines()[-2:]] == ["30", "90"]


# ---- data_pipeline.py ---------------------------------------------------------------------------------------------


def test_data_pipeline_measures_every_row_and_holds_it_against_the_targets(run_here, tmp_path):
    with mmap.mmap(-1, 2**26) as block:  # memory is the peak above what is held: let this process have a peak behind it
        block.write(bytes(2**26))
    out = run_here("data_pipeline", "--million", 500, "--rounds", 2, "--output", tmp_path / "out.json")
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    module = sys.modules["data_pipeline"]
    assert {row: len(found) for row, found in record["runs"].items()} == dict.fromkeys(module.ROWS, 2)
    assert all(min(row["seconds"], row["cpu_seconds"], row["mib"]) > 0 for row in record["medians"].values())
    large = [row["batches"] for name, row in record["medians"].items() if name.endswith("20M")]
    assert large[0] > 1
    assert large == 3 * large[:1], "whether the rows are read from files or from the cache"
    results = record["results"]
    assert results["faster_prefix"] == pytest.approx(
        record["medians"]["RecBole, 1M"]["seconds"] / record["medians"]["ours, prefix, 1M"]["seconds"]
    )
    assert all(map(math.isfinite, results.values()))
    for line, (text, key, bound, sign) in zip(out.splitlines()[-len(module.TARGETS) :], module.TARGETS, strict=True):
        met = results[key] >= bound if sign == ">=" else results[key] <= bound
        assert line.startswith(text)
        assert line.endswith("missed") != met


# ---- profile_step.py ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--config_files", "LSTI-sparse", "--loss_type=SSM", "--n_negatives=16")])
def test_profile_step_takes_any_data_and_settings(tiny, more):
    flags = ["--dataset", "tiny", f"--data_path={tiny}", "--steps", 2, "--rows", 5, *TINY, "--short_window=4", *more]
    out = run("profile_step.py", *flags).stdout
    assert re.search(r"^2 steps of [\d.]+ ms, [\d,]+ targets a second$", out, flags=re.MULTILINE)
    share = re.search(r"^matrix products: ([\d.]+) of ([\d.]+) GFLOP/s, \d+ % of the machine's$", out, re.MULTILINE)
    assert share is not None
    assert float(share[1]) < float(share[2])
    assert "Self CPU" in out


def test_the_products_inside_the_lstm_kernel_are_counted(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    profile_step = importlib.import_module("profile_step")
    H, B, L = 8, 3, 5
    network = torch.nn.LSTM(H, H, batch_first=True)
    steps = torch.randn(B, L, H, requires_grad=True)
    trainer = SimpleNamespace(_train_epoch=lambda batches, _: [network(batch)[0].sum().backward() for batch in batches])
    forward = 2 * B * L * (4 * H * H + 4 * H * H)
    assert profile_step.matrix_product_flops(trainer, [steps]) == 3 * forward  # backward: for the input and the weights


# ---- held_out.py --------------------------------------------------------------------------------------------------


def held_out(tiny: Path, **settings: Any) -> tuple[Any, Any, Any]:
    module = importlib.import_module("held_out")
    given = {"data_path": str(tiny), "use_gpu": False, "hidden_size": 8, "inner_size": 8, "MAX_ITEM_LIST_LENGTH": 9}
    config = LSTIConfig("LSTI", "tiny", config_dict={**given, "min_context": 4, **settings})
    return module, config, module.HeldOut(config, 3)


def test_what_is_held_out_is_not_trained_and_the_test_item_is_in_none_of_it(tiny, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    _, _, data = held_out(tiny)
    events = data.dataset.inter_feat.events
    ends = np.r_[events.begins[1:], len(events.first)]
    assert set(data.end) <= set(ends - 1), "of each user the last event is left alone"
    assert ((data.end - data.split >= 1) & (data.end - data.split <= 3)).all()
    trained = {t for begin, end, first in data.windows for t in range(max(begin + 1, first), end + 1)}
    wanted = {t for begin, split in zip(data.begin, data.split, strict=True) for t in range(begin + 1, split)}
    assert trained == wanted
    assert sum(max(0, end + 1 - max(begin + 1, first)) for begin, end, first in data.windows) == len(wanted)
    assert len(data.trained()[0]) == (data.split - data.begin).sum()


@torch.no_grad()
def test_the_ranking_of_what_is_held_out_is_that_of_full_sort_predict(tiny, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    _, config, data = held_out(tiny, MAX_ITEM_LIST_LENGTH=100)
    torch.manual_seed(0)
    model = config.model_class(config, data.stand_in()).eval()
    raw, unseen = data.evaluate(model)
    expected = []
    for begin, split, end in zip(data.begin, data.split, data.end, strict=True):
        for target in range(split, end):
            history = torch.from_numpy(data.items[begin:target])[None]
            scores = model.full_sort_predict({"item_id_list": history, "item_length": torch.tensor([target - begin])})[
                0
            ]
            scores[0] = -torch.inf
            ranks = [(scores > scores[data.items[target]]).sum().item()]
            scores[history[0]] = -torch.inf
            seen = data.items[target] in history
            ranks.append(10 if seen else (scores > scores[data.items[target]]).sum().item())
            expected.append([1 / np.log2(rank + 2) if rank < 10 else 0.0 for rank in ranks])
    np.testing.assert_allclose(np.stack([raw, unseen], axis=1), expected, atol=1e-6)


@pytest.mark.parametrize("score", [0.0, float("nan")])
def test_scores_that_say_nothing_win_nothing(monkeypatch, score):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    scores, history = torch.full((2, 30), score), torch.tensor([[3, 4], [5, 6]])
    for values in importlib.import_module("held_out")._ndcg(
        scores, torch.tensor([7, 8]), history, torch.tensor([1, 1])
    ):
        assert values.tolist() == [0.0, 0.0]


def test_the_number_of_seeds_is_not_a_seed(tiny):
    for program in ("held_out.py", "accuracy.py"):
        done = run(program, "--dataset", "tiny", f"--data_path={tiny}", "--seed=2021", code=2)
        assert "must be left to --seeds" in done.stderr


def test_held_out_tells_a_mistake_in_one_line(tiny, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    flags = ["--dataset", "tiny", f"--data_path={tiny}", "--carry_state=True"]
    monkeypatch.setattr(sys, "argv", ["held_out.py", *flags])
    assert importlib.import_module("held_out").main() == 2
    assert capsys.readouterr().err == "held_out: carry_state (True) must be False here\n"


def test_held_out_prints_means_errors_and_differences(tiny, tmp_path):
    flags = ["--dataset", "tiny", f"--data_path={tiny}", "--epochs=1", *TINY, "--short_window=4", "--most", 3]
    first = run("held_out.py", *flags, "--keep", tmp_path / "base.npz").stdout
    again = run("held_out.py", *flags, "--against", tmp_path / "base.npz").stdout
    assert re.search(r"^seed 2020, epoch  1: raw 0\.\d{4}  unseen 0\.\d{4}", first, flags=re.MULTILINE)
    assert re.search(r"^raw     0\.\d{4} ± 0\.\d{4}$", first, flags=re.MULTILINE)
    assert re.search(r"^unseen .* against base\.npz: [+-]0\.0000 ± 0\.0000$", again, flags=re.MULTILINE)
