"""Permanent impact and price discovery in simulated markets whose truth is known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from mdcapture.errors import UsageError
from mdcapture.metrics.information import (
    hasbrouck_var,
    information_shares,
    price_discovery,
    trade_information,
)

if TYPE_CHECKING:
    from conftest import Tape

    from mdcapture.metrics.regression import Array

SECOND_NS = 1_000_000_000


# Hasbrouck's vector autoregression


def simulated_var(n: int, seed: int) -> tuple[Array, Array]:
    """r_t = -0.2 r_{t-1} + 0.5 x_t + 0.3 x_{t-1} + u_t, x_t = -0.1 r_{t-1} + 0.4 x_{t-1} + v_t."""
    random = np.random.default_rng(seed)
    u, v = random.normal(0, 1, n), random.normal(0, 0.5, n)
    r, x = np.zeros(n), np.zeros(n)
    for t in range(1, n):
        x[t] = -0.1 * r[t - 1] + 0.4 * x[t - 1] + v[t]
        r[t] = -0.2 * r[t - 1] + 0.5 * x[t] + 0.3 * x[t - 1] + u[t]
    return r, x


LONG_RUN = np.linalg.inv([[1.2, -0.8], [0.1, 0.6]])


def test_the_permanent_impact_is_that_of_the_process_within_its_error():
    found = hasbrouck_var(*simulated_var(40_000, seed=1), lags=2)
    assert abs(found.permanent_impact - LONG_RUN[0, 1]) < 3 * found.permanent_impact_se
    assert found.permanent_impact_se < 0.05
    assert found.immediate_impact == pytest.approx(0.5, abs=0.04)
    parts = LONG_RUN[0] ** 2 * [1, 0.25]
    assert found.trade_share == pytest.approx(parts[1] / parts.sum(), abs=0.02)


def test_errors_of_the_permanent_impact_have_the_size_of_its_spread():
    found = [hasbrouck_var(*simulated_var(2_000, seed=seed), lags=1) for seed in range(40)]
    spread = np.std([result.permanent_impact for result in found])
    assert spread == pytest.approx(np.mean([result.permanent_impact_se for result in found]), rel=0.3)


def test_the_cumulated_response_goes_to_the_permanent_impact():
    found = hasbrouck_var(*simulated_var(2_000, seed=3), lags=3, steps=200)
    assert found.response[0] == pytest.approx(found.immediate_impact)
    assert found.response[-1] == pytest.approx(found.permanent_impact, rel=1e-9)


def test_mirrored_flow_has_the_mirrored_impact():
    r, x = simulated_var(500, seed=4)
    assert hasbrouck_var(r, -x).permanent_impact == pytest.approx(-hasbrouck_var(r, x).permanent_impact)
    assert hasbrouck_var(r, 10 * x).permanent_impact == pytest.approx(hasbrouck_var(r, x).permanent_impact / 10)
    assert hasbrouck_var(r, -x).trade_share == pytest.approx(hasbrouck_var(r, x).trade_share)


def test_no_lag_reaches_across_a_gap():
    (r, x), stretch = simulated_var(400, seed=5), np.repeat([0, 1], 200)
    wild = r.copy()
    wild[199] = 1e9  # the last change before the gap: it must be in its own row only
    calm = r.copy()
    calm[199] = np.nan
    assert hasbrouck_var(calm, x, lags=2, stretch=stretch).n == 400 - 4 - 1
    halves = [hasbrouck_var(r[part], x[part], lags=2).n for part in (slice(0, 200), slice(200, 400))]
    assert hasbrouck_var(wild, x, lags=2, stretch=stretch).n == sum(halves)


@pytest.mark.parametrize("n", [0, 1, 8])
def test_too_few_trades_are_not_determined(n: int):
    found = hasbrouck_var(np.ones(n), np.ones(n))
    assert math.isnan(found.permanent_impact)
    assert math.isnan(found.trade_share)


def test_es_trades_carry_information(es_tape: Tape):
    found = trade_information(es_tape.trades, es_tape.quotes).row(0, named=True)
    assert 0 < found["immediate_impact"] < found["permanent_impact"] < 1
    assert found["permanent_impact"] > 3 * found["permanent_impact_se"]
    assert 0 < found["trade_share"] < 1


def test_trade_information_takes_the_change_from_before_a_trade_to_before_the_next(es_tape: Tape):
    quotes = sorted(es_tape.quotes.select("recv_ns", "seq", "best_bid", "best_ask").rows())
    mids, signs, at = [], [], -1
    for recv_ns, seq, _, side in sorted(es_tape.trades.select("recv_ns", "seq", "pos", "side").rows()):
        while at + 1 < len(quotes) and quotes[at + 1][:2] < (recv_ns, seq):
            at += 1
        bid, ask = quotes[at][2:] if at >= 0 else (None, None)
        mids.append(math.nan if bid is None or ask is None or bid > ask else (bid + ask) / 2)
        signs.append({0: 1.0, 1: -1.0}.get(side, math.nan))
    expected = hasbrouck_var([*np.diff(mids), math.nan], signs)
    found = trade_information(es_tape.trades, es_tape.quotes).row(0, named=True)
    assert found["permanent_impact"] == pytest.approx(expected.permanent_impact)
    assert found["n"] == expected.n


def test_no_trades_give_no_rows(es_tape: Tape):
    found = trade_information(es_tape.trades.clear(), es_tape.quotes)
    assert found.height == 0
    assert found.columns[:3] == ["session_id", "contract_id", "permanent_impact"]


# Price discovery


def follower_markets(n: int, seed: int, noise: float = 0.0) -> Array:
    """A leader, whose price is a random walk, and one that makes up a fifth of its distance at each step."""
    random = np.random.default_rng(seed)
    leader = 100 + np.cumsum(random.normal(0, 1, n))
    follower = np.full(n, 100.0)
    for t in range(1, n):
        follower[t] = follower[t - 1] + 0.2 * (leader[t - 1] - follower[t - 1]) + random.normal(0, 0.5)
    return np.column_stack([leader, follower]) + random.normal(0, noise, (n, 2))


def test_a_market_that_only_follows_has_no_share():
    found = price_discovery(follower_markets(20_000, seed=1), lags=2)
    assert found.component_share == pytest.approx([1, 0], abs=0.05)
    assert found.share_low == pytest.approx([1, 0], abs=0.02)
    assert found.share_high == pytest.approx([1, 0], abs=0.02)


def test_markets_that_adjust_alike_share_alike():
    random = np.random.default_rng(2)
    n, e = 40_000, np.random.default_rng(3).normal(0, 1, (40_000, 2))
    p = np.zeros((n, 2))
    for t in range(1, n):
        basis = p[t - 1, 0] - p[t - 1, 1]
        p[t] = p[t - 1] + np.array([-0.1, 0.1]) * basis + e[t]
    found = price_discovery(p + random.normal(0, 1e-9, p.shape), lags=1)
    assert found.component_share == pytest.approx([0.5, 0.5], abs=0.05)
    assert found.share_mean == pytest.approx([0.5, 0.5], abs=0.05)


def test_shares_add_up_and_bounds_hold_the_mean():
    leader = follower_markets(3_000, seed=4, noise=0.3)
    third = leader[:, :1] + np.random.default_rng(5).normal(0, 1, (3_000, 1))
    found = price_discovery(np.column_stack([leader, third]), lags=3)
    assert found.share_mean.sum() == pytest.approx(1)
    assert found.component_share.sum() == pytest.approx(1)
    assert (found.share_low <= found.share_mean).all()
    assert (found.share_mean <= found.share_high).all()


def test_the_bounds_are_hasbroucks_two_orders_for_two_markets():
    random = np.random.default_rng(6)
    p = follower_markets(4_000, seed=6) + np.cumsum(random.normal(0, 0.5, 4_000))[:, None]
    found = price_discovery(p, lags=1)
    change = np.diff(p, axis=0)
    design = np.column_stack([p[1:-1, 0] - p[1:-1, 1], np.ones(3_998), change[:-1]])
    beta, *_ = np.linalg.lstsq(design, change[1:])
    omega = (change[1:] - design @ beta).T @ (change[1:] - design @ beta) / 3_998
    psi = np.array([beta[0, 1], -beta[0, 0]])  # orthogonal to the speeds of adjustment
    sd, rho = np.sqrt(np.diag(omega)), omega[0, 1] / np.sqrt(omega[0, 0] * omega[1, 1])
    total = psi @ omega @ psi
    first = (psi[0] * sd[0] + rho * psi[1] * sd[1]) ** 2 / total
    last = (psi[0] * sd[0]) ** 2 * (1 - rho**2) / total
    assert sorted([found.share_low[0], found.share_high[0]]) == pytest.approx(sorted([first, last]))
    assert found.component_share == pytest.approx(psi / psi.sum())


def test_the_order_of_markets_does_not_matter():
    p = follower_markets(2_000, seed=7, noise=0.2)
    found, swapped = price_discovery(p), price_discovery(p[:, ::-1])
    assert swapped.share_low[::-1] == pytest.approx(found.share_low)
    assert swapped.component_share[::-1] == pytest.approx(found.component_share)


def quotes_of(prices: Array, contracts: list[str]) -> pl.DataFrame:
    return pl.concat(
        pl.DataFrame(
            {"recv_ns": SECOND_NS * np.arange(len(prices)), "best_bid": column - 0.5, "best_ask": column + 0.5}
        ).with_columns(session_id=pl.lit("s"), contract_id=pl.lit(contract))
        for contract, column in zip(contracts, prices.T, strict=True)
    )


def test_contracts_on_a_grid_have_the_shares_of_their_mids():
    prices = follower_markets(3_000, seed=8) + 1_000
    found = information_shares(quotes_of(prices, ["ES", "MES"]), SECOND_NS, ["ES", "MES"], lags=2)
    expected = price_discovery(np.log(prices), lags=2)
    assert found["contract_id"].to_list() == ["ES", "MES"]
    assert found["component_share"].to_list() == pytest.approx(list(expected.component_share))
    assert found["share_low"].to_list() == pytest.approx(list(expected.share_low))
    assert found["n"].to_list() == [expected.n] * 2


def test_a_gap_in_one_contract_breaks_the_lags():
    prices = follower_markets(400, seed=9) + 1_000
    gaps = pl.DataFrame(
        {"session_id": ["s"], "contract_id": ["MES"], "from_ns": [100 * SECOND_NS], "to_ns": [150 * SECOND_NS]}
    )
    quotes = quotes_of(prices, ["ES", "MES"])
    quotes = quotes.filter(
        (pl.col("contract_id") == "ES") | ~pl.col("recv_ns").is_between(101 * SECOND_NS, 149 * SECOND_NS)
    )
    found = information_shares(quotes, SECOND_NS, ["ES", "MES"], lags=2, incidents=gaps)
    assert found["n"].to_list() == [(101 - 3) + (250 - 3)] * 2


def test_what_is_not_there_is_null():
    quotes = quotes_of(follower_markets(50, seed=1) + 1_000, ["ES", "MES"])
    found = information_shares(quotes, SECOND_NS, ["ES", "NQ"])
    assert found["component_share"].to_list() == [None, None]
    assert information_shares(quotes.clear(), SECOND_NS, ["ES", "MES"]).height == 0


def test_wrong_arguments_are_usage_errors():
    with pytest.raises(UsageError, match="2 to 7 markets"):
        price_discovery(np.ones((10, 1)))
    with pytest.raises(UsageError, match="at least one lag"):
        hasbrouck_var(np.ones(9), np.ones(9), lags=0)
