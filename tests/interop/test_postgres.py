"""Sessions on a PostgreSQL server: what was captured is there, each row once, and is read back as it was."""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lake_builder import ES, START_NS, depth, message, quote, record, recording, trade
from polars.testing import assert_frame_equal
from postgres_server import PASSWORD, Server
from programs import mdcapture

import mdcapture as md
from mdcapture.interop.importing import import_tape
from mdcapture.interop.postgres.publish import publish
from mdcapture.lake.catalog import open_catalog
from mdcapture.lake.schema import TABLES, IncidentKind, SignalRow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mdcapture.interop.postgres.publish import Brought

TABLE_NAMES = list(TABLES)
QUERIES = {
    "side": "SELECT side, count(*), sum(volume) FROM market_depth GROUP BY side ORDER BY side",
    "symbol": "SELECT symbol, trade_type, max(price) FROM trades GROUP BY symbol, trade_type ORDER BY 1, 2",
    "bounds": "SELECT min(recv_ns), max(exch_ns), min(updated_ns) FROM quotes",
    "sessions": "SELECT session_id, status, start_ns, quotes, trades, depth, messages FROM sessions",
    "contracts": "SELECT contract_id, name, tick_size, tick_value FROM contracts",
    "gaps": "SELECT contract_id, stream, from_ns, to_ns FROM gaps",
}


def bring(lake: Path, address: str) -> list[Brought]:
    """Publish all sessions of a lake."""
    catalog = open_catalog(lake)
    return publish(catalog, catalog.session_ids(), address)


def assert_same(lake: Path, address: str, session_id: str, tables: Sequence[str] = TABLE_NAMES) -> None:
    """A database holds of a session what the lake does."""
    here, there = (md.open_lake(one).session(session_id) for one in (lake, address))
    assert repr(there) == repr(here)
    for table in tables:
        order = ["contract_id", *(name for name in ("recv_ns", "seq", "pos", "name") if name in _names(table))]
        frames = [getattr(one, table)().collect().sort(order, maintain_order=True) for one in (there, here)]
        assert_frame_equal(*frames)


def _names(table: str) -> list[str]:
    return [column.name for column in TABLES[table].columns]


