"""A lake in object storage, on a real S3 server and on file systems of fsspec that fail as they are told to."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import fsspec
import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from lake_builder import ES, START_NS, quote, record, recording, trade
from object_storage import KEY_ID, SECRET, S3Server, Way, aws, s3_server

import mdcapture as md
from mdcapture.errors import DamageError, NotFoundError, StorageError, UsageError
from mdcapture.lake.backup import back_up
from mdcapture.lake.catalog import Catalog, Snapshot
from mdcapture.lake.manifest import read_manifest, session_ids
from mdcapture.lake.prune import prunable
from mdcapture.lake.remote import RemotePath, locate
from mdcapture.lake.schema import TABLES
from mdcapture.lake.seal import recover
from mdcapture.lake.verify import verify
from mdcapture.simulator.captured import SessionFeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DAY_NS = 86_400 * 10**9


class Unreliable(MemoryFileSystem):
    """A file system in memory that spoils so many of the files that are written.

    Something can happen when the first of them is read back: everybody else waits for it.
    """

    protocol = "unreliable"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    spoil = 0
    meanwhile: ClassVar[Callable[[], object] | None] = None
    turn = Lock()

    def _open(self, path: str, mode: str = "rb", *arguments: object, **options: object) -> BinaryIO:
        cls = type(self)
        with cls.turn:
            if mode == "rb" and cls.meanwhile and path.endswith(".parquet"):
                act, cls.meanwhile = cls.meanwhile, None
                act()
        file = super()._open(path, mode, *arguments, **options)
        if mode == "wb" and cls.spoil and path.endswith(".parquet"):
            cls.spoil -= 1
            write = file.write
            file.write = lambda data: write(bytes(data)[:-1] + b"?")
        return file


fsspec.register_implementation("unreliable", Unreliable, clobber=True)


@pytest.fixture
def memory() -> Iterator[RemotePath]:
    yield locate("fsspec+unreliable://lake")
    Unreliable.spoil = 0
    Unreliable.store.clear()
    Unreliable.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        running.make_bucket("lakes")
        yield running


@pytest.fixture
def s3(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemotePath:
    """An empty place in a bucket."""
    for name, value in aws(server.endpoint).items():
        monkeypatch.setenv(name, value)
    return locate(f"s3://lakes/{tmp_path.name}")


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Three sessions, a day apart, with all that is awkward: no contract, one that is no file's name, no UTF-8."""
    root = tmp_path / "lake"
    for day in range(3):
        odd = [trade("CON/a b%c=é", price=1.5), b'{"type":1,"target":"GatewayTrade","arguments":["\xff",1]}', quote(ES)]
        record(root, *(trade(volume=one) for one in range(day + 1)), *odd, start_ns=START_NS + day * DAY_NS)
    return root


