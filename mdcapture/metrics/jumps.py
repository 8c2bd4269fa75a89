"""Jump tests: was this period's variance made by a price that moves continuously, or by jumps too, and when?

Log returns flow in; statistics that are standard normal while there is no jump flow out, as polars expressions, one
number a period (Barndorff-Nielsen and Shephard; Aït-Sahalia and Jacod) or one a return (Lee and Mykland). Jumps make
all of them large. `jump_tests` is the usual table of all of them, `lee_mykland` marks the returns.

Noise and a coarse tick grid look like jumps, or hide them: use returns over minutes, or a long business-time step, not
ticks. A null return is a gap, as in `mdcapture.metrics.volatility`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from scipy.special import ndtr

from mdcapture.errors import UsageError
from mdcapture.metrics.frames import Column, by_group, column, each_group
from mdcapture.metrics.volatility import (
    bipower_variance,
    med_quarticity,
    med_variance,
    min_quarticity,
    min_variance,
    quad_power_quarticity,
    realized_variance,
    tripower_quarticity,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mdcapture.metrics.asof import Gaps
    from mdcapture.metrics.frames import Frame

__all__ = [
    "ait_sahalia_jacod_ratio",
    "ait_sahalia_jacod_statistic",
    "bns_statistic",
    "jump_tests",
    "lee_mykland",
    "lee_mykland_statistic",
    "lee_mykland_threshold",
    "normal_p_value",
]

Variance = Literal["bipower", "min", "med"]
Quarticity = Literal["tripower", "quad_power", "min", "med"]

_VARIANCES: dict[str, tuple[Callable[[pl.Expr], pl.Expr], float]] = {
    # the estimator, and theta: its asymptotic variance in units of the integrated quarticity over n
    "bipower": (partial(bipower_variance, corrected=True), math.pi**2 / 4 + math.pi - 3),
    "min": (min_variance, 3.81),
    "med": (med_variance, 2.96),
}
_QUARTICITIES: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "tripower": tripower_quarticity,
    "quad_power": quad_power_quarticity,
    "min": min_quarticity,
    "med": med_quarticity,
}
_MEAN_ABSOLUTE = math.sqrt(2 / math.pi)  # E|Z|, Lee and Mykland's c


def normal_p_value(statistic: Column, *, two_sided: bool = False) -> pl.Expr:
    """The probability of a standard normal beyond the statistic: above it, or on both sides of it."""
    z = column(statistic)
    tail = (-z.abs() if two_sided else -z).cast(pl.Float64)
    below = tail.map_batches(_normal_cdf, return_dtype=pl.Float64)
    return pl.when(z.is_not_null()).then(2 * below if two_sided else below)


def _normal_cdf(values: pl.Series) -> pl.Series:
    return pl.Series(ndtr(np.asarray(values, dtype=np.float64)))


def bns_statistic(
    returns: Column,
    *,
    variance: Variance = "bipower",
    quarticity: Quarticity = "tripower",
    form: Literal["linear", "log", "ratio"] = "ratio",
    floored: bool = True,
) -> pl.Expr:
    """Barndorff-Nielsen and Shephard's test of realized against jump-robust variance: standard normal without jumps.

    `linear`: `(RV - IV) / sqrt((theta - 2) IQ / n)`; `ratio`: `(1 - IV/RV) / sqrt((theta - 2) q / n)` and `log`:
    `(log RV - log IV) / sqrt((theta - 2) q / n)` with `q = IQ / IV^2`. Theta is 2.61 for bipower, 3.81 for MinRV and
    2.96 for MedRV. The ratio form has the best size in small samples.

    Barndorff-Nielsen and Shephard (2006), "Econometrics of testing for jumps in financial economics using bipower
    variation", Journal of Financial Econometrics; Huang and Tauchen (2005), "The relative contribution of jumps to
    total price variance", same journal; Andersen, Dobrev and Schaumburg (2012) for MinRV and MedRV.

    Args:
        returns: Log returns.
        variance: The jump-robust IV; bipower with its factor n/(n - 1).
        quarticity: The jump-robust IQ.
        form: Which of the three.
        floored: In the ratio and log forms, q at least 1, its smallest possible value.

    Returns:
        One number: null where nothing moved or returns are too few. Jumps make it positive: the test is one-sided, with
        `normal_p_value(z)`; R's highfrequency reports the two-sided value.

    Raises:
        UsageError: An unknown choice.
    """
    if variance not in _VARIANCES or quarticity not in _QUARTICITIES or form not in {"linear", "log", "ratio"}:
        raise UsageError(f"no jump test with variance {variance!r}, quarticity {quarticity!r}, form {form!r}")
    r = column(returns)
    estimator, theta = _VARIANCES[variance]
    total, robust, fourth = realized_variance(r), estimator(r), _QUARTICITIES[quarticity](r)
    if form == "linear":
        distance, spread = total - robust, fourth
    else:
        distance = 1 - robust / total if form == "ratio" else (total / robust).log()
        spread = fourth / robust.pow(2)
        spread = pl.max_horizontal(spread, 1.0) if floored else spread
    return pl.when((robust > 0) & (fourth > 0)).then(distance / ((theta - 2) * spread / r.count()).sqrt())


def lee_mykland_statistic(returns: Column, *, window: int = 270) -> pl.Expr:
    """Lee and Mykland's statistic of each return: `r_i / sigma_i`, its size in units of the volatility just before it.

    `sigma_i^2 = 1/(K - 2) sum_(j=i-K+2..i-1) |r_j| |r_(j-1)|`: nothing at or after the return enters.

    Lee and Mykland (2008), "Jumps in financial markets: a new nonparametric test and jump dynamics", Review of
    Financial Studies.

    Args:
        returns: Log returns of one series, in order.
        window: K; the authors advise 78 for returns over an hour, 156 over 15 minutes, 270 over 5 minutes.

    Returns:
        One number a return; null until the window is full and free of gaps. Without jumps it is normal with mean zero
        and standard deviation `sqrt(pi/2)`.

    Raises:
        UsageError: The window is below 3.
    """
    if window < 3:
        raise UsageError(f"the window needs at least 3 returns, not {window}: nothing was computed")
    r = column(returns)
    products = (r.abs() * r.abs().shift()).shift()
    variance = products.rolling_mean(window - 2)
    return pl.when(variance > 0).then(r / variance.sqrt())


def lee_mykland_threshold(n: Column, *, significance: float = 0.01) -> pl.Expr:
    """How large `|statistic|` may get among n returns without jumps: `C_n + S_n x (-log(-log(1 - significance)))`.

    The largest of n is Gumbel distributed, with `C_n = sqrt(2 log n)/c - (log pi + log log n)/(2 c sqrt(2 log n))`,
    `S_n = 1/(c sqrt(2 log n))`, `c = sqrt(2/pi)` (Lee and Mykland 2008, lemma 1).

    Args:
        n: The number of returns that are tested together.
        significance: The probability of any false jump among them.
    """
    log_n = column(n).cast(pl.Float64).log()
    root = (2 * log_n).sqrt()
    centre = root / _MEAN_ABSOLUTE - (math.log(math.pi) + log_n.log()) / (2 * _MEAN_ABSOLUTE * root)
    return pl.when(log_n > 0).then(centre - math.log(-math.log(1 - significance)) / (_MEAN_ABSOLUTE * root))


def lee_mykland(
    returns: Frame,
    log_return: str = "log_return",
    *,
    window: int = 270,
    significance: float = 0.01,
    n: int | None = None,
) -> Frame:
    """Mark the returns that are jumps: adds `jump_statistic`, and `jump`, true where it is beyond the threshold.

    Args:
        returns: Rows with log returns, as `mdcapture.metrics.volatility.sampled_returns` makes them.
        log_return: The name of their column.
        window: See `lee_mykland_statistic`; it does not reach into another session or contract.
        significance: The probability of any false jump in a group.
        n: The number of returns that are tested together; None: those of the group that have a statistic. The statistic
            is known at its time, the count only at the end: hand one in where that matters.
    """
    count = pl.col("jump_statistic").count() if n is None else pl.lit(n)
    beyond = pl.col("jump_statistic").abs() > lee_mykland_threshold(count, significance=significance).first()

    def mark(rows: pl.DataFrame, _: Gaps) -> pl.DataFrame:
        tested = rows.with_columns(jump_statistic=lee_mykland_statistic(log_return, window=window))
        return tested.with_columns(jump=beyond)

    return each_group(mark, returns)


def ait_sahalia_jacod_ratio(returns: Column, *, power: int = 4, step: int = 2) -> pl.Expr:
    """Aït-Sahalia and Jacod's ratio: the power variation of `step`-fold returns over that of the returns.

    `S = sum |r_i + ... + r_(i+k-1)|^p / sum |r_i|^p`, over returns that follow each other without overlap: 1 with
    jumps, `k^(p/2 - 1)` (2 by default) without. Blocks that a gap breaks are made up for.

    Aït-Sahalia and Jacod (2009), "Testing for jumps in a discretely observed process", Annals of Statistics.

    Args:
        returns: Log returns over equal intervals.
        power: p, above 3.
        step: k, at least 2.

    Raises:
        UsageError: Power or step are too small.
    """
    if power <= 3 or step < 2:
        raise UsageError(f"the ratio needs a power above 3 and a step of at least 2, not {power} and {step}")
    r = column(returns)
    starts = (pl.int_range(pl.len()) % step) == step - 1
    blocks = pl.when(starts).then(r.rolling_sum(step))
    fine, coarse = r.abs().pow(power), blocks.abs().pow(power)
    return pl.when(fine.sum() > 0).then(coarse.mean() / (step * fine.mean()))


def ait_sahalia_jacod_statistic(
    returns: Column, *, power: int = 4, step: int = 2, multiple: float = 4.0, exponent: float = 0.47
) -> pl.Expr:
    """Aït-Sahalia and Jacod's test that there is no jump: `(k^(p/2 - 1) - S) / sqrt(V)`, standard normal without jumps.

    `V = M m_p^2 / m_2p x A_2p / A_p^2`, where `A_q` is the sum of `|r|^q` over the returns no larger than a threshold,
    `m_q = E|Z|^q` and `M` (160/3 by default) a constant of p and k.

    Aït-Sahalia and Jacod (2009), see `ait_sahalia_jacod_ratio`.

    Args:
        returns: Log returns over equal intervals.
        power: p, an even number above 3.
        step: k, at least 2.
        multiple: The threshold is `multiple x sqrt(BPV) x n^-exponent`; the paper takes 3 to 5 standard deviations.
        exponent: Below 1/2; the paper's varpi is 0.47 to 0.49.

    Returns:
        One number, of the other sign than in the paper, so that jumps make it positive here too.

    Raises:
        UsageError: The power is not even, or power or step are too small.
    """
    ratio = ait_sahalia_jacod_ratio(returns, power=power, step=step)
    if power % 2:
        raise UsageError(f"the statistic is there for even powers, not {power}: nothing was computed")
    r = column(returns)
    threshold = multiple * bipower_variance(r).sqrt() * r.count().cast(pl.Float64).pow(-exponent)
    kept = pl.when(r.abs() <= threshold).then(r)
    scale = _ratio_constant(power, step) * _moment(power) ** 2 / _moment(2 * power)
    variance = scale * kept.pow(2 * power).sum() / kept.pow(power).sum().pow(2)
    return pl.when(variance > 0).then((step ** (power / 2 - 1) - ratio) / variance.sqrt())


def _moment(power: int) -> int:
    """E Z^p of a standard normal for even p: (p - 1)(p - 3)..."""
    return math.prod(range(1, power, 2))


def _ratio_constant(p: int, k: int) -> float:
    """M(p, k) of the paper, with `E U^p (U + sqrt(k - 1) V)^p` by the binomial theorem."""
    mixed = sum(
        math.comb(p, j) * (k - 1) ** ((p - j) / 2) * _moment(p + j) * _moment(p - j) for j in range(0, p + 1, 2)
    )
    plain = k ** (p - 2) * ((1 + k) * _moment(2 * p) + (k - 1) * _moment(p) ** 2)
    return float((plain - 2 * k ** (p / 2 - 1) * mixed) / _moment(p) ** 2)


def jump_tests(returns: Frame, log_return: str = "log_return", *, window: int = 270) -> Frame:
    """Every jump test of each group's returns with its default settings, one row a group.

    Args:
        returns: Rows with log returns over equal intervals.
        log_return: The name of their column.
        window: Lee and Mykland's K.

    Returns:
        Key columns; `n` (returns); `bns_statistic` and `bns_p_value`, with MedRV and MedRQ `med_statistic` and
        `med_p_value`; `aj_ratio`, `aj_statistic` and `aj_p_value`; `lm_tested` and `lm_jumps` (returns that have a
        Lee-Mykland statistic, and that are jumps by it); `jump_share`, how much of the realized variance MedRV leaves
        over (0 to 1).
    """
    r = pl.col(log_return)
    measures = {
        "n": r.count().cast(pl.Int64),
        "bns_statistic": bns_statistic(r),
        "med_statistic": bns_statistic(r, variance="med", quarticity="med"),
        "aj_ratio": ait_sahalia_jacod_ratio(r),
        "aj_statistic": ait_sahalia_jacod_statistic(r),
        "lm_tested": pl.col("jump_statistic").count().cast(pl.Int64),
        "lm_jumps": pl.col("jump").sum().cast(pl.Int64),
        "jump_share": (1 - med_variance(r) / realized_variance(r)).fill_nan(None).clip(lower_bound=0.0),
    }
    rows = lee_mykland(returns, log_return, window=window)
    tests = ("bns", "med", "aj")
    return by_group(rows, **measures).with_columns(
        normal_p_value(f"{t}_statistic").alias(f"{t}_p_value") for t in tests
    )
