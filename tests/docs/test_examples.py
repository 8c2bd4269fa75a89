"""Every example runs, on a market of its own or on the simulator, and says what its first lines promise."""

from __future__ import annotations

import re
import runpy
import sys
from typing import TYPE_CHECKING

import nbformat
import polars as pl
import pyarrow.dataset
import pytest
from lake_builder import depth, quote, recording, trade
from markets import broken
from nbclient import NotebookClient
from pages import ROOT
from programs import LIMIT_S, simulator
from tapes import records, write_tape

from mdcapture.demo import START_NS, synthesize
from mdcapture.interop.importing import import_tape
from mdcapture.lake.schema import IncidentKind
from mdcapture.metrics.spreads import trade_spreads
from mdcapture.session import open_lake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EXAMPLES = ROOT / "examples"
DAY_NS = 86_400_000_000_000


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Runs an example as `python examples/NAME …` would, in an empty folder; gives what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MDCAPTURE_USERNAME", "somebody")
    monkeypatch.setenv("MDCAPTURE_API_KEY", "demo")

    def start(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return start


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    with simulator("--contract", "MNQ", "--rate", "300") as addresses:
        yield addresses["api"]


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of one contract, some minutes each, and of another on the last."""
    lake = tmp_path_factory.mktemp("days") / "lake"
    for day in range(3):
        contracts = ["MNQ", "MES"] if day == 2 else ["MNQ"]
        synthesize(lake, duration_s=180, contracts=contracts, seed=day, rate=10.0, start_ns=START_NS + day * DAY_NS)
    return lake


def test_every_example_is_run_here():
    text = (ROOT / "tests/docs/test_examples.py").read_text() + (ROOT / "tests/live/test_signals.py").read_text()
    assert not [path.name for path in EXAMPLES.iterdir() if path.is_file() and path.stem not in text]


def test_capture(run: Callable[..., str], gateway: str, tmp_path: Path):
    printed = run("capture.py", gateway, "5", "MNQ")
    session = open_lake(tmp_path / "data").session()
    assert session.session_id in printed
    assert f"{session.trades().collect().height} trades" in printed


def test_async_handlers(run: Callable[..., str], gateway: str, tmp_path: Path):
    printed = run("async_handlers.py", gateway, "5", "MNQ")
    trades = open_lake(tmp_path / "data").session().trades().collect()
    signed = trades.select((pl.col("volume") * (1 - 2 * pl.col("side"))).sum()).item()
    assert f"bought less sold: {signed} lots" in printed


def test_live_signal(run: Callable[..., str], gateway: str, tmp_path: Path):
    printed = run("live_signal.py", gateway, "5", "MNQ")
    said = open_lake(tmp_path / "data").session().signals().collect().height
    assert said > 0
    assert f"{said} rows in the table signals; a replay says the same" in printed


def test_backtest_export(days: Path, tmp_path: Path):
    session = open_lake(days).session()
    export = runpy.run_path(str(EXAMPLES / "backtest_export.py"))["export"]
    written = export(session, tmp_path / "hft")
    traded = (
        session.trades().group_by("contract_id").agg(pl.len(), pl.col("volume").sum()).sort("contract_id").collect()
    )
    assert written.select("trades", "lots").rows() == traded.drop("contract_id").rows()
    assert (written["latency_ms"] > 0).all()


def test_custom_metric(run: Callable[..., str], days: Path):
    assert "sweep_share" in run("custom_metric.py", str(days))


def test_compare_days(run: Callable[..., str], days: Path):
    ids = [session.session_id for session in open_lake(days).sessions()]
    named = run("compare_days.py", str(days), *ids[-2:])
    assert "difference" in named
    assert run("compare_days.py", str(days)) == named


def test_compare_days_needs_two(run: Callable[..., str], tmp_path: Path):
    synthesize(tmp_path / "one", duration_s=10, contracts=["MNQ"])
    with pytest.raises(SystemExit, match="two sessions are compared, and here is 1"):
        run("compare_days.py", str(tmp_path / "one"))


def test_a_signal_is_not_judged_on_a_few_seconds(tmp_path: Path):
    judge = runpy.run_path(str(EXAMPLES / "ofi_signal.py"))["judge"]
    judged = judge(synthesize(tmp_path / "short", duration_s=20, contracts=["MNQ"], rate=50.0))
    assert judged.height
    assert judged["r2"].null_count() == judged["slope"].null_count() == judged.height
    assert set(judged["note"]) == {"too few: fewer than 30"}


def test_feature_model(run: Callable[..., str], days: Path):
    printed = run("feature_model.py", str(days))
    assert "R² out of sample" in printed
    assert "over 1 days" in printed


def test_a_model_needs_days_before_the_one_it_is_judged_on(run: Callable[..., str], tmp_path: Path):
    synthesize(tmp_path / "one", duration_s=10, contracts=["MNQ"])
    with pytest.raises(SystemExit, match="there are no three here"):
        run("feature_model.py", str(tmp_path / "one"))


def test_plain_duckdb_reads_a_lake_in_which_nothing_happened(run: Callable[..., str], tmp_path: Path):
    tape = write_tape(tmp_path / "tape.ndjson", records(400))
    import_tape(str(tape), tmp_path / "lake")
    assert not (tmp_path / "lake/incidents").exists()
    assert "CON.F.US.MNQ.Z26" in run("plain_duckdb.py", str(tmp_path / "lake"))


def test_plain_duckdb_agrees_with_the_library(tmp_path: Path):
    session = broken(tmp_path)
    found = runpy.run_path(str(EXAMPLES / "plain_duckdb.py"))["effective_spreads"](str(tmp_path))
    ours = (
        trade_spreads(session.trades(clean=True), session.quotes(), scales=["price"], incidents=session.gaps())
        .drop_nulls("effective_spread")
        .group_by("contract_id", "side")
        .agg(pl.len().alias("trades"), pl.col("volume").sum().alias("lots"), pl.col("effective_spread").mean())
        .sort("contract_id", "side")
        .collect()
    )
    assert found["trades"].sum() > 0
    assert found.select("trades", "lots").rows() == ours.select("trades", "lots").rows()
    assert found["effective_spread"].to_list() == pytest.approx(ours["effective_spread"].to_list())


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions in which a quote, a trade and the next quote are received at one time."""
    contract, lake = "CON.F.US.EP.H24", tmp_path_factory.mktemp("bursts")
    for first in (4800.0, 4900.0):
        with recording(lake, START_NS + round(first) * DAY_NS, {contract: 0.25}) as session:
            session.note(IncidentKind.CONNECTED)
            session.receive(depth(contract, {"type": 6, "volume": 0}))
            for number in range(40):
                bid = first + 0.25 * (number % 5)
                before, after = (quote(contract, bestBid=bid, bestAsk=bid + wide) for wide in (0.25, 1.0))
                session.receive(before, trade(contract, price=bid, side=1, volume=1 + number % 3), after)
            session.finish()
    return lake


def test_the_joins_of_the_pages_give_the_effective_spread_of_analyze(bursts: Path):
    """Also where messages share a receive time."""
    lake = open_lake(bursts)
    spread = lake.session().analyze().value("effective_spread")
    assert spread == pytest.approx(0.25)
    duck = runpy.run_path(str(EXAMPLES / "plain_duckdb.py"))["effective_spreads"](str(bursts))
    assert duck["effective_spread"].to_list() == pytest.approx([spread])
    shown = re.search(r"from trades t asof join .*?(?=\n  limit)", (ROOT / "docs/tutorial.md").read_text(), re.DOTALL)
    assert shown is not None
    mean = "select avg(2 * (1 - 2 * t.side) * (t.price - (q.best_bid + q.best_ask) / 2))"
    assert lake.sql(f"{mean} {shown[0]}").fetchall() == [(pytest.approx(spread),)]
    condition = "on (t.session_id, t.contract_id) = (q.session_id, q.contract_id) and t.seq > q.seq"
    for page in ("docs/tutorial.md", "docs/reference/tables.md", "docs/engines.md"):
        assert condition in " ".join((ROOT / page).read_text().split()), page


def test_the_one_liners_of_other_engines(days: Path):
    page = (ROOT / "docs/engines.md").read_text()
    rows = open_lake(days).trades().collect().height
    plain = [
        ('pl.scan_parquet("data/trades/**/*.parquet", hive_partitioning=True)', lambda frame: frame.collect().height),
        ('pyarrow.dataset.dataset("data/trades", partitioning="hive")', lambda data: data.count_rows()),
    ]
    for line, count in plain:
        assert f"`{line}`" in page
        called = line.replace("data/", f"{days}/")
        assert count(eval(called, {"pl": pl, "pyarrow": pyarrow})) == rows  # noqa: S307  # a line of our own page


def test_notebook(days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAKE", str(days))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(EXAMPLES / "notebook_analysis.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear a notebook's outputs before it is kept"
    NotebookClient(notebook, timeout=LIMIT_S, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.output_type == "stream"], "no warnings"
    shown = ["".join(output.data.values()) for output in outputs]
    assert sum("vega" in text for text in shown) >= 2
    assert any("effective_spread_bps" in text for text in shown)
