"""One connection over real sockets: bytes in order, ends with their cause, secrets untold."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import ssl
import subprocess
import traceback
from typing import TYPE_CHECKING

import pytest
from fake_hub import (
    CONTRACT,
    DEPTH,
    QUOTES,
    TRADES,
    Call,
    FakeHub,
    Listener,
    S,
    Tokens,
    aside,
    capture,
    raw_server,
    record,
    says_close,
    seen,
    sends,
    upgrade,
)
from virtual_time import virtual_time

from mdcapture.errors import ProtocolError, UnreachableError, UsageError
from mdcapture.gateway.connection import Timing
from mdcapture.gateway.hub import Hub, Subscription
from mdcapture.gateway.retry import RetryPolicy
from mdcapture.lake.schema import IncidentKind
from mdcapture.wire.signalr import MAX_RECORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

SECRET = "eyJhbGciOi.J9+/secret=.s1gnature"  # noqa: S105  # the canary


# Records and their order.


@virtual_time
async def test_records_come_whole_and_in_order_however_they_are_cut():
    sent = [record(number) for number in range(2_000)]
    rng = random.Random(7)

    async def script(call: Call) -> None:
        await call.complete()
        text = b"".join(each + b"\x1e" for each in sent)
        while text:
            cut = rng.choice([1, 7, 80, 200, 5_000])
            await call.socket.send(text[:cut].decode() if rng.random() < 0.5 else text[:cut])
            text = text[cut:]

    listener = Listener(seen(len(sent)))
    async with FakeHub(script) as server:
        await capture(server.url, listener)
    assert listener.records == sent
    assert set(listener.connections) == {1}


@virtual_time
async def test_a_fragmented_message_is_put_together():
    async def script(call: Call) -> None:
        await call.complete()
        whole = (record(1) + b"\x1e" + record(2) + b"\x1e").decode()
        await call.socket.send(iter([whole[:10], whole[10:90], whole[90:]]))

    listener = Listener(seen(2))
    async with FakeHub(script) as server:
        await capture(server.url, listener)
    assert listener.records == [record(1), record(2)]


@virtual_time
async def test_compression_is_offered_when_asked_for():
    listener = Listener(seen(3))
    async with FakeHub(sends(record(1), record(2), record(3)), compression="deflate") as server:
        await capture(server.url, listener, compression=True)
        assert server.sockets[0].protocol.extensions
    assert listener.records == [record(1), record(2), record(3)]


@virtual_time
async def test_subscribing_is_told_before_and_subscribed_between_the_records_around_it():
    async def script(call: Call) -> None:
        completion = {"type": 3, "invocationId": call.invocation_id}
        await call.send(record(1), record(2), completion, record(3))  # all in one frame

    listener = Listener(seen(3))
    async with FakeHub(script) as server:
        await capture(server.url, listener)
    assert listener.log == [
        ("connected", None),
        ("subscribing", "trades"),
        ("record", record(1)),
        ("record", record(2)),
        ("subscribed", "trades"),
        ("record", record(3)),
    ]


@virtual_time
async def test_a_chunk_is_stamped_when_it_comes():
    async def script(call: Call) -> None:
        await call.complete()
        for number in range(3):
            await asyncio.sleep(1)
            await call.send(record(number))

    listener = Listener(seen(3))
    async with FakeHub(script) as server:
        await capture(server.url, listener)
    assert listener.stamps == [1 * S, 2 * S, 3 * S]


@virtual_time
async def test_each_stream_has_its_method():
    listener = Listener(lambda it: len(it.of("subscribed")) == 3)
    async with FakeHub() as server:
        await capture(server.url, listener, wanted=(QUOTES, TRADES, DEPTH))
        assert server.invocations == [
            (1, "SubscribeContractQuotes", CONTRACT),
            (1, "SubscribeContractTrades", CONTRACT),
            (1, "SubscribeContractMarketDepth", CONTRACT),
        ]


# Ends of connections, and the way back.


async def says_no_reconnect(call: Call) -> None:
    await call.send({"type": 7, "allowReconnect": False})


async def closes_the_websocket(call: Call) -> None:
    await call.socket.close(1001, "bye")


async def resets(call: Call) -> None:
    call.socket.transport.abort()


async def breaks_a_frame(call: Call) -> None:
    call.socket.transport.write(b"\xff\xff\xff")


async def sends_a_masked_frame(call: Call) -> None:
    call.socket.transport.write(b"\x81\x81\x00\x00\x00\x00x")


async def announces_a_huge_frame(call: Call) -> None:
    call.socket.transport.write(b"\x81\x7f" + (2**40).to_bytes(8, "big"))


ENDS = {
    says_close: "ended the session: server going down",
    says_no_reconnect: "ended the session: without a reason",
    closes_the_websocket: "closed the connection: 1001 (going away) bye",
    resets: "broke the connection (without a goodbye)",
    breaks_a_frame: "sent a broken WebSocket frame",
    sends_a_masked_frame: "sent a broken WebSocket frame (incorrect masking)",
    announces_a_huge_frame: "sent a broken WebSocket frame",
}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@virtual_time
async def test_after_any_end_it_comes_back_and_leaves_no_hole_between_the_times(end: Callable[[Call], Awaitable[None]]):
    async def script(call: Call) -> None:
        await call.complete()
        await call.send(record(call.number))
        if call.number == 1:
            await asyncio.sleep(20)
            await end(call)

    listener = Listener(seen(2))
    async with FakeHub(script) as server:
        await capture(server.url, listener, policy=RetryPolicy(first_s=2))
    assert listener.connections == [1, 2]
    (lost,) = listener.of("disconnected")
    (again,) = listener.of("reconnecting")
    _, connected = listener.of("connected")
    _, subscribed = listener.of("subscribed")
    assert ENDS[end] in lost.detail
    assert (lost.from_ns, lost.to_ns) == (listener.stamps[0], 20 * S)
    assert (again.from_ns, again.to_ns) == (20 * S, 22 * S)
    assert (connected.from_ns, connected.to_ns) == (20 * S, 22 * S)
    assert subscribed.from_ns == 22 * S


@pytest.mark.parametrize(("ping_s", "pings_s"), [(15, [15]), (7, [7, 14, 21, 28]), (100, [])])
@virtual_time
async def test_thirty_seconds_without_a_byte_are_death(ping_s: float, pings_s: list[float]):
    listener = Listener(lambda it: it.of("disconnected"))
    async with FakeHub(sends(record(1))) as server:  # then the server falls silent, its socket stays open
        await capture(server.url, listener, timing=Timing(ping_s=ping_s))
        assert server.pings_s == pings_s
    (lost,) = listener.of("disconnected")
    assert (lost.from_ns, lost.to_ns) == (0, 30 * S)
    assert "has been silent for 30 s: it is dead" in lost.detail


@virtual_time
async def test_what_came_whole_before_a_record_beyond_all_bounds_is_kept():
    endless = "x" * (MAX_RECORD_BYTES - 1000)

    async def script(call: Call) -> None:
        await call.complete()
        if call.number == 1:
            await call.socket.send(f"{record(1).decode()}\x1e{record(2).decode()}\x1e{endless}")
            await call.socket.send("x" * 2000)
            await asyncio.sleep(1)
            await call.socket.send("x")
        else:
            await call.send(record(3))

    listener = Listener(seen(3))
    async with FakeHub(script) as server:
        await capture(server.url, listener)
    assert listener.records == [record(1), record(2), record(3)]
    assert listener.connections == [1, 1, 2]
    (lost,) = listener.of("disconnected")
    assert "longer than" in lost.detail


@virtual_time
async def test_a_server_that_only_pings_lives_and_hears_from_us_every_fifteen_seconds():
    async def script(call: Call) -> None:
        await call.complete()
        await call.ping_for(100)
        await call.send(record(1))

    listener = Listener(seen(1))
    async with FakeHub(lambda call: aside(script(call))) as server:
        await capture(server.url, listener)
        assert server.pings_s == [15, 30, 45, 60, 75, 90]
    assert listener.stamps == [100 * S]
    assert listener.of("disconnected") == []


@virtual_time
async def test_a_websocket_ping_is_answered():
    async def script(call: Call) -> None:
        await call.complete()
        await (await call.socket.ping())
        await call.send(record(1))

    listener = Listener(seen(1))
    async with FakeHub(lambda call: aside(script(call))) as server:
        await capture(server.url, listener)


@virtual_time
async def test_a_server_that_does_not_read_is_given_up():
    listener = Listener(lambda it: it.of("disconnected"))
    wanted = [Subscription("trades", f"CON.{number}.{'X' * 100_000}") for number in range(120)]
    async with raw_server(lambda request: upgrade(request) + b"\x81\x03{}\x1e") as where:
        await capture(f"ws://{where}/", listener, wanted=wanted)
    (lost,) = listener.of("disconnected")
    assert "does not read what it is sent" in lost.detail
    assert lost.to_ns <= 1 * S


@virtual_time
async def test_a_port_that_nobody_serves_is_unreachable():
    async with FakeHub() as server:
        url = server.url
    with pytest.raises(UnreachableError, match=r"no connection to 127\.0\.0\.1"):
        await capture(url, Listener(), policy=RetryPolicy(attempts=0))


@virtual_time
async def test_a_server_that_never_answers_is_unreachable():
    async with raw_server(lambda _request: b"") as where:
        with pytest.raises(UnreachableError, match="did not answer within 5 s"):
            await capture(f"ws://{where}/", Listener(), policy=RetryPolicy(attempts=0), timing=Timing(connect_s=5))


@pytest.mark.parametrize(
    ("answer", "expected", "says"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ProtocolError, "404"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>until the end of the stream", ProtocolError, "200"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", ProtocolError, "302"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", ProtocolError, "is no WebSocket server"),
        (b"", UnreachableError, "broke the connection during the handshake"),
    ],
    ids=["404", "200", "302", "ssh", "hangs up"],
)
@virtual_time
async def test_what_is_no_hub_is_named_as_such(answer: bytes, expected: type[Exception], says: str):
    async with raw_server(lambda _request: answer, hang_up=True) as where:
        with pytest.raises(expected, match=says):
            await capture(f"ws://{where}/", Listener(), policy=RetryPolicy(attempts=0))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ('{"error":"requested protocol is not available"}', "refuses the hub protocol: requested protocol is not"),
        ("<html>", "no SignalR handshake"),
    ],
)
@virtual_time
async def test_a_server_that_does_not_speak_the_hub_protocol_is_named(answer: str, says: str):
    async with FakeHub() as server:
        server.handshake_answer = answer
        with pytest.raises(ProtocolError, match=says):
            await capture(server.url, Listener())


# Security.


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate that nobody has signed, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    what = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    who = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", *what, *who, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


@virtual_time
async def test_a_certificate_is_verified(certificate: tuple[Path, Path]):
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*certificate)
    async with FakeHub(sends(record(1)), ssl=serving) as server:
        with pytest.raises(UnreachableError, match="no trusted TLS connection"):
            await capture(server.url, Listener(), policy=RetryPolicy(attempts=0))
        listener = Listener(seen(1))
        await capture(server.url, listener, tls=ssl.create_default_context(cafile=str(certificate[0])))
        assert listener.records == [record(1)]


@pytest.mark.parametrize(
    "url",
    [
        "https://rtc.example.com/s1gnature",
        "ws://user:s1gnature@host/",
        "ws://host/?access_token=s1gnature",
        "ws://host/#s1gnature",
        "s1gnature",
        "ws://:s1gnature",
        "ws://host:s1gnature/",
        "",
    ],
)
def test_an_address_that_is_none_of_a_hub_is_refused_without_being_repeated(url: str):
    with pytest.raises(UsageError) as refusal:
        Hub(url, Tokens(), Listener())
    assert "s1gnature" not in "".join(traceback.format_exception(refusal.value))


@virtual_time
async def test_no_secret_is_ever_told(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)

    async def token(refused: str | None = None) -> str:  # noqa: ARG001
        return SECRET

    async def script(call: Call) -> None:
        echo = f"you said {call.hub.paths[0]} and {SECRET}"
        match call.number:
            case 1:
                await call.complete(echo)
                await call.send({"type": 7, "error": echo})
            case 2:
                await call.socket.close(1008, SECRET)
            case 3:
                await call.complete()
                call.hub.handshake_answer = f'"{SECRET}"'
                await resets(call)

    listener = Listener()
    errors = []
    async with FakeHub(script) as server:
        hub = Hub(server.url, token, listener, policy=RetryPolicy(attempts=4), random=lambda: 0.0)
        listener.hub = hub
        hub.subscribe([TRADES])
        try:
            await hub.run()
        except UnreachableError as error:
            errors.append("".join(traceback.format_exception(error)) + repr(error))
        server.statuses = [(404, {"X-Echo": SECRET})]
        try:
            await capture(server.url, listener, token=token)
        except ProtocolError as error:
            errors.append("".join(traceback.format_exception(error)) + repr(error))
        assert len(errors) == 2
        assert all("s1gnature" in path for path in server.paths)
    told = [repr(listener.incidents), repr(hub), repr(vars(hub)), *errors]
    assert listener.of(IncidentKind.SUBSCRIBE_FAILED)
    for text in told:
        assert "s1gnature" not in text
    assert {entry.name for entry in caplog.records if "s1gnature" in entry.getMessage()} == {"websockets.server"}
