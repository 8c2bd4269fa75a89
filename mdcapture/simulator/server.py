"""A local gateway: REST, market hub, a tape or a synthetic market, and faults on request.

    Feed ──messages──▶ Player ──▶ HubServer ──frames──▶ clients
                         │  └───▶ History ──bars──▶ RestServer
                         └ Fault ──▶ Simulator.strike

In a test or a program:

    async with Simulator(SimulatorConfig(tape="es.ndjson.zst", speed=math.inf)) as simulator:
        ...  # simulator.api, simulator.hub, simulator.logs, await simulator.strike(parse_fault("reset"))

From the command line: `serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import math
import os
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

import msgspec
from aiohttp import web

from mdcapture.errors import UsageError
from mdcapture.gateway.instruments import list_contracts, select
from mdcapture.simulator.faults import (
    DEFAULT_DURATION_S,
    GARBAGE,
    STREAMS,
    Doors,
    Fault,
    FaultKind,
    parse_fault,
    random_faults,
)
from mdcapture.simulator.feed import EVERYONE, Feed, Message, TapeFeed
from mdcapture.simulator.history import History
from mdcapture.simulator.hub_server import ConnectionLog, HubOptions, HubServer
from mdcapture.simulator.market import Market
from mdcapture.simulator.player import Player
from mdcapture.simulator.rest_server import Accounts, RestServer
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["Simulator", "SimulatorConfig", "parse_speed", "serve"]

_QUIET: Final = 0.02
"""What a contract trades that is not yet the active one, as a share of what that trades."""


def parse_speed(text: str) -> float:
    """A speed from its text: `max` is infinite.

    Raises:
        UsageError: It is no positive number.
    """
    try:
        speed = math.inf if text == "max" else float(text)
    except ValueError:
        speed = math.nan
    if not speed > 0:
        raise UsageError(f"no speed: {text!r}. It is a positive number (market seconds a second) or `max`")
    return speed


class SimulatorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Every option of the local gateway.

    Attributes:
        tape: The tape to play (`-` is the standard input); None for the synthetic market.
        session: The captured session to play instead (an id, a unique prefix, or `latest`).
        lake: The folder of its lake.
        speed: Market seconds in a second; infinite (`max`) is as fast as the clients read.
        contracts: What the synthetic market lists, as ids, names or roots; empty is all that it knows, where the
            expiries that are not yet active trade little.
        rate: Messages a second of one contract of the synthetic market, on average; they come in bursts.
        seed: Of the synthetic market, of packing and of random faults.
        pack: Pack records into frames and split them across frames at random, instead of a frame each.
        faults: What goes wrong, in the language of `faults.py`.
        fault_rate: Random faults a minute of the market, beside those.
        rate_limits: Whether the documented limits of REST requests hold.
        once: End when the tape has ended and the clients have gone.
        host: The address to listen at; whoever reaches it can enter.
        port: The port; 0 is any that is free.
        api_key: The key that lets any user in.
        token_life_s: How long a token lives.
        ping_s: How often the hub pings.
        client_timeout_s: After how long a silence the hub gives up a client.
        settle_s: The market opens when for so long no subscription has come.
        max_backlog_bytes: Except at full speed, how much may wait for a client that does not read, before the hub parts
            with it.
        keep_records: Keep all that is sent, for tests that compare.
    """

    tape: str | None = None
    session: str | None = None
    lake: str = "data"
    speed: float = 1.0
    contracts: tuple[str, ...] = ()
    rate: float = 124.0
    seed: int = 1
    pack: bool = False
    faults: tuple[str, ...] = ()
    fault_rate: float = 0.0
    rate_limits: bool = False
    once: bool = False
    host: str = "127.0.0.1"
    port: int = 0
    api_key: str = "demo"
    token_life_s: float = 86_400.0
    ping_s: float = 15.0
    client_timeout_s: float = 30.0
    settle_s: float = 0.3
    max_backlog_bytes: int = 64 << 20
    keep_records: bool = False


