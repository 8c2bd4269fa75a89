"""What waits in the book: depth, its slope, the cost of taking it, how it recovers, and its picture.

Snapshots of the book flow in (`book.book_snapshots`: `bid_price_0`, `bid_size_0`, `ask_price_0`, ...). Measures of a
snapshot are expressions, so that they stand beside each other in one `with_columns`, `mean_over_time` or group; sizes
are lots, prices are in price units. A snapshot without any level is a book that is not known: every measure of it is
null. A side that is empty while the other is not has depth 0.

The imbalance of the sizes at one or several levels is `flow.queue_imbalance`, the flow into them
`flow.order_flow_imbalance`, the quote slope `spreads.quoted_slope`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import polars as pl

from mdcapture.errors import UsageError
from mdcapture.metrics.distribution import aggressive_orders
from mdcapture.metrics.frames import (
    Frame,
    alike,
    by_group,
    key_columns,
    lasting,
    mid_at,
    order_columns,
    prevailing,
    previous_tick,
    weighted_mean,
)
from mdcapture.metrics.spreads import time_to_revert

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Side",
    "book_quotes",
    "book_slope",
    "cost_to_trade",
    "cumulative_depth",
    "depth_within",
    "half_life",
    "heatmap",
    "mean_over_time",
    "recovery_path",
    "round_trip_cost",
    "sweeps",
    "swept_depth",
    "widenings",
]

Side = Literal["bid", "ask"]

_ON_GRID = 1e-6  # of a tick: the error of decimal text in binary


def _known() -> pl.Expr:
    return pl.col("bid_price_0").is_not_null() | pl.col("ask_price_0").is_not_null()


def _mid() -> pl.Expr:
    return (pl.col("bid_price_0") + pl.col("ask_price_0")) / 2


def _outward(side: Side) -> int:
    """The direction in which a side's prices get worse."""
    return 1 if side == "ask" else -1


def book_quotes(book: Frame) -> Frame:
    """The snapshots as quotes, with `best_bid` and `best_ask`: what the functions of quotes take."""
    return book.with_columns(best_bid=pl.col("bid_price_0"), best_ask=pl.col("ask_price_0"))


def cumulative_depth(side: Side, levels: int) -> pl.Expr:
    """The lots at the best levels of a side, q_1 + ... + q_k; fewer levels where there are no more."""
    depth = pl.sum_horizontal(pl.col(f"{side}_size_{m}") for m in range(levels))
    return pl.when(_known()).then(depth).alias(f"{side}_depth_{levels}")


def depth_within(
    side: Side, ticks: float, tick_size: float | pl.Expr, *, levels: int = 10, origin: Literal["best", "mid"] = "best"
) -> pl.Expr:
    """The lots of a side at most some ticks away; null where the snapshot's levels don't reach so far.

    Args:
        side: The side.
        ticks: The greatest distance, in ticks.
        tick_size: The tick in price units, or an expression of it where contracts differ.
        levels: How many levels the snapshots have. Where all are within, more may be beyond the last one.
        origin: What the distance is counted from: the side's best price, or the mid.
    """
    start = pl.col(f"{side}_price_0") if origin == "best" else _mid()
    away = [_outward(side) * (pl.col(f"{side}_price_{m}") - start) / tick_size for m in range(levels)]
    within = pl.sum_horizontal(
        pl.when(distance <= ticks + _ON_GRID).then(pl.col(f"{side}_size_{m}")) for m, distance in enumerate(away)
    )
    unseen = away[-1] < ticks - _ON_GRID
    known = _known() if origin == "best" else _mid().is_not_null()
    return pl.when(known & ~unseen.fill_null(value=False)).then(within).alias(f"{side}_depth_within_{ticks:g}_ticks")


