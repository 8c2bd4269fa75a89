"""Power laws: published fits, samples of known law, and the figures of the powerlaw package."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from mdcapture.errors import UsageError
from mdcapture.metrics.tails import compare_power_law, fit_power_law, power_law, power_law_p_value

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Tape

few = settings(max_examples=40, deadline=None)


@pytest.mark.parametrize("sample", [(83, "flares", 1.0), (85, "cities", 0.001)])
@pytest.mark.parametrize("candidates", [None, 2000])
def test_power_laws_are_the_published_ones(
    shared: Path, expected: dict[int, Any], sample: tuple[int, str, float], candidates: int | None
):
    number, name, scale = sample
    entry = expected[number]
    fit = fit_power_law(np.loadtxt(shared / "reference" / f"{name}.txt") * scale, candidates=candidates)
    assert [fit.alpha, fit.xmin] == pytest.approx(entry["expected"], rel=entry["rtol"])


def test_power_law_of_flares_is_that_of_the_powerlaw_package(shared: Path):
    """Made by powerlaw 2.0.0: Fit(x) and Fit(x, discrete=True, estimate_discrete=False); alpha, xmin, D, sigma."""
    flares = np.loadtxt(shared / "reference" / "flares.txt")
    fit = fit_power_law(flares)
    assert (fit.alpha, fit.xmin, fit.ks, fit.alpha_se) == pytest.approx(
        (1.7884070781073644, 323.0, 0.008292713441903299, 0.019060114701111217), rel=1e-12
    )
    counts = fit_power_law(flares, discrete=True)
    assert (counts.alpha, counts.xmin) == pytest.approx((1.7874465078993966, 323.0), rel=1e-5)
    assert counts.ks == pytest.approx(0.008133165253912722, rel=1e-3)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("alpha", [1.8, 2.5, 3.4])
def test_simulated_exponents_are_recovered_within_their_standard_errors(alpha: float, discrete: bool):  # noqa: FBT001 - a case of the test
    """Over 60 samples, errors in units of the standard error have mean 0 and deviation 1 (three sigmas each)."""
    rng = np.random.default_rng(int(alpha * 10) + discrete)
    scores = []
    for _ in range(60):
        x = stats.zipf.rvs(alpha, size=1500, random_state=rng) if discrete else 2 * (1 + rng.pareto(alpha - 1, 1500))
        fit = fit_power_law(x, discrete=discrete, xmin=1.0 if discrete else 2.0)
        scores.append((fit.alpha - alpha) / fit.alpha_se)
    assert abs(np.mean(scores)) < 3 / math.sqrt(60)
    assert abs(np.std(scores) - 1) < 3 / math.sqrt(120)


@pytest.mark.parametrize("discrete", [False, True])
def test_cutoff_of_a_tail_on_a_flat_body_is_found(discrete: bool):  # noqa: FBT001 - a case of the test
    rng = np.random.default_rng(11)
    body, tail = rng.uniform(1, 50, 4000), 50 * (1 + rng.pareto(1.5, 4000))
    sample = np.concatenate([body, tail])
    fit = fit_power_law(np.round(sample) if discrete else sample, discrete=discrete)
    assert 45 < fit.xmin < 70
    assert abs(fit.alpha - 2.5) < 3.5 * fit.alpha_se


@few
@given(scale=st.floats(0.01, 100))
def test_scaling_the_sample_scales_the_cutoff_alone(scale: float):
    sample = 1 + np.random.default_rng(4).pareto(1.5, 200)
    fit, scaled = fit_power_law(sample), fit_power_law(scale * sample)
    assert (scaled.alpha, scaled.xmin, scaled.n_tail) == pytest.approx((fit.alpha, scale * fit.xmin, fit.n_tail))


def test_a_sample_without_a_tail_has_no_power_law():
    for values in ([], [3.0], [2.0, 2.0], [np.nan, -1.0, 0.0, np.inf]):
        fit = fit_power_law(values)
        assert math.isnan(fit.alpha)
        assert fit.n_tail == 0
    assert math.isnan(fit_power_law([1.0, 2.0], xmin=5.0).alpha)
    with pytest.raises(UsageError):
        fit_power_law([1.0, 2.0], xmin=0.0)


def test_power_law_of_each_group():
    rng = np.random.default_rng(8)
    sizes = stats.zipf.rvs(2.2, size=3000, random_state=rng)
    trades = pl.DataFrame({"contract_id": ["a", "b"] * 1500, "recv_ns": range(3000), "volume": sizes})
    fits = power_law(trades.lazy(), xmin=1.0).collect()
    alone = fit_power_law(sizes[::2], discrete=True, xmin=1.0)
    assert fits.row(0) == ("a", alone.alpha, alone.alpha_se, 1.0, alone.ks, 1500, 1500)
    assert power_law(trades.clear()).schema == fits.schema
    assert power_law(trades.head(1))["alpha"].to_list() == [None]


def test_sizes_of_the_es_hour_have_the_exponent_of_a_search_on_a_grid(es_tape: Tape):
    """The figures of docs/metrics.md."""
    sizes = es_tape.trades["volume"].to_list()
    fit = power_law(es_tape.trades).row(0, named=True)
    assert (fit["alpha"], fit["alpha_se"], fit["xmin"]) == pytest.approx((1.987, 0.019, 1.0), abs=5e-4)
    grid = np.arange(1.9, 2.1, 1e-4)
    likelihood = -grid * np.log(sizes).sum() - len(sizes) * np.log(special.zeta(grid))
    assert fit["alpha"] == pytest.approx(grid[likelihood.argmax()], abs=1e-4)
    law = fit_power_law(sizes, discrete=True)
    z = [compare_power_law(sizes, law, other, discrete=True).z for other in ("exponential", "lognormal")]
    assert z == pytest.approx([13.9, -4.8], abs=0.05)
    assert power_law_p_value(sizes, law, discrete=True, simulations=20, candidates=30) == 0


@pytest.mark.parametrize(
    ("discrete", "alternative", "log_ratio", "z"),
    [
        (False, "exponential", 1800.716614186962, 13.722220707340954),
        (False, "lognormal", -0.74914610872273, -0.8038456588076907),
        (True, "exponential", 1798.834083663898, 13.707015085480009),
        (True, "lognormal", -0.814464580888707, -0.8374311068160339),
    ],
)
def test_comparisons_of_flares_are_those_of_the_powerlaw_package(
    shared: Path,
    discrete: bool,  # noqa: FBT001 - a case of the test
    alternative: str,
    log_ratio: float,
    z: float,
):
    """Made by powerlaw 2.0.0: Fit(x, xmin=323).distribution_compare("power_law", alternative, normalized_ratio=…)."""
    flares = np.loadtxt(shared / "reference" / "flares.txt")
    fit = fit_power_law(flares, discrete=discrete, xmin=323)
    result = compare_power_law(flares, fit, alternative, discrete=discrete)
    assert (result.log_ratio, result.z) == pytest.approx((log_ratio, z), rel=2e-4)


def test_comparison_finds_the_law_that_made_the_sample():
    rng = np.random.default_rng(3)
    made = {
        "power law": 10 * (1 + rng.pareto(1.5, 3000)),
        "exponential": 10 + rng.exponential(20, 3000),
        "lognormal": np.exp(rng.normal(4, 0.8, 3000)),
    }
    fits = {name: fit_power_law(sample, xmin=10.0) for name, sample in made.items()}
    z = {
        (name, other): compare_power_law(sample, fits[name], other).z
        for name, sample in made.items()
        for other in ("exponential", "lognormal")
    }
    assert z["power law", "exponential"] > 5
    assert z["exponential", "exponential"] < -5
    assert z["lognormal", "lognormal"] < -5


def test_p_values_of_true_power_laws_are_spread_and_those_of_exponentials_small():
    rng = np.random.default_rng(6)
    options: dict[str, Any] = {"simulations": 40, "candidates": 40}
    true = []
    for seed in range(12):
        sample = 1 + rng.pareto(1.5, 400)
        fit = fit_power_law(sample, candidates=40)
        true.append(power_law_p_value(sample, fit, seed=seed, **options))
    assert 0.25 < np.mean(true) < 0.75
    lots = 1 + rng.geometric(0.05, 3000)
    fit = fit_power_law(lots, discrete=True, xmin=2.0)
    assert power_law_p_value(lots, fit, discrete=True, **options) == 0


def test_p_value_of_counts_draws_from_the_fitted_law():
    """Equal seeds give equal values, and a zeta sample is not far from its own law."""
    sample = stats.zipf.rvs(2.3, size=2000, random_state=np.random.default_rng(1))
    fit = fit_power_law(sample, discrete=True)
    values = [power_law_p_value(sample, fit, discrete=True, simulations=20, candidates=30, seed=3) for _ in range(2)]
    assert values[0] == values[1] > 0.1


def test_nothing_fitted_has_nothing_to_compare():
    nothing = fit_power_law([])
    assert math.isnan(compare_power_law([], nothing).log_ratio)
    assert math.isnan(power_law_p_value([], nothing))
    with pytest.raises(UsageError):
        compare_power_law([1.0, 2.0], fit_power_law([1.0, 2.0]), "normal")
