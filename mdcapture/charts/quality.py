"""Whether the data can be trusted: messages a second, gaps, and how late they came."""

from __future__ import annotations

from typing import Final

import altair as alt
import polars as pl

from mdcapture.charts.drawing import (
    BLUE,
    COLOURS,
    ORANGE,
    UTC,
    empty,
    layered,
    length,
    plotted,
    time_axis,
    timed,
    timed_span,
)

__all__ = ["latency", "message_rates"]

_GAP_COLOUR: Final = "#D55E00"
_DASHES: Final = ([1, 0], [5, 2], [2, 2])


def message_rates(
    rates: pl.DataFrame,
    gaps: pl.DataFrame,
    *,
    interval_ns: int,
    title: str = "Messages and gaps",
    zone: str = UTC,
) -> alt.LayerChart:
    """Rows a second of each stream, and the times in which data can be missing.

    Args:
        rates: `recv_ns` (the start of a bin), `stream`, `per_s`, by stream and time; a bin in which nothing came is a
            row of 0, and one that is no row was not captured: the line has a break there.
        gaps: `from_ns`, `to_ns`, apart.
        interval_ns: The width of a bin.
        title: The chart's title.
        zone: The time zone of the clock.
    """
    if rates.is_empty():
        return empty(title, "no messages")
    rows = timed(_with_ends(rates, interval_ns), zone)
    names = rows["stream"].unique(maintain_order=True).to_list()
    axis = time_axis(rows, zone)
    lines = (
        plotted(rows)
        .mark_line(interpolate="step-after", strokeWidth=1.2)
        .encode(
            axis,
            alt.Y(
                "per_s:Q",
                title="rows a second",
                scale=alt.Scale(type="symlog", constant=1, nice=False),
                axis=alt.Axis(format="~s", values=[0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000]),
            ),
            color=alt.Color("stream:N", title=None, scale=alt.Scale(domain=names, range=list(COLOURS[: len(names)]))),
            strokeDash=alt.StrokeDash(
                "stream:N", title=None, scale=alt.Scale(domain=names, range=_DASHES[: len(names)])
            ),
        )
    )
    missing = gaps.select(start_ns="from_ns", end_ns="to_ns")
    holes = (
        plotted(timed_span(missing, zone))
        .mark_rect(fill=_GAP_COLOUR, opacity=0.3, stroke=_GAP_COLOUR)
        .encode(alt.X("time:T"), x2="end:T")
    )
    count = f"{gaps.height:,} gap{'' if gaps.height == 1 else 's'}, shaded" if gaps.height else "no gap"
    says = f"means over {length(interval_ns)}; {count}"
    return (
        layered(holes, lines, title=title, subtitle=says) if gaps.height else layered(lines, title=title, subtitle=says)
    )


def _with_ends(rates: pl.DataFrame, interval_ns: int) -> pl.DataFrame:
    """Add a row at the end of each run of bins, to which its last step reaches, and one of nothing after it."""
    after = pl.col("recv_ns") + interval_ns
    ends = rates.filter(pl.col("recv_ns").shift(-1).over("stream").ne_missing(after)).with_columns(recv_ns=after)
    breaks = ends.with_columns(per_s=pl.lit(None, pl.Float64))
    return pl.concat([rates, ends, breaks]).sort("stream", "recv_ns", maintain_order=True)


def latency(bins: pl.DataFrame, *, title: str = "Latency of trades", zone: str = UTC) -> alt.LayerChart:
    """Receive time less exchange time: the median, and the range from the 1st to the 99th percentile.

    Args:
        bins: `recv_ns`, `low`, `median`, `high` (ms), a row a bin.
        title: The chart's title.
        zone: The time zone of the clock.
    """
    if bins.is_empty():
        return empty(title, "no trade names its exchange time")
    rows = timed(bins, zone)
    axis = time_axis(rows, zone)
    band = (
        plotted(rows)
        .mark_area(fill=ORANGE, opacity=0.4, interpolate="step-after", stroke=None)
        .encode(axis, alt.Y("low:Q", title="ms"), y2="high:Q")
    )
    line = (
        plotted(rows).mark_line(color=BLUE, strokeWidth=1.6, interpolate="step-after").encode(axis, alt.Y("median:Q"))
    )
    subtitle = "line: median; band: 1st to 99th percentile; the difference of both clocks is in it"
    return layered(band, line, title=title, subtitle=subtitle)
