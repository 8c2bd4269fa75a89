"""The one way into the lake: journal segments to sealed Parquet files.

Recovery after a crash is this same code on what it finds. The segments that wait are sealed in one pass, and each step
leaves a state from which it can be done again:

    1. rows are written to temporary files, synced, read back, and renamed: they exist, but no manifest names them
    2. the manifest is replaced by one that names them, and the segments as sealed
    3. the segments are removed

A session whose writer died gets at its recovery an incident `crashed` of each stream, in the manner of steps 1 and 2:
a manifest that counts them has them.

A file that no manifest names is a leftover of step 1 (its segments are still there) or of a compaction (its rows are in
the merged file): `remove_leftovers` tells these from what it does not know, and leaves that alone.
"""

from __future__ import annotations

import shutil
import sys
from collections import defaultdict, deque
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from mdcapture.errors import BusyError, DamageError, LakeError
from mdcapture.lake.columns import Decoder
from mdcapture.lake.files import TEMPORARY, make_folder, storage_errors, sync_folder
from mdcapture.lake.journal import ENDED, MISSING, IncidentBlock, MessageBlock, read_blocks, segments
from mdcapture.lake.layout import is_part, is_session_id, journal_folder, manifest_path, session_order
from mdcapture.lake.locks import OWNER_LOCK, SEAL_LOCK, hold
from mdcapture.lake.manifest import Manifest, SealedFile, read_manifest, write_manifest
from mdcapture.lake.parquet import read_in_order, write_part
from mdcapture.lake.parts import Parts
from mdcapture.lake.schema import STREAMS, TABLES, Incident, IncidentKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from mdcapture.lake.journal import Block, Damage
    from mdcapture.lake.manifest import Contract, State

__all__ = ["compact", "finish", "recover", "remove_leftovers", "seal"]

_MERGE_FACTOR = 2
_PIECE_MESSAGES = 8_192
_BETWEEN = ("incidents", "backfill")
"""Rows of these tables stand before a message, which need not be there yet."""

_BEHIND = ("signals",)
"""Rows of these tables come after their message, which an earlier segment may have had."""


def seal(root: Path, session_id: str, through: int) -> Manifest:
    """Seal the closed segments of a session, in order.

    Args:
        root: The lake.
        session_id: The session; the caller, or the recorder that it works for, holds its lock.
        through: The last segment that is closed.

    Returns:
        The manifest as it stands then.

    Raises:
        StorageError: The disk refused; what is not sealed stays in the journal.
        DamageError: A sealed file is missing or damaged; all else is done.
    """
    with hold(journal_folder(root, session_id) / SEAL_LOCK, wait=True):
        manifest = read_manifest(root, session_id)
        _seal_segments(root, manifest, through)
        damage = _merge(root, manifest, factor=_MERGE_FACTOR)
    if damage is not None:
        raise damage
    return manifest


def finish(root: Path, session_id: str, state: State) -> Manifest:
    """Seal all that is left of a session, compact it, and close it: its journal is gone then.

    Raises:
        StorageError: The disk refused; the session stays open, to be recovered.
        DamageError: A sealed file is missing or damaged; the session is closed, and its other files are compacted.
    """
    folder = journal_folder(root, session_id)
    with hold(folder / SEAL_LOCK, wait=True):
        manifest = read_manifest(root, session_id)
        _seal_segments(root, manifest, sys.maxsize)
        if state == "recovered" and manifest.state == "open" and not (folder / ENDED).exists():
            _tell_of_crash(root, manifest)
        damage = _merge(root, manifest)
        if manifest.state == "open":
            manifest.state = state
            write_manifest(root, manifest)
        # Whoever waits for the lock may put its file there once more: the next recovery removes it.
        shutil.rmtree(folder, ignore_errors=True)
    if damage is not None:
        raise damage
    return manifest


def recover(root: Path) -> list[Manifest]:
    """Finish every session that a dead process left.

    Returns:
        The manifests of the sessions that were recovered; those of living recorders are not touched.

    Raises:
        LakeError: Why the first of those that can't be recovered can't be; all others are.
    """
    recovered: list[Manifest] = []
    failures: list[LakeError] = []
    for folder in sorted((root / "journal").glob("session_*"), key=lambda folder: session_order(folder.name)):
        if not is_session_id(folder.name):
            continue
        try:
            with hold(folder / OWNER_LOCK):
                recovered += _recover(root, folder)
        except BusyError:
            continue
        except LakeError as failure:
            if isinstance(failure, DamageError) or folder.exists():  # or else another process was faster
                failures.append(failure)
    if failures:
        raise failures[0]
    return recovered


