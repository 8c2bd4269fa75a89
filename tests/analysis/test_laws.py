"""Fitted tails: near the law that the sizes are of, and sound where no lognormal fits."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mdcapture.analysis.laws import fitted_tails
from mdcapture.metrics.distribution import size_histogram
from mdcapture.metrics.tails import PowerLaw


def histogram(sizes: list[int]) -> pl.DataFrame:
    return size_histogram(pl.LazyFrame({"contract_id": ["ES"] * len(sizes), "volume": sizes})).collect()


def power_law(alpha: float, xmin: int = 1) -> PowerLaw:
    return PowerLaw(alpha=alpha, alpha_se=0.1, xmin=xmin, ks=0.1, n_tail=100, n=100)


def test_the_tail_of_a_lognormal_is_found_again():
    law = stats.lognorm(s=1.2, scale=np.exp(2.0))
    drawn = np.round(law.rvs(200_000, random_state=5))
    sizes = drawn[drawn >= 1].astype(int).tolist()
    tails = fitted_tails(histogram(sizes), power_law(2.0)).filter(law="lognormal")
    tails = tails.filter(pl.col("volume") < 200)
    expected = law.sf(tails["volume"].to_numpy() - 0.5) / law.sf(0.5)
    assert tails["tail"].to_numpy() == pytest.approx(expected, rel=0.05)


@given(
    sizes=st.lists(st.one_of(st.integers(1, 40), st.integers(1, 10**9)), min_size=2, max_size=60),
    alpha=st.floats(1.1, 8),
)
def test_any_sizes_have_tails_that_fall_from_their_share_to_zero(sizes: list[int], alpha: float):
    tails = fitted_tails(histogram(sizes), power_law(alpha, min(sizes)))
    for law in tails["law"].unique():
        tail = tails.filter(law=law)["tail"].to_numpy()
        assert np.all(np.isfinite(tail))
        assert tail[0] == pytest.approx(1.0)
        assert np.all(np.diff(tail) <= 1e-12)
