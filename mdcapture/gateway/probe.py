"""A first look at a gateway: does anybody answer, how fast, and what time is it there?"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

import aiohttp

from mdcapture.gateway.refusals import network_error

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Answer", "probe"]


class Answer(NamedTuple):
    """An HTTP answer: how long it took, and by how much this machine's clock is ahead, at least and at most.

    `ahead_s` is None where the server does not say what time it is; it says so to the second, so that less can't be
    known.
    """

    took_s: float
    ahead_s: tuple[float, float] | None


async def probe(api: str, *, timeout_s: float = 10.0, clock: Callable[[], int] = time.time_ns) -> Answer:
    """Ask a gateway for anything at all; its answer's `Date` is all that counts.

    Args:
        api: The API's address.
        timeout_s: For the answer.
        clock: Nanoseconds since the epoch, UTC.

    Raises:
        UnreachableError: Nobody answers.
    """
    asked_ns = clock()
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.get(f"{api}/api/Status/ping", allow_redirects=False) as response,
        ):
            date = response.headers.get("Date")
    except (aiohttp.ClientError, OSError) as error:
        cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
        raise network_error(cause, api) from None
    answered_ns = clock()
    try:
        server_s = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return Answer((answered_ns - asked_ns) / 1e9, None)
    # Some time between asking and answering, the server's clock was between this second and the next one.
    return Answer((answered_ns - asked_ns) / 1e9, (asked_ns / 1e9 - server_s - 1, answered_ns / 1e9 - server_s))
