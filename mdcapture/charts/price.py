"""Price with spread and trades; volume and delta below it."""

from __future__ import annotations

from typing import Final

import altair as alt
import polars as pl

from mdcapture.charts.drawing import BUY, INK, SELL, empty, layered, per_pixel, time_axis, timed

__all__ = ["cumulative_delta", "price_and_trades"]

_MOST_BUBBLES: Final = 1500


def price_and_trades(quotes: pl.DataFrame, trades: pl.DataFrame, *, title: str = "Price and trades") -> alt.LayerChart:
    """The spread as a band between the best bid and ask, and trades as bubbles as large as they are.

    Args:
        quotes: One contract's `recv_ns`, `best_bid`, `best_ask`, in order.
        trades: Its `recv_ns`, `price`, `volume`, `side`; only the largest are drawn where there are very many.
        title: The chart's title.
    """
    band = quotes.select("recv_ns", "best_bid", "best_ask").drop_nulls()
    if band.is_empty() and trades.is_empty():
        return empty(title, "no quotes and no trades")
    price = alt.Y("best_bid:Q", title="price", scale=alt.Scale(zero=False))
    spread = (
        alt.Chart(timed(per_pixel(band, "best_bid")))
        .mark_area(interpolate="step-after", color=INK, opacity=0.35, line={"color": INK, "strokeWidth": 0.5})
        .encode(time_axis(), price, y2="best_ask:Q")
    )
    shown = trades.select("recv_ns", "price", "volume", "side").sort("volume", descending=True).head(_MOST_BUBBLES)
    sides = shown.with_columns(
        aggressor=pl.when(pl.col("side") == 0).then(pl.lit("buy")).when(pl.col("side") == 1).then(pl.lit("sell"))
    )
    bubbles = (
        alt.Chart(timed(sides.sort("recv_ns")))
        .mark_point(filled=True, opacity=0.55, strokeWidth=0)
        .encode(
            time_axis(),
            alt.Y("price:Q"),
            size=alt.Size("volume:Q", title="lots", scale=alt.Scale(range=[4, 500])),
            color=alt.Color("aggressor:N", scale=alt.Scale(domain=["buy", "sell"], range=[BUY, SELL])),
            shape=alt.Shape(
                "aggressor:N", scale=alt.Scale(domain=["buy", "sell"], range=["triangle-up", "triangle-down"])
            ),
        )
    )
    left_out = trades.height - shown.height
    subtitle = f"band: best bid to best ask; {'the largest ' if left_out else ''}{shown.height:,} trades"
    return layered(spread, bubbles, title=title, subtitle=subtitle)


def cumulative_delta(trades: pl.DataFrame, *, title: str = "Cumulative delta") -> alt.LayerChart:
    """Lots bought less lots sold by aggressors, since the beginning.

    Args:
        trades: One contract's `recv_ns`, `volume`, `side`, in order.
        title: The chart's title.
    """
    if trades.is_empty():
        return empty(title, "no trades")
    sign = pl.when(pl.col("side") == 0).then(1).when(pl.col("side") == 1).then(-1).otherwise(0)
    delta = trades.select("recv_ns", delta=(sign * pl.col("volume")).cum_sum())
    line = (
        alt.Chart(timed(per_pixel(delta, "delta")))
        .mark_line(interpolate="step-after", color=BUY, strokeWidth=1.5)
        .encode(time_axis(), alt.Y("delta:Q", title="lots"))
    )
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=INK, strokeDash=[3, 3]).encode(y="zero:Q")
    return layered(zero, line, title=title, subtitle="lots bought less lots sold by aggressors", height_px=160)
