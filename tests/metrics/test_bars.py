"""Bars: published values, a plain loop over trades as the oracle, and that bars add up to the tape."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mdcapture.errors import UsageError
from mdcapture.metrics.bars import (
    dollar_bars,
    imbalance_bars,
    run_bars,
    running_vwap,
    tick_bars,
    time_bars,
    twap,
    volume_bars,
    vwap,
)

if TYPE_CHECKING:
    from pathlib import Path

Row = tuple[int, float, int, int | None]
"""Time, price, volume, side."""
MakeBars = Callable[[pl.DataFrame], pl.DataFrame]

few = settings(max_examples=20, deadline=None)

SCHEMA = {
    "session_id": pl.String,
    "contract_id": pl.String,
    "seq": pl.Int64,
    "pos": pl.Int64,
    "recv_ns": pl.Int64,
    "exch_ns": pl.Int64,
    "price": pl.Float64,
    "volume": pl.Int64,
    "side": pl.Int8,
}

KINDS: dict[str, MakeBars] = {
    "time": lambda trades: time_bars(trades, 50),
    "tick": lambda trades: tick_bars(trades, 7),
    "volume": lambda trades: volume_bars(trades, 20),
    "dollar": lambda trades: dollar_bars(trades, 2000.0),
    "imbalance": lambda trades: imbalance_bars(trades, expected_trades=5, limits=(2, 40)),
    "volume imbalance": lambda trades: imbalance_bars(trades, weight="volume", expected_trades=5, limits=(2, 40)),
    "run": lambda trades: run_bars(trades, weight="value", expected_trades=5, limits=(2, 40)),
}


def tape(rows: list[Row], session: str = "s", contract: str = "c") -> pl.DataFrame:
    return pl.DataFrame(
        [(session, contract, i, 0, t, t, p, v, side) for i, (t, p, v, side) in enumerate(rows)],
        schema=SCHEMA,
        orient="row",
    )


def price_ticks(low: int = 400, high: int = 440):
    return st.integers(low, high).map(lambda ticks: ticks / 4)


trade_lists = st.lists(
    st.tuples(st.integers(0, 30), price_ticks(), st.integers(1, 30), st.sampled_from([0, 1, None])), max_size=60
).map(lambda rows: [(t, *rest) for t, (_, *rest) in zip(itertools.accumulate(r[0] for r in rows), rows, strict=True)])


@pytest.fixture(scope="module")
def published_ticks(shared: Path):
    ticks = pl.read_csv(shared / "reference" / "tick_data.csv")
    return ticks.select(recv_ns=pl.int_range(pl.len()), price="Price", volume="Volume", side=pl.lit(0, pl.Int8))


def test_first_tick_bar_is_the_published_one(expected: dict[int, Any], published_ticks: pl.DataFrame):
    first = tick_bars(published_ticks, 10).row(0, named=True)
    assert [first[name] for name in ("open", "high", "low", "close")] == pytest.approx(
        expected[96]["expected"], rel=expected[96]["rtol"]
    )


@pytest.mark.parametrize(
    ("bars", "close"), [(lambda t: volume_bars(t, 30), 1304.75), (lambda t: dollar_bars(t, 1e5), 1304.5)]
)
def test_first_volume_and_dollar_bars_are_those_of_mlfinpy(published_ticks: pl.DataFrame, bars: MakeBars, close: float):
    """mlfinpy 89511cc1, tests/test_standard_data_structure.py; not in expected.json."""
    first = bars(published_ticks).row(0, named=True)
    assert [first[name] for name in ("open", "high", "low", "close")] == [1205.0, 1904.75, 1005.0, close]


def slow_bars(rows: list[Row], amount: Callable[[Row], float], threshold: float):
    """Lists of rows, closed one by one."""
    bars, current = [], []
    for row in rows:
        current.append(row)
        if sum(amount(r) for r in current) >= threshold:
            bars.append(current)
            current = []
    return bars + ([current] if current else [])


@pytest.mark.parametrize(
    ("kind", "amount", "threshold"),
    [("tick", lambda _: 1, 7), ("volume", lambda r: r[2], 20), ("dollar", lambda r: r[1] * r[2], 2000.0)],
)
@few
@given(rows=trade_lists)
def test_threshold_bars_equal_a_loop_over_trades(
    kind: str, amount: Callable[[Row], float], threshold: float, rows: list[Row]
):
    bars = KINDS[kind](tape(rows))
    slow = slow_bars(rows, amount, threshold)
    assert bars.height == len(slow)
    for bar, members in zip(bars.iter_rows(named=True), slow, strict=True):
        prices = [p for _, p, _, _ in members]
        assert (bar["start_ns"], bar["end_ns"]) == (members[0][0], members[-1][0])
        assert (bar["open"], bar["high"], bar["low"], bar["close"]) == (
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
        )
        assert bar["buy_volume"] == sum(v for _, _, v, side in members if side == 0)
        assert bar["sell_volume"] == sum(v for _, _, v, side in members if side == 1)
        assert bar["complete"] == (sum(amount(r) for r in members) >= threshold)


def slow_adaptive_bars(
    rows: list[Row], weigh: Callable[[Row], float], first: int, span: int, limits: tuple[float, float], *, runs: bool
):
    """The rule of López de Prado's chapter 2, one trade at a time; the lengths of the bars."""
    gain, lengths, flows = 2 / (span + 1), [], []
    expected_length, expected_rate = first, None
    for row in rows:
        signed = {0: 1, 1: -1, None: 0}[row[3]] * weigh(row)
        flows.append((max(signed, 0), max(-signed, 0)) if runs else (signed,))
        sums = [sum(column) for column in zip(*flows, strict=True)]
        if expected_rate is None:
            closes = len(flows) == first
        else:
            closes = max(abs(s) for s in sums) >= expected_length * max(abs(r) for r in expected_rate)
        if closes:
            rates = [s / len(flows) for s in sums]
            expected_rate = (
                rates
                if expected_rate is None
                else [e + gain * (r - e) for e, r in zip(expected_rate, rates, strict=True)]
            )
            expected_length = min(max(expected_length + gain * (len(flows) - expected_length), limits[0]), limits[1])
            lengths.append(len(flows))
            flows = []
    return lengths + ([len(flows)] if flows else [])


