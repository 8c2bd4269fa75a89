"""The lake's tables, declared once: Arrow schemas, SQL views, the data dictionary and foreign DDL come out of this.

Every row has `seq` (the number of its hub message within the session, from 0), which leads to the original text in
`messages`, and `recv_ns` (when this machine received it). Times are `int64` nanoseconds since the epoch, UTC. Prices
are `float64`, exactly as decimal text gives them; sizes and counts are signed integers. The columns `session_id` and
`contract_id` stand in the files' paths (hive partitions); `contract_id` is null where no contract could be read.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final, Literal, NamedTuple

import msgspec

from mdcapture.wire.messages import Int64

__all__ = [
    "GAP_KINDS",
    "NO_END_NS",
    "ORDER",
    "PARTITIONS",
    "QUOTE_STATE",
    "RESET_KINDS",
    "ROUTINE_KINDS",
    "SCHEMA_VERSION",
    "STREAMS",
    "TABLES",
    "Bar",
    "Column",
    "DomType",
    "Incident",
    "IncidentKind",
    "Side",
    "SignalRow",
    "Stream",
    "Table",
]

SCHEMA_VERSION: Final = 1

Stream = Literal["quotes", "trades", "depth"]
STREAMS: Final[tuple[Stream, ...]] = ("quotes", "trades", "depth")
PARTITIONS: Final = ("session_id", "contract_id")
ORDER: Final = ("recv_ns", "seq", "pos")
"""Rows of a file are sorted by these of its columns."""


class Side(IntEnum):
    """The aggressor of a trade."""

    BUY = 0
    SELL = 1


class DomType(IntEnum):
    """What a depth entry says."""

    UNKNOWN = 0
    ASK = 1
    BID = 2
    BEST_ASK = 3
    BEST_BID = 4
    TRADE = 5
    RESET = 6
    LOW = 7
    HIGH = 8
    NEW_BEST_BID = 9
    NEW_BEST_ASK = 10
    FILL = 11


class IncidentKind(StrEnum):
    """What can happen to a capture; a time in which data can be missing is always one of these."""

    CONNECTED = "connected"
    SUBSCRIBING = "subscribing"
    SUBSCRIBED = "subscribed"
    SUBSCRIBE_FAILED = "subscribe_failed"
    DISCONNECTED = "disconnected"
    RECONNECTING = "reconnecting"
    LOGGED_OUT = "logged_out"
    STALLED = "stalled"
    RESUBSCRIBED = "resubscribed"
    GAP = "gap"
    BACKFILLED = "backfilled"
    CLOCK_STEP = "clock_step"
    SUSPENDED = "suspended"
    SLEPT = "slept"
    UNRESOLVED = "unresolved"
    LIMIT = "limit"
    HANDLER_DROPPED = "handler_dropped"
    HANDLER_FAILED = "handler_failed"
    LOST = "lost"
    JOURNAL_DAMAGED = "journal_damaged"
    CRASHED = "crashed"


GAP_KINDS: Final = (IncidentKind.GAP, IncidentKind.STALLED, IncidentKind.JOURNAL_DAMAGED, IncidentKind.CRASHED)
"""The kinds between whose times data of their stream and contract can be missing.

`gap` tells of every such time that ended while its session was written, whatever broke the stream: from its last good
message to its first new one. `stalled` begins where the gap of its stream will, and stands for it in a session that was
killed before the stream came back. `journal_damaged` is noticed when the journal is read. `crashed` is what a recovery
says of each stream of a session whose writer died: from its last message on, without an end, since what follows is
another session.
"""

RESET_KINDS: Final = (
    IncidentKind.SUBSCRIBING,
    IncidentKind.STALLED,
    IncidentKind.LOST,
    IncidentKind.SLEPT,
    IncidentKind.JOURNAL_DAMAGED,
)
"""The kinds after which what quotes told before may not hold any more: a change of it may be among what is missing."""

ROUTINE_KINDS: Final = (
    IncidentKind.CONNECTED,
    IncidentKind.SUBSCRIBING,
    IncidentKind.SUBSCRIBED,
    IncidentKind.BACKFILLED,
)
"""The kinds that a capture has in which nothing went wrong."""

NO_END_NS: Final = 2**63 - 1
"""The end of a gap that did not end: later than every row, so that a comparison of times is all that a join needs."""


class Bar(NamedTuple):
    """Open, high, low, close and volume of the time from `start_ns` (nanoseconds since the epoch, UTC) on."""

    start_ns: Int64
    open: float
    high: float
    low: float
    close: float
    volume: Int64


class Incident(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened to the capture between two times.

    `stream` and `contract_id` are None where it concerns all of them; `to_ns` is None while it lasts. `bars` are what
    was fetched in place of a contract's missing messages: the rows of the table `backfill`.
    """

    kind: str
    stream: str | None
    contract_id: str | None
    from_ns: Int64
    to_ns: Int64 | None
    detail: str = ""
    bars: tuple[Bar, ...] = ()

    @property
    def resets_quotes(self) -> bool:
        """Whether what quotes of its contract told before may not hold any more."""
        return self.kind in RESET_KINDS and self.stream in (None, "quotes")


class SignalRow(NamedTuple):
    """What a signal said, and the message that made it known: the row depends on nothing that came after it."""

    seq: Int64
    recv_ns: Int64
    contract_id: str
    name: str
    value: float


