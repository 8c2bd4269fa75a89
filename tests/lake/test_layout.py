"""Whatever a server calls a contract, its files stay in the lake, and every hive reader gets its name back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mdcapture.lake.layout import (
    NULL_PARTITION,
    contract_folder,
    is_part,
    is_session_id,
    journal_folder,
    part_path,
    partition_of,
    segment_number,
    segment_path,
    session_id_at,
    session_order,
)

SESSION = "session_20231225_230000"
ODD = [
    "",
    ".",
    "..",
    "../../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:\\x",
    "con",
    "~",
    "a\x00b",
    "\n",
    " ",
    " x ",
    "x.",
    "%2F",
    "%",
    "a%20b",
    "a+b c",
    "a=b&c",
    "contract_id=x",
    "Ünïcödé",
    "日本語",
    "😀",
    "123",
    "007",
    "1e5",
    "2024-01-01",
    "true",
    "NULL",
    "null",
    "nan",
    NULL_PARTITION,
    f"{NULL_PARTITION}x",
    NULL_PARTITION.lower(),
    "*?[x]{a,b}",
    "'\"`;--",
    "x" * 200,
    "x" * 201,
    "x" * 10_000,
    "é" * 100,
]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(ODD)


@given(contract_id=NAMES)
@settings(max_examples=500)
def test_a_contract_s_folder_is_one_name_that_leads_back(contract_id: str):
    folder = contract_folder(contract_id)
    assert Path(folder).name == folder
    assert Path("lake", folder).resolve().parent == Path("lake").resolve()
    assert len(folder.encode()) <= 255
    assert folder.isascii()
    usable = folder != contract_folder(None)
    assert partition_of(folder) == (contract_id if usable else None)


def test_only_names_that_can_be_no_folder_go_without():
    without = {name for name in ODD if contract_folder(name) == contract_folder(None)}
    assert without == {"", NULL_PARTITION, "x" * 201, "x" * 10_000, "é" * 100}


@given(names=st.lists(NAMES, min_size=1, max_size=25, unique=True))
@example(names=ODD)
@settings(max_examples=20, deadline=None)
def test_duckdb_and_polars_read_the_names_back(names: list[str]):
    with tempfile.TemporaryDirectory() as root:
        for number, name in enumerate(names):
            path = Path(root, part_path("trades", SESSION, name, number))
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"number": [number]}), path)
        expected = {number: partition_of(contract_folder(name)) for number, name in enumerate(names)}
        source = f"read_parquet('{root}/trades/*/*/*.parquet', hive_partitioning=true, hive_types_autocast=false)"
        with duckdb.connect() as connection:
            rows = connection.execute(f"select number, contract_id, session_id from {source}").fetchall()  # noqa: S608
        types = {"session_id": pl.String, "contract_id": pl.String}
        frame = pl.scan_parquet(f"{root}/trades", hive_partitioning=True, hive_schema=types).collect()
    assert {number: name for number, name, _ in rows} == expected
    assert dict(frame.select("number", "contract_id").iter_rows()) == expected
    assert {session for *_, session in rows} == set(frame["session_id"]) == {SESSION}


@given(start_ns=st.integers(0, 2**63 - 1), attempt=st.integers(1, 2000))
def test_a_session_s_id_tells_its_second_and_nothing_that_leaves_the_lake(start_ns: int, attempt: int):
    session_id = session_id_at(start_ns, attempt)
    assert is_session_id(session_id)
    assert journal_folder(Path("lake"), session_id).parent == Path("lake/journal")
    later = session_id_at(start_ns, attempt + 1)
    assert session_order(session_id) < session_order(later)
    if start_ns < 2**63 - 10**9:
        assert session_order(later) < session_order(session_id_at(start_ns + 10**9))


@pytest.mark.parametrize(
    "text",
    ["", "..", "session_../../x", "session_20231225_230000/..", "session_20231225_230000\n", "session_2023", "x"],
)
def test_other_texts_are_no_session_s_id(text: str):
    assert not is_session_id(text)


def test_files_are_known_by_their_names():
    assert segment_number(segment_path(Path("x"), 12)) == 12
    assert segment_number(segment_path(Path("x"), 12_345_678)) == 12_345_678
    assert segment_number(Path("12.journal")) is None
    assert is_part(Path(part_path("trades", SESSION, "a/b", 3)).name)
    assert not any(map(is_part, ["part-.parquet", "part-1.parquet.tmp", "part-x.parquet", "part-1.parquet\n"]))
