"""The one way into the lake: journal segments to sealed Parquet files.

Recovery after a crash is this same code on what it finds. Each step leaves a state from which it can be done again:

    1. rows are written to temporary files, synced, read back, and renamed: they exist, but no manifest names them
    2. the manifest is replaced by one that names them, and the segment as sealed
    3. the segment is removed

A file that no manifest names is a leftover of step 1 (its segment is still there) or of a compaction (its rows are in
the merged file): `remove_leftovers` tells these from what it does not know, and leaves that alone.
"""

from __future__ import annotations

import shutil
import sys
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mdcapture.errors import BusyError, NotFoundError
from mdcapture.lake.columns import CONTRACT, Decoder
from mdcapture.lake.files import TEMPORARY, sync_folder
from mdcapture.lake.journal import read_blocks, segments
from mdcapture.lake.layout import journal_folder
from mdcapture.lake.locks import OWNER_LOCK, SEAL_LOCK, hold
from mdcapture.lake.manifest import Manifest, SealedFile, read_manifest, write_manifest
from mdcapture.lake.parquet import read_parts, write_part
from mdcapture.lake.schema import ORDER, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mdcapture.lake.manifest import State

__all__ = ["compact", "finish", "recover", "remove_leftovers", "seal"]

_MERGE_FACTOR = 2


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
    """
    folder = journal_folder(root, session_id)
    with hold(folder / SEAL_LOCK, wait=True):
        manifest = read_manifest(root, session_id)
        remove_leftovers(root, manifest)
        for number, path in segments(folder).items():
            if manifest.sealed_segment < number <= through:
                _seal_segment(root, manifest, number, path)
            if number <= manifest.sealed_segment:
                path.unlink()
        sync_folder(folder)
        _merge(root, manifest, factor=_MERGE_FACTOR)
        return manifest


def finish(root: Path, session_id: str, state: State) -> Manifest:
    """Seal all that is left of a session, compact it, and close it: its journal is gone then."""
    folder = journal_folder(root, session_id)
    manifest = seal(root, session_id, sys.maxsize)
    with hold(folder / SEAL_LOCK, wait=True):
        _merge(root, manifest)
        if manifest.state == "open":
            manifest.state = state
            write_manifest(root, manifest)
    shutil.rmtree(folder)
    sync_folder(folder.parent)
    return manifest


def recover(root: Path) -> list[Manifest]:
    """Finish every session that a dead process left.

    Returns:
        The manifests of the sessions that were recovered; those of living recorders are not touched.
    """
    recovered = []
    for folder in sorted((root / "journal").glob("session_*")):
        try:
            with hold(folder / OWNER_LOCK):
                recovered.append(finish(root, folder.name, "recovered"))
        except BusyError:
            continue
        except NotFoundError:
            if segments(folder):
                raise
            shutil.rmtree(folder)  # it died before its manifest was there, and so before its first message
    return recovered


def compact(root: Path, session_id: str) -> Manifest:
    """Merge the parts of each table and contract of a finished session into one."""
    manifest = read_manifest(root, session_id)
    remove_leftovers(root, manifest)
    _merge(root, manifest)
    return manifest


def remove_leftovers(root: Path, manifest: Manifest) -> None:
    """Remove what an interrupted sealing or compaction left: files that hold nothing that is not elsewhere, too."""
    named = {file.path for file in manifest.files}
    journal = any(n > manifest.sealed_segment for n in segments(journal_folder(root, manifest.session_id)))
    for table in TABLES:
        for path in (root / table / f"session_id={manifest.session_id}").glob("*/part-*"):
            if path.suffix == TEMPORARY or (
                path.relative_to(root).as_posix() not in named
                and (journal or _last_seq(path) <= manifest.next_seq - (table != "incidents"))
            ):
                path.unlink()


def _last_seq(path: Path) -> int:
    """The last message of a file that no manifest names."""
    metadata = pq.read_metadata(path)
    column = metadata.schema.to_arrow_schema().get_field_index("seq")
    last: int = max(metadata.row_group(i).column(column).statistics.max for i in range(metadata.num_row_groups))
    return last


def _seal_segment(root: Path, manifest: Manifest, number: int, path: Path) -> None:
    contracts = {contract.contract_id: contract for contract in manifest.contracts}
    decoder = Decoder(contracts, manifest.quote_state)
    decoder.next_seq = manifest.next_seq
    decoder.take(read_blocks(path.read_bytes()))
    for name, table in decoder.tables().items():
        for contract_id, rows in _by_contract(table):
            manifest.files.append(write_part(root, manifest, name, contract_id, [rows]))
    _count(manifest, decoder)
    manifest.sealed_segment = number
    write_manifest(root, manifest)


def _by_contract(table: pa.Table) -> Iterator[tuple[str | None, pa.Table]]:
    """A table's rows contract by contract, in their order, without the column that the path holds."""
    if not len(table):
        return
    column = table[CONTRACT].combine_chunks()
    codes = column.indices.fill_null(-1).to_numpy()
    rows = table.drop_columns(CONTRACT)
    for code in np.unique(codes):
        contract_id = None if code < 0 else column.dictionary[code].as_py()
        chosen = np.flatnonzero(codes == code)
        yield contract_id, rows if len(chosen) == len(rows) else rows.take(chosen)


def _count(manifest: Manifest, decoder: Decoder) -> None:
    manifest.next_seq = decoder.next_seq
    manifest.quote_state = decoder.quote_state
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


def _merge(root: Path, manifest: Manifest, factor: int | None = None) -> None:
    """Merge the parts of each table and contract: all, or with a factor the newest that weigh as much as one older.

    With a factor each row is written again a logarithmic number of times, and there is a logarithmic number of files.
    """
    groups: dict[tuple[str, str | None], list[SealedFile]] = defaultdict(list)
    for file in manifest.files:
        groups[file.table, file.contract_id].append(file)
    for (table, contract_id), files in groups.items():
        chosen = files if factor is None else _newest_run(files, factor)
        if len(chosen) > 1:
            merged = write_part(root, manifest, table, contract_id, _in_order(root, chosen))
            at = manifest.files.index(chosen[0])
            manifest.files = [file for file in manifest.files if file not in chosen]
            manifest.files.insert(at, merged)
            write_manifest(root, manifest)
            for file in chosen:
                (root / file.path).unlink()


def _newest_run(files: Sequence[SealedFile], factor: int) -> Sequence[SealedFile]:
    first = len(files) - 1
    weight = files[-1].rows
    while first > 0 and files[first - 1].rows <= factor * weight:
        first -= 1
        weight += files[first].rows
    return files[first:]


def _in_order(root: Path, files: Sequence[SealedFile]) -> Iterator[pa.Table]:
    """The rows of several files in their order: one after the other, or sorted where a clock stepped back."""
    if all(earlier.last_recv_ns <= later.first_recv_ns for earlier, later in pairwise(files)):
        yield from read_parts(root, files)
    else:
        rows = pa.concat_tables(read_parts(root, files))
        yield rows.sort_by([(name, "ascending") for name in ORDER if name in rows.column_names])
