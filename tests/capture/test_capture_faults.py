"""Every fault of the gateway, alone and in random sequences: the recorder stays up, and knows what it missed.

`MDCAPTURE_FAULT_SECONDS` makes the random sequence longer, `MDCAPTURE_FAULT_SEED` another one; `benchmarks/faults.py`
goes on for as long as one likes.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from fault_account import COMPRESSED, FAULTS, STALL_S, numbered_tape, random_faults, record_through
from programs import LIMIT_S, simulator, start
from tapes import CONTRACT, records, write_tape

import mdcapture as md
from mdcapture.lake.schema import QUOTE_STATE, STREAMS, IncidentKind

if TYPE_CHECKING:
    from pathlib import Path

    from fault_account import Account

RANDOM_S = float(os.environ.get("MDCAPTURE_FAULT_SECONDS", "5"))
SEED = int(os.environ.get("MDCAPTURE_FAULT_SEED", "1"))
S = 1_000_000_000
PATIENT = {"stall_min_s": 30.0, "stall_max_s": 30.0, "silence_s": 30.0, "answer_s": 30.0}
"""Where nothing is to go wrong, a machine that is busy elsewhere must not look as if it did."""


def assert_accounted(account: Account) -> None:
    """What is missing lies in gaps, gaps go from message to message, and nothing is there twice."""
    assert account.captured.status == "sealed"
    assert account.problems == []
    for stream in STREAMS:
        assert account.uncovered(stream) == []
        assert account.untrue(stream) == []
        assert account.doubled(stream) == []


def test_every_fault_alone(tmp_path: Path):
    faults = [each for place, fault in enumerate(FAULTS) for each in fault.format(0.5 + 0.6 * place).split()]
    account = record_through(faults, 0.6 * len(FAULTS) + 1, tmp_path)
    assert_accounted(account)
    assert all(account.missing(stream) for stream in STREAMS)
    assert account.incidents.keys() >= {
        IncidentKind.DISCONNECTED,
        IncidentKind.LOGGED_OUT,
        IncidentKind.STALLED,
        IncidentKind.SUBSCRIBE_FAILED,
    }


def test_faults_at_random(tmp_path: Path):
    account = record_through(random_faults(SEED, RANDOM_S), RANDOM_S, tmp_path)
    assert_accounted(account)
    assert len(account.incidents[IncidentKind.GAP]) > len(STREAMS)


def test_without_a_fault_nothing_is_missing_and_nothing_is_said(tmp_path: Path):
    account = record_through([], 1.5, tmp_path, **PATIENT)
    assert_accounted(account)
    assert [account.missing(stream) for stream in STREAMS] == [0, 0, 0]
    assert set(account.incidents) == {IncidentKind.CONNECTED, IncidentKind.SUBSCRIBING, IncidentKind.SUBSCRIBED}


def test_garbage_costs_no_message(tmp_path: Path):
    account = record_through(["garbage@0.5", "garbage@0.7"], 1.2, tmp_path, **PATIENT)
    assert_accounted(account)
    assert [account.missing(stream) for stream in STREAMS] == [0, 0, 0]
    assert account.captured.rejects > 0
    assert IncidentKind.DISCONNECTED not in account.incidents


def test_a_stream_that_subscribing_anew_does_not_wake_makes_it_reconnect(tmp_path: Path):
    account = record_through(["freeze:depth@0.5+2.5"], 3.5, tmp_path)
    assert_accounted(account)
    details = dict(account.session.incidents().select("kind", "detail").collect().iter_rows())
    assert "depth: silent for" in details[IncidentKind.DISCONNECTED]
    assert len(account.incidents[IncidentKind.STALLED]) == 1
    first = account.gaps["depth"][0]
    assert (first.to_ns - first.from_ns) / S == pytest.approx(2.5, abs=0.5)


def test_a_stream_that_is_still_silent_at_the_end_is_missing_until_then(tmp_path: Path):
    account = record_through(["freeze:quotes@0.5+60"], 0.5 + 3 * STALL_S, tmp_path)
    assert_accounted(account)
    (gap,) = account.gaps["quotes"][-1:]
    assert gap.to_ns >= account.received["trades"][-1][0]
    clean = account.session.trades(clean=("trades", "quotes")).collect()
    assert 0 < len(clean) < account.captured.trades
    assert clean["recv_ns"].max() <= gap.from_ns


def test_the_watchdog_can_be_switched_off(tmp_path: Path):
    account = record_through(["freeze:quotes@0.5+1"], 1.8, tmp_path, watchdog=False)
    assert IncidentKind.STALLED not in account.incidents
    assert IncidentKind.RESUBSCRIBED not in account.incidents


def test_quotes_begin_anew_after_a_reconnect_live_as_in_the_lake(tmp_path: Path):
    tape = write_tape(tmp_path / "market.ndjson", records(3000))
    quotes: list[md.QuoteEvent] = []
    with simulator("--tape", str(tape), "--fault", "reset@0.5", "--fault", "freeze:quotes@1") as gateway:
        settings = {
            "gateway": gateway["api"],
            "lake": str(tmp_path / "lake"),
            "contracts": [CONTRACT],
            "username": "me",
        }
        config = md.Config(**(settings | COMPRESSED | {"duration_s": 2.5}))
        with md.Recorder(config, api_key="demo") as recorder:
            recorder.on_quote(quotes.append)
            recorder.run()
    session = md.open_lake(tmp_path / "lake").session()
    stored = session.quotes().collect()
    assert [event._asdict() for event in quotes] == stored.select(md.QuoteEvent._fields).to_dicts()
    resets = session.incidents().filter(kind=IncidentKind.SUBSCRIBING, stream="quotes").collect()["seq"].to_list()
    assert len(resets) >= 3
    names = [column.name for column in QUOTE_STATE]
    for seq in resets[1:3]:
        first = stored.filter(stored["seq"] >= seq).row(0, named=True)
        carried = {name for bit, name in enumerate(names) if first["changed"] >> bit & 1}
        assert {name for name in names if first[name] is not None} == carried


# Clocks, and a process that does not run.


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_clock_that_is_set_costs_no_message_and_alarms_nobody(step_s: int, tmp_path: Path):
    ahead = [0]

    def clock() -> int:
        return time.time_ns() + ahead[0] * S

    tape = numbered_tape(tmp_path / "tape.ndjson", 2.5)
    with simulator("--tape", str(tape)) as gateway:
        settings = {
            "gateway": gateway["api"],
            "lake": str(tmp_path / "lake"),
            "contracts": [CONTRACT],
            "username": "me",
        }
        config = md.Config(**(settings | COMPRESSED | {"duration_s": 30, "count": 1250, "roll_time": ""}))
        with md.Recorder(config, api_key="demo", clock=clock) as recorder:
            recorder.start()
            while (figures := recorder.figures()) is None or figures.messages < 500:
                time.sleep(0.01)
            set_ns = time.time_ns()
            ahead[0] = step_s
            captured = recorder.wait()
    assert captured is not None
    assert captured.messages == 1250
    incidents = md.open_lake(tmp_path / "lake").session().incidents().collect()
    assert set(incidents["kind"]) == {"connected", "subscribing", "subscribed", "clock_step"}
    ((from_ns, to_ns),) = incidents.filter(kind="clock_step").select("from_ns", "to_ns").rows()
    assert from_ns == pytest.approx(set_ns + min(0, step_s * S), abs=S)
    assert to_ns - from_ns == pytest.approx(3600 * S, abs=S)


def test_a_process_that_is_stopped_for_a_while_loses_nothing_and_says_so(tmp_path: Path):
    stopped_s = float(os.environ.get("MDCAPTURE_STOPPED_SECONDS", "2.5"))
    tape = numbered_tape(tmp_path / "tape.ndjson", stopped_s + 2)
    count = str(int((stopped_s + 2) * 500))
    with simulator("--tape", str(tape)) as gateway:
        options = ("--gateway", gateway["api"], "--lake", str(tmp_path / "lake"), "--contract", CONTRACT, "--json")
        more = ("--stats", "json", "--set", "stats_s=0.1", "--count", count, "--duration", "60s")
        settings = ("suspended_s=1", "stall_min_s=1", "stall_max_s=1", "stall_factor=1", "calendar=always")
        process = start("capture", *options, *more, *(part for each in settings for part in ("--set", each)))
        assert process.stderr is not None
        while '"messages":0' in process.stderr.readline():
            continue
        process.send_signal(signal.SIGSTOP)
        stopped_ns = time.time_ns()
        time.sleep(stopped_s)
        process.send_signal(signal.SIGCONT)
        continued_ns = time.time_ns()
        output, _ = process.communicate(timeout=LIMIT_S)
    assert json.loads(output)["messages"] == int(count)
    incidents = md.open_lake(tmp_path / "lake").session().incidents().collect()
    ((from_ns, to_ns),) = incidents.filter(kind="suspended").select("from_ns", "to_ns").rows()
    assert from_ns == pytest.approx(stopped_ns, abs=S)
    assert to_ns == pytest.approx(continued_ns, abs=S)
    assert not set(incidents["kind"]) & {"stalled", "gap", "disconnected"}
