"""The commands, put together."""

from __future__ import annotations

import os
import sys
from functools import wraps
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from mdcapture.cli import (
    analysing,
    capturing,
    comparing,
    exporting,
    keeping,
    publishing,
    reading,
    replaying,
    settings,
    showing,
    watching,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["app"]


class _Commands(TyperGroup):
    """The commands, whose options are refused in our own words."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # a typer.Context is what typer makes
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # pydantic's words
            raise


app = typer.Typer(
    cls=_Commands,
    name="mdcapture",
    help="Capture ProjectX market data without losing anything, and turn it into numbers that can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is there in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failure, 2 usage, 3 not found, 4 gateway unreachable, 5 gateway refused, "
    "6 storage, 7 database, 130 interrupted.",
)


def _until_nobody_reads(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command end quietly when its reader has had enough, as in `mdcapture sql … | head`.

    Whoever ends it instead of answering what it asks has interrupted it.
    """

    @wraps(command)
    def run(*arguments: object, **options: object) -> None:
        try:
            command(*arguments, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except typer.Abort:
            sys.stderr.write("\ninterrupted\n")
            raise typer.Exit(130) from None

    return run


def _version(*, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mdcapture {version('mdcapture')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, and log more.")] = False,
    version: Annotated[  # noqa: ARG001  # its callback does it all
        bool, typer.Option("--version", help="Show the version.", callback=lambda value: _version(wanted=value))
    ] = False,
) -> None:
    if debug:
        os.environ["MDCAPTURE_DEBUG"] = "1"


for commands in (
    capturing,
    reading,
    analysing,
    comparing,
    exporting,
    publishing,
    replaying,
    keeping,
    watching,
    showing,
):
    for command in commands.COMMANDS:
        app.command()(_until_nobody_reads(command))
app.command("import")(_until_nobody_reads(capturing.import_))
app.add_typer(settings.app, name="config")