class Column(NamedTuple):
    """A column: its Arrow type's name, its unit, its meaning, and the gateway's name for it."""

    name: str
    type: Literal["int8", "int16", "int32", "int64", "float64", "string"]
    unit: str
    meaning: str
    wire: str | None = None


class Table(NamedTuple):
    """A table of the lake; `columns` beside the partitions."""

    name: str
    meaning: str
    columns: tuple[Column, ...]


_SEQ: Final = Column("seq", "int64", "", "number of the hub message within the session, from 0")
_RECV: Final = Column("recv_ns", "int64", "ns UTC", "when this machine received the message")
_POS: Final = Column("pos", "int32", "", "place of the entry within its message, from 0")
_EXCH: Final = Column("exch_ns", "int64", "ns UTC", "the gateway's time of the event; null if unreadable", "timestamp")
_PAYLOAD: Final = Column("payload", "string", "JSON", "the original text")
_NEXT_SEQ: Final = _SEQ._replace(meaning="number of the next hub message at that time")

QUOTE_STATE: Final = (
    Column("best_bid", "float64", "price", "best bid", "bestBid"),
    Column("best_ask", "float64", "price", "best ask", "bestAsk"),
    Column("last_price", "float64", "price", "price of the last trade", "lastPrice"),
    Column("volume", "int64", "lots", "cumulative volume of the trading day", "volume"),
    Column("open", "float64", "price", "the trading day's first price", "open"),
    Column("high", "float64", "price", "the trading day's highest price", "high"),
    Column("low", "float64", "price", "the trading day's lowest price", "low"),
)
"""Quotes are deltas: a value holds from its message on until another replaces it; a subscription, or a time in which
some can be missing, resets all."""

TABLES: Final = {
    table.name: table
    for table in (
        Table(
            "quotes",
            "the state of the top of the market after each quote message; null until first seen since the subscription",
            (
                _SEQ,
                _RECV,
                _POS,
                _EXCH,
                Column("updated_ns", "int64", "ns UTC", "the gateway's time of the update", "lastUpdated"),
                *QUOTE_STATE,
                Column(
                    "changed",
                    "int16",
                    "bits",
                    "which fields the message carried: "
                    + ", ".join(f"{1 << bit} {column.name}" for bit, column in enumerate(QUOTE_STATE)),
                ),
            ),
        ),
        Table(
            "trades",
            "prints",
            (
                _SEQ,
                _RECV,
                _POS,
                _EXCH,
                Column("price", "float64", "price", "price of the trade", "price"),
                Column("volume", "int64", "lots", "size of the trade", "volume"),
                Column("side", "int8", "", "the aggressor: 0 buy, 1 sell", "type"),
            ),
        ),
        Table(
            "depth",
            "changes of the order book, as they came",
            (
                _SEQ,
                _RECV,
                _POS,
                _EXCH,
                Column(
                    "dom_type",
                    "int8",
                    "",
                    "what the entry says: " + ", ".join(f"{kind.value} {kind.name.lower()}" for kind in DomType),
                    "type",
                ),
                Column("price", "float64", "price", "price of the level", "price"),
                Column("volume", "int64", "lots", "size at the level (0 removes it)", "volume"),
                Column("current_volume", "int64", "lots", "size of the latest print, for type 5", "currentVolume"),
            ),
        ),
        Table(
            "messages",
            "every hub message as it came",
            (_SEQ, _RECV, Column("connection", "int32", "", "number of the connection, from 1"), _PAYLOAD),
        ),
        Table(
            "rejects",
            "entries and messages that could not be used, with the reason",
            (
                _SEQ,
                _RECV,
                Column("pos", "int32", "", "place of the entry within its message; null for a whole message"),
                Column("table", "string", "", "the table that the entry was for, if known"),
                Column("reason", "string", "", "why, from a closed list"),
                _PAYLOAD,
            ),
        ),
        Table(
            "incidents",
            "what happened to the capture; every time in which data can be missing is here",
            (
                _NEXT_SEQ,
                _RECV._replace(meaning="when it was noticed"),
                Column("kind", "string", "", "what happened, from a closed list"),
                Column("stream", "string", "", "quotes, trades or depth; null for all"),
                Column("from_ns", "int64", "ns UTC", "since when"),
                Column("to_ns", "int64", "ns UTC", "until when; null if not over when it was written"),
                Column("detail", "string", "", "in words"),
            ),
        ),
        Table(
            "signals",
            "what signals said: each row depends on nothing that was received after its message",
            (
                _SEQ._replace(meaning="number of the hub message that made it known, of any contract"),
                _RECV._replace(meaning="when it was known: when that message was received"),
                Column("name", "string", "", "the signal"),
                Column("value", "float64", "", "what it said, in its own unit"),
            ),
        ),
        Table(
            "backfill",
            "bars of one second of the times in which trades can be missing, fetched afterwards; a second without a "
            "trade has none, and those at a gap's ends hold captured trades, too",
            (
                _NEXT_SEQ,
                _RECV._replace(meaning="when it was fetched"),
                _POS._replace(meaning="place of the bar among those that were fetched together, from 0"),
                Column("start_ns", "int64", "ns UTC", "when the bar begins", "t"),
                Column("open", "float64", "price", "first price", "o"),
                Column("high", "float64", "price", "highest price", "h"),
                Column("low", "float64", "price", "lowest price", "l"),
                Column("close", "float64", "price", "last price", "c"),
                Column("volume", "int64", "lots", "lots traded", "v"),
            ),
        ),
    )
}
