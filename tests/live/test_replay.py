"""Replay: exactly the rows that were captured, in their order, at the pace that is asked for."""

from __future__ import annotations

import asyncio
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from gateway.virtual_time import VirtualTimeLoop
from hypothesis import given, settings
from hypothesis import strategies as st
from lake_builder import ES, MS, START_NS, quote, recording, trade
from synthetic import imported, market_tape
from tapes import records, write_tape

import mdcapture as md
from mdcapture.errors import UsageError
from mdcapture.gateway.instruments import parse_id
from mdcapture.interop.importing import import_tape
from mdcapture.lake.schema import Incident, IncidentKind
from mdcapture.live.flow import QueueImbalance
from mdcapture.live.pieces import in_pieces
from mdcapture.live.replay import Replay
from mdcapture.metrics.book import book_snapshots
from mdcapture.metrics.flow import queue_imbalance

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = {"quotes": md.QuoteEvent, "trades": md.TradeEvent, "depth": md.DepthEvent}
PLACES = st.integers(0, 10)
CONTRACTS = ("CON.F.US.MNQ.Z26", "CON.F.US.MES.Z26", "")


def rows(session: md.Session, **where: int) -> list[tuple[object, ...]]:
    """Every row of the session's tables by an independent way: read as a whole, and sorted as the lake is."""
    found: list[tuple[object, ...]] = []
    for table, kind in KINDS.items():
        frame = getattr(session, table)().collect().select(kind._fields)
        found += [kind(row[0] or "", *row[1:]) for row in frame.iter_rows()]
    found.sort(key=lambda row: (row[2], row[1], row[3]))
    return [row for row in found if where.get("from_ns", 0) <= row[2] < where.get("to_ns", 2**63)]


@settings(max_examples=20, deadline=None)
@given(
    bursts=st.lists(
        st.tuples(st.integers(0, 40), st.sampled_from(CONTRACTS), st.sampled_from(["seal", "subscribe", "go on"])),
        max_size=6,
    ),
    finished=st.booleans(),
)
def test_replay_of_a_session_gives_exactly_the_rows_that_were_captured(
    bursts: list[tuple[int, str, str]],
    finished: bool,  # noqa: FBT001
):
    with tempfile.TemporaryDirectory() as folder, recording(Path(folder)) as session:
        for seed, (count, contract_id, then) in enumerate(bursts):
            session.receive(*records(count, contract_id=contract_id, seed=seed))
            if then == "seal":
                session.seal()
            elif then == "subscribe":
                session.note(IncidentKind.SUBSCRIBING)
        if finished:
            session.finish()
        captured = md.open_lake(folder).session()
        assert list(Replay(captured)) == rows(captured)


def test_a_tape_replays_as_the_session_that_it_is_imported_to(tmp_path: Path):
    tape = write_tape(tmp_path / "tape.ndjson", records(700))
    import_tape(str(tape), tmp_path / "lake")
    assert list(Replay(tape)) == list(Replay(md.open_lake(tmp_path / "lake").session()))


def test_the_hour_of_es_replays_from_the_tape_as_from_the_lake(es: md.Session, shared: Path):
    from_lake = list(Replay(es))
    assert len(from_lake) == 80_790
    assert list(Replay(shared / "tapes" / "es_20231225.ndjson.zst")) == from_lake == rows(es)


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    lines = [b"%d %s\n" % (START_NS + ms * MS, trade(price=float(ms))) for ms in (0, 100, 400, 1000)]
    path = tmp_path / "four.ndjson"
    path.write_bytes(b"".join(lines))
    return path


