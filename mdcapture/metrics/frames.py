"""What every metric shares: groups, the order of events, stretches of time without a gap, and the quote of a moment.

Frames have the columns of the lake's tables. A metric is computed for each group of the key columns
(`session_id`, `contract_id`) that a frame has; a frame without them is one group. Events are in the order
(`recv_ns`, `seq`, `pos`), and "before" means strictly before in that order, never by time alone.

A quote is a state: it holds from its message until the next one, the end of the data, or a gap. A state whose side is
missing, or whose bid is above its ask, has no mid; the mid before it is not carried over.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from mdcapture.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "KEYS",
    "ORDER",
    "Frame",
    "alike",
    "by_group",
    "group_hash",
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
    "stretches",
    "trade_sign",
    "weighted_mean",
]

Frame = TypeVar("Frame", pl.LazyFrame, pl.DataFrame)
"""Lazy in, lazy out; a DataFrame in, a DataFrame out."""

KEYS = ("session_id", "contract_id")
ORDER = ("recv_ns", "seq", "pos")
SEQ_BITS, POS_BITS = 42, 20  # with the 63 of a time they leave the sign of an Int128 alone


def key_columns(*frames: pl.LazyFrame | pl.DataFrame) -> list[str]:
    """The key columns that all of the frames have."""
    return _shared(KEYS, frames)


def order_columns(*frames: pl.LazyFrame | pl.DataFrame) -> list[str]:
    """The columns of the order of events that all of the frames have."""
    return _shared(ORDER, frames)


def _shared(names: Sequence[str], frames: Sequence[pl.LazyFrame | pl.DataFrame]) -> list[str]:
    schemas = [frame.lazy().collect_schema() for frame in frames]
    return [name for name in names if all(name in schema for schema in schemas)]


def alike(result: pl.LazyFrame, given: Frame) -> Frame:
    """The result, collected in memory if what was given is a DataFrame, and so is there already."""
    return result.collect(engine="in-memory") if isinstance(given, pl.DataFrame) else result


def ordered(frame: Frame) -> Frame:
    """The frame by group, and in each group in the order of events."""
    rows = _in_groups(frame.lazy(), key_columns(frame), order_columns(frame))
    return alike(rows.drop("_group"), frame)


def _in_groups(frame: pl.LazyFrame, keys: list[str], order: list[str]) -> pl.LazyFrame:
    """Add `_group`, and sort. The lake's tables are sorted already, and to see that costs a part of a sort."""

    def in_order(rows: pl.DataFrame) -> pl.DataFrame:
        head = pl.col("_group").ne_missing(pl.col("_group").shift(1))
        rises, ties = pl.lit(value=False), pl.lit(value=True)
        for name in order:
            value, before = pl.col(name), pl.col(name).shift(1)
            rises |= ties & (value > before)
            ties &= value == before
        steps = rows.lazy().select(head=head, onward=rises | ties).collect(engine="in-memory")
        onward = steps.slice(1).select((pl.col("head") | pl.col("onward")).all(ignore_nulls=False)).item()
        heads = rows.select("_group", *keys).filter(steps["head"])
        return (
            rows
            if onward and heads.equals(heads.unique().sort(keys or "_group"))
            else rows.sort(by, maintain_order=True)
        )

    by = [*keys, *order]
    rows = frame.with_columns(_group=group_hash(keys))
    return rows.map_batches(in_order, projection_pushdown=False) if by else rows


def group_hash(by: Sequence[str]) -> pl.Expr:
    """One number for a group: by text, an asof join takes four times as long.

    It is a hash of 64 bits: that any two of a thousand groups have the same is as likely as 3 in 10^14.
    """
    columns = (pl.col(name).cast(pl.String) if name in KEYS else pl.col(name) for name in by)
    numbers = (column.hash(seed) for seed, column in enumerate(columns))
    return functools.reduce(operator.xor, numbers, pl.lit(0, pl.UInt64))


