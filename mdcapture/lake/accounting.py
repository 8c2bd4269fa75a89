"""A session's accounts, a window of messages at a time: what came is what is stored, entry by entry.

Files are sorted by receive time, and a clock may step back: `_Cursor` hands out a file's rows by message number all the
same, and holds no more of them than the clock has mixed up.
"""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mdcapture.lake.columns import CONTRACT, Decoder
from mdcapture.lake.journal import IncidentBlock, MessageBlock
from mdcapture.lake.problems import Problem, ProblemKind
from mdcapture.lake.schema import STREAMS, Incident, IncidentKind
from mdcapture.wire.decode import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from mdcapture.lake.manifest import Manifest, SealedFile
    from mdcapture.lake.remote import Location

    Int64s = npt.NDArray[np.int64]

__all__ = ["account"]

_WINDOW: Final = 65_536
_BATCH: Final = 16_384
_END: Final = 2**63 - 1
_ENTRIES: Final = (*STREAMS, "rejects")
_PLACE: Final = ("seq", "recv_ns", "pos")


def account(root: Location, manifest: Manifest, files: Sequence[SealedFile], *, deep: bool) -> list[Problem]:
    """Make up a session's accounts.

    Args:
        root: The lake.
        manifest: The session's manifest.
        files: Those of its files that can be read.
        deep: Decode all the original text again, and compare every row.

    Returns:
        What does not add up: a problem for each table and kind, with how often and where first.
    """
    findings = _Findings()
    contracts = _codes(files)
    incidents = _incidents(root, files)
    numbers = _Numbers(_damaged(manifest, incidents, findings))
    rows = {
        table: _Rows(root, [file for file in files if file.table == table], contracts, None if deep else _PLACE)
        for table in ("messages", *_ENTRIES)
    }
    again = _Again(manifest, incidents, contracts) if deep else None
    stop = 0
    while (low := min(table.floor for table in rows.values())) < _END:
        stop = max(stop, low) + _WINDOW
        window = {name: table.before(stop) for name, table in rows.items()}
        numbers.check(window["messages"]["seq"].to_numpy(), findings)
        _check_entries(window, findings)
        if again is not None:
            again.check(window, stop, findings)
    numbers.conclude(manifest.next_seq, findings)
    if again is not None:
        again.conclude(findings)
    return findings.problems()


class _Findings:
    """What does not add up, counted by table and kind."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ProblemKind, str], tuple[int, int | None]] = {}

    def add(self, table: str, kind: ProblemKind, what: str, seq: int | None, count: int = 1) -> None:
        before, first = self._found.get((table, kind, what), (0, seq))
        self._found[table, kind, what] = (before + count, first)

    def add_where(self, mask: npt.NDArray[np.bool_], seq: Int64s, what: str) -> None:
        """Entries, where the mask is set."""
        if mask.any():
            self.add("entries", ProblemKind.ENTRIES, what, int(seq[mask].min()), int(mask.sum()))

    def problems(self) -> list[Problem]:
        return [
            Problem(kind, table, f"{what}: {count}" + ("" if seq is None else f", the first at message {seq}"))
            for (table, kind, what), (count, seq) in self._found.items()
        ]


class _Cursor:
    """A file's rows by message number; `floor` is the lowest one that may still come, `_END` after the last."""

    def __init__(self, path: Location, code: int, columns: Sequence[str] | None) -> None:
        self._code = code
        self._waiting: list[pa.Table] = []
        self._more = self._read(path, columns)
        self._to_come = 0
        self.floor = 0
        self._go_on()

    def before(self, stop: int) -> list[pa.Table]:
        """The rows of messages before that one, in any order."""
        while self._to_come < stop:
            self._go_on()
        taken, kept = [], []
        for rows in self._waiting:
            early = rows["seq"].to_numpy() < stop
            taken.append(rows if early.all() else rows.filter(early))
            kept.append(rows.filter(~early))
        self._waiting = [rows for rows in kept if len(rows)]
        self.floor = min([self._to_come, *(rows["seq"].to_numpy().min() for rows in self._waiting)])
        return taken

    def _go_on(self) -> None:
        rows, self._to_come = next(self._more, (None, _END))
        if rows is not None:
            code = pa.array(np.full(len(rows), self._code, np.int32))
            self._waiting.append(rows.append_column(CONTRACT, code))

    @staticmethod
    def _read(path: Location, columns: Sequence[str] | None) -> Iterator[tuple[pa.Table, int]]:
        """Rows in the file's order, each piece with the lowest message that comes after it."""
        with path.open("rb") as file, pq.ParquetFile(file) as parquet:
            names = [name for name in parquet.schema_arrow.names if columns is None or name in columns]
            groups = range(parquet.num_row_groups)
            seqs = [parquet.metadata.row_group(group).column(names.index("seq")).statistics.min for group in groups]
            for group in groups:
                seq = parquet.read_row_group(group, ["seq"])["seq"].to_numpy()
                later = min(seqs[group + 1 :], default=_END)
                to_come = np.append(np.minimum.accumulate(seq[::-1])[::-1], later)
                at = 0
                for batch in parquet.iter_batches(_BATCH, [group], names):
                    at += len(batch)
                    yield pa.Table.from_batches([batch]), min(later, int(to_come[at]))


