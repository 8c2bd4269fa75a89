"""What the spread pays for: adverse selection, inventory, order processing, from prices and signs in trade time.

Arrays in the order of trades flow in, a frozen result with standard errors flows out (`*_se`; Newey-West, and the delta
method where a parameter is a function of coefficients). `stretch` (see `frames.stretches`) keeps a change from reaching
across a gap. A trade whose sign is not known (NaN) is left out with the changes that it belongs to.

The models take one aggressive order as one trade: join the prints of one order first, or their run of equal signs
passes for information.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from mdcapture.metrics.frames import Frame, groups, key_columns, prevailing, stretches, trade_sign
from mdcapture.metrics.regression import Array, Fit, lagged, least_squares

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "GlostenHarris",
    "HuangStoll",
    "HuangStollThreeWay",
    "MadhavanRichardsonRoomans",
    "glosten_harris",
    "huang_stoll",
    "huang_stoll_three_way",
    "madhavan_richardson_roomans",
    "quote_implied_volatility",
    "spread_components",
]


@dataclass(frozen=True, slots=True)
class GlostenHarris:
    """Glosten and Harris's components; prices in price units, sizes in lots.

    Attributes:
        transitory: c0, half the part of the spread that comes back.
        adverse: z0, the permanent move of a trade, whatever its size.
        adverse_per_lot: z1, the permanent move of each lot.
        spread: 2 (c0 + z0 + z1 q) at the mean size.
        adverse_share: The permanent part of it.
        n: Changes used.
    """

    transitory: float
    transitory_se: float
    adverse: float
    adverse_se: float
    adverse_per_lot: float
    adverse_per_lot_se: float
    spread: float
    adverse_share: float
    n: int


@dataclass(frozen=True, slots=True)
class HuangStoll:
    """Huang and Stoll's two-way components.

    Attributes:
        spread: S, the traded spread in price units.
        permanent_share: lambda, adverse selection and inventory together, as a share of half the spread.
        n: Changes used.
    """

    spread: float
    spread_se: float
    permanent_share: float
    permanent_share_se: float
    n: int


@dataclass(frozen=True, slots=True)
class HuangStollThreeWay:
    """Huang and Stoll's three-way components, as shares of half the quoted spread; they add up to 1.

    Attributes:
        adverse_share: alpha.
        inventory_share: beta.
        order_share: 1 - alpha - beta, order processing.
        reversal: pi, the probability that a trade is of the other side than the one before.
        n: Changes used.
    """

    adverse_share: float
    adverse_share_se: float
    inventory_share: float
    inventory_share_se: float
    order_share: float
    order_share_se: float
    reversal: float
    n: int


@dataclass(frozen=True, slots=True)
class MadhavanRichardsonRoomans:
    """Madhavan, Richardson and Roomans's components, in price units, and the variance that they imply.

    Attributes:
        information: theta, what one unexpected trade moves the price by, for good.
        cost: phi, what the supplier of liquidity keeps a share for.
        autocorrelation: rho, of signs.
        spread: 2 (theta + phi).
        information_share: theta / (theta + phi).
        flow_variance: theta^2 (1 - rho^2), of the efficient price, a trade, from surprises in order flow.
        news_variance: Of the efficient price, a trade, from news without trades; the rounding of prices taken off.
        n: Changes used.
    """

    information: float
    information_se: float
    cost: float
    cost_se: float
    autocorrelation: float
    autocorrelation_se: float
    spread: float
    information_share: float
    flow_variance: float
    news_variance: float
    n: int


def _arrays(*columns: ArrayLike) -> list[Array]:
    return [np.asarray(column, np.float64) for column in columns]


def _numbers(stretch: ArrayLike | None) -> NDArray[np.int64] | None:
    return None if stretch is None else np.asarray(stretch, np.int64)


def _error(fit: Fit, gradient: list[float]) -> float:
    """The standard error of a function of the coefficients, by its gradient; NaN if its variance is below 0."""
    slope = np.asarray(gradient)
    return _root(float(slope @ fit.covariance @ slope))


def _root(variance: float) -> float:
    return math.sqrt(variance) if variance >= 0 else math.nan


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def glosten_harris(
    price: ArrayLike,
    sign: ArrayLike,
    size: ArrayLike,
    *,
    stretch: ArrayLike | None = None,
    hac_lags: int | None = None,
) -> GlostenHarris:
    """Least squares of dp_t = c0 (D_t - D_{t-1}) + z0 D_t + z1 D_t q_t + e_t.

    Glosten and Harris (1988), Estimating the components of the bid/ask spread, Journal of Financial Economics, without
    their treatment of rounding, and without c1, the transitory cost of each lot: c1 (D_t q_t - D_{t-1} q_{t-1}).

    Args:
        price: Trade prices in the order of trades.
        sign: +1, -1, NaN.
        size: Lots.
        stretch: Numbers of stretches between gaps.
        hac_lags: See `least_squares`.
    """
    (p, d, q), numbers = _arrays(price, sign, size), _numbers(stretch)
    design = np.column_stack([d - lagged(d, 1, numbers), d, d * q])
    fit = least_squares((p - lagged(p, 1, numbers), design), hac_lags=hac_lags)
    (c0, z0, z1), errors = fit.coefficients.tolist(), fit.standard_errors.tolist()
    adverse = z0 + z1 * (float(np.nanmean(q)) if len(q) else math.nan)
    return GlostenHarris(
        transitory=c0,
        transitory_se=errors[0],
        adverse=z0,
        adverse_se=errors[1],
        adverse_per_lot=z1,
        adverse_per_lot_se=errors[2],
        spread=2 * (c0 + adverse),
        adverse_share=_ratio(adverse, c0 + adverse),
        n=fit.n,
    )


def huang_stoll(
    price: ArrayLike,
    sign: ArrayLike,
    *,
    stretch: ArrayLike | None = None,
    hac_lags: int | None = None,
) -> HuangStoll:
    """Least squares of dp_t = (S / 2) (D_t - D_{t-1}) + lambda (S / 2) D_{t-1} + e_t.

    Huang and Stoll (1997), The components of the bid-ask spread: a general approach, Review of Financial Studies.

    Args:
        price: Trade prices in the order of trades.
        sign: +1, -1, NaN.
        stretch: Numbers of stretches between gaps.
        hac_lags: See `least_squares`.
    """
    (p, d), numbers = _arrays(price, sign), _numbers(stretch)
    before = lagged(d, 1, numbers)
    fit = least_squares((p - lagged(p, 1, numbers), np.column_stack([d - before, before])), hac_lags=hac_lags)
    half, permanent = fit.coefficients.tolist()
    share = _ratio(permanent, half)
    return HuangStoll(
        spread=2 * half,
        spread_se=_error(fit, [2, 0]),
        permanent_share=share,
        permanent_share_se=_error(fit, [_ratio(-share, half), _ratio(1, half)]),
        n=fit.n,
    )


def huang_stoll_three_way(
    mid: ArrayLike,
    spread: ArrayLike,
    sign: ArrayLike,
    *,
    stretch: ArrayLike | None = None,
    hac_lags: int | None = None,
) -> HuangStollThreeWay:
    """Their second model: dm_t = (alpha + beta) (S_{t-1}/2) D_{t-1} - alpha (1 - 2 pi) (S_{t-2}/2) D_{t-2} + e_t.

    Exactly identified with E[D_{t-1} | D_{t-2}] = (1 - 2 pi) D_{t-2}. Huang and Stoll (1997), as above. The two parts
    are told apart by reversals alone: where pi is near 1/2 they are not determined, and where runs of equal signs are
    longer than reversals (pi < 1/2, as on most tapes) alpha comes out negative.

    Args:
        mid: The mid before each trade.
        spread: The quoted spread before each trade, in price units.
        sign: +1, -1, NaN.
        stretch: Numbers of stretches between gaps.
        hac_lags: See `least_squares`.
    """
    (m, s, d), numbers = _arrays(mid, spread, sign), _numbers(stretch)
    first, second = lagged(d, 1, numbers), lagged(d, 2, numbers)
    design = np.column_stack([lagged(s, 1, numbers) / 2 * first, lagged(s, 2, numbers) / 2 * second])
    fit = least_squares((m - lagged(m, 1, numbers), design), (first, second), hac_lags=hac_lags)
    both, past, rho = fit.coefficients.tolist()
    alpha, by_rho = _ratio(-past, rho), _ratio(1, rho)
    return HuangStollThreeWay(
        adverse_share=alpha,
        adverse_share_se=_error(fit, [0, -by_rho, -alpha * by_rho]),
        inventory_share=both - alpha,
        inventory_share_se=_error(fit, [1, by_rho, alpha * by_rho]),
        order_share=1 - both,
        order_share_se=_error(fit, [1, 0, 0]),
        reversal=(1 - rho) / 2,
        n=fit.n,
    )


def madhavan_richardson_roomans(
    price: ArrayLike,
    sign: ArrayLike,
    *,
    stretch: ArrayLike | None = None,
    hac_lags: int | None = None,
) -> MadhavanRichardsonRoomans:
    """The moments of dp_t = (phi + theta) D_t - (phi + rho theta) D_{t-1} + u_t, with rho from the signs.

    Madhavan, Richardson and Roomans (1997), Why do security prices change? A transaction-level analysis of NYSE stocks,
    Review of Financial Studies. Exactly identified, so that GMM is least squares of both equations, with their joint
    covariance. u_t is news and the change of the rounding error: Cov(u_t, u_{t-1}) is minus the variance of the latter.

    Args:
        price: Trade prices in the order of trades.
        sign: +1, -1 (0 for a cross inside of the spread), NaN.
        stretch: Numbers of stretches between gaps.
        hac_lags: See `least_squares`.
    """
    (p, d), numbers = _arrays(price, sign), _numbers(stretch)
    before = lagged(d, 1, numbers)
    design = np.column_stack([np.ones(len(p)), d, before])
    fit = least_squares((p - lagged(p, 1, numbers), design), (d, before), hac_lags=hac_lags)
    _, now, past, rho = fit.coefficients.tolist()
    theta = _ratio(now + past, 1 - rho)
    slope = _ratio(1, 1 - rho)
    phi = now - theta
    u, square = fit.residuals[:, 0], float(np.nanmean(d * d)) if np.isfinite(d).any() else math.nan
    rounding = float(np.mean(u[1:] * u[:-1])) if fit.n > 1 else math.nan
    return MadhavanRichardsonRoomans(
        information=theta,
        information_se=_error(fit, [0, slope, slope, theta * slope]),
        cost=phi,
        cost_se=_error(fit, [0, 1 - slope, -slope, -theta * slope]),
        autocorrelation=rho,
        autocorrelation_se=_error(fit, [0, 0, 0, 1]),
        spread=2 * now,
        information_share=_ratio(theta, now),
        flow_variance=theta**2 * (1 - rho**2) * square,
        news_variance=max(float(np.mean(u * u)) + 2 * rounding, 0.0) if fit.n > 1 else math.nan,
        n=fit.n,
    )


def quote_implied_volatility(components: MadhavanRichardsonRoomans, trades: float) -> float:
    """The standard deviation of the efficient price over so many trades, in price units, as spread and flow imply it.

    sqrt(trades (flow_variance + news_variance)). It is not an implied volatility of options, for which there is no data
    here; divide by the price for a return, and take the trades of a year for an annual figure.

    Args:
        components: What `madhavan_richardson_roomans` found.
        trades: The number of trades in the period asked for.
    """
    return _root(trades * (components.flow_variance + components.news_variance))


def spread_components(
    trades: Frame,
    quotes: pl.LazyFrame | pl.DataFrame,
    *,
    sign: pl.Expr | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The four models for each group, one row each.

    Args:
        trades: The lake's trades.
        quotes: The lake's quotes.
        sign: +1, -1 or null for each trade; by default from `side`.
        incidents: Gaps, see `stretches`.

    Returns:
        Key columns, and the fields of each result with a prefix: `gh_`, `hs_`, `hs3_`, `mrr_`.
    """
    signed = trades.lazy().with_columns(_sign=trade_sign() if sign is None else sign)
    matched = stretches(prevailing(signed, quotes, incidents=incidents), incidents)
    rows: list[dict[str, Any]] = []
    for keys, group in groups(matched):
        stretch = group["stretch"].to_numpy()
        price, direction, size, mid = (
            group[name].cast(pl.Float64).fill_null(math.nan).to_numpy() for name in ("price", "_sign", "volume", "mid")
        )
        spread = (group["best_ask"] - group["best_bid"]).fill_null(math.nan).to_numpy()
        results: dict[str, Any] = {
            "gh": glosten_harris(price, direction, size, stretch=stretch),
            "hs": huang_stoll(price, direction, stretch=stretch),
            "hs3": huang_stoll_three_way(mid, spread, direction, stretch=stretch),
            "mrr": madhavan_richardson_roomans(price, direction, stretch=stretch),
        }
        rows.append(
            keys | {f"{model}_{name}": x for model, result in results.items() for name, x in asdict(result).items()}
        )
    models: dict[str, Any] = {
        "gh": GlostenHarris,
        "hs": HuangStoll,
        "hs3": HuangStollThreeWay,
        "mrr": MadhavanRichardsonRoomans,
    }
    columns = trades.lazy().collect_schema()
    schema: dict[str, Any] = {name: columns[name] for name in key_columns(trades)} | {
        f"{model}_{field.name}": pl.Int64 if field.name == "n" else pl.Float64
        for model, result in models.items()
        for field in fields(result)
    }
    return pl.DataFrame(rows, schema)
