r"""The journal: what arrived, as it arrived, in blocks that prove themselves.

A segment is a file of blocks. A block is a header and a body; its checksum covers both, so that a torn or flipped
block is noticed, and reading goes on at the next sound one.

    header   magic "MDB1" | kind | body bytes | crc32 | count | first seq | connection
    messages recv_ns × count (int64) | length × count (uint32) | the records, joined by \n
    incident JSON of the incident
    signals  MessagePack of the rows, each of a message that stands before it

Records are written a batch at a time: one write(2) each few milliseconds, straight from the event loop, because the
page cache is fast and a thread would only add a queue in which data can be lost.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from mdcapture.errors import StorageError
from mdcapture.lake.files import storage_errors, sync_folder
from mdcapture.lake.layout import PlaceT, segment_number, segment_path
from mdcapture.lake.schema import Incident, SignalRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

__all__ = ["ENDED", "MISSING", "Block", "Damage", "IncidentBlock", "Journal", "MessageBlock", "SignalBlock"]
__all__ += ["read_blocks", "segments"]

ENDED: Final = "ended"
"""The file in a journal's folder that says that its writer has come to the end; without it, the writer died."""

_MAGIC: Final = b"MDB1"
_HEADER: Final = struct.Struct("<4sBxxxIIIqi")
_CRC_AT: Final = slice(12, 16)
_MESSAGES: Final = 1
_INCIDENT: Final = 2
_SIGNALS: Final = 3

_encode_incident = msgspec.json.Encoder().encode
_decode_incident = msgspec.json.Decoder(Incident).decode
_encode_signals = msgspec.msgpack.Encoder().encode
_decode_signals = msgspec.msgpack.Decoder(list[SignalRow]).decode


class MessageBlock(NamedTuple):
    """Messages `first_seq`, `first_seq + 1`, … of one connection."""

    first_seq: int
    connection: int
    recv_ns: array[int]
    records: list[bytes]


class IncidentBlock(NamedTuple):
    """Something that happened before message `first_seq`."""

    first_seq: int
    recv_ns: int
    incident: Incident


class SignalBlock(NamedTuple):
    """What signals said of messages before `first_seq`."""

    first_seq: int
    rows: list[SignalRow]


class Damage(NamedTuple):
    """A stretch of a segment that is no sound block: torn by a crash at its end, or damaged in the middle.

    One without a size stands for what is not there at all: a segment, or blocks at the end of one.
    """

    offset: int
    size: int
    torn: bool

    @property
    def detail(self) -> str:
        """What is wrong, in words."""
        if not self.size:
            return "a part of the journal is missing"
        what = "the journal's end is torn" if self.torn else "the journal is damaged"
        return f"{what}: {self.size} bytes at {self.offset} can't be read"


MISSING: Final = Damage(0, 0, torn=False)
"""What the numbers of segments or messages say is not there."""

Block = MessageBlock | IncidentBlock | SignalBlock
"""What a journal holds."""


def segments(folder: PlaceT) -> dict[int, PlaceT]:
    """The segments in a journal's folder by number, in order."""
    found = {segment_number(path): path for path in folder.glob("*.journal")}
    return {number: found[number] for number in sorted(key for key in found if key is not None)}


def _block(kind: int, first_seq: int, connection: int, count: int, body: bytes) -> bytes:
    header = bytearray(_HEADER.pack(_MAGIC, kind, len(body), 0, count, first_seq, connection))
    header[_CRC_AT] = struct.pack("<I", zlib.crc32(body, zlib.crc32(header)))
    return b"".join((header, body))


def _messages_block(first_seq: int, connection: int, recv_ns: array[int], records: list[bytes]) -> bytes:
    lengths = array("I", map(len, records))
    body = b"".join((recv_ns, lengths, b"\n".join(records)))
    return _block(_MESSAGES, first_seq, connection, len(records), body)


def _incident_block(first_seq: int, recv_ns: int, incident: Incident) -> bytes:
    return _block(_INCIDENT, first_seq, 0, 1, struct.pack("<q", recv_ns) + _encode_incident(incident))