@pytest.fixture(scope="module")
def tape(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of the ES tape."""
    lake = tmp_path_factory.mktemp("tape")
    import_tape(str(shared / "tapes" / "es_20231225.ndjson.zst"), lake)
    return lake


@pytest.fixture(scope="module")
def published(server: Server, tape: Path) -> str:
    """A database that the command has published the tape to."""
    address = server.database()
    done = mdcapture("publish", "latest", "--lake", str(tape), "--to", address, "--json", PGPASSWORD=PASSWORD)
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)
    assert (told["status"], told["messages"], told["rows"]) == ("sealed", 47_262, 128_053)
    return address


@pytest.mark.usefixtures("postgres")
@pytest.mark.parametrize("table", TABLE_NAMES)
def test_the_tape_is_read_back_as_it_was(tape: Path, published: str, table: str):
    here, there = (getattr(md.open_lake(one).session(), table)().collect() for one in (tape, published))
    assert_frame_equal(there, here)


def test_another_client_reads_the_same_rows_and_times_for_people(postgres: Server, tape: Path, published: str):
    names = ("seq", "recv_ns", "exch_ns", "price", "volume", "side")
    query = f"SELECT {', '.join(names)}, received_timestamp FROM mdcapture.trades ORDER BY recv_ns, seq, pos"  # noqa: S608
    rows = [(*map(int, row[:3]), float(row[3]), *map(int, row[4:6]), row[6]) for row in postgres.psql(published, query)]
    relation = (
        md.open_lake(tape)
        .session()
        .sql(
            f"SELECT {', '.join(names)}, strftime(received_timestamp, '%Y-%m-%d %H:%M:%S.%f') FROM trades"  # noqa: S608
        )
    )
    stamps = [(*row[:6], f"{row[6].rstrip('0')}+00") for row in relation.fetchall()]
    assert rows == stamps


@pytest.mark.parametrize("query", QUERIES)
def test_a_view_says_the_same_in_three_places(postgres: Server, tape: Path, published: str, query: str):
    here, there = (md.open_lake(one).sql(QUERIES[query]).fetchall() for one in (tape, published))
    assert there == here
    texts = postgres.psql(published, "SET search_path = mdcapture", QUERIES[query])
    assert [[_number(value) for value in row] for row in texts] == [[_number(value) for value in row] for row in here]


def _number(value: object) -> object:
    try:
        return float(str(value))
    except ValueError:
        return value


@pytest.mark.usefixtures("postgres")
def test_metrics_are_the_same(tape: Path, published: str):
    start, end = "2023-12-25T23:10:00Z", "2023-12-25T23:12:00Z"
    here, there = (md.open_lake(one).session().analyze(start=start, end=end) for one in (tape, published))
    assert here.frame().height > 50
    assert_frame_equal(there.frame(), here.frame())


@pytest.mark.usefixtures("postgres")
def test_the_server_picks_contract_and_columns(tape: Path, published: str):
    session = md.open_lake(published).session()
    assert session.trades(ES).select("price").head(3).collect().rows() == [(4800.25,), (4800.25,), (4800.5,)]
    assert session.trades().filter(pl.col("volume") > 20).select("price").collect().height == 76
    assert session.messages().select("seq").collect().height == 47_262
    assert session.quotes(clean=True).collect().equals(md.open_lake(tape).session().quotes(clean=True).collect())
    with pytest.raises(md.NotFoundError, match="no contract"):
        session.trades("CON.F.US.XYZ.H24")
    with pytest.raises(md.NotFoundError, match="no session"):
        md.open_lake(published).session("session_9")


def test_commands_read_a_database(tape: Path, published: str):
    query = "select count(*) as n from trades"
    read = [mdcapture("sql", query, "--lake", str(one), "--json", PGPASSWORD=PASSWORD) for one in (tape, published)]
    assert read[1].stdout == read[0].stdout
    assert mdcapture("recover", "--lake", published, PGPASSWORD=PASSWORD).returncode == 2


def test_publishing_again_changes_nothing(postgres: Server, tape: Path, published: str):
    state = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_xact_all_tables"
    rows = "SELECT min(xmin::text::bigint), max(xmin::text::bigint), count(*) FROM mdcapture_lake."
    tables = [*TABLE_NAMES, "sessions"]
    before = [postgres.psql(published, rows + table) for table in tables]
    assert [one.rows for one in bring(tape, published)] == [0]
    assert [postgres.psql(published, rows + table) for table in tables] == before
    assert postgres.psql(published, state) == [["0"]]


SIGNAL = SignalRow(0, START_NS, ES, "one", 1.5)
STEPS = {
    "trade": lambda session, n: session.receive(trade(volume=n)),
    "quote": lambda session, n: session.receive(quote(bestBid=4800.0 + n), quote(bestAsk=4801.0 + n)),
    "depth": lambda session, n: session.receive(depth("CON.F.US.ENQ.H24", {"price": n, "type": 3}, None)),
    "garbage": lambda session, _: session.receive(b'{"type":1,"target":"GatewayTrade","arguments":["x\xff",5]}'),
    "incident": lambda session, _: session.note(IncidentKind.GAP, "trades", ES),
    "signal": lambda session, n: session.say(SIGNAL._replace(seq=0, value=float(n))),
    "back": lambda session, _: setattr(session, "now_ns", session.now_ns - 5_000_000),
    "seal": lambda session, _: session.seal(),
    "roll": lambda session, _: session.roll(),
}
_STARTS = count(START_NS, 10_000_000_000)


@pytest.fixture(scope="module")
def one_lake(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A lake and a database that grow with every example."""
    return tmp_path_factory.mktemp("one"), server.database()


@pytest.mark.long
@pytest.mark.usefixtures("postgres")
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.lists(st.sampled_from(sorted(STEPS)), max_size=8), min_size=1, max_size=4),
    piece=st.sampled_from([1, 2, 3, 1000]),
)
def test_a_running_session_is_there_as_far_as_it_goes_whenever_it_is_published(
    one_lake: tuple[Path, str], parts: list[list[str]], piece: int
):
    lake, address = one_lake
    catalog = open_catalog(lake) if (lake / "sessions").is_dir() else None
    with recording(lake, next(_STARTS)) as session:
        session.receive(trade())
        catalog = catalog or open_catalog(lake)
        for part in parts:
            for number, step in enumerate(part, 1):
                STEPS[step](session, number)
            publish(catalog, [session.session_id], address, piece_messages=piece)
            assert_same(lake, address, session.session_id, ["trades", "incidents", "signals"])
        session.finish()
    publish(catalog, [session.session_id], address, piece_messages=piece)
    assert_same(lake, address, session.session_id)


