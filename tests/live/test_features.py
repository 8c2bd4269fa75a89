"""Features: what was known at each moment and nothing later, whatever pieces the session is read in."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lake_builder import ES, MS, depth, quote, recording, trade
from polars.testing import assert_frame_equal
from synthetic import CONTRACTS, imported, market_tape

import mdcapture as md
from mdcapture.errors import UsageError
from mdcapture.lake.schema import Incident, IncidentKind
from mdcapture.live.features import FEATURES, Feature, features, walk_forward
from mdcapture.metrics.bars import volume_bars
from mdcapture.metrics.book import book_snapshots
from mdcapture.metrics.flow import order_flow_imbalance, queue_imbalance
from mdcapture.metrics.frames import mids

if TYPE_CHECKING:
    from mdcapture.session import Session

SECOND = 1_000_000_000
LABELS = {"1s": SECOND, "5s": 5 * SECOND}


def plain(session: Session, contract_id: str, at_ns: int, since_ns: int) -> dict[str, float | None]:
    """The features of one moment by the plainest means: everything up to then, and everything since the one before."""
    quotes, trades, depth = (getattr(session, name)(contract_id).collect() for name in ("quotes", "trades", "depth"))
    known = pl.col("recv_ns") <= at_ns
    lately = known & (pl.col("recv_ns") > since_ns)
    quote = mids(quotes.filter(known)).tail(1).row(0, named=True)
    books = order_flow_imbalance(book_snapshots(depth, 1, tick_size=0.25))
    book = books.filter(known).with_columns(queue_imbalance()).tail(1).row(0, named=True)
    flow = trades.filter(lately)
    bought, sold = (flow.filter(side=side)["volume"].sum() for side in (0, 1))
    log_mid = mids(quotes).with_columns(r2=pl.col("mid").log().diff().pow(2)).filter(lately)
    spread = None if quote["mid"] is None else quote["best_ask"] - quote["best_bid"]
    return {
        "mid": quote["mid"],
        "quoted_spread": spread,
        "quoted_spread_bps": None if spread is None else 1e4 * spread / quote["mid"],
        "realized_variance": log_mid["r2"].sum(),
        "quotes": quotes.filter(lately).height,
        "trades": flow.height,
        "volume": flow["volume"].sum(),
        "delta": bought - sold,
        "trade_imbalance": (bought - sold) / (bought + sold) if bought + sold else None,
        "vwap": (flow["price"] * flow["volume"]).sum() / flow["volume"].sum() if flow.height else None,
        "order_flow_imbalance": books.filter(lately)["ofi_0"].sum(),
        "queue_imbalance": book["queue_imbalance"],
        "weighted_mid": (
            (book["bid_price_0"] * book["ask_size_0"] + book["ask_price_0"] * book["bid_size_0"])
            / (book["bid_size_0"] + book["ask_size_0"])
        ),
        "best_depth": (book["bid_size_0"] + book["ask_size_0"]) / 2,
    }


@pytest.mark.parametrize("contract_id", CONTRACTS)
def test_features_are_what_was_known_then_by_the_plainest_means(market: Session, contract_id: str):
    made = market.features(every="1s", metrics=list(FEATURES), contract_id=contract_id)
    assert made.columns == ["session_id", "contract_id", "recv_ns", *FEATURES]
    times = made["recv_ns"].to_list()
    assert times == list(range(times[0], times[-1] + 1, SECOND))
    for place in range(3, len(times), 4):
        found = made.select(*FEATURES).row(place, named=True)
        assert found == pytest.approx(plain(market, contract_id, times[place], times[place - 1]), rel=1e-9)


def test_labels_are_the_returns_of_the_mid_from_then_on(market: Session):
    made = market.features(every="1s", metrics=["mid"], labels=["1s", 5 * SECOND], contract_id=CONTRACTS[0])
    quotes = mids(market.quotes(CONTRACTS[0]).collect())
    for at_ns, *labels in made.select("recv_ns", "mid_return_1s", "mid_return_5s").iter_rows():
        for label, ahead_ns in zip(labels, LABELS.values(), strict=True):
            now, then = (quotes.filter(pl.col("recv_ns") <= t)["mid"][-1] for t in (at_ns, at_ns + ahead_ns))
            if at_ns + ahead_ns > quotes["recv_ns"][-1] or now is None or then is None:
                assert label is None
            else:
                assert label == pytest.approx(np.log(then / now), abs=1e-15)


@pytest.mark.long
@settings(max_examples=15, deadline=None)
@given(piece_rows=st.integers(150, 9000), every=st.sampled_from(["1s", "250ms", "7s"]))
def test_features_do_not_depend_on_the_pieces_that_a_session_is_read_in(market: Session, piece_rows: int, every: str):
    options = {"every": every, "metrics": list(FEATURES), "labels": ["1s"], "contract_id": CONTRACTS[1]}
    whole, pieced = features(market, **options), features(market, **options, piece_rows=piece_rows)  # type: ignore[arg-type]
    assert_frame_equal(whole, pieced, rel_tol=1e-9, abs_tol=0)


@settings(max_examples=5, deadline=None)
@given(kept=st.integers(20, 700), seed=st.integers(1, 3), levels=st.sampled_from([1, 3]))
@example(kept=625, seed=2, levels=1)  # the other market has ended by then
def test_changing_the_future_changes_no_feature(kept: int, seed: int, levels: int):
    """Two markets that agree up to a message, and not at all after it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, other = (
            market_tape(folder / f"{number}.ndjson", messages=800, seed=number).read_bytes().splitlines(keepends=True)
            for number in (seed, seed + 10)
        )
        turn_ns = int(one[kept].split(b" ", 1)[0])
        later = [line for line in other if int(line.split(b" ", 1)[0]) >= turn_ns]
        made = []
        for number, lines in enumerate((one, [*one[:kept], *later], one[:kept])):
            tape = folder / "tape.ndjson"
            tape.write_bytes(b"".join(lines))
            session = imported(tape, folder / f"lake{number}")
            rows = features(session, every="100ms", metrics=list(FEATURES), levels=levels)
            made.append(rows.filter(pl.col("recv_ns") < turn_ns).drop("session_id"))
    for contract_id in CONTRACTS:
        whole, *others = (rows.filter(contract_id=contract_id) for rows in made)
        for other_rows in others:  # they end with the contract's data, which may be before the turn
            assert_frame_equal(whole.head(other_rows.height), other_rows, check_exact=True)


