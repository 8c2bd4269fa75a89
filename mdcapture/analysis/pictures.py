"""The pictures of a session, declared once: what each shows, what it needs, and how it is made of an extract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import polars as pl

from mdcapture.analysis.catalogue import METRICS
from mdcapture.analysis.extract import FLOW_NS, LEVELS, SECOND_NS, Extract
from mdcapture.analysis.figures import sampled_volatility, without_noise
from mdcapture.analysis.hours import EXCHANGE_ZONE, known_zone
from mdcapture.analysis.kinds import Kind
from mdcapture.analysis.laws import fitted_tails
from mdcapture.analysis.pairs import together
from mdcapture.charts.book import depth_heatmap
from mdcapture.charts.curves import epps, leads_and_lags, recovery, response_function, seasonality, signature_plot
from mdcapture.charts.drawing import UTC, Z_95, Chart, empty, length
from mdcapture.charts.price import cumulative_flow, price_and_trades
from mdcapture.charts.profile import footprint_cells, profile_bars
from mdcapture.charts.quality import latency, message_rates
from mdcapture.charts.scatter import flow_and_moves
from mdcapture.charts.sizes import size_tail
from mdcapture.charts.spreads import spread_states
from mdcapture.errors import UsageError
from mdcapture.metrics.depth import half_life, heatmap
from mdcapture.metrics.distribution import intraday_pattern, size_histogram
from mdcapture.metrics.frames import previous_tick
from mdcapture.metrics.impact import flow_regression, response
from mdcapture.metrics.profile import footprint, value_area, volume_profile
from mdcapture.metrics.spreads import horizon_label, quoted_spread, spread_occupancy
from mdcapture.metrics.tails import fit_power_law

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = ["PICTURES", "Picture", "draw"]

_BINS: Final = 120
"""About so many intervals of time a chart has where it sums over intervals."""

_FOOTPRINT_BINS: Final = 24
_FOOTPRINT_LEVELS: Final = 40
_STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
_SIGNATURE_S: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300)
_EPPS_S: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
_RESPONSE_S: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)
_FEWEST: Final = 5
_ENOUGH: Final = 20
"""So many returns tell how much they differ: with fewer there is no band."""

_SIZE_EDGES: Final = (1, 2, 5, 20)
_MINUTE_NS: Final = 60 * SECOND_NS
_DAY_BINS: Final = 48
_NAMED: Final = 4
"""So many contracts are named in the title of what compares them; the legend names all."""


class Picture(NamedTuple):
    """A chart that can be asked for.

    Attributes:
        title: What it shows.
        caption: How it is read, and what it is made of.
        draw: Makes it of one contract, or of all where `of_all` says so, on the clock of a time zone.
        of_all: Whether it compares contracts.
    """

    title: str
    caption: str
    draw: Callable[[Sequence[Extract], str], Chart]
    of_all: bool = False


def draw(kind: Kind | str, parts: Sequence[Extract], zone: str = UTC) -> Chart:
    """Draw a picture.

    Args:
        kind: A name in `PICTURES`.
        parts: The extracts that it is made of: all that are to be compared, or the one that it is of.
        zone: The time zone of the clock.

    Raises:
        UsageError: There is no such picture, or no such time zone.
    """
    if kind not in PICTURES:
        raise UsageError(f"there is no chart {kind!r}: it is one of {', '.join(PICTURES)}")
    return PICTURES[Kind(kind)].draw(parts, known_zone(zone))


def _interval_ns(x: Extract, bins: int = _BINS) -> int:
    """A round interval of which the extract has about so many."""
    span_s = (x.windows[-1].to_ns - x.windows[0].from_ns) / SECOND_NS
    return next((step for step in _STEPS_S if span_s / step <= bins), _STEPS_S[-1]) * SECOND_NS


def _named(x: Extract, what: str) -> str:
    return f"{x.name}: {what}"


def _price(parts: Sequence[Extract], zone: str) -> Chart:
    x = parts[0]
    return price_and_trades(x.quotes, x.trades, title=_named(x, "price and trades"), zone=zone)


def _flow(parts: Sequence[Extract], zone: str) -> Chart:
    x = parts[0]
    return cumulative_flow(x.trades, title=_named(x, "cumulative volume and delta"), zone=zone)


def _book(parts: Sequence[Extract], zone: str) -> Chart:
    x = parts[0]
    title, interval_ns = _named(x, "order book and trades"), _interval_ns(x)
    if "depth" not in x.streams or x.tick_size is None:
        return empty(title, "no depth was captured")
    cells = heatmap(x.books, interval_ns, levels=LEVELS, incidents=x.gaps("depth"))
    return depth_heatmap(cells, x.trades, interval_ns=interval_ns, tick_size=x.tick_size, title=title, zone=zone)


def _recovery(parts: Sequence[Extract], zone: str) -> Chart:  # noqa: ARG001  # no clock on it
    x = parts[0]
    title = _named(x, "recovery of the book")
    if "depth" not in x.streams:
        return empty(title, "no depth was captured")
    curves = [_left(x.after_widenings, "rise", "width of the spread")]
    if "trades" in x.streams:
        curves.insert(0, _left(x.after_sweeps, "fall", "lots at a swept price"))
    return recovery(pl.concat(curves), title=title)


def _left(path: pl.DataFrame, effect: Literal["rise", "fall"], name: str) -> pl.DataFrame:
    """What is left of a shock by the time since, as `curves.recovery` takes it; no row where none can be told."""
    least = METRICS["sweep_half_life_s"].least
    shocks = half_life(path, effect).filter(pl.col("peak").is_not_null(), pl.col("n") >= least)
    return (
        path.filter(pl.col("n") >= least, pl.col("horizon_ns") > 0)
        .join(shocks.select("session_id", "peak", "half_life_ns"), on="session_id")
        .select(
            horizon_s=pl.col("horizon_ns") / SECOND_NS,
            left=pl.col("change") / pl.col("peak"),
            series=pl.lit(name),
            half_life_s=pl.col("half_life_ns") / SECOND_NS,
        )
    )


def _imbalance(parts: Sequence[Extract], zone: str) -> Chart:  # noqa: ARG001  # no clock on it
    x = parts[0]
    title, tick = _named(x, "order flow imbalance and returns"), x.tick_size
    if "depth" not in x.streams or tick is None:
        return empty(title, "no depth was captured")
    moves = x.book_moves.select("start_ns", flow="ofi_0", move=pl.col("mid_change") / tick)
    least = METRICS["ofi_slope"].least
    if moves.height < least:
        return empty(title, f"only {moves.height} intervals of {length(FLOW_NS)}, {least} are needed")
    fit = flow_regression(moves, change="move", flow="flow")
    return flow_and_moves(moves, fit, unit="ticks", title=title)


def _profile(parts: Sequence[Extract], zone: str) -> Chart:  # noqa: ARG001  # no clock on it
    x = parts[0]
    profile = volume_profile(x.trades)
    return profile_bars(profile, value_area(profile), tick_size=x.tick_size or 1.0, title=_named(x, "volume profile"))


def _footprint(parts: Sequence[Extract], zone: str) -> Chart:
    x = parts[0]
    title, interval_ns, tick = _named(x, "footprint"), _interval_ns(x, _FOOTPRINT_BINS), x.tick_size or 1.0
    if x.trades.is_empty():
        return empty(title, "no trades")
    low, high = x.trades.select(low=pl.col("price").min(), high=pl.col("price").max()).row(0)
    step = tick * max(1, -(-round((high - low) / tick) // _FOOTPRINT_LEVELS))
    cells = footprint(x.trades, interval_ns, step=step)
    return footprint_cells(cells, interval_ns=interval_ns, step=step, title=title, zone=zone)


def _spread(parts: Sequence[Extract], zone: str) -> Chart:
    x = parts[0]
    title, interval_ns = _named(x, "spread, share of time at each width"), _interval_ns(x)
    if x.quotes.is_empty() or x.tick_size is None:
        return empty(title, "no quotes")
    start = pl.col("recv_ns") // interval_ns * interval_ns
    edges = previous_tick(x.width_changes, interval_ns, ["best_bid", "best_ask"], incidents=x.gaps("quotes"))
    states = pl.concat([x.width_changes, edges], how="diagonal").sort("recv_ns", maintain_order=True)
    by_interval = states.drop("seq").with_columns(session_id=start.cast(pl.String))
    ends = (
        by_interval.select("session_id")
        .unique()
        .with_columns(recv_ns=pl.col("session_id").cast(pl.Int64) + interval_ns)
    )
    widths = spread_occupancy(by_interval, x.tick_size, until=ends, incidents=x.gaps("quotes"))
    return spread_states(widths.with_columns(start_ns=pl.col("session_id").cast(pl.Int64)), title=title, zone=zone)


def _sizes(parts: Sequence[Extract], zone: str) -> Chart:  # noqa: ARG001  # no clock on it
    x = parts[0]
    histogram, fit = size_histogram(x.trades), fit_power_law(x.trades["volume"].to_numpy(), discrete=True)
    laws = fitted_tails(histogram, fit)
    says = f"fits to sizes from {fit.xmin:.0f} up; power law: alpha = {fit.alpha:.2f} ± {fit.alpha_se:.2f}"
    return size_tail(histogram, laws, title=_named(x, "sizes of trades"), subtitle=says if laws.height else "")


def _signature(parts: Sequence[Extract], zone: str) -> Chart:  # noqa: ARG001  # no clock on it
    x = parts[0]
    rows = []
    for interval_s in _SIGNATURE_S:
        volatility, error = sampled_volatility(interval_s)
        returns = x.returns(round(interval_s * SECOND_NS))
        n = pl.col("log_return").count()
        rows.append(returns.select(interval_s=pl.lit(float(interval_s)), volatility=volatility, error=error, n=n))
    measured = pl.concat(rows).filter(pl.col("n") >= _FEWEST)
    volatility, reach = pl.col("volatility"), (_times_error("error") / pl.col("volatility")).exp()
    curve = measured.select(
        "interval_s", "volatility", series=pl.lit("mid"), low=volatility / reach, high=volatility * reach
    )
    robust = without_noise(x)["kernel_volatility"].to_list() if curve.height else []
    return signature_plot(
        curve,
        robust=next(iter(robust), None),
        band=f"95 % (realized quarticity), which holds without noise and jumps; none of fewer than {_ENOUGH} returns",
        title=_named(x, "volatility signature"),
    )


def _times_error(error: str) -> pl.Expr:
    """How far a band of 95 % reaches to each side, where there are enough returns."""
    return pl.when(pl.col("n") >= _ENOUGH).then(Z_95 * pl.col(error))


def _response(parts: Sequence[Extract], zone: str) -> Chart:  # noqa: ARG001  # no clock on it
    x = parts[0]
    title = _named(x, "response to trades")
    if x.quotes.is_empty() or x.trades.is_empty():
        return empty(title, "no quotes and trades together")
    few = x.modelled
    horizons_ns = [round(horizon_s * SECOND_NS) for horizon_s in _RESPONSE_S]
    moves = response(
        few.trades, few.quotes, horizons_ns, size_edges=_SIZE_EDGES, incidents=few.gaps("quotes", "trades")
    )
    seconds = {horizon_label(ns): ns / SECOND_NS for ns in horizons_ns}
    below = pl.col("size_below") - 1
    name = (
        pl.when(below == pl.col("size_from"))
        .then(pl.format("{}", "size_from"))
        .when(below.is_null())
        .then(pl.format("{} and more", "size_from"))
        .otherwise(pl.format("{} to {}", "size_from", below))
    )
    mean, reach, unit = pl.col("response"), _times_error("response_se"), x.tick_size or 1.0
    curve = (
        moves.filter(pl.col("n") >= _FEWEST)
        .sort("size_from")
        .select(
            horizon_s=pl.col("horizon").replace_strict(seconds, return_dtype=pl.Float64),
            response=mean / unit,
            series=name,
            unit=pl.lit("ticks" if x.tick_size else "price"),
            low=(mean - reach) / unit,
            high=(mean + reach) / unit,
        )
    )
    band = f"95 % (Newey-West over blocks of time as long as the horizon); none of fewer than {_ENOUGH} blocks"
    return response_function(curve, band=band, title=title)


def _time_of_day(parts: Sequence[Extract], zone: str) -> Chart:
    x = parts[0]
    zone = EXCHANGE_ZONE if zone == UTC else zone
    lots = _without_gaps(x, _by_bin(x, x.trades.lazy(), _MINUTE_NS, pl.col("volume").sum()), _MINUTE_NS, "trades")
    minutes = x.returns(_MINUTE_NS).select(recv_ns=pl.col("recv_ns") - _MINUTE_NS, move=pl.col("log_return").abs())
    sides = ["best_bid", "best_ask"]
    spreads = previous_tick(x.width_changes, SECOND_NS, sides, incidents=x.gaps("quotes")).with_columns(quoted_spread())
    interval_ns = max(_MINUTE_NS, _interval_ns(x, _DAY_BINS))
    measures = {
        "lots a minute": intraday_pattern(lots, "per_s", interval_ns, time_zone=zone),
        "|return| of a minute": intraday_pattern(minutes, "move", interval_ns, time_zone=zone),
        "quoted spread by time": intraday_pattern(spreads, "quoted_spread", interval_ns, time_zone=zone),
    }
    curve = pl.concat(frame.select("time_of_day_ns", "factor", series=pl.lit(name)) for name, frame in measures.items())
    return seasonality(curve, interval_ns=interval_ns, title=_named(x, "time of day"), zone=zone)


def _rates(parts: Sequence[Extract], zone: str) -> Chart:
    x = parts[0]
    interval_ns = _interval_ns(x, 3 * _BINS)
    frames = {"depth": x.depth, "quotes": x.quotes.lazy(), "trades": x.trades.lazy()}
    rates = [
        _by_bin(x, frame, interval_ns, pl.len()).with_columns(stream=pl.lit(name))
        for name, frame in frames.items()
        if name in x.streams
    ]
    title = _named(x, "rows a second and gaps")
    return message_rates(
        pl.concat(rates) if rates else pl.DataFrame(), x.missing, interval_ns=interval_ns, title=title, zone=zone
    )


def _by_bin(x: Extract, rows: pl.LazyFrame, interval_ns: int, amount: pl.Expr) -> pl.DataFrame:
    """How much of something came in each interval, a second: `recv_ns` (its start), `per_s`.

    Where nothing came it is 0. Intervals that a window cuts off have the rate of the time that they have; with less
    than half of it they are no row.
    """
    start = pl.col("session_id").cast(pl.Int64)
    time_ns = (
        replace(x, every_ns=interval_ns)
        .spans.group_by(recv_ns=start)
        .agg(time_ns=(pl.col("to_ns") - pl.col("from_ns")).sum())
    )
    came = rows.group_by(recv_ns=pl.col("recv_ns") // interval_ns * interval_ns).agg(came=amount).collect()
    return (
        time_ns.filter(2 * pl.col("time_ns") >= interval_ns)
        .join(came, on="recv_ns", how="left")
        .select("recv_ns", per_s=pl.col("came").fill_null(0) / (pl.col("time_ns") / SECOND_NS))
        .sort("recv_ns")
    )


def _without_gaps(x: Extract, bins: pl.DataFrame, interval_ns: int, stream: str) -> pl.DataFrame:
    """Those bins, by their start `recv_ns`, in which no row of the stream can be missing."""
    start, gaps = pl.col("recv_ns"), x.noted.filter(pl.col("stream") == stream)
    lacking = bins.join(gaps, how="cross").filter(pl.col("from_ns") < start + interval_ns, pl.col("to_ns") > start)
    return bins.join(lacking, on="recv_ns", how="anti")


def _latency(parts: Sequence[Extract], zone: str) -> Chart:
    x = parts[0]
    interval_ns = _interval_ns(x)
    late_ms = (pl.col("recv_ns") - pl.col("exch_ns")) / 1e6
    bins = (
        x.trades.drop_nulls("exch_ns")
        .group_by(recv_ns=pl.col("recv_ns") // interval_ns * interval_ns)
        .agg(low=late_ms.quantile(0.01), median=late_ms.median(), high=late_ms.quantile(0.99))
        .sort("recv_ns")
    )
    return latency(bins, title=_named(x, "latency of trades"), zone=zone)


def _all_named(parts: Sequence[Extract]) -> str:
    names = [x.name for x in parts]
    if len(names) > _NAMED:
        names[_NAMED:] = [f"{len(names) - _NAMED} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _pair_names(parts: Sequence[Extract]) -> pl.Expr:
    names = {x.contract.contract_id: x.name for x in parts}
    return pl.format("{} / {}", pl.col("contract_x").replace(names), pl.col("contract_y").replace(names))


def _epps(parts: Sequence[Extract], zone: str) -> Chart:  # noqa: ARG001  # no clock on it
    title = f"{_all_named(parts)}: correlation by interval (Epps)"
    if len(parts) == 1:
        return empty(title, "one contract only: correlations need two")
    curve = together(parts).epps([round(interval_s * SECOND_NS) for interval_s in _EPPS_S])
    rows = curve.filter(pl.col("n") >= _FEWEST).sort("contract_x", "contract_y", "interval_ns")
    rho, reach = pl.col("correlation"), _times_error("correlation_se") / (1 - pl.col("correlation").pow(2))
    pairs = rows.select(
        "correlation",
        interval_s=pl.col("interval_ns") / SECOND_NS,
        series=_pair_names(parts),
        low=(rho.arctanh() - reach).tanh(),
        high=(rho.arctanh() + reach).tanh(),
    )
    band = f"95 % (Fisher's z), which holds where returns do not depend on earlier ones; none of fewer than {_ENOUGH}"
    return epps(pairs, band=band, title=title)


def _leads(parts: Sequence[Extract], zone: str) -> Chart:  # noqa: ARG001  # no clock on it
    title = f"{_all_named(parts)}: lead and lag"
    if len(parts) == 1:
        return empty(title, "one contract only: correlations need two")
    curve = together(parts).leads()
    pairs = curve.select("correlation", lag_ms=pl.col("lag_ns") / 1e6, series=_pair_names(parts))
    return leads_and_lags(pairs, title=title)


PICTURES: Final[Mapping[Kind, Picture]] = {
    Kind.PRICE: Picture(
        "Price and trades",
        "The spread as a band from the best bid to the best ask; trades as triangles, as large as they are. Of each "
        "pixel the extremes are kept.",
        _price,
    ),
    Kind.FLOW: Picture(
        "Cumulative volume and delta", "Lots that buyers took, that sellers took, and the difference of both.", _flow
    ),
    Kind.BOOK: Picture(
        "Order book and trades",
        "Lots waiting at each price at the end of each interval, ten levels a side, and the trades that met them.",
        _book,
    ),
    Kind.RECOVERY: Picture(
        "Recovery of the book",
        "How much is left of the mean change after orders that took all at a price, and after widenings of the spread "
        "(Degryse and others 2005).",
        _recovery,
    ),
    Kind.IMBALANCE: Picture(
        "Order flow imbalance and returns",
        "Each point is an interval of 10 s: what the best levels gained and lost (Cont, Kukanov & Stoikov 2014), "
        "and how the mid moved.",
        _imbalance,
    ),
    Kind.PROFILE: Picture("Volume profile", "Lots traded at each price, by aggressor.", _profile),
    Kind.FOOTPRINT: Picture(
        "Footprint",
        "Lots by price and time, by aggressor; where there are many prices, some ticks are one cell.",
        _footprint,
    ),
    Kind.SPREAD: Picture(
        "Spread", "For each interval, the share of time that the spread spent at each width in ticks.", _spread
    ),
    Kind.SIZES: Picture(
        "Sizes of trades",
        "The share of trades of at least each size, with a power law and a lognormal fitted to the tail.",
        _sizes,
    ),
    Kind.SIGNATURE: Picture(
        "Volatility signature",
        "Realized volatility of the mid by the interval of sampling; without noise it would be the same at all. The "
        "band is that of sampling alone (Barndorff-Nielsen & Shephard 2002).",
        _signature,
    ),
    Kind.DAY: Picture(
        "Time of day",
        "Volume, moves and spreads by the time of day, each over its mean; on the exchange's clock if none is named. "
        "A minute that the session cuts off counts by the time that it has, if that is half of it; one with a gap not.",
        _time_of_day,
    ),
    Kind.RESPONSE: Picture(
        "Response to trades",
        "The mean move of the mid after trades, in their direction, by horizon and size (Bouchaud and others 2004). "
        "The band allows for moves of near trades that overlap.",
        _response,
    ),
    Kind.EPPS: Picture(
        "Correlation by interval",
        "Correlation of the returns of mids, previous tick (Epps 1979). The band is that of sampling alone "
        "(Barndorff-Nielsen & Shephard 2004).",
        _epps,
        of_all=True,
    ),
    Kind.LEADS: Picture(
        "Lead and lag",
        "Correlation by lag, from every tick (Hoffmann, Rosenbaum & Yoshida 2013): to the right the first "
        "of a pair leads.",
        _leads,
        of_all=True,
    ),
    Kind.RATES: Picture(
        "Rows a second and gaps",
        "What came, 0 where nothing did, and when data can be missing; an interval that the session cuts off has the "
        "rate of the time that it has, and is left out where that is less than half.",
        _rates,
    ),
    Kind.LATENCY: Picture("Latency", "Receive time less exchange time of trades.", _latency),
}
