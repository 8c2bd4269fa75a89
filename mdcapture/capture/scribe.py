"""From the hub to the journal, and to whoever listens: what happens for every message."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from mdcapture.capture.feed import MessageBatch
from mdcapture.capture.streams import Streams
from mdcapture.errors import StorageError
from mdcapture.lake.schema import ROUTINE_KINDS, Incident, IncidentKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mdcapture.capture.feed import Feed
    from mdcapture.gateway.hub import Subscription
    from mdcapture.lake.schema import SignalRow
    from mdcapture.lake.writer import OpenSession

__all__ = ["Scribe"]

_log = logging.getLogger(__name__)

_REMEMBERED: Final = 20
_PAUSE_NS: Final = 100_000_000


class Scribe:
    """The hub's listener (`HubEvents`): journals at once, hands over at each flush.

    Args:
        session: The session that is written; `turn` changes it.
        subscriptions: The streams that are wanted in it.
        feed: Who gets the messages when they are on disk.
        clock: Nanoseconds since the epoch.
        schedule: Asks for `flush` to be called soon.
        flush_bytes: Flush at once when this much waits.
        wait_bytes: So much may wait while the disk refuses; what comes then is lost, until the disk has taken all.
        count: How many messages are enough; None for no number.

    Attributes:
        messages: Messages journaled by all sessions so far.
        incidents: Incidents so far.
        gaps: Those of them that are gaps.
        last_incidents: The last few that are neither routine nor gaps, which follow from others.
        flush_delay_ns: The longest time that a message of the last flush had waited.
        streams: When each stream was last heard.
        resumed: Called before what comes after a pause is taken, or what has an earlier time than what came before it.
        gap_ended: Called with each gap that has ended.
        lost: Messages that neither the disk nor memory had room for.
        lost_untold: Those of them of which the disk does not know yet.
        loss_ended: Called when messages are kept again: the state of quotes has to begin anew.
        enough: Set when `count` messages are journaled.
    """

    def __init__(
        self,
        session: OpenSession,
        subscriptions: Iterable[Subscription],
        feed: Feed,
        *,
        clock: Callable[[], int],
        schedule: Callable[[], None],
        flush_bytes: int,
        wait_bytes: int,
        count: int | None = None,
    ) -> None:
        self.messages = 0
        self.incidents = 0
        self.gaps = 0
        self.last_incidents: deque[Incident] = deque(maxlen=_REMEMBERED)
        self.flush_delay_ns = 0
        self.enough = asyncio.Event()
        self.streams = Streams()
        self.streams.want(subscriptions, clock())
        self.resumed: Callable[[], object] = lambda: None
        self.gap_ended: Callable[[Incident], object] = lambda _gap: None
        self.lost = 0
        self.lost_untold = 0
        self.loss_ended: Callable[[], object] = lambda: None
        self._count = count
        self._session = session
        self._journals = {session.session_id: session.journal}
        self._feed = feed
        self._clock = clock
        self._schedule = schedule
        self._flush_bytes = flush_bytes
        self._wait_bytes = wait_bytes
        self._losing: tuple[int, int, int] | None = None
        self._left = False
        self._scheduled = False
        self._messages_before = 0
        self._disk_failed_ns: int | None = None
        self._dropping_ns: int | None = None
        self._recv_ns: list[int] = []
        self._records: list[bytes] = []
        self._watched = 0
        self._heard_ns = 0

    @property
    def disk_failing(self) -> bool:
        """Whether the disk refuses to be written."""
        return self._disk_failed_ns is not None

    @property
    def session(self) -> OpenSession:
        """The session that is written."""
        return self._session

    def on_records(self, recv_ns: int, connection: int, records: list[bytes]) -> None:
        """Take data records, in the order of arrival."""
        if self._left:
            return
        if not 0 <= recv_ns - self._heard_ns < _PAUSE_NS:
            self.resumed()
        self._heard_ns = recv_ns
        journal = self._session.journal
        count = len(records)
        if self._losing is not None or (self.disk_failing and journal.pending_bytes >= self._wait_bytes):
            self._lose(recv_ns, count)
            return
        journal.append(recv_ns, connection, records)
        self._records += records
        self._recv_ns += [recv_ns] * count
        if journal.pending_bytes >= self._flush_bytes and self._disk_failed_ns is None:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            self._schedule()

    def on_incident(self, incident: Incident) -> None:
        """Take what happened, in its place between the messages."""
        if self._left:
            _log.warning("too late for the journal: %s", describe(incident))
            return
        self.watch()
        self._hand_over()
        self.streams.note(incident)
        self._note(incident)
        if not self._scheduled:
            self._scheduled = True
            self._schedule()

    def on_signals(self, session_id: str, rows: list[SignalRow]) -> None:
        """Take what signals said of messages of a session that is still written, or is about to be closed."""
        journal = self._journals.get(session_id)
        full = self.disk_failing and self._session.journal.pending_bytes >= self._wait_bytes
        if journal is None or full:
            _log.warning("%d rows of signals are not kept: they came too late, or there is no room", len(rows))
            return
        journal.signal(rows)
        if not self._scheduled:
            self._scheduled = True
            self._schedule()

    def flush(self) -> None:
        """Write what waits; a disk that refuses is an incident, and the next flush tries again."""
        self._scheduled = False
        if self._left:
            return
        self.watch()
        try:
            self._session.journal.flush()
        except StorageError as error:
            if self._disk_failed_ns is None:
                self._disk_failed_ns = self._clock()
                _log.error("%s; it is tried again", error)
            self._scheduled = True
            self._schedule()
            return
        if self._recv_ns:
            self.flush_delay_ns = self._clock() - self._recv_ns[0]
        self._hand_over()
        self.messages = self._messages_before + self._session.journal.next_seq
        if self._count is not None and self.messages >= self._count:
            self.enough.set()
        if self._disk_failed_ns is not None:
            since, self._disk_failed_ns = self._disk_failed_ns, None
            detail = "the disk refused to be written; it takes all again that waited"
            self.on_incident(Incident(IncidentKind.LIMIT, None, None, since, self._clock(), detail))
        if self._losing is None:
            self.lost_untold = 0
        else:
            self._tell_lost(self._losing)
            self.loss_ended()

    def roll(self) -> int:
        """Go on in the next segment, as `Journal.roll` does; what is known of the messages of this one is in it."""
        self.watch()
        return self._session.journal.roll()

    def turn(self, session: OpenSession, subscriptions: Iterable[Subscription]) -> OpenSession:
        """Go on in another session, with its streams; what is missing in both is a gap in each.

        Returns:
            The one before, flushed.
        """
        before = self._session
        self.watch()
        for gap in self.streams.want(subscriptions, self._clock()):
            self.on_incident(gap)
        self.flush()
        self._hand_over()  # also what the disk has refused at this very moment: it is of the session before
        self._messages_before += before.journal.next_seq
        self._session = session
        self._journals[session.session_id] = session.journal
        return before

    def leave(self, session: OpenSession) -> None:
        """Write into a session no more: its journal is about to be closed, in another thread."""
        del self._journals[session.session_id]
        if session is self._session:
            self._left = True

    def end(self) -> None:
        """Say what is missing to the end, and hand over the rest: no message will come any more.

        A disk that still refuses is tried again until the session is left.
        """
        self.loss_ended = lambda: None  # nobody is asked for anything any more
        self.flush()
        if self._losing is not None:
            self._tell_lost(self._losing)
        for gap in self.streams.end(self._clock()):
            self.on_incident(gap)
        self.flush()
        self._tell_dropped(self._clock())
        self.flush()

    def watch(self) -> None:
        """Let the streams hear what has come since the last time, also while the disk refuses."""
        recv_ns, records = self._recv_ns, self._records
        if self._watched:
            recv_ns, records = recv_ns[self._watched :], records[self._watched :]
        self._watched = len(self._records)
        if records:
            for gap in self.streams.hear(recv_ns, records):
                self._note(gap)
                self.gap_ended(gap)

    def _lose(self, recv_ns: int, count: int) -> None:
        if self._losing is None:
            _log.error("the disk still refuses, and memory for what waits is full: messages are lost from now on")
        first_ns, _, before = self._losing or (recv_ns, recv_ns, 0)
        self._losing = first_ns, recv_ns, before + count
        self.lost += count
        self.lost_untold += count

    def _tell_lost(self, losing: tuple[int, int, int]) -> None:
        self._losing = None
        first_ns, last_ns, count = losing
        detail = f"{count} messages: the disk refused to be written, and memory for what waits was full"
        self.on_incident(Incident(IncidentKind.LOST, None, None, first_ns, last_ns, detail))

    def _note(self, incident: Incident) -> None:
        self.incidents += 1
        self._session.journal.note(self._clock(), incident)
        self._feed.put(incident)
        routine = incident.kind in ROUTINE_KINDS
        if incident.kind == IncidentKind.GAP:
            self.gaps += 1
        elif not routine:
            self.last_incidents.append(incident)
        _log.log(logging.INFO if routine else logging.WARNING, "%s", describe(incident))

    def _hand_over(self) -> None:
        if self._records:
            session = self._session
            first_seq = session.journal.next_seq - len(self._records)
            batch = MessageBatch(
                session.session_id, first_seq, self._recv_ns, self._records, tick_sizes=session.tick_sizes
            )
            self._recv_ns, self._records, self._watched = [], [], 0
            if not self._feed.put(batch):
                self._dropping_ns = self._dropping_ns or (batch.recv_ns[0] if self._feed.heard else None)
            else:
                self._tell_dropped(batch.recv_ns[0])

    def _tell_dropped(self, to_ns: int) -> None:
        if self._dropping_ns is not None:
            since, self._dropping_ns = self._dropping_ns, None
            detail = f"{self._feed.dropped} messages have passed the live handlers by so far; the lake has them"
            self.on_incident(Incident(IncidentKind.HANDLER_DROPPED, None, None, since, to_ns, detail))


def describe(incident: Incident) -> str:
    """An incident as a line for people."""
    where = " ".join(part for part in (incident.contract_id, incident.stream) if part)
    what = incident.kind.replace("_", " ")
    lasted = "" if incident.to_ns is None else f", {(incident.to_ns - incident.from_ns) / 1e9:.1f} s"
    return f"{what}{f' {where}' if where else ''}{lasted}{f': {incident.detail}' if incident.detail else ''}"
