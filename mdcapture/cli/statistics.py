"""A capture's live figures on stderr: a table that stays in place, plain lines, or JSON lines."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import msgspec

from mdcapture.errors import UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.table import Table

    from mdcapture.capture.health import Figures
    from mdcapture.capture.recorder import Captured, Recorder

__all__ = ["plain_line", "show_statistics"]

_HOW = ("auto", "live", "plain", "json", "none")
_PLAIN_EVERY_S = 10.0
_LOOK_S = 0.1


def show_statistics(recorder: Recorder, *, how: str, every_s: float) -> Captured:
    """Show figures until the capture ends.

    Args:
        recorder: It has been started.
        how: `auto` (live on a terminal, otherwise plain), `live`, `plain`, `json` or `none`.
        every_s: How often; plain lines come at most every ten seconds.

    Returns:
        What was captured.

    Raises:
        UsageError: There is no such way to show them.
    """
    if how not in _HOW:
        raise UsageError(f"--stats {how}: it is one of {', '.join(_HOW)}")
    if how == "auto":
        how = "live" if sys.stderr.isatty() else "plain"
    every_s = max(every_s, _PLAIN_EVERY_S) if how == "plain" else every_s
    with _screen(how) as screen:
        shown_s = time.monotonic()
        while (captured := recorder.wait(_LOOK_S)) is None:
            if time.monotonic() - shown_s < every_s or (figures := recorder.figures()) is None or recorder.ending:
                continue
            shown_s = time.monotonic()
            if screen is not None:
                screen.update(_table(figures))
            elif how == "json":
                sys.stderr.write(msgspec.json.encode(figures).decode() + "\n")
            elif how == "plain":
                sys.stderr.write(plain_line(figures) + "\n")
    return captured


def plain_line(figures: Figures) -> str:
    """The figures as one line."""
    streams = ", ".join(f"{count:,} {name}" for name, count in sorted(figures.rows.items()))
    lag = "" if figures.lag_p50_ms is None else f", lag {figures.lag_p50_ms:.0f} ms"
    return (
        f"{figures.session_id}: {figures.messages:,} messages ({figures.messages_per_s:,.0f}/s; {streams}){lag}, "
        f"journal {figures.journal_mb:.1f} MB, memory {figures.memory_mb:.0f} MB, "
        f"disk {figures.disk_free_mb / 1024:.1f} GB free, {figures.gaps:,} gaps"
        + ("" if figures.connected else ", NOT CONNECTED")
    )


def _screen(how: str) -> AbstractContextManager[Any]:
    if how != "live":
        return nullcontext()
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(stderr=True), auto_refresh=False, transient=True)


def _table(figures: Figures) -> Table:
    from rich.table import Table

    state = "[green]connected[/]" if figures.connected else "[bold red]not connected[/]"
    table = Table(title=f"{figures.session_id}  {state}", title_justify="left", expand=False)
    for name in ("", "total", "a second"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("messages", f"{figures.messages:,}", f"{figures.messages_per_s:,.0f}")
    for stream, count in sorted(figures.rows.items()):
        table.add_row(f"  {stream}", f"{count:,}", f"{figures.rows_per_s.get(stream, 0):,.0f}")
    table.add_section()
    for contract in figures.contracts:
        if contract.last_price is not None:
            table.add_row(contract.contract_id, f"{contract.last_price:g}", "")
    table.add_section()
    table.add_row("lag", "" if figures.lag_p50_ms is None else f"{figures.lag_p50_ms:.1f} ms", "")
    table.add_row("journal, unsealed", f"{figures.journal_mb:.1f} MB", f"{figures.flush_delay_ms:.1f} ms behind")
    table.add_row("memory", f"{figures.memory_mb:.0f} MB", "")
    table.add_row("disk left", f"{figures.disk_free_mb / 1024:.1f} GB", "")
    table.add_row("gaps", f"{figures.gaps:,}", "")
    if figures.dropped:
        table.add_row("passed handlers by", f"{figures.dropped:,}", "")
    return table
