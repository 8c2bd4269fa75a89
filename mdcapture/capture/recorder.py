"""The recorder: from a gateway to sealed sessions, for an hour or for weeks.

    main thread                 capture thread (one event loop)                  feed thread          sealer process
    run, stop, figures  ──▶     hub ──▶ scribe ──▶ journal ── each flush ──▶     decode, handlers
                                          timers: flush, sync, segment, trading day, limits ────▶    seal, finish

The loop does nothing but stamp and journal. What is slow (forcing the disk, decoding, compressing, other people's
handlers) has a thread or a process of its own, and can only ever fall behind, not hold the journal up.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from mdcapture.capture.capture import Capture
from mdcapture.capture.events import DepthEvent, Event, QuoteEvent, SessionStart, TradeEvent
from mdcapture.capture.feed import Feed
from mdcapture.capture.health import Figures, Health
from mdcapture.capture.sleep import slept_ns
from mdcapture.capture.trading_day import next_roll_ns
from mdcapture.capture.upstream import borrowed_connection, own_connections
from mdcapture.config import read_api_key
from mdcapture.errors import ConfigError, UsageError
from mdcapture.gateway.rest import Credentials
from mdcapture.lake.manifest import read_manifest
from mdcapture.lake.schema import STREAMS, Incident, IncidentKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import TracebackType

    from mdcapture.config import Config
    from mdcapture.gateway.attached import HubConnection
    from mdcapture.lake.schema import SignalRow

__all__ = ["Captured", "Recorder"]

_LOOK_S: Final = 0.25
_SWITCH_S: Final = 0.0005
_EVENT_BATCHES: Final = 100

Handler = TypeVar("Handler", bound="Callable[..., object]")
BatchHandler = TypeVar("BatchHandler", bound="Callable[[list[Event]], object]")


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """What a run captured: the counts of its last session, and the ids of all."""

    session_id: str
    messages: int
    quotes: int
    trades: int
    depth: int
    rejects: int
    incidents: int
    status: str
    sessions: list[str]


class Recorder:
    """Captures the contracts of a configuration into a lake.

    Args:
        config: What to capture, from where, to where; a missing user name is read from `MDCAPTURE_USERNAME`.
        api_key: The gateway's key; by default from `MDCAPTURE_API_KEY` or `MDCAPTURE_API_KEY_FILE`.
        clock: Nanoseconds since the epoch, UTC.
        slept: How long this machine has slept, in nanoseconds.
        connection: See `attach`.

    Raises:
        ConfigError: There is nothing to capture, or nobody to log in as.

    Example:
        ```python
        with Recorder(Config(contracts=["MNQ"], username="me", duration_s=3600), api_key=key) as recorder:
            recorder.run()
        ```
    """

    def __init__(
        self,
        config: Config,
        *,
        api_key: str | None = None,
        clock: Callable[[], int] = time.time_ns,
        slept: Callable[[], int] = slept_ns,
        connection: HubConnection | None = None,
    ) -> None:
        if not config.contracts:
            raise ConfigError("no contract to capture: name some, as MNQ or CON.F.US.MNQ.Z26 (--contract, `contracts`)")
        if "://" in config.lake:
            raise ConfigError("a lake is recorded in a folder, and copied elsewhere meanwhile: `upload` says where to")
        if not (config.quotes or config.trades or config.depth):
            raise ConfigError("nothing to capture: quotes, trades and depth are all off")
        next_roll_ns(clock(), config.roll_time, config.roll_zone)  # a zone that does not exist is told now
        if connection is None:
            upstream = own_connections(config, _credentials(config, api_key), clock)
        else:
            upstream = borrowed_connection(config, connection, clock)
        self._config = config
        self._clock = clock
        self._feed = Feed(
            config.live_queue,
            report=lambda trouble: self._capture.tell(IncidentKind.HANDLER_FAILED, trouble),
            keep=lambda session_id, rows: self._capture.keep_signals(session_id, rows),  # noqa: PLW0108  # made below
        )
        self._capture = Capture(config, upstream, self._feed, clock, slept)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._health: Health | None = None

    @classmethod
    def attach(cls, connection: HubConnection, config: Config, *, clock: Callable[[], int] = time.time_ns) -> Self:
        """Record over a hub connection that this program holds: see `docs/attaching.md`.

        Args:
            connection: Of `signalrcore`, started or not; set its `on_open` and the like before the recorder starts.
            config: What to capture, to where; contracts by their full ids. Nobody logs in.
            clock: Nanoseconds since the epoch, UTC.

        Raises:
            UsageError: It is no connection of `signalrcore`.
            ConfigError: There is nothing to capture, or a contract is not named by its id.

        Example:
            ```python
            recorder = Recorder.attach(connection, Config(contracts=["CON.F.US.MNQ.Z26"]))
            recorder.start()
            ```
        """
        return cls(config, clock=clock, connection=connection)

    # Live events.

    def on_quote(self, handler: Handler) -> Handler:
        """Call this with each `QuoteEvent`, in a thread of its own; also as a decorator."""
        self._feed.handle(QuoteEvent, handler)
        return handler

    def on_trade(self, handler: Handler) -> Handler:
        """Call this with each `TradeEvent`, in a thread of its own; also as a decorator."""
        self._feed.handle(TradeEvent, handler)
        return handler

    def on_depth(self, handler: Handler) -> Handler:
        """Call this with each `DepthEvent`, in a thread of its own; also as a decorator."""
        self._feed.handle(DepthEvent, handler)
        return handler

    def on_incident(self, handler: Handler) -> Handler:
        """Call this with each `Incident`, in a thread of its own; also as a decorator."""
        self._feed.handle(Incident, handler)
        return handler

    def on_session(self, handler: Handler) -> Handler:
        """Call this with each `SessionStart`, before the first event of the session; also as a decorator."""
        self._feed.handle(SessionStart, handler)
        return handler

    def on_batch(self, handler: BatchHandler) -> BatchHandler:
        """Call this with lists of events, as they come, for work by the column; also as a decorator."""

        @wraps(handler)
        def take(batch: list[Event] | None) -> None:
            if batch:
                handler(batch)

        self._feed.listen(take)
        return handler

    def say(self, row: SignalRow) -> None:
        """Keep what a signal said in the table `signals` of the running session; only from a handler.

        Rows are journaled like messages, after them. Those of a handler that falls behind the market, or of the last
        moments before a crash, are not there: `Signals.store` makes them from the messages.
        """
        self._feed.say(row)

    async def events(self) -> AsyncIterator[Event]:
        """Quotes, trades and depth in the order of arrival, until the capture ends.

        A reader that is slower than the market misses some (an incident says so); the journal never does.
        """
        loop = asyncio.get_running_loop()
        batches: asyncio.Queue[list[Event] | None] = asyncio.Queue(_EVENT_BATCHES)
        self._feed.listen(lambda batch: asyncio.run_coroutine_threadsafe(batches.put(batch), loop).result())
        while (batch := await batches.get()) is not None:
            for event in batch:
                yield event

    # Running.

    def start(self) -> None:
        """Begin to capture, and return."""
        if self._thread is not None:
            raise UsageError("a recorder captures once: make another one")
        self._thread = threading.Thread(target=self._run, name="mdcapture-capture", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the capture to end; what has arrived is journaled and sealed. From any thread, and more than once."""
        self._capture.stop()

    def wait(self, timeout_s: float | None = None) -> Captured | None:
        """Wait for the end.

        Returns:
            What was captured; None if it still runs after that time.

        Raises:
            MdcaptureError: What ended the capture; what had arrived is journaled.
        """
        if self._thread is None:
            raise UsageError("the recorder was not started")
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return None
        if self._error is not None:
            raise self._error
        return self._captured()

    def run(self) -> Captured:
        """Capture until the configuration's duration or count is reached, or Ctrl-C.

        A second Ctrl-C does not wait for sealing: the next start, or `mdcapture recover`, does it.

        Raises:
            MdcaptureError: What ended the capture; what had arrived is journaled.
        """
        self.start()
        try:
            while (captured := self.wait(_LOOK_S)) is None:
                continue
        except KeyboardInterrupt:
            self.stop()
            while (captured := self.wait(_LOOK_S)) is None:
                continue
        return captured

    async def arun(self) -> Captured:
        """Capture like `run`, from async code; cancelling it ends the capture cleanly."""
        self.start()
        try:
            await asyncio.to_thread(self._join)
        except asyncio.CancelledError:
            self.stop()
            await asyncio.to_thread(self._join)
            raise
        captured = self.wait()
        assert captured is not None
        return captured

    @property
    def ending(self) -> bool:
        """Whether it has let go of the gateway, and seals what has arrived."""
        return self._capture.ending

    def figures(self) -> Figures | None:
        """The live figures; None before the first session is open."""
        if self._health is None:
            if self._capture.scribe is None:
                return None
            self._health = Health(self._capture.scribe, self._feed, self._capture.limits.reached)
        return self._health.figures(self._clock(), connected=self._capture.connected)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()
        self._join()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _captured(self) -> Captured:
        session_ids = self._capture.session_ids
        manifest = read_manifest(Path(self._config.lake), session_ids[-1])
        counts = {name: manifest.counts.get(name, 0) for name in ("messages", *STREAMS, "rejects", "incidents")}
        return Captured(session_id=manifest.session_id, status=manifest.state, sessions=list(session_ids), **counts)

    def _run(self) -> None:
        with _tuned(self._config.gc_threshold):
            self._feed.start()
            try:
                asyncio.run(self._capture.run())
            except BaseException as error:  # noqa: BLE001  # raised again in `wait`, where somebody is
                self._error = error
            finally:
                self._feed.stop()


def _credentials(config: Config, api_key: str | None) -> Credentials:
    username = config.username or os.environ.get("MDCAPTURE_USERNAME")
    key = api_key or read_api_key()
    if not username or not key:
        raise ConfigError(
            "nobody to log in as: set MDCAPTURE_USERNAME (or `username`), and the key in MDCAPTURE_API_KEY or in "
            "a file that MDCAPTURE_API_KEY_FILE names"
        )
    return Credentials(username, key)


@contextmanager
def _tuned(gc_threshold: int) -> Iterator[None]:
    """Let the collector run seldom, and threads take turns quickly, while a capture runs in this process."""
    thresholds, switch_s = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(gc_threshold, *thresholds[1:])
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(switch_s)
