"""One connection to the market hub, from its handshake to its end.

    chunk ──▶ WebSocket ──▶ HubProtocol ──┬▶ data records, in order ──▶ on_records
               (stamps)     (sans I/O)    ├▶ completions ──▶ whoever invoked
                                          └▶ logout, close, silence ──▶ the end, with its cause

Everything happens in the call in which the bytes arrive: what is told of a completion is told before the records that
came after it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from mdcapture.errors import ConfigError, ProtocolError, UnreachableError, UsageError
from mdcapture.gateway.refusals import LoggedOutError, quoted
from mdcapture.gateway.websocket import WebSocket
from mdcapture.wire.signalr import HANDSHAKE, PING, Close, Completion, Handshake, HubProtocol, Item, Logout

if TYPE_CHECKING:
    import ssl

__all__ = ["Connection", "Timing", "hub_address"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long to wait for what.

    Attributes:
        connect_s: For address, TCP, TLS, upgrade and hub handshake together.
        ping_s: Between our pings.
        silence_s: For any byte of the server's; then the connection is dead. It pings every 15 s when all is well.
        completion_s: For the completion of an invocation.

    Raises:
        ConfigError: A time is not positive.
    """

    connect_s: float = 15.0
    ping_s: float = 15.0
    silence_s: float = 30.0
    completion_s: float = 15.0

    def __post_init__(self) -> None:
        if min(self.connect_s, self.ping_s, self.silence_s, self.completion_s) <= 0:
            raise ConfigError("the hub's times (connect, ping, silence, completion) are more than 0 s")


def hub_address(url: str) -> WebSocketURI:
    """Parse a hub's URL, without a token.

    Raises:
        UsageError: It is no ws:// or wss:// URL, or holds a user or a query.
    """
    try:
        address = parse_uri(url)
    except (InvalidURI, ValueError):
        address = None
    if address is None or address.query or address.user_info:
        raise UsageError("a hub's address is ws://host/path or wss://host/path, without a user, a query or a fragment")
    return address


class _Pending(NamedTuple):
    answer: asyncio.Future[str | None]
    on_success: Callable[[], None] | None


