"""The `config` commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mdcapture.cli.options import Json, OutputFormat, chosen_format
from mdcapture.config import load_config

__all__ = ["app"]

app = typer.Typer(help="The settings.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """The settings: defaults, mdcapture.toml, MDCAPTURE_* variables, and options, in rising order."""


@app.command()
def show(
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The configuration file.")] = None,
    *,
    format_: OutputFormat = None,
    json: Json = False,
) -> None:
    """Show each setting, its value, and where that comes from."""
    from mdcapture.cli.output import write_records

    loaded = load_config(file=config)
    values = msgspec.structs.asdict(loaded.config)
    rows = [{"setting": name, "value": value, "origin": loaded.origins[name]} for name, value in values.items()]
    write_records(rows, chosen_format(format_, json=json).value)
