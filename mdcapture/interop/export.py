"""Exports: sessions, tables and queries, streamed into files of other tools.

A file or folder appears under its name only when all of it is there, with a data dictionary beside it; what a failure
leaves is removed. Rows leave in batches, in the order of the lake's files: memory does not grow with their number.

    trades.csv.zst   one table                      trades.dictionary.csv
    es/              a whole session, a file each   es/dictionary.csv
    es.duckdb        a whole session in one file    es.dictionary.csv

What backtesters read is a folder in their own form, without a dictionary.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa

from mdcapture.errors import NotFoundError, StorageError, UsageError
from mdcapture.interop import dbn, hftbacktest, nautilus
from mdcapture.interop.bars import BARS, bars
from mdcapture.interop.books import Market, markets
from mdcapture.interop.dictionary import Entry, dictionary
from mdcapture.interop.formats import STORE_ERRORS, STORES, STREAMS, SUFFIXES, Part
from mdcapture.lake.columns import arrow_schema
from mdcapture.lake.files import storage_errors, sync_folder
from mdcapture.lake.manifest import Contract, contract_named
from mdcapture.lake.schema import PARTITIONS, TABLES
from mdcapture.query.dialect import REPLACED, replaced_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mdcapture.query.sql import Database

__all__ = ["BACKTESTERS", "FORMATS", "LEVELS", "STDOUT", "Selection", "export"]

BACKTESTERS: Final[dict[str, Callable[[Path, Market, int, Callable[[int], object]], dict[str, int]]]] = {
    "hftbacktest": hftbacktest.write,
    "nautilus": nautilus.write,
    "dbn": dbn.write,
}
"""Formats of a folder for a backtester: a function of the folder, a market, the levels of its book, and progress."""
FORMATS: Final = (*STREAMS, *STORES, *BACKTESTERS)
"""The names of the formats."""
LEVELS: Final = 10
"""How many levels a side a backtester's book has, if nothing else is said."""
STDOUT: Final = "-"

_CATALOG: Final = ("sessions", "contracts")
_EXCEL_SHEETS: Final = (*_CATALOG, "incidents")
_CODECS: Final = {".gz": "gzip", ".zst": "zstd"}
_COMPRESSIBLE: Final = ("csv", "json", "jsonl")
_DEFAULT: Final = "parquet"
_HUGE: Final = pa.decimal128(38, 0)
"""What DuckDB makes of a sum of integers."""


class Selection(NamedTuple):
    """What to export: tables (none named: all of them), or the result of a query.

    Attributes:
        tables: The names of tables or views.
        query: A query in DuckDB's dialect, in place of tables.
        contract_id: Only the rows of this contract, which its name or root means as well.
        from_ns: Only what was received at this time or later (ns UTC).
        to_ns: Only what was received before this time (ns UTC).
        bars_ns: Bars of this length (ns), in place of tables.
    """

    tables: Sequence[str] = ()
    query: str | None = None
    contract_id: str | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    bars_ns: int | None = None


class _Form(NamedTuple):
    """A format, and how its bytes are compressed."""

    name: str
    codec: str | None
    suffix: str


