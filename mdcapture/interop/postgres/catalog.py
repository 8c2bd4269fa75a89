# ruff: noqa: S608  # what stands in the statements are names of ours, and values that are quoted
"""Sessions on the server, read like those of a folder: manifests for all that asks what there is, rows for the rest.

    lake = open_lake("postgresql://user@host/database")

A session that is still captured is there as far as it was published. The server picks contract and columns; rows travel
in batches, as Arrow.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import pyarrow as pa

from mdcapture.config import check_address
from mdcapture.errors import NotFoundError
from mdcapture.interop.postgres.connection import connected, rows_of, transaction
from mdcapture.interop.postgres.tables import VIEWS, holds_sessions
from mdcapture.lake.catalog import Catalog, Snapshot, empty_tail
from mdcapture.lake.columns import arrow_schema
from mdcapture.lake.layout import session_order
from mdcapture.lake.manifest import Manifest
from mdcapture.lake.schema import ORDER, PARTITIONS
from mdcapture.query.views import columns_of, named, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from adbc_driver_manager.dbapi import Cursor

__all__ = ["PostgresCatalog", "open_postgres"]

_NO_FILES: Final = Path(os.devnull)


def open_postgres(address: str) -> PostgresCatalog:
    """The catalog of a database that sessions were published to.

    Raises:
        UsageError: The address holds a password, or a newer mdcapture has written there.
        NotFoundError: Nothing was published to it.
        ServerError: The server did not answer, or refused.
    """
    with connected(address) as connection, transaction(connection) as cursor:
        if not holds_sessions(cursor):
            raise NotFoundError(f"nothing was published to {address}: `mdcapture publish SESSION --to` does that")
    return PostgresCatalog(address)


class PostgresCatalog(Catalog):
    """The sessions of a database, for reading. Any thread may ask; each question has a connection of its own.

    Args:
        address: The database, as `postgresql://user@host/database`.
    """

    def __init__(self, address: str) -> None:
        super().__init__(_NO_FILES)
        self.place = check_address(address)
        self.fetch = self._fetch

    def session_ids(self) -> list[str]:
        """The sessions, the oldest first."""
        with self._asked() as cursor:
            found = rows_of(cursor, f"SELECT session_id FROM {VIEWS}.sessions")
        return sorted((one for (one,) in found), key=session_order)

    def manifest(self, session_id: str) -> Manifest:
        """A session's manifest, as it is now; it names no files.

        Raises:
            NotFoundError: There is no such session.
        """
        return self.manifests([session_id])[0]

    def manifests(self, session_ids: Iterable[str], *, named: bool = True) -> list[Manifest]:
        """The manifests of sessions; arguments as those of `Catalog`, errors as those of `manifest`."""
        wanted = list(session_ids)
        with self._asked() as cursor:
            query = (
                f"SELECT manifest::text FROM {VIEWS}.sessions WHERE session_id IN ({', '.join(map(quoted, wanted))})"
            )
            texts = rows_of(cursor, query) if wanted else []
        found = {one.session_id: one for one in (msgspec.json.decode(text, type=Manifest) for (text,) in texts)}
        missing = [one for one in wanted if one not in found]
        if missing and named:
            raise NotFoundError(f"no session {missing[0]} in {self.place}: `mdcapture sessions` lists them")
        return [msgspec.structs.replace(found[one], files=[]) for one in wanted if one in found]

    def snapshot(self, session_id: str) -> Snapshot:
        """A session as it is now, as far as it was published; errors as those of `manifest`."""
        return self.snapshots([session_id])[0]

    def snapshots(self, session_ids: Iterable[str], *, named: bool = True) -> list[Snapshot]:
        """Sessions as they are now; arguments and errors as those of `manifests`."""
        return [Snapshot(manifest, empty_tail()) for manifest in self.manifests(session_ids, named=named)]

    def _fetch(
        self, session_id: str, table: str, contract_id: str | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        names = [*PARTITIONS, *columns_of(table)] if columns is None else columns
        types = {name: pa.string() for name in PARTITIONS} | {one.name: one.type for one in arrow_schema(table)}
        schema = pa.schema([(name, types[name]) for name in names])
        contract = "" if contract_id is None else f" AND contract_id = {quoted(contract_id)}"
        order = ["contract_id", *(name for name in ORDER if name in columns_of(table))]
        with self._asked() as cursor:
            cursor.execute(
                f"SELECT {', '.join(map(named, names))} FROM {VIEWS}.{table}"
                f" WHERE session_id = {quoted(session_id)}{contract} ORDER BY {', '.join(order)}"
            )
            for batch in cursor.fetch_record_batch():
                yield batch.cast(schema)

    @contextmanager
    def _asked(self) -> Iterator[Cursor]:
        with connected(self.place) as connection, transaction(connection) as cursor:
            yield cursor
