"""An event loop whose clock jumps to the next timer when no socket has anything to say.

Sockets are real, time is not: half a minute of silence, or a week of pauses, passes in milliseconds, and every timer
fires at exactly its time.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

P = ParamSpec("P")

_GRACE_S = 0.0005  # for what another thread, or the kernel, is about to bring
_STUCK_S = 5.0
_TOO_LONG_S = 100_000


class _JumpingSelector(selectors.DefaultSelector):
    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        ready = super().select(_STUCK_S if timeout is None else _GRACE_S)
        if not ready and timeout is None:
            raise TimeoutError("the test waits for what nobody will bring")
        if not ready:
            self.now_s += timeout
        if self.now_s > _TOO_LONG_S:
            raise TimeoutError("the test waits for what does not come")
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a plain test of an asynchronous one."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def clock_ns() -> int:
    """The running loop's time, as nanoseconds since an epoch of its own."""
    return round(asyncio.get_running_loop().time() * 1e9)
