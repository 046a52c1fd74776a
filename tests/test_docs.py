"""What the pages say is what the code does: commands, names, tables and links."""

import argparse
import ast
import importlib
import importlib.util
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import recbole_lsti
from recbole_lsti import cli
from recbole_lsti.config import LSTIConfig
from recbole_lsti.converters import cli as converters

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README = ROOT / "README.md"
MAIN_JOB = "pip install -c constraints.txt -e . && python run_recbole_lsti.py"
TEST_JOB = 'pip install -c constraints.txt -e ".[test]" && pytest -n auto'

pytestmark = pytest.mark.skipif(not README.is_file(), reason="the pages are part of a checkout alone")


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced code blocks of a page, as (language, text)."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words behind `recbole-lsti` or `python run_recbole_lsti.py` in every line of a page's code blocks."""
    found = []
    for _, text in blocks(page):
        for line in text.splitlines():
            command = line.removeprefix("$ ").rpartition("&&")[2].partition("#")[0].strip()
            words = re.findall(r'"[^"]*"|\S+', command)
            if words[:2] == ["python", "run_recbole_lsti.py"]:
                found.append(["train", *words[2:]])
            elif words[:1] == ["recbole-lsti"]:
                found.append(words[1:])
    return [[word.strip('"') for word in words] for words in found]


ALL_COMMANDS = [pytest.param(words, id=f"{page.name}: {' '.join(words)}") for page in PAGES for words in commands(page)]


def test_the_two_lines_stand_at_the_top() -> None:
    assert blocks(README)[0][1].splitlines() == [
        f"{MAIN_JOB}          # trains LSTI on ml-100k, prints its metrics",
        f"{TEST_JOB}              # passes the tests",
    ]


def test_the_gate_runs_readmes_test_line() -> None:
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    install, _, test = TEST_JOB.partition(" && ")
    assert install.replace("pip install", "pip install -q") in gate
    assert gate.rstrip().splitlines()[-1] == test


def test_commands_are_found() -> None:
    # the parametrised test below would pass on an empty list
    assert {words[0] for words in commands(README)} >= {"train", "recommend"}


@pytest.mark.parametrize("words", ALL_COMMANDS)
def test_a_command_is_understood(words: list[str]) -> None:
    if words[0] == "convert":  # a command line of its own, whose flags are all there are
        converters.build_parser().parse_args(words[1:])
        return
    known, rest = cli.build_parser().parse_known_args(words)
    settings = cli.parse_settings(rest)  # what is no flag must be a setting
    if known.command != "train":
        assert settings == {}
        return
    # a command that is refused stands beside what it prints
    printed = [text for page in PAGES for _, text in blocks(page)]
    assert any(
        f"recbole-lsti: {refusal(known.model or 'LSTI', settings)}" in text for text in ["recbole-lsti: ", *printed]
    )


def refusal(model: str, settings: dict[str, str]) -> str:
    try:
        LSTIConfig(model, "ml-100k", None, dict(settings))
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def test_every_command_is_in_the_interface_table() -> None:
    (action,) = (each for each in cli.build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    table = README.read_text(encoding="utf-8").partition("## Interface")[2]
    for name in action.choices:
        assert re.search(rf"^\| `recbole-lsti {name}\b", table, flags=re.MULTILINE), f"{name} must be in the table"
    for name in set(recbole_lsti.__all__) - {"__version__"}:
        assert f"`recbole_lsti.{name}" in table, f"recbole_lsti.{name} must be in the table"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_import_what_exists(page: Path) -> None:
    for language, text in blocks(page):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module} must have {alias.name}"
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "recbole_lsti":
                assert hasattr(recbole_lsti, node.attr), f"recbole_lsti must have {node.attr}"


def test_the_tables_of_settings_agree_with_properties() -> None:
    writer = load_script(ROOT / "docs" / "write_config_tables.py")
    page = writer.PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"<!-- table (\S+) -->", page))
    there = [ROOT / "properties" / "overall.yaml", *(ROOT / "properties" / "model").glob("*.yaml")]
    there += [ROOT / "properties" / folder for folder in ("dataset", "profile")]
    assert named == {path.relative_to(ROOT).as_posix() for path in there}
    assert writer.with_tables(page) == page, "run: python docs/write_config_tables.py"


def test_the_picture_is_the_one_that_the_program_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    committed = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    if f"Matplotlib v{matplotlib.__version__}," not in committed:
        pytest.skip("docs/architecture.svg is of another version of matplotlib")
    shutil.copy(ROOT / "docs" / "draw_architecture.py", tmp_path)
    monkeypatch.setattr(sys, "argv", ["draw_architecture.py"])
    with matplotlib.rc_context():
        load_script(tmp_path / "draw_architecture.py").main()
    drawn = (tmp_path / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == committed, "run: python docs/draw_architecture.py"


def test_a_key_without_a_reason_is_refused(tmp_path: Path) -> None:
    writer = load_script(ROOT / "docs" / "write_config_tables.py")
    (tmp_path / "good.yaml").write_text("hidden_size: 8  # (int) Width.\n")
    assert "| `hidden_size` | int | `8` | a whole number, 1 or more | Width. |" in writer.table(tmp_path / "good.yaml")
    (tmp_path / "bad.yaml").write_text("hidden_size: 8\n")
    with pytest.raises(ValueError, match=re.escape("bad.yaml: hidden_size must have a comment: # (type) reason")):
        writer.table(tmp_path / "bad.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{page.name}: {target} must exist"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target} must be a heading"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_absolute_paths(page: Path) -> None:
    # a slash that begins a word and goes on as a path, or a drive letter
    found = re.findall(r"(?<![\w.)/<:])/[a-z]+/[^\s)`]*|\b[A-Z]:\\\S+", page.read_text(encoding="utf-8"))
    assert found == []


def test_files_named_in_the_pages_exist() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(
            r"`(?:python )?((?:docs|recbole_lsti|properties|tests|\.ci)/[\w/.]+\.(?:py|md|yaml|svg))`", text
        ):
            assert (ROOT / name).is_file(), f"{page.name}: {name} must exist"


def test_the_changelog_knows_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(recbole_lsti.__version__)}\]", text, flags=re.MULTILINE)


def test_constraints_hold_what_setup_cfg_asks_for() -> None:
    pins = {re.split(r"[=;]", line)[0].strip().lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for line in (ROOT / "setup.cfg").read_text(encoding="utf-8").splitlines():
        asked = re.match(r"    ([a-zA-Z][\w\-]*)(?:==|>=)", line)
        if asked:
            assert asked[1].lower() in pins, f"{asked[1]} must be pinned in constraints.txt"


def load_script(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
