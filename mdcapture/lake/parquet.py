"""Parquet files as the lake wants them: small, sorted, checked, and named only when they are whole."""

from __future__ import annotations

import os
from collections import deque
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mdcapture.errors import DamageError
from mdcapture.lake.columns import arrow_schema, empty_table
from mdcapture.lake.files import (
    TEMPORARY,
    create_file,
    make_folder,
    publish_file,
    sha256_of,
    storage_errors,
    sync_folder,
)
from mdcapture.lake.layout import part_path, session_of
from mdcapture.lake.manifest import SealedFile
from mdcapture.lake.schema import ORDER, PARTITIONS, SCHEMA_VERSION, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedWriter
    from pathlib import Path

    import pyarrow.dataset as ds

    from mdcapture.lake.manifest import Manifest
    from mdcapture.lake.remote import Location, RemotePath

__all__ = ["ROW_GROUP_ROWS", "Part", "as_dataset", "read_in_order", "read_parts", "write_part"]

ROW_GROUP_ROWS: Final = 131_072
_ROW_GROUP_BYTES: Final = 128 * 1024 * 1024
_READ_BACK_ROWS: Final = 16_384
_DELTA: Final = "DELTA_BINARY_PACKED"
_GROWING: Final = {"quotes": ("volume",)}
"""Columns that grow in small steps, beside `seq` and times."""
_PLAIN: Final = {
    "depth": ("recv_ns", "exch_ns"),
    "messages": ("payload",),
    "rejects": ("payload",),
    "incidents": ("detail",),
}
"""Columns that only zstd can make smaller: text, and times that stand there again and again, as those of a message's
many depth entries do (a tenth smaller than as deltas)."""


def _options(table: str) -> dict[str, object]:
    """How a table's columns are written.

    Times and `seq` grow in small steps: deltas. What repeats (prices on a grid, sizes, types) is a dictionary. Rows are
    smaller at a higher level of zstd for no more time; text is smaller, and faster, at the lowest.
    """
    columns = TABLES[table].columns
    names = [column.name for column in columns]
    plain = _PLAIN.get(table, ())
    steps = [column.name for column in columns if column.name == "seq" or column.unit.startswith("ns")]
    delta = [name for name in (*steps, *_GROWING.get(table, ())) if name not in plain]
    dictionary = [name for name in names if name not in delta and name not in plain]
    order = [pq.SortingColumn(names.index(name)) for name in ORDER if name in names]
    return {
        "compression": "zstd",
        "compression_level": 1 if table == "messages" else 3,
        "use_dictionary": dictionary,
        "column_encoding": dict.fromkeys(delta, _DELTA),
        "sorting_columns": order,
        "write_page_checksum": True,
        "write_page_index": True,
        "store_schema": False,
    }


def write_part(
    root: Path, manifest: Manifest, table: str, contract_id: str | None, rows: Iterable[pa.Table]
) -> SealedFile:
    """Write a part of a session, read it back, and give it its name.

    Args:
        root: The lake.
        manifest: The session's; its `next_part` is the file's number, and is counted on.
        table: The table.
        contract_id: The contract.
        rows: The rows in their order, in pieces; held in memory a row group at a time, bounded by rows and bytes.

    Returns:
        What the manifest will say of it. It is not yet in the manifest, so it does not count yet.

    Raises:
        StorageError: The disk refused; nothing has appeared.
        DamageError: What was read back is not what was written.
    """
    part = Part(root, manifest, table, contract_id)
    try:
        for piece in rows:
            part.append(piece)
        return part.publish()
    finally:
        part.abandon()


