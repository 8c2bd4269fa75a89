"""Order flow against returns: a point an interval, and the line of the regression."""

from __future__ import annotations

from typing import Final

import altair as alt
import polars as pl

from mdcapture.charts.drawing import BLUE, empty, layered, plotted

__all__ = ["flow_and_moves"]

_MOST_POINTS: Final = 3000


def flow_and_moves(
    bars: pl.DataFrame, fit: pl.DataFrame, *, unit: str, title: str = "Order flow imbalance and returns"
) -> alt.LayerChart:
    """How the mid moved in each interval, by the order flow imbalance in it.

    Args:
        bars: `flow` (lots), `move`, a row an interval; spread evenly over time, a few thousand are drawn at most.
        fit: One row of `slope`, `slope_se`, `intercept`, `r_squared`, from `impact.flow_regression`.
        unit: The unit of the moves.
        title: The chart's title.
    """
    rows = bars.select("flow", "move").drop_nulls()
    if rows.is_empty() or fit.is_empty():
        return empty(title, "no intervals with a book and moves of the mid")
    drawn = rows.gather_every(-(-rows.height // _MOST_POINTS))
    x = alt.X("flow:Q", title="order flow imbalance, lots", axis=alt.Axis(format=",d", tickCount=8))
    y = alt.Y("move:Q", title=f"move of the mid, {unit}")
    points = plotted(drawn).mark_circle(size=22, opacity=0.45, color=BLUE).encode(x, y)
    slope, error, intercept, share = fit.select("slope", "slope_se", "intercept", "r_squared").row(0)
    if slope is None:
        return layered(points, title=title)
    ends = pl.DataFrame({"flow": [rows["flow"].min(), rows["flow"].max()]})
    line = (
        plotted(ends.with_columns(move=intercept + slope * pl.col("flow")))
        .mark_line(style="ink", strokeWidth=2)
        .encode(x, y)
    )
    subtitle = f"line: least squares, slope {slope:.2g} ± {error:.1g} a lot, R² {share:.2f}, {rows.height:,} intervals"
    return layered(points, line, title=title, subtitle=subtitle)
