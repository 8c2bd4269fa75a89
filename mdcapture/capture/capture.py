"""The capture's event loop: the hub's records to the journal, and all that has to happen now and then.

hub ──▶ scribe ──▶ journal           at once
          └ flush                    after flush_ms at the latest: one write
sync                                 each sync_ms, in the disk's thread: fdatasync
segments                             each segment_s or segment_mb: the next one; a process seals the one before
limits                               each memory_check_s: memory, disk, files
figures                              each second: to the status file, systemd, Prometheus
watch                                each watch_s: silent streams, clocks that were set
backfill                             after a gap of trades: its bars
trading days                         at the day's end: the next session, with the contracts of that day
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mdcapture.capture import sealing
from mdcapture.capture.backfill import Backfill
from mdcapture.capture.health import Health
from mdcapture.capture.limits import Limits
from mdcapture.capture.market_hours import load_market_hours, open_since_ns, weekly
from mdcapture.capture.publishing import publish
from mdcapture.capture.scribe import Scribe
from mdcapture.capture.systemd import notify
from mdcapture.capture.trading_day import next_roll_ns
from mdcapture.capture.watchdog import Alarm, ClockWatch, Watchdog
from mdcapture.errors import GatewayError, StorageError
from mdcapture.gateway.connection import Timing
from mdcapture.gateway.contracts import resolve
from mdcapture.gateway.endpoints import endpoints
from mdcapture.gateway.hub import Hub, Subscription
from mdcapture.gateway.rest import Credentials, RestClient
from mdcapture.gateway.retry import RetryPolicy
from mdcapture.lake.schema import STREAMS, Incident, IncidentKind
from mdcapture.lake.writer import open_session
from mdcapture.wire.timestamps import NS_PER_S, format_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from mdcapture.capture.feed import Feed
    from mdcapture.capture.market_hours import OpenSpans
    from mdcapture.config import Config
    from mdcapture.lake.journal import Journal
    from mdcapture.lake.manifest import Contract
    from mdcapture.lake.writer import OpenSession

__all__ = ["Capture"]

_log = logging.getLogger(__name__)

_MB: Final = 1024 * 1024
_LONGEST_SLEEP_S: Final = 30.0
_LONGEST_PING_S: Final = 15.0


class Capture:
    """One run of a recorder, in the event loop of its own thread.

    Args:
        config: What to capture.
        credentials: Who asks for it.
        feed: Who listens.
        clock: Nanoseconds since the epoch, UTC.

    Attributes:
        session_ids: The sessions so far, the running one last.
        scribe: Who writes; None before the first session is open.
        limits: What may run out.
    """

    def __init__(self, config: Config, credentials: Credentials, feed: Feed, clock: Callable[[], int]) -> None:
        self.session_ids: list[str] = []
        self.scribe: Scribe | None = None
        self._config = config
        self._credentials = credentials
        self._feed = feed
        self._clock = clock
        self._root = Path(config.lake)
        self._where = endpoints(config.gateway, config.hub)
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hub: Hub | None = None
        self._disk = ThreadPoolExecutor(1, "mdcapture-disk")
        self._held: dict[str, ExitStack] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._sealing: asyncio.Task[bool] | None = None
        self._seal_early = False
        self.limits = Limits(config, self._root, feed, seal_early=self._close_early, tell=self.tell)
        self._open_spans: OpenSpans = weekly

    @property
    def connected(self) -> bool:
        """Whether the hub's connection stands."""
        return self._hub is not None and self._hub.connected

    def stop(self) -> None:
        """Let `run` end; from any thread."""
        if self._loop is None:
            self._stopped.set()
        else:
            self._in_loop(self._stopped.set)

    def tell(self, kind: IncidentKind, detail: str) -> None:
        """Note that something happened just now; from any thread."""
        now_ns = self._clock()
        if self._loop is not None and self.scribe is not None:
            incident = Incident(kind, None, None, now_ns, now_ns, detail)
            self._in_loop(self.scribe.on_incident, incident)

    def _in_loop(self, call: Callable[..., object], *arguments: object) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has just ended
            self._loop.call_soon_threadsafe(call, *arguments)

    async def run(self) -> None:
        """Capture until told to stop, or until a limit or an error ends it; what has arrived is sealed in any case.

        Raises:
            GatewayError: The gateway refused, or stayed away for longer than the configuration allows.
            StorageError: The disk refused, or is nearly full; the journal keeps what could not be sealed.
        """
        self._loop = asyncio.get_running_loop()
        async with RestClient(self._where.api, self._credentials) as rest:
            contracts = await self._resolve(rest)
            session = await self._open(contracts)
            recovery = asyncio.create_task(sealing.recover(self._root))
            subscriptions = self._subscriptions(contracts)
            scribe = self.scribe = Scribe(
                session,
                subscriptions,
                self._feed,
                clock=self._clock,
                schedule=self._flush_soon,
                flush_bytes=self._config.flush_kb * 1024,
                wait_bytes=self._config.disk_wait_mb * _MB,
                count=self._config.count,
            )
            hub = self._hub = self._make_hub(rest, scribe)
            hub.subscribe(subscriptions)
            scribe.loss_ended = lambda: hub.subscribe(scribe.streams.pulses(), again=True)
            try:
                await _until_one_ends(
                    hub.run(),
                    self._stopped.wait(),
                    self._time_is_over(),
                    scribe.enough.wait(),
                    self._sync(scribe),
                    self._segments(scribe),
                    self.limits.watch(),
                    self._publish(Health(scribe, self._feed, self.limits.reached)),
                    self._watch(hub, scribe),
                    self._backfill(rest, scribe),
                    self._trading_days(rest, hub, scribe, contracts),
                )
            finally:
                notify("STOPPING=1")
                hub.stop()
                scribe.end()
                await self._close(scribe.session)
                await asyncio.gather(recovery, *self._closing)
                self._disk.shutdown()

    # What it is about.

    async def _resolve(self, rest: RestClient) -> list[Contract]:
        contracts = [await resolve(rest, text) for text in self._config.contracts]
        return list({contract.contract_id: contract for contract in contracts}.values())

    def _subscriptions(self, contracts: Sequence[Contract]) -> list[Subscription]:
        streams = [stream for stream in STREAMS if getattr(self._config, stream)]
        return [Subscription(stream, contract.contract_id) for contract in contracts for stream in streams]

    def _make_hub(self, rest: RestClient, scribe: Scribe) -> Hub:
        config = self._config
        policy = RetryPolicy(
            first_s=config.reconnect_first_s,
            max_s=config.reconnect_max_s,
            attempts=config.reconnect_attempts,
            logout_first_s=config.logout_first_s,
            logout_max_s=config.logout_max_s,
        )
        timing = Timing(
            connect_s=config.answer_s,
            ping_s=min(_LONGEST_PING_S, config.silence_s / 2),
            silence_s=config.silence_s,
            completion_s=config.answer_s,
        )
        return Hub(self._where.hub, rest.token, scribe, policy=policy, timing=timing, clock=self._clock)

    # Sessions.

    async def _open(self, contracts: Sequence[Contract]) -> OpenSession:
        held = ExitStack()

        def enter() -> OpenSession:
            config = msgspec.to_builtins(self._config)
            return held.enter_context(open_session(self._root, self._clock(), config=config, contracts=contracts))

        session = await asyncio.get_running_loop().run_in_executor(self._disk, enter)
        self._held[session.session_id] = held
        self.session_ids.append(session.session_id)
        _log.info("%s: capturing %s", session.session_id, ", ".join(contract.contract_id for contract in contracts))
        return session

    async def _close(self, session: OpenSession) -> None:
        """Close a session's journal, have the rest of it sealed, and let go of it."""
        with self._held.pop(session.session_id):
            await asyncio.get_running_loop().run_in_executor(self._disk, _close_journal, session.journal)
            if self._sealing is not None:
                await self._sealing
            await sealing.finish(self._root, session.session_id)
        _log.info("%s: sealed", session.session_id)

    async def _trading_days(self, rest: RestClient, hub: Hub, scribe: Scribe, contracts: list[Contract]) -> object:
        """At each day's end begin a session with that day's contracts, on the same connection.

        All is subscribed to once more, and nothing is unsubscribed before: the gateway may answer with a fresh
        snapshot, and not a message is missed while it does.
        """
        while True:
            roll_ns = next_roll_ns(self._clock(), self._config.roll_time, self._config.roll_zone)
            if roll_ns is None:
                return await asyncio.Event().wait()
            while (left_s := (roll_ns - self._clock()) / 1e9) > 0:  # noqa: ASYNC110  # the clock may be set meanwhile
                await asyncio.sleep(min(left_s, _LONGEST_SLEEP_S))
            before, contracts = contracts, await self._contracts_of_the_day(rest, contracts)
            subscriptions = self._subscriptions(contracts)
            ended = scribe.turn(await self._open(contracts), subscriptions)
            hub.unsubscribe(set(self._subscriptions(before)) - set(subscriptions))
            hub.subscribe(subscriptions, again=True)
            closing = asyncio.create_task(self._close(ended))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _contracts_of_the_day(self, rest: RestClient, before: list[Contract]) -> list[Contract]:
        try:
            return await self._resolve(rest)
        except GatewayError as error:
            _log.warning("the day's contracts can't be looked up (%s); yesterday's go on", error)
            return before

    # Now and then.

    def _flush_soon(self) -> None:
        assert self._loop is not None
        assert self.scribe is not None
        self._loop.call_later(self._config.flush_ms / 1000, self.scribe.flush)

    async def _time_is_over(self) -> None:
        if self._config.duration_s is None:
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(self._config.duration_s)

    async def _sync(self, scribe: Scribe) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._config.sync_ms / 1000)
            try:
                await loop.run_in_executor(self._disk, scribe.session.journal.sync)
            except OSError as error:
                _log.warning("the journal can't be forced onto the disk: %s", error)

    async def _segments(self, scribe: Scribe) -> None:
        """Close a segment when it is old or large enough, and have it sealed; one process at a time."""
        config = self._config
        loop = asyncio.get_running_loop()
        opened_s = loop.time()
        while True:
            await asyncio.sleep(min(1.0, config.segment_s / 10))
            session = scribe.session
            size = session.journal.segment_bytes
            old = loop.time() - opened_s >= config.segment_s and size > 0
            large = size >= (0 if self._seal_early else config.segment_mb * _MB) and size > 0
            if (old or large) and (self._sealing is None or self._sealing.done()):
                opened_s = loop.time()
                self._seal_early = False
                await self._close_segment(session)

    def _close_early(self) -> None:
        self._seal_early = True

    async def _close_segment(self, session: OpenSession) -> None:
        """Go on in the next segment, and begin to seal what came before."""
        journal = session.journal
        try:
            before = journal.roll()
        except StorageError as error:
            _log.warning("%s; this segment of the journal goes on", error)
            return
        await asyncio.get_running_loop().run_in_executor(self._disk, journal.retire, before)
        self._sealing = asyncio.create_task(sealing.seal(self._root, session.session_id, journal.segment - 1))

    async def _watch(self, hub: Hub, scribe: Scribe) -> None:
        """Look at the clocks, and at streams that are silent."""
        config = self._config
        loop = asyncio.get_running_loop()
        self._open_spans = await load_market_hours(config.calendar, self._clock())
        watchdog = Watchdog(min_s=config.stall_min_s, max_s=config.stall_max_s, factor=config.stall_factor)
        clocks = ClockWatch(
            interval_s=config.watch_s, step_s=config.clock_step_ms / 1000, suspended_s=config.suspended_s
        )
        clocks.look(self._clock(), int(loop.time() * NS_PER_S))
        while True:
            await asyncio.sleep(config.watch_s)
            now_ns = self._clock()
            found = clocks.look(now_ns, int(loop.time() * NS_PER_S))
            for incident in found.incidents:
                scribe.on_incident(incident)
                watchdog.restart(now_ns)
            if found.step_ns:
                scribe.streams.step(found.step_ns, found.since_ns, now_ns)
            scribe.watch()
            if config.watchdog and not scribe.disk_failing:
                open_ns = open_since_ns(self._open_spans, now_ns)
                _act(watchdog.look(now_ns, scribe.streams.pulses(), open_ns), hub, scribe)

    async def _backfill(self, rest: RestClient, scribe: Scribe) -> None:
        """Fetch the bars of gaps."""
        if not self._config.backfill:
            await asyncio.Event().wait()
        backfill = Backfill(
            rest.bars,
            scribe.on_incident,
            lambda from_ns, to_ns: self._open_spans(from_ns, to_ns),  # noqa: PLW0108  # it is loaded meanwhile
            clock=self._clock,
            delay_s=self._config.backfill_delay_s,
        )
        scribe.gap_ended = backfill.want
        await backfill.run()

    async def _publish(self, health: Health) -> None:
        """Let those who watch this recorder know how it fares."""
        await publish(
            lambda: health.figures(self._clock(), connected=self.connected), self._root, self._config.metrics_port
        )


