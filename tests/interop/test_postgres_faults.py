"""A PostgreSQL server that is away, refuses, breaks off or crashes: nothing by half, nothing twice, nothing told."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec
import pytest
from lake_builder import START_NS, forge, no_text, record, recording, trade
from postgres_server import PASSWORD, Server, cutting_off
from programs import LIMIT_S, mdcapture, simulator, start
from test_postgres import assert_same, bring

import mdcapture as md
from mdcapture.capture.health import problems, read_status, unfinished
from mdcapture.config import check_address
from mdcapture.interop.postgres.moving import import_postgres
from mdcapture.interop.postgres.publish import publish
from mdcapture.lake.catalog import open_catalog
from mdcapture.lake.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOBODY = "postgresql://somebody@127.0.0.1:9/nowhere"
PAYLOAD = "x" * 400


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake with a session whose rows are many bytes."""
    record(tmp_path / "lake", *(trade(volume=n, comment=PAYLOAD) for n in range(4000)))
    return tmp_path / "lake"


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    give_up_s = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < give_up_s, "it did not come to be"
        time.sleep(0.05)


@pytest.mark.parametrize("after_bytes", [1, 20_000, 1_500_000])
def test_a_connection_that_breaks_leaves_nothing_by_half(postgres: Server, lake: Path, after_bytes: int):
    address = postgres.database()
    with cutting_off(postgres.port, after_bytes) as port, pytest.raises(md.ServerError):
        bring(lake, postgres.address(address.rpartition("/")[2], port=port))
    tables = postgres.psql(address, "SELECT to_regclass('mdcapture_lake.trades')::text")
    assert tables == [[""]] or postgres.psql(address, "SELECT count(*) FROM mdcapture.trades") == [["0"]]
    (brought,) = bring(lake, address)
    assert brought.rows == 8000
    assert_same(lake, address, brought.session_id)


def test_pieces_that_were_finished_stay(postgres: Server, lake: Path):
    address = postgres.database()
    catalog = open_catalog(lake)
    ids = catalog.session_ids()
    with cutting_off(postgres.port, 1_000_000) as port, pytest.raises(md.ServerError):
        publish(catalog, ids, postgres.address(address.rpartition("/")[2], port=port), piece_messages=500)
    ((status, messages, trades),) = postgres.psql(address, "SELECT status, messages, trades FROM mdcapture.sessions")
    assert (status, messages, int(trades) % 500) == ("open", trades, 0)
    assert 0 < int(trades) < 4000
    (brought,) = publish(catalog, ids, address, piece_messages=500)
    assert brought.rows == 2 * (4000 - int(trades))
    assert_same(lake, address, ids[0])


def test_rows_that_the_server_does_not_take_keep_no_other_session_out(postgres: Server, tmp_path: Path):
    """Text that is no UTF-8, as a fault of an earlier version or of the memory could leave it."""
    bad = record(tmp_path, trade())
    good = record(tmp_path, trade(), start_ns=START_NS + 10**12)
    forge(tmp_path, tmp_path / read_manifest(tmp_path, bad).files_of("messages")[0].path, no_text)
    address = postgres.database()
    with pytest.raises(md.DamageError, match=rf"{bad}: the database does not take its rows \(.*invalid byte sequence"):
        publish(open_catalog(tmp_path), [bad, good], address)
    assert_same(tmp_path, address, good)
    assert postgres.psql(address, "SELECT session_id FROM mdcapture.sessions") == [[good]]


def test_a_publisher_that_is_killed_is_made_up_for_by_the_next(postgres: Server, lake: Path):
    address = postgres.database()
    working = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mdcapture'"
    process = start("publish", "latest", "--lake", str(lake), "--to", address, PGPASSWORD=PASSWORD)
    until(lambda: postgres.psql(address, working) != [["0"]])
    process.send_signal(signal.SIGKILL)
    process.communicate()
    bring(lake, address)
    (brought,) = bring(lake, address)
    assert brought.rows == 0
    assert_same(lake, address, brought.session_id)


def test_a_server_that_crashes_and_comes_back_goes_on_where_it_stood(postgres: Server, tmp_path: Path):
    address = postgres.database()
    with recording(tmp_path) as session:
        session.receive(*[trade()] * 100)
        bring(tmp_path, address)
        session.receive(*[trade()] * 50)
        postgres.crash()
        with pytest.raises(md.ServerError, match="see that the server runs"):
            bring(tmp_path, address)
        postgres.start()
        assert [one.rows for one in bring(tmp_path, address)] == [100]
        session.finish()
    bring(tmp_path, address)
    assert_same(tmp_path, address, session.session_id)


def captured(lake: Path, gateway: str, duration: str, address: str, *settings: str) -> tuple[str, ...]:
    """The arguments of a capture that is published."""
    options = ("--gateway", gateway, "--lake", str(lake), "--contract", "MNQ", "--duration", duration)
    return ("capture", *options, "--publish", address, "--stats", "none", "--set", "publish_s=0.3", *settings, "--json")


def assert_silence_is_told(lake: Path) -> None:
    """A publisher that has not been heard of for long is what `health` complains of."""
    (session_id,) = unfinished(lake)
    until(lambda: (said := read_status(lake, session_id)) is not None and said.published is not None)
    figures = read_status(lake, session_id)
    assert figures is not None
    assert figures.published is not None
    silent = msgspec.structs.replace(figures.published, at_ns=figures.at_ns - 31_000_000_000)
    told = problems(msgspec.structs.replace(figures, published=silent), figures.at_ns, lives=True)
    assert told == ["not all is published, the lake has it: the server is silent for 31 s"]


