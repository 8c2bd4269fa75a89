"""A recorder's live figures: what is shown while it runs."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import psutil

from mdcapture.lake.journal import segments
from mdcapture.lake.layout import journal_folder

if TYPE_CHECKING:
    from mdcapture.capture.feed import Feed
    from mdcapture.capture.scribe import Scribe
    from mdcapture.lake.writer import OpenSession

__all__ = ["Figures", "Health"]

_MB = 1024 * 1024


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """A recorder at one moment.

    Attributes:
        session_id: The session that is written.
        at_ns: The moment.
        connected: Whether the hub's connection stands.
        messages: Messages journaled.
        rows: Rows decoded live, by stream.
        messages_per_s: Since the figures before.
        rows_per_s: By stream, since the figures before.
        lag_ms: From the gateway's time of the last event to its receive time.
        flush_delay_ms: How long the oldest message of the last flush had waited.
        incidents: Incidents.
        dropped: Messages that passed by slow handlers.
        last_price: The last trade's price, by contract.
        memory_mb: Resident memory of this process.
        journal_mb: The journal that is not yet sealed.
        pending_kb: What is not yet in the journal.
        disk_free_mb: Free space on the lake's disk.
    """

    session_id: str
    at_ns: int
    connected: bool
    messages: int
    rows: dict[str, int]
    messages_per_s: float
    rows_per_s: dict[str, float]
    lag_ms: float | None
    flush_delay_ms: float
    incidents: int
    dropped: int
    last_price: dict[str, float]
    memory_mb: float
    journal_mb: float
    pending_kb: float
    disk_free_mb: float


class Health:
    """Takes the figures of a recorder; rates are since the last time."""

    def __init__(self, scribe: Scribe, feed: Feed) -> None:
        self._scribe = scribe
        self._feed = feed
        self._process = psutil.Process()
        self._before: tuple[int, int, dict[str, int]] = (scribe.session.manifest.created_ns, 0, {})

    def figures(self, at_ns: int, *, connected: bool) -> Figures:
        """Look at everything once."""
        session, feed = self._scribe.session, self._feed
        before_ns, messages_before, rows_before = self._before
        rows = dict(feed.rows)
        seconds = max(1e-9, (at_ns - before_ns) / 1e9)
        messages = self._scribe.messages
        figures = Figures(
            session_id=session.session_id,
            at_ns=at_ns,
            connected=connected,
            messages=messages,
            rows=rows,
            messages_per_s=(messages - messages_before) / seconds,
            rows_per_s={name: (count - rows_before.get(name, 0)) / seconds for name, count in rows.items()},
            lag_ms=None if feed.lag_ns is None else feed.lag_ns / 1e6,
            flush_delay_ms=self._scribe.flush_delay_ns / 1e6,
            incidents=self._scribe.incidents,
            dropped=feed.dropped,
            last_price=dict(feed.last_price),
            memory_mb=self._process.memory_info().rss / _MB,
            journal_mb=_unsealed_bytes(session) / _MB,
            pending_kb=session.journal.pending_bytes / 1024,
            disk_free_mb=shutil.disk_usage(session.root).free / _MB,
        )
        self._before = (at_ns, messages, rows)
        return figures


def _unsealed_bytes(session: OpenSession) -> int:
    """The size of the journal; its segments may be sealed, and gone, while we look."""
    size = 0
    for path in segments(journal_folder(session.root, session.session_id)).values():
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size
