"""The capture's event loop: the hub's records to the journal, and all that has to happen now and then.

hub ──▶ scribe ──▶ journal           at once
          └ flush                    after flush_ms at the latest: one write
sync                                 each sync_ms, in the disk's thread: fdatasync
segments                             each segment_s or segment_mb: the next one; a process seals the one before
limits                               each memory_check_s: memory, disk, files
figures                              each second: to the status file, systemd, Prometheus
watch                                each watch_s: silent streams, clocks that were set
backfill                             after a gap of trades: its bars
trading days                         at the day's end: the next session, with the contracts of that day; those that
                                     can't be looked up then are asked for again
"""

from __future__ import annotations

import asyncio
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mdcapture.capture import sealing
from mdcapture.capture.backfill import Backfill
from mdcapture.capture.following import Follower
from mdcapture.capture.health import Health
from mdcapture.capture.limits import Limits
from mdcapture.capture.market_hours import load_market_hours, open_since_ns, weekly
from mdcapture.capture.publishing import publish
from mdcapture.capture.roster import Roster
from mdcapture.capture.scribe import Scribe
from mdcapture.capture.systemd import notify
from mdcapture.capture.trading_day import next_roll_ns
from mdcapture.capture.upstream import retry_policy
from mdcapture.capture.watchdog import Alarm, ClockWatch, Watchdog
from mdcapture.errors import GatewayError, StorageError, UnreachableError
from mdcapture.gateway.hub import Subscription
from mdcapture.gateway.retry import Backoff, Verdict, verdict
from mdcapture.lake.journal import ENDED
from mdcapture.lake.layout import journal_folder
from mdcapture.lake.remote import shown_url
from mdcapture.lake.schema import STREAMS, Incident, IncidentKind
from mdcapture.lake.writer import open_session
from mdcapture.wire.timestamps import NS_PER_S, format_ns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

    from mdcapture.capture.backfill import BarSource
    from mdcapture.capture.feed import Feed
    from mdcapture.capture.market_hours import OpenSpans
    from mdcapture.capture.upstream import MarketHub, Upstream
    from mdcapture.config import Config
    from mdcapture.lake.journal import Journal
    from mdcapture.lake.manifest import Contract
    from mdcapture.lake.schema import SignalRow
    from mdcapture.lake.writer import OpenSession

__all__ = ["Capture"]

_log = logging.getLogger(__name__)

_MB: Final = 1024 * 1024
_LONGEST_SLEEP_S: Final = 30.0
_LONGEST_PATIENCE_S: Final = 3600.0
_NOT_FORCED: Final = "the journal can't be forced onto the disk"


