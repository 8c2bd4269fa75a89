"""One contract's figures: a function for each group of metrics, from an extract to wide rows.

A wide row is of one interval (`session_id`) and has a column for each metric, by its name in the catalogue; beside it
may stand `<metric>_se`, its standard error, and `n_<metric>`, or `n` for all of a row, the size of the sample. `tall`
turns such rows into figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Literal

import polars as pl

from mdcapture.analysis.catalogue import METRICS
from mdcapture.analysis.extract import FLOW_NS, LEVELS, SECOND_NS, Extract
from mdcapture.metrics.bars import time_bars, twap, vwap
from mdcapture.metrics.book import entry_fault
from mdcapture.metrics.depth import book_slope, cumulative_depth, half_life, mean_over_time, round_trip_cost, sweeps
from mdcapture.metrics.distribution import durations, herfindahl, share_at_multiples
from mdcapture.metrics.flow import decay_exponent, order_flow, queue_imbalance, sign_autocorrelation, vpin
from mdcapture.metrics.frames import by_group, groups, stretches
from mdcapture.metrics.impact import amihud, flow_regression, hasbrouck_lambda, kyle_lambda
from mdcapture.metrics.information import trade_information
from mdcapture.metrics.jumps import bns_statistic, normal_p_value
from mdcapture.metrics.point_process import acd, hawkes
from mdcapture.metrics.profile import value_area, volume_profile
from mdcapture.metrics.ranges import garman_klass, parkinson
from mdcapture.metrics.spread_estimators import roll
from mdcapture.metrics.spreads import quoted, time_to_revert
from mdcapture.metrics.tails import compare_power_law, fit_power_law
from mdcapture.metrics.volatility import (
    annualized_volatility,
    bipower_variance,
    med_variance,
    realized_kurtosis,
    realized_skewness,
    realized_variance,
    realized_variance_error,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mdcapture.analysis.catalogue import Needs

__all__ = ["PARTS", "QUALITY", "Part", "sampled_volatility", "tall", "without_noise"]

_YEAR_S: Final = 252 * 23 * 3600
"""A futures market is open for 23 hours on 252 days."""

BUCKETS: Final = 250
LAGS: Final = 50
STATIONARY: Final = 0.9999
"""An ACD's persistence at the edge of its range is no estimate."""

_SINCE: Final = pl.when(pl.col("stretch").diff() == 0).then(pl.col("recv_ns").diff())
"""The time (ns) since the row before of the same group, where no gap lies between."""

BAR_NS: Final = 60 * SECOND_NS
JUMP_NS: Final = 15 * SECOND_NS


