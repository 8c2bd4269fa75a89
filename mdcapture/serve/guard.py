"""Who is let in: this machine's own pages. Other web sites, which a browser here may have open, are not.

A foreign page can make a browser send requests to this server in two ways, and each has its mark:

- it asks for `http://127.0.0.1:PORT/…` itself: the browser says so in `Origin` or `Sec-Fetch-Site`;
- it has its own name resolve to this machine ("DNS rebinding"): then that name is in `Host`. So a host must be an
  address, `localhost`, or this machine's name, none of which a stranger can let point elsewhere.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final

from aiohttp import web
from yarl import URL

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

__all__ = ["only_own_pages"]

_OWN_SITE: Final = (None, "same-origin", "none")
_HEADERS: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@web.middleware
async def only_own_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what the own page asks, and nobody else; what has no policy of its own may load nothing."""
    if trouble := _foreign(request):
        raise web.HTTPForbidden(text=f"refused: {trouble}\n")
    return await handler(request)


async def with_safe_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Put on each response what keeps a browser from doing more with it than is meant."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Content-Security-Policy", _NOTHING)
    response.headers.setdefault("Cache-Control", "no-store")


def _foreign(request: web.Request) -> str:
    """What shows that another site is asking; nothing if none does."""
    host = request.headers.get("Host", "")
    if not _is_own(host):
        return f"the host {host!r} is not this machine (use its address, or localhost)"
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"{request.scheme}://{host}":
        return f"the page is of {origin!r}"
    site = request.headers.get("Sec-Fetch-Site")
    return "" if site in _OWN_SITE else f"the page is of another site ({site})"


def _is_own(host: str) -> bool:
    try:
        name = URL(f"http://{host}").host or ""
    except ValueError:
        return False
    if name in ("localhost", socket.gethostname().lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
