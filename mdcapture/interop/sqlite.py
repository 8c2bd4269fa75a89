"""Moving over: the replaced system's SQLite file into sessions, through the journal like everything else.

Each row becomes an entry of a hub message again: from `raw_data`, its original text, where the file has it, else from
the columns, and the manifest says so. Rows that arrived together are one message. Files that `export` wrote have places
(`seq`, `pos`) and nanoseconds, and come back exactly; those of the replaced system have microseconds.

An import that was interrupted goes on where it ended, in a further session; what is there already is passed over.
"""

from __future__ import annotations

import hashlib
import heapq
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from mdcapture.errors import NotFoundError, UsageError
from mdcapture.interop.importing import import_records
from mdcapture.lake.manifest import read_manifest, session_ids
from mdcapture.lake.schema import QUOTE_STATE
from mdcapture.lake.seal import recover
from mdcapture.wire.timestamps import format_ns, parse_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mdcapture.lake.manifest import Manifest


__all__ = ["import_sqlite", "is_sqlite"]

_MAGIC: Final = b"SQLite format 3\x00"
_NS_DIGITS: Final = 9
_encode = msgspec.json.Encoder().encode


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
    """One session of a file: what its sessions in the lake are recognised by."""

    file: str
    session_id: str | None
    fingerprint: str

    @property
    def source(self) -> str:
        return f"sqlite {self.file}" + (f" {self.session_id}" if self.session_id else "")


def is_sqlite(path: str) -> bool:
    """Whether a file is a SQLite database."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def import_sqlite(path: str, root: Path, *, progress: Callable[[int], object] = lambda _: None) -> list[Manifest]:
    """Import a SQLite file of the replaced system.

    Args:
        path: The file; any of its tables `quotes`, `trades` and `market_depth` may be missing.
        root: The lake.
        progress: Told of the messages so far, now and then.

    Returns:
        The manifests of the sessions that were made: one for each in the file; none where all was there already.

    Raises:
        NotFoundError: There is no such file.
        UsageError: It is no such file, or a row has no time.
        StorageError: The lake can't be written.
    """
    if not Path(path).is_file():
        raise NotFoundError(f"there is no file {path}")
    recover(root)
    made: list[Manifest] = []
    done = 0
    try:
        with closing(sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            tables = _tables(connection, path)
            for origin in _origins(connection, tables, Path(path).name):
                messages = _messages(connection, tables, origin.session_id)
                config = origin._asdict() | {"rebuilt_from_columns": _rebuilt(connection, tables)}
                rest = islice(messages, _imported(root, origin), None)
                start = done
                manifest = import_records(
                    rest,
                    root,
                    source=origin.source,
                    config=config,
                    progress=lambda count: progress(start + count),  # noqa: B023
                )
                if manifest is not None:
                    made.append(manifest)
                    done += manifest.next_seq
    except sqlite3.Error as error:
        raise UsageError(f"{path} can't be read as a SQLite file ({error})") from error
    return made


def _tables(connection: sqlite3.Connection, path: str) -> dict[int, list[str]]:
    """The columns of those streams' tables that the file has, by the stream's number."""
    found = {}
    for number, stream in enumerate(_STREAMS):
        columns = [str(row["name"]) for row in connection.execute(f"PRAGMA table_info({stream.table})")]
        if columns:
            missing = {"received_timestamp", "contract_id"} - {
                *columns,
                *(["received_timestamp"] if "recv_ns" in columns else []),
            }
            if missing:
                raise UsageError(f"{path}: the table {stream.table} has no {' and no '.join(sorted(missing))}")
            found[number] = columns
    if not found:
        raise UsageError(f"{path} has none of the tables {', '.join(one.table for one in _STREAMS)}")
    return found


def _origins(connection: sqlite3.Connection, tables: Mapping[int, Sequence[str]], file: str) -> list[_Origin]:
    """The sessions of the file; rows without one are of one session, too."""
    ids: set[str | None] = set()
    for number, columns in tables.items():
        wanted = "session_id" if "session_id" in columns else "NULL"
        query = f"SELECT DISTINCT {wanted} FROM {_STREAMS[number].table}"  # noqa: S608  # names of ours
        ids |= {row[0] for row in connection.execute(query)}
    ordered = sorted(ids, key=lambda one: one or "")
    return [_Origin(file, one, _fingerprint(connection, tables, one)) for one in ordered]


def _fingerprint(connection: sqlite3.Connection, tables: Mapping[int, Sequence[str]], session_id: str | None) -> str:
    """What tells a session of one file from that of another, and stays while the file grows."""
    first = [dict(row.values) for row in islice(_rows(connection, tables, session_id), 1)]
    return hashlib.sha256(repr(first).encode()).hexdigest()[:16]


def _imported(root: Path, origin: _Origin) -> int:
    """How many of its messages are in the lake."""
    manifests = (read_manifest(root, one) for one in session_ids(root))
    same = (
        one
        for one in manifests
        if (one.config.get("fingerprint"), one.config.get("session_id")) == (origin.fingerprint, origin.session_id)
    )
    return sum(one.next_seq for one in same)


def _rebuilt(connection: sqlite3.Connection, tables: Mapping[int, Sequence[str]]) -> list[str]:
    """The tables of which some row has no original text."""
    found = []
    for number, columns in tables.items():
        table = _STREAMS[number].table
        query = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE raw_data IS NULL)"  # noqa: S608  # names of ours
        if "raw_data" not in columns or connection.execute(query).fetchone()[0]:
            found.append(table)
    return found


def _messages(
    connection: sqlite3.Connection, tables: Mapping[int, Sequence[str]], session_id: str | None
) -> Iterator[tuple[int, bytes]]:
    """The session as hub records, in the order of their arrival."""
    for _, together in groupby(_rows(connection, tables, session_id), key=_Arrival()):
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


def _rows(
    connection: sqlite3.Connection, tables: Mapping[int, Sequence[str]], session_id: str | None
) -> Iterator[_Row]:
    """The rows of all tables, merged."""
    each = [_table_rows(connection, number, columns, session_id) for number, columns in tables.items()]
    return heapq.merge(*each, key=lambda row: row[:4])


def _table_rows(
    connection: sqlite3.Connection, number: int, columns: Sequence[str], session_id: str | None
) -> Iterator[_Row]:
    time = "recv_ns" if "recv_ns" in columns else "received_timestamp"
    order = ", ".join([time, *(("seq", "pos") if {"seq", "pos"} <= {*columns} else ()), "rowid"])
    where = "WHERE session_id IS ?" if "session_id" in columns else "WHERE ? IS NULL"
    query = f"SELECT rowid AS number_of_row, * FROM {_STREAMS[number].table} {where} ORDER BY {order}"  # noqa: S608
    place = next((one for one in _PLACES if one in columns), None)
    for row in connection.execute(query, (session_id,)):
        values = dict(row)
        pos = values[place] if place else None
        yield _Row(_recv_ns(values, number), values.get("seq") or 0, number, values["number_of_row"], pos, values)


def _recv_ns(values: Mapping[str, Any], number: int) -> int:
    if values.get("recv_ns") is not None:
        return int(values["recv_ns"])
    try:
        return parse_ns(str(values["received_timestamp"]))
    except ValueError as error:
        row = values["number_of_row"]
        raise UsageError(f"row {row} of {_STREAMS[number].table} has no time of its arrival ({error})") from error


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
