"""Signals that were computed afterwards, into the table that holds those of a recorder.

It is a compaction in which new rows take part: the rows of the names that are stored give way to them, what is left of
the old files and the new rows become new files, the manifest names these, and the old ones are removed. A crash on the
way leaves the old rows or the new ones, and files that the next recovery removes.
"""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from mdcapture.errors import UsageError
from mdcapture.lake.columns import CONTRACT, arrow_schema
from mdcapture.lake.files import make_folder
from mdcapture.lake.layout import contract_folder, journal_folder, partition_of
from mdcapture.lake.locks import OWNER_LOCK, SEAL_LOCK, hold
from mdcapture.lake.manifest import read_manifest, write_manifest
from mdcapture.lake.parquet import read_parts, write_part
from mdcapture.lake.schema import ORDER
from mdcapture.lake.seal import finish, seal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mdcapture.lake.manifest import Manifest, SealedFile
    from mdcapture.lake.remote import Location

__all__ = ["store_signals"]

_TABLE: Final = "signals"


def store_signals(root: Location, session_id: str, rows: pa.Table, names: Collection[str]) -> None:
    """Store rows of signals, in place of all that the session has of these names; doing it again changes nothing.

    Args:
        root: The lake, a folder.
        session_id: The session, which has ended.
        rows: The columns of the table and `contract_id`, in any order.
        names: The signals that they are all the rows of; one that said nothing has none.

    Raises:
        NotFoundError: There is no such session.
        BusyError: It is still recorded.
        UsageError: A row is of another name, or of a message that the session does not have; or the lake is in object
            storage, where it is only read.
        StorageError: The disk refused: the rows of before stand.
        DamageError: A sealed file is missing or damaged: the rows of before stand.
    """
    if not isinstance(root, Path):
        raise UsageError(f"{root} is only read: store signals in the lake that was captured, and publish it again")
    read_manifest(root, session_id)
    folder = journal_folder(root, session_id)
    make_folder(folder)
    with hold(folder / OWNER_LOCK):
        seal(root, session_id, sys.maxsize)  # what a crash has left in the journal may be of these names, too
        with hold(folder / SEAL_LOCK, wait=True):
            manifest = read_manifest(root, session_id)
            _check(rows, names, manifest)
            _replace(root, manifest, rows, names)
        finish(root, session_id, "recovered")


def _check(rows: pa.Table, names: Collection[str], manifest: Manifest) -> None:
    others = set(pc.unique(rows["name"]).to_pylist()) - set(names)
    if others:
        raise UsageError(f"rows of {sorted(others)}, which are not among the names that are stored: nothing was stored")
    last = pc.max(rows["seq"]).as_py()
    if last is not None and not 0 <= pc.min(rows["seq"]).as_py() <= last < manifest.next_seq:
        raise UsageError(
            f"rows of message {last}, and {manifest.session_id} has {manifest.next_seq}: they are of another session, "
            "and nothing was stored"
        )


def _replace(root: Path, manifest: Manifest, rows: pa.Table, names: Collection[str]) -> None:
    before = manifest.files_of(_TABLE)
    rows = rows.set_column(rows.column_names.index(CONTRACT), CONTRACT, _partitions(rows[CONTRACT]))
    contracts = dict.fromkeys([*(file.contract_id for file in before), *pc.unique(rows[CONTRACT]).to_pylist()])
    after: list[SealedFile] = []
    for contract_id in contracts:
        kept = _others(root, [file for file in before if file.contract_id == contract_id], names)
        own = pc.is_null(rows[CONTRACT]) if contract_id is None else pc.equal(rows[CONTRACT], contract_id)
        new = rows.filter(own).select(arrow_schema(_TABLE).names).cast(arrow_schema(_TABLE))
        merged = pa.concat_tables(chain(kept, [new]))
        if len(merged):
            in_order = merged.sort_by([(name, "ascending") for name in ORDER if name in merged.column_names])
            after.append(write_part(root, manifest, _TABLE, contract_id, [in_order]))
    manifest.files = [file for file in manifest.files if file not in before] + after
    manifest.counts[_TABLE] = sum(file.rows for file in after)
    write_manifest(root, manifest)
    for file in before:
        (root / file.path).unlink()


def _partitions(contract_ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Contracts as partitions have them: null where one can't be a folder's name."""
    given = pc.unique(contract_ids)
    usable = pa.array([partition_of(contract_folder(one)) for one in given.to_pylist()], pa.string())
    return pc.take(usable, pc.index_in(contract_ids, given))


def _others(root: Path, files: list[SealedFile], names: Collection[str]) -> Iterator[pa.Table]:
    """The rows of all names but these."""
    gone = pa.array(list(names), pa.string())
    for piece in read_parts(root, files):
        yield piece.filter(pc.invert(pc.is_in(piece["name"], gone))).replace_schema_metadata()
