"""Realized measures: what the returns of one period say about its variance, its tails and its asymmetry.

Log returns flow in, one number a measure flows out. Every measure is a polars expression of a column of returns, so
that `frame.group_by("session_id", "contract_id").agg(rv=realized_variance("log_return"))` works for any grouping,
lazily (`frames.by_group` does the same several times faster); `sampled_returns` makes the returns, `realized_measures`
the usual table of all of them.

A null return is a gap. It counts for nothing, and no product of neighbouring returns reaches across it. The variances
are those of the whole period, in squared log points; `annualized_volatility` turns one into a yearly figure.

There is no implied volatility here, nor can there be: it is backed out of the price of an option, and this feed has
none. What stands in for it has its own name: `spread_implied_variance` below, `quote_implied_volatility` in
`mdcapture.metrics.spread_models`, both from spread and order flow, and the range-based `mdcapture.metrics.ranges`.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import TYPE_CHECKING, Literal

import polars as pl

from mdcapture.errors import UsageError
from mdcapture.metrics import asof
from mdcapture.metrics.frames import (
    Column,
    alike,
    begins,
    by_group,
    column,
    each_group,
    key_columns,
    previous_tick,
    reading,
    with_mid,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mdcapture.metrics.asof import Gaps
    from mdcapture.metrics.frames import Frame

__all__ = [
    "annualized_volatility",
    "bipower_variance",
    "log_returns",
    "med_quarticity",
    "med_variance",
    "min_quarticity",
    "min_variance",
    "multipower_variation",
    "quad_power_quarticity",
    "realized_kurtosis",
    "realized_measures",
    "realized_quarticity",
    "realized_semivariance",
    "realized_skewness",
    "realized_variance",
    "realized_variance_error",
    "sampled_returns",
    "spread_implied_variance",
    "tripower_quarticity",
    "truncated_variance",
]


def log_returns(price: Column, *, within: Sequence[str] = (), leading_zero: bool = False) -> pl.Expr:
    """Log returns: `log p_i - log p_(i-1)`, null for the first, and where a price is missing or not positive.

    Args:
        price: Prices in order of time.
        within: Columns, such as `stretch`, whose changes end a return: the first return after one is null.
        leading_zero: Make nulls zero. R's highfrequency keeps such a zero for the first price; it then enters `n`.
    """
    value = column(price).cast(pl.Float64)
    change = pl.when((value > 0) & (value < math.inf)).then(value.log()).diff()
    if within:
        same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift()) for name in within)
        change = pl.when(same).then(change)
    return change.fill_null(0.0) if leading_zero else change


def sampled_returns(
    prices: Frame,
    price: str = "mid",
    *,
    interval_ns: int | None = None,
    clock: Column | None = None,
    step: float = 1.0,
    changes_only: bool = False,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Sample a price in tick, calendar or business time and take the log returns; none reaches across a gap.

    Tick time is the default: every row. Calendar time is the previous tick on a grid of whole multiples of
    `interval_ns`. Business time is the first row and each one at which a clock that rises with activity passes a whole
    multiple of `step`: the number of trades (`pl.int_range(pl.len())`), the lots traded (`pl.col("volume").cum_sum()`),
    the variance so far. Whatever comes later changes no sample.

    Griffin and Oomen (2008), "Sampling returns for realized variance calculations: tick time or transaction time?",
    Econometric Reviews; Oomen (2006), "Properties of realized variance under alternative sampling schemes", Journal of
    Business and Economic Statistics.

    Args:
        prices: Rows with `recv_ns` and the price.
        price: The price's column; `mid` is computed from `best_bid` and `best_ask` where it is not there.
        interval_ns: Calendar time: the distance of two points of the grid (ns).
        clock: Business time: an expression, computed within each group, that never falls.
        step: How far the clock runs between two samples, in its own unit.
        changes_only: Leave out samples that repeat the price before them (tick time in the sense of Griffin and Oomen).
        incidents: Gaps, see `mdcapture.metrics.frames.stretches`.

    Returns:
        Key columns, `recv_ns`, `stretch`, the price and `log_return`, in order; one row for each sample.

    Raises:
        UsageError: Both an interval and a clock are given, or a distance is not positive.
    """
    if interval_ns is not None and clock is not None:
        raise UsageError("sample by calendar time (interval_ns) or by business time (clock), not by both")
    if clock is not None and step <= 0:
        raise UsageError(f"a clock needs a positive step, not {step}: nothing was computed")
    rows = reading(with_mid(prices) if price == "mid" else prices, price, clock)
    if interval_ns is not None:
        rows, clock = previous_tick(rows, interval_ns, (price,), incidents=incidents), None

    def metric(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        ticks = own if "stretch" in own.columns else asof.with_stretch(own, gaps)
        if clock is not None:
            ticks = ticks.with_columns(_step=column(clock) // step).filter(begins("stretch", "_step"))
        samples = ticks.select(*key_columns(ticks), "stretch", "recv_ns", price)
        if changes_only:
            samples = samples.filter(begins("stretch", price))
        within = ["stretch"] if len(gaps.edge_ns) else []
        return samples.with_columns(log_return=log_returns(price, within=within))

    return alike(each_group(metric, rows, incidents=incidents), prices)


def annualized_volatility(variance: Column, *, periods_per_year: float) -> pl.Expr:
    """`sqrt(variance x periods per year)`.

    Args:
        variance: The variance of one period (squared log points).
        periods_per_year: How many such periods a year has: 252 for a variance a trading day, 252 x 23 for one an hour
            of a market that is open for 23. There is no default, since the answer depends on the market.
    """
    return (column(variance) * periods_per_year).sqrt()


def _total(terms: pl.Expr) -> pl.Expr:
    """The sum, null where there is no term to add."""
    return pl.when(terms.count() > 0).then(terms.sum())


def _lags(values: pl.Expr, count: int) -> list[pl.Expr]:
    return [values.shift(lag) for lag in range(count)]


def _complete(values: Sequence[pl.Expr], statistic: pl.Expr) -> pl.Expr:
    """The statistic where none of the values is missing: polars' horizontal functions pass over nulls."""
    return pl.when(pl.all_horizontal(value.is_not_null() for value in values)).then(statistic)


def _smallest_of_two(magnitude: pl.Expr) -> pl.Expr:
    pair = _lags(magnitude, 2)
    return _complete(pair, pl.min_horizontal(pair))


def _median_of_three(magnitude: pl.Expr) -> pl.Expr:
    first, middle, third = triple = _lags(magnitude, 3)
    return _complete(triple, middle.clip(pl.min_horizontal(first, third), pl.max_horizontal(first, third)))


def _mean_times(terms: pl.Expr, n: pl.Expr) -> pl.Expr:
    """The sum scaled up to `n` terms: the end effect of products of neighbours, and of gaps, taken out."""
    return terms.mean() * n


def _absolute_moment(power: float) -> float:
    """E|Z|^p of a standard normal Z."""
    return math.pow(2, power / 2) * math.gamma((power + 1) / 2) / math.sqrt(math.pi)


def realized_variance(returns: Column) -> pl.Expr:
    """Realized variance: the sum of squared returns; null without returns.

    Andersen and Bollerslev (1998), "Answering the skeptics: yes, standard volatility models do provide accurate
    forecasts", International Economic Review.

    Args:
        returns: Log returns over any sampling: ticks, calendar time, business time.
    """
    return _total(column(returns).pow(2))


def realized_variance_error(returns: Column) -> pl.Expr:
    """Standard error of realized variance without noise and jumps: `sqrt(2 RQ / n) = sqrt(2/3 sum r^4)`.

    Barndorff-Nielsen and Shephard (2002), see `realized_quarticity`.
    """
    return (_total(column(returns).pow(4)) * 2 / 3).sqrt()


def realized_semivariance(returns: Column, *, side: Literal["down", "up"] = "down") -> pl.Expr:
    """Realized semivariance: the sum of the squared negative (or positive) returns; the two add up to the variance.

    Barndorff-Nielsen, Kinnebrock and Shephard (2010), "Measuring downside risk: realised semivariance", in Volatility
    and Time Series Econometrics: Essays in Honor of Robert F. Engle.
    """
    r = column(returns)
    bounded = r.clip(upper_bound=0.0) if side == "down" else r.clip(lower_bound=0.0)
    return _total(bounded.pow(2))


def multipower_variation(
    returns: Column, powers: Sequence[float], *, corrected: bool = True, n: Column | None = None
) -> pl.Expr:
    """Realized multipower variation: scaled sum of products of powers of neighbouring absolute returns.

    With `P = sum p_j`: `n^(P/2 - 1) x prod mu_(p_j)^-1 x sum_i prod_j |r_(i-j)|^(p_j)`, an estimate of the integral of
    `sigma^P` over the period (of length 1), where `mu_p = E|Z|^p` of a standard normal.

    Barndorff-Nielsen and Shephard (2004), "Power and bipower variation with stochastic volatility and jumps", Journal
    of Financial Econometrics.

    Args:
        returns: Log returns.
        powers: One for each of the neighbours: (1, 1) is bipower variance, (4/3, 4/3, 4/3) tripower quarticity.
        corrected: Scale the sum up by n over the number of its terms, n - 1 for two neighbours without a gap.
        n: The number of returns in the scale, where it is not simply their number.
    """
    r = column(returns)
    size = r.count() if n is None else column(n)
    factors = [r.abs().pow(power).shift(lag) for lag, power in enumerate(powers)]
    terms = functools.reduce(operator.mul, factors)
    constant = 1 / math.prod(_absolute_moment(power) for power in powers)
    total = _mean_times(terms, size) if corrected else _total(terms)
    return constant * size.cast(pl.Float64).pow(sum(powers) / 2 - 1) * total


def bipower_variance(returns: Column, *, corrected: bool = False) -> pl.Expr:
    """Bipower variance, which jumps leave alone: `pi/2 sum |r_i| |r_(i-1)|`.

    Barndorff-Nielsen and Shephard (2004), "Power and bipower variation with stochastic volatility and jumps", Journal
    of Financial Econometrics.

    Args:
        returns: Log returns.
        corrected: Times n/(n - 1), as Huang and Tauchen (2005) have it.
    """
    return multipower_variation(returns, (1, 1), corrected=corrected)


def min_variance(returns: Column) -> pl.Expr:
    """MinRV: `pi/(pi - 2) x n/(n - 1) x sum min(|r_i|, |r_(i+1)|)^2`; robust to jumps, not to zero returns.

    Andersen, Dobrev and Schaumburg (2012), "Jump-robust volatility estimation using nearest neighbor truncation",
    Journal of Econometrics.
    """
    r = column(returns)
    return math.pi / (math.pi - 2) * _mean_times(_smallest_of_two(r.abs()).pow(2), r.count())


def med_variance(returns: Column) -> pl.Expr:
    """MedRV: `pi/(6 - 4 sqrt 3 + pi) x n/(n - 2) x sum med(|r_(i-1)|, |r_i|, |r_(i+1)|)^2`.

    Andersen, Dobrev and Schaumburg (2012), see `min_variance`; less upset by zero returns and close jumps.
    """
    r = column(returns)
    constant = math.pi / (6 - 4 * math.sqrt(3) + math.pi)
    return constant * _mean_times(_median_of_three(r.abs()).pow(2), r.count())


def truncated_variance(returns: Column, *, multiple: float = 4.0, exponent: float = 0.49) -> pl.Expr:
    """Truncated variance: the squared returns that are no larger than `multiple x sqrt(BPV) x n^-exponent`.

    Mancini (2009), "Non-parametric threshold estimation for models with stochastic diffusion coefficient and jumps",
    Scandinavian Journal of Statistics; the threshold scaled by bipower variance.

    Args:
        returns: Log returns.
        multiple: How many local standard deviations (up to the exponent) a return may have.
        exponent: Below 1/2, so that in the limit every diffusive return stays and every jump goes.
    """
    r = column(returns)
    threshold = multiple * bipower_variance(r).sqrt() * r.count().cast(pl.Float64).pow(-exponent)
    return _total(pl.when(r.abs() <= threshold).then(r.pow(2)))


def realized_quarticity(returns: Column, *, n: Column | None = None) -> pl.Expr:
    """Realized quarticity: `n/3 sum r^4`, an estimate of the integral of sigma^4 without jumps.

    Barndorff-Nielsen and Shephard (2002), "Econometric analysis of realized volatility and its use in estimating
    stochastic volatility models", Journal of the Royal Statistical Society B.

    Args:
        returns: Log returns.
        n: The number in the scale; R's highfrequency counts one more than it has returns.
    """
    return multipower_variation(returns, (4,), corrected=False, n=n)


def tripower_quarticity(returns: Column, *, corrected: bool = True) -> pl.Expr:
    """Tripower quarticity, robust to jumps: `n mu_(4/3)^-3 x n/(n - 2) x sum |r_i r_(i-1) r_(i-2)|^(4/3)`.

    Barndorff-Nielsen and Shephard (2006), "Econometrics of testing for jumps in financial economics using bipower
    variation", Journal of Financial Econometrics.

    Args:
        returns: Log returns.
        corrected: With the factor n/(n - 2).
    """
    return multipower_variation(returns, (4 / 3, 4 / 3, 4 / 3), corrected=corrected)


def quad_power_quarticity(returns: Column, *, corrected: bool = True) -> pl.Expr:
    """Quad-power quarticity: `n (pi/2)^2 x n/(n - 3) x sum |r_i r_(i-1) r_(i-2) r_(i-3)|`.

    Barndorff-Nielsen and Shephard (2004), see `bipower_variance`.

    Args:
        returns: Log returns.
        corrected: With the factor n/(n - 3).
    """
    return multipower_variation(returns, (1, 1, 1, 1), corrected=corrected)


def min_quarticity(returns: Column) -> pl.Expr:
    """MinRQ: `n pi/(3 pi - 8) x n/(n - 1) x sum min(|r_i|, |r_(i+1)|)^4`.

    Andersen, Dobrev and Schaumburg (2012), see `min_variance`.
    """
    r = column(returns)
    constant = math.pi / (3 * math.pi - 8)
    return constant * r.count() * _mean_times(_smallest_of_two(r.abs()).pow(4), r.count())


def med_quarticity(returns: Column) -> pl.Expr:
    """MedRQ: `n 3 pi/(9 pi + 72 - 52 sqrt 3) x n/(n - 2) x sum med(|r_(i-1)|, |r_i|, |r_(i+1)|)^4`.

    Andersen, Dobrev and Schaumburg (2012), see `min_variance`.
    """
    r = column(returns)
    constant = 3 * math.pi / (9 * math.pi + 72 - 52 * math.sqrt(3))
    return constant * r.count() * _mean_times(_median_of_three(r.abs()).pow(4), r.count())


def realized_skewness(returns: Column) -> pl.Expr:
    """Realized skewness: `sqrt(n) sum r^3 / RV^(3/2)`; null where nothing moved.

    Amaya, Christoffersen, Jacobs and Vasquez (2015), "Does realized skewness predict the cross-section of equity
    returns?", Journal of Financial Economics.
    """
    r = column(returns)
    variance = realized_variance(r)
    return pl.when(variance > 0).then(r.count().sqrt() * r.pow(3).sum() / variance.pow(1.5))


def realized_kurtosis(returns: Column) -> pl.Expr:
    """Realized kurtosis: `n sum r^4 / RV^2`, 3 for a constant variance without jumps; null where nothing moved.

    Amaya, Christoffersen, Jacobs and Vasquez (2015), see `realized_skewness`.
    """
    r = column(returns)
    variance = realized_variance(r)
    return pl.when(variance > 0).then(r.count() * r.pow(4).sum() / variance.pow(2))


def realized_measures(returns: Frame, log_return: str = "log_return") -> Frame:
    """Every measure of this module of each group's returns, one row a group.

    Args:
        returns: Rows with log returns, as `sampled_returns` makes them.
        log_return: The name of their column.

    Returns:
        Key columns, `n` (number of returns), and a column for each measure under its function's name; semivariances as
        `down_variance` and `up_variance`.
    """
    measures = {
        "n": pl.col(log_return).count().cast(pl.Int64),
        "realized_variance": realized_variance(log_return),
        "realized_variance_error": realized_variance_error(log_return),
        "down_variance": realized_semivariance(log_return),
        "up_variance": realized_semivariance(log_return, side="up"),
        "bipower_variance": bipower_variance(log_return),
        "min_variance": min_variance(log_return),
        "med_variance": med_variance(log_return),
        "truncated_variance": truncated_variance(log_return),
        "realized_quarticity": realized_quarticity(log_return),
        "tripower_quarticity": tripower_quarticity(log_return),
        "quad_power_quarticity": quad_power_quarticity(log_return),
        "min_quarticity": min_quarticity(log_return),
        "med_quarticity": med_quarticity(log_return),
        "realized_skewness": realized_skewness(log_return),
        "realized_kurtosis": realized_kurtosis(log_return),
    }
    return by_group(returns, **measures)


def spread_implied_variance(
    spread: Column, sign: Column, *, adverse_share: float = 1.0, sign_autocorrelation: Column | None = None
) -> pl.Expr:
    """The variance that quoted spread and order flow imply: `n (lambda S/2)^2 (1 - rho^2)`; it looks at no return.

    In the model of Madhavan, Richardson and Roomans a trade moves the value by `theta (D_t - rho D_(t-1))` beside the
    public news, and the half spread is `theta + phi`. What trades alone contribute to the variance is then
    `theta^2 (1 - rho^2)` a trade, and `theta` is at most the half spread. So this is the variance of a market in which
    order flow is the only news; what realized variance has beyond it is news, or the spread does not pay for it.

    Madhavan, Richardson and Roomans (1997), "Why do security prices change? A transaction-level analysis of NYSE
    stocks", Review of Financial Studies; the spread-volatility relation as in Wyart, Bouchaud, Kockelkoren, Potters
    and Vettorazzo (2008), "Relation between bid-ask spread, impact and volatility in order-driven markets",
    Quantitative Finance.

    Args:
        spread: Quoted spread over the mid, just before each trade (a fraction, not in bps).
        sign: +1 buy, -1 sell of each trade.
        adverse_share: lambda, the share of the half spread that pays for adverse selection, `theta / (theta + phi)`.
        sign_autocorrelation: rho; None: the first autocorrelation of the signs.
    """
    signs = column(sign).cast(pl.Float64)
    rho = pl.corr(signs, signs.shift()) if sign_autocorrelation is None else column(sign_autocorrelation)
    half = adverse_share * column(spread) / 2
    return _total(half.pow(2)) * (1 - rho.fill_nan(None).pow(2))
