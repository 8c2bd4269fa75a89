"""Exports: what another tool reads back is what the lake has, and nothing unfinished ever has a final name."""

from __future__ import annotations

import csv
import gzip
import io
import json
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pytest
from lake_builder import ES, depth, quote, record, recording, trade
from programs import LIMIT_S, called, environment, start
from tapes import CONTRACT, START_NS, records, write_tape

import mdcapture as md
from mdcapture.errors import StorageError
from mdcapture.interop.importing import import_tape
from mdcapture.lake.schema import TABLES, IncidentKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COUNTED = ("quotes", "trades", "depth", "messages", "rejects", "incidents")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> md.Lake:
    folder = tmp_path_factory.mktemp("export")
    tape = write_tape(folder / "tape.ndjson", records(1500), interval_ns=1_234_567)
    import_tape(str(tape), folder / "lake")
    return md.open_lake(folder / "lake")


@pytest.fixture(scope="module")
def session(lake: md.Lake) -> md.Session:
    return lake.session()


def read_text(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        with pa.input_stream(str(path), compression="zstd") as file:
            return bytes(file.read())
    return path.read_bytes()


def read_csv(path: Path, schema: pa.Schema) -> pa.Table:
    options = pa.csv.ConvertOptions(
        column_types=schema, strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""]
    )
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    return pa.csv.read_csv(io.BytesIO(read_text(path)), parse_options=parse, convert_options=options)


def read_back(path: Path, expected: pl.DataFrame) -> pl.DataFrame:
    """A file by a reader that is not ours."""
    name = path.name
    if ".csv" in name:
        read: Any = pl.from_arrow(read_csv(path, expected.to_arrow(compat_level=pl.CompatLevel.oldest()).schema))
        return pl.DataFrame(read)
    if ".jsonl" in name:
        rows = [json.loads(line) for line in read_text(path).splitlines()]
        return pl.DataFrame(rows, schema=expected.schema)
    if ".json" in name:
        return pl.DataFrame(json.loads(read_text(path)), schema=expected.schema)
    if ".arrows" in name:
        return pl.DataFrame(pa.ipc.open_stream(path.read_bytes()).read_all())
    return pl.read_ipc(path) if ".arrow" in name else pl.read_parquet(path)


FORMS = ["csv", "csv.gz", "csv.zst", "json", "json.gz", "jsonl", "jsonl.zst", "parquet", "arrow", "arrows"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("table", ["quotes", "trades", "depth", "messages"])
def test_a_table_comes_back_with_types_and_nanoseconds(session: md.Session, tmp_path: Path, table: str, form: str):
    expected = getattr(session, table)().collect()
    path = tmp_path / f"out.{form}"
    assert session.export(path, tables=[table]) == {table: expected.height}
    assert read_back(path, expected).equals(expected)


def test_a_whole_session_is_a_folder_of_its_tables(session: md.Session, tmp_path: Path):
    rows = session.export(tmp_path / "all")
    names = {*TABLES, "sessions", "contracts"}
    assert {path.name for path in (tmp_path / "all").iterdir()} == {f"{one}.parquet" for one in names} | {
        "dictionary.csv"
    }
    assert rows.keys() == names
    for table in COUNTED:
        expected = getattr(session, table)().collect()
        assert pl.read_parquet(tmp_path / "all" / f"{table}.parquet").equals(expected)
    described = list(csv.DictReader((tmp_path / "all" / "dictionary.csv").read_text().splitlines()))
    assert {(one["table"], one["column"]) for one in described} == {
        (table, column) for table in names for column in pl.read_parquet_schema(tmp_path / "all" / f"{table}.parquet")
    }
    assert all(one["meaning"] for one in described)
    assert {one["unit"] for one in described if one["column"].endswith("_ns")} == {"ns UTC"}


def test_a_whole_session_in_a_folder_of_text(session: md.Session, tmp_path: Path):
    session.export(tmp_path / "all", form="csv.zst")
    expected = session.depth().collect()
    assert read_back(tmp_path / "all" / "depth.csv.zst", expected).equals(expected)


def test_a_duckdb_file_has_the_tables_and_what_they_mean(session: md.Session, tmp_path: Path):
    session.export(tmp_path / "all.duckdb")
    with duckdb.connect(str(tmp_path / "all.duckdb"), read_only=True) as connection:
        for table in COUNTED:
            expected = getattr(session, table)().collect()
            assert connection.sql(f"FROM {table}").pl().equals(expected)
        said = connection.sql("SELECT comment FROM duckdb_columns() WHERE column_name = 'recv_ns'").fetchall()
    assert ("when this machine received the message (ns UTC)",) in said


def test_a_sqlite_file_is_one_of_the_replaced_system(session: md.Session, tmp_path: Path):
    rows = session.export(tmp_path / "market_data.db")
    assert list(rows) == ["sessions", "quotes", "trades", "market_depth"]
    connection = sqlite3.connect(tmp_path / "market_data.db")
    with session.sqlite() as lake:
        for table in rows:
            expected = sorted(lake.execute(f"SELECT * FROM {table}").fetchall(), key=repr)  # noqa: S608
            assert sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) == expected  # noqa: S608
    connection.close()


