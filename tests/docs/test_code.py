"""The code in the pages runs: README's commands in their order, and the Python of those pages that are about a lake."""

from __future__ import annotations

import ast
import asyncio
import json
import sqlite3
import sys
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

import polars as pl
import pytest
from pages import ROOT, blocks, command_lines
from programs import simulator

import mdcapture as md
from mdcapture.cli import main
from mdcapture.demo import synthesize

if TYPE_CHECKING:
    from pathlib import Path

README = ROOT / "README.md"
DOCS = ROOT / "docs"


def run(*words: str) -> str:
    """Run a command in this process; it must succeed."""
    said = StringIO()
    sys.argv = ["mdcapture", *words]
    code = None
    with redirect_stdout(said):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert not code, words
    return said.getvalue()


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder, and a user in the environment."""
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MDCAPTURE_USERNAME", "me")
    monkeypatch.setenv("MDCAPTURE_API_KEY", "demo")
    return tmp_path


def test_the_readme_works_in_its_order(somebody: Path):
    assert len(blocks(README, "python")) == 1
    with simulator("--contract", "MNQ", "--contract", "ES", "--rate", "200") as addresses:
        calls = command_lines(README)
        capture = calls[0]
        assert capture[0] == "capture"
        # What differs from the page: the gateway, and that some hundred messages are enough.
        other = {"topstepx": addresses["api"], "--duration": "--count", "2h": "300"}
        run(*(other.get(word, word) for word in capture))
        code = blocks(README, "python")[0].replace("duration_s=3600", f"count=300, gateway='{addresses['api']}'")
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102  # our own page
    run("export", "latest", "-o", "old.db", "--format", "sqlite")
    assert not any("topstepx" in words for words in calls[1:])
    for words in (call for call in calls[1:] if call not in (["top"], ["serve"])):  # they go on until they are ended
        assert run(*words) or words[0] in ("plot", "report", "export"), words
    assert {"data", "book.png", "report.html", "out"} <= {path.name for path in somebody.iterdir()}
    assert len(md.open_lake("data").sessions()) == 3


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days, as the pages name them."""
    folder = tmp_path_factory.mktemp("pages")
    for start in ("2025-06-20T14:28:00Z", "2026-03-04T14:30:00Z"):
        synthesize(folder / "data", duration_s=360, contracts=["MNQ"], rate=5.0, start_ns=md.parse_ns(start))
    return folder


@pytest.mark.parametrize(
    "call",
    [
        ("sessions",),
        ("verify",),
        ("analyze",),
        ("compare", "latest", "session_20250620", "--every", "30s"),
        ("history", "volume"),
        ("config", "show"),
        ("backup", "copy"),
        ("prune", "--keep", "1", "--dry-run"),
        ("top", "--once"),
    ],
    ids=lambda call: call[0],
)
def test_the_names_of_json_are_those_of_the_page(call: tuple[str, ...], lake: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(lake)
    page = (DOCS / "reference/json.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(f"| `{call[0]}"))
    said = json.loads(run(*call, "--json", *([] if call[0] == "config" else ["--lake", "data"])))
    objects = said if isinstance(said, list) else [said]
    nested = [value[0] for value in objects[0].values() if isinstance(value, list) and value]
    listed = [one for one in nested if isinstance(one, dict)] if call[0] != "analyze" else []
    for one in [*objects, *listed]:
        for name in one:
            assert f"`{name}`" in row


@pytest.mark.parametrize(
    "page", ["moving.md", "notebooks.md", "analysis.md", "sqlite.md", "live.md", "configuration.md"]
)
def test_the_python_of_a_page_runs(
    page: str, lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """In its order, on a lake in `data`, with a session at hand, and a replay of it where there is a recorder."""
    monkeypatch.chdir(lake)
    opened = md.open_lake("data")
    session = opened.sessions()[0]
    names = {"md": md, "pl": pl, "lake": opened, "session": session, "sqlite3": sqlite3}
    code = blocks(DOCS / page, "python")
    assert code
    for block in code:
        names["recorder"] = md.Replay(session)
        there = block.replace("CON.F.US.MNQ.Z26", session.contracts[0].contract_id).replace("speed=10)", "speed=1e6)")
        running = eval(compile(there, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)  # noqa: S307  # ours
        if running is not None:
            asyncio.run(running)
    capsys.readouterr()
