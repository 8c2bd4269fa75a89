"""A recorder at a gateway that fails, and an exact account of what it missed and of what it says that it missed.

The tape's messages are numbered, and come at known times. So what was generated and not received is known message by
message, and must lie in a gap that begins with the last message before it and ends with the first one after it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from tapes import CONTRACT, START_NS

import mdcapture as md
from mdcapture.capture.recorder import Captured
from mdcapture.lake.schema import STREAMS, IncidentKind
from mdcapture.lake.verify import Problem, verify
from mdcapture.simulator.server import Simulator, SimulatorConfig

if TYPE_CHECKING:
    from pathlib import Path


__all__ = ["Account", "Gap", "numbered_tape", "random_faults", "record_through"]

INTERVAL_NS = 2_000_000
TARGETS = dict(zip(("Quote", "Trade", "Depth"), STREAMS, strict=True))
RECORD = re.compile(rb'\{"type":1,"target":"Gateway(Quote|Trade|Depth)","arguments":\["' + CONTRACT.encode())
NUMBER = re.compile(rb'"price":29547\.25,"volume":(\d+)\}\]?\]\}$')
STALL_S = 0.4

COMPRESSED = {
    "watch_s": 0.05,
    "stall_min_s": STALL_S,
    "stall_max_s": STALL_S,
    "answer_s": 0.5,
    "silence_s": 2.0,
    "reconnect_first_s": 0.05,
    "reconnect_max_s": 0.2,
    "logout_first_s": 0.1,
    "logout_max_s": 0.2,
    "suspended_s": 60.0,
    "calendar": "always",
    "backfill_delay_s": 0.0,
}
"""Half a minute of patience becomes half a second."""

# Each leaves the recorder something to come back from; what is about doors needs somebody who goes through them.
FAULTS = (
    "close@{0}",
    "close-forever@{0}",
    "reset@{0}",
    "logout@{0}",
    "freeze:quotes@{0}+1.2",
    "freeze:trades@{0}",
    "freeze:depth@{0}",
    "freeze@{0}+1",
    "silence@{0}+1.5",
    "expire@{0} reset@{0}",
    "revoke@{0} reset@{0}",
    "http:500@{0}+0.4 revoke@{0} reset@{0}",
    "http:429@{0}+0.4 expire@{0} close@{0}",
    "refuse@{0}+0.5",
    "deny:trades@{0}+0.4 reset@{0}",
    "deny@{0}+0.3 close@{0}",
    "ignore:quotes@{0}+0.4 reset@{0}",
)


def numbered_tape(path: Path, duration_s: float) -> Path:
    """A tape whose messages of a stream are numbered from 0 by their `volume`, the streams taking turns."""
    entry = '"timestamp":"2026-11-18T13:00:00+00:00","price":29547.25,"volume":'
    data = {"Quote": f"{{{entry}%d}}", "Trade": f'[{{"type":0,{entry}%d}}]', "Depth": f'[{{"type":1,{entry}%d}}]'}
    with path.open("w") as tape:
        for place in range(int(duration_s * 1e9 / INTERVAL_NS)):
            number, turn = divmod(place, len(STREAMS))
            kind = list(TARGETS)[turn]
            record = f'{{"type":1,"target":"Gateway{kind}","arguments":["{CONTRACT}",{data[kind] % number}]}}'
            tape.write(f"{START_NS + place * INTERVAL_NS} {record}\n")
    return path


def random_faults(seed: int, duration_s: float, *, mean_s: float = 0.7) -> list[str]:
    """Faults of all kinds, as they come: one may strike before the one before is over."""
    dice = random.Random(seed)
    faults = []
    at_s = 0.5
    while at_s < duration_s - 2.5:
        faults += dice.choice(FAULTS).format(f"{at_s:.3f}").split()
        at_s += dice.expovariate(1 / mean_s)
    return faults


class Gap(NamedTuple):
    from_ns: int
    to_ns: int


class Account(NamedTuple):
    """What came, per stream: (receive time, number) in order, the number None for garbage; and what was said."""

    captured: Captured
    session: md.Session
    problems: list[Problem]
    played: int
    received: dict[str, list[tuple[int, int | None]]]
    gaps: dict[str, list[Gap]]
    incidents: dict[str, list[Gap]]

    def missing(self, stream: str) -> int:
        """How many messages of a stream were generated and not received."""
        turn = list(STREAMS).index(stream)
        generated = len(range(turn, self.played, len(STREAMS)))
        return generated - len({number for _, number in self.received[stream] if number is not None})

    def uncovered(self, stream: str) -> list[Gap]:
        """The times of missing messages that no gap covers from the message before them to the one after them."""
        times = [at_ns for at_ns, _ in self.received[stream]]
        covered = set()
        for gap in self.gaps[stream]:
            inside = times[bisect_left(times, gap.from_ns) : bisect_right(times, gap.to_ns)]
            covered.update(itertools.pairwise(inside))
        numbered = [(place, number) for place, (_, number) in enumerate(self.received[stream]) if number is not None]
        found = []
        for (first, before), (last, after) in itertools.pairwise(numbered):
            if after != before + 1:
                found += [Gap(*edge) for edge in itertools.pairwise(times[first : last + 1]) if edge not in covered]
        return found

    def untrue(self, stream: str) -> list[Gap]:
        """The gaps that do not reach from one message of the stream to the next, but for one at the session's end."""
        times = [at_ns for at_ns, _ in self.received[stream]]
        spans = set(itertools.pairwise(times))
        end = max((gap.to_ns for gaps in self.gaps.values() for gap in gaps), default=0)
        return [gap for gap in self.gaps[stream] if gap not in spans and gap != (times[-1], end)]

    def doubled(self, stream: str) -> list[object]:
        """Messages that came twice or out of order, and gaps that overlap."""
        numbers = [number for _, number in self.received[stream] if number is not None]
        again: list[object] = [(one, two) for one, two in itertools.pairwise(numbers) if two <= one]
        ordered = sorted(self.gaps[stream])
        return again + [(one, two) for one, two in itertools.pairwise(ordered) if two.from_ns < one.to_ns]


