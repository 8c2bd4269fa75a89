"""Live metrics: each one equals its counterpart of `mdcapture.metrics` on the same data, however the stream is cut.

Equality is exact where values are whole numbers or come from one state, and to 1e-12 of the value where fractions are
added up: a sum in another order rounds differently.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import cache
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import ROOT, blocks

from mdcapture.capture.events import DepthEvent, Event, QuoteEvent, SessionStart, TradeEvent
from mdcapture.errors import UsageError
from mdcapture.lake.schema import Incident, IncidentKind
from mdcapture.live.bars import Bar, DollarBars, TickBars, TimeBars, VolumeBars
from mdcapture.live.estimators import Estimator, Every
from mdcapture.live.flow import Intensity, MicroPriceState, OrderFlowImbalance, QueueImbalance, Vpin
from mdcapture.live.online import ESTIMATORS, LiveMetrics, Values
from mdcapture.live.prices import QuotedSpread, RealizedVariance
from mdcapture.live.replay import Replay
from mdcapture.metrics import bars, flow, point_process, spreads, volatility
from mdcapture.metrics.book import book_snapshots
from mdcapture.metrics.frames import mids, prevailing, stretches
from mdcapture.metrics.microprice import MicroPrice, micro_price
from mdcapture.metrics.profile import value_area, volume_profile

if TYPE_CHECKING:
    from mdcapture.session import Session

SECOND = 1_000_000_000
TICK = 0.25
LEVELS = 3
BUCKET, WINDOW = 60, 5
TAU_S = 3.0
MODEL = MicroPrice(TICK, np.array([[-0.1, 0.0, 0.1], [-0.2, np.nan, 0.2]]), np.zeros((2, 3)), 1)


class Data(NamedTuple):
    """What one contract's stream held up to `now_ns`, as the lake has it."""

    quotes: pl.DataFrame
    trades: pl.DataFrame
    depth: pl.DataFrame
    gaps: pl.DataFrame
    now_ns: int

    @property
    def now(self) -> pl.DataFrame:
        return pl.DataFrame({"recv_ns": [self.now_ns], "seq": [2**62], "pos": [0]})

    @property
    def book(self) -> pl.DataFrame:
        return book_snapshots(self.depth, LEVELS, tick_size=TICK, incidents=self.gaps)

    def latest(self, states: pl.DataFrame, name: str) -> float | None:
        """What holds now: nothing does across a gap."""
        return prevailing(self.now, states, [name], incidents=self.gaps)[name].item()

    def in_stretch(self, rows: pl.DataFrame) -> pl.Expr:
        return (
            pl.col("stretch") == stretches(self.now, self.gaps)["stretch"].item() if rows.height else pl.lit(value=True)
        )


def frames(events: list[Event], gaps: list[tuple[int, int]], now_ns: int) -> Data:
    tables = []
    for kind, optional in ((QuoteEvent, {}), (TradeEvent, {"side": pl.Int8}), (DepthEvent, {"dom_type": pl.Int8})):
        rows = [event for event in events if type(event) is kind]
        types = {name: pl.Float64 if name in PRICES else pl.Int64 for name in kind._fields[1:]} | optional
        tables.append(pl.DataFrame(rows, {"contract_id": pl.String, **types}, orient="row").drop("contract_id"))
    incidents = pl.DataFrame(gaps, {"from_ns": pl.Int64, "to_ns": pl.Int64}, orient="row")
    return Data(*tables, incidents, now_ns)


PRICES = {"best_bid", "best_ask", "last_price", "open", "high", "low", "price"}


def last_bar(data: Data, made: pl.DataFrame) -> Bar | None:
    """The last bar that was closed: by a trade, by time, or by a gap."""
    ended = pl.col("complete") if "complete" in made.columns else pl.col("end_ns") <= data.now_ns
    closed = made.filter(ended | ~data.in_stretch(made))
    if closed.is_empty():
        return None
    complete = closed["complete"][-1] if "complete" in made.columns else None
    return Bar(*closed.select(Bar._fields[:-1]).row(-1), complete)


def total(values: pl.Series) -> float | None:
    return values.sum() if values.count() else None


class Counterpart(NamedTuple):
    make: Callable[[], Estimator[Any]]
    batch: Callable[[Data], Any]
    exact: bool = True


