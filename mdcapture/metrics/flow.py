"""Order flow: who was the aggressor and by how much, what the book's best levels gained and lost, how long it lasts.

Trades flow in for signed volume, delta, VPIN and the memory of signs; snapshots of the book (`bid_price_0`,
`bid_size_0`, `ask_price_0`, `ask_size_0`, …) for everything that needs sizes. With D = +1 for a buyer's aggression and
-1 for a seller's, and q the lots, the signed volume of a trade is D q; a trade whose side is not known has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from mdcapture.errors import UsageError
from mdcapture.metrics import asof
from mdcapture.metrics.distribution import autocorrelation
from mdcapture.metrics.frames import ORDER, Column, Frame, begins, by_group, column, each_group, key_columns, trade_sign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mdcapture.metrics.asof import Gaps

__all__ = [
    "cumulative_delta",
    "decay_exponent",
    "integrated_ofi",
    "ofi_bars",
    "ofi_weights",
    "order_flow",
    "order_flow_imbalance",
    "queue_imbalance",
    "rolling_vpin",
    "sign_autocorrelation",
    "signed_volume",
    "trade_imbalance",
    "volume_buckets",
    "vpin",
    "weighted_mid",
]


def signed_volume(volume: Column = "volume", *, side: str = "side") -> pl.Expr:
    """D q of each trade (lots); its sum over any group of trades is the group's delta."""
    return (trade_sign(side) * column(volume)).alias("signed_volume")


def trade_imbalance(volume: Column = "volume", *, side: str = "side") -> pl.Expr:
    """Sum of D q over sum of q, of the trades whose side is known, from -1 (all sold) to 1; null where there are none.

    Chordia and Subrahmanyam (2004), "Order Imbalance and Individual Stock Returns: Theory and Evidence", Journal of
    Financial Economics 72.
    """
    known = column(volume).filter(trade_sign(side).is_not_null()).sum()
    return pl.when(known > 0).then(signed_volume(volume, side=side).sum() / known).alias("imbalance")


def order_flow(trades: Frame) -> Frame:
    """The flow of each group, as one row.

    Args:
        trades: Trades in any order, with `volume`, `side` and the keys they are grouped by.

    Returns:
        Key columns, `buy_volume`, `sell_volume`, `unknown_volume`, `delta` (lots, buys less sells), `imbalance`
        (delta over buys plus sells), `buys`, `sells` (counts), `count_imbalance`, `n` (trades).
    """
    volume, buy, sell = pl.col("volume"), pl.col("side") == 0, pl.col("side") == 1
    flow = by_group(
        trades,
        buy_volume=volume.filter(buy).sum(),
        sell_volume=volume.filter(sell).sum(),
        volume=volume.sum(),
        buys=buy.sum().cast(pl.Int64),
        sells=sell.sum().cast(pl.Int64),
        n=pl.len().cast(pl.Int64),
    )
    bought, sold, buys, sells = (pl.col(name) for name in ("buy_volume", "sell_volume", "buys", "sells"))
    return flow.select(
        *key_columns(trades),
        "buy_volume",
        "sell_volume",
        unknown_volume=volume - bought - sold,
        delta=bought - sold,
        imbalance=pl.when(bought + sold > 0).then((bought - sold) / (bought + sold)),
        buys=buys,
        sells=sells,
        count_imbalance=pl.when(buys + sells > 0).then((buys - sells) / (buys + sells)),
        n="n",
    )


