"""A tape into a session: journaled and sealed like a capture, only with the times that the tape holds."""

from __future__ import annotations

import logging
import re
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

import msgspec

from mdcapture.errors import LakeError, UsageError
from mdcapture.gateway.instruments import parse_id
from mdcapture.gateway.tape import STDIN, read_data
from mdcapture.lake.seal import finish, recover, seal
from mdcapture.lake.writer import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from mdcapture.lake.manifest import Contract, Manifest

__all__ = ["import_records", "import_tape"]

_log = logging.getLogger(__name__)

_BLOCK_BYTES: Final = 256 * 1024
_SEGMENT_BYTES: Final = 32 * 1024 * 1024
_CONTRACT: Final = re.compile(rb'"arguments":\["(CON\.[^"\\]+)"')
_LOOKED_AT: Final = 1000
_CONNECTION: Final = 1


def import_tape(source: str, root: Path, *, progress: Callable[[int], object] = lambda _: None) -> Manifest:
    """Import a tape as a session of its own.

    Args:
        source: The tape's path, or `-` for the standard input.
        root: The lake.
        progress: Told of the messages so far, now and then.

    Returns:
        The manifest of the sealed session.

    Raises:
        UsageError: There is nothing on the tape, or a line is none; what came before it stays in the journal, and is
            recovered.
        StorageError: The lake can't be written.
    """
    try:
        recover(root)
    except LakeError as error:
        _log.warning("a session of an earlier run can't be recovered: %s", error)
    name = "standard input" if source == STDIN else source.rpartition("/")[2]
    manifest = import_records(read_data(source), root, source=f"tape {name}", progress=progress)
    if manifest is None:
        raise UsageError(f"there is no message on the tape {source}: nothing was imported")
    return manifest


def import_records(
    records: Iterator[tuple[int, bytes]],
    root: Path,
    *,
    source: str,
    config: Mapping[str, object] | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Manifest | None:
    """Import hub records as a session of its own, through the journal.

    Args:
        records: Their receive times (ns UTC) and texts.
        root: The lake.
        source: Where they come from, for the manifest.
        config: What else the manifest says of how they came here.
        progress: Told of the messages so far, now and then.

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
        for recv_ns, record in chain(head, records):
            journal.append(recv_ns, _CONNECTION, [record])
            if journal.pending_bytes >= _BLOCK_BYTES:
                journal.flush()
                progress(journal.next_seq)
                if journal.segment_bytes >= _SEGMENT_BYTES:
                    journal.retire(journal.roll())
                    seal(root, session.session_id, journal.segment - 1)
        journal.close()
        progress(journal.next_seq)
        return finish(root, session.session_id, "sealed")


def _contracts(head: list[tuple[int, bytes]]) -> list[Contract]:
    """What is known of the contracts that the tape begins with: tick sizes of futures do not change."""
    ids = dict.fromkeys(
        match[1].decode("ascii", "replace") for _, record in head if (match := _CONTRACT.search(record))
    )
    known = [listing.contract for contract_id in ids if (listing := parse_id(contract_id)) is not None]
    return [msgspec.structs.replace(contract, source="known") for contract in known]
