"""How far publishing beside a capture has come: a file in the lake, from the publisher to the recorder's figures."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from mdcapture.lake.files import post_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Published", "read_published", "write_published"]


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What a publisher did last.

    Attributes:
        session_id: The newest session that it has published anything of; empty before the first.
        messages: So many of its messages are on the server.
        at_ns: When that was found, or tried.
        trouble: What was in the way; empty where nothing was.
    """

    session_id: str
    messages: int
    at_ns: int
    trouble: str = ""


def write_published(root: Path, address: str, published: Published) -> None:
    """Replace what is said of publishing to an address; a disk that refuses leaves the old word, whose age tells."""
    post_file(_path(root, address), msgspec.json.encode(published))


def read_published(root: Path, address: str) -> Published | None:
    """What was said last of publishing to an address; None where nothing was."""
    try:
        return msgspec.json.decode(_path(root, address).read_bytes(), type=Published)
    except (OSError, msgspec.DecodeError):
        return None


def _path(root: Path, address: str) -> Path:
    return root / "journal" / f"published-{hashlib.sha256(address.encode()).hexdigest()[:8]}.json"
