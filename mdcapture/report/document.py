"""A page in one piece: sections and charts in, HTML out that holds its style, its scripts and Vega, and asks nobody."""

from __future__ import annotations

import json
from html import escape
from importlib.metadata import version
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

from mdcapture.analysis.catalogue import GROUPS, METRICS
from mdcapture.charts.drawing import theme
from mdcapture.charts.embedding import embed, vega_script
from mdcapture.wire.timestamps import format_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mdcapture.analysis.catalogue import Group
    from mdcapture.charts.drawing import Chart

__all__ = ["Drawn", "Section", "definitions", "document", "drawn", "made", "moment", "places", "table"]


class Section(NamedTuple):
    """A part of the page: its heading, and its HTML."""

    name: str
    content: str


class Drawn(NamedTuple):
    """A chart of the page: what stands above it, and its Vega-Lite specification."""

    title: str
    lines: tuple[str, ...]
    specification: dict[str, Any]


def drawn(chart: Chart, *captions: str) -> Drawn:
    """A chart with its title and what explains it as text of the page."""
    embedded = embed(chart)
    return Drawn(embedded.title, (*captions, *embedded.subtitle), embedded.specification)


def document(title: str, heading: str, sections: Sequence[Section], charts: Sequence[Drawn]) -> str:
    """The page.

    Args:
        title: What its tab says.
        heading: What it begins with, as HTML.
        sections: Its parts.
        charts: Those that `places` put into a section in a section, in the same order.
    """
    body = "".join(
        f'<section id="s{number}"><h2>{escape(section.name)}</h2>{section.content}</section>'
        for number, section in enumerate(sections)
    )
    contents = "".join(
        f'<li><a href="#s{number}">{escape(section.name)}</a></li>' for number, section in enumerate(sections)
    )
    return Template(_resource("page.html")).substitute(
        title=escape(title),
        heading=heading,
        contents=contents,
        body=body,
        style=_resource("page.css"),
        charts=_json([chart.specification for chart in charts]),
        themes=_json({"light": {**theme(), "background": None}, "dark": theme(dark=True)}),
        vega=vega_script() if charts else "",
        script=_resource("page.js"),
    )


def _resource(name: str) -> str:
    return files("mdcapture.report").joinpath(name).read_text(encoding="utf-8")


def _json(value: object) -> str:
    """JSON that can stand in a script element: nothing in it can end the element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def places(charts: Sequence[Drawn], first: int = 0) -> str:
    """The places of charts in the page; `first` is the number of the first among all of the page."""
    return "".join(_figure(number, chart) for number, chart in enumerate(charts, first))


def _figure(number: int, chart: Drawn) -> str:
    lines = "".join(f"<span>{escape(line[0].upper() + line[1:])}</span>" for line in chart.lines if line)
    return (
        f"<figure><figcaption><strong>{escape(chart.title)}</strong>{lines}</figcaption>"
        f'<div class="chart" data-chart="{number}" role="img" aria-label="{escape(chart.title)}"></div></figure>'
    )


def table(names: Sequence[str], rows: Iterable[Iterable[str]], *, words: int | None = None) -> str:
    """A table that may be wider than its column.

    Args:
        names: Of the columns, as text.
        rows: Cells as HTML.
        words: So many columns are words, and those that follow are numbers; None: all are words.
    """
    kinds = ["word" if words is None or place < words else "number" for place in range(len(names))]
    head = "".join(f'<th class="{kind}">{escape(name)}</th>' for name, kind in zip(names, kinds, strict=True))
    lines = "".join(f"<tr>{''.join(map(_cell, row, kinds))}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(content: str, kind: str) -> str:
    return f'<td class="{kind}">{content}</td>'


def moment(time_ns: int | None, digits: int = 0) -> str:
    """A time (ns UTC) to so many digits of a second, as HTML; nothing where there is none."""
    if time_ns is None:
        return ""
    text = format_ns(time_ns, digits).removesuffix("+00:00").removesuffix("Z")
    return f"<time>{text.replace('T', ' ')}</time>"


def definitions(groups: Sequence[Group] = GROUPS) -> str:
    """What the metrics are, a group behind a click."""
    parts = []
    for group in groups:
        lines = "".join(
            f"<tr><th scope='row'>{name.replace('_', ' ')}</th><td>{escape(metric.definition)}</td>"
            f"<td>{escape(metric.unit)}</td><td>{escape(metric.source)}</td></tr>"
            for name, metric in METRICS.items()
            if metric.group == group
        )
        head = "<tr><th></th><th>definition</th><th>unit</th><th>source</th></tr>"
        parts.append(
            f"<details><summary>{group}</summary>"
            f'<div class="wide"><table class="words"><thead>{head}</thead><tbody>{lines}</tbody></table></div>'
            "</details>"
        )
    return "".join(parts)


def made(command: str) -> str:
    """By what, and by which command."""
    by = f"mdcapture {version('mdcapture')}"
    return f"<p>By {escape(by)}:</p><pre>{escape(command)}</pre>" if command else f"<p>By {escape(by)}.</p>"
