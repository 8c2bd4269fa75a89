"""What Tab offers: asked as bash asks, of the program as a process."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from lake_builder import ES, START_NS, quote, recording, trade
from programs import LIMIT_S, environment

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lake")
    for day in range(2):
        with recording(root, start_ns=START_NS + day * 86_400 * 10**9) as session:
            session.receive(quote(bestBid=1.0), trade())
            session.finish()
    return root


def offered(lake: Path, line: str) -> list[str]:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    result = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['mdcapture']; from mdcapture.cli import main; main()"],
        env=environment(_MDCAPTURE_COMPLETE="complete_bash", MDCAPTURE_LAKE=str(lake), **words),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert not result.stderr
    return result.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mdcapture analyze ", ["latest", "session_20231225_230000", "session_20231226_230000"]),
        ("mdcapture export session_20231226", ["session_20231226_230000"]),
        ("mdcapture compare latest session_20231225", ["session_20231225_230000"]),
        ("mdcapture plot price latest --contract ", [ES]),
        ("mdcapture analyze --metric roll", ["roll_spread"]),
        ("mdcapture analyze --lake /nowhere --contract E", []),
        ("mdcapture plot footp", ["footprint"]),
    ],
)
def test_tab_offers_what_the_lake_holds(lake: Path, line: str, expected: list[str]):
    assert offered(lake, line) == expected
