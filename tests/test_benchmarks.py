"""The guard's judgement: which figures of a benchmark have become so much worse that a change must be looked at."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

Figures = list[dict[str, Any]]

RUN = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "run.py"))
"""The script's functions; it is no module."""


def figure(ratio: float | None, goal: str = "≥ 10", name: str = "rows a second", value: float = 1.0) -> dict[str, Any]:
    said = {"benchmark": "pipeline", "figure": name, "value": value, "unit": "rows/s", "beside": "by hand"}
    return said | ({} if ratio is None else {"ratio": ratio}) | ({"goal": goal} if goal else {})


@pytest.mark.parametrize(
    ("goal", "before", "now", "worse"),
    [
        ("≥ 10", 8.0, 4.1, False),
        ("≥ 10", 8.0, 3.9, True),
        ("≥ 10", 8.0, 40.0, False),
        ("≥ 10", 8.0, 0.0, True),
        ("≤ 1.5", 1.2, 2.3, False),
        ("≤ 1.5", 1.2, 2.5, True),
        ("≤ 1.5", 1.2, 0.1, False),
        ("", 8.0, 3.9, True),
        ("", 8.0, 40.0, False),
    ],
)
def test_a_ratio_regresses_when_it_is_more_than_twice_as_bad_in_its_own_direction(
    goal: str, before: float, now: float, *, worse: bool
):
    found = RUN["grossly_worse"]([figure(now, goal)], [figure(before, goal)])
    assert len(found) == worse
    assert all(f"rows a second, beside by hand: {now:g}, it was {before:g}" in line for line in found.values())


@pytest.mark.parametrize(
    ("now", "before"),
    [
        pytest.param([figure(0.1)], [], id="nothing was kept"),
        pytest.param([figure(0.1, name="a new one")], [figure(8.0)], id="the figure is new"),
        pytest.param([figure(0.1, goal="≥ 5")], [figure(8.0)], id="its goal is another one"),
        pytest.param([figure(0.1) | {"benchmark": "book"}], [figure(8.0)], id="of another benchmark"),
        pytest.param([], [figure(8.0)], id="it is not measured here"),
        pytest.param([figure(None, value=0.001)], [figure(None, value=1000.0)], id="absolute figures"),
    ],
)
def test_what_has_no_ratio_on_both_sides_is_no_regression(now: Figures, before: Figures):
    assert RUN["grossly_worse"](now, before) == {}


def test_only_what_is_worse_is_told():
    before = [figure(8.0, name=name) for name in ("sealing", "recovery", "bytes")]
    now = [figure(8.5, name="sealing"), figure(2.0, name="recovery"), figure(7.0, name="bytes")]
    (told,) = RUN["grossly_worse"](now, before).values()
    assert told.startswith("recovery")


def test_new_figures_of_a_benchmark_replace_all_its_older_ones():
    queries = figure(2.0) | {"benchmark": "queries"}
    kept = RUN["in_place_of"]([queries, figure(1.0, name="gone"), figure(8.0)], [figure(9.0)])
    assert kept == [figure(9.0), queries]
