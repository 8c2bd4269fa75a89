"""Least squares against numpy's, and its covariance against plain sums."""

from __future__ import annotations

import numpy as np
import pytest

from mdcapture.errors import UsageError
from mdcapture.metrics.regression import lagged, least_squares, long_run_covariance


def test_least_squares_is_numpys_with_textbook_errors():
    random = np.random.default_rng(0)
    x = np.column_stack([np.ones(200), random.normal(size=(200, 2))])
    y = x @ [1.0, 2.0, 3.0] + random.normal(size=200)
    fit = least_squares((y, x), hac_lags=0)
    beta = np.linalg.lstsq(x, y)[0]
    residuals = y - x @ beta
    bread = np.linalg.inv(x.T @ x)
    assert fit.coefficients == pytest.approx(beta)
    assert fit.covariance == pytest.approx(bread @ (x.T * residuals**2 @ x) @ bread)
    assert fit.r_squared == pytest.approx(np.corrcoef(y, y - residuals)[0, 1] ** 2)


def test_the_long_run_covariance_is_the_double_sum():
    moments = np.random.default_rng(0).normal(size=(12, 2))
    expected = sum(
        (1 - abs(s - t) / 4) * np.outer(moments[s], moments[t]) for s in range(12) for t in range(12) if abs(s - t) < 4
    )
    assert long_run_covariance(moments, 3) == pytest.approx(expected / 12)


def test_collinear_regressors_are_not_determined():
    x = np.column_stack([np.arange(9.0), 2 * np.arange(9.0)])
    assert np.isnan(least_squares((np.arange(9.0), x)).coefficients).all()


@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e200])
def test_what_no_float_holds_is_not_determined(scale: float):
    x = np.arange(50.0) * scale
    fit = least_squares((x, np.stack([np.ones(50), x]).T))
    assert np.isnan(fit.coefficients).all()
    assert np.isnan(fit.standard_errors).all()


def test_a_perfect_fit_has_no_error():
    x = np.arange(50.0)
    fit = least_squares((2 * x + 1, np.stack([np.ones(50), x]).T))
    np.testing.assert_allclose(fit.coefficients, [1, 2])
    np.testing.assert_allclose(fit.standard_errors, 0, atol=1e-9)
    assert fit.r_squared == 1


def test_rows_with_a_missing_value_are_left_out():
    x = np.column_stack([np.ones(50), np.arange(50.0)])
    y = np.sin(np.arange(50.0))
    holed = y.copy()
    holed[[3, 30]] = np.nan
    kept = np.delete(np.arange(50), [3, 30])
    assert least_squares((holed, x)).coefficients == pytest.approx(least_squares((y[kept], x[kept])).coefficients)


def test_equations_of_different_length_are_a_usage_error():
    with pytest.raises(UsageError, match="same number of rows"):
        least_squares((np.ones(3), np.ones(4)))


def test_a_lag_does_not_reach_into_another_stretch():
    stretch = np.array([0, 0, 1, 1])
    assert lagged(np.arange(4.0), 1, stretch).tolist() == pytest.approx([np.nan, 0, np.nan, 2], nan_ok=True)
    assert np.isnan(lagged(np.arange(1.0), 5)).all()
