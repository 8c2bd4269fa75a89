"""One session's manifest."""

from __future__ import annotations

import msgspec

__all__ = ["Contract"]


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """A contract as the gateway describes it.

    `tick_value` is the worth of one tick of one lot in the contract's currency; `source` says where the figures are
    from: `gateway`, `user`, or `unknown`.
    """

    contract_id: str
    name: str = ""
    description: str = ""
    tick_size: float | None = None
    tick_value: float | None = None
    symbol_id: str = ""
    source: str = "unknown"
