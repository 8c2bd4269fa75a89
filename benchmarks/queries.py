"""Questions to many millions of rows, beside one sorted file in bare DuckDB and polars, and beside SQLite with indexes.

    python benchmarks/queries.py [--rows 10000000] [--sqlite-rows 5000000]

The lake is made straight as files: a session a day, four contracts, eleven quotes to a trade. The bare file has the
same rows, sorted by contract and time. SQLite has the first of the sessions only; where a question reads all of them,
that, and the time of what reads all is multiplied.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from analyze import arrow_rows
from figures import Figure, Timing, interleaved, say

from mdcapture.lake.files import make_folder
from mdcapture.lake.manifest import Manifest, write_manifest
from mdcapture.lake.parquet import write_part
from mdcapture.session import Lake, open_lake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Answer = Callable[[], list[tuple[float, ...]]]

SECOND_NS = 1_000_000_000
DAY_S = 82_800
START_NS = 1_772_575_200 * SECOND_NS
CONTRACTS = tuple(f"CON.F.US.{root}.H26" for root in ("EP", "ENQ", "CLE", "GCE"))
SESSION_ROWS = 2_000_000
TRADE_SHARE = 1 / 12
KEPT = {
    "quotes": ["seq", "recv_ns", "exch_ns", "best_bid", "best_ask", "last_price"],
    "trades": ["seq", "recv_ns", "exch_ns", "price", "volume", "side"],
}
NAMES = {
    "scan": "5-minute scan of a contract",
    "bars": "1 s bars of a session",
    "months": "5-minute spreads of a contract",
    "last_quote": "last quote before each trade",
}
"""What the questions are called in the results."""
PEERS = {
    "sqlite": ("SQLite, indexed", "≥ 20"),
    "duckdb": ("DuckDB, one file", "≤ 1.2"),
    "polars": ("polars, one file", "≤ 1.2"),
}
LAST_QUOTE = """
SELECT count(*), sum(t.price - (q.best_bid + q.best_ask) / 2)
FROM (SELECT * FROM {trades}) t ASOF JOIN (SELECT * FROM {quotes}) q ON q.recv_ns <= t.recv_ns
"""


def session_id(number: int) -> str:
    """A session a day."""
    return f"session_{20260304 + number if number < 28 else 20260404 + number - 28}_000000"


def start_ns(number: int) -> int:
    """When a session begins."""
    return START_NS + number * 86_400 * SECOND_NS


def columns(number: int, contract: int, rows: int) -> dict[str, dict[str, NDArray[np.number]]]:
    """Quotes and trades of one contract in one session."""
    random = np.random.default_rng(1_000 * number + contract)
    recv_ns = np.sort(random.integers(start_ns(number), start_ns(number) + DAY_S * SECOND_NS, rows))
    bid = 6_000 + 0.25 * np.cumsum(random.choice([-1, 0, 1], rows, p=[0.03, 0.94, 0.03]))
    ask = bid + 0.25 * random.choice([1, 2], rows, p=[0.92, 0.08])
    trade = random.random(rows) < TRADE_SHARE
    common: dict[str, NDArray[np.number]] = {
        "seq": np.arange(rows),
        "recv_ns": recv_ns,
        "exch_ns": recv_ns - 2_000_000,
        "pos": np.zeros(rows, np.int32),
    }
    buy = random.random(rows) < 0.5
    size = np.minimum(np.floor(random.pareto(1.6, rows) + 1), 400).astype(np.int64)
    quoted = common | {"best_bid": bid, "best_ask": ask, "last_price": bid}
    traded = common | {"price": np.where(buy, ask, bid), "volume": size, "side": (~buy).astype(np.int8)}
    return {
        "quotes": {name: values[~trade] for name, values in quoted.items()},
        "trades": {name: values[trade] for name, values in traded.items()},
    }


def make_lake(root: Path, sessions: int) -> None:
    """The lake."""
    make_folder(root / "sessions")
    for number in range(sessions):
        begin_ns = start_ns(number)
        end_ns = begin_ns + DAY_S * SECOND_NS
        manifest = Manifest(
            session_id=session_id(number),
            state="sealed",
            source=__file__,
            created_ns=begin_ns,
            start_ns=begin_ns,
            end_ns=end_ns,
        )
        for contract, contract_id in enumerate(CONTRACTS):
            for table, values in columns(number, contract, SESSION_ROWS // len(CONTRACTS)).items():
                part = write_part(root, manifest, table, contract_id, [arrow_rows(table, values)])
                manifest.files.append(part)
                manifest.counts[table] = manifest.counts.get(table, 0) + part.rows
        write_manifest(root, manifest)


def tables(sessions: int) -> Iterator[tuple[str, pa.Table]]:
    """The same rows by contract and time."""
    for contract, contract_id in enumerate(CONTRACTS):
        for number in range(sessions):
            for table, values in columns(number, contract, SESSION_ROWS // len(CONTRACTS)).items():
                rows = pa.table({name: values[name] for name in KEPT[table]})
                keys = {"session_id": session_id(number), "contract_id": contract_id}
                for name, value in keys.items():
                    repeated = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int32), [value])
                    rows = rows.append_column(name, repeated.cast(pa.string()))
                yield table, rows


def make_files(folder: Path, sessions: int) -> None:
    """One file a table."""
    writers: dict[str, pq.ParquetWriter] = {}
    for table, rows in tables(sessions):
        if table not in writers:
            writers[table] = pq.ParquetWriter(folder / f"{table}.parquet", rows.schema, compression="zstd")
        writers[table].write_table(rows, row_group_size=131_072)
    for writer in writers.values():
        writer.close()


def make_sqlite(path: Path, sessions: int) -> None:
    """The tables as the replaced system's scripts would have had to index them."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        for table, rows in tables(sessions):
            names = rows.column_names
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(names)})")
            marks = ", ".join("?" * len(names))
            values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608  # names of ours
        for table in KEPT:
            connection.execute(f"CREATE INDEX {table}_time ON {table} (contract_id, recv_ns)")
        connection.commit()


