"""A lake in object storage beside the way by hand: rates of upload, reading and SQL, in one run.

    python benchmarks/storage.py [--messages 300000] [--rounds 3]

The server is moto, a process of this machine, so the rates are those of moto and Python's sockets: what is to be
compared are the ways, not the numbers with those of S3. Each way is taken in turn, the best round counts. An upload of
ours reads back what it sent, and compares checksums; those by hand trust.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from inputs import market_records

import mdcapture as md
from mdcapture.interop.importing import import_records
from mdcapture.lake.backup import back_up
from mdcapture.lake.remote import locate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from object_storage import aws, s3_server

if TYPE_CHECKING:
    from collections.abc import Callable

Ways = dict[str, "Callable[[], object]"]


def seconds(ways: Ways, rounds: int) -> dict[str, float]:
    """The best time of each way; in each round all of them take their turn."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, act in ways.items():
            began = time.perf_counter()
            act()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def table(title: str, found: dict[str, float], size: float, unit: str) -> None:
    """Rates, and each as a multiple of the first."""
    print(f"\n{title}")
    first = next(iter(found.values()))
    for name, taken_s in found.items():
        print(f"  {name:<44} {taken_s:>7.3f} s {size / taken_s:>12,.1f} {unit}/s {first / taken_s:>6.2f} x")


def uploads(root: Path) -> Ways:
    """Copies of a lake to places that are new each time."""
    number = count()

    def fresh() -> str:
        return f"lakes/{next(number)}"

    def by_fsspec() -> object:
        import s3fs  # noqa: PLC0415  # where it is installed

        return s3fs.S3FileSystem().put(f"{root}/", fresh(), recursive=True)

    ways: Ways = {
        "mdcapture (sent, read back, compared)": lambda: back_up(root, locate(f"s3://{fresh()}")),
        "pyarrow.fs.copy_files": lambda: pafs.copy_files(str(root), f"s3://{fresh()}"),
    }
    return ways | {"s3fs put": by_fsspec} if find_spec("s3fs") else ways


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, s3_server() as server:
        os.environ |= aws(server.endpoint)
        server.make_bucket("lakes")
        root = Path(folder) / "lake"
        import_records(iter(market_records(asked.messages)), root, source="benchmark")
        size_mb = sum(path.stat().st_size for path in root.rglob("*.parquet")) / 1e6
        table(f"upload of {size_mb:.1f} MB", seconds(uploads(root), asked.rounds), size_mb, "MB")

        back_up(root, locate("s3://lakes/all"))
        there, here = md.open_lake("s3://lakes/all"), md.open_lake(root)
        s3, path = pafs.FileSystem.from_uri("s3://lakes/all/depth")
        native = pl.scan_parquet(
            "s3://lakes/all/depth/**/*.parquet", hive_partitioning=True, storage_options={"aws_allow_http": "true"}
        )
        by_hand = ds.dataset(path, filesystem=s3, partitioning="hive")
        rows = there.depth().select(pl.len()).collect().item() / 1e6
        whole: Ways = {
            "mdcapture": lambda: there.depth().collect(),
            "polars scan_parquet('s3://…')": native.collect,
            "pyarrow dataset, to_table": by_hand.to_table,
            "mdcapture, from the folder": lambda: here.depth().collect(),
        }
        table(f"all of depth, {rows:.2f} M rows", seconds(whole, asked.rounds), rows, "M rows")
        lots = pl.col("volume").sum()
        some: Ways = {
            "mdcapture": lambda: there.depth().group_by("contract_id").agg(lots).collect(),
            "polars scan_parquet('s3://…')": lambda: native.group_by("contract_id").agg(lots).collect(),
            "mdcapture sql": lambda: there.sql("select contract_id, sum(volume) from depth group by 1").fetchall(),
            "mdcapture sql, from the folder": (
                lambda: here.sql("select contract_id, sum(volume) from depth group by 1").fetchall()
            ),
        }
        table("two columns of it, summed up by contract", seconds(some, asked.rounds), rows, "M rows")


if __name__ == "__main__":
    main()
