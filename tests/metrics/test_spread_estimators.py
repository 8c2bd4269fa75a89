"""Spread estimators against published values, slow implementations, and simulations whose truth is known."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from mdcapture.metrics.spread_estimators import abdi_ranaldo, corwin_schultz, edge, roll

if TYPE_CHECKING:
    from pathlib import Path

    from mdcapture.metrics.spread_estimators import Negative

CLOSE = pl.col("close").log()


def bars_of(path: Path) -> pl.DataFrame:
    return pl.read_csv(path).rename(str.lower)


# Published values

PUBLISHED = {
    63: ("bidask_sim.csv", roll(CLOSE)),
    64: ("bidask_sim.csv", abdi_ranaldo(negative="zero")),
    65: ("bidask_sim.csv", corwin_schultz(negative="keep").abs()),
    66: ("bidask_ohlc.csv", edge()),
}


@pytest.mark.parametrize("number", PUBLISHED)
def test_published_estimates(number: int, shared: Path, expected: dict[int, Any]):
    file, estimator = PUBLISHED[number]
    found = bars_of(shared / "reference" / file).select(estimator).item()
    assert found == pytest.approx(expected[number]["expected"], rel=expected[number]["rtol"])


def test_published_rolling_roll(shared: Path, expected: dict[int, Any]):
    bars = pl.read_csv(shared / "reference" / "dollar_bar_sample.csv")
    found = bars.select(roll("close", window=20, negative="absolute")).to_series()
    published = expected[73]
    assert [found.max(), found.mean(), found[25]] == pytest.approx(published["expected"], rel=published["rtol"])


# Slow implementations and known truth


def plain_edge(bars: pl.DataFrame) -> float:
    """EDGE by the formulas, bar by bar."""
    logs = [tuple(math.log(price) for price in row) for row in bars.select("open", "high", "low", "close").rows()]
    rows = []
    for (_, h1, l1, c1), (o, h, low, _) in itertools.pairwise(logs):
        eta, eta1, moved = (h + low) / 2, (h1 + l1) / 2, float(h != low or low != c1)
        flags = (moved, moved * (o != h), moved * (o != low), moved * (c1 != h1), moved * (c1 != l1))
        rows.append((*flags, eta - o, o - eta1, eta - c1, c1 - eta1, o - c1))
    moved, oh, ol, ch, cl, r1, r2, r3, r4, r5 = np.array(rows).T
    po, pc = oh.mean() + ol.mean(), ch.mean() + cl.mean()
    d1, d3, d5 = (r - moved * r.mean() / moved.mean() for r in (r1, r3, r5))
    x1 = -4 / po * d1 * r2 - 4 / pc * d3 * r4
    x2 = -4 / po * d1 * r5 - 4 / pc * d5 * r4
    square = (x2.var() * x1.mean() + x1.var() * x2.mean()) / (x1.var() + x2.var())
    return math.sqrt(abs(square))


def plain_corwin_schultz(bars: pl.DataFrame) -> float:
    rows = bars.select("high", "low", "close").rows()
    spreads = []
    for (h1, l1, c1), (h2, l2, _) in itertools.pairwise(rows):
        moved = c1 / h2 if c1 > h2 else c1 / l2 if c1 < l2 else 1.0
        top, bottom = h2 * moved, l2 * moved
        beta = math.log(h1 / l1) ** 2 + math.log(top / bottom) ** 2
        gamma = math.log(max(h1, top) / min(l1, bottom)) ** 2
        k = 3 - 2 * math.sqrt(2)
        alpha = (math.sqrt(2 * beta) - math.sqrt(beta)) / k - math.sqrt(gamma / k)
        spreads.append(max(0.0, 2 * (math.exp(alpha) - 1) / (1 + math.exp(alpha))))
    return sum(spreads) / len(spreads)


def test_estimators_agree_with_slow_ones_by_group(shared: Path):
    bars = bars_of(shared / "reference" / "bidask_sim.csv").head(600).with_columns(day=pl.int_range(pl.len()) // 200)
    found = bars.lazy().group_by("day", maintain_order=True).agg(edge=edge(), cs=corwin_schultz(), roll=roll(CLOSE))
    for (_, day), row in zip(bars.group_by("day", maintain_order=True), found.collect().rows(named=True), strict=True):
        change = np.diff(np.log(day["close"].to_numpy()))
        covariance = np.cov(change[1:], change[:-1])[0, 1]
        assert row["edge"] == pytest.approx(plain_edge(day), rel=1e-9)
        assert row["cs"] == pytest.approx(plain_corwin_schultz(day), rel=1e-9)
        assert row["roll"] == (pytest.approx(2 * math.sqrt(-covariance)) if covariance <= 0 else None)


def simulated_bars(spread: float, seed: int, bars: int = 4_000, ticks: int = 60) -> pl.DataFrame:
    """Bars of trades at a random walk plus or minus half the spread."""
    random = np.random.default_rng(seed)
    efficient = np.cumsum(random.normal(0, 0.02 / math.sqrt(ticks), bars * ticks))
    price = np.exp(efficient + spread / 2 * random.choice([-1, 1], bars * ticks)).reshape(bars, ticks)
    return pl.DataFrame({"open": price[:, 0], "high": price.max(1), "low": price.min(1), "close": price[:, -1]})


@pytest.mark.parametrize("spread", [0.01, 0.03])
def test_estimators_find_the_spread_that_a_simulation_put_in(spread: float):
    found = simulated_bars(spread, seed=7).select(edge=edge(), ar=abdi_ranaldo(), roll=roll(CLOSE)).row(0, named=True)
    assert found["edge"] == pytest.approx(spread, rel=0.05)
    assert found["ar"] == pytest.approx(spread, rel=0.15)
    assert found["roll"] == pytest.approx(spread, rel=0.25)


def test_a_spread_as_a_fraction_does_not_change_with_the_unit_of_the_price():
    bars = simulated_bars(0.01, seed=3, bars=300)
    scaled = bars.with_columns(pl.all() * 1_000)
    estimators = [edge(), abdi_ranaldo(negative="signed"), corwin_schultz(), roll(CLOSE, negative="signed")]
    for estimator in estimators:
        assert scaled.select(estimator).item() == pytest.approx(bars.select(estimator).item(), rel=1e-9)


@pytest.mark.parametrize(("negative", "result"), [("null", None), ("zero", 0.0), ("absolute", 2.0), ("signed", -2.0)])
def test_a_positive_covariance_becomes_what_was_asked_for(negative: Negative, result: float | None):
    trend = pl.DataFrame({"price": [0.0, 1.0, 2.0, 3.0]})
    assert trend.select(roll("price", demean=False, negative=negative)).item() == result


def test_the_rolling_roll_is_roll_on_each_window():
    price = pl.Series("price", np.random.default_rng(1).choice([99.0, 100.0], 50))
    rolled = price.to_frame().select(roll("price", window=10)).to_series()
    for end in (12, 30, 50):
        window = price[end - 12 : end].to_frame().select(roll("price")).item()
        assert rolled[end - 1] == (pytest.approx(window) if window is not None else None)
    assert rolled[:11].null_count() == 11


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_bars_give_null(rows: int):
    bars = simulated_bars(0.01, seed=3, bars=2).head(rows)
    estimators = {"roll": roll("close"), "cs": corwin_schultz(), "ar": abdi_ranaldo(), "edge": edge()}
    assert bars.select(**estimators).row(0) == (None,) * 4


def test_estimates_are_named_after_their_estimators():
    bars = simulated_bars(0.01, seed=3, bars=50)
    found = bars.select(roll(CLOSE), corwin_schultz(), abdi_ranaldo(), edge())
    assert found.columns == ["roll", "corwin_schultz", "abdi_ranaldo", "edge"]
