"""Event arrays for hftbacktest: the book's changes and the prints, each at the exchange's time and at ours.

The simulated exchange takes the events in the order of `exch_ts`, the strategy in that of `local_ts`. An event that
both meet in the same order is one row with both flags; one that arrived late, behind events of a later exchange time,
is two: the exchange's where it happened, ours where it came.

The form is that of hftbacktest 2, whose numpy type stands below as its documentation gives it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from mdcapture.interop.books import books, changes, prints
from mdcapture.lake.schema import Side
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from mdcapture.interop.books import Market

__all__ = ["EVENT", "events", "write"]

_log = logging.getLogger(__name__)

EVENT: Final = np.dtype(
    [
        ("ev", "u8"),
        ("exch_ts", "i8"),
        ("local_ts", "i8"),
        ("px", "f8"),
        ("qty", "f8"),
        ("order_id", "u8"),
        ("ival", "i8"),
        ("fval", "f8"),
    ],
    align=True,
)
"""One event: `ev` is a kind with flags, times are ns UTC, `qty` is in lots (of a depth event: what is there now)."""

_DEPTH, _TRADE, _CLEAR = 1, 2, 3
_EXCHANGE, _LOCAL, _BUY, _SELL = 1 << 31, 1 << 30, 1 << 29, 1 << 28
_BELIEVED_NS: Final = 60 * NS_PER_S
_ROW: Final = pl.Schema(
    {"recv_ns": pl.Int64, "seq": pl.Int64, "exch_ns": pl.Int64, "ev": pl.UInt64, "px": pl.Float64, "qty": pl.Float64}
)


def write(folder: Path, market: Market, levels: int, progress: Callable[[int], object]) -> dict[str, int]:
    """Write the events of a market as `SESSION_CONTRACT.npz`; all of them are in memory, 64 bytes each, as when read.

    Args:
        folder: Where to.
        market: What to write.
        levels: How many levels a side the book has.
        progress: Told of the rows so far.

    Returns:
        The number of rows of `events`.
    """
    made = events(changes(books(market, levels), levels), prints(market))
    np.savez_compressed(folder / f"{market.session_id}_{market.contract.contract_id}.npz", data=made)
    progress(len(made))
    return {"events": len(made)}


def events(depth: Iterable[pl.DataFrame], trades: Iterable[pl.DataFrame]) -> NDArray[np.void]:
    """Merge the changes of a book and prints.

    Args:
        depth: What `books.changes` gives.
        trades: What `books.prints` gives.

    Returns:
        Rows of the type `EVENT`, in orders that hftbacktest's `validate_event_order` accepts. The first one empties
        the book, so that files can follow each other. A print without a side has no flag of one, and is passed over.
    """
    rows = pl.concat([_ROW.to_frame(), *map(_of_depth, depth), *map(_of_trades, trades)])
    rows = _timed(rows.sort("recv_ns", "seq", maintain_order=True))
    first = rows.head(1).with_columns(
        exch_ns=pl.lit(rows["exch_ns"].min(), pl.Int64), ev=pl.lit(_CLEAR, pl.UInt64), px=0.0, qty=0.0
    )
    rows = pl.concat([first, rows])
    made = np.zeros(rows.height, EVENT)
    for name, column in {"ev": "ev", "exch_ts": "exch_ns", "local_ts": "recv_ns", "px": "px", "qty": "qty"}.items():
        made[name] = rows[column].to_numpy()
    return _in_both_orders(made)


def _of_depth(rows: pl.DataFrame) -> pl.DataFrame:
    side = pl.when("bid").then(_BUY).otherwise(_SELL)
    return rows.select(
        "recv_ns", "seq", "exch_ns", ev=_DEPTH + side.cast(pl.UInt64), px="price", qty=pl.col("size").cast(pl.Float64)
    )


def _of_trades(rows: pl.DataFrame) -> pl.DataFrame:
    side = pl.col("side").replace_strict({Side.BUY: _BUY, Side.SELL: _SELL}, default=0, return_dtype=pl.UInt64)
    return rows.select("recv_ns", "seq", "exch_ns", ev=_TRADE + side, px="price", qty=pl.col("volume").cast(pl.Float64))


def _timed(rows: pl.DataFrame) -> pl.DataFrame:
    """Give each row an exchange time that a backtest can use, and no later than its local time.

    A missing one, or one a minute away from the receipt, becomes the receipt less the median latency. Where this
    machine's clock was behind, all local times move by the largest difference, as by hftbacktest's own
    `correct_local_timestamp`.
    """
    latency = pl.col("recv_ns") - pl.col("exch_ns")
    believed = (latency.abs() <= _BELIEVED_NS).fill_null(value=False)
    usual = latency.filter(believed).median().fill_null(0).cast(pl.Int64)
    rows = rows.with_columns(exch_ns=pl.when(believed).then("exch_ns").otherwise(pl.col("recv_ns") - usual))
    behind_ns = -int(rows.select(latency.min().fill_null(0)).item())
    if behind_ns <= 0:
        return rows
    _log.warning("this machine's clock was up to %.3f ms behind: local times are later by that", behind_ns / 1e6)
    return rows.with_columns(pl.col("recv_ns") + behind_ns)


def _in_both_orders(made: NDArray[np.void]) -> NDArray[np.void]:
    """Rows in the order of local time to rows in both orders, by splitting those that came late."""
    newest = np.maximum.accumulate(made["exch_ts"]) if len(made) else made["exch_ts"]
    late = made["exch_ts"] < newest
    at_exchange = made[late]
    at_exchange["ev"] |= _EXCHANGE
    made["ev"] |= np.where(late, _LOCAL, _LOCAL | _EXCHANGE).astype(np.uint64)
    order = np.argsort(np.concatenate([newest, at_exchange["exch_ts"]]), kind="stable")
    return np.concatenate([made, at_exchange])[order]
