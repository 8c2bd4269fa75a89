"""What was captured, or is on a tape, once more: the events that live handlers were given, in their order and time.

    Session ──rows────┐
    Session ──rows────┼── merged by receive time ── paced ──▶ handlers (`run`), or an iterator, also an asynchronous one
    tape ──records────┘

A session is read from its tables, a tape is decoded as it was when it came. Events of a session are in the lake's
order (`recv_ns`, `seq`, `pos`): that of arrival, but where the clock stepped back. An incident stands where it was
noticed, a gap right before the first message after it.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter
from contextlib import suppress
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar, get_args

import polars as pl

from mdcapture.capture.events import DepthEvent, Event, EventDecoder, QuoteEvent, SessionStart, TradeEvent
from mdcapture.errors import NotFoundError, UsageError
from mdcapture.gateway.instruments import parse_id
from mdcapture.gateway.tape import read_data
from mdcapture.lake.manifest import Contract, contracts_named, tick_sizes
from mdcapture.lake.schema import GAP_KINDS, ORDER, Incident
from mdcapture.live.pieces import in_pieces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator

    from mdcapture.session import Session

__all__ = ["Replay"]

_ROWS: Final = 32_768
_RECORDS: Final = 256
_TURN: Final = 1_000
_ORDER: Final = itemgetter(*(QuoteEvent._fields.index(name) for name in ORDER))

Pace = Literal["recv_ns", "exch_ns"]
Handler = TypeVar("Handler", bound="Callable[..., object]")
Item = Event | Incident | SessionStart
Timed = tuple[int, Item]


class Replay:
    """Sessions and tapes as if they came now.

    Each stream of each contract holds one piece of its table in memory, whatever the session's length.

    Args:
        sources: Sessions of a lake, and paths of tapes; several are merged by receive time.
        contracts: These alone, by id, name or root; without them, all.
        from_ns: Begin with the first message received at this time or later (ns UTC).
        to_ns: End with the last one received before this time (ns UTC).
        speed: Market seconds in a second; infinite (the default) does not wait at all.
        pace: The clock that events keep: when this machine received them, or the gateway's time. An event without
            one, or behind the one before, follows at once.
        clock: Seconds, for the pace of `run` and of plain iteration.
        sleep: Waits so many seconds, likewise.

    Raises:
        UsageError: There is no source, the speed is not positive, or there is no such pace.
        NotFoundError: There is no such contract; of a tape that is known, and raised, at its end.

    Example:
        ```python
        replay = Replay(open_lake("data").session("latest"), speed=10)
        replay.on_trade(print)
        replay.run()
        ```
    """

    def __init__(
        self,
        *sources: Session | Path | str,
        contracts: Collection[str] = (),
        from_ns: int | None = None,
        to_ns: int | None = None,
        speed: float = math.inf,
        pace: Pace = "recv_ns",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not sources:
            raise UsageError("nothing to replay: give a session or a tape")
        if not speed > 0:
            raise UsageError(f"speed must be positive, not {speed}")
        if pace not in get_args(Pace):
            raise UsageError(f"pace must be recv_ns or exch_ns, not {pace!r}")
        self._sources = sources
        self._selection = _Selection(_Named(contracts), from_ns, to_ns)
        if contracts:
            sessions = [source for source in sources if not isinstance(source, str | Path)]
            self._selection.contracts.learn(each for session in sessions for each in session.contracts)
            if len(sessions) == len(sources):
                self._selection.contracts.check()
        self._speed = speed
        self._pace = pace
        self._clock = clock
        self._sleep = sleep
        self._handlers: dict[type, list[Callable[..., object]]] = {}

    def on_quote(self, handler: Handler) -> Handler:
        """Call this with each `QuoteEvent`; also as a decorator."""
        return self._handle(QuoteEvent, handler)

    def on_trade(self, handler: Handler) -> Handler:
        """Call this with each `TradeEvent`; also as a decorator."""
        return self._handle(TradeEvent, handler)

    def on_depth(self, handler: Handler) -> Handler:
        """Call this with each `DepthEvent`; also as a decorator."""
        return self._handle(DepthEvent, handler)

    def on_incident(self, handler: Handler) -> Handler:
        """Call this with each `Incident`; also as a decorator."""
        return self._handle(Incident, handler)

    def on_session(self, handler: Handler) -> Handler:
        """Call this with each `SessionStart`, before the first event of the session; also as a decorator."""
        return self._handle(SessionStart, handler)

    def _handle(self, kind: type, handler: Handler) -> Handler:
        self._handlers.setdefault(kind, []).append(handler)
        return handler

    def run(self) -> Counter[str]:
        """Call the handlers with everything; what they raise ends the replay, and is raised here.

        Returns:
            How many there were, by the names of their types.
        """
        counts: Counter[str] = Counter()
        for item in self._paced():
            kind = type(item)
            counts[kind.__name__] += 1
            for handler in self._handlers.get(kind, ()):
                handler(item)
        return counts

    def __iter__(self) -> Iterator[Event]:
        """The events, without handlers and incidents; each time from the beginning."""
        return (item for item in self._paced() if not isinstance(item, Incident | SessionStart))

    async def events(self) -> AsyncIterator[Event]:
        """The events in async code, as `Recorder.events` gives them; time is the running loop's."""
        now = asyncio.get_running_loop().time
        pace = _Pace(self._speed, self._pace)
        for count, item in enumerate(self._items()):
            wait_s = pace.wait_s(item, now)
            if wait_s > 0 or count % _TURN == 0:  # others must have their turn, too
                await asyncio.sleep(max(wait_s, 0.0))
            if not isinstance(item, Incident | SessionStart):
                yield item

    def _paced(self) -> Iterator[Item]:
        pace = _Pace(self._speed, self._pace)
        for item in self._items():
            wait_s = pace.wait_s(item, self._clock)
            if wait_s > 0:
                self._sleep(wait_s)
            yield item

    def _items(self) -> Iterator[Item]:
        streams = [_opened(source, self._selection) for source in self._sources]
        yield from (item for _, item in heapq.merge(*streams, key=itemgetter(0)))
        if self._selection.to_ns is None:  # otherwise a tape may go on
            self._selection.contracts.check()