class Connection:
    """A connection, for one use.

    Args:
        address: Of the hub.
        token: Of this login; it stands in the URL only.
        on_open: Called when the hub has accepted.
        on_records: Called with the receive time and the data records of a chunk.
        on_logout: Called with the receive time of a logout.
        timing: How long to wait for what.
        clock: The receive time, nanoseconds since the epoch, UTC.
        compression: Whether to offer permessage-deflate.
    """

    def __init__(
        self,
        address: WebSocketURI,
        token: str,
        *,
        on_open: Callable[[], None],
        on_records: Callable[[int, list[bytes]], None],
        on_logout: Callable[[int], None],
        timing: Timing,
        clock: Callable[[], int] = time.time_ns,
        compression: bool = False,
    ) -> None:
        self._secrets = (token, quote(token, safe=""))
        uri = replace(address, query=f"access_token={self._secrets[1]}")
        self._socket = WebSocket(uri, self._receive, secrets=self._secrets, clock=clock, compression=compression)
        self._on_open = on_open
        self._on_records = on_records
        self._on_logout = on_logout
        self._timing = timing
        self._protocol = HubProtocol()
        self._loop = asyncio.get_running_loop()
        self._settled: asyncio.Future[None] = self._loop.create_future()
        self._pending: dict[str, _Pending] = {}
        self._heartbeat: asyncio.TimerHandle | None = None
        self._next_ping_s = 0.0
        self._socket.lost.add_done_callback(self._wind_up)

    async def open(self, tls: ssl.SSLContext | None = None) -> None:
        """Connect and shake hands; afterwards records flow, and both ends are watched.

        Raises:
            GatewayError: Refused, unreachable, or no hub.
        """
        try:
            async with asyncio.timeout(self._timing.connect_s):
                await self._socket.open(tls)
                self._socket.send(HANDSHAKE)
                await self._settled
        except TimeoutError as error:
            raise UnreachableError(
                f"{self._socket.where} did not answer within {self._timing.connect_s:g} s: check the network"
            ) from error
        if self._socket.lost.done():
            await self._socket.wait_closed()
        self._next_ping_s = self._loop.time() + self._timing.ping_s
        self._beat()

    async def invoke(self, target: str, argument: str, on_success: Callable[[], None] | None = None) -> str | None:
        """Ask the hub for something, and wait for its completion.

        Args:
            target: The hub's method.
            argument: Its one argument.
            on_success: Called when the hub has done it, before any later record is told.

        Returns:
            None when the hub has done it; otherwise why not.

        Raises:
            TimeoutError: The hub has not answered in time.
        """
        invocation_id, message = self._protocol.invoke(target, argument)
        answer: asyncio.Future[str | None] = self._loop.create_future()
        self._pending[invocation_id] = _Pending(answer, on_success)
        self._socket.send(message)
        try:
            async with asyncio.timeout(self._timing.completion_s):
                return await answer
        except TimeoutError:
            raise TimeoutError(f"no completion within {self._timing.completion_s:g} s") from None
        finally:
            self._pending.pop(invocation_id, None)

    def end(self, cause: Exception | None = None) -> None:
        """Begin to close."""
        self._socket.end(cause)

    async def wait_closed(self) -> None:
        """Wait for the end.

        Raises:
            Exception: Why it ended, unless `end` asked for it without a cause.
        """
        await self._socket.wait_closed()

    async def close(self) -> None:
        """End it, and wait until the socket is closed; why it ended does not matter any more."""
        self.end()
        if self._socket.began:
            await asyncio.shield(self._socket.lost)

    def _receive(self, recv_ns: int, payload: bytes) -> None:
        records: list[bytes] = []
        for item in self._items(payload):
            if isinstance(item, bytes):
                records.append(item)
                continue
            if isinstance(item, Logout):
                records.append(item.record)
            if records:
                self._on_records(recv_ns, records)
                records = []
            self._control(recv_ns, item)
        if records:
            self._on_records(recv_ns, records)

    def _items(self, payload: bytes) -> list[Item]:
        try:
            return self._protocol.receive(payload)
        except ProtocolError as error:
            raise ProtocolError(quoted(error, self._secrets)) from None

    def _control(self, recv_ns: int, item: Item) -> None:
        match item:
            case Completion():
                self._complete(item)
            case Handshake(error=None):
                self._on_open()
                if not self._settled.done():
                    self._settled.set_result(None)
            case Handshake(error=str(error)):
                said = quoted(error, self._secrets)
                self.end(ProtocolError(f"{self._socket.where} refuses the hub protocol: {said}"))
            case Close():
                said = quoted(item.error or "without a reason", self._secrets)
                self.end(UnreachableError(f"{self._socket.where} ended the session: {said}"))
            case Logout():
                self._on_logout(recv_ns)
                cause = "another login, an expired token, or maintenance"
                self.end(LoggedOutError(f"{self._socket.where} logged this user out: {cause}"))

    def _complete(self, completion: Completion) -> None:
        pending = self._pending.get(completion.invocation_id)
        if pending is None or pending.answer.done():
            return
        if completion.error is None and pending.on_success is not None:
            pending.on_success()
        pending.answer.set_result(None if completion.error is None else quoted(completion.error, self._secrets))

    def _beat(self) -> None:
        """Ping when it is time; end a connection that has been silent for too long."""
        now_s = self._loop.time()
        dead_s = self._socket.heard_s + self._timing.silence_s
        if now_s >= dead_s:
            self.end(
                UnreachableError(f"{self._socket.where} has been silent for {self._timing.silence_s:g} s: it is dead")
            )
            return
        if now_s >= self._next_ping_s:
            self._socket.send(PING)
            self._next_ping_s = now_s + self._timing.ping_s
        self._heartbeat = self._loop.call_at(min(dead_s, self._next_ping_s), self._beat)

    def _wind_up(self, _: asyncio.Future[None]) -> None:
        """Leave nobody waiting on a connection that is gone."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        if not self._settled.done():
            self._settled.set_result(None)
