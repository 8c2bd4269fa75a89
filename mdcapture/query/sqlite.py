r"""The lake as a SQLite database: DB-API 2.0, for programs that were written for the replaced system's file.

    connection = open_lake("data").sqlite()
    connection.row_factory = sqlite3.Row
    query = "SELECT side, sum(volume) AS lots FROM trades WHERE price > ? GROUP BY side"
    for row in connection.execute(query, (4800,)):
        print(row["side"], row["lots"])

It reads only. What the dialect does otherwise is listed in `docs/sqlite.md`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from mdcapture.errors import UsageError
from mdcapture.query.dialect import translate
from mdcapture.query.sql import Database, Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from mdcapture.lake.catalog import Catalog

__all__ = ["SQLiteConnection", "SQLiteCursor", "SQLiteDatabase", "SQLiteError", "SQLiteMisuseError"]

_INTEGER: Final = r"'^\s*([+-]?\d{1,18})'"
_NUMBER: Final = r"'^\s*([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)'"
_WHEN: Final = r"'\s*\d{4}-\d\d-\d\d([T ]+\d\d:\d\d(:\d\d(\.\d+)?)?\s*([Zz]|[+-]\d\d:\d\d)?)?\s*'"
_CLOCK: Final = r"'\s*\d\d:\d\d(:\d\d(\.\d+)?)?\s*'"

_BY_KIND: Final = {
    "sqlite_text": {
        "i": "x::BIGINT::VARCHAR",
        # SQLite writes a zero without its sign
        "r": r"regexp_replace(printf('%.15g', x::DOUBLE + 0), '^(-?\d+)($|e)', '\1.0\2')",
        "t": "x::VARCHAR",
    },
    "sqlite_number": {
        "i": "x",
        "r": "x",
        "t": f"CASE WHEN x IS NOT NULL THEN coalesce(TRY_CAST(regexp_extract(x, {_NUMBER}, 1) AS DOUBLE), 0) END",
    },
    "sqlite_integer": {
        "i": "x::BIGINT",
        "r": "trunc(x)::BIGINT",
        "t": f"CASE WHEN x IS NOT NULL THEN coalesce(TRY_CAST(regexp_extract(x, {_INTEGER}, 1) AS BIGINT), 0) END",
    },
    "sqlite_truth": {"i": "x <> 0", "r": "x <> 0", "t": "sqlite_number_t(x) <> 0"},
    "sqlite_quote": {"i": "coalesce(x::VARCHAR, 'NULL')", "r": "coalesce(sqlite_text_r(x), 'NULL')"}
    | {"t": "coalesce('''' || replace(x, '''', '''''') || '''', 'NULL')"},
}
_BY_KINDS: Final = {
    "sqlite_divide": {"i": "a // NULLIF(b, 0)", "r": "a::DOUBLE / NULLIF(b, 0)"},
    "sqlite_modulo": {"i": "a % NULLIF(b, 0)"} | {"r": "(trunc(a)::BIGINT % NULLIF(trunc(b)::BIGINT, 0))::DOUBLE"},
}
_TYPES: Final = {"i": "BIGINT", "r": "DOUBLE", "t": "VARCHAR"}
_OTHERS: Final = rf"""
CREATE MACRO sqlite_is_whole(x) AS regexp_full_match(x, '\s*[+-]?\d+\s*');
CREATE MACRO sqlite_divide_t(a, b) AS CASE
    WHEN sqlite_is_whole(a) AND sqlite_is_whole(b) THEN trunc(sqlite_divide_r(sqlite_number_t(a), sqlite_number_t(b)))
    ELSE sqlite_divide_r(sqlite_number_t(a), sqlite_number_t(b)) END;
CREATE MACRO sqlite_above(x) AS CASE WHEN x IS NOT NULL THEN 'inf'::DOUBLE END;
CREATE MACRO sqlite_as_number(x) AS coalesce(TRY_CAST(x AS DOUBLE), sqlite_above(x));
CREATE MACRO sqlite_typeof(x) AS CASE
    WHEN x IS NULL THEN 'null' WHEN typeof(x) IN ('DOUBLE', 'FLOAT') THEN 'real'
    WHEN typeof(x) = 'VARCHAR' THEN 'text' ELSE 'integer' END;
