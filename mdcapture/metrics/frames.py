"""What every metric shares: groups, the order of events, stretches of time without a gap, and the quote of a moment.

Frames have the columns of the lake's tables. A metric is computed for each group of the key columns
(`session_id`, `contract_id`) that a frame has; a frame without them is one group. Events are in the order
(`recv_ns`, `seq`, `pos`), and "before" means strictly before in that order, never by time alone.

A quote is a state: it holds from its message until the next one, the end of the data, or a gap. A state whose side is
missing, or whose bid is above its ask, has no mid; the mid before it is not carried over.

The lake's tables lie group by group and in order. So a frame is taken apart into its groups once, as views of its rows
(`each_group`), and nothing after that needs a key: no join, sort or aggregation compares text.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import polars as pl

from mdcapture.errors import UsageError
from mdcapture.metrics import asof
from mdcapture.metrics.asof import NO_GAPS, ORDER, Gaps, gaps_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "KEYS",
    "MID",
    "ORDER",
    "Column",
    "Frame",
    "alike",
    "begins",
    "by_group",
    "column",
    "each_group",
    "groups",
    "key_columns",
    "lasting",
    "mid_at",
    "mids",
    "neighbour",
    "order_columns",
    "ordered",
    "prevailing",
    "previous_tick",
    "reading",
    "stretches",
    "trade_sign",
    "weighted_mean",
    "with_mid",
]

Frame = TypeVar("Frame", pl.LazyFrame, pl.DataFrame)
"""Lazy in, lazy out; a DataFrame in, a DataFrame out."""

Column = pl.Expr | str
"""An expression, or the name of a column."""

KEYS = ("session_id", "contract_id")
MID = ("mid", "best_bid", "best_ask")  # it is made of its sides where it is not there


def column(value: Column) -> pl.Expr:
    """The expression that a name stands for."""
    return pl.col(value) if isinstance(value, str) else value


def key_columns(*frames: pl.LazyFrame | pl.DataFrame) -> list[str]:
    """The key columns that all of the frames have."""
    return _shared(KEYS, frames)


def order_columns(*frames: pl.LazyFrame | pl.DataFrame) -> list[str]:
    """The columns of the order of events that all of the frames have."""
    return _shared(ORDER, frames)


def _shared(names: Sequence[str], frames: Sequence[pl.LazyFrame | pl.DataFrame]) -> list[str]:
    schemas = [frame.collect_schema() for frame in frames]
    return [name for name in names if all(name in schema for schema in schemas)]


def alike(result: pl.LazyFrame, given: Frame) -> Frame:
    """The result, collected in memory if what was given is a DataFrame, and so is there already."""
    return result.collect(engine="in-memory") if isinstance(given, pl.DataFrame) else result


def each_group(
    metric: Callable[..., pl.DataFrame],
    frame: Frame,
    *others: pl.LazyFrame | pl.DataFrame | None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
    order: Sequence[str] = ORDER,
) -> Frame:
    """Apply a metric to each group, and put what comes out one below the other, by the keys.

    Args:
        metric: Called with the group's rows in the order of events, the rows of each of the others that have the same
            keys (those that both have), likewise in order, and the group's `asof.Gaps`. It must be able to take empty
            frames, whose result says what columns there are. Keys that the result lacks are put in front of it.
        frame: Rows in any order; a frame without keys is one group, even if it is empty.
        others: Further frames; None is handed on.
        incidents: Gaps, see `stretches`.
        order: The columns that the group's rows are ordered by; none leaves them in the order that they have.
    """

    def of_all(rows: pl.DataFrame) -> pl.DataFrame:
        keys: list[str] = key_columns(rows)
        partners = [_partners(other, keys) for other in others]
        gaps = _gaps(incidents, keys)
        results = [
            _labelled(metric(own, *(partner(own) for partner in partners), gaps(own)), own, keys)
            for own in _parts(rows, keys, order)
        ]
        return pl.concat(results) if results else nothing(rows)

    def nothing(rows: pl.DataFrame) -> pl.DataFrame:
        empty = [None if other is None else other.collect_schema().to_frame() for other in others]
        return _labelled(metric(rows, *empty, NO_GAPS), rows, key_columns(rows)).clear()

    if isinstance(frame, pl.DataFrame):
        return of_all(frame)
    return frame.map_batches(of_all, schema=nothing(frame.collect_schema().to_frame()).schema)


def _parts(rows: pl.DataFrame, keys: list[str], order: Sequence[str]) -> list[pl.DataFrame]:
    """The rows of each group in their order, by the keys; views of the frame where it has them so."""
    known = [name for name in order if name in rows.columns]
    if not keys:
        return [_in_order(rows, known)]
    bounds = np.concatenate([[0], _run_ends(rows, keys)])
    heads = rows.select(keys)[bounds[:-1]]
    if heads.height > heads.n_unique():
        parts = rows.partition_by(keys, maintain_order=True)
        heads = pl.concat([part.select(keys).head(1) for part in parts])
    else:
        parts = [rows[start:end] for start, end in itertools.pairwise(bounds.tolist())]
    return [_in_order(parts[place], known) for place in heads.select(pl.arg_sort_by(keys)).to_series()]


def _run_ends(rows: pl.DataFrame, keys: list[str]) -> NDArray[np.int64]:
    """Where the rows of one group end, and those of another may begin."""
    lengths = rows.lazy().select(pl.col(key).rle().struct.field("len").implode().alias(key) for key in keys)
    runs = lengths.collect(engine="in-memory")
    return np.unique(np.concatenate([np.cumsum(runs[key].item().to_numpy(), dtype=np.int64) for key in keys]))


def _in_order(rows: pl.DataFrame, order: list[str]) -> pl.DataFrame:
    """The rows sorted; the lake's are, and to see that costs a part of a sort."""
    if not order or rows.height < 2:
        return rows
    rises, ties = pl.lit(value=False), pl.lit(value=True)
    for name in order:
        value, before = pl.col(name).slice(1), pl.col(name).head(pl.len() - 1)
        rises |= ties & (value > before)
        ties &= value == before
        if rows.select(rises.all(ignore_nulls=False)).item():
            return rows
    in_order = rows.select((rises | ties).all(ignore_nulls=False)).item()
    return rows if in_order else rows.sort(order, maintain_order=True)


