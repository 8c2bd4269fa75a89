"""What live handlers are given: one value an entry, with the names of the lake's columns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mdcapture.lake.schema import QUOTE_STATE, Incident
from mdcapture.wire.decode import decode
from mdcapture.wire.timestamps import parse_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mdcapture.wire.decode import Entries
    from mdcapture.wire.messages import Quote

__all__ = ["DepthEvent", "Event", "EventDecoder", "QuoteEvent", "SessionStart", "TradeEvent"]


class SessionStart(NamedTuple):
    """What follows is of another session: what held in the one before is not known in this one."""

    session_id: str
    contracts: tuple[str, ...] = ()
    """Those that it has; none stands for all."""

    tick_sizes: Mapping[str, float | None] = MappingProxyType({})
    """The ticks (price units) of its contracts, None where one is not known."""


class QuoteEvent(NamedTuple):
    """The top of the market after a quote; None where it has not been seen since the subscription, or the last gap.

    `changed` says which fields the message carried, a bit each, in the order in which they stand here, from `best_bid`.
    """

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
    updated_ns: int | None = None
    changed: int = 0


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


Event = QuoteEvent | TradeEvent | DepthEvent

_FIELDS: Final = tuple(column.name for column in QUOTE_STATE)
_UNSEEN: Final[tuple[float | int | None, ...]] = (None,) * len(_FIELDS)
_BITS: Final = tuple(1 << place for place in range(len(_FIELDS)))
_STATE: Final = QuoteEvent._fields.index(_FIELDS[0])
_PLACE: Final = itemgetter(QuoteEvent._fields.index("seq"), QuoteEvent._fields.index("pos"))
_QUOTE: Final = attrgetter(*_FIELDS, "last_updated")
_TRADE: Final = attrgetter("price", "volume", "type")
_DEPTH: Final = attrgetter("type", "price", "volume", "current_volume")
_POINT_AT: Final = len("2023-12-25T23:00:00")
_UTC: Final = "+00:00"
_FRACTION: Final = slice(_POINT_AT + 1, -len(_UTC))
_DIGITS: Final = 9


class EventDecoder:
    """Records to events, in the order of arrival; it remembers the state of quotes."""

    def __init__(self) -> None:
        self._state: dict[str, tuple[float | int | None, ...]] = {}

    def incident(self, incident: Incident) -> None:
        """Forget the quotes of a contract that is subscribed to anew, or can have missed some."""
        if incident.resets_quotes:
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
        events: list[Event] = [
            *self._quotes(batch.quotes, first_seq, recv_ns),
            *map(TradeEvent._make, _rows(batch.trades, _TRADE, first_seq, recv_ns)),
            *map(DepthEvent._make, _rows(batch.depth, _DEPTH, first_seq, recv_ns)),
        ]
        events.sort(key=_PLACE)
        return events

    def _quotes(self, entries: Entries[Quote], first_seq: int, recv_ns: list[int]) -> Iterator[QuoteEvent]:
        for row in _rows(entries, _QUOTE, first_seq, recv_ns):
            contract_id, given, updated = row[0], row[_STATE:-1], row[-1]
            before = self._state.get(contract_id, _UNSEEN)
            state = tuple([old if new is None else new for old, new in zip(before, given, strict=True)])
            self._state[contract_id] = state
            changed = sum([bit for bit, new in zip(_BITS, given, strict=True) if new is not None])
            yield QuoteEvent._make((*row[:_STATE], *state, _exch_ns(updated), changed))


def _rows(
    entries: Entries[Any], values_of: Callable[[Any], tuple[Any, ...]], first_seq: int, recv_ns: list[int]
) -> Iterator[tuple[Any, ...]]:
    """Each entry's place, exchange time and values; a column at a time, since live handlers wait for it."""
    values: list[Any] = entries.values
    places = [
        (contract_id, first_seq + message, recv_ns[message], pos)
        for message, contract_id, count in zip(entries.message, entries.contract_id, entries.count, strict=True)
        for pos in range(count)
    ]
    if None in values:
        places = [place for place, value in zip(places, values, strict=True) if value is not None]
        values = [value for value in values if value is not None]
    for place, value in zip(places, values, strict=True):
        yield (*place, _exch_ns(value.timestamp), *values_of(value))


def _exch_ns(text: str | None) -> int | None:
    """The exchange's time; in the gateway's own form only its fraction is read, since seconds repeat.

    pyarrow would be as fast, but takes a hundred megabytes of a recorder that has no other use for it.
    """
    if text is None:
        return None
    fraction = text[_FRACTION]
    if text[_POINT_AT : _POINT_AT + 1] == "." and text.endswith(_UTC) and fraction.isascii() and fraction.isdigit():
        second_ns = _second_ns(text[:_POINT_AT])
        return None if second_ns is None else second_ns + int(fraction.ljust(_DIGITS, "0")[:_DIGITS])
    return _second_ns(text)


@lru_cache(maxsize=256)
def _second_ns(text: str) -> int | None:
    try:
        return parse_ns(text)
    except ValueError:
        return None
