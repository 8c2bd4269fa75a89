"""Sessions to a PostgreSQL server and back, beside plain ADBC by hand, in one run.

python benchmarks/postgres.py [--messages 100000] [--repeats 3]

The server is a real one on this machine, out of a wheel, and shares its processors with those who ask it: what is to
be compared are the ways. By hand means: the same Parquet files, read by pyarrow, ingested by ADBC into tables that it
makes, in one transaction; and a query of the same columns, in the same order. Ours brings the manifest with the rows,
can be run again, goes on where it stood, and has indexes and partitions.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.dataset as ds
from adbc_driver_postgresql import dbapi
from figures import Figure, interleaved, say
from inputs import market_records

import mdcapture as md
from mdcapture.interop.importing import import_records
from mdcapture.interop.postgres.publish import publish
from mdcapture.lake.catalog import open_catalog

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from postgres_server import PASSWORD, Server, running

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = ("quotes", "trades", "depth", "messages")
COLUMNS = "session_id, contract_id, seq, recv_ns, pos, exch_ns, dom_type, price, volume, current_volume"


def by_hand(lake: Path, address: str) -> None:
    """Ingest each table as ADBC does by itself."""
    with dbapi.connect(address) as connection, connection.cursor() as cursor:
        for table in TABLES:
            rows = ds.dataset(lake / table, format="parquet", partitioning="hive")
            cursor.adbc_ingest(table, rows.scanner().to_reader(), mode="create")
        connection.commit()


def read_by_hand(address: str) -> pl.DataFrame:
    """The depth of a session as ADBC gives it."""
    with dbapi.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {COLUMNS} FROM depth ORDER BY recv_ns, seq, pos")  # noqa: S608  # ours
        return pl.DataFrame(cursor.fetch_arrow_table())


def prepared(server: Server, lake: Path) -> Iterator[str]:
    """Databases that have our tables, empty."""
    while True:
        address = server.database()
        publish(open_catalog(lake), [], address)
        yield address


def size(server: Server, address: str, schema: str) -> int:
    """Bytes of the tables of a schema, indexes and all."""
    sizes = (
        "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace"
    )
    return int(server.psql(address, f"{sizes} WHERE nspname = '{schema}' AND relkind = 'r'")[0][0])


def measure(server: Server, lake: Path, repeats: int) -> None:
    """Print the figures."""
    catalog = open_catalog(lake)
    session = md.open_lake(lake).session()
    rows = sum(session.counts.values())
    rounds = count()
    ours = [address for _, address in zip(range(repeats + 1), prepared(server, lake), strict=False)]
    hands = [server.database() for _ in range(repeats + 1)]
    taken = interleaved(
        repeats,
        ours=lambda: publish(catalog, [session.session_id], ours[next(rounds) // 2]),
        peer=lambda: by_hand(lake, hands[next(rounds) // 2]),
    )
    rate, peer = (rows / taken[name].median_s for name in ("ours", "peer"))
    say(Figure("publish", rate, "rows/s", "ADBC by hand", peer, rate / peer, spread=taken["ours"].spread))
    per_row = [size(server, *where) / rows for where in ((ours[0], "mdcapture_lake"), (hands[0], "public"))]
    say(Figure("publish, size", per_row[0], "bytes/row", "ADBC by hand", per_row[1], per_row[1] / per_row[0]))
    files = sum(file.bytes for file in session.manifest.files)
    say(Figure("publish, size", per_row[0], "bytes/row", "the lake's files", files / rows))
    for address in (ours[0], hands[0]):
        server.psql(address, "VACUUM ANALYZE")
    there = md.open_lake(ours[0]).session()
    taken = interleaved(repeats, ours=lambda: there.depth().collect(), peer=lambda: read_by_hand(hands[0]))
    rate, peer = (session.counts["depth"] / taken[name].median_s for name in ("ours", "peer"))
    say(Figure("read depth", rate, "rows/s", "ADBC by hand", peer, rate / peer, spread=taken["ours"].spread))


def main() -> None:
    """Make a lake and a server, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["PGPASSWORD"] = PASSWORD
    with tempfile.TemporaryDirectory() as folder, running() as server:
        lake = Path(folder)
        import_records(iter(market_records(arguments.messages, contracts=4)), lake, source="benchmark")
        measure(server, lake, arguments.repeats)


if __name__ == "__main__":
    main()
