"""Every message that docs/reference/errors.md explains, provoked: the words are the page's, and so is the exit code."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, NamedTuple

import pytest
import typer
from lake_builder import record, trade
from mistakes import MISTAKES
from pages import ROOT, generated, raised_by_the_source
from place import Place
from programs import simulator
from refused import REFUSED
from surroundings import DATABASES, FILES, GATEWAYS

import mdcapture as md
from mdcapture import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reference import Raised

PAGE = ROOT / "docs/reference/errors.md"
SECTIONS = {"Yours": (2, 3, 5), "The gateway's": (4, 5), "The files'": (1, 6), "A database's": (7,)}
ARGUMENTS = "Arguments of Python functions"
ELSEWHERE = "Provoked elsewhere"
PROVOKED = MISTAKES | GATEWAYS | FILES | DATABASES


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    with simulator("--contract", "MNQ") as addresses:
        yield addresses["api"]


@pytest.fixture(scope="module", autouse=True)
def _one_command_line() -> Iterator[None]:
    """A process builds its commands once, and so does this one, which is many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("errors") / "lake"
    record(folder, *[trade(price=4800.0 + number / 4) for number in range(50)])
    return folder


@pytest.fixture
def place(lake: Path, tmp_path: Path, gateway: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setenv("MDCAPTURE_USERNAME", "somebody")
    monkeypatch.setenv("MDCAPTURE_API_KEY", "demo")
    monkeypatch.chdir(tmp_path)
    return Place(lake, tmp_path, gateway)


def rows() -> dict[str, dict[str, list[str]]]:
    """The table of each section: the cells behind each message."""
    part = PAGE.read_text().split("## Causes and cures")[1].split("## Every message")[0]
    found = {}
    for section in part.split("\n### ")[1:]:
        title, text = section.split("\n", 1)
        found[title] = {
            message: cells.split(" | ")
            for message, cells in re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, re.MULTILINE)
        }
    return found


ROWS = rows()


def pattern(message: str) -> str:
    """What a message matches, whatever `…` stands for."""
    return ".*".join(re.escape(part.strip()) for part in message.split("…"))


class Refused(NamedTuple):
    """How a function refused an argument: the exit code, the message, and the module that said it."""

    code: int
    said: str
    module: str


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Refused]]:
    """What the functions say that `refused.py` has for a message, called with their wrong arguments."""

    def answer(call: Callable[[Path], object]) -> Refused:
        with pytest.raises(md.MdcaptureError) as caught:
            call(tmp_path_factory.mktemp("refused"))
        return Refused(caught.value.exit_code, str(caught.value), sayer(caught.value))

    return cache(lambda message: [answer(call) for call in REFUSED[message]])


def sayer(error: BaseException) -> str:
    """The module that raised an error first, as the page names it."""
    while isinstance(error.__cause__, md.MdcaptureError):
        error = error.__cause__
    *_, (frame, _) = walk_tb(error.__traceback__)
    return Path(frame.f_code.co_filename).relative_to(ROOT / "mdcapture").with_suffix("").as_posix()


def test_every_message_on_the_page_is_provoked():
    assert ROWS.keys() == {*SECTIONS, ARGUMENTS, ELSEWHERE}
    assert [message for section in SECTIONS for message in ROWS[section]] == list(PROVOKED)
    assert list(ROWS[ARGUMENTS]) == list(REFUSED)


@pytest.mark.parametrize("message", PROVOKED)
def test_the_message_is_said_with_its_exit_code(message: str, place: Place):
    code, said = PROVOKED[message](place)
    assert re.search(pattern(message), said, re.DOTALL), said
    (section,) = (section for section in SECTIONS if message in ROWS[section])
    assert code in SECTIONS[section], said
    assert "Traceback" not in said


@pytest.mark.parametrize("message", REFUSED)
def test_a_wrong_argument_is_refused_in_these_words(message: str, refused: Callable[[str], list[Refused]]):
    for answer in refused(message):
        assert re.search(pattern(message), answer.said, re.DOTALL), answer
        assert answer.code in {2, 3}, answer


@pytest.mark.parametrize("message", ROWS[ELSEWHERE])
def test_the_test_that_the_page_names_is_there_and_has_the_message(message: str):
    path, name = ROWS[ELSEWHERE][message][-1].strip("`").split("::")
    source = (ROOT / path).read_text()
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    assert name in {node.name for node in ast.parse(source).body if isinstance(node, functions)}
    assert name.startswith("test_")
    assert re.search(pattern(message), source.replace("\\", ""))


def test_no_message_of_the_source_is_missing_on_the_page(refused: Callable[[str], list[Refused]]):
    """Those about arguments count where they were provoked, word for word; the others where a row of the page fits."""
    explained = {message: pattern(message) for section in ROWS if section != ARGUMENTS for message in ROWS[section]}
    answers = [answer for message in REFUSED for answer in refused(message)]

    def known(message: Raised) -> bool:
        whole = re.compile(pattern(message.text), re.DOTALL)
        if any(re.search(fits, message.text, re.DOTALL) or whole.fullmatch(row) for row, fits in explained.items()):
            return True
        return any(answer.module == message.module and whole.fullmatch(answer.said) for answer in answers)

    assert [(one.module, one.text) for one in raised_by_the_source() if not known(one)] == []


def test_every_exit_code_of_the_errors_is_on_the_page():
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE)}
    assert {getattr(errors, name).exit_code for name in errors.__all__} <= codes


def test_the_site_has_the_whole_tree_and_every_message():
    assert {"<!-- generated: tree -->", "<!-- generated: messages -->"} <= set(PAGE.read_text().splitlines())
    tree = generated("tree")
    for name in errors.__all__:
        assert re.search(rf"^{getattr(errors, name).exit_code}  .*\b{name}\b", tree, re.MULTILINE)
    assert "no contract to capture: name some" in generated("messages")
