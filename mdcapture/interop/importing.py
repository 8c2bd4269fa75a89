"""A tape into a session: journaled and sealed like a capture, only with the times that the tape holds."""

from __future__ import annotations

import logging
import re
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from mdcapture.errors import BusyError, LakeError, UsageError
from mdcapture.gateway.instruments import parse_id
from mdcapture.gateway.tape import STDIN, read_data
from mdcapture.lake.files import make_folder, sha256_of
from mdcapture.lake.locks import hold
from mdcapture.lake.manifest import read_manifests
from mdcapture.lake.schema import IncidentKind
from mdcapture.lake.seal import finish, recover, seal
from mdcapture.lake.writer import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mdcapture.lake.manifest import Contract, Manifest
    from mdcapture.lake.writer import OpenSession

__all__ = ["import_records", "import_tape", "only_import"]

_log = logging.getLogger(__name__)

_BLOCK_BYTES: Final = 256 * 1024
_SEGMENT_BYTES: Final = 32 * 1024 * 1024
_SEALED_BYTES: Final = 1024 * 1024 * 1024
_LOOKED_AT: Final = 1000
_CONTRACT: Final = re.compile(rb'"arguments":\["(CON\.[^"\\]+)"')
_CONNECTION: Final = 1
_NAME_CHARACTERS: Final = 16


def import_tape(
    source: str | Path, root: str | Path, *, again: bool = False, progress: Callable[[int], object] = lambda _: None
) -> Manifest:
    """Import a tape as a session of its own.

    The file's checksum is kept in the manifest: what is in the lake already would count twice in every sum over it.

    Args:
        source: The tape's path, or `-` for the standard input.
        root: The lake.
        again: Import a file that the lake has already, too.
        progress: Told of the messages so far, now and then.

    Returns:
        The manifest of the sealed session.

    Raises:
        NotFoundError: There is no such tape.
        UsageError: The lake has it already; or there is nothing on the tape, or a line is none, and what came before it
            stays in the journal, and is recovered.
        BusyError: It is being imported already.
        StorageError: The lake can't be written.
    """
    source, root = str(source), Path(root)
    name = "standard input" if source == STDIN else source.rpartition("/")[2]
    config = _fingerprint(source)
    with ExitStack() as held:
        if config and not again:
            held.enter_context(only_import(root, config["fingerprint"], source))
        try:
            recover(root)
        except LakeError as error:
            _log.warning("a session of an earlier run can't be recovered: %s", error)
        if config and not again:
            _refuse_known(root, source, config)
        manifest = import_records(read_data(source), root, source=f"tape {name}", config=config, progress=progress)
    if manifest is None:
        raise UsageError(f"there is no message on the tape {source}: nothing was imported")
    return manifest


def _fingerprint(source: str) -> dict[str, str]:
    """What tells a tape from others, for the manifest; nothing for what can be read but once."""
    path = Path(source)
    return {"fingerprint": sha256_of(path)} if source != STDIN and path.is_file() else {}


def _refuse_known(root: Path, source: str, config: Mapping[str, str]) -> None:
    for manifest in read_manifests(root):
        session_id = manifest.session_id
        if manifest.config.get("fingerprint") != config["fingerprint"]:
            continue
        if IncidentKind.CRASHED not in manifest.incidents:
            raise UsageError(
                f"{source} is in the lake already, as {session_id}: nothing was imported (--again does it all the same)"
            )
        _log.warning("%s holds a part of %s, whose import was cut short: prune that session", session_id, source)


@contextmanager
def only_import(root: Path, fingerprint: str, source: str) -> Iterator[None]:
    """Be the only one to import something: two at once would each find that the lake has it not yet.

    Args:
        root: The lake.
        fingerprint: What tells it from others.
        source: What people call it.

    Raises:
        BusyError: Another process is at it.
        StorageError: The lake can't be written.
    """
    make_folder(root)
    path = root / f"import-{fingerprint[:_NAME_CHARACTERS]}.lock"
    with ExitStack() as held:
        try:
            held.enter_context(hold(path))
        except BusyError:
            raise BusyError(f"{source} is being imported by another process: wait for its end, or stop it") from None
        held.callback(path.unlink, missing_ok=True)
        yield


def import_records(
    records: Iterator[tuple[int, bytes]],
    root: Path,
    *,
    source: str,
    config: Mapping[str, object] | None = None,
    progress: Callable[[int], object] = lambda _: None,
    sealed_bytes: int = _SEALED_BYTES,
) -> Manifest | None:
    """Import hub records as a session of its own, through the journal.

    Args:
        records: Their receive times (ns UTC) and texts.
        root: The lake.
        source: Where they come from, for the manifest.
        config: What else the manifest says of how they came here.
        progress: Told of the messages so far, now and then.
        sealed_bytes: So much of the journal is sealed in one go. Less is written, and merged, more often; more takes
            more of the disk.

    Returns:
        The manifest of the sealed session; None where there was no record, and no session was made.

    Raises:
        StorageError: The lake can't be written.
    """
    head = list(islice(records, _LOOKED_AT))
    if not head:
        return None
    with open_session(root, head[0][0], source=source, config=config, contracts=_contracts(head)) as session:
        journal = session.journal
        times_ns: list[int] = []
        texts: list[bytes] = []
        size = 0
        try:
            for recv_ns, record in chain(head, records):
                times_ns.append(recv_ns)
                texts.append(record)
                size += len(record)
                if size >= _BLOCK_BYTES:
                    journal.extend(times_ns, _CONNECTION, texts)
                    times_ns, texts, size = [], [], 0
                    _write(session, sealed_bytes)
                    progress(journal.next_seq)
        except Exception:  # what came before a damage of the tape is kept
            journal.extend(times_ns, _CONNECTION, texts)
            raise
        journal.extend(times_ns, _CONNECTION, texts)
        journal.end()
        progress(journal.next_seq)
        return finish(root, session.session_id, "sealed")


def _write(session: OpenSession, sealed_bytes: int) -> None:
    """Write what the journal has taken; where so much waits for it, seal it."""
    journal = session.journal
    journal.flush()
    if journal.segment_bytes >= _SEGMENT_BYTES:
        journal.retire(journal.roll())
        sealed = journal.segment - 1
        if sealed % max(1, sealed_bytes // _SEGMENT_BYTES) == 0:
            seal(session.root, session.session_id, sealed)


def _contracts(head: list[tuple[int, bytes]]) -> list[Contract]:
    """What is known of the contracts that the tape begins with: tick sizes of futures do not change."""
    ids = dict.fromkeys(
        match[1].decode("ascii", "replace") for _, record in head if (match := _CONTRACT.search(record))
    )
    known = [listing.contract for contract_id in ids if (listing := parse_id(contract_id)) is not None]
    return [msgspec.structs.replace(contract, source="known") for contract in known]
