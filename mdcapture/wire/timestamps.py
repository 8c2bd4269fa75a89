"""The gateway's times to integer nanoseconds since the epoch, and back.

The gateway writes 0 to 7 fractional digits with `Z` or `+00:00`. Seven digits do not fit a Python `datetime`, and an
`int64` of nanoseconds ends in 1677 and 2262: what lies outside is no time of this market.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["NS_PER_S", "format_ns", "parse_ns"]

NS_PER_S: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORM: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{0,9})\d*)?)?)?"
    r"(?:[Zz]|([+-])([01]\d|2[0-3])(?::?([0-5]\d))?)?",
    re.ASCII,
)
_INT64: Final = range(-(2**63), 2**63)


def parse_ns(text: str) -> int:
    """Parse an ISO 8601 time; without a zone it is UTC, digits beyond the ninth are cut.

    What Arrow's cast can read, this reads alike: a column may be parsed either way.

    Returns:
        Nanoseconds since the epoch, UTC.

    Raises:
        ValueError: It is no time, or none that fits 64 bits.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"no ISO 8601 time: {text[:40]!r}")
    *fields, fraction, sign, zone_h, zone_min = match.groups(default="0")
    year, month, day, hour, minute, second = map(int, fields)
    since = datetime(year, month, day, hour, minute, second, tzinfo=UTC) - _EPOCH
    zone = timedelta(hours=int(zone_h), minutes=int(zone_min))
    since += zone if sign == "-" else -zone
    ns = (since.days * 86_400 + since.seconds) * NS_PER_S + int(fraction.ljust(9, "0"))
    if ns not in _INT64:
        raise ValueError(f"a time outside of what 64 bits of nanoseconds hold: {text[:40]!r}")
    return ns


def format_ns(ns: int, digits: int = 7) -> str:
    """Write a time as the gateway does: `digits` fractional digits (cut) without trailing zeros, and `+00:00`."""
    seconds, fraction = divmod(ns, NS_PER_S)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    part = f"{fraction:09d}"[:digits].rstrip("0")
    return f"{text}.{part}+00:00" if part else f"{text}+00:00"
