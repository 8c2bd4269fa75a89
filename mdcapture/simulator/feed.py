"""What the local gateway plays: data messages in the order of time, from a tape.

A captured session is in `captured.py`, a model in `market.py`.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from mdcapture.gateway.instruments import parse_id
from mdcapture.gateway.tape import read_tape
from mdcapture.lake.manifest import Contract

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["EVERYONE", "Feed", "Message", "RecordedFeed", "TapeFeed"]

EVERYONE: Final = "everyone"
_STREAMS: Final = {"gatewayquote": "quotes", "gatewaytrade": "trades", "gatewaydepth": "depth"}
_HEAD_RECORDS: Final = 10_000


class Message(NamedTuple):
    """A data record on its way out; a `stream` of `everyone` needs no subscription."""

    time_ns: int
    contract_id: str
    stream: str
    record: bytes


class Feed(Protocol):
    """A source of messages."""

    @property
    def contracts(self) -> Sequence[Contract]:
        """What is listed."""

    @property
    def active(self) -> frozenset[str]:
        """The ids of those contracts that are the active ones."""

    def play(self, now_ns: int) -> tuple[int, Iterator[Message]]:
        """Begin: the time on the feed's own clock that is now, and the messages from there on."""

    def snapshot(self, stream: str, contract_id: str) -> list[Message]:
        """The state that a new subscriber is told, as of the last message that was taken from `play`."""


class RecordedFeed:
    """Records as they came, exactly and no others; the first of them tell the contracts.

    Args:
        records: Receive times (ns UTC) and hub records, in their order.
    """

    def __init__(self, records: Iterator[tuple[int, bytes]]) -> None:
        messages = (Message(time_ns, *_address(record), record) for time_ns, record in records)
        head = list(islice(messages, _HEAD_RECORDS))
        self._messages = chain(head, messages)
        self._origin_ns = head[0].time_ns if head else None
        ids = dict.fromkeys(message.contract_id for message in head if message.contract_id)
        self.contracts: Sequence[Contract] = [_contract(contract_id) for contract_id in ids]
        self.active = frozenset(ids)

    def play(self, now_ns: int) -> tuple[int, Iterator[Message]]:
        """Their own time and records; they can be played once."""
        return now_ns if self._origin_ns is None else self._origin_ns, self._messages

    def snapshot(self, stream: str, contract_id: str) -> list[Message]:  # noqa: ARG002 - a Feed's door
        """Nothing: what goes out is what was recorded and no more."""
        return []


class TapeFeed(RecordedFeed):
    """A tape, exactly as it is.

    Args:
        source: See `read_tape`.

    Raises:
        UsageError: It is no tape.
    """

    def __init__(self, source: str | Path) -> None:
        super().__init__(read_tape(source))


class _Invocation(msgspec.Struct, gc=False):
    target: str
    arguments: list[msgspec.Raw]


_decode = msgspec.json.Decoder(_Invocation).decode
_decode_str = msgspec.json.Decoder(str).decode


def _address(record: bytes) -> tuple[str, str]:
    """The contract and the stream that a record belongs to."""
    try:
        message = _decode(record)
        return _decode_str(message.arguments[0]), _STREAMS[message.target.lower()]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError):
        return "", EVERYONE


def _contract(contract_id: str) -> Contract:
    listing = parse_id(contract_id)
    if listing is not None:
        return listing.contract
    return Contract(
        contract_id=contract_id, name=contract_id, symbol_id=contract_id.removeprefix("CON.").rpartition(".")[0]
    )
