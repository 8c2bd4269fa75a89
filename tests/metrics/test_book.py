from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mdcapture.errors import UsageError
from mdcapture.interop.importing import import_tape
from mdcapture.metrics.book import book_snapshots, entry_fault, level_columns
from mdcapture.metrics.flow import order_flow_imbalance, queue_imbalance
from mdcapture.session import open_lake

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

ASK, BID, BEST_ASK, BEST_BID, TRADE, RESET, NEW_BID, NEW_ASK = 1, 2, 3, 4, 5, 6, 9, 10
Entry = tuple[int | None, float | None, int | None]
Shown = tuple[str, list[tuple[float, int]], list[tuple[float, int]]]
FILE_COLUMNS = {
    f"{side}_{short}_{m:02}": f"{side}_{what}_{m}"
    for m in range(10)
    for side in ("bid", "ask")
    for short, what in (("px", "price"), ("sz", "size"))
}


def depth(*messages: Sequence[Entry], start_ns: int = 0, contract_id: str = "ES") -> pl.DataFrame:
    """Messages one nanosecond apart."""
    rows = [
        (contract_id, seq, start_ns + seq, pos, *entry)
        for seq, entries in enumerate(messages)
        for pos, entry in enumerate(entries)
    ]
    schema = {
        "contract_id": pl.String,
        "seq": pl.Int64,
        "recv_ns": pl.Int64,
        "pos": pl.Int32,
        "dom_type": pl.Int8,
        "price": pl.Float64,
        "volume": pl.Int64,
    }
    return pl.DataFrame(rows, schema, orient="row")


def shown(book: pl.DataFrame, row: int = -1) -> Shown:
    """Kind, bids and asks of a snapshot."""
    values = book.row(row, named=True)
    count = sum(name.startswith("bid_price") for name in values)
    sides = (
        [(values[f"{side}_price_{m}"], values[f"{side}_size_{m}"]) for m in range(count) if values[f"{side}_size_{m}"]]
        for side in ("bid", "ask")
    )
    bids, asks = sides
    return values["kind"], bids, asks


def after(*messages: Sequence[Entry], tick_size: float | None = None) -> Shown:
    return shown(book_snapshots(depth(*messages), 3, tick_size=tick_size))


START: list[Entry] = [(RESET, 0.0, 0)]
LADDER: list[Entry] = [
    (ASK, 101.0, 5),
    (ASK, 102.0, 6),
    (ASK, 103.0, 7),
    (BID, 100.0, 4),
    (BID, 99.0, 3),
    (BID, 98.0, 2),
]


