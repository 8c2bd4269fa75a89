"""What part of a session is analysed: windows of time, `from_ns` up to before `to_ns`, in order and apart."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mdcapture.errors import UsageError
from mdcapture.wire.timestamps import NS_PER_S, parse_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EXCHANGE_ZONE", "Moment", "Window", "cut", "known_zone", "moment_ns", "regular_windows", "thinned"]

Moment = int | str | datetime
"""A time: nanoseconds since the epoch, ISO 8601 text (UTC where it names no zone; a day alone is its beginning), or a
datetime that has a zone."""

EXCHANGE_ZONE: Final = "America/Chicago"

_EQUITIES: Final = (time(8, 30), time(15, 0))
_CURRENCIES: Final = (time(7, 20), time(14, 0))
_REGULAR: Final = {
    "GCE": (time(7, 20), time(12, 30)),
    "CPE": (time(7, 10), time(12, 0)),
    "CLE": (time(8, 0), time(13, 30)),
    "BP6": _CURRENCIES,
    "EU6": _CURRENCIES,
    "JY6": _CURRENCIES,
    "USA": _CURRENCIES,
}
"""By the root of the contract's id: the hours of the old trading floor, in Chicago; all others have those of the stock
market. Holidays are not known here: on one, the window holds whatever was captured in it."""

_DAY: Final = len("2025-06-20")
_SATURDAY: Final = 5
_BLOCKS: Final = 20


class Window(NamedTuple):
    """A stretch of time, from `from_ns` up to before `to_ns` (ns UTC)."""

    from_ns: int
    to_ns: int


def known_zone(zone: str) -> str:
    """The zone, if there is one of that name.

    Raises:
        UsageError: There is none.
    """
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"there is no time zone {zone!r}; UTC and America/Chicago are two") from None
    return zone


def moment_ns(moment: Moment) -> int:
    """A time in nanoseconds since the epoch, UTC.

    Raises:
        UsageError: It is no time, or a datetime without a zone.
    """
    if isinstance(moment, int):
        return moment
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise UsageError(f"{moment} has no time zone: give it one, as datetime(…, tzinfo=UTC)")
        since = moment - datetime.fromtimestamp(0, UTC)
        return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1000
    try:
        return parse_ns(f"{moment}T00" if len(moment) == _DAY else moment)
    except ValueError:
        raise UsageError(f"{moment!r} is no time: write 2025-06-20T14:30 (UTC), or with a zone …T09:30-05:00") from None


def cut(whole: Window, start: Moment | None, end: Moment | None) -> Window:
    """The part of a window from `start` up to before `end`.

    Raises:
        UsageError: A time is none, or nothing is left.
    """
    from_ns = whole.from_ns if start is None else max(whole.from_ns, moment_ns(start))
    to_ns = whole.to_ns if end is None else min(whole.to_ns, moment_ns(end))
    if from_ns >= to_ns:
        raise UsageError(f"nothing lies from {start or 'the start'} to {end or 'the end'} in this session")
    return Window(from_ns, to_ns)


def regular_windows(root: str, whole: Window, zone: str = EXCHANGE_ZONE) -> Sequence[Window]:
    """The regular trading hours of a contract within a window, a window a day.

    Args:
        root: The root of the contract's id: `MNQ` of `CON.F.US.MNQ.Z26`.
        whole: What they are looked for in.
        zone: The exchange's time zone.
    """
    opens, closes = _REGULAR.get(root, _EQUITIES)
    first, last = (datetime.fromtimestamp(ns // NS_PER_S, UTC).astimezone(ZoneInfo(zone)).date() for ns in whole)
    days = (first + timedelta(days=number) for number in range((last - first).days + 1))
    hours = (Window(_at(day, opens, zone), _at(day, closes, zone)) for day in days if day.weekday() < _SATURDAY)
    parts = (Window(max(one.from_ns, whole.from_ns), min(one.to_ns, whole.to_ns)) for one in hours)
    return [part for part in parts if part.from_ns < part.to_ns]


def thinned(windows: Sequence[Window], share: float) -> list[Window]:
    """A share of the time, in equal blocks that are spread evenly over all of it."""
    blocks = []
    for window in windows:
        length_ns = (window.to_ns - window.from_ns) // _BLOCKS
        starts = (window.from_ns + block * length_ns for block in range(_BLOCKS))
        blocks += [Window(start, start + max(1, round(length_ns * share))) for start in starts]
    return blocks


def _at(day: date, clock: time, zone: str) -> int:
    return int(datetime.combine(day, clock, ZoneInfo(zone)).timestamp()) * NS_PER_S
