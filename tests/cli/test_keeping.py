"""Looking after a lake: proofs, copies, removal; none of them ever costs a row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from lake_builder import ES, START_NS, record, recording, trade
from programs import LIMIT_S, called, simulator, start
from tapes import CONTRACT, records, write_tape

import mdcapture as md
from mdcapture.errors import BusyError
from mdcapture.lake.backup import back_up
from mdcapture.lake.manifest import session_ids
from mdcapture.lake.prune import prunable, prune
from mdcapture.lake.verify import verify

if TYPE_CHECKING:
    from subprocess import CompletedProcess

DAY_NS = 86_400 * 10**9
DYING = Path(__file__).with_name("dying.py")


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Three sessions, a day apart, of one, two and three trades."""
    root = tmp_path / "lake"
    for day in range(3):
        record(root, *(trade(volume=number) for number in range(day + 1)), start_ns=START_NS + day * DAY_NS)
    return root


def run(root: Path, *arguments: str, code: int = 0) -> CompletedProcess[str]:
    result = called(*arguments, "--lake", str(root))
    assert result.returncode == code, result.stdout + result.stderr
    return result


def flip_a_bit(root: Path, session_id: str) -> Path:
    path = next(root.glob(f"trades/session_id={session_id}/*/*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def trades(root: Path) -> pl.DataFrame:
    return md.open_lake(root).trades().collect().sort("session_id", "seq", "pos")


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def assert_well(root: Path) -> None:
    assert {one: verify(root, one, deep=True) for one in session_ids(root)} == {one: [] for one in session_ids(root)}


def test_a_sound_lake_is_proven(lake: Path):
    proof = json.loads(run(lake, "verify", "--deep", "--json").stdout)
    assert proof["ok"] is True
    assert [session["session_id"] for session in proof["sessions"]] == session_ids(lake)
    assert all(
        (session["ok"], session["problems"], session["status"], session["waiting"]) == (True, [], "sealed", 0)
        for session in proof["sessions"]
    )


def test_a_flipped_bit_is_found_and_the_exit_code_says_so(lake: Path):
    broken = session_ids(lake)[1]
    path = flip_a_bit(lake, broken).relative_to(lake).as_posix()
    proof = json.loads(run(lake, "verify", "--json", code=1).stdout)
    assert [session["ok"] for session in proof["sessions"]] == [True, False, True]
    assert path in {problem["where"] for problem in proof["sessions"][1]["problems"]}
    assert path in run(lake, "verify", broken, code=1).stdout
    run(lake, "verify", "latest")


def test_a_backup_is_a_lake_of_the_same_rows(lake: Path, tmp_path: Path):
    done = json.loads(run(lake, "backup", str(tmp_path / "copy"), "--json").stdout)
    assert done["sessions"] == 3
    assert files(tmp_path / "copy") - {"backup.lock"} == files(lake)
    assert trades(tmp_path / "copy").equals(trades(lake))
    assert_well(tmp_path / "copy")


def test_a_backup_copies_only_what_is_not_there(lake: Path, tmp_path: Path):
    run(lake, "backup", str(tmp_path / "copy"))
    again = json.loads(run(lake, "backup", str(tmp_path / "copy"), "--json").stdout)
    assert (again["files"], again["bytes"]) == (0, 0)
    record(lake, trade(), start_ns=START_NS + 9 * DAY_NS)
    more = json.loads(run(lake, "backup", str(tmp_path / "copy"), "--json").stdout)
    assert more["files"] == 2  # its messages and its trades
    assert_well(tmp_path / "copy")


def test_a_damaged_copy_is_mended_where_it_is_to_be_read(lake: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    run(lake, "backup", str(copy))
    flip_a_bit(copy, session_ids(lake)[1])
    run(copy, "verify", "all", code=1)
    assert json.loads(run(lake, "backup", str(copy), "--check", "--json").stdout)["files"] == 1
    run(copy, "verify", "all")


def test_a_backup_of_a_session_that_is_recorded_holds_all_that_was_written(lake: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    with recording(lake, START_NS + 5 * DAY_NS) as session:
        for number in range(3):
            session.receive(trade(volume=number))
            session.seal()
            session.receive(trade(volume=100 + number))
            back_up(lake, copy)
            assert_well(copy)
        back_up(copy, tmp_path / "recovered")
        session.finish()
    run(tmp_path / "recovered", "recover")
    assert_well(tmp_path / "recovered")
    assert trades(tmp_path / "recovered").drop("recv_ns").equals(trades(lake).drop("recv_ns"))
    back_up(lake, copy)
    assert files(copy) - {"backup.lock"} == files(lake)
    assert_well(copy)


def test_a_session_that_has_just_begun_can_be_copied_and_recovered(tmp_path: Path):
    lake, copy = tmp_path / "lake", tmp_path / "copy"
    with recording(lake) as session:
        for segment in lake.glob("journal/*/*.journal"):
            segment.unlink()  # as if it were not there yet
        back_up(lake, copy)
    assert_well(copy)
    run(copy, "recover")
    assert [one.status for one in md.open_lake(copy).sessions()] == ["recovered"]
    assert session_ids(copy) == [session.session_id]


def test_backups_beside_a_recorder_are_sound_at_any_moment(tmp_path: Path):
    lake, copy = tmp_path / "lake", tmp_path / "copy"
    tape = write_tape(tmp_path / "market.ndjson", records(8000))
    with simulator("--tape", str(tape), "--speed", "2") as gateway:
        options = ("--gateway", gateway["api"], "--contract", CONTRACT, "--lake", str(lake), "--count", "8000")
        process = start("capture", *options, "--set", "segment_s=0.2", "--stats", "none")
        backups = 0
        try:
            while process.poll() is None:
                if lake.is_dir():
                    assert back_up(lake, copy).problems == []
                    assert_well(copy)
                    backups += 1
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    assert backups > 1
    back_up(lake, copy)
    assert trades(copy).equals(trades(lake))


def test_damage_in_the_lake_does_not_reach_the_copy(lake: Path, tmp_path: Path):
    back_up(lake, tmp_path / "before")
    before = trades(lake)
    broken, *others = session_ids(lake)
    flip_a_bit(lake, broken)
    run(lake, "backup", str(tmp_path / "before"))
    assert trades(tmp_path / "before").equals(before)
    assert broken in run(lake, "backup", str(tmp_path / "after"), code=1).stdout
    assert session_ids(tmp_path / "after") == others
    assert trades(tmp_path / "after").equals(before.filter(pl.col("session_id") != broken))


def test_a_copy_that_knows_more_than_the_lake_is_left_alone(tmp_path: Path):
    lake, copy = tmp_path / "lake", tmp_path / "copy"
    record(copy, trade(), trade())
    record(lake, trade())
    before = trades(copy)
    assert back_up(lake, copy).problems != []
    assert trades(copy).equals(before)


@pytest.mark.parametrize("inside", [".", "copy", ".."])
def test_a_backup_within_the_lake_is_refused(lake: Path, inside: str):
    assert "within" in run(lake, "backup", str(lake / inside), code=2).stderr


def dying(work: str, lake: Path, out: Path) -> int:
    """Let the work die at each of its steps; how many there were."""
    done = subprocess.run(
        [sys.executable, str(DYING), work, str(lake), str(out)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.stdout.strip().isdigit(), done.stderr
    return int(done.stdout) - 1


def test_a_backup_that_dies_leaves_nothing_half_and_goes_on(lake: Path, tmp_path: Path):
    steps = dying("backup", lake, tmp_path / "out")
    assert steps > 10
    for step in range(1, steps + 1):
        copy = tmp_path / "out" / str(step) / "copy"
        for session_id in session_ids(copy):
            assert verify(copy, session_id, deep=True) == []
        back_up(lake, copy)
        assert files(copy) - {"backup.lock"} == files(lake)


def test_a_removal_that_dies_leaves_a_session_or_none_and_the_next_one_goes_on(lake: Path, tmp_path: Path):
    first, second, third = session_ids(lake)
    steps = dying("prune", lake, tmp_path / "out")
    assert steps > 5
    for step in range(1, steps + 1):
        left = tmp_path / "out" / str(step) / "lake"
        assert session_ids(left) in ([first, second, third], [second, third])
        assert_well(left)
        if first in session_ids(left):
            prune(left, first)
        prune(left, second)
        assert {name for name in files(left) if first in name or second in name} == set()
        assert_well(left)


def removed(result: CompletedProcess[str]) -> list[str]:
    return [session["session_id"] for session in json.loads(result.stdout)["sessions"]]


def test_old_sessions_are_removed_and_the_newest_kept(lake: Path):
    first, second, third = session_ids(lake)
    options: dict[tuple[str, ...], list[str]] = {
        ("--keep", "1"): [first, second],
        ("--keep", "0", "--older-than", "1s"): [first, second, third],
        ("--older-than", "36500d"): [],
        (second,): [second],
        (second, "--keep", "2"): [],
    }
    for chosen, expected in options.items():
        assert removed(run(lake, "prune", *chosen, "--dry-run", "--json")) == expected
    assert session_ids(lake) == [first, second, third]
    assert removed(run(lake, "prune", "--keep", "1", "--yes", "--json")) == [first, second]
    assert session_ids(lake) == [third]
    assert all(third in name for name in files(lake))
    assert_well(lake)


def test_only_what_a_backup_has_is_removed_where_that_is_asked_for(lake: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    first, second, third = session_ids(lake)
    back_up(lake, copy)
    flip_a_bit(copy, second)
    prune(copy, third)
    result = run(lake, "prune", "--keep", "0", "--backed-up", str(copy), "--yes", "--json")
    assert removed(result) == [first]
    assert session_ids(lake) == [second, third]


def test_a_session_that_is_recorded_is_never_removed(lake: Path):
    with recording(lake, START_NS + 5 * DAY_NS) as session:
        session.receive(trade())
        session.seal()
        assert session.session_id not in {one.session_id for one in prunable(lake, keep=0)}
        assert session.session_id in run(lake, "prune", session.session_id, "--yes", code=6).stderr
        with pytest.raises(BusyError):
            prune(lake, session.session_id)
        session.finish()
    assert trades(lake).height == 1 + 2 + 3 + 1


def test_nothing_is_removed_unless_somebody_says_what_and_agrees(lake: Path):
    before = files(lake)
    assert "--keep" in run(lake, "prune", "--yes", code=2).stderr
    assert "--yes" in run(lake, "prune", "--keep", "0", code=2).stderr
    run(lake, "prune", "session_19700101_000000", "--yes", code=3)
    assert files(lake) == before


def test_compacting_what_is_compact_changes_no_row(lake: Path):
    before: Any = trades(lake)
    run(lake, "compact", "latest")
    assert trades(lake).equals(before)
    assert before["contract_id"].unique().to_list() == [ES]


def test_recovering_a_lake_that_needs_it_not_says_so(lake: Path):
    assert "nothing to recover" in run(lake, "recover").stderr
