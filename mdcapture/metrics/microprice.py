"""Stoikov's micro-price: where the mid is expected to be, given how the queues lean and how wide the spread is.

Snapshots of the book flow in; a fitted table of adjustments to the mid flows out, and from it the micro-price of any
snapshot as an expression. Unlike the weighted mid it is a martingale by construction, and does not jump when a level
changes without news.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mdcapture.errors import UsageError
from mdcapture.metrics.flow import queue_imbalance
from mdcapture.metrics.frames import key_columns, ordered, stretches

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MicroPrice", "fit_micro_price", "micro_price"]


@dataclass(frozen=True, slots=True, eq=False)
class MicroPrice:
    """What to add to the mid in each state of the book.

    Attributes:
        tick_size: The price step that spreads are counted in.
        adjustment: Price units, shape (spreads, imbalances): row s is a spread of s + 1 ticks, the last row of that or
            more; the columns are equal bins of the imbalance (Qb - Qa) / (Qb + Qa) from -1 to 1, a value between two
            bins in the inner one. NaN where the state was never left, or where no limit exists.
        first_move: The expected first move of the mid, G1, in the same shape.
        n: How many changes from one snapshot to the next the fit is of.
    """

    tick_size: float
    adjustment: NDArray[np.float64]
    first_move: NDArray[np.float64]
    n: int


def fit_micro_price(
    book: pl.LazyFrame | pl.DataFrame,
    *,
    tick_size: float,
    imbalances: int = 9,
    spreads: int = 2,
    symmetric: bool = True,
    moves: int | None = None,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> MicroPrice:
    """Fit the micro-price on snapshots of one contract, from any number of sessions.

    Imbalance and spread form a Markov chain, watched from snapshot to snapshot. With Q the transitions that leave the
    mid where it is, R those that move it, and d the mean move of the mid out of each state (the paper's R1 K), the
    first move's expectation is G1 = (1 - Q)^-1 d, the state after it is drawn by B = (1 - Q)^-1 R, and the
    micro-price is mid + sum over k of B^k G1.

    Stoikov (2018), "The Micro-Price: A High-Frequency Estimator of Future Prices", Quantitative Finance 18.

    Args:
        book: Snapshots with `recv_ns`, `bid_price_0`, `bid_size_0`, `ask_price_0`, `ask_size_0`. Those that are locked,
            crossed or lack a side end a chain, and the next whole one begins another.
        tick_size: The contract's price step.
        imbalances: How many equal bins of imbalance: an odd number, so that a balanced book has a bin of its own, and
            by symmetry no adjustment (the paper's notebook has ten, cut at quantiles).
        spreads: How many spreads are told apart; wider ones count as the widest.
        symmetric: Add the mirror image of each transition (bid and ask swapped), as the paper does, without which a
            drift of the sample makes the sum grow without end.
        moves: How many moves of the mid to look ahead (the paper's notebook stops at 6); None: the limit.
        incidents: Gaps; no transition reaches across one.

    Raises:
        UsageError: `tick_size`, `imbalances`, `spreads` or `moves` is not positive, `imbalances` is even, or there are
            several contracts.
    """
    if tick_size <= 0 or min(imbalances, spreads, 1 if moves is None else moves) <= 0:
        raise UsageError("tick_size, imbalances, spreads and moves must be positive")
    if imbalances % 2 == 0:
        raise UsageError(f"imbalances must be odd, not {imbalances}: a balanced book needs a bin of its own")
    stay, move, drift = _transitions(book, tick_size, imbalances, spreads, incidents)
    n = round(float(stay.sum() + move.sum()))
    if symmetric:
        mirror = np.arange(imbalances * spreads).reshape(spreads, imbalances)[:, ::-1].ravel()
        stay, move = stay + stay[np.ix_(mirror, mirror)], move + move[np.ix_(mirror, mirror)]
        drift = drift - drift[mirror]
    first, adjustment = _expected_moves(stay, move, drift, moves)
    shape = (spreads, imbalances)
    return MicroPrice(tick_size, (adjustment * tick_size).reshape(shape), (first * tick_size).reshape(shape), n)


def micro_price(model: MicroPrice) -> pl.Expr:
    """The micro-price of each snapshot; null where its state has none: one-sided, locked, crossed, or never fitted."""
    spreads, imbalances = model.adjustment.shape
    state = _state(model.tick_size, imbalances, spreads)
    table = {number: value for number, value in enumerate(model.adjustment.ravel().tolist()) if np.isfinite(value)}
    adjustment = state.replace_strict(list(table), list(table.values()), default=None, return_dtype=pl.Float64)
    return ((pl.col("bid_price_0") + pl.col("ask_price_0")) / 2 + adjustment).alias("micro_price")


def _state(tick_size: float, imbalances: int, spreads: int) -> pl.Expr:
    """The number of the state, spread by spread; null where the book has none."""
    ticks = ((pl.col("ask_price_0") - pl.col("bid_price_0")) / tick_size).round().cast(pl.Int64)
    lean = queue_imbalance() * (imbalances / 2)  # in bins from the middle; an edge goes inward on both sides alike
    bucket = imbalances // 2 + (lean.sign() * (lean.abs() - 0.5).ceil().clip(0)).cast(pl.Int64)
    return pl.when(ticks >= 1).then(ticks.clip(1, spreads).sub(1) * imbalances + bucket)


def _transitions(
    book: pl.LazyFrame | pl.DataFrame,
    tick_size: float,
    imbalances: int,
    spreads: int,
    incidents: pl.LazyFrame | pl.DataFrame | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Counts of transitions without and with a move of the mid, and the sum of moves (ticks) out of each state."""
    rows = ordered(stretches(book.lazy(), incidents))
    keys: list[str] = [*key_columns(book), "stretch"]
    same = pl.all_horizontal(pl.col(key).eq_missing(pl.col(key).shift(-1)) for key in keys)
    mid_ticks = (pl.col("bid_price_0") + pl.col("ask_price_0")) / (2 * tick_size)
    moved = ((mid_ticks.shift(-1) - mid_ticks) * 2).round() / 2
    contract = pl.col("contract_id") if "contract_id" in keys else pl.lit(0)
    state = _state(tick_size, imbalances, spreads)
    counts = (
        rows.select(contract=contract, state=state, then=pl.when(same).then(state.shift(-1)), moved=moved)
        .drop_nulls(["state", "then"])
        .group_by("contract", "state", "then", moves=pl.col("moved") != 0)
        .agg(pl.len(), pl.col("moved").sum())
        .collect()
    )
    if counts["contract"].n_unique() > 1:
        raise UsageError("a micro-price is fitted on one contract: filter the book by contract_id")
    shape = (imbalances * spreads,) * 2
    stay, move, drift = np.zeros(shape), np.zeros(shape), np.zeros(shape[0])
    for target, part in ((stay, counts.filter(~pl.col("moves"))), (move, counts.filter("moves"))):
        np.add.at(target, (part["state"].to_numpy(), part["then"].to_numpy()), part["len"].to_numpy())
    np.add.at(drift, counts["state"].to_numpy(), counts["moved"].to_numpy())
    return stay, move, drift


def _expected_moves(
    stay: NDArray[np.float64], move: NDArray[np.float64], drift: NDArray[np.float64], moves: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The expected first move from each state, and the expected sum of the next `moves` of them (or of all)."""
    left = stay.sum(axis=1) + move.sum(axis=1)
    scale = np.where(left > 0, left, 1.0)[:, np.newaxis]
    quiet, moving, mean_drift = stay / scale, move / scale, drift / scale[:, 0]
    ends = move.sum(axis=1) > 0
    for _ in range(len(ends)):
        ends = ends | (quiet[:, ends].sum(axis=1) > 0)
    # from the other states the mid never moved, and the system to solve would be singular
    first, after = np.zeros(len(ends)), np.zeros_like(quiet)
    system = np.eye(int(ends.sum())) - quiet[np.ix_(ends, ends)]
    first[ends] = np.linalg.solve(system, mean_drift[ends])
    after[ends] = np.linalg.solve(system, moving[ends])
    total = _limit(after, first) if moves is None else _partial_sum(after, first, moves)
    return np.where(left > 0, first, np.nan), np.where(left > 0, total, np.nan)


def _partial_sum(after: NDArray[np.float64], first: NDArray[np.float64], moves: int) -> NDArray[np.float64]:
    total, term = np.zeros_like(first), first
    for _ in range(moves):
        total, term = total + term, after @ term
    return total


def _limit(after: NDArray[np.float64], first: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of after^k first over all k, its number of terms doubled until the rest is nothing; NaN if it is not."""
    total, power = first, after
    for _ in range(40):
        rest = power @ total
        if np.abs(rest).max(initial=0.0) < 1e-10:
            return total
        total, power = total + rest, power @ power
    return np.full_like(first, np.nan)
