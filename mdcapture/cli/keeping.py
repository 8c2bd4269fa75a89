"""Commands that look after the lake: `verify`, `recover`, `compact`, `backup`, `prune`."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from mdcapture.cli import completion
from mdcapture.cli.capturing import COUNTS, print_summary
from mdcapture.cli.options import Json, LakeFolder, SessionRef, lake_name, lake_root
from mdcapture.config import parse_duration
from mdcapture.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from mdcapture.lake.manifest import Manifest
    from mdcapture.lake.verify import Proof

__all__ = ["COMMANDS"]

_NS_PER_S = 1_000_000_000
_ALL = "all"

Sessions = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SESSION]...",
        help="Ids, unique prefixes, latest or all; all without.",
        autocompletion=completion.sessions,
    ),
]


def verify(
    sessions: Sessions = None,
    lake: LakeFolder = None,
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Decode all the original text again, and compare it.")] = False,
    json: Json = False,
) -> None:
    """Prove from the files alone that sessions hold all that they say; exit code 1 if one does not.

    Files and checksums, rows and their order, every message once, every entry a row or a reject. A session that is
    being recorded is proven as far as it is sealed, and the result says how far that is.
    """
    from mdcapture.cli.progress import counting
    from mdcapture.lake.catalog import open_catalog
    from mdcapture.lake.verify import prove

    catalog = open_catalog(lake_name(lake))
    every = not sessions or _ALL in sessions
    ids = catalog.session_ids() if every else list(dict.fromkeys(map(catalog.find, sessions or ())))
    proofs = []
    with counting("sessions verified") as progress:
        for number, session_id in enumerate(ids, 1):
            with suppress(NotFoundError) if every else nullcontext():  # it was pruned since it was listed
                proofs.append(prove(catalog.root, session_id, deep=deep))
            progress(number)
    ok = all(proof.ok for proof in proofs)
    if json:
        rows = [{"session_id": one.session_id, "ok": one.ok, **msgspec.structs.asdict(one)} for one in proofs]
        typer.echo(msgspec.json.encode({"ok": ok, "sessions": rows}).decode())
    else:
        for proof in proofs:
            typer.echo(f"{proof.session_id}: {_verdict(proof)}")
            for problem in proof.problems:
                typer.echo(f"  {problem}")
    if not ok:
        raise typer.Exit(1)


def _verdict(proof: Proof) -> str:
    found = f"{len(proof.problems)} problems" if proof.problems else "ok"
    if proof.status != "open":
        return found
    return (
        f"{found} so far, it is still open: {proof.proven:,} messages are proven, and {proof.waiting:,} in the journal "
        "not yet looked at"
    )


def recover(lake: LakeFolder = None, *, json: Json = False) -> None:
    """Seal what a crash left in the journal. Every start of a capture or an import does this by itself."""
    from mdcapture.lake.seal import recover as recover_lake

    root = lake_root(lake)
    recovered = recover_lake(root)
    for manifest in recovered:
        counts = {name: manifest.counts.get(name, 0) for name in COUNTS}
        print_summary(root, {"session_id": manifest.session_id, **counts, "status": manifest.state}, json=json)
    if not recovered:
        typer.echo("nothing to recover", err=True)


def compact(session: SessionRef, lake: LakeFolder = None) -> None:
    """Merge the files of a session, where a crash left several."""
    from mdcapture.lake.catalog import open_catalog
    from mdcapture.lake.seal import compact as compact_session

    root = lake_root(lake)
    manifest = compact_session(root, open_catalog(root).find(session))
    typer.echo(f"{manifest.session_id}: {len(manifest.files)} files")


def backup(
    destination: Annotated[str, typer.Argument(metavar="DEST", help="The copy: a folder, or s3://bucket/prefix.")],
    lake: LakeFolder = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Read the copy, too, and copy anew what is damaged there.")
    ] = False,
    json: Json = False,
) -> None:
    """Bring a copy of the lake up to date, also while it is recorded; the copy is a lake.

    Only what is not there yet is copied. Sessions that were pruned stay in the copy. Prove it by `mdcapture verify
    --lake DEST`; exit code 1 if a session could not be copied because it is damaged. With --lake s3://… it comes back.
    """
    from mdcapture.cli.progress import counting
    from mdcapture.lake.backup import back_up
    from mdcapture.lake.remote import locate

    with counting("bytes copied") as progress:
        done = back_up(locate(lake_name(lake)), locate(destination), check=check, progress=progress)
    if json:
        typer.echo(msgspec.json.encode(done).decode())
    else:
        typer.echo(f"{done.sessions} sessions: {done.files} files copied, {done.bytes / 1e6:,.1f} MB")
        for problem in done.problems:
            typer.echo(f"  {problem}")
    if done.problems:
        raise typer.Exit(1)


def prune(
    sessions: Annotated[
        list[str] | None, typer.Argument(metavar="[SESSION]...", help="Only these.", autocompletion=completion.sessions)
    ] = None,
    lake: LakeFolder = None,
    *,
    older_than: Annotated[
        float | None,
        typer.Option(metavar="TIME", parser=parse_duration, help="Only those that ended so long ago: 30d, 12h."),
    ] = None,
    keep: Annotated[int | None, typer.Option(help="Never one of the newest so many.", min=0)] = None,
    backed_up: Annotated[
        str | None, typer.Option(metavar="DEST", help="Only those whose every file is in this backup, too.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    json: Json = False,
) -> None:
    """Remove sessions for good: those that meet every condition that is given; never one that is recorded."""
    from mdcapture.lake.prune import prune as prune_session

    root = lake_root(lake)
    chosen = _prunable(root, sessions, older_than, keep, backed_up)
    if not json:
        for manifest in chosen:
            typer.echo(f"{manifest.session_id}: {_bytes(manifest) / 1e6:,.1f} MB")
    if not dry_run:
        if chosen and not yes:
            _ask(f"Remove {_so_much(chosen)} for good?")
        for manifest in chosen:
            prune_session(root, manifest.session_id)
    if json:
        rows: list[dict[str, Any]] = [{"session_id": one.session_id, "bytes": _bytes(one)} for one in chosen]
        typer.echo(msgspec.json.encode({"removed": not dry_run, "sessions": rows}).decode())
    else:
        typer.echo(f"{_so_much(chosen)} {'would be' if dry_run else 'are'} removed")


def _prunable(
    root: Path, sessions: list[str] | None, older_than_s: float | None, keep: int | None, backup: str | None
) -> list[Manifest]:
    from mdcapture.lake.catalog import open_catalog
    from mdcapture.lake.prune import prunable
    from mdcapture.lake.remote import locate

    if not sessions and older_than_s is None and keep is None:
        raise UsageError("nothing says what to remove: name sessions, or give --older-than or --keep")
    return prunable(
        root,
        ids=[open_catalog(root).find(one) for one in sessions] if sessions else None,
        before_ns=None if older_than_s is None else time.time_ns() - int(older_than_s * _NS_PER_S),
        keep=keep,
        backup=None if backup is None else locate(backup),
    )


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to be asked: --yes removes them, --dry-run only lists them")
    typer.confirm(question, abort=True, err=True)


def _so_much(manifests: list[Manifest]) -> str:
    return f"{len(manifests)} sessions ({sum(map(_bytes, manifests)) / 1e6:,.1f} MB)"


def _bytes(manifest: Manifest) -> int:
    return sum(file.bytes for file in manifest.files)


COMMANDS = (verify, recover, compact, backup, prune)
