"""`mdcapture top`: what it finds on this machine, and what it says of it."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lake_builder import MS, START_NS, recording, trade
from programs import LIMIT_S, environment, mdcapture
from rich.console import Console

from mdcapture.capture.health import ContractFigures, Figures, read_status
from mdcapture.capture.recordings import Recording, lakes_in_use, recordings
from mdcapture.cli.board import Board, lasting
from mdcapture.lake.schema import Incident
from mdcapture.serve.ladder import Print, Standing
from mdcapture.serve.live import Now
from mdcapture.serve.queries import Answer

if TYPE_CHECKING:
    import msgspec
    from conftest import Running

NAMES = {"lake", "session_id", "ok", "problems", "sealed_messages", "sealed_mb", "figures"}


def top(*options: str) -> Any:  # noqa: ANN401  # JSON
    result = mdcapture("top", "--once", "--json", *options)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def drawn(*found: Recording, now_ns: int = START_NS, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(Board().draw(found, now_ns))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_running_recorder_is_found_by_its_process(running: Running):
    assert running.lake in lakes_in_use()
    report = top()
    (found,) = (one for one in report["recordings"] if one["session_id"] == running.session_id)
    assert found["lake"] == str(running.lake)
    assert found["figures"]["pid"] == running.pid


def test_its_figures_are_those_that_it_publishes(running: Running):
    report = top("--lake", str(running.lake))
    assert report["ok"] is True
    (found,) = report["recordings"]
    assert set(found) == NAMES
    assert found["problems"] == []
    figures = found["figures"]
    assert figures["messages_per_s"] > 0
    assert 0 <= figures["lag_p50_ms"] <= figures["lag_p99_ms"]
    assert found["sealed_messages"] > 0
    assert len(figures["contracts"]) == 2
    for contract in figures["contracts"]:
        assert contract["best_bid"] < contract["best_ask"]
        assert abs(contract["last_price"] - contract["best_bid"]) < 50
        assert contract["gaps"] == []
        assert report["at_ns"] - contract["heard_ns"] < 60 * 10**9
        assert set(contract["rows_per_s"]) == {"quotes", "trades", "depth"}


def test_without_a_terminal_it_looks_once_in_plain_text(running: Running):
    result = mdcapture("top", "--lake", str(running.lake))
    assert result.returncode == 0
    assert "● recording" in result.stdout
    assert running.session_id in result.stdout
    assert "\x1b" not in result.stdout
    contract = result.stdout.partition("quiet")[2].split()
    assert contract[0].startswith("MNQ")
    assert float(contract[2]) < float(contract[3])


def test_on_a_terminal_it_draws_again_and_again_until_interrupted(running: Running):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [sys.executable, "-m", "mdcapture", "top", "--lake", str(running.lake), "--every", "0.1s"]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment(TERM="xterm")) as process:
        os.close(theirs)
        shown = b""
        while shown.count(running.session_id.encode()) < 3:
            shown += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        rest = bytearray()
        with suppress(OSError):  # so Linux says that nobody writes any more
            while piece := os.read(ours, 65_536):
                rest += piece
        assert process.wait(LIMIT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    os.close(ours)
    assert b"\x1b[?1049h" in shown  # a screen of its own,
    assert b"\x1b[?1049l" in rest  # left as it was


def test_where_nothing_is_recorded_it_says_so(tmp_path: Path):
    assert "Nothing is being recorded" in mdcapture("top", "--lake", str(tmp_path)).stdout
    assert recordings([tmp_path / "nowhere"], START_NS) == []


def test_a_recorder_that_died_is_not_well(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade())
    (found,) = recordings([tmp_path], START_NS)
    assert not found.ok
    text = drawn(found)
    assert "● not well" in text
    assert "is dead" in text


def figures(running: Running, **changed: object) -> Figures:
    published = read_status(running.lake, running.session_id)
    assert published is not None
    return Figures(**{name: getattr(published, name) for name in published.__struct_fields__} | changed)


def seen(running: Running, **changed: object) -> Recording:
    taken = figures(running, **changed)
    return Recording(
        lake="/lake", session_id="session_1", ok=True, problems=[], sealed_messages=1, sealed_mb=1.0, figures=taken
    )


def test_gaps_incidents_and_losses_are_told(running: Running):
    contracts = figures(running).contracts
    gap = Incident("gap", "trades", contracts[0].contract_id, START_NS, START_NS + 2_500 * MS, "disconnected")
    broken = type(contracts[0])(
        **{name: getattr(contracts[0], name) for name in contracts[0].__struct_fields__} | {"gaps": ["trades"]}
    )
    text = drawn(seen(running, last_incidents=[gap], contracts=[broken, contracts[1]], lost=7))
    assert "missing now" in text
    assert f"{contracts[0].name} trades" in text
    assert "2.5 s" in text
    assert "disconnected" in text
    assert "lost" in text


def test_what_the_feed_named_does_not_steer_the_terminal(running: Running):
    evil = Incident("gap", None, "\x1b[2J[red]x", START_NS, None, "\x1b]0;owned\x07")
    text = drawn(seen(running, last_incidents=[evil]))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]x" in text


def test_lengths_of_time_are_short():
    said = [lasting(seconds) for seconds in (-1, 0.44, 12.3, 90, 3600, 11_220, 200_000)]
    assert said == ["0.0 s", "0.4 s", "12.3 s", "1 min", "1 h 00 min", "3 h 07 min", "2 d 07 h"]


@pytest.mark.parametrize("published", [Recording, Figures, ContractFigures, Now, Standing, Print, Answer])
def test_every_name_that_is_published_is_documented(published: type[msgspec.Struct]):
    page = (Path(__file__).resolve().parents[2] / "docs/watching.md").read_text()
    assert {name for name in published.__struct_fields__ if f"`{name}`" not in page} == set()
