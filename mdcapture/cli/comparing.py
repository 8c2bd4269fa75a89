"""Commands that look at many sessions at once: `compare`, `history`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdcapture.cli import completion
from mdcapture.cli.analysing import RegularHours, Zone, analyze_all, only, opened, tell, writable
from mdcapture.cli.options import ContractNames, Format, Json, LakeFolder, Metrics, OutputFormat, chosen_format
from mdcapture.config import parse_duration
from mdcapture.errors import UsageError
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mdcapture.analysis.compare import By
    from mdcapture.analysis.result import Analysis

__all__ = ["COMMANDS"]


class Parts(StrEnum):
    """What is compared with what."""

    SESSION = "session"
    WEEKDAY = "weekday"


Everything = Annotated[bool, typer.Option("--all", help="All sessions, on all processors of this machine.")]
Chart = Annotated[
    Path | None, typer.Option("--output", "-o", help="Draw it, too: a .png, .svg or .html. Needs one metric.")
]
_IN_A_TABLE = ("contract", "metric", "unit", "a", "b", "mean_a", "mean_b", "difference", "low", "high", "n_a", "n_b")


def compare(
    sessions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SESSION…", help="The first is compared with each other.", autocompletion=completion.sessions
        ),
    ] = None,
    lake: LakeFolder = None,
    *,
    everything: Everything = False,
    by: Annotated[Parts, typer.Option(help="Compare sessions, or days of the week.")] = Parts.SESSION,
    split: Annotated[
        str | None, typer.Option(metavar="TIME", help="Compare what was before this time with what was after it.")
    ] = None,
    contract: ContractNames = None,
    regular_hours: RegularHours = False,
    every: Annotated[str, typer.Option(metavar="TIME", help="Cut the sessions into intervals of this length.")] = "5m",
    metric: Metrics = None,
    output: Chart = None,
    format_: OutputFormat = None,
    json: Json = False,
) -> None:
    """Compare sessions, days of the week, or before and after: means, differences, and their 95 % intervals."""
    from mdcapture.analysis.compare import comparable, remarks
    from mdcapture.analysis.compare import compare as compared
    from mdcapture.analysis.hours import moment_ns
    from mdcapture.charts.drawing import save
    from mdcapture.charts.sessions import distributions
    from mdcapture.cli.output import write_records

    form = chosen_format(format_, json=json)
    _check(sessions, output, metric or [], everything=everything)
    kind: By = "split" if split is not None else by.value
    if split is not None:
        moment_ns(split)  # whether it is one is better known before the work than after
    elif kind == "session" and len(sessions or ()) == 1:
        raise UsageError("one session has nothing to be compared with: name two parts, or --by weekday, or --split")
    analyses, failures = _analyses(sessions, lake, contract, every, regular_hours=regular_hours)
    chosen = only(analyses, metric)
    table = compared(chosen, by=kind, split=split)
    rows = table.to_dicts()
    write_records([_brief(row) for row in rows] if form is Format.TABLE else rows, form.value)
    if output is not None and metric:
        parts = comparable(chosen, kind, split)
        save(distributions(parts, unit=parts["unit"][0], title=metric[0]), output)
    for remark in remarks(table):
        typer.echo(remark, err=True)
    tell(failures)


def history(
    metrics: Annotated[list[str], typer.Argument(metavar="METRIC…", help="Such as realized_volatility.")],
    lake: LakeFolder = None,
    *,
    contract: ContractNames = None,
    regular_hours: RegularHours = False,
    zone: Zone = "UTC",
    output: Chart = None,
    format_: OutputFormat = None,
    json: Json = False,
) -> None:
    """Show metrics over all sessions: a row a session and contract, with the trading day."""
    from mdcapture.analysis.compare import history as over_time
    from mdcapture.analysis.compare import lacking
    from mdcapture.analysis.hours import known_zone
    from mdcapture.analysis.result import readable
    from mdcapture.charts.drawing import save
    from mdcapture.charts.sessions import over_sessions
    from mdcapture.cli.output import write_records

    form = chosen_format(format_, json=json)
    known_zone(zone)
    _check(None, output, metrics, everything=True)
    analyses, failures = _analyses(None, lake, contract, None, regular_hours=regular_hours)
    figures = over_time(analyses, metrics)
    rows = [{**row, "day": str(row["day"])} for row in figures.to_dicts()]
    write_records([readable(row) for row in rows] if form is Format.TABLE else rows, form.value)
    if output is not None:
        save(over_sessions(figures, unit=figures["unit"][0], title=metrics[0], zone=zone), output)
    for one in lacking(analyses, metrics):
        typer.echo(one, err=True)
    tell(failures)


def _check(sessions: Sequence[str] | None, output: Path | None, metrics: Sequence[str], *, everything: bool) -> None:
    from mdcapture.analysis.result import known_metrics

    known_metrics(metrics)
    if bool(sessions) == everything:
        raise UsageError("name the sessions, or take --all: nothing was computed")
    if output is not None:
        if len(metrics) != 1:
            raise UsageError("a chart is of one metric: nothing was computed")
        writable(output)


def _analyses(
    sessions: Sequence[str] | None,
    lake: str | None,
    contract: list[str] | None,
    every: str | None,
    *,
    regular_hours: bool,
) -> tuple[list[Analysis], list[str]]:
    """The analyses of those sessions, or of all; and what went wrong with which."""
    from mdcapture.analysis.analyze import analyze_contract
    from mdcapture.cli.progress import counting

    if not sessions:
        every_ns = None if every is None else round(parse_duration(every) * NS_PER_S)
        task = partial(analyze_contract, regular_hours=regular_hours, every_ns=every_ns)
        return analyze_all(lake, contract, None, task)
    found = [opened(lake, one) for one in sessions]
    analyses = []
    with counting("sessions analysed") as progress:
        for number, session in enumerate(found, 1):
            analyses.append(session.analyze(contract, regular_hours=regular_hours, every=every))
            progress(number)
    return analyses, []


def _brief(row: Mapping[str, object]) -> dict[str, object]:
    """What a table has of a comparison."""
    from mdcapture.analysis.result import shown

    values = {name: row[name] for name in _IN_A_TABLE}
    return {name: shown(value) if isinstance(value, float) else value for name, value in values.items()}


COMMANDS = (compare, history)
