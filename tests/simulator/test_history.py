"""Bars of the trades that went by."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdcapture.simulator.history import Bar, History, Unit
from mdcapture.wire.timestamps import NS_PER_S, format_ns

MNQ = "CON.F.US.MNQ.Z26"
START_S = 1_750_000_000
FOREVER_NS = 2**62
EVERY = {Unit.SECOND: "s", Unit.MINUTE: "m", Unit.HOUR: "h", Unit.DAY: "d", Unit.WEEK: "w", Unit.MONTH: "mo"}

Print = tuple[int, int, int]


def record(prints: list[Print]) -> bytes:
    entries = [
        {"price": price, "timestamp": format_ns(second * NS_PER_S), "type": 0, "volume": volume}
        for second, price, volume in prints
    ]
    return json.dumps({"type": 1, "target": "GatewayTrade", "arguments": [MNQ, entries]}).encode()


@given(
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 99), st.integers(1, 9)), min_size=1).map(sorted),
    st.sampled_from(Unit),
)
def test_bars_are_those_of_polars(prints: list[Print], unit: Unit):
    prints = [(START_S + second, price, volume) for second, price, volume in prints]
    history = History()
    history.add(record(prints))
    frame = pl.DataFrame(prints, ["s", "p", "v"], orient="row").with_columns(pl.from_epoch("s"))
    expected = frame.group_by_dynamic("s", every=f"1{EVERY[unit]}").agg(
        pl.first("p").alias("o"), pl.max("p").alias("h"), pl.min("p").alias("l"), pl.last("p").alias("c"), pl.sum("v")
    )
    bars = history.bars(MNQ, 0, FOREVER_NS, unit)
    assert bars == [Bar(*row) for row in expected.with_columns(pl.col("s").dt.epoch("s")).iter_rows()]


def test_bars_of_several_units_and_of_a_span():
    history = History()
    for second in range(600):
        history.add(record([(START_S + second, second, 1)]))
    bars = history.bars(MNQ, (START_S + 100) * NS_PER_S, (START_S + 500) * NS_PER_S, Unit.MINUTE, 2)
    assert [bar.start_s % 120 for bar in bars] == [0, 0, 0]
    assert [bar.volume for bar in bars] == [120, 120, 120]
    assert (
        history.bars(MNQ, 0, FOREVER_NS, Unit.MINUTE, partial=False)
        == history.bars(MNQ, 0, FOREVER_NS, Unit.MINUTE)[:-1]
    )
    assert history.bars("unknown", 0, FOREVER_NS, Unit.MINUTE, partial=False) == []


def test_months_begin_on_their_first_day():
    history = History()
    history.add(record([(START_S, 1, 1)]))
    (bar,) = history.bars(MNQ, 0, FOREVER_NS, Unit.MONTH, 3)
    assert datetime.fromtimestamp(bar.start_s, UTC) == datetime(2025, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "odd",
    [
        b"{",
        b"\xff",
        b'{"target":"GatewayTrade","arguments":["CON.F.US.MNQ.Z26",[null]]}',
        b'{"target":"GatewayTrade","arguments":["CON.F.US.MNQ.Z26",{"price":1,"volume":1,"timestamp":"noon"}]}',
    ],
)
def test_what_is_no_sound_trade_makes_no_bar(odd: bytes):
    history = History()
    history.add(odd)
    assert history.bars(MNQ, 0, FOREVER_NS, Unit.SECOND) == []
