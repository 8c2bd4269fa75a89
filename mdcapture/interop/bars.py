"""Bars of time for vectorised backtesters and charts, under the names that those expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from mdcapture.interop.books import PRINT, prints
from mdcapture.metrics.bars import time_bars

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mdcapture.interop.books import Market

__all__ = ["BARS", "bars"]

BARS: Final = pa.schema(
    {
        "timestamp": pa.timestamp("us", "UTC"),
        "symbol": pa.string(),
        **dict.fromkeys(("open", "high", "low", "close"), pa.float64()),
        **dict.fromkeys(("volume", "buy_volume", "sell_volume", "trades"), pa.int64()),
        "vwap": pa.float64(),
    }
)
"""The columns of bars; `timestamp` is when one begins."""


def bars(markets: Iterable[Market], interval_ns: int) -> Iterator[pa.RecordBatch]:
    """The bars of markets, one market after the other; see `metrics.bars.time_bars`.

    Args:
        markets: The markets; the trades of one are in memory.
        interval_ns: The length of a bar; an interval without a trade has none.

    Yields:
        Batches of `BARS`.
    """
    for market in markets:
        trades = pl.concat([PRINT.to_frame(), *prints(market)])
        made = time_bars(trades, interval_ns).with_columns(
            timestamp=(pl.col("start_ns") // 1000).cast(pl.Datetime("us", "UTC")),
            symbol=pl.lit(market.contract.contract_id),
        )
        yield from made.select(BARS.names).to_arrow().cast(BARS).to_batches()
