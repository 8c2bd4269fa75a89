"""What people call a contract, to the contract: `MNQ`, `MNQZ6`, `ES`, `gold`, or a full id.

Roots are the gateway's own (the E-mini S&P is `EP`), names are the exchange's (`ESZ6`), and neither follows from the
other: the gateway is asked, and what it lists is matched, the closest kind of match first.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

from mdcapture.errors import NotFoundError, RefusedError
from mdcapture.gateway.refusals import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mdcapture.gateway.rest import Listing, RestClient
    from mdcapture.lake.manifest import Contract

__all__ = ["choose", "resolve"]

_NAME: Final = re.compile(r"(.+)[FGHJKMNQUVXZ]\d{1,2}")  # root, month, year
_CANDIDATES: Final = 8


async def resolve(client: RestClient, text: str) -> Contract:
    """Find the one contract that a text means.

    Args:
        client: Whom to ask.
        text: A full id (`CON.F.US.MNQ.Z26`), a name (`MNQZ6`), a root (`MNQ`, the gateway's or the exchange's), or
            words of the description; but for ids and names it means the active contract.

    Raises:
        NotFoundError: It means none, or several; the message lists near ones.
        GatewayError: No answer.
    """
    wanted = text.strip()
    if wanted.upper().startswith("CON."):
        try:
            return (await client.contract(wanted)).contract
        except RefusedError:
            root = wanted.split(".")[-2]
            return choose(await client.search(root), wanted)
    found = await client.search(wanted)
    if len(_meant(found, wanted)) != 1:  # the list of 20 may have been full of others
        found += await client.available()
    return choose(found, wanted)


def choose(listings: Sequence[Listing], text: str) -> Contract:
    """Choose the contract that a text means.

    Raises:
        NotFoundError: It means none, or several; the message lists near ones.
    """
    meant = _meant(listings, text)
    if len(meant) == 1:
        return meant[0].contract
    near = meant or _near(listings, text)
    names = "; ".join(_described(listing.contract) for listing in near[:_CANDIDATES])
    problem = "means several contracts" if meant else "is no active contract that the gateway knows"
    hint = f"did you mean: {names}?" if names else "`mdcapture contracts TEXT` searches for one"
    raise NotFoundError(f"{quoted(text)!r} {problem}; {hint}")


def _meant(listings: Sequence[Listing], text: str) -> list[Listing]:
    """The listings of the closest kind of match that there is, each contract once."""
    wanted = text.casefold()
    unique = list({listing.contract.contract_id: listing for listing in listings}.values())
    named = [each for each in unique if wanted in (each.contract.contract_id.casefold(), each.contract.name.casefold())]
    if named or not wanted:
        return named
    rooted = [each for each in unique if wanted in _roots(each.contract)]
    words = re.compile(rf"\b{re.escape(wanted)}\b")
    described = [each for each in unique if words.search(each.contract.description.casefold())]
    return [each for each in rooted or described if each.active]


def _roots(contract: Contract) -> set[str]:
    """What a contract's product is called: the gateway's root, with and without its path, and the exchange's."""
    symbol = contract.symbol_id.casefold()
    roots = {symbol, symbol.rpartition(".")[2]}
    if (name := _NAME.fullmatch(contract.name)) is not None:
        roots.add(name[1].casefold())
    return roots - {""}


def _near(listings: Sequence[Listing], text: str) -> list[Listing]:
    by_name = {
        name: listing
        for listing in listings
        for name in (
            listing.contract.contract_id.casefold(),
            listing.contract.name.casefold(),
            *_roots(listing.contract),
        )
    }
    names = difflib.get_close_matches(text.casefold(), by_name, n=_CANDIDATES, cutoff=0.5)
    return list({by_name[name].contract.contract_id: by_name[name] for name in names}.values())


def _described(contract: Contract) -> str:
    return quoted(f"{contract.name or '?'} ({contract.contract_id}, {contract.description})")
