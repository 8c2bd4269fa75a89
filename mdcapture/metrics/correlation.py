"""Correlation between contracts that do not trade at the same times.

Prices of two or more contracts flow in, one row for each pair of contracts of a session flows out. Two ways lead there:
Hayashi and Yoshida's estimator takes every tick as it is, `synchronized_returns` puts the contracts on a common grid
first (previous tick), where the covariances are polars expressions. Sampled finely, the second loses correlation, since
the contracts do not move in the same instant: `epps_curve` shows it, and `lead_lag` shows who moves first. Noise makes
both too small; `kernel_covariances` takes it out.

`contract_x` is the contract whose name comes first in the order of text, `contract_y` the other one. No return reaches
across a gap.
"""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdcapture.errors import UsageError
from mdcapture.metrics.frames import Column, Frame, alike, column, groups
from mdcapture.metrics.noise import kernel_bandwidth, realized_kernel
from mdcapture.metrics.volatility import realized_variance, sampled_returns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "Path",
    "bipower_covariance",
    "epps_curve",
    "hayashi_yoshida",
    "hayashi_yoshida_covariance",
    "kernel_covariances",
    "lead_lag",
    "lead_lag_ratio",
    "realized_correlation",
    "realized_correlation_error",
    "realized_covariance",
    "realized_covariances",
    "refreshed",
    "synchronized_returns",
]

Incidents = pl.LazyFrame | pl.DataFrame | None


class Path(NamedTuple):
    """The log price of one contract.

    Attributes:
        time_ns: Strictly increasing times (ns).
        log_price: The log price at each; moves across gaps are taken out of it.
    """

    time_ns: NDArray[np.int64]
    log_price: NDArray[np.float64]

    @property
    def variance(self) -> float:
        """Realized variance of every tick."""
        return float(np.square(np.diff(self.log_price)).sum())


def realized_covariance(x: Column, y: Column) -> pl.Expr:
    """Realized covariance: the sum of products of returns over the same intervals; null where none has both.

    Barndorff-Nielsen and Shephard (2004), "Econometric analysis of realized covariation: high frequency based
    covariance, regression, and correlation in financial economics", Econometrica.
    """
    products = column(x) * column(y)
    return pl.when(products.count() > 0).then(products.sum())


def realized_correlation(x: Column, y: Column) -> pl.Expr:
    """Realized correlation: covariance over the root of the variances, over the intervals that have both returns."""
    both = column(x).is_not_null() & column(y).is_not_null()
    variances = (realized_variance(pl.when(both).then(column(side))) for side in (x, y))
    product = math.prod(variances, start=pl.lit(1.0))
    return pl.when(product > 0).then(realized_covariance(x, y) / product.sqrt())


def realized_correlation_error(x: Column, y: Column) -> pl.Expr:
    """Standard error of realized correlation without noise and jumps, where returns do not depend on those before.

    By the delta method the error of rho is that of the sum of `psi = xy / sqrt(Vx Vy) - rho/2 (x^2 / Vx + y^2 / Vy)`, V
    the realized variances: `sqrt(sum psi^2)`, for any path of the volatilities. The products of neighbours that the
    paper takes off are left out: without them it is never negative, and too wide at most, where the correlation or the
    ratio of the volatilities changes. An interval on the scale of z, `tanh(atanh rho ± 1.96 se / (1 - rho^2))`, stays
    between -1 and 1 and is true of fewer returns than `rho ± 1.96 se`.

    Barndorff-Nielsen and Shephard (2004), see `realized_covariance`; z is of Fisher (1921), "On the 'probable error' of
    a coefficient of correlation deduced from a small sample", Metron.
    """
    both = column(x).is_not_null() & column(y).is_not_null()
    x, y = (pl.when(both).then(column(side)) for side in (x, y))
    variance_x, variance_y = realized_variance(x), realized_variance(y)
    product = variance_x * variance_y
    shares = x.pow(2) / variance_x + y.pow(2) / variance_y
    psi = x * y / product.sqrt() - realized_correlation(x, y) / 2 * shares
    return pl.when(product > 0).then(psi.pow(2).sum().sqrt())


