"""A recorder that is watched: the figures of `capture.py` alone, and beside `top`, `serve` and a page that is open.

simulator ──▶ recorder ──▶ lake ◀── serve ──events, the busiest contract's book──▶ a page (here: a socket that reads)
                             ◀── top --json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import threading
import urllib.request
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import psutil
from capture import measure, program, tell
from figures import Figure, say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUERY_EVERY_S = 5.0
QUERY = json.dumps({"query": "select side, count(*) from trades group by side"}).encode()


class Watchers:
    """The programs that watch; `cpu_s` and `seen` are known when they have ended."""

    def __init__(self, *, query: bool) -> None:
        self.cpu_s = 0.0
        self.seen = 0
        self._query = query

    @contextmanager
    def beside(self, lake: Path) -> Iterator[None]:
        """Watch a lake for the length of the block, which does not wait for the watchers to be ready."""
        ended = threading.Event()
        watching = threading.Thread(target=self._watch, args=(lake, ended))
        watching.start()
        try:
            yield
        finally:
            ended.set()
            watching.join()

    def _watch(self, lake: Path, ended: threading.Event) -> None:
        while not (lake / "sessions").is_dir():
            ended.wait(0.1)
        with ExitStack() as stack:
            top = stack.enter_context(program("top", "--json", "--lake", str(lake), stdout=subprocess.DEVNULL))
            serve = stack.enter_context(program("serve", "--lake", str(lake), "--port", "0"))
            assert serve.stdout is not None
            url = json.loads(serve.stdout.readline())["url"]
            reading = threading.Thread(target=self._read, args=(url,))
            reading.start()
            while not ended.wait(QUERY_EVERY_S):
                if self._query:
                    with urllib.request.urlopen(f"{url}query", QUERY) as answer:  # noqa: S310  # our own address
                        answer.read()
            self.cpu_s = sum(sum(psutil.Process(one.pid).cpu_times()[:4]) for one in (top, serve))
        reading.join()

    def _read(self, url: str) -> None:
        with urllib.request.urlopen(f"{url}live") as events:  # noqa: S310  # our own address
            while line := events.readline():
                self.seen += line.startswith(b"data: ")


def main() -> None:
    """Print the figures, with and without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=23_500, help="messages a second")
    parser.add_argument("--contracts", type=int, default=20)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds")
    parser.add_argument("--query", action="store_true", help=f"ask the SQL box each {QUERY_EVERY_S:g} s, too")
    chosen = parser.parse_args()
    size = (chosen.rate, chosen.contracts, chosen.duration)
    watchers = Watchers(query=chosen.query)
    alone, watched = measure(*size), measure(*size, watchers.beside)
    tell(alone)
    tell(watched, ", beside top and serve")
    say(Figure("CPU of top and serve", 100 * watchers.cpu_s / chosen.duration, "% of a core"))
    say(Figure("events that a page saw", watchers.seen, "events"))


if __name__ == "__main__":
    main()
