"""What silence is an alarm, what is only a quiet night, and whether the clock was set."""

from __future__ import annotations

import asyncio
import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from mdcapture.capture.market_hours import always, calendar, load_market_hours, open_since_ns, weekly
from mdcapture.capture.streams import Pulse
from mdcapture.capture.watchdog import Alarm, ClockWatch, Watchdog
from mdcapture.gateway.hub import Subscription
from mdcapture.gateway.tape import read_tape
from mdcapture.lake.schema import IncidentKind
from mdcapture.wire.timestamps import parse_ns

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mdcapture.capture.market_hours import OpenSpans

S = 1_000_000_000
DAY_S = 86_400
TRADES = Subscription("trades", "CON.F.US.MNQ.Z26")
WEDNESDAY_10H = parse_ns("2026-11-18T16:00:00Z")  # 10:00 in Chicago


@dataclass
class Watched:
    """A watchdog that looks each `tick_s`, at a stream that speaks when it is told to."""

    open_spans: OpenSpans = always
    tick_s: int = 1
    now_ns: int = WEDNESDAY_10H
    subscribed_ns: int = WEDNESDAY_10H
    heard_ns: int | None = None
    dog: Watchdog = field(default_factory=lambda: Watchdog(min_s=60, max_s=3600, factor=5))
    alarms: list[tuple[float, Alarm]] = field(default_factory=list)

    def quiet_for(self, duration_s: float) -> list[tuple[float, Alarm]]:
        """Let time pass; the alarms, with the seconds since then."""
        alarms = []
        for second in range(self.tick_s, int(duration_s) + 1, self.tick_s):
            self.now_ns += self.tick_s * S
            pulses = {TRADES: Pulse(self.subscribed_ns, self.heard_ns)}
            found = self.dog.look(self.now_ns, pulses, open_since_ns(self.open_spans, self.now_ns))
            alarms += [(second, alarm) for alarm in found]
        return alarms

    def speak(self, pauses_s: Iterable[float]) -> list[tuple[float, Alarm]]:
        """Let messages come after these pauses; the alarms."""
        alarms = []
        for pause_s in pauses_s:
            alarms += self.quiet_for(pause_s)
            self.heard_ns = self.now_ns
        return alarms

    def seconds(self, duration_s: float) -> list[float]:
        return [second for second, _ in self.quiet_for(duration_s)]


def test_a_busy_stream_that_falls_silent_is_subscribed_anew_then_reconnected_with_growing_pauses():
    watched = Watched()
    assert watched.speak([1] * 3600) == []
    alarms = watched.quiet_for(1500)
    assert [second for second, _ in alarms] == [60, 240, 780]
    assert [(alarm.first, alarm.reconnect) for _, alarm in alarms] == [(True, False), (False, True), (False, True)]


def test_a_stream_that_pauses_for_long_may_be_silent_for_longer():
    watched = Watched()
    assert watched.speak([100] * 50) == []
    (first, *_) = watched.seconds(1000)
    assert first == pytest.approx(500, rel=0.1)


def test_a_market_that_falls_quiet_costs_one_alarm():
    watched = Watched()
    watched.speak([1] * 3600)
    alarms = watched.speak([70, *[90] * 100])
    assert [second for second, _ in alarms] == [60]


def test_what_was_plausible_at_night_is_so_no_more_by_day():
    watched = Watched()
    assert watched.speak([100] * 50) == []
    assert watched.speak([1] * 3 * 3600) == []
    assert watched.seconds(100) == [60]


def test_no_silence_beyond_the_bound_is_plausible():
    watched = Watched()
    watched.speak([3000] * 10)
    assert watched.seconds(3600) == [3600]


def test_a_stream_that_was_never_heard_is_given_time_and_costs_the_others_nothing():
    alarms = Watched().quiet_for(6 * 3600)
    assert alarms[0][0] > 120
    assert not any(alarm.reconnect for _, alarm in alarms)
    assert len(alarms) < 6


def test_a_new_subscription_begins_a_new_silence():
    watched = Watched()
    watched.speak([1] * 3600)
    watched.quiet_for(50)
    watched.subscribed_ns = watched.now_ns
    assert watched.seconds(70) == [60]


def test_while_a_stream_is_not_subscribed_nothing_is_expected_of_it():
    dog = Watchdog(min_s=60, max_s=3600, factor=5)
    assert all(dog.look(second * S, {}, 0) == [] for second in range(10_000))


def test_after_the_clock_was_set_or_the_process_slept_silence_begins_anew():
    watched = Watched()
    watched.speak([1] * 3600)
    watched.quiet_for(50)
    watched.dog.restart(watched.now_ns)
    assert watched.seconds(70) == [60]


# The market's hours.


