"""What the gateway refuses or fails to do, as errors that say what to do next.

    GatewayError
    ├── RefusedError
    │   └── UnauthorizedError   the token is not accepted, or no longer: a fresh one may be
    ├── UnreachableError
    │   ├── ThrottledError      the gateway asks for a pause
    │   └── LoggedOutError      the gateway ended this user's session: another login, an expired token, maintenance
    └── ProtocolError

REST and hub share this: the same cause is the same error with the same words. No text of the gateway's is repeated
before `quoted` has taken the secrets out of it.
"""

from __future__ import annotations

import os
import socket
import ssl
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from mdcapture.errors import GatewayError, ProtocolError, RefusedError, UnreachableError
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "LoggedOutError",
    "MisunderstoodError",
    "ThrottledError",
    "UnauthorizedError",
    "network_error",
    "quoted",
    "retry_after_s",
    "status_error",
]

_LONGEST_QUOTE: Final = 200
_LONGEST_PAUSE_S: Final = 300.0
_UNAUTHORIZED: Final = frozenset({401, 403})
_THROTTLED: Final = frozenset({429})
_IN_TROUBLE: Final = frozenset({408, 425, *range(500, 600)})
_MISUNDERSTOOD: Final = frozenset({400, 422})


class UnauthorizedError(RefusedError):
    """The token is not accepted, or no longer: a fresh one may be."""


class MisunderstoodError(RefusedError):
    """The gateway can't make sense of a request, or what stands before it in a maintenance can't."""


class ThrottledError(UnreachableError):
    """The gateway asks for a pause.

    Attributes:
        retry_after_s: How long it wants to be left alone, in seconds; None if it did not say.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LoggedOutError(UnreachableError):
    """The gateway ended this user's session."""


def quoted(text: object, secrets: Iterable[str] = ()) -> str:
    """Make a foreign text fit for a message: one line, printable, short, and without the secrets."""
    line = str(text)
    for secret in secrets:
        if secret:
            line = line.replace(secret, "***")
    line = " ".join("".join(char if char.isprintable() else " " for char in line).split())
    return line if len(line) <= _LONGEST_QUOTE else f"{line[:_LONGEST_QUOTE]}…"


def retry_after_s(header: str | None, now_ns: int) -> float | None:
    """Read a `Retry-After` header, which holds seconds or a date (RFC 9110, section 10.2.3).

    Args:
        header: The header's value.
        now_ns: The time now, nanoseconds since the epoch, UTC.

    Returns:
        Seconds from now, from 0 to five minutes, since no market waits for longer; None without a header that can be
        read.
    """
    if header is None:
        return None
    try:
        if header.strip().isdecimal():
            pause_s = float(header)
        else:
            pause_s = parsedate_to_datetime(header).timestamp() - now_ns / NS_PER_S
    except (ValueError, OverflowError):
        return None
    return min(max(pause_s, 0.0), _LONGEST_PAUSE_S)


def status_error(status: int, where: str, detail: str = "", pause_s: float | None = None) -> GatewayError:
    """Name an HTTP status that is no success.

    Args:
        status: The status.
        where: What was asked, for the message: no query string, no secret.
        detail: What the gateway said about it, already `quoted`.
        pause_s: What its `Retry-After` asks for, in seconds.
    """
    said = f"HTTP {status}{f' ({detail})' if detail else ''} from {where}"
    if status in _UNAUTHORIZED:
        return UnauthorizedError(
            f"{said}: the gateway does not accept this login; check the user name and the API key, and that the "
            "account has an API subscription"
        )
    if status in _THROTTLED:
        return ThrottledError(f"{said}: too many requests; wait a minute, and run fewer clients at once", pause_s)
    if status in _IN_TROUBLE:
        return ThrottledError(f"{said}: the gateway is in trouble or under maintenance; try again later", pause_s)
    if status in _MISUNDERSTOOD:
        return MisunderstoodError(f"{said}: the gateway can't make sense of the request")
    return ProtocolError(f"{said}: is this the gateway's address? Check --gateway and --hub")


def network_error(error: Exception, where: str) -> UnreachableError:
    """Name a failure below HTTP: a name that does not resolve, a port that nobody serves, TLS, time.

    Args:
        error: What the operating system or a transport raised.
        where: Host and port.
    """
    if isinstance(error, TimeoutError):
        return UnreachableError(f"{where} did not answer in time: check the network, or try again later")
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", None) or error.reason or "no agreement"
        return UnreachableError(
            f"no trusted TLS connection to {where} ({quoted(reason)}): check the address, this machine's clock and its "
            "certificates; mdcapture never connects unverified"
        )
    if isinstance(error, socket.gaierror):
        return UnreachableError(f"the name of {where} can't be resolved: check the address and the network")
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno else quoted(error)
    else:
        reason = type(error).__name__  # its text may hold what the server sent
    return UnreachableError(f"no connection to {where} ({reason}): check the address and the network")
