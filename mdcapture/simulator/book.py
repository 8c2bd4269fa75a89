"""One side of a synthetic order book, and how the gateway words its changes.

A side is a ladder without holes: sizes from the best price outwards, a fixed number of levels. Prices are whole ticks.
When the best price goes, the ladder gets a new far level; when a better one comes, it loses its farthest: as on the
gateway, where a ladder has so many rows and every row that enters or leaves is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mdcapture.lake.schema import DomType

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BookSide", "Entry"]


class Entry(NamedTuple):
    """One depth entry; the price in ticks."""

    type: DomType
    ticks: int
    volume: int
    current_volume: int = 0


class BookSide:
    """The asks (`outward` is +1) or the bids (-1).

    Args:
        outward: The direction in which prices get worse.
        best: The best price.
        levels: How many levels the ladder has.
        fresh: Draws the size of a level that appears, from its distance to the best price in levels.
    """

    __slots__ = ("_fresh", "_new_best", "_pointer", "_row", "best", "outward", "sizes")

    def __init__(self, outward: int, best: int, levels: int, fresh: Callable[[int], int]) -> None:
        asks = outward > 0
        self.outward = outward
        self.best = best
        self.sizes = [fresh(level) for level in range(levels)]
        self._fresh = fresh
        self._row = DomType.ASK if asks else DomType.BID
        self._pointer = DomType.BEST_ASK if asks else DomType.BEST_BID
        self._new_best = DomType.NEW_BEST_ASK if asks else DomType.NEW_BEST_BID

    def change(self, level: int, lots: int) -> list[Entry]:
        """Add lots to a level, or take them away: the best one goes when it is empty, any other keeps a lot."""
        size = self.sizes[level] + lots
        if size <= 0 and level == 0:
            return self.deplete()
        size = self.sizes[level] = max(size, 1)
        return [Entry(self._row, self.best + self.outward * level, size)]

    def deplete(self) -> list[Entry]:
        """Remove the best level."""
        gone = self.best
        far = len(self.sizes) - 1
        del self.sizes[0]
        self.sizes.append(self._fresh(far))
        self.best += self.outward
        return [Entry(self._row, gone, 0), Entry(self._row, self.best + self.outward * far, self.sizes[far])]

    def improve(self, lots: int) -> list[Entry]:
        """Put a new best level a tick inside."""
        self.best -= self.outward
        self.sizes.insert(0, lots)
        self.sizes.pop()
        return [Entry(self._row, self.best, lots), Entry(self._row, self.best + self.outward * len(self.sizes), 0)]

    def rows(self) -> list[Entry]:
        """The whole ladder."""
        return [Entry(self._row, self.best + self.outward * level, size) for level, size in enumerate(self.sizes)]

    def pointers(self, best: int | None = None, size: int = 0) -> list[Entry]:
        """What is to be said of the best level if the last that was said is this."""
        pointer = Entry(self._pointer, self.best, self.sizes[0])
        if best != self.best:
            return [Entry(self._new_best, self.best, self.sizes[0]), pointer]
        return [pointer] if size != self.sizes[0] else []
