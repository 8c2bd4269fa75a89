"""Signals: written once as functions over named live metrics, run on history, on a replay, and live, with equal rows.

    signals = Signals({"ofi": lambda: Every(NS_PER_S, OrderFlowImbalance()), "bars": lambda: TimeBars(NS_PER_S)})

    @signals.on_bar("bars")
    def pressure(bar, now):                    # called once a bar; None is no signal
        return None if now["ofi"] is None else now["ofi"] / bar.volume

    signals.attach(recorder)                   # live: rows of the session's table `signals`
    signals.store(session)                     # history: the same rows there, or
    signals.run(Replay(session))               # as a frame of seq, recv_ns, contract_id, name, value

A row's `seq` and `recv_ns` are those of the message that made it known, also where that only showed that time had
passed. What a session's table holds of a recorder is what a replay of that session gives.
`predictive_r2` judges a signal by what it says of later mids, on a part of the data that it was not fitted to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar, runtime_checkable

import polars as pl

from mdcapture.errors import UsageError
from mdcapture.lake.schema import SignalRow
from mdcapture.live.estimators import BookEvent
from mdcapture.live.online import EventSource, LiveMetrics
from mdcapture.live.replay import Replay
from mdcapture.metrics.frames import mid_at, prevailing, with_mid
from mdcapture.metrics.spreads import horizon_label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mdcapture.capture.events import QuoteEvent, TradeEvent
    from mdcapture.live.bars import Bar
    from mdcapture.live.estimators import Estimator
    from mdcapture.live.online import Values
    from mdcapture.session import Session

__all__ = ["Signals", "predictive_r2"]

_SCHEMA: Final = dict(zip(SignalRow._fields, (pl.Int64, pl.Int64, pl.String, pl.String, pl.Float64), strict=True))


OnBar = TypeVar("OnBar", bound="Callable[[Bar, Values], float | None]")
OnBook = TypeVar("OnBook", bound="Callable[[BookEvent, Values], float | None]")


@runtime_checkable
class _SignalTable(Protocol):
    """A source of events that keeps what is said of them: a `Recorder`."""

    def say(self, row: SignalRow) -> object:
        """Keep a row."""


class Signals:
    """Signals, and the metrics that they look at.

    A signal is a plain function, and its name the name of its rows. What it has to remember belongs into an estimator
    of its own, which is made anew for each contract.

    Args:
        metrics: What makes each estimator, by name, as for `LiveMetrics`.
        emit: Called with each row, which is kept in memory otherwise, unless a recorder keeps it.
        tick_ns: As for `LiveMetrics`.
        tick_sizes: As for `LiveMetrics`.
    """

    def __init__(
        self,
        metrics: Mapping[str, Callable[[], Estimator[Any]]],
        *,
        emit: Callable[[SignalRow], object] | None = None,
        tick_ns: int = 1_000_000_000,
        tick_sizes: Mapping[str, float] | None = None,
    ) -> None:
        self._rows: list[SignalRow] = []
        self._emit = [] if emit is None else [emit]
        self._on_bar: list[tuple[str, str, Callable[[Any, Values], float | None]]] = []
        self._on_book: list[tuple[str, Callable[[BookEvent, Values], float | None]]] = []
        self._last: dict[tuple[str, str], Bar | None] = {}
        self._names = frozenset(metrics)
        self.metrics = LiveMetrics(metrics, tick_ns=tick_ns, tick_sizes=tick_sizes, listen=self._listen)

    def on_bar(self, bars: str) -> Callable[[OnBar], OnBar]:
        """Call the decorated function with each bar that the metric of that name closes, and with all values.

        Raises:
            UsageError: There is no such metric.
        """
        if bars not in self._names:
            raise UsageError(f"no metric {bars}; there are {', '.join(sorted(self._names))}")

        def register(signal: OnBar) -> OnBar:
            self._on_bar.append((signal.__name__, bars, signal))
            return signal

        return register

    def on_book(self, signal: OnBook) -> OnBook:
        """Call the decorated function with the book after each depth message, and with all values."""
        self._on_book.append((signal.__name__, signal))
        return signal

    @property
    def names(self) -> list[str]:
        """The names of the signals."""
        return list(dict.fromkeys([name for name, _ in self._on_book] + [name for name, _, _ in self._on_bar]))

    def attach(self, source: EventSource) -> Self:
        """Take what comes from there, live; a recorder keeps the rows in the table `signals` of its session."""
        self.metrics.attach(source)
        if isinstance(source, _SignalTable):
            self._emit.append(source.say)
        return self

    def run(self, replay: Replay) -> pl.DataFrame:
        """Take everything of a replay, from a fresh beginning.

        Returns:
            The rows, as `frame` gives them.
        """
        self._rows.clear()
        self.metrics.begin()
        self.attach(replay)
        replay.run()
        return self.frame()

    def store(self, session: Session) -> pl.DataFrame:
        """Take everything of a session that has ended, and store the rows in its table `signals`.

        They take the place of all rows of the same names there, also of those that a recorder kept.

        Returns:
            The rows, as `frame` gives them.

        Raises:
            UsageError: The rows go to `emit`, or to a recorder.
            BusyError: The session is still recorded.
        """
        if self._emit:
            raise UsageError("the rows of these signals go elsewhere: make others without `emit`, for the session")
        rows = self.run(Replay(session))
        session.store_signals(rows, names=self.names)
        return rows

    def frame(self) -> pl.DataFrame:
        """The rows so far: `seq`, `recv_ns`, `contract_id`, `name`, `value`; none where they go elsewhere."""
        return pl.DataFrame(self._rows, _SCHEMA, orient="row")

    def _listen(self, event: QuoteEvent | TradeEvent | BookEvent | None, now: Values) -> None:
        if isinstance(event, BookEvent):
            for name, on_book in self._on_book:
                self._say(name, on_book(event, now), now)
        for name, bars, on_bar in self._on_bar:
            bar, place = now[bars], (name, now.contract_id)
            if bar is not self._last.get(place):
                self._last[place] = bar
                if bar is not None:  # as it is where a session begins
                    self._say(name, on_bar(bar, now), now)

    def _say(self, name: str, value: float | None, now: Values) -> None:
        if value is not None:
            row = SignalRow(now.seq, now.recv_ns, now.contract_id, name, float(value))
            for emit in self._emit or (self._rows.append,):
                emit(row)


def predictive_r2(
    signals: pl.LazyFrame | pl.DataFrame,
    quotes: pl.LazyFrame | pl.DataFrame,
    horizons_ns: Sequence[int],
    *,
    fit_share: float = 0.5,
    incidents: pl.LazyFrame | pl.DataFrame | None = None,
) -> pl.DataFrame:
    """How much of the later log returns of the mid a signal explains, by horizon, on data that it was not fitted to.

    A line y = a + b x is fitted to the first part of the rows, in time; of these, those whose horizon reaches into the
    second part are left out. On the second part R^2 = 1 - sum (y - a - b x)^2 / sum (y - mean)^2, the mean being that
    of the first part, which is what one would have foretold without the signal: below 0, the signal made it worse.

    Campbell and Thompson (2008), "Predicting Excess Stock Returns Out of Sample: Can Anything Beat the Historical
    Average?", Review of Financial Studies 21; they renew both line and mean with each new return, here they stay.

    Args:
        signals: Rows of `recv_ns`, `contract_id`, `name`, `value`, as `Signals.run` or a session's `signals()` gives.
        quotes: The lake's quotes of one session; returns begin at the last mid received by the signal's time.
        horizons_ns: How far ahead (ns).
        fit_share: The share of the rows that the line is fitted to.
        incidents: Gaps: rows whose horizon one lies in are left out.

    Returns:
        `contract_id`, `name`, `horizon`, `slope`, `r2_in_sample`, `r2` (out of sample), `n_fit` and `n`.

    Raises:
        UsageError: The share is not within (0, 1).
    """
    if not 0 < fit_share < 1:
        raise UsageError(f"fit_share must be above 0 and below 1, not {fit_share}")
    keys = ["contract_id", "name"]
    known = with_mid(quotes).drop("session_id", strict=False).collect()
    said = signals.lazy().select("recv_ns", *keys, "value").collect()
    rows = said.with_columns(seq=pl.lit(2**62), pos=pl.lit(0)).sort("contract_id", "recv_ns", maintain_order=True)
    now = prevailing(rows, known, ["mid"], incidents=incidents)
    judged = []
    for horizon_ns in horizons_ns:
        ahead = mid_at(now, known, horizon_ns, name="then", incidents=incidents)
        split_ns = pl.col("recv_ns").quantile(fit_share, "lower").over(keys)
        pairs = ahead.select(
            *keys,
            x="value",
            y=(pl.col("then") / pl.col("mid")).log(),
            fit=pl.col("recv_ns") + horizon_ns <= split_ns,
            test=pl.col("recv_ns") > split_ns,
        ).drop_nulls("y")
        judged.append(_r2(pairs, keys).with_columns(horizon=pl.lit(horizon_label(horizon_ns))))
    columns = [*keys, "horizon", "slope", "r2_in_sample", "r2", "n_fit", "n"]
    return pl.concat(judged).select(columns).sort(keys, maintain_order=True)


def _r2(pairs: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    x, y, fit, test = (pl.col(name) for name in ("x", "y", "fit", "test"))
    mean_x, mean_y = x.filter(fit).mean(), y.filter(fit).mean()
    slope = pl.cov(x.filter(fit), y.filter(fit)) / x.filter(fit).var()
    error, without = y - mean_y - slope * (x - mean_x), y - mean_y

    def r2(part: pl.Expr) -> pl.Expr:
        return 1 - error.filter(part).pow(2).sum() / without.filter(part).pow(2).sum()

    return pairs.group_by(keys, maintain_order=True).agg(
        slope=slope,
        r2_in_sample=r2(fit),
        r2=r2(test),
        n_fit=fit.sum().cast(pl.Int64),
        n=test.sum().cast(pl.Int64),
    )