def test_labels_do_not_depend_on_the_features_beside_them(tmp_path: Path):
    """Trades end long before the quotes do: what comes after them is a label all the same."""
    with recording(tmp_path) as running:
        for number in range(60):
            running.receive(quote(ES, bestBid=4800 + number % 3, bestAsk=4801 + number % 3), step_ns=500 * MS)
            if number < 20:
                running.receive(trade(ES))
        running.finish()
    session = md.open_lake(tmp_path).session()
    labels = [session.features(every="1s", metrics=[one], labels=["5s"]).drop(one) for one in ("mid", "delta")]
    both = labels[0].join(labels[1], on="recv_ns", how="inner", maintain_order="left")
    assert both.height > 5
    assert both["mid_return_5s"].equals(both["mid_return_5s_right"])
    assert both["mid_return_5s"].null_count() == 0


def test_bars_are_moments_too(market: Session):
    trades = market.trades(CONTRACTS[0])
    bars = volume_bars(trades, 50).collect()
    made = market.features(every=bars, metrics=["volume", "delta", "vwap"], contract_id=CONTRACTS[0])
    assert market.features(every=volume_bars(trades, 50), metrics=made.columns[3:], contract_id=CONTRACTS[0]).equals(
        made
    )
    assert made["recv_ns"].to_list() == bars["end_ns"].to_list()
    with_times = made.with_columns(bars["volume"].alias("own"), bars["vwap"].alias("own_vwap"))
    apart = with_times.filter(pl.col("recv_ns").is_unique() & pl.col("recv_ns").shift().is_unique())
    assert made["volume"].sum() + bars["volume"][0] == bars["volume"].sum()
    assert (apart["volume"] == apart["own"]).mean() > 0.9  # type: ignore[operator]  # others share a time with the next


def test_a_feature_of_ones_own(market: Session):
    lean = Feature("depth", "state", queue_imbalance(levels=3))
    size = Feature("trades", "flow", pl.col("volume"), pl.lit(1))
    made = market.features(every="1s", metrics={"lean": lean, "mean_size": size}, levels=3)
    known = features(market, every="1s", metrics=["volume", "trades"])
    assert made["lean"].is_between(-1, 1).all()
    expected = (known["volume"] / known["trades"]).fill_nan(None).rename("mean_size")
    assert made["mean_size"].equals(expected, check_names=True)


