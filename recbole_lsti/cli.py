"""The command line: `recbole-lsti train | tune | recommend | convert | check-data | benchmark | compare | doctor`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from recbole_lsti._version import __version__
from recbole_lsti.benchmark.cli import EXAMPLE as BENCHMARK_EXAMPLE
from recbole_lsti.benchmark.cli import add_flags as add_benchmark_flags
from recbole_lsti.benchmark.compare_cli import EXAMPLE as COMPARE_EXAMPLE
from recbole_lsti.benchmark.compare_cli import add_flags as add_compare_flags
from recbole_lsti.errors import Parser, lacking
from recbole_lsti.tune import cli as tune_cli

TRAIN_EXAMPLE = """example:
  %(prog)s --model LSTI --dataset ml-100k --epochs=5 --hidden_size=32

Any setting may follow as --key=value or --key value; docs/config.md lists them. --nproc 2 trains on two processes."""
RECOMMEND_EXAMPLE = """examples:
  %(prog)s saved/LSTI-ml-100k-.../checkpoint.pth --users 1,2 --k 10 --unseen
  %(prog)s saved/LSTI-ml-100k-.../checkpoint.pth --history "50 172 133"
  %(prog)s saved/LSTI-.../checkpoint.pth --history "50 172" --times "881250949 881251010"   for a model that reads time
"""
CHECK_DATA_EXAMPLE = """example:
  %(prog)s ml-100k        what is wrong or odd in its files, what the data look like; exits 1 on errors
"""
DOCTOR_EXAMPLE = """example:
  %(prog)s        a line each: Python, RecBole, NumPy, pandas, torch, ray, output folder, GPU; exits 1 on a fault
"""
FEW_STEPS = 500  # taobao, equal seconds: 210 steps reach a validation NDCG@10 of 0.231, 840 one of 0.309
MISTAKES = (ValueError, TypeError, KeyError, OSError, NotImplementedError, ImportError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0; 1, what it found is bad news; 2, a mistake, told in one line.

    1: doctor or check-data found a fault, a cell of a benchmark failed or a figure is missed, a search for settings has
    come to no score for a model. 130 after Ctrl-C, 141 where the reader of the output has left, as `| head` does.
    """
    try:
        status = _command(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere at exit
        return 141
    return status


def _command(arguments: list[str]) -> int:
    if arguments[:1] == ["convert"]:
        return convert(arguments[1:])
    parser = build_parser()
    known, rest = parser.parse_known_args(arguments)
    try:
        if known.command == "train":
            return train(known, rest)
        if known.command == "tune":
            return tune(known, rest)
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        return known.run(known)
    except MISTAKES as error:
        if isinstance(error, BrokenPipeError) or os.environ.get("LSTI_TRACEBACK"):
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"recbole-lsti: {' '.join(str(text).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"recbole-lsti: interrupted{f'; {error}' if str(error) else ''}", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="recbole-lsti",
        description="Long- and short-term interest recommendation for RecBole.",
        epilog="A mistake is told in one line; the environment variable LSTI_TRACEBACK=1 shows where it was noticed.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    add_train_flags(
        commands.add_parser("train", help="train and test a model", epilog=TRAIN_EXAMPLE, formatter_class=raw)
    )
    tune_cli.add_flags(
        commands.add_parser("tune", help="search for settings", epilog=tune_cli.EXAMPLE, formatter_class=raw)
    )
    ask = commands.add_parser(
        "recommend",
        help="long-term, short-term and fused recommendations of a checkpoint",
        epilog=RECOMMEND_EXAMPLE,
        formatter_class=raw,
    )
    ask.add_argument("checkpoint", help="checkpoint.pth of a run folder")
    ask.add_argument("--users", help="users of the data set, separated by commas")
    ask.add_argument("--history", action="append", help="item ids, oldest first, separated by blanks; may be repeated")
    ask.add_argument("--times", action="append", help="Unix seconds of a --history's items; as often as --history")
    ask.add_argument("--k", type=int, default=10, help="length of the lists (default: 10)")
    ask.add_argument("--unseen", action="store_true", help="leave out the items of the history")
    ask.set_defaults(run=recommend)
    commands.add_parser("convert", help="turn any log into RecBole's atomic files", add_help=False)  # see convert
    add_check_data_flags(
        commands.add_parser(
            "check-data",
            help="check the atomic files of a data set and describe it",
            epilog=CHECK_DATA_EXAMPLE,
            formatter_class=raw,
        )
    )
    add_benchmark_flags(
        commands.add_parser(
            "benchmark",
            help="compare models on data sets under one plan, fairly",
            epilog=BENCHMARK_EXAMPLE,
            formatter_class=raw,
        )
    )
    add_compare_flags(
        commands.add_parser(
            "compare",
            help="test which of two sides is better: results folders, checkpoints, lists of other systems",
            epilog=COMPARE_EXAMPLE,
            formatter_class=raw,
        )
    )
    check = commands.add_parser("doctor", help="check the installation", epilog=DOCTOR_EXAMPLE, formatter_class=raw)
    check.set_defaults(run=doctor)
    return parser


