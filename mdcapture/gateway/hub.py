"""The market hub, kept up: connect, subscribe, watch, reconnect, until told to stop.

What happens is told to a listener in the order in which it happened, in the event loop, without a queue between. The
times of its incidents leave no hole from the last record of one connection to the subscriptions of the next:

    records ── disconnected ──┬── reconnecting … ── connected ──┬── subscribed ── records
       last record ▸ noticed  │   noticed ▸ connected again     │   asked ▸ completed

`subscribing` comes at the moment of asking, so before any record that the subscription can bring: it is where the state
of quotes, which are deltas, begins anew.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from random import random as random_fraction
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

from mdcapture.errors import GatewayError, RefusedError, UnreachableError
from mdcapture.gateway.connection import Connection, Timing, hub_address
from mdcapture.gateway.refusals import LoggedOutError, UnauthorizedError
from mdcapture.gateway.retry import Backoff, RetryPolicy, Verdict, verdict
from mdcapture.lake.schema import Incident, IncidentKind, Stream
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterable

__all__ = ["METHODS", "TARGETS", "Hub", "HubEvents", "Subscription", "TokenSource", "tell"]

METHODS: Final[dict[Stream, str]] = {
    "quotes": "ContractQuotes",
    "trades": "ContractTrades",
    "depth": "ContractMarketDepth",
}
"""What the hub's methods call the streams, after `Subscribe` or `Unsubscribe`."""
TARGETS: Final[dict[str, Stream]] = {"GatewayQuote": "quotes", "GatewayTrade": "trades", "GatewayDepth": "depth"}
"""The streams of the messages that the hub sends."""
_UNANSWERED: Final = 3
_GROWTH: Final = 3


class Subscription(NamedTuple):
    """One stream of one contract."""

    stream: Stream
    contract_id: str


class HubEvents(Protocol):
    """Who is told; all calls come in the event loop, and what they raise ends `Hub.run`."""

    def on_records(self, recv_ns: int, connection: int, records: list[bytes]) -> None:
        """Take data records, in the order of arrival; connections count from 1."""

    def on_incident(self, incident: Incident) -> None:
        """Take what happened."""


def tell(
    events: HubEvents,
    kind: IncidentKind,
    from_ns: int,
    to_ns: int | None,
    detail: str = "",
    *,
    subscription: Subscription | None = None,
) -> None:
    """Tell of an incident: of one stream, or of all."""
    stream, contract_id = subscription or (None, None)
    events.on_incident(Incident(kind, stream, contract_id, from_ns, to_ns, detail))


class TokenSource(Protocol):
    """Where tokens come from: `RestClient.token`."""

    async def __call__(self, refused: str | None = None) -> str:
        """Give a token that is fresh, and another one than `refused`."""


