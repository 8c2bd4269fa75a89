"""Price and trading over time: the spread as a band, trades as bubbles, and what was bought and sold so far."""

from __future__ import annotations

from typing import Final

import altair as alt
import polars as pl

from mdcapture.charts.drawing import (
    BUY,
    SELL,
    SIDES,
    UTC,
    WIDTH_PX,
    empty,
    layered,
    per_pixel,
    plotted,
    rule,
    sides,
    time_axis,
    timed,
)

__all__ = ["bubbles", "cumulative_flow", "price_and_trades"]

_MOST_BUBBLES: Final = 600
"""More of them hide the price that they are at."""


def price_and_trades(
    quotes: pl.DataFrame, trades: pl.DataFrame, *, title: str = "Price and trades", zone: str = UTC
) -> alt.LayerChart:
    """The spread as a band between the best bid and ask, and trades as bubbles as large as they are.

    Args:
        quotes: One contract's `recv_ns`, `best_bid`, `best_ask`, in order.
        trades: Its `recv_ns`, `price`, `volume`, `side`; only the largest are drawn where there are very many.
        title: The chart's title.
        zone: The time zone of the clock.
    """
    band = quotes.select("recv_ns", "best_bid", "best_ask").drop_nulls()
    if band.is_empty() and trades.is_empty():
        return empty(title, "no quotes and no trades")
    rows = timed(per_pixel(band, "best_bid", "best_ask"), zone)
    spread = (
        plotted(rows)
        .mark_area(interpolate="step-after", style="ink", fill="#808080", fillOpacity=0.45, strokeWidth=0.6)
        .encode(
            time_axis(rows if rows.height else timed(trades, zone), zone),
            alt.Y("best_bid:Q", title="price", scale=alt.Scale(zero=False)),
            y2="best_ask:Q",
        )
    )
    points, says = bubbles(trades, zone)
    return layered(spread, points, title=title, subtitle=f"band: best bid to best ask; {says}")


def bubbles(trades: pl.DataFrame, zone: str = UTC) -> tuple[alt.Chart, str]:
    """Trades as triangles, their areas as their sizes, by aggressor; and in words which, the largest if not all."""
    largest = trades.select("recv_ns", "price", "volume", "side").sort("volume", descending=True).head(_MOST_BUBBLES)
    named = largest.with_columns(aggressor=pl.col("side").replace_strict(SIDES, default=None, return_dtype=pl.String))
    rows = timed(named.drop("side"), zone)
    most = int(largest["volume"].max() or 1)  # type: ignore[arg-type]  # of integers
    sizes = alt.Legend(values=sorted({1, -(-most // 4), most}), symbolFillColor="#808080", symbolStrokeWidth=0)
    points = (
        plotted(rows)
        .mark_point(filled=True, opacity=0.75, strokeWidth=0)
        .encode(
            time_axis(rows, zone),
            alt.Y("price:Q"),
            size=alt.Size("volume:Q", title="lots", scale=alt.Scale(range=[6, 400], zero=True), legend=sizes),
            color=sides(alt.Color),
            shape=sides(alt.Shape),
            tooltip=[alt.Tooltip("price:Q"), alt.Tooltip("volume:Q"), alt.Tooltip("aggressor:N")],
        )
    )
    drawn = largest.height
    which = f"the largest {drawn:,} of {trades.height:,}" if drawn < trades.height else f"{drawn:,}"
    return points, f"triangles: {which} trades, up for buyers, down for sellers"


def cumulative_flow(
    trades: pl.DataFrame, *, title: str = "Cumulative volume and delta", zone: str = UTC
) -> alt.LayerChart:
    """What buyers took, what sellers took, and the difference of both, since the beginning.

    Args:
        trades: One contract's `recv_ns`, `volume`, `side`, in order.
        title: The chart's title.
        zone: The time zone of the clock.
    """
    if trades.is_empty():
        return empty(title, "no trades")
    lots = pl.col("volume")
    sums = trades.select(
        "recv_ns",
        bought=pl.when(pl.col("side") == 0).then(lots).otherwise(0).cum_sum(),
        sold=pl.when(pl.col("side") == 1).then(lots).otherwise(0).cum_sum(),
    ).with_columns(delta=pl.col("bought") - pl.col("sold"))
    rows = timed(per_pixel(sums, "delta", width_px=WIDTH_PX // 2), zone)
    lines = rows.unpivot(["bought", "sold", "delta"], index="time", variable_name="flow", value_name="lots")
    looks = {"bought": (BUY, [6, 3]), "sold": (SELL, [2, 2]), "delta": ("#808080", [1, 0])}
    scales = [alt.Scale(domain=list(looks), range=[look[part] for look in looks.values()]) for part in (0, 1)]
    flow = (
        plotted(lines)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            time_axis(rows, zone),
            alt.Y("lots:Q", title="lots", axis=alt.Axis(format=",d")),
            color=alt.Color("flow:N", title=None, scale=scales[0]),
            strokeDash=alt.StrokeDash("flow:N", title=None, scale=scales[1]),
        )
    )
    final = sums.tail(1)
    subtitle = f"delta: bought less sold by aggressors, {final['delta'].item():+,} lots in the end"
    return layered(rule("y", 0), flow, title=title, subtitle=subtitle)
