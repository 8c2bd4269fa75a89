"""How large trades are: their tail on logarithmic axes, and the laws that are fitted to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt

from mdcapture.charts.drawing import BLUE, ORANGE, empty, layered, plotted

if TYPE_CHECKING:
    import polars as pl

__all__ = ["size_tail"]


def size_tail(
    histogram: pl.DataFrame, fits: pl.DataFrame, *, title: str = "Sizes of trades", subtitle: str = ""
) -> alt.LayerChart:
    """The share of trades of at least each size, and fitted laws.

    Args:
        histogram: `volume` (lots), `tail` of one contract, from `distribution.size_histogram`.
        fits: `volume`, `tail`, `law`: the fitted laws' tails, a line each; may be empty.
        title: The chart's title.
        subtitle: What the fits say.
    """
    if histogram.is_empty():
        return empty(title, "no trades")
    x = alt.X("volume:Q", title="size, lots", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(grid=False))
    least = float(histogram["tail"].to_numpy().min())
    y = alt.Y(
        "tail:Q",
        title="share of trades of at least this size",
        scale=alt.Scale(type="log", domain=[least, 1]),
        axis=alt.Axis(format="~g", tickCount=5),
    )
    points = plotted(histogram.select("volume", "tail")).mark_point(size=28, color=BLUE, opacity=0.8).encode(x, y)
    laws = fits["law"].unique(maintain_order=True).to_list()
    lines = (
        plotted(fits)
        .mark_line(strokeWidth=2, clip=True)
        .encode(
            x,
            y,
            color=alt.Color("law:N", title=None, scale=alt.Scale(domain=laws, range=[ORANGE, "#808080"])),
            strokeDash=alt.StrokeDash("law:N", title=None, scale=alt.Scale(domain=laws, range=[[6, 3], [1, 0]])),
        )
    )
    return layered(points, lines, title=title, subtitle=subtitle) if laws else layered(points, title=title)
