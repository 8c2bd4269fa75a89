"""Clients that others wrote get along with the local gateway: Microsoft's own, in Node, and signalrcore."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from mdcapture.simulator.server import Simulator, SimulatorConfig

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache" / "node"
CLIENT = "@microsoft/signalr@9"
ES = "CON.F.US.EP.H24"
TARGETS = {"GatewayQuote": 4_579, "GatewayTrade": 2_882, "GatewayDepth": 39_801}
"""What the tape holds."""


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """The folder where Microsoft's client is installed, once for all runs."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node and npm are needed for the official SignalR client: install them to run this test")
    if not (CACHE / "node_modules" / "@microsoft" / "signalr").is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(CACHE), CLIENT]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            pytest.skip(f"npm can't install {CLIENT}: {done.stderr[-300:]}")
    return CACHE


async def node(node_modules: Path, negotiate: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - any option
    async with Simulator(SimulatorConfig(speed=math.inf, **options)) as simulator:
        process = await asyncio.create_subprocess_exec(
            *["node", str(HERE / "client.mjs"), str(node_modules), simulator.api, simulator.hub],
            *[ES, str(sum(TARGETS.values())), negotiate],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    heard: dict[str, Any] = json.loads(out)
    return heard


@pytest.mark.parametrize("negotiate", ["negotiate", "skip negotiation"])
def test_the_official_client_hears_the_whole_tape(node_modules: Path, shared: Path, negotiate: str):
    tape = str(shared / "tapes" / "es_20231225.ndjson.zst")
    heard = asyncio.run(node(node_modules, negotiate, tape=tape))
    assert {target: heard[target] for target in TARGETS} == TARGETS
    assert heard["reconnected"] == 0
    assert "error occurred" in heard["refused"]
    assert heard["first"][:2] == ["GatewayDepth", ES]
    assert heard["first"][2][0]["type"] == 6


def test_the_official_client_comes_back_after_a_close_and_misses_nothing(node_modules: Path, shared: Path):
    tape = str(shared / "tapes" / "es_20231225.ndjson.zst")
    heard = asyncio.run(node(node_modules, "skip", tape=tape, faults=("close@60", "close@1800")))
    assert {target: heard[target] for target in TARGETS} == TARGETS
    assert heard["reconnected"] == 2


def test_signalrcore_hears_the_whole_tape(shared: Path):
    signalrcore = pytest.importorskip(
        "signalrcore.hub_connection_builder", reason="signalrcore is an extra: pip install mdcapture[signalrcore]"
    )

    async def scene() -> None:
        tape = str(shared / "tapes" / "es_20231225.ndjson.zst")
        async with (
            Simulator(SimulatorConfig(tape=tape, speed=math.inf)) as simulator,
            aiohttp.ClientSession() as session,
        ):
            key = {"userName": "me", "apiKey": "demo"}
            async with session.post(simulator.api + "/api/Auth/loginKey", json=key) as answer:
                token = (await answer.json())["token"]
            url = f"{simulator.hub}?access_token={token}"
            heard = await asyncio.to_thread(hear, signalrcore.HubConnectionBuilder, url)
        assert heard == TARGETS

    asyncio.run(scene())


def hear(builder: Callable[[], Any], url: str) -> dict[str, int]:
    """Subscribe by signalrcore, and count to the end of the tape; it stops when the server says goodbye.

    (Its own `stop` may wait for 15 s, for a receiving thread that its closed socket does not wake.)
    """
    heard = dict.fromkeys(TARGETS, 0)
    opened, finished = threading.Event(), threading.Event()
    connection = builder().with_url(url, options={"skip_negotiation": True}).build()
    connection.on_open(opened.set)

    def count(target: str) -> None:
        heard[target] += 1
        if sum(heard.values()) == sum(TARGETS.values()):
            finished.set()

    for target in TARGETS:
        connection.on(target, lambda _, target=target: count(target))
    connection.start()
    assert opened.wait(10)
    for method in ("SubscribeContractQuotes", "SubscribeContractTrades", "SubscribeContractMarketDepth"):
        connection.send(method, [ES])
    assert finished.wait(60), heard
    return heard
