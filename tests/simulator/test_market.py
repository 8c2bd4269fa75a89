"""The synthetic market: its records hold together, and what it draws looks like a market."""

from __future__ import annotations

from collections import Counter
from datetime import date
from decimal import Decimal
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from mdcapture.gateway.instruments import INSTRUMENTS, Instrument, Listing, list_contracts, select
from mdcapture.simulator.market import Market
from mdcapture.wire.decode import decode
from mdcapture.wire.timestamps import NS_PER_S, parse_ns

if TYPE_CHECKING:
    from mdcapture.simulator.feed import Message

START_NS = 1_800_000_000 * NS_PER_S
LISTINGS = list_contracts(date(2026, 11, 22))
RATE = 124.0
decode_exactly = msgspec.json.Decoder(float_hook=Decimal).decode


def market(*names: str, seed: int = 1) -> Market:
    listings = select(names, LISTINGS)
    return Market(listings, {it.contract.contract_id: RATE for it in listings}, seed)


def run(playing: Market, count: int) -> list[Message]:
    """At most so many messages: those of whole arrivals."""
    messages = list(islice(playing.play(START_NS)[1], count))
    return [message for message in messages if message.time_ns != messages[-1].time_ns]


def body(message: Message) -> Any:  # noqa: ANN401 - JSON
    """The second argument; prices as exact decimals."""
    record = decode_exactly(message.record)
    assert record["arguments"][0] == message.contract_id
    return record["arguments"][1]


class Follower:
    """A client of one contract that believes what it is told, and protests when it does not hold together."""

    def __init__(self) -> None:
        self.quote: dict[str, Any] = {}
        self.rows: dict[int, dict[Decimal, int]] = {1: {}, 2: {}}
        self.best: dict[int, tuple[Decimal, int]] = {}
        self.volume_at: dict[Decimal, int] = {}
        self.traded = 0

    def hear(self, message: Message) -> None:
        if message.stream == "quotes":
            self.quote |= body(message)
        elif message.stream == "trades":
            self.traded += sum(entry["volume"] for entry in body(message))
        else:
            for entry in body(message):
                self.hear_depth(entry["type"], Decimal(entry["price"]), entry["volume"])
            self.check()

    def hear_depth(self, dom_type: int, price: Decimal, volume: int) -> None:
        match dom_type:
            case 1 | 2 if volume:
                self.rows[dom_type][price] = volume
            case 1 | 2:
                self.rows[dom_type].pop(price, None)
            case 3 | 4:
                self.best[dom_type] = price, volume
            case 5:
                self.volume_at[price] = volume
            case 6:
                self.rows, self.best, self.volume_at = {1: {}, 2: {}}, {}, {}

    def check(self) -> None:
        if self.best:
            ask, bid = min(self.rows[1]), max(self.rows[2])
            assert bid < ask
            assert self.best == {3: (ask, self.rows[1][ask]), 4: (bid, self.rows[2][bid])}

    def state(self) -> tuple[object, ...]:
        prices = {name: Decimal(value) for name, value in self.quote.items() if isinstance(value, int | Decimal)}
        return self.rows, self.best, self.volume_at, prices


def follow(playing: Market, contract_id: str) -> Follower:
    """A follower who has just subscribed."""
    follower = Follower()
    for stream in ("depth", "quotes"):
        for message in playing.snapshot(stream, contract_id):
            follower.hear(message)
    return follower


@pytest.mark.parametrize("listing", [it for it in LISTINGS if it.active], ids=lambda it: it.instrument.root)
def test_everyone_sees_the_same_book_whenever_he_came(listing: Listing):
    playing = market(listing.contract.contract_id)
    messages = playing.play(START_NS)[1]
    first = follow(playing, listing.contract.contract_id)
    for _ in range(3):
        late = follow(playing, listing.contract.contract_id)
        for message in islice(messages, 500):
            first.hear(message)
            late.hear(message)
        assert late.state() == first.state()


def test_the_quote_agrees_with_the_book_and_the_prints():
    playing = market("MNQ")
    follower = follow(playing, "CON.F.US.MNQ.Z26")
    for message in run(playing, 5_000):
        follower.hear(message)
    assert follower.quote["volume"] == follower.traded == sum(follower.volume_at.values())
    assert follower.quote["high"] >= max(follower.volume_at)
    assert follower.quote["low"] <= min(follower.volume_at)
    assert follower.quote["low"] <= follower.quote["lastPrice"] <= follower.quote["high"]


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda it: it.root)
def test_prices_are_on_the_grid_to_the_last_digit(instrument: Instrument):
    tick = Decimal(instrument.tick_size)
    prices = [
        Decimal(entry["price"])
        for message in run(market(instrument.root), 1_000)
        if message.stream != "quotes"
        for entry in body(message)
    ]
    assert prices
    assert all(price % tick == 0 for price in prices)


def test_nothing_of_it_is_rejected():
    batch = decode([message.record for message in run(market("MNQ", "ZB", "6J"), 10_000)])
    assert batch.rejects == []
    assert len(batch.trades.values) > 1_000


def test_times_never_go_back_and_the_exchange_is_before_us():
    messages = run(market("MNQ", "ES"), 5_000)
    assert all(first.time_ns <= second.time_ns for first, second in pairwise(messages))
    delays = [m.time_ns - parse_ns(body(m)[0]["timestamp"]) for m in messages if m.stream == "depth"]
    assert min(delays) >= 0
    assert max(delays) < NS_PER_S


