"""What people call a contract, to the contract."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mdcapture.errors import NotFoundError, RefusedError, UsageError
from mdcapture.gateway.contracts import choose, resolve
from mdcapture.gateway.rest import Listing
from mdcapture.lake.manifest import Contract

if TYPE_CHECKING:
    from collections.abc import Sequence


def listing(symbol: str, expiry: str, name: str, description: str = "", *, active: bool = True) -> Listing:
    contract_id = f"CON.{symbol}.{expiry}"
    return Listing(
        Contract(contract_id=contract_id, name=name, description=description, symbol_id=symbol, source="gateway"),
        active,
    )


LISTED = [
    listing("F.US.MNQ", "Z26", "MNQZ6", "Micro E-mini Nasdaq-100: December 2026"),
    listing("F.US.MNQ", "H27", "MNQH7", "Micro E-mini Nasdaq-100: March 2027", active=False),
    listing("F.US.ENQ", "Z26", "NQZ6", "E-mini NASDAQ-100: December 2026"),
    listing("F.US.EP", "Z26", "ESZ6", "E-mini S&P 500: December 2026"),
    listing("F.US.EP", "H27", "ESH7", "E-mini S&P 500: March 2027", active=False),
    listing("F.US.MES", "Z26", "MESZ6", "Micro E-mini S&P 500: December 2026"),
    listing("F.US.BP6", "Z26", "6BZ6", "British Pound (Globex): December 2026"),
    listing("F.US.M2K", "Z26", "M2KZ6", "Micro E-mini Russell 2000: December 2026"),
    listing("F.US.GCE", "Z26", "GCZ6", "Gold (Globex): December 2026"),
    listing("F.US.MGC", "Z26", "MGCZ6", "Micro Gold: December 2026"),
    listing("F.US.OLD", "Z20", "OLDZ0", "Something that is over", active=False),
]


@pytest.mark.parametrize(
    ("text", "contract_id"),
    [
        ("MNQ", "CON.F.US.MNQ.Z26"),
        ("mnq", "CON.F.US.MNQ.Z26"),
        ("F.US.MNQ", "CON.F.US.MNQ.Z26"),
        ("MNQZ6", "CON.F.US.MNQ.Z26"),
        ("MNQH7", "CON.F.US.MNQ.H27"),  # a name means its contract, active or not
        ("ES", "CON.F.US.EP.Z26"),
        ("EP", "CON.F.US.EP.Z26"),
        ("NQ", "CON.F.US.ENQ.Z26"),
        ("6B", "CON.F.US.BP6.Z26"),
        ("M2K", "CON.F.US.M2K.Z26"),
        ("GC", "CON.F.US.GCE.Z26"),
        ("british pound", "CON.F.US.BP6.Z26"),
        ("OLDZ0", "CON.F.US.OLD.Z20"),
        ("CON.F.US.EP.H27", "CON.F.US.EP.H27"),
    ],
)
def test_a_text_means_one_contract(text: str, contract_id: str):
    assert choose(LISTED, text).contract_id == contract_id
    assert choose(LISTED * 2, text).contract_id == contract_id


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("gold", ["GCZ6 (CON.F.US.GCE.Z26", "MGCZ6 (CON.F.US.MGC.Z26"]),
        ("MNQU6", ["MNQZ6"]),
        ("MN", ["MNQZ6"]),
        ("OLD", ["OLDZ0"]),
        ("CON.F.US.MNQ.Z62", ["CON.F.US.MNQ.Z26"]),
        ("", ["mdcapture contracts"]),
        ("poun", ["mdcapture contracts"]),  # a piece of a word is too little to go by
        ("utterly else", ["mdcapture contracts"]),
    ],
)
def test_a_text_that_means_none_or_several_names_near_ones(text: str, near: list[str]):
    with pytest.raises(NotFoundError) as failure:
        choose(LISTED, text)
    assert isinstance(failure.value, UsageError)
    for name in near:
        assert name in str(failure.value)


def test_two_active_contracts_of_one_product_are_not_guessed_between():
    both = [listing("F.US.EP", "Z26", "ESZ6"), listing("F.US.EP", "H27", "ESH7")]
    with pytest.raises(NotFoundError, match=r"means several.*ESZ6.*ESH7"):
        choose(both, "ES")


class Gateway:
    """Answers like the gateway: a search is by name and description, and ends at `most`."""

    def __init__(self, listed: Sequence[Listing], most: int = 20) -> None:
        self.listed, self.most, self.asked = list(listed), most, []

    async def search(self, text: str) -> list[Listing]:
        self.asked.append("search")
        found = [
            each
            for each in self.listed
            if text.casefold() in each.contract.name.casefold()
            or text.casefold() in each.contract.description.casefold()
        ]
        return found[: self.most]

    async def available(self) -> list[Listing]:
        self.asked.append("available")
        return [each for each in self.listed if each.active]

    async def contract(self, contract_id: str) -> Listing:
        self.asked.append("contract")
        for each in self.listed:
            if each.contract.contract_id == contract_id:
                return each
        raise RefusedError("no such contract")


def test_a_full_id_is_looked_up_as_it_is():
    gateway = Gateway(LISTED)
    assert asyncio.run(resolve(gateway, " CON.F.US.EP.H27 ")).name == "ESH7"
    assert gateway.asked == ["contract"]


def test_an_unknown_id_names_its_neighbours():
    with pytest.raises(NotFoundError, match=r"CON\.F\.US\.MNQ\.Z26"):
        asyncio.run(resolve(Gateway(LISTED), "CON.F.US.MNQ.Z25"))


def test_a_name_needs_one_search():
    gateway = Gateway(LISTED)
    assert asyncio.run(resolve(gateway, "MNQ")).name == "MNQZ6"
    assert gateway.asked == ["search"]


def test_a_root_of_the_gateways_own_that_no_name_holds_is_found_among_all():
    gateway = Gateway(LISTED)
    assert asyncio.run(resolve(gateway, "EP")).name == "ESZ6"
    assert gateway.asked == ["search", "available"]


def test_a_search_that_is_full_of_others_does_not_hide_the_one():
    crowd = [listing(f"F.US.X{number}", "Z26", f"X{number}Z6", "rES futures") for number in range(50)]
    assert asyncio.run(resolve(Gateway([*crowd, *LISTED]), "ES")).name == "ESZ6"
