"""Realized measures: published values of R's highfrequency, a plain implementation, identities, known truth."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mdcapture.errors import UsageError
from mdcapture.metrics import volatility as vol

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Tape

FIVE_MINUTES_NS = 300 * 10**9
DAY_NS = 86_400 * 10**9

VARIANCES = {
    "realized": vol.realized_variance("r"),
    "bipower": vol.bipower_variance("r"),
    "min": vol.min_variance("r"),
    "med": vol.med_variance("r"),
    "truncated": vol.truncated_variance("r"),
}
QUARTICITIES = {
    "realized": vol.realized_quarticity("r"),
    "tripower": vol.tripower_quarticity("r"),
    "quad": vol.quad_power_quarticity("r"),
    "min": vol.min_quarticity("r"),
    "med": vol.med_quarticity("r"),
}


def measured(returns: list[float | None], measure: pl.Expr) -> float | None:
    return pl.DataFrame({"r": returns}, schema={"r": pl.Float64}).select(measure).item()


def timed(frame: pl.DataFrame) -> pl.DataFrame:
    recv_ns = pl.col("DT_epoch_us") * 1000
    return frame.with_columns(recv_ns=recv_ns, session_id=(recv_ns // DAY_NS).cast(pl.String))


@pytest.fixture(scope="module")
def ticks(shared: Path) -> pl.DataFrame:
    """Two days of trades, one session each."""
    return timed(pl.read_csv(shared / "reference/sampleTData.csv.gz"))


def five_minutes(prices: pl.DataFrame, price: str) -> pl.DataFrame:
    """highfrequency's grid: the first price, the previous tick up to the first point after the last; a leading zero."""
    days = prices.select("session_id", "recv_ns", price).group_by("session_id", maintain_order=True)
    closing = days.last().with_columns(-(-pl.col("recv_ns") // FIVE_MINUTES_NS) * FIVE_MINUTES_NS)
    grid = vol.sampled_returns(
        pl.concat([prices.select("session_id", "recv_ns", price), closing]), price, interval_ns=FIVE_MINUTES_NS
    )
    whole = pl.concat([days.first(), grid.select("session_id", "recv_ns", price)])
    return (
        whole.unique(["session_id", "recv_ns"])
        .sort("session_id", "recv_ns")
        .with_columns(r=vol.log_returns(price, within=["session_id"], leading_zero=True))
    )


def by_day(returns: pl.DataFrame, measure: pl.Expr) -> pl.Series:
    return returns.group_by("session_id", maintain_order=True).agg(value=measure)["value"]


@pytest.mark.parametrize(("number", "measure"), [(26, vol.med_quarticity("r")), (28, vol.tripower_quarticity("r"))])
def test_quarticities_of_two_days_equal_highfrequency(
    expected: dict[int, Any], ticks: pl.DataFrame, number: int, measure: pl.Expr
):
    published = expected[number]
    ours = by_day(five_minutes(ticks, "PRICE"), measure * 1e6)
    assert ours.to_list() == pytest.approx(published["expected"], rel=published["rtol"])


def test_variance_of_every_tick_equals_highfrequency(expected: dict[int, Any], ticks: pl.DataFrame):
    published = expected[31]
    ours = vol.realized_measures(vol.sampled_returns(ticks, "PRICE"))
    assert ours["realized_variance"][0] == pytest.approx(published["expected"], rel=published["rtol"])


@pytest.mark.parametrize(
    ("number", "measure", "over_days"),
    [
        (33, vol.med_variance("r"), "sum"),
        (35, vol.realized_quarticity("r", n=pl.len() + 1) * 1e6, "mean"),
        (37, vol.realized_skewness("r"), "mean"),
    ],
)
def test_measures_of_a_month_equal_highfrequency(
    shared: Path, expected: dict[int, Any], number: int, measure: pl.Expr, over_days: str
):
    published = expected[number]
    minutes = timed(pl.read_csv(shared / "reference/sampleOneMinuteData.csv.gz"))
    days = [by_day(five_minutes(minutes, price), measure) for price in ("STOCK", "MARKET")]
    ours = [day.sum() if over_days == "sum" else day.mean() for day in days]
    assert ours == pytest.approx(published["expected"], rel=published["rtol"])


def plainly(r: list[float]) -> dict[str, float]:
    """Each measure as the papers write it, in loops."""
    n, a, pi, root3 = len(r), [abs(x) for x in r], math.pi, math.sqrt(3)
    mu43 = 2 ** (2 / 3) * math.gamma(7 / 6) / math.gamma(1 / 2)
    rv, fourth = sum(x * x for x in r), sum(x**4 for x in r)
    pairs = [a[i - 1 : i + 1] for i in range(1, n)]
    triples = [a[i - 2 : i + 1] for i in range(2, n)]
    quadruples = [a[i - 3 : i + 1] for i in range(3, n)]
    one, two, three = n / (n - 1), n / (n - 2), n / (n - 3)
    bpv = pi / 2 * sum(map(math.prod, pairs))
    threshold = 4 * math.sqrt(bpv) * n**-0.49
    return {
        "n": n,
        "realized_variance": rv,
        "realized_variance_error": math.sqrt(2 / 3 * fourth),
        "down_variance": sum(x * x for x in r if x < 0),
        "up_variance": sum(x * x for x in r if x > 0),
        "bipower_variance": bpv,
        "min_variance": pi / (pi - 2) * one * sum(min(x) ** 2 for x in pairs),
        "med_variance": pi / (6 - 4 * root3 + pi) * two * sum(median(x) ** 2 for x in triples),
        "truncated_variance": sum(x * x for x in a if x <= threshold),
        "realized_quarticity": n / 3 * fourth,
        "tripower_quarticity": n * mu43**-3 * two * sum(math.prod(x) ** (4 / 3) for x in triples),
        "quad_power_quarticity": n * pi**2 / 4 * three * sum(map(math.prod, quadruples)),
        "min_quarticity": pi * n / (3 * pi - 8) * one * sum(min(x) ** 4 for x in pairs),
        "med_quarticity": 3 * pi * n / (9 * pi + 72 - 52 * root3) * two * sum(median(x) ** 4 for x in triples),
        "realized_skewness": n**0.5 * sum(x**3 for x in r) / rv**1.5,
        "realized_kurtosis": n * fourth / rv**2,
    }


RETURNS = st.lists(
    st.floats(-0.1, 0.1).filter(lambda x: abs(x) > 1e-6), min_size=5, max_size=30
)  # smaller ones lose their fourth powers


@given(RETURNS)
def test_every_measure_equals_its_formula_in_loops(r: list[float]):
    frame = vol.realized_measures(pl.DataFrame({"log_return": r}))
    assert frame.row(0, named=True) == pytest.approx(plainly(r), rel=1e-9, abs=1e-15)


@given(RETURNS, st.floats(0.1, 10.0))
def test_variances_scale_by_the_square_and_quarticities_by_the_fourth_power(r: list[float], factor: float):
    scaled = [x * factor for x in r]
    for measure in VARIANCES.values():
        assert measured(scaled, measure) == pytest.approx(measured(r, measure) * factor**2, rel=1e-9)
    for measure in QUARTICITIES.values():
        assert measured(scaled, measure) == pytest.approx(measured(r, measure) * factor**4, rel=1e-9)


@given(RETURNS)
def test_only_the_asymmetric_measures_see_the_sign(r: list[float]):
    mirrored = [-x for x in r]
    for measure in (VARIANCES | QUARTICITIES).values():
        assert measured(mirrored, measure) == measured(r, measure)
    assert measured(mirrored, vol.realized_skewness("r")) == pytest.approx(-measured(r, vol.realized_skewness("r")))
    up = vol.realized_semivariance("r", side="up")
    assert measured(mirrored, up) == measured(r, vol.realized_semivariance("r"))


@given(RETURNS, RETURNS)
def test_a_gap_splits_sums_into_those_of_its_two_sides(before: list[float], after: list[float]):
    for measure in (VARIANCES["realized"], VARIANCES["bipower"], vol.realized_semivariance("r")):
        apart = measured(before, measure) + measured(after, measure)
        assert measured([*before, None, *after], measure) == pytest.approx(apart, rel=1e-12)


def test_semivariances_add_up_to_the_variance():
    r = [0.01, -0.02, 0.0, 0.03]
    halves = [measured(r, vol.realized_semivariance("r", side=side)) for side in ("down", "up")]
    assert halves == pytest.approx([0.0004, 0.001])
    assert sum(halves) == pytest.approx(measured(r, vol.realized_variance("r")))


@pytest.fixture(scope="module")
def brownian() -> pl.DataFrame:
    """500 days of 400 returns of variance 1 a day."""
    r = np.random.default_rng(7).normal(0, 1 / math.sqrt(400), (500, 400))
    return pl.DataFrame({"session_id": np.repeat(np.arange(500), 400).astype(str), "r": r.ravel()})


@pytest.mark.parametrize("name", VARIANCES)
def test_variances_of_brownian_motion_are_unbiased(brownian: pl.DataFrame, name: str):
    days = by_day(brownian, VARIANCES[name])
    expected = 1 - 1 / 400 if name == "bipower" else 1.0  # by default without n/(n - 1)
    assert abs(days.mean() - expected) < 4 * days.std() / math.sqrt(len(days))


def test_the_standard_error_of_realized_variance_is_that_of_the_days(brownian: pl.DataFrame):
    errors = by_day(brownian, vol.realized_variance_error("r"))
    assert errors.mean() == pytest.approx(by_day(brownian, vol.realized_variance("r")).std(), rel=0.1)


@pytest.mark.parametrize("name", QUARTICITIES)
def test_quarticities_of_brownian_motion_are_unbiased(brownian: pl.DataFrame, name: str):
    days = by_day(brownian, QUARTICITIES[name])
    assert abs(days.mean() - 1) < 4 * days.std() / math.sqrt(len(days))


def test_jumps_enter_realized_variance_and_hardly_the_robust_ones(brownian: pl.DataFrame):
    jump = pl.int_range(pl.len()).over("session_id") == 200
    jumpy = brownian.with_columns(pl.col("r") + pl.when(jump).then(1.0).otherwise(0.0))
    means = {name: by_day(jumpy, measure).mean() for name, measure in VARIANCES.items()}
    assert means["realized"] == pytest.approx(2, abs=0.03)
    assert means["truncated"] == pytest.approx(1, abs=0.02)
    assert means["bipower"] == pytest.approx(1.12, abs=0.02)  # pi/2 x 2 E|r| |J| too much: a finite-sample bias
    assert means["med"] == pytest.approx(1.01, abs=0.02)
    assert means["min"] == pytest.approx(1.01, abs=0.02)


@pytest.mark.parametrize("rows", [[], [None], [None, None]])
def test_no_returns_make_no_measure(rows: list[None]):
    frame = pl.DataFrame({"log_return": rows}, schema={"log_return": pl.Float64})
    values = vol.realized_measures(frame).row(0, named=True)
    assert values.pop("n") == 0
    assert set(values.values()) == {None}


def test_one_return_has_a_variance_and_no_products():
    values = vol.realized_measures(pl.DataFrame({"log_return": [None, 0.1]})).row(0, named=True)
    assert values["realized_variance"] == pytest.approx(0.01)
    assert values["bipower_variance"] is values["med_variance"] is values["tripower_quarticity"] is None


def test_prices_that_do_not_move_have_variance_zero_and_no_shape():
    values = vol.realized_measures(pl.DataFrame({"log_return": [0.0] * 9})).row(0, named=True)
    assert values["realized_variance"] == values["min_quarticity"] == 0
    assert values["realized_skewness"] is values["realized_kurtosis"] is None


def ticked(prices: list[float | None], times_ns: list[int] | None = None, **columns: object) -> pl.DataFrame:
    return pl.DataFrame({"recv_ns": times_ns or list(range(len(prices))), "price": prices, **columns})


def test_a_missing_or_non_positive_price_ends_a_return():
    wrong = [None, -37.6, 0.0, math.nan, math.inf]
    sampled = vol.sampled_returns(ticked([1.0, *(x for price in wrong for x in (price, math.e, 1.0))]), "price")
    assert sampled["log_return"].to_list() == [None, *[None, None, -1] * len(wrong)]


def test_gaps_sessions_and_contracts_end_a_return():
    half = ticked([1.0, 2.0, 4.0, 8.0], [0, 10, 20, 30])
    prices = pl.concat(half.with_columns(session_id=pl.lit(s), contract_id=pl.lit(c)) for s in "st" for c in "ab")
    gap = pl.DataFrame({"session_id": ["s"], "contract_id": ["b"], "from_ns": [11], "to_ns": [19]})
    sampled = vol.sampled_returns(prices.sample(fraction=1, shuffle=True, seed=1), "price", incidents=gap)
    assert sampled["log_return"].is_null().to_list() == [
        *(True, False, False, False),
        *(True, False, True, False),
        *(True, False, False, False) * 2,
    ]
    measures = vol.realized_measures(sampled)
    assert measures["n"].to_list() == [3, 2, 3, 3]
    assert measures.columns[:2] == ["session_id", "contract_id"]


def test_calendar_time_is_the_previous_tick():
    prices = ticked([1.0, 2.0, 4.0, 8.0], [5, 10, 19, 31])
    sampled = vol.sampled_returns(prices, "price", interval_ns=10)
    assert sampled["recv_ns"].to_list() == [10, 20, 30]
    assert sampled["price"].to_list() == [2, 4, 4]


def test_business_time_is_each_tick_at_which_the_clock_passes_a_step():
    prices = ticked([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], volume=[1, 1, 5, 1, 1, 1])
    by_trades = vol.sampled_returns(prices, "price", clock=pl.int_range(pl.len()), step=2)
    assert by_trades["price"].to_list() == [1, 3, 5]
    by_lots = vol.sampled_returns(prices, "price", clock=pl.col("volume").cum_sum(), step=4)
    assert by_lots["price"].to_list() == [1, 3, 4]


def test_tick_time_can_leave_out_repeated_prices():
    sampled = vol.sampled_returns(ticked([1.0, 1.0, None, 1.0, 2.0, 2.0, 1.0]), "price", changes_only=True)
    assert sampled["price"].to_list() == [1, None, 1, 2, 1]


def test_business_time_counts_within_each_contract():
    prices = ticked([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], contract_id=["a", "b"] * 3)
    sampled = vol.sampled_returns(prices, "price", clock=pl.int_range(pl.len()), step=2)
    assert sampled.select("contract_id", "price").rows() == [("a", 1.0), ("a", 5.0), ("b", 2.0), ("b", 6.0)]


@pytest.mark.parametrize(
    "options", [{"interval_ns": 0}, {"clock": "price", "step": 0}, {"interval_ns": 1, "clock": "price"}]
)
def test_impossible_samplings_are_refused(options: dict[str, object]):
    with pytest.raises(UsageError):
        vol.sampled_returns(ticked([1.0]), "price", **options)


@pytest.mark.parametrize("options", [{}, {"interval_ns": 10}, {"clock": pl.int_range(pl.len())}])
def test_lazy_in_lazy_out_and_empty_in_empty_out(options: dict[str, object]):
    prices = ticked([1.0, 2.0, 3.0], [3, 10, 20], session_id=["s"] * 3)
    eager = vol.sampled_returns(prices, "price", **options)
    lazy = vol.sampled_returns(prices.lazy(), "price", **options)
    assert_frame_equal(lazy.collect(), eager)
    none = vol.sampled_returns(prices.clear(), "price", **options)
    assert none.is_empty()
    assert none.schema == eager.schema
    assert vol.realized_measures(none).schema == vol.realized_measures(eager).schema


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"interval_ns": 7},
        {"changes_only": True},
        {"clock": pl.int_range(pl.len()), "step": 3},
        {"clock": pl.col("price").cum_sum(), "step": 10},
    ],
)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 5)), min_size=2, max_size=30), st.integers(0, 99))
def test_the_future_never_changes_a_sample(options: dict[str, object], ticks: list[tuple[int, int]], now: int):
    times, prices = zip(*sorted(ticks), strict=True)
    whole = ticked([float(price) for price in prices], list(times))
    known = whole.filter(pl.col("recv_ns") <= now)
    samples = vol.sampled_returns(known, "price", **options)
    later = vol.sampled_returns(whole, "price", **options)
    assert_frame_equal(samples, later.head(samples.height))


