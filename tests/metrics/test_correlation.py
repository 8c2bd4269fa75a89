"""Correlation between contracts: double loops, identities, and simulations with known correlation and lead."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mdcapture.errors import UsageError
from mdcapture.metrics import correlation as corr
from mdcapture.metrics.frames import mids

if TYPE_CHECKING:
    from conftest import Tape

SECOND_NS = 10**9


def hayashi_yoshida_by_definition(x: corr.Path, y: corr.Path, lag_ns: int = 0) -> float:
    """Every pair of intervals, one by one."""
    total = 0.0
    for i in range(1, len(x.time_ns)):
        for j in range(1, len(y.time_ns)):
            start = max(x.time_ns[i - 1], y.time_ns[j - 1] - lag_ns)
            end = min(x.time_ns[i], y.time_ns[j] - lag_ns)
            if start < end:
                total += (x.log_price[i] - x.log_price[i - 1]) * (y.log_price[j] - y.log_price[j - 1])
    return total


@st.composite
def paths(draw: st.DrawFn) -> corr.Path:
    times = sorted(draw(st.sets(st.integers(0, 60), max_size=20)))
    moves = draw(st.lists(st.floats(-1, 1), min_size=len(times), max_size=len(times)))
    return corr.Path(np.array(times, dtype=np.int64), np.cumsum(moves, dtype=np.float64))


@given(paths(), paths(), st.integers(-40, 40))
def test_hayashi_yoshida_equals_the_double_loop(x: corr.Path, y: corr.Path, lag_ns: int):
    ours = corr.hayashi_yoshida_covariance(x, y, lag_ns=lag_ns)
    assert ours == pytest.approx(hayashi_yoshida_by_definition(x, y, lag_ns), abs=1e-9)


@given(paths(), paths(), st.integers(-40, 40))
def test_hayashi_yoshida_is_symmetric_and_bilinear(x: corr.Path, y: corr.Path, lag_ns: int):
    one = corr.hayashi_yoshida_covariance(x, y, lag_ns=lag_ns)
    assert corr.hayashi_yoshida_covariance(y, x, lag_ns=-lag_ns) == pytest.approx(one, abs=1e-9)
    doubled = corr.Path(x.time_ns, -2 * x.log_price)
    assert corr.hayashi_yoshida_covariance(doubled, y, lag_ns=lag_ns) == pytest.approx(-2 * one, abs=1e-9)


@given(paths())
def test_hayashi_yoshida_with_itself_is_realized_variance(x: corr.Path):
    assert corr.hayashi_yoshida_covariance(x, x) == pytest.approx(x.variance, abs=1e-12)


def ticks(contract: str, times_ns: np.ndarray | list[int], log_price: np.ndarray | list[float]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "session_id": ["s"] * len(times_ns),
            "contract_id": [contract] * len(times_ns),
            "recv_ns": pl.Series(times_ns, dtype=pl.Int64),
            "price": 100 * np.exp(log_price),
        }
    )


def two_brownian(n: int, rho: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two log prices of n seconds, of variance one over the whole, with the correlation rho."""
    steps = np.random.default_rng(seed).normal(0, n**-0.5, (2, n))
    return np.cumsum(steps[0]), np.cumsum(rho * steps[0] + math.sqrt(1 - rho**2) * steps[1])


def poisson_times(n: int, rate: float, *, seed: int) -> np.ndarray:
    return np.flatnonzero(np.random.default_rng(seed).random(n) < rate)


def test_synchronous_hayashi_yoshida_is_realized_covariance():
    n = 500
    x, y = two_brownian(n, 0.6, seed=1)
    times = np.arange(n) * SECOND_NS
    prices = pl.concat([ticks("a", times, x), ticks("b", times, y)])
    tickwise = corr.hayashi_yoshida(prices, "price").row(0, named=True)
    sampled = corr.realized_covariances(prices, "price", interval_ns=SECOND_NS).row(0, named=True)
    for name in ("covariance", "correlation", "variance_x", "variance_y"):
        assert tickwise[name] == pytest.approx(sampled[name], rel=1e-9)
    assert sampled["n"] == n - 1
    assert sampled["covariance"] == pytest.approx(np.diff(x) @ np.diff(y))


