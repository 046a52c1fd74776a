"""What a plan will cost, from one timed batch each: `--dry-run`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from recbole_lsti.benchmark.plan import Cell, Plan
from recbole_lsti.benchmark.process import run_process
from recbole_lsti.benchmark.view import duration
from recbole_lsti.process import threads_of


class _FirstBatches:
    """The first batches of a loader, and the seconds that each was worked on."""

    def __init__(self, loader: Any, count: int) -> None:
        self._loader, self._count = loader, min(count, len(loader))
        self.seconds: list[float] = []

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        for _ in range(self._count):
            began = time.perf_counter()
            yield next(batches)
            self.seconds.append(time.perf_counter() - began)

    def __len__(self) -> int:
        return self._count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def time_batches(model: str, dataset: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Time one batch of training and one of ranking, each after one that warms up.

    Args:
        model, dataset: their names.
        settings: the config dict of the run.
    Returns:
        dict: load_seconds, epoch_seconds, rank_seconds (all test rows), seconds (the whole run, until the budget ends
        it, without the start of its process), timed_seconds (that this took), n_parameters, peak_rss_mib.
    """
    import torch

    from recbole_lsti.config import LSTIConfig
    from recbole_lsti.runner import build, make_trainer, peak_rss_mib

    entered = time.perf_counter()
    config = LSTIConfig(model, dataset, config_dict=settings)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        _, (train_data, _, test_data), network = build(config)
        load_seconds = time.perf_counter() - began
        trainer = make_trainer(config, network, Path(folder))
        trainer.epochs = trainer.pretrain_epochs = 1
        first = _FirstBatches(train_data, 2)
        trainer.fit(first, None, saved=False)
    epoch_seconds = first.seconds[-1] * len(train_data)
    rank_seconds = 0.0
    if test_data and config["eval_args"]["mode"]["test"] == "full":
        trainer.item_tensor = test_data._dataset.get_item_feature().to(trainer.device)
        trainer.tot_item_num = test_data._dataset.item_num
        network.eval()
        with torch.no_grad():
            for batch in islice(test_data, 2):
                began = time.perf_counter()
                interaction, scores, row, item = trainer._full_sort_batch_eval(batch)
                trainer.eval_collector.eval_batch_collect(scores, interaction, row, item)
                rank_seconds = (time.perf_counter() - began) * len(test_data)
    epochs = config["epochs"] * (epoch_seconds + rank_seconds)
    if config["train_stage"] == "pretrain":
        epochs += config["pretrain_epochs"] * epoch_seconds
    limit = config["train_seconds_limit"]
    training = epochs if limit is None else min(epochs, limit + epoch_seconds + rank_seconds)
    return {
        "load_seconds": load_seconds,
        "epoch_seconds": epoch_seconds,
        "rank_seconds": rank_seconds,
        "seconds": load_seconds + training + rank_seconds,
        "timed_seconds": time.perf_counter() - entered,
        "n_parameters": sum(parameter.numel() for parameter in network.parameters()),
        "peak_rss_mib": peak_rss_mib(),
    }


def dry_run(plan: Plan, jobs: int) -> Iterator[str]:
    """Yield what would be run, as text: every effective config, then what each is estimated to cost.

    Nothing is written but to a temporary folder; cells that differ by their seed alone are timed once.
    """
    cells = plan.cells()
    kinds: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        kinds.setdefault((cell.variant, cell.dataset, cell.split), []).append(cell)
    for (variant, dataset, split), same in kinds.items():
        yield f"# {variant} on {dataset}, {split}, seeds {', '.join(str(cell.seed) for cell in same)}"
        if plan.trials and not same[0].reason:
            yield f"# {plan.trials} trials before: {dict(same[0].space)}" if same[0].space else "# nothing is searched"
        if same[0].reason:
            yield f"# cannot run: {same[0].reason}\n"
        else:
            yield yaml.safe_dump(same[0].effective(), sort_keys=True, allow_unicode=True)
    total = 0.0
    columns = f"{'s start':>9}{'s/epoch':>10}{'s ranking':>10}{'MiB':>8}{'parameters':>12}{'time':>14}"
    yield f"{'cell':<44}{'cells':>6}{columns}"
    for (variant, dataset, split), same in kinds.items():
        name = f"{variant} {dataset} {split}"
        if same[0].reason:
            yield f"{name:<44}{len(same):>6}  cannot run: {same[0].reason}"
            continue
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            place, threads = Path(folder) / "cell", threads_of(jobs)  # the threads that each of several will have
            found = run_process(same[0].head(), same[0].settings, place, threads=threads, flags=("--estimate",))
        whole = time.perf_counter() - began
        if "seconds" not in found:
            yield f"{name:<44}{len(same):>6}  would fail: {found['reason']}"
            continue
        trials = plan.trials if same[0].space and plan.trials else 0
        start = max(0.0, whole - found["timed_seconds"])  # of Python and its imports, and the end of both
        # a search is one process, unless its trials have a memory limit, each in a process of its own
        starts = len(same) + bool(trials) + (trials if plan.memory_gib is not None else 0)
        seconds = (len(same) + trials) * found["seconds"] + starts * start
        total += seconds
        yield (
            f"{name:<44}{len(same):>6}{start:>9.1f}{found['epoch_seconds']:>10.1f}{found['rank_seconds']:>10.1f}"
            f"{found['peak_rss_mib']:>8.0f}{found['n_parameters']:>12,}{duration(seconds):>14}"
            + (f"  with {trials} trials" if trials else "")
        )
    most = duration(total / jobs)
    yield (
        f"{len(cells)} cells, at most about {most}, {jobs} at a time, with the start of each process (`s start`); "
        "less where training stops early"
    )