def _close_journal(journal: Journal) -> None:
    try:
        journal.close()
    except StorageError as error:
        count, first_ns = journal.waiting()
        since = "" if first_ns is None else f" that came since {format_ns(first_ns)}"
        raise StorageError(
            error.errno,
            f"{error}; this was the last try, and {count:,} messages{since} are lost; what came before is in the "
            "journal: free some space and `mdcapture recover` seals it",
        ) from error


def _act(alarms: Sequence[Alarm], hub: Hub, scribe: Scribe) -> None:
    """Tell of streams that are silent, and subscribe to them anew, or reconnect where that has not helped."""
    reasons = {}
    for alarm in alarms:
        silence_s, pause_s = alarm.silence_ns / NS_PER_S, alarm.pause_ns / NS_PER_S
        detail = f"silent for {silence_s:.1f} s; its longest pause of late was {pause_s:.1f} s"
        reasons[alarm.subscription] = detail
        if alarm.first:
            since_ns = scribe.streams.last_good_ns(alarm.subscription)
            scribe.on_incident(Incident(IncidentKind.STALLED, *alarm.subscription, since_ns, None, detail))
    hopeless = next((alarm.subscription for alarm in alarms if alarm.reconnect), None)
    if hopeless is not None:
        hub.reconnect(
            f"{hopeless.contract_id} {hopeless.stream}: {reasons[hopeless]}, and subscribing anew did not help"
        )
        return
    for subscription, reason in reasons.items():
        hub.resubscribe(subscription, reason)


async def _until_one_ends(*courses: Coroutine[Any, Any, object]) -> None:
    """Run all until one of them ends, then end the others; what it raised is raised."""
    tasks = [asyncio.create_task(course) for course in courses]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
