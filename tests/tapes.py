"""Tapes of our own making, for tests that must pass without anybody's data."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CONTRACT", "START_NS", "records", "write_tape"]

CONTRACT = "CON.F.US.MNQ.Z26"
START_NS = 1_795_000_000_000_000_000


def records(count: int, *, contract_id: str = CONTRACT, seed: int = 1) -> list[bytes]:
    """Hub records of all streams, of one entry or several, as an object or an array, with a null now and then."""
    dice = random.Random(seed)
    made = []
    price = 29_547.0
    for number in range(count):
        price += dice.choice((-0.25, 0, 0.25))
        time = f"2026-11-18T13:{number // 60 % 60:02d}:{number % 60:02d}.{dice.randrange(10**7):07d}+00:00"
        kind = dice.choice(("Quote", "Trade", "Depth", "Depth"))
        if kind == "Quote":
            quote = {"symbol": "F.US.MNQ", "bestBid": price, "bestAsk": price + 0.25, "volume": number}
            kept = {name: quote[name] for name in sorted(dice.sample(sorted(quote), dice.randint(1, 4)))}
            data: object = kept | {"lastUpdated": time, "timestamp": time}
        elif kind == "Trade":
            trade = {"symbolId": "F.US.MNQ", "price": price, "timestamp": time, "type": dice.randint(0, 1), "volume": 1}
            data = trade if dice.random() < 0.3 else [trade] * dice.randint(1, 3)
        else:
            entry = {"timestamp": time, "type": dice.randint(0, 11), "price": price, "volume": 3, "currentVolume": 0}
            data = [entry if dice.random() < 0.95 else None for _ in range(dice.randint(1, 5))]
        message = {"type": 1, "target": f"Gateway{kind}", "arguments": [contract_id, data]}
        made.append(json.dumps(message, separators=(",", ":")).encode())
    return made


def write_tape(path: Path, messages: list[bytes], *, interval_ns: int = 1_000_000) -> Path:
    """Write records as a tape, one each `interval_ns`."""
    lines = (b"%d %s\n" % (START_NS + number * interval_ns, message) for number, message in enumerate(messages))
    path.write_bytes(b"".join(lines))
    return path
