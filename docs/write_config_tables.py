"""Write the tables of docs/config.md from the files they describe: properties/*.yaml and the rules of their values.

    python docs/write_config_tables.py

A line of a YAML file reads `key: default  # (type) reason`; the range comes from recbole_lsti/config_rules.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from recbole_lsti.config_rules import LSTI_RULES, MARKOV_RULES, RULES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "config.md"
LINE = re.compile(r"(?P<key>\w+):.*?#\s*\((?P<type>[\w ]+)\)\s*(?P<reason>.*)")


def main() -> None:
    """Rewrite the tables in place."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(page: str) -> str:
    """Return the page with every table between `<!-- table FILE -->` and `<!-- end -->` written anew."""
    return re.sub(
        r"(<!-- table (\S+) -->\n).*?(<!-- end -->)",
        lambda found: found[1] + (folder_table if (ROOT / found[2]).is_dir() else table)(ROOT / found[2]) + found[3],
        page,
        flags=re.DOTALL,
    )


def table(path: Path) -> str:
    """Return the table of one YAML file.

    Raises:
        ValueError: if a key has no comment of the form `# (type) reason`.
    """
    rules = RULES | MARKOV_RULES | (LSTI_RULES if path.stem == "LSTI" else {})
    rows = ["| key | type | default | range | what for |", "|---|---|---|---|---|"]
    for key, kind, value, reason in settings(path):
        allowed = rules[key].text if key in rules else ""
        rows.append(f"| `{key}` | {kind} | `{value}` | {allowed} | {reason} |")
    return "\n".join(rows) + "\n"


def folder_table(folder: Path) -> str:
    """Return one table of all YAML files of a folder, each under its name.

    Raises:
        ValueError: if a key has no comment of the form `# (type) reason`.
    """
    rows = ["| name | key | value | why |", "|---|---|---|---|"]
    for path in sorted(folder.glob("*.yaml")):
        for key, _, value, reason in settings(path):
            rows.append(f"| `{path.stem}` | `{key}` | `{value}` | {reason} |")
    return "\n".join(rows) + "\n"


def settings(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield key, type, value as it may be typed, and reason of each line of a YAML file."""
    text = path.read_text(encoding="utf-8")
    comments = {found["key"]: found for found in map(LINE.match, text.splitlines()) if found}
    for key, value in yaml.safe_load(text).items():
        if key not in comments:
            raise ValueError(f"{path.name}: {key} must have a comment: # (type) reason")
        yield key, comments[key]["type"], shown(value), comments[key]["reason"]


def shown(value: Any) -> str:
    """Return a value as it may be typed in a YAML file or on the command line."""
    return "null" if value is None else str(value).replace("'", "")


if __name__ == "__main__":
    main()
