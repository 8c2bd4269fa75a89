"""From trades to bars: by time, number of trades, volume, value, imbalance and runs; and average prices.

Every bar but the time bar is one idea: some trade *closes* its bar, which is known at that trade and never changes
later. The kinds differ only in which trades close. The trade that reaches a threshold belongs to its bar whole
(the overshoot stays), and the count starts again at zero. Each trade is in exactly one bar, so bars add up to the tape.

A bar is a row of `start_ns`, `end_ns`, `open`, `high`, `low`, `close`, `volume`, `buy_volume`, `sell_volume` (lots;
trades without a side are only in `volume`), `trades` (count), `vwap`, after the key columns and `stretch` (gaps before
the bar: no bar reaches across one); all but time bars end with `complete`, false for a last bar that no trade closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdcapture.errors import UsageError
from mdcapture.metrics import asof
from mdcapture.metrics.frames import Column, Frame, begins, column, each_group, trade_sign

if TYPE_CHECKING:
    from mdcapture.metrics.asof import Gaps

__all__ = [
    "dollar_bars",
    "imbalance_bars",
    "run_bars",
    "running_vwap",
    "tick_bars",
    "time_bars",
    "twap",
    "volume_bars",
    "vwap",
]

Weight = Literal["trades", "volume", "value"]
Closes = Callable[[NDArray[np.float64]], NDArray[np.bool_]]

_VALUE = pl.col("price") * pl.col("volume")


def vwap(price: Column = "price", volume: Column = "volume") -> pl.Expr:
    """The volume-weighted average price, sum pq / sum q; null where nothing traded.

    Berkowitz, Logue and Noser (1988), "The Total Cost of Transactions on the NYSE", Journal of Finance 43.
    """
    prices, volumes = column(price), column(volume)
    traded = volumes.sum()
    return pl.when(traded > 0).then((prices * volumes).sum() / traded).alias("vwap")


def running_vwap(price: Column = "price", volume: Column = "volume") -> pl.Expr:
    """The volume-weighted average price of everything up to and with each row."""
    prices, volumes = column(price), column(volume)
    return ((prices * volumes).cum_sum() / volumes.cum_sum()).alias("vwap")


def twap(price: Column = "price", time_ns: Column = "recv_ns") -> pl.Expr:
    """The time-weighted average price: each price weighs the time until the next row; the last row only ends it.

    Where all rows are of one instant it is their mean. Rows must be in the order of time.
    """
    prices, times = column(price), column(time_ns)
    held = times.shift(-1) - times
    span = times.last() - times.first()
    return pl.when(span > 0).then((prices * held).sum() / span).otherwise(prices.mean()).alias("twap")


def time_bars(
    trades: Frame,
    interval_ns: int,
    *,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
    clock: Literal["recv_ns", "exch_ns"] = "recv_ns",
    empty: bool = False,
) -> Frame:
    """Bars of equal time on the grid of whole multiples of `interval_ns` in UTC, from `start_ns` up to before `end_ns`.

    Args:
        trades: Trades in any order, with `recv_ns`, `price`, `volume`, `side` and the keys they are grouped by.
        interval_ns: The bar's length.
        incidents: Gaps: the bar in which one lies is split there (two rows with one `start_ns`).
        clock: The clock that a trade is placed by; trades without `exch_ns` are left out of bars by that clock.
        empty: Whether a bar without a trade, between the first and last of its stretch, is a row: it carries the last
            close as its four prices, zeros for volumes and trades, and a null vwap. By default it is no row.

    Raises:
        UsageError: `interval_ns` is not positive.
    """
    _positive(interval_ns=interval_ns)

    def metric(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        rows = asof.with_stretch(own, gaps).drop_nulls(clock)
        rows = rows.with_columns(start_ns=pl.col(clock) // interval_ns * interval_ns)
        if clock != "recv_ns":
            rows = rows.sort("stretch", "start_ns", maintain_order=True)
        first, _, bars = _bars(rows, begins("stretch", "start_ns"))
        bars = bars.insert_column(1, first["start_ns"])
        bars = _with_empty_bars(bars, interval_ns) if empty else bars
        end_ns = pl.col("start_ns").add(interval_ns).alias("end_ns")
        return bars.select("stretch", "start_ns", end_ns, pl.exclude("stretch", "start_ns"))

    return each_group(metric, trades, incidents=incidents)


def tick_bars(trades: Frame, threshold: int, *, incidents: pl.LazyFrame | pl.DataFrame | None = None) -> Frame:
    """Bars of `threshold` trades each.

    López de Prado (2018), "Advances in Financial Machine Learning", Wiley, chapter 2.

    Raises:
        UsageError: `threshold` is not positive.
    """
    _positive(threshold=threshold)
    return _closed_bars(trades, pl.lit(1), _reaching(threshold), incidents)


def volume_bars(trades: Frame, threshold: int, *, incidents: pl.LazyFrame | pl.DataFrame | None = None) -> Frame:
    """Bars that close with the trade that brings their volume to at least `threshold` lots.

    Easley, López de Prado and O'Hara (2012), "The Volume Clock: Insights into the High-Frequency Paradigm", Journal
    of Portfolio Management 39. For buckets of exactly equal volume, which split trades, see `flow.volume_buckets`.

    Raises:
        UsageError: `threshold` is not positive.
    """
    _positive(threshold=threshold)
    return _closed_bars(trades, pl.col("volume"), _reaching(threshold), incidents)


def dollar_bars(
    trades: Frame, threshold: float, *, point_value: float = 1.0, incidents: pl.LazyFrame | pl.DataFrame | None = None
) -> Frame:
    """Bars that close with the trade that brings their traded value, sum pq times `point_value`, to `threshold`.

    López de Prado (2018), "Advances in Financial Machine Learning", Wiley, chapter 2.

    Args:
        trades: As for `time_bars`.
        threshold: In the currency of the contract where `point_value` is the contract's, else in points times lots.
        point_value: The currency that one point of one lot is worth (50 USD for ES).
        incidents: Gaps; a bar ends at each.

    Raises:
        UsageError: `threshold` or `point_value` is not positive.
    """
    _positive(threshold=threshold, point_value=point_value)
    return _closed_bars(trades, _VALUE * point_value, _reaching(threshold), incidents)


def imbalance_bars(
    trades: Frame,
    *,
    weight: Weight = "trades",
    expected_trades: int = 1000,
    span: int = 20,
    limits: tuple[float, float] = (1.0, float("inf")),
    sign: Column | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Bars that close when signed flow strays further than was to be expected.

    With b = +1 for a buyer-initiated and -1 for a seller-initiated trade, and w its weight, a bar closes at the first
    trade where |sum b w| >= E[T] |E[b w]|. López de Prado (2018), "Advances in Financial Machine Learning", Wiley,
    section 2.3.2. The book takes exponential averages over earlier bars, and leaves open how long they remember and
    whether bars or trades are averaged; here E[T] and E[b w] are those over closed bars of their number of trades and
    their mean of b w, and the first bar of a stretch is a tick bar of `expected_trades`.

    Args:
        trades: As for `time_bars`.
        weight: What a trade weighs: one, its lots, or its value (price times lots).
        expected_trades: The length of the first bar.
        span: The averages' memory in bars: the newest bar weighs 2 / (span + 1).
        limits: E[T] is kept within these. The rule feeds its own lengths back, and without limits it is known to
            shrink to bars of one trade or to grow without end.
        sign: b where it is not to come from `side` (a column or expression of +1, -1, null), as the tick rule.
        incidents: Gaps; a bar ends at each, and the averages start anew.

    Raises:
        UsageError: `expected_trades` or `span` is not positive, or the limits are not in order.
    """
    closes = _straying(lambda x: x[np.newaxis], expected_trades, span, limits)
    return _closed_bars(trades, _signed_weight(weight, sign), closes, incidents)


