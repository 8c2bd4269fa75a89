"""The local gateway's market hub: SignalR's JSON protocol over a WebSocket, as the server speaks it.

Data frames are built here and written to the transport in one piece a batch: a hundred times fewer system calls than a
frame at a time. Everything that is sent goes through `Connection.write`, so that the order on the wire is the order of
calls.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import struct
from collections import Counter
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import WSMsgType, web

from mdcapture.simulator.feed import EVERYONE
from mdcapture.simulator.rest_server import Accounts, bearer
from mdcapture.wire.signalr import SEPARATOR, MessageType

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from aiohttp.abc import AbstractStreamWriter

    from mdcapture.simulator.feed import Message

__all__ = ["Connection", "ConnectionLog", "HubOptions", "HubServer", "chop", "text_frame"]

_METHODS: Final = {
    "subscribecontractquotes": ("subscribe", "quotes"),
    "subscribecontracttrades": ("subscribe", "trades"),
    "subscribecontractmarketdepth": ("subscribe", "depth"),
    "unsubscribecontractquotes": ("unsubscribe", "quotes"),
    "unsubscribecontracttrades": ("unsubscribe", "trades"),
    "unsubscribecontractmarketdepth": ("unsubscribe", "depth"),
}
_PROTOCOL_VERSION: Final = 1
_GOODBYE_TIMEOUT_S: Final = 2.0
_CHOP_BYTES: Final = 2_048
_NO_LINGER: Final = struct.pack("ii", 1, 0)


@dataclass
class ConnectionLog:
    """An exact account of one connection: what tests compare a client's account with.

    `sent` and `withheld` (by a fault, though subscribed) count data records by stream, `everyone` being those of none;
    `last_seq` is the place of the last record sent in the whole of what was played; `records` holds what was sent, when
    the hub was told to keep it; `ended` says why the connection ended.
    """

    number: int
    sent: Counter[str] = field(default_factory=Counter)
    withheld: Counter[str] = field(default_factory=Counter)
    last_seq: int = -1
    records: list[bytes] = field(default_factory=list)
    ended: str | None = None


def text_frame(payload: bytes) -> bytes:
    """One unmasked, final WebSocket text frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:  # noqa: PLR2004 - the RFC's figures
        return struct.pack("!BB", 0x81, size) + payload
    if size < 65_536:  # noqa: PLR2004
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload


def chop(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """Cut a stream of records into pieces at random, wherever a text frame may end: never within a character."""
    start = 0
    while start < len(data):
        end = start + rng.randint(1, _CHOP_BYTES)
        while end < len(data) and data[end] & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8's continuation bytes
            end += 1
        yield data[start:end]
        start = end


class _Invocation(msgspec.Struct, rename="camel"):
    type: int = 0
    target: str = ""
    invocation_id: str | None = None
    arguments: list[Any] = []


class _HandshakeRequest(msgspec.Struct):
    protocol: str
    version: int


_decode_invocation = msgspec.json.Decoder(_Invocation).decode
_decode_handshake = msgspec.json.Decoder(_HandshakeRequest).decode


class Connection:
    """One client.

    `subscriptions` are (stream, contract id); `settled` says that some stand and none was added of late; `stale` are
    those that a fault has stopped until they are subscribed again; while `mute` nothing leaves at all.
    """

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        writer: AbstractStreamWriter,
        transport: asyncio.Transport,
        log: ConnectionLog,
    ) -> None:
        self.log = log
        self.subscriptions: set[tuple[str, str]] = set()
        self.settled = False
        self.stale: set[tuple[str, str]] = set()
        self.mute = False
        self.pack: random.Random | None = None
        self.keep_records = False
        self._settling: asyncio.TimerHandle | None = None
        self._websocket = websocket
        self._writer = writer
        self._transport = transport

    @property
    def listens(self) -> bool:
        """Whether its subscriptions have settled, and no fault keeps it from hearing."""
        return self.settled and not self.mute and not self.log.ended and not self._transport.is_closing()

    @property
    def backlog_bytes(self) -> int:
        """What waits to be taken by the kernel, because the client does not read."""
        return self._transport.get_write_buffer_size()

    def offer(self, first_seq: int, messages: Iterable[Message], frozen_ns: Mapping[str, int]) -> None:
        """Send those data messages that this client has subscribed to and no fault withholds.

        Args:
            first_seq: The place of the first message in the whole of what is played.
            messages: Data messages in order.
            frozen_ns: The market's time until which a stream is frozen.
        """
        if self.log.ended or self._transport.is_closing():
            return
        log = self.log
        records = []
        for seq, (time_ns, contract_id, stream, record) in enumerate(messages, first_seq):
            address = stream, contract_id
            if stream != EVERYONE and address not in self.subscriptions:
                continue
            if self.mute or address in self.stale or time_ns < frozen_ns.get(stream, time_ns):
                log.withheld[stream] += 1
                continue
            log.sent[stream] += 1
            log.last_seq = max(log.last_seq, seq)
            records.append(record)
        if self.keep_records:
            log.records += records
        self.write(records)

    def write(self, records: Sequence[bytes]) -> None:
        """Send records, each in a frame of its own unless they are to be packed."""
        if self.mute or self.log.ended or self._transport.is_closing():
            return
        ended = [record + SEPARATOR for record in records]
        payloads = ended if self.pack is None else chop(b"".join(ended), self.pack)
        self._transport.write(b"".join(map(text_frame, payloads)))

    def write_message(self, **fields: object) -> None:
        """Send one message of the protocol; fields that are None are left out."""
        self.write([msgspec.json.encode({name: value for name, value in fields.items() if value is not None})])

    def settle_after(self, settle_s: float, settled: Callable[[], None]) -> None:
        """Count as settled when no further subscription comes for some time."""

        def settle() -> None:
            self.settled = True
            settled()

        if self._settling is not None:
            self._settling.cancel()
        self.settled = False
        self._settling = asyncio.get_running_loop().call_later(settle_s, settle)

    async def drain(self) -> None:
        """Wait until the client has read enough for more to be sent."""
        if not self.mute:
            with suppress(ConnectionError):
                await self._writer.drain()

    async def pong(self, payload: bytes) -> None:
        """Answer a WebSocket ping."""
        if not self.mute:
            await self._websocket.pong(payload)

    def say_goodbye(self, reason: str | None, *, allow_reconnect: bool) -> None:
        """Send SignalR's close; no data leaves after it."""
        self.write_message(type=MessageType.CLOSE.value, error=reason, allowReconnect=allow_reconnect)
        self.log.ended = self.log.ended or reason or "closed"

    async def hang_up(self) -> None:
        """Close the WebSocket."""
        await self._websocket.close()

    def reset(self, reason: str = "reset") -> None:
        """Break the connection with a TCP reset; what the kernel has not sent is lost."""
        self.log.ended = self.log.ended or reason
        if not self._transport.is_closing():
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._transport.abort()


class HubOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the hub behaves.

    `pack` is the seed by which records are packed into frames and split across them at random, None for a frame each.
    `keep_records` keeps all that is sent in the log. `ping_s` is how often the server pings, `client_timeout_s` after
    how long a silence it gives up a client, `settle_s` how long after its last subscription a client counts as settled.
    """

    pack: int | None
    keep_records: bool
    ping_s: float
    client_timeout_s: float
    settle_s: float


class HubServer:
    """All connections to the market hub.

    Args:
        options: How it behaves.
        accounts: Who may enter.
        known: Whether a contract can be subscribed.
        snapshot: What a new subscriber of a stream of a contract is sent first.
        subscribing: The fault that subscribing to a stream meets: `deny`, `ignore` or None.
    """

    def __init__(
        self,
        options: HubOptions,
        accounts: Accounts,
        *,
        known: Callable[[str], bool],
        snapshot: Callable[[str, str], list[Message]],
        subscribing: Callable[[str], str | None],
    ) -> None:
        self._options = options
        self._accounts = accounts
        self._known = known
        self._snapshot = snapshot
        self._subscribing = subscribing
        self.connections: list[Connection] = []
        self.logs: list[ConnectionLog] = []
        self.frozen_ns: dict[str, int] = {}
        self.changed = asyncio.Event()
        """Set whenever a client has settled, or gone."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put the hub into an application."""
        router.add_post("/hubs/market/negotiate", self._negotiate)
        router.add_get("/hubs/market", self._serve)

    def publish(self, first_seq: int, messages: Sequence[Message]) -> None:
        """Send data to everyone who has subscribed to it."""
        for connection in self.connections:
            connection.offer(first_seq, messages, self.frozen_ns)

    def welcome(self) -> None:
        """Send their snapshots to those who subscribed before there was anything to show."""
        for connection in self.connections:
            for stream, contract_id in sorted(connection.subscriptions):
                connection.offer(-1, self._snapshot(stream, contract_id), self.frozen_ns)

    async def ping(self) -> None:
        """Ping everyone, for ever."""
        while True:
            await asyncio.sleep(self._options.ping_s)
            for connection in self.connections:
                connection.write_message(type=MessageType.PING.value)

    def say_goodbye(self, reason: str | None = None, *, allow_reconnect: bool) -> None:
        """Send everyone SignalR's close; no data leaves after it."""
        for connection in self.connections:
            connection.say_goodbye(reason, allow_reconnect=allow_reconnect)

    async def hang_up(self) -> None:
        """Close every WebSocket."""
        await asyncio.gather(*[connection.hang_up() for connection in self.connections])

    def reset(self) -> None:
        """Break every connection."""
        for connection in self.connections:
            connection.reset()

    def stop_streams(self, streams: Collection[str]) -> None:
        """Withhold streams from everyone until they are subscribed again."""
        for connection in self.connections:
            connection.stale |= {address for address in connection.subscriptions if address[0] in streams}

    def silence(self) -> list[Connection]:
        """From now on send nothing whatever on the connections that stand."""
        for connection in self.connections:
            connection.mute = True
        return list(self.connections)

    async def end_silence(self, silenced: Iterable[Connection], duration_s: float) -> None:
        """Speak again after some time."""
        await asyncio.sleep(duration_s)
        for connection in silenced:
            connection.mute = False
        self.changed.set()

    def log_out(self) -> None:
        """Log everyone out, as another login, an expired token or maintenance does."""
        for connection in self.connections:
            connection.write_message(type=MessageType.INVOCATION.value, target="GatewayLogout", arguments=[])
        self.say_goodbye(allow_reconnect=False)

    async def _negotiate(self, request: web.Request) -> web.Response:
        if not self._accounts.accepts(bearer(request)):
            return web.Response(status=401)
        token = secrets.token_urlsafe(16)
        transport = {"transport": "WebSockets", "transferFormats": ["Text", "Binary"]}
        return web.json_response(
            {"negotiateVersion": 1, "connectionId": token, "connectionToken": token, "availableTransports": [transport]}
        )

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        if not (self._accounts.accepts(bearer(request)) and isinstance(transport, asyncio.Transport)):
            return web.Response(status=401)
        websocket = web.WebSocketResponse(
            timeout=_GOODBYE_TIMEOUT_S, receive_timeout=self._options.client_timeout_s, autoping=False, compress=False
        )
        writer = await websocket.prepare(request)
        connection = Connection(websocket, writer, transport, ConnectionLog(len(self.logs)))
        self.logs.append(connection.log)
        try:
            await self._converse(connection, websocket)
        except TimeoutError:
            connection.say_goodbye("Server timeout elapsed without a message from the client.", allow_reconnect=True)
            await connection.hang_up()
        finally:
            if connection in self.connections:
                self.connections.remove(connection)
            connection.log.ended = connection.log.ended or "client"
            self.changed.set()
        return websocket

    async def _converse(self, connection: Connection, websocket: web.WebSocketResponse) -> None:
        async with aclosing(_records(connection, websocket)) as records:
            refusal = _refusal(await anext(records, b""))
            connection.write([msgspec.json.encode({"error": refusal} if refusal else {})])
            if refusal:
                return
            if self._options.pack is not None:
                seed = f"pack {self._options.pack} {connection.log.number}"
                connection.pack = random.Random(seed)  # noqa: S311 - seeded noise, no secret
            connection.keep_records = self._options.keep_records
            self.connections.append(connection)
            async for record in records:
                message = _invocation(record)
                if message is None or message.type == MessageType.CLOSE:
                    reason = None if message else "Connection closed with an error. Invalid message."
                    connection.say_goodbye(reason, allow_reconnect=False)
                    await connection.hang_up()
                elif message.type == MessageType.INVOCATION:
                    self._invoke(connection, message)

    def _invoke(self, connection: Connection, message: _Invocation) -> None:
        """Carry out one invocation and complete it, if the client has asked for that."""
        action, stream = _METHODS.get(message.target.lower(), (None, ""))
        contract_id = str(message.arguments[0]) if message.arguments else ""
        fault = self._subscribing(stream) if action == "subscribe" else None
        error = None
        if action is None:
            error = f"Unknown hub method '{message.target}'"
        elif fault or not self._known(contract_id):
            error = f"An unexpected error occurred invoking '{message.target}' on the server."
        if message.invocation_id is not None and fault != "ignore":
            connection.write_message(type=MessageType.COMPLETION.value, invocationId=message.invocation_id, error=error)
        if error is None and action == "unsubscribe":
            connection.subscriptions.discard((stream, contract_id))
        elif error is None:
            self._subscribe(connection, stream, contract_id)

    def _subscribe(self, connection: Connection, stream: str, contract_id: str) -> None:
        connection.subscriptions.add((stream, contract_id))
        connection.stale.discard((stream, contract_id))
        connection.offer(-1, self._snapshot(stream, contract_id), self.frozen_ns)
        connection.settle_after(self._options.settle_s, self.changed.set)


async def _records(connection: Connection, websocket: web.WebSocketResponse) -> AsyncGenerator[bytes, None]:
    """What the client sends, record by record."""
    partial = b""
    async for message in websocket:
        if message.type is WSMsgType.PING:
            await connection.pong(message.data)
        elif message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
            data = message.data.encode() if isinstance(message.data, str) else message.data
            *records, partial = (partial + data).split(SEPARATOR)
            for record in records:
                yield record


def _invocation(record: bytes) -> _Invocation | None:
    try:
        return _decode_invocation(record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _refusal(record: bytes) -> str | None:
    """Why a handshake is refused."""
    try:
        request = _decode_handshake(record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "Handshake was not a handshake."
    if request.protocol != "json":
        return f"The protocol '{request.protocol}' is not supported."
    return (
        None
        if request.version <= _PROTOCOL_VERSION
        else f"The server does not support version {request.version} of the protocol."
    )
