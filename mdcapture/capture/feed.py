"""Live handlers and statistics, beside the capture and never in its way.

The loop hands over a batch at each flush of the journal, and forgets it. A thread decodes it, counts it, and calls the
handlers. When the thread is slower than the market, batches pass it by, and are counted: the journal has them all.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from mdcapture.capture.events import DepthEvent, EventDecoder, QuoteEvent, TradeEvent
from mdcapture.lake.schema import Incident

if TYPE_CHECKING:
    from collections.abc import Callable

    from mdcapture.capture.events import Event

__all__ = ["Feed", "MessageBatch"]

_STREAM = {QuoteEvent: "quotes", TradeEvent: "trades", DepthEvent: "depth"}


class MessageBatch(NamedTuple):
    """Messages that follow each other, of one session."""

    session_id: str
    first_seq: int
    recv_ns: list[int]
    records: list[bytes]


class Feed:
    """The thread between the journal and the handlers.

    Args:
        capacity: Batches that may wait.
        report: Told of a handler that failed, in this feed's thread.

    Attributes:
        rows: Entries decoded so far, by stream.
        lag_ns: From the gateway's time to the receive time, of the last event that has both.
        last_price: The last trade's price by contract.
        dropped: Messages that passed by the handlers.
    """

    def __init__(self, capacity: int, report: Callable[[str], None]) -> None:
        self.rows: Counter[str] = Counter()
        self.lag_ns: int | None = None
        self.last_price: dict[str, float] = {}
        self.dropped = 0
        self._report = report
        self._handlers: dict[type, list[Callable[..., object]]] = {}
        self._listeners: list[Callable[[list[Event] | None], object]] = []
        self._closed = False
        self._failed: set[Callable[..., object]] = set()
        self._queue: queue.Queue[MessageBatch | Incident | None] = queue.Queue(capacity)
        self._decoder = EventDecoder()
        self._session_id = ""
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

    def put(self, item: MessageBatch | Incident) -> bool:
        """Hand something over, without ever waiting.

        Returns:
            Whether there was room.
        """
        if not self._closed:
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                pass
            else:
                return True
        self.dropped += len(item.records) if isinstance(item, MessageBatch) else 0
        return False

    def clear(self) -> None:
        """Let go of what waits."""
        try:
            while True:
                item = self._queue.get_nowait()
                self.dropped += len(item.records) if isinstance(item, MessageBatch) else 0
        except queue.Empty:
            return

    def listen(self, listener: Callable[[list[Event] | None], object]) -> None:
        """Call this with each batch of events, and with None at the end, in this feed's thread."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Hand over nothing any more; everything that comes passes by."""
        self._closed = True
        self.clear()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, Incident):
                self._decoder.incident(item)
                self._tell(Incident, item)
            else:
                self._take(item)
        for listener in self._listeners:
            self._call(listener, None)

    def _take(self, batch: MessageBatch) -> None:
        if batch.session_id != self._session_id:
            self._session_id = batch.session_id
            self._decoder = EventDecoder()
        events = self._decoder.decode(batch.first_seq, batch.recv_ns, batch.records)
        for event in events:
            self._count(event)
            self._tell(type(event), event)
        for listener in self._listeners:
            self._call(listener, events)

    def _count(self, event: Event) -> None:
        self.rows[_STREAM[type(event)]] += 1
        if event.exch_ns is not None:
            self.lag_ns = event.recv_ns - event.exch_ns
        if isinstance(event, TradeEvent):
            self.last_price[event.contract_id] = event.price

    def _tell(self, kind: type, event: object) -> None:
        for handler in self._handlers.get(kind, ()):
            self._call(handler, event)

    def _call(self, handler: Callable[..., object], argument: object) -> None:
        if handler in self._failed:
            return
        try:
            handler(argument)
        except Exception as error:  # noqa: BLE001  # theirs can be any: it becomes an incident
            self._failed.add(handler)
            name = getattr(handler, "__qualname__", repr(handler))
            self._report(f"the handler {name} is called no more, it raised {type(error).__name__}: {error}")
