"""Features: a session as one aligned frame for machine learning, a row a moment, and only what was known then.

    stream of a contract ──pieces──▶ states and flows by interval ─┐
    the next stream      ──pieces──▶ ...                           ├── side by side, one row a moment ── labels beside
    quotes, later        ──pieces──▶ mids at the horizons ─────────┘

A row of time t knows what was received up to and with t. A state is that of the last message; a flow is summed over the
time since the row before. Where messages of a stream can be missing since the row before, what is made of it is null.
Labels alone look ahead. Streams are read piece by piece, and of each piece a row a moment stays: memory is bounded by
the number of moments, not by that of messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
import polars as pl

from mdcapture.config import parse_duration
from mdcapture.errors import UsageError
from mdcapture.lake.layout import session_order
from mdcapture.lake.manifest import contracts_named
from mdcapture.lake.schema import DomType, Stream
from mdcapture.live.pieces import in_pieces
from mdcapture.metrics.book import book_snapshots, entry_fault
from mdcapture.metrics.flow import order_flow_imbalance, queue_imbalance, signed_volume, weighted_mid
from mdcapture.metrics.frames import KEYS, mids, stretches, trade_sign
from mdcapture.metrics.spreads import horizon_label, quoted_spread
from mdcapture.metrics.volatility import log_returns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from mdcapture.session import Session

__all__ = ["FEATURES", "Feature", "features", "walk_forward"]

_PIECE_ROWS: Final = 1_000_000


class Feature(NamedTuple):
    """How a feature is made of the rows of one stream.

    Attributes:
        stream: `quotes` (with `mid`), `trades`, or `depth`, whose rows are the book after each message
            (`bid_price_0`, ..., and `ofi_0`).
        kind: A `state` is that of the last row, a `flow` the sum since the moment before.
        value: The state, or a row's part of the flow.
        per: A flow that this one is divided by; null where that is nothing.
    """

    stream: Stream
    kind: Literal["state", "flow"]
    value: pl.Expr
    per: pl.Expr | None = None


_VOLUME: Final = pl.col("volume")

FEATURES: Final[Mapping[str, Feature]] = {
    "mid": Feature("quotes", "state", pl.col("mid")),
    "quoted_spread": Feature("quotes", "state", quoted_spread()),
    "quoted_spread_bps": Feature("quotes", "state", quoted_spread("bps")),
    "realized_variance": Feature("quotes", "flow", log_returns("mid", within=["stretch"]).pow(2)),
    "quotes": Feature("quotes", "flow", pl.lit(1)),
    "trades": Feature("trades", "flow", pl.lit(1)),
    "volume": Feature("trades", "flow", _VOLUME),
    "delta": Feature("trades", "flow", signed_volume()),
    "trade_imbalance": Feature("trades", "flow", signed_volume(), trade_sign().abs() * _VOLUME),
    "vwap": Feature("trades", "flow", pl.col("price") * _VOLUME, _VOLUME),
    "order_flow_imbalance": Feature("depth", "flow", pl.col("ofi_0")),
    "queue_imbalance": Feature("depth", "state", queue_imbalance()),
    "weighted_mid": Feature("depth", "state", weighted_mid()),
    "best_depth": Feature("depth", "state", (pl.col("bid_size_0") + pl.col("ask_size_0")) / 2),
}
"""The features by name: variance of ticks (squared log points), sizes in lots, prices in points."""


def features(
    session: Session,
    *,
    every: str | int | pl.DataFrame | pl.LazyFrame,
    metrics: Sequence[str] | Mapping[str, Feature] = ("mid", "quoted_spread", "delta", "order_flow_imbalance"),
    labels: Sequence[str | int] = (),
    contract_id: str | None = None,
    levels: int = 1,
    piece_rows: int = _PIECE_ROWS,
) -> pl.DataFrame:
    """Features of a session, and labels to learn.

    Args:
        session: The session.
        every: The moments: "1s" or nanoseconds for the whole multiples of that in UTC, within the data of the contract;
            or bars of any kind, lazy or not, whose `end_ns` are the moments. Of bars that end at one time, the first
            has what flowed until then, the others nothing.
        metrics: Names of `FEATURES`, or features of your own by name.
        labels: Horizons ("5s", or nanoseconds): the log return of the mid from the moment to so long after it, null
            where the data ends before that, or a gap lies between.
        contract_id: A contract's id, name or root; without it, all.
        levels: How many levels of the book there are for features of your own.
        piece_rows: How many rows of a stream are held in memory at a time.

    Returns:
        `session_id`, `contract_id`, `recv_ns` (the moment), a column for each feature, and `mid_return_5s`, ... for
        each label; by contract and time. A flow is null at the first moment.

    Raises:
        UsageError: A feature is not known, a time is not positive, or bars have no `end_ns`.
        NotFoundError: There is no such contract.
    """
    wanted = {name: _known(name) for name in metrics} if not isinstance(metrics, Mapping) else dict(metrics)
    moments = _duration_ns(every) if isinstance(every, str | int) else _ends(every)
    horizons_ns = [_duration_ns(label) for label in labels]
    known = session.contracts
    contracts = known if contract_id is None else contracts_named(known, contract_id)
    tables = [
        _of_contract(_Reader(session, one.contract_id, one.tick_size, levels, piece_rows), moments, wanted, horizons_ns)
        for one in contracts
    ]
    schema = {**dict.fromkeys(KEYS, pl.String()), "recv_ns": pl.Int64()}
    names = [*wanted, *(f"mid_return_{horizon_label(one)}" for one in horizons_ns)]
    empty = pl.DataFrame(schema=schema | dict.fromkeys(names, pl.Float64()))
    return pl.concat([empty, *tables])


def walk_forward(
    frame: pl.DataFrame, *, train: int | None = None, test: int = 1
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Split by session, always learning from the past: (sessions to learn from, the next ones to be judged by).

    A label looks ahead within its own session, so that nothing of the second part is in the first.

    Args:
        frame: Rows with `session_id`, whose ids tell their order.
        train: How many sessions to learn from; None: all that came before.
        test: How many to be judged by, and to go on by.

    Raises:
        UsageError: One of them is not positive.
    """
    if test < 1 or (train is not None and train < 1):
        raise UsageError("train and test must be at least one session")
    sessions = sorted(frame["session_id"].unique(), key=session_order)
    for split in range(train or 1, len(sessions), test):
        past = sessions[0 if train is None else split - train : split]
        parts = [frame.filter(pl.col("session_id").is_in(ids)) for ids in (past, sessions[split : split + test])]
        yield parts[0], parts[1]


