"""One measure by the scale it is taken at: signature plot, response, Epps curve, lead and lag, time of day.

All of these are curves over an interval, a horizon, a lag or a clock, a line a series: `_curve` draws them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import altair as alt
import polars as pl

from mdcapture.charts.drawing import COLOURS, UTC, empty, layered, plotted, rule, time_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["epps", "leads_and_lags", "response_function", "seasonality", "signature_plot"]

_DASHES: Final = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2), (4, 1), (1, 1))
_SHAPES: Final = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
_LABELS: Final = "datum.value >= 60 ? format(datum.value / 60, '~g') + ' min' : datum.value >= 1 ? "
_LAG_TICKS: Final = (-1000, -100, -10, 0, 10, 100, 1000)
_SCALE_LABELS: Final = _LABELS + "format(datum.value, '~g') + ' s' : format(1000 * datum.value, '~g') + ' ms'"


def _curve(rows: pl.DataFrame, x: Any, y: alt.Y, series: Sequence[str], *, title: str | None = None) -> alt.Chart:  # noqa: ANN401
    """A line with points for each series, told apart by colour, dash and shape."""
    scale = {
        name: alt.Scale(domain=list(series), range=[list(look) if isinstance(look, tuple) else look for look in looks])
        for name, looks in (("color", COLOURS), ("dash", _DASHES), ("shape", _SHAPES))
    }
    legend = None if len(series) == 1 else alt.Undefined
    chart: alt.Chart = (
        plotted(rows)
        .mark_line(point=alt.OverlayMarkDef(size=45, filled=True), strokeWidth=2)
        .encode(
            x,
            y,
            color=alt.Color("series:N", title=title, scale=scale["color"], legend=legend),
            strokeDash=alt.StrokeDash("series:N", title=title, scale=scale["dash"], legend=legend),
            shape=alt.Shape("series:N", title=title, scale=scale["shape"], legend=legend),
        )
    )
    return chart


def _seconds(title: str, values: pl.Series) -> alt.X:
    axis = alt.Axis(grid=False, values=values.unique().sort().to_list(), labelExpr=_SCALE_LABELS, labelOverlap="greedy")
    return alt.X("x:Q", title=title, scale=alt.Scale(type="log", nice=False), axis=axis)


def _names(rows: pl.DataFrame) -> list[str]:
    return rows["series"].unique(maintain_order=True).to_list()


def signature_plot(
    curve: pl.DataFrame, *, robust: float | None = None, title: str = "Volatility signature"
) -> alt.LayerChart:
    """Volatility by the interval of sampling: what rises to the left is noise.

    Args:
        curve: `interval_s`, `volatility` (% a year), `series` (what was sampled), a row an interval.
        robust: The volatility without noise, by a realized kernel, drawn as a line.
        title: The chart's title.
    """
    rows = curve.drop_nulls("volatility").rename({"interval_s": "x", "volatility": "y"})
    if rows.is_empty():
        return empty(title, "no returns")
    y = alt.Y("y:Q", title="volatility, % a year", scale=alt.Scale(zero=True))
    lines = _curve(rows, _seconds("interval of sampling", rows["x"]), y, _names(rows))
    if robust is None:
        return layered(lines, title=title)
    line = rule("y", robust, "ink")
    return layered(lines, line, title=title, subtitle=f"dashed: realized kernel, {robust:.2f} % a year, without noise")


def response_function(curve: pl.DataFrame, *, title: str = "Response to trades") -> alt.LayerChart:
    """How the mid moves after trades, by horizon and size.

    Args:
        curve: `horizon_s`, `response` (ticks or price units, as `unit` says), `series` (sizes), `unit`.
        title: The chart's title.
    """
    rows = curve.drop_nulls("response").rename({"horizon_s": "x", "response": "y"})
    if rows.is_empty():
        return empty(title, "no trade whose later mids are known")
    y = alt.Y("y:Q", title=f"mean move of the mid, {rows['unit'][0]}")
    lines = _curve(rows.drop("unit"), _seconds("time after the trade", rows["x"]), y, _names(rows), title="lots")
    return layered(rule("y", 0), lines, title=title, subtitle="in the direction of the aggressor, by size of trade")


def epps(curve: pl.DataFrame, *, title: str = "Correlation by interval (Epps)") -> alt.LayerChart:
    """Correlation of pairs of contracts by the interval of sampling.

    Args:
        curve: `interval_s`, `correlation`, `series` (the pair).
        title: The chart's title.
    """
    rows = curve.drop_nulls("correlation").rename({"interval_s": "x", "correlation": "y"})
    if rows.is_empty():
        return empty(title, "no two contracts with returns at the same times")
    y = alt.Y("y:Q", title="correlation of returns")
    lines = _curve(rows, _seconds("interval of sampling", rows["x"]), y, _names(rows))
    return layered(
        rule("y", 0),
        lines,
        title=title,
        subtitle="it falls to short intervals, where contracts move one after the other",
    )


def leads_and_lags(curve: pl.DataFrame, *, title: str = "Lead and lag") -> alt.LayerChart:
    """Correlation of pairs of contracts by the lag of the second.

    Args:
        curve: `lag_ms`, `correlation`, `series` (the pair).
        title: The chart's title.
    """
    rows = curve.drop_nulls("correlation").rename({"lag_ms": "x", "correlation": "y"})
    if rows.is_empty():
        return empty(title, "no two contracts with quotes")
    axis = alt.Axis(values=list(_LAG_TICKS), grid=False)
    scale = alt.Scale(type="symlog", constant=1, nice=False)
    x = alt.X("x:Q", title="lag, ms; to the right the first contract leads", scale=scale, axis=axis)
    lines = _curve(rows, x, alt.Y("y:Q", title="correlation"), _names(rows))
    return layered(rule("x", 0), lines, title=title)


def seasonality(curve: pl.DataFrame, *, title: str = "Time of day", zone: str = UTC) -> alt.LayerChart:
    """Measures by the time of day, each over its own mean.

    Args:
        curve: `time_of_day_ns` (since the zone's midnight), `factor` (1 is the mean), `series`.
        title: The chart's title.
        zone: Whose midnight it is.
    """
    rows = curve.drop_nulls("factor").select("series", time=pl.col("time_of_day_ns") // 1_000_000, y=pl.col("factor"))
    if rows.is_empty():
        return empty(title, "nothing was traded or quoted")
    y = alt.Y("y:Q", title="over its mean")
    lines = _curve(rows, time_axis(rows, zone), y, _names(rows))
    return layered(rule("y", 1), lines, title=title, subtitle="1 is the mean of the session")
