"""File formats: tables on their way, in Arrow batches, to bytes.

A *stream* format holds one table and is written from its beginning to its end, into anything that takes bytes. A
*store* holds several tables and needs a file of its own. Each takes the memory of a few batches, however many rows.

In text, times of Arrow are ISO 8601 to the last digit; JSON writes NaN and infinities as null.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import duckdb
import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from mdcapture.errors import UsageError
from mdcapture.interop.dictionary import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["STORES", "STORE_ERRORS", "STREAMS", "SUFFIXES", "Part"]


class Part(NamedTuple):
    """A table on its way: its name, its columns, what they mean, and its rows, to be read once."""

    name: str
    schema: pa.Schema
    meaning: list[Entry]
    batches: Iterator[pa.RecordBatch]


_EXCEL_ROWS: Final = 1_048_575
_EXCEL_DIGITS: Final = 10**15
_SQLITE_TYPES: Final = {"int": "INTEGER", "bool": "INTEGER", "double": "REAL", "float": "REAL"}

_encode = msgspec.json.Encoder(enc_hook=str).encode


def _write_parquet(sink: IO[bytes], part: Part) -> None:
    """Times and sequences as differences, which takes a third less room and time; the rest by dictionaries."""
    rising = {field.name for field in part.schema if field.type == pa.int64() and _rises(field.name)}
    others = [name for name in part.schema.names if name not in rising]
    encoding = dict.fromkeys(rising, "DELTA_BINARY_PACKED")
    with pq.ParquetWriter(
        sink, part.schema, compression="zstd", use_dictionary=others, column_encoding=encoding or None
    ) as writer:
        for batch in part.batches:
            writer.write_batch(batch)


def _rises(name: str) -> bool:
    return name == "seq" or name.endswith("_ns")


def _write_arrow(sink: IO[bytes], part: Part) -> None:
    with pa.ipc.new_file(sink, part.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for batch in part.batches:
            writer.write_batch(batch)


def _write_arrows(sink: IO[bytes], part: Part) -> None:
    with pa.ipc.new_stream(sink, part.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for batch in part.batches:
            writer.write_batch(batch)


def _write_csv(sink: IO[bytes], part: Part) -> None:
    (head,) = _in_text([pa.RecordBatch.from_pylist([], part.schema)], flat=True)
    with pa.csv.CSVWriter(sink, head.schema) as writer:
        for batch in _in_text(part.batches, flat=True):
            writer.write_batch(batch)


def _write_jsonl(sink: IO[bytes], part: Part) -> None:
    for lines in _json_lines(part):
        sink.write(lines)


def _write_json(sink: IO[bytes], part: Part) -> None:
    separator = b"[\n"
    for lines in _json_lines(part):
        sink.write(separator + lines.rstrip(b"\n").replace(b"\n", b",\n"))
        separator = b",\n"
    sink.write(b"[]\n" if separator == b"[\n" else b"\n]\n")


def _json_lines(part: Part) -> Iterator[bytes]:
    """An object a line; a line feed within a text is escaped, so each one is an end."""
    for batch in _in_text(part.batches, flat=False):
        frame = pl.DataFrame(pa.Table.from_batches([batch]))
        if frame.height:
            yield frame.write_ndjson().encode()


def _in_text(batches: Iterable[pa.RecordBatch], *, flat: bool) -> Iterator[pa.RecordBatch]:
    """Batches with times as ISO 8601 and, if `flat`, with what has parts as JSON."""
    for batch in batches:
        columns = [_text_column(column, flat=flat) for column in batch.columns]
        yield pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _text_column(column: pa.Array, *, flat: bool) -> pa.Array:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return pc.replace_substring(column.cast(pa.string()), " ", "T")
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64())
    if pa.types.is_interval(kind) or (pa.types.is_nested(kind) and flat):
        texts = [None if value is None else _cell(value) for value in column.to_pylist()]
        return pa.array(texts, pa.string())
    return column.cast(pa.string()) if pa.types.is_temporal(kind) else column


def _cell(value: object) -> str:
    return _encode(value).decode() if isinstance(value, list | dict) else str(value)


def _store_duckdb(path: Path, parts: Iterable[Part]) -> None:
    with duckdb.connect(str(path)) as connection:
        for part in parts:
            rows = pa.RecordBatchReader.from_batches(part.schema, part.batches)
            connection.register("rows_on_their_way", rows)
            connection.execute(f"CREATE TABLE {_name(part.name)} AS FROM rows_on_their_way")
            connection.unregister("rows_on_their_way")
            for entry in part.meaning:
                said = f"{entry.meaning} ({entry.unit})" if entry.unit else entry.meaning
                column = f"{_name(part.name)}.{_name(entry.column)}"
                connection.execute(f"COMMENT ON COLUMN {column} IS '{said.replace(chr(39), chr(39) * 2)}'")


def _store_sqlite(path: Path, parts: Iterable[Part]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")  # an unfinished file is never seen
        connection.execute("PRAGMA synchronous = OFF")  # and is synced as a whole
        for part in parts:
            columns = ", ".join(f"{_name(field.name)} {_sqlite_type(field.type)}" for field in part.schema)
            places = ", ".join("?" * len(part.schema))
            connection.execute(f"CREATE TABLE {_name(part.name)} ({columns})")
            connection.execute("BEGIN")
            for batch in _in_text(part.batches, flat=True):
                values = (column.to_pylist() for column in batch.columns)
                insert = f"INSERT INTO {_name(part.name)} VALUES ({places})"  # noqa: S608  # a name of ours
                connection.executemany(insert, zip(*values, strict=True))
            connection.execute("COMMIT")


def _sqlite_type(kind: pa.DataType) -> str:
    return next((name for prefix, name in _SQLITE_TYPES.items() if str(kind).startswith(prefix)), "TEXT")


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _store_excel(path: Path, parts: Iterable[Part]) -> None:
    try:
        import xlsxwriter  # type: ignore[import-untyped]  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise UsageError("Excel needs the extra: pip install 'mdcapture[excel]'") from error
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(path, options) as book:
        bold = book.add_format({"bold": True})
        for part in parts:
            sheet = book.add_worksheet(part.name[:31])
            sheet.freeze_panes(1, 0)
            sheet.write_row(0, 0, part.schema.names, bold)
            for row, values in enumerate(_excel_rows(part), start=1):
                for column, value in enumerate(values):
                    sheet.write(row, column, value)


def _excel_rows(part: Part) -> Iterator[tuple[Any, ...]]:
    """Rows as Excel can hold them: it keeps 15 digits of a number, so longer ones are text."""
    written = 0
    for batch in _in_text(part.batches, flat=True):
        written += batch.num_rows
        if written > _EXCEL_ROWS:
            raise UsageError(
                f"{part.name} has more rows than a sheet of Excel holds ({_EXCEL_ROWS:,}): "
                "export a query that sums them up, or choose parquet or csv"
            )
        columns = [[_excel_value(value) for value in column.to_pylist()] for column in batch.columns]
        yield from zip(*columns, strict=True)


def _excel_value(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _EXCEL_DIGITS:
        return str(value)
    if isinstance(value, float) and value - value != 0:  # an infinity, or no number
        return str(value)
    return value


STREAMS: Final[dict[str, Callable[[IO[bytes], Part], None]]] = {
    "csv": _write_csv,
    "json": _write_json,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
    "arrow": _write_arrow,
    "arrows": _write_arrows,
}
"""Formats of one table: a function of a sink and the table."""

STORES: Final[dict[str, Callable[[Path, Iterable[Part]], None]]] = {
    "duckdb": _store_duckdb,
    "sqlite": _store_sqlite,
    "xlsx": _store_excel,
}
"""Formats of several tables: a function of a new file's path and the tables."""

STORE_ERRORS: Final = (sqlite3.Error, duckdb.IOException)
"""What a store raises where the disk refuses."""

SUFFIXES: Final = {
    **{f".{name}": name for name in (*STREAMS, *STORES)},
    ".ndjson": "jsonl",
    ".feather": "arrow",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
}
"""What a file's suffix says of its format."""
