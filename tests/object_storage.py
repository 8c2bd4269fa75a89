"""A real S3 server for tests, the way to it, which can be cut and watched, and a bucket."""

from __future__ import annotations

import re
import select
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from programs import LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["KEY_ID", "SECRET", "S3Server", "Way", "aws", "s3_server"]

KEY_ID: Final = "AKIACANARY0000000000"
SECRET: Final = "canary-d41d8cd98f00b204"  # noqa: S105  # nobody's, and looked for in all output

_PATIENCE_S: Final = 5.0
"""Nobody waits longer for the other side to read: a way can be cut at any time."""


def aws(endpoint: str) -> dict[str, str]:
    """The environment that leads to a server."""
    return {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class S3Server:
    """Where it is, and what a test asks of it that is no part of S3."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def make_bucket(self, name: str) -> None:
        self._send("PUT", f"/{name}")

    def check_credentials(self, *, on: bool) -> None:
        """Refuse everybody: it knows no user; or let anybody in again."""
        self._send("POST", "/moto-api/reset-auth", b"0" if on else b"inf")

    def _send(self, method: str, path: str, body: bytes = b"") -> None:
        headers = {"Content-Type": "text/plain"}  # or else the server takes it for a form
        request = urllib.request.Request(self.endpoint + path, body, headers, method=method)  # noqa: S310  # our own
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310  # our own
            answer.read()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server as a process."""
    code = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stderr)))
        draining = threading.Thread(target=process.stderr.read, daemon=True)
        draining.start()
        yield S3Server(found[0])
    finally:
        process.kill()
        process.wait(LIMIT_S)
        draining.join(LIMIT_S)
        process.stderr.close()


class Way:
    """A way to a server, by TCP: what passes is counted, and it can be cut, and opened again at the same port.

    Attributes:
        sent: Bytes to the server.
        received: Bytes from it.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        assert parts.hostname
        assert parts.port
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self._listener.close()
        self._threads: list[threading.Thread] = []
        self._cut = threading.Event()
        self.sent = self.received = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        self._cut.clear()
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._listener.settimeout(0.05)
        self._run(self._accept)

    def cut(self) -> None:
        self._cut.set()
        for thread in self._threads:
            thread.join(LIMIT_S)
        self._threads.clear()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with self._listener:
            while not self._cut.is_set():
                with suppress(TimeoutError):
                    client, _ = self._listener.accept()
                    self._run(self._carry, client)

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            client.settimeout(_PATIENCE_S)
            server.settimeout(_PATIENCE_S)
            while not self._cut.is_set():
                ready, _, _ = select.select([client, server], [], [], 0.05)
                for one in ready:
                    data = b""
                    with suppress(OSError):
                        data = one.recv(65_536)
                    if not data:
                        return
                    if one is client:
                        self.sent += len(data)
                    else:
                        self.received += len(data)
                    with suppress(OSError):
                        (server if one is client else client).sendall(data)
