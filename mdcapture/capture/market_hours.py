"""When the market is open: a stream's silence means nothing while it is closed, and there are no bars of that time.

    open_spans(from_ns, to_ns)   the times between these in which the market is open, clipped to them, in order

The week of CME Globex is known here: from Sunday 17:00 to Friday 16:00 in Chicago, with a halt from 16:00 to 17:00 on
each day. Its holidays and early closes change from year to year, and come from `pandas_market_calendars` where that is
installed: it is kept by people who follow the exchange's notices, but it needs pandas, so it is an extra, and it works
in a process of its own that ends when it has answered.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from mdcapture.gateway.refusals import quoted
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ALWAYS", "WEEKLY", "OpenSpans", "always", "calendar", "load_market_hours", "open_since_ns", "weekly"]

_log = logging.getLogger(__name__)

OpenSpans = Callable[[int, int], list[tuple[int, int]]]
"""From two times (ns UTC) to the spans between them in which the market is open."""

ALWAYS: Final = "always"
WEEKLY: Final = "weekly"
_LIBRARY: Final = "pandas_market_calendars"
_CHICAGO: Final = ZoneInfo("America/Chicago")
_OPENS, _CLOSES = time(17), time(16)
_EVENINGS: Final = frozenset({6, 0, 1, 2, 3})  # Sunday to Thursday
_DAY_NS: Final = 86_400 * NS_PER_S
_LONGEST_WEEK_NS: Final = 8 * _DAY_NS
_BEFORE: Final = timedelta(days=10)
_AHEAD: Final = timedelta(days=400)


def always(from_ns: int, to_ns: int) -> list[tuple[int, int]]:
    """The open spans of a market that never closes."""
    return [(from_ns, to_ns)] if from_ns < to_ns else []


def weekly(from_ns: int, to_ns: int) -> list[tuple[int, int]]:
    """The open spans of CME Globex in a week without a holiday."""
    first, last = (datetime.fromtimestamp(ns // NS_PER_S, UTC).astimezone(_CHICAGO).date() for ns in (from_ns, to_ns))
    evenings = (first + timedelta(days=days) for days in range(-1, (last - first).days + 1))
    return _clipped((_night(day) for day in evenings if day.weekday() in _EVENINGS), from_ns, to_ns)


def _night(day: date) -> tuple[int, int]:
    """The session that begins on a day's evening."""
    opens = datetime.combine(day, _OPENS, _CHICAGO)
    closes = datetime.combine(day + timedelta(days=1), _CLOSES, _CHICAGO)
    return int(opens.timestamp()) * NS_PER_S, int(closes.timestamp()) * NS_PER_S


def calendar(spans: list[tuple[int, int]]) -> OpenSpans:
    """The open spans that a calendar lists, in order; before the first and after the last it is the plain week."""
    starts = [opens for opens, _ in spans]

    def open_spans(from_ns: int, to_ns: int) -> list[tuple[int, int]]:
        if not spans:
            return weekly(from_ns, to_ns)
        begins, ends = spans[0][0], spans[-1][1]
        listed = spans[max(0, bisect_right(starts, from_ns) - 1) : bisect_right(starts, to_ns)]
        return [
            *weekly(from_ns, min(to_ns, begins)),
            *_clipped(listed, from_ns, to_ns),
            *weekly(max(from_ns, ends), to_ns),
        ]

    return open_spans


def _clipped(spans: Iterable[tuple[int, int]], from_ns: int, to_ns: int) -> list[tuple[int, int]]:
    clipped = ((max(opens, from_ns), min(closes, to_ns)) for opens, closes in spans)
    return [(opens, closes) for opens, closes in clipped if opens < closes]


def open_since_ns(open_spans: OpenSpans, now_ns: int) -> int | None:
    """Since when the market has been open without a break; None where it is closed."""
    spans = open_spans(now_ns - _LONGEST_WEEK_NS, now_ns + 1)
    return spans[-1][0] if spans and spans[-1][1] > now_ns else None


async def load_market_hours(name: str, now_ns: int) -> OpenSpans:
    """Find out when a market is open.

    Args:
        name: `always`, `weekly`, or a calendar's name in `pandas_market_calendars`.
        now_ns: The time now; the calendar is asked for the year that follows.

    Returns:
        Its hours; the plain week where the calendar can't be had, which the log says.
    """
    if name == ALWAYS:
        return always
    if name == WEEKLY:
        return weekly
    if find_spec(_LIBRARY) is None:
        _log.info("%s is not installed: holidays are not known to the watchdog, which is only less quiet", _LIBRARY)
        return weekly
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mdcapture.capture.market_hours", name, str(now_ns)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except (OSError, RuntimeError) as error:  # too many processes or threads, too many files, too little memory
        _log.warning("no calendar %r (%s); the plain week is used", name, error)
        return weekly
    try:
        output, errors = await process.communicate()
    except asyncio.CancelledError:  # the capture has ended already
        process.kill()
        await process.communicate()
        raise
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines()
        reason = quoted(lines[-1] if lines else process.returncode)
        _log.warning("no calendar %r (%s); the plain week is used", name, reason)
        return weekly
    return calendar([(opens, closes) for opens, closes in json.loads(output)])


def _listed(name: str, now_ns: int) -> list[tuple[int, int]]:
    """What the library says of the days around now."""
    today = datetime.fromtimestamp(now_ns // NS_PER_S, UTC).date()
    schedule = (
        import_module(_LIBRARY)
        .get_calendar(name)
        .schedule(today - _BEFORE, today + _AHEAD, tz="UTC", market_times="all")
    )
    spans: list[tuple[int, int]] = []
    for _, day in schedule.iterrows():
        breaks = (day["break_start"], day["break_end"]) if "break_start" in day else ()
        edges = [int(at.timestamp()) * NS_PER_S for at in (day["market_open"], *breaks, day["market_close"])]
        for opens, closes in zip(edges[::2], edges[1::2], strict=True):
            if spans and spans[-1][1] == opens:
                spans[-1] = (spans[-1][0], closes)
            elif opens < closes:
                spans.append((opens, closes))
    return spans


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_listed(sys.argv[1], int(sys.argv[2]))))
