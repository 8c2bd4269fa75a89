"""The language of faults."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdcapture.errors import UsageError
from mdcapture.simulator.faults import KINDS, Fault, FaultKind, parse_fault, random_faults

SECONDS = st.none() | st.integers(0, 10**6).map(lambda tenths: tenths / 10)


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(list(FaultKind)))
    trait = KINDS[kind]
    what = draw(st.sampled_from([None, *trait.what]))
    return Fault(kind, what, draw(SECONDS), draw(SECONDS) if trait.lasts else None)


@given(faults())
def test_every_fault_can_be_written(fault: Fault):
    what = "" if fault.what is None else f":{fault.what}"
    at = "" if fault.at_s is None else f"@{fault.at_s}"
    duration = "" if fault.duration_s is None else f"+{fault.duration_s}"
    assert parse_fault(f"{fault.kind}{what}{at}{duration}") == fault


def test_reads_the_examples():
    assert parse_fault("close@30") == Fault(FaultKind.CLOSE, None, 30.0, None)
    assert parse_fault("freeze:quotes@60+45") == Fault(FaultKind.FREEZE, "quotes", 60.0, 45.0)
    assert parse_fault("http:503+5") == Fault(FaultKind.HTTP, "503", None, 5.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "KIND one of close,"),
        ("explode", "KIND one of close,"),
        ("close@", "no fault: 'close@'"),
        ("close@-1", "no fault"),
        ("freeze:bars", "one of quotes, trades, depth"),
        ("close:quotes", "there may be nothing"),
        ("reset+5", "has no duration"),
        ("http:404", "one of 429, 500, 503"),
    ],
)
def test_says_what_is_wrong_with_a_text(text: str, reason: str):
    with pytest.raises(UsageError, match=reason):
        parse_fault(text)


def test_random_faults_come_at_their_rate_and_by_their_seed():
    drawn = list(islice(random_faults(6.0, seed=1), 600))
    assert drawn == list(islice(random_faults(6.0, seed=1), 600))
    assert drawn != list(islice(random_faults(6.0, seed=2), 600))
    times = [fault.at_s or 0.0 for fault in drawn]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(6_000, rel=0.15)
    assert {fault.kind for fault in drawn} == set(FaultKind) - {FaultKind.CLOSE_FOREVER, FaultKind.REVOKE}
    assert all((fault.duration_s is not None) is KINDS[fault.kind].lasts for fault in drawn)
