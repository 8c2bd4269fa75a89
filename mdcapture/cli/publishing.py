"""The command that brings sessions to a database: `publish`."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from mdcapture.cli import completion
from mdcapture.cli.options import Json, LakeFolder, lake_name
from mdcapture.errors import UsageError

__all__ = ["COMMANDS"]

_ALL = "all"


def publish(
    sessions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SESSION]...",
            help="Ids, unique prefixes, latest or all; those captured for this URL without.",
            autocompletion=completion.sessions,
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="URL", help="The database, as postgresql://user@host/database.")
    ] = None,
    lake: LakeFolder = None,
    *,
    json: Json = False,
) -> None:
    """Publish sessions to a PostgreSQL database, for several users: each row once, however often this is run.

    The password is read from PGPASSWORD or ~/.pgpass. A session that is being captured is published as far as it is
    there; `mdcapture capture --publish URL` goes on by itself. Without --to it goes where the setting `publish` says.
    """
    from mdcapture.cli.progress import counting
    from mdcapture.config import load_config
    from mdcapture.interop.opening import open_catalog
    from mdcapture.interop.postgres.publish import captured_for
    from mdcapture.interop.postgres.publish import publish as publish_sessions

    address = load_config({"publish": to}).config.publish
    if address is None:
        raise UsageError("nothing says where to publish to: give --to postgresql://user@host/database")
    catalog = open_catalog(lake_name(lake))
    if not sessions:
        ids = captured_for(catalog, address)
    else:
        ids = catalog.session_ids() if _ALL in sessions else list(dict.fromkeys(map(catalog.find, sessions)))
    if not ids:
        raise UsageError(f"no session was captured for {address}: name some, or all")
    with counting("rows published") as progress:
        done = publish_sessions(catalog, ids, address, progress=progress)
    if json:
        typer.echo(msgspec.json.encode(done).decode())
    else:
        for one in done:
            typer.echo(
                f"{one.session_id} ({one.status}): {one.messages:,} messages are there, {one.rows:,} rows are new"
            )


COMMANDS = (publish,)