@pytest.mark.parametrize("make", [imbalance_bars, run_bars])
@few
@given(rows=trade_lists, first=st.integers(1, 10), span=st.integers(1, 9))
def test_imbalance_and_run_bars_equal_a_loop_over_trades(
    make: Callable[..., pl.DataFrame], rows: list[Row], first: int, span: int
):
    bars = make(tape(rows), weight="volume", expected_trades=first, span=span, limits=(2.0, 30.0))
    slow = slow_adaptive_bars(rows, lambda r: r[2], first, span, (2.0, 30.0), runs=make is run_bars)
    assert bars["trades"].to_list() == slow


@pytest.mark.parametrize("kind", KINDS)
@few
@given(rows=trade_lists)
def test_bars_partition_the_tape(kind: str, rows: list[Row]):
    trades, bars = tape(rows), KINDS[kind](tape(rows))
    for name in ("volume", "trades"):
        assert bars[name].sum() == (trades["volume"].sum() if name == "volume" else trades.height)
    assert bars["buy_volume"].sum() == trades.filter(side=0)["volume"].sum()
    value = (trades["price"] * trades["volume"]).sum()
    assert (bars["vwap"] * bars["volume"]).sum() == pytest.approx(value)
    assert (bars["low"] <= bars["vwap"] + 1e-9).all()
    assert (bars["vwap"] <= bars["high"] + 1e-9).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "time"])
@few
@given(rows=trade_lists, cut=st.integers(0, 60))
def test_a_complete_bar_never_changes_when_more_trades_come(kind: str, rows: list[Row], cut: int):
    early = KINDS[kind](tape(rows[:cut])).filter("complete")
    assert_frame_equal(early, KINDS[kind](tape(rows)).head(early.height))


@pytest.mark.parametrize("kind", KINDS)
@few
@given(one=trade_lists, other=trade_lists)
def test_each_session_and_contract_has_its_own_bars_in_any_order_of_rows(kind: str, one: list[Row], other: list[Row]):
    tapes = [tape(one, contract="a"), tape(other, contract="b"), tape(other, session="t", contract="a")]
    mixed = pl.concat(tapes).sample(fraction=1.0, shuffle=True, seed=1)
    apart = pl.concat([KINDS[kind](t) for t in tapes])
    together = KINDS[kind](mixed)
    assert_frame_equal(together, apart.sort("session_id", "contract_id", maintain_order=True))
    assert_frame_equal(KINDS[kind](mixed.lazy()).collect(), together)


@pytest.mark.parametrize("kind", KINDS)
def test_no_bar_reaches_across_a_gap(kind: str):
    rows: list[Row] = [(t, 100.0, 1, t % 2) for t in range(40)]
    gap = pl.DataFrame({"session_id": ["s"], "contract_id": [None], "from_ns": [19], "to_ns": [21]})
    bars = {
        "time": lambda: time_bars(tape(rows), 50, incidents=gap),
        "tick": lambda: tick_bars(tape(rows), 7, incidents=gap),
        "volume": lambda: volume_bars(tape(rows), 7, incidents=gap),
        "dollar": lambda: dollar_bars(tape(rows), 700.0, incidents=gap),
        "run": lambda: run_bars(tape(rows), expected_trades=7, incidents=gap),
    }.get(kind, lambda: imbalance_bars(tape(rows), expected_trades=7, incidents=gap))()
    assert bars["stretch"].n_unique() == 3
    if kind != "time":
        assert bars.filter(pl.col("start_ns") <= 19)["end_ns"].max() == 19
    assert bars.filter(stretch=0)["trades"].sum() == 20
    assert bars["trades"].sum() == 40


