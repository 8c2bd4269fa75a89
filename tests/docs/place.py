"""Where commands are run for what they say: a folder, a lake and a gateway, and what stands in for other ones."""

from __future__ import annotations

import io
import shutil
import sqlite3
import sys
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

import pytest
from tapes import CONTRACT, records, write_tape

import mdcapture as md
from mdcapture.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["NOBODY", "Place", "answering", "raised", "without"]

NOBODY = "127.0.0.1:9"
"""Where nobody listens: connections are refused at once."""


class Place(NamedTuple):
    """Where a command runs: a lake of one session, a folder for scratch, and a gateway."""

    lake: Path
    folder: Path
    gateway: str

    def run(self, *arguments: str, answer: io.StringIO | None = None) -> tuple[int, str]:
        """Run a command in this process; its exit code, and what it said on stderr."""
        said = io.StringIO()
        sys.argv = ["mdcapture", *arguments]
        with redirect_stderr(said), redirect_stdout(answer or io.StringIO()):
            try:
                main()
            except SystemExit as end:
                return int(end.code or 0), said.getvalue()
        return 0, said.getvalue()

    def ask(self, *arguments: str) -> tuple[int, str]:
        """Run a command on the lake."""
        return self.run(*arguments, "--lake", str(self.lake))

    def export(self, target: str, *arguments: str) -> tuple[int, str]:
        """Export the lake's session."""
        return self.ask("export", "latest", "-o", target, *arguments)

    def bring(self, source: str) -> tuple[int, str]:
        """Import a file into a new lake."""
        return self.run("import", source, "--lake", "new")

    def capture(self, *arguments: str) -> tuple[int, str]:
        """Begin a capture into a new lake."""
        given = [] if "--gateway" in arguments else ["--gateway", self.gateway]
        return self.run("capture", *given, "--lake", str(self.folder / "new"), *arguments)

    def recorder(self, clock: Callable[[], int] | None = None, **settings: object) -> md.Recorder:
        """A recorder of the gateway's market into a new lake."""
        given = {"contracts": ["MNQ"], "gateway": self.gateway, "lake": str(self.folder / "new")} | settings
        return md.Recorder(md.Config(**given), **({} if clock is None else {"clock": clock}))

    def written(self, name: str, text: str) -> str:
        """A file of this text."""
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def tape(self, *contract_ids: str) -> str:
        """A tape of a few messages of each."""
        messages = [one for contract_id in contract_ids or (CONTRACT,) for one in records(5, contract_id=contract_id)]
        return str(write_tape(self.folder / "good.ndjson", messages))

    def database(self, *statements: str) -> str:
        """A SQLite file of somebody else's."""
        path = self.folder / "other.db"
        with closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)
        return str(path)

    def damaged(self, pattern: str, change: Callable[[Path], object]) -> Path:
        """A copy of the lake in which one file was changed."""
        copy = self.folder / "copy"
        shutil.copytree(self.lake, copy)
        change(next(copy.glob(pattern)))
        return copy

    def in_the_environment(self, **other: str) -> tuple[int, str]:
        """What a capture says where who logs in, and the key, is said in another way, or is another one."""
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MDCAPTURE_API_KEY")
            for name, value in other.items():
                patch.setenv(name, value)
            return self.capture("--contract", "MNQ")


def raised(call: Callable[[], object]) -> tuple[int, str]:
    """What the library raises, as the command line would end."""
    with pytest.raises(md.MdcaptureError) as caught:
        call()
    return caught.value.exit_code, str(caught.value)


def without(library: str, call: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """What is said where a library is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, library, None)
        return call()


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A web server that says the same to all; gives its host and port."""

    class Same(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815  # its names are those of http.server

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Same) as server:
        Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