@pytest.fixture(scope="module")
def es_depth(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    root = tmp_path_factory.mktemp("lake")
    import_tape(str(shared / "tapes" / "es_20231225.ndjson.zst"), root)
    return open_lake(root).session().depth().collect()


@pytest.fixture(scope="module")
def es_reference(shared: Path) -> pl.DataFrame:
    """The exchange's ten-level book after each of its events, in the columns of snapshots."""
    rows = pl.read_parquet(shared / "reference" / "esh4_mbp10.parquet")
    return rows.rename(FILE_COLUMNS | {"ts_recv": "recv_ns"}).with_row_index("event")


# The rules


def test_a_row_sets_a_level_and_size_0_removes_it():
    assert after(START, LADDER) == ("ladder", [(100.0, 4), (99.0, 3), (98.0, 2)], [(101.0, 5), (102.0, 6), (103.0, 7)])
    changed = after(START, LADDER, [(ASK, 101.0, 0), (BID, 99.0, 9), (BID, 97.0, 1), (ASK, 90.5, 0)])
    assert changed == ("ladder", [(100.0, 4), (99.0, 9), (98.0, 2)], [(102.0, 6), (103.0, 7)])


def test_the_last_word_of_a_message_on_a_price_counts():
    assert after(START, LADDER, [(ASK, 101.0, 8), (ASK, 101.0, 0), (ASK, 101.0, 9)])[2][0] == (101.0, 9)


def test_a_reset_forgets_everything_also_in_the_middle_of_a_message():
    assert after(START, LADDER, START) == ("unknown", [], [])
    assert after(START, LADDER, [(ASK, 101.0, 1), *START, (ASK, 102.0, 2)]) == ("ladder", [], [(102.0, 2)])


@pytest.mark.parametrize("kind", [5, 7, 8, 11])
def test_volume_at_price_session_extremes_and_fills_leave_the_ladder_alone(kind: int):
    assert after(START, LADDER, [(kind, 101.0, 99), (kind, 100.5, 0)]) == after(START, LADDER)


def test_pointers_are_no_rows_of_the_ladder():
    assert after(START, LADDER, [(BEST_ASK, 101.0, 50), (NEW_BID, 100.0, 70)]) == after(START, LADDER)
    assert after(START, LADDER, [(BEST_ASK, 100.5, 50)]) == after(START, LADDER)


def test_without_rows_the_pointers_are_a_book_of_one_level():
    pointers: list[Entry] = [(BEST_ASK, 101.0, 5), (BEST_BID, 100.0, 4), (TRADE, 100.0, 9)]
    assert after(START, pointers) == ("top", [(100.0, 4)], [(101.0, 5)])
    assert after(START, pointers, [(NEW_ASK, 102.0, 1)]) == ("top", [(100.0, 4)], [(102.0, 1)])
    assert after(START, pointers, [(BEST_ASK, 101.0, 0)]) == ("top", [(100.0, 4)], [])
    assert after(START, pointers, [(BEST_ASK, 99.0, 2)]) == ("top", [], [(99.0, 2)])
    assert after(START, pointers, [(ASK, 101.0, 5)]) == ("ladder", [], [(101.0, 5)])


def test_a_level_that_newer_word_crosses_or_meets_is_hidden_until_that_is_withdrawn():
    crossing: list[Entry] = [(BID, 102.0, 1)]
    assert after(START, LADDER, crossing) == ("ladder", [(102.0, 1), (100.0, 4), (99.0, 3)], [(103.0, 7)])
    assert after(START, LADDER, crossing, [(BID, 102.0, 0)]) == after(START, LADDER)
    assert after(START, LADDER, crossing, [(ASK, 101.0, 5)])[1:] == (
        [(100.0, 4), (99.0, 3), (98.0, 2)],
        after(START, LADDER)[2],
    )


def test_a_level_better_than_a_newer_pointer_is_hidden():
    stale = after(START, LADDER, [(NEW_ASK, 102.0, 6)])
    assert stale == ("ladder", [(100.0, 4), (99.0, 3), (98.0, 2)], [(102.0, 6), (103.0, 7)])
    assert after(START, LADDER, [(NEW_ASK, 102.0, 6)], [(ASK, 101.0, 1)])[2][0] == (101.0, 1)
    assert after(START, LADDER, [(BEST_BID, 101.0, 1)])[2] == [(102.0, 6), (103.0, 7)]


def test_the_book_says_whether_what_was_told_is_crossed():
    book = book_snapshots(depth(START, LADDER, [(BID, 101.0, 1)], [(BID, 101.0, 0)], [(BEST_ASK, 99.0, 1)]), 2)
    assert book["crossed"].to_list() == [False, False, True, False, False]


def test_unusable_entries_are_left_out_and_named():
    junk: list[Entry] = [
        (0, 101.0, 1), (12, 101.0, 1), (-1, 1.0, 1), (None, 101.0, 1), (ASK, None, 1), (BID, float("nan"), 1),
        (BEST_BID, float("inf"), 1), (ASK, 101.0, None), (ASK, 101.0, -5), (BEST_ASK, 90.0, -1), (BID, 100.3, 1),
        (ASK, 1e308, 1),
    ]  # fmt: skip
    faults = [
        *["unknown_type"] * 4, *["no_price"] * 3, "no_size", *["negative_size"] * 2, *["off_grid"] * 2,
    ]  # fmt: skip
    assert depth(junk).select(entry_fault(0.25))["fault"].to_list() == faults
    assert depth(junk, LADDER).select(entry_fault())["fault"].drop_nulls().to_list() == faults[:-2]
    assert after(START, LADDER, junk, tick_size=0.25) == after(START, LADDER)
    assert not depth([(TRADE, None, None), (RESET, None, None)]).select(entry_fault(0.25).count()).item()


# Gaps


def gap(from_ns: int, to_ns: int) -> pl.DataFrame:
    return pl.DataFrame({"from_ns": [from_ns], "to_ns": [to_ns]})


def test_after_a_gap_the_book_is_unknown_until_a_reset():
    messages = (START, LADDER, [(ASK, 101.0, 9)], START, LADDER)
    book = book_snapshots(depth(*messages), 3, incidents=gap(1, 2))
    assert book["kind"].to_list() == ["unknown", "ladder", "unknown", "unknown", "ladder"]
    assert shown(book, 2) == ("unknown", [], [])
    assert shown(book) == after(START, LADDER)


def test_after_a_gap_the_book_is_known_while_its_levels_stand_on_neighbouring_ticks():
    messages = (START, LADDER, LADDER[:4], LADDER[4:], [(ASK, 102.0, 0)])
    book = book_snapshots(depth(*messages), 2, incidents=gap(1, 2), tick_size=1.0)
    assert book["kind"].to_list() == ["unknown", "ladder", "unknown", "ladder", "unknown"]
    assert shown(book, 3)[1:] == ([(100.0, 4), (99.0, 3)], [(101.0, 5), (102.0, 6)])
    assert book_snapshots(depth(*messages), 2, incidents=gap(1, 2))["kind"].to_list()[2:] == ["unknown"] * 3


def test_after_a_gap_both_pointers_make_a_top_known():
    messages = (START, [(BEST_ASK, 101.0, 1), (BEST_BID, 100.0, 1)], [(BEST_ASK, 102.0, 1)], [(BEST_BID, 101.0, 1)])
    book = book_snapshots(depth(*messages), 1, incidents=gap(1, 2))
    assert book["kind"].to_list() == ["unknown", "top", "unknown", "top"]


def test_data_that_does_not_begin_with_a_reset_is_a_part_of_a_book():
    assert after(LADDER) == ("unknown", [], [])
    assert after(LADDER, tick_size=1.0) == after(START, LADDER)


# Frames


def test_each_group_has_its_own_book_and_input_may_be_unsorted_or_lazy():
    one = depth(START, LADDER, [(ASK, 101.0, 0)], contract_id="ES")
    two = depth(START, [(ASK, 51.0, 1)], [(BID, 50.0, 2)], contract_id="NQ")
    both = pl.concat([one, two]).sample(fraction=1.0, shuffle=True, seed=3)
    apart = pl.concat([book_snapshots(one, 2), book_snapshots(two, 2)])
    assert_frame_equal(book_snapshots(both, 2), apart)
    lazy = book_snapshots(both.lazy(), 2)
    assert lazy.collect_schema() == apart.schema
    assert_frame_equal(lazy.collect(), apart)
    assert_frame_equal(lazy.select("recv_ns", "ask_price_1").filter(pl.col("recv_ns") == 2).collect().head(1),
                       apart.filter(pl.col("recv_ns") == 2).select("recv_ns", "ask_price_1").head(1))  # fmt: skip


def test_an_empty_frame_has_no_snapshots():
    empty = book_snapshots(depth())
    assert empty.shape == (0, 45)
    assert empty.columns == ["contract_id", "seq", "recv_ns", "kind", "crossed", *level_columns(10)]
    assert book_snapshots(depth(), at=[5], levels=1).height == 0
    assert book_snapshots(depth(), every_ns=5, levels=1).height == 0


def test_frames_without_keys_and_places_are_one_group():
    plain = depth(START, LADDER).drop("contract_id", "seq", "pos")
    assert shown(book_snapshots(plain, 3)) == after(START, LADDER)


def test_changes_only_leaves_out_what_repeats_the_levels():
    messages = (START, LADDER, [(TRADE, 101.0, 1)], [(ASK, 103.0, 9)], [(ASK, 101.0, 5)], [(ASK, 101.0, 4)])
    assert book_snapshots(depth(*messages), 2, changes_only=True)["seq"].to_list() == [0, 1, 5]


@pytest.mark.parametrize(
    "options",
    [{"levels": 0}, {"every_ns": 0}, {"at": [1], "every_ns": 1}, {"tick_size": 0.0}, {"tick_size": float("nan")}],
)
def test_impossible_options_are_refused(options: dict[str, Any]):
    with pytest.raises(UsageError, match="nothing was computed"):
        book_snapshots(depth(START), **options)


def random_depth(seed: int, messages: int, prices: int) -> pl.DataFrame:
    """Two contracts, levels that cross, lie, go and come; a reset now and then."""
    rng = np.random.default_rng(seed)
    n = 3 * messages
    kinds = rng.choice([1, 2, 3, 4, 5, 6, 9, 10], n, p=[0.38, 0.38, 0.05, 0.05, 0.069, 0.001, 0.035, 0.035])
    seq = np.sort(rng.integers(0, messages, n))
    return pl.DataFrame(
        {
            "contract_id": rng.choice(["A", "B"], n),
            "seq": seq,
            "recv_ns": 10 * seq,
            "pos": np.arange(n),
            "dom_type": pl.Series(kinds, dtype=pl.Int8),
            "price": rng.integers(0, prices, n) * 0.25,
            "volume": rng.integers(0, 4, n),
        }
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(-10, 420), max_size=12), st.booleans())
def test_the_book_at_times_is_that_after_the_last_message(seed: int, times: list[int], with_gap: bool):  # noqa: FBT001
    frame = random_depth(seed, 40, 12)
    options: dict[str, Any] = {"levels": 2, "tick_size": 0.25, "incidents": gap(150, 210) if with_gap else None}
    book = book_snapshots(frame, **options)
    after_messages = book.drop("seq").group_by("contract_id", "recv_ns", maintain_order=True).last()
    at = book_snapshots(frame, at=times, **options)
    for row in at.iter_rows(named=True):
        before = after_messages.filter(
            pl.col("contract_id") == row["contract_id"], pl.col("recv_ns") <= row["recv_ns"]
        ).row(-1, named=True)
        assert row == before | {"recv_ns": row["recv_ns"]}
        assert not with_gap or not 150 < row["recv_ns"] < 210 or before["recv_ns"] > 150
    if not with_gap:
        spans = book.group_by("contract_id").agg(a=pl.col("recv_ns").min(), b=pl.col("recv_ns").max())
        assert at.height == sum(a <= time <= b for time in times for _, a, b in spans.iter_rows())


