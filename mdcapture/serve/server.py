"""The server of one lake's page, for this machine.

GET  /                                 the page
GET  /live?session=…&contract=…        server-sent events: a `Now` each second
GET  /sessions                         the sessions, the newest first
GET  /sessions/ID/files                the Parquet files of one
GET  /sessions/ID/files/PATH           one of them
GET  /sessions/ID/report               its report, or a page that waits for it
POST /query                            {"query", "session"} → an `Answer`
POST /query.csv                        the same as a form → all rows, a download

What goes wrong is answered as {"error": …}, or as a line of text where a person sees it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from mdcapture.errors import MdcaptureError, NotFoundError, UsageError
from mdcapture.serve.guard import only_own_pages, with_safe_headers
from mdcapture.serve.live import follow
from mdcapture.serve.page import main_page, waiting_page
from mdcapture.serve.queries import Queries, QueryLimits
from mdcapture.serve.reports import Reports
from mdcapture.session import Lake, open_lake

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.typedefs import Handler

    from mdcapture.session import Session

__all__ = ["serving"]

_LARGEST_REQUEST: Final = 256 * 1024
_REPORT_POLICY: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""A report's scripts are its own: in the sandbox they are of no origin, and can't ask this server anything."""


@asynccontextmanager
async def serving(
    lake: str | Path, *, host: str = "127.0.0.1", port: int = 0, limits: QueryLimits | None = None
) -> AsyncIterator[str]:
    """Serve a lake for the length of the block.

    Args:
        lake: Its folder.
        host: The address to listen at; whoever can reach it can read the lake.
        port: The port; 0 is any that is free.
        limits: What a query may take.

    Yields:
        The page's address.

    Raises:
        NotFoundError: There is no such lake.
        UsageError: The lake is not on this machine, or the port is not free.
    """
    opened = open_lake(lake)
    if not isinstance(opened.path, Path):
        raise UsageError(f"{opened.path} is not on this machine: only a lake in a folder can be served")
    with tempfile.TemporaryDirectory(prefix="mdcapture-serve-") as folder:
        site = _Site(opened, opened.path, Path(folder), limits or QueryLimits())
        runner = web.AppRunner(site.application(), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await _listen(runner, host, port)
            name = f"[{host}]" if ":" in host else host
            yield f"http://{name}:{runner.addresses[0][1]}/"
        finally:
            await site.stop()
            await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise UsageError(f"can't listen at {host}:{port} ({why}): choose another --port, or 0") from error


class _Site:
    """The pages of a lake, and what they ask."""

    def __init__(self, lake: Lake, root: Path, folder: Path, limits: QueryLimits) -> None:
        self._lake = lake
        self._root = root
        self._queries = Queries(root, limits)
        self._reports = Reports(root, folder)
        self._stopping = asyncio.Event()
        self._page, self._policy = main_page(root, limits)

    def application(self) -> web.Application:
        """What answers requests."""
        application = web.Application(middlewares=[only_own_pages, _explain], client_max_size=_LARGEST_REQUEST)
        application.on_response_prepare.append(with_safe_headers)
        session = r"/sessions/{session:session_\w+}"
        application.add_routes(
            [
                web.get("/", self._index),
                web.get("/live", self._live),
                web.get("/sessions", self._sessions),
                web.get(f"{session}/files", self._files),
                web.get(f"{session}/files/{{path:.+}}", self._file),
                web.get(f"{session}/report", self._report),
                web.post("/query", self._query),
                web.post("/query.csv", self._csv),
            ]
        )
        return application

    async def stop(self) -> None:
        """Let the streams of events end, and what is being made."""
        self._stopping.set()
        await self._reports.stop()

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(
            text=self._page, content_type="text/html", headers={"Content-Security-Policy": self._policy}
        )

    async def _live(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        wanted = request.query.get("session", ""), request.query.get("contract", "")
        async for now in follow(self._lake, self._root, *wanted, self._stopping):
            await response.write(b"data: " + msgspec.json.encode(now) + b"\n\n")
        return response

    async def _sessions(self, _: web.Request) -> web.Response:
        def rows() -> list[dict[str, Any]]:
            return [_row(session) for session in reversed(self._lake.sessions())]

        return _json(await asyncio.to_thread(rows))

    async def _files(self, request: web.Request) -> web.Response:
        manifest = self._session(request).manifest
        files = sorted(manifest.files, key=lambda file: (file.table, file.contract_id or "", file.path))
        return _json([{name: getattr(file, name) for name in _FILE} for file in files])

    async def _file(self, request: web.Request) -> web.FileResponse:
        """Only what the manifest names: no other path is looked at."""
        path = request.match_info["path"]
        session = self._session(request)
        if path not in (file.path for file in session.manifest.files):
            raise NotFoundError(f"{session.session_id} has no file {path} (any more)")
        name = "_".join(part.rpartition("=")[2] for part in Path(path).parts)
        return web.FileResponse(
            self._root / path,
            headers={"Content-Disposition": _attachment(name), "Content-Type": "application/octet-stream"},
        )

    async def _report(self, request: web.Request) -> web.StreamResponse:
        manifest = self._session(request).manifest
        made = self._reports.page(manifest)
        if isinstance(made, Path):
            headers = {"Content-Security-Policy": _REPORT_POLICY, "Content-Type": "text/html; charset=utf-8"}
            return web.FileResponse(made, headers=headers)
        page, policy = waiting_page(manifest.session_id, made)
        return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": policy})

    async def _query(self, request: web.Request) -> web.Response:
        asked = msgspec.json.decode(await request.read(), type=_Asked)
        return _json(await self._queries.ask(asked.query, asked.session))

    async def _csv(self, request: web.Request) -> web.StreamResponse:
        asked = msgspec.convert(dict(await request.post()), _Asked)
        headers = {"Content-Disposition": _attachment("query.csv"), "Content-Type": "text/csv; charset=utf-8"}
        response = web.StreamResponse(headers=headers)
        async with aclosing(self._queries.csv(asked.query, asked.session)) as pieces:
            first = await anext(pieces, b"")  # most errors come before it: then there is an answer to say so
            await response.prepare(request)
            await response.write(first)
            try:
                async for piece in pieces:
                    await response.write(piece)
            except UsageError:  # too late for words: a download that breaks off is seen to be no whole one
                if request.transport is not None:
                    request.transport.abort()
        return response

    def _session(self, request: web.Request) -> Session:
        return self._lake.session(request.match_info["session"])


class _Asked(msgspec.Struct):
    query: str
    session: str = ""


_FILE: Final = ("path", "table", "contract_id", "rows", "bytes", "sha256")
_COUNTS: Final = ("messages", "quotes", "trades", "depth", "rejects", "incidents")


def _row(session: Session) -> dict[str, Any]:
    now = session.snapshot()
    return {
        "session_id": session.session_id,
        "status": now.manifest.state,
        "start_ns": now.start_ns,
        "end_ns": now.end_ns,
        "contracts": [{"contract_id": one.contract_id, "name": one.name} for one in now.contracts],
        **{name: now.counts[name] for name in _COUNTS},
    }


@web.middleware
async def _explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer an error by its message."""
    try:
        return await handler(request)
    except (MdcaptureError, msgspec.ValidationError, msgspec.DecodeError) as error:
        status = 404 if isinstance(error, NotFoundError) else 400
        if request.method == "POST" and request.path == "/query":
            return _json({"error": str(error)}, status)
        return web.Response(text=f"{error}\n", status=status)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _attachment(name: str) -> str:
    """A header that has a browser save the answer; the name keeps to letters that need no quoting."""
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in name)
    return f'attachment; filename="{safe}"'
