"""What a service tells systemd: a datagram of text to the socket that `NOTIFY_SOCKET` names (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

__all__ = ["notify"]


def notify(*assignments: str) -> bool:
    """Tell the service manager, if one listens; `READY=1`, `WATCHDOG=1`, `STOPPING=1`, `STATUS=…`.

    It never waits, and what goes wrong is of no consequence for a capture: systemd has its own ideas of silence.

    Returns:
        Whether it was told.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # a name that is no file
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(0)
        manager.sendto("\n".join(assignments).encode(), address)
        return True
    return False
