"""Rows to text: `table` for people, `json`, `jsonl` and `csv` for programs.

Rows come in Arrow batches and leave a batch at a time, so that a result of any length takes the memory of one batch. In
all formats integers are exact, and timestamps are ISO 8601 to the last digit, in UTC (`…T23:00:00.106846Z`).
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TextIO

    import pyarrow as pa

__all__ = ["TABLE_ROWS", "OutputFormat", "write_rows"]

OutputFormat = Literal["table", "json", "jsonl", "csv"]

TABLE_ROWS: Final = 200
"""So many rows a table has, if not asked for more."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PLAIN_WIDTH: Final = 1_000_000
_encode = msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode


def write_rows(
    names: Sequence[str],
    batches: Iterable[pa.RecordBatch],
    output: OutputFormat,
    stream: TextIO,
    *,
    limit: int | None = TABLE_ROWS,
    notes: TextIO | None = None,
) -> None:
    """Write rows in a format.

    Args:
        names: The columns' names; a later one of the same name gets a number.
        batches: The rows.
        output: The format. `json` is one array of objects, `jsonl` an object a line; NaN and infinities are null there.
            `csv` has a header, and nothing for null. `table` is plain where the stream is no terminal, or NO_COLOR is
            set, and has as many columns as fit where it is one.
        stream: Where to.
        limit: So many rows at most in a table; None for all of them, which are then held in memory.
        notes: Where a table that was cut says so; stderr, if not given.
    """
    columns = _distinct(names)
    rows = chain.from_iterable(map(_rows, batches))
    if output == "json":
        _write_json(columns, rows, stream)
    elif output == "jsonl":
        stream.writelines(f"{line}\n" for line in _objects(columns, rows))
    elif output == "csv":
        _write_csv(columns, rows, stream)
    else:
        _write_table(columns, rows, stream, limit, notes or sys.stderr)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names by which an object can hold its values: SQL allows the same one twice."""
    seen: Counter[str] = Counter()
    distinct: list[str] = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return distinct


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    return zip(*map(_values, batch.columns), strict=True)


def _values(column: pa.Array) -> list[Any]:
    """A column's values; times as text, because Python has no nanoseconds."""
    kind = str(column.type)
    if kind.startswith("timestamp"):
        return [text and text.replace(" ", "T") for text in column.cast("string").to_pylist()]
    if kind == "month_day_nano_interval":
        return [None if value is None else _iso_interval(*value) for value in column.to_pylist()]
    values: list[Any] = column.to_pylist()
    return values


def _iso_interval(months: int, days: int, nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return f"P{months}M{days}DT{sign}{seconds}.{rest:09d}S"


def _objects(columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    return (_encode(dict(zip(columns, row, strict=True))).decode() for row in rows)


def _write_json(columns: Sequence[str], rows: Iterable[tuple[Any, ...]], stream: TextIO) -> None:
    separator = "[\n"
    for line in _objects(columns, rows):
        stream.write(separator + line)
        separator = ",\n"
    stream.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_csv(columns: Sequence[str], rows: Iterable[tuple[Any, ...]], stream: TextIO) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_text, row) for row in rows)


def _text(value: object) -> str:
    """A value as text: nothing for null, JSON for what has parts."""
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        return _encode(value).decode()
    return str(value)


def _write_table(
    columns: Sequence[str], rows: Iterator[tuple[Any, ...]], stream: TextIO, limit: int | None, notes: TextIO
) -> None:
    shown = list(islice(rows, limit))
    _print_table(columns, shown, stream)
    if next(rows, None) is not None:
        notes.write(f"only the first {limit:,} rows are shown: --format csv or jsonl has them all\n")


def _print_table(columns: Sequence[str], rows: Sequence[tuple[Any, ...]], stream: TextIO) -> None:
    from rich import box  # noqa: PLC0415  # the other formats do without, and it takes its time
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    terminal = stream.isatty()
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    cell: Callable[[str], Text] = partial(Text, no_wrap=True, overflow="ellipsis")
    for place, name in enumerate(columns):
        numbers = all(isinstance(row[place], int | float) for row in rows if row[place] is not None)
        table.add_column(cell(_harmless(name)), justify="right" if numbers and rows else "left")
    for row in rows:
        table.add_row(*(cell(_harmless(_text(value))) for value in row))
    Console(file=stream, width=None if terminal else _PLAIN_WIDTH, highlight=False).print(table)


def _harmless(text: str) -> str:
    """What the feed sent must not steer the terminal, nor break the line."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)
