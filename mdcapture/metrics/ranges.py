"""Range-based variance: what the high, the low, the open and the close of bars say about the variance of a bar.

Bars flow in, the variance of one bar (squared log points) flows out, as a polars expression. The first three have one
value a bar: average them over the bars that belong together, by `.mean()` in a group or `.rolling_mean(n)` along a
series, then scale by `annualized_volatility` with the number of bars a year. Yang-Zhang needs several bars at once.

They use four prices where a realized variance uses every return, so they are what is left when only bars are at hand;
with few trades in a bar the range is seen too small, and so is the variance.
"""

from __future__ import annotations

import math

import polars as pl

from mdcapture.metrics.frames import Column, column

__all__ = ["garman_klass", "parkinson", "rogers_satchell", "yang_zhang"]


def _log_ratio(numerator: Column, denominator: Column) -> pl.Expr:
    """`log(numerator / denominator)`, null unless both are prices above zero."""
    ratio = column(numerator).cast(pl.Float64) / column(denominator)
    known = (column(denominator) > 0) & (ratio > 0) & ratio.is_finite()
    return pl.when(known).then(ratio.log())


def parkinson(high: Column, low: Column) -> pl.Expr:
    """Parkinson's variance of each bar: `log(H/L)^2 / (4 log 2)`; the price has no drift.

    Parkinson (1980), "The extreme value method for estimating the variance of the rate of return", Journal of Business.
    """
    return _log_ratio(high, low).pow(2) / (4 * math.log(2))


def garman_klass(open_: Column, high: Column, low: Column, close: Column, *, overnight: bool = False) -> pl.Expr:
    """Garman and Klass's variance of each bar: `log(H/L)^2 / 2 - (2 log 2 - 1) log(C/O)^2`; no drift.

    The practical one of their estimators, without the small cross terms of the best.

    Garman and Klass (1980), "On the estimation of security price volatilities from historical data", Journal of
    Business.

    Args:
        open_: Opening price of each bar.
        high: Highest price.
        low: Lowest price.
        close: Closing price.
        overnight: Add the square of the log move since the close before, for bars with a closed market between: not of
            that paper, but R's TTR has it as `gk.yz`.
    """
    inside = _log_ratio(high, low).pow(2) / 2 - (2 * math.log(2) - 1) * _log_ratio(close, open_).pow(2)
    return inside + _log_ratio(open_, column(close).shift()).pow(2) if overnight else inside


def rogers_satchell(open_: Column, high: Column, low: Column, close: Column) -> pl.Expr:
    """Rogers and Satchell's variance of each bar: `log(H/C) log(H/O) + log(L/C) log(L/O)`; any drift.

    Rogers and Satchell (1991), "Estimating variance from high, low and closing prices", Annals of Applied Probability.
    """
    upper = _log_ratio(high, close) * _log_ratio(high, open_)
    return upper + _log_ratio(low, close) * _log_ratio(low, open_)


def yang_zhang(
    open_: Column, high: Column, low: Column, close: Column, *, window: int | None = None, alpha: float = 1.34
) -> pl.Expr:
    """Yang and Zhang's variance of a bar, gap before it included: any drift, and least variance of its kind.

    `V_o + k V_c + (1 - k) V_rs`, with the sample variances (divisor n - 1) of `log(O_i/C_(i-1))` and of `log(C_i/O_i)`,
    the mean Rogers-Satchell variance, and `k = (alpha - 1)/(alpha + (n + 1)/(n - 1))`.

    Yang and Zhang (2000), "Drift-independent volatility estimation based on high, low, open, and close prices",
    Journal of Business.

    Args:
        open_: Opening price of each bar.
        high: Highest price.
        low: Lowest price.
        close: Closing price.
        window: Number n of bars; a series of values results, the first ones null. None: one value, of all bars that
            have a bar before them.
        alpha: 1.34 is the authors' choice.
    """
    gap = _log_ratio(open_, column(close).shift())
    known = gap.is_not_null()
    body = pl.when(known).then(_log_ratio(close, open_))
    inside = pl.when(known).then(rogers_satchell(open_, high, low, close))
    if window is not None:
        weight = _yang_zhang_weight(pl.lit(float(window)), alpha)
        across = gap.rolling_var(window) + weight * body.rolling_var(window)
        return across + (1 - weight) * inside.rolling_mean(window)
    weight = _yang_zhang_weight(gap.count().cast(pl.Float64), alpha)
    return gap.var() + weight * body.var() + (1 - weight) * inside.mean()


def _yang_zhang_weight(n: pl.Expr, alpha: float) -> pl.Expr:
    return (alpha - 1) / (alpha + (n + 1) / (n - 1))
