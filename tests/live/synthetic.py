"""A synthetic market as a tape, in the gateway's own form, and as a session."""

from __future__ import annotations

from datetime import date
from itertools import islice
from typing import TYPE_CHECKING

from tapes import START_NS

from mdcapture.gateway.instruments import list_contracts, select
from mdcapture.interop.importing import import_tape
from mdcapture.session import Session, open_lake
from mdcapture.simulator.market import Market

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CONTRACTS", "imported", "market_tape"]

CONTRACTS = ("CON.F.US.MNQ.Z26", "CON.F.US.MES.Z26")


def market_tape(path: Path, *, messages: int = 6000, seed: int = 7) -> Path:
    """What subscribers of the market are told: the whole state, and then every message."""
    listings = select(CONTRACTS, list_contracts(date(2026, 11, 18)))
    market = Market(listings, {it.contract.contract_id: 124.0 for it in listings}, seed)
    _, played = market.play(START_NS)
    first = next(played)
    told = [
        message._replace(time_ns=first.time_ns)
        for listing in listings
        for stream in ("quotes", "depth")
        for message in market.snapshot(stream, listing.contract.contract_id)
    ]
    lines = [b"%d %s\n" % (message.time_ns, message.record) for message in [*told, *islice(played, messages)]]
    path.write_bytes(b"".join(lines))
    return path


def imported(tape: Path, lake: Path) -> Session:
    import_tape(str(tape), lake)
    return open_lake(lake).session()