def of_states(states: Callable[[Data], pl.DataFrame], value: pl.Expr) -> Callable[[Data], Any]:
    return lambda data: data.latest(states(data).with_columns(value.alias("_value")), "_value")


def only(frame: pl.DataFrame, name: str) -> float | None:
    return frame[name].item() if frame.height else None


COUNTERPARTS = {
    "mid": Counterpart(ESTIMATORS["mid"], lambda it: it.latest(mids(it.quotes), "mid")),
    "quoted_spread": Counterpart(
        ESTIMATORS["quoted_spread"],
        lambda it: only(spreads.quoted(it.quotes, until=it.now, incidents=it.gaps), "quoted_spread"),
        exact=False,
    ),
    "effective_spread": Counterpart(
        ESTIMATORS["effective_spread"],
        lambda it: only(
            spreads.mean_spreads(spreads.trade_spreads(it.trades, it.quotes, incidents=it.gaps)), "effective_spread"
        ),
        exact=False,
    ),
    "realized_variance": Counterpart(
        lambda: RealizedVariance(SECOND),
        lambda it: (
            volatility.sampled_returns(it.quotes, interval_ns=SECOND, incidents=it.gaps)
            .select(volatility.realized_variance("log_return"))
            .item()
        ),
        exact=False,
    ),
    "delta": Counterpart(
        ESTIMATORS["delta"], lambda it: only(flow.order_flow(it.trades), "delta") if it.trades.height else None
    ),
    "cumulative_delta": Counterpart(
        ESTIMATORS["cumulative_delta"],
        lambda it: it.latest(flow.cumulative_delta(it.trades, incidents=it.gaps), "cumulative_delta"),
    ),
    "trade_imbalance": Counterpart(
        ESTIMATORS["trade_imbalance"], lambda it: only(flow.order_flow(it.trades), "imbalance")
    ),
    "vpin": Counterpart(
        lambda: Vpin(BUCKET, WINDOW),
        lambda it: (
            (rows := flow.vpin(it.trades, BUCKET, window=WINDOW, incidents=it.gaps))
            .filter(it.in_stretch(rows))["vpin"]
            .tail(1)
            .to_list()
            or [None]
        )[0],
        exact=False,
    ),
    "intensity": Counterpart(
        lambda: Intensity(TAU_S),
        lambda it: only(point_process.intensity(it.trades, TAU_S, at=[it.now_ns], incidents=it.gaps), "intensity"),
        exact=False,
    ),
    "order_flow_imbalance": Counterpart(
        OrderFlowImbalance, lambda it: total(flow.order_flow_imbalance(it.book, incidents=it.gaps)["ofi_0"])
    ),
    "queue_imbalance": Counterpart(
        lambda: QueueImbalance(LEVELS), of_states(lambda it: it.book, flow.queue_imbalance(levels=LEVELS))
    ),
    "weighted_mid": Counterpart(ESTIMATORS["weighted_mid"], of_states(lambda it: it.book, flow.weighted_mid())),
    "micro_price": Counterpart(lambda: MicroPriceState(MODEL), of_states(lambda it: it.book, micro_price(MODEL))),
    "time_bars": Counterpart(
        lambda: TimeBars(SECOND),
        lambda it: last_bar(it, bars.time_bars(it.trades, SECOND, incidents=it.gaps)),
        exact=False,
    ),
    "tick_bars": Counterpart(
        lambda: TickBars(7), lambda it: last_bar(it, bars.tick_bars(it.trades, 7, incidents=it.gaps)), exact=False
    ),
    "volume_bars": Counterpart(
        lambda: VolumeBars(25), lambda it: last_bar(it, bars.volume_bars(it.trades, 25, incidents=it.gaps)), exact=False
    ),
    "dollar_bars": Counterpart(
        lambda: DollarBars(1e6, 2.0),
        lambda it: last_bar(it, bars.dollar_bars(it.trades, 1e6, point_value=2.0, incidents=it.gaps)),
        exact=False,
    ),
    "vwap": Counterpart(ESTIMATORS["vwap"], lambda it: it.trades.select(bars.vwap()).item(), exact=False),
    "volume_profile": Counterpart(
        ESTIMATORS["volume_profile"],
        lambda it: only(value_area(volume_profile(it.trades)), "point_of_control") if it.trades.height else None,
    ),
}


