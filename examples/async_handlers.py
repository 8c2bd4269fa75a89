"""Live events in async code: read them as they come, beside whatever else the program does.

    python examples/async_handlers.py http://127.0.0.1:5000 10 MNQ      a gateway, seconds, a contract

Nothing here can slow the capture down: a reader that falls behind misses events (an incident says so), the lake none.
"""

from __future__ import annotations

import asyncio
import sys

import mdcapture as md


async def follow(recorder: md.Recorder) -> int:
    """Keep the signed volume of trades, until the capture ends."""
    delta = 0
    async for event in recorder.events():
        if isinstance(event, md.TradeEvent) and event.side is not None:
            delta += event.volume if event.side == md.Side.BUY else -event.volume
    return delta


async def main(gateway: str, duration_s: float, contract: str, lake: str = "data") -> None:
    """Capture and follow at once."""
    config = md.Config(gateway=gateway, contracts=[contract], duration_s=duration_s, lake=lake)
    async with md.Recorder(config) as recorder:

        @recorder.on_incident
        def tell(incident: md.Incident) -> None:
            print(md.format_ns(incident.from_ns), incident.kind, incident.stream or "", incident.detail)

        captured, delta = await asyncio.gather(recorder.arun(), follow(recorder))
    print(f"{captured.trades} trades in {captured.session_id}; bought less sold: {delta} lots")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
