"""Contracts that expire, roll and can't be looked up at a trading day's end: the others never notice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import polars as pl
import pytest
from programs import free_port, simulator
from trading_days import Day, next_session

import mdcapture as md
from mdcapture.capture.roster import Roster
from mdcapture.errors import NotFoundError, RefusedError, UnreachableError
from mdcapture.lake.manifest import Contract

if TYPE_CHECKING:
    from pathlib import Path

MNQ, MES, NEXT_MES = "CON.F.US.MNQ.U24", "CON.F.US.MES.U24", "CON.F.US.MES.Z24"  # the local gateway lists none unasked


class Gateway:
    """Means by a text what it is told to, or raises it."""

    def __init__(self, **meant: str | Exception) -> None:
        self.meant = meant
        self.asked: list[str] = []

    async def __call__(self, text: str) -> Contract:
        self.asked.append(text)
        meant = self.meant[text]
        if isinstance(meant, Exception):
            raise meant
        return Contract(contract_id=meant)


def ids(roster: Roster) -> list[str]:
    return [contract.contract_id for contract in roster.contracts]


def found(gateway: Gateway) -> Roster:
    roster = Roster(gateway.meant, gateway)
    asyncio.run(roster.find_all())
    gateway.asked.clear()
    return roster


def test_at_the_start_all_must_be_known():
    roster = Roster(["MNQ", "MES"], Gateway(MNQ=MNQ, MES=NotFoundError("no such contract")))
    with pytest.raises(NotFoundError):
        asyncio.run(roster.find_all())
    assert roster.contracts == []


def test_what_is_named_twice_is_one_contract():
    assert ids(found(Gateway(MNQ=MNQ, MNQZ6=MNQ, MES=MES))) == [MNQ, MES]


@pytest.mark.parametrize("error", [NotFoundError("several"), RefusedError("no"), UnreachableError("away")])
def test_what_can_not_be_looked_up_goes_on_as_it_was(error: md.MdcaptureError):
    gateway = Gateway(MES=MES, MNQ=MNQ)
    roster = found(gateway)
    gateway.meant["MES"] = error
    asyncio.run(roster.begin_day())
    assert ids(roster) == [MES, MNQ]
    incidents = roster.incidents(7)
    assert (incidents[0].kind, incidents[0].contract_id, incidents[0].from_ns) == ("unresolved", MES, 7)
    assert str(error) in incidents[0].detail


def test_a_gateway_that_is_away_is_not_asked_for_one_after_the_other():
    gateway = Gateway(MES=MES, MNQ=MNQ)
    roster = found(gateway)
    gateway.meant |= dict.fromkeys(gateway.meant, UnreachableError("away"))
    asyncio.run(roster.begin_day())
    assert gateway.asked == ["MES"]
    assert list(roster.unresolved) == ["MES", "MNQ"]


@pytest.mark.parametrize(("meant", "changed"), [(MES, False), (NEXT_MES, True)])
def test_only_what_is_unresolved_is_asked_for_again(meant: str, *, changed: bool):
    gateway = Gateway(MES=MES, MNQ=MNQ)
    roster = found(gateway)
    gateway.meant["MES"] = NotFoundError("several")
    asyncio.run(roster.begin_day())
    gateway.asked.clear()
    gateway.meant["MES"] = meant
    assert asyncio.run(roster.ask_again()) is changed
    assert gateway.asked == ["MES"]
    assert ids(roster) == [meant, MNQ]
    assert roster.unresolved == {}


def heard(recorder: md.Recorder, contract_id: str) -> bool:
    figures = recorder.figures()
    return figures is not None and any(one.heard_ns for one in figures.contracts if one.contract_id == contract_id)


def test_a_contract_that_rolls_late_costs_the_others_nothing(tmp_path: Path):
    """Before a day's end one contract is listed no more, and the one that follows it only some time after."""
    days = [((MNQ, MES), MES), ((MNQ,), MNQ), ((MNQ, NEXT_MES), NEXT_MES)]
    day = Day()
    port = free_port()
    config = md.Config(
        gateway=f"http://127.0.0.1:{port}",
        lake=str(tmp_path),
        contracts=["MNQ", "MES"],
        username="me",
        calendar="weekly",
        backfill=False,
        reconnect_first_s=0.05,
        reconnect_max_s=0.2,
        **day.settings,
    )
    session: str | None = None
    with md.Recorder(config, api_key="demo", clock=day) as recorder:
        for listed, awaited in days:
            contracts = [word for contract in listed for word in ("--contract", contract)]
            # A process of its own: a port that this one listened at may be held by what it starts just then.
            with simulator("--port", str(port), "--rate", "100", *contracts):
                if session is None:
                    recorder.start()
                else:
                    day.end()
                session = next_session(recorder, session)
                while not heard(recorder, awaited):
                    assert recorder.wait(0.01) is None
        recorder.stop()
        captured = recorder.wait()
    assert captured is not None
    assert len(captured.sessions) == len(days)
    lake = md.open_lake(tmp_path)
    first, second, third = lake.sessions()
    assert [{contract.contract_id for contract in session.contracts} for session in (first, second, third)] == [
        {MNQ, MES},
        {MNQ, MES},
        {MNQ, NEXT_MES},
    ]
    for one, (_, awaited) in zip((first, second, third), days, strict=True):
        assert one.messages(awaited).select(pl.len()).collect().item() > 0
    told = pl.concat([session.incidents() for session in (first, second, third)]).filter(kind="unresolved").collect()
    assert told.select("session_id", "contract_id").rows() == [(second.session_id, MES)]