def test_the_book_at_intervals_is_that_at_the_same_times():
    frame = random_depth(5, 400, 30)
    book = book_snapshots(frame, 3)
    grid = book_snapshots(frame, 3, every_ns=70)
    assert_frame_equal(grid, book_snapshots(frame, 3, at=grid["recv_ns"].unique()))
    assert grid.height > 100
    assert (grid["recv_ns"] % 70 == 0).all()
    assert grid["recv_ns"].is_between(book["recv_ns"].min(), book["recv_ns"].max()).all()


def test_the_future_changes_no_snapshot():
    frame = random_depth(8, 300, 20).sort("recv_ns", "seq", "pos")
    early = frame.filter(pl.col("seq") < 150)
    assert_frame_equal(book_snapshots(frame, 4).filter(pl.col("seq") < 150), book_snapshots(early, 4))


def test_how_many_levels_are_asked_for_changes_none_of_them():
    frame = random_depth(9, 2500, 60)
    wide = book_snapshots(frame, 40)
    narrow = book_snapshots(frame, 3)
    assert_frame_equal(narrow, wide.select(narrow.columns))


def test_levels_of_which_nothing_is_said_for_long_stay():
    ladder: list[Entry] = [(ASK, 101.0 + m, 5 + m) for m in range(30)]
    flicker: list[list[Entry]] = [[(ASK, 101.0, i % 2)] for i in range(5000)]
    book = book_snapshots(depth(START, ladder, *flicker), 4)
    assert shown(book, 5000)[2] == [(102.0, 6), (103.0, 7), (104.0, 8), (105.0, 9)]
    assert shown(book, 5001)[2] == [(101.0, 1), (102.0, 6), (103.0, 7), (104.0, 8)]


