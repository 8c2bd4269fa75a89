"""Limits of memory, disk and files: told once when they are reached, acted on while they last.

    memory_soft   live queues are emptied; the journal's segment is closed and sealed early, once
    memory_hard   live handlers and statistics stop
    disk_warn     nothing but the warning
    disk_stop     the capture ends, while there is still room to seal what it has
    files_warn    nothing but the warning

The journal is the last to feel any of them. Where a look fails, as without a free file handle, the log says so.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
from typing import TYPE_CHECKING, Final, NoReturn

import psutil

from mdcapture.errors import StorageError
from mdcapture.lake.files import storage_errors
from mdcapture.lake.schema import IncidentKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mdcapture.capture.feed import Feed
    from mdcapture.config import Config

__all__ = ["Limits"]

_log = logging.getLogger(__name__)

_MB: Final = 1024 * 1024


class Limits:
    """Looks at what runs out, now and then.

    Args:
        config: The limits.
        root: The lake, on the disk that is looked at.
        feed: Lets go of what waits for handlers.
        seal_early: Closes the journal's segment at the next opportunity.
        tell: Notes what happened as an incident.

    Attributes:
        reached: The limits that are reached now, by name, with the figure that reached them.
    """

    def __init__(
        self,
        config: Config,
        root: Path,
        feed: Feed,
        *,
        seal_early: Callable[[], object],
        tell: Callable[[IncidentKind, str], object],
    ) -> None:
        self.reached: dict[str, str] = {}
        self._config = config
        self._root = root
        self._feed = feed
        self._seal_early = seal_early
        self._tell = tell
        self._process = psutil.Process()

    async def watch(self) -> NoReturn:
        """Look each `memory_check_s`.

        Raises:
            StorageError: Less than `disk_stop_mb` of disk is free, or the lake is gone.
        """
        while True:
            for look in (self._look_at_disk, self._look_at_memory, self._look_at_files):
                try:
                    look()
                except StorageError:
                    raise
                except (OSError, psutil.Error) as error:
                    _log.warning("a limit can't be looked at: %s", error)
            await asyncio.sleep(self._config.memory_check_s)

    def _look_at_disk(self) -> None:
        config = self._config
        try:
            free_mb = shutil.disk_usage(self._root).free / _MB
        except FileNotFoundError:  # from under us: what is written now is gone with it
            with storage_errors(self._root):
                raise
        disk = f"{free_mb:.0f} MB of disk are free"
        self._check("disk_warn", disk, reached=free_mb < config.disk_warn_mb)
        if self._check("disk_stop", disk, reached=free_mb < config.disk_stop_mb):
            raise StorageError(
                None,
                f"{disk}, less than disk_stop_mb ({config.disk_stop_mb:.0f}): the capture has ended cleanly, with all "
                "that had arrived; free some space and start it again",
            )

    def _look_at_memory(self) -> None:
        config = self._config
        memory_mb = self._process.memory_info().rss / _MB
        memory = f"{memory_mb:.0f} MB of memory are used"
        if self._check("memory_hard", memory, reached=memory_mb > config.memory_hard_mb):
            self._feed.close()
        new = "memory_soft" not in self.reached
        if self._check("memory_soft", memory, reached=memory_mb > config.memory_soft_mb):
            self._feed.clear()
            gc.collect()
            if new:
                self._seal_early()

    def _look_at_files(self) -> None:
        files = self._process.num_fds()
        self._check("files_warn", f"{files} files are open", reached=files > self._config.files_warn)

    def _check(self, limit: str, figure: str, *, reached: bool) -> bool:
        """Keep account of a limit; when it is reached, and when it is no longer, somebody is told."""
        if reached and limit not in self.reached:
            self._tell(IncidentKind.LIMIT, f"{limit}: {figure}")
        elif not reached and limit in self.reached:
            _log.info("%s is no longer reached: %s", limit, figure)
        if reached:
            self.reached[limit] = figure
        else:
            self.reached.pop(limit, None)
        return reached
