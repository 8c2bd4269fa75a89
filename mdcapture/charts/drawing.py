"""What every chart shares: its look, its time axis, and the reduction of millions of rows to what a screen can show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import altair as alt
import polars as pl

from mdcapture.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BUY", "HEIGHT_PX", "INK", "SELL", "WIDTH_PX", "empty", "layered", "per_pixel", "save", "time_axis", "timed"]

WIDTH_PX: Final = 900
HEIGHT_PX: Final = 320
BUY: Final = "#0072B2"
SELL: Final = "#D55E00"
INK: Final = "#404040"
"""Blue and vermilion from the palette of Okabe and Ito: the colour-blind tell them apart, and so does a grey print."""

_SCALES: Final = {".png": 2.0}


def timed(frame: pl.DataFrame, column: str = "recv_ns") -> pl.DataFrame:
    """Add `time`, in UTC and milliseconds, as charts want it."""
    return frame.with_columns(time=pl.from_epoch(pl.col(column) // 1_000_000, time_unit="ms"))


def per_pixel(frame: pl.DataFrame, value: str, *, width_px: int = WIDTH_PX) -> pl.DataFrame:
    """Keep, for each pixel of width, the rows with the first, the lowest, the highest and the last value.

    Args:
        frame: Rows with `recv_ns` in order.
        value: The column whose extremes must survive.
        width_px: The chart's width.

    Returns:
        At most four rows a pixel, in order; a small frame as it is.
    """
    if frame.height <= 4 * width_px:
        return frame
    start, end = frame["recv_ns"][0], frame["recv_ns"][-1]
    pixel = (pl.col("recv_ns") - start) * width_px // max(1, end - start + 1)
    row = pl.int_range(pl.len())
    picked = (
        frame.with_columns(row.alias("_row"), pixel.alias("_pixel"))
        .group_by("_pixel")
        .agg(
            pl.col("_row").first().alias("first"),
            pl.col("_row").last().alias("last"),
            pl.col("_row").get(pl.col(value).arg_min()).alias("low"),
            pl.col("_row").get(pl.col(value).arg_max()).alias("high"),
        )
        .select(pl.concat_list("first", "low", "high", "last").explode().unique().sort().drop_nulls())
        .to_series()
    )
    return frame[picked]


def time_axis(**options: Any) -> alt.X:  # noqa: ANN401  # altair's own
    """The time in UTC, by a clock of 24 hours."""
    axis = alt.Axis(title="time, UTC", formatType="time", format="%H:%M:%S", labelOverlap=True, grid=False)
    return alt.X("time:T", scale=alt.Scale(type="utc"), axis=axis, **options)


def empty(title: str, why: str) -> alt.LayerChart:
    """A chart that says that there is nothing to draw, and why."""
    text = alt.Chart(alt.InlineData(values=[{"why": why}])).mark_text(fontSize=16, color=INK).encode(text="why:N")
    return layered(text, title=title)


def layered(
    *charts: alt.Chart, title: str, subtitle: str = "", width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX
) -> alt.LayerChart:
    """Charts on top of each other, with a size and a title."""
    heading = alt.TitleParams(title, subtitle=subtitle, anchor="start", fontSize=15, subtitleColor="#707070")
    chart = alt.layer(*charts).properties(width=width_px, height=height_px, title=heading)
    assert isinstance(chart, alt.LayerChart)
    return chart


def save(chart: alt.Chart | alt.LayerChart | alt.VConcatChart, path: Path) -> None:
    """Write a chart as its file's suffix says: .png, .svg, or .html in one piece that needs no network.

    Raises:
        UsageError: The suffix is none of these.
    """
    kind = path.suffix.lower()
    if kind not in (".png", ".svg", ".html"):
        raise UsageError(f"{path}: a chart is written as .png, .svg or .html")
    chart = chart.configure_view(stroke=None).configure_axis(
        labelFontSize=11, titleFontSize=12, titleFontWeight="normal"
    )
    if kind == ".html":
        chart.save(path, inline=True)
    else:
        chart.save(path, scale_factor=_SCALES.get(kind, 1.0))
