"""Bars, average prices and the volume profile as they become known, from trades: `metrics.bars` and `metrics.profile`.

A bar is told when it is closed: by the trade that closes it, by time, or by a gap, and it never changes later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mdcapture.live.estimators import Estimator, positive

if TYPE_CHECKING:
    from mdcapture.capture.events import TradeEvent

__all__ = ["Bar", "DollarBars", "TickBars", "TimeBars", "VolumeBars", "VolumeProfile", "Vwap"]


class Bar(NamedTuple):
    """A closed bar; `complete` is false where a gap closed it."""

    start_ns: int
    end_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: int
    buy_volume: int
    sell_volume: int
    trades: int
    vwap: float | None
    complete: bool


class _OpenBar:
    """A bar that trades still come to."""

    __slots__ = ("bought", "close", "end_ns", "first", "high", "low", "sold", "start_ns", "trades", "value", "volume")

    def __init__(self, start_ns: int, price: float) -> None:
        self.start_ns = self.end_ns = start_ns
        self.first = self.high = self.low = self.close = price
        self.volume = self.bought = self.sold = self.trades = 0
        self.value = 0.0

    def add(self, trade: TradeEvent) -> None:
        price, volume = trade.price, trade.volume
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close, self.end_ns = price, trade.recv_ns
        self.volume += volume
        self.value += price * volume
        self.trades += 1
        if trade.side == 0:
            self.bought += volume
        elif trade.side == 1:
            self.sold += volume

    def closed(self, end_ns: int, *, complete: bool) -> Bar:
        vwap = self.value / self.volume if self.volume > 0 else None
        prices = self.first, self.high, self.low, self.close
        lots = self.volume, self.bought, self.sold
        return Bar(self.start_ns, end_ns, *prices, *lots, self.trades, vwap, complete)


class _Bars(Estimator[Bar]):
    """The last closed bar."""

    takes = ("trades",)

    def __init__(self) -> None:
        self._open: _OpenBar | None = None
        self._last: Bar | None = None

    @property
    def value(self) -> Bar | None:
        """None until one is closed."""
        return self._last

    def on_gap(self, from_ns: int) -> None:  # noqa: ARG002  # a hook
        """Close the bar: none reaches across a gap."""
        self._close(complete=False)

    def restart(self) -> None:
        """Drop the bar that is open."""
        self._open = None

    def _close(self, *, complete: bool) -> None:
        if self._open is not None:
            self._last = self._open.closed(self._end_ns(self._open), complete=complete)
            self._open = None

    def _end_ns(self, bar: _OpenBar) -> int:
        return bar.end_ns


class TimeBars(_Bars):
    """Bars of equal time on the grid of whole multiples in UTC, see `metrics.bars.time_bars`.

    One is closed by the first trade after its end, or when it is told that the time has passed.

    Args:
        interval_ns: The bar's length.

    Raises:
        UsageError: It is not positive.
    """

    def __init__(self, interval_ns: int = 1_000_000_000) -> None:
        super().__init__()
        self._interval_ns = positive("interval_ns", interval_ns)

    def on_trade(self, trade: TradeEvent) -> None:
        """Take the next trade."""
        self.on_time(trade.recv_ns)
        if self._open is None:
            self._open = _OpenBar(trade.recv_ns // self._interval_ns * self._interval_ns, trade.price)
        self._open.add(trade)

    def on_time(self, now_ns: int) -> None:
        """Close the bar if it has ended."""
        if self._open is not None and now_ns >= self._end_ns(self._open):
            self._close(complete=True)

    def _end_ns(self, bar: _OpenBar) -> int:
        return bar.start_ns + self._interval_ns


class _ThresholdBars(_Bars):
    """Bars that close with the trade that brings what has traded to a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self._threshold = positive("threshold", threshold)
        self._traded = 0.0
        self._target = threshold

    def on_trade(self, trade: TradeEvent) -> None:
        """Take the next trade."""
        if self._open is None:
            self._open = _OpenBar(trade.recv_ns, trade.price)
        self._open.add(trade)
        self._traded += self._amount(trade)
        if self._traded >= self._target:
            self._close(complete=True)
            self._target = self._traded + self._threshold

    def on_gap(self, from_ns: int) -> None:
        """Close the bar, and count from zero."""
        super().on_gap(from_ns)
        self._traded, self._target = 0.0, self._threshold

    def restart(self) -> None:
        """Drop the bar that is open, and count from zero."""
        super().restart()
        self._traded, self._target = 0.0, self._threshold

    def _amount(self, trade: TradeEvent) -> float:
        raise NotImplementedError


class TickBars(_ThresholdBars):
    """Bars of `threshold` trades, see `metrics.bars.tick_bars`."""

    def _amount(self, trade: TradeEvent) -> float:  # noqa: ARG002  # each counts alike
        return 1


class VolumeBars(_ThresholdBars):
    """Bars of at least `threshold` lots, see `metrics.bars.volume_bars`."""

    def _amount(self, trade: TradeEvent) -> float:
        return trade.volume


class DollarBars(_ThresholdBars):
    """Bars of at least `threshold` of traded value, see `metrics.bars.dollar_bars`.

    Args:
        threshold: In the currency of `point_value`, or in points times lots.
        point_value: What one point of one lot is worth.

    Raises:
        UsageError: One of them is not positive.
    """

    def __init__(self, threshold: float, point_value: float = 1.0) -> None:
        super().__init__(threshold)
        self._point_value = positive("point_value", point_value)

    def _amount(self, trade: TradeEvent) -> float:
        return trade.price * trade.volume * self._point_value


class Vwap(Estimator[float]):
    """The volume-weighted average price, see `metrics.bars.vwap`."""

    takes = ("trades",)

    def __init__(self) -> None:
        self._value, self._volume = 0.0, 0

    @property
    def value(self) -> float | None:
        """In price units; None until something traded."""
        return self._value / self._volume if self._volume > 0 else None

    def on_trade(self, trade: TradeEvent) -> None:
        """Take the next trade."""
        self._value += trade.price * trade.volume
        self._volume += trade.volume

    def restart(self) -> None:
        """Begin anew."""
        self._value, self._volume = 0.0, 0


class VolumeProfile(Estimator[float]):
    """The volume at each price, and the point of control; see `metrics.profile`.

    Attributes:
        volume_at: Lots by price, as many entries as prices have traded.
    """

    takes = ("trades",)

    def __init__(self) -> None:
        self.volume_at: dict[float, int] = {}
        self._control: float | None = None

    @property
    def value(self) -> float | None:
        """The point of control: the price of most volume, the lowest of several; None until a trade."""
        return self._control

    def on_trade(self, trade: TradeEvent) -> None:
        """Take the next trade."""
        price, control = trade.price, self._control
        volume = self.volume_at[price] = self.volume_at.get(price, 0) + trade.volume
        if (
            control is None
            or volume > self.volume_at[control]
            or (volume == self.volume_at[control] and price < control)
        ):
            self._control = price

    def restart(self) -> None:
        """Begin anew."""
        self.volume_at.clear()
        self._control = None
