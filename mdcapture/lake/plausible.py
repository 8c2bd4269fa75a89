"""What is well-formed but hard to believe: counted, never dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mdcapture.lake.schema import DomType, Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mdcapture.lake.manifest import Contract

__all__ = ["KINDS", "implausible"]

KINDS: Final = {
    "crossed": "the best bid is above the best ask",
    "off_tick": "a price is not on the contract's grid",
    "size": "a trade of no lots or fewer, or a level of fewer than none",
    "far_time": "the gateway's time is more than a day from the receive time",
    "no_time": "there is no time, or none that can be read",
    "unknown_type": "a side or a depth type outside of the documented ones",
}
_FAR_NS: Final = 86_400 * 1_000_000_000
_GRID_TOLERANCE: Final = 1e-6
_PRICES: Final = {"quotes": ("best_bid", "best_ask", "last_price"), "trades": ("price",), "depth": ("price",)}


def implausible(table: str, batch: pa.RecordBatch, contracts: Mapping[str, Contract]) -> dict[str, int]:
    """Count a batch's rows that are hard to believe.

    Args:
        table: The table that they are for; only quotes, trades and depth are looked at.
        batch: Rows led by `contract_id`.
        contracts: By id, for the tick sizes.

    Returns:
        Counts above zero, by `<table>.<kind>`.
    """
    if table not in _PRICES:
        return {}
    exch_ns = batch["exch_ns"]
    counts = {
        "no_time": exch_ns.null_count,
        "far_time": _true(pc.greater(pc.abs(pc.subtract(exch_ns, batch["recv_ns"])), _FAR_NS)),
        "off_tick": _off_tick(batch, _PRICES[table], contracts),
    }
    if table == "quotes":
        counts["crossed"] = _true(pc.greater(batch["best_bid"], batch["best_ask"]))
    elif table == "trades":
        counts["size"] = _true(pc.less_equal(batch["volume"], 0))
        counts["unknown_type"] = _unknown(batch["side"], Side)
    else:
        counts["size"] = _true(pc.less(batch["volume"], 0))
        counts["unknown_type"] = _unknown(batch["dom_type"], DomType)
    return {f"{table}.{kind}": count for kind, count in counts.items() if count}


def _unknown(column: pa.Array, known: Iterable[int]) -> int:
    return len(column) - _true(pc.is_in(column, pa.array([*known], column.type)))


def _true(mask: pa.BooleanArray) -> int:
    return pc.sum(mask).as_py() or 0


def _off_tick(batch: pa.RecordBatch, names: tuple[str, ...], contracts: Mapping[str, Contract]) -> int:
    """Rows with a price off the grid, by each contract's own tick; contracts without one are not looked at."""
    ids = batch["contract_id"].dictionary.to_pylist()
    sizes = [contracts[one].tick_size if one in contracts else None for one in ids]
    if not any(sizes):
        return 0
    ticks = np.array([*(size or np.nan for size in sizes), np.nan])  # the last for rows of no contract
    tick = ticks[batch["contract_id"].indices.fill_null(-1).to_numpy()]
    off = np.zeros(len(batch), bool)
    with np.errstate(over="ignore", invalid="ignore"):  # a price can be any number, a tick size too
        for name in names:
            in_ticks = batch[name].to_numpy(zero_copy_only=False) / tick
            off |= np.abs(in_ticks - np.round(in_ticks)) > _GRID_TOLERANCE * np.maximum(1, np.abs(in_ticks) * 1e-6)
            off |= np.isinf(in_ticks)
    return int(off.sum())