def neighbour(value: pl.Expr, by: Sequence[str], n: int = 1) -> pl.Expr:
    """The value `n` rows before, or after where n is negative, in the same group; the rows must be sorted by group.

    What `value.shift(n).over(by)` is, without the cost of grouping.
    """
    same = [pl.col(name).eq_missing(pl.col(name).shift(n)) for name in by]
    return pl.when(*same).then(value.shift(n)) if same else value.shift(n)


def by_group(rows: pl.LazyFrame, *aggregates: pl.Expr, **named: pl.Expr) -> pl.LazyFrame:
    """One row a group, in the order of the keys; a frame without keys is one group, and one row even if it is empty."""
    keys = key_columns(rows)
    if not keys:
        return rows.select(*aggregates, **named)
    grouped = rows.with_columns(_group=group_hash(keys)).group_by("_group")
    return grouped.agg(pl.col(keys).first(), *aggregates, **named).drop("_group").sort(keys)


def weighted_mean(values: pl.Expr, weights: pl.Expr) -> pl.Expr:
    """The mean of the values that are there, sum(w v) / sum(w); null where they have no weight."""
    total = pl.when(values.is_not_null()).then(weights).sum()
    return pl.when(total != 0).then((values * weights).sum() / total)


def trade_sign(side: str = "side") -> pl.Expr:
    """+1 where the buyer was the aggressor (side 0), -1 where the seller was (1), null where it is not known."""
    return pl.when(pl.col(side) == 0).then(1.0).when(pl.col(side) == 1).then(-1.0)


def groups(frame: pl.LazyFrame | pl.DataFrame) -> Iterator[tuple[dict[str, object], pl.DataFrame]]:
    """Each group's keys (name → value) and its events in their order, for estimators that take arrays.

    An empty frame has no group.
    """
    rows = ordered(frame.lazy()).collect(engine="in-memory")
    keys: list[str] = key_columns(rows)
    if not keys:
        if rows.height:
            yield {}, rows
        return
    for values, group in rows.group_by(keys, maintain_order=True):
        yield dict(zip(keys, values, strict=True)), group


def stretches(frame: Frame, incidents: pl.LazyFrame | pl.DataFrame | None) -> Frame:
    """Add `stretch`, so that no return or horizon reaches across a gap: rows of two stretches have one between them.

    Within a group the numbers rise with time, not always by one: a gap (`from_ns`, `to_ns`) ends one stretch and begins
    the next, and rows inside of it (the other streams may go on) are a stretch of their own. A message at `from_ns` is
    the last one before the gap, one at `to_ns` the first one after it.

    Args:
        frame: Events with `recv_ns`, and the key columns that they are grouped by.
        incidents: Rows with `from_ns` and `to_ns` (ns), and `session_id` and `contract_id` where they have them; a null
            stands for every contract or session. Hand in those kinds and streams that matter here. None: all is one
            stretch.
    """
    return alike(_with_stretch(frame.lazy(), incidents, at=pl.col("recv_ns"), name="stretch"), frame)


def _with_stretch(
    events: pl.LazyFrame, incidents: pl.LazyFrame | pl.DataFrame | None, *, at: pl.Expr, name: str
) -> pl.LazyFrame:
    if incidents is None:
        return events.with_columns(pl.lit(0, pl.Int64).alias(name))
    keys: list[str] = key_columns(events)
    edges = _edges(events, incidents).select(_keys=group_hash(keys), _at="edge_ns", **{name: pl.col("stretch")})
    return (
        events.with_columns(_at=at, _keys=group_hash(keys), _row=pl.int_range(pl.len()))
        .sort("_at", maintain_order=True)
        .join_asof(edges, on="_at", by="_keys", check_sortedness=False)
        .sort("_row")
        .with_columns(pl.col(name).fill_null(0))
        .drop("_at", "_row", "_keys")
    )