def bipower_covariance(x: Column, y: Column) -> pl.Expr:
    """Bipower covariance, robust to jumps: `pi/8 sum (|u_i||u_(i-1)| - |v_i||v_(i-1)|)`, `u = x + y`, `v = x - y`.

    Barndorff-Nielsen and Shephard (2004), "Measuring the impact of jumps in multivariate price processes using bipower
    covariation", Nuffield College working paper.
    """
    total, difference = (column(x) + column(y)).abs(), (column(x) - column(y)).abs()
    terms = total * total.shift() - difference * difference.shift()
    return pl.when(terms.count() > 0).then(math.pi / 8 * terms.sum())


def synchronized_returns(prices: Frame, price: str = "mid", *, interval_ns: int, incidents: Incidents = None) -> Frame:
    """The returns of each pair of contracts on a common grid, previous tick.

    Args:
        prices: Rows with `contract_id`, `recv_ns` and the price.
        price: The price's column; `mid` is computed from `best_bid` and `best_ask` where it is not there.
        interval_ns: The distance of two points of the grid (ns).
        incidents: Gaps, see `mdcapture.metrics.frames.stretches`.

    Returns:
        `session_id` if given, `contract_x`, `contract_y`, `recv_ns`, `return_x`, `return_y`, in order.

    Raises:
        UsageError: There is no `contract_id`, or the interval is not positive.
    """
    session: list[str] = _session_columns(prices)
    sampled: pl.LazyFrame = sampled_returns(prices.lazy(), price, interval_ns=interval_ns, incidents=incidents)
    x, y = (
        sampled.select(*session, "recv_ns", **{f"contract_{side}": "contract_id", f"return_{side}": "log_return"})
        for side in "xy"
    )
    pairs = x.join(y, on=[*session, "recv_ns"], nulls_equal=True).filter(pl.col("contract_x") < pl.col("contract_y"))
    names = [*session, "contract_x", "contract_y", "recv_ns"]
    return alike(pairs.select(*names, "return_x", "return_y").sort(names), prices)


def realized_covariances(prices: Frame, price: str = "mid", *, interval_ns: int, incidents: Incidents = None) -> Frame:
    """Realized covariance and correlation of each pair of contracts, sampled at the previous tick.

    Args:
        prices: See `synchronized_returns`.
        price: See `synchronized_returns`.
        interval_ns: The distance of two points of the grid (ns).
        incidents: Gaps.

    Returns:
        `session_id` if given, `contract_x`, `contract_y`, `n` (intervals with both returns), `variance_x`,
        `variance_y`, `covariance`, `bipower_covariance` (squared log points), `correlation`, `correlation_se` (see
        `realized_correlation_error`).
    """
    returns = synchronized_returns(prices.lazy(), price, interval_ns=interval_ns, incidents=incidents)
    both = pl.col("return_x").is_not_null() & pl.col("return_y").is_not_null()
    table = returns.group_by([*_session_columns(prices), "contract_x", "contract_y"], maintain_order=True).agg(
        n=both.sum().cast(pl.Int64),
        variance_x=realized_variance(pl.when(both).then("return_x")),
        variance_y=realized_variance(pl.when(both).then("return_y")),
        covariance=realized_covariance("return_x", "return_y"),
        bipower_covariance=bipower_covariance("return_x", "return_y"),
        correlation=realized_correlation("return_x", "return_y"),
        correlation_se=realized_correlation_error("return_x", "return_y"),
    )
    return alike(table, prices)


def epps_curve(prices: Frame, price: str = "mid", *, intervals_ns: Sequence[int], incidents: Incidents = None) -> Frame:
    """Correlation of each pair of contracts by the interval of sampling: it falls towards short ones.

    Epps (1979), "Comovements in stock prices in the very short run", Journal of the American Statistical Association.

    Args:
        prices: See `synchronized_returns`.
        price: See `synchronized_returns`.
        intervals_ns: The distances of the grids' points (ns).
        incidents: Gaps.

    Returns:
        The columns of `realized_covariances` with `interval_ns` before `n`.

    Raises:
        UsageError: There is no interval.
    """
    if not intervals_ns:
        raise UsageError("a curve needs at least one interval: nothing was computed")
    pair: list[str] = [*_session_columns(prices), "contract_x", "contract_y"]
    curves = [
        realized_covariances(prices.lazy(), price, interval_ns=interval_ns, incidents=incidents).select(
            *pair, pl.lit(interval_ns, pl.Int64).alias("interval_ns"), pl.exclude(pair)
        )
        for interval_ns in intervals_ns
    ]
    return alike(pl.concat(curves).sort([*pair, "interval_ns"]), prices)


