"""Markets on their way to backtesters: the settled book after each message, its changes, and the prints.

    depth ──▶ whole messages ──▶ books ──▶ changes          slice by slice, in the order of arrival
    trades ─────────────────────────────▶ prints

A backtester is given the book that `mdcapture.metrics.book` shows, never the feed's raw entries: so it has the same
book whatever contradicted itself on the wire, for accounts that get no ladder, and after gaps. A slice takes over from
the one before it what had been told by then, so memory does not grow with the session.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from mdcapture.lake.manifest import Contract
from mdcapture.metrics.book import book_snapshots, entry_fault, level_columns
from mdcapture.query.sql import Database

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray


__all__ = ["ACTIONS", "PRINT", "Market", "books", "changes", "delivery_month", "markets", "prints", "settled"]

ACTIONS: Final = ("add", "update", "delete")
"""What a change does to a level."""

PRINT: Final = pl.Schema(
    {
        **dict.fromkeys(("seq", "recv_ns"), pl.Int64()),
        "pos": pl.Int32(),
        "exch_ns": pl.Int64(),
        "price": pl.Float64(),
        "volume": pl.Int64(),
        "side": pl.Int8(),
    }
)
"""The columns of prints."""

_MONTH_CODES: Final = "FGHJKMNQUVXZ"
_SLICE_ROWS: Final = 100_000
_TIMES: Final = ("seq", "recv_ns", "exch_ns")
_BOOK_TYPES: Final = (1, 2, 3, 4, 6, 9, 10)  # a later row of one of these types and price makes an earlier one moot


class Market(NamedTuple):
    """One contract of one session, between two times of receipt.

    Attributes:
        database: Where it is read from.
        session_id: The session.
        contract: The contract.
        running: Whether the session is still captured.
        start_ns: When its first message was received (ns UTC).
        end_ns: When its last message was received (ns UTC).
        from_ns: What was received at this time or later (ns UTC); None for all.
        to_ns: What was received before this time (ns UTC); None for all.
    """

    database: Database
    session_id: str
    contract: Contract
    running: bool
    start_ns: int
    end_ns: int
    from_ns: int | None = None
    to_ns: int | None = None


def markets(
    database: Database, contract_id: str | None = None, from_ns: int | None = None, to_ns: int | None = None
) -> list[Market]:
    """The markets that a database has, by session and contract; sessions without a message have none."""
    query = """SELECT sessions.status, start_ns, end_ns, contracts.* FROM contracts JOIN sessions USING (session_id)
        WHERE start_ns IS NOT NULL AND coalesce(contract_id = ?, true) ORDER BY session_id, contract_id"""
    found = database.sql(query, [contract_id]).pl().to_dicts()
    return [
        Market(
            database,
            row["session_id"],
            Contract(**{name: row[name] for name in Contract.__struct_fields__}),
            row["status"] == "open",
            row["start_ns"],
            row["end_ns"],
            from_ns,
            to_ns,
        )
        for row in found
    ]


def delivery_month(contract_id: str) -> date | None:
    """The first day of the month in which a contract delivers, as its id says; None where it does not."""
    letter, year = contract_id[-3:-2], contract_id[-2:]
    if not letter or letter not in _MONTH_CODES or not year.isdecimal():
        return None
    return date(2000 + int(year), _MONTH_CODES.index(letter) + 1, 1)


def prints(market: Market) -> Iterator[pl.DataFrame]:
    """The trades of a market.

    Yields:
        Slices in the order of events, with the columns of `PRINT`.
    """
    query = f"SELECT {', '.join(PRINT)} FROM trades WHERE recv_ns >= $from_ns AND "  # noqa: S608  # names of ours
    yield from _rows(market, query, {"from_ns": market.from_ns or 0})


def books(market: Market, levels: int) -> Iterator[pl.DataFrame]:
    """The book of a market after each message that changed it; see `settled`."""
    query = "SELECT seq, recv_ns, pos, exch_ns, dom_type, price, volume FROM depth WHERE "
    depth = _whole_messages(_rows(market, query, {}))
    for book in settled(depth, levels, tick_size=market.contract.tick_size, gaps=_gaps(market)):
        yield book.filter(pl.col("recv_ns") >= (market.from_ns or 0))


def settled(
    depth: Iterable[pl.DataFrame], levels: int, *, tick_size: float | None, gaps: pl.DataFrame
) -> Iterator[pl.DataFrame]:
    """The book after each message that changed it, by the rules of `metrics.book`, slice by slice.

    Args:
        depth: Slices of whole messages in the order of events, with the lake's columns.
        levels: How many levels a side.
        tick_size: The tick in price units, if it is known.
        gaps: The times in which depth can be missing, `from_ns` to `to_ns`.

    Yields:
        Slices with `seq`, `recv_ns`, `exch_ns` (the newest time of the message's entries), `kind` and the columns of
        `metrics.book.level_columns`. A slice's first message may be there though it changed nothing.
    """
    lasts = pl.col("dom_type").is_in(_BOOK_TYPES) & entry_fault(tick_size).is_null()
    told = pl.DataFrame()
    for part in depth:
        entries = pl.concat([told, part]) if told.width else part
        book = book_snapshots(entries, levels, changes_only=True, tick_size=tick_size, incidents=gaps)
        times = part.group_by("seq", maintain_order=True).agg(pl.col("exch_ns").max())
        own = book.join(times, on="seq", how="inner", maintain_order="left")
        yield own.select(*_TIMES, "kind", *level_columns(levels))
        told = entries.filter(lasts).unique(["dom_type", "price"], keep="last", maintain_order=True)


def changes(slices: Iterable[pl.DataFrame], levels: int) -> Iterator[pl.DataFrame]:
    """What happened to the levels of books from one to the next.

    Args:
        slices: What `books` gives; the first book comes as additions.
        levels: How many levels a side they have.

    Yields:
        Slices with `seq`, `recv_ns`, `exch_ns`, `action` (see `ACTIONS`), `bid` (whether it is a bid), `price` and
        `size` (what is there now, 0 where the level is gone); of a message, first what is gone.
    """
    before: pl.DataFrame | None = None
    for book in slices:
        if not book.is_empty():
            yield _changes(book.clear(1) if before is None else before, book, levels)
            before = book.tail(1)


def _changes(before: pl.DataFrame, book: pl.DataFrame, levels: int) -> pl.DataFrame:
    both = pl.concat([before, book])
    found = pl.concat([_side_changes(both, side, levels) for side in ("bid", "ask")])
    found = found.sort("row", pl.col("action") != "delete", maintain_order=True)
    times = book.select(_TIMES)[found["row"]]
    return pl.concat([times, found.drop("row")], how="horizontal")


def _side_changes(books: pl.DataFrame, side: str, levels: int) -> pl.DataFrame:
    """The changes of one side in each book but the first, by the number of its row less one."""
    price = np.column_stack([books[f"{side}_price_{m}"].fill_null(np.nan).to_numpy() for m in range(levels)])
    size = np.column_stack([books[f"{side}_size_{m}"].fill_null(0).to_numpy() for m in range(levels)])
    same = price[1:, :, None] == price[:-1, None, :]  # (book, level now, level before)
    stayed = same.any(axis=2)
    size_before = np.take_along_axis(size[:-1], same.argmax(axis=2), axis=1)
    there = ~np.isnan(price)
    added = there[1:] & ~stayed
    updated = stayed & (size[1:] != size_before)
    gone = there[:-1] & ~same.any(axis=1)

    def rows(where: NDArray[np.bool_], action: str) -> pl.DataFrame:
        now = action != "delete"
        row, level = np.nonzero(where)
        columns = {"row": row, "price": price[row + now, level], "size": size[row + now, level] * now}
        return pl.DataFrame(columns).with_columns(
            action=pl.lit(action, pl.Enum(ACTIONS)), bid=pl.lit(side == "bid", pl.Boolean)
        )

    found = pl.concat([rows(gone, "delete"), rows(updated, "update"), rows(added, "add")])
    return found.select("row", "action", "bid", "price", pl.col("size").cast(pl.Int64))


def _rows(market: Market, query: str, parameters: dict[str, object]) -> Iterator[pl.DataFrame]:
    """Rows of a market in the order of events, which is that of a finished session's files."""
    condition = "session_id = $session_id AND contract_id = $contract_id AND recv_ns < $to_ns"
    order = " ORDER BY recv_ns, seq, pos" if market.running else ""
    mine = {
        "session_id": market.session_id,
        "contract_id": market.contract.contract_id,
        "to_ns": 2**63 - 1 if market.to_ns is None else market.to_ns,
    }
    for batch in market.database.stream(query + condition + order, {**mine, **parameters}).batches:
        yield pl.DataFrame(pa.Table.from_batches([batch]))


def _whole_messages(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Frames of many rows, none of which ends within a message."""
    waiting: list[pl.DataFrame] = []
    for frame in frames:
        waiting.append(frame)
        if sum(each.height for each in waiting) >= _SLICE_ROWS:
            rows = pl.concat(waiting)
            last = pl.col("seq") == rows["seq"][-1]
            yield rows.filter(~last)
            waiting = [rows.filter(last)]
    if waiting:
        yield pl.concat(waiting)


def _gaps(market: Market) -> pl.DataFrame:
    query = """SELECT from_ns, to_ns FROM gaps
        WHERE session_id = ? AND contract_id = ? AND stream = 'depth' ORDER BY from_ns"""
    gaps: pl.DataFrame = market.database.sql(query, [market.session_id, market.contract.contract_id]).pl()
    return gaps
