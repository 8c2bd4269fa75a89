"""The lake's work as a process of its own.

seal LAKE SESSION SEGMENT
finish LAKE SESSION
recover LAKE
upload LAKE DESTINATION
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mdcapture.errors import DamageError, MdcaptureError
from mdcapture.lake.backup import back_up
from mdcapture.lake.remote import locate
from mdcapture.lake.seal import finish, recover, seal

_NICENESS = 10
"""Sealing can wait for a processor; the capture can't."""


def main(arguments: list[str]) -> int:
    """Do one piece of work, as the recorder asks for it.

    Returns:
        The exit code; an error is a line on stderr.
    """
    os.nice(_NICENESS)
    try:
        match arguments:
            case ["seal", lake, session_id, through]:
                seal(Path(lake), session_id, int(through))
            case ["finish", lake, session_id]:
                finish(Path(lake), session_id, "sealed")
            case ["recover", lake]:
                recover(Path(lake))
            case ["upload", lake, destination]:
                _upload(Path(lake), destination)
            case _:
                sys.stderr.write(f"{__doc__}\n")
                return 2
    except MdcaptureError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _upload(lake: Path, destination: str) -> None:
    done = back_up(lake, locate(destination))
    if done.problems:
        raise DamageError("; ".join(done.problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
