"""Sessions are compared by the right numbers, and chance is judged rightly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from mdcapture.analysis.compare import compare
from mdcapture.analysis.result import Analysis
from mdcapture.demo import START_NS, synthesize
from mdcapture.errors import NotFoundError, UsageError
from mdcapture.lake.manifest import Contract

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mdcapture.session import Session


def made(name: str, values: Sequence[float], contract_id: str = "CON.F.US.EP.H26") -> Analysis:
    """An analysis that has one metric, in intervals."""
    figures = pl.DataFrame(
        {
            "session_id": name,
            "contract_id": contract_id,
            "other_id": pl.Series([None] * len(values), dtype=pl.String),
            "start_ns": range(len(values)),
            "metric": "volume",
            "value": values,
        }
    )
    return Analysis(name, (Contract(contract_id=contract_id),), (), 1, figures, ())


def test_each_mean_and_their_difference():
    row = compare([made("a", [1.0, 2.0, 3.0, 4.0]), made("b", [11.0, 13.0])]).row(0, named=True)
    assert (row["mean_a"], row["mean_b"], row["difference"]) == (2.5, 12.0, 9.5)
    assert (row["n_a"], row["n_b"], row["low"], row["high"]) == (4, 2, None, None)


def test_contracts_meet_by_their_root_and_every_session_the_first():
    march, june = made("a", [1.0] * 5), made("b", [2.0] * 5, "CON.F.US.EP.M26")
    table = compare([march, june, made("c", [3.0] * 5)])
    assert table.select("contract", "session_b", "difference").rows() == [("EP", "b", 1.0), ("EP", "c", 2.0)]


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
