"""`recbole-lsti benchmark`: its flags, and what it does with them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_lsti.errors import require

if TYPE_CHECKING:
    from recbole_lsti.benchmark.plan import Plan

EXAMPLE = """examples:
  %(prog)s quick                    a plan of properties/benchmark, or any YAML file
  %(prog)s --models LSTI,SASRec,GRU4Rec --datasets ml-100k --seeds 3 --epochs 50 --output DIR
  %(prog)s quick --dry-run          every effective config, and what it is estimated to cost
  %(prog)s --resume --output DIR    goes on with what is there
  %(prog)s --resume --output DIR --seeds 5    the same with more seeds

docs/benchmark.md tells what a plan may say and what the results folder holds. Exits 1 if a cell failed or --expect is
missed."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags; those that a plan may hold win over it."""
    parser.add_argument("plan", nargs="?", help="YAML file, or the name of a plan in properties/benchmark")
    parser.add_argument("--models", help="models, separated by commas, or all")
    parser.add_argument("--datasets", help="data sets, separated by commas")
    parser.add_argument("--seeds", help="how many, or a list separated by commas")
    parser.add_argument("--split", help="loo, time or ratio; several separated by commas")
    parser.add_argument("--ranking", help="full, or uniN or popN for N sampled negatives")
    parser.add_argument("--epochs", type=int, help="most epochs of each training")
    parser.add_argument("--minutes", type=float, help="most minutes of each training, ended after an epoch")
    parser.add_argument("--memory-gib", type=float, help="a cell that needs more memory is ended")
    parser.add_argument("--trials", type=int, help="trials that each model gets before its cells run")
    parser.add_argument("--space", help="what the trials search: YAML, or lines of RecBole's hyper.test format")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="a setting for every model that knows it")
    parser.add_argument("--no-controls", action="store_true", help="leave the control rows out")
    parser.add_argument("--output", type=Path, help="results folder (default: saved/benchmark-<plan>)")
    parser.add_argument("--resume", action="store_true", help="go on with the results in --output")
    parser.add_argument("--dry-run", action="store_true", help="show every config and its cost, and run nothing")
    parser.add_argument("--jobs", type=int, help="cells at a time on this machine (default: 1)")
    parser.add_argument("--executor", default="local", help="local or dask (default: local)")
    parser.add_argument("--scheduler", help="address of a Dask scheduler (default: a cluster on this machine)")
    parser.add_argument("--retries", type=int, help="further tries of a killed cell (default: local 0, dask 2)")
    parser.add_argument("--expect", type=Path, help="YAML file of figures that the results must reach")
    parser.set_defaults(run=main)


def main(known: argparse.Namespace) -> int:
    """Run a plan, write the tables and the picture, hold the results against what is expected.

    Returns:
        int: 0, or 1 if a cell failed or a figure that was expected is missed.
    """
    for package in ("statsmodels", "matplotlib"):
        require("benchmark", package, "benchmark")
    from recbole_lsti.benchmark.expect import read_expected, regressions

    options = _options(known)
    expected = read_expected(known.expect) if known.expect else []
    plan = _plan(known)
    if unread := plan.unread():
        verb = "is" if len(unread) == 1 else "are"
        print(f"recbole-lsti: settings: {', '.join(unread)} {verb} read by no model of the plan", file=sys.stderr)
    if known.dry_run:
        from recbole_lsti.benchmark.estimate import dry_run

        for text in dry_run(plan, options.jobs):
            print(text, flush=True)
        return 0
    from recbole_lsti.benchmark.execute import run_plan
    from recbole_lsti.benchmark.results import BROKEN

    folder = known.output or Path("saved") / f"benchmark-{Path(known.plan or 'plan').stem}"
    lines = run_plan(plan, folder, options, known.resume)
    report(plan, lines, folder)
    if (folder / BROKEN).is_file():
        number = len((folder / BROKEN).read_text(encoding="utf-8").splitlines())
        print(f"{number} broken lines of results.jsonl are set aside in {folder / BROKEN}", file=sys.stderr)
    missed = regressions(expected, lines)
    for text in missed:
        print(f"regression: {text}", file=sys.stderr)
    if expected and not missed:
        print(f"expected: all {len(expected)} figures of {known.expect} are reached")
    return 1 if missed or any(line["status"] == "failed" for line in lines) else 0