def add_train_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of RecBole's run_recbole.py."""
    parser.add_argument("--model", "-m", help="name of the model (default: of the config files, else LSTI)")
    parser.add_argument("--dataset", "-d", help="name of the data set (default: of the config files, else ml-100k)")
    parser.add_argument(
        "--config_files", help="YAML files or profiles (LSTI-sparse), separated by blanks; later ones win"
    )
    parser.add_argument("--resume", metavar="FOLDER", help="go on with a training that has stopped, in its run folder")
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument("--cache-dir", help="keep parsed data here for the next start (default: no cache)")
    cache.add_argument("--no-cache", action="store_true", help="use no cache, whatever cache_dir the settings name")
    parser.add_argument("--nproc", type=int, default=1, help="processes on this machine (default: 1)")
    parser.add_argument("--ip", default="localhost", help="address of the first machine (default: localhost)")
    parser.add_argument("--port", default="5678", help="port of the first machine (default: 5678)")
    parser.add_argument("--world_size", type=int, default=-1, help="processes on all machines (default: --nproc)")
    parser.add_argument(
        "--group_offset", type=int, default=0, help="number of this machine's first process (default: 0)"
    )


def add_check_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of check-data; those that name columns are RecBole's settings in small letters."""
    parser.add_argument("dataset", help="name of the data set, a folder in --data_path")
    parser.add_argument("--data_path", default="dataset", help="where data sets lie (default: dataset)")
    parser.add_argument("--user_id_field", default="user_id", help="column of the user (default: user_id)")
    parser.add_argument("--item_id_field", default="item_id", help="column of the item (default: item_id)")
    parser.add_argument("--time_field", default="timestamp", help="column of the time (default: timestamp)")
    parser.add_argument("--field_separator", default="\t", help="between columns (default: a tab)")
    parser.add_argument("--seq_separator", default=" ", help="between the values of a list (default: a blank)")
    parser.add_argument("--encoding", default="utf-8", help="encoding of the files (default: utf-8)")
    parser.add_argument(
        "--session_gap", type=float, default=1800.0, help="seconds after which a new session begins (default: 1800)"
    )
    parser.set_defaults(run=check_data)


def train(known: argparse.Namespace, rest: Sequence[str]) -> int:
    """Train and test; print the metrics, where the checkpoint lies, and what to try next."""
    settings = parse_settings(rest)
    if known.cache_dir or known.no_cache:
        settings["cache_dir"] = "null" if known.no_cache else known.cache_dir
    logging.getLogger().addHandler(_warnings_to_screen())
    from recbole_lsti.memory import keep_freed_memory

    keep_freed_memory()
    arguments: dict[str, Any] = {
        "model": known.model,
        "dataset": known.dataset,
        "config_file_list": known.config_files.split() if known.config_files else None,
        "config_dict": settings,
    }
    from recbole_lsti.runner import resume, run, run_processes

    if known.resume:
        for flag in ("model", "dataset", "config_files"):
            if getattr(known, flag):
                raise ValueError(
                    f"--{flag} ({getattr(known, flag)}) must be left to the run that --resume goes on with"
                )
        if known.nproc != 1 or known.world_size > 0:
            raise ValueError(f"--nproc ({known.nproc}) must be 1, on one machine, with --resume")
        result: dict[str, Any] | None = resume(known.resume, settings)
    elif known.nproc == 1 and known.world_size <= 0:
        result = run(**arguments)
    else:
        world = {key: getattr(known, key) for key in ("nproc", "world_size", "ip", "port", "group_offset")}
        result = run_processes(**world, **arguments)
    if result is not None:
        print(format_result(result))
    return 0


def tune(known: argparse.Namespace, rest: Sequence[str]) -> int:
    """Search for settings by their validation score."""
    settings = parse_settings(rest)
    logging.getLogger().addHandler(_warnings_to_screen())
    from recbole_lsti.memory import keep_freed_memory

    keep_freed_memory()
    return tune_cli.main(known, settings)


def convert(arguments: Sequence[str]) -> int:
    """Turn a log into atomic files; the converters have a command line of their own, which starts without torch."""
    try:
        from recbole_lsti.converters.cli import main as converters
    except ModuleNotFoundError as error:
        if error.name not in ("duckdb", "pyarrow"):
            raise
        print(f"recbole-lsti: {lacking('convert', str(error.name), 'convert')}", file=sys.stderr)
        return 2
    return converters(list(arguments))


