"""The served lake over HTTP: what is captured now, SQL within its bounds, files, reports, and who is refused."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import signal
import sys
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import duckdb
import markets
import psutil
import pytest
from lake_builder import ES, record, recording, trade
from programs import LIMIT_S, start

from mdcapture.errors import NotFoundError, UsageError
from mdcapture.serve.queries import QueryLimits
from mdcapture.serve.server import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from conftest import Running

ENDLESS = "select count(*) from range(10000000000) a, range(1000) b where a.range % 7 = b.range"
GREEDY = "select repeat('x', 1000000000) as a"


def fetch(url: str, data: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    """Status, headers and body of an answer."""
    request = urllib.request.Request(  # noqa: S310  # of our own making
        url, data, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def ask(address: str, query: str, session: str = "") -> tuple[int, Any]:
    status, _, body = fetch(address + "query", json.dumps({"query": query, "session": session}).encode())
    return status, json.loads(body)


def events(address: str, count: int, wanted: str = "") -> list[Any]:
    """The first few of the server's events."""
    found: list[Any] = []
    with urllib.request.urlopen(f"{address}live?{wanted}", timeout=LIMIT_S) as stream:  # noqa: S310
        assert stream.headers["Content-Type"] == "text/event-stream"
        while len(found) < count:
            line = stream.readline()
            if line.startswith(b"data: "):
                found.append(json.loads(line.removeprefix(b"data: ")))
    return found


def test_what_is_captured_now_goes_on_from_second_to_second(address: str, running: Running):
    first, second = (event["recordings"][0] for event in events(address, 2))
    assert first["session_id"] == running.session_id
    assert first["figures"]["pid"] == running.pid
    assert second["figures"]["messages"] > first["figures"]["messages"]


def test_the_book_is_of_the_contract_that_is_wanted(address: str, running: Running):
    (event,) = events(address, 1)
    contracts = [one["contract_id"] for one in event["recordings"][0]["figures"]["contracts"]]
    for contract_id in contracts:
        (standing,) = (one["standing"] for one in events(address, 1, f"contract={contract_id}"))
        assert (standing["session_id"], standing["contract_id"]) == (running.session_id, contract_id)
        assert standing["bids"][0][0] < standing["asks"][0][0]
        assert standing["trades"]


def test_answers_are_exact_and_of_this_moment(address: str, running: Running):
    query = "select max(recv_ns) as last_ns, null as nothing, 'a\"b' as text from trades"
    before_ns = time.time_ns()
    _, answer = ask(address, query, running.session_id)
    assert answer["columns"] == ["last_ns", "nothing", "text"]
    assert answer["numeric"] == [True, True, False]
    ((last_ns, nothing, text),) = answer["rows"]
    assert (nothing, text, answer["truncated"]) == (None, 'a"b', False)
    assert before_ns - int(last_ns) < 5 * 10**9
    _, again = ask(address, f"select count(*) from trades where recv_ns = {last_ns}")  # noqa: S608  # our own number
    assert int(again["rows"][0][0]) >= 1


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("selec 1", "syntax error"),
        ("select nothing from trades", "nothing"),
        ("copy trades to '/tmp/stolen.csv'", "only one statement that reads"),
        ("select * from read_csv('/etc/passwd')", "disabled"),
    ],
)
def test_a_query_that_is_wrong_or_forbidden_says_why(address: str, query: str, words: str):
    status, answer = ask(address, query)
    assert status == 400
    assert words in answer["error"]


def test_what_is_no_question_is_refused(address: str):
    for body in (b"", b"[]", b'{"query": 1}', b"\xff"):
        assert fetch(address + "query", body)[0] == 400
    assert fetch(address + "query", b"x" * 1_000_000)[0] == 413


def test_an_answer_is_cut_and_a_download_is_whole(address: str):
    _, answer = ask(address, "select range as n from range(5000)")
    assert (len(answer["rows"]), answer["truncated"]) == (1000, True)
    status, headers, body = fetch(address + "query.csv", b"query=select+range+as+n+from+range(5000)&session=")
    assert (status, headers["Content-Disposition"]) == (200, 'attachment; filename="query.csv"')
    assert list(csv.reader(io.StringIO(body.decode()))) == [["n"], *([str(n)] for n in range(5000))]
    status, _, body = fetch(address + "query.csv", b"query=selec+1")
    assert (status, b"syntax error" in body) == (400, True)


@asynccontextmanager
async def client(lake: Path, **limits: float) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """A server in this process, and somebody who asks it."""
    async with serving(lake, limits=QueryLimits(**limits)) as url, aiohttp.ClientSession() as session:  # type: ignore[arg-type]
        yield url, session


@pytest.fixture
def small_lake(tmp_path: Path) -> Path:
    with recording(tmp_path) as session:
        session.receive(trade())
        session.finish()
    return tmp_path


async def until(found: Callable[[], object]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not found():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.02)


def asking() -> list[psutil.Process]:
    """The processes that answer queries for this one."""
    children = psutil.Process().children()
    return [one for one in children if one.status() != psutil.STATUS_ZOMBIE and "sql" in one.cmdline()]


def test_a_query_that_takes_too_long_is_ended(small_lake: Path):
    async def run() -> None:
        async with client(small_lake, answer_s=2.5) as (url, session):
            async with session.post(url + "query", json={"query": ENDLESS}) as answer:
                assert answer.status == 400
                assert "the query took more than 2.5 s and was ended" in (await answer.json())["error"]
            assert asking() == []

    asyncio.run(run())