def export(
    database: Database,
    target: str | Path,
    selection: Selection | None = None,
    *,
    form: str | None = None,
    levels: int = LEVELS,
    progress: Callable[[int], object] = lambda _: None,
) -> dict[str, int]:
    """Export what a database shows.

    Args:
        database: The sessions.
        target: A file, which is replaced; a folder, which must not exist or be empty; or `-` for the standard output.
        selection: Which rows; without it, all of them.
        form: One of `FORMATS`, with `.gz` or `.zst` behind those that are text; without it, what the target's suffix
            says, and `parquet` for a folder.
        levels: How many levels a side a backtester's book has.
        progress: Told of the rows so far, now and then.

    Returns:
        The number of rows by table; a query's result is called `result`, and bars `bars`.

    Raises:
        UsageError: The format, the target and the selection do not go together, the query is wrong, or several
            contracts are called that.
        NotFoundError: There is no such table or contract.
        StorageError: The target can't be written; nothing has appeared.
    """
    chosen = _form(str(target), form)
    asked = _with_id(database, selection or Selection())
    if chosen.name in BACKTESTERS:
        return _export_markets(
            database, Path(target).expanduser(), asked, name=chosen.name, levels=levels, progress=progress
        )
    rows: dict[str, int] = {}
    parts = _parts(database, asked, _names(asked, chosen), chosen, rows=rows, progress=progress)
    single = len(_names(asked, chosen)) == 1
    path = Path(target).expanduser()
    if str(target) == STDOUT:
        if not single or chosen.name in STORES:
            raise UsageError(
                "only one table, or a query, in csv, json, jsonl, parquet or arrow goes to standard output"
            )
        with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out, _storage_errors(Path("standard output")):
            _write(out, next(parts), chosen)
    elif chosen.name in STORES:
        with _appearing(path) as temporary:
            meanings: list[Entry] = []
            STORES[chosen.name](temporary, _noting(parts, meanings))
            _write_dictionary(_beside(path), meanings)
    elif single:
        _export_file(path, next(parts), chosen)
    elif form is None and path.suffix:
        raise UsageError(
            f"{path} would be one file, and a {chosen.name} file holds one table: name it with --table, "
            f"or a folder, as {_bare(path)} --format {chosen.suffix[1:]}, for all"
        )
    else:
        _export_folder(path, parts, chosen)
    return rows


def _export_file(path: Path, part: Part, form: _Form) -> None:
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe or a device
        with _storage_errors(path), path.open("wb") as file:
            _write(file, part, form)
        return
    with _appearing(path) as temporary:
        with temporary.open("wb") as file:
            _write(file, part, form)
        _write_dictionary(_beside(path), part.meaning)


def _export_folder(path: Path, parts: Iterator[Part], form: _Form) -> None:
    with _appearing_folder(path) as temporary:
        meanings: list[Entry] = []
        for part in _noting(parts, meanings):
            inside = temporary / f"{part.name}{form.suffix}"
            with inside.open("wb") as file:
                _write(file, part, form)
            _sync(inside)
        _write_dictionary(temporary / "dictionary.csv", meanings)


def _export_markets(
    database: Database,
    path: Path,
    selection: Selection,
    *,
    name: str,
    levels: int,
    progress: Callable[[int], object],
) -> dict[str, int]:
    if selection.query is not None or selection.tables or selection.bars_ns is not None:
        raise UsageError(f"{name} takes books and trades: leave out tables, queries and bars")
    if str(path) == STDOUT:
        raise UsageError(f"{name} is a folder of files: name one")
    rows: Counter[str] = Counter()
    with _appearing_folder(path) as temporary:
        for market in _markets(database, selection):

            def further(count: int, done: int = rows.total()) -> object:
                return progress(done + count)

            rows.update(BACKTESTERS[name](temporary, market, levels, further))
        for file in temporary.rglob("*"):
            _sync(file)
    return dict(rows)


def _markets(database: Database, selection: Selection) -> list[Market]:
    found = markets(database, selection.contract_id, selection.from_ns, selection.to_ns)
    if not found:
        raise NotFoundError("no messages here: nothing to export")
    return found


def _write(file: IO[bytes], part: Part, form: _Form) -> None:
    """Write a table into an open file; a compressed one is closed with its stream."""
    write = STREAMS[form.name]
    if form.codec is None:
        write(file, part)
    else:
        with pa.CompressedOutputStream(pa.PythonFile(file, "w"), form.codec) as compressed:
            write(compressed, part)


