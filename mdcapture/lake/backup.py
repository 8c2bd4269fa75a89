"""A copy of a lake that is a lake: consistent, verifiable, made while it is written, and cheap to bring up to date.

Sealed files never change, so one that is there with the right size and in the copy's manifest is not copied again. For
each session the order is that of sealing: files under temporary names, synced, held against their checksums, renamed;
then the manifest; then what it no longer names goes. A copy that is interrupted is what it was before, plus files that
nobody names yet. Where the copy knows more of a session than the lake does, it is the better one, and is left alone.

Of a session that is still recorded the copy has what is sealed, and the journal as far as it was written: `mdcapture
recover` makes a session of it, should the original be gone. Sessions that are pruned from the lake stay in the copy.

A copy in object storage holds what is sealed; the journal stays at home. Several files travel at once, each is tried
again where the network fails, and is then read back: it counts when what arrived has the checksum of what was sealed.
Sealing never waits for an upload: parts that are merged away meanwhile make it begin again with the new ones.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from mdcapture.errors import DamageError, NotFoundError, StorageError, UsageError
from mdcapture.lake.catalog import reread
from mdcapture.lake.files import make_folder, replace_file, sha256_of, storage_errors
from mdcapture.lake.journal import ENDED, Damage, read_blocks, segments
from mdcapture.lake.layout import journal_folder
from mdcapture.lake.locks import hold, unsealed
from mdcapture.lake.manifest import Manifest, SealedFile, read_manifest, session_ids, write_manifest
from mdcapture.lake.remote import RemotePath
from mdcapture.lake.schema import TABLES

if TYPE_CHECKING:
    from mdcapture.lake.remote import Location

__all__ = ["BackedUp", "back_up"]

_LOCK: Final = "backup.lock"
_CHUNK_BYTES: Final = 1024 * 1024
_AT_ONCE: Final = 8

Told: TypeAlias = "Callable[[int], object]"


class BackedUp(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup did: sessions looked at, files and bytes copied, and what could not be copied, and why."""

    sessions: int
    files: int
    bytes: int
    problems: list[str]


def back_up(
    root: Location,
    destination: Path | RemotePath,
    *,
    check: bool = False,
    progress: Told = lambda _: None,
    pauses_s: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
) -> BackedUp:
    """Bring a copy of a lake up to date.

    Args:
        root: The lake; somebody may write it meanwhile. Where it is a copy in object storage, this brings it home.
        destination: The folder of the copy, made if it does not exist; or its place in object storage.
        check: Read what the copy has, too, and copy anew what is damaged there.
        progress: Told of the bytes copied so far.
        pauses_s: How long to wait before each further attempt to send an object.

    Raises:
        NotFoundError: There is no lake.
        UsageError: One folder is within the other.
        BusyError: Another backup to this folder is under way.
        StorageError: The copy's disk, or whoever keeps its objects, refused.
    """
    if not root.is_dir():
        raise NotFoundError(f"there is no lake at {root}: name another one with --lake")
    _check_apart(root, destination)
    copied: list[int] = []
    problems: list[str] = []
    ids = session_ids(root)

    def tell(size: int) -> None:
        copied.append(size)
        progress(sum(copied))

    with _copying(root, destination, pauses_s, check=check) as copy:
        for session_id in ids:
            try:
                copy(session_id, tell)
            except NotFoundError:
                continue  # pruned since we looked
            except DamageError as damage:
                problems.append(f"{session_id}: {damage}")
    return BackedUp(sessions=len(ids), files=len(copied), bytes=sum(copied), problems=problems)


def _check_apart(root: Location, destination: Location) -> None:
    here, there = (f"{one.resolve() if isinstance(one, Path) else one}/" for one in (root, destination))
    if here.startswith(there) or there.startswith(here):
        raise UsageError(f"{destination} and the lake {root} are within each other: choose another folder")


@contextmanager
def _copying(
    root: Location, destination: Path | RemotePath, pauses_s: Sequence[float], *, check: bool
) -> Iterator[Callable[[str, Told], object]]:
    """What copies a session, while nobody else copies there."""
    if isinstance(destination, RemotePath):
        lock = hold(root / _LOCK) if isinstance(root, Path) else nullcontext()  # object storage knows no locks
        with lock, ThreadPoolExecutor(_AT_ONCE) as senders:
            sizes = {str(path.relative_to(destination)): path.stat().st_size for path in destination.rglob("*")}
            bucket = _Bucket(destination, {**sizes}, senders, pauses_s)
            yield lambda session_id, tell: reread(lambda: _upload(root, bucket, session_id, tell, check=check))
    else:
        make_folder(destination / "sessions")
        make_folder(destination / "journal")
        with hold(destination / _LOCK):
            yield lambda session_id, tell: reread(lambda: _session(root, destination, session_id, tell, check=check))