def book_slope(
    side: Side | None = None, *, levels: int = 10, scale: Literal["elasticity", "lots"] = "elasticity"
) -> pl.Expr:
    """How fast depth grows with the distance to the mid: the mean slope between successive levels.

    With p_0 the mid, v_i the logarithm of the lots at the first i levels, and N levels:

        (1/N) ( v_1 / |p_1/p_0 - 1|  +  sum for i = 1 to N - 1 of (v_{i+1}/v_i - 1) / |p_{i+1}/p_i - 1| )

    Næs and Skjeltorp (2006), "Order Book Characteristics and the Volume-Volatility Relation: Empirical Evidence from a
    Limit Order Market", Journal of Financial Markets 9. Null where a side has fewer levels, or one lot at the first
    (its logarithm is nil), and where the book is locked.

    Args:
        side: One side; None is the mean of both, the paper's slope of the book.
        levels: N.
        scale: "elasticity" is the paper's; "lots" is in lots for a price unit: v the lots themselves, differences
            instead of ratios.
    """
    suffix = "_lots" if scale == "lots" else ""
    if side is None:
        both = book_slope("bid", levels=levels, scale=scale) + book_slope("ask", levels=levels, scale=scale)
        return (both / 2).alias(f"book_slope{suffix}")
    prices = [_mid(), *(pl.col(f"{side}_price_{m}") for m in range(levels))]
    lots = [pl.sum_horizontal(pl.col(f"{side}_size_{i}") for i in range(m + 1)) for m in range(levels)]
    if scale == "elasticity":
        volumes = [volume.log() for volume in lots]
        grows = [volumes[0], *(later / earlier - 1 for earlier, later in pairwise(volumes))]
        slopes = [
            grow / (later / earlier - 1).abs() for grow, (earlier, later) in zip(grows, pairwise(prices), strict=True)
        ]
    else:
        sizes = [pl.col(f"{side}_size_{m}") for m in range(levels)]
        slopes = [
            size / (later - earlier).abs() for size, (earlier, later) in zip(sizes, pairwise(prices), strict=True)
        ]
    mean = pl.sum_horizontal(slopes, ignore_nulls=False) / levels
    return pl.when(mean.is_finite()).then(mean).alias(f"{side}_slope{suffix}")


def _paid(side: Side, lots: float, levels: int) -> pl.Expr:
    """The mean price of taking lots from a side, null where it has fewer."""
    if not lots > 0:
        raise UsageError(f"an order has a positive size, not {lots} lots: nothing was computed")
    sizes = [pl.col(f"{side}_size_{m}").fill_null(0) for m in range(levels)]
    before = [pl.sum_horizontal(pl.lit(0), *sizes[:m]) for m in range(levels)]
    filled = [(lots - ahead).clip(0, size) for ahead, size in zip(before, sizes, strict=True)]
    paid = pl.sum_horizontal(pl.col(f"{side}_price_{m}") * fill for m, fill in enumerate(filled))
    return pl.when(pl.sum_horizontal(sizes) >= lots).then(paid / lots)


def cost_to_trade(
    side: Literal["buy", "sell"], lots: float, *, levels: int = 10, scale: Literal["price", "bps"] = "price"
) -> pl.Expr:
    """What an order of Q lots that sweeps the book pays above the mid, or gets below it, for each lot.

    For a buyer sum of p_i min(q_i, what is left) / Q - m over the asks. Within the best level this is half the spread.
    Null where the levels hold fewer lots, or a side is missing.

    Args:
        side: The aggressor's side.
        lots: Q.
        levels: How many levels the snapshots have.
        scale: In price units, or in 1/10,000 of the mid.

    Raises:
        UsageError: `lots` is not positive.
    """
    cost = _paid("ask", lots, levels) - _mid() if side == "buy" else _mid() - _paid("bid", lots, levels)
    return (cost if scale == "price" else 1e4 * cost / _mid()).alias(f"{side}_cost_{lots:g}")


def round_trip_cost(lots: float, *, levels: int = 10, scale: Literal["price", "bps"] = "bps") -> pl.Expr:
    """What buying Q lots and selling them at once costs for each lot: the two of `cost_to_trade` together.

    In basis points this is the exchange liquidity measure (XLM), for a size in lots instead of euros. Gomber,
    Schweickert and Theissen (2015), "Liquidity Dynamics in an Electronic Open Limit Order Book: An Event Study
    Approach", European Financial Management 21.
    """
    buy = cost_to_trade("buy", lots, levels=levels, scale=scale)
    sell = cost_to_trade("sell", lots, levels=levels, scale=scale)
    return (buy + sell).alias(f"round_trip_cost_{lots:g}")


