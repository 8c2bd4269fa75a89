"""Noise-robust variance: published values of R's highfrequency, slow definitions, and simulations with known truth."""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from mdcapture.errors import UsageError
from mdcapture.metrics import noise
from mdcapture.metrics.frames import mids
from mdcapture.metrics.volatility import log_returns, realized_variance, sampled_returns

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Tape

ESTIMATORS = {
    "two_scale": noise.two_scale_variance,
    "parzen": noise.realized_kernel,
    "flat_top_tukey_hanning": partial(noise.realized_kernel, kernel="modified_tukey_hanning", flat_top=True),
    "pre_averaged": noise.pre_averaged_variance,
}


@pytest.fixture(scope="module")
def days(shared: Path) -> list[pl.Series]:
    """The tick returns of two days."""
    ticks = pl.read_csv(shared / "reference/sampleTData.csv.gz")
    day = (pl.col("DT_epoch_us") // 86_400_000_000).alias("day")
    returns = ticks.group_by(day, maintain_order=True).agg(r=log_returns("PRICE"))
    return [returns["r"][i] for i in range(2)]


@pytest.fixture(scope="module")
def five_minute_days(shared: Path) -> list[np.ndarray]:
    """highfrequency's five-minute returns: a zero, from the first price to the first point after the last tick."""
    step = 300_000_000
    ticks = pl.read_csv(shared / "reference/sampleTData.csv.gz")
    result = []
    for _, day in ticks.group_by(pl.col("DT_epoch_us") // 86_400_000_000, maintain_order=True):
        times, prices = day["DT_epoch_us"].to_numpy(), np.log(day["PRICE"].to_numpy())
        grid = np.arange(times[0] // step + 1, -(-times[-1] // step) + 1) * step
        path = np.concatenate([prices[:1], prices[np.searchsorted(times, grid, side="right") - 1]])
        result.append(np.diff(path, prepend=path[0]))
    return result


@pytest.mark.parametrize(("number", "kernel"), [(99, "parzen"), (101, "bartlett")])
def test_flat_top_kernels_equal_highfrequency(
    expected: dict[int, Any], days: list[pl.Series], number: int, kernel: str
):
    published = expected[number]
    ours = noise.realized_kernel(days[0], kernel, bandwidth=10, flat_top=True)
    assert ours == pytest.approx(published["expected"], rel=published["rtol"])


def test_rectangular_kernel_equals_highfrequency(expected: dict[int, Any], five_minute_days: list[np.ndarray]):
    published = expected[29]
    ours = [
        noise.realized_kernel(day, "rectangular", bandwidth=1, flat_top=True, degrees_of_freedom=True)
        for day in five_minute_days
    ]
    assert ours == pytest.approx(published["expected"], rel=published["rtol"])


def test_two_scale_variance_equals_highfrequency(expected: dict[int, Any], days: list[pl.Series]):
    published = expected[32]
    ours = noise.two_scale_variance(days[0], slow=300, counted="prices")
    assert ours == pytest.approx(published["expected"], rel=published["rtol"])


RETURNS = st.lists(st.floats(-0.1, 0.1).filter(lambda x: abs(x) > 1e-6), min_size=8, max_size=40).map(np.array)


def kernel_by_definition(r: np.ndarray, kernel: str, lags: int, *, flat_top: bool = False) -> float:
    weight = noise.KERNELS[kernel].weight
    total = sum(x * x for x in r)
    for h in range(1, lags + 1):
        x = (h - 1) / lags if flat_top else h / (lags + 1)
        total += 2 * float(weight(np.array([x]))[0]) * sum(r[i] * r[i - h] for i in range(h, len(r)))
    return total


def subsampled_by_definition(r: np.ndarray, step: int) -> float:
    path = np.concatenate([[0.0], np.cumsum(r)])
    return sum(sum(np.diff(path[start::step]) ** 2) for start in range(step)) / step


def two_scales_by_definition(r: np.ndarray, slow: int, fast: int, *, corrected: bool = True) -> float:
    n = len(r)
    ratio = ((n - slow + 1) / slow) / ((n - fast + 1) / fast)
    difference = subsampled_by_definition(r, slow) - ratio * subsampled_by_definition(r, fast)
    return difference / (1 - ratio) if corrected else difference


def pre_averaged_by_definition(r: np.ndarray, k: int) -> float:
    n = len(r)
    g = [min(j / k, 1 - j / k) for j in range(k + 1)]
    psi_1 = k * sum((g[j] - g[j - 1]) ** 2 for j in range(1, k + 1))
    psi_2 = sum(x * x for x in g) / k
    means = [sum(g[j] * r[i + j - 1] for j in range(1, k)) for i in range(n - k + 2)]
    smooth = n / (n - k + 2) / (psi_2 * k) * sum(x * x for x in means)
    return smooth - psi_1 / (psi_2 * k**2) * sum(x * x for x in r) / 2


@given(RETURNS, st.sampled_from(sorted(noise.KERNELS)), st.booleans(), st.integers(1, 5))
def test_kernel_equals_its_double_sum(r: np.ndarray, kernel: str, flat_top: bool, lags: int):  # noqa: FBT001
    expected = kernel_by_definition(r, kernel, lags, flat_top=flat_top)
    ours = noise.realized_kernel(r, kernel, bandwidth=lags, flat_top=flat_top)
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(RETURNS, st.integers(1, 8))
def test_subsampled_variance_equals_the_mean_of_its_subgrids(r: np.ndarray, step: int):
    assert noise.subsampled_variance(r, step) == pytest.approx(subsampled_by_definition(r, step), rel=1e-9, abs=1e-12)


@given(RETURNS, st.integers(2, 7), st.integers(1, 3))
def test_two_scales_equal_the_subgrids_one_by_one(r: np.ndarray, slow: int, fast: int):
    if fast >= slow:
        with pytest.raises(UsageError):
            noise.two_scale_variance(r, slow=slow, fast=fast)
        return
    for corrected in (True, False):
        expected = two_scales_by_definition(r, slow, fast, corrected=corrected)
        ours = noise.two_scale_variance(r, slow=slow, fast=fast, corrected=corrected)
        assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(RETURNS, st.integers(3, 8))
def test_pre_averaging_equals_its_weighted_means_one_by_one(r: np.ndarray, k: int):
    ours = noise.pre_averaged_variance(r, window=k, adjusted=False)
    assert ours == pytest.approx(pre_averaged_by_definition(r, k), rel=1e-9, abs=1e-10)


@given(RETURNS)
def test_parzen_kernel_is_never_negative(r: np.ndarray):
    assert all(noise.realized_kernel(r, bandwidth=lags) > -1e-12 for lags in range(8))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_scaling_the_returns_scales_the_variance_by_the_square(name: str):
    r = np.random.default_rng(1).normal(0, 0.01, 500)
    assert ESTIMATORS[name](r * 3) == pytest.approx(9 * ESTIMATORS[name](r), rel=1e-9)
    assert ESTIMATORS[name](-r) == pytest.approx(ESTIMATORS[name](r), rel=1e-9)


def noisy_days(days: int, n: int, *, omega: float, seed: int) -> np.ndarray:
    """Days of n returns: an efficient price of variance 1 a day, seen with noise of standard deviation omega."""
    rng = np.random.default_rng(seed)
    efficient = np.cumsum(rng.normal(0, n**-0.5, (days, n + 1)), axis=1)
    return np.diff(efficient + rng.normal(0, omega, efficient.shape), axis=1)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_noise_leaves_the_robust_estimators_unbiased_where_plain_variance_is_not(name: str):
    days = noisy_days(200, 4_000, omega=0.03, seed=2)
    estimates = np.array([ESTIMATORS[name](day) for day in days])
    assert abs(estimates.mean() - 1) < 4 * estimates.std() / math.sqrt(len(days)) + 0.01
    assert np.square(days).sum(axis=1).mean() == pytest.approx(1 + 2 * 4_000 * 0.03**2, rel=0.02)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_without_noise_the_robust_estimators_agree_with_plain_variance(name: str):
    days = noisy_days(200, 4_000, omega=0.0, seed=3)
    estimates = np.array([ESTIMATORS[name](day) for day in days])
    assert abs(estimates.mean() - 1) < 4 * estimates.std() / math.sqrt(len(days)) + 0.005


@pytest.mark.parametrize("name", ["parzen", "two_scale", "pre_averaged"])
def test_robust_estimators_come_closer_with_more_data(name: str):
    errors = [
        np.mean([(ESTIMATORS[name](day) - 1) ** 2 for day in noisy_days(60, n, omega=0.03, seed=4)])
        for n in (400, 12_800)
    ]
    assert errors[1] < errors[0] / 2


def test_noise_variance_is_recovered():
    day = pl.DataFrame({"r": noisy_days(1, 200_000, omega=0.01, seed=5)[0]})
    assert day.select(noise.noise_variance("r")).item() == pytest.approx(1e-4 + 0.5 / 200_000, rel=0.01)
    free = day.select(noise.noise_variance("r", method="autocovariance")).item()
    assert free == pytest.approx(1e-4, rel=0.02)
    assert noise.noise_to_signal(day["r"]) == pytest.approx(1e-4, rel=0.5)


@pytest.mark.parametrize("name", sorted(noise.KERNELS.keys() - {"rectangular"}))
def test_bandwidth_constants_follow_from_the_kernels(name: str):
    """Formulas of Barndorff-Nielsen and others (2008, 2009), with integrals and derivatives taken numerically."""
    kernel, h = noise.KERNELS[name], 1e-3

    def k(x: float) -> float:
        return float(kernel.weight(np.array([x]))[0])

    def integral(f: Callable[[float], float]) -> float:
        return quad(lambda x: f(x) ** 2, h, 1 - h, points=[0.5], limit=200)[0]

    k00 = quad(lambda x: k(x) ** 2, 0, 1)[0]
    k11 = integral(lambda x: (k(x + h) - k(x - h)) / (2 * h))
    k22 = integral(lambda x: (k(x + h) - 2 * k(x) + k(x - h)) / h**2)
    slopes = [(k(h) - k(0)) / h, (k(1) - k(1 - h)) / h]
    smooth = max(map(abs, slopes)) < 0.05
    assert kernel.flat_rate == (1 / 2 if smooth else 2 / 3)
    if smooth:
        scale = math.sqrt(k11 / k00 * (1 + math.sqrt(1 + 3 * k00 * k22 / k11**2)))
    else:
        scale = (2 * (slopes[0] ** 2 + slopes[1] ** 2) / k00) ** (1 / 3)
    assert kernel.flat_scale == pytest.approx(scale, rel=5e-3)
    curvature = 2 * (k(h) - k(0)) / h**2
    if kernel.positive_scale is not None:
        assert kernel.positive_scale == pytest.approx((curvature**2 / k00) ** 0.2, rel=5e-3)


def test_bandwidth_is_that_of_the_paper():
    r = np.ones(1_000)
    expected = math.ceil(3.5134 * 0.01 ** (2 / 5) * 1_000 ** (3 / 5))
    assert noise.kernel_bandwidth(r, xi_squared=0.01) == expected
    assert noise.kernel_bandwidth(r, "bartlett", flat_top=True, xi_squared=0.01) == math.ceil(2.2894 * 10 ** (2 / 3))


def test_jitter_replaces_the_ends_by_means():
    r = np.array([1.0, 2.0, 4.0, 8.0])  # the price: 0 1 3 7 15
    expected = np.square(np.diff([0.5, 3, 11])).sum()
    assert noise.realized_kernel(r, bandwidth=0, jitter=2) == pytest.approx(expected)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_missing_return_is_a_price_that_stands_still(name: str):
    r = np.random.default_rng(6).normal(0, 0.01, 300)
    holed = pl.Series([*r[:100], None, *r[100:200], float("nan"), *r[200:]], strict=False)
    assert ESTIMATORS[name](holed) == ESTIMATORS[name](r)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("returns", [[], [0.01], [0.0] * 50])
def test_too_little_to_go_by_is_nan_or_plain(name: str, returns: list[float]):
    value = ESTIMATORS[name](np.array(returns))
    assert math.isnan(value) or value == pytest.approx(sum(x * x for x in returns))


@pytest.mark.parametrize(
    "refused",
    [
        partial(noise.realized_kernel, kernel="gaussian"),
        partial(noise.realized_kernel, kernel="bartlett"),
        partial(noise.realized_kernel, kernel="rectangular", flat_top=True),
        partial(noise.realized_kernel, bandwidth=-1),
        partial(noise.realized_kernel, jitter=0),
        partial(noise.pre_averaged_variance, theta=0),
        partial(noise.pre_averaged_variance, window=2),
        partial(noise.two_scale_variance, slow=1),
        partial(noise.subsampled_variance, step=0),
    ],
)
def test_impossible_settings_are_refused(refused: Callable[[np.ndarray], float]):
    with pytest.raises(UsageError):
        refused(np.ones(10))


def test_measures_of_each_group_equal_those_of_its_returns():
    a, b = noisy_days(2, 500, omega=0.02, seed=8)
    frame = pl.DataFrame({"contract_id": ["a"] * 500 + ["b"] * 500, "log_return": [*a, *b]})
    table = noise.noise_measures(frame.lazy()).collect()
    assert table["contract_id"].to_list() == ["a", "b"]
    for row, r in zip(table.rows(named=True), (a, b), strict=True):
        assert row["n"] == 500
        assert row["realized_variance"] == pytest.approx(np.square(r).sum())
        assert row["realized_kernel"] == noise.realized_kernel(r)
        assert row["two_scale_variance"] == noise.two_scale_variance(r)
        assert row["pre_averaged_variance"] == noise.pre_averaged_variance(r)
        assert row["bandwidth"] == noise.kernel_bandwidth(r)
    empty = noise.noise_measures(frame.clear())
    assert empty.schema == table.schema
    assert empty.is_empty()


def test_signature_rises_towards_short_intervals_under_noise_and_is_flat_without():
    n, second_ns = 40_000, 10**9
    for omega, ratio in ((0.0, 1.0), (0.01, 1 + 2 * n * 0.01**2)):
        prices = np.exp(np.cumsum(noisy_days(1, n, omega=omega, seed=9)[0]))
        frame = pl.DataFrame({"recv_ns": np.arange(n) * second_ns, "price": prices})
        curve = noise.signature(frame.lazy(), "price", intervals_ns=[100 * second_ns, second_ns]).collect()
        assert curve["interval_ns"].to_list() == [second_ns, 100 * second_ns]
        assert curve["n"].to_list() == [n - 1, n // 100 - 1]
        fine, coarse = curve["realized_variance"]
        assert fine == pytest.approx(ratio, rel=0.1)
        assert coarse == pytest.approx(1 + (ratio - 1) / 100, rel=0.25)


def test_signature_needs_an_interval():
    with pytest.raises(UsageError):
        noise.signature(pl.DataFrame({"recv_ns": [1], "price": [1.0]}), "price", intervals_ns=[])


def test_every_tick_kernel_without_lags_is_realized_variance(days: list[pl.Series]):
    plain = days[0].to_frame("r").select(realized_variance("r")).item()
    assert noise.realized_kernel(days[0], bandwidth=0) == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize(
    ("table", "price", "figures"),
    [("quotes", "mid", (8.43e-7, 8.13e-7, 7.84e-7)), ("trades", "price", (8.64e-7, 8.15e-7, 8.28e-7))],
)
def test_figures_of_the_es_hour_equal_the_definitions(
    es_tape: Tape, table: str, price: str, figures: tuple[float, float, float]
):
    """Mid and trades, whose plain variances are far apart, agree once the noise is out. As docs/metrics.md has it."""
    returns = sampled_returns(getattr(es_tape, table), price)
    row = noise.noise_measures(returns).row(0, named=True)
    ours = row["two_scale_variance"], row["realized_kernel"], row["pre_averaged_variance"]
    assert ours == pytest.approx(figures, rel=2e-3)
    r = returns["log_return"].drop_nulls().to_numpy()
    assert ours[0] == pytest.approx(two_scales_by_definition(r, math.isqrt(len(r)), 1), rel=1e-9, abs=0)
    assert ours[1] == pytest.approx(kernel_by_definition(r, "parzen", row["bandwidth"]), rel=1e-9, abs=0)
    k = int(0.8 * math.sqrt(len(r)))
    unadjusted = noise.pre_averaged_variance(r, adjusted=False)
    assert unadjusted == pytest.approx(pre_averaged_by_definition(r, k), rel=1e-9, abs=0)


@pytest.mark.parametrize(
    ("table", "price", "figures"),
    [("quotes", "mid", [9.58e-7, 6.76e-7, 5.66e-7]), ("trades", "price", [13.55e-7, 8.30e-7, 7.11e-7])],
)
def test_signature_of_the_es_hour_equals_a_search_for_each_point(
    es_tape: Tape, table: str, price: str, figures: list[float]
):
    events = mids(es_tape.quotes) if table == "quotes" else es_tape.trades
    intervals = [seconds * 10**9 for seconds in (1, 15, 60)]
    ours = noise.signature(events, price, intervals_ns=intervals)["realized_variance"].to_list()
    assert ours == pytest.approx(figures, rel=1e-3)  # as docs/metrics.md has it
    times, prices = events["recv_ns"].to_list(), events[price].to_list()
    for interval, variance in zip(intervals, ours, strict=True):
        points = range(-(-times[0] // interval) * interval, times[-1] + 1, interval)
        path = [math.log(prices[bisect_right(times, point) - 1]) for point in points]
        assert variance == pytest.approx(sum((b - a) ** 2 for a, b in pairwise(path)), rel=1e-9, abs=0)
