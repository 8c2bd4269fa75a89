# ruff: noqa: S608  # what stands in the statements are names of ours
"""The schema's declaration as PostgreSQL has it: tables for rows, views for people.

    mdcapture_lake   sessions                   a row a session: its manifest, as far as its rows are here
                     quotes, trades, depth, …   the lake's tables, with a partition a session
    mdcapture        quotes, trades, market_depth, gaps, sessions, …   the views of `mdcapture sql`

Times are `bigint` nanoseconds; the views add timestamps for people. A session ends with the trading day, so a partition
a session is one a day, goes with the session, and is all that a query reads that names it. Rows arrive in the order of
time: a BRIN index finds a time in them, and takes next to no room. An index of another kind would cost more than all
the rest of a row's arrival.

An upgrade adds what the declaration has and the server has not; a column is never removed, nor changed.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from msgspec.structs import fields

from mdcapture.errors import UsageError
from mdcapture.interop.postgres.connection import rows_of
from mdcapture.lake.manifest import Contract
from mdcapture.lake.schema import PARTITIONS, SCHEMA_VERSION, TABLES
from mdcapture.query.views import TABLE_VIEWS, gaps_view, named, quoted, rows_view

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Cursor

__all__ = ["SCHEMA", "VIEWS", "holds_sessions", "partition", "prepare"]

SCHEMA: Final = "mdcapture_lake"
"""Where the tables are."""
VIEWS: Final = "mdcapture"
"""Where the views are: who may read them needs no right to the tables."""
_SESSIONS: Final = "sessions"
_TYPES: Final = {
    "int8": "smallint",
    "int16": "smallint",
    "int32": "integer",
    "int64": "bigint",
    "float64": "double precision",
    "string": "text",
}
_TAG: Final = re.compile(r"mdcapture schema (\d+), layout (\w+)")
_LOCK: Final = 7_236_001
"""The number of the advisory lock that whoever prepares a database holds."""

_FUNCTIONS: Final = (
    f"""CREATE OR REPLACE FUNCTION {VIEWS}.utc(ns bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
    (timestamp '1970-01-01' + (ns / 1000 - (ns % 1000 < 0)::int) * interval '1 microsecond') AT TIME ZONE 'UTC'""",
    rf"""CREATE OR REPLACE FUNCTION {VIEWS}.symbol_of(contract_id text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN regexp_replace(contract_id, '^CON\.(.+)\.[^.]+$', '\1')""",
)


def prepare(cursor: Cursor) -> None:
    """Make of a database what the declaration says, in the transaction that is under way.

    Raises:
        UsageError: It holds tables of our names and another shape, or was prepared by a newer mdcapture.
    """
    if _is_current(cursor):
        return
    rows_of(cursor, f"SELECT pg_advisory_xact_lock({_LOCK})::text")
    if _is_current(cursor):  # somebody else has done it meanwhile
        return
    for schema in (VIEWS, SCHEMA):
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    for function in _FUNCTIONS:
        cursor.execute(function)
    for table, declared in _declared().items():
        _create_or_extend(cursor, table, declared)
    for name in (*reversed(_views()),):
        cursor.execute(f"DROP VIEW IF EXISTS {VIEWS}.{name}")
    cursor.execute(f"SET LOCAL search_path = {VIEWS}, pg_catalog")
    for name, statement in _views().items():
        cursor.execute(f"CREATE VIEW {VIEWS}.{name} AS {statement}")
    for comment in _comments():
        cursor.execute(comment)
    cursor.execute(f"COMMENT ON SCHEMA {SCHEMA} IS {quoted(_tag())}")


def holds_sessions(cursor: Cursor) -> bool:
    """Whether sessions were ever published to a database.

    Raises:
        UsageError: It was prepared by a newer mdcapture.
    """
    return _found_tag(cursor) is not None


def partition(cursor: Cursor, table: str, session_id: str) -> str:
    """The name of the partition of a session's rows, made if it is not there; who reads the table is not held up."""
    name = f"{table}_{session_id}"
    if rows_of(cursor, "SELECT to_regclass($1)::text", [f"{SCHEMA}.{name}"]) == [(None,)]:
        cursor.execute(f"CREATE TABLE {SCHEMA}.{name} (LIKE {SCHEMA}.{table} INCLUDING ALL)")
        cursor.execute(
            f"ALTER TABLE {SCHEMA}.{table} ATTACH PARTITION {SCHEMA}.{name} FOR VALUES IN ({quoted(session_id)})"
        )
    return name


def _declared() -> dict[str, dict[str, str]]:
    """The types of the columns of all tables."""
    rows = {
        table.name: dict.fromkeys(PARTITIONS, "text") | {one.name: _TYPES[one.type] for one in table.columns}
        for table in TABLES.values()
    }
    return {_SESSIONS: {"session_id": "text", "manifest": "json", "marks": "json"}, **rows}


def _create_or_extend(cursor: Cursor, table: str, declared: dict[str, str]) -> None:
    query = "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2"
    there = dict(rows_of(cursor, query, [SCHEMA, table]))
    if not there:
        columns = ", ".join(f"{named(name)} {kind}" for name, kind in declared.items())
        if table == _SESSIONS:
            cursor.execute(f"CREATE TABLE {SCHEMA}.{table} ({columns}, PRIMARY KEY (session_id))")
            return
        cursor.execute(f"CREATE TABLE {SCHEMA}.{table} ({columns}) PARTITION BY LIST (session_id)")
        cursor.execute(
            f"CREATE INDEX ON {SCHEMA}.{table} USING brin (recv_ns, seq, {VIEWS}.utc(recv_ns)) WITH (autosummarize)"
        )
        return
    for name, kind in declared.items():
        if name not in there:
            cursor.execute(f"ALTER TABLE {SCHEMA}.{table} ADD COLUMN {named(name)} {kind}")
        elif there[name] != kind:
            raise UsageError(
                f"{SCHEMA}.{table} is not ours: its column {name} is {there[name]}, and should be {kind}; nothing was "
                "changed: publish to another database"
            )


def _views() -> dict[str, str]:
    """The views' statements, each after those that it uses."""
    views = {name: rows_view(view, f"SELECT * FROM {SCHEMA}.{view.table}") for name, view in TABLE_VIEWS.items()}
    counts = ", ".join(f"coalesce((manifest->'counts'->>{quoted(name)})::bigint, 0) AS {name}" for name in TABLES)
    contracts = ", ".join(
        f"{field.name} {'text' if field.type is str else 'double precision'}" for field in fields(Contract)
    )
    return {
        "sessions": f"""
            SELECT session_id, manifest->>'state' AS status, manifest->>'source' AS source,
                (manifest->>'start_ns')::bigint AS start_ns, (manifest->>'end_ns')::bigint AS end_ns,
                utc((manifest->>'start_ns')::bigint) AS start_time, utc((manifest->>'end_ns')::bigint) AS end_time,
                ARRAY(SELECT one->>'contract_id' FROM json_array_elements(manifest->'contracts') AS one) AS contracts,
                {counts}, manifest->>'software' AS software, manifest
            FROM {SCHEMA}.{_SESSIONS}""",
        "contracts": f"""
            SELECT session_id, one.* FROM {SCHEMA}.{_SESSIONS}
            CROSS JOIN LATERAL json_to_recordset(manifest->'contracts') AS one({contracts})""",
        **views,
        "gaps": gaps_view(f"SELECT * FROM {SCHEMA}.incidents", f"{VIEWS}.contracts"),
    }


def _comments() -> list[str]:
    """The data dictionary, where psql shows it."""
    found = []
    for table in TABLES.values():
        found.append(f"COMMENT ON VIEW {VIEWS}.{table.name} IS {quoted(table.meaning)}")
        for column in table.columns:
            said = f"{column.meaning} [{column.unit}]" if column.unit else column.meaning
            found.append(f"COMMENT ON COLUMN {VIEWS}.{table.name}.{named(column.name)} IS {quoted(said)}")
    return found


def _tag() -> str:
    """What a prepared database is known by."""
    made = repr((_FUNCTIONS, _declared(), _views()))
    return f"mdcapture schema {SCHEMA_VERSION}, layout {hashlib.sha256(made.encode()).hexdigest()[:12]}"


def _is_current(cursor: Cursor) -> bool:
    return _found_tag(cursor) == _tag()


def _found_tag(cursor: Cursor) -> str | None:
    """What a database says it was prepared by.

    Raises:
        UsageError: A newer mdcapture.
    """
    query = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1"
    found = rows_of(cursor, query, [SCHEMA])
    tag = None if not found else found[0][0]
    match = _TAG.fullmatch(tag or "")
    if match and int(match[1]) > SCHEMA_VERSION:
        raise UsageError("this database was written by a newer mdcapture: upgrade this one to use it")
    return tag
