"""Gaps: from a stream's last good message to its first new one, whatever broke it, told once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tapes import CONTRACT, records

from mdcapture.capture.streams import BREAKS, Streams
from mdcapture.gateway.hub import Subscription
from mdcapture.lake.schema import STREAMS, Incident, IncidentKind, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable

OTHER = "CON.F.US.EP.H27"
QUOTES, TRADES, DEPTH = (Subscription(stream, CONTRACT) for stream in STREAMS)
TARGETS = {"quotes": "GatewayQuote", "trades": "GatewayTrade", "depth": "GatewayDepth"}

Span = tuple[Stream | None, str | None, int, int | None]


def message(subscription: Subscription = TRADES) -> bytes:
    return b'{"type":1,"target":"%s","arguments":["%s",[{"price":1}]]}' % (
        TARGETS[subscription.stream].encode(),
        subscription.contract_id.encode(),
    )


def of(kind: IncidentKind, at_ns: int, subscription: tuple[Stream | None, str | None] = (None, None)) -> Incident:
    return Incident(kind, *subscription, at_ns, at_ns)


def spans(gaps: Iterable[Incident]) -> list[Span]:
    gaps = list(gaps)
    assert {gap.kind for gap in gaps} <= {IncidentKind.GAP}
    return [(gap.stream, gap.contract_id, gap.from_ns, gap.to_ns) for gap in gaps]


def subscribed(*subscriptions: Subscription) -> Streams:
    """Streams that are wanted from 0 on, asked for at 5, and subscribed at 10."""
    streams = Streams()
    assert streams.want(subscriptions, 0) == []
    for subscription in subscriptions:
        streams.note(of(IncidentKind.SUBSCRIBING, 5, subscription))
        streams.note(of(IncidentKind.SUBSCRIBED, 10, subscription))
    return streams


def test_a_quiet_stream_has_no_gap():
    streams = subscribed(QUOTES, TRADES)
    assert streams.hear([20, 500], [message(QUOTES), message(TRADES)]) == []
    assert streams.end(1000) == []


@pytest.mark.parametrize("kind", sorted(BREAKS))
def test_a_break_is_a_gap_from_the_last_good_message_to_the_first_new_one(kind: IncidentKind):
    streams = subscribed(TRADES)
    streams.hear([20, 30], [message()] * 2)
    streams.note(of(kind, 50, TRADES))
    streams.note(of(kind, 60, TRADES))
    (gap,) = streams.hear([90, 95], [message()] * 2)
    assert (gap.from_ns, gap.to_ns, gap.detail) == (30, 90, kind)
    assert streams.hear([100], [message()]) == []


def test_where_no_message_came_the_gap_begins_at_the_subscription():
    streams = subscribed(TRADES)
    streams.note(of(IncidentKind.DISCONNECTED, 50))
    assert spans(streams.hear([90], [message()])) == [(*TRADES, 10, 90)]


def test_where_no_subscription_succeeded_the_gap_begins_when_the_stream_was_wanted():
    streams = Streams()
    streams.want([TRADES], 3)
    streams.note(of(IncidentKind.RECONNECTING, 50))
    streams.note(of(IncidentKind.SUBSCRIBED, 80, TRADES))
    assert spans(streams.hear([90], [message()])) == [(*TRADES, 3, 90)]


def test_each_stream_of_each_contract_has_its_own_gap():
    other = Subscription("trades", OTHER)
    streams = subscribed(QUOTES, TRADES, DEPTH, other)
    streams.hear([20, 21, 22, 23], [message(QUOTES), message(TRADES), message(DEPTH), message(other)])
    streams.note(of(IncidentKind.DISCONNECTED, 50))
    gaps = streams.hear([60, 61, 62], [message(DEPTH), message(QUOTES), message(QUOTES)])
    assert sorted(spans(gaps)) == [(*DEPTH, 22, 60), (*QUOTES, 20, 61)]
    assert spans(streams.hear([99], [message(other)])) == [(*other, 23, 99)]
    assert spans(streams.end(100)) == [(*TRADES, 21, 100)]


def test_a_stall_concerns_its_stream_alone():
    streams = subscribed(QUOTES, TRADES)
    streams.hear([20, 21], [message(QUOTES), message(TRADES)])
    streams.note(of(IncidentKind.STALLED, 50, QUOTES))
    assert streams.hear([60], [message(TRADES)]) == []
    assert spans(streams.hear([70], [message(QUOTES)])) == [(*QUOTES, 20, 70)]


def test_what_still_comes_of_the_subscription_before_does_not_hide_the_hole_between_the_two():
    streams = subscribed(TRADES)
    streams.hear([20], [message()])
    streams.note(of(IncidentKind.RESUBSCRIBED, 50, TRADES))
    assert spans(streams.hear([55], [message()])) == [(*TRADES, 20, 55)]
    streams.note(of(IncidentKind.SUBSCRIBING, 60, TRADES))
    streams.note(of(IncidentKind.SUBSCRIBED, 62, TRADES))
    assert spans(streams.hear([70], [message()])) == [(*TRADES, 55, 70)]


def test_to_subscribe_once_more_without_unsubscribing_is_no_break():
    streams = subscribed(TRADES)
    streams.hear([20], [message()])
    streams.note(of(IncidentKind.SUBSCRIBING, 50, TRADES))
    streams.note(of(IncidentKind.SUBSCRIBED, 52, TRADES))
    assert streams.hear([60], [message()]) == []


def test_a_gap_across_two_sessions_is_one_in_each():
    streams = subscribed(QUOTES, TRADES)
    streams.hear([20, 21], [message(QUOTES), message(TRADES)])
    streams.note(of(IncidentKind.STALLED, 50, QUOTES))
    assert spans(streams.want([QUOTES, Subscription("quotes", OTHER)], 60)) == [(*QUOTES, 20, 60)]
    assert spans(streams.hear([70, 71], [message(QUOTES), message(TRADES)])) == [(*QUOTES, 60, 70)]
    assert list(streams.pulses()) == [QUOTES]


def test_a_stream_should_be_heard_from_its_completion_to_its_break():
    streams = Streams()
    streams.want([TRADES], 0)
    assert streams.pulses() == {}
    streams.note(of(IncidentKind.SUBSCRIBED, 10, TRADES))
    assert streams.pulses() == {TRADES: (10, None)}
    streams.hear([20], [message()])
    assert streams.pulses() == {TRADES: (10, 20)}
    streams.note(of(IncidentKind.DISCONNECTED, 30))
    assert streams.pulses() == {}


@pytest.mark.parametrize("kind", [IncidentKind.STALLED, IncidentKind.LOST, IncidentKind.SLEPT])
def test_a_stream_that_is_still_subscribed_should_be_heard_in_its_gap_too(kind: IncidentKind):
    streams = subscribed(TRADES)
    streams.hear([20], [message()])
    streams.note(of(kind, 30, TRADES))
    assert streams.pulses() == {TRADES: (10, 20)}
    assert streams.last_good_ns(TRADES) == 20
    assert spans(streams.hear([50], [message()])) == [(*TRADES, 20, 50)]


ODD = {
    "spaces": message().replace(b":", b" : "),
    "another order": b'{"arguments":["%s",[]],"target":"GatewayTrade","type":1}' % CONTRACT.encode(),
    "another case": message().replace(b"GatewayTrade", b"gatewayTRADE"),
    "an escape": message().replace(b"MNQ", b"\\u004dNQ"),
    "a null": b'{"type":1,"target":"GatewayTrade","arguments":["%s",null]}' % CONTRACT.encode(),
}
FOREIGN = (
    b"",
    b'"' * 60,
    b"{" * 100,
    b'{"type":1,"target":"GatewayTrade","arguments":[]}',
    b'{"type":1,"target":"GatewayLogout","arguments":[]}',
    b'{"type":1,"target":"GatewayNews","arguments":["%s"]}' % CONTRACT.encode(),
    message(Subscription("trades", CONTRACT + "X")),
    message(QUOTES),
    message()[:50],
    b"\xff" * 80,
)


@pytest.mark.parametrize("record", ODD.values(), ids=ODD)
def test_a_record_of_an_unusual_form_is_heard_too(record: bytes):
    streams = subscribed(TRADES)
    streams.hear([20, 30], [message(), record])
    streams.note(of(IncidentKind.DISCONNECTED, 40))
    assert spans(streams.hear([50, 60], [record, message()])) == [(*TRADES, 30, 50)]


@pytest.mark.parametrize("record", FOREIGN)
def test_a_record_of_nobody_ends_no_gap(record: bytes):
    streams = subscribed(TRADES)
    streams.note(of(IncidentKind.DISCONNECTED, 40))
    assert streams.hear([50], [record]) == []


def test_records_as_the_gateway_writes_them_are_told_apart():
    made = records(300)
    streams = subscribed(QUOTES, TRADES, DEPTH)
    streams.note(of(IncidentKind.DISCONNECTED, 15))
    gaps = streams.hear(range(100, 400), made)
    first = {stream: next(i for i, each in enumerate(made) if TARGETS[stream].encode() in each) for stream in STREAMS}
    assert {gap.stream: gap.to_ns for gap in gaps} == {stream: 100 + at for stream, at in first.items()}


def test_a_clock_that_is_set_forward_moves_no_message_and_no_gap():
    streams = subscribed(QUOTES, TRADES)
    streams.hear([20, 25], [message(QUOTES), message(TRADES)])
    streams.note(of(IncidentKind.STALLED, 50, QUOTES))
    assert streams.step(1000, 1060) == []
    streams.note(of(IncidentKind.DISCONNECTED, 1070))
    gaps = streams.hear([1090, 1095], [message(QUOTES), message(TRADES)])
    assert spans(gaps) == [(*QUOTES, 20, 1090), (*TRADES, 25, 1095)]


def test_after_the_clock_was_set_back_a_gap_begins_when_the_new_one_would_have_stamped_the_last_good_message():
    streams = subscribed(TRADES)
    streams.hear([20_500], [message(TRADES)])
    assert streams.step(-1000, 19_600) == []
    streams.note(of(IncidentKind.DISCONNECTED, 19_601))
    assert spans(streams.hear([19_650], [message(TRADES)])) == [(*TRADES, 19_500, 19_650)]


def test_a_gap_in_which_the_clock_is_set_back_is_one_on_each_clock():
    streams = subscribed(QUOTES, TRADES)
    streams.hear([20_500, 20_500], [message(QUOTES), message(TRADES)])
    streams.note(of(IncidentKind.STALLED, 20_550, TRADES))
    ended = streams.step(-1000, 19_600)
    assert spans(ended) == [(*TRADES, 20_500, 20_600)]
    assert streams.last_good_ns(TRADES) == 19_600
    (gap,) = streams.hear([19_650], [message(TRADES)])
    assert spans([gap]) == [(*TRADES, 19_600, 19_650)]
    assert gap.detail == ended[0].detail == IncidentKind.STALLED


Event = tuple[str, Subscription]
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["message", "stalled", "disconnected", "resubscribed"]), st.sampled_from([QUOTES, TRADES])
    ),
    max_size=40,
)


def slow_gaps(events: list[Event], subscription: Subscription) -> list[Span]:
    """The rule, stream by stream: between two good messages there is a gap if anything broke the stream there."""
    good, broken, gaps = 10, False, []
    for at, (what, about) in enumerate(events, 11):
        if what == "message" and about == subscription:
            gaps += [(*subscription, good, at)] if broken else []
            good, broken = at, False
        elif what == "disconnected" or (what != "message" and about == subscription):
            broken = True
    return gaps + ([(*subscription, good, 1000)] if broken else [])


@given(EVENTS, st.lists(st.integers(0, 40)))
def test_whatever_happens_the_gaps_are_those_of_the_rule_wherever_a_batch_is_cut(events: list[Event], cuts: list[int]):
    streams = subscribed(QUOTES, TRADES)
    found: list[Incident] = []
    batch: list[tuple[int, bytes]] = []

    def flush() -> None:
        found.extend(streams.hear([at for at, _ in batch], [record for _, record in batch]))
        batch.clear()

    for number, (what, about) in enumerate(events):
        if number in cuts:
            flush()
        if what == "message":
            batch.append((number + 11, message(about)))
        else:
            flush()
            streams.note(of(IncidentKind(what), number + 11, (None, None) if what == "disconnected" else about))
    flush()
    found += streams.end(1000)
    assert sorted(spans(found)) == sorted(slow_gaps(events, QUOTES) + slow_gaps(events, TRADES))
