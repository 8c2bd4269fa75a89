"""What the program itself knows: what stands in the pages from `<!-- generated: NAME -->` to `<!-- end of NAME -->`.

Each function here is one of those names.
"""

from __future__ import annotations

import ast
import re
import sys
from html import escape
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from typer.main import get_command

import mdcapture
import mdcapture.errors
from mdcapture.cli.app import app
from mdcapture.interop.dictionary import dictionary
from mdcapture.lake.schema import TABLES
from mdcapture.session import open_lake
from mdcapture.simulator.faults import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["GENERATED", "KEPT", "Raised", "commands", "modules", "options", "raised", "view_columns"]

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "mdcapture"
_WIDTH = 78
"""Of a line of usage, however wide the terminal is that this runs in."""

LIBRARY_ROOMS = ("analysis", "charts", "interop", "lake", "live", "metrics", "query")
"""The rooms whose modules are documented one by one; the rest is reached through `mdcapture` itself."""


# The command line.


def commands() -> dict[str, Any]:
    """Every command by the words that call it, as `config show`."""
    found: dict[str, Any] = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{name} {key}": one for key, one in inner.items()} if inner else {name: command}
    return found


def options(command: Any) -> list[tuple[str, str]]:  # noqa: ANN401  # typer's copy of click has no public types
    """The arguments and options of a command as its help shows them, each with its meaning; `--help` is in all."""
    context = command.make_context("mdcapture", [], resilient_parsing=True)
    records = [one.get_help_record(context) for one in command.get_params(context) if one.name != "help"]
    return [record for record in records if record]


def _commands() -> Iterator[str]:
    for words, command in commands().items():
        context = command.make_context(f"mdcapture {words}", [], resilient_parsing=True, terminal_width=_WIDTH)
        yield f"## `mdcapture {words}`\n"
        yield f"{_paragraphs(command.help)}\n"
        yield f"```text\n{command.get_usage(context)}\n```\n"
        yield from _table(("option", "meaning"), [(f"`{name}`", meaning) for name, meaning in options(command)])


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(one.split()) for one in re.split(r"\n\s*\n", text or ""))


# The data.


def view_columns() -> dict[str, list[tuple[str, str, str, str]]]:
    """The columns of every SQL view: name, type, unit and meaning; what the schema does not declare has no meaning."""
    with TemporaryDirectory() as folder:
        Path(folder, "sessions").mkdir()
        lake = open_lake(folder)
        found = {}
        for view in (*TABLES, "market_depth", "gaps", "sessions", "contracts"):
            schema = lake.sql(f"from {view} limit 0").to_arrow_table().schema
            entries = dictionary("depth" if view == "market_depth" else view, schema)
            found[view] = [(one.column, one.type, one.unit, one.meaning) for one in entries]
    return found


def _tables() -> Iterator[str]:
    for table in TABLES.values():
        yield f"## `{table.name}`\n"
        yield f"{table.meaning[0].upper()}{table.meaning[1:]}.\n"
        rows = [(f"`{c.name}`", c.type, c.unit, c.meaning, f"`{c.wire}`" if c.wire else "") for c in table.columns]
        yield from _table(("column", "type", "unit", "meaning", "on the wire"), rows)


# The library.


def modules(room: str) -> list[str]:
    """The modules of a room, as `mdcapture.metrics.spreads`."""
    return [f"mdcapture.{room}.{path.stem}" for path in sorted((PACKAGE / room).glob("*.py")) if path.stem[0] != "_"]


def _modules() -> Iterator[str]:
    for room in LIBRARY_ROOMS:
        yield f"## {room}\n"
        yield f"{ast.get_docstring(ast.parse((PACKAGE / room / '__init__.py').read_text()))}\n"
        rows = [(f"[`{name}`](python/{name}.md)", _first_line(name)) for name in modules(room)]
        yield from _table(("module", "what it holds"), rows)


def _first_line(module: str) -> str:
    path = ROOT / f"{module.replace('.', '/')}.py"
    return (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]


# What is raised.


class Raised:
    """A message that the code raises: its class, its text with `…` for what is filled in, and its module."""

    def __init__(self, kind: str, text: str, module: str) -> None:
        self.kind, self.text, self.module = kind, text, module


def raised() -> list[Raised]:
    """Every message of an error of ours that is written in the source."""
    return [
        Raised(node.func.id, text, path.relative_to(PACKAGE).with_suffix("").as_posix())
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in mdcapture.errors.__all__
        if node.args and re.search(r"\w", text := _template(node.args[-1]))
    ]


