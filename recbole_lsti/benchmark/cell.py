"""One cell in a process of its own: `python -m recbole_lsti.benchmark.cell CELL_DIR`.

The folder holds cell.json, what is to be done. Afterwards it holds result.json and the arrays of the test rows, or what
a search has found, or traceback.txt and a result.json that says why there is none. With `--estimate` one batch each is
timed instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recbole_lsti.benchmark.results import failed, to_json, write_whole
from recbole_lsti.errors import in_one_line
from recbole_lsti.process import end_with_stdin

PRETRAINED = "pretrained.pth"  # what the first of two stages hands to the second
LATENCY_CALLS, LATENCY_SECONDS = 50, 5.0  # at most so many calls, for at most so long


def main(argv: list[str] | None = None) -> int:
    """Run the cell of a folder; returns 0, or 1 where it failed."""
    parser = argparse.ArgumentParser(prog="python -m recbole_lsti.benchmark.cell", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with cell.json")
    parser.add_argument("--estimate", action="store_true", help="time one batch of training and one of ranking")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the process that started it ends")
    known = parser.parse_args(argv)
    if known.until_stdin_closes:
        end_with_stdin()
    cell = json.loads((known.folder / "cell.json").read_text(encoding="utf-8"))
    head, settings = cell["head"], cell["settings"]
    try:
        from recbole_lsti.memory import keep_freed_memory

        keep_freed_memory()
        if known.estimate:
            from recbole_lsti.benchmark.estimate import time_batches

            line = {**head, **time_batches(head["model"], head["dataset"], settings)}
        elif "search" in cell:
            from recbole_lsti.benchmark.tuning import run_search

            line = {**head, "status": "ok", "reason": None, **run_search(head, settings, cell["search"], known.folder)}
        else:
            line = {**head, "status": "ok", "reason": None, **run_cell(head, settings, known.folder)}
    except Exception as error:
        (known.folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        line = failed(head, in_one_line(error))
    write_whole(known.folder / "result.json", to_json(line, indent=2) + "\n")
    return 0 if line.get("status") != "failed" else 1


def run_cell(head: dict[str, Any], settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train and test; write config.yaml, run.log, the curve and the arrays to the folder.

    Returns:
        dict: valid, raw, unseen, user_metrics and cost of the cell's line, and incomplete: what could not be computed
        beside the metrics, name -> why. Once a model is tested, nothing that fails loses its metrics.
    """
    from recbole_lsti.benchmark.energy import measured
    from recbole_lsti.config import LSTIConfig
    from recbole_lsti.runner import log_to, train_and_test, write_config

    config = LSTIConfig(head["model"], head["dataset"], config_dict=settings)
    write_config(config, folder)
    first_seconds = 0.0  # of the first of two stages
    with log_to(folder, config["state"]), measured() as energy:
        if config["train_stage"] == "pretrain":
            config, first_seconds = _pretrained(head, settings, folder)
            write_config(config, folder)
        trained = train_and_test(config, folder, saved=False)
    (folder / PRETRAINED).unlink(missing_ok=True)
    result, curve, test = trained.result, trained.trainer.curve, trained.loaders[2]
    incomplete = {} if energy.fault is None else {"energy_kwh": energy.fault}
    metrics = _unless_it_fails("user_metrics", lambda: _write_arrays(trained, folder), folder, incomplete) or []
    if trained.rankings is not None and trained.rankings.unseen is not None:  # a row is a test row
        _unless_it_fails("groups", lambda: _write_groups(trained, folder), folder, incomplete)
    best = curve[result["best_epoch"] - 1] if curve else {"seconds": 0.0}
    cost = {
        "train_seconds": round(first_seconds + result["train_seconds"], 2),
        "seconds_to_best": round(first_seconds + best["seconds"], 2),
        "epochs_run": result["epochs_run"],
        "best_epoch": result["best_epoch"],
        "n_parameters": result["n_parameters"],
        "peak_rss_mib": result["peak_rss_mib"],
        "eval_users_per_second": round(len(test._dataset) / trained.test_seconds, 2) if len(test._dataset) else None,
        "latency_ms": _unless_it_fails("latency_ms", lambda: _latency_ms(trained.trainer, test), folder, incomplete),
        "energy_kwh": energy.kwh,
    }
    return {
        "valid": result["best_valid_result"],
        "raw": result["test_result"],
        "unseen": result["test_result_unseen"],
        "user_metrics": metrics,
        "cost": cost,
        "incomplete": incomplete,
    }