class Simulator:
    """The running gateway, as an asynchronous context.

    Args:
        config: Its options.

    Raises:
        UsageError: An option is wrong, or the tape is none (at construction); the tape breaks off (in `wait`).
    """

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self._config = config = config or SimulatorConfig()
        if not (config.rate > 0 and config.speed > 0 and config.fault_rate >= 0):
            raise UsageError("rate and speed of the local gateway must be positive, and fault_rate not negative")
        faults = [parse_fault(text) for text in config.faults]
        self._at_start = [fault for fault in faults if fault.precedes_market]
        timed = sorted((fault for fault in faults if not fault.precedes_market), key=_at_s)
        chance = random_faults(config.fault_rate, config.seed) if config.fault_rate else iter(())
        self._doors = Doors()
        self._refusals = 0
        self._accounts = Accounts(config.api_key, config.token_life_s)
        self._feed = _feed(config)
        self._history = History()
        ids = {contract.contract_id for contract in self._feed.contracts}
        self._hub = HubServer(
            HubOptions(
                pack=config.seed if config.pack else None,
                keep_records=config.keep_records,
                ping_s=config.ping_s,
                client_timeout_s=config.client_timeout_s,
                settle_s=config.settle_s,
            ),
            self._accounts,
            known=ids.__contains__,
            snapshot=self._snapshot,
            subscribing=self._doors.subscribing,
        )
        self._rest = RestServer(
            self._accounts,
            self._feed.contracts,
            self._feed.active,
            self._history,
            limited=config.rate_limits,
            trouble=self._doors.http_status,
        )
        self._player = Player(
            self._feed,
            self._hub,
            self._history,
            speed=config.speed,
            max_backlog_bytes=config.max_backlog_bytes,
            faults=heapq.merge(timed, chance, key=_at_s),
            strike=self.strike,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = config.port
        self.api = ""
        """The REST address, once it listens."""
        self.hub = ""
        """The market hub's address, once it listens."""

    @property
    def logs(self) -> list[ConnectionLog]:
        """An exact account of every connection so far."""
        return self._hub.logs

    @property
    def played(self) -> int:
        """How many messages have gone by, heard or not."""
        return self._player.played

    async def __aenter__(self) -> Self:
        application = web.Application()
        self._rest.add_routes(application.router)
        self._hub.add_routes(application.router)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await self._listen()
        for fault in self._at_start:
            await self.strike(fault)
        self._playing = asyncio.create_task(self._player.play())
        self._spawn(self._hub.ping())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._playing.cancel()
        self._hub.say_goodbye(allow_reconnect=True)
        await self._hub.hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()
        with contextlib.suppress(asyncio.CancelledError):
            await self._playing

    async def wait(self) -> None:
        """Wait for the end: with `once`, that of the tape and of the clients; otherwise there is none.

        Raises:
            UsageError: The tape breaks off.
        """
        await self._playing
        while self._hub.connections or not self._config.once:
            self._hub.changed.clear()
            await self._hub.changed.wait()

    async def wait_until_played(self) -> None:
        """Wait until the whole tape has been sent."""
        await asyncio.shield(self._playing)

    async def strike(self, fault: Fault) -> None:
        """Commit a fault now."""
        match fault.kind:
            case FaultKind.EXPIRE:
                self._accounts.expire()
            case FaultKind.REVOKE:
                self._accounts.revoke()
            case FaultKind.HTTP | FaultKind.DENY | FaultKind.IGNORE:
                self._doors.shut(fault)
            case FaultKind.REFUSE:
                await self._refuse(fault.duration_s or DEFAULT_DURATION_S)
            case _:
                self._strike_connections(fault)

    def _strike_connections(self, fault: Fault) -> None:
        match fault.kind:
            case FaultKind.CLOSE | FaultKind.CLOSE_FOREVER:
                reason = "Connection closed with an error."
                self._hub.say_goodbye(reason, allow_reconnect=fault.kind is FaultKind.CLOSE)
                self._spawn(self._hub.hang_up())
            case FaultKind.LOGOUT:
                self._hub.log_out()
                self._spawn(self._hub.hang_up())
            case FaultKind.RESET:
                self._hub.reset()
            case FaultKind.FREEZE:
                self._freeze(fault)
            case FaultKind.SILENCE:
                silenced = self._hub.silence()
                if fault.duration_s is not None:
                    self._spawn(self._hub.end_silence(silenced, fault.duration_s))
            case FaultKind.GARBAGE:
                self._hub.publish(-1, [Message(self._player.now_ns, "", EVERYONE, record) for record in GARBAGE])

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, self._config.host, self._port)
        try:
            await self._site.start()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise UsageError(
                f"can't listen at {self._config.host}:{self._port} ({why}): choose another, or 0"
            ) from error
        self._port = self._runner.addresses[0][1]
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        self.api = f"http://{host}:{self._port}"
        self.hub = f"ws://{host}:{self._port}/hubs/market"

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _freeze(self, fault: Fault) -> None:
        streams = STREAMS if fault.what is None else (fault.what,)
        if fault.duration_s is None:
            self._hub.stop_streams(streams)
        else:
            ends_ns = self._player.now_ns + round(fault.duration_s * NS_PER_S)
            self._hub.frozen_ns.update(dict.fromkeys(streams, ends_ns))

    async def _refuse(self, duration_s: float) -> None:
        """Break all connections and take no new ones; of refusals that overlap, the last to end opens again."""
        if not self._refusals:
            await self._site.stop()
        self._refusals += 1
        self._hub.reset()
        self._spawn(self._admit_after(duration_s))

    async def _admit_after(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)
        self._refusals -= 1
        if not self._refusals:
            await self._listen()

    def _snapshot(self, stream: str, contract_id: str) -> list[Message]:
        return self._feed.snapshot(stream, contract_id) if self._player.now_ns else []


def _at_s(fault: Fault) -> float:
    return fault.at_s or 0.0


def _feed(config: SimulatorConfig) -> Feed:
    if config.tape is not None and config.session is not None:
        raise UsageError("the local gateway plays a tape or a session, not both")
    if config.tape is not None:
        return TapeFeed(config.tape)
    if config.session is not None:
        from mdcapture.simulator.captured import SessionFeed  # noqa: PLC0415  # the lake takes its time to load

        return SessionFeed(config.lake, config.session)
    listings = list_contracts(datetime.now(UTC).date())
    if config.contracts:
        listings = select(config.contracts, listings)
    rates = {it.contract.contract_id: config.rate * (1 if it.active or config.contracts else _QUIET) for it in listings}
    return Market(listings, rates, config.seed)


def serve(config: SimulatorConfig) -> None:
    """Run the gateway until it is interrupted (SIGINT, SIGTERM), or with `once` until all is played.

    The first line on stdout, when it is ready, is `{"api": …, "hub": …}`.

    Raises:
        UsageError: An option is wrong, or the tape is none.
    """
    asyncio.run(_serve(config))


async def _serve(config: SimulatorConfig) -> None:
    async with Simulator(config) as simulator:
        waiting = asyncio.create_task(simulator.wait())
        for interruption in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(interruption, waiting.cancel)
        sys.stdout.write(json.dumps({"api": simulator.api, "hub": simulator.hub}) + "\n")
        sys.stdout.flush()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
