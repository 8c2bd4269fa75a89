"""How long this machine has slept, as far as it knows: time in which nothing was received, and no clock of ours ran.

Linux has two clocks that nobody can set, one that goes on in a sleep and one that does not: their difference is the
time slept. Elsewhere, and where a virtual machine was paused without its knowing, a sleep looks like a clock that was
set forward.
"""

from __future__ import annotations

import sys
import time

__all__ = ["slept_ns"]


def slept_ns() -> int:
    """How long this machine has slept since it was started, in nanoseconds; 0 where it does not know."""
    if sys.platform != "linux":
        return 0
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
