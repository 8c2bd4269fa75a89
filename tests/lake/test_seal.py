"""Nothing is lost and nothing is doubled, wherever a process dies, whatever is found on the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import pyarrow.parquet as pq
import pytest
from crashing import DIED, SESSION
from lake_builder import ES, MS, START_NS, quote, recording, trade
from small_disk import SmallDisk

from mdcapture.errors import BusyError, DamageError, NotFoundError, StorageError
from mdcapture.lake.catalog import snapshot
from mdcapture.lake.files import make_folder
from mdcapture.lake.journal import segments
from mdcapture.lake.layout import journal_folder, manifest_path, segment_path
from mdcapture.lake.locks import OWNER_LOCK, SEAL_LOCK, hold
from mdcapture.lake.manifest import read_manifest, write_manifest
from mdcapture.lake.schema import IncidentKind
from mdcapture.lake.seal import compact, finish, recover, remove_leftovers, seal
from mdcapture.lake.verify import verify
from mdcapture.lake.writer import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
NQ = "CON.F.US.ENQ.H24"


def select(root: Path, query: str) -> list[tuple[Any, ...]]:
    """What plain DuckDB reads; tables stand in braces."""
    tables = ("messages", "trades", "quotes", "incidents", "rejects", "signals")
    texts = {
        table: f"read_parquet('{root}/{table}/**/*.parquet', hive_partitioning=true, hive_types_autocast=false)"
        for table in tables
    }
    return duckdb.sql(query.format(**texts)).fetchall()


def leftovers(root: Path) -> list[str]:
    """What should not be there after a recovery."""
    files = [path for path in root.rglob("*") if path.is_file()]
    odd = [path for path in files if path.suffix not in {".parquet", ".json"}]
    return [str(path.relative_to(root)) for path in odd] + [path.name for path in (root / "journal").iterdir()]


def crash_everywhere(work: str, template: Path, out: Path) -> Iterator[tuple[int, Path]]:
    """The lakes after a crash at each step of the work, a crash of the recovery, and a recovery."""
    command = [sys.executable, str(HERE / "crashing.py"), work, str(template), str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    fates = json.loads(done.stdout)
    assert [fate[0] for fate in fates] == [DIED] * (len(fates) - 1) + [0], done.stderr
    assert {fate[1] for fate in fates} <= {DIED, 0}, done.stderr
    assert {fate[2] for fate in fates} == {0}, done.stderr
    for step in range(1, len(fates) + 1):
        yield step, out / str(step)


def journaled(root: Path, *roll_after: int) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """A session of one or more segments, its recorder dead; the messages and trades that it must give."""
    texts = [trade(price=4800 + number / 4, volume=number + 1) for number in range(10)]
    with recording(root) as session:
        session.note(IncidentKind.CONNECTED)
        for number, text in enumerate(texts):
            session.receive(text)
            if number in roll_after:
                session.roll()
        session.note(IncidentKind.LIMIT)
    times = [START_NS + (number + 1) * MS for number in range(10)]
    messages = [(number, times[number], text.decode()) for number, text in enumerate(texts)]
    trades = [(number, times[number], 4800 + number / 4, number + 1, 0, ES, SESSION) for number in range(10)]
    return messages, trades


@pytest.mark.parametrize(
    ("work", "roll_after"), [("seal", [6]), pytest.param("recover", [], marks=pytest.mark.long), ("recover", [2, 6])]
)
def test_a_crash_at_any_step_of_sealing_loses_and_doubles_nothing(tmp_path: Path, work: str, roll_after: list[int]):
    messages, trades = journaled(tmp_path / "template", *roll_after)
    steps = 0
    for step, root in crash_everywhere(work, tmp_path / "template", tmp_path / "out"):
        assert select(root, "select seq, recv_ns, payload from {messages} order by seq") == messages, step
        query = "select seq, recv_ns, price, volume, side, contract_id, session_id from {trades} order by seq"
        assert select(root, query) == trades, step
        kinds = select(root, "select seq, kind from {incidents} where kind != 'crashed' order by seq")
        assert kinds == [(0, "connected"), (10, "limit")], step
        crashed = select(root, "select stream, contract_id, from_ns, to_ns from {incidents} where kind = 'crashed'")
        recovered = read_manifest(root, SESSION).state == "recovered"
        assert crashed == [("trades", ES, messages[-1][1], None)] * recovered, step
        assert leftovers(root) == [], step
        assert verify(root, SESSION, deep=True) == [], step
        assert len(list(root.glob("trades/**/*.parquet"))) == 1, step
        steps = step
    assert steps > 25


def in_parts(root: Path) -> None:
    """A session that has ended with several parts, as one does whose compaction was left out."""
    with recording(root) as session:
        for count in (8, 3, 1):
            session.receive(*[trade(volume=count)] * count)
            session.seal()
    manifest = read_manifest(root, SESSION)
    assert len(manifest.files_of("trades")) == 3
    manifest.state = "sealed"
    write_manifest(root, manifest)
    for path in journal_folder(root, SESSION).iterdir():
        path.unlink()
    journal_folder(root, SESSION).rmdir()


def test_a_crash_at_any_step_of_compaction_loses_and_doubles_nothing(tmp_path: Path):
    in_parts(tmp_path / "template")
    for step, root in crash_everywhere("compact", tmp_path / "template", tmp_path / "out"):
        assert select(root, "select count(*), sum(volume), count(distinct seq) from {trades}") == [(12, 74, 12)], step
        assert leftovers(root) == [], step
        assert verify(root, SESSION, deep=True) == [], step


def test_a_crash_at_any_step_of_a_session_s_beginning_leaves_nothing_behind(tmp_path: Path):
    make_folder(tmp_path / "template")
    for step, root in crash_everywhere("begin", tmp_path / "template", tmp_path / "out"):
        if (root / "journal").exists():
            assert leftovers(root) == [], step
        if manifest_path(root, SESSION).exists():
            assert read_manifest(root, SESSION).state == "recovered"


def test_recovery_does_not_touch_what_a_living_process_records(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade())
        assert recover(tmp_path) == []
        with pytest.raises(BusyError):
            compact(tmp_path, SESSION)
        session.receive(trade())
        session.finish()
    assert select(tmp_path, "select seq from {trades} order by seq") == [(0,), (1,)]
    assert recover(tmp_path) == []


def test_a_session_that_can_t_be_recovered_stops_no_other(tmp_path: Path):
    for second in (0, 1, 2):
        with recording(tmp_path, START_NS + second * 1000 * MS) as session:
            session.receive(trade())
    first, second_id, _ = sorted(path.name for path in (tmp_path / "journal").iterdir())
    manifest_path(tmp_path, first).write_bytes(b'{"session_id": "\xff"}')
    manifest_path(tmp_path, second_id).unlink()
    (tmp_path / "journal" / "session_of_my_own").mkdir()
    (tmp_path / "journal" / "session_of_my_own" / "precious").touch()
    with pytest.raises(DamageError, match="is no manifest"):
        recover(tmp_path)
    assert len(select(tmp_path, "select * from {trades}")) == 1
    assert {path.name for path in (tmp_path / "journal").iterdir()} == {first, second_id, "session_of_my_own"}
    assert (tmp_path / "journal" / "session_of_my_own" / "precious").exists()
    assert segments(journal_folder(tmp_path, second_id))


def test_a_folder_without_a_manifest_is_of_a_session_that_never_was(tmp_path: Path):
    make_folder(tmp_path / "sessions")
    make_folder(journal_folder(tmp_path, SESSION))
    (tmp_path / "sessions" / f"{SESSION}.json.tmp").touch()
    assert recover(tmp_path) == []
    assert leftovers(tmp_path) == []


def test_segments_that_are_not_there_are_an_incident_and_a_hole(tmp_path: Path):
    with recording(tmp_path) as session:
        for _ in range(3):
            session.receive(quote(bestBid=1.0))
            session.receive(quote(bestAsk=2.0))
            session.roll()
    segment_path(journal_folder(tmp_path, SESSION), 2).unlink()
    recover(tmp_path)
    assert select(tmp_path, "select seq from {messages} order by seq") == [(0,), (1,), (4,), (5,)]
    incident = select(tmp_path, "select seq, kind, from_ns, to_ns, detail from {incidents} order by seq limit 1")
    times = START_NS + 2 * MS, START_NS + 5 * MS
    assert incident == [(2, "journal_damaged", *times, "a part of the journal is missing")]
    states = select(tmp_path, "select best_bid, best_ask from {quotes} order by seq")
    assert states == [(1.0, None), (1.0, 2.0), (1.0, None), (1.0, 2.0)]
    assert verify(tmp_path, SESSION, deep=True) == []


def test_a_block_that_an_interrupted_writer_wrote_twice_counts_once(tmp_path: Path):
    """Ctrl-C between the write and the note of it: the writer can't know, and writes it again."""
    with recording(tmp_path) as session:
        session.receive(trade(volume=1))
        path = segment_path(journal_folder(tmp_path, SESSION), 1)
        before = path.stat().st_size
        session.receive(trade(volume=2), trade(volume=3))
        with path.open("ab") as journal:
            journal.write(path.read_bytes()[before:])
        session.receive(trade(volume=4))
        assert [(row["seq"], row["volume"]) for row in snapshot(tmp_path, SESSION).tail["trades"].to_pylist()] == [
            (0, 1),
            (1, 2),
            (2, 3),
            (3, 4),
        ]
    recover(tmp_path)
    assert select(tmp_path, "select seq, volume from {trades} order by seq") == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert select(tmp_path, "select kind from {incidents} where kind != 'crashed'") == []
    assert verify(tmp_path, SESSION, deep=True) == []


