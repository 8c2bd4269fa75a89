"""How contracts move together: the figures of each pair, from the extracts of all contracts of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from mdcapture.analysis.extract import SECOND_NS
from mdcapture.metrics.correlation import (
    epps_curve,
    hayashi_yoshida,
    kernel_covariances,
    lead_lag,
    lead_lag_ratio,
    realized_covariances,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mdcapture.analysis.extract import Extract

__all__ = ["Together", "pair_figures", "together"]

_MATCHED: Final = 400_000
"""Tick by tick so many quotes are compared, spread over the session where it has more."""

_LAGS_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_PAIR: Final = ("session_id", "contract_x", "contract_y")


class Together(NamedTuple):
    """The mids of several contracts, tick by tick and on the grid of `extract`, and when they can be missing."""

    ticks: pl.DataFrame
    grid: pl.DataFrame
    gaps: pl.DataFrame | None
    thinned_gaps: pl.DataFrame | None

    def leads(self) -> pl.DataFrame:
        """The correlation of each pair by lag (see `correlation.lead_lag`), up to a second both ways."""
        lags_ns = [1_000_000 * lag_ms for lag_ms in _LAGS_MS]
        both = [-lag_ns for lag_ns in reversed(lags_ns)] + [0] + lags_ns
        return lead_lag(self.ticks, lags_ns=both, incidents=self.thinned_gaps)

    def epps(self, intervals_ns: Sequence[int]) -> pl.DataFrame:
        """The correlation of each pair by interval (see `correlation.epps_curve`)."""
        return epps_curve(self.grid, intervals_ns=intervals_ns, incidents=self.gaps)


def together(extracts: Sequence[Extract]) -> Together:
    """Put the mids of contracts side by side."""
    total = sum(x.quotes.height for x in extracts)
    few = [x.thinned(_MATCHED / max(1, total)) for x in extracts]
    return Together(
        ticks=_named([(x, x.quotes.select("session_id", "recv_ns", "mid")) for x in few]),
        grid=_named([(x, x.grid.select("session_id", "recv_ns", "mid")) for x in extracts]),
        gaps=_gaps(extracts),
        thinned_gaps=_gaps(few),
    )


def _named(frames: Sequence[tuple[Extract, pl.DataFrame]]) -> pl.DataFrame:
    return pl.concat(frame.with_columns(contract_id=pl.lit(x.contract.contract_id)) for x, frame in frames)


def _gaps(extracts: Sequence[Extract]) -> pl.DataFrame | None:
    gaps = [(x, gaps) for x in extracts if (gaps := x.gaps("quotes")) is not None]
    return _named(gaps) if gaps else None


def pair_figures(mids: Together) -> Iterator[pl.DataFrame]:
    """Wide rows (see `figures`) of each pair of contracts, with `contract_x` and `contract_y` beside `session_id`."""
    every_tick = hayashi_yoshida(mids.ticks, incidents=mids.thinned_gaps)
    number = pl.min_horizontal("n_x", "n_y")
    yield every_tick.select(*_PAIR, n=number, hayashi_yoshida="correlation")
    kernel = kernel_covariances(mids.ticks, incidents=mids.thinned_gaps)
    yield kernel.select(*_PAIR, "n", kernel_correlation="correlation")
    lead = lead_lag_ratio(mids.leads()).join(every_tick, on=_PAIR)
    yield lead.select(*_PAIR, "lead_lag_ratio", n=number, lead_ms=pl.col("lead_ns") / 1e6)
    for name, interval_s in (("correlation_1s", 1), ("correlation_1m", 60)):
        sampled = realized_covariances(mids.grid, interval_ns=interval_s * SECOND_NS, incidents=mids.gaps)
        measured = {name: "correlation", f"{name}_se": "correlation_se"}
        yield sampled.select(*_PAIR, "n", **measured)