CREATE MACRO sqlite_random() AS (random() * 18446744073709551615.0 - 9223372036854775808.0)::HUGEINT::BIGINT;
CREATE MACRO sqlite_json_type(x, path) AS CASE json_type(x, path)
    WHEN 'OBJECT' THEN 'object' WHEN 'ARRAY' THEN 'array' WHEN 'VARCHAR' THEN 'text' WHEN 'DOUBLE' THEN 'real'
    WHEN 'BOOLEAN' THEN json_extract_string(x, path) WHEN 'NULL' THEN 'null'
    WHEN 'UBIGINT' THEN 'integer' WHEN 'BIGINT' THEN 'integer' END;
CREATE MACRO sqlite_of_julian(x) AS make_timestamp((floor(x * 86400000.0 + 0.5)::BIGINT - 210866760000000) * 1000);
CREATE MACRO sqlite_epoch(x) AS make_timestamp(floor(TRY_CAST(x AS DOUBLE) * 1000 + 0.5)::BIGINT * 1000);
CREATE MACRO sqlite_time(x) AS CASE
    WHEN regexp_full_match(x, {_WHEN}) THEN CAST(TRY_CAST(x AS TIMESTAMPTZ) AS TIMESTAMP)
    WHEN lower(x) = 'now' THEN date_trunc('milliseconds', CAST(now() AS TIMESTAMP))
    WHEN regexp_full_match(x, {_CLOCK}) THEN TRY_CAST('2000-01-01 ' || trim(x) AS TIMESTAMP)
    ELSE sqlite_of_julian(TRY_CAST(x AS DOUBLE)) END;
