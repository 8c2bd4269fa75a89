"""What is cut off does not pass for whole, nor silence for traffic: in comparisons and in charts of intervals."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import altair as alt
import markets
import polars as pl
import pytest

from mdcapture.analysis.analyze import extracts
from mdcapture.analysis.compare import comparable, compare, lacking, remarks
from mdcapture.analysis.hours import Window
from mdcapture.analysis.pictures import draw
from mdcapture.demo import START_NS, synthesize

if TYPE_CHECKING:
    from pathlib import Path

    from mdcapture.analysis.extract import Extract
    from mdcapture.charts.drawing import Chart
    from mdcapture.session import Session

S = 1_000_000_000
DAY_NS = 86_400 * S
EVERY_NS = 10 * S


def drawn_rows(chart: Chart) -> pl.DataFrame:
    """The rows that it is drawn of: those of the longest of its tables."""
    layers = [chart, *chart.layer]
    tables = [layer.data.values for layer in layers if isinstance(layer.data, alt.InlineData)]
    return pl.read_csv(io.StringIO(max((text for text in tables if isinstance(text, str)), key=len)))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Session]:
    """Six minutes of a day, and forty-odd seconds of the next that begin in the middle of an interval."""
    lake = tmp_path_factory.mktemp("pair")
    times = ((366, START_NS), (47, START_NS + DAY_NS + 3 * S))
    return [synthesize(lake, duration_s=time_s, contracts=("ES",), start_ns=start) for time_s, start in times]


def whole_volumes(session: Session) -> pl.Series:
    """The lots of each interval of which no more than a hundredth lies outside of the session; none is 0."""
    assert session.start_ns is not None
    assert session.end_ns is not None
    lots = dict(
        session.trades().group_by(pl.col("recv_ns") // EVERY_NS).agg(pl.col("volume").sum()).collect().iter_rows()
    )
    numbers = range(session.start_ns // EVERY_NS, session.end_ns // EVERY_NS + 1)
    within = [
        min((number + 1) * EVERY_NS, session.end_ns) - max(number * EVERY_NS, session.start_ns) for number in numbers
    ]
    return pl.Series([lots.get(n, 0) for n, time_ns in zip(numbers, within, strict=True) if time_ns > 0.99 * EVERY_NS])


def test_intervals_that_a_session_cuts_off_are_left_out_and_counted(pair: list[Session]):
    table = compare([one.analyze(every="10s") for one in pair])
    rows = {row["metric"]: row for row in table.to_dicts()}
    assert rows["duration_s"]["difference"] == pytest.approx(0, abs=0.1)
    volume, oracle = rows["volume"], [whole_volumes(one) for one in pair]
    assert [volume["mean_a"], volume["mean_b"]] == [pytest.approx(one.mean()) for one in oracle]
    assert [volume["n_a"], volume["n_b"]] == [36, 4] == list(map(len, oracle))
    assert [volume["left_out_a"], volume["left_out_b"], volume["note"]] == [1, 1, None]
    assert list(remarks(table)) == ["2 intervals that a session's start or end cuts off: left out"]


def test_totals_of_what_has_no_whole_interval_are_not_compared(pair: list[Session]):
    analyses = [one.analyze(every="5m") for one in pair]
    table = compare(analyses)
    rows = {row["metric"]: row for row in table.to_dicts()}
    for total in ("volume", "messages", "delta", "duration_s", "widenings"):
        assert rows[total]["difference"] is rows[total]["mean_b"] is None
        assert "only intervals that are cut off" in rows[total]["note"]
    assert rows["quoted_spread_bps"]["difference"] is not None
    assert rows["quoted_spread_bps"]["note"] is None
    assert any(remark.startswith("not compared: duration_s, messages") for remark in remarks(table))
    values = comparable(analyses).filter(metric="volume")
    assert values["value"].is_null().to_list() == [False, True]


def test_an_interval_in_which_nothing_came_counts_with_nothing(tmp_path: Path):
    quiet = markets.broken(tmp_path, trades=20).analyze(every="5s")
    figures = {
        metric: quiet.frame().filter(metric=metric)["value"] for metric in ("volume", "trades_per_s", "messages")
    }
    assert all(values.null_count() == 0 and values.min() == 0 for values in figures.values())
    assert figures["volume"].sum() == quiet.only(["buy_volume", "sell_volume"]).frame()["value"].sum() > 0


def test_who_has_no_figure_is_named(pair: list[Session]):
    short = pair[1].analyze()
    (told,) = lacking([pair[0].analyze(), short], ["realized_volatility"])
    assert told.startswith(f"{short.session_id}, ESH6: no realized_volatility: only ")


def test_a_second_without_rows_is_zero_and_a_cut_off_one_has_the_rate_of_its_time(pair: list[Session]):
    x = extracts(pair[0])[0]
    begin = START_NS + 60 * S
    part = x.within([Window(begin, begin + 40 * S + 600_000_000)])
    silent = pl.col("recv_ns").is_between(begin + 20 * S, begin + 26 * S)
    rates = drawn_rows(draw("rates", [replace(part, quotes=part.quotes.filter(~silent))]))
    quotes = rates.filter(stream="quotes").drop_nulls().unique("time", keep="first", maintain_order=True)
    seconds = {row["time"] - begin // 1_000_000: row["per_s"] for row in quotes.to_dicts()}
    assert [seconds[1000 * second] for second in range(20, 26)] == [0.0] * 6
    counted = part.quotes.filter(~silent).group_by((pl.col("recv_ns") - begin) // S).len()
    for second, number in counted.iter_rows():
        assert seconds[1000 * second] == pytest.approx(number / (0.6 if second == 40 else 1.0), rel=1e-6)


def test_time_that_was_not_captured_is_no_silence(pair: list[Session]):
    x = extracts(pair[0])[0]
    begin = START_NS + 60 * S
    rates = drawn_rows(
        draw("rates", [x.within([Window(begin, begin + 10 * S), Window(begin + 20 * S, begin + 30 * S)])])
    )
    times = (
        rates.filter(pl.col("stream") == "quotes", pl.col("per_s").is_not_null())["time"] - begin // 1_000_000
    ) // 1000
    assert sorted(set(times)) == [*range(11), *range(20, 31)]
    assert rates["per_s"].null_count() == 2 * 3


@pytest.mark.parametrize(("from_s", "to_s"), [(0, 250), (20, 310)])
def test_the_minutes_at_the_ends_of_a_day_count_by_their_time(pair: list[Session], from_s: int, to_s: int):
    x = extracts(pair[0])[0]
    part: Extract = x.within([Window(START_NS + from_s * S, START_NS + to_s * S)])
    lots = drawn_rows(draw("day", [part])).filter(series="lots a minute")["y"].to_list()
    times_s = [min(to_s, 60 * n + 60) - max(from_s, 60 * n) for n in range(6)]
    volumes = [
        part.trades.filter((pl.col("recv_ns") - START_NS) // (60 * S) == number)["volume"].sum() for number in range(6)
    ]
    rates = [volume / time_s for volume, time_s in zip(volumes, times_s, strict=True) if time_s >= 30]
    assert lots == pytest.approx([rate * len(rates) / sum(rates) for rate in rates], rel=1e-5)
