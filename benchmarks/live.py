"""What live metrics cost: each estimator alone, and ten of them beside a recorder under load.

    python benchmarks/live.py [--rate 24000] [--duration 20] [--tape TAPE]

The first part decodes a tape (by default the hour of ES in ../shared) as for handlers, feeds its events to each
estimator, and takes off what the set costs without one; times are those of the processor. The second captures a
synthetic market from a simulator process, with ten metrics attached: what is lost is counted in the sealed session, and
what passed the metrics by, because they were slower, by itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from capture import program
from inputs import TAPE

import mdcapture as md
from mdcapture.capture.events import EventDecoder
from mdcapture.gateway.instruments import list_contracts
from mdcapture.gateway.tape import read_data
from mdcapture.live.bars import DollarBars, TickBars, TimeBars, VolumeBars
from mdcapture.live.estimators import Every
from mdcapture.live.flow import Intensity, MicroPriceState, OrderFlowImbalance, Vpin
from mdcapture.live.online import ESTIMATORS, LiveMetrics
from mdcapture.live.replay import Replay
from mdcapture.metrics.microprice import MicroPrice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mdcapture.capture.events import Event
    from mdcapture.live.estimators import Estimator

    Make = Callable[[], Estimator[Any]]

MODEL = MicroPrice(0.25, np.zeros((2, 9)), np.zeros((2, 9)), 1)
MAKE: Mapping[str, Make] = {
    **ESTIMATORS,
    "vpin": lambda: Vpin(500),
    "intensity": Intensity,
    "micro_price": lambda: MicroPriceState(MODEL),
    "time_bars": lambda: TimeBars(1_000_000_000),
    "tick_bars": lambda: TickBars(100),
    "volume_bars": lambda: VolumeBars(500),
    "dollar_bars": lambda: DollarBars(1e7),
    "order_flow_imbalance each second": lambda: Every(1_000_000_000, OrderFlowImbalance()),
}
TEN = (
    "quoted_spread", "effective_spread", "realized_variance", "delta", "vpin", "order_flow_imbalance",
    "queue_imbalance", "micro_price", "time_bars", "volume_profile",
)  # fmt: skip


def seconds(events: list[Event], make: Mapping[str, Make]) -> float:
    """The quickest of three runs over the events."""
    taken = []
    for _ in range(3):
        live = LiveMetrics(make)
        begin_s = time.process_time()
        for event in events:
            live.update(event)
        taken.append(time.process_time() - begin_s)
    return min(taken)


def decoding_s(tape: Path) -> float:
    """The quickest of three runs that decode the tape for handlers, in batches of 64 messages."""
    records = list(read_data(tape))
    times, texts = [at_ns for at_ns, _ in records], [record for _, record in records]
    taken = []
    for _ in range(3):
        decoder, begin_s = EventDecoder(), time.process_time()
        for first in range(0, len(records), 64):
            decoder.decode(first, times[first : first + 64], texts[first : first + 64])
        taken.append(time.process_time() - begin_s)
    return min(taken)


def cost_of_each(tape: Path) -> None:
    """Print what an event costs, by estimator."""
    events = list(Replay(tape))
    print(f"decoding: {1e6 * decoding_s(tape) / len(events):.2f} µs an event")
    bare_s, own_s = float("inf"), {}
    for name, make in MAKE.items():  # by turns: a processor's pace changes by more than what some of these cost
        bare_s = min(bare_s, seconds(events, {}))
        own_s[name] = seconds(events, {name: make})
    print(
        f"{len(events):,} events; a set without estimators, with its book: {1e6 * bare_s / len(events):.2f} µs an event"
    )
    for name, taken_s in own_s.items():
        print(f"  {name:<34} {1e9 * (taken_s - bare_s) / len(events):6.0f} ns an event")
    ten_s = seconds(events, {name: MAKE[name] for name in TEN})
    print(f"  {'ten together, with the book':<34} {1e9 * ten_s / len(events):6.0f} ns an event")


def under_load(messages_per_s: int, duration_s: float, contracts: int = 4) -> dict[str, float]:
    """Capture with ten metrics attached; the figures."""
    names = [listing.contract.contract_id for listing in list_contracts(datetime.now(UTC).date())][:contracts]
    options = [option for name in names for option in ("--contract", name)]
    live = LiveMetrics({name: MAKE[name] for name in TEN})
    with (
        tempfile.TemporaryDirectory() as folder,
        program("simulate", "--rate", str(messages_per_s / contracts), *options) as simulator,
    ):
        assert simulator.stdout is not None
        api = json.loads(simulator.stdout.readline())["api"]
        config = md.Config(gateway=api, lake=folder, contracts=names, username="bench", duration_s=duration_s)
        cpu_s = time.process_time()
        with md.Recorder(config, api_key="demo") as recorder:
            live.attach(recorder)
            captured = recorder.run()
            figures = recorder.figures()
        cpu_s = time.process_time() - cpu_s
        seq = md.open_lake(folder).session().messages().select("seq").collect()["seq"]
    assert figures is not None
    return {
        "messages": captured.messages,
        "messages_per_s": captured.messages / duration_s,
        "lost": captured.messages - seq.n_unique(),
        "rows": captured.quotes + captured.trades + captured.depth,
        "rows_that_the_metrics_took": sum(figures.rows.values()),
        "messages_that_passed_them_by": figures.dropped,
        "metrics": len(TEN) * len(live.contracts),
        "cpu_percent": 100 * cpu_s / duration_s,
    }


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=24_000, help="messages a second that the market has on average")
    parser.add_argument("--duration", type=float, default=20.0, help="seconds")
    parser.add_argument("--tape", type=Path, default=TAPE)
    chosen = parser.parse_args()
    if chosen.tape.exists():
        cost_of_each(chosen.tape)
    else:
        print(f"no tape at {chosen.tape}: the cost of each is left out")
    print(json.dumps(under_load(chosen.rate, chosen.duration), indent=1))


if __name__ == "__main__":
    main()
