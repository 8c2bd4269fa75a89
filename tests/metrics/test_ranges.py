"""Range estimators: published values of R's TTR, and their algebra."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from mdcapture.metrics.ranges import garman_klass, parkinson, rogers_satchell, yang_zhang
from mdcapture.metrics.volatility import annualized_volatility

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Tape

OHLC = ("open", "high", "low", "close")
PER_BAR = {
    "parkinson": parkinson("high", "low"),
    "garman_klass": garman_klass(*OHLC),
    "rogers_satchell": rogers_satchell(*OHLC),
}
ALL = PER_BAR | {"yang_zhang": yang_zhang(*OHLC)}


def bars_of_random_walk(bars: int, *, steps: int, sigma: float, drift: float = 0.0, seed: int = 1) -> pl.DataFrame:
    """Bars of a Gaussian walk whose variance a bar is sigma^2."""
    noise = np.random.default_rng(seed).normal(drift / steps, sigma / math.sqrt(steps), (bars, steps))
    path = 100 * np.exp(np.cumsum(noise.ravel())).reshape(bars, steps)
    opens = np.concatenate([[100.0], path[:-1, -1]])
    prices = np.column_stack([opens, path])
    return pl.DataFrame({"open": opens, "high": prices.max(axis=1), "low": prices.min(axis=1), "close": path[:, -1]})


@pytest.mark.parametrize(
    ("number", "name", "file"),
    [
        (79, "parkinson", "expected_allParkinson.csv"),
        (80, "garman_klass", "expected_allGK.csv"),
        (81, "rogers_satchell", "expected_allRS.csv"),
    ],
)
def test_ten_day_volatility_equals_ttr(shared: Path, expected: dict[int, Any], number: int, name: str, file: str):
    bars = pl.read_csv(shared / "reference/ttrc.csv.gz").head(250).rename(str.lower)

    variance = PER_BAR[name].rolling_mean(10)
    ours = bars.select(annualized_volatility(variance, periods_per_year=260)).to_series()

    some = [ours[9], ours[10], ours[249], ours.sum()]
    assert some == pytest.approx(expected[number]["expected"], rel=expected[number]["rtol"])
    whole = pl.read_csv(shared / "reference" / file, null_values="NA").to_series()
    assert ours.null_count() == whole.null_count() == 9
    np.testing.assert_allclose(ours.drop_nulls(), whole.drop_nulls(), rtol=1e-11)


@pytest.mark.parametrize("name", ALL)
def test_recovers_the_variance_of_a_random_walk(name: str):
    bars = bars_of_random_walk(2_000, steps=2_000, sigma=0.01)
    estimate = bars.select(ALL[name].mean()).item()
    assert estimate == pytest.approx(1e-4, rel=0.06)  # the range of 2,000 steps is seen some 2 % too small


def test_only_drift_free_estimators_see_through_a_drift():
    bars = bars_of_random_walk(2_000, steps=2_000, sigma=0.01, drift=0.01)
    estimate = bars.select(expr.mean().alias(name) for name, expr in ALL.items()).row(0, named=True)
    assert estimate["rogers_satchell"] == pytest.approx(1e-4, rel=0.06)
    assert estimate["yang_zhang"] == pytest.approx(1e-4, rel=0.06)
    assert estimate["parkinson"] > 1.2e-4
    assert estimate["garman_klass"] > 1.1e-4


@pytest.mark.parametrize("name", ALL)
def test_prices_in_another_unit_change_nothing(name: str):
    bars = bars_of_random_walk(50, steps=50, sigma=0.01)
    ours = bars.select(ALL[name]).to_series()
    np.testing.assert_allclose(bars.select(pl.all() * 64).select(ALL[name]).to_series(), ours, rtol=1e-9)


def test_yang_zhang_equals_its_definition_bar_by_bar():
    bars = bars_of_random_walk(30, steps=20, sigma=0.02).with_columns(pl.col("open") * 1.001)
    window = 10
    rolling = bars.select(yang_zhang(*OHLC, window=window)).to_series()
    for end in range(window, bars.height):
        rows = bars.rows(named=True)[end - window : end + 1]
        gap = [math.log(b["open"] / a["close"]) for a, b in pairwise(rows)]
        body = [math.log(b["close"] / b["open"]) for b in rows[1:]]
        inside = [
            math.log(b["high"] / b["close"]) * math.log(b["high"] / b["open"])
            + math.log(b["low"] / b["close"]) * math.log(b["low"] / b["open"])
            for b in rows[1:]
        ]
        k = 0.34 / (1.34 + (window + 1) / (window - 1))
        expected = np.var(gap, ddof=1) + k * np.var(body, ddof=1) + (1 - k) * np.mean(inside)
        assert rolling[end] == pytest.approx(expected, rel=1e-9)
        assert pl.DataFrame(rows).select(yang_zhang(*OHLC)).item() == pytest.approx(expected, rel=1e-9)
    assert rolling.null_count() == window


def test_overnight_gap_adds_its_square():
    bars = pl.DataFrame({"open": [10.0, 11.0], "high": [10.0, 11.0], "low": [10.0, 11.0], "close": [10.0, 11.0]})
    values = bars.select(garman_klass(*OHLC, overnight=True)).to_series().to_list()
    assert values == [None, pytest.approx(math.log(1.1) ** 2)]


@pytest.mark.parametrize("name", ALL)
def test_no_bars_one_bar_and_missing_prices_give_null_or_a_number(name: str):
    schema = dict.fromkeys(OHLC, pl.Float64)
    assert pl.DataFrame(schema=schema).select(ALL[name].mean()).item() is None
    empty = pl.DataFrame([[None] * 4, [0.0] * 4, [math.nan] * 4, [-1.0] * 4], schema=schema, orient="row")
    assert empty.select(ALL[name].mean()).item() is None
    one = bars_of_random_walk(1, steps=10, sigma=0.01).select(ALL[name].mean()).item()
    assert one is None if name == "yang_zhang" else one >= 0


def test_figures_of_the_es_hour(es_tape: Tape):
    """One-minute bars of trades, the sum over the hour, by loops too; figures as in docs/metrics.md."""
    minute_ns = 60 * 10**9
    price = pl.col("price")
    bars = es_tape.trades.group_by(pl.col("recv_ns") // minute_ns).agg(
        open=price.first(), high=price.max(), low=price.min(), close=price.last()
    )
    sums = bars.select(expr.sum().alias(name) for name, expr in PER_BAR.items()).row(0, named=True)
    figures = {"parkinson": 9.27e-7, "garman_klass": 6.92e-7, "rogers_satchell": 5.87e-7}
    assert sums == pytest.approx(figures, rel=1e-3)
    logs = [{name: math.log(bar[name]) for name in OHLC} for bar in bars.rows(named=True)]
    ranges = [(b["high"] - b["low"]) ** 2 for b in logs]
    bodies = [(b["close"] - b["open"]) ** 2 for b in logs]
    wicks = [
        (b["high"] - b["close"]) * (b["high"] - b["open"]) + (b["low"] - b["close"]) * (b["low"] - b["open"])
        for b in logs
    ]
    assert sums["parkinson"] == pytest.approx(sum(ranges) / (4 * math.log(2)), rel=1e-9)
    assert sums["garman_klass"] == pytest.approx(sum(ranges) / 2 - (2 * math.log(2) - 1) * sum(bodies), rel=1e-9)
    assert sums["rogers_satchell"] == pytest.approx(sum(wicks), rel=1e-9)
