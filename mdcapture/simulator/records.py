"""The gateway's words: hub records of one contract, written by hand because a market writes a great many."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from mdcapture.wire.timestamps import NS_PER_S, format_ns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mdcapture.gateway.instruments import Listing
    from mdcapture.simulator.book import Entry

__all__ = ["RecordWriter"]

_NS_PER_MS = 1_000_000


class RecordWriter:
    """Writes the records of one contract; prices come in ticks and leave as the shortest decimal text that is exact."""

    def __init__(self, listing: Listing) -> None:
        contract_id, symbol = listing.contract.contract_id, listing.contract.symbol_id
        self._head = {
            target: f'{{"type":1,"target":"{target}","arguments":["{contract_id}",'
            for target in ("GatewayQuote", "GatewayTrade", "GatewayDepth")
        }
        self._symbol = symbol
        self._symbol_name = f"/{listing.instrument.ticker}"
        self._tick = Decimal(listing.instrument.tick_size)
        self._texts: dict[int, str] = {}

    def price(self, ticks: int) -> str:
        """The decimal text of a price."""
        text = self._texts.get(ticks)
        if text is None:
            text = self._texts[ticks] = format((self._tick * ticks).normalize(), "f")
        return text

    def quote(self, fields: str, exch_ns: int, updated_ns: int, *, full: bool = False) -> bytes:
        """A quote with these fields, given as JSON text with a trailing comma."""
        name = f'"symbolName":"{self._symbol_name}",' if full else ""
        return (
            f'{self._head["GatewayQuote"]}{{"symbol":"{self._symbol}",{name}{fields}'
            f'"lastUpdated":"{_time(updated_ns)}","timestamp":"{_time(_whole_ms(exch_ns))}"}}]}}'
        ).encode()

    def trades(self, prints: Iterable[tuple[int, int]], side: int, exch_ns: int) -> bytes:
        """Prints (price in ticks, lots) of one order; `side` is 0 for a buyer."""
        head = f'{{"symbolId":"{self._symbol}","price":'
        tail = f',"timestamp":"{_time(_whole_ms(exch_ns))}","type":{side},"volume":'
        entries = ",".join([f"{head}{self.price(ticks)}{tail}{lots}}}" for ticks, lots in prints])
        return f"{self._head['GatewayTrade']}[{entries}]]}}".encode()

    def depth(self, entries: Iterable[Entry], exch_ns: int) -> bytes:
        """Depth entries of one change."""
        head = f'{{"timestamp":"{_time(exch_ns)}","type":'
        texts = [
            f'{head}{dom_type.value},"price":{self.price(ticks)},"volume":{volume},"currentVolume":{current}}}'
            for dom_type, ticks, volume, current in entries
        ]
        return f"{self._head['GatewayDepth']}[{','.join(texts)}]]}}".encode()


def _whole_ms(ns: int) -> int:
    return ns - ns % _NS_PER_MS


@lru_cache(maxsize=64)
def _second(second: int) -> str:
    return format_ns(second * NS_PER_S)[: len("2000-01-01T00:00:00")]


def _time(ns: int) -> str:
    """`format_ns`, without writing the same second again and again."""
    second, fraction = divmod(ns, NS_PER_S)
    digits = f"{fraction // 100:07d}".rstrip("0")
    return f"{_second(second)}.{digits}+00:00" if digits else f"{_second(second)}+00:00"
