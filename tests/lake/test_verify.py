"""What is wrong with a session is found, by what kind of wrong it is; what is right is proven."""

from __future__ import annotations

import shutil
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from crashing import SESSION
from lake_builder import ES, MS, START_NS, depth, forge, no_text, quote, recording, trade

from mdcapture.errors import NotFoundError
from mdcapture.lake.files import make_folder
from mdcapture.lake.layout import journal_folder, manifest_path, segment_path
from mdcapture.lake.manifest import Contract, read_manifest, write_manifest
from mdcapture.lake.schema import IncidentKind
from mdcapture.lake.seal import recover
from mdcapture.lake.verify import Problem, ProblemKind, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OTHER = "CON.F.US.MNQ.H24"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session with everything in it: several contracts, resets, rejects, a clock that steps back, no UTF-8."""
    root = tmp_path_factory.mktemp("good")
    with recording(root, tick_sizes={ES: 0.25}) as session:
        for number in range(60):
            session.receive(
                quote(ES, bestBid=4800 + number / 4),
                quote(OTHER, bestAsk=17_000.0 + number / 7, volume=number),
                trade(ES, volume=number),
                depth(OTHER, {"type": 6}, None, {"type": 1}, {"type": "x"}),
                b"\xff not text \n" if number % 2 else '{"é":1}'.encode(),
                b'{"type":1,"target":"gatewaytrade","arguments":["",{"price":"1e1","volume":2.0}]}',
                b'{"type":1,"target":"GatewayLogout","arguments":[]}',
                step_ns=MS if number % 20 else -5 * MS,
            )
            if number % 25 == 24:
                session.note(IncidentKind.SUBSCRIBING, "quotes", OTHER)
                session.seal()
        session.note(IncidentKind.SUBSCRIBING)
        session.finish()
    return root


@pytest.fixture
def lake(good: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    shutil.copytree(good, tmp_path / "lake")
    return tmp_path / "lake"


def part(lake: Path, table: str, contract_id: str | None = ES) -> Path:
    (file,) = (one for one in read_manifest(lake, SESSION).files_of(table) if one.contract_id == contract_id)
    return lake / file.path


def kinds(problems: list[Problem]) -> set[str]:
    return {problem.kind.value for problem in problems}


def replaced(name: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        field = table.schema.field(name)
        return table.set_column(table.column_names.index(name), field, pa.array(values, field.type))

    return change


def without(row: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.take([at for at in range(len(table)) if at != row])


def test_a_good_session_has_no_problems(good: Path):
    assert verify(good, SESSION) == []
    assert verify(good, SESSION, deep=True) == []


def test_a_session_that_is_recorded_has_no_problems(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade())
        session.seal()
        session.receive(trade())
        assert verify(tmp_path, SESSION, deep=True) == []
        session.receive(trade())
        session.finish()
    assert verify(tmp_path, SESSION, deep=True) == []


def test_there_is_no_such_session(tmp_path: Path):
    make_folder(tmp_path)
    with pytest.raises(NotFoundError):
        verify(tmp_path, SESSION)


def test_a_flipped_bit_anywhere_is_found(lake: Path):
    path = part(lake, "trades")
    content = path.read_bytes()
    for bit in np.random.default_rng(1).integers(0, 8 * len(content), 60):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        problems = verify(lake, SESSION)
        assert (ProblemKind.CHECKSUM, path.relative_to(lake).as_posix()) in {(one.kind, one.where) for one in problems}


def test_a_missing_file_is_found_and_what_it_held(lake: Path):
    part(lake, "messages", OTHER).unlink()
    problems = verify(lake, SESSION)
    assert kinds(problems) == {"missing_file", "messages", "entries"}
    assert "120 rows" in " ".join(map(str, problems))


def test_a_file_cut_short_is_found(lake: Path):
    path = part(lake, "quotes")
    path.write_bytes(path.read_bytes()[:-100])
    assert {"checksum", "unreadable"} <= kinds(verify(lake, SESSION))


def test_a_foreign_file_is_found(lake: Path):
    shutil.copy(part(lake, "trades"), part(lake, "trades").with_name("part-99.parquet"))
    (lake / "depth" / f"session_id={SESSION}" / "notes.txt").touch()
    problems = verify(lake, SESSION)
    assert kinds(problems) == {"foreign_file"}
    assert len(problems) == 2


def test_a_file_that_the_manifest_has_elsewhere_is_not_looked_for_there(lake: Path):
    manifest = read_manifest(lake, SESSION)
    file = manifest.files[0]
    fields = {name: getattr(file, name) for name in file.__struct_fields__}
    manifest.files[0] = type(file)(**{**fields, "path": "../../etc/passwd"})
    write_manifest(lake, manifest)
    assert "no place of a sealed file" in " ".join(map(str, verify(lake, SESSION)))


def test_a_damaged_manifest_is_a_problem(lake: Path):
    manifest_path(lake, SESSION).write_bytes(b"{")
    assert kinds(verify(lake, SESSION)) == {"manifest"}


@pytest.mark.parametrize(
    ("table", "contract_id", "change", "found"),
    [
        ("messages", ES, without(7), "messages that are missing, and no incident says so: 1"),
        ("messages", ES, lambda rows: rows.take([0, *range(len(rows))]), "stored twice: 1"),
        ("trades", ES, lambda rows: rows.take([0, 0, *range(1, len(rows))]), "stored twice: 1"),
        ("depth", OTHER, without(3), "missing, or stored twice"),
        ("rejects", OTHER, without(0), "missing, or stored twice"),
        ("trades", ES, replaced("recv_ns", 5, START_NS + 9 * MS), "another receive time"),
        ("trades", ES, replaced("seq", 59, 1_000_000), "without their message: 1"),
        ("trades", ES, replaced("seq", 59, 407), "another contract"),
        ("trades", ES, lambda rows: rows.drop_columns("side"), "columns are not those of trades"),
        ("quotes", ES, lambda rows: rows.take(list(range(59, -1, -1))), "not sorted"),
        ("messages", ES, no_text, "Invalid UTF8"),
    ],
)
def test_what_does_not_add_up_is_found(
    lake: Path, table: str, contract_id: str, change: Callable[[pa.Table], pa.Table], found: str
):
    forge(lake, part(lake, table, contract_id), change)
    assert found in " ".join(map(str, verify(lake, SESSION)))


@pytest.mark.parametrize(
    ("table", "contract_id", "change"),
    [
        ("trades", ES, replaced("price", 5, 4800.250000001)),
        ("trades", ES, without(5)),
        ("quotes", OTHER, replaced("best_ask", 30, None)),
        ("quotes", OTHER, replaced("changed", 30, 0)),
        ("depth", OTHER, replaced("exch_ns", 3, 0)),
        ("rejects", None, replaced("reason", 3, "bad_entry")),
        ("messages", ES, replaced("payload", 3, trade(ES, price=1.0).decode())),
    ],
)
def test_a_row_that_the_text_does_not_give_is_found_by_decoding_again(
    lake: Path, table: str, contract_id: str | None, change: Callable[[pa.Table], pa.Table]
):
    forge(lake, part(lake, table, contract_id), change)
    assert kinds(verify(lake, SESSION)) == set()
    assert kinds(verify(lake, SESSION, deep=True)) == {"decoded"}


def test_what_the_manifest_counts_is_checked(lake: Path):
    manifest = read_manifest(lake, SESSION)
    manifest.counts["trades"] += 1
    manifest.incidents["stopped"] = 3
    manifest.start_ns = 0
    manifest.next_seq += 1
    write_manifest(lake, manifest)
    assert kinds(verify(lake, SESSION)) == {"counts", "messages"}


def test_what_the_manifest_says_of_quotes_is_checked_by_decoding_again(lake: Path):
    manifest = read_manifest(lake, SESSION)
    manifest.contracts = [Contract(contract_id=ES, tick_size=7.0)]
    write_manifest(lake, manifest)
    assert kinds(verify(lake, SESSION, deep=True)) == {"decoded"}


def test_a_journal_that_is_damaged_is_a_hole_with_an_incident(tmp_path: Path):
    with recording(tmp_path) as session:
        for number in range(9):
            session.receive(quote(bestBid=float(number)), trade())
    path = segment_path(journal_folder(tmp_path, SESSION), 1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert kinds(verify(tmp_path, SESSION)) == {"journal"}
    recover(tmp_path)
    assert verify(tmp_path, SESSION, deep=True) == []
    assert read_manifest(tmp_path, SESSION).counts["messages"] == 16


def test_a_journal_that_is_gone_or_left_is_a_problem(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade())
    manifest = read_manifest(tmp_path, SESSION)
    manifest.state = "sealed"
    write_manifest(tmp_path, manifest)
    assert kinds(verify(tmp_path, SESSION)) == {"journal"}
    manifest.state = "open"
    write_manifest(tmp_path, manifest)
    shutil.rmtree(journal_folder(tmp_path, SESSION))
    assert kinds(verify(tmp_path, SESSION)) == {"journal"}


@pytest.mark.long
def test_memory_does_not_grow_with_the_session(tmp_path: Path):
    peaks = []
    for messages in (300_000, 600_000):
        root = tmp_path / str(messages)
        with recording(root) as session:
            for _ in range(0, messages, 10_000):
                session.receive(*[trade()] * 10_000)
            session.finish()
        tracemalloc.start()
        assert verify(root, SESSION) == []
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]
