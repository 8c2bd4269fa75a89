"""Commands that read the lake: `sessions`, `sql`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mdcapture.cli.capturing import COUNTS
from mdcapture.cli.options import Json, LakeFolder, OutputFormat, chosen_format, lake_root

if TYPE_CHECKING:
    from mdcapture.lake.catalog import Snapshot

__all__ = ["COMMANDS"]


def sessions(lake: LakeFolder = None, *, format_: OutputFormat = None, json: Json = False) -> None:
    """List the sessions of a lake, the oldest first."""
    from mdcapture.cli.output import write_records
    from mdcapture.session import open_lake

    rows = [_row(session.snapshot()) for session in open_lake(lake_root(lake)).sessions()]
    write_records(rows, chosen_format(format_, json=json))


def _row(session: Snapshot) -> dict[str, Any]:
    return {
        "session_id": session.manifest.session_id,
        "status": session.manifest.state,
        "start_ns": session.start_ns,
        "end_ns": session.end_ns,
        "contracts": [contract.contract_id for contract in session.contracts],
        **{name: session.counts.get(name, 0) for name in COUNTS},
    }


COMMANDS = (sessions,)
