"""R reads an export as its page says, where R is."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from lake_builder import MS, START_NS, record, trade
from pages import ROOT, blocks
from programs import mdcapture

if TYPE_CHECKING:
    from pathlib import Path

_NEEDED = "quit(status = !all(sapply(c('DBI', 'RSQLite', 'bit64'), requireNamespace, quietly = TRUE)))"


@pytest.fixture(scope="module")
def rscript() -> str:
    """R, with the packages that the page names."""
    program = shutil.which("Rscript")
    if program is None or subprocess.run([program, "-e", _NEEDED], check=False).returncode:
        pytest.skip("needs R with DBI, RSQLite and bit64 (Debian: r-base-core r-cran-rsqlite r-cran-bit64)")
    return program


def test_the_export_has_the_trades_to_the_last_digit_of_their_times(rscript: str, tmp_path: Path):
    record(tmp_path / "lake", trade(volume=2, side=0), trade(volume=3, side=1), trade(volume=4, side=1))
    exported = mdcapture("export", "latest", "-o", str(tmp_path / "session.sqlite"), "--lake", str(tmp_path / "lake"))
    assert exported.returncode == 0, exported.stderr
    page = next(block for block in blocks(ROOT / "docs/engines.md", "r") if "RSQLite" in block)
    digits = 'cat(format(dbGetQuery(session, "SELECT max(recv_ns) AS last FROM trades")$last), "\\n")'
    done = subprocess.run(
        [rscript, "-e", f"{page}\n{digits}"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    table = [line.split() for line in done.stdout.splitlines()]
    assert table[0] == ["side", "lots", "trades"]
    assert [row[1:] for row in table[1:3]] == [["0", "2", "1"], ["1", "7", "2"]]
    assert table[3] == [str(START_NS + MS)]
