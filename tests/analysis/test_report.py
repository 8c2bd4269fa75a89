"""A report says what the analysis says, asks nobody, and is drawn by a real browser without an error."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import lake_builder
import markets
import polars as pl
import pytest

from mdcapture.analysis.catalogue import METRICS
from mdcapture.analysis.pictures import PICTURES
from mdcapture.demo import START_NS, synthesize
from mdcapture.errors import NotFoundError
from mdcapture.lake.manifest import Contract
from mdcapture.lake.seal import finish
from mdcapture.lake.writer import open_session
from mdcapture.report.lake import lake_report
from mdcapture.report.page import report
from mdcapture.report.story import story
from mdcapture.session import open_lake

if TYPE_CHECKING:
    from pathlib import Path

    from mdcapture.analysis.result import Analysis
    from mdcapture.session import Lake, Session

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Numbers(HTMLParser):
    """The page's `data` elements: (metric, contract, other) → values; and whatever it would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[tuple[str | None, str | None, str | None], set[float]] = {}
        self.fetched: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "data":
            name = (given.get("data-metric"), given.get("data-contract"), given.get("data-other"))
            self.values.setdefault(name, set()).add(float(given["value"] or "nan"))
        self.fetched += [value for name, value in attrs if name in ("src", "srcset", "data") and value]
        self.ids.add(given.get("id") or "")
        if tag == "a":
            self.links.add(given["href"] or "")
        elif "href" in given:
            self.fetched.append(given["href"] or "")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Three short sessions, one of them with a gap."""
    folder = tmp_path_factory.mktemp("sessions")
    for day in range(2):
        synthesize(folder, duration_s=90, contracts=("ES", "MNQ"), rate=6.0, start_ns=START_NS + day * 86_400 * 10**9)
    markets.broken(folder)
    return open_lake(folder)


@pytest.fixture(scope="module")
def page(session: Session) -> str:
    return report(session, command="mdcapture report latest -o report.html")


def test_every_number_is_that_of_the_analysis(page: str, analysis: Analysis):
    told = {
        (row["metric"], row["contract_id"], row["other_id"]): {row["value"]}
        for row in analysis.to_dict()["figures"]
        if row["value"] is not None
    }
    assert Numbers(page).values == told


def test_every_number_of_a_lakes_page_is_that_of_its_analyses(lake: Lake):
    page = lake_report(lake, command="mdcapture report --all")
    told = {
        (row["session_id"], row["contract_id"], row["metric"]): row["value"]
        for session in lake.sessions()
        for row in session.analyze().figures.rows(named=True)
        if row["other_id"] is None and row["value"] is not None
    }
    numbers = re.findall(
        r'<data value="([^"]*)" data-session="([^"]*)" data-metric="(.*?)" data-contract="(.*?)">', page
    )
    assert len(numbers) > 2 * 3 * 6
    for value, session_id, metric, contract_id in numbers:
        assert float(value) == told[session_id, contract_id, metric]
    assert "mdcapture report --all" in page
    assert page.count("data-chart=") == 5
    others = Numbers(page)
    assert others.fetched == []
    assert {link.removeprefix("#") for link in others.links} <= others.ids


def test_a_lake_without_a_message_has_no_page(tmp_path: Path):
    lake_builder.record(tmp_path)
    with pytest.raises(NotFoundError, match="no message"):
        lake_report(open_lake(tmp_path))


def test_it_has_story_charts_definitions_and_the_command(page: str, session: Session):
    for metric, declared in METRICS.items():
        assert metric.replace("_", " ") in page
        assert escape(declared.definition) in page
    for contract in session.contracts:
        assert f"{contract.name}: price and trades" in page
    compared = sum(picture.of_all for picture in PICTURES.values())
    of_one = len(PICTURES) - compared
    assert page.count("data-chart=") == of_one * len(session.contracts) + compared
    assert "mdcapture report latest -o report.html" in page


def test_it_asks_nobody_and_its_links_lead_somewhere(page: str):
    numbers = Numbers(page)
    assert numbers.fetched == []
    assert {link.removeprefix("#") for link in numbers.links} <= numbers.ids
    assert "default-src 'none'" in page


def test_what_the_feed_named_is_only_text(tmp_path: Path):
    evil = "</script><script>alert(1)</script>"
    contract = Contract(contract_id=lake_builder.ES, name=evil, description=f"<img src=x>{evil}", tick_size=0.25)
    with open_session(tmp_path, lake_builder.START_NS, contracts=[contract]) as writing:
        records = [lake_builder.quote(bestBid=4800.0, bestAsk=4800.25), lake_builder.trade(), lake_builder.trade()]
        for number, record in enumerate(records):
            writing.journal.append(lake_builder.START_NS + number, 1, [record])
        writing.journal.close()
        finish(tmp_path, writing.session_id, "sealed")
    page = report(open_lake(tmp_path).session(), command=evil)
    assert "<script>alert" not in page
    assert "<img src=x" not in page


def test_gaps_are_in_the_story_and_among_the_incidents(tmp_path: Path):
    session = markets.broken(tmp_path)
    page = report(session)
    assert re.search(r"Data can be missing in <data[^>]*>1 place</data>, ", page)
    assert ">gap</td>" in page
    assert "1 incident<" in page


def test_a_sentence_without_its_figures_is_left_out(analysis: Analysis):
    contract = analysis.contracts[0]
    whole = story(analysis, contract)
    assert "Order flow imbalance" in whole
    assert "Data can be missing" not in whole
    lost = pl.when(pl.col("metric") != "ofi_r_squared").then(pl.col("value")).alias("value")
    less = story(replace(analysis, figures=analysis.figures.with_columns(lost)), contract)
    assert "Order flow imbalance" not in less
    assert "Volatility was" in less


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("of", ["session", "lake"])
def test_a_browser_draws_every_chart_without_an_error(page: str, lake: Lake, tmp_path: Path, of: str, *, dark: bool):
    page = page if of == "session" else lake_report(lake)
    (tmp_path / "report.html").write_text(page)
    assert CHROMIUM is not None
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=60000 "
        "--host-resolver-rules=MAP*~NOTFOUND --window-size=1000,3000"
    )
    command = [
        CHROMIUM,
        *flags.split(),
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        (tmp_path / "report.html").as_uri(),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
    assert 'data-drawn="yes"' in result.stdout
    assert len(re.findall(r'<svg[^>]*class="marks"', result.stdout)) == page.count("data-chart=")
    assert [line for line in result.stderr.splitlines() if "CONSOLE" in line] == []
