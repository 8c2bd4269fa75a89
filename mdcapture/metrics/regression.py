"""Least squares with standard errors that hold for dependent and heteroskedastic residuals.

Arrays flow in, a `Fit` flows out. Rows with a missing value (NaN) in any equation are left out; what can't be
determined (too few rows, collinear regressors) is NaN, never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.linalg import block_diag

from mdcapture.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Array", "Fit", "lagged", "least_squares", "long_run_covariance"]

Array: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients, those of a second equation after those of the first, with their joint covariance.

    Attributes:
        coefficients: (k,).
        covariance: (k, k), of the coefficients, after Newey and West.
        r_squared: Of the first equation, about zero where it has no constant.
        n: Rows used.
        residuals: (n, number of equations).
    """

    coefficients: Array
    covariance: Array
    r_squared: float
    n: int
    residuals: Array

    @property
    def standard_errors(self) -> Array:
        """(k,), the roots of the covariance's diagonal."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), 0.0)))  # rounding may leave less than nothing


def lagged(values: Array, lag: int, stretch: NDArray[np.int64] | None = None) -> Array:
    """The values `lag` rows before, NaN where there are none or a gap lies between."""
    if lag == 0:
        return values
    before = np.full(len(values), np.nan)
    before[lag:] = values[:-lag]
    if stretch is not None:
        before[lag:][stretch[lag:] != stretch[:-lag]] = np.nan
    return before


def long_run_covariance(moments: Array, lags: int) -> Array:
    """Newey and West's estimate: G0 + sum_l (1 - l / (lags + 1)) (G_l + G_l').

    Newey and West (1987), "A simple, positive semi-definite, heteroskedasticity and autocorrelation consistent
    covariance matrix", Econometrica.

    Args:
        moments: (n, k), of mean zero.
        lags: 0 gives White's estimate.
    """
    n = len(moments)
    total: Array = moments.T @ moments
    for lag in range(1, min(lags, n - 1) + 1):
        product = moments[lag:].T @ moments[:-lag]
        total = total + (1 - lag / (lags + 1)) * (product + product.T)
    return total / n


def least_squares(*equations: tuple[ArrayLike, ArrayLike], hac_lags: int | None = None) -> Fit:
    """Least squares of one or several equations over the same rows, with the joint covariance of all coefficients.

    Args:
        equations: Pairs of y (n,) and X (n, k); a constant is a column of ones that the caller adds. Long series are
            fastest with each column of X in one piece: `np.stack(columns).T`.
        hac_lags: Lags of the Newey-West covariance; None: floor(4 (n / 100)^(2/9)); 0: White's.

    What the data do not determine (collinear columns, fewer rows than columns, values whose squares no float holds) is
    NaN.

    Raises:
        UsageError: Shapes that don't fit together.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return _least_squares(*_whole_rows(equations), hac_lags)


def _least_squares(ys: list[Array], xs: list[Array], hac_lags: int | None) -> Fit:
    n, widths = len(ys[0]), [x.shape[1] for x in xs]
    if n <= max(widths):
        return _undetermined(n, sum(widths), len(ys))
    inverses = [_inverse_gram(x) for x in xs]
    betas = [inverse @ (x.T @ y) for inverse, x, y in zip(inverses, xs, ys, strict=True)]
    residuals = [y - x @ beta for y, x, beta in zip(ys, xs, betas, strict=True)]
    scores = np.concatenate([x.T * residual for x, residual in zip(xs, residuals, strict=True)]).T
    lags = int(4 * (n / 100) ** (2 / 9)) if hac_lags is None else hac_lags
    bread = block_diag(*inverses)
    covariance = n * bread @ long_run_covariance(scores, lags) @ bread
    return Fit(np.concatenate(betas), covariance, _r_squared(ys[0], xs[0], residuals[0]), n, np.stack(residuals).T)


def _whole_rows(equations: Sequence[tuple[ArrayLike, ArrayLike]]) -> tuple[list[Array], list[Array]]:
    """Each y (n,) and X (n, k) with the rows in which no value of any equation is missing."""
    ys = [np.asarray(y, np.float64) for y, _ in equations]
    xs = [np.asarray(x, np.float64) for _, x in equations]
    xs = [x[:, None] if x.ndim == 1 else x for x in xs]
    if len({len(column) for column in [*ys, *xs]}) != 1:
        raise UsageError("the equations of one fit need the same number of rows: nothing was computed")
    sums = [*ys, *(x @ np.ones(x.shape[1]) for x in xs)]  # what is missing in a row shows in its sum
    rows = _as_slice(np.flatnonzero(np.logical_and.reduce([np.isfinite(total) for total in sums])))
    return [y[rows] for y in ys], [x.T[:, rows].T for x in xs]


def _as_slice(places: NDArray[np.intp]) -> NDArray[np.intp] | slice:
    """Places without a hole as a slice, which needs no copy: lags cost only the ends."""
    holes = not len(places) or places[-1] - places[0] + 1 > len(places)
    return places if holes else slice(places[0], places[-1] + 1)


def _r_squared(y: Array, x: Array, residuals: Array) -> float:
    """About the mean where X has a constant, about zero otherwise."""
    constant = bool((np.ptp(x, axis=0) == 0).any())
    centred = y - y.mean() if constant else y
    total = float(centred @ centred)
    return 1 - float(residuals @ residuals) / total if total > 0 else float("nan")


def _inverse_gram(x: Array) -> Array:
    """(X'X)^-1, by way of columns of unit length; NaN where the columns are collinear."""
    gram = x.T @ x
    lengths = np.sqrt(np.diag(gram))
    if not ((lengths > 0) & np.isfinite(lengths)).all():
        return np.full_like(gram, np.nan)
    scale = np.outer(lengths, lengths)
    unit = gram / scale
    if np.linalg.matrix_rank(unit, hermitian=True) < len(unit):
        return np.full_like(gram, np.nan)
    inverse: Array = np.linalg.inv(unit) / scale
    return inverse


def _undetermined(n: int, k: int, equations: int) -> Fit:
    nan = float("nan")
    return Fit(np.full(k, nan), np.full((k, k), nan), nan, n, np.full((n, equations), nan))