@pytest.fixture(scope="module")
def asynchronous() -> pl.DataFrame:
    """Two contracts of correlation 0.7 seen at random times, one five times as often as the other."""
    n = 400_000
    x, y = two_brownian(n, 0.7, seed=2)
    at_x, at_y = poisson_times(n, 0.5, seed=3), poisson_times(n, 0.1, seed=4)
    return pl.concat([ticks("a", at_x * SECOND_NS, x[at_x]), ticks("b", at_y * SECOND_NS, y[at_y])])


def test_hayashi_yoshida_is_unbiased_where_fine_sampling_is_not(asynchronous: pl.DataFrame):
    tickwise = corr.hayashi_yoshida(asynchronous, "price").row(0, named=True)
    assert tickwise["correlation"] == pytest.approx(0.7, abs=0.02)
    curve = corr.epps_curve(
        asynchronous.lazy(), "price", intervals_ns=[s * SECOND_NS for s in (300, 1, 10, 60)]
    ).collect()
    assert curve["interval_ns"].to_list() == [s * SECOND_NS for s in (1, 10, 60, 300)]
    assert curve["correlation"].is_sorted()
    assert curve["correlation"][0] < 0.2
    assert curve["correlation"][-1] == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("delay_s", [3, -3])
def test_the_leader_and_its_lead_are_found(delay_s: int):
    n = 50_000
    x, y = two_brownian(n, 0.8, seed=5)
    at_x, at_y = poisson_times(n, 0.7, seed=6), poisson_times(n, 0.7, seed=7)
    prices = pl.concat(
        [
            ticks("a", at_x * SECOND_NS, x[at_x]),
            ticks("b", (at_y + delay_s) * SECOND_NS, y[at_y]),
        ]
    )
    lags = [s * SECOND_NS for s in range(-10, 11)]
    curve = corr.lead_lag(prices.lazy(), "price", lags_ns=lags).collect()
    assert curve["lag_ns"].to_list() == lags
    found = corr.lead_lag_ratio(curve).row(0, named=True)
    assert found["lead_ns"] == delay_s * SECOND_NS
    assert found["correlation"] == pytest.approx(0.8, abs=0.05)
    assert (found["lead_lag_ratio"] > 1) == (delay_s > 0)


def test_at_lag_zero_the_contrast_is_hayashi_yoshida(asynchronous: pl.DataFrame):
    few = asynchronous.group_by("contract_id", maintain_order=True).head(1_000)
    curve = corr.lead_lag(few, "price", lags_ns=[0]).row(0, named=True)
    plain = corr.hayashi_yoshida(few, "price").row(0, named=True)
    assert curve["covariance"] == plain["covariance"]
    assert curve["correlation"] == plain["correlation"]


def refresh_times_by_definition(x_ns: list[int], y_ns: list[int]) -> list[int]:
    """One time after the other: a refresh as soon as both were seen."""
    result: list[int] = []
    seen: set[str] = set()
    for time in sorted({*x_ns, *y_ns}):
        seen |= {name for name, times in (("x", x_ns), ("y", y_ns)) if time in times}
        if seen == {"x", "y"}:
            result.append(time)
            seen = set()
    return result


@given(paths(), paths())
def test_refresh_times_are_those_of_a_walk_through_time(x: corr.Path, y: corr.Path):
    at_x, at_y = corr.refreshed(x, y)
    expected = refresh_times_by_definition(x.time_ns.tolist(), y.time_ns.tolist())
    assert at_x.time_ns.tolist() == at_y.time_ns.tolist() == expected
    for path, sampled in ((x, at_x), (y, at_y)):
        before = [path.log_price[path.time_ns <= time][-1] for time in expected]
        assert sampled.log_price.tolist() == before


