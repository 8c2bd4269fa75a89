"""Order flow: published values, slow loops as oracles, and the symmetries that signed flow has."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal
from scipy import special

from mdcapture.errors import UsageError
from mdcapture.metrics import flow
from mdcapture.metrics.bars import time_bars
from mdcapture.metrics.classification import bulk_buy_volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Tape

few = settings(max_examples=30, deadline=None)

Row = tuple[int, float, int, int | None]
"""Time, price, volume, side."""
Level = tuple[int | None, int, int | None, int]
"""Bid price, bid size, ask price, ask size (prices in ticks)."""

TRADES = {
    "session_id": pl.String,
    "contract_id": pl.String,
    "seq": pl.Int64,
    "recv_ns": pl.Int64,
    "price": pl.Float64,
    "volume": pl.Int64,
    "side": pl.Int8,
}
BOOK = {
    "session_id": pl.String,
    "contract_id": pl.String,
    "recv_ns": pl.Int64,
    "bid_price_0": pl.Float64,
    "bid_size_0": pl.Int64,
    "ask_price_0": pl.Float64,
    "ask_size_0": pl.Int64,
}

trade_lists = st.lists(
    st.tuples(st.integers(0, 300), st.just(100.0), st.integers(1, 20), st.sampled_from([0, 1, None])), max_size=50
).map(lambda rows: sorted(rows, key=lambda row: row[0]))
maybe_price = st.none() | st.integers(95, 100)
book_lists = st.lists(
    st.tuples(maybe_price, st.integers(1, 9), maybe_price.map(lambda p: p and p + 4), st.integers(1, 9)).map(
        lambda level: (level[0], level[1] if level[0] else 0, level[2], level[3] if level[2] else 0)
    ),
    max_size=30,
)


def tape(rows: list[Row], contract: str = "c") -> pl.DataFrame:
    return pl.DataFrame(
        [("s", contract, i, t, p, v, side) for i, (t, p, v, side) in enumerate(rows)], schema=TRADES, orient="row"
    )


def book_of(levels: list[Level], contract: str = "c", step_ns: int = 1) -> pl.DataFrame:
    rows = [("s", contract, i * step_ns, *level) for i, level in enumerate(levels)]
    return pl.DataFrame(rows, schema=BOOK, orient="row")


def test_queue_imbalance_is_the_published_one(expected: dict[int, Any]):
    rows = [[14.33, 20.0, 14.34, 471.0], [14.33, 25.0, 14.34, 148.0], [14.33, 31.0, 14.34, 95.0]]
    rows += [[14.33, 29.0, 14.34, 92.0], [14.33, 21.0, 14.34, 65.0]]
    book = pl.DataFrame(rows, schema=["bid_price_0", "bid_size_0", "ask_price_0", "ask_size_0"], orient="row")
    entry = expected[89]
    share = book.select(flow.queue_imbalance(scale="share")).to_series()
    assert share.to_list() == pytest.approx(entry["expected"], rel=entry["rtol"])
    assert_series_equal(book.select(flow.queue_imbalance()).to_series(), 2 * share - 1, check_names=False)


def test_bulk_vpin_is_mlfinlabs(shared: Path, expected: dict[int, Any]):
    entry = expected[77]
    bars = pl.read_csv(shared / "reference" / "dollar_bar_sample.csv").rename({"cum_vol": "volume"})
    vpin = (
        bars.with_columns(buy_volume=bulk_buy_volume("close", "volume", window=20))
        .select(flow.rolling_vpin(window=1, divisor="bar"))
        .to_series()
    )
    assert [vpin.max(), vpin.mean(), vpin[25]] == pytest.approx(entry["expected"], rel=entry["rtol"])


@few
@given(rows=trade_lists)
def test_order_flow_equals_a_loop(rows: list[Row]):
    bought, sold = (sum(v for _, _, v, side in rows if side == wanted) for wanted in (0, 1))
    row = flow.order_flow(tape(rows).drop("session_id", "contract_id")).row(0, named=True)
    assert (row["buy_volume"], row["sell_volume"], row["delta"]) == (bought, sold, bought - sold)
    assert row["buy_volume"] + row["sell_volume"] + row["unknown_volume"] == sum(v for _, _, v, _ in rows)
    assert row["imbalance"] == (pytest.approx((bought - sold) / (bought + sold)) if bought + sold else None)
    assert row["n"] == len(rows)


@few
@given(one=trade_lists, other=trade_lists)
def test_cumulative_delta_is_each_groups_own_and_knows_no_future(one: list[Row], other: list[Row]):
    trades = pl.concat([tape(one, contract="a"), tape(other, contract="b")])
    result = flow.cumulative_delta(trades.sample(fraction=1.0, shuffle=True, seed=3))
    for contract, rows in (("a", one), ("b", other)):
        signed = [{0: v, 1: -v, None: 0}[side] for _, _, v, side in rows]
        assert result.filter(contract_id=contract)["cumulative_delta"].to_list() == np.cumsum(signed).tolist()
    assert_frame_equal(flow.cumulative_delta(tape(one).head(10)), flow.cumulative_delta(tape(one)).head(10))


def test_cumulative_delta_starts_again_after_a_gap():
    gap = pl.DataFrame({"from_ns": [15], "to_ns": [20]})
    result = flow.cumulative_delta(tape([(10, 1.0, 5, 0), (20, 1.0, 2, 1), (30, 1.0, 1, None)]), incidents=gap)
    assert result["cumulative_delta"].to_list() == [5, -2, -2]
    assert result["signed_volume"].to_list() == [5, -2, None]


@few
@given(rows=trade_lists)
def test_mirrored_sides_turn_the_sign_of_every_flow(rows: list[Row]):
    mirrored: list[Row] = [(t, p, v, None if side is None else 1 - side) for t, p, v, side in rows]
    there, back = (flow.order_flow(tape(r)).select("delta", "imbalance", "count_imbalance") for r in (rows, mirrored))
    assert_frame_equal(there, back.select(-pl.all()))
    same = [flow.sign_autocorrelation(tape(r), 3) for r in (rows, mirrored)]
    assert_frame_equal(*same)


def slow_ofi(levels: list[Level]) -> list[int | None]:
    """Cont, Kukanov and Stoikov's e_n, with a missing side as one of no size, infinitely far away."""
    result: list[int | None] = []
    for i, (bid, bid_size, ask, ask_size) in enumerate(levels):
        before = levels[i - 1] if i else (None, 0, None, 0)
        if (bid is None and ask is None) or (before[0] is None and before[2] is None):
            result.append(None)
            continue
        b, b0 = (-math.inf if p is None else p for p in (bid, before[0]))
        a, a0 = (math.inf if p is None else p for p in (ask, before[2]))
        e = (b >= b0) * bid_size - (b <= b0) * before[1] - (a <= a0) * ask_size + (a >= a0) * before[3]
        result.append(int(e))
    return result


