"""Sessions side by side: each figure of both, their difference, and how sure it is.

A session is cut into intervals, and each interval has figures of its own (`Session.analyze(every=…)`). The mean of a
figure over the intervals of one session is compared with that of another; intervals drawn again at random, in blocks of
neighbours so that their dependence stays, say how much the difference may owe to chance.

Künsch (1989), "The jackknife and the bootstrap for general stationary observations", Annals of Statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from mdcapture.analysis.catalogue import METRICS
from mdcapture.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from mdcapture.analysis.result import Analysis

__all__ = ["compare"]

_DRAWS: Final = 2000
_FEWEST: Final = 4
"""With fewer intervals a bootstrap has nothing to draw from."""


def compare(analyses: Sequence[Analysis], *, confidence: float = 0.95, seed: int = 0) -> pl.DataFrame:
    """Compare the first analysis with each of the others, metric by metric.

    Args:
        analyses: At least two, of intervals of one length (`every`). Contracts are compared by their root, so that the
            March contract of one session meets the June contract of another.
        confidence: Of the bootstrap intervals, between 0 and 1.
        seed: Of the random numbers: equal seeds give equal results.

    Returns:
        `contract` (the root), `group`, `metric`, `unit`, `session_a`, `session_b`, `mean_a`, `mean_b` (over intervals),
        `difference` (b less a), `low` and `high` (its bootstrap interval; null with fewer than four intervals), `n_a`
        and `n_b` (intervals), for each metric that both have.

    Raises:
        UsageError: There are fewer than two, they have no intervals or different ones, or the confidence is none.
        NotFoundError: They have no contract in common.
    """
    if len(analyses) < 2:  # noqa: PLR2004  # one has nothing to be compared with
        raise UsageError("a comparison needs two sessions")
    if len({one.every_ns for one in analyses}) > 1 or analyses[0].every_ns is None:
        raise UsageError("sessions are compared by intervals of one length: analyze each with the same every=")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence lies between 0 and 1, not at {confidence}")
    first, *others = ({_key(row): row for row in _series(one).iter_rows(named=True)} for one in analyses)
    rows = [
        _compared(first[key], other[key], confidence, np.random.default_rng(seed))
        for other in others
        for key in first
        if key in other
    ]
    if not rows:
        raise NotFoundError("these sessions have no contract in common")
    return pl.DataFrame(rows, infer_schema_length=None)


def _series(analysis: Analysis) -> pl.DataFrame:
    """A row a contract and metric: its values in the order of intervals."""
    root = pl.col("contract_id").str.split(".").list.get(-2, null_on_oob=True).fill_null(pl.col("contract_id"))
    alone = analysis.figures.filter(pl.col("other_id").is_null() & pl.col("value").is_not_null())
    return alone.group_by(root.alias("contract"), "metric", maintain_order=True).agg(
        pl.col("session_id").first(), pl.col("value")
    )


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["contract"], row["metric"]


def _compared(
    a: Mapping[str, Any], b: Mapping[str, Any], confidence: float, random: np.random.Generator
) -> dict[str, object]:
    metric = METRICS[a["metric"]]
    of_a, of_b = (np.asarray(one["value"], dtype=np.float64) for one in (a, b))
    low, high = _interval(of_a, of_b, confidence, random)
    mean_a, mean_b = float(of_a.mean()), float(of_b.mean())
    return {
        "contract": a["contract"],
        "group": metric.group,
        "metric": a["metric"],
        "unit": metric.unit,
        "session_a": a["session_id"],
        "session_b": b["session_id"],
        "mean_a": mean_a,
        "mean_b": mean_b,
        "difference": mean_b - mean_a,
        "low": low,
        "high": high,
        "n_a": len(of_a),
        "n_b": len(of_b),
    }


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
