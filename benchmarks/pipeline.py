"""From records in memory to sealed, verified Parquet with the original text: speed, and bytes on disk.

    python benchmarks/pipeline.py [--contracts 4] [--repeats 3]

Beside it, on the same records: the replaced system's way (`json`, SQLite in WAL mode, batches of 1,000, the text kept),
and the least that any Python must do (typed msgspec decoding that keeps nothing). Parquet is compared with what
pyarrow needs to write the same sorted tables once, and with the smallest that a search over encodings finds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from figures import Figure, interleaved, say
from inputs import Record, market_records, tape_records

from mdcapture.interop.importing import import_records
from mdcapture.lake.manifest import read_manifest
from mdcapture.lake.seal import finish, recover, seal
from mdcapture.lake.writer import open_session
from mdcapture.wire.messages import MarketMessage

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLES = ("quotes", "trades", "depth", "messages")
BATCH = 1_000
BLOCK = 100
LEVELS = (3, 9, 19)

SESSION = "session_20231225_230000"
COMMON = "session_id TEXT, contract_id TEXT, symbol TEXT, received_timestamp TEXT, exchange_timestamp TEXT"
SQLITE = f"""
PRAGMA journal_mode = WAL;
CREATE TABLE quotes (id INTEGER PRIMARY KEY, {COMMON}, best_bid REAL, best_ask REAL, last_price REAL, volume INTEGER,
    change_amount REAL, change_percent REAL, open REAL, high REAL, low REAL, last_updated TEXT, raw_data TEXT);
CREATE TABLE trades (id INTEGER PRIMARY KEY, {COMMON}, price REAL, volume INTEGER, trade_type INTEGER, raw_data TEXT);
CREATE TABLE market_depth (id INTEGER PRIMARY KEY, {COMMON}, price REAL, volume INTEGER, current_volume INTEGER,
    depth_type INTEGER, side TEXT, raw_data TEXT);
"""
FIELDS = {
    "GatewayQuote": (
        *("bestBid", "bestAsk", "lastPrice", "volume", "change", "changePercent", "open", "high", "low"),
        "lastUpdated",
    ),
    "GatewayTrade": ("price", "volume", "type"),
    "GatewayDepth": ("price", "volume", "currentVolume", "type"),
}
SIDES = dict.fromkeys((1, 3), "ask") | dict.fromkeys((2, 4), "bid")
INSERTS = {
    target: f"INSERT INTO {table} VALUES (NULL{', ?' * (6 + len(FIELDS[target]) + (table == 'market_depth'))})"  # noqa: S608  # names of ours
    for target, table in (("GatewayQuote", "quotes"), ("GatewayTrade", "trades"), ("GatewayDepth", "market_depth"))
}


def replaced(records: list[Record], path: Path) -> None:
    """The replaced system's way."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SQLITE)
        for start in range(0, len(records), BATCH):
            rows: dict[str, list[tuple[Any, ...]]] = {target: [] for target in INSERTS}
            for recv_ns, record in records[start : start + BATCH]:
                message = json.loads(record)
                target = message.get("target")
                if target not in FIELDS:
                    continue
                contract_id, data = message["arguments"]
                received = datetime.fromtimestamp(recv_ns / 1e9, UTC).isoformat()
                for entry in filter(None, data if isinstance(data, list) else [data]):
                    values = [entry.get(name) for name in FIELDS[target]]
                    if target == "GatewayDepth":
                        values.append(SIDES.get(entry["type"], "unknown"))
                    who = (SESSION, contract_id, entry.get("symbolId"), received, entry.get("timestamp"))
                    rows[target].append((*who, *values, json.dumps(entry)))
            for target, many in rows.items():
                connection.executemany(INSERTS[target], many)
            connection.commit()


def sealed(records: list[Record], root: Path) -> None:
    """Ours: journaled, decoded, sealed, read back, compacted."""
    import_records(iter(records), root, source="a benchmark")


def bare(records: list[Record]) -> None:
    """Typed decoding that keeps nothing."""
    decode = msgspec.json.Decoder(MarketMessage).decode
    for _, record in records:
        decode(record)


def journaled(records: list[Record], root: Path) -> str:
    """A session that a dead recorder left: all in its journal, nothing sealed."""
    with open_session(root, records[0][0], source="a benchmark", contracts=[]) as session:
        for start in range(0, len(records), BLOCK):
            for recv_ns, record in records[start : start + BLOCK]:
                session.journal.append(recv_ns, 1, [record])
            session.journal.flush()
        session.journal.close()
        return session.session_id


def sealed_tables(root: Path) -> dict[str, pa.Table]:
    """Every sealed file's rows by table and contract, as they stand there."""
    files = read_manifest(root, next(root.glob("sessions/*.json")).stem).files
    return {file.path: pq.ParquetFile(root / file.path).read() for file in files}


def written_by_hand(tables: Iterable[pa.Table], folder: Path) -> None:
    """What one would do with tables that are already there."""
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"{number}.parquet", compression="zstd")


