"""The contracts that the local gateway knows."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdcapture.errors import NotFoundError
from mdcapture.gateway.instruments import INSTRUMENTS, list_contracts, parse_id, select

DAY = date(2026, 11, 22)
DAYS = st.dates(date(2001, 1, 1), date(2090, 1, 1))


def test_describes_a_contract_as_the_gateway_does():
    # The gateway's own words, from a published capture.
    described = parse_id("CON.F.US.BP6.U26")
    assert described is not None
    contract = described.contract
    assert (contract.name, contract.description) == ("6BU6", "British Pound (Globex): September 2026")
    assert (contract.tick_size, contract.tick_value, contract.symbol_id) == (0.0001, 6.25, "F.US.BP6")


@given(DAYS)
def test_every_instrument_has_an_active_contract_and_the_next(day: date):
    listings = list_contracts(day)
    assert [it.active for it in listings] == [True, False] * len(INSTRUMENTS)
    assert len({it.contract.contract_id for it in listings}) == len(listings)
    for it in listings:
        parsed = parse_id(it.contract.contract_id)
        assert parsed is not None
        assert parsed.contract == it.contract


@given(DAYS)
def test_the_next_contract_becomes_the_active_one(day: date):
    active, following = (it.contract.contract_id for it in list_contracts(day)[:2])
    while (now := list_contracts(day)[0].contract.contract_id) == active:
        day += timedelta(days=1)
    assert now == following


@pytest.mark.parametrize(
    ("day", "name"), [(date(2026, 9, 10), "MNQU6"), (date(2026, 9, 11), "MNQZ6"), (date(2026, 12, 31), "MNQH7")]
)
def test_index_futures_roll_in_the_second_week_of_their_month(day: date, name: str):
    assert list_contracts(day)[0].contract.name == name


def test_contracts_are_selected_by_any_of_their_names():
    for text in ("MNQ", "mnq", "MNQZ6", "CON.F.US.MNQ.Z26"):
        (listing,) = select([text], list_contracts(DAY))
        assert listing.contract.contract_id == "CON.F.US.MNQ.Z26"
    assert [it.instrument.root for it in select(["ES", "EP", "ESZ6", "6B"], list_contracts(DAY))] == ["EP", "BP6"]
    (expired,) = select(["CON.F.US.MNQ.M25"], list_contracts(DAY))
    assert (expired.contract.name, expired.active) == ("MNQM5", True)
    with pytest.raises(NotFoundError, match="no contract 'XX'"):
        select(["XX"], list_contracts(DAY))


@pytest.mark.parametrize("text", ["", "CON.F.US.EP.", "CON.F.US.EP.24", "CON.F.US.EP.A24", "CON.F.US.XX.H24", "EP.H24"])
def test_what_is_no_id_is_none(text: str):
    assert parse_id(text) is None


def test_start_prices_are_on_the_grid():
    assert all(Decimal(str(it.start_price)) % Decimal(it.tick_size) == 0 for it in INSTRUMENTS)
