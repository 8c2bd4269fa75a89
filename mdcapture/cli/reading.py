"""Commands that read the lake: `sessions`, `sql`."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdcapture.cli import completion
from mdcapture.cli.capturing import COUNTS, troubles_of
from mdcapture.cli.options import Format, Json, LakeFolder, OutputFormat, chosen_format, lake_name

if TYPE_CHECKING:
    from mdcapture.lake.catalog import Snapshot

__all__ = ["COMMANDS"]


class Dialect(StrEnum):
    """Whose SQL a query is."""

    DUCKDB = "duckdb"
    SQLITE = "sqlite"


def sessions(lake: LakeFolder = None, *, format_: OutputFormat = None, json: Json = False) -> None:
    """List the sessions of a lake, the oldest first."""
    from mdcapture.cli.output import write_records
    from mdcapture.session import open_lake

    output = chosen_format(format_, json=json)
    row = _line if output is Format.TABLE else _row
    write_records([row(session.snapshot()) for session in open_lake(lake_name(lake)).sessions()], output.value)


def _row(session: Snapshot) -> dict[str, Any]:
    return {
        "session_id": session.manifest.session_id,
        "status": session.manifest.state,
        "start_ns": session.start_ns,
        "end_ns": session.end_ns,
        "contracts": [contract.contract_id for contract in session.contracts],
        **{name: session.counts.get(name, 0) for name in COUNTS},
    }


def _line(session: Snapshot) -> dict[str, Any]:
    """A session for people: times that can be read, and of the incidents those that matter."""
    from mdcapture.wire.timestamps import NS_PER_S, format_ns

    row = _row(session)
    start_ns, end_ns = row.pop("start_ns"), row.pop("end_ns")
    kinds = Counter(session.manifest.incidents)
    kinds.update(session.tail["incidents"]["kind"].to_pylist())
    del row["incidents"]
    return {
        "session_id": row.pop("session_id"),
        "status": row.pop("status"),
        "duration": start_ns and timedelta(seconds=round((end_ns - start_ns) / NS_PER_S)),
        "contracts": " ".join(contract.name or contract.contract_id for contract in session.contracts),
        "messages": row.pop("messages"),
        **troubles_of(kinds),
        **{name: value for name, value in row.items() if name != "contracts"},
        "start (UTC)": start_ns and format_ns(start_ns, 0)[: len("2026-08-19T13:30:00")].replace("T", " "),
    }


def sql(
    query: Annotated[str, typer.Argument(help="One statement; - reads it from standard input.")],
    lake: LakeFolder = None,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="SESSION",
            help="Only this session: an id, a unique prefix, or latest.",
            autocompletion=completion.sessions,
        ),
    ] = None,
    *,
    dialect: Annotated[
        Dialect, typer.Option(help="Of the query: sqlite runs those of the replaced system (docs/sqlite.md).")
    ] = Dialect.DUCKDB,
    unrestricted: Annotated[
        bool, typer.Option("--unrestricted", help="Let the query read and write files outside of the lake.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Rows of a table at most; 0 for all.", min=0)] = None,
    format_: OutputFormat = None,
    json: Json = False,
) -> None:
    """Ask the lake in SQL.

    The views are quotes, trades, depth, market_depth, messages, rejects, incidents, sessions and contracts. A running
    session is in the answer, at most a second old. Name the column raw_data to have each row's original JSON.
    """
    from mdcapture.cli.output import TABLE_ROWS, write_rows
    from mdcapture.interop.opening import open_catalog
    from mdcapture.query.sql import Database

    catalog = open_catalog(lake_name(lake))
    only = None if session is None else [catalog.find(session)]
    text = sys.stdin.read() if query == "-" else query
    engine: type[Database] = Database
    if dialect is Dialect.SQLITE:
        from mdcapture.query.sqlite import SQLiteDatabase

        engine = SQLiteDatabase
    with engine(catalog, only, restricted=not unrestricted) as database:
        rows = database.stream(text)
        most = TABLE_ROWS if limit is None else limit or None
        write_rows(rows.names, rows.batches, chosen_format(format_, json=json).value, limit=most)


COMMANDS = (sessions, sql)
