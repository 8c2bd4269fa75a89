"""A session's report: one page that holds everything it needs, for light and dark, for desks, phones and paper.

analysis + extracts ──▶ sections (HTML), charts ──▶ document
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mdcapture.analysis.analyze import extracts, figures
from mdcapture.analysis.catalogue import GROUPS, METRICS
from mdcapture.analysis.pictures import PICTURES, draw
from mdcapture.analysis.result import counted, shown
from mdcapture.charts.drawing import UTC
from mdcapture.report.document import Drawn, Section, definitions, document, drawn, made, moment, places, table
from mdcapture.report.story import datum, story
from mdcapture.wire.timestamps import format_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mdcapture.analysis.extract import Extract
    from mdcapture.analysis.hours import Moment
    from mdcapture.analysis.result import Analysis
    from mdcapture.session import Session

__all__ = ["report"]

_DRAWN: Final = 4
"""So many contracts have charts, those with the most trades; a page of more would be slow to open."""

_INCIDENTS: Final = 500
_SIGNS: Final = "D is +1 where a buyer was the aggressor and -1 where a seller was, p a price, q lots, r a log return."


def report(
    session: Session,
    contracts: Sequence[str] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    regular_hours: bool = False,
    zone: str = UTC,
    command: str = "",
    progress: Callable[[int], object] = lambda _: None,
) -> str:
    """The report of a session as HTML, in one piece.

    Args:
        session: The session.
        contracts: Their ids or names; without them, all that it has.
        start: From when on, see `Session.analyze`.
        end: Until before when.
        regular_hours: Only the hours of regular trading.
        zone: The time zone of the charts' clocks.
        command: The command that made it, which the page names.
        progress: Told how many charts are drawn.

    Raises:
        NotFoundError: The session has no such contract, or nothing at all.
        UsageError: The times leave nothing.
    """
    parts = extracts(session, contracts, start, end, regular_hours=regular_hours)
    analysis = figures(session, parts)
    charts = []
    for chart in _charts(parts, zone):
        charts.append(chart)
        progress(len(charts))
    sections = [
        Section("In short", _stories(analysis)),
        Section("Charts", places(charts)),
        Section("Figures", _groups(analysis)),
        Section("Left out", _listed(analysis.reasons())),
        Section("Incidents", _incidents(session)),
        Section("Definitions and sources", f"<p>{_SIGNS}</p>{definitions()}"),
        Section("How this page was made", made(command)),
    ]
    return document(session.session_id, _heading(analysis), sections, charts)


def _heading(analysis: Analysis) -> str:
    names = ", ".join(
        f"{one.name or one.contract_id} ({one.description or one.contract_id})" for one in analysis.contracts
    )
    first, last = (
        format_ns(ns, 0)[:19].replace("T", " ") for ns in (analysis.windows[0].from_ns, analysis.windows[-1].to_ns)
    )
    return f"<h1>{escape(analysis.session_id)}</h1><p>{escape(names)}<br>{first} to {last} UTC</p>"


def _stories(analysis: Analysis) -> str:
    return "".join(
        f"<p><strong>{escape(one.name or one.contract_id)}.</strong> {story(analysis, one)}</p>"
        for one in analysis.contracts
    )


def _charts(parts: Sequence[Extract], zone: str) -> Iterator[Drawn]:
    """The charts of the busiest contracts, and those that compare contracts."""
    busiest = sorted(parts, key=lambda x: x.trades.height, reverse=True)[:_DRAWN]
    chosen = [x for x in parts if x in busiest]
    of_one = [([x], kind) for x in chosen for kind, picture in PICTURES.items() if not picture.of_all]
    of_all = [(parts, kind) for kind, picture in PICTURES.items() if picture.of_all and len(parts) > 1]
    for of, kind in (*of_one, *of_all):
        yield drawn(draw(kind, of, zone), PICTURES[kind].caption)


def _groups(analysis: Analysis) -> str:
    names = {one.contract_id: one.name or one.contract_id for one in analysis.contracts}
    tables = []
    for group in GROUPS:
        rows = analysis.figures.filter((pl.col("group") == group) & pl.col("value").is_not_null())
        if rows.height:
            tables.append(f"<div><h3>{group}</h3>{_table(rows, names)}</div>")
    return f'<div class="groups">{"".join(tables)}</div>'


def _table(rows: pl.DataFrame, names: Mapping[str, str]) -> str:
    columns = rows.select("contract_id", "other_id").unique(maintain_order=True).rows()
    cells = {(row["metric"], row["contract_id"], row["other_id"]): row for row in rows.iter_rows(named=True)}
    head = "".join(f"<th>{escape(names[one])}{f' / {escape(names[two])}' if two else ''}</th>" for one, two in columns)
    lines = []
    for metric in rows["metric"].unique(maintain_order=True):
        values = "".join(_cell(cells.get((metric, *column))) for column in columns)
        definition = escape(METRICS[metric].definition)
        name = f'<th scope="row" title="{definition}">{metric.replace("_", " ")}</th>'
        sample = _sample(cells[(metric, *columns[0])]) if len(columns) == 1 else ""
        lines.append(f"<tr>{name}{values}<td class='unit'>{escape(METRICS[metric].unit)}</td>{sample}</tr>")
    alone = "<th>n</th>" if len(columns) == 1 else ""
    return (
        f'<div class="wide"><table><thead><tr><th></th>{head}<th class="unit">unit</th>{alone}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "<td></td>"
    sample = "" if row["n"] is None else f' title="n = {row["n"]:,}"'
    return f'<td class="number"{sample}>{datum(row, shown(row["value"], row["error"]))}</td>'


def _sample(row: Mapping[str, Any]) -> str:
    return f'<td class="sample">{"" if row["n"] is None else format(row["n"], ",")}</td>'


def _listed(reasons: Iterator[str]) -> str:
    items = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    return f"<ul>{items}</ul>" if items else "<p>Nothing.</p>"


def _incidents(session: Session) -> str:
    rows = session.incidents().sort("recv_ns").head(_INCIDENTS + 1).collect()
    if rows.is_empty():
        return "<p>None was noted.</p>"
    cells = (
        (
            moment(row["from_ns"], 3),
            moment(row["to_ns"], 3),
            *map(escape, (row["kind"], row["stream"] or "all", row["contract_id"] or "all", row["detail"])),
        )
        for row in rows.head(_INCIDENTS).iter_rows(named=True)
    )
    names = ("from", "to", "what", "stream", "contract", "detail")
    listed = table(names, cells)
    more = f"<p>Only the first {_INCIDENTS} are listed.</p>" if rows.height > _INCIDENTS else ""
    return (
        f"<details open><summary>{counted(min(rows.height, _INCIDENTS), 'incident')}</summary>{listed}{more}</details>"
    )
