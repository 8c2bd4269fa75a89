"""What every live metric is: an estimator that takes one event after the other, and has a value at any moment.

Events come in the order in which they were received. An estimator keeps what it needs for its value and no event, so
that its memory does not grow with the stream. Time is the stream's own: `on_time` says that all that was received
before then has been given, and nothing here looks at a clock, so that a replay gives the numbers that were seen live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from mdcapture.capture.events import QuoteEvent, TradeEvent
from mdcapture.errors import UsageError
from mdcapture.live.book import Levels

if TYPE_CHECKING:
    from collections.abc import Collection


__all__ = ["BookEvent", "Estimator", "Every", "positive"]

Value = TypeVar("Value")


class BookEvent(NamedTuple):
    """The best levels of the book after a depth message."""

    contract_id: str
    seq: int
    recv_ns: int
    levels: Levels


class Estimator(Generic[Value]):
    """One number, or one bar, of one contract; a metric overrides the hooks that it needs.

    Attributes:
        takes: The streams that it is made of, and is given; a gap in one of them is told, too. `depth` means books.
        levels: How many levels of the book it looks at.
    """

    takes: Collection[str] = ()
    levels: int = 1

    @property
    def value(self) -> Value | None:
        """What is known now; None until anything is."""
        raise NotImplementedError

    def update(self, event: QuoteEvent | TradeEvent | BookEvent) -> None:
        """Take the next event, if it is of a stream that counts."""
        if isinstance(event, QuoteEvent):
            if "quotes" in self.takes:
                self.on_quote(event)
        elif isinstance(event, TradeEvent):
            if "trades" in self.takes:
                self.on_trade(event)
        elif "depth" in self.takes:
            self.on_book(event)

    def on_quote(self, quote: QuoteEvent) -> None:
        """Take the next quote."""

    def on_trade(self, trade: TradeEvent) -> None:
        """Take the next trade."""

    def on_book(self, book: BookEvent) -> None:
        """Take the book after the next depth message."""

    def on_time(self, now_ns: int) -> None:
        """Everything that was received before this time has been taken."""

    def on_gap(self, from_ns: int) -> None:
        """Messages are missing from that time on: what held until then is not known to hold any more."""

    def restart(self) -> None:
        """Begin anew to add up; what holds (a quote, a book) still does."""


class Every(Estimator[Value]):
    """An estimator over the last full interval of time, on the grid of whole multiples in UTC: [start, end).

    Args:
        interval_ns: The interval's length.
        inner: The estimator, which is restarted at each interval's end.

    Raises:
        UsageError: `interval_ns` is not positive.
    """

    def __init__(self, interval_ns: int, inner: Estimator[Value]) -> None:
        self.takes, self.levels = inner.takes, inner.levels
        self._interval_ns = positive("interval_ns", interval_ns)
        self._inner = inner
        self._end_ns = 0
        self._value: Value | None = None

    @property
    def value(self) -> Value | None:
        """That of the last full interval; None if there was nothing to make one of."""
        return self._value

    def on_quote(self, quote: QuoteEvent) -> None:
        """Take the next quote."""
        self.on_time(quote.recv_ns)
        self._inner.on_quote(quote)

    def on_trade(self, trade: TradeEvent) -> None:
        """Take the next trade."""
        self.on_time(trade.recv_ns)
        self._inner.on_trade(trade)

    def on_book(self, book: BookEvent) -> None:
        """Take the book after the next depth message."""
        self.on_time(book.recv_ns)
        self._inner.on_book(book)

    def on_gap(self, from_ns: int) -> None:
        """Hand on that messages are missing."""
        self._inner.on_gap(from_ns)

    def on_time(self, now_ns: int) -> None:
        """Close the interval that has ended, and of those since then the last."""
        if now_ns < self._end_ns:
            return
        last_end_ns = now_ns // self._interval_ns * self._interval_ns
        if self._end_ns:
            self._close(self._end_ns)
            if last_end_ns > self._end_ns:
                self._inner.on_time(last_end_ns - self._interval_ns)
                self._inner.restart()
                self._close(last_end_ns)
        self._end_ns = last_end_ns + self._interval_ns

    def _close(self, end_ns: int) -> None:
        self._inner.on_time(end_ns)
        self._value = self._inner.value
        self._inner.restart()


Number = TypeVar("Number", int, float)


def positive(name: str, value: Number) -> Number:
    """The value of an argument that must be positive.

    Raises:
        UsageError: It is not.
    """
    if not value > 0:
        raise UsageError(f"{name} must be positive, not {value}")
    return value