def _recover(root: Path, folder: Path) -> list[Manifest]:
    manifest = manifest_path(root, folder.name)
    if manifest.exists():
        return [finish(root, folder.name, "recovered")]
    if segments(folder):
        raise DamageError(f"{folder} has messages, but {manifest} is missing: restore it from a backup")
    # The session's process died before the manifest was there, and so before the first message.
    _unfinished_manifest(root, folder.name).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return []


def compact(root: Path, session_id: str) -> Manifest:
    """Merge the parts of each table and contract of a session that has ended into one.

    It is the session's end once more: where a crash interrupts it, the next recovery does the rest.

    Raises:
        NotFoundError: There is no such session.
        BusyError: It is still recorded.
        DamageError: A sealed file is missing or damaged; the others are merged.
    """
    read_manifest(root, session_id)
    folder = journal_folder(root, session_id)
    make_folder(folder)
    with hold(folder / OWNER_LOCK):
        return finish(root, session_id, "recovered")


def remove_leftovers(root: Path, manifest: Manifest) -> None:
    """Remove what an interrupted sealing or compaction left: files whose rows are all elsewhere, too.

    Where a file that the manifest names is missing, only what has no name yet is removed: the manifest may be an old
    one that was put back, and then files that it does not know hold the only copy.
    """
    _unfinished_manifest(root, manifest.session_id).unlink(missing_ok=True)
    named = {root / file.path for file in manifest.files}
    complete = all(path.is_file() for path in named)
    for table in TABLES:
        for path in (root / table / f"session_id={manifest.session_id}").glob("*/part-*"):
            unfinished = is_part(path.name.removesuffix(TEMPORARY)) and path.suffix == TEMPORARY
            unnamed = complete and is_part(path.name) and path not in named
            if unfinished or (unnamed and _is_elsewhere(root, manifest, table, path)):
                path.unlink()


def _unfinished_manifest(root: Path, session_id: str) -> Path:
    path = manifest_path(root, session_id)
    return path.with_name(path.name + TEMPORARY)


def _is_elsewhere(root: Path, manifest: Manifest, table: str, path: Path) -> bool:
    """Whether a file's rows are all in files that the manifest names, or in the segments that are sealed next."""
    seqs = _seqs(path)
    if seqs is None:
        return False
    waits = manifest.sealed_segment + 1 in segments(journal_folder(root, manifest.session_id))
    if seqs.stop <= manifest.next_seq + (table in _BETWEEN):
        return True
    return waits and (seqs.start >= manifest.next_seq or table in _BEHIND)


def _seqs(path: Path) -> range | None:
    """The messages that a file that no manifest names is about; None where it is no file of ours."""
    try:
        metadata = pq.read_metadata(path)
        column = metadata.schema.names.index("seq")
        bounds = [metadata.row_group(index).column(column).statistics for index in range(metadata.num_row_groups)]
        return range(min(bound.min for bound in bounds), max(bound.max for bound in bounds) + 1)
    except (pa.ArrowException, OSError, ValueError, AttributeError):
        return None


def _seal_segments(root: Path, manifest: Manifest, through: int) -> None:
    folder = journal_folder(root, manifest.session_id)
    with storage_errors(folder):
        remove_leftovers(root, manifest)
        found = segments(folder)
        for number in [number for number in found if number <= manifest.sealed_segment]:
            found.pop(number).unlink()
        waiting = deque((number, path) for number, path in found.items() if number <= through)
        is_end = through == sys.maxsize
        while waiting or (manifest.damage and is_end):
            for path in _seal_some(root, manifest, waiting, is_end=is_end):
                path.unlink()
        sync_folder(folder)


def _seal_some(root: Path, manifest: Manifest, waiting: deque[tuple[int, Path]], *, is_end: bool) -> list[Path]:
    """Seal segments in one pass, as many as its parts take; these are taken from those that wait, and returned.

    After those that wait may come others, unless they are the journal's end.
    """
    decoder = Decoder.after(manifest)
    sealed: list[Path] = []
    with Parts(root, manifest) as parts:
        while waiting and not parts.are_full:
            number, path = waiting.popleft()
            missing = [MISSING] if number > manifest.sealed_segment + 1 else []
            for blocks in _pieces(chain(missing, read_blocks(path.read_bytes()))):
                decoder.take(blocks)
                parts.add(decoder.drain())
            manifest.sealed_segment = number
            sealed.append(path)
        if is_end and not waiting:
            decoder.end()
            parts.add(decoder.drain())
        _conclude(manifest, decoder, parts)
    write_manifest(root, manifest)
    return sealed


