"""Spreads, mids and variance as they become known, from quotes and trades: `metrics.spreads` and `metrics.volatility`.

A quote is a state that holds until the next one or a gap. A locked book has a mid and a spread of nothing; a crossed or
a one-sided one has neither.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

from mdcapture.errors import UsageError
from mdcapture.live.estimators import Estimator, positive

if TYPE_CHECKING:
    from mdcapture.capture.events import QuoteEvent, TradeEvent

__all__ = ["EffectiveSpread", "Mid", "QuotedSpread", "RealizedVariance", "sign_of"]

Scale = Literal["price", "relative", "bps"]

_SIGNS: Final = {0: 1, 1: -1}


def sign_of(side: int | None) -> int | None:
    """+1 where the buyer was the aggressor (side 0), -1 where the seller was (1), None where it is not known."""
    return None if side is None else _SIGNS.get(side)


def _mid(quote: QuoteEvent) -> float | None:
    bid, ask = quote.best_bid, quote.best_ask
    return None if bid is None or ask is None or bid > ask else (bid + ask) / 2


class _Scaled(Estimator[float]):
    """A distance of prices on a scale, see `metrics.spreads.Scale`."""

    def __init__(self, scale: Scale = "price") -> None:
        if scale not in ("price", "relative", "bps"):
            raise UsageError(f"scale must be price, relative or bps, not {scale!r}")
        self._factor = 1e4 if scale == "bps" else 1.0
        self._by_mid = scale != "price"

    def _scaled(self, distance: float, mid: float) -> float:
        return self._factor * distance / mid if self._by_mid else distance


class Mid(Estimator[float]):
    """The mid of the last quote."""

    takes = ("quotes",)

    def __init__(self) -> None:
        self._mid: float | None = None

    @property
    def value(self) -> float | None:
        """In price units; None while there is none."""
        return self._mid

    def on_quote(self, quote: QuoteEvent) -> None:
        """Take the next quote."""
        self._mid = _mid(quote)

    def on_gap(self, from_ns: int) -> None:  # noqa: ARG002  # a hook
        """Forget the quote."""
        self._mid = None


class QuotedSpread(_Scaled):
    """The quoted spread weighted by time, sum(S dt) / sum(dt), up to now; see `metrics.spreads.quoted`.

    Args:
        scale: "price", "relative" (to the mid) or "bps".

    Raises:
        UsageError: The scale is another one.
    """

    takes = ("quotes",)

    def __init__(self, scale: Scale = "price") -> None:
        super().__init__(scale)
        self._spread: float | None = None
        self._since_ns = self._now_ns = 0
        self._sum, self._held_ns = 0.0, 0

    @property
    def value(self) -> float | None:
        """None until a two-sided book has lasted for some time."""
        total, held_ns = self._total(self._now_ns)
        return total / held_ns if held_ns else None

    def on_quote(self, quote: QuoteEvent) -> None:
        """Take the next quote."""
        self._hold(quote.recv_ns)
        mid = _mid(quote)
        self._spread = None
        if mid is not None and quote.best_ask is not None and quote.best_bid is not None:
            self._spread = self._scaled(quote.best_ask - quote.best_bid, mid)

    def on_time(self, now_ns: int) -> None:
        """Let the quote hold until then, as far as is known: a gap may yet say otherwise."""
        self._now_ns = max(self._now_ns, now_ns)

    def on_gap(self, from_ns: int) -> None:
        """End the quote's time."""
        self._hold(from_ns)
        self._spread = None

    def restart(self) -> None:
        """Begin anew, with the quote that holds."""
        self._sum, self._held_ns = 0.0, 0
        self._since_ns = self._now_ns

    def _total(self, until_ns: int) -> tuple[float, int]:
        lasted_ns = max(until_ns - self._since_ns, 0)
        if self._spread is None:
            return self._sum, self._held_ns
        return self._sum + self._spread * lasted_ns, self._held_ns + lasted_ns

    def _hold(self, until_ns: int) -> None:
        self._sum, self._held_ns = self._total(until_ns)
        self._since_ns = self._now_ns = until_ns


class EffectiveSpread(_Scaled):
    """The mean of 2 D (p - m) over the trades, m being the mid before the trade; see `metrics.spreads.trade_spreads`.

    Args:
        scale: As for `QuotedSpread`.

    Raises:
        UsageError: The scale is another one.
    """

    takes = ("quotes", "trades")

    def __init__(self, scale: Scale = "price") -> None:
        super().__init__(scale)
        self._mid: float | None = None
        self._sum, self._trades = 0.0, 0

    @property
    def value(self) -> float | None:
        """None until a trade of a known side has followed a mid."""
        return self._sum / self._trades if self._trades else None

    def on_quote(self, quote: QuoteEvent) -> None:
        """Take the next quote."""
        self._mid = _mid(quote)

    def on_trade(self, trade: TradeEvent) -> None:
        """Take the next trade."""
        sign = sign_of(trade.side)
        if sign is not None and self._mid is not None:
            self._sum += 2 * sign * self._scaled(trade.price - self._mid, self._mid)
            self._trades += 1

    def on_gap(self, from_ns: int) -> None:  # noqa: ARG002  # a hook
        """Forget the quote."""
        self._mid = None

    def restart(self) -> None:
        """Begin anew, with the quote that holds."""
        self._sum, self._trades = 0.0, 0


class RealizedVariance(Estimator[float]):
    """The sum of squared log returns of the mid, sampled on a grid of time; see `metrics.volatility`.

    The grid is that of `metrics.volatility.sampled_returns`: whole multiples of the interval in UTC, at each of which
    the last quote at or before it counts.

    Args:
        interval_ns: The distance of two points of the grid.

    Raises:
        UsageError: It is not positive.
    """

    takes = ("quotes",)

    def __init__(self, interval_ns: int = 1_000_000_000) -> None:
        self._interval_ns = positive("interval_ns", interval_ns)
        self._log_mid: float | None = None
        self._quote_ns = self._point_ns = 0
        self._sampled: float | None = None
        self._sum: float | None = None

    @property
    def value(self) -> float | None:
        """In squared log points, to the last point that a quote has reached; None until two in a row have a mid."""
        return self._sum_with_next() if self._quote_ns == self._point_ns else self._sum

    def on_quote(self, quote: QuoteEvent) -> None:
        """Take the next quote, and sample the points before it."""
        if not self._point_ns:
            self._point_ns = -(-quote.recv_ns // self._interval_ns) * self._interval_ns
        passed = -((self._point_ns - quote.recv_ns) // self._interval_ns)
        for _ in range(min(passed, 2)):  # the mid is the same at all of them, and only the first can be a return
            self._sample()
        self._point_ns += max(passed, 0) * self._interval_ns
        mid = _mid(quote)
        self._log_mid = math.log(mid) if mid is not None and mid > 0 else None
        self._quote_ns = quote.recv_ns

    def on_gap(self, from_ns: int) -> None:  # noqa: ARG002  # a hook
        """Sample no points inside of it, and take no return across it."""
        if self._quote_ns == self._point_ns:
            self._sample()
        self._log_mid = self._sampled = None
        self._point_ns = 0

    def restart(self) -> None:
        """Begin anew; the next return is from the last point."""
        self._sum = None

    def _sum_with_next(self) -> float | None:
        if self._sampled is None or self._log_mid is None:
            return self._sum
        return (self._sum or 0.0) + (self._log_mid - self._sampled) ** 2

    def _sample(self) -> None:
        self._sum = self._sum_with_next()
        self._sampled = self._log_mid