def read_blocks(data: bytes) -> Iterator[Block | Damage]:
    """Read a segment's blocks, skipping what is damaged.

    Args:
        data: The segment's bytes, as far as they are written.

    Yields:
        The blocks in order, and in their place the stretches that are none.
    """
    offset = 0
    end = len(data)
    while offset < end:
        found = _sound_block(data, offset)
        if found is None:
            start = offset
            offset = data.find(_MAGIC, offset + 1)
            while offset >= 0 and _sound_block(data, offset) is None:
                offset = data.find(_MAGIC, offset + 1)
            torn = offset < 0
            offset = end if torn else offset
            yield Damage(start, offset - start, torn)
        else:
            block, offset = found
            yield block


def _sound_block(data: bytes, offset: int) -> tuple[Block, int] | None:
    header = bytearray(data[offset : offset + _HEADER.size])
    if len(header) < _HEADER.size:
        return None
    magic, kind, size, crc, count, first_seq, connection = _HEADER.unpack(header)
    body = data[offset + _HEADER.size : offset + _HEADER.size + size]
    header[_CRC_AT] = bytes(4)
    if magic != _MAGIC or len(body) < size or zlib.crc32(body, zlib.crc32(header)) != crc:
        return None
    end = offset + _HEADER.size + size
    try:
        if kind == _INCIDENT:
            return IncidentBlock(first_seq, struct.unpack_from("<q", body)[0], _decode_incident(body[8:])), end
        if kind == _SIGNALS:
            return SignalBlock(first_seq, _decode_signals(body)), end
    except msgspec.DecodeError:  # of numbers that no table holds, or of another version
        return None
    if kind != _MESSAGES:
        return None
    recv_ns = array("q", body[: 8 * count])
    blob = body[12 * count :]
    records = blob.split(b"\n")
    if len(records) != count:  # some record holds a line feed of its own: only the lengths tell
        lengths = array("I", body[8 * count : 12 * count])
        records, at = [], 0
        for length in lengths:
            records.append(blob[at : at + length])
            at += length + 1
    return MessageBlock(first_seq, connection, recv_ns, records), end


