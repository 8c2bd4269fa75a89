"""A reader sees every row once, whatever of the session is in files, in the journal, or on its way between them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lake_builder
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lake_builder import ES, MS, Recording, depth, quote, record, recording, trade

import mdcapture as md
from mdcapture.errors import DamageError, NotFoundError
from mdcapture.lake.catalog import Catalog, Snapshot, contracts_table, reread, sessions_table, snapshot
from mdcapture.lake.columns import Decoder, arrow_schema
from mdcapture.lake.journal import read_blocks
from mdcapture.lake.layout import journal_folder, segment_path
from mdcapture.lake.manifest import read_manifests, session_ids
from mdcapture.lake.prune import prune
from mdcapture.lake.schema import ORDER, TABLES, IncidentKind
from mdcapture.lake.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

OTHER = "CON.F.US.MNQ.H24"


def rows_of(root: Path, session: Snapshot) -> dict[str, list[dict[str, Any]]]:
    """All rows of a snapshot, from its files and its tail, in one order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for table in TABLES:
        rows = session.tail[table].to_pylist()
        for file in session.manifest.files_of(table):
            part = pq.ParquetFile(root / file.path).read()
            rows += [{"contract_id": file.contract_id, **row} for row in part.to_pylist()]
        found[table] = in_order(rows)
    return found


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: [repr(row["contract_id"]), *(row.get(name) or 0 for name in ORDER), repr(row)])


def decoded(journal: bytes) -> dict[str, list[dict[str, Any]]]:
    """The rows of a whole journal, decoded in one go."""
    decoder = Decoder({}, {})
    decoder.take(read_blocks(journal))
    return {table: in_order(rows.to_pylist()) for table, rows in decoder.tables().items()}


records = st.sampled_from(
    [
        quote(bestBid=4800.0, bestAsk=4800.25),
        quote(bestAsk=4800.5),
        quote(OTHER, lastPrice=17_000.25, volume=7),
        trade(),
        depth(ES, {"type": 6}, None, {"type": 1, "volume": 3}),
        b'{"type":1,"target":"GatewayTrade","arguments":["' + ES.encode() + b'",[{"price":"x"}]]}',
        b"garbage",
    ]
)
steps = st.lists(
    st.one_of(
        st.lists(records, min_size=1, max_size=4),
        st.sampled_from(["roll", "seal", "look", "subscribing", "subscribing the other", "clock back"]),
    ),
    max_size=14,
)


def take_step(session: Recording, step: list[bytes] | str) -> None:
    if isinstance(step, list):
        session.receive(*step)
    elif step == "roll":
        session.roll()
    elif step == "seal":
        session.seal()
    elif step == "subscribing":
        session.note(IncidentKind.SUBSCRIBING)
    elif step == "subscribing the other":
        session.note(IncidentKind.SUBSCRIBING, "quotes", OTHER)
    elif step == "clock back":
        session.now_ns -= 5 * MS


@given(steps)
@example([[trade()], "subscribing"])  # a reset where there is no quote
@example([[quote(bestBid=1.0)], "seal", "subscribing", "seal", [quote(bestAsk=2.0)]])  # a segment of a reset alone
@settings(max_examples=40, deadline=None)
def test_rows_are_the_same_wherever_they_are(script: list[list[bytes] | str]):
    """Against one decoder over one journal that was never rolled nor sealed."""
    with tempfile.TemporaryDirectory() as folder:
        plain, root = Path(folder, "plain"), Path(folder, "lake")
        with recording(plain) as session:
            for step in script:
                if step not in ("roll", "seal", "look"):
                    take_step(session, step)
        expected = decoded(segment_path(journal_folder(plain, session.session_id), 1).read_bytes())
        catalog = Catalog(root)
        with recording(root) as session:
            for step in script:
                take_step(session, step)
                if step == "look":
                    catalog.snapshot(session.session_id)
            now = catalog.snapshot(session.session_id)
            assert rows_of(root, now) == expected
            assert now.counts == {table: len(rows) for table, rows in expected.items()}
            assert rows_of(root, snapshot(root, session.session_id)) == expected
            session.finish()
        after = catalog.snapshot(session.session_id)
        assert rows_of(root, after) == expected
        assert not any(len(rows) for rows in after.tail.values())


