"""Disk, memory, files and queues that run out: what had arrived is kept, what could not be kept is named."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import unforced
from no_files import no_files
from programs import LIMIT_S, environment, mdcapture, simulator, start
from tapes import CONTRACT, records, write_tape
from trading_days import Day, next_session

import mdcapture as md
from mdcapture.capture.sealing import run_module
from mdcapture.lake.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mdcapture.session import Session

RECORDS = records(30_000)
TOO_LARGE_STACK = 1 << 46
"""No thread is given so much memory."""
FIGURES = ("--stats", "json", "--set", "stats_s=0.1")


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tape(tmp_path_factory.mktemp("tape") / "market.ndjson", RECORDS, interval_ns=200_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, *, leave_kb: int) -> Path:
    """Fill a disk but for so much."""
    free = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - leave_kb * 1024))
    return filler


@contextmanager
def recording(tape: Path, lake: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    with simulator("--tape", str(tape)) as gateway:
        process = start("capture", "--gateway", gateway["api"], "--lake", str(lake), "--contract", CONTRACT, *options)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def config_of(gateway: dict[str, Any], lake: Path, **more: object) -> md.Config:
    settings = {"gateway": gateway["api"], "lake": str(lake), "contracts": [CONTRACT], "username": "me"}
    return md.Config(**(settings | {"calendar": "weekly"} | more))


def wait_for(process: subprocess.Popen[str], name: str, least: float) -> dict[str, Any]:
    """Read live figures until one has grown to a value."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{"):
            figures: dict[str, Any] = json.loads(line)
            if figures[name] >= least:
                return figures
    pytest.fail(f"it ended before {name} was {least}")


def stored(session: Session) -> list[bytes]:
    return [text.encode() for text in session.messages().select("payload").collect()["payload"]]


def incidents(session: Session, kind: str) -> list[dict[str, Any]]:
    return session.incidents().filter(pl.col("kind") == kind).collect().to_dicts()


def assert_verified(lake: Path) -> None:
    result = mdcapture("verify", "--deep", "--lake", str(lake))
    assert result.returncode == 0, result.stdout


def test_a_capture_ends_cleanly_before_the_disk_is_full(tape: Path, small_disk: Path):
    lake = small_disk / "lake"
    limits = ("--set", "disk_stop_mb=32", "--set", "disk_warn_mb=60", "--set", "memory_check_s=0.05")
    fill(small_disk, leave_kb=34 * 1024)
    with recording(tape, lake, *limits) as process:
        _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 6, errors
    assert "disk_stop_mb" in errors
    session = md.open_lake(lake).session()
    assert session.status == "sealed"
    assert stored(session) == RECORDS[: session.counts["messages"]] != []
    assert [incident["detail"].split(":")[0] for incident in incidents(session, "limit")] == ["disk_warn", "disk_stop"]
    assert_verified(lake)


def test_a_full_disk_costs_nothing_that_memory_has_room_for(tape: Path, small_disk: Path):
    lake = small_disk / "lake"
    filler = fill(small_disk, leave_kb=512)
    options = ("--set", "disk_stop_mb=0", "--count", str(len(RECORDS)), "--duration", "60s", "--json")
    with recording(tape, lake, *options, *FIGURES) as process:
        wait_for(process, "disk_failing", 1)
        wait_for(process, "pending_kb", 256)
        filler.unlink()
        output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    assert json.loads(output)["messages"] == len(RECORDS)
    session = md.open_lake(lake).session()
    assert stored(session) == RECORDS
    assert "the disk refused" in " ".join(incident["detail"] for incident in incidents(session, "limit"))
    assert not incidents(session, "lost")
    assert_verified(lake)


