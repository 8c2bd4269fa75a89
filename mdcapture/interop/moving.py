"""Moving over: the replaced system's database into sessions, through the journal like everything else.

Each row becomes an entry of a hub message again: from `raw_data`, its original text, where the database has it, else
from the columns, and the manifest says so. Rows that arrived together are one message. Files that `export` wrote have
places (`seq`, `pos`) and nanoseconds, and come back exactly; those of the replaced system have microseconds.

An import that was interrupted goes on where it ended, in a further session; what is there already is passed over.
"""

# ruff: noqa: S608  # what stands in the statements are names of ours, and values that are quoted
from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping
from contextlib import nullcontext
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from mdcapture.errors import NotFoundError, UsageError
from mdcapture.interop.importing import import_records, only_import
from mdcapture.lake.manifest import read_manifests
from mdcapture.lake.schema import QUOTE_STATE
from mdcapture.lake.seal import recover
from mdcapture.query.views import quoted
from mdcapture.wire.timestamps import format_ns, parse_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mdcapture.lake.manifest import Manifest

__all__ = ["OldDatabase", "move"]

_NS_DIGITS: Final = 9
_encode = msgspec.json.Encoder().encode


class OldDatabase(Protocol):
    """A database of the replaced system, opened for reading.

    Attributes:
        name: What people call it, without its kind.
        kind: `sqlite` or `postgresql`.
    """

    name: str
    kind: str

    def columns(self, table: str) -> list[str]:
        """The columns of a table; none where there is no such table."""

    def row_number(self, table: str) -> str:
        """What tells the rows of a table apart, and is their order where nothing else is."""

    def ask(self, query: str) -> Iterator[dict[str, Any]]:
        """The rows of a query, as they come; times are texts in ISO 8601."""


class _Stream(NamedTuple):
    """A table: the target of its messages, and its entries' fields by their names on the wire."""

    table: str
    target: str
    fields: Mapping[str, str]


_PRINT: Final = {"price": "price", "volume": "volume"}
_STREAMS: Final = (
    _Stream("quotes", "GatewayQuote", {str(one.wire): one.name for one in QUOTE_STATE}),
    _Stream("trades", "GatewayTrade", _PRINT | {"type": "trade_type"}),
    _Stream("market_depth", "GatewayDepth", _PRINT | {"type": "depth_type", "currentVolume": "current_volume"}),
)
_PLACES: Final = ("pos", "trade_sequence", "level_rank")
"""Columns of an entry's place in its message: ours, and those of the replaced system's files."""


class _Row(NamedTuple):
    """A row with what it is sorted and grouped by."""

    recv_ns: int
    seq: int
    stream: int
    number: int
    pos: int | None
    values: dict[str, Any]


class _Origin(NamedTuple):
    """One session of a database: what its sessions in the lake are recognised by."""

    file: str
    session_id: str | None
    fingerprint: str


class _Table(NamedTuple):
    """A table of the database: the number of its stream, and its columns."""

    number: int
    columns: list[str]

    @property
    def name(self) -> str:
        return _STREAMS[self.number].table


def move(
    database: OldDatabase, root: Path, *, again: bool = False, progress: Callable[[int], object] = lambda _: None
) -> list[Manifest]:
    """Import what a database of the replaced system holds.

    Args:
        database: The database; any of its tables `quotes`, `trades` and `market_depth` may be missing.
        root: The lake.
        again: Import all of it, also what is in the lake already.
        progress: Told of the messages so far, now and then.

    Returns:
        The manifests of the sessions that were made: one for each in the database; none where all was there already.

    Raises:
        NotFoundError: It has none of the tables.
        UsageError: A table has no times or no contracts, or a row has no time.
        BusyError: It is being imported already.
        StorageError: The lake can't be written.
    """
    made: list[Manifest] = []
    done = 0
    tables = _tables(database)
    for origin in _origins(database, tables):
        messages = _messages(database, tables, origin.session_id)
        start = done
        with nullcontext() if again else only_import(root, origin.fingerprint, database.name):
            recover(root)
            manifest = import_records(
                messages if again else islice(messages, _imported(root, origin), None),
                root,
                source=" ".join(filter(None, [database.kind, database.name, origin.session_id])),
                config=origin._asdict() | {"rebuilt_from_columns": _rebuilt(database, tables), "again": again},
                progress=lambda count: progress(start + count),  # noqa: B023
            )
        if manifest is not None:
            made.append(manifest)
            done += manifest.next_seq
    return made


def _tables(database: OldDatabase) -> list[_Table]:
    """Those of the streams' tables that the database has."""
    found = []
    for number, stream in enumerate(_STREAMS):
        columns = database.columns(stream.table)
        if columns:
            missing = {"received_timestamp", "contract_id"} - {
                *columns,
                *(["received_timestamp"] if "recv_ns" in columns else []),
            }
            if missing:
                raise UsageError(f"{database.name}: the table {stream.table} has no {' and no '.join(sorted(missing))}")
            found.append(_Table(number, columns))
    if not found:
        raise NotFoundError(f"{database.name} has none of the tables {', '.join(one.table for one in _STREAMS)}")
    return found


def _origins(database: OldDatabase, tables: Sequence[_Table]) -> list[_Origin]:
    """The sessions of the database; rows without one are of one session, too."""
    ids: set[str | None] = set()
    for table in tables:
        wanted = "session_id" if "session_id" in table.columns else "NULL"
        ids |= {row["session_id"] for row in database.ask(f"SELECT DISTINCT {wanted} AS session_id FROM {table.name}")}
    ordered = sorted(ids, key=lambda one: one or "")
    return [_Origin(database.name, one, _fingerprint(database, tables, one)) for one in ordered]


