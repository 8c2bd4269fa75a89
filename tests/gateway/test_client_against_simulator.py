"""Both halves of the house together: REST client and hub against the local gateway, byte for byte."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from fake_hub import Listener, seen

from mdcapture.gateway.connection import Timing
from mdcapture.gateway.contracts import resolve
from mdcapture.gateway.hub import Hub, Subscription
from mdcapture.gateway.rest import BarUnit, Credentials, RestClient
from mdcapture.gateway.retry import RetryPolicy
from mdcapture.lake.schema import STREAMS
from mdcapture.simulator.faults import parse_fault
from mdcapture.simulator.server import Simulator, SimulatorConfig

if TYPE_CHECKING:
    from pathlib import Path

ME = Credentials("someone", "demo")
QUICK = RetryPolicy(first_s=0.01, max_s=0.05, logout_first_s=0.01, logout_max_s=0.05)
SHORT = Timing(silence_s=0.5, completion_s=0.3)
LOGOUT = b'{"type":1,"target":"GatewayLogout","arguments":[]}'


async def listen(simulator: Simulator, root: str, listener: Listener) -> Listener:
    async with RestClient(simulator.api, ME) as rest:
        contract = await resolve(rest, root)
        hub = listener.hub = Hub(simulator.hub, rest.token, listener, policy=QUICK, timing=SHORT)
        hub.subscribe(Subscription(stream, contract.contract_id) for stream in STREAMS)
        await hub.run()
    return listener


@pytest.mark.parametrize("pack", [False, True], ids=["a frame each", "packed and split"])
def test_a_tape_arrives_byte_for_byte(shared: Path, *, pack: bool):
    tape = shared / "tapes" / "es_20231225.ndjson.zst"
    lines = pa.CompressedInputStream(pa.OSFile(str(tape)), "zstd").read().splitlines()
    records = [line.partition(b" ")[2] for line in lines]

    async def main() -> Listener:
        async with Simulator(SimulatorConfig(tape=str(tape), speed=math.inf, pack=pack)) as simulator:
            return await listen(simulator, "ES", Listener(seen(len(records))))

    listener = asyncio.run(main())
    assert listener.records == records
    assert listener.stamps == sorted(listener.stamps)


@pytest.mark.parametrize("fault", ["close", "close-forever", "reset", "logout", "revoke", "refuse+0.1", "silence+5"])
def test_after_a_fault_it_comes_back_and_knows_each_connections_records(fault: str):
    async def main() -> tuple[Listener, list[list[bytes]]]:
        config = SimulatorConfig(contracts=("MNQ",), rate=2_000, settle_s=0.01, keep_records=True)
        async with Simulator(config) as simulator, asyncio.timeout(20):
            listener = Listener(lambda it: it.connections.count(2) > 100)
            capture = asyncio.create_task(listen(simulator, "MNQ", listener))
            while len(listener.records) < 100:  # noqa: ASYNC110  # the listener is no part of the loop
                await asyncio.sleep(0.01)
            await simulator.strike(parse_fault(fault))
            if fault == "revoke":  # the connection lives on; the next one needs another login
                listener.hub.reconnect("a test")
            await capture
            return listener, [log.records for log in simulator.logs]

    listener, sent = asyncio.run(main())
    for number in (1, 2):
        received = [
            record
            for record, connection in zip(listener.records, listener.connections, strict=True)
            if connection == number and record != LOGOUT  # which the simulator does not count
        ]
        assert received
        assert received == sent[number - 1][: len(received)]
    assert len(listener.of("disconnected")) == 1
    assert len(listener.of("subscribed")) == 2 * len(STREAMS)
    assert len(listener.of("logged_out")) == (fault == "logout")


@pytest.mark.parametrize("fault", ["deny:trades", "ignore:trades"])
def test_a_stream_that_is_refused_for_a_while_comes_in_the_end_and_the_others_at_once(fault: str):
    async def main() -> Listener:
        config = SimulatorConfig(contracts=("MNQ",), settle_s=0.01, faults=(f"{fault}+0.4",))
        async with Simulator(config) as simulator, asyncio.timeout(20):
            return await listen(simulator, "MNQ", Listener(lambda it: len(it.of("subscribed")) == 3))

    listener = asyncio.run(main())
    assert [incident.stream for incident in listener.of("subscribed")] == ["quotes", "depth", "trades"]
    assert {incident.stream for incident in listener.of("subscribe_failed")} == {"trades"}
    assert listener.of("disconnected") == []


def test_bars_come_from_the_market_that_was_seen():
    async def main() -> None:
        config = SimulatorConfig(contracts=("MNQ",), rate=5_000, settle_s=0.01)
        async with Simulator(config) as simulator, asyncio.timeout(20):
            listener = await listen(simulator, "MNQ", Listener(seen(10_000)))
            async with RestClient(simulator.api, ME) as rest:
                contract = await resolve(rest, "MNQ")
                start_ns, end_ns = listener.stamps[0] - 2 * 10**9, listener.stamps[-1] + 2 * 10**9
                bars = await rest.bars(contract.contract_id, start_ns, end_ns, unit=BarUnit.SECOND, partial=True)
        assert bars
        assert bars == sorted(bars)
        for bar in bars:
            assert bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
            assert bar.volume > 0

    asyncio.run(main())
