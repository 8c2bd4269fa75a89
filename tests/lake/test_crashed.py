"""A session whose writer died says since when each stream can be missing messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from lake_builder import ES, MS, START_NS, quote, recording, trade

import mdcapture as md
from mdcapture.lake.backup import back_up
from mdcapture.lake.manifest import Contract, read_manifest
from mdcapture.lake.schema import NO_END_NS, IncidentKind
from mdcapture.lake.seal import recover
from mdcapture.lake.verify import verify
from mdcapture.lake.writer import open_session

if TYPE_CHECKING:
    from pathlib import Path

NQ = "CON.F.US.ENQ.H24"
S = 1000 * MS


def gaps(root: Path) -> list[tuple[str, str, int, int]]:
    rows = md.open_lake(root).session().gaps().select("contract_id", "stream", "from_ns", "to_ns").collect()
    return sorted(row for row in rows.rows() if row[3] == NO_END_NS)


def crashes(root: Path) -> int:
    """Incidents of the kind, by the lake and by the manifest."""
    session = md.open_lake(root).session()
    stored = session.incidents().filter(pl.col("kind") == IncidentKind.CRASHED).select(pl.len()).collect().item()
    assert session.manifest.incidents.get(IncidentKind.CRASHED, 0) == stored
    return int(stored)


def test_each_stream_can_miss_what_came_after_its_last_message(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(quote(bestBid=1.0, bestAsk=2.0))
        session.seal()
        session.receive(trade(), trade(NQ))
        session.note(IncidentKind.DISCONNECTED)
        session.receive(quote(NQ, bestBid=1.0))
    recover(tmp_path)
    assert gaps(tmp_path) == [
        (NQ, "quotes", START_NS + 3 * MS, NO_END_NS),
        (NQ, "trades", START_NS + 2 * MS, NO_END_NS),
        (ES, "quotes", START_NS + MS, NO_END_NS),
        (ES, "trades", START_NS + 2 * MS, NO_END_NS),
    ]
    assert verify(tmp_path, session.session_id, deep=True) == []


def test_a_stream_that_was_never_heard_can_miss_all_since_the_beginning(tmp_path: Path):
    config = {"quotes": False, "trades": True, "depth": True}
    with open_session(tmp_path, START_NS, config=config, contracts=[Contract(contract_id=ES)]) as session:
        session.journal.append(START_NS + S, 1, [trade()])
        session.journal.flush()
    recover(tmp_path)
    assert gaps(tmp_path) == [(ES, "depth", START_NS, NO_END_NS), (ES, "trades", START_NS + S, NO_END_NS)]


def test_clean_rows_are_all_rows_of_a_crashed_session_and_states_end_with_them(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(quote(bestBid=1.0, bestAsk=2.0))
        for _ in range(5):
            session.receive(trade())
    recover(tmp_path)
    recovered = md.open_lake(tmp_path).session()
    assert len(recovered.trades(clean=True).collect()) == 5
    assert len(recovered.trades(clean=("trades", "quotes")).collect()) == 0


def test_what_ended_on_purpose_is_no_crash_whoever_seals_it(tmp_path: Path):
    """As at a trading day's end: the next session is written when the process dies that seals this one."""
    with open_session(tmp_path, START_NS) as session:
        session.journal.append(START_NS + S, 1, [trade()])
        session.journal.end()
    back_up(tmp_path, tmp_path.parent / "copy")
    for root in (tmp_path, tmp_path.parent / "copy"):
        recover(root)
        assert read_manifest(root, session.session_id).state == "recovered"
        assert crashes(root) == 0
        assert verify(root, session.session_id, deep=True) == []


def test_a_backup_of_a_session_that_is_recorded_ends_where_it_was_made(tmp_path: Path):
    copy = tmp_path / "copy"
    with recording(tmp_path / "lake") as session:
        session.receive(trade())
        back_up(tmp_path / "lake", copy)
        session.receive(trade())
        session.finish()
    recover(copy)
    assert gaps(copy) == [(ES, "trades", START_NS + MS, NO_END_NS)]
    assert crashes(tmp_path / "lake") == 0


def test_a_session_that_ended_by_itself_says_nothing_of_the_kind(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade())
        session.finish()
    assert crashes(tmp_path) == 0


def test_recovering_again_says_it_once(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade())
    assert [one.state for one in recover(tmp_path)] == ["recovered"]
    assert recover(tmp_path) == []
    assert crashes(tmp_path) == 1


@pytest.mark.parametrize("taken", [[], [trade()]])
def test_only_a_session_that_took_something_is_left_by_an_error(tmp_path: Path, taken: list[bytes]):
    def fail() -> None:
        with open_session(tmp_path, START_NS) as session:
            session.journal.append(START_NS + S, 1, taken)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [one.counts["messages"] for one in recover(tmp_path)] == [len(taken)] * len(taken)
    assert len(md.open_lake(tmp_path).sessions()) == len(taken)
