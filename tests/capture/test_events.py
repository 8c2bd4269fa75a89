"""Events of live handlers: however many messages are decoded at once, they are the lake's rows."""

from __future__ import annotations

import json
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from mdcapture.capture.events import DepthEvent, EventDecoder, QuoteEvent, TradeEvent
from mdcapture.lake.columns import Decoder
from mdcapture.lake.journal import MessageBlock

if TYPE_CHECKING:
    from mdcapture.capture.events import Event

KINDS = {"quotes": QuoteEvent, "trades": TradeEvent, "depth": DepthEvent}
TIMES = (None, "2023-12-25T23:00:00Z", "2023-12-25T23:00:00.1068462+00:00", "soon", "", "9999-01-01T00:00:00Z")

times = st.sampled_from(TIMES)
numbers = st.integers(0, 9)
sides = st.sampled_from([0, 1, None])
trades = st.fixed_dictionaries({"price": numbers, "volume": numbers, "type": sides, "timestamp": times})
levels = st.fixed_dictionaries({"price": numbers, "volume": numbers, "type": numbers, "timestamp": times})
quotes = st.fixed_dictionaries(
    {"timestamp": times}, optional={"bestBid": numbers, "volume": numbers, "bestAsk": numbers}
)
odd = st.sampled_from([None, {"price": "much"}])
messages = st.one_of(
    st.tuples(st.just("GatewayQuote"), quotes),
    st.tuples(st.just("GatewayTrade"), st.lists(trades | odd, max_size=9)),
    st.tuples(st.just("GatewayDepth"), st.lists(levels | odd, max_size=9)),
)


def encoded(target: str, data: object) -> bytes:
    return json.dumps({"type": 1, "target": target, "arguments": ["CON.F.US.EP.H24", data]}).encode()


@given(st.lists(messages, max_size=12), st.lists(st.integers(0, 12), max_size=3))
def test_events_are_the_lake_s_rows_wherever_the_messages_are_cut(told: list[tuple[str, Any]], cuts: list[int]):
    records = [encoded(*message) for message in told]
    recv_ns = list(range(1000, 1000 + len(records)))
    decoder = EventDecoder()
    events: list[Event] = []
    for begin, end in pairwise(sorted({0, *(cut for cut in cuts if cut < len(records)), len(records)})):
        events += decoder.decode(begin, recv_ns[begin:end], records[begin:end])
    lake = Decoder({}, {})
    if records:
        lake.take([MessageBlock(0, 1, array("q", recv_ns), records)])
    for table, kind in KINDS.items():
        rows = lake.tables()[table].select(list(kind._fields)).to_pylist()
        assert [event._asdict() for event in events if type(event) is kind] == rows
    assert [(event.seq, event.pos) for event in events] == sorted((event.seq, event.pos) for event in events)
