"""What held at a moment, in the events of one group: the quote before, the mid after, how long, and on a grid of time.

The rows of one group flow in, in the order of events (`recv_ns`, `seq`, `pos`), and columns beside them flow out.
`mdcapture.metrics.frames` finds the groups, puts their rows in order, and offers the same for whole frames; a metric of
several steps takes its frames apart once (`frames.each_group`) and takes these steps in each group.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "NO_GAPS",
    "ORDER",
    "Gaps",
    "gaps_between",
    "mid",
    "mid_at",
    "pieces",
    "prevailing",
    "previous_tick",
    "stretch_of",
    "two_sided",
    "with_duration",
    "with_stretch",
]

ORDER = ("recv_ns", "seq", "pos")

Times = NDArray[np.int64]


class Gaps(NamedTuple):
    """Where data can be missing, as the ends of stretches without a gap.

    Attributes:
        edge_ns: The first time of each stretch but the first, rising.
        held_ns: When the states before that time end: where the gap begins.
    """

    edge_ns: Times
    held_ns: Times


NO_GAPS = Gaps(np.array([], np.int64), np.array([], np.int64))


def gaps_between(incidents: pl.DataFrame) -> Gaps:
    """The gaps that incidents (`from_ns`, `to_ns`) leave; what lies inside of one is a stretch of its own.

    A message at `from_ns` is the last one before the gap, one at `to_ns` the first one after it.
    """
    begin, end = pl.min_horizontal("from_ns", "to_ns"), pl.max_horizontal("from_ns", "to_ns")  # clocks step back too
    spans = incidents.select(begin_ns=begin, end_ns=end)
    opened = spans.filter(pl.col("begin_ns") + 1 < pl.col("end_ns"))
    starts = opened.select(edge_ns=pl.col("begin_ns") + 1, held_ns="begin_ns")
    ends = spans.select(edge_ns="end_ns", held_ns="end_ns")
    edges = pl.concat([starts, ends]).sort("edge_ns", "held_ns").unique("edge_ns", keep="first", maintain_order=True)
    return Gaps(*(edges[name].to_numpy() for name in Gaps._fields))


def stretch_of(times: Times, gaps: Gaps) -> Times:
    """The number of the stretch that each time is in."""
    if not len(gaps.edge_ns):
        return np.zeros(len(times), np.int64)  # costs nothing until it is looked at
    return np.searchsorted(gaps.edge_ns, times, side="right")


def two_sided(bid: str = "best_bid", ask: str = "best_ask") -> pl.Expr:
    """Whether both sides are there and the bid is not above the ask (a locked book is two-sided)."""
    low, high = pl.col(bid), pl.col(ask)
    return (low <= high) & (high < math.inf)  # what is not a number counts as larger than all that are


def mid() -> pl.Expr:
    """(best_bid + best_ask) / 2, null where a side is missing or the book is crossed."""
    return pl.when(two_sided()).then((pl.col("best_bid") + pl.col("best_ask")) / 2)


def with_stretch(rows: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
    """Add `stretch`, the number of the stretch that each row is in."""
    numbers = pl.Series(stretch_of(rows["recv_ns"].to_numpy(), gaps)) if len(gaps.edge_ns) else pl.lit(0, pl.Int64)
    return rows.with_columns(stretch=numbers)


def pieces(rows: pl.DataFrame) -> list[pl.DataFrame]:
    """The rows of each `stretch`, which must follow each other; an empty frame is one piece."""
    ends = np.flatnonzero(np.diff(rows["stretch"].to_numpy())) + 1
    return [rows[start:end] for start, end in itertools.pairwise([0, *ends.tolist(), rows.height])]


def prevailing(
    events: pl.DataFrame, states: pl.DataFrame, gaps: Gaps, columns: Sequence[str], *, age_ns: int = 0
) -> pl.DataFrame:
    """Add to each event the state that stood strictly before it in the order of events; null after a gap.

    With `age_ns`, the state that stood so long before.
    """
    order = [name for name in ORDER if name in events.columns and name in states.columns]
    aged = states.with_columns(pl.col("recv_ns") + age_ns) if age_ns else states
    place = _count_before(*([_integers(rows, name) for name in order] for rows in (aged, events))) - 1
    if len(gaps.edge_ns):
        of_states, of_events = (stretch_of(rows["recv_ns"].to_numpy(), gaps) for rows in (states, events))
        place[np.append(of_states, -1)[place] != of_events] = -1
    return events.drop(columns, strict=False).hstack(_taken(states, columns, place))


def _integers(rows: pl.DataFrame, name: str) -> Times:
    return rows[name].fill_null(0).to_numpy()


def _count_before(states: Sequence[Times], events: Sequence[Times]) -> Times:
    """How many states are before each event, where columns after the first decide between equals in the first."""
    low = np.searchsorted(states[0], events[0])
    if len(states) == 1 or not len(states[0]):
        return low
    tied = np.flatnonzero(states[0].take(low, mode="clip") == events[0])
    high = low.copy() if len(tied) else low
    high[tied] = np.searchsorted(states[0], events[0][tied], side="right")
    tied = tied[low[tied] < high[tied]]
    while len(tied):
        middle = (low[tied] + high[tied]) // 2
        before, equal = np.zeros(len(tied), np.bool_), np.ones(len(tied), np.bool_)
        for state, event in zip(states[1:], events[1:], strict=True):
            before |= equal & (state[middle] < event[tied])
            equal &= state[middle] == event[tied]
        low[tied[before]] = middle[before] + 1
        high[tied[~before]] = middle[~before]
        tied = tied[low[tied] < high[tied]]
    return low


def _taken(states: pl.DataFrame, columns: Sequence[str], place: Times) -> pl.DataFrame:
    """The columns of the states in these places, null where a place is negative; a mid is made of what was found."""
    made = "mid" in columns and "mid" not in states.columns
    rows, sources = pl.Series(place), {*columns, "best_bid", "best_ask"} - {"mid"} if made else columns
    found = states.select(pl.col(sources).gather(rows.set(rows < 0, None)))
    return (found.with_columns(mid=mid()) if made else found).select(columns)


def mid_at(
    events: pl.DataFrame, quotes: pl.DataFrame, horizon_ns: int, gaps: Gaps, *, clock: str = "recv_ns"
) -> pl.Series:
    """The mid at a horizon: that of the last quote at or before each event's time by the clock plus the horizon."""
    known = quotes if clock == "recv_ns" else quotes.drop_nulls(clock)
    now = events[clock].fill_null(np.iinfo(np.int64).min).to_numpy()
    here, there = (stretch_of(events["recv_ns"].to_numpy() + later, gaps) for later in (0, horizon_ns))
    stretch = stretch_of(known["recv_ns"].to_numpy(), gaps)
    if clock != "recv_ns":
        by_clock = np.lexsort((known[clock].to_numpy(), stretch))
        known, stretch = known[by_clock], stretch[by_clock]
    times, target = known[clock].to_numpy(), now + horizon_ns
    place = _last_at(times, stretch, target, there)
    last = max(known_ns.max(initial=0) for known_ns in (times, now))
    place[(target > last) | (here != there) | events[clock].is_null().to_numpy()] = -1
    return _taken(known, ["mid"], place).to_series()


