"""Plays a feed to the hub, at its own pace, at a multiple of it, or as fast as the clients read.

The market opens when the first client's subscriptions have settled. From then on it goes on while nobody listens,
except at full speed, where it waits for someone who does. Faults of the schedule strike between messages.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from mdcapture.simulator.faults import Fault
    from mdcapture.simulator.feed import Feed, Message
    from mdcapture.simulator.history import History
    from mdcapture.simulator.hub_server import HubServer

__all__ = ["Player"]

_BATCH: Final = 256


class Player:
    """One run of a feed.

    Args:
        feed: What is played.
        hub: Who hears it.
        history: Who keeps the trades.
        speed: Market seconds in a real second; infinite: as fast as the clients read.
        max_backlog_bytes: How much may wait for a client that does not read, before it is parted with.
        faults: Faults in the order of their times; each has one.
        strike: Commits a fault.
    """

    def __init__(
        self,
        feed: Feed,
        hub: HubServer,
        history: History,
        *,
        speed: float,
        max_backlog_bytes: int,
        faults: Iterator[Fault],
        strike: Callable[[Fault], Awaitable[None]],
    ) -> None:
        self._feed = feed
        self._hub = hub
        self._history = history
        self._speed = speed
        self._max_backlog_bytes = max_backlog_bytes
        self._faults = faults
        self._strike = strike
        self._next_fault()
        self._origin_ns = 0
        self._opened_s = 0.0
        self.now_ns = 0
        """The market's time; 0 before it opens."""
        self.played = 0
        """How many messages of the feed have gone by, heard or not."""
        self.ended = asyncio.Event()

    async def play(self) -> None:
        """Play the whole of it."""
        await self._audience()
        self._opened_s = asyncio.get_running_loop().time()
        self._origin_ns, messages = self._feed.play(time.time_ns())
        self.now_ns = self._origin_ns
        self._hub.welcome()
        batch: list[Message] = []
        for message in messages:
            at_s = (message.time_ns - self._origin_ns) / NS_PER_S
            if len(batch) == _BATCH or not self._is_due(at_s):
                await self._send(batch)
                batch = []
                await self._reach(at_s)
            batch.append(message)
        await self._send(batch)
        self.ended.set()

    def _is_due(self, at_s: float) -> bool:
        return at_s < self._fault_s and self._wait_s(at_s) <= 0

    def _wait_s(self, at_s: float) -> float:
        """How long it is, in real seconds, until a time of the market."""
        return at_s / self._speed - (asyncio.get_running_loop().time() - self._opened_s)

    async def _reach(self, at_s: float) -> None:
        """Let the market's clock come to a time; faults strike on the way."""
        while self._fault is not None and self._fault_s <= at_s:
            fault = self._fault
            await asyncio.sleep(max(0.0, self._wait_s(self._fault_s)))
            self.now_ns = self._origin_ns + round(self._fault_s * NS_PER_S)
            self._next_fault()
            await self._strike(fault)
        if self._speed == math.inf:
            await self._audience()
        await asyncio.sleep(max(0.0, self._wait_s(at_s)))

    def _next_fault(self) -> None:
        self._fault = next(self._faults, None)
        self._fault_s = math.inf if self._fault is None else self._fault.at_s or 0.0

    async def _audience(self) -> None:
        """Wait for a client that listens."""
        while not any(connection.listens for connection in self._hub.connections):
            self._hub.changed.clear()
            await self._hub.changed.wait()

    async def _send(self, batch: list[Message]) -> None:
        """Send what is due; at full speed wait for slow readers, otherwise part with those who fall far behind."""
        if batch:
            self.now_ns = batch[-1].time_ns
        self._hub.publish(self.played, batch)
        self.played += len(batch)
        for message in batch:
            if message.stream == "trades":
                self._history.add(message.record)
        for connection in tuple(self._hub.connections):
            if self._speed == math.inf:
                await connection.drain()
            elif connection.backlog_bytes > self._max_backlog_bytes:
                connection.reset("too slow")
