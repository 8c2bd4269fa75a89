"""Arguments that the library refuses: by their message in docs/reference/errors.md, each rule that says it."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from lake_builder import ES, record, recording, trade

import mdcapture as md
from mdcapture.analysis import compare, pictures
from mdcapture.capture.upstream import borrowed_connection
from mdcapture.gateway.connection import Timing, hub_address
from mdcapture.gateway.rest import Credentials
from mdcapture.gateway.retry import RetryPolicy
from mdcapture.lake.remote import locate
from mdcapture.lake.signals import store_signals
from mdcapture.live import features, flow, prices, signals
from mdcapture.live.book import Book
from mdcapture.live.estimators import Every
from mdcapture.metrics import (
    bars,
    book,
    classification,
    correlation,
    depth,
    distribution,
    frames,
    impact,
    information,
    jumps,
    microprice,
    noise,
    point_process,
    profile,
    regression,
    spreads,
    tails,
    volatility,
)
from mdcapture.metrics import flow as flows
from mdcapture.simulator.captured import SessionFeed
from mdcapture.simulator.server import Simulator, SimulatorConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["REFUSED"]

NONE: Any = pl.DataFrame()
"""Rows that nobody reads: the arguments are looked at first."""

OTHER: Any = "other"
"""A word that is none of those that an argument knows."""


def two_contracts(_: object) -> object:
    quotes = {"bid_size_0": 5, "ask_size_0": 5, "bid_price_0": 4800.0, "ask_price_0": 4800.25}
    rows = [
        {"contract_id": name, "session_id": "s", "seq": seq, "pos": 0, "recv_ns": seq, **quotes}
        for name in "AB"
        for seq in range(3)
    ]
    return microprice.fit_micro_price(pl.DataFrame(rows), tick_size=0.25)


def a_session(folder: Path) -> md.Session:
    record(folder / "lake", trade())
    return md.open_lake(folder / "lake").session("latest")


def said(*, name: str = "signal", seq: int = 0) -> pl.DataFrame:
    return pl.DataFrame({"seq": [seq], "recv_ns": [1], "contract_id": [ES], "name": [name], "value": [1.0]})


def alone(folder: Path, by: compare.By = "session") -> object:
    return compare.comparable([a_session(folder).analyze(every="1s")], by)


def without_intervals(folder: Path) -> object:
    one = a_session(folder).analyze()
    return compare.compare([one, one])


def of_two_markets(folder: Path) -> object:
    analyses = []
    for contract_id in (ES, "CON.F.US.MNQ.H24"):
        record(folder / contract_id, trade(contract_id))
        analyses.append(md.open_lake(folder / contract_id).session("latest").analyze(every="1s"))
    return compare.compare(analyses)


def of_two_contracts(folder: Path) -> object:
    record(folder / "lake", trade(), trade("CON.F.US.MNQ.H24"))
    return md.open_lake(folder / "lake").session("latest").analyze().value("trades")


def ask_sqlite(query: str, parameters: Any = ()) -> Callable[[Path], object]:  # noqa: ANN401  # any that is wrong
    return lambda folder: a_session(folder).sqlite().execute(query, parameters)


def played_too_early(folder: Path) -> object:
    with recording(folder / "lake"):
        return SessionFeed(folder / "lake", "latest")


def borrowed(folder: Path, connection: object) -> object:
    config = md.Config(contracts=["MNQ"], lake=str(folder))
    return borrowed_connection(config, connection, lambda: 0)  # type: ignore[arg-type]


def elsewhere() -> signals.Signals:
    return signals.Signals({}, emit=lambda _: None)


REFUSED: dict[str, list[Callable[[Path], object]]] = {
    "… must be positive, not …": [
        lambda _: Every(0, prices.Mid()),
        lambda _: Book(tick_size=0.0),
        lambda _: flow.Intensity(0.0),
        lambda _: md.Replay("tape", speed=0),
        lambda _: bars.tick_bars(NONE, 0),
        lambda _: bars.imbalance_bars(NONE, span=0),
        lambda _: book.book_snapshots(NONE, every_ns=0),
        lambda _: book.book_snapshots(NONE, tick_size=0.0),
        lambda _: distribution.autocorrelation(NONE, "price", 0),
        lambda _: distribution.intraday_pattern(NONE, "price", 0),
        lambda _: flows.ofi_bars(NONE, 0),
        lambda _: flows.volume_buckets(NONE, 0),
        lambda _: point_process.intensity(NONE, 0.0),
        lambda _: profile.footprint(NONE, 0),
        lambda _: profile.volume_profile(NONE, step=0.0),
        lambda _: tails.fit_power_law([1.0], xmin=0.0),
        lambda folder: features.features(a_session(folder), every=0),
    ],
    "… must not be negative, not …": [lambda _: distribution.smooth_pattern(NONE, harmonics=-1)],
    "… needs a positive …, not …": [
        lambda _: frames.previous_tick(NONE, 0),
        lambda _: volatility.sampled_returns(NONE, clock="seq", step=0.0),
    ],
    "bars need a positive interval, not …": [lambda _: impact.impact_bars(NONE, NONE, 0)],
    "bars need a column end_ns, these have …": [lambda folder: features.features(a_session(folder), every=NONE)],
    "an order has a positive size, not …": [lambda _: depth.round_trip_cost(0)],
    "tick_size, imbalances, spreads and moves must be positive": [
        lambda _: microprice.fit_micro_price(NONE, tick_size=0.0)
    ],
    "imbalances must be odd, not …": [lambda _: microprice.fit_micro_price(NONE, tick_size=0.25, imbalances=4)],
    "limits must be two positive numbers of trades in order": [lambda _: bars.run_bars(NONE, limits=(2.0, 1.0))],
    "… must be above 0 and …, not …": [
        lambda _: signals.predictive_r2(NONE, NONE, [1], fit_share=1.0),
        lambda _: profile.value_area(NONE, share=0.0),
    ],
    "… must be …, not 'other'": [
        lambda _: md.Replay("tape", pace=OTHER),
        lambda _: flow.Intensity(of=OTHER),
        lambda _: prices.QuotedSpread(OTHER),
        lambda _: profile.value_area(NONE, method=OTHER),
        lambda _: tails.compare_power_law([], tails.fit_power_law([]), OTHER),
        lambda _: bars.imbalance_bars(NONE, weight=OTHER),
    ],
    "no jump test with variance …, quarticity …, form …": [lambda _: jumps.bns_statistic("x", form=OTHER)],
    "no kernel …: there are …": [lambda _: noise.realized_kernel([], OTHER)],
    "no bandwidth rule is known for the … kernel": [lambda _: noise.kernel_bandwidth([], "rectangular")],
    "rules are … and the delay is not negative": [
        lambda _: classification.classify(NONE, rules=[OTHER]),
        lambda _: classification.classify(NONE, quote_delay_ns=-1),
    ],
    "there is no chart …: it is one of …": [lambda _: pictures.draw(OTHER, [])],
    "no feature …; there are …": [lambda folder: features.features(a_session(folder), every=1, metrics=["other"])],
    "no metric …; there are …": [lambda _: signals.Signals({}).on_bar("minute")],
    "… is no Estimator: …": [
        lambda _: md.LiveMetrics({"one": list}).update(md.TradeEvent(ES, 0, 0, 0, 0, 4800.0, 1, 0))  # type: ignore[dict-item]
    ],
    "no event of … has come; there is …": [lambda _: md.LiveMetrics({})["MNQ"]],
    "train and test must be at least one session": [lambda _: next(features.walk_forward(NONE, test=0))],
    "a book has at least one level, not …": [lambda _: book.book_snapshots(NONE, levels=0)],
    "give at= or every_ns=, not both": [lambda _: book.book_snapshots(NONE, at=[1], every_ns=1)],
    "sample by calendar time (interval_ns) or by business time (clock), not by both": [
        lambda _: volatility.sampled_returns(NONE, interval_ns=1, clock="seq")
    ],
    "… needs at least one interval": [
        lambda _: correlation.epps_curve(NONE, intervals_ns=[]),
        lambda _: noise.signature(NONE, intervals_ns=[]),
    ],
    "a response needs horizons_ns= or horizons_trades=": [lambda _: impact.response(NONE, NONE)],
    "horizons are times from 0 on, not …": [lambda _: depth.recovery_path(NONE, NONE, pl.lit(1), [-1])],
    "horizons in time need quotes=": [lambda _: spreads.trade_spreads(NONE, None, [1])],
    "horizons in trades must be at least 1": [lambda _: spreads.trade_spreads(NONE, NONE, horizons_trades=[0])],
    "spreads in ticks need tick_size=": [lambda _: spreads.quoted_spread("ticks")],
    "… needs at least one lag": [
        lambda _: information.hasbrouck_var([], [], lags=0),
        lambda _: information.price_discovery(np.zeros((5, 1))),
    ],
    "the window needs at least 3 returns, not …": [lambda _: jumps.lee_mykland_statistic("x", window=2)],
    "the ratio needs a power above 3 and a step of at least 2": [lambda _: jumps.ait_sahalia_jacod_ratio("x", power=3)],
    "the statistic is there for even powers, not …": [lambda _: jumps.ait_sahalia_jacod_statistic("x", power=5)],
    "a subgrid needs a step of at least 1, not …": [lambda _: noise.subsampled_variance([], 0)],
    "a kernel needs a bandwidth of at least 0 and a jitter of at least 1": [
        lambda _: noise.realized_kernel([], jitter=0)
    ],
    "two scales need 1 <= fast < slow, not …": [lambda _: noise.two_scale_variance([0.0], slow=2, fast=2)],
    "pre-averaging needs a positive theta and a window of at least 3": [
        lambda _: noise.pre_averaged_variance([], theta=0.0)
    ],
    "correlation is between contracts: the prices need a contract_id": [
        lambda _: correlation.epps_curve(NONE, intervals_ns=[1])
    ],
    "a micro-price is fitted on one contract": [two_contracts],
    "weights need at least two bars with flows, not …": [
        lambda _: flows.ofi_weights(pl.DataFrame({"ofi_0": [1.0]}), levels=1)
    ],
    "durations must be finite and not negative": [lambda _: point_process.fit_acd([-1.0])],
    "times must rise within each stretch": [lambda _: point_process.fit_hawkes([2.0, 1.0] * 10)],
    "the equations of one fit need the same number of rows": [
        lambda _: regression.least_squares(([1.0, 2.0], [[1.0]]))
    ],
    "there are several values of … here, of …": [of_two_contracts],
    "none of these sessions has such a figure": [lambda _: compare.history([])],
    "before and after are told by a time": [lambda folder: alone(folder, "split")],
    "a comparison needs two parts, and here is one": [alone],
    "sessions are compared by intervals of one length": [without_intervals],
    "confidence lies between 0 and 1, not at …": [lambda _: compare.compare([], confidence=2.0)],
    "these sessions have no contract in common": [of_two_markets],
    "… has no time zone: give it one": [
        lambda folder: a_session(folder).analyze(start=datetime(2025, 6, 20))  # noqa: DTZ001  # that is the fault
    ],
    "nothing to replay: give a session or a tape": [lambda _: md.Replay()],
    "the rows of these signals go elsewhere": [lambda folder: elsewhere().store(a_session(folder))],
    "… is only read: store signals in the lake that was captured": [
        lambda _: store_signals(locate("fsspec+memory://lake"), "session", pa.table({}), [])
    ],
    "rows of …, which are not among the names that are stored": [
        lambda folder: a_session(folder).store_signals(said(), names=["another"])
    ],
    "rows of message …, and … has …": [lambda folder: a_session(folder).store_signals(said(seq=99))],
    "no value for :… was given": [ask_sqlite("SELECT :size FROM trades", {"price": 1})],
    "… does not fit the 64 bits of an integer": [ask_sqlite("SELECT ? FROM trades", [2**64])],
    "a parameter is None, a number, a text or a time": [ask_sqlite("SELECT ? FROM trades", [object()])],
    "no such table-valued function: …": [ask_sqlite("SELECT * FROM birds(1)")],
    "this gives no rows: ask with SELECT": [lambda folder: a_session(folder).sql("")],
    "the recorder was not started": [
        lambda folder: md.Recorder(md.Config(contracts=[ES], username="me", lake=str(folder)), api_key="demo").wait()
    ],
    "this is no hub connection of signalrcore": [lambda folder: borrowed(folder, object())],
    "… can't be looked up over another's connection": [
        lambda folder: borrowed(folder, SimpleNamespace(_callbacks=None, invoke=print))
    ],
    "a hub's address is ws://host/path or wss://host/path": [lambda _: hub_address("https://host/hub")],
    "the hub's times (connect, ping, silence, completion) are more than 0 s": [lambda _: Timing(ping_s=0)],
    "a user name and an API key are needed": [lambda _: Credentials("", "")],
    "a retry policy's first pause is more than 0 s": [lambda _: RetryPolicy(first_s=0)],
    "a retry policy's factor lies between 1 and 100": [lambda _: RetryPolicy(factor=0)],
    "a retry policy's attempts are 0 or more": [lambda _: RetryPolicy(attempts=-1)],
    "rate and speed of the local gateway must be positive": [lambda _: Simulator(SimulatorConfig(rate=0))],
    "… is still being captured: it can be played when it has ended": [played_too_early],
}
