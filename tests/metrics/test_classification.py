"""Classification: the published cases of tclf, a slow loop, and what the rules may not know."""

from __future__ import annotations

from bisect import bisect
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy import stats

from mdcapture.errors import UsageError
from mdcapture.metrics.bars import volume_bars
from mdcapture.metrics.classification import agreement, bulk_agreement, bulk_buy_volume, classify

if TYPE_CHECKING:
    from conftest import Tape

few = settings(max_examples=40, deadline=None)

RULES = {91: "tick", 92: "quote", 93: "lee_ready", 94: "emo", 95: "clnv"}
TCLF = {
    91: [{"price": 1, "lag": 2}, {"price": 2, "lag": 1}],
    92: [{"price": 1, "bid": 1, "ask": 3}, {"price": 3, "bid": 1, "ask": 3}],
    93: [
        {"price": 1, "bid": 1, "ask": 3, "lag": 0},
        {"price": 3, "bid": 1, "ask": 3, "lag": 0},
        {"price": 1, "bid": 1, "ask": 1, "lag": 0},
        {"price": 3, "bid": 2, "ask": 4, "lag": 4},
    ],
    95: [
        {"price": 5, "ask": 3, "bid": 1, "lag": 0},
        {"price": 0, "ask": 3, "bid": 1, "lag": 1},
        {"price": 2.9, "ask": 3, "bid": 1, "lag": 1},
        {"price": 2.3, "ask": 3, "bid": 1, "lag": 3},
        {"price": 1.7, "ask": 3, "bid": 1, "lag": 0},
        {"price": 1.3, "ask": 3, "bid": 1, "lag": 1},
    ],
}
TCLF[94] = TCLF[93]

Trade = tuple[int, float]
"""Time, price."""
Quote = tuple[int, float | None, float | None]
"""Time, bid, ask."""


def trades_of(rows: list[Trade], contract: str = "c") -> pl.DataFrame:
    columns = {"contract_id": pl.String, "seq": pl.Int64, "recv_ns": pl.Int64, "price": pl.Float64}
    return pl.DataFrame([(contract, 2 * t + 1, t, p) for t, p in rows], schema=columns, orient="row")


def quotes_of(rows: list[Quote], contract: str = "c") -> pl.DataFrame:
    columns = {"contract_id": pl.String, "seq": pl.Int64, "recv_ns": pl.Int64}
    columns |= {"best_bid": pl.Float64, "best_ask": pl.Float64}
    return pl.DataFrame([(contract, 2 * t, t, bid, ask) for t, bid, ask in rows], schema=columns, orient="row")


@pytest.mark.parametrize("number", RULES)
def test_rules_give_the_signs_that_tclf_publishes(expected: dict[int, Any], number: int):
    """Each case is a contract of its own: the lagged price, then the price, with the case's quote before them."""
    cases: list[dict[str, Any]] = TCLF[number]
    trades = pl.concat(
        trades_of([(1, float(case.get("lag", case["price"]))), (2, float(case["price"]))], contract=str(i))
        for i, case in enumerate(cases)
    )
    quotes = pl.concat(
        quotes_of([(0, float(case.get("bid", 0)), float(case.get("ask", 9)))], contract=str(i))
        for i, case in enumerate(cases)
    )
    rule = RULES[number]
    signs = classify(trades, quotes, rules=[rule]).filter(pl.col("recv_ns") == 2)[rule]
    assert signs.to_list() == expected[number]["expected"]


trade_lists = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 8).map(lambda p: p / 2)), max_size=25).map(
    lambda rows: sorted({t: (t, p) for t, p in rows}.values())
)
side = st.none() | st.integers(1, 8).map(lambda p: p / 2)
quote_lists = st.lists(st.tuples(st.integers(0, 30), side, side), max_size=25).map(
    lambda rows: sorted({row[0]: row for row in rows}.values(), key=lambda row: row[0])
)


