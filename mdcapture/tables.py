"""The tables of sessions as lazy frames of polars: of sealed files, of journals that are written, of a server.

sealed     files ─────────────────────── scanned, as any reader of Parquet would
running    files and journal ─────────── read as they are when the frame is collected
published  rows of a server ──────────── fetched, with the columns that are wanted
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from polars.io.plugins import register_io_source

from mdcapture.lake.catalog import reread
from mdcapture.lake.columns import empty_table
from mdcapture.lake.parquet import as_dataset
from mdcapture.lake.remote import RemotePath
from mdcapture.lake.schema import ORDER, PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mdcapture.lake.catalog import Catalog, Fetch, Snapshot
    from mdcapture.lake.manifest import SealedFile
    from mdcapture.lake.remote import Location

__all__ = ["frame_of", "outside"]


def frame_of(
    catalog: Catalog,
    session_ids: Sequence[str],
    table: str,
    contract_ids: Sequence[str] | None = None,
    *,
    named: bool = True,
) -> pl.LazyFrame:
    """A table of some sessions.

    Args:
        catalog: Where they are.
        session_ids: Their ids.
        table: The table's name.
        contract_ids: These contracts' rows; None for all, also those of no contract.
        named: As `Catalog.manifests` takes it.

    Returns:
        `session_id`, `contract_id`, and the table's columns; the rows of a contract in the order (`recv_ns`, `seq`,
        `pos`).
    """
    sealed: list[SealedFile] = []
    running: list[pl.LazyFrame] = []
    for manifest in catalog.manifests(session_ids, named=named):
        if catalog.fetch is not None:
            wanted = [None] if contract_ids is None else contract_ids
            running += [_fetched(catalog.fetch, manifest.session_id, table, one) for one in wanted]
        elif manifest.state == "open":
            running.append(_running(catalog, manifest.session_id, table, contract_ids))
        else:
            sealed += manifest.files_of(table, contract_ids)
    frames = [_scan(catalog.root, sealed, table), *running] if sealed or not running else running
    return frames[0] if len(frames) == 1 else pl.concat(frames)


def outside(rows: pl.LazyFrame, gaps: pl.LazyFrame) -> pl.LazyFrame:
    """The rows that no gap holds; those at a gap's two ends are good.

    Args:
        rows: Of tables, with `session_id`, `contract_id`, `recv_ns`.
        gaps: `session_id`, `contract_id`, `from_ns`, `to_ns`.
    """
    begun = gaps.sort("from_ns").select(*PARTITIONS, "from_ns", _until=pl.col("to_ns").cum_max().over(PARTITIONS))
    return (
        rows.join_asof(
            begun,
            left_on="recv_ns",
            right_on="from_ns",
            by=PARTITIONS,
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .filter(pl.col("_until").is_null() | (pl.col("recv_ns") >= pl.col("_until")))
        .drop("_until", "from_ns")
    )


@cache
def _schema(table: str) -> pl.Schema:
    rows = pl.from_arrow(empty_table(table))
    return pl.Schema({**dict.fromkeys(PARTITIONS, pl.String()), **dict(rows.schema)})  # type: ignore[union-attr]


def _scan(root: Location, files: Sequence[SealedFile], table: str) -> pl.LazyFrame:
    """Sealed files in their order, as a frame with the columns of the paths."""
    schema = _schema(table)
    if not files:
        return pl.LazyFrame(schema=schema)
    if isinstance(root, RemotePath):
        return pl.scan_pyarrow_dataset(as_dataset(root, files, table)).select(schema.names())
    assert isinstance(root, Path)
    above = [part.split("=", 1)[0] for part in root.parts if "=" in part]  # the lake may lie in partitions of its own
    return pl.scan_parquet(
        [root / file.path for file in files],
        glob=False,
        hive_partitioning=True,
        hive_schema=dict.fromkeys([*above, *PARTITIONS], pl.String()),
    ).select(schema.names())


def _running(catalog: Catalog, session_id: str, table: str, contract_ids: Sequence[str] | None) -> pl.LazyFrame:
    """A session that is being captured: files and journal as they are when the frame is collected."""

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        def collect() -> pl.DataFrame:
            now = catalog.snapshot(session_id)
            frame = _at(catalog.root, now, table, contract_ids)
            if predicate is not None:
                frame = frame.filter(predicate)
            frame = frame if columns is None else frame.select(columns)
            return (frame if rows is None else frame.head(rows)).collect()

        yield reread(collect)

    return register_io_source(read, schema=_schema(table), explain_name=f"{session_id}: {table}")


def _fetched(fetch: Fetch, session_id: str, table: str, contract_id: str | None) -> pl.LazyFrame:
    """A session on a server, which picks the contract and the columns; the rest of a filter is done here."""

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = None if columns is None else list(dict.fromkeys([*columns, *_names_in(predicate)])) or ["seq"]
        given = 0
        for batch in fetch(session_id, table, contract_id, wanted):
            frame: pl.DataFrame = pl.from_arrow(batch)  # type: ignore[assignment]
            frame = frame if predicate is None else frame.filter(predicate)
            frame = frame.select(columns) if columns else frame
            yield frame if rows is None else frame.head(rows - given)
            given += len(frame)
            if rows is not None and given >= rows:
                return

    return register_io_source(read, schema=_schema(table), explain_name=f"{session_id}: {table}")


def _names_in(predicate: pl.Expr | None) -> list[str]:
    return [] if predicate is None else predicate.meta.root_names()


def _at(root: Location, now: Snapshot, table: str, contract_ids: Sequence[str] | None) -> pl.LazyFrame:
    schema = _schema(table)
    tail: pl.DataFrame = pl.from_arrow(now.tail[table])  # type: ignore[assignment]
    waiting = tail.lazy().with_columns(
        pl.lit(now.manifest.session_id).alias("session_id"), pl.col("contract_id").cast(pl.String)
    )
    if contract_ids is not None:
        waiting = waiting.filter(pl.col("contract_id").is_in(contract_ids))
    sealed = now.manifest.files_of(table, contract_ids)
    frame = pl.concat([_scan(root, sealed, table), waiting.select(schema.names())])
    if now.in_order(table):
        return frame
    return frame.sort("contract_id", *(name for name in ORDER if name in schema), maintain_order=True)
