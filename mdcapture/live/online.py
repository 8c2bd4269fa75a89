"""Live metrics: named estimators for each contract, fed by a recorder, a replay, or event by event.

    Recorder ─┐
    Replay  ──┼─ events, incidents ─▶ LiveMetrics ─▶ a set for each contract: book, estimators ─▶ values by name
    update  ──┘

Each estimator has a counterpart in `mdcapture.metrics`, and after the same events the same value: exactly where it is
made of whole numbers or of one state, to twelve digits where fractions are added up. `ESTIMATORS` names them.

A session is a beginning: what held or was added up in the one before is not known in it, as in the lake's own metrics,
which are by session. So a replay of one session gives what was seen live in it.

Two things can only be known afterwards. A gap ends what held when it is over, not when it began: what another stream
told in the meantime was taken. And the last message of a contract's book counts when the next event comes, since it is
not complete before; `tick` completes it, too.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar

from mdcapture.capture.events import DepthEvent, QuoteEvent, SessionStart, TradeEvent
from mdcapture.errors import UsageError
from mdcapture.gateway.instruments import parse_id
from mdcapture.lake.schema import GAP_KINDS, STREAMS
from mdcapture.live.bars import DollarBars, TickBars, TimeBars, VolumeBars, VolumeProfile, Vwap
from mdcapture.live.book import Book
from mdcapture.live.estimators import BookEvent, Estimator, positive
from mdcapture.live.flow import (
    CumulativeDelta,
    Delta,
    Intensity,
    MicroPriceState,
    OrderFlowImbalance,
    QueueImbalance,
    TradeImbalance,
    Vpin,
    WeightedMid,
)
from mdcapture.live.prices import EffectiveSpread, Mid, QuotedSpread, RealizedVariance

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from mdcapture.capture.events import Event
    from mdcapture.lake.schema import Incident

__all__ = ["ESTIMATORS", "EventSource", "LiveMetrics", "Values"]

ESTIMATORS: Final[Mapping[str, type[Estimator[Any]]]] = {
    "mid": Mid,
    "quoted_spread": QuotedSpread,
    "effective_spread": EffectiveSpread,
    "realized_variance": RealizedVariance,
    "delta": Delta,
    "cumulative_delta": CumulativeDelta,
    "trade_imbalance": TradeImbalance,
    "vpin": Vpin,
    "intensity": Intensity,
    "order_flow_imbalance": OrderFlowImbalance,
    "queue_imbalance": QueueImbalance,
    "weighted_mid": WeightedMid,
    "micro_price": MicroPriceState,
    "time_bars": TimeBars,
    "tick_bars": TickBars,
    "volume_bars": VolumeBars,
    "dollar_bars": DollarBars,
    "vwap": Vwap,
    "volume_profile": VolumeProfile,
}
"""The estimators by name."""

Handler = TypeVar("Handler", bound="Callable[..., object]")


class EventSource(Protocol):
    """Where events come from: a `Recorder`, or a `Replay`."""

    def on_quote(self, handler: Handler, /) -> Handler:
        """Call this with each quote."""

    def on_trade(self, handler: Handler, /) -> Handler:
        """Call this with each trade."""

    def on_depth(self, handler: Handler, /) -> Handler:
        """Call this with each depth entry."""

    def on_incident(self, handler: Handler, /) -> Handler:
        """Call this with each incident."""

    def on_session(self, handler: Handler, /) -> Handler:
        """Call this with each session, before its first event."""


class Values(Mapping[str, Any]):
    """The values of one contract by name, as they are whenever one is asked for.

    Attributes:
        contract_id: The contract.
        recv_ns: The time of the last event that there was, or that showed that time had passed.
        seq: The number of its message, which may be another contract's.
        odd: What was odd of its depth stream, counted: see `Book`.
    """

    def __init__(self, contract_id: str, estimators: Mapping[str, Estimator[Any]], odd: Mapping[str, int]) -> None:
        self.contract_id = contract_id
        self.odd = odd
        self.recv_ns = self.seq = 0
        self._estimators = estimators

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  # an estimator's value: a number, a bar
        return self._estimators[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._estimators)

    def __len__(self) -> int:
        return len(self._estimators)


class LiveMetrics:
    """Estimators for every contract that events come of.

    Args:
        make: What makes each estimator, by the name of its value.
        tick_ns: The stream's time is told to the estimators at whole multiples of this, with the first event after it.
        tick_sizes: The ticks of contracts (see `Book`), where they are not those that the session says, or without a
            session those of the id.
        listen: Called after every change with the event (a `BookEvent` for depth; None for time) and the values.

    Raises:
        UsageError: `tick_ns` is not positive.

    Example:
        ```python
        live = LiveMetrics({"spread": QuotedSpread, "ofi": lambda: Every(NS_PER_S, OrderFlowImbalance())})
        live.attach(recorder)
        ...
        live["CON.F.US.MNQ.Z26"]["ofi"]
        ```
    """

    def __init__(
        self,
        make: Mapping[str, Callable[[], Estimator[Any]]],
        *,
        tick_ns: int = 1_000_000_000,
        tick_sizes: Mapping[str, float] | None = None,
        listen: Callable[[QuoteEvent | TradeEvent | BookEvent | None, Values], object] = lambda _event, _values: None,
    ) -> None:
        self._make = dict(make)
        self._tick_ns = positive("tick_ns", tick_ns)
        self._tick_sizes = tick_sizes or {}
        self._told_tick_sizes: dict[str, float | None] = {}
        self._listen = listen
        self._sets: dict[str, _Set] = {}
        self._open: _Set | None = None
        self._next_tick_ns = 0
        self._seq = 0
        self._gaps: list[tuple[int, int, Incident]] = []

    @property
    def contracts(self) -> list[str]:
        """The contracts that events have come of."""
        return list(self._sets)

    def __getitem__(self, contract_id: str) -> Values:
        """The values of a contract.

        Raises:
            UsageError: No event of it has come.
        """
        try:
            return self._sets[contract_id].values
        except KeyError:
            known = ", ".join(self._sets) or "nothing yet"
            raise UsageError(f"no event of {contract_id} has come; there is {known}") from None

    def attach(self, source: EventSource) -> Self:
        """Take what comes from there, in its thread."""
        source.on_quote(self.update)
        source.on_trade(self.update)
        source.on_depth(self.update)
        source.on_incident(self.incident)
        source.on_session(self.begin)
        return self

    def begin(self, session: SessionStart | None = None) -> None:
        """Begin anew with the contracts of a session, or with all: a message that was not yet whole never will be."""
        if session is not None:
            self._told_tick_sizes |= session.tick_sizes
        contracts = session.contracts if session is not None and session.contracts else list(self._sets)
        for contract_id in contracts:
            ended = self._sets.pop(contract_id, None)
            if ended is self._open:
                self._open = None

    def update(self, event: Event) -> None:
        """Take the next event."""
        if self._open is not None and not self._open.is_of_message(event):
            self._complete()
        if self._gaps and event.recv_ns >= self._gaps[0][0]:
            self._end_gaps(event.recv_ns)
        self._seq = event.seq
        if event.recv_ns >= self._next_tick_ns:
            self._tick(event.recv_ns // self._tick_ns * self._tick_ns, event.recv_ns)
        own = self._sets.get(event.contract_id)
        if own is None:
            own = self._sets[event.contract_id] = self._new_set(event.contract_id)
        if isinstance(event, DepthEvent):
            own.take_depth(event)
            self._open = own
        else:
            own.take(event)
            self._listen(event, own.values)

    def incident(self, incident: Incident) -> None:
        """Take what happened: a gap ends what held, before the first event after it."""
        if incident.kind in GAP_KINDS and incident.to_ns is not None:
            heapq.heappush(self._gaps, (incident.to_ns, len(self._gaps), incident))

    def tick(self, now_ns: int) -> None:
        """Everything that was received before this time has been given: bars end, time passes."""
        if self._open is not None:
            self._complete()
        self._tick(now_ns, now_ns)

    def _tick(self, now_ns: int, known_ns: int) -> None:
        for own in self._sets.values():
            own.pass_time(now_ns, known_ns, self._seq)
            self._listen(None, own.values)
        self._next_tick_ns = now_ns // self._tick_ns * self._tick_ns + self._tick_ns

    def _complete(self) -> None:
        """Take the depth message whose last entry has been given."""
        own, self._open = self._open, None
        assert own is not None
        self._listen(own.complete_book(), own.values)

    def _end_gaps(self, now_ns: int) -> None:
        """Let the gaps that are over end what held before them."""
        while self._gaps and self._gaps[0][0] <= now_ns:
            _, _, gap = heapq.heappop(self._gaps)
            streams = STREAMS if gap.stream is None else (gap.stream,)
            for contract_id, own in self._sets.items():
                if gap.contract_id in (None, contract_id):
                    own.break_off(gap.from_ns, streams)

    def _new_set(self, contract_id: str) -> _Set:
        estimators = {name: make() for name, make in self._make.items()}
        for name, one in estimators.items():
            if not isinstance(one, Estimator):
                raise UsageError(f"{name} is no Estimator: let its class be one of mdcapture.live.estimators.Estimator")
        return _Set(contract_id, estimators, Book(tick_size=self._tick_size(contract_id)))

    def _tick_size(self, contract_id: str) -> float | None:
        for known in (self._tick_sizes, self._told_tick_sizes):
            if contract_id in known:
                return known[contract_id]
        listing = parse_id(contract_id)
        return None if listing is None else listing.contract.tick_size


class _Set:
    """The estimators of one contract, and its book."""

    def __init__(self, contract_id: str, estimators: dict[str, Estimator[Any]], book: Book) -> None:
        self.values = Values(contract_id, estimators, book.odd)
        own = list(estimators.values())
        self._estimators = own
        self._on_quote = [one.on_quote for one in own if "quotes" in one.takes]
        self._on_trade = [one.on_trade for one in own if "trades" in one.takes]
        self._on_book = [one.on_book for one in own if "depth" in one.takes]
        self._on_time = [one.on_time for one in own if type(one).on_time is not Estimator.on_time]
        self._levels = max((one.levels for one in own), default=1)
        self._book = book
        self._message: list[DepthEvent] = []

    def is_of_message(self, event: Event) -> bool:
        """Whether it is one more entry of the depth message that is being given."""
        last = self._message[-1]
        same = event.seq == last.seq and event.recv_ns == last.recv_ns and event.contract_id == last.contract_id
        return same and isinstance(event, DepthEvent)

    def take(self, event: QuoteEvent | TradeEvent) -> None:
        self.values.recv_ns, self.values.seq = event.recv_ns, event.seq
        if isinstance(event, QuoteEvent):
            for on_quote in self._on_quote:
                on_quote(event)
        else:
            for on_trade in self._on_trade:
                on_trade(event)

    def take_depth(self, entry: DepthEvent) -> None:
        self._message.append(entry)

    def complete_book(self) -> BookEvent:
        """Take the entries of the message as one."""
        entries, self._message = self._message, []
        last = entries[-1]
        self._book.apply_message([(entry.dom_type, entry.price, entry.volume) for entry in entries])
        event = BookEvent(last.contract_id, last.seq, last.recv_ns, self._book.levels(self._levels))
        self.values.recv_ns, self.values.seq = event.recv_ns, event.seq
        for on_book in self._on_book:
            on_book(event)
        return event

    def break_off(self, from_ns: int, streams: Collection[str]) -> None:
        """Let a gap in these streams end what held before it."""
        if "depth" in streams:
            self._book.forget()
        for estimator in self._estimators:
            if any(name in streams for name in estimator.takes):
                estimator.on_gap(from_ns)

    def pass_time(self, now_ns: int, known_ns: int, seq: int) -> None:
        """Let time pass; what was received at `known_ns`, of that number, showed it."""
        self.values.recv_ns, self.values.seq = known_ns, seq
        for on_time in self._on_time:
            on_time(now_ns)
