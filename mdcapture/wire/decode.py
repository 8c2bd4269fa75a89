"""A batch of hub records to entries, and to an account of what could not be used.

The batch is decoded in one call. Where that fails (one record of thousands is odd) each record is tried alone, and an
odd one is taken apart entry by entry: each becomes a value or a reject with a reason. Nothing raises, or is silent.

    entries = values + rejects with a position
    records = those with entries + logouts + rejects without a position
"""

from __future__ import annotations

import math
from bisect import bisect_right
from enum import StrEnum
from itertools import accumulate, chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from mdcapture.wire.messages import (
    TARGETS,
    DepthEntry,
    DepthMessage,
    MarketMessage,
    Quote,
    QuoteMessage,
    Trade,
    TradeMessage,
)
from mdcapture.wire.signalr import LOGOUT, MessageType

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Batch", "Entries", "Reason", "Reject", "decode", "is_utf8", "record_text"]

Entry = TypeVar("Entry", bound=Quote | Trade | DepthEntry)


class Reason(StrEnum):
    """Why a record or an entry could not be used: a closed list."""

    NOT_UTF8 = "not_utf8"
    MALFORMED_JSON = "malformed_json"
    NOT_INVOCATION = "not_invocation"
    UNKNOWN_TARGET = "unknown_target"
    BAD_ARGUMENTS = "bad_arguments"
    NULL_ENTRY = "null_entry"
    BAD_ENTRY = "bad_entry"
    MISSING_FIELD = "missing_field"
    BAD_FIELD = "bad_field"


class Reject(msgspec.Struct, frozen=True):
    """What could not be used: an entry of a message, or (`pos` is None) the whole of it."""

    message: int
    pos: int | None
    table: str | None
    contract_id: str | None
    reason: Reason
    payload: str


class Entries(msgspec.Struct, Generic[Entry]):
    """One stream of a batch: a list item a message, and all entries in a row; a rejected entry stands there as None."""

    table: str
    message: list[int] = []
    contract_id: list[str] = []
    count: list[int] = []
    values: list[Entry | None] = []


class Batch(msgspec.Struct):
    """What a batch of records holds; `message` everywhere is the record's index in the batch."""

    quotes: Entries[Quote]
    trades: Entries[Trade]
    depth: Entries[DepthEntry]
    rejects: list[Reject]


class _Loose(msgspec.Struct):
    """An invocation of which nothing is taken for granted."""

    type: Any = None
    target: Any = None
    arguments: msgspec.Raw = msgspec.Raw()


class _Stream(msgspec.Struct, frozen=True):
    """What a target's entries are, and what they can't do without."""

    table: str
    entry: type[Quote | Trade | DepthEntry]
    required: tuple[str, ...] = ()


_STREAMS: Final = {
    QuoteMessage: _Stream("quotes", Quote),
    TradeMessage: _Stream("trades", Trade, ("price", "volume")),
    DepthMessage: _Stream("depth", DepthEntry, ("price", "volume", "type")),
}
_TIMES: Final = ("timestamp", "lastUpdated")
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_decode_lines = msgspec.json.Decoder(MarketMessage).decode_lines
_decode_one = msgspec.json.Decoder(MarketMessage).decode
_decode_loose = msgspec.json.Decoder(_Loose).decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_str = msgspec.json.Decoder(str).decode
_decode_any = msgspec.json.Decoder().decode


def is_utf8(text: bytes) -> bool:
    """Whether it is UTF-8: almost always because it is ASCII, which is told ten times as fast."""
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def record_text(record: bytes) -> str:
    """The record as text; one that is no UTF-8 keeps each byte as the character of that number (Latin-1)."""
    try:
        return record.decode()
    except UnicodeDecodeError:
        return record.decode("latin-1")


def decode(records: list[bytes]) -> Batch:
    """Decode hub records of any kind and quality.

    Args:
        records: Hub records without separators.

    Returns:
        Their entries by stream, in the order of arrival, and what could not be used.
    """
    rejects: list[Reject] = []
    faults: dict[tuple[int, int], Reject] = {}
    whole = _decode_all(records)
    messages: Sequence[MarketMessage | None] = whole or [
        _decode_alone(index, record, rejects, faults) for index, record in enumerate(records)
    ]
    which: dict[Any, list[int]] = {of_type: [] for of_type in (*_STREAMS, type(None))}
    for index, message in enumerate(messages):
        which[type(message)].append(index)
    streams = {stream.table: _entries(messages, which[of], stream.table) for of, stream in _STREAMS.items()}
    for entries in streams.values():
        if None in entries.values:
            rejects += _nulls(entries, faults)
    rejects.sort(key=lambda reject: (reject.message, -1 if reject.pos is None else reject.pos))
    return Batch(rejects=rejects, **streams)


def _decode_all(records: list[bytes]) -> list[MarketMessage] | None:
    """All records at once; None where that would not be each of them, sound."""
    lines = b"\n".join(records)
    try:
        messages = _decode_lines(lines) if is_utf8(lines) else None
    except _UNREADABLE:
        return None
    # The decoder looks for values, not for lines. No value goes on across a line feed from a brace to a brace, so where
    # each record begins and ends with one, it is one value at least; and none is more where there are as many.
    ends = [set(map(itemgetter(at), records)) for at in (0, -1)] if all(records) else []
    sound = ends == [{ord("{")}, {ord("}")}] and messages is not None and len(messages) == len(records)
    return messages if sound else None


