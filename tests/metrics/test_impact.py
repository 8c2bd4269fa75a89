"""Impact against published values, against loops over the ES tape, and in markets whose lambda is known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mdcapture.errors import UsageError
from mdcapture.metrics.flow import ofi_bars
from mdcapture.metrics.frames import trade_sign
from mdcapture.metrics.impact import (
    amihud,
    bar_kyle,
    flow_regression,
    hasbrouck_lambda,
    impact_bars,
    kyle_lambda,
    mid_changes,
    response,
)
from mdcapture.metrics.spreads import mean_spreads, trade_spreads

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Tape

SECOND_NS = 1_000_000_000

PUBLISHED = {
    74: bar_kyle("close", "cum_vol", window=20),
    75: amihud("close", "cum_dollar", window=20),
}


@pytest.mark.parametrize("number", PUBLISHED)
def test_published_bar_measures(number: int, shared: Path, expected: dict[int, Any]):
    bars = pl.read_csv(shared / "reference" / "dollar_bar_sample.csv")
    found = bars.select(PUBLISHED[number]).to_series()
    published = expected[number]
    assert [found.max(), found.mean(), found[25]] == pytest.approx(published["expected"], rel=published["rtol"])


# Bars


def test_amihud_and_kyle_on_bars_are_means_of_ratios():
    bars = pl.DataFrame({"close": [10.0, 11.0, 11.0, 9.0], "volume": [1, 2, 0, 4], "value": [10.0, 22.0, 0.0, 36.0]})
    logs = [math.log(11 / 10) / 22, math.log(11 / 9) / 36]
    assert bars.select(amihud()).item() == pytest.approx(sum(logs) / 2)
    assert bars.select(amihud(returns="simple")).item() == pytest.approx((0.1 / 22 + (2 / 11) / 36) / 2)
    assert bars.select(bar_kyle()).item() == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert bars.head(1).select(a=amihud(), k=bar_kyle()).row(0) == (None, None)
    assert bars.clear().select(a=amihud(), k=bar_kyle()).row(0) == (None, None)


def test_amihud_falls_as_the_value_traded_grows():
    bars = pl.DataFrame({"close": [10.0, 11.0, 9.0], "value": [10.0, 22.0, 36.0]})
    more = bars.with_columns(pl.col("value") * 4)
    assert more.select(amihud()).item() == pytest.approx(bars.select(amihud()).item() / 4)


# Response


def test_the_response_is_half_of_the_mean_price_impact(es_tape: Tape):
    found = response(es_tape.trades, es_tape.quotes, [SECOND_NS], horizons_trades=[1, 10])
    spreads = mean_spreads(
        trade_spreads(es_tape.trades, es_tape.quotes, [SECOND_NS], horizons_trades=[1, 10], scales=["price"])
    )
    assert found["horizon"].to_list() == ["1t", "10t", "1s"]
    for label, value, n in found.select("horizon", "response", "n").rows():
        assert value == pytest.approx(spreads[f"price_impact_{label}"].item() / 2)
        assert n == spreads[f"n_price_impact_{label}"].item()
    assert (found["response"] > 0).all(), "on ES the mid follows the aggressor"


def test_classes_of_size_partition_the_trades(es_tape: Tape):
    whole = response(es_tape.trades, es_tape.quotes, [SECOND_NS])
    classes = response(es_tape.trades, es_tape.quotes, [SECOND_NS], size_edges=[1, 2, 10])
    assert classes.select("size_from", "size_below").rows() == [(1, 2), (2, 10), (10, None)]
    assert classes["n"].sum() == whole["n"].item()
    assert (classes["response"] * classes["n"]).sum() == pytest.approx(whole["response"].item() * whole["n"].item())
    small = es_tape.trades["volume"] == 1
    assert classes["n"][0] <= small.sum()


def test_responses_are_by_contract_then_class_then_horizon_and_a_class_without_trades_is_not_there(es_tape: Tape):
    found = response(es_tape.trades, es_tape.quotes, [SECOND_NS], horizons_trades=[1], size_edges=[1, 5, 10**9])
    assert found.select("size_from", "horizon").rows() == [(1, "1t"), (1, "1s"), (5, "1t"), (5, "1s")]


def test_es_figures_are_those_of_the_documentation(es_tape: Tape):
    found = response(es_tape.trades, es_tape.quotes, [SECOND_NS], size_edges=[1, 2, 5, 20])
    assert found["response"].to_list() == pytest.approx([0.076, 0.102, 0.152, 0.195], abs=5e-4)
    kyle = kyle_lambda(es_tape.trades, es_tape.quotes, 10 * SECOND_NS).row(0, named=True)
    assert (kyle["slope"], kyle["slope_se"], kyle["r_squared"]) == pytest.approx((0.0050, 0.0008, 0.34), rel=0.05)


def test_a_response_needs_a_horizon():
    with pytest.raises(UsageError, match="horizons_ns"):
        response(pl.DataFrame(), pl.DataFrame())


def walk(persistence: float, *, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Ten minutes of a random walk that takes no notice of trades, four a second, whose sides come in runs."""
    rng = np.random.default_rng(seed)
    at_ns = np.arange(6_500) * SECOND_NS // 10
    mid = 5_000 + np.cumsum(rng.normal(0, 0.05, at_ns.size))
    quotes = pl.DataFrame({"recv_ns": at_ns, "seq": range(at_ns.size), "best_bid": mid - 0.1, "best_ask": mid + 0.1})
    times = np.sort(rng.integers(SECOND_NS, 600 * SECOND_NS, 2_400))
    turns = rng.random(times.size) > persistence
    sides = (rng.integers(0, 2) + np.cumsum(turns & (rng.random(times.size) < 0.5))) % 2
    trades = {"recv_ns": times, "seq": range(times.size), "price": 5_000.0, "volume": 1, "side": sides}
    return pl.DataFrame(trades), quotes


