"""From trades to volume by price: the profile of a session, its point of control and value area, and the footprint.

Levels are prices that traded: a price without a trade is no row. Profiles add up to the tape, and so do footprints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from mdcapture.errors import UsageError
from mdcapture.metrics.frames import Frame, alike, key_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["footprint", "value_area", "volume_profile"]

_BUYS = pl.col("volume").filter(pl.col("side") == 0).sum()
_SELLS = pl.col("volume").filter(pl.col("side") == 1).sum()
_COUNT = pl.len().cast(pl.Int64).alias("trades")


def volume_profile(trades: Frame, *, step: float | None = None, by: Sequence[str] = ()) -> Frame:
    """The volume that traded at each price.

    Steidlmayer and Koy (1986), "Markets and Market Logic", Porcupine Press, made profiles of time by price; with volume
    in place of time it is what the Chicago Board of Trade published as the Liquidity Data Bank.

    Args:
        trades: Trades in any order, with `price`, `volume`, `side` and the keys they are grouped by.
        step: The width of a price bin, named by its lower edge; by default each price is its own.
        by: More columns to group by, such as a trading day.

    Returns:
        Group columns, `price`, `volume`, `buy_volume`, `sell_volume`, `delta` (lots; buys less sells, trades without a
        side only in `volume`), `trades`, `share` (of the group's volume), by rising price.

    Raises:
        UsageError: `step` is not positive.
    """
    keys: list[str] = [*key_columns(trades), *by]
    share = pl.col("volume") / pl.col("volume").sum()
    return (
        trades.group_by(*keys, _binned(step).alias("price"))
        .agg(
            pl.col("volume").sum(),
            _BUYS.alias("buy_volume"),
            _SELLS.alias("sell_volume"),
            (_BUYS - _SELLS).alias("delta"),
            _COUNT,
        )
        .sort(*keys, "price")
        .with_columns(share=share.over(keys) if keys else share)
    )


def footprint(
    trades: Frame,
    interval_ns: int,
    *,
    step: float | None = None,
    clock: Literal["recv_ns", "exch_ns"] = "recv_ns",
    by: Sequence[str] = (),
) -> Frame:
    """The volume at the bid and at the ask, by price, in each interval of time.

    Args:
        trades: As for `volume_profile`, with `recv_ns` (or `exch_ns`).
        interval_ns: The interval's length, on the grid of its whole multiples in UTC.
        step: As for `volume_profile`.
        clock: The clock that a trade is placed by; trades without `exch_ns` are left out by that clock.
        by: More columns to group by.

    Returns:
        Group columns, `start_ns`, `price`, `bid_volume` (sellers hit the bid), `ask_volume` (buyers lifted the ask),
        `delta` (ask less bid), `volume` (with trades of no side), `trades`, by time and rising price.

    Raises:
        UsageError: `interval_ns` or `step` is not positive.
    """
    if interval_ns <= 0:
        raise UsageError(f"interval_ns must be positive, not {interval_ns}")
    cell = [*key_columns(trades), *by, "start_ns", "price"]
    return (
        trades.filter(pl.col(clock).is_not_null())
        .with_columns(_binned(step).alias("price"), start_ns=pl.col(clock) // interval_ns * interval_ns)
        .group_by(cell)
        .agg(
            _SELLS.alias("bid_volume"),
            _BUYS.alias("ask_volume"),
            (_BUYS - _SELLS).alias("delta"),
            pl.col("volume").sum(),
            _COUNT,
        )
        .sort(cell)
    )


def value_area(
    profile: Frame,
    *,
    share: float = 0.7,
    method: Literal["narrowest", "pairs"] = "narrowest",
    by: Sequence[str] = (),
) -> Frame:
    """The point of control, and the range of prices around it that holds most of the volume.

    The point of control is the price of most volume, the lowest of several. The value area is a range of prices that
    holds it and at least `share` of the volume. "narrowest" is the least distance from low to high; of several the one
    with most volume, then the lowest. "pairs" is the exchange's recipe: from the point of control, add the two next
    levels above or the two next below, whichever traded more (above if equal), until the share is reached; it need
    not find the narrowest range.

    Chicago Board of Trade, "A Six-Part Study Guide to Market Profile", where the share is 70 %.

    Args:
        profile: Rows of `price` and `volume` per group, from `volume_profile` or `footprint`.
        share: The least share of the volume.
        method: "narrowest" or "pairs".
        by: The columns that the profile is grouped by beside the keys.

    Returns:
        Group columns, `point_of_control`, `value_area_low`, `value_area_high` (prices), `value_area_share` (the share
        that it holds), `volume` (lots), `n` (levels).

    Raises:
        UsageError: The share is not within (0, 1], or the method unknown.
    """
    if not 0 < share <= 1:
        raise UsageError(f"share must be above 0 and at most 1, not {share}")
    if method not in {"narrowest", "pairs"}:
        raise UsageError(f"method must be narrowest or pairs, not {method!r}")
    keys: list[str] = ["_all", *key_columns(profile), *by]
    volume, total = pl.col("volume"), pl.col("volume").sum()
    levels = (
        profile.lazy()
        .with_columns(_all=pl.lit(0))
        .sort(*keys, "price")
        .with_columns(
            point_of_control=pl.col("price").get(volume.arg_max()).over(keys),
            _below=(volume.cum_sum() - volume).over(keys),
            _total=total.over(keys),
            _n=pl.len().cast(pl.Int64).over(keys),
        )
    )
    ranges = (_narrowest if method == "narrowest" else _by_pairs)(levels, keys, share * (1 - 1e-12))
    return alike(
        ranges.select(
            *keys[1:],
            "point_of_control",
            "value_area_low",
            "value_area_high",
            value_area_share=pl.col("_held") / pl.col("_total"),
            volume=pl.col("_total"),
            n=pl.col("_n"),
        ),
        profile,
    )


def _binned(step: float | None) -> pl.Expr:
    """Prices, or the lower edges of their bins; a price that is a bin's edge up to rounding is in that bin."""
    if step is None:
        return pl.col("price")
    if not step > 0:
        raise UsageError(f"step must be positive, not {step}")
    return (pl.col("price") / step + 1e-9).floor() * step


def _narrowest(levels: pl.LazyFrame, keys: list[str], share: float) -> pl.LazyFrame:
    """For each low at or below the point of control the first high that reaches the share; then the best of them."""
    price, control = pl.col("price"), pl.col("point_of_control")
    lows = levels.filter(price <= control).with_columns(_reach=pl.col("_below") + share * pl.col("_total"))
    highs = levels.filter(price >= control).select(
        *keys,
        value_area_high="price",
        _above=pl.col("_below") + pl.col("volume"),
        _reach=(pl.col("_below") + pl.col("volume")).cast(pl.Float64),
    )
    return (
        lows.join_asof(highs, on="_reach", by=keys, strategy="forward", check_sortedness=False)
        .filter(pl.col("value_area_high").is_not_null())
        .with_columns(
            value_area_low=price,
            _held=pl.col("_above") - pl.col("_below"),
            _width=(pl.col("value_area_high") - price).round(9),
        )
        .sort(*keys, "_width", -pl.col("_held"), "value_area_low")
        .unique(keys, keep="first", maintain_order=True)
    )


def _by_pairs(levels: pl.LazyFrame, keys: list[str], share: float) -> pl.LazyFrame:
    def area(group: pl.DataFrame) -> pl.DataFrame:
        low, high = _grow(group["volume"].to_numpy(), share)
        held = group["volume"][low : high + 1].sum()
        return group.head(1).with_columns(
            value_area_low=pl.lit(group["price"][low]),
            value_area_high=pl.lit(group["price"][high]),
            _held=pl.lit(held, pl.Int64),
        )

    schema = levels.collect_schema()
    schema.update({"value_area_low": pl.Float64(), "value_area_high": pl.Float64(), "_held": pl.Int64()})
    return levels.group_by(keys, maintain_order=True).map_groups(area, schema=schema).sort(keys)


def _grow(volume: NDArray[np.int64], share: float) -> tuple[int, int]:
    """The first and last level of the area that grows from the point of control by pairs of levels."""
    low = high = int(np.argmax(volume))
    while volume[low : high + 1].sum() < share * volume.sum():
        above, below = volume[high + 1 : high + 3], volume[max(low - 2, 0) : low]
        if len(above) and (above.sum() >= below.sum() or not len(below)):
            high += len(above)
        else:
            low -= len(below)
    return low, high