def cumulative_delta(
    trades: Frame, *, by: Sequence[str] = (), incidents: pl.LazyFrame | pl.DataFrame | None = None
) -> Frame:
    """Add `signed_volume` and `cumulative_delta`, the sum of it up to and with each trade (lots, Int64).

    Args:
        trades: Trades with `recv_ns`, `volume`, `side`; the result has them in the order of events.
        by: More columns at whose changes the sum starts again at zero, such as a trading day.
        incidents: Gaps; the sum starts again after each, since what was missed is not known.
    """
    total = pl.col("signed_volume").fill_null(0).cum_sum()
    before = total.shift(fill_value=0)

    def metric(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        rows = asof.with_stretch(own, gaps).lazy().with_columns(signed_volume().cast(pl.Int64))
        resets = [*(["stretch"] if len(gaps.edge_ns) else []), *by]
        start = pl.when(begins(*resets)).then(before).forward_fill() if resets else 0
        return rows.with_columns(cumulative_delta=total - start).drop("stretch").collect(engine="in-memory")

    return each_group(metric, trades, incidents=incidents)


def queue_imbalance(*, levels: int = 1, scale: Literal["signed", "share"] = "signed") -> pl.Expr:
    """How the sizes waiting at the best levels lean: (Qb - Qa) / (Qb + Qa), null where both are empty.

    Gould and Bonart (2016), "Queue Imbalance as a One-Tick-Ahead Price Predictor in a Limit Order Book", Market
    Microstructure and Liquidity 2.

    Args:
        levels: How many levels Qb and Qa are summed over.
        scale: "signed" from -1 to 1; "share" is Qb / (Qb + Qa), from 0 to 1, as in Stoikov's micro-price.
    """
    bids = pl.sum_horizontal(pl.col(f"bid_size_{m}") for m in range(levels))
    asks = pl.sum_horizontal(pl.col(f"ask_size_{m}") for m in range(levels))
    lean = bids - asks if scale == "signed" else bids
    return pl.when(bids + asks > 0).then(lean / (bids + asks)).alias("queue_imbalance")


def weighted_mid() -> pl.Expr:
    """The mid weighted by the opposite queues, (bid Qa + ask Qb) / (Qa + Qb); null where a side is missing."""
    bid, ask = pl.col("bid_price_0"), pl.col("ask_price_0")
    return (bid + queue_imbalance(scale="share") * (ask - bid)).alias("weighted_mid")


def order_flow_imbalance(
    book: Frame, *, levels: int = 1, incidents: pl.LazyFrame | pl.DataFrame | None = None
) -> Frame:
    """Add `ofi_0`, …: what each snapshot's change of a level says about supply and demand there (lots).

    e = 1{Pb >= Pb'} Qb - 1{Pb <= Pb'} Qb' - 1{Pa <= Pa'} Qa + 1{Pa >= Pa'} Qa', with ' for the snapshot before: a bid
    that grows, rises or is new adds, and an ask likewise takes away. Level m is compared with level m. A side without a
    level counts as one of no size, infinitely far away. Null where there is no snapshot before, or where it or this one
    has neither side.

    Cont, Kukanov and Stoikov (2014), "The Price Impact of Order Book Events", Journal of Financial Econometrics 12;
    by level: Xu, Gould and Howison (2018), "Multi-Level Order-Flow Imbalance in a Limit Order Book", Market
    Microstructure and Liquidity 4.

    Args:
        book: Snapshots with `recv_ns`; the result has them in the order of events.
        levels: How many levels.
        incidents: Gaps; nothing is compared across one.
    """
    flows = [_level_flow(m) for m in range(levels)]

    def metric(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        rows = asof.with_stretch(own, gaps).lazy().with_columns(flows)
        return rows.drop("stretch").collect(engine="in-memory")

    return each_group(metric, book, incidents=incidents)


def _level_flow(level: int) -> pl.Expr:
    bid, ask = pl.col(f"bid_price_{level}"), pl.col(f"ask_price_{level}")
    flow = _queue_flow(bid.fill_null(-np.inf), pl.col(f"bid_size_{level}").fill_null(0))
    flow -= _queue_flow(-ask.fill_null(np.inf), pl.col(f"ask_size_{level}").fill_null(0))
    seen = bid.is_not_null() | ask.is_not_null()
    return pl.when(~begins("stretch") & seen & seen.shift()).then(flow).alias(f"ofi_{level}")


def _queue_flow(price: pl.Expr, size: pl.Expr) -> pl.Expr:
    """The change of a queue where a higher price is a better one."""
    joined = pl.when(price >= price.shift()).then(size).otherwise(0)
    left = pl.when(price <= price.shift()).then(size.shift()).otherwise(0)
    return joined - left


def ofi_bars(
    book: Frame,
    interval_ns: int,
    *,
    levels: int = 1,
    scaled: bool = False,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Order flow imbalance summed over intervals of time.

    Args:
        book: As for `order_flow_imbalance`.
        interval_ns: The interval's length, on the grid of its whole multiples in UTC.
        levels: How many levels.
        scaled: Divide by the interval's average depth, the mean over its snapshots and the levels of (Qb + Qa) / 2.
            Cont, Cucuringu and Zhang (2023), "Cross-Impact of Order Flow Imbalance in Equity Markets", Quantitative
            Finance 23.
        incidents: Gaps; an interval with one inside has a row for each stretch.

    Returns:
        Key columns, `stretch`, `start_ns`, `end_ns`, `ofi_0`, … (lots, or depths), `depth` (lots), `n` (snapshots).

    Raises:
        UsageError: `interval_ns` is not positive.
    """
    if interval_ns <= 0:
        raise UsageError(f"interval_ns must be positive, not {interval_ns}")
    sizes = [pl.col(f"{side}_size_{m}").fill_null(0) for side in ("bid", "ask") for m in range(levels)]
    names = [f"ofi_{m}" for m in range(levels)]
    start_ns, depth = pl.col("recv_ns") // interval_ns * interval_ns, pl.sum_horizontal(sizes) / len(sizes)

    def metric(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        bars = (
            asof.with_stretch(own, gaps)
            .group_by("stretch", start_ns=start_ns, maintain_order=True)
            .agg(pl.col(*names).sum(), depth.mean().alias("depth"), n=pl.len().cast(pl.Int64))
            .select("stretch", "start_ns", pl.col("start_ns").add(interval_ns).alias("end_ns"), *names, "depth", "n")
        )
        return bars.with_columns(pl.col(*names) / pl.col("depth")) if scaled else bars

    return each_group(metric, order_flow_imbalance(book, levels=levels, incidents=incidents), incidents=incidents)


def ofi_weights(bars: pl.DataFrame, *, levels: int) -> NDArray[np.float64]:
    """The first principal component of the levels' flows, shape (levels,), of absolute sum 1 and positive sum.

    Cont, Cucuringu and Zhang (2023), see `ofi_bars`, whose scaled bars it is meant for. Fit it on bars of the past:
    weights from the very bars that they are then applied to look ahead.

    Raises:
        UsageError: Fewer than two bars have flows at all levels.
    """
    flows = bars.select(pl.col(f"ofi_{m}").cast(pl.Float64) for m in range(levels)).drop_nulls().to_numpy()
    flows = flows[np.isfinite(flows).all(axis=1)]
    if len(flows) < 2:
        raise UsageError(f"weights need at least two bars with flows, not {len(flows)}")
    covariance = np.atleast_2d(np.cov(flows, rowvar=False))
    direction = np.linalg.eigh(covariance).eigenvectors[:, -1]
    if direction.sum() < 0:
        direction = -direction
    return np.asarray(direction / np.abs(direction).sum(), dtype=np.float64)


def integrated_ofi(weights: NDArray[np.float64]) -> pl.Expr:
    """The flows of all levels as one: sum over m of weights[m] ofi_m; see `ofi_weights`."""
    flows = [float(weight) * pl.col(f"ofi_{m}") for m, weight in enumerate(weights)]
    return pl.sum_horizontal(flows).alias("integrated_ofi")


def sign_autocorrelation(trades: Frame, max_lag: int, *, incidents: pl.LazyFrame | pl.DataFrame | None = None) -> Frame:
    """The autocorrelation of the signs of successive trades, corr(D_t, D_{t+l}), for lags of 1 to `max_lag` trades.

    Zero mean is not assumed: the mean is removed, and sums of products are divided by the sum of squares of all n.
    One order that trades against several is several prints of one sign: join them first
    (`distribution.aggressive_orders`), or the first lags show the matching engine rather than the market. Trades of
    no known side are left out of the series.

    Lillo and Farmer (2004), "The Long Memory of the Efficient Market", Studies in Nonlinear Dynamics & Econometrics 8;
    Bouchaud, Gefen, Potters and Wyart (2004), "Fluctuations and Response in Financial Markets: The Subtle Nature of
    'Random' Price Changes", Quantitative Finance 4.

    Args:
        trades: Trades with `recv_ns`, `side` and the keys they are grouped by.
        max_lag: The largest lag.
        incidents: Gaps; no pair of trades reaches across one.

    Returns:
        Key columns, `lag`, `autocorrelation` (null where the series is constant), `n` (trades of the series).
    """
    return autocorrelation(trades, trade_sign(), max_lag, incidents=incidents)


def decay_exponent(correlations: Frame, *, min_lag: int = 1, max_lag: int | None = None) -> Frame:
    """How fast an autocorrelation falls: least squares of log C(l) on log l gives C(l) = amplitude l^-gamma.

    Gamma below 1 is long memory. Lags whose correlation is not positive have no logarithm and are left out, which
    flatters the tail: keep `max_lag` where the correlations stand clear of 1 / sqrt(n). The points are correlated, so
    that `gamma_se`, the regression's own, is too small. Lillo and Farmer (2004), see `sign_autocorrelation`.

    Args:
        correlations: Rows of `lag` and `autocorrelation`, with keys.
        min_lag: The first lag of the fit.
        max_lag: The last lag of the fit; by default all that there are.

    Returns:
        Key columns, `gamma`, `gamma_se`, `amplitude`, `r_squared`, `n` (lags); null where there are too few.
    """
    lag, correlation = pl.col("lag"), pl.col("autocorrelation")
    used = (lag >= min_lag) & (correlation > 0)
    if max_lag is not None:
        used &= lag <= max_lag
    x, y = lag.filter(used).log(), correlation.filter(used).log()
    n, dx, dy = x.len(), x - x.mean(), y - y.mean()
    sxx, sxy, syy = (dx * dx).sum(), (dx * dy).sum(), (dy * dy).sum()
    slope = pl.when(sxx > 0).then(sxy / sxx)
    residual = pl.max_horizontal(syy - slope * sxy, 0.0)
    return by_group(
        correlations,
        gamma=-slope,
        gamma_se=pl.when(n > 2).then((residual / (n - 2) / sxx).sqrt()),
        amplitude=(y.mean() - slope * x.mean()).exp(),
        r_squared=pl.when(syy > 0).then(1 - residual / syy),
        n=n.cast(pl.Int64),
    )


def volume_buckets(
    events: Frame,
    bucket_volume: int,
    *,
    clock: str = "recv_ns",
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Buckets of exactly equal volume: an event that overfills one is split between it and the next.

    Within an event, buys and sells are taken to be spread evenly. A last bucket that is not full is no row.

    Args:
        events: Trades (`volume`, `side`; volume of no side counts half to each), or bars with `volume` and
            `buy_volume`, such as time bars whose `buy_volume` comes from `classification.bulk_buy_volume`. Bars keep
            the stretches that they have.
        bucket_volume: The volume V of a bucket (lots).
        clock: The column that orders events; `end_ns` for bars.
        incidents: Gaps; after each a new bucket begins.

    Returns:
        Key columns, `stretch`, `bucket` (0, 1, …), `end_ns` (when it was full), `volume` (V), `buy_volume`,
        `sell_volume` (lots, fractions where an event was split).

    Raises:
        UsageError: `bucket_volume` is not positive.
    """
    if bucket_volume <= 0:
        raise UsageError(f"bucket_volume must be positive, not {bucket_volume}")
    present = events.collect_schema().names()
    volume = pl.col("volume")
    bought = pl.col("buy_volume") if "buy_volume" in present else volume * (trade_sign().fill_null(0.0) + 1) / 2

    def metric(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        rows = own if "stretch" in present else asof.with_stretch(own, gaps)
        rows = rows.select("stretch", "volume", _buys=bought, end_ns=clock).drop_nulls("_buys")
        buckets = pl.concat(_buckets(piece, bucket_volume) for piece in asof.pieces(rows))
        return buckets.select(
            "stretch",
            "bucket",
            "end_ns",
            pl.lit(bucket_volume, pl.Int64).alias("volume"),
            "buy_volume",
            (bucket_volume - pl.col("buy_volume")).alias("sell_volume"),
        )

    by = ORDER if clock == "recv_ns" else [name for name in ("stretch", clock) if name in present]
    return each_group(metric, events, incidents=incidents, order=by)


def _buckets(rows: pl.DataFrame, bucket_volume: int) -> pl.DataFrame:
    """The full buckets of one stretch: at each multiple of their volume, what was bought of all volume so far."""
    volume, buys = (rows[name].to_numpy() for name in ("volume", "_buys"))
    total, bought = np.cumsum(volume), np.cumsum(buys)
    full_at = np.arange(1, total.max(initial=0) // bucket_volume + 1) * bucket_volume
    row = np.searchsorted(total, full_at)
    bought_by_then = bought[row] - (total[row] - full_at) * buys[row] / volume[row]
    return rows[row].select(
        "stretch",
        "end_ns",
        bucket=pl.int_range(pl.len()),
        buy_volume=pl.Series(np.diff(bought_by_then, prepend=0.0), dtype=pl.Float64),
    )


def rolling_vpin(
    buy_volume: Column = "buy_volume",
    volume: Column = "volume",
    *,
    window: int = 50,
    divisor: Literal["window", "bar"] = "window",
) -> pl.Expr:
    """VPIN along a series of buckets or bars: sum |Vb - Vs| / sum V over the last `window` of them.

    Args:
        buy_volume: Vb of each bucket; Vs is the rest of its volume.
        volume: V of each bucket.
        window: The number n of buckets; null before there are as many.
        divisor: "window" is the paper's, n V where buckets are equal. "bar" is mlfinlab's: the mean of |Vb - Vs|
            divided by the newest bar's own volume; the two agree only where all volumes are equal.
    """
    imbalance = (2 * column(buy_volume) - column(volume)).abs()
    if divisor == "window":
        return (imbalance.rolling_sum(window) / column(volume).rolling_sum(window)).alias("vpin")
    return (imbalance.rolling_mean(window) / column(volume)).alias("vpin")


def vpin(
    events: Frame,
    bucket_volume: int,
    *,
    window: int = 50,
    clock: str = "recv_ns",
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """The volume-synchronized probability of informed trading, at the end of each volume bucket.

    Easley, López de Prado and O'Hara (2012), "Flow Toxicity and Liquidity in a High-Frequency World", Review of
    Financial Studies 25. The authors classify bars of one minute in bulk before they fill buckets; with the feed's own
    side that is not needed, and trades are used. For theirs hand in bars, see `volume_buckets`, whose columns and
    errors these are, with `vpin` added: null for the first `window` - 1 buckets of each stretch.
    """
    buckets = volume_buckets(events, bucket_volume, clock=clock, incidents=incidents)
    keys: list[str] = [*key_columns(events), "stretch"]
    return buckets.with_columns(vpin=rolling_vpin(window=window).over(keys))