def record_through(faults: list[str], duration_s: float, folder: Path, **settings: object) -> Account:
    """Record a numbered tape to its end, while these faults strike."""
    config = SimulatorConfig(
        tape=str(numbered_tape(folder / "tape.ndjson", duration_s)),
        faults=tuple(faults),
        ping_s=0.25,
        settle_s=0.1,
    )

    async def run() -> tuple[Captured, int]:
        async with Simulator(config) as simulator:
            options = {"gateway": simulator.api, "lake": str(folder / "lake"), "contracts": [CONTRACT]}
            recorded = md.Config(**(options | {"username": "me"} | COMPRESSED | settings))
            async with md.Recorder(recorded, api_key="demo") as recorder:
                running = asyncio.create_task(recorder.arun())
                played = asyncio.create_task(simulator.wait_until_played())
                await asyncio.wait([running, played], return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(0.3)
                recorder.stop()
                return await running, simulator.played

    captured, played = asyncio.run(run())
    session = md.open_lake(folder / "lake").session()
    received: dict[str, list[tuple[int, int | None]]] = defaultdict(list)
    for recv_ns, payload in session.messages().sort("seq").select("recv_ns", "payload").collect().iter_rows():
        record = payload.encode()
        if match := RECORD.match(record):
            number = NUMBER.search(record)
            received[TARGETS[match[1].decode()]].append((recv_ns, int(number[1]) if number else None))
    incidents: dict[str, list[Gap]] = defaultdict(list)
    gaps: dict[str, list[Gap]] = defaultdict(list)
    for kind, stream, from_ns, to_ns in (
        session.incidents().sort("seq", "recv_ns").select("kind", "stream", "from_ns", "to_ns").collect().iter_rows()
    ):
        incidents[kind].append(Gap(from_ns, to_ns))
        if kind == IncidentKind.GAP:
            gaps[stream].append(Gap(from_ns, to_ns))
    problems = verify(folder / "lake", session.session_id, deep=True)
    return Account(captured, session, problems, played, received, gaps, incidents)