def test_a_capture_is_published_while_the_server_crashes_and_comes_back(postgres: Server, tmp_path: Path):
    address = postgres.database()
    there = "SELECT coalesce(sum(messages), 0) FROM mdcapture.sessions"

    def published() -> int:
        made = postgres.psql(address, "SELECT to_regclass('mdcapture.sessions')::text") != [[""]]
        return int(postgres.psql(address, there)[0][0]) if made else 0

    with ExitStack() as stack:
        gateway = stack.enter_context(simulator("--rate", "200", "--contract", "MNQ"))
        process = start(*captured(tmp_path, gateway["api"], "1h", address), PGPASSWORD=PASSWORD)
        stack.callback(process.kill)
        until(lambda: published() > 0)
        before = published()
        until(lambda: published() > before)  # it goes on
        assert_silence_is_told(tmp_path)
        postgres.crash()
        health = ("health", "--lake", str(tmp_path), "--json")
        until(lambda: "not all is published" in mdcapture(*health).stdout)
        postgres.start()
        before = published()
        until(lambda: published() > before)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    told = json.loads(output.splitlines()[-1])
    assert told["status"] == "sealed"
    assert_same(tmp_path, address, told["session_id"])
    assert mdcapture("verify", "--lake", str(tmp_path)).returncode == 0


def test_a_server_that_is_never_there_costs_a_capture_nothing(postgres: Server, tmp_path: Path):
    with simulator("--rate", "200", "--contract", "MNQ") as gateway:
        done = mdcapture(*captured(tmp_path, gateway["api"], "3s", NOBODY), PGPASSWORD=PASSWORD)
    assert done.returncode == 0
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["messages"] > 100
    assert "publishing to" in done.stderr
    assert "Connection refused" in done.stderr
    address = postgres.database()
    bring(tmp_path, address)
    assert_same(tmp_path, address, told["session_id"])
    assert leaks(done.stdout + done.stderr, tmp_path) == []


def leaks(output: str, folder: Path) -> list[str]:
    """Where the password shows."""
    texts = {"output": output.encode()} | {
        str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".parquet"
    }
    return [name for name, text in texts.items() if PASSWORD.encode() in text]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (NOBODY, "Connection refused; see that the server runs"),
        ("postgresql://somebody@nowhere.invalid/x", "could not translate host name"),
        ("postgresql://somebody@127.0.0.1:PORT/nowhere", 'database "nowhere" does not exist; create it'),
        ("postgresql://another@127.0.0.1:PORT/postgres", "check PGPASSWORD or ~/.pgpass"),
    ],
)
def test_a_server_that_can_not_be_used_says_why(postgres: Server, lake: Path, address: str, says: str):
    with pytest.raises(md.ServerError, match=says) as error:
        bring(lake, address.replace("PORT", str(postgres.port)))
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize("command", ["publish", "import", "sql"])
def test_a_command_that_is_not_let_in_ends_with_its_code_and_shows_no_password(
    postgres: Server, lake: Path, command: str
):
    address = postgres.address("postgres", user="another")
    arguments = {
        "publish": ("publish", "latest", "--to", address, "--lake", str(lake)),
        "import": ("import", address, "--lake", str(lake)),
        "sql": ("sql", "from trades", "--lake", address),
    }
    done = mdcapture(*arguments[command], PGPASSWORD=PASSWORD)
    assert done.returncode == 7
    assert "password authentication failed" in done.stderr
    assert leaks(done.stdout + done.stderr, lake) == []


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:{}@host/db",
        "postgresql://me:a/{}?@host/db",
        "postgres://host/db?user=me&password={}",
        "postgresql://host/db?pass%77ord={}",
        "postgresql://me@host/db?sslpassword={}",
    ],
)
def test_an_address_with_a_password_is_refused_without_showing_it(tmp_path: Path, address: str):
    with pytest.raises(md.ConfigError, match="holds a password") as refused:
        check_address(address.format(PASSWORD))
    assert PASSWORD not in str(refused.value)
    for use in (md.open_lake, lambda one: md.Config(publish=one), lambda one: import_postgres(one, tmp_path)):
        with pytest.raises(md.ConfigError):
            use(address.format(PASSWORD))


@pytest.mark.parametrize("command", ["publish", "capture"])
def test_commands_refuse_a_password_in_an_address(lake: Path, command: str):
    address = f"postgresql://me:{PASSWORD}@127.0.0.1:9/db"
    arguments = {
        "publish": ("latest", "--to", address, "--lake", str(lake)),
        "capture": ("--contract", "MNQ", "--lake", str(lake), "--publish", address),
    }
    done = mdcapture(command, *arguments[command])
    assert done.returncode == 2
    assert "holds a password" in done.stderr
    assert leaks(done.stdout + done.stderr, lake) == []


@pytest.mark.parametrize(
    "address", ["postgresql://me@host:5432/db", "postgres:///db?host=/run/a:b", "postgres://me:@/"]
)
def test_an_address_without_a_password_is_taken(address: str):
    assert check_address(address) == address