def mean_over_time(
    book: Frame,
    measures: Sequence[pl.Expr],
    *,
    until: pl.LazyFrame | pl.DataFrame | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """The mean of measures of the book in each group, each snapshot weighted by the time that it holds.

    Args:
        book: Snapshots with `recv_ns`.
        measures: Expressions with names, such as `cumulative_depth("bid", 5)`; each is averaged over the time in which
            it is not null.
        until: Events whose last ends the data, see `frames.lasting`.
        incidents: Gaps, see `frames.stretches`; a state ends where one begins.

    Returns:
        Key columns, a column for each measure, `duration_s` (the time in which the book is known) and `n` snapshots of
        a known book.
    """
    names = [measure.meta.output_name() for measure in measures]
    rows: pl.LazyFrame = lasting(book.lazy(), until=until, incidents=incidents)
    rows = rows.filter(_known()).select(*key_columns(rows), *measures, _held=pl.col("duration_ns"))
    held = pl.col("_held")
    means = {name: weighted_mean(pl.col(name), held) for name in names}
    return alike(by_group(rows, **means, duration_s=held.sum() / 1e9, n=pl.len().cast(pl.Int64)), book)


def sweeps(trades: Frame, book: pl.LazyFrame | pl.DataFrame) -> Frame:
    """The aggressive orders that took at least all that waited at the best price before them.

    Args:
        trades: Trades with `exch_ns`; the prints of one order are joined, see `distribution.aggressive_orders`.
        book: Snapshots.

    Returns:
        The rows of `aggressive_orders` that sweep, with `touch_size`, the lots at the best opposite price before.
    """
    orders = prevailing(aggressive_orders(trades), book, ["bid_size_0", "ask_size_0"])
    touch = pl.when(pl.col("side") == 0).then(pl.col("ask_size_0")).when(pl.col("side") == 1).then(pl.col("bid_size_0"))
    swept = orders.with_columns(touch_size=touch).filter(pl.col("volume") >= pl.col("touch_size"))
    return swept.drop("bid_size_0", "ask_size_0")


def widenings(
    book: Frame,
    tick_size: float | pl.Expr,
    *,
    normal_ticks: int = 1,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """The moments at which the spread becomes wider than normal, as events.

    They have `recv_ns` and the columns of `spreads.time_to_revert`, whose arguments these are.
    """
    episodes = time_to_revert(book_quotes(book), tick_size, normal_ticks=normal_ticks, incidents=incidents)
    return episodes.rename({"from_ns": "recv_ns"})


def swept_depth(*, levels: int = 10) -> pl.Expr:
    """The lots on the side that an order took from, at prices up to that of its last print: how much is back.

    For events with `side` and `last_price`, such as `sweeps`, in `recovery_path`.
    """
    price, bought = pl.col("last_price"), pl.col("side") == 0
    asks = [pl.when(pl.col(f"ask_price_{m}") <= price).then(pl.col(f"ask_size_{m}")) for m in range(levels)]
    bids = [pl.when(pl.col(f"bid_price_{m}") >= price).then(pl.col(f"bid_size_{m}")) for m in range(levels)]
    depth = pl.when(bought).then(pl.sum_horizontal(asks)).otherwise(pl.sum_horizontal(bids))
    return pl.when(_known()).then(depth).alias("swept_depth")


def recovery_path(
    events: Frame,
    book: pl.LazyFrame | pl.DataFrame,
    measure: pl.Expr,
    horizons_ns: Sequence[int],
    *,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """How a measure of the book moves after events: the mean change since just before them, at each horizon.

    An event study as in Degryse, de Jong, van Ravenswaaij and Wuyts (2005), "Aggressive Orders and the Resiliency of a
    Limit Order Market", Review of Finance 9.

    Args:
        events: Rows with `recv_ns`, such as `sweeps` or `widenings`.
        book: Snapshots.
        measure: What to measure, an expression of the snapshot's and the event's columns: `swept_depth()`, or the
            spread, `pl.col("ask_price_0") - pl.col("bid_price_0")`.
        horizons_ns: The times after the events (ns), not below 0.
        incidents: Gaps, see `frames.stretches`; no horizon reaches across one.

    Returns:
        Key columns, `horizon_ns`, `change` (the mean of the measure at the horizon less that before the event) and `n`
        (events that have both).

    Raises:
        UsageError: There is no horizon, or one is below 0.
    """
    if not horizons_ns or min(horizons_ns) < 0:
        raise UsageError(f"horizons are times from 0 on, not {list(horizons_ns)}: nothing was computed")
    keys: list[str] = key_columns(events, book)
    snapshots = book.lazy().with_columns(mid=pl.int_range(pl.len()))  # what `prevailing` and `mid_at` look up
    states = snapshots.select(*key_columns(book), *order_columns(book), "mid")
    levels = snapshots.drop(*key_columns(book), *order_columns(book))

    def measured(rows: pl.LazyFrame, name: str) -> pl.LazyFrame:
        joined = rows.join(levels, left_on=name, right_on="mid", how="left", maintain_order="left")
        return joined.with_columns(measure.cast(pl.Float64).alias(name)).select(rows.collect_schema().names())

    rows: pl.LazyFrame = prevailing(events.lazy(), states, ["mid"], incidents=incidents).rename({"mid": "_before"})
    rows = measured(rows, "_before")
    afters = [
        measured(mid_at(rows, states, horizon_ns, name="_after", incidents=incidents), "_after").select(
            *keys, horizon_ns=pl.lit(horizon_ns, pl.Int64), change=pl.col("_after") - pl.col("_before")
        )
        for horizon_ns in horizons_ns
    ]
    by = [*keys, "horizon_ns"]
    paths = (
        pl.concat(afters).group_by(by).agg(change=pl.col("change").mean(), n=pl.col("change").count().cast(pl.Int64))
    )
    return alike(paths.sort(by), events)


def half_life(path: Frame, effect: Literal["rise", "fall"]) -> Frame:
    """How long a measure takes to come back half of the way: from its greatest mean change to half of that.

    Between two horizons the path is taken to be a straight line, so that the horizons' grid is the resolution.

    Args:
        path: What `recovery_path` returns.
        effect: What the events do to the measure at first: a spread rises, depth falls.

    Returns:
        Key columns, `peak` (the greatest change in that direction), `peak_ns` (its horizon), `half_life_ns` (Float64;
        from there to half of it) and `n` (events at the peak). Null where there is no such change, or where the path
        does not come back so far.
    """
    by = [*key_columns(path), "horizon_ns"]
    rows = path.lazy().filter(pl.col("change").is_not_null()).sort(by)
    change, horizon = pl.col("change"), pl.col("horizon_ns")
    top = change.arg_max() if effect == "rise" else change.arg_min()

    def at(values: pl.Expr, place: pl.Expr) -> pl.Expr:
        return values.get(place, null_on_oob=True)

    peak = at(change, top)
    left = change / peak
    half = (pl.int_range(pl.len()) > top) & (left <= 0.5)
    after = half.arg_max()
    share = (at(left, after - 1) - 0.5) / (at(left, after - 1) - at(left, after))
    reached = at(horizon, after - 1) + share * (at(horizon, after) - at(horizon, after - 1))
    moved = peak > 0 if effect == "rise" else peak < 0
    result = by_group(
        rows,
        peak=pl.when(moved).then(peak),
        peak_ns=pl.when(moved).then(at(horizon, top)),
        half_life_ns=pl.when(moved & half.any()).then(reached - at(horizon, top)),
        n=at(pl.col("n"), top),
    )
    return alike(result, path)


def heatmap(
    book: Frame, every_ns: int, *, levels: int = 10, incidents: pl.LazyFrame | pl.DataFrame | None = None
) -> Frame:
    """The book as a picture of price and time: what waits at each price at the end of each interval.

    Args:
        book: Snapshots with `recv_ns`.
        every_ns: The width of a bin of time; bins end at its whole multiples in UTC.
        levels: How many levels the snapshots have.
        incidents: Gaps, see `frames.stretches`: there are no bins inside of one.

    Returns:
        A row for each level: key columns, `end_ns` (of the bin), `price`, `side` ("bid" or "ask"), `size` (lots), by
        time and price.

    Raises:
        UsageError: `every_ns` is not positive.
    """
    keys: list[str] = key_columns(book)
    places = [(side, m) for side in ("bid", "ask") for m in range(levels)]
    columns = [f"{side}_{what}_{m}" for side, m in places for what in ("price", "size")]
    bins: pl.LazyFrame = previous_tick(book.lazy(), every_ns, columns, incidents=incidents)
    cells = [
        bins.select(
            *keys,
            end_ns="recv_ns",
            price=f"{side}_price_{m}",
            side=pl.lit(side, pl.Enum(["bid", "ask"])),
            size=f"{side}_size_{m}",
        )
        for side, m in places
    ]
    return alike(pl.concat(cells).filter(pl.col("price").is_not_null()).sort([*keys, "end_ns", "price"]), book)
