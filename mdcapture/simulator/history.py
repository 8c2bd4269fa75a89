"""Bars of what the local gateway has traded, as `retrieveBars` gives them.

Kept are bars of one second; every other unit is made of those when it is asked for.
"""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from mdcapture.wire.messages import Trade, TradeMessage
from mdcapture.wire.timestamps import NS_PER_S, format_ns, parse_ns

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Bar", "History", "Unit"]

_KEPT_SECONDS: Final = 86_400
_decode = msgspec.json.Decoder(TradeMessage).decode


class Unit(IntEnum):
    """The units of a bar, as the gateway numbers them."""

    SECOND = 1
    MINUTE = 2
    HOUR = 3
    DAY = 4
    WEEK = 5
    MONTH = 6


class Bar(NamedTuple):
    """One bar; `start_s` is its first second since the epoch."""

    start_s: int
    open: float
    high: float
    low: float
    close: float
    volume: int

    def then(self, later: Bar) -> Bar:
        """This bar and a later one as one."""
        high, low = max(self.high, later.high), min(self.low, later.low)
        return Bar(self.start_s, self.open, high, low, later.close, self.volume + later.volume)

    def wire(self) -> dict[str, object]:
        """The bar as the gateway writes it."""
        time = format_ns(self.start_s * NS_PER_S)
        return {"t": time, "o": self.open, "h": self.high, "l": self.low, "c": self.close, "v": self.volume}


class History:
    """The trades of up to a day (of seconds with trades), by contract."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, deque[Bar]] = defaultdict(lambda: deque(maxlen=_KEPT_SECONDS))

    def add(self, record: bytes) -> None:
        """Take one record of the trade stream; what is no sound trade makes no bar."""
        try:
            contract_id, data = _decode(record).arguments
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        seconds = self._seconds[contract_id]
        for trade in data if isinstance(data, list) else [data]:
            bar = _bar(trade)
            if bar is None:
                continue
            if seconds and bar.start_s <= seconds[-1].start_s:
                seconds[-1] = seconds[-1].then(bar)
            else:
                seconds.append(bar)

    def bars(
        self, contract_id: str, start_ns: int, end_ns: int, unit: Unit, count: int = 1, *, partial: bool = True
    ) -> list[Bar]:
        """Bars of `count` units that begin within a time, the oldest first; the one that still grows if `partial`."""
        floor = _floor(unit, count)
        merged = []
        for start_s, seconds in groupby(self._seconds.get(contract_id, ()), key=lambda bar: floor(bar.start_s)):
            first, *others = seconds
            bar = first._replace(start_s=start_s)
            for other in others:
                bar = bar.then(other)
            merged.append(bar)
        if not partial:
            del merged[-1:]
        return [bar for bar in merged if start_ns <= bar.start_s * NS_PER_S < end_ns]


def _bar(trade: Trade | None) -> Bar | None:
    if trade is None or trade.timestamp is None:
        return None
    try:
        second = parse_ns(trade.timestamp) // NS_PER_S
    except ValueError:
        return None
    return Bar(second, trade.price, trade.price, trade.price, trade.price, trade.volume)


_UNIT_S: Final = {Unit.SECOND: 1, Unit.MINUTE: 60, Unit.HOUR: 3_600, Unit.DAY: 86_400, Unit.WEEK: 604_800}
_FIRST_MONDAY_S: Final = 4 * 86_400


def _floor(unit: Unit, count: int) -> Callable[[int], int]:
    """From a second to the first second of its bar: counted from the epoch, weeks from a Monday."""
    if unit is Unit.MONTH:
        return lambda second: _month_start(second, count)
    length, origin = _UNIT_S[unit] * count, _FIRST_MONDAY_S if unit is Unit.WEEK else 0
    return lambda second: second - (second - origin) % length


def _month_start(second: int, count: int) -> int:
    day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    index = day.year * 12 + day.month - 1
    year, month = divmod(index - index % count, 12)
    return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp())
