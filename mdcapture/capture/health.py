"""A recorder's live figures, and what a look at them from outside says.

The recorder writes them each second to `status.json` in its journal's folder: whoever wants to know how it fares
(`mdcapture health`, `top`, a program of one's own) reads that file, and needs neither a port nor the recorder's leave.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
import psutil

from mdcapture.errors import NotFoundError
from mdcapture.lake.files import TEMPORARY, create_file
from mdcapture.lake.journal import segments
from mdcapture.lake.layout import is_session_id, journal_folder, session_order

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from mdcapture.capture.feed import Feed
    from mdcapture.capture.scribe import Scribe
    from mdcapture.lake.writer import OpenSession

__all__ = ["STALE_S", "STATUS_FILE", "Figures", "Health", "problems", "read_status", "unfinished", "write_status"]

STATUS_FILE: Final = "status.json"
STALE_S: Final = 10.0
"""Figures that are older than this are no sign of life."""

_MB: Final = 1024 * 1024


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """A recorder at one moment.

    Attributes:
        session_id: The session that is written.
        pid: The process that writes it.
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
        lost: Messages that neither the disk nor memory had room for.
        last_price: The last trade's price, by contract.
        memory_mb: Resident memory of this process.
        open_files: Open files and sockets of this process.
        journal_mb: The journal that is not yet sealed.
        pending_kb: What is not yet in the journal.
        disk_failing: Whether the disk refuses to be written.
        disk_free_mb: Free space on the lake's disk.
        limits: The limits that are reached.
    """

    session_id: str
    pid: int
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
    lost: int
    last_price: dict[str, float]
    memory_mb: float
    open_files: int
    journal_mb: float
    pending_kb: float
    disk_failing: bool
    disk_free_mb: float
    limits: list[str]


class Health:
    """Takes the figures of a recorder; rates are since the last time.

    Args:
        scribe: Who writes.
        feed: Who listens.
        limits: The limits that are reached at the moment of asking.
    """

    def __init__(self, scribe: Scribe, feed: Feed, limits: Collection[str] = ()) -> None:
        self._scribe = scribe
        self._feed = feed
        self._limits = limits
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
            pid=self._process.pid,
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
            lost=self._scribe.lost,
            last_price=dict(feed.last_price),
            memory_mb=self._process.memory_info().rss / _MB,
            open_files=self._process.num_fds(),
            journal_mb=_unsealed_bytes(session) / _MB,
            pending_kb=session.journal.pending_bytes / 1024,
            disk_failing=self._scribe.disk_failing,
            disk_free_mb=shutil.disk_usage(session.root).free / _MB,
            limits=sorted(self._limits),
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


def write_status(root: Path, figures: Figures) -> None:
    """Publish figures at once; a disk that refuses leaves the old ones, whose age tells."""
    path = journal_folder(root, figures.session_id) / STATUS_FILE
    temporary = path.with_name(path.name + TEMPORARY)
    with suppress(OSError):
        with create_file(temporary) as file:
            file.write(msgspec.json.encode(figures))
        temporary.replace(path)


def read_status(root: Path, session_id: str) -> Figures | None:
    """The figures that a session's recorder published last; None where there are none."""
    try:
        return msgspec.json.decode((journal_folder(root, session_id) / STATUS_FILE).read_bytes(), type=Figures)
    except (OSError, msgspec.DecodeError):
        return None


def unfinished(root: Path) -> list[str]:
    """The sessions that are recorded, or were when their recorder died; the oldest first.

    Raises:
        NotFoundError: There is no lake.
    """
    if not root.is_dir():
        raise NotFoundError(f"there is no lake at {root}: name another one with --lake")
    return sorted((path.name for path in root.glob("journal/*") if is_session_id(path.name)), key=session_order)


def problems(figures: Figures | None, now_ns: int) -> list[str]:
    """What is wrong with a recorder; nothing if all is well.

    Args:
        figures: What it published last.
        now_ns: The time.
    """
    if figures is None:
        return ["it has published no figures: it has just been started, or has died"]
    age_s = (now_ns - figures.at_ns) / 1e9
    found = []
    if age_s > STALE_S:
        lives = psutil.pid_exists(figures.pid) or figures.pid == os.getpid()
        what = f"process {figures.pid} lives" if lives else f"process {figures.pid} is dead: start it again"
        found.append(f"its figures are {age_s:.0f} s old, and {what}")
    if not figures.connected:
        found.append("it is not connected to the gateway")
    if figures.disk_failing:
        found.append(f"the disk refuses to be written, {figures.pending_kb:.0f} kB wait in memory")
    if figures.lost:
        found.append(f"{figures.lost} messages are lost, because the disk refused for too long")
    if figures.limits:
        found.append(f"limits are reached: {', '.join(figures.limits)}")
    return found
