"""The command line: from flags to a plan, and from mistakes to one line."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pyarrow as pa

from recbole_lsti.converters import sources
from recbole_lsti.converters.convert import convert
from recbole_lsti.converters.describe import Wishes, describe_inter, describe_side, expand
from recbole_lsti.converters.plan import DUPLICATES, GRAINS, LAYOUTS, Cleaning, Format, Plan, Privacy, Split, Table
from recbole_lsti.converters.privacy import KEY_VARIABLE, read_key
from recbole_lsti.converters.progress import Progress
from recbole_lsti.converters.streams import STANDARD_INPUT, spool
from recbole_lsti.converters.timeparse import check_zone, parse_moment
from recbole_lsti.errors import AtomicFileError, Parser, one_of

# Flags that say nothing without another, and those that say what a named source knows.
COMPANIONS = {
    "item_key": "items",
    "item_feature": "items",
    "user_key": "users",
    "user_feature": "users",
    "count_duplicates": "duplicates",
    "split_layout": "split",
    "split_max_len": "split",
    "key_file": "pseudonymize",
    "seed": "sample-users",
}
TABLE_FLAGS = (
    "user item time rating behavior feature items item_key item_feature users user_key user_feature format sep "
    "no_header quote decimal time_format"
)

EXAMPLES = """examples:
  %(prog)s user_data.csv --name shop
  %(prog)s log.csv.gz --user uid --item sku --time ts --behavior event --k-core 5 --name shop
  %(prog)s ratings.dat --sep :: --no-header --user 0 --item 1 --rating 2 --time 3 --name films
  %(prog)s ml-1m/ --source ml-1m --name ml-1m --split loo