def slow_signs(trades: list[Trade], quotes: list[Quote]) -> list[tuple[int | None, ...]]:
    """tick, quote, lee_ready, emo, clnv, trade by trade."""
    result, tick, before = [], None, None
    for time, price in trades:
        if before is not None and price != before:
            tick = 1 if price > before else -1
        before = price
        last = bisect(quotes, time, key=lambda quote: quote[0])  # a quote's seq is below a trade's of the same time
        _, bid, ask = quotes[last - 1] if last else (0, None, None)
        if bid is None or ask is None or bid > ask:
            result.append((tick, None, tick, tick, tick))
            continue
        mid, third = (bid + ask) / 2, 0.3 * (ask - bid)
        quote = None if price == mid else 1 if price > mid else -1
        emo = tick if bid == ask or price not in {bid, ask} else 1 if price == ask else -1
        if bid < ask and ask - third <= price <= ask:
            clnv = 1
        elif bid < ask and bid <= price <= bid + third:
            clnv = -1
        else:
            clnv = tick
        result.append((tick, quote, tick if quote is None else quote, emo, clnv))
    return result


@few
@given(trades=trade_lists, quotes=quote_lists)
def test_rules_equal_a_loop_over_trades(trades: list[Trade], quotes: list[Quote]):
    signs = classify(trades_of(trades).lazy(), quotes_of(quotes).lazy()).collect()
    assert signs.select(RULES.values()).rows() == slow_signs(trades, quotes)


@few
@given(one=trade_lists, other=trade_lists, quotes=quote_lists)
def test_no_contract_takes_a_price_or_a_quote_of_another(one: list[Trade], other: list[Trade], quotes: list[Quote]):
    trades = pl.concat([trades_of(one, "a"), trades_of(other, "b")]).sample(fraction=1.0, shuffle=True, seed=4)
    signs = classify(trades, quotes_of(quotes, "b"))
    assert signs.filter(contract_id="a").select(RULES.values()).rows() == slow_signs(one, [])
    assert signs.filter(contract_id="b").select(RULES.values()).rows() == slow_signs(other, quotes)


@few
@given(trades=trade_lists, quotes=quote_lists, cut=st.integers(0, 30))
def test_a_sign_never_changes_when_the_future_does(trades: list[Trade], quotes: list[Quote], cut: int):
    now = pl.col("recv_ns") <= cut
    all_trades, all_quotes = trades_of(trades), quotes_of(quotes)
    early = classify(all_trades.filter(now), all_quotes.filter(now))
    assert_frame_equal(early, classify(all_trades, all_quotes).filter(now))


@few
@given(trades=trade_lists, quotes=quote_lists)
def test_mirrored_prices_turn_every_sign(trades: list[Trade], quotes: list[Quote]):
    mirrored: list[Quote] = [(t, a and 9 - a, b and 9 - b) for t, b, a in quotes]
    there = classify(trades_of(trades), quotes_of(quotes)).select(RULES.values())
    back = classify(trades_of([(t, 9 - p) for t, p in trades]), quotes_of(mirrored)).select(RULES.values())
    assert_frame_equal(there, back.select(-pl.all()))


def test_nothing_is_taken_from_across_a_gap_even_with_a_delayed_quote():
    trades, quotes = trades_of([(1, 2.0), (2, 3.0), (20, 3.0), (21, 2.5)]), quotes_of([(0, 1.0, 2.0), (19, 2.0, 4.0)])
    gap = pl.DataFrame({"from_ns": [5], "to_ns": [10]})
    assert classify(trades, quotes, incidents=gap)["tick"].to_list() == [None, 1, None, -1]
    late = classify(trades, quotes, rules=["quote"], quote_delay_ns=2, incidents=gap)
    assert late["quote"].to_list() == [None, 1, None, -1]
    assert classify(trades, quotes, rules=["quote"], quote_delay_ns=2)["quote"].to_list() == [None, 1, 1, -1]


def test_a_price_that_is_not_a_number_is_a_side_that_is_missing():
    nan = float("nan")
    trades, quotes = trades_of([(1, 2.0), (3, 3.0)]), quotes_of([(0, 1.0, nan), (2, nan, nan)])
    nowhere = quotes.with_columns(best_bid=None, best_ask=None).cast(quotes.schema)
    signs = pl.col(*RULES.values())
    assert_frame_equal(classify(trades, quotes).select(signs), classify(trades, nowhere).select(signs))


def test_trades_may_bring_their_own_quotes():
    trades = trades_of([(1, 2.0), (2, 1.0)]).with_columns(best_bid=1.0, best_ask=2.0)
    assert classify(trades, rules=["emo"])["emo"].to_list() == [1, -1]


