"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mdcapture.cli import completion
from mdcapture.config import load_config, parse_duration
from mdcapture.errors import UsageError

__all__ = ["ContractNames", "Contracts", "Duration", "Format", "Gateway", "HubUrl", "Json", "LakeFolder", "Metrics"]
__all__ += ["OutputFormat", "SessionRef", "Username", "chosen_format", "lake_name", "lake_root", "time_ns"]


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


LakeFolder = Annotated[
    str | None,
    typer.Option("--lake", metavar="DIR|URL", help="A folder, or s3://…  [default: MDCAPTURE_LAKE or ./data]"),
]
SessionRef = Annotated[
    str,
    typer.Argument(metavar="SESSION", help="An id, a unique prefix, or latest.", autocompletion=completion.sessions),
]
ContractNames = Annotated[
    list[str] | None,
    typer.Option(
        "--contract",
        metavar="ID|NAME",
        help="Only this contract; repeat for several.",
        autocompletion=completion.contracts,
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", help="Only this metric; repeat for several.", autocompletion=completion.metrics),
]
OutputFormat = Annotated[Format | None, typer.Option("--format", help="How the result is printed.  [default: table]")]
Json = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
Gateway = Annotated[
    str | None,
    typer.Option("--gateway", metavar="NAME|URL", help="topstepx, demo, another firm, or the URL of an API."),
]
HubUrl = Annotated[
    str | None, typer.Option("--hub", metavar="URL", help="The market hub, where it does not follow from the gateway.")
]
Username = Annotated[str | None, typer.Option("--username", metavar="NAME", help="The gateway's user name.")]
Contracts = Annotated[
    list[str] | None,
    typer.Option("--contract", metavar="ID|NAME", help="CON.F.US.MNQ.Z26, MNQZ6 or MNQ; repeat for several."),
]
Duration = Annotated[
    float | None,
    typer.Option("--duration", metavar="TIME", parser=parse_duration, help="Stop after 90, 90s, 5m or 2h."),
]


def lake_name(text: str | None) -> str:
    """The lake, for those who read it: what was said, or what the configuration says; a folder or a URL."""
    return load_config({"lake": text}).config.lake


def lake_root(text: str | None) -> Path:
    """The lake's folder, for those who write there.

    Raises:
        UsageError: It is none, but a URL.
    """
    name = lake_name(text)
    if "://" in name:
        raise UsageError("this needs a lake in a folder: elsewhere it is only read (`mdcapture backup` copies)")
    return Path(name)


def chosen_format(given: Format | None, *, json: bool) -> Format:
    """The one format that was asked for.

    Raises:
        UsageError: `--json` and another format were.
    """
    if json and given not in (None, Format.JSON):
        raise UsageError(f"--json and --format {given} exclude each other")
    return Format.JSON if json else given or Format.TABLE


def time_ns(text: str | None, option: str) -> int | None:
    """A time of an option as nanoseconds since the epoch; a day alone is its beginning, UTC.

    Raises:
        UsageError: It is no time.
    """
    from mdcapture.wire.timestamps import parse_ns

    if text is None:
        return None
    try:
        return parse_ns(text if len(text) > len("2026-08-19") else f"{text}T00")
    except ValueError as error:
        raise UsageError(f"{option} {text}: write a time as 2026-08-19 or 2026-08-19T13:30:00Z ({error})") from error
