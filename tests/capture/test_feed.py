"""Beside the capture: statistics are the same with and without handlers, and what passes by leaves no false state."""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tapes import CONTRACT, records

from mdcapture.capture.events import DepthEvent, QuoteEvent, TradeEvent
from mdcapture.capture.feed import Feed, MessageBatch
from mdcapture.lake.schema import Incident, IncidentKind
from mdcapture.live.flow import QueueImbalance
from mdcapture.live.online import LiveMetrics
from mdcapture.live.prices import Mid

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDS = records(400)
SUBSCRIBING = Incident(IncidentKind.SUBSCRIBING, "quotes", CONTRACT, 0, 0)


def fed(items: list[MessageBatch | Incident], *, handler: bool) -> Feed:
    troubles: list[str] = []
    feed = Feed(1000, report=troubles.append, keep=lambda _, __: None)
    if handler:
        feed.handle(Incident, lambda _: None)
    feed.start()
    for item in items:
        assert feed.put(item)
    feed.stop()
    assert troubles == []
    return feed


@given(
    cuts=st.lists(st.integers(0, len(RECORDS)), max_size=12),
    skipped=st.sets(st.integers(0, 12), max_size=3),
    incidents=st.sets(st.integers(0, 12), max_size=3),
    turn=st.integers(0, 13),
)
def test_statistics_do_not_depend_on_handlers(cuts: list[int], skipped: set[int], incidents: set[int], turn: int):
    ends = sorted({0, *cuts, len(RECORDS)})
    items: list[MessageBatch | Incident] = []
    for number, (begin, end) in enumerate(pairwise(ends)):
        if number in incidents:
            items.append(SUBSCRIBING)
        if number not in skipped:
            session_id = "one" if number < turn else "two"
            items.append(MessageBatch(session_id, begin, list(range(begin, end)), RECORDS[begin:end]))
    with_handler, without = (fed(items, handler=handler) for handler in (True, False))
    assert without.rows == with_handler.rows
    assert without.latest == with_handler.latest
    assert without.dropped == 0


def test_only_those_who_listen_can_miss_anything():
    feed = Feed(1, report=lambda _: None, keep=lambda _, __: None)
    assert not feed.heard
    feed.listen(lambda _: None)
    assert feed.heard


# What passes handlers by.


def told(first_seq: int, *messages: tuple[str, dict[str, object]]) -> MessageBatch:
    """Messages by their targets and entries; they are received at 1000 and their number."""
    sent = [{"type": 1, "target": f"Gateway{kind}", "arguments": [CONTRACT, [entry]]} for kind, entry in messages]
    stamps = [1000 + first_seq + place for place in range(len(sent))]
    return MessageBatch("one", first_seq, stamps, [json.dumps(message).encode() for message in sent])


TRADE: tuple[str, dict[str, object]] = ("Trade", {"price": 100.0, "volume": 1, "type": 0})
MARKET = (
    ("Depth", {"type": 1, "price": 100.25, "volume": 5}),
    ("Depth", {"type": 2, "price": 100.0, "volume": 5}),
    ("Quote", {"bestBid": 100.0, "bestAsk": 100.25}),
    TRADE,
)
MOVED = ("Quote", {"bestBid": 90.0, "bestAsk": 90.25})


def passes_a_full_queue(feed: Feed) -> None:
    assert feed.put(told(4, TRADE))
    assert not feed.put(told(5, MOVED))


def a_subscription_passes_a_full_queue(feed: Feed) -> None:
    assert feed.put(told(4, TRADE))
    assert not feed.put(SUBSCRIBING)
    assert feed.dropped == 0


def is_cleared_away(feed: Feed) -> None:
    assert feed.put(told(4, MOVED))
    feed.clear()