class Capture:
    """One run of a recorder, in the event loop of its own thread.

    Args:
        config: What to capture.
        upstream: Where contracts, records and bars come from.
        feed: Who listens.
        clock: Nanoseconds since the epoch, UTC.
        slept: How long this machine has slept, in nanoseconds.

    Attributes:
        session_ids: The sessions so far, the running one last.
        scribe: Who writes; None before the first session is open.
        limits: What may run out.
    """

    def __init__(
        self,
        config: Config,
        upstream: AbstractAsyncContextManager[Upstream],
        feed: Feed,
        clock: Callable[[], int],
        slept: Callable[[], int],
    ) -> None:
        self.session_ids: list[str] = []
        self.scribe: Scribe | None = None
        self._config = config
        self._upstream = upstream
        self._feed = feed
        self._clock = clock
        self._slept = slept
        self._root = Path(config.lake)
        self._source = ""
        self._followers = _followers(config, self._root)
        self._stopped = asyncio.Event()
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hub: MarketHub | None = None
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

    @property
    def ending(self) -> bool:
        """Whether nothing more is taken, and what has arrived is being sealed."""
        return self._over.is_set()

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

    def keep_signals(self, session_id: str, rows: list[SignalRow]) -> None:
        """Journal what signals said of messages of a session; from any thread."""
        if self.scribe is not None:
            self._in_loop(self.scribe.on_signals, session_id, rows)

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
        async with self._upstream as upstream:
            self._source = upstream.source
            roster = await self._first_contracts(upstream)
            session = await self._open(roster.contracts)
            recovery = asyncio.create_task(sealing.recover(self._root))
            subscriptions = self._subscriptions(roster.contracts)
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
            hub = self._hub = upstream.hub(scribe)
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
                    self._backfill(upstream.bars, scribe),
                    self._trading_days(hub, scribe, roster),
                    *(follower.follow() for follower in self._followers),
                )
            finally:
                self._over.set()
                notify("STOPPING=1")
                hub.stop()
                scribe.end()
                await _all(self._close(scribe.session), recovery, *self._closing)
                await asyncio.gather(*(follower.finish() for follower in self._followers))
                self._disk.shutdown()

    # What it is about.

    async def _first_contracts(self, upstream: Upstream) -> Roster:
        """Look the contracts up, with a patience for a gateway that is away like that for one that went away later."""
        roster = Roster(self._config.contracts, upstream.contract)

        async def look() -> None:
            loop = asyncio.get_running_loop()
            began_s, backoff = loop.time(), Backoff(retry_policy(self._config))
            while not roster.contracts:
                try:
                    await roster.find_all()
                except GatewayError as error:
                    late = self._config.duration_s is not None and loop.time() - began_s >= self._config.duration_s
                    await self._pause(error, backoff, late=late)

        await _until_one_ends(look(), self._stopped.wait())
        if not roster.contracts:
            raise UnreachableError("ended before the gateway could be reached: nothing was captured")
        return roster

    @staticmethod
    async def _pause(error: GatewayError, backoff: Backoff, *, late: bool) -> None:
        """Wait for the next try, if the error is worth one."""
        if late or verdict(error, refreshed=True) is not Verdict.RETRY:
            raise error
        pause_s = backoff.pause_s(error)
        if backoff.exhausted:
            raise UnreachableError(f"{error} (given up after {backoff.failures} tries in a row)") from error
        _log.warning("%s; nothing is captured yet, the next try is in %.1f s", error, pause_s)
        notify(f"STATUS=not begun: {error}")
        await asyncio.sleep(pause_s)

    def _subscriptions(self, contracts: Sequence[Contract]) -> list[Subscription]:
        streams = [stream for stream in STREAMS if getattr(self._config, stream)]
        return [Subscription(stream, contract.contract_id) for contract in contracts for stream in streams]

    # Sessions.

    async def _open(self, contracts: Sequence[Contract]) -> OpenSession:
        held = ExitStack()

        def enter() -> OpenSession:
            config = msgspec.to_builtins(self._config)
            return held.enter_context(
                open_session(self._root, self._clock(), source=self._source, config=config, contracts=contracts)
            )

        opening = asyncio.get_running_loop().run_in_executor(self._disk, enter)
        try:
            session = await asyncio.shield(opening)
        except asyncio.CancelledError as ended:  # the capture ends, and nobody is to write what is being opened
            self._disk.submit(held.__exit__, type(ended), ended, None)
            raise
        self._held[session.session_id] = held
        self.session_ids.append(session.session_id)
        _log.info("%s: capturing %s", session.session_id, ", ".join(contract.contract_id for contract in contracts))
        return session

    async def _close(self, session: OpenSession) -> None:
        """Let signals have their say, close a session's journal, have the rest of it sealed, and let go of it.

        A disk that refuses is asked again for as long as the capture goes on, and once more at its end.
        """
        assert self.scribe is not None
        flush = session.journal.flush
        with self._held.pop(session.session_id):
            if not session.journal.pending_bytes:
                await self._force(_tell_end, session)
            await asyncio.to_thread(self._feed.catch_up)
            self.scribe.leave(session)
            while not self.ending:
                try:
                    await asyncio.get_running_loop().run_in_executor(self._disk, flush)  # what fails here is kept
                    await self._seal_rest(session)
                except StorageError as error:
                    _log.warning("%s: %s", session.session_id, error)
                if not journal_folder(self._root, session.session_id).exists():
                    return  # it is closed, also where a file of it was found damaged
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), self._config.memory_check_s)
            await self._seal_rest(session)

    async def _seal_rest(self, session: OpenSession) -> None:
        assert self.scribe is not None
        lost = self.scribe.lost_untold if session is self.scribe.session else 0
        await asyncio.get_running_loop().run_in_executor(self._disk, _end_journal, session.journal, lost)
        if self._sealing is not None:
            await self._sealing
        await sealing.finish(self._root, session.session_id)
        _log.info("%s: sealed", session.session_id)

    async def _open_in_time(self, scribe: Scribe, contracts: Sequence[Contract]) -> OpenSession:
        """Begin a session as soon as the disk takes what waits, and the session; until then the one before goes on."""
        while True:
            trouble = "the disk refuses to be written"
            if not scribe.disk_failing:
                try:
                    return await self._open(contracts)
                except StorageError as error:
                    trouble = str(error)
            _log.warning("the trading day has no session yet, the one before goes on: %s", trouble)
            await asyncio.sleep(self._config.memory_check_s)

    async def _trading_days(self, hub: MarketHub, scribe: Scribe, roster: Roster) -> object:
        """At each day's end begin a session with that day's contracts.

        What can't be looked up then is asked for again, ever less often. If it has come to mean another contract, a
        session begins with that one: what a manifest says of contracts is true of all of its session.
        """
        while True:
            roll_ns = next_roll_ns(self._clock(), self._config.roll_time, self._config.roll_zone)
            if roll_ns is None:
                return await asyncio.Event().wait()
            patience_s = self._config.reconnect_max_s
            while not await self._day_ends(roll_ns, patience_s if roster.unresolved else math.inf):
                patience_s = max(patience_s, min(2 * patience_s, _LONGEST_PATIENCE_S))
                if await roster.ask_again():
                    await self._turn(hub, scribe, roster)
            await roster.begin_day()
            await self._turn(hub, scribe, roster)

    async def _day_ends(self, roll_ns: int, within_s: float) -> bool:
        """Wait for a day's end, or for a time, while the clock may be set; whether the day has ended."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        while (left_s := min((roll_ns - self._clock()) / NS_PER_S, until_s - loop.time())) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left_s, _LONGEST_SLEEP_S))
        return self._clock() >= roll_ns

    async def _turn(self, hub: MarketHub, scribe: Scribe, roster: Roster) -> None:
        """Go on in a new session, on the same connection.

        All is subscribed to once more, and nothing is unsubscribed before: the gateway may answer with a fresh
        snapshot, and not a message is missed while it does.
        """
        subscriptions = self._subscriptions(roster.contracts)
        ended = scribe.turn(await self._open_in_time(scribe, roster.contracts), subscriptions)
        for incident in roster.incidents(self._clock()):
            scribe.on_incident(incident)
        hub.unsubscribe(set(self._subscriptions(ended.manifest.contracts)) - set(subscriptions))
        hub.subscribe(subscriptions, again=True)
        closing = asyncio.create_task(self._close(ended))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

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
        while True:
            await asyncio.sleep(self._config.sync_ms / 1000)
            await self._force(scribe.session.journal.sync)

    async def _force(self, force: Callable[..., None], *arguments: object) -> None:
        """Force a part of the journal onto the disk; where that fails, it can be read, and sealed, all the same."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, force, *arguments)
        except OSError as error:
            _log.warning("%s: %s", _NOT_FORCED, error)

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
                await self._close_segment(scribe)

    def _close_early(self) -> None:
        self._seal_early = True

    async def _close_segment(self, scribe: Scribe) -> None:
        """Go on in the next segment, and begin to seal what came before."""
        session, journal = scribe.session, scribe.session.journal
        try:
            before = scribe.roll()
        except StorageError as error:
            _log.warning("%s; this segment of the journal goes on", error)
            return
        await self._force(journal.retire, before)
        self._sealing = asyncio.create_task(sealing.seal(self._root, session.session_id, journal.segment - 1))

    async def _watch(self, hub: MarketHub, scribe: Scribe) -> None:
        """Look at the clocks, and at streams that are silent."""
        config = self._config
        loop = asyncio.get_running_loop()
        self._open_spans = await load_market_hours(config.calendar, self._clock())
        watchdog = Watchdog(min_s=config.stall_min_s, max_s=config.stall_max_s, factor=config.stall_factor)
        clocks = ClockWatch(
            interval_s=config.watch_s, step_s=config.clock_step_ms / 1000, suspended_s=config.suspended_s
        )

        def look() -> None:
            scribe.watch()
            now_ns = self._clock()
            found = clocks.look(now_ns, int(loop.time() * NS_PER_S), self._slept())
            for incident in (*found.incidents, *scribe.streams.step(found.step_ns, now_ns)):
                scribe.on_incident(incident)
                watchdog.restart(now_ns)
            if found.slept_ns >= config.silence_s * NS_PER_S:
                hub.reconnect("this machine slept for longer than a connection may be silent")
            elif any(incident.kind == IncidentKind.SLEPT for incident in found.incidents):
                hub.subscribe(scribe.streams.pulses(), again=True)  # what held before it may not hold any more

        look()
        scribe.resumed = look
        while True:
            await asyncio.sleep(config.watch_s)
            look()
            if config.watchdog and not scribe.disk_failing:
                now_ns = self._clock()
                open_ns = open_since_ns(self._open_spans, now_ns)
                _act(watchdog.look(now_ns, scribe.streams.pulses(), open_ns), hub, scribe)

    async def _backfill(self, bars: BarSource | None, scribe: Scribe) -> None:
        """Fetch the bars of gaps."""
        if bars is None or not self._config.backfill:
            await asyncio.Event().wait()
            return
        backfill = Backfill(
            bars,
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


def _followers(config: Config, root: Path) -> list[Follower]:
    """The copies that are kept up to date meanwhile."""
    found = []
    if config.upload is not None:
        command = ("mdcapture.lake", "upload", str(root), config.upload)
        found.append(Follower(f"uploading to {shown_url(config.upload)}", root, command, config.upload_s))
    if config.publish is not None:
        command = ("mdcapture.interop.postgres", str(root), config.publish, str(config.publish_s))
        found.append(Follower(f"publishing to {config.publish}", root, command, config.publish_s))
    return found


def _tell_end(session: OpenSession) -> None:
    """Leave word that all messages are there: should handlers not live to say more, it is no gap."""
    session.journal.sync()
    (journal_folder(session.root, session.session_id) / ENDED).touch(0o640)


def _end_journal(journal: Journal, lost: int) -> None:
    """Close a journal for good; `lost` messages had no room in it, and it does not say so yet."""
    try:
        journal.end()
    except StorageError as error:
        if not journal.pending_bytes:
            _log.warning("%s: %s", _NOT_FORCED, error)
            journal.end()
            return
        count, first_ns = journal.waiting()
        since = "" if first_ns is None else f" that came since {format_ns(first_ns)}"
        raise StorageError(
            error.errno,
            f"{error}; this was the last try, and {count + lost:,} messages{since} are lost; what came before is in "
            "the journal: free some space and `mdcapture recover` seals it",
        ) from error


def _act(alarms: Sequence[Alarm], hub: MarketHub, scribe: Scribe) -> None:
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


async def _all(*courses: Awaitable[object]) -> None:
    """Run all to their ends; the first error of those that had one is raised then."""
    for ended in await asyncio.gather(*courses, return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended


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