def _form(target: str, given: str | None) -> _Form:
    """The format that was named, or that the target's suffix says."""
    said = (given or target).lower()
    if given is None and target != STDOUT and not Path(said).suffix:
        return _Form(_DEFAULT, None, f".{_DEFAULT}")
    bare = said.removesuffix(_codec(said))
    found = given if given in BACKTESTERS else SUFFIXES.get(f".{bare}" if given else Path(bare).suffix)
    if found is None:
        what = f"no format {given}" if given else f"{target} does not say its format"
        raise UsageError(f"{what}: choose one of {', '.join(FORMATS)} with --format")
    codec = _codec(said) or _codec(target.lower())
    if codec and found not in _COMPRESSIBLE:
        raise UsageError(f"{found} is compressed in itself: leave out {codec}")
    return _Form(found, _CODECS.get(codec), f".{found}{codec}")


def _codec(name: str) -> str:
    """The suffix by which a name says how it is compressed; empty where it is not."""
    return next((suffix for suffix in _CODECS if name.endswith(suffix)), "")


def _names(selection: Selection, form: _Form) -> Sequence[str]:
    """The tables of an export, checked."""
    if selection.query is not None:
        if selection.tables or any(value is not None for value in selection[2:]):
            raise UsageError("a query chooses its own tables, contracts and times: leave out the other options")
        return ("result",)
    if selection.bars_ns is not None:
        if selection.tables:
            raise UsageError("bars are a table of their own: leave out the others")
        return ("bars",)
    if form.name == "sqlite":
        known: Sequence[str] = REPLACED
        default = known
    else:
        known = (*TABLES, *_CATALOG)
        default = _EXCEL_SHEETS if form.name == "xlsx" else known
    for name in selection.tables:
        if name not in known:
            raise NotFoundError(f"no table {name} to export as {form.name}: there are {', '.join(known)}")
    return selection.tables or default


def _parts(
    database: Database,
    selection: Selection,
    names: Sequence[str],
    form: _Form,
    *,
    rows: dict[str, int],
    progress: Callable[[int], object],
) -> Iterator[Part]:
    """The tables one after the other; the next is begun when the one before has been read."""
    for name in names:
        if selection.bars_ns is not None:
            schema, batches = BARS, bars(_markets(database, selection), selection.bars_ns)
        else:
            schema, batches = _table(database, name, selection, form)
        rows[name] = 0
        yield Part(name, schema, dictionary(name, schema), _counted(batches, schema, name, rows, progress))