def test_nights_halts_and_weekends_are_no_alarm():
    watched = Watched(weekly, tick_s=10)
    for day in range(5):  # messages by day, none from 15:59:50 to 17:00:20, over a weekend, too
        (_, closes), (opens, _), *_ = weekly(watched.now_ns, watched.now_ns + 7 * DAY_S * S)
        assert watched.speak([10] * 100) == [], day
        watched.heard_ns = watched.now_ns = closes - 10 * S
        assert watched.speak([(opens - watched.now_ns) // S + 20]) == [], day


def test_a_stream_that_stays_silent_after_the_opening_is_an_alarm():
    watched = Watched(weekly)
    watched.speak([1] * 3600)
    closes_ns = weekly(watched.now_ns, watched.now_ns + DAY_S * S)[0][1]
    watched.heard_ns = watched.now_ns = closes_ns - S
    assert watched.seconds(3600 + 100) == [3600 + 61]


@pytest.mark.parametrize(
    ("now", "since"),
    [
        ("2026-11-18T16:00:00Z", "2026-11-17T23:00:00Z"),  # Wednesday 10:00: since Tuesday 17:00
        ("2026-11-18T21:59:59Z", "2026-11-17T23:00:00Z"),  # the last second
        ("2026-11-18T22:00:00Z", None),  # the daily halt
        ("2026-11-18T22:59:59Z", None),
        ("2026-11-18T23:00:00Z", "2026-11-18T23:00:00Z"),  # and its end
        ("2026-11-20T22:00:00Z", None),  # Friday 16:00
        ("2026-11-21T18:00:00Z", None),  # Saturday
        ("2026-11-22T22:59:59Z", None),  # Sunday
        ("2026-11-22T23:00:00Z", "2026-11-22T23:00:00Z"),
        ("2026-07-01T21:00:00Z", None),  # in summer the halt is an hour earlier in UTC
        ("2026-07-01T22:00:00Z", "2026-07-01T22:00:00Z"),
        ("2026-03-08T22:00:00Z", "2026-03-08T22:00:00Z"),  # the Sunday on which clocks went forward
    ],
)
def test_globex_is_open_from_sunday_evening_to_friday_afternoon_but_for_an_hour_a_day(now: str, since: str | None):
    assert open_since_ns(weekly, parse_ns(now)) == (None if since is None else parse_ns(since))


def test_a_week_has_115_open_hours():
    monday = parse_ns("2026-11-16T06:00:00Z")
    assert sum(closes - opens for opens, closes in weekly(monday, monday + 7 * DAY_S * S)) == 5 * 23 * 3600 * S


def test_open_spans_can_be_cut_anywhere():
    monday = parse_ns("2026-11-16T06:00:00Z")
    week = weekly(monday, monday + 7 * DAY_S * S)
    cuts = [monday, *(monday + hours * 3600 * S for hours in (10, 16, 17, 18, 100, 130)), monday + 7 * DAY_S * S]
    pieces = [span for begin, end in itertools.pairwise(cuts) for span in weekly(begin, end)]
    assert sum(end - begin for begin, end in pieces) == sum(end - begin for begin, end in week)
    assert weekly(monday, monday) == always(monday, monday) == []


def test_a_calendar_knows_holidays_and_the_plain_week_takes_over_beyond_it():
    thanksgiving = parse_ns("2026-11-26T18:00:00Z")  # the market closes at noon
    nights = weekly(parse_ns("2026-11-23T00:00:00Z"), parse_ns("2026-11-28T00:00:00Z"))
    hours = calendar(
        [(opens, min(closes, thanksgiving) if opens < thanksgiving else closes) for opens, closes in nights]
    )
    assert open_since_ns(weekly, thanksgiving) is not None
    assert open_since_ns(hours, thanksgiving) is None
    assert open_since_ns(hours, thanksgiving - 1) == parse_ns("2026-11-25T23:00:00Z")
    later = parse_ns("2026-12-09T12:00:00Z")
    assert open_since_ns(hours, later) == open_since_ns(weekly, later) is not None
    around = parse_ns("2026-11-20T00:00:00Z"), parse_ns("2026-12-05T00:00:00Z")
    lost = sum(b - a for a, b in weekly(*around)) - sum(b - a for a, b in hours(*around))
    assert lost == 4 * 3600 * S


def test_hours_that_need_no_calendar_are_there_at_once():
    assert asyncio.run(load_market_hours("always", 0)) is always
    assert asyncio.run(load_market_hours("weekly", 0)) is weekly


LIBRARY = """
from datetime import datetime
class Table(list):
    def iterrows(self):
        return enumerate(self)
class Calendar:
    def schedule(self, first, last, tz, market_times):
        assert (tz, market_times) == ("UTC", "all")
        assert first <= datetime(2026, 11, 26).date() <= last
        at = lambda hour: datetime.fromisoformat(f"2026-11-26T{hour:02d}:00:00+00:00")
        day = {"market_open": at(1), "market_close": at(18)}
        late = {"market_open": at(19), "break_start": at(20), "break_end": at(20), "market_close": at(22)}
        return Table([day, late])
def get_calendar(name):
    return {"CME Globex Equity": Calendar()}[name]
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for `pandas_market_calendars`, here and in processes that are started."""
    (tmp_path / "pandas_market_calendars.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("library")
def test_holidays_come_from_a_library_where_it_is_installed():
    hours = asyncio.run(load_market_hours("CME Globex Equity", parse_ns("2026-11-26T12:00:00Z")))
    day = parse_ns("2026-11-26T00:00:00Z")
    spans = hours(day + 3600 * S, day + 22 * 3600 * S)
    assert [((begin - day) // (3600 * S), (end - day) // (3600 * S)) for begin, end in spans] == [(1, 18), (19, 22)]


@pytest.mark.usefixtures("library")
def test_a_calendar_that_does_not_exist_is_logged_and_the_plain_week_stands_in(caplog: pytest.LogCaptureFixture):
    assert asyncio.run(load_market_hours("CME Nonsense", WEDNESDAY_10H)) is weekly
    assert "no calendar 'CME Nonsense'" in caplog.text


# The real tape: a thin holiday night.


def feed(watch: Watchdog, tape: Path, *, frozen_s: tuple[int, int] = (0, 0)) -> list[tuple[int, Alarm]]:
    """The alarms of the tape, with the seconds since its beginning; quotes freeze for a while."""
    target = re.compile(rb'"target":"Gateway(\w+)"')
    heard: dict[bytes, int] = {}
    alarms: list[tuple[int, Alarm]] = []
    start_ns = next_ns = None
    for recv_ns, record in read_tape(tape):
        start_ns = start_ns or recv_ns
        next_ns = next_ns or start_ns
        while next_ns <= recv_ns:
            pulses = {Subscription(name.decode(), "ES"): Pulse(start_ns, at) for name, at in heard.items()}  # type: ignore[arg-type]
            alarms += [((next_ns - start_ns) // S, alarm) for alarm in watch.look(next_ns, pulses, start_ns)]
            next_ns += S
        match = target.search(record)
        frozen = frozen_s[0] * S <= recv_ns - start_ns < frozen_s[1] * S
        if match and not (frozen and match[1] == b"Quote"):
            heard[match[1]] = recv_ns
    return alarms


def test_a_real_quiet_night_is_no_alarm(shared: Path):
    assert feed(Watchdog(min_s=60, max_s=3600, factor=5), shared / "tapes/es_20231225.ndjson.zst") == []


def test_a_freeze_of_one_stream_in_it_is_noticed(shared: Path):
    dog = Watchdog(min_s=60, max_s=3600, factor=5)
    alarms = feed(dog, shared / "tapes/es_20231225.ndjson.zst", frozen_s=(1800, 2200))
    assert alarms
    assert {alarm.subscription.stream for _, alarm in alarms} == {"Quote"}
    assert 1860 <= alarms[0][0] < 2200


# Clocks.


def looked(*readings: tuple[float, ...]) -> list[tuple[str, float, float | None]]:
    """The incidents of a watch that is asked each second, in seconds.

    Readings are of the wall clock, of the steady one, and (0 if not given) how long the machine has slept.
    """
    watch = ClockWatch(interval_s=1, step_s=0.1, suspended_s=2)
    found = [watch.look(*(round(each * S) for each in (*reading, 0)[:3])) for reading in readings]
    return [
        (each.kind, each.from_ns / S, each.to_ns and each.to_ns / S) for clocks in found for each in clocks.incidents
    ]


def test_clocks_that_agree_are_no_incident():
    assert looked((1000, 0), (1001, 1), (1002.05, 2), (1003.23, 3.2), (1004, 4)) == []


def test_a_clock_that_is_set_forward_leaves_times_out():
    assert looked((1000, 0), (1001, 1), (4602, 2), (4603, 3)) == [(IncidentKind.CLOCK_STEP, 1002, 4602)]


def test_a_clock_that_is_set_back_has_times_twice():
    assert looked((5000, 0), (1401, 1), (1402, 2)) == [(IncidentKind.CLOCK_STEP, 1401, 5001)]


def test_a_process_that_did_not_run_says_since_when():
    assert looked((1000, 0), (1001, 1), (1022, 22), (1023, 23)) == [(IncidentKind.SUSPENDED, 1002, 1022)]


def test_a_machine_that_slept_says_so_and_its_clock_was_not_set():
    assert looked((1000, 0, 7), (4601, 1, 3607), (4602, 2, 3607)) == [(IncidentKind.SLEPT, 1001, 4601)]


def test_a_clock_that_was_set_after_a_sleep_is_told_beside_it():
    told = looked((1000, 0, 0), (4602, 1, 3600), (4603, 2, 3600))
    assert told == [(IncidentKind.SLEPT, 1001, 4601), (IncidentKind.CLOCK_STEP, 4601, 4602)]


def test_a_nap_is_no_incident():
    assert looked((1000, 0, 0), (1002.5, 1, 1.5), (1003.5, 2, 1.5)) == []


def test_by_how_much_the_clock_was_set_and_how_long_the_machine_slept_are_told():
    watch = ClockWatch(interval_s=1, step_s=0.1, suspended_s=2)
    assert watch.look(1000 * S, 0, 5 * S)[:2] == (0, 0)
    assert watch.look(4631 * S, 1 * S, 35 * S)[:2] == (3600 * S, 30 * S)
