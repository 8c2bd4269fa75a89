"""The order book from the depth stream: entries flow in, snapshots of the best levels after each message flow out.

The rules, which `mdcapture.live.book.Book` follows one entry at a time with equal results after every message:

- A row of the ladder (types 1 ask, 2 bid) sets the size at its price; size 0 removes the level. A reset (6) forgets
  all. Pointers (3, 4) and new-best marks (9, 10) are no rows: they say where the best level is. Everything else (5, 7,
  8, 11) leaves the book alone, and what can't be used is left out, and named by `entry_fault`.
- What was told is kept; what newer word contradicts is hidden for as long as it does. Going back from the newest word,
  a level is hidden if it crosses or locks with what is shown already, or if it is better than where a newer pointer of
  its side says the best is. So no stale level crosses the book, and one that a passing error hid comes back. A book
  that truly is crossed, as before an opening, shows its newest levels, and is whole once it opens.
- Without a row since the reset, the pointers are a book of one level: its `kind` is "top", not "ladder".
- At the start and after a gap the book is unknown until a reset, or while it is plainly whole: no untold level can hide
  where all that are asked for stand on neighbouring ticks.

The feed tells a window of levels. One that leaves it is not removed by a row, only told anew when it is back: ask for
no more levels than the window has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdcapture.errors import UsageError
from mdcapture.lake.schema import DomType
from mdcapture.metrics.frames import Frame, alike, key_columns, previous_tick, stretches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["GRID_TOLERANCE", "KINDS", "book_snapshots", "entry_fault", "level_columns"]

KINDS: Final = ("unknown", "top", "ladder")
"""What a snapshot shows: nothing that is known, the two pointers, or the ladder."""

GRID_TOLERANCE: Final = 1e-6
"""How far a price may be from a whole number of ticks, in ticks: the error of decimal text in binary."""

_ROWS: Final = (DomType.ASK, DomType.BID)
_POINTERS: Final = ((DomType.BEST_ASK, DomType.NEW_BEST_ASK), (DomType.BEST_BID, DomType.NEW_BEST_BID))
_READS_A_BLOCK: Final = 1024


def level_columns(levels: int) -> list[str]:
    """The columns of a snapshot's levels: `bid_price_0`, `bid_size_0`, `ask_price_0`, `ask_size_0`, and so on."""
    return [f"{side}_{what}_{m}" for m in range(levels) for side in ("bid", "ask") for what in ("price", "size")]


def entry_fault(tick_size: float | pl.Expr | None = None) -> pl.Expr:
    """Why a depth entry can't be used for the book, null where it can be or is not meant for it.

    One of `unknown_type` (0, or outside of 1 to 11), `no_price` (missing or not finite), `no_size`, `negative_size`,
    `off_grid` (no whole number of ticks; only where the tick is known). Such entries are left out of the book; group
    by this to count them.

    Args:
        tick_size: The tick in price units, or an expression of it where contracts differ.
    """
    kind, price, size = pl.col("dom_type"), pl.col("price"), pl.col("volume")
    level = kind.is_in([*_ROWS, *_POINTERS[0], *_POINTERS[1]])
    fault = (
        pl.when(~kind.is_between(DomType.ASK, DomType.FILL).fill_null(value=False))
        .then(pl.lit("unknown_type"))
        .when(level & ~price.is_finite().fill_null(value=False))
        .then(pl.lit("no_price"))
        .when(level & size.is_null())
        .then(pl.lit("no_size"))
        .when(level & (size < 0))
        .then(pl.lit("negative_size"))
    )
    if tick_size is None:
        return fault.alias("fault")
    ticks = price / tick_size
    on_grid = (ticks - (ticks + 0.5).floor()).abs() <= GRID_TOLERANCE
    return fault.when(level & ~on_grid).then(pl.lit("off_grid")).alias("fault")


