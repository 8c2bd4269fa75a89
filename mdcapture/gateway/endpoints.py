"""Where a gateway is: names of presets and firms, or URLs, to the addresses of its API and its market hub."""

from __future__ import annotations

import difflib
import re
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from mdcapture.errors import UsageError

__all__ = ["PRESETS", "Endpoints", "endpoints"]

PRESETS: Final = {
    "topstepx": "https://api.topstepx.com",
    "demo": "https://gateway-api-demo.s2f.projectx.com",
}
"""Gateways by name; every other plain name is a firm's, at `api.<firm>.projectx.com`."""

_NEARLY: Final = 0.75
_FIRM: Final = re.compile(r"[a-z0-9][a-z0-9-]*")
_HUB_PATH: Final = "/hubs/market"
_HUB_SCHEMES: Final = {"https": "wss", "http": "ws", "wss": "wss", "ws": "ws"}
_HUB_HOSTS: Final = (("api.", "rtc."), ("gateway-api-", "gateway-rtc-"))


class Endpoints(NamedTuple):
    """A gateway's addresses: `api` is http(s), without a slash at the end; `hub` is ws(s)."""

    api: str
    hub: str


def endpoints(gateway: str, hub: str | None = None) -> Endpoints:
    """Find a gateway.

    Args:
        gateway: A preset's name, a firm's name, or the URL of an API; without a scheme it is https.
        hub: The URL of the market hub; by default the API's, with `rtc` for `api` in the host's first name.

    Raises:
        UsageError: A URL can't be one of a gateway, or a name is nearly that of a preset.
    """
    name = gateway.strip().lower()
    near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=_NEARLY)
    if near and name not in PRESETS:
        raise UsageError(
            f"--gateway {name}: did you mean {near[0]}? (A firm of just that name is https://api.{name}.projectx.com)"
        )
    firm = f"https://api.{name}.projectx.com" if _FIRM.fullmatch(name) else gateway.strip()
    api = _split(PRESETS.get(name, firm), ("https", "http"), "--gateway")
    if hub is None:
        host = api.netloc
        for prefix, replacement in _HUB_HOSTS:
            if host.startswith(prefix):
                host = replacement + host.removeprefix(prefix)
                break
        found = api._replace(netloc=host, path="")
    else:
        found = _split(hub.strip(), tuple(_HUB_SCHEMES), "--hub")
    path = found.path if found.path.strip("/") else _HUB_PATH
    return Endpoints(api.geturl().rstrip("/"), found._replace(scheme=_HUB_SCHEMES[found.scheme], path=path).geturl())


def _split(url: str, schemes: tuple[str, ...], option: str) -> SplitResult:
    """Take a URL apart; what is wrong with it is said without repeating it, since people paste secrets into URLs."""
    parts = urlsplit(url if "://" in url else f"{schemes[0]}://{url}")
    problem = _problem(url, parts, schemes)
    if problem is not None:
        names = ", ".join(PRESETS)
        raise UsageError(f"{option} is no gateway's address: {problem}. Give a URL, or a name such as {names}")
    return parts


def _problem(url: str, parts: SplitResult, schemes: tuple[str, ...]) -> str | None:
    if parts.scheme not in schemes:
        return f"its scheme is none of {', '.join(schemes)}"
    if not parts.hostname or any(char.isspace() for char in url):
        return "it names no host"
    if "@" in parts.netloc or parts.query or parts.fragment:
        return "it holds a user, a query or a fragment; a token never belongs into it"
    if parts.scheme in ("http", "ws") and not _is_loopback(parts.hostname):
        return "plain http and ws are for this machine only, or else the key travels unencrypted: use https or wss"
    try:
        parts.port  # noqa: B018  # raises for a port that is none
    except ValueError:
        return "its port is no number from 0 to 65535"
    return None


def _is_loopback(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
