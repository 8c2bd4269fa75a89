"""A synthetic market: a small, seeded model of order flow in several correlated futures, in the gateway's wire form.

It is a model to look at charts and to test metrics with, not to trade on. What it is made of:

- **Fair value.** Each underlying has an efficient price that nobody sees: a Brownian motion, correlated with the others
  by one common factor. Contracts of one underlying (NQ and MNQ, this expiry and the next) share it.
- **Arrivals** are a Hawkes process with an exponential kernel, drawn exactly (Dassios and Zhao 2013, Exact simulation
  of Hawkes process with exponentially decaying intensity, Electronic Communications in Probability 18). Its base
  is a level of activity that drifts for all contracts together, and scales the variance of the fair value as well.
- **Prices follow the fair value on their grid**: a best price that it has passed by more than a margin is stale, and is
  taken or pulled; the other side then steps in (the zones of uncertainty of Robert and Rosenbaum 2011, A new
  approach for the dynamics of ultra-high-frequency data: the model with uncertainty zones, Journal of Financial
  Econometrics 9). That makes a spread of one tick most of the time, bounces, and informed trades.
- **Sizes at the best prices** are attracted to a target by limit orders and cancellations (in the manner of Huang,
  Lehalle and Rosenbaum 2015, Simulating and analyzing order book data: the queue-reactive model, Journal of the
  American Statistical Association 110); the target is smaller on the side towards which the fair value leans, so
  that the imbalance of the queues foretells the price.
- **Signs** of market orders have long memory, because a few traders split orders of Pareto-distributed length
  (Lillo, Mike and Farmer 2005, Theory for long memory in supply and demand, Physical Review E 71): with
  tail exponent a, the autocorrelation falls like lag to the power 1 - a.
- **Impact**: the part of a sign that could not be expected moves the fair value, so that prices stay unpredictable
  although signs are not.
- **Sizes** of orders are Pareto-tailed, some of them round.

Everything comes from the seed alone: the sequence does not depend on when, or how fast, it is taken.
"""

from __future__ import annotations

import heapq
import math
import random
from typing import TYPE_CHECKING, Final

from mdcapture.lake.schema import DomType
from mdcapture.simulator.book import BookSide, Entry
from mdcapture.simulator.feed import Message
from mdcapture.simulator.records import RecordWriter
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mdcapture.gateway.instruments import Listing
    from mdcapture.lake.manifest import Contract

__all__ = ["Market"]

_DAY_S: Final = 82_800  # of a trading day of 23 hours, over which the daily volatility is spread
_ACTIVITY_STD: Final = 0.25  # of the logarithm of the activity,
_ACTIVITY_S: Final = 180.0  # which forgets itself in this time
_IMPACT_SHARE: Final = 0.2  # of the fair value's variance that comes from trades

_MESSAGES_PER_ARRIVAL: Final = 2.7  # measured, to turn a rate of messages into one of arrivals,
_TRADES_PER_MESSAGE: Final = 0.17  # and of trades
_BRANCHING: Final = 0.75  # how many arrivals an arrival causes
_BURST_ARRIVALS: Final = 2.0  # the time in which a burst fades, in mean times between arrivals

_UNCERTAIN: Final = 0.25  # ticks that the fair value has to pass a best price by before anybody is sure
_STALE_TAKEN: Final = 0.5  # stale prices that are taken, not pulled
_STEP_IN: Final = 0.8  # arrivals at a wide spread that narrow it
_FIRST_LOTS: Final = (0.1, 0.6)  # the size that they bring, as a share of the target
_MARKET_ORDER: Final = 0.55  # other arrivals that trade; the rest are limit orders and cancellations
_WALKING: Final = 0.08  # market orders that take more than half of the best level, and go on behind it

_LEVELS: Final = 300  # of a side
_LEVEL_TAIL: Final = 1.2  # Pareto exponent of the distance at which limit orders rest
_MOVED_ORDER: Final = 0.35  # limit orders that come from, or cancellations that go to, the next level
_TRADERS: Final = 4  # who split their orders at a time,
_SPLIT_TAIL: Final = 1.5  # the Pareto exponent of how many orders they make of one
_EXPECTATION: Final = 0.1  # the weight of the last sign in what is expected of the next
_SIZE_TAIL: Final = 1.4  # Pareto exponent of sizes,
_MAX_LOTS: Final = 400  # their bound,
_ROUND: Final = 0.12  # and how many are round instead
_ROUND_LOTS: Final = (5, 10, 10, 20, 25, 50, 100)

_DELAY_LOG_NS: Final = (15.0, 0.5)  # the exchange's time is 3 ms before ours in the median, log-normally
_UPDATED_BEFORE_NS: Final = 300_000  # and the gateway's is this much