def report(plan: Plan, lines: list[dict[str, Any]], folder: Path) -> None:
    """Write the tables, the picture and the page of a results folder, and print the board."""
    from recbole_lsti.benchmark.page import write_page
    from recbole_lsti.benchmark.plot import draw
    from recbole_lsti.benchmark.tables import summarise, write_tables

    rows = summarise(plan, lines, folder)
    write_tables(plan, rows, folder)
    print((folder / "table.md").read_text(encoding="utf-8"))
    draw(plan, rows, folder)
    write_page(plan, rows, folder)
    print(f"results: {folder}")


def _options(known: argparse.Namespace) -> Any:
    from recbole_lsti.benchmark.options import Options
    from recbole_lsti.cluster import check_executor

    jobs = 1 if known.jobs is None else known.jobs
    check_executor(known.executor, known.scheduler, jobs)
    retries = known.retries if known.retries is not None else 2 * (known.executor == "dask")
    if retries < 0:
        raise ValueError(f"retries ({retries}) must be 0 or more")
    return Options(jobs, known.executor, known.scheduler, retries)


def _plan(known: argparse.Namespace) -> Plan:
    from recbole_lsti.benchmark.plan import from_dict
    from recbole_lsti.config import external_settings

    changes = _changes(known)
    content: dict[str, Any] = {}
    if known.plan is not None:
        content = external_settings([str(find_plan(known.plan))], None)
    elif known.resume and known.output and (known.output / "plan.yaml").is_file():
        content = external_settings([str(known.output / "plan.yaml")], None)
    elif known.models is None:
        if known.resume and known.output:
            raise FileNotFoundError(f"output ({known.output}) must be a results folder with plan.yaml")
        raise ValueError("a plan must be given, --models, or --resume with --output")
    for key in ("budget", "settings"):
        if changes.get(key) and isinstance(content.get(key), dict):
            changes[key] = {**content[key], **changes[key]}
    if known.set and isinstance(content.get("model_settings"), dict):  # a flag wins over all but what a variant says
        given = {key: own for key, own in content["model_settings"].items() if isinstance(own, dict)}
        for model, own in given.items():
            content["model_settings"][model] = {key: own[key] for key in own if key not in changes["settings"]}
    return from_dict({**content, **changes})


def find_plan(name: str) -> Path:
    """Return the file of a plan: a path, or a name in properties/benchmark; a path to nothing is never such a name.

    Raises:
        FileNotFoundError: there is none; names the nearest.
    """
    from recbole_lsti.config import properties_folder
    from recbole_lsti.errors import nearest

    ours = properties_folder() / "benchmark"
    shipped = (ours / f"{name}.yaml", ours / name) if Path(name).name == name else ()
    for path in (Path(name), *shipped):
        if path.is_file():
            return path
    names = sorted(path.stem for path in ours.glob("*.yaml"))
    raise FileNotFoundError(f"plan ({name}) must be a YAML file or one of {', '.join(names)}{nearest(name, names)}")


def _changes(known: argparse.Namespace) -> dict[str, Any]:
    from recbole_lsti.config import parse_literal

    changes: dict[str, Any] = {}
    if known.models is not None:
        changes["models"] = "all" if known.models == "all" else _names(known.models)
    for key in ("datasets", "split"):
        if getattr(known, key) is not None:
            changes[key] = _names(getattr(known, key))
    if known.seeds is not None:
        seeds = [parse_literal(word) for word in _names(known.seeds)]
        changes["seeds"] = seeds[0] if len(seeds) == 1 and "," not in known.seeds else seeds
    for key in ("ranking", "space"):
        if getattr(known, key) is not None:
            changes[key] = getattr(known, key)
    if known.no_controls:
        changes["controls"] = False
    budget = {key: getattr(known, key) for key in ("epochs", "minutes", "memory_gib", "trials")}
    changes["budget"] = {key: value for key, value in budget.items() if value is not None}
    changes["settings"] = {}
    for word in known.set or []:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"set ({word}) must be KEY=VALUE")
        changes["settings"][key] = parse_literal(value)
    return {key: value for key, value in changes.items() if value not in ({}, None)}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
