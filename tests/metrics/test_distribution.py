"""Distributions: published power laws, samples of known law, and plain counts as oracles."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mdcapture.errors import UsageError
from mdcapture.metrics.distribution import (
    aggressive_orders,
    autocorrelation,
    durations,
    herfindahl,
    intraday_pattern,
    share_at_multiples,
    size_autocorrelation,
    size_clustering,
    size_histogram,
    smooth_pattern,
)

if TYPE_CHECKING:
    from conftest import Tape

few = settings(max_examples=40, deadline=None)

Row = tuple[int, float, int, int | None]
"""Exchange time, price, volume, side."""

SCHEMA = {
    "contract_id": pl.String,
    "seq": pl.Int64,
    "recv_ns": pl.Int64,
    "exch_ns": pl.Int64,
    "price": pl.Float64,
    "volume": pl.Int64,
    "side": pl.Int8,
}
trade_lists = st.lists(
    st.tuples(
        st.none() | st.integers(0, 3),
        st.integers(400, 404).map(lambda t: t / 4),
        st.integers(1, 12),
        st.sampled_from([0, 1, None]),
    ),
    max_size=40,
)


def tape(rows: list[Row], contract: str = "c") -> pl.DataFrame:
    numbered = [(contract, i, 10 * i, *row) for i, row in enumerate(rows)]
    return pl.DataFrame(numbered, schema=SCHEMA, orient="row")


def slow_orders(rows: list[Row]) -> list[tuple[int, float, int, int]]:
    """First price, volume-weighted price, volume and number of prints of each run."""
    keyed = [
        ((time, side) if None not in {time, side} else i, row)
        for i, row in enumerate(rows)
        for time, _, _, side in [row]
    ]
    runs = [[row for _, row in run] for _, run in groupby(keyed, key=lambda pair: pair[0])]
    return [
        (run[0][1], sum(p * v for _, p, v, _ in run) / sum(v for _, _, v, _ in run), sum(r[2] for r in run), len(run))
        for run in runs
    ]


@few
@given(one=trade_lists, other=trade_lists)
def test_prints_of_one_order_are_joined(one: list[Row], other: list[Row]):
    trades = pl.concat([tape(one, "a"), tape(other, "b")])
    orders = aggressive_orders(trades.sample(fraction=1.0, shuffle=True, seed=2).lazy()).collect()
    for contract, rows in (("a", one), ("b", other)):
        joined = orders.filter(contract_id=contract).select("first_price", "price", "volume", "prints").rows()
        assert [pytest.approx(row) for row in slow_orders(rows)] == joined
    assert orders["volume"].sum() == trades["volume"].sum()
    assert orders["prints"].sum() == trades.height
    again = aggressive_orders(orders.filter(pl.col("prints") == 1))
    assert again["volume"].sum() == orders.filter(pl.col("prints") == 1)["volume"].sum()


@few
@given(rows=trade_lists)
def test_sizes_are_counted(rows: list[Row]):
    histogram, counts = size_histogram(tape(rows)), Counter(v for _, _, v, _ in rows)
    assert histogram.select("volume", "trades").rows() == sorted(counts.items())
    if rows:
        shares = [n / len(rows) for n in counts.values()]
        summary = size_clustering(tape(rows), lots=(5,)).row(0, named=True)
        assert summary["herfindahl"] == pytest.approx(sum(s * s for s in shares))
        assert summary["at_5"] == pytest.approx(sum(v % 5 == 0 for _, _, v, _ in rows) / len(rows))
        assert summary["n"] == len(rows)
        assert histogram["share"].sum() == pytest.approx(1)
        assert histogram["volume_share"].sum() == pytest.approx(1)
        assert histogram["tail"].to_list() == pytest.approx(
            [sum(r[2] >= size for r in rows) / len(rows) for size in sorted(counts)]
        )


def test_concentration_of_nothing_is_not_known():
    sizes = pl.DataFrame({"volume": [5, 5, 7, None]})
    assert sizes.select(herfindahl(), m=share_at_multiples(5)).row(0) == (pytest.approx(5 / 9), pytest.approx(2 / 3))
    assert sizes.clear().select(herfindahl(), m=share_at_multiples(5)).row(0) == (None, None)


def test_autocorrelation_of_a_simulated_process_is_its_own():
    rng = np.random.default_rng(5)
    noise, x = rng.normal(size=40_000), np.zeros(40_000)
    for i in range(1, len(x)):
        x[i] = 0.7 * x[i - 1] + noise[i]
    rows = pl.DataFrame({"recv_ns": range(len(x)), "x": x})
    result = autocorrelation(rows.lazy(), "x", 3).collect()
    assert result["autocorrelation"].to_list() == pytest.approx([0.7, 0.49, 0.343], abs=0.02)
    with pytest.raises(UsageError):
        autocorrelation(rows, "x", 0)


def test_autocorrelation_of_sizes_is_of_their_logarithms():
    sizes = [1, 8, 2, 8, 1, 16]
    rows: list[Row] = [(i, 1.0, v, 0) for i, v in enumerate(sizes)]
    x = np.log2(sizes) - np.log2(sizes).mean()
    assert size_autocorrelation(tape(rows), 1)["autocorrelation"].item() == pytest.approx(x[1:] @ x[:-1] / (x @ x))


def test_durations_end_at_gaps_and_groups():
    trades = pl.concat([tape([(5, 1.0, 1, 0), (9, 1.0, 1, 0), (9, 1.0, 1, 1)], c) for c in ("a", "b")])
    gap = pl.DataFrame({"from_ns": [11], "to_ns": [19], "contract_id": ["b"]})
    assert durations(trades, incidents=gap)["duration_ns"].to_list() == [None, 10, 10, None, 10, None]
    assert durations(trades, clock="exch_ns")["duration_ns"].to_list() == [None, 4, 0, None, 4, 0]
    assert durations(trades.clear()).schema["duration_ns"] == pl.Int64


def test_intraday_pattern_stands_by_the_exchanges_clock_over_summer_time():
    chicago = ZoneInfo("America/Chicago")
    times = [datetime(2024, 3, day, hour, 30, tzinfo=chicago) for day in (8, 11) for hour in (8, 9)]  # 10 March: summer
    rows = pl.DataFrame(
        {"contract_id": "c", "recv_ns": [int(t.timestamp()) * 10**9 for t in times], "x": [1.0, 3.0, 2.0, 6.0]}
    )
    pattern = intraday_pattern(rows, "x", 3600 * 10**9)
    assert pattern.rows() == [
        ("c", 8 * 3600 * 10**9, 1.5, 2, 0.5),
        ("c", 9 * 3600 * 10**9, 4.5, 2, 1.5),
    ]
    assert_frame_equal(intraday_pattern(rows.lazy(), "x", 3600 * 10**9).collect(), pattern)
    assert intraday_pattern(rows.clear(), "x", 10**9).schema == pattern.schema
    with pytest.raises(UsageError):
        intraday_pattern(rows, "x", 0)


def test_a_pattern_of_the_flexible_fourier_form_is_found_under_noise():
    rng = np.random.default_rng(3)
    passed = np.arange(288) / 288
    shape = np.exp(1.5 * (passed - 0.5) ** 2 + 0.4 * np.cos(2 * np.pi * passed) - 0.2 * np.sin(4 * np.pi * passed))
    shape /= shape.mean()
    since_midnight = (passed * 86_400 + 17 * 3600) % 86_400
    noisy = shape * np.exp(0.1 * rng.normal(size=288) - 0.005)
    pattern = pl.DataFrame(
        {"contract_id": "c", "time_of_day_ns": (since_midnight * 1e9).round().astype(int), "factor": noisy}
    )
    other = pattern.with_columns(contract_id=pl.lit("d"), factor=pl.lit(1.0))
    smooth = smooth_pattern(pl.concat([pattern, other]).lazy()).collect()
    found = smooth.filter(contract_id="c")["smooth_factor"].to_numpy()
    assert np.abs(found / shape - 1).mean() < 0.025 < np.abs(noisy / shape - 1).mean()
    assert found.mean() == pytest.approx(1)
    assert smooth.filter(contract_id="d")["smooth_factor"].to_numpy() == pytest.approx(1)


def test_too_few_bins_are_not_smoothed():
    pattern = pl.DataFrame({"time_of_day_ns": [0, 10, 20], "factor": [1.0, 0.0, 2.0]})
    assert smooth_pattern(pattern)["smooth_factor"].to_list() == [None, None, None]
    assert smooth_pattern(pattern.clear()).schema["smooth_factor"] == pl.Float64
    assert smooth_pattern(pattern.with_columns(factor=1.0), harmonics=0)["smooth_factor"].to_list() == pytest.approx(
        [1, 1, 1]
    )
    with pytest.raises(UsageError):
        smooth_pattern(pattern, harmonics=-1)


def test_figures_of_the_es_hour_are_those_of_plain_counts(es_tape: Tape):
    """The figures of docs/metrics.md."""
    sizes = es_tape.trades["volume"].to_list()
    summary = size_clustering(es_tape.trades).row(0, named=True)
    assert summary["herfindahl"] == pytest.approx(sum((n / len(sizes)) ** 2 for n in Counter(sizes).values()))
    assert summary["at_5"] == pytest.approx(sum(size % 5 == 0 for size in sizes) / len(sizes))
    assert (summary["herfindahl"], summary["at_5"], summary["at_10"]) == pytest.approx(
        (0.3860, 0.0515, 0.0162), abs=5e-5
    )


def test_nothing_in_makes_nothing_out():
    empty = tape([])
    assert aggressive_orders(empty).schema == aggressive_orders(tape([(1, 1.0, 1, 0)])).schema
    assert size_histogram(empty).height == 0
    assert size_clustering(empty).height == 0
    assert size_autocorrelation(empty, 3).height == 0
    keyless = size_clustering(empty.drop("contract_id")).row(0, named=True)
    assert (keyless["herfindahl"], keyless["n"]) == (None, 0)
