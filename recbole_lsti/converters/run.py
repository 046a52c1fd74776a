"""The flags of RecSysDatasets' ``conversion_tools/run.py``, and the same atomic files but for order and mended faults.

The faults, and what is done instead: docs/converters.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from pathlib import Path

from recbole_lsti.converters.convert import convert
from recbole_lsti.converters.plan import Cleaning, Plan, Table
from recbole_lsti.converters.sources import DropIn, drop_ins, locate
from recbole_lsti.errors import AtomicFileError, Parser, one_of

KINDS = ("inter", "item", "user")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the flags that RecSysDatasets has."""
    parser = Parser(prog="python -m recbole_lsti.converters.run", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--input_path", type=Path, required=True)
    parser.add_argument("--output_path", type=Path, required=True)
    parser.add_argument("--interaction_type")
    parser.add_argument("--duplicate_removal", action="store_true")
    parser.add_argument("--item_feature_name", default="none")
    for kind in KINDS:
        parser.add_argument(f"--convert_{kind}", action="store_true")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        int: 0 when done, 2 after a mistake of the user's, 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        args = build_parser().parse_args(arguments)
        for entry in _entries(args):
            _convert_entry(entry, args, shlex.join(["run.py", *arguments]))
    except SystemExit as stop:
        return int(stop.code or 0)
    except AtomicFileError as error:
        print(f"run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("run: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def _entries(args: argparse.Namespace) -> tuple[DropIn, ...]:
    name = args.dataset.lower()
    if name not in drop_ins():
        raise one_of("--dataset", args.dataset, sorted(drop_ins()))
    if args.item_feature_name != "none":
        raise AtomicFileError(
            f"--item_feature_name ({args.item_feature_name}) must be none: only onion has such features"
        )
    if not any(getattr(args, f"convert_{kind}") for kind in KINDS):
        raise AtomicFileError("one of --convert_inter, --convert_item, --convert_user must be given")
    return drop_ins()[name]


def _tables(entry: DropIn, args: argparse.Namespace) -> tuple[Table, ...]:
    """Return the tables asked for, with their files."""
    kind = args.interaction_type or ""
    if "" in entry.variants:
        kind = ""  # this data set has one type of interaction, as there
    elif kind not in entry.variants:
        raise one_of("--interaction_type", kind or "none", entry.variants)
    wanted = [name for name in KINDS if getattr(args, f"convert_{name}")]
    tables = [table for table in entry.variants[kind] if table.kind in wanted]
    for name in wanted:
        if all(table.kind != name for table in tables):
            raise AtomicFileError(f"--convert_{name} must not be asked of {args.dataset}, which has no such file")
    merging = args.duplicate_removal and entry.count is not None
    if merging:
        tables = [table.without(*entry.merged_without) for table in tables]
    return locate(tables, [args.input_path], f"--dataset {args.dataset}", needed=wanted[0])


def _convert_entry(entry: DropIn, args: argparse.Namespace, command: str) -> None:
    tables = _tables(entry, args)
    stem = entry.stem.format(type=args.interaction_type)
    target = args.output_path / entry.folder.format(type=args.interaction_type)
    merging = args.duplicate_removal and entry.count is not None and tables[0].kind == "inter"
    cleaning = Cleaning(duplicates=entry.keep, count_as=entry.count) if merging else Cleaning()
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=target) as folder:
            convert(Plan(stem, Path(folder), tables, source=args.dataset, cleaning=cleaning, command=command))
            for path in sorted((Path(folder) / stem).iterdir()):
                name = path.name if path.suffix == ".inter" else path.name.replace(stem, entry.side_stem or stem, 1)
                if path.suffix != ".yaml":
                    os.replace(path, target / name)
                if path.suffix[1:] in KINDS:
                    print(target / name)
    except OSError as error:
        raise AtomicFileError(f"--output_path ({target}) must be a writable folder: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
