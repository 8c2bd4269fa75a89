"""Does a session hold what it says? A proof from the files alone.

    the manifest   names every file there is, and each is what it says: bytes, checksum, schema, rows, order, bounds
    messages       each number once; a hole only where an incident tells of a damaged journal
    entries        those of a message stand once each, as a row or as a reject, with its contract and receive time
    deep           the original text, decoded again, gives the very rows that are stored

Of a session that is still open this is a proof of what is sealed; of what waits in the journal it is known that each
block is what its checksum says, and no more.

Memory is bounded: files are read a row group at a time, and accounts are made up for a window of messages at a time.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mdcapture.errors import DamageError
from mdcapture.lake.accounting import account
from mdcapture.lake.columns import arrow_schema
from mdcapture.lake.files import TEMPORARY, sha256_of
from mdcapture.lake.journal import Damage, MessageBlock, read_blocks, segments
from mdcapture.lake.layout import contract_folder, is_part, journal_folder, manifest_path
from mdcapture.lake.locks import unsealed
from mdcapture.lake.manifest import State, read_manifest
from mdcapture.lake.problems import Problem, ProblemKind
from mdcapture.lake.schema import ORDER, SCHEMA_VERSION, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from mdcapture.lake.manifest import Manifest, SealedFile
    from mdcapture.lake.remote import Location

__all__ = ["Problem", "ProblemKind", "Proof", "prove", "verify"]

_UNUSABLE: Final = {ProblemKind.MISSING_FILE, ProblemKind.UNREADABLE, ProblemKind.SCHEMA}


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a session.

    Attributes:
        session_id: Its id.
        status: `open`, `sealed` or `recovered`; None where the manifest can't be read.
        proven: Messages in sealed files, which is what the proof is about.
        waiting: Messages that are still in the journal: their blocks are sound, what they hold is not yet looked at.
        problems: What is wrong; nothing if all is well.
    """

    session_id: str
    status: State | None
    proven: int
    waiting: int
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(root: Location, session_id: str, *, deep: bool = False) -> list[Problem]:
    """Find what is wrong with a session: the problems of `prove`, whose arguments and errors are these."""
    return prove(root, session_id, deep=deep).problems


def prove(root: Location, session_id: str, *, deep: bool = False) -> Proof:
    """Prove a session, or find what is wrong with it.

    While it is still recorded, sealing waits for the proof; the journal does not.

    Args:
        root: The lake.
        session_id: The session.
        deep: Decode all the original text again, and compare every row.

    Raises:
        NotFoundError: There is no such session.
    """
    with unsealed(journal_folder(root, session_id)):
        try:
            manifest = read_manifest(root, session_id)
        except DamageError as error:
            path = manifest_path(root, session_id).relative_to(root)
            problem = Problem(ProblemKind.MANIFEST, path.as_posix(), str(error))
            return Proof(session_id=session_id, status=None, proven=0, waiting=0, problems=[problem])
        waiting, journal = _journal(root, manifest)
        problems = [*_manifest(manifest), *_foreign_files(root, manifest), *journal]
        usable = []
        for file in manifest.files:
            found = list(_file(root, manifest, file))
            problems += found
            if not any(problem.kind in _UNUSABLE for problem in found):
                usable.append(file)
        problems += account(root, manifest, usable, deep=deep)
        proven = manifest.counts.get("messages", 0)
        return Proof(session_id=session_id, status=manifest.state, proven=proven, waiting=waiting, problems=problems)


def _manifest(manifest: Manifest) -> Iterator[Problem]:
    where = f"sessions/{manifest.session_id}.json"
    for table in TABLES:
        rows, count = sum(file.rows for file in manifest.files_of(table)), manifest.counts.get(table, 0)
        if rows != count:
            yield Problem(ProblemKind.COUNTS, where, f"{table}: {count} rows are counted, the files named have {rows}")
    messages = manifest.files_of("messages")
    bounds = (
        min((file.first_recv_ns for file in messages), default=None),
        max((file.last_recv_ns for file in messages), default=None),
    )
    if bounds != (manifest.start_ns, manifest.end_ns):
        stated = f"{manifest.start_ns} to {manifest.end_ns}"
        yield Problem(ProblemKind.COUNTS, where, f"times {stated} are not those of the messages, {bounds}")
    for path, count in Counter(file.path for file in manifest.files).items():
        if count > 1:
            yield Problem(ProblemKind.MANIFEST, path, "the manifest names it twice")


def _foreign_files(root: Location, manifest: Manifest) -> Iterator[Problem]:
    """Files that the manifest does not name; of an open session only those that no sealing can have left."""
    named = {root / file.path for file in manifest.files}
    for table in TABLES:
        for path in sorted((root / table / f"session_id={manifest.session_id}").rglob("*")):
            left = manifest.state == "open" and is_part(path.name.removesuffix(TEMPORARY))
            if path not in named and not path.is_dir() and not left:
                detail = "the manifest does not name it, and `select` from the folder counts it"
                yield Problem(ProblemKind.FOREIGN_FILE, path.relative_to(root).as_posix(), detail)


