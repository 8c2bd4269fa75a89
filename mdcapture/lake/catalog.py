"""What can be read of a session right now: its sealed files, and the rows that are still in its journal.

A row is in the journal until a manifest counts its segment as sealed, and in a sealed file from then on. A reader needs
no lock: it reads the manifest, the segments after `sealed_segment`, and the manifest again; if more was sealed in
between, it begins again. Segments only grow, so a reader that stays decodes each byte once.

Sealed parts of a running session are merged from time to time, and a file that a manifest named a moment ago can be
gone: `reread` is for those who open them.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import asdict, fields

from mdcapture.errors import DamageError, NotFoundError
from mdcapture.lake.columns import CONTRACT, Decoder, empty_table
from mdcapture.lake.journal import Damage, read_blocks, segments
from mdcapture.lake.layout import journal_folder, manifest_path, meant
from mdcapture.lake.manifest import Contract, Manifest, read_manifest, session_ids
from mdcapture.lake.remote import locate
from mdcapture.lake.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from mdcapture.lake.journal import Block
    from mdcapture.lake.remote import Location, RemotePath

__all__ = [
    "Catalog",
    "Snapshot",
    "contracts_table",
    "empty_tail",
    "listed",
    "open_catalog",
    "reread",
    "sessions_table",
    "snapshot",
]

_NAMED: Final = 8
"""So many candidates an error names."""

T = TypeVar("T")

_ATTEMPTS: Final = 5
_AT_ONCE: Final = 16


class Fetch(Protocol):
    """How rows are read from a server."""

    def __call__(
        self, session_id: str, table: str, contract_id: str | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read the rows of a session, those of each contract in their order.

        Args:
            session_id: The session.
            table: The table.
            contract_id: One contract; without it, all of them.
            columns: Which of them; without it all, led by `session_id` and `contract_id`.
        """


class Snapshot(NamedTuple):
    """A session at one moment: each of its rows is in a file of the manifest or in the tail, and never in both.

    `tail` holds, by table, what is not sealed: rows led by the contract, empty for a session that has ended.
    """

    manifest: Manifest
    tail: Mapping[str, pa.Table]

    @property
    def counts(self) -> dict[str, int]:
        """Rows by table."""
        return {table: self.manifest.counts.get(table, 0) + len(self.tail[table]) for table in TABLES}

    @property
    def start_ns(self) -> int | None:
        """When the first message was received."""
        return min(self._message_times(self.manifest.start_ns, "min"), default=None)

    @property
    def end_ns(self) -> int | None:
        """When the last message was received."""
        return max(self._message_times(self.manifest.end_ns, "max"), default=None)

    @property
    def contracts(self) -> list[Contract]:
        """The contracts: those that the manifest describes, then those that only the data names."""
        known = {contract.contract_id: contract for contract in self.manifest.contracts}
        found = {file.contract_id for file in self.manifest.files}
        for rows in self.tail.values():
            found.update(pc.unique(rows[CONTRACT]).to_pylist())
        others = sorted(one for one in found if one is not None and one not in known)
        return [*known.values(), *(Contract(contract_id=one) for one in others)]

    def in_order(self, table: str) -> bool:
        """Whether the files in their order, and then the tail, have the rows of each contract in order.

        It is not so where the clock stepped back, until the parts are merged.
        """
        last: dict[str | None, int] = {}
        for file in self.manifest.files_of(table):
            if file.first_recv_ns < last.get(file.contract_id, file.first_recv_ns):
                return False
            last[file.contract_id] = file.last_recv_ns
        times = self.tail[table]["recv_ns"].to_numpy()
        return not len(times) or bool(
            times[0] >= max(last.values(), default=times[0]) and np.all(times[1:] >= times[:-1])
        )

    def _message_times(self, sealed: int | None, bound: str) -> Iterator[int]:
        waiting = pc.min_max(self.tail["messages"]["recv_ns"])[bound].as_py()
        return (time_ns for time_ns in (sealed, waiting) if time_ns is not None)


def open_catalog(path: str | Path | RemotePath) -> Catalog:
    """The catalog of a lake that exists, in a folder or in object storage.

    Raises:
        NotFoundError: There is no such folder, or it is no lake.
        StorageError: Whoever keeps its objects can't be reached, or refused.
    """
    root = locate(path)
    if not (root / "sessions").is_dir():
        what = "it is no lake" if root.is_dir() else "there is nothing there, no such folder"
        raise NotFoundError(
            f"can't open {root}: {what}; `mdcapture capture` or `mdcapture import` make one, --lake names another"
        )
    return Catalog(root)


