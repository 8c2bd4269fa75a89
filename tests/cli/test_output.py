"""Rows as text: the same values whatever the format, in the memory of a batch."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdcapture.cli.output import TABLE_ROWS, OutputFormat, write_records, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        return True


def written(
    table: pa.Table, output: OutputFormat, limit: int | None = TABLE_ROWS, notes: io.StringIO | None = None
) -> str:
    stream = io.StringIO()
    write_rows(table.column_names, table.to_batches(max_chunksize=2), output, stream, limit=limit, notes=notes)
    return stream.getvalue()


def one(value: pa.Array) -> pa.Table:
    return pa.table({"x": value})


@given(st.lists(st.tuples(INT64, st.floats(allow_nan=False, allow_infinity=False), TEXT, st.booleans() | st.none())))
def test_values_come_back_as_they_were(rows: list[tuple[int, float, str, bool | None]]):
    schema = pa.schema({"i": pa.int64(), "f": pa.float64(), "s": pa.string(), "b": pa.bool_()})
    table = pa.Table.from_pylist([dict(zip("ifsb", row, strict=True)) for row in rows], schema)
    assert [tuple(row.values()) for row in json.loads(written(table, "json"))] == rows
    lines = written(table, "jsonl").split("\n")[:-1]
    assert [tuple(json.loads(line).values()) for line in lines] == rows
    header, *cells = csv.reader(io.StringIO(written(table, "csv"), newline=""))
    assert header == list("ifsb")
    truth = {"true": True, "false": False, "": None}
    assert [(int(i), float(f), s, truth[b]) for i, f, s, b in cells] == rows


def test_int64_and_sums_are_exact_numbers():
    table = pa.table({"i": pa.array([2**63 - 1]), "sum": pa.array([Decimal(2**100)], pa.decimal128(38, 0))})
    for output in ("json", "jsonl"):
        text = written(table, output)
        assert f'{{"i":{2**63 - 1},"sum":{2**100}}}' in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_null_where_it_has_no_number(value: float):
    assert json.loads(written(one(pa.array([value])), "json")) == [{"x": None}]


@pytest.mark.parametrize("output", ["table", "json", "jsonl", "csv"])
@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pa.timestamp("us", "UTC"), 1_703_545_200_106_846, "2023-12-25T23:00:00.106846Z"),
        (pa.timestamp("us", "UTC"), 1_703_545_200_000_000, "2023-12-25T23:00:00.000000Z"),
        (pa.timestamp("ns", "UTC"), 1_703_545_200_106_846_211, "2023-12-25T23:00:00.106846211Z"),
        (pa.timestamp("us"), -1, "1969-12-31T23:59:59.999999"),
        (pa.date32(), dt.date(2023, 12, 25), "2023-12-25"),
        (pa.month_day_nano_interval(), (0, 1, 1_500_000_000), "P0M1DT1.500000000S"),
        (pa.month_day_nano_interval(), (1, 0, -1), "P1M0DT-0.000000001S"),
    ],
)
def test_times_are_iso_8601(output: OutputFormat, kind: pa.DataType, value: object, text: str):
    assert text in written(one(pa.array([value, None], kind)), output)


def test_lists_are_json_in_every_format():
    table = one(pa.array([["a", None], []]))
    assert json.loads(written(table, "json")) == [{"x": ["a", None]}, {"x": []}]
    assert written(table, "csv") == 'x\n"[""a"",null]"\n[]\n'
    assert '["a",null]' in written(table, "table")


@pytest.mark.parametrize(("output", "text"), [("json", "[]\n"), ("jsonl", ""), ("csv", "x,y\n"), ("table", "x  y\n")])
def test_no_rows_are_still_a_result(output: OutputFormat, text: str):
    table = pa.table({"x": pa.array([], pa.int64()), "y": pa.array([], pa.string())})
    assert written(table, output) == text


def test_names_that_come_twice_are_told_apart():
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    stream = io.StringIO()
    write_rows(["a", "a"], [batch], "jsonl", stream)
    assert json.loads(stream.getvalue()) == {"a": 1, "a_2": 2}


@pytest.mark.parametrize("output", ["json", "jsonl", "csv"])
def test_batches_are_written_as_they_come(output: OutputFormat):
    stream = io.StringIO()

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"x": [12_345]})
        assert "12345" in stream.getvalue()
        yield pa.record_batch({"x": [67_890]})

    write_rows(["x"], batches(), output, stream)
    assert "67890" in stream.getvalue()


def test_a_table_is_aligned_and_plain_in_a_pipe():
    table = pa.table({"name": ["ES", "MNQ"], "lots": [7, 12_345], "note": pa.array([None, None], pa.string())})
    lines = [line.rstrip() for line in written(table, "table").splitlines()]
    assert lines == ["name   lots  note", "ES        7", "MNQ   12345"]


def test_a_long_table_is_cut_with_a_note_unless_all_is_asked_for():
    table = one(pa.array(range(500)))
    notes = io.StringIO()
    assert len(written(table, "table", limit=10, notes=notes).splitlines()) == 11
    assert "first 10 rows" in notes.getvalue()
    assert len(written(table, "table", limit=None).splitlines()) == 501
    assert len(written(table, "csv", limit=10).splitlines()) == 501


def test_a_table_of_just_the_limit_is_not_cut():
    notes = io.StringIO()
    written(one(pa.array(range(10))), "table", limit=10, notes=notes)
    assert not notes.getvalue()


def test_a_terminal_shows_the_columns_that_fit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    table = pa.table({f"column_{number}": ["x" * 15, "y"] for number in range(5)})
    shown, notes = Terminal(), io.StringIO()
    write_rows(table.column_names, table.to_batches(), "table", shown, notes=notes)
    assert "column_1" in shown.getvalue()
    assert "column_2" not in shown.getvalue()
    assert "3 more columns" in notes.getvalue()
    assert "\x1b[1m" in shown.getvalue()


def test_a_narrow_terminal_is_told_once_what_all_rows_share(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    table = pa.table({"session_id": ["s" * 30] * 2, "nothing": [None, None], "price": [4800.25, 4800.5]})
    shown, notes = Terminal(), io.StringIO()
    write_rows(table.column_names, table.to_batches(), "table", shown, notes=notes)
    assert shown.getvalue().split() == ["price", "4800.25", "4800.5"]
    assert notes.getvalue() == f"in all rows: session_id = {'s' * 30}\n"


def test_a_single_row_stands_upright_where_it_is_too_wide(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    table = pa.table({f"column_{number}": ["x" * 15] for number in range(5)})
    shown, notes = Terminal(), io.StringIO()
    write_rows(table.column_names, table.to_batches(), "table", shown, notes=notes)
    assert [line.split() for line in shown.getvalue().splitlines()[1:]] == [
        [f"column_{number}", "x" * 15] for number in range(5)
    ]
    assert not notes.getvalue()


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    shown = Terminal()
    write_rows(["x"], one(pa.array([1])).to_batches(), "table", shown)
    assert "\x1b" not in shown.getvalue()


def test_what_the_feed_sent_does_not_steer_the_terminal():
    hostile = "\x1b[31m[bold]red[/bold]\r\nnext\x07\x9b"
    lines = written(one(pa.array([hostile])), "table").splitlines()
    assert len(lines) == 2
    assert lines[1].rstrip() == r"\x1b[31m[bold]red[/bold]\r\nnext\x07\x9b"


def test_records():
    records = [
        {"session_id": "a", "contracts": ["x", "y"], "start_ns": 1},
        {"session_id": "b", "contracts": [], "start_ns": None},
    ]
    stream = io.StringIO()
    write_records(records, "json", stream)
    assert json.loads(stream.getvalue()) == records
    stream = io.StringIO()
    write_records([], "json", stream)
    assert json.loads(stream.getvalue()) == []
    stream = io.StringIO()
    write_records(records, "csv", stream)
    assert stream.getvalue() == 'session_id,contracts,start_ns\na,"[""x"",""y""]",1\nb,[],\n'
