"""The captured share of market hours is what a count of minutes says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from mdcapture.analysis.coverage import coverage
from mdcapture.capture.market_hours import always, weekly

MINUTE_NS = 60 * 10**9
MONDAY = datetime(2026, 3, 2, 23, tzinfo=UTC)  # 17:00 in Chicago, when Tuesday's trading begins
BEGIN_NS = int(MONDAY.timestamp()) * 10**9


def at(hours: float) -> int:
    return BEGIN_NS + round(hours * 60) * MINUTE_NS


def test_a_day_has_23_hours_and_what_is_missing_is_left_out():
    table = coverage([("ES", (at(0), at(12.5)))], [("ES", (at(1), at(1.5)))])
    assert table.rows(named=True) == [
        {
            "contract": "ES",
            "day": (MONDAY + timedelta(days=1)).date(),
            "open_s": 23 * 3600,
            "captured_s": 12 * 3600,
            "share": 12 / 23,
            "gaps": 1,
        }
    ]


def test_days_between_are_there_and_a_closed_day_has_no_share():
    table = coverage([("ES", (at(72), at(73))), ("ES", (at(144), at(145)))], [])
    assert table["day"].dt.strftime("%a").to_list() == ["Fri", "Sat", "Sun", "Mon"]
    assert table["share"].to_list() == [1 / 23, None, None, 1 / 23]


spans = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(1, 900)).map(lambda span: (span[0], span[0] + span[1])), max_size=6
)


@given(spans.filter(bool), spans)
def test_a_count_of_minutes_says_the_same(captured: list[tuple[int, int]], missing: list[tuple[int, int]]):
    def named(some: list[tuple[int, int]]) -> list[tuple[str, tuple[int, int]]]:
        return [("ES", (BEGIN_NS + start * MINUTE_NS, BEGIN_NS + end * MINUTE_NS)) for start, end in some]

    minutes = {minute for span in captured for minute in range(*span)} - {
        minute for span in missing for minute in range(*span)
    }
    all_day = coverage(named(captured), named(missing), always)
    assert all_day["captured_s"].sum() == 60 * len(minutes)
    traded = [minute for minute in minutes if weekly(*named([(minute, minute + 1)])[0][1])]
    by_the_week = coverage(named(captured), named(missing))
    assert by_the_week["captured_s"].sum() == 60 * len(traded)
    assert by_the_week.drop_nulls("share")["share"].is_between(0, 1).all()


def test_nothing_is_an_empty_table():
    assert coverage([], []).schema["day"] == pl.Date
