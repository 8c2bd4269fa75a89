"""Rows to text: `table` for people, `json`, `jsonl` and `csv` for programs.

Rows come in Arrow batches and leave a batch at a time, so that a result of any length takes the memory of one batch. In
all formats integers are exact, and timestamps are ISO 8601 to the last digit, in UTC (`…T23:00:00.106846Z`).
"""

from __future__ import annotations

import csv
import os
import re
import sys
from collections import Counter
from decimal import Decimal
from itertools import accumulate, chain, islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TextIO

    import pyarrow as pa

    _Part = tuple[str, list[Any]]

__all__ = ["TABLE_ROWS", "OutputFormat", "harmless", "write_records", "write_rows"]

OutputFormat = Literal["table", "json", "jsonl", "csv"]

TABLE_ROWS: Final = 200
"""So many rows a table has, if not asked for more."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PLAIN_WIDTH: Final = 1_000_000
_CELL_WIDTH: Final = 60
_GAP: Final = 2
_encode = msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode


def write_rows(
    names: Sequence[str],
    batches: Iterable[pa.RecordBatch],
    output: OutputFormat,
    stream: TextIO | None = None,
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
            set. On a terminal that is too narrow it has a line a column for a single row; else what is the same in all
            rows is said once, and as many of the other columns are there as fit.
        stream: Where to; stdout, if not given.
        limit: So many rows at most in a table; None for all of them, which are then held in memory.
        notes: Where a table that was cut says so; stderr, if not given.
    """
    rows = chain.from_iterable(map(_rows, batches))
    _write(_distinct(names), rows, output, stream=stream or sys.stdout, limit=limit, notes=notes or sys.stderr)


def write_records(records: Sequence[Mapping[str, Any]], output: OutputFormat, stream: TextIO | None = None) -> None:
    """Write a few records, alike in their names and not cut; arguments as those of `write_rows`."""
    names = list(records[0]) if records else []
    rows = (tuple(record.values()) for record in records)
    _write(names, rows, output, stream=stream or sys.stdout, limit=None, notes=sys.stderr)


def _write(
    columns: Sequence[str],
    rows: Iterator[tuple[Any, ...]],
    output: OutputFormat,
    *,
    stream: TextIO,
    limit: int | None,
    notes: TextIO,
) -> None:
    if output == "json":
        _write_json(columns, rows, stream)
    elif output == "jsonl":
        stream.writelines(f"{line}\n" for line in _objects(columns, rows))
    elif output == "csv":
        _write_csv(columns, rows, stream)
    else:
        _write_table(columns, [list(map(_flat, row)) for row in islice(rows, limit)], stream, notes)
        if next(rows, None) is not None:
            notes.write(f"only the first {limit:,} rows are shown: --format csv or jsonl has them all\n")


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
    values: list[Any] = column.to_pylist()
    if kind == "month_day_nano_interval":
        return [None if value is None else _iso_interval(*value) for value in values]
    return values


def _iso_interval(months: int, days: int, nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return f"P{months}M{days}DT{sign}{seconds}.{rest:09d}S"


def _flat(value: object) -> object:
    """A value as one cell has it: what has parts, and what Python would write its own way, as JSON."""
    return _encode(value).decode() if isinstance(value, bool | list | dict) else value


def _objects(columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    return (_encode(dict(zip(columns, row, strict=True))).decode() for row in rows)


def _write_json(columns: Sequence[str], rows: Iterable[tuple[Any, ...]], stream: TextIO) -> None:
    separator = "[\n"
    for line in _objects(columns, rows):
        stream.write(separator + line)
        separator = ",\n"
    stream.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_csv(columns: Sequence[str], rows: Iterable[tuple[Any, ...]], stream: TextIO) -> None:
    # The writer quotes a carriage return only if its own lines end in one.
    lines = SimpleNamespace(write=lambda line: stream.write(line.removesuffix("\r\n") + "\n"))
    writer = csv.writer(lines, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(map(_flat, row) for row in rows)


def _write_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], stream: TextIO, notes: TextIO) -> None:
    from rich.console import Console  # the other formats do without, and it takes its time
    from rich.table import Table
    from rich.text import Text

    terminal = stream.isatty()
    console = Console(
        file=stream, width=None if terminal else _PLAIN_WIDTH, color_system=None if "NO_COLOR" in os.environ else "auto"
    )
    widest = _CELL_WIDTH if terminal else _PLAIN_WIDTH
    parts = [(name, [row[place] for row in rows]) for place, name in enumerate(columns)]
    shown = _fitting(parts, console.width, widest, notes)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for name, values in shown:
        justify: Literal["right", "left"] = "right" if _numeric(values) else "left"
        table.add_column(Text(harmless(name)), justify=justify, no_wrap=True, max_width=_width(name, values, widest))
    for line in zip(*(values for _, values in shown), strict=True):
        table.add_row(*(Text(harmless(value)) for value in line))
    console.print(table)


def _fitting(parts: list[_Part], room: int, widest: int, notes: TextIO) -> list[_Part]:
    """The columns that there is room for, at least one; what is not among them is said."""
    ends = _ends(parts, widest)
    if ends and ends[-1] > room:
        parts = _narrowed(parts, notes)
        ends = _ends(parts, widest)
    count = max(1, sum(end <= room for end in ends))
    if count < len(parts):
        notes.write(f"{len(parts) - count} more columns do not fit: --format csv or jsonl has them all\n")
    return parts[:count]


def _ends(parts: Sequence[_Part], widest: int) -> list[int]:
    """Where each column ends, beside those before it."""
    return [end - _GAP for end in accumulate(_width(*part, widest) + _GAP for part in parts)]


def _width(name: str, values: Sequence[Any], widest: int) -> int:
    from rich.cells import cell_len

    return min(max(cell_len(harmless(value)) for value in [name, *values]), widest)


def _narrowed(parts: list[_Part], notes: TextIO) -> list[_Part]:
    """Columns that take less room: a single row stands upright, and what all rows share is said once."""
    if len(parts[0][1]) == 1:
        return [("column", [name for name, _ in parts]), ("value", [harmless(values[0]) for _, values in parts])]
    shared = {name: values[0] for name, values in parts if len(values) > 1 and values.count(values[0]) == len(values)}
    if shared and len(shared) < len(parts):
        said = ", ".join(f"{name} = {harmless(value)}" for name, value in shared.items() if value is not None)
        notes.write(f"in all rows: {said}\n" if said else "")
        return [part for part in parts if part[0] not in shared]
    return parts


def _numeric(values: Sequence[object]) -> bool:
    given = [value for value in values if value is not None]
    return bool(given) and all(isinstance(value, int | float | Decimal) for value in given)


def harmless(value: object) -> str:
    """A value as text (null as nothing): what the feed sent must not steer the terminal, nor break the line."""
    return "" if value is None else _CONTROL.sub(lambda found: repr(found[0])[1:-1], str(value))
