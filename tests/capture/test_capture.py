"""Capturing through the front door: a gateway on a real socket, the program as a process, the files on disk."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import polars as pl
import pytest
from programs import LIMIT_S, counted, mdcapture, simulator, start
from tapes import CONTRACT, records, write_tape

from mdcapture.session import open_lake

if TYPE_CHECKING:
    from pathlib import Path

    from mdcapture.session import Session

TABLES = ("quotes", "trades", "depth", "messages", "rejects")


def rows(session: Session, table: str) -> pl.DataFrame:
    """A table without what depends on when it was received."""
    frame = getattr(session, table)().drop("session_id", "recv_ns").collect()
    return frame.sort(["seq", "pos"] if "pos" in frame.columns else ["seq"], nulls_last=True)


def captured(gateway: dict[str, str], lake: Path, *options: str) -> dict[str, object]:
    result = mdcapture("capture", "--gateway", gateway["api"], "--lake", str(lake), "--json", *options)
    assert result.returncode == 0, result.stderr
    summary: dict[str, object] = json.loads(result.stdout)
    return summary


def assert_same_rows(lake: Path, imported: Path) -> None:
    theirs, ours = open_lake(imported).session(), open_lake(lake).session()
    for table in TABLES:
        assert rows(ours, table).equals(rows(theirs, table)), table


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tape(tmp_path_factory.mktemp("tape") / "market.ndjson", records(5000))


@pytest.fixture(scope="module")
def imported(tape: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("imported")
    result = mdcapture("import", str(tape), "--lake", str(lake), "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["messages"] == 5000
    return lake


@pytest.mark.parametrize("options", [("--speed", "max"), ("--speed", "max", "--pack"), ("--speed", "5", "--pack")])
def test_what_is_captured_is_what_is_imported(tape: Path, imported: Path, tmp_path: Path, options: tuple[str, ...]):
    with simulator("--tape", str(tape), *options) as gateway:
        summary = captured(gateway, tmp_path, "--contract", CONTRACT, "--count", "5000", "--duration", "60s")
    assert (summary["messages"], summary["status"]) == (5000, "sealed")
    assert_same_rows(tmp_path, imported)


def test_segments_that_are_sealed_on_the_way_make_the_same_session(tape: Path, imported: Path, tmp_path: Path):
    with simulator("--tape", str(tape), "--speed", "2") as gateway:
        settings = ("--set", "segment_s=0.5", "--set", "flush_ms=1")
        captured(gateway, tmp_path, "--contract", CONTRACT, "--count", "5000", "--duration", "60s", *settings)
    assert_same_rows(tmp_path, imported)
    assert len(list(tmp_path.glob("messages/*/*/*.parquet"))) == 1
    assert not list(tmp_path.glob("journal/*"))


def test_the_tape_of_real_futures_at_full_speed(shared: Path, tmp_path: Path):
    tape = str(shared / "tapes/es_20231225.ndjson.zst")
    with simulator("--tape", tape, "--speed", "max", "--pack") as gateway:
        summary = captured(gateway, tmp_path / "captured", "--contract", "CON.F.US.EP.H24", "--count", "47262")
    expected = {"messages": 47_262, "quotes": 4_579, "trades": 2_972, "depth": 73_239, "rejects": 1}
    assert {name: summary[name] for name in expected} == expected
    mdcapture("import", tape, "--lake", str(tmp_path / "imported"))
    assert_same_rows(tmp_path / "captured", tmp_path / "imported")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_capture_cleanly(tape: Path, tmp_path: Path, stop: signal.Signals):
    with simulator("--tape", str(tape)) as gateway:
        options = ("--gateway", gateway["api"], "--lake", str(tmp_path), "--contract", CONTRACT, "--json")
        process = start("capture", *options, "--stats", "json", "--set", "stats_s=0.1")
        assert process.stderr is not None
        while '"messages":0' in process.stderr.readline():
            continue
        process.send_signal(stop)
        output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    summary = json.loads(output)
    assert summary["status"] == "sealed"
    assert summary["messages"] == counted(tmp_path, "messages") > 0


def test_a_killed_capture_is_recovered_by_the_next_start(tape: Path, tmp_path: Path):
    with simulator("--tape", str(tape)) as gateway:
        options = ("--gateway", gateway["api"], "--lake", str(tmp_path), "--contract", CONTRACT)
        process = start("capture", *options, "--stats", "json", "--set", "stats_s=0.1")
        assert process.stderr is not None
        while '"messages":0' in (line := process.stderr.readline()):
            continue
        seen = json.loads(line)["messages"]
        process.kill()
        process.communicate(timeout=LIMIT_S)
        captured(gateway, tmp_path, "--contract", CONTRACT, "--duration", "1s")
    killed, following = open_lake(tmp_path).sessions()
    assert (killed.status, following.status) == ("recovered", "sealed")
    assert killed.counts["messages"] >= seen
    assert killed.messages().select("seq").collect()["seq"].to_list() == list(range(killed.counts["messages"]))


def test_streams_can_be_left_out(tape: Path, tmp_path: Path):
    with simulator("--tape", str(tape), "--speed", "20") as gateway:
        options = ("--no-depth", "--no-quotes", "--duration", "2s")
        summary = captured(gateway, tmp_path, "--contract", CONTRACT, *options)
    assert summary["trades"] != 0
    assert (summary["quotes"], summary["depth"]) == (0, 0)


def test_two_recorders_write_one_lake_at_once(tape: Path, tmp_path: Path):
    with simulator("--tape", str(tape), "--speed", "5") as gateway:
        options = ("--gateway", gateway["api"], "--lake", str(tmp_path), "--contract", CONTRACT, "--json")
        processes = [start("capture", *options, "--duration", "2s") for _ in range(2)]
        summaries = [json.loads(process.communicate(timeout=LIMIT_S)[0]) for process in processes]
    assert len({summary["session_id"] for summary in summaries}) == 2
    assert counted(tmp_path, "messages") == sum(summary["messages"] for summary in summaries) > 0


def test_another_process_sees_a_running_session(tape: Path, tmp_path: Path):
    with simulator("--tape", str(tape)) as gateway:
        options = ("--gateway", gateway["api"], "--lake", str(tmp_path), "--contract", CONTRACT, "--stats", "json")
        process = start("capture", *options, "--duration", "6s", "--set", "stats_s=0.1")
        assert process.stderr is not None
        while '"messages":0' in process.stderr.readline():
            continue
        ages_s = []
        while process.poll() is None and len(ages_s) < 10:
            newest = open_lake(tmp_path).session().messages().select(pl.col("recv_ns").max()).collect().item()
            if newest is not None:
                ages_s.append(time.time() - newest / 1e9)
        process.communicate(timeout=LIMIT_S)
    assert ages_s
    assert min(ages_s) < 1
