"""What hftbacktest makes of our files: run by an interpreter that has it, `python read_by_hftbacktest.py OUT NPZ…`.

A strategy without orders looks at its book and its trades after each moment in which it is sent something.
"""

from __future__ import annotations

import sys

import numpy as np
from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest
from hftbacktest.data import validate_event_order
from hftbacktest.types import BUY_EVENT, LOCAL_EVENT
from numba import njit

LEVELS, TICK = 10, 0.25


@njit  # type: ignore[untyped-decorator]
def look(hbt, times, books, trades):  # type: ignore[no-untyped-def]  # noqa: ANN001  # numba finds the types
    count = 0
    hbt.elapse(0)  # the clock begins with the data
    for row in range(len(times)):
        hbt.elapse(times[row] - hbt.current_timestamp)
        depth = hbt.depth(0)
        for side in range(2):
            best = depth.best_ask_tick if side else depth.best_bid_tick
            found = 0
            for step in range(100):
                tick = best + step if side else best - step
                size = depth.ask_qty_at_tick(tick) if side else depth.bid_qty_at_tick(tick)
                if size > 0 and found < books.shape[2]:
                    books[row, side, found] = tick * depth.tick_size, size
                    found += 1
        for trade in hbt.last_trades(0):
            side = 1 if trade.ev & BUY_EVENT else -1
            trades[count] = trade.exch_ts, trade.local_ts, int(trade.px / depth.tick_size), int(trade.qty), side
            count += 1
        hbt.clear_last_trades(0)
    return count


def main() -> None:
    out, *files = sys.argv[1:]
    data = [np.load(file)["data"] for file in files]
    for events in data:
        validate_event_order(events)
    every = np.concatenate(data)
    times = np.unique(every["local_ts"][every["ev"] & LOCAL_EVENT > 0])
    asset = (
        BacktestAsset().data(files).linear_asset(50.0).constant_order_latency(0, 0).risk_adverse_queue_model()
        .no_partial_fill_exchange().trading_value_fee_model(0.0, 0.0).tick_size(TICK).lot_size(1.0)
        .last_trades_capacity(1000)
    )  # fmt: skip
    hbt = HashMapMarketDepthBacktest([asset])
    books = np.full((len(times), 2, LEVELS, 2), np.nan)
    trades = np.zeros((len(every), 5), np.int64)
    count = look(hbt, times, books, trades)
    hbt.close()
    np.savez(out, times=times, books=books, trades=trades[:count])


if __name__ == "__main__":
    main()
