"""Volume by price: of all of a session, and of each interval by who was the aggressor."""

from __future__ import annotations

from typing import Final

import altair as alt
import polars as pl

from mdcapture.charts.drawing import UTC, empty, layered, length, plotted, rule, sides, time_axis, timed_span

__all__ = ["footprint_cells", "profile_bars"]

_MOST_LABELS: Final = 220
_WITHOUT_SIGN: Final = "format(abs(datum.value), ',')"


def profile_bars(
    profile: pl.DataFrame, area: pl.DataFrame, *, tick_size: float, title: str = "Volume profile"
) -> alt.LayerChart:
    """Lots bought and sold at each price, with the point of control and the value area.

    Args:
        profile: `price`, `buy_volume`, `sell_volume` of one contract, from `profile.volume_profile`.
        area: One row of `point_of_control`, `value_area_low`, `value_area_high`, from `profile.value_area`.
        tick_size: The height of a bar, in price units.
        title: The chart's title.
    """
    if profile.is_empty():
        return empty(title, "no trades")
    half = 0.45 * tick_size
    rows = profile.select("price", buy=pl.col("buy_volume"), sell=-pl.col("sell_volume")).unpivot(
        ["buy", "sell"], index="price", variable_name="aggressor", value_name="lots"
    )
    rows = rows.with_columns(bottom=pl.col("price") - half, top=pl.col("price") + half, zero=pl.lit(0))
    bars = (
        plotted(rows)
        .mark_bar(stroke=None)
        .encode(
            alt.X(
                "zero:Q", title="lots: sold to the left, bought to the right", axis=alt.Axis(labelExpr=_WITHOUT_SIGN)
            ),
            alt.Y("bottom:Q", title="price", scale=alt.Scale(zero=False)),
            x2="lots:Q",
            y2="top:Q",
            color=sides(alt.Color),
        )
    )
    poc, low, high = area.select("point_of_control", "value_area_low", "value_area_high").row(0)
    band = (
        alt.Chart(alt.InlineData(values=[{"low": low - half, "high": high + half}]))
        .mark_rect(opacity=0.15, fill="#808080")
        .encode(y=alt.Y("low:Q"), y2="high:Q")
    )
    subtitle = f"line: point of control, {poc:,.10g}; grey: value area, {low:,.10g} to {high:,.10g}"
    return layered(band, bars, rule("y", poc, "ink"), title=title, subtitle=subtitle)


def footprint_cells(
    cells: pl.DataFrame, *, interval_ns: int, step: float, title: str = "Footprint", zone: str = UTC
) -> alt.LayerChart:
    """What sellers hit and buyers lifted at each price, interval by interval.

    Args:
        cells: `start_ns`, `price`, `bid_volume`, `ask_volume`, `delta` of one contract, from `profile.footprint`.
        interval_ns: The length of an interval.
        step: The height of a cell, in price units.
        title: The chart's title.
        zone: The time zone of the clock.
    """
    if cells.is_empty():
        return empty(title, "no trades")
    half, size = step / 2, f"{length(interval_ns)} and {step:,.10g} of price"
    rows = timed_span(cells.with_columns(end_ns=pl.col("start_ns") + interval_ns), zone)
    rows = rows.select(
        "time",
        "end",
        "delta",
        "price",
        bottom=pl.col("price") - half,
        top=pl.col("price") + half,
        mid=(pl.col("time") + pl.col("end")) // 2,
        text=pl.format("{}x{}", "bid_volume", "ask_volume"),
    )
    most = max(1, int(rows["delta"].abs().quantile(0.98) or 1))
    axis = time_axis(rows, zone)
    colour = alt.Color(
        "delta:Q",
        title="delta, lots",
        scale=alt.Scale(domain=[-most, 0, most], range="diverging", clamp=True),
        legend=alt.Legend(gradientLength=120),
    )
    boxes = (
        plotted(rows.drop("text", "mid", "price"))
        .mark_rect(stroke="white", strokeWidth=0.3)
        .encode(
            axis, alt.Y("bottom:Q", title="price", scale=alt.Scale(zero=False)), x2="end:T", y2="top:Q", color=colour
        )
    )
    if rows.height > _MOST_LABELS:
        says = f"orange where sellers, blue where buyers were the aggressors; cells of {size}"
        return layered(boxes, title=title, subtitle=says)
    written = (
        plotted(rows.select("price", "text", time="mid"))
        .mark_text(fontSize=9, style="words")
        .encode(alt.X("time:T"), alt.Y("price:Q"), text="text:N")
    )
    return layered(boxes, written, title=title, subtitle=f"lots sold x lots bought in cells of {size}")
