"""Commands that show what is being recorded just now: `top` in the terminal, `serve` in a browser."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mdcapture.cli.options import LakeFolder, lake_root
from mdcapture.config import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mdcapture.capture.recordings import Recording

__all__ = ["COMMANDS"]

_EVERY_S = 1.0
_PLAIN_WIDTH = 140
_FIND_EVERY_S = 5.0
_PORT = 8420
_NICENESS = 10
"""A page can wait for a processor; a capture can't."""


def top(
    lake: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR", help="Only the recorders of this lake; repeat for several.  [default: all on this machine]"
        ),
    ] = None,
    every: Annotated[
        float | None, typer.Option(metavar="TIME", parser=parse_duration, help="How often to look.  [default: 1s]")
    ] = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Look once and end; so it does without a terminal.")] = False,
    json: Annotated[bool, typer.Option("--json", help="An object a look, a line each.")] = False,
) -> None:
    """Watch the recorders on this machine: rates, lag, prices, gaps, and how each process fares.

    It reads what they publish each second (status.json in the journal's folder) and never asks them. Ctrl-C ends it.
    """
    looks = _looks([Path(one) for one in lake or ()], every or _EVERY_S)
    if json:
        for now_ns, found in looks:
            report = {"at_ns": now_ns, "ok": all(one.ok for one in found), "recordings": found}
            typer.echo(msgspec.json.encode(report).decode())
            if once:
                break
    elif once or not sys.stdout.isatty():
        _show_once(*next(looks))
    else:
        with suppress(KeyboardInterrupt):
            _show(looks)


def _looks(lakes: list[Path], every_s: float) -> Iterator[tuple[int, list[Recording]]]:
    """What is recorded, again and again; without lakes, in all that are in use and the configured one."""
    from mdcapture.capture.recordings import lakes_in_use, recordings

    roots: set[Path] = set()
    searched_s = -_FIND_EVERY_S
    while True:
        if lakes:
            roots = {path.resolve() for path in lakes}
        elif time.monotonic() - searched_s >= _FIND_EVERY_S:
            searched_s = time.monotonic()
            roots = lakes_in_use() | {lake_root(None).resolve()}
        now_ns = time.time_ns()
        yield now_ns, recordings(roots, now_ns)
        time.sleep(every_s)


def _show_once(now_ns: int, found: list[Recording]) -> None:
    from rich.console import Console

    from mdcapture.cli.board import Board

    console = Console() if sys.stdout.isatty() else Console(width=_PLAIN_WIDTH)
    console.print(Board().draw(found, now_ns))


def _show(looks: Iterator[tuple[int, list[Recording]]]) -> None:
    from rich.live import Live

    from mdcapture.cli.board import Board

    board = Board()
    with Live(screen=True, auto_refresh=False) as screen:
        for now_ns, found in looks:
            screen.update(board.draw(found, now_ns), refresh=True)


def serve(
    lake: LakeFolder = None,
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.", min=0, max=65_535)] = _PORT,
    host: Annotated[
        str, typer.Option(help="The address to listen at; whoever can reach it can read the lake.")
    ] = "127.0.0.1",
) -> None:
    """Show a lake in the browser: what is being captured, sessions and their reports, SQL, downloads.

    Its first line is {"url": …}, when it is ready. It reads what recorders publish and what is on disk, at a lower
    priority than they have. Ctrl-C ends it. From elsewhere: ssh -L 8420:localhost:8420 HOST
    """
    import asyncio
    import os

    os.nice(_NICENESS)
    asyncio.run(_serve(lake_root(lake), host, port))


async def _serve(root: Path, host: str, port: int) -> None:
    import asyncio
    import signal

    from mdcapture.serve.server import serving

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with serving(root, host=host, port=port) as url:
        typer.echo(msgspec.json.encode({"url": url}).decode())
        sys.stdout.flush()
        await stopped.wait()


COMMANDS = (top, serve)