@pytest.mark.parametrize("kind", KINDS)
def test_no_trade_makes_no_bar_and_one_trade_one(kind: str):
    nothing = KINDS[kind](tape([]))
    assert nothing.height == 0
    one = KINDS[kind](tape([(5, 100.0, 3, None)]))
    assert one.schema == nothing.schema
    assert one.select("open", "close", "volume", "buy_volume", "sell_volume", "trades", "vwap").rows() == [
        (100.0, 100.0, 3, 0, 0, 1, 100.0)
    ]


def test_time_bars_stand_on_the_utc_grid():
    bars = time_bars(tape([(99, 1.0, 1, 0), (100, 2.0, 1, 0), (149, 3.0, 1, 1), (250, 4.0, 1, 1)]), 50)
    assert bars.select("start_ns", "end_ns", "trades").rows() == [(50, 100, 1), (100, 150, 2), (250, 300, 1)]


def test_empty_time_bars_carry_the_close():
    bars = time_bars(tape([(0, 1.0, 1, 0), (10, 2.0, 5, 0), (160, 4.0, 1, 1)]), 50, empty=True)
    assert bars.select("start_ns", "open", "close", "volume", "vwap").rows() == [
        (0, 1.0, 2.0, 6, 11 / 6),
        (50, 2.0, 2.0, 0, None),
        (100, 2.0, 2.0, 0, None),
        (150, 4.0, 4.0, 1, 4.0),
    ]
    assert time_bars(tape([]), 50, empty=True).height == 0


def test_time_bars_by_exchange_time_leave_out_trades_without_one():
    trades = tape([(60, 1.0, 1, 0), (70, 2.0, 1, 0)]).with_columns(exch_ns=pl.Series([49, None], dtype=pl.Int64))
    assert time_bars(trades, 50, clock="exch_ns").select("start_ns", "trades").rows() == [(0, 1)]


def test_mirrored_sides_make_mirrored_bars():
    rows: list[Row] = [(t, 100.0, 1 + t % 3, (t // 5) % 2) for t in range(60)]
    mirrored: list[Row] = [(t, p, v, 1 - side) for t, p, v, side in rows]
    for kind in ("imbalance", "volume imbalance", "run"):
        swap = {"buy_volume": "sell_volume", "sell_volume": "buy_volume"}
        bars, other = KINDS[kind](tape(rows)), KINDS[kind](tape(mirrored)).rename(swap)
        assert_frame_equal(bars, other.select(bars.columns))


def test_imbalance_bars_take_another_sign_than_the_feeds():
    rows: list[Row] = [(t, 100.0, 1, None) for t in range(12)]
    trades = tape(rows).with_columns(tick=1)
    assert imbalance_bars(trades, expected_trades=4, sign="tick")["trades"].to_list() == [4, 4, 4]


def test_point_value_scales_the_threshold():
    rows: list[Row] = [(t, 100.0, 2, 0) for t in range(20)]
    assert_frame_equal(dollar_bars(tape(rows), 50_000.0, point_value=50.0), dollar_bars(tape(rows), 1000.0))


def test_average_prices():
    frame = pl.DataFrame({"price": [1.0, 2.0, 4.0], "volume": [1, 2, 1], "recv_ns": [0, 10, 40]})
    assert frame.select(vwap()).item() == 9 / 4
    assert frame.select(running_vwap()).to_series().to_list() == [1.0, 5 / 3, 9 / 4]
    assert frame.select(twap()).item() == (1.0 * 10 + 2.0 * 30) / 40
    assert frame.head(1).select(vwap(), b=twap()).rows() == [(1.0, 1.0)]
    assert frame.clear().select(vwap(), b=twap()).rows() == [(None, None)]


@pytest.mark.parametrize(
    "call",
    [
        lambda t: time_bars(t, 0),
        lambda t: tick_bars(t, -1),
        lambda t: volume_bars(t, 0),
        lambda t: dollar_bars(t, float("nan")),
        lambda t: imbalance_bars(t, expected_trades=0),
        lambda t: imbalance_bars(t, limits=(5, 2)),
        lambda t: run_bars(t, weight="ticks"),
    ],
)
def test_wrong_arguments_are_said(call: MakeBars):
    with pytest.raises(UsageError):
        call(tape([]))
