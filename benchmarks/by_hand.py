"""What `analyze` computes of one contract, written by hand in numpy: as short and fast as one would for a single study.

It knows what the library must find out or allow for: one contract, one window, no gaps, no nulls, one clock, sorted
rows, a known tick. Models of single orders (Hawkes, ACD, spread components, vector autoregression), power laws and
standard errors are not here, so that the sum of these parts is less than what an analysis has.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
from scipy import fft

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Column = NDArray[np.int64 | np.float64]
    Columns = dict[str, Column]
    Figures = dict[str, float]

__all__ = ["PARTS", "figures"]

SECOND_NS = 1_000_000_000
YEAR_S = 252 * 23 * 3600
TICK = 0.25
TICK_VALUE = 12.5
HORIZONS_S = {"1s": 1, "5s": 5, "1m": 60}


def read(folder: Path) -> dict[str, Columns]:
    """The columns that are needed."""
    wanted = {
        "quotes": ["recv_ns", "seq", "best_bid", "best_ask"],
        "trades": ["recv_ns", "seq", "exch_ns", "price", "volume", "side"],
        "messages": ["recv_ns", "seq"],
    }
    tape = {}
    for table, names in wanted.items():
        rows = pq.ParquetFile(next(folder.glob(f"{table}/*/*/part-*.parquet"))).read(names)
        tape[table] = {name: rows[name].to_numpy() for name in names}
    q, t = tape["quotes"], tape["trades"]
    q["spread"] = q["best_ask"] - q["best_bid"]
    q["mid"] = (q["best_bid"] + q["best_ask"]) / 2
    q["held"] = np.diff(q["recv_ns"], append=tape["messages"]["recv_ns"][-1])
    t["sign"] = 1.0 - 2.0 * t["side"]
    return tape


def quality(tape: dict[str, Columns]) -> Figures:
    """Messages, silences, latency."""
    times, seq, t = tape["messages"]["recv_ns"], tape["messages"]["seq"], tape["trades"]
    duration_s = (times[-1] + 1 - times[0]) / SECOND_NS
    late_ms = (t["recv_ns"] - t["exch_ns"]) / 1e6
    assert (np.diff(seq) > 0).all()
    return {
        "duration_s": duration_s,
        "messages": len(times),
        "messages_per_s": len(times) / duration_s,
        "longest_silence_s": np.diff(times).max() / SECOND_NS,
        "latency_median_ms": np.median(late_ms),
        "latency_p99_ms": np.quantile(late_ms, 0.99, method="nearest"),
    }


def widths(tape: dict[str, Columns]) -> Figures:
    """The quoted spread by time, and how long it stays wide."""
    q = tape["quotes"]
    ticks = np.rint(q["spread"] / TICK).astype(np.int64)
    share = np.bincount(ticks, q["held"]) / q["held"].sum()
    mean, mean_bps = (spread @ q["held"] / q["held"].sum() for spread in (q["spread"], q["spread"] / q["mid"]))
    wide = ticks > 1
    turns = np.flatnonzero(np.diff(wide)) + 1
    turns = turns[int(wide[0]) :]
    ends = turns[1::2]
    waits = q["recv_ns"][ends] - q["recv_ns"][turns[0::2][: len(ends)]]
    return {
        "quotes": len(ticks),
        "locked": share[0],
        "one_tick": share[1],
        "quoted_spread": mean,
        "quoted_spread_ticks": mean / TICK,
        "quoted_spread_bps": 1e4 * mean_bps,
        "widenings": len(turns[0::2]),
        "reversion_median_s": np.median(waits) / SECOND_NS,
    }


def costs(tape: dict[str, Columns]) -> Figures:
    """Effective and realized spreads, impacts and responses."""
    q, t = tape["quotes"], tape["trades"]
    place = np.searchsorted(q["seq"], t["seq"]) - 1
    mid = np.where(place >= 0, q["mid"][place], np.nan)
    effective = 2 * t["sign"] * (t["price"] - mid)
    bps = 1e4 * effective / mid
    there = np.isfinite(bps)
    found = {
        "effective_spread": np.nanmean(effective),
        "effective_spread_bps": np.nanmean(bps),
        "effective_spread_lots_bps": np.average(bps[there], weights=t["volume"][there]),
    }
    last = max(q["recv_ns"][-1], t["recv_ns"][-1])
    for label, horizon_s in HORIZONS_S.items():
        target = t["recv_ns"] + horizon_s * SECOND_NS
        after = q["mid"][np.searchsorted(q["recv_ns"], target, side="right") - 1]
        after[target > last] = np.nan
        impact = 2 * t["sign"] * (after - mid)
        found[f"response_{label}"] = np.nanmean(impact) / 2
        found[f"price_impact_{label}_bps"] = np.nanmean(1e4 * impact / mid)
        found[f"realized_spread_{label}_bps"] = np.nanmean(1e4 * 2 * t["sign"] * (t["price"] - after) / mid)
    return found


def sampled(q: Columns, interval_ns: int) -> Column:
    """The mid at each whole multiple of an interval."""
    grid = np.arange(-(-q["recv_ns"][0] // interval_ns), q["recv_ns"][-1] // interval_ns + 1) * interval_ns
    return q["mid"][np.searchsorted(q["recv_ns"], grid, side="right") - 1]


def squares(values: Column) -> float:
    """Their sum."""
    return float(values @ values)


def volatility(tape: dict[str, Columns]) -> Figures:
    """Realized measures of mids each second, each 15 s and each minute."""
    second, quarter, minute = (np.diff(np.log(sampled(tape["quotes"], step * SECOND_NS))) for step in (1, 15, 60))
    size, n = np.abs(quarter), len(quarter)
    low, high = np.minimum(size[1:], size[:-1]), np.maximum(size[1:], size[:-1])
    middle = np.maximum(low[:-1], np.minimum(high[:-1], size[2:]))
    median = np.pi / (6 - 4 * np.sqrt(3) + np.pi) * n / (n - 2) * squares(middle)
    variance = squares(quarter)

    def a_year(total: float, time_s: float) -> float:
        return float(100 * np.sqrt(total / time_s * YEAR_S))

    return {
        "realized_volatility": a_year(squares(second), len(second)),
        "realized_volatility_1m": a_year(squares(minute), 60 * len(minute)),
        "bipower_volatility": a_year(np.pi / 2 * float(size[1:] @ size[:-1]), 15 * n),
        "median_volatility": a_year(median, 15 * n),
        "jump_share": max(0.0, 1 - median / variance),
        "realized_skewness": np.sqrt(n) * (quarter**3).sum() / variance**1.5,
        "realized_kurtosis": n * (quarter**4).sum() / variance**2,
        "signature_ratio": (squares(second) / len(second)) / (squares(minute) / (60 * len(minute))),
    }


def without_noise(tape: dict[str, Columns]) -> Figures:
    """Two scales, the Parzen kernel and pre-averages of each change of the mid."""
    q = tape["quotes"]
    changes = np.flatnonzero(np.diff(q["mid"], prepend=np.nan))
    r = np.diff(np.log(q["mid"][changes]))
    n, time_s = len(r), (q["recv_ns"][changes[-1]] - q["recv_ns"][changes[0]]) / SECOND_NS
    path = np.append(0.0, np.cumsum(r))

    def every(step: int) -> float:
        return float(((path[step:] - path[:-step]) ** 2).sum() / step)

    xi = r @ r / n / 2 / every(n // 20)
    slow = max(math.ceil((12 * xi**2) ** (1 / 3) * n ** (2 / 3)), math.isqrt(n))
    ratio = (n - slow + 1) / slow / n
    lags = math.ceil(3.5134 * xi**0.4 * n**0.6)
    size = fft.next_fast_len(n + lags, real=True)
    covariances = fft.irfft(np.abs(fft.rfft(r, size)) ** 2, size)[: lags + 1]
    x = np.arange(1, lags + 1) / (lags + 1)
    parzen = np.where(x <= 0.5, 1 - 6 * x**2 * (1 - x), 2 * (1 - x) ** 3)
    k = int(0.8 * math.sqrt(n))
    ramp = np.minimum(np.arange(k + 1), k - np.arange(k + 1)) / k
    psi_1, psi_2 = k * (np.diff(ramp) ** 2).sum(), (ramp**2).sum() / k
    boxes = path[k // 2 :] - path[: -(k // 2)]
    boxes = np.append(0.0, np.cumsum(boxes))
    means = (boxes[k - k // 2 :] - boxes[: -(k - k // 2)]) / k
    share = psi_1 / (2 * psi_2 * k**2)
    averaged = n / (n - k + 2) * (means @ means) / (psi_2 * k) - share * (r @ r)
    variances = {
        "two_scale_volatility": (every(slow) - ratio * (r @ r)) / (1 - ratio),
        "kernel_volatility": covariances[0] + 2 * parzen @ covariances[1:],
        "pre_averaged_volatility": averaged / (1 - share),
    }
    return {name: 100 * math.sqrt(variance / time_s * YEAR_S) for name, variance in variances.items()}


def activity(tape: dict[str, Columns]) -> Figures:
    """Prices, volumes and the profile."""
    t = tape["trades"]
    lots, price = t["volume"], t["price"]
    ticks = np.rint((price - price.min()) / TICK).astype(np.int64)
    profile = np.bincount(ticks, lots)
    held = np.diff(t["recv_ns"])
    return {
        "trades": len(lots),
        "volume": lots.sum(),
        "value": (price @ lots) * TICK_VALUE / TICK,
        "open": price[0],
        "high": price.max(),
        "low": price.min(),
        "close": price[-1],
        "vwap": price @ lots / lots.sum(),
        "twap": price[:-1] @ held / held.sum(),
        "point_of_control": price.min() + TICK * profile.argmax(),
        "mean_size": lots.mean(),
        "median_size": np.median(lots),
        "largest_size": lots.max(),
        "size_herfindahl": ((np.bincount(lots) / len(lots)) ** 2).sum(),
        "at_multiples_of_5": (lots % 5 == 0).mean(),
        "at_multiples_of_10": (lots % 10 == 0).mean(),
    }


def flow(tape: dict[str, Columns]) -> Figures:
    """Who was the aggressor, in what order, and what the volume's clock says of it."""
    t = tape["trades"]
    lots, bought = t["volume"], np.where(t["side"] == 0, t["volume"], 0)
    starts = np.flatnonzero((np.diff(t["exch_ns"], prepend=0) != 0) | (np.diff(t["side"], prepend=-1) != 0))
    sign, arrival = t["sign"][starts], t["recv_ns"][starts]
    centred = sign - sign.mean()
    waits = np.diff(arrival) / SECOND_NS
    total, bucket = np.cumsum(lots), int(lots.sum()) // 250
    edges = np.arange(1, total[-1] // bucket + 1) * bucket
    buys = np.diff(np.interp(edges, total, np.cumsum(bought)), prepend=0.0)
    imbalance = np.cumsum(np.abs(2 * buys - bucket))
    vpin = (imbalance[49:] - np.append(0.0, imbalance[:-50])) / (50 * bucket)
    decay = [centred[lag:] @ centred[:-lag] / (centred @ centred) for lag in range(1, 51)]
    return {
        "orders": len(starts),
        "buy_volume": bought.sum(),
        "sell_volume": lots.sum() - bought.sum(),
        "delta": 2 * bought.sum() - lots.sum(),
        "imbalance": 2 * bought.sum() / lots.sum() - 1,
        "count_imbalance": 1 - 2 * t["side"].mean(),
        "sign_autocorrelation": decay[0],
        "vpin": vpin.mean(),
        "vpin_highest": vpin.max(),
        "duration_mean_s": waits.mean(),
        "duration_median_s": np.median(waits),
    }


def impact(tape: dict[str, Columns]) -> Figures:
    """Slopes of moves on flow, and the ranges of minutes."""
    q, t = tape["quotes"], tape["trades"]
    found = {}
    flows = {"kyle": (10, t["sign"] * t["volume"]), "hasbrouck": (300, t["sign"] * np.sqrt(t["price"] * t["volume"]))}
    for name, (interval_s, signed) in flows.items():
        interval_ns = interval_s * SECOND_NS
        first, last = -(-q["recv_ns"][0] // interval_ns), q["recv_ns"][-1] // interval_ns
        mid = q["mid"][np.searchsorted(q["recv_ns"], np.arange(first, last + 1) * interval_ns) - 1]
        move = np.diff(mid if name == "kyle" else np.log(mid))
        bar = t["recv_ns"] // interval_ns - first
        inside = (bar >= 0) & (bar < len(move))
        summed = np.bincount(bar[inside], signed[inside], minlength=len(move))
        slope, level = np.polyfit(summed, move, 1)
        found[f"{name}_lambda"] = slope
        if name == "kyle":
            found["kyle_r_squared"] = (
                1 - ((move - slope * summed - level) ** 2).sum() / ((move - move.mean()) ** 2).sum()
            )
    bars = np.flatnonzero(np.diff(t["recv_ns"] // (60 * SECOND_NS), prepend=-1))
    highs, lows = np.maximum.reduceat(t["price"], bars), np.minimum.reduceat(t["price"], bars)
    found["parkinson_volatility"] = 100 * np.sqrt((np.log(highs / lows) ** 2).mean() / (4 * np.log(2)) / 60 * YEAR_S)
    close, lots = t["price"][np.append(bars[1:], len(t["price"])) - 1], np.add.reduceat(t["volume"], bars)
    value = np.add.reduceat(t["price"] * t["volume"], bars)
    assert lots.all()
    found["amihud"] = (np.abs(np.diff(np.log(close))) / value[1:]).mean()
    return found


PARTS: tuple[Callable[[dict[str, Columns]], Figures], ...] = (
    quality,
    widths,
    costs,
    volatility,
    without_noise,
    activity,
    flow,
    impact,
)


def figures(folder: Path) -> Figures:
    """All of it."""
    tape = read(folder)
    found: Figures = {}
    for part in PARTS:
        found |= part(tape)
    return found
