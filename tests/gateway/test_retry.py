"""Verdicts, pauses and rate limits: the whole table, and what holds for all of them."""

from __future__ import annotations

import math
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdcapture.errors import ConfigError, GatewayError, ProtocolError, RefusedError, UnreachableError
from mdcapture.gateway.refusals import (
    LoggedOutError,
    MisunderstoodError,
    ThrottledError,
    UnauthorizedError,
    quoted,
    retry_after_s,
    status_error,
)
from mdcapture.gateway.retry import Backoff, RateLimit, RetryPolicy, Verdict, verdict

RETRY, REFRESH, GIVE_UP = Verdict.RETRY, Verdict.REFRESH, Verdict.GIVE_UP

# error, then the verdict for (stood, refreshed) = (no, no), (yes, no), (no, yes), (yes, yes)
TABLE = [
    (UnreachableError("no route"), RETRY, RETRY, RETRY, RETRY),
    (ThrottledError("slower"), RETRY, RETRY, RETRY, RETRY),
    (LoggedOutError("another login"), RETRY, RETRY, RETRY, RETRY),
    (UnauthorizedError("expired"), REFRESH, REFRESH, GIVE_UP, RETRY),
    (RefusedError("wrong key"), GIVE_UP, GIVE_UP, GIVE_UP, GIVE_UP),
    (MisunderstoodError("what?"), GIVE_UP, RETRY, GIVE_UP, RETRY),
    (ProtocolError("no hub"), GIVE_UP, RETRY, GIVE_UP, RETRY),
    (GatewayError("whatever"), GIVE_UP, GIVE_UP, GIVE_UP, GIVE_UP),
]


@pytest.mark.parametrize(("error", "new", "stood", "refreshed", "both"), TABLE, ids=lambda each: type(each).__name__)
def test_a_verdict_follows_from_the_error_and_its_past(
    error: GatewayError, new: Verdict, stood: Verdict, refreshed: Verdict, both: Verdict
):
    assert verdict(error) is new
    assert verdict(error, stood=True) is stood
    assert verdict(error, refreshed=True) is refreshed
    assert verdict(error, stood=True, refreshed=True) is both


@pytest.mark.parametrize(
    ("status", "judged"),
    [
        (400, GIVE_UP),
        (401, REFRESH),
        (403, REFRESH),
        (404, GIVE_UP),
        (408, RETRY),
        (418, GIVE_UP),
        (422, GIVE_UP),
        (429, RETRY),
        (500, RETRY),
        (503, RETRY),
        (599, RETRY),
        (200, GIVE_UP),
        (302, GIVE_UP),
    ],
)
def test_a_status_is_worth_what_its_error_is(status: int, judged: Verdict):
    error = status_error(status, "https://api.example.com", "maintenance")
    assert verdict(error) is judged
    assert f"HTTP {status} (maintenance) from https://api.example.com" in str(error)


# Pauses.

policies = st.builds(
    RetryPolicy,
    first_s=st.floats(0.001, 1),
    factor=st.floats(1, 10),
    max_s=st.floats(1, 1e4),
    logout_first_s=st.floats(0.001, 1),
    logout_max_s=st.floats(1, 1e4),
)
fractions = st.floats(0, 1, exclude_max=True)


@given(policies, st.lists(st.tuples(st.booleans(), fractions), max_size=400))
def test_pauses_are_positive_jittered_by_up_to_a_half_and_bounded(policy: RetryPolicy, tries: list[tuple[bool, float]]):
    failures = logouts = 0
    jitter = 0.0
    backoff = Backoff(policy, lambda: jitter)
    for logout, jitter in tries:  # noqa: B007  # the lambda above reads it
        error = LoggedOutError("") if logout else UnreachableError("")
        first_s, max_s, count = (
            (policy.logout_first_s, policy.logout_max_s, logouts)
            if logout
            else (policy.first_s, policy.max_s, failures)
        )
        full_s = min(max_s, first_s * policy.factor ** min(count, 64))
        pause_s = backoff.pause_s(error)
        assert full_s / 2 * (1 - 1e-9) <= pause_s <= full_s * (1 + 1e-9)
        failures, logouts = failures + (not logout), logouts + logout


