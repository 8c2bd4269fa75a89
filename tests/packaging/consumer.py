"""A user's program, as type checkers see it from outside: what is public has types, and they are the right ones."""

from __future__ import annotations

from typing import assert_type

import duckdb
import polars as pl

import mdcapture as md
from mdcapture.metrics.spreads import trade_spreads


def read(folder: str) -> float | None:
    """Lake, session, frames, SQL, analysis."""
    lake = md.open_lake(folder)
    assert_type(lake, md.Lake)
    session = lake.session("latest")
    assert_type(session, md.Session)
    assert_type(lake.sessions(), list[md.Session])
    assert_type(session.trades(), pl.LazyFrame)
    assert_type(session.start_ns, int | None)
    assert_type(session.counts, dict[str, int])
    assert_type(session.sql("from trades"), duckdb.DuckDBPyRelation)
    assert_type(session.export("out"), dict[str, int])
    spreads = trade_spreads(session.trades(), session.quotes(), incidents=session.gaps())
    assert_type(spreads, pl.LazyFrame)
    return session.analyze().value("effective_spread_bps")


def record() -> md.Captured:
    """Configuration, recorder, handlers of either kind."""
    config = md.Config(contracts=["MNQ"], duration_s=60)
    with md.Recorder(config) as recorder:

        @recorder.on_trade
        def bought(trade: md.TradeEvent) -> bool:
            return trade.side == md.Side.BUY

        assert_type(bought(md.TradeEvent("MNQ", 0, 0, 0, None, 1.0, 1, 0)), bool)
        assert_type(recorder.figures(), md.Figures | None)
        return recorder.run()


async def follow(recorder: md.Recorder) -> int:
    """Events in async code."""
    lots = 0
    async for event in recorder.events():
        assert_type(event, md.QuoteEvent | md.TradeEvent | md.DepthEvent)
        if isinstance(event, md.TradeEvent):
            lots += event.volume
    return lots


def fail() -> int:
    """Errors are a tree."""
    try:
        md.open_lake("nowhere")
    except md.NotFoundError as error:
        assert_type(error.exit_code, int)
        return error.exit_code
    except md.MdcaptureError:
        return 1
    return 0


assert_type(md.parse_ns("2026-11-22T10:00:00Z"), int)
assert_type(md.format_ns(0), str)
