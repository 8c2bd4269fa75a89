"""WebSocket frames without their core: the ordinary ones are taken here, all others are handed on whole.

A gateway's frames are almost all alike: text, final, unmasked, uncompressed. Their payload is what stands behind two to
ten bytes of header, and taking it out costs a tenth of what a full implementation of the protocol does. Everything else
(control frames, fragments, compression, faults, a frame that is not whole yet) is that implementation's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Frames"]

_PLAIN: Final = frozenset(b"\x81\x82")
"""The first byte of a final, uncompressed text or binary frame."""
_FINAL: Final = 0x80
_CONTROL: Final = 0x08
_LENGTH: Final = 0x7F
_MASKED: Final = 0x80
_LENGTH_BYTES: Final = {126: 2, 127: 8}


class Frames:
    """The frames of one connection, cut anywhere.

    Args:
        core: Takes the bytes of what is no ordinary frame, and gives the payload that they complete.
    """

    def __init__(self, core: Callable[[bytes], list[bytes]]) -> None:
        self._core = core
        self._head = b""  # a header that is not whole; the core has it already, and may have seen a fault in it
        self._owed = 0
        self._fragmented = False

    def receive(self, data: bytes) -> bytes:
        """Take bytes; the payload that is whole with them, in one piece and in its order."""
        data, given, self._head = self._head + data, len(self._head), b""
        payload: list[bytes] = []
        at = 0
        while at < len(data):
            if not self._owed:
                if not self._fragmented and not given:
                    at = _take_plain(data, at, payload)
                size = _frame_bytes(data, at)
                if size is None:
                    self._head = data[at:]
                    if new := self._head[given:]:
                        payload += self._core(new)
                    break
                if not data[at] & _CONTROL:
                    self._fragmented = not data[at] & _FINAL
                self._owed = size - given
                at, given = at + given, 0
            part = data[at : at + self._owed]
            self._owed -= len(part)
            at += len(part)
            payload += self._core(part)
        return b"".join(payload)


def _take_plain(data: bytes, at: int, payload: list[bytes]) -> int:
    """Take the ordinary frames that stand there whole; where the first other one begins."""
    size = len(data)
    while at + 4 <= size and data[at] in _PLAIN:
        length = data[at + 1]
        start = at + 2
        if length == 126:  # noqa: PLR2004  # two bytes of length follow
            length = data[start] << 8 | data[start + 1]
            start += 2
        elif length > 126:  # noqa: PLR2004  # longer than a read, or masked
            break
        if start + length > size:
            break
        at = start + length
        payload.append(data[start:at])
    return at


def _frame_bytes(data: bytes, at: int) -> int | None:
    """How long the frame there is, header and all; None while its header is not whole."""
    if at + 2 > len(data):
        return None
    length = data[at + 1] & _LENGTH
    start = at + 2 + _LENGTH_BYTES.get(length, 0)
    if start > len(data):
        return None
    if start > at + 2:
        length = int.from_bytes(data[at + 2 : start])
    return start - at + length + (4 if data[at + 1] & _MASKED else 0)
