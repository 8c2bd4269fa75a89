"""Spreads against published values, against plain loops over the ES tape, and by their identities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mdcapture.errors import UsageError
from mdcapture.metrics.classification import classify
from mdcapture.metrics.flow import queue_imbalance
from mdcapture.metrics.spreads import (
    horizon_label,
    mean_spreads,
    quoted,
    quoted_slope,
    quoted_spread,
    spread_occupancy,
    time_to_revert,
    trade_spreads,
)

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Tape

SECOND_NS = 1_000_000_000
TICK = 0.25


def quotes_of(*rows: tuple[int, float | None, float | None]) -> pl.DataFrame:
    schema = {"recv_ns": pl.Int64, "best_bid": pl.Float64, "best_ask": pl.Float64}
    return pl.DataFrame(rows, schema, orient="row")


def trades_of(*rows: tuple[int, float, int | None]) -> pl.DataFrame:
    schema = {"recv_ns": pl.Int64, "price": pl.Float64, "side": pl.Int8}
    return pl.DataFrame(rows, schema, orient="row").with_columns(volume=pl.lit(1, pl.Int64))


# Published values: the liquidity measures of R's highfrequency


@pytest.fixture(scope="session")
def matched(shared: Path) -> pl.DataFrame:
    """Trades with the quote before each, and Lee and Ready's sign of it."""
    rows = pl.read_csv(shared / "reference" / "tq_lag0.csv.gz").select(
        recv_ns=pl.col("DT_epoch_us") * 1000,
        seq=pl.int_range(pl.len()),
        price="PRICE",
        volume="SIZE",
        best_bid="BID",
        best_ask="OFR",
        bid_size_0="BIDSIZ",
        ask_size_0="OFRSIZ",
    )
    return classify(rows, rules=["lee_ready"])


def liquidity_measures(matched: pl.DataFrame) -> dict[str, pl.Series]:
    """The published measures by their published names."""
    options: dict[str, Any] = {
        "horizons_trades": [300],
        "scales": ["price", "relative"],
        "sign": pl.col("lee_ready"),
    }
    full = trade_spreads(matched, None, **options)
    half = trade_spreads(matched, None, half=True, **options)
    value = pl.col("price") * pl.col("volume")
    return {
        "midpoints": full["mid"],
        "direction": full["sign"],
        "effectiveSpread": full["effective_spread"],
        "realizedSpread": full["realized_spread_300t"],
        "proportionalEffectiveSpread": full["effective_spread_relative"],
        "proportionalRealizedSpread": full["realized_spread_300t_relative"],
        "proportionalPriceImpact": half["half_price_impact_300t_relative"],
        "halfTradedSpread": half["effective_half_spread"],
        "proportionalHalfTradedSpread": half["effective_half_spread_relative"],
        "quotedSpread": full.select(quoted_spread()).to_series(),
        "proportionalQuotedSpread": full.select(quoted_spread("relative")).to_series(),
        "logQuotedSpread": full.select(quoted_spread("log")).to_series(),
        "logQSlope": full.select(quoted_slope("log")).to_series(),
        "valueTrade": full.select(value).to_series(),
        "signedValueTrade": full.select(pl.col("sign") * value).to_series(),
        "depthImbalanceDifference": full.select(-pl.col("sign") * queue_imbalance()).to_series(),
        "squaredLogReturn": full.select(pl.col("price").log().diff() ** 2).to_series(),
        "absLogReturn": full.select(pl.col("price").log().diff().abs()).to_series(),
        "midQuoteSquaredReturn": full.select(pl.col("mid").log().diff() ** 2).to_series(),
        "midQuoteAbsReturn": full.select(pl.col("mid").log().diff().abs()).to_series(),
    }


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 21, 22, 23])
def test_published_liquidity_measures(number: int, matched: pl.DataFrame, expected: dict[int, Any]):
    published = expected[number]
    values = liquidity_measures(matched)[published["metric"].removeprefix("liq:")]
    assert values.mean() == pytest.approx(published["expected"], rel=published["rtol"])


# The ES tape, against a loop


def plain_spreads(tape: Tape, horizon_ns: int) -> list[tuple[float | None, float | None, float | None]]:
    """(effective, realized, impact) of each trade, by walking through the messages in their order."""
    quotes = sorted(tape.quotes.select("recv_ns", "seq", "best_bid", "best_ask").rows())
    end_ns = max(quotes[-1][0], tape.trades["recv_ns"].max())  # type: ignore[type-var]
    rows = []
    before = ahead = -1
    for recv_ns, seq, _, price, side in sorted(tape.trades.select("recv_ns", "seq", "pos", "price", "side").rows()):
        while before + 1 < len(quotes) and quotes[before + 1][:2] < (recv_ns, seq):
            before += 1
        while ahead + 1 < len(quotes) and quotes[ahead + 1][0] <= recv_ns + horizon_ns:
            ahead += 1
        sign = {0: 1, 1: -1}.get(side)
        mid, later = plain_mid(quotes, before), plain_mid(quotes, ahead)
        if recv_ns + horizon_ns > end_ns:
            later = None
        rows.append(
            (
                None if None in (sign, mid) else 2 * sign * (price - mid),
                None if None in (sign, mid, later) else 2 * sign * (price - later),
                None if None in (sign, mid, later) else 2 * sign * (later - mid),
            )
        )
    return rows