def tall(wide: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """A row an interval and metric: `session_id`, further keys, `metric`, `value`, `error`, `n`."""

    def column(*names: str) -> pl.Expr:
        return next((pl.col(name) for name in names if name in wide.columns), pl.lit(None))

    rows = [
        wide.select(
            "session_id",
            *keys,
            metric=pl.lit(metric),
            value=pl.col(metric).cast(pl.Float64).fill_nan(None),
            error=column(f"{metric}_se").cast(pl.Float64).fill_nan(None),
            n=column(f"n_{metric}", "n").cast(pl.Int64),
        )
        for metric in wide.columns
        if metric in METRICS
    ]
    return pl.concat(rows)


def _grouped(rows: pl.DataFrame | pl.LazyFrame, **named: pl.Expr) -> pl.DataFrame:
    return by_group(rows.lazy(), **named).collect()


def _quality(x: Extract) -> Iterator[pl.DataFrame]:
    messages = x.messages.collect()
    by_number = messages if messages["seq"].is_sorted() else messages.sort("seq")
    time = _grouped(x.spans, duration_s=(pl.col("to_ns") - pl.col("from_ns")).sum() / 1e9)
    lost = _grouped(x.missing, gaps=pl.len(), gap_s=(pl.col("to_ns") - pl.col("from_ns")).sum() / 1e9)
    rejects = _grouped(x.rejects, rejects=pl.len())
    silences = stretches(messages, x.gaps("quotes", "trades", "depth"))
    counts = _grouped(silences, messages=pl.len(), longest_silence_s=_SINCE.max() / 1e9, n=pl.len())
    steps = _grouped(by_number, clock_steps_back=(pl.col("recv_ns").diff() < 0).sum())
    table = counts.join(steps, on="session_id").join(time, on="session_id", how="right")
    table = table.join(lost, on="session_id", how="left")
    yield table.join(rejects, on="session_id", how="left").with_columns(
        pl.col("gaps", "gap_s", "rejects", "messages", "n").fill_null(0),
        messages_per_s=pl.col("messages").fill_null(0) / pl.col("duration_s"),
        coverage=1 - pl.col("gap_s").fill_null(0) / pl.col("duration_s"),
    )


def _latency(x: Extract) -> Iterator[pl.DataFrame]:
    latency_ms = (pl.col("recv_ns") - pl.col("exch_ns")) / 1e6
    yield _grouped(
        x.trades,
        latency_median_ms=latency_ms.median(),
        latency_p99_ms=latency_ms.quantile(0.99),
        n_latency_median_ms=latency_ms.count(),
        n_latency_p99_ms=latency_ms.count(),
        unknown_side=pl.col("volume").filter(pl.col("side").is_null()).sum() / pl.col("volume").sum(),
        n=pl.len(),
    )


def _depth_quality(x: Extract) -> Iterator[pl.DataFrame]:
    unusable = entry_fault(x.tick_size).is_not_null()
    yield _grouped(x.depth, depth_entries=pl.len(), unusable_depth=unusable.sum(), n=pl.len())


def _quote_quality(x: Extract) -> Iterator[pl.DataFrame]:
    ticks = pl.col("spread_ticks")
    states = {"one_sided": ticks.is_null(), "locked": ticks == 0, "crossed": ticks < 0}
    shares = {name: pl.col("share").filter(state).sum() for name, state in states.items()}
    counts = _grouped(x.quotes, quotes=pl.len(), n=pl.len())
    timed = x.widths.drop_nulls("share")
    yield counts.join(_grouped(timed, **shares), on="session_id", how="left")


def _activity(x: Extract) -> Iterator[pl.DataFrame]:
    price, volume = pl.col("price"), pl.col("volume")
    traded = _grouped(
        x.trades,
        trades=pl.len(),
        volume=volume.sum(),
        value=(price * volume).sum() * pl.lit(x.point_value, pl.Float64),
        open=price.first(),
        high=price.max(),
        low=price.min(),
        close=price.last(),
        vwap=vwap(),
        twap=twap(),
        n=pl.len(),
    )
    time_s = _grouped(x.spans, time_s=(pl.col("to_ns") - pl.col("from_ns")).sum() / 1e9)
    yield traded.join(time_s, on="session_id", how="left").with_columns(
        trades_per_s=pl.col("trades") / pl.col("time_s")
    )
    yield _grouped(x.orders, orders=pl.len(), n=pl.len())
    yield value_area(volume_profile(x.trades)).drop("volume", "n")


def _quoted(x: Extract) -> Iterator[pl.DataFrame]:
    gaps, tick = x.gaps("quotes"), x.tick_size
    means = quoted(x.quotes, until=x.ends, incidents=gaps).drop("duration_s")
    yield means.with_columns(quoted_spread_ticks=pl.col("quoted_spread") / pl.lit(tick, pl.Float64))
    if tick is not None:
        one = pl.col("spread_ticks") == 1
        ticked = _grouped(x.widths, one_tick=pl.col("share").filter(one).sum())
        yield ticked.join(means.select("session_id", "n"), on="session_id")
        wide = time_to_revert(x.width_changes, tick, incidents=gaps)
        ended = pl.col("duration_ns").drop_nulls()
        times = _grouped(
            wide,
            widenings=pl.len(),
            reversion_median_s=ended.median() / 1e9,
            n_reversion_median_s=ended.len(),
        )
        yield times.join(means.select("session_id", "n"), on="session_id")


def _effective(x: Extract) -> Iterator[pl.DataFrame]:
    yield x.costs


def _percent_a_year(variance: pl.Expr, time_s: pl.Expr) -> pl.Expr:
    return 100 * annualized_volatility(variance / time_s, periods_per_year=_YEAR_S)


def sampled_volatility(interval_s: float) -> tuple[pl.Expr, pl.Expr]:
    """The volatility (% a year) of `log_return` over an interval, and its standard error, by the delta method."""
    r = pl.col("log_return")
    volatility = _percent_a_year(realized_variance(r), r.count() * interval_s)
    return volatility, volatility * realized_variance_error(r) / (2 * realized_variance(r))


def _volatility(x: Extract) -> Iterator[pl.DataFrame]:
    r = pl.col("log_return")
    for interval_s, name in ((1, "realized_volatility"), (60, "realized_volatility_1m")):
        volatility, error = sampled_volatility(interval_s)
        yield _grouped(x.returns(interval_s * SECOND_NS), **{name: volatility, f"{name}_se": error, "n": r.count()})
    time_s = r.count() * (JUMP_NS / SECOND_NS)
    yield _grouped(
        x.returns(JUMP_NS),
        bipower_volatility=_percent_a_year(bipower_variance(r), time_s),
        median_volatility=_percent_a_year(med_variance(r), time_s),
        jump_share=(1 - med_variance(r) / realized_variance(r)).clip(lower_bound=0.0),
        jump_z=bns_statistic(r),
        realized_skewness=realized_skewness(r),
        realized_kurtosis=realized_kurtosis(r),
        n=r.count(),
    ).with_columns(jump_p_value=normal_p_value("jump_z"))
    yield without_noise(x)
    a_second = _grouped(x.returns(SECOND_NS), often=realized_variance(r) / r.count())
    a_minute = _grouped(x.returns(BAR_NS), seldom=realized_variance(r) / (60 * r.count()), n=r.count())
    yield a_second.join(a_minute, on="session_id").with_columns(signature_ratio=pl.col("often") / pl.col("seldom"))


def without_noise(x: Extract) -> pl.DataFrame:
    """The noise-robust volatilities of each interval, as a wide row, and the noise itself."""
    time = _grouped(x.ticks, time_s=_SINCE.sum() / 1e9)
    measures = ("two_scale", "kernel", "pre_averaged")
    return (
        x.noise.rename({"realized_kernel": "kernel_variance"})
        .join(time, on="session_id")
        .with_columns(
            *(
                _percent_a_year(pl.col(f"{name}_variance"), pl.col("time_s")).alias(f"{name}_volatility")
                for name in measures
            ),
            noise_bps=1e4 * pl.col("noise_variance").sqrt(),
        )
    )


def _without_quotes(x: Extract) -> Iterator[pl.DataFrame]:
    yield _grouped(x.trades, roll_spread=roll("price"), n=pl.len())
    bars = time_bars(x.trades, BAR_NS, incidents=x.gaps("trades"))
    day = pl.lit(BAR_NS / 1e9)
    yield _grouped(
        bars,
        parkinson_volatility=_percent_a_year(parkinson("high", "low").mean(), day),
        garman_klass_volatility=_percent_a_year(garman_klass("open", "high", "low", "close").mean(), day),
        n=pl.len(),
    )
    worth = bars.with_columns(value=pl.col("vwap") * pl.col("volume"))
    yield _grouped(worth, amihud=amihud("close", "value"), n=pl.len())


def _models(x: Extract) -> Iterator[pl.DataFrame]:
    """What models of single orders say; the implied volatility is that of the orders of a year, over the price."""
    time_s = (pl.col("to_ns") - pl.col("from_ns")).sum() / 1e9
    pace = _grouped(x.spans, time_s=time_s).join(_grouped(x.trades, price=pl.col("price").mean()), on="session_id")
    a_trade = pl.col("mrr_flow_variance") + pl.col("mrr_news_variance")
    variance = pl.col("taken") * a_trade / pl.col("price") ** 2
    yield (
        _of_orders(x, x.components.with_columns(n="mrr_n"))
        .join(pace, on="session_id")
        .select(
            "session_id",
            "n",
            information_share="mrr_information_share",
            permanent_share="hs_permanent_share",
            permanent_share_se="hs_permanent_share_se",
            quote_implied_volatility=_percent_a_year(variance, pl.col("time_s")),
        )
    )
    few = x.modelled
    gaps = few.gaps("quotes", "trades")
    yield _of_orders(x, trade_information(few.enough_orders, few.quotes, incidents=gaps))


def _arrivals(x: Extract) -> Iterator[pl.DataFrame]:
    waits = pl.col("duration_ns").drop_nulls() / 1e9
    waiting = durations(x.orders, incidents=x.gaps("trades"))
    yield _grouped(waiting, duration_mean_s=waits.mean(), duration_median_s=waits.median(), n=waits.len())
    few, gaps = x.modelled.enough_orders, x.modelled.gaps("trades")
    excited = hawkes(few, incidents=gaps).filter("converged")
    yield _of_orders(x, excited.select("session_id", "n", "branching_ratio", "branching_ratio_se"))
    persistence = pl.col("alpha") + pl.col("beta")
    inside = acd(few, incidents=gaps).filter(pl.col("converged") & (persistence < STATIONARY))
    yield _of_orders(x, inside.select("session_id", "n", acd_persistence=persistence))


def _of_orders(x: Extract, fits: pl.DataFrame) -> pl.DataFrame:
    """The fits beside the number of orders (`taken`), which is their `n` where there is no fit."""
    counts = _grouped(x.orders, taken=pl.len())
    return counts.join(fits, on="session_id", how="left").with_columns(n=pl.col("n").fill_null(pl.col("taken")))


def _order_flow(x: Extract) -> Iterator[pl.DataFrame]:
    yield order_flow(x.trades)
    gaps = x.gaps("trades")
    memory = sign_autocorrelation(x.orders, LAGS, incidents=gaps)
    first = pl.col("lag") == 1
    yield memory.filter(first).select("session_id", "n", sign_autocorrelation="autocorrelation")
    yield decay_exponent(memory).select("session_id", "n", sign_decay="gamma", sign_decay_se="gamma_se")
    toxicity = vpin(x.trades, max(1, int(x.trades["volume"].sum()) // BUCKETS), incidents=gaps)
    yield _grouped(toxicity, vpin=pl.col("vpin").mean(), vpin_highest=pl.col("vpin").max(), n=pl.len())


def _impact(x: Extract) -> Iterator[pl.DataFrame]:
    gaps = x.gaps("quotes", "trades")
    labels = ("1s", "5s", "1m")
    yield x.costs.select(
        "session_id",
        *((pl.col(f"price_impact_{label}") / 2).alias(f"response_{label}") for label in labels),
        *(pl.col(f"n_price_impact_{label}").alias(f"n_response_{label}") for label in labels),
    )
    kyle = kyle_lambda(x.trades, x.quotes, FLOW_NS, incidents=gaps)
    yield kyle.select("session_id", "n", kyle_lambda="slope", kyle_lambda_se="slope_se", kyle_r_squared="r_squared")
    hasbrouck = hasbrouck_lambda(x.trades, x.quotes, incidents=gaps)
    yield hasbrouck.select("session_id", "n", hasbrouck_lambda="slope", hasbrouck_lambda_se="slope_se")


def _depth(x: Extract) -> Iterator[pl.DataFrame]:
    def both(levels: int) -> pl.Expr:
        return (cumulative_depth("bid", levels) + cumulative_depth("ask", levels)) / 2

    measures = [
        *(both(levels).alias(f"depth_{levels}") for levels in (1, 5, 10)),
        *(round_trip_cost(lots, levels=LEVELS).alias(f"round_trip_{lots}_bps") for lots in (10, 50)),
        pl.col("crossed").cast(pl.Float64).alias("book_crossed"),
        queue_imbalance(),
        book_slope(levels=LEVELS).alias("book_slope"),
    ]
    means = mean_over_time(x.books, measures, until=x.ends, incidents=x.gaps("depth"))
    yield means.drop("duration_s")


def _sweeps(x: Extract) -> Iterator[pl.DataFrame]:
    swept = _grouped(sweeps(x.trades, x.touch), swept=pl.len())
    counts = _grouped(x.orders, n=pl.len()).join(swept, on="session_id", how="left")
    yield counts.with_columns(sweep_share=pl.col("swept").fill_null(0) / pl.col("n"))
    yield _half_life(x.after_sweeps, "sweep_half_life_s", "fall")


def _widenings(x: Extract) -> Iterator[pl.DataFrame]:
    yield _half_life(x.after_widenings, "widening_half_life_s", "rise")


def _half_life(path: pl.DataFrame, name: str, effect: Literal["rise", "fall"]) -> pl.DataFrame:
    return half_life(path, effect).select("session_id", "n", (pl.col("half_life_ns") / 1e9).alias(name))


def _distributions(x: Extract) -> Iterator[pl.DataFrame]:
    size = pl.col("volume")
    yield _grouped(
        x.trades,
        mean_size=size.mean(),
        median_size=size.median(),
        largest_size=size.max(),
        size_herfindahl=herfindahl(),
        at_multiples_of_5=share_at_multiples(5),
        at_multiples_of_10=share_at_multiples(10),
        n=pl.len(),
    )
    yield _tails(x)


def _tails(x: Extract) -> pl.DataFrame:
    rows = []
    for keys, trades in groups(x.trades.select("session_id", "recv_ns", "volume")):
        sizes = trades["volume"].to_numpy()
        fit = fit_power_law(sizes, discrete=True)
        against = compare_power_law(sizes, fit, discrete=True)
        rows.append(
            keys
            | {"size_exponent": fit.alpha, "size_exponent_se": fit.alpha_se, "size_cutoff": fit.xmin}
            | {"size_power_law_z": against.z, "n": fit.n_tail}
        )
    return pl.DataFrame(rows)


def _book_flow(x: Extract) -> Iterator[pl.DataFrame]:
    fit = flow_regression(x.book_moves, flow="ofi_0")
    yield fit.select("session_id", "n", ofi_slope="slope", ofi_slope_se="slope_se", ofi_r_squared="r_squared")


Part = Callable[[Extract], Iterator[pl.DataFrame]]
"""From an extract to wide rows."""

PARTS: Final[Mapping[Part, frozenset[Needs]]] = {
    _quality: frozenset({"messages"}),
    _quote_quality: frozenset({"quotes"}),
    _depth_quality: frozenset({"depth"}),
    _latency: frozenset({"trades"}),
    _activity: frozenset({"trades"}),
    _quoted: frozenset({"quotes"}),
    _effective: frozenset({"quotes", "trades"}),
    _volatility: frozenset({"quotes"}),
    _without_quotes: frozenset({"trades"}),
    _models: frozenset({"quotes", "trades"}),
    _order_flow: frozenset({"trades"}),
    _impact: frozenset({"quotes", "trades"}),
    _book_flow: frozenset({"quotes", "depth"}),
    _depth: frozenset({"depth"}),
    _sweeps: frozenset({"depth", "trades"}),
    _widenings: frozenset({"depth"}),
    _distributions: frozenset({"trades"}),
    _arrivals: frozenset({"trades"}),
}
"""What makes the figures, and what it can't do without."""

QUALITY: Final[Mapping[Part, frozenset[Needs]]] = {part: PARTS[part] for part in (_quality, _depth_quality, _latency)}
"""Those that tell whether the data can be trusted, and need no quotes in memory."""