def hayashi_yoshida_covariance(x: Path, y: Path, *, lag_ns: int = 0) -> float:
    """Hayashi and Yoshida's covariance: the sum of products of all returns whose intervals overlap.

    `sum_(i,j) r^x_i r^y_j 1{I_i and J_j overlap}`, with intervals open to the left. The returns of y that overlap with
    one of x follow each other, so their sum is one difference of y's log price: n log m, no double loop.

    Hayashi and Yoshida (2005), "On covariance estimation of non-synchronously observed diffusion processes", Bernoulli;
    with a lag the contrast of Hoffmann, Rosenbaum and Yoshida (2013), "Estimation of the lead-lag parameter from
    non-synchronous data", Bernoulli.

    Args:
        x: One contract.
        y: The other one.
        lag_ns: How much later than x's the moves of y are expected (ns): y is moved back by so much.
    """
    if min(len(x.time_ns), len(y.time_ns)) < 2:
        return 0.0
    y_ns = y.time_ns - lag_ns
    starts = np.searchsorted(y_ns, x.time_ns[:-1], side="right") - 1
    ends = np.searchsorted(y_ns, x.time_ns[1:], side="left")
    moves = y.log_price[np.minimum(ends, len(y_ns) - 1)] - y.log_price[np.maximum(starts, 0)]
    return float(np.diff(x.log_price) @ moves)


def hayashi_yoshida(prices: Frame, price: str = "mid", *, incidents: Incidents = None) -> Frame:
    """Covariance and correlation of each pair of contracts from every tick, whenever each comes.

    Noise leaves the covariance unbiased, if it is independent between the contracts, but not the variances, which pull
    the correlation down: see `kernel_covariances`.

    Args:
        prices: Rows with `contract_id`, `recv_ns` and the price. Of rows at the same time the last one counts.
        price: The price's column; `mid` is computed from `best_bid` and `best_ask` where it is not there.
        incidents: Gaps, see `mdcapture.metrics.frames.stretches`.

    Returns:
        `session_id` if given, `contract_x`, `contract_y`, `n_x` and `n_y` (times with a price), `variance_x`,
        `variance_y`, `covariance` (squared log points), `correlation`.

    Raises:
        UsageError: There is no `contract_id`.
    """
    rows = [
        {
            **pair,
            "n_x": len(x.time_ns),
            "n_y": len(y.time_ns),
            "variance_x": x.variance,
            "variance_y": y.variance,
            "covariance": (covariance := hayashi_yoshida_covariance(x, y)),
            "correlation": _correlation(covariance, x.variance, y.variance),
        }
        for pair, x, y in _pairs(prices, price, incidents)
    ]
    counts = dict.fromkeys(("n_x", "n_y"), pl.Int64())
    moments = dict.fromkeys(("variance_x", "variance_y", "covariance", "correlation"), pl.Float64())
    return alike(pl.LazyFrame(rows, schema=_pair_schema(prices, {**counts, **moments})), prices)


def refreshed(x: Path, y: Path) -> tuple[Path, Path]:
    """Both prices at their refresh times: each is the first moment at which both have been seen again since the last.

    Barndorff-Nielsen, Hansen, Lunde and Shephard (2011), see `kernel_covariances`.
    """
    times = np.sort(np.concatenate([x.time_ns, y.time_ns]), kind="stable")
    times = times[np.append([True], times[1:] != times[:-1])] if times.size else times
    seen_x, seen_y = np.zeros((2, times.size), dtype=np.bool_)
    seen_x[np.searchsorted(times, x.time_ns)] = seen_y[np.searchsorted(times, y.time_ns)] = True
    at = times[_refreshes(seen_x, seen_y)]
    x_at, y_at = (path.log_price[np.searchsorted(path.time_ns, at, side="right") - 1] for path in (x, y))
    return Path(at, x_at), Path(at, y_at)


