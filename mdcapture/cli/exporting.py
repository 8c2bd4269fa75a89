"""The command that brings data out: `export`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mdcapture.cli import completion
from mdcapture.cli.options import LakeFolder, lake_name, time_ns
from mdcapture.config import parse_duration
from mdcapture.wire.timestamps import NS_PER_S

__all__ = ["COMMANDS"]


def export(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="A file, a folder for a whole session, or -.")
    ],
    session: Annotated[
        str,
        typer.Argument(
            metavar="SESSION",
            help="An id, a unique prefix, or latest; all for all.",
            autocompletion=completion.sessions,
        ),
    ] = "latest",
    lake: LakeFolder = None,
    *,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="csv, json, jsonl (.gz or .zst behind them), parquet, arrow, duckdb, sqlite or xlsx; for backtesters "
            "hftbacktest, nautilus or dbn.  [default: by the file's suffix; parquet for a folder]",
        ),
    ] = None,
    table: Annotated[list[str] | None, typer.Option(metavar="TABLE", help="Only this one; repeat for more.")] = None,
    query: Annotated[
        str | None, typer.Option(metavar="SQL", help="What this gives, in DuckDB's dialect; - reads standard input.")
    ] = None,
    contract: Annotated[
        str | None, typer.Option(metavar="ID|NAME", help="Only this contract.", autocompletion=completion.contracts)
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Received then or later: 2026-08-19T13:30Z (UTC).")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Received before.")] = None,
    bars: Annotated[
        float | None,
        typer.Option(metavar="TIME", parser=parse_duration, help="Bars of 1s, 1m or 1h, in place of tables."),
    ] = None,
    levels: Annotated[int, typer.Option(metavar="N", min=1, help="Levels a side of a backtester's book.")] = 10,
) -> None:
    """Export sessions, tables, a query, bars, or what backtesters read, to files of other tools.

    A data dictionary is written beside each. What exists under the name is replaced only when all is there.
    """
    from mdcapture.cli.progress import counting
    from mdcapture.interop.export import STDOUT, Selection
    from mdcapture.interop.export import export as export_rows
    from mdcapture.interop.opening import open_catalog
    from mdcapture.query.sql import Database

    catalog = open_catalog(lake_name(lake))
    only = None if session == "all" else [catalog.find(session)]
    text = sys.stdin.read() if query == "-" else query
    bars_ns = None if bars is None else round(bars * NS_PER_S)
    asked = Selection(table or (), text, contract, time_ns(from_, "--from"), time_ns(to, "--to"), bars_ns)
    with Database(catalog, only, restricted=True) as database, counting("rows") as progress:
        rows = export_rows(database, output, asked, form=format_, levels=levels, progress=progress)
    if output != STDOUT:
        typer.echo(f"{output}: {', '.join(f'{count:,} {name}' for name, count in rows.items())}", err=True)


COMMANDS = (export,)
