from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mdcapture.errors import UsageError
from mdcapture.interop.importing import import_tape
from mdcapture.metrics.book import book_snapshots, level_columns
from mdcapture.metrics.depth import (
    book_quotes,
    book_slope,
    cost_to_trade,
    cumulative_depth,
    depth_within,
    half_life,
    heatmap,
    mean_over_time,
    recovery_path,
    round_trip_cost,
    sweeps,
    swept_depth,
    widenings,
)
from mdcapture.metrics.spreads import quoted_spread
from mdcapture.session import open_lake

if TYPE_CHECKING:
    from pathlib import Path

TICK = 0.25
Side = list[tuple[float, int]]


def snapshots(*books: tuple[Side, Side], times: list[int] | None = None, levels: int = 3) -> pl.DataFrame:
    """Snapshots from bids and asks, the best first."""
    rows = []
    for seq, (bids, asks) in enumerate(books):
        cells: dict[str, Any] = dict.fromkeys(level_columns(levels))
        for side, rungs in (("bid", bids), ("ask", asks)):
            for m, (price, size) in enumerate(rungs):
                cells |= {f"{side}_price_{m}": price, f"{side}_size_{m}": size}
        rows.append({"contract_id": "ES", "seq": seq, "recv_ns": times[seq] if times else seq, **cells})
    types = {name: pl.Float64 if "price" in name else pl.Int64 for name in level_columns(levels)}
    return pl.DataFrame(rows, {"contract_id": pl.String, "seq": pl.Int64, "recv_ns": pl.Int64, **types})


BOOK: tuple[Side, Side] = ([(100.0, 4), (99.75, 3), (99.0, 10)], [(100.25, 2), (100.5, 6), (100.75, 8)])


@st.composite
def books(draw: st.DrawFn, levels: int = 3) -> tuple[Side, Side]:
    """A book of up to so many levels, with holes, thin or empty sides."""
    best = draw(st.integers(400, 404))
    sides = []
    for outward, start in ((-1, best), (1, best + draw(st.integers(1, 4)))):
        steps = draw(st.lists(st.integers(1, 3), max_size=levels))
        places = [start + outward * sum(steps[:m]) for m in range(len(steps))]
        sides.append([(place * TICK, draw(st.integers(1, 9))) for place in places])
    return sides[0], sides[1]


def value(book: tuple[Side, Side], measure: pl.Expr) -> float | None:
    return snapshots(book).select(measure).item()


# Each measure, written out for one book


@given(books(), st.integers(1, 3))
def test_cumulative_depth_is_the_sum_of_the_best_sizes(book: tuple[Side, Side], levels: int):
    for side, rungs in zip(("bid", "ask"), book, strict=True):
        known = sum(size for _, size in rungs[:levels]) if any(book) else None
        assert value(book, cumulative_depth(side, levels)) == known  # type: ignore[arg-type]


@given(books(), st.sampled_from([0, 1, 2, 2.5, 4, 9]))
def test_depth_within_ticks_is_null_where_the_levels_do_not_reach(book: tuple[Side, Side], ticks: float):
    for side, rungs in zip(("bid", "ask"), book, strict=True):
        for origin in ("best", "mid"):
            start = (book[0][0][0] + book[1][0][0]) / 2 if all(book) else math.nan
            if origin == "best":
                start = rungs[0][0] if rungs else 0.0
            known = any(book) if origin == "best" else all(book)
            reaches = len(rungs) < 3 or abs(rungs[-1][0] - start) >= ticks * TICK
            within = sum(size for price, size in rungs if abs(price - start) <= ticks * TICK)
            got = value(book, depth_within(side, ticks, TICK, levels=3, origin=origin))  # type: ignore[arg-type]
            assert got == (within if known and reaches else None)


def plain_slope(rungs: Side, mid: float) -> float | None:
    """The paper's formula, term by term."""
    total, lots = 0.0, 0
    for m, (price, size) in enumerate(rungs):
        before, lots = lots, lots + size
        grow = math.log(lots) if m == 0 else math.log(lots) / math.log(before) - 1
        total += grow / abs(price / (mid if m == 0 else rungs[m - 1][0]) - 1)
    return total / len(rungs)


@given(books())
def test_the_slope_is_the_mean_of_naes_and_skjeltorp_s_terms(book: tuple[Side, Side]):
    full = all(len(rungs) == 3 and rungs[0][1] > 1 for rungs in book)
    got = value(book, book_slope(levels=3))
    if not full:
        assert got is None
        return
    mid = (book[0][0][0] + book[1][0][0]) / 2
    one = [plain_slope(rungs, mid) for rungs in book]
    assert got == pytest.approx(sum(one) / 2, rel=1e-9)
    assert value(book, book_slope("ask", levels=3)) == pytest.approx(one[1], rel=1e-9)


