"""Every message that docs/reference/errors.md explains, provoked: the words are the page's, and so is the exit code."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import socket
import sys
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from traceback import walk_tb
from typing import TYPE_CHECKING, NamedTuple

import pytest
from lake_builder import START_NS, record, recording, trade
from pages import ROOT, generated_pages, raised_by_the_source
from programs import simulator
from refused import REFUSED
from tapes import CONTRACT, records, write_tape

import mdcapture as md
from mdcapture import errors
from mdcapture.cli import main
from mdcapture.gateway.rest import Credentials, RestClient
from mdcapture.gateway.retry import RetryPolicy
from mdcapture.lake.locks import hold
from mdcapture.serve.server import serving
from mdcapture.wire.signalr import HubProtocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from reference import Raised

    Question = Callable[[RestClient], Awaitable[object]]

PAGE = ROOT / "docs/reference/errors.md"
SECTIONS = {"Yours": (2, 3, 5), "The gateway's": (4, 5), "The files'": (1, 6), "A database's": (7,)}
ARGUMENTS = "Arguments of Python functions"
UNPROVOKED = "Known, and not provoked here"
SQLITE = ("sql", "--dialect", "sqlite")
ONCE = ("--set", "reconnect_attempts=1", "--set", "reconnect_first_s=0.1")
NOBODY = "http://127.0.0.1:9"
"""The port of a service that nobody runs: connections to it are refused at once."""
_OLD_TRADES = "CREATE TABLE trades (received_timestamp TEXT, contract_id TEXT)"


class Place(NamedTuple):
    """Where a command runs: a lake of one session, a folder for scratch, and a gateway."""

    lake: Path
    folder: Path
    gateway: str

    def run(self, *arguments: str, answer: io.StringIO | None = None) -> tuple[int, str]:
        """Run a command in this process; its exit code, and what it said on stderr."""
        said = io.StringIO()
        sys.argv = ["mdcapture", *arguments]
        with redirect_stderr(said), redirect_stdout(answer or io.StringIO()):
            try:
                main()
            except SystemExit as end:
                return int(end.code or 0), said.getvalue()
        return 0, said.getvalue()

    def ask(self, *arguments: str) -> tuple[int, str]:
        """Run a command on the lake."""
        return self.run(*arguments, "--lake", str(self.lake))

    def export(self, target: str, *arguments: str) -> tuple[int, str]:
        """Export the lake's session."""
        return self.ask("export", "latest", "-o", target, *arguments)

    def capture(self, *arguments: str) -> tuple[int, str]:
        """Begin a capture into a new lake."""
        given = [] if "--gateway" in arguments else ["--gateway", self.gateway]
        return self.run("capture", *given, "--lake", str(self.folder / "new"), *arguments)

    def written(self, name: str, text: str) -> str:
        """A file of this text."""
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def damaged(self, pattern: str, change: Callable[[Path], object]) -> Path:
        """A copy of the lake in which one file was changed."""
        copy = self.folder / "copy"
        shutil.copytree(self.lake, copy)
        change(next(copy.glob(pattern)))
        return copy


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tape = write_tape(tmp_path_factory.mktemp("tape") / "market.ndjson", records(20))
    with simulator("--tape", str(tape)) as addresses:
        yield addresses["api"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("errors") / "lake"
    record(folder, *[trade(price=4800.0 + number / 4) for number in range(50)])
    return folder


@pytest.fixture
def place(lake: Path, tmp_path: Path, gateway: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setenv("MDCAPTURE_USERNAME", "somebody")
    monkeypatch.setenv("MDCAPTURE_API_KEY", "demo")
    monkeypatch.chdir(tmp_path)
    return Place(lake, tmp_path, gateway)


def raised(call: Callable[[], object]) -> tuple[int, str]:
    """What the library raises, as the command line would end."""
    with pytest.raises(md.MdcaptureError) as caught:
        call()
    return caught.value.exit_code, str(caught.value)


def in_the_environment(name: str, value: str, place: Place, *arguments: str) -> tuple[int, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MDCAPTURE_API_KEY")
        patch.setenv(name, value)
        return place.capture("--contract", CONTRACT, *arguments)


def held_by_another(place: Place) -> tuple[int, str]:
    lock = place.folder / "owner.lock"
    with hold(lock), ExitStack() as second:
        return raised(lambda: second.enter_context(hold(lock)))


def twice(place: Place) -> tuple[int, str]:
    with md.Recorder(
        md.Config(contracts=[CONTRACT], gateway=place.gateway, lake=str(place.folder / "new"))
    ) as recorder:
        recorder.start()
        return raised(recorder.start)


def unfinished(place: Place) -> tuple[int, str]:
    with recording(place.folder / "open") as session:
        return place.run("prune", session.session_id, "--yes", "--lake", str(session.root))


def newer(manifest: Path) -> None:
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(values | {"schema_version": 999}))


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)


def nothing_there(place: Place) -> tuple[int, str]:
    (place.folder / "sessions").mkdir()
    return place.run("analyze", "--lake", str(place.folder))


def _nobody() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MDCAPTURE_USERNAME")
        return md.Recorder(md.Config(contracts=["MNQ"]))


def _tape(place: Place) -> str:
    return str(write_tape(place.folder / "good.ndjson", records(5)))


def _other_database(place: Place, *statements: str) -> str:
    import sqlite3  # noqa: PLC0415  # for this one

    path = place.folder / "other.db"
    with sqlite3.connect(path) as connection:
        for statement in statements or ("CREATE TABLE birds (name TEXT)",):
            connection.execute(statement)
    connection.close()
    return str(path)


@contextmanager
def _answering(status: int, body: bytes) -> Iterator[int]:
    """A web server that says the same to all; gives its port."""

    class Same(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815  # its names are those of http.server

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Same) as server:
        Thread(target=partial(server.serve_forever, poll_interval=0.05), daemon=True).start()
        yield server.server_port
        server.shutdown()


def answered(place: Place, status: int, body: bytes = b"{}") -> tuple[int, str]:
    """What a gateway that answers so does to a command."""
    with _answering(status, body) as port:
        return place.run("contracts", "MNQ", "--gateway", f"http://127.0.0.1:{port}")


def asked(question: Question, answer: str) -> tuple[int, str]:
    """What a client says of a gateway that answers every question so, and is asked once."""
    with _answering(200, f'{{"token": "t", {answer}}}'.encode()) as port:
        return raised(lambda: asyncio.run(_ask(port, question)))


async def _ask(port: int, question: Question, timeout_s: float = 15.0) -> None:
    url, me, once = f"http://127.0.0.1:{port}", Credentials("me", "demo"), RetryPolicy(attempts=0)
    async with RestClient(url, me, policy=once, timeout_s=timeout_s) as client:
        await question(client)


def no_answer() -> tuple[int, str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return raised(lambda: asyncio.run(_ask(server.getsockname()[1], RestClient.token, timeout_s=0.1)))


def served_from_elsewhere(place: Place) -> tuple[int, str]:
    async def serve() -> None:
        async with serving("fsspec+memory://served"):
            pass

    place.ask("backup", "fsspec+memory://served")
    return raised(lambda: asyncio.run(serve()))


def no_web_server(place: Place) -> tuple[int, str]:
    def talk() -> None:
        client, _ = server.accept()
        with client:
            client.recv(65536)
            client.sendall(b"220 mail.example ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=talk, daemon=True).start()
        return place.run("contracts", "MNQ", "--gateway", f"http://127.0.0.1:{server.getsockname()[1]}")


def no_hub(place: Place) -> tuple[int, str]:
    with _answering(200, b"Welcome") as port:
        hub = ("--hub", f"ws://127.0.0.1:{port}/hubs/market")
        return place.capture("--contract", CONTRACT, *hub, *ONCE)


def listening(place: Place) -> tuple[int, str]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        return place.run("simulate", "--port", str(other.getsockname()[1]))


def empty(place: Place, *arguments: str) -> tuple[int, str]:
    """Ask a lake whose session holds nothing."""
    record(place.folder / "empty")
    return place.run(*arguments, "--lake", str(place.folder / "empty"))


def two_of_a_kind(place: Place) -> tuple[int, str]:
    for second in range(2):
        record(place.folder / "two", trade(), start_ns=START_NS + second * 1_000_000_000)
    return place.run("analyze", "session_2023", "--lake", str(place.folder / "two"))


def twice_imported(place: Place) -> tuple[int, str]:
    tape = _tape(place)
    place.run("import", tape, "--lake", "new")
    return place.run("import", tape, "--lake", "new")


def without(library: str, call: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, library, None)  # as where it is not installed
        return call()


def orphaned(place: Place) -> tuple[int, str]:
    """A recorder died, and then its manifest was lost."""
    with recording(place.folder / "open") as session:
        session.receive(trade())
    next((session.root / "sessions").glob("*.json")).unlink()
    return place.run("recover", "--lake", str(session.root))


def back_up(place: Place, lake: Path) -> tuple[int, str]:
    """What is damaged stands in the answer: the other sessions are copied."""
    answer = io.StringIO()
    code, _ = place.run("backup", "backup", "--lake", str(lake), answer=answer)
    return code, answer.getvalue()


def changed_copy(place: Place, **values: object) -> tuple[int, str]:
    """Back the lake up to where the manifest says something else by now."""
    back_up(place, place.lake)
    manifest = next(Path("backup").glob("sessions/*.json"))
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | values))
    return back_up(place, place.lake)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


PROVOKED: dict[str, Callable[[Place], tuple[int, str]]] = {
    "there is no setting …": lambda p: p.capture("--contract", "MNQ", "--set", "flushms=3"),
    "… = …: expected …": lambda p: p.capture("--contract", "MNQ", "--set", "flush_ms=99999"),
    "--set …: write NAME=VALUE": lambda p: p.capture("--contract", "MNQ", "--set", "flush_ms"),
    "… is no duration": lambda p: p.run("capture", "--set", "segment_s=soon"),
    "the configuration file … can't be read": lambda p: p.capture("--config", "nowhere.toml"),
    "the configuration file … is no TOML": lambda p: p.capture("--config", p.written("bad.toml", "lake = data")),
    "no contract to capture": Place.capture,
    "nothing to capture": lambda p: p.capture("--contract", "MNQ", "--no-quotes", "--no-trades", "--no-depth"),
    "nobody to log in as": lambda _: raised(_nobody),
    "the API key's file … can't be read": lambda p: in_the_environment("MDCAPTURE_API_KEY_FILE", "nowhere", p),
    "the API key's file … is empty": lambda p: in_the_environment("MDCAPTURE_API_KEY_FILE", p.written("key", "\n"), p),
    "… is no gateway's address": lambda p: p.capture("--contract", "MNQ", "--gateway", "ftp://gateway"),
    "--gateway …: did you mean …?": lambda p: p.capture("--contract", "MNQ", "--gateway", "topstpx"),
    "the address holds a password": lambda p: p.run("sessions", "--lake", "postgresql://me:secret@host/database"),
    "the URL of … holds a secret": lambda p: p.run("sessions", "--lake", "s3://key:secret@bucket/lake"),
    "roll_zone: there is no time zone …": lambda p: p.capture("--contract", CONTRACT, "--set", "roll_zone=Chicago"),
    "--json and --format … exclude each other": lambda p: p.ask("sessions", "--json", "--format", "csv"),
    "can't open …": lambda p: p.run("sessions", "--lake", "nowhere"),
    "there is no lake at …": lambda p: p.run("health", "--lake", "nowhere"),
    "… names no bucket": lambda p: p.run("sessions", "--lake", "s3://"),
    "… can't be reached: …; write s3://bucket/prefix": lambda p: p.run("sessions", "--lake", "foo://bar"),
    "a lake is recorded in a folder": lambda p: p.capture("--contract", "MNQ", "--lake", "s3://bucket/lake"),
    "this needs a lake in a folder": lambda p: p.run("prune", "--older-than", "1d", "--lake", "s3://bucket/lake"),
    "no session … in …": lambda p: p.ask("analyze", "session_19"),
    "… holds no session yet": nothing_there,
    "… holds no message yet": lambda p: empty(p, "analyze"),
    "… begins the names of … sessions": two_of_a_kind,
    "no session is being recorded in …": lambda p: p.ask("health"),
    "there is no contract … here": lambda p: p.ask("analyze", "--contract", "NOPE"),
    "no contract … here": lambda p: raised(lambda: md.open_lake(p.lake).trades("NOPE")),
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
    "--cluster needs --all": lambda p: p.ask("analyze", "--cluster", "tcp://127.0.0.1:9"),
    "no Dask scheduler answers at …": lambda p: p.ask("analyze", "--all", "--cluster", "tcp://127.0.0.1:9"),
    "--all is of all contracts and times": lambda p: p.ask(
        "report", "--all", "--from", "2023-12-25", "-o", "lake.html"
    ),
    "name the sessions, or take --all": lambda p: p.ask("compare"),
    "one session has nothing to be compared with": lambda p: p.ask("compare", "latest"),
    "a chart is of one metric": lambda p: p.ask("history", "trades", "volume", "-o", "chart.svg"),
    "--stats …: it is one of …": lambda p: p.capture("--contract", "MNQ", "--stats", "loud"),
    "there is no time zone …": lambda p: p.ask("plot", "price", "--zone", "Chicago"),
    "a chart is written as .png, .svg or .html": lambda p: p.ask("plot", "price", "-o", "price.bmp"),
    "choose one of … with --format": lambda p: p.ask("export", "latest", "-o", "trades.txt", "--table", "trades"),
    "… is compressed in itself": lambda p: p.export("trades.xlsx.gz", "--table", "trades"),
    "goes to standard output": lambda p: p.export("-", "--format", "duckdb"),
    "… is a folder of files: name one": lambda p: p.export("-", "--format", "hftbacktest"),
    "… takes books and trades": lambda p: p.export("hft", "--format", "hftbacktest", "--table", "trades"),
    "a query chooses its own tables": lambda p: p.export("x.csv", "--query", "from trades", "--table", "trades"),
    "bars are a table of their own": lambda p: p.export("bars.csv", "--bars", "1m", "--table", "trades"),
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
    "no session was captured for …": lambda p: p.ask("publish", "--to", "postgresql://127.0.0.1:9/market"),
    "there is no file …": lambda p: p.run("import", "nowhere.ndjson"),
    "… no line of a tape …": lambda p: p.run("import", p.written("tape", "1 {}\nnonsense\n"), "--lake", "new"),
    "there is no message on the tape …": lambda p: p.run("import", p.written("tape", ""), "--lake", "new"),
    "… is in the lake already, as …": twice_imported,
    "… can't be read as a SQLite file": lambda p: p.run(
        "import", p.written("bad.db", "SQLite format 3\0 and nothing more"), "--lake", "new"
    ),
    "… has none of the tables …": lambda p: p.run("import", _other_database(p), "--lake", "new"),
    "no fault: …": lambda p: p.run("simulate", "--fault", "flood"),
    "no speed: …": lambda p: p.run("simulate", "--speed", "fast"),
    "the local gateway plays a tape or a session, not both": lambda p: p.ask(
        "simulate", "--tape", "market.ndjson", "--session", "latest"
    ),
    "the local gateway has no contract …": lambda p: p.run("simulate", "--contract", "XXX"),
    "can't listen at …": listening,
    "a recorder captures once": twice,
    "--all and … exclude each other": lambda p: p.ask("analyze", "session_2023", "--all"),
    "no …: set it, or put the key into a file": lambda p: in_the_environment("MDCAPTURE_API_KEY", "", p),
    "a cluster needs Dask": lambda p: without(
        "distributed", lambda: p.ask("analyze", "--all", "--cluster", "tcp://127.0.0.1:9")
    ),
    "nautilus needs NautilusTrader": lambda p: without(
        "nautilus_trader", lambda: p.export("catalog", "--format", "nautilus")
    ),
    "… is not on this machine: only a lake in a folder can be served": served_from_elsewhere,
    "… can't be read as a tape": lambda p: p.run("import", p.written("tape.zst", "no archive"), "--lake", "new"),
    "the table … has no …": lambda p: p.run(
        "import", _other_database(p, "CREATE TABLE trades (price REAL)"), "--lake", "new"
    ),
    "row … of … has no time of its arrival": lambda p: p.run(
        "import", _other_database(p, _OLD_TRADES, "INSERT INTO trades VALUES ('noon', 'ES')"), "--lake", "new"
    ),
    "no connection to …": lambda p: p.run("contracts", "MNQ", "--gateway", NOBODY),
    "the name of … can't be resolved": lambda p: p.run("contracts", "MNQ", "--gateway", "https://nowhere.invalid"),
    "no trusted TLS connection to …": lambda p: p.run(
        "contracts", "MNQ", "--gateway", p.gateway.replace("http", "https")
    ),
    "given up after … tries in a row": lambda p: p.capture("--contract", CONTRACT, "--gateway", NOBODY, *ONCE),
    "is in trouble or under maintenance": lambda p: answered(p, 503),
    "too many requests": lambda p: answered(p, 429),
    "the gateway refuses …": lambda p: in_the_environment("MDCAPTURE_API_KEY", "wrong", p),
    "… answers with something else than the gateway's JSON": lambda p: answered(p, 200, b"<html>Welcome</html>"),
    "… answers with something else than HTTP": no_web_server,
    "is this the gateway's address?": lambda p: answered(p, 404),
    "… gave no token": lambda p: answered(p, 200, b'{"success": true, "errorCode": 0}'),
    "… is no WebSocket server": no_hub,
    "the gateway can't make sense of the request": lambda p: answered(p, 400),
    "the gateway answers … with errorCode …: try again later": lambda _: asked(
        RestClient.token, '"success": false, "errorCode": 99'
    ),
    "the gateway knows no contract …": lambda _: asked(
        lambda client: client.contract("CON.F.US.X"), '"success": true, "contracts": []'
    ),
    "a bar without a time that can be read": lambda _: asked(
        lambda client: client.bars(CONTRACT, 0, 1),
        '"success": true, "bars": [{"t": "yesterday", "o": 1, "h": 1, "l": 1, "c": 1, "v": 1}]',
    ),
    "… did not answer in time": lambda _: no_answer(),
    "answers with more than … bytes": lambda p: answered(p, 200, bytes(17 << 20)),
    "a record is longer than the … bytes allowed": lambda _: raised(lambda: HubProtocol(10).receive(bytes(20))),
    "the server's first record is no SignalR handshake": lambda _: raised(
        lambda: HubProtocol().receive(b"220 mail.example\x1e")
    ),
    "can't write …": lambda p: p.run("import", _tape(p), "--lake", str(Path(p.written("file", "")) / "lake")),
    "… can't be written: …": lambda p: p.ask("plot", "price", "-o", "nowhere/price.png"),
    "log_file: … can't be written": lambda p: p.capture("--contract", "MNQ", "--log-file", "nowhere/log"),
    "less than disk_stop_mb": lambda p: p.capture(
        "--contract", CONTRACT, "--set", "disk_stop_mb=1e12", "--set", "memory_check_s=0.1"
    ),
    "… is held by process …": held_by_another,
    "a sealed file is missing": lambda p: p.run(
        "sql", "from trades", "--lake", str(p.damaged("trades/*/*/*.parquet", Path.unlink))
    ),
    "… is no manifest …": lambda p: p.run(
        "sessions", "--lake", str(p.damaged("sessions/*.json", lambda file: file.write_text("{")))
    ),
    "… was written by a newer mdcapture …": lambda p: p.run(
        "sessions", "--lake", str(p.damaged("sessions/*.json", newer))
    ),
    "… is damaged: restore it": lambda p: p.run(
        "simulate", "--session", "latest", "--once", "--lake", str(p.damaged("messages/*/*/*", flipped))
    ),
    "… has not ended": unfinished,
    "… can't be read (…): restore it": lambda p: p.run(
        "simulate", "--session", "latest", "--once", "--lake", str(p.damaged("messages/*/*/*", a_folder))
    ),
    "… has messages, but … is missing": orphaned,
    "… is not what its checksum says: its session is not copied": lambda p: back_up(
        p, p.damaged("messages/*/*/*", flipped)
    ),
    "… can't be read (…): its session is not copied": lambda p: back_up(p, p.damaged("messages/*/*/*", a_folder)),
    "the copy has another session of this name": lambda p: changed_copy(p, created_ns=1),
    "the copy has messages beyond the lake's last": lambda p: changed_copy(p, next_seq=999_999),
    "see that the server runs and can be reached": lambda p: p.run(
        "sessions", "--lake", "postgresql://me@127.0.0.1:9/market"
    ),
}


def documented() -> dict[str, str]:
    """The messages of the page by their section."""
    part = PAGE.read_text().split("## Causes and cures")[1].split("## Every message")[0]
    found = {}
    for section in part.split("\n### ")[1:]:
        title, rows = section.split("\n", 1)
        found |= dict.fromkeys(re.findall(r"^\| `([^`]+)` \|", rows, re.MULTILINE), title)
    return found


def pattern(message: str) -> str:
    """What a message matches, whatever `…` stands for."""
    return ".*".join(re.escape(part.strip()) for part in message.split("…"))


class Refused(NamedTuple):
    """How a function refused an argument: the exit code, the message, and the module that said it."""

    code: int
    said: str
    module: str


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Refused]]:
    """Every function of `refused.py` called with its wrong argument."""
    answers: dict[str, list[Refused]] = {}
    for message, calls in REFUSED.items():
        for call in calls:
            with pytest.raises(md.MdcaptureError) as caught:
                call(tmp_path_factory.mktemp("refused"))
            answer = Refused(caught.value.exit_code, str(caught.value), sayer(caught.value))
            answers.setdefault(message, []).append(answer)
    return answers


