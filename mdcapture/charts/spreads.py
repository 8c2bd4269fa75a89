"""How wide the spread is, and for how long, through the session."""

from __future__ import annotations

from typing import Final

import altair as alt
import polars as pl

from mdcapture.charts.drawing import OVERLAP, UTC, empty, layered, plotted, time_axis, timed_span

__all__ = ["spread_states"]

_WIDEST: Final = 5
_LOOK: Final = ("#000000", "#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
"""Black for no spread, then viridis: the wider, the brighter."""


def spread_states(
    occupancy: pl.DataFrame, *, title: str = "Spread: share of time at each width", zone: str = UTC
) -> alt.LayerChart:
    """The share of time that the spread spent at each width, for one interval after another.

    Args:
        occupancy: `start_ns`, `spread_ticks` (null: one-sided, below 1: locked or crossed), `share`, of one contract:
            `spreads.spread_occupancy` of intervals.
        title: The chart's title.
        zone: The time zone of the clock.
    """
    if occupancy.is_empty():
        return empty(title, "no quotes")
    ticks = pl.col("spread_ticks")
    state = (
        pl.when(ticks.is_null() | (ticks < 1))
        .then(pl.lit("no spread"))
        .when(ticks >= _WIDEST)
        .then(pl.lit(f"{_WIDEST} and more"))
        .otherwise(ticks.cast(pl.String))
    )
    names = ["no spread", *(str(width) for width in range(1, _WIDEST)), f"{_WIDEST} and more"]
    shares = occupancy.group_by("start_ns", state.alias("state"), maintain_order=True).agg(pl.col("share").sum())
    order = pl.col("state").replace_strict({name: place for place, name in enumerate(names)}, return_dtype=pl.Int64)
    seen = [name for name in names if name in shares["state"]]
    width_ns = shares["start_ns"].unique().sort().diff().min() or 1
    top = pl.col("share").cum_sum().over("start_ns")
    stacked = (
        shares.with_columns(order=order, end_ns=pl.col("start_ns") + width_ns + pl.lit(width_ns) // OVERLAP)
        .sort("start_ns", "order")
        .with_columns(top=top, bottom=top - pl.col("share"))
    )
    rows = timed_span(stacked.drop("order", "share"), zone)
    colours = dict(zip(names, _LOOK, strict=True))
    scale = alt.Scale(domain=seen, range=[colours[name] for name in seen])
    bars = (
        plotted(rows)
        .mark_rect(opacity=1, stroke=None)
        .encode(
            time_axis(rows, zone),
            alt.Y("bottom:Q", title="share of time", scale=alt.Scale(domain=[0, 1])),
            x2="end:T",
            y2="top:Q",
            color=alt.Color("state:N", title="ticks", scale=scale),
        )
    )
    return layered(bars, title=title, subtitle="narrow spreads at the bottom")
