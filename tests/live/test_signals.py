"""Signals: the same rows from history, a tape and a live source, nothing of the future in them, and an honest judge."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import imported, market_tape

from mdcapture.errors import UsageError
from mdcapture.lake.schema import SignalRow
from mdcapture.live.bars import TickBars, TimeBars
from mdcapture.live.estimators import BookEvent, Every
from mdcapture.live.flow import Delta, OrderFlowImbalance, QueueImbalance
from mdcapture.live.prices import Mid, QuotedSpread
from mdcapture.live.replay import Replay
from mdcapture.live.signals import Signals, predictive_r2

if TYPE_CHECKING:
    from collections.abc import Callable

    from mdcapture.live.bars import Bar
    from mdcapture.live.online import Values
    from mdcapture.session import Session

SECOND = 1_000_000_000
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ofi_signal.py"


def some_signals(emit: Callable[[SignalRow], object] | None = None) -> Signals:
    signals = Signals(
        {
            "ofi": lambda: Every(SECOND, OrderFlowImbalance()),
            "spread": lambda: Every(SECOND, QuotedSpread()),
            "lean": QueueImbalance,
            "delta": Delta,
            "seconds": lambda: TimeBars(SECOND),
            "trades": lambda: TickBars(5),
        },
        emit=emit,
    )

    @signals.on_bar("seconds")
    def flow(bar: Bar, now: Values) -> float | None:
        assert bar.end_ns <= now.recv_ns
        return None if now["ofi"] is None else now["ofi"] / bar.volume

    @signals.on_bar("trades")
    def delta(_bar: Bar, now: Values) -> float | None:
        return now["delta"]

    @signals.on_book
    def lean(book: BookEvent, now: Values) -> float | None:
        assert book.recv_ns == now.recv_ns
        assert book.contract_id == now.contract_id
        return now["lean"] if abs(now["lean"] or 0) > 0.7 else None

    return signals


def test_a_signal_has_a_row_for_each_time_that_it_said_something(market: Session):
    rows = some_signals().run(Replay(market))
    types = {"seq": pl.Int64, "recv_ns": pl.Int64, "contract_id": pl.String, "name": pl.String, "value": pl.Float64}
    assert rows.schema == types
    assert set(rows["name"]) == {"flow", "delta", "lean"}
    trades = market.trades().collect().group_by("contract_id").len()
    said = rows.filter(name="delta").group_by("contract_id").len()
    assert dict(said.rows()) == {contract_id: count // 5 for contract_id, count in trades.rows()}
    assert rows.filter(name="lean")["value"].abs().min() > 0.7  # type: ignore[operator]


def test_history_and_a_tape_give_the_same_rows(tmp_path: Path):
    tape = market_tape(tmp_path / "market.ndjson", messages=1500)
    from_tape = some_signals().run(Replay(tape))
    assert from_tape.equals(some_signals().run(Replay(imported(tape, tmp_path / "lake"))))
    assert from_tape.height > 10


@settings(max_examples=10, deadline=None)
@given(share=st.floats(0.05, 0.95))
def test_the_future_changes_no_row(market: Session, share: float):
    assert market.start_ns is not None
    assert market.end_ns is not None
    until_ns = market.start_ns + round(share * (market.end_ns - market.start_ns))
    every = some_signals().run(Replay(market))
    past = some_signals().run(Replay(market, to_ns=until_ns))
    assert every.head(past.height).equals(past)
    assert every[past.height :]["recv_ns"].min() >= past["recv_ns"].max()  # type: ignore[operator]


def test_rows_can_go_elsewhere_as_they_are_said(market: Session):
    said: list[SignalRow] = []
    kept = some_signals(emit=said.append).run(Replay(market))
    assert kept.is_empty()
    assert said == [SignalRow(*row) for row in some_signals().run(Replay(market)).iter_rows()]


def test_a_bar_metric_that_is_not_there_is_said():
    with pytest.raises(UsageError, match="no metric minutes; there are mid"):
        Signals({"mid": Mid}).on_bar("minutes")


def walk(n: int, seed: int = 1) -> pl.DataFrame:
    """Quotes each second whose mid is a random walk in logarithms."""
    steps = np.random.default_rng(seed).normal(0, 1e-4, n)
    mid = 100 * np.exp(np.cumsum(steps))
    times = np.arange(n) * SECOND
    return pl.DataFrame(
        {"contract_id": "C", "recv_ns": times, "seq": np.arange(n), "pos": 0, "best_bid": mid, "best_ask": mid}
    )


def said(quotes: pl.DataFrame, value: np.ndarray) -> pl.DataFrame:
    return quotes.select("recv_ns", "contract_id", name=pl.lit("s"), value=pl.Series(value, dtype=pl.Float64))


def returns(quotes: pl.DataFrame, ahead: int) -> np.ndarray:
    log_mid = np.log(quotes["best_bid"].to_numpy())
    return np.append(log_mid[ahead:] - log_mid[:-ahead], np.full(ahead, np.nan))


def test_a_signal_that_knows_the_return_explains_all_of_it():
    quotes = walk(400)
    known = np.nan_to_num(returns(quotes, 3)) * 1e6
    judged = predictive_r2(said(quotes, known), quotes, [3 * SECOND])
    assert judged.row(0, named=True) == pytest.approx(
        {
            "contract_id": "C", "name": "s", "horizon": "3s", "slope": 1e-6, "r2_in_sample": 1.0, "r2": 1.0,
            "n_fit": 197, "n": 197,
        }
    )  # fmt: skip


def test_noise_foretells_nothing_out_of_sample_whatever_it_does_in_sample():
    quotes = walk(40)
    judged = [
        predictive_r2(said(quotes, np.random.default_rng(seed).normal(size=40)), quotes, [SECOND]).row(0, named=True)
        for seed in range(50)
    ]
    assert all(one["r2_in_sample"] >= 0 for one in judged)
    assert np.mean([one["r2"] for one in judged]) < 0


def test_the_judge_agrees_with_plain_least_squares():
    quotes = walk(301, seed=3)
    x, y = np.random.default_rng(5).normal(size=301), returns(quotes, 7)
    x[:-7] += 3000 * y[:-7]
    judged = predictive_r2(said(quotes, x), quotes, [7 * SECOND], fit_share=0.6).row(0, named=True)
    fit, test = slice(0, 181 - 7), slice(181, 301 - 7)
    slope, intercept = np.polyfit(x[fit], y[fit], 1)
    error = y[test] - intercept - slope * x[test]
    assert judged["slope"] == pytest.approx(slope)
    assert judged["r2"] == pytest.approx(1 - np.sum(error**2) / np.sum((y[test] - y[fit].mean()) ** 2))
    assert (judged["n_fit"], judged["n"]) == (174, 113)


def test_what_a_gap_lies_in_is_left_out():
    quotes = walk(100)
    gaps = pl.DataFrame({"from_ns": [80 * SECOND], "to_ns": [85 * SECOND]})
    rows, heard = said(quotes, np.arange(100.0)), quotes.filter(~pl.col("recv_ns").is_between(81 * SECOND, 84 * SECOND))
    whole, broken = (
        predictive_r2(rows, heard, [2 * SECOND], incidents=incidents)["n"].item() for incidents in (None, gaps)
    )
    assert whole - broken == 6  # two that reach into the gap, and four inside of it whose quote is not known


def test_the_share_is_one():
    with pytest.raises(UsageError, match="fit_share"):
        predictive_r2(said(walk(3), np.zeros(3)), walk(3), [SECOND], fit_share=1.0)


def test_the_example_judges_a_synthetic_market(tmp_path: Path):
    example = runpy.run_path(str(EXAMPLE))
    judged = example["judge"](example["synthetic_session"](tmp_path, minutes=2))
    assert judged.select("name", "horizon").rows() == [
        (name, horizon) for name in ("order_flow_imbalance", "queue_imbalance") for horizon in ("1s", "5s", "30s")
    ]
    assert judged["r2"].is_finite().all()
    assert (judged["r2"] < 0.2).all()
    assert judged["n"].is_between(20, 60).all()