@few
@given(levels=book_lists, other=book_lists)
def test_order_flow_imbalance_equals_the_papers_sum_of_cases(levels: list[Level], other: list[Level]):
    book = pl.concat([book_of(levels, contract="a"), book_of(other, contract="b")])
    result = flow.order_flow_imbalance(book.sample(fraction=1.0, shuffle=True, seed=5).lazy()).collect()
    assert result.filter(contract_id="a")["ofi_0"].to_list() == slow_ofi(levels)
    assert result.filter(contract_id="b")["ofi_0"].to_list() == slow_ofi(other)


@few
@given(levels=book_lists, shift=st.integers(-5, 5))
def test_swapping_bids_and_asks_turns_the_sign_and_moving_prices_changes_nothing(levels: list[Level], shift: int):
    def turned(price: int | None) -> int | None:
        return None if price is None else shift - price

    mirrored: list[Level] = [(turned(ask), qa, turned(bid), qb) for bid, qb, ask, qa in levels]
    there = flow.order_flow_imbalance(book_of(levels))["ofi_0"]
    back = flow.order_flow_imbalance(book_of(mirrored))["ofi_0"]
    assert_series_equal(there, -back, check_names=False)


def test_order_flow_imbalance_reaches_across_no_gap():
    book = book_of([(1, 5, 2, 5), (1, 7, 2, 5), (1, 9, 2, 5)], step_ns=10)
    gap = pl.DataFrame({"from_ns": [11], "to_ns": [20]})
    assert flow.order_flow_imbalance(book, incidents=gap)["ofi_0"].to_list() == [None, 2, None]


