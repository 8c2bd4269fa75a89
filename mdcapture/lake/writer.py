"""A session that is being written: its id, its lock, its first manifest and its journal."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mdcapture.errors import BusyError, StorageError
from mdcapture.lake.files import TEMPORARY, make_folder, storage_errors, sync_folder
from mdcapture.lake.journal import Journal
from mdcapture.lake.layout import journal_folder, manifest_path, session_id_at
from mdcapture.lake.locks import OWNER_LOCK, hold
from mdcapture.lake.manifest import Contract, Manifest, tick_sizes, write_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["OpenSession", "open_session"]

_ATTEMPTS = 1000


class OpenSession:
    """What the writer of a session needs: where it is, what it said of it, and where messages go."""

    def __init__(self, root: Path, manifest: Manifest, journal: Journal) -> None:
        self.root = root
        self.manifest = manifest
        self.journal = journal
        self.tick_sizes = tick_sizes(manifest.contracts)

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.manifest.session_id


@contextmanager
def open_session(
    root: Path,
    start_ns: int,
    *,
    source: str = "gateway",
    config: Mapping[str, Any] | None = None,
    contracts: Sequence[Contract] = (),
) -> Iterator[OpenSession]:
    """Begin a session and hold it to the block's end, where its journal is closed.

    To end the session for good, close the journal and `finish` it inside of the block, while it is still held. A block
    that an error ends before the journal has taken anything leaves no session.

    Args:
        root: The lake, made if it does not exist.
        start_ns: When it begins; gives the id, with a suffix where another began in the same second.
        source: Where its messages come from: `gateway`, or the name of a tape.
        config: The settings that it is captured with, without secrets.
        contracts: What is known of its contracts.

    Raises:
        StorageError: The lake can't be written.
    """
    make_folder(root / "journal")
    make_folder(root / "sessions")
    with ExitStack() as held:
        session_id = _claim(root, start_ns, held)
        manifest = Manifest(
            session_id=session_id,
            software=f"mdcapture {version('mdcapture')}",
            source=source,
            created_ns=start_ns,
            config=dict(config or {}),
            contracts=list(contracts),
        )
        journal = None
        try:
            write_manifest(root, manifest)
            journal = Journal(journal_folder(root, session_id))
            try:
                yield OpenSession(root, manifest, journal)
            finally:
                journal.close()
        except BaseException:
            if journal is None or journal.is_empty:
                _abandon(root, session_id)
            raise


def _claim(root: Path, start_ns: int, held: ExitStack) -> str:
    """Make and lock the journal folder of an id that nobody has: making a folder succeeds for one process only."""
    for attempt in range(1, _ATTEMPTS):
        session_id = session_id_at(start_ns, attempt)
        manifest, folder = manifest_path(root, session_id), journal_folder(root, session_id)
        if manifest.exists() or not _is_new(folder):
            continue
        try:
            held.enter_context(hold(folder / OWNER_LOCK))
        except BusyError:
            continue  # a recovery takes the folder for one that a dead process left
        except StorageError:
            if folder.exists():
                raise
            continue  # and has removed it
        if not manifest.exists():  # it does where the session of another process began and ended since we looked
            return session_id
    raise StorageError(
        None, f"{_ATTEMPTS} sessions of {root} began in one second: is something starting them in a loop?"
    )


def _abandon(root: Path, session_id: str) -> None:
    """Leave nothing of a session that could not begin; what can't be removed is left to a recovery."""
    manifest = manifest_path(root, session_id)
    with suppress(OSError):
        for path in (manifest, manifest.with_name(manifest.name + TEMPORARY)):
            path.unlink(missing_ok=True)
        shutil.rmtree(journal_folder(root, session_id))


def _is_new(folder: Path) -> bool:
    """Make a folder; whether it was not there before."""
    try:
        with storage_errors(folder):
            folder.mkdir(mode=0o750)
            sync_folder(folder.parent)
    except StorageError as error:
        if isinstance(error.__cause__, FileExistsError):
            return False
        raise
    return True
