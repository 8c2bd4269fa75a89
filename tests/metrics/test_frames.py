"""The order of events, gaps, and the quote of a moment, against plain loops over rows."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdcapture.errors import UsageError
from mdcapture.metrics.frames import (
    begins,
    by_group,
    each_group,
    groups,
    lasting,
    mid_at,
    mids,
    neighbour,
    ordered,
    prevailing,
    previous_tick,
    stretches,
    trade_sign,
    weighted_mean,
)

EVENT_SCHEMA = {"session_id": pl.String, "contract_id": pl.String, "recv_ns": pl.Int64, "seq": pl.Int64}
QUOTE_SCHEMA = EVENT_SCHEMA | {"best_bid": pl.Float64, "best_ask": pl.Float64}
GAP_SCHEMA = {"session_id": pl.String, "contract_id": pl.String, "from_ns": pl.Int64, "to_ns": pl.Int64}

Tape = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]

contracts = st.sampled_from(["ES", "NQ"])
times = st.integers(0, 40)
prices = st.one_of(st.none(), st.sampled_from([float("nan"), 1.0, 2.0, 3.0, 4.0]))
gap_rows = st.lists(
    st.tuples(st.just("s"), st.one_of(st.none(), contracts), times, times).map(
        lambda gap: (*gap[:2], min(gap[2:]), max(gap[2:]))
    ),
    max_size=3,
)


@st.composite
def tapes(draw: st.DrawFn) -> Tape:
    """Quotes and trades that share one numbering of messages; the clock may step back."""
    rows = draw(st.lists(st.tuples(st.booleans(), contracts, times, prices, prices), max_size=20))
    quotes = [("s", c, t, seq, bid, ask) for seq, (quote, c, t, bid, ask) in enumerate(rows) if quote]
    trades = [("s", c, t, seq) for seq, (quote, c, t, _, _) in enumerate(rows) if not quote]
    return (
        pl.DataFrame(draw(st.permutations(quotes)), QUOTE_SCHEMA, orient="row"),
        pl.DataFrame(draw(st.permutations(trades)), EVENT_SCHEMA, orient="row"),
        pl.DataFrame(draw(gap_rows), GAP_SCHEMA, orient="row"),
    )


def plain_mid(quote: dict[str, Any]) -> float | None:
    bid, ask = quote["best_bid"], quote["best_ask"]
    return (bid + ask) / 2 if bid is not None and ask is not None and bid <= ask else None


def parted(contract: str, first: int, second: int, gaps: pl.DataFrame) -> bool:
    """Whether a gap, or one of its ends, lies between two moments."""
    return any(
        first <= begin < second or first < end <= second
        for _, gap_contract, begin, end in gaps.rows()
        if gap_contract in (None, contract)
        for begin in ([begin] if begin + 1 < end else [end - 1])
    )


@given(tapes())
@settings(deadline=None, max_examples=30)
def test_prevailing_is_the_last_quote_strictly_before_in_the_order_of_events(tape: Tape):
    quotes, trades, gaps = tape
    found = prevailing(trades, quotes, incidents=gaps)
    expected = []
    for trade in ordered(trades).iter_rows(named=True):
        moment = (trade["recv_ns"], trade["seq"])
        before = [
            quote
            for quote in quotes.iter_rows(named=True)
            if quote["contract_id"] == trade["contract_id"] and (quote["recv_ns"], quote["seq"]) < moment
        ]
        last = max(before, key=lambda quote: (quote["recv_ns"], quote["seq"]), default=None)
        if last is not None and parted(trade["contract_id"], last["recv_ns"], trade["recv_ns"], gaps):
            last = None
        expected.append(plain_mid(last) if last else None)
    assert found.drop("best_bid", "best_ask", "mid").equals(ordered(trades))
    assert found["mid"].to_list() == expected


@given(tapes(), st.integers(-5, 20))
@settings(deadline=None, max_examples=30)
def test_mid_at_is_the_last_quote_at_or_before_the_horizon(tape: Tape, horizon_ns: int):
    quotes, trades, gaps = tape
    found = mid_at(trades, quotes, horizon_ns, incidents=gaps)
    expected = []
    for trade in ordered(trades).iter_rows(named=True):
        contract, target = trade["contract_id"], trade["recv_ns"] + horizon_ns
        mine = [quote for quote in quotes.iter_rows(named=True) if quote["contract_id"] == contract]
        end = max([quote["recv_ns"] for quote in mine] + trades.filter(contract_id=contract)["recv_ns"].to_list())
        until = [quote for quote in mine if quote["recv_ns"] <= target]
        last = max(until, key=lambda quote: (quote["recv_ns"], quote["seq"]), default=None)
        reached = (
            last is not None
            and target <= end
            and not parted(contract, min(trade["recv_ns"], target), max(trade["recv_ns"], target), gaps)
            and not parted(contract, last["recv_ns"], target, gaps)
        )
        expected.append(plain_mid(last) if reached else None)
    assert found["mid_at"].to_list() == expected


@given(tapes(), st.integers(1, 7))
@settings(deadline=None, max_examples=30)
def test_previous_tick_samples_whole_multiples_inside_the_data(tape: Tape, interval_ns: int):
    quotes, _, gaps = tape
    found = previous_tick(quotes, interval_ns, incidents=gaps)
    expected = []
    for keys, group in groups(stretches(quotes, gaps)):
        for _, rows in group.group_by("stretch", maintain_order=True):
            for point in range(
                -(-rows["recv_ns"].min() // interval_ns) * interval_ns, rows["recv_ns"].max() + 1, interval_ns
            ):
                last = rows.filter(pl.col("recv_ns") <= point).row(-1, named=True)
                expected.append((keys["contract_id"], point, plain_mid(last)))
    assert found.select("contract_id", "recv_ns", "mid").rows() == expected


@given(tapes())
@settings(deadline=None, max_examples=30)
def test_a_state_holds_until_the_next_the_next_gap_or_the_end_of_the_session(tape: Tape):
    quotes, trades, gaps = tape
    session_end = max(trades["recv_ns"].to_list(), default=0)
    for keys, rows in groups(lasting(quotes, until=trades.drop("contract_id"), incidents=gaps)):
        times = rows["recv_ns"].to_list()
        expected = []
        for now, following in zip(times, [*times[1:], max(times[-1], session_end)], strict=True):
            mine = [gap[2:] for gap in gaps.rows() if gap[1] in (None, keys["contract_id"])]
            ends = [end for _, end in mine if end > now] + [begin for begin, end in mine if now <= begin < end - 1]
            expected.append(min([following, *ends]) - now)
        assert rows["duration_ns"].to_list() == expected


def test_durations_add_up_to_the_time_between_the_first_and_the_last_message():
    quotes = pl.DataFrame({"recv_ns": [7, 1, 5], "best_bid": [1.0, 2.0, 1.0], "best_ask": [2.0, 3.0, 2.0]})
    assert lasting(quotes)["duration_ns"].to_list() == [4, 2, 0]
    assert lasting(quotes, until=pl.DataFrame({"recv_ns": [3, 10]}))["duration_ns"].to_list() == [4, 2, 3]


def test_a_gap_ends_a_stretch_and_its_first_message_begins_the_next():
    gaps = pl.DataFrame([("s", None, 10, 20)], GAP_SCHEMA, orient="row")
    rows = pl.DataFrame([("s", "ES", t, t) for t in (5, 10, 15, 20, 25)], EVENT_SCHEMA, orient="row")
    numbers = stretches(rows, gaps)["stretch"].to_list()
    assert numbers[0] == numbers[1] < numbers[2] < numbers[3] == numbers[4]


def test_a_gap_of_one_contract_or_session_leaves_the_others_alone():
    gaps = pl.DataFrame([("s", "ES", 10, 20), ("t", None, 10, 20)], GAP_SCHEMA, orient="row")
    rows = pl.DataFrame([("s", "ES", 30, 0), ("s", "NQ", 30, 1), ("t", "NQ", 30, 2)], EVENT_SCHEMA, orient="row")
    assert (stretches(rows, gaps)["stretch"] > 0).to_list() == [True, False, True]


def test_a_quote_of_the_same_time_counts_only_where_its_message_came_first():
    quotes = pl.DataFrame(
        {"recv_ns": [1, 5, 5], "seq": [0, 1, 3], "best_bid": [1.0, 2.0, 3.0], "best_ask": [2.0, 3.0, 4.0]}
    )
    trades = pl.DataFrame({"recv_ns": [5], "seq": [2]})
    assert prevailing(trades, quotes)["mid"].to_list() == [2.5]
    assert prevailing(trades.drop("seq"), quotes)["mid"].to_list() == [1.5], (
        "by time alone, the same time is not before"
    )


@pytest.mark.parametrize("keys", [[], ["contract_id"], ["session_id", "contract_id"]])
def test_empty_frames_give_empty_frames_with_the_right_columns(keys: list[str]):
    columns = [*keys, "recv_ns", "seq"]
    quotes = pl.DataFrame(schema={name: QUOTE_SCHEMA[name] for name in [*columns, "best_bid", "best_ask"]})
    gaps = pl.DataFrame(schema=GAP_SCHEMA)
    events = quotes.select(columns)
    assert prevailing(events, quotes, incidents=gaps).columns == [*columns, "best_bid", "best_ask", "mid"]
    assert mid_at(events, quotes, 5, incidents=gaps).columns == [*columns, "mid_at"]
    assert lasting(quotes, until=events, incidents=gaps).columns == [*quotes.columns, "duration_ns"]
    assert previous_tick(quotes, 5, incidents=gaps).columns == [*keys, "recv_ns", "stretch", "mid"]


def test_lazy_in_lazy_out_with_the_same_values():
    quotes = pl.DataFrame({"recv_ns": [1, 5], "best_bid": [1.0, 2.0], "best_ask": [2.0, 3.0]})
    lazy = previous_tick(quotes.lazy(), 2)
    assert isinstance(lazy, pl.LazyFrame)
    assert lazy.collect().equals(previous_tick(quotes, 2))


def test_a_locked_book_has_a_mid_and_a_crossed_or_one_sided_book_has_none():
    quotes = pl.DataFrame({"best_bid": [1.0, 2.0, 3.0, None, 1.0], "best_ask": [2.0, 2.0, 2.0, 2.0, float("nan")]})
    assert mids(quotes)["mid"].to_list() == [1.5, 2.0, None, None, None]


def test_a_grid_needs_a_positive_interval():
    with pytest.raises(UsageError, match="positive interval"):
        previous_tick(pl.DataFrame(schema=QUOTE_SCHEMA), 0)


def test_quotes_without_a_session_serve_every_session():
    quotes = pl.DataFrame(
        {"contract_id": ["ES", "NQ"], "recv_ns": [1, 2], "best_bid": [1.0, 5.0], "best_ask": [2.0, 6.0]}
    )
    trades = pl.DataFrame({"session_id": ["b", "a"], "contract_id": ["NQ", "ES"], "recv_ns": [3, 9]})
    assert prevailing(trades, quotes).select("session_id", "mid").rows() == [("a", 1.5), ("b", 5.5)]
    assert mid_at(trades, quotes, 0).select("session_id", "mid_at").rows() == [("a", 1.5), ("b", 5.5)]


def test_a_gap_of_one_session_leaves_the_other_its_quotes_even_where_they_have_no_session():
    gap = pl.DataFrame([("a", None, 3, 5)], GAP_SCHEMA, orient="row")
    quotes = pl.DataFrame({"contract_id": ["ES"], "recv_ns": [1], "best_bid": [1.0], "best_ask": [2.0]})
    trades = pl.DataFrame({"session_id": ["a", "b"], "contract_id": ["ES", "ES"], "recv_ns": [9, 9]})
    assert prevailing(trades, quotes, incidents=gap)["mid"].to_list() == [None, 1.5]


def test_keys_match_by_what_they_say_whatever_their_type():
    quotes = pl.DataFrame(
        {"contract_id": ["NQ", "ES"], "recv_ns": [1, 1], "best_bid": [5.0, 1.0], "best_ask": [6.0, 2.0]}
    )
    trades = pl.DataFrame(
        {"contract_id": ["ES", "NQ"], "recv_ns": [3, 3]}, {"contract_id": pl.Categorical, "recv_ns": pl.Int64}
    )
    assert prevailing(trades, quotes)["mid"].to_list() == [1.5, 5.5]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), max_size=30))
@settings(deadline=None, max_examples=50)
def test_equal_times_are_told_apart_by_message_and_equal_messages_by_position(rows: list[tuple[bool, int, int, int]]):
    moments = [row[1:] for row in rows if row[0]]
    quotes = pl.DataFrame(moments, ["recv_ns", "seq", "pos"], orient="row").cast(pl.Int64).with_row_index("number")
    trades = pl.DataFrame([row[1:] for row in rows if not row[0]], quotes.schema.names()[1:], orient="row").cast(
        pl.Int64
    )
    found = prevailing(trades, quotes, ["number"])
    for *moment, number in found.iter_rows():
        before = [quote for quote in moments if quote < tuple(moment)]
        assert (None if number is None else moments[number]) == max(before, default=None)


def test_the_exchanges_clock_can_measure_the_horizon():
    quotes = pl.DataFrame({"recv_ns": [10, 20], "exch_ns": [2, 4], "best_bid": [1.0, 5.0], "best_ask": [2.0, 6.0]})
    trades = pl.DataFrame({"recv_ns": [15], "exch_ns": [1]})
    assert mid_at(trades, quotes, 2, clock="exch_ns")["mid_at"].to_list() == [1.5]
    assert mid_at(trades, quotes, 3, clock="exch_ns")["mid_at"].to_list() == [5.5]
    assert mid_at(trades, quotes, 4, clock="exch_ns")["mid_at"].to_list() == [None]


@given(
    st.lists(st.tuples(contracts, st.one_of(st.none(), st.integers(0, 3))), max_size=8), st.sampled_from([-2, -1, 1, 2])
)
@settings(deadline=None, max_examples=30)
def test_a_neighbour_is_a_shift_within_the_group(rows: list[tuple[str, int | None]], n: int):
    frame = pl.DataFrame(sorted(rows, key=lambda row: row[0]), {"contract_id": pl.String, "v": pl.Int64}, orient="row")
    found = frame.select(
        near=neighbour(pl.col("v"), ["contract_id"], n), shifted=pl.col("v").shift(n).over("contract_id")
    )
    assert found["near"].to_list() == found["shifted"].to_list()


def test_groups_are_in_the_order_of_their_keys_and_a_frame_without_keys_is_one():
    frame = pl.LazyFrame({"contract_id": ["b", "a", "b"], "v": [1, 2, 3]})
    assert by_group(frame, v=pl.col("v").sum()).collect().rows() == [("a", 2), ("b", 4)]
    assert by_group(frame.drop("contract_id"), v=pl.col("v").sum()).collect().rows() == [(6,)]


def interleaved(n: int = 12) -> pl.DataFrame:
    return pl.DataFrame({"contract_id": ["b", "a", None] * (n // 3), "recv_ns": range(n, 0, -1), "v": range(n)})


def test_each_group_gets_its_rows_in_order_and_those_of_the_others_with_its_keys():
    seen = []

    def metric(own: pl.DataFrame, other: pl.DataFrame, nothing: None, _: object) -> pl.DataFrame:
        seen.append((own["recv_ns"].to_list(), other["w"].to_list(), nothing))
        return own.select(n=pl.len())

    others = pl.DataFrame({"contract_id": ["a", "c", "a"], "recv_ns": [2, 1, 1], "w": [20, 30, 10]})
    table = each_group(metric, interleaved(6), others, None)
    assert table.rows() == [(None, 2), ("a", 2), ("b", 2)]
    assert seen == [([1, 4], [], None), ([2, 5], [10, 20], None), ([3, 6], [], None)]


def test_a_lazy_frame_knows_its_columns_before_it_is_read_and_is_read_only_when_collected():
    def unreadable(_: pl.DataFrame) -> pl.DataFrame:
        raise AssertionError("read too early")

    rows = interleaved().lazy()
    table = by_group(rows.map_batches(unreadable, schema=rows.collect_schema()), v=pl.col("v").sum())
    assert table.collect_schema() == {"contract_id": pl.String, "v": pl.Int64}


@given(st.permutations(range(12)))
@settings(deadline=None, max_examples=20)
def test_the_order_of_the_rows_handed_in_changes_nothing(places: list[int]):
    shuffled = interleaved()[places]
    assert ordered(shuffled).equals(ordered(interleaved()))
    assert by_group(shuffled, v=pl.col("v").sum()).equals(by_group(interleaved(), v=pl.col("v").sum()))
    assert ordered(shuffled).rows() == sorted(shuffled.rows(), key=lambda row: (row[0] or "", row[1]))


def test_what_needs_the_rows_before_it_never_sees_those_of_another_group():
    frame = pl.DataFrame({"contract_id": ["a", "a", "b", "b"], "v": [1, 3, 10, 20]})
    assert by_group(frame, moved=pl.col("v").diff().sum())["moved"].to_list() == [2, 10]


def test_a_row_begins_something_where_it_is_the_first_or_a_column_changes():
    frame = pl.DataFrame({"a": [None, None, 1, 1], "b": [0, 0, 0, 1]})
    assert frame.select(begins("a", "b")).to_series().to_list() == [True, False, True, True]


def test_the_weighted_mean_leaves_out_nulls_and_is_null_without_weight():
    frame = pl.DataFrame({"v": [1.0, None, 4.0], "w": [1, 5, 2], "none": [0, 5, 0]})
    mean = frame.select(a=weighted_mean(pl.col("v"), pl.col("w")), b=weighted_mean(pl.col("v"), pl.col("none")))
    assert mean.row(0) == (3.0, None)


def test_sides_become_signs_and_an_unknown_side_stays_unknown():
    assert pl.DataFrame({"side": [0, 1, None]}).select(trade_sign()).to_series().to_list() == [1.0, -1.0, None]
