"""Recording over a connection that a trading program holds: the real `signalrcore`, against the local gateway."""

from __future__ import annotations

import json
import threading
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from programs import LIMIT_S, simulator
from tapes import CONTRACT, records, write_tape

import mdcapture as md
from mdcapture.interop.importing import import_tape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

signalrcore = pytest.importorskip(
    "signalrcore.hub_connection_builder", reason="signalrcore is an extra: pip install 'mdcapture[signalrcore]'"
)

COUNT = 3000


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tape(tmp_path_factory.mktemp("tape") / "market.ndjson", records(COUNT))


@pytest.fixture(scope="module")
def expected(tape: Path, tmp_path_factory: pytest.TempPathFactory) -> md.Session:
    root = tmp_path_factory.mktemp("imported")
    import_tape(str(tape), root)
    return md.open_lake(root).session()


class Program:
    """A trading program: its connection, and what it hears of it."""

    def __init__(self, gateway: dict[str, str], *, reconnect: bool) -> None:
        login = json.dumps({"userName": "me", "apiKey": "demo"}).encode()
        address = gateway["api"] + "/api/Auth/loginKey"
        request = urllib.request.Request(address, login, {"Content-Type": "application/json"})  # noqa: S310  # ours
        with urllib.request.urlopen(request) as answer:  # noqa: S310  # ours
            token = json.load(answer)["token"]
        builder = signalrcore.HubConnectionBuilder()
        builder.with_url(f"{gateway['hub']}?access_token={token}", options={"skip_negotiation": True})
        if reconnect:
            builder.with_automatic_reconnect({"type": "raw", "reconnect_interval": 0.1, "keep_alive_interval": 1})
        self.connection = builder.build()
        self.heard: list[Any] = []
        self.opened, self.back = threading.Event(), threading.Event()
        self.connection.on_open(self.opened.set)
        self.connection.on_reconnect(self.back.set)
        self.connection.on("GatewayTrade", self.trade)

    def trade(self, arguments: list[Any]) -> None:
        self.heard.append(list(arguments))
        arguments.clear()  # what it is handed is its own


@contextmanager
def program(*options: str, reconnect: bool = False) -> Iterator[Program]:
    with simulator(*options) as gateway:
        yield Program(gateway, reconnect=reconnect)


def config(lake: Path, *contracts: str, **more: Any) -> md.Config:  # noqa: ANN401  # any setting
    wanted = list(contracts or (CONTRACT,))
    return md.Config(lake=str(lake), contracts=wanted, duration_s=LIMIT_S, calendar="weekly", **more)


def rows(session: md.Session, table: str) -> pl.DataFrame:
    frame = getattr(session, table)().drop("session_id", "recv_ns").collect()
    return frame.sort(["seq", "pos"] if "pos" in frame.columns else ["seq"], nulls_last=True)


@pytest.mark.parametrize("begun", [True, False], ids=["a connection that stands", "one that is not begun"])
def test_a_lent_connection_gives_the_same_rows(tape: Path, expected: md.Session, tmp_path: Path, begun: bool):  # noqa: FBT001
    with program("--tape", str(tape), "--speed", "max") as trading:
        recorder = md.Recorder.attach(trading.connection, config(tmp_path, count=COUNT))
        if begun:
            trading.connection.start()
            assert trading.opened.wait(LIMIT_S)
            recorder.start()
        else:
            recorder.start()
            while (figures := recorder.figures()) is None:
                recorder.wait(0.01)
            assert not figures.connected
            trading.connection.start()
        captured = recorder.wait(LIMIT_S)
        assert captured is not None
        assert (captured.messages, captured.status) == (COUNT, "sealed")
        assert trading.connection.transport.is_connected()
        assert trading.opened.is_set()
        assert trading.connection.handlers["GatewayTrade"] == [trading.trade]
    session = md.open_lake(tmp_path).session()
    for table in ("quotes", "trades", "depth"):
        assert rows(session, table).equals(rows(expected, table)), table
    for table in ("messages", "rejects"):
        ours, theirs = (map(json.loads, rows(one, table)["payload"]) for one in (session, expected))
        assert list(ours) == list(theirs)
    assert len(trading.heard) == rows(session, "trades")["seq"].n_unique()
    assert session.manifest.source == "gateway, over a connection of signalrcore"
    assert session.contracts[0].tick_size == 0.25
    assert not session.gaps().collect().height


