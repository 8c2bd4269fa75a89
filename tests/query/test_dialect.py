"""SQLite's dialect on the lake gives what SQLite gives on a file of the same rows."""

from __future__ import annotations

import json
import math
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lake_builder import record, recording, trade
from tapes import records, write_tape

import mdcapture as md
from mdcapture.interop.importing import import_tape
from mdcapture.query.dialect import translate
from mdcapture.query.replaced import columns_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mdcapture.query.sqlite import SQLiteConnection

pytestmark = pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 38), reason="this SQLite is older than its dialect")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SIDES = dict.fromkeys((1, 3), "ask") | dict.fromkeys((2, 4), "bid") | {5: "trade", 6: "reset", 7: "low", 8: "high"}
SIDES |= {9: "new_best_bid", 10: "new_best_ask", 11: "fill"}


def text(time_ns: int | None) -> str | None:
    if time_ns is None:
        return None
    return (EPOCH + timedelta(microseconds=time_ns // 1000)).isoformat(timespec="microseconds")


def entries(session: md.Session) -> dict[tuple[int, int], str]:
    """The JSON of each entry, read without the code that is tested."""
    found = {}
    for seq, payload in session.messages().select("seq", "payload").collect().iter_rows():
        data = json.loads(payload)["arguments"][1]
        for pos, entry in enumerate(data if isinstance(data, list) else [data]):
            found[seq, pos] = json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
    return found


def table(session: md.Session, name: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The rows that the replaced system would have, from the lake's frames."""
    raw = entries(session)
    names = [column.name for column in columns_of(name) or () if column.visible]
    lazy = {"quotes": session.quotes, "trades": session.trades, "market_depth": session.depth}[name]()
    rows = []
    for row in lazy.collect().iter_rows(named=True):
        row |= {
            "symbol": row["contract_id"].removeprefix("CON.").rpartition(".")[0],
            "received_timestamp": text(row["recv_ns"]),
            "exchange_timestamp": text(row["exch_ns"]),
            "updated_timestamp": text(row.get("updated_ns")),
            "raw_data": raw[row["seq"], row["pos"]],
        }
        if name == "trades":
            row["trade_type"] = row["side"]
        if name == "market_depth":
            row |= {"depth_type": row["dom_type"], "side": SIDES.get(row["dom_type"], "unknown")}
        rows.append(tuple(row[one] for one in names))
    return names, rows


def sqlite_file(path: Path, session: md.Session) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    for name in ("quotes", "trades", "market_depth"):
        names, rows = table(session, name)
        kinds = {column.name: column.kind.replace("integer", "INTEGER") for column in columns_of(name) or ()}
        connection.execute(f"CREATE TABLE {name} ({', '.join(f'{one} {kinds[one]}' for one in names)})")
        connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(names))})", rows)  # noqa: S608
    manifest = session.manifest
    times = text(manifest.start_ns), text(manifest.end_ns)
    counts = [manifest.counts.get(one, 0) for one in ("quotes", "trades", "depth", "messages", "rejects", "incidents")]
    contracts = ",".join(one.contract_id for one in session.contracts)
    names = [f"{one.name} {one.kind}" for one in columns_of("sessions") or () if one.visible]
    connection.execute(f"CREATE TABLE sessions ({', '.join(names)})")
    row = (manifest.session_id, manifest.state, manifest.source, *times, contracts, *counts)
    row += (manifest.start_ns, manifest.end_ns, manifest.software)
    connection.execute(f"INSERT INTO sessions VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
    connection.commit()
    return connection


class Both:
    """A file of SQLite and the lake, of the same rows."""

    def __init__(self, file: sqlite3.Connection, lake: SQLiteConnection) -> None:
        self.file = file
        self.lake = lake

    def agree(self, query: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        expected = self.file.execute(query, parameters)
        found = self.lake.execute(query, parameters)
        names = [one[0] for one in expected.description or ()]
        assert [one[0] for one in found.description or ()] == names
        wanted, got = expected.fetchall(), found.fetchall()
        if "order by" not in query.lower():
            wanted, got = sorted(wanted, key=repr), sorted(got, key=repr)
        assert len(got) == len(wanted)
        for ours, theirs in zip(got, wanted, strict=True):
            assert list(map(type, ours)) == list(map(type, theirs)), (ours, theirs)
            assert all(map(alike, ours, theirs)), (ours, theirs)
        return wanted


def alike(ours: object, theirs: object) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-12)
    return ours == theirs


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("dialect")
    tape = write_tape(folder / "tape.ndjson", records(1500), interval_ns=1_234_567_891)
    import_tape(str(tape), folder / "lake")
    session = md.open_lake(folder / "lake").session()
    file = sqlite_file(folder / "old.db", session)
    with session.sqlite() as lake:
        yield Both(file, lake)
    file.close()


QUERIES = Path(__file__).with_name("sqlite_queries.sql").read_text(encoding="utf-8").splitlines()
SAME = [line for line in QUERIES if line and not line.startswith("--")]


@pytest.mark.parametrize("query", SAME)
def test_a_query_gives_what_sqlite_gives(both: Both, query: str):
    both.agree(query)


def test_comments_and_names_in_quotes(both: Both):
    both.agree('SELECT seq AS rank, price AS "the price" FROM trades -- one\n ORDER BY seq, pos LIMIT 1 /* two */')


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("SELECT count(*) FROM trades WHERE price > ? AND side = ?", (29547, 0)),
        (
            "SELECT count(*) FROM trades WHERE price > :price AND side = :side",
            {"price": 29547.25, "side": 1, "more": 2},
        ),
        ("SELECT count(*) FROM trades WHERE symbol = @symbol OR side = $side", {"symbol": "F.US.MNQ", "side": 1}),
        ("SELECT ?2 || ?1 || ?2, 'what? ?1'", ("a", "b")),
        ("SELECT ?, ?, ?, ?, ?", (None, 1.5, "it's; --", True, -7)),
        ("SELECT ? / 2, ? / 2, typeof(?), ? + 1", (7, 7.0, 1e300, 2**62)),
        ("SELECT count(*) FROM quotes WHERE received_timestamp BETWEEN ? AND ?", ("2026-11-18", "2026-11-18T15:00")),
        ("SELECT count(*) FROM quotes WHERE received_timestamp > ?", (datetime(2026, 11, 18, tzinfo=UTC).isoformat(),)),
        ("SELECT price FROM trades ORDER BY seq, pos LIMIT ? OFFSET ?", (3, 2)),
    ],
)
def test_values_take_their_places(both: Both, query: str, parameters: Sequence[object] | Mapping[str, object]):
    both.agree(query, parameters)


