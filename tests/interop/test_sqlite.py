"""Moving over: files of the replaced system into sessions that can be verified, and back."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import lake_builder
import pytest
from lake_builder import ES, depth, quote, record, recording, trade
from programs import mdcapture
from tapes import records, write_tape

import mdcapture as md
from mdcapture.interop.importing import import_tape
from mdcapture.interop.sqlite import import_sqlite
from mdcapture.lake.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHARED = "received_timestamp TIMESTAMP, exchange_timestamp TIMESTAMP, contract_id TEXT"
OLD = {
    "quotes": f"{SHARED}, symbol TEXT, best_bid REAL, best_ask REAL, last_price REAL, volume INTEGER, raw_data TEXT",
    "trades": f"{SHARED}, price REAL, volume INTEGER, trade_type INTEGER, trade_sequence INTEGER, raw_data TEXT",
    "market_depth": f"{SHARED}, price REAL, volume INTEGER, current_volume INTEGER, depth_type INTEGER, side TEXT, "
    "level_rank INTEGER, raw_data TEXT",
}
TIME = "2023-12-25T23:00:00.{:06d}+00:00"
EXCHANGE = "2023-12-25T22:59:59.500000+00:00"


def old_file(path: Path, **tables: list[tuple[Any, ...]]) -> Path:
    """A file as the replaced system wrote it."""
    connection = sqlite3.connect(path)
    for name, rows in tables.items():
        connection.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY AUTOINCREMENT, {OLD[name]})")
        places = ", ".join("?" * len(OLD[name].split(",")))
        connection.executemany(f"INSERT INTO {name} VALUES (NULL, {places})", rows)  # noqa: S608
    connection.commit()
    connection.close()
    return path


@pytest.mark.parametrize("table", ["quotes", "trades", "depth", "rejects"])
def test_the_tape_comes_back_as_it_was(shared: Path, tmp_path: Path, table: str):
    import_tape(str(shared / "tapes" / "es_20231225.ndjson.zst"), tmp_path / "lake")
    session = md.open_lake(tmp_path / "lake").session()
    assert session.export(tmp_path / "es.db")["market_depth"] == 73_239
    (manifest,) = import_sqlite(str(tmp_path / "es.db"), tmp_path / "again")
    assert manifest.config["rebuilt_from_columns"] == []
    again = md.open_lake(tmp_path / "again").session(manifest.session_id)
    assert getattr(again, table)().collect().equals(getattr(session, table)().collect())
    texts, old_texts = (one.messages().collect()["payload"].to_list() for one in (again, session))
    assert list(map(json.loads, texts)) == list(map(json.loads, old_texts))


def test_rows_are_what_their_original_text_says(tmp_path: Path):
    raw = {"price": 4800.5, "volume": 2, "type": 1, "timestamp": "2023-12-25T22:59:59.1234567+00:00", "extra": [1]}
    file = old_file(tmp_path / "old.db", trades=[(TIME.format(7), EXCHANGE, ES, 4800.5, 2, 1, 0, json.dumps(raw))])
    (manifest,) = import_sqlite(str(file), tmp_path / "lake")
    (row,) = md.open_lake(tmp_path / "lake").session().trades().collect().rows(named=True)
    assert (row["price"], row["volume"], row["side"]) == (4800.5, 2, 1)
    assert (row["recv_ns"], row["exch_ns"]) == (1_703_545_200_000_007_000, 1_703_545_199_123_456_700)
    assert (manifest.state, manifest.config["rebuilt_from_columns"]) == ("sealed", [])


def test_without_the_text_the_columns_make_it_and_the_manifest_says_so(tmp_path: Path):
    file = old_file(
        tmp_path / "old.db",
        quotes=[
            (TIME.format(1), EXCHANGE, ES, "F.US.EP", 4800.0, None, None, None, None),
            (TIME.format(9), EXCHANGE, ES, "F.US.EP", None, 4800.25, None, 12, None),
        ],
        market_depth=[(TIME.format(5), EXCHANGE, ES, 4799.75, 3, 0, 4, "bid", 0, None)],
    )
    (manifest,) = import_sqlite(str(file), tmp_path / "lake")
    session = md.open_lake(tmp_path / "lake").session()
    quotes = session.quotes().select("best_bid", "best_ask", "volume", "changed", "exch_ns").collect().rows()
    assert quotes == [
        (4800.0, None, None, 1, 1_703_545_199_500_000_000),
        (4800.0, 4800.25, 12, 10, 1_703_545_199_500_000_000),
    ]
    assert session.depth().select("seq", "dom_type", "price", "volume", "current_volume").collect().rows() == [
        (1, 4, 4799.75, 3, 0)
    ]
    assert manifest.config["rebuilt_from_columns"] == ["quotes", "market_depth"]


def test_rows_that_came_together_are_one_message(tmp_path: Path):
    def entry(place: int, time: int = 1) -> tuple[Any, ...]:
        return (TIME.format(time), EXCHANGE, ES, 4800.0 + place, 1, 0, 1, "ask", place, None)

    file = old_file(
        tmp_path / "old.db", market_depth=[entry(0), entry(1), entry(2), entry(0), entry(1), entry(0, time=2)]
    )
    import_sqlite(str(file), tmp_path / "lake")
    rows = md.open_lake(tmp_path / "lake").session().depth().select("seq", "pos").collect().rows()
    assert rows == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]


def test_a_session_each_and_an_entry_that_could_not_be_used_keeps_its_place(tmp_path: Path):
    for day in range(2):
        messages = (trade(volume=day), depth(ES, {"type": 1}, None, {"type": 2}), quote(bestBid=1.0), b"garbage")
        record(tmp_path / "lake", *messages, start_ns=lake_builder.START_NS + day * 86_400 * 10**9)
    lake = md.open_lake(tmp_path / "lake")
    lake.export(tmp_path / "old.sqlite")
    made = import_sqlite(str(tmp_path / "old.sqlite"), tmp_path / "again")
    again = md.open_lake(tmp_path / "again")
    assert [one.session_id for one in made] == [one.session_id for one in lake.sessions()]
    assert again.trades().collect().equals(lake.trades().collect())
    assert again.depth().collect().equals(lake.depth().collect())
    assert [one.counts["rejects"] for one in made] == [1, 1]  # the null; the garbage was no row, and is not in the file


def test_what_is_there_is_not_imported_again_and_what_came_since_is(tmp_path: Path):
    rows = [(TIME.format(number), EXCHANGE, ES, 4800.0, number, 0, 0, None) for number in range(1, 6)]
    file = old_file(tmp_path / "old.db", trades=rows[:3])
    assert len(import_sqlite(str(file), tmp_path / "lake")) == 1
    assert import_sqlite(str(file), tmp_path / "lake") == []
    connection = sqlite3.connect(file)
    connection.executemany("INSERT INTO trades VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", rows[3:])
    connection.commit()
    connection.close()
    assert len(import_sqlite(str(file), tmp_path / "lake")) == 1
    volumes = md.open_lake(tmp_path / "lake").trades().collect()["volume"].to_list()
    assert volumes == [1, 2, 3, 4, 5]
    (once_more,) = import_sqlite(str(file), tmp_path / "lake", again=True)
    assert once_more.counts["trades"] == 5
    assert import_sqlite(str(file), tmp_path / "lake") == []


def test_an_import_that_was_interrupted_goes_on(tmp_path: Path):
    rows = [(TIME.format(number), EXCHANGE, ES, 4800.0, number, 0, 0, None) for number in range(30_000)]
    file = old_file(tmp_path / "old.db", trades=rows)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_sqlite(str(file), tmp_path / "lake", progress=stop)
    import_sqlite(str(file), tmp_path / "lake")
    lake = md.open_lake(tmp_path / "lake")
    assert [one.status for one in lake.sessions()] == ["recovered", "sealed"]
    assert lake.trades().collect()["volume"].to_list() == list(range(30_000))


@pytest.mark.parametrize("kind", ["sqlite", "tape"])
def test_what_is_being_imported_is_not_imported_beside_it(tmp_path: Path, kind: str):
    """Whoever looks in the first moments finds nothing of it in the lake yet; another file is no matter."""
    lake = tmp_path / "lake"
    rows = [(TIME.format(one), EXCHANGE, ES, 1.0, one, 0, 0, None) for one in range(300)]
    files = {
        "sqlite": [old_file(tmp_path / f"{name}.db", trades=rows[skip:]) for skip, name in enumerate("ab")],
        "tape": [write_tape(tmp_path / name, records(300, seed=seed)) for seed, name in enumerate("ab")],
    }[kind]
    bring: Callable[..., object] = {"sqlite": import_sqlite, "tape": import_tape}[kind]

    def beside(_: int) -> None:
        with pytest.raises(md.BusyError, match="is being imported by another process"):
            bring(str(files[0]), lake)
        bring(str(files[1]), lake)

    bring(str(files[0]), lake, progress=beside)
    assert len(md.open_lake(lake).sessions()) == 2
    counts = [one.counts["messages"] for one in md.open_lake(lake).sessions()]
    assert sorted(counts) == ([299, 300] if kind == "sqlite" else [300, 300])
    assert list(lake.glob("*.lock")) == []


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ("CREATE TABLE something (x)", "none of the tables quotes, trades, market_depth"),
        ("CREATE TABLE trades (price REAL, contract_id TEXT)", "trades has no received_timestamp"),
    ],
)
def test_other_files_say_what_is_missing(tmp_path: Path, tables: str, says: str):
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute(tables)
    connection.commit()
    connection.close()
    with pytest.raises(md.UsageError, match=says):
        import_sqlite(str(tmp_path / "other.db"), tmp_path / "lake")


def test_damage_and_rows_without_a_time_say_so(tmp_path: Path):
    file = old_file(tmp_path / "old.db", trades=[("noon", None, ES, 1.0, 1, 0, 0, None)])
    with pytest.raises(md.UsageError, match="row 1 of trades has no time"):
        import_sqlite(str(file), tmp_path / "lake")
    (tmp_path / "torn.db").write_bytes(file.read_bytes()[:5000])
    with pytest.raises(md.UsageError, match="can't be read as a SQLite file"):
        import_sqlite(str(tmp_path / "torn.db"), tmp_path / "lake")
    with pytest.raises(md.NotFoundError, match="no file"):
        import_sqlite(str(tmp_path / "nowhere.db"), tmp_path / "lake")


def test_the_command_tells_of_each_session_and_verify_accepts_them(tmp_path: Path):
    with recording(tmp_path / "lake") as session:
        session.receive(trade(volume=5), quote(bestBid=4800.0))
        session.finish()
    md.open_lake(tmp_path / "lake").export(tmp_path / "market_data.db")
    again = str(tmp_path / "again")
    done = mdcapture("import", str(tmp_path / "market_data.db"), "--lake", again, "--json")
    told = json.loads(done.stdout)
    assert (told["session_id"], told["trades"], told["quotes"], told["status"]) == (session.session_id, 1, 1, "sealed")
    assert "already" in mdcapture("import", str(tmp_path / "market_data.db"), "--lake", again).stderr
    assert verify(tmp_path / "again", session.session_id, deep=True) == []
