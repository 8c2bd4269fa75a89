"""Bars in place of the trades of a gap: which, when, in pieces, and what happens when they can't be had."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from fault_account import COMPRESSED
from tapes import CONTRACT

import mdcapture as md
from mdcapture.capture.backfill import Backfill, BarSource
from mdcapture.capture.market_hours import always, weekly
from mdcapture.errors import RefusedError, UnreachableError
from mdcapture.gateway.retry import RetryPolicy
from mdcapture.lake.schema import Bar, Incident, IncidentKind
from mdcapture.simulator.faults import parse_fault
from mdcapture.simulator.server import Simulator, SimulatorConfig
from mdcapture.wire.timestamps import parse_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from mdcapture.capture.market_hours import OpenSpans

S = 1_000_000_000
NOON = parse_ns("2026-11-18T18:00:00Z")
QUICK = RetryPolicy(first_s=0.001, max_s=0.001, attempts=3)


class Gateway:
    """Has a bar of one lot for every whole second; fails with these errors first."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[tuple[int, int]] = []

    async def __call__(self, contract_id: str, start_ns: int, end_ns: int) -> Sequence[Bar]:
        assert contract_id == CONTRACT
        self.asked.append((start_ns, end_ns))
        if self.errors:
            raise self.errors.pop(0)
        first = -(-start_ns // S)
        return [Bar(second * S, 1.0, 1.0, 1.0, 1.0, 1) for second in range(first, end_ns // S + 1)]


def gap(from_s: float, to_s: float, stream: str = "trades") -> Incident:
    return Incident(IncidentKind.GAP, stream, CONTRACT, NOON + int(from_s * S), NOON + int(to_s * S))


def filled(
    gateway: BarSource, *gaps: Incident, open_spans: OpenSpans = always, pieces: int | None = None
) -> list[Incident]:
    """What is told of these gaps, until so many pieces have been told, or nothing more is to be expected."""
    told: list[Incident] = []

    async def run() -> None:
        done = asyncio.Event()

        def tell(incident: Incident) -> None:
            told.append(incident)
            if len(told) == pieces:
                done.set()

        backfill = Backfill(gateway, tell, open_spans, clock=lambda: NOON + 10**18, delay_s=0, policy=QUICK)
        for each in gaps:
            backfill.want(each)
        running = asyncio.create_task(backfill.run())
        async with asyncio.timeout(5 if pieces else 0.1):
            await done.wait()
        running.cancel()

    try:
        asyncio.run(run())
    except TimeoutError:
        assert pieces is None
    return told


def seconds(told: Iterable[Incident]) -> list[int]:
    return [(bar.start_ns - NOON) // S for incident in told for bar in incident.bars]


def test_the_seconds_of_a_gap_are_fetched_with_those_at_its_ends():
    (told,) = filled(Gateway(), gap(2.5, 6.25), pieces=1)
    assert seconds([told]) == [2, 3, 4, 5, 6]
    assert (told.kind, told.stream, told.contract_id) == (IncidentKind.BACKFILLED, "trades", CONTRACT)
    assert told.detail == "5 bars of 1 s, 5 lots"


def test_a_long_gap_is_fetched_an_hour_at_a_time_and_no_second_twice():
    told = filled(Gateway(), gap(0, 3 * 3600 + 10), pieces=4)
    assert seconds(told) == list(range(3 * 3600 + 10))
    assert max(len(incident.bars) for incident in told) == 3600


def test_nothing_is_asked_for_while_the_market_is_closed():
    gateway = Gateway()
    closes, opens = 4 * 3600, 5 * 3600  # 16:00 and 17:00 in Chicago
    told = filled(gateway, gap(closes - 2, opens + 3), open_spans=weekly, pieces=2)
    assert seconds(told) == [closes - 2, closes - 1, opens, opens + 1, opens + 2]
    assert filled(gateway, gap(closes + 10, closes + 60), open_spans=weekly) == []
    assert len(gateway.asked) == 2


def test_gaps_of_other_streams_need_no_bars():
    gateway = Gateway()
    assert filled(gateway, gap(0, 5, "quotes"), gap(0, 5, "depth")) == []
    assert gateway.asked == []


def test_a_bar_of_more_lots_than_a_table_holds_is_left_out():
    async def bars(*_: object) -> Sequence[Bar]:
        return [Bar(NOON, 1.0, 1.0, 1.0, 1.0, 2**63), Bar(NOON + S, 1.0, 1.0, 1.0, 1.0, 5)]

    (told,) = filled(bars, gap(0, 2), pieces=1)
    assert [bar.volume for bar in told.bars] == [5]
    assert told.detail == "1 bars of 1 s, 5 lots"


def test_a_gateway_in_trouble_is_asked_again():
    gateway = Gateway(UnreachableError("maintenance"), UnreachableError("maintenance"))
    assert seconds(filled(gateway, gap(0, 2), pieces=1)) == [0, 1]


@pytest.mark.parametrize("errors", [[RefusedError("no such contract")], [UnreachableError("gone")] * 4])
def test_what_fails_for_good_is_logged_and_the_next_gap_has_its_turn(
    errors: list[Exception], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        told = filled(Gateway(*errors), gap(0, 2), gap(5, 7), pieces=1)
    assert seconds(told) == [5, 6]
    assert "can't be had" in caplog.text


def test_more_gaps_than_can_wait_are_logged(caplog: pytest.LogCaptureFixture):
    async def run() -> None:
        backfill = Backfill(Gateway(), lambda _: None, always, clock=lambda: 0, delay_s=0)
        for number in range(1500):
            backfill.want(gap(number, number + 1))

    asyncio.run(run())
    assert caplog.text.count("goes without") == 500


@pytest.mark.parametrize("backfill", [True, False])
def test_the_bars_of_a_freeze_are_those_of_the_trades_that_were_missed(tmp_path: Path, *, backfill: bool):
    async def run() -> list[bytes]:
        config = SimulatorConfig(contracts=("MNQ",), rate=300, settle_s=0.1)
        async with Simulator(config) as simulator, asyncio.timeout(30):
            options = {"gateway": simulator.api, "lake": str(tmp_path), "contracts": ["MNQ"], "username": "me"}
            settings = options | COMPRESSED | {"backfill": backfill, "depth": False, "backfill_delay_s": 1.5}
            async with md.Recorder(md.Config(**settings), api_key="demo") as recorder:
                seen = asyncio.Event()
                loop = asyncio.get_running_loop()

                @recorder.on_incident
                def _(incident: Incident) -> None:
                    if incident.kind == (IncidentKind.BACKFILLED if backfill else IncidentKind.GAP):
                        loop.call_soon_threadsafe(seen.set)

                running = asyncio.create_task(recorder.arun())
                await asyncio.sleep(1)
                await simulator.strike(parse_fault("freeze:trades+2.2"))
                await seen.wait()
                await asyncio.sleep(0.2)
                recorder.stop()
                await running

    asyncio.run(run())
    session = md.open_lake(tmp_path).session()
    bars = session.backfill().collect()
    if not backfill:
        assert not len(bars)
        return
    ((from_ns, to_ns),) = session.gaps(streams=["trades"]).select("from_ns", "to_ns").collect().rows()
    assert bars["start_ns"].is_between(from_ns - S, to_ns).all()
    trades = session.trades().collect()
    twice = trades.filter(((trades["exch_ns"] // S) * S).is_in(bars["start_ns"].to_list()))["volume"].sum()
    volume = session.quotes().select("volume").drop_nulls().collect()["volume"]
    missing = volume[-1] - volume[0] - trades["volume"].sum()
    assert bars["volume"].sum() - twice == pytest.approx(missing, abs=0.02 * missing) != 0
