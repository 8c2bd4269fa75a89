"""What it costs to trade, from quotes and from trades matched with them: quoted, effective and realized spreads.

Quotes flow in as states and are weighted by the time that they hold; trades flow in as events and are held against the
mid before them and the mids after them. With D = +1 for a buyer's aggression and -1 for a seller's, price p, mid m:

    effective spread  2 D (p - m)          realized spread  2 D (p - m after h)        price impact  2 D (m after h - m)

so that effective = realized + impact, on every scale: for `relative` and `bps` all three are divided by m at the trade.
Spreads are full spreads, the cost of a round trip; `half=True` gives the cost of one side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import polars as pl

from mdcapture.errors import UsageError
from mdcapture.metrics import asof
from mdcapture.metrics.frames import (
    MID,
    Frame,
    alike,
    by_group,
    each_group,
    neighbour,
    reading,
    trade_sign,
    weighted_mean,
    with_mid,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mdcapture.metrics.asof import Gaps

__all__ = [
    "Scale",
    "horizon_label",
    "mean_spreads",
    "quoted",
    "quoted_slope",
    "quoted_spread",
    "spread_occupancy",
    "time_to_revert",
    "trade_spreads",
]

Scale = Literal["price", "relative", "bps", "log", "ticks"]
"""In price units; as a fraction of the mid; in 1/10,000 of it; as a difference of logarithms; in ticks."""

UNITS_NS = {"h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def horizon_label(horizon_ns: int) -> str:
    """The horizon in the largest unit that divides it: 5_000_000_000 is `5s`, 100_000_000 is `100ms`."""
    unit = next(unit for unit, size_ns in UNITS_NS.items() if horizon_ns % size_ns == 0 or unit == "ns")
    return f"{horizon_ns // UNITS_NS[unit]}{unit}"


def _scaled(high: pl.Expr, low: pl.Expr, scale: Scale, mid: pl.Expr, tick_size: float | pl.Expr | None) -> pl.Expr:
    """The distance of two prices on a scale."""
    if scale == "log":
        return high.log() - low.log()
    if scale == "relative":
        return (high - low) / mid
    if scale == "bps":
        return 1e4 * (high - low) / mid
    if scale == "ticks":
        if tick_size is None:
            raise UsageError("spreads in ticks need tick_size=: nothing was computed")
        return (high - low) / tick_size
    return high - low


def _suffix(scale: Scale) -> str:
    return "" if scale == "price" else f"_{scale}"


def quoted_spread(
    scale: Scale = "price",
    *,
    bid: str = "best_bid",
    ask: str = "best_ask",
    tick_size: float | pl.Expr | None = None,
) -> pl.Expr:
    """The quoted spread of each state, ask - bid: 0 if it is locked, null if a side is missing or the book is crossed.

    Args:
        scale: See `Scale`; `log` is ln(ask / bid).
        bid: The column of the bid.
        ask: The column of the ask.
        tick_size: The tick in price units, or an expression of it; needed for `ticks` only.

    Raises:
        UsageError: `ticks` without a tick size.
    """
    low, high = pl.col(bid), pl.col(ask)
    spread = pl.when(asof.two_sided(bid, ask)).then(_scaled(high, low, scale, (high + low) / 2, tick_size))
    return spread.alias(f"quoted_spread{_suffix(scale)}")


def quoted(
    quotes: Frame,
    *,
    scales: Sequence[Scale] = ("price", "bps"),
    weight: Literal["time", "event"] = "time",
    tick_size: float | pl.Expr | None = None,
    until: pl.LazyFrame | pl.DataFrame | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """The mean quoted spread of each group: sum(S dt) / sum(dt), each state weighted by the time that it holds.

    Args:
        quotes: The lake's quotes.
        scales: One column for each: `quoted_spread`, `quoted_spread_bps`, ...
        weight: `event` weights every quote message alike, as studies without exact times do.
        tick_size: For the scale `ticks`.
        until: Events whose last ends the data (see `lasting`); without it the last quote has no weight.
        incidents: Gaps, see `stretches`; a state ends where one begins.

    Returns:
        Key columns, a column for each scale, `duration_s` (time with a two-sided book) and `n` (two-sided quotes).

    Raises:
        UsageError: `ticks` without a tick size.
    """
    spreads = [quoted_spread(scale, tick_size=tick_size) for scale in scales]
    held = pl.when(asof.two_sided()).then(pl.col("duration_ns"))
    by_time = pl.when(held.sum() != 0).then(pl.lit(1.0)) / held.sum()
    means = [
        ((spread * held).sum() * by_time if weight == "time" else spread.mean()).alias(spread.meta.output_name())
        for spread in spreads
    ]

    def metric(own: pl.DataFrame, ends: pl.DataFrame | None, gaps: Gaps) -> pl.DataFrame:
        states = asof.with_duration(own, ends, gaps).lazy()
        figures = states.select(*means, duration_s=held.sum() / 1e9, n=held.count().cast(pl.Int64))
        return figures.collect(engine="in-memory")

    ends = None if until is None else reading(until)
    return alike(each_group(metric, reading(quotes, *spreads), ends, incidents=incidents), quotes)


def quoted_slope(
    scale: Literal["price", "log"] = "price",
    *,
    bid: str = "best_bid",
    ask: str = "best_ask",
    bid_size: str = "bid_size_0",
    ask_size: str = "ask_size_0",
) -> pl.Expr:
    """The quote slope, spread / (ln bid size + ln ask size); on the scale `log`, of ln(ask / bid).

    Hasbrouck and Seppi (2001), Common factors in prices, order flows, and liquidity, Journal of Financial Economics.
    Null where both sizes are 1 (their logarithms are nil) or a side is missing.
    """
    sizes = pl.col(bid_size).log() + pl.col(ask_size).log()
    return (
        pl.when(sizes > 0).then(quoted_spread(scale, bid=bid, ask=ask) / sizes).alias(f"quoted_slope{_suffix(scale)}")
    )


def trade_spreads(
    trades: Frame,
    quotes: pl.LazyFrame | pl.DataFrame | None,
    horizons_ns: Sequence[int] = (),
    *,
    horizons_trades: Sequence[int] = (),
    scales: Sequence[Scale] = ("price", "bps"),
    half: bool = False,
    sign: pl.Expr | None = None,
    tick_size: float | pl.Expr | None = None,
    clock: str = "recv_ns",
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Add to each trade its effective spread, and its realized spread and price impact at each horizon.

    Effective spread: Lee (1993), Market integration and price execution for NYSE-listed securities, Journal of Finance.
    Realized spread and impact: Bessembinder and Kaufman (1997), A comparison of trade execution costs for NYSE and
    NASDAQ-listed stocks, Journal of Financial and Quantitative Analysis; before them, with the price of a later trade
    instead of a later mid, Huang and Stoll (1996), Dealer versus auction markets: a paired comparison of execution
    costs on NASDAQ and the NYSE, Journal of Financial Economics.

    Args:
        trades: The lake's trades; any frame with `recv_ns`, `price` and a sign.
        quotes: The lake's quotes. None: the trades carry `best_bid` and `best_ask` (or `mid`) of their own.
        horizons_ns: Horizons in time (ns), at which the mid is that of the last quote at or before.
        horizons_trades: Horizons in trades, as in the literature: the mid before the k-th later trade of the group.
        scales: One set of columns for each.
        half: Half spreads, the cost of one side: D (p - m) and so on.
        sign: +1, -1 or null for each trade; by default from `side`, the aggressor that the feed reports.
        tick_size: For the scale `ticks`.
        clock: What measures horizons in time: `recv_ns` or `exch_ns`.
        incidents: Gaps, see `stretches`: no mid and no horizon reaches across one.

    Returns:
        The trades in the order of events, with `best_bid`, `best_ask`, `mid`, `sign`, and for each horizon (`5s`,
        `300t`) `mid_5s`; for each scale `effective_spread`, `realized_spread_5s`, `price_impact_5s` with its suffix
        (`_bps`), or `effective_half_spread`, ... A value whose mid is missing is null.

    Raises:
        UsageError: Horizons in time without quotes, a horizon in trades below 1, or `ticks` without a tick size.
    """
    _check_horizons(quotes, horizons_ns, horizons_trades)
    labels = [f"{k}t" for k in horizons_trades] + [horizon_label(h) for h in horizons_ns]
    measures = [
        measure for scale in scales for measure in _trade_measures(scale, labels, half=half, tick_size=tick_size)
    ]

    direction = trade_sign() if sign is None else sign

    def metric(own: pl.DataFrame, states: pl.DataFrame | None, gaps: Gaps) -> pl.DataFrame:
        if states is not None:
            own = asof.prevailing(own, states, gaps, ["best_bid", "best_ask", "mid"])
        own = own.with_columns(sign=direction)
        if states is not None:
            own = _with_mids_later(own, states, gaps, horizons_ns, clock)
        ahead = {f"mid_{k}t": neighbour(pl.col("mid"), ["stretch"], -k) for k in horizons_trades}
        rows = asof.with_stretch(own, gaps).lazy().with_columns(**ahead).with_columns(measures)
        return rows.drop("stretch").collect(engine="in-memory")

    states = None if quotes is None else reading(quotes, *MID, clock)
    given = with_mid(trades) if quotes is None else trades.lazy()
    return alike(each_group(metric, given, states, incidents=incidents), trades)


