"""What every chart shares: its look, its time axis, and the reduction of millions of rows to what a screen can show.

Colours are those of Okabe and Ito that differ in brightness, too: the colour-blind tell them apart, and so does a grey
print. What is drawn in ink or faintly takes its colour from the theme (`style="ink"`), so that one chart goes with a
light page and with a dark one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import altair as alt
import polars as pl
from polars import selectors

from mdcapture.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = [
    "BLUE",
    "BUY",
    "COLOURS",
    "GREEN",
    "HEIGHT_PX",
    "ORANGE",
    "OVERLAP",
    "SELL",
    "SIDES",
    "UTC",
    "WIDTH_PX",
    "Z_95",
    "Chart",
    "curve_lines",
    "empty",
    "layered",
    "length",
    "per_pixel",
    "plotted",
    "rule",
    "save",
    "sides",
    "stacked",
    "theme",
    "time_axis",
    "timed",
    "timed_span",
    "wall_clock_ms",
]

WIDTH_PX: Final = 720
HEIGHT_PX: Final = 300
UTC: Final = "UTC"

OVERLAP: Final = 8
"""Opaque cells reach this part of their width into the next one, which is drawn over it: no seams are seen."""

Chart = alt.LayerChart
"""What every function of this room returns: it can be changed, layered and concatenated further."""

BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
GREEN: Final = "#009E73"
COLOURS: Final = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#D55E00")
BUY, SELL = BLUE, ORANGE
SIDES: Final = {0: "buy", 1: "sell"}

Z_95: Final = 1.96
"""So many standard errors to each side are 95 %."""

_FONT: Final = "Helvetica, Arial, sans-serif"
_SCALE: Final = 2.0
_DIGITS: Final = 7
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000
_DASHES: Final = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [4, 1], [1, 1])
_SHAPES: Final = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
_LEGEND_COLUMNS: Final = 5
_BAND: Final = 0.15
"""How opaque a band is: lighter than its line, and those of several lines can be told apart."""

_UNITS_NS: Final = {"h": 3_600_000_000_000, "min": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000}


def wall_clock_ms(column: str, zone: str = UTC) -> pl.Expr:
    """A time (ns UTC) as charts want it: milliseconds of the zone's wall clock, as if it were UTC."""
    time = pl.from_epoch(pl.col(column) // 1_000_000, time_unit="ms").dt.replace_time_zone("UTC")
    return time.dt.convert_time_zone(zone).dt.replace_time_zone(None).dt.epoch("ms")


def timed(frame: pl.DataFrame, zone: str = UTC, column: str = "recv_ns") -> pl.DataFrame:
    """Put `time`, see `wall_clock_ms`, in the place of a column of times."""
    return frame.with_columns(time=wall_clock_ms(column, zone)).drop(column)


def timed_span(frame: pl.DataFrame, zone: str = UTC) -> pl.DataFrame:
    """Put `time` and `end`, see `wall_clock_ms`, in the place of `start_ns` and `end_ns`."""
    return frame.with_columns(time=wall_clock_ms("start_ns", zone), end=wall_clock_ms("end_ns", zone)).drop(
        "start_ns", "end_ns"
    )


def plotted(frame: pl.DataFrame) -> alt.Chart:
    """A chart of a frame's rows, which go into it as they are, however many; floats with seven digits.

    They go as the text of a CSV: it is a third of JSON's size, and altair does not look at each row of it.
    """
    rows = frame.with_columns(selectors.float().round_sig_figs(_DIGITS).fill_nan(None))
    parse = {name: "number" if kind.is_numeric() else "string" for name, kind in rows.schema.items()}
    return alt.Chart(alt.InlineData(values=rows.write_csv(), format=alt.CsvDataFormat(type="csv", parse=parse)))


def per_pixel(frame: pl.DataFrame, *values: str, width_px: int = WIDTH_PX) -> pl.DataFrame:
    """Keep, for each pixel of width, the first row, the last, and those with the least and the most of each value.

    Args:
        frame: Rows with `recv_ns` in order.
        values: The columns whose extremes must survive.
        width_px: The chart's width.

    Returns:
        At most two rows a pixel and two for each value, in order; a small frame as it is.
    """
    if frame.height <= 2 * width_px:
        return frame
    start, end = frame["recv_ns"][0], frame["recv_ns"][-1]
    pixel = (pl.col("recv_ns") - start) * width_px // max(1, end - start + 1)
    row = pl.col("_row")
    extremes = [row.get(place) for value in values for place in (pl.col(value).arg_min(), pl.col(value).arg_max())]
    kept = [row.first(), row.last(), *extremes]
    picked = (
        frame.select(*values, _row=pl.int_range(pl.len()), _pixel=pixel)
        .group_by("_pixel")
        .agg(one.alias(str(number)) for number, one in enumerate(kept))
        .select(pl.concat_list(pl.exclude("_pixel")).explode().unique().sort().drop_nulls())
    )
    return frame[picked.to_series()]


def time_axis(rows: pl.DataFrame, zone: str = UTC, **options: Any) -> alt.X:  # noqa: ANN401  # altair's own
    """The axis of `time` by a clock of 24 hours, with as much of it as the rows need."""
    first, last = rows["time"].min(), rows["time"].max()
    assert isinstance(first, int | None)
    assert isinstance(last, int | None)
    span_ms = (last or 0) - (first or 0)
    form = "%H:%M:%S" if span_ms < 10 * _MINUTE_MS else "%H:%M" if span_ms < _DAY_MS else "%d %b %H:%M"
    city = zone.rpartition("/")[2].replace("_", " ")
    axis = alt.Axis(title=f"time, {city}", formatType="time", format=form, labelOverlap=True, grid=False, tickCount=8)
    return alt.X("time:T", scale=alt.Scale(type="utc", nice=False), axis=axis, **options)


def length(time_ns: int) -> str:
    """A length of time in words: 15 s, 5 min, 2 h."""
    unit, size_ns = next((unit, size) for unit, size in _UNITS_NS.items() if time_ns % size == 0 or unit == "ms")
    return f"{time_ns // size_ns} {unit}"


def curve_lines(
    rows: pl.DataFrame, x: alt.X, y: alt.Y, *, title: str | None = None, points: bool = True, clip: bool = False
) -> alt.Chart | Chart:
    """A line for each `series` of the rows, told apart by colour, dash and, with points, shape; without, it has steps.

    Where the rows have `low` and `high`, a light band lies behind it, cut off at the end of the axis.

    Args:
        rows: What the axes name, and `series`.
        x: The axis across.
        y: The axis upwards.
        title: What the series are.
        points: Whether each row has a point.
        clip: Whether what lies outside of the axes is cut off.
    """
    names = rows["series"].unique(maintain_order=True).to_list()
    edge_px = 0 if points else 2
    legend = (
        None if len(names) == 1 else alt.Legend(columns=_LEGEND_COLUMNS, symbolStrokeWidth=edge_px, symbolOpacity=1)
    )

    def look(looks: Sequence[Any], turn: int = 0) -> dict[str, Any]:
        """Colours come again after the last one; what else tells lines apart is then another one than before."""
        n = len(looks)
        every = [looks[(place + turn * (place // n)) % n] for place in range(len(names))]
        return {"title": title, "legend": legend, "scale": alt.Scale(domain=names, range=every)}

    mark: dict[str, Any] = {"point": alt.OverlayMarkDef(size=45, filled=True, clip=clip)} if points else {}
    colour = alt.Color("series:N", **look(COLOURS))
    chart: alt.Chart = (
        plotted(rows)
        .mark_line(strokeWidth=2, interpolate="linear" if points else "step-after", clip=clip, **mark)
        .encode(x, y, colour, alt.StrokeDash("series:N", **look(_DASHES, turn=1)))
    )
    lines = chart.encode(alt.Shape("series:N", **look(_SHAPES, turn=1))) if points else chart
    if not {"low", "high"} <= {*rows.columns}:
        return lines
    ends = plotted(rows.select("x", "high", "series", y="low"))
    return cast("Chart", ends.mark_area(opacity=_BAND, clip=True).encode(x, y, alt.Y2("high:Q"), colour) + lines)


def sides(channel: type[alt.Color | alt.Shape], field: str = "aggressor") -> alt.Color | alt.Shape:
    """The two sides of the market, always in the same colours and shapes."""
    shapes = channel is alt.Shape
    look = ["triangle-up", "triangle-down"] if shapes else [BUY, SELL]
    return channel(f"{field}:N", title=None, scale=alt.Scale(domain=list(SIDES.values()), range=look))


def rule(channel: str, value: float, style: str = "faint") -> alt.Chart:
    """A dashed line across the chart at a value of `x` or `y`."""
    line = alt.Chart(alt.InlineData(values=[{"at": value}])).mark_rule(style=style, strokeDash=[4, 3])
    chart: alt.Chart = line.encode(**{channel: "at:Q"})
    return chart


def empty(title: str, why: str) -> alt.LayerChart:
    """A chart that says that there is nothing to draw, and why."""
    text = alt.Chart(alt.InlineData(values=[{"why": why}])).mark_text(fontSize=15, style="words").encode(text="why:N")
    return layered(text, title=title, height_px=HEIGHT_PX // 3)


def layered(
    *charts: alt.Chart | Chart,
    title: str,
    subtitle: str | Sequence[str] = "",
    width_px: int = WIDTH_PX,
    height_px: int = HEIGHT_PX,
) -> alt.LayerChart:
    """Charts on top of each other, with a size and a title."""
    heading = alt.TitleParams(title, subtitle=subtitle, anchor="start", frame="group")
    chart = alt.layer(*charts).properties(width=width_px, height=height_px, title=heading)
    assert isinstance(chart, alt.LayerChart)
    return chart


def stacked(*charts: alt.LayerChart) -> alt.VConcatChart:
    """Charts below each other, each with colours, signs and a legend of its own."""
    below = alt.vconcat(*charts).resolve_scale(
        color="independent", shape="independent", size="independent", strokeDash="independent"
    )
    return cast("alt.VConcatChart", below)


def theme(*, dark: bool = False) -> Mapping[str, Any]:
    """The look as a Vega-Lite configuration: ink on paper, or light on dark."""
    ink, faint, grid = ("#e8e8e8", "#9a9a9a", "#3a3a3a") if dark else ("#222222", "#767676", "#e4e4e4")
    middle, strong = ("#1d2126", "#b4b4b4") if dark else ("#fafafa", "#4a4a4a")
    return {
        "background": None if dark else "white",
        "font": _FONT,
        "view": {"stroke": None},
        "axis": {
            "labelFontSize": 12,
            "titleFontSize": 13,
            "titleFontWeight": "normal",
            "labelColor": ink,
            "titleColor": ink,
            "domainColor": faint,
            "tickColor": faint,
            "gridColor": grid,
        },
        "legend": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "orient": "top"}
        | {"titleOrient": "left", "gridAlign": "none", "labelColor": ink, "titleColor": ink, "offset": 4},
        "title": {"fontSize": 15, "subtitleFontSize": 12, "color": ink, "subtitleColor": faint, "offset": 8},
        "header": {"labelColor": ink, "titleColor": ink},
        "range": {"ramp": [middle, strong], "diverging": [SELL, middle, BUY]},
        "style": {
            "ink": {"stroke": ink, "color": ink},
            "faint": {"stroke": faint, "color": faint},
            "words": {"fill": ink, "color": ink},
        },
    }


def save(chart: alt.Chart | alt.LayerChart | alt.VConcatChart, path: Path, *, scale: float = _SCALE) -> None:
    """Write a chart as its file's suffix says: .png, .svg, or .html in one piece that needs no network.

    Args:
        chart: The chart.
        path: Where to.
        scale: Of a .png: pixels of the file to a pixel of the chart.

    Raises:
        UsageError: The suffix is none of these.
    """
    kind = path.suffix.lower()
    if kind not in (".png", ".svg", ".html"):
        raise UsageError(f"{path}: a chart is written as .png, .svg or .html")
    themed = chart.properties(config=theme())
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        if kind == ".html":
            themed.save(unfinished, inline=True)
        else:
            themed.save(unfinished, scale_factor=scale if kind == ".png" else 1.0)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
