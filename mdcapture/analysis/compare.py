"""Sessions side by side and over time: a figure of each, of each day of the week, before and after a date.

Every figure of an analysis is a value with a time. `history` puts those of many analyses below each other, with the
trading day that they belong to; `compare` takes their means in groups (sessions, days of the week, before and after),
and says how sure their differences are: values drawn again at random, in blocks of neighbours so that their dependence
stays, show how much a difference may owe to chance. Intervals that a session's start or end cuts off are left out: they
hold less of everything, and what they do hold is of fewer rows.

Künsch (1989), "The jackknife and the bootstrap for general stationary observations", Annals of Statistics.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import polars as pl

from mdcapture.analysis.catalogue import METRICS
from mdcapture.analysis.hours import EXCHANGE_ZONE, moment_ns
from mdcapture.analysis.result import counted
from mdcapture.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from mdcapture.analysis.hours import Moment
    from mdcapture.analysis.result import Analysis

__all__ = ["By", "comparable", "compare", "history", "lacking", "remarks", "trading_day"]

By = Literal["session", "weekday", "split"]
"""What is compared: sessions, days of the week, or what was before a time and what was after it."""

_DRAWS: Final = 2000
_FEWEST: Final = 4
"""With fewer values a bootstrap has nothing to draw from."""

_ROLL: Final = "7h"
"""A trading day begins so long before midnight in Chicago."""

_WHOLE: Final = 0.99
"""An interval of at least this part of the longest one is whole: a session begins with its first message."""

_TOTALS: Final = [name for name, metric in METRICS.items() if metric.total]
_ONLY_CUT_OFF: Final = "a part has only intervals that are cut off, whose totals are less than those of whole ones"

_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


_SCHEMA: Final = {
    **dict.fromkeys(("contract", "group", "metric", "unit", "a", "b"), pl.String),
    **dict.fromkeys(("mean_a", "mean_b", "difference", "low", "high"), pl.Float64),
    **dict.fromkeys(("n_a", "n_b"), pl.Int64),
    **dict.fromkeys(("p10_a", "median_a", "p90_a", "p10_b", "median_b", "p90_b"), pl.Float64),
    **dict.fromkeys(("left_out_a", "left_out_b"), pl.Int64),
    "note": pl.String,
}


def trading_day(column: str) -> pl.Expr:
    """The date of the trading day that a time (ns UTC) is in: from 17:00 in Chicago on it is the next one."""
    time = pl.from_epoch(pl.col(column), time_unit="ns").dt.replace_time_zone("UTC")
    return time.dt.convert_time_zone(EXCHANGE_ZONE).dt.replace_time_zone(None).dt.offset_by(_ROLL).dt.date()


def history(analyses: Sequence[Analysis], metrics: Sequence[str] = ()) -> pl.DataFrame:
    """The figures of many analyses, each with the trading day that it is of.

    Args:
        analyses: Of sessions or of intervals of them.
        metrics: These alone; without them, all.

    Returns:
        `contract` (the root, `MNQ`, by which months of a contract follow each other), `contract_id`, `session_id`,
        `day`, `weekday`, `start_ns`, `end_ns`, `group`, `metric`, `value`, `error`, `unit`, `n`, by contract, metric
        and time; figures that could not be had, and those of pairs, are not there.

    Raises:
        UsageError: There is no such metric.
        NotFoundError: None of the analyses has a figure of it.
    """
    chosen = [one.only(metrics) if metrics else one for one in analyses]
    root = pl.col("contract_id").str.split(".").list.get(-2, null_on_oob=True).fill_null(pl.col("contract_id"))
    figures = pl.concat([one.figures for one in chosen], how="vertical_relaxed") if chosen else None
    alone = None if figures is None else figures.filter(pl.col("other_id").is_null() & pl.col("value").is_not_null())
    if alone is None or alone.is_empty():
        raise NotFoundError("none of these sessions has such a figure: `analyze` says why")
    place = pl.col("metric").replace_strict({name: place for place, name in enumerate(METRICS)}, return_dtype=pl.Int64)
    return (
        alone.with_columns(contract=root, day=trading_day("start_ns"))
        .with_columns(weekday=pl.col("day").dt.weekday().replace_strict(dict(enumerate(_WEEKDAYS, 1))))
        .sort("contract", place, "start_ns", "contract_id")
        .select(
            *("contract", "contract_id", "session_id", "day", "weekday", "start_ns", "end_ns"),
            *("group", "metric", "value", "error", "unit", "n"),
        )
    )


def comparable(analyses: Sequence[Analysis], by: By = "session", split: Moment | None = None) -> pl.DataFrame:
    """The intervals that `compare` takes, part by part in their order.

    Args:
        analyses: Of intervals; those of one session twice are two.
        by: Each session, each day of the week (of the trading day), or before and after.
        split: The time that divides before from after.

    Returns:
        What `history` has, `part` (what a figure is compared as) and `left_out` (how many intervals that a session's
        start or end cuts off are not here). Where a part of a contract has no whole interval, those that are cut off
        are here, and the values of totals are null.

    Raises:
        UsageError: `split` is missing or not wanted, or there are fewer than two parts.
        NotFoundError: There are no figures.
    """
    rows = _parted(_in_order(analyses), by, split)
    span_ns, of_part = pl.col("end_ns") - pl.col("start_ns"), ["contract", "part"]
    start = pl.struct("session_id", "start_ns")
    cut_off = span_ns < _WHOLE * span_ns.max().over("contract")
    judged = rows.with_columns(cut_off=cut_off).with_columns(hopeless=pl.col("cut_off").all().over(of_part))
    left_out = start.filter(pl.col("cut_off") & ~pl.col("hopeless")).n_unique().over(of_part)
    less = pl.col("hopeless") & pl.col("metric").is_in(_TOTALS)
    kept = judged.with_columns(left_out=left_out, value=pl.when(~less).then("value"))
    return kept.filter(pl.col("hopeless") | ~pl.col("cut_off")).drop("cut_off", "hopeless")


def _parted(figures: pl.DataFrame, by: By, split: Moment | None) -> pl.DataFrame:
    """Add `part`, and put the parts in their order.

    Raises:
        UsageError: `split` is missing or not wanted, or there are fewer than two parts.
    """
    if (by == "split") != (split is not None):
        raise UsageError("before and after are told by a time, and a time by nothing else: give both or none")
    if split is not None:
        at_ns = moment_ns(split)
        late = pl.col("start_ns") >= at_ns
        rows = figures.with_columns(part=pl.when(late).then(pl.lit("after")).otherwise(pl.lit("before")), _order=late)
    elif by == "weekday":
        rows = figures.with_columns(part="weekday", _order=pl.col("day").dt.weekday())
    else:
        rows = figures.with_columns(part="session_id", _order=pl.lit(0))
    if rows["part"].n_unique() < 2:  # noqa: PLR2004  # one has nothing to be compared with
        found = ", ".join(rows["part"].unique())
        raise UsageError(
            f"a comparison needs two parts, and here is one ({found}): take more sessions or another split"
        )
    return rows.sort("_order", maintain_order=True).drop("_order")


def compare(
    analyses: Sequence[Analysis],
    *,
    by: By = "session",
    split: Moment | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> pl.DataFrame:
    """Compare the first part with each of the others, metric by metric.

    Args:
        analyses: Of intervals of one length (`every`). Contracts are compared by their root, so that the March contract
            of one session meets the June contract of another.
        by: What the parts are: sessions in the order that they are given in, days of the week from Monday on, or what
            was before a time and what was after it.
        split: That time.
        confidence: Of the bootstrap intervals, between 0 and 1.
        seed: Of the random numbers: equal seeds give equal results.

    Returns:
        `contract` (the root), `group`, `metric`, `unit`, `a`, `b` (the parts), `mean_a`, `mean_b` (over intervals),
        `difference` (b less a), `low` and `high` (its bootstrap interval; null with fewer than four intervals), `n_a`
        and `n_b` (intervals), `p10`, `median` and `p90` of either part's intervals (`p10_a`, …), `left_out_a` and
        `left_out_b` (intervals that a session's start or end cuts off, which are in none of these) and `note`, for each
        metric that both have. A part that has none but such intervals is compared by them, except for totals: those
        have no numbers, and the note says why.

    Raises:
        UsageError: There are no two parts, the analyses have no intervals or different ones, or the confidence is none.
        NotFoundError: The parts have no contract in common.
    """
    if len({one.every_ns for one in analyses}) > 1 or any(one.every_ns is None for one in analyses):
        raise UsageError("sessions are compared by intervals of one length: analyze each with the same every=")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence lies between 0 and 1, not at {confidence}")
    rows = comparable(analyses, by, split)
    keys = ["contract", "metric", "part"]
    values = rows.partition_by(keys, as_dict=True)
    first, *others = rows["part"].unique(maintain_order=True)
    compared = [
        _compared((contract, metric), (first, other), values, confidence, seed)
        for other, (contract, metric) in product(others, rows.select(keys[:2]).unique(maintain_order=True).rows())
        if (contract, metric, first) in values and (contract, metric, other) in values
    ]
    if not compared:
        raise NotFoundError("these sessions have no contract in common")
    return pl.DataFrame(compared, _SCHEMA)


def remarks(compared: pl.DataFrame) -> Iterator[str]:
    """What a reader of a comparison must know of intervals that are cut off, in words."""
    sides = [compared.select("contract", "metric", "note", part=one, left_out=f"left_out_{one}") for one in ("a", "b")]
    parts = pl.concat(sides).unique(["contract", "part"])
    left_out = int(parts["left_out"].sum())
    if left_out:
        yield f"{counted(left_out, 'interval')} that a session's start or end cuts off: left out"
    totals = compared.drop_nulls("note")
    if totals.height:
        names = ", ".join(totals["metric"].unique(maintain_order=True))
        yield f"not compared: {names}: {_ONLY_CUT_OFF}; shorter intervals may help"


def lacking(analyses: Sequence[Analysis], metrics: Sequence[str]) -> Iterator[str]:
    """Which sessions and contracts have no figure of these metrics, and why, in words."""
    for one in analyses:
        for row in one.only(metrics).listed():
            if not row["value"]:
                yield f"{row['session_id']}, {row['contract']}: no {row['metric']}: {row['note']}"


def _in_order(analyses: Sequence[Analysis]) -> pl.DataFrame:
    """Their history, by the order that they are given in, the same one twice as two."""
    parts = [history([one]) for one in analyses]
    names: dict[str, int] = {}
    for place, part in enumerate(parts):
        name = part["session_id"][0]
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:
            parts[place] = part.with_columns(session_id=pl.lit(f"{name} ({names[name]})"))
    return pl.concat(parts)


def _compared(
    what: tuple[str, str],
    parts: tuple[str, str],
    values: dict[tuple[Any, ...], pl.DataFrame],
    confidence: float,
    seed: int,
) -> dict[str, object]:
    contract, name = what
    a, b = (values[contract, name, part] for part in parts)
    row = {
        "contract": contract,
        "group": METRICS[name].group,
        "metric": name,
        "unit": METRICS[name].unit,
        "a": parts[0],
        "b": parts[1],
        "n_a": a.height,
        "n_b": b.height,
        "left_out_a": a["left_out"][0],
        "left_out_b": b["left_out"][0],
    }
    if a["value"].has_nulls() or b["value"].has_nulls():
        return row | {"note": _ONLY_CUT_OFF}
    of_a, of_b = a["value"].to_numpy(), b["value"].to_numpy()
    low, high = _interval(of_a, of_b, confidence, np.random.default_rng(seed))
    means = {"mean_a": float(of_a.mean()), "mean_b": float(of_b.mean())}
    quantiles = {
        f"{label}_{side}": float(np.quantile(values, level))
        for side, values in (("a", of_a), ("b", of_b))
        for label, level in (("p10", 0.1), ("median", 0.5), ("p90", 0.9))
    }
    return row | means | {"difference": means["mean_b"] - means["mean_a"], "low": low, "high": high} | quantiles


def _interval(
    a: NDArray[np.float64], b: NDArray[np.float64], confidence: float, random: np.random.Generator
) -> tuple[float | None, float | None]:
    if min(len(a), len(b)) < _FEWEST:
        return None, None
    differences = _means(b, random) - _means(a, random)
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return float(low), float(high)


def _means(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Means of samples drawn in blocks of about the third root of their number, which wrap around the end."""
    n = len(values)
    block = max(1, round(n ** (1 / 3)))
    starts = random.integers(0, n, (_DRAWS, -(-n // block)))
    places = (starts[:, :, None] + np.arange(block)).reshape(_DRAWS, -1)[:, :n] % n
    return np.asarray(values[places].mean(axis=1))
