"""The documentation as tests read it: its pages, and the code in them."""

from __future__ import annotations

import re
import shlex
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reference import Raised

__all__ = [
    "ROOT",
    "WRITTEN",
    "as_kept",
    "bibliography",
    "blocks",
    "command_lines",
    "generated",
    "generated_pages",
    "raised_by_the_source",
]

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block for named, block in fenced if named == language]


def command_lines(page: Path) -> list[list[str]]:
    """Every call of `mdcapture` in a page's shell blocks, as the words that the shell would hand over."""
    found = []
    for block in (*blocks(page, "sh"), *blocks(page, "")):
        commands = re.sub(r"(^|\s)# .*$", "", block, flags=re.MULTILINE)
        calls = re.findall(r"^(?:\w+=\S+ )*mdcapture ((?:\"[^\"]*\"|'[^']*'|[^\"'\n])+)", commands, re.MULTILINE)
        found += [_until_the_next(shlex.split(call)) for call in calls]
    return found


def _until_the_next(words: list[str]) -> list[str]:
    ends = [place for place, word in enumerate(words) if word in {"|", "&", ";", "&&", ">", "2>"}]
    return words[: ends[0]] if ends else words


def generated_pages() -> dict[str, str]:
    """Every page of the site by its path, with what the program knows of itself filled in."""
    _find_scripts()
    from build import pages  # noqa: PLC0415  # a script, found only now

    return pages()


def as_kept(text: str) -> str:
    """A page with those generated parts renewed that docs/ keeps."""
    _find_scripts()
    from build import with_kept_parts  # noqa: PLC0415  # likewise

    return with_kept_parts(text)


def generated(part: str) -> str:
    """What a page of the site has in place of `<!-- generated: part -->`."""
    _find_scripts()
    from reference import GENERATED  # noqa: PLC0415  # likewise

    return "\n".join(GENERATED[part]())


@cache
def raised_by_the_source() -> list[Raised]:
    """Every message of an error that the package's source holds."""
    _find_scripts()
    from reference import raised  # noqa: PLC0415  # likewise

    return raised()


def bibliography() -> list[dict[str, str]]:
    """The papers and books of the references' page, as their fields."""
    _find_scripts()
    from bibliography import entries  # noqa: PLC0415  # likewise

    return list(entries())


def _find_scripts() -> None:
    folder = str(ROOT / "docs/site")
    if folder not in sys.path:
        sys.path.insert(0, folder)
