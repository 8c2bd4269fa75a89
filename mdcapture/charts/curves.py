"""One measure by the scale it is taken at: signature plot, response, Epps curve, lead and lag, time of day.

All of these are curves over an interval, a horizon, a lag or a clock, a line a series.
"""

from __future__ import annotations

from typing import Final

import altair as alt
import polars as pl

from mdcapture.charts.drawing import UTC, curve_lines, empty, layered, length, rule, time_axis

__all__ = ["epps", "leads_and_lags", "recovery", "response_function", "seasonality", "signature_plot"]

_LABELS: Final = "datum.value >= 60 ? format(datum.value / 60, '~g') + ' min' : datum.value >= 1 ? "
_LEAST_LEFT: Final = -0.5
"""What comes back as more than it was is drawn so far, and no further."""

_ROOM: Final = 0.04
_ROOM_PX: Final = 6
"""Around the outermost points, so that what cuts off the lines does not cut them in half."""

_LAG_TICKS: Final = (-1000, -100, -10, 0, 10, 100, 1000)
_SCALE_LABELS: Final = _LABELS + "format(datum.value, '~g') + ' s' : format(1000 * datum.value, '~g') + ' ms'"


def _seconds(title: str, values: pl.Series, *, padding: int = 0) -> alt.X:
    axis = alt.Axis(
        grid=False,
        values=values.unique().sort().to_list(),
        labelExpr=_SCALE_LABELS,
        labelOverlap="greedy",
        labelSeparation=6,
    )
    return alt.X("x:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=padding), axis=axis)


def _upwards(title: str, rows: pl.DataFrame, *others: float) -> alt.Y:
    """The axis of what is drawn, with nought: of bands so much that the lines have half of the height at least."""
    points = [*rows["y"], 0.0, *others]
    lowest, highest = min(points), max(points)
    if highest == lowest:
        return alt.Y("y:Q", title=title)
    room = (highest - lowest) / 2
    if "low" in rows.columns:
        ends = rows.select(pl.col("low").min(), pl.col("high").max()).fill_nan(None).row(0)
        low, high = (value if end is None else end for value, end in zip((lowest, highest), ends, strict=True))
        lowest, highest = max(lowest - room, min(lowest, low)), min(highest + room, max(highest, high))
    return alt.Y("y:Q", title=title, scale=alt.Scale(domain=[lowest, highest], nice=True))


def _explained(rows: pl.DataFrame, band: str) -> list[str]:
    """The line that says what the bands are, where there are any."""
    return [f"band: {band}"] if band and "low" in rows.columns and rows["low"].count() else []


def signature_plot(
    curve: pl.DataFrame, *, robust: float | None = None, band: str = "", title: str = "Volatility signature"
) -> alt.LayerChart:
    """Volatility by the interval of sampling: what rises to the left is noise.

    Args:
        curve: `interval_s`, `volatility` (% a year), `series` (what was sampled), a row an interval; a band where it
            has `low` and `high`.
        robust: The volatility without noise, by a realized kernel, drawn as a line.
        band: What the band is.
        title: The chart's title.
    """
    rows = curve.drop_nulls("volatility").rename({"interval_s": "x", "volatility": "y"})
    if rows.is_empty():
        return empty(title, "no returns")
    known = [] if robust is None else [robust]
    y = _upwards("volatility, % a year", rows, *known)
    lines = curve_lines(rows, _seconds("interval of sampling", rows["x"]), y)
    says = [f"dashed: realized kernel, {value:.2f} % a year, without noise" for value in known]
    subtitle = says + _explained(rows, band)
    return layered(lines, *(rule("y", value, "ink") for value in known), title=title, subtitle=subtitle)


def response_function(curve: pl.DataFrame, *, band: str = "", title: str = "Response to trades") -> alt.LayerChart:
    """How the mid moves after trades, by horizon and size.

    Args:
        curve: `horizon_s`, `response` (ticks or price units, as `unit` says), `series` (sizes), `unit`; a band where it
            has `low` and `high`.
        band: What the band is.
        title: The chart's title.
    """
    rows = curve.drop_nulls("response").rename({"horizon_s": "x", "response": "y"})
    if rows.is_empty():
        return empty(title, "no trade whose later mids are known")
    y = _upwards(f"mean move of the mid, {rows['unit'][0]}", rows)
    lines = curve_lines(rows.drop("unit"), _seconds("time after the trade", rows["x"]), y, title="lots")
    subtitle = ["in the direction of the aggressor, by size of trade", *_explained(rows, band)]
    return layered(rule("y", 0), lines, title=title, subtitle=subtitle)


def recovery(curve: pl.DataFrame, *, title: str = "Recovery of the book") -> alt.LayerChart:
    """How much of a shock is left, by the time since.

    Args:
        curve: `horizon_s` (above 0), `left` (of the greatest mean change: 1 is all of it, and none is above), `series`,
            `half_life_s` (of the series; null where it does not come back so far).
        title: The chart's title.
    """
    rows = curve.drop_nulls("left").rename({"horizon_s": "x", "left": "y"})
    if rows.is_empty():
        return empty(title, "no shocks of the book, or too few to tell")
    lowest = float(rows["y"].to_numpy().min())
    shown = [max(_LEAST_LEFT, min(0.0, lowest)) - _ROOM, 1 + _ROOM]
    y = alt.Y(
        "y:Q",
        title="share of the change that is left",
        scale=alt.Scale(domain=shown, nice=False),
        axis=alt.Axis(values=[-0.5, -0.25, 0, 0.25, 0.5, 0.75, 1], format=".2~f"),
    )
    x = _seconds("time after the shock", rows["x"], padding=_ROOM_PX)
    lines = curve_lines(rows.drop("half_life_s"), x, y, clip=True)
    halves = ", ".join(
        f"{name} {'not reached' if half_s is None else f'{half_s:.2g} s'}"
        for name, half_s in rows.select("series", "half_life_s").unique(maintain_order=True).rows()
    )
    more = "; below 0 is more than before, and below -0.5 it is cut off" if lowest < _LEAST_LEFT else ""
    subtitle = f"half-life: {halves}{more}"
    return layered(rule("y", 0), rule("y", 0.5), lines, title=title, subtitle=subtitle)


def epps(curve: pl.DataFrame, *, band: str = "", title: str = "Correlation by interval (Epps)") -> alt.LayerChart:
    """Correlation of pairs of contracts by the interval of sampling.

    Args:
        curve: `interval_s`, `correlation`, `series` (the pair); a band where it has `low` and `high`.
        band: What the band is.
        title: The chart's title.
    """
    rows = curve.drop_nulls("correlation").rename({"interval_s": "x", "correlation": "y"})
    if rows.is_empty():
        return empty(title, "no two contracts with returns at the same times")
    y = _upwards("correlation of returns", rows)
    lines = curve_lines(rows, _seconds("interval of sampling", rows["x"]), y)
    subtitle = ["it falls to short intervals, where contracts move one after the other", *_explained(rows, band)]
    return layered(rule("y", 0), lines, title=title, subtitle=subtitle)


def leads_and_lags(curve: pl.DataFrame, *, title: str = "Lead and lag") -> alt.LayerChart:
    """Correlation of pairs of contracts by the lag of the second.

    Args:
        curve: `lag_ms`, `correlation`, `series` (the pair, as `first / second`).
        title: The chart's title.
    """
    rows = curve.drop_nulls("correlation").rename({"lag_ms": "x", "correlation": "y"})
    if rows.is_empty():
        return empty(title, "no two contracts with quotes")
    axis = alt.Axis(values=list(_LAG_TICKS), grid=False)
    scale = alt.Scale(type="symlog", constant=1, nice=False)
    pairs = rows["series"].unique().to_list()
    first = pairs[0].partition(" / ")[0] if len(pairs) == 1 else "the first of a pair"
    x = alt.X("x:Q", title=f"lag, ms; to the right {first} leads, to the left it follows", scale=scale, axis=axis)
    lines = curve_lines(rows, x, alt.Y("y:Q", title="correlation"))
    return layered(rule("x", 0), lines, title=title)


def seasonality(
    curve: pl.DataFrame, *, interval_ns: int, title: str = "Time of day", zone: str = UTC
) -> alt.LayerChart:
    """Measures by the time of day, each over its own mean.

    Args:
        curve: `time_of_day_ns` (since the zone's midnight), `factor` (1 is the mean), `series`.
        interval_ns: The width of a bin of the day, the same for all.
        title: The chart's title.
        zone: Whose midnight it is.
    """
    rows = curve.drop_nulls("factor").select("series", time=pl.col("time_of_day_ns") // 1_000_000, y=pl.col("factor"))
    if rows.is_empty():
        return empty(title, "nothing was traded or quoted")
    y = alt.Y("y:Q", title="over its mean")
    lines = curve_lines(rows, time_axis(rows, zone), y)
    subtitle = f"means over {length(interval_ns)} of the day; 1 is the mean of the session"
    return layered(rule("y", 1), lines, title=title, subtitle=subtitle)
