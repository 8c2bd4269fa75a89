"""Moving over from the replaced system's PostgreSQL database: the sessions that its SQLite file would give."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from lake_builder import ES, depth, quote, record, trade
from polars.testing import assert_frame_equal
from postgres_server import PASSWORD, Server
from programs import mdcapture

import mdcapture as md
from mdcapture.interop.postgres.moving import import_postgres
from mdcapture.interop.sqlite import import_sqlite
from mdcapture.lake.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

TYPES = {
    "typed": {"TIMESTAMP": "timestamptz", "REAL": "numeric(14, 4)", "INTEGER": "bigint", "TEXT": "text"},
    "plain": {"TIMESTAMP": "timestamp", "REAL": "double precision", "INTEGER": "integer", "TEXT": "varchar"},
    "texts": {"TIMESTAMP": "text", "REAL": "real", "INTEGER": "integer", "TEXT": "text"},
}
COLUMNS = {
    "quotes": "received_timestamp TIMESTAMP, exchange_timestamp TIMESTAMP, contract_id TEXT, best_bid REAL, "
    "best_ask REAL, last_price REAL, volume INTEGER, raw_data TEXT",
    "trades": "received_timestamp TIMESTAMP, exchange_timestamp TIMESTAMP, contract_id TEXT, price REAL, "
    "volume INTEGER, trade_type INTEGER, trade_sequence INTEGER, raw_data TEXT",
    "market_depth": "received_timestamp TIMESTAMP, exchange_timestamp TIMESTAMP, contract_id TEXT, price REAL, "
    "volume INTEGER, current_volume INTEGER, depth_type INTEGER, level_rank INTEGER, raw_data TEXT",
}
TIME = "2023-12-25T23:00:0{}.{:06d}+00:00"


def old_rows() -> dict[str, list[tuple[object, ...]]]:
    """Rows as the replaced system wrote them: some with their text, some without; some that came together."""
    raw = json.dumps({"price": 4800.5, "volume": 2, "type": 1, "timestamp": "2023-12-25T22:59:59.1234567+00:00"})
    early, late = TIME.format(0, 5), TIME.format(1, 120_000)
    return {
        "quotes": [
            (early, late, ES, 4800.25, None, None, 7, None),
            (late, late, ES, None, 4800.5, 4800.25, None, None),
        ],
        "trades": [(early, late, ES, 4800.5, 2, 1, 0, raw), (early, late, ES, 4800.75, 3, 0, 1, None)],
        "market_depth": [(late, early, ES, 4799.75, 3, 0, 4, 0, None), (late, early, ES, 4799.5, 1, 0, 4, 1, None)],
    }


def fill_sqlite(path: Path) -> Path:
    """The replaced system's file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, rows in old_rows().items():
            connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, {COLUMNS[table]})")
            places = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} VALUES (NULL, {places})", rows)  # noqa: S608
    return path


def fill_postgres(server: Server, address: str, kinds: str, number: str = "id bigserial, ") -> None:
    """The same in a database, whose columns are of other types from case to case."""
    server.psql(address, "SET TimeZone = 'UTC'")
    for table, rows in old_rows().items():
        columns = COLUMNS[table]
        for old, new in TYPES[kinds].items():
            columns = columns.replace(old, new)
        names = ", ".join(part.split()[0] for part in COLUMNS[table].split(", "))
        values = ", ".join(f"({', '.join(map(_literal, row))})" for row in rows)
        server.psql(
            address,
            f"CREATE TABLE {table} ({number}{columns})",
            f"INSERT INTO {table} ({names}) VALUES {values}",  # noqa: S608
        )


def _literal(value: object) -> str:
    return "NULL" if value is None else f"'{value}'"


@pytest.mark.parametrize("kinds", TYPES)
def test_a_database_gives_what_the_file_would(postgres: Server, tmp_path: Path, kinds: str):
    address = postgres.database()
    fill_postgres(postgres, address, kinds)
    (made,) = import_postgres(address, tmp_path / "there")
    (expected,) = import_sqlite(str(fill_sqlite(tmp_path / "old.db")), tmp_path / "here")
    here, there = (md.open_lake(tmp_path / name).session() for name in ("here", "there"))
    for table in ("quotes", "trades", "depth", "messages"):
        assert_frame_equal(getattr(there, table)().collect(), getattr(here, table)().collect())
    assert made.config["rebuilt_from_columns"] == expected.config["rebuilt_from_columns"]
    assert made.source == f"postgresql {address.partition('@')[2]}"
    assert verify(tmp_path / "there", made.session_id, deep=True) == []


def test_rows_without_a_number_come_in_their_order(postgres: Server, tmp_path: Path):
    address = postgres.database()
    fill_postgres(postgres, address, "plain", number="")
    import_postgres(address, tmp_path)
    assert md.open_lake(tmp_path).trades().collect()["price"].to_list() == [4800.5, 4800.75]


def test_what_is_new_is_imported_and_nothing_twice(postgres: Server, tmp_path: Path):
    address = postgres.database()
    fill_postgres(postgres, address, "typed")
    postgres.psql(
        address,
        "INSERT INTO trades (received_timestamp, contract_id, price, volume, trade_type) SELECT "
        "timestamptz '2023-12-25 23:01Z' + number * interval '1 ms', 'CON.F.US.EP.H24', 4800, number, 0 "
        "FROM generate_series(1, 4000) AS number",
    )

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_postgres(address, tmp_path, progress=stop)
    assert [one.state for one in import_postgres(address, tmp_path)] == ["sealed"]
    assert import_postgres(address, tmp_path) == []
    lake = md.open_lake(tmp_path)
    assert [one.status for one in lake.sessions()] == ["recovered", "sealed"]
    assert lake.trades().collect()["volume"].to_list()[2:] == list(range(1, 4_001))


def test_the_command_tells_of_each_session(postgres: Server, tmp_path: Path):
    address = postgres.database()
    fill_postgres(postgres, address, "typed")
    done = mdcapture("import", address, "--lake", str(tmp_path), "--json", PGPASSWORD=PASSWORD)
    told = json.loads(done.stdout)
    assert (told["quotes"], told["trades"], told["depth"], told["status"]) == (2, 2, 2, "sealed")


@pytest.mark.usefixtures("postgres")
def test_other_databases_say_what_is_missing(postgres: Server, tmp_path: Path):
    address = postgres.database()
    with pytest.raises(md.NotFoundError, match=r"none of the tables quotes, trades, market_depth$"):
        import_postgres(address, tmp_path)
    record(tmp_path, trade(), quote(bestBid=1.0), depth(ES, {"type": 3}))
    md.open_lake(tmp_path).publish(address)
    with pytest.raises(md.NotFoundError, match="its sessions were published by mdcapture: read"):
        import_postgres(address, tmp_path)
    postgres.psql(address, "CREATE TABLE trades (price float8, contract_id text)")
    with pytest.raises(md.UsageError, match="trades has no received_timestamp"):
        import_postgres(address, tmp_path)
