"""What NautilusTrader makes of our catalog: run as `python read_by_nautilus.py OUT CATALOG` where it is installed.

A strategy looks at its book, as the engine keeps it, after each message, and notes all ticks that it is sent.
"""

from __future__ import annotations

import sys

import numpy as np
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.enums import AccountType, AggressorSide, BookType, OmsType
from nautilus_trader.model.identifiers import Venue
from nautilus_trader.model.objects import Money
from nautilus_trader.persistence.catalog import ParquetDataCatalog
from nautilus_trader.trading.strategy import Strategy

LEVELS = 10
SIDES = {AggressorSide.BUYER: 0, AggressorSide.SELLER: 1}


class Watcher(Strategy):
    def __init__(self, instrument) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001  # theirs
        super().__init__()
        self.instrument = instrument
        self.times, self.books, self.quote_times, self.quotes, self.trades = [], [], [], [], []

    def on_start(self) -> None:
        self.subscribe_order_book_deltas(self.instrument.id, BookType.L2_MBP)
        self.subscribe_quote_ticks(self.instrument.id)
        self.subscribe_trade_ticks(self.instrument.id)

    def on_order_book_deltas(self, deltas) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001  # theirs
        book = self.cache.order_book(self.instrument.id)
        seen = np.full((2, LEVELS, 2), np.nan)
        for side, levels in enumerate((book.bids(), book.asks())):
            for place, level in enumerate(levels[:LEVELS]):
                seen[side, place] = float(level.price), level.size()
        self.times.append(deltas.ts_init)
        self.books.append(seen)

    def on_quote_tick(self, tick) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001  # theirs
        self.quote_times.append(tick.ts_init)
        self.quotes.append(tuple(map(float, (tick.bid_price, tick.ask_price, tick.bid_size, tick.ask_size))))

    def on_trade_tick(self, tick) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001  # theirs
        side = SIDES.get(tick.aggressor_side, -1)
        self.trades.append((tick.ts_event, tick.ts_init, round(float(tick.price) * 4), int(tick.size), side))


def main() -> None:
    out, folder = sys.argv[1:]
    catalog = ParquetDataCatalog(folder)
    (instrument,) = catalog.instruments()
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    money = [Money(1_000_000, USD)]
    engine.add_venue(Venue("PROJECTX"), OmsType.NETTING, AccountType.MARGIN, money, book_type=BookType.L2_MBP)
    engine.add_instrument(instrument)
    for data in (catalog.order_book_deltas(batched=True), catalog.quote_ticks(), catalog.trade_ticks()):
        engine.add_data(data)
    watcher = Watcher(instrument)
    engine.add_strategy(watcher)
    engine.run()
    worth = str(instrument.price_increment), str(instrument.multiplier), str(instrument.expiration_utc)
    noted = {name: getattr(watcher, name) for name in ("times", "books", "quote_times", "quotes", "trades")}
    np.savez(out, instrument=worth, **noted)
    engine.dispose()


if __name__ == "__main__":
    main()