def _fingerprint(database: OldDatabase, tables: Sequence[_Table], session_id: str | None) -> str:
    """What tells a session of one database from that of another, and stays while it grows."""
    first = [dict(row.values) for row in islice(_rows(database, tables, session_id), 1)]
    return hashlib.sha256(repr(first).encode()).hexdigest()[:16]


def _imported(root: Path, origin: _Origin) -> int:
    """How many of its messages are in the lake."""
    same = (
        one
        for one in read_manifests(root)
        if (one.config.get("fingerprint"), one.config.get("session_id")) == (origin.fingerprint, origin.session_id)
        and not one.config.get("again")
    )
    return sum(one.next_seq for one in same)


def _rebuilt(database: OldDatabase, tables: Sequence[_Table]) -> list[str]:
    """The tables of which some row has no original text."""
    found = []
    for table in tables:
        query = f"SELECT 1 AS found FROM {table.name} WHERE raw_data IS NULL LIMIT 1"
        if "raw_data" not in table.columns or list(database.ask(query)):
            found.append(table.name)
    return found


def _messages(database: OldDatabase, tables: Sequence[_Table], session_id: str | None) -> Iterator[tuple[int, bytes]]:
    """The session as hub records, in the order of their arrival."""
    for _, together in groupby(_rows(database, tables, session_id), key=_Arrival()):
        rows = list(together)
        yield rows[0].recv_ns, _record(_STREAMS[rows[0].stream], rows)


class _Arrival:
    """A number for each message: rows of one arrival, stream and contract whose places go up are one."""

    def __init__(self) -> None:
        self._last: _Row | None = None
        self._number = 0

    def __call__(self, row: _Row) -> int:
        if self._last is None or not _continues(self._last, row):
            self._number += 1
        self._last = row
        return self._number


def _continues(last: _Row, row: _Row) -> bool:
    same = (last.recv_ns, last.seq, last.stream) == (row.recv_ns, row.seq, row.stream)
    if not same or last.values["contract_id"] != row.values["contract_id"]:
        return False
    if last.pos is None or row.pos is None:
        return False
    return row.pos > last.pos


def _rows(database: OldDatabase, tables: Sequence[_Table], session_id: str | None) -> Iterator[_Row]:
    """The rows of all tables, merged."""
    each = [_table_rows(database, table, session_id) for table in tables]
    return heapq.merge(*each, key=lambda row: row[:4])


def _table_rows(database: OldDatabase, table: _Table, session_id: str | None) -> Iterator[_Row]:
    time = "recv_ns" if "recv_ns" in table.columns else "received_timestamp"
    number = database.row_number(table.name)
    order = ", ".join([time, *(("seq", "pos") if {"seq", "pos"} <= {*table.columns} else ()), number])
    is_session = "IS NULL" if session_id is None else f"= {quoted(session_id)}"
    where = f"WHERE session_id {is_session}" if "session_id" in table.columns else ""
    if where == "" and session_id is not None:
        return
    place = next((one for one in _PLACES if one in table.columns), None)
    for values in database.ask(f"SELECT {number} AS number_of_row, * FROM {table.name} {where} ORDER BY {order}"):
        pos = values[place] if place else None
        recv_ns, seq = _recv_ns(values, table.name), values.get("seq") or 0
        yield _Row(recv_ns, seq, table.number, values["number_of_row"], pos, values)


def _recv_ns(values: Mapping[str, Any], table: str) -> int:
    if values.get("recv_ns") is not None:
        return int(values["recv_ns"])
    try:
        return parse_ns(str(values["received_timestamp"]))
    except ValueError as error:
        row = values["number_of_row"]
        raise UsageError(f"row {row} of {table} has no time of its arrival ({error})") from error


def _record(stream: _Stream, rows: Sequence[_Row]) -> bytes:
    """A hub record of these entries; one that is missing among their places was none that could be used."""
    entries: list[bytes] = []
    for row in rows:
        at = len(entries) if row.pos is None else max(int(row.pos), len(entries))
        entries += [b"null"] * (at - len(entries)) if "seq" in row.values else []
        entries.append(_entry(stream, row.values))
    data = entries[0] if stream.table == "quotes" and len(entries) == 1 else b"[" + b",".join(entries) + b"]"
    contract = _encode(rows[0].values["contract_id"])
    return b'{"type":1,"target":"%s","arguments":[%s,%s]}' % (stream.target.encode(), contract, data)


def _entry(stream: _Stream, values: Mapping[str, Any]) -> bytes:
    raw = values.get("raw_data")
    if raw is not None:
        return bytes(msgspec.json.format(str(raw).encode(), indent=-1)) if "\n" in str(raw) else str(raw).encode()
    fields: dict[str, Any] = {wire: values.get(name) for wire, name in stream.fields.items()}
    changed = values.get("changed")
    if stream.table == "quotes" and changed is not None:
        fields = {wire: value for bit, (wire, value) in enumerate(fields.items()) if changed & (1 << bit)}
    times = {"timestamp": "exch", "lastUpdated": "updated"} if stream.table == "quotes" else {"timestamp": "exch"}
    fields |= {wire: _time(values, name) for wire, name in times.items()}
    return _encode({wire: value for wire, value in fields.items() if value is not None})


def _time(values: Mapping[str, Any], name: str) -> str | None:
    """A time of an entry as the gateway writes it."""
    exact = values.get(f"{name}_ns")
    if exact is not None:
        return format_ns(int(exact), _NS_DIGITS)
    names = ("exchange_timestamp",) if name == "exch" else ("updated_timestamp", "last_updated")
    return next((str(values[one]) for one in names if values.get(one) is not None), None)