def test_ofi_bars_add_up_and_scale_by_depth():
    levels: list[Level] = [(1, 4, 2, 6), (1, 9, 2, 6), (2, 3, 3, 6), (2, 3, 3, 1)]
    book = book_of(levels, step_ns=10)
    bars = flow.ofi_bars(book, 20)
    assert bars["ofi_0"].sum() == flow.order_flow_imbalance(book)["ofi_0"].sum()
    assert bars.select("start_ns", "end_ns", "ofi_0", "depth", "n").rows() == [
        (0, 20, 5, (4 + 6 + 9 + 6) / 4, 2),
        (20, 40, 9 + 5, (3 + 6 + 3 + 1) / 4, 2),
    ]
    scaled = flow.ofi_bars(book, 20, scaled=True)
    assert_series_equal(scaled["ofi_0"], bars["ofi_0"] / bars["depth"])


def test_integrated_ofi_finds_the_direction_that_all_levels_share():
    rng = np.random.default_rng(1)
    common = rng.normal(size=4000)
    truth = np.array([0.5, 0.3, 0.2])
    flows = np.outer(common, truth) + 0.01 * rng.normal(size=(4000, 3))
    bars = pl.DataFrame(flows, schema=["ofi_0", "ofi_1", "ofi_2"])
    weights = flow.ofi_weights(bars, levels=3)
    assert weights == pytest.approx(truth, abs=0.01)
    assert bars.select(flow.integrated_ofi(weights)).to_series().to_numpy() == pytest.approx(flows @ weights)
    with pytest.raises(UsageError):
        flow.ofi_weights(bars.head(1), levels=3)


def test_weighted_mid_lies_nearer_to_the_thinner_queue():
    book = book_of([(10, 3, 12, 1), (10, 1, None, 0), (None, 0, 12, 3)])
    assert book.select(flow.weighted_mid()).to_series().to_list() == [11.5, None, None]
    two = pl.DataFrame({"bid_size_0": [1], "bid_size_1": [5], "ask_size_0": [1], "ask_size_1": [1]})
    assert two.select(flow.queue_imbalance(levels=2)).item() == 0.5


def slow_autocorrelation(signs: list[float], lag: int) -> float | None:
    mean = sum(signs) / len(signs)
    squares = sum((x - mean) ** 2 for x in signs)
    if lag >= len(signs) or squares == 0:
        return None
    return sum((signs[i] - mean) * (signs[i + lag] - mean) for i in range(len(signs) - lag)) / squares


@few
@given(rows=trade_lists)
def test_sign_autocorrelation_equals_a_loop(rows: list[Row]):
    signs = [{0: 1.0, 1: -1.0}[side] for _, _, _, side in rows if side is not None]
    result = flow.sign_autocorrelation(tape(rows), 6)
    if not signs:
        assert result.height == 0
        return
    slow = [slow_autocorrelation(signs, lag) for lag in range(1, 7)]
    for fast, expected in zip(result["autocorrelation"].to_list(), slow, strict=True):
        assert (fast is None) == (expected is None)
        assert fast is None or fast == pytest.approx(expected, abs=1e-12)
    assert result["n"].to_list() == [len(signs)] * 6


def test_no_pair_of_signs_reaches_across_a_gap():
    trades = tape([(t, 1.0, 1, side) for t, side in ((0, 0), (1, 0), (2, 1), (10, 1), (11, 1))])
    gap = pl.DataFrame({"from_ns": [3], "to_ns": [9]})
    x = np.array([1, 1, -1, -1, -1]) + 0.2
    lag_1 = (x[0] * x[1] + x[1] * x[2] + x[3] * x[4]) / (x @ x)
    result = flow.sign_autocorrelation(trades, 3, incidents=gap)["autocorrelation"].to_list()
    assert result == [pytest.approx(lag_1), pytest.approx(x[0] * x[2] / (x @ x)), None]