def plain_mid(quotes: list[tuple[int, int, float | None, float | None]], index: int) -> float | None:
    if index < 0:
        return None
    bid, ask = quotes[index][2:]
    return None if bid is None or ask is None or bid > ask else (bid + ask) / 2


def test_es_trade_spreads_are_those_of_a_loop_over_the_messages(es_tape: Tape):
    found = trade_spreads(es_tape.trades, es_tape.quotes, [SECOND_NS])
    columns = ["effective_spread", "realized_spread_1s", "price_impact_1s"]
    assert found.select(columns).rows() == plain_spreads(es_tape, SECOND_NS)
    assert found["effective_spread"].count() > 2_000


def test_es_quoted_spread_is_that_of_a_loop_over_the_states(es_tape: Tape):
    states = sorted(es_tape.quotes.select("recv_ns", "seq", "best_bid", "best_ask").rows())
    end_ns = es_tape.trades["recv_ns"].max()
    weights = total = 0.0
    ticks: dict[int | None, float] = {}
    for (now, _, bid, ask), following in zip(states, [*states[1:], None], strict=True):
        lasts_ns = (following[0] if following else max(now, end_ns)) - now  # type: ignore[type-var,operator]
        width = None if bid is None or ask is None else round((ask - bid) / TICK)
        ticks[width] = ticks.get(width, 0) + lasts_ns / 1e9
        if width is not None and width >= 0:
            weights += lasts_ns
            total += lasts_ns * width
    found = quoted(es_tape.quotes, scales=["ticks"], tick_size=TICK, until=es_tape.trades)
    assert found["quoted_spread_ticks"].item() == pytest.approx(total / weights, rel=1e-12)
    occupancy = spread_occupancy(es_tape.quotes, TICK, until=es_tape.trades)
    assert dict(occupancy.select("spread_ticks", "duration_s").rows()) == pytest.approx(ticks)
    assert occupancy["share"].sum() == pytest.approx(1)
    assert occupancy["n"].sum() == es_tape.quotes.height


def test_es_widenings_are_those_of_a_loop_over_the_states(es_tape: Tape):
    expected, begun, narrow = [], None, False
    for now, _, bid, ask in sorted(es_tape.quotes.select("recv_ns", "seq", "best_bid", "best_ask").rows()):
        wide = bid is None or ask is None or round((ask - bid) / TICK) > 1
        if wide and narrow:
            begun = now
        elif not wide and begun is not None:
            expected.append((begun, now, now - begun))
            begun = None
        narrow = not wide
    found = time_to_revert(es_tape.quotes, TICK)
    assert found.filter(~pl.col("censored")).select("from_ns", "to_ns", "duration_ns").rows() == expected
    assert found["censored"].sum() == (begun is not None)
    assert (found["widest_ticks"] > 1).all()


def test_es_figures_are_those_of_the_documentation(es_tape: Tape):
    found = quoted(es_tape.quotes, scales=["ticks"], tick_size=TICK, until=es_tape.trades)
    means = mean_spreads(trade_spreads(es_tape.trades, es_tape.quotes, [SECOND_NS]))
    occupancy = spread_occupancy(es_tape.quotes, TICK, until=es_tape.trades)
    assert (es_tape.quotes.height, es_tape.trades.height) == (4_579, 2_972)
    assert found["quoted_spread_ticks"].item() == pytest.approx(1.061, abs=5e-4)
    assert occupancy.filter(spread_ticks=1)["share"].item() == pytest.approx(0.939, abs=5e-4)
    assert time_to_revert(es_tape.quotes, TICK).height == 772
    assert means["effective_spread"].item() == pytest.approx(0.2809, abs=5e-5)
    assert means["effective_spread_bps"].item() == pytest.approx(0.584, abs=5e-4)
    assert means["realized_spread_1s"].item() == pytest.approx(0.0905, abs=5e-5)
    assert means["price_impact_1s"].item() == pytest.approx(0.1904, abs=5e-5)


# Identities and properties

SCALES = ["price", "relative", "bps", "log", "ticks"]
half_ticks = st.integers(1, 40).map(lambda n: n / 8)
market = st.lists(st.tuples(st.integers(0, 50), half_ticks, half_ticks), min_size=1, max_size=20)
aggression = st.lists(st.tuples(st.integers(0, 50), half_ticks, st.sampled_from([0, 1, None])), max_size=20)