def _check_horizons(
    quotes: pl.LazyFrame | pl.DataFrame | None, horizons_ns: Sequence[int], horizons_trades: Sequence[int]
) -> None:
    if quotes is None and horizons_ns:
        raise UsageError("horizons in time need quotes=, not only the trades' own: nothing was computed")
    if any(k < 1 for k in horizons_trades):
        raise UsageError(f"horizons in trades must be at least 1, not {list(horizons_trades)}: nothing was computed")


def _with_mids_later(
    trades: pl.DataFrame, quotes: pl.DataFrame, gaps: Gaps, horizons_ns: Sequence[int], clock: str
) -> pl.DataFrame:
    later = {horizon_label(h): asof.mid_at(trades, quotes, h, gaps, clock=clock) for h in horizons_ns}
    return trades.with_columns(mids.alias(f"mid_{label}") for label, mids in later.items())


def _trade_measures(
    scale: Scale, labels: Iterable[str], *, half: bool, tick_size: float | pl.Expr | None
) -> list[pl.Expr]:
    price, mid = pl.col("price"), pl.col("mid")
    spread, suffix = ("half_spread" if half else "spread"), _suffix(scale)

    def signed(later: pl.Expr, earlier: pl.Expr) -> pl.Expr:
        return (1 if half else 2) * pl.col("sign") * _scaled(later, earlier, scale, mid, tick_size)

    measures = [signed(price, mid).alias(f"effective_{spread}{suffix}")]
    for label in labels:
        ahead = pl.col(f"mid_{label}")
        impact = "half_price_impact" if half else "price_impact"
        realized = pl.when(mid.is_not_null()).then(signed(price, ahead))
        measures += [
            realized.alias(f"realized_{spread}_{label}{suffix}"),
            signed(ahead, mid).alias(f"{impact}_{label}{suffix}"),
        ]
    return measures