class _Rows:
    """The rows of a table, whatever files they are in; with their contract as a number."""

    def __init__(
        self,
        root: Location,
        files: Sequence[SealedFile],
        contracts: Mapping[str | None, int],
        columns: Sequence[str] | None,
    ) -> None:
        self._cursors = [_Cursor(root / file.path, contracts[file.contract_id], columns) for file in files]

    @property
    def floor(self) -> int:
        return min((cursor.floor for cursor in self._cursors), default=_END)

    def before(self, stop: int) -> pa.Table:
        """The rows of messages before that one which were not asked for yet, sorted by message and position."""
        pieces = [piece for cursor in self._cursors for piece in cursor.before(stop)]
        return _sorted(pa.concat_tables(pieces)) if pieces else _NOTHING


_NOTHING: Final = pa.table({name: pa.array([], pa.int64()) for name in (*_PLACE, CONTRACT)})


def _sorted(rows: pa.Table) -> pa.Table:
    return rows.sort_by([(name, "ascending") for name in ("seq", "pos") if name in rows.column_names])


def _codes(files: Sequence[SealedFile]) -> dict[str | None, int]:
    return {contract_id: code for code, contract_id in enumerate(dict.fromkeys(file.contract_id for file in files))}


def _incidents(root: Location, files: Sequence[SealedFile]) -> list[IncidentBlock]:
    """The incidents in the order of the messages; they are few."""
    blocks = []
    for file in files:
        if file.table == "incidents":
            with (root / file.path).open("rb") as opened, pq.ParquetFile(opened) as parquet:
                for row in parquet.read().to_pylist():
                    seq, recv_ns = row.pop("seq"), row.pop("recv_ns")
                    blocks.append(IncidentBlock(seq, recv_ns, Incident(contract_id=file.contract_id, **row)))
    return sorted(blocks, key=lambda block: block.first_seq)


def _damaged(manifest: Manifest, incidents: Sequence[IncidentBlock], findings: _Findings) -> set[int]:
    """The messages from which on the journal was damaged; counts the incidents on the way."""
    if Counter(block.incident.kind for block in incidents) != Counter(manifest.incidents):
        findings.add("incidents", ProblemKind.COUNTS, "kinds that are not counted as in the manifest", None)
    return {block.first_seq for block in incidents if block.incident.kind == IncidentKind.JOURNAL_DAMAGED}


class _Numbers:
    """Each message once, and none left out but where the journal was damaged."""

    def __init__(self, damaged: set[int]) -> None:
        self._damaged = damaged
        self._next_seq = 0

    def check(self, seq: Int64s, findings: _Findings) -> None:
        doubled = seq[1:][seq[1:] == seq[:-1]]
        if len(doubled):
            what = "messages that are stored twice"
            findings.add("messages", ProblemKind.MESSAGES, what, int(doubled[0]), len(doubled))
        ends = np.append(self._next_seq - 1, seq)
        for at in np.flatnonzero(np.diff(ends) > 1):
            self._hole(int(ends[at]) + 1, int(ends[at + 1]), findings)
        self._next_seq = int(ends[-1]) + 1

    def conclude(self, next_seq: int, findings: _Findings) -> None:
        if self._next_seq < next_seq:
            self._hole(self._next_seq, next_seq, findings)
        elif self._next_seq > next_seq:
            what = "messages beyond the manifest's last"
            findings.add("messages", ProblemKind.MESSAGES, what, next_seq, self._next_seq - next_seq)

    def _hole(self, begin: int, end: int, findings: _Findings) -> None:
        if begin not in self._damaged:
            what = "messages that are missing, and no incident says so"
            findings.add("messages", ProblemKind.MESSAGES, what, begin, end - begin)


def _check_entries(window: Mapping[str, pa.Table], findings: _Findings) -> None:
    """Each entry belongs to a message, and those of a message are numbered from 0, a row or a reject each."""
    messages = window["messages"]
    seq, recv_ns, contract, pos = (
        np.concatenate([_numbers(window[table], name) for table in _ENTRIES])
        for name in ("seq", "recv_ns", CONTRACT, "pos")
    )
    number = messages["seq"].to_numpy()
    if not len(number):
        findings.add_where(np.ones(len(seq), bool), seq, "rows without their message")
        return
    message = np.minimum(np.searchsorted(number, seq), len(number) - 1)
    known = number[message] == seq
    findings.add_where(~known, seq, "rows without their message")
    other = messages["recv_ns"].to_numpy()[message] != recv_ns
    findings.add_where(known & other, seq, "rows with another receive time than their message")
    other = messages[CONTRACT].to_numpy()[message] != contract
    findings.add_where(known & other, seq, "rows with another contract than their message")
    part = pos >= 0  # the others are rejects of a whole message
    order = np.lexsort((pos[part], seq[part]))
    of, pos = seq[part][order], pos[part][order]
    first = np.searchsorted(of, of)
    findings.add_where(pos != np.arange(len(of)) - first, of, "entries that are missing, or stored twice")


