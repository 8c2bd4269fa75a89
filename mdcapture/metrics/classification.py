"""Who started a trade, guessed from prices and quotes: the rules of the literature, as a check of the feed's own side.

Trades and quotes flow in; signs of +1 (buyer) and -1 (seller) flow out, and how well they agree with the side that the
feed reports. A rule that has nothing to go by is null, never a guess: before the first change of price, or without a
quote. No rule looks ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import polars as pl
from scipy import special

from mdcapture.errors import UsageError
from mdcapture.metrics import asof
from mdcapture.metrics.frames import (
    Column,
    Frame,
    alike,
    by_group,
    column,
    each_group,
    key_columns,
    neighbour,
    reading,
    trade_sign,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mdcapture.metrics.asof import Gaps

__all__ = ["Rule", "agreement", "bulk_agreement", "bulk_buy_volume", "classify"]

Rule = Literal["tick", "quote", "lee_ready", "emo", "clnv"]

_PRICE, _BID, _ASK = pl.col("price"), pl.col("best_bid"), pl.col("best_ask")


def classify(
    trades: Frame,
    quotes: pl.LazyFrame | pl.DataFrame | None = None,
    *,
    rules: Sequence[Rule] = get_args(Rule),
    quote_delay_ns: int = 0,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Add the sign that each rule gives a trade, as `tick`, `quote`, `lee_ready`, `emo`, `clnv`.

    - tick: the sign of the last change of price that was not zero. Holthausen, Leftwich and Mayers (1987), "The Effect
      of Large Block Transactions on Security Prices: A Cross-Sectional Analysis", Journal of Financial Economics 19.
    - quote: the sign of price less mid, nothing at the mid. Hasbrouck (1988), "Trades, Quotes, Inventories, and
      Information", Journal of Financial Economics 22.
    - lee_ready: quote, and tick at the mid. Lee and Ready (1991), "Inferring Trade Direction from Intraday Data",
      Journal of Finance 46.
    - emo: at the ask a buy, at the bid a sale, elsewhere tick. Ellis, Michaely and O'Hara (2000), "The Accuracy of
      Trade Classification Rules: Evidence from Nasdaq", Journal of Financial and Quantitative Analysis 35.
    - clnv: within three tenths of the spread inside from the ask a buy, from the bid a sale, elsewhere (outside of the
      quotes too) tick. Chakrabarty, Li, Nguyen and Van Ness (2007), "Trade Classification Algorithms for Electronic
      Communications Network Trades", Journal of Banking & Finance 31.

    A quote that is locked places no trade at one side of it, and one that is crossed or lacks a side counts as none:
    rules that fall back on tick do so.

    Args:
        trades: Trades with `recv_ns` and `price`; the result has them in the order of events.
        quotes: Rows of `recv_ns`, `best_bid`, `best_ask`: the last before each trade is taken. None: the trades have
            `best_bid` and `best_ask` themselves.
        rules: Which to add.
        quote_delay_ns: The quote must be older than the trade by this; Lee and Ready took five seconds, for the floor's
            reports of trades came late. Today zero is usual, and the default.
        incidents: Gaps; no price before, and no quote, is taken from the other side of one.

    Raises:
        UsageError: A rule is unknown, or the delay negative.
    """
    unknown = [rule for rule in rules if rule not in get_args(Rule)]
    if unknown or quote_delay_ns < 0:
        raise UsageError(f"rules are {get_args(Rule)} and the delay is not negative: {unknown or quote_delay_ns}")
    signs = _signs(_tick_rule())

    def metric(own: pl.DataFrame, states: pl.DataFrame | None, gaps: Gaps) -> pl.DataFrame:
        if states is not None:
            own = asof.prevailing(own, states, gaps, ["best_bid", "best_ask"], age_ns=quote_delay_ns)
        rows = asof.with_stretch(own, gaps).lazy()
        added = rows.with_columns(signs[rule].cast(pl.Int8).alias(rule) for rule in rules)
        return added.drop("stretch").collect(engine="in-memory")

    states = None if quotes is None else reading(quotes, "best_bid", "best_ask")
    return each_group(metric, trades, states, incidents=incidents)


def _tick_rule() -> pl.Expr:
    """The last change that was not zero, in one group; a zero at the start of a stretch ends what is carried."""
    change = (_PRICE - neighbour(_PRICE, ["stretch"])).sign()
    carried = pl.when(change.is_null()).then(0.0).when(change != 0).then(change).forward_fill()
    return pl.when(carried != 0).then(carried)


