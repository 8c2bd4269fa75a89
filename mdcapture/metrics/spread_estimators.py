"""The spread without quotes: estimators from trade prices or from bars, as polars expressions.

Each takes columns and returns an expression of its own name: one number for a whole frame, for each group of a
`group_by`, or, with `window`, for each row from the rows up to it. All of them estimate a square, which noise can make
negative; `negative` says what becomes of it: `null`, `zero`, `absolute` (the root of its absolute value) or `signed`
(that with a minus, so that averages over many estimates are not biased).

Bars' prices go in as they are; the estimators take logarithms themselves, and the result is a fraction of the price
(0.01 is 1 %). Roll's takes prices as given: hand in logarithms for a fraction.
"""

from __future__ import annotations

import math
from typing import Literal

import polars as pl

from mdcapture.metrics.frames import Column, column

__all__ = ["Negative", "abdi_ranaldo", "corwin_schultz", "edge", "roll"]

Negative = Literal["null", "zero", "absolute", "signed"]


def _root(square: pl.Expr, negative: Negative) -> pl.Expr:
    square = square.fill_nan(None)
    if negative == "zero":
        return square.clip(lower_bound=0).sqrt()
    if negative == "absolute":
        return square.abs().sqrt()
    if negative == "signed":
        return square.sign() * square.abs().sqrt()
    return pl.when(square >= 0).then(square.sqrt())


def roll(
    price: Column,
    *,
    window: int | None = None,
    negative: Negative = "null",
    demean: bool = True,
) -> pl.Expr:
    """Roll's spread, 2 sqrt(-cov(dp_t, dp_{t-1})), with the divisor N - 1 of N pairs.

    Roll (1984), A simple implicit measure of the effective bid-ask spread in an efficient market, Journal of Finance.

    Args:
        price: Trade prices, or closes; logarithms of them for a spread as a fraction.
        window: Number of successive pairs; None: all of them, in one number.
        negative: What becomes of a positive covariance (see the module); mlfinlab takes `absolute`.
        demean: False takes the mean of the products, as the model's zero drift allows.

    Returns:
        An expression; null with fewer than two pairs.
    """
    change = column(price).diff()
    before = change.shift(1)
    products = pl.when(before.is_not_null()).then(change * before)
    if window is not None:
        covariance = pl.rolling_cov(change, before, window_size=window, min_samples=window)
        return _root(-4 * (covariance if demean else products.rolling_mean(window)), negative).alias("roll")
    covariance = pl.when(products.count() > 1).then(pl.cov(change, before))
    return _root(-4 * (covariance if demean else products.mean()), negative).alias("roll")


def corwin_schultz(
    high: Column = "high",
    low: Column = "low",
    close: Column | None = "close",
    *,
    negative: Literal["zero", "keep", "null"] = "zero",
) -> pl.Expr:
    """The mean of Corwin and Schultz's spreads from the ranges of two successive bars.

        beta = ln(H1/L1)^2 + ln(H2/L2)^2     gamma = ln(max(H) / min(L))^2
        alpha = (sqrt(2 beta) - sqrt(beta)) / (3 - 2 sqrt(2)) - sqrt(gamma / (3 - 2 sqrt(2)))
        S = 2 (e^alpha - 1) / (1 + e^alpha)

    Corwin and Schultz (2012), A simple way to estimate bid-ask spreads from daily high and low prices, Journal of
    Finance.

    Args:
        high: Highs of the bars.
        low: Lows of the bars.
        close: Closes, for the paper's overnight adjustment: where the close before lies outside of a bar's range, the
            range is moved to it. None: none is made.
        negative: What becomes of a negative spread of two bars: `zero`, as the paper has it, `keep` or `null`.

    Returns:
        An expression of the mean; null with fewer than two bars.
    """
    top, bottom = column(high).log(), column(low).log()
    top_before, bottom_before = top.shift(1), bottom.shift(1)
    if close is not None:
        close_before = column(close).log().shift(1)
        gap = (bottom - close_before).clip(lower_bound=0) + (top - close_before).clip(upper_bound=0)
        top, bottom = top - gap, bottom - gap
    k = 3 - 2 * math.sqrt(2)
    beta = (top - bottom) ** 2 + (top_before - bottom_before) ** 2
    widest = pl.when(top >= top_before).then(top).otherwise(top_before)
    lowest = pl.when(bottom <= bottom_before).then(bottom).otherwise(bottom_before)
    gamma_root = pl.when(top_before.is_not_null()).then(widest - lowest)
    alpha = (math.sqrt(2) - 1) * beta.sqrt() / k - gamma_root / math.sqrt(k)
    spread = 2 * (alpha.exp() - 1) / (1 + alpha.exp())
    if negative == "zero":
        spread = spread.clip(lower_bound=0)
    elif negative == "null":
        spread = pl.when(spread >= 0).then(spread)
    return spread.mean().alias("corwin_schultz")