def _unless_it_fails(name: str, compute: Callable[[], Any], folder: Path, incomplete: dict[str, str]) -> Any:
    """Return what is computed beside the metrics, or None, with the reason in `incomplete`."""
    try:
        return compute()
    except Exception as error:
        incomplete[name] = in_one_line(error)
        with open(folder / "traceback.txt", "a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        return None


def _pretrained(head: dict[str, Any], settings: dict[str, Any], folder: Path) -> tuple[Any, float]:
    """Do the first of two stages (S3Rec), in half the time; return the second's settings and the seconds it took."""
    from recbole_lsti.config import LSTIConfig
    from recbole_lsti.runner import build, make_trainer

    limit = settings.get("train_seconds_limit")
    half = {} if limit is None else {"train_seconds_limit": limit / 2}
    first = {**settings, **half, "train_stage": "pretrain", "save_step": sys.maxsize}  # RecBole would keep them all
    config = LSTIConfig(head["model"], head["dataset"], config_dict=first)
    _, loaders, network = build(config)
    trainer = make_trainer(config, network, folder)
    began = time.perf_counter()
    trainer.fit(loaders[0], None, saved=True)
    seconds = round(time.perf_counter() - began, 2)
    trainer.save_pretrained_model(len(trainer.curve) - 1, str(folder / PRETRAINED))
    second = {**settings, **half, "train_stage": "finetune", "pre_model_path": str(folder / PRETRAINED)}
    return LSTIConfig(head["model"], head["dataset"], config_dict=second), seconds


def _write_arrays(trained: Any, folder: Path) -> list[str]:
    """Write who was tested on what, and the metrics of each row; return the names of the metrics."""
    scores = trained.rankings and trained.rankings.users
    if scores is None:
        return []
    dataset = trained.dataset
    users = np.asarray(dataset.id2token(dataset.uid_field, scores.user), dtype=str)
    targets = np.asarray(dataset.id2token(dataset.iid_field, scores.target), dtype=str)
    arrays = {"users": users, "targets": targets, "raw": scores.raw, "unseen": scores.unseen}
    try:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
    except BaseException:  # such as a full disk: half of an array would pass for one
        for name in arrays:
            (folder / f"{name}.npy").unlink(missing_ok=True)
        raise
    return list(scores.metrics)


def _write_groups(trained: Any, folder: Path) -> None:
    from recbole_lsti.evaluation.groups import group_table, row_features

    train, _, test = (loader._dataset for loader in trained.loaders)
    table = group_table(row_features(train, test), trained.rankings.users)
    write_whole(folder / "groups.json", to_json(table, indent=2) + "\n")


def _latency_ms(trainer: Any, test: Any) -> float | None:
    """The median milliseconds of ranking all items for one history; None where the test is not ranked in full."""
    import torch

    if trainer.config["eval_args"]["mode"]["test"] != "full" or not len(test._dataset):
        return None
    interaction, _, user, item = next(iter(test))
    one = interaction[[0]]
    seconds: list[float] = []
    trainer.model.eval()
    with torch.no_grad():
        for call in range(LATENCY_CALLS + 2):  # the first two warm up
            began = time.perf_counter()
            rows, scores, row, target = trainer._full_sort_batch_eval((one, None, user[:1], item[:1]))
            trainer.eval_collector.eval_batch_collect(scores, rows, row, target)
            if trainer.device.type == "cuda":
                torch.cuda.synchronize()
            if call >= 2:
                seconds.append(time.perf_counter() - began)
            if sum(seconds) > LATENCY_SECONDS:
                break
    return round(1000 * float(np.median(seconds)), 4)


if __name__ == "__main__":
    sys.exit(main())