def test_what_neither_disk_nor_memory_has_room_for_is_named_exactly(tape: Path, small_disk: Path):
    lake = small_disk / "lake"
    filler = fill(small_disk, leave_kb=512)
    options = ("--set", "disk_stop_mb=0", "--set", "disk_wait_mb=1", "--json", *FIGURES)
    with recording(tape, lake, *options) as process:
        figures = wait_for(process, "lost", 100)
        assert figures["pending_kb"] < 2048
        filler.unlink()
        written = wait_for(process, "messages", figures["messages"] + 6000)["messages"]
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    assert json.loads(output)["messages"] >= written
    session = md.open_lake(lake).session()
    (lost,) = incidents(session, "lost")
    count = int(re.match(r"\d+", lost["detail"])[0])
    kept = stored(session)
    before = next(number for number, (ours, theirs) in enumerate(zip(kept, RECORDS, strict=False)) if ours != theirs)
    assert kept == RECORDS[:before] + RECORDS[before + count : count + len(kept)]
    times = session.messages().select("recv_ns").collect()["recv_ns"]
    assert times[before - 1] <= lost["from_ns"] <= lost["to_ns"] <= times[before]
    gaps = [gap for gap in incidents(session, "gap") if gap["detail"] == "lost"]
    assert sorted(gap["stream"] for gap in gaps) == ["depth", "quotes", "trades"]
    assert all(gap["from_ns"] <= lost["from_ns"] and gap["to_ns"] >= lost["to_ns"] for gap in gaps)
    assert_verified(lake)


def test_a_disk_that_stays_full_loses_only_what_was_not_yet_written(tape: Path, small_disk: Path):
    lake = small_disk / "lake"
    filler = fill(small_disk, leave_kb=512)
    with recording(tape, lake, "--set", "disk_stop_mb=0", "--set", "segment_s=0.2", *FIGURES) as process:
        wait_for(process, "disk_failing", 1)
        wait_for(process, "pending_kb", 64)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 6, errors
    assert re.search(r"[\d,]+ messages that came since \S+ are lost", errors)
    filler.unlink()
    assert mdcapture("recover", "--lake", str(lake)).returncode == 0
    session = md.open_lake(lake).session()
    assert session.status == "recovered"
    assert stored(session) == RECORDS[: session.counts["messages"]] != []
    assert_verified(lake)


def test_a_disk_that_forces_nothing_costs_nothing(tape: Path, tmp_path: Path):
    with simulator("--tape", str(tape)) as gateway:
        options = ("--gateway", gateway["api"], "--lake", str(tmp_path), "--contract", CONTRACT, "--count", "8000")
        command = (sys.executable, unforced.__file__, "capture", *options, "--set", "segment_s=0.3")
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "can't be forced onto the disk" in done.stderr
    session = md.open_lake(tmp_path).session()
    assert session.status == "sealed"
    assert read_manifest(tmp_path, session.session_id).sealed_segment > 1
    assert stored(session) == RECORDS[: session.counts["messages"]]


def test_a_trading_day_that_ends_while_the_disk_is_full_ends_when_there_is_room(tape: Path, small_disk: Path):
    lake = small_disk / "lake"
    day = Day()
    filler = fill(small_disk, leave_kb=512)
    with simulator("--tape", str(tape), "--speed", "0.5") as gateway:
        config = config_of(gateway, lake, duration_s=60, disk_stop_mb=0, memory_check_s=0.2, **day.settings)
        with md.Recorder(config, api_key="demo", clock=day) as recorder:
            recorder.start()
            while not ((figures := recorder.figures()) and figures.disk_failing):
                assert recorder.wait(0.01) is None
            day.end()
            while day() < day.roll_ns + 5 * 10**8:
                time.sleep(0.01)
            filler.unlink()
            next_session(recorder, figures.session_id)
            recorder.stop()
            captured = recorder.wait()
    assert captured is not None
    first, second = md.open_lake(lake).sessions()
    assert captured.sessions == [first.session_id, second.session_id]
    assert [first.status, second.status] == ["sealed", "sealed"]
    both = stored(first) + stored(second)
    assert both == RECORDS[: len(both)]
    assert len(both) > first.counts["messages"]
    assert first.end_ns is not None
    assert first.end_ns > day.roll_ns
    assert_verified(lake)