def check(name: str, live: object, batch: object) -> None:
    if isinstance(live, Bar) and isinstance(batch, Bar):
        check(name, live.vwap, batch.vwap)
        complete = live.complete if batch.complete is None else batch.complete  # the batch's time bars don't say it
        assert live == batch._replace(vwap=live.vwap, complete=complete), name
    elif COUNTERPARTS[name].exact or live is None or batch is None:
        assert live == batch, name
    else:
        assert live == pytest.approx(batch, rel=1e-12, abs=0), name


def new_metrics(tick_ns: int = SECOND) -> LiveMetrics:
    made: dict[str, Callable[[], Estimator[Any]]] = {name: it.make for name, it in COUNTERPARTS.items()}
    ticks = dict.fromkeys(["CON.F.US.MNQ.Z26", "CON.F.US.MES.Z26", "CON.F.US.EP.H24"], TICK)
    return LiveMetrics(made, tick_sizes=ticks, tick_ns=tick_ns)


def feed(live: LiveMetrics, events: list[Event], gaps: list[tuple[int, int]]) -> None:
    """Hand over events as a recorder does, each of the gaps (it is taken from them) before its first new message."""
    for event in events:
        while gaps and gaps[0][1] <= event.recv_ns:
            live.incident(Incident(IncidentKind.GAP, None, None, *gaps.pop(0)))
        live.update(event)


def test_every_live_metric_has_its_counterpart_and_its_name():
    assert COUNTERPARTS.keys() == ESTIMATORS.keys()
    assert all(type(COUNTERPARTS[name].make()) is kind for name, kind in ESTIMATORS.items())


@cache
def messages_of(market: Session) -> list[list[Event]]:
    """The events of each message; no argument of the test, which hypothesis would print."""
    return [list(events) for _, events in groupby(Replay(market), key=lambda event: event.seq)]


PLACES = st.integers(0, 2999)


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(1, 3000),
    cuts=st.lists(PLACES, max_size=5),
    edges=st.lists(PLACES, max_size=6, unique=True).map(sorted),
    tick_ns=st.sampled_from([SECOND, 100_000_000, 3 * SECOND]),
)
def test_live_metrics_equal_the_batch_metrics_on_any_part_of_the_market_with_any_gaps(
    market: Session, count: int, cuts: list[int], edges: list[int], tick_ns: int
):
    messages = messages_of(market)
    cuts = sorted(cut for cut in cuts if cut < count)
    places = [edge for edge in edges if edge < count]
    times = [events[0].recv_ns for events in messages[:count]]
    gaps = [(times[a], times[b]) for a, b in zip(places[::2], places[1::2], strict=False) if times[a] < times[b]]
    missed = [any(begin < at_ns < until for begin, until in gaps) for at_ns in times]
    live, to_come = new_metrics(tick_ns=tick_ns), gaps.copy()
    received: list[Event] = []
    for begin, end in pairwise([0, *cuts, count]):
        batch = [
            it for events, lost in zip(messages[begin:end], missed[begin:end], strict=True) for it in events if not lost
        ]
        if batch:
            feed(live, batch, to_come)
            live.tick(batch[-1].recv_ns)
            received += batch
    now_ns = received[-1].recv_ns
    for contract_id in live.contracts:
        of_contract = frames([it for it in received if it.contract_id == contract_id], gaps, now_ns)
        for name, value in live[contract_id].items():
            check(name, value, COUNTERPARTS[name].batch(of_contract))


prices = st.one_of(st.none(), st.integers(395, 405).map(lambda ticks: ticks * TICK))
entries = st.tuples(st.sampled_from([1, 2] * 4 + [3, 4, 5, 6, 9, 10, 99]), st.integers(395, 405), st.integers(0, 9))
contents = st.one_of(
    st.tuples(st.just("quote"), prices, prices),
    st.tuples(st.just("trade"), st.integers(395, 405), st.integers(0, 150), st.sampled_from([0, 1, None, 7])),
    st.tuples(st.just("depth"), st.lists(entries, min_size=1, max_size=4)),
)
waits = st.sampled_from([0, 1, 10_000_000, 400_000_000, SECOND, 1_700_000_000])


