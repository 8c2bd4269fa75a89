"""Who may write a session: one living process, by a lock that the kernel lets go when it dies."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mdcapture.errors import BusyError, StorageError
from mdcapture.lake.files import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mdcapture.lake.remote import Location

__all__ = ["OWNER_LOCK", "SEAL_LOCK", "hold", "is_held", "unsealed"]

OWNER_LOCK = "lock"
"""Held by the recorder of a session from its beginning to its end."""

SEAL_LOCK = "seal.lock"
"""Held by whoever seals the session's segments: the recorder's sealer, or a recovery."""

_PAUSES_S = (0.001, 0.003, 0.009, 0.0)


@contextmanager
def hold(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock for the length of the block.

    Args:
        path: The lock's file; its content names the process that holds it, for people.
        wait: Wait for another holder instead of raising.

    Raises:
        BusyError: Another living process holds it.
        StorageError: The file can't be made, or its folder is gone: another holder has ended the session.
    """
    while not _is_at(fd := _locked(path, wait=wait), path):
        os.close(fd)  # its holder removed it while we waited: a lock without a name keeps nobody out
    try:
        with suppress(OSError):  # the disk is full; the number is for people
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def is_held(path: Path) -> bool:
    """Whether a living process holds a lock; right at any moment, and also where process numbers mean nothing here."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _locked(path: Path, *, wait: bool) -> int:
    with storage_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    if wait:
        fcntl.flock(fd, fcntl.LOCK_EX)
    elif not _try(fd, fcntl.LOCK_EX):
        holder = os.read(fd, 32).decode("ascii", "replace").strip()
        os.close(fd)
        raise BusyError(
            f"{path.parent.name} is held by process {holder or '?'}: wait for its end, or stop that process"
        )
    return fd


def _try(fd: int, kind: int) -> bool:
    """Lock, if nobody else has; a look by `is_held` is over before the next attempt."""
    for pause_s in _PAUSES_S:
        with suppress(BlockingIOError):
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return True
        time.sleep(pause_s)
    return False


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def unsealed(folder: Location) -> ExitStack:
    """Keep sealers away, where there is a journal to seal.

    Args:
        folder: The session's journal folder.

    Returns:
        What is held until it is closed.
    """
    held = ExitStack()
    if isinstance(folder, Path) and folder.is_dir():
        try:
            held.enter_context(hold(folder / SEAL_LOCK, wait=True))
        except StorageError:
            if folder.exists():  # or else it has just been sealed
                raise
    return held