def _partners(
    other: pl.LazyFrame | pl.DataFrame | None, keys: list[str]
) -> Callable[[pl.DataFrame], pl.DataFrame | None]:
    """Finds the rows of the other frame that go with a group's: those with the same keys, of the keys it has."""
    if other is None:
        return lambda _: None
    rows = other.lazy().collect(engine="in-memory")
    shared = [key for key in keys if key in rows.columns]
    parts = {_key(part, shared): part for part in _parts(rows, shared, ORDER)}
    return lambda own: parts.get(_key(own, shared), rows.clear())


def _key(rows: pl.DataFrame, names: list[str]) -> tuple[object, ...]:
    first = rows.head(1)  # a key that a frame holds once for all rows stays so
    return tuple(first[name][0] for name in names)


def _gaps(incidents: pl.LazyFrame | pl.DataFrame | None, keys: list[str]) -> Callable[[pl.DataFrame], Gaps]:
    """Finds the gaps of a group; a null key of an incident stands for every group."""
    if incidents is None:
        return lambda _: NO_GAPS
    rows = incidents.lazy().collect(engine="in-memory")
    shared = [key for key in keys if key in rows.columns]

    def of_group(own: pl.DataFrame) -> Gaps:
        mine = (
            pl.col(name).is_null() | (pl.col(name) == value)
            for name, value in zip(shared, _key(own, shared), strict=True)
        )
        return gaps_between(rows.filter(*mine))

    return of_group