def test_the_slope_in_lots_is_that_of_the_depth_curve():
    per_price = [(2 / 0.125, 6 / 0.25, 8 / 0.25), (4 / 0.125, 3 / 0.25, 10 / 0.75)]
    asks, bids = (sum(terms) / 3 for terms in per_price)
    assert value(BOOK, book_slope("ask", levels=3, scale="lots")) == pytest.approx(asks)
    assert value(BOOK, book_slope(levels=3, scale="lots")) == pytest.approx((asks + bids) / 2)


def plain_cost(rungs: Side, mid: float, lots: int) -> float | None:
    """Takes one lot after the other."""
    queue = [price for price, size in rungs for _ in range(size)]
    return None if len(queue) < lots else sum(abs(price - mid) for price in queue[:lots]) / lots


@given(books(), st.integers(1, 30))
def test_the_cost_of_a_sweep_is_that_of_its_lots_one_by_one(book: tuple[Side, Side], lots: int):
    if not all(book):
        assert value(book, cost_to_trade("buy", lots, levels=3)) is None
        return
    mid = (book[0][0][0] + book[1][0][0]) / 2
    sell, buy = (plain_cost(rungs, mid, lots) for rungs in book)
    assert value(book, cost_to_trade("buy", lots, levels=3)) == pytest.approx(buy)
    assert value(book, cost_to_trade("sell", lots, levels=3)) == pytest.approx(sell)
    both = None if buy is None or sell is None else 1e4 * (buy + sell) / mid
    assert value(book, round_trip_cost(lots, levels=3)) == pytest.approx(both)


@given(books())
def test_within_the_best_level_a_sweep_costs_half_the_spread(book: tuple[Side, Side]):
    if not all(book):
        return
    lots = min(book[0][0][1], book[1][0][1])
    row = book_quotes(snapshots(book)).select(
        cost_to_trade("buy", lots, levels=3, scale="bps").alias("buy"),
        cost_to_trade("sell", lots, levels=3, scale="bps").alias("sell"),
        round_trip_cost(lots, levels=3).alias("round"),
        spread=quoted_spread("bps"),
    )
    buy, sell, both, spread = row.row(0)
    assert (buy, sell, both) == pytest.approx((spread / 2, spread / 2, spread))


def test_measures_of_an_unknown_book_are_null():
    measures = [
        cumulative_depth("bid", 3), depth_within("ask", 2, TICK, levels=3), book_slope(levels=3),
        cost_to_trade("buy", 1, levels=3), round_trip_cost(1, levels=3),
    ]  # fmt: skip
    assert snapshots(([], [])).select(measures).row(0) == (None,) * 5
    assert snapshots().select(measures).height == 0


@pytest.mark.parametrize("lots", [0, -1, math.nan])
def test_an_order_has_a_positive_size(lots: float):
    with pytest.raises(UsageError, match="positive size"):
        cost_to_trade("buy", lots)


# Over time


def test_a_mean_over_time_weighs_by_how_long_each_snapshot_holds():
    unknown: tuple[Side, Side] = ([], [])
    thin: tuple[Side, Side] = ([(100.0, 1)], [(100.25, 1)])
    book = snapshots(BOOK, thin, unknown, BOOK, times=[0, 10, 40, 60])
    measures = [cumulative_depth("bid", 3), cost_to_trade("buy", 5, levels=3)]
    until = pl.DataFrame({"recv_ns": [70]})
    means = mean_over_time(book, measures, until=until)
    bid = (17 * 10 + 1 * 30 + 17 * 10) / 50
    cost = (2 * 0.125 + 3 * 0.375) / 5
    assert means.columns == ["contract_id", "bid_depth_3", "buy_cost_5", "duration_s", "n"]
    assert means.row(0) == ("ES", pytest.approx(bid), pytest.approx(cost), pytest.approx(50e-9), 3)
    gap = pl.DataFrame({"from_ns": [20], "to_ns": [45]})
    assert mean_over_time(book, measures, until=until, incidents=gap)["duration_s"].item() == pytest.approx(30e-9)
    assert_frame_equal(mean_over_time(book.lazy(), measures, until=until).collect(), means)
    assert mean_over_time(book.clear(), measures).height == 0


def trades(*rows: tuple[int, int, float, int, int]) -> pl.DataFrame:
    """Prints: time, exchange time, price, size, side."""
    frame = pl.DataFrame(rows, ["recv_ns", "exch_ns", "price", "volume", "side"], orient="row")
    return frame.with_columns(contract_id=pl.lit("ES"), seq=100 + pl.int_range(pl.len()))


