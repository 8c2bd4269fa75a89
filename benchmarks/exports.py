"""Rates and sizes of every way out of a lake and into it, each beside the best way by hand, in one run.

    python benchmarks/exports.py [--contracts 2] [--repeats 3]

By hand means: what somebody would write who knows the files, once, for this table: polars or DuckDB on the lake's
Parquet, numpy on its columns. It knows the schema, writes no dictionary and no temporary file, and syncs nothing; for
backtesters it passes on the feed's entries as they came, without settling the book.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
import polars as pl
from figures import Figure, interleaved, say
from inputs import market_records, tape_records

import mdcapture as md
from mdcapture.interop.hftbacktest import EVENT
from mdcapture.interop.importing import import_records
from mdcapture.interop.sqlite import import_sqlite
from mdcapture.wire.timestamps import NS_PER_S

MINUTE_NS: Final = 60 * NS_PER_S
TRADE: Final = np.dtype([("px", "f8"), ("qty", "f8"), ("ts", "i8")])


class Way(NamedTuple):
    """A path: what it is called, ours, what is done by hand, and what that is called; each is told where to write."""

    name: str
    ours: Callable[[Path], object]
    by_hand: Callable[[Path], object] | None = None
    beside: str = ""


def size(path: Path) -> int:
    """Bytes of a file, or of a folder's files."""
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) if path.is_dir() else path.stat().st_size


def measure(way: Way, rows: int, folder: Path, repeats: int) -> None:
    """Time a path and its peer by turns, and say rates and sizes."""
    targets = {"ours": folder / f"ours.{way.name}", "peer": folder / f"peer.{way.name}"}

    def run(name: str, act: Callable[[Path], object]) -> Callable[[], object]:
        def fresh() -> object:
            target = targets[name]
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            return act(target)

        return fresh

    candidates = {"ours": run("ours", way.ours)} | ({"peer": run("peer", way.by_hand)} if way.by_hand else {})
    taken = interleaved(repeats, **candidates)
    rate = rows / taken["ours"].median_s
    bytes_a_row = size(targets["ours"]) / rows
    if way.by_hand is None:
        say(Figure(way.name, rate, "rows/s", spread=taken["ours"].spread))
        say(Figure(f"{way.name}, size", bytes_a_row, "bytes/row"))
        return
    peer = rows / taken["peer"].median_s
    say(Figure(way.name, rate, "rows/s", way.beside, peer, rate / peer, spread=taken["ours"].spread))
    say(Figure(f"{way.name}, size", bytes_a_row, "bytes/row", way.beside, size(targets["peer"]) / rows))


def table_ways(session: md.Session, depth: pl.LazyFrame, pattern: str) -> list[Way]:
    """The table `depth` to files."""

    def export(form: str) -> Callable[[Path], object]:
        return lambda path: session.export(path, tables=["depth"], form=form)

    def by_duckdb(statement: str) -> Callable[[Path], object]:
        rows = f"FROM read_parquet('{pattern}', hive_partitioning = true)"

        def write(path: Path) -> None:
            with duckdb.connect(str(path) if "CREATE" in statement else ":memory:") as connection:
                connection.execute(statement.format(rows=rows, path=path))

        return write

    return [
        Way("csv", export("csv"), depth.sink_csv, "polars sink_csv"),
        Way("csv.zst", export("csv.zst"), lambda path: depth.sink_csv(path, compression="zstd"), "polars, zstd"),
        Way("jsonl", export("jsonl"), depth.sink_ndjson, "polars sink_ndjson"),
        Way("json", export("json"), by_duckdb("COPY ({rows}) TO '{path}' (FORMAT json, ARRAY true)"), "DuckDB COPY"),
        Way("parquet", export("parquet"), depth.sink_parquet, "polars sink_parquet"),
        Way("arrow", export("arrow"), lambda path: depth.sink_ipc(path, compression="zstd"), "polars sink_ipc, zstd"),
        Way("duckdb", export("duckdb"), by_duckdb("CREATE TABLE depth AS {rows}"), "DuckDB CREATE TABLE AS"),
    ]


