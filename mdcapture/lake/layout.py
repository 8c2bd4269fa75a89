"""Where everything is: names of files and folders, as plain functions.

LAKE/
  <table>/session_id=<id>/contract_id=<id>/part-<n>.parquet
  sessions/<id>.json
  journal/<id>/<n>.journal, lock, status.json
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mdcapture.lake.remote import Location

__all__ = [
    "NULL_PARTITION",
    "PlaceT",
    "contract_folder",
    "is_part",
    "is_session_id",
    "journal_folder",
    "manifest_path",
    "meant",
    "part_path",
    "partition_of",
    "segment_number",
    "segment_path",
    "session_id_at",
    "session_of",
    "session_order",
]

PlaceT = TypeVar("PlaceT", bound="Location")

NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"
"""How hive partitions, and so DuckDB, polars and Spark, spell null."""

_LONGEST_NAME: Final = 200
_SESSION_ID: Final = re.compile(r"session_\d{8}_\d{6}(_\d+)?", re.ASCII)
_PART: Final = re.compile(r"part-\d+\.parquet", re.ASCII)
_SEGMENT: Final = re.compile(r"(\d{6,})\.journal", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def session_id_at(start_ns: int, attempt: int = 1) -> str:
    """The id of a session that starts then; later attempts get a suffix."""
    start = _EPOCH + timedelta(seconds=start_ns // 1_000_000_000)
    return f"session_{start:%Y%m%d_%H%M%S}" + (f"_{attempt}" if attempt > 1 else "")


def is_session_id(text: str) -> bool:
    """Whether it has the form of a session's id (and so can't leave the lake)."""
    return _SESSION_ID.fullmatch(text) is not None


def meant(ref: str, session_ids: Iterable[str]) -> list[str]:
    """The sessions that a text means: the one of that id, or those whose ids begin so; `session_` may be left out."""
    ids = list(session_ids)
    refs = (ref, f"session_{ref}")
    return [one for one in ids if one in refs] or [one for one in ids if ref and one.startswith(refs)]


def session_order(session_id: str) -> tuple[str, int, str]:
    """What sessions are sorted by: their start, then their suffix as the number that it is."""
    second = session_id[: len("session_YYYYMMDD_HHMMSS")]
    return second, len(session_id), session_id


def contract_folder(contract_id: str | None) -> str:
    """The folder of a contract: percent-encoded as hive readers expect, so that no id can leave the lake.

    An id that is empty, too long for a file name, or the very word for null can't be a folder that all readers read
    back: it is kept with those that have none (null).
    """
    name = "" if contract_id is None else quote(contract_id, safe=" ,+@!")
    if not name or len(name) > _LONGEST_NAME:
        name = NULL_PARTITION
    return f"contract_id={name}"


def partition_of(folder: str) -> str | None:
    """The contract of a folder: the inverse of `contract_folder`."""
    name = folder.removeprefix("contract_id=")
    return None if name == NULL_PARTITION else unquote(name)


def part_path(table: str, session_id: str, contract_id: str | None, number: int) -> str:
    """A sealed file's path within the lake."""
    return f"{table}/session_id={session_id}/{contract_folder(contract_id)}/part-{number}.parquet"


def session_of(part: str) -> str:
    """The session of a sealed file's path: one inverse of `part_path`."""
    return part.split("/")[1].removeprefix("session_id=")


def is_part(name: str) -> bool:
    """Whether a file's name is one that `part_path` gives."""
    return _PART.fullmatch(name) is not None


def manifest_path(root: PlaceT, session_id: str) -> PlaceT:
    """A session's manifest."""
    return root / "sessions" / f"{session_id}.json"


def journal_folder(root: PlaceT, session_id: str) -> PlaceT:
    """The folder of a session's journal."""
    return root / "journal" / session_id


def segment_path(folder: Path, number: int) -> Path:
    """A segment of the journal."""
    return folder / f"{number:06d}.journal"


def segment_number(path: Location) -> int | None:
    """The number of a segment; None for other files."""
    match = _SEGMENT.fullmatch(path.name)
    return int(match[1]) if match else None
