"""A WebSocket that stamps bytes as they arrive: the sans-IO core of `websockets` in a shell of ours.

The core shakes hands and takes care of all that is special; ordinary data frames pass it by (`wire.frames`).

The event loop hands over what one read of the socket brought. That chunk gets its receive time before anything else
happens, and all of it that is payload goes on in one piece: hub records do not line up with frames, so frames, and the
fragments of a message, need no boundaries here. Nothing is queued: what a reader does not take stays in the kernel, and
TCP holds the server back.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from typing import TYPE_CHECKING, Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State

from mdcapture.errors import GatewayError, ProtocolError, UnreachableError
from mdcapture.gateway.refusals import network_error, quoted, retry_after_s, status_error
from mdcapture.wire.frames import Frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from websockets.uri import WebSocketURI

__all__ = ["MAX_FRAME_BYTES", "WebSocket"]

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
_MAX_UNSENT_BYTES: Final = 1024 * 1024
_CLOSING_S: Final = 1.0
_PAYLOAD: Final = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})

# websockets logs the request line, and with it the token, when its logger is at DEBUG: it gets one that has no level,
# no parent and no handler.
_MUTE: Final = logging.Logger("mdcapture.mute", level=logging.CRITICAL + 1)  # noqa: LOG001


class WebSocket(asyncio.Protocol):
    """One connection, for one use.

    Args:
        uri: Where to; its query may hold a token, which no message, representation or log shows.
        receive: Called with the receive time (nanoseconds since the epoch, UTC) and the payload of each chunk. What it
            raises ends the connection and comes out of `wait_closed`.
        secrets: What no text of the server's may repeat in a message.
        clock: The receive time.
        compression: Whether to offer permessage-deflate.

    Attributes:
        lost: Done when the socket is closed.
        heard_s: When the last byte came, on the event loop's clock.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        receive: Callable[[int, bytes], None],
        *,
        secrets: Iterable[str] = (),
        clock: Callable[[], int] = time.time_ns,
        compression: bool = False,
    ) -> None:
        self._uri = uri
        self._secrets = tuple(secrets)
        self._receive = receive
        self._clock = clock
        self._core = ClientProtocol(
            uri,
            extensions=[ClientPerMessageDeflateFactory()] if compression else None,
            max_size=MAX_FRAME_BYTES,
            logger=_MUTE,
        )
        self._frames = Frames(self._through_core)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._cause: Exception | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closing: asyncio.TimerHandle | None = None
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.heard_s = self._loop.time()

    @property
    def where(self) -> str:
        """Host and port, for messages."""
        return f"{self._uri.host}:{self._uri.port}"

    @property
    def began(self) -> bool:
        """Whether there was ever a socket to close."""
        return self._transport is not None

    async def open(self, tls: ssl.SSLContext | None = None) -> None:
        """Connect and shake hands.

        Args:
            tls: Certificates to trust; by default the system's. They are verified in any case.

        Raises:
            GatewayError: Refused, unreachable, or no WebSocket server.
        """
        context = (tls or ssl.create_default_context()) if self._uri.secure else None
        try:
            await self._loop.create_connection(lambda: self, self._uri.host, self._uri.port, ssl=context)
        except OSError as error:
            raise network_error(error, self.where) from error
        await self._opened

    def send(self, data: bytes) -> None:
        """Write a text message, at once; nothing happens on a connection that has ended."""
        if self._core.state is State.OPEN:
            self._core.send_text(data)
            self._flush()

    def end(self, cause: Exception | None = None) -> None:
        """Begin to close; the first cause that is given is what `wait_closed` raises."""
        self._cause = self._cause or cause
        if self._transport is None or self._closing is not None:
            return
        if self._core.state is State.OPEN:
            self._core.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        self._transport.close()
        self._closing = self._loop.call_later(_CLOSING_S, self._transport.abort)

    async def wait_closed(self) -> None:
        """Wait until the socket is closed.

        Raises:
            Exception: Why it ended, unless `end` asked for it without a cause.
        """
        if self.began:
            await asyncio.shield(self.lost)
        if self._cause is not None:
            raise self._cause

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request for the upgrade."""
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=_MAX_UNSENT_BYTES)
        self._transport = transport
        self._core.send_request(self._core.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Stamp a chunk, then take it apart."""
        recv_ns = self._clock()
        if self._closing is not None:  # TLS hands over what it had read ahead
            return
        self.heard_s = self._loop.time()
        try:
            payload = self._payload(data)
            self._flush()
            if payload:
                self._receive(recv_ns, payload)
            self._check()
        except Exception as error:  # noqa: BLE001  # not hidden: wait_closed raises it
            self.end(error)

    def eof_received(self) -> None:
        """Let the transport close; an answer to the upgrade may end like this."""
        if self._core.state is State.CONNECTING:
            self._core.receive_eof()
            if self._core.handshake_exc is not None:
                self.end(self._handshake_error(self._core.handshake_exc))

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle why."""
        if self._closing is not None:
            self._closing.cancel()
        elif self._cause is None:
            reason = getattr(exc, "strerror", None) or "without a goodbye"
            self._cause = UnreachableError(f"{self.where} broke the connection ({reason})")
        if self._cause is not None and not self._opened.done():  # without a cause it was we, and nobody waits
            self._opened.set_exception(self._cause)
        self.lost.set_result(None)

    def pause_writing(self) -> None:
        """Give up on a server that does not read: what it is sent must not pile up here."""
        self.end(UnreachableError(f"{self.where} does not read what it is sent"))

    # Between core and transport.

    def _flush(self) -> None:
        if self._transport is None:
            return
        for data in self._core.data_to_send():
            if data:  # an empty one asks for a half-closed connection; ours close as a whole
                self._transport.write(data)

    def _payload(self, data: bytes) -> bytes:
        """What is payload of these bytes; the answer to the upgrade goes to the core line by line, to its very end."""
        while data and self._core.state is State.CONNECTING:
            end = data.find(b"\n") + 1 or len(data)
            self._through_core(data[:end])
            data = data[end:]
        return self._frames.receive(data) if data else b""

    def _through_core(self, data: bytes) -> list[bytes]:
        """The payload that these bytes complete, as the core sees it."""
        self._core.receive_data(data)
        pieces = []
        for event in self._core.events_received():
            if isinstance(event, Frame):
                if event.opcode in _PAYLOAD:
                    pieces.append(bytes(event.data))
            elif self._core.handshake_exc is None and not self._opened.done():
                self._opened.set_result(None)
        return pieces

    def _check(self) -> None:
        """Raise what the core holds against the server: a failed handshake, a broken frame, a close frame."""
        core = self._core
        if core.state is State.OPEN:
            return
        if core.handshake_exc is not None:
            raise self._handshake_error(core.handshake_exc)
        if core.parser_exc is not None:
            raise ProtocolError(
                f"{self.where} sent a broken WebSocket frame ({quoted(core.parser_exc, self._secrets)})"
            )
        if core.close_rcvd is not None:
            raise UnreachableError(f"{self.where} closed the connection: {quoted(core.close_rcvd, self._secrets)}")

    def _handshake_error(self, error: Exception) -> GatewayError:
        if isinstance(error, InvalidStatus):
            response = error.response
            header = response.headers.get("Retry-After")
            return status_error(response.status_code, self.where, pause_s=retry_after_s(header, self._clock()))
        if isinstance(error.__cause__, EOFError):
            return UnreachableError(f"{self.where} broke the connection during the handshake")
        reason = quoted(error, self._secrets) if isinstance(error, InvalidHandshake) else type(error).__name__
        return ProtocolError(f"{self.where} is no WebSocket server ({reason}): check --hub")
