"""How much of a market's open hours was captured: spans of sessions and gaps in, a row a trading day out."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import polars as pl

from mdcapture.analysis.hours import EXCHANGE_ZONE
from mdcapture.capture.market_hours import weekly
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mdcapture.capture.market_hours import OpenSpans

__all__ = ["Span", "coverage"]

Span = tuple[int, int]
"""From a time up to before another (ns UTC)."""

_ROLL: Final = time(17)
_SCHEMA: Final = {
    "contract": pl.String,
    "day": pl.Date,
    "open_s": pl.Float64,
    "captured_s": pl.Float64,
    "share": pl.Float64,
    "gaps": pl.Int64,
}


def coverage(
    captured: Iterable[tuple[str, Span]], missing: Iterable[tuple[str, Span]], open_spans: OpenSpans = weekly
) -> pl.DataFrame:
    """What was captured of each trading day of each contract, from its first to its last.

    Args:
        captured: Contracts, and when each was captured; spans may overlap.
        missing: Contracts, and when data of theirs can be missing.
        open_spans: When the market is open; by default the plain week of Globex, which knows no holidays.

    Returns:
        `contract`, `day` (of trading, from 17:00 in Chicago on the evening before), `open_s`, `captured_s` (of these),
        `share` (null where the market was closed all day) and `gaps` (that began on that day), by contract and day.
    """
    spans, holes = _by_contract(captured), _by_contract(missing)
    rows = [
        row
        for contract in sorted(spans)
        for row in _days(contract, spans[contract], holes.get(contract, []), open_spans)
    ]
    return pl.DataFrame(rows, _SCHEMA, orient="row")


def _by_contract(spans: Iterable[tuple[str, Span]]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for contract, span in spans:
        found.setdefault(contract, []).append(span)
    return found


def _days(
    contract: str, captured: Sequence[Span], holes: Sequence[Span], open_spans: OpenSpans
) -> Iterator[tuple[object, ...]]:
    lost = _union(holes)
    good = list(_without(_union(captured), lost))
    first, last = (_trading_day(ns) for ns in (min(captured)[0], max(end for _, end in captured) - 1))
    days = [first + timedelta(days=number) for number in range((last - first).days + 2)]
    for day, (from_ns, to_ns) in zip(days, pairwise(map(_begin_ns, days)), strict=False):
        market = open_spans(from_ns, to_ns)
        open_ns = sum(end - start for start, end in market)
        captured_ns = sum(max(0, min(end, to) - max(start, begin)) for begin, to in market for start, end in good)
        gaps = sum(from_ns <= start < to_ns for start, _ in lost)
        share = captured_ns / open_ns if open_ns else None
        yield contract, day, open_ns / NS_PER_S, captured_ns / NS_PER_S, share, gaps


def _union(spans: Iterable[Span]) -> list[Span]:
    """The same time as spans that are in order and apart."""
    apart: list[Span] = []
    for start, end in sorted(spans):
        if apart and start <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(end, apart[-1][1]))
        else:
            apart.append((start, end))
    return apart


def _without(spans: Sequence[Span], holes: Sequence[Span]) -> Iterator[Span]:
    """What holes leave of spans; both in order and apart."""
    for start, end in spans:
        begin = start
        for hole_start, hole_end in holes:
            if hole_end > begin and hole_start < end:
                if hole_start > begin:
                    yield begin, hole_start
                begin = max(begin, hole_end)
        if begin < end:
            yield begin, end


def _trading_day(time_ns: int) -> date:
    clock = datetime.fromtimestamp(time_ns // NS_PER_S, UTC).astimezone(ZoneInfo(EXCHANGE_ZONE))
    return clock.date() + timedelta(days=clock.time() >= _ROLL)


def _begin_ns(day: date) -> int:
    evening = datetime.combine(day - timedelta(days=1), _ROLL, ZoneInfo(EXCHANGE_ZONE))
    return int(evening.timestamp()) * NS_PER_S
