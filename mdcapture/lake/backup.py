"""A copy of a lake that is a lake: consistent, verifiable, made while it is written, and cheap to bring up to date.

Sealed files never change, so one that is there with the right size and in the copy's manifest is not copied again. For
each session the order is that of sealing: files under temporary names, synced, held against their checksums, renamed;
then the manifest; then what it no longer names goes. A copy that is interrupted is what it was before, plus files that
nobody names yet. Where the copy knows more of a session than the lake does, it is the better one, and is left alone.

Of a session that is still recorded the copy has what is sealed, and the journal as far as it was written: `mdcapture
recover` makes a session of it, should the original be gone. Sessions that are pruned from the lake stay in the copy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING, Final

import msgspec

from mdcapture.errors import DamageError, NotFoundError, UsageError
from mdcapture.lake.files import TEMPORARY, create_file, make_folder, publish_file, storage_errors, sync_folder
from mdcapture.lake.journal import Damage, read_blocks, segments
from mdcapture.lake.layout import journal_folder
from mdcapture.lake.locks import hold, unsealed
from mdcapture.lake.manifest import Manifest, SealedFile, read_manifest, session_ids, write_manifest
from mdcapture.lake.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["BackedUp", "back_up"]

_LOCK: Final = "backup.lock"
_CHUNK_BYTES: Final = 1024 * 1024


class BackedUp(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup did: sessions looked at, files and bytes copied, and what could not be copied, and why."""

    sessions: int
    files: int
    bytes: int
    problems: list[str]


def back_up(root: Path, destination: Path, *, progress: Callable[[int], object] = lambda _: None) -> BackedUp:
    """Bring a copy of a lake up to date.

    Args:
        root: The lake; somebody may write it meanwhile.
        destination: The folder of the copy, made if it does not exist.
        progress: Told of the bytes copied so far.

    Raises:
        NotFoundError: There is no lake.
        UsageError: One folder is within the other.
        BusyError: Another backup to this folder is under way.
        StorageError: The copy's disk refused.
    """
    if not root.is_dir():
        raise NotFoundError(f"there is no lake at {root}: name another one with --lake")
    here, there = root.resolve(), destination.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UsageError(f"{destination} and the lake {root} are within each other: choose another folder")
    make_folder(destination / "sessions")
    make_folder(destination / "journal")
    copied: list[int] = []
    problems: list[str] = []
    ids = session_ids(root)
    with hold(destination / _LOCK):
        for session_id in ids:
            try:
                for size in _session(root, destination, session_id):
                    copied.append(size)
                    progress(sum(copied))
            except NotFoundError:
                continue  # pruned since we looked
            except DamageError as damage:
                problems.append(f"{session_id}: {damage}")
    return BackedUp(sessions=len(ids), files=len(copied), bytes=sum(copied), problems=problems)


def _session(root: Path, destination: Path, session_id: str) -> Iterator[int]:
    """Copy a session; the sizes of the files that were not there, one by one."""
    with unsealed(journal_folder(root, session_id)):
        manifest = read_manifest(root, session_id)
        before = _copied(destination, session_id)
        if before is not None and before.next_seq > manifest.next_seq:
            raise DamageError(f"the copy has messages beyond the lake's last ({manifest.next_seq}): it is left alone")
        known = {file.path: file.sha256 for file in before.files} if before else {}
        for file in manifest.files:
            target = destination / file.path
            if known.get(file.path) != file.sha256 or not _has_size(target, file.bytes):
                _copy(root, target, file)
                yield file.bytes
        if manifest.state == "open":
            make_folder(journal_folder(destination, session_id))  # there may be no segment yet
            found = segments(journal_folder(root, session_id))
            for number, path in found.items():
                if number > manifest.sealed_segment:
                    target = journal_folder(destination, session_id) / path.name
                    yield _copy_segment(path, target, grows=number == max(found))
        write_manifest(destination, manifest)
        _tidy(destination, manifest)


def _copied(destination: Path, session_id: str) -> Manifest | None:
    """The copy's manifest, if there is one that can be read."""
    try:
        return read_manifest(destination, session_id)
    except (NotFoundError, DamageError):
        return None


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _copy(root: Path, target: Path, file: SealedFile) -> None:
    """Copy a sealed file, and make sure on the way that it is what the manifest says."""
    make_folder(target.parent)
    temporary = target.with_name(target.name + TEMPORARY)
    checksum = hashlib.sha256()
    try:
        source = (root / file.path).open("rb")
    except OSError as error:
        raise DamageError(f"{root / file.path} can't be read ({error.strerror}): its session is not copied") from error
    with source, storage_errors(target), create_file(temporary) as copy:
        while chunk := source.read(_CHUNK_BYTES):
            checksum.update(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    if checksum.hexdigest() != file.sha256:
        temporary.unlink()
        raise DamageError(
            f"{root / file.path} is not what its checksum says: its session is not copied, and the copy that there may "
            "be is kept (`mdcapture verify` lists all damage)"
        )
    publish_file(temporary, target)
    sync_folder(target.parent)


def _copy_segment(path: Path, target: Path, *, grows: bool) -> int:
    """Copy a segment of the journal; one that grows up to its last whole block: the rest is being written just now."""
    data = path.read_bytes()
    if grows:
        torn = (block.offset for block in read_blocks(data) if isinstance(block, Damage) and block.torn)
        data = data[: next(torn, len(data))]
    temporary = target.with_name(target.name + TEMPORARY)
    with storage_errors(target):
        with create_file(temporary) as copy:
            copy.write(data)
            copy.flush()
            os.fsync(copy.fileno())
        publish_file(temporary, target)
        sync_folder(target.parent)
    return len(data)


def _tidy(destination: Path, manifest: Manifest) -> None:
    """Remove from the copy what its manifest no longer names: parts that were merged, segments that were sealed."""
    session_id = manifest.session_id
    named = {destination / file.path for file in manifest.files}
    with storage_errors(destination):
        for table in TABLES:
            for path in (destination / table / f"session_id={session_id}").glob("*/part-*"):
                if path not in named:
                    path.unlink()
        folder = journal_folder(destination, session_id)
        for number, path in segments(folder).items():
            if number <= manifest.sealed_segment:
                path.unlink()
        if manifest.state != "open":
            shutil.rmtree(folder, ignore_errors=True)
