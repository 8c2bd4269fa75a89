"""Commands that look into sessions: `analyze`, `compare`, `plot`, `report`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mdcapture.analysis.kinds import Kind  # noqa: TC001  # typer reads the annotations when it runs
from mdcapture.cli.options import Json, LakeFolder, OutputFormat, chosen_format, lake_root
from mdcapture.errors import StorageError

if TYPE_CHECKING:
    from mdcapture.session import Session

__all__ = ["COMMANDS"]

SessionRef = Annotated[str, typer.Argument(metavar="SESSION", help="An id, a unique prefix, or latest.")]
ContractNames = Annotated[
    list[str] | None, typer.Option("--contract", metavar="ID|NAME", help="Only this contract; repeat for several.")
]
From = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="From then on: 2025-06-20T14:30, UTC, or with a zone.")
]
To = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Until before then.")]
RegularHours = Annotated[bool, typer.Option("--regular-hours", help="Only the hours of regular trading.")]
Zone = Annotated[str, typer.Option("--zone", metavar="ZONE", help="The clock's time zone, such as America/Chicago.")]


def analyze(
    session: SessionRef = "latest",
    lake: LakeFolder = None,
    *,
    contract: ContractNames = None,
    start: From = None,
    end: To = None,
    regular_hours: RegularHours = False,
    every: Annotated[
        str | None, typer.Option(metavar="TIME", help="Figures of each interval of this length, as 5m.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Only this metric; repeat for several.")] = None,
    format_: OutputFormat = None,
    json: Json = False,
) -> None:
    """Compute every metric that a session's data support: what, how large, of how many, and why not."""
    from mdcapture.cli.output import write_records

    form = chosen_format(format_, json=json).value
    analysis = _session(lake, session).analyze(contract, start, end, regular_hours=regular_hours, every=every)
    if metric:
        analysis = analysis.only(metric)
    if form == "table" and not metric:
        typer.echo(str(analysis))
    elif form == "json":
        typer.echo(msgspec.json.encode(analysis.to_dict()).decode())
    else:
        write_records(analysis.frame().to_dicts(), chosen_format(format_, json=json).value)


def compare(
    sessions: Annotated[list[str], typer.Argument(metavar="SESSION…", help="The first is compared with each other.")],
    lake: LakeFolder = None,
    *,
    contract: ContractNames = None,
    regular_hours: RegularHours = False,
    every: Annotated[str, typer.Option(metavar="TIME", help="Cut the sessions into intervals of this length.")] = "5m",
    metric: Annotated[list[str] | None, typer.Option(help="Only this metric; repeat for several.")] = None,
    format_: OutputFormat = None,
    json: Json = False,
) -> None:
    """Compare sessions: means over intervals, their difference, and its 95 % interval by the bootstrap."""
    from mdcapture.analysis.compare import compare as compared
    from mdcapture.analysis.result import shown
    from mdcapture.cli.output import write_records

    form = chosen_format(format_, json=json)
    found = [_session(lake, one) for one in sessions]
    analyses = [one.analyze(contract, regular_hours=regular_hours, every=every) for one in found]
    rows = compared([one.only(metric) if metric else one for one in analyses]).to_dicts()
    if form.value == "table":
        rows = [{name: shown(each) if isinstance(each, float) else each for name, each in row.items()} for row in rows]
    write_records(rows, chosen_format(format_, json=json).value)


def plot(
    kind: Annotated[Kind, typer.Argument(help="What to draw.")],
    session: SessionRef = "latest",
    lake: LakeFolder = None,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .png, .svg or .html.  [default: KIND.png]")
    ] = None,
    contract: ContractNames = None,
    start: From = None,
    end: To = None,
    regular_hours: RegularHours = False,
    zone: Zone = "UTC",
) -> None:
    """Draw a chart of a session; of its first contract, where it is not one that compares contracts."""
    from mdcapture.analysis.analyze import extracts
    from mdcapture.analysis.pictures import draw
    from mdcapture.charts.drawing import save

    path = _writable(output or Path(f"{kind}.png"))
    parts = extracts(_session(lake, session), contract, start, end, regular_hours=regular_hours)
    save(draw(kind, parts, zone), path)
    typer.echo(str(path))


def report(
    session: SessionRef = "latest",
    lake: LakeFolder = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    contract: ContractNames = None,
    start: From = None,
    end: To = None,
    regular_hours: RegularHours = False,
    zone: Zone = "UTC",
) -> None:
    """Write a session's report: one page with story, figures and charts, that needs no network."""
    from mdcapture.report.page import report as page

    _writable(output)
    command = shlex.join(["mdcapture", *sys.argv[1:]])
    text = page(_session(lake, session), contract, start, end, regular_hours=regular_hours, zone=zone, command=command)
    output.write_text(text, encoding="utf-8")
    typer.echo(str(output))


def _writable(path: Path) -> Path:
    """The path, if it can be written: to find out after a minute's work would be too late.

    Raises:
        StorageError: It can't.
    """
    new = not path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror}") from error
    if new:
        path.unlink()
    return path


def _session(lake: str | None, ref: str) -> Session:
    from mdcapture.session import open_lake

    return open_lake(lake_root(lake)).session(ref)


COMMANDS = (analyze, compare, plot, report)