def abdi_ranaldo(
    high: Column = "high",
    low: Column = "low",
    close: Column = "close",
    *,
    negative: Negative = "null",
    by_pair: bool = False,
) -> pl.Expr:
    """Abdi and Ranaldo's spread, S^2 = 4 E[(c_t - eta_t)(c_t - eta_{t+1})] with the mid-range eta = (ln H + ln L) / 2.

    Abdi and Ranaldo (2017), A simple estimation of bid-ask spreads from daily close, high, and low prices, Review of
    Financial Studies.

    Args:
        high: Highs of the bars.
        low: Lows of the bars.
        close: Closes of the bars.
        negative: What becomes of a negative square (see the module); the paper and `bidask` take `zero`.
        by_pair: The paper's two-day version: the root of each pair of bars, then the mean.

    Returns:
        An expression; null with fewer than two bars.
    """
    eta, last = (column(high).log() + column(low).log()) / 2, column(close).log()
    square = 4 * (last.shift(1) - eta.shift(1)) * (last.shift(1) - eta)
    spread = _root(square, negative).mean() if by_pair else _root(square.mean(), negative)
    return spread.alias("abdi_ranaldo")


def edge(
    open: Column = "open",  # noqa: A002  (the bar's column has this name)
    high: Column = "high",
    low: Column = "low",
    close: Column = "close",
    *,
    negative: Negative = "absolute",
) -> pl.Expr:
    """EDGE, the efficient estimator from open, high, low and close: four moments of returns weighted by GMM.

    Ardia, Guidotti and Kroencke (2024), Efficient estimation of bid-ask spreads from open, high, low, and close prices,
    Journal of Financial Economics. Two pairs of moments, from opens (o) and from closes of the bar before (c), are each
    corrected for bars in which the price did not move and for prices that are their bar's high or low:

        X1 = -4/po (eta - o)* (o - eta') - 4/pc (eta - c')* (c' - eta')
        X2 = -4/po (eta - o)* (o - c')   - 4/pc (o - c')* (c' - eta')

    with eta the mid-range, ' the bar before, * less the mean over bars that moved, po the probability that an open
    differs from its bar's high plus that it differs from the low, pc the same of the close before;
    S^2 = (V2 E1 + V1 E2) / (V1 + V2) with their means E and variances V.

    Args:
        open: Opens of the bars.
        high: Highs of the bars.
        low: Lows of the bars.
        close: Closes of the bars.
        negative: What becomes of a negative square (see the module); the authors' `bidask` takes `absolute`.

    Returns:
        An expression; null with fewer than three bars, or where nothing moved.
    """
    o, h, low_, c = (column(price).log() for price in (open, high, low, close))
    eta = (h + low_) / 2
    h1, l1, c1, eta1 = h.shift(1), low_.shift(1), c.shift(1), eta.shift(1)
    moved = ((h != low_) | (low_ != c1)).cast(pl.Float64)
    moved = pl.when(h.is_not_null() & low_.is_not_null() & c1.is_not_null()).then(moved)
    p_open = (moved * (o != h)).mean() + (moved * (o != low_)).mean()
    p_close = (moved * (c1 != h1)).mean() + (moved * (c1 != l1)).mean()

    def centred(change: pl.Expr) -> pl.Expr:
        paired = pl.when(moved.is_not_null()).then(change)
        return paired - moved * paired.mean() / moved.mean()

    open_half, close_half = centred(eta - o), centred(eta - c1)
    x1 = -4 / p_open * open_half * (o - eta1) - 4 / p_close * close_half * (c1 - eta1)
    x2 = -4 / p_open * open_half * (o - c1) - 4 / p_close * centred(o - c1) * (c1 - eta1)
    e1, e2, v1, v2 = x1.mean(), x2.mean(), x1.var(ddof=0), x2.var(ddof=0)
    square = pl.when(v1 + v2 > 0).then((v2 * e1 + v1 * e2) / (v1 + v2)).otherwise((e1 + e2) / 2)
    determined = (moved.sum() >= 2) & (p_open > 0) & (p_close > 0)
    return _root(pl.when(determined).then(square), negative).alias("edge")
