"""A disk that refuses, without one."""

from __future__ import annotations

import resource
import signal
from typing import Self


class SmallDisk:
    """This process may write files of so many bytes only, as if the disk were full behind them."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __enter__(self) -> Self:
        self._handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._size, self._limits[1]))
        return self

    def make_room(self) -> None:
        """Let it take all again; from any thread."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)

    def __exit__(self, *_: object) -> None:
        self.make_room()
        signal.signal(signal.SIGXFSZ, self._handler)
