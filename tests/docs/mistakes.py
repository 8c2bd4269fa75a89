"""Messages of docs/reference/errors.md about what its reader did, each with what brings it about."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from lake_builder import START_NS, record, trade
from place import NOBODY, Place, raised, without

import mdcapture as md
from mdcapture.interop.cluster import dask_workers
from mdcapture.serve.server import serving

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MISTAKES"]

SQLITE = ("sql", "--dialect", "sqlite")
CLUSTER = ("--cluster", f"tcp://{NOBODY}")
OLD_TRADES = "CREATE TABLE trades (received_timestamp TEXT, contract_id TEXT)"


def nobody() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MDCAPTURE_USERNAME")
        return md.Recorder(md.Config(contracts=["MNQ"]))


def nothing_there(place: Place) -> tuple[int, str]:
    (place.folder / "sessions").mkdir()
    return place.run("analyze", "--lake", str(place.folder))


def empty(place: Place, *arguments: str) -> tuple[int, str]:
    """Ask a lake whose session holds nothing."""
    record(place.folder / "empty")
    return place.run(*arguments, "--lake", str(place.folder / "empty"))


def two_of_a_kind(place: Place) -> tuple[int, str]:
    for second in range(2):
        record(place.folder / "two", trade(), start_ns=START_NS + second * 1_000_000_000)
    return place.run("analyze", "session_2023", "--lake", str(place.folder / "two"))


def two_months(place: Place, *arguments: str) -> tuple[int, str]:
    """Ask of a lake with two contracts of one root."""
    place.bring(place.tape("CON.F.US.MNQ.Z26", "CON.F.US.MNQ.H27"))
    return place.run(*arguments, "--contract", "MNQ", "--lake", "new")


def no_scheduler(_: Place) -> tuple[int, str]:
    return raised(dask_workers(f"tcp://{NOBODY}", connect_s=0.1).__enter__)


def listening(place: Place) -> tuple[int, str]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        return place.run("simulate", "--port", str(other.getsockname()[1]))


def twice_imported(place: Place) -> tuple[int, str]:
    tape = place.tape()
    place.bring(tape)
    return place.bring(tape)


def endless(place: Place) -> str:
    """A file without lines, which takes no space."""
    with (place.folder / "endless").open("wb") as file:
        file.truncate(65 << 20)
    return str(place.folder / "endless")


def twice(place: Place) -> tuple[int, str]:
    with place.recorder(gateway=f"http://{NOBODY}") as recorder:
        recorder.start()
        return raised(recorder.start)


def served_from_elsewhere(place: Place) -> tuple[int, str]:
    async def serve() -> None:
        async with serving("fsspec+memory://served"):
            pass

    place.ask("backup", "fsspec+memory://served")
    return raised(lambda: asyncio.run(serve()))


MISTAKES: dict[str, Callable[[Place], tuple[int, str]]] = {
    "there is no setting …": lambda p: p.capture("--contract", "MNQ", "--set", "flushms=3"),
    "… = …: expected …": lambda p: p.capture("--contract", "MNQ", "--set", "flush_ms=99999"),
    "--set …: write NAME=VALUE": lambda p: p.capture("--contract", "MNQ", "--set", "flush_ms"),
    "… is no duration": lambda p: p.run("capture", "--set", "segment_s=soon"),
    "the configuration file … can't be read": lambda p: p.capture("--config", "nowhere.toml"),
    "the configuration file … is no TOML": lambda p: p.capture("--config", p.written("bad.toml", "lake = data")),
    "no contract to capture": Place.capture,
    "nothing to capture": lambda p: p.capture("--contract", "MNQ", "--no-quotes", "--no-trades", "--no-depth"),
    "nobody to log in as": lambda _: raised(nobody),
    "the API key's file … can't be read": lambda p: p.in_the_environment(MDCAPTURE_API_KEY_FILE="nowhere"),
    "the API key's file … is empty": lambda p: p.in_the_environment(MDCAPTURE_API_KEY_FILE=p.written("key", "\n")),
    "… is no gateway's address": lambda p: p.capture("--contract", "MNQ", "--gateway", "ftp://gateway"),
    "--gateway …: did you mean …?": lambda p: p.capture("--contract", "MNQ", "--gateway", "topstpx"),
    "the address holds a password": lambda p: p.run("sessions", "--lake", "postgresql://me:secret@host/database"),
    "the URL of … holds a secret": lambda p: p.run("sessions", "--lake", "s3://key:secret@bucket/lake"),
    "roll_zone: there is no time zone …": lambda p: p.capture("--contract", "MNQ", "--set", "roll_zone=Chicago"),
    "--json and --format … exclude each other": lambda p: p.ask("sessions", "--json", "--format", "csv"),
    "can't open …": lambda p: p.run("sessions", "--lake", "nowhere"),
    "there is no lake at …": lambda p: p.run("health", "--lake", "nowhere"),
    "… names no bucket": lambda p: p.run("sessions", "--lake", "s3://"),
    "… can't be reached: …; write s3://bucket/prefix": lambda p: p.run("sessions", "--lake", "foo://bar"),
    "a lake is recorded in a folder": lambda p: p.capture("--contract", "MNQ", "--lake", "s3://bucket/lake"),
    "this needs a lake in a folder": lambda p: p.run("prune", "--older-than", "1d", "--lake", "s3://bucket/lake"),
    "… is a database, and this works on a lake's files": lambda p: p.ask("backup", f"postgresql://{NOBODY}/market"),
    "no session … in …": lambda p: p.ask("analyze", "session_19"),
    "… holds no session yet": nothing_there,
    "… holds no message yet": lambda p: empty(p, "analyze"),
    "… begins the names of … sessions": two_of_a_kind,
    "no session is being recorded in …": lambda p: p.ask("health"),
    "there is no contract … here": lambda p: raised(lambda: md.open_lake(p.lake).trades("NOPE")),
    "… means several contracts here: name one of …": lambda p: two_months(
        p, "export", "latest", "-o", "x.csv", "--table", "trades"
    ),
    "… is no active contract that the gateway knows": lambda p: p.capture("--contract", "CON.F.US.XXX.Z26"),
    "only one statement that reads is allowed here": lambda p: p.ask("sql", "drop table trades"),
    "The views are …": lambda p: p.ask("sql", "from tardes"),
    "this can't be read as SQLite's SQL": lambda p: p.ask("sql", "--dialect", "sqlite", "SELECT FROM WHERE ("),
    "the lake is only read here": lambda p: p.ask("sql", "--dialect", "sqlite", "DELETE FROM trades"),
    "no such table: …; there are …": lambda p: p.ask(*SQLITE, "SELECT * FROM tardes"),
    "one statement at a time": lambda p: p.ask(*SQLITE, "SELECT 1; SELECT 2"),
    "… has no counterpart here": lambda p: p.ask(
        *SQLITE, "SELECT datetime(received_timestamp, 'localtime') FROM trades"
    ),
    "json_extract takes one path here": lambda p: p.ask(
        *SQLITE, "SELECT json_extract(raw_data, '$.a', '$.b') FROM trades"
    ),
    "the statement has … parameters, and … values were given": lambda p: p.ask(*SQLITE, "SELECT ? FROM trades"),
    "there is no metric …": lambda p: p.ask("analyze", "--metric", "sharpe"),
    "nothing lies from … to … in this session": lambda p: p.ask("analyze", "--from", "2030-01-01T00:00"),
    "no regular trading hours lie within these times": lambda p: p.ask("analyze", "--regular-hours"),
    "an interval is longer than nothing": lambda p: p.ask("analyze", "--every", "0"),
    "… is no time": lambda p: p.ask("analyze", "--from", "noon"),
    "write a time as …": lambda p: p.export("trades.csv", "--table", "trades", "--from", "noon"),
    "--cluster needs --all": lambda p: p.ask("analyze", *CLUSTER),
    "no Dask scheduler answers at …": no_scheduler,
    "--all is of all contracts and times": lambda p: p.ask(
        "report", "--all", "--from", "2023-12-25", "-o", "lake.html"
    ),
    "name the sessions, or take --all": lambda p: p.ask("compare"),
    "one session has nothing to be compared with": lambda p: p.ask("compare", "latest"),
    "a chart is of one metric": lambda p: p.ask("history", "trades", "volume", "-o", "chart.svg"),
    "--stats …: it is one of …": lambda p: p.capture("--contract", "MNQ", "--stats", "loud"),
    "there is no time zone …": lambda p: p.ask("plot", "price", "--zone", "Chicago"),
    "a … chart is of one contract, not of …": lambda p: two_months(p, "plot", "price"),
    "a chart is written as .png, .svg or .html": lambda p: p.ask("plot", "price", "-o", "price.bmp"),
    "a report is a page": lambda p: p.ask("report", "-o", "report.pdf"),
    "choose one of … with --format": lambda p: p.ask("export", "latest", "-o", "trades.txt", "--table", "trades"),
    "… is compressed in itself": lambda p: p.export("trades.xlsx.gz", "--table", "trades"),
    "goes to standard output": lambda p: p.export("-", "--format", "duckdb"),
    "… is a folder of files: name one": lambda p: p.export("-", "--format", "hftbacktest"),
    "… takes books and trades": lambda p: p.export("hft", "--format", "hftbacktest", "--table", "trades"),
    "a query chooses its own tables": lambda p: p.export("x.csv", "--query", "from trades", "--table", "trades"),
    "bars are a table of their own": lambda p: p.export("bars.csv", "--bars", "1m", "--table", "trades"),
    "… would be one file": lambda p: p.export("everything.csv"),
    "no table … to export as …": lambda p: p.export("x.csv", "--table", "tardes"),
    "a sum does not fit 64 bits": lambda p: p.export("x.csv", "--query", f"select {2**64}::hugeint as lots"),
    "no messages here: nothing to export": lambda p: empty(
        p, "export", "latest", "-o", "hft", "--format", "hftbacktest"
    ),
    "dbn has … levels a side": lambda p: p.export("dbn", "--format", "dbn", "--levels", "20"),
    "… needs the extra: pip install …": lambda p: without(
        "xlsxwriter", lambda: p.export("figures.xlsx", "--query", "select 1")
    ),
    "… exists: a whole export goes to a folder of its own": lambda p: p.ask("export", "latest", "-o", str(p.lake)),
    "nothing says what to remove": lambda p: p.ask("prune"),
    "nobody is there to be asked": lambda p: p.ask("prune", "--older-than", "1s"),
    "… and the lake … are within each other": lambda p: p.ask("backup", str(p.lake / "copy")),
    "nothing says where to publish to": lambda p: p.ask("publish"),
    "no session was captured for …": lambda p: p.ask("publish", "--to", f"postgresql://{NOBODY}/market"),
    "there is no file …": lambda p: p.run("import", "nowhere.ndjson"),
    "… no line of a tape …": lambda p: p.bring(p.written("tape", "1 {}\nnonsense\n")),
    "there is no message on the tape …": lambda p: p.bring(p.written("tape", "")),
    "… is in the lake already, as …": twice_imported,
    "… can't be read as a SQLite file": lambda p: p.bring(p.written("bad.db", "SQLite format 3\0 and nothing more")),
    "… has none of the tables …": lambda p: p.bring(p.database("CREATE TABLE birds (name TEXT)")),
    "a line of more than … bytes: this is no tape": lambda p: p.bring(endless(p)),
    "no fault: …": lambda p: p.run("simulate", "--fault", "flood"),
    "no speed: …": lambda p: p.run("simulate", "--speed", "fast"),
    "the local gateway plays a tape or a session, not both": lambda p: p.ask(
        "simulate", "--tape", "market.ndjson", "--session", "latest"
    ),
    "the local gateway has no contract …": lambda p: p.run("simulate", "--contract", "XXX"),
    "can't listen at …": listening,
    "a recorder captures once": twice,
    "--all and … exclude each other": lambda p: p.ask("analyze", "session_2023", "--all"),
    "no user name: say it as …": lambda p: p.in_the_environment(MDCAPTURE_USERNAME="", MDCAPTURE_API_KEY="demo"),
    "no API key: put it into a file": lambda p: p.in_the_environment(MDCAPTURE_API_KEY=""),
    "a cluster needs Dask": lambda p: without("distributed", lambda: p.ask("analyze", "--all", *CLUSTER)),
    "nautilus needs NautilusTrader": lambda p: without(
        "nautilus_trader", lambda: p.export("catalog", "--format", "nautilus")
    ),
    "… is not on this machine: only a lake in a folder can be served": served_from_elsewhere,
    "… can't be read as a tape": lambda p: p.bring(p.written("tape.zst", "no archive")),
    "the table … has no …": lambda p: p.bring(p.database("CREATE TABLE trades (price REAL)")),
    "row … of … has no time of its arrival": lambda p: p.bring(
        p.database(OLD_TRADES, "INSERT INTO trades VALUES ('noon', 'ES')")
    ),
}