class _FairValues:
    """The hidden prices: logarithms relative to the start, by underlying."""

    def __init__(self, listings: Sequence[Listing], rates: Mapping[str, float], seed: int) -> None:
        self._rng = random.Random(f"{seed} fair values")  # noqa: S311 - seeded noise, no secret
        self._loading = {it.instrument.underlying: it.instrument.factor_loading for it in listings}
        self._std = {it.instrument.underlying: it.instrument.daily_volatility / math.sqrt(_DAY_S) for it in listings}
        trades_per_s = dict.fromkeys(self._loading, 0.0)
        for it in listings:
            trades_per_s[it.instrument.underlying] += rates[it.contract.contract_id] * _TRADES_PER_MESSAGE
        self._impact = {name: std * math.sqrt(_IMPACT_SHARE / trades_per_s[name]) for name, std in self._std.items()}
        self._own = dict.fromkeys(self._loading, 0.0)
        self._common = 0.0
        self._log_activity = 0.0
        self._clock_s = 0.0
        self._variance = 0.0
        self._own_variance = dict.fromkeys(self._loading, 0.0)

    @property
    def activity(self) -> float:
        """How busy the market is; 1 on average."""
        return math.exp(self._log_activity - _ACTIVITY_STD**2 / 2)

    def advance(self, underlying: str, to_s: float) -> float:
        """Let time pass, and return the fair value of one underlying."""
        gauss = self._rng.gauss
        passed_s, self._clock_s = to_s - self._clock_s, to_s
        variance = passed_s * self.activity
        kept = math.exp(-passed_s / _ACTIVITY_S)
        self._log_activity = kept * self._log_activity + _ACTIVITY_STD * math.sqrt(1 - kept**2) * gauss()
        self._variance += variance
        self._common += math.sqrt(variance) * gauss()
        missed = self._variance - self._own_variance[underlying]
        self._own_variance[underlying] = self._variance
        loading, std = self._loading[underlying], self._std[underlying]
        diffusion = std * math.sqrt(1 - _IMPACT_SHARE)
        self._own[underlying] += diffusion * math.sqrt((1 - loading**2) * missed) * gauss()
        return self._own[underlying] + diffusion * loading * self._common

    def push(self, underlying: str, surprise: float) -> None:
        """Move a fair value by a trade: by the part of its sign that came as a surprise."""
        self._own[underlying] += surprise * self._impact[underlying]


class _Arrivals:
    """A Hawkes process of which the next time can be drawn; its mean rate, at an activity of 1, is given."""

    def __init__(self, rate_per_s: float, rng: random.Random) -> None:
        self._rng = rng
        self._base = rate_per_s * (1 - _BRANCHING)
        self._decay = rate_per_s / _BURST_ARRIVALS
        self._excess = 0.0

    def wait_s(self, activity: float) -> float:
        """Draw the time to the next arrival."""
        base, decay = self._base * activity, self._decay
        wait_s = self._rng.expovariate(base)
        if self._excess > 0:
            # The excess fades, and may do so before it has caused an arrival.
            left = 1 + decay / self._excess * math.log(1 - self._rng.random())
            if left > 0:
                wait_s = min(wait_s, -math.log(left) / decay)
        self._excess = self._excess * math.exp(-decay * wait_s) + _BRANCHING * decay
        return wait_s


