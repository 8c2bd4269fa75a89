from __future__ import annotations

import random
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdcapture.errors import UsageError
from mdcapture.interop.importing import import_tape
from mdcapture.live.book import Book, Levels
from mdcapture.metrics.book import book_snapshots, entry_fault
from mdcapture.session import open_lake

if TYPE_CHECKING:
    from pathlib import Path

    from hypothesis.strategies import SearchStrategy

Entry = tuple[int | None, float | None, int | None]
SCHEMA = {
    "seq": pl.Int64,
    "recv_ns": pl.Int64,
    "pos": pl.Int32,
    "dom_type": pl.Int8,
    "price": pl.Float64,
    "volume": pl.Int64,
}


def as_frame(messages: list[list[Entry]]) -> pl.DataFrame:
    rows = [(seq, 10 * seq, pos, *entry) for seq, entries in enumerate(messages) for pos, entry in enumerate(entries)]
    return pl.DataFrame(rows, SCHEMA, orient="row")


def as_levels(snapshot: dict[str, object], count: int) -> Levels:
    sides = [
        [
            (snapshot[f"{side}_price_{m}"], snapshot[f"{side}_size_{m}"])
            for m in range(count)
            if snapshot[f"{side}_price_{m}"] is not None
        ]
        for side in ("bid", "ask")
    ]
    return Levels(snapshot["kind"], *sides)  # type: ignore[arg-type]


def plain(levels: Levels) -> Levels:
    """Levels as prices and sizes."""
    return Levels(levels.kind, *([level[:2] for level in side] for side in levels[1:]))  # type: ignore[arg-type]


kinds = st.sampled_from([1] * 8 + [2] * 8 + [3, 4, 9, 10] * 2 + [6, 5, 11, 0, 12, None])
prices = st.one_of(
    *[st.integers(-3, 9).map(lambda ticks: ticks * 0.25)] * 6,
    st.sampled_from([0.1, None, float("nan"), float("inf"), -0.0, 1e308, 1.0000000001]),
)
sizes = st.one_of(*[st.integers(0, 3)] * 6, st.sampled_from([None, -1]))


def streams(of_kinds: SearchStrategy[int | None]) -> SearchStrategy[list[list[Entry]]]:
    return st.lists(st.lists(st.tuples(of_kinds, prices, sizes), min_size=1, max_size=6), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(streams(kinds), streams(st.sampled_from([3, 4, 6, 9, 10]))),
    st.sampled_from([None, 0.25]),
    st.integers(1, 4),
    st.sets(st.integers(0, 24), max_size=3),
    st.booleans(),
)
def test_the_live_book_is_the_batch_book_after_every_message(
    messages: list[list[Entry]],
    tick_size: float | None,
    count: int,
    gaps: set[int],
    begins_with_reset: bool,  # noqa: FBT001
):
    if begins_with_reset:
        messages.insert(0, [(6, 0.0, 0)])
    frame = as_frame(messages)
    incidents = pl.DataFrame({"from_ns": sorted(gaps), "to_ns": sorted(gaps)}, {"from_ns": pl.Int64, "to_ns": pl.Int64})
    incidents = incidents.with_columns(pl.all() * 10)  # at the time of a message, which is the first one after it
    batch = book_snapshots(frame, count, tick_size=tick_size, incidents=incidents)
    book = Book(tick_size=tick_size)
    for seq, (entries, snapshot) in enumerate(zip(messages, batch.iter_rows(named=True), strict=True)):
        if seq in gaps:
            book.forget()
        book.apply_message(entries)
        assert plain(book.levels(count)) == as_levels(snapshot, count)
        assert book.crossed == snapshot["crossed"]
    faults = frame.select(entry_fault(tick_size)).drop_nulls().to_series().value_counts()
    crossed = int(batch["crossed"].sum())
    assert dict(book.odd) == dict(faults.rows()) | ({"crossed": crossed} if crossed else {})