def test_agreement_counts_trades_and_lots():
    trades = pl.DataFrame({"side": [0, 0, 1, 1, None], "volume": [1, 2, 3, 4, 9], "quote": [1, -1, -1, None, 1]})
    row = agreement(trades, rules=["quote"]).row(0, named=True)
    assert row == {
        "rule": "quote",
        "classified": 0.75,
        "agreement": pytest.approx(2 / 3),
        "volume_agreement": pytest.approx(4 / 6),
        "buy_agreement": 0.5,
        "sell_agreement": 1.0,
        "n": 3,
    }
    grouped = agreement(trades.with_columns(contract_id=pl.lit("c")), rules=["quote", "quote"])
    assert grouped["rule"].to_list() == ["quote", "quote"]


def test_figures_of_the_es_hour_are_those_of_the_loop(es_tape: Tape):
    """The figures of docs/metrics.md: the quote before a trade places nearly all, the tick rule three in four."""
    quotes, trades = es_tape
    assert trades["recv_ns"].is_sorted()  # so that the number of the message is the order
    signs = slow_signs(trades.select("seq", "price").rows(), quotes.select("seq", "best_bid", "best_ask").rows())
    result = classify(trades, quotes)
    assert result.select(RULES.values()).rows() == signs
    judged = dict(agreement(result).select("rule", "agreement").rows())
    assert [judged[rule] for rule in RULES.values()] == pytest.approx(
        [0.7481, 0.9990, 0.9987, 0.9987, 0.9987], abs=5e-5
    )


@pytest.mark.parametrize("degrees", [None, 0.25])
@pytest.mark.parametrize("window", [None, 4])
def test_bulk_volume_is_the_distribution_of_standardized_changes(degrees: float | None, window: int | None):
    rng = np.random.default_rng(2)
    close, volume = 100 + np.cumsum(rng.integers(-2, 3, size=40)), rng.integers(1, 50, size=40)
    bars = pl.DataFrame({"close": close.astype(float), "volume": volume})
    result = bars.select(bulk_buy_volume(window=window, degrees_of_freedom=degrees)).to_series().to_list()
    law = stats.norm if degrees is None else stats.t(degrees)
    changes = np.diff(close)
    for i in range(40):
        if i < (window or 1):
            assert result[i] is None
            continue
        deviation = changes.std(ddof=1) if window is None else changes[i - window : i].std(ddof=1)
        share = 0.5 if changes[i - 1] == 0 else law.cdf(changes[i - 1] / deviation)
        assert result[i] == pytest.approx(volume[i] * share)


def test_bulk_agreement_is_the_volume_on_the_right_side():
    bars = pl.DataFrame(
        {"volume": [10, 10, 5], "buy_volume": [10, 4, 5], "sell_volume": [0, 6, 0], "guess": [7.0, 6.0, None]}
    )
    assert bulk_agreement(bars, "guess").row(0) == ((7 + 4 + 4) / 20, 2)
    perfect = bulk_agreement(bars, pl.col("buy_volume"))["agreement"].item()
    assert perfect == 1.0


def test_bulk_volume_of_the_es_hour_agrees_in_five_lots_of_six(es_tape: Tape):
    bars = volume_bars(es_tape.trades, 100).with_columns(guess=bulk_buy_volume(window=20))
    assert bulk_agreement(bars, "guess")["agreement"].item() == pytest.approx(0.8410, abs=5e-5)


def test_nothing_in_makes_nothing_out():
    empty = classify(trades_of([]), quotes_of([]))
    assert empty.height == 0
    assert empty.schema == classify(trades_of([(1, 1.0)]), quotes_of([])).schema
    assert agreement(empty.with_columns(side=0, volume=1)).height == 0
    bars = pl.DataFrame({"close": [1.0], "volume": [5]})
    assert bars.select(bulk_buy_volume()).to_series().to_list() == [None]
    assert bars.clear().select(bulk_buy_volume()).height == 0


def test_wrong_arguments_are_said():
    with pytest.raises(UsageError):
        classify(trades_of([]), rules=["coin"])
    with pytest.raises(UsageError):
        classify(trades_of([]), quotes_of([]), quote_delay_ns=-1)
