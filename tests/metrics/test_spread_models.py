"""Component models of the spread, against simulations whose truth is known, and by their symmetries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mdcapture.metrics.regression import lagged
from mdcapture.metrics.spread_models import (
    glosten_harris,
    huang_stoll,
    huang_stoll_three_way,
    madhavan_richardson_roomans,
    quote_implied_volatility,
    spread_components,
)

if TYPE_CHECKING:
    from conftest import Tape

    from mdcapture.metrics.regression import Array


def signs(n: int, rho: float, seed: int) -> Array:
    """A chain of +1 and -1 with autocorrelation rho."""
    flips = np.random.default_rng(seed).random(n) < (1 - rho) / 2
    return np.asarray(np.where(np.cumsum(flips) % 2 == 0, 1.0, -1.0))


@pytest.mark.parametrize("seed", range(40, 60))
def test_a_variance_below_zero_is_no_error_and_no_warning(seed: int):
    """Four trades make coefficients whose covariance is rounding alone, of either sign as the machine has it."""
    random = np.random.default_rng(seed)
    d = random.choice([-1.0, 1.0], 4)
    prices = 100 + 0.25 * (d > 0) + 0.25 * np.cumsum(random.integers(-1, 2, 4) * (random.random(4) < 0.3))
    error = huang_stoll(prices, d).permanent_share_se
    assert math.isnan(error) or error >= 0


def mrr_prices(d: Array, theta: float, phi: float, rho: float, *, sd: float, seed: int) -> Array:
    """Prices of the model: what is unexpected of a sign moves the efficient price, phi comes on top."""
    random = np.random.default_rng(seed)
    surprise = d - rho * lagged(d, 1)
    surprise[0] = 0
    return 5000 + np.cumsum(theta * surprise + random.normal(0, sd, len(d))) + phi * d


def test_mrr_finds_the_parameters_within_their_errors():
    theta, phi, rho, n = 0.06, 0.04, 0.4, 60_000
    d = signs(n, rho, seed=1)
    found = madhavan_richardson_roomans(mrr_prices(d, theta, phi, rho, sd=0.1, seed=2), d)
    assert abs(found.information - theta) < 3 * found.information_se
    assert abs(found.cost - phi) < 3 * found.cost_se
    assert abs(found.autocorrelation - rho) < 3 * found.autocorrelation_se
    assert found.information_se < 0.002
    assert found.flow_variance == pytest.approx(theta**2 * (1 - rho**2), rel=0.1)
    assert found.news_variance == pytest.approx(0.01, rel=0.03)
    implied = quote_implied_volatility(found, trades=10_000)
    assert implied == pytest.approx(math.sqrt(10_000 * (theta**2 * (1 - rho**2) + 0.01)), rel=0.03)


def test_mrr_errors_have_the_size_of_the_spread_of_estimates():
    found = []
    for seed in range(60):
        d = signs(3_000, 0.4, seed=seed)
        found.append(madhavan_richardson_roomans(mrr_prices(d, 0.06, 0.04, 0.4, sd=0.1, seed=1_000 + seed), d))
    spread = np.std([result.information for result in found])
    assert spread == pytest.approx(np.mean([result.information_se for result in found]), rel=0.3)


def test_glosten_harris_finds_the_parameters_within_their_errors():
    random = np.random.default_rng(4)
    n, c0, z0, z1 = 40_000, 0.08, 0.02, 0.005
    d, q = signs(n, 0.3, seed=5), random.integers(1, 20, n).astype(float)
    price = np.cumsum(z0 * d + z1 * d * q + random.normal(0, 0.05, n)) + c0 * d
    found = glosten_harris(price, d, q)
    assert abs(found.transitory - c0) < 3 * found.transitory_se
    assert abs(found.adverse - z0) < 3 * found.adverse_se
    assert abs(found.adverse_per_lot - z1) < 3 * found.adverse_per_lot_se
    assert found.spread == pytest.approx(2 * (c0 + z0 + z1 * q.mean()), rel=0.02)


def test_huang_stoll_finds_spread_and_permanent_share():
    n, spread, share = 40_000, 0.25, 0.4
    d = signs(n, 0.2, seed=6)
    value = np.cumsum(np.concatenate([[0], share * spread / 2 * d[:-1]]) + np.random.default_rng(7).normal(0, 0.05, n))
    found = huang_stoll(value + spread / 2 * d, d)
    assert abs(found.spread - spread) < 3 * found.spread_se
    assert abs(found.permanent_share - share) < 3 * found.permanent_share_se


def test_huang_stoll_three_way_finds_the_shares_where_trades_reverse():
    random = np.random.default_rng(8)
    n, alpha, beta, rho = 80_000, 0.3, 0.2, -0.5
    d, s = signs(n, rho, seed=9), random.choice([0.25, 0.5], n)
    flow = s / 2 * d
    past = alpha * lagged(s, 1) / 2 * rho * lagged(d, 1)
    change = (alpha + beta) * flow - past
    mid = np.cumsum(np.concatenate([[0, 0], change[1:-1]]) + random.normal(0, 0.02, n))
    found = huang_stoll_three_way(mid, s, d)
    assert abs(found.adverse_share - alpha) < 3 * found.adverse_share_se
    assert abs(found.inventory_share - beta) < 3 * found.inventory_share_se
    assert found.adverse_share + found.inventory_share + found.order_share == pytest.approx(1)
    assert found.reversal == pytest.approx(0.75, abs=0.01)


def test_mirrored_prices_and_signs_have_the_same_components():
    d = signs(500, 0.3, seed=1)
    price = mrr_prices(d, 0.06, 0.04, 0.3, sd=0.1, seed=2)
    assert madhavan_richardson_roomans(-price, -d).information == pytest.approx(
        madhavan_richardson_roomans(price, d).information
    )
    assert huang_stoll(-price, -d).spread == pytest.approx(huang_stoll(price, d).spread)


def test_no_change_reaches_across_a_gap():
    d = signs(400, 0.3, seed=1)
    price = mrr_prices(d, 0.06, 0.04, 0.3, sd=0.1, seed=2)
    apart, stretch = np.concatenate([price[:200], price[200:] + 1e6]), np.repeat([0, 1], 200)
    whole, parted = huang_stoll(apart, d, stretch=stretch), huang_stoll(price, d, stretch=stretch)
    assert whole.n == parted.n == 398
    assert whole.spread == pytest.approx(parted.spread)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_trades_are_not_determined(n: int):
    x = np.ones(n)
    results = (
        huang_stoll(x, x),
        glosten_harris(x, x, x),
        huang_stoll_three_way(x, x, x),
        madhavan_richardson_roomans(x, x),
    )
    assert [math.isnan(result.n) for result in results] == [False] * 4
    assert math.isnan(huang_stoll(x, x).spread)
    assert math.isnan(madhavan_richardson_roomans(x, x).information)


def test_es_components_are_plausible(es_tape: Tape):
    found = spread_components(es_tape.trades, es_tape.quotes).row(0, named=True)
    quoted = float((es_tape.quotes["best_ask"] - es_tape.quotes["best_bid"]).mean())  # type: ignore[arg-type]
    assert 0.1 < found["hs_spread"] < 2 * quoted
    assert 0 < found["mrr_information_share"] < 1
    assert found["mrr_spread"] == pytest.approx(found["hs_spread"], rel=0.05)


def test_components_of_nothing_are_no_rows(es_tape: Tape):
    found = spread_components(es_tape.trades.clear(), es_tape.quotes)
    assert found.height == 0
    assert {"contract_id", "gh_transitory", "hs3_adverse_share", "mrr_n"} <= set(found.columns)
