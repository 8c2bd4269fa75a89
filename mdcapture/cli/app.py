"""The commands, put together."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mdcapture.cli import analysing, capturing, exporting, keeping, reading, replaying, settings, watching

__all__ = ["app"]

app = typer.Typer(
    name="mdcapture",
    help="Capture ProjectX market data without losing anything, and turn it into numbers that can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is there in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failure, 2 usage, 3 not found, 4 gateway unreachable, 5 gateway refused, "
    "6 storage, 130 interrupted.",
)


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


for commands in (capturing, reading, analysing, exporting, replaying, keeping, watching):
    for command in commands.COMMANDS:
        app.command()(command)
app.command("import")(capturing.import_)
app.add_typer(settings.app, name="config")
