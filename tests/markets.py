"""Sessions to look at: a few minutes of the synthetic market, and one that lacks nearly everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lake_builder import MS, depth, quote, recording, trade

from mdcapture.demo import synthesize
from mdcapture.lake.schema import Incident, IncidentKind
from mdcapture.session import open_lake

if TYPE_CHECKING:
    from pathlib import Path

    from mdcapture.session import Session

MINUTES = 24


def market(lake: Path) -> Session:
    """Twenty-four minutes of two contracts."""
    return synthesize(lake, duration_s=60 * MINUTES, contracts=("ES", "MNQ"), rate=8.0)


def broken(lake: Path, *, trades: int = 40, quotes: int = 60, gap_ns: int = 20_000 * MS) -> Session:
    """One contract, whose feed was silent for a while in the middle."""
    contract = "CON.F.US.EP.H24"
    with recording(lake, tick_sizes={contract: 0.25}) as session:
        session.receive(depth(contract, {"type": 6, "volume": 0}))
        for half in range(2):
            for number in range(quotes // 2):
                bid = 4800 + 0.25 * (number % 4)
                session.receive(quote(contract, bestBid=bid, bestAsk=bid + 0.25 * (1 + number % 2)), step_ns=500 * MS)
                if number < trades // 2:
                    session.receive(trade(contract, price=bid, volume=1 + number % 7, side=number % 2))
            if half == 0:
                gap = Incident(IncidentKind.GAP, None, contract, session.now_ns, session.now_ns + gap_ns, "cut")
                session.now_ns += gap_ns
                session.tell(gap)
        session.finish()
    return open_lake(lake).session()
