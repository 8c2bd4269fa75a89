"""Many sessions in one picture: a figure over time, how its values are distributed, what was captured of each day."""

from __future__ import annotations

from typing import Final

import altair as alt
import polars as pl

from mdcapture.charts.drawing import (
    BLUE,
    ORANGE,
    UTC,
    Z_95,
    curve_lines,
    empty,
    layered,
    plotted,
    time_axis,
    timed,
)

__all__ = ["coverage_calendar", "distributions", "over_sessions"]

_CELL_PX: Final = 26
_MOST_LABELLED: Final = 31
_DAY_LABELS: Final = 12
_PALE: Final = 0.6
_DAY_MS: Final = 86_400_000


def over_sessions(figures: pl.DataFrame, *, unit: str, title: str, zone: str = UTC) -> alt.LayerChart:
    """One metric over the sessions of a contract, a point a session, with the 95 % interval of its standard error.

    Args:
        figures: `start_ns`, `value`, `error` (standard error or null), `contract`, from `compare.history`.
        unit: The unit of the values.
        title: The chart's title.
        zone: The time zone of the clock.
    """
    if figures.is_empty():
        return empty(title, "no session has this figure")
    half = Z_95 * pl.col("error")
    rows = timed(
        figures.select(
            "start_ns", series="contract", y="value", low=pl.col("value") - half, high=pl.col("value") + half
        ),
        zone,
        "start_ns",
    )
    x, y = time_axis(rows, zone), alt.Y("y:Q", title=unit or "value", scale=_scale(unit))
    lines = curve_lines(rows.drop("low", "high"), x, y)
    known = rows.drop_nulls(["low", "high"])
    if known.is_empty():
        return layered(lines, title=title)
    bars = plotted(known).mark_rule(style="faint", strokeWidth=1.5).encode(x, alt.Y("low:Q"), y2="high:Q")
    return layered(bars, lines, title=title, subtitle="bars: 95 % intervals of the standard errors")


def _scale(unit: str) -> alt.Scale:
    """A share is seen against all and nothing."""
    return alt.Scale(domain=[0, 1]) if unit == "share" else alt.Scale(zero=False)


def distributions(values: pl.DataFrame, *, unit: str, title: str) -> alt.LayerChart:
    """The share of intervals with at most each value, a line for each part that is compared.

    Args:
        values: `contract`, `part`, `value`, from `compare.comparable`; nulls are left out.
        unit: The unit of the values.
        title: The chart's title.
    """
    known = values.drop_nulls("value")
    if known.is_empty():
        return empty(title, "no values to compare")
    alone = known["contract"].n_unique() == 1
    named = known.with_columns(series="part" if alone else pl.format("{}, {}", "contract", "part"))
    rows = pl.concat(
        own.sort("value").select("series", x="value", y=pl.int_range(1, pl.len() + 1) / pl.len())
        for own in named.partition_by("series", maintain_order=True)
    )
    x = alt.X("x:Q", title=unit or "value", scale=alt.Scale(zero=False))
    y = alt.Y("y:Q", title="share of intervals with at most this value", scale=alt.Scale(domain=[0, 1]))
    lines = curve_lines(rows, x, y, points=False)
    return layered(lines, title=title)


def coverage_calendar(coverage: pl.DataFrame, *, title: str = "Captured share of market hours") -> alt.LayerChart:
    """What share of the market's hours was captured, a cell a contract and trading day; gaps have a mark.

    Args:
        coverage: `contract`, `day` (a date), `share` (of the day's market hours, null where it has none), `gaps`, from
            `coverage.coverage`.
        title: The chart's title.
    """
    rows = coverage.drop_nulls("share")
    if rows.is_empty():
        return empty(title, "nothing was captured while the market was open")
    percent = 100 * pl.col("share")
    cells = rows.select(
        "contract",
        "gaps",
        "share",
        time=pl.col("day").dt.epoch("ms"),
        end=pl.col("day").dt.epoch("ms") + _DAY_MS,
        middle=pl.col("day").dt.epoch("ms") + _DAY_MS // 2,
        text=pl.when(percent.is_between(0, 1, closed="none"))
        .then(pl.lit("<1"))
        .otherwise(percent.round().cast(pl.Int64).cast(pl.String)),
    )
    first, last = cells.select(first=pl.col("time").min(), last=pl.col("end").max()).row(0)
    days = range(first, last, _DAY_MS)
    ticks = list(days[:: -(-len(days) // _DAY_LABELS)])
    axis = alt.Axis(title="trading day", format="%d %b", formatType="time", values=ticks, grid=False)
    x = alt.X("time:T", scale=alt.Scale(type="utc", nice=False), axis=axis)
    y = alt.Y("contract:N", title=None)
    shares = alt.Color(
        "share:Q",
        title="share captured",
        scale=alt.Scale(domain=[0, 1], range=["#f0f0f0", BLUE]),
        legend=alt.Legend(gradientLength=120, format="%"),
    )
    boxes = plotted(cells).mark_rect(opacity=1, stroke="white", strokeWidth=1).encode(x, y, x2="end:T", color=shares)
    holes = (
        plotted(cells.filter(pl.col("gaps") > 0))
        .mark_point(
            shape="triangle-down", filled=True, size=60, color=ORANGE, stroke="black", strokeWidth=0.7, yOffset=-7
        )
        .encode(alt.X("middle:T"), y)
    )
    written = (
        plotted(cells.with_columns(pale=pl.col("share") < 0.5))  # noqa: PLR2004  # half of the ramp
        .mark_text(fontSize=10, yOffset=4)
        .encode(
            alt.X("middle:T"),
            y,
            text="text:N",
            color=alt.condition("datum.pale === 'true'", alt.value("black"), alt.value("white")),
        )
    )
    layers = [boxes, written, holes] if len(days) <= _MOST_LABELLED else [boxes, holes]
    subtitle = "per cent of the hours in which the market was open; triangles: days with gaps"
    return layered(*layers, title=title, subtitle=subtitle, height_px=_CELL_PX * rows["contract"].n_unique())