def test_a_flushed_message_is_there_at_once(tmp_path: Path):
    catalog = Catalog(tmp_path)
    with recording(tmp_path) as session:
        assert catalog.snapshot(session.session_id).counts["trades"] == 0
        for number in range(1, 4):
            session.receive(trade())
            assert catalog.snapshot(session.session_id).counts["trades"] == number


class Pruning(Catalog):
    """A lake of which a session is pruned as soon as the sessions were listed once."""

    def session_ids(self) -> list[str]:
        ids = super().session_ids()
        if len(ids) == 4:
            prune(self.root, ids[0])
        return ids


@pytest.mark.parametrize(
    "ask",
    [
        lambda lake: lake.sql("from trades").pl(),
        lambda lake: lake.trades().collect(),
        lambda lake: lake.trades(ES).collect(),
        lambda lake: lake.trades(clean=True).collect(),
        lambda lake: lake.sql("from sessions").pl(),
        lambda lake: lake.sqlite().execute("select * from trades").fetchall(),
    ],
)
def test_a_session_that_is_pruned_when_it_was_listed_is_left_out(tmp_path: Path, ask: Callable[[md.Lake], Sized]):
    for second in range(4):
        record(tmp_path, trade(), start_ns=lake_builder.START_NS + second * 1000 * MS)
    found = ask(md.Lake(Pruning(tmp_path)))
    assert len(found) == len(session_ids(tmp_path)) == 3


def test_manifests_go_on_behind_a_session_that_was_pruned(tmp_path: Path):
    ids = [record(tmp_path, start_ns=lake_builder.START_NS + second * 1000 * MS) for second in range(3)]
    manifests = read_manifests(tmp_path)
    assert next(manifests).session_id == ids[0]
    prune(tmp_path, ids[1])
    assert [one.session_id for one in manifests] == ids[2:]


def test_a_session_that_was_asked_for_by_name_is_missed(tmp_path: Path):
    session_id = record(tmp_path, trade())
    session = md.open_lake(tmp_path).session(session_id)
    prune(tmp_path, session.session_id)
    for ask in (session.trades, session.gaps, lambda: session.sql("from trades"), session.snapshot):
        with pytest.raises(NotFoundError, match="no session"):
            ask()


def test_halves_of_a_character_are_text_to_every_reader(tmp_path: Path):
    """Of a record that 0x1e has cut in two neither half is UTF-8, though both together are."""
    texts = ['{"name":"\u00c3', '\u00a9"}']

    def check() -> None:
        session = md.open_lake(tmp_path).session()
        assert session.messages().collect()["payload"].to_list() == texts
        assert session.sql("select payload from messages order by seq").fetchall() == [(one,) for one in texts]
        assert session.sql("select reason, payload from rejects order by seq").fetchall() == [
            ("not_utf8", one) for one in texts
        ]

    with recording(tmp_path) as session:
        session.receive(*(one.encode("latin-1") for one in texts))
        check()
        session.finish()
    check()
    assert verify(tmp_path, session.session_id, deep=True) == []


def test_a_torn_end_is_not_there_yet(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade())
        session.receive(trade(), quote())
    path = segment_path(journal_folder(tmp_path, session.session_id), 1)
    whole = path.read_bytes()
    catalog = Catalog(tmp_path)
    path.write_bytes(whole[:-1])
    torn = catalog.snapshot(session.session_id)
    assert (torn.counts["messages"], torn.counts["incidents"]) == (1, 0)
    path.write_bytes(whole)
    assert catalog.snapshot(session.session_id).counts["messages"] == 3


def test_damage_in_the_middle_is_an_incident_as_it_will_be_when_sealed(tmp_path: Path):
    with recording(tmp_path) as session:
        for _ in range(3):
            session.receive(trade())
        path = segment_path(journal_folder(tmp_path, session.session_id), 1)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        before = rows_of(tmp_path, snapshot(tmp_path, session.session_id))
        assert [row["kind"] for row in before["incidents"]] == [IncidentKind.JOURNAL_DAMAGED]
        session.finish()
    assert rows_of(tmp_path, snapshot(tmp_path, session.session_id)) == before