@given(market, aggression, st.integers(0, 30))
@settings(deadline=None, max_examples=30)
def test_effective_is_realized_plus_impact_on_every_scale(
    states: list[tuple[int, float, float]], prints: list[tuple[int, float, int | None]], horizon_ns: int
):
    quotes = quotes_of(*((t, min(a, b), max(a, b)) for t, a, b in states))
    found = trade_spreads(
        trades_of(*prints),
        quotes,
        [horizon_ns],
        horizons_trades=[2],
        scales=SCALES,
        tick_size=TICK,  # type: ignore[arg-type]
    )
    for label in ("2t", horizon_label(horizon_ns)):
        known = found.filter(pl.col(f"mid_{label}").is_not_null() & pl.col("mid").is_not_null())
        for suffix in ("", "_relative", "_bps", "_log", "_ticks"):
            parts = known[f"realized_spread_{label}{suffix}"] + known[f"price_impact_{label}{suffix}"]
            exact = suffix in ("", "_ticks")
            assert parts.to_list() == pytest.approx(
                known[f"effective_spread{suffix}"].to_list(), abs=0 if exact else 1e-9
            )


@given(market, aggression, st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_the_future_changes_no_effective_spread(
    states: list[tuple[int, float, float]], prints: list[tuple[int, float, int | None]], now: int
):
    quotes, trades = quotes_of(*states), trades_of(*prints)
    columns = ["recv_ns", "price", "mid", "effective_spread"]
    whole = trade_spreads(trades, quotes).filter(pl.col("recv_ns") <= now).select(columns)
    past = trade_spreads(trades.filter(pl.col("recv_ns") <= now), quotes.filter(pl.col("recv_ns") <= now)).select(
        columns
    )
    assert_frame_equal(whole, past)


def test_selling_and_buying_at_mirrored_prices_cost_the_same():
    quotes = quotes_of((0, 99.0, 101.0), (10, 101.0, 103.0))
    buy, sell = trades_of((5, 101.0, 0)), trades_of((5, 99.0, 1))
    mirrored = quotes_of((0, 99.0, 101.0), (10, 97.0, 99.0))
    measures = ["effective_spread", "realized_spread_5ns", "price_impact_5ns"]
    assert trade_spreads(buy, quotes, [5]).select(measures).row(0) == (2.0, -2.0, 4.0)
    assert trade_spreads(sell, mirrored, [5]).select(measures).row(0) == (2.0, -2.0, 4.0)


def test_half_spreads_are_halves():
    quotes, trades = quotes_of((0, 99.0, 101.0), (10, 100.0, 102.0)), trades_of((5, 101.0, 0))
    full, half = trade_spreads(trades, quotes, [5]), trade_spreads(trades, quotes, [5], half=True)
    assert half["effective_half_spread"].item() == full["effective_spread"].item() / 2
    assert half["realized_half_spread_5ns"].item() == full["realized_spread_5ns"].item() / 2
    assert half["half_price_impact_5ns"].item() == full["price_impact_5ns"].item() / 2


def test_the_sign_may_be_made_of_the_quote_before_the_trade():
    quotes, trades = quotes_of((0, 1.0, 3.0)), trades_of((5, 3.0, 1), (6, 1.0, None))
    found = trade_spreads(trades, quotes, scales=["price"], sign=(pl.col("price") - pl.col("mid")).sign())
    assert found.select("sign", "effective_spread").rows() == [(1.0, 2.0), (-1.0, 2.0)]


def test_means_are_weighted_by_trade_volume_or_value():
    quotes = quotes_of((0, 99.0, 101.0))
    trades = trades_of((1, 101.0, 0), (2, 102.0, 0), (3, 100.0, None)).with_columns(volume=pl.Series([3, 1, 9]))
    spreads = trade_spreads(trades, quotes, scales=["price"])
    assert mean_spreads(spreads).row(0) == (3.0, 2)
    assert mean_spreads(spreads, weight="volume")["effective_spread"].item() == (3 * 2 + 1 * 4) / 4
    assert mean_spreads(spreads, weight="value")["effective_spread"].item() == (303 * 2 + 102 * 4) / 405


def test_time_weights_differ_from_event_weights():
    quotes = quotes_of((0, 100.0, 101.0), (1, 100.0, 104.0), (10, 100.0, 101.0))
    assert quoted(quotes, scales=["price"])["quoted_spread"].item() == pytest.approx((1 * 1 + 9 * 4) / 10)
    assert quoted(quotes, scales=["price"], weight="event")["quoted_spread"].item() == 2.0


def test_crossed_and_one_sided_states_have_no_spread_and_no_weight():
    quotes = quotes_of((0, None, 101.0), (5, 102.0, 101.0), (6, 101.0, 101.0), (8, 100.0, 101.0), (9, 100.0, 101.0))
    found = quoted(quotes, scales=["price"]).row(0, named=True)
    assert found == {"quoted_spread": pytest.approx(1 / 3), "duration_s": pytest.approx(3e-9), "n": 3}
    assert spread_occupancy(quotes, 1.0)["spread_ticks"].to_list() == [None, -1, 0, 1]


def test_no_horizon_and_no_widening_reaches_across_a_gap():
    gaps = pl.DataFrame({"from_ns": [10], "to_ns": [20]})
    quotes = quotes_of((0, 100.0, 101.0), (8, 100.0, 103.0), (22, 100.0, 101.0), (30, 100.0, 101.0))
    trades = trades_of((5, 101.0, 0), (21, 101.0, 0), (23, 101.0, 0))
    found = trade_spreads(trades, quotes, [4, 20], horizons_trades=[1], incidents=gaps)
    assert found["mid"].to_list() == [100.5, None, 100.5]
    assert found["mid_4ns"].to_list() == [101.5, 100.5, 100.5]
    assert found["mid_20ns"].to_list() == [None, None, None]
    assert found["mid_1t"].to_list() == [None, 100.5, None]
    assert found["realized_spread_4ns"].to_list() == [-1.0, None, 1.0], "no mid at the trade, no measure"
    assert time_to_revert(quotes, 1.0, incidents=gaps)["censored"].to_list() == [True]
    assert time_to_revert(quotes, 1.0)["duration_ns"].to_list() == [14]
    assert quoted(quotes, scales=["price"], incidents=gaps)["duration_s"].item() == pytest.approx(18e-9)


def test_contracts_and_sessions_are_apart():
    quotes = pl.concat(
        quotes_of((0, 99.0 + i, 101.0 + i)).with_columns(session_id=pl.lit("s"), contract_id=pl.lit(c))
        for i, c in enumerate(["ES", "NQ"])
    )
    trades = pl.concat(
        trades_of((5, 101.0, 0)).with_columns(session_id=pl.lit("s"), contract_id=pl.lit(c)) for c in ["NQ", "ES"]
    )
    found = trade_spreads(trades, quotes, scales=["price"])
    assert found.select("contract_id", "effective_spread").rows() == [("ES", 2.0), ("NQ", 0.0)]
    assert mean_spreads(found).columns == ["session_id", "contract_id", "effective_spread", "n_effective_spread"]


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_or_one_row_gives_the_right_columns(rows: int):
    quotes, trades = quotes_of((0, 99.0, 101.0)).head(rows), trades_of((5, 101.0, 0)).head(rows)
    found = trade_spreads(trades, quotes, [SECOND_NS], horizons_trades=[1])
    assert found.height == rows
    assert "price_impact_1s_bps" in found.columns
    assert found["price_impact_1t"].to_list() == [None] * rows
    assert quoted(quotes)["quoted_spread"].to_list() == [None]
    assert spread_occupancy(quotes, TICK).height == rows
    assert time_to_revert(quotes, TICK).height == 0
    keyed = quotes.clear().with_columns(contract_id=pl.lit("ES"))
    assert quoted(keyed).height == 0


def test_lazy_frames_stay_lazy():
    quotes, trades = quotes_of((0, 99.0, 101.0)), trades_of((5, 101.0, 0))
    found = trade_spreads(trades.lazy(), quotes.lazy(), [SECOND_NS])
    assert isinstance(found, pl.LazyFrame)
    assert_frame_equal(found.collect(), trade_spreads(trades, quotes, [SECOND_NS]))


def test_scales_are_multiples_of_each_other():
    quotes = quotes_of((0, 99.0, 101.0), (1, 99.0, 101.0))
    found = quoted(quotes, scales=["price", "relative", "bps", "log", "ticks"], tick_size=0.5)
    assert found.row(0)[:5] == pytest.approx((2.0, 0.02, 200.0, float(np.log(101 / 99)), 4.0))


@pytest.mark.parametrize(
    ("horizon_ns", "label"), [(5 * SECOND_NS, "5s"), (100_000_000, "100ms"), (60 * SECOND_NS, "1m"), (7, "7ns")]
)
def test_horizons_are_named_in_their_largest_unit(horizon_ns: int, label: str):
    assert horizon_label(horizon_ns) == label


def test_wrong_arguments_are_usage_errors():
    quotes, trades = quotes_of((0, 99.0, 101.0)), trades_of((5, 101.0, 0))
    with pytest.raises(UsageError, match="tick_size"):
        quoted(quotes, scales=["ticks"])
    with pytest.raises(UsageError, match="quotes="):
        trade_spreads(trades, None, [SECOND_NS])
    with pytest.raises(UsageError, match="at least 1"):
        trade_spreads(trades, quotes, horizons_trades=[0])