def test_a_session_that_grows_meanwhile_is_published_as_it_was(postgres: Server, tmp_path: Path):
    address = postgres.database()
    with recording(tmp_path) as session:
        session.receive(trade(), trade(), trade())
        catalog = open_catalog(tmp_path)
        (brought,) = publish(
            catalog, [session.session_id], address, piece_messages=2, progress=lambda _: session.receive(trade())
        )
        assert (brought.status, brought.messages) == ("open", 4)
        assert len(open_catalog(tmp_path).snapshot(session.session_id).tail["trades"]) == 5


def test_what_a_text_there_can_not_hold_is_marked(postgres: Server, tmp_path: Path):
    record(tmp_path, message("GatewayTrade", "CON.F.US.A\0B.H24", [{"price": 1, "volume": 2, "type": 0}]), b"a\0b")
    address = postgres.database()
    bring(tmp_path, address)
    rows = postgres.psql(address, "SELECT payload FROM mdcapture.messages ORDER BY seq")
    assert rows[1] == ["a�b"]
    for view in ("trades", "contracts"):
        assert postgres.psql(address, f"SELECT contract_id FROM mdcapture.{view}") == [["CON.F.US.A�B.H24"]]  # noqa: S608
    assert [one.rows for one in bring(tmp_path, address)] == [0]


@pytest.mark.usefixtures("postgres")
def test_signals_that_were_computed_afterwards_replace_those_that_are_there(postgres: Server, tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade(), trade())
        session.say(SIGNAL, SIGNAL._replace(name="two"))
        address = postgres.database()
        bring(tmp_path, address)
        session.finish()
    bring(tmp_path, address)
    here = md.open_lake(tmp_path).session()
    rows = here.signals().collect().drop("session_id")
    here.store_signals(rows.with_columns(value=rows["value"] * 2), ["one", "two"])
    bring(tmp_path, address)
    assert postgres.psql(address, "SELECT name, value FROM mdcapture.signals ORDER BY 1") == [
        ["one", "3"],
        ["two", "3"],
    ]
    assert_same(tmp_path, address, session.session_id)


def test_a_session_of_another_lake_is_left_alone(postgres: Server, tmp_path: Path):
    address = postgres.database()
    session_id = record(tmp_path / "one", trade())
    record(tmp_path / "two", trade(volume=7), start_ns=START_NS + 1)
    other = record(tmp_path / "two", trade(volume=8), start_ns=START_NS + 10**10)
    bring(tmp_path / "one", address)
    with pytest.raises(md.UsageError, match="the database has a session of this name from another lake"):
        bring(tmp_path / "two", address)
    assert_same(tmp_path / "one", address, session_id)
    assert_same(tmp_path / "two", address, other)


def test_a_database_that_knows_more_of_a_session_is_left_alone(postgres: Server, tmp_path: Path):
    address = postgres.database()
    with recording(tmp_path / "one") as session:
        session.receive(trade(), trade())
        bring(tmp_path / "one", address)
    with recording(tmp_path / "two") as session:  # as after a power failure: the last of it is gone
        session.receive(trade())
        session.finish()
    with pytest.raises(md.DamageError, match="the database has messages beyond the lake's last"):
        bring(tmp_path / "two", address)
    assert postgres.psql(address, "SELECT count(*) FROM mdcapture.trades") == [["2"]]


