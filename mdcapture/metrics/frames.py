"""What every metric shares: groups, the order of events, and stretches of time without a gap.

Frames have the columns of the lake's tables. A metric is computed for each group of the key columns
(`session_id`, `contract_id`) that a frame has; a frame without them is one group. Events are in the order
(`recv_ns`, `seq`, `pos`), and "before" means strictly before in that order, never by time alone.
"""

from __future__ import annotations

from typing import TypeVar

import polars as pl

__all__ = ["KEYS", "ORDER", "Frame", "key_columns", "order_columns", "ordered", "stretches"]

Frame = TypeVar("Frame", pl.LazyFrame, pl.DataFrame)
"""Lazy in, lazy out; a DataFrame in, a DataFrame out."""

KEYS = ("session_id", "contract_id")
ORDER = ("recv_ns", "seq", "pos")


def key_columns(frame: pl.LazyFrame | pl.DataFrame) -> list[str]:
    """The key columns that the frame has."""
    names = frame.lazy().collect_schema().names()
    return [name for name in KEYS if name in names]


def order_columns(frame: pl.LazyFrame | pl.DataFrame) -> list[str]:
    """The columns of the order of events that the frame has."""
    names = frame.lazy().collect_schema().names()
    return [name for name in ORDER if name in names]


def ordered(frame: Frame) -> Frame:
    """The frame by group, and in each group in the order of events."""
    return frame.sort([*key_columns(frame), *order_columns(frame)], maintain_order=True)


def stretches(frame: Frame, incidents: pl.LazyFrame | pl.DataFrame | None) -> Frame:
    """Add `stretch`: the number of gaps before a row, so that no return or horizon reaches across one.

    A gap ends at its first new message: rows at or after an incident's `to_ns` are in the next stretch.

    Args:
        frame: Events with `recv_ns`, and the key columns that they are grouped by.
        incidents: Rows with `to_ns` (ns), and `session_id` and `contract_id` where the frame has them; a null
            `contract_id` stands for every contract of the session. None: all is one stretch.
    """
    if incidents is None:
        return frame.with_columns(stretch=pl.lit(0, pl.Int64))
    raise NotImplementedError  # the owner of this module completes it
