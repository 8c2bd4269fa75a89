"""The screen of `mdcapture top`: recordings as text, for a terminal, or plain for whoever reads it elsewhere."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mdcapture.cli.output import harmless
from mdcapture.lake.schema import STREAMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from mdcapture.capture.health import ContractFigures, Figures
    from mdcapture.capture.recordings import Recording
    from mdcapture.lake.schema import Incident

__all__ = ["Board", "lasting"]

_BARS: Final = "▁▂▃▄▅▆▇█"
_HISTORY: Final = 20
_INCIDENTS: Final = 5
_QUIET_S: Final = 10.0
_UNKNOWN: Final = "-"
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


def lasting(seconds: float) -> str:
    """A length of time in two units at most: `0.4 s`, `12.0 s`, `5 min`, `3 h 07 min`, `2 d 03 h`."""
    if seconds < _MINUTE_S:
        return f"{max(0.0, seconds):.1f} s"
    minutes = int(seconds // 60)
    if seconds < _HOUR_S:
        return f"{minutes} min"
    if seconds < _DAY_S:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes // 1440} d {minutes // 60 % 24:02} h"


class Board:
    """Draws recordings again and again, and remembers their rates."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, str], deque[float]] = {}

    def draw(self, recordings: Sequence[Recording], now_ns: int) -> RenderableType:
        """All recordings at one moment, each with a heading, its figures, its contracts and its last incidents."""
        wrong = sum(not one.ok for one in recordings)
        title = Text.assemble(
            ("mdcapture", "bold"),
            f"  {len(recordings)} recorder{'' if len(recordings) == 1 else 's'}",
            (f", {wrong} with problems" if wrong else "", "bold red"),
            (f"  {_clock(now_ns)} UTC", "dim"),
        )
        if not recordings:
            return Group(
                title, "", Text("Nothing is being recorded: start with `mdcapture capture`, or name a --lake.")
            )
        return Group(title, *(part for one in recordings for part in self._recording(one, now_ns)))

    def _recording(self, one: Recording, now_ns: int) -> Iterator[RenderableType]:
        figures = one.figures
        where = harmless(one.lake) if figures is None else f"pid {figures.pid}, {harmless(one.lake)}"
        heading = Text.assemble(_state(one), f"  {one.session_id}  ", (where, "dim"))
        yield Text()
        yield Rule(heading, align="left", style="dim")
        for problem in one.problems:
            yield Text(f"  ! {harmless(problem)}", "bold red")
        if figures is None:
            return
        rates = self._rates.setdefault((one.lake, one.session_id), deque(maxlen=_HISTORY))
        rates.append(figures.messages_per_s)
        yield Padding(_summary(one, figures, rates, now_ns), (0, 0, 0, 2))
        yield Padding(_contracts(figures.contracts, now_ns), (1, 0, 0, 2))
        if figures.last_incidents:
            yield Padding(_incidents(figures), (1, 0, 0, 2))


def _state(one: Recording) -> tuple[str, str]:
    """A recorder's state and its colour; it ends where all that is left is sealing."""
    if not one.ok:
        return "● not well", "bold red"
    connected = one.figures is not None and one.figures.connected
    return ("● recording", "bold green") if connected else ("● ending", "bold yellow")


def _clock(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%H:%M:%S}"


def _summary(one: Recording, figures: Figures, rates: Sequence[float], now_ns: int) -> Table:
    """What there is to say of a recorder as a whole, in three pairs of columns."""
    lag = _UNKNOWN if figures.lag_p50_ms is None else f"{figures.lag_p50_ms:,.0f} ms, p99 {figures.lag_p99_ms:,.0f} ms"
    process = f"{figures.cpu_percent:.0f} % CPU, {figures.memory_mb:,.0f} MB"
    rows = (
        (("rate", f"{figures.messages_per_s:,.0f}/s"), ("lag", lag), ("process", process)),
        (
            ("messages", f"{figures.messages:,}"),
            ("journal", f"{figures.journal_mb:,.1f} MB, {figures.flush_delay_ms:.0f} ms behind"),
            ("disk", f"{figures.disk_free_mb / 1024:,.1f} GB free"),
        ),
        (
            ("running", lasting((now_ns - figures.started_ns) / 1e9)),
            ("sealed", f"{one.sealed_mb:,.1f} MB, {one.sealed_messages:,} msg"),
            ("gaps", f"{figures.gaps:,}"),
        ),
    )
    grid = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        grid.add_row(*(part for name, value in row for part in (Text(name, "dim"), Text(value))))
    grid.add_row(Text("lately", "dim"), Text(_sparkline(rates), "cyan", overflow="crop"))
    for name, count in (("lost", figures.lost), ("past handlers", figures.dropped)):
        if count:
            grid.add_row(Text(name, "bold red"), Text(f"{count:,}", "bold red"))
    return grid


def _sparkline(values: Sequence[float]) -> str:
    top = max(values, default=0) or 1
    return "".join(_BARS[min(len(_BARS) - 1, int(max(0, value) / top * len(_BARS)))] for value in values)


def _contracts(contracts: Sequence[ContractFigures], now_ns: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("contract", no_wrap=True)
    for name in ("last", "bid", "ask", *(f"{stream}/s" for stream in STREAMS), "quiet"):
        table.add_column(name, justify="right", no_wrap=True)
    if any(one.gaps for one in contracts):
        table.add_column("missing now")
    for one in contracts:
        quiet_s = None if one.heard_ns is None else (now_ns - one.heard_ns) / 1e9
        table.add_row(
            Text(harmless(one.name or one.contract_id)),
            *_prices(one),
            *(f"{one.rows_per_s.get(stream, 0):,.0f}" for stream in STREAMS),
            Text(_UNKNOWN, "yellow")
            if quiet_s is None
            else Text(lasting(quiet_s), "yellow" if quiet_s > _QUIET_S else ""),
            *([Text(", ".join(one.gaps), "bold red")] if one.gaps else []),
        )
    return table


def _prices(one: ContractFigures) -> list[str]:
    """Last, bid and ask, with as many decimals as the one that needs the most."""
    prices = (one.last_price, one.best_bid, one.best_ask)
    decimals = max(len(f"{price or 0:.10g}".partition(".")[2]) for price in prices)
    return [_UNKNOWN if price is None else f"{price:.{decimals}f}" for price in prices]


def _incidents(figures: Figures) -> Table:
    names = {one.contract_id: one.name for one in figures.contracts}
    table = Table.grid(padding=(0, 2, 0, 0))
    for incident in reversed(figures.last_incidents[-_INCIDENTS:]):
        where = " ".join(
            part for part in (names.get(incident.contract_id or "") or incident.contract_id, incident.stream) if part
        )
        table.add_row(
            Text(_clock(incident.from_ns), "dim"),
            Text(incident.kind.replace("_", " "), "yellow"),
            Text(harmless(where)),
            _length(incident),
            Text(harmless(incident.detail), "dim", overflow="ellipsis", no_wrap=True),
        )
    return table


def _length(incident: Incident) -> str:
    return "" if incident.to_ns is None else lasting((incident.to_ns - incident.from_ns) / 1e9)
