"""Order flow as it becomes known, from trades and the book's best levels: `metrics.flow`, `metrics.microprice`."""

from __future__ import annotations

import math
from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING, Final

from mdcapture.errors import UsageError
from mdcapture.live.estimators import Estimator, positive
from mdcapture.live.prices import sign_of

if TYPE_CHECKING:
    from mdcapture.capture.events import QuoteEvent, TradeEvent
    from mdcapture.lake.schema import Stream
    from mdcapture.live.book import Level
    from mdcapture.live.estimators import BookEvent
    from mdcapture.metrics.microprice import MicroPrice

__all__ = [
    "CumulativeDelta",
    "Delta",
    "Intensity",
    "MicroPriceState",
    "OrderFlowImbalance",
    "QueueImbalance",
    "TradeImbalance",
    "Vpin",
    "WeightedMid",
]


class Delta(Estimator[int]):
    """Lots bought less lots sold, see `metrics.flow.order_flow`."""

    takes = ("trades",)

    def __init__(self) -> None:
        self._delta: int | None = None

    @property
    def value(self) -> int | None:
        """In lots; None until a trade."""
        return self._delta

    def on_trade(self, trade: TradeEvent) -> None:
        """Take the next trade."""
        self._delta = (self._delta or 0) + (sign_of(trade.side) or 0) * trade.volume

    def restart(self) -> None:
        """Begin anew."""
        self._delta = None


class CumulativeDelta(Delta):
    """The delta since the last gap, see `metrics.flow.cumulative_delta`."""

    def on_gap(self, from_ns: int) -> None:  # noqa: ARG002  # a hook
        """Begin anew: what was missed is not known."""
        self.restart()


class TradeImbalance(Estimator[float]):
    """Lots bought less lots sold, as a share of both; see `metrics.flow.trade_imbalance`."""

    takes = ("trades",)

    def __init__(self) -> None:
        self._delta = self._known = 0

    @property
    def value(self) -> float | None:
        """From -1 to 1; None until a trade of a known side."""
        return self._delta / self._known if self._known > 0 else None

    def on_trade(self, trade: TradeEvent) -> None:
        """Take the next trade."""
        sign = sign_of(trade.side)
        if sign is not None:
            self._delta += sign * trade.volume
            self._known += trade.volume

    def restart(self) -> None:
        """Begin anew."""
        self._delta = self._known = 0


class OrderFlowImbalance(Estimator[int]):
    """The order flow imbalance at the best level, summed; see `metrics.flow.order_flow_imbalance`."""

    takes = ("depth",)

    def __init__(self) -> None:
        self._before: tuple[float, int, float, int] | None = None
        self._flow: int | None = None

    @property
    def value(self) -> int | None:
        """In lots; None until there are two books in a row."""
        return self._flow

    def on_book(self, book: BookEvent) -> None:
        """Take the book after the next depth message."""
        bids, asks = book.levels.bids, book.levels.asks
        if not bids and not asks:
            self._before = None
            return
        bid, bid_size = bids[0][:2] if bids else (-math.inf, 0)
        ask, ask_size = asks[0][:2] if asks else (math.inf, 0)
        if self._before is not None:
            bid_before, bid_size_before, ask_before, ask_size_before = self._before
            flow = _queue_flow(bid, bid_size, bid_before, bid_size_before)
            flow -= _queue_flow(-ask, ask_size, -ask_before, ask_size_before)
            self._flow = (self._flow or 0) + flow
        self._before = bid, bid_size, ask, ask_size

    def on_gap(self, from_ns: int) -> None:  # noqa: ARG002  # a hook
        """Compare nothing across it."""
        self._before = None

    def restart(self) -> None:
        """Begin anew, with the book that holds."""
        self._flow = None


def _queue_flow(price: float, size: int, price_before: float, size_before: int) -> int:
    """The change of a queue where a higher price is a better one."""
    return (size if price >= price_before else 0) - (size_before if price <= price_before else 0)


class _BookState(Estimator[float]):
    """What the best levels say at the moment."""

    takes = ("depth",)

    def __init__(self) -> None:
        self._value: float | None = None

    @property
    def value(self) -> float | None:
        """None while a side that it needs is missing."""
        return self._value

    def on_book(self, book: BookEvent) -> None:
        """Take the book after the next depth message."""
        self._value = self._state(book.levels.bids, book.levels.asks)

    def on_gap(self, from_ns: int) -> None:  # noqa: ARG002  # a hook
        """Forget the book."""
        self._value = None

    def _state(self, bids: list[Level], asks: list[Level]) -> float | None:
        raise NotImplementedError


class QueueImbalance(_BookState):
    """How the sizes at the best levels lean, (Qb - Qa) / (Qb + Qa); see `metrics.flow.queue_imbalance`.

    Args:
        levels: How many levels Qb and Qa are summed over.

    Raises:
        UsageError: That is none.
    """

    def __init__(self, levels: int = 1) -> None:
        super().__init__()
        self.levels = positive("levels", levels)

    def _state(self, bids: list[Level], asks: list[Level]) -> float | None:
        return _lean(sum(level[1] for level in bids[: self.levels]), sum(level[1] for level in asks[: self.levels]))


def _lean(bid_size: int, ask_size: int) -> float | None:
    total = bid_size + ask_size
    return (bid_size - ask_size) / total if total > 0 else None


