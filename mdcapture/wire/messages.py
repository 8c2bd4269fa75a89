"""The hub's messages as types.

They are decoded by the million: no garbage collection for what holds no cycle, a number only where it fits the lake's
64 bits, and texts of time left as they came (a whole column of them is parsed at once, later).

A field that is null is a field that is absent: the gateway leaves out what did not change.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec

__all__ = [
    "TARGETS",
    "DepthEntry",
    "DepthMessage",
    "Int64",
    "MarketMessage",
    "Quote",
    "QuoteMessage",
    "Trade",
    "TradeMessage",
]

Int64: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Int8: TypeAlias = Annotated[int, msgspec.Meta(ge=-128, le=127)]


class Quote(msgspec.Struct, rename="camel", gc=False):
    """What changed of the top of the market."""

    best_bid: float | None = None
    best_ask: float | None = None
    last_price: float | None = None
    volume: Int64 | None = None
    open: float | None = None
    high: float | None = None
    low: float | None = None
    timestamp: str | None = None
    last_updated: str | None = None


class Trade(msgspec.Struct, rename="camel", gc=False):
    """One print; `type` is the aggressor's side: 0 buy, 1 sell."""

    price: float
    volume: Int64
    type: Int8 | None = None
    timestamp: str | None = None


class DepthEntry(msgspec.Struct, rename="camel", gc=False):
    """One change of the book; `type` is the gateway's DomType."""

    price: float
    volume: Int64
    type: Int8
    current_volume: Int64 | None = None
    timestamp: str | None = None


class QuoteMessage(msgspec.Struct, tag_field="target", tag="GatewayQuote", gc=False):
    """`arguments` are the contract's id and one quote, or several."""

    arguments: tuple[str, Quote | list[Quote | None]]


class TradeMessage(msgspec.Struct, tag_field="target", tag="GatewayTrade", gc=False):
    """`arguments` are the contract's id and one trade, or several."""

    arguments: tuple[str, Trade | list[Trade | None]]


class DepthMessage(msgspec.Struct, tag_field="target", tag="GatewayDepth", gc=False):
    """`arguments` are the contract's id and one change of the book, or several."""

    arguments: tuple[str, DepthEntry | list[DepthEntry | None]]


MarketMessage = QuoteMessage | TradeMessage | DepthMessage

TARGETS: Final[dict[str, Any]] = {
    "gatewayquote": QuoteMessage,
    "gatewaytrade": TradeMessage,
    "gatewaydepth": DepthMessage,
}
"""The targets that carry data, in lower case: SignalR compares them without regard to case."""
