"""A machine that sleeps, or whose clock is set, while a stream is broken: its gap goes from message to message."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl
import pytest
from fault_account import COMPRESSED
from tapes import CONTRACT

import mdcapture as md
from mdcapture.capture.sleep import slept_ns
from mdcapture.lake.schema import NO_END_NS, STREAMS, IncidentKind
from mdcapture.metrics.book import book_snapshots
from mdcapture.simulator.faults import parse_fault
from mdcapture.simulator.server import Simulator, SimulatorConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

S = 1_000_000_000
HOUR_S = 3600


@dataclass
class Machine:
    """Its clock can be set, and it can be put to sleep: it does before the next time that it is asked for the time."""

    ahead_ns: int = 0
    slept_ns: int = 0
    to_sleep_ns: int = 0

    def clock(self) -> int:
        nap_ns, self.to_sleep_ns = self.to_sleep_ns, 0
        self.ahead_ns += nap_ns
        self.slept_ns += nap_ns
        return time.time_ns() + self.ahead_ns

    def slept(self) -> int:
        return self.slept_ns


@dataclass
class Running:
    """A capture of a market that goes on, and what handlers were told of it."""

    simulator: Simulator
    recorder: md.Recorder
    machine: Machine
    told: list[tuple[str, str | None]] = field(default_factory=list)

    async def strike(self, fault: str) -> None:
        await self.simulator.strike(parse_fault(fault))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110  # what is waited for happens in other threads
                await asyncio.sleep(0.005)

    async def captured(self, more: int) -> None:
        """Wait for so many messages more."""
        before = self.messages
        await self.until(lambda: self.messages >= before + more)

    @property
    def messages(self) -> int:
        figures = self.recorder.figures()
        return 0 if figures is None else figures.messages


@asynccontextmanager
async def running(lake: Path, **settings: object) -> AsyncIterator[Running]:
    machine = Machine()
    async with Simulator(SimulatorConfig(contracts=(CONTRACT,), rate=400, ping_s=0.25)) as simulator:
        options = COMPRESSED | {"gateway": simulator.api, "lake": str(lake), "contracts": [CONTRACT], "username": "me"}
        options |= {"suspended_s": 2.0, "silence_s": 30.0, "answer_s": 30.0, "roll_time": "", "backfill": False}
        config = md.Config(**(options | settings))
        async with md.Recorder(config, api_key="demo", clock=machine.clock, slept=machine.slept) as recorder:
            run = Running(simulator, recorder, machine)
            recorder.on_incident(lambda incident: run.told.append((incident.kind, incident.stream)))
            recorder.start()
            await run.captured(100)
            yield run
            await run.captured(100)
            recorder.stop()
            assert await asyncio.to_thread(recorder.wait) is not None


def gaps(session: md.Session, stream: str) -> list[tuple[int, int]]:
    return session.gaps(streams=[stream]).select("from_ns", "to_ns").collect().rows()


def jumps(session: md.Session, stream: str, seconds: float) -> list[tuple[int, int]]:
    """The stamps of neighbouring messages of a stream that are so far apart."""
    target = {"quotes": "GatewayQuote", "trades": "GatewayTrade", "depth": "GatewayDepth"}[stream]
    of_stream = session.messages().filter(pl.col("payload").str.contains(target, literal=True)).sort("seq")
    stamps = of_stream.select("recv_ns").collect()["recv_ns"].to_list()
    return [(one, two) for one, two in itertools.pairwise(stamps) if abs(two - one) >= seconds * S]


PATIENT = {"stall_min_s": 30.0, "stall_max_s": 30.0}


def test_what_broke_after_a_pause_that_this_machine_knows_nothing_of_is_missing_since_before_it(tmp_path: Path):
    async def paused() -> None:
        async with running(tmp_path, **PATIENT) as run:
            await run.strike("silence")
            await run.until(lambda: run.messages == sum(sum(log.sent.values()) for log in run.simulator.logs))
            run.machine.ahead_ns = HOUR_S * S
            await run.until(lambda: (IncidentKind.CLOCK_STEP, None) in run.told)
            await run.strike("reset")

    asyncio.run(paused())
    session = md.open_lake(tmp_path).session()
    for stream in STREAMS:
        (missing,) = jumps(session, stream, HOUR_S)
        assert gaps(session, stream) == [missing]


def test_a_sleep_is_a_gap_also_where_the_connection_outlives_it(tmp_path: Path):
    async def sleep() -> None:
        async with running(tmp_path, **PATIENT) as run:
            run.machine.to_sleep_ns = 20 * S
            for stream in STREAMS:
                await run.until(lambda stream=stream: (IncidentKind.GAP, stream) in run.told)
                await run.until(lambda stream=stream: run.told.count((IncidentKind.SUBSCRIBED, stream)) == 2)

    asyncio.run(sleep())
    session = md.open_lake(tmp_path).session()
    for stream in STREAMS:
        (missing,) = jumps(session, stream, 20)
        assert gaps(session, stream) == [missing]
    books = book_snapshots(session.depth().collect(), incidents=session.gaps(streams=["depth"]).collect())
    assert books["kind"][-1] == "ladder"  # it was told anew
    told = session.incidents().collect()
    assert set(told["kind"]) == {"connected", "subscribing", "subscribed", "slept", "gap"}
    assert set(told.filter(kind="gap")["detail"]) == {"slept"}
    ((from_ns, to_ns),) = told.filter(kind="slept").select("from_ns", "to_ns").rows()
    assert to_ns - from_ns == 20 * S


def test_after_a_sleep_that_no_connection_outlives_it_connects_anew_at_once(tmp_path: Path):
    async def sleep() -> None:
        async with running(tmp_path, **PATIENT) as run:
            run.machine.to_sleep_ns = HOUR_S * S
            await run.until(lambda: run.told.count((IncidentKind.CONNECTED, None)) == 2)

    asyncio.run(sleep())
    session = md.open_lake(tmp_path).session()
    assert set(session.messages().collect()["connection"]) == {1, 2}
    told = session.incidents().collect()
    assert "slept" in told.filter(kind="disconnected")["detail"].item()
    assert not set(told["kind"]) & {"clock_step", "stalled", "suspended"}
    for stream in STREAMS:
        (missing,) = jumps(session, stream, HOUR_S)
        assert missing[0] == gaps(session, stream)[0][0]
        assert any(from_ns <= missing[0] and missing[1] <= to_ns for from_ns, to_ns in gaps(session, stream))


@pytest.mark.parametrize("step_s", [1, -1, -HOUR_S])
def test_a_stall_in_which_the_clock_is_set_ends_and_costs_no_other_message(step_s: int, tmp_path: Path):
    async def stall() -> None:
        async with running(tmp_path) as run:
            await run.strike("freeze:trades+1")
            await run.until(lambda: (IncidentKind.STALLED, "trades") in run.told)
            run.machine.ahead_ns = step_s * S
            await run.until(lambda: (IncidentKind.CLOCK_STEP, None) in run.told)
            ends = 1 if step_s > 0 else 2  # one on each clock
            await run.until(lambda: run.told.count((IncidentKind.GAP, "trades")) == ends)

    asyncio.run(stall())
    session = md.open_lake(tmp_path).session()
    told = gaps(session, "trades")
    assert told
    assert all(from_ns <= to_ns < NO_END_NS for from_ns, to_ns in told)
    excluded = session.trades().join(session.trades(clean=True), on=("seq", "pos"), how="anti").collect()
    ((from_ns, to_ns),) = session.incidents().filter(kind="clock_step").select("from_ns", "to_ns").collect().rows()
    assert excluded["recv_ns"].is_between(from_ns, to_ns).all()  # none, where a time does not come twice


def test_a_machine_that_is_awake_does_not_sleep():
    assert abs(slept_ns() - slept_ns()) < S