def book_snapshots(
    depth: Frame,
    levels: int = 10,
    *,
    at: Sequence[int] | NDArray[np.int64] | pl.Series | None = None,
    every_ns: int | None = None,
    changes_only: bool = False,
    tick_size: float | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """The best levels of the book after every message, or at times.

    Args:
        depth: The lake's depth: `recv_ns`, `dom_type`, `price`, `volume`, with `seq`, `pos` and the keys that it has.
        levels: How many levels a side.
        at: Times (ns) at which to read the book instead, each after the last message at or before it.
        every_ns: Read it at whole multiples of this in UTC instead.
        changes_only: Keep only snapshots whose levels or kind differ from the one before.
        tick_size: The tick in price units, one for all contracts of the frame. Prices off its grid are left out, and a
            book after a gap can be found whole.
        incidents: Gaps, see `frames.stretches`; those of the depth stream matter here.

    Returns:
        Key columns, `seq` (after messages only), `recv_ns` (of the message, or the time asked for), `kind` (see
        `KINDS`), `crossed` (the levels told, hidden ones among them, lock or cross) and the columns of
        `level_columns`, prices Float64 and sizes Int64, null where there is no level or the book is unknown. In the
        order of groups and of events. Times before a group's first message, after its last one, or likewise outside of
        the data between two gaps, have no row.

    Raises:
        UsageError: `levels`, `every_ns` or `tick_size` is not positive, or both `at` and `every_ns` are given.
    """
    _check(levels, every_ns, tick_size, times_given=at is not None)

    def rebuilt(rows: pl.DataFrame) -> pl.DataFrame:
        entries = _entries(rows, tick_size, incidents)
        reads = _reads(entries, at, every_ns, incidents)
        snapshots = _snapshots(entries, reads["_row"].to_numpy(), levels, tick_size)
        book = pl.concat([reads.drop("_row"), snapshots], how="horizontal")
        return book.filter(_changed(book, levels)) if changes_only else book

    given = depth.lazy().collect_schema()
    order: list[str] = ["seq", "recv_ns"] if "seq" in given and at is None and every_ns is None else ["recv_ns"]
    keys: list[str] = key_columns(depth)
    schema = {name: given[name] for name in (*keys, *order)} | _level_schema(levels)
    book = depth.lazy().map_batches(
        rebuilt, schema=schema, predicate_pushdown=False, projection_pushdown=False, slice_pushdown=False
    )
    return alike(book, depth)


def _check(levels: int, every_ns: int | None, tick_size: float | None, *, times_given: bool) -> None:
    if levels < 1:
        raise UsageError(f"a book has at least one level, not {levels}: nothing was computed")
    if times_given and every_ns is not None:
        raise UsageError("give at= or every_ns=, not both: nothing was computed")
    if every_ns is not None and every_ns <= 0:
        raise UsageError(f"every_ns must be positive, not {every_ns}: nothing was computed")
    if tick_size is not None and not tick_size > 0:
        raise UsageError(f"tick_size must be positive, not {tick_size}: nothing was computed")


def _level_schema(levels: int) -> dict[str, pl.DataType]:
    types = {name: pl.Float64() if "price" in name else pl.Int64() for name in level_columns(levels)}
    return {"kind": pl.Enum(KINDS), "crossed": pl.Boolean(), **types}


def _changed(book: pl.DataFrame, levels: int) -> pl.Expr:
    return _differs([*key_columns(book), "kind", *level_columns(levels)], 1)


def _entries(
    rows: pl.DataFrame, tick_size: float | None, incidents: pl.LazyFrame | pl.DataFrame | None
) -> pl.DataFrame:
    """The entries in order, with `stretch`, `_row`, and `_cut` where one is the first of its group or stretch.

    `dom_type` is 0 where an entry can't be used.
    """
    usable = pl.when(entry_fault(tick_size).is_null()).then(pl.col("dom_type")).otherwise(DomType.UNKNOWN)
    entries = stretches(rows, incidents)
    return entries.with_columns(
        pl.col("price").cast(pl.Float64).fill_null(np.nan),
        pl.col("volume").cast(pl.Int64).fill_null(0),
        dom_type=usable.cast(pl.Int8),
        _row=pl.int_range(pl.len()),
        _cut=_differs([*key_columns(entries), "stretch"], 1),
    )


def _differs(names: Sequence[str], n: int) -> pl.Expr:
    """Where a row differs from the one `n` before it; a row that has none such does."""
    differs = (pl.col(name).ne_missing(pl.col(name).shift(n)) for name in names)
    return pl.any_horizontal(*differs, ~pl.int_range(pl.len()).is_between(n, pl.len() - 1 + n))


def _reads(
    entries: pl.DataFrame,
    at: Sequence[int] | NDArray[np.int64] | pl.Series | None,
    every_ns: int | None,
    incidents: pl.LazyFrame | pl.DataFrame | None,
) -> pl.DataFrame:
    """Where the book is read: after which `_row`, and what the snapshot there is called by."""
    keys: list[str] = key_columns(entries)
    if every_ns is not None:
        return previous_tick(entries, every_ns, ["_row"], incidents=incidents).drop("stretch")
    if at is not None:
        times = pl.DataFrame({"recv_ns": pl.Series(at, dtype=pl.Int64).sort()})
        by = [*keys, "stretch"]
        spans = entries.group_by(by).agg(_from=pl.col("recv_ns").min(), _to=pl.col("recv_ns").max())
        points = times.join(spans, how="cross").filter(pl.col("recv_ns").is_between("_from", "_to"))
        places = (
            points.sort("recv_ns")
            .join_asof(entries.select(*by, "recv_ns", "_row"), on="recv_ns", by=by, check_sortedness=False)
            .sort([*keys, "recv_ns"])
        )
        return places.select(*keys, "recv_ns", "_row")
    order: list[str] = [name for name in ("seq", "recv_ns") if name in entries.columns]
    last = pl.col("_cut").shift(-1, fill_value=True) | _differs(order, -1)
    return entries.filter(last).select(*keys, *order, "_row")


class _Read(NamedTuple):
    """What holds at each read of the book, as rows of the entries; arrays of one length."""

    since: NDArray[np.int64]
    """The row from which on entries count: the last reset or gap, or the start of the group."""

    reset: NDArray[np.bool_]
    """Whether that is a reset."""

    ladder_told: NDArray[np.bool_]
    pointers: tuple[NDArray[np.int64], NDArray[np.int64]]
    """The newest pointer to the best ask and bid; -1 where there is none, or none of a size."""

    pointer_told: NDArray[np.bool_]


def _read(entries: pl.DataFrame, rows: NDArray[np.int64]) -> _Read:
    kind, size = entries["dom_type"].to_numpy(), entries["volume"].to_numpy()
    reset = kind == DomType.RESET
    since = _newest(entries["_cut"].to_numpy() | reset)[rows]
    ladder, ask, bid = (_newest(_is_one(kind, kinds))[rows] for kinds in (_ROWS, *_POINTERS))
    pointers = [np.where(pointer >= since, pointer, -1) for pointer in (ask, bid)]
    sized = [np.where(size[pointer] > 0, pointer, -1) for pointer in pointers]
    return _Read(since, reset[since], ladder >= since, (sized[0], sized[1]), (pointers[0] >= 0) | (pointers[1] >= 0))


def _is_one(kind: NDArray[np.int8], kinds: tuple[DomType, DomType]) -> NDArray[np.bool_]:
    one: NDArray[np.bool_] = (kind == kinds[0]) | (kind == kinds[1])
    return one


def _newest(told: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The last entry at or before each that is one of those told; -1 where there is none."""
    return np.maximum.accumulate(np.where(told, np.arange(len(told)), -1))


@dataclass(frozen=True)
class _Side:
    """One side's rows of the ladder: which entries they are, and the places of their prices, the best one first."""

    rows: NDArray[np.int64]
    place: NDArray[np.int64]
    by_place: NDArray[np.int64]
    """The order of the rows by place, and at one place by time."""

    sized: NDArray[np.bool_]
    """Whether an entry has a size, for every entry."""

    @classmethod
    def of(cls, entries: pl.DataFrame, kind: DomType) -> _Side:
        rows = np.flatnonzero(entries["dom_type"].to_numpy() == kind)
        price = (-1 if kind is DomType.BID else 1) * entries["price"].to_numpy()[rows]
        by_place = np.argsort(price, kind="stable")
        outwards, begins = price[by_place], np.ones(len(rows), dtype=bool)
        begins[1:] = outwards[1:] != outwards[:-1]
        place = np.empty(len(rows), dtype=np.int64)
        place[by_place] = np.cumsum(begins) - 1
        return cls(rows, place, by_place, entries["volume"].to_numpy() > 0)

    @property
    def prices(self) -> int:
        """How many there are."""
        return int(self.place[self.by_place[-1]]) + 1 if len(self.rows) else 0

    def best(self, reads: NDArray[np.int64], since: NDArray[np.int64], levels: int) -> NDArray[np.int64]:
        """The best levels told at each read, shape (levels, reads): the entry that told each, -1 for none.

        Where no level comes or goes, each stays in its place, and only what was told of it changes. So the ladder is
        looked at where one does, which is seldom, and what lies between is filled with the newest word on each place.
        """
        due = np.searchsorted(reads, self.rows)
        moved = np.flatnonzero(self._moves(reads, since, due))
        ranked = np.full((levels, len(moved)), -1)
        for block, ladder, live in self.ladders(reads[moved], since[moved], near=levels):
            _fill(ranked.T[block], ladder, live)
        place_of = np.full(len(self.sized) + 1, -1)  # row -1 is no entry, and has no place
        place_of[self.rows] = self.place
        shown = due < len(reads)
        rows, place, due = self.rows[shown], self.place[shown], due[shown]
        spell = np.searchsorted(moved, due, side="right") - 1
        best = np.empty((levels, len(reads)), dtype=np.int64)
        for level, told in zip(best, ranked, strict=True):
            again = np.flatnonzero(place_of[told][spell] == place)
            begins = np.concatenate([moved, due[again]])
            in_time = np.argsort(begins, kind="stable")
            lasts = np.diff(begins[in_time], append=len(reads))
            level[:] = np.repeat(np.concatenate([told, rows[again]])[in_time], lasts)
        return best

    def _moves(self, reads: NDArray[np.int64], since: NDArray[np.int64], due: NDArray[np.int64]) -> NDArray[np.bool_]:
        """At which reads a level may have come or gone since the one before; the first is one."""
        moves: NDArray[np.bool_] = np.diff(since, prepend=-1) != 0
        row, place, due = self.rows[self.by_place], self.place[self.by_place], due[self.by_place]
        comes = self.sized[row]
        was_there = np.zeros(len(row), dtype=bool)
        was_there[1:] = comes[:-1] & (place[1:] == place[:-1]) & (row[:-1] >= np.append(since, 0)[due[1:]])
        turns = due[comes != was_there]
        moves[turns[turns < len(reads)]] = True
        return moves

    def ladders(
        self, reads: NDArray[np.int64], since: NDArray[np.int64], near: int | None
    ) -> Iterator[tuple[slice, NDArray[np.int64], NDArray[np.bool_]]]:
        """The side in blocks of reads, a column a price, the best first: the entry that told it last, and if it lives.

        Only prices that are told within the block and the `near` best of the others (None: all) can be among the best
        `near`, so that no other needs a column, however long the ladder is.
        """
        last = np.full(self.prices, -1)
        due = np.searchsorted(reads, self.rows)
        start = 0
        for first in range(0, len(reads), _READS_A_BLOCK):
            block = slice(first, min(first + _READS_A_BLOCK, len(reads)))
            end = int(np.searchsorted(due, block.stop))
            told = self.place[start:end]
            wanted = np.zeros(self.prices, dtype=bool)
            wanted[told] = True
            others = np.flatnonzero((last >= since[first]) & self.sized[last] & ~wanted)
            wanted[others[:near]] = True
            columns = np.flatnonzero(wanted)
            ladder = np.full((block.stop - first, len(columns)), -1)
            ladder[0] = last[columns]
            ladder[due[start:end] - first, (np.cumsum(wanted) - 1)[told]] = self.rows[start:end]
            np.maximum.accumulate(ladder, axis=0, out=ladder)
            last[columns] = ladder[-1]
            start = end
            yield block, ladder, self.sized[ladder] & (ladder >= since[block, None])


def _fill(best: NDArray[np.int64], ladder: NDArray[np.int64], shown: NDArray[np.bool_]) -> None:
    """Write the first shown levels of each row of a ladder into a row of `best`."""
    if ladder.shape[1]:
        rank = np.cumsum(shown, axis=1, dtype=np.int32)
        levels = best.shape[1]
        best[np.arange(levels) < rank[:, -1:]] = ladder[shown & (rank <= levels)]


def _snapshots(entries: pl.DataFrame, rows: NDArray[np.int64], levels: int, tick_size: float | None) -> pl.DataFrame:
    read = _read(entries, rows)
    price = np.append(entries["price"].to_numpy(), np.nan)  # row -1 is no entry: its price compares with none
    size = np.append(entries["volume"].to_numpy(), 0)
    sides = [_Side.of(entries, kind) for kind in _ROWS]
    asks, bids = (side.best(rows, read.since, levels).T for side in sides)
    crossed = _settle(price, rows, read, sides, (asks, bids))
    crossed |= _show_pointers(price, read, asks, bids)
    kind = np.where(read.ladder_told, KINDS.index("ladder"), np.where(read.pointer_told, KINDS.index("top"), 0))
    kind[~(read.reset | _whole(price, read, asks, bids, tick_size))] = 0
    asks[kind == 0] = bids[kind == 0] = -1
    columns: dict[str, pl.Series | NDArray[np.generic]] = {
        "kind": pl.Series(kind, dtype=pl.UInt8).cat.to(pl.Enum(KINDS)),
        "crossed": crossed,
    }
    for m, rungs in enumerate(zip(bids.T, asks.T, strict=True)):
        for side, rung in zip(("bid", "ask"), rungs, strict=True):
            columns |= {f"{side}_price_{m}": price[rung], f"{side}_size_{m}": size[rung]}
    return pl.DataFrame(columns).with_columns(
        pl.when(pl.col(name.replace("price", "size")) > 0).then(pl.col(name)).alias(name)
        for name in level_columns(levels)
    )


def _settle(
    price: NDArray[np.float64],
    rows: NDArray[np.int64],
    read: _Read,
    sides: Sequence[_Side],
    best: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> NDArray[np.bool_]:
    """Take from the best levels what newer word contradicts, and say where those that were told are crossed."""
    ask, bid, ask_pointer, bid_pointer = (price[level] for level in (best[0][:, 0], best[1][:, 0], *read.pointers))
    crossed = ask <= bid
    passed = (ask < ask_pointer) | (bid > bid_pointer)
    disputed = np.flatnonzero(crossed | passed | (ask <= bid_pointer) | (bid >= ask_pointer))
    # What is beyond all that the other side and the pointers say is never hidden, and hides nothing.
    reach = np.fmax.reduce([bid, bid_pointer, ask_pointer]), np.fmin.reduce([ask, bid_pointer, ask_pointer])
    ladders = [side.ladders(rows[disputed], read.since[disputed], near=None) for side in sides]
    for (block, *asks), (_, *bids) in zip(*ladders, strict=True):
        places = disputed[block]
        words = [np.where(live, ladder, -1) for ladder, live in (asks, bids)]
        contested = [
            np.flatnonzero(within(price[levels], bound[places, None]).any(axis=0))
            for levels, bound, within in zip(words, reach, (np.less_equal, np.greater_equal), strict=True)
        ]
        told = [levels[:, columns] for levels, columns in zip(words, contested, strict=True)]
        kept = _uncontradicted(price, *told, *(pointer[places, None] for pointer in read.pointers))
        for levels, (ladder, shown), columns, survives in zip(best, (asks, bids), contested, kept, strict=True):
            shown[:, columns] &= survives
            settled = np.full((len(places), levels.shape[1]), -1)
            _fill(settled, ladder, shown)
            levels[places] = settled
    return crossed


def _uncontradicted(
    price: NDArray[np.float64],
    asks: NDArray[np.int64],
    bids: NDArray[np.int64],
    ask_pointers: NDArray[np.int64],
    bid_pointers: NDArray[np.int64],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which levels are shown, from the newest word to the oldest; a row a book, a column a level, -1 for none."""
    words = np.concatenate([asks, bids, ask_pointers, bid_pointers], axis=1)
    books, count = np.arange(len(words)), words.shape[1]
    sides = np.repeat([0, 1, 0, 1], [asks.shape[1], bids.shape[1], 1, 1])
    is_pointer = np.arange(count) >= count - 2
    shown = np.zeros(words.shape, dtype=bool)
    best = np.full((2, len(words)), np.inf)  # prices counted outwards: those of bids negative
    limit = -best
    for column in np.argsort(words, axis=1).T[::-1]:
        side = sides[column]
        outwards = price[words[books, column]] * np.where(side, -1, 1)
        fits = (outwards > -best[1 - side, books]) & (outwards >= limit[side, books])
        best[side, books] = np.where(fits, np.minimum(best[side, books], outwards), best[side, books])
        limit[side, books] = np.where(fits & is_pointer[column], outwards, limit[side, books])
        shown[books, column] = fits
    return shown[:, : asks.shape[1]], shown[:, asks.shape[1] : count - 2]


def _show_pointers(
    price: NDArray[np.float64], read: _Read, asks: NDArray[np.int64], bids: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Make the pointers the book where there is no ladder, the newer one where they cross, and say where they do."""
    ask, bid = read.pointers
    crossed = (price[ask] <= price[bid]) & ~read.ladder_told
    for best, pointer, other in ((asks, ask, bid), (bids, bid, ask)):
        best[:, 0] = np.where(read.ladder_told, best[:, 0], np.where(crossed & (pointer < other), -1, pointer))
    return crossed


def _whole(
    price: NDArray[np.float64],
    read: _Read,
    asks: NDArray[np.int64],
    bids: NDArray[np.int64],
    tick_size: float | None,
) -> NDArray[np.bool_]:
    """Where nothing untold can hide among the levels: all on neighbouring ticks, or both pointers told."""
    both = (asks[:, 0] >= 0) & (bids[:, 0] >= 0) & ~read.ladder_told
    if tick_size is None:
        return both
    ticks = (price[asks[:, -1]] - price[bids[:, -1]]) / tick_size
    joined = np.abs(ticks - (2 * asks.shape[1] - 1)) <= 2 * GRID_TOLERANCE
    return np.where(read.ladder_told, joined, both)