def _journal(root: Location, manifest: Manifest) -> tuple[int, list[Problem]]:
    """How many messages wait to be sealed, and what is wrong with where they do."""
    folder = journal_folder(root, manifest.session_id)
    where = folder.relative_to(root).as_posix()
    waiting = 0
    found = []
    if manifest.state == "open" and isinstance(root, Path) and not folder.is_dir():
        found.append(Problem(ProblemKind.JOURNAL, where, "the session is open, but its journal is gone"))
    for number, path in segments(folder).items():
        if number <= manifest.sealed_segment:
            continue
        if manifest.state != "open":
            found.append(Problem(ProblemKind.JOURNAL, where, f"segment {number} is not sealed: `mdcapture recover`"))
        for block in read_blocks(path.read_bytes()):
            if isinstance(block, MessageBlock):
                waiting += len(block.records)
            elif isinstance(block, Damage) and not block.torn:
                found.append(Problem(ProblemKind.JOURNAL, f"{where}/{path.name}", block.detail))
    return waiting, found


def _file(root: Location, manifest: Manifest, file: SealedFile) -> Iterator[Problem]:
    path = root / file.path
    name = path.name
    folder = f"{file.table}/session_id={manifest.session_id}/{contract_folder(file.contract_id)}"
    if file.table not in TABLES or file.path != f"{folder}/{name}" or not is_part(name):
        yield Problem(ProblemKind.MISSING_FILE, file.path, "no place of a sealed file of this session: it is not read")
    elif not path.is_file():
        yield Problem(ProblemKind.MISSING_FILE, file.path, f"it is not there, and with it {file.rows} rows: restore it")
    else:
        if path.stat().st_size != file.bytes:
            detail = f"{path.stat().st_size} bytes, where the manifest says {file.bytes}"
            yield Problem(ProblemKind.CHECKSUM, file.path, detail)
        elif sha256_of(path) != file.sha256:
            yield Problem(ProblemKind.CHECKSUM, file.path, "its checksum is not the manifest's: restore it")
        try:
            with path.open("rb") as opened, pq.ParquetFile(opened, page_checksum_verification=True) as parquet:
                yield from _content(parquet, manifest, file)
        except (pa.ArrowException, OSError) as error:
            yield Problem(ProblemKind.UNREADABLE, file.path, f"it can't be read ({error}): restore it")


def _content(parquet: pq.ParquetFile, manifest: Manifest, file: SealedFile) -> Iterator[Problem]:
    if not parquet.schema_arrow.equals(arrow_schema(file.table)):
        yield Problem(ProblemKind.SCHEMA, file.path, f"its columns are not those of {file.table}")
        return
    metadata = parquet.metadata.metadata or {}
    expected = {
        b"mdcapture.schema_version": str(SCHEMA_VERSION),
        b"mdcapture.session_id": manifest.session_id,
        b"mdcapture.table": file.table,
        b"mdcapture.contract_id": file.contract_id or "",
    }
    if any(metadata.get(key) != value.encode() for key, value in expected.items()):
        yield Problem(ProblemKind.METADATA, file.path, f"its metadata are not those of {file.table} of this session")
    rows = 0
    before: npt.NDArray[np.int64] | None = None
    bounds: list[tuple[int, int, int, int]] = []
    ordered = True
    for group in range(parquet.num_row_groups):
        table = parquet.read_row_group(group)
        table.validate(full=True)
        keys = _keys(table)
        ordered &= _in_order(keys if before is None else np.concatenate([before, keys]))
        before = keys[-1:]
        seq = keys[:, 1]
        bounds.append((keys[0, 0], keys[-1, 0], seq.min(), seq.max()))
        rows += len(table)
    if rows != file.rows:
        yield Problem(ProblemKind.COUNTS, file.path, f"{rows} rows, where the manifest says {file.rows}")
    if not ordered:
        yield Problem(ProblemKind.ORDER, file.path, f"its rows are not sorted by {', '.join(ORDER)}")
    if bounds:
        first, _, low, _ = map(min, zip(*bounds, strict=True))
        _, last, _, high = map(max, zip(*bounds, strict=True))
        if (first, last, low, high) != (file.first_recv_ns, file.last_recv_ns, file.first_seq, file.last_seq):
            yield Problem(ProblemKind.COUNTS, file.path, "its first and last times and messages are not the manifest's")


def _keys(table: pa.Table) -> npt.NDArray[np.int64]:
    """The columns that rows are sorted by, as an array (rows, 3)."""
    columns = [
        table[name].combine_chunks().cast(pa.int64()).fill_null(-1).to_numpy()
        if name in table.column_names
        else np.zeros(len(table), np.int64)
        for name in ORDER
    ]
    return np.stack(columns, axis=1)


def _in_order(keys: npt.NDArray[np.int64]) -> bool:
    earlier, later = keys[:-1], keys[1:]
    falls, rises = later < earlier, later > earlier
    wrong = falls[:, 0] | ~rises[:, 0] & (falls[:, 1] | ~rises[:, 1] & falls[:, 2])
    return not wrong.any()
