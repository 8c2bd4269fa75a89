"""Compare two days: which figures differ by more than chance would have it.

    python examples/compare_days.py LAKE [SESSION SESSION]    two sessions that were captured, or the last two
    python examples/compare_days.py                           two synthetic markets, one twice as busy

Means over intervals of each session, their difference, and its 95 % interval from a bootstrap of blocks of neighbouring
intervals (Künsch 1989): what holds zero is no difference. Of a hundred figures some five are outside by chance alone.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import polars as pl

import mdcapture as md
from mdcapture.analysis.compare import compare
from mdcapture.demo import START_NS, synthesize

DAY_NS = 86_400_000_000_000


def differences(one: md.Session, other: md.Session, every: str) -> pl.DataFrame:
    """The figures, but for prices, whose 95 % interval of the difference does not hold zero: the clearest first."""
    table = compare([one.analyze(every=every), other.analyze(every=every)])
    apart = table.filter(pl.col("unit") != "price", (pl.col("low") > 0) | (pl.col("high") < 0))
    size = (pl.col("difference") / (pl.col("high") - pl.col("low"))).abs()
    return apart.sort(size, descending=True).select(
        "contract", "metric", "unit", "mean_a", "mean_b", "difference", "low", "high"
    )


def main() -> None:
    """Compare the sessions that are named, or two synthetic ones."""
    if len(sys.argv) > 1:
        lake = md.open_lake(sys.argv[1])
        sessions = [lake.session(ref) for ref in sys.argv[2:]] or lake.sessions()[-2:]
        if len(sessions) != 2:
            sys.exit(f"two sessions are compared, and here is {len(sessions)}: capture another, or name two")
        one, other = sessions
        print(differences(one, other, every="5m"))
        return
    with tempfile.TemporaryDirectory() as folder:
        quiet = synthesize(Path(folder), duration_s=900, contracts=["MNQ"], rate=6.0, seed=1)
        busy = synthesize(
            Path(folder), duration_s=900, contracts=["MNQ"], rate=12.0, seed=2, start_ns=START_NS + DAY_NS
        )
        with pl.Config(tbl_rows=12):
            print(differences(quiet, busy, every="90s"))


if __name__ == "__main__":
    main()
