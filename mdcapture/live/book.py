"""The order book of one contract, one depth entry after the other; `mdcapture.metrics.book` has the rules.

After every message it equals the snapshot that `book_snapshots` makes of the same entries. Nothing here raises over
what the feed sends: entries that can't be used are left out and counted.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from mdcapture.errors import UsageError
from mdcapture.lake.schema import DomType
from mdcapture.metrics.book import GRID_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Book", "Level", "Levels"]

_ROWS: Final = frozenset((DomType.ASK, DomType.BID))
_ASK_TYPES: Final = (DomType.ASK, DomType.BEST_ASK, DomType.NEW_BEST_ASK)
_BID_TYPES: Final = (DomType.BID, DomType.BEST_BID, DomType.NEW_BEST_BID)
_OTHER_TYPES: Final = (DomType.TRADE, DomType.LOW, DomType.HIGH, DomType.FILL)


class Level(NamedTuple):
    """A price, the lots that wait at it, and which entry of the feed said so, counted from 1."""

    price: float
    size: int
    told: int


class Levels(NamedTuple):
    """The best levels of a book, the best first; none where it is unknown."""

    kind: Literal["unknown", "top", "ladder"]
    bids: list[Level]
    asks: list[Level]


_UNKNOWN: Final = Levels("unknown", [], [])


class _Side:
    """One side as it was told: its levels and their prices, both by rising price, and the pointer to its best level."""

    __slots__ = ("levels", "pointer", "prices")

    def __init__(self) -> None:
        self.levels: list[Level] = []
        self.prices: list[float] = []
        self.pointer: Level | None = None

    def clear(self) -> None:
        self.levels.clear()
        self.prices.clear()
        self.pointer = None

    def tell(self, level: Level) -> None:
        """Set a level, or remove it if its size is 0."""
        price, size, _ = level
        place = bisect_left(self.prices, price)
        known = place < len(self.prices) and self.prices[place] == price
        if known and size:
            self.levels[place] = level
        elif known:
            del self.levels[place], self.prices[place]
        elif size:
            self.levels.insert(place, level)
            self.prices.insert(place, price)


class Book:
    """The book as it was told, and views of it.

    `odd` counts what was: entries that were left out, by the reasons of `metrics.book.entry_fault`, and as `crossed`
    the messages after which the levels told, hidden ones among them, locked or crossed.

    Args:
        tick_size: The tick in price units. Prices off its grid are left out, and a book after a gap can be found whole.

    Raises:
        UsageError: The tick is not positive.
    """

    __slots__ = ("_asks", "_bids", "_entries", "_kind", "_reset", "_sides", "_tick_size", "odd")

    def __init__(self, *, tick_size: float | None = None) -> None:
        if tick_size is not None and not tick_size > 0:
            raise UsageError(f"tick_size must be positive, not {tick_size}: there is no book")
        self.odd: Counter[str] = Counter()
        self._tick_size = tick_size
        self._asks, self._bids = _Side(), _Side()
        self._sides: dict[int | None, _Side] = dict.fromkeys(_ASK_TYPES, self._asks)
        self._sides |= dict.fromkeys(_BID_TYPES, self._bids)
        self._entries = 0
        self._clear(reset=False)

    def forget(self) -> None:
        """There was a gap: what was told before it no longer counts, and what comes is a part of the book only."""
        self._clear(reset=False)

    def _clear(self, *, reset: bool) -> None:
        self._asks.clear()
        self._bids.clear()
        self._kind: Literal["unknown", "top", "ladder"] = "unknown"
        self._reset = reset

    def apply_message(self, entries: Iterable[tuple[int | None, float | None, int | None]]) -> None:
        """Take in the entries of one message, each its type, price and volume, in their order."""
        for dom_type, price, volume in entries:
            self.apply(dom_type, price, volume)
        if self.crossed:
            self.odd["crossed"] += 1

    def apply(self, dom_type: int | None, price: float | None, volume: int | None) -> None:
        """Take in one entry; `crossed` is not counted, since it may pass within a message."""
        self._entries += 1
        side = self._sides.get(dom_type)
        if side is None:
            if dom_type == DomType.RESET:
                self._clear(reset=True)
            elif dom_type not in _OTHER_TYPES:
                self.odd["unknown_type"] += 1
        elif (fault := self._fault(price, volume)) or price is None or volume is None:
            self.odd[fault] += 1
        elif dom_type in _ROWS:
            self._kind = "ladder"
            side.tell(Level(price, volume, self._entries))
        else:
            self._kind = "ladder" if self._kind == "ladder" else "top"
            side.pointer = Level(price, volume, self._entries) if volume else None

    def _fault(self, price: float | None, volume: int | None) -> str:
        """Why a level can't be used, see `metrics.book.entry_fault`; empty where it can."""
        if price is None or not math.isfinite(price):
            return "no_price"
        if volume is None:
            return "no_size"
        if volume < 0:
            return "negative_size"
        off_grid = self._tick_size is not None and _off_grid(price / self._tick_size)
        return "off_grid" if off_grid else ""

    @property
    def crossed(self) -> bool:
        """Whether what was told locks or crosses: the best levels of the ladder, or the pointers without one."""
        asks, bids = self._asks, self._bids
        if self._kind == "ladder":
            return bool(asks.prices and bids.prices) and asks.prices[0] <= bids.prices[-1]
        return asks.pointer is not None and bids.pointer is not None and asks.pointer.price <= bids.pointer.price

    @property
    def kind(self) -> Literal["unknown", "top", "ladder"]:
        """What the best levels come from, see `metrics.book.KINDS`."""
        return self.levels(1).kind

    @property
    def best(self) -> tuple[Level | None, Level | None]:
        """The best bid and ask."""
        _, bids, asks = self.levels(1)
        return (bids[0] if bids else None, asks[0] if asks else None)

    def levels(self, count: int = 10) -> Levels:
        """The best levels of both sides, at most `count` each."""
        if self._kind == "unknown":
            return _UNKNOWN
        if self._kind == "top" or self._disputed():
            bids, asks = self._uncontradicted(count)
        else:
            bids, asks = self._bids.levels[: -count - 1 : -1], self._asks.levels[:count]
        return Levels(self._kind, bids, asks) if self._reset or self._whole(bids, asks, count) else _UNKNOWN

    def _disputed(self) -> bool:
        """Whether a best level meets the other side's, or a pointer to it, or is better than its own side's pointer."""
        asks, bids = self._asks, self._bids
        ask = asks.prices[0] if asks.prices else math.inf
        bid = bids.prices[-1] if bids.prices else -math.inf
        ask_said = asks.pointer.price if asks.pointer else None
        bid_said = bids.pointer.price if bids.pointer else None
        return (
            ask <= bid
            or (ask_said is not None and (ask < ask_said or ask_said <= bid))
            or (bid_said is not None and (bid > bid_said or bid_said >= ask))
        )

    def _uncontradicted(self, count: int) -> tuple[list[Level], list[Level]]:
        """The best levels that no newer word contradicts; without a ladder the pointers are the levels."""
        sides, top = (self._asks, self._bids), self._kind == "top"
        words = [(level, side, False) for side in range(2) for level in sides[side].levels]
        words += [(pointer, side, True) for side in range(2) if (pointer := sides[side].pointer)]
        shown: tuple[list[Level], list[Level]] = ([], [])
        best, limit = [math.inf, math.inf], [-math.inf, -math.inf]  # prices counted outwards: those of bids negative
        for level, side, is_pointer in sorted(words, key=lambda word: word[0].told, reverse=True):
            price = -level.price if side else level.price
            if price > -best[1 - side] and price >= limit[side]:
                best[side] = min(best[side], price)
                if is_pointer:
                    limit[side] = price
                if is_pointer == top:
                    shown[side].append(level)
        asks, bids = (sorted(levels, key=lambda level: level.price) for levels in shown)
        return bids[: -count - 1 : -1], asks[:count]

    def _whole(self, bids: list[Level], asks: list[Level], count: int) -> bool:
        """Whether nothing untold can hide among the levels: all on neighbouring ticks, or both pointers told."""
        if self._kind == "top":
            return bool(bids and asks)
        if self._tick_size is None or len(bids) < count or len(asks) < count:
            return False
        ticks = (asks[-1].price - bids[-1].price) / self._tick_size
        return abs(ticks - (2 * count - 1)) <= 2 * GRID_TOLERANCE


def _off_grid(ticks: float) -> bool:
    return not abs(ticks - (ticks + 0.5) // 1) <= GRID_TOLERANCE
