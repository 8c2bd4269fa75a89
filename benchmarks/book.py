"""How fast the order book is, against the plainest loop with dicts, within one run.

    python benchmarks/book.py [TAPE]

The first feed is a tape (by default the hour of ES in ../shared); its ladders have about ten levels a side. The second
is synthetic and has the gateway's own shape: 300 levels a side, told in one snapshot, then small changes around the
best price. Both books give ten levels after every message.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from figures import Figure, say
from inputs import TAPE

from mdcapture.interop.importing import import_tape
from mdcapture.live.book import Book
from mdcapture.metrics.book import book_snapshots, level_columns
from mdcapture.session import open_lake

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS = 10
ASK, BID, RESET = 1, 2, 6

Message = list[tuple[int, float, int]]
Sides = tuple[list[tuple[float, int]], list[tuple[float, int]]]


class PlainBook:
    """A dict a side, sorted at every look."""

    def __init__(self) -> None:
        self.sides: dict[int, dict[float, int]] = {ASK: {}, BID: {}}

    def apply_message(self, entries: Message) -> None:
        """Take in the entries of one message."""
        for kind, price, size in entries:
            if kind == RESET:
                self.sides = {ASK: {}, BID: {}}
            elif kind in self.sides and size:
                self.sides[kind][price] = size
            elif kind in self.sides:
                self.sides[kind].pop(price, None)

    def levels(self, count: int) -> Sides:
        """The best bids and asks."""
        asks, bids = self.sides[ASK], self.sides[BID]
        return sorted(bids.items(), reverse=True)[:count], sorted(asks.items())[:count]


def plain_snapshots(depth: pl.DataFrame) -> pl.DataFrame:
    """What `book_snapshots` gives, by a loop over the rows."""
    book, rows = PlainBook(), []
    for _, message in groupby(depth.iter_rows(named=True), key=lambda row: row["seq"]):
        for row in message:
            book.apply_message([(row["dom_type"], row["price"], row["volume"])])
        rows.append([row["seq"], row["recv_ns"], *plain_levels(book)])
    types = {name: pl.Float64 if "price" in name else pl.Int64 for name in level_columns(LEVELS)}
    return pl.DataFrame(rows, {"seq": pl.Int64, "recv_ns": pl.Int64, **types}, orient="row")


def plain_levels(book: PlainBook) -> list[float | None]:
    """The values of a snapshot's levels."""
    values: list[float | None] = []
    bids, asks = book.levels(LEVELS)
    for m in range(LEVELS):
        for side in (bids, asks):
            values += side[m] if m < len(side) else (None, None)
    return values


def run_live(book: Book | PlainBook, messages: list[Message]) -> None:
    """Message after message, with a look after each."""
    for entries in messages:
        book.apply_message(entries)
        book.levels(LEVELS)


def gateway_shaped(messages: int = 20_000, levels: int = 300) -> pl.DataFrame:
    """A reset, a snapshot of the whole ladder, then two changed rows a message near a best price that stays."""
    rng = random.Random(1)
    entries: list[Message] = [[(RESET, 0.0, 0)]]
    entries.append([(kind, 5000 + (2 * kind - 3) * -0.25 * m, 9) for kind in (ASK, BID) for m in range(1, levels)])
    for _ in range(messages):
        kinds = [rng.choice((ASK, BID)) for _ in range(2)]
        entries.append([(k, 5000 + (2 * k - 3) * -0.25 * rng.randint(1, 15), rng.randrange(1, 90)) for k in kinds])
    rows = [(seq, seq * 1000, pos, *entry) for seq, message in enumerate(entries) for pos, entry in enumerate(message)]
    types = {"dom_type": pl.Int8, "price": pl.Float64, "volume": pl.Int64}
    return pl.DataFrame(rows, {"seq": pl.Int64, "recv_ns": pl.Int64, "pos": pl.Int64, **types}, orient="row")


def best_s(run: Callable[[], object], times: int) -> float:
    """The quickest of several runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def compare(name: str, depth: pl.DataFrame) -> None:
    """Check that the books agree, and print how fast they are."""
    grouped = depth.group_by("seq", maintain_order=True).agg("dom_type", "price", "volume")
    messages = [list(zip(*lists, strict=True)) for _, *lists in grouped.iter_rows()]
    same = ["seq", "recv_ns", *level_columns(LEVELS)]
    if not plain_snapshots(depth).equals(book_snapshots(depth, LEVELS).select(same)):
        sys.exit(f"{name}: the two books differ")
    batch_s, plain_s = best_s(lambda: book_snapshots(depth, LEVELS), 7), best_s(lambda: plain_snapshots(depth), 2)
    live_s, naive_s = best_s(lambda: run_live(Book(), messages), 3), best_s(lambda: run_live(PlainBook(), messages), 2)
    for what, ours_s, theirs_s, goal in (("history", batch_s, plain_s, "≥ 20"), ("live", live_s, naive_s, "≥ 1.5")):
        ours, theirs = (len(messages) / seconds for seconds in (ours_s, theirs_s))
        say(Figure(f"book, {what} ({name})", ours, "messages/s", "a loop with dicts", theirs, ours / theirs, goal))
    say(Figure(f"book, history ({name})", 1e6 * batch_s / depth.height, "s a million rows", goal="≤ 1"))


def main() -> None:
    """Run both feeds."""
    tape = Path(sys.argv[1]) if len(sys.argv) > 1 else TAPE
    if tape.exists():
        with tempfile.TemporaryDirectory() as root:
            import_tape(str(tape), Path(root))
            compare("tape", open_lake(root).session().depth().collect())
    else:
        print(f"no tape at {tape}: only the synthetic feed")
    compare("300 levels a side", gateway_shaped())


if __name__ == "__main__":
    main()