def _pieces(blocks: Iterable[Block | Damage]) -> Iterator[list[Block | Damage]]:
    """Blocks in pieces that are decoded at once."""
    piece: list[Block | Damage] = []
    messages = 0
    for block in blocks:
        piece.append(block)
        messages += len(block.records) if isinstance(block, MessageBlock) else 0
        if messages >= _PIECE_MESSAGES:
            yield piece
            piece, messages = [], 0
    if piece:
        yield piece


def _tell_of_crash(root: Path, manifest: Manifest) -> None:
    """Say since when each stream can be missing messages: since its last one, whatever had broken it before the end."""
    if IncidentKind.CRASHED in manifest.incidents:  # by a recovery that died, too
        return
    last_ns = {(stream, one.contract_id): manifest.created_ns for stream, one in _wanted(manifest)}
    for file in sorted(manifest.files, key=lambda file: file.last_seq):
        if file.table in STREAMS and file.contract_id is not None:
            last_ns[file.table, file.contract_id] = file.last_recv_ns
    noticed_ns = max((file.last_recv_ns for file in manifest.files), default=manifest.created_ns)
    detail = "whoever wrote this session died: what came after this message was not kept"
    decoder = Decoder.after(manifest)
    decoder.take(
        IncidentBlock(manifest.next_seq, noticed_ns, Incident(IncidentKind.CRASHED, *which, from_ns, None, detail))
        for which, from_ns in last_ns.items()
    )
    with Parts(root, manifest) as parts:
        parts.add(decoder.drain())
        _conclude(manifest, decoder, parts)
    write_manifest(root, manifest)


def _wanted(manifest: Manifest) -> list[tuple[str, Contract]]:
    """The streams that the session was to have."""
    return [(stream, one) for one in manifest.contracts for stream in STREAMS if manifest.config.get(stream)]


def _conclude(manifest: Manifest, decoder: Decoder, parts: Parts) -> None:
    """Publish what was decoded, and let the manifest name and count it."""
    manifest.files += parts.publish()
    manifest.next_seq = decoder.next_seq
    manifest.quote_state = decoder.quote_state
    manifest.damage = decoder.damage
    for total, more in (
        (manifest.counts, decoder.counts),
        (manifest.implausible, decoder.implausible),
        (manifest.incidents, decoder.incidents),
    ):
        for name, count in more.items():
            total[name] = total.get(name, 0) + count
    messages = manifest.files_of("messages")
    if messages:
        manifest.start_ns = min(file.first_recv_ns for file in messages)
        manifest.end_ns = max(file.last_recv_ns for file in messages)


def _merge(root: Path, manifest: Manifest, factor: int | None = None) -> DamageError | None:
    """Merge the parts of each table and contract: all, or with a factor the newest that weigh as much as one older.

    With a factor each row is written again a logarithmic number of times, and there is a logarithmic number of files.

    Returns:
        The first damage that was met: parts with some stay as they are.
    """
    groups: dict[tuple[str, str | None], list[SealedFile]] = defaultdict(list)
    for file in manifest.files:
        groups[file.table, file.contract_id].append(file)
    damage = None
    for files in groups.values():
        chosen = files if factor is None else _newest_run(files, factor)
        if len(chosen) > 1:
            try:
                _merge_parts(root, manifest, chosen)
            except DamageError as error:
                damage = damage or error
    return damage


def _merge_parts(root: Path, manifest: Manifest, files: Sequence[SealedFile]) -> None:
    merged = write_part(root, manifest, files[0].table, files[0].contract_id, read_in_order(root, files))
    at = manifest.files.index(files[0])
    manifest.files = [file for file in manifest.files if file not in files]
    manifest.files.insert(at, merged)
    write_manifest(root, manifest)
    for file in files:
        (root / file.path).unlink()


def _newest_run(files: Sequence[SealedFile], factor: int) -> Sequence[SealedFile]:
    first = len(files) - 1
    weight = files[-1].rows
    while first > 0 and files[first - 1].rows <= factor * weight:
        first -= 1
        weight += files[first].rows
    return files[first:]
