"""Commands that look after the lake: `recover`, `compact`."""

from __future__ import annotations

from typing import Annotated

import typer

from mdcapture.cli.capturing import COUNTS, print_summary
from mdcapture.cli.options import Json, LakeFolder, lake_root

__all__ = ["COMMANDS"]

Session = Annotated[str, typer.Argument(metavar="SESSION", help="An id, a unique prefix, or latest.")]


def recover(lake: LakeFolder = None, *, json: Json = False) -> None:
    """Seal what a crash left in the journal. Every start of a capture or an import does this by itself."""
    from mdcapture.lake.seal import recover as recover_lake

    recovered = recover_lake(lake_root(lake))
    for manifest in recovered:
        counts = {name: manifest.counts.get(name, 0) for name in COUNTS}
        print_summary({"session_id": manifest.session_id, **counts, "status": manifest.state}, json=json)
    if not recovered:
        typer.echo("nothing to recover", err=True)


def compact(session: Session, lake: LakeFolder = None) -> None:
    """Merge the files of a session, where a crash left several."""
    from mdcapture.lake.catalog import open_catalog
    from mdcapture.lake.seal import compact as compact_session

    root = lake_root(lake)
    manifest = compact_session(root, open_catalog(root).find(session))
    typer.echo(f"{manifest.session_id}: {len(manifest.files)} files")


COMMANDS = (recover, compact)
