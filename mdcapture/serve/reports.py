"""Reports on demand: made by `mdcapture report` in a process of their own, and kept as long as they are true."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mdcapture.errors import MdcaptureError
from mdcapture.serve.children import child, complaint

if TYPE_CHECKING:
    from pathlib import Path

    from mdcapture.lake.manifest import Manifest

__all__ = ["Reports"]

_TRUE_S: Final = 60.0


@dataclass(frozen=True)
class _Making:
    task: asyncio.Task[Path]
    began_s: float
    state: str


class Reports:
    """The reports of a lake's sessions; one is made at a time.

    Args:
        root: The lake.
        folder: Where they are kept.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder
        self._made: dict[str, _Making] = {}
        self._turn = asyncio.Lock()

    def page(self, manifest: Manifest) -> Path | float:
        """A session's report, or since how many seconds it is being made; it is begun if it is not there.

        That of a session which has ended stays; that of a running one is made anew after a minute.

        Raises:
            MdcaptureError: It can't be made; the next call tries again.
        """
        session_id = manifest.session_id
        making = self._made.get(session_id)
        if making is None or self._is_old(making, manifest):
            task = asyncio.create_task(self._make(session_id))
            making = self._made[session_id] = _Making(task, time.monotonic(), manifest.state)
        if not making.task.done():
            return time.monotonic() - making.began_s
        try:
            return making.task.result()
        except MdcaptureError:
            del self._made[session_id]
            raise

    async def stop(self) -> None:
        """End what is being made."""
        tasks = [making.task for making in self._made.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    def _is_old(making: _Making, manifest: Manifest) -> bool:
        if not making.task.done():
            return False
        grown = manifest.state == "open" and time.monotonic() - making.began_s > _TRUE_S
        return grown or making.state != manifest.state

    async def _make(self, session_id: str) -> Path:
        path = self._folder / f"{session_id}.html"
        async with self._turn, child("report", session_id, "--lake", str(self._root), "-o", str(path)) as process:
            if trouble := await complaint(process):
                raise MdcaptureError(f"the report of {session_id} could not be made: {trouble}")
        return path
