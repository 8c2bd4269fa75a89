"""When a trading day ends."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mdcapture.errors import ConfigError
from mdcapture.wire.timestamps import NS_PER_S

__all__ = ["next_roll_ns"]


def next_roll_ns(now_ns: int, roll_time: str, zone: str) -> int | None:
    """The next end of a trading day.

    Args:
        now_ns: Nanoseconds since the epoch, UTC.
        roll_time: `HH:MM` on the exchange's clock; empty for a day without end.
        zone: The exchange's time zone.

    Returns:
        Nanoseconds since the epoch, later than `now_ns`; None where the day has no end.

    Raises:
        ConfigError: There is no such time zone.
    """
    if not roll_time:
        return None
    try:
        exchange = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigError(f"roll_zone: there is no time zone {zone!r}; America/Chicago is one") from None
    at = time.fromisoformat(roll_time)
    today = datetime.fromtimestamp(now_ns // NS_PER_S, UTC).astimezone(exchange).date()
    ends = (datetime.combine(today + timedelta(days=days), at, exchange) for days in range(3))
    return next(ns for ns in (int(end.timestamp()) * NS_PER_S for end in ends) if ns > now_ns)
