"""Functions for sessions and contracts that travel to other processes: each is found by its name there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mdcapture as md

__all__ = ["DYING", "dying", "lots"]

DYING = "MDCAPTURE_TEST_DYING"
"""The variable that names the file in which the first task of `dying` says which process it is in."""


def lots(session: md.Session, contract_id: str) -> tuple[str, str, int]:
    """The volume of a contract; one is beyond it."""
    if contract_id == "BAD":
        raise ValueError("no such luck")
    return session.session_id, contract_id, session.trades(contract_id).collect()["volume"].sum()


def dying(session: md.Session, contract_id: str) -> tuple[str, str, int]:
    """The same; the first process that is asked waits to be killed."""
    note = Path(os.environ[DYING])
    try:
        with note.open("x") as file:
            file.write(f"{os.getpid()}\n")
    except FileExistsError:
        return lots(session, contract_id)
    time.sleep(600)
    raise AssertionError("nobody came")
