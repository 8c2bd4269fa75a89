"""How trading moves the price: mid moves after trades by horizon and size, and regressions of moves on flow.

Trades and quotes flow in, or bars that hold what was traded beside how the mid moved. All measures are of prints on an
anonymous tape. The square-root law of impact, I = Y sigma sqrt(Q / V) (Tóth and others 2011, Anomalous price impact
and the critical nature of liquidity in financial markets, Physical Review X), is of metaorders, the parent orders that
traders work in parts: without their identities it is not identifiable, so there is no function for it. The concave mid
move of single prints by size (`response` with `size_edges`) is another thing.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import polars as pl

from mdcapture.errors import UsageError
from mdcapture.metrics import asof
from mdcapture.metrics.frames import (
    MID,
    Column,
    Frame,
    alike,
    column,
    each_group,
    groups,
    key_columns,
    neighbour,
    reading,
    trade_sign,
)
from mdcapture.metrics.regression import least_squares
from mdcapture.metrics.spreads import Scale, horizon_label, trade_spreads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mdcapture.metrics.asof import Gaps

_LEAST_BLOCKS: Final = 20
"""Fewer blocks do not tell how much they differ."""

__all__ = [
    "amihud",
    "bar_kyle",
    "flow_regression",
    "hasbrouck_lambda",
    "impact_bars",
    "kyle_lambda",
    "mid_changes",
    "response",
]


def response(
    trades: Frame,
    quotes: pl.LazyFrame | pl.DataFrame,
    horizons_ns: Sequence[int] = (),
    *,
    horizons_trades: Sequence[int] = (),
    size_edges: Sequence[int] = (),
    scale: Scale = "price",
    sign: pl.Expr | None = None,
    tick_size: float | pl.Expr | None = None,
    clock: str = "recv_ns",
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """The mean move of the mid after trades in their direction, R(h) = E[D_t (m_{t+h} - m_t)], by horizon and by size.

    Bouchaud, Gefen, Potters and Wyart (2004), Fluctuations and response in financial markets: the subtle nature of
    'random' price changes, Quantitative Finance, where horizons are in trades. It is half of the price impact of
    `trade_spreads`.

    Args:
        trades: The lake's trades.
        quotes: The lake's quotes.
        horizons_ns: Horizons in time (ns).
        horizons_trades: Horizons in trades: the mid before the k-th later trade.
        size_edges: Lower edges of classes of size, in lots: (1, 5, 20) is 1 to 4, 5 to 19, 20 and more; smaller trades
            are left out. None given: all trades together.
        scale: `price`, `bps`, ...: see `spreads.Scale`.
        sign: +1, -1 or null for each trade; by default from `side`.
        tick_size: For the scale `ticks`.
        clock: What measures horizons in time: `recv_ns` or `exch_ns`.
        incidents: Gaps, see `stretches`.

    Returns:
        Key columns, `size_from` and `size_below` (null above the last edge) where there are edges, `horizon` (`5s`,
        `300t`), `response` on the scale, `sd` of single moves, `n`, and `response_se`. The moves of near trades
        overlap, so that sd / sqrt(n) is too small for an error; `response_se` is Newey and West's over blocks as long
        as the horizon, of the moves in each together, and null where fewer than 20 blocks have one.

    Raises:
        UsageError: No horizon, one in trades below 1, or `ticks` without a tick size.
    """
    labels = [f"{k}t" for k in horizons_trades] + [horizon_label(horizon_ns) for horizon_ns in horizons_ns]
    if not labels:
        raise UsageError("a response needs horizons_ns= or horizons_trades=: nothing was computed")
    matched = trade_spreads(
        reading(trades, "price", "side", "volume", clock, sign, tick_size if isinstance(tick_size, pl.Expr) else None),
        quotes,
        horizons_ns,
        horizons_trades=horizons_trades,
        scales=[scale],
        half=True,
        sign=sign,
        tick_size=tick_size,
        clock=clock,
        incidents=incidents,
    )
    suffix = "" if scale == "price" else f"_{scale}"
    moves = {label: pl.col(f"half_price_impact_{label}{suffix}") for label in labels}
    statistics = [
        pl.struct(horizon=pl.lit(label), response=move.mean(), sd=move.std(), n=move.count().cast(pl.Int64)).alias(
            label
        )
        for label, move in moves.items()
    ]
    numbers, times_ns = [pl.int_range(pl.len())] * len(horizons_trades), [pl.col(clock)] * len(horizons_ns)
    lengths = (*horizons_trades, *horizons_ns)
    blocks = {label: place // length for label, place, length in zip(labels, numbers + times_ns, lengths, strict=True)}
    classes = _size_classes(size_edges)
    of_size = pl.lit(classes["size_from"]).search_sorted(pl.col("volume"), side="right") if size_edges else pl.lit(0)

    def metric(own: pl.DataFrame, _: Gaps) -> pl.DataFrame:
        if size_edges:
            by_class = own.drop_nulls("volume").group_by(_class=of_size).agg(statistics)
            wide = classes.join(by_class, on="_class", maintain_order="left")
        else:
            wide = own.select(pl.lit(0).alias("_class"), *statistics)
        table = wide.select(pl.exclude(labels), moves=pl.concat_list(labels)).explode("moves").unnest("moves")
        errors = pl.concat(
            _mean_errors(own.select(move=moves[label], group=of_size, block=block), label)
            for label, block in blocks.items()
        )
        return table.join(errors, on=["_class", "horizon"], how="left", maintain_order="left").drop("_class")

    return alike(each_group(metric, matched), trades)


def _size_classes(edges: Sequence[int]) -> pl.DataFrame:
    """A row a class of sizes, numbered from 1 by `_class`: `size_from`, `size_below`."""
    lower: list[int] = sorted(edges)
    bounds = list(itertools.zip_longest(lower, lower[1:]))
    classes = pl.DataFrame(bounds, {"size_from": pl.Int64, "size_below": pl.Int64}, orient="row")
    return classes.with_row_index("_class", 1)


def _mean_errors(moves: pl.DataFrame, label: str) -> pl.DataFrame:
    """The standard error of the mean `move` of each `group`, whose moves are alike within a `block` and to the next.

    The mean of all is the slope of the blocks' sums on their numbers, both over the root of the numbers.
    """
    sums = moves.drop_nulls().group_by("group", "block").agg(total=pl.col("move").sum(), n=pl.len()).sort("block")
    rows = []
    for (group,), own in sums.group_by("group"):
        roots = np.sqrt(own["n"].to_numpy())
        fit = least_squares((own["total"].to_numpy() / roots, roots))
        error = float(fit.standard_errors[0]) if own.height >= _LEAST_BLOCKS else None
        rows.append((group, label, error))
    schema = {"_class": sums.schema["group"], "horizon": pl.String(), "response_se": pl.Float64()}
    return pl.DataFrame(rows, schema, orient="row")


def mid_changes(
    bars: Frame,
    quotes: pl.LazyFrame | pl.DataFrame,
    *,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Add to bars how the mid moved in them: from the last quote before `start_ns` to the last one before `end_ns`.

    Args:
        bars: Rows with `start_ns` and `end_ns`: bars of time, of volume, of order flow imbalance.
        quotes: The lake's quotes.
        incidents: Gaps, see `stretches`: a bar with one inside has no change.

    Returns:
        The bars by their start, with `mid_change` (price units) and `mid_return` (log): null where an end has no mid.
    """

    def metric(own: pl.DataFrame, states: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        edges = [own.select(recv_ns=name) for name in ("start_ns", "end_ns")]
        first, last = (asof.stretch_of(edge["recv_ns"].to_numpy(), gaps) for edge in edges)
        start, end = (asof.prevailing(edge, states, gaps, ["mid"])["mid"] for edge in edges)
        whole = pl.lit(pl.Series(first == last))
        return own.with_columns(
            mid_change=pl.when(whole).then(end - start), mid_return=pl.when(whole).then(end.log() - start.log())
        )

    return each_group(metric, bars, reading(quotes, *MID), incidents=incidents, order=["start_ns"])


def impact_bars(
    trades: Frame,
    quotes: pl.LazyFrame | pl.DataFrame,
    interval_ns: int,
    *,
    sign: pl.Expr | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """What was traded in each interval beside how the mid moved: the rows of the impact regressions.

    Args:
        trades: The lake's trades; those without a sign add nothing to the flow.
        quotes: The lake's quotes.
        interval_ns: The length of a bar (ns); bars start at its whole multiples in UTC.
        sign: +1, -1 or null for each trade; by default from `side`.
        incidents: Gaps, see `stretches`.

    Returns:
        Key columns, `start_ns`, `end_ns`, `signed_volume` (lots), `signed_root_value` (sum of D sqrt(p q)), `trades`,
        `mid_change` (price units) and `mid_return` (log). An interval without trades is there, with no flow; one
        without a mid before it, or with a gap inside, is not.

    Raises:
        UsageError: The interval is not positive.
    """
    if interval_ns <= 0:
        raise UsageError(f"bars need a positive interval, not {interval_ns} ns: nothing was computed")
    direction, size = trade_sign() if sign is None else sign, pl.col("volume")
    start_ns, start = (neighbour(pl.col(name), ["stretch"]) for name in ("recv_ns", "mid"))
    flow = {
        "signed_volume": (direction * size).sum(),
        "signed_root_value": (direction * (pl.col("price") * size).sqrt()).sum(),
        "trades": pl.len().cast(pl.Int64),
    }

    def metric(own: pl.DataFrame, prints: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        grid = asof.previous_tick(own, interval_ns, ["mid"], gaps, before=True)
        moves = grid.select(
            start_ns=start_ns,
            end_ns="recv_ns",
            mid_change=pl.col("mid") - start,
            mid_return=pl.col("mid").log() - start.log(),
        ).drop_nulls("mid_change")
        bar = (pl.col("recv_ns") // interval_ns * interval_ns).set_sorted()
        flows = prints.group_by(start_ns=bar).agg(**flow)
        bars = moves.join(flows, on="start_ns", how="left", maintain_order="left")
        return bars.select("start_ns", "end_ns", pl.col(*flow).fill_null(0), "mid_change", "mid_return")

    states, prints = reading(quotes, *MID), reading(trades, "price", "volume", direction)
    return alike(each_group(metric, states, prints, incidents=incidents), trades)


def flow_regression(
    bars: pl.LazyFrame | pl.DataFrame,
    *,
    change: str = "mid_change",
    flow: str = "signed_volume",
    hac_lags: int | None = None,
) -> pl.DataFrame:
    """Least squares of a price change on a flow, change = a + b flow + e, for each group of bars.

    With order flow imbalance as the flow it is the regression of Cont, Kukanov and Stoikov (2014), The price impact of
    order book events, Journal of Financial Econometrics: there the change is in ticks, over 10 s, and b falls as depth
    grows.

    Args:
        bars: Rows with `start_ns` and both columns, as from `mid_changes`; a row without one of them is left out.
        change: The column of the change of the mid.
        flow: The column of the flow.
        hac_lags: See `regression.least_squares`.

    Returns:
        Key columns, `slope`, `slope_se`, `intercept`, `intercept_se`, `r_squared` and `n`; null where not determined.
    """
    rows: list[dict[str, Any]] = []
    for keys, group in groups(bars, ["start_ns"]):
        y, x = (group[name].cast(pl.Float64).fill_null(math.nan).to_numpy() for name in (change, flow))
        fit = least_squares((y, np.column_stack([x, np.ones(len(x))])), hac_lags=hac_lags)
        (slope, intercept), (slope_se, intercept_se) = fit.coefficients.tolist(), fit.standard_errors.tolist()
        rows.append(
            keys
            | {
                "slope": slope,
                "slope_se": slope_se,
                "intercept": intercept,
                "intercept_se": intercept_se,
                "r_squared": fit.r_squared,
                "n": fit.n,
            }
        )
    columns = bars.lazy().collect_schema()
    schema: dict[str, Any] = {name: columns[name] for name in key_columns(bars)}
    numbers = ("slope", "slope_se", "intercept", "intercept_se", "r_squared")
    schema |= dict.fromkeys(numbers, pl.Float64) | {"n": pl.Int64}
    return pl.DataFrame(rows, schema).with_columns(pl.col(numbers).fill_nan(None))


def kyle_lambda(
    trades: pl.LazyFrame | pl.DataFrame,
    quotes: pl.LazyFrame | pl.DataFrame,
    interval_ns: int,
    *,
    sign: pl.Expr | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
    hac_lags: int | None = None,
) -> pl.DataFrame:
    """Kyle's lambda: the slope of the mid's change on signed volume, in price units a lot, over bars of time.

    After Kyle (1985), Continuous auctions and insider trading, Econometrica. Arguments as for `impact_bars`, results as
    for `flow_regression`.
    """
    bars = impact_bars(trades.lazy(), quotes, interval_ns, sign=sign, incidents=incidents)
    return flow_regression(bars, hac_lags=hac_lags)


def hasbrouck_lambda(
    trades: pl.LazyFrame | pl.DataFrame,
    quotes: pl.LazyFrame | pl.DataFrame,
    interval_ns: int = 300_000_000_000,
    *,
    sign: pl.Expr | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
    hac_lags: int | None = None,
) -> pl.DataFrame:
    """Hasbrouck's lambda: the slope of the mid's log return on the sum of D sqrt(p q), over five minutes by default.

    Hasbrouck (2009), Trading costs and returns for U.S. equities: estimating effective costs from daily data, Journal
    of Finance, where the regression has no constant. Arguments as for `impact_bars`, results as for `flow_regression`.
    """
    bars = impact_bars(trades.lazy(), quotes, interval_ns, sign=sign, incidents=incidents)
    return flow_regression(bars, change="mid_return", flow="signed_root_value", hac_lags=hac_lags)


def amihud(
    price: Column = "close",
    value: Column = "value",
    *,
    returns: Literal["log", "simple"] = "log",
    window: int | None = None,
) -> pl.Expr:
    """Amihud's illiquidity, the mean of |r| / value traded, over bars.

    Amihud (2002), Illiquidity and stock returns: cross-section and time-series effects, Journal of Financial Markets.

    Args:
        price: Closes of the bars.
        value: Value traded in each bar, price times size; bars without trading are left out.
        returns: `log`, or `simple` as in the paper.
        window: Number of bars of a rolling mean; None: one number.
    """
    close, traded = column(price), column(value)
    change = close.log().diff() if returns == "log" else close / close.shift(1) - 1
    ratio = pl.when(traded > 0).then(change.abs() / traded)
    return (ratio.mean() if window is None else ratio.rolling_mean(window)).alias("amihud")


def bar_kyle(price: Column = "close", volume: Column = "volume", *, window: int | None = None) -> pl.Expr:
    """Kyle's lambda as it is read off bars without signs: the mean of dp / (b V), b the sign of the last change.

    So mlfinlab has it. López de Prado (2018), Advances in Financial Machine Learning, section 19.4.1, has the slope of
    dp on b V instead. Since dp has the sign b wherever it is not nil, the mean is that of |dp| / V, a measure of
    illiquidity rather than a slope; `kyle_lambda` is the regression.

    Args:
        price: Closes of the bars.
        volume: Lots traded in each bar; bars without trading are left out.
        window: Number of bars of a rolling mean; None: one number.
    """
    change, traded = column(price).diff(), column(volume)
    ratio = pl.when(traded > 0).then(change.abs() / traded)
    return (ratio.mean() if window is None else ratio.rolling_mean(window)).alias("bar_kyle")
