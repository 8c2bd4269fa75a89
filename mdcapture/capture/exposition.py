"""The figures for Prometheus, at a port of this machine: `http://127.0.0.1:PORT/metrics`."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiohttp import web

from mdcapture.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from mdcapture.capture.health import Figures

__all__ = ["exposition", "serving"]

_log = logging.getLogger(__name__)

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_LOOPBACK: Final = "127.0.0.1"


def exposition(figures: Figures) -> str:
    """Figures in Prometheus' text format; units are seconds and bytes, as is the custom there."""
    return "".join(
        f"# HELP mdcapture_{name} {text}\n# TYPE mdcapture_{name} {'counter' if name.endswith('_total') else 'gauge'}\n"
        + "".join(f"mdcapture_{name}{labels} {value!r}\n" for labels, value in samples.items())
        for name, text, samples in _metrics(figures)
    )


def _metrics(figures: Figures) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Name, meaning, and values by their labels."""
    kb, mb = 1024, 1024 * 1024
    rows: dict[str, float] = {f'{{stream="{stream}"}}': count for stream, count in sorted(figures.rows.items())}
    yield "session_info", "The session that is written.", {f'{{session="{figures.session_id}"}}': 1}
    yield "figures_timestamp_seconds", "When these figures were taken.", {"": figures.at_ns / 1e9}
    yield "connected", "Whether the hub's connection stands.", {"": int(figures.connected)}
    yield "messages_total", "Messages journaled.", {"": figures.messages}
    yield "rows_total", "Rows decoded live.", rows
    yield "incidents_total", "Incidents.", {"": figures.incidents}
    yield "queued_batches", "Batches that wait for handlers.", {"": figures.queued}
    yield "dropped_total", "Messages that passed by slow handlers.", {"": figures.dropped}
    yield "lost_total", "Messages that neither the disk nor memory had room for.", {"": figures.lost}
    quantiles = {"0.5": figures.lag_p50_ms, "0.99": figures.lag_p99_ms}
    lag = {f'{{quantile="{share}"}}': ms / 1000 for share, ms in quantiles.items() if ms is not None}
    yield "lag_seconds", "From the gateway's time of an event to its receive time.", lag
    yield "flush_delay_seconds", "What the oldest message of a flush had waited.", {"": figures.flush_delay_ms / 1000}
    yield "memory_bytes", "Resident memory.", {"": figures.memory_mb * mb}
    yield "collections_total", "Collections of Python's youngest garbage.", {"": figures.collections}
    yield "open_files", "Open files and sockets.", {"": figures.open_files}
    yield "journal_bytes", "The journal that is not yet sealed.", {"": figures.journal_mb * mb}
    yield "pending_bytes", "What is not yet in the journal.", {"": figures.pending_kb * kb}
    yield "disk_failing", "Whether the disk refuses to be written.", {"": int(figures.disk_failing)}
    yield "disk_free_bytes", "Free space on the lake's disk.", {"": figures.disk_free_mb * mb}
    yield "limits_reached", "Limits that are reached.", {"": len(figures.limits)}


@asynccontextmanager
async def serving(port: int, latest: Callable[[], Figures | None]) -> AsyncIterator[int]:
    """Serve figures to this machine for the length of the block.

    Args:
        port: Where; 0 is any port that is free.
        latest: The figures of the moment; None while there are none.

    Yields:
        The port.

    Raises:
        UsageError: The port is taken, or not ours to take.
    """

    async def metrics(_: web.Request) -> web.Response:
        figures = latest()
        if figures is None:
            return web.Response(status=503, text="no session is open yet\n")
        return web.Response(body=exposition(figures).encode(), headers={"Content-Type": _CONTENT_TYPE})

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, _LOOPBACK, port).start()
        except OSError as error:
            raise UsageError(f"metrics_port: can't listen at port {port} ({error.strerror}): choose another") from error
        port = runner.addresses[0][1]
        _log.info("figures are served at http://%s:%d/metrics", _LOOPBACK, port)
        yield port
    finally:
        await runner.cleanup()
