"""The page and what it may do: everything is inside of it, and its policy allows nothing else by name or place."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.metadata import version
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Final

from mdcapture.lake.schema import TABLES

if TYPE_CHECKING:
    from pathlib import Path

    from mdcapture.lake.schema import Table
    from mdcapture.serve.queries import QueryLimits

__all__ = ["main_page", "waiting_page"]

_WAITING: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="1"><title>$session_id: its report is being made</title><style>$style</style></head>
<body><main class="waiting"><h1>$session_id</h1>
<p role="status">Its report is being made, for $seconds s by now. This page reloads by itself.</p>
<progress aria-label="the report is being made"></progress></main></body></html>
"""


def main_page(root: Path, limits: QueryLimits) -> tuple[str, str]:
    """The page of a lake, and its content security policy.

    Args:
        root: The lake.
        limits: What the page says of queries.
    """
    style, script = _resource("page.css"), _resource("page.js")
    text = Template(_resource("page.html")).substitute(
        style=style,
        script=script,
        lake=escape(str(root)),
        version=escape(version("mdcapture")),
        views=_views(),
        rows=f"{limits.rows:,}",
        seconds=f"{limits.answer_s:g}",
        memory=f"{limits.memory_mb:,}",
    )
    return text, _policy(style, script)


def waiting_page(session_id: str, seconds: float) -> tuple[str, str]:
    """What stands in for a report until it is made, and its policy; it asks again by itself.

    Args:
        session_id: Whose report it is.
        seconds: Since when it is being made.
    """
    style = _resource("page.css")
    text = Template(_WAITING).substitute(session_id=escape(session_id), seconds=f"{seconds:.0f}", style=style)
    return text, _policy(style)


def _resource(name: str) -> str:
    return files("mdcapture.serve").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str | None = None) -> str:
    scripts = "'none'" if script is None else f"'{_digest(script)}'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src '{_digest(style)}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _views() -> str:
    """The tables and their columns, for people who write queries."""
    return "".join(
        f"<dt><code>{table.name}</code> {escape(table.meaning)}</dt><dd>{_columns(table)}</dd>"
        for table in TABLES.values()
    )


def _columns(table: Table) -> str:
    return " ".join(f'<code title="{escape(column.meaning)}">{column.name}</code>' for column in table.columns)