def expressions() -> st.SearchStrategy[str]:
    numbers = st.sampled_from(["price", "volume", "side", "seq", "pos", "0", "2", "7", "2.5", "NULL", "-3"])
    texts = st.sampled_from(["symbol", "received_timestamp", "'a'", "'12'", "''", "NULL"])

    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        binary = st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "%", "<", ">=", "=", "<>", "IS"]), inner)
        logic = st.tuples(inner, st.sampled_from(["AND", "OR"]), inner)
        calls = st.tuples(st.sampled_from(["abs({})", "-({})", "NOT ({})", "({}) IS NULL", "ifnull({}, 7)"]), inner)
        chosen = st.tuples(inner, inner).map(lambda two: f"iif({two[0]}, {two[1]}, {two[1]})")
        return st.one_of(
            st.one_of(binary, logic).map(lambda three: "({} {} {})".format(*three)),
            calls.map(lambda two: two[0].format(two[1])),
            chosen,
        )

    def made_of_text(inner: str) -> st.SearchStrategy[str]:
        forms = ["length({})", "substr({}, 2, 5)", "instr({}, '2')", "upper({})", "typeof({})", "({}) LIKE '%2%'"]
        return st.sampled_from([form.format(inner) for form in forms])

    number = st.recursive(numbers, larger, max_leaves=6)
    as_text = st.tuples(st.sampled_from(["typeof({})", "({}) || 'x'", "length({})", "CAST({} AS TEXT)"]), number)
    return st.one_of(number, as_text.map(lambda two: two[0].format(two[1])), texts.flatmap(made_of_text))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expressions())
