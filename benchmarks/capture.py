"""A recorder under load: nothing lost, how far the journal is behind, how much memory and CPU it takes.

    simulator (process) ──socket──▶ recorder (process) ──▶ journal ◀── this process reads it as it grows

How far behind: the time from a message's stamp to the moment at which another process sees it in the journal's file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from figures import Figure, say

import mdcapture as md
from mdcapture.gateway.instruments import INSTRUMENTS, list_contracts
from mdcapture.lake.journal import MessageBlock, read_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POLL_S = 0.001


@contextmanager
def program(*arguments: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """A `mdcapture` process that is ended with the block."""
    environment = os.environ | {"MDCAPTURE_API_KEY": "demo", "MDCAPTURE_USERNAME": "bench"}
    command = [sys.executable, "-m", "mdcapture", *arguments]
    with subprocess.Popen(command, stdout=stdout, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


class Watcher:
    """Reads a journal as it grows, from outside, and notes how old each message is when it is seen."""

    def __init__(self, lake: Path) -> None:
        self._lake = lake
        self._path: Path | None = None
        self._offset = 0
        self._rest = b""
        self.delays_ns: list[np.ndarray] = []

    def look(self) -> None:
        """Take what is new."""
        newest = max(self._lake.glob("journal/*/*.journal"), default=None)
        if newest is None:
            return
        if newest != self._path:
            self._path, self._offset, self._rest = newest, 0, b""
        with newest.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        if new:
            seen_ns = time.time_ns()
            self._offset += len(new)
            for block in read_blocks(self._rest + new):
                if isinstance(block, MessageBlock):
                    self.delays_ns.append(seen_ns - np.frombuffer(block.recv_ns, np.int64))
                    self._rest = b""


def measure(
    messages_per_s: int,
    contracts: int,
    duration_s: float,
    beside: Callable[[Path], AbstractContextManager[object]] = nullcontext,
) -> dict[str, float]:
    """Run a recorder beside a simulator at that pace, and beside whatever else is said of its lake; the figures."""
    names = [listing.contract.contract_id for listing in list_contracts(datetime.now(UTC).date())][:contracts]
    options = [option for name in names for option in ("--contract", name)]
    memory_mb: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        simulate = program("simulate", "--rate", str(messages_per_s / contracts), *options)
        with simulate as simulator:
            assert simulator.stdout is not None
            api = json.loads(simulator.stdout.readline())["api"]
            capture = (
                "capture",
                "--gateway",
                api,
                "--lake",
                folder,
                "--json",
                "--stats",
                "none",
                "--set",
                "segment_s=15",
            )
            with program(*capture, *options, "--duration", f"{duration_s}s") as recorder:
                process = psutil.Process(recorder.pid)
                watcher = Watcher(lake)
                begin_s = looked_s = time.monotonic()
                cpu_s = 0.0
                with beside(lake):
                    while time.monotonic() - begin_s < duration_s:
                        time.sleep(POLL_S)
                        watcher.look()
                        if time.monotonic() - looked_s > 1:
                            looked_s = time.monotonic()
                            memory_mb.append(process.memory_info().rss / 1e6)
                            cpu_s = sum(process.cpu_times()[:2])
                output, _ = recorder.communicate()
        captured = json.loads(output)
        session = md.open_lake(lake).session()
        seq = session.messages().select("seq").collect()["seq"].to_numpy()
    delays_ms = np.concatenate(watcher.delays_ns) / 1e6
    settled = memory_mb[len(memory_mb) // 3 :]
    slope = np.polyfit(np.arange(len(settled)), settled, 1)[0] if len(settled) > 2 else 0.0
    return {
        "messages": captured["messages"],
        "messages_per_s": captured["messages"] / duration_s,
        "lost": int(captured["messages"] - len(np.unique(seq))),
        "incidents": captured["incidents"],
        "behind_p50_ms": float(np.percentile(delays_ms, 50)),
        "behind_p99_ms": float(np.percentile(delays_ms, 99)),
        "behind_p999_ms": float(np.percentile(delays_ms, 99.9)),
        "memory_mb": max(memory_mb),
        "memory_slope_mb_per_min": float(slope * 60),
        "cpu_percent": 100 * cpu_s / duration_s,
    }


def main() -> None:
    """Print the figures, of a storm and of a very busy hour."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=23_000, help="messages a second that the market is asked for")
    parser.add_argument("--contracts", type=int, default=20, help=f"up to {2 * len(INSTRUMENTS)}")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds")
    chosen = parser.parse_args()
    storm = measure(chosen.rate, chosen.contracts, chosen.duration)
    tell(storm)
    busy = measure(2_000, 12, chosen.duration)
    pace = f"at {busy['messages_per_s']:,.0f} messages/s"
    say(Figure(f"CPU of the recorder {pace}", busy["cpu_percent"], "% of a core", goal="≤ 5"))
    say(Figure(f"memory of the recorder {pace}", busy["memory_mb"], "MB", goal="≤ 150"))


def tell(figures: dict[str, float], note: str = "") -> None:
    """Print what a storm did."""
    pace = f"at {figures['messages_per_s']:,.0f} messages/s{note}"
    say(Figure(f"lost {pace}", figures["lost"], "messages", goal="≤ 0"))
    for name, goal in (("p50", ""), ("p99", "≤ 10"), ("p999", "≤ 25")):
        say(Figure(f"the journal is behind {pace}, {name}", figures[f"behind_{name}_ms"], "ms", goal=goal))
    say(Figure(f"memory of the recorder {pace}", figures["memory_mb"], "MB", goal="≤ 150"))
    say(Figure(f"its slope {pace}", figures["memory_slope_mb_per_min"], "MB/min"))
    say(Figure(f"CPU of the recorder {pace}", figures["cpu_percent"], "% of a core"))


if __name__ == "__main__":
    main()
