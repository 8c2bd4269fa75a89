"""When trades come: their rate of late, self-exciting arrivals (Hawkes), autoregressive waiting times (ACD).

Times or durations of one group flow in, maximum likelihood estimates with standard errors flow out. A gap splits the
data into stretches that are taken as independent realisations of one process: nothing before a gap excites what comes
after it.

Prints of one aggressive order have one time, and a model of arrivals would see little else: join them first
(`distribution.aggressive_orders`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import polars as pl
from scipy import optimize

from mdcapture.errors import UsageError
from mdcapture.metrics.asof import Gaps, stretch_of
from mdcapture.metrics.frames import Frame, alike, each_group, groups, key_columns, order_columns, ordered, stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["AcdFit", "HawkesFit", "acd", "fit_acd", "fit_hawkes", "hawkes", "hawkes_residuals", "intensity"]

_NS_PER_S = 1e9

Fit = TypeVar("Fit", "HawkesFit", "AcdFit")


@dataclass(frozen=True, slots=True)
class HawkesFit:
    """A Hawkes process of intensity mu + sum over earlier events of alpha e^(-beta age), with standard errors.

    Attributes:
        mu_per_s: The intensity without excitement (events per second).
        alpha_per_s: What an event adds to the intensity.
        beta_per_s: How fast that decays.
        branching_ratio: alpha / beta, the mean number of events that one sets off; at 1 and above they never end.
        mu_se: Standard error of `mu_per_s`.
        alpha_se: Standard error of `alpha_per_s`.
        beta_se: Standard error of `beta_per_s`.
        branching_ratio_se: Standard error of `branching_ratio`.
        log_likelihood: At the estimates, of times in seconds.
        duration_s: The time that was observed.
        n: How many events the likelihood is of: the first of each stretch only opens it.
        converged: Whether the search ended at a maximum.
    """

    mu_per_s: float
    alpha_per_s: float
    beta_per_s: float
    branching_ratio: float
    mu_se: float
    alpha_se: float
    beta_se: float
    branching_ratio_se: float
    log_likelihood: float
    duration_s: float
    n: int
    converged: bool


@dataclass(frozen=True, slots=True)
class AcdFit:
    """An ACD(1,1) of durations x_i = psi_i e_i, psi_i = omega + alpha x_(i-1) + beta psi_(i-1), with standard errors.

    Attributes:
        omega_s: The constant (seconds).
        alpha: The weight of the last duration.
        beta: The weight of the last expectation.
        omega_se: Standard error of `omega_s`.
        alpha_se: Standard error of `alpha`.
        beta_se: Standard error of `beta`.
        mean_s: The mean duration that they imply, omega / (1 - alpha - beta) (seconds).
        log_likelihood: Exponential, at the estimates, of durations in seconds.
        n: How many durations.
        converged: Whether the search ended at a maximum.
    """

    omega_s: float
    alpha: float
    beta: float
    omega_se: float
    alpha_se: float
    beta_se: float
    mean_s: float
    log_likelihood: float
    n: int
    converged: bool


def fit_hawkes(times_s: ArrayLike, *, stretch: ArrayLike | None = None) -> HawkesFit:
    """Fit a Hawkes process with an exponential kernel.

    log L = sum ln(mu + alpha R_i) - mu T - alpha / beta sum (1 - e^(-beta (T - t_i))), R_i = sum_{j<i} e^(-beta (t_i -
    t_j)). Standard errors are those of the observed information.

    Hawkes (1971), "Spectra of Some Self-Exciting and Mutually Exciting Point Processes", Biometrika 58; Ozaki (1979),
    "Maximum Likelihood Estimation of Hawkes' Self-Exciting Point Processes", Annals of the Institute of Statistical
    Mathematics 31; in finance: Bacry, Mastromatteo and Muzy (2015), "Hawkes Processes in Finance", Market
    Microstructure and Liquidity 1.

    Args:
        times_s: Times of events (seconds since any origin near them), rising within each stretch.
        stretch: The number of the stretch of each event, as an array of equal shape, equal ones adjacent; by default
            all are of one. A stretch is observed from its first event to its last.

    Returns:
        The fit; NaN with fewer than three events after the first of their stretch, or where all are at one time.

    Raises:
        UsageError: Times fall within a stretch.
    """
    gaps_s, starts, left_s = _arrivals(times_s, stretch)
    events, duration_s = int((~starts).sum()), float(gaps_s.sum())
    if events < 3 or duration_s <= 0:
        return _unknown(HawkesFit, duration_s=duration_s, n=events)
    unit_s = duration_s / events
    waits, left = gaps_s / unit_s, left_s / unit_s

    def negative(logs: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient = _hawkes_likelihood(np.exp(logs), waits, starts, left)
        return -value, -gradient * np.exp(logs)

    # a fast or a slow kernel can each be a local maximum
    searches = [
        optimize.minimize(
            negative, np.log([0.5, 0.5 * beta, beta]), jac=True, method="L-BFGS-B", bounds=[(-25, 25)] * 3
        )
        for beta in (0.1, 10.0, 1000.0)
    ]
    best = min(searches, key=lambda search: float(search.fun))
    covariance = _inverse(_derivative(lambda logs: negative(logs)[1], best.x, np.full(3, 1e-4)))
    mu, alpha, beta = (float(value) for value in np.exp(best.x) / unit_s)
    mu_se, alpha_se, beta_se = (float(value) for value in np.exp(best.x) / unit_s * np.sqrt(np.diag(covariance)))
    ratio_variance = covariance[1, 1] + covariance[2, 2] - 2 * covariance[1, 2]
    return HawkesFit(
        mu_per_s=mu,
        alpha_per_s=alpha,
        beta_per_s=beta,
        branching_ratio=alpha / beta,
        mu_se=mu_se,
        alpha_se=alpha_se,
        beta_se=beta_se,
        branching_ratio_se=alpha / beta * float(np.sqrt(ratio_variance)),
        log_likelihood=-float(best.fun) - events * float(np.log(unit_s)),
        duration_s=duration_s,
        n=events,
        converged=bool(best.success) and bool(np.isfinite(covariance).all()),
    )


def hawkes_residuals(fit: HawkesFit, times_s: ArrayLike, *, stretch: ArrayLike | None = None) -> NDArray[np.float64]:
    """The integral of the intensity between events: independent and exponential of mean 1, if the model is right.

    NaN at the first event of a stretch. Ogata (1988), "Statistical Models for Earthquake Occurrences and Residual
    Analysis for Point Processes", Journal of the American Statistical Association 83.
    """
    gaps_s, starts, _ = _arrivals(times_s, stretch)
    decay = np.where(starts, 0.0, np.exp(-fit.beta_per_s * gaps_s))
    excited = np.append(0.0, 1 + _recurrence(decay, decay))[:-1]
    integral = fit.mu_per_s * gaps_s + fit.branching_ratio * excited * (1 - decay)
    return np.where(starts, np.nan, integral)


def fit_acd(durations_s: ArrayLike, *, stretch: ArrayLike | None = None) -> AcdFit:
    """Fit an ACD(1,1) by exponential quasi-maximum likelihood, -sum (ln psi_i + x_i / psi_i).

    It is consistent whatever the distribution of the e_i, and the standard errors (the sandwich of the observed
    information and the scores) hold for any. Each stretch begins with psi at the sample mean. Take the pattern of the
    day out first (`distribution.intraday_pattern`), or it will pass for memory.

    Engle and Russell (1998), "Autoregressive Conditional Duration: A New Model for Irregularly Spaced Transaction
    Data", Econometrica 66.

    Args:
        durations_s: Durations in their order (seconds, or multiples of their pattern).
        stretch: As for `fit_hawkes`.

    Returns:
        The fit; NaN with fewer than ten durations, or where all are zero.

    Raises:
        UsageError: A duration is negative or not finite.
    """
    x = np.asarray(durations_s, dtype=np.float64)
    if not (np.isfinite(x) & (x >= 0)).all():
        raise UsageError("durations must be finite and not negative")
    if len(x) < 10 or not x.any():
        return _unknown(AcdFit, n=len(x))
    unit_s, starts = float(x.mean()), _stretch_starts(len(x), stretch)
    x = x / unit_s

    def negative(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        expected, slopes = _acd_expectations(parameters, x, starts)
        scores = (1 - x / expected) / expected
        return float((np.log(expected) + x / expected).sum()), np.asarray(slopes @ scores)

    found = optimize.minimize(
        negative,
        np.array([0.1, 0.1, 0.8]),
        jac=True,
        method="SLSQP",
        bounds=[(1e-8, None), (0.0, 1.0), (0.0, 1.0)],
        constraints=optimize.LinearConstraint([[0.0, 1.0, 1.0]], ub=1 - 1e-6),
        tol=1e-10 * len(x),
    )
    expected, slopes = _acd_expectations(found.x, x, starts)
    scores = slopes * ((1 - x / expected) / expected)
    bread = _inverse(_derivative(lambda parameters: negative(parameters)[1], found.x, np.full(3, 1e-5)))
    errors = np.sqrt(np.diag(bread @ (scores @ scores.T) @ bread))
    omega, alpha, beta = (float(value) for value in found.x)
    return AcdFit(
        omega_s=omega * unit_s,
        alpha=alpha,
        beta=beta,
        omega_se=float(errors[0]) * unit_s,
        alpha_se=float(errors[1]),
        beta_se=float(errors[2]),
        mean_s=omega * unit_s / (1 - alpha - beta),
        log_likelihood=-float(found.fun) - len(x) * float(np.log(unit_s)),
        n=len(x),
        converged=bool(found.success) and bool(np.isfinite(errors).all()),
    )


def intensity(
    events: Frame,
    tau_s: float = 10.0,
    *,
    at: Sequence[int] | NDArray[np.int64] | pl.Series | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """How many events come in a second, of late: sum over events of e^(-age / tau) / tau.

    A kernel estimate of the rate with an exponential kernel of mean age tau, which looks at the past alone: Diggle
    (1985), "A Kernel Method for Smoothing Point Process Data", Journal of the Royal Statistical Society C 34, with the
    one-sided kernel. `live.flow.Intensity` is the same, event by event.

    Args:
        events: Rows with `recv_ns`, each of which counts: of depth, give one row a message.
        tau_s: The mean age of what counts (seconds); the half-life is 0.69 of it.
        at: Times (ns) at which to know it instead, each after the last event at or before it.
        incidents: Gaps: what came before one counts no more after it.

    Returns:
        The events in their order with `intensity` (events per second), each counted in its own; or with `at`, key
        columns, `recv_ns` (the time asked for, rising) and `intensity`, null before the first event since a gap.

    Raises:
        UsageError: `tau_s` is not positive.
    """
    if not tau_s > 0:
        raise UsageError(f"tau_s must be positive, not {tau_s}: nothing was computed")
    tau_ns = tau_s * _NS_PER_S
    moments = None if at is None else pl.Series("recv_ns", at, dtype=pl.Int64).sort()

    def metric(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        times = own["recv_ns"].to_numpy()
        stretch = stretch_of(times, gaps)
        since_ns = np.diff(times, prepend=times[:1])
        decay = np.where(_stretch_starts(len(times), stretch), 0.0, np.exp(-since_ns / tau_ns))
        rate = _recurrence(decay, np.full(len(times), 1 / tau_s))
        if moments is None:
            return own.with_columns(intensity=rate)
        asked = moments.to_numpy()
        last = np.searchsorted(times, asked, side="right")  # one more than its place: 0 is none
        known = (last > 0) & (np.append(-1, stretch)[last] == stretch_of(asked, gaps))
        value = np.append(0.0, rate)[last] * np.exp((np.append(0, times)[last] - asked) / tau_ns)
        return pl.DataFrame([moments, pl.Series("intensity", np.where(known, value, np.nan)).fill_nan(None)])

    return each_group(metric, events, incidents=incidents)


def hawkes(
    trades: Frame,
    *,
    clock: Literal["recv_ns", "exch_ns"] = "recv_ns",
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """`fit_hawkes` of the times of each group.

    Args:
        trades: Events with `recv_ns` (and `exch_ns`, if that is the clock).
        clock: The clock; events without `exch_ns` are left out by that one.
        incidents: Gaps, which split the data into stretches.

    Returns:
        Key columns and the fields of `HawkesFit`, one row a group that has rows.
    """

    def fit(group: pl.DataFrame) -> HawkesFit:
        rows = group.drop_nulls(clock).sort("stretch", clock)
        seconds = (rows[clock] - rows[clock].min()).cast(pl.Float64) / 1e9 if rows.height else rows[clock]
        return fit_hawkes(seconds.to_numpy(), stretch=rows["stretch"].to_numpy())

    return _fit_by_group(trades, fit, HawkesFit, clock, incidents)


def acd(
    trades: Frame,
    *,
    clock: Literal["recv_ns", "exch_ns"] = "recv_ns",
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """`fit_acd` of the durations between the events of each group; arguments as for `hawkes`.

    Returns:
        Key columns and the fields of `AcdFit`, one row a group that has rows.
    """

    def fit(group: pl.DataFrame) -> AcdFit:
        rows = group.drop_nulls(clock).sort("stretch", clock)
        waits = rows.select("stretch", duration=pl.col(clock).diff().over("stretch") / 1e9).drop_nulls()
        return fit_acd(waits["duration"].to_numpy(), stretch=waits["stretch"].to_numpy())

    return _fit_by_group(trades, fit, AcdFit, clock, incidents)


def _fit_by_group(
    trades: Frame,
    fit: Callable[[pl.DataFrame], Fit],
    kind: type[Fit],
    clock: str,
    incidents: pl.LazyFrame | pl.DataFrame | None,
) -> Frame:
    keys: list[str] = key_columns(trades)
    rows = ordered(stretches(trades.lazy(), incidents))
    columns = dict.fromkeys([*keys, *order_columns(trades), "stretch", clock])
    types = {"int": pl.Int64(), "bool": pl.Boolean()}
    schema = rows.select(keys).collect_schema()
    schema.update({field.name: types.get(str(field.type), pl.Float64()) for field in fields(kind)})
    fits = [{**key, **asdict(fit(group))} for key, group in groups(rows.select(*columns))]
    return alike(pl.LazyFrame(fits, schema=schema).with_columns(pl.col(pl.Float64).fill_nan(None)), trades)


def _unknown(kind: type[Fit], **known: float) -> Fit:
    """A fit of too little data."""
    figures: dict[str, Any] = {field.name: np.nan for field in fields(kind)}
    return kind(**figures | {"converged": False} | known)


def _stretch_starts(rows: int, stretch: ArrayLike | None) -> NDArray[np.bool_]:
    labels = np.zeros(rows, dtype=np.int64) if stretch is None else np.asarray(stretch)
    starts = np.ones(rows, dtype=np.bool_)
    starts[1:] = labels[1:] != labels[:-1]
    return starts


def _arrivals(
    times_s: ArrayLike, stretch: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """The time since the event before (zero at starts), the starts, and the time left in the stretch."""
    times = np.asarray(times_s, dtype=np.float64)
    starts = _stretch_starts(len(times), stretch)
    gaps = np.where(starts, 0.0, np.diff(times, prepend=times[:1]))
    if not (gaps >= 0).all():
        raise UsageError("times must rise within each stretch")
    bounds = np.append(np.flatnonzero(starts), len(times))
    return gaps, starts, np.repeat(times[bounds[1:] - 1], np.diff(bounds)) - times


def _recurrence(factor: NDArray[np.float64], input_: NDArray[np.float64]) -> NDArray[np.float64]:
    """x_i = factor_i x_(i-1) + input_i with x before the first zero, in log2(n) passes over the whole array.

    Each pass doubles how far back every x reaches, until the products of factors in [0, 1] are too small to matter.
    """
    reach, factor, x = 1, factor.copy(), input_.copy()
    while reach < len(x) and factor.max() > 1e-18:
        x[reach:] += factor[reach:] * x[:-reach]
        factor[reach:] *= factor[:-reach]
        factor[:reach] = 0.0
        reach *= 2
    return x


def _hawkes_likelihood(
    parameters: NDArray[np.float64], gaps: NDArray[np.float64], starts: NDArray[np.bool_], left: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """The log likelihood and its gradient in (mu, alpha, beta)."""
    mu, alpha, beta = parameters
    decay = np.where(starts, 0.0, np.exp(-beta * gaps))
    excited = _recurrence(decay, decay)
    aged = _recurrence(decay, gaps * excited)  # minus the derivative of `excited` by beta
    intensity = np.where(starts, 1.0, mu + alpha * excited)
    weight = np.where(starts, 0.0, 1 / intensity)
    remaining = np.exp(-beta * left)
    spent, duration = float((1 - remaining).sum()), float(gaps.sum())
    value = float(np.log(intensity).sum()) - mu * duration - alpha / beta * spent
    gradient = [  # sums of products, not dots: to wake the threads of BLAS a hundred times takes longer than the fit
        weight.sum() - duration,
        (weight * excited).sum() - spent / beta,
        -alpha * (weight * aged).sum() + alpha / beta**2 * spent - alpha / beta * (left * remaining).sum(),
    ]
    return value, np.array(gradient)


def _acd_expectations(
    parameters: NDArray[np.float64], x: NDArray[np.float64], starts: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """psi_i, and its derivatives by (omega, alpha, beta), of shape (3, n); the sample mean is 1."""
    omega, alpha, beta = parameters
    factor = np.where(starts, 0.0, beta)
    before = np.roll(x, 1)
    expected = _recurrence(factor, np.where(starts, 1.0, omega + alpha * before))
    inputs = (np.ones_like(x), before, np.roll(expected, 1))
    return expected, np.stack([_recurrence(factor, np.where(starts, 0.0, column)) for column in inputs])


def _derivative(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    point: NDArray[np.float64],
    steps: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The symmetric matrix of derivatives of a gradient, by central differences."""
    rows = [(function(point + step) - function(point - step)) / (2 * step.sum()) for step in np.diag(steps)]
    matrix = np.stack(rows)
    return np.asarray((matrix + matrix.T) / 2)


def _inverse(information: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of a positive definite matrix; NaN where it is not one, as at the edge of what is identified."""
    if not np.isfinite(information).all():
        return np.full_like(information, np.nan)
    curvature = np.linalg.eigvalsh(information)
    if curvature[0] <= curvature[-1] * len(curvature) * np.finfo(np.float64).eps:  # or only the rounding is above zero
        return np.full_like(information, np.nan)
    return np.asarray(np.linalg.inv(information), dtype=np.float64)
