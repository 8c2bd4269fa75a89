"""A session's story in figures: one row for each contract and metric, with its unit and its sample size."""

from __future__ import annotations

from typing import Final, NamedTuple

import polars as pl

from mdcapture.metrics.bars import vwap
from mdcapture.metrics.flow import order_flow
from mdcapture.metrics.frames import KEYS, by_group
from mdcapture.metrics.spreads import mean_spreads, quoted, trade_spreads
from mdcapture.metrics.volatility import (
    annualized_volatility,
    bipower_variance,
    realized_variance,
    sampled_returns,
)

__all__ = ["FIGURES", "Figure", "summarize"]

_HORIZON_NS: Final = 5_000_000_000
_SAMPLING_NS: Final = 1_000_000_000
_SECONDS_A_YEAR: Final = 252 * 23 * 3600
"""A futures market is open for 23 hours on 252 days."""


class Figure(NamedTuple):
    """A figure of the summary: its group, its unit, and the column that counts what it is made of."""

    group: str
    unit: str
    n: str


FIGURES: Final = {
    "trades": Figure("activity", "prints", "trades"),
    "volume": Figure("activity", "lots", "trades"),
    "vwap": Figure("activity", "price", "trades"),
    "quoted_spread": Figure("spreads", "price, time-weighted", "quotes"),
    "quoted_spread_bps": Figure("spreads", "bps, time-weighted", "quotes"),
    "effective_spread_bps": Figure("spreads", "bps", "n_effective_spread_bps"),
    "realized_spread_5s_bps": Figure("spreads", "bps, mid after 5 s", "n_realized_spread_5s_bps"),
    "price_impact_5s_bps": Figure("spreads", "bps, mid after 5 s", "n_price_impact_5s_bps"),
    "realized_volatility": Figure("volatility", "a year, mid each 1 s", "returns"),
    "bipower_volatility": Figure("volatility", "a year, mid each 1 s", "returns"),
    "buy_volume": Figure("flow", "lots", "trades"),
    "sell_volume": Figure("flow", "lots", "trades"),
    "delta": Figure("flow", "lots", "trades"),
    "imbalance": Figure("flow", "delta / volume", "trades"),
}


def summarize(
    quotes: pl.LazyFrame, trades: pl.LazyFrame, incidents: pl.LazyFrame | pl.DataFrame | None = None
) -> pl.DataFrame:
    """The main figures of each session and contract.

    Args:
        quotes: The lake's quotes.
        trades: The lake's trades.
        incidents: Gaps, which no return and no horizon reaches across.

    Returns:
        Rows of `session_id`, `contract_id`, `group`, `metric`, `value`, `unit`, `n` (sample size), in the order of
        `FIGURES`; a value is null where the data does not hold it.
    """
    spreads = trade_spreads(trades, quotes, [_HORIZON_NS], scales=("bps",), incidents=incidents)
    returns = sampled_returns(quotes, interval_ns=_SAMPLING_NS, incidents=incidents)
    seconds = pl.col("log_return").count() * (_SAMPLING_NS / 1e9)
    wide = [
        by_group(trades, trades=pl.len().cast(pl.Int64), volume=pl.col("volume").sum(), vwap=vwap()),
        quoted(quotes, until=trades, incidents=incidents).rename({"n": "quotes"}).drop("duration_s"),
        mean_spreads(spreads),
        by_group(
            returns,
            realized_volatility=annualized_volatility(
                realized_variance("log_return") / seconds, periods_per_year=_SECONDS_A_YEAR
            ),
            bipower_volatility=annualized_volatility(
                bipower_variance("log_return") / seconds, periods_per_year=_SECONDS_A_YEAR
            ),
            returns=pl.col("log_return").count().cast(pl.Int64),
        ),
        order_flow(trades).select(*KEYS, "buy_volume", "sell_volume", "delta", "imbalance"),
    ]
    table = wide[0]
    for more in wide[1:]:
        table = table.join(more, on=KEYS, how="full", coalesce=True)
    figures = table.collect()
    rows = [
        figures.select(
            *KEYS,
            group=pl.lit(figure.group),
            metric=pl.lit(metric),
            value=pl.col(metric).cast(pl.Float64),
            unit=pl.lit(figure.unit),
            n=pl.col(figure.n).fill_null(0),
        )
        for metric, figure in FIGURES.items()
    ]
    order = pl.col("metric").replace_strict(
        {metric: place for place, metric in enumerate(FIGURES)}, return_dtype=pl.Int64
    )
    return pl.concat(rows).sort(*KEYS, order)