# The exchange's own book


def test_the_tape_s_distinct_books_are_the_exchange_s_in_the_same_order(
    es_depth: pl.DataFrame, es_reference: pl.DataFrame
):
    book = book_snapshots(es_depth, tick_size=0.25, changes_only=True).filter(pl.col("kind") == "ladder")
    theirs = es_reference.filter(pl.col("recv_ns") >= book["recv_ns"][0]).select(level_columns(10))
    changes = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in level_columns(10))
    assert book.height == 36_917
    assert_frame_equal(book.select(level_columns(10)), theirs.filter(changes))


def test_at_every_time_of_the_reference_the_book_is_the_exchange_s(es_depth: pl.DataFrame, es_reference: pl.DataFrame):
    theirs = es_reference.filter(pl.col("recv_ns") >= es_depth["recv_ns"][0])
    last = theirs.group_by("recv_ns").last().sort("recv_ns")
    ours = book_snapshots(es_depth, at=last["recv_ns"], tick_size=0.25)
    assert ours.height == 43_289
    assert_frame_equal(ours.select("recv_ns", *level_columns(10)), last.select("recv_ns", *level_columns(10)))


def test_every_message_and_every_event_of_the_reference_is_accounted_for(
    es_depth: pl.DataFrame, es_reference: pl.DataFrame
):
    same = ["recv_ns", *level_columns(10)]
    told = es_depth.group_by("seq").agg(rows=pl.col("dom_type").is_in([ASK, BID]).any(), kinds=pl.col("dom_type").max())
    book = book_snapshots(es_depth, tick_size=0.25).join(told, on="seq", maintain_order="left")
    with_rows = book.filter("rows")
    assert with_rows.join(es_reference, on=same, how="semi", nulls_equal=True).height == with_rows.height == 36_917
    assert sorted(book.filter(~pl.col("rows"))["kinds"].value_counts().rows()) == [(5, 2882), (6, 1), (10, 1)]
    pre_open = es_reference.filter(pl.col("recv_ns") < book["recv_ns"][0])
    hour = es_reference.join(pre_open, on="event", how="anti")
    told_then = hour.join(book, on=same, how="semi", nulls_equal=True)
    rest = hour.join(told_then, on="event", how="anti").sort("recv_ns")
    stood = rest.with_columns(pl.col("recv_ns") - 1).join_asof(
        book.select("recv_ns", *level_columns(10)), on="recv_ns", suffix="_before"
    )
    repeats = stood.filter(pl.col(name).eq_missing(pl.col(f"{name}_before")) for name in level_columns(10))
    assert (pre_open.height, told_then.height, rest.height, repeats.height) == (925, 37_084, 9_013, 9_013)
    assert pre_open.filter(pl.col("bid_price_0") >= pl.col("ask_price_0")).height == 891
    assert not book["crossed"].any()


