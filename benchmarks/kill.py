"""`kill -9`, again and again: what is lost each time, and whether all else is there, once.

    local gateway (this process) ──socket──▶ recorder (process) ──▶ journal ──▶ sealer (process)
       keeps what it sent, and when               ▲ SIGKILL at a random moment     ▲ SIGKILL, now and then

The next recorder recovers what its predecessor left, unasked. Then that session is held against the gateway's account:
it must be the beginning of what was sent, each message once, and `verify --deep` must find nothing. What was sent after
its last message and before the kill counts as lost, although some of it had not yet arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import psutil

import mdcapture as md
from mdcapture.lake.schema import NO_END_NS, STREAMS
from mdcapture.lake.verify import verify
from mdcapture.simulator.hub_server import ConnectionLog
from mdcapture.simulator.server import Simulator, SimulatorConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


LIMIT_S = 120
CONTRACTS = ("MNQ", "MES", "M2K", "YM")
SAMPLE_S = 0.0005


class Account(NamedTuple):
    """The gateway's account of one connection, and how many records had been sent at which time."""

    log: ConnectionLog
    times_ns: list[int]
    counts: list[int]

    def sent_ns(self, number: int) -> int:
        """A time before which a record was not yet sent."""
        at = bisect_right(self.counts, number) - 1
        return self.times_ns[at] if at >= 0 else self.times_ns[0]


class Gateway:
    """A local gateway in a thread of its own; watches itself send."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.account: Account | None = None

    def receives(self) -> bool:
        """Whether anything has been sent to the one who is connected."""
        return self.account is not None and len(self.account.log.records) > 0

    async def watch(self) -> None:
        """Note how much has been sent, again and again."""
        while True:
            logs = self.simulator.logs
            if logs and (self.account is None or self.account.log is not logs[-1]):
                self.account = Account(logs[-1], [], [])
            if self.account is not None:
                self.account.times_ns.append(time.time_ns())
                self.account.counts.append(len(self.account.log.records))
            await asyncio.sleep(SAMPLE_S)


@contextmanager
def gateway(messages_per_s: float, seed: int) -> Iterator[Gateway]:
    """Run a local gateway."""
    config = SimulatorConfig(contracts=CONTRACTS, rate=messages_per_s / len(CONTRACTS), seed=seed, keep_records=True)
    ready: list[Gateway] = []
    listens = threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def run() -> None:
        async with Simulator(config) as simulator:
            ready.append(Gateway(simulator))
            watching = asyncio.create_task(ready[0].watch())
            listens.set()
            await ended.wait()
            watching.cancel()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    if not listens.wait(LIMIT_S):
        raise TimeoutError("the gateway does not listen")
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def start(api: str, lake: Path) -> subprocess.Popen[bytes]:
    """Start a recorder that seals twice a second."""
    options = [option for root in CONTRACTS for option in ("--contract", root)]
    settings = ("--set", "segment_s=0.5", "--stats", "none")
    environment = os.environ | {"MDCAPTURE_API_KEY": "demo", "MDCAPTURE_USERNAME": "bench"}
    command = [sys.executable, "-m", "mdcapture", "capture", "--gateway", api, "--lake", str(lake), *options, *settings]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Look until it is so."""
    limit_s = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > limit_s:
            raise TimeoutError(what)
        time.sleep(0.005)


def kill_sealer(recorder: subprocess.Popen[bytes]) -> None:
    """Kill the sealer as soon as there is one, some time after its start."""
    sealers: list[psutil.Process] = []

    def found() -> bool:
        sealers[:] = psutil.Process(recorder.pid).children()
        return bool(sealers)

    wait_until(found, "no sealer has been started")
    time.sleep(random.uniform(0.2, 0.6))
    with suppress(psutil.NoSuchProcess):
        sealers[0].kill()


class Killed(NamedTuple):
    """A session whose recorder was killed, and what the gateway had sent it until then."""

    session_id: str
    killed_ns: int
    account: Account