def test_kernel_correlation_survives_noise_that_hides_it_from_the_others():
    n = 100_000
    x, y = two_brownian(n, 0.7, seed=10)
    at_x, at_y = poisson_times(n, 0.6, seed=11), poisson_times(n, 0.3, seed=12)
    noise = np.random.default_rng(13).normal(0, 0.01, (2, n))
    prices = pl.concat(
        [
            ticks("a", at_x * SECOND_NS, x[at_x] + noise[0, at_x]),
            ticks("b", at_y * SECOND_NS, y[at_y] + noise[1, at_y]),
        ]
    )
    assert corr.hayashi_yoshida(prices, "price")["correlation"].item() < 0.2
    found = corr.kernel_covariances(prices.lazy(), "price").collect().row(0, named=True)
    assert found["correlation"] == pytest.approx(0.7, abs=0.08)
    assert found["variance_x"] == pytest.approx(1, abs=0.12)
    assert found["variance_y"] == pytest.approx(1, abs=0.12)
    assert 20_000 < found["n"] < 30_000


def test_kernel_covariance_without_lags_is_realized_covariance_at_refresh_times():
    prices = pl.concat([ticks("a", [0, 10, 20, 25], [0.0, 0.1, 0.4, 0.3]), ticks("b", [5, 10, 30], [0.0, 0.2, 0.5])])
    found = corr.kernel_covariances(prices, "price", bandwidth=0).row(0, named=True)
    x, y = np.diff([0.0, 0.1, 0.3]), np.diff([0.0, 0.2, 0.5])
    assert found["n"] == 2
    assert found["covariance"] == pytest.approx(x @ y)
    assert found["correlation"] == pytest.approx(x @ y / math.sqrt((x @ x) * (y @ y)))


@given(paths(), paths(), st.integers(0, 5))
def test_parzen_correlation_is_never_beyond_one(x: corr.Path, y: corr.Path, lags: int):
    prices = pl.concat(
        (ticks(name, path.time_ns, path.log_price) for name, path in (("a", x), ("b", y))), how="vertical_relaxed"
    )
    for row in corr.kernel_covariances(prices, "price", bandwidth=lags).drop_nulls().rows(named=True):
        assert row["covariance"] ** 2 <= row["variance_x"] * row["variance_y"] + 1e-9


def test_lead_lag_ratio_is_that_of_squared_correlations():
    curve = pl.DataFrame(
        {
            "contract_x": ["a"] * 5,
            "contract_y": ["b"] * 5,
            "lag_ns": [-2, -1, 0, 1, 2],
            "correlation": [0.1, 0.2, 0.4, -0.5, 0.0],
        }
    )
    found = corr.lead_lag_ratio(curve.lazy()).collect().row(0, named=True)
    assert found["lead_ns"] == 1
    assert found["correlation"] == -0.5
    assert found["lead_lag_ratio"] == pytest.approx(0.25 / 0.05)


def test_covariances_over_disjoint_times_add_up():
    n = 2_000
    x, y = two_brownian(n, 0.5, seed=8)
    times = np.arange(n)
    both = (
        slice(None),
        slice(None, 1_000),
        slice(999, None),
    )  # the two parts share one price, which both begin or end with
    whole, first, second = (
        corr.hayashi_yoshida_covariance(corr.Path(times[part], x[part]), corr.Path(times[part], y[part]))
        for part in both
    )
    assert first + second == pytest.approx(whole, rel=1e-12)


def test_no_return_reaches_across_a_gap():
    times = [0, 10, 20, 30, 40, 50]
    calm, jumping = [0.0, 0.1, 0.3, 5.0, 5.2, 5.1], [0.0, 0.2, 0.1, 9.0, 9.3, 9.2]
    prices = pl.concat([ticks("a", times, calm), ticks("b", times, jumping)])
    gap = pl.DataFrame({"session_id": ["s"], "contract_id": [None], "from_ns": [21], "to_ns": [29]})
    expected = 0.1 * 0.2 - 0.2 * 0.1 + 0.2 * 0.3 + 0.1 * 0.1
    tickwise = corr.hayashi_yoshida(prices, "price", incidents=gap)
    sampled = corr.realized_covariances(prices, "price", interval_ns=10, incidents=gap)
    assert tickwise["covariance"].item() == pytest.approx(expected)
    assert sampled["covariance"].item() == pytest.approx(expected)
    assert sampled["n"].item() == 4