def test_the_tape_of_real_futures_over_a_lent_connection(shared: Path, tmp_path: Path):
    tape = str(shared / "tapes" / "es_20231225.ndjson.zst")
    import_tape(tape, tmp_path / "imported")
    with program("--tape", tape, "--speed", "max") as trading:
        trading.connection.start()
        assert trading.opened.wait(LIMIT_S)
        es = config(tmp_path / "lake", "CON.F.US.EP.H24", count=47_262)
        md.Recorder.attach(trading.connection, es).run()
    ours, theirs = (md.open_lake(tmp_path / lake).session() for lake in ("lake", "imported"))
    for table in ("quotes", "trades", "depth", "rejects"):
        assert rows(ours, table).equals(rows(theirs, table)), table


def test_a_connection_that_comes_back_is_subscribed_again_and_the_gap_is_told(tape: Path, tmp_path: Path):
    with program("--tape", str(tape), "--fault", "reset@1.5", reconnect=True) as trading:
        trading.connection.start()
        assert trading.opened.wait(LIMIT_S)
        recorder = md.Recorder.attach(trading.connection, config(tmp_path))
        seen = Seen(recorder)
        recorder.start()
        assert seen.wait_for(lambda kinds: kinds.count("gap") == 3)
        assert trading.back.is_set()
        recorder.stop()
        recorder.wait(LIMIT_S)
    session = md.open_lake(tmp_path).session()
    assert {row["stream"] for row in session.gaps().collect().iter_rows(named=True)} == {"quotes", "trades", "depth"}
    assert session.messages().select(pl.col("connection").unique().sort()).collect()["connection"].to_list() == [1, 2]


def test_a_subscription_that_is_refused_is_an_incident_and_the_others_go_on(tape: Path, tmp_path: Path):
    nobody = "CON.F.US.NOBODY.Z26"
    with program("--tape", str(tape)) as trading:
        trading.connection.start()
        assert trading.opened.wait(LIMIT_S)
        both = config(tmp_path, CONTRACT, nobody, trades=False, depth=False)
        recorder = md.Recorder.attach(trading.connection, both)
        seen = Seen(recorder)
        recorder.start()
        assert seen.wait_for(lambda kinds: {"subscribed", "subscribe_failed"} <= set(kinds))
        recorder.stop()
        recorder.wait(LIMIT_S)
    failed = md.open_lake(tmp_path).incidents().filter(kind="subscribe_failed").collect()
    assert failed["contract_id"].unique().to_list() == [nobody]
    assert "error" in failed["detail"][0]


class Seen:
    """The kinds of incidents that a recorder has told of."""

    def __init__(self, recorder: md.Recorder) -> None:
        self.kinds: list[str] = []
        self.changed = threading.Condition()
        recorder.on_incident(self.note)

    def note(self, incident: Any) -> None:  # noqa: ANN401  # an incident
        with self.changed:
            self.kinds.append(str(incident.kind))
            self.changed.notify_all()

    def wait_for(self, reached: Callable[[list[str]], bool]) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: reached(self.kinds), LIMIT_S)


def test_what_can_not_be_attached_says_why(tmp_path: Path):
    with pytest.raises(md.UsageError, match="no hub connection of signalrcore"):
        md.Recorder.attach(object(), config(tmp_path))  # type: ignore[arg-type]
    connection = signalrcore.HubConnectionBuilder().with_url("http://localhost:1/hubs/market").build()
    with pytest.raises(md.MdcaptureError, match=r"name contracts by their ids, as CON\.F\.US"):
        md.Recorder.attach(connection, config(tmp_path, "MNQ"))