def _edges(events: pl.LazyFrame, incidents: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
    """For each group: `edge_ns`, the first time of each stretch but the first; `held_ns`, when states before it end."""
    keys: list[str] = key_columns(events)
    begin, end = pl.min_horizontal("from_ns", "to_ns"), pl.max_horizontal("from_ns", "to_ns")  # clocks step back too
    applies = pl.all_horizontal(
        pl.lit(value=True),
        *(pl.col(f"_{key}").is_null() | (pl.col(f"_{key}") == pl.col(key)) for key in key_columns(events, incidents)),
    )
    gaps = incidents.lazy().select(
        **{f"_{key}": pl.col(key) for key in key_columns(events, incidents)}, begin_ns=begin, end_ns=end
    )
    if keys:
        gaps = events.select(keys).unique().join(gaps, how="cross").filter(applies)
    starts = gaps.filter(pl.col("begin_ns") + 1 < pl.col("end_ns")).select(
        *keys, edge_ns=pl.col("begin_ns") + 1, held_ns="begin_ns"
    )
    ends = gaps.select(*keys, edge_ns="end_ns", held_ns="end_ns")
    number = pl.int_range(1, pl.len() + 1, dtype=pl.Int64)
    return (
        pl.concat([starts, ends])
        .unique([*keys, "edge_ns"])
        .sort([*keys, "edge_ns"])
        .with_columns(stretch=number.over(keys) if keys else number)
        .sort("edge_ns", maintain_order=True)
    )


def mids(quotes: Frame) -> Frame:
    """Add `mid`, (best_bid + best_ask) / 2: null where a side is missing or the book is crossed (locked is fine)."""
    bid, ask = pl.col("best_bid").fill_nan(None), pl.col("best_ask").fill_nan(None)
    return quotes.with_columns(mid=pl.when(bid <= ask).then((bid + ask) / 2))


def _with_mid(quotes: pl.LazyFrame) -> pl.LazyFrame:
    return quotes if "mid" in quotes.collect_schema() else mids(quotes)


def _moment(order: Sequence[str]) -> pl.Expr:
    """The place in the order of events as one number, so that one join compares it exactly."""
    moment = pl.col("recv_ns")
    if len(order) > 1:
        seq = pl.col("seq").fill_null(0) if "seq" in order else pl.lit(0)
        pos = pl.col("pos").fill_null(0) if "pos" in order else pl.lit(0)
        moment = pl.col("recv_ns").cast(pl.Int128) * 2 ** (SEQ_BITS + POS_BITS)
        moment += seq.cast(pl.Int128) * 2**POS_BITS + pos.cast(pl.Int128)
    return moment


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
    quotes = _with_mid(quotes.lazy()) if "mid" in columns else quotes.lazy()
    keys, order = key_columns(events, quotes), order_columns(events, quotes)
    left = _in_groups(events.lazy().drop(columns, strict=False), keys, order_columns(events))
    right = _in_groups(quotes, keys, order)
    if incidents is not None:
        left, right = _by_stretch(left, incidents), _by_stretch(right, incidents)
    result = (
        left.with_columns(_moment=_moment(order))
        .join_asof(
            right.select("_group", *columns, _moment=_moment(order)),
            on="_moment",
            by="_group",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .drop("_moment", "_group")
    )
    return alike(result if keys == key_columns(events) else ordered(result), events)


def _by_stretch(rows: pl.LazyFrame, incidents: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
    """The rows with each stretch a group of its own."""
    parted = _with_stretch(rows, incidents, at=pl.col("recv_ns"), name="_stretch")
    return parted.with_columns(_group=pl.col("_group") ^ pl.col("_stretch").hash()).drop("_stretch")


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
    quotes, recv_ns = _with_mid(quotes.lazy()), pl.col("recv_ns")
    keys = key_columns(events, quotes)
    clocked = (clock, *(column for column in ORDER if column != clock))
    left = _in_groups(events.lazy().drop(name, strict=False), keys, _shared(clocked, [events]))
    right = _in_groups(quotes, keys, _shared(clocked, [quotes]))
    times = (side.select(_shared="_group", _time=pl.col(clock)) for side in (left, right))
    left = _with_last(left, pl.col("_group"), *times).with_columns(_target=pl.col(clock) + horizon_ns)
    reached = pl.col("_target") <= pl.col("_last")
    if incidents is not None:
        here = _with_stretch(left, incidents, at=recv_ns, name="_here")
        there = _with_stretch(here, incidents, at=recv_ns + horizon_ns, name="_there")
        left = there.with_columns(_group=pl.col("_group") ^ pl.col("_there").hash())
        right = _by_stretch(right, incidents)
        reached &= pl.col("_here") == pl.col("_there")
    result = (
        left.join_asof(
            right.select("_group", _target=pl.col(clock), **{name: pl.col("mid")}),
            on="_target",
            by="_group",
            check_sortedness=False,
        )
        .with_columns(pl.when(reached).then(pl.col(name)).alias(name))
        .drop("_target", "_group", "_last", "_here", "_there", strict=False)
    )
    in_place = clock == "recv_ns" and keys == key_columns(events)
    return alike(result if in_place else ordered(result), events)


def _with_last(rows: pl.LazyFrame, group: pl.Expr, *times: pl.LazyFrame) -> pl.LazyFrame:
    """Add `_last`: the last of the `_time`s of the same `_shared` group."""
    last = pl.concat(times).group_by("_shared").agg(_last=pl.col("_time").max())
    return rows.with_columns(_shared=group).join(last, on="_shared", how="left", maintain_order="left").drop("_shared")


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
    keys: list[str] = key_columns(states)
    rows = _in_groups(states.lazy(), keys, order_columns(states))
    rows = rows.with_columns(_next=neighbour(pl.col("recv_ns"), ["_group"], -1))
    end = pl.col("_next").fill_null(pl.col("recv_ns"))
    if until is not None:
        shared = key_columns(states, until)
        times = until.lazy().select(_shared=group_hash(shared), _time=pl.col("recv_ns"))
        rows = _with_last(rows, pl.col("_group") if shared == keys else group_hash(shared), times)
        end = pl.col("_next").fill_null(pl.max_horizontal("recv_ns", "_last"))
    if incidents is not None:
        edges = _edges(rows, incidents).select("held_ns", _edge=pl.col("edge_ns"), _group=group_hash(keys))
        rows = rows.join_asof(
            edges,
            left_on="recv_ns",
            right_on="_edge",
            by="_group",
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        end = pl.min_horizontal(end, "held_ns")
    rows = rows.with_columns(duration_ns=end - pl.col("recv_ns")).drop(
        "_next", "_group", "_last", "held_ns", "_edge", strict=False
    )
    return alike(rows, states)


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
    rows: pl.LazyFrame = _with_mid(frame.lazy()) if "mid" in columns else frame.lazy()
    keys: list[str] = key_columns(rows)
    by: list[str] = keys if incidents is None else [*keys, "stretch"]
    rows = stretches(ordered(rows), incidents).select(*by, "recv_ns", *columns, _group=group_hash(by))
    first, last = pl.col("recv_ns").min(), pl.col("recv_ns").max()
    points = (
        rows.group_by("_group")
        .agg(
            *(pl.col(name).first() for name in by),
            _from=-(-first // interval_ns) * interval_ns,
            _to=last // interval_ns * interval_ns + 1,
        )
        .filter(pl.col("_from") < pl.col("_to"))
        .select(*by, "_group", recv_ns=pl.int_ranges("_from", "_to", interval_ns))
        .explode("recv_ns")
        .sort([*by, "recv_ns"])
    )
    result = points.join_asof(
        rows.select("_group", "recv_ns", *columns),
        on="recv_ns",
        by="_group",
        allow_exact_matches=not before,
        check_sortedness=False,
    )
    stretch = pl.lit(0, pl.Int64) if incidents is None else pl.col("stretch")
    return alike(result.with_columns(stretch=stretch).select(*keys, "recv_ns", "stretch", *columns), frame)
