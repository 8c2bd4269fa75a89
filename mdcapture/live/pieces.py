"""A table of any length, a piece at a time: what is held in memory does not grow with the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["in_pieces"]


def in_pieces(
    frame: pl.LazyFrame, rows: int, *, from_ns: int | None = None, to_ns: int | None = None
) -> Iterator[pl.DataFrame]:
    """The rows received in a time, so many at once.

    Args:
        frame: A table of one contract, in the order of `recv_ns`; a scan, so that a piece of it is read by its place.
        rows: The most that a piece has.
        from_ns: The first time (ns UTC).
        to_ns: The first time after it.
    """
    recv_ns = pl.col("recv_ns")  # the one column that is read to count: `pl.len()` of some plans would read them all
    low = recv_ns < (-(2**63) if from_ns is None else from_ns)
    high = recv_ns.is_not_null() if to_ns is None else recv_ns < to_ns
    begin, end = frame.select(low.sum().alias("low"), high.sum().alias("high")).collect().row(0)
    for offset in range(begin, end, rows):
        yield frame.slice(offset, min(rows, end - offset)).collect()