def test_a_sweep_takes_all_that_waited_at_the_touch_before_it():
    book = snapshots(BOOK, ([(99.75, 3)], [(100.5, 6)]), times=[0, 100])
    prints = trades((10, 1, 100.25, 1, 0), (20, 2, 100.25, 2, 0), (20, 2, 100.5, 1, 0), (30, 3, 100.0, 3, 1),
                    (110, 4, 99.75, 3, 1), (120, 5, 99.0, 50, None))  # type: ignore[arg-type]  # fmt: skip
    found = sweeps(prints, book)
    assert found.select("recv_ns", "volume", "touch_size", "last_price").rows() == [
        (20, 3, 2, 100.5),
        (110, 3, 3, 99.75),
    ]


def test_a_widening_is_an_event_at_its_time():
    wide: tuple[Side, Side] = ([(99.75, 3)], [(100.25, 2)])
    book = snapshots(BOOK, wide, wide, BOOK, times=[0, 10, 20, 30])
    assert widenings(book, TICK).select("recv_ns", "to_ns", "widest_ticks").rows() == [(10, 30, 2)]


def plain_path(events: pl.DataFrame, book: pl.DataFrame, measure: str, horizons: list[int]) -> list[float | None]:
    """The mean change at each horizon, searched event by event."""
    states = list(zip(book["recv_ns"], book[measure], strict=True))
    end = max(book["recv_ns"].max(), events["recv_ns"].max())  # type: ignore[type-var]
    means = []
    for horizon in horizons:
        changes = []
        for time in events["recv_ns"]:
            before = [x for at, x in states if at < time]
            after = [x for at, x in states if at <= time + horizon]
            if before and before[-1] is not None and after[-1] is not None and time + horizon <= end:
                changes.append(after[-1] - before[-1])
        means.append(float(np.mean(changes)) if changes else None)
    return means


@given(st.integers(0, 1000))
def test_a_recovery_path_is_the_mean_change_since_before_the_events(seed: int):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 20, 30)
    some: list[tuple[Side, Side]] = [([(100.0, int(size))] if size > 3 else [], [(100.25, 1)]) for size in sizes]
    book = snapshots(*some, times=sorted(rng.choice(200, 30, replace=False).tolist()))
    events = pl.DataFrame({"contract_id": "ES", "recv_ns": np.sort(rng.integers(0, 220, 5))})
    horizons = [0, 7, 50, 500]
    path = recovery_path(events, book, pl.col("bid_size_0"), horizons)
    expected = plain_path(events, book, "bid_size_0", horizons)
    assert path["horizon_ns"].to_list() == horizons
    assert path["change"].to_list() == pytest.approx(expected)
    assert (path["n"] > 0).to_list() == [change is not None for change in expected]


def test_swept_depth_follows_the_side_and_the_prices_that_the_order_took():
    taken: tuple[Side, Side] = (BOOK[0], [(100.5, 5), (100.75, 8)])
    back: tuple[Side, Side] = (BOOK[0], [(100.25, 3), (100.5, 5), (100.75, 8)])
    book = snapshots(BOOK, taken, back, times=[0, 21, 50])
    events = sweeps(trades((20, 2, 100.25, 2, 0), (20, 2, 100.5, 1, 0)), book.head(1))
    path = recovery_path(events, book, swept_depth(levels=3), [0, 10, 30])
    assert path["change"].to_list() == [0, -3, 0]
    gap = pl.DataFrame({"from_ns": [25], "to_ns": [45]})
    assert recovery_path(events, book, swept_depth(levels=3), [0, 30], incidents=gap)["n"].to_list() == [1, 0]
    assert recovery_path(events.clear(), book, swept_depth(levels=3), [0]).height == 0
    with pytest.raises(UsageError, match="horizons"):
        recovery_path(events, book, swept_depth(), [])


@pytest.mark.parametrize(("effect", "sign"), [("rise", 1), ("fall", -1)])
def test_the_half_life_of_an_exponential_decay_is_ln_2_over_its_rate(effect: Literal["rise", "fall"], sign: int):
    horizons = np.arange(0, 5000, 10)
    rate = 1 / 700
    change = sign * 8 * np.exp(-rate * np.abs(horizons - 100))  # grows to its peak at 100
    path = pl.DataFrame({"contract_id": "ES", "horizon_ns": horizons, "change": change, "n": 5})
    found = half_life(path.sample(fraction=1, shuffle=True, seed=1), effect)
    assert found.row(0) == ("ES", pytest.approx(8 * sign), 100, pytest.approx(math.log(2) / rate, rel=1e-3), 5)
    other = half_life(path, "fall" if effect == "rise" else "rise")
    assert other.row(0)[1:4] == (None, None, None)
    assert half_life(path.filter(pl.col("horizon_ns") < 200), effect)["half_life_ns"].item() is None