class WeightedMid(_BookState):
    """The mid weighted by the opposite queues, see `metrics.flow.weighted_mid`."""

    def _state(self, bids: list[Level], asks: list[Level]) -> float | None:
        if not bids or not asks:
            return None
        (bid, bid_size, _), (ask, ask_size, _) = bids[0], asks[0]
        return bid + bid_size / (bid_size + ask_size) * (ask - bid)


class MicroPriceState(_BookState):
    """Stoikov's micro-price by a fitted model, see `metrics.microprice.micro_price`.

    Args:
        model: Fitted on the past.
    """

    def __init__(self, model: MicroPrice) -> None:
        super().__init__()
        self._tick_size = model.tick_size
        self._adjustment: list[list[float]] = model.adjustment.tolist()

    def _state(self, bids: list[Level], asks: list[Level]) -> float | None:
        if not bids or not asks:
            return None
        (bid, bid_size, _), (ask, ask_size, _) = bids[0], asks[0]
        ticks, lean = round((ask - bid) / self._tick_size), _lean(bid_size, ask_size)
        if ticks < 1 or lean is None:
            return None
        row = self._adjustment[min(ticks, len(self._adjustment)) - 1]
        bins = lean * (len(row) / 2)  # from the middle; an edge goes inward on both sides alike
        steps = max(math.ceil(abs(bins) - 0.5), 0)
        adjustment = row[len(row) // 2 + (steps if bins > 0 else -steps)]
        return (bid + ask) / 2 + adjustment if math.isfinite(adjustment) else None


class Vpin(Estimator[float]):
    """The volume-synchronized probability of informed trading, see `metrics.flow.vpin`.

    Args:
        bucket_volume: The volume of a bucket (lots).
        window: The number of buckets.

    Raises:
        UsageError: One of them is not positive.
    """

    takes = ("trades",)

    def __init__(self, bucket_volume: int, window: int = 50) -> None:
        self._bucket_volume = positive("bucket_volume", bucket_volume)
        self._window = positive("window", window)
        self._imbalances: deque[float] = deque(maxlen=window)
        self._filled, self._bought = 0, 0.0

    @property
    def value(self) -> float | None:
        """From 0 to 1, of the last full buckets; None until there are as many as the window holds."""
        full = len(self._imbalances) == self._window
        return sum(self._imbalances) / (self._bucket_volume * self._window) if full else None

    def on_trade(self, trade: TradeEvent) -> None:
        """Take the next trade: what overfills a bucket begins the next; half of a trade of no side counts as bought."""
        share, bucket = ((sign_of(trade.side) or 0) + 1) / 2, self._bucket_volume
        room = bucket - self._filled
        if trade.volume < room:
            self._filled += trade.volume
            self._bought += share * trade.volume
            return
        buckets, left = divmod(trade.volume - room, bucket)
        self._imbalances.append(abs(2 * (self._bought + share * room) - bucket))
        self._imbalances.extend(repeat(abs(2 * share - 1) * bucket, min(buckets, self._window)))
        self._filled, self._bought = left, share * left

    def on_gap(self, from_ns: int) -> None:  # noqa: ARG002  # a hook
        """Begin anew."""
        self.restart()

    def restart(self) -> None:
        """Begin with an empty bucket, and none before it."""
        self._imbalances.clear()
        self._filled, self._bought = 0, 0.0


_NS_PER_S: Final = 1e9


class Intensity(Estimator[float]):
    """How many events come in a second, of late: sum over events of e^(-age / tau) / tau.

    A kernel estimate of the rate with an exponential kernel of mean age tau, which looks at the past alone.

    Args:
        tau_s: The mean age of what counts (seconds); the half-life is 0.69 of it.
        of: What is counted: "trades" (prints), "quotes", or "depth" (messages).

    Raises:
        UsageError: `tau_s` is not positive, or there is no such stream.
    """

    def __init__(self, tau_s: float = 10.0, of: Stream = "trades") -> None:
        if of not in ("quotes", "trades", "depth"):
            raise UsageError(f"of must be quotes, trades or depth, not {of!r}")
        self.takes = (of,)
        self._tau_ns = positive("tau_s", tau_s) * _NS_PER_S
        self._rate: float | None = None
        self._at_ns = 0

    @property
    def value(self) -> float | None:
        """Events per second; None until one came."""
        return self._rate

    def on_quote(self, quote: QuoteEvent) -> None:
        """Take the next quote."""
        self._count(quote.recv_ns)

    def on_trade(self, trade: TradeEvent) -> None:
        """Take the next trade."""
        self._count(trade.recv_ns)

    def on_book(self, book: BookEvent) -> None:
        """Take the book after the next depth message."""
        self._count(book.recv_ns)

    def on_time(self, now_ns: int) -> None:
        """Let what came grow older."""
        if self._rate is not None and now_ns > self._at_ns:
            self._rate *= math.exp((self._at_ns - now_ns) / self._tau_ns)
            self._at_ns = now_ns

    def on_gap(self, from_ns: int) -> None:  # noqa: ARG002  # a hook
        """Begin anew."""
        self.restart()

    def restart(self) -> None:
        """Forget what came."""
        self._rate = None

    def _count(self, recv_ns: int) -> None:
        self.on_time(recv_ns)
        self._at_ns = max(self._at_ns, recv_ns)
        self._rate = (self._rate or 0.0) + _NS_PER_S / self._tau_ns
