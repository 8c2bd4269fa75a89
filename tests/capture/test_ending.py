"""How a capture ends: once, by one writer, with all that is missing named, and nothing left that nobody writes."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from typing import TYPE_CHECKING

import polars as pl
import pytest
from lake_builder import MS, START_NS
from programs import LIMIT_S, simulator
from small_disk import SmallDisk
from tapes import CONTRACT, records, write_tape
from trading_days import Day

import mdcapture as md
from mdcapture.capture.feed import Feed
from mdcapture.capture.scribe import Scribe
from mdcapture.errors import StorageError
from mdcapture.gateway.hub import Subscription
from mdcapture.lake.journal import IncidentBlock, read_blocks
from mdcapture.lake.layout import segment_path
from mdcapture.lake.schema import STREAMS, Incident, IncidentKind
from mdcapture.lake.seal import finish, recover
from mdcapture.lake.writer import open_session
from mdcapture.simulator.faults import parse_fault
from mdcapture.simulator.server import Simulator, SimulatorConfig

if TYPE_CHECKING:
    from pathlib import Path

    from mdcapture.lake.writer import OpenSession

RECORDS = records(12_000)
TAKEN = 100_000
"""So many bytes of a journal are taken; a megabyte waits, and the rest is lost."""


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tape(tmp_path_factory.mktemp("tape") / "market.ndjson", RECORDS, interval_ns=100_000)


def config(api: str, lake: Path, **more: object) -> md.Config:
    settings = {"gateway": api, "lake": str(lake), "contracts": [CONTRACT], "username": "me", "calendar": "weekly"}
    return md.Config(**(settings | more), disk_stop_mb=0, disk_wait_mb=1, duration_s=60)


def scribe_of(session: OpenSession) -> Scribe:
    return Scribe(
        session,
        [Subscription(stream, CONTRACT) for stream in STREAMS],
        Feed(10, report=lambda _: None, keep=lambda *_: None),
        clock=lambda: START_NS,
        schedule=lambda: None,
        flush_bytes=1 << 20,
        wait_bytes=1 << 20,
    )


def stored(session: md.Session) -> list[bytes]:
    return [text.encode() for text in session.messages().sort("seq").select("payload").collect()["payload"]]


def test_what_is_lost_to_the_end_is_named_and_a_gap(tape: Path, tmp_path: Path):
    with (
        simulator("--tape", str(tape)) as gateway,
        SmallDisk(TAKEN) as disk,
        md.Recorder(config(gateway["api"], tmp_path), api_key="demo") as recorder,
    ):

        @recorder.on_incident
        def _(incident: Incident) -> None:
            if incident.kind == IncidentKind.LOST:  # it is told at the end: there is room only then
                disk.make_room()

        recorder.start()
        while (figures := recorder.figures()) is None or figures.lost < 100:
            assert recorder.wait(0.01) is None
        recorder.stop()
        captured = recorder.wait()
        figures = recorder.figures()
    assert captured is not None
    assert figures is not None
    session = md.open_lake(tmp_path).session()
    assert session.status == "sealed"
    assert stored(session) == RECORDS[: captured.messages]
    (lost,) = session.incidents().filter(pl.col("kind") == IncidentKind.LOST).collect().to_dicts()
    assert lost["detail"].startswith(f"{figures.lost} messages: ")
    gaps = session.gaps().collect().to_dicts()
    assert sorted(gap["stream"] for gap in gaps) == sorted(STREAMS)
    assert all(gap["from_ns"] <= lost["from_ns"] and gap["to_ns"] >= lost["to_ns"] for gap in gaps)


def test_a_disk_that_refuses_to_the_end_costs_what_the_error_says(tape: Path, tmp_path: Path):
    async def run() -> tuple[int, StorageError]:
        async with Simulator(SimulatorConfig(tape=str(tape), keep_records=True)) as gateway:
            with SmallDisk(TAKEN):
                async with md.Recorder(config(gateway.api, tmp_path), api_key="demo") as recorder:
                    gone = asyncio.Event()
                    loop = asyncio.get_running_loop()

                    @recorder.on_incident
                    def _(incident: Incident) -> None:
                        if incident.kind == IncidentKind.DISCONNECTED:
                            loop.call_soon_threadsafe(gone.set)

                    running = asyncio.create_task(recorder.arun())
                    while (figures := recorder.figures()) is None or figures.lost < 100:  # noqa: ASYNC110  # it tells nobody
                        await asyncio.sleep(0.01)
                    await gateway.strike(parse_fault("close"))  # what was sent before it has arrived
                    await gone.wait()
                    recorder.stop()
                    with pytest.raises(StorageError) as caught:
                        await running
            sent = [record for log in gateway.logs[:1] for record in log.records if b'"target":"Gateway' in record]
            return len(sent), caught.value

    sent, error = asyncio.run(run())
    recover(tmp_path)
    session = md.open_lake(tmp_path).session()
    kept = stored(session)
    assert kept == RECORDS[: len(kept)] != []
    said = re.search(r"([\d,]+) messages that came since \S+ are lost", str(error))
    assert said is not None
    assert int(said[1].replace(",", "")) == sent - len(kept)


def test_a_journal_that_is_about_to_be_closed_is_written_by_nobody_else(tmp_path: Path):
    with SmallDisk(4_000) as disk, open_session(tmp_path, START_NS) as session:
        scribe = scribe_of(session)
        scribe.on_records(START_NS, 1, RECORDS[:100])
        scribe.flush()
        assert scribe.disk_failing
        scribe.end()
        scribe.leave(session)
        disk.make_room()
        scribe.on_records(START_NS + MS, 1, RECORDS[100:])
        scribe.on_incident(Incident(IncidentKind.HANDLER_FAILED, None, None, START_NS, START_NS, "too late"))
        scribe.flush()
        folder = tmp_path / "journal" / session.session_id
        assert segment_path(folder, 1).stat().st_size == 0
        session.journal.end()
        finish(tmp_path, session.session_id, "sealed")
    assert stored(md.open_lake(tmp_path).session()) == RECORDS[:100]


def test_a_gap_is_told_in_the_segment_of_the_message_that_ends_it(tmp_path: Path):
    with open_session(tmp_path, START_NS) as session:
        scribe = scribe_of(session)
        scribe.on_incident(Incident(IncidentKind.DISCONNECTED, None, None, START_NS, START_NS))
        scribe.on_records(START_NS + MS, 1, RECORDS[:100])
        session.journal.retire(scribe.roll())
        blocks = list(read_blocks(segment_path(tmp_path / "journal" / session.session_id, 1).read_bytes()))
    kinds = [block.incident.kind for block in blocks if isinstance(block, IncidentBlock)]
    assert kinds == [IncidentKind.DISCONNECTED, *[IncidentKind.GAP] * len(STREAMS)]


def test_a_capture_that_ends_as_the_next_day_begins_leaves_no_session_that_nobody_writes(tape: Path, tmp_path: Path):
    day = Day()
    asked = 0

    def slow_clock() -> int:
        """The time; the second session has to wait for its own until the capture is about to end."""
        nonlocal asked
        if threading.current_thread().name.startswith("mdcapture-disk"):
            asked += 1
            limit_s = time.monotonic() + LIMIT_S
            if asked > 1:
                recorder.stop()
                while not recorder.ending and time.monotonic() < limit_s:
                    time.sleep(0.001)
        return day()

    with simulator("--tape", str(tape)) as gateway:
        recorder = md.Recorder(config(gateway["api"], tmp_path, **day.settings), api_key="demo", clock=slow_clock)
        with recorder:
            recorder.on_quote(lambda _: day.end())
            captured = recorder.run()
    assert asked > 1
    assert [session.session_id for session in md.open_lake(tmp_path).sessions()] == captured.sessions
    assert captured.status == "sealed"
    assert recover(tmp_path) == []
    assert [path.name for path in (tmp_path / "journal").iterdir()] == []
