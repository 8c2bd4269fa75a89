"""Live handlers and statistics, beside the capture and never in its way.

The loop hands over a batch at each flush of the journal, and forgets it. A thread decodes it, counts it, and calls the
handlers. When the thread is slower than the market, batches pass it by, and are counted: the journal has them all. What
held before is then not known to hold any more: handlers are told of a gap, and quotes are unknown until told again.

Without handlers there are only statistics to keep: the thread then looks a few times a second, and takes many batches
as one, for half of the recorder's work would be to wake it for each.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from mdcapture.capture.events import DepthEvent, EventDecoder, QuoteEvent, SessionStart, TradeEvent
from mdcapture.gateway.refusals import quoted
from mdcapture.lake.schema import Incident, IncidentKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mdcapture.capture.events import Event
    from mdcapture.lake.schema import SignalRow

__all__ = ["Feed", "MessageBatch"]

_STREAM: Final[dict[type, str]] = {QuoteEvent: "quotes", TradeEvent: "trades", DepthEvent: "depth"}
_LAGS: Final = 1000
_LARGE: Final = 20
"""A batch of so many messages is worth its own decoding; and to let more of them come together would make the thread
that journals wait for the interpreter."""

_JOINED: Final = 250
_PAUSE_S: Final = 0.1
_PAUSE_S_BY_CAPACITY: Final = 0.0002
"""A pause must not fill the queue: there are some hundred batches a second."""


class MessageBatch(NamedTuple):
    """Messages that follow each other, of one session; `resumed` if something before them has passed by.

    `tick_sizes` are those of the session's contracts, in price units.
    """

    session_id: str
    first_seq: int
    recv_ns: list[int]
    records: list[bytes]
    resumed: bool = False
    tick_sizes: Mapping[str, float | None] = MappingProxyType({})


class Feed:
    """The thread between the journal and the handlers.

    Args:
        capacity: Batches that may wait.
        report: Told of a handler that failed, in this feed's thread.
        keep: Given what signals said of messages of a session, in this feed's thread.

    Attributes:
        rows: Entries decoded so far, by stream and contract.
        latest: The last event of each stream and contract in this session; no quote of an earlier subscription.
        lags_ns: From the gateway's time to the receive time, of the last event of each of the last thousand batches.
        dropped: Messages that passed by the handlers.
    """

    def __init__(
        self, capacity: int, report: Callable[[str], None], keep: Callable[[str, list[SignalRow]], None]
    ) -> None:
        self.rows: Counter[tuple[str, str]] = Counter()
        self.latest: dict[tuple[str, str], Event] = {}
        self.lags_ns: deque[int] = deque(maxlen=_LAGS)
        self.dropped = 0
        self._report = report
        self._keep = keep
        self._said: list[SignalRow] = []
        self._handlers: dict[type, list[Callable[..., object]]] = {}
        self._listeners: list[Callable[[list[Event] | None], object]] = []
        self._closed = False
        self._missed = False
        self._failed: set[Callable[..., object]] = set()
        self._queue: queue.Queue[MessageBatch | Incident | threading.Event | None] = queue.Queue(capacity)
        self._pause_s = min(_PAUSE_S, _PAUSE_S_BY_CAPACITY * capacity)
        self._decoder = EventDecoder()
        self._session_id = ""
        self._taken_ns = 0
        self._thread = threading.Thread(target=self._run, name="mdcapture-feed", daemon=True)

    def handle(self, kind: type, handler: Callable[..., object]) -> None:
        """Call this for every event of a kind, in this feed's thread."""
        self._handlers.setdefault(kind, []).append(handler)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Let the handlers have what waits, within a time, and end."""
        if self._thread.is_alive():
            try:
                self._queue.put(None, timeout=timeout_s)
            except queue.Full:
                return  # a handler is stuck: the thread is a daemon, and ends with the process
            self._thread.join(timeout_s)

    def catch_up(self, timeout_s: float = 5.0) -> None:
        """Wait until the handlers have had what was put, or for a time; slow, made for a thread."""
        if not self.heard:
            return
        mark = threading.Event()
        with suppress(queue.Full):
            self._queue.put(mark, timeout=timeout_s)
            mark.wait(timeout_s)

    def say(self, row: SignalRow) -> None:
        """Keep what a signal said of the session whose messages a handler is given; only from handlers."""
        self._said.append(row)

    @property
    def heard(self) -> bool:
        """Whether there is a handler; without one, what passes by is missing in the statistics only."""
        return bool(self._handlers or self._listeners)

    @property
    def queued(self) -> int:
        """Batches and incidents that wait."""
        return self._queue.qsize()

    def put(self, item: MessageBatch | Incident) -> bool:
        """Hand something over, without ever waiting.

        Returns:
            Whether there was room.
        """
        if self._missed and isinstance(item, MessageBatch):
            item = item._replace(resumed=True)
        if not self._closed:
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                pass
            else:
                self._missed = self._missed and not isinstance(item, MessageBatch)
                return True
        self._miss(item)
        return False

    def clear(self) -> None:
        """Let go of what waits."""
        try:
            while True:
                self._miss(self._queue.get_nowait())
        except queue.Empty:
            return

    def _miss(self, item: MessageBatch | Incident | threading.Event | None) -> None:
        self._missed = True
        self.dropped += len(item.records) if isinstance(item, MessageBatch) else 0

    def listen(self, listener: Callable[[list[Event] | None], object]) -> None:
        """Call this with each batch of events, and with None at the end, in this feed's thread."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Hand over nothing any more; everything that comes passes by."""
        self._closed = True
        self.clear()

    def _items(self) -> Iterator[MessageBatch | Incident | threading.Event]:
        """What was put, in its order, until the end."""
        while (item := self._queue.get()) is not None:
            large = not isinstance(item, MessageBatch) or len(item.records) >= _LARGE
            if large or self.heard:
                yield item
                continue
            time.sleep(self._pause_s)
            waiting: list[MessageBatch | Incident | threading.Event | None] = [item]
            with suppress(queue.Empty):
                while True:
                    waiting.append(self._queue.get_nowait())
            for item in _joined(waiting):
                if item is None:
                    return
                yield item

    def _run(self) -> None:
        for item in self._items():
            if isinstance(item, Incident):
                self._forget(item)
                self._tell(Incident, item)
            elif isinstance(item, MessageBatch):
                self._take(item)
            else:
                item.set()
            if self._said:
                said, self._said = self._said, []
                self._keep(self._session_id, said)
        for listener in self._listeners:
            self._call(listener, None)

    def _take(self, batch: MessageBatch) -> None:
        if batch.session_id != self._session_id:
            self._session_id = batch.session_id
            self._decoder = EventDecoder()
            self.latest = {}
            self._tell(SessionStart, SessionStart(batch.session_id, tick_sizes=batch.tick_sizes))
        elif batch.resumed:
            self._resume(batch.recv_ns[0])
        self._taken_ns = batch.recv_ns[-1]
        events = self._decoder.decode(batch.first_seq, batch.recv_ns, batch.records)
        self._count(events)
        if self._handlers:
            for event in events:
                self._tell(type(event), event)
        for listener in self._listeners:
            self._call(listener, events)

    def _resume(self, to_ns: int) -> None:
        """Begin as after a new subscription, since what held may have changed meanwhile; for handlers it is a gap."""
        self._forget(Incident(IncidentKind.SUBSCRIBING, None, None, to_ns, None))
        self._tell(
            Incident, Incident(IncidentKind.GAP, None, None, self._taken_ns, to_ns, IncidentKind.HANDLER_DROPPED)
        )

    def _count(self, events: list[Event]) -> None:
        """Keep the figures, a batch at a time: this thread takes turns with the one that journals."""
        keys = [(_STREAM[type(event)], event.contract_id) for event in events]
        self.rows.update(keys)
        self.latest.update(zip(keys, events, strict=True))
        if events and events[-1].exch_ns is not None:
            self.lags_ns.append(events[-1].recv_ns - events[-1].exch_ns)

    def _forget(self, incident: Incident) -> None:
        self._decoder.incident(incident)
        if incident.resets_quotes:
            self.latest = {
                (stream, contract_id): event
                for (stream, contract_id), event in self.latest.items()
                if stream != "quotes" or incident.contract_id not in (None, contract_id)
            }

    def _tell(self, kind: type, event: object) -> None:
        for handler in self._handlers.get(kind, ()):
            self._call(handler, event)

    def _call(self, handler: Callable[..., object], argument: object) -> None:
        if handler in self._failed:
            return
        try:
            handler(argument)
        except BaseException as error:  # noqa: BLE001  # theirs can be any: it becomes an incident
            self._failed.add(handler)
            name = getattr(handler, "__qualname__", repr(handler))
            raised = quoted("".join(traceback.format_exception_only(error)))
            self._report(f"the handler {name} is called no more, it raised {raised}")


def _joined(
    items: Iterable[MessageBatch | Incident | threading.Event | None],
) -> Iterator[MessageBatch | Incident | threading.Event | None]:
    """The same, with messages that follow each other in one batch."""
    before: MessageBatch | None = None
    for item in items:
        if before is not None:
            if isinstance(item, MessageBatch) and _follows(item, before):
                before.recv_ns.extend(item.recv_ns)
                before.records.extend(item.records)
                continue
            yield before
            before = None
        if isinstance(item, MessageBatch):
            before = item._replace(recv_ns=list(item.recv_ns), records=list(item.records))
        else:
            yield item
    if before is not None:
        yield before


def _follows(batch: MessageBatch, before: MessageBatch) -> bool:
    count = len(before.records)
    if batch.resumed or batch.session_id != before.session_id:
        return False
    return batch.first_seq == before.first_seq + count and count < _JOINED
