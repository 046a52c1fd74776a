"""The benchmark against RecBole's own flow: the same model, seed and data must come to the same metrics.

    python benchmarks/parity.py --output results/parity-ml-100k.json

One side is `recbole.quick_start.run_recbole`, in a process of its own, with RecBole's defaults, its data set, loaders,
trainer and collector; recbole_lsti only makes it run on today's NumPy and torch. The other side is a cell of
`recbole-lsti benchmark`. Both read a copy of ml-100k whose rows stand in exact order of time, those of one second as
the file has them: RecBole sorts by float32, which keeps such an order and loses any other. Exits 1 if a metric differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import recbole
from machine import describe_machine

from recbole_lsti.benchmark.environment import environment
from recbole_lsti.benchmark.execute import run_plan
from recbole_lsti.benchmark.options import Options
from recbole_lsti.benchmark.plan import from_dict

DATASET = "ml-100k-ordered"
DECIMALS = 12  # RecBole rounds metrics, to four digits unless it is told otherwise
CLOSE = 1e-10  # above what rounding to DECIMALS leaves
PARTS = {"valid": "best_valid_result", "test": "test_result"}  # and where RecBole's result has them
# of RecBole's metrics those that are means over users; cut-offs so far down that an epoch's training has hits
MEASURED = {
    "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP", "GAUC"],
    "topk": [1, 10, 100],
    "valid_metric": "NDCG@10",
    "metric_decimal_place": DECIMALS,
}


def main(argv: list[str] | None = None) -> int:
    """Train every model both ways and print the metrics side by side; returns 0, or 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["SASRec", "GRU4Rec"])
    parser.add_argument("--epochs", type=int, default=1, help="epochs of each training (default: 1)")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--users", type=int, help="only the users numbered 1..USERS (default: all)")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--side", metavar="SETTINGS", help=argparse.SUPPRESS)
    known = parser.parse_args(argv)
    if known.side:
        print(json.dumps(run_theirs(**json.loads(known.side))))
        return 0
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_ordered(Path(folder), known.users)
        for model in known.models:
            task = {"model": model, "folder": folder, "epochs": known.epochs, "seed": known.seed}
            command = [sys.executable, str(Path(__file__).resolve()), "--side", json.dumps(task)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=folder)
            sides = {"recbole": json.loads(done.stdout.splitlines()[-1]), "benchmark": run_ours(**task)}
            found[model] = {**sides, "differences": differences(sides["recbole"], sides["benchmark"])}
            print(side_by_side(model, found[model]), flush=True)
    if known.output:
        record = {
            "machine": describe_machine(),
            "versions": environment()["versions"],
            "dataset": "ml-100k in time order" + (f", users 1..{known.users}" if known.users else ""),
            "epochs": known.epochs,
            "seeds": [known.seed],
            "decimals": DECIMALS,
            "models": found,
        }
        known.output.parent.mkdir(parents=True, exist_ok=True)
        known.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 1 if any(each["differences"] for each in found.values()) else 0


def write_ordered(folder: Path, users: int | None) -> None:
    """Write RecBole's ml-100k, or its first users, as <folder>/ml-100k-ordered, rows in exact order of time."""
    source = Path(recbole.__file__).parent / "dataset_example/ml-100k/ml-100k.inter"
    table = pd.read_csv(source, sep="\t", dtype={"timestamp:float": "int64"})
    if users is not None:
        table = table[table["user_id:token"] <= users]
    (folder / DATASET).mkdir()
    table.sort_values("timestamp:float", kind="stable").to_csv(
        folder / DATASET / f"{DATASET}.inter", sep="\t", index=False
    )


def run_theirs(model: str, folder: str, epochs: int, seed: int) -> dict[str, Any]:
    """Do RecBole's own run and return valid and test, metric -> value, and its seconds."""
    import recbole.trainer.trainer
    from recbole.evaluator import Collector
    from recbole.quick_start import run_recbole

    recbole.trainer.trainer.Collector = Collector  # recbole_lsti puts one of its own there
    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line
    settings = {
        **{"data_path": folder, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}},
        **{"epochs": epochs, "seed": seed, **MEASURED},
        **{"train_neg_sample_args": None, "use_gpu": False, "show_progress": False, "state": "WARNING"},
    }
    began = time.perf_counter()
    result = run_recbole(model, DATASET, config_dict=settings)
    seconds = round(time.perf_counter() - began, 1)
    metrics = {part: {name: float(value) for name, value in result[key].items()} for part, key in PARTS.items()}
    return {**metrics, "seconds": seconds}


def run_ours(model: str, folder: str, epochs: int, seed: int) -> dict[str, Any]:
    """Run one cell of the benchmark and return the same of it."""
    plan = from_dict(
        {
            **{"models": [model], "controls": False, "datasets": [DATASET], "seeds": [seed]},
            **{"split": "loo", "budget": {"epochs": epochs}},
            "settings": {"data_path": folder, "use_gpu": False, **MEASURED},
        }
    )
    began = time.perf_counter()
    (line,) = run_plan(plan, Path(folder) / "board" / model, Options())
    if line["status"] != "ok":
        raise RuntimeError(f"cell {line['cell']} {line['status']}: {line['reason']}")
    seconds = round(time.perf_counter() - began, 1)
    return {"valid": line["valid"], "test": line["raw"], "seconds": seconds}


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Name what two sides differ in, `test ndcg@10` and both values; a metric of one side alone is a difference."""
    found = []
    for part in PARTS:
        for name in dict.fromkeys([*theirs[part], *ours[part]]):
            one, other = theirs[part].get(name), ours[part].get(name)
            if one is None or other is None or not abs(one - other) <= CLOSE:
                found.append(f"{part} {name}: {one} and {other}")
    return found


def side_by_side(model: str, found: Mapping[str, Any]) -> str:
    """The table of one model."""
    theirs, ours = found["recbole"], found["benchmark"]
    lines = [f"\n{model:<20}{'RecBole':>16}{'benchmark':>16}"]
    for part in PARTS:
        for name, value in theirs[part].items():
            other = ours[part].get(name)
            shown = "-" if other is None else f"{other:.{DECIMALS}f}"
            lines.append(f"{part + ' ' + name:<20}{value:>16.{DECIMALS}f}{shown:>16}")
    return "\n".join([*lines, *(f"differs: {text}" for text in found["differences"])])


if __name__ == "__main__":
    sys.exit(main())
