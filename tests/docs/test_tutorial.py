"""The tutorial, line by line, as a newcomer follows it: each block in its order, in one empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pages import ROOT, blocks
from programs import LIMIT_S, environment, simulator

if TYPE_CHECKING:
    import pytest

PAGE = ROOT / "docs/tutorial.md"
ADDRESS = "http://127.0.0.1:5000"


def shell(script: str, folder: Path) -> str:
    """Run lines of the shell, of which each must succeed, with this environment's programs."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment(PATH=programs),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert result.returncode == 0, f"{script}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_the_tutorial_works_line_by_line(tmp_path: Path, subtests: pytest.Subtests):
    first, *rest = blocks(PAGE, "sh")
    words = first.split()
    assert words[:2] == ["mdcapture", "simulate"]
    assert ADDRESS.endswith(words[words.index("--port") + 1])
    with simulator("--contract", "MNQ", "--rate", "400") as addresses:
        # What differs from the page: the port, and that a thousand messages stand for its minute.
        capture, *later = (block.replace(ADDRESS, addresses["api"]) for block in rest)
        assert "--duration 60s" in capture
        capture = capture.replace("--duration 60s", "--count 1000")
        shell(capture, tmp_path)
    for block in later:
        with subtests.test(block=block.splitlines()[0]):
            assert shell(block, tmp_path)
    for block in blocks(PAGE, "python"):
        with subtests.test(block=block.splitlines()[0]):
            (tmp_path / "block.py").write_text(block)
            assert shell("python -W error block.py", tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    assert {"data", "book.png", "flow.html", "report.html", "trades.csv", "everything"} <= made
    assert "http://" not in (tmp_path / "report.html").read_text().replace("http://www.w3.org", "")