def test_a_gap_of_one_contract_leaves_out_what_the_other_did_meanwhile():
    prices = pl.concat([ticks("a", [0, 10, 40, 50], [0.0, 0.1, 5, 5.1]), ticks("b", [0, 10, 20, 30, 40, 50], range(6))])
    gap = pl.DataFrame({"session_id": ["s"], "contract_id": ["a"], "from_ns": [11], "to_ns": [39]})
    found = corr.hayashi_yoshida(prices, "price", incidents=gap).row(0, named=True)
    assert found["covariance"] == pytest.approx(0.1 + 0.1)
    assert found["variance_x"] == pytest.approx(0.02)


def test_of_prices_at_one_time_the_last_counts():
    twice = ticks("a", [0, 1, 1, 2], [0.0, 7.0, 0.1, 0.3])
    once = ticks("a", [0, 1, 2], [0.0, 0.1, 0.3])
    other = ticks("b", [0, 1, 2], [0.0, 0.2, 0.5])
    assert_frame_equal(
        corr.hayashi_yoshida(pl.concat([twice, other]), "price"),
        corr.hayashi_yoshida(pl.concat([once, other]), "price"),
    )


def test_every_pair_of_each_session_has_a_row():
    base = ticks("a", [0, 10, 20], [0.0, 0.1, 0.3])
    prices = pl.concat(
        base.with_columns(session_id=pl.lit(s), contract_id=pl.lit(c)) for s, c in ("sc", "sa", "sb", "tb", "ta", "ua")
    )
    expected = [("s", "a", "b"), ("s", "a", "c"), ("s", "b", "c"), ("t", "a", "b")]
    pair = ["session_id", "contract_x", "contract_y"]
    for table in (
        corr.hayashi_yoshida(prices, "price"),
        corr.kernel_covariances(prices, "price"),
        corr.lead_lag(prices, "price", lags_ns=[0]),
        corr.realized_covariances(prices, "price", interval_ns=10),
        corr.epps_curve(prices, "price", intervals_ns=[10]),
    ):
        assert table.select(pair).rows() == expected
        assert table["correlation"].to_list() == pytest.approx([1.0] * 4)


def test_the_error_of_a_correlation_is_its_formula_and_looks_at_whole_pairs_alone():
    x, y = np.random.default_rng(12).normal(0, [[0.01], [0.02]], (2, 30))
    rho, (v, w) = float(x @ y / np.sqrt((x @ x) * (y @ y))), (float(x @ x), float(y @ y))
    psi = [a * b / math.sqrt(v * w) - rho / 2 * (a * a / v + b * b / w) for a, b in zip(x, y, strict=True)]
    frame = pl.DataFrame({"x": [*x, None, 9.0], "y": [*y, 9.0, None]})
    found = frame.select(corr.realized_correlation_error("x", "y")).item()
    assert found == pytest.approx(math.sqrt(sum(one * one for one in psi)))


@pytest.mark.parametrize("n", [30, 400])
def test_a_correlation_is_within_its_band_however_volatility_moves(n: int):
    rng, sets = np.random.default_rng(13), 2_000
    volatility = np.exp(np.sin(np.linspace(0, 7, n)))
    x, other = rng.normal(0, volatility, (2, sets, n))
    columns = {"x": x.ravel(), "y": (0.7 * x + math.sqrt(1 - 0.7**2) * other).ravel(), "set": np.repeat(range(sets), n)}
    found = (
        pl.DataFrame(columns)
        .group_by("set")
        .agg(rho=corr.realized_correlation("x", "y"), error=corr.realized_correlation_error("x", "y"))
    )
    rho, error = pl.col("rho"), pl.col("error")
    away = (rho.arctanh() - math.atanh(0.7)).abs()
    covered, by_number = found.select(
        (away < 1.96 * error / (1 - rho**2)).mean().alias("z"), (away < 1.96 / math.sqrt(n - 3)).mean().alias("n")
    ).row(0)
    assert (0.87 if n == 30 else 0.93) < covered < 0.97
    assert by_number < 0.9, "what takes no notice of volatility is too narrow"


