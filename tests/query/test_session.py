"""The lake in Python: sessions by name, frames with the declared columns, whether sealed or being captured."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import lake_builder
import polars as pl
import pytest
from lake_builder import ES, MS, Recording, depth, quote, record, recording, trade

import mdcapture as md
from mdcapture.errors import NotFoundError
from mdcapture.lake.manifest import Contract
from mdcapture.lake.schema import TABLES, IncidentKind
from mdcapture.lake.writer import open_session

if TYPE_CHECKING:
    from pathlib import Path

MNQ = "CON.F.US.MNQ.H24"
DAY_NS = 86_400 * 10**9
POLARS = {
    "int8": pl.Int8,
    "int16": pl.Int16,
    "int32": pl.Int32,
    "int64": pl.Int64,
    "float64": pl.Float64,
    "string": pl.String,
}


def declared(table: str) -> dict[str, type[pl.DataType]]:
    columns = {column.name: POLARS[column.type] for column in TABLES[table].columns}
    return {"session_id": pl.String, "contract_id": pl.String, **columns}


def frame(source: md.Lake | md.Session, table: str, contract_id: str | None = None) -> pl.LazyFrame:
    found: pl.LazyFrame = getattr(source, table)(contract_id)
    return found


@pytest.fixture
def three_days(tmp_path: Path) -> md.Lake:
    for day in range(3):
        record(tmp_path, trade(volume=day), start_ns=lake_builder.START_NS + day * DAY_NS)
    return md.open_lake(tmp_path)


def test_sessions_are_listed_the_oldest_first(three_days: md.Lake):
    names = [session.session_id for session in three_days.sessions()]
    assert names == ["session_20231225_230000", "session_20231226_230000", "session_20231227_230000"]


@pytest.mark.parametrize(
    ("ref", "day"),
    [("latest", 27), ("session_20231226_230000", 26), ("session_20231225", 25), ("session_20231225_230000", 25)],
)
def test_a_session_is_found_by_id_prefix_or_as_the_latest(three_days: md.Lake, ref: str, day: int):
    assert three_days.session(ref).session_id == f"session_202312{day}_230000"


def test_an_id_that_begins_another_one_is_itself(tmp_path: Path):
    first = record(tmp_path, trade())
    second = record(tmp_path, trade())
    assert second.startswith(first)
    assert md.open_lake(tmp_path).session(first).session_id == first


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("session_2023", "session_20231225_230000, session_20231226_230000, session_20231227_230000"),
        ("monday", "no session monday .* session_20231227_230000"),
        ("", "no session"),
        ("../sessions", "no session"),
    ],
)
def test_what_is_no_session_names_those_that_are(three_days: md.Lake, ref: str, says: str):
    with pytest.raises(NotFoundError, match=says):
        three_days.session(ref)


def test_what_is_no_lake_says_what_to_do(tmp_path: Path):
    with pytest.raises(NotFoundError, match=r"no such folder.*mdcapture capture"):
        md.open_lake(tmp_path / "nowhere")
    with pytest.raises(NotFoundError, match="it is no lake"):
        md.open_lake(tmp_path)
    (tmp_path / "sessions").mkdir()
    with pytest.raises(NotFoundError, match="no session yet"):
        md.open_lake(tmp_path).session("latest")


def test_a_lake_in_a_relative_folder(three_days: md.Lake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(three_days.path.parent)
    lake = md.open_lake(three_days.path.name)
    monkeypatch.chdir("/")
    assert lake.trades().collect().height == 3


def test_the_tape_as_frames(tape_lake: Path):
    session = md.open_lake(tape_lake).session("latest")
    assert (session.status, session.counts["depth"]) == ("sealed", 73_239)
    assert (session.start_ns, session.end_ns) == (1_703_545_200_106_846_211, 1_703_548_799_446_821_072)
    assert [(one.contract_id, one.tick_size) for one in session.contracts] == [(ES, 0.25)]
    lots, vwap, delta = (
        session.trades()
        .select(
            pl.col("volume").sum(),
            vwap=(pl.col("price") * pl.col("volume")).sum() / pl.col("volume").sum(),
            delta=pl.when(side=0).then("volume").otherwise(-pl.col("volume")).sum(),
        )
        .collect()
        .row(0)
    )
    assert (lots, delta) == (9_848, 796)
    assert vwap == pytest.approx(4808.760560519902, rel=1e-13)


@pytest.mark.parametrize("table", TABLES)
def test_frames_and_sql_have_the_same_rows(tape_lake: Path, table: str):
    session = md.open_lake(tape_lake).session()
    names = ", ".join(f'"{name}"' for name in declared(table))
    order = [name for name in ("contract_id", "recv_ns", "seq", "pos") if name in declared(table)]
    ours = frame(session, table).collect()
    theirs = session.sql(f"SELECT {names} FROM {table} ORDER BY {', '.join(order)}").pl()  # noqa: S608
    assert ours.equals(theirs)


@pytest.mark.parametrize("table", TABLES)
def test_frames_have_the_declared_columns_in_every_state(tmp_path: Path, table: str):
    records = (trade(), quote(), depth(ES, {"type": 1}), b"garbage")
    lake_of_nothing = tmp_path / "empty"
    (lake_of_nothing / "sessions").mkdir(parents=True)
    with recording(tmp_path / "lake") as session:
        lake = md.open_lake(tmp_path / "lake")
        lazy = [frame(md.open_lake(lake_of_nothing), table), frame(lake, table), frame(lake.session(), table)]
        session.receive(*records)
        session.note(IncidentKind.CONNECTED)
        lazy.append(frame(lake, table))
        session.seal()
        session.receive(*records)
        lazy.append(frame(lake.session(), table))
        collected = [one.collect() for one in lazy]
        session.finish()
    collected.append(frame(lake, table).collect())
    for one, shown in zip(collected, [*lazy, lazy[-1]], strict=True):
        assert one.schema == shown.collect_schema() == declared(table)


def test_a_frame_of_a_running_session_has_what_is_there_when_it_is_collected(tmp_path: Path):
    with recording(tmp_path) as session:
        lake = md.open_lake(tmp_path)
        volumes = lake.session().trades().select("volume")
        large = volumes.filter(pl.col("volume") > 2)
        for number in range(1, 6):
            session.receive(trade(volume=number))
            if number == 3:
                session.seal()
            assert volumes.collect()["volume"].to_list() == list(range(1, number + 1))
            assert large.collect()["volume"].to_list() == list(range(3, number + 1))
        assert volumes.head(2).collect()["volume"].to_list() == [1, 2]
        assert volumes.select(pl.len()).collect().item() == 5
        session.finish()
        assert volumes.collect().height == lake.trades().collect().height == 5


def test_sealed_and_running_sessions_in_one_frame(three_days: md.Lake):
    with recording(three_days.path, start_ns=lake_builder.START_NS + 5 * DAY_NS) as session:
        session.receive(trade(volume=9))
        trades = three_days.trades().collect()
    assert trades["volume"].to_list() == [0, 1, 2, 9]
    assert trades["session_id"].to_list() == [one.session_id for one in three_days.sessions()]


@pytest.mark.parametrize("running", [False, True])
def test_one_contract(tmp_path: Path, *, running: bool):
    with recording(tmp_path, tick_sizes={"CON.F.US.RTY.H24": 0.1}) as session:
        session.receive(trade(volume=1), trade(MNQ, volume=2))
        session.seal()
        session.receive(trade(MNQ, volume=3), b"garbage")
        if not running:
            session.finish()
        lake = md.open_lake(tmp_path)
        assert lake.trades(MNQ).collect()["volume"].to_list() == [2, 3]
        assert lake.session().trades(ES).collect()["volume"].to_list() == [1]
        assert lake.session().quotes("CON.F.US.RTY.H24").collect().height == 0
        for source in (lake, lake.session()):
            with pytest.raises(NotFoundError, match=f"no contract MNQ .*{ES}, {MNQ}"):
                source.trades("MNQ")


@pytest.mark.parametrize("running", [False, True])
def test_rows_of_a_contract_are_in_order_though_the_clock_stepped_back(tmp_path: Path, *, running: bool):
    with recording(tmp_path) as session:
        for number in range(12):
            session.receive(trade([ES, MNQ][number % 2], volume=number), step_ns=MS if number % 5 else -7 * MS)
            if number % 4 == 3:
                session.seal()
        if not running:
            session.finish()
        trades = md.open_lake(tmp_path).trades().collect()
        for _, rows in trades.group_by("contract_id"):
            assert rows.height == 6
            assert rows.equals(rows.sort("recv_ns", "seq", "pos"))


def test_another_process_captures_seals_and_merges_while_we_collect(tmp_path: Path):
    bursts, burst = 20, 8
    arguments = [sys.executable, lake_builder.__file__, str(tmp_path), str(bursts), str(burst)]
    seen = [0]
    with subprocess.Popen(arguments) as writer:
        while not list((tmp_path / "sessions").glob("*.json")):
            assert writer.poll() is None
        trades = md.open_lake(tmp_path).session().trades()
        while seen[-1] < bursts * burst:
            volumes = trades.collect()["volume"].to_list()
            assert volumes == list(range(len(volumes)))
            assert len(volumes) >= seen[-1]
            seen.append(len(volumes))
    assert writer.returncode == 0
    assert len(set(seen)) > 2


@pytest.mark.parametrize("running", [False, True])
def test_a_contract_is_named_by_its_name_or_its_root(tmp_path: Path, *, running: bool):
    names = {"MNQZ6": "CON.F.US.MNQ.Z26", "MNQH7": "CON.F.US.MNQ.H27", "ESZ6": "CON.F.US.EP.Z26"}
    known = [Contract(contract_id=one, name=name) for name, one in names.items()]
    with open_session(tmp_path, lake_builder.START_NS, contracts=known) as held:
        session = Recording(held, lake_builder.START_NS)
        for volume, one in enumerate(names.values()):
            session.receive(trade(one, volume=volume), quote(one, bestBid=1.0))
            session.receive(quote(one, bestBid=2.0), step_ns=5 * MS)
        session.note(IncidentKind.GAP, "trades", names["ESZ6"])
        if not running:
            session.finish()
        found = md.open_lake(tmp_path).session()

        def volumes(text: str) -> list[int]:
            return found.trades(text).collect()["volume"].sort().to_list()

        meant = {"MNQ": [0, 1], "MNQZ6": [0], "mnqh7": [1], names["MNQH7"]: [1], "ES": [2]}
        assert {text: volumes(text) for text in meant} == meant
        assert found.trades("ES", clean=True).collect().height == 1
        assert found.quotes("MNQ").collect().height == 4
        assert found.gaps("ES").collect()["contract_id"].to_list() == [names["ESZ6"]]
        assert found.features(every=MS, metrics=["quotes"], contract_id="MNQ")["contract_id"].n_unique() == 2
        assert found.export(tmp_path / "es.csv", tables=["trades"], contract_id="ES") == {"trades": 1}
        with pytest.raises(NotFoundError, match="no contract GC here; there are: MNQZ6, MNQH7, ESZ6"):
            found.trades("GC")
        with pytest.raises(md.UsageError, match=r"MNQ means several contracts here: name one of .*MNQH7"):
            found.export(tmp_path / "mnq.csv", tables=["trades"], contract_id="MNQ")
        if running:
            session.finish()


def test_sql_is_of_the_session_or_of_the_lake(three_days: md.Lake):
    assert three_days.sql("SELECT count(*) FROM trades").fetchall() == [(3,)]
    assert three_days.session().sql("SELECT volume FROM trades").pl()["volume"].to_list() == [2]
    assert three_days.session().sql("SELECT volume + $more AS v FROM trades", {"more": 1}).pl().item() == 3


def test_they_say_what_they_are(three_days: md.Lake):
    assert "3 sessions" in repr(three_days)
    shown = repr(three_days.session())
    for part in ("session_20231227_230000", "sealed", ES, "2023-12-27 23:00:00Z", "trades 1"):
        assert part in shown
    with recording(three_days.path, start_ns=lake_builder.START_NS + 5 * DAY_NS):
        assert "open" in repr(three_days.session())
        assert "nothing received yet" in repr(three_days.session())


def test_every_public_name_is_there():
    for name in md.__all__:
        assert getattr(md, name).__name__ == name
        assert name in dir(md)
    with pytest.raises(AttributeError, match="no_such_name"):
        md.no_such_name  # noqa: B018