def _entries(messages: Sequence[Any], which: list[int], table: str) -> Entries[Any]:
    """One stream of the messages, a comprehension a column: a call a message would cost as much as decoding it."""
    arguments = [messages[index].arguments for index in which]
    contract_id = [contract for contract, _ in arguments]
    data = [entries if type(entries) is list else [entries] for _, entries in arguments]
    return Entries(table, which, contract_id, list(map(len, data)), list(chain.from_iterable(data)))


def _nulls(stream: Entries[Any], faults: dict[tuple[int, int], Reject]) -> list[Reject]:
    """The rejects of a stream: what stands there as None, for the fault that is known, or because it came as null."""
    rejects = []
    ends = list(accumulate(stream.count))
    for at in [at for at, value in enumerate(stream.values) if value is None]:
        index = bisect_right(ends, at)
        message, pos = stream.message[index], at - ends[index] + stream.count[index]
        null = Reject(message, pos, stream.table, stream.contract_id[index], Reason.NULL_ENTRY, "null")
        rejects.append(faults.get((message, pos), null))
    return rejects


class _UnusableError(Exception):
    """A record that is no market message, and why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def _decode_alone(
    index: int, record: bytes, rejects: list[Reject], faults: dict[tuple[int, int], Reject]
) -> MarketMessage | None:
    """One record, in good faith first, then entry by entry; what is wrong with it goes to `rejects` and `faults`."""
    try:
        record.decode()
        message: MarketMessage = _decode_one(record)
    except UnicodeDecodeError:
        reason = Reason.NOT_UTF8
    except (msgspec.DecodeError, RecursionError):
        try:
            return _take_apart(index, record, faults)
        except _UnusableError as unusable:
            reason = unusable.reason
    else:
        return message
    rejects.append(Reject(index, None, None, None, reason, record_text(record)))
    return None


def _take_apart(index: int, record: bytes, faults: dict[tuple[int, int], Reject]) -> MarketMessage | None:
    """The message with None for each entry that can't be used; None for a logout, which has no entries."""
    loose = _loose(record)
    target = str(loose.target).lower()
    if target == LOGOUT:
        return None
    message_type = TARGETS.get(target)
    if message_type is None:
        raise _UnusableError(Reason.UNKNOWN_TARGET)
    contract_id, entries = _arguments(loose.arguments)
    stream = _STREAMS[message_type]
    values: list[Any] = []
    for pos, raw in enumerate(entries):
        try:
            values.append(_entry(raw, stream))
        except _UnusableError as unusable:
            values.append(None)
            faults[index, pos] = Reject(index, pos, stream.table, contract_id, unusable.reason, raw.decode())
    message: MarketMessage = message_type(arguments=(contract_id, values))
    return message


def _loose(record: bytes) -> _Loose:
    try:
        loose = _decode_loose(record)
    except msgspec.ValidationError:
        raise _UnusableError(Reason.NOT_INVOCATION) from None
    except (msgspec.DecodeError, RecursionError):
        raise _UnusableError(Reason.MALFORMED_JSON) from None
    if loose.type not in (None, MessageType.INVOCATION) or not isinstance(loose.target, str):
        raise _UnusableError(Reason.NOT_INVOCATION)
    return loose


def _arguments(raw: msgspec.Raw) -> tuple[str, list[bytes]]:
    """The contract's id, and the original text of each entry; further arguments are nobody's yet."""
    try:
        contract, data, *_ = _decode_raws(raw)
        contract_id = _decode_str(contract)
        text = bytes(data)
        entries = [bytes(entry) for entry in _decode_raws(text)] if text[:1] == b"[" else [text]
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise _UnusableError(Reason.BAD_ARGUMENTS) from None
    return contract_id, entries


def _entry(raw: bytes, stream: _Stream) -> Quote | Trade | DepthEntry:
    """One entry; numbers in quotes and whole floats are what they mean, a time that is no text is none."""
    try:
        fields = _decode_any(raw)
    except _UNREADABLE:
        raise _UnusableError(Reason.BAD_ENTRY) from None
    if fields is None:
        raise _UnusableError(Reason.NULL_ENTRY)
    if not isinstance(fields, dict):
        raise _UnusableError(Reason.BAD_ENTRY)
    if any(fields.get(name) is None for name in stream.required):
        raise _UnusableError(Reason.MISSING_FIELD)
    known = {name: value for name, value in fields.items() if name not in _TIMES or isinstance(value, str)}
    try:
        entry = msgspec.convert(known, stream.entry, strict=False)
    except msgspec.ValidationError:
        raise _UnusableError(Reason.BAD_FIELD) from None
    if any(isinstance(value, float) and not math.isfinite(value) for value in msgspec.structs.astuple(entry)):
        raise _UnusableError(Reason.BAD_FIELD)
    return entry
