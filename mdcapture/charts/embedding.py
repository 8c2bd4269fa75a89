"""Charts inside of a page: the scripts that draw them, as text, and each chart as JSON that fits its column's width."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import vl_convert

if TYPE_CHECKING:
    import altair as alt

__all__ = ["Embedded", "embed", "vega_script"]


_WINDOW = "window.vegaEmbed = vegaEmbed;"
"""What is kept of the bundle's names for the page's own script."""


class Embedded(NamedTuple):
    """A chart for a page, which writes the title itself so that long lines wrap."""

    title: str
    subtitle: tuple[str, ...]
    specification: dict[str, Any]


def embed(chart: alt.LayerChart) -> Embedded:
    """Take a chart's title off, and let it be as wide as its place in the page."""
    specification = json.loads(chart.to_json(indent=None))
    heading = specification.pop("title", {})
    specification.pop("config", None)
    specification |= {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    subtitle = heading.get("subtitle", "")
    lines = (subtitle,) if isinstance(subtitle, str) else tuple(subtitle)
    return Embedded(heading.get("text", ""), lines, specification)


def vega_script() -> str:
    """Vega, Vega-Lite and Vega-Embed, which put `vegaEmbed` on the page's window."""
    script: str = vl_convert.javascript_bundle(_WINDOW)
    return script
