"""A recorder's figures, each second, to whoever watches it: the status file, systemd, Prometheus.

The beat of systemd's watchdog comes from the capture's own loop, right beside the journal: as long as there is one,
messages are being taken.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, NoReturn

from mdcapture.capture.exposition import serving
from mdcapture.capture.health import write_status
from mdcapture.capture.systemd import notify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mdcapture.capture.health import Figures

__all__ = ["publish"]

_EVERY_S: Final = 1.0


async def publish(take: Callable[[], Figures], root: Path, metrics_port: int | None) -> NoReturn:
    """Publish figures until cancelled.

    Args:
        take: Takes them; called in a thread.
        root: The lake.
        metrics_port: Where Prometheus may ask; None for nowhere.

    Raises:
        UsageError: The port is taken.
    """
    latest: Figures | None = None

    def renew() -> Figures:
        nonlocal latest
        figures = latest = take()  # whoever has seen the file is not told older ones
        write_status(root, figures)
        return figures

    async with AsyncExitStack() as stack:
        if metrics_port is not None:
            await stack.enter_async_context(serving(metrics_port, lambda: latest))
        notify("READY=1")
        while True:
            figures = await asyncio.to_thread(renew)
            notify("WATCHDOG=1", f"STATUS={_status(figures)}")
            await asyncio.sleep(_EVERY_S)


def _status(figures: Figures) -> str:
    state = "" if figures.connected else "NOT CONNECTED, "
    return (
        f"{figures.session_id}: {state}{figures.messages:,} messages, {figures.messages_per_s:,.0f} a second, "
        f"{figures.incidents:,} incidents"
    )