"""


def build_parser(prog: str = "recbole-lsti convert") -> argparse.ArgumentParser:
    """Return the parser of every flag."""
    parser = Parser(
        prog=prog,
        description="Convert interaction logs to RecBole atomic files.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="files, globs, folders (with --source), or - for stdin"
    )
    parser.add_argument("--source", metavar="NAME", help="a publisher's data set; --list shows them")
    parser.add_argument("--list", action="store_true", help="list the named sources and the files they expect")
    parser.add_argument("--name", help="the data set's name (default: the source, or the first file)")
    parser.add_argument("--output", type=Path, default=Path("dataset"), metavar="DIR", help="default: dataset")
    parser.add_argument("--overwrite", action="store_true", help="replace DIR/NAME if it is there")
    _add_table_flags(parser.add_argument_group("the table, without --source"))
    _add_cleaning_flags(parser.add_argument_group("cleaning (each off unless asked for)"))
    _add_output_flags(parser.add_argument_group("features, split, privacy"))
    _add_run_flags(parser.add_argument_group("the run"))
    return parser


def _add_table_flags(group: argparse._ArgumentGroup) -> None:
    by_number = "with --no-header, its number from 0"
    for role in ("user", "item", "rating", "behavior"):
        group.add_argument(f"--{role}", metavar="COL", help=f"column of the {role}; {by_number}")
    group.add_argument("--time", metavar="COL[,COL]", help="column of the time, or several that make it up")
    feature_help = "a further column, with its type (token, token_seq, float, float_seq) and separator"
    group.add_argument("--feature", action="append", default=[], metavar="COL[:TYPE[:SEP]]", help=feature_help)
    for kind in ("item", "user"):
        group.add_argument(f"--{kind}s", action="append", default=[], metavar="FILE", help=f"table of {kind}s")
        group.add_argument(f"--{kind}-key", metavar="COL", help=f"column of the {kind} in it")
        group.add_argument(f"--{kind}-feature", action="append", default=[], metavar="COL[:TYPE[:SEP]]")
    group.add_argument("--format", choices=("csv", "json", "parquet"), help="default: by suffix and content")
    group.add_argument("--sep", help="separator, also of several characters; \\t for tab (default: found out)")
    group.add_argument("--no-header", action="store_true", help="the first line is data; columns are numbered from 0")
    group.add_argument("--quote", choices=("double", "none"), help='whether " quotes fields (default: double)')
    group.add_argument("--encoding", help="default: UTF-8, UTF-16 by its mark, else Windows-1252")
    group.add_argument("--decimal", choices=(".", ","), help="decimal mark of numbers (default: .)")
    group.add_argument("--time-format", metavar="FORMAT", help="s, ms, us, ns, iso, or a strptime pattern")
    group.add_argument("--timezone", default="UTC", metavar="ZONE", help="zone of times that state none")


def _add_cleaning_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--behaviors", metavar="A,B", help="keep these behaviours only")
    group.add_argument("--behavior-weights", metavar="A=1,B=3", help="add a field weight by behaviour")
    group.add_argument("--since", metavar="TIME", help="first moment kept: a date, an ISO time or Unix seconds")
    group.add_argument("--until", metavar="TIME", help="last moment kept; a date includes its whole day")
    group.add_argument(
        "--rating-threshold", type=float, metavar="R", help="keep ratings of R or more, as implicit feedback"
    )
    group.add_argument("--duplicates", choices=DUPLICATES, help="keep the first or last of repeated pairs, or of runs")
    group.add_argument("--count-duplicates", metavar="FIELD", help="with --duplicates: count the merged rows in FIELD")
    group.add_argument("--k-core", type=int, default=0, metavar="K", help="users and items with K interactions or more")
    group.add_argument("--k-core-user", type=int, metavar="K", help="the same, for users")
    group.add_argument("--k-core-item", type=int, metavar="K", help="the same, for items")
    group.add_argument("--sample-users", type=int, metavar="N", help="keep N users, chosen by --seed")
    group.add_argument("--seed", type=int, help=f"default: {Cleaning.seed}")
    group.add_argument("--session-gap", type=int, default=0, metavar="SECONDS", help="add session_id, split by gaps")


def _add_output_flags(group: argparse._ArgumentGroup) -> None:
    scaling_help = "scale a float field: minmax, z or log1p"
    group.add_argument("--normalize", action="append", default=[], metavar="FIELD=HOW", help=scaling_help)
    split_help = "also write train, valid and test files: loo, time or ratio, with shares as in time:0.8,0.1,0.1"
    group.add_argument("--split", metavar="KIND[:A,B,C]", help=split_help)
    layout_help = "a row a target with its history, for sequential models; or plain rows"
    group.add_argument("--split-layout", choices=LAYOUTS, help=f"{layout_help} (default: {Split.layout})")
    max_len_help = f"longest history in items (default: {Split.max_len})"
    group.add_argument("--split-max-len", type=int, metavar="N", help=max_len_help)
    key_help = f"replace user tokens by a keyed HMAC-SHA256 (key: {KEY_VARIABLE} or --key-file)"
    group.add_argument("--pseudonymize", action="store_true", help=key_help)
    group.add_argument("--key-file", type=Path, metavar="FILE", help="file that holds the key")
    group.add_argument("--drop-rare-users", type=int, default=0, metavar="N", help="drop users with fewer than N rows")
    group.add_argument("--time-grain", metavar="GRAIN", help="round times down: second, minute, hour, day, week")


def _add_run_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-reject-share", type=float, default=0.01, metavar="SHARE", help="default: 0.01")
    group.add_argument("--max-expansion", type=float, default=250.0, metavar="TIMES", help="limit of decompression")
    group.add_argument("--memory", type=int, default=640, metavar="MIB", help="the engine's memory (default: 640)")
    group.add_argument("--threads", type=int, default=2, help="default: 2")
    group.add_argument("--quiet", action="store_true", help="say nothing unless something is wrong")
    group.add_argument("--json", action="store_true", help="progress as JSON lines on stderr, the report on stdout")


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (list[str] | None): the arguments; None takes those of the process.
    Returns:
        int: 0 when done, 2 after a mistake of the user's, 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        args = build_parser().parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    if args.list:
        _print_sources()
        return 0
    pa.enable_signal_handlers(False)  # else Ctrl-C while it parses a piece may get lost
    restore = _interrupt_on_sigterm()
    try:
        with ExitStack() as stack:
            _run(args, shlex.join(["recbole-lsti", "convert", *arguments]), stack)
    except (AtomicFileError, OSError) as error:
        text = " ".join(str(error).splitlines())  # a column's name may hold the line ends that a quote kept
        print(f"recbole-lsti convert: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("recbole-lsti convert: interrupted; nothing was written", file=sys.stderr)
        return 130
    finally:
        restore()
    return 0


def _interrupt_on_sigterm() -> Callable[[], object]:
    """Let a polite kill clean up like Ctrl-C; return what undoes that."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        return lambda: None
    return lambda: signal.signal(signal.SIGTERM, before)


def _print_sources() -> None:
    for name, source in sources.registry().items():
        print(f"{name:<20} {source.title}")
        print(f"{'':<20} {source.files}")
        if source.reference:
            print(f"{'':<20} cite: {source.reference}")


