"""The table `signals`: from the journal like all else, from rows that were computed afterwards, and across crashes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl
import pytest
from crashing import SESSION
from lake_builder import ES, MS, START_NS, Recording, recording, trade
from test_seal import crash_everywhere, leftovers, select

from mdcapture.errors import BusyError, UsageError
from mdcapture.lake.schema import IncidentKind, SignalRow
from mdcapture.lake.verify import verify
from mdcapture.session import open_lake

if TYPE_CHECKING:
    from pathlib import Path

QUERY = "select seq, recv_ns, name, value, contract_id, session_id from {signals} order by seq, name"


def said(seq: int, name: str = "flow", value: float | None = None) -> SignalRow:
    return SignalRow(seq, START_NS + (seq + 1) * MS, ES, name, float(seq) if value is None else value)


def stored(*rows: SignalRow) -> list[tuple[object, ...]]:
    return sorted((row.seq, row.recv_ns, row.name, row.value, row.contract_id, SESSION) for row in rows)


def frame(*rows: SignalRow) -> pl.DataFrame:
    types = {"seq": pl.Int64, "recv_ns": pl.Int64, "contract_id": pl.String, "name": pl.String, "value": pl.Float64}
    return pl.DataFrame(rows, types, orient="row")


def of_two_segments(session: Recording) -> list[SignalRow]:
    """Messages whose signals come late, some of them into the next segment."""
    session.receive(trade(), trade(), trade(), step_ns=MS)
    early, late = (
        [said(0)._replace(recv_ns=START_NS + MS)],
        [said(seq)._replace(recv_ns=START_NS + MS) for seq in (1, 2)],
    )
    session.say(*early)
    session.roll()
    session.say(*late)
    session.receive(trade())
    last = [said(3, "lean", math.inf)._replace(recv_ns=START_NS + 2 * MS)]
    session.say(*last)
    return [*early, *late, *last]


@pytest.mark.long
def test_a_crash_at_any_step_of_sealing_loses_and_doubles_no_signal(tmp_path: Path):
    with recording(tmp_path / "template") as session:
        rows = of_two_segments(session)
    for step, root in crash_everywhere("seal", tmp_path / "template", tmp_path / "out"):
        assert select(root, QUERY) == stored(*rows), step
        assert leftovers(root) == [], step
        assert verify(root, SESSION, deep=True) == [], step


def test_a_crash_at_any_step_of_storing_leaves_the_old_rows_or_the_new(tmp_path: Path):
    with recording(tmp_path / "template") as session:
        session.receive(*[trade()] * 4)
        old, other = [said(1), said(2)], said(1, "lean")
        session.say(*old, other)
        session.finish()
    new = [said(seq, value=-float(seq)) for seq in range(4)]
    seen = []
    for step, root in crash_everywhere("store", tmp_path / "template", tmp_path / "out"):
        rows = select(root, QUERY)
        assert rows in (stored(*old, other), stored(*new, other)), step
        assert leftovers(root) == [], step
        assert verify(root, SESSION, deep=True) == [], step
        seen.append(len(rows))
    assert set(seen) == {3, 5}
    assert seen == sorted(seen)


def test_rows_of_a_running_session_are_seen_before_they_are_sealed(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade())
        session.say(said(0))
        now = open_lake(tmp_path).session()
        assert now.signals().select("seq", "name", "value").collect().rows() == [(0, "flow", 0.0)]
        assert now.sql("select name, value, symbol, received_timestamp from signals").fetchall()[0][:3] == (
            "flow",
            0.0,
            "F.US.EP",
        )
        with pytest.raises(BusyError):
            now.store_signals(frame(said(0)))


def test_storing_replaces_what_has_the_name_and_nothing_else(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(*[trade()] * 4)
        session.say(said(0), said(1), said(1, "lean"))
        session.finish()
    kept = open_lake(tmp_path).session()
    for _ in range(2):
        kept.store_signals(frame(said(2), said(1, value=math.nan)))
        assert kept.signals().sort("seq", "name").select("seq", "name").collect().rows() == [
            (1, "flow"), (1, "lean"), (2, "flow")
        ]  # fmt: skip
        assert kept.counts["signals"] == 3
    kept.store_signals(frame(), names=["flow", "lean"])
    assert kept.signals().collect().is_empty()
    assert kept.status == "sealed"
    assert verify(tmp_path, kept.session_id, deep=True) == []
    kept.store_signals(frame(said(3)))
    assert kept.signals().collect().height == 1


def test_what_has_no_contract_is_stored_without_one(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(*[trade()] * 4)
        session.say(said(0)._replace(contract_id="x" * 300))
        session.finish()
    kept = open_lake(tmp_path).session()
    assert kept.signals().select("contract_id", "seq").collect().rows() == [(None, 0)]
    kept.store_signals(frame(said(0)._replace(contract_id=""), said(1)))
    assert kept.signals().select("contract_id", "seq").sort("seq").collect().rows() == [(None, 0), (ES, 1)]
    assert verify(tmp_path, kept.session_id, deep=True) == []


@pytest.mark.parametrize(
    ("row", "names", "says"),
    [
        (said(4), None, "message 4, and session_20231225_230000 has 4"),
        (said(-1), None, "message -1"),
        (said(1), ["lean"], "rows of \\['flow'\\]"),
    ],
)
def test_rows_that_can_not_be_of_the_session_are_refused(
    tmp_path: Path, row: SignalRow, names: list[str] | None, says: str
):
    with recording(tmp_path) as session:
        session.receive(*[trade()] * 4)
        session.finish()
    kept = open_lake(tmp_path).session()
    with pytest.raises(UsageError, match=says):
        kept.store_signals(frame(row), names)
    assert kept.signals().collect().is_empty()
    assert verify(tmp_path, kept.session_id) == []


def test_a_damaged_block_of_signals_takes_nothing_else_with_it(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade())
        session.say(said(0, "spoilt"))
        session.say(said(0))
        session.receive(trade())
        segment = next((tmp_path / "journal").rglob("*.journal"))
        segment.write_bytes(segment.read_bytes().replace(b"spoilt", b"sPoilt"))
        session.finish()
    kept = open_lake(tmp_path).session()
    assert kept.signals().select("name").collect().rows() == [("flow",)]
    assert kept.counts["messages"] == 2
    damage = kept.incidents().filter(pl.col("kind") == IncidentKind.JOURNAL_DAMAGED.value).collect()
    assert damage.select("from_ns", "to_ns").rows() == [(START_NS + MS, START_NS + 2 * MS)]
