"""A metric of your own: a plain function of frames, which no gap can mislead.

    python examples/custom_metric.py LAKE [SESSION]      a session that was captured
    python examples/custom_metric.py                     a synthetic market of some minutes

The metric is the share of aggressive orders that print at more than one price, by side and minute: how often somebody
takes more than the best price holds. Prints of one exchange time and side are one order, and rows inside of a gap are
left out (`clean=True`).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import polars as pl

import mdcapture as md
from mdcapture.demo import synthesize

MINUTE_NS = 60_000_000_000


def sweep_share(trades: pl.LazyFrame) -> pl.LazyFrame:
    """The share of aggressive orders with more than one price.

    Args:
        trades: The lake's trades.

    Returns:
        A row a contract, minute and side: `contract_id`, `start_ns` (ns UTC), `side`, `orders`, `sweep_share`.
    """
    orders = trades.group_by("contract_id", "exch_ns", "side").agg(
        recv_ns=pl.col("recv_ns").min(), prices=pl.col("price").n_unique()
    )
    return (
        orders.group_by("contract_id", "side", start_ns=pl.col("recv_ns") // MINUTE_NS * MINUTE_NS)
        .agg(orders=pl.len(), sweep_share=(pl.col("prices") > 1).mean())
        .select("contract_id", "start_ns", "side", "orders", "sweep_share")
        .sort("contract_id", "start_ns", "side")
    )


def main(session: md.Session) -> None:
    """Print the metric of a session."""
    print(sweep_share(session.trades(clean=True)).collect())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(md.open_lake(sys.argv[1]).session(*sys.argv[2:3]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(synthesize(Path(folder), duration_s=300, contracts=["MNQ"]))