def smallest(table: pa.Table, folder: Path) -> int:
    """The bytes of a table, each column in the encoding and at the level that suits it best."""
    path = folder / "column.parquet"
    total = 0
    for name in table.column_names:
        sizes = []
        for encoding, level in product(("dictionary", "PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"), LEVELS):
            kind = table.schema.field(name).type
            if encoding == "DELTA_BINARY_PACKED" and not pa.types.is_integer(kind):
                continue
            if encoding == "BYTE_STREAM_SPLIT" and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                continue
            plain = encoding == "dictionary"
            pq.write_table(
                table.select([name]),
                path,
                compression="zstd",
                compression_level=level,
                use_dictionary=plain,
                column_encoding=None if plain else {name: encoding},
                store_schema=False,
            )
            metadata = pq.read_metadata(path)
            sizes.append(
                sum(metadata.row_group(i).column(0).total_compressed_size for i in range(metadata.num_row_groups))
            )
        total += min(sizes)
    return total


def fresh(folder: Path) -> Path:
    """An empty folder in place of what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def speed(name: str, records: list[Record], folder: Path, repeats: int) -> None:
    """Records to sealed Parquet."""
    timings = interleaved(
        repeats,
        sealed=lambda: sealed(records, fresh(folder / "lake")),
        replaced=lambda: replaced(records, fresh(folder / "sqlite") / "old.db"),
        bare=lambda: bare(records),
    )
    ours = len(records) / timings["sealed"].median_s
    for beside, goal in (("replaced", "≥ 10"), ("bare", "≥ 0.25")):
        peer = len(records) / timings[beside].median_s
        what = {"replaced": "json + SQLite WAL", "bare": "bare msgspec decoding"}[beside]
        say(
            Figure(
                f"records to sealed Parquet ({name})",
                ours,
                "messages/s",
                what,
                peer,
                ours / peer,
                goal,
                timings["sealed"].spread,
            )
        )


def size(name: str, folder: Path) -> None:
    """Bytes a row of what `speed` left."""
    lake, old = folder / "lake", folder / "sqlite" / "old.db"
    manifest = read_manifest(lake, next(lake.glob("sessions/*.json")).stem)
    rows = sum(manifest.counts[table] for table in ("quotes", "trades", "depth"))
    text = sum(file.bytes for file in manifest.files_of("messages"))
    alone = sum(file.bytes for file in manifest.files) - text
    sqlite = old.stat().st_size / rows
    for what, taken, goal in (("without", alone, 45), ("with", alone + text, 15)):
        say(
            Figure(
                f"bytes a row, {what} the text ({name})",
                taken / rows,
                "bytes",
                "SQLite",
                sqlite,
                sqlite * rows / taken,
                f"≥ {goal}",
            )
        )
    tables = [table for path, table in sealed_tables(lake).items() if not path.startswith("messages")]
    best = sum(smallest(table, fresh(folder / "columns")) for table in tables)
    say(
        Figure(
            f"bytes a row, without the text ({name})",
            alone / rows,
            "bytes",
            "smallest Parquet found",
            best / rows,
            alone / best,
            "≤ 1.05",
        )
    )


def sealing(name: str, records: list[Record], folder: Path, repeats: int) -> None:
    """Sealing and compaction, and recovery, beside one plain writing of the same tables."""
    tables = list(sealed_tables(folder / "lake").values())
    rows = sum(map(len, tables))
    prepared = fresh(folder / "prepared")
    session_id = journaled(records, prepared)

    def copied() -> Path:
        target = folder / "crashed"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(prepared, target)
        return target

    def sealed_and_compacted() -> None:
        root = copied()
        seal(root, session_id, 1)
        finish(root, session_id, "sealed")

    timings = interleaved(
        repeats,
        sealed=sealed_and_compacted,
        recovered=lambda: recover(copied()),
        copied=copied,
        plain=lambda: written_by_hand(tables, fresh(folder / "plain")),
    )
    peer = rows / timings["plain"].median_s
    for what in ("sealed", "recovered"):
        ours = rows / (timings[what].median_s - timings["copied"].median_s)
        say(
            Figure(
                f"{what} from the journal ({name})",
                ours,
                "rows/s",
                "pyarrow writing the tables",
                peer,
                ours / peer,
                "≥ 0.5",
                timings[what].spread,
            )
        )


def main() -> None:
    """Measure on the tape, where it is, and on the synthetic market."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contracts", type=int, default=4, help="contract ids that the tape is told under")
    parser.add_argument("--messages", type=int, default=200_000, help="messages of the synthetic market")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    inputs = {"ES tape": tape_records(chosen.contracts), "synthetic": market_records(chosen.messages)}
    with tempfile.TemporaryDirectory() as folder:
        for name, records in inputs.items():
            if not records:
                print(f"{name} is not here: see README, MDCAPTURE_REFERENCE", file=sys.stderr)
                continue
            speed(name, records, Path(folder), chosen.repeats)
            size(name, Path(folder))
            sealing(name, records, Path(folder), chosen.repeats)


if __name__ == "__main__":
    main()
