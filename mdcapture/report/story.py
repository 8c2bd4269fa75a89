"""A session in words: sentences made of its figures, each left out where its figures are."""

from __future__ import annotations

import string
from html import escape
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mdcapture.analysis.result import counted, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mdcapture.analysis.result import Analysis
    from mdcapture.lake.manifest import Contract

__all__ = ["datum", "story"]

_SENTENCES: Final = """
In {duration_s:time} there came {messages} messages, {messages_per_s} a second; the longest silence was
{longest_silence_s} s.

Data can be missing in {gaps:places}, {gap_s} s together: {coverage:percent} of the time is covered.

It opened at {open}, went as high as {high} and as low as {low}, and closed at {close}.

{volume} lots were traded in {trades} prints, at {vwap} on average; most at {point_of_control}, and seven in ten of them
from {value_area_low} to {value_area_high}.

The spread was {quoted_spread_ticks} ticks wide ({quoted_spread_bps} bps), and one tick for {one_tick:percent} of the
time.

A round trip of market orders paid {effective_spread_bps} bps; within five seconds the mid moved
{price_impact_5s_bps} bps their way, which leaves {realized_spread_5s_bps} bps to those who had quoted.

Buyers took {buy_volume} lots, sellers {sell_volume}: a delta of {delta}, or {imbalance:percent}.

Volatility was {realized_volatility} % a year by returns of a second, and {kernel_volatility} % without noise.

Signed volume explains {kyle_r_squared:percent} of the moves over ten seconds; a lot moved the mid by {kyle_lambda}.

Order flow imbalance at the best prices explains {ofi_r_squared:percent} of them.

At the best price {depth_1} lots were waiting; {round_trip_50_bps} bps is what fifty lots pay, there and back.
""".strip().split("\n\n")
"""Each names the figures that it needs; after a colon, how one is written."""

_HOUR_S: Final = 3600
_MINUTE_S: Final = 60


def story(analysis: Analysis, contract: Contract) -> str:
    """A paragraph of HTML on one contract; each number is a `data` element that names its figure and its value."""
    own = analysis.figures.filter(
        (pl.col("contract_id") == contract.contract_id)
        & pl.col("other_id").is_null()
        & (pl.col("start_ns") == pl.col("start_ns").min())
    )
    figures = {row["metric"]: row for row in own.iter_rows(named=True)}
    return " ".join(filter(None, (_sentence(sentence, figures) for sentence in _SENTENCES)))


def _sentence(sentence: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    parts = list(string.Formatter().parse(sentence))
    named = [name for _, name, _, _ in parts if name]
    if any(figures[name]["value"] is None for name in named) or _needless(named, figures):
        return ""
    return "".join(
        escape(text) + (datum(figures[name], _written(figures[name], form or "")) if name else "")
        for text, name, form, _ in parts
    )


def _needless(named: Sequence[str], figures: Mapping[str, Mapping[str, Any]]) -> bool:
    """Gaps that are not there need no sentence."""
    return "gaps" in named and figures["gaps"]["value"] == 0


def _written(figure: Mapping[str, Any], form: str) -> str:
    value = figure["value"]
    if form == "percent":
        return f"{100 * value:.3g} %"
    if form == "places":
        return counted(round(value), "place")
    if form == "time":
        return " ".join(_clock(value))
    return shown(value, figure["error"])


def _clock(time_s: float) -> Iterator[str]:
    hours, rest = divmod(round(time_s), _HOUR_S)
    minutes, seconds = divmod(rest, _MINUTE_S)
    if hours:
        yield f"{hours} h"
    if hours or minutes:
        yield f"{minutes} min"
    if not hours:
        yield f"{seconds} s"


def datum(figure: Mapping[str, Any], text: str, **names: str | None) -> str:
    """A number of the page, with its exact value and what it is a figure of; `names` say more of that."""
    names |= {"metric": figure["metric"], "contract": figure["contract_id"], "other": figure.get("other_id")}
    about = "".join(f' data-{name}="{escape(value)}"' for name, value in names.items() if value is not None)
    return f'<data value="{figure["value"]!r}"{about}>{escape(text)}</data>'
