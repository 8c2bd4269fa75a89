"""Export a session to a backtester: the book's changes and the trades in hftbacktest's own arrays.

    python examples/backtest_export.py LAKE [SESSION]      a session that was captured, into the folder `hft`
    python examples/backtest_export.py                     a synthetic market of some minutes

Each contract is a file that `BacktestAsset().data([...])` takes; nothing but numpy is needed to write or to read it.
Both times are there, so the latency that a backtest has is the one that was measured.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

import mdcapture as md
from mdcapture.demo import synthesize

KIND, TRADE, LOCAL = 0xFF, 2, 1 << 30
"""hftbacktest's flags in `ev`: what happened, a trade, and that we are told of it (not only the exchange's side)."""


def export(session: md.Session, folder: Path) -> pl.DataFrame:
    """Write the session's contracts to a new folder.

    Returns:
        A row a contract: `file`, `events`, `trades`, `lots` (traded), `latency_ms` (median).
    """
    session.export(folder, form="hftbacktest")
    rows = []
    for path in sorted(folder.glob("*.npz")):
        events = np.load(path)["data"]
        trades = events[(events["ev"] & KIND == TRADE) & (events["ev"] & LOCAL > 0)]
        latency_ns = np.median(trades["local_ts"] - trades["exch_ts"]) if len(trades) else np.nan
        rows.append((path.name, len(events), len(trades), int(trades["qty"].sum()), latency_ns / 1e6))
    return pl.DataFrame(rows, ["file", "events", "trades", "lots", "latency_ms"], orient="row")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(export(md.open_lake(sys.argv[1]).session(*sys.argv[2:3]), Path("hft")))
    else:
        with tempfile.TemporaryDirectory() as name:
            market = synthesize(Path(name, "lake"), duration_s=300, contracts=["MNQ"])
            print(export(market, Path(name, "hft")))
