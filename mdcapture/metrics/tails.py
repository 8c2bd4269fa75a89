"""Power-law tails: their exponent and cutoff, whether they are plausible at all, and what fits as well.

Samples flow in (sizes in lots, durations, returns), estimates with standard errors flow out. A fit always finds an
exponent; only `power_law_p_value` and `compare_power_law` say whether a power law is a description of the tail.

Clauset, Shalizi and Newman (2009), "Power-Law Distributions in Empirical Data", SIAM Review 51.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from scipy import optimize, special

from mdcapture.errors import UsageError
from mdcapture.metrics.frames import Column, Frame, alike, column, groups, key_columns, order_columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "PowerLaw",
    "TailComparison",
    "compare_power_law",
    "fit_power_law",
    "power_law",
    "power_law_p_value",
]


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """A power law fitted to the tail of a sample: density ~ x^-alpha from `xmin` on.

    Attributes:
        alpha: The exponent of the density. That of the survival function, Hill's, is `alpha` - 1.
        alpha_se: Its standard error, `xmin` taken as given.
        xmin: The lower cutoff of the tail.
        ks: The Kolmogorov-Smirnov distance of tail and fit.
        n_tail: How many values the tail has.
        n: How many positive values there are.
    """

    alpha: float
    alpha_se: float
    xmin: float
    ks: float
    n_tail: int
    n: int


def fit_power_law(
    values: ArrayLike,
    *,
    discrete: bool = False,
    xmin: float | None = None,
    candidates: int | None = 2000,
) -> PowerLaw:
    """Fit a power law by maximum likelihood, with the cutoff at which the fit is nearest to the sample.

    Continuous: alpha = 1 + n / sum ln(x / xmin), with error (alpha - 1) / sqrt(n). Discrete: alpha maximizes
    -n ln zeta(alpha, xmin) - alpha sum ln x, with the error of its curvature. For each candidate `xmin` the distance of
    the tail's distribution to the fit's is taken, and the nearest wins.

    Args:
        values: One-dimensional; what is not finite and positive is left out. Discrete values are whole numbers.
        discrete: Whether values are counts, such as lots.
        xmin: The cutoff, if it is known.
        candidates: At most so many of the distinct values, evenly spaced by rank, are tried as cutoff, since the time
            grows with their number times that of distinct values; None tries all.

    Returns:
        The fit; its figures are NaN where fewer than two distinct values are left.

    Raises:
        UsageError: `xmin` or `candidates` is not positive.
    """
    if (xmin is not None and not xmin > 0) or (candidates is not None and candidates <= 0):
        raise UsageError(f"xmin and candidates must be positive, not {xmin} and {candidates}")
    sample = _positive(values)
    distinct, counts = np.unique(sample, return_counts=True)
    starts = np.arange(len(distinct) - 1)
    if xmin is not None:
        keep = distinct >= xmin
        distinct, counts = distinct[keep], counts[keep]
        starts = starts[: min(1, max(len(distinct) - 1, 0))]
    elif candidates is not None and len(starts) > candidates:
        starts = np.unique(np.linspace(0, len(starts) - 1, candidates).astype(np.int64))
    fit_tail = _fit_discrete if discrete else _fit_continuous
    fits = (
        fit_tail(distinct[i:], counts[i:], float(distinct[i]) if xmin is None else xmin, len(sample)) for i in starts
    )
    nowhere = PowerLaw(np.nan, np.nan, np.nan, np.nan, 0, len(sample))
    return min(fits, key=lambda fit: fit.ks, default=nowhere)


def _fit_continuous(tail: NDArray[np.float64], counts: NDArray[np.int64], xmin: float, n: int) -> PowerLaw:
    logs = np.log(tail / xmin)
    n_tail = int(counts.sum())
    exponent = n_tail / float(counts @ logs)
    below = -np.expm1(-exponent * logs)
    seen = np.cumsum(counts) / n_tail
    distance = max(np.abs(below - seen).max(), np.abs(below - seen + counts / n_tail).max())
    return PowerLaw(1 + exponent, exponent / math.sqrt(n_tail), xmin, float(distance), n_tail, n)


def _fit_discrete(tail: NDArray[np.float64], counts: NDArray[np.int64], xmin: float, n: int) -> PowerLaw:
    n_tail = int(counts.sum())
    mean_log = float(counts @ np.log(tail)) / n_tail

    def log_zeta(alpha: float) -> float:
        return math.log(special.zeta(alpha, xmin))

    steepest = min(50.0, 600 / math.log(max(xmin, 2.0)))  # beyond, zeta is smaller than the least float
    found = optimize.minimize_scalar(
        lambda a: log_zeta(a) + a * mean_log, bounds=(1 + 1e-6, steepest), method="bounded"
    )
    alpha, step = float(found.x), 1e-3
    curvature = (log_zeta(alpha + step) - 2 * log_zeta(alpha) + log_zeta(alpha - step)) / step**2
    seen = np.cumsum(counts) / n_tail
    at, before = (1 - special.zeta(alpha, x) / special.zeta(alpha, xmin) for x in (tail + 1, tail))
    distance = max(np.abs(at - seen).max(), np.abs(before - seen + counts / n_tail).max())
    return PowerLaw(alpha, 1 / math.sqrt(n_tail * curvature), xmin, float(distance), n_tail, n)


def power_law(
    events: Frame,
    value: Column = "volume",
    *,
    discrete: bool = True,
    xmin: float | None = None,
    candidates: int | None = 2000,
) -> Frame:
    """`fit_power_law` of a value of each group, by default of trade sizes in lots.

    Returns:
        Key columns and the fields of `PowerLaw` as columns, one row a group that has rows.
    """
    keys: list[str] = key_columns(events)
    rows = events.lazy().with_columns(_value=column(value))
    schema = rows.select(keys).collect_schema()
    schema.update({name: pl.Float64() for name in ("alpha", "alpha_se", "xmin", "ks")})
    schema.update({"n_tail": pl.Int64(), "n": pl.Int64()})
    fits = (
        {**key, **asdict(fit_power_law(sizes, discrete=discrete, xmin=xmin, candidates=candidates))}
        for key, sizes in _values(rows.select(*keys, *order_columns(events), "_value"))
    )
    return alike(pl.LazyFrame(list(fits), schema=schema).with_columns(pl.col(pl.Float64).fill_nan(None)), events)


def _values(rows: pl.LazyFrame) -> Iterator[tuple[dict[str, object], NDArray[np.float64]]]:
    for key, group in groups(rows):
        yield key, group["_value"].drop_nulls().cast(pl.Float64).to_numpy()


@dataclass(frozen=True, slots=True)
class TailComparison:
    """A power law against another law of the same tail.

    Attributes:
        log_ratio: ln of the likelihoods' ratio: above zero the power law fits better.
        z: The same over its standard deviation.
        p_value: How likely so large a ratio of either sign is where both fit equally well.
    """

    log_ratio: float
    z: float
    p_value: float


def compare_power_law(
    values: ArrayLike,
    fit: PowerLaw,
    alternative: Literal["exponential", "lognormal"] = "lognormal",
    *,
    discrete: bool = False,
) -> TailComparison:
    """Whether a power law or another law, fitted to the same tail by maximum likelihood, describes it better.

    The alternatives are cut off at the fit's `xmin` too. Of discrete values the exponential is the geometric law, and
    the lognormal is rounded to whole numbers. Vuong (1989), "Likelihood Ratio Tests for Model Selection and Non-Nested
    Hypotheses", Econometrica 57. Where a lognormal imitates a power law (a far negative mean), no sample tells them
    apart.

    Returns:
        The comparison; NaN where the fit is, or where there is nothing to vary.

    Raises:
        UsageError: The alternative is unknown.
    """
    if alternative not in {"exponential", "lognormal"}:
        raise UsageError(f"the alternative must be exponential or lognormal, not {alternative!r}")
    if math.isnan(fit.alpha):
        return TailComparison(math.nan, math.nan, math.nan)
    sample = _positive(values)
    tail, counts = np.unique(sample[sample >= fit.xmin], return_counts=True)
    other = _exponential if alternative == "exponential" else _lognormal
    difference = _power_law_density(tail, fit, discrete=discrete) - other(tail, counts, fit.xmin, discrete=discrete)
    ratio, n = float((counts * difference).sum()), int(counts.sum())
    deviation = math.sqrt(float((counts * (difference - ratio / n) ** 2).sum()))
    z = ratio / deviation if deviation > 0 else math.nan
    return TailComparison(ratio, z, math.erfc(abs(z) / math.sqrt(2)))


def power_law_p_value(
    values: ArrayLike,
    fit: PowerLaw,
    *,
    discrete: bool = False,
    simulations: int = 200,
    candidates: int | None = 200,
    seed: int = 0,
) -> float:
    """How often a sample that does have the fitted tail lies as far from its own fit as this one does.

    Each simulated sample takes its tail from the fit and its body, below `xmin`, from the sample, and is fitted anew,
    cutoff included. The authors give a power law up below 0.1. A large value in a small sample says little.

    Args:
        values: The sample.
        fit: What `fit_power_law` made of it, with the same `discrete`.
        discrete: Whether values are counts.
        simulations: How many; the result's error is at most 1 / (2 sqrt(simulations)).
        candidates: As for `fit_power_law`.
        seed: Of the random numbers: equal seeds give equal results.

    Returns:
        The share of simulations with a larger `ks`; NaN where the fit is.
    """
    if math.isnan(fit.alpha):
        return math.nan
    sample, rng = _positive(values), np.random.default_rng(seed)
    body = sample[sample < fit.xmin]
    worse = 0
    for _ in range(simulations):
        in_tail = int(rng.binomial(len(sample), fit.n_tail / len(sample)))
        tail = _draw(fit, in_tail, rng, discrete=discrete)
        drawn = np.concatenate([tail, rng.choice(body, len(sample) - in_tail)]) if len(body) else tail
        worse += fit_power_law(drawn, discrete=discrete, candidates=candidates).ks >= fit.ks
    return worse / simulations


def _positive(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    return sample[np.isfinite(sample) & (sample > 0)]


def _draw(fit: PowerLaw, size: int, rng: np.random.Generator, *, discrete: bool) -> NDArray[np.float64]:
    """Values of the fitted tail: by its inverse, or for counts by a table of its survival, whose end is continued."""
    left = 1 - rng.random(size)
    if not discrete:
        return fit.xmin * left ** (-1 / (fit.alpha - 1))
    table = np.arange(fit.xmin, fit.xmin + 100_000)
    survival = special.zeta(fit.alpha, table) / special.zeta(fit.alpha, fit.xmin)
    place = np.searchsorted(-survival, -left, side="right") - 1
    beyond = np.floor(table[-1] * (left / survival[-1]) ** (-1 / (fit.alpha - 1)))
    return np.where(left < survival[-1], beyond, table[place])


def _power_law_density(x: NDArray[np.float64], fit: PowerLaw, *, discrete: bool) -> NDArray[np.float64]:
    """The log density (or probability) of each value."""
    if discrete:
        return np.asarray(-fit.alpha * np.log(x) - math.log(special.zeta(fit.alpha, fit.xmin)))
    return np.asarray(math.log((fit.alpha - 1) / fit.xmin) - fit.alpha * np.log(x / fit.xmin))


def _exponential(
    x: NDArray[np.float64], counts: NDArray[np.int64], xmin: float, *, discrete: bool
) -> NDArray[np.float64]:
    excess = float(np.average(x, weights=counts)) - xmin
    if discrete:
        rate = math.log1p(1 / excess)
        return math.log(-math.expm1(-rate)) - rate * (x - xmin)
    return -math.log(excess) - (x - xmin) / excess


def _lognormal(
    x: NDArray[np.float64], counts: NDArray[np.int64], xmin: float, *, discrete: bool
) -> NDArray[np.float64]:
    logs = np.log(x)

    def density(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        mean, deviation = float(parameters[0]), math.exp(float(parameters[1]))
        if discrete:
            above, below = (special.log_ndtr((mean - np.log(x + half)) / deviation) for half in (-0.5, 0.5))
            tail = special.log_ndtr((mean - math.log(xmin - 0.5)) / deviation)
            return np.asarray(above + np.log1p(-np.exp(below - above)) - tail)
        score = (logs - mean) / deviation
        tail = special.log_ndtr((mean - math.log(xmin)) / deviation)
        return np.asarray(-logs - math.log(deviation * math.sqrt(2 * math.pi)) - score**2 / 2 - tail)

    def negative(parameters: NDArray[np.float64]) -> float:
        return -float((counts * density(parameters)).sum())

    mean = float(np.average(logs, weights=counts))
    start = np.array([mean, math.log(np.average((logs - mean) ** 2, weights=counts)) / 2])
    found = optimize.minimize(negative, start, method="Nelder-Mead", tol=1e-6)
    return density(found.x)