def test_flow_and_imbalance_take_the_snapshots(es_depth: pl.DataFrame):
    book = book_snapshots(es_depth.head(5000), 3)
    flow = order_flow_imbalance(book, levels=3).with_columns(queue_imbalance(levels=3))
    assert flow["ofi_2"].null_count() <= 2
    assert flow["queue_imbalance"].drop_nulls().is_between(-1, 1).all()


# LOBSTER: order messages, aggregated to levels by an adapter that tells them as the gateway does


def lobster(folder: Path) -> tuple[list[list[int]], list[list[int]]]:
    """Messages (type, order, size, price, direction), and books (ask price, ask size, bid price, bid size, …)."""
    with (folder / "AAPL_head_message_10.csv").open() as file:
        messages = [[int(value) for value in row[1:]] for row in csv.reader(file)]
    with (folder / "AAPL_head_orderbook_10.csv").open() as file:
        return messages, [[int(value) for value in row] for row in csv.reader(file)]


def sides(book: list[int], levels: int = 10) -> dict[int, list[tuple[int, int]]]:
    """Levels by the type of their rows."""
    at = range(0, 4 * levels, 4)
    return {ASK: [(book[i], book[i + 1]) for i in at], BID: [(book[i + 2], book[i + 3]) for i in at]}


def as_gateway(messages: Iterable[list[int]], books: list[list[int]]) -> tuple[list[list[Entry]], int]:
    """Depth messages, and how many entries had to be taken from the books: levels that enter the window of ten."""
    window = {kind: dict(levels) for kind, levels in sides(books[0]).items()}
    told: list[list[Entry]] = [[(RESET, 0.0, 0), *((k, p / 1e4, q) for k in window for p, q in window[k].items())]]
    entered = 0
    for (event, _, size, price, direction), book in zip(messages, books[1:], strict=True):
        kind = BID if direction == 1 else ASK
        entries: list[Entry] = []
        if event in {1, 2, 3, 4}:
            left = window[kind].get(price, 0) + (size if event == 1 else -size)
            window[kind][price] = left
            entries.append((kind, price / 1e4, left))
        levels = {p: q for p, q in window[kind].items() if q}
        best = sorted(levels, reverse=kind == BID)
        entries += [(kind, p / 1e4, 0) for p in best[10:]]
        window[kind] = {p: levels[p] for p in best[:10]}
        if len(best) < 10:
            far, lots = sides(book)[kind][-1]
            window[kind][far] = lots
            entries.append((kind, far / 1e4, lots))
            entered += 1
        told.append(entries or [(TRADE, price / 1e4, size)])
    return told, entered


def test_lobster_s_messages_give_lobster_s_book(shared: Path):
    messages, books = lobster(shared / "reference")
    told, entered = as_gateway(messages[1:], books)
    ours = book_snapshots(depth(*told), tick_size=0.01)
    prices, sizes = pl.col("^(bid|ask)_price_.*$"), pl.col("^(bid|ask)_size_.*$")
    scaled = ours.select((prices * 10_000).round().cast(pl.Int64), sizes).select(level_columns(10))
    columns = [f"{side}_{what}_{m}" for m in range(10) for side in ("ask", "bid") for what in ("price", "size")]
    theirs = pl.DataFrame(books, dict.fromkeys(columns, pl.Int64), orient="row").select(level_columns(10))
    assert_frame_equal(scaled, theirs)
    assert (len(books), entered) == (999, 318)