def test_excel_has_summaries_and_whole_numbers_to_the_last_digit(session: md.Session, tmp_path: Path):
    openpyxl = pytest.importorskip("openpyxl")
    session.export(
        tmp_path / "sums.xlsx", query="SELECT max(recv_ns) AS last, '=1+1' AS text, 1.5::DOUBLE AS x FROM trades"
    )
    sheet = openpyxl.load_workbook(tmp_path / "sums.xlsx")["result"]
    last = session.trades().collect()["recv_ns"].max()
    assert list(sheet.values) == [("last", "text", "x"), (str(last), "=1+1", 1.5)]
    assert list(session.export(tmp_path / "all.xlsx")) == ["sessions", "contracts", "incidents"]
    with pytest.raises(md.UsageError, match="has more rows than a sheet of Excel holds"):
        session.export(tmp_path / "big.xlsx", query="SELECT i FROM range(1100000) t(i)")
    assert not (tmp_path / "big.xlsx").exists()


def test_the_tape_comes_back_in_every_format(shared: Path, tmp_path: Path):
    import_tape(str(shared / "tapes" / "es_20231225.ndjson.zst"), tmp_path / "lake")
    session = md.open_lake(tmp_path / "lake").session()
    for form in ("csv.zst", "jsonl.gz", "parquet", "arrow"):
        for table in ("quotes", "trades", "depth", "rejects", "messages"):
            expected = getattr(session, table)().collect()
            path = tmp_path / f"{table}.{form}"
            assert session.export(path, tables=[table]) == {table: expected.height}
            assert read_back(path, expected).equals(expected)


def test_a_query_with_all_kinds_of_values(session: md.Session, tmp_path: Path):
    query = """SELECT count(*) AS n, sum(volume) AS lots, make_timestamptz(1703545200106846) AS t, [1, 2] AS list,
        'a "b", c' AS text, NULL::DOUBLE AS nothing, 1 AS n, DATE '2023-12-25' AS day,
        1.25::DECIMAL(5, 2) AS d FROM trades"""
    lots = session.trades().select(pl.col("volume").sum()).collect().item()
    count = session.counts["trades"]
    session.export(tmp_path / "q.jsonl", query=query)
    assert json.loads((tmp_path / "q.jsonl").read_text()) == {
        "n": count,
        "lots": lots,
        "t": "2023-12-25T23:00:00.106846Z",
        "list": [1, 2],
        "text": 'a "b", c',
        "nothing": None,
        "n_2": 1,
        "day": "2023-12-25",
        "d": 1.25,
    }
    session.export(tmp_path / "q.csv", query=query)
    (row,) = csv.DictReader((tmp_path / "q.csv").read_text().splitlines())
    assert (row["lots"], row["t"], row["list"]) == (str(lots), "2023-12-25T23:00:00.106846Z", "[1,2]")
    assert (tmp_path / "q.dictionary.csv").exists()


@pytest.mark.parametrize("form", [*FORMS, "duckdb", "xlsx"])
def test_no_rows_are_a_file_with_the_columns(session: md.Session, tmp_path: Path, form: str):
    path = tmp_path / f"none.{form}"
    assert session.export(path, query="SELECT price, volume FROM trades WHERE volume < 0") == {"result": 0}
    if form == "duckdb":
        with duckdb.connect(str(path), read_only=True) as connection:
            assert connection.sql("FROM result").columns == ["price", "volume"]
    elif form != "xlsx":
        nothing = pl.DataFrame(schema={"price": pl.Float64, "volume": pl.Int64})
        assert read_back(path, nothing).equals(nothing)