CREATE MACRO sqlite_milliseconds(t) AS date_trunc('milliseconds', t + INTERVAL 500 MICROSECONDS);
CREATE MACRO sqlite_plus(t, ms) AS t + to_microseconds((ms)::BIGINT * 1000);
CREATE MACRO sqlite_months(t, n) AS date_trunc('month', t) + to_months((n)::INTEGER) + (t - date_trunc('month', t));
CREATE MACRO sqlite_weekday(t, n) AS t + to_days((((n) - dayofweek(t) + 7) % 7)::INTEGER);
CREATE MACRO sqlite_shift(t, x) AS t + TRY_CAST(trim(x, '+ ') AS INTERVAL);
CREATE MACRO sqlite_unixepoch(t) AS epoch_us(date_trunc('second', sqlite_milliseconds(t))) // 1000000;
CREATE MACRO sqlite_unixtext(t) AS sqlite_unixepoch(t)::VARCHAR;
CREATE MACRO sqlite_julianday(t) AS (epoch_us(sqlite_milliseconds(t)) // 1000 + 210866760000000) / 86400000.0::DOUBLE;
CREATE MACRO sqlite_juliantext(t) AS printf('%.16g', sqlite_julianday(t));
CREATE MACRO sqlite_seconds(t) AS
    strftime(least(sqlite_milliseconds(t), date_trunc('minute', t) + INTERVAL 59999 MILLISECONDS), '%S.%g');
"""


def _macros() -> str:
    """The macros by kind, one of each kind by its own name and all of them by the common one."""
    made = []
    for names, table in (("x",), _BY_KIND), (("a", "b"), _BY_KINDS):
        for name, bodies in table.items():
            plain = ", ".join(names)
            made += [f"CREATE MACRO {name}_{kind}({plain}) AS {body};" for kind, body in bodies.items()]
            typed = [
                f"({', '.join(f'{one} {_TYPES[kind]}' for one in names)}) AS {body}" for kind, body in bodies.items()
            ]
            made.append(f"CREATE MACRO {name} {', '.join(typed)};")
    return "\n".join(made) + _OTHERS


class SQLiteError(UsageError, sqlite3.OperationalError):
    """A statement that can't be carried out; programs that expect an error of sqlite3 catch it."""


class SQLiteMisuseError(UsageError, sqlite3.ProgrammingError):
    """A cursor or connection that is closed, or a call that does not belong here."""


class SQLiteDatabase(Database):
    """The views of a lake, asked in SQLite's dialect; arguments as those of `Database`."""

    def __init__(self, catalog: Catalog, session_ids: Sequence[str] | None = None, *, restricted: bool = True) -> None:
        super().__init__(catalog, session_ids, restricted=restricted)
        self._connection.execute(_macros())

    def stream(self, query: str, parameters: Sequence[object] | Mapping[str, object] | None = None) -> Rows:
        """Ask a statement.

        Args:
            query: One statement that reads, or a PRAGMA.
            parameters: The values of its `?`, or of its `:name`.

        Returns:
            The rows; without columns for what SQLite answers with none (most pragmas).

        Raises:
            SQLiteError: It is wrong, or has no counterpart here.
            DamageError: A sealed file is missing.
        """
        try:
            translated = translate(query, parameters)
            return Rows([], iter(())) if translated is None else super().stream(translated)
        except UsageError as error:
            raise SQLiteError(str(error)) from error


class SQLiteConnection:
    """A connection as `sqlite3.connect` gives one; `Lake.sqlite` and `Session.sqlite` open it.

    Attributes:
        row_factory: Makes a row of a cursor and a tuple, as `sqlite3.Row` does; None leaves the tuple.
    """

    isolation_level: str | None = None
    in_transaction: bool = False
    total_changes: int = 0

    def __init__(self, database: SQLiteDatabase) -> None:
        self.row_factory: Callable[[Any, tuple[Any, ...]], Any] | None = None
        self._database: SQLiteDatabase | None = database

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cursor(self) -> SQLiteCursor:
        """A cursor, with the rows that `row_factory` makes."""
        self.database()
        return SQLiteCursor(self)

    def execute(self, query: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> SQLiteCursor:
        """Ask a statement with a cursor of its own; arguments and errors as those of the cursor's `execute`."""
        return self.cursor().execute(query, parameters)

    def commit(self) -> None:
        """Nothing: what is read needs no transaction."""

    def rollback(self) -> None:
        """Nothing: what is read needs no transaction."""

    def close(self) -> None:
        """Let go of the lake; cursors can't be used any more."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def database(self) -> SQLiteDatabase:
        """What is asked.

        Raises:
            SQLiteMisuseError: The connection is closed.
        """
        if self._database is None:
            raise SQLiteMisuseError("the connection is closed: open another one")
        return self._database


class SQLiteCursor:
    """A cursor as sqlite3 has one; its rows are read as they are fetched.

    Attributes:
        connection: Where it is from.
        description: A tuple of seven a column, of which the first is the name; None before a query.
        arraysize: How many rows `fetchmany` gives if it is not told.
        row_factory: As the connection's.
    """

    rowcount: int = -1
    lastrowid: int | None = None

    def __init__(self, connection: SQLiteConnection) -> None:
        self.connection = connection
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self.arraysize = 1
        self.row_factory = connection.row_factory
        self._rows: Iterator[Any] = iter(())
        self._closed = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:  # noqa: ANN401  # what the row_factory makes
        self._check()
        return next(self._rows)

    def execute(self, query: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> Self:
        """Ask a statement.

        Args:
            query: One statement that reads, or a PRAGMA, in SQLite's dialect.
            parameters: The values of its `?`, or of its `:name`.

        Returns:
            The cursor, to be iterated or fetched from.

        Raises:
            SQLiteError: It is wrong, or has no counterpart here.
            SQLiteMisuseError: The cursor or the connection is closed.
        """
        self._check()
        rows = self.connection.database().stream(query, parameters)
        self.description = tuple((name, *[None] * 6) for name in rows.names) or None
        self._rows = _made(rows, self, self.row_factory)
        return self

    def executemany(self, *_: object) -> Self:
        """Refuse: sqlite3 allows this for what writes alone.

        Raises:
            SQLiteMisuseError: Always.
        """
        raise SQLiteMisuseError("executemany is for what writes, and the lake is only read here: use execute")

    def fetchone(self) -> Any:  # noqa: ANN401  # likewise
        """The next row, or None."""
        return next(self, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows.

        Args:
            size: How many at most; `arraysize`, if not given.
        """
        self._check()
        return list(islice(self._rows, self.arraysize if size is None else size))

    def fetchall(self) -> list[Any]:
        """All the rows that are left."""
        self._check()
        return list(self._rows)

    def close(self) -> None:
        """Forget the rows that are left."""
        self._rows = iter(())
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise SQLiteMisuseError("the cursor is closed: open another one")
        self.connection.database()


def _made(rows: Rows, cursor: SQLiteCursor, factory: Callable[[Any, tuple[Any, ...]], Any] | None) -> Iterator[Any]:
    plain = (row for batch in rows.batches for row in zip(*(one.to_pylist() for one in batch.columns), strict=True))
    if factory is None:
        return plain
    if factory is sqlite3.Row:
        return _sqlite_rows(rows.names, plain)
    return (factory(cursor, row) for row in plain)


def _sqlite_rows(names: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> Iterator[sqlite3.Row]:
    """Rows of sqlite3's own type, which takes the names from a cursor of its own."""
    columns = ", ".join('NULL AS "{}"'.format(name.replace('"', '""')) for name in names)
    with closing(sqlite3.connect(":memory:")) as connection:
        own = connection.execute(f"SELECT {columns}")
        for row in rows:
            yield sqlite3.Row(own, row)