def test_pauses_double_until_a_connection_holds():
    backoff = Backoff(RetryPolicy(first_s=1, factor=2, max_s=10, held_s=60), lambda: 0.0)
    assert [backoff.pause_s(UnreachableError("")) for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    backoff.held(59.9)
    assert backoff.pause_s(UnreachableError("")) == 10
    backoff.held(60)
    assert backoff.pause_s(UnreachableError("")) == 1


def test_logouts_have_pauses_of_their_own_which_only_a_long_quiet_shortens():
    backoff = Backoff(RetryPolicy(first_s=1, logout_first_s=30, logout_max_s=900), lambda: 0.0)
    assert [backoff.pause_s(LoggedOutError("")) for _ in range(6)] == [30, 60, 120, 240, 480, 900]
    assert backoff.pause_s(UnreachableError("")) == 1
    backoff.held(899)
    assert backoff.pause_s(LoggedOutError("")) == 900
    backoff.held(900)
    assert backoff.pause_s(LoggedOutError("")) == 30


def test_jitter_takes_off_up_to_a_half():
    policy = RetryPolicy(first_s=1, factor=1)
    assert Backoff(policy, lambda: 0.5).pause_s(UnreachableError("")) == 0.75
    assert Backoff(policy, lambda: 0.999).pause_s(UnreachableError("")) == pytest.approx(0.5005)


def test_a_pause_is_at_least_what_the_gateway_asks_for():
    backoff = Backoff(RetryPolicy(first_s=2, factor=1), lambda: 0.0)
    assert backoff.pause_s(ThrottledError("", 7.0)) == 7
    assert backoff.pause_s(ThrottledError("", 0.1)) == 2
    assert backoff.pause_s(ThrottledError("")) == 2


def test_attempts_count_the_tries_after_the_first():
    backoff = Backoff(RetryPolicy(attempts=2))
    exhausted = []
    for _ in range(4):
        backoff.pause_s(UnreachableError(""))
        exhausted.append(backoff.exhausted)
    assert exhausted == [False, False, True, True]


def test_years_of_failures_do_not_overflow():
    backoff = Backoff(RetryPolicy(factor=100, max_s=60), lambda: 0.0)
    assert {backoff.pause_s(UnreachableError("")) for _ in range(5_000)} == {0.5, 50.0, 60.0}
    assert not backoff.exhausted


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_s": 0},
        {"first_s": 2, "max_s": 1},
        {"factor": 0.5},
        {"factor": 101},
        {"attempts": -1},
        {"held_s": -1},
        {"logout_first_s": 0},
        {"first_s": math.nan},
    ],
)
def test_a_policy_out_of_range_is_refused(wrong: dict[str, float]):
    with pytest.raises(ConfigError):
        RetryPolicy(**wrong)


# Rates.


@given(
    st.integers(1, 6),
    st.integers(1, 30),
    st.lists(st.integers(0, 20), min_size=1, max_size=100),
)
def test_no_window_holds_more_calls_than_the_limit_and_none_waits_in_vain(calls: int, period_s: int, gaps: list[int]):
    limit = RateLimit(calls, period_s)
    now_s, starts = 0, []
    for gap in gaps:
        now_s += gap
        wait_s = limit.reserve(now_s)
        assert wait_s >= 0
        start_s = now_s + wait_s
        if wait_s > 0:  # any earlier, and a window would hold too many
            assert sum(start_s - period_s <= start < start_s for start in starts) >= calls
        starts.append(start_s)
    for start in starts:
        assert sum(start <= other < start + period_s for other in starts) <= calls


def test_callers_at_the_same_time_are_queued():
    limit = RateLimit(2, 10)
    assert [limit.reserve(0) for _ in range(5)] == [0, 0, 10, 10, 20]


# What gateways say.

NOW_S = 1_700_000_000


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("30", 30),
        (" 0 ", 0),
        (formatdate(NOW_S + 90, usegmt=True), 90),
        (formatdate(NOW_S - 90, usegmt=True), 0),
        ("86400", 300),
        ("9" * 400, 300),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("Sun, 99 Foo 2023 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, expected: float | None):
    assert retry_after_s(header, NOW_S * 1_000_000_000) == expected


@given(st.text())
def test_any_header_is_read_without_an_error(header: str):
    pause_s = retry_after_s(header, NOW_S * 1_000_000_000)
    assert pause_s is None or 0 <= pause_s <= 300


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_a_quote_is_one_short_printable_line_without_the_secret(before: str, between: str, after: str):
    line = quoted(f"{before}S3CR3T{between}S3CR3T{after}", ["", "S3CR3T"])
    assert len(line) <= 201
    assert line.isprintable()
    assert "S3CR3T" not in line
