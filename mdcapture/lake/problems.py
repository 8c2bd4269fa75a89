"""What can be wrong with a session, as values: a proof that fails is a finding, not an error."""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = ["Problem", "ProblemKind"]


class ProblemKind(StrEnum):
    """What is wrong: a closed list."""

    MANIFEST = "manifest"
    MISSING_FILE = "missing_file"
    FOREIGN_FILE = "foreign_file"
    CHECKSUM = "checksum"
    UNREADABLE = "unreadable"
    SCHEMA = "schema"
    METADATA = "metadata"
    COUNTS = "counts"
    ORDER = "order"
    JOURNAL = "journal"
    MESSAGES = "messages"
    ENTRIES = "entries"
    DECODED = "decoded"


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong; `where` is a path within the lake, or a table of the session."""

    kind: ProblemKind
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: {self.detail} [{self.kind.value}]"
