"""Publishing beside a capture, as a process of its own: `LAKE ADDRESS EVERY_S`.

    lake ──every EVERY_S──▶ what is new of each session that is captured for this address ──▶ the server
                       └──▶ how far that is, and what is in the way, for the recorder's figures

It reads the lake and nothing else, and ends when none of these sessions is recorded any more and all of them are there.
Trouble ends it, too: whoever has started it says so, and starts it again. Trouble that was told of before is borne for
a minute at a time. A server that takes the connection and then says nothing costs this process, and no other.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from mdcapture.capture.health import is_recorded
from mdcapture.capture.published import Published, read_published, write_published
from mdcapture.errors import MdcaptureError, ServerError
from mdcapture.interop.postgres.connection import connected, transaction
from mdcapture.interop.postgres.publish import captured_for, publish_session
from mdcapture.interop.postgres.tables import prepare
from mdcapture.lake.catalog import Catalog

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection

    from mdcapture.lake.manifest import Manifest

_NICENESS: Final = 10
"""Publishing can wait for a processor; the capture can't."""
_BEAR_S: Final = 60.0
_ANSWER_S: Final = 60.0
_LOOK_S: Final = 1.0


class _Publisher:
    """Follows a lake, and keeps in mind what the server has of each session."""

    def __init__(self, root: Path, address: str) -> None:
        self._root = root
        self._address = address
        self._catalog = Catalog(root)
        self._known: dict[str, Manifest] = {}
        self._said = read_published(root, address) or Published(session_id="", messages=0, at_ns=0)
        self._bear_until_s = time.monotonic() + _BEAR_S if self._said.trouble else 0.0
        self._answered_s = time.monotonic()

    def run(self, every_s: float) -> None:
        """Go on until all is there and nothing is recorded any more.

        Raises:
            MdcaptureError: What is in the way.
        """
        threading.Thread(target=self._watch, daemon=True).start()
        while True:
            try:
                with connected(self._address) as connection:
                    with transaction(connection) as cursor:
                        prepare(cursor)
                    while self._once(connection):
                        self._pause(every_s)
                    return
            except ServerError as error:
                self._say(trouble=str(error))
                if time.monotonic() >= self._bear_until_s or not self._recorded():
                    raise
                self._pause(every_s)

    def _once(self, connection: Connection) -> bool:
        """Bring what is new; whether more can come."""
        more = self._recorded()
        troubles: list[MdcaptureError] = []
        for session_id in captured_for(self._catalog, self._address):
            if session_id in self._known and self._known[session_id].state != "open":
                continue
            try:
                held, _ = publish_session(
                    connection,
                    self._catalog,
                    session_id,
                    known=self._known.get(session_id),
                    progress=lambda _rows: self._say(trouble=""),
                )
            except ServerError:
                raise
            except MdcaptureError as error:  # of this session: the others go on
                troubles.append(error)
            else:
                self._known[session_id] = held
                self._said = Published(session_id=session_id, messages=held.next_seq, at_ns=time.time_ns())
        self._say(trouble="; ".join(map(str, troubles)))
        if troubles and not more:
            raise troubles[0]
        return more

    def _recorded(self) -> bool:
        return any(is_recorded(self._root, one) for one in captured_for(self._catalog, self._address))

    def _say(self, trouble: str) -> None:
        self._answered()
        said = Published(
            session_id=self._said.session_id, messages=self._said.messages, at_ns=time.time_ns(), trouble=trouble
        )
        write_published(self._root, self._address, said)

    def _pause(self, pause_s: float) -> None:
        self._answered()
        time.sleep(pause_s)
        self._answered()

    def _answered(self) -> None:
        self._answered_s = time.monotonic()

    def _watch(self) -> NoReturn:
        """End all of this where the server does not answer: nothing else ends a call of its library."""
        while True:
            time.sleep(_LOOK_S)
            if time.monotonic() - self._answered_s > _ANSWER_S:
                trouble = f"{self._address}: no answer for {_ANSWER_S:.0f} s"
                self._say(trouble)
                sys.stderr.write(f"{trouble}\n")
                sys.stderr.flush()
                os._exit(ServerError.exit_code)


def main(arguments: list[str]) -> int:
    """Follow a lake.

    Returns:
        The exit code; an error is a line on stderr.
    """
    root, address, every_s = arguments
    os.nice(_NICENESS)
    try:
        _Publisher(Path(root), address).run(float(every_s))
    except MdcaptureError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
