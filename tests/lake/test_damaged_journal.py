"""Whatever of the journal is damaged, wherever: what is left is there, and what is not lies in a gap that ends."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lake_builder import ES, START_NS, Recording, recording, trade

import mdcapture as md
from mdcapture.lake.journal import segments
from mdcapture.lake.layout import journal_folder
from mdcapture.lake.schema import SignalRow
from mdcapture.lake.seal import recover
from mdcapture.lake.verify import verify

SIGNAL = SignalRow(0, START_NS, ES, "flow", 1.0)


class Hurt(NamedTuple):
    """What happens to a closed segment: its bytes from one place to another change, or without another it ends."""

    segment: int
    begin: int
    end: int | None


class Stage(NamedTuple):
    """Segments of so many messages each (None for what a signal said), what happens to them, and if they are sealed."""

    segments: list[list[int | None]]
    hurts: list[Hurt]
    sealed: bool


HURTS = st.builds(Hurt, st.integers(0, 9), st.integers(0, 3000), st.none() | st.integers(1, 600))
STAGES = st.builds(
    Stage,
    st.lists(st.lists(st.integers(1, 3) | st.none(), max_size=4), min_size=1, max_size=3),
    st.lists(HURTS, max_size=3),
    st.booleans(),
)


Blocks = dict[Path, list[tuple[int, range]]]
"""Where the blocks of each segment end, and the messages that they hold."""


def write(session: Recording, stage: Stage, whole: Blocks, said_ns: list[int]) -> None:
    folder = journal_folder(session.root, session.session_id)
    for blocks in stage.segments:
        path = list(segments(folder).values())[-1]
        for messages in blocks:
            if messages is None:
                session.say(SIGNAL)
            else:
                session.receive(*[trade()] * messages)
                said_ns += [session.now_ns] * messages
            held = range(len(said_ns) - (messages or 0), len(said_ns))
            whole.setdefault(path, []).append((path.stat().st_size, held))
        session.roll()


def hurt(whole: Blocks, one: Hurt) -> None:
    """Damage a segment, and forget the blocks that are hit."""
    path = list(whole)[one.segment % len(whole)]
    content = bytearray(path.read_bytes())
    begin = one.begin % (len(content) + 1)
    end = len(content) if one.end is None else min(begin + one.end, len(content))
    content[begin:end] = b"" if one.end is None else bytes((byte + 1) % 256 for byte in content[begin:end])
    path.write_bytes(content)
    starts = [0, *(stop for stop, _ in whole[path])]
    whole[path] = [
        (stop, held if stop <= begin or start >= end else range(0))
        for start, (stop, held) in zip(starts, whole[path], strict=False)
    ]


def holes(left: list[int], said_ns: list[int]) -> set[tuple[int, int]]:
    """From when to when messages are missing, where one follows."""
    times = [START_NS, *(said_ns[number] for number in left)]
    return {(times[at], times[at + 1]) for at, (low, high) in enumerate(pairwise([-1, *left])) if high > low + 1}


def check(root: Path, left: list[int], said_ns: list[int]) -> None:
    session = md.open_lake(root).session()
    assert sorted(session.messages().collect()["seq"]) == left
    if left:
        gaps = session.gaps(ES, ["trades"]).filter(pl.col("from_ns") < said_ns[left[-1]])
        found = set(gaps.select("from_ns", "to_ns").collect().rows())
        assert found >= holes(left, said_ns)
        assert all(to_ns <= said_ns[left[-1]] for _, to_ns in found)
        assert len(session.trades(clean=True).collect()) == len(left)


@settings(max_examples=40, deadline=None)
@given(stages=st.lists(STAGES, min_size=1, max_size=3))
@example(stages=[Stage([[1, 1], [1]], [Hurt(0, 300, None)], sealed=False)])
@example(stages=[Stage([[1, 1]], [Hurt(0, 300, None)], sealed=True), Stage([[1]], [], sealed=True)])
@example(
    stages=[Stage([[1], [1, None], [1]], [Hurt(0, 0, 9), Hurt(1, 9, 9)], sealed=True), Stage([[1]], [], sealed=False)]
)
def test_damage_anywhere_costs_what_it_hits_and_is_a_gap_up_to_what_follows(stages: list[Stage]):
    with tempfile.TemporaryDirectory() as folder:
        root, said_ns, left = Path(folder), [], []
        with recording(root, tick_sizes={ES: 0.25}) as session:
            whole: Blocks = {}
            for stage in stages:
                write(session, stage, whole, said_ns)
                for one in stage.hurts if whole else []:
                    hurt(whole, one)
                if stage.sealed:
                    session.seal()
                    left += [number for blocks in whole.values() for _, held in blocks for number in held]
                    whole.clear()
            left += [number for blocks in whole.values() for _, held in blocks for number in held]
            check(root, left, said_ns)
        recover(root)
        check(root, left, said_ns)
        assert verify(root, session.session_id, deep=True) == []