def odd_events(seq: int, recv_ns: int, content: tuple[Any, ...]) -> list[Event]:
    place = ("CON.F.US.MNQ.Z26", seq, recv_ns)
    match content:
        case ("quote", bid, ask):
            return [QuoteEvent(*place, 0, None, bid, ask, None, None, None, None, None)]
        case ("trade", ticks, volume, side):
            return [TradeEvent(*place, 0, None, ticks * TICK, volume, side)]
        case (_, told):
            return [
                DepthEvent(*place, pos, None, kind, ticks * TICK, n, 0) for pos, (kind, ticks, n) in enumerate(told)
            ]
    raise AssertionError


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(waits, contents), min_size=1, max_size=60))
def test_live_metrics_equal_the_batch_metrics_on_odd_streams(told: list[tuple[int, tuple[Any, ...]]]):
    """Missing and crossed sides, trades of no side or volume, many messages at one time, times right on the grid."""
    events: list[Event] = []
    now_ns = 1_795_000_000 * SECOND
    for seq, (wait_ns, content) in enumerate(told):
        now_ns += wait_ns
        events += odd_events(seq, now_ns, content)
    live = new_metrics()
    feed(live, events, [])
    live.tick(now_ns)
    data = frames(events, [], now_ns)
    for name, value in live[events[0].contract_id].items():
        check(name, value, COUNTERPARTS[name].batch(data))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_live_metrics_equal_the_batch_metrics_on_the_tape(es_values: dict[str, tuple[Any, Any]], name: str):
    live, batch = es_values[name]
    assert live is not None
    check(name, live, batch)


@pytest.fixture(scope="module")
def es_values(es: Session) -> dict[str, tuple[Any, Any]]:
    events = list(Replay(es))
    live = new_metrics()
    feed(live, events, [])
    live.tick(events[-1].recv_ns)
    data = frames(events, [], events[-1].recv_ns)
    return {name: (value, COUNTERPARTS[name].batch(data)) for name, value in live[events[0].contract_id].items()}


BARS = {
    "time_bars": lambda trades: bars.time_bars(trades, SECOND),
    "tick_bars": lambda trades: bars.tick_bars(trades, 7),
    "volume_bars": lambda trades: bars.volume_bars(trades, 25),
    "dollar_bars": lambda trades: bars.dollar_bars(trades, 1e6, point_value=2.0),
}


@pytest.mark.parametrize("name", BARS)
def test_every_bar_is_told_once_and_as_the_batch_has_it(market: Session, name: str):
    told: dict[str, list[Bar]] = {}

    def collect(_event: object, now: Values) -> None:
        bar, seen = now["bars"], told.setdefault(now.contract_id, [])
        if bar is not None and (not seen or bar is not seen[-1]):
            seen.append(bar)

    LiveMetrics({"bars": COUNTERPARTS[name].make}, listen=collect).attach(replay := Replay(market))
    replay.run()
    for contract_id, seen in told.items():
        batch = BARS[name](market.trades(contract_id).collect())
        assert batch.height - len(seen) in (0, 1)  # the last may be open
        for bar, row in zip(seen, batch.select(Bar._fields[:-1]).rows(), strict=False):
            check(name, bar, Bar(*row, True))  # noqa: FBT003  # nothing else is missing


