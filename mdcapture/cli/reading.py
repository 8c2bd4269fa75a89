"""Commands that read the lake: `sessions`, `sql`."""

from __future__ import annotations

from mdcapture.cli.options import Json, LakeFolder, OutputFormat, chosen_format, lake_root

__all__ = ["COMMANDS"]


def sessions(lake: LakeFolder = None, *, format_: OutputFormat = None, json: Json = False) -> None:
    """List the sessions of a lake, the oldest first."""
    from mdcapture.cli.output import write_records
    from mdcapture.session import open_lake

    write_records(
        [session.summary() for session in open_lake(lake_root(lake)).sessions()], chosen_format(format_, json=json)
    )


COMMANDS = (sessions,)
