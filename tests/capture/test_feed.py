"""Statistics of a capture: the same, whether batches are taken one by one for handlers or many as one without them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tapes import CONTRACT, records

from mdcapture.capture.feed import Feed, MessageBatch
from mdcapture.lake.schema import Incident, IncidentKind

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
