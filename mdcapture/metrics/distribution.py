"""How sizes and waiting times are distributed, where they cluster, and how they depend on the time of day.

Trades flow in. The prints of one aggressive order can be joined first, so that sizes and signs are those of orders
rather than of the resting orders that they met; the result has the columns of trades and flows into every metric here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from scipy import fft

from mdcapture.errors import UsageError
from mdcapture.metrics import asof
from mdcapture.metrics.frames import (
    Column,
    Frame,
    alike,
    begins,
    by_group,
    column,
    each_group,
    key_columns,
    order_columns,
    reading,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mdcapture.metrics.asof import Gaps

__all__ = [
    "aggressive_orders",
    "autocorrelation",
    "durations",
    "herfindahl",
    "intraday_pattern",
    "share_at_multiples",
    "size_autocorrelation",
    "size_clustering",
    "size_histogram",
    "smooth_pattern",
]

DAY_NS = 86_400_000_000_000


def aggressive_orders(trades: Frame) -> Frame:
    """Join the prints of one aggressive order: neighbours in the order of events with one exchange time and side.

    A print without an exchange time or a side stays alone. Two orders of one side within the resolution of the exchange
    time can't be told apart and become one.

    Args:
        trades: Trades with `recv_ns`, `exch_ns`, `price`, `volume`, `side`.

    Returns:
        Key columns, the order columns and `exch_ns` of the first print, `price` (volume-weighted), `volume` (sum),
        `side`, `first_price`, `last_price`, `prints` (count), in the order of events.
    """
    price, volume = pl.col("price"), pl.col("volume")
    known = pl.col("exch_ns").is_not_null() & pl.col("side").is_not_null()
    firsts = [*order_columns(trades), "exch_ns"]

    def join(own: pl.DataFrame, _: Gaps) -> pl.DataFrame:
        orders = (
            own.lazy()
            .group_by((begins("exch_ns", "side") | ~known).cum_sum().set_sorted().alias("_order"), maintain_order=True)
            .agg(
                pl.col(firsts).first(),
                ((price * volume).sum() / volume.sum()).alias("price"),
                volume.sum(),
                pl.col("side").first(),
                price.first().alias("first_price"),
                price.last().alias("last_price"),
                pl.len().cast(pl.Int64).alias("prints"),
            )
            .drop("_order")
        )
        return orders.collect(engine="in-memory")

    return each_group(join, trades)


def size_histogram(trades: Frame) -> Frame:
    """How many trades there are of each size.

    Returns:
        Key columns, `volume` (the size, lots), `trades` (count), `share` (of the trades), `volume_share` (of the lots),
        `tail` (the share of trades of at least this size), by rising size.
    """
    count, lots = pl.col("trades"), pl.col("volume") * pl.col("trades")
    whole = count.sum()
    shares = {
        "share": count / whole,
        "volume_share": lots / lots.sum(),
        "tail": (whole - count.cum_sum() + count) / whole,
    }

    def metric(own: pl.DataFrame, _: Gaps) -> pl.DataFrame:
        return own.group_by("volume").agg(trades=pl.len().cast(pl.Int64)).sort("volume").with_columns(**shares)

    return each_group(metric, trades, order=())


def herfindahl(volume: Column = "volume") -> pl.Expr:
    """How concentrated sizes are: the sum over sizes of the squared share of prints of that size, 1/n to 1."""
    counts = column(volume).drop_nulls().unique_counts().cast(pl.Float64)
    return pl.when(counts.len() > 0).then((counts / counts.sum()).pow(2).sum()).alias("herfindahl")


def share_at_multiples(lot: int, volume: Column = "volume") -> pl.Expr:
    """The share of trades whose size is a whole multiple of `lot`.

    Alexander and Peterson (2007), "An Analysis of Trade-Size Clustering and Its Relation to Stealth Trading", Journal
    of Financial Economics 84.
    """
    return (column(volume) % lot == 0).mean().alias(f"at_{lot}")


def size_clustering(trades: Frame, *, lots: Sequence[int] = (5, 10, 25, 50, 100)) -> Frame:
    """One row a group: `herfindahl`, `at_5`, … (share of trades at multiples of each of `lots`), `n` (trades)."""
    shares = [share_at_multiples(lot) for lot in lots]
    return by_group(trades, herfindahl(), *shares, n=pl.len().cast(pl.Int64))


def autocorrelation(
    events: Frame, value: Column, max_lag: int, *, incidents: pl.LazyFrame | pl.DataFrame | None = None
) -> Frame:
    """The autocorrelation of a value along events: sum (x_t - x̄)(x_{t+l} - x̄) / sum (x_t - x̄)^2.

    The divisor is the sum over all n, which keeps the estimates' spectrum from turning negative; rows without the value
    are left out of the series. It is computed by fast Fourier transform, and the frame is read when this is called.

    Args:
        events: Rows with `recv_ns`.
        value: A column or an expression.
        max_lag: The largest lag, in rows.
        incidents: Gaps; no pair reaches across one.

    Returns:
        Key columns, `lag` (1 to `max_lag`), `autocorrelation` (null where there is no pair, or the value is constant),
        `n` (rows with the value).

    Raises:
        UsageError: `max_lag` is not positive.
    """
    if max_lag <= 0:
        raise UsageError(f"max_lag must be positive, not {max_lag}")
    series = column(value).cast(pl.Float64)

    def metric(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        rows = asof.with_stretch(own, gaps).select("stretch", _value=series).drop_nulls()
        lag = np.arange(1, max_lag + 1 if rows.height else 1)
        correlations = _autocorrelation(rows["_value"].to_numpy(), rows["stretch"].to_numpy(), len(lag))
        table = pl.DataFrame({"lag": lag, "autocorrelation": correlations, "n": np.full(len(lag), rows.height)})
        return table.with_columns(pl.col("autocorrelation").fill_nan(None))

    return alike(each_group(metric, reading(events, value), incidents=incidents), events)


def _autocorrelation(values: NDArray[np.float64], stretch: NDArray[np.int64], max_lag: int) -> NDArray[np.float64]:
    """For lags of 1 to `max_lag`; NaN where no two values of one stretch are so far apart, or all are equal."""
    if not max_lag:
        return values[:0]
    deviations = values - values.mean()
    variance, longest = float(deviations @ deviations), 0
    products = np.zeros(max_lag + 1)
    for piece in np.split(deviations, np.flatnonzero(np.diff(stretch)) + 1):
        reach = min(max_lag, len(piece) - 1)
        size = fft.next_fast_len(len(piece) + reach, real=True)
        products[: reach + 1] += fft.irfft(np.abs(fft.rfft(piece, size)) ** 2, size)[: reach + 1]
        longest = max(longest, reach)
    products[longest + 1 :] = np.nan
    return products[1:] / variance if variance > 0 else np.full(max_lag, np.nan)


def size_autocorrelation(trades: Frame, max_lag: int, *, incidents: pl.LazyFrame | pl.DataFrame | None = None) -> Frame:
    """The autocorrelation of the logarithm of trade sizes; see `autocorrelation`.

    The logarithm, since sizes have tails too heavy for their own fourth moments.
    """
    size = pl.col("volume")
    return autocorrelation(trades, pl.when(size > 0).then(size.log()), max_lag, incidents=incidents)


def durations(
    trades: Frame,
    *,
    clock: Literal["recv_ns", "exch_ns"] = "recv_ns",
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Add `duration_ns`: the time since the trade before; null for the first, and across a gap.

    Trades of one instant are no time apart; join them by `aggressive_orders` for the waiting times between orders.
    """
    since = pl.when(~begins("stretch")).then(pl.col(clock).diff())

    def metric(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        return asof.with_stretch(own, gaps).with_columns(duration_ns=since).drop("stretch")

    return each_group(metric, trades, incidents=incidents)


def intraday_pattern(
    events: Frame,
    value: Column,
    interval_ns: int,
    *,
    clock: str = "recv_ns",
    time_zone: str = "America/Chicago",
) -> Frame:
    """The mean of a value at each time of day, over all sessions of a contract.

    Dividing by `factor` takes the pattern out, without which it passes for memory in whatever is estimated next;
    `smooth_pattern` smooths it.

    Args:
        events: Rows with a time: trades with durations, or bars (`clock="start_ns"`) for volume, trades or ranges. A
            bin in which nothing happened counts only if it is a row: ask `bars.time_bars` for `empty=True`.
        value: A column or an expression.
        interval_ns: The width of a bin of the day.
        clock: The column of times (ns UTC).
        time_zone: Whose days: the exchange's, so that the pattern stays in place over summer time.

    Returns:
        `contract_id` where the events have it, `time_of_day_ns` (the bin's start, since local midnight), `mean`,
        `factor` (the mean over the average of all bins' means), `n` (rows with the value), by time of day.

    Raises:
        UsageError: `interval_ns` is not positive.
    """
    if interval_ns <= 0:
        raise UsageError(f"interval_ns must be positive, not {interval_ns}")
    keys = [name for name in key_columns(events) if name == "contract_id"]
    local = pl.from_epoch(clock, time_unit="ns").dt.replace_time_zone("UTC").dt.convert_time_zone(time_zone)
    factor = pl.col("mean") / pl.col("mean").mean()
    return (
        events.select(*keys, local.dt.time().cast(pl.Int64).alias("time_of_day_ns"), column(value).alias("_value"))
        .group_by(*keys, pl.col("time_of_day_ns") // interval_ns * interval_ns)
        .agg(mean=pl.col("_value").mean(), n=pl.col("_value").count().cast(pl.Int64))
        .sort(*keys, "time_of_day_ns")
        .with_columns(factor=factor.over(keys) if keys else factor)
    )


def smooth_pattern(pattern: Frame, *, harmonics: int = 4, day_start_ns: int = 61_200_000_000_000) -> Frame:
    """Add `smooth_factor`: the pattern of the day as a flexible Fourier form.

    ln factor = c_0 + c_1 u + c_2 u^2 + sum over p of a_p cos(2 pi p u) + b_p sin(2 pi p u), by least squares over the
    bins, with u from 0 to 1 the part of the day that has passed; scaled to a mean of 1 like `factor`.

    Andersen and Bollerslev (1997), "Intraday Periodicity and Volatility Persistence in Financial Markets", Journal of
    Empirical Finance 4; they fit the form to the logarithm of each squared return, we to that of each bin's mean.

    Args:
        pattern: What `intraday_pattern` made. Bins whose factor is not positive have no logarithm and no smooth factor.
        harmonics: How many pairs of waves. Where bins are fewer than coefficients nothing is smoothed: null.
        day_start_ns: When the trading day starts (ns since local midnight; 17:00), where the quadratic part begins.

    Raises:
        UsageError: `harmonics` is negative.
    """
    if harmonics < 0:
        raise UsageError(f"harmonics must not be negative, not {harmonics}")

    def smooth(factors: pl.Series) -> pl.Series:
        times, values = factors.struct.field("time_of_day_ns").to_numpy(), factors.struct.field("factor").to_numpy()
        passed = (times - day_start_ns) % DAY_NS / DAY_NS
        waves = 2 * np.pi * np.outer(passed, np.arange(1, harmonics + 1))
        terms = np.column_stack([np.ones_like(passed), passed, passed**2, np.cos(waves), np.sin(waves)])
        used = values > 0
        if used.sum() < terms.shape[1]:
            return pl.Series([None] * len(times), dtype=pl.Float64)
        coefficients = np.linalg.lstsq(terms[used], np.log(values[used]), rcond=None)[0]
        fitted = np.where(used, np.exp(terms @ coefficients), np.nan)
        return pl.Series(fitted / np.nanmean(fitted), nan_to_null=True)

    keys = key_columns(pattern)
    smoothed = pl.struct("time_of_day_ns", "factor").map_batches(smooth, return_dtype=pl.Float64)
    return pattern.with_columns(smooth_factor=smoothed.over(keys) if keys else smoothed)