class Watched:
    """A session that notes each piece that is read of its depth."""

    def __init__(self, session: Session, log: list[str]) -> None:
        self._session, self._log = session, log

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    def depth(self, contract_id: str) -> pl.LazyFrame:
        return self._session.depth(contract_id).map_batches(lambda rows: self._log.append("read") or rows)


def test_a_piece_is_done_with_before_the_next_is_read(market: Session):
    log: list[str] = []
    size = pl.col("bid_size_0").map_batches(lambda sizes: log.append("used") or sizes, return_dtype=pl.Int64)
    watched = Watched(market, log)
    metrics = {"size": Feature("depth", "state", size)}
    features(watched, every="1s", metrics=metrics, contract_id=CONTRACTS[0], piece_rows=500)  # type: ignore[arg-type]
    at_work = log[log.index("used") :]
    assert at_work.count("read") > 4
    assert "read,read,read" not in ",".join(at_work)


@pytest.fixture
def broken(tmp_path: Path) -> Session:
    """A quote, a trade and a book each 100 ms for three seconds, without one second of quotes in the middle."""
    start_ns = 1_703_545_200_000_000_000
    with recording(tmp_path, start_ns, {ES: 0.25}) as session:
        session.receive(depth(ES, {"type": 6}))
        for step in range(30):
            if not 10 <= step < 20:
                session.receive(quote(bestBid=100.0 + step, bestAsk=100.25 + step), step_ns=0)
            session.receive(trade(volume=1), step_ns=0)
            session.receive(depth(ES, {"type": 1, "price": 101.0}, {"type": 2, "price": 100.0}), step_ns=100 * MS)
        times = start_ns + MS + 900 * MS, start_ns + MS + 2000 * MS
        session.tell(Incident(IncidentKind.GAP, "quotes", ES, *times))
        session.finish()
    return md.open_lake(tmp_path).session()


def test_what_a_gap_touches_is_null_and_other_streams_go_on(broken: Session):
    made = broken.features(every="500ms", metrics=["mid", "quotes", "trades", "queue_imbalance"], labels=["500ms"])
    assert made["quotes"].is_null().to_list() == [True, True, True, True, True, False]
    assert made["mid"].is_null().to_list() == [False, True, True, True, True, False]
    assert made["trades"].is_null().to_list() == [True, *[False] * 5]
    assert made["queue_imbalance"].null_count() == 0
    assert made["mid_return_500ms"].is_null().to_list() == [True, True, True, True, False, True]


def test_a_session_without_rows_has_no_features(tmp_path: Path):
    with recording(tmp_path) as session:
        session.note(IncidentKind.CONNECTED)
        session.finish()
    made = md.open_lake(tmp_path).session().features(every="1s", metrics=["mid", "delta"], labels=["1s"])
    assert made.shape == (0, 6)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"every": "1s", "metrics": ["alpha"]}, UsageError, "no feature alpha; there are mid"),
        ({"every": 0}, UsageError, "positive"),
        ({"every": pl.DataFrame({"time": [1]})}, UsageError, "these have time"),
        ({"every": "1s", "labels": [-5]}, UsageError, "positive"),
        ({"every": "1s", "contract_id": "nothing"}, md.NotFoundError, "nothing"),
    ],
)
def test_what_can_not_be_made_is_said(market: Session, options: dict[str, object], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        market.features(**options)  # type: ignore[arg-type]


def test_splits_walk_forward_by_session():
    frame = pl.DataFrame({"session_id": list("aabbbcdd"), "x": range(8)})
    splits = [
        ("".join(a["session_id"].unique().sort()), "".join(b["session_id"].unique())) for a, b in walk_forward(frame)
    ]
    assert splits == [("a", "b"), ("ab", "c"), ("abc", "d")]
    rolling = [(a["x"].to_list(), b["x"].to_list()) for a, b in walk_forward(frame, train=2)]
    assert rolling == [([0, 1, 2, 3, 4], [5]), ([2, 3, 4, 5], [6, 7])]
    ids = [
        f"session_20261118_230000{suffix}" for suffix in ("", "_2", "_10")
    ]  # of one second: in the order of their start
    assert [b["session_id"].to_list() for _, b in walk_forward(pl.DataFrame({"session_id": ids[::-1]}))] == [
        [ids[1]],
        [ids[2]],
    ]
    with pytest.raises(UsageError, match="at least one"):
        list(walk_forward(frame, test=0))
