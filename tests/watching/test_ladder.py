"""The ladder of a contract that is being captured equals the book of all that was received."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lake_builder import ES, MS, START_NS, depth, recording, trade

from mdcapture.lake.manifest import Contract
from mdcapture.lake.schema import Incident, IncidentKind
from mdcapture.live.book import Book
from mdcapture.serve.ladder import Ladder, Standing
from mdcapture.session import open_lake

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CONTRACT = Contract(contract_id=ES, tick_size=0.25)
RESET = (6, 4800.0, 0)

entries = st.tuples(st.sampled_from([1, 2, 1, 2, 3, 4, 6, 9, 10]), st.integers(0, 24), st.integers(0, 3))
messages = st.lists(st.lists(entries.map(lambda it: (it[0], 4800 + 0.25 * it[1], it[2])), min_size=1, max_size=4))


def wire(message: list[tuple[int, float, int]]) -> bytes:
    return depth(ES, *({"type": kind, "price": price, "volume": size} for kind, price, size in message))


def ladder(lake: Path) -> Ladder:
    return Ladder(open_lake(lake).session(), CONTRACT, START_NS)


def told(standing: Standing) -> tuple[str, list[tuple[float, int]], list[tuple[float, int]]]:
    return standing.kind, standing.bids, standing.asks


def expected(book: Book) -> tuple[str, list[tuple[float, int]], list[tuple[float, int]]]:
    kind, bids, asks = book.levels(10)
    return kind, [level[:2] for level in bids], [level[:2] for level in asks]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(before=messages, after=messages, more=messages, sealed=st.booleans())
def test_it_equals_the_book_of_every_entry(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[list[tuple[int, float, int]]],
    after: list[list[tuple[int, float, int]]],
    more: list[list[tuple[int, float, int]]],
    sealed: bool,  # noqa: FBT001  # a parameter of the test
):
    lake = tmp_path_factory.mktemp("ladder")
    book = Book(tick_size=0.25)
    with recording(lake, tick_sizes={ES: 0.25}) as session:
        for message in ([RESET], *before):
            session.receive(wire(message))
            book.apply_message(message)
        if sealed:
            session.seal()
        watched = ladder(lake)
        assert told(watched.look()) == expected(book)
        for part in (after, more):
            for message in part:
                session.receive(wire(message))
                book.apply_message(message)
            if sealed:
                session.seal()
            assert told(watched.look()) == expected(book)


def test_after_a_gap_it_is_unknown_until_it_is_told_anew(tmp_path: Path):
    with recording(tmp_path, tick_sizes={ES: 0.25}) as session:
        session.receive(wire([RESET, (1, 4800.25, 5), (2, 4800.0, 4)]))
        watched = ladder(tmp_path)
        assert told(watched.look()) == ("ladder", [(4800.0, 4)], [(4800.25, 5)])
        from_ns = session.now_ns
        session.now_ns += 500 * MS
        session.tell(Incident(IncidentKind.GAP, "depth", ES, from_ns, session.now_ns + MS, "disconnected"))
        session.receive(wire([(1, 4800.5, 1)]))
        assert watched.look().kind == "unknown"
        assert ladder(tmp_path).look().kind == "unknown"
        session.receive(wire([RESET, (1, 4801.0, 2), (2, 4800.5, 3)]))
        assert told(watched.look()) == ("ladder", [(4800.5, 3)], [(4801.0, 2)])


def test_the_last_trades_come_newest_first(tmp_path: Path):
    with recording(tmp_path) as session:
        for number in range(20):
            session.receive(trade(price=4800.0 + number, volume=number, side=number % 2))
        watched = ladder(tmp_path)
        assert [one.price for one in watched.look().trades] == [4819.0 - place for place in range(15)]
        session.receive(trade(price=1.0))
        trades = watched.look().trades
        assert [one.price for one in trades[:2]] == [1.0, 4819.0]
        assert (trades[1].volume, trades[1].side) == (19, 1)
