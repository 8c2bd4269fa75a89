"""Both ends of a market hub for tests: a server that does what a script says, and a listener that notes what it hears.

The server's WebSocket half is the `websockets` package's, so that nothing of ours is tested against itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from virtual_time import clock_ns
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.utils import accept_key

from mdcapture.gateway.hub import Hub, Subscription
from mdcapture.lake.schema import STREAMS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from websockets.http11 import Request, Response

    from mdcapture.gateway.hub import TokenSource
    from mdcapture.lake.schema import Incident

END = "\x1e"
S = 1_000_000_000
CONTRACT = "CON.F.US.MNQ.Z26"
QUOTES, TRADES, DEPTH = (Subscription(stream, CONTRACT) for stream in STREAMS)


def record(number: int, stream: str = "GatewayTrade") -> bytes:
    return b'{"type":1,"target":"%s","arguments":["CON.X",[{"price":1.5,"volume":%d}]]}' % (stream.encode(), number)


@contextlib.asynccontextmanager
async def raw_server(answer: Callable[[bytes], bytes], *, hang_up: bool = False) -> AsyncIterator[str]:
    """Serve raw bytes in answer to an HTTP request, and read no further; gives the server's address."""
    writers = []

    async def serve_raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(answer(await reader.readuntil(b"\r\n\r\n")))
        if hang_up:
            writer.close()

    server = await asyncio.start_server(serve_raw, "127.0.0.1", 0, limit=65536)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def upgrade(request: bytes) -> bytes:
    """Answer a request for a WebSocket."""
    key = next(line[19:] for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: "))
    head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return f"{head}Sec-WebSocket-Accept: {accept_key(key.decode())}\r\n\r\n".encode()


class Call:
    """An invocation that came in on a connection (the `number`-th), as a script sees it."""

    def __init__(self, hub: FakeHub, socket: ServerConnection, number: int, message: dict[str, Any]) -> None:
        self.hub, self.socket, self.number = hub, socket, number
        self.invocation_id: str = message["invocationId"]
        self.target: str = message["target"]
        (self.argument,) = message["arguments"]

    async def send(self, *records: bytes | dict[str, object]) -> None:
        texts = [part.decode() if isinstance(part, bytes) else json.dumps(part) for part in records]
        await self.socket.send("".join(text + END for text in texts))

    async def complete(self, error: str | None = None) -> None:
        completion: dict[str, object] = {"type": 3, "invocationId": self.invocation_id}
        await self.send(completion | ({"error": error} if error is not None else {}))

    async def ping_for(self, duration_s: float) -> None:
        for _ in range(int(duration_s / 10)):
            await asyncio.sleep(10)
            await self.send({"type": 6})


Script = Callable[[Call], Awaitable[None]]


def aside(work: Coroutine[Any, Any, None]) -> Awaitable[None]:
    """Let a script do its work while the hub goes on reading."""

    async def begin() -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda done: done.result())

    return begin()


async def accept(call: Call) -> None:
    """Complete every invocation."""
    await call.complete()


async def says_close(call: Call) -> None:
    """End the session."""
    await call.send({"type": 7, "error": "server going down", "allowReconnect": True})


class FakeHub:
    """Serves `script` for each invocation; `statuses` are HTTP answers to give first, one a connection."""

    def __init__(
        self,
        script: Script = accept,
        *,
        statuses: list[tuple[int, dict[str, str]]] | None = None,
        **options: Any,  # noqa: ANN401  # as websockets takes them
    ) -> None:
        self.script = script
        self.statuses = list(statuses or [])
        self.options = options
        self.paths: list[str] = []
        self.tried_s: list[float] = []
        self.invocations: list[tuple[int, str, str]] = []
        self.pings_s: list[float] = []
        self.closes: list[int | None] = []
        self.sockets: list[ServerConnection] = []
        self.handshake_answer = "{}"

    async def __aenter__(self) -> Self:
        options = {"ping_interval": None, "compression": None, "close_timeout": 1} | self.options
        self.server: Server = await serve(self._serve, "127.0.0.1", 0, process_request=self._request, **options)
        self.port = self.server.sockets[0].getsockname()[1]
        scheme = "wss" if "ssl" in self.options else "ws"
        self.url = f"{scheme}://127.0.0.1:{self.port}/hubs/market"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.close()
        await self.server.wait_closed()

    def _request(self, _socket: ServerConnection, request: Request) -> Response | None:
        self.paths.append(request.path)
        self.tried_s.append(asyncio.get_running_loop().time())
        if not self.statuses:
            return None
        status, headers = self.statuses.pop(0)
        response = _socket.respond(HTTPStatus(status), "no\n")
        response.headers.update(headers)
        return response

    async def _serve(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        number = len(self.sockets)
        try:
            assert json.loads(str(await socket.recv()).rstrip(END)) == {"protocol": "json", "version": 1}
            await socket.send(self.handshake_answer + END)
            async for frame in socket:
                for text in str(frame).split(END)[:-1]:
                    await self._take(socket, number, json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            self.closes.append(socket.close_code)

    async def _take(self, socket: ServerConnection, number: int, message: dict[str, Any]) -> None:
        if message["type"] == 6:
            self.pings_s.append(asyncio.get_running_loop().time())
            return
        call = Call(self, socket, number, message)
        self.invocations.append((number, call.target, call.argument))
        await self.script(call)


class Listener:
    """Notes what it is told; `until` stops the hub."""

    def __init__(self, until: Callable[[Listener], object] = lambda _listener: False) -> None:
        self.until = until
        self.log: list[tuple[str, object]] = []
        self.records: list[bytes] = []
        self.stamps: list[int] = []
        self.connections: list[int] = []
        self.incidents: list[Incident] = []
        self.hub: Hub

    def on_records(self, recv_ns: int, connection: int, records: list[bytes]) -> None:
        self.log += [("record", each) for each in records]
        self.records += records
        self.stamps += [recv_ns] * len(records)
        self.connections += [connection] * len(records)
        self.check()

    def on_incident(self, incident: Incident) -> None:
        assert incident.to_ns is None or incident.from_ns <= incident.to_ns
        self.log.append((incident.kind, incident.stream))
        self.incidents.append(incident)
        self.check()

    def of(self, kind: str) -> list[Incident]:
        return [incident for incident in self.incidents if incident.kind == kind]

    def check(self) -> None:
        if self.until(self):
            self.hub.stop()


class Tokens:
    """Gives numbered tokens: a new one only when the last was refused."""

    def __init__(self) -> None:
        self.number = 1
        self.refused: list[str | None] = []

    async def __call__(self, refused: str | None = None) -> str:
        self.refused.append(refused)
        if refused == f"token-{self.number}":
            self.number += 1
        return f"token-{self.number}"


async def capture(
    url: str,
    listener: Listener,
    *,
    wanted: Sequence[Subscription] = (TRADES,),
    token: TokenSource | None = None,
    **options: Any,  # noqa: ANN401  # as Hub takes them
) -> Hub:
    """Run a hub, without jitter, until the listener has heard enough."""
    hub = Hub(url, token or Tokens(), listener, clock=clock_ns, random=lambda: 0.0, **options)
    listener.hub = hub
    hub.subscribe(wanted)
    await hub.run()
    return hub


def seen(count: int) -> Callable[[Listener], bool]:
    return lambda listener: len(listener.records) >= count


def sends(*records: bytes) -> Script:
    """A script that completes a subscription and sends these, each time."""

    async def script(call: Call) -> None:
        await call.complete()
        await call.send(*records)

    return script
