# ruff: noqa: RUF001  # a formula is written with the field's signs
"""The metrics of an analysis, declared once: names, units, definitions and sources of the report, the docs and JSON.

A metric whose sample is smaller than `least` is not reported: its value would say more about chance than the market.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

__all__ = ["GROUPS", "METRICS", "Group", "Metric", "Needs"]

Group = Literal[
    "quality",
    "activity",
    "spreads",
    "volatility",
    "order flow",
    "impact",
    "depth",
    "distributions",
    "correlations",
]
Needs = Literal["messages", "quotes", "trades", "depth", "contracts"]


class Metric(NamedTuple):
    """What a metric is.

    Attributes:
        group: Where it belongs.
        unit: Its unit.
        definition: What it is, in words.
        source: Who defined it, if that is not common knowledge.
        needs: What it can't be had without.
        least: The smallest sample that it is reported of; with 0, what is told of nothing is 0.
        counts: What its sample counts.
        total: Whether it is a sum over the time that it is of: less where there is less time, and 0 of nothing.
    """

    group: Group
    unit: str
    definition: str
    source: str = ""
    needs: tuple[Needs, ...] = ("trades",)
    least: int = 1
    counts: str = "trades"
    total: bool = False


_Q: Final[tuple[Needs, ...]] = ("quotes",)
_QT: Final[tuple[Needs, ...]] = ("quotes", "trades")
_M: Final[tuple[Needs, ...]] = ("messages",)
_D: Final[tuple[Needs, ...]] = ("depth",)
_C: Final[tuple[Needs, ...]] = ("contracts",)

_ABDL: Final = "Andersen, Bollerslev, Diebold & Labys (2000)"
_BNS: Final = "Barndorff-Nielsen & Shephard (2004)"
_BNHLS: Final = "Barndorff-Nielsen, Hansen, Lunde & Shephard (2009)"
_BGPW: Final = "Bouchaud, Gefen, Potters & Wyart (2004)"
_CSN: Final = "Clauset, Shalizi & Newman (2009)"
_ACJV: Final = "Amaya, Christoffersen, Jacobs & Vasquez (2015)"
_DJRW: Final = "Degryse, de Jong, van Ravenswaaij & Wuyts (2005)"
_BESSEMBINDER_KAUFMAN: Final = "Bessembinder & Kaufman (1997)"
_MRR: Final = "Madhavan, Richardson & Roomans (1997)"

METRICS: Final[dict[str, Metric]] = {
    # quality
    "duration_s": Metric(
        "quality", "s", "time that was analysed, gaps included", needs=_M, counts="messages", total=True
    ),
    "messages": Metric("quality", "messages", "hub messages received", needs=_M, counts="messages", total=True),
    "messages_per_s": Metric("quality", "1/s", "messages over the time analysed", needs=_M, counts="messages", least=0),
    "quotes": Metric("quality", "quotes", "quote messages", needs=_Q, counts="quotes", total=True),
    "depth_entries": Metric("quality", "entries", "entries of depth messages", needs=_D, counts="entries", total=True),
    "unusable_depth": Metric(
        "quality",
        "entries",
        "of these, what the book can't use: unknown types, sizes below 0, prices off the grid",
        needs=_D,
        counts="entries",
        total=True,
    ),
    "rejects": Metric("quality", "entries", "entries that could not be used", needs=_M, counts="messages", total=True),
    "gaps": Metric(
        "quality",
        "gaps",
        "stretches of time in which data of any stream can be missing",
        needs=_M,
        counts="messages",
        total=True,
    ),
    "gap_s": Metric("quality", "s", "how long they are together", needs=_M, counts="messages", total=True),
    "coverage": Metric(
        "quality", "share", "time without a gap over the time analysed", needs=_M, counts="messages", least=0
    ),
    "longest_silence_s": Metric("quality", "s", "longest time without a message", needs=_M, counts="messages", least=2),
    "clock_steps_back": Metric(
        "quality",
        "messages",
        "messages received before the one that came before them",
        needs=_M,
        counts="messages",
        total=True,
    ),
    "latency_median_ms": Metric(
        "quality", "ms", "median of receive time less exchange time of trades; the clocks' difference is in it"
    ),
    "latency_p99_ms": Metric("quality", "ms", "99th percentile of the same", least=100),
    "unknown_side": Metric("quality", "share", "lots traded whose aggressor the feed does not name"),
    "one_sided": Metric("quality", "share", "time in which the quote lacks a side", needs=_Q, counts="quotes"),
    "locked": Metric("quality", "share", "time in which best bid and ask are equal", needs=_Q, counts="quotes"),
    "crossed": Metric("quality", "share", "time in which the best bid is above the ask", needs=_Q, counts="quotes"),
    # activity
    "trades": Metric("activity", "prints", "trades printed", total=True),
    "orders": Metric(
        "activity", "orders", "aggressive orders: prints of one exchange time and side are one", total=True
    ),
    "volume": Metric("activity", "lots", "lots traded", total=True),
    "value": Metric("activity", "currency", "Σ price × lots × what a point is worth", total=True),
    "trades_per_s": Metric("activity", "1/s", "trades over the time analysed", least=0),
    "open": Metric("activity", "price", "price of the first trade"),
    "high": Metric("activity", "price", "highest price traded"),
    "low": Metric("activity", "price", "lowest price traded"),
    "close": Metric("activity", "price", "price of the last trade"),
    "vwap": Metric("activity", "price", "Σ price × lots / Σ lots", "Berkowitz, Logue & Noser (1988)"),
    "twap": Metric("activity", "price", "mean price, each weighted by the time until the next trade", least=2),
    "point_of_control": Metric("activity", "price", "price of most volume", "Steidlmayer & Koy (1986)"),
    "value_area_low": Metric(
        "activity", "price", "lower end of the narrowest range that holds 70 % of the volume and the point of control"
    ),
    "value_area_high": Metric("activity", "price", "its upper end"),
    # spreads
    "quoted_spread": Metric(
        "spreads", "price", "ask − bid, weighted by the time that it holds", needs=_Q, counts="quotes"
    ),
    "quoted_spread_ticks": Metric("spreads", "ticks", "the same in ticks", needs=_Q, counts="quotes"),
    "quoted_spread_bps": Metric("spreads", "bps", "the same over the mid", needs=_Q, counts="quotes"),
    "one_tick": Metric("spreads", "share", "time in which the spread is one tick", needs=_Q, counts="quotes"),
    "widenings": Metric(
        "spreads", "times", "how often the spread grew beyond one tick", needs=_Q, counts="quotes", total=True
    ),
    "reversion_median_s": Metric(
        "spreads", "s", "median time until it was back at one tick", needs=_Q, least=5, counts="widenings"
    ),
    "effective_spread": Metric("spreads", "price", "2 D (p − mid before), mean over trades", "Lee (1993)", _QT),
    "effective_spread_bps": Metric("spreads", "bps", "the same over the mid", "Lee (1993)", _QT),
    "effective_spread_lots_bps": Metric(
        "spreads", "bps", "the same, weighted by lots", "Holden & Jacobsen (2014)", _QT
    ),
    **{
        f"{name}_{label}_bps": Metric("spreads", "bps", definition.format(words), _BESSEMBINDER_KAUFMAN, _QT, 30)
        for label, words in (("1s", "1 s"), ("5s", "5 s"), ("1m", "60 s"))
        for name, definition in (
            ("realized_spread", "2 D (p − mid {} later) over the mid: what the supplier of liquidity keeps"),
            ("price_impact", "2 D (mid {} later − mid before) over the mid: what is lost to those who know more"),
        )
    },
    "roll_spread": Metric(
        "spreads", "price", "2 √−cov(Δp, Δp before); none where the covariance is positive", "Roll (1984)", least=30
    ),
    "information_share": Metric(
        "spreads", "share", "θ / (θ + φ): the part of the spread that pays for information", _MRR, _QT, 100, "orders"
    ),
    "permanent_share": Metric(
        "spreads",
        "share",
        "λ: adverse selection and inventory, of half the spread",
        "Huang & Stoll (1997)",
        _QT,
        100,
        "orders",
    ),
    # volatility
    "realized_volatility": Metric(
        "volatility",
        "% a year",
        "√Σ r², mids each second; a year has 252 days of 23 hours",
        "Andersen & Bollerslev (1998)",
        _Q,
        60,
        "returns",
    ),
    "realized_volatility_1m": Metric("volatility", "% a year", "the same, each minute", _ABDL, _Q, 20, "returns"),
    "bipower_volatility": Metric(
        "volatility", "% a year", "π/2 Σ |r r before|, each 15 s: without jumps", _BNS, _Q, 60, "returns"
    ),
    "median_volatility": Metric(
        "volatility",
        "% a year",
        "MedRV, each 15 s: without jumps",
        "Andersen, Dobrev & Schaumburg (2012)",
        _Q,
        60,
        "returns",
    ),
    "two_scale_volatility": Metric(
        "volatility",
        "% a year",
        "two-scale variance of each change of the mid: without noise",
        "Zhang, Mykland & Aït-Sahalia (2005)",
        _Q,
        100,
        "returns",
    ),
    "kernel_volatility": Metric(
        "volatility", "% a year", "realized kernel (Parzen) of the same: without noise", _BNHLS, _Q, 100, "returns"
    ),
    "pre_averaged_volatility": Metric(
        "volatility",
        "% a year",
        "pre-averaged variance of the same: without noise",
        "Jacod, Li, Mykland, Podolskij & Vetter (2009)",
        _Q,
        100,
        "returns",
    ),
    "parkinson_volatility": Metric(
        "volatility", "% a year", "from highs and lows of one-minute bars", "Parkinson (1980)", least=20, counts="bars"
    ),
    "garman_klass_volatility": Metric(
        "volatility", "% a year", "from their four prices", "Garman & Klass (1980)", least=20, counts="bars"
    ),
    "quote_implied_volatility": Metric(
        "volatility",
        "% a year",
        "what spread, order flow and news of the fitted model imply; no option is in it",
        _MRR,
        _QT,
        100,
        "orders",
    ),
    "signature_ratio": Metric(
        "volatility",
        "ratio",
        "realized variance each second over each minute: 1 without noise",
        _ABDL,
        _Q,
        20,
        "returns",
    ),
    "noise_bps": Metric(
        "volatility",
        "bps",
        "standard deviation of the noise in a mid, from the autocovariance of its changes",
        "Oomen (2006)",
        _Q,
        100,
        "returns",
    ),
    "jump_share": Metric(
        "volatility",
        "share",
        "of the variance (each 15 s) that MedRV leaves over",
        "Andersen, Dobrev & Schaumburg (2012)",
        _Q,
        60,
        "returns",
    ),
    "jump_p_value": Metric(
        "volatility",
        "probability",
        "of so much variance above bipower without a jump (each 15 s)",
        "Barndorff-Nielsen & Shephard (2006)",
        _Q,
        60,
        "returns",
    ),
    "realized_skewness": Metric("volatility", "", "√n Σ r³ / RV^1.5, each 15 s", _ACJV, _Q, 60, "returns"),
    "realized_kurtosis": Metric("volatility", "", "n Σ r⁴ / RV², each 15 s; 3 for a normal", _ACJV, _Q, 60, "returns"),
    # order flow
    "buy_volume": Metric("order flow", "lots", "lots that buyers took", total=True),
    "sell_volume": Metric("order flow", "lots", "lots that sellers took", total=True),
    "delta": Metric("order flow", "lots", "bought less sold", total=True),
    "imbalance": Metric("order flow", "share", "delta over bought plus sold", "Chordia & Subrahmanyam (2004)"),
    "count_imbalance": Metric(
        "order flow", "share", "the same of the number of trades", "Chordia & Subrahmanyam (2004)"
    ),
    "sign_autocorrelation": Metric(
        "order flow",
        "correlation",
        "of the signs of two successive orders",
        "Lillo & Farmer (2004)",
        least=100,
        counts="orders",
    ),
    "sign_decay": Metric(
        "order flow",
        "exponent",
        "γ of C(l) ~ l^−γ, lags of 1 to 50 orders; below 1 is long memory; its error is too small",
        "Lillo & Farmer (2004)",
        least=10,
        counts="lags",
    ),
    "vpin": Metric(
        "order flow",
        "share",
        "Σ |bought − sold| / volume of the last 50 of 250 buckets of equal volume, mean over the session",
        "Easley, López de Prado & O'Hara (2012)",
        least=51,
        counts="buckets",
    ),
    "vpin_highest": Metric(
        "order flow", "share", "its highest value", "Easley, López de Prado & O'Hara (2012)", least=51, counts="buckets"
    ),
    # impact
    **{
        f"response_{label}": Metric("impact", "price", f"E[D (mid {words} later − mid before)]", _BGPW, _QT, 30)
        for label, words in (("1s", "1 s"), ("5s", "5 s"), ("1m", "60 s"))
    },
    "kyle_lambda": Metric(
        "impact", "price a lot", "slope of the mid's change on signed volume, over 10 s", "Kyle (1985)", _QT, 30, "bars"
    ),
    "kyle_r_squared": Metric("impact", "share", "of the variance that this explains", "Kyle (1985)", _QT, 30, "bars"),
    "hasbrouck_lambda": Metric(
        "impact", "1/√value", "slope of log returns on Σ D √(p q), over 5 minutes", "Hasbrouck (2009)", _QT, 12, "bars"
    ),
    "amihud": Metric(
        "impact",
        "1/value",
        "mean |log return| / (price × lots), bars of a minute",
        "Amihud (2002)",
        least=20,
        counts="bars",
    ),
    "permanent_impact": Metric(
        "impact",
        "price",
        "what an order moves the mid by for good: vector autoregression of 5 lags",
        "Hasbrouck (1991)",
        _QT,
        100,
        "orders",
    ),
    "trade_share": Metric(
        "impact",
        "share",
        "of the variance of the mid's random walk that comes with trades",
        "Hasbrouck (1991)",
        _QT,
        100,
        "orders",
    ),
    "ofi_slope": Metric(
        "impact",
        "price a lot",
        "slope of the mid's change on the order flow imbalance of the best level, over 10 s",
        "Cont, Kukanov & Stoikov (2014)",
        ("quotes", "depth"),
        30,
        "bars",
    ),
    "ofi_r_squared": Metric(
        "impact",
        "share",
        "of the variance that this explains",
        "Cont, Kukanov & Stoikov (2014)",
        ("quotes", "depth"),
        30,
        "bars",
    ),
    # depth
    "depth_1": Metric("depth", "lots", "lots at the best price, mean of both sides", "", _D, counts="books"),
    "depth_5": Metric("depth", "lots", "the same of five levels", "", _D, counts="books"),
    "depth_10": Metric("depth", "lots", "the same of ten levels", "", _D, counts="books"),
    "book_crossed": Metric(
        "depth", "share", "time in which the levels told lock or cross, and the newest stand", "", _D, counts="books"
    ),
    "queue_imbalance": Metric(
        "depth", "share", "(lots at the best bid − at the ask) / both", "Gould & Bonart (2016)", _D, counts="books"
    ),
    "round_trip_10_bps": Metric(
        "depth",
        "bps",
        "buying 10 lots and selling them at once, while the ten levels hold as many",
        "Gomber, Schweickert & Theissen (2015)",
        _D,
        counts="books",
    ),
    "round_trip_50_bps": Metric(
        "depth", "bps", "the same of 50 lots", "Gomber, Schweickert & Theissen (2015)", _D, counts="books"
    ),
    "book_slope": Metric(
        "depth",
        "elasticity",
        "how fast depth grows with the distance to the mid",
        "Næs & Skjeltorp (2006)",
        _D,
        counts="books",
    ),
    "sweep_share": Metric(
        "depth",
        "share",
        "orders that took all that waited at the best price",
        "",
        ("depth", "trades"),
        30,
        "orders",
    ),
    "sweep_half_life_s": Metric(
        "depth",
        "s",
        "time until half of what sweeps took at a price waits there again, mean over sweeps",
        _DJRW,
        ("depth", "trades"),
        30,
        "sweeps",
    ),
    "widening_half_life_s": Metric(
        "depth",
        "s",
        "time until half of a widening beyond the width that is most usual is gone, mean over widenings",
        _DJRW,
        _D,
        30,
        "widenings",
    ),
    # distributions
    "mean_size": Metric("distributions", "lots", "mean size of a trade"),
    "median_size": Metric("distributions", "lots", "median size of a trade"),
    "largest_size": Metric("distributions", "lots", "size of the largest trade"),
    "size_herfindahl": Metric("distributions", "", "Σ (share of trades of a size)²"),
    "at_multiples_of_5": Metric("distributions", "share", "trades of 5, 10, 15, … lots", "Alexander & Peterson (2007)"),
    "at_multiples_of_10": Metric("distributions", "share", "trades of 10, 20, … lots", "Alexander & Peterson (2007)"),
    "size_exponent": Metric(
        "distributions",
        "exponent",
        "α of the density ~ size^−α in the tail; Hill's is α − 1",
        _CSN,
        least=100,
        counts="trades of the tail",
    ),
    "size_cutoff": Metric(
        "distributions", "lots", "where that tail begins", _CSN, least=100, counts="trades of the tail"
    ),
    "size_power_law_z": Metric(
        "distributions",
        "z",
        "power law against lognormal in that tail: below −2, the lognormal is better",
        "Vuong (1989)",
        least=100,
        counts="trades of the tail",
    ),
    "duration_mean_s": Metric("distributions", "s", "mean time between orders", counts="durations", least=2),
    "duration_median_s": Metric("distributions", "s", "median time between orders", counts="durations", least=2),
    "branching_ratio": Metric(
        "distributions",
        "orders",
        "orders that one sets off: Hawkes process, exponential kernel",
        "Hawkes (1971)",
        least=100,
        counts="orders",
    ),
    "acd_persistence": Metric(
        "distributions",
        "",
        "α + β of ACD(1,1): how lasting quick or slow trading is",
        "Engle & Russell (1998)",
        least=100,
        counts="durations",
    ),
    # correlations
    "hayashi_yoshida": Metric(
        "correlations",
        "correlation",
        "of mids, each tick; too small by the noise",
        "Hayashi & Yoshida (2005)",
        _C,
        100,
        "ticks",
    ),
    "kernel_correlation": Metric(
        "correlations",
        "correlation",
        "multivariate realized kernel: without noise",
        "Barndorff-Nielsen, Hansen, Lunde & Shephard (2011)",
        _C,
        100,
        "returns",
    ),
    "correlation_1s": Metric("correlations", "correlation", "of returns of mids over 1 s", _BNS, _C, 60, "returns"),
    "correlation_1m": Metric("correlations", "correlation", "the same over a minute", _BNS, _C, 20, "returns"),
    "lead_ms": Metric(
        "correlations",
        "ms",
        "lag of the largest correlation: so much earlier moves the first contract",
        "Hoffmann, Rosenbaum & Yoshida (2013)",
        _C,
        100,
        "ticks",
    ),
    "lead_lag_ratio": Metric(
        "correlations",
        "ratio",
        "Σ ρ² of its leads over Σ ρ² of its lags; above 1 it leads",
        "Huth & Abergel (2014)",
        _C,
        100,
        "ticks",
    ),
}

GROUPS: Final[tuple[Group, ...]] = tuple(dict.fromkeys(metric.group for metric in METRICS.values()))
