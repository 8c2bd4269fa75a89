"""SQL to a session that is being recorded, beside the same rows when all are sealed.

python benchmarks/running.py [--sealed 1000000] [--unsealed 10000] [--repeats 15]
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from figures import Figure, interleaved, say
from inputs import market_records

from mdcapture.interop.importing import import_records
from mdcapture.lake.seal import seal
from mdcapture.lake.writer import open_session
from mdcapture.session import Lake, open_lake

if TYPE_CHECKING:
    from inputs import Record

    from mdcapture.lake.writer import OpenSession

BLOCK = 100
QUERIES = {
    "volume by side": "SELECT side, sum(volume) FROM trades GROUP BY side",
    "spread by contract": "SELECT contract_id, avg(best_ask - best_bid) FROM quotes GROUP BY contract_id",
    "rows of depth": "SELECT count(*), max(recv_ns) FROM depth",
}


def write(session: OpenSession, records: list[Record]) -> None:
    """Journal messages in blocks, as a recorder does."""
    for start in range(0, len(records), BLOCK):
        for recv_ns, record in records[start : start + BLOCK]:
            session.journal.append(recv_ns, 1, [record])
        session.journal.flush()


def answer(lake: Lake, query: str) -> list[tuple[object, ...]]:
    """The rows of a query."""
    return lake.sql(query).fetchall()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sealed", type=int, default=1_000_000, help="rows in sealed files")
    parser.add_argument("--unsealed", type=int, default=10_000, help="messages that are in the journal only")
    parser.add_argument("--repeats", type=int, default=15)
    chosen = parser.parse_args()
    records = market_records(round(chosen.sealed / 1.85) + chosen.unsealed)
    first, rest = records[: -chosen.unsealed], records[-chosen.unsealed :]
    with tempfile.TemporaryDirectory() as folder:
        running, whole = Path(folder) / "running", Path(folder) / "whole"
        import_records(iter(first), whole, source="a benchmark")
        with open_session(running, records[0][0], source="a benchmark", contracts=[]) as session:
            write(session, first)
            session.journal.retire(session.journal.roll())
            seal(running, session.session_id, 1)
            write(session, rest)
            lakes = {"running": open_lake(running), "sealed": open_lake(whole)}
            for name, query in QUERIES.items():
                timings = interleaved(
                    chosen.repeats,
                    running=partial(answer, lakes["running"], query),
                    sealed=partial(answer, lakes["sealed"], query),
                )
                ours, theirs = (1e3 * timings[which].median_s for which in ("running", "sealed"))
                say(
                    Figure(
                        f"SQL on a running session: {name}",
                        ours,
                        "ms",
                        "all sealed",
                        theirs,
                        ours / theirs,
                        "≤ 1.5",
                        timings["running"].spread,
                    )
                )
                say(Figure(f"SQL on a running session: {name}", ours, "ms", goal="≤ 100"))
            session.journal.close()


if __name__ == "__main__":
    main()