def test_files_that_are_not_what_the_manifest_counts_are_not_published(postgres: Server, tmp_path: Path):
    address = postgres.database()
    record(tmp_path, trade(), trade())
    manifest = next(tmp_path.glob("sessions/*.json"))
    said = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(said | {"counts": said["counts"] | {"trades": 3}}))
    with pytest.raises(md.DamageError, match=r"the files hold \{.*\} rows, and the manifest says \{"):
        bring(tmp_path, address)
    assert postgres.psql(address, "SELECT count(*) FROM mdcapture.trades") == [["0"]]


def test_a_database_without_sessions_is_no_lake(postgres: Server):
    address = postgres.database()
    with pytest.raises(md.NotFoundError, match="nothing was published to postgresql://"):
        md.open_lake(address)


def test_tables_of_another_shape_are_not_touched(postgres: Server, tmp_path: Path):
    address = postgres.database()
    record(tmp_path, trade())
    postgres.psql(address, "CREATE SCHEMA mdcapture_lake", "CREATE TABLE mdcapture_lake.trades (price text)")
    with pytest.raises(md.UsageError, match="is not ours: its column price is text, and should be double"):
        bring(tmp_path, address)
    tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema LIKE 'mdcapture%'"
    assert postgres.psql(address, tables) == [["1"]]


def test_a_database_of_an_older_version_gets_what_it_lacks(postgres: Server, tmp_path: Path):
    address = postgres.database()
    session_id = record(tmp_path, trade())
    bring(tmp_path, address)
    older = "COMMENT ON SCHEMA mdcapture_lake IS 'mdcapture schema 1, layout 000000000000'"
    dropped = "DROP TABLE mdcapture_lake.signals CASCADE", "ALTER TABLE mdcapture_lake.quotes DROP COLUMN low CASCADE"
    postgres.psql(address, *dropped, older)
    record(tmp_path, quote(low=4790.0), trade(), start_ns=START_NS + 10**10)
    bring(tmp_path, address)
    for one in (session_id, "latest"):
        assert_same(tmp_path, address, one)


def test_a_database_of_a_newer_version_is_refused(postgres: Server, tmp_path: Path):
    address = postgres.database()
    record(tmp_path, trade())
    bring(tmp_path, address)
    postgres.psql(address, "COMMENT ON SCHEMA mdcapture_lake IS 'mdcapture schema 99, layout 000000000000'")
    with pytest.raises(md.UsageError, match="this database was written by a newer mdcapture"):
        bring(tmp_path, address)
    with pytest.raises(md.UsageError, match="newer mdcapture"):
        md.open_lake(address)


def test_who_may_only_read_the_views_can_open_it(postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    address = postgres.database()
    record(tmp_path, trade(), quote(bestBid=1.0))
    bring(tmp_path, address)
    postgres.psql(
        address,
        "CREATE ROLE reader LOGIN PASSWORD 'another'",
        "GRANT USAGE ON SCHEMA mdcapture TO reader",
        "GRANT SELECT ON ALL TABLES IN SCHEMA mdcapture TO reader",
    )
    monkeypatch.setenv("PGPASSWORD", "another")
    reader = postgres.address(address.rpartition("/")[2], user="reader")
    assert md.open_lake(reader).sql("select symbol, price from trades").fetchall() == [("F.US.EP", 4800.25)]
    with pytest.raises(md.ServerError, match="permission denied"):
        bring(tmp_path, reader)


def test_a_time_is_found_without_reading_all_rows(postgres: Server, published: str):
    explained = postgres.psql(
        published,
        "SET enable_seqscan = off",
        "EXPLAIN SELECT * FROM mdcapture.depth WHERE session_id = 'session_20231225_230000' "
        "AND received_timestamp >= '2023-12-25 23:50Z'",
    )
    assert any("Bitmap Index Scan" in line for (line, *_) in explained)


def test_times_for_people_are_cut_to_microseconds(postgres: Server, published: str):
    told = postgres.psql(published, "SELECT mdcapture.utc(-1), mdcapture.utc(1703545200106846999), mdcapture.utc(NULL)")
    assert told == [["1969-12-31 23:59:59.999999+00", "2023-12-25 23:00:00.106846+00", ""]]