def _last_at(times: Times, stretch: Times, target: Times, wanted: Times) -> Times:
    """The place of the last time at or before each target in the stretch that is wanted; -1 where there is none.

    Times rise within a stretch, stretches and the wanted ones rise.
    """
    place = np.full(len(target), -1)
    for number in range(wanted.max(initial=-1) + 1):
        own, asked = (slice(*np.searchsorted(numbers, [number, number + 1])) for numbers in (stretch, wanted))
        found = np.searchsorted(times[own], target[asked], side="right")
        place[asked] = np.where(found > 0, own.start + found - 1, -1)
    return place


def with_duration(states: pl.DataFrame, until: pl.DataFrame | None, gaps: Gaps) -> pl.DataFrame:
    """Add `duration_ns`: how long each state holds, until the next one, a gap, or the end of the data."""
    times = states["recv_ns"].to_numpy()
    if not len(times):
        return states.with_columns(duration_ns=pl.lit(0, pl.Int64))
    last = times[-1] if until is None or until.is_empty() else max(times[-1], until["recv_ns"].max())
    end = np.append(times[1:], last)
    if len(gaps.edge_ns):
        end = np.minimum(end, np.append(gaps.held_ns, np.iinfo(np.int64).max)[stretch_of(times, gaps)])
    return states.with_columns(duration_ns=pl.Series(end - times))


def previous_tick(
    rows: pl.DataFrame, interval_ns: int, columns: Sequence[str], gaps: Gaps, *, before: bool = False
) -> pl.DataFrame:
    """The last row at (or strictly before) each whole multiple of the interval, inside of each stretch only."""
    times = rows["recv_ns"].to_numpy()
    bounds = [0, *(np.searchsorted(times, gaps.edge_ns)), len(times)]
    points, places, numbers = [times[:0]], [times[:0]], [times[:0]]
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        own = times[start:stop]
        if len(own):
            grid = np.arange(-(-own[0] // interval_ns), own[-1] // interval_ns + 1) * interval_ns
            found = np.searchsorted(own, grid, side="left" if before else "right")
            points.append(grid)
            places.append(np.where(found > 0, start + found - 1, -1))
            numbers.append(np.full(len(grid), number))
    grid_rows = pl.DataFrame({"recv_ns": np.concatenate(points), "stretch": np.concatenate(numbers)})
    return grid_rows.hstack(_taken(rows, columns, np.concatenate(places)))
