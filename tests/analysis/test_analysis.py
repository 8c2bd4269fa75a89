"""An analysis is true: held against SQL, against itself on parts of the data, and against data that lack something."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import lake_builder
import markets
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tapes import CONTRACT, records, write_tape

from mdcapture.analysis.catalogue import GROUPS, METRICS
from mdcapture.analysis.extract import take
from mdcapture.analysis.figures import PARTS, tall
from mdcapture.analysis.hours import Window, regular_windows, thinned
from mdcapture.analysis.result import COLUMNS, shown
from mdcapture.errors import NotFoundError, UsageError
from mdcapture.interop.importing import import_tape
from mdcapture.lake.manifest import Contract
from mdcapture.lake.schema import Incident, IncidentKind
from mdcapture.session import open_lake

if TYPE_CHECKING:
    from mdcapture.analysis.result import Analysis
    from mdcapture.session import Session

ROOT = Path(__file__).resolve().parents[2]
S = 1_000_000_000

SPREAD_BY_TIME = """
    with state as (
        select best_ask - best_bid as spread, lead(recv_ns, 1, $end) over (order by recv_ns, seq) - recv_ns as held
        from quotes where contract_id = $contract)
    select sum(spread * held) / sum(held) from state"""

BETWEEN_ORDERS = """
    with arrival as (
        select recv_ns, coalesce(lag(exch_ns) over w = exch_ns and lag(side) over w = side, false) as same
        from trades where contract_id = $contract window w as (order by recv_ns, seq, pos))
    select (max(recv_ns) - min(recv_ns)) / 1e9 / (count(*) - 1) from arrival where not same"""


def figure(analysis: Analysis, metric: str, contract: str | None = None) -> dict[str, object]:
    chosen = contract or analysis.contracts[0].contract_id
    here = (pl.col("metric") == metric) & (pl.col("contract_id") == chosen)
    return analysis.frame().filter(here).row(0, named=True)


def test_every_metric_is_there_once_for_each_contract(session: Session, analysis: Analysis):
    alone = analysis.frame().filter(pl.col("other_id").is_null())
    names = [name for name, metric in METRICS.items() if metric.group != "correlations"]
    for contract in session.contracts:
        assert alone.filter(pl.col("contract_id") == contract.contract_id)["metric"].to_list() == names
    pairs = analysis.frame().filter(pl.col("other_id").is_not_null())
    assert pairs["metric"].to_list() == [name for name, metric in METRICS.items() if metric.group == "correlations"]


def test_a_market_that_has_everything_has_nearly_all_figures(analysis: Analysis):
    missing = analysis.frame().filter(pl.col("value").is_null())
    assert set(missing["metric"]) <= {
        "roll_spread",
        "noise_bps",
        "hasbrouck_lambda",
        "widening_half_life_s",
        "amihud",
        "parkinson_volatility",
        "garman_klass_volatility",
        "realized_volatility_1m",
        "signature_ratio",
        "acd_persistence",
        "size_exponent",
        "size_cutoff",
        "size_power_law_z",
        "correlation_1m",
    }
    assert missing["note"].is_not_null().all()


@pytest.mark.parametrize(
    ("metric", "query"),
    [
        ("trades", "select count(*) from trades"),
        ("volume", "select sum(volume) from trades"),
        ("vwap", "select sum(price * volume) / sum(volume) from trades"),
        ("high", "select max(price) from trades"),
        ("delta", "select sum(case side when 0 then volume else -volume end) from trades"),
        ("median_size", "select median(volume) from trades"),
        ("messages", "select count(*) from messages"),
        ("quotes", "select count(*) from quotes"),
        ("depth_entries", "select count(*) from depth"),
        ("latency_median_ms", "select median(recv_ns - exch_ns) / 1e6 from trades"),
        ("duration_mean_s", BETWEEN_ORDERS),
        ("quoted_spread", SPREAD_BY_TIME),
    ],
)
def test_a_figure_is_what_sql_says(session: Session, analysis: Analysis, metric: str, query: str):
    contract = session.contracts[0].contract_id
    asked = query if "$contract" in query else f"{query} where contract_id = $contract"
    values = {"contract": contract} | ({"end": session.end_ns} if "$end" in asked else {})
    assert analysis.value(metric, contract) == pytest.approx(session.sql(asked, values).fetchall()[0][0], rel=1e-9)


def test_the_es_hour_has_the_figures_that_the_documentation_of_the_metrics_has(shared: Path, tmp_path: Path):
    import_tape(str(shared / "tapes" / "es_20231225.ndjson.zst"), tmp_path)
    analysis = open_lake(tmp_path).session().analyze()
    published = {
        "quoted_spread_ticks": 1.061,
        "one_tick": 0.939,
        "widenings": 772,
        "effective_spread": 0.2809,
        "realized_spread_1s_bps": 0.1881,
        "response_1s": 0.1904 / 2,
        "vwap": 4808.76,
        "twap": 4809.00,
        "point_of_control": 4810.0,
        "value_area_low": 4807.75,
        "value_area_high": 4811.0,
        "delta": 796,
        "imbalance": 0.0808,
        "kyle_lambda": 0.0050,
        "kyle_r_squared": 0.34,
        "size_herfindahl": 0.3860,
        "size_exponent": 1.987,
        "size_power_law_z": -4.8,
        "realized_volatility": 100 * math.sqrt(9.58e-7 * 252 * 23),
        "realized_volatility_1m": 100 * math.sqrt(5.66e-7 * 252 * 23),
        "parkinson_volatility": 100 * math.sqrt(9.27e-7 * 252 * 23),
        "garman_klass_volatility": 100 * math.sqrt(6.92e-7 * 252 * 23),
    }
    got = {metric: analysis.value(metric) for metric in published}
    assert got == {metric: pytest.approx(value, rel=0.02) for metric, value in published.items()}


@pytest.mark.long
def test_parts_of_a_session_add_up(session: Session, analysis: Analysis):
    assert session.start_ns is not None
    middle = session.start_ns + 300 * S
    before, after = session.analyze(end=middle), session.analyze(start=middle)
    for metric in ("trades", "volume", "delta", "messages", "duration_s"):
        parts = [part.value(metric, "ES") for part in (before, after)]
        assert sum(parts) == pytest.approx(analysis.value(metric, "ES"))  # type: ignore[arg-type]


def test_intervals_add_up_and_are_the_same_as_parts(session: Session, analysis: Analysis):
    every = session.analyze(every="8m")
    starts = every.frame()["start_ns"].unique().sort()
    assert len(starts) == -(-markets.MINUTES // 8) + 1
    contract = session.contracts[0].contract_id
    own = every.frame().filter(pl.col("contract_id") == contract, pl.col("other_id").is_null())
    for metric in ("trades", "volume", "delta", "duration_s"):
        total = own.filter(pl.col("metric") == metric)["value"].sum()
        assert total == pytest.approx(analysis.value(metric, contract))
    second = session.analyze([contract], start=starts[1], end=starts[2])
    interval = own.filter(pl.col("start_ns") == starts[1])
    named = dict(interval.select("metric", "value").rows())
    for metric in (
        "vwap",
        "quoted_spread_bps",
        "effective_spread_bps",
        "realized_volatility",
        "kyle_lambda",
        "depth_5",
    ):
        assert named[metric] == pytest.approx(second.value(metric), rel=1e-9)


def test_times_can_be_said_in_many_ways(session: Session):
    start = datetime(2026, 3, 4, 14, 35, tzinfo=UTC)
    said = [start, "2026-03-04T14:35", "2026-03-04T08:35-06:00", int(start.timestamp()) * S]
    assert len({session.analyze(["ESH6"], one).value("volume") for one in said}) == 1


@pytest.mark.parametrize("wrong", ["soon", datetime(2026, 3, 4), "2031-01-01"])  # noqa: DTZ001  # it is refused
def test_a_time_that_is_none_is_refused(session: Session, wrong: str | datetime):
    with pytest.raises(UsageError):
        session.analyze(start=wrong)


def test_an_unknown_contract_or_metric_is_named(session: Session, analysis: Analysis):
    with pytest.raises(NotFoundError, match="ESH6, MNQH6"):
        session.analyze(["GC"])
    with pytest.raises(UsageError, match="vwap"):
        analysis.only(["vwapp"])


def test_a_figure_is_asked_for_by_its_name_and_that_of_its_contract(session: Session, analysis: Analysis):
    rows = {row["contract_id"]: row["value"] for row in analysis.frame().filter(metric="volume").to_dicts()}
    for contract in session.contracts:
        for name in (contract.contract_id, contract.name, contract.name[:-2]):
            assert analysis.value("volume", name) == rows[contract.contract_id]
    assert session.analyze(["ES"]).value("volume") == analysis.value("volume", "ESH6")
    ((pair, error),) = analysis.frame().filter(metric="correlation_1s").select("value", "error").rows()
    assert 0 < error < 0.2, "of thousands of seconds"
    assert {analysis.value("correlation_1s", name) for name in (None, "ES", "MNQ")} == {pair}
    with pytest.raises(UsageError, match="did you mean effective_spread_bps"):
        analysis.value("effective_spread_bp", "ES")
    with pytest.raises(NotFoundError, match="no contract GC here; there are: ESH6, MNQH6"):
        analysis.value("volume", "GC")
    with pytest.raises(UsageError, match="several values of volume here, of ESH6, MNQH6: name one"):
        analysis.value("volume")


def test_no_figure_reaches_across_a_gap_and_the_gap_is_told(tmp_path: Path):
    session = markets.broken(tmp_path)
    analysis = session.analyze()
    assert analysis.value("gaps") == 1
    assert analysis.value("gap_s") == pytest.approx(20)
    assert analysis.value("coverage") == pytest.approx(1 - 20 / analysis.value("duration_s"))  # type: ignore[operator]
    assert analysis.value("longest_silence_s") == pytest.approx(0.5)
    assert any("1 gap, 20.000 s" in reason for reason in analysis.left_out)
    quotes = session.quotes().collect()
    moves = quotes.select(pl.col("recv_ns").diff().max() / 1e9).item()
    assert moves == pytest.approx(20.5), "the data do have the hole"


def test_gaps_of_several_streams_at_once_are_one(tmp_path: Path):
    streams = {"quotes": (1000, 3000), "trades": (1200, 3100), "depth": (3100, 3200)}
    with lake_builder.recording(tmp_path) as recording:
        recording.receive(lake_builder.trade())
        begin_ns = recording.now_ns
        for stream, (from_ms, to_ms) in [*streams.items(), ("quotes", (4000, 4500))]:
            times = (begin_ns + milliseconds * lake_builder.MS for milliseconds in (from_ms, to_ms))
            recording.tell(Incident(IncidentKind.GAP, stream, lake_builder.ES, *times))
        recording.receive(lake_builder.trade(), step_ns=5 * S)
        recording.finish()
    analysis = open_lake(tmp_path).session().analyze()
    assert (analysis.value("gaps"), analysis.value("gap_s")) == (2, pytest.approx(2.7))
    assert any("2 gaps, 2.700 s" in reason for reason in analysis.left_out)


def test_a_session_that_is_still_captured_says_so(tmp_path: Path):
    with lake_builder.recording(tmp_path) as recording:
        recording.receive(lake_builder.trade())
        running = open_lake(tmp_path).session().analyze()
        recording.finish()
    sealed = open_lake(tmp_path).session().analyze()
    reasons = [[one for one in each.left_out if "not sealed yet" in one] for each in (running, sealed)]
    assert list(map(len, reasons)) == [1, 0]


def test_what_the_book_can_not_use_and_a_crossed_book_are_figures(tmp_path: Path):
    contract = "CON.F.US.EP.H24"
    ladder = [{"type": 1, "price": 4801.0, "volume": 3}, {"type": 2, "price": 4800.0, "volume": 2}]
    odd = [{"type": 77, "price": 4800.0}, {"type": 1, "price": 4801.0, "volume": -4}, {"type": 2, "price": 4799.9}]
    with lake_builder.recording(tmp_path, tick_sizes={contract: 0.25}) as recording:
        recording.receive(lake_builder.depth(contract, {"type": 6, "price": 0.0, "volume": 0}), step_ns=0)
        for entries in (ladder, odd, [{"type": 2, "price": 4802.0, "volume": 5}], [ladder[0]]):
            recording.receive(lake_builder.depth(contract, *entries), step_ns=10_000 * lake_builder.MS)
        recording.finish()
    analysis = open_lake(tmp_path).session().analyze()
    assert analysis.value("unusable_depth") == 3
    assert analysis.value("book_crossed") == pytest.approx(1 / 3, abs=0.05)


def test_what_is_too_few_is_not_told_but_why(tmp_path: Path):
    analysis = markets.broken(tmp_path, trades=20).analyze()
    few = figure(analysis, "roll_spread")
    assert few["value"] is None
    assert few["note"] == "only 20 trades, 30 are needed"
    assert any("only 20 trades" in reason for reason in analysis.reasons())


def test_what_a_session_lacks_is_left_out_and_named(tmp_path: Path):
    contract = lake_builder.ES
    lake_builder.record(tmp_path, *(lake_builder.trade(contract, volume=number) for number in range(1, 9)))
    analysis = open_lake(tmp_path).session().analyze()
    assert analysis.value("volume") == 36
    assert figure(analysis, "quoted_spread")["note"] == "no quotes"
    assert figure(analysis, "ofi_slope")["note"] == "no quotes and no depth"
    assert {"correlations: they need two contracts, and this is one"} < set(analysis.left_out)


def test_a_session_without_a_message_can_not_be_analysed(tmp_path: Path):
    lake_builder.record(tmp_path)
    with pytest.raises(NotFoundError, match="no message"):
        open_lake(tmp_path).session().analyze()


def test_a_running_session_can_be_analysed(tmp_path: Path):
    with lake_builder.recording(tmp_path) as recording:
        recording.receive(lake_builder.trade(volume=3), lake_builder.trade(volume=4))
        assert open_lake(tmp_path).session().analyze().value("volume") == 7
        recording.finish()


@pytest.mark.long
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 60), seed=st.integers(0, 10**6))
def test_any_data_can_be_analysed(tmp_path_factory: pytest.TempPathFactory, count: int, seed: int):
    folder = tmp_path_factory.mktemp("lake")
    import_tape(str(write_tape(folder / "tape.ndjson", records(count, seed=seed))), folder)
    analysis = open_lake(folder).session().analyze()
    values = analysis.frame()["value"].drop_nulls()
    assert values.is_finite().all()
    assert json.loads(json.dumps(analysis.to_dict(), allow_nan=False))["session_id"] == analysis.session_id
    assert str(analysis)


def test_each_part_makes_metrics_of_the_catalogue_and_no_two_make_one(session: Session):
    assert session.start_ns is not None
    assert session.end_ns is not None
    whole = Window(session.start_ns, session.end_ns + 1)
    x = take(session, session.contracts[0], [whole])
    made = [name for part in PARTS for wide in part(x) for name in tall(wide)["metric"].to_list()]
    assert len(made) == len(set(made))
    assert set(made) <= {name for name, metric in METRICS.items() if metric.group != "correlations"}


def test_json_has_the_documented_names(analysis: Analysis):
    told = analysis.to_dict()
    assert list(told) == [
        "session_id",
        "start_ns",
        "end_ns",
        "every_ns",
        "contracts",
        "windows",
        "figures",
        "left_out",
    ]
    assert tuple(told["figures"][0]) == COLUMNS
    names = "session_id contract_id other_id start_ns end_ns group metric value error unit n note"
    assert " ".join(COLUMNS) == names
    assert list(told["contracts"][0]) == ["contract_id", "name", "description", "tick_size", "tick_value"]
    assert GROUPS == (
        "quality",
        "activity",
        "spreads",
        "volatility",
        "order flow",
        "impact",
        "depth",
        "distributions",
        "correlations",
    )


def test_it_prints_and_shows_itself(analysis: Analysis):
    text, page = str(analysis), analysis._repr_html_()  # what a notebook calls
    for words in ("ESH6", "MNQH6", "ESH6/MNQH6", "realized_volatility", "% a year"):
        assert words in text
        assert words in page
    assert text == repr(analysis)
    assert all(len(line) < 130 for line in text.splitlines() if ":" not in line)


def test_a_hostile_name_is_only_text(analysis: Analysis):
    hostile = [Contract(contract_id=one.contract_id, name="<script>alert(1)</script>") for one in analysis.contracts]
    named = replace(analysis, contracts=tuple(hostile), left_out=("<b>left</b>",))
    page = named.only(["vwap", "volume"])._repr_html_()  # what a notebook calls
    assert "<script>" not in page
    assert "<b>" not in page


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (None, None, ""),
        (2972.0, None, "2,972"),
        (4808.7606, None, "4,808.76"),
        (0.56123, None, "0.5612"),
        (-0.05, None, "-0.05000"),
        (1.2346e-7, None, "1.235e-07"),
        (7.4587, 0.2579, "7.46 ± 0.26"),
        (0.00504, 0.000836, "0.00504 ± 0.00084"),
        (3.69e-8, 6.7e-9, "3.69e-08 ± 7e-09"),
        (120.0, 33.0, "120 ± 33"),
    ],
)
def test_a_figure_is_written_with_the_digits_that_it_has(value: float | None, error: float | None, text: str):
    assert shown(value, error) == text


@pytest.mark.parametrize(
    ("root", "day", "opens", "closes"),
    [
        ("MNQ", "2026-03-04", "14:30", "21:00"),  # Chicago has winter time
        ("MNQ", "2026-03-10", "13:30", "20:00"),  # and since the 8th summer time
        ("GCE", "2026-03-10", "12:20", "17:30"),
        ("CLE", "2026-03-10", "13:00", "18:30"),
    ],
)
def test_regular_hours_follow_the_exchanges_clock(root: str, day: str, opens: str, closes: str):
    def ns(clock: str) -> int:
        return int(datetime.fromisoformat(f"{day}T{clock}+00:00").timestamp()) * S

    whole = Window(ns("00:00"), ns("23:59"))
    assert regular_windows(root, whole) == [(ns(opens), ns(closes))]
    assert regular_windows(root, Window(ns(opens) + S, ns(opens) + 2 * S)) == [(ns(opens) + S, ns(opens) + 2 * S)]


def test_a_weekend_has_no_regular_hours():
    saturday = int(datetime(2026, 3, 7, tzinfo=UTC).timestamp()) * S
    assert regular_windows("ES", Window(saturday, saturday + 2 * 86_400 * S)) == []


@given(share=st.floats(0.001, 0.999), length=st.integers(10**6, 10**14))
def test_a_sample_of_the_time_is_spread_over_it(share: float, length: int):
    blocks = thinned([Window(5, 5 + length)], share)
    assert all(one.to_ns <= two.from_ns for one, two in pairwise(blocks))
    assert blocks[0].from_ns == 5
    assert blocks[-1].to_ns <= 5 + length
    assert sum(one.to_ns - one.from_ns for one in blocks) == pytest.approx(share * length, rel=1e-3, abs=40)


def test_the_contract_of_a_tape_is_analysed_too(tmp_path: Path):
    import_tape(str(write_tape(tmp_path / "tape.ndjson", records(300))), tmp_path)
    assert open_lake(tmp_path).session().analyze().contracts[0].contract_id == CONTRACT


def test_the_documentation_has_every_metric_as_it_is_declared():
    text = (ROOT / "docs/analysis.md").read_text().split("## The metrics")[1].split("## The charts")[0]
    told = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert [(name, unit, what.replace("\\|", "|"), source) for name, unit, what, source, _ in told] == [
        (name, metric.unit, metric.definition, metric.source) for name, metric in METRICS.items()
    ]
    least = {name: f"{metric.least} {metric.counts}" if metric.least > 1 else "" for name, metric in METRICS.items()}
    assert {name: last for name, *_, last in told} == least
