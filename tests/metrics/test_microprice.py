"""The micro-price: a chain of known truth, a slow sum over single snapshots, and the martingale that it must be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from mdcapture.errors import UsageError
from mdcapture.metrics.microprice import MicroPrice, fit_micro_price, micro_price

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TICK = 0.25


def book_of(bids: list[float], spreads: list[int], shares: list[float], contract: str = "c") -> pl.DataFrame:
    """Queues of 100 lots together, of which the bid has its share."""
    return pl.DataFrame(
        {
            "contract_id": contract,
            "recv_ns": range(len(bids)),
            "bid_price_0": [TICK * bid for bid in bids],
            "bid_size_0": [round(100 * share) for share in shares],
            "ask_price_0": [TICK * (bid + spread) for bid, spread in zip(bids, spreads, strict=True)],
            "ask_size_0": [100 - round(100 * share) for share in shares],
        }
    )


def simulated_book(seed: int, length: int = 40_000) -> pl.DataFrame:
    """One tick wide or two; a queue that leans lets the mid move its way, and leans anew after a move."""
    rng = np.random.default_rng(seed)
    bid, spread, share = 1000.0, 1, 0.5
    rows = []
    for luck, lean in zip(rng.random(length), rng.random(length), strict=True):
        rows.append((bid, spread, share))
        if spread == 1 and luck < 0.05:
            bid, spread = (bid, 2) if rng.random() < share else (bid - 1, 2)
            share = 0.2 + 0.6 * lean
        elif spread == 2 and luck < 0.3:
            bid, spread = (bid + 1, 1) if rng.random() < share else (bid, 1)
            share = 0.2 + 0.6 * lean
        else:
            share = min(max(share + 0.2 * (lean - 0.5), 0.02), 0.98)
    bids, spreads, shares = map(list, zip(*rows, strict=True))
    return book_of(bids, spreads, shares)


def slow_adjustment(book: pl.DataFrame, imbalances: int, spreads: int) -> NDArray[np.float64]:
    """sum over k of P^k d, snapshot by snapshot: no split into moves and pauses; each transition with its mirror."""
    states, mids = [], []
    for bid, qb, ask, qa in book.select("bid_price_0", "bid_size_0", "ask_price_0", "ask_size_0").rows():
        spread = min(round((ask - bid) / TICK), spreads) - 1
        outward = math.ceil(
            imbalances * abs(qb - qa) / (2 * (qb + qa)) - 0.5
        )  # Qb + Qa is 100, so this is exact enough
        states.append((spread, imbalances // 2 + max(outward, 0) * (1 if qb > qa else -1)))
        mids.append((bid + ask) / 2)
    n = imbalances * spreads
    counts, moves = np.zeros((n, n)), np.zeros(n)
    for (s, i), (s2, i2), before, after in zip(states, states[1:], mids, mids[1:], strict=False):
        for here, there, move in (
            (s * imbalances + i, s2 * imbalances + i2, after - before),
            (s * imbalances + imbalances - 1 - i, s2 * imbalances + imbalances - 1 - i2, before - after),
        ):
            counts[here, there] += 1
            moves[here] += move
    left = counts.sum(axis=1)
    step, total = counts / np.maximum(left, 1)[:, np.newaxis], np.zeros(n)
    term = moves / np.maximum(left, 1)
    while np.abs(term).max() > 1e-13:
        total, term = total + term, step @ term
    return np.where(left > 0, total, np.nan).reshape(spreads, imbalances)


def test_fit_equals_a_sum_over_single_snapshots():
    book = simulated_book(1, 6000)
    model = fit_micro_price(book.sample(fraction=1.0, shuffle=True, seed=1).lazy(), tick_size=TICK, imbalances=5)
    assert model.adjustment == pytest.approx(slow_adjustment(book, 5, 2), abs=1e-9, nan_ok=True)
    assert model.n == book.height - 1


def test_adjustments_of_a_simulated_chain_are_the_true_ones():
    """Each step the mid moves a tick with chance 0.2, up with chance `up` of its state; states go by a matrix."""
    up, shares = np.array([0.2, 0.5, 0.8]), [0.1, 0.5, 0.9]
    step = np.array([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]])
    truth, term = np.zeros(3), TICK * 0.2 * (2 * up - 1)
    for _ in range(500):
        truth, term = truth + term, step @ term
    rng = np.random.default_rng(2)
    states, bids = [1], [1000.0]
    for luck, turn, way in rng.random((60_000, 3)):
        here = states[-1]
        bids.append(bids[-1] + (0 if luck > 0.2 else 1 if way < up[here] else -1))
        states.append(int(np.searchsorted(np.cumsum(step[here])[:2], turn)))
    book = book_of(bids, [1] * len(bids), [shares[state] for state in states])
    model = fit_micro_price(book, tick_size=TICK, imbalances=3, spreads=1)
    assert model.adjustment[0] == pytest.approx(truth, abs=0.008)
    assert truth[2] == pytest.approx(0.075, abs=0.001)


def test_micro_price_is_a_martingale_in_the_mirrored_sample():
    book = simulated_book(4, 8000)
    mirrored = book.with_columns(
        bid_price_0=-pl.col("ask_price_0"),
        ask_price_0=-pl.col("bid_price_0"),
        bid_size_0="ask_size_0",
        ask_size_0="bid_size_0",
    )
    model = fit_micro_price(book, tick_size=TICK, imbalances=5)
    changes = pl.concat(
        side.select(price=micro_price(model), mid=(pl.col("bid_price_0") + pl.col("ask_price_0")) / 2).select(
            state=(pl.col("price") - pl.col("mid")).round(12), change=pl.col("price").shift(-1) - pl.col("price")
        )
        for side in (book, mirrored)
    ).drop_nulls()
    drifts = changes.group_by("state").agg(pl.col("change").mean().abs())
    assert drifts["change"].max() < 1e-9


def test_mirrored_books_have_mirrored_adjustments():
    model = fit_micro_price(simulated_book(5, 5000), tick_size=TICK, imbalances=7)
    assert model.adjustment == pytest.approx(-model.adjustment[:, ::-1], nan_ok=True)
    assert model.first_move == pytest.approx(-model.first_move[:, ::-1], nan_ok=True)


def test_looking_one_move_ahead_is_the_first_move_and_more_come_nearer_to_the_limit():
    book = simulated_book(6, 5000)
    limit = fit_micro_price(book, tick_size=TICK, imbalances=5).adjustment
    partial = [fit_micro_price(book, tick_size=TICK, imbalances=5, moves=moves) for moves in (1, 3, 60)]
    assert partial[0].adjustment == pytest.approx(partial[0].first_move, nan_ok=True)
    errors = [np.nanmax(np.abs(model.adjustment - limit)) for model in partial]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6


def test_a_drifting_sample_has_no_limit_unless_it_is_mirrored():
    rising = book_of([float(i // 3) for i in range(60)], [1] * 60, [0.7, 0.3, 0.6] * 20)
    assert np.isnan(fit_micro_price(rising, tick_size=TICK, imbalances=3, symmetric=False).adjustment).all()
    assert np.isfinite(fit_micro_price(rising, tick_size=TICK, imbalances=3, spreads=1).adjustment).all()


def test_transitions_end_at_gaps_and_at_books_without_a_state():
    broken = book_of([1, 1, 1, 1, 1, 1, 2], [1, 1, 0, 1, -1, 1, 1], [0.5] * 7)
    assert fit_micro_price(broken, tick_size=TICK).n == 2
    one_sided = broken.with_columns(bid_price_0=pl.when(pl.col("recv_ns") != 1).then("bid_price_0"))
    assert fit_micro_price(one_sided, tick_size=TICK).n == 1
    gap = pl.DataFrame({"from_ns": [5], "to_ns": [6]})
    assert fit_micro_price(broken, tick_size=TICK, incidents=gap).n == 1


def test_states_without_a_price_are_null():
    model = MicroPrice(TICK, np.array([[-0.1, np.nan, 0.1]]), np.zeros((1, 3)), 9)
    book = book_of([4, 4, 4, 4, 4], [1, 1, 3, 0, -2], [0.1, 0.5, 0.9, 0.5, 0.5])
    prices = book.select(micro_price(model)).to_series().to_list()
    assert prices == [pytest.approx(1.025), None, pytest.approx(1.475), None, None]


def test_adjustment_of_the_es_hour_rises_with_imbalance(shared: Path):
    source = pl.read_parquet(shared / "reference" / "esh4_mbp10.parquet")
    book = source.select(
        recv_ns="ts_recv",
        bid_price_0="bid_px_00",
        bid_size_0="bid_sz_00",
        ask_price_0="ask_px_00",
        ask_size_0="ask_sz_00",
    )
    narrow = fit_micro_price(book, tick_size=TICK, imbalances=5).adjustment[0]
    assert (np.diff(narrow) > 0).all()
    assert np.abs(narrow).max() < TICK


def test_no_data_makes_a_model_without_prices():
    empty = book_of([], [], [])
    model = fit_micro_price(empty, tick_size=TICK)
    assert np.isnan(model.adjustment).all()
    assert empty.select(micro_price(model)).height == 0
    one = book_of([1], [1], [0.5])
    assert fit_micro_price(one, tick_size=TICK).n == 0
    assert one.select(micro_price(model)).to_series().to_list() == [None]


def test_wrong_arguments_are_said():
    book = book_of([1, 1], [1, 1], [0.5, 0.5])
    for wrong in (
        {"tick_size": 0.0},
        {"tick_size": TICK, "imbalances": 4},
        {"tick_size": TICK, "spreads": 0},
        {"tick_size": TICK, "moves": 0},
    ):
        with pytest.raises(UsageError):
            fit_micro_price(book, **wrong)
    with pytest.raises(UsageError):
        fit_micro_price(pl.concat([book, book_of([1, 1], [1, 1], [0.5, 0.5], "d")]), tick_size=TICK)
