"""Tapes: recorded hub records in a text file, a line each.

    1703545200106846211 {"type":1,"target":"GatewayTrade","arguments":[…]}
    └ receive time, ns  └ the hub record, without its separator

A tape may be compressed (`.zst`, `.gz`, also of several frames in a row) and of any length: it is read in chunks.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from mdcapture.errors import NotFoundError, UsageError
from mdcapture.wire.signalr import Logout, classify

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["STDIN", "read_data", "read_tape"]

STDIN: Final = "-"
_CHUNK_BYTES: Final = 1 << 20
_LINE_BYTES: Final = 64 << 20
_CODECS: Final = {".zst": "zstd", ".gz": "gzip"}
_INT64_DIGITS: Final = 19
_INT64_MAX: Final = 2**63 - 1


def read_tape(source: str | Path) -> Iterator[tuple[int, bytes]]:
    """Read a tape in bounded memory.

    Args:
        source: The file's path (`.zst` and `.gz` are decompressed), or `-` for the standard input, which is plain.

    Yields:
        The receive time in nanoseconds since the epoch, and the hub record as it stands there.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A line is no line of a tape, or the compression is damaged. What came before it has been yielded.
    """
    for number, line in enumerate(_lines(source), start=1):
        time, _, record = line.partition(b" ")
        if not (time.isdigit() and len(time) <= _INT64_DIGITS and int(time) <= _INT64_MAX and record):
            raise UsageError(
                f"{_name(source)}, line {number}: no line of a tape ({line[:60].decode('latin-1')!r}). A line is a "
                "receive time in integer nanoseconds, a space, and a hub record."
            )
        yield int(time), record


def read_data(source: str | Path) -> Iterator[tuple[int, bytes]]:
    """The tape's data records, those that a capture numbers: without what the protocol said to itself.

    Arguments and errors are those of `read_tape`.
    """
    for recv_ns, record in read_tape(source):
        item = classify(record)
        if isinstance(item, Logout):
            yield recv_ns, item.record
        elif isinstance(item, bytes):
            yield recv_ns, item


def _name(source: str | Path) -> str:
    return "standard input" if source == STDIN else str(source)


def _lines(source: str | Path) -> Iterator[bytes]:
    """The lines without their ends; an unfinished last line counts."""
    begun: list[bytes] = []
    for chunk in _chunks(source):
        end, *following = chunk.split(b"\n")
        begun.append(end)
        if following:
            yield b"".join(begun)
            *whole, rest = following
            yield from whole
            begun = [rest]
        if sum(map(len, begun)) > _LINE_BYTES:
            raise UsageError(f"{_name(source)}: a line of more than {_LINE_BYTES:,} bytes: this is no tape")
    if last := b"".join(begun):
        yield last


def _chunks(source: str | Path) -> Iterator[bytes]:
    try:
        with _open(source) as stream:
            while chunk := stream.read1(_CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {_name(source)}") from error
    except OSError as error:
        raise UsageError(f"{_name(source)} can't be read as a tape: {error}") from error


def _open(source: str | Path) -> AbstractContextManager[Any]:
    if source == STDIN:
        return nullcontext(sys.stdin.buffer)
    codec = _CODECS.get(Path(source).suffix)
    if codec is None:
        return Path(source).open("rb")
    import pyarrow as pa  # noqa: PLC0415 - a heavy library, for compressed tapes alone

    return cast("AbstractContextManager[Any]", pa.CompressedInputStream(pa.OSFile(str(source), "rb"), codec))