def test_another_process_captures_seals_and_merges_while_we_read(tmp_path: Path):
    bursts, burst = 25, 8
    arguments = [sys.executable, lake_builder.__file__, str(tmp_path), str(bursts), str(burst)]
    catalog = Catalog(tmp_path)
    counts = [0]
    with subprocess.Popen(arguments) as writer:
        while not catalog.session_ids():
            assert writer.poll() is None
        (session_id,) = catalog.session_ids()
        while counts[-1] < bursts * burst or catalog.manifest(session_id).state == "open":
            trades = reread(lambda: rows_of(tmp_path, catalog.snapshot(session_id)))["trades"]
            assert [row["volume"] for row in trades] == list(range(len(trades)))
            assert [row["seq"] for row in trades] == list(range(len(trades)))
            assert len(trades) >= counts[-1]
            counts.append(len(trades))
    assert writer.returncode == 0
    assert len(set(counts)) > 2


def test_the_tail_has_the_declared_columns_even_if_it_is_empty(tmp_path: Path):
    finished = snapshot(tmp_path, record(tmp_path, trade()))
    with recording(tmp_path) as session:
        session.receive(trade(), quote())
        running = snapshot(tmp_path, session.session_id)
    for table in TABLES:
        assert finished.tail[table].schema == running.tail[table].schema == arrow_schema(table, contract=True)


def test_first_and_last_times_and_contracts_come_from_files_and_journal(tmp_path: Path):
    with recording(tmp_path, tick_sizes={ES: 0.25}) as session:
        empty = snapshot(tmp_path, session.session_id)
        assert (empty.start_ns, empty.end_ns) == (None, None)
        session.receive(trade())
        first = session.now_ns
        session.seal()
        session.receive(trade(OTHER))
        now = snapshot(tmp_path, session.session_id)
        assert (now.start_ns, now.end_ns) == (first, first + MS)
        assert [(one.contract_id, one.tick_size) for one in now.contracts] == [(ES, 0.25), (OTHER, None)]


def test_order_is_known(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade())
        session.seal()
        session.receive(trade(OTHER))
        assert snapshot(tmp_path, session.session_id).in_order("trades")
        session.receive(trade(), step_ns=-5 * MS)
        assert not snapshot(tmp_path, session.session_id).in_order("trades")
        session.roll()
        session.receive(trade(), step_ns=-5 * MS)
        session.finish()
    assert snapshot(tmp_path, session.session_id).in_order("trades")


def test_sessions_and_contracts_as_tables(tmp_path: Path):
    finished = record(tmp_path, trade(), quote(), b"garbage")
    with recording(tmp_path, start_ns=lake_builder.START_NS + 10**9, tick_sizes={ES: 0.25}) as session:
        catalog = Catalog(tmp_path)
        both = [catalog.snapshot(one) for one in catalog.session_ids()]
    sessions = sessions_table(both).to_pylist()
    assert [(row["session_id"], row["status"]) for row in sessions] == [
        (finished, "sealed"),
        (session.session_id, "open"),
    ]
    assert [sessions[0][name] for name in ("messages", "trades", "quotes", "depth", "rejects")] == [3, 1, 1, 0, 1]
    assert sessions[0]["start_time"].isoformat() == "2023-12-25T23:00:00.107846+00:00"
    assert sessions[1]["start_time"] is None
    assert [(row["session_id"], row["tick_size"]) for row in contracts_table(both).to_pylist()] == [
        (finished, None),
        (session.session_id, 0.25),
    ]
    assert len(sessions_table([])) == len(contracts_table([])) == 0


def test_an_unknown_session_is_not_found(tmp_path: Path):
    with pytest.raises(NotFoundError, match="session_20200101_000000"):
        snapshot(tmp_path, "session_20200101_000000")


def test_a_file_that_stays_away_is_damage(tmp_path: Path):
    session_id = record(tmp_path, trade())
    (file,) = snapshot(tmp_path, session_id).manifest.files_of("trades")
    (tmp_path / file.path).unlink()
    with pytest.raises(DamageError, match="verify"):
        reread(lambda: rows_of(tmp_path, snapshot(tmp_path, session_id)))
