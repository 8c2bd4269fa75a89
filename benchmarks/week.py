"""A week of recording, as fast as the disk takes it: does memory grow, are handles lost, do files pile up?

    records in memory ──▶ scribe ──▶ journal ──▶ sealer (processes) ──▶ lake
                            └──▶ feed (thread)

All is the recorder's own but the socket and the clock, which goes by the messages: so many of them are five trading
days, each a session of its own, with a broken connection now and then. Where sealing is slower than the journal grows,
the journal waits for it. Each session that has ended is proven and then removed, so that the disk holds one at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import psutil
from inputs import market_records

from mdcapture.capture import sealing
from mdcapture.capture.feed import Feed
from mdcapture.capture.scribe import Scribe
from mdcapture.config import Config
from mdcapture.gateway.hub import Subscription
from mdcapture.lake.manifest import read_manifest
from mdcapture.lake.prune import prune
from mdcapture.lake.schema import STREAMS, Incident, IncidentKind
from mdcapture.lake.writer import OpenSession, open_session

if TYPE_CHECKING:
    from collections.abc import Iterator

DAYS = 5
START_NS = 1_795_000_000_000_000_000
WEEK_NS = 5 * 23 * 3600 * 1_000_000_000
RECORDS = 20_000
CONTRACTS = 4
BATCH = 100
BREAK_EVERY = 250_000
SAMPLES = 60
MB = 1024 * 1024


class Sample(NamedTuple):
    """The recorder's process after so many messages."""

    messages: int
    memory_mb: float
    open_files: int


class Week:
    """A recorder without a gateway: `run` plays the messages.

    Args:
        root: The lake.
        messages: How many the week has.
        segment_mb: When a segment of the journal is closed and sealed.
    """

    def __init__(self, root: Path, messages: int, segment_mb: int) -> None:
        self.samples: list[Sample] = []
        self.files: list[int] = []
        self.stored = 0
        self.wrong: list[str] = []
        self.dropped = 0
        self._root = root
        self._messages = messages
        self._segment_bytes = segment_mb * MB
        self._now_ns = START_NS
        self._records = [record for _, record in market_records(RECORDS, CONTRACTS)]
        self._held = ExitStack()
        self._sealing: asyncio.Task[bool] | None = None
        self._process = psutil.Process()

    async def run(self) -> None:
        """Record the week."""
        batches = _batches(self._records)
        config = Config()
        feed = Feed(config.live_queue, report=self.wrong.append, keep=lambda _, __: None)
        feed.start()
        scribe = Scribe(
            self._open(),
            self._subscriptions(),
            feed,
            clock=lambda: self._now_ns,
            schedule=lambda: None,
            flush_bytes=config.flush_kb * 1024,
            wait_bytes=config.disk_wait_mb * MB,
        )
        step_ns = WEEK_NS * BATCH // self._messages
        day, connection = 0, 1
        for number in range(0, self._messages, BATCH):
            self._now_ns += step_ns
            if number // BREAK_EVERY >= connection:
                connection += 1
                self._reconnect(scribe)
            scribe.on_records(self._now_ns, connection, next(batches))
            scribe.flush()
            if scribe.session.journal.segment_bytes >= self._segment_bytes:
                await self._seal_segment(scribe.session)
            if number * DAYS // self._messages > day:
                day += 1
                await self._turn(scribe)
            if number * SAMPLES // self._messages >= len(self.samples):
                self._sample(number)
                await asyncio.sleep(0)
        scribe.end()
        await self._end(scribe.session, self._held)
        feed.stop()
        self.dropped = feed.dropped

    def _open(self) -> OpenSession:
        return self._held.enter_context(open_session(self._root, self._now_ns, source="a benchmark"))

    def _subscriptions(self) -> list[Subscription]:
        ids = {record.split(b'"', 10)[9].decode() for record in self._records}
        return [Subscription(stream, contract_id) for contract_id in sorted(ids) for stream in STREAMS]

    def _reconnect(self, scribe: Scribe) -> None:
        now_ns = self._now_ns
        for kind in (IncidentKind.DISCONNECTED, IncidentKind.CONNECTED, IncidentKind.SUBSCRIBING):
            scribe.on_incident(Incident(kind, None, None, now_ns, now_ns, "now and then"))

    async def _seal_segment(self, session: OpenSession) -> None:
        if self._sealing is not None:
            await self._sealing
        session.journal.retire(session.journal.roll())
        self._sealing = asyncio.create_task(sealing.seal(self._root, session.session_id, session.journal.segment - 1))

    async def _turn(self, scribe: Scribe) -> None:
        """The next trading day."""
        held, self._held = self._held, ExitStack()
        await self._end(scribe.turn(self._open(), self._subscriptions()), held)

    async def _end(self, session: OpenSession, held: ExitStack) -> None:
        with held:
            session.journal.end()
            if self._sealing is not None:
                await self._sealing
            await sealing.finish(self._root, session.session_id)
        self._sealing = None
        await asyncio.to_thread(self._prove, session.session_id)

    def _prove(self, session_id: str) -> None:
        """Prove a session in a process of its own, whose memory is not the recorder's, and remove it."""
        command = [sys.executable, "-m", "mdcapture", "verify", session_id, "--lake", str(self._root)]
        proof = subprocess.run(command, capture_output=True, text=True, check=False)
        if proof.returncode:
            self.wrong.append(proof.stdout + proof.stderr)
        manifest = read_manifest(self._root, session_id)
        self.stored += manifest.counts["messages"]
        self.files.append(len(manifest.files))
        prune(self._root, session_id)

    def _sample(self, messages: int) -> None:
        memory_mb = self._process.memory_info().rss / MB
        self.samples.append(Sample(messages, memory_mb, self._process.num_fds()))


def _batches(records: list[bytes]) -> Iterator[list[bytes]]:
    """Batches without an end."""
    while True:
        for first in range(0, len(records), BATCH):
            yield records[first : first + BATCH]


def main() -> int:
    """Print the figures as JSON; exit code 1 if something is lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=3_000_000, help="100000000 for the whole week")
    parser.add_argument("--segment-mb", type=int, default=64)
    chosen = parser.parse_args()
    logging.getLogger("mdcapture").setLevel(logging.ERROR)  # the broken connections are on purpose
    begin_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        week = Week(Path(folder), chosen.messages, chosen.segment_mb)
        asyncio.run(week.run())
    took_s = time.monotonic() - begin_s
    settled = week.samples[SAMPLES // DAYS :]  # the first day's memory is that of a start
    slope = np.polyfit([one.messages / 1e7 for one in settled], [one.memory_mb for one in settled], 1)[0]
    figures = {
        "messages": chosen.messages,
        "lost": chosen.messages - week.stored,
        "messages_per_s": round(chosen.messages / took_s),
        "sessions": len(week.files),
        "files_a_session": sorted(set(week.files)),
        "memory_mb": round(max(one.memory_mb for one in week.samples), 1),
        "memory_slope_mb_per_10m_messages": round(float(slope), 3),
        "open_files_first_and_last_day": [
            max(one.open_files for one in days)
            for days in (week.samples[: SAMPLES // DAYS], week.samples[-SAMPLES // DAYS :])
        ],
        "passed_handlers_by": week.dropped,
        "problems": week.wrong,
    }
    print(json.dumps(figures, indent=1))
    return 1 if week.wrong or week.stored != chosen.messages else 0


if __name__ == "__main__":
    sys.exit(main())
