"""The order book over time: how much waits at each price, and the trades that met it."""

from __future__ import annotations

from typing import Final

import altair as alt
import polars as pl

from mdcapture.charts.drawing import OVERLAP, UTC, empty, layered, plotted, time_axis, timed_span
from mdcapture.charts.price import bubbles

__all__ = ["depth_heatmap"]

_LOUD: Final = 0.98


def depth_heatmap(
    cells: pl.DataFrame,
    trades: pl.DataFrame,
    *,
    interval_ns: int,
    tick_size: float,
    title: str = "Order book and trades",
    zone: str = UTC,
) -> alt.LayerChart:
    """Lots waiting at each price, darker where there are more, and the trades on top.

    Args:
        cells: `end_ns`, `price`, `size` (lots) of one contract, from `depth.heatmap`.
        trades: Its `recv_ns`, `price`, `volume`, `side`.
        interval_ns: The width of a cell.
        tick_size: The height of a cell, in price units.
        title: The chart's title.
        zone: The time zone of the clock.
    """
    if cells.is_empty():
        return empty(title, "no depth was captured, or the book is not known")
    half = tick_size / 2
    spans = cells.select(
        "price", "size", start_ns=pl.col("end_ns") - interval_ns, end_ns=pl.col("end_ns") + interval_ns // OVERLAP
    )
    top = pl.col("price") + half + tick_size / OVERLAP
    rows = timed_span(spans, zone).with_columns(bottom=pl.col("price") - half, top=top).drop("price")
    full = float(cells["size"].quantile(_LOUD) or 1)
    heat = (
        plotted(rows)
        .mark_rect(opacity=1, stroke=None)
        .encode(
            time_axis(rows, zone),
            alt.Y("bottom:Q", title="price", scale=alt.Scale(zero=False, nice=False)),
            x2="end:T",
            y2="top:Q",
            fill=alt.Fill(
                "size:Q",
                title="lots waiting",
                scale=alt.Scale(range="ramp", domain=[0, full], clamp=True),
                legend=alt.Legend(gradientLength=120),
            ),
        )
    )
    points, says = bubbles(trades, zone)
    return layered(heat, points, title=title, subtitle=f"grey: lots at each price, darkest from {full:,.0f} up; {says}")
