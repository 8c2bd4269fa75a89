"""Each metric against the same thing written by hand in numpy, on 10 million quotes and 2 million trades.

    python benchmarks/metrics.py [--quotes N] [--trades N] [--rounds N] [--only NAME]

Both sides start from the same frames (two contracts, keys as text, in the lake's order) and end with the same numbers,
which are compared. The hand-written side takes the frames apart by contract and knows what the library must find out
or allow for: which contracts there are, one session, no gaps, no nulls, one clock, sorted rows, no columns to keep.
The two take turns, and of each the best time counts; memory is the peak of the whole run.
"""

from __future__ import annotations

import argparse
import io
import math
import resource
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from scipy import fft

from mdcapture.metrics.asof import mid
from mdcapture.metrics.bars import time_bars, volume_bars
from mdcapture.metrics.classification import classify
from mdcapture.metrics.flow import cumulative_delta, order_flow, sign_autocorrelation, vpin
from mdcapture.metrics.frames import by_group
from mdcapture.metrics.impact import kyle_lambda, response
from mdcapture.metrics.information import trade_information
from mdcapture.metrics.spread_estimators import roll
from mdcapture.metrics.spreads import mean_spreads, quoted, spread_occupancy, trade_spreads
from mdcapture.metrics.volatility import (
    bipower_variance,
    log_returns,
    med_variance,
    min_variance,
    realized_variance,
    sampled_returns,
    tripower_quarticity,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Columns = dict[str, Array]
    Numbers = Array | list[float]

SECOND_NS = 1_000_000_000
TICK = 0.25
LAGS = 100
BUCKET = 5_000
BAR_VOLUME = 1_000
GOAL = 2.0
CONTRACTS = ["CON.F.US.EP.H26", "CON.F.US.ENQ.H26"]


class Tape(NamedTuple):
    """Quotes and trades as they are read from the lake's files, and the log returns of mids, tick by tick."""

    quotes: pl.DataFrame
    trades: pl.DataFrame
    returns: pl.DataFrame


def made_up(quotes: int, trades: int) -> Tape:
    """A day of two random walks, with trades at their touches."""
    random = np.random.default_rng(0)
    parts = [one_contract(random, contract, quotes // 2, trades // 2) for contract in sorted(CONTRACTS)]
    quoted_, traded = (as_read(pl.concat(frames)) for frames in zip(*parts, strict=True))
    return Tape(quoted_, traded, as_read(sampled_returns(quoted_)))


def as_read(frame: pl.DataFrame) -> pl.DataFrame:
    """From a Parquet file."""
    file = io.BytesIO()
    frame.write_parquet(file)
    file.seek(0)
    return pl.read_parquet(file)


def one_contract(random: np.random.Generator, contract: str, quotes: int, trades: int) -> list[pl.DataFrame]:
    """Its messages in the order of their numbers."""
    n = quotes + trades
    recv_ns = 1_760_000_000 * SECOND_NS + np.sort(random.integers(0, 82_800 * SECOND_NS, n))
    is_trade = np.zeros(n, bool)
    is_trade[random.choice(n, trades, replace=False)] = True
    bid = 20_000 + np.cumsum(random.integers(-1, 2, n)) * TICK
    ask = bid + TICK * (1 + (random.random(n) < 0.1))
    keys = {"session_id": np.full(n, "session_20251009_000000"), "contract_id": np.full(n, contract)}
    rows = pl.DataFrame(keys | {"seq": np.arange(n), "recv_ns": recv_ns, "best_bid": bid, "best_ask": ask})
    side = random.integers(0, 2, n).astype(np.int8)
    prints = {"price": np.where(side == 0, ask, bid), "volume": random.integers(1, 20, n), "side": side}
    traded = rows.drop("best_bid", "best_ask").with_columns(**{name: pl.Series(v) for name, v in prints.items()})
    return [rows.filter(~is_trade), traded.filter(is_trade)]


# By hand


def own_columns(frame: pl.DataFrame) -> Iterator[Columns]:
    """The columns of each contract as arrays."""
    for contract in sorted(CONTRACTS):
        own = frame.filter(pl.col("contract_id") == contract)
        yield {name: own[name].to_numpy() for name in own.columns[2:]}


def own_quotes(tape: Tape) -> Iterator[Columns]:
    """With mids."""
    return (q | {"mid": (q["best_bid"] + q["best_ask"]) / 2} for q in own_columns(tape.quotes))


def own_trades(tape: Tape) -> Iterator[Columns]:
    """With signs."""
    return (t | {"sign": 1.0 - 2.0 * t["side"]} for t in own_columns(tape.trades))


def by_contract(tape: Tape) -> Iterator[tuple[Columns, Columns]]:
    """Quotes and trades of each contract."""
    return zip(own_quotes(tape), own_trades(tape), strict=True)


def mid_before(q: Columns, t: Columns) -> Array:
    """By the number of the message, which is the order here."""
    return np.append(np.nan, q["mid"])[np.searchsorted(q["seq"], t["seq"])]


def mid_after(q: Columns, t: Columns, horizon_ns: int) -> Array:
    """By time; not a number where the data ends earlier."""
    target = t["recv_ns"] + horizon_ns
    mid = np.append(np.nan, q["mid"])[np.searchsorted(q["recv_ns"], target, side="right")]
    mid[target > max(q["recv_ns"][-1], t["recv_ns"][-1])] = np.nan
    return mid


def hand_quoted(tape: Tape) -> Numbers:
    """Time-weighted, in price units."""
    found = []
    for q, t in by_contract(tape):
        held = np.diff(q["recv_ns"], append=max(q["recv_ns"][-1], t["recv_ns"][-1]))
        found.append(float(((q["best_ask"] - q["best_bid"]) * held).sum() / held.sum()))
    return found


def hand_occupancy(tape: Tape) -> Numbers:
    """Shares of time by rising width."""
    found = []
    for q, t in by_contract(tape):
        held = np.diff(q["recv_ns"], append=max(q["recv_ns"][-1], t["recv_ns"][-1]))
        ticks = np.rint((q["best_ask"] - q["best_bid"]) / TICK).astype(np.int64)
        time_ns = np.bincount(ticks, held)
        found += list(time_ns[time_ns > 0] / held.sum())
    return found


def hand_effective(tape: Tape) -> Numbers:
    """Means."""
    return [float(np.nanmean(2 * t["sign"] * (t["price"] - mid_before(q, t)))) for q, t in by_contract(tape)]


def hand_impact(tape: Tape) -> Numbers:
    """Means of effective and realized spread and impact."""
    found = []
    for q, t in by_contract(tape):
        mid, after = mid_before(q, t), mid_after(q, t, SECOND_NS)
        twice = 2 * np.where(np.isfinite(mid), t["sign"], np.nan)
        sides = [twice * (t["price"] - mid), twice * (t["price"] - after), twice * (after - mid)]
        found += [float(np.nanmean(side)) for side in sides]
    return found


def hand_response(tape: Tape) -> Numbers:
    """Means of three classes of size."""
    found = []
    for q, t in by_contract(tape):
        move = t["sign"] * (mid_after(q, t, SECOND_NS) - mid_before(q, t))
        size = np.digitize(t["volume"], [1, 5, 10])
        found += [float(np.nanmean(move[size == k])) for k in (1, 2, 3)]
    return found


def hand_kyle(tape: Tape) -> Numbers:
    """Slopes over bars of a second."""
    found = []
    for q, t in by_contract(tape):
        first, last = -(-q["recv_ns"][0] // SECOND_NS), q["recv_ns"][-1] // SECOND_NS
        edges = np.arange(first, last + 1) * SECOND_NS
        mid = q["mid"][np.searchsorted(q["recv_ns"], edges) - 1]
        bar = t["recv_ns"] // SECOND_NS - first
        inside = (bar >= 0) & (bar < len(edges) - 1)
        flow = np.bincount(bar[inside], (t["sign"] * t["volume"])[inside], minlength=len(edges) - 1)
        found.append(float(np.polyfit(flow, np.diff(mid), 1)[0]))
    return found


def hand_roll(tape: Tape) -> Numbers:
    """From all price changes."""
    changes = [np.diff(t["price"]) for t in own_trades(tape)]
    return [2 * float(np.sqrt(-np.cov(change[1:], change[:-1])[0, 1])) for change in changes]


def hand_var(tape: Tape) -> Numbers:
    """Permanent impact in closed form with 5 lags, its standard error, and the share of trades in the variance."""
    lags, found = 5, []
    for q, t in by_contract(tape):
        mid = mid_before(q, t)
        known = np.isfinite(mid)
        r, x = np.diff(mid[known]), t["sign"][known][:-1]
        n = len(r) - lags
        past = [y[lags - lag : lags - lag + n] for y in (r, x) for lag in range(1, lags + 1)]
        design = np.column_stack([np.ones(n), *past, x[lags:]])
        whole, part = (np.linalg.inv(z.T @ z) for z in (design, design[:, :-1]))
        a, c = whole @ (design.T @ r[lags:]), part @ (design[:, :-1].T @ x[lags:])
        u, v = r[lags:] - design @ a, x[lags:] - design[:, :-1] @ c
        limit = np.linalg.inv([[1 - a[1:6].sum(), -a[6:12].sum()], [-c[1:6].sum(), 1 - c[6:11].sum()]])
        ones, none = np.ones(5), np.zeros(1)
        gradient_a = np.concatenate([none, limit[0, 0] * limit[0, 1] * ones, limit[0, 0] * limit[1, 1] * np.ones(6)])
        gradient_c = np.concatenate([none, limit[0, 1] * limit[0, 1] * ones, limit[0, 1] * limit[1, 1] * ones])
        influence = (design @ (whole @ gradient_a)) * u + (design[:, :-1] @ (part @ gradient_c)) * v
        parts = limit[0, 0] ** 2 * u.var(), limit[0, 1] ** 2 * v.var()
        found += [float(limit[0, 1]), float(np.sqrt(influence @ influence)), float(parts[1] / sum(parts))]
    return found


def hand_variance(tape: Tape) -> Numbers:
    """From quotes, tick by tick."""
    returns = (np.diff(np.log(q["mid"])) for q in own_quotes(tape))
    return [float(r @ r) for r in returns]


def hand_log_returns(tape: Tape) -> Array:
    """Tick by tick, of mids."""
    return np.concatenate([np.diff(np.log(q["mid"]), prepend=np.nan) for q in own_quotes(tape)])


def own_returns(tape: Tape) -> Iterator[Array]:
    """All but the first, which is none."""
    return (own["log_return"][1:] for own in own_columns(tape.returns))


def hand_bipower(tape: Tape) -> Numbers:
    """Variance."""
    sizes = (np.abs(r) for r in own_returns(tape))
    return [float(np.pi / 2 * (size[1:] @ size[:-1])) for size in sizes]


def hand_nearest(tape: Tape) -> Numbers:
    """MinRV and MedRV."""
    found = []
    for r in own_returns(tape):
        size, n = np.abs(r), len(r)
        low = np.minimum(size[1:], size[:-1])
        high = np.maximum(size[1:], size[:-1])[:-1]
        middle = np.maximum(low[:-1], np.minimum(high, size[2:]))
        found.append(float(np.pi / (np.pi - 2) * n / (n - 1) * (low @ low)))
        found.append(float(np.pi / (6 - 4 * np.sqrt(3) + np.pi) * n / (n - 2) * (middle @ middle)))
    return found


def hand_tripower(tape: Tape) -> Numbers:
    """Quarticity."""
    found = []
    for r in own_returns(tape):
        power, n = np.abs(r) ** (4 / 3), len(r)
        moment = 2 ** (2 / 3) * math.gamma(7 / 6) / math.gamma(1 / 2)
        found.append(float(n * moment**-3 * n / (n - 2) * (power[2:] * power[1:-1] @ power[:-2])))
    return found


def hand_sampled(tape: Tape) -> Numbers:
    """Realized variance of the mid each second."""
    found = []
    for q in own_quotes(tape):
        first, last = -(-q["recv_ns"][0] // SECOND_NS), q["recv_ns"][-1] // SECOND_NS
        grid = np.arange(first, last + 1) * SECOND_NS
        r = np.diff(np.log(q["mid"][np.searchsorted(q["recv_ns"], grid, side="right") - 1]))
        found.append(float(r @ r))
    return found


def hand_flow(tape: Tape) -> Numbers:
    """Bought, sold, delta and imbalance."""
    found = []
    for t in own_columns(tape.trades):
        bought, sold = (float(t["volume"][t["side"] == side].sum()) for side in (0, 1))
        found += [bought, sold, bought - sold, (bought - sold) / (bought + sold)]
    return found


def hand_cumulative_delta(tape: Tape) -> Array:
    """Of every trade."""
    return np.concatenate([np.cumsum(t["volume"] * (1 - 2 * t["side"])) for t in own_columns(tape.trades)])


def hand_signs(tape: Tape) -> Array:
    """Autocorrelations by way of the spectrum."""
    found = []
    for t in own_trades(tape):
        x = t["sign"] - t["sign"].mean()
        spectrum = np.abs(fft.rfft(x, fft.next_fast_len(len(x) + LAGS, real=True))) ** 2
        found.append(fft.irfft(spectrum)[1 : LAGS + 1] / (x @ x))
    return np.concatenate(found)


def hand_vpin(tape: Tape) -> Array:
    """Over 50 buckets, each filled to the lot."""
    found = []
    for t in own_columns(tape.trades):
        total = np.cumsum(t["volume"])
        bought = np.cumsum(np.where(t["side"] == 0, t["volume"], 0))
        edges = np.arange(1, total[-1] // BUCKET + 1) * BUCKET
        buys = np.diff(np.interp(edges, total, bought), prepend=0.0)
        imbalance = np.cumsum(np.abs(2 * buys - BUCKET))
        found.append((imbalance[49:] - np.append(0.0, imbalance[:-50])) / (50 * BUCKET))
    return np.concatenate(found)


def hand_lee_ready(tape: Tape) -> Array:
    """Signs of every trade, 0 where there is none."""
    found = []
    for q, t in by_contract(tape):
        price, mid = t["price"], mid_before(q, t)
        change = np.sign(np.diff(price, prepend=price[0]))
        last = np.maximum.accumulate(np.where(change != 0, np.arange(len(change)), 0))
        quote = np.sign(price - mid)
        found.append(np.where(np.isfinite(quote) & (quote != 0), quote, change[last]))
    return np.concatenate(found)


def bars_of(t: Columns, starts: NDArray[np.int64]) -> list[Array]:
    """Open, high, low, close, lots, lots bought and sold, trades, average price of bars that start at these trades."""
    price, volume, side = t["price"], t["volume"], t["side"]
    lots = np.add.reduceat(volume, starts)
    return [
        price[starts],
        np.maximum.reduceat(price, starts),
        np.minimum.reduceat(price, starts),
        price[np.append(starts[1:], len(price)) - 1],
        lots,
        np.add.reduceat(np.where(side == 0, volume, 0), starts),
        np.add.reduceat(np.where(side == 1, volume, 0), starts),
        np.diff(starts, append=len(price)),
        np.add.reduceat(price * volume, starts) / lots,
    ]


def hand_time_bars(tape: Tape) -> Array:
    """Of a second."""
    found = []
    for t in own_columns(tape.trades):
        starts = np.flatnonzero(np.diff(t["recv_ns"] // SECOND_NS, prepend=-1))
        found.append(np.stack(bars_of(t, starts)))
    return np.concatenate(found, axis=1)


def hand_volume_bars(tape: Tape) -> Array:
    """Closed by the trade that fills them."""
    found = []
    for t in own_columns(tape.trades):
        total, starts, full = np.cumsum(t["volume"]), [0], BAR_VOLUME
        while (last := int(np.searchsorted(total, full))) < len(total) - 1:
            starts.append(last + 1)
            full = total[last] + BAR_VOLUME
        found.append(np.stack(bars_of(t, np.array(starts))))
    return np.concatenate(found, axis=1)


# By the library


def library_impact(tape: Tape) -> Numbers:
    """Means of effective and realized spread and impact."""
    means = mean_spreads(trade_spreads(tape.trades, tape.quotes, [SECOND_NS], scales=["price"]))
    return in_rows(means, "effective_spread", "realized_spread_1s", "price_impact_1s")


def library_effective(tape: Tape) -> Numbers:
    """Means."""
    return in_rows(mean_spreads(trade_spreads(tape.trades, tape.quotes, scales=["price"])), "effective_spread")


def of_returns(*measures: pl.Expr) -> Callable[[Tape], Numbers]:
    """Measures of the returns."""
    named = {str(place): measure for place, measure in enumerate(measures)}
    return lambda tape: in_rows(by_group(tape.returns, **named), *named)


def library_variance(tape: Tape) -> Numbers:
    """From quotes, tick by tick."""
    return in_rows(by_group(tape.quotes, rv=realized_variance(log_returns(mid()))), "rv")


def library_sampled(tape: Tape) -> Numbers:
    """Realized variance of the mid each second."""
    returns = sampled_returns(tape.quotes, interval_ns=SECOND_NS)
    return in_rows(by_group(returns, rv=realized_variance(R)), "rv")


def library_lee_ready(tape: Tape) -> Numbers:
    """Signs of every trade, 0 where there is none."""
    return classify(tape.trades, tape.quotes, rules=["lee_ready"])["lee_ready"].fill_null(0).to_numpy()


def in_rows(table: pl.DataFrame, *columns: str) -> Numbers:
    """The figures of a table, row by row."""
    return np.stack([table[column].to_numpy() for column in columns], axis=-1).ravel()


def in_columns(bars: pl.DataFrame) -> Numbers:
    """The figures of bars, (columns, bars)."""
    prices, counts = ("open", "high", "low", "close"), ("volume", "buy_volume", "sell_volume", "trades")
    return np.stack([bars[column].to_numpy() for column in (*prices, *counts, "vwap")])


R = "log_return"

CASES: dict[str, tuple[Callable[[Tape], Numbers], Callable[[Tape], Numbers]]] = {
    "quoted spread, by time": (
        lambda tape: in_rows(quoted(tape.quotes, scales=["price"], until=tape.trades), "quoted_spread"),
        hand_quoted,
    ),
    "occupancy of widths": (
        lambda tape: in_rows(spread_occupancy(tape.quotes, TICK, until=tape.trades), "share"),
        hand_occupancy,
    ),
    "effective spread": (library_effective, hand_effective),
    "effective, realized, impact 1 s": (library_impact, hand_impact),
    "Roll": (lambda tape: in_rows(by_group(tape.trades, roll("price")), "roll"), hand_roll),
    "response 1 s by size": (
        lambda tape: in_rows(response(tape.trades, tape.quotes, [SECOND_NS], size_edges=[1, 5, 10]), "response"),
        hand_response,
    ),
    "Kyle's lambda, 1 s": (lambda tape: in_rows(kyle_lambda(tape.trades, tape.quotes, SECOND_NS), "slope"), hand_kyle),
    "Hasbrouck's VAR": (
        lambda tape: in_rows(
            trade_information(tape.trades, tape.quotes), "permanent_impact", "permanent_impact_se", "trade_share"
        ),
        hand_var,
    ),
    "realized variance of mids": (library_variance, hand_variance),
    "log returns of mids": (
        lambda tape: sampled_returns(tape.quotes)["log_return"].fill_null(math.nan).to_numpy(),
        hand_log_returns,
    ),
    "bipower variance": (of_returns(bipower_variance(R)), hand_bipower),
    "MinRV and MedRV": (of_returns(min_variance(R), med_variance(R)), hand_nearest),
    "tripower quarticity": (of_returns(tripower_quarticity(R)), hand_tripower),
    "realized variance each 1 s": (library_sampled, hand_sampled),
    "order flow": (
        lambda tape: in_rows(order_flow(tape.trades), "buy_volume", "sell_volume", "delta", "imbalance"),
        hand_flow,
    ),
    "cumulative delta": (
        lambda tape: in_rows(cumulative_delta(tape.trades), "cumulative_delta"),
        hand_cumulative_delta,
    ),
    "VPIN": (lambda tape: in_rows(vpin(tape.trades, BUCKET).drop_nulls("vpin"), "vpin"), hand_vpin),
    "autocorrelation of signs": (
        lambda tape: in_rows(sign_autocorrelation(tape.trades, LAGS), "autocorrelation"),
        hand_signs,
    ),
    "Lee and Ready": (library_lee_ready, hand_lee_ready),
    "time bars, 1 s": (lambda tape: in_columns(time_bars(tape.trades, SECOND_NS)), hand_time_bars),
    "volume bars": (lambda tape: in_columns(volume_bars(tape.trades, BAR_VOLUME)), hand_volume_bars),
}


def timed(metric: Callable[[Tape], Numbers], tape: Tape) -> tuple[float, Numbers]:
    """In seconds, and what came out."""
    start = time.perf_counter()
    found = metric(tape)
    return time.perf_counter() - start, found


def main() -> None:
    """Print a line a metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quotes", type=int, default=10_000_000)
    parser.add_argument("--trades", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="metrics whose name has this in it")
    arguments = parser.parse_args()
    tape = made_up(arguments.quotes, arguments.trades)
    print(f"{arguments.quotes:,} quotes, {arguments.trades:,} trades, {pl.thread_pool_size()} threads")
    print(f"{'metric':34}{'library s':>10}{'numpy s':>10}{'ratio':>8}   goal: at most {GOAL}")
    for name, sides in CASES.items():
        if arguments.only not in name:
            continue
        rounds = [[timed(side, tape) for side in sides] for _ in range(arguments.rounds)]
        np.testing.assert_allclose(rounds[0][0][1], rounds[0][1][1], rtol=1e-6, atol=1e-12)
        ours_s, hand_s = (min(round_[side][0] for round_ in rounds) for side in (0, 1))
        verdict = "" if ours_s <= GOAL * hand_s else "   missed"
        print(f"{name:34}{ours_s:10.2f}{hand_s:10.2f}{ours_s / hand_s:8.1f}{verdict}", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


if __name__ == "__main__":
    main()
