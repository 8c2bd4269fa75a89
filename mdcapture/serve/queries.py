"""The SQL box: a query is asked by `mdcapture sql` in a process of its own, with bounds on all that it may take.

Rows go to the page as text, cell by cell: a browser's numbers would round nanoseconds.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from mdcapture.errors import UsageError
from mdcapture.serve.children import child, complaint

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

__all__ = ["Answer", "Queries", "QueryLimits"]

_CHUNK_BYTES: Final = 65_536

_row = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode


class QueryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one query may take, and how many may run at once.

    Attributes:
        rows: Rows that the page is sent.
        answer_mb: Their size.
        memory_mb: What the query's process may hold, on Linux.
        answer_s: Until an answer is complete.
        download_s: Until a download is.
        at_once: Queries that run at the same time; others wait.
    """

    rows: int = 1000
    answer_mb: int = 4
    memory_mb: int = 1024
    answer_s: float = 30.0
    download_s: float = 600.0
    at_once: int = 2


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Rows for the page.

    Attributes:
        columns: Their names; none where there are no rows.
        numeric: For each column, whether all its values are numbers.
        rows: The cells as text, exact; None for null.
        truncated: Whether there are more rows than these.
        elapsed_s: How long it took.
    """

    columns: list[str]
    numeric: list[bool]
    rows: list[list[str | None]]
    truncated: bool
    elapsed_s: float


class Queries:
    """Asks queries of a lake; whoever awaits one and is cancelled ends it.

    Args:
        root: The lake.
        limits: Their bounds.
    """

    def __init__(self, root: Path, limits: QueryLimits) -> None:
        self.limits = limits
        self._root = root
        self._free = asyncio.Semaphore(limits.at_once)

    async def ask(self, query: str, session: str) -> Answer:
        """The first rows of a query's result.

        Args:
            query: One statement that reads, in DuckDB's dialect.
            session: The session that it sees; empty for all.

        Raises:
            UsageError: The query is wrong, or takes more than it may.
        """
        began_s = time.monotonic()
        async with self._asking(query, session, "jsonl", self.limits.answer_s) as process:
            lines, truncated = await self._lines(process)
            if not truncated and (trouble := await complaint(process)):
                raise UsageError(trouble)
        return _answer(lines, truncated=truncated, elapsed_s=time.monotonic() - began_s)

    async def csv(self, query: str, session: str) -> AsyncGenerator[bytes, None]:
        """All rows of a query's result as CSV, a piece at a time; arguments and errors as those of `ask`."""
        async with self._asking(query, session, "csv", self.limits.download_s) as process:
            assert process.stdout is not None
            while piece := await process.stdout.read(_CHUNK_BYTES):
                yield piece
            if trouble := await complaint(process):
                raise UsageError(trouble)

    @asynccontextmanager
    async def _asking(self, query: str, session: str, form: str, most_s: float) -> AsyncIterator[Process]:
        options = ("--lake", str(self._root), "--format", form, *((f"--session={session}",) if session else ()))
        try:
            async with (
                self._free,
                asyncio.timeout(most_s),
                child("sql", "-", *options, memory_mb=self.limits.memory_mb) as process,
            ):
                assert process.stdin is not None
                process.stdin.write(query.encode())
                process.stdin.write_eof()
                yield process
        except TimeoutError as error:
            raise UsageError(
                f"the query took more than {most_s:g} s and was ended: ask for less, or ask `mdcapture sql`"
            ) from error

    async def _lines(self, process: Process) -> tuple[list[bytes], bool]:
        """The lines of a process up to the bounds, and whether there are more."""
        assert process.stdout is not None
        lines: list[bytes] = []
        size = 0
        try:
            async for line in process.stdout:
                size += len(line)
                if len(lines) == self.limits.rows or size > self.limits.answer_mb * 1024 * 1024:
                    return lines, True
                lines.append(line)
        except ValueError as error:  # so asyncio says that a line is longer than its buffer
            raise UsageError("a row of the answer is too large to be shown: ask for a part of it") from error
        return lines, False


def _answer(lines: list[bytes], *, truncated: bool, elapsed_s: float) -> Answer:
    rows = [_row(line) for line in lines]
    columns = list(rows[0]) if rows else []
    return Answer(
        columns=columns,
        numeric=[all(_is_number(bytes(row[name])) for row in rows) for name in columns],
        rows=[[_cell(bytes(row[name])) for name in columns] for row in rows],
        truncated=truncated,
        elapsed_s=elapsed_s,
    )


def _is_number(value: bytes) -> bool:
    return value == b"null" or value[:1] in b"-0123456789"


def _cell(value: bytes) -> str | None:
    """A JSON value as it is shown: texts as they are, everything else as JSON writes it."""
    if value == b"null":
        return None
    return _text(value) if value.startswith(b'"') else value.decode()
