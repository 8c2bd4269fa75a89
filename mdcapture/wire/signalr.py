"""The SignalR JSON hub protocol, sans I/O: bytes in, data records and control messages out.

A hub record is a JSON object that ends with 0x1e. Records and WebSocket frames do not line up: a frame may hold several
records, and a record may span several frames. What the protocol needs for itself (handshake, completions, pings, close)
is decoded here; everything else is a data record and leaves as the bytes that came, unread: the journal wants it first.

    client                                     server
      {"protocol":"json","version":1}␞   ──▶
                                         ◀──   {}␞
      {"type":1,"invocationId":"1",…}␞   ──▶
                                         ◀──   {"type":3,"invocationId":"1"}␞      completion
                                         ◀──   {"type":1,"target":"GatewayTrade",…}␞   data
      {"type":6}␞                        ◀─▶   {"type":6}␞                         ping
                                         ◀──   {"type":7,"allowReconnect":true}␞   close
"""

from __future__ import annotations

from enum import IntEnum
from itertools import repeat, takewhile
from typing import Final

import msgspec

from mdcapture.errors import ProtocolError

__all__ = [
    "HANDSHAKE",
    "LOGOUT",
    "MAX_RECORD_BYTES",
    "PING",
    "SEPARATOR",
    "Close",
    "Completion",
    "Handshake",
    "HubProtocol",
    "Item",
    "Logout",
    "MessageType",
    "Ping",
    "classify",
]

SEPARATOR: Final = b"\x1e"
HANDSHAKE: Final = b'{"protocol":"json","version":1}\x1e'
LOGOUT: Final = "gatewaylogout"
PING: Final = b'{"type":6}\x1e'
MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
"""A depth snapshot has some 100 kB; what is far beyond is no record but a fault, or an attack."""

# Nine of ten records begin like this, and are told from control messages without being parsed.
_DATA: Final = (
    b'{"type":1,"target":"GatewayDepth"',
    b'{"type":1,"target":"GatewayQuote"',
    b'{"type":1,"target":"GatewayTrade"',
)


class MessageType(IntEnum):
    """The types of the hub protocol."""

    INVOCATION = 1
    STREAM_ITEM = 2
    COMPLETION = 3
    STREAM_INVOCATION = 4
    CANCEL_INVOCATION = 5
    PING = 6
    CLOSE = 7
    ACK = 8
    SEQUENCE = 9


class Handshake(msgspec.Struct, frozen=True):
    """The server's answer to the handshake; `error` is None when it accepts."""

    error: str | None = None


class Completion(msgspec.Struct, frozen=True):
    """The end of an invocation; `error` is None when it succeeded."""

    invocation_id: str
    error: str | None = None


class Ping(msgspec.Struct, frozen=True):
    """The server lives."""


class Close(msgspec.Struct, frozen=True):
    """The server ends the connection."""

    error: str | None = None
    allow_reconnect: bool = False


class Logout(msgspec.Struct, frozen=True):
    """The server logs this user out: another login, an expired token, or maintenance. It is a data record, too."""

    record: bytes


Item = bytes | Handshake | Completion | Ping | Close | Logout


class _Envelope(msgspec.Struct, rename="camel", gc=False):
    type: int
    target: str | None = None
    invocation_id: str | None = None
    error: str | None = None
    allow_reconnect: bool = False


class _HandshakeAnswer(msgspec.Struct):
    error: str | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_handshake = msgspec.json.Decoder(_HandshakeAnswer).decode
_encode = msgspec.json.Encoder().encode


def classify(record: bytes) -> Item | None:
    """Tell data from control.

    Args:
        record: One hub record without its separator.

    Returns:
        The record itself when it is data, or too broken to be read (the journal keeps it, and the decoder explains it);
        the control message otherwise; None for control messages that mean nothing to a client.
    """
    if record.startswith(_DATA):
        return record
    try:
        envelope = _decode_envelope(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return record
    match envelope.type:
        case MessageType.COMPLETION:
            return Completion(envelope.invocation_id or "", envelope.error)
        case MessageType.PING:
            return Ping()
        case MessageType.CLOSE:
            return Close(envelope.error, envelope.allow_reconnect)
        case MessageType.ACK | MessageType.SEQUENCE:
            return None
        case MessageType.INVOCATION if envelope.target is not None and envelope.target.lower() == LOGOUT:
            return Logout(record)
        case _:
            return record


class HubProtocol:
    """One connection, as the client sees it.

    Args:
        max_record_bytes: The longest record that is accepted.
    """

    def __init__(self, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self._max_record_bytes = max_record_bytes
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self._too_long = False
        self._handshaken = False
        self._invocations = 0

    def invoke(self, target: str, *arguments: object) -> tuple[str, bytes]:
        """Make an invocation that the server must complete.

        Returns:
            The id that its `Completion` will carry, and the bytes to send.
        """
        self._invocations += 1
        invocation_id = str(self._invocations)
        message = {
            "type": MessageType.INVOCATION.value,
            "invocationId": invocation_id,
            "target": target,
            "arguments": list(arguments),
        }
        return invocation_id, _encode(message) + SEPARATOR

    def receive(self, data: bytes) -> list[Item]:
        """Take bytes as they come, cut anywhere.

        Returns:
            Data records as bytes without their separator, and control messages, in the order of arrival.

        Raises:
            ProtocolError: The first record is no handshake, or a record is longer than the bound. What came whole
                before that record has been returned, if need be by the call before.
        """
        *ends, rest = data.split(SEPARATOR)
        records: list[bytes] = []
        if ends and not self._too_long:
            ends[0] = b"".join((*self._partial, ends[0]))
            self._partial, self._partial_bytes = [], 0
            records = ends
            if max(map(len, ends)) > self._max_record_bytes:
                records = list(takewhile(lambda record: len(record) <= self._max_record_bytes, ends))
            self._too_long = len(records) < len(ends)
        self._keep(rest)
        if self._too_long and not records:
            raise ProtocolError(
                f"a record is longer than the {self._max_record_bytes:,} bytes allowed: the connection is given up, "
                "and that record is lost (raise max_record_bytes if the feed is sound)"
            )
        if self._handshaken and all(map(bytes.startswith, records, repeat(_DATA))):
            return list(records)
        return [item for item in map(self._read, records) if item is not None]

    def _keep(self, piece: bytes) -> None:
        """Keep what is not a record yet, as far as it may be one."""
        self._partial_bytes += len(piece)
        self._too_long = self._too_long or self._partial_bytes > self._max_record_bytes
        if piece and not self._too_long:
            self._partial.append(piece)

    def _read(self, record: bytes) -> Item | None:
        if self._handshaken:
            return classify(record)
        try:
            answer = _decode_handshake(record)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(
                f"the server's first record is no SignalR handshake ({record[:80]!r}): is this a hub's address?"
            ) from error
        self._handshaken = True
        return Handshake(answer.error)
