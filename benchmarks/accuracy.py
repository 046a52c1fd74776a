"""Accuracy on one data set over several seeds: both rankings of the test item, mean and standard deviation.

    python benchmarks/accuracy.py --seeds 3 --output results/accuracy-ml-100k.json

Each seed is a run of its own process with the defaults of properties/, as `recbole-lsti train --seed=N` does it. The
weights are chosen by validation; the test set is met once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from machine import describe_machine


def main() -> None:
    """Run the seeds one after another and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", default="LSTI")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 2020 on (default: 3)")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    known, settings = parser.parse_known_args()
    if any(word.partition("=")[0] == "--seed" for word in settings):
        parser.error("--seed must be left to --seeds, which says how many, from 2020 on")
    runs = [train(known.model, known.dataset, seed, settings) for seed in range(2020, 2020 + known.seeds)]
    print(f"\n{known.model} on {known.dataset}, {' '.join(settings) or 'default settings'}; {describe_machine()}\n")
    print(f"{'seed':<8}{'valid NDCG@10':>15}{'test raw':>12}{'test unseen':>13}{'epochs':>8}{'seconds':>9}{'MiB':>7}")
    for run in runs:
        print(
            f"{run['seed']:<8}{run['best_valid_result']['ndcg@10']:>15.4f}{run['test_result']['ndcg@10']:>12.4f}"
            f"{run['test_result_unseen']['ndcg@10']:>13.4f}{run['epochs_run']:>8}{run['train_seconds']:>9.0f}"
            f"{run['peak_rss_mib']:>7.0f}"
        )
    summary = {}
    for name in ("test_result", "test_result_unseen"):
        for metric in runs[0][name]:
            values = [run[name][metric] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            summary[f"{name} {metric}"] = {"mean": statistics.mean(values), "sd": spread}
            print(f"{name:<20}{metric:<14}{statistics.mean(values):.4f} ± {spread:.4f}")
    if known.output:
        record = {"machine": describe_machine(), "settings": settings, "summary": summary, "runs": runs}
        known.output.parent.mkdir(parents=True, exist_ok=True)
        known.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def train(model: str, dataset: str, seed: int, settings: list[str]) -> dict:
    """Do one run in a process of its own and return its metrics."""
    command = [
        sys.executable,
        "-m",
        "recbole_lsti.cli",
        "train",
        "-m",
        model,
        "-d",
        dataset,
        f"--seed={seed}",
        *settings,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    checkpoint = next(line for line in done.stdout.splitlines() if line.startswith("checkpoint: ")).split(": ", 1)[1]
    result = json.loads(Path(checkpoint).with_name("metrics.json").read_text(encoding="utf-8"))
    return {"seed": seed, **result}


if __name__ == "__main__":
    main()
