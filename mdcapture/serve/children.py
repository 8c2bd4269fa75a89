"""What takes time or memory is done by `mdcapture` itself, in a process of its own that can be bounded and ended."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

__all__ = ["child", "complaint"]

_MB: Final = 1024 * 1024
_LINE_BYTES: Final = 8 * _MB
_UNWANTED: Final = ("MDCAPTURE_API_KEY", "MDCAPTURE_API_KEY_FILE", "MDCAPTURE_DEBUG")


@asynccontextmanager
async def child(*arguments: str, memory_mb: int | None = None) -> AsyncIterator[Process]:
    """Run `mdcapture` with these arguments for the length of the block; it is killed if it has not ended by then.

    Args:
        arguments: The command and its options.
        memory_mb: So much data it may hold, where the system can bound another process (Linux).

    Yields:
        The process; its standard input, output and errors are pipes.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mdcapture",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name not in _UNWANTED},
        start_new_session=True,
        limit=_LINE_BYTES,
    )
    try:
        if memory_mb is not None and sys.platform == "linux":
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory_mb * _MB, memory_mb * _MB))
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def complaint(process: Process) -> str:
    """What a process that has ended had to complain of, or nothing."""
    assert process.stderr is not None
    text = (await process.stderr.read()).decode(errors="replace").strip()
    if await process.wait() == 0:
        return ""
    _, is_ours, message = f"\n{text}".partition("\nerror: ")
    return message if is_ours else f"it broke off ({text.splitlines()[-1] if text else process.returncode})"
