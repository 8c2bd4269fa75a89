"""Which trades and which markets carry information: vector autoregressions of prices, and what is permanent in them.

Arrays on one clock flow in (trades, or the points of a grid), a frozen result flows out; the frame functions put the
lake's quotes and trades on that clock and give one row a group. `stretch` keeps lags from reaching across a gap.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from mdcapture.errors import UsageError
from mdcapture.metrics.frames import groups, key_columns, prevailing, previous_tick, stretches, trade_sign
from mdcapture.metrics.regression import Array, lagged, least_squares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

__all__ = [
    "HasbrouckVar",
    "PriceDiscovery",
    "hasbrouck_var",
    "information_shares",
    "price_discovery",
    "trade_information",
]

MOST_MARKETS = 7  # each order of them is tried: 5,040


@dataclass(frozen=True, slots=True)
class HasbrouckVar:
    """The permanent impact of a trade, and how much of the price's variance comes with trades.

    Attributes:
        permanent_impact: What a trade of one unit of unexpected flow moves the mid by in the end.
        permanent_impact_se: Its standard error.
        immediate_impact: b0, what it moves the mid by at once.
        response: (steps + 1,), the cumulated response of the mid to that trade, from 0 to `steps` trades after it.
        trade_share: The part of the variance of the random walk in the mid that comes with trades.
        n: Trades used.
    """

    permanent_impact: float
    permanent_impact_se: float
    immediate_impact: float
    response: Array
    trade_share: float
    n: int


def hasbrouck_var(
    change: ArrayLike,
    flow: ArrayLike,
    *,
    lags: int = 5,
    steps: int = 20,
    stretch: ArrayLike | None = None,
) -> HasbrouckVar:
    """Hasbrouck's vector autoregression of mid changes r and trades x, and its permanent impact.

        r_t = a_0 + sum_{i=1..lags} a_i r_{t-i} + sum_{i=0..lags} b_i x_{t-i} + u_t
        x_t = c_0 + sum_{i=1..lags} c_i r_{t-i} + sum_{i=1..lags} d_i x_{t-i} + v_t

    Hasbrouck (1991), Measuring the information content of stock trades, Journal of Finance: the impulse response. The
    share of variance: Hasbrouck (1991), The summary informativeness of stock trades: an econometric analysis, Review of
    Financial Studies. The permanent impact is the limit of the cumulated response, in closed form.

    Args:
        change: (n,), the mid after each trade and before the next, less the mid before it.
        flow: (n,), the trade's sign, signed volume, or signed root of it.
        lags: Of both; 5 in the paper.
        steps: How far to follow the response.
        stretch: Numbers of stretches between gaps.

    Raises:
        UsageError: Fewer than one lag.
    """
    if lags < 1:
        raise UsageError(f"a vector autoregression needs at least one lag, not {lags}: nothing was computed")
    r, x = np.asarray(change, np.float64), np.asarray(flow, np.float64)
    numbers = None if stretch is None else np.asarray(stretch, np.int64)
    past_r = [lagged(r, lag, numbers) for lag in range(1, lags + 1)]
    past_x = [lagged(x, lag, numbers) for lag in range(1, lags + 1)]
    one = np.ones(len(r))
    fit = least_squares(
        (r, np.stack([one, *past_r, x, *past_x]).T), (x, np.stack([one, *past_r, *past_x]).T), hac_lags=0
    )
    a, b, c, d = np.split(np.delete(fit.coefficients, [0, 2 * lags + 2]), np.cumsum([lags, lags + 1, lags]))
    quote_variance, trade_variance = (fit.residuals**2).mean(axis=0) if fit.n else (math.nan, math.nan)
    long_run = _inverse(np.array([[1 - a.sum(), -b.sum()], [-c.sum(), 1 - d.sum()]]))
    quote_part, trade_part = long_run[0, 0] ** 2 * quote_variance, long_run[0, 1] ** 2 * trade_variance
    total = quote_part + trade_part
    gradient = np.concatenate(
        [
            [0],
            np.full(lags, long_run[0, 0] * long_run[0, 1]),
            np.full(lags + 1, long_run[0, 0] * long_run[1, 1]),
            [0],
            np.full(lags, long_run[0, 1] * long_run[0, 1]),
            np.full(lags, long_run[0, 1] * long_run[1, 1]),
        ]
    )
    return HasbrouckVar(
        permanent_impact=float(long_run[0, 1]),
        permanent_impact_se=float(np.sqrt(gradient @ fit.covariance @ gradient)),
        immediate_impact=float(b[0]),
        response=_cumulated_response(a, b, c, d, steps),
        trade_share=float(trade_part / total) if total > 0 else math.nan,
        n=fit.n,
    )


def _inverse(matrix: Array) -> Array:
    if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix) < len(matrix):
        return np.full_like(matrix, np.nan)
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _cumulated_response(a: Array, b: Array, c: Array, d: Array, steps: int) -> Array:
    """The mid after a trade of one unit out of nothing, step by step."""
    lags = len(a)
    r, x = np.zeros(lags + steps + 1), np.zeros(lags + steps + 1)
    for t in range(lags, lags + steps + 1):
        past_r, past_x = r[t - lags : t][::-1], x[t - lags : t][::-1]
        x[t] = c @ past_r + d @ past_x + (t == lags)
        r[t] = a @ past_r + b[1:] @ past_x + b[0] * x[t]
    return np.cumsum(r[lags:])


def trade_information(
    trades: pl.LazyFrame | pl.DataFrame,
    quotes: pl.LazyFrame | pl.DataFrame,
    *,
    flow: pl.Expr | None = None,
    lags: int = 5,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> pl.DataFrame:
    """`hasbrouck_var` for each group, in trade time: the change of the mid from before a trade to before the next.

    Args:
        trades: The lake's trades; join the prints of one aggressive order first, or their run passes for a response.
        quotes: The lake's quotes.
        flow: What is signed: by default +1 and -1 from `side`.
        lags: See `hasbrouck_var`.
        incidents: Gaps, see `stretches`.

    Returns:
        Key columns, `permanent_impact` (price units), `permanent_impact_se`, `immediate_impact`, `trade_share`, `n`;
        null where not determined.
    """
    signed = trades.lazy().with_columns(_flow=trade_sign() if flow is None else flow)
    matched = stretches(prevailing(signed, quotes, ["mid"], incidents=incidents), incidents)
    rows: list[dict[str, Any]] = []
    figures = ("permanent_impact", "permanent_impact_se", "immediate_impact", "trade_share")
    for keys, group in groups(matched):
        mid, x = (group[name].cast(pl.Float64).fill_null(math.nan).to_numpy() for name in ("mid", "_flow"))
        stretch = group["stretch"].to_numpy()
        after = lagged(mid[::-1], 1, stretch[::-1])[::-1]
        found = hasbrouck_var(after - mid, x, lags=lags, stretch=stretch)
        rows.append(keys | {name: getattr(found, name) for name in (*figures, "n")})
    columns = trades.lazy().collect_schema()
    schema: dict[str, Any] = {name: columns[name] for name in key_columns(trades)}
    schema |= dict.fromkeys(figures, pl.Float64) | {"n": pl.Int64}
    return pl.DataFrame(rows, schema).with_columns(pl.col(figures).fill_nan(None))


@dataclass(frozen=True, slots=True)
class PriceDiscovery:
    """Where the common price of several markets is made.

    Attributes:
        share_low: (k,), the information share of each market at its least over all orders of the markets.
        share_high: (k,), at its most.
        share_mean: (k,), over all orders; adds up to 1.
        component_share: (k,), the weight of each market in the common component; adds up to 1.
        n: Changes used.
    """

    share_low: Array
    share_high: Array
    share_mean: Array
    component_share: Array
    n: int


def price_discovery(prices: ArrayLike, *, lags: int = 10, stretch: ArrayLike | None = None) -> PriceDiscovery:
    """Information shares and component shares of markets whose prices differ by a stationary basis.

    From the error-correction model dp_t = c + alpha (p_1 - p_j)_{t-1} + sum_{i=1..lags} G_i dp_{t-i} + e_t (j from 2),
    the common component's weights psi are orthogonal to alpha. With Omega the covariance of e, F its Cholesky factor,

        IS_j = ([psi F]_j)^2 / (psi Omega psi')        CS_j = psi_j / sum(psi)

    Where e of several markets go together, F and so IS depend on the order of the markets: all orders are tried.
    Hasbrouck (1995), One security, many markets: determining the contributions to price discovery, Journal of Finance.
    Component shares: Gonzalo and Granger (1995), Estimation of common long-memory components in cointegrated systems,
    Journal of Business and Economic Statistics.

    Args:
        prices: (n, k), prices (or logarithms) on one clock, a column a market; NaN where there is none.
        lags: Of changes.
        stretch: Numbers of stretches between gaps.

    Raises:
        UsageError: Fewer than two markets, more than seven, or fewer than one lag.
    """
    p = np.asarray(prices, np.float64)
    if p.ndim != 2 or not 2 <= p.shape[1] <= MOST_MARKETS or lags < 1:
        raise UsageError(
            f"price discovery needs at least one lag and prices of 2 to {MOST_MARKETS} markets, shape (n, k), not "
            f"{p.shape} and {lags}: nothing was computed"
        )
    markets = p.shape[1]
    numbers = None if stretch is None else np.asarray(stretch, np.int64)
    before = np.column_stack([lagged(column, 1, numbers) for column in p.T])
    changes = p - before
    past = [lagged(column, lag, numbers) for lag in range(1, lags + 1) for column in changes.T]
    design = np.column_stack([before[:, [0]] - before[:, 1:], np.ones(len(p)), *past])
    fit = least_squares(*((column, design) for column in changes.T), hac_lags=0)
    if not np.isfinite(fit.coefficients).all():
        nan = np.full(markets, np.nan)
        return PriceDiscovery(nan, nan, nan, nan, fit.n)
    alpha = fit.coefficients.reshape(markets, -1)[:, : markets - 1]
    psi = np.linalg.svd(alpha)[0][:, -1]
    shares = _information_shares(psi, fit.residuals.T @ fit.residuals / fit.n)
    total = psi.sum()
    return PriceDiscovery(
        share_low=shares.min(axis=0),
        share_high=shares.max(axis=0),
        share_mean=shares.mean(axis=0),
        component_share=psi / total if total else np.full(markets, np.nan),
        n=fit.n,
    )


def _information_shares(psi: Array, omega: Array) -> Array:
    """(orders, k): the information share of each market in each order of the markets."""
    shares = []
    for order in itertools.permutations(range(len(psi))):
        index = np.asarray(order)
        parts = (psi[index] @ np.linalg.cholesky(omega[np.ix_(index, index)])) ** 2
        share = np.empty_like(psi)
        share[index] = parts / parts.sum()
        shares.append(share)
    return np.asarray(shares)


def information_shares(
    quotes: pl.LazyFrame | pl.DataFrame,
    interval_ns: int,
    contracts: Sequence[str],
    *,
    lags: int = 10,
    log: bool = True,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> pl.DataFrame:
    """`price_discovery` between contracts on the same thing, from their mids on a grid of time, for each session.

    Args:
        quotes: The lake's quotes; without a `session_id` all is one session.
        interval_ns: The grid (ns); short ones keep the bounds narrow.
        contracts: Contracts whose prices differ by a stationary basis: two expiries, or the full and the micro size.
        lags: Of changes.
        log: Logarithms of mids; False: mids.
        incidents: Gaps, see `stretches`.

    Returns:
        `session_id` where the quotes have it, `contract_id`, `share_low`, `share_high`, `share_mean`, `component_share`
        and `n`, a row a contract; null where not determined.
    """
    wanted = quotes.lazy().filter(pl.col("contract_id").is_in(list(contracts)))
    grid = previous_tick(wanted, interval_ns, incidents=incidents)
    sessions = [name for name in key_columns(grid) if name != "contract_id"]
    points = (
        grid.group_by([*sessions, "recv_ns"])
        .agg(
            *(pl.col("mid").filter(contract_id=contract).first().alias(contract) for contract in contracts),
            stretch=pl.col("stretch").sum(),
        )
        .sort([*sessions, "recv_ns"])
    )
    rows: list[dict[str, Any]] = []
    figures = ("share_low", "share_high", "share_mean", "component_share")
    for keys, group in groups(points):
        prices = group.select(pl.col(contracts).fill_null(math.nan)).to_numpy()
        broken = group["recv_ns"].diff().fill_null(interval_ns) != interval_ns
        stretch = (broken | (group["stretch"].diff().fill_null(0) != 0)).cum_sum().to_numpy()
        found = price_discovery(np.log(prices) if log else prices, lags=lags, stretch=stretch)
        rows += [
            keys
            | {"contract_id": contract}
            | {name: float(getattr(found, name)[j]) for name in figures}
            | {"n": found.n}
            for j, contract in enumerate(contracts)
        ]
    columns = quotes.lazy().collect_schema()
    schema: dict[str, Any] = {name: columns[name] for name in [*sessions, "contract_id"]}
    schema |= dict.fromkeys(figures, pl.Float64) | {"n": pl.Int64}
    return pl.DataFrame(rows, schema).with_columns(pl.col(figures).fill_nan(None))
