"""When each stream of each contract was last heard, and between which messages it can be missing some.

One rule: what breaks a stream opens its gap at its last good message, and its next message closes it.

    message ── message ──┬── disconnected ── reconnecting ── subscribing ── subscribed ── message ── message
                         └─────────────────────────── gap ───────────────────────────────┘

Where there was no message yet, the gap begins at the subscription's completion; where there was no completion either,
when the stream was first wanted. Everything here is told the time, nothing asks for it.

A gap has the stamps that its two messages have in the lake, also where the clock went forward between them: whether
this machine was paused or its clock was only corrected, no message lies there. A clock that is set back would leave its
beginning in the future: then it begins when the new clock would have stamped its last good message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from mdcapture.gateway.hub import TARGETS, Subscription
from mdcapture.lake.schema import Incident, IncidentKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BREAKS", "Pulse", "Streams"]

BREAKS: Final = frozenset(
    {
        IncidentKind.DISCONNECTED,
        IncidentKind.RECONNECTING,
        IncidentKind.SUBSCRIBE_FAILED,
        IncidentKind.STALLED,
        IncidentKind.RESUBSCRIBED,
        IncidentKind.LOST,
        IncidentKind.SLEPT,
    }
)
"""The kinds of incidents after which messages of a stream can be missing, until it is heard again."""

_STILL_SUBSCRIBED: Final = frozenset({IncidentKind.STALLED, IncidentKind.LOST, IncidentKind.SLEPT})

_STREAMS: Final = {target.lower(): stream for target, stream in TARGETS.items()}
_HEADS: Final = {stream: f'{{"type":1,"target":"{target}","arguments":["' for target, stream in TARGETS.items()}
_HEAD_BYTES: Final = len(_HEADS["quotes"])  # the three targets are equally long, and so is what precedes a contract


class Pulse(NamedTuple):
    """A stream that is subscribed to: since when, and when its last message came (None if there was none)."""

    subscribed_ns: int
    heard_ns: int | None


@dataclass(slots=True)
class _Line:
    """One stream of one contract, and what is known of it.

    `good_ns` is where a gap would begin, `gap_ns` where the one that is open began, and `cause` what opened it.
    """

    subscription: Subscription
    good_ns: int
    heard: bool = False
    subscribed_ns: int | None = None
    gap_ns: int | None = None
    cause: str = ""

    def note(self, incident: Incident) -> None:
        """Take what happened to this stream."""
        kind = incident.kind
        if kind == IncidentKind.SUBSCRIBED:
            self.subscribed_ns = incident.to_ns
            if not self.heard and self.gap_ns is None and incident.to_ns is not None:
                self.good_ns = incident.to_ns
            return
        # What still came of a subscription that was ended has closed the gap before the new one begins.
        anew = kind == IncidentKind.SUBSCRIBING and self.heard and self.subscribed_ns is None
        if self.gap_ns is None and (anew or kind in BREAKS):
            self.gap_ns, self.cause = self.good_ns, kind
        if kind == IncidentKind.SUBSCRIBING or kind in BREAKS - _STILL_SUBSCRIBED:
            self.subscribed_ns = None

    def end(self, at_ns: int) -> Incident:
        """End the gap that is open."""
        assert self.gap_ns is not None
        gap = Incident(IncidentKind.GAP, *self.subscription, self.gap_ns, at_ns, self.cause)
        self.gap_ns = None
        return gap


class _Invocation(msgspec.Struct, gc=False):
    target: str
    arguments: list[msgspec.Raw]


_decode = msgspec.json.Decoder(_Invocation).decode
_decode_text = msgspec.json.Decoder(str).decode


class Streams:
    """The streams that are wanted, in the order in which things happen to them; pure."""

    def __init__(self) -> None:
        self._lines: dict[Subscription, _Line] = {}
        self._keys: dict[bytes, _Line] = {}

    def want(self, subscriptions: Iterable[Subscription], now_ns: int) -> list[Incident]:
        """Follow these from now on, and no others.

        Returns:
            What was open until now, ended now; those of these streams go on as new ones, which begin now.
        """
        before = self._lines
        broken = {subscription for subscription, line in before.items() if line.gap_ns is not None}
        ended = self.end(now_ns)
        self._lines = {one: before.get(one) or _Line(one, now_ns) for one in subscriptions}
        self._keys = {_key(subscription): line for subscription, line in self._lines.items()}
        for subscription in broken & self._lines.keys():
            line = self._lines[subscription]
            line.good_ns = line.gap_ns = now_ns
        return ended

    def end(self, now_ns: int) -> list[Incident]:
        """End the gaps that are open."""
        return [line.end(max(now_ns, line.gap_ns)) for line in self._lines.values() if line.gap_ns is not None]

    def hear(self, recv_ns: Sequence[int], records: Sequence[bytes]) -> list[Incident]:
        """Take messages in the order of arrival.

        Ordinary records of a stream and contract all begin with the same bytes, and are not parsed.

        Args:
            recv_ns: When each came.
            records: The messages.

        Returns:
            The gaps that they end.
        """
        keys = [record[: record.find(b'"', _HEAD_BYTES)] for record in records]
        last_ns = dict(zip(keys, recv_ns, strict=True))
        if not last_ns.keys() <= self._keys.keys():
            return self._hear_each(keys, recv_ns, records)
        gaps = []
        for key, at_ns in last_ns.items():
            line = self._keys[key]
            if line.gap_ns is not None:
                gaps.append(line.end(recv_ns[keys.index(key)]))
            line.good_ns = at_ns
            line.heard = True
        return gaps

    def _hear_each(self, keys: Sequence[bytes], recv_ns: Sequence[int], records: Sequence[bytes]) -> list[Incident]:
        """One by one: some have other spaces, another order, another case, or are not for us."""
        gaps = []
        for key, at_ns, record in zip(keys, recv_ns, records, strict=True):
            line = self._keys.get(key) or self._odd(record)
            if line is not None:
                if line.gap_ns is not None:
                    gaps.append(line.end(at_ns))
                line.good_ns, line.heard = at_ns, True
        return gaps

    def _odd(self, record: bytes) -> _Line | None:
        """The stream of a record of any form."""
        try:
            message = _decode(record)
            return self._lines.get(Subscription(_STREAMS[message.target.lower()], _decode_text(message.arguments[0])))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError):
            return None

    def note(self, incident: Incident) -> None:
        """Take what happened, in its place between the messages."""
        for (stream, contract_id), line in self._lines.items():
            if incident.stream in (None, stream) and incident.contract_id in (None, contract_id):
                line.note(incident)

    def pulses(self) -> dict[Subscription, Pulse]:
        """The streams that should be heard now: those whose subscription the hub has completed."""
        return {
            subscription: Pulse(line.subscribed_ns, line.good_ns if line.heard else None)
            for subscription, line in self._lines.items()
            if line.subscribed_ns is not None
        }

    def broken(self) -> list[Subscription]:
        """The streams whose gap is open; from any thread."""
        return [line.subscription for line in list(self._lines.values()) if line.gap_ns is not None]

    def last_good_ns(self, subscription: Subscription) -> int:
        """Where a gap of a stream would begin now, or began if one is open."""
        line = self._lines[subscription]
        return line.good_ns if line.gap_ns is None else line.gap_ns

    def step(self, step_ns: int, now_ns: int) -> list[Incident]:
        """Follow a clock that was set, before anything of the time since then.

        Args:
            step_ns: By how much.
            now_ns: The time on the new clock.

        Returns:
            The gaps that were open when it was set back, ended on the old clock; others go on on the new one, from now.
        """
        if step_ns >= 0:
            return []

        def moved(at_ns: int) -> int:
            return min(at_ns + step_ns, now_ns)

        ended = []
        for line in self._lines.values():
            line.good_ns = moved(line.good_ns)
            if line.gap_ns is not None:
                ended.append(line.end(max(now_ns - step_ns, line.gap_ns)))
                line.gap_ns = now_ns
            line.subscribed_ns = None if line.subscribed_ns is None else moved(line.subscribed_ns)
        return ended


def _key(subscription: Subscription) -> bytes:
    return f"{_HEADS[subscription.stream]}{subscription.contract_id}".encode()