@pytest.mark.parametrize("passes", [passes_a_full_queue, a_subscription_passes_a_full_queue, is_cleared_away])
def test_what_passed_handlers_by_is_a_gap_for_them_and_leaves_no_false_state(passes: Callable[[Feed], None]):
    log: list[object] = []
    busy, go_on = threading.Event(), threading.Event()
    metrics = LiveMetrics({"mid": Mid, "imbalance": QueueImbalance})
    feed = Feed(1, report=log.append, keep=lambda _, __: None)
    for kind in (QuoteEvent, TradeEvent, DepthEvent):
        feed.handle(kind, metrics.update)
    feed.handle(Incident, metrics.incident)
    for kind in (QuoteEvent, Incident):
        feed.handle(kind, log.append)
    feed.handle(TradeEvent, lambda _: (busy.set(), go_on.wait(30)))
    assert feed.put(told(0, *MARKET))
    feed.start()
    assert busy.wait(30)
    assert metrics[CONTRACT]["mid"] == 100.125
    passes(feed)
    go_on.set()
    feed.catch_up(30)
    before_ns = metrics[CONTRACT].recv_ns
    assert feed.put(told(6, ("Quote", {"lastPrice": 90.0})))
    feed.stop(30)
    first, gap, second = log
    assert isinstance(first, QuoteEvent)
    assert gap == Incident(IncidentKind.GAP, None, None, before_ns, 1006, "handler_dropped")
    assert isinstance(second, QuoteEvent)
    assert (second.seq, second.best_bid, second.best_ask, second.last_price) == (6, None, None, 90.0)
    assert dict(metrics[CONTRACT]) == {"mid": None, "imbalance": None}


@pytest.mark.parametrize(
    "kind", [IncidentKind.SUBSCRIBING, IncidentKind.STALLED, IncidentKind.LOST, IncidentKind.SLEPT]
)
def test_what_quotes_told_before_some_can_be_missing_is_not_known_any_more(kind: IncidentKind):
    bids: list[tuple[float | None, float | None]] = []
    feed = Feed(9, report=lambda _: None, keep=lambda _, __: None)
    feed.handle(QuoteEvent, lambda quote: bids.append((quote.best_bid, quote.best_ask)))
    feed.start()
    assert feed.put(told(0, MOVED))
    assert feed.put(Incident(kind, "trades", CONTRACT, 1, None))
    assert feed.put(told(1, ("Quote", {"bestBid": 80.0})))
    assert feed.put(Incident(kind, "quotes", CONTRACT, 1, None))
    assert feed.put(told(2, ("Quote", {"bestBid": 70.0})))
    feed.stop(30)
    assert bids == [(90.0, 90.25), (80.0, 90.25), (70.0, None)]


def test_a_batch_that_follows_what_was_taken_is_no_gap():
    log: list[object] = []
    feed = Feed(3, report=log.append, keep=lambda _, __: None)
    feed.handle(Incident, log.append)
    feed.handle(QuoteEvent, lambda quote: log.append(quote.best_bid))
    feed.start()
    for batch in (told(0, *MARKET), told(4, TRADE), told(5, ("Quote", {"lastPrice": 90.0}))):
        assert feed.put(batch)
    feed.stop(30)
    assert log == [100.0, 100.0]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(1), "SystemExit: 1"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (ValueError("caf\udce9\nor tea"), "ValueError: caf or tea"),
    ],
)
def test_whatever_a_handler_raises_ends_it_alone_and_is_told(error: BaseException, said: str):
    troubles: list[str] = []
    trades: list[TradeEvent] = []

    def fails(_: TradeEvent) -> None:
        raise error

    feed = Feed(3, report=troubles.append, keep=lambda _, __: None)
    feed.handle(TradeEvent, fails)
    feed.handle(TradeEvent, trades.append)
    feed.start()
    assert feed.put(told(0, TRADE))
    assert feed.put(told(1, TRADE))
    feed.stop(30)
    assert len(trades) == 2
    (trouble,) = troubles
    assert f"is called no more, it raised {said}" in trouble
    trouble.encode()
