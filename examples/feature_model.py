"""From a feature frame to a small model, judged as if it had been used: fitted on the past, scored on what came after.

    python examples/feature_model.py LAKE      all sessions of a lake, in their order
    python examples/feature_model.py           synthetic days

Ridge regression of the mid's next return on order flow and book features. What makes the judgement honest:

- each fit knows earlier days only, and so do the means and deviations that features are scaled by;
- within the training days, the penalty is chosen on their last day, never on the day that is scored;
- R² is against a forecast of zero, and its error comes from whole days, as returns within a day are not independent;
- the profit of trading on it is given after the spread, which it has to pay.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

import mdcapture as md
from mdcapture.demo import START_NS, synthesize
from mdcapture.live.features import walk_forward

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

FEATURES = ["quoted_spread", "delta", "order_flow_imbalance", "queue_imbalance"]
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
DAY_NS = 86_400_000_000_000


class Score(NamedTuple):
    """How a day was foretold: R² against zero, and the return of trading on it, before and after the spread (bps)."""

    session_id: str
    r_squared: float
    gross_bps: float
    net_bps: float


def frames(lake: md.Lake, every: str, horizon: str) -> pl.DataFrame:
    """Features and label of each session of one contract, rows with something missing left out."""
    made = [one.features(every=every, metrics=["mid", *FEATURES], labels=[horizon]) for one in lake.sessions()]
    return pl.concat(made).drop_nulls()


def fit(x: Array, y: Array, penalty: float) -> Array:
    """Ridge regression without a constant: the coefficients."""
    return np.asarray(np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y), np.float64)


def r_squared(y: Array, forecast: Array) -> float:
    """The share of the squared returns that the forecast explains; below 0 it is worse than silence."""
    return float(1 - np.sum((y - forecast) ** 2) / np.sum(y**2))


def score(past: pl.DataFrame, day: pl.DataFrame, label: str) -> Score:
    """Fit on the past, score on the day."""
    centre, spread = past[FEATURES].mean().to_numpy(), past[FEATURES].std().to_numpy()

    def scaled(frame: pl.DataFrame) -> tuple[Array, Array]:
        return (frame[FEATURES].to_numpy() - centre) / np.where(spread > 0, spread, 1), frame[label].to_numpy()

    last = pl.col("session_id") == past["session_id"][-1]
    early, late = scaled(past.filter(~last)), scaled(past.filter(last))
    penalty = max(PENALTIES, key=lambda one: r_squared(late[1], late[0] @ fit(*early, one)))
    x, y = scaled(day)
    forecast = x @ fit(*scaled(past), penalty)
    gross = np.sign(forecast) * y
    half_spread = (day["quoted_spread"] / day["mid"] / 2).to_numpy()
    net = gross - 2 * half_spread  # in and out again
    return Score(day["session_id"][0], r_squared(y, forecast), 1e4 * gross.mean(), 1e4 * net.mean())


def judge(lake: md.Lake, every: str = "1s", horizon: str = "5s", train: int = 2) -> pl.DataFrame:
    """Every day that has enough days before it, foretold from those."""
    data = frames(lake, every, horizon)
    label = next(name for name in data.columns if name.endswith(horizon))
    return pl.DataFrame([score(past, day, label) for past, day in walk_forward(data, train=train)])


def main() -> None:
    """Judge the model on the lake that is named, or on synthetic days."""
    if len(sys.argv) > 1:
        result = judge(md.open_lake(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            for day in range(4):
                synthesize(Path(folder), duration_s=600, contracts=["MNQ"], seed=day, start_ns=START_NS + day * DAY_NS)
            result = judge(md.open_lake(folder))
    if result.is_empty():
        sys.exit("a day is foretold from the two before it, and there are no three here: capture more")
    print(result)
    days = result["r_squared"].to_numpy()
    error = days.std(ddof=1) / len(days) ** 0.5 if len(days) > 1 else float("nan")
    print(f"R² out of sample: {days.mean():.4f} ± {error:.4f} over {len(days)} days")


if __name__ == "__main__":
    main()