class Journal:
    """The journal of one session, open for appending; one process, one event loop.

    Nothing is on disk before `flush`, and nothing survives a power loss before `sync`. When the disk refuses, what
    could not be written stays in memory, in order, and the next `flush` tries again.

    Args:
        folder: The session's journal folder, which exists.
        segment: The number of its first segment.

    Attributes:
        next_seq: The number that the next message gets.
        segment: The number of the segment that is being written.
        segment_bytes: Its size.
        pending_bytes: What is not yet written.
    """

    def __init__(self, folder: Path, segment: int = 1) -> None:
        self._folder = folder
        self.next_seq = 0
        self.segment = self._first_segment = segment
        self.segment_bytes = 0
        self.pending_bytes = 0
        self._first_seq = 0
        self._connection = 0
        self._recv_ns = array("q")
        self._records: list[bytes] = []
        self._pieces: deque[bytes] = deque()
        self._unnamed = True
        self._fd = self._open(segment)

    def append(self, recv_ns: int, connection: int, records: list[bytes]) -> None:
        """Take messages that arrived together; they are on disk after the next `flush`."""
        self.extend([recv_ns] * len(records), connection, records)

    def extend(self, recv_ns: Iterable[int], connection: int, records: Collection[bytes]) -> None:
        """Take messages that arrived one after another, each at a time of its own."""
        if connection != self._connection:
            self._cut()
            self._connection = connection
        self._recv_ns.extend(recv_ns)
        self._records += records
        self.next_seq += len(records)
        self.pending_bytes += sum(map(len, records))

    def note(self, recv_ns: int, incident: Incident) -> None:
        """Take an incident, in its place between the messages.

        It is written in one piece with those that wait before it: the message that ends a gap tells of it, and who
        dies between the two would leave the gap untold.
        """
        self._cut()
        block = _incident_block(self.next_seq, recv_ns, incident)
        before = self._pieces.pop() if self._pieces else b""
        self._pieces.append(before + block)

    def signal(self, rows: list[SignalRow]) -> None:
        """Take what signals said of messages that were taken before."""
        block = _block(_SIGNALS, self.next_seq, 0, len(rows), _encode_signals(rows))
        self._pieces.append(block)
        self.pending_bytes += len(block)

    def flush(self) -> None:
        """Write what is pending.

        Raises:
            StorageError: The disk refused; nothing is lost, and nothing half-written stays on disk.
        """
        self._cut()
        try:
            while self._pieces:
                self._write(self._pieces[0])
                self._pieces.popleft()
        finally:
            self.pending_bytes = sum(map(len, self._pieces))

    @property
    def is_empty(self) -> bool:
        """Whether it has not taken anything yet."""
        return not (self.segment > self._first_segment or self.segment_bytes or self.next_seq or self._pieces)

    def waiting(self) -> tuple[int, int | None]:
        """What is not yet written: how many messages, and when the first of them came (None if there are none)."""
        self._cut()
        blocks = [block for block in read_blocks(b"".join(self._pieces)) if isinstance(block, MessageBlock)]
        return sum(len(block.records) for block in blocks), blocks[0].recv_ns[0] if blocks else None

    def sync(self) -> None:
        """Force what is written onto the disk; slow, so made for a thread, but the same one as `retire`."""
        fd = self._fd
        with storage_errors(self._folder):
            if self._unnamed:
                self._unnamed = False  # before, not after: a `roll` meanwhile makes another name
                try:
                    sync_folder(self._folder)
                except OSError:
                    self._unnamed = True
                    raise
            os.fdatasync(fd)

    def roll(self) -> int:
        """Go on in the next segment.

        Returns:
            The descriptor of the one before, for `retire`; only then may that segment be sealed.

        Raises:
            StorageError: The disk refused; this segment goes on.
        """
        self.flush()
        before, self._fd = self._fd, self._open(self.segment + 1)
        self.segment += 1
        self.segment_bytes = 0
        return before

    def retire(self, fd: int) -> None:
        """Force a segment that is no longer written onto the disk, and close it; slow, made for a thread."""
        try:
            with storage_errors(self._folder):
                os.fdatasync(fd)
        finally:
            os.close(fd)

    def end(self) -> None:
        """Close it, and leave word that nothing is to follow: to whoever seals it, this was no crash.

        Raises:
            StorageError: The disk refused; what is `waiting` is not tried again.
        """
        self.close()
        with suppress(OSError):  # all is kept, but a recovery will take it for a crash
            (self._folder / ENDED).touch(0o640)
            sync_folder(self._folder)

    def close(self) -> None:
        """Write, force and close, once; the last segment stays, to be sealed.

        Raises:
            StorageError: The disk refused; what is `waiting` is not tried again.
        """
        if self._fd >= 0:
            try:
                self.flush()
                self.sync()
            finally:
                os.close(self._fd)
                self._fd = -1

    def _open(self, segment: int) -> int:
        path = segment_path(self._folder, segment)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        except OSError as error:
            raise StorageError(error.errno, f"the journal can't be opened at {path} ({error.strerror})") from error
        self._unnamed = True
        return fd

    def _cut(self) -> None:
        if self._records:
            self._pieces.append(_messages_block(self._first_seq, self._connection, self._recv_ns, self._records))
            self._recv_ns = array("q")
            self._records = []
        self._first_seq = self.next_seq

    def _write(self, piece: bytes) -> None:
        start = self.segment_bytes
        rest = memoryview(piece)
        try:
            while rest:
                written = os.write(self._fd, rest)
                self.segment_bytes += written
                rest = rest[written:]
        except OSError as error:
            with suppress(OSError):  # then the half stays, as one more damaged stretch
                os.ftruncate(self._fd, start)
                self.segment_bytes = start
            raise StorageError(
                error.errno,
                f"the journal can't be written ({error.strerror}); {self.pending_bytes:,} bytes wait in memory",
            ) from error