def _session(root: Location, destination: Path, session_id: str, tell: Told, *, check: bool) -> None:
    """Copy a session into a folder, and tell of the sizes of the files that were not there."""
    with unsealed(journal_folder(root, session_id)):
        manifest = read_manifest(root, session_id)
        known = _checksums(_copied(destination, manifest), check=check)
        for file in manifest.files:
            target = destination / file.path
            if not (_has_size(target, file.bytes) and _is_that(file, target, known)):
                make_folder(target.parent)
                replace_file(target, _content(root, file))
                tell(file.bytes)
        if manifest.state == "open":
            make_folder(journal_folder(destination, session_id))  # there may be no segment yet
            ended = (journal_folder(root, session_id) / ENDED).exists()
            found = segments(journal_folder(root, session_id))
            for number, path in found.items():
                if number > manifest.sealed_segment:
                    target = journal_folder(destination, session_id) / path.name
                    tell(_copy_segment(path, target, grows=number == max(found)))
            if ended:
                (journal_folder(destination, session_id) / ENDED).touch(0o640)
        write_manifest(destination, manifest)
        _tidy(destination, manifest)


class _Bucket(NamedTuple):
    """Where an upload goes: the copy's place, its objects with their sizes, who sends, how patiently.

    An object that is on its way has no size yet: whether it arrives or not, it is known to be there.
    """

    place: RemotePath
    sizes: dict[str, int | None]
    senders: Executor
    pauses_s: Sequence[float]

    def each(self, act: Callable[[SealedFile], int], files: Sequence[SealedFile]) -> Iterator[int]:
        """What several at once give, in turn; where one fails, none of the others is still at it afterwards."""
        begun = [self.senders.submit(act, file) for file in files]
        try:
            for one in begun:
                yield one.result()
        finally:
            for one in begun:
                one.cancel()
            wait(begun)

    def persist(self, act: Callable[[], object]) -> object:
        """Try again what the network may have spoiled; not what was refused."""
        for pause_s in self.pauses_s:
            try:
                return act()
            except StorageError as error:
                if error.errno == errno.EACCES:
                    raise
            time.sleep(pause_s)
        return act()


def _upload(root: Location, bucket: _Bucket, session_id: str, tell: Told, *, check: bool) -> None:
    """Copy a session's sealed files into object storage, and tell of the sizes of those that were not there."""
    manifest = read_manifest(root, session_id)
    copy = _copied(bucket.place, manifest)
    known = _checksums(copy, check=check)

    def bring(file: SealedFile) -> int:
        target = bucket.place / file.path
        if bucket.sizes.get(file.path) == file.bytes and _is_that(file, target, known):
            return 0
        bucket.sizes[file.path] = None
        bucket.persist(lambda: _send(root, file, target))
        bucket.sizes[file.path] = file.bytes
        return file.bytes

    for size in filter(None, bucket.each(bring, manifest.files)):
        tell(size)
    if copy != manifest:
        bucket.persist(lambda: write_manifest(bucket.place, manifest))
    named = {file.path for file in manifest.files}
    for path in bucket.sizes:
        table, _, rest = path.partition("/")
        if table in TABLES and rest.startswith(f"session_id={session_id}/") and path not in named:
            with suppress(FileNotFoundError):  # it was on its way, and did not arrive
                (bucket.place / path).unlink()


def _send(root: Location, file: SealedFile, target: RemotePath) -> None:
    replace_file(target, _content(root, file))
    if sha256_of(target) != file.sha256:
        raise StorageError(None, f"{target} is not what was sent there: it does not count; check who keeps it")


def _copied(destination: Location, manifest: Manifest) -> Manifest | None:
    """The copy's manifest of a session, if there is one that can be read.

    Raises:
        DamageError: The copy is the better one, or not of this session.
    """
    try:
        copy = read_manifest(destination, manifest.session_id)
    except (NotFoundError, DamageError):
        return None
    if copy.created_ns != manifest.created_ns:
        raise DamageError("the copy has another session of this name: it is left alone; give each lake its own copy")
    if copy.next_seq > manifest.next_seq:
        raise DamageError(f"the copy has messages beyond the lake's last ({manifest.next_seq}): it is left alone")
    return copy


def _checksums(copy: Manifest | None, *, check: bool) -> Mapping[str, str]:
    """The checksums of files that the copy has, as its manifest has them; nothing is known where all are read again."""
    return {file.path: file.sha256 for file in copy.files} if copy and not check else {}


def _is_that(file: SealedFile, target: Location, known: Mapping[str, str]) -> bool:
    """Whether that file is there, which no manifest knows where an earlier copy did not come to its end."""
    return file.sha256 == (known.get(file.path) or sha256_of(target))


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _content(root: Location, file: SealedFile) -> Iterator[bytes]:
    """A sealed file piece by piece; at its end it turns out whether it is what the manifest says."""
    checksum = hashlib.sha256()
    try:
        with (root / file.path).open("rb") as source:
            while chunk := source.read(_CHUNK_BYTES):
                checksum.update(chunk)
                yield chunk
    except (StorageError, FileNotFoundError):
        raise
    except OSError as error:
        raise DamageError(f"{root / file.path} can't be read ({error.strerror}): its session is not copied") from error
    if checksum.hexdigest() != file.sha256:
        raise DamageError(
            f"{root / file.path} is not what its checksum says: its session is not copied, and the copy that there may "
            "be is kept (`mdcapture verify` lists all damage)"
        )


def _copy_segment(path: Location, target: Path, *, grows: bool) -> int:
    """Copy a segment of the journal; one that grows up to its last whole block: the rest is being written just now."""
    data = path.read_bytes()
    if grows:
        torn = (block.offset for block in read_blocks(data) if isinstance(block, Damage) and block.torn)
        data = data[: next(torn, len(data))]
    replace_file(target, [data])
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
