"""How the cost of a unit changes as the work grows: messages, contracts, sessions. Flat is 1.

python benchmarks/growth.py [--messages 400000] [--sessions 300]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from figures import Figure, say
from inputs import market_records

from mdcapture.interop.importing import import_records
from mdcapture.session import Lake, open_lake

if TYPE_CHECKING:
    from collections.abc import Callable

    from inputs import Record

MANY_CONTRACTS = 200
SMALL = 200
QUERY = "SELECT session_id, count(*), sum(volume) FROM trades GROUP BY ALL"


def seconds(run: Callable[[], object]) -> float:
    """The fastest of three."""
    times = []
    for _ in range(3):
        begin_s = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin_s)
    return min(times)


def sealing_s(records: list[Record]) -> float:
    """From records to sealed files."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            import_records(iter(records), Path(folder), source="a benchmark")

    return seconds(run)


def under_other_names(records: list[Record], count: int) -> list[Record]:
    """The same messages, dealt to so many contracts."""
    return [
        (recv_ns, record.replace(b"CON.F.US.", b"CON.F.US.X%d" % (index % count), 1))
        for index, (recv_ns, record) in enumerate(records)
    ]


def flat(figure: str, small_us: float, large_us: float, goal: str) -> None:
    """Say how a unit's cost grew."""
    say(Figure(figure, large_us, "µs", "the small case", small_us, large_us / small_us, goal))


def volumes(lake: Lake) -> list[tuple[object, ...]]:
    """What was traded in each session."""
    return lake.sql(QUERY).fetchall()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=400_000)
    parser.add_argument("--sessions", type=int, default=300)
    chosen = parser.parse_args()
    records = market_records(chosen.messages, contracts=1)
    few = records[: chosen.messages // 8]
    small_us = 1e6 * sealing_s(few) / len(few)
    flat("sealing a message, eight times the messages", small_us, 1e6 * sealing_s(records) / len(records), "≤ 1.2")
    half = records[: chosen.messages // 2]
    one_us = 1e6 * sealing_s(under_other_names(half, 1)) / len(half)
    many_us = 1e6 * sealing_s(under_other_names(half, MANY_CONTRACTS)) / len(half)
    flat(f"sealing a message of {MANY_CONTRACTS} contracts instead of one", one_us, many_us, "≤ 2")
    with tempfile.TemporaryDirectory() as folder:
        costs = {}
        for number in range(chosen.sessions):
            later_ns = number * 86_400_000_000_000
            import_records(((at + later_ns, record) for at, record in few[:SMALL]), Path(folder), source="a benchmark")
            if number + 1 in {chosen.sessions // 10, chosen.sessions}:
                lake = open_lake(folder)
                costs[number + 1] = (
                    1e6 * seconds(lake.sessions) / (number + 1),
                    1e6 * seconds(partial(volumes, lake)) / (number + 1),
                )
        (small_list, small_query), (large_list, large_query) = costs.values()
        flat("listing a session, ten times the sessions", small_list, large_list, "≤ 1.2")
        flat("a query's cost of a session, ten times the sessions", small_query, large_query, "≤ 1.2")


if __name__ == "__main__":
    main()
