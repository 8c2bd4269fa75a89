"""Decoded rows to the parts of their contracts, on threads beside the one that decodes."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import pyarrow as pa

from mdcapture.lake.columns import CONTRACT
from mdcapture.lake.parquet import Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from mdcapture.lake.manifest import Manifest, SealedFile

__all__ = ["Parts"]

_MOST_THREADS: Final = 4
_PARTS_A_THREAD: Final = 100
"""Two threads compress and read back; more only take memory, but where parts are small they wait for the disk."""

_AHEAD: Final = 8
"""Pieces that may wait while a row group is written: else whoever decodes them would wait for each."""

_FULL_BYTES: Final = 128 * 1024 * 1024


class Parts:
    """The parts of a pass through the journal: one a table and contract, or more where a clock stepped back.

    Arrow works without the interpreter's lock: while some rows are written, the next ones can be decoded.

    Args:
        root: The lake.
        manifest: The session's; its `next_part` numbers the files, and is counted on.
    """

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self._root = root
        self._manifest = manifest
        self._thread = ThreadPoolExecutor(1)
        self._adding: deque[Future[None]] = deque()
        self._parts: list[Part] = []
        self._before_bytes = pa.total_allocated_bytes()
        self._newest: dict[tuple[str, str | None], Part] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave nothing of what was not published."""
        self._thread.shutdown(cancel_futures=True)
        for part in self._parts:
            part.abandon()

    @property
    def are_full(self) -> bool:
        """Whether more is in memory than should be, since there are many contracts: it is time to publish."""
        allocated_bytes: int = pa.total_allocated_bytes() - self._before_bytes
        return allocated_bytes >= _FULL_BYTES

    def add(self, tables: Mapping[str, pa.Table]) -> None:
        """Take rows, in the order of arrival; they are written while the caller goes on.

        Raises:
            StorageError: The disk refused those before.
        """
        self._wait(_AHEAD - 1)
        self._adding.append(self._thread.submit(self._add, tables))

    def publish(self) -> list[SealedFile]:
        """Finish all parts.

        Returns:
            What the manifest will say of them; it does not yet.

        Raises:
            StorageError: The disk refused.
            DamageError: What was read back of a part is not what was written.
        """
        self._wait()
        with ThreadPoolExecutor(min(_MOST_THREADS, 2 + len(self._parts) // _PARTS_A_THREAD)) as threads:
            return list(threads.map(Part.publish, self._parts))

    def _wait(self, most: int = 0) -> None:
        while len(self._adding) > most:
            self._adding.popleft().result()

    def _add(self, tables: Mapping[str, pa.Table]) -> None:
        for name, table in tables.items():
            for contract_id, rows in _by_contract(table):
                self._part(name, contract_id, rows).append(rows)

    def _part(self, table: str, contract_id: str | None, rows: pa.Table) -> Part:
        part = self._newest.get((table, contract_id))
        if part is None or not part.takes(rows):
            part = self._newest[table, contract_id] = Part(self._root, self._manifest, table, contract_id)
            self._parts.append(part)
        return part


def _by_contract(table: pa.Table) -> Iterator[tuple[str | None, pa.Table]]:
    """A table's rows contract by contract, in their order, without the column that the path holds."""
    if not len(table):
        return
    column = table[CONTRACT].combine_chunks()
    codes = column.indices.fill_null(-1).to_numpy()
    rows = table.drop_columns(CONTRACT)
    order = np.argsort(codes, kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    if len(cuts):
        rows = rows.take(order)
    for begin, end in pairwise([0, *cuts, len(order)]):
        code = codes[order[begin]]
        yield None if code < 0 else column.dictionary[code].as_py(), rows.slice(begin, end - begin)
