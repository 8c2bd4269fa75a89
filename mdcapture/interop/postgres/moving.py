# ruff: noqa: S608  # what stands in the statements are names of ours, and values that are quoted
"""The replaced system's PostgreSQL database, as `mdcapture.interop.moving` reads it.

Its tables are those that the connection's `search_path` finds, `public` as a rule. A time without a zone is one of UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mdcapture.config import check_address
from mdcapture.errors import NotFoundError
from mdcapture.interop.moving import move
from mdcapture.interop.postgres.connection import connected
from mdcapture.interop.postgres.tables import holds_sessions
from mdcapture.query.views import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mdcapture.lake.manifest import Manifest

__all__ = ["import_postgres"]


def import_postgres(
    address: str, root: Path, *, again: bool = False, progress: Callable[[int], object] = lambda _: None
) -> list[Manifest]:
    """Import a PostgreSQL database of the replaced system; result and errors as those of `move`.

    Args:
        address: The database, as `postgresql://user@host/database`.
        root: The lake.
        again: Import all of it, also what is in the lake already.
        progress: Told of the messages so far, now and then.

    Raises:
        UsageError: The address holds a password.
        ServerError: The server did not answer, or refused; what had come is a session, and the import can go on.
    """
    database = _PostgresDatabase(check_address(address))
    try:
        return move(database, root, again=again, progress=progress)
    except NotFoundError as error:
        with connected(address) as connection, connection.cursor() as cursor:
            if not holds_sessions(cursor):
                raise
        raise NotFoundError(f"{error}; its sessions were published by mdcapture: read them with --lake") from None


class _PostgresDatabase:
    """A database; each question has a connection of its own, so that the answers to several can be read at once."""

    kind = "postgresql"

    def __init__(self, address: str) -> None:
        self.name = address.partition("://")[2].rpartition("@")[2].partition("?")[0]
        self._address = address

    def columns(self, table: str) -> list[str]:
        found = self.ask(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = ANY (current_schemas(false))"
            f" AND table_name = {quoted(table)} ORDER BY ordinal_position"
        )
        return [row["column_name"] for row in found]

    def row_number(self, table: str) -> str:
        return "id" if "id" in self.columns(table) else "ctid"

    def ask(self, query: str) -> Iterator[dict[str, Any]]:
        with connected(self._address) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            for batch in cursor.fetch_record_batch():
                columns = [_plain(column) for column in batch.columns]
                for values in zip(*columns, strict=True):
                    yield dict(zip(batch.schema.names, values, strict=True))


def _plain(column: pa.Array) -> list[Any]:
    """A column's values as SQLite would have them."""
    if isinstance(column.type, pa.OpaqueType) and column.type.type_name == "numeric":
        return [None if value is None else float(value) for value in column.storage.to_pylist()]
    if pa.types.is_timestamp(column.type):
        return [None if value is None else _utc(value) for value in column.to_pylist()]
    return list(column.to_pylist())


def _utc(time: datetime) -> str:
    return (time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)).isoformat()
