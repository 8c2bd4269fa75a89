"""Copies that follow a capture: a program that is run beside it, again and again, and can only ever fall behind.

    lake changed? ──every so often──▶ a process: what is sealed ──▶ object storage, a database
                                      trouble ──▶ the log, and the next time again

The program works from what the lake says and ends; it shares nothing with the capture but the disk, so a dead, slow or
refusing target costs the capture nothing. What it missed it does the next time, after a restart too.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from mdcapture.capture.sealing import run_module

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Follower"]

_log = logging.getLogger(__name__)


class Follower:
    """Keeps one copy of a lake up to date while it is recorded.

    Args:
        what: What it does, for the log: `uploading to s3://…`.
        root: The lake.
        command: The module that does it once, and its arguments; secrets are in the environment.
        every_s: How often the lake is looked at.
    """

    def __init__(self, what: str, root: Path, command: tuple[str, ...], every_s: float) -> None:
        self._what = what
        self._root = root
        self._command = command
        self._every_s = every_s
        self._running: asyncio.Task[str] | None = None
        self._done_ns: int | None = None

    async def follow(self) -> NoReturn:
        """Go on until cancelled; a run that is under way then goes on."""
        while True:
            if self._manifests_ns() != self._done_ns:
                await self._once()
            await asyncio.sleep(self._every_s)

    async def finish(self) -> None:
        """Do it for the last time, once all is sealed."""
        if self._running is not None:
            await self._running
        await self._once()

    async def _once(self) -> None:
        looked_ns = self._manifests_ns()
        self._running = asyncio.create_task(run_module(*self._command))
        trouble = await asyncio.shield(self._running)
        if trouble:
            _log.warning("%s failed, the lake has all of it, and it is tried again: %s", self._what, trouble)
        else:
            self._done_ns = looked_ns

    def _manifests_ns(self) -> int | None:
        """When a manifest was last replaced: each is renamed into this folder. None where the lake can't be read."""
        try:
            return (self._root / "sessions").stat().st_mtime_ns
        except OSError:  # the capture's own figures tell of that
            return None
