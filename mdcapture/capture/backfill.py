"""Bars in place of trades that can't be had again.

The ticks of a gap are gone; its bars of one second are not. When a gap of a contract's trades has ended, they are
fetched over REST, an hour at a time, within the gateway's rate limits, and written as incidents that carry bars:
through the journal, like everything else. Where other streams had a gap and trades had none, bars tell nothing new.

What fails is tried again for about an hour, and then only logged: the gap is on record in any case. A bar of more lots
than a table's column holds is left out.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from mdcapture.errors import GatewayError
from mdcapture.gateway.retry import Backoff, RetryPolicy, Verdict, verdict
from mdcapture.lake.schema import Bar, Incident, IncidentKind
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mdcapture.capture.market_hours import OpenSpans

__all__ = ["Backfill", "BarSource"]

_log = logging.getLogger(__name__)

_PIECE_NS: Final = 3600 * NS_PER_S
_LONGEST_QUEUE: Final = 1000
_MOST_LOTS: Final = 2**63 - 1
_POLICY: Final = RetryPolicy(first_s=5.0, max_s=600.0, attempts=12)


class BarSource(Protocol):
    """Where bars come from: `RestClient.bars`."""

    async def __call__(self, contract_id: str, start_ns: int, end_ns: int) -> Sequence[Bar]:
        """Give the bars of one second that start in [`start_ns`, `end_ns`], oldest first."""


class Backfill:
    """Fetches the bars of gaps, one gap after the other.

    Args:
        bars: Where they come from.
        tell: Who is told of those that came.
        open_spans: When there is a market.
        clock: Nanoseconds since the epoch, UTC.
        delay_s: How long after a gap its bars are expected to be complete.
        policy: When to try again.
    """

    def __init__(
        self,
        bars: BarSource,
        tell: Callable[[Incident], None],
        open_spans: OpenSpans,
        *,
        clock: Callable[[], int],
        delay_s: float,
        policy: RetryPolicy = _POLICY,
    ) -> None:
        self._bars = bars
        self._tell = tell
        self._open_spans = open_spans
        self._clock = clock
        self._delay_ns = int(delay_s * NS_PER_S)
        self._policy = policy
        self._gaps: asyncio.Queue[Incident] = asyncio.Queue(_LONGEST_QUEUE)

    def want(self, gap: Incident) -> None:
        """Ask for the bars of a gap that has ended, without waiting."""
        if gap.stream == "trades":
            try:
                self._gaps.put_nowait(gap)
            except asyncio.QueueFull:
                _log.warning("too many gaps wait for their bars: one of %s goes without", gap.contract_id)

    async def run(self) -> None:
        """Fetch what is asked for, without end."""
        while True:
            gap = await self._gaps.get()
            assert gap.to_ns is not None
            await asyncio.sleep(max(0, gap.to_ns + self._delay_ns - self._clock()) / NS_PER_S)
            try:
                for start_ns, end_ns in _pieces(self._open_spans, gap.from_ns, gap.to_ns):
                    await self._fetch(str(gap.contract_id), start_ns, end_ns)
            except GatewayError as error:
                _log.warning("the bars of a gap of %s can't be had: %s", gap.contract_id, error)

    async def _fetch(self, contract_id: str, start_ns: int, end_ns: int) -> None:
        backoff = Backoff(self._policy)
        while True:
            try:
                answer = await self._bars(contract_id, start_ns, end_ns)
            except GatewayError as error:
                pause_s = backoff.pause_s(error)
                if backoff.exhausted or verdict(error, stood=True) is Verdict.GIVE_UP:
                    raise
                await asyncio.sleep(pause_s)
            else:
                bars = tuple(bar for bar in answer if abs(bar.volume) <= _MOST_LOTS)
                detail = f"{len(bars)} bars of 1 s, {sum(bar.volume for bar in bars)} lots"
                kind = IncidentKind.BACKFILLED
                self._tell(Incident(kind, "trades", contract_id, start_ns, end_ns, detail, bars))
                return


def _pieces(open_spans: OpenSpans, from_ns: int, to_ns: int) -> Iterator[tuple[int, int]]:
    """The whole seconds of a gap while the market is open, an hour at most at a time; no second is in two."""
    start_ns = from_ns - from_ns % NS_PER_S
    for opens_ns, closes_ns in open_spans(start_ns, to_ns):
        for piece_ns in range(opens_ns, closes_ns, _PIECE_NS):
            yield piece_ns, min(piece_ns + _PIECE_NS, closes_ns) - 1
