"""One contract's part of a session, as metrics and charts take it: read once, matched once, sampled once.

    Source ──take──▶ Extract ──▶ figures, pictures
                       │ within(windows): the same of less time, with a gap between two windows
                       └ widths, costs, grid, ticks, orders, books: what several metrics need, made when first asked for

All is of one contract, and the frames have no `contract_id`. Their `session_id` is the interval that a row is in, by
its start: to every metric each interval is a session of its own, and nothing reaches from one into another. Without
intervals, all is one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

import polars as pl

from mdcapture.analysis.hours import Window, thinned
from mdcapture.metrics.asof import with_stretch
from mdcapture.metrics.book import book_snapshots
from mdcapture.metrics.depth import recovery_path, sweeps, swept_depth, widenings
from mdcapture.metrics.distribution import aggressive_orders
from mdcapture.metrics.flow import ofi_bars
from mdcapture.metrics.frames import Frame, each_group, mids, neighbour
from mdcapture.metrics.impact import mid_changes
from mdcapture.metrics.noise import noise_measures
from mdcapture.metrics.spread_models import spread_components
from mdcapture.metrics.spreads import mean_spreads, spread_occupancy, trade_spreads
from mdcapture.metrics.volatility import sampled_returns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mdcapture.lake.manifest import Contract, State
    from mdcapture.metrics.asof import Gaps

__all__ = [
    "FLOW_NS",
    "GRID_NS",
    "HORIZONS_NS",
    "LEAST_MODELLED",
    "LEVELS",
    "MODELLED",
    "RECOVERY_NS",
    "SECOND_NS",
    "WHOLE",
    "Extract",
    "Source",
    "take",
]

SECOND_NS: Final = 1_000_000_000
HORIZONS_NS: Final = (SECOND_NS, 5 * SECOND_NS, 60 * SECOND_NS)
"""How long after a trade its mid is looked at."""

RECOVERY_NS: Final = tuple(
    1_000_000 * time_ms for time_ms in (0, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000)
)
"""When after a shock the book is looked at."""

GRID_NS: Final = 100_000_000
"""The finest grid in calendar time; coarser ones are every so many of its points."""

FLOW_NS: Final = 10 * SECOND_NS
"""The intervals in which flow and moves are compared."""

LEVELS: Final = 10
WHOLE: Final = "whole"
"""The `session_id` of a session without intervals."""

LEAST_MODELLED: Final = 100
MODELLED: Final = 20_000
"""Models of single orders are fitted to so many; they are spread over the session where it has more."""

_TICK_DIGITS: Final = 10


class Source(Protocol):
    """What an analysis reads: `mdcapture.session.Session` is one."""

    @property
    def session_id(self) -> str:
        """Its id."""

    @property
    def status(self) -> State:
        """`open` as long as more may come."""

    @property
    def contracts(self) -> Sequence[Contract]:
        """Its contracts."""

    @property
    def start_ns(self) -> int | None:
        """When the first message was received."""

    @property
    def end_ns(self) -> int | None:
        """When the last message was received."""

    def quotes(self, contract_id: str | None = None) -> pl.LazyFrame:
        """The lake's table, of one contract."""

    def trades(self, contract_id: str | None = None) -> pl.LazyFrame:
        """The lake's table, of one contract."""

    def depth(self, contract_id: str | None = None) -> pl.LazyFrame:
        """The lake's table, of one contract."""

    def messages(self, contract_id: str | None = None) -> pl.LazyFrame:
        """The lake's table, of one contract."""

    def rejects(self, contract_id: str | None = None) -> pl.LazyFrame:
        """The lake's table, of one contract."""

    def gaps(self, contract_id: str | None = None) -> pl.LazyFrame:
        """The times in which messages of one contract can be missing: `stream`, `from_ns`, `to_ns`."""