def _numbers(rows: pa.Table, name: str) -> Int64s:
    values: Int64s = rows[name].combine_chunks().cast(pa.int64()).fill_null(-1).to_numpy()
    return values


class _Again:
    """The original text, decoded once more."""

    def __init__(
        self, manifest: Manifest, incidents: Sequence[IncidentBlock], contracts: Mapping[str | None, int]
    ) -> None:
        self._manifest = manifest
        self._known = {contract.contract_id: contract for contract in manifest.contracts}
        self._incidents = list(incidents)
        self._contracts = contracts
        self._decoder = Decoder(self._known, {})
        self._implausible: Counter[str] = Counter()

    def check(self, window: Mapping[str, pa.Table], stop: int, findings: _Findings) -> None:
        """Decode a window's messages, and compare what they give with what is stored."""
        passed = [block for block in self._incidents if block.first_seq < stop]
        self._incidents = self._incidents[len(passed) :]
        for table, rows in self._decode(list(_blocks(window, passed))).items():
            stored = window[table]
            if not (rows.equals(stored) or (len(rows) == len(stored) == 0)):
                self._differ(table, rows, stored, findings)

    def conclude(self, findings: _Findings) -> None:
        """Compare what the decoder counted, and where it ended."""
        self._decode(self._incidents)
        if self._implausible != Counter(self._manifest.implausible):
            findings.add("quotes, trades, depth", ProblemKind.DECODED, "implausible rows are counted differently", None)
        if self._decoder.quote_state != self._manifest.quote_state:
            findings.add("quotes", ProblemKind.DECODED, "the last state is not the manifest's", None)

    def _decode(self, blocks: Sequence[MessageBlock | IncidentBlock]) -> dict[str, pa.Table]:
        before, self._decoder = self._decoder, Decoder(self._known, self._decoder.quote_state)
        self._decoder.next_seq = before.next_seq
        self._decoder.take(blocks)
        self._implausible.update(self._decoder.implausible)
        tables = self._decoder.tables()
        return {table: self._numbered(tables[table]) for table in ("messages", *_ENTRIES)}

    def _numbered(self, rows: pa.Table) -> pa.Table:
        """Rows as `_Rows` has them: the contract's number last, sorted by message and position."""
        column = rows[CONTRACT].combine_chunks()
        codes = np.array([*(self._contracts.get(one, -1) for one in column.dictionary.to_pylist()), -1], np.int32)
        codes[-1] = self._contracts.get(None, -1)
        code = codes[column.indices.fill_null(-1).to_numpy()]
        return _sorted(rows.drop_columns(CONTRACT).append_column(CONTRACT, pa.array(code)))

    @staticmethod
    def _differ(table: str, rows: pa.Table, stored: pa.Table, findings: _Findings) -> None:
        decoded, found = (Counter(_tuples(one, rows.column_names)) for one in (rows, stored))
        for what, difference in (
            ("rows that the text does not give", found - decoded),
            ("rows of the text that are not stored", decoded - found),
        ):
            if difference:
                seq = min(row[0] for row in difference)
                findings.add(table, ProblemKind.DECODED, what, seq, difference.total())


def _tuples(rows: pa.Table, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    if not len(rows):
        return iter(())
    return zip(*(rows[name].to_pylist() for name in names), strict=True)


def _blocks(
    window: Mapping[str, pa.Table], incidents: Sequence[IncidentBlock]
) -> Iterator[MessageBlock | IncidentBlock]:
    """The messages and incidents as they came, in the journal's blocks."""
    messages, rejects = window["messages"], window["rejects"]
    if not len(messages):
        yield from incidents
        return
    seq, connection = messages["seq"].to_numpy(), messages["connection"].to_numpy()
    recv_ns = array("q", messages["recv_ns"].to_numpy().tobytes())
    bytewise = set(_raw(rejects))
    texts = zip(seq.tolist(), messages["payload"].to_pylist(), strict=True)
    records = [text.encode("latin-1" if number in bytewise else "utf-8") for number, text in texts]
    places = np.searchsorted(seq, [block.first_seq for block in incidents]).tolist()
    cuts = np.flatnonzero((np.diff(seq) != 1) | (np.diff(connection) != 0)) + 1
    waiting = list(zip(places, incidents, strict=True))
    for begin, end in pairwise(sorted({0, *cuts.tolist(), *places, len(seq)})):
        while waiting and waiting[0][0] == begin:
            yield waiting.pop(0)[1]
        yield MessageBlock(int(seq[begin]), int(connection[begin]), recv_ns[begin:end], records[begin:end])
    yield from (block for _, block in waiting)


def _raw(rejects: pa.Table) -> Iterator[int]:
    """The messages whose bytes are no text, and are stored as characters of their numbers."""
    for seq, reason in _tuples(rejects, ("seq", "reason")):
        if reason == Reason.NOT_UTF8:
            yield seq