def test_bipower_covariance_ignores_a_common_jump():
    steps = np.diff(np.array(two_brownian(20_000, 0.5, seed=9)), axis=1)
    steps[:, 10_000] += 1.0
    frame = pl.DataFrame({"x": steps[0], "y": steps[1]})
    assert frame.select(corr.realized_covariance("x", "y")).item() == pytest.approx(1.5, abs=0.05)
    assert frame.select(corr.bipower_covariance("x", "y")).item() == pytest.approx(0.5, abs=0.05)


def test_bipower_covariance_equals_its_formula():
    x, y = [0.1, -0.2, 0.3, 0.1], [0.2, 0.1, 0.1, -0.3]
    u, v = [abs(a + b) for a, b in zip(x, y, strict=True)], [abs(a - b) for a, b in zip(x, y, strict=True)]
    expected = math.pi / 8 * sum(u[i] * u[i - 1] - v[i] * v[i - 1] for i in range(1, 4))
    frame = pl.DataFrame({"x": x, "y": y})
    assert frame.select(corr.bipower_covariance("x", "y")).item() == pytest.approx(expected)
    assert frame.select(corr.bipower_covariance("y", "x")).item() == pytest.approx(expected)


def test_empty_single_and_unmoving_prices_have_no_correlation():
    one = ticks("a", [0], [0.0])
    still = pl.concat([ticks("a", [0, 10, 20], [0.0] * 3), ticks("b", [0, 10, 20], [0.0] * 3)])
    for function, options in (
        (corr.hayashi_yoshida, {}),
        (corr.kernel_covariances, {}),
        (corr.lead_lag, {"lags_ns": [0, 1]}),
        (corr.realized_covariances, {"interval_ns": 10}),
        (corr.epps_curve, {"intervals_ns": [10]}),
    ):
        flat = function(still, "price", **options)
        assert flat["correlation"].null_count() == flat.height > 0
        for nothing in (one, one.clear()):
            result = function(nothing, "price", **options)
            assert result.is_empty()
            assert result.schema == flat.schema
            assert_frame_equal(function(nothing.lazy(), "price", **options).collect(), result)


def test_correlation_needs_contracts_and_intervals():
    nameless = ticks("a", [0, 1], [0.0, 0.1]).drop("contract_id")
    with pytest.raises(UsageError):
        corr.hayashi_yoshida(nameless, "price")
    with pytest.raises(UsageError):
        corr.realized_covariances(nameless, "price", interval_ns=10)
    with pytest.raises(UsageError):
        corr.epps_curve(ticks("a", [0], [0.0]), "price", intervals_ns=[])


def test_mid_and_trades_of_the_es_hour_equal_the_table_of_all_pairs(es_tape: Tape):
    mid = mids(es_tape.quotes).select("session_id", "seq", "recv_ns", contract_id=pl.lit("mid"), price="mid")
    trades = es_tape.trades.select("session_id", "seq", "recv_ns", contract_id=pl.lit("trade"), price="price")
    lags = [-10_000_000, 0]
    both = pl.concat([mid, trades])
    curve = corr.lead_lag(both, "price", lags_ns=lags)
    (x_ns, x), (y_ns, y) = (
        (last["recv_ns"].to_numpy(), np.diff(np.log(last["price"].to_numpy())))
        for last in (frame.unique("recv_ns", keep="last", maintain_order=True) for frame in (mid, trades))
    )
    for lag, covariance in zip(lags, curve["covariance"], strict=True):
        start = np.maximum(x_ns[:-1, None], y_ns[None, :-1] - lag)
        end = np.minimum(x_ns[1:, None], y_ns[None, 1:] - lag)
        assert covariance == pytest.approx(x @ (start < end) @ y, rel=1e-9, abs=0)
    assert curve["correlation"].to_list() == pytest.approx([0.259, 0.115], abs=1e-3)  # as docs/metrics.md has it
    assert corr.kernel_covariances(both, "price")["correlation"].item() == pytest.approx(0.87, abs=2e-3)
