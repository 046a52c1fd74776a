"""Turn the publishers' files into the data sets of the accuracy work, with this package's converters.

    python benchmarks/prepare.py --data "$LSTI_DATA" --output dataset
    python benchmarks/prepare.py --data "$LSTI_DATA" --output dataset steam taobao

Then `recbole-lsti train --dataset steam` finds it in `dataset`, RecBole's data root; elsewhere `--data_path FOLDER`
names the root. Every row that can be read is written: which users and items have too few of them is settled when a data
set is read, by properties/dataset/<name>.yaml. ml-100k needs no preparation: it comes with RecBole, attributes too.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from recbole_lsti.converters import AtomicFileError
from recbole_lsti.converters.convert import convert
from recbole_lsti.converters.plan import Field, Format, Plan, Table, TimeSpec
from recbole_lsti.converters.sources import get, locate

TSV = Format("csv", "\t", quote=False)


def events(item_column: str = "item_id", time_unit: str = "s") -> Table:
    """The interactions of a prepared table: user, item and time."""
    user = Field("user_id", "token", "user_id", required=True)
    item = Field("item_id", "token", item_column, required=True)
    time_of = TimeSpec(("timestamp",), time_unit)
    return Table("inter", (user, item), time_of, patterns=("interactions.tsv",), format=TSV)


def items(item_column: str, attribute: Field) -> Table:
    """The items of a prepared table, with one attribute."""
    item = Field("item_id", "token", item_column, required=True)
    return Table("item", (item, attribute), patterns=("items.tsv",), format=TSV)


# name -> folder of the publisher's files, below --data, and the tables in it
BRANDS = Field("categories", "token_seq", "attributes(category/brand, | separated)", sep="|")
DATA_SETS = {
    "ml-1m": ("raw/ml-1m", get("ml-1m").tables),
    "amazon-beauty": ("tables/amazon-beauty", (events("asin"), items("asin", BRANDS))),
    "steam": ("tables/steam", (events(), items("item_id", Field("title", "token_seq", "title")))),
    "yoochoose-buys": ("tables/yoochoose-buys", (events(time_unit="ms"),)),
    "30music": ("raw/30music", get("30music").tables),
    "taobao": ("raw/taobao", get("taobao").tables),
}


def main() -> int:
    """Convert each data set asked for and print a line of it; 2 after a mistake, told in a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DATA_SETS)} (default: all)")
    parser.add_argument("--data", type=Path, default=os.environ.get("LSTI_DATA"), help="default: what LSTI_DATA names")
    parser.add_argument("--output", type=Path, default=Path("dataset"), help="RecBole's data_path (default: dataset)")
    parser.add_argument("--overwrite", action="store_true", help="replace data sets that are there")
    known = parser.parse_args()
    for name in known.names:
        if name not in DATA_SETS:
            parser.error(f"NAME ({name}) must be one of {', '.join(DATA_SETS)}")
    if not known.data:
        parser.error("--data must name the folder of the publishers' files, or the variable LSTI_DATA")
    print(f"{'':<16}{'users':>9}{'items':>9}{'rows':>11}{'seconds':>9}")
    try:
        for name in known.names or DATA_SETS:
            print(prepare(name, Path(known.data), known.output, known.overwrite), flush=True)
    except AtomicFileError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 2
    return 0


def prepare(name: str, data: Path, output: Path, overwrite: bool) -> str:
    """Convert one data set and return the line to print: what was written, in how long, and which rows were not.

    Raises:
        AtomicFileError: files that are missing or at fault, or an output that is there already.
    """
    folder, tables = DATA_SETS[name]
    started = time.perf_counter()
    plan = Plan(
        name,
        output,
        locate(tables, [data / folder], f"data set {name}"),
        source=name,
        overwrite=overwrite,
        command=shlex.join(["python", "benchmarks/prepare.py", name]),
    )
    facts = convert(plan)["tables"]["inter"]
    seconds = time.perf_counter() - started
    aside = ", ".join(f"{count} ({reason})" for reason, count in facts["rejected"].items())
    counts = f"{facts['users']:>9,}{facts['items']:>9,}{facts['rows_written']:>11,}{seconds:>9.1f}"
    return f"{name:<16}{counts}" + (f"  in {name}.rejects.tsv: {aside}" if aside else "")


if __name__ == "__main__":
    sys.exit(main())