class _Pace:
    """How long to wait before each event."""

    def __init__(self, speed: float, column: str) -> None:
        self._speed = speed
        self._column = column
        self._origin: tuple[int, float] | None = None

    def wait_s(self, item: Item, now: Callable[[], float]) -> float:
        at_ns: int | None = None if self._speed == math.inf else getattr(item, self._column, None)
        if at_ns is None:
            return 0.0
        if self._origin is None:
            self._origin = at_ns, now()
        from_ns, from_s = self._origin
        return (at_ns - from_ns) / 1e9 / self._speed - (now() - from_s)


class _Named:
    """The contracts that were named, or all, among those that sources turn out to have."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._known: dict[str, Contract] = {}
        self._ids: set[str] = set()

    def learn(self, contracts: Iterable[Contract]) -> None:
        self._known |= {one.contract_id: one for one in contracts}
        for name in self._names:
            with suppress(NotFoundError):
                self._ids |= {one.contract_id for one in contracts_named(self._known.values(), name)}

    def check(self) -> None:
        """Raise NotFoundError if a name is nobody's."""
        for name in self._names:
            contracts_named(self._known.values(), name)

    def __contains__(self, contract_id: str) -> bool:
        if not self._names:
            return True
        if contract_id and contract_id not in self._known:  # a tape's
            listing = parse_id(contract_id)
            self.learn([Contract(contract_id=contract_id) if listing is None else listing.contract])
        return contract_id in self._ids


class _Selection(NamedTuple):
    """Which contracts, and what time."""

    contracts: _Named
    from_ns: int | None
    to_ns: int | None

    def is_before(self, at_ns: int) -> bool:
        return self.from_ns is not None and at_ns < self.from_ns

    def is_after(self, at_ns: int) -> bool:
        return self.to_ns is not None and at_ns >= self.to_ns


def _opened(source: Session | Path | str, selection: _Selection) -> Iterator[Timed]:
    """A source's items with their times; a session is opened when the merged time has come to its start."""
    if isinstance(source, str | Path):
        yield from _tape(source, selection)
    elif source.start_ns is not None:
        contracts = source.contracts
        ids = tuple(one.contract_id for one in contracts)
        yield source.start_ns, SessionStart(source.session_id, ids, tick_sizes(contracts))
        yield from _session(source, selection)


def _session(session: Session, selection: _Selection) -> Iterator[Timed]:
    contracts = [one.contract_id for one in session.contracts if one.contract_id in selection.contracts]
    tables = ((session.quotes, QuoteEvent), (session.trades, TradeEvent), (session.depth, DepthEvent))
    frames = [(table(contract_id), kind) for contract_id in contracts for table, kind in tables]
    if "" in selection.contracts:
        frames += [(table().filter(pl.col("contract_id").is_null()), kind) for table, kind in tables]
    events = heapq.merge(*(_rows(frame, kind, selection) for frame, kind in frames), key=_ORDER)
    timed: Iterator[Timed] = ((event.recv_ns, event) for event in events)
    return heapq.merge(_incidents(session, selection), timed, key=itemgetter(0))


def _rows(frame: pl.LazyFrame, kind: type[Event], selection: _Selection) -> Iterator[Event]:
    """A table's rows as events."""
    wanted = frame.select(pl.col(kind._fields)).with_columns(pl.col("contract_id").fill_null(""))
    for rows in in_pieces(wanted, _ROWS, from_ns=selection.from_ns, to_ns=selection.to_ns):
        yield from map(kind._make, rows.iter_rows())


def _incidents(session: Session, selection: _Selection) -> list[Timed]:
    """What happened to the capture; it is little."""
    noticed = session.incidents().sort("recv_ns", "seq", maintain_order=True).collect()
    items: list[Timed] = []
    for row in noticed.select("recv_ns", *Incident.__struct_fields__[:-1]).iter_rows(named=True):
        at_ns = row.pop("recv_ns")
        incident = Incident(**row)
        if incident.kind in GAP_KINDS and incident.to_ns is not None:
            at_ns = incident.to_ns
        of_contract = incident.contract_id is None or incident.contract_id in selection.contracts
        if of_contract and not selection.is_before(at_ns) and not selection.is_after(at_ns):
            items.append((at_ns, incident))
    return sorted(items, key=itemgetter(0))


def _tape(tape: Path | str, selection: _Selection) -> Iterator[Timed]:
    """A tape's events; what comes before the time asked for is decoded, too, since quotes are changes."""
    decoder = EventDecoder()
    next_seq = 0
    records = read_data(tape)
    for first in records:
        batch = [first, *islice(records, _RECORDS - 1)]
        for event in decoder.decode(next_seq, [at_ns for at_ns, _ in batch], [record for _, record in batch]):
            if selection.is_after(event.recv_ns):
                return
            if not selection.is_before(event.recv_ns) and event.contract_id in selection.contracts:
                yield event.recv_ns, event
        next_seq += len(batch)