def test_a_query_that_nobody_waits_for_is_ended(small_lake: Path):
    async def run() -> None:
        async with client(small_lake) as (url, session):
            waiting = asyncio.create_task(session.post(url + "query", json={"query": ENDLESS}))
            await until(asking)
            waiting.cancel()
            await until(lambda: not asking())

    asyncio.run(run())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can bound the memory of another process")
def test_a_query_that_takes_too_much_memory_is_ended_with_the_reason(small_lake: Path):
    async def run() -> None:
        limited = client(small_lake, memory_mb=600)
        async with limited as (url, session), session.post(url + "query", json={"query": GREEDY}) as answer:
            assert answer.status == 400
            assert "Out of Memory" in (await answer.json())["error"]

    asyncio.run(run())


def test_a_row_that_is_too_large_is_not_shown(address: str):
    status, answer = ask(address, f"select repeat('x', {9 << 20}) as a")
    assert status == 400
    assert answer["error"].startswith("a row of the answer is too large to be shown")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost@evil.example"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["", "sessions", "live", "query"])
def test_other_sites_are_refused(address: str, path: str, headers: dict[str, str]):
    status, _, body = fetch(address + path, b"{}" if path == "query" else None, **headers)
    assert status in (400, 403)
    assert b"mdcapture" not in body


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:9999", "192.0.2.1:80"])
def test_own_names_and_addresses_are_let_in(address: str, host: str):
    assert fetch(address, Host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin")[0] == 200


def test_a_page_may_run_its_own_script_alone(address: str):
    _, headers, _ = fetch(address)
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"].startswith("'sha256-")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in fetch(address + "sessions")[1]["Content-Security-Policy"]


def test_sealed_files_can_be_downloaded_and_nothing_else(address: str, running: Running, tmp_path: Path):
    files = json.loads(fetch(f"{address}sessions/{running.session_id}/files")[2])
    got = 0
    for file in files:
        status, headers, body = fetch(f"{address}sessions/{running.session_id}/files/{file['path']}")
        if status == 404:
            continue  # merged into another one meanwhile
        assert headers["Content-Disposition"].startswith(f'attachment; filename="{file["table"]}_session_')
        (tmp_path / "part.parquet").write_bytes(body)
        rows = duckdb.sql(f"select count(*) from read_parquet('{tmp_path}/part.parquet')").fetchall()  # noqa: S608
        assert rows == [(file["rows"],)]
        got += 1
        if got == 3:
            break
    assert got == 3
    for path in (
        f"sessions/{running.session_id}.json",
        f"journal/{running.session_id}/lock",
        "../" * 8 + "etc/passwd",
        "..%2f" * 8 + "etc/passwd",
        "/etc/passwd",
    ):
        assert fetch(f"{address}sessions/{running.session_id}/files/{path}")[0] == 404
    _, _, body = fetch(f"{address}sessions/{running.session_id}/files/trades/part-1.parquet")
    assert f"{running.session_id} has no file trades/part-1.parquet (any more)" in body.decode()
    assert fetch(f"{address}sessions/..%2f..%2fetc/files")[0] == 404
    assert fetch(f"{address}sessions/session_19990101_000000/files")[0] == 404


def test_sessions_are_listed_with_what_they_hold(small_lake: Path):
    async def run() -> None:
        async with client(small_lake) as (url, session), session.get(url + "sessions") as answer:
            (row,) = await answer.json()
            assert row["status"] == "sealed"
            assert [one["contract_id"] for one in row["contracts"]] == [ES]
            assert (row["messages"], row["trades"], row["quotes"]) == (1, 1, 0)

    asyncio.run(run())


def test_a_report_is_made_while_one_waits_and_then_kept(tmp_path: Path):
    session_id = markets.broken(tmp_path).session_id

    async def run() -> None:
        async with client(tmp_path) as (url, session):

            async def report() -> tuple[str, str]:
                async with session.get(f"{url}sessions/{session_id}/report") as answer:
                    return await answer.text(), answer.headers["Content-Security-Policy"]

            page, policy = await report()
            assert 'http-equiv="refresh"' in page
            while "its report is being made" in page:
                await asyncio.sleep(0.1)
                page, policy = await report()
            assert "Definitions and sources" in page
            assert policy.startswith("sandbox allow-scripts;")
            assert await report() == (page, policy)

    asyncio.run(run())


def test_a_report_that_can_t_be_made_says_why(tmp_path: Path):
    session_id = record(tmp_path)

    async def run() -> None:
        async with client(tmp_path) as (url, session):
            status = 200
            while status == 200:  # it is being made
                await asyncio.sleep(0.05)
                async with session.get(f"{url}sessions/{session_id}/report") as answer:
                    status, said = answer.status, await answer.text()
            assert f"the report of {session_id} could not be made: {session_id} holds no message yet" in said

    asyncio.run(run())


def test_it_ends_cleanly_also_while_a_page_is_open(small_lake: Path):
    process = start("serve", "--lake", str(small_lake), "--port", "0")
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    assert fetch(url)[0] == 200
    with urllib.request.urlopen(url + "live", timeout=LIMIT_S) as stream:  # noqa: S310
        assert stream.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0
    _, errors = process.communicate()
    assert errors == ""


def test_what_cannot_be_served_is_said(small_lake: Path):
    async def run() -> None:
        with pytest.raises(NotFoundError):
            await serving(small_lake / "nowhere").__aenter__()
        async with client(small_lake) as (url, _):
            with pytest.raises(UsageError, match="choose another --port"):
                await serving(small_lake, port=int(url.rstrip("/").rpartition(":")[2])).__aenter__()

    asyncio.run(run())
