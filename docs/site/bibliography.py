"""The papers and books that the code and the pages name: docs/references.bib as a list to read.

The file is BibTeX as its own head describes it, a field a line, so that a line's pattern is all that reads it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["described", "entries"]

BIBTEX = Path(__file__).resolve().parent.parent / "references.bib"
ENTRY = re.compile(r"^@\w+\{\w+,\n(.*?)^\}$", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^  (\w+) = \{(.*)\},$", re.MULTILINE)


def entries() -> Iterator[dict[str, str]]:
    """The fields of each entry, as text to read: without braces that keep capitals, and with dashes."""
    for entry in ENTRY.findall(BIBTEX.read_text()):
        fields = dict(FIELD.findall(entry))
        yield {name: re.sub(r"[{}\\]", "", text).replace("--", "\N{EN DASH}") for name, text in fields.items()}


def described(entry: dict[str, str]) -> str:
    """One entry as a line of Markdown: the work, and what it is used for with a link to where."""
    *others, last = entry["author"].split(" and ")
    who = f"{', '.join(others)} & {last}" if others else last
    what = entry["title"] if "journal" in entry else f"*{entry['title']}*"
    if "booktitle" in entry:
        what = f"{entry['title']}, in *{entry['booktitle']}*"
    parts = [f"{who} ({entry['year']}), {what}", *_published(entry), *_numbered(entry)]
    return f"- {', '.join(parts)}. For: [{entry['annotation']}]({entry['where']})"


def _published(entry: dict[str, str]) -> Iterator[str]:
    if "journal" in entry:
        number = f"({entry['number']})" if "number" in entry else ""
        yield f"*{entry['journal']}* {entry['volume']}{number}"
    yield from (entry[name] for name in ("type", "institution", "publisher", "pages") if name in entry)


def _numbered(entry: dict[str, str]) -> Iterator[str]:
    if "doi" in entry:
        yield f"[doi:{entry['doi']}](https://doi.org/{quote(entry['doi'])})"
    if "isbn" in entry:
        yield f"ISBN {entry['isbn']}"
