"""The recipes of docs/catalogs.md, run as they stand where Delta's and Iceberg's libraries are installed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from tapes import records, write_tape

import mdcapture as md
from mdcapture.interop.importing import import_tape

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent.parent
VARIABLE = "MDCAPTURE_CATALOGS_PYTHON"
READ = {
    "Delta Lake": "import polars as pl; frame = pl.scan_delta('data/{table}').collect()",
    "Iceberg": "import polars as pl; frame = pl.DataFrame(catalog.load_table('market.{table}').scan().to_arrow())",
}


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], None]:
    if not (python := os.environ.get(VARIABLE)):
        pytest.skip(f"{VARIABLE} must name an interpreter with mdcapture, deltalake and pyiceberg[sql-sqlite]")

    def run(code: str) -> None:
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([python, "-c", code], check=True, cwd=tmp_path, env=environ, capture_output=True)

    return run


def sorted_rows(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort([name for name in ("session_id", "recv_ns", "seq", "pos") if name in frame.columns])


@pytest.mark.parametrize("catalog", READ)
def test_a_catalog_shows_the_rows_of_the_lake(run: Callable[[str], None], tmp_path: Path, catalog: str):
    page = (ROOT / "docs/catalogs.md").read_text().split(f"## {catalog}")[1]
    (recipe, *_) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for day in range(2):  # again with another session
        tape = write_tape(tmp_path / f"{day}.ndjson", records(300, seed=day), interval_ns=10**6 + day)
        import_tape(str(tape), tmp_path / "data")
        run(recipe)
    run(recipe)
    lake = md.open_lake(tmp_path / "data")
    for table in ("quotes", "trades", "depth", "messages"):
        read = READ[catalog].format(table=table)
        run(f"{recipe}\n{read}\nframe.write_parquet('{table}.parquet')")
        expected = getattr(lake, table)().collect()
        seen = pl.read_parquet(tmp_path / f"{table}.parquet").select(expected.columns)
        widened = {name for name in seen.columns if seen[name].dtype != expected[name].dtype}
        assert widened <= ({"side", "dom_type", "changed"} if catalog == "Iceberg" else set())
        assert sorted_rows(seen.cast(dict(expected.schema))).equals(sorted_rows(expected))
