# ruff: noqa: S608  # the statements are those of the test
"""SQL on the lake: the same rows as any Parquet reader finds, under the names that people's queries use."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import duckdb
import lake_builder
import polars as pl
import pytest
from lake_builder import ES, START_NS, depth, message, quote, record, recording, trade

import mdcapture as md
from mdcapture.demo import synthesize
from mdcapture.errors import DamageError, UsageError
from mdcapture.lake.catalog import Catalog
from mdcapture.lake.layout import NULL_PARTITION
from mdcapture.lake.schema import TABLES, Bar, DomType, Incident, IncidentKind, SignalRow
from mdcapture.query.sql import VIEWS, Database

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TICKS = (0.25, 0.1, 0.01, 0.0001, 0.03125, 0.0000005)
CONTRACTS = (ES, "CON/F/../../x", "a b%2F,+@!", "é*[?]{1}", "007", "", NULL_PARTITION, "o'clock\"; --")


def rows(root: Path, query: str, parameters: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
    with Database(Catalog(root)) as database:
        found: list[tuple[Any, ...]] = database.sql(query, parameters).fetchall()
        return found


def columns(root: Path, view: str) -> list[tuple[Any, ...]]:
    return rows(root, f"SELECT column_name, column_type FROM (DESCRIBE {view})")


def plain_duckdb(root: Path, table: str, select: str) -> list[tuple[Any, ...]]:
    """Rows in the order of their first columns, found without mdcapture."""
    pattern = (root / table / "*" / "*" / "*.parquet").as_posix()
    types = "{session_id: VARCHAR, contract_id: VARCHAR}"
    with duckdb.connect() as connection:
        source = f"read_parquet('{pattern}', hive_partitioning = true, hive_types = {types})"
        found: list[tuple[Any, ...]] = connection.sql(f"SELECT {select} FROM {source} ORDER BY ALL").fetchall()
        return found


def test_the_tape_trades_what_it_traded(tape_lake: Path):
    query = "SELECT sum(volume), sum(price * volume) / sum(volume), sum(if(side = 0, volume, -volume)) FROM trades"
    ((lots, vwap, delta),) = rows(tape_lake, query)
    assert (lots, delta) == (9_848, 796)
    assert vwap == pytest.approx(4808.760560519902, rel=1e-15)


def test_the_tape_has_the_published_counts(tape_lake: Path):
    query = "SELECT messages, quotes, trades, depth, rejects, incidents FROM sessions"
    assert rows(tape_lake, query) == [(47_262, 4_579, 2_972, 73_239, 1, 0)]
    for view, count in (("messages", 47_262), ("quotes", 4_579), ("trades", 2_972), ("market_depth", 73_239)):
        assert rows(tape_lake, f"SELECT count(*) FROM {view}") == [(count,)]


@pytest.mark.parametrize("table", ["quotes", "trades", "depth", "messages", "rejects"])
def test_plain_duckdb_and_plain_polars_find_the_same_rows(tape_lake: Path, table: str):
    names = ["session_id", "contract_id", *(column.name for column in TABLES[table].columns)]
    select = ", ".join(f'"{name}"' for name in names)
    ours = rows(tape_lake, f"SELECT {select} FROM {table} ORDER BY ALL")
    assert ours == plain_duckdb(tape_lake, table, select)
    schema = {"session_id": pl.String, "contract_id": pl.String}
    pattern = (tape_lake / table / "**" / "*.parquet").as_posix()
    frame = pl.scan_parquet(pattern, hive_partitioning=True, hive_schema=schema).select(names).collect()
    assert frame.sort(names).equals(pl.DataFrame(ours, schema=frame.schema, orient="row").sort(names))


@pytest.mark.parametrize("tick", TICKS)
def test_prices_are_exact_for_every_tick(tmp_path: Path, tick: float):
    texts = [f"{number * tick:.12f}".rstrip("0") for number in (1, 3, 7, 100_003, 1_234_567)]
    entries = [b'{"price":%s,"volume":1,"type":0}' % text.encode() for text in texts]
    record(tmp_path, b'{"type":1,"target":"GatewayTrade","arguments":["X",[%s]]}' % b",".join(entries))
    assert [price for (price,) in rows(tmp_path, "SELECT price FROM trades ORDER BY pos")] == list(map(float, texts))
    assert plain_duckdb(tmp_path, "trades", "pos, price") == [(pos, float(text)) for pos, text in enumerate(texts)]


def test_any_contract_id_comes_back_as_it_was(tmp_path: Path):
    with recording(tmp_path / "lake") as session:
        session.receive(*(trade(one, volume=number) for number, one in enumerate(CONTRACTS)))
        running = rows(tmp_path / "lake", "SELECT volume, contract_id FROM trades ORDER BY 1")
        session.finish()
    sealed = rows(tmp_path / "lake", "SELECT volume, contract_id FROM trades ORDER BY 1")
    assert (
        sealed
        == running
        == [(number, None if one in ("", NULL_PARTITION) else one) for number, one in enumerate(CONTRACTS)]
    )
    assert plain_duckdb(tmp_path / "lake", "trades", "volume, contract_id") == sealed
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]


def test_a_lake_in_a_folder_of_odd_characters(tmp_path: Path):
    root = tmp_path / "it's [x] *?" / "venue=CME"
    record(root, trade())
    assert rows(root, "SELECT contract_id, volume FROM trades") == [(ES, 1)]
    with Database(Catalog(root), restricted=True) as database:
        assert database.sql("SELECT count(*) FROM trades").fetchall() == [(1,)]


def test_rows_of_no_contract_are_there(tmp_path: Path):
    record(tmp_path, b"garbage")
    assert rows(tmp_path, "SELECT contract_id, symbol, payload FROM messages") == [(None, None, "garbage")]
    assert rows(tmp_path, "SELECT count(*) FROM rejects WHERE contract_id IS NULL") == [(1,)]


def test_times_are_utc_and_cut_to_microseconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "America/Chicago")
    stamps = ["2023-12-25T23:00:00.1068469+00:00", "2023-12-25T17:00:00.1068469-06:00", "1969-12-31T23:59:59.9999999Z"]
    record(tmp_path, *(trade(timestamp=stamp) for stamp in (*stamps, "never")), start_ns=1_703_545_200_105_846_999)
    query = "SELECT received_timestamp, exchange_timestamp FROM trades ORDER BY seq"
    received, exchange = zip(*rows(tmp_path, query), strict=True)
    assert {time.isoformat() for time in received} == {"2023-12-25T23:00:00.106846+00:00"}
    assert [time and time.isoformat() for time in exchange] == [
        "2023-12-25T23:00:00.106846+00:00",
        "2023-12-25T23:00:00.106846+00:00",
        "1969-12-31T23:59:59.999999+00:00",
        None,
    ]
    assert rows(tmp_path, "SELECT hour(received_timestamp), utc(-1)::VARCHAR FROM trades LIMIT 1") == [
        (23, "1969-12-31 23:59:59.999999+00")
    ]


@pytest.mark.parametrize(
    ("contract_id", "symbol"),
    [(ES, "F.US.EP"), ("CON.F.US.MNQ.M25", "F.US.MNQ"), ("ES", "ES"), ("CON.X", "CON.X"), ("a.b.c", "a.b.c")],
)
def test_symbol_is_the_contract_without_its_expiry(tmp_path: Path, contract_id: str, symbol: str):
    record(tmp_path, trade(contract_id))
    assert rows(tmp_path, "SELECT symbol FROM trades") == [(symbol,)]


def test_the_replaced_names(tmp_path: Path):
    kinds = [*DomType, 12]
    record(tmp_path, trade(side=1), depth(ES, *({"type": int(kind), "currentVolume": 5} for kind in kinds)))
    assert rows(tmp_path, "SELECT trade_type, side FROM trades") == [(1, 1)]
    sides = rows(tmp_path, "SELECT depth_type, side, current_volume FROM market_depth ORDER BY depth_type")
    assert sides == [
        (0, "unknown", 5),
        (1, "ask", 5),
        (2, "bid", 5),
        (3, "ask", 5),
        (4, "bid", 5),
        (5, "trade", 5),
        (6, "reset", 5),
        (7, "low", 5),
        (8, "high", 5),
        (9, "new_best_bid", 5),
        (10, "new_best_ask", 5),
        (11, "fill", 5),
        (12, "unknown", 5),
    ]


@pytest.mark.parametrize("running", [False, True])
def test_raw_data_is_the_entry_that_made_the_row(tmp_path: Path, *, running: bool):
    alone = {"price": 4800.5, "volume": 2, "type": 1, "extra": [1, {"é": "x"}]}
    with recording(tmp_path) as session:
        session.receive(
            message("GatewayTrade", ES, alone),
            depth(ES, {"type": 1, "volume": 10}, None, {"type": 2, "volume": 12}),
            quote(bestBid=4800.0),
            b"garbage",
        )
        if not running:
            session.finish()
        ((raw,),) = rows(tmp_path, "SELECT raw_data FROM trades")
        assert json.loads(raw) == alone
        query = "SELECT pos, raw_data->'volume' FROM market_depth ORDER BY pos"
        assert rows(tmp_path, query) == rows(tmp_path, query.replace("market_", "")) == [(0, "10"), (2, "12")]
        assert rows(tmp_path, "SELECT json_extract(RAW_DATA, '$.bestBid')::DOUBLE FROM quotes") == [(4800.0,)]


def test_raw_data_of_two_sessions_is_not_mixed_up(tmp_path: Path):
    for number in range(2):
        record(tmp_path, trade(volume=number), start_ns=lake_builder.START_NS + number * 10**9)
    query = "SELECT volume::VARCHAR, raw_data->>'volume' FROM trades"
    assert all(volume == raw for volume, raw in rows(tmp_path, query))


def test_raw_data_agrees_with_every_row_of_the_tape(tape_lake: Path):
    query = "SELECT count(*), count_if(json_extract(raw_data, '$.price')::DOUBLE = price) FROM market_depth"
    assert rows(tape_lake, query) == [(73_239, 73_239)]


def test_raw_data_costs_nothing_unless_it_is_named(tape_lake: Path):
    def plan(query: str) -> str:
        return str(rows(tape_lake, f"EXPLAIN {query}")[0][1])

    assert "JOIN" in plan("SELECT raw_data FROM trades").upper()
    assert "JOIN" not in plan("SELECT * FROM trades").upper()
    with Database(Catalog(tape_lake)) as database:
        assert "raw_data" not in database.sql("SELECT * FROM trades").columns


@pytest.mark.parametrize("view", VIEWS)
def test_an_empty_lake_has_the_columns_of_a_full_one(tmp_path: Path, view: str):
    empty, full = tmp_path / "empty", tmp_path / "full"
    (empty / "sessions").mkdir(parents=True)
    with recording(full) as session:
        session.receive(trade(), quote(), depth(ES, {"type": 1}), b"garbage")
        session.note(IncidentKind.STALLED)
        session.tell(Incident(IncidentKind.BACKFILLED, "trades", ES, 0, 1, bars=(Bar(0, 1.0, 1.0, 1.0, 1.0, 1),)))
        session.say(SignalRow(0, START_NS, ES, "flow", 1.5))
        running = columns(full, view)
        session.finish()
    assert rows(empty, f"FROM {view}") == []
    assert columns(empty, view) == running == columns(full, view)
    assert rows(full, f"FROM {view}")


def test_show_tables_lists_every_view(tape_lake: Path):
    assert {name for (name,) in rows(tape_lake, "SHOW TABLES")} >= set(VIEWS)


def test_a_running_session_is_visible_at_once(tmp_path: Path):
    with recording(tmp_path) as session, Database(Catalog(tmp_path)) as database:
        for number in range(1, 6):
            session.receive(trade(volume=number), quote(bestBid=4800.0 + number))
            if number == 3:
                session.seal()
            assert database.sql("SELECT count(*), max(volume) FROM trades").fetchall() == [(number, number)]
            assert database.sql("SELECT status, trades FROM sessions").fetchall() == [("open", number)]
        assert database.sql("SELECT DISTINCT session_id FROM quotes").fetchall() == [(session.session_id,)]


def test_a_relation_is_of_one_moment(tmp_path: Path):
    with recording(tmp_path) as session, Database(Catalog(tmp_path)) as database:
        session.receive(trade())
        before = database.sql("FROM trades")
        session.receive(trade())
        session.finish()
        assert len(before.fetchall()) == len(before.fetchall()) == 1


def test_some_sessions_alone(tmp_path: Path):
    first, second = (record(tmp_path, trade(), start_ns=lake_builder.START_NS + step * 10**9) for step in range(2))
    with Database(Catalog(tmp_path), [second]) as database:
        assert database.sql("SELECT session_id FROM trades").fetchall() == [(second,)]
        assert database.sql("SELECT session_id FROM sessions").fetchall() == [(second,)]
    assert rows(tmp_path, "SELECT session_id FROM trades ORDER BY 1") == [(first,), (second,)]


def test_another_process_captures_seals_and_merges_while_we_ask(tmp_path: Path):
    bursts, burst = 20, 8
    arguments = [sys.executable, lake_builder.__file__, str(tmp_path), str(bursts), str(burst)]
    query = "SELECT count(*), count(DISTINCT seq), coalesce(max(seq) + 1, 0), sum(volume) FROM trades"
    last = 0
    with subprocess.Popen(arguments) as writer, Database(Catalog(tmp_path)) as database:
        while last < bursts * burst:
            ((count, distinct, after, volume),) = database.sql(query).fetchall()
            assert count == distinct == after >= last
            assert volume in (count * (count - 1) // 2, None)
            streamed = database.stream("SELECT seq FROM trades ORDER BY seq")
            seqs = [seq for batch in streamed.batches for seq in batch["seq"].to_pylist()]
            assert seqs == list(range(len(seqs)))
            last = count
    assert writer.returncode == 0


def test_a_stream_gives_batches_and_other_queries_go_on_meanwhile(tape_lake: Path):
    with Database(Catalog(tape_lake)) as database:
        first = database.stream("SELECT seq, price FROM depth")
        second = database.stream("SELECT seq FROM messages")
        assert (first.names, second.names) == (["seq", "price"], ["seq"])
        sizes = [next(first.batches).num_rows, next(second.batches).num_rows]
        assert database.sql("SELECT 1").fetchall() == [(1,)]
        assert sizes[0] + sum(batch.num_rows for batch in first.batches) == 73_239
        assert sizes[1] + sum(batch.num_rows for batch in second.batches) == 47_262
        assert sizes[0] < 73_239


def test_parameters(tape_lake: Path):
    buys = plain_duckdb(tape_lake, "trades", "count_if(side = 0)")
    assert rows(tape_lake, "SELECT count(*) FROM trades WHERE side = ?", [0]) == buys
    with Database(Catalog(tape_lake)) as database:
        named = database.sql("SELECT $side + 1", {"side": 1})
        assert named.fetchall() == [(2,)]
        with pytest.raises(UsageError, match="parameter"):
            database.sql("SELECT ?", [1, 2])


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELEC 1", "syntax error"),
        ("FROM trade", 'Did you mean "trades"'),
        ("FROM nothing_like_it", "The views are quotes, trades, depth"),
        ("SELECT prise FROM trades", 'Candidate bindings: "price"'),
        ("SELECT raw_data FROM messages", "raw_data"),
        ("SELECT no_such_function(1)", "no_such_function"),
        ("", "SELECT"),
        ("FROM read_parquet('nowhere.parquet')", "nowhere.parquet"),
    ],
)
def test_a_wrong_query_is_a_usage_error_in_duckdbs_words(tape_lake: Path, query: str, says: str):
    with pytest.raises(UsageError, match=re.escape(says)):
        rows(tape_lake, query)


@pytest.mark.parametrize("at", [0, 500_000])
def test_a_value_that_turns_out_wrong_is_a_usage_error(tape_lake: Path, at: int):
    query = f"SELECT if(i < {at}, i, ('x' || i)::INTEGER) FROM range(1000000) AS t(i)"
    with Database(Catalog(tape_lake)) as database, pytest.raises(UsageError, match="Could not convert string"):
        list(database.stream(query).batches)


def test_a_missing_file_is_damage(tmp_path: Path):
    record(tmp_path, trade())
    next((tmp_path / "trades").rglob("*.parquet")).unlink()
    with pytest.raises(DamageError, match="part-"):
        rows(tmp_path, "FROM trades")


@pytest.mark.parametrize("cut", [0, 100])
def test_a_file_that_can_not_be_read_is_damage_and_no_mistake_of_the_query(tmp_path: Path, cut: int):
    record(tmp_path, *[trade(price=4800 + number / 4) for number in range(3000)])
    path = next((tmp_path / "trades").rglob("*.parquet"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - cut] if cut else data[:200] + bytes(len(data) - 400) + data[-200:])
    for ask in (rows, lambda lake, query: list(Database(Catalog(lake)).stream(query).batches)):
        with pytest.raises(DamageError, match="verify"):
            ask(tmp_path, "FROM trades")


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{lake}/written.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/written.csv'",
        "COPY (PIVOT trades ON side) TO '{lake}/written.csv'",
        "SELECT 1; COPY (SELECT 1) TO '{lake}/written.csv'",
        "ATTACH '{lake}/written.db'",
        "EXPORT DATABASE '{lake}/written'",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW trades",
        "SET threads = 1",
        "SET enable_external_access = true",
        "PRAGMA enable_profiling",
        "INSTALL httpfs",
        "LOAD httpfs",
        "FROM read_csv('{outside}')",
        "FROM read_text('{lake}/../outside.csv')",
        "FROM read_blob('/etc/hostname')",
        "FROM glob('/etc/*')",
        "FROM '{outside}'",
        "FROM read_parquet('https://example.com/x.parquet')",
        "SELECT getenv('HOME')",
    ],
)
def test_restricted_reads_the_lake_and_nothing_else(tmp_path: Path, query: str):
    root, outside = tmp_path / "lake", tmp_path / "outside.csv"
    record(root, trade())
    outside.write_text("secret\n1\n")
    before = sorted(tmp_path.rglob("*"))
    with Database(Catalog(root), restricted=True) as database:
        with pytest.raises(UsageError) as raised:
            database.sql(query.format(lake=root, outside=outside)).fetchall()
        assert "secret" not in str(raised.value)
        assert database.sql("SELECT count(*) FROM trades").fetchall() == [(1,)]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "query", ["FROM trades", "WITH t AS (FROM trades) FROM t", "DESCRIBE trades", "SUMMARIZE trades", "SHOW TABLES"]
)
def test_restricted_reads_also_a_running_session(tmp_path: Path, query: str):
    with recording(tmp_path) as session, Database(Catalog(tmp_path), restricted=True) as database:
        session.receive(trade())
        session.seal()
        session.receive(trade())
        assert database.sql(query).fetchall()
        assert database.sql("SELECT count(*), count(raw_data) FROM trades").fetchall() == [(2, 2)]


def test_local_variables_are_no_tables(tape_lake: Path):
    frame = pl.DataFrame({"secret": [1]})
    with pytest.raises(UsageError, match="frame"):
        rows(tape_lake, "FROM frame")
    assert frame.height == 1


def test_the_last_quote_before_each_trade_is_merged_not_looked_for(tape_lake: Path):
    """DuckDB guesses one row behind a filter on a contract, and would compare each trade with each quote."""
    with Database(Catalog(tape_lake)) as database:
        ((contract_id,),) = database.sql("SELECT min(contract_id) FROM trades").fetchall()
        of = f"WHERE contract_id = '{contract_id}'"
        query = f"SELECT * FROM (FROM trades {of}) t ASOF JOIN (FROM quotes {of}) q ON q.recv_ns <= t.recv_ns"
        assert "Asof Join" in str(database.sql(f"EXPLAIN {query}").fetchall())


def test_an_as_of_join_on_session_and_contract_loses_no_trade(tmp_path: Path):
    """DuckDB 2.0 does, where both are columns of the path: this holds our views to being right all the same."""
    for day, contracts in enumerate((["MNQ", "MES"], ["MNQ"])):
        synthesize(tmp_path, duration_s=20, contracts=contracts, start_ns=START_NS + day * 86_400 * 10**9)
    lake = md.open_lake(tmp_path)
    keys = "t.session_id = q.session_id AND t.contract_id = q.contract_id AND t.recv_ns > q.recv_ns"
    joined = lake.sql(f"SELECT count(*), sum(q.best_bid) FROM trades t ASOF JOIN quotes q ON {keys}").fetchall()
    frames = [
        one.trades()
        .filter(pl.col("contract_id") == contract)
        .sort("recv_ns")
        .collect()
        .join_asof(
            one.quotes().filter(pl.col("contract_id") == contract).sort("recv_ns").collect(),
            on="recv_ns",
            allow_exact_matches=False,
        )
        for one in lake.sessions()
        for contract in sorted(set(one.trades().collect()["contract_id"]))
    ]
    matched = pl.concat(frames).filter(pl.col("seq_right").is_not_null())
    assert joined == [(matched.height, pytest.approx(matched["best_bid"].sum()))]