def mean_spreads(
    spreads: Frame,
    columns: Sequence[str] | None = None,
    *,
    weight: Literal["trade", "volume", "value"] = "trade",
) -> Frame:
    """The mean of per-trade measures over each group, each over the trades that have it.

    Drop the trades without the mid at a horizon first where the means are to add up, effective = realized + impact.

    Args:
        spreads: What `trade_spreads` returns.
        columns: What to average; by default each effective and realized spread and price impact that is there.
        weight: Each trade alike, by its volume, or by its value p q (Holden and Jacobsen 2014, Liquidity measurement
            problems in fast, competitive markets: expensive and cheap solutions, Journal of Finance).

    Returns:
        Key columns, the means, and for each `n_...`, the number of trades in it.
    """
    if columns is None:
        names = spreads.collect_schema().names()
        measures = ("effective_", "realized_", "price_impact_", "half_price_impact_")
        columns = [name for name in names if name.startswith(measures)]
    weights = {"volume": pl.col("volume"), "value": pl.col("price") * pl.col("volume")}
    means = {
        name: pl.col(name).mean() if weight == "trade" else weighted_mean(pl.col(name), weights[weight])
        for name in columns
    }
    counts = {f"n_{name}": pl.col(name).count().cast(pl.Int64) for name in columns}
    return by_group(spreads, **means, **counts)


