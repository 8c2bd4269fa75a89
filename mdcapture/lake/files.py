"""Writing so that it lasts: a name appears only when what is behind it is whole and on the disk."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mdcapture.errors import StorageError
from mdcapture.lake.remote import RemotePath

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedWriter
    from pathlib import Path

    from mdcapture.lake.remote import Location

__all__ = [
    "TEMPORARY",
    "create_file",
    "make_folder",
    "post_file",
    "publish_file",
    "removed_on_error",
    "replace_file",
    "sha256_of",
    "storage_errors",
    "sync_folder",
]

TEMPORARY = ".tmp"
"""The suffix of files that are not finished: no reader's pattern matches it."""

_NEXT_STEP = {
    errno.ENOSPC: "free some space; what is in the journal is sealed at the next start",
    errno.EDQUOT: "free some space; what is in the journal is sealed at the next start",
    errno.EROFS: "choose another folder with --lake",
    errno.EACCES: "give this user the right to write there, or choose another folder with --lake",
    errno.EPERM: "give this user the right to write there, or choose another folder with --lake",
    errno.ENOTDIR: "a file is where a folder should be: choose another folder with --lake",
    errno.EEXIST: "a file is where a folder should be: choose another folder with --lake",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the disk says into a StorageError that says what to do."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        step = _NEXT_STEP.get(error.errno or 0, "check the disk and try again")
        raise StorageError(error.errno, f"can't write {path}: {error.strerror or error}; {step}") from error


def sync_folder(folder: Path) -> None:
    """Force a folder's names onto the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each name forced onto the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with storage_errors(folder):
        folder.mkdir(mode=0o750, exist_ok=True)
        sync_folder(folder.parent)


def create_file(path: Path) -> BufferedWriter:
    """Open a file for writing, empty, that other users have no business with."""
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o640))  # an opener


def publish_file(temporary: Path, final: Path) -> None:
    """Give a finished, synced file its name."""
    with storage_errors(final):
        temporary.rename(final)


@contextmanager
def removed_on_error(temporary: Path) -> Iterator[None]:
    """Where the disk is full, what could not be finished must not keep it full."""
    try:
        yield
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def post_file(path: Path, content: bytes) -> None:
    """Replace a file that only tells how things stand; a disk that refuses leaves the old one, whose age tells."""
    temporary = path.with_name(path.name + TEMPORARY)
    with suppress(OSError):
        with create_file(temporary) as file:
            file.write(content)
        temporary.replace(path)


def replace_file(path: Path | RemotePath, chunks: Iterable[bytes]) -> None:
    """Replace a file at once: readers see the old content or the new, also after a crash."""
    if isinstance(path, RemotePath):
        path.replace_with(chunks)
        return
    temporary = path.with_name(path.name + TEMPORARY)
    with storage_errors(path), removed_on_error(temporary):
        with create_file(temporary) as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)


def sha256_of(path: Location) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
