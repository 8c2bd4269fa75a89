"""Order flow imbalance as a signal, and the queues' beside it: written once, run on a session, and judged.

    python examples/ofi_signal.py LAKE [SESSION]     a session that was captured
    python examples/ofi_signal.py                    a synthetic market of some minutes

Each second's value is set against the mid's return over the next seconds. The line between the two is fitted to the
first half of the session, and judged on the second; what a gap touches is left out. An R^2 below 0 says that one would
have done better without the signal: flow explains the return of its own second well, and later ones hardly.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import date
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

import mdcapture as md
from mdcapture.gateway.instruments import list_contracts, select
from mdcapture.live.bars import TimeBars
from mdcapture.live.estimators import Every
from mdcapture.live.flow import OrderFlowImbalance, QueueImbalance
from mdcapture.live.replay import Replay
from mdcapture.live.signals import Signals, predictive_r2
from mdcapture.simulator.market import Market

if TYPE_CHECKING:
    from mdcapture.live.bars import Bar
    from mdcapture.live.online import Values

SECOND_NS = 1_000_000_000
HORIZONS_NS = [SECOND_NS, 5 * SECOND_NS, 30 * SECOND_NS]
LEAST = 30
"""Seconds below which a line through them, or a judgement on them, says nothing."""


def second_signals() -> Signals:
    """Two signals at the end of each second in which something traded."""
    signals = Signals(
        {
            "ofi": lambda: Every(SECOND_NS, OrderFlowImbalance()),
            "lean": QueueImbalance,
            "seconds": lambda: TimeBars(SECOND_NS),
        }
    )

    @signals.on_bar("seconds")
    def order_flow_imbalance(_second: Bar, now: Values) -> float | None:
        flow: int | None = now["ofi"]
        return flow

    @signals.on_bar("seconds")
    def queue_imbalance(_second: Bar, now: Values) -> float | None:
        lean: float | None = now["lean"]
        return lean

    return signals


def judge(session: md.Session) -> pl.DataFrame:
    """What the signals say of the next seconds; nothing where there are too few of them."""
    said = second_signals().run(Replay(session))
    gaps = session.gaps(streams=["quotes", "depth"])
    judged = predictive_r2(said, session.quotes(), HORIZONS_NS, incidents=gaps)
    enough = pl.min_horizontal("n_fit", "n") >= LEAST
    return judged.with_columns(
        pl.when(enough).then(pl.col("slope", "r2_in_sample", "r2")),
        note=pl.when(~enough).then(pl.lit(f"too few: fewer than {LEAST}")),
    )


def synthetic_session(folder: Path, minutes: float, start_ns: int = 1_795_000_000_000_000_000) -> md.Session:
    """Some minutes of the local gateway's model of a market, as a session."""
    contract, rate = "CON.F.US.MNQ.Z26", 124
    listings = select([contract], list_contracts(date(2026, 11, 18)))
    market = Market(listings, {contract: rate}, seed=1)
    _, played = market.play(start_ns)
    told = [*market.snapshot("quotes", contract), *market.snapshot("depth", contract)]
    messages = [*told, *islice(played, round(minutes * 60 * rate))]
    tape = folder / "market.ndjson"
    tape.write_bytes(b"".join(b"%d %s\n" % (message.time_ns, message.record) for message in messages))
    md.import_tape(str(tape), folder / "lake")
    return md.open_lake(folder / "lake").session()


def main() -> None:
    """Judge the signal on the session that is named, or on a synthetic one."""
    if len(sys.argv) > 1:
        print(judge(md.open_lake(sys.argv[1]).session(*sys.argv[2:3])))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(judge(synthetic_session(Path(folder), minutes=30)))


if __name__ == "__main__":
    main()
