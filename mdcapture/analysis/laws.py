"""The tails of laws that are fitted to sizes, as lines beside the sizes themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy import optimize, special, stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mdcapture.metrics.tails import PowerLaw

__all__ = ["fitted_tails"]

_POINTS = 60


def fitted_tails(histogram: pl.DataFrame, fit: PowerLaw) -> pl.DataFrame:
    """The share of trades of at least each size, by a power law and by a lognormal, both fitted to the tail.

    Args:
        histogram: `volume`, `trades`, `tail` of one contract, from `distribution.size_histogram`.
        fit: The power law.

    Returns:
        `volume`, `tail`, `law`, about sixty sizes a law; no row where nothing was fitted.
    """
    tail = histogram.filter(pl.col("volume") >= fit.xmin)
    if tail.height < 2:  # noqa: PLR2004  # one size has no law
        return pl.DataFrame(schema={"volume": pl.Float64, "tail": pl.Float64, "law": pl.String})
    sizes, counts = (tail[name].to_numpy().astype(float) for name in ("volume", "trades"))
    share = float(tail["tail"][0])
    x = np.unique(np.round(np.geomspace(fit.xmin, sizes[-1], _POINTS))).astype(np.float64)
    laws = {
        f"power law, alpha = {fit.alpha:.2f}": special.zeta(fit.alpha, x) / special.zeta(fit.alpha, fit.xmin),
        "lognormal": _lognormal_tail(x, sizes, counts, fit.xmin),
    }
    return pl.concat(
        pl.DataFrame({"volume": x, "tail": share * y}).with_columns(law=pl.lit(law)) for law, y in laws.items()
    )


def _lognormal_tail(
    x: NDArray[np.float64], sizes: NDArray[np.float64], counts: NDArray[np.float64], xmin: float
) -> NDArray[np.float64]:
    """Of a lognormal that is rounded to whole numbers, cut off below `xmin`, and likeliest for these sizes.

    In logarithms throughout: where the tail is rather a power law, the likeliest lognormal has its mean so far below it
    that the shares themselves are zero.
    """

    def log_above(value: NDArray[np.float64] | float, mean: float, sd: float) -> NDArray[np.float64]:
        return np.asarray(stats.norm.logsf((np.log(np.asarray(value) - 0.5) - mean) / sd))

    def unlikelihood(parameters: NDArray[np.float64]) -> float:
        mean, sd = float(parameters[0]), float(np.exp(parameters[1]))
        from_here = log_above(sizes, mean, sd)
        further = np.minimum(log_above(sizes + 1, mean, sd) - from_here, -np.finfo(float).eps)
        return -float(counts @ (from_here + np.log(-np.expm1(further)) - log_above(xmin, mean, sd)))

    logs = np.log(sizes)
    mean = float(np.average(logs, weights=counts))
    sd = float(np.sqrt(np.average((logs - mean) ** 2, weights=counts))) or 1.0
    best = optimize.minimize(unlikelihood, [mean, np.log(sd)], method="Nelder-Mead").x
    fitted = float(best[0]), float(np.exp(best[1]))
    return np.asarray(np.exp(log_above(x, *fitted) - log_above(xmin, *fitted)))
