"""A lake's report: what was captured of which day, session by session, and how good it is, on one page.

sessions ──▶ quality of each contract, spans, gaps ──▶ sections (HTML), charts ──▶ document
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mdcapture.analysis.analyze import quality
from mdcapture.analysis.catalogue import METRICS
from mdcapture.analysis.compare import history
from mdcapture.analysis.coverage import coverage
from mdcapture.analysis.hours import known_zone
from mdcapture.analysis.result import counted, shown
from mdcapture.charts.drawing import UTC
from mdcapture.charts.sessions import coverage_calendar, over_sessions
from mdcapture.errors import NotFoundError
from mdcapture.report.document import Section, definitions, document, drawn, made, moment, places, table
from mdcapture.report.story import datum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mdcapture.analysis.coverage import Span
    from mdcapture.analysis.result import Analysis
    from mdcapture.lake.manifest import Contract
    from mdcapture.report.document import Drawn
    from mdcapture.session import Lake, Session

__all__ = ["lake_report"]

_COLUMNS: Final = (
    "messages",
    "messages_per_s",
    "rejects",
    "gaps",
    "gap_s",
    "coverage",
    "longest_silence_s",
    "latency_median_ms",
    "latency_p99_ms",
)
_OVER_TIME: Final = {
    "coverage": "Share of each session without a gap",
    "messages_per_s": "Messages a second",
    "latency_median_ms": "Latency of trades, median",
    "longest_silence_s": "Longest time without a message",
}
_MEGA: Final = 1e6


@dataclass(frozen=True, slots=True)
class _Known:
    """What the page is made of.

    Attributes:
        sessions: Those that hold anything.
        figures: Their quality, see `compare.history`.
        days: What was captured of each day, see `coverage.coverage`.
    """

    sessions: Sequence[Session]
    figures: pl.DataFrame
    days: pl.DataFrame


def lake_report(
    lake: Lake, *, zone: str = UTC, command: str = "", progress: Callable[[int], object] = lambda _: None
) -> str:
    """The report of all sessions of a lake as HTML, in one piece.

    Args:
        lake: The lake.
        zone: The time zone of the charts' clocks.
        command: The command that made it, which the page names.
        progress: Told how many sessions are read.

    Raises:
        NotFoundError: The lake has no session that holds a message.
        UsageError: There is no such time zone.
    """
    known_zone(zone)
    known = _known(lake, progress)
    charts = list(_charts(known, zone))
    sections = [
        Section("In short", _story(known)),
        Section("Coverage", places(charts[:1])),
        Section("Sessions", _sessions(known)),
        Section("Quality of each session and contract", _quality(known)),
        Section("Quality over time", places(charts[1:], first=1)),
        Section("Incidents", _incidents(known)),
        Section("Definitions and sources", definitions(["quality"])),
        Section("How this page was made", made(command)),
    ]
    first, last = _day(known.days["day"].min()), _day(known.days["day"].max())
    number = counted(len(known.sessions), "session")
    heading = f"<h1>{escape(str(lake.path))}</h1><p>{number}, trading days {first} to {last}</p>"
    return document(str(lake.path), heading, sections, charts)


def _known(lake: Lake, progress: Callable[[int], object]) -> _Known:
    sessions = [one for one in lake.sessions() if one.start_ns is not None]
    if not sessions:
        raise NotFoundError(f"{lake.path} holds no message yet: there is nothing to report")
    analyses: list[Analysis] = []
    spans: list[tuple[str, Span]] = []
    gaps: list[tuple[str, Span]] = []
    for number, session in enumerate(sessions, 1):
        analyses.append(quality(session))
        spans += _spans(session)
        gaps += _gaps(session)
        progress(number)
    symbols = {one.contract_id: _symbol(one) for session in sessions for one in session.contracts}
    figures = history(analyses).with_columns(contract=pl.col("contract_id").replace(symbols))
    return _Known(sessions, figures, coverage(spans, gaps))


def _spans(session: Session) -> Iterator[tuple[str, Span]]:
    now = session.snapshot()
    if now.start_ns is not None and now.end_ns is not None:
        for contract in now.contracts:
            yield _symbol(contract), (now.start_ns, now.end_ns)


def _gaps(session: Session) -> Iterator[tuple[str, Span]]:
    """The times in which data of any stream can be missing."""
    end_ns = session.end_ns or 0
    symbols = {one.contract_id: _symbol(one) for one in session.contracts}
    rows = session.gaps().select("contract_id", "from_ns", pl.col("to_ns").clip(upper_bound=end_ns)).unique()
    for contract_id, from_ns, to_ns in rows.filter(pl.col("from_ns") < pl.col("to_ns")).collect().rows():
        yield symbols[contract_id], (from_ns, to_ns)


def _symbol(contract: Contract) -> str:
    """`MNQ` of `MNQZ6`: what people call all months of a contract."""
    return contract.name[: -len("Z6")] or contract.contract_id


def _charts(known: _Known, zone: str) -> Iterator[Drawn]:
    yield drawn(
        coverage_calendar(known.days),
        "Of each contract and trading day (from 17:00 in Chicago), the share of market hours that was captured, gaps "
        "left out. Holidays are not known, and count as missing.",
    )
    for metric, title in _OVER_TIME.items():
        rows = known.figures.filter(pl.col("metric") == metric)
        if rows.height:
            chart = over_sessions(rows, unit=METRICS[metric].unit, title=title, zone=zone)
            yield drawn(chart, METRICS[metric].definition)


def _story(known: _Known) -> str:
    counts = {table: sum(one.counts.get(table, 0) for one in known.sessions) for table in ("messages", "rejects")}
    rows = sum(one.counts.get(table, 0) for one in known.sessions for table in ("quotes", "trades", "depth"))
    size = sum(file.bytes for one in known.sessions for file in one.manifest.files)
    open_s, captured_s = (float(known.days[name].sum()) for name in ("open_s", "captured_s"))
    gaps = int(known.days["gaps"].sum())
    lost = f"data can be missing in {counted(gaps, 'place')}" if gaps else "no gap was noted"
    sessions = counted(len(known.sessions), "session")
    share = f"{100 * captured_s / open_s:.3g} %" if open_s else "none"
    return (
        f"<p>{sessions} of {counted(known.days['contract'].n_unique(), 'contract')} hold "
        f"{counts['messages']:,} messages: {rows:,} rows and {counts['rejects']:,} rejects, "
        f"{size / _MEGA:,.1f} MB on disk. From the first trading day to the last, {share} of all market hours were "
        f"captured; {lost}.</p>"
    )


def _sessions(known: _Known) -> str:
    names = ("session", "status", "from", "to", "contracts", "messages", "quotes", "trades", "depth", "rejects", "MB")
    return table(names, map(_session_row, reversed(known.sessions)), words=5)


def _session_row(session: Session) -> list[str]:
    now = session.snapshot()
    contracts = ", ".join(one.name or one.contract_id for one in now.contracts)
    size = sum(file.bytes for file in now.manifest.files) / _MEGA
    streams = ("messages", "quotes", "trades", "depth", "rejects")
    return [
        f'<a href="#{session.session_id}">{session.session_id}</a>',
        now.manifest.state,
        moment(now.start_ns),
        moment(now.end_ns),
        escape(contracts),
        *(f"{now.counts.get(stream, 0):,}" for stream in streams),
        f"{size:,.1f}",
    ]


def _quality(known: _Known) -> str:
    """A row a session and contract, each number with its exact value."""
    figures = {(row["session_id"], row["contract_id"], row["metric"]): row for row in known.figures.rows(named=True)}
    names = ["session", "contract", *map(_heading, _COLUMNS)]
    rows = [
        [_anchor(session.session_id, first=number == 0), escape(contract.name or contract.contract_id)]
        + [_cell(figures.get((session.session_id, contract.contract_id, metric))) for metric in _COLUMNS]
        for session in reversed(known.sessions)
        for number, contract in enumerate(session.contracts)
    ]
    return table(names, rows, words=2)


def _heading(metric: str) -> str:
    """What a column holds; a count is its own unit, and a name may end in its unit."""
    name, unit = metric.replace("_", " "), METRICS[metric].unit
    told = unit in ("messages", "entries", "gaps", "1/s") or name.endswith(f" {unit}")
    return name if told else f"{name}, {unit}"


def _anchor(session_id: str, *, first: bool) -> str:
    return f'<span id="{session_id}">{session_id}</span>' if first else ""


def _cell(row: dict[str, Any] | None) -> str:
    return "" if row is None else datum(row, shown(row["value"]), session=row["session_id"])


def _incidents(known: _Known) -> str:
    """How often each kind was noted, session by session."""
    kinds = sorted({kind for one in known.sessions for kind in one.manifest.incidents})
    if not kinds:
        return "<p>None was noted.</p>"
    rows = (
        [one.session_id, *(f"{one.manifest.incidents.get(kind, 0):,}" for kind in kinds)]
        for one in reversed(known.sessions)
        if one.manifest.incidents
    )
    return table(["session", *(kind.replace("_", " ") for kind in kinds)], rows, words=1)


def _day(day: object) -> str:
    return escape(str(day))