def record_and_kill(
    served: Gateway, lake: Path, before: Killed | None, how: signal.Signals, *, sealer: bool
) -> tuple[Killed, dict[str, float] | None]:
    """Start a recorder, let it recover what the one before left, and end it; with the account of that one before."""
    known = served.account
    recorder = start(served.simulator.api, lake)
    try:
        wait_until(lambda: served.account is not known and served.receives(), "no connection")
        account = served.account
        assert account is not None
        checked = None
        if before is not None:
            wait_until(lambda: md.open_lake(lake).session(before.session_id).status == "recovered", "no recovery")
            checked = check(lake, before)
        if sealer:
            kill_sealer(recorder)
        time.sleep(random.uniform(0.0, 2.0))
    finally:
        killed_ns = time.time_ns()
        recorder.send_signal(how)
        recorder.wait()
    assert account is served.account, "the recorder has connected more than once"
    session_id = md.open_lake(lake).sessions()[-1].session_id
    return Killed(session_id, killed_ns, account), checked


def check(lake: Path, killed: Killed) -> dict[str, float]:
    """Hold a recovered session against the gateway's account."""
    session = md.open_lake(lake).session(killed.session_id)
    rows = session.messages().select("seq", "recv_ns", "payload").collect().sort("seq")
    stored = [text.encode() for text in rows["payload"]]
    sent = killed.account.log.records
    problems = verify(lake, killed.session_id, deep=True)
    lost_ms = 0.0
    if len(stored) < len(sent):
        since_last_ns = killed.killed_ns - (rows["recv_ns"][-1] if stored else 0)
        since_sent_ns = killed.killed_ns - killed.account.sent_ns(len(stored))
        lost_ms = max(0.0, min(since_last_ns, since_sent_ns) / 1e6)
    wrong = stored != sent[: len(stored)]
    sent.clear()  # or else all that was ever sent would stay in memory
    return {
        "messages": len(stored),
        "wrong": int(wrong),
        "problems": len(problems),
        "untold": untold(session),
        "lost_ms": lost_ms,
    }


def untold(session: md.Session) -> int:
    """Streams whose gap without an end does not begin at their last message."""
    gaps = session.gaps().filter(pl.col("to_ns") == NO_END_NS).collect()
    told = {(contract_id, stream): from_ns for _, contract_id, stream, from_ns, _ in gaps.rows()}
    last = {
        (contract_id, stream): last_ns
        for stream in STREAMS
        for contract_id, last_ns in getattr(session, stream)()
        .group_by("contract_id")
        .agg(pl.col("recv_ns").max())
        .collect()
        .rows()
    }
    return sum(told.get(which) != last_ns for which, last_ns in last.items())


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--rate", type=float, default=5000.0, help="messages a second")
    parser.add_argument("--sealer-every", type=int, default=4, help="each so often the sealer is killed, too")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    random.seed(chosen.seed)
    checks = []
    with tempfile.TemporaryDirectory() as folder, gateway(chosen.rate, chosen.seed) as served:
        lake = Path(folder)
        killed = None
        for number in range(chosen.times + 1):  # the last one recovers, and may end by itself
            sealer = number % chosen.sealer_every == chosen.sealer_every - 1
            how = signal.SIGKILL if number < chosen.times else signal.SIGTERM
            killed, checked = record_and_kill(served, lake, killed, how, sealer=sealer)
            if checked is not None:
                checks.append(checked)
                print(f"{len(checks)}/{chosen.times} {json.dumps(checked)}", file=sys.stderr)
    lost_ms = sorted(one["lost_ms"] for one in checks)
    figures = {
        "kills": len(checks),
        "messages": sum(one["messages"] for one in checks),
        "wrong_sessions": sum(one["wrong"] for one in checks),
        "problems": sum(one["problems"] for one in checks),
        "untold": sum(one["untold"] for one in checks),
        "lost_ms_median": lost_ms[len(lost_ms) // 2],
        "lost_ms_max": lost_ms[-1],
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
