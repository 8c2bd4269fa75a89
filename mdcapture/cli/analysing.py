"""Commands that look into sessions: `analyze`, `plot`, `report`."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mdcapture.analysis.kinds import Kind  # noqa: TC001  # typer reads the annotations when it runs
from mdcapture.cli.options import (
    ContractNames,
    Json,
    LakeFolder,
    Metrics,
    OutputFormat,
    SessionRef,
    chosen_format,
    lake_name,
)
from mdcapture.config import parse_duration
from mdcapture.errors import StorageError, UsageError
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mdcapture.analysis.result import Analysis
    from mdcapture.session import Session

__all__ = ["COMMANDS", "RegularHours", "Zone", "analyze_all", "only", "opened", "tell", "writable"]

_LATEST = "latest"

From = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="From then on: 2025-06-20T14:30, UTC, or with a zone.")
]
To = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Until before then.")]
RegularHours = Annotated[bool, typer.Option("--regular-hours", help="Only the hours of regular trading.")]
Zone = Annotated[str, typer.Option("--zone", metavar="ZONE", help="The clock's time zone, such as America/Chicago.")]


def analyze(
    session: SessionRef = _LATEST,
    lake: LakeFolder = None,
    *,
    contract: ContractNames = None,
    start: From = None,
    end: To = None,
    regular_hours: RegularHours = False,
    every: Annotated[
        str | None, typer.Option(metavar="TIME", help="Figures of each interval of this length, as 5m.")
    ] = None,
    metric: Metrics = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All sessions, each contract for itself, on all processors of this machine.")
    ] = False,
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="With --all: on this Dask cluster, as tcp://host:8786.")
    ] = None,
    format_: OutputFormat = None,
    json: Json = False,
) -> None:
    """Compute every metric that a session's data support: what, how large, of how many, and why not."""
    from mdcapture.analysis.analyze import analyze as computed
    from mdcapture.analysis.analyze import analyze_contract
    from mdcapture.analysis.result import known_metrics
    from mdcapture.cli.output import write_records
    from mdcapture.cli.progress import counting

    form = chosen_format(format_, json=json)
    every_ns = None if every is None else round(parse_duration(every) * NS_PER_S)
    asked = partial(computed, start=start, end=end, regular_hours=regular_hours, every_ns=every_ns)
    known_metrics(metric or ())
    _check_all(session, cluster, everything=everything)
    if everything:
        task = partial(analyze_contract, start=start, end=end, regular_hours=regular_hours, every_ns=every_ns)
        analyses, failures = analyze_all(lake, contract, cluster, task)
    else:
        with counting("groups of figures") as progress:
            analyses, failures = [asked(opened(lake, session), contract, progress=progress)], []
    chosen = only(analyses, metric)
    if form.value == "table" and not metric:
        typer.echo("\n".join(map(str, chosen)))
    elif form.value == "json":
        values = [one.to_dict() for one in chosen]
        typer.echo(msgspec.json.encode(values if everything else values[0]).decode())
    else:
        rows = [row for one in chosen for row in (one.listed() if form.value == "table" else one.frame().to_dicts())]
        write_records(rows, form.value)
    tell(failures)


def only(analyses: Sequence[Analysis], metrics: list[str] | None) -> list[Analysis]:
    """The analyses with these metrics alone; without them, with all."""
    return [one.only(metrics) for one in analyses] if metrics else list(analyses)


def tell(failures: Sequence[str]) -> None:
    """Say what went wrong, and end with the code for it.

    Raises:
        typer.Exit: Something did.
    """
    for failure in failures:
        typer.echo(failure, err=True)
    if failures:
        raise typer.Exit(1)


def _check_all(session: str, cluster: str | None = None, *, everything: bool = True) -> None:
    if everything and session != _LATEST:
        raise UsageError(f"--all and {session} exclude each other: nothing was computed")
    if cluster is not None and not everything:
        raise UsageError("--cluster needs --all: one session is analysed here")