def test_by_time_and_contract(tmp_path: Path):
    other = "CON.F.US.MNQ.H24"
    with recording(tmp_path / "lake") as running:
        for number in range(6):
            running.receive(trade(ES if number % 2 else other, volume=number), quote(ES))
        running.note(IncidentKind.CONNECTED)
        lake = md.open_lake(tmp_path / "lake")
        times = lake.trades(ES).collect()["recv_ns"].to_list()
        lake.export(tmp_path / "t.parquet", tables=["trades"], contract_id=ES, from_ns=times[1], to_ns=times[2])
        assert pl.read_parquet(tmp_path / "t.parquet")["volume"].to_list() == [3]
        rows = lake.session().export(tmp_path / "all", contract_id=other)
        assert (rows["trades"], rows["quotes"], rows["contracts"], rows["sessions"]) == (3, 0, 1, 1)
        running.finish()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"target": "out.doc"}, "does not say its format.*csv, json"),
        ({"target": "out", "form": "word"}, "no format word"),
        ({"target": "out.parquet.gz"}, "compressed in itself"),
        ({"target": "out.csv", "tables": ["trade"]}, "no table trade.*quotes, trades"),
        ({"target": "out.db", "tables": ["messages"]}, "no table messages.*sqlite.*market_depth"),
        ({"target": "out.csv", "tables": ["trades"], "contract_id": "ES"}, "no contract ES here; there are: MNQZ6"),
        ({"target": "out.csv", "query": "SELEC"}, "syntax error"),
        ({"target": "out.csv", "query": "SELECT 1", "contract_id": CONTRACT}, "leave out the other options"),
        ({"target": "-", "form": "csv"}, "only one table"),
        ({"target": "-", "tables": ["trades"], "form": "duckdb"}, "only one table"),
        ({"target": "out.csv", "query": "SELECT ('x' || volume)::INTEGER FROM trades"}, "Could not convert"),
        ({"target": "out.csv", "query": "SELECT sum(volume) * 9223372036854775807 AS s FROM trades"}, "64 bits"),
    ],
)
def test_what_can_not_be_exported_says_why(
    session: md.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], says: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(md.UsageError, match=f"(?s){says}"):
        session.export(**arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["all.csv", "all.csv.gz", "all.parquet"])
