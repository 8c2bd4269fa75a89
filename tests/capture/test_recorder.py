"""The recorder as a library: handlers, iteration, days, failures of others."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import TYPE_CHECKING

import polars as pl
import pytest
from programs import simulator
from tapes import CONTRACT, records, write_tape
from trading_days import Day, next_session

import mdcapture as md
from mdcapture.capture.health import has_ended
from mdcapture.capture.trading_day import next_roll_ns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mdcapture.capture.recorder import Captured

COUNT = 2000


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    tape = write_tape(tmp_path / "market.ndjson", records(COUNT))
    with simulator("--tape", str(tape), "--speed", "2") as addresses:
        yield addresses["api"]


def config(gateway: str, lake: Path, **more: object) -> md.Config:
    settings = {"gateway": gateway, "lake": str(lake), "contracts": [CONTRACT], "username": "me", "count": COUNT}
    settings |= {"calendar": "weekly"}  # to ask a calendar costs as much as all the rest
    return md.Config(**(settings | {"duration_s": 30.0} | more))


def test_handlers_are_given_every_event_in_order(gateway: str, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    incidents: list[str] = []
    ticks: list[dict[str, float | None]] = []
    with md.Recorder(config(gateway, tmp_path / "lake"), api_key="demo") as recorder:
        recorder.on_session(lambda start: ticks.append(dict(start.tick_sizes)))
        recorder.on_trade(lambda event: seen.append((event.seq, event.pos)))
        recorder.on_quote(lambda event: seen.append((event.seq, event.pos)))
        recorder.on_depth(lambda event: seen.append((event.seq, event.pos)))
        recorder.on_incident(lambda incident: incidents.append(incident.kind))
        captured = recorder.run()
    assert seen == sorted(seen)
    assert len(seen) == captured.quotes + captured.trades + captured.depth
    assert incidents[0] == "connected"
    assert incidents.count("subscribed") == 3
    assert ticks == [{CONTRACT: 0.25}]


def test_live_events_equal_the_rows_that_are_stored(gateway: str, tmp_path: Path):
    quotes: list[md.QuoteEvent] = []
    with md.Recorder(config(gateway, tmp_path / "lake"), api_key="demo") as recorder:
        recorder.on_quote(quotes.append)
        recorder.run()
    stored = md.open_lake(tmp_path / "lake").session().quotes().collect()
    assert [event._asdict() for event in quotes] == stored.select(md.QuoteEvent._fields).to_dicts()


def test_batches_have_the_same_events_as_handlers(gateway: str, tmp_path: Path):
    batches: list[list[md.QuoteEvent | md.TradeEvent | md.DepthEvent]] = []
    trades: list[md.TradeEvent] = []
    with md.Recorder(config(gateway, tmp_path / "lake"), api_key="demo") as recorder:
        recorder.on_batch(batches.append)
        recorder.on_trade(trades.append)
        captured = recorder.run()
    events = [event for batch in batches for event in batch]
    assert len(events) == captured.quotes + captured.trades + captured.depth
    assert [event for event in events if isinstance(event, md.TradeEvent)] == trades


def test_events_can_be_iterated(gateway: str, tmp_path: Path):
    async def count() -> tuple[int, Captured]:
        async with md.Recorder(config(gateway, tmp_path / "lake"), api_key="demo") as recorder:
            running = asyncio.create_task(recorder.arun())
            events = [event async for event in recorder.events()]
            return len(events), await running

    events, captured = asyncio.run(count())
    assert events == captured.quotes + captured.trades + captured.depth


def test_a_handler_that_raises_costs_nothing_but_itself(gateway: str, tmp_path: Path):
    with md.Recorder(config(gateway, tmp_path / "lake"), api_key="demo") as recorder:
        recorder.on_trade(lambda _: 1 / 0)
        captured = recorder.run()
    assert captured.messages == COUNT
    incidents = md.open_lake(tmp_path / "lake").session().incidents().collect()
    assert incidents.filter(kind="handler_failed")["detail"].str.contains("ZeroDivisionError").to_list() == [True]


def test_a_handler_that_hangs_delays_no_message_of_the_journal(gateway: str, tmp_path: Path):
    released = threading.Event()
    with md.Recorder(config(gateway, tmp_path / "lake", live_queue=1), api_key="demo") as recorder:
        recorder.on_depth(lambda _: released.wait(3))
        recorder.start()
        while (figures := recorder.figures()) is None or figures.messages < COUNT:
            time.sleep(0.01)
        assert figures.queued == 1
        released.set()
        captured = recorder.wait()
    assert captured is not None
    assert captured.messages == COUNT
    assert figures.dropped > 0
    incidents = md.open_lake(tmp_path / "lake").session().incidents().collect()
    # One stretch, or one more from before the handler was given its first batch; each tells how many so far.
    passed = incidents.filter(kind="handler_dropped").sort("from_ns")
    so_far = passed["detail"].str.extract(r"^(\d+) messages have passed .* the lake has them$").cast(pl.Int64)
    assert so_far.to_list() == sorted(set(so_far))
    assert figures.dropped <= so_far[-1] < COUNT
    assert (passed["from_ns"] < passed["to_ns"]).all()
    assert (passed["to_ns"] <= passed["from_ns"].shift(-1)).all()


def test_the_collector_runs_as_seldom_as_is_set_while_a_capture_runs(tmp_path: Path):
    before = gc.get_threshold()
    collections = []
    gc.freeze()  # what other tests have left is not to be gone through hundreds of times
    with simulator("--contract", "MNQ", "--rate", "300") as addresses:
        for threshold in (200, 1_000_000):
            options = {"contracts": ["MNQ"], "gc_threshold": threshold, "count": 300}
            settings = config(addresses["api"], tmp_path / str(threshold), **options)
            with md.Recorder(settings, api_key="demo") as recorder:
                recorder.start()
                while recorder.figures() is None:
                    time.sleep(0.01)
                assert gc.get_threshold()[0] == threshold
                first = gc.get_stats()[0]["collections"]
                recorder.wait()
                last = gc.get_stats()[0]["collections"]
            collections.append(last - first)
            assert gc.get_threshold() == before
    gc.unfreeze()
    assert collections[0] > 10 * collections[1]


def test_cancelling_ends_the_capture_cleanly(gateway: str, tmp_path: Path):
    async def cancelled() -> None:
        async with md.Recorder(config(gateway, tmp_path / "lake"), api_key="demo") as recorder:
            async with asyncio.timeout(1):
                await recorder.arun()

    with pytest.raises(TimeoutError):
        asyncio.run(cancelled())
    assert md.open_lake(tmp_path / "lake").session().status == "sealed"


def test_a_run_goes_on_in_a_new_session_when_the_trading_day_ends(tmp_path: Path):
    sent = records(20_000)
    tape = write_tape(tmp_path / "market.ndjson", sent)
    day = Day()
    with simulator("--tape", str(tape)) as gateway:
        settings = config(gateway["api"], tmp_path / "lake", count=None, **day.settings)
        with md.Recorder(settings, api_key="demo", clock=day) as recorder:
            recorder.start()
            before = next_session(recorder)
            day.end()
            next_session(recorder, before)
            recorder.stop()
            captured = recorder.wait()
    assert captured is not None
    first, second = md.open_lake(tmp_path / "lake").sessions()
    assert captured.sessions == [first.session_id, second.session_id]
    both = pl.concat([session.messages().sort("seq").collect() for session in (first, second)])
    assert [text.encode() for text in both["payload"]] == sent[: both.height]
    assert (first.status, second.status) == ("sealed", "sealed")
    assert second.start_ns is not None
    assert second.start_ns >= day.roll_ns
    assert second.messages().select("seq").collect()["seq"][0] == 0


def test_a_trading_day_whose_handlers_lag_behind_has_ended_all_the_same(tmp_path: Path):
    tape = write_tape(tmp_path / "market.ndjson", records(COUNT))
    day = Day()
    released = threading.Event()
    with simulator("--tape", str(tape), "--speed", "0.2") as gateway:
        settings = config(gateway["api"], tmp_path / "lake", count=None, **day.settings)
        with md.Recorder(settings, api_key="demo", clock=day) as recorder:
            recorder.on_depth(lambda _: released.wait(20))
            recorder.start()
            first = next_session(recorder)
            day.end()
            next_session(recorder, first)
            limit_s = time.monotonic() + 4  # well before they are waited for no longer
            while not has_ended(tmp_path / "lake", first):
                assert time.monotonic() < limit_s
                time.sleep(0.01)
            released.set()
            recorder.stop()
            recorder.wait()
    assert [session.status for session in md.open_lake(tmp_path / "lake").sessions()] == ["sealed", "sealed"]


@pytest.mark.parametrize(
    ("now", "roll"),
    [
        ("2026-11-22T22:59:59+00:00", "2026-11-22T23:00:00+00:00"),  # winter: 17:00 is 23:00 UTC
        ("2026-11-22T23:00:00+00:00", "2026-11-23T23:00:00+00:00"),
        ("2026-07-01T21:00:00+00:00", "2026-07-01T22:00:00+00:00"),  # summer: 22:00 UTC
        ("2026-03-07T23:00:00+00:00", "2026-03-08T22:00:00+00:00"),  # the night in which clocks go forward
    ],
)
def test_the_trading_day_ends_by_the_exchanges_clock(now: str, roll: str):
    assert next_roll_ns(md.parse_ns(now), "17:00", "America/Chicago") == md.parse_ns(roll)


def test_a_trading_day_may_have_no_end():
    assert next_roll_ns(0, "", "America/Chicago") is None


def test_a_time_zone_that_does_not_exist_is_named():
    with pytest.raises(md.ConfigError, match="Nowhere"):
        next_roll_ns(0, "17:00", "Nowhere")
    with pytest.raises(md.ConfigError, match="Nowhere"):  # before anything is captured
        md.Recorder(md.Config(contracts=["MNQ"], username="me", roll_zone="Nowhere"), api_key="demo")