def _known(name: str) -> Feature:
    if name not in FEATURES:
        raise UsageError(f"no feature {name}; there are {', '.join(FEATURES)}")
    return FEATURES[name]


def _ends(bars: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    names = bars.lazy().collect_schema().names()
    if "end_ns" not in names:
        raise UsageError(f"bars need a column end_ns, these have {', '.join(names) or 'none'}")
    return bars.lazy().select(name for name in names if name in {*KEYS, "end_ns"}).collect()


def _duration_ns(value: str | int) -> int:
    duration_ns = round(parse_duration(value) * 1e9) if isinstance(value, str) else value
    if duration_ns <= 0:
        raise UsageError(f"a distance in time must be positive, not {value}")
    return duration_ns


@dataclass(frozen=True)
class _Reader:
    """The streams of a contract, piece by piece, each led by what its features need of the piece before.

    The rows that are new in a piece say so in `_new`.
    """

    session: Session
    contract_id: str
    tick_size: float | None
    levels: int
    piece_rows: int

    def span_ns(self, streams: Sequence[Stream]) -> tuple[int, int] | None:
        """The first and the last message of these streams."""
        bounds = [
            self._table(stream).select(first=pl.col("recv_ns").min(), last=pl.col("recv_ns").max()).collect().row(0)
            for stream in streams
        ]
        known = [bound for bound in bounds if bound[0] is not None]
        return (min(first for first, _ in known), max(last for _, last in known)) if known else None

    def gaps(self, stream: Stream) -> pl.DataFrame:
        """When messages of the stream can be missing."""
        return self.session.gaps(self.contract_id, [stream]).select("from_ns", "to_ns").collect()

    def pieces(self, stream: Stream) -> Iterator[pl.DataFrame]:
        """The rows of a stream that features are made of."""
        gaps = self.gaps(stream)
        if stream == "depth":
            yield from self._books(gaps)
            return
        before: pl.DataFrame | None = None
        for rows in in_pieces(self._table(stream), self.piece_rows):
            joined = rows if before is None else pl.concat([before, rows])
            prepared = mids(joined) if stream == "quotes" else joined
            yield stretches(prepared, gaps).with_columns(_new=_from(0 if before is None else 1))
            before = rows.tail(1)

    def _books(self, gaps: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """The book after each message: a piece begins with the entries that the book before it is made of."""
        carried = held = None
        for piece in chain(in_pieces(self._table("depth"), self.piece_rows), [None]):
            parts = [part for part in (held, piece) if part is not None]
            if not parts:
                return
            rows = pl.concat(parts)
            if piece is not None:  # its last message may go on in the next
                ends = rows.select("recv_ns", "seq").row(-1)
                unfinished = (pl.col("recv_ns") == ends[0]) & (pl.col("seq") == ends[1])
                rows, held = rows.filter(~unfinished), rows.filter(unfinished)
            known = rows if carried is None else pl.concat([carried, rows])
            old = 0 if carried is None else carried.select(pl.struct("recv_ns", "seq").n_unique()).item()
            books = book_snapshots(known, self.levels, tick_size=self.tick_size, incidents=gaps)
            yield order_flow_imbalance(books, levels=self.levels, incidents=gaps).with_columns(_new=_from(old))
            carried = _still_told(known, self.tick_size)

    def _table(self, stream: Stream) -> pl.LazyFrame:
        tables = {"quotes": self.session.quotes, "trades": self.session.trades, "depth": self.session.depth}
        return tables[stream](self.contract_id).drop(KEYS)


def _from(row: int) -> pl.Expr:
    return pl.int_range(pl.len()) >= row


def _still_told(depth: pl.DataFrame, tick_size: float | None) -> pl.DataFrame:
    """The entries that a book is made of: since the last reset, the last word on each price and of each pointer."""
    kind = pl.col("dom_type")
    asks, bids = (DomType.BEST_ASK, DomType.NEW_BEST_ASK), (DomType.BEST_BID, DomType.NEW_BEST_BID)
    ladder = kind.is_in([DomType.ASK, DomType.BID])
    subject = pl.when(kind.is_in(asks)).then(DomType.BEST_ASK).when(kind.is_in(bids)).then(DomType.BEST_BID)
    reset = (kind == DomType.RESET).fill_null(value=False)
    return (
        depth.filter(entry_fault(tick_size).is_null())
        .filter(reset.reverse().cum_sum().reverse() - reset.cast(pl.UInt32) == 0)
        .filter(reset | ladder | kind.is_in([*asks, *bids]))
        .with_columns(_subject=subject.otherwise(kind), _price=pl.when(ladder).then(pl.col("price")))
        .unique(["_subject", "_price"], keep="last", maintain_order=True)
        .drop("_subject", "_price")
    )


def _of_contract(
    reader: _Reader, moments: int | pl.DataFrame, wanted: Mapping[str, Feature], horizons_ns: Sequence[int]
) -> pl.DataFrame:
    streams = list(dict.fromkeys(feature.stream for feature in wanted.values()))
    times = _moments(moments, reader, reader.span_ns(streams or ["quotes"]))
    before = np.concatenate([times[:1], times[:-1]])
    columns: dict[str, pl.Series] = {}
    for stream in streams:
        own = {name: feature for name, feature in wanted.items() if feature.stream == stream}
        broken = pl.Series(_broken(before, times, reader.gaps(stream)))
        columns |= {one.name: one.set(broken, None) for one in _sampled(reader.pieces(stream), own, times)}
    keys = {"session_id": pl.lit(reader.session.session_id), "contract_id": pl.lit(reader.contract_id)}
    table = (
        pl.DataFrame({"recv_ns": times})
        .select(**keys, recv_ns="recv_ns")
        .with_columns(columns[name] for name in wanted)
    )
    return table.with_columns(_labels(reader, times, horizons_ns, streams))


def _labels(
    reader: _Reader, times: NDArray[np.int64], horizons_ns: Sequence[int], streams: Sequence[Stream]
) -> Iterator[pl.Series]:
    """The log return of the mid over each horizon, as far as quotes or what the features are made of goes on."""
    if not horizons_ns:
        return
    _, end_ns = reader.span_ns(["quotes", *streams]) or (0, 0)
    gaps = reader.gaps("quotes")
    now, *later = (
        _sampled(reader.pieces("quotes"), {"mid": FEATURES["mid"]}, times + ahead_ns)["mid"]
        for ahead_ns in (0, *horizons_ns)
    )
    for horizon_ns, then in zip(horizons_ns, later, strict=True):
        unknown = (times + horizon_ns > end_ns) | _broken(times, times + horizon_ns, gaps)
        yield (then / now).log().set(pl.Series(unknown), None).alias(f"mid_return_{horizon_label(horizon_ns)}")


def _moments(moments: int | pl.DataFrame, reader: _Reader, span_ns: tuple[int, int] | None) -> NDArray[np.int64]:
    if isinstance(moments, pl.DataFrame):
        mine = {"session_id": reader.session.session_id, "contract_id": reader.contract_id}
        keys = [pl.col(name) == value for name, value in mine.items() if name in moments.columns]
        ends: NDArray[np.int64] = (moments.filter(*keys) if keys else moments)["end_ns"].sort().to_numpy()
        return ends
    if span_ns is None:
        return np.array([], np.int64)
    return np.arange(-(-span_ns[0] // moments), span_ns[1] // moments + 1, dtype=np.int64) * moments


def _sampled(pieces: Iterator[pl.DataFrame], wanted: Mapping[str, Feature], times: NDArray[np.int64]) -> pl.DataFrame:
    """The features of one stream at each of the times, which rise; Float64."""
    states = {name: feature.value for name, feature in wanted.items() if feature.kind == "state"}
    flows = {name: feature.value for name, feature in wanted.items() if feature.kind == "flow"}
    flows |= {_per(name): feature.per for name, feature in wanted.items() if feature.per is not None}
    parts = [*(pl.col(name).sum() for name in flows), *(pl.col(name).last() for name in states)]
    found = [pl.DataFrame(schema={"_row": pl.Int64, **dict.fromkeys([*flows, *states], pl.Float64)})]
    placed = (_placed(piece, times, states | flows) for piece in pieces)
    found += [rows.group_by("_row", maintain_order=True).agg(parts) for rows in placed]
    intervals = pl.concat(found).group_by("_row", maintain_order=True).agg(parts)
    return (
        pl.DataFrame({"_row": np.arange(len(times))})
        .join_asof(intervals.select("_row", *states), on="_row")
        .join(intervals.select("_row", *flows), on="_row", how="left", maintain_order="left")
        .select(_value(name, feature) for name, feature in wanted.items())
    )


def _per(name: str) -> str:
    return f"{name} per"


def _value(name: str, feature: Feature) -> pl.Expr:
    if feature.kind == "state":
        return pl.col(name)
    flow = pl.col(name).fill_null(0.0)
    if feature.per is not None:
        per = pl.col(_per(name))
        flow = pl.when(per > 0).then(flow / per)
    return pl.when(pl.col("_row") > 0).then(flow).alias(name)


def _placed(piece: pl.DataFrame, times: NDArray[np.int64], columns: Mapping[str, pl.Expr]) -> pl.DataFrame:
    """The rows of a piece that are new, with their columns and the first moment that knows them."""
    row = np.searchsorted(times, piece["recv_ns"].to_numpy())
    values = {name: value.cast(pl.Float64) for name, value in columns.items()}
    placed = piece.select(_new=pl.col("_new"), _row=pl.Series(row), **values)
    return placed.filter("_new", pl.col("_row") < len(times)).drop("_new")


def _broken(begin: NDArray[np.int64], end: NDArray[np.int64], gaps: pl.DataFrame) -> NDArray[np.bool_]:
    """Where a gap lies within (begin, end], or reaches into it."""
    from_ns = np.sort(gaps["from_ns"].to_numpy())
    to_ns = np.sort(gaps["to_ns"].to_numpy())
    begun = np.searchsorted(from_ns, end)
    over = np.searchsorted(to_ns, begin, side="right")
    return np.asarray(begun > over)
