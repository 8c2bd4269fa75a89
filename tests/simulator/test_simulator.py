"""The local gateway as its clients meet it: over real sockets on the loopback."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from mdcapture.errors import NotFoundError, UsageError
from mdcapture.simulator.faults import GARBAGE, parse_fault
from mdcapture.simulator.server import Simulator, SimulatorConfig, parse_speed
from mdcapture.wire.decode import decode
from mdcapture.wire.signalr import HANDSHAKE, PING, SEPARATOR, Close, Completion, Handshake, HubProtocol, Logout, Ping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from mdcapture.wire.signalr import Item

MNQ = "CON.F.US.MNQ.M25"
METHODS = {"quotes": "Quotes", "trades": "Trades", "depth": "MarketDepth"}
TARGETS = {"quotes": "GatewayQuote", "trades": "GatewayTrade", "depth": "GatewayDepth"}
START_NS = 1_750_000_000_000_000_000


def record(number: int, stream: str, contract_id: str = MNQ) -> bytes:
    entry = {"price": number, "volume": 1, "type": 1, "timestamp": "2025-06-15T15:06:40Z", "note": "é"}
    data = entry if stream == "quotes" else [entry]
    message = {"type": 1, "target": TARGETS[stream], "arguments": [contract_id, data]}
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


RECORDS = [record(number, ("quotes", "trades", "depth")[number % 3]) for number in range(3_000)]
"""A tape's records: one each 10 ms."""


@pytest.fixture
def tape(tmp_path: Path) -> str:
    path = tmp_path / "tape.ndjson"
    path.write_bytes(b"".join(b"%d %s\n" % (START_NS + i * 10_000_000, r) for i, r in enumerate(RECORDS)))
    return str(path)


class Client:
    """A client of the hub, by aiohttp and the project's sans-IO protocol."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        self.websocket = websocket
        self.protocol = HubProtocol()
        self.records: list[bytes] = []
        self.control: list[Item] = []
        self.frames = 0

    async def read(self) -> bool:
        """Read one frame; False at the connection's end."""
        message = await asyncio.wait_for(self.websocket.receive(), 10)
        if message.type is not aiohttp.WSMsgType.TEXT:
            return False
        self.frames += 1
        for item in self.protocol.receive(message.data.encode()):
            (self.records if isinstance(item, bytes) else self.control).append(item)  # type: ignore[arg-type]
        return True

    async def read_until(self, done: Callable[[], bool]) -> None:
        while not done():
            assert await self.read(), f"the connection ended after {len(self.records)} records"

    async def read_to_end(self) -> None:
        while await self.read():
            pass

    async def invoke(self, method: str, *arguments: str) -> Completion:
        invocation_id, data = self.protocol.invoke(method, *arguments)
        await self.websocket.send_str(data.decode())
        completed: list[Item] = []
        while not completed:
            assert await self.read()
            completed = [it for it in self.control if isinstance(it, Completion) and it.invocation_id == invocation_id]
        assert isinstance(completed[0], Completion)
        return completed[0]

    async def subscribe(self, *streams: str, contract_id: str = MNQ) -> None:
        for stream in streams or METHODS:
            assert (await self.invoke(f"SubscribeContract{METHODS[stream]}", contract_id)).error is None


