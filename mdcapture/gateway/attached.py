"""The market hub through a connection that another program holds: `signalrcore`'s, which already has the token.

    their thread                                        our event loop
    callback ▸ stamp ▸ record ──▶ what has arrived ──▶  listener

The gateway dislikes two connections of one user, so a program that trades over its own lends it. Their library hands
over parsed arguments, so a record is written anew from them: equal in every value, not in every byte, and stamped after
their parsing. When the connection is lost, their library says so only once it is back, or has given up.

What the program does with its connection stays its own affair: nothing is unsubscribed here, nothing closed, and its
callbacks are called as before.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from mdcapture.errors import RefusedError, UsageError
from mdcapture.gateway.hub import METHODS, TARGETS, Subscription, tell
from mdcapture.gateway.retry import Backoff, RetryPolicy
from mdcapture.lake.schema import IncidentKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mdcapture.gateway.hub import HubEvents

__all__ = ["AttachedHub", "HubConnection", "check_connection"]

_LOGOUT: Final = "GatewayLogout"


class HubConnection(Protocol):
    """A hub connection of `signalrcore`, as its `HubConnectionBuilder` makes it."""

    transport: Any
    handlers: dict[str, list[Callable[[list[Any]], object]]]

    def on_open(self, callback: Callable[[], object]) -> None:
        """Call this when the connection stands."""

    def on_close(self, callback: Callable[[], object]) -> None:
        """Call this when it has ended."""

    def on_reconnect(self, callback: Callable[[], object]) -> None:
        """Call this when it stands again."""

    def on_error(self, callback: Callable[[Any], object]) -> None:
        """Call this with a completion that refuses."""

    def invoke(
        self,
        method: str,
        arguments: list[Any],
        on_invocation: Callable[[Any], object] | None = None,
        invocation_id: str | None = None,
    ) -> Any:  # noqa: ANN401  # theirs
        """Call a method of the hub; its completion, unless it refuses, goes to `on_invocation`."""


class _Answer(NamedTuple):
    """A subscription that waits for its completion: `refusal` will be what the hub says against it, or None."""

    refusal: asyncio.Future[str | None]
    subscription: Subscription
    sent_ns: int


class AttachedHub:
    """A hub in the form of `mdcapture.gateway.hub.Hub`, over a connection that is not ours.

    Args:
        connection: Theirs, started or not.
        events: Who is told.
        policy: When to subscribe again where the hub refused.
        answer_s: How long a subscription's completion may take.
        clock: Nanoseconds since the epoch, UTC.
    """

    def __init__(
        self,
        connection: HubConnection,
        events: HubEvents,
        *,
        policy: RetryPolicy | None = None,
        answer_s: float = 10.0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._connection = connection
        self._events = events
        self._policy = policy or RetryPolicy()
        self._answer_s = answer_s
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._wanted: dict[Subscription, None] = {}
        self._tasks: dict[Subscription, asyncio.Task[None]] = {}
        self._answers: dict[str, _Answer] = {}
        self._asked = 0
        self._asking: queue.SimpleQueue[tuple[Subscription, str] | None] = queue.SimpleQueue()
        self._arrived: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._waking = False
        self._stopped = asyncio.Event()
        self._handlers = {target: partial(self._message, target) for target in (*TARGETS, _LOGOUT)}
        self._connections = 0
        self._connected = False
        self._lost_ns = self._last_record_ns = clock()

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as it has told."""
        return self._connected

    async def run(self) -> None:
        """Take what comes until `stop`."""
        self._listen()
        threading.Thread(target=self._invoke_each, name="mdcapture-subscribe", daemon=True).start()
        try:
            await self._stopped.wait()
        finally:
            self._stopped.set()
            self._let_go()
            self._cancel()
            self._asking.put(None)

    def stop(self) -> None:
        """Take nothing more; the connection goes on."""
        self._take()
        self._stopped.set()

    def reconnect(self, reason: str) -> None:
        """Ask for all anew: whether the connection is given up is for its owner to say."""
        for subscription in self._wanted:
            self.resubscribe(subscription, reason)

    def subscribe(self, subscriptions: Iterable[Subscription], *, again: bool = False) -> None:
        """Want these, too; see `Hub.subscribe`."""
        for subscription in subscriptions:
            if again or subscription not in self._wanted:
                self._wanted[subscription] = None
                self._pursue(subscription)

    def unsubscribe(self, subscriptions: Iterable[Subscription]) -> None:
        """Want these no longer; the connection's owner may, so the hub is not told."""
        for subscription in subscriptions:
            self._wanted.pop(subscription, None)
            if (task := self._tasks.pop(subscription, None)) is not None:
                task.cancel()

    def resubscribe(self, subscription: Subscription, reason: str = "") -> None:
        """Ask anew for a stream that has fallen silent."""
        if subscription in self._wanted and self._connected:
            now_ns = self._clock()
            tell(self._events, IncidentKind.RESUBSCRIBED, now_ns, now_ns, reason, subscription=subscription)
            self._pursue(subscription)

    # In their threads: nothing here may raise, or wait.

    def _listen(self) -> None:
        """Come first, so that the program's own work is in no receive time; lists are replaced, as others read them."""
        connection = self._connection
        for target, ours in self._handlers.items():
            connection.handlers[target] = [ours, *connection.handlers[target]]
        _also(connection, "on_open", lambda *_: self._soon(self._opened, self._clock()))
        _also(connection, "on_reconnect", lambda *_: self._soon(self._opened, self._clock()))
        _also(connection, "on_close", lambda *_: self._soon(self._closed, self._clock(), "the connection was closed"))
        _also(connection, "on_error", lambda refusal: self._soon(self._answer, refusal.invocation_id, refusal.error))
        if connection.transport is not None and connection.transport.is_connected():
            self._soon(self._opened, self._clock())

    def _let_go(self) -> None:
        """The program's own callbacks stay; the others of ours do nothing from now on."""
        for target, ours in self._handlers.items():
            handlers = self._connection.handlers
            handlers[target] = [each for each in handlers[target] if each is not ours]

    def _message(self, target: str, arguments: list[Any]) -> None:
        """Make a record at once: the arguments are the program's as well, and it may change them."""
        recv_ns = self._clock()
        stream, contract_id = TARGETS.get(target), arguments[0] if arguments else None
        if stream and isinstance(contract_id, str) and Subscription(stream, contract_id) not in self._wanted:
            return
        message = {"type": 1, "target": target, "arguments": arguments}
        record = json.dumps(message, separators=(",", ":"), default=str).encode()
        self._soon(self._deliver, recv_ns, record, target == _LOGOUT)

    def _soon(self, take: Callable[..., None], *what: object) -> None:
        """Let the event loop take something, after what came before it."""
        if self._stopped.is_set():
            return
        self._arrived.append((take, what))
        if not self._waking:
            self._waking = True
            with suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._take)

    def _invoke_each(self) -> None:
        """Subscribe, one after the other, in a thread: where it can't send, their library reconnects, however long."""
        while (asked := self._asking.get()) is not None:
            (stream, contract_id), invocation_id = asked
            completed = partial(self._completed, invocation_id)
            try:
                self._connection.invoke(f"Subscribe{METHODS[stream]}", [contract_id], completed, invocation_id)
            except Exception as error:  # noqa: BLE001  # theirs can be any: it becomes an incident
                self._soon(self._answer, invocation_id, f"{type(error).__name__}: {error}")

    def _completed(self, invocation_id: str, _: object) -> None:
        self._soon(self._answer, invocation_id, None)

    # In the event loop.

    def _take(self) -> None:
        self._waking = False
        while self._arrived:
            take, what = self._arrived.popleft()
            take(*what)

    def _deliver(self, recv_ns: int, record: bytes, is_logout: bool) -> None:  # noqa: FBT001  # out of a queue
        self._last_record_ns = recv_ns
        self._events.on_records(recv_ns, self._connections, [record])
        if is_logout:
            tell(self._events, IncidentKind.LOGGED_OUT, recv_ns, recv_ns)

    def _opened(self, at_ns: int) -> None:
        self._closed(at_ns, "the connection was lost, and is back")
        self._connected = True
        self._connections += 1
        tell(self._events, IncidentKind.CONNECTED, self._lost_ns, at_ns)
        self._last_record_ns = at_ns
        for subscription in self._wanted:
            self._pursue(subscription)

    def _closed(self, at_ns: int, reason: str) -> None:
        if self._connected:
            self._connected = False
            self._lost_ns = at_ns
            tell(self._events, IncidentKind.DISCONNECTED, min(self._last_record_ns, at_ns), at_ns, reason)
            self._cancel()

    def _cancel(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def _pursue(self, subscription: Subscription) -> None:
        if self._connected:
            if (before := self._tasks.pop(subscription, None)) is not None:
                before.cancel()
            self._tasks[subscription] = asyncio.create_task(self._keep_subscribed(subscription))

    async def _keep_subscribed(self, subscription: Subscription) -> None:
        """Subscribe, as often as it takes."""
        backoff = Backoff(self._policy)
        while True:
            self._take()
            sent_ns = self._clock()
            tell(self._events, IncidentKind.SUBSCRIBING, sent_ns, None, subscription=subscription)
            refusal = await self._ask(subscription, sent_ns)
            if refusal is None:
                return
            tell(
                self._events, IncidentKind.SUBSCRIBE_FAILED, sent_ns, self._clock(), refusal, subscription=subscription
            )
            await asyncio.sleep(backoff.pause_s(RefusedError(refusal)))

    async def _ask(self, subscription: Subscription, sent_ns: int) -> str | None:
        """Ask the hub once; what it says against it, or None."""
        self._asked += 1
        invocation_id = f"mdcapture-{self._asked}"
        answer = self._loop.create_future()
        self._answers[invocation_id] = _Answer(answer, subscription, sent_ns)
        self._asking.put((subscription, invocation_id))
        try:
            return await asyncio.wait_for(answer, self._answer_s)
        except TimeoutError:
            return f"no answer within {self._answer_s:.0f} s"
        finally:
            self._answers.pop(invocation_id, None)

    def _answer(self, invocation_id: str, refusal: str | None) -> None:
        asked = self._answers.pop(invocation_id, None)
        if asked is not None and not asked.refusal.done():
            if refusal is None:
                tell(
                    self._events, IncidentKind.SUBSCRIBED, asked.sent_ns, self._clock(), subscription=asked.subscription
                )
            asked.refusal.set_result(refusal)


def check_connection(connection: HubConnection) -> None:
    """Find out early that something is no connection.

    Raises:
        UsageError: It is none of `signalrcore`.
    """
    if not hasattr(connection, "_callbacks") or not callable(getattr(connection, "invoke", None)):
        raise UsageError(
            "this is no hub connection of signalrcore 1.0.2 or newer: attach what HubConnectionBuilder().build() gives"
        )


def _also(connection: HubConnection, name: str, ours: Callable[..., None]) -> None:
    """Call ours, too: they keep one callback of a kind, and do not say which."""
    theirs = getattr(connection._callbacks, f"_{name}")  # type: ignore[attr-defined]  # noqa: SLF001

    def both(*arguments: object) -> object:
        ours(*arguments)
        return theirs(*arguments)

    getattr(connection, name)(both)