class Catalog:
    """The sessions of a lake, for reading; what was read once is kept and followed. Any thread may ask.

    Args:
        root: The lake, a folder or a place in object storage.

    Attributes:
        place: What people call it.
        fetch: Reads rows that no file holds from a server that does; None where there is none.
    """

    def __init__(self, root: Location) -> None:
        self.root = root
        self.place = str(root)
        self.fetch: Fetch | None = None
        self._lock = Lock()
        self._followers: dict[str, _Follower] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return Catalog, (self.root,)  # what was read once is read anew elsewhere

    def session_ids(self) -> list[str]:
        """The sessions, the oldest first."""
        return session_ids(self.root)

    def manifest(self, session_id: str) -> Manifest:
        """A session's manifest, as it is now.

        Raises:
            NotFoundError: There is no such session.
            DamageError: The manifest can't be read.
        """
        return self._follower(session_id).manifest()

    def snapshot(self, session_id: str) -> Snapshot:
        """A session as it is now; what was written to the journal is there, however recent.

        Raises:
            NotFoundError: There is no such session.
            DamageError: The manifest can't be read.
        """
        return self._follower(session_id).snapshot()

    def manifests(self, session_ids: Iterable[str], *, named: bool = True) -> list[Manifest]:
        """The manifests of sessions; errors as those of `manifest`.

        Args:
            session_ids: The sessions.
            named: Somebody asked for these very ones: where one is not there, it is an error, and not left out as one
                that was pruned since they were listed.
        """
        return _each(self.manifest, session_ids, named=named)

    def snapshots(self, session_ids: Iterable[str], *, named: bool = True) -> list[Snapshot]:
        """Sessions as they are now; arguments as those of `manifests`, errors as those of `snapshot`."""
        return _each(self.snapshot, session_ids, named=named)

    def find(self, ref: str) -> str:
        """The id of a session.

        Args:
            ref: The id itself, the beginning of it that no other id has (also without `session_`), or `latest`.

        Raises:
            NotFoundError: No session, or more than one, is called that.
        """
        ids = self.session_ids()
        if not ids:
            raise NotFoundError(
                f"{self.place} holds no session yet: `mdcapture capture` or `mdcapture import` make one"
            )
        if ref == "latest":
            return ids[-1]
        found = meant(ref, ids)
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFoundError(f"{ref} begins the names of {len(found)} sessions, say more of it: {listed(found)}")
        raise NotFoundError(f"no session {ref} in {self.place}; there are: {listed(ids[::-1])}")

    def _follower(self, session_id: str) -> _Follower:
        with self._lock:
            follower = self._followers.get(session_id)
            if follower is None:
                follower = self._followers[session_id] = _Follower(self.root, session_id)
            return follower


def _each(look: Callable[[str], T], session_ids: Iterable[str], *, named: bool) -> list[T]:
    """Look at several sessions at once: each may be far away."""

    def found(session_id: str) -> list[T]:
        try:
            return [look(session_id)]
        except NotFoundError:
            if named:
                raise
            return []

    with ThreadPoolExecutor(_AT_ONCE) as readers:
        return [one for each in readers.map(found, session_ids) for one in each]


