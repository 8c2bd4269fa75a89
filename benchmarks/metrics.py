"""Each metric against the same thing written by hand in numpy, on 10 million quotes and 2 million trades.

    python benchmarks/metrics.py [--quotes N] [--trades N]

Both sides start from the same frames (two contracts, keys as text, in the lake's order) and end with the same numbers,
which are compared. The hand-written side knows what the library must find out or allow for: no gaps, no nulls, one
clock, sorted rows, no columns to keep. Times are the best of three; memory is the peak of the whole run.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from mdcapture.metrics.impact import kyle_lambda, response
from mdcapture.metrics.information import trade_information
from mdcapture.metrics.spread_estimators import roll
from mdcapture.metrics.spreads import mean_spreads, quoted, spread_occupancy, trade_spreads
from mdcapture.metrics.volatility import realized_variance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Numbers = list[float]

SECOND_NS = 1_000_000_000
TICK = 0.25
CONTRACTS = ["CON.F.US.EP.H26", "CON.F.US.ENQ.H26"]


class Tape(NamedTuple):
    """Quotes and trades as the lake has them."""

    quotes: pl.DataFrame
    trades: pl.DataFrame


def made_up(quotes: int, trades: int) -> Tape:
    """A day of two random walks, with trades at their touches."""
    random = np.random.default_rng(0)
    parts = [one_contract(random, contract, quotes // 2, trades // 2) for contract in sorted(CONTRACTS)]
    return Tape(*(pl.concat(frames).rechunk() for frames in zip(*parts, strict=True)))


def one_contract(random: np.random.Generator, contract: str, quotes: int, trades: int) -> Tape:
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
    return Tape(
        rows.filter(~is_trade),
        rows.drop("best_bid", "best_ask").with_columns(**{k: pl.Series(v) for k, v in prints.items()}).filter(is_trade),
    )


# By hand


def by_contract(tape: Tape) -> Iterator[tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]]:
    """The columns of each contract as arrays."""
    for contract in sorted(CONTRACTS):
        own = [frame.filter(pl.col("contract_id") == contract) for frame in tape]
        q, t = ({name: frame[name].to_numpy() for name in frame.columns[2:]} for frame in own)
        yield q | {"mid": (q["best_bid"] + q["best_ask"]) / 2}, t | {"sign": 1.0 - 2.0 * t["side"]}


def mid_before(q: dict[str, NDArray[np.float64]], t: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """By the number of the message, which is the order here."""
    return np.append(np.nan, q["mid"])[np.searchsorted(q["seq"], t["seq"])]


def mid_after(
    q: dict[str, NDArray[np.float64]], t: dict[str, NDArray[np.float64]], horizon_ns: int
) -> NDArray[np.float64]:
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
    changes = [np.diff(t["price"]) for _, t in by_contract(tape)]
    return [2 * float(np.sqrt(-np.cov(change[1:], change[:-1])[0, 1])) for change in changes]


def hand_variance(tape: Tape) -> Numbers:
    """Of tick-by-tick log returns."""
    return [float((np.diff(np.log(q["mid"])) ** 2).sum()) for q, _ in by_contract(tape)]


def hand_var(tape: Tape) -> Numbers:
    """Permanent impact in closed form, with 5 lags."""
    lags, found = 5, []
    for q, t in by_contract(tape):
        mid = mid_before(q, t)
        known = np.isfinite(mid)
        r, x = np.diff(mid[known]), t["sign"][known][:-1]
        n = len(r) - lags
        past = [y[lags - lag : lags - lag + n] for y in (r, x) for lag in range(1, lags + 1)]
        design = np.column_stack([np.ones(n), *past, x[lags:]])
        a = np.linalg.solve(design.T @ design, design.T @ r[lags:])
        c = np.linalg.solve(design[:, :-1].T @ design[:, :-1], design[:, :-1].T @ x[lags:])
        matrix = [[1 - a[1:6].sum(), -a[6:12].sum()], [-c[1:6].sum(), 1 - c[6:11].sum()]]
        found.append(float(np.linalg.inv(matrix)[0, 1]))
    return found


# By the library


def library_roll(tape: Tape) -> Numbers:
    """From all price changes."""
    return tape.trades.group_by("contract_id").agg(roll("price")).sort("contract_id")["roll"].to_list()


def library_variance(tape: Tape) -> Numbers:
    """Of tick-by-tick log returns."""
    mid = (pl.col("best_bid") + pl.col("best_ask")) / 2
    found = tape.quotes.group_by("contract_id").agg(rv=realized_variance(mid.log().diff()))
    return found.sort("contract_id")["rv"].to_list()


def library_impact(tape: Tape) -> Numbers:
    """Means of effective and realized spread and impact."""
    means = mean_spreads(trade_spreads(tape.trades, tape.quotes, [SECOND_NS], scales=["price"]))
    columns = ["effective_spread", "realized_spread_1s", "price_impact_1s"]
    return [value for row in means.select(columns).rows() for value in row]


CASES: dict[str, tuple[Callable[[Tape], Numbers], Callable[[Tape], Numbers]]] = {
    "quoted spread, by time": (
        lambda tape: quoted(tape.quotes, scales=["price"], until=tape.trades)["quoted_spread"].to_list(),
        hand_quoted,
    ),
    "occupancy of widths": (
        lambda tape: spread_occupancy(tape.quotes, TICK, until=tape.trades)["share"].to_list(),
        hand_occupancy,
    ),
    "effective spread": (
        lambda tape: mean_spreads(trade_spreads(tape.trades, tape.quotes, scales=["price"]))[
            "effective_spread"
        ].to_list(),
        hand_effective,
    ),
    "effective, realized, impact 1 s": (library_impact, hand_impact),
    "response 1 s by size": (
        lambda tape: response(tape.trades, tape.quotes, [SECOND_NS], size_edges=[1, 5, 10])["response"].to_list(),
        hand_response,
    ),
    "Kyle's lambda, 1 s": (lambda tape: kyle_lambda(*reversed(tape), SECOND_NS)["slope"].to_list(), hand_kyle),
    "Hasbrouck's VAR": (lambda tape: trade_information(*reversed(tape))["permanent_impact"].to_list(), hand_var),
    "Roll": (library_roll, hand_roll),
    "realized variance of mids": (library_variance, hand_variance),
}


def timed(metric: Callable[[Tape], Numbers], tape: Tape) -> tuple[float, Numbers]:
    """The best of three, in seconds, and what came out."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        found = metric(tape)
        seconds.append(time.perf_counter() - start)
    return min(seconds), found


def main() -> None:
    """Print a line a metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quotes", type=int, default=10_000_000)
    parser.add_argument("--trades", type=int, default=2_000_000)
    arguments = parser.parse_args()
    tape = made_up(arguments.quotes, arguments.trades)
    print(f"{arguments.quotes:,} quotes, {arguments.trades:,} trades, {pl.thread_pool_size()} threads")
    print(f"{'metric':34}{'library s':>10}{'numpy s':>10}{'ratio':>8}")
    for name, (library, hand) in CASES.items():
        (ours_s, ours), (hand_s, theirs) = timed(library, tape), timed(hand, tape)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)
        print(f"{name:34}{ours_s:10.2f}{hand_s:10.2f}{ours_s / hand_s:8.1f}", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


if __name__ == "__main__":
    main()