class _Signs:
    """The signs of market orders: a few traders take turns at random, each buying or selling until he is done."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._traders = [(1, 0)] * _TRADERS
        self._expected = 0.0

    def draw(self) -> int:
        """The next sign: 1 for a buyer, -1 for a seller."""
        turn = self._rng.randrange(_TRADERS)
        sign, left = self._traders[turn]
        if left == 0:
            sign, left = self._rng.choice((-1, 1)), int(2 * self._rng.paretovariate(_SPLIT_TAIL))
        self._traders[turn] = sign, left - 1
        return sign

    def surprise(self, sign: int) -> float:
        """How much a sign differs from what the last ones let expect."""
        surprise = sign - self._expected
        self._expected += _EXPECTATION * surprise
        return surprise


class _Contract:
    """The book, the session and the order flow of one contract."""

    def __init__(self, listing: Listing, fair: _FairValues, rate: float, seed: int) -> None:
        contract_id, instrument = listing.contract.contract_id, listing.instrument
        self._id = contract_id
        self._rng = random.Random(f"{seed} {contract_id}")  # noqa: S311 - seeded noise, no secret
        self._instrument = instrument
        self._write = RecordWriter(listing)
        self._start = instrument.start_price / float(instrument.tick_size)
        self._fair = fair
        self.arrivals = _Arrivals(rate / _MESSAGES_PER_ARRIVAL, self._rng)
        self._signs = _Signs(self._rng)
        start = round(self._start)
        self._asks = BookSide(+1, start + 1, _LEVELS, self._fresh)
        self._bids = BookSide(-1, start, _LEVELS, self._fresh)
        self._settlement = self._open = self._high = self._low = self._last = start
        self._volume = 0
        self._volume_at: dict[int, int] = {}
        self._exch_ns = 0

    def _fresh(self, level: int) -> int:
        """The size of a level that appears."""
        return max(1, round(self._target(level) * self._rng.gammavariate(4, 0.25)))

    def _target(self, level: int) -> float:
        return self._instrument.touch_lots * (1 + 1.2 * (1 - math.exp(-level / 2)))

    def arrive(self, time_ns: int, time_s: float) -> list[Message]:
        """Let one order arrive."""
        fair = self._start * math.exp(self._fair.advance(self._instrument.underlying, time_s))
        self._exch_ns = max(self._exch_ns, time_ns - round(self._rng.lognormvariate(*_DELAY_LOG_NS)))
        asks, bids = self._asks, self._bids
        best_ask, ask_size, best_bid, bid_size = asks.best, asks.sizes[0], bids.best, bids.sizes[0]
        sign, prints, entries = self._act(fair)
        entries += asks.pointers(best_ask, ask_size) + bids.pointers(best_bid, bid_size)
        messages = self._traded(time_ns, sign, prints) if prints else []
        messages.append(self._depth(time_ns, entries))
        moved = f'"bestBid":{self._write.price(bids.best)},' if bids.best != best_bid else ""
        moved += f'"bestAsk":{self._write.price(asks.best)},' if asks.best != best_ask else ""
        if moved:
            messages.append(self._quote(time_ns, moved))
        return messages

    def _act(self, fair: float) -> tuple[int, list[tuple[int, int]], list[Entry]]:
        """What the order does at a fair value in ticks: a trade's sign and its prints, and the rows of the book."""
        rng, asks, bids = self._rng, self._asks, self._bids
        if not bids.best - _UNCERTAIN <= fair <= asks.best + _UNCERTAIN:
            stale = asks if fair > asks.best else bids
            if rng.random() < _STALE_TAKEN:
                return self._take(stale, stale.sizes[0])
            return 0, [], _pull(stale, fair)
        if asks.best - bids.best > 1 and rng.random() < _STEP_IN:
            return 0, [], self._step_in(fair)
        if rng.random() < _MARKET_ORDER:
            side = asks if self._signs.draw() > 0 else bids
            lots = self._lots()
            return self._take(side, lots if rng.random() < _WALKING else min(lots, 1 + side.sizes[0] // 2))
        return 0, [], self._rest(fair)

    def _take(self, side: BookSide, lots: int) -> tuple[int, list[tuple[int, int]], list[Entry]]:
        """A market order against a side of the book."""
        prints: list[tuple[int, int]] = []
        entries: list[Entry] = []
        while lots > 0:
            filled = min(lots, side.sizes[0])
            prints.append((side.best, filled))
            entries += side.change(0, -filled)
            lots -= filled
        self._fair.push(self._instrument.underlying, self._signs.surprise(side.outward))
        return side.outward, prints, entries

    def _step_in(self, fair: float) -> list[Entry]:
        """Someone narrows the spread, from the side that lags behind the fair value."""
        asks, bids = self._asks, self._bids
        side = bids if 2 * fair > asks.best + bids.best else asks
        entries: list[Entry] = []
        while asks.best - bids.best > 1 and (not entries or side.outward * (side.best - side.outward - fair) >= 0):
            entries += side.improve(max(1, round(self._target(0) * self._rng.uniform(*_FIRST_LOTS))))
        return entries

    def _rest(self, fair: float) -> list[Entry]:
        """A limit order, a cancellation, or an order that is moved: what the level lacks, or has too much of."""
        rng = self._rng
        side = self._asks if rng.random() < 0.5 else self._bids  # noqa: PLR2004 - a fair coin
        level = min(int(rng.paretovariate(_LEVEL_TAIL)), _LEVELS - 1) - 1
        target = self._target(level)
        if level == 0:
            target *= 0.4 + 1.2 * min(1.0, abs(side.best - fair) / (self._asks.best - self._bids.best))
        lots = self._lots() + self._lots()
        sign = 1 if rng.random() * (target + side.sizes[level]) < target else -1
        entries = side.change(level, max(sign * lots, 1 - side.sizes[level]))
        if rng.random() < _MOVED_ORDER:
            entries += side.change(level + 1, -sign * lots)
        return entries

    def _lots(self) -> int:
        rng = self._rng
        return rng.choice(_ROUND_LOTS) if rng.random() < _ROUND else min(int(rng.paretovariate(_SIZE_TAIL)), _MAX_LOTS)

    def _traded(self, time_ns: int, sign: int, prints: list[tuple[int, int]]) -> list[Message]:
        """The print, the volume at its prices, and what it changes of the session."""
        before = self._last, self._high, self._low
        entries = []
        for ticks, lots in prints:
            self._volume += lots
            self._volume_at[ticks] = self._volume_at.get(ticks, 0) + lots
            self._high, self._low, self._last = max(self._high, ticks), min(self._low, ticks), ticks
            entries.append(Entry(DomType.TRADE, ticks, self._volume_at[ticks], lots))
        fields = ""
        if self._last != before[0]:
            fields += self._last_fields()
        if self._high != before[1]:
            fields += f'"high":{self._write.price(self._high)},'
            entries.append(Entry(DomType.HIGH, self._high, 0))
        if self._low != before[2]:
            fields += f'"low":{self._write.price(self._low)},'
            entries.append(Entry(DomType.LOW, self._low, 0))
        trades = self._write.trades(prints, 0 if sign > 0 else 1, self._exch_ns)
        return [
            Message(time_ns, self._id, "trades", trades),
            self._depth(time_ns, entries),
            self._quote(time_ns, f'{fields}"volume":{self._volume},'),
        ]

    def _last_fields(self) -> str:
        change = self._last - self._settlement
        price, percent = self._write.price, round(change / self._settlement, 6)
        return f'"lastPrice":{price(self._last)},"change":{price(change)},"changePercent":{percent},'

    def _quote(self, time_ns: int, fields: str, *, full: bool = False) -> Message:
        record = self._write.quote(fields, self._exch_ns or time_ns, time_ns - _UPDATED_BEFORE_NS, full=full)
        return Message(time_ns, self._id, "quotes", record)

    def _depth(self, time_ns: int, entries: list[Entry]) -> Message:
        return Message(time_ns, self._id, "depth", self._write.depth(entries, self._exch_ns or time_ns))

    def full_quote(self, time_ns: int) -> Message:
        """All fields."""
        price = self._write.price
        return self._quote(
            time_ns,
            f'"bestBid":{price(self._bids.best)},"bestAsk":{price(self._asks.best)},{self._last_fields()}'
            f'"open":{price(self._open)},"high":{price(self._high)},"low":{price(self._low)},"volume":{self._volume},',
            full=True,
        )

    def full_depth(self, time_ns: int) -> list[Message]:
        """A reset, everything in one array, and the best prices."""
        volumes = [Entry(DomType.TRADE, ticks, volume) for ticks, volume in sorted(self._volume_at.items())]
        range_ = [Entry(DomType.HIGH, self._high, 0), Entry(DomType.LOW, self._low, 0)]
        return [
            self._depth(time_ns, [Entry(DomType.RESET, 0, 0)]),
            self._depth(time_ns, self._asks.rows() + self._bids.rows() + volumes + range_),
            self._depth(time_ns, self._asks.pointers() + self._bids.pointers()),
        ]


def _pull(side: BookSide, fair: float) -> list[Entry]:
    """Whoever made the stale prices takes them back, all of them."""
    entries: list[Entry] = []
    while side.outward * (fair - side.best) > 0:
        entries += side.deplete()
    return entries


class Market:
    """All contracts of the synthetic market, merged in the order of time; a `Feed`.

    Args:
        listings: What is listed.
        rates: Messages a second on average, of each contract by its id.
        seed: What everything is drawn from.
    """

    def __init__(self, listings: Sequence[Listing], rates: Mapping[str, float], seed: int) -> None:
        self.contracts: list[Contract] = [listing.contract for listing in listings]
        self.active = frozenset(listing.contract.contract_id for listing in listings if listing.active)
        self._fair = _FairValues(listings, rates, seed)
        self._books = {
            contract_id: _Contract(listing, self._fair, rates[contract_id], seed)
            for contract_id, listing in ((it.contract.contract_id, it) for it in listings)
        }
        self._now_ns = 0

    def play(self, now_ns: int) -> tuple[int, Iterator[Message]]:
        """Begin at a time; it has no end, and is to be played once."""
        self._now_ns = now_ns
        return now_ns, self._messages(now_ns)

    def snapshot(self, stream: str, contract_id: str) -> list[Message]:
        """The whole book, or the full quote."""
        contract = self._books[contract_id]
        if stream == "depth":
            return contract.full_depth(self._now_ns)
        return [contract.full_quote(self._now_ns)] if stream == "quotes" else []

    def _messages(self, start_ns: int) -> Iterator[Message]:
        contracts = list(self._books.values())
        queue = [(contract.arrivals.wait_s(1.0), index) for index, contract in enumerate(contracts)]
        heapq.heapify(queue)
        while queue:
            time_s, index = queue[0]
            contract = contracts[index]
            self._now_ns = start_ns + int(time_s * NS_PER_S)
            yield from contract.arrive(self._now_ns, time_s)
            heapq.heapreplace(queue, (time_s + contract.arrivals.wait_s(self._fair.activity), index))