def test_a_file_of_one_table_is_no_folder_of_several(session: md.Session, tmp_path: Path, name: str):
    with pytest.raises(md.UsageError, match=r"holds one table.*for all"):
        session.export(tmp_path / name, tables=["quotes", "trades"])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(session: md.Session, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(md.UsageError, match="folder of its own"):
        session.export(tmp_path)
    with pytest.raises(StorageError, match="no folder"):
        session.export(tmp_path / "nowhere" / "trades.csv", tables=["trades"])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_is_replaced_only_by_a_whole_one(session: md.Session, tmp_path: Path):
    path = tmp_path / "trades.csv"
    path.write_text("the one before")
    with pytest.raises(md.UsageError):
        session.export(path, query="SELECT if(i < 300000, i, ('x' || i)::INTEGER) FROM range(400000) AS t(i)")
    assert path.read_text() == "the one before"
    assert [one.name for one in tmp_path.iterdir()] == ["trades.csv"]
    session.export(path, tables=["trades"])
    assert path.read_text().startswith('"session_id"')


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """The disk refuses files of more bytes than this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "name", ["t.csv", "t.csv.gz", "t.jsonl", "t.parquet", "t.arrow", "t.db", "t.duckdb", "all", "dbn", "hftbacktest"]
)
def test_when_the_disk_refuses_nothing_appears(session: md.Session, tmp_path: Path, name: str):
    tables = ["messages"] if name in ("t.csv", "t.csv.gz", "t.jsonl", "t.parquet", "t.arrow") else []
    form = name if name in ("dbn", "hftbacktest") else None
    with small_files(8192 if form is None else 1024), pytest.raises(StorageError, match="can't write"):
        session.export(tmp_path / name, tables=tables, form=form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_an_export_that_is_ended_on_its_way_leaves_nothing_under_its_name(
    lake: md.Lake, tmp_path: Path, end: signal.Signals
):
    (tmp_path / "big.csv").write_text("the one before")
    query = "SELECT i, i * 1.5 AS x FROM range(1000000000) AS t(i)"
    process = start("export", "all", "-o", str(tmp_path / "big.csv"), "--query", query, "--lake", str(lake.path))
    while not any(path.stat().st_size for path in tmp_path.glob(".big.csv.*.tmp")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(end)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == (130 if end == signal.SIGINT else -end)
    assert (tmp_path / "big.csv").read_text() == "the one before"
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".tmp")] == ["big.csv"]
    assert end == signal.SIGKILL or len(list(tmp_path.iterdir())) == 1


def test_a_device_is_written_as_it_is(session: md.Session):
    with pytest.raises(StorageError, match="can't write /dev/full"):
        session.export("/dev/full", tables=["messages"], form="csv")
    assert session.export("/dev/null", tables=["trades"], form="csv") == {"trades": session.counts["trades"]}


@pytest.mark.parametrize("form", ["csv", "jsonl.gz", "parquet", "arrows"])
def test_the_command_writes_to_standard_output(lake: md.Lake, session: md.Session, tmp_path: Path, form: str):
    arguments = ["export", "latest", "-o", "-", "--format", form, "--table", "trades", "--lake", str(lake.path)]
    done = subprocess.run(
        [sys.executable, "-m", "mdcapture", *arguments], capture_output=True, check=True, env=environment()
    )
    (tmp_path / f"out.{form}").write_bytes(done.stdout)
    expected = session.trades().collect()
    assert read_back(tmp_path / f"out.{form}", expected).equals(expected)
    assert done.stderr == b""


def test_the_command_says_what_it_did(tmp_path: Path):
    record(tmp_path / "lake", trade(), depth(ES, {"type": 1}), quote())
    lake = ("--lake", str(tmp_path / "lake"))
    done = called("export", "latest", "-o", str(tmp_path / "t.csv"), "--table", "trades", "--from", "2023-12-25", *lake)
    assert (done.returncode, done.stdout) == (0, "")
    assert "1 trades" in done.stderr
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 2
    done = called("export", "-o", str(tmp_path / "u.csv"), "--table", "trades", "--to", "2023-12-25T22:00Z", *lake)
    assert len((tmp_path / "u.csv").read_text().splitlines()) == 1
    for arguments, code in ((("--table", "trade"), 3), (("--from", "noon"), 2), (("--format", "doc"), 2)):
        assert called("export", "latest", "-o", str(tmp_path / "x.csv"), *arguments, *lake).returncode == code
    assert called("export", "all", "-o", str(tmp_path / "all"), *lake).returncode == 0


def test_a_reader_that_has_had_enough_is_no_error(lake: md.Lake):
    command = f"{sys.executable} -m mdcapture export latest -o - --format csv --table messages --lake {lake.path}"
    piped = ["bash", "-c", f"{command} | head -1"]
    done = subprocess.run(piped, capture_output=True, text=True, check=True, env=environment())
    assert done.stdout.startswith('"session_id"')
    assert done.stderr == ""


def test_the_command_asks_in_either_dialect(lake: md.Lake):
    query = "SELECT strftime('%H', received_timestamp) AS h, 7 / 2 AS half FROM trades LIMIT 1"
    done = called("sql", "--dialect", "sqlite", query, "--format", "csv", "--lake", str(lake.path))
    hour = f"{START_NS // 10**9 // 3600 % 24:02d}"
    assert done.stdout == f"h,half\n{hour},3\n"
    done = called("sql", "--dialect", "sqlite", "SELECT nothing FROM trades", "--lake", str(lake.path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing" in done.stderr


PEAK = """
import resource, sys
import mdcapture as md
query = f"SELECT i AS seq, i * 0.25 AS price, 'some text ' || i AS payload FROM range({sys.argv[3]}) AS t(i)"
md.open_lake(sys.argv[1]).export(sys.argv[2], query=query)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.long
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_rows(lake: md.Lake, tmp_path: Path, form: str):
    def peak_mb(rows: int) -> int:
        arguments = [sys.executable, "-c", PEAK, str(lake.path), str(tmp_path / f"out.{form}"), str(rows)]
        return int(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)

    assert peak_mb(3_000_000) - peak_mb(300_000) < 60  # the rows more are some 100 MB
