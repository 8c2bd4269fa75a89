"""What is being captured just now, each second, to each page that is open."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from mdcapture.capture.recordings import Recording, recordings
from mdcapture.errors import MdcaptureError
from mdcapture.serve.ladder import Ladder, Standing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from mdcapture.session import Lake

__all__ = ["Now", "follow"]

_EVERY_S: Final = 1.0


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """One moment of a lake that is being written.

    Attributes:
        at_ns: The moment.
        recordings: The sessions that are recorded.
        standing: The book and the last trades of the contract that the page shows; None where there is none.
    """

    at_ns: int
    recordings: list[Recording]
    standing: Standing | None


async def follow(
    lake: Lake, root: Path, session_id: str, contract_id: str, stopping: asyncio.Event
) -> AsyncIterator[Now]:
    """What there is to see, each second, until the server stops.

    Args:
        lake: The lake.
        root: Its folder.
        session_id: The session whose book is wanted; where it is not recorded (any more), the first that has the
            contract.
        contract_id: The contract whose book is wanted; where nobody records it, the first of all.
        stopping: Set when it is enough.
    """
    ladder: Ladder | None = None

    def look() -> Now:
        nonlocal ladder
        now_ns = time.time_ns()
        found = recordings([root], now_ns)
        with suppress(MdcaptureError):  # a session ends, or its files are merged, at this moment
            ladder = _ladder(lake, ladder, _choice(found, session_id, contract_id), now_ns)
            return Now(at_ns=now_ns, recordings=found, standing=None if ladder is None else ladder.look())
        return Now(at_ns=now_ns, recordings=found, standing=None)

    while not stopping.is_set():
        yield await asyncio.to_thread(look)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _EVERY_S)


def _choice(found: Sequence[Recording], session_id: str, contract_id: str) -> tuple[str, str] | None:
    """The session and contract to show."""
    known = [(one.session_id, each.contract_id) for one in found if one.figures for each in one.figures.contracts]
    wanted = (session_id, contract_id)
    same_contract = (choice for choice in known if choice[1] == contract_id)
    return wanted if wanted in known else next(same_contract, known[0] if known else None)


def _ladder(lake: Lake, before: Ladder | None, choice: tuple[str, str] | None, now_ns: int) -> Ladder | None:
    if choice is None or (before is not None and (before.session_id, before.contract_id) == choice):
        return before if choice else None
    session = lake.session(choice[0])
    contract = next((one for one in session.contracts if one.contract_id == choice[1]), None)
    return None if contract is None else Ladder(session, contract, now_ns)
