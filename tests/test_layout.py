"""Who may import whom, read from the sources: docs would grow stale, this does not."""

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import recbole_lsti

PACKAGE = Path(recbole_lsti.__file__).parent
ROOT = PACKAGE.parent

# part of the package -> what its modules may import beside the standard library, as module prefixes; a part is a
# folder or a file, and the first one that holds a module counts
LIGHT_ROOMS = ("recbole_lsti.errors", "recbole_lsti._version")
ALLOWED = {
    "model": ("numpy", "torch", "recbole.model", "recbole.utils", "recbole_lsti.model"),
    "data": (
        *("numpy", "pandas", "scipy", "sklearn", "psutil", "torch"),
        *("recbole.data", "recbole.sampler", "recbole.utils", "recbole_lsti.data"),
    ),
    "evaluation": (
        *("numpy", "pandas", "scipy", "statsmodels", "torch", "recbole.evaluator", "recbole.utils.EvaluatorType"),
        *("recbole_lsti.data.events", "recbole_lsti.evaluation"),
    ),
    "converters": ("numpy", "pandas", "pyarrow", "duckdb", "recbole_lsti.converters"),
    "compat.py": (
        "numpy",
        "pandas",
        "scipy",
        "torch",
        "recbole_lsti.config",
        "recbole_lsti.data.loader",
        "recbole_lsti.data.sampler",
        "recbole_lsti.evaluation.collector",
        "recbole_lsti.evaluation.metrics",
    ),
    "checkpoint.py": ("numpy", "torch", "recbole_lsti._version"),
    "config_rules.py": ("recbole.evaluator", "recbole_lsti.data.folder"),
    "config.py": ("torch", "yaml", "recbole.config", "recbole.model", "recbole.utils", "recbole_lsti.config_rules"),
    "every_position.py": ("torch", "recbole.data"),
    "process.py": ("psutil",),
    "cluster.py": ("distributed",),
    "trainer.py": (
        *("torch", "tqdm", "recbole.trainer", "recbole.utils"),
        *("recbole_lsti.checkpoint", "recbole_lsti.config", "recbole_lsti.evaluation", "recbole_lsti.every_position"),
        "recbole_lsti.optimisation",
    ),
    "optimisation.py": ("torch",),
    "runner.py": (
        *("psutil", "torch", "yaml", "recbole.data", "recbole.utils", "recbole_lsti.checkpoint", "recbole_lsti.compat"),
        *("recbole_lsti.config", "recbole_lsti.data", "recbole_lsti.evaluation", "recbole_lsti.memory"),
        "recbole_lsti.model",
        "recbole_lsti.trainer",
    ),
}
# what reads and checks files starts fast
LIGHT = [
    f"data/{name}.py" for name in ("cache", "checker", "folder", "grouping", "lines", "profile", "reader", "synthetic")
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "properties" not in path.parts)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[tuple[str, dict[str, str]]]:
    """Each imported module, wherever the import stands, with the names it binds: local name -> dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, {alias.asname or alias.name.partition(".")[0]: alias.name}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from a import b` may import the module a.b
            for alias in node.names:
                yield f"{node.module}.{alias.name}", {alias.asname or alias.name: f"{node.module}.{alias.name}"}


def imported(path: Path) -> set[str]:
    return {name for name, _ in imports(ast.parse(path.read_text(encoding="utf-8")))}


def is_standard(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names or name.startswith("__future__")


def is_in(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_what_its_part_may(path: Path) -> None:
    found = {name for name in imported(path) if not is_standard(name)}
    if part_of(path) in ALLOWED:
        forbidden = {name for name in found if not is_in(name, (*LIGHT_ROOMS, *ALLOWED[part_of(path)]))}
    else:  # benchmark, tune, recommend, explain, report, ... stand above the runner and may import anything but cli
        forbidden = set()
    if part_of(path) not in ("cli.py",):
        forbidden |= {name for name in found if is_in(name, ("recbole_lsti.cli",))}
    assert not forbidden, f"{path.relative_to(PACKAGE)} must not import {sorted(forbidden)}"


@pytest.mark.parametrize("name", LIGHT)
def test_files_are_read_and_checked_without_torch_or_recbole(name: str) -> None:
    heavy = {found for found in imported(PACKAGE / name) if is_in(found, ("torch", "recbole"))}
    inside = {found for found in imported(PACKAGE / name) if is_in(found, ("recbole_lsti",))}
    assert not heavy
    light = (*LIGHT_ROOMS, *(f"recbole_lsti.data.{Path(light).stem}" for light in LIGHT))
    assert all(is_in(found, light) for found in inside)


def test_the_parts_named_are_there() -> None:
    # a rule for a part that has been renamed would hold for nobody
    there = {part_of(path) for path in MODULES}
    assert set(ALLOWED) <= there


def test_the_reader_of_imports_sees_every_form() -> None:
    tree = ast.parse(
        "import torch.nn as nn\nimport recbole.data\nfrom recbole_lsti import cli\n"
        "def late():\n    from pandas import DataFrame as Frame\n"
    )
    found = dict(imports(tree))
    assert found == {
        "torch.nn": {"nn": "torch.nn"},
        "recbole.data": {"recbole": "recbole.data"},
        "recbole_lsti.cli": {"cli": "recbole_lsti.cli"},
        "pandas.DataFrame": {"Frame": "pandas.DataFrame"},
    }


def assigned_to_imports(source: str) -> list[str]:
    """Assignments to an attribute of something imported from another package, as `line: target`."""
    tree = ast.parse(source)
    foreign = {
        local
        for name, bound in imports(tree)
        for local in bound
        if not is_in(name, ("recbole_lsti", "typing", "__future__"))
    }
    found = []
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
            targets = [ast.Attribute(node.args[0], "?", ast.Store())]
        for target in targets:
            root = target
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(target, ast.Attribute) and isinstance(root, ast.Name) and root.id in foreign:
                found.append(f"{node.lineno}: {ast.unparse(target)}")
    return found


@pytest.mark.parametrize(
    ("source", "n_found"),
    [
        ("import numpy as np\nnp.float_ = np.float64", 1),
        ("import torch\nsetattr(torch, 'load', None)", 1),
        ("from recbole.trainer import trainer\ndef f():\n    trainer.amp.x = 1", 1),
        ("import numpy as np\nx = np.zeros(3)\nx.flags.writeable = False\nclass A: pass\nA.b = 1", 0),
    ],
)
def test_assignments_to_other_packages_are_seen(source: str, n_found: int) -> None:
    assert len(assigned_to_imports(source)) == n_found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_compat_changes_other_packages(path: Path) -> None:
    if path.name == "compat.py":
        assert assigned_to_imports(path.read_text(encoding="utf-8")), "compat is where it happens"
    else:
        assert assigned_to_imports(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import recbole_lsti", ("torch", "recbole", "pandas", "numpy")),
        ("import recbole_lsti.doctor", ("torch", "recbole", "pandas", "numpy")),
        ("import recbole_lsti.cli", ("torch", "recbole", "pandas", "numpy")),
    ],
)
def test_importing_is_light(statement: str, heavy: tuple[str, ...]) -> None:
    script = f"import sys\n{statement}\nprint(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert done.stdout.split() == []


# ---- what is packaged --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    if not (ROOT / "setup.cfg").is_file():
        pytest.skip("setup.cfg is part of a checkout alone")
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_every_subpackage_is_packaged(setup_cfg: configparser.ConfigParser) -> None:
    code = {module_name(path) for path in PACKAGE.rglob("__init__.py")}
    defaults = {
        ".".join(("recbole_lsti", *path.parent.relative_to(ROOT).parts))
        for path in (ROOT / "properties").rglob("*.yaml")
    }
    assert set(setup_cfg["options"]["packages"].split()) == code | defaults


def test_every_kind_of_file_is_packaged(setup_cfg: configparser.ConfigParser) -> None:
    data = setup_cfg["options.package_data"]
    folders = {path.parent for path in (ROOT / "properties").rglob("*.yaml")}
    for folder in folders:
        name = ".".join(("recbole_lsti", *folder.relative_to(ROOT).parts))
        assert "*.yaml" in data[name].split(), f"{name} must have its *.yaml in package_data"
    assert "py.typed" in data["recbole_lsti"].split()


def test_the_version_has_one_home(setup_cfg: configparser.ConfigParser) -> None:
    assert setup_cfg["metadata"]["version"] == "attr: recbole_lsti._version.__version__"
