# ruff: noqa: S608  # what stands in the statements are names of ours, and values that are quoted
"""Sessions to the server, each row once: running it again, or after a crash at any point, changes nothing.

    lake: manifest, files, journal ──▶ rows that the server has not ──COPY──▶ partitions ┐ one transaction
                                       the manifest, as far as its rows are there now ───┘ for each piece

The server's manifest of a session says what it holds, as the lake's says what the lake holds: rows and manifest come in
the same transaction, so that one is never ahead of the other. What comes next is read off it. A running session is
published as far as it has been received, and goes on from there.

COPY goes straight into the session's partition: the transaction makes of it the staging table that it would need else,
and no row is written twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.fs import LocalFileSystem

from mdcapture.errors import DamageError, UsageError
from mdcapture.interop.postgres.connection import connected, rows_of, rows_refused, transaction
from mdcapture.interop.postgres.tables import SCHEMA, partition, prepare
from mdcapture.lake.catalog import reread
from mdcapture.lake.manifest import Manifest
from mdcapture.lake.parquet import as_dataset
from mdcapture.lake.remote import RemotePath
from mdcapture.lake.schema import TABLES
from mdcapture.query.views import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from adbc_driver_manager.dbapi import Connection, Cursor

    from mdcapture.errors import MdcaptureError
    from mdcapture.lake.catalog import Catalog, Snapshot
    from mdcapture.lake.remote import Location

__all__ = ["Brought", "captured_for", "publish", "publish_session"]

_PIECE_MESSAGES: Final = 250_000
"""As many as fit well into memory, with all of their rows."""
_LATE: Final = ("incidents", "backfill", "signals")
"""Rows of these tables follow their messages, one after the other: those of the last message may not be all."""
_NUL: Final = "\0"
_NO_NUL: Final = "\N{REPLACEMENT CHARACTER}"
"""What stands for the one character that PostgreSQL's text can't hold."""


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """What of a session is on the server: its status and messages there, and how many rows were brought now."""

    session_id: str
    status: str
    messages: int
    rows: int


class _Held(NamedTuple):
    """What the server holds of a session, and by table the `seq` from which on its rows may not be all."""

    manifest: Manifest
    marks: dict[str, int]


def publish(
    catalog: Catalog,
    session_ids: Sequence[str],
    address: str,
    *,
    piece_messages: int = _PIECE_MESSAGES,
    progress: Callable[[int], object] = lambda _: None,
) -> list[Brought]:
    """Publish sessions, each as far as it has been received.

    Args:
        catalog: The lake; recorders may be writing to it.
        session_ids: The sessions.
        address: The database, as `postgresql://user@host/database`.
        piece_messages: The rows of so many messages come in one transaction.
        progress: Told of the rows so far, now and then.

    Raises:
        UsageError: The database holds something else under our names; or a session of another lake, and all others are
            published.
        ServerError: The server did not answer, or refused; what was finished is there.
        DamageError: The lake's files are not what a manifest says, or the server has more of a session than the lake,
            and all others are published.
    """
    done: list[Brought] = []
    failures: list[MdcaptureError] = []
    with connected(address) as connection:
        with transaction(connection) as cursor:
            prepare(cursor)
        for session_id in session_ids:
            before = sum(one.rows for one in done)
            try:
                held, rows = publish_session(
                    connection,
                    catalog,
                    session_id,
                    piece_messages=piece_messages,
                    progress=lambda rows: progress(before + rows),  # noqa: B023
                )
            except (UsageError, DamageError) as failure:
                failures.append(failure)
            else:
                done.append(Brought(session_id=session_id, status=held.state, messages=held.next_seq, rows=rows))
    if failures:
        raise failures[0]
    return done


def captured_for(catalog: Catalog, address: str) -> list[str]:
    """The sessions that were captured with this address to publish to, the oldest first."""
    manifests = catalog.manifests(catalog.session_ids(), named=False)
    return [one.session_id for one in manifests if one.config.get("publish") == address]


def publish_session(
    connection: Connection,
    catalog: Catalog,
    session_id: str,
    *,
    known: Manifest | None = None,
    piece_messages: int = _PIECE_MESSAGES,
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[Manifest, int]:
    """Publish what the server has not yet of one session; errors as those of `publish`.

    Args:
        connection: To a database that is prepared.
        catalog: The lake.
        session_id: The session.
        known: What the server is known to hold: where that is all, it is not asked.
        piece_messages: The rows of so many messages come in one transaction.
        progress: Told of the rows so far.

    Returns:
        What the server holds then, and how many rows were brought.
    """
    if known is not None and known == _published(catalog.snapshot(session_id)):
        return known, 0
    rows = 0
    while True:
        with rows_refused(session_id):
            piece = reread(lambda: _bring(connection, catalog, session_id, piece_messages))
        rows += piece.rows
        progress(rows)
        if piece.last:
            return piece.held, rows


class _Piece(NamedTuple):
    """What the server holds after a transaction, how many rows that brought, and whether they were the last of all."""

    held: Manifest
    rows: int
    last: bool


def _bring(connection: Connection, catalog: Catalog, session_id: str, messages: int) -> _Piece:
    """Publish some of what the server has not yet, in one transaction."""
    with transaction(connection) as cursor:
        rows_of(cursor, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))::text", [session_id])
        now = catalog.snapshot(session_id)
        goal = _published(now)
        held = _held(cursor, session_id) or _Held(msgspec.structs.replace(goal, next_seq=0, counts={}, files=[]), {})
        if held.manifest == goal:
            return _Piece(goal, 0, last=True)
        _check(held.manifest, goal)
        until = min(goal.next_seq, held.manifest.next_seq + messages)
        last = until == goal.next_seq
        counts, marks, brought = dict(held.manifest.counts), dict(held.marks), 0
        for table in TABLES:
            first = _first(table, held, goal)
            if first is not None:
                rows = _rows(catalog, now, table, first, None if last else until)
                counts[table] = counts.get(table, 0) - _replace(cursor, table, session_id, first, rows) + len(rows)
                marks[table] = max(first, pc.max(rows["seq"]).as_py() or 0) if table in _LATE else until
                brought += len(rows)
        counts = {table: count for table, count in counts.items() if count}
        if last and counts != goal.counts:
            raise DamageError(
                f"{session_id}: the files hold {counts} rows, and the manifest says {goal.counts}: nothing more was "
                "published (`mdcapture verify` says what is damaged)"
            )
        after = goal if last else msgspec.structs.replace(goal, state="open", next_seq=until, counts=counts)
        _hold(cursor, _Held(after, marks))
    return _Piece(after, brought, last)


def _first(table: str, held: _Held, goal: Manifest) -> int | None:
    """The message from which on the rows of a table are brought; None where all of them are there."""
    if table not in _LATE:
        return held.marks.get(table, 0)
    if goal.state != "open" and _checksums(held.manifest, table) != _checksums(goal, table):
        return 0  # a session that has ended can be given other signals
    complete = held.manifest.counts.get(table, 0) == goal.counts.get(table, 0)
    return None if complete else held.marks.get(table, 0)


def _checksums(manifest: Manifest, table: str) -> list[str]:
    return [file.sha256 for file in manifest.files_of(table)]


def _replace(cursor: Cursor, table: str, session_id: str, first: int, rows: pa.Table) -> int:
    """Bring rows in place of those that a session has from a message on; how many these were.

    Only tables whose rows come late have any.
    """
    removed = 0
    if table in _LATE:
        cursor.execute(f"DELETE FROM {SCHEMA}.{table} WHERE session_id = {quoted(session_id)} AND seq >= {first}")
        removed = cursor.rowcount
    if len(rows):
        target = partition(cursor, table, session_id)
        cursor.adbc_ingest(target, rows.to_reader(), mode="append", db_schema_name=SCHEMA)
    return removed


def _check(held: Manifest, goal: Manifest) -> None:
    """Make sure that the server's session is this one, and that the lake has all that the server has."""
    if held.created_ns != goal.created_ns:
        raise UsageError(
            f"{goal.session_id}: the database has a session of this name from another lake, which is left alone; give "
            "each lake a database of its own"
        )
    if held.next_seq > goal.next_seq:
        raise DamageError(
            f"{goal.session_id}: the database has messages beyond the lake's last ({goal.next_seq}): it is left alone"
        )