def test_the_live_book_is_the_batch_book_on_a_long_stream_full_of_contradictions():
    rng = random.Random(4)
    kinds = [1] * 20 + [2] * 20 + [3, 4, 9, 10]
    messages: list[list[Entry]] = [
        [(rng.choice(kinds), rng.randrange(80) * 0.25, rng.randrange(3)) for _ in range(rng.randrange(1, 4))]
        for _ in range(2500)
    ]
    messages[0] = messages[1300] = [(6, 0.0, 0)]
    batch = book_snapshots(as_frame(messages), 5)
    assert batch["crossed"].sum() > 2000
    book = Book()
    for entries, snapshot in zip(messages, batch.iter_rows(named=True), strict=True):
        book.apply_message(entries)
        assert plain(book.levels(5)) == as_levels(snapshot, 5)


@pytest.mark.parametrize("count", [1, 10])
def test_the_live_book_is_the_batch_book_on_the_tape(shared: Path, tmp_path: Path, count: int):
    import_tape(str(shared / "tapes" / "es_20231225.ndjson.zst"), tmp_path)
    frame = open_lake(tmp_path).session().depth().collect()
    batch = book_snapshots(frame, count, tick_size=0.25)
    book = Book(tick_size=0.25)
    messages = frame.group_by("seq", maintain_order=True).agg(pl.struct("dom_type", "price", "volume"))
    for entries, snapshot in zip(messages["dom_type"], batch.iter_rows(named=True), strict=True):
        book.apply_message(entry.values() for entry in entries)
        assert plain(book.levels(count)) == as_levels(snapshot, count)
    assert not book.odd


@settings(max_examples=50, deadline=None)
@given(streams(kinds))
def test_no_view_is_crossed_and_levels_are_in_order(messages: list[list[Entry]]):
    book = Book()
    book.apply(6, 0.0, 0)
    for entries in messages:
        book.apply_message(entries)
        _, bids, asks = book.levels(50)
        outwards = [level.price for level in (*reversed(bids), *asks)]
        assert outwards == sorted(set(outwards))
        assert all(level.size > 0 for level in (*bids, *asks))


@given(streams(st.sampled_from([1, 2, 3, 4, 9, 10])))
def test_what_is_told_anew_is_shown_whatever_was_told_before(messages: list[list[Entry]]):
    book = Book(tick_size=0.25)
    book.apply(6, 0.0, 0)
    for entries in messages:
        book.apply_message(entries)
    book.apply(1, 1.5, 7)
    book.apply(2, 1.25, 8)
    assert [level[:2] for level in book.best if level] == [(1.25, 8), (1.5, 7)]


def test_the_best_levels_and_what_they_come_from():
    book = Book()
    assert (book.kind, book.best) == ("unknown", (None, None))
    book.apply_message([(6, 0.0, 0), (4, 100.0, 3)])
    assert (book.kind, book.best) == ("top", ((100.0, 3, 2), None))
    book.apply_message([(1, 101.0, 5), (2, 100.0, 4)])
    assert (book.kind, book.best) == ("ladder", ((100.0, 4, 4), (101.0, 5, 3)))
    book.forget()
    assert book.kind == "unknown"


def test_bad_input_is_counted_and_changes_nothing():
    book = Book(tick_size=0.25)
    book.apply_message([(6, None, None), (1, 101.0, 5), (2, 100.0, 4)])
    before = book.levels()
    book.apply_message([(99, 1.0, 1), (None, 1.0, 1), (1, 101.0, -1), (2, 100.1, 1), (1, None, 1), (2, 99.0, None)])
    assert book.levels() == before
    assert book.odd == {"unknown_type": 2, "negative_size": 1, "off_grid": 1, "no_price": 1, "no_size": 1}


def test_a_book_that_stays_crossed_is_counted_at_each_message_and_never_shown():
    book = Book()
    book.apply_message([(6, 0.0, 0), (1, 101.0, 5), (2, 103.0, 4)])
    book.apply_message([(1, 105.0, 1)])
    assert book.odd == {"crossed": 2}
    assert plain(book.levels()) == ("ladder", [(103.0, 4)], [(105.0, 1)])
    book.apply_message([(1, 101.0, 0)])
    assert book.odd == {"crossed": 2}


@pytest.mark.parametrize("tick_size", [0.0, -1.0, float("nan")])
def test_a_tick_is_positive(tick_size: float):
    with pytest.raises(UsageError, match="tick_size"):
        Book(tick_size=tick_size)