def test_a_sealer_that_comes_late_finds_nothing_to_do(tmp_path: Path):
    """The recorder died, a recovery ended the session, and only now its sealer wakes up."""
    folder = journal_folder(tmp_path, SESSION)
    with recording(tmp_path) as session:
        session.receive(trade())
    program = f"from pathlib import Path; from mdcapture.lake.seal import finish; finish(Path({str(tmp_path)!r}),"
    with hold(folder / SEAL_LOCK):
        late = subprocess.Popen([sys.executable, "-c", f"{program} {SESSION!r}, 'sealed')"], stderr=subprocess.PIPE)
        while str(late.pid) not in waiters(folder / SEAL_LOCK):
            assert late.poll() is None
    assert late.communicate()[1] == b""
    assert select(tmp_path, "select seq from {trades}") == [(0,)]
    assert recover(tmp_path) == []
    assert verify(tmp_path, SESSION, deep=True) == []


def waiters(path: Path) -> list[str]:
    """The processes that wait for a lock, by the kernel's list."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [line[5] for line in lines if line[1] == "->" and line[6].endswith(f":{path.stat().st_ino}")]


def test_an_old_manifest_that_is_put_back_costs_no_file(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade(volume=1))
        session.seal()
        old = manifest_path(tmp_path, SESSION).read_bytes()
        for volume in (2, 3):
            session.receive(trade(volume=volume))
            session.seal()
        before = {path.read_bytes() for path in tmp_path.rglob("*.parquet")}
        manifest_path(tmp_path, SESSION).write_bytes(old)
        session.receive(trade(volume=4))
        session.roll()
    with pytest.raises(DamageError, match="can't be read"):
        recover(tmp_path)
    assert before <= {path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    assert (4,) in select(tmp_path, "select volume from {trades}")
    assert {problem.kind.value for problem in verify(tmp_path, SESSION)} >= {"missing_file", "foreign_file"}


def test_what_sealing_does_not_know_it_leaves_alone(tmp_path: Path):
    in_parts(tmp_path)
    folder = next(tmp_path.glob("trades/*/*"))
    known = ["part-90.parquet.tmp"]
    foreign = ["part-91.parquet", "part-my.parquet", "part-2.parquet.bak", "notes.txt"]
    for name in known + foreign:
        (folder / name).write_bytes(b"PAR1 but no more")
    remove_leftovers(tmp_path, read_manifest(tmp_path, SESSION))
    left = {path.name for path in folder.iterdir()}
    assert left >= set(foreign)
    assert not left & set(known)


def test_a_damaged_part_is_kept_and_the_session_ends_all_the_same(tmp_path: Path):
    with recording(tmp_path) as session:
        for count in (8, 3):
            session.receive(*[trade()] * count)
            session.seal()
        part = tmp_path / read_manifest(tmp_path, SESSION).files_of("trades")[0].path
        content = bytearray(part.read_bytes())
        content[40] ^= 1
        part.write_bytes(content)
    with pytest.raises(DamageError, match="is damaged"):
        recover(tmp_path)
    manifest = read_manifest(tmp_path, SESSION)
    assert manifest.state == "recovered"
    assert len(manifest.files_of("messages")) == 1
    assert len(manifest.files_of("trades")) == 2
    assert recover(tmp_path) == []
    assert {problem.where for problem in verify(tmp_path, SESSION)} >= {part.relative_to(tmp_path).as_posix()}


@pytest.mark.parametrize("size", [0, 300, 1500])
def test_a_full_disk_while_sealing_costs_nothing(tmp_path: Path, size: int):
    with recording(tmp_path) as session:
        session.receive(*(trade(volume=number) for number in range(500)))
        session.roll()
        with SmallDisk(size), pytest.raises(StorageError):
            seal(tmp_path, SESSION, 1)
        assert not list(tmp_path.rglob("*.parquet.tmp"))
        session.finish()
    assert select(tmp_path, "select count(*), sum(volume) from {trades}") == [(500, 500 * 499 // 2)]
    assert verify(tmp_path, SESSION, deep=True) == []


def test_parts_are_merged_in_the_order_of_time_where_the_clock_stepped_back(tmp_path: Path):
    steps = [5, -3, 1, 40, -60, 7, 0, 0, 3, -1, 2, 90]
    with recording(tmp_path) as session:
        for number, step in enumerate(steps):
            session.receive(*[trade(volume=number)] * 3, step_ns=step)
            if number % 3 == 2:
                session.roll()
        session.finish()
    rows = pq.ParquetFile(next(tmp_path.glob("trades/*/*/*.parquet"))).read(["recv_ns", "seq"]).to_pylist()
    keys = [(row["recv_ns"], row["seq"]) for row in rows]
    assert keys == sorted(keys)
    assert sorted(seq for _, seq in keys) == list(range(3 * len(steps)))
    assert verify(tmp_path, SESSION, deep=True) == []


def test_rows_older_than_what_a_part_has_written_are_a_part_that_is_merged(tmp_path: Path):
    """A row group of trades is written when the clock steps back behind it, in the same pass."""
    many = [trade()] * 20_000
    with recording(tmp_path) as session:
        for step_ns in (MS, MS, MS, MS, MS, MS, MS, -5 * MS, MS, MS):
            session.receive(*many, step_ns=step_ns)
        session.roll()
        seal(tmp_path, SESSION, 1)
        first, second = read_manifest(tmp_path, SESSION).files_of("trades")
        assert (first.first_seq, second.last_seq) == (0, 199_999)
        assert second.first_recv_ns < first.last_recv_ns
        session.finish()
    (file,) = tmp_path.glob("trades/*/*/*.parquet")
    keys = pq.ParquetFile(file).read(["recv_ns", "seq"])
    assert keys.sort_by([("recv_ns", "ascending"), ("seq", "ascending")]).equals(keys)
    assert sorted(keys["seq"].to_pylist()) == list(range(200_000))


@pytest.mark.long
def test_a_session_of_more_rows_than_memory_should_hold_is_sealed_in_several_passes(tmp_path: Path):
    """Texts of 1 MB of two contracts, 40 MB in a segment: no row group is full before the memory is."""
    with recording(tmp_path) as session:
        for number in range(240):
            session.receive(trade((ES, NQ)[number % 2], x="y" * 1_000_000))
            if number % 40 == 39:
                session.roll()
    (manifest,) = recover(tmp_path)
    assert manifest.next_part > len(manifest.files) + 1
    assert manifest.counts == {"messages": 240, "trades": 240, "incidents": 2}
    assert verify(tmp_path, SESSION, deep=True) == []


def test_a_session_without_messages_is_a_session(tmp_path: Path):
    with recording(tmp_path) as session:
        session.roll()
        session.note(IncidentKind.CONNECTED)
        session.roll()
        session.finish()
    manifest = read_manifest(tmp_path, SESSION)
    assert (manifest.state, manifest.counts, manifest.start_ns) == ("sealed", {"incidents": 1}, None)
    assert verify(tmp_path, SESSION, deep=True) == []


def test_only_a_session_s_own_folder_is_compacted(tmp_path: Path):
    make_folder(tmp_path)
    with pytest.raises(NotFoundError):
        compact(tmp_path, SESSION)
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_files_stays_small_while_a_session_grows(tmp_path: Path):
    with recording(tmp_path) as session:
        for _ in range(30):
            session.receive(trade())
            session.seal()
            assert len(read_manifest(tmp_path, SESSION).files_of("trades")) <= 6
        session.finish()
    assert verify(tmp_path, SESSION) == []


def test_two_sessions_of_one_second_are_two(tmp_path: Path):
    with open_session(tmp_path, START_NS) as one, open_session(tmp_path, START_NS) as other:
        assert [one.session_id, other.session_id] == [SESSION, f"{SESSION}_2"]
        assert (journal_folder(tmp_path, other.session_id) / OWNER_LOCK).exists()


def test_what_the_manifest_knows_of_the_tick_stands_in_each_file(tmp_path: Path):
    with recording(tmp_path, tick_sizes={ES: 0.25}) as session:
        session.receive(trade())
        session.finish()
    metadata = pq.read_metadata(next(tmp_path.glob("trades/*/*/*.parquet"))).metadata
    assert metadata[b"mdcapture.tick_size"] == b"0.25"
    assert metadata[b"mdcapture.session_id"] == SESSION.encode()


def test_sealing_once_more_changes_nothing(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade())
        session.seal()
        before = msgspec.json.encode(read_manifest(tmp_path, SESSION))
        seal(tmp_path, SESSION, 1)
        assert msgspec.json.encode(read_manifest(tmp_path, SESSION)) == before
        session.finish()
    with pytest.raises(OSError, match="seal"):
        finish(tmp_path, SESSION, "sealed")
