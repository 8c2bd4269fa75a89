"""`analyze` and `report` of a session of 10 million quotes and 2 million trades, beside the same by hand in numpy.

    python benchmarks/analyze.py [--quotes N] [--trades N] [--rounds N] [--keep DIR]

The session is made straight as files of the lake: one contract, a day of a random walk, orders that come in clusters.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import by_hand
import numpy as np
import pyarrow as pa
from figures import Figure, interleaved, say

from mdcapture.lake.columns import arrow_schema
from mdcapture.lake.files import make_folder
from mdcapture.lake.manifest import Contract, Manifest, write_manifest
from mdcapture.lake.parquet import write_part
from mdcapture.session import Session, open_lake

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mdcapture.analysis.result import Analysis

    Times = NDArray[np.int64]
    Columns = Mapping[str, NDArray[np.number]]

SECOND_NS = 1_000_000_000
DAY_S = 82_800
START_NS = 1_772_575_200 * SECOND_NS
TICK = 0.25
CONTRACT = "CON.F.US.EP.H26"
GOAL = "≤ 2"
REPORT_GOAL = "≤ 20"
BRANCHING = 0.5
DECAY_S = 0.2


def made_session(folder: Path, quotes: int, trades: int, seed: int = 0) -> Session:
    """A session of so many rows, in a lake of its own."""
    random = np.random.default_rng(seed)
    traded_ns = clustered_times(random, trades)
    times = np.concatenate([random.integers(START_NS, START_NS + DAY_S * SECOND_NS, quotes), traded_ns])
    is_trade = np.repeat([False, True], [quotes, trades])
    order = np.argsort(times, kind="stable")
    recv_ns, is_trade = times[order], is_trade[order]
    n = len(recv_ns)
    bid = 6_000 + TICK * np.cumsum(random.choice([-1, 0, 1], n, p=[0.03, 0.94, 0.03]))
    ask = bid + TICK * random.choice([1, 2, 3], n, p=[0.92, 0.07, 0.01])
    rows = {"seq": np.arange(n), "recv_ns": recv_ns, "best_bid": bid, "best_ask": ask}
    rows |= {"pos": np.zeros(n, np.int32), "exch_ns": recv_ns - random.lognormal(14.5, 0.3, n).astype(np.int64)}
    manifest = Manifest(
        session_id="session_20260303_220000",
        state="sealed",
        source="benchmarks/analyze.py",
        created_ns=START_NS,
        start_ns=int(recv_ns[0]),
        end_ns=int(recv_ns[-1]),
        contracts=[Contract(contract_id=CONTRACT, name="ESH6", tick_size=TICK, tick_value=12.5)],
    )
    quoted = {name: values[~is_trade] for name, values in rows.items()}
    traded = {name: values[is_trade] for name, values in rows.items()} | {"side": np.zeros(trades, np.int8)}
    tables = {"quotes": quoted, "trades": with_prints(random, traded), "messages": rows}
    make_folder(folder / "sessions")
    for table, columns in tables.items():
        part = write_part(folder, manifest, table, CONTRACT, [arrow_rows(table, columns)])
        manifest.files.append(part)
        manifest.counts[table] = part.rows
    write_manifest(folder, manifest)
    return open_lake(folder).session()


def clustered_times(random: np.random.Generator, count: int) -> Times:
    """Times of a Hawkes process: each generation sets off the next one."""
    length_ns = DAY_S * SECOND_NS
    generation = random.integers(START_NS, START_NS + length_ns, round(count * (1 - BRANCHING)))
    times = [generation]
    while len(generation):
        parents = np.repeat(generation, random.poisson(BRANCHING, len(generation)))
        generation = parents + (random.exponential(DECAY_S, len(parents)) * SECOND_NS).astype(np.int64)
        times.append(generation)
    found = np.concatenate(times)
    rest = random.integers(START_NS, START_NS + length_ns, max(0, count - len(found)))
    return np.concatenate([random.permutation(found)[:count], rest])


def with_prints(random: np.random.Generator, rows: Columns) -> Columns:
    """Price, size and side of trades; a third of them are further prints of the order before."""
    n = len(rows["seq"])
    opens = random.random(n) > 0.33
    opens[0] = True
    first = np.maximum.accumulate(np.where(opens, np.arange(n), 0))
    side = random.integers(0, 2, n).astype(np.int8)[first]
    size = np.minimum(np.floor(random.pareto(1.6, n) + 1), 400).astype(np.int64)
    price = np.where(side == 0, rows["best_ask"], rows["best_bid"])
    return dict(rows) | {"exch_ns": rows["exch_ns"][first], "price": price, "volume": size, "side": side}


def arrow_rows(table: str, columns: Columns) -> pa.Table:
    """The columns that there are; nulls for the others, and an empty object for the text."""
    schema = arrow_schema(table)
    n = len(columns["seq"])
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(n, field.type)
        if field.name != "payload"
        else pa.repeat(pa.scalar("{}", field.type), n)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def alone(folder: Path, code: str) -> tuple[float, float]:
    """Seconds and peak memory (GB) of code that takes `session`, in a process of its own."""
    script = (
        "import json, sys, time\n"
        "from pathlib import Path\n"
        "from mdcapture.session import open_lake\n"
        "session = open_lake(sys.argv[1]).session()\n"
        f"begin_s = time.perf_counter()\n{code}\n"
        "wall_s = time.perf_counter() - begin_s\n"
        "peak_kb = Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]\n"  # rusage has the parent's
        "print(json.dumps([wall_s, int(peak_kb) / 1e6]))\n"
    )
    result = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=True)
    wall_s, memory_gb = json.loads(result.stdout)
    return wall_s, memory_gb


def check(analysis: Analysis, expected: Mapping[str, float]) -> None:
    """Both sides must have come to the same figures."""
    for metric, value in expected.items():
        found = analysis.value(metric)
        assert found is not None, metric
        np.testing.assert_allclose(found, value, rtol=1e-8, err_msg=metric)


def main() -> None:
    """Print a figure a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quotes", type=int, default=10_000_000)
    parser.add_argument("--trades", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="make the session in this folder, or use the one that is there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        there = (folder / "sessions").exists()
        session = open_lake(folder).session() if there else made_session(folder, arguments.quotes, arguments.trades)
        expected = by_hand.figures(folder)
        check(session.analyze(), expected)
        timings = interleaved(arguments.rounds, library=session.analyze, numpy=lambda: by_hand.figures(folder))
        ours, peer = timings["library"], timings["numpy"]
        beside = f"{len(expected)} of its figures by hand in numpy, s"
        ratio = ours.median_s / peer.median_s
        say(Figure("analyze", ours.median_s, "s", beside, peer.median_s, ratio, GOAL, ours.spread))
        _, memory_gb = alone(folder, "session.analyze()")
        say(Figure("analyze, peak memory", memory_gb, "GB"))
        wall_s, memory_gb = alone(folder, "from mdcapture.report.page import report\nreport(session)")
        say(Figure("report, imports and all", wall_s, "s", goal=REPORT_GOAL))
        say(Figure("report, peak memory", memory_gb, "GB"))


if __name__ == "__main__":
    main()