def parse_settings(words: Sequence[str]) -> dict[str, str]:
    """Read `--key=value` and `--key value` into a dict of texts.

    Raises:
        ValueError: a word that is neither, a key without a value, or a key given twice with different values.
    """
    settings: dict[str, str] = {}
    position = 0
    while position < len(words):
        key, equals, value = words[position].partition("=")
        if not key.startswith("--") or key == "--":
            raise ValueError(f"argument ({words[position]}) must be --key=value or --key value")
        if not equals:
            position += 1
            if key == "--force_unknown_keys" and (position == len(words) or words[position].startswith("--")):
                value, position = "True", position - 1
            elif position == len(words):
                raise ValueError(f"argument ({key}) must have a value: {key}=value")
            else:
                value = words[position]
        name = key[2:]
        if settings.setdefault(name, value) != value:
            raise ValueError(f"argument ({key}) must be given once, not as {settings[name]} and {value}")
        position += 1
    return settings


def format_result(result: dict[str, Any]) -> str:
    """Return the closing lines of a training run: metrics, checkpoint, next command."""
    columns = {"validation": result["best_valid_result"], "test": result["test_result"]}
    if result["test_result_unseen"]:
        columns["test, unseen items"] = result["test_result_unseen"]
    columns = {name: metrics for name, metrics in columns.items() if metrics}
    names = list(result["test_result"] or result["best_valid_result"] or {})
    width = max([13, *map(len, names)]) + 1
    lines = [f"{result['model']} on {result['dataset']}", " " * width + "".join(f"{name:>20}" for name in columns)]
    for metric in names:
        values = (metrics[metric] for metrics in columns.values())  # None: no row for which it is defined
        lines.append(f"{metric:<{width}}" + "".join(f"{'-' if v is None else f'{v:.4f}':>20}" for v in values))
    lines.append(
        f"\nbest epoch {result['best_epoch']} of {result['epochs_run']}, {result['train_seconds']:.0f} s of training, "
        f"{result['n_parameters']:,} parameters, {result['peak_rss_mib']:.0f} MiB"
    )
    if result["model"] == "LSTI" and result["train_steps"] < FEW_STEPS:
        more = "a smaller train_batch_tokens (in prefix mode train_batch_size), or more epochs, make more"
        lines.append(f"{result['train_steps']} steps of training are few: {more}")
    if result["checkpoint_file"]:
        lines.append(f"checkpoint: {result['checkpoint_file']}")
        if result["model"] == "LSTI":
            users = "1,2" if result["dataset"] == "ml-100k" else "USER"
            lines.append(f"try next:   recbole-lsti recommend {result['checkpoint_file']} --users {users}")
    return "\n".join(lines)


def recommend(known: argparse.Namespace) -> int:
    """Print the long-term, short-term and fused lists of each user side by side."""
    if not known.users and not known.history:
        raise ValueError("--users or --history must be given")
    from recbole_lsti.recommendation import recommend_from
    from recbole_lsti.runner import load

    users = [user.strip() for user in known.users.split(",") if user.strip()] if known.users else None
    histories = [history.split() for history in known.history] if known.history else None
    times = [_numbers("times", each) for each in known.times] if known.times else None
    found = recommend_from(load(known.checkpoint), users, histories, known.k, times, known.unseen)
    for user, table in found.table.groupby("user", sort=False):
        gate = found.gate[user]
        title = (
            f"history {user}" if user in range(len(histories or [])) and not isinstance(user, str) else f"user {user}"
        )
        print(title + ("" if gate is None else f", mean gate {gate:.2f} long, {1 - gate:.2f} short"))
        if user in found.skipped:
            print(f"skipped, unknown: {', '.join(found.skipped[user])}")
        lists = list(dict.fromkeys(table["list"]))
        print("rank" + "".join(f"{name:>24}" for name in lists))
        for rank, row in table.groupby("rank"):
            cells = (row[row["list"] == name].iloc[0] for name in lists)
            print(f"{rank:>4}" + "".join(f"{cell['item']:>15} {cell['score']:>8.3f}" for cell in cells))
        print()
    return 0


def _numbers(flag: str, text: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        raise ValueError(f"{flag} ({text}) must be numbers, separated by blanks") from None


def check_data(known: argparse.Namespace) -> int:
    """Print what is wrong, odd and worth knowing about a data set's files; 1 where something is wrong."""
    from recbole_lsti.data.checker import Columns, check, format_report
    from recbole_lsti.data.folder import find_folder

    columns = Columns(
        known.user_id_field,
        known.item_id_field,
        known.time_field,
        known.field_separator,
        known.seq_separator,
        known.encoding,
    )
    report = check(find_folder(known.dataset, known.data_path), columns, known.session_gap)
    print(format_report(known.dataset, report, known.session_gap))
    return 1 if report.errors else 0


def doctor(known: argparse.Namespace) -> int:
    """Check the installation."""
    from recbole_lsti.doctor import report

    return report(sys.stdout)


def _warnings_to_screen() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    return handler


if __name__ == "__main__":
    sys.exit(main())