def _run(args: argparse.Namespace, command: str, stack: ExitStack) -> None:
    if not args.files:
        raise AtomicFileError("FILE must be given: a file, a glob, a folder with --source, or - for standard input")
    names = [str(_spooled(args.output, stack)) if name == "-" else name for name in args.files]
    plan, notes = build_plan(args, names, command)
    mode = "json" if args.json else "quiet" if args.quiet else "bar"
    if mode == "bar":
        for note in notes:
            print(note, file=sys.stderr)
    report = convert(plan, Progress(sys.stderr, mode))
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
    elif not args.quiet:
        _print_summary(report, plan)


def _spooled(output: Path, stack: ExitStack) -> Path:
    """Return a copy of standard input in a hidden folder below the output, which goes with the stack."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        hidden = tempfile.TemporaryDirectory(prefix=f".{STANDARD_INPUT}-", dir=output, ignore_cleanup_errors=True)
        return spool(sys.stdin.buffer, Path(stack.enter_context(hidden)))
    except OSError as error:
        raise AtomicFileError(
            f"--output ({output}) must be a writable folder, for a copy of standard input: {error.strerror}"
        ) from error


def build_plan(args: argparse.Namespace, files: Sequence[str], command: str) -> tuple[Plan, list[str]]:
    """Return the plan that the flags ask for, and what was found out while making it.

    Raises:
        AtomicFileError: if flags contradict each other, or the first rows of a file.
    """
    _check_company(args)
    grain = _grain(args.time_grain)
    check_zone(args.timezone)
    notes: list[str] = []
    if args.source:
        tables = _source_tables(args, expand(files), grain)
    else:
        tables, notes = _described_tables(args, expand(files), grain)
    first = Path(files[0])
    name = args.name or args.source or first.name.split(".")[0]
    rare = _at_least("--drop-rare-users", args.drop_rare_users, 0)
    plan = Plan(
        name=name,
        output=args.output,
        tables=tables,
        source=args.source,
        cleaning=_cleaning(args),
        privacy=Privacy(read_key(args.key_file) if args.pseudonymize else None, rare),
        split=_split(args),
        scalings=_pairs("--normalize", args.normalize),
        max_reject_share=args.max_reject_share,
        max_expansion=args.max_expansion,
        overwrite=args.overwrite,
        memory_mib=_at_least("--memory", args.memory, 128),
        threads=_at_least("--threads", args.threads, 1),
        command=command,
    )
    if name == "ml-100k":
        notes.append("RecBole reads ml-100k from its own package: --name gives another name, under which this is read")
    if args.key_file and args.key_file.resolve().is_relative_to((plan.output / name).resolve()):
        raise AtomicFileError(f"--key-file ({args.key_file}) must lie outside {plan.output / name}, which is made anew")
    return plan, notes


def _check_company(args: argparse.Namespace) -> None:
    """Refuse flags that would have no effect beside, or without, another."""
    said = [name for name, value in vars(args).items() if value not in (None, []) and value is not False]
    given = {name: f"--{name.replace('_', '-')}" for name in said}
    for name in TABLE_FLAGS.split() if args.source else ():
        if name in given:
            raise AtomicFileError(f"{given[name]} must not be given with --source, which knows its files")
    for name, other in COMPANIONS.items():
        if name in given and other.replace("-", "_") not in given:
            raise AtomicFileError(f"{given[name]} must come with --{other}")
    if args.split_layout == "rows" and args.split_max_len is not None:
        raise AtomicFileError("--split-max-len must not be given with --split-layout rows, which has no lists")


def _source_tables(args: argparse.Namespace, paths: tuple[Path, ...], grain: int) -> tuple[Table, ...]:
    source = sources.get(args.source)
    tables = sources.locate(source.tables, paths, f"--source {source.name}")
    changed = []
    for table in tables:
        if grain:
            table = table.rounded(grain)
        if table.time is not None and args.timezone != "UTC":
            table = replace(table, time=replace(table.time, zone=args.timezone))
        if args.encoding:
            table = replace(table, format=replace(table.format, encoding=args.encoding))
        changed.append(table)
    return tuple(changed)


def _described_tables(
    args: argparse.Namespace, paths: tuple[Path, ...], grain: int
) -> tuple[tuple[Table, ...], list[str]]:
    sep = args.sep.replace("\\t", "\t") if args.sep else None
    if sep is not None and (len(sep.encode()) != len(sep) or set(sep) & set('"\n\r')):
        raise AtomicFileError(f"--sep ({args.sep}) must consist of ASCII characters other than quotes and line ends")
    quote, decimal = args.quote != "none", args.decimal or Format.decimal
    fmt = Format(args.format, sep, not args.no_header, quote, (), args.encoding, decimal)
    roles = {role: getattr(args, role) for role in ("user", "item", "time", "rating", "behavior")}
    asked = {role: column for role, column in roles.items() if column is not None}
    wishes = Wishes(asked, tuple(args.feature), args.time_format, args.timezone, grain)
    inter, notes = describe_inter(paths, fmt, wishes)
    tables = [inter]
    for kind in ("item", "user"):
        files = getattr(args, f"{kind}s")
        if files:
            key = getattr(args, f"{kind}_key")
            side = Wishes({kind: key} if key else {}, tuple(getattr(args, f"{kind}_feature")))
            table, more = describe_side(kind, expand(files), replace(fmt, kind=None, sep=None, header=True), side)
            tables.append(table)
            notes += [f"{kind}s: {note}" for note in more]
    return tuple(tables), notes


def _cleaning(args: argparse.Namespace) -> Cleaning:
    k_core = _at_least("--k-core", args.k_core, 0)
    return Cleaning(
        behaviors=tuple(args.behaviors.split(",")) if args.behaviors else (),
        weights=_numbers("--behavior-weights", args.behavior_weights),
        since=parse_moment(args.since, "--since", zone=args.timezone) if args.since else None,
        until=parse_moment(args.until, "--until", end_of_day=True, zone=args.timezone) if args.until else None,
        rating_threshold=args.rating_threshold,
        duplicates=args.duplicates,
        count_as=args.count_duplicates,
        k_core_user=k_core if args.k_core_user is None else args.k_core_user,
        k_core_item=k_core if args.k_core_item is None else args.k_core_item,
        sample_users=args.sample_users or 0,
        seed=Cleaning.seed if args.seed is None else args.seed,
        session_gap=args.session_gap,
    )


def _split(args: argparse.Namespace) -> Split | None:
    if not args.split:
        return None
    kind, _, shares = args.split.partition(":")
    layout = args.split_layout or Split.layout
    max_len = Split.max_len if args.split_max_len is None else args.split_max_len
    if kind == "loo" and shares:
        raise AtomicFileError(f"--split ({args.split}) must be loo alone; time and ratio take shares")
    if not shares:
        return Split(kind, layout=layout, max_len=max_len)
    try:
        train, valid, test = (float(share) for share in shares.split(","))
    except ValueError as error:
        raise AtomicFileError(f"--split ({args.split}) must give three shares, as in time:0.8,0.1,0.1") from error
    return Split(kind, (train, valid, test), layout, max_len)


def _grain(text: str | None) -> int:
    if text is None:
        return 0
    if text not in GRAINS:
        raise one_of("--time-grain", text, GRAINS)
    return GRAINS[text]


def _at_least(flag: str, value: int, least: int) -> int:
    if value < least:
        raise AtomicFileError(f"{flag} ({value}) must be {least} or more")
    return value


def _pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise AtomicFileError(f"{flag} ({text}) must be of the form NAME=VALUE")
        pairs[name] = value
    return pairs


def _numbers(flag: str, text: str | None) -> dict[str, float]:
    pairs = _pairs(flag, text.split(",") if text else ())
    try:
        numbers = {name: float(value) for name, value in pairs.items()}
        if not all(map(math.isfinite, numbers.values())):
            raise ValueError
        return numbers
    except ValueError as error:
        raise AtomicFileError(f"{flag} ({text}) must give numbers, as in view=1,buy=4") from error


def _print_summary(report: dict, plan: Plan) -> None:
    for kind, facts in report["tables"].items():
        line = f"{kind}: {facts['rows_in']:,} rows read, {facts['rows_written']:,} written"
        if kind == "inter":
            line += f", {facts['users']:,} users, {facts['items']:,} items"
        print(line)
        for reason, count in facts["rejected"].items():
            print(f"  rejected {count:,}: {reason}")
        if facts["repeated_keys"]:
            print(f"  dropped {facts['repeated_keys']:,}: later rows of one {kind}")
    for step, count in report["removed"].items():
        print(f"  removed {count:,}: {step}")
    for name, value in (report["split"] or {}).items():
        print(f"  split: {name}: {value}")
    use = f"use it with --config_files {plan.output / plan.name / plan.name}.yaml"
    if plan.tables[0].time is None:
        use = "without times, it is not for models of sequences, which read events in the order of time"
    print(f"wrote {plan.output / plan.name}; {use}")
