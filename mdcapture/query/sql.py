# ruff: noqa: S608  # a name in a statement is a column of our own, a value is quoted
"""SQL on a lake: DuckDB views over the sealed files, and over what a running session has in its journal.

Views (`describe <view>` lists the columns):

    quotes, trades, depth, messages, rejects, incidents
                   the lake's tables, led by session_id and contract_id, and with the names of the replaced system:
                   symbol; received_timestamp, exchange_timestamp, … for each time in ns (UTC, microseconds, cut);
                   trades.trade_type (= side)
    market_depth   depth, with depth_type (= dom_type) and side as text
    gaps           one row a stream of a contract and time in which it can be missing messages, after from_ns (its last
                   good message) and before to_ns (its first new one): clean rows are those that no gap holds,
                   `from trades t anti join gaps g on t.session_id = g.session_id and t.contract_id = g.contract_id
                   and g.stream = 'trades' and t.recv_ns > g.from_ns and t.recv_ns < g.to_ns`
    sessions       one row a session: status, times, contracts, rows by table
    contracts      one row a session and contract: tick size and value

A relation sees the lake as it was when it was asked for, a running session with all that had been received.

`raw_data`, the JSON text of the very entry that made a row, is a column of quotes, trades, depth and market_depth for
those queries alone whose text names it (`select *` goes without): it is a join with `messages`, which DuckDB would
carry out also where nobody looks at the column.

`utc(ns)` makes a timestamp of any time in nanoseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import duckdb
import pyarrow as pa

from mdcapture.errors import DamageError, UsageError
from mdcapture.lake.catalog import contracts_table, reread, sessions_table
from mdcapture.lake.columns import arrow_schema, empty_table
from mdcapture.lake.parquet import as_dataset
from mdcapture.lake.remote import RemotePath
from mdcapture.lake.schema import PARTITIONS
from mdcapture.query.views import TABLE_VIEWS, columns_of, gaps_view, named, quoted, rows_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from mdcapture.lake.catalog import Catalog, Snapshot
    from mdcapture.lake.manifest import SealedFile
    from mdcapture.lake.remote import Location

__all__ = ["VIEWS", "Database", "Rows"]

T = TypeVar("T")

_RAW_DATA: Final = "raw_data"
_BATCH_ROWS: Final = 65_536
_MACROS: Final = r"""
CREATE MACRO utc(ns) AS make_timestamptz(ns // 1000 - (ns % 1000 < 0)::BIGINT);
CREATE MACRO symbol_of(contract_id) AS regexp_replace(contract_id, '^CON\.(.+)\.[^.]+$', '\1');
CREATE MACRO entry_of(payload, pos) AS
    TRY(coalesce(json_extract(payload, '/arguments/1/' || pos), json_extract(payload, '/arguments/1')));
"""


_CATALOG_VIEWS: Final = {"sessions": sessions_table, "contracts": contracts_table}
_GAPS: Final = "gaps"
VIEWS: Final = (*TABLE_VIEWS, _GAPS, *_CATALOG_VIEWS)
"""The names of the views."""


@dataclass(frozen=True)
class Rows:
    """A result on its way: the names of its columns, and its rows in batches, to be read once."""

    names: list[str]
    batches: Iterator[pa.RecordBatch]


class Database:
    """The views over a lake, in a DuckDB of their own, in memory. Any thread may ask.

    Args:
        catalog: The lake.
        session_ids: The sessions that the views show; without it, all that the lake has whenever it is asked.
        restricted: For queries from outside: one statement that reads, nothing outside of the lake, no settings.
    """

    def __init__(self, catalog: Catalog, session_ids: Sequence[str] | None = None, *, restricted: bool = False) -> None:
        self._catalog = catalog
        self._session_ids = session_ids
        self._restricted = restricted
        self._connection = duckdb.connect(config={"python_enable_replacements": False})
        self._connection.execute("SET GLOBAL TimeZone = 'UTC'")
        # DuckDB expects one row of a contract's folder, and would join by comparing each row with each.
        self._connection.execute("SET GLOBAL asof_loop_join_threshold = 0")
        self._connection.execute(_MACROS)
        if restricted:
            self._connection.execute(f"SET allowed_directories = [{quoted(str(catalog.root) + '/')}]")
            self._connection.execute("SET enable_external_access = false")
            self._connection.execute("SET lock_configuration = true")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of DuckDB's memory and threads, once the relations are gone too."""
        self._connection.close()

    def sql(
        self, query: str, parameters: Sequence[object] | Mapping[str, object] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """Ask a query.

        Args:
            query: One statement that gives rows, in DuckDB's dialect.
            parameters: The values of its `?`, or of its `$name`.

        Returns:
            A relation. Where a session is running it holds its rows in memory, all of one moment; else it is computed
            when it is read, from files that are gone where a session was pruned since.

        Raises:
            UsageError: The query is wrong; the message is DuckDB's.
            DamageError: A sealed file is missing.
        """

        def read(relation: duckdb.DuckDBPyRelation, snapshots: Sequence[Snapshot]) -> duckdb.DuckDBPyRelation:
            running = any(one.manifest.state == "open" for one in snapshots)
            return relation.materialize() if running else relation

        return self._ask(query, parameters, read)

    def stream(self, query: str, parameters: Sequence[object] | Mapping[str, object] | None = None) -> Rows:
        """Ask a query whose result may be larger than the memory; arguments and errors as those of `sql`.

        The batches raise UsageError too, where a value turns out wrong, or a file was merged away under a long reading.
        """

        def read(relation: duckdb.DuckDBPyRelation, _: Sequence[Snapshot]) -> Rows:
            reader = relation.to_arrow_reader(_BATCH_ROWS)
            first = next(reader, None)
            return Rows(reader.schema.names, _batches(self._catalog.root, first, reader))

        return self._ask(query, parameters, read)

    def _ask(
        self,
        query: str,
        parameters: Sequence[object] | Mapping[str, object] | None,
        read: Callable[[duckdb.DuckDBPyRelation, Sequence[Snapshot]], T],
    ) -> T:
        def attempt() -> T:
            snapshots = self._snapshots()
            cursor = self._connection.cursor()
            try:
                _define(cursor, self._catalog, snapshots, query)
                relation = cursor.sql(query, params=parameters)
                if relation is None:
                    raise UsageError(f"this gives no rows: ask with SELECT ({', '.join(VIEWS)})")
                return read(relation, snapshots)
            except (duckdb.IOException, duckdb.InvalidInputException, OSError) as error:
                gone = _gone(self._catalog.root, snapshots)
                if gone is None:
                    raise
                raise FileNotFoundError(gone) from error

        try:
            if self._restricted:
                _check_reads(self._connection.extract_statements(query))
            return reread(attempt)
        except duckdb.CatalogException as error:
            raise UsageError(f"{error}\nThe views are {', '.join(VIEWS)}.") from error
        except (duckdb.Error, OSError) as error:
            raise _trouble(self._catalog.root, error) from error

    def _snapshots(self) -> list[Snapshot]:
        if self._session_ids is None:
            return self._catalog.snapshots(self._catalog.session_ids(), named=False)
        return self._catalog.snapshots(self._session_ids)


def _batches(root: Location, first: pa.RecordBatch | None, rest: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    if first is not None:
        yield first
    try:
        yield from rest
    except OSError as error:  # so pyarrow passes on what DuckDB says
        raise _trouble(root, error) from error


def _trouble(root: Location, error: Exception) -> UsageError | DamageError:
    """What DuckDB says: of a file of the lake, which it names or whose view it could not make, or else of the query."""
    said, _, where = str(error).partition("\n")
    if re.search(rf"{re.escape(str(root))}/\S+\.parquet\b", said) or " FROM read_parquet(['" in where:
        return DamageError(
            f"a file of the lake is damaged or gone ({said}): `mdcapture verify` names it, so restore it"
        )
    return UsageError(str(error))


def _check_reads(statements: Sequence[duckdb.Statement]) -> None:
    """A COPY could write into the lake, the one folder that is open to reading."""
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        raise UsageError(
            "only one statement that reads is allowed here: SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE"
        )


def _gone(root: Location, snapshots: Sequence[Snapshot]) -> str | None:
    """A file that a snapshot names and that is not there."""
    paths = (root / file.path for one in snapshots for file in one.manifest.files)
    return next((str(path) for path in paths if not path.exists()), None)


def _define(cursor: duckdb.DuckDBPyConnection, catalog: Catalog, snapshots: Sequence[Snapshot], query: str) -> None:
    """Define the views that a query names, or all if it names none; they live as long as the cursor."""
    words = set(re.findall(r"\w+", query.lower()))
    wanted = words.intersection(VIEWS) or VIEWS
    sources: dict[str, str] = {}

    def source(table: str) -> str:
        if table not in sources:
            sources[table] = _source(cursor, catalog, snapshots, table)
        return sources[table]

    for name, view in TABLE_VIEWS.items():
        if name in wanted:
            rows = rows_view(view, source(view.table))
            if view.raw_data and _RAW_DATA in words:
                rows = _with_raw_data(rows, source("messages"))
            cursor.execute(f"CREATE TEMP VIEW {name} AS {rows}")
    if _GAPS in wanted:
        cursor.register("known_contracts", contracts_table(snapshots))
        cursor.execute(f"CREATE TEMP VIEW {_GAPS} AS {gaps_view(source('incidents'), 'known_contracts')}")
    for name, table_of in _CATALOG_VIEWS.items():
        if name in wanted:
            cursor.register(name, table_of(snapshots))


def _source(cursor: duckdb.DuckDBPyConnection, catalog: Catalog, snapshots: Sequence[Snapshot], table: str) -> str:
    """All rows of a table: its files, and what is in none: the tail of each running session, or a server's rows."""
    names = ", ".join(map(named, columns_of(table)))
    files = [file for one in snapshots for file in one.manifest.files_of(table)]
    tails = [(one.manifest.session_id, rows) for one in snapshots if len(rows := _unfiled(catalog, one, table))]
    parts = []
    if files:
        # DuckDB 2.0 loses rows of an ASOF JOIN on two columns of the path; of one that is computed it does not.
        keys = "session_id, nullif(contract_id, '') AS contract_id"
        parts.append(f"SELECT {keys}, {names} FROM {_sealed(cursor, catalog.root, files, table)}")
    elif not tails:
        tails = [("", empty_table(table, contract=True))]
    for number, (session_id, tail) in enumerate(tails, 1):
        name = f"unsealed_{table}_{number}"
        cursor.register(name, tail)
        keys = f"{quoted(session_id)} AS session_id, contract_id::VARCHAR AS contract_id"
        parts.append(f"SELECT {keys}, {names} FROM {name}")
    return " UNION ALL ".join(parts)


def _unfiled(catalog: Catalog, session: Snapshot, table: str) -> pa.Table:
    """The rows of a session that no file holds, led by the contract."""
    if catalog.fetch is None:
        return session.tail[table]
    batches = catalog.fetch(session.manifest.session_id, table, columns=["contract_id", *columns_of(table)])
    schema = pa.schema([("contract_id", pa.string()), *arrow_schema(table)])
    return pa.Table.from_batches(batches, schema)


def _sealed(cursor: duckdb.DuckDBPyConnection, root: Location, files: Sequence[SealedFile], table: str) -> str:
    """What DuckDB reads sealed files from: the files, or where they are in object storage, an Arrow dataset."""
    if isinstance(root, RemotePath):
        name = f"sealed_{table}"
        cursor.register(name, as_dataset(root, files, table))
        return name
    paths = ", ".join(quoted(str(root / file.path)) for file in files)
    types = ", ".join(f"{name}: VARCHAR" for name in PARTITIONS)
    return f"read_parquet([{paths}], hive_partitioning = true, hive_types = {{{types}}})"


def _with_raw_data(rows: str, messages: str) -> str:
    return (
        f"SELECT rows.*, entry_of(payload, pos) AS {_RAW_DATA} FROM ({rows}) AS rows"
        f" LEFT JOIN (SELECT session_id, seq, payload FROM ({messages})) USING (session_id, seq)"
    )
