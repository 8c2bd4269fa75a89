"""The house: imports run one way, each heavy library has its rooms, and what is not used is not imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mdcapture"

# From the foundation up: a room imports from those before it, never from those after it.
ROOMS = (
    "errors",
    "config",
    "wire",
    "lake",
    "gateway",
    "simulator",
    "capture",
    "query",
    "metrics",
    "live",
    "charts",
    "interop",
    "analysis",
    "tables",
    "session",
    "report",
    "serve",
    "demo",
    "cli",
)

# Who may import what is heavy; a file stands for itself, a room for all of its files.
HEAVY = {
    "msgspec": ("config", "wire", "lake", "gateway", "simulator", "capture", "interop", "serve", "cli"),
    "pyarrow": ("lake", "gateway/tape", "query", "interop", "cli/output"),
    "numpy": ("lake", "metrics", "live", "analysis", "interop/books", "interop/dbn", "interop/hftbacktest"),
    "websockets": ("gateway",),
    "aiohttp": ("gateway", "simulator", "capture/exposition", "serve"),
    "psutil": ("capture",),
    "duckdb": ("query", "interop/formats"),
    "sqlglot": ("query",),
    "polars": ("metrics", "live", "charts", "interop", "analysis", "tables", "session", "report", "serve", "demo"),
    "scipy": ("metrics", "analysis/laws"),
    "altair": ("charts",),
    "adbc_driver_postgresql": ("interop/postgres",),
    "databento_dbn": ("interop/dbn",),
    "nautilus_trader": ("interop/nautilus",),
    "distributed": ("interop/cluster",),
    "typer": ("cli",),
    "rich": ("cli",),
}


def modules() -> dict[str, Path]:
    """Every module of the package by its path without the package and the suffix, as `lake/seal`."""
    return {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file, but for what only a type checker reads."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(module: str) -> str:
    return module.split("/", maxsplit=1)[0]


@pytest.mark.parametrize("module", [name for name in modules() if room(name) in ROOMS])
def test_imports_run_one_way(module: str):
    here = ROOMS.index(room(module))
    for name in imported(modules()[module]):
        if name.startswith("mdcapture."):
            there = name.split(".")[1]
            assert there not in ROOMS or ROOMS.index(there) <= here, f"{module} imports {name}"


def test_every_room_is_on_the_list():
    outside = {room(name) for name in modules()} - set(ROOMS) - {"__init__", "__main__"}
    assert not outside


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_stays_in_its_rooms(library: str):
    users = {name for name, path in modules().items() if any(i.split(".")[0] == library for i in imported(path))}
    strangers = {
        name for name in users if not any(name == home or name.startswith(home + "/") for home in HEAVY[library])
    }
    assert not strangers


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after some code."""
    script = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split("\n")[-2].split())


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_by("import mdcapture") & HEAVY.keys()


def test_help_loads_only_the_terminal():
    code = "import sys, contextlib; sys.argv = ['mdcapture', '--help']\nfrom mdcapture.cli import main\n"
    assert loaded_by(f"{code}with contextlib.suppress(SystemExit): main()") & HEAVY.keys() <= {"typer", "msgspec"}


@pytest.mark.parametrize(
    "module", [name for name in modules() if not name.startswith("cli/") and "__main__" not in name]
)
def test_every_module_says_what_is_public(module: str):
    path = modules()[module]
    tree = ast.parse(path.read_text())
    has_code = any(not isinstance(node, ast.Expr) for node in tree.body)
    names = [ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    assert not has_code or "__all__" in names