def _refreshes(seen_x: NDArray[np.bool_], seen_y: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Which of the times are refresh times, without walking through them.

    Take runs of times at which the same one contract is seen; a time with both is a run of its own, and a refresh. A
    refresh is always the first of its run. The first after a run of several is one, whatever came before: that run has
    a time after the last refresh, and now the other contract is seen. From there on runs of one take turns, since each
    refresh uses up its own.
    """
    if seen_x.size == 0:
        return np.empty(0, dtype=np.int64)
    both = seen_x & seen_y
    starts: NDArray[np.int64] = np.flatnonzero(np.append([True], (seen_x[1:] != seen_x[:-1]) | both[1:] | both[:-1]))
    certain = both[starts]
    certain[1:] |= np.diff(starts) > 1
    run = np.arange(starts.size)
    last_certain = np.maximum.accumulate(np.where(certain, run, -1))
    return np.compress((run - last_certain) % 2 == 0, starts)


def kernel_covariances(
    prices: Frame,
    price: str = "mid",
    *,
    kernel: str = "parzen",
    bandwidth: int | None = None,
    incidents: Incidents = None,
) -> Frame:
    """Covariance and correlation of each pair of contracts with the noise taken out: the multivariate realized kernel.

    At refresh times a realized kernel K of one bandwidth is a quadratic form, so that the covariance is
    `(K(x + y) - K(x - y)) / 4`; with the Parzen kernel the correlation is never beyond 1.

    Barndorff-Nielsen, Hansen, Lunde and Shephard (2011), "Multivariate realised kernels: consistent positive
    semi-definite estimators of the covariation of equity prices with noise and non-synchronous trading", Journal of
    Econometrics; without their averaging of the first and the last prices.

    Args:
        prices: See `hayashi_yoshida`.
        price: See `hayashi_yoshida`.
        kernel: A name in `mdcapture.metrics.noise.KERNELS`.
        bandwidth: Number of lags; None: the mean of both contracts' `kernel_bandwidth`, rounded up.
        incidents: Gaps.

    Returns:
        `session_id` if given, `contract_x`, `contract_y`, `n` (refresh returns), `bandwidth`, `variance_x`,
        `variance_y`, `covariance` (squared log points), `correlation`.
    """
    rows = [pair | _kernel_row(*refreshed(x, y), kernel, bandwidth) for pair, x, y in _pairs(prices, price, incidents)]
    counts = dict.fromkeys(("n", "bandwidth"), pl.Int64())
    moments = dict.fromkeys(("variance_x", "variance_y", "covariance", "correlation"), pl.Float64())
    return alike(pl.LazyFrame(rows, schema=_pair_schema(prices, {**counts, **moments})), prices)


def _kernel_row(x: Path, y: Path, kernel: str, bandwidth: int | None) -> dict[str, object]:
    moves = np.diff(x.log_price), np.diff(y.log_price)
    if moves[0].size == 0:
        return {"n": 0}
    lags = math.ceil(sum(kernel_bandwidth(r, kernel) for r in moves) / 2) if bandwidth is None else bandwidth
    variance_x, variance_y, total, difference = (
        realized_kernel(r, kernel, bandwidth=lags) for r in (*moves, moves[0] + moves[1], moves[0] - moves[1])
    )
    covariance = (total - difference) / 4
    return {
        "n": moves[0].size,
        "bandwidth": lags,
        "variance_x": variance_x,
        "variance_y": variance_y,
        "covariance": covariance,
        "correlation": _correlation(covariance, variance_x, variance_y),
    }


def lead_lag(prices: Frame, price: str = "mid", *, lags_ns: Sequence[int], incidents: Incidents = None) -> Frame:
    """Cross-correlation of each pair of contracts by lag, from every tick: Hayashi-Yoshida with y moved back in time.

    A correlation that is largest at a positive lag says that `contract_x` moves first.

    Hoffmann, Rosenbaum and Yoshida (2013), see `hayashi_yoshida_covariance`.

    Args:
        prices: See `hayashi_yoshida`.
        price: See `hayashi_yoshida`.
        lags_ns: The lags (ns), of both signs and symmetric around zero if `lead_lag_ratio` is wanted.
        incidents: Gaps.

    Returns:
        `session_id` if given, `contract_x`, `contract_y`, `lag_ns`, `covariance`, `correlation`, in the order of lags.
    """
    rows = [
        {**pair, "lag_ns": lag, "covariance": value, "correlation": _correlation(value, x.variance, y.variance)}
        for pair, x, y in _pairs(prices, price, incidents)
        for lag in sorted(lags_ns)
        for value in (hayashi_yoshida_covariance(x, y, lag_ns=lag),)
    ]
    measures: dict[str, pl.DataType] = {
        "lag_ns": pl.Int64(),
        "covariance": pl.Float64(),
        "correlation": pl.Float64(),
    }
    return alike(pl.LazyFrame(rows, schema=_pair_schema(prices, measures)), prices)


def lead_lag_ratio(curve: Frame) -> Frame:
    """Who leads, from the curve of `lead_lag`.

    `LLR = sum_(l>0) rho(l)^2 / sum_(l<0) rho(l)^2`, above 1 where `contract_x` leads.

    Huth and Abergel (2014), "High frequency lead/lag relationships: empirical facts", Journal of Empirical Finance.

    Args:
        curve: The result of `lead_lag`.

    Returns:
        `session_id` if given, `contract_x`, `contract_y`, `lead_ns` (the lag of the largest absolute correlation: so
        much earlier moves x), `correlation` (there), `lead_lag_ratio`.
    """
    pair = [name for name in ("session_id", "contract_x", "contract_y") if name in curve.lazy().collect_schema()]
    rho, lag = pl.col("correlation"), pl.col("lag_ns")
    strongest = rho.abs().arg_max()
    later, earlier = rho.filter(lag > 0).pow(2).sum(), rho.filter(lag < 0).pow(2).sum()
    table = (
        curve.lazy()
        .group_by(pair, maintain_order=True)
        .agg(
            lead_ns=lag.get(strongest, null_on_oob=True),
            correlation=rho.get(strongest, null_on_oob=True),
            lead_lag_ratio=pl.when(earlier > 0).then(later / earlier),
        )
    )
    return alike(table, curve)


def _session_columns(prices: pl.LazyFrame | pl.DataFrame) -> list[str]:
    names = prices.lazy().collect_schema().names()
    if "contract_id" not in names:
        raise UsageError("correlation is between contracts: the prices need a contract_id")
    return ["session_id"] if "session_id" in names else []


def _pair_schema(prices: pl.LazyFrame | pl.DataFrame, measures: Mapping[str, pl.DataType]) -> pl.Schema:
    given, session = prices.lazy().collect_schema(), _session_columns(prices)
    contracts = dict.fromkeys(("contract_x", "contract_y"), given["contract_id"])
    return pl.Schema({name: given[name] for name in session} | contracts | dict(measures))


def _pairs(
    prices: pl.LazyFrame | pl.DataFrame, price: str, incidents: Incidents
) -> Iterator[tuple[dict[str, object], Path, Path]]:
    """Each session's pairs of contracts, with their paths."""
    session = _session_columns(prices)
    paths: defaultdict[tuple[object, ...], dict[object, Path]] = defaultdict(dict)
    for keys, ticks in groups(sampled_returns(prices.lazy(), price, incidents=incidents)):
        paths[tuple(keys[name] for name in session)][keys["contract_id"]] = _path(ticks)
    for values, contracts in paths.items():
        for (contract_x, x), (contract_y, y) in combinations(contracts.items(), 2):
            yield dict(zip(session, values, strict=True)) | {"contract_x": contract_x, "contract_y": contract_y}, x, y


def _path(ticks: pl.DataFrame) -> Path:
    times = ticks["recv_ns"].to_numpy()
    log_price = ticks["log_return"].fill_null(0.0).cum_sum().to_numpy()
    last = np.append(times[1:] != times[:-1], [True])
    return Path(times[last], log_price[last])


def _correlation(covariance: float, variance_x: float, variance_y: float) -> float | None:
    product = variance_x * variance_y
    return covariance / math.sqrt(product) if product > 0 else None