def sayer(error: BaseException) -> str:
    """The module that raised an error first, as the page names it."""
    while isinstance(error.__cause__, md.MdcaptureError):
        error = error.__cause__
    *_, (frame, _) = walk_tb(error.__traceback__)
    return Path(frame.f_code.co_filename).relative_to(ROOT / "mdcapture").with_suffix("").as_posix()


def test_every_message_on_the_page_is_provoked_here():
    page = documented()
    assert [message for message, section in page.items() if section in SECTIONS] == list(PROVOKED)
    assert [message for message, section in page.items() if section == ARGUMENTS] == list(REFUSED)
    assert {*page.values()} == {*SECTIONS, ARGUMENTS, UNPROVOKED}


@pytest.mark.parametrize("message", PROVOKED)
def test_the_message_is_said_with_its_exit_code(message: str, place: Place):
    code, said = PROVOKED[message](place)
    assert re.search(pattern(message), said, re.DOTALL), said
    assert code in SECTIONS[documented()[message]], said
    assert "Traceback" not in said


@pytest.mark.parametrize("message", REFUSED)
def test_a_wrong_argument_is_refused_in_these_words(message: str, refused: dict[str, list[Refused]]):
    for answer in refused[message]:
        assert re.search(pattern(message), answer.said, re.DOTALL), answer
        assert answer.code in {2, 3}, answer


def test_no_message_of_the_source_is_missing_on_the_page(refused: dict[str, list[Refused]]):
    """Those about arguments count where they were provoked, word for word; the others where a row of the page fits."""
    rows = {message: pattern(message) for message, section in documented().items() if section != ARGUMENTS}
    answers = [answer for several in refused.values() for answer in several]

    def known(message: Raised) -> bool:
        whole = re.compile(pattern(message.text), re.DOTALL)
        if any(re.search(rows[row], message.text, re.DOTALL) or whole.fullmatch(row) for row in rows):
            return True
        return any(answer.module == message.module and whole.fullmatch(answer.said) for answer in answers)

    assert [(one.module, one.text) for one in raised_by_the_source() if not known(one)] == []


def test_every_exit_code_of_the_errors_is_on_the_page():
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE)}
    assert {getattr(errors, name).exit_code for name in errors.__all__} <= codes


def test_the_site_has_the_whole_tree_and_every_message():
    page = generated_pages()["reference/errors.md"]
    for name in errors.__all__:
        assert re.search(rf"^{getattr(errors, name).exit_code}  .*\b{name}\b", page, re.MULTILINE)
    assert "no contract to capture: name some" in page
