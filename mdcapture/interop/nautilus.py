"""A catalog for NautilusTrader: the contract, the book's changes, the best bid and ask with their sizes, and prints.

All is written by its own library, slice by slice. `ts_event` is the gateway's time (the receive time where that can't
be read), `ts_init` the receive time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mdcapture.errors import UsageError
from mdcapture.interop.books import books, changes, delivery_month, prints
from mdcapture.lake.schema import Side
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from mdcapture.interop.books import Market
    from mdcapture.lake.manifest import Contract

__all__ = ["VENUE", "write"]

VENUE: Final = "PROJECTX"
"""Instruments are called `NAME.PROJECTX`: the gateway does not say which exchange they are of."""

_LONGEST_MONTH: Final = timedelta(days=31)
_NEVER_NS: Final = 2**63 - 1
_TOP: Final = ("bid_price_0", "ask_price_0", "bid_size_0", "ask_size_0")


def write(folder: Path, market: Market, levels: int, progress: Callable[[int], object]) -> dict[str, int]:
    """Add a market to the catalog in a folder.

    Args:
        folder: The catalog's.
        market: What to write.
        levels: How many levels a side the book has.
        progress: Told of the objects so far.

    Returns:
        The number of objects by kind.

    Raises:
        UsageError: `nautilus_trader` is not installed, the worth of the contract's tick is not known, or the session
            overlaps with another one of that contract.
    """
    try:
        from nautilus_trader.persistence.catalog import ParquetDataCatalog  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise UsageError(
            "nautilus needs NautilusTrader beside mdcapture, on Python 3.12 or newer: pip install 'mdcapture[nautilus]'"
        ) from error
    instrument = _instrument(market.contract, market.start_ns)
    catalog = ParquetDataCatalog(str(folder))
    catalog.write_data([instrument])
    counts: dict[str, int] = {}
    for kind, slices in {
        "order_book_deltas": _deltas(instrument, changes(books(market, levels), levels)),
        "quote_ticks": _quote_ticks(instrument, books(market, levels)),
        "trade_ticks": _trade_ticks(instrument, market.session_id, prints(market)),
    }.items():
        counts[kind] = 0
        for objects in filter(None, slices):
            _add(catalog, objects)
            counts[kind] += len(objects)
            progress(sum(counts.values()))
    return counts


def _add(catalog: Any, objects: list[Any]) -> None:  # noqa: ANN401  # theirs
    try:
        catalog.write_data(objects)
    except ValueError as error:
        raise UsageError(f"the catalog does not take this session beside the others: {error}") from error


def _instrument(contract: Contract, start_ns: int) -> Any:  # noqa: ANN401  # theirs
    from nautilus_trader.model import currencies, enums, identifiers, instruments, objects  # noqa: PLC0415  # an extra

    if contract.tick_size is None or contract.tick_value is None:
        raise UsageError(
            f"what a tick of {contract.contract_id} is and is worth is not known, and without it a backtest's profits "
            "would be wrong: choose another contract with --contract"
        )
    tick, worth = Decimal(str(contract.tick_size)), Decimal(str(contract.tick_value))
    month = delivery_month(contract.contract_id)
    ends = None if month is None else (month + _LONGEST_MONTH).replace(day=1)
    symbol = identifiers.Symbol(contract.name or contract.contract_id.replace(".", "-"))  # theirs have no dots
    precision = max(0, -int(tick.normalize().as_tuple().exponent))
    return instruments.FuturesContract(
        instrument_id=identifiers.InstrumentId(symbol, identifiers.Venue(VENUE)),
        raw_symbol=symbol,
        asset_class=enums.AssetClass.ALTERNATIVE,
        currency=currencies.USD,
        price_precision=precision,
        price_increment=objects.Price(tick, precision),
        multiplier=objects.Quantity.from_str(f"{worth / tick:f}"),
        lot_size=objects.Quantity.from_int(1),
        underlying=contract.symbol_id.rpartition(".")[2] or contract.contract_id,
        activation_ns=0,
        expiration_ns=_NEVER_NS
        if ends is None
        else int(datetime(*ends.timetuple()[:3], tzinfo=UTC).timestamp()) * NS_PER_S,
        ts_event=start_ns,
        ts_init=start_ns,
        info={"contract_id": contract.contract_id, "description": contract.description},
    )


def _deltas(instrument: Any, slices: Iterable[pl.DataFrame]) -> Iterator[list[Any]]:  # noqa: ANN401  # theirs
    """The book's changes; a message's last one has the flag that says so, and the first of all empties the book."""
    from nautilus_trader.model import data, enums  # noqa: PLC0415  # an extra

    name, price, size = _made(instrument)
    actions = {"add": enums.BookAction.ADD, "update": enums.BookAction.UPDATE, "delete": enums.BookAction.DELETE}
    sides = {True: enums.OrderSide.BUY, False: enums.OrderSide.SELL}
    flags = {True: enums.RecordFlag.F_LAST.value, False: 0}
    begun = False
    for rows in slices:
        lasts = rows["seq"] != rows["seq"].shift(-1, fill_value=-1)
        made = [
            data.OrderBookDelta(
                name,
                actions[action],
                data.BookOrder(sides[bid], price(at), size(lots), 0),
                flags[last],
                seq,
                exch,
                recv,
            )
            for seq, recv, exch, action, bid, at, lots, last in _timed(rows).with_columns(last=lasts).iter_rows()
        ]
        if not begun:
            begun = True
            first = made[0]
            made.insert(0, data.OrderBookDelta.clear(name, first.sequence, first.ts_event, first.ts_init))
        yield made


def _quote_ticks(instrument: Any, slices: Iterable[pl.DataFrame]) -> Iterator[list[Any]]:  # noqa: ANN401  # theirs
    """The best levels wherever they changed and both sides are known."""
    from nautilus_trader.model import data  # noqa: PLC0415  # an extra

    name, price, size = _made(instrument)
    changed = pl.any_horizontal(pl.col(one).ne_missing(pl.col(one).shift()) for one in _TOP)
    known = pl.all_horizontal(pl.col(one).is_not_null() for one in _TOP)
    for book in slices:
        rows = _timed(book.select("seq", "recv_ns", "exch_ns", *_TOP).filter(changed & known))
        yield [
            data.QuoteTick(name, price(bid), price(ask), size(bid_lots), size(ask_lots), exch, recv)
            for _, recv, exch, bid, ask, bid_lots, ask_lots in rows.iter_rows()
        ]


def _trade_ticks(instrument: Any, session_id: str, slices: Iterable[pl.DataFrame]) -> Iterator[list[Any]]:  # noqa: ANN401
    from nautilus_trader.model import data, enums, identifiers  # noqa: PLC0415  # an extra

    name, price, size = _made(instrument)
    session = session_id.removeprefix("session_")
    sides = {Side.BUY: enums.AggressorSide.BUYER, Side.SELL: enums.AggressorSide.SELLER}
    nobody = enums.AggressorSide.NO_AGGRESSOR
    columns = ("seq", "recv_ns", "exch_ns", "pos", "price", "volume", "side")
    for trades in slices:
        rows = _timed(trades.select(columns).filter(pl.col("volume") > 0))
        yield [
            data.TradeTick(
                name,
                price(at),
                size(lots),
                sides.get(side, nobody),
                identifiers.TradeId(f"{session}-{seq}-{pos}"),
                exch,
                recv,
            )
            for seq, recv, exch, pos, at, lots, side in rows.iter_rows()
        ]


def _made(instrument: Any) -> tuple[Any, Callable[[float], Any], Callable[[int], Any]]:  # noqa: ANN401  # theirs
    """The instrument's id, and makers of its prices and sizes, each of which is made once."""
    return instrument.id, cache(instrument.make_price), cache(instrument.make_qty)


def _timed(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col("exch_ns").fill_null(pl.col("recv_ns")).clip(lower_bound=0))
