"""A capture that runs while it is watched."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from programs import LIMIT_S, simulator, start

from mdcapture.capture.health import read_status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTRACTS = ("MNQ", "ES")


@dataclass(frozen=True)
class Running:
    """A lake, and the process that records into it."""

    lake: Path
    pid: int
    session_id: str


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A capture of two contracts that goes on."""
    lake = tmp_path_factory.mktemp("watched") / "lake"
    wanted = [option for name in CONTRACTS for option in ("--contract", name)]
    with simulator("--rate", "100", *wanted) as addresses:
        options = ("--gateway", addresses["api"], "--lake", str(lake), "--set", "segment_s=2", "--stats", "none")
        process = start("capture", *options, *wanted)
        try:
            yield Running(lake, process.pid, _first_session(lake))
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=LIMIT_S)
            assert process.returncode == 0, errors


def _first_session(lake: Path) -> str:
    """The session, as soon as both contracts have had quotes and trades, and something is sealed."""
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        for manifest in lake.glob("sessions/*.json"):
            figures = read_status(lake, manifest.stem)
            known = figures is not None and all(one.last_price and one.best_bid for one in figures.contracts)
            if known and json.loads(manifest.read_bytes())["files"]:
                return manifest.stem
        time.sleep(0.05)
    raise AssertionError("the capture has not begun")


@pytest.fixture(scope="session")
def address(running: Running) -> Iterator[str]:
    """Where that capture's lake is served."""
    process = start("serve", "--lake", str(running.lake), "--port", "0")
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["url"]
    process.terminate()
    _, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, errors) == (0, "")
