"""Sessions are compared by the right numbers, and chance is judged rightly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from mdcapture.analysis.compare import compare, history
from mdcapture.analysis.result import Analysis
from mdcapture.demo import START_NS, synthesize
from mdcapture.errors import NotFoundError, UsageError
from mdcapture.lake.manifest import Contract

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mdcapture.session import Session


HOUR_NS = 3600 * 10**9


def made(
    name: str, values: Sequence[float], contract_id: str = "CON.F.US.EP.H26", every_ns: int = 60 * 10**9
) -> Analysis:
    """An analysis that has one metric, in intervals."""
    starts = [START_NS + number * every_ns for number in range(len(values))]
    figures = pl.DataFrame(
        {
            "session_id": name,
            "contract_id": contract_id,
            "other_id": pl.Series([None] * len(values), dtype=pl.String),
            "start_ns": starts,
            "end_ns": [start + every_ns for start in starts],
            "group": "activity",
            "metric": "volume",
            "value": values,
            "error": pl.Series([None] * len(values), dtype=pl.Float64),
            "unit": "lots",
            "n": 1,
            "note": pl.Series([None] * len(values), dtype=pl.String),
        }
    )
    return Analysis(name, (Contract(contract_id=contract_id),), (), every_ns, figures, ())


def test_each_mean_and_their_difference():
    row = compare([made("a", [1.0, 2.0, 3.0, 4.0]), made("b", [11.0, 13.0])]).row(0, named=True)
    assert (row["mean_a"], row["mean_b"], row["difference"]) == (2.5, 12.0, 9.5)
    assert (row["n_a"], row["n_b"], row["low"], row["high"]) == (4, 2, None, None)


def test_contracts_meet_by_their_root_and_every_session_the_first():
    march, june = made("a", [1.0] * 5), made("b", [2.0] * 5, "CON.F.US.EP.M26")
    table = compare([march, june, made("c", [3.0] * 5)])
    assert table.select("contract", "b", "difference").rows() == [("EP", "b", 1.0), ("EP", "c", 2.0)]


def test_the_interval_holds_the_truth_as_often_as_it_says():
    dice = np.random.default_rng(5)
    held = 0
    for number in range(200):
        a, b = dice.normal(0, 1, 60), dice.normal(0.5, 2, 40)
        row = compare([made("a", list(a)), made("b", list(b))], confidence=0.9, seed=number).row(0, named=True)
        held += row["low"] <= 0.5 <= row["high"]
    assert 0.82 < held / 200 < 0.95


def test_sessions_are_compared_from_end_to_end(tmp_path: Path):
    days = [START_NS, START_NS + 86_400 * 10**9]
    first, second = (
        synthesize(tmp_path, duration_s=600, contracts=("ES",), rate=rate, start_ns=start_ns, seed=3)
        for rate, start_ns in zip((4.0, 12.0), days, strict=True)
    )
    table = compare([first.analyze(every="1m"), second.analyze(every="1m")])
    busy = table.filter(pl.col("metric") == "messages_per_s").row(0, named=True)
    assert 0 < busy["low"] < busy["difference"] < busy["high"]
    assert busy["mean_a"] == pytest.approx(first.analyze().value("messages_per_s"), rel=0.1)


def test_what_can_not_be_compared_is_refused(session: Session):
    one = made("a", [1.0] * 4)
    for wrong in ([one], [one, session.analyze()]):
        with pytest.raises(UsageError):
            compare(wrong)
    with pytest.raises(UsageError):
        compare([one, one], confidence=1.0)
    with pytest.raises(NotFoundError):
        compare([one, made("b", [1.0] * 4, "CON.F.US.GCE.M26")])
    with pytest.raises(UsageError, match="before"):
        compare([one], by="split")
    with pytest.raises(UsageError, match="before"):
        compare([one, one], split="2026-03-04")
    with pytest.raises(UsageError, match="after"):
        compare([one], by="split", split="2026-01-01")


def test_days_of_the_week_are_those_of_trading_days():
    hours = made("a", list(range(72)), every_ns=HOUR_NS)  # from Wednesday, 8:30 in Chicago
    by_day = history([hours]).group_by("weekday", maintain_order=True).agg("value")
    assert dict(by_day.rows()) == {
        "Wednesday": list(range(9)),  # the last of them begins at 16:30
        "Thursday": list(range(9, 33)),
        "Friday": list(range(33, 57)),
        "Saturday": list(range(57, 72)),
    }
    table = compare([hours], by="weekday")
    assert table["b"].to_list() == ["Thursday", "Friday", "Saturday"]
    assert table["a"].to_list() == ["Wednesday"] * 3
    assert table["mean_a"].to_list() == [4.0] * 3
    assert table["mean_b"].to_list() == [20.5, 44.5, 64.0]


def test_before_and_after_a_time_are_compared_whatever_the_sessions():
    early, late = made("a", [1.0] * 5 + [3.0] * 5), made("b", [3.0] * 10)
    split = START_NS + 5 * 60 * 10**9
    row = compare([early, late], by="split", split=split).row(0, named=True)
    assert (row["a"], row["b"], row["mean_a"], row["mean_b"]) == ("before", "after", 2.0, 3.0)
    assert (row["n_a"], row["n_b"], row["median_a"], row["p10_b"], row["p90_b"]) == (10, 10, 2.0, 3.0, 3.0)


def test_the_history_of_a_metric_has_every_session_in_order(tmp_path: Path):
    days = [START_NS + day * 86_400 * 10**9 for day in (1, 0)]
    sessions = [synthesize(tmp_path, duration_s=120, contracts=("ES",), rate=4.0, start_ns=start) for start in days]
    table = history([one.analyze() for one in sessions], ["volume", "vwap"])
    for metric in ("volume", "vwap"):
        rows = table.filter(pl.col("metric") == metric)
        assert rows["day"].cast(pl.String).to_list() == ["2026-03-04", "2026-03-05"]
        assert rows["value"].to_list() == [one.analyze().value(metric) for one in reversed(sessions)]
    with pytest.raises(UsageError, match="vwap"):
        history([sessions[0].analyze()], ["vwapp"])


def test_json_names_are_kept():
    compared = compare([made("a", [1.0] * 5), made("b", [2.0] * 5)])
    assert " ".join(compared.columns) == (
        "contract group metric unit a b mean_a mean_b difference low high n_a n_b "
        "p10_a median_a p90_a p10_b median_b p90_b left_out_a left_out_b note"
    )
    assert " ".join(history([made("a", [1.0])]).columns) == (
        "contract contract_id session_id day weekday start_ns end_ns group metric value error unit n"
    )