@pytest.mark.parametrize(
    ("setting", "limit"),
    [
        ("memory_soft_mb=1", "memory_soft"),
        ("memory_hard_mb=1", "memory_hard"),
        ("disk_warn_mb=1e9", "disk_warn"),
        ("files_warn=1", "files_warn"),
    ],
)
def test_a_limit_is_told_once_and_costs_no_message(tape: Path, tmp_path: Path, setting: str, limit: str):
    options = ("--set", setting, "--set", "memory_check_s=0.05", "--count", "5000", "--json", *FIGURES)
    with recording(tape, tmp_path, *options) as process:
        figures = wait_for(process, "messages", 1)
        output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    assert figures["limits"] == [limit]
    session = md.open_lake(tmp_path).session()
    assert stored(session) == RECORDS[: json.loads(output)["messages"]]
    (incident,) = incidents(session, "limit")
    assert incident["detail"].startswith(f"{limit}: ")


def test_much_memory_closes_a_segment_early_and_a_large_segment_closes_too(tape: Path, tmp_path: Path):
    for lake, setting in ((tmp_path / "soft", "memory_soft_mb=1"), (tmp_path / "large", "segment_mb=1")):
        options = ("--set", setting, "--set", "memory_check_s=1", "--count", "9000")
        with recording(tape, lake, *options) as process:
            _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, errors
        session = md.open_lake(lake).session()
        assert read_manifest(lake, session.session_id).sealed_segment > 1
        assert stored(session) == RECORDS[: session.counts["messages"]]


def test_too_much_memory_silences_handlers_and_nothing_else(tape: Path, tmp_path: Path):
    seen = 0

    def see(_event: object) -> None:
        nonlocal seen
        seen += 1

    with simulator("--tape", str(tape)) as gateway:
        config = config_of(gateway, tmp_path, count=5000, memory_hard_mb=1, memory_check_s=0.05)
        with md.Recorder(config, api_key="demo") as recorder:
            recorder.on_depth(see)
            captured = recorder.run()
            figures = recorder.figures()
    assert stored(md.open_lake(tmp_path).session()) == RECORDS[: captured.messages]
    assert figures is not None
    assert figures.dropped > 0
    assert seen < captured.depth


def test_without_a_free_file_handle_a_capture_goes_on(tape: Path, tmp_path: Path):
    with simulator("--tape", str(tape)) as gateway:
        config = config_of(gateway, tmp_path, memory_check_s=0.1, segment_s=0.3)
        with md.Recorder(config, api_key="demo") as recorder:
            recorder.start()
            while (figures := recorder.figures()) is None or figures.messages < 500:
                assert recorder.wait(0.01) is None
            with no_files():
                began_ns = figures.at_ns
                while figures is None or figures.at_ns < began_ns + 1_500_000_000:  # each look has had its turn
                    assert recorder.wait(0.01) is None
                    figures = recorder.figures()
            recorder.stop()
            captured = recorder.wait()
    assert captured is not None
    assert captured.status == "sealed"
    assert captured.messages >= figures.messages > 1000
    assert figures.memory_mb > 0
    assert stored(md.open_lake(tmp_path).session()) == RECORDS[: captured.messages]


def test_a_process_that_can_not_be_started_is_trouble_and_no_error(tmp_path: Path):
    async def run() -> str:
        with no_files():
            return await run_module("mdcapture.lake", "recover", str(tmp_path))

    assert "no process can be started" in asyncio.run(run())


def test_a_thread_that_can_not_be_started_is_trouble_and_no_error(tmp_path: Path):
    """Python 3.11 waits for each process in a thread of its own."""

    async def run() -> str:
        before = threading.stack_size(TOO_LARGE_STACK)
        try:
            return await run_module("mdcapture.lake", "recover", str(tmp_path))
        finally:
            threading.stack_size(before)

    trouble = asyncio.run(run())
    assert trouble == "" or "no process can be started" in trouble
