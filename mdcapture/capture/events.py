"""What live handlers are given: one value an entry, with the names of the lake's columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mdcapture.lake.schema import QUOTE_STATE, Incident, IncidentKind
from mdcapture.wire.decode import decode
from mdcapture.wire.timestamps import parse_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mdcapture.wire.decode import Entries
    from mdcapture.wire.messages import DepthEntry, Quote, Trade

__all__ = ["DepthEvent", "Event", "EventDecoder", "QuoteEvent", "TradeEvent"]


class QuoteEvent(NamedTuple):
    """The top of the market after a quote; None where it has not been seen since the subscription."""

    contract_id: str
    seq: int
    recv_ns: int
    pos: int
    exch_ns: int | None
    best_bid: float | None
    best_ask: float | None
    last_price: float | None
    volume: int | None
    open: float | None
    high: float | None
    low: float | None


class TradeEvent(NamedTuple):
    """A print; `side` is the aggressor's: 0 buy, 1 sell."""

    contract_id: str
    seq: int
    recv_ns: int
    pos: int
    exch_ns: int | None
    price: float
    volume: int
    side: int | None


class DepthEvent(NamedTuple):
    """A change of the book; `dom_type` is a `DomType`."""

    contract_id: str
    seq: int
    recv_ns: int
    pos: int
    exch_ns: int | None
    dom_type: int
    price: float
    volume: int
    current_volume: int | None


Entry = TypeVar("Entry", bound="Quote | Trade | DepthEntry")
Event = QuoteEvent | TradeEvent | DepthEvent

_FIELDS = tuple(column.name for column in QUOTE_STATE)
_UNSEEN: tuple[float | int | None, ...] = (None,) * len(_FIELDS)


def _exch_ns(text: str | None) -> int | None:
    try:
        return None if text is None else parse_ns(text)
    except ValueError:
        return None


class EventDecoder:
    """Records to events, in the order of arrival; it remembers the state of quotes."""

    def __init__(self) -> None:
        self._state: dict[str, tuple[float | int | None, ...]] = {}

    def incident(self, incident: Incident) -> None:
        """Forget the quotes of a contract that is subscribed to anew."""
        if incident.kind == IncidentKind.SUBSCRIBING and incident.stream in (None, "quotes"):
            if incident.contract_id is None:
                self._state.clear()
            else:
                self._state.pop(incident.contract_id, None)

    def decode(self, first_seq: int, recv_ns: list[int], records: list[bytes]) -> list[Event]:
        """Decode messages that follow each other.

        Args:
            first_seq: The number of the first.
            recv_ns: When each was received.
            records: The messages.
        """
        batch = decode(records)
        events: list[Event] = []
        for quote, contract_id, seq, at_ns, pos in self._places(batch.quotes, first_seq, recv_ns):
            events.append(self._quote(quote, contract_id, seq, at_ns, pos))
        for trade, contract_id, seq, at_ns, pos in self._places(batch.trades, first_seq, recv_ns):
            exch_ns = _exch_ns(trade.timestamp)
            events.append(TradeEvent(contract_id, seq, at_ns, pos, exch_ns, trade.price, trade.volume, trade.type))
        for entry, contract_id, seq, at_ns, pos in self._places(batch.depth, first_seq, recv_ns):
            exch_ns = _exch_ns(entry.timestamp)
            values = (entry.type, entry.price, entry.volume, entry.current_volume)
            events.append(DepthEvent(contract_id, seq, at_ns, pos, exch_ns, *values))
        events.sort(key=lambda event: (event.seq, event.pos))
        return events

    def _quote(self, quote: Quote, contract_id: str, seq: int, recv_ns: int, pos: int) -> QuoteEvent:
        before = self._state.get(contract_id, _UNSEEN)
        given = [getattr(quote, name) for name in _FIELDS]
        state = tuple(old if new is None else new for old, new in zip(before, given, strict=True))
        self._state[contract_id] = state
        return QuoteEvent(contract_id, seq, recv_ns, pos, _exch_ns(quote.timestamp), *state)  # type: ignore[arg-type]

    def _places(
        self, entries: Entries[Entry], first_seq: int, recv_ns: list[int]
    ) -> Iterator[tuple[Entry, str, int, int, int]]:
        values = iter(entries.values)
        for message, contract_id, count in zip(entries.message, entries.contract_id, entries.count, strict=True):
            for pos in range(count):
                value = next(values)
                if value is not None:
                    yield value, contract_id, first_seq + message, recv_ns[message], pos