def _tree() -> Iterator[str]:
    """The tree of errors as their module draws it, each with the exit code of the command line."""
    drawn = (mdcapture.errors.__doc__ or "").split("\n\n")[1]
    yield "```text"
    for line in drawn.splitlines():
        name = re.search(r"\w+Error", line)
        assert name is not None
        yield f"{getattr(mdcapture.errors, name[0]).exit_code}  {line}"
    yield "```\n"


def _template(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_template(value) for value in values)
        case ast.BinOp(left=left, right=right):
            return _template(left) + _template(right)
        case _:
            return "…"


def _messages() -> Iterator[str]:
    every = raised()
    for kind in mdcapture.errors.__all__:
        own = sorted({(one.text, one.module) for one in every if one.kind == kind})
        if own:
            yield f"### `{kind}`\n"
            rows = [(_code(text.replace("\n", " ")), f"`{module}`") for text, module in own]
            yield from _table(("message", "from"), rows)


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


# The rest.


def _examples() -> Iterator[str]:
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text()
        said = (ast.get_docstring(ast.parse(text)) or "").split("\n\n", 1)[0]
        yield f"## `{path.name}`\n"
        yield f"{' '.join(said.split())}\n"
        yield f"```python\n{text.rstrip()}\n```\n"


def _faults() -> Iterator[str]:
    rows = [
        (f"`{kind}`", trait.does, ", ".join(f"`{what}`" for what in trait.what), "yes" if trait.lasts else "")
        for kind, trait in KINDS.items()
    ]
    yield from _table(("kind", "what happens", "what it may be about", "lasts"), rows)


def _dependencies() -> Iterator[str]:
    rows = []
    for line in requires("mdcapture") or []:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        if name != "mdcapture" and not (extra and extra[1] == "all"):
            bound = line.split(";")[0].removeprefix(name).strip()
            rows.append((f"`{name}`", bound, f"`{extra[1]}`" if extra else "", *_declared(name)))
    yield from _table(("library", "from", "extra", "licence", "in its own words"), rows)


def _declared(name: str) -> tuple[str, str]:
    """The licence and the summary that a library declares."""
    try:
        said = metadata(name)
    except PackageNotFoundError:  # an extra that this Python can't have
        return "see the package", ""
    licence = said.get("License-Expression") or _licence(said.get_all("Classifier", []), said.get("License"))
    return licence, said.get("Summary") or ""


def _licence(classifiers: list[str], text: str | None) -> str:
    names = [one.rsplit(" :: ", 1)[1] for one in classifiers if one.startswith("License :: ")]
    return " or ".join(names) or (text or "see the package").splitlines()[0]


def _house() -> Iterator[str]:
    sys.path.insert(0, str(Path(__file__).parent))
    from house import draw, rooms  # noqa: PLC0415  # a script beside this one

    yield f'<div class="wide">\n{draw(rooms())}\n</div>\n'


def _references() -> Iterator[str]:
    sys.path.insert(0, str(Path(__file__).parent))
    from bibliography import described, entries  # noqa: PLC0415  # likewise

    yield from map(described, entries())


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    cells = [head, ("---",) * len(head), *rows]
    yield "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in cells) + "\n"


def _cell(text: str) -> str:
    code_apart = re.split(r"(`[^`]*`)", re.sub(r"\s+", " ", text))
    return "".join(_code_in_a_cell(part) if part.startswith("`") else part.replace("|", "\\|") for part in code_apart)


def _code_in_a_cell(code: str) -> str:
    """Code as it is, unless it has a bar: Markdown's dialects agree on none that would show it."""
    return f"<code>{escape(code.strip('`'))}</code>".replace("|", "&#124;") if "|" in code else code


def _library() -> Iterator[str]:
    yield "::: mdcapture"
    yield "    options:"
    yield "      show_root_members_full_path: false"


GENERATED: dict[str, Callable[[], Iterator[str]]] = {
    "commands": _commands,
    "dependencies": _dependencies,
    "examples": _examples,
    "faults": _faults,
    "house": _house,
    "library": _library,
    "messages": _messages,
    "modules": _modules,
    "references": _references,
    "tables": _tables,
    "tree": _tree,
}

KEPT = ("commands", "faults", "references", "tables", "tree")
"""Those that a page in docs/ holds, too, for readers without the site."""