@dataclass(frozen=True, eq=False)
class Extract:
    """One contract within some windows of time. `take` makes one.

    Attributes:
        contract: The contract.
        windows: The times; at least one.
        every_ns: The length of an interval, if each is to stand for itself.
        quotes: `session_id`, as all that follow, `recv_ns`, `seq`, `best_bid`, `best_ask`, `mid`.
        trades: `recv_ns`, `seq`, `exch_ns`, `price`, `volume`, `side`.
        depth: `recv_ns`, `seq`, `pos`, `dom_type`, `price`, `volume`; read when it is needed.
        messages: `recv_ns`, `seq`; likewise.
        rejects: `recv_ns`, `reason`; likewise.
        noted: The gaps of this contract that the capture noted: `stream`, `from_ns`, `to_ns`.
    """

    contract: Contract
    windows: tuple[Window, ...]
    every_ns: int | None
    quotes: pl.DataFrame
    trades: pl.DataFrame
    depth: pl.LazyFrame
    messages: pl.LazyFrame
    rejects: pl.LazyFrame
    noted: pl.DataFrame

    def within(self, windows: Iterable[Window]) -> Extract:
        """The same of less time."""
        parts = tuple(windows)
        frames = {name: _inside(getattr(self, name), parts) for name in ("quotes", "trades", "depth", "messages")}
        return replace(self, windows=parts, rejects=_inside(self.rejects, parts), **frames)

    def thinned(self, share: float) -> Extract:
        """The same of a share of the time; as it is where that is all, or where intervals stand for themselves."""
        return self if share >= 1 or self.every_ns is not None else self.within(thinned(self.windows, share))

    def gaps(self, *streams: str) -> pl.DataFrame | None:
        """When data of these streams can be missing, as metrics take it; None where nothing is."""
        noted = (
            self.noted.filter(pl.col("stream").is_in(streams)).select("from_ns", "to_ns").unique(maintain_order=True)
        )
        between = [(one.to_ns - 1, two.from_ns) for one, two in zip(self.windows, self.windows[1:], strict=False)]
        gaps = pl.concat([noted, pl.DataFrame(between, noted.schema, orient="row")])
        return None if gaps.is_empty() else gaps

    @cached_property
    def streams(self) -> frozenset[str]:
        """What there are rows of."""
        rows = {
            "quotes": self.quotes.lazy(),
            "trades": self.trades.lazy(),
            "depth": self.depth,
            "messages": self.messages,
        }
        counts = pl.collect_all([frame.select(pl.len()) for frame in rows.values()])
        return frozenset(name for name, count in zip(rows, counts, strict=True) if count.item())

    @property
    def name(self) -> str:
        """What people call the contract."""
        return self.contract.name or self.contract.contract_id

    @cached_property
    def tick_size(self) -> float | None:
        """The contract's tick in price units; where it is not known, the smallest step between two prices seen."""
        if self.contract.tick_size is not None:
            return self.contract.tick_size
        prices = pl.concat([self.trades["price"], self.quotes["best_bid"], self.quotes["best_ask"]])
        steps = prices.drop_nulls().unique().sort().diff().drop_nulls().round(_TICK_DIGITS)
        step = steps.filter(steps > 0).min()
        return step if isinstance(step, float) else None

    @cached_property
    def spans(self) -> pl.DataFrame:
        """The times of each interval: `session_id`, `from_ns`, `to_ns`; a row for each window that it has a part of."""
        windows = pl.DataFrame(self.windows, {"from_ns": pl.Int64, "to_ns": pl.Int64}, orient="row")
        if self.every_ns is None:
            return windows.select(session_id=pl.lit(WHOLE), from_ns="from_ns", to_ns="to_ns")
        first, last = pl.col("from_ns") // self.every_ns * self.every_ns, pl.col("to_ns")
        start = pl.col("start")
        return (
            windows.with_columns(start=pl.int_ranges(first, last, self.every_ns))
            .explode("start")
            .select(
                session_id=start.cast(pl.String),
                from_ns=pl.max_horizontal("from_ns", start),
                to_ns=pl.min_horizontal("to_ns", start + self.every_ns),
            )
        )

    @cached_property
    def ends(self) -> pl.DataFrame:
        """When the data of each interval end: `session_id`, `recv_ns`. Its last quote holds until then."""
        return self.spans.group_by("session_id", maintain_order=True).agg(recv_ns=pl.col("to_ns").max() - 1)

    @cached_property
    def missing(self) -> pl.DataFrame:
        """When data of any stream can be missing: `session_id`, `from_ns`, `to_ns`, in order and apart.

        Gaps of several streams that overlap or touch are one.
        """
        gaps = self.noted.select(begin_ns="from_ns", end_ns="to_ns").sort("begin_ns", "end_ns")
        reached = pl.col("end_ns").cum_max().shift(fill_value=0)
        stretch = (pl.col("begin_ns") > reached).cum_sum().alias("stretch")
        apart = gaps.group_by(stretch, maintain_order=True).agg(pl.col("begin_ns").min(), pl.col("end_ns").max())
        return (
            self.spans.join(apart, how="cross")
            .select(
                "session_id",
                from_ns=pl.max_horizontal("from_ns", "begin_ns"),
                to_ns=pl.min_horizontal("to_ns", "end_ns"),
            )
            .filter(pl.col("from_ns") < pl.col("to_ns"))
        )

    @cached_property
    def width_changes(self) -> pl.DataFrame:
        """The quotes at which the spread's width in ticks changes, and those before and after a gap, or at an end.

        They are few, and as good as all for whatever asks for widths by time. Where the tick is not known, there are
        not two prices, and all widths are nil.
        """
        ticks = ((pl.col("best_ask") - pl.col("best_bid")) / (self.tick_size or 1.0)).round()
        stretch = pl.col("stretch")
        within = (ticks.diff() == 0) & (stretch.diff() == 0) & (stretch == stretch.shift(-1))

        def changes(own: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
            return with_stretch(own.drop("mid"), gaps).filter(~within.fill_null(value=False)).drop("stretch")

        return each_group(changes, self.quotes, incidents=self.gaps("quotes"))

    @cached_property
    def widths(self) -> pl.DataFrame:
        """The share of time that the spread spent at each width, see `spreads.spread_occupancy`."""
        return spread_occupancy(
            self.width_changes, self.tick_size or 1.0, until=self.ends, incidents=self.gaps("quotes")
        )

    @cached_property
    def costs(self) -> pl.DataFrame:
        """Mean spreads and impacts of trades, see `spreads.mean_spreads`, and `effective_spread_lots_bps` beside them.

        In price units and in bps, at `HORIZONS_NS`.
        """
        matched = trade_spreads(
            self.trades, self.quotes, HORIZONS_NS, scales=("price", "bps"), incidents=self.gaps("quotes", "trades")
        )
        by_lots = mean_spreads(matched, ["effective_spread_bps"], weight="volume")
        names = {name: name.replace("spread", "spread_lots") for name in by_lots.columns if name != "session_id"}
        return mean_spreads(matched).join(by_lots.rename(names), on="session_id")

    @cached_property
    def grid(self) -> pl.DataFrame:
        """The mid each `GRID_NS`, previous tick, with `log_return`."""
        return sampled_returns(self.quotes, interval_ns=GRID_NS, incidents=self.gaps("quotes"))

    @cached_property
    def ticks(self) -> pl.DataFrame:
        """Each change of the mid, with `log_return`."""
        return sampled_returns(self.quotes, changes_only=True, incidents=self.gaps("quotes"))

    @cached_property
    def noise(self) -> pl.DataFrame:
        """The variances of `ticks` without noise, see `noise.noise_measures`."""
        return noise_measures(self.ticks)

    @cached_property
    def orders(self) -> pl.DataFrame:
        """The aggressive orders: prints joined that are one order's."""
        return aggressive_orders(self.trades)

    @cached_property
    def enough_orders(self) -> pl.DataFrame:
        """The orders of those intervals that have as many as a model of single orders needs."""
        return self.orders.filter(pl.len().over("session_id") > LEAST_MODELLED)

    @cached_property
    def touch(self) -> pl.DataFrame:
        """The best bid and ask with their sizes, after each message that changed them, where they are known."""
        return self._snapshots(1, changes_only=True)

    @cached_property
    def books(self) -> pl.DataFrame:
        """The best `LEVELS` levels each `GRID_NS`, where they are known: a row a change would not fit into memory."""
        return self._snapshots(LEVELS, every_ns=GRID_NS)

    def _snapshots(self, levels: int, *, every_ns: int | None = None, changes_only: bool = False) -> pl.DataFrame:
        books = book_snapshots(
            self.depth.collect(),
            levels,
            every_ns=every_ns,
            changes_only=changes_only,
            tick_size=self.tick_size,
            incidents=self.gaps("depth"),
        )
        return books.filter(pl.col("kind") != "unknown")

    @cached_property
    def after_sweeps(self) -> pl.DataFrame:
        """How what waits at a price comes back after an order took all of it, see `depth.recovery_path`."""
        events = sweeps(self.trades, self.touch)
        gaps = self.gaps("trades", "depth")
        return recovery_path(events, self.touch, swept_depth(levels=1), RECOVERY_NS, incidents=gaps)

    @cached_property
    def after_widenings(self) -> pl.DataFrame:
        """How the spread (ticks) comes back after it became wider than it mostly is, see `depth.recovery_path`."""
        tick, gaps = self.tick_size or 1.0, self.gaps("depth")
        spread = (pl.col("ask_price_0") - pl.col("bid_price_0")) / tick
        events = widenings(self.touch, tick, normal_ticks=self._usual_ticks, incidents=gaps)
        return recovery_path(events, self.touch, spread, RECOVERY_NS, incidents=gaps)

    @property
    def _usual_ticks(self) -> int:
        """The width that the spread has for most of the time; one tick where there are no quotes."""
        wide = self.widths.filter(pl.col("spread_ticks") > 0)
        times = wide.group_by("spread_ticks").agg(pl.col("duration_s").sum()).sort("duration_s", "spread_ticks")
        return 1 if times.is_empty() else int(times["spread_ticks"][-1])

    @cached_property
    def book_moves(self) -> pl.DataFrame:
        """Order flow imbalance of the best level in each `FLOW_NS` (`ofi_0`), and how the mid moved (`mid_change`)."""
        bars = ofi_bars(self.touch, FLOW_NS, incidents=self.gaps("depth"))
        return mid_changes(bars, self.quotes, incidents=self.gaps("quotes", "depth"))

    @cached_property
    def modelled(self) -> Extract:
        """The same, with as many trades at most as models of single orders are fitted to."""
        return self.thinned(MODELLED / max(1, self.trades.height))

    @cached_property
    def components(self) -> pl.DataFrame:
        """What the spread of orders pays for, by four models."""
        few = self.modelled
        return spread_components(few.enough_orders, few.quotes, incidents=few.gaps("quotes", "trades"))

    @property
    def point_value(self) -> float | None:
        """What one point of one lot is worth, in the contract's currency."""
        tick, worth = self.contract.tick_size, self.contract.tick_value
        return None if tick is None or worth is None else worth / tick

    def returns(self, interval_ns: int) -> pl.DataFrame:
        """The mid and its log returns over longer intervals, from `grid`; an interval with a gap inside has none."""
        points = self.grid.filter(pl.col("recv_ns") % interval_ns == 0)
        before = neighbour(pl.col("mid"), ["session_id", "stretch"])
        return points.with_columns(log_return=pl.col("mid").log() - before.log())


def take(
    source: Source,
    contract: Contract,
    windows: Sequence[Window],
    *,
    every_ns: int | None = None,
    with_quotes: bool = True,
) -> Extract:
    """Read one contract's part of a session.

    Args:
        source: The session.
        contract: One of its contracts.
        windows: The times that are wanted.
        every_ns: Make each interval of this length (whole multiples in UTC) a group of its own.
        with_quotes: Read the quotes, which are the most that is held in memory.
    """
    one = contract.contract_id

    start = pl.lit(WHOLE) if every_ns is None else (pl.col("recv_ns") // every_ns * every_ns).cast(pl.String)

    def read(rows: pl.LazyFrame, *columns: str) -> pl.LazyFrame:
        return _inside(rows, windows).select(*columns, session_id=start)

    quotes = mids(read(source.quotes(one), "recv_ns", "seq", "best_bid", "best_ask"))
    return Extract(
        contract=contract,
        windows=tuple(windows),
        every_ns=every_ns,
        quotes=quotes.collect().rechunk() if with_quotes else quotes.limit(0).collect(),
        trades=read(source.trades(one), "recv_ns", "seq", "exch_ns", "price", "volume", "side").collect().rechunk(),
        depth=read(source.depth(one), "recv_ns", "seq", "pos", "dom_type", "price", "volume"),
        messages=read(source.messages(one), "recv_ns", "seq"),
        rejects=read(source.rejects(one), "recv_ns", "reason"),
        noted=source.gaps(one).select("stream", "from_ns", "to_ns").collect(),
    )


def _inside(rows: Frame, windows: Sequence[Window]) -> Frame:
    inside = ((pl.col("recv_ns") >= one.from_ns) & (pl.col("recv_ns") < one.to_ns) for one in windows)
    return rows.filter(pl.any_horizontal(*inside))
