"""Parquet files as the lake wants them: small, sorted, checked, and named only when they are whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mdcapture.errors import DamageError
from mdcapture.lake.columns import arrow_schema
from mdcapture.lake.files import TEMPORARY, make_folder, publish_file, sha256_of, storage_errors, sync_folder
from mdcapture.lake.layout import part_path
from mdcapture.lake.manifest import SealedFile
from mdcapture.lake.schema import ORDER, SCHEMA_VERSION, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from mdcapture.lake.manifest import Manifest

__all__ = ["ROW_GROUP_ROWS", "read_parts", "write_part"]

ROW_GROUP_ROWS: Final = 131_072
_DELTA: Final = "DELTA_BINARY_PACKED"
_NEVER_REPEATED: Final = ("payload", "detail")


def _options(table: str) -> dict[str, object]:
    """How a table's columns are written.

    Times and `seq` grow in small steps: deltas. What repeats (prices on a grid, sizes, types) is a dictionary; original
    text never does.
    """
    names = [column.name for column in TABLES[table].columns]
    delta = [column.name for column in TABLES[table].columns if column.name == "seq" or column.unit.startswith("ns")]
    dictionary = [name for name in names if name not in delta and name not in _NEVER_REPEATED]
    order = [pq.SortingColumn(names.index(name)) for name in ORDER if name in names]
    return {
        "compression": "zstd",
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
        rows: The rows in their order, in pieces; held in memory a row group at a time.

    Returns:
        What the manifest will say of it. It is not yet in the manifest, so it does not count yet.

    Raises:
        StorageError: The disk refused; nothing has appeared.
        DamageError: What was read back is not what was written.
    """
    relative = part_path(table, manifest.session_id, contract_id, manifest.next_part)
    manifest.next_part += 1
    final = root / relative
    make_folder(final.parent)
    temporary = final.with_name(final.name + TEMPORARY)
    schema = arrow_schema(table).with_metadata(_metadata(manifest, table, contract_id))
    written = 0
    with storage_errors(final):
        with temporary.open("wb") as file:
            with pq.ParquetWriter(file, schema, **_options(table)) as writer:
                for group in _row_groups(rows, schema):
                    writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
                    written += len(group)
            file.flush()
            os.fsync(file.fileno())
        sealed = _read_back(temporary, relative, table, contract_id, written)
        publish_file(temporary, final)
        sync_folder(final.parent)
    return sealed


def read_parts(root: Path, files: Iterable[SealedFile]) -> Iterator[pa.Table]:
    """The rows of sealed files, one row group at a time, each page's checksum verified.

    Raises:
        DamageError: A file is missing or damaged.
    """
    for file in files:
        try:
            with pq.ParquetFile(root / file.path, page_checksum_verification=True) as parquet:
                for group in range(parquet.num_row_groups):
                    yield parquet.read_row_group(group)
        except (pa.ArrowException, OSError) as error:
            raise DamageError(
                f"{root / file.path} can't be read ({error}): restore it (`mdcapture verify` lists all damage)"
            ) from error


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


def _row_groups(rows: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """Pieces of any size to pieces of a row group."""
    waiting = schema.empty_table()
    for piece in rows:
        waiting = pa.concat_tables([waiting, piece.replace_schema_metadata(schema.metadata)])
        while len(waiting) >= ROW_GROUP_ROWS:
            yield waiting.slice(0, ROW_GROUP_ROWS).combine_chunks()
            waiting = waiting.slice(ROW_GROUP_ROWS)
    if len(waiting):
        yield waiting.combine_chunks()


def _read_back(path: Path, relative: str, table: str, contract_id: str | None, written: int) -> SealedFile:
    """Read all of a file, every page's checksum verified, and count it."""
    rows = 0
    first_recv_ns = last_recv_ns = first_seq = last_seq = 0
    with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
        for index in range(parquet.num_row_groups):
            group = parquet.read_row_group(index)
            if index == 0:
                first_recv_ns = group["recv_ns"][0].as_py()
            last_recv_ns = group["recv_ns"][-1].as_py()
            low, high = (bound.as_py() for bound in pa.compute.min_max(group["seq"]).values())
            first_seq = low if index == 0 else min(first_seq, low)
            last_seq = max(last_seq, high)
            rows += len(group)
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