def _ticks(tick_size: float | pl.Expr) -> pl.Expr:
    """The spread in whole ticks: negative while the book is crossed, null while a side is missing."""
    distance = (pl.col("best_ask") - pl.col("best_bid")).fill_nan(None)
    return (distance / tick_size).round().cast(pl.Int64)


def spread_occupancy(
    quotes: Frame,
    tick_size: float | pl.Expr,
    *,
    until: pl.LazyFrame | pl.DataFrame | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """How long the spread stays at each width: the share of time in each state of whole ticks.

    Args:
        quotes: The lake's quotes.
        tick_size: The tick in price units, or an expression of it where contracts differ.
        until: Events whose last ends the data, see `lasting`.
        incidents: Gaps, see `stretches`.

    Returns:
        Key columns, `spread_ticks` (0 locked, negative crossed, null one-sided), `visits` (times that the state was
        entered), `duration_s`, `share` of the group's time, and `n` quotes, by rising width.
    """
    spread = _ticks(tick_size)

    def metric(own: pl.DataFrame, ends: pl.DataFrame | None, gaps: Gaps) -> pl.DataFrame:
        states = asof.with_stretch(asof.with_duration(own, ends, gaps), gaps).lazy()
        entered = neighbour(pl.col("recv_ns"), ["stretch", "spread_ticks"]).is_null()
        widths = (
            states.with_columns(spread_ticks=spread)
            .with_columns(_entered=entered)
            .group_by("spread_ticks")
            .agg(
                visits=pl.col("_entered").sum().cast(pl.Int64),
                duration_s=pl.col("duration_ns").sum() / 1e9,
                n=pl.len().cast(pl.Int64),
            )
            .sort("spread_ticks")
        )
        share = (pl.col("duration_s") / pl.col("duration_s").sum()).fill_nan(None)
        return widths.select("spread_ticks", "visits", "duration_s", share.alias("share"), "n").collect()

    ends = None if until is None else reading(until)
    return alike(each_group(metric, reading(quotes, spread), ends, incidents=incidents), quotes)


def time_to_revert(
    quotes: Frame,
    tick_size: float | pl.Expr,
    *,
    normal_ticks: int = 1,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Each widening of the spread, and how long it took to return to its normal width.

    A widening begins when a spread of at most `normal_ticks` becomes wider (a side that goes missing counts as wider)
    and ends when it is that narrow again. One that a gap or the end of the data cuts off is censored: its duration is
    not known, only that it was at least so long.

    Args:
        quotes: The lake's quotes.
        tick_size: The tick in price units, or an expression of it where contracts differ.
        normal_ticks: The widest spread that counts as normal, in ticks.
        incidents: Gaps, see `stretches`.

    Returns:
        One row a widening: key columns, `from_ns`, `to_ns` (null where censored), `duration_ns` (null likewise),
        `widest_ticks` (the widest two-sided spread) and `censored`.
    """
    spread = _ticks(tick_size)
    wide = (pl.col("spread_ticks") > normal_ticks).fill_null(value=True)
    before = neighbour(pl.col("_wide"), ["stretch"])

    def metric(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        runs = (
            asof.with_stretch(own, gaps)
            .lazy()
            .with_columns(spread_ticks=spread)
            .with_columns(_wide=wide)
            .with_columns(_before=before, _run=before.ne_missing(pl.col("_wide")).cum_sum().set_sorted())
            .group_by("_run", maintain_order=True)
            .agg(
                pl.col("stretch", "_wide", "_before").first(),
                from_ns=pl.col("recv_ns").first(),
                widest_ticks=pl.col("spread_ticks").max(),
            )
            .with_columns(to_ns=neighbour(pl.col("from_ns"), ["stretch"], -1))
        )
        widenings = runs.filter(pl.col("_wide") & pl.col("_before").is_not_null()).select(
            "from_ns",
            "to_ns",
            duration_ns=pl.col("to_ns") - pl.col("from_ns"),
            widest_ticks=pl.col("widest_ticks"),
            censored=pl.col("to_ns").is_null(),
        )
        return widenings.collect(engine="in-memory")

    return alike(each_group(metric, reading(quotes, spread), incidents=incidents), quotes)
