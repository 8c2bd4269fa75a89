"""Sessions side by side and over time: a figure of each, of each day of the week, before and after a date.

Every figure of an analysis is a value with a time. `history` puts those of many analyses below each other, with the
trading day that they belong to; `compare` takes their means in groups (sessions, days of the week, before and after),
and says how sure their differences are: values drawn again at random, in blocks of neighbours so that their dependence
stays, show how much a difference may owe to chance.

Künsch (1989), "The jackknife and the bootstrap for general stationary observations", Annals of Statistics.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import polars as pl

from mdcapture.analysis.catalogue import METRICS
from mdcapture.analysis.hours import EXCHANGE_ZONE, moment_ns
from mdcapture.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mdcapture.analysis.hours import Moment
    from mdcapture.analysis.result import Analysis

__all__ = ["By", "compare", "grouped", "history", "trading_day"]

By = Literal["session", "weekday", "split"]
"""What is compared: sessions, days of the week, or what was before a time and what was after it."""

_DRAWS: Final = 2000
_FEWEST: Final = 4
"""With fewer values a bootstrap has nothing to draw from."""

_ROLL: Final = "7h"
"""A trading day begins so long before midnight in Chicago."""

_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


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


def grouped(figures: pl.DataFrame, by: By = "session", split: Moment | None = None) -> pl.DataFrame:
    """Add `part`, what a figure is compared as, and put the parts in their order.

    Args:
        figures: From `history`.
        by: Each session, each day of the week (of the trading day), or before and after.
        split: The time that divides before from after.

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
        and `n_b` (intervals), and `p10`, `median` and `p90` of either part's intervals (`p10_a`, …), for each metric
        that both have.

    Raises:
        UsageError: There are no two parts, the analyses have no intervals or different ones, or the confidence is none.
        NotFoundError: The parts have no contract in common.
    """
    if len({one.every_ns for one in analyses}) > 1 or any(one.every_ns is None for one in analyses):
        raise UsageError("sessions are compared by intervals of one length: analyze each with the same every=")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence lies between 0 and 1, not at {confidence}")
    rows = grouped(_in_order(analyses), by, split)
    keys = ["contract", "metric", "part"]
    values = {key: part["value"].to_numpy() for key, part in rows.partition_by(keys, as_dict=True).items()}
    first, *others = rows["part"].unique(maintain_order=True)
    compared = [
        _compared((contract, metric), (first, other), values, confidence, seed)
        for other, (contract, metric) in product(others, rows.select(keys[:2]).unique(maintain_order=True).rows())
        if (contract, metric, first) in values and (contract, metric, other) in values
    ]
    if not compared:
        raise NotFoundError("these sessions have no contract in common")
    return pl.DataFrame(compared, infer_schema_length=None)


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
    values: dict[tuple[Any, ...], NDArray[np.float64]],
    confidence: float,
    seed: int,
) -> dict[str, object]:
    contract, name = what
    of_a, of_b = (values[contract, name, part] for part in parts)
    low, high = _interval(of_a, of_b, confidence, np.random.default_rng(seed))
    mean_a, mean_b = float(of_a.mean()), float(of_b.mean())
    quantiles = {
        f"{label}_{side}": float(np.quantile(of_one, level))
        for side, of_one in (("a", of_a), ("b", of_b))
        for label, level in (("p10", 0.1), ("median", 0.5), ("p90", 0.9))
    }
    return {
        "contract": contract,
        "group": METRICS[name].group,
        "metric": name,
        "unit": METRICS[name].unit,
        "a": parts[0],
        "b": parts[1],
        "mean_a": mean_a,
        "mean_b": mean_b,
        "difference": mean_b - mean_a,
        "low": low,
        "high": high,
        "n_a": len(of_a),
        "n_b": len(of_b),
    } | quantiles


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