def listed(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def snapshot(root: Location, session_id: str) -> Snapshot:
    """One session at this moment, for those who look once.

    Raises:
        NotFoundError: There is no such session.
        DamageError: The manifest can't be read.
    """
    return _Follower(root, session_id).snapshot()


def reread(read: Callable[[], T]) -> T:
    """Read, and read again where a file vanished meanwhile; `read` takes a new snapshot each time.

    Raises:
        DamageError: A file stays away: it was not merged into another, it is missing.
    """
    for _ in range(_ATTEMPTS):
        try:
            return read()
        except FileNotFoundError as error:
            missing = error
    raise DamageError(f"a sealed file is missing ({missing}): restore it (`mdcapture verify` lists all damage)")


class _Segment:
    """A segment of the journal, decoded as far as it is written; it begins where another decoder stands."""

    def __init__(self, path: Location, before: Decoder) -> None:
        self.decoder = Decoder({}, before.quote_state)
        self.decoder.next_seq = before.next_seq
        self.decoder.last_recv_ns = before.last_recv_ns
        self.decoder.damage = list(before.damage)
        self.tables = self.decoder.tables()
        self._path = path
        self._offset = 0

    def read(self, *, grows: bool) -> None:
        """Decode what was written since the last time.

        Args:
            grows: It is the one that is being written, if any is: what is torn at its end may be whole the next time.

        Raises:
            FileNotFoundError: It was sealed and removed.
        """
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        if data:
            self.decoder.take(self._written(data, grows=grows))
            self.tables = self.decoder.tables()

    def _written(self, data: bytes, *, grows: bool) -> Iterator[Block | Damage]:
        """The blocks; of one that grows without a torn end: the rest of it is not written yet, or never will be."""
        end = len(data)
        for block in read_blocks(data):
            if grows and isinstance(block, Damage) and block.torn:
                end = block.offset
            else:
                yield block
        self._offset += end


class _Follower:
    """Follows one session: its manifest, read when it changed, and its open segments, read as they grow."""

    def __init__(self, root: Location, session_id: str) -> None:
        self._root = root
        self._lock = Lock()
        self._session_id = session_id
        self._manifest: Manifest | None = None
        self._version: tuple[int, int, int] | None = None
        self._segments: dict[int, _Segment] = {}

    def manifest(self) -> Manifest:
        with self._lock:
            return self._read_manifest()

    def snapshot(self) -> Snapshot:
        with self._lock:
            return self._read_snapshot()

    def _read_manifest(self) -> Manifest:
        version = self._look()
        known = self._manifest
        if known is None or version is None or version != self._version or not (version[0] or known.state != "open"):
            known = self._manifest = read_manifest(self._root, self._session_id)
            self._version = version
        return known

    def _look(self) -> tuple[int, int, int] | None:
        """What changes with the manifest: surely in a folder, and but for the clock's resolution in object storage."""
        try:
            stat = manifest_path(self._root, self._session_id).stat()
        except FileNotFoundError:
            return None  # `read_manifest` says so
        return (stat.st_ino, stat.st_mtime_ns, stat.st_size) if stat.st_mtime_ns else None

    def _read_snapshot(self) -> Snapshot:
        while True:
            before = self._read_manifest()
            try:
                tail = self._tail(before)
            except FileNotFoundError:  # sealed just now
                continue
            after = self._read_manifest()
            if (after.sealed_segment, after.state) == (before.sealed_segment, before.state):
                return Snapshot(after, tail)

    def _tail(self, manifest: Manifest) -> Mapping[str, pa.Table]:
        if manifest.state != "open":
            self._segments = {}
            return empty_tail()
        paths = segments(journal_folder(self._root, self._session_id))
        known, self._segments = self._segments, {}
        before = Decoder.after(manifest)
        for number, path in paths.items():  # each but the last is complete: the next one is made after it is closed
            if number > manifest.sealed_segment:
                segment = known.get(number) or _Segment(path, before)
                segment.read(grows=number == max(paths))
                self._segments[number] = segment
                before = segment.decoder
        if not self._segments:
            return empty_tail()
        return {
            table: pa.concat_tables([segment.tables[table] for segment in self._segments.values()]).unify_dictionaries()
            for table in TABLES
        }


@cache
def empty_tail() -> Mapping[str, pa.Table]:
    """That of a session whose rows are all elsewhere."""
    return {table: empty_table(table, contract=True) for table in TABLES}


_TIME: Final = pa.timestamp("us", "UTC")
_SESSIONS: Final = pa.schema(
    {
        "session_id": pa.string(),
        "status": pa.string(),
        "source": pa.string(),
        "start_ns": pa.int64(),
        "end_ns": pa.int64(),
        "start_time": _TIME,
        "end_time": _TIME,
        "contracts": pa.list_(pa.string()),
        **dict.fromkeys(TABLES, pa.int64()),
        "software": pa.string(),
    }
)
_CONTRACTS: Final = pa.schema(
    {
        "session_id": pa.string(),
        **{field.name: pa.string() if field.type is str else pa.float64() for field in fields(Contract)},
    }
)


def sessions_table(snapshots: Iterable[Snapshot]) -> pa.Table:
    """The sessions, a row each; times in nanoseconds, and again as timestamps (microseconds, cut)."""
    return pa.Table.from_pylist([_session_row(one) for one in snapshots], _SESSIONS)


def _session_row(session: Snapshot) -> dict[str, object]:
    start_ns, end_ns = session.start_ns, session.end_ns
    return {
        "session_id": session.manifest.session_id,
        "status": session.manifest.state,
        "source": session.manifest.source,
        "start_ns": start_ns,
        "end_ns": end_ns,
        "start_time": None if start_ns is None else start_ns // 1000,
        "end_time": None if end_ns is None else end_ns // 1000,
        "contracts": [contract.contract_id for contract in session.contracts],
        **session.counts,
        "software": session.manifest.software,
    }


def contracts_table(snapshots: Iterable[Snapshot]) -> pa.Table:
    """The contracts of the sessions, a row each."""
    rows = [
        {"session_id": one.manifest.session_id, **asdict(contract)} for one in snapshots for contract in one.contracts
    ]
    return pa.Table.from_pylist(rows, _CONTRACTS)