def test_any_expression_gives_what_sqlite_gives(both: Both, expression: str):
    both.agree(f"SELECT {expression} AS x FROM trades ORDER BY seq, pos LIMIT 20")  # noqa: S608


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["trades", "market_depth"]),
    st.lists(
        st.sampled_from(["price", "volume", "seq % 7", "volume / 2", "price > 29547", "side"]), min_size=1, max_size=2
    ),
    st.lists(
        st.sampled_from(["count(*)", "sum(seq)", "avg(price)", "min(seq)", "max(price)", "total(volume)"]), min_size=1
    ),
    st.sampled_from(["seq % 2", "price >= 29547 OR NOT seq", "volume IN (1, 3)", "substr(symbol, 1, 1) = 'F'"]),
)
def test_any_summary_gives_what_sqlite_gives(both: Both, table: str, keys: list[str], sums: list[str], where: str):
    listed = ", ".join(f"{one} AS k{at}" for at, one in enumerate(keys))
    grouped = ", ".join(f"k{at}" for at, _ in enumerate(keys))
    both.agree(f"SELECT {listed}, {', '.join(sums)} FROM {table} WHERE {where} GROUP BY {grouped} ORDER BY {grouped}")  # noqa: S608


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1)),  # noqa: DTZ001  # naive, as SQLite's are
    st.lists(
        st.one_of(
            st.tuples(
                st.integers(-40, 40), st.sampled_from(["day", "hours", "minute", "seconds", "months", "years"])
            ).map(lambda two: f"{two[0]:+d} {two[1]}"),
            st.sampled_from(["start of day", "start of month", "start of year", "weekday 0", "weekday 5"]),
        ),
        max_size=3,
    ),
)
def test_any_time_gives_what_sqlite_gives(both: Both, time: datetime, modifiers: list[str]):
    arguments = ", ".join(f"'{one}'" for one in [time.isoformat(timespec="microseconds"), *modifiers])
    wanted = f"datetime({arguments}), date({arguments}), julianday({arguments}), strftime('%s %j %w', {arguments})"
    both.agree(f"SELECT {wanted}")


def test_columns_of_the_replaced_system_that_are_there_when_they_are_named(both: Both):
    query = "SELECT id, is_buy, symbol_id, trade_sequence, level_rank FROM trades ORDER BY id LIMIT 2"
    rows = both.lake.execute(query).fetchall()
    assert [row[0] for row in rows] == [1, 2]
    assert both.lake.execute("SELECT count(*) FROM trades WHERE is_buy <> (trade_type = 0)").fetchone() == (0,)
    assert both.lake.execute("SELECT max(rowid) = count(*) FROM market_depth").fetchone() == (1,)
    assert both.lake.execute("SELECT quotes_count > 0, contract_id FROM data_sessions").fetchall() == [
        (1, "CON.F.US.MNQ.Z26")
    ]
    names = [one[0] for one in both.lake.execute("SELECT * FROM trades").description or ()]
    assert "raw_data" in names
    assert "id" not in names


def test_tables_of_the_lake_are_there_too(both: Both):
    count = both.lake.execute("SELECT count(*) FROM messages WHERE payload LIKE '%gatewaytrade%'").fetchone()
    assert count == both.lake.execute("SELECT count(DISTINCT seq) FROM trades").fetchone()
    assert both.lake.execute("SELECT status FROM sessions").fetchall() == [("sealed",)]


def test_raw_data_costs_nothing_unless_it_is_named():
    for query in (
        "SELECT price FROM trades",
        "SELECT count(*) FROM trades",
        "SELECT t.price, (SELECT 1) FROM trades t",
    ):
        assert "raw_data" not in str(translate(query))
    for query in ("SELECT * FROM trades", "SELECT raw_data FROM trades", "SELECT t.* FROM trades t"):
        assert "raw_data" in str(translate(query))


@pytest.mark.parametrize("pragma", ["table_info(trades)", "main.table_info('quotes')", "table_info = market_depth"])
def test_table_info_tells_the_columns(both: Both, pragma: str):
    told, real = both.lake.execute(f"PRAGMA {pragma}").fetchall(), both.file.execute(f"PRAGMA {pragma}").fetchall()
    assert [(row[0], row[1], row[2].upper(), *row[3:]) for row in real] == told


def test_pragmas_that_set_something_are_passed_over(both: Both):
    for pragma in ("PRAGMA journal_mode=WAL", "pragma cache_size = 10000;", "PRAGMA no_such_pragma"):
        cursor = both.lake.execute(pragma)
        assert (cursor.description, cursor.fetchall()) == (None, [])


