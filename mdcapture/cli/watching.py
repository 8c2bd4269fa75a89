"""Commands that watch: `health` for a recorder, `doctor` for the machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mdcapture.cli import completion
from mdcapture.cli.options import Gateway, Json, LakeFolder, Username, lake_root
from mdcapture.config import load_config, read_api_key
from mdcapture.errors import NotFoundError

if TYPE_CHECKING:
    from mdcapture.capture.doctor import Check
    from mdcapture.capture.recordings import Recording
    from mdcapture.config import Config

__all__ = ["COMMANDS"]


def health(
    session: Annotated[
        str | None,
        typer.Argument(
            metavar="SESSION",
            help="An id or a unique prefix; all that are recorded without.",
            autocompletion=completion.sessions,
        ),
    ] = None,
    lake: LakeFolder = None,
    *,
    json: Json = False,
) -> None:
    """Say how the recorders of a lake fare: exit code 0 if all is well, 1 if not, 3 if nothing is recorded.

    A recorder that has died is noticed at once, by its lock; one that hangs, by figures older than ten seconds.
    """
    from mdcapture.capture.health import unfinished
    from mdcapture.capture.recordings import look
    from mdcapture.lake.layout import meant

    root = lake_root(lake)
    recorded = unfinished(root)
    ids = recorded if session is None else meant(session, recorded)
    if not ids:
        what = "no session is" if session is None else f"no session {session} is"
        raise NotFoundError(f"{what} being recorded in {root}")
    found = [look(root, one, time.time_ns()) for one in ids]
    ok = all(one.ok for one in found)
    if json:
        typer.echo(msgspec.json.encode({"ok": ok, "sessions": found}).decode())
    else:
        typer.echo("\n".join(line for one in found for line in _lines(one)))
    if not ok:
        raise typer.Exit(1)


def _lines(one: Recording) -> list[str]:
    from mdcapture.cli.statistics import plain_line

    title = f"{one.session_id}: no figures" if one.figures is None else plain_line(one.figures)
    return [title, *(f"  {problem}" for problem in one.problems)]


def doctor(lake: LakeFolder = None, gateway: Gateway = None, username: Username = None, *, json: Json = False) -> None:
    """Check whether this machine is fit to record; exit code 1 if something is not.

    Python, the lake's disk (space, rights, how fast it syncs), journals that a crash left, the gateway, the clock by
    the gateway's, and the credentials.
    """
    import asyncio

    config = load_config({"lake": lake, "gateway": gateway, "username": username}).config
    checks = asyncio.run(_examine(config))
    if json:
        typer.echo(msgspec.json.encode({"ok": not _failed(checks), "checks": checks}).decode())
    else:
        width = max(len(check.check) for check in checks)
        for check in checks:
            step = f"; {check.next_step}" if check.next_step else ""
            typer.echo(f"{check.outcome.value:<4}  {check.check:<{width}}  {check.found}{step}")
    if _failed(checks):
        raise typer.Exit(1)


async def _examine(config: Config) -> list[Check]:
    from mdcapture.capture.doctor import examine_gateway, examine_machine

    machine = list(examine_machine(config, Path(config.lake)))
    return machine + [check async for check in examine_gateway(config, read_api_key())]


def _failed(checks: list[Check]) -> bool:
    return any(check.outcome == "fail" for check in checks)


COMMANDS = (health, doctor)