def other_ways(session: md.Session, depth: pl.LazyFrame, trades: pl.LazyFrame) -> list[tuple[Way, int]]:
    """What is no table of the lake, and how many rows it reads."""
    depth_rows, trade_rows = (frame.select(pl.len()).collect().item() for frame in (depth, trades))
    sheet = trades.head(5000)

    def sqlite_by_hand(path: Path) -> None:
        rows = depth.collect()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"CREATE TABLE depth ({', '.join(rows.columns)})")
            connection.executemany(f"INSERT INTO depth VALUES ({', '.join('?' * rows.width)})", rows.iter_rows())  # noqa: S608
            connection.commit()

    def events_by_hand(path: Path) -> None:
        rows = depth.filter(pl.col("dom_type").is_between(1, 2)).collect()
        made = np.zeros(rows.height, EVENT)
        for name, column in (("exch_ts", "exch_ns"), ("local_ts", "recv_ns"), ("px", "price"), ("qty", "volume")):
            made[name] = rows[column].to_numpy()
        with path.open("wb") as file:
            np.savez_compressed(file, data=made)

    def bars_by_hand(path: Path) -> None:
        at = pl.from_epoch(pl.col("recv_ns"), time_unit="ns")
        price = pl.col("price")
        bars = trades.with_columns(at=at).group_by_dynamic("at", every="1m", group_by="contract_id")
        bars.agg(price.first(), price.max().alias("high"), pl.col("volume").sum()).sink_csv(path)

    def export(**asked: Any) -> Callable[[Path], object]:  # noqa: ANN401  # any argument of an export
        return lambda path: session.export(path, **asked)

    excel = export(query="SELECT * FROM trades LIMIT 5000", form="xlsx")
    bars = export(bars_ns=MINUTE_NS, form="csv")
    ways = [
        (Way("sqlite (replaced system)", export(form="sqlite"), sqlite_by_hand, "sqlite3, depth"), depth_rows),
        (Way("xlsx", excel, lambda path: sheet.collect().write_excel(path), "polars write_excel"), 5000),
        (Way("bars", bars, bars_by_hand, "polars"), trade_rows),
        (Way("hftbacktest", export(form="hftbacktest"), events_by_hand, "numpy, as it came"), depth_rows),
        (Way("dbn", export(form="dbn")), depth_rows),
    ]
    if find_spec("nautilus_trader"):
        ways.append((Way("nautilus", export(form="nautilus")), depth_rows))
    return ways


def imports(records: list[tuple[int, bytes]], session: md.Session, folder: Path) -> list[Way]:
    """The ways in; rows are messages."""
    old = folder / "old.db"
    session.export(old, form="sqlite")

    def tape_by_hand(path: Path) -> None:
        rows = [(at, *json.loads(text)["arguments"]) for at, text in records]
        pl.DataFrame(
            [(at, contract, json.dumps(entries)) for at, contract, entries in rows], orient="row"
        ).write_parquet(path)

    def sqlite_by_hand(path: Path) -> None:
        with closing(sqlite3.connect(old)) as connection:
            rows = connection.execute("SELECT * FROM market_depth").fetchall()
        pl.DataFrame(rows, orient="row", infer_schema_length=None).write_parquet(path)

    def ours(path: Path) -> object:
        return import_records(iter(records), path, source="benchmark")

    return [
        Way("import a tape", ours, tape_by_hand, "json and polars, untyped"),
        Way("import sqlite", lambda path: import_sqlite(str(old), path), sqlite_by_hand, "sqlite3 and polars, depth"),
    ]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contracts", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    records = tape_records(asked.contracts) or market_records(50_000 * asked.contracts, asked.contracts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        import_records(iter(records), folder / "lake", source="benchmark")
        session = md.open_lake(folder / "lake").session()
        depth, trades = (
            pl.scan_parquet(folder / "lake" / table / "**/*.parquet", hive_partitioning=True)
            for table in ("depth", "trades")
        )
        rows = depth.select(pl.len()).collect().item()
        for way in table_ways(session, depth, f"{folder}/lake/depth/*/*/*.parquet"):
            measure(way, rows, folder, asked.repeats)
        for way, count in other_ways(session, depth, trades):
            measure(way, count, folder, asked.repeats)
        for way in imports(records, session, folder):
            measure(way, len(records), folder, asked.repeats)


if __name__ == "__main__":
    main()
