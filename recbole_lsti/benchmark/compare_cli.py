"""Flags of `recbole-lsti compare` and what it does with them."""

from __future__ import annotations

import argparse
import os

from recbole_lsti.errors import require

EXAMPLE = """examples:
  %(prog)s results/new results/old                        every variant against its namesake
  %(prog)s results/new --baseline SASRec,GRU4Rec          every variant against these
  %(prog)s saved/LSTI-.../checkpoint.pth saved/SASRec-.../checkpoint.pth
  %(prog)s saved/LSTI-.../checkpoint.pth theirs.csv       a `user,item,rank` table of another system
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of compare."""
    parser.add_argument("a", metavar="A", help="results folder, checkpoint.pth, or .csv, .tsv, .parquet of lists")
    parser.add_argument("b", metavar="B", nargs="?", help="the other side (default: --baseline within A)")
    parser.add_argument("--baseline", metavar="NAMES", help="variants of B, or of A alone, separated by commas")
    parser.add_argument("--metrics", metavar="NAMES", help="such as ndcg@10,recall@10 (default: all)")
    parser.add_argument("--dataset", "-d", help="this data set of a folder, or the one that lists are judged on")
    parser.add_argument("--split", choices=("loo", "time", "ratio"), help="this split of a folder")
    parser.add_argument("--config_files", help="YAML files, separated by blanks: what lists alone are judged by")
    parser.add_argument("--alpha", type=float, default=0.05, help="level of the tests (default: 0.05)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap samples (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--output", metavar="FILE", help="write the rows to FILE, .csv or .json")
    parser.set_defaults(run=main)


def main(known: argparse.Namespace) -> int:
    """Print the comparison, write it where asked to."""
    from pathlib import Path

    require("compare", "statsmodels", "benchmark")
    from recbole_lsti.benchmark.compare import Options, check_output, compare, format_comparison, write_comparison
    from recbole_lsti.benchmark.sides import open_sides

    if known.resamples < 1:
        raise ValueError(f"resamples ({known.resamples}) must be 1 or more")
    if known.output:
        check_output(Path(known.output))
    paths = [known.a] if known.b is None else [known.a, known.b]
    files = known.config_files.split() if known.config_files else None
    sides = open_sides(paths, known.dataset, known.split, files)
    options = Options(_names(known.baseline), _names(known.metrics), known.alpha, known.resamples, known.seed)
    found = compare(sides[0], sides[1] if len(sides) > 1 else None, options)
    print(format_comparison(found, known.alpha))
    if known.output:
        write_comparison(found, Path(known.output))
        print(f"written: {os.path.normpath(known.output)}")
    return 0


def _names(text: str | None) -> list[str] | None:
    """Names separated by commas; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]