@pytest.mark.parametrize("source", ["tape", "session"])
def test_replay_seeks_and_the_state_of_quotes_is_known_there(tmp_path: Path, source: str):
    tape = write_tape(tmp_path / "tape.ndjson", records(600))
    import_tape(str(tape), tmp_path / "lake")
    session = md.open_lake(tmp_path / "lake").session()
    every = rows(session)
    from_ns, to_ns = every[len(every) // 3][2], every[len(every) // 2][2]
    assert isinstance(from_ns, int)
    assert isinstance(to_ns, int)
    sought = list(Replay(tape if source == "tape" else session, from_ns=from_ns, to_ns=to_ns))
    assert sought == rows(session, from_ns=from_ns, to_ns=to_ns)
    assert next(event for event in sought if isinstance(event, md.QuoteEvent)).best_bid is not None


@pytest.mark.parametrize("source", ["tape", "session"])
def test_where_a_replay_seeks_to_the_book_is_found(tmp_path: Path, source: str):
    """The snapshot was before: the contract's tick tells when the levels are whole."""
    tape = market_tape(tmp_path / "market.ndjson", messages=2000)
    session = imported(tape, tmp_path / "lake")
    books = book_snapshots(session.depth(CONTRACTS[0]).collect(), 1, tick_size=0.25)
    half_ns, last = int(books["recv_ns"][books.height // 2]), books.with_columns(queue_imbalance()).row(-1, named=True)
    live = md.LiveMetrics({"lean": QueueImbalance})
    replay = Replay(tape if source == "tape" else session, from_ns=half_ns)
    live.attach(replay)
    replay.run()
    live.tick(2**62)
    assert live[CONTRACTS[0]]["lean"] == last["queue_imbalance"]


def test_contracts_are_picked(market: md.Session):
    one = market.contracts[0].contract_id
    picked = list(Replay(market, contracts=[one]))
    assert picked == [event for event in Replay(market) if event.contract_id == one]
    assert picked


@pytest.mark.parametrize("source", ["session", "tape"])
def test_contracts_are_picked_by_name_and_unknown_ones_refused(tmp_path: Path, source: str):
    tape = market_tape(tmp_path / "market.ndjson")
    played = tape if source == "tape" else imported(tape, tmp_path / "lake")
    one = min(event.contract_id for event in Replay(tape))
    wanted = [event for event in Replay(tape) if event.contract_id == one]
    for name in (parse_id(one).contract.name, parse_id(one).instrument.root):  # type: ignore[union-attr]
        assert list(Replay(played, contracts=[name])) == wanted
    with pytest.raises(md.NotFoundError, match="there is no contract NOPE here; there are: "):
        Replay(played, contracts=[one, "NOPE"]).run()


def test_several_sources_are_merged_by_time(tmp_path: Path):
    sessions = []
    for number, starts_ns in enumerate((START_NS, START_NS + 3 * MS, START_NS - 500 * MS)):
        with recording(tmp_path, starts_ns) as session:
            for step in range(5):
                session.receive(trade(f"C{number}", volume=step))
            session.finish()
            sessions.append(md.open_lake(tmp_path).session(session.session_id))
    merged = list(Replay(*sessions))
    assert [event.recv_ns for event in merged] == sorted(event.recv_ns for event in merged)
    for number, session in enumerate(sessions):
        assert [event for event in merged if event.contract_id == f"C{number}"] == list(Replay(session))


def test_handlers_get_their_events_and_incidents_in_their_place(tmp_path: Path):
    with recording(tmp_path) as session:
        session.note(IncidentKind.SUBSCRIBING)
        session.receive(quote(bestBid=1.0), trade())
        last_good_ns = session.now_ns
        session.receive(trade(volume=2), step_ns=1000 * MS)
        first_new_ns = session.now_ns
        session.receive(trade(volume=3))
        session.tell(Incident(IncidentKind.GAP, "trades", ES, last_good_ns, first_new_ns))
        session.finish()
    replay = Replay(md.open_lake(tmp_path).session())
    seen: list[object] = []
    replay.on_quote(seen.append)
    replay.on_trade(lambda event: seen.append(event.volume))
    replay.on_incident(lambda incident: seen.append(incident.kind))
    counts = replay.run()
    assert [type(it).__name__ if isinstance(it, tuple) else it for it in seen] == [
        "subscribing", "QuoteEvent", 1, "gap", 2, 3,
    ]  # fmt: skip
    assert counts == {"SessionStart": 1, "Incident": 2, "QuoteEvent": 1, "TradeEvent": 3}


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def sleep(self, wait_s: float) -> None:
        self.slept.append(round(wait_s, 9))
        self.now_s += wait_s


@pytest.mark.parametrize(("speed", "waits"), [(1.0, [0.1, 0.3, 0.6]), (2.0, [0.05, 0.15, 0.3]), (math.inf, [])])
def test_events_keep_the_pace_of_receive_time(tape: Path, speed: float, waits: list[float]):
    clock = Clock()
    list(Replay(tape, speed=speed, clock=lambda: clock.now_s, sleep=clock.sleep))
    assert clock.slept == pytest.approx(waits)


def test_events_keep_the_pace_of_exchange_time(tmp_path: Path):
    stamps = ["23:00:00Z", "23:00:02.5Z", "no time", "23:00:01Z", "23:00:04Z"]
    entries = [trade(timestamp=f"2023-12-25T{stamp}") for stamp in stamps]
    clock = Clock()
    tape = write_tape(tmp_path / "tape.ndjson", entries)
    assert len(list(Replay(tape, speed=1, pace="exch_ns", clock=lambda: clock.now_s, sleep=clock.sleep))) == 5
    assert clock.slept == pytest.approx([2.5, 1.5])


def test_a_handler_that_takes_its_time_is_not_waited_for_twice(tape: Path):
    clock = Clock()
    for _ in Replay(tape, speed=1, clock=lambda: clock.now_s, sleep=clock.sleep):
        clock.now_s += 0.25
    assert clock.slept == pytest.approx([0.25])


def test_events_come_in_async_code_and_others_have_their_turn(tape: Path):
    async def play() -> tuple[list[float], int]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        counting = asyncio.create_task(count())
        begin_s = asyncio.get_running_loop().time()
        times = [asyncio.get_running_loop().time() - begin_s async for _ in Replay(tape, speed=1).events()]
        counting.cancel()
        return times, turns

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        times, turns = runner.run(play())
    assert times == pytest.approx([0, 0.1, 0.4, 1.0], abs=0.011)
    assert turns > 90


def test_async_events_are_the_events(market: md.Session):
    async def collect() -> list[md.QuoteEvent | md.TradeEvent | md.DepthEvent]:
        return [event async for event in Replay(market).events()]

    assert asyncio.run(collect()) == list(Replay(market))


def test_a_replay_reads_no_more_than_it_needs(tmp_path: Path):
    tape = write_tape(tmp_path / "tape.ndjson", records(500))
    with tape.open("ab") as file:
        file.write(b"no line of a tape\n")
    events = iter(Replay(tape))
    assert next(events).seq == 0
    with pytest.raises(UsageError, match="no line of a tape"):
        list(events)


@given(st.lists(st.integers(0, 9)).map(sorted), st.integers(1, 12), st.none() | PLACES, st.none() | PLACES)
def test_pieces_together_are_the_rows_of_that_time(times: list[int], rows: int, from_ns: int | None, to_ns: int | None):
    frame = pl.LazyFrame({"recv_ns": times, "row": range(len(times))}, {"recv_ns": pl.Int64, "row": pl.Int64})
    pieces = list(in_pieces(frame, rows, from_ns=from_ns, to_ns=to_ns))
    low, high = 0 if from_ns is None else from_ns, 10 if to_ns is None else to_ns
    wanted = [(time, row) for row, time in enumerate(times) if low <= time < high]
    assert [row for piece in pieces for row in piece.rows()] == wanted
    assert all(0 < piece.height <= rows for piece in pieces)


@pytest.mark.parametrize(
    ("sources", "options", "says"),
    [((), {}, "session or a tape"), (("x",), {"speed": 0}, "speed"), (("x",), {"pace": "exch"}, "recv_ns or exch_ns")],
)
def test_what_can_not_be_replayed_is_said(sources: Sequence[str], options: dict[str, object], says: str):
    with pytest.raises(UsageError, match=says):
        Replay(*sources, **options)  # type: ignore[arg-type]


def test_a_tape_that_is_not_there_is_an_error_when_it_is_read():
    with pytest.raises(md.NotFoundError, match="missing"):
        list(Replay("missing.ndjson"))
