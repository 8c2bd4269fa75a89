"""What the benchmarks run on: the hour of ES futures, where it is there, and the synthetic market."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, time
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from mdcapture.gateway.instruments import list_contracts
from mdcapture.gateway.tape import read_data
from mdcapture.simulator.market import Market

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SHARED", "TAPE", "Record", "market_records", "tape_records"]

Record = tuple[int, bytes]
"""A receive time (ns UTC) and a hub record."""

SHARED = Path(os.environ.get("MDCAPTURE_REFERENCE", Path(__file__).resolve().parent.parent.parent / "shared"))
TAPE = SHARED / "tapes" / "es_20231225.ndjson.zst"
_CONTRACT = re.compile(rb'"CON\.[^"]+"')
_START = datetime.combine(datetime.now(UTC).date(), time(15), UTC)
"""Today, so that a local gateway lists the same contracts."""


def tape_records(contracts: int) -> list[Record]:
    """The tape's messages, each under that many contract ids; nothing where the tape is not there."""
    if not TAPE.exists():
        return []
    ids = [b'"CON.F.US.EP%d.H24"' % number for number in range(contracts)]
    return [(recv_ns, _CONTRACT.sub(id_, text, count=1)) for recv_ns, text in read_data(TAPE) for id_ in ids]


def market_records(messages: int, contracts: int = 12, seed: int = 7) -> list[Record]:
    """Messages of the synthetic market, as a new subscriber gets them: first what there is."""
    return list(_market(messages, contracts, seed))


def _market(messages: int, contracts: int, seed: int) -> Iterator[Record]:
    listings = list_contracts(_START.date())[:contracts]
    rates = {listing.contract.contract_id: 20.0 for listing in listings}
    start_ns = int(_START.timestamp()) * 1_000_000_000
    market = Market(listings, rates, seed)
    _, stream = market.play(start_ns)
    first = [message for which in ("quotes", "depth") for one in rates for message in market.snapshot(which, one)]
    for message in islice(chain(first, stream), messages):
        yield message.time_ns, message.record
