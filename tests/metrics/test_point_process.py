"""Arrivals: simulations of known truth, and the likelihoods written out as the papers have them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from polars.testing import assert_frame_equal
from scipy import stats

from mdcapture.errors import UsageError
from mdcapture.metrics.distribution import aggressive_orders
from mdcapture.metrics.point_process import (
    AcdFit,
    HawkesFit,
    acd,
    fit_acd,
    fit_hawkes,
    hawkes,
    hawkes_residuals,
    intensity,
)

if TYPE_CHECKING:
    from pathlib import Path

Array = NDArray[np.float64]
HAWKES = (0.5, 1.2, 2.0)
ACD = (0.1, 0.15, 0.75)


def simulate_hawkes(rng: np.random.Generator, duration: float) -> Array:
    """As a branching process (Hawkes and Oakes 1974): immigrants, their children, the children of these, …"""
    mu, alpha, beta = HAWKES
    generation, events = rng.uniform(0, duration, rng.poisson(mu * duration)), []
    while len(generation):
        events.append(generation)
        children = rng.poisson(alpha / beta, len(generation))
        generation = np.repeat(generation, children) + rng.exponential(1 / beta, children.sum())
        generation = generation[generation < duration]
    return np.sort(np.concatenate(events))


def simulate_acd(rng: np.random.Generator, n: int, shape: float = 1.0) -> Array:
    """Gamma innovations of mean 1; shape 1 is the exponential."""
    omega, alpha, beta = ACD
    durations, expected = np.empty(n), omega / (1 - alpha - beta)
    for i, innovation in enumerate(rng.gamma(shape, 1 / shape, n)):
        durations[i] = expected * innovation
        expected = omega + alpha * durations[i] + beta * expected
    return durations


def slow_hawkes_likelihood(stretches: list[Array], mu: float, alpha: float, beta: float) -> float:
    """Event by event and pair by pair; the first event of a stretch opens its window."""
    total = 0.0
    for times in stretches:
        for i, time in enumerate(times):
            if i:
                total += math.log(mu + alpha * sum(math.exp(-beta * (time - before)) for before in times[:i]))
            total -= alpha / beta * (1 - math.exp(-beta * (times[-1] - time)))
        total -= mu * (times[-1] - times[0])
    return total


@pytest.fixture(scope="module")
def two_stretches() -> tuple[list[Array], Array, Array]:
    rng = np.random.default_rng(3)
    parts = [simulate_hawkes(rng, 150), 1000 + simulate_hawkes(rng, 100)]
    return parts, np.concatenate(parts), np.repeat([0, 4], [len(part) for part in parts])


def test_hawkes_fit_is_the_maximum_of_the_likelihood_written_out(two_stretches: tuple[list[Array], Array, Array]):
    parts, times, stretch = two_stretches
    fit = fit_hawkes(times, stretch=stretch)
    point = np.array([fit.mu_per_s, fit.alpha_per_s, fit.beta_per_s])
    best = slow_hawkes_likelihood(parts, *point)
    assert fit.log_likelihood == pytest.approx(best, rel=1e-9)
    for nudge in np.vstack([np.diag(0.02 * point), -np.diag(0.02 * point)]):
        assert slow_hawkes_likelihood(parts, *(point + nudge)) < best


def test_hawkes_standard_errors_are_those_of_the_observed_information(two_stretches: tuple[list[Array], Array, Array]):
    parts, times, stretch = two_stretches
    fit = fit_hawkes(times, stretch=stretch)
    point, steps = np.array([fit.mu_per_s, fit.alpha_per_s, fit.beta_per_s]), np.eye(3) * 1e-3
    information = [
        [
            -sum(
                sign_i * sign_j * slow_hawkes_likelihood(parts, *(point + sign_i * i + sign_j * j))
                for sign_i in (1, -1)
                for sign_j in (1, -1)
            )
            / 4e-6
            for j in steps
        ]
        for i in steps
    ]
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    assert (fit.mu_se, fit.alpha_se, fit.beta_se) == pytest.approx(tuple(errors), rel=0.01)


def test_simulated_hawkes_parameters_are_recovered_within_their_standard_errors():
    """Over 60 samples, errors in units of the standard error have mean 0 and deviation 1 (three sigmas each)."""
    rng = np.random.default_rng(5)
    fits = [fit_hawkes(simulate_hawkes(rng, 1500)) for _ in range(60)]
    mu, alpha, beta = HAWKES
    scores = np.array(
        [
            (
                (fit.mu_per_s - mu) / fit.mu_se,
                (fit.alpha_per_s - alpha) / fit.alpha_se,
                (fit.beta_per_s - beta) / fit.beta_se,
                (fit.branching_ratio - alpha / beta) / fit.branching_ratio_se,
            )
            for fit in fits
        ]
    )
    assert all(fit.converged for fit in fits)
    assert (np.abs(scores.mean(axis=0)) < 3 / math.sqrt(60)).all()
    assert (np.abs(scores.std(axis=0) - 1) < 3 / math.sqrt(120)).all()


def test_hawkes_residuals_are_exponential_where_the_model_is_right_and_not_where_it_is_wrong():
    times = simulate_hawkes(np.random.default_rng(9), 3000)
    fit = fit_hawkes(times)
    residuals = hawkes_residuals(fit, times)
    assert math.isnan(residuals[0])
    assert residuals[1:].sum() == pytest.approx(len(times) - 1, rel=1e-4)
    assert stats.kstest(residuals[1:], "expon").pvalue > 0.01
    poisson = HawkesFit(
        **{**{name: getattr(fit, name) for name in fit.__slots__}, "alpha_per_s": 0.0, "branching_ratio": 0.0}
    )
    assert (
        stats.kstest(hawkes_residuals(poisson, times)[1:] / (poisson.mu_per_s * np.diff(times).mean()), "expon").pvalue
        < 1e-6
    )


def test_poisson_arrivals_show_no_excitement():
    times = np.cumsum(np.random.default_rng(4).exponential(0.5, 5000))
    fit = fit_hawkes(times)
    assert fit.branching_ratio < 0.1
    assert fit.mu_per_s + fit.branching_ratio * 2 == pytest.approx(2.0, abs=0.15)


def test_hawkes_scales_with_the_unit_of_time():
    times = simulate_hawkes(np.random.default_rng(6), 800)
    fit, scaled = fit_hawkes(times), fit_hawkes(10 * times)
    assert scaled.branching_ratio == pytest.approx(fit.branching_ratio, rel=1e-4)
    assert 10 * scaled.beta_per_s == pytest.approx(fit.beta_per_s, rel=1e-4)
    assert 10 * scaled.mu_se == pytest.approx(fit.mu_se, rel=1e-3)


def slow_acd_likelihood(durations: Array, omega: float, alpha: float, beta: float) -> float:
    total, expected = 0.0, durations.mean()
    for i, duration in enumerate(durations):
        if i:
            expected = omega + alpha * durations[i - 1] + beta * expected
        total -= math.log(expected) + duration / expected
    return total


def test_acd_fit_is_the_maximum_of_the_likelihood_written_out():
    durations = 3 * simulate_acd(np.random.default_rng(2), 1500)
    fit = fit_acd(durations)
    point = np.array([fit.omega_s, fit.alpha, fit.beta])
    best = slow_acd_likelihood(durations, *point)
    assert fit.log_likelihood == pytest.approx(best, rel=1e-9)
    for nudge in np.vstack([np.diag(0.02 * point), -np.diag(0.02 * point)]):
        assert slow_acd_likelihood(durations, *(point + nudge)) < best
    assert fit.mean_s == pytest.approx(durations.mean(), rel=0.1)


@pytest.mark.parametrize("shape", [1.0, 0.5])
def test_simulated_acd_parameters_are_recovered_within_their_standard_errors(shape: float):
    """Whatever the innovations; omega and beta of finite samples are skewed, so their deviation is bounded loosely."""
    rng = np.random.default_rng(12)
    fits = [fit_acd(simulate_acd(rng, 4000, shape)) for _ in range(40)]
    scores = np.array(
        [
            [
                (fit.omega_s - ACD[0]) / fit.omega_se,
                (fit.alpha - ACD[1]) / fit.alpha_se,
                (fit.beta - ACD[2]) / fit.beta_se,
            ]
            for fit in fits
        ]
    )
    assert all(fit.converged for fit in fits)
    assert (np.abs(scores.mean(axis=0)) < 3 / math.sqrt(40)).all()
    assert (np.abs(scores.std(axis=0) - 1) < 3 / math.sqrt(80)).all()


def test_acd_forgets_across_a_gap():
    rng = np.random.default_rng(1)
    parts = [simulate_acd(rng, 400), simulate_acd(rng, 300)]
    together = fit_acd(np.concatenate(parts), stretch=np.repeat([0, 1], [400, 300]))
    mean = np.concatenate(parts).mean()
    total = 0.0
    for part in parts:
        expected = mean
        for i, duration in enumerate(part):
            expected = together.omega_s + together.alpha * part[i - 1] + together.beta * expected if i else mean
            total -= math.log(expected) + duration / expected
    assert together.log_likelihood == pytest.approx(total, rel=1e-9)


def test_fits_by_group_are_those_of_each_group_alone_in_any_order_of_rows():
    rng = np.random.default_rng(8)
    groups = {name: np.round(simulate_hawkes(rng, 300) * 1e9).astype(np.int64) for name in ("a", "b")}
    trades = pl.concat(pl.DataFrame({"contract_id": name, "recv_ns": times}) for name, times in groups.items())
    shuffled = trades.sample(fraction=1.0, shuffle=True, seed=1)
    fits, waits = hawkes(shuffled.lazy()).collect(), acd(shuffled)
    for i, times in enumerate(groups.values()):
        alone = fit_hawkes((times - times[0]) / 1e9)
        assert fits["beta_per_s"][i] == pytest.approx(alone.beta_per_s)
        assert fits["n"][i] == alone.n == len(times) - 1
        assert waits["alpha"][i] == pytest.approx(fit_acd(np.diff(times) / 1e9).alpha, rel=1e-3)
    gap = pl.DataFrame({"contract_id": ["a"], "from_ns": [groups["a"][50]], "to_ns": [groups["a"][51]]})
    split = hawkes(shuffled, incidents=gap)
    assert split["n"].to_list() == [fits["n"][0] - 1, fits["n"][1]]
    assert_frame_equal(split.tail(1), fits.tail(1))


def test_too_little_data_is_not_fitted():
    for times in ([], [1.0], [1.0, 2.0, 3.0], [5.0] * 20):
        fit = fit_hawkes(times)
        assert math.isnan(fit.mu_per_s)
        assert not fit.converged
    assert math.isnan(fit_acd([1.0, 2.0]).alpha)
    assert math.isnan(fit_acd(np.zeros(50)).alpha)
    trades = pl.DataFrame({"contract_id": ["a"], "recv_ns": [5], "exch_ns": pl.Series([None], dtype=pl.Int64)})
    for fit_groups, kind in ((hawkes, HawkesFit), (acd, AcdFit)):
        row = fit_groups(trades)
        assert row.columns == ["contract_id", *kind.__slots__]
        assert row.select(kind.__slots__[0], "n", "converged").row(0) == (None, 0, False)
        assert fit_groups(trades, clock="exch_ns")["n"].to_list() == [0]
        assert fit_groups(trades.clear()).schema == row.schema


@pytest.mark.parametrize("regular_s", [0.001, 1.0, 3600.0])
def test_what_comes_as_regularly_as_a_clock_has_no_standard_errors(regular_s: float):
    acd_fit = fit_acd(np.full(500, regular_s))
    assert acd_fit.mean_s == pytest.approx(regular_s)
    assert np.isnan(acd_fit.alpha_se)
    assert not acd_fit.converged
    hawkes_fit = fit_hawkes(np.arange(500) * int(regular_s * 1e9))
    assert hawkes_fit.branching_ratio < 0.01


def test_intensity_is_the_sum_of_its_definition_at_events_and_at_times():
    rng, tau_s = np.random.default_rng(8), 2.5
    times = 1_795_000_000_000_000_000 + np.sort(rng.integers(0, 60_000_000_000, 400))
    edges = pl.DataFrame({"from_ns": [times[120], times[300]], "to_ns": [times[121], times[301]]})
    stretch = np.searchsorted([121, 301], np.arange(400), side="right")
    asked = np.concatenate([times[[5, 130, 399]], times[[0]] - 1, times[[200, 399]] + 10**9])

    def summed(at_ns: int, own: int) -> float | None:
        before = times[(times <= at_ns) & (stretch == own)]
        return float(np.exp((before - at_ns) / (tau_s * 1e9)).sum() / tau_s) if len(before) else None

    events = pl.DataFrame({"recv_ns": times})
    each = intensity(events.lazy(), tau_s, incidents=edges).collect()
    assert each["recv_ns"].to_list() == times.tolist()
    last = np.searchsorted(times, times, side="right") - 1  # two events at one time: the second counts both
    assert each["intensity"].to_numpy()[last] == pytest.approx(
        [summed(at_ns, own) for at_ns, own in zip(times, stretch, strict=True)]
    )
    told = intensity(events, tau_s, at=asked, incidents=edges)
    own = [0, 0, 1, 1, 2, 2]
    assert told["recv_ns"].to_list() == sorted(asked)
    assert told["intensity"].to_list() == [
        pytest.approx(summed(at_ns, one)) for at_ns, one in zip(sorted(asked), own, strict=True)
    ]


def test_intensity_is_of_each_group_alone_and_forgets_within_a_week():
    trades = pl.DataFrame({"contract_id": ["b", "a", "a"], "recv_ns": [5, 5, 5]})
    week_ns = 7 * 86_400 * 10**9
    told = intensity(trades, 4.0, at=[4, 5, 5 + week_ns])
    assert told["contract_id"].to_list() == ["a"] * 3 + ["b"] * 3
    assert told["intensity"].to_list() == [None, 0.5, 0.0, None, 0.25, 0.0]
    assert intensity(trades.clear(), at=[5]).is_empty()
    assert intensity(trades.clear().drop("contract_id"), at=[5]).rows() == [(5, None)]


def test_wrong_arguments_are_said():
    with pytest.raises(UsageError):
        intensity(pl.DataFrame({"recv_ns": [1]}), 0.0)
    with pytest.raises(UsageError):
        fit_hawkes([2.0, 1.0])
    with pytest.raises(UsageError):
        fit_acd([1.0, -1.0])


def test_figures_of_the_es_hour_are_those_of_the_likelihood_written_out(shared: Path):
    """The figures of docs/metrics.md, of orders joined by the exchange's nanosecond; all pairs of events at once."""
    source = pl.read_parquet(shared / "reference" / "esh4_trades.parquet")
    prints = source.filter(pl.col("aggressor") != 0).select(
        recv_ns="ts_recv", exch_ns="ts_event", price="price", volume="size", side=(1 - pl.col("aggressor")) // 2
    )
    orders = aggressive_orders(prints)
    fit, waits = hawkes(orders).row(0, named=True), acd(orders).row(0, named=True)
    times = (orders["recv_ns"] - orders["recv_ns"][0]).to_numpy() / 1e9
    mu, alpha, beta = fit["mu_per_s"], fit["alpha_per_s"], fit["beta_per_s"]
    excited = np.tril(np.exp(-beta * np.subtract.outer(times, times).clip(0)), -1).sum(axis=1)
    spent = alpha / beta * (1 - np.exp(-beta * (times[-1] - times))).sum()
    likelihood = np.log(mu + alpha * excited[1:]).sum() - mu * times[-1] - spent
    assert fit["log_likelihood"] == pytest.approx(likelihood, rel=1e-9)
    assert (mu, fit["branching_ratio"]) == pytest.approx((0.395, 0.498), abs=5e-4)
    residuals = hawkes_residuals(fit_hawkes(times), times)[1:]
    assert residuals.std() == pytest.approx(1.28, abs=5e-3)
    assert stats.kstest(residuals, "expon").statistic == pytest.approx(0.083, abs=5e-4)
    assert waits["log_likelihood"] == pytest.approx(
        slow_acd_likelihood(np.diff(times), waits["omega_s"], waits["alpha"], waits["beta"]), rel=1e-9
    )
    assert (waits["alpha"], waits["beta"]) == pytest.approx((0.262, 0.649), abs=5e-4)