def test_an_estimator_over_intervals_equals_the_batch_of_intervals(market: Session):
    values: dict[int, int | None] = {}
    contract_id = market.contracts[0].contract_id

    def collect(event: object, now: Values) -> None:
        if event is None:
            values[now.recv_ns // SECOND * SECOND - SECOND] = now["ofi"]

    metrics = {"ofi": lambda: Every(SECOND, OrderFlowImbalance())}
    replay = Replay(market, contracts=[contract_id])
    LiveMetrics(metrics, tick_sizes={contract_id: TICK}, listen=collect).attach(replay)
    replay.run()
    book = book_snapshots(market.depth(contract_id).collect(), 1, tick_size=TICK)
    batch = flow.ofi_bars(book, SECOND).select("start_ns", "ofi_0").rows()
    assert len(batch) > 15
    assert batch[:-1] == [(start_ns, values[start_ns]) for start_ns, _ in batch[:-1]]


def test_an_interval_in_which_nothing_came_has_the_value_of_nothing():
    every = Every(SECOND, COUNTERPARTS["delta"].make())
    spread = Every(SECOND, QuotedSpread())
    begin_ns = 1000 * SECOND
    every.update(trade_at(begin_ns))
    spread.update(QuoteEvent("C", 0, begin_ns + SECOND // 2, 0, None, 1.0, 1.5, None, None, None, None, None))
    for seconds, delta, held in ((0.9, None, None), (1.0, 3, 0.5), (1.9, 3, 0.5), (4.5, None, 0.5)):
        for one in (every, spread):
            one.on_time(begin_ns + round(seconds * SECOND))
        assert (every.value, spread.value) == (delta, held)


def trade_at(recv_ns: int, volume: int = 3) -> TradeEvent:
    return TradeEvent("C", 0, recv_ns, 0, None, 100.0, volume, 0)


def test_an_estimator_alone_takes_what_it_is_made_of():
    intensity = Intensity(tau_s=2.0, of="quotes")
    intensity.update(trade_at(5))
    assert intensity.value is None
    intensity.update(QuoteEvent("C", 0, 5, 0, None, *[None] * 7))
    assert intensity.value == 0.5


def test_a_trade_of_any_size_takes_no_time():
    vpin = Vpin(bucket_volume=1, window=50)
    vpin.update(trade_at(5, volume=2**62))
    assert vpin.value == 1.0


def test_metrics_are_of_each_contract_alone():
    live = LiveMetrics({"delta": COUNTERPARTS["delta"].make})
    for contract_id, volume in (("A", 1), ("B", 5), ("A", 2)):
        live.update(trade_at(SECOND, volume)._replace(contract_id=contract_id))
    assert live.contracts == ["A", "B"]
    assert dict(live["A"]) == {"delta": 3}
    assert (live["B"]["delta"], len(live["B"]), live["B"].recv_ns) == (5, 1, SECOND)
    with pytest.raises(UsageError, match="no event of C has come; there is A, B"):
        live["C"]


def test_an_estimator_of_ones_own_as_the_page_has_it(market: Session):
    """And as the metric of the same data."""
    (block,) = (one for one in blocks(ROOT / "docs/live.md", "python") if "(Estimator[" in one)
    names: dict[str, Any] = {"session": market}
    exec(compile(block, "live.md", "exec"), names)  # noqa: S102  # our own page
    largest = dict(market.trades().group_by("contract_id").agg(pl.col("volume").max()).collect().iter_rows())
    assert largest
    assert {one: names["live"][one]["largest"] for one in largest} == largest


def test_what_is_no_estimator_is_refused_by_name(market: Session):
    class Alike:
        takes = ("trades",)
        value = None

    live = LiveMetrics({"alike": Alike})  # type: ignore[dict-item]  # what the types forbid
    live.attach(replay := Replay(market))
    with pytest.raises(UsageError, match=r"alike is no Estimator: .*mdcapture\.live\.estimators\.Estimator"):
        replay.run()


def test_a_gap_of_one_stream_or_contract_leaves_the_others_alone():
    live = LiveMetrics({"mid": COUNTERPARTS["mid"].make, "delta": COUNTERPARTS["cumulative_delta"].make})
    for contract_id in "AB":
        live.update(QuoteEvent(contract_id, 0, 10, 0, None, 1.0, 2.0, *[None] * 5))
        live.update(trade_at(11)._replace(contract_id=contract_id))
    live.incident(Incident(IncidentKind.GAP, "quotes", "A", 10, 20))
    live.incident(Incident(IncidentKind.DISCONNECTED, None, None, 10, 20))
    live.update(trade_at(19)._replace(contract_id="A"))
    assert dict(live["A"]) == {"mid": 1.5, "delta": 6}
    live.update(trade_at(20)._replace(contract_id="A"))
    assert dict(live["A"]) == {"mid": None, "delta": 9}
    assert dict(live["B"]) == {"mid": 1.5, "delta": 3}


def test_bad_depth_is_counted_by_contract_and_ends_nothing():
    live = LiveMetrics({"lean": QueueImbalance}, tick_sizes={"C": TICK})
    entries = [(6, 0.0, 0), (1, 101.0, 5), (2, 100.0, 4), (99, 1.0, 1), (1, 101.0, -1), (2, 100.1, 1), (6, 0.0, 0)]
    told = [*entries, (1, 103.0, 2), (2, 102.0, 6), (2, 104.0, 1)]
    for seq, entry in enumerate(told):
        live.update(DepthEvent("C", seq, SECOND + seq, 0, None, *entry, 0))
    live.tick(2 * SECOND)
    assert live["C"].odd == {"unknown_type": 1, "negative_size": 1, "off_grid": 1, "crossed": 1}
    assert live["C"]["lean"] == 1.0  # the newest word stands, and what it crosses is hidden


@pytest.mark.parametrize(
    ("contract_id", "told", "given", "lean"),
    [
        ("C", {"C": TICK}, {}, 0.5),
        ("C", {"C": None}, {}, None),
        ("C", {"C": 2 * TICK}, {"C": TICK}, 0.5),
        ("C", {}, {}, None),
        ("CON.F.US.EP.H24", {}, {}, 0.5),
        ("CON.F.US.EP.H24", {"CON.F.US.EP.H24": None}, {}, None),
    ],
)
def test_ticks_are_those_given_or_the_session_s_or_the_id_s(
    contract_id: str, told: dict[str, float | None], given: dict[str, float], lean: float | None
):
    live = LiveMetrics({"lean": QueueImbalance}, tick_sizes=given)
    live.begin(SessionStart("session_20261118_230000", tick_sizes=told))
    for seq, entry in enumerate([(1, 100.0 + TICK, 1), (2, 100.0, 3)]):  # without a reset: only a tick says it is whole
        live.update(DepthEvent(contract_id, seq, SECOND + seq, 0, None, *entry, 0))
    live.tick(2 * SECOND)
    assert live[contract_id]["lean"] == lean


def test_a_session_begins_anew_with_its_contracts_and_no_others():
    live = LiveMetrics({"delta": COUNTERPARTS["delta"].make, "lean": QueueImbalance})
    for contract_id in "AB":
        live.update(trade_at(SECOND)._replace(contract_id=contract_id))
    live.update(DepthEvent("A", 1, SECOND + 1, 0, None, 6, 0.0, 0, 0))
    live.begin(SessionStart("session_20261118_230000", ("A", "C")))
    assert live.contracts == ["B"]
    live.update(trade_at(SECOND + 2, volume=1)._replace(contract_id="A"))
    assert (live["A"]["delta"], live["B"]["delta"]) == (1, 3)
    live.begin()
    assert live.contracts == []


def test_memory_does_not_grow_with_the_stream():
    live = new_metrics()

    def some(count: int, from_ns: int) -> int:
        for step in range(count):
            at_ns = from_ns + step * 20_000_000
            live.update(trade_at(at_ns))
            live.update(QuoteEvent("C", step, at_ns, 0, None, 99.0 + step % 2, 101.0, *[None] * 5))
            live.update(DepthEvent("C", step, at_ns, 0, None, 1 + step % 2, 100.0 + step % 2, step % 7, 0))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = some(2000, SECOND)
        assert some(20_000, 100 * SECOND) < before + 20_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LiveMetrics({}, tick_ns=0), "tick_ns"),
        (lambda: Every(0, OrderFlowImbalance()), "interval_ns"),
        (lambda: RealizedVariance(-1), "interval_ns"),
        (lambda: TimeBars(0), "interval_ns"),
        (lambda: TickBars(0), "threshold"),
        (lambda: DollarBars(1.0, point_value=0.0), "point_value"),
        (lambda: Vpin(0), "bucket_volume"),
        (lambda: Vpin(1, 0), "window"),
        (lambda: Intensity(float("nan")), "tau_s"),
        (lambda: Intensity(of="bars"), "of must be"),  # type: ignore[arg-type]
        (lambda: QueueImbalance(0), "levels"),
        (lambda: QuotedSpread("pips"), "scale"),  # type: ignore[arg-type]
    ],
)
def test_arguments_that_can_not_be_are_said(make: Callable[[], object], says: str):
    with pytest.raises(UsageError, match=says):
        make()