def run_bars(
    trades: Frame,
    *,
    weight: Weight = "trades",
    expected_trades: int = 1000,
    span: int = 20,
    limits: tuple[float, float] = (1.0, float("inf")),
    sign: Column | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Bars that close when one side has traded more than was to be expected of the busier side.

    A bar closes at the first trade where max(sum of buys' w, sum of sells' w) >= E[T] max(P[b=1] E[w | b=1],
    P[b=-1] E[w | b=-1]). López de Prado (2018), "Advances in Financial Machine Learning", Wiley, section 2.3.2.
    Arguments, averages and errors are those of `imbalance_bars`.
    """
    closes = _straying(_buys_and_sells, expected_trades, span, limits)
    return _closed_bars(trades, _signed_weight(weight, sign), closes, incidents)


def _bars(trades: pl.DataFrame, opens: pl.Expr) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The first trade of each bar, its last, and the bar: one begins with each trade that opens one."""
    start = trades.select(opens.arg_true()).to_series().to_numpy().astype(np.int64)
    first, last = trades[start], trades[np.append(start, trades.height)[1:] - 1]
    price, volume = trades["price"].to_numpy(), trades["volume"].to_numpy()
    bought, sold = (volume * (trades["side"] == side).fill_null(value=False).to_numpy() for side in (0, 1))
    bars = pl.DataFrame(
        {
            "stretch": first["stretch"],
            "open": first["price"],
            "high": np.maximum.reduceat(price, start),
            "low": np.minimum.reduceat(price, start),
            "close": last["price"],
            "volume": np.add.reduceat(volume, start),
            "buy_volume": np.add.reduceat(bought, start),
            "sell_volume": np.add.reduceat(sold, start),
            "trades": np.diff(start, append=trades.height),
            "vwap": np.add.reduceat(price * volume, start),
        }
    )
    return first, last, bars.with_columns(vwap=pl.when(pl.col("volume") > 0).then(pl.col("vwap") / pl.col("volume")))


def _positive(**arguments: float) -> None:
    for name, value in arguments.items():
        if not value > 0:
            raise UsageError(f"{name} must be positive, not {value}")


def _with_empty_bars(bars: pl.DataFrame, interval_ns: int) -> pl.DataFrame:
    first, last = pl.col("start_ns").min(), pl.col("start_ns").max() + interval_ns
    return (
        bars.group_by("stretch", maintain_order=True)
        .agg(pl.int_range(first, last, interval_ns).alias("start_ns"))
        .explode("start_ns")
        .join(bars, on=["stretch", "start_ns"], how="left", maintain_order="left")
        .with_columns(
            pl.col("close").forward_fill(), pl.col("volume", "buy_volume", "sell_volume", "trades").fill_null(0)
        )
        .with_columns(pl.col("open", "high", "low").fill_null(pl.col("close")))
    )


def _closed_bars(
    trades: Frame, amount: pl.Expr, closes: Closes, incidents: pl.LazyFrame | pl.DataFrame | None
) -> Frame:
    """Bars from the rule that marks, in the amounts of one stretch in order, the trades that close a bar."""

    def metric(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
        rows = asof.with_stretch(own, gaps).with_columns(_amount=amount)
        marks = np.concatenate([closes(piece["_amount"].to_numpy()) for piece in asof.pieces(rows)])
        rows = rows.with_columns(complete=pl.Series(marks, dtype=pl.Boolean))
        first, last, bars = _bars(rows, begins("stretch") | pl.col("complete").shift(fill_value=False))
        span = first["recv_ns"].alias("start_ns"), last["recv_ns"].alias("end_ns")
        return bars.select("stretch", *span, pl.exclude("stretch"), last["complete"])

    return each_group(metric, trades, incidents=incidents)


def _reaching(threshold: float) -> Closes:
    """Mark where the sum since the last mark comes to the threshold."""

    def closes(amounts: NDArray[np.float64]) -> NDArray[np.bool_]:
        total = np.cumsum(amounts)
        marks = np.zeros(len(total), dtype=np.bool_)
        row = int(np.searchsorted(total, threshold))
        while row < len(total):
            marks[row] = True
            row = int(np.searchsorted(total, total[row] + threshold))
        return marks

    return closes


def _signed_weight(weight: Weight, sign: Column | None) -> pl.Expr:
    weights = {"trades": pl.lit(1.0), "volume": pl.col("volume").cast(pl.Float64), "value": _VALUE}
    if weight not in weights:
        raise UsageError(f"weight must be one of {', '.join(weights)}, not {weight!r}")
    signs = trade_sign() if sign is None else column(sign).cast(pl.Float64)
    return (signs * weights[weight]).fill_null(0.0)


def _buys_and_sells(signed: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.maximum(signed, 0.0), np.maximum(-signed, 0.0)])


def _straying(
    sides: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    expected_trades: int,
    span: int,
    limits: tuple[float, float],
) -> Closes:
    """Mark where a side's sum is larger than expected; `sides` makes of a flow the sums' terms, (sides, trades)."""
    _positive(expected_trades=expected_trades, span=span)
    if not 0 < limits[0] <= limits[1]:
        raise UsageError(f"limits must be two positive numbers of trades in order, not {limits}")
    return lambda amounts: _adaptive_closes(sides(amounts), expected_trades, span, limits)


def _adaptive_closes(
    flow: NDArray[np.float64], expected_trades: int, span: int, limits: tuple[float, float]
) -> NDArray[np.bool_]:
    """The marks of one stretch, whose `flow` has shape (sides, trades)."""
    total = np.pad(np.cumsum(flow, axis=1), ((0, 0), (1, 0)))
    trades = flow.shape[1]
    closes = np.zeros(trades, dtype=np.bool_)
    gain = 2.0 / (span + 1.0)
    length, rate = float(expected_trades), None
    start, stop = 0, expected_trades
    while stop <= trades:
        closes[stop - 1] = True
        bar_rate = (total[:, stop] - total[:, start]) / (stop - start)
        rate = bar_rate if rate is None else rate + gain * (bar_rate - rate)
        length = min(max(length + gain * (stop - start - length), limits[0]), limits[1])
        start, stop = stop, _first_reach(total, stop, length * float(np.abs(rate).max()))
    return closes


def _first_reach(total: NDArray[np.float64], start: int, threshold: float) -> int:
    """The number of trades after which a sum since `start` first comes to the threshold; past the end if never.

    It looks ahead in windows that double, so that all bars together read each trade only a few times.
    """
    seen, window = start + 1, 64
    while seen < total.shape[1]:
        path = np.abs(total[:, seen : seen + window] - total[:, start : start + 1]).max(axis=0)
        hit = int(np.argmax(path >= threshold))
        if path[hit] >= threshold:
            return seen + hit
        seen, window = seen + window, 2 * window
    return int(total.shape[1])