def _published(now: Snapshot) -> Manifest:
    """The manifest of a session with all that was received, sealed or not, as the server is to have it."""
    waiting = now.tail["messages"]["seq"]
    manifest = msgspec.structs.replace(
        now.manifest,
        start_ns=now.start_ns,
        end_ns=now.end_ns,
        contracts=now.contracts,
        counts={table: count for table, count in now.counts.items() if count},
        next_seq=pc.max(waiting).as_py() + 1 if len(waiting) else now.manifest.next_seq,
        quote_state={},
        damage=[],
    )
    text = msgspec.json.encode(manifest)
    return msgspec.json.decode(text.replace(rb"\u0000", rb"\ufffd"), type=Manifest) if rb"\u0000" in text else manifest


def _rows(catalog: Catalog, now: Snapshot, table: str, first: int, until: int | None) -> pa.Table:
    """The rows of the messages from one on and before another, from files and journal."""
    wanted = pc.field("seq") >= first
    if until is not None:
        wanted &= pc.field("seq") < until
    files = [
        file
        for file in now.manifest.files_of(table)
        if file.last_seq >= first and (until is None or file.first_seq < until)
    ]
    sealed = as_dataset(_arrow_path(catalog.root), files, table)
    tail = now.tail[table].filter(wanted)
    keyed = tail.add_column(0, "session_id", pa.repeat(now.manifest.session_id, len(tail))).cast(sealed.schema)
    rows = pa.concat_tables([sealed.to_table(filter=wanted), keyed])
    for number, field in enumerate(rows.schema):
        is_text = field.type == pa.string() and field.name != "session_id"
        if is_text and pc.any(pc.match_substring(rows[number], _NUL)).as_py():
            rows = rows.set_column(number, field, pc.replace_substring(rows[number], _NUL, _NO_NUL))
    return rows


def _arrow_path(root: Location) -> RemotePath:
    """A lake as Arrow reaches it, wherever it is."""
    return root if isinstance(root, RemotePath) else RemotePath(LocalFileSystem(), str(root), str(root))


def _held(cursor: Cursor, session_id: str) -> _Held | None:
    query = f"SELECT manifest::text, marks::text FROM {SCHEMA}.sessions WHERE session_id = $1"
    found = rows_of(cursor, query, [session_id])
    return next(_decoded(found), None)


def _decoded(rows: Sequence[tuple[Any, ...]]) -> Iterator[_Held]:
    for manifest, marks in rows:
        yield _Held(msgspec.json.decode(manifest, type=Manifest), msgspec.json.decode(marks, type=dict[str, int]))


def _hold(cursor: Cursor, held: _Held) -> None:
    manifest, marks = (msgspec.json.encode(part).decode() for part in held)
    cursor.execute(
        f"INSERT INTO {SCHEMA}.sessions (session_id, manifest, marks) VALUES ($1, $2::text::json, $3::text::json)"
        " ON CONFLICT (session_id) DO UPDATE SET manifest = excluded.manifest, marks = excluded.marks",
        [held.manifest.session_id, manifest, marks],
    )