def test_rows_by_name(both: Both):
    connection = both.lake
    try:
        connection.row_factory = sqlite3.Row
        row = connection.execute("SELECT price, side AS who, count(*) FROM trades").fetchone()
        assert isinstance(row, sqlite3.Row)
        assert row.keys() == ["price", "who", "count(*)"]
        assert (row["PRICE"], row[1]) == (row[0], row["who"])
        connection.row_factory = lambda cursor, values: dict(
            zip([one[0] for one in cursor.description], values, strict=True)
        )
        assert connection.execute("SELECT 1 AS a, 'x' AS b").fetchall() == [{"a": 1, "b": "x"}]
    finally:
        connection.row_factory = None


def test_a_cursor_fetches_as_it_is_told(both: Both):
    cursor = both.lake.cursor()
    assert cursor.execute("SELECT seq FROM trades ORDER BY seq, pos") is cursor
    everything = both.lake.execute("SELECT seq FROM trades ORDER BY seq, pos").fetchall()
    first = cursor.fetchone()
    some = [*cursor.fetchmany(2), *cursor.fetchmany()]
    other = both.lake.execute("SELECT 1").fetchall()  # another one meanwhile
    assert [first, *some, *cursor] == everything
    assert other == [(1,)]
    assert cursor.fetchone() is None
    assert cursor.fetchall() == []


def test_what_is_closed_says_so(tmp_path: Path):
    record(tmp_path, trade())
    with md.open_lake(tmp_path).sqlite() as connection:
        cursor = connection.execute("SELECT count(*) FROM trades")
        assert cursor.fetchall() == [(1,)]
        cursor.close()
        with pytest.raises(sqlite3.ProgrammingError, match="cursor is closed"):
            cursor.fetchone()
    with pytest.raises(sqlite3.ProgrammingError, match="connection is closed"):
        connection.execute("SELECT 1")


def test_a_running_session_is_visible(tmp_path: Path):
    with recording(tmp_path) as session, md.open_lake(tmp_path).sqlite() as connection:
        for number in range(1, 4):
            session.receive(trade(volume=number))
            assert connection.execute("SELECT max(volume) FROM trades").fetchone() == (number,)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELEC 1", "can't be read|only read"),
        ("SELECT * FROM trade", "no such table: trade; there are sessions, quotes, trades, market_depth"),
        ("SELECT prise FROM trades", "prise"),
        ("DELETE FROM trades", "only read"),
        ("CREATE TABLE t (x)", "only read"),
        ("ATTACH 'x.db' AS x", "only read"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("", "one statement"),
        ("SELECT ?", "1 parameters, and 0 values"),
        ("SELECT datetime('now', 'localtime')", "localtime.*UTC"),
        ("SELECT strftime(symbol, 'now') FROM trades", "format of strftime"),
        ("SELECT printf(symbol, 1) FROM trades", "format of printf"),
        ("SELECT 'a' COLLATE RTRIM", "RTRIM"),
        ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
        ("SELECT no_such_function(1)", "no_such_function"),
    ],
)
def test_what_can_not_be_done_says_why(both: Both, query: str, says: str):
    with pytest.raises(sqlite3.OperationalError, match=f"(?is){says}") as raised:
        both.lake.execute(query).fetchall()
    assert isinstance(raised.value, md.UsageError)


def test_values_that_do_not_fit_the_statement_say_so(both: Both):
    for query, values, says in (
        ("SELECT ?", (1, 2), "1 parameters, and 2 values"),
        ("SELECT 1", (1,), "0 parameters, and 1 values"),
        ("SELECT :a", {"b": 1}, "no value for :a"),
        ("SELECT ?", (object(),), "not object"),
        ("SELECT ?", (2**63,), "64 bits"),
    ):
        with pytest.raises(md.UsageError, match=says):
            both.lake.execute(query, values)


def test_the_tape_is_asked_as_its_file_was(tape_lake: Path, tmp_path: Path):
    session = md.open_lake(tape_lake).session()
    file = sqlite_file(tmp_path / "es.db", session)
    with session.sqlite() as lake:
        for query in SAME[:24]:
            Both(file, lake).agree(query.replace("'CON.F.US.MNQ.Z26'", "'CON.F.US.EP.H24'").replace("2026", "2023"))
    file.close()
