"""A signal while the market moves: told as it is known, and kept in the session's table `signals`.

    python examples/live_signal.py http://127.0.0.1:5000 20 MNQ      a gateway, seconds, a contract

The signal is how the best queues lean at the end of each second in which something traded. What it said is journaled
behind the messages that made it known; a replay of the session says the very same, so that it can be judged on
yesterday (`ofi_signal.py`) and run today.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import mdcapture as md
from mdcapture.live.bars import TimeBars
from mdcapture.live.flow import QueueImbalance

if TYPE_CHECKING:
    from collections.abc import Callable

    from mdcapture.live.bars import Bar
    from mdcapture.live.online import Values

SECOND_NS = 1_000_000_000


def queue_signal(tell: Callable[[str], object] = lambda _line: None) -> md.Signals:
    """The signal, and the metrics that it looks at; each value is told as a line."""
    signals = md.Signals({"lean": QueueImbalance, "seconds": lambda: TimeBars(SECOND_NS)})

    @signals.on_bar("seconds")
    def queue_imbalance(second: Bar, now: Values) -> float | None:
        lean: float | None = now["lean"]
        if lean is not None:
            tell(f"{md.format_ns(now.recv_ns)}  {now.contract_id}  {second.close:,.2f}  {lean:+.2f}")
        return lean

    return signals


def main(gateway: str, duration_s: float, contract: str, lake: str = "data") -> None:
    """Capture with the signal on, then compare what it said with what a replay says."""
    config = md.Config(gateway=gateway, contracts=[contract], duration_s=duration_s, lake=lake)
    with md.Recorder(config) as recorder:
        queue_signal(print).attach(recorder)
        captured = recorder.run()
    session = md.open_lake(lake).session(captured.session_id)
    said = session.signals().drop("session_id").collect()
    replayed = queue_signal().run(md.Replay(session))
    same = said.equals(replayed.select(said.columns))
    print(f"{said.height} rows in the table signals; a replay says {'the same' if same else 'something else'}")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