def analyze_all(
    lake: str | None,
    contracts: list[str] | None,
    cluster: str | None,
    function: Callable[[Session, str], Analysis],
) -> tuple[list[Analysis], list[str]]:
    """The analyses of all sessions that hold anything, and what went wrong with which."""
    from mdcapture.cli.progress import counting
    from mdcapture.interop.cluster import dask_workers, worker_processes
    from mdcapture.session import open_lake

    opened = open_lake(lake_name(lake))
    sessions = [one.session_id for one in opened.sessions() if one.start_ns is not None]
    found, failures = [], []
    workers = worker_processes() if cluster is None else dask_workers(cluster)
    with workers as executor, counting("analyses") as progress:
        tasks = opened.map(function, sessions=sessions, contracts=contracts, executor=executor)
        for number, done in enumerate(tasks, 1):
            progress(number)
            if done.value is None:
                failures.append(f"{done.session_id}, {done.contract_id}: {done.error}")
            else:
                found.append(done.value)
    return found, failures


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
    from mdcapture.analysis.hours import known_zone

    path = writable(output or Path(f"{kind}.png"))
    known_zone(zone)
    chosen = opened(lake, session)

    from mdcapture.analysis.analyze import extracts
    from mdcapture.analysis.pictures import draw
    from mdcapture.charts.drawing import save
    from mdcapture.cli.progress import counting

    with counting("charts"):
        _check_contracts(kind, chosen, contract or ())
        parts = extracts(chosen, contract, start, end, regular_hours=regular_hours)
        save(draw(kind, parts, zone), path)
    typer.echo(str(path))


def _check_contracts(kind: Kind, session: Session, names: Sequence[str]) -> None:
    """Refuse several contracts, asked for by name, where a chart is of one."""
    from mdcapture.analysis.pictures import PICTURES
    from mdcapture.lake.manifest import contracts_named

    chosen = {one.contract_id: one for name in names for one in contracts_named(session.contracts, name)}
    if len(chosen) > 1 and not PICTURES[kind].of_all:
        held = ", ".join(one.name or one.contract_id for one in chosen.values())
        compared = " and ".join(other for other, picture in PICTURES.items() if picture.of_all)
        raise UsageError(f"a {kind} chart is of one contract, not of {held}: {compared} compare contracts")


def report(
    session: SessionRef = _LATEST,
    lake: LakeFolder = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="The whole lake: coverage, sessions, quality.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    contract: ContractNames = None,
    start: From = None,
    end: To = None,
    regular_hours: RegularHours = False,
    zone: Zone = "UTC",
) -> None:
    """Write the report of a session, or of the whole lake: one page that needs no network."""
    from mdcapture.cli.progress import counting
    from mdcapture.lake.files import replace_file

    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"a report is a page: name it {output.with_suffix('.html')}; nothing was computed")
    writable(output)
    command = shlex.join(["mdcapture", *sys.argv[1:]])
    if everything:
        _check_all(session)
        if contract or start or end or regular_hours:
            raise UsageError("--all is of all contracts and times: nothing was computed")

        from mdcapture.report.lake import lake_report
        from mdcapture.session import open_lake

        with counting("sessions") as progress:
            text = lake_report(open_lake(lake_name(lake)), zone=zone, command=command, progress=progress)
    else:
        from mdcapture.report.page import report as page

        with counting("charts") as progress:
            drawn = partial(page, regular_hours=regular_hours, zone=zone, command=command, progress=progress)
            text = drawn(opened(lake, session), contract, start, end)
    replace_file(output, [text.encode()])
    typer.echo(str(output))


def writable(path: Path) -> Path:
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


def opened(lake: str | None, ref: str) -> Session:
    """A session of the lake."""
    from mdcapture.session import open_lake

    return open_lake(lake_name(lake)).session(ref)


COMMANDS = (analyze, plot, report)
