"""Profiles: they add up to the tape, and the value area is that of a search through every range."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mdcapture.errors import UsageError
from mdcapture.metrics.profile import footprint, value_area, volume_profile

if TYPE_CHECKING:
    from conftest import Tape

few = settings(max_examples=40, deadline=None)

Row = tuple[int, float, int, int | None]
"""Time, price, volume, side."""

SCHEMA = {
    "session_id": pl.String,
    "contract_id": pl.String,
    "recv_ns": pl.Int64,
    "exch_ns": pl.Int64,
    "price": pl.Float64,
    "volume": pl.Int64,
    "side": pl.Int8,
}

trade_lists = st.lists(
    st.tuples(
        st.integers(0, 300),
        st.integers(400, 412).map(lambda ticks: ticks / 4),
        st.integers(1, 9),
        st.sampled_from([0, 1, None]),
    ),
    max_size=40,
)


def tape(rows: list[Row], session: str = "s", contract: str = "c") -> pl.DataFrame:
    return pl.DataFrame([(session, contract, t, t, p, v, side) for t, p, v, side in rows], schema=SCHEMA, orient="row")


def profile_of(volumes: dict[float, int]) -> pl.DataFrame:
    return pl.DataFrame({"price": list(volumes), "volume": list(volumes.values())})


@few
@given(rows=trade_lists)
def test_profile_and_footprint_add_up_to_the_tape(rows: list[Row]):
    trades = tape(rows)
    profile, prints = volume_profile(trades), footprint(trades, 50)
    assert profile["volume"].sum() == prints["volume"].sum() == trades["volume"].sum()
    assert profile["trades"].sum() == prints["trades"].sum() == trades.height
    buys, sells = (trades.filter(side=side)["volume"].sum() for side in (0, 1))
    assert (profile["buy_volume"].sum(), profile["sell_volume"].sum()) == (buys, sells)
    assert (prints["ask_volume"].sum(), prints["bid_volume"].sum()) == (buys, sells)
    assert profile["delta"].sum() == prints["delta"].sum() == buys - sells
    assert profile["price"].is_sorted()
    over_time = prints.group_by("price").agg(pl.col("volume").sum()).sort("price")
    assert_frame_equal(over_time, profile.select("price", "volume"))


@few
@given(rows=trade_lists)
def test_profiles_of_disjoint_times_add_up(rows: list[Row]):
    trades = tape(rows)
    halves = [volume_profile(trades.filter(half)) for half in (pl.col("recv_ns") < 150, pl.col("recv_ns") >= 150)]
    added = pl.concat(halves).group_by("price").agg(pl.col("volume", "delta").sum()).sort("price")
    assert_frame_equal(added, volume_profile(trades).select("price", "volume", "delta"))


@few
@given(rows=trade_lists)
def test_mirrored_sides_mirror_the_footprint(rows: list[Row]):
    mirrored: list[Row] = [(t, p, v, None if side is None else 1 - side) for t, p, v, side in rows]
    there, back = footprint(tape(rows), 50), footprint(tape(mirrored), 50)
    assert_frame_equal(
        there,
        back.select(
            pl.exclude("bid_volume", "ask_volume", "delta"),
            bid_volume="ask_volume",
            ask_volume="bid_volume",
            delta=-pl.col("delta"),
        ).select(there.columns),
    )


def slow_value_area(volumes: dict[float, int], share: float) -> tuple[float, float, float]:
    """Point of control, low and high, by a search through every range of levels."""
    prices, total = sorted(volumes), sum(volumes.values())
    control = min(prices, key=lambda p: (-volumes[p], p))
    ranges = []
    for low in prices:
        for high in prices:
            held = sum(v for p, v in volumes.items() if low <= p <= high)
            if low <= control <= high and held >= share * total - 1e-9:
                ranges.append((high - low, -held, low, high))
    _, _, low, high = min(ranges)
    return control, low, high


@few
@given(
    volumes=st.dictionaries(st.integers(1, 40).map(lambda t: t / 4), st.integers(1, 12), min_size=1),
    share=st.sampled_from([0.1, 0.5, 0.7, 0.95, 1.0]),
)
def test_value_area_is_the_narrowest_range_with_the_share(volumes: dict[float, int], share: float):
    area = value_area(profile_of(volumes), share=share)
    names = ("point_of_control", "value_area_low", "value_area_high")
    assert area.select(names).row(0) == slow_value_area(volumes, share)


def test_ties_go_to_the_lower_point_of_control_and_the_fuller_range():
    flat = value_area(profile_of({1.0: 5, 2.0: 5, 3.0: 5}), share=0.6)
    assert flat.row(0, named=True) == {
        "point_of_control": 1.0,
        "value_area_low": 1.0,
        "value_area_high": 2.0,
        "value_area_share": 2 / 3,
        "volume": 15,
        "n": 3,
    }
    sided = value_area(profile_of({1.0: 4, 2.0: 9, 3.0: 5}), share=0.7)
    assert sided.select("value_area_low", "value_area_high").row(0) == (2.0, 3.0)


def test_exactly_seventy_percent_is_enough():
    area = value_area(profile_of({1.0: 10, 2.0: 70, 3.0: 20}))
    assert area.select("value_area_low", "value_area_high").row(0) == (2.0, 2.0)


def test_pairs_grow_from_the_point_of_control_by_the_busier_two_levels():
    # 10 of 25: two above hold 7, two below 6 -> above; then two below 6 against the one above 2 -> below: 23
    profile = profile_of({1.0: 1, 2.0: 5, 3.0: 10, 4.0: 3, 5.0: 4, 6.0: 2})
    area = value_area(profile, share=0.7, method="pairs")
    assert area.select("value_area_low", "value_area_high", "value_area_share").row(0) == (1.0, 5.0, 23 / 25)
    assert value_area(profile, share=0.7).select("value_area_low", "value_area_high").row(0) == (2.0, 4.0)


@few
@given(rows=trade_lists.filter(bool), method=st.sampled_from(["narrowest", "pairs"]))
def test_value_area_holds_its_share_in_each_group(rows: list[Row], method: str):
    trades = pl.concat([tape(rows), tape(rows[: len(rows) // 2 + 1], contract="d")])
    areas = value_area(volume_profile(trades), method=method)
    assert areas["contract_id"].to_list() == ["c", "d"]
    assert (areas["value_area_share"] >= 0.7 - 1e-9).all()
    held = trades.join(areas, on="contract_id").filter(pl.col("price").is_between("value_area_low", "value_area_high"))
    by_hand = held.group_by("contract_id").agg(pl.col("volume").sum()).sort("contract_id")
    assert by_hand["volume"].to_list() == (areas["value_area_share"] * areas["volume"]).round().cast(pl.Int64).to_list()
    lazy = value_area(volume_profile(trades.lazy()), method=method).collect()
    assert_frame_equal(lazy, areas)


def test_value_area_of_the_es_hour_is_that_of_the_search(es_tape: Tape):
    """The figures of docs/metrics.md."""
    profile = volume_profile(es_tape.trades)
    area = value_area(profile).row(0, named=True)
    found = (area["point_of_control"], area["value_area_low"], area["value_area_high"])
    assert found == slow_value_area(dict(profile.select("price", "volume").rows()), 0.7)
    assert found == (4810.0, 4807.75, 4811.0)
    assert (area["value_area_share"], area["volume"], area["n"]) == (pytest.approx(0.7243, abs=5e-5), 9848, 46)


def test_bins_are_named_by_their_lower_edge():
    trades = tape([(0, 100.0, 1, 0), (1, 100.75, 2, 1), (2, 101.0, 4, 0)])
    assert volume_profile(trades, step=1.0).select("price", "volume").rows() == [(100.0, 3), (101.0, 4)]
    tenths = tape([(0, 0.1 + 0.2, 1, 0), (1, 0.3, 1, 0)])
    assert volume_profile(tenths, step=0.1)["volume"].to_list() == [2]


def test_value_area_of_each_bar_of_a_footprint():
    trades = tape([(0, 100.0, 1, 0), (60, 101.0, 2, 1), (61, 100.75, 9, 1)])
    areas = value_area(footprint(trades, 50), by=["start_ns"])
    assert areas.select("start_ns", "point_of_control").rows() == [(0, 100.0), (50, 100.75)]


@pytest.mark.parametrize("method", ["narrowest", "pairs"])
def test_no_trades_make_an_empty_profile(method: str):
    profile = volume_profile(tape([]))
    assert (profile.height, footprint(tape([]), 50).height) == (0, 0)
    area = value_area(profile, method=method)
    assert area.height == 0
    assert area.schema == value_area(volume_profile(tape([(0, 1.0, 1, 0)])), method=method).schema


def test_wrong_arguments_are_said():
    for call in (
        lambda: volume_profile(tape([]), step=0.0),
        lambda: footprint(tape([]), 0),
        lambda: value_area(volume_profile(tape([])), share=1.5),
        lambda: value_area(volume_profile(tape([])), method="widest"),
    ):
        with pytest.raises(UsageError):
            call()
