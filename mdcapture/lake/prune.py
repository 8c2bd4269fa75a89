"""Removing sessions for good, so that a crash on the way leaves either a session or nothing.

    1. the manifest gets another name: from here on there is no such session
    2. its files go, then its folders
    3. the manifest goes

Whoever prunes the same lake next finishes what was left after step 1.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from mdcapture.errors import BusyError, NotFoundError, UsageError
from mdcapture.lake.files import make_folder, sha256_of, storage_errors, sync_folder
from mdcapture.lake.layout import is_session_id, journal_folder, manifest_path
from mdcapture.lake.locks import OWNER_LOCK, hold
from mdcapture.lake.manifest import read_manifest, read_manifests, session_ids
from mdcapture.lake.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from mdcapture.lake.manifest import Manifest
    from mdcapture.lake.remote import Location

__all__ = ["is_backed_up", "prunable", "prune"]

_PRUNED: Final = ".pruned"


def prunable(
    root: Path,
    *,
    ids: Collection[str] | None = None,
    before_ns: int | None = None,
    keep: int | None = None,
    backup: Location | None = None,
) -> list[Manifest]:
    """The sessions that have ended and meet every condition that is given, the oldest first.

    Args:
        root: The lake.
        ids: It is one of these.
        before_ns: Its last message came before this time.
        keep: It is not one of the newest so many, whatever their state.
        backup: All of its files are in this copy of the lake, too.

    Raises:
        BusyError: One of the ids that were named is still recorded, or waits for recovery.
    """
    found = []
    everyone = session_ids(root)
    old = everyone if keep is None else everyone[: max(0, len(everyone) - keep)]
    for manifest in read_manifests(root, old if ids is None else [one for one in old if one in ids]):
        if manifest.state == "open":
            if ids is not None:
                raise BusyError(
                    f"{manifest.session_id} has not ended: it is still recorded, or waits for `mdcapture recover`"
                )
            continue
        end_ns = manifest.end_ns or manifest.created_ns
        if (before_ns is None or end_ns < before_ns) and (backup is None or is_backed_up(manifest, backup)):
            found.append(manifest)
    return found


def is_backed_up(manifest: Manifest, backup: Location) -> bool:
    """Whether a copy of the lake has every file of a session, with the same content."""
    try:
        copy = read_manifest(backup, manifest.session_id)
    except NotFoundError:
        return False
    return copy.state != "open" and all(
        (backup / file.path).is_file() and sha256_of(backup / file.path) == file.sha256 for file in manifest.files
    )


def prune(root: Path, session_id: str) -> None:
    """Remove a session that has ended.

    Raises:
        NotFoundError: There is no such session.
        UsageError: It has not ended.
        BusyError: Somebody is at work on it.
        StorageError: The disk refused; the next call does the rest.
    """
    for left in (root / "sessions").glob(f"*{_PRUNED}"):
        if is_session_id(one := left.name.removesuffix(f".json{_PRUNED}")):
            _remove(root, one)
    manifest = read_manifest(root, session_id)
    folder = journal_folder(root, session_id)
    make_folder(folder)
    with hold(folder / OWNER_LOCK):
        if manifest.state == "open":
            raise UsageError(f"{session_id} has not ended: `mdcapture recover` first")
        path = manifest_path(root, session_id)
        with storage_errors(path):
            path.rename(path.with_name(path.name + _PRUNED))
            sync_folder(path.parent)
        _remove(root, session_id)


def _remove(root: Path, session_id: str) -> None:
    with storage_errors(root):
        for table in TABLES:
            folder = root / table / f"session_id={session_id}"
            if folder.is_dir():
                shutil.rmtree(folder)
                sync_folder(folder.parent)
        shutil.rmtree(journal_folder(root, session_id), ignore_errors=True)
        path = manifest_path(root, session_id)
        path.with_name(path.name + _PRUNED).unlink(missing_ok=True)
        sync_folder(path.parent)
