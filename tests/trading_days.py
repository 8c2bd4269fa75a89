"""A trading day that ends when a test says so, for captures that are told another time than it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from mdcapture.capture.trading_day import next_roll_ns

if TYPE_CHECKING:
    from mdcapture.capture.recorder import Recorder

__all__ = ["Day", "next_session"]

_LEFT_NS: Final = 200_000_000


class Day:
    """A clock that stands a moment before the day's end, until `end` sets it going.

    However slow the machine is, a capture has begun before its day ends.

    Attributes:
        settings: What a capture by this clock needs: one that stands was set, and that is no incident here.
        roll_ns: When the day ends (ns UTC).
    """

    settings: Final = {"clock_step_ms": 1e9}

    def __init__(self) -> None:
        roll_ns = next_roll_ns(time.time_ns(), "17:00", "America/Chicago")
        assert roll_ns is not None
        self.roll_ns = roll_ns
        self._ended_at_ns: int | None = None

    def __call__(self) -> int:
        since_ns = 0 if self._ended_at_ns is None else time.monotonic_ns() - self._ended_at_ns
        return self.roll_ns - _LEFT_NS + since_ns

    def end(self) -> None:
        """Let the day end in a moment; once it does, it does."""
        self._ended_at_ns = self._ended_at_ns or time.monotonic_ns()


def next_session(recorder: Recorder, before: str | None = None) -> str:
    """The session that a running recorder writes, as soon as it is another one than that before, and has a message."""
    messages: int | None = None
    while True:
        figures = recorder.figures()
        if figures is not None and figures.session_id != before:
            messages = figures.messages if messages is None else messages
            if figures.messages > messages:
                return figures.session_id
        assert recorder.wait(0.01) is None
