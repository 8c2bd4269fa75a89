"""Features of a day with ever more messages, a row a second: the time, and the memory, which must not grow with them.

    python benchmarks/features.py [--rows 100000000] [--small 30000000]

The day is made straight as files of the lake: a few hundred thousand messages of the synthetic market, again and again,
each time with the snapshot of the book that they begin with.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from analyze import DAY_S, SECOND_NS, START_NS, alone
from figures import Figure, say
from inputs import market_records

from mdcapture.interop.importing import import_records
from mdcapture.lake.files import make_folder
from mdcapture.lake.manifest import Manifest, write_manifest
from mdcapture.lake.parquet import read_parts, write_part

if TYPE_CHECKING:
    from collections.abc import Iterator

PATTERN_MESSAGES = 300_000
TABLES = ("quotes", "trades", "depth")
DEMAND = """\
frame = session.features(
    every="1s",
    metrics=["mid", "quoted_spread", "volume", "delta", "quotes", "order_flow_imbalance", "queue_imbalance"],
    labels=["5s"],
)
assert len(frame) > 80_000, len(frame)
"""


class Pattern(NamedTuple):
    """What is repeated.

    Attributes:
        tables: The rows by table.
        manifest: Of the session that they come from.
        span_ns: From their first message to behind their last.
    """

    tables: dict[str, pa.Table]
    manifest: Manifest
    span_ns: int

    @property
    def rows(self) -> int:
        """Rows in all tables."""
        return sum(len(rows) for rows in self.tables.values())


def pattern(folder: Path) -> Pattern:
    """Some messages of one contract, as rows."""
    manifest = import_records(iter(market_records(PATTERN_MESSAGES, contracts=1)), folder, source=__file__)
    assert manifest is not None
    assert manifest.start_ns is not None
    assert manifest.end_ns is not None
    tables = {table: pa.concat_tables(read_parts(folder, manifest.files_of(table))) for table in TABLES}
    return Pattern(tables, manifest, manifest.end_ns - manifest.start_ns + 1)


def repeated(some: Pattern, table: str, times: int) -> Iterator[pa.Table]:
    """The rows so many times, within one day."""
    first_ns = some.manifest.start_ns
    length_ns = DAY_S * SECOND_NS // times
    rows = some.tables[table]
    since = pc.cast(pc.subtract(rows["recv_ns"], first_ns), pa.float64())
    within = pc.cast(pc.floor(pc.multiply(since, length_ns / some.span_ns)), pa.int64())
    for number in range(times):
        moved = {
            "seq": pc.add(rows["seq"], number * PATTERN_MESSAGES),
            "recv_ns": pc.add(within, START_NS + number * length_ns),
        }
        own = rows
        for name, values in moved.items():
            own = own.set_column(own.schema.get_field_index(name), own.schema.field(name), values)
        yield own


def made_day(folder: Path, some: Pattern, rows: int) -> int:
    """A session of about so many rows, in a lake of its own; how many there are."""
    times = round(rows / some.rows)
    contract = some.manifest.contracts[0]
    manifest = Manifest(
        session_id="session_20260303_220000",
        state="sealed",
        source=__file__,
        created_ns=START_NS,
        start_ns=START_NS,
        end_ns=START_NS + DAY_S * SECOND_NS,
        contracts=[contract],
    )
    make_folder(folder / "sessions")
    for table in TABLES:
        part = write_part(folder, manifest, table, contract.contract_id, repeated(some, table, times))
        manifest.files.append(part)
        manifest.counts[table] = part.rows
    write_manifest(folder, manifest)
    return sum(manifest.counts.values())


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--small", type=int, default=30_000_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        some = pattern(Path(folder) / "pattern")
        seconds, memory_gb = {}, {}
        for wanted in (chosen.small, chosen.rows):
            lake = Path(folder) / str(wanted)
            rows = made_day(lake, some, wanted)
            wall_s, memory_gb[wanted] = alone(lake, DEMAND)
            seconds[wanted] = 1e6 * wall_s / rows
    few, many = f"{chosen.small:,} rows", f"{chosen.rows:,} rows"
    for figure, unit, (small, large) in (
        ("peak memory", "GB", memory_gb.values()),
        ("time of a million rows", "s", seconds.values()),
    ):
        say(Figure(f"features of {many}, {figure}", large, unit, few, small, large / small, "≤ 1.2"))


if __name__ == "__main__":
    main()
