"""The house as a picture: a row for each room in the order of its imports, and who imports from whom.

The rooms' order is what `tests/test_house.py` declares; what they hold and import is read from the source.
"""

from __future__ import annotations

import ast
from collections import Counter
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Room", "draw", "rooms"]

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "mdcapture"

ROW, CELL, TEXT, MARGIN = 30, 24, 340, 92


class Room(NamedTuple):
    """A room of the house: what it holds, its lines of code, and how many imports it takes from which rooms."""

    name: str
    holds: str
    lines: int
    imports: Counter[str]


def rooms() -> list[Room]:
    """The rooms from the foundation up."""
    return [_room(name) for name in _declared()]


def draw(house: list[Room]) -> str:
    """Draw the house: the foundation below, and in each row a dot for each room that it imports from.

    Imports run down, so that no dot lies above the diagonal; a dot grows with the number of imports.
    """
    from_above = house[::-1]
    width = TEXT + CELL * len(house) + 10
    height = MARGIN + ROW * len(house) + 10
    parts = [
        f'<svg class="house" viewBox="0 0 {width} {height}" role="img" xmlns="http://www.w3.org/2000/svg">',
        "<title>The rooms of mdcapture: each row imports from the columns that its dots stand in</title>",
    ]
    for column, room in enumerate(from_above):
        x = TEXT + CELL * (column + 0.5)
        parts.append(f'<text x="{x}" y="{MARGIN - 10}" transform="rotate(-60 {x} {MARGIN - 10})">{room.name}</text>')
    for row, room in enumerate(from_above):
        y = MARGIN + ROW * row
        parts += [
            f'<rect class="row{row % 2}" x="0" y="{y}" width="{width}" height="{ROW}"/>',
            f'<text class="name" x="8" y="{y + 19}">{room.name}</text>',
            f'<text class="lines" x="132" y="{y + 19}">{room.lines:,}</text>',
            f'<text class="holds" x="144" y="{y + 19}">{escape(_short(room.holds))}</text>',
            f'<rect class="self" x="{TEXT + CELL * row + 6}" y="{y + 7}" width="{CELL - 12}" height="{ROW - 14}"/>',
        ]
        parts += [
            f'<circle cx="{TEXT + CELL * (column + 0.5)}" cy="{y + ROW / 2}" r="{2.5 + min(count, 40) ** 0.5:.1f}">'
            f"<title>{room.name} imports from {other.name}: {count} times</title></circle>"
            for column, other in enumerate(from_above)
            if (count := room.imports[other.name])
        ]
    return "\n".join([*parts, "</svg>"])


def _declared() -> list[str]:
    tree = ast.parse((ROOT / "tests/test_house.py").read_text())
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "ROOMS" for target in node.targets)
    ]
    return list(ast.literal_eval(values[0]))


def _room(name: str) -> Room:
    single = PACKAGE / f"{name}.py"
    files = [single] if single.is_file() else sorted((PACKAGE / name).rglob("*.py"))
    trees = [ast.parse(file.read_text()) for file in files]
    first = trees[0] if single.is_file() else ast.parse((PACKAGE / name / "__init__.py").read_text())
    found = Counter(
        node.module.split(".")[1]
        for tree in trees
        for node in _running(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mdcapture.")
    )
    del found[name]
    holds = (ast.get_docstring(first) or "").splitlines()[0].rstrip(".")
    return Room(name, holds, sum(len(file.read_text().splitlines()) for file in files), found)


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from _running(node)


def _short(text: str) -> str:
    """What fits beside the name: up to the first colon, or some words."""
    head = text.split(":", maxsplit=1)[0]
    limit = 36
    return head if len(head) <= limit else head[: limit - 1].rsplit(" ", 1)[0].rstrip(",;") + " …"
