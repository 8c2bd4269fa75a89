"""The replaced system's SQLite file, as `mdcapture.interop.moving` reads it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mdcapture.errors import NotFoundError, UsageError
from mdcapture.interop.moving import move

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mdcapture.lake.manifest import Manifest


__all__ = ["import_sqlite", "is_sqlite"]

_MAGIC: Final = b"SQLite format 3\x00"


def is_sqlite(path: str) -> bool:
    """Whether a file is a SQLite database."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def import_sqlite(
    path: str, root: Path, *, again: bool = False, progress: Callable[[int], object] = lambda _: None
) -> list[Manifest]:
    """Import a SQLite file of the replaced system; arguments, result and errors as those of `move`.

    Raises:
        NotFoundError: There is no such file.
        UsageError: It is no such file.
    """
    if not Path(path).is_file():
        raise NotFoundError(f"there is no file {path}")
    try:
        with closing(sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return move(_SQLiteFile(connection, Path(path).name), root, again=again, progress=progress)
    except sqlite3.Error as error:
        raise UsageError(f"{path} can't be read as a SQLite file ({error})") from error


class _SQLiteFile:
    """A file that is open."""

    kind = "sqlite"

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self.name = name
        self._connection = connection

    def columns(self, table: str) -> list[str]:
        return [str(row["name"]) for row in self._connection.execute(f"PRAGMA table_info({table})")]

    def row_number(self, _table: str) -> str:
        return "rowid"

    def ask(self, query: str) -> Iterator[dict[str, Any]]:
        return map(dict, self._connection.execute(query))