@pytest.mark.parametrize("options", [{}, {"interval_ns": 1}])
def test_unseen_one_sided_and_crossed_books_have_no_return_and_locked_ones_do(options: dict[str, object]):
    book = [
        (None, None),
        (None, 3.0),
        (1.0, 3.0),
        (3.0, 5.0),
        (3.0, None),
        (3.0, 5.0),
        (6.0, 5.0),
        (4.0, 4.0),
        (8.0, 8.0),
    ]
    quotes = pl.DataFrame(book, schema=["best_bid", "best_ask"], orient="row").with_row_index("recv_ns")
    sampled = vol.sampled_returns(quotes.cast({"recv_ns": pl.Int64}), **options)
    doubled = pytest.approx(math.log(2))
    assert sampled["log_return"].to_list() == [None, None, None, doubled, None, None, None, None, doubled]


def test_annualizing_counts_the_periods_of_a_year():
    yearly = pl.DataFrame({"v": [1e-4]}).select(vol.annualized_volatility("v", periods_per_year=256)).item()
    assert yearly == pytest.approx(0.16)


def test_spread_implied_variance_is_that_of_a_market_with_no_news_but_its_order_flow():
    """Prices made as Madhavan, Richardson and Roomans have it, without public news: known theta, phi and rho."""
    rng = np.random.default_rng(3)
    n, theta, phi, rho = 50_000, 3e-4, 1e-4, 0.4
    stay = rng.random(n) < (1 + rho) / 2
    sign = np.cumprod(np.where(stay, 1, -1))
    value = np.cumsum(theta * (sign[1:] - rho * sign[:-1]))
    trades = pl.DataFrame({"spread": np.full(n, 2 * (theta + phi)), "sign": sign})
    implied = trades.select(vol.spread_implied_variance("spread", "sign", adverse_share=theta / (theta + phi))).item()
    assert implied == pytest.approx(np.square(np.diff(value)).sum(), rel=0.02)
    known = trades.select(
        vol.spread_implied_variance("spread", "sign", adverse_share=0.75, sign_autocorrelation=pl.lit(rho))
    ).item()
    assert known == pytest.approx(n * theta**2 * (1 - rho**2))


def test_spread_implied_variance_of_no_trades_is_null():
    trades = pl.DataFrame(schema={"spread": pl.Float64, "sign": pl.Int64})
    assert trades.select(vol.spread_implied_variance("spread", "sign")).item() is None


@pytest.mark.parametrize(
    ("table", "price", "n", "variance"), [("quotes", "mid", 4578, 1.467e-6), ("trades", "price", 2971, 1.945e-6)]
)
def test_figures_of_the_es_hour_equal_the_loops(es_tape: Tape, table: str, price: str, n: int, variance: float):
    events = getattr(es_tape, table)
    returns = vol.sampled_returns(events, price)
    row = vol.realized_measures(returns).drop("session_id", "contract_id").row(0, named=True)
    assert row == pytest.approx(plainly(returns["log_return"].drop_nulls().to_list()), rel=1e-9, abs=0)
    assert row["n"] == n
    assert row["realized_variance"] == pytest.approx(variance, rel=1e-3)  # as docs/metrics.md has it