class Part:
    """A part that is being written: its rows wait in memory until they are a row group, and only then is there a file.

    Rows may come a little out of order, where a clock stepped back: while they wait they are put in order.

    Args:
        root: The lake.
        manifest: The session's; its `next_part` is the file's number, and is counted on.
        table: The table.
        contract_id: The contract.
    """

    def __init__(self, root: Path, manifest: Manifest, table: str, contract_id: str | None) -> None:
        self._root = root
        self._table = table
        self._contract_id = contract_id
        self._final = _next_part(root, manifest, table, contract_id)
        self._temporary = self._final.with_name(self._final.name + TEMPORARY)
        self._metadata = _metadata(manifest, table, contract_id)
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._written_rows = 0
        self._last_ns: int | None = None
        self._open = ExitStack()
        self._writing: tuple[BufferedWriter, pq.ParquetWriter] | None = None

    def takes(self, rows: pa.Table) -> bool:
        """Whether no row is older than what is written: such a row belongs in another part."""
        return self._last_ns is None or pc.min(rows["recv_ns"]).as_py() >= self._last_ns

    def append(self, rows: pa.Table) -> None:
        """Take the rows that follow, and write what makes whole row groups.

        Raises:
            StorageError: The disk refused.
        """
        self._waiting.append(rows.replace_schema_metadata())
        self._waiting_rows += len(rows)
        self._waiting_bytes += rows.nbytes
        if self._waiting_bytes >= _ROW_GROUP_BYTES:
            self._write(self._waiting_rows)
        elif self._waiting_rows >= ROW_GROUP_ROWS:
            self._write(self._waiting_rows - self._waiting_rows % ROW_GROUP_ROWS)

    def publish(self) -> SealedFile:
        """Write what waits, force it onto the disk, read all of it back, and give the file its name.

        Returns:
            What the manifest will say of it.

        Raises:
            StorageError: The disk refused.
            DamageError: What was read back is not what was written.
        """
        self._write(self._waiting_rows)
        with storage_errors(self._final):
            self._finish(*self._opened())
            relative = self._final.relative_to(self._root).as_posix()
            sealed = _read_back(self._temporary, relative, self._table, self._contract_id, self._written_rows)
            publish_file(self._temporary, self._final)
            sync_folder(self._final.parent)
        return sealed

    def abandon(self) -> None:
        """Leave nothing of a part that was not published: where the disk is full, it must not keep it full."""
        with suppress(OSError, pa.ArrowException):  # what can't be finished is not wanted
            self._open.close()
        if self._temporary.exists():
            self._temporary.unlink()

    def _write(self, count: int) -> None:
        """Write so many of the rows that wait."""
        rows = _by_time(pa.concat_tables([empty_table(self._table), *self._waiting]))
        chosen = rows.slice(0, count)
        self._waiting = [rows.slice(count)] if count < len(rows) else []  # an empty slice holds what it is one of
        self._waiting_rows -= count
        self._waiting_bytes = sum(rest.nbytes for rest in self._waiting)
        if count:
            with storage_errors(self._final):
                _, writer = self._opened()
                writer.write_table(chosen, row_group_size=ROW_GROUP_ROWS)
            self._written_rows += count
            self._last_ns = chosen["recv_ns"][-1].as_py()

    def _finish(self, file: BufferedWriter, writer: pq.ParquetWriter) -> None:
        writer.add_key_value_metadata(self._metadata)
        writer.close()
        file.flush()
        os.fsync(file.fileno())
        self._open.close()
        self._writing = None  # what a closed writer keeps counts where there are hundreds

    def _opened(self) -> tuple[BufferedWriter, pq.ParquetWriter]:
        if self._writing is None:
            make_folder(self._final.parent)
            file = self._open.enter_context(create_file(self._temporary))
            writer = pq.ParquetWriter(file, arrow_schema(self._table), **_options(self._table))
            self._writing = file, self._open.enter_context(writer)
        return self._writing


def _by_time(rows: pa.Table) -> pa.Table:
    """Rows in the order of their receive times, and of their arrival where these are equal."""
    recv_ns = rows["recv_ns"].to_numpy()
    if np.any(recv_ns[1:] < recv_ns[:-1]):  # the clock stepped back
        return rows.take(np.argsort(recv_ns, kind="stable"))
    return rows


def _next_part(root: Path, manifest: Manifest, table: str, contract_id: str | None) -> Path:
    """The path of the next file; never one that is taken, as it may be after an old manifest was put back."""
    while True:
        path = root / part_path(table, manifest.session_id, contract_id, manifest.next_part)
        manifest.next_part += 1
        if not path.exists():
            return path


def as_dataset(root: RemotePath, files: Iterable[SealedFile], table: str) -> ds.Dataset:
    """Sealed files in object storage as one Arrow dataset: what polars and DuckDB read of it they ask for.

    Returns:
        The table's columns, led by `session_id` and `contract_id`, which tell whole files apart.
    """
    import pyarrow.dataset as ds  # noqa: PLC0415 - it imports pandas, where that is installed

    of = ds.ParquetFileFormat()
    parts = [
        of.make_fragment((root / file.path).path, root.filesystem, partition_expression=_partition(file))
        for file in files
    ]
    keys = [pa.field(name, pa.string()) for name in PARTITIONS]
    return ds.FileSystemDataset(parts, pa.schema([*keys, *arrow_schema(table)]), of, root.filesystem)


def _partition(file: SealedFile) -> pc.Expression:
    session, contract = map(pc.field, PARTITIONS)
    is_contract = contract.is_null() if file.contract_id is None else contract == file.contract_id
    return (session == session_of(file.path)) & is_contract


