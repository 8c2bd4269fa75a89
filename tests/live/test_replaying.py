"""A session played to other programs, printed, and computed on: live, from the lake, and again."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest
from lake_builder import message, record
from programs import mdcapture, simulator
from synthetic import CONTRACTS, imported, market_tape
from tapes import CONTRACT, records, write_tape
from test_online import new_metrics

import mdcapture as md
from mdcapture.errors import UsageError
from mdcapture.interop.importing import import_tape
from mdcapture.live.replay import Replay
from mdcapture.simulator.captured import SessionFeed

if TYPE_CHECKING:
    from pathlib import Path

ODD = [
    b'{"type":1,"target":"GatewayTrade","arguments":["CON.F.US.MNQ.Z26",{"price":1.50,"volume":1,"x":"\xff"}]}',
    b'{"type":1,"target":"GatewayTrade","arguments":["",[{"price":1,"volume":1,"type":0}]]}',
    b'{"type":1,"target":"GatewayLogout","arguments":["bye"]}',
    b'{"target":"gatewayQUOTE","type":1,"arguments":["CON.F.US.MNQ.Z26",{"bestBid":1e2,"n\xc3\xa4me":"\\u00e4"}]}',
]


def texts(session: md.Session) -> list[str]:
    return session.messages().collect().sort("seq")["payload"].to_list()


def test_a_session_is_played_byte_for_byte(tmp_path: Path):
    sent = [*records(50), *ODD, *records(50, contract_id="CON.F.US.MES.Z26", seed=2)]
    import_tape(str(write_tape(tmp_path / "tape.ndjson", sent)), tmp_path / "lake")
    feed = SessionFeed(tmp_path / "lake", "latest")
    begin_ns, played = feed.play(0)
    messages = list(played)
    assert [it.record for it in messages] == sent
    assert begin_ns == messages[0].time_ns
    assert {it.contract_id for it in feed.contracts} == {CONTRACT, "CON.F.US.MES.Z26"}


def test_what_can_not_be_played_is_said(tmp_path: Path):
    with pytest.raises(md.NotFoundError):
        SessionFeed(tmp_path / "nowhere", "latest")


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> tuple[md.Session, md.Session, dict[str, dict[str, object]]]:
    """A session, what was captured while it was played, and the values that live metrics had at the end of that."""
    folder = tmp_path_factory.mktemp("played")
    session = imported(market_tape(folder / "market.ndjson", messages=1500), folder / "lake")
    count = session.counts["messages"]
    live = new_metrics()
    with simulator("--session", "latest", "--lake", str(folder / "lake"), "--speed", "5") as addresses:
        config = md.Config(
            gateway=addresses["api"],
            lake=str(folder / "again"),
            contracts=list(CONTRACTS),
            username="me",
            count=count,
            calendar="weekly",
        )
        with md.Recorder(config, api_key="demo") as recorder:
            live.attach(recorder)
            recorder.run()
    again = md.open_lake(folder / "again").session()
    assert again.end_ns is not None
    live.tick(again.end_ns)
    return session, again, {one: dict(live[one]) for one in live.contracts}


def test_a_session_that_is_played_and_captured_again_is_the_same(
    captured: tuple[md.Session, md.Session, dict[str, dict[str, object]]],
):
    session, again, _ = captured
    assert texts(again) == texts(session)


def test_live_metrics_of_a_recorder_equal_those_of_its_replay(
    captured: tuple[md.Session, md.Session, dict[str, dict[str, object]]],
):
    _, again, live = captured
    replayed = new_metrics()
    replay = Replay(again)
    replayed.attach(replay)
    replay.run()
    assert again.end_ns is not None
    replayed.tick(again.end_ns)
    assert live == {one: dict(replayed[one]) for one in replayed.contracts}
    assert live.keys() == set(CONTRACTS)
    unknown = {name for name, value in live[CONTRACTS[0]].items() if value is None}
    assert unknown <= {"realized_variance"}  # it is over in a few seconds


def test_events_are_printed_as_json_lines(tmp_path: Path):
    record(tmp_path, message("GatewayTrade", CONTRACT, [{"price": 1.5, "volume": 2, "type": 1}]), *records(20))
    session = md.open_lake(tmp_path).session()
    done = mdcapture("replay", "latest", "--lake", str(tmp_path))
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [{**event._asdict()} for event in Replay(session)] == [
        {name: value for name, value in line.items() if name != "event"} for line in printed
    ]
    assert printed[0] | {"recv_ns": 0} == {
        "event": "trade", "contract_id": CONTRACT, "seq": 0, "recv_ns": 0, "pos": 0, "exch_ns": None, "price": 1.5,
        "volume": 2, "side": 1,
    }  # fmt: skip


def test_several_sources_are_printed_in_the_order_of_their_times(tmp_path: Path):
    record(tmp_path, *records(20))
    tape = write_tape(tmp_path / "tape.ndjson", records(30))
    done = mdcapture("replay", "latest", str(tape), "--lake", str(tmp_path))
    assert done.returncode == 0, done.stderr
    merged = list(Replay(md.open_lake(tmp_path).session(), tape))
    assert [json.loads(line)["recv_ns"] for line in done.stdout.splitlines()] == [event.recv_ns for event in merged]
    assert len(merged) > 50


def test_events_of_a_tape_are_printed_as_csv(tmp_path: Path):
    tape = write_tape(tmp_path / "tape.ndjson", records(40))
    done = mdcapture("replay", str(tape), "--format", "csv", "--from", "2026-11-18T11:06:40.020Z", "--speed", "100")
    assert done.returncode == 0, done.stderr
    printed = list(csv.DictReader(io.StringIO(done.stdout)))
    replayed = list(Replay(tape, from_ns=1_795_000_000_020_000_000))
    assert [(line["event"], int(line["seq"]), int(line["pos"])) for line in printed] == [
        (type(event).__name__.removesuffix("Event").lower(), event.seq, event.pos) for event in replayed
    ]
    assert printed[0].keys() >= {"best_bid", "price", "dom_type"}


@pytest.mark.parametrize(("options", "code"), [(("--speed", "0"), 2), (("--from", "noon"), 2), (("--lake", "none"), 3)])
def test_a_replay_that_can_not_be_says_why(tmp_path: Path, options: tuple[str, ...], code: int):
    record(tmp_path, *records(3))
    done = mdcapture("replay", "latest", *(options if "--lake" in options else ("--lake", str(tmp_path), *options)))
    assert done.returncode == code
    assert done.stdout == ""


def test_a_gateway_plays_a_tape_or_a_session():
    from mdcapture.simulator.server import Simulator, SimulatorConfig  # noqa: PLC0415  # aiohttp takes its time

    with pytest.raises(UsageError, match="not both"):
        Simulator(SimulatorConfig(tape="x", session="latest"))