class World:
    """A running gateway, and someone with a token."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.session = session
        self.token = ""

    async def post(self, path: str, **body: object) -> Any:  # noqa: ANN401 - JSON
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.post(self.simulator.api + path, json=body, headers=headers) as answer:
            return (await answer.json()) if answer.status == 200 else answer.status

    async def login(self) -> None:
        self.token = (await self.post("/api/Auth/loginKey", userName="me", apiKey="demo"))["token"]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        url = f"{self.simulator.hub}?access_token={self.token}"
        async with self.session.ws_connect(url, max_msg_size=0) as websocket:
            client = Client(websocket)
            await websocket.send_str(HANDSHAKE.decode())
            await client.read()
            assert client.control == [Handshake()]
            yield client


def run(scene: Callable[[World], Coroutine[Any, Any, None]], **options: Any) -> None:  # noqa: ANN401 - any option
    """Play a scene with a client who has logged in; the market opens 20 ms after the last subscription."""

    async def play() -> None:
        config = SimulatorConfig(**({"speed": math.inf, "settle_s": 0.02} | options))
        async with Simulator(config) as simulator, aiohttp.ClientSession() as session:
            world = World(simulator, session)
            await world.login()
            await scene(world)

    asyncio.run(play())


def of(stream: str, records: Sequence[bytes] = RECORDS) -> list[bytes]:
    return [record for record in records if TARGETS[stream].encode() in record]


# REST


def test_any_user_enters_with_the_key_and_nobody_with_another():
    async def scene(world: World) -> None:
        assert (await world.post("/api/Auth/loginKey", userName="any", apiKey="demo"))["errorCode"] == 0
        refused = await world.post("/api/Auth/loginKey", userName="any", apiKey="wrong")
        assert refused == {"token": None, "success": False, "errorCode": 3, "errorMessage": None}

    run(scene)


def test_a_token_is_needed_and_can_be_renewed():
    async def scene(world: World) -> None:
        world.token = (await world.post("/api/Auth/validate"))["newToken"]
        assert (await world.post("/api/Contract/search", searchText="MNQ"))["success"]
        world.token = "someone else's"  # noqa: S105 - of no account
        assert await world.post("/api/Contract/search", searchText="MNQ") == 401
        assert (await world.post("/api/Auth/validate"))["errorCode"] == 3

    run(scene)


def test_search_finds_the_active_contract_and_the_next():
    async def scene(world: World) -> None:
        found = (await world.post("/api/Contract/search", searchText="mnq", live=False))["contracts"]
        assert [contract["activeContract"] for contract in found] == [True, False]
        assert found[0]["tickSize"] == 0.25
        assert found[0]["tickValue"] == 0.5
        assert found[0]["symbolId"] == "F.US.MNQ"
        assert len((await world.post("/api/Contract/search", searchText="", live=False))["contracts"]) == 20
        by_id = await world.post("/api/Contract/searchById", contractId=found[1]["id"])
        assert by_id["contract"] == found[1]
        assert not (await world.post("/api/Contract/searchById", contractId="CON.F.US.X.Z99"))["success"]
        available = (await world.post("/api/Contract/available", live=False))["contracts"]
        assert all(contract["activeContract"] for contract in available)

    run(scene)


def test_a_tape_lists_its_own_contract(tape: str):
    async def scene(world: World) -> None:
        (contract,) = (await world.post("/api/Contract/available", live=False))["contracts"]
        assert (contract["id"], contract["name"], contract["tickSize"]) == (MNQ, "MNQM5", 0.25)

    run(scene, tape=tape)


def test_bars_are_those_of_the_trades(tape: str):
    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.subscribe("trades")
            await client.read_until(lambda: len(client.records) == 1_000)
        span = {"startTime": "2025-06-15T15:00:00Z", "endTime": "2025-06-15T16:00:00Z"}
        answer = await world.post(
            "/api/History/retrieveBars", contractId=MNQ, unit=2, unitNumber=1, includePartialBar=True, **span
        )
        assert answer["bars"] == [{"t": "2025-06-15T15:06:00+00:00", "o": 1, "h": 2998, "l": 1, "c": 2998, "v": 1_000}]

    run(scene, tape=tape)


def test_the_documented_limits_hold_when_they_are_switched_on():
    async def scene(world: World) -> None:
        bars = {"contractId": MNQ, "startTime": "2025-06-15", "endTime": "2025-06-16"}
        answers = [await world.post("/api/History/retrieveBars", **bars) for _ in range(51)]
        assert [answer for answer in answers if answer == 429] == answers[50:] == [429]
        answers = [await world.post("/api/Contract/available") for _ in range(201)]
        assert [answer for answer in answers if answer == 429] == answers[200:] == [429]

    run(scene, rate_limits=True)


def test_nonsense_is_a_bad_request():
    async def scene(world: World) -> None:
        assert await world.post("/api/Auth/loginKey", userName=1) == 400
        assert await world.post("/api/History/retrieveBars", contractId="?") == 400

    run(scene)


# The hub


@pytest.mark.parametrize("pack", [False, True])
def test_a_tape_goes_out_exactly_as_it_is(tape: str, pack: bool):  # noqa: FBT001 - a parameter of the test
    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.subscribe()
            before = client.frames
            await client.read_until(lambda: len(client.records) == len(RECORDS))
            assert client.records == RECORDS
            assert (client.frames - before == len(RECORDS)) is not pack
        (log,) = world.simulator.logs
        assert log.sent == {"quotes": 1_000, "trades": 1_000, "depth": 1_000}
        assert log.last_seq == len(RECORDS) - 1
        assert log.withheld == {}

    run(scene, tape=tape, pack=pack)


def test_the_real_tape_goes_out_exactly_as_it_is(shared: Path):
    from mdcapture.gateway.tape import read_tape  # noqa: PLC0415 - for this test alone

    source = str(shared / "tapes" / "es_20231225.ndjson.zst")
    expected = [record for _, record in read_tape(source)]

    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.subscribe(contract_id="CON.F.US.EP.H24")
            await client.read_until(lambda: len(client.records) == len(expected))
            assert client.records == expected

    run(scene, tape=source, pack=True)


def test_each_client_hears_what_it_has_subscribed(tape: str):
    async def scene(world: World) -> None:
        async with world.client() as first, world.client() as second:
            await first.subscribe("quotes", "trades")
            await first.invoke("UnsubscribeContractTrades", MNQ)
            await second.subscribe("depth")
            await asyncio.gather(
                first.read_until(lambda: len(first.records) == 1_000),
                second.read_until(lambda: len(second.records) == 1_000),
            )
            assert first.records == of("quotes")
            assert second.records == of("depth")

    run(scene, tape=tape)


def test_a_tape_keeps_its_own_pace(tape: str):
    async def scene(world: World) -> None:
        loop = asyncio.get_running_loop()
        async with world.client() as client:
            await client.subscribe()
            await client.read_until(lambda: bool(client.records))
            start_s = loop.time()
            await client.read_until(lambda: len(client.records) == 1_000)
            assert 0.09 < loop.time() - start_s < 3.0

    run(scene, tape=tape, speed=100.0)


def test_who_does_not_read_is_parted_with(tmp_path: Path):
    tape = tmp_path / "wide.ndjson"
    tape.write_bytes(b"".join(b"%d %s\n" % (START_NS + i, record(i, "quotes").ljust(10_000)) for i in range(3_000)))

    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.subscribe("quotes")
            await world.simulator.wait_until_played()
            assert world.simulator.logs[0].ended == "too slow"

    run(scene, tape=str(tape), speed=1.0, max_backlog_bytes=1_000_000)


def test_a_tape_that_breaks_off_is_said_to(tape: str):
    lines = Path(tape).read_bytes() * 4
    Path(tape).write_bytes(lines + b"oops\n")

    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.subscribe()
            end = asyncio.create_task(world.simulator.wait())
            await client.read_until(lambda: len(client.records) > 10_000)
            with pytest.raises(UsageError, match="line 12001"):
                await end

    with pytest.raises(UsageError, match="line 12001"):
        run(scene, tape=tape)


def test_what_can_not_be_subscribed_is_refused(tape: str):
    async def scene(world: World) -> None:
        async with world.client() as client:
            assert "error occurred" in str((await client.invoke("SubscribeContractQuotes", "CON.F.US.X.Z99")).error)
            assert "error occurred" in str((await client.invoke("SubscribeContractQuotes")).error)
            assert "Unknown hub method" in str((await client.invoke("Dance", MNQ)).error)
            assert (await client.invoke("subscribecontractquotes", MNQ)).error is None

    run(scene, tape=tape)


def test_strangers_are_turned_away(tape: str):
    async def scene(world: World) -> None:
        world.token = "stolen"  # noqa: S105 - of no account
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            async with world.client():
                pass
        assert refusal.value.status == 401
        async with world.session.post(world.simulator.hub.replace("ws", "http") + "/negotiate") as answer:
            assert answer.status == 401

    run(scene, tape=tape)


@pytest.mark.parametrize(
    "greeting", [b"hello", b'{"protocol":"messagepack","version":1}', b'{"protocol":"json","version":9}']
)
def test_a_wrong_handshake_is_answered_with_an_error(tape: str, greeting: bytes):
    async def scene(world: World) -> None:
        async with world.session.ws_connect(f"{world.simulator.hub}?access_token={world.token}") as websocket:
            await websocket.send_bytes(greeting + SEPARATOR)
            assert "error" in json.loads((await websocket.receive_str()).rstrip("\x1e"))
            assert (await websocket.receive()).type is aiohttp.WSMsgType.CLOSE

    run(scene, tape=tape)


def test_the_server_pings_and_gives_up_who_is_silent():
    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.read_to_end()
            *pings, close = client.control[1:]
            assert len(pings) >= 3
            assert set(map(type, pings)) == {Ping}
            assert isinstance(close, Close)
            assert close.allow_reconnect

    run(scene, ping_s=0.02, client_timeout_s=0.2)


def test_a_client_that_pings_is_kept_and_its_goodbye_answered():
    async def scene(world: World) -> None:
        async with world.client() as client:
            for _ in range(12):
                await client.websocket.send_bytes(PING)
                await client.read()
            await client.websocket.send_bytes(b'{"type":7}\x1e')
            await client.read_to_end()
            assert isinstance(client.control[-1], Close)

    run(scene, ping_s=0.05, client_timeout_s=0.4)


def test_a_client_that_talks_nonsense_is_closed():
    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.websocket.send_bytes(b"nonsense\x1e")
            await client.read_to_end()
            assert "Invalid message" in str(client.control[-1])

    run(scene)


def test_the_synthetic_market_welcomes_everyone_with_a_snapshot():
    async def scene(world: World) -> None:
        found = (await world.post("/api/Contract/search", searchText="MNQ", live=False))["contracts"]
        contract_id = found[0]["id"]
        async with world.client() as first, world.client() as late:
            for client in (first, late):
                await client.subscribe("depth", "quotes", contract_id=contract_id)
                await client.read_until(lambda: len(of("depth", client.records)) > 2)  # noqa: B023 - called at once
                await client.read_until(lambda: len(of("quotes", client.records)) > 0)  # noqa: B023
                depth = [json.loads(record)["arguments"][1] for record in of("depth", client.records)[:3]]
                assert [entry["type"] for entry in depth[0]] == [6]
                assert len(depth[1]) >= 600
                assert [entry["type"] for entry in depth[2]] == [10, 3, 9, 4]
                assert len(json.loads(of("quotes", client.records)[0])["arguments"][1]) == 13
                assert decode(client.records).rejects == []

    run(scene, speed=10.0, contracts=("MNQ",), rate=500.0)


def test_the_market_goes_on_while_nobody_listens():
    async def scene(world: World) -> None:
        found = (await world.post("/api/Contract/available", live=False))["contracts"]
        async with world.client() as client:
            await client.subscribe("trades", contract_id=found[0]["id"])
            await client.read_until(lambda: len(client.records) > 0)
        played = world.simulator.played
        async with asyncio.timeout(10):
            while world.simulator.played < played + 1_000:
                await world.post("/api/Contract/available")

    run(scene, speed=20.0, contracts=("MNQ",))


# Faults


def test_close_says_whether_to_come_back_and_full_speed_waits_for_that(tape: str):
    async def scene(world: World) -> None:
        for allow_reconnect in (True, False):
            async with world.client() as client:
                await client.subscribe()
                await client.read_to_end()
                assert client.control[-1] == Close("Connection closed with an error.", allow_reconnect)
        first, second = world.simulator.logs
        # 10 s of a tape with a record each 10 ms; the record of that very moment comes after.
        assert first.records == RECORDS[:1_000]
        assert second.records == RECORDS[1_000:2_000]

    run(scene, tape=tape, keep_records=True, faults=("close@10", "close-forever@20"))


def test_reset_breaks_the_connection_at_its_place(tape: str):
    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.subscribe()
            await client.read_to_end()
            assert client.websocket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
            assert client.records == RECORDS[: len(client.records)]
        (log,) = world.simulator.logs
        assert (log.last_seq, log.ended) == (999, "reset")

    run(scene, tape=tape, faults=("reset@10",))


def test_a_frozen_stream_is_withheld_for_its_time_and_no_other(tape: str):
    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.subscribe()
            expected = [r for i, r in enumerate(RECORDS) if not (1_000 <= i < 1_500 and r in of("quotes"))]
            await client.read_until(lambda: len(client.records) == len(expected))
            assert client.records == expected
        (log,) = world.simulator.logs
        assert log.withheld == {"quotes": len(RECORDS) - len(expected)}

    run(scene, tape=tape, faults=("freeze:quotes@10+5",))


def test_a_freeze_without_an_end_thaws_when_the_stream_is_subscribed_again(tape: str):
    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.subscribe("depth", "quotes")
            await client.read_until(lambda: world.simulator.logs[0].withheld["quotes"] > 20)
            await client.subscribe("quotes")
            await client.read_until(lambda: RECORDS[-1] in client.records)
        (log,) = world.simulator.logs
        assert log.withheld == {"quotes": 1_000 - log.sent["quotes"]}
        assert log.sent["depth"] == 1_000
        assert client.records.count(of("quotes")[-1]) == 1

    run(scene, tape=tape, speed=20.0, faults=("freeze:quotes@3",))


def test_silence_is_total_and_data_of_its_time_is_lost(tape: str):
    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.subscribe()
            await client.read_until(lambda: bool(client.records))
            await world.simulator.strike(parse_fault("silence"))
            heard = world.simulator.logs[0].sent.total()
            await client.read_until(lambda: len(client.records) == heard)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.read(), 0.2)
        assert world.simulator.logs[0].withheld.total() > 100

    run(scene, tape=tape, speed=20.0, ping_s=0.02)


def test_full_speed_waits_while_everyone_is_silenced(tape: str):
    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.subscribe()
            await client.read_until(lambda: len(client.records) == len(RECORDS))
            assert client.records == RECORDS

    run(scene, tape=tape, faults=("silence@5+0.05",))


def test_logout_ends_the_connection(tape: str):
    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.subscribe()
            await client.read_to_end()
            assert list(map(type, client.control[-2:])) == [Logout, Close]

    run(scene, tape=tape, faults=("logout@10",))


@pytest.mark.parametrize(("fault", "renewable"), [("expire", True), ("revoke", False)])
def test_an_ended_token_opens_nothing_until_it_is_replaced(fault: str, renewable: bool):  # noqa: FBT001
    async def scene(world: World) -> None:
        await world.simulator.strike(parse_fault(fault))
        assert await world.post("/api/Contract/available") == 401
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with world.client():
                pass
        renewed = await world.post("/api/Auth/validate")
        assert renewed["success"] is renewable
        if renewable:
            world.token = renewed["newToken"]
        else:
            await world.login()
        async with world.client():
            pass

    run(scene)


def test_tokens_die_of_age():
    async def scene(world: World) -> None:
        assert await world.post("/api/Contract/available") == 401
        assert not (await world.post("/api/Auth/validate"))["success"]

    run(scene, token_life_s=0.0)


def test_garbage_comes_among_the_data_and_is_all_accounted_for(tape: str):
    async def scene(world: World) -> None:
        url = f"{world.simulator.hub}?access_token={world.token}"
        reader, writer = await open_raw(url)
        protocol, rest = HubProtocol(), b""
        records: list[bytes] = []
        writer.write(
            masked(HANDSHAKE)
            + b"".join(masked(protocol.invoke(f"SubscribeContract{m}", MNQ)[1]) for m in METHODS.values())
        )
        while len(records) < len(RECORDS) + len(GARBAGE):
            payloads, rest = unframe(rest + await reader.read(1 << 20))
            records += [item for payload in payloads for item in protocol.receive(payload) if isinstance(item, bytes)]
        writer.close()
        await writer.wait_closed()
        assert records == [*RECORDS[:1_000], *GARBAGE, *RECORDS[1_000:]]
        assert world.simulator.logs[0].sent["everyone"] == len(GARBAGE)
        assert len({(reject.message, reject.reason) for reject in decode(records).rejects}) >= len(GARBAGE) - 2

    run(scene, tape=tape, faults=("garbage@10",))


async def open_raw(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket without a library: those refuse bad UTF-8."""
    host, _, path = url.removeprefix("ws://").partition("/")
    name, port = host.split(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    head = f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write(f"{head}Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def masked(payload: bytes) -> bytes:
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def unframe(data: bytes) -> tuple[list[bytes], bytes]:
    payloads = []
    while len(data) >= 10:
        width = {126: 2, 127: 8}.get(data[1], 0)
        size = int.from_bytes(data[2 : 2 + width]) if width else data[1]
        if len(data) < 2 + width + size:
            break
        payloads.append(data[2 + width : 2 + width + size])
        data = data[2 + width + size :]
    while 2 <= len(data) < 10 and len(data) >= 2 + data[1]:
        payloads.append(data[2 : 2 + data[1]])
        data = data[2 + data[1] :]
    return payloads, data


def test_a_refusing_server_takes_no_connection_for_a_while(tape: str):
    async def scene(world: World) -> None:
        async with world.client() as client:
            await client.subscribe()
            await client.read_to_end()
        with pytest.raises(aiohttp.ClientConnectorError):
            await world.post("/api/Auth/validate")
        while True:
            try:
                async with world.client() as client:
                    await client.subscribe()
                    await client.read_until(lambda: RECORDS[-1] in client.records)
                    return
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.02)

    run(scene, tape=tape, faults=("refuse@10+0.5", "refuse@10+0.1"))


@pytest.mark.parametrize(("fault", "status"), [("http", 503), ("http:500+9", 500), ("http:429", 429)])
def test_rest_answers_with_the_status_of_the_fault(fault: str, status: int):
    async def scene(world: World) -> None:
        await world.simulator.strike(parse_fault(fault))
        assert await world.post("/api/Contract/available") == status

    run(scene)


def test_subscribing_can_be_denied_or_ignored(tape: str):
    async def scene(world: World) -> None:
        async with world.client() as client:
            assert (await client.invoke("SubscribeContractTrades", MNQ)).error is not None
            assert (await client.invoke("SubscribeContractQuotes", MNQ)).error is None
            await world.simulator.strike(parse_fault("ignore:depth"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.invoke("SubscribeContractMarketDepth", MNQ), 0.1)
            await client.read_until(lambda: len(client.records) == 1_000)
            assert client.records == of("quotes")

    run(scene, tape=tape, faults=("deny:trades+60",))


def test_random_faults_leave_an_exact_account(tape: str):
    async def scene(world: World) -> None:
        clients: list[Client] = []
        while world.simulator.played < len(RECORDS):
            with suppress(aiohttp.ClientError, AssertionError, TimeoutError):
                login = await world.post("/api/Auth/loginKey", userName="me", apiKey="demo")
                world.token = login["token"] if isinstance(login, dict) else world.token
                async with world.client() as client, asyncio.timeout(0.3):
                    clients.append(client)
                    for method in METHODS.values():
                        await client.invoke(f"SubscribeContract{method}", MNQ)
                    await client.read_to_end()
        heard = [record for client in clients for record in client.records]
        sent = [record for log in world.simulator.logs for record in log.records]
        assert len(heard) > 100
        assert Counter(heard) <= Counter(sent)
        assert {record for log in world.simulator.logs for record in log.sent} <= {*METHODS, "everyone"}

    run(scene, tape=tape, keep_records=True, fault_rate=20.0, seed=4)


# The whole program


SERVE = "import sys; from mdcapture.simulator.server import *; serve(SimulatorConfig(tape=sys.argv[1]))"


@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_where_it_is_and_ends_cleanly_on_a_signal(tape: str, interruption: signal.Signals):
    command = [sys.executable, "-W", "error", "-c", SERVE, tape]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["api"].startswith("http://127.0.0.1:")
        assert ready["hub"] == ready["api"].replace("http", "ws") + "/hubs/market"
        process.send_signal(interruption)
        assert process.communicate(timeout=10) == ("", "")
        assert process.returncode == 0


def test_once_ends_when_the_tape_is_played_and_the_clients_have_gone(tape: str):
    async def scene(world: World) -> None:
        end = asyncio.create_task(world.simulator.wait())
        async with world.client() as client:
            await client.subscribe()
            await client.read_until(lambda: len(client.records) == len(RECORDS))
            assert not end.done()
        await asyncio.wait_for(end, 5)

    run(scene, tape=tape, once=True)


def test_wrong_options_are_refused_before_anything_starts(tmp_path: Path):
    (tmp_path / "no.tape").write_text("hello\n")
    for options, message in [
        ({"tape": str(tmp_path / "no.tape")}, "line 1: no line of a tape"),
        ({"tape": "/nowhere"}, "no file"),
        ({"contracts": ("XYZ",)}, "no contract 'XYZ'"),
        ({"rate": 0.0}, "must be positive"),
        ({"faults": ("explode",)}, "no fault: 'explode'"),
    ]:
        with pytest.raises(UsageError, match=message):
            Simulator(SimulatorConfig(**options))  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        Simulator(SimulatorConfig(contracts=("XYZ",)))


def test_a_port_that_is_taken_is_said_to_be():
    async def scene(world: World) -> None:
        port = int(world.simulator.api.rpartition(":")[2])
        with pytest.raises(UsageError, match="can't listen"):
            async with Simulator(SimulatorConfig(port=port)):
                pass

    run(scene)


def test_speeds_are_numbers_or_max():
    assert parse_speed("10") == 10
    assert parse_speed("max") == math.inf
    for text in ("0", "-1", "fast", "nan"):
        with pytest.raises(UsageError, match="no speed"):
            parse_speed(text)