def read_parts(root: Location, files: Iterable[SealedFile]) -> Iterator[pa.Table]:
    """The rows of sealed files, one row group at a time; each file's checksum is verified first.

    Raises:
        DamageError: A file is missing or damaged.
    """
    for file in files:
        path = root / file.path
        try:
            if sha256_of(path) != file.sha256:  # a page's own checksum does not cover its header
                raise DamageError(f"{path} is damaged: restore it (`mdcapture verify` lists all damage)")
            with path.open("rb") as opened, pq.ParquetFile(opened, page_checksum_verification=True) as parquet:
                for group in range(parquet.num_row_groups):
                    yield parquet.read_row_group(group)
        except (pa.ArrowException, OSError) as error:
            raise DamageError(
                f"{path} can't be read ({error}): restore it (`mdcapture verify` lists all damage)"
            ) from error


def read_in_order(root: Location, files: Iterable[SealedFile]) -> Iterator[pa.Table]:
    """The rows of several files in one order, also where a clock stepped back and the files overlap.

    A file is opened when the order comes to its first row, and held in memory a row group at a time.

    Raises:
        DamageError: A file is missing or damaged.
    """
    closed = deque(sorted(files, key=lambda file: (file.first_recv_ns, file.first_seq)))
    streams: list[_Stream] = []
    while closed or streams:
        bound_ns = min((stream.last_ns for stream in streams if stream.goes_on), default=None)
        if closed and (bound_ns is None or closed[0].first_recv_ns <= bound_ns):
            streams.append(_Stream(read_parts(root, [closed.popleft()])))
            continue
        pieces = [piece for stream in streams if len(piece := stream.take_before(bound_ns))]
        if pieces:
            yield _in_order(pieces)
        streams = [stream for stream in streams if stream.goes_on or len(stream.rows)]


def _in_order(pieces: list[pa.Table]) -> pa.Table:
    """Sorted pieces as one."""
    if len(pieces) == 1:
        return pieces[0]
    rows = pa.concat_tables(pieces)
    return rows.sort_by([(name, "ascending") for name in ORDER if name in rows.column_names])


class _Stream:
    """A file that is being read: its rows that wait, sorted by their receive time, and whether more will follow."""

    def __init__(self, groups: Iterator[pa.Table]) -> None:
        self.rows = next(groups)
        self.goes_on = True
        self._groups = groups

    @property
    def last_ns(self) -> int:
        last_ns: int = self.rows["recv_ns"][-1].as_py()
        return last_ns

    def take_before(self, bound_ns: int | None) -> pa.Table:
        """The rows before a time, or all; where they might have been all before it, the next ones are read."""
        count = len(self.rows)
        if bound_ns is not None:
            count = int(np.searchsorted(self.rows["recv_ns"].to_numpy(), bound_ns))
        at_bound = self.goes_on and self.last_ns == bound_ns
        taken, self.rows = self.rows.slice(0, count), self.rows.slice(count)
        if at_bound:
            following = next(self._groups, None)
            self.goes_on = following is not None
            self.rows = self.rows if following is None else pa.concat_tables([self.rows, following])
        return taken


def _metadata(manifest: Manifest, table: str, contract_id: str | None) -> dict[str, str]:
    contract = next((known for known in manifest.contracts if known.contract_id == contract_id), None)
    metadata = {
        "mdcapture.schema_version": str(SCHEMA_VERSION),
        "mdcapture.software": manifest.software,
        "mdcapture.session_id": manifest.session_id,
        "mdcapture.table": table,
        "mdcapture.contract_id": contract_id or "",
    }
    if contract is not None and contract.tick_size is not None:
        metadata["mdcapture.tick_size"] = repr(contract.tick_size)
    return metadata


def _read_back(path: Path, relative: str, table: str, contract_id: str | None, written: int) -> SealedFile:
    """Read all of a file, every page's checksum and every text verified, and count it."""
    rows = 0
    first_recv_ns = last_recv_ns = first_seq = last_seq = 0
    with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
        for batch in parquet.iter_batches(_READ_BACK_ROWS):
            _check_values(batch, path)
            low, high = (bound.as_py() for bound in pa.compute.min_max(batch["seq"]).values())
            first_recv_ns = first_recv_ns if rows else batch["recv_ns"][0].as_py()
            last_recv_ns = batch["recv_ns"][-1].as_py()
            first_seq = min(first_seq, low) if rows else low
            last_seq = max(last_seq, high) if rows else high
            rows += len(batch)
    if rows != written:
        raise DamageError(
            f"{path} holds {rows} rows where {written} were written; nothing was published: check the disk"
        )
    return SealedFile(
        path=relative,
        table=table,
        contract_id=contract_id,
        rows=rows,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        first_recv_ns=first_recv_ns,
        last_recv_ns=last_recv_ns,
        first_seq=first_seq,
        last_seq=last_seq,
    )


def _check_values(batch: pa.RecordBatch, path: Path) -> None:
    """Arrow takes a text's bytes as they come, and every reader would stumble over one that is no UTF-8."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DamageError(
            f"{path} holds values that no reader takes ({error}); nothing was published: check the memory"
        ) from error
