"""What is being recorded on this machine, from what the recorders publish: none of them is asked, or slowed.

processes ──open files──▶ lakes ──journal folders──▶ sessions ──status.json, manifest──▶ recordings
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import psutil

from mdcapture.capture.health import Figures, has_ended, is_recorded, problems, read_status, unfinished
from mdcapture.errors import MdcaptureError
from mdcapture.lake.layout import is_session_id
from mdcapture.lake.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Recording", "lakes_in_use", "look", "recordings"]

_MB: Final = 1024 * 1024
_JOURNAL: Final = "journal"


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is being recorded, or was when its recorder died, seen from outside.

    Attributes:
        lake: The lake's folder.
        session_id: The session.
        ok: Whether nothing is wrong.
        problems: What is wrong, each with the next step.
        sealed_messages: Messages that are in Parquet files by now; the others are in the journal.
        sealed_mb: The size of those files.
        figures: What its recorder published last, each second; None where it has published none yet.
    """

    lake: str
    session_id: str
    ok: bool
    problems: list[str]
    sealed_messages: int
    sealed_mb: float
    figures: Figures | None


def recordings(lakes: Iterable[Path], now_ns: int) -> list[Recording]:
    """Look at the recorders of some lakes; a folder that is none has no recorders.

    Args:
        lakes: Their folders.
        now_ns: The time.
    """
    return [
        look(root, session_id, now_ns)
        for root in sorted(set(lakes))
        if root.is_dir()
        for session_id in unfinished(root)
    ]


def look(root: Path, session_id: str, now_ns: int) -> Recording:
    """Look at the recorder of one session.

    Args:
        root: The lake.
        session_id: The session.
        now_ns: The time.
    """
    figures = read_status(root, session_id)
    found = problems(figures, now_ns, lives=is_recorded(root, session_id), ended=has_ended(root, session_id))
    messages = size = 0
    with suppress(MdcaptureError):  # it begins, or ends, at this moment
        manifest = read_manifest(root, session_id)
        messages, size = manifest.next_seq, sum(file.bytes for file in manifest.files)
    return Recording(
        lake=str(root),
        session_id=session_id,
        ok=not found,
        problems=found,
        sealed_messages=messages,
        sealed_mb=size / _MB,
        figures=figures,
    )


def lakes_in_use() -> set[Path]:
    """The lakes that processes of this user record into: whoever does holds a journal open."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is not ours to look at
            for file in process.open_files():
                folder = Path(file.path).parent
                if folder.parent.name == _JOURNAL and is_session_id(folder.name):
                    found.add(folder.parents[1])
    return found
