"""The documentation says what the code does: what exists is on its page, and what the pages name exists."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import tomllib
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec
import pytest
from pages import ROOT, WRITTEN, as_kept, blocks, command_lines, generated_pages
from typer.main import get_command

import mdcapture
from mdcapture.analysis.catalogue import METRICS
from mdcapture.analysis.kinds import Kind
from mdcapture.cli.app import app
from mdcapture.config import Config
from mdcapture.lake.schema import TABLES, IncidentKind
from mdcapture.wire.decode import Reason

if TYPE_CHECKING:
    from pathlib import Path

REPLACED = [
    "username",
    "contract",
    "duration",
    "enable_quotes",
    "enable_trades",
    "enable_depth",
    "memory_check_interval",
    "max_memory_usage_mb",
    "gc_threshold",
    "reconnect_attempts",
    "validate_data",
    "stats_interval",
    "batch_size",
    "batch_timeout",
    "enable_wal",
    "db_type",
    "db_path",
]


@pytest.fixture(scope="module")
def site() -> dict[str, str]:
    return generated_pages()


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_what_a_page_keeps_of_the_program_is_what_the_program_says(page: Path):
    assert as_kept(page.read_text()) == page.read_text(), "`make docs` renews it"


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def first_cells(page: str, after: str = "") -> set[str]:
    """The names in code of the first column of a page's tables, after a heading."""
    part = page.split(after, 1)[1] if after else page
    rows = re.findall(r"^\| (`[^|]*?) \|", part, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


# Settings.


def test_every_setting_is_documented_with_its_default():
    page = text("configuration.md").split("## What became")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
    defaults = msgspec.structs.asdict(Config())
    said = {name: "none" if value is None else f"`{value!r}`".replace("'", '"') for name, value in defaults.items()}
    assert documented == said


@pytest.mark.parametrize("setting", REPLACED)
def test_every_setting_of_the_replaced_system_has_its_successor(setting: str):
    assert f"`{setting}`" in text("configuration.md").split("## What became")[1]


# Commands.


def test_every_command_and_option_is_documented(site: dict[str, str]):
    page = site["reference/commands.md"]
    for name, command in get_command(app).commands.items():
        inner = getattr(command, "commands", {"": command})
        for word, one in inner.items():
            part = page.split(f"## `mdcapture {f'{name} {word}'.strip()}`\n")[1].split("\n## ")[0]
            assert one.help.split("\n")[0].split()[0] in part
            for parameter in one.params:
                assert all(
                    option in part for option in (*parameter.opts, *parameter.secondary_opts) if option[0] == "-"
                )


CALLS = [(page, words) for page in WRITTEN for words in command_lines(page)]


@pytest.mark.parametrize(
    ("page", "words"), CALLS, ids=[f"{page.name}: {' '.join(words)[:60]}" for page, words in CALLS]
)
def test_every_command_line_in_the_pages_is_one(page: Path, words: list[str]):
    """Its options are parsed and its arguments counted as when it runs, up to the moment at which it would."""
    command = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    assert not hasattr(command, "commands") or words[0].startswith("-"), f"{page.name}: no command {words[0]}"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        command.make_context("mdcapture", words)


def test_every_command_with_json_says_what_is_in_it():
    page = first_cells(text("reference/json.md"))
    for name, command in get_command(app).commands.items():
        inner = getattr(command, "commands", {"": command})
        for word, one in inner.items():
            has_json = any("--json" in parameter.opts for parameter in one.params)
            assert not has_json or f"{name} {word}".strip() in page, name


def test_every_extra_is_documented():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras.keys() == first_cells(text("installing.md"), "## Extras")


# Python.


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.name)
def test_what_the_python_in_the_pages_imports_exists(page: Path):
    for block in blocks(page, "python"):
        tree = compile(block, page.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mdcapture"):
                module = import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), block
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "md":
                assert hasattr(mdcapture, node.attr), block


def test_every_public_name_has_a_docstring():
    for name in mdcapture.__all__:
        assert (getattr(mdcapture, name).__doc__ or "").strip(), name


# Data.


def test_every_table_and_column_is_documented(site: dict[str, str]):
    page = site["reference/tables.md"]
    for table in TABLES.values():
        assert {column.name for column in table.columns} <= first_cells(page, f"## `{table.name}`"), table.name


def test_every_column_of_the_views_is_documented(site: dict[str, str]):
    from reference import view_columns  # noqa: PLC0415  # a script of the site's, found by the fixture

    page = site["reference/tables.md"]
    views = first_cells(page, "## Views of SQL")
    for view, columns in view_columns().items():
        declared = first_cells(page, f"## `{view}`\n") if view in TABLES else first_cells(page)
        assert view in views
        assert {name for name, *_ in columns} - {"session_id", "contract_id"} <= views | declared, view


def test_every_incident_and_reason_is_documented():
    cells = first_cells(text("concepts.md"))
    assert cells >= {str(kind) for kind in IncidentKind}
    assert cells >= {str(reason) for reason in Reason}


# Numbers and pictures.


def test_every_metric_of_an_analysis_is_documented_as_it_is_declared():
    page = text("analysis.md")
    rows = {
        row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    }
    for name, metric in METRICS.items():
        least = f"{metric.least} {metric.counts}" if metric.least > 1 else ""
        said = (metric.unit, metric.definition.replace("|", "\\|"), metric.source, least)
        assert tuple(cell.strip() for cell in rows[name]) == said, name


def test_every_chart_is_documented():
    assert first_cells(text("analysis.md"), "## The charts") >= {str(kind) for kind in Kind}


def functions(room: str) -> list[str]:
    """The public functions of a room, as `spreads.quoted_spread`."""
    found = []
    for path in sorted((ROOT / "mdcapture" / room).glob("*.py")):
        module = import_module(f"mdcapture.{room}.{path.stem}")
        public = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
        found += [f"{path.stem}.{name}" for name, value in public.items() if inspect.isroutine(value)]
    return found


def test_every_function_of_the_metrics_is_in_the_reference(site: dict[str, str]):
    for name in functions("metrics"):
        module, function = name.split(".")
        assert f"::: mdcapture.metrics.{module}" in site[f"reference/python/mdcapture.metrics.{module}.md"]
        assert (getattr(import_module(f"mdcapture.metrics.{module}"), function).__doc__ or "").strip(), name


# Links.


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_within_the_project_lead_somewhere(page: Path):
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target