def test_decay_exponent_is_that_of_an_exact_power():
    lags = pl.DataFrame({"contract_id": ["a"] * 9, "lag": range(1, 10)})
    exact = lags.with_columns(autocorrelation=0.4 * pl.col("lag").cast(pl.Float64) ** -0.6)
    row = flow.decay_exponent(exact.lazy()).collect().row(0, named=True)
    assert (row["gamma"], row["amplitude"], row["r_squared"]) == pytest.approx((0.6, 0.4, 1.0))
    assert (row["gamma_se"], row["n"]) == (pytest.approx(0.0, abs=1e-7), 9)
    holed = exact.with_columns(autocorrelation=pl.when(pl.col("lag") != 4).then("autocorrelation").otherwise(-0.1))
    assert flow.decay_exponent(holed, max_lag=8).select("gamma", "n").row(0) == (pytest.approx(0.6), 7)
    assert flow.decay_exponent(exact.head(1)).select("gamma", "n").row(0) == (None, 1)


def test_long_memory_of_simulated_order_splitting_is_found():
    """Orders split into L pieces of one sign, P(L >= m) = (m-1)^-1.5: C(l) = E[max(L-l, 0)] / E[L], so gamma -> 0.5.

    Lillo, Mike and Farmer (2005), "Theory for Long Memory in Supply and Demand", Physical Review E 71.
    """
    rng = np.random.default_rng(7)
    lengths = np.ceil(rng.pareto(1.5, size=200_000) + 1).astype(int)
    signs = np.repeat(rng.integers(0, 2, size=len(lengths)), lengths)
    found = flow.sign_autocorrelation(pl.DataFrame({"recv_ns": np.arange(len(signs)), "side": signs}), 100)
    lags = np.arange(1, 101)
    truth = found.with_columns(autocorrelation=special.zeta(1.5, lags) / (1 + special.zeta(1.5)))
    assert found["autocorrelation"].to_numpy() == pytest.approx(truth["autocorrelation"].to_numpy(), abs=0.03)
    gamma, true_gamma = (flow.decay_exponent(c, min_lag=5)["gamma"].item() for c in (found, truth))
    assert gamma == pytest.approx(true_gamma, abs=0.1)
    assert true_gamma == pytest.approx(0.5, abs=0.02)


def slow_buckets(rows: list[Row], size: int) -> list[float]:
    """Bought lots of each full bucket, one lot at a time; a lot of unknown side is half bought."""
    lots = [{0: 1.0, 1: 0.0, None: 0.5}[side] for _, _, v, side in rows for _ in range(v)]
    return [sum(lots[i : i + size]) for i in range(0, len(lots) - size + 1, size)]


@few
@given(rows=trade_lists, size=st.integers(1, 40), window=st.integers(1, 4))
def test_vpin_equals_filling_buckets_lot_by_lot(rows: list[Row], size: int, window: int):
    result = flow.vpin(tape(rows), size, window=window)
    slow = slow_buckets(rows, size)
    assert result["buy_volume"].to_list() == pytest.approx(slow)
    assert result["bucket"].to_list() == list(range(len(slow)))
    imbalances = [abs(2 * bought - size) for bought in slow]
    expected = [sum(imbalances[i - window + 1 : i + 1]) / (window * size) for i in range(window - 1, len(slow))]
    assert result["vpin"].to_list()[window - 1 :] == pytest.approx(expected, abs=1e-9)
    assert result["vpin"].to_list()[: window - 1] == [None] * min(window - 1, len(slow))


@few
@given(rows=trade_lists, cut=st.integers(0, 50))
def test_vpin_knows_no_future(rows: list[Row], cut: int):
    early = flow.vpin(tape(rows[:cut]), 10, window=2)
    assert_frame_equal(early, flow.vpin(tape(rows), 10, window=2).head(early.height))


def test_vpin_of_bulk_classified_bars_is_near_one_when_the_price_only_rises():
    """The paper's variant: bars classified in bulk, by their change of price, fill the buckets."""
    trades = pl.concat(tape([(t * 10, 100.0 + t * t, 10, None) for t in range(30)], contract) for contract in "ab")
    bought = bulk_buy_volume(window=5).over("session_id", "contract_id")
    result = flow.vpin(time_bars(trades, 10).with_columns(bought), 25, window=3, clock="end_ns")
    assert result.group_by("contract_id").len()["len"].to_list() == [10, 10]  # 25 of 30 bars have five changes before
    assert result.drop_nulls("vpin")["vpin"].min() > 0.9
    with pytest.raises(UsageError):
        flow.volume_buckets(trades, 0)


