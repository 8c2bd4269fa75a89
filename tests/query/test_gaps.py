"""Clean data by one flag or one join: what lies in a gap, of which stream, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lake_builder import ES, MS, START_NS, depth, quote, recording, trade

import mdcapture as md
from mdcapture.lake.schema import NO_END_NS, Bar, Incident, IncidentKind
from mdcapture.metrics.frames import prevailing

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

NQ = "CON.F.US.ENQ.H24"
JOIN = """
    SELECT t.* FROM {table} t ANTI JOIN gaps g ON t.session_id = g.session_id AND t.contract_id = g.contract_id
        AND g.stream = '{stream}' AND t.recv_ns > g.from_ns AND t.recv_ns < g.to_ns"""


def at(millisecond: int) -> int:
    return START_NS + millisecond * MS


@pytest.fixture(params=["sealed", "running"])
def session(tmp_path: Path, request: pytest.FixtureRequest) -> md.Session:
    """Prices that are their milliseconds; the quotes of ES stall from 2 to 6, and NQ is whole."""
    with recording(tmp_path) as made:
        made.receive(quote(bestBid=1.0, bestAsk=1.5), trade(price=1), depth(ES, {"type": 1}))
        made.receive(quote(bestBid=2.0), trade(price=2))
        made.receive(trade(price=3), trade(NQ, price=3))
        made.tell(Incident(IncidentKind.STALLED, "quotes", ES, at(2), None))
        made.receive(trade(price=4))
        made.note(IncidentKind.SUBSCRIBING, "quotes", ES)
        made.receive(trade(price=5))
        made.receive(quote(bestAsk=6.5), trade(price=6))
        made.tell(Incident(IncidentKind.GAP, "quotes", ES, at(2), at(6)))
        made.receive(quote(bestBid=7.0), trade(price=7))
        if request.param == "running":
            return md.open_lake(tmp_path).session()
        made.finish()
    return md.open_lake(tmp_path).session()


def column(frame: pl.LazyFrame, name: str = "price") -> list[object]:
    return frame.sort("seq").collect()[name].to_list()


def test_a_gap_that_was_told_when_it_began_and_when_it_ended_is_one(session: md.Session):
    gaps = session.gaps().collect()
    assert gaps.rows() == [(session.session_id, ES, "quotes", at(2), at(6))]
    assert session.sql("SELECT session_id, contract_id, stream, from_ns, to_ns FROM gaps").fetchall() == gaps.rows()


def test_clean_rows_of_a_stream_are_outside_of_its_own_gaps(session: md.Session):
    assert column(session.trades(clean=True)) == column(session.trades())
    assert column(session.depth(clean=True)) == column(session.depth())


def test_clean_rows_can_be_asked_to_be_outside_of_the_gaps_of_other_streams(session: md.Session):
    kept = session.trades(clean=("trades", "quotes"))
    assert column(kept) == [1, 2, 3, 6, 7]
    assert column(kept.filter(contract_id=NQ)) == [3]
    assert column(session.trades(ES, clean=("quotes",))) == [1, 2, 6, 7]
    ordered = session.sql(JOIN.format(table="trades", stream="quotes") + " ORDER BY seq").pl()
    assert ordered["price"].to_list() == [1, 2, 3, 6, 7]


def test_clean_quotes_know_both_sides_since_the_last_subscription(session: md.Session):
    assert column(session.quotes(clean=True), "best_bid") == [1.0, 2.0, 7.0]
    assert column(session.quotes(), "best_bid") == [1.0, 2.0, None, 7.0]


def test_the_quote_before_a_gap_does_not_stand_in_it(session: md.Session):
    trades = session.trades(ES).collect()
    standing = prevailing(
        trades, session.quotes(ES).collect(), ["best_ask"], incidents=session.gaps(streams=["quotes"])
    )
    assert standing["best_ask"].to_list()[1:5] == [1.5, None, None, None]


def test_a_gap_without_an_end_lasts(tmp_path: Path):
    with recording(tmp_path) as made:
        made.receive(quote(bestBid=1.0, bestAsk=1.5), trade(price=1))
        made.tell(Incident(IncidentKind.STALLED, "quotes", ES, at(1), None))
        made.receive(trade(price=2))
        made.finish()
    session = md.open_lake(tmp_path).session()
    assert session.gaps().collect()["to_ns"].to_list() == [NO_END_NS]
    assert column(session.trades(clean=("quotes",))) == [1]
    assert session.sql(JOIN.format(table="trades", stream="quotes")).pl()["price"].to_list() == [1]


def test_what_concerns_all_is_a_gap_of_every_stream_of_every_contract(tmp_path: Path):
    with recording(tmp_path) as made:
        made.receive(trade(price=1), trade(NQ, price=1))
        made.tell(Incident(IncidentKind.JOURNAL_DAMAGED, None, None, at(1), at(3)))
        made.tell(Incident(IncidentKind.DISCONNECTED, None, None, at(1), at(9)))
        made.finish()
    session = md.open_lake(tmp_path).session()
    expected = [
        (contract_id, stream, at(1), at(3)) for contract_id in (NQ, ES) for stream in ("depth", "quotes", "trades")
    ]
    assert session.gaps().drop("session_id").collect().rows() == expected
    assert session.sql("SELECT contract_id, stream, from_ns, to_ns FROM gaps").fetchall() == expected
    assert len(session.gaps(ES, ["trades"]).collect()) == 1


def test_gaps_that_overlap_are_gaps_all_the_same(tmp_path: Path):
    with recording(tmp_path) as made:
        for price in range(1, 10):
            made.receive(trade(price=price))
        made.tell(Incident(IncidentKind.GAP, "quotes", ES, at(1), at(7)))
        made.tell(Incident(IncidentKind.GAP, "depth", ES, at(2), at(4)))
        made.finish()
    session = md.open_lake(tmp_path).session()
    assert column(session.trades(clean=("quotes", "depth"))) == [1, 7, 8, 9]


def test_bars_that_were_fetched_are_rows_of_their_contract(tmp_path: Path):
    bars = tuple(Bar(at(1000 * second), 1.0, 2.5, 0.5, 2.0, second) for second in range(3))
    with recording(tmp_path) as made:
        made.receive(trade())
        made.tell(Incident(IncidentKind.BACKFILLED, "trades", ES, at(0), at(3000), "3 bars", bars))
        made.tell(Incident(IncidentKind.BACKFILLED, "trades", ES, at(3000), at(4000), "0 bars"))
        running = md.open_lake(tmp_path).session().backfill().collect()
        made.seal()
        made.finish()
    session = md.open_lake(tmp_path).session()
    stored = session.backfill(ES).collect()
    assert stored.equals(running)
    assert stored.select(Bar._fields).rows() == list(bars)
    assert stored["pos"].to_list() == [0, 1, 2]
    assert set(stored["contract_id"]) == {ES}
    assert session.counts["backfill"] == 3