@pytest.mark.parametrize("persistence", [0.0, 0.98])
def test_a_response_of_nothing_is_within_its_band_whether_or_not_the_moves_overlap(persistence: float):
    found = pl.concat(response(*walk(persistence, seed=seed), [10 * SECOND_NS]) for seed in range(200))
    covered = (found["response"].abs() < 1.96 * found["response_se"]).mean()
    naive = (found["response"].abs() < 1.96 * found["sd"] / found["n"].sqrt()).mean()
    assert 0.86 < covered < 0.99
    assert naive < 0.5 or persistence == 0


@pytest.mark.parametrize("edges", [(), (1, 3)])
def test_es_error_is_newey_west_over_blocks_as_long_as_the_horizon(es_tape: Tape, edges: tuple[int, ...]):
    found = response(es_tape.trades, es_tape.quotes, [SECOND_NS], horizons_trades=[5], size_edges=edges)
    moves = trade_spreads(es_tape.trades, es_tape.quotes, [SECOND_NS], horizons_trades=[5], scales=["price"], half=True)
    sizes = moves["volume"].to_numpy()
    number = {"1s": moves["recv_ns"].to_numpy() // SECOND_NS, "5t": np.arange(moves.height) // 5}
    classes = [sizes >= 1] if not edges else [(sizes >= 1) & (sizes < 3), sizes >= 3]
    expected = []
    for inside in classes:
        for label in ("5t", "1s"):
            values = moves[f"half_price_impact_{label}"].cast(pl.Float64).fill_null(math.nan).to_numpy()
            counted = inside & ~np.isnan(values)
            off, blocks = values[counted] - values[counted].mean(), number[label][counted]
            sums = np.array([off[blocks == block].sum() for block in np.unique(blocks)])
            lags = int(4 * (len(sums) / 100) ** (2 / 9))
            variance = sums @ sums + 2 * sum(
                (1 - lag / (lags + 1)) * (sums[lag:] @ sums[:-lag]) for lag in range(1, lags + 1)
            )
            expected.append(math.sqrt(variance) / counted.sum())
    assert found["response_se"].to_list() == pytest.approx(expected)


def test_few_blocks_have_no_error():
    trades, quotes = walk(0.0, seed=1)
    errors = response(trades, quotes, [20 * SECOND_NS, 60 * SECOND_NS])["response_se"]
    assert errors.is_null().to_list() == [False, True]


# Bars of flow and mid changes


def plain_bars(tape: Tape, interval_ns: int) -> list[tuple[int, float, float, int]]:
    """(start, mid change, signed volume, trades) of each interval with a mid at both ends, by walking the tape."""
    quotes = sorted(tape.quotes.select("recv_ns", "seq", "best_bid", "best_ask").rows())
    signed = tape.trades.with_columns(sign=trade_sign()).select("recv_ns", "sign", "volume").rows()

    def mid_before(time_ns: int) -> float | None:
        before = [quote for quote in quotes if quote[0] < time_ns]
        bid, ask = before[-1][2:] if before else (None, None)
        return None if bid is None or ask is None or bid > ask else (bid + ask) / 2

    rows = []
    first, last = -(-quotes[0][0] // interval_ns) * interval_ns, quotes[-1][0] // interval_ns * interval_ns
    for start_ns in range(first, last, interval_ns):
        start, end = mid_before(start_ns), mid_before(start_ns + interval_ns)
        inside = [(sign, volume) for at, sign, volume in signed if start_ns <= at < start_ns + interval_ns]
        if start is not None and end is not None:
            rows.append((start_ns, end - start, sum((sign or 0) * volume for sign, volume in inside), len(inside)))
    return rows


def test_es_impact_bars_are_those_of_a_loop(es_tape: Tape):
    interval_ns = 60 * SECOND_NS
    found = impact_bars(es_tape.trades, es_tape.quotes, interval_ns)
    assert found.select("start_ns", "mid_change", "signed_volume", "trades").rows() == plain_bars(es_tape, interval_ns)


def test_es_kyle_lambda_is_the_slope_over_those_bars(es_tape: Tape):
    bars = plain_bars(es_tape, 10 * SECOND_NS)
    change, flow = np.array([row[1] for row in bars]), np.array([row[2] for row in bars])
    covariance = np.cov(change, flow)
    found = kyle_lambda(es_tape.trades, es_tape.quotes, 10 * SECOND_NS).row(0, named=True)
    assert found["slope"] == pytest.approx(covariance[0, 1] / covariance[1, 1])
    assert found["r_squared"] == pytest.approx(np.corrcoef(change, flow)[0, 1] ** 2)
    assert found["n"] == len(bars)
    assert found["slope"] > 4 * found["slope_se"]


def market(slope: float, n: int = 3_000, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One trade a second, after which the mid moves by slope times its signed size, and by noise."""
    random = np.random.default_rng(seed)
    size, side = random.integers(1, 10, n), random.integers(0, 2, n)
    mid = 100 + np.cumsum(slope * size * np.where(side == 0, 1, -1) + random.normal(0, 0.01, n))
    at = SECOND_NS * np.arange(1, n + 1)
    quotes = pl.DataFrame({"recv_ns": at + 2, "best_bid": mid - 0.5, "best_ask": mid + 0.5})
    return pl.DataFrame({"recv_ns": at + 1, "price": mid, "volume": size, "side": side}), quotes


def test_kyle_lambda_finds_the_slope_that_a_market_has():
    found = kyle_lambda(*market(0.01), 5 * SECOND_NS).row(0, named=True)
    assert abs(found["slope"] - 0.01) < 3 * found["slope_se"]
    assert found["slope_se"] < 0.0005
    assert abs(found["intercept"]) < 3 * found["intercept_se"]


def test_lambda_scales_with_price_and_against_volume():
    trades, quotes = market(0.01)
    base = kyle_lambda(trades, quotes, 5 * SECOND_NS)["slope"].item()
    prices = quotes.with_columns(pl.col("best_bid", "best_ask") * 3)
    assert kyle_lambda(trades, prices, 5 * SECOND_NS)["slope"].item() == pytest.approx(3 * base)
    lots = trades.with_columns(pl.col("volume") * 10)
    assert kyle_lambda(lots, quotes, 5 * SECOND_NS)["slope"].item() == pytest.approx(base / 10)
    mirrored = trades.with_columns(side=1 - pl.col("side"))
    assert kyle_lambda(mirrored, quotes, 5 * SECOND_NS)["slope"].item() == pytest.approx(-base)


def test_hasbrouck_lambda_is_the_slope_of_returns_on_signed_root_value():
    trades, quotes = market(0.01)
    bars = impact_bars(trades, quotes, 60 * SECOND_NS)
    expected = np.polyfit(bars["signed_root_value"], bars["mid_return"], 1)[0]
    assert hasbrouck_lambda(trades, quotes, 60 * SECOND_NS)["slope"].item() == pytest.approx(expected)


def test_order_flow_imbalance_explains_the_mid_of_a_book_that_it_moves():
    random = np.random.default_rng(2)
    tick = np.cumsum(random.choice([-1, 0, 1], 4_000))
    book = pl.DataFrame(
        {
            "recv_ns": SECOND_NS * np.arange(4_000) // 10,
            "bid_price_0": 100 + tick * 0.25,
            "ask_price_0": 100.25 + tick * 0.25,
            "bid_size_0": np.full(4_000, 10),
            "ask_size_0": np.full(4_000, 10),
        }
    )
    quotes = book.rename({"bid_price_0": "best_bid", "ask_price_0": "best_ask"})
    bars = mid_changes(ofi_bars(book, SECOND_NS), quotes)
    found = flow_regression(bars, flow="ofi_0").row(0, named=True)
    assert found["slope"] == pytest.approx(0.25 / 20, rel=1e-6), (
        "a tick up is 10 lots more at the bid, 10 fewer at the ask"
    )
    assert found["r_squared"] == pytest.approx(1)


def test_a_bar_with_a_gap_inside_has_no_change_and_one_without_a_mid_before_it_neither():
    quotes = pl.DataFrame({"recv_ns": [5, 12, 38], "best_bid": [1.0, 2.0, 4.0], "best_ask": [2.0, 3.0, 5.0]})
    bars = pl.DataFrame({"start_ns": [0, 10, 20, 30], "end_ns": [10, 20, 30, 40]})
    assert mid_changes(bars, quotes)["mid_change"].to_list() == [None, 1.0, 0.0, 2.0]
    gaps = pl.DataFrame({"from_ns": [22], "to_ns": [28]})
    assert mid_changes(bars, quotes, incidents=gaps)["mid_change"].to_list() == [None, 1.0, None, None]
    assert mid_changes(bars, quotes).columns == ["start_ns", "end_ns", "mid_change", "mid_return"]
    numbered = bars.with_columns(stretch=0)
    assert mid_changes(numbered, quotes).columns == [*numbered.columns, "mid_change", "mid_return"]


def test_the_future_changes_no_bar_of_the_past():
    trades, quotes = market(0.01, n=200)
    now = 100 * SECOND_NS
    whole = impact_bars(trades, quotes, 5 * SECOND_NS).filter(pl.col("end_ns") < now)
    past = impact_bars(*(frame.filter(pl.col("recv_ns") <= now) for frame in (trades, quotes)), 5 * SECOND_NS)
    assert_frame_equal(whole, past.filter(pl.col("end_ns") < now))


def test_groups_are_regressed_apart():
    frames = [market(slope, seed=seed) for seed, slope in enumerate([0.01, 0.03])]
    trades, quotes = (
        pl.concat(
            frame.with_columns(session_id=pl.lit("s"), contract_id=pl.lit(f"c{i}")) for i, frame in enumerate(side)
        )
        for side in zip(*frames, strict=True)
    )
    found = kyle_lambda(trades, quotes, 5 * SECOND_NS)
    alone = [kyle_lambda(*frame, 5 * SECOND_NS)["slope"].item() for frame in frames]
    assert found.select("session_id", "contract_id").rows() == [("s", "c0"), ("s", "c1")]
    assert found["slope"].to_list() == pytest.approx(alone)


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_or_one_row_gives_the_right_columns(rows: int):
    trades, quotes = (frame.head(rows).with_columns(contract_id=pl.lit("ES")) for frame in market(0.01, n=1))
    assert impact_bars(trades, quotes, SECOND_NS).height == 0
    found = kyle_lambda(trades, quotes, SECOND_NS)
    assert found.columns == ["contract_id", "slope", "slope_se", "intercept", "intercept_se", "r_squared", "n"]
    assert found.height == 0
    moves = response(trades, quotes, [5])
    assert moves.columns == ["contract_id", "horizon", "response", "sd", "n", "response_se"]
    assert moves["response"].to_list() == [None] * rows
