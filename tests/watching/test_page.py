"""The page in a real Chromium, beside a capture that runs: what a person sees, and whom the browser asks for it."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from browser import CHROMIUM, Page, browsing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Running

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

SEEN = "Number(document.body?.dataset.seconds) >= 2"
ASK = "document.getElementById('sql').value = {query!r}; document.getElementById('run').click()"


def text(page: Page, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({selector!r}).innerText"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("profile")) as tab:
        tab.open(address)
        tab.until(SEEN)
        yield tab
        assert tab.complaints == []
        assert {url for url in tab.requests if not url.startswith((address, "data:"))} == set()


def test_it_shows_what_is_captured(page: Page, running: Running):
    assert running.session_id in text(page, "#recordings")
    assert text(page, "#link") == "capturing"
    rate = page.until("Number(document.querySelector('.stats dd span').innerText.replace(',', ''))")
    assert rate > 0
    contracts = text(page, ".contracts")
    assert re.search(r"MNQ\w\d\t[\d.]+\t[\d.]+\t[\d.]+", contracts)
    assert page.evaluate("document.querySelectorAll('#ladder tr').length") > 10
    assert page.evaluate("document.querySelectorAll('#tape tr').length") > 0
    assert page.until("document.querySelectorAll('#session-rows tr').length") == 1


def test_another_contract_can_be_chosen_by_the_keyboard(page: Page):
    page.evaluate("document.querySelectorAll('.contracts button')[1].focus()")
    name = page.evaluate("document.activeElement.innerText")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    page.until(f"document.getElementById('ladder-title').innerText === 'Book of {name}'")
    seconds = page.evaluate("Number(document.body.dataset.seconds)")
    page.until(f"Number(document.body.dataset.seconds) > {seconds}")
    assert page.evaluate("document.activeElement.innerText") == name  # and the keyboard stays where it is


def test_a_query_is_answered_and_a_wrong_one_explained(page: Page):
    page.evaluate(ASK.format(query="select count(*) as n, 1795344743084955080 as exact, null as nothing from trades"))
    page.until("!document.getElementById('answer').hidden")
    head, row = text(page, "#answer").split("\n")
    assert head.split("\t") == ["n", "exact", "nothing"]
    assert re.fullmatch(r"[1-9]\d*\t1795344743084955080\tnull", row)
    page.evaluate(ASK.format(query="select <b>x</b>"))
    page.until("!document.getElementById('error').hidden")
    assert "syntax error" in text(page, "#error")
    assert page.evaluate("document.getElementById('answer').hidden")
    page.complaints[:] = [one for one in page.complaints if "400 (Bad Request)" not in one]  # so browsers log an answer


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(page: Page, address: str, dark: bool):  # noqa: FBT001  # a parameter of the test
    page.open(address, width=390, height=800, dark=dark)
    page.until(SEEN)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.evaluate("document.querySelector('details').open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_can_be_read(scheme: int):
    style = files("mdcapture.serve").joinpath("page.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", style.split("@media")[scheme]))
    for ink in ("ink", "faint", "accent", "good", "bad", "warn"):
        for paper in ("paper", "card"):
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
    for side in ("bid", "ask"):
        assert contrast(colours["ink"], colours[side]) >= 4.5
