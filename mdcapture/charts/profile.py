"""Volume by price: of all of a session, and of each interval by who was the aggressor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import altair as alt
import polars as pl

from mdcapture.charts.drawing import (
    HEIGHT_PX,
    UTC,
    WIDTH_PX,
    empty,
    layered,
    length,
    plotted,
    rule,
    sides,
    time_axis,
    timed_span,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["footprint_cells", "profile_bars"]

_LABEL_PX: Final = 9
_LETTER_PX: Final = 5.2
_STRONG: Final = 0.7
"""From this part of the scale on a cell is so strong in colour that its label has a colour of its own."""

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
    if not _fit(rows, step):
        says = f"orange where sellers, blue where buyers were the aggressors; cells of {size}"
        return layered(boxes, title=title, subtitle=says)
    strength = pl.col("delta") / (_STRONG * most)
    looks: Sequence[tuple[pl.Expr, Mapping[str, Any]]] = (
        (strength >= 1, {"fill": "white"}),
        (strength <= -1, {"fill": "black"}),
        (strength.abs() < 1, {"style": "words"}),
    )
    written = [
        plotted(rows.filter(which).select("price", "text", time="mid"))
        .mark_text(fontSize=_LABEL_PX, **look)
        .encode(alt.X("time:T"), alt.Y("price:Q"), text="text:N")
        for which, look in looks
    ]
    return layered(boxes, *written, title=title, subtitle=f"lots sold x lots bought in cells of {size}")


def _fit(cells: pl.DataFrame, step: float) -> bool:
    """Whether the labels of cells are no larger than the cells."""
    extent = cells.select(
        columns=(pl.col("end").max() - pl.col("time").min()) / (pl.col("end") - pl.col("time")).max(),
        levels=(pl.col("top").max() - pl.col("bottom").min()) / step,
        letters=pl.col("text").str.len_chars().max(),
    )
    columns, levels, letters = extent.row(0)
    return bool(letters * _LETTER_PX <= WIDTH_PX / columns and HEIGHT_PX / levels >= _LABEL_PX)