def test_the_seed_decides_and_not_who_looks_on():
    watched = market("MNQ", "CL", seed=7)
    messages = watched.play(START_NS)[1]
    seen: list[Message] = []
    for _ in range(50):
        seen += islice(messages, 20)
        watched.snapshot("depth", "CON.F.US.MNQ.Z26")
    alone = run(market("MNQ", "CL", seed=7), 1_000)
    assert seen[: len(alone)] == alone
    assert run(market("MNQ", "CL", seed=8), 1_000)[:10] != alone[:10]


@pytest.fixture(scope="module")
def ten_minutes() -> dict[str, list[Message]]:
    by_name: dict[str, list[Message]] = {"MNQ": [], "ES": []}
    playing = market(*by_name, seed=3)
    names = dict(zip([contract.contract_id for contract in playing.contracts], by_name, strict=True))
    for message in playing.play(START_NS)[1]:
        if message.time_ns > START_NS + 600 * NS_PER_S:
            return by_name
        by_name[names[message.contract_id]].append(message)
    raise AssertionError("the market has no end")


def mids(messages: list[Message], step_s: int) -> np.ndarray:
    """Mid prices on a grid of time."""
    quote: dict[str, Any] = {}
    times, prices = [], []
    for message in messages:
        if message.stream == "quotes":
            quote |= body(message)
            if {"bestBid", "bestAsk"} <= quote.keys():
                times.append(message.time_ns)
                prices.append(float(quote["bestBid"] + quote["bestAsk"]) / 2)
    grid = START_NS + np.arange(10, 600, step_s) * NS_PER_S
    return np.array(prices)[np.searchsorted(times, grid, side="right") - 1]


def prints(messages: list[Message]) -> list[dict[str, Any]]:
    return [entry for message in messages if message.stream == "trades" for entry in body(message)]


@pytest.mark.parametrize("name", ["MNQ", "ES"])
def test_comes_at_the_rate_that_was_asked_for_and_in_bursts(ten_minutes: dict[str, list[Message]], name: str):
    seconds = np.bincount([(message.time_ns - START_NS) // NS_PER_S for message in ten_minutes[name]], minlength=600)
    assert 0.6 * RATE < seconds.mean() < 1.5 * RATE
    assert seconds.var() > 10 * seconds.mean()


def test_the_streams_share_the_rate_as_on_the_gateway(ten_minutes: dict[str, list[Message]]):
    counts = Counter(message.stream for message in ten_minutes["MNQ"])
    shares = {stream: count / counts.total() for stream, count in counts.items()}
    assert shares == pytest.approx({"quotes": 42 / 124, "trades": 20 / 124, "depth": 62 / 124}, abs=0.06)


def test_the_spread_is_one_tick_most_of_the_time(ten_minutes: dict[str, list[Message]]):
    quote: dict[str, Any] = {}
    spreads = Counter[Decimal]()
    for message in ten_minutes["ES"]:
        if message.stream == "quotes":
            quote |= body(message)
            if {"bestBid", "bestAsk"} <= quote.keys():
                spreads[Decimal(quote["bestAsk"] - quote["bestBid"])] += 1
    assert spreads[Decimal("0.25")] > 0.7 * spreads.total()


def test_signs_have_long_memory(ten_minutes: dict[str, list[Message]]):
    signs = np.array([1 - 2 * entry["type"] for entry in prints(ten_minutes["ES"])])
    memory = {lag: np.corrcoef(signs[:-lag], signs[lag:])[0, 1] for lag in (1, 10, 50)}
    assert 0.1 < memory[1] < 0.6
    assert memory[1] > memory[10] > 0.03
    assert memory[50] > 0.01


def test_sizes_are_heavy_tailed_and_often_round(ten_minutes: dict[str, list[Message]]):
    sizes = np.array([entry["volume"] for entry in prints(ten_minutes["ES"])])
    assert np.median(sizes) <= 3
    assert sizes.max() > 20 * sizes.mean()
    assert (sizes == 10).sum() > 2 * (sizes == 9).sum()


def test_contracts_move_together_and_more_so_over_longer_times(ten_minutes: dict[str, list[Message]]):
    correlation = {
        step_s: np.corrcoef([np.diff(mids(ten_minutes[name], step_s)) for name in ("MNQ", "ES")])[0, 1]
        for step_s in (1, 15)
    }
    assert correlation[15] > correlation[1] > 0.3
    assert correlation[15] > 0.55


def test_contracts_of_one_underlying_have_one_price():
    playing = market("NQ", "MNQ")
    by_id: dict[str, dict[str, Any]] = {contract.contract_id: {} for contract in playing.contracts}
    apart = []
    for message in run(playing, 20_000):
        if message.stream == "quotes":
            by_id[message.contract_id] |= body(message)
            asks = [quote["bestAsk"] for quote in by_id.values() if "bestAsk" in quote]
            apart += [abs(float(asks[0] - asks[1])) / 0.25] if len(asks) == 2 else []
    assert np.mean(apart) < 4


def test_buyers_move_prices_up(ten_minutes: dict[str, list[Message]]):
    flow = np.zeros(600)
    for message in ten_minutes["MNQ"]:
        if message.stream == "trades":
            second = (message.time_ns - START_NS) // NS_PER_S
            flow[second] += sum(entry["volume"] * (1 - 2 * entry["type"]) for entry in body(message))
    assert np.corrcoef(flow[10:599], np.diff(mids(ten_minutes["MNQ"], 1)))[0, 1] > 0.2


def test_seconds_do_not_foretell_much_of_the_next(ten_minutes: dict[str, list[Message]]):
    returns = np.diff(mids(ten_minutes["MNQ"], 1))
    assert abs(np.corrcoef(returns[:-1], returns[1:])[0, 1]) < 0.2
