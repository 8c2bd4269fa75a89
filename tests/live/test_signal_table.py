"""Signals of a recorder: the rows of its sessions' tables are those that a replay gives, and history, day after day."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import polars as pl
import pytest
from programs import simulator
from synthetic import CONTRACTS

import mdcapture as md
from mdcapture.capture.trading_day import next_roll_ns
from mdcapture.errors import UsageError
from mdcapture.lake.verify import verify
from mdcapture.live.bars import TickBars
from mdcapture.live.estimators import BookEvent, Every
from mdcapture.live.flow import Delta, OrderFlowImbalance, QueueImbalance
from mdcapture.live.replay import Replay
from mdcapture.live.signals import Signals
from mdcapture.metrics.book import book_snapshots

if TYPE_CHECKING:
    from mdcapture.live.bars import Bar
    from mdcapture.live.online import Values

INTERVAL_NS = 100_000_000


def some_signals() -> Signals:
    signals = Signals(
        {
            "ofi": lambda: Every(INTERVAL_NS, OrderFlowImbalance()),
            "delta": Delta,
            "lean": QueueImbalance,
            "trades": lambda: TickBars(5),
        },
        tick_ns=INTERVAL_NS,
    )

    @signals.on_bar("trades")
    def flow(bar: Bar, now: Values) -> float | None:
        return None if now["ofi"] is None else now["ofi"] / bar.volume + now["delta"]

    @signals.on_book
    def lean(_book: BookEvent, now: Values) -> float | None:
        return now["lean"] if abs(now["lean"] or 0) > 0.5 else None

    return signals


def in_order(rows: pl.LazyFrame | pl.DataFrame) -> pl.DataFrame:
    """A session's rows by contract, as its table has them."""
    columns = ["contract_id", "seq", "recv_ns", "name", "value"]
    return rows.lazy().select(columns).sort("contract_id", maintain_order=True).collect()


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> md.Lake:
    """Two sessions of a recorder with signals: the trading day ended in between."""
    lake = tmp_path_factory.mktemp("signals") / "lake"
    options = [option for name in CONTRACTS for option in ("--contract", name)]
    with simulator("--rate", "300", "--seed", "3", *options) as gateway:
        now_ns = time.time_ns()
        roll_ns = next_roll_ns(now_ns, "17:00", "America/Chicago")
        assert roll_ns is not None
        ahead_ns = roll_ns - now_ns - 2_500_000_000
        config = md.Config(
            gateway=gateway["api"], lake=str(lake), contracts=list(CONTRACTS), username="me", duration_s=5.0,
            segment_s=1.0, calendar="weekly",
        )  # fmt: skip
        with md.Recorder(config, api_key="demo", clock=lambda: time.time_ns() + ahead_ns) as recorder:
            signals = some_signals().attach(recorder)
            recorder.run()
    assert signals.frame().is_empty()  # memory stays flat: the table has them
    return md.open_lake(lake)


def test_live_rows_equal_a_replay_s_and_history_s_in_each_session(captured: md.Lake):
    sessions = captured.sessions()
    assert len(sessions) == 2
    for session in sessions:
        live = in_order(session.signals())
        assert live.height > 50
        assert set(live["name"]) == {"flow", "lean"}
        assert live.equals(in_order(some_signals().run(Replay(session))))
        assert live.equals(in_order(some_signals().store(session)))
        assert live.equals(in_order(session.signals()))
        assert session.counts["signals"] == live.height
        assert verify(captured.path, session.session_id, deep=True) == []
    both = some_signals().run(Replay(*sessions))
    assert in_order(both).equals(in_order(pl.concat(in_order(session.signals()) for session in sessions)))


def test_a_row_has_the_number_and_the_time_of_the_message_that_made_it_known(captured: md.Lake):
    query = """select count(*), count(*) filter (m.recv_ns = s.recv_ns) from signals s
        left join messages m using (session_id, seq)"""
    ((rows, known),) = captured.sql(query).fetchall()
    assert rows == known == sum(session.counts["signals"] for session in captured.sessions())


def test_the_new_day_s_session_has_a_whole_book_of_its_own(captured: md.Lake):
    """All is subscribed to anew when the day ends, and the gateway's snapshot is in the new session."""
    for session in captured.sessions():
        for contract_id in CONTRACTS:
            book = book_snapshots(session.depth(contract_id).collect(), 3)
            known = book.filter(pl.col("kind") == "ladder")
            assert known["recv_ns"][0] - book["recv_ns"][0] < 1_000_000_000
            assert known.height > 0.8 * book.height


def test_rows_that_go_elsewhere_are_not_stored(captured: md.Lake):
    with pytest.raises(UsageError, match="go elsewhere"):
        Signals({}, emit=print).store(captured.session())
