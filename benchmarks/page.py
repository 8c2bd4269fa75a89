"""The figures of results.json as a page of the documentation, with a chart: docs/benchmarks.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import altair as alt
import polars as pl

from mdcapture.charts.drawing import save

if TYPE_CHECKING:
    from figures import Result

FOLDER = Path(__file__).resolve().parent
DOCS = FOLDER.parent / "docs"
PAGE = DOCS / "benchmarks.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
CHART = DOCS / "images" / "benchmarks.svg"


def number(value: float | None) -> str:
    """A figure as people read it."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def row(result: Result) -> str:
    """A row of the table."""
    met = {True: "yes", False: "**no**", None: ""}[result.get("met")]
    cells = (
        result["figure"],
        f"{number(result['value'])} {result['unit']}",
        f"{result.get('beside', '')} {number(result.get('peer'))}".strip(),
        number(result.get("ratio")),
        result.get("goal", ""),
        met,
    )
    return f"| {' | '.join(cells)} |"


def table(results: list[Result]) -> str:
    """All figures, a section a benchmark."""
    parts = []
    for name in dict.fromkeys(result["benchmark"] for result in results):
        rows = [row(result) for result in results if result["benchmark"] == name]
        head = "| figure | measured | beside | ratio | goal | met |\n| --- | --- | --- | --- | --- | --- |"
        parts.append(f"### {name}\n\n" + "\n".join([head, *rows]))
    return "\n\n".join(parts)


def distance(result: Result) -> float | None:
    """How many times better than its goal a figure is; nothing where one of them is zero."""
    if "goal" not in result:
        return None
    sign, bound = result["goal"].split()[:2]
    measured, goal = result.get("ratio", result["value"]), float(bound)
    if not measured or not goal:
        return None
    return measured / goal if sign == "≥" else goal / measured


def chart(results: list[Result]) -> alt.LayerChart:
    """Each figure's distance from its goal."""
    rows = [
        {"figure": f"{result['figure']} · {result.get('beside', '')}".rstrip(" ·"), "better": better}
        for result in results
        if (better := distance(result)) is not None
    ]
    bars = alt.Chart(pl.DataFrame(rows).to_arrow()).encode(
        y=alt.Y("figure:N", sort=None, title=None, axis=alt.Axis(labelLimit=500))
    )
    scale = alt.Scale(type="log")
    drawn = alt.layer(
        bars.mark_point(filled=True, size=60).encode(
            x=alt.X("better:Q", scale=scale, title="times better than its goal (right of 1: met)"),
            color=alt.condition("datum.better >= 1", alt.value("#2a7f9e"), alt.value("#c8553d")),
            shape=alt.condition("datum.better >= 1", alt.value("circle"), alt.value("cross")),
        ),
        alt.Chart(pl.DataFrame({"at": [1.0]}).to_arrow()).mark_rule(strokeDash=[4, 3]).encode(x="at:Q"),
    ).properties(width=420)
    assert isinstance(drawn, alt.LayerChart)
    return drawn


def main() -> None:
    """Put table and chart into the page, between its marks."""
    content = json.loads((FOLDER / "results.json").read_text())
    results = content["figures"]
    save(chart(results), CHART)
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    machine = (
        f"{content['cores']} cores ({content['machine']}, {content['system']}), Python {content['python']}, {versions}"
    )
    text = f"Measured on {content['date']}: {machine}.\n\n![](images/benchmarks.svg)\n\n{table(results)}\n"
    page = PAGE.read_text()
    PAGE.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{text}\n{END}", page, flags=re.DOTALL))


if __name__ == "__main__":
    main()
