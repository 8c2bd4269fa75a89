"""The site as `make docs` builds it: whole, without dead links, and without a network."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path

BUILD = ROOT / "docs/site/build.py"


class Page(HTMLParser):
    """What a page links to, what it loads, and what can be linked to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in {"img", "script", "iframe", "source"} and "src" in given:
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") != "canonical":
            self.loads.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    result = subprocess.run([sys.executable, BUILD, folder], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def test_no_link_is_dead(site: Path, pages: dict[Path, Page]):
    dead = []
    for path, page in pages.items():
        for link in page.links + page.loads:
            there = urlsplit(link)
            if there.scheme or there.netloc:
                continue
            target = (path.parent / unquote(there.path)).resolve() if there.path else path
            if target.is_dir() and (target / "index.html").exists():
                target /= "index.html"
            anchored = target in pages and unquote(there.fragment) not in pages[target].anchors
            if path.name != "404.html" and (not target.exists() or anchored):
                dead.append(f"{path.relative_to(site)}: {link}")
    assert not dead


def test_nothing_is_fetched_from_a_network(pages: dict[Path, Page]):
    assert not [load for page in pages.values() for load in page.loads if urlsplit(load).netloc]


def test_the_library_and_the_program_are_in_it(site: Path):
    assert "mdcapture.Recorder.arun" in (site / "reference/python.html").read_text()
    assert "mdcapture.Session.trades" in (site / "reference/python.html").read_text()
    assert "--no-quotes" in (site / "reference/commands.html").read_text()
    assert "Huang and Stoll" in (site / "reference/python/mdcapture.metrics.spreads.html").read_text()
    assert "<circle" in (site / "house.html").read_text()