def test_figures_of_the_es_hour_are_those_of_plain_loops(es_tape: Tape):
    """The figures of docs/metrics.md."""
    trades = es_tape.trades
    total = flow.order_flow(trades).row(0, named=True)
    assert (total["buy_volume"], total["sell_volume"], total["delta"], total["n"]) == (5322, 4526, 796, 2972)
    assert (total["imbalance"], total["count_imbalance"]) == pytest.approx((0.0808, 0.0377), abs=5e-5)

    signs = [1.0 - 2 * side for side in trades["side"]]
    correlations = flow.sign_autocorrelation(trades, 50)
    slow = [slow_autocorrelation(signs, lag) for lag in range(1, 51)]
    assert correlations["autocorrelation"].to_list() == pytest.approx(slow, abs=1e-12)
    assert slow[0] == pytest.approx(0.4235, abs=5e-5)
    assert flow.decay_exponent(correlations)["gamma"].item() == pytest.approx(0.98, abs=5e-3)

    rows = trades.select("recv_ns", "price", "volume", "side").rows()
    imbalances = [abs(2 * bought - 200) for bought in slow_buckets(rows, 200)]
    vpin = flow.vpin(trades, 200, window=10)["vpin"]
    assert vpin.to_list()[9:] == pytest.approx([sum(imbalances[i - 9 : i + 1]) / 2000 for i in range(9, 49)])
    assert vpin.mean() == pytest.approx(0.3255, abs=5e-5)


@few
@given(levels=book_lists, cut=st.integers(0, 30))
def test_order_flow_imbalance_knows_no_future(levels: list[Level], cut: int):
    early = flow.order_flow_imbalance(book_of(levels[:cut]))
    assert_frame_equal(early, flow.order_flow_imbalance(book_of(levels)).head(cut))


@pytest.mark.parametrize(
    "metric",
    [
        flow.order_flow,
        flow.cumulative_delta,
        lambda trades: flow.sign_autocorrelation(trades, 3),
        lambda trades: flow.decay_exponent(flow.sign_autocorrelation(trades, 3)),
        lambda trades: flow.volume_buckets(trades, 7),
        lambda trades: flow.vpin(trades, 7, window=2),
    ],
)
def test_lazy_in_lazy_out_with_equal_results_for_each_session_and_contract(metric: Callable[..., pl.LazyFrame]):
    rng = np.random.default_rng(2)
    rows: list[list[Row]] = [
        [
            (t, 100.0, int(v), int(side))
            for t, v, side in zip(range(n), rng.integers(1, 9, n), rng.integers(0, 2, n), strict=True)
        ]
        for n in (30, 1, 20)
    ]
    tapes = [tape(part, contract) for part, contract in zip(rows, "abc", strict=True)]
    tapes.append(tape(rows[2], "a").with_columns(session_id=pl.lit("t")))
    lazy = metric(pl.concat(tapes).sample(fraction=1.0, shuffle=True, seed=1).lazy())
    assert isinstance(lazy, pl.LazyFrame)
    alone = pl.concat([metric(part.lazy()).collect() for part in tapes])
    keys = ["session_id", "contract_id"]
    assert_frame_equal(lazy.collect(), alone.sort(keys, maintain_order=True))


def test_nothing_in_makes_nothing_out():
    empty = tape([])
    assert flow.cumulative_delta(empty).height == 0
    assert flow.order_flow(empty).height == 0
    assert flow.sign_autocorrelation(empty, 5).schema == flow.sign_autocorrelation(tape([(0, 1.0, 1, 0)]), 5).schema
    assert flow.vpin(empty, 5).schema == flow.vpin(tape([(0, 1.0, 7, 0)]), 5).schema
    assert flow.order_flow_imbalance(book_of([])).height == 0
    assert flow.order_flow_imbalance(book_of([(1, 1, 2, 1)]))["ofi_0"].to_list() == [None]
    assert flow.ofi_bars(book_of([]), 10).height == 0
    assert flow.decay_exponent(flow.sign_autocorrelation(empty, 5)).height == 0