def test_a_path_of_nothing_has_no_half_life():
    path = pl.DataFrame({"horizon_ns": [0, 1], "change": [None, None], "n": [0, 0]}, {"change": pl.Float64} | {
        "horizon_ns": pl.Int64, "n": pl.Int64})  # fmt: skip
    path = path.select("horizon_ns", "change", "n")
    assert half_life(path, "rise")["half_life_ns"].to_list() == [None]
    assert half_life(path.clear(), "fall")["peak"].to_list() == [None]


# The picture


def test_the_heatmap_holds_every_level_at_the_end_of_each_bin():
    thin: tuple[Side, Side] = ([(100.0, 1)], [])
    book = snapshots(BOOK, thin, BOOK, times=[5, 19, 31])
    picture = heatmap(book, 10, levels=3)
    levels = sorted(
        (price, side, size) for side, rungs in zip(("bid", "ask"), BOOK, strict=True) for price, size in rungs
    )
    assert picture.select("end_ns", "price", "side", "size").rows() == [
        *((10, *level) for level in levels), (20, 100.0, "bid", 1), (30, 100.0, "bid", 1),
    ]  # fmt: skip
    assert_frame_equal(heatmap(book.lazy(), 10, levels=3).collect(), picture)
    assert heatmap(book.clear(), 10, levels=3).height == 0


# The ES hour, as in docs/metrics.md


@pytest.fixture(scope="module")
def es_hour(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Snapshots and trades."""
    root = tmp_path_factory.mktemp("lake")
    import_tape(str(shared / "tapes" / "es_20231225.ndjson.zst"), root)
    session = open_lake(root).session()
    return book_snapshots(session.depth(), tick_size=TICK).collect(), session.trades().collect()


def test_the_depth_of_the_es_hour_is_that_of_the_exchange_s_book(
    shared: Path, es_hour: tuple[pl.DataFrame, pl.DataFrame]
):
    book, _ = es_hour
    rows = pl.read_parquet(shared / "reference" / "esh4_mbp10.parquet").filter(pl.col("ts_recv") >= book["recv_ns"][0])
    rows = rows.group_by("ts_recv").last().sort("ts_recv")
    end_ns = max(rows["ts_recv"][-1], book["recv_ns"][-1])
    held = np.diff(np.append(rows["ts_recv"].to_numpy(), end_ns))
    until = pl.DataFrame({"recv_ns": [end_ns]})
    measures = [cumulative_depth("bid", 1), cumulative_depth("ask", 10), depth_within("bid", 4, TICK)]
    got = mean_over_time(book, measures, until=until).row(0, named=True)
    sizes = {side: rows.select(f"^{side}_sz_.*$").to_numpy() for side in ("bid", "ask")}
    near = rows.select(f"bid_px_{m:02}" for m in range(10)).to_numpy() >= rows["bid_px_00"].to_numpy()[:, None] - 1.0
    assert got["bid_depth_1"] == pytest.approx(np.average(sizes["bid"][:, 0], weights=held), rel=1e-12)
    assert got["ask_depth_10"] == pytest.approx(np.average(sizes["ask"].sum(axis=1), weights=held), rel=1e-12)
    within = np.where(near, sizes["bid"], 0).sum(axis=1)
    assert got["bid_depth_within_4_ticks"] == pytest.approx(np.average(within, weights=held), rel=1e-12)
    assert got["bid_depth_1"] == pytest.approx(34.94, abs=0.01)
    assert got["ask_depth_10"] == pytest.approx(503.4, abs=0.1)


def test_how_fast_the_es_book_recovers(es_hour: tuple[pl.DataFrame, pl.DataFrame]):
    book, prints = es_hour
    horizons = [0, *(int(10 ** (exponent / 4)) for exponent in range(16, 40))]
    taken = sweeps(prints, book)
    assert taken.height == 636
    refill = half_life(recovery_path(taken, book, swept_depth(), horizons), "fall").row(0, named=True)
    assert refill["peak"] == pytest.approx(-6.35, abs=0.01)
    assert refill["half_life_ns"] == pytest.approx(1.34e9, rel=0.01)
    spread = pl.col("ask_price_0") - pl.col("bid_price_0")
    wide = widenings(book, TICK)
    narrowing = half_life(recovery_path(wide, book, spread, horizons), "rise").row(0, named=True)
    assert (wide.height, narrowing["peak_ns"]) == (772, 0)
    assert narrowing["half_life_ns"] == pytest.approx(0.207e9, rel=0.01)
