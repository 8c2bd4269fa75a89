"""How long it takes until something happens: help, import, the first answer in SQL.

python benchmarks/startup.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import Figure, interleaved, say
from inputs import market_records

from mdcapture.interop.importing import import_records

QUERY = "SELECT side, sum(volume) FROM trades GROUP BY side"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats

    def run(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        import_records(iter(market_records(20_000)), lake, source="a benchmark")
        trades = f"{lake}/trades/**/*.parquet"
        by_hand = f"import duckdb; print(duckdb.sql('''{QUERY.replace('trades', repr(trades))}''').fetchall())"
        timings = interleaved(
            repeats,
            python=lambda: run("-c", "pass"),
            help=lambda: run("-m", "mdcapture", "--help"),
            library=lambda: run("-c", "import mdcapture"),
            sql=lambda: run("-m", "mdcapture", "sql", QUERY, "--lake", folder),
            duckdb=lambda: run("-c", by_hand),
        )
    ms = {name: 1e3 * timing.median_s for name, timing in timings.items()}
    python = ("python -c pass", ms["python"])
    say(Figure("mdcapture --help", ms["help"], "ms", *python, goal="≤ 150", spread=timings["help"].spread))
    say(
        Figure(
            "import mdcapture, beyond Python itself",
            ms["library"] - ms["python"],
            "ms",
            *python,
            goal="≤ 60",
            spread=timings["library"].spread,
        )
    )
    say(
        Figure(
            "first answer in SQL",
            ms["sql"],
            "ms",
            "duckdb in Python, from nothing",
            ms["duckdb"],
            goal="≤ 400",
            spread=timings["sql"].spread,
        )
    )


if __name__ == "__main__":
    main()
