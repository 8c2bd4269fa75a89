"""Who may write a session: one living process, by a lock that the kernel lets go when it dies."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mdcapture.errors import BusyError
from mdcapture.lake.files import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["OWNER_LOCK", "SEAL_LOCK", "hold", "is_held"]

OWNER_LOCK = "lock"
"""Held by the recorder of a session from its beginning to its end."""

SEAL_LOCK = "seal.lock"
"""Held by whoever seals the session's segments: the recorder's sealer, or a recovery."""


@contextmanager
def hold(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock for the length of the block.

    Args:
        path: The lock's file; its content names the process that holds it, for people.
        wait: Wait for another holder instead of raising.

    Raises:
        BusyError: Another living process holds it.
    """
    with storage_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip()
            raise BusyError(
                f"{path.parent.name} is held by process {holder or '?'}: wait for its end, or stop that process"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