def _table(
    database: Database, name: str, selection: Selection, form: _Form
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The columns of a table, as the lake declares them where it does, and its rows."""
    query, parameters = _query(name, selection, form)
    schema, batches = _read(database, query, parameters)
    if name in TABLES and selection.query is None and form.name != "sqlite":
        schema = pa.schema([*((key, pa.string()) for key in PARTITIONS), *arrow_schema(name)])
    return schema, batches


def _query(name: str, selection: Selection, form: _Form) -> tuple[str, dict[str, object]]:
    """A table's rows as a statement, and its parameters."""
    if selection.query is not None:
        return selection.query, {}
    conditions = {
        "contract_id": ("contract_id = $contract_id", selection.contract_id),
        "from_ns": ("recv_ns >= $from_ns", selection.from_ns),
        "to_ns": ("recv_ns < $to_ns", selection.to_ns),
    }
    wanted = {key: one for key, one in conditions.items() if one[1] is not None and _has(name, key)}
    where = f" WHERE {' AND '.join(condition for condition, _ in wanted.values())}" if wanted else ""
    if form.name == "sqlite":
        order = "" if name in _CATALOG else " ORDER BY session_id, recv_ns, seq, pos"  # raw_data is a join, which mixes
        select = replaced_table(name, where) + order
    elif name in TABLES:
        columns = (*PARTITIONS, *(column.name for column in TABLES[name].columns))
        listed_columns = ", ".join(f'"{column}"' for column in columns)
        select = f"SELECT {listed_columns} FROM {name}{where}"  # noqa: S608  # names of ours
    else:
        select = f"SELECT * FROM {name}{where}"  # noqa: S608  # a name of ours
    return select, {key: value for key, (_, value) in wanted.items()}


def _has(name: str, condition: str) -> bool:
    """Whether a table can be asked for a condition: the catalog's tables have no rows that were received."""
    return name not in _CATALOG or (name == "contracts" and condition == "contract_id")


def _read(database: Database, query: str, parameters: dict[str, object]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The columns of a query, each of a name of its own, and its rows."""
    rows = database.stream(query, parameters or None)
    first = next(rows.batches, None)
    if first is None:
        empty = database.sql(f"FROM ({query.rstrip().rstrip(';')}) LIMIT 0", parameters or None)
        return _distinct(empty.to_arrow_table().schema), iter(())
    return _distinct(first.schema), _chained(first, rows.batches)


def _chained(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


def _distinct(schema: pa.Schema) -> pa.Schema:
    """The columns as files can hold them: a second one of a name gets a number, a sum of integers is an integer."""
    names: list[str] = []
    for name in schema.names:
        number = 1
        while (name if number == 1 else f"{name}_{number}") in names:
            number += 1
        names.append(name if number == 1 else f"{name}_{number}")
    types = [pa.int64() if field.type == _HUGE else field.type for field in schema]
    return pa.schema(list(zip(names, types, strict=True)))


def _counted(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    name: str,
    rows: dict[str, int],
    progress: Callable[[int], object],
) -> Iterator[pa.RecordBatch]:
    """Batches of exactly these columns, counted."""
    for batch in batches:
        try:
            yield batch.rename_columns(schema.names).cast(schema)
        except pa.ArrowInvalid as error:
            raise UsageError(f"a sum does not fit 64 bits ({error}): let the query cast it to DOUBLE") from error
        rows[name] += batch.num_rows
        progress(sum(rows.values()))


def _with_id(database: Database, selection: Selection) -> Selection:
    """The selection with its contract's id in place of a name."""
    if selection.contract_id is None:
        return selection
    names = Contract.__struct_fields__
    rows = database.sql(f"SELECT DISTINCT {', '.join(names)} FROM contracts ORDER BY 1").fetchall()  # noqa: S608  # ours
    held = [Contract(**dict(zip(names, row, strict=True))) for row in rows]
    return selection._replace(contract_id=contract_named(held, selection.contract_id).contract_id)


def _noting(parts: Iterator[Part], meanings: list[Entry]) -> Iterator[Part]:
    for part in parts:
        meanings += part.meaning
        yield part


def _beside(path: Path) -> Path:
    """Where the dictionary of a file is: `trades.csv.zst` has `trades.dictionary.csv`."""
    bare = _bare(path)
    return bare.with_name(f"{bare.name}.dictionary.csv")


def _bare(path: Path) -> Path:
    """The path without what says the format."""
    stem = path.name
    for suffix in path.suffixes[::-1]:
        if suffix in _CODECS or suffix.lower() in SUFFIXES:
            stem = stem.removesuffix(suffix)
    return path.with_name(stem)


def _write_dictionary(path: Path, entries: Sequence[Entry]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Entry._fields)
        writer.writerows(entries)


@contextmanager
def _appearing(final: Path) -> Iterator[Path]:
    """The name under which the block writes; what it wrote appears as `final` if the block gets to its end."""
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    with _storage_errors(final):
        if not final.parent.is_dir():
            raise StorageError(None, f"can't write {final}: there is no folder {final.parent}; make it first")
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(final)
            sync_folder(final.parent)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


@contextmanager
def _appearing_folder(final: Path) -> Iterator[Path]:
    """A new folder that appears as `final` if the block gets to its end."""
    if final.exists() and not (final.is_dir() and not any(final.iterdir())):
        raise UsageError(f"{final} exists: a whole export goes to a folder of its own; name one that does not exist")
    with _appearing(final) as temporary:
        temporary.mkdir()
        yield temporary


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """What the disk says to any of the libraries, as a StorageError."""
    try:
        with storage_errors(path):
            yield
    except StorageError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise error.__cause__ from None
        raise
    except STORE_ERRORS as error:
        raise StorageError(None, f"can't write {path}: {error}; nothing has appeared there") from error
