"""Sealing beside the capture: a process of its own for each piece of work.

Decoding and compressing would hold up the event loop, and take memory that Python would keep. A process that ends gives
all of it back, and its crash is one more crash: what it left is done again by the next one.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Final

from mdcapture.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["finish", "recover", "run_module", "seal"]

_LAKE: Final = "mdcapture.lake"

_log = logging.getLogger(__name__)


async def seal(root: Path, session_id: str, through: int) -> bool:
    """Seal a session's segments up to that one.

    Returns:
        Whether it went well; if not, the segments are still there, and the next call tries them again.
    """
    trouble = await run_module(_LAKE, "seal", str(root), session_id, str(through))
    if trouble:
        _log.warning("%s: sealing failed, the journal keeps the data and it is tried again: %s", session_id, trouble)
    return not trouble


async def finish(root: Path, session_id: str) -> None:
    """Seal what is left of a session and close it.

    Raises:
        StorageError: It failed; the journal keeps the data.
    """
    trouble = await run_module(_LAKE, "finish", str(root), session_id)
    if trouble:
        raise StorageError(
            None,
            f"{session_id} could not be sealed ({trouble}); its journal keeps the data: `mdcapture recover` seals it",
        )


async def recover(root: Path) -> None:
    """Finish what dead processes left in the lake."""
    trouble = await run_module(_LAKE, "recover", str(root))
    if trouble:
        _log.warning("sessions of an earlier run could not be recovered, their journals keep the data: %s", trouble)


async def run_module(module: str, *arguments: str) -> str:
    """Run a module as a program, out of reach of the terminal's Ctrl-C.

    Returns:
        What it has to complain of, or nothing.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, RuntimeError) as error:  # too many processes or threads, too many files, too little memory
        return f"no process can be started: {getattr(error, 'strerror', error)}"
    _, errors = await process.communicate()
    if process.returncode == 0:
        return ""
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with {process.returncode}"
