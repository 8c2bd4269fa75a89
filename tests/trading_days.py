"""A trading day that ends soon, for captures that are told another time than it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mdcapture.capture.trading_day import next_roll_ns

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["day_that_ends_in"]


def day_that_ends_in(left_s: float) -> tuple[Callable[[], int], int]:
    """A clock, and the time on it at which the trading day ends, so many seconds from now."""
    now_ns = time.time_ns()
    roll_ns = next_roll_ns(now_ns, "17:00", "America/Chicago")
    assert roll_ns is not None
    ahead_ns = roll_ns - now_ns - round(left_s * 1e9)
    return lambda: time.time_ns() + ahead_ns, roll_ns