def _signs(tick: pl.Expr) -> dict[Rule, pl.Expr]:
    """Each rule as an expression; `tick` is the tick rule within its group."""
    quoted = asof.two_sided()
    mid, spread = (_BID + _ASK) / 2, _ASK - _BID
    quote = pl.when(quoted & (mid != _PRICE)).then((_PRICE - mid).sign())
    at_ask, at_bid = _PRICE == _ASK, _PRICE == _BID
    near_ask = _PRICE.is_between(_ASK - 0.3 * spread, _ASK)
    near_bid = _PRICE.is_between(_BID, _BID + 0.3 * spread)
    return {
        "tick": tick,
        "quote": quote,
        "lee_ready": pl.coalesce(quote, tick),
        "emo": pl.when(quoted & (at_ask != at_bid)).then(pl.when(at_ask).then(1).otherwise(-1)).otherwise(tick),
        "clnv": pl.when(quoted & (near_ask != near_bid)).then(pl.when(near_ask).then(1).otherwise(-1)).otherwise(tick),
    }


def agreement(trades: Frame, *, rules: Sequence[str] = get_args(Rule)) -> Frame:
    """How often each rule gives a trade the side that the feed reports.

    Chakrabarty, Pascual and Shkilko (2015), "Evaluating Trade Classification Algorithms: Bulk Volume Classification
    versus the Tick Rule and the Lee-Ready Algorithm", Journal of Financial Markets 25.

    Args:
        trades: Trades with `side`, `volume` and a column of signs for each rule, from `classify`.
        rules: The columns to judge.

    Returns:
        Key columns, `rule`, `classified` (the share, of the trades whose side is known, that the rule gave a sign),
        `agreement` (of those, the share with the feed's side), `volume_agreement` (the same by lots), `buy_agreement`
        and `sell_agreement` (the same among the feed's buys and sells), `n` (trades that both know).
    """
    keys: list[str] = key_columns(trades)
    known = trades.lazy().with_columns(_side=trade_sign()).filter(pl.col("_side").is_not_null())
    side, volume = pl.col("_side"), pl.col("volume")
    judged = []
    for rule in rules:
        sign = pl.col(rule)
        agrees, given = sign == side, sign.is_not_null()
        summary = by_group(
            known,
            classified=given.mean(),
            agreement=agrees.mean(),
            volume_agreement=pl.when(given.any()).then(volume.filter(agrees).sum() / volume.filter(given).sum()),
            buy_agreement=agrees.filter(side == 1).mean(),
            sell_agreement=agrees.filter(side == -1).mean(),
            n=given.sum().cast(pl.Int64),
        )
        judged.append(summary.with_columns(rule=pl.lit(rule)).select(*keys, "rule", pl.exclude(*keys, "rule")))
    together = pl.concat(judged)
    return alike(together.sort(keys, maintain_order=True) if keys else together, trades)


def bulk_buy_volume(
    price: Column = "close",
    volume: Column = "volume",
    *,
    window: int | None = 50,
    degrees_of_freedom: float | None = None,
) -> pl.Expr:
    """The share of each bar's volume that its change of price says was bought: V F(dp / s).

    Easley, López de Prado and O'Hara (2016), "Discerning Information from Trade Data", Journal of Financial Economics
    120; in VPIN, the same authors (2012), Review of Financial Studies 25.

    Args:
        price: The last price of each bar, in order of time.
        volume: Its volume (lots).
        window: s is the sample deviation of the last so many changes, this one included, and null before there are as
            many (mlfinlab takes 20). None: of all changes, as in the papers, which looks ahead.
        degrees_of_freedom: Of Student's t, whose distribution F is (0.25 in the paper of 2016); None: the normal.

    Returns:
        Bought lots, a fraction; half where the price did not move; null for the first bar.
    """
    change = column(price).diff()
    deviation = change.std() if window is None else change.rolling_std(window)
    score = pl.when(change == 0).then(pl.when(deviation.is_not_null()).then(0.0)).otherwise(change / deviation)

    def distribution(scores: pl.Series) -> pl.Series:
        values = scores.to_numpy()
        shares = special.ndtr(values) if degrees_of_freedom is None else special.stdtr(degrees_of_freedom, values)
        return pl.Series(shares, nan_to_null=True)

    return (column(volume) * score.map_batches(distribution, return_dtype=pl.Float64)).alias("buy_volume")


def bulk_agreement(bars: Frame, estimate: Column) -> Frame:
    """How much of the volume a bulk classification puts on the side where the feed has it.

    sum [min(Vb', Vb) + min(V - Vb', Vs)] / sum (Vb + Vs), with ' for the estimate; see `bulk_buy_volume`.

    Args:
        bars: Bars with `volume`, `buy_volume`, `sell_volume`.
        estimate: The lots that were estimated to be bought; bars where it is null are left out.

    Returns:
        Key columns, `agreement`, `n` (bars).
    """
    bought = column(estimate)
    right = pl.min_horizontal(bought, "buy_volume") + pl.min_horizontal(pl.col("volume") - bought, "sell_volume")
    known = (pl.col("buy_volume") + pl.col("sell_volume")).filter(bought.is_not_null()).sum()
    share = pl.when(known > 0).then(right.filter(bought.is_not_null()).sum() / known)
    return by_group(bars, agreement=share, n=bought.count().cast(pl.Int64))