def _labelled(result: pl.DataFrame, own: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """The result with the group's keys in front where it lacks them."""
    missing = [key for key in keys if key not in result.columns]
    if not own.height:
        result = result.clear() if keys else result
        return own.select(missing).clear().hstack(result) if missing else result
    first = own.head(1)
    labels = [first[key].new_from_index(0, result.height) for key in missing]
    return pl.DataFrame(labels).hstack(result) if labels else result


def by_group(rows: Frame, *aggregates: pl.Expr, **named: pl.Expr) -> Frame:
    """One row a group, in the order of the keys; a frame without keys is one group, and one row even if it is empty.

    What `group_by(keys).agg(...)` is, but that each expression runs over a group's rows where they lie: neighbouring
    rows (`shift`, `diff`) cost a tenth.
    """

    def metric(own: pl.DataFrame, _: Gaps) -> pl.DataFrame:
        return own.lazy().select(*aggregates, **named).collect(engine="in-memory")

    return each_group(metric, rows, order=())


def groups(
    frame: pl.LazyFrame | pl.DataFrame, order: Sequence[str] = ORDER
) -> Iterator[tuple[dict[str, object], pl.DataFrame]]:
    """Each group's keys (name → value) and its rows in their order, for estimators that take arrays.

    An empty frame has no group.
    """
    rows = frame.lazy().collect(engine="in-memory")
    keys: list[str] = key_columns(rows)
    for own in _parts(rows, keys, order):
        if own.height:
            yield dict(zip(keys, _key(own, keys), strict=True)), own


def ordered(frame: Frame) -> Frame:
    """The frame by group, and in each group in the order of events."""
    return each_group(lambda own, _: own, frame)


def reading(frame: pl.LazyFrame | pl.DataFrame, *inputs: Column | None) -> pl.LazyFrame:
    """The frame with nothing but its key and order columns and what the inputs are made of."""
    roots = {root for value in inputs if value is not None for root in column(value).meta.root_names()}
    rows = frame.lazy()
    return rows.select(name for name in rows.collect_schema().names() if name in {*KEYS, *ORDER, *roots})


def neighbour(value: pl.Expr, by: Sequence[str], n: int = 1) -> pl.Expr:
    """The value `n` rows before, or after where n is negative, in the same group; the rows must be sorted by group.

    What `value.shift(n).over(by)` is, without the cost of grouping.
    """
    same = [pl.col(name).eq_missing(pl.col(name).shift(n)) for name in by]
    return pl.when(*same).then(value.shift(n)) if same else value.shift(n)


def begins(*columns: str) -> pl.Expr:
    """Whether a row is the first of its group, or the first after a change of one of the columns."""
    return pl.any_horizontal(pl.int_range(pl.len()) == 0, *(pl.col(c).ne_missing(pl.col(c).shift()) for c in columns))


def weighted_mean(values: pl.Expr, weights: pl.Expr) -> pl.Expr:
    """The mean of the values that are there, sum(w v) / sum(w); null where they have no weight."""
    total = pl.when(values.is_not_null()).then(weights).sum()
    return pl.when(total != 0).then((values * weights).sum() / total)


def trade_sign(side: str = "side") -> pl.Expr:
    """+1 where the buyer was the aggressor (side 0), -1 where the seller was (1), null where it is not known."""
    return pl.when(pl.col(side).is_between(0, 1)).then(1.0 - 2.0 * pl.col(side))


def mids(quotes: Frame) -> Frame:
    """Add `mid`, (best_bid + best_ask) / 2: null where a side is missing or the book is crossed (locked is fine)."""
    return quotes.with_columns(mid=asof.mid())


def with_mid(quotes: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
    """The quotes with `mid`, computed where it is not there."""
    return quotes.lazy() if "mid" in quotes.collect_schema() else mids(quotes.lazy())


def stretches(frame: Frame, incidents: pl.LazyFrame | pl.DataFrame | None) -> Frame:
    """Add `stretch`, so that no return or horizon reaches across a gap: rows of two stretches have one between them.

    Within a group the numbers rise with time, not always by one: a gap (`from_ns`, `to_ns`) ends one stretch and begins
    the next, and rows inside of it (the other streams may go on) are a stretch of their own. A message at `from_ns` is
    the last one before the gap, one at `to_ns` the first one after it.

    Args:
        frame: Events with `recv_ns`, and the key columns that they are grouped by; the result has them in their order.
        incidents: Rows with `from_ns` and `to_ns` (ns), and `session_id` and `contract_id` where they have them; a null
            stands for every contract or session. Hand in those kinds and streams that matter here. None: all is one
            stretch.
    """
    return each_group(asof.with_stretch, frame, incidents=incidents)


def prevailing(
    events: Frame,
    quotes: pl.LazyFrame | pl.DataFrame,
    columns: Sequence[str] = ("best_bid", "best_ask", "mid"),
    *,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Add to each event the quote that stood before it: the last one strictly before in the order of events.

    The order is that of the columns which both frames have of (`recv_ns`, `seq`, `pos`); with `recv_ns` alone, a quote
    of the very same time is not before. Null where there is none since the last gap.

    Args:
        events: Rows with `recv_ns`; the result has them in the order of events.
        quotes: Rows with `recv_ns` and the columns asked for (`mid` is computed where it is not there).
        columns: The quote's columns to add; those that the events have already are replaced.
        incidents: Gaps, see `stretches`.
    """
    states = reading(quotes, *columns, *MID)
    return each_group(partial(asof.prevailing, columns=columns), events, states, incidents=incidents)


def mid_at(
    events: Frame,
    quotes: pl.LazyFrame | pl.DataFrame,
    horizon_ns: int,
    *,
    name: str = "mid_at",
    clock: str = "recv_ns",
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Add the mid at a horizon: that of the last quote at or before the event's time plus `horizon_ns`.

    Null where the data of the group (its last quote or event) ends earlier, where a gap lies between, and where there
    is no mid at that time.

    Args:
        events: Rows with `recv_ns`; the result has them in the order of events.
        quotes: Rows with `recv_ns` and either `mid` or `best_bid` and `best_ask`.
        horizon_ns: Time after the event (ns).
        name: The name of the added column.
        clock: The column that measures: `recv_ns`, or `exch_ns` where the exchange's times are wanted.
        incidents: Gaps, see `stretches`.
    """

    def metric(own: pl.DataFrame, states: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        return own.with_columns(asof.mid_at(own, states, horizon_ns, gaps, clock=clock).alias(name))

    return each_group(metric, events, reading(quotes, *MID, clock), incidents=incidents)


def lasting(
    states: Frame,
    *,
    until: pl.LazyFrame | pl.DataFrame | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Add `duration_ns`: how long each state holds, until the next one, a gap, or the end of the data.

    Args:
        states: Rows with `recv_ns`; the result has them in the order of events.
        until: Rows with `recv_ns` whose last ends the data of a group (the session's messages, or its trades); without
            it the last state is the end, and lasts no time.
        incidents: Gaps, see `stretches`.
    """
    ends = None if until is None else reading(until)
    return each_group(asof.with_duration, states, ends, incidents=incidents)


def previous_tick(
    frame: Frame,
    interval_ns: int,
    columns: Sequence[str] = ("mid",),
    *,
    before: bool = False,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Sample on a grid: the last row at or before each whole multiple of the interval in UTC, inside of the data only.

    Args:
        frame: Rows with `recv_ns` and the columns asked for (`mid` is computed where it is not there).
        interval_ns: The distance of two points (ns).
        columns: What to sample.
        before: The last row strictly before each point, for bars [start, end).
        incidents: Gaps, see `stretches`: there are no points inside of one.

    Returns:
        Key columns, `recv_ns` (the point of the grid), `stretch` (a return must not reach from one into another) and
        the columns.

    Raises:
        UsageError: The interval is not positive.
    """
    if interval_ns <= 0:
        raise UsageError(f"a grid needs a positive interval, not {interval_ns} ns: nothing was computed")
    rows = reading(frame, *columns, *MID)

    def metric(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        return asof.previous_tick(own, interval_ns, columns, gaps, before=before)

    return alike(each_group(metric, rows, incidents=incidents), frame)