class Hub:
    """The connection to the market hub.

    Args:
        url: The hub's address, without a token.
        token: Asked before each connection.
        events: Who is told.
        policy: When to try again.
        timing: How long to wait for what.
        clock: Nanoseconds since the epoch, UTC; all else is measured on the event loop's clock.
        random: Fractions from 0 to 1 for the jitter of pauses.
        tls: Certificates to trust instead of the system's; they are verified in any case.
        compression: Whether to offer permessage-deflate: it saves traffic, and costs time.

    Raises:
        UsageError: The address is none of a hub.
    """

    def __init__(
        self,
        url: str,
        token: TokenSource,
        events: HubEvents,
        *,
        policy: RetryPolicy | None = None,
        timing: Timing | None = None,
        clock: Callable[[], int] = time.time_ns,
        random: Callable[[], float] = random_fraction,
        tls: ssl.SSLContext | None = None,
        compression: bool = False,
    ) -> None:
        self._address = hub_address(url)
        self._token = token
        self._events = events
        self._policy = policy or RetryPolicy()
        self._timing = timing or Timing()
        self._clock = clock
        self._random = random
        self._tls = tls
        self._compression = compression
        self._wanted: dict[Subscription, None] = {}
        self._tasks: dict[Subscription, asyncio.Task[None]] = {}
        self._patience: dict[Subscription, int] = {}
        self._backoff = Backoff(self._policy, random)
        self._connection: Connection | None = None
        self._answered = False
        self._connections = 0
        self._refreshed = False
        self._opened_s = 0.0
        self._lost_ns = 0
        self._last_record_ns = 0
        self._running: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def connected(self) -> bool:
        """Whether a connection stands."""
        return self._connection is not None

    async def run(self) -> None:
        """Stay connected until `stop`; the subscriptions of the moment are made anew on each connection.

        Raises:
            RefusedError: The gateway answered no, and will do so again.
            UnreachableError: As many tries have failed in a row as the policy allows.
            ProtocolError: The address was never a hub's.
        """
        if self._stopped:
            return
        self._lost_ns = self._clock()
        self._running = asyncio.create_task(self._stay_connected())
        try:
            await self._running
        except asyncio.CancelledError:
            if not self._stopped:
                raise

    def stop(self) -> None:
        """Close the connection, and let `run` return."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()

    def reconnect(self, reason: str) -> None:
        """Give up this connection for a new one."""
        if self._connection is not None:
            self._connection.end(UnreachableError(reason))

    def subscribe(self, subscriptions: Iterable[Subscription], *, again: bool = False) -> None:
        """Want these, too: now if connected, and on every connection to come.

        Args:
            subscriptions: The streams.
            again: Ask anew for those that are subscribed to already, too: the gateway may send a fresh snapshot.
        """
        for subscription in subscriptions:
            if again or subscription not in self._wanted:
                self._wanted[subscription] = None
                self._pursue(subscription, self._keep_subscribed)

    def unsubscribe(self, subscriptions: Iterable[Subscription]) -> None:
        """Want these no longer."""
        for subscription in subscriptions:
            if subscription in self._wanted:
                del self._wanted[subscription]
                self._patience.pop(subscription, None)
                self._pursue(subscription, self._let_go)

    def resubscribe(self, subscription: Subscription, reason: str = "") -> None:
        """End a subscription and make it anew, for a stream that has fallen silent; its incidents tell how it went."""
        if subscription in self._wanted and self._connection is not None:
            now_ns = self._clock()
            tell(self._events, IncidentKind.RESUBSCRIBED, now_ns, now_ns, reason, subscription=subscription)
            self._pursue(subscription, self._renew)

    # Connections.

    async def _stay_connected(self) -> None:
        refused: str | None = None
        while True:
            token: str | None = None
            try:
                token = await self._token(refused)
                await self._converse(token)
            except GatewayError as error:
                await self._pause(error)
                if isinstance(error, UnauthorizedError | LoggedOutError):
                    refused = token or refused

    async def _converse(self, token: str) -> None:
        """Hold one connection until it ends, which raises why."""
        connection = Connection(
            self._address,
            token,
            on_open=lambda: self._opened(connection),
            on_records=self._deliver,
            on_logout=lambda recv_ns: tell(self._events, IncidentKind.LOGGED_OUT, recv_ns, recv_ns),
            timing=self._timing,
            clock=self._clock,
            compression=self._compression,
        )
        try:
            await connection.open(self._tls)
            await connection.wait_closed()
        except GatewayError as error:
            if self._connection is connection:
                self._closed(error)
            raise
        finally:
            self._connection = None
            for task in self._tasks.values():
                task.cancel()
            self._tasks.clear()
            await connection.close()

    def _opened(self, connection: Connection) -> None:
        now_ns = self._clock()
        self._connection = connection
        self._connections += 1
        self._answered = False
        self._refreshed = False
        self._opened_s = asyncio.get_running_loop().time()
        self._last_record_ns = now_ns
        tell(self._events, IncidentKind.CONNECTED, self._lost_ns, now_ns)
        for subscription in self._wanted:
            self._pursue(subscription, self._keep_subscribed)

    def _closed(self, error: GatewayError) -> None:
        self._lost_ns = self._clock()
        self._backoff.held(asyncio.get_running_loop().time() - self._opened_s)
        tell(
            self._events, IncidentKind.DISCONNECTED, min(self._last_record_ns, self._lost_ns), self._lost_ns, str(error)
        )

    async def _pause(self, error: GatewayError) -> None:
        judged = verdict(error, stood=self._connections > 0, refreshed=self._refreshed)
        if judged is Verdict.GIVE_UP:
            raise error
        pause_s = 0.0
        if judged is Verdict.REFRESH:
            self._refreshed = True
        else:
            pause_s = self._backoff.pause_s(error)
        if self._backoff.exhausted:
            raise UnreachableError(f"{error} (given up after {self._backoff.failures} tries in a row)") from error
        now_ns = self._clock()
        tell(
            self._events,
            IncidentKind.RECONNECTING,
            now_ns,
            now_ns + int(pause_s * NS_PER_S),
            f"in {pause_s:.1f} s: {error}",
        )
        await asyncio.sleep(pause_s)

    # Subscriptions.

    def _pursue(
        self, subscription: Subscription, course: Callable[[Connection, Subscription], Coroutine[object, None, None]]
    ) -> None:
        """Let one course after the other determine a subscription: a new one ends what is under way."""
        connection = self._connection
        if connection is None:
            return
        if (before := self._tasks.pop(subscription, None)) is not None:
            before.cancel()

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                connection.end(cast("Exception", error))

        task = self._tasks[subscription] = asyncio.create_task(course(connection, subscription))
        task.add_done_callback(ended)

    async def _keep_subscribed(self, connection: Connection, subscription: Subscription) -> None:
        """Subscribe, as often as it takes; a hub that does not answer is given up for a new connection."""
        backoff = Backoff(self._policy, self._random)
        stream, contract_id = subscription
        unanswered = 0
        while True:
            sent_ns = self._clock()

            def succeeded(sent_ns: int = sent_ns) -> None:
                tell(self._events, IncidentKind.SUBSCRIBED, sent_ns, self._clock(), subscription=subscription)

            tell(self._events, IncidentKind.SUBSCRIBING, sent_ns, None, subscription=subscription)
            try:
                refusal = await connection.invoke(f"Subscribe{METHODS[stream]}", contract_id, succeeded)
            except TimeoutError as error:
                refusal = str(error)
                unanswered += 1
            else:
                self._answered = True
                self._patience.pop(subscription, None)
            if refusal is None:
                return
            tell(
                self._events, IncidentKind.SUBSCRIBE_FAILED, sent_ns, self._clock(), refusal, subscription=subscription
            )
            if self._is_deaf(subscription, unanswered):
                raise UnreachableError(f"the hub has not answered {unanswered} subscriptions to {stream}: {refusal}")
            await asyncio.sleep(backoff.pause_s(RefusedError(refusal)))

    def _is_deaf(self, subscription: Subscription, unanswered: int) -> bool:
        """Whether to give the connection up for a subscription that it has not answered so many times.

        Where it answers others, a new one costs them messages, and may answer no better: so each time more patiently.
        """
        patience = max(self._patience.values(), default=_UNANSWERED) if self._answered else _UNANSWERED
        if unanswered >= patience and self._answered:
            self._patience[subscription] = patience * _GROWTH
        return unanswered >= patience

    async def _let_go(self, connection: Connection, subscription: Subscription) -> None:
        stream, contract_id = subscription
        with suppress(TimeoutError):
            await connection.invoke(f"Unsubscribe{METHODS[stream]}", contract_id)

    async def _renew(self, connection: Connection, subscription: Subscription) -> None:
        await self._let_go(connection, subscription)
        await self._keep_subscribed(connection, subscription)

    # What comes.

    def _deliver(self, recv_ns: int, records: list[bytes]) -> None:
        self._last_record_ns = recv_ns
        self._events.on_records(recv_ns, self._connections, records)
