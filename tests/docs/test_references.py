"""What the code and the pages cite is on the page of the references, and what is there is cited."""

from __future__ import annotations

import ast
import calendar
import re
import unicodedata
from typing import NamedTuple

import pytest
from pages import ROOT, WRITTEN, bibliography

NAME = r"(?:(?:de|van|Van|López de) )?[A-ZÀ-Þ][\w']+(?:-[A-ZÀ-Þ][\w']+)*"
CITED = re.compile(
    rf"({NAME}(?:, {NAME})*(?:,? (?:and|&) (?:{NAME}|others))?),? \(?((?:19|20)\d\d(?:, (?:19|20)\d\d)*)\b"
)
"""`Lee (1993)`, `Huang & Stoll 1996`, `Easley, López de Prado and O'Hara 2012, 2016`, `Tóth and others 2011`."""
NO_AUTHORS = {*calendar.month_name, "Russell"}
"""What stands before a year in dates, and in the name of an index."""
PAGE = ROOT / "docs/references.md"


class Citation(NamedTuple):
    authors: tuple[str, ...]
    year: str

    def is_of(self, entry: dict[str, str]) -> bool:
        authors = tuple(author.split(", ")[0] for author in entry["author"].split(" and "))
        cited = (authors[0], "others") if self.authors[-1] == "others" else authors
        return (self.authors, self.year) == (cited, entry["year"])


def citations(*texts: str) -> set[Citation]:
    """Whom texts cite, however their lines are broken."""
    found = set()
    for names, years in (match for text in texts for match in CITED.findall(re.sub(r"\s+", " ", text))):
        authors = tuple(re.split(r",? (?:and|&) |, ", names))
        found |= {Citation(authors, year) for year in years.split(", ") if authors[0] not in NO_AUTHORS}
    return found


def strings(path: str) -> list[str]:
    """Docstrings, help and all other text in the files of Python that a pattern names."""
    trees = [ast.parse(file.read_text()) for file in sorted(ROOT.glob(path))]
    nodes = (node for tree in trees for node in ast.walk(tree))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def plain(text: str) -> str:
    """Letters and digits alone, whichever marks and capitals a text has."""
    return re.sub(r"[\W_]", "", text).casefold()


def unaccented(text: str) -> str:
    """As libraries sort: é beside e, æ as ae."""
    return unicodedata.normalize("NFKD", text.replace("æ", "ae")).encode("ascii", "ignore").decode().lower()


@pytest.fixture(scope="module")
def library() -> list[str]:
    return strings("mdcapture/**/*.py")


def test_what_is_cited_is_on_the_page(library: list[str]):
    pages = [page.read_text() for page in WRITTEN if page != PAGE]
    cited = citations(*library, *strings("examples/*.py"), *pages)
    missing = {one for one in cited if not any(one.is_of(entry) for entry in bibliography())}
    assert not missing, "not in docs/references.bib, or not with these authors and this year"


def test_what_is_on_the_page_is_cited_in_the_library_with_the_same_title(library: list[str]):
    cited, said = citations(*library), plain(" ".join(library))
    idle = [entry for entry in bibliography() if not any(one.is_of(entry) for one in cited)]
    otherwise = [entry["title"] for entry in bibliography() if plain(entry["title"]) not in said]
    assert not idle
    assert not otherwise


@pytest.mark.parametrize("entry", bibliography(), ids=lambda entry: f"{entry['author']} {entry['year']}")
def test_an_entry_says_where_the_work_appeared_and_what_it_is_for(entry: dict[str, str]):
    assert entry.keys() >= {"author", "title", "year", "annotation", "where"}
    assert entry.keys() & {"journal", "publisher", "institution"}
    assert "journal" not in entry or re.fullmatch(r"\d+", entry["volume"])
    assert re.fullmatch(r"10\.\d{4,}/\S+", entry.get("doi", "10.1000/none"))
    assert (ROOT / "docs" / entry["where"].split("#")[0]).exists()


def test_entries_stand_in_the_order_of_their_authors_and_none_twice():
    bibtex = (ROOT / "docs/references.bib").read_text()
    keys = re.findall(r"^@\w+\{(\w+),$", bibtex, re.MULTILINE)
    order = [(unaccented(entry["author"]), entry["year"]) for entry in bibliography()]
    assert order == sorted(order)
    assert len(keys) == len(set(keys)) == len(bibliography()) == bibtex.count("@")
    assert len({entry["doi"] for entry in bibliography() if "doi" in entry}) == bibtex.count("  doi = ")


@pytest.mark.parametrize(
    ("text", "authors", "years"),
    [
        ("as Nobody (1999), A title", ("Nobody",), {"1999"}),
        ("after Nobody\n    and O'Else (1999)", ("Nobody", "O'Else"), {"1999"}),
        ("Nobody, de Else & Aït-Neither 1999, 2001 | a cell", ("Nobody", "de Else", "Aït-Neither"), {"1999", "2001"}),
        ("(Nobody, Else, Neither 1999)", ("Nobody", "Else", "Neither"), {"1999"}),
        ("(Nobody and others 1999)", ("Nobody", "others"), {"1999"}),
    ],
)
def test_a_citation_is_seen_in_each_way_of_writing_it(text: str, authors: tuple[str, ...], years: set[str]):
    assert citations(text) == {Citation(authors, year) for year in years}
    assert not any(one.is_of(entry) for one in citations(text) for entry in bibliography())
