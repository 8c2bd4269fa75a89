"""Variance under microstructure noise: what is left of a price's variance once bid-ask bounce and ticks are taken out.

Returns at the highest frequency flow in, the variance of the efficient price over the whole period (squared log points)
flows out. The estimators need neighbours at many lags, so they take one array of returns each; `noise_measures` applies
them to every group of a frame, and `signature` shows why they are needed.

The price seen is the efficient price plus noise of variance `omega^2`, so realized variance grows by `2 n omega^2`. The
bandwidth rules all depend on one ratio, `xi^2 = omega^2 / sqrt(integrated quarticity)`, see `noise_to_signal`.

A return that is missing (null or NaN) is a gap: it is taken out, and what lies before and after it is joined as if
the price had stood still.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from mdcapture.errors import UsageError
from mdcapture.metrics.frames import Column, alike, column, groups, key_columns
from mdcapture.metrics.volatility import realized_measures, realized_variance, sampled_returns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mdcapture.metrics.frames import Frame

__all__ = [
    "KERNELS",
    "Floats",
    "Kernel",
    "Returns",
    "kernel_bandwidth",
    "noise_measures",
    "noise_to_signal",
    "noise_variance",
    "pre_averaged_variance",
    "realized_kernel",
    "signature",
    "subsampled_variance",
    "two_scale_variance",
]

Floats = NDArray[np.float64]

Returns = Floats | pl.Series
"""Log returns of one series in order of time; missing ones are gaps."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A weight function on [0, 1] with its constants in the optimal bandwidth.

    Attributes:
        weight: k(x), with k(0) = 1.
        flat_scale: c in `H = c (xi^2 n)^flat_rate`, the rule with flat top.
        flat_rate: 1/2 for kernels with k'(0) = k'(1) = 0, otherwise 2/3.
        positive_scale: c in `H = c xi^(4/5) n^(3/5)`, the rule without flat top; None where it does not hold.
    """

    weight: Callable[[Floats], Floats]
    flat_scale: float
    flat_rate: float
    positive_scale: float | None = None


def _parzen(x: Floats) -> Floats:
    return np.where(x <= 0.5, 1 - 6 * x**2 + 6 * x**3, 2 * (1 - x) ** 3)


KERNELS = {
    "bartlett": Kernel(lambda x: 1 - x, 2.2894, 2 / 3),
    "second_order": Kernel(lambda x: (1 - x) ** 2, 3.4200, 2 / 3),
    "epanechnikov": Kernel(lambda x: 1 - x**2, 2.4662, 2 / 3),
    "cubic": Kernel(lambda x: 1 - 3 * x**2 + 2 * x**3, 3.6868, 1 / 2, 2.4962),
    "fifth_order": Kernel(lambda x: 1 - 10 * x**3 + 15 * x**4 - 6 * x**5, 3.9585, 1 / 2),
    "sixth_order": Kernel(lambda x: 1 - 15 * x**4 + 24 * x**5 - 10 * x**6, 3.9761, 1 / 2),
    "seventh_order": Kernel(lambda x: 1 - 21 * x**5 + 35 * x**6 - 15 * x**7, 4.1199, 1 / 2),
    "eighth_order": Kernel(lambda x: 1 - 28 * x**6 + 48 * x**7 - 21 * x**8, 4.3133, 1 / 2),
    "parzen": Kernel(_parzen, 4.7775, 1 / 2, 3.5134),
    "tukey_hanning": Kernel(lambda x: np.sin(np.pi / 2 * (1 - x)) ** 2, 3.7002, 1 / 2, 2.3041),
    "modified_tukey_hanning": Kernel(lambda x: np.sin(np.pi / 2 * (1 - x) ** 2) ** 2, 5.7462, 1 / 2, 4.4692),
    "rectangular": Kernel(np.ones_like, 0.0, 1 / 2),
}
"""Weights of Barndorff-Nielsen, Hansen, Lunde and Shephard (2008); the rectangular one has no bandwidth rule."""


def noise_variance(returns: Column, *, method: Literal["variance", "autocovariance"] = "variance") -> pl.Expr:
    """Variance of the noise in one log price, `omega^2`, as an expression.

    `variance`: `RV / (2 n)`, which also counts the efficient price's variance, little of it at high frequency (Bandi
    and Russell 2008, "Microstructure noise, realized variance, and optimal sampling", Review of Economic Studies).
    `autocovariance`: minus the mean of `r_i r_(i-1)`, free of it, but negative where returns trend (Oomen 2006,
    "Comment" on Hansen and Lunde, Journal of Business and Economic Statistics).

    Args:
        returns: Log returns at the highest frequency.
        method: Which of the two.
    """
    r = column(returns)
    return realized_variance(r) / (2 * r.count()) if method == "variance" else -(r * r.shift()).mean()


def _finite(returns: Returns) -> Floats:
    values = np.asarray(returns, dtype=np.float64)
    return values[np.isfinite(values)]


def _path(returns: Floats) -> Floats:
    """The log price, from zero, one longer than its returns."""
    return np.concatenate([[0.0], np.cumsum(returns)])


def subsampled_variance(returns: Returns, step: int) -> float:
    """Realized variance of every `step`-th price, the mean over all starting points; NaN with fewer returns.

    A grid that starts with the first price has `n/step` returns, the later ones lack a part at either end, so that the
    mean stands for `(n - step + 1)/n` of the period. Noise is in it, but less than in the variance of every tick.

    Zhang, Mykland and Aït-Sahalia (2005), see `two_scale_variance`: their second-best estimator.

    Args:
        returns: Log returns of one series at the highest frequency.
        step: How many prices further the next one is, at least 1.

    Raises:
        UsageError: The step is below 1.
    """
    if step < 1:
        raise UsageError(f"a subgrid needs a step of at least 1, not {step}: nothing was computed")
    r = _finite(returns)
    return float(np.square(_box_sums(r, step)).sum()) / step if r.size >= step else float("nan")


def noise_to_signal(returns: Returns, *, sparse_returns: int = 20) -> float:
    """`xi^2`, the variance of the noise over that of the efficient price, from returns at the highest frequency.

    `omega^2` is `RV / (2 n)` of every tick (the authors': of every q-th, some two minutes apart). The
    integrated variance, which stands for the root of the quarticity, is the realized variance of so few returns that
    noise hardly matters, averaged over all starting points.

    Barndorff-Nielsen, Hansen, Lunde and Shephard (2009), "Realized kernels in practice: trades and quotes",
    Econometrics Journal.

    Args:
        returns: Log returns of one series.
        sparse_returns: How many returns the sparse grid has; 20 make 20-minute returns of a day of 6 1/2 hours.

    Returns:
        NaN where fewer than two sparse returns or no move at all leave nothing to compare.
    """
    r = _finite(returns)
    step = max(r.size // sparse_returns, 1)
    integrated = subsampled_variance(r, step) if r.size > 1 else 0.0
    return float(np.square(r).mean()) / 2 / integrated if integrated > 0 else float("nan")


def kernel_bandwidth(
    returns: Returns, kernel: str = "parzen", *, flat_top: bool = False, xi_squared: float | None = None
) -> int:
    """The number of lags H that makes a realized kernel's variance least.

    `c xi^(4/5) n^(3/5)` without flat top (Barndorff-Nielsen and others 2009, Parzen: c = 3.5134), and with it
    `c (xi^2 n)^(1/2)`, or for kernels that are not smooth at their ends `c (xi^2 n)^(2/3)` (2008); rounded up.

    Args:
        returns: Log returns of one series.
        kernel: A name in `KERNELS`.
        flat_top: For the flat-top form.
        xi_squared: The noise-to-signal ratio; None: `noise_to_signal` of the returns.

    Raises:
        UsageError: The kernel has no such rule: hand in a bandwidth.
    """
    shape = _kernel(kernel)
    scale = shape.flat_scale if flat_top else shape.positive_scale
    if not scale:
        form = "with" if flat_top else "without"
        raise UsageError(f"no bandwidth rule is known for the {kernel} kernel {form} flat top: hand in a bandwidth")
    r = _finite(returns)
    ratio = noise_to_signal(r) if xi_squared is None else xi_squared
    if not np.isfinite(ratio):
        return 0
    lags = scale * (ratio * r.size) ** shape.flat_rate if flat_top else scale * ratio**0.4 * r.size**0.6
    return min(int(np.ceil(lags)), max(r.size - 1, 0))


def _kernel(name: str) -> Kernel:
    if name not in KERNELS:
        raise UsageError(f"no kernel {name!r}: there are {', '.join(KERNELS)}")
    return KERNELS[name]


def _autocovariances(r: Floats, lags: int) -> Floats:
    """Sums of `r_i r_(i-h)` for h = 0 to `lags`, by the power spectrum: n log n however many lags."""
    size = next_fast_len(r.size + lags, real=True)
    spectrum = rfft(r, size)
    return np.asarray(irfft(spectrum.real**2 + spectrum.imag**2, size)[: lags + 1])


def realized_kernel(
    returns: Returns,
    kernel: str = "parzen",
    *,
    bandwidth: int | None = None,
    flat_top: bool = False,
    jitter: int = 1,
    degrees_of_freedom: bool = False,
) -> float:
    """Realized kernel: `gamma_0 + 2 sum_(h=1..H) k(.) gamma_h`, where `gamma_h = sum r_i r_(i-h)`.

    The weights are `k(h / (H + 1))`, which keeps the Parzen kernel from ever being negative (Barndorff-Nielsen, Hansen,
    Lunde and Shephard 2009, "Realized kernels in practice: trades and quotes", Econometrics Journal), or with flat top
    `k((h - 1) / H)`, which converges faster (the same authors 2008, "Designing realized kernels to measure the ex post
    variation of equity prices in the presence of noise", Econometrica; R's highfrequency).

    Args:
        returns: Log returns of one series at the highest frequency.
        kernel: A name in `KERNELS`.
        bandwidth: Number of lags H; None: `kernel_bandwidth`.
        flat_top: Give the first lag the full weight.
        jitter: Replace the first and the last price by the mean of so many prices; 2 is what the paper of 2009 does.
        degrees_of_freedom: Scale each lag's sum by n / (n - h), as R's highfrequency does by default.

    Returns:
        The variance of the efficient price; NaN without returns.

    Raises:
        UsageError: An unknown kernel, a negative bandwidth, a jitter below one.
    """
    if jitter < 1 or (bandwidth is not None and bandwidth < 0):
        raise UsageError(f"a kernel needs a bandwidth of at least 0 and a jitter of at least 1: {bandwidth}, {jitter}")
    shape, r = _kernel(kernel), _finite(returns)
    if r.size == 0:
        return float("nan")
    lags = kernel_bandwidth(r, kernel, flat_top=flat_top) if bandwidth is None else bandwidth
    r = _jittered(r, jitter) if jitter > 1 else r
    h = np.arange(1, min(lags, r.size - 1) + 1, dtype=np.float64)
    weights = shape.weight((h - 1) / lags if flat_top else h / (lags + 1))
    if degrees_of_freedom:
        weights *= r.size / (r.size - h)
    sums = _autocovariances(r, h.size)
    return float(sums[0] + 2 * weights @ sums[1:])


def _jittered(r: Floats, count: int) -> Floats:
    """The returns once the ends of their price are means of `count` prices; unchanged if there are too few."""
    path = _path(r)
    if path.size < 2 * count:
        return r
    ends = path[:count].mean(), path[-count:].mean()
    return np.diff(np.concatenate([[ends[0]], path[count:-count], [ends[1]]]))


def two_scale_variance(
    returns: Returns,
    *,
    slow: int | None = None,
    fast: int = 1,
    counted: Literal["returns", "prices"] = "returns",
    corrected: bool = True,
) -> float:
    """Two-scale realized variance: `(1 - nK/nJ)^-1 [RV_K - (nK/nJ) RV_J]`, `nK = (n - K + 1)/K`.

    `RV_K` is the realized variance of every K-th price, averaged over the K starting points; the fast scale (J = 1:
    every price) measures the noise that is in it.

    Zhang, Mykland and Aït-Sahalia (2005), "A tale of two time scales: determining integrated volatility with noisy
    high-frequency data", Journal of the American Statistical Association.

    Args:
        returns: Log returns of one series at the highest frequency.
        slow: K, in prices; None: the paper's optimum for independent noise, `(12 xi^4)^(1/3) n^(2/3)`, but at least
            the root of n, since real noise lives longer than one tick and a short scale would keep some of it.
        fast: J, in prices.
        counted: What n is; R's highfrequency counts prices.
        corrected: With the factor in front, the paper's small-sample correction.

    Returns:
        The variance of the efficient price, which may come out negative; NaN with too few returns for the slow scale.

    Raises:
        UsageError: The scales are not 1 <= J < K.
    """
    r = _finite(returns)
    if slow is None:
        slow = max(kernel_bandwidth(r, "bartlett", flat_top=True), math.isqrt(r.size), fast + 1)
    if not 1 <= fast < slow:
        raise UsageError(f"two scales need 1 <= fast < slow, not {fast} and {slow}: nothing was computed")
    if r.size < slow:
        return float("nan")
    n = r.size if counted == "returns" else r.size + 1
    ratio = ((n - slow + 1) / slow) / ((n - fast + 1) / fast)
    difference = subsampled_variance(r, slow) - ratio * subsampled_variance(r, fast)
    return difference / (1 - ratio) if corrected else difference


def pre_averaged_variance(
    returns: Returns, *, theta: float = 0.8, window: int | None = None, adjusted: bool = True
) -> float:
    """Pre-averaged variance (modulated realized covariance of one series).

    Overlapping weighted means `rbar_i = sum_(j=1..k-1) g(j/k) r_(i+j)`, `g(x) = min(x, 1 - x)`, `k = theta sqrt n`,
    carry little noise: `n/(n - k + 2) / (psi_2 k) sum rbar_i^2 - psi_1/(2 psi_2 k^2) sum r_i^2`, with the exact
    `psi_1 = k sum (g(j/k) - g((j-1)/k))^2` and `psi_2 = 1/k sum g(j/k)^2` (in the limit 1 and 1/12).

    Jacod, Li, Mykland, Podolskij and Vetter (2009), "Microstructure noise in the continuous case: the pre-averaging
    approach", Stochastic Processes and their Applications; Christensen, Kinnebrock and Podolskij (2010), "Pre-averaging
    estimators of the ex-post covariance matrix in noisy diffusion models with non-synchronous data", Journal of
    Econometrics; theta from Hautsch and Podolskij (2013), "Preaveraging-based estimation of quadratic variation in the
    presence of noise and jumps: theory, implementation, and empirical evidence", Journal of Business and Economic
    Statistics.

    Args:
        returns: Log returns of one series at the highest frequency.
        theta: Sets the window; larger for more noise.
        window: k itself, at least 3.
        adjusted: Divide by `1 - psi_1/(2 psi_2 k^2)`, since the second term takes away that share of the variance too.

    Returns:
        The variance of the efficient price; NaN with fewer returns than the window.

    Raises:
        UsageError: The window is too short, or theta is not positive.
    """
    if theta <= 0 or (window is not None and window < 3):
        raise UsageError(f"pre-averaging needs a positive theta and a window of at least 3: {theta}, {window}")
    r = _finite(returns)
    k = max(int(theta * np.sqrt(r.size)), 3) if window is None else window
    if r.size < k:
        return float("nan")
    ramp = np.arange(k + 1)
    g = np.minimum(ramp, k - ramp) / k
    psi_1, psi_2 = k * np.square(np.diff(g)).sum(), np.square(g).sum() / k
    # a triangle is a box after a box, and a box is a difference of cumulative sums
    means = _box_sums(_box_sums(r, k // 2), k - k // 2) / k
    smooth = r.size / (r.size - k + 2) * np.square(means).sum() / (psi_2 * k)
    share = psi_1 / (2 * psi_2 * k**2)
    noisy = smooth - share * np.square(r).sum()
    return float(noisy / (1 - share) if adjusted else noisy)


def _box_sums(values: Floats, width: int) -> Floats:
    path = _path(values)
    return path[width:] - path[:-width]


def noise_measures(returns: Frame, log_return: str = "log_return") -> Frame:
    """The noise-robust variances of each group's returns, each with its default settings, one row a group.

    Args:
        returns: Rows with log returns at the highest frequency, as `sampled_returns` makes them.
        log_return: The name of their column.

    Returns:
        Key columns, `n` (number of returns), `realized_variance` for comparison, `two_scale_variance`,
        `realized_kernel`, `pre_averaged_variance` (squared log points, null where there are too few returns),
        `noise_variance` (`omega^2`, by the autocovariance), `noise_to_signal` (`xi^2`) and `bandwidth` (Parzen, lags).
    """
    return alike(_noise_table(returns.lazy().with_columns(log_return=pl.col(log_return))), returns)


def _noise_table(returns: pl.LazyFrame) -> pl.LazyFrame:
    given = returns.collect_schema()
    schema = pl.Schema({key: given[key] for key in key_columns(returns)} | dict(_NOISE_SCHEMA))
    rows = [keys | _noise_row(group["log_return"]) for keys, group in groups(returns)]
    return pl.LazyFrame(rows, schema=schema).with_columns(pl.col(pl.Float64).fill_nan(None))


_NOISE_SCHEMA = pl.Schema(
    {
        "n": pl.Int64,
        "realized_variance": pl.Float64,
        "two_scale_variance": pl.Float64,
        "realized_kernel": pl.Float64,
        "pre_averaged_variance": pl.Float64,
        "noise_variance": pl.Float64,
        "noise_to_signal": pl.Float64,
        "bandwidth": pl.Int64,
    }
)


def _noise_row(returns: pl.Series) -> dict[str, object]:
    r = returns.to_frame("r")
    simple = r.select(
        n=pl.col("r").count(),
        realized_variance=realized_variance("r"),
        noise_variance=noise_variance("r", method="autocovariance"),
    )
    values = _finite(returns)
    ratio = noise_to_signal(values)
    bandwidth = kernel_bandwidth(values, xi_squared=ratio)
    return simple.row(0, named=True) | {
        "two_scale_variance": two_scale_variance(values),
        "realized_kernel": realized_kernel(values, bandwidth=bandwidth),
        "pre_averaged_variance": pre_averaged_variance(values),
        "noise_to_signal": ratio,
        "bandwidth": bandwidth,
    }


def signature(
    prices: Frame,
    price: str = "mid",
    *,
    intervals_ns: Sequence[int],
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> Frame:
    """Volatility signature: the realized measures by the interval of sampling, previous tick.

    Without noise the realized variance is the same at every interval; where it rises towards short ones, noise does it.

    Andersen, Bollerslev, Diebold and Labys (2000), "Great realizations", Risk.

    Args:
        prices: Rows with `recv_ns` and the price.
        price: The price's column, see `sampled_returns`.
        intervals_ns: The distances of the grids' points (ns).
        incidents: Gaps, see `sampled_returns`.

    Returns:
        Key columns, `interval_ns`, and the columns of `realized_measures`, a row for each group and interval.
    """
    rows: pl.LazyFrame = prices.lazy()
    keys: list[str] = key_columns(rows)
    if not intervals_ns:
        raise UsageError("a signature needs at least one interval")
    curves = [
        realized_measures(sampled_returns(rows, price, interval_ns=interval_ns, incidents=incidents)).select(
            *keys, pl.lit(interval_ns, pl.Int64).alias("interval_ns"), pl.exclude(keys)
        )
        for interval_ns in intervals_ns
    ]
    return alike(pl.concat(curves).sort([*keys, "interval_ns"]), prices)