@pytest.fixture(scope="module")
def es(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("es") / "lake"
    md.import_tape(str(shared / "tapes/es_20231225.ndjson.zst"), root)
    return root


def equal(here: Path, there: RemotePath) -> bool:
    """Whether two lakes hold the same rows in the same order, types and nanoseconds included."""
    one, other = md.open_lake(here), md.open_lake(there)
    frames = [(getattr(one, table)().collect(), getattr(other, table)().collect()) for table in TABLES]
    return all(x.schema == y.schema and x.equals(y) for x, y in frames)


def proven(root: Path | RemotePath) -> bool:
    return all(verify(root, one, deep=True) == [] for one in session_ids(root))


def contents(root: Path) -> dict[str, bytes]:
    """The files of a lake, but for locks."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


# There and back.


def test_the_tape_is_the_same_in_object_storage(es: Path, s3: RemotePath, tmp_path: Path):
    done = back_up(es, s3)
    assert (done.sessions, done.problems) == (1, [])
    assert equal(es, s3)
    assert proven(s3)
    back_up(s3, tmp_path / "home")
    assert contents(tmp_path / "home") == contents(es)


def test_every_question_has_the_same_answer(es: Path, s3: RemotePath):
    back_up(es, s3)
    here, there = md.open_lake(es), md.open_lake(str(s3))
    for query in (
        "from sessions",
        "from contracts",
        "from gaps",
        "select side, count(*), sum(volume), min(received_timestamp) from trades group by 1 order by 1",
        "select seq, raw_data from depth where price > 4812 and dom_type = 1 order by seq, pos",
    ):
        assert there.sql(query).fetchall() == here.sql(query).fetchall()
    assert there.session().analyze().frame().equals(here.session().analyze().frame())
    assert repr(there).startswith(f"<Lake {s3}")
    feeds = [SessionFeed(one, "latest") for one in (es, str(s3))]
    assert feeds[0].contracts == feeds[1].contracts


def test_awkward_contracts_and_texts_come_through(lake: Path, memory: RemotePath):
    back_up(lake, memory)
    assert equal(lake, memory)
    assert proven(memory)
    rows = md.open_lake(memory).trades("CON/a b%c=é").collect()
    assert rows["contract_id"].to_list() == ["CON/a b%c=é"] * 3


def test_only_what_is_asked_for_travels(es: Path, s3: RemotePath, server: S3Server, monkeypatch: pytest.MonkeyPatch):
    back_up(es, s3)
    size = sum(file.bytes for file in read_manifest(es, session_ids(es)[0]).files_of("depth"))
    with Way(server.endpoint) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.endpoint)
        there = md.open_lake(str(s3))
        assert there.depth().select(pl.col("dom_type").sum()).collect().item() > 0
        assert way.received < size / 4
        before = way.received
        assert there.depth().filter(pl.col("recv_ns") < 0).collect().is_empty()
        assert there.sql("select count(*) from depth where session_id = 'another'").fetchall() == [(0,)]
        assert way.received - before < size / 4


# Bringing it up to date.


def test_only_what_is_not_there_is_sent(lake: Path, s3: RemotePath):
    back_up(lake, s3)
    assert back_up(lake, s3).files == 0
    record(lake, trade(), start_ns=START_NS + 9 * DAY_NS)
    assert back_up(lake, s3).files == 2  # its messages and its trades
    assert equal(lake, s3)


def test_what_lost_its_end_is_sent_again(lake: Path, s3: RemotePath):
    back_up(lake, s3)
    one = next(iter(s3.rglob("part-*")))
    one.replace_with([one.read_bytes()[:-100]])
    assert not proven(s3)
    assert back_up(lake, s3).files == 1
    assert proven(s3)


def test_what_storage_spoils_is_noticed_and_sent_again(lake: Path, memory: RemotePath):
    Unreliable.spoil = 2
    assert back_up(lake, memory).problems == []
    assert Unreliable.spoil == 0
    assert proven(memory)


def test_storage_that_always_spoils_is_an_error_and_no_copy(lake: Path, memory: RemotePath):
    Unreliable.spoil = 1000
    with pytest.raises(StorageError, match="is not what was sent there"):
        back_up(lake, memory, pauses_s=[0.0])
    assert session_ids(memory) == []


def test_damage_in_the_lake_does_not_reach_the_copy(lake: Path, memory: RemotePath):
    back_up(lake, memory)
    bad, *good = session_ids(lake)
    path = next(lake.glob(f"trades/session_id={bad}/*/*.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert back_up(lake, memory).problems == []  # nothing is to be sent
    for one in memory.rglob("*"):
        one.unlink()
    problems = back_up(lake, memory).problems
    assert [bad in problem and "checksum" in problem for problem in problems] == [True]
    assert session_ids(memory) == good
    assert not any(bad in str(one) and "trades" in str(one) and "=CON.F.US.EP" in str(one) for one in memory.rglob("*"))


def test_another_session_of_the_same_name_is_left_alone(tmp_path: Path, memory: RemotePath):
    record(tmp_path / "one", trade(), trade())
    record(tmp_path / "two", trade(), start_ns=START_NS + 1)  # in the same second
    back_up(tmp_path / "one", memory)
    assert "another session" in back_up(tmp_path / "two", memory).problems[0]
    assert equal(tmp_path / "one", memory)


def test_a_session_that_is_recorded_is_there_as_far_as_it_is_sealed(tmp_path: Path, memory: RemotePath):
    lake = tmp_path / "lake"
    with recording(lake) as session:
        for number in range(6):
            session.receive(trade(volume=number))
            session.seal()  # merges what the copy has
            session.receive(trade(volume=100))
            assert back_up(lake, memory).problems == []
            there = md.open_lake(memory).session()
            assert there.status == "open"
            assert there.trades().collect().height == 2 * number + 1
            assert proven(memory)
        frame = there.trades().select("volume")
        session.finish()
    back_up(lake, memory)
    assert frame.collect().height == 12  # a frame is read when it is collected
    assert there.status == "sealed"
    assert equal(lake, memory)
    assert {str(one.relative_to(memory)) for one in memory.rglob("*")} == contents(lake).keys()


def test_a_machine_that_is_gone_can_be_recovered_from_its_copy(tmp_path: Path, memory: RemotePath):
    with recording(tmp_path / "lake") as session:
        session.receive(trade())
        session.seal()
        back_up(tmp_path / "lake", memory)
    back_up(memory, tmp_path / "home")

    assert [one.state for one in recover(tmp_path / "home")] == ["recovered"]
    assert proven(tmp_path / "home")


class Late(Catalog):
    """A catalog whose first answers are of an earlier moment."""

    def __init__(self, root: RemotePath, *earlier: Snapshot) -> None:
        super().__init__(root)
        self.earlier = list(earlier)

    def snapshot(self, session_id: str) -> Snapshot:
        return self.earlier.pop() if self.earlier else super().snapshot(session_id)


@pytest.mark.parametrize(
    "ask", [lambda lake: lake.trades().collect().height, lambda lake: lake.sql("from trades").pl().height]
)
def test_a_part_that_is_merged_away_under_a_reader_is_looked_for_again(
    tmp_path: Path, s3: RemotePath, ask: Callable[[md.Lake], int]
):
    with recording(tmp_path / "lake") as session:
        session.receive(trade())
        session.seal()
        back_up(tmp_path / "lake", s3)
        before = Catalog(s3).snapshot(session.session_id)
        session.receive(trade())
        session.seal()
        back_up(tmp_path / "lake", s3)
    catalog = Late(s3, before)
    assert ask(md.Lake(catalog)) == 2
    assert catalog.earlier == []
    for one in s3.rglob("part-*"):
        one.unlink()
    with pytest.raises(DamageError, match="missing"):
        ask(md.open_lake(s3))


def test_what_was_sent_and_then_merged_away_does_not_stay(tmp_path: Path, memory: RemotePath):
    """Sealing goes on while some of many files are sent: the next attempt knows these no more."""
    with recording(tmp_path) as session:

        def go_on() -> None:
            session.receive(*(trade(f"CON.F.US.EP.{number}") for number in range(10)))
            session.seal()

        go_on()
        before = {file.path for file in read_manifest(tmp_path, session.session_id).files}
        Unreliable.meanwhile = go_on
        assert back_up(tmp_path, memory).problems == []
        names = {file.path for file in read_manifest(tmp_path, session.session_id).files}
        assert names.isdisjoint(before)
        assert {str(path.relative_to(memory)) for path in memory.rglob("*.parquet")} == names
        session.finish()


def test_what_object_storage_has_may_be_pruned(lake: Path, memory: RemotePath):
    assert prunable(lake, keep=0, backup=memory) == []
    back_up(lake, memory)
    assert len(prunable(lake, keep=0, backup=memory)) == 3


# The network.


def test_an_upload_that_was_killed_goes_on_where_it_stood(
    lake: Path, s3: RemotePath, server: S3Server, monkeypatch: pytest.MonkeyPatch
):
    for day in range(3, 15):
        record(lake, *(trade(volume=one) for one in range(9)), start_ns=START_NS + day * DAY_NS)
    with Way(server.endpoint) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.endpoint)
        process = subprocess.Popen([sys.executable, "-m", "mdcapture.lake", "upload", str(lake), str(s3)])
        while way.sent < 60_000 and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    assert proven(s3)  # those that are named are whole
    there = sum(one.stat().st_size > 0 for one in s3.rglob("part-*"))
    assert there > 0
    every = sum(len(read_manifest(lake, one).files) for one in session_ids(lake))
    assert back_up(lake, s3).files == every - there
    assert equal(lake, s3)


def test_a_server_that_goes_away_and_comes_back_costs_time_alone(
    lake: Path, s3: RemotePath, server: S3Server, monkeypatch: pytest.MonkeyPatch
):
    for day in range(3, 12):
        record(lake, trade(), start_ns=START_NS + day * DAY_NS)
    way = Way(server.endpoint)
    way.open()
    monkeypatch.setenv("AWS_ENDPOINT_URL", way.endpoint)
    copied: list[int] = []

    def progress(size: int) -> None:
        if not copied:
            way.cut()
            Timer(1.5, way.open).start()
        copied.append(size)

    assert back_up(lake, locate(str(s3)), progress=progress).problems == []
    way.cut()
    assert len(copied) > 10
    assert equal(lake, s3)


# Errors.


def test_what_is_not_there_is_said(s3: RemotePath, lake: Path):
    with pytest.raises(NotFoundError, match=r"s3://lakes/.*nothing"):
        md.open_lake(str(s3))
    with pytest.raises(StorageError, match=r"s3://nobucket/x.*does not exist; create the bucket"):
        back_up(lake, locate("s3://nobucket/x"))
    back_up(lake, s3)
    with pytest.raises(NotFoundError, match="no session 1999"):
        md.open_lake(str(s3)).session("1999")


def test_a_refusal_names_the_way_out_and_no_secret(s3: RemotePath, lake: Path, server: S3Server):
    server.check_credentials(on=True)
    try:
        with pytest.raises(StorageError, match="check the credentials") as writing:
            back_up(lake, s3)
        with pytest.raises(StorageError, match="check the credentials") as reading:
            md.open_lake(str(s3))
    finally:
        server.check_credentials(on=False)
    for refused in (writing, reading):
        assert not {SECRET, KEY_ID} & set(str(refused.value).split())
        assert SECRET not in str(refused.value)


def test_a_server_that_is_not_there_is_said(s3: RemotePath, lake: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"s3://lakes/.*AWS_ENDPOINT_URL"):
        back_up(lake, locate(str(s3)))


@pytest.mark.parametrize(
    "url",
    [f"s3://me:{SECRET}@bucket/lake", f"s3://bucket/lake?secret_key={SECRET}", f"abfs://c@h/x?sas_token={SECRET}"],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str):
    with pytest.raises(UsageError, match="holds a secret") as refused:
        locate(url)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("url", ["nope://bucket/lake", "s3://", "fsspec+nope://lake"])
def test_what_nobody_can_reach_is_said(url: str):
    with pytest.raises(UsageError, match="s3://bucket/prefix"):
        locate(url)


@pytest.mark.parametrize(("one", "other"), [("a", "a/b"), ("a/b", "a"), ("a", "a")])
def test_copies_lie_apart(memory: RemotePath, lake: Path, one: str, other: str):
    back_up(lake, memory / one)
    with pytest.raises(UsageError, match="within"):
        back_up(memory / one, memory / other)


def test_a_place_travels_without_who_asks(s3: RemotePath):
    text = pickle.dumps(s3)
    assert SECRET.encode() not in text
    assert KEY_ID.encode() not in text
    assert pickle.loads(text) == s3  # noqa: S301  # our own


def test_a_folder_is_a_folder_however_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ("lake", "./lake", "~/lake", f"file://{tmp_path}/lake", tmp_path / "lake")
    assert {locate(name) for name in names} == {tmp_path / "lake"}
    assert os.fspath(locate("lake")) == str(tmp_path / "lake")  # type: ignore[arg-type]