class Questions:
    """The questions, to one contract, as text for any of the engines."""

    def __init__(self, number: int) -> None:
        self.begin_ns = start_ns(number) + 3_600 * SECOND_NS
        self.end_ns = self.begin_ns + 300 * SECOND_NS
        self.session_id = session_id(number)
        self.contract_id = CONTRACTS[1]

    def scan(self, quotes: str) -> str:
        """Five minutes of a contract."""
        where = f"contract_id = '{self.contract_id}' AND recv_ns BETWEEN {self.begin_ns} AND {self.end_ns}"
        return f"SELECT count(*), avg(best_ask - best_bid) FROM {quotes} WHERE {where}"  # noqa: S608  # ours

    def day(self) -> str:
        """What selects a session's contract; by time too, as an index wants it."""
        begin_ns = self.begin_ns - 3_600 * SECOND_NS
        until_ns = begin_ns + 86_400 * SECOND_NS
        return (
            f"session_id = '{self.session_id}' AND contract_id = '{self.contract_id}'"
            f" AND recv_ns BETWEEN {begin_ns} AND {until_ns}"
        )

    def months(self, quotes: str, divide: str = "//") -> str:
        """Mean spreads of five minutes, of one contract over all sessions."""
        return f"""
            SELECT count(*), sum(spread) FROM (SELECT avg(best_ask - best_bid) AS spread FROM {quotes}
            WHERE contract_id = '{self.contract_id}' GROUP BY recv_ns {divide} {300 * SECOND_NS})
        """  # noqa: S608  # ours

    def bars(self, trades: str, divide: str = "//") -> str:
        """Bars of a second: how many, and their volume."""
        return f"""
            SELECT count(*), sum(volume) FROM (SELECT max(price), min(price), sum(volume) AS volume
            FROM {trades} WHERE {self.day()} GROUP BY recv_ns {divide} {SECOND_NS})
        """  # noqa: S608  # ours

    def last_quote(self, trades: str, quotes: str) -> str:
        """The last quote before each trade."""
        return LAST_QUOTE.format(trades=f"{trades} WHERE {self.day()}", quotes=f"{quotes} WHERE {self.day()}")

    def last_quote_in_sqlite(self) -> str:
        """The same without an as-of join."""
        return f"""
            SELECT count(*), sum(price - (SELECT (best_bid + best_ask) / 2 FROM quotes q
                WHERE q.contract_id = t.contract_id AND q.recv_ns <= t.recv_ns ORDER BY q.recv_ns DESC LIMIT 1))
            FROM trades t WHERE {self.day()}
        """  # noqa: S608  # ours

    def texts(self, folder: Path) -> dict[str, tuple[str, str, str]]:
        """Each question, as the lake, DuckDB and SQLite are asked it."""
        quotes, trades = (f"read_parquet('{folder}/{table}.parquet')" for table in KEPT)
        return {
            "scan": (self.scan("quotes"), self.scan(quotes), self.scan("quotes")),
            "bars": (self.bars("trades"), self.bars(trades), self.bars("trades", "/")),
            "months": (self.months("quotes"), self.months(quotes), self.months("quotes", "/")),
            "last_quote": (
                self.last_quote("trades", "quotes"),
                self.last_quote(trades, quotes),
                self.last_quote_in_sqlite(),
            ),
        }

    def polars(self, folder: Path) -> dict[str, Callable[[], object]]:
        """The same by hand in polars."""
        quotes, trades = (pl.scan_parquet(folder / f"{table}.parquet") for table in KEPT)
        mine = (pl.col("contract_id") == self.contract_id) & (pl.col("session_id") == self.session_id)
        time = pl.col("recv_ns").is_between(self.begin_ns, self.end_ns)
        spread = pl.col("best_ask") - pl.col("best_bid")
        bar = trades.filter(mine).group_by(pl.col("recv_ns") // SECOND_NS)
        own = trades.filter(mine).select("recv_ns", "price")
        joined = own.join_asof(quotes.filter(mine).select("recv_ns", "best_bid", "best_ask"), on="recv_ns")
        return {
            "scan": quotes.filter(time & (pl.col("contract_id") == self.contract_id))
            .select(pl.len(), spread.mean())
            .collect,
            "months": quotes.filter(pl.col("contract_id") == self.contract_id)
            .group_by(pl.col("recv_ns") // (300 * SECOND_NS))
            .agg(spread.mean())
            .collect,
            "bars": bar.agg(pl.max("price"), pl.min("price").alias("low"), pl.sum("volume")).collect,
            "last_quote": joined.select(
                (pl.col("price") - (pl.col("best_bid") + pl.col("best_ask")) / 2).sum()
            ).collect,
        }


def answers(
    texts: tuple[str, str, str], lake: Lake, bare: duckdb.DuckDBPyConnection, old: sqlite3.Connection
) -> dict[str, Answer]:
    """How each engine that takes SQL is asked a question."""
    ours, in_duckdb, in_sqlite = texts
    return {
        "lake": lambda: lake.sql(ours).fetchall(),
        "duckdb": lambda: bare.sql(in_duckdb).fetchall(),
        "sqlite": lambda: old.execute(in_sqlite).fetchall(),
    }


def check(what: str, asked: dict[str, Answer], engines: tuple[str, ...]) -> None:
    """All must have come to the same answer."""
    ours = asked["lake"]()
    for engine in engines:
        theirs = asked[engine]()
        assert np.allclose(np.array(ours, float), np.array(theirs, float)), (what, engine, ours, theirs)


def tell(what: str, sessions: int, timings: dict[str, Timing], more_than_in_sqlite: float) -> None:
    """Say the figures of a question; SQLite's time is multiplied where it reads all that it has, which is less."""
    ours_ms = 1e3 * timings["lake"].median_s
    name = f"{NAMES[what]}, {sessions * SESSION_ROWS / 1e6:.0f} M rows"
    for engine, (beside, goal) in PEERS.items():
        peer_ms = 1e3 * timings[engine].median_s * (more_than_in_sqlite if engine == "sqlite" else 1)
        ratio = peer_ms / ours_ms if goal.startswith("≥") else ours_ms / peer_ms
        say(Figure(name, ours_ms, "ms", beside, peer_ms, ratio, goal, timings["lake"].spread))


def main() -> None:
    """Make the data, check that all answers agree, and time them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--sqlite-rows", type=int, default=4_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    chosen = parser.parse_args()
    sessions = max(1, chosen.rows // SESSION_ROWS)
    few = max(1, min(sessions, chosen.sqlite_rows // SESSION_ROWS))
    ask = Questions(few - 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_lake(folder / "lake", sessions)
        make_files(folder, sessions)
        make_sqlite(folder / "old.db", few)
        lake = open_lake(folder / "lake")
        with closing(sqlite3.connect(folder / "old.db")) as old, closing(duckdb.connect()) as bare:
            texts, polars = ask.texts(folder), ask.polars(folder)
            for what in NAMES:
                asked = answers(texts[what], lake, bare, old)
                all_are_there = sessions == few or what != "months"
                check(what, asked, ("duckdb", "sqlite") if all_are_there else ("duckdb",))
                timings = interleaved(chosen.repeats, **asked, polars=polars[what])
                tell(what, sessions, timings, 1 if all_are_there else sessions / few)


if __name__ == "__main__":
    main()
